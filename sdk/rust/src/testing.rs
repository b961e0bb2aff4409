//! Calls a plugin as the host does, in an ordinary unit test: same buffers, no WebAssembly.
//!
//! ```
//! use dualwright_sdk::prelude::*;
//! use dualwright_sdk::testing::{Bench, column};
//!
//! fn shout(_: &(), text: &str) -> String {
//!     text.to_uppercase()
//! }
//!
//! dualwright_sdk::plugin! {
//!     name: "shout",
//!     text: "Writes texts in upper case.",
//!     state: (),
//!     transform: text(shout),
//! }
//!
//! # fn main() {
//! let bench = Bench::new([column("name", Kind::Text).writable()]);
//! let patched = bench.transform::<Plugin>(&[vec!["a".into()], vec!["B".into()]]).expect("it works");
//! assert_eq!(patched, ["name=A", "="]);
//! # }
//! ```

use std::fmt::Write;

use crate::bindings::describe::exports::dualwright::plugin::describe as describe_export;
use crate::bindings::post::exports::dualwright::validate::post;
use crate::bindings::pre::exports::dualwright::validate::pre;
use crate::bindings::table_map::exports::dualwright::table_map::table_map;
use crate::bindings::table_map_back::exports::dualwright::table_map::table_map_back;
use crate::bindings::transform::exports::dualwright::transform::transform;
use crate::bindings::types::{
    Batch, CallError, ColumnDef, Context, Issue, Refusal, Schema, Setting, SettingValue, System,
};
use crate::buffer::{ColumnView, ColumnWriter};
use crate::cell::{Cell, Kind};

/// A column for a test: text of any length, scale 2, to be read only, unless told otherwise.
#[must_use]
pub fn column(name: &str, kind: Kind) -> ColumnDef {
    ColumnDef {
        name: name.to_owned(),
        kind: kind.code(),
        writable: false,
        required: false,
        length_max: 0,
        scale: if matches!(kind, Kind::Decimal | Kind::Money) { 2 } else { 0 },
        options: Vec::new(),
        targets: Vec::new(),
        extensions: Vec::new(),
    }
}

impl ColumnDef {
    /// The plugin may write it.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// With that many digits after the point.
    #[must_use]
    pub fn scale(mut self, scale: u8) -> Self {
        self.scale = scale;
        self
    }
}

/// What went wrong, of `configure` or of a call.
#[derive(Debug)]
pub enum Failure {
    Refused(Vec<Refusal>),
    Call(CallError),
}

impl Failure {
    /// The reasons for a refusal, a line each.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        match self {
            Self::Refused(refusals) => refusals
                .iter()
                .map(|refusal| {
                    let about = refusal.parameter.as_deref().or(refusal.column.as_deref()).unwrap_or("installation");
                    format!("{about}: {}", refusal.message)
                })
                .collect(),
            Self::Call(error) => vec![format!("{error:?}")],
        }
    }
}

/// One installation of a plugin: tables and settings.
#[derive(Debug, Clone)]
pub struct Bench {
    pub source: Schema,
    pub targets: Vec<Schema>,
    pub settings: Vec<Setting>,
    pub context: Context,
}

impl Bench {
    /// An installation on a table with these columns, without settings, on the way to Dataverse.
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = ColumnDef>) -> Self {
        Self {
            source: schema(System::Finops, "source", columns),
            targets: Vec::new(),
            settings: Vec::new(),
            context: Context {
                transaction: "00000000-0000-7000-8000-000000000000".to_owned(),
                attempt: 1,
                now: 0,
                seed: 0,
                target: System::Dataverse,
                budget_ms: 2_000,
                extensions: Vec::new(),
            },
        }
    }

    /// The same with one more setting.
    #[must_use]
    pub fn setting(mut self, name: &str, value: SettingValue) -> Self {
        self.settings.push(Setting { name: name.to_owned(), value });
        self
    }

    /// The same with one more target table.
    #[must_use]
    pub fn target(mut self, set: &str, columns: impl IntoIterator<Item = ColumnDef>) -> Self {
        self.targets.push(schema(System::Dataverse, set, columns));
        self
    }

    /// What the plugin says of itself.
    #[must_use]
    pub fn describe<P: describe_export::Guest>(&self) -> describe_export::Description {
        P::describe()
    }

    /// Transforms rows. A line per row: what changes, as `column=value` and issues as `column!code(arguments)`; `=` where
    /// nothing does.
    ///
    /// # Errors
    /// When the plugin refuses the installation or fails.
    pub fn transform<P: transform::Guest>(&self, rows: &[Vec<Cell<'_>>]) -> Result<Vec<String>, Failure> {
        P::configure(self.source.clone(), self.settings.clone()).map_err(Failure::Refused)?;
        let patch = P::apply(self.context.clone(), batch(&self.source, rows)).map_err(Failure::Call)?;
        let mut lines = lines(&self.source, &patch.columns, rows.len());
        add_issues(&mut lines, &self.source, &patch.issues);
        Ok(or_equal(lines))
    }

    /// Checks rows before the write. A line per row: its issues as `column!code(arguments)`; `=` where there is none.
    ///
    /// # Errors
    /// When the plugin refuses the installation or fails.
    pub fn pre_validate<P: pre::Guest>(
        &self,
        proposed: &[Vec<Cell<'_>>],
        current: &[Vec<Cell<'_>>],
    ) -> Result<Vec<String>, Failure> {
        P::configure(self.source.clone(), self.settings.clone()).map_err(Failure::Refused)?;
        let current = batch(&self.source, current).columns;
        let issues = P::check(self.context.clone(), batch(&self.source, proposed), current).map_err(Failure::Call)?;
        Ok(self.issue_lines(&issues, proposed.len()))
    }

    /// Checks rows after the write; lines as for [`Bench::pre_validate`].
    ///
    /// # Errors
    /// When the plugin refuses the installation or fails.
    pub fn post_validate<P: post::Guest>(
        &self,
        sent: &[Vec<Cell<'_>>],
        stored: &[Vec<Cell<'_>>],
    ) -> Result<Vec<String>, Failure> {
        P::configure(self.source.clone(), self.settings.clone()).map_err(Failure::Refused)?;
        let stored = batch(&self.source, stored).columns;
        let issues = P::check(self.context.clone(), batch(&self.source, sent), stored).map_err(Failure::Call)?;
        Ok(self.issue_lines(&issues, sent.len()))
    }

    /// Maps rows. A line per row of the answer, table by table: `table row<-source row: column=value …`, with references
    /// as `column->table row`; then a line per issue.
    ///
    /// # Errors
    /// When the plugin refuses the installation or fails.
    pub fn table_map<P: table_map::Guest>(&self, rows: &[Vec<Cell<'_>>]) -> Result<Vec<String>, Failure> {
        P::configure(self.source.clone(), self.targets.clone(), self.settings.clone()).map_err(Failure::Refused)?;
        let mapped = P::apply(self.context.clone(), batch(&self.source, rows)).map_err(Failure::Call)?;
        let mut all = Vec::new();
        for table in &mapped.tables {
            let schema = &self.targets[usize::from(table.table)];
            let count = table.rows as usize;
            let mut cells = lines(schema, &table.columns, count);
            for reference in &table.references {
                let to = &self.targets[usize::from(reference.target_table)].set;
                let name = &schema.columns[usize::from(reference.column)].name;
                let _ = write!(cells[reference.row as usize], " {name}->{to} {}", reference.target_row);
            }
            for (row, line) in cells.iter().enumerate() {
                let at = row * 4;
                let source = table
                    .source_rows
                    .get(at..at + 4)
                    .map_or(u32::MAX, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                let action = if table.actions.get(row) == Some(&2) { " delete" } else { "" };
                all.push(format!("{} {row}<-{source}{action}: {}", schema.set, line.trim()));
            }
        }
        let mut issues = vec![String::new(); rows.len()];
        add_issues(&mut issues, &self.source, &mapped.issues);
        all.extend(
            issues
                .into_iter()
                .enumerate()
                .filter(|(_, line)| !line.is_empty())
                .map(|(row, line)| format!("source {row}{line}")),
        );
        Ok(all)
    }

    /// Maps rows back. `parts` are the rows of each target table with the source row they belong to. A line per source
    /// row: `nothing`, `upsert` or `delete`, then cells and issues.
    ///
    /// # Errors
    /// When the plugin refuses the installation or fails.
    pub fn table_map_back<P: table_map::Guest + table_map_back::Guest>(
        &self,
        parts: &[Vec<(u32, Vec<Cell<'_>>)>],
        current: &[Vec<Cell<'_>>],
    ) -> Result<Vec<String>, Failure> {
        P::configure(self.source.clone(), self.targets.clone(), self.settings.clone()).map_err(Failure::Refused)?;
        let rows = parts.iter().flatten().map(|(source_row, _)| source_row + 1).max().unwrap_or(0);
        let parts = parts
            .iter()
            .enumerate()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(table, rows)| table_map_back::Part {
                table: u16::try_from(table).expect("a test has few tables"),
                source_rows: rows.iter().flat_map(|(source_row, _)| source_row.to_le_bytes()).collect(),
                rows: batch(&self.targets[table], &rows.iter().map(|(_, cells)| cells.clone()).collect::<Vec<_>>()),
            })
            .collect();
        let current = batch(&self.source, current).columns;
        let merged =
            <P as table_map_back::Guest>::apply(self.context.clone(), rows, parts, current).map_err(Failure::Call)?;
        let mut lines = lines(&self.source, &merged.columns, rows as usize);
        add_issues(&mut lines, &self.source, &merged.issues);
        let action = |row: usize| match merged.actions.get(row) {
            Some(0) => "nothing",
            Some(2) => "delete",
            _ => "upsert",
        };
        Ok(lines.iter().enumerate().map(|(row, line)| format!("{}{line}", action(row))).collect())
    }

    fn issue_lines(&self, issues: &[Issue], rows: usize) -> Vec<String> {
        let mut lines = vec![String::new(); rows];
        add_issues(&mut lines, &self.source, issues);
        or_equal(lines)
    }
}

fn schema(system: System, set: &str, columns: impl IntoIterator<Item = ColumnDef>) -> Schema {
    Schema {
        system,
        table: set.to_owned(),
        set: set.to_owned(),
        columns: columns.into_iter().collect(),
        extensions: Vec::new(),
    }
}

/// The buffers for these rows. A row that is shorter than the table is absent where it ends.
///
/// # Panics
/// When a cell does not fit its column.
#[must_use]
pub fn batch(schema: &Schema, rows: &[Vec<Cell<'_>>]) -> Batch {
    let columns = schema.columns.iter().enumerate().map(|(id, definition)| {
        let kind = Kind::from_code(definition.kind).expect("tests use kinds that there are");
        let id = u16::try_from(id).expect("a test has few columns");
        let mut writer = ColumnWriter::new(id, kind, definition.scale, rows.len(), 0);
        for (row, cells) in rows.iter().enumerate() {
            let cell = cells.get(usize::from(id)).copied().unwrap_or_default();
            writer.set(row, cell).unwrap_or_else(|what| panic!("{} is given {what}", definition.name));
        }
        writer.finish_always(rows.len())
    });
    Batch {
        rows: u32::try_from(rows.len()).expect("a test has few rows"),
        operations: Vec::new(),
        companies: vec!["usmf".to_owned()],
        company: Vec::new(),
        columns: if rows.is_empty() { Vec::new() } else { columns.collect() },
        before: Vec::new(),
    }
}

/// ` column=value` for every cell that is not absent, a line per row.
fn lines(schema: &Schema, columns: &[crate::bindings::types::Column], rows: usize) -> Vec<String> {
    let mut lines = vec![String::new(); rows];
    for column in columns {
        let definition = &schema.columns[usize::from(column.id)];
        let view = ColumnView::new(column, definition.scale, rows)
            .expect("the answer's buffers are sound")
            .expect("the answer's kinds are known");
        for (row, line) in lines.iter_mut().enumerate() {
            let name = &definition.name;
            let _ = match view.cell(row) {
                Cell::Absent => Ok(()),
                Cell::Null => write!(line, " {name}=null"),
                Cell::Boolean(value) => write!(line, " {name}={value}"),
                Cell::Int(value) | Cell::Timestamp(value) => write!(line, " {name}={value}"),
                Cell::Float(value) => write!(line, " {name}={value}"),
                Cell::Decimal(value) => write!(line, " {name}={value}"),
                Cell::Text(text) => write!(line, " {name}={text}"),
                Cell::Date(days) => write!(line, " {name}={days}"),
                Cell::Guid(id) => write!(line, " {name}={:032x}", u128::from_be_bytes(id)),
                Cell::Bytes(bytes) => write!(line, " {name}={bytes:?}"),
            };
        }
    }
    lines
}

fn add_issues(lines: &mut [String], schema: &Schema, issues: &[Issue]) {
    for issue in issues {
        let column = issue.column.map_or("", |id| schema.columns[usize::from(id)].name.as_str());
        let line = &mut lines[issue.row as usize];
        let _ = write!(line, " {column}!{}({})", issue.code, issue.args.join(","));
    }
}

fn or_equal(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| if line.is_empty() { "=".to_owned() } else { line.trim_start().to_owned() }).collect()
}
