//! The extension point *table map*: one source row to rows of several tables, and back.

use crate::bindings::table_map::exports::dualwright::table_map::table_map::{Mapped, Reference, TableRows};
use crate::bindings::table_map_back::exports::dualwright::table_map::table_map_back::{Merged, Part};
use crate::bindings::types::{self, Batch, CallError, Context, Schema};
use crate::buffer::{ColumnWriter, u32_of};
use crate::cell::{Cell, Kind};
use crate::instance::Configured;
use crate::issue::Verdict;
use crate::rows::{Row, Rows};
use crate::settings::{Column, Table, Tables};

const UPSERT: u8 = 1;
const DELETE: u8 = 2;

/// A row of the answer that was just added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRow {
    table: Table,
    /// Counted within its table, over all source rows.
    row: u32,
    /// Counted within this source row.
    pending: usize,
}

/// Text and bytes lie in the shared arena, so that a cell costs no allocation.
#[derive(Debug)]
enum Pending {
    Text(std::ops::Range<usize>),
    Fixed(Cell<'static>),
    Bytes(Box<[u8]>),
}

#[derive(Debug)]
struct PendingRow {
    table: Table,
    action: u8,
    cells: Vec<(Column, Pending)>,
}

/// The rows that one source row becomes.
#[derive(Debug)]
pub struct Split<'a> {
    answer: &'a mut Answer,
    rows: Vec<PendingRow>,
    texts: String,
}

impl Split<'_> {
    /// Adds a row that is created or changed.
    pub fn upsert(&mut self, table: Table) -> TargetRow {
        self.add(table, UPSERT)
    }

    /// Adds a row that is deleted; set its key.
    pub fn delete(&mut self, table: Table) -> TargetRow {
        self.add(table, DELETE)
    }

    fn add(&mut self, table: Table, action: u8) -> TargetRow {
        let before = self.rows.iter().filter(|row| row.table == table).count();
        let written = self.answer.tables.get(usize::from(table.0)).map_or(0, |rows| rows.actions.len());
        self.rows.push(PendingRow { table, action, cells: Vec::new() });
        TargetRow { table, row: u32_of(written + before), pending: self.rows.len() - 1 }
    }

    /// Sets a column of a row. What is not set is not written.
    pub fn set<'c>(&mut self, row: TargetRow, column: Column, value: impl Into<Cell<'c>>) {
        let cell = match value.into() {
            Cell::Text(text) => {
                let start = self.texts.len();
                self.texts.push_str(text);
                Pending::Text(start..self.texts.len())
            }
            Cell::Bytes(bytes) => Pending::Bytes(bytes.into()),
            Cell::Absent => return,
            Cell::Null => Pending::Fixed(Cell::Null),
            Cell::Boolean(value) => Pending::Fixed(Cell::Boolean(value)),
            Cell::Int(value) => Pending::Fixed(Cell::Int(value)),
            Cell::Float(value) => Pending::Fixed(Cell::Float(value)),
            Cell::Decimal(value) => Pending::Fixed(Cell::Decimal(value)),
            Cell::Timestamp(value) => Pending::Fixed(Cell::Timestamp(value)),
            Cell::Date(value) => Pending::Fixed(Cell::Date(value)),
            Cell::Guid(value) => Pending::Fixed(Cell::Guid(value)),
        };
        if column.table() == Some(row.table) {
            self.rows[row.pending].cells.push((column, cell));
        } else {
            self.answer.mistake(format!("the plugin set column {} of another table", column.id()));
        }
    }

    /// Sets a column where there is a value, and makes it empty where the source's cell is null. An absent cell is left
    /// out.
    pub fn copy(&mut self, row: TargetRow, column: Column, source: Row<'_>, from: Column) {
        self.set(row, column, source.cell(from));
    }

    /// Makes a lookup column point to another row of this answer, which may not have an id yet.
    pub fn refer(&mut self, row: TargetRow, column: Column, to: TargetRow) {
        if column.table() != Some(row.table) {
            self.answer.mistake(format!("the plugin set column {} of another table", column.id()));
        } else if let Some(rows) = self.answer.tables.get_mut(usize::from(row.table.0)) {
            rows.references.push(Reference {
                row: row.row,
                column: column.id(),
                target_table: to.table.0,
                target_row: to.row,
            });
        }
    }

    /// Writes the rows of this source row behind those of the rows before it.
    fn flush(self, source_row: usize, targets: &[Schema]) {
        let Self { answer, rows, texts } = self;
        for pending in rows {
            let id = usize::from(pending.table.0);
            let (Some(schema), Some(table)) = (targets.get(id), answer.tables.get_mut(id)) else {
                answer.mistake(format!("the plugin named target table {id}, which there is not"));
                continue;
            };
            let row = table.actions.len();
            table.actions.push(pending.action);
            table.source_rows.extend_from_slice(&u32_of(source_row).to_le_bytes());
            for (column, cell) in &pending.cells {
                let cell = match cell {
                    Pending::Text(range) => Cell::Text(&texts[range.clone()]),
                    Pending::Bytes(bytes) => Cell::Bytes(bytes),
                    Pending::Fixed(cell) => *cell,
                };
                if let Err(mistake) = set(schema, &mut table.writers, row, *column, cell) {
                    answer.mistake.get_or_insert(mistake);
                }
            }
        }
    }
}

fn set(
    schema: &Schema,
    writers: &mut [Option<ColumnWriter>],
    row: usize,
    column: Column,
    cell: Cell<'_>,
) -> Result<(), String> {
    let id = usize::from(column.id());
    let (Some(definition), Some(writer)) = (schema.columns.get(id), writers.get_mut(id)) else {
        return Err(format!("the plugin set column {id}, which there is not"));
    };
    let name = &definition.name;
    let Some(kind) = Kind::from_code(definition.kind).filter(|_| definition.writable) else {
        return Err(format!("the plugin set {name}, which it may not write"));
    };
    writer
        .get_or_insert_with(|| ColumnWriter::new(column.id(), kind, definition.scale, 0, 0))
        .set(row, cell)
        .map_err(|what| format!("the plugin set {name} to {what}"))
}

fn writers(schema: &Schema) -> Vec<Option<ColumnWriter>> {
    schema.columns.iter().map(|_| None).collect()
}

fn finish(writers: Vec<Option<ColumnWriter>>, rows: usize) -> Vec<types::Column> {
    writers.into_iter().flatten().filter_map(|writer| writer.finish(rows)).collect()
}

#[derive(Debug)]
struct AnswerRows {
    source_rows: Vec<u8>,
    actions: Vec<u8>,
    writers: Vec<Option<ColumnWriter>>,
    references: Vec<Reference>,
}

#[derive(Debug)]
struct Answer {
    tables: Vec<AnswerRows>,
    /// The first thing that went wrong: a mistake in the plugin.
    mistake: Option<String>,
}

impl Answer {
    fn new(tables: &Tables) -> Self {
        let tables = tables
            .targets
            .iter()
            .map(|schema| AnswerRows {
                source_rows: Vec::new(),
                actions: Vec::new(),
                writers: writers(schema),
                references: Vec::new(),
            })
            .collect();
        Self { tables, mistake: None }
    }

    fn mistake(&mut self, mistake: String) {
        self.mistake.get_or_insert(mistake);
    }
}

/// Runs a function of a source row over every row.
///
/// # Errors
/// When the buffers are broken, or the function set something it may not.
pub fn apply<S, V: Verdict>(
    function: impl Fn(&S, Row<'_>, &mut Split<'_>) -> V,
    configured: &Configured<S>,
    context: &Context,
    input: &Batch,
) -> Result<Mapped, CallError> {
    let tables = &configured.tables;
    let rows = Rows::new(context, &tables.source, None, input)?;
    let mut answer = Answer::new(tables);
    let mut issues = Vec::new();
    for row in rows.iter() {
        let mut split = Split { answer: &mut answer, rows: Vec::new(), texts: String::new() };
        function(&configured.state, row, &mut split).issues(&mut |issue| issues.push(issue.at(row.index())));
        split.flush(row.index(), &tables.targets);
    }
    if let Some(mistake) = answer.mistake {
        return Err(CallError::Failed(mistake));
    }
    let tables = answer.tables.into_iter().enumerate().filter(|(_, rows)| !rows.actions.is_empty());
    let tables = tables
        .map(|(id, rows)| {
            let count = rows.actions.len();
            TableRows {
                table: u16::try_from(id).unwrap_or(u16::MAX),
                rows: u32_of(count),
                source_rows: rows.source_rows,
                actions: rows.actions,
                columns: finish(rows.writers, count),
                references: rows.references,
            }
        })
        .collect();
    Ok(Mapped { tables, issues })
}

/// The rows of the target tables that belong to one source row.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    parts: &'a [PartRows<'a>],
    current: &'a Rows<'a>,
    source_row: usize,
}

impl<'a> Group<'a> {
    /// Its rows of one table, in the order in which they came.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let source_row = self.source_row;
        self.parts.iter().filter(move |part| part.table == table).flat_map(move |part| {
            part.by_source.get(source_row).into_iter().flatten().map(|&index| part.rows.row(index))
        })
    }

    /// The first of its rows of one table.
    #[must_use]
    pub fn row(&self, table: Table) -> Option<Row<'a>> {
        self.rows(table).next()
    }

    /// The source's row as it is now; None where there is none.
    #[must_use]
    pub fn current(&self) -> Option<Row<'a>> {
        self.current.row_if_there(self.source_row)
    }
}

#[derive(Debug)]
struct PartRows<'a> {
    table: Table,
    rows: Rows<'a>,
    by_source: Vec<Vec<usize>>,
}

/// The source row that a group becomes. Nothing is written unless something is set.
#[derive(Debug)]
pub struct Joined<'a> {
    schema: &'a Schema,
    writers: &'a mut [Option<ColumnWriter>],
    row: usize,
    action: u8,
    mistake: &'a mut Option<String>,
}

impl Joined<'_> {
    /// Sets a column of the source row. What is not set is not written.
    pub fn set<'c>(&mut self, column: Column, value: impl Into<Cell<'c>>) {
        let cell = value.into();
        if cell.is_absent() {
            return;
        }
        self.action = UPSERT;
        let result = match column.table() {
            None => set(self.schema, self.writers, self.row, column, cell),
            Some(_) => Err(format!("the plugin set column {} of another table", column.id())),
        };
        if let Err(mistake) = result {
            self.mistake.get_or_insert(mistake);
        }
    }

    /// Deletes the source row.
    pub fn delete(&mut self) {
        self.action = DELETE;
    }
}

/// Runs a function of a group over every source row.
///
/// # Errors
/// When the buffers are broken, or the function set something it may not.
pub fn apply_back<S, V: Verdict>(
    function: impl Fn(&S, Group<'_>, &mut Joined<'_>) -> V,
    configured: &Configured<S>,
    context: &Context,
    rows: u32,
    parts: &[Part],
    current: &[types::Column],
) -> Result<Merged, CallError> {
    let tables = &configured.tables;
    let rows = rows as usize;
    let current = Rows::beside(context, &tables.source, current, rows)?;
    let parts = parts.iter().map(|part| group(context, tables, part, rows)).collect::<Result<Vec<_>, _>>()?;
    let mut writers = writers(&tables.source);
    let mut mistake = None;
    let mut actions = Vec::with_capacity(rows);
    let mut issues = Vec::new();
    for source_row in 0..rows {
        let group = Group { parts: &parts, current: &current, source_row };
        let mut joined =
            Joined { schema: &tables.source, writers: &mut writers, row: source_row, action: 0, mistake: &mut mistake };
        function(&configured.state, group, &mut joined).issues(&mut |issue| issues.push(issue.at(source_row)));
        actions.push(joined.action);
    }
    match mistake {
        Some(mistake) => Err(CallError::Failed(mistake)),
        None => Ok(Merged { actions, columns: finish(writers, rows), issues }),
    }
}

fn group<'a>(
    context: &'a Context,
    tables: &'a Tables,
    part: &'a Part,
    source_rows: usize,
) -> Result<PartRows<'a>, CallError> {
    let table = Table(part.table);
    let schema = tables
        .targets
        .get(usize::from(part.table))
        .ok_or_else(|| CallError::Failed(format!("target table {} was not configured", part.table)))?;
    let rows = Rows::new(context, schema, Some(table), &part.rows)?;
    if part.source_rows.len() != rows.len() * 4 {
        return Err(CallError::Failed("the source rows are for other rows".to_owned()));
    }
    let mut by_source = vec![Vec::new(); source_rows];
    for (index, bytes) in part.source_rows.chunks_exact(4).enumerate() {
        let source_row = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        by_source
            .get_mut(source_row)
            .ok_or_else(|| CallError::Failed(format!("source row {source_row} is not among {source_rows}")))?
            .push(index);
    }
    Ok(PartRows { table, rows, by_source })
}
