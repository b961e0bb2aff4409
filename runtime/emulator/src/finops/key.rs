//! Keys in URLs: every key field by its name, in any order.
//!
//! Owns what a key may look like and which row it names for a request that sees one company, or all. Text in keys is
//! compared as the database does, without regard to case and trailing blanks.

use dualwright_odata::Literal;
use dualwright_odata::batch::Response;
use dualwright_odata::url::{Key, Resource};
use rusqlite::Connection;

use super::refusal::{self, failed};
use crate::batch::Site;
use crate::catalogue::Table;
use crate::cell;
use crate::definition::ColumnKind;
use crate::store::{self, Found};

/// Whether a request asks for the rows of all companies.
pub(crate) fn crosses_companies(resource: &Resource) -> bool {
    resource.option("cross-company").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The cells of a key; a key of one field may stand without its name. `None` when a value is one that the field cannot
/// hold, so that no row has it.
pub(crate) fn key_cells(table: &Table, key: &Key) -> Result<Option<Vec<cell::Cell>>, Response> {
    let mismatch = || {
        let message = format!(
            "The number of keys specified in the URI does not match number of key properties for the resource '{}'.",
            refusal::type_name(table.name())
        );
        refusal::error(400, &message)
    };
    let mut given = Vec::with_capacity(table.key.len());
    match key {
        Key::None => return Err(mismatch()),
        Key::Single(literal) => match table.key.as_slice() {
            [at] => given.push((*at, literal)),
            _ => return Err(mismatch()),
        },
        Key::Named(pairs) => {
            for (name, literal) in pairs {
                let at = table.property(name).filter(|at| table.key.contains(at)).ok_or_else(|| {
                    let message = format!(
                        "The key in the request URI is not valid for resource '{}'. The names and number of key properties \
                         should match the declared key properties for the resource '{}'.",
                        refusal::type_name(table.name()),
                        refusal::type_name(table.name())
                    );
                    refusal::error(400, &message)
                })?;
                if given.iter().any(|(own, _)| *own == at) {
                    return Err(mismatch());
                }
                given.push((at, literal));
            }
            if given.len() != table.key.len() {
                return Err(mismatch());
            }
        }
    }
    let mut cells = table.empty_row();
    for (at, literal) in given {
        match cell_of(table, at, literal) {
            Some(cell) => cells[at] = cell,
            None => return Ok(None),
        }
    }
    Ok(Some(cells))
}

/// The cell of a value in a key. A day stands for its beginning where the field holds moments.
fn cell_of(table: &Table, at: usize, literal: &Literal) -> Option<cell::Cell> {
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    match (table.columns[at].definition.kind, literal) {
        (_, Literal::Null) => None,
        (ColumnKind::Datetime, Literal::Date(days)) => {
            table.cell_of(at, &Literal::DateTime(i64::from(*days) * MICROS_PER_DAY))
        }
        _ => table.cell_of(at, literal),
    }
}

/// The row with a key, if the request may see its company.
pub(crate) fn find(
    site: &Site,
    connection: &Connection,
    table: &Table,
    key: &Key,
    resource: &Resource,
) -> Result<Option<Found>, Response> {
    let Some(cells) = key_cells(table, key)? else { return Ok(None) };
    if let Some(at) = table.company
        && !crosses_companies(resource)
        && cell::text_of(&cells[at]).as_deref() != Some(site.company.as_str())
    {
        return Ok(None);
    }
    store::find(connection, &table.row_key(&cells)).map_err(|error| failed(&error))
}
