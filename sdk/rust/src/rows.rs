//! The rows of a call, read in place.

use crate::bindings::types::{self, CallError, Context, Schema};
use crate::buffer::ColumnView;
use crate::cell::Cell;
use crate::decimal::Decimal;
use crate::settings::{Column, Table};

pub use crate::bindings::types::System;

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    /// It is changed, or created where the host does not know yet.
    Change,
    Delete,
}

/// The rows of one table.
#[derive(Debug)]
pub struct Rows<'a> {
    len: usize,
    table: Option<Table>,
    schema: &'a Schema,
    context: &'a Context,
    /// By column id; None for a column that was not sent, or of a kind unknown here.
    columns: Vec<Option<ColumnView<'a>>>,
    before: Vec<Option<ColumnView<'a>>>,
    operations: &'a [u8],
    companies: &'a [String],
    company: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Judges the buffers once. `table` is None for the source table.
    pub(crate) fn new(
        context: &'a Context,
        schema: &'a Schema,
        table: Option<Table>,
        batch: &'a types::Batch,
    ) -> Result<Self, CallError> {
        let len = batch.rows as usize;
        if !batch.operations.is_empty() && batch.operations.len() != len {
            return Err(CallError::Failed("the operations are for other rows".to_owned()));
        }
        if !batch.company.is_empty() && batch.company.len() != len * 2 {
            return Err(CallError::Failed("the companies are for other rows".to_owned()));
        }
        Ok(Self {
            len,
            table,
            schema,
            context,
            columns: views(schema, &batch.columns, len)?,
            before: views(schema, &batch.before, len)?,
            operations: &batch.operations,
            companies: &batch.companies,
            company: &batch.company,
        })
    }

    /// Rows that only stand beside others: nothing but columns.
    pub(crate) fn beside(
        context: &'a Context,
        schema: &'a Schema,
        columns: &'a [types::Column],
        len: usize,
    ) -> Result<Self, CallError> {
        Ok(Self {
            len,
            table: None,
            schema,
            context,
            columns: views(schema, columns, len)?,
            before: Vec::new(),
            operations: &[],
            companies: &[],
            company: &[],
        })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn schema(&self) -> &'a Schema {
        self.schema
    }

    #[must_use]
    pub fn context(&self) -> &'a Context {
        self.context
    }

    /// The row with that number, which must be below [`Rows::len`].
    #[must_use]
    pub fn row(&self, index: usize) -> Row<'_> {
        assert!(index < self.len, "row {index} of {}", self.len);
        Row { rows: self, columns: &self.columns, index }
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len).map(|index| self.row(index))
    }

    pub(crate) fn view(&self, id: u16) -> Option<&ColumnView<'a>> {
        self.columns.get(usize::from(id))?.as_ref()
    }

    /// None where every cell of the row is absent.
    pub(crate) fn row_if_there(&self, index: usize) -> Option<Row<'_>> {
        (index < self.len).then(|| self.row(index)).filter(Row::is_there)
    }
}

fn views<'a>(
    schema: &Schema,
    columns: &'a [types::Column],
    rows: usize,
) -> Result<Vec<Option<ColumnView<'a>>>, CallError> {
    let mut views = vec![None; if columns.is_empty() { 0 } else { schema.columns.len() }];
    for column in columns {
        let id = usize::from(column.id);
        let (Some(definition), Some(view)) = (schema.columns.get(id), views.get_mut(id)) else {
            return Err(CallError::Failed(format!("column {id} is not in the schema")));
        };
        *view = ColumnView::new(column, definition.scale, rows)?;
    }
    Ok(views)
}

/// One row. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    rows: &'a Rows<'a>,
    columns: &'a [Option<ColumnView<'a>>],
    index: usize,
}

impl<'a> Row<'a> {
    /// The cell of a column; absent for a column that was not sent.
    #[must_use]
    pub fn cell(&self, column: Column) -> Cell<'a> {
        debug_assert_eq!(column.table(), self.rows.table, "a column of another table");
        match self.columns.get(usize::from(column.id())) {
            Some(Some(view)) if column.table() == self.rows.table => view.cell(self.index),
            _ => Cell::Absent,
        }
    }

    /// The text of a text, choice or JSON column; None where it is empty.
    #[must_use]
    pub fn text(&self, column: Column) -> Option<&'a str> {
        self.cell(column).text()
    }

    /// The number of a decimal or money column; None where it is empty.
    #[must_use]
    pub fn decimal(&self, column: Column) -> Option<Decimal> {
        self.cell(column).decimal()
    }

    #[must_use]
    pub fn int(&self, column: Column) -> Option<i64> {
        self.cell(column).int()
    }

    #[must_use]
    pub fn boolean(&self, column: Column) -> Option<bool> {
        self.cell(column).boolean()
    }

    /// The id of a guid or lookup column; None where it is empty.
    #[must_use]
    pub fn guid(&self, column: Column) -> Option<[u8; 16]> {
        self.cell(column).guid()
    }

    /// Its number in the call.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The row before the change, where the source says so and the plugin asked for it.
    #[must_use]
    pub fn before(&self) -> Option<Row<'a>> {
        Some(Row { columns: &self.rows.before, ..*self }).filter(Row::is_there)
    }

    #[must_use]
    pub fn operation(&self) -> Operation {
        match self.rows.operations.get(self.index) {
            Some(1) => Operation::Create,
            Some(3) => Operation::Delete,
            _ => Operation::Change,
        }
    }

    /// The legal entity in lower case; empty for a global row.
    #[must_use]
    pub fn company(&self) -> &'a str {
        let at = self.index * 2;
        let index = match self.rows.company.get(at..at + 2) {
            Some(bytes) => usize::from(u16::from_le_bytes([bytes[0], bytes[1]])),
            None => 0,
        };
        self.rows.companies.get(index).map_or("", String::as_str)
    }

    /// The system that the row is on its way to.
    #[must_use]
    pub fn target(&self) -> System {
        self.rows.context.target
    }

    /// When the change was captured: microseconds since 1970-01-01T00:00:00Z. The same on every attempt.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.rows.context.now
    }

    /// The transaction's seed, for whatever needs chance.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.rows.context.seed
    }

    /// The columns of its table, whether or not they were sent.
    pub fn columns(&self) -> impl Iterator<Item = Column> + use<> {
        let table = self.rows.table;
        (0..self.rows.schema.columns.len()).filter_map(move |id| Some(Column::new(table, u16::try_from(id).ok()?)))
    }

    /// The name of a column of this table.
    #[must_use]
    pub fn name(&self, column: Column) -> &'a str {
        self.rows.schema.columns.get(usize::from(column.id())).map_or("", |definition| definition.name.as_str())
    }

    /// Some cell is not absent.
    fn is_there(&self) -> bool {
        self.columns.iter().flatten().any(|view| !view.cell(self.index).is_absent())
    }
}
