//! Rows as JSON objects.
//!
//! Owns what stands in a row that is sent: its etag, the selected properties, annotations, rows behind lookups. Cells
//! are copied as they are stored.

use std::sync::Arc;

use rusqlite::Connection;

use crate::ColumnKind;
use crate::catalogue::{Catalogue, Table};
use crate::cell;
use crate::store;

/// What is wanted of each row.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Column places; all of them when not given.
    pub columns: Option<Vec<usize>>,
    pub expansions: Vec<Expansion>,
    /// Formatted values and lookup names beside the values (Dataverse).
    pub annotations: bool,
}

/// A row behind a lookup that is wanted with each row.
#[derive(Debug)]
pub(crate) struct Expansion {
    pub navigation: String,
    pub column: usize,
    pub table: Arc<Table>,
    pub selection: Selection,
}

/// What rows behind lookups are read from.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub connection: &'a Connection,
    pub catalogue: &'a Catalogue,
}

#[must_use]
pub(crate) fn etag(version: i64) -> String {
    format!("W/\"{version}\"")
}

/// A whole row without annotations, from its stored form.
pub(crate) fn write_stored(out: &mut Vec<u8>, table: &Table, data: &str, version: i64) {
    let mut cells = Vec::with_capacity(table.columns.len());
    table.cells(data, &mut cells);
    open(out, version);
    for (column, cell) in table.columns.iter().zip(&cells) {
        push(out, &column.label, cell);
    }
    out.push(b'}');
}

fn open(out: &mut Vec<u8>, version: i64) {
    out.extend_from_slice(format!("{{\"@odata.etag\":\"W/\\\"{version}\\\"\"").as_bytes());
}

fn push(out: &mut Vec<u8>, label: &str, cell: &str) {
    out.push(b',');
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(cell.as_bytes());
}

/// A row as it was asked for.
pub(crate) fn write_row(
    out: &mut Vec<u8>,
    around: Surroundings<'_>,
    table: &Table,
    cells: &[&str],
    version: i64,
    selection: &Selection,
) -> rusqlite::Result<()> {
    open(out, version);
    match &selection.columns {
        None => (0..cells.len()).for_each(|at| write_column(out, around, table, at, cells[at], selection.annotations)),
        Some(columns) => {
            columns.iter().for_each(|&at| write_column(out, around, table, at, cells[at], selection.annotations));
        }
    }
    for expansion in &selection.expansions {
        push(out, &format!("{}:", cell::quoted(&expansion.navigation)), "");
        let target = table.id_of(&cells[expansion.column]);
        let found = match target {
            Some(id) => store::find(around.connection, &expansion.table.id_key(id))?,
            None => None,
        };
        match found {
            None => out.extend_from_slice(b"null"),
            Some(row) => {
                let mut inner = Vec::new();
                expansion.table.cells(&row.data, &mut inner);
                write_row(out, around, &expansion.table, &inner, row.version, &expansion.selection)?;
            }
        }
    }
    out.push(b'}');
    Ok(())
}

fn write_column(out: &mut Vec<u8>, around: Surroundings<'_>, table: &Table, at: usize, cell: &str, annotations: bool) {
    let column = &table.columns[at];
    if annotations && cell != cell::NULL {
        let mut annotate = |name: &str, value: &str| {
            push(out, &format!("\"{}@{name}\":", column.property), &cell::quoted(value));
        };
        match column.definition.kind {
            ColumnKind::Choice | ColumnKind::Enum => {
                let option = column.definition.options.iter().find(|option| option.value.to_string() == cell);
                if let Some(option) = option {
                    annotate("OData.Community.Display.V1.FormattedValue", &option.name);
                }
            }
            ColumnKind::Lookup => {
                if let Some((navigation, target)) = lookup_target(around, table, at, cell) {
                    annotate("Microsoft.Dynamics.CRM.associatednavigationproperty", &navigation);
                    annotate("Microsoft.Dynamics.CRM.lookuplogicalname", target.name());
                }
            }
            _ => {}
        }
    }
    push(out, &column.label, cell);
}

/// The table that a lookup cell points to: the only one it may, or the one that has the row.
fn lookup_target(around: Surroundings<'_>, table: &Table, at: usize, cell: &str) -> Option<(String, Arc<Table>)> {
    let id = table.id_of(&cell)?;
    let mut targets = crate::catalogue::targets(&table.columns[at].definition)
        .filter_map(|(target, name)| Some((name.to_owned(), Arc::clone(around.catalogue.by_name(&target.table)?))))
        .collect::<Vec<_>>();
    if targets.len() > 1 {
        targets.retain(|(_, target)| matches!(store::find(around.connection, &target.id_key(id)), Ok(Some(_))));
    }
    targets.into_iter().next()
}
