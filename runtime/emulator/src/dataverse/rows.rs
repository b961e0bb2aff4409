//! Rows of the platform's own tables, by column name.
//!
//! Owns the reading of small tables as a whole: what is compiled from them is kept, so this is not hot.

use std::borrow::Cow;

use rusqlite::Connection;
use uuid::Uuid;

use crate::catalogue::{Catalogue, Table};
use crate::cell;
use crate::store;

/// Where a column stands in a row.
pub(super) fn place(table: &Table, column: &str) -> Option<usize> {
    table.columns.iter().position(|own| own.definition.name == column)
}

/// Calls `each` with every row of a table, as long as the table is there.
pub(super) fn scan(
    connection: &Connection,
    catalogue: &Catalogue,
    table: &str,
    mut each: impl FnMut(&Cells<'_>),
) -> rusqlite::Result<()> {
    let Some(table) = catalogue.by_name(table) else { return Ok(()) };
    store::scan(connection, table, 0, i64::MAX, false, &mut |_, _, data| {
        each(&Cells::of(table, data));
        Ok(true)
    })
}

/// One row.
pub(super) struct Cells<'a> {
    pub table: &'a Table,
    pub cells: Cow<'a, [&'a str]>,
}

impl<'a> Cells<'a> {
    pub fn of(table: &'a Table, data: &'a str) -> Self {
        let mut cells = Vec::with_capacity(table.columns.len());
        table.cells(data, &mut cells);
        Self { table, cells: Cow::Owned(cells) }
    }

    pub fn cell(&self, column: &str) -> &'a str {
        place(self.table, column).map_or(cell::NULL, |at| self.cells[at])
    }

    pub fn is_null(&self, column: &str) -> bool {
        self.cell(column) == cell::NULL
    }

    pub fn id(&self, column: &str) -> Option<Uuid> {
        self.table.id_of(&self.cell(column))
    }

    pub fn own_id(&self) -> Option<Uuid> {
        self.table.primary_id.and_then(|at| self.table.id_of(&self.cells[at]))
    }

    pub fn text(&self, column: &str) -> String {
        cell::text_of(self.cell(column)).map(Cow::into_owned).unwrap_or_default()
    }

    /// 0 when there is none.
    pub fn number(&self, column: &str) -> i64 {
        self.cell(column).parse().unwrap_or(0)
    }

    pub fn is(&self, column: &str) -> bool {
        self.cell(column) == "true"
    }
}
