//! What X++ checks before a row is written or deleted.
//!
//! Owns the checks in the order of the platform ("Validate methods" in the documentation of OData): `validateField` of
//! every field that was given, then `validateWrite`; for a delete `checkRestrictedDeleteActions`. Each of them collects
//! all that it finds, and the next one is reached only when it found nothing.

use dualwright_odata::batch::Response;

use super::company;
use super::refusal::{Infolog, entity_label, failed, field_label};
use crate::catalogue::Table;
use crate::cell::{self, Cell};
use crate::definition::{ColumnKind, DeleteBehavior};
use crate::relation::Relation;
use crate::session::Session;
use crate::store;

/// `validateField` of the columns that were given: the company exists, and so does every row that is referred to.
pub(crate) fn fields(
    session: &Session<'_>,
    table: &Table,
    cells: &[Cell],
    given: &[usize],
    infolog: &mut Infolog,
) -> Result<(), Response> {
    if let Some(at) = table.company
        && given.contains(&at)
        && !company::exists(session.connection(), &session.catalogue, &cells[at]).map_err(|error| failed(&error))?
    {
        let company = cell::text_of(&cells[at]).unwrap_or_default();
        infolog.refuse_field(table, at, &format!("Company {company} does not exist."));
    }
    for relation in &session.catalogue.relations_of(table).to {
        let is_given = relation.pairs.iter().any(|(own, _)| given.contains(own));
        if !is_given || relation.is_empty(table, cells) || is_met(session, relation, cells)? {
            continue;
        }
        let own = relation.pairs[0].0;
        let text = format!(
            "The value '{}' in field '{}' is not found in the related table '{}'.",
            shown(&cells[own]),
            field_label(table, own),
            entity_label(&relation.target)
        );
        infolog.refuse_field(table, own, &text);
    }
    Ok(())
}

/// Whether the row is there. A relation that does not name a whole key cannot be looked up, and X++ would take any row.
fn is_met(session: &Session<'_>, relation: &Relation, cells: &[Cell]) -> Result<bool, Response> {
    let Some(key) = relation.target_key(cells) else { return Ok(true) };
    Ok(store::find(session.connection(), &key).map_err(|error| failed(&error))?.is_some())
}

/// `validateWrite`: what must not be empty is filled in. Of a row that is there only the given columns are looked at.
pub(crate) fn row(table: &Table, cells: &[Cell], given: Option<&[usize]>, infolog: &mut Infolog) {
    let mut is_complete = true;
    for (at, column) in table.columns.iter().enumerate() {
        let is_looked_at = given.is_none_or(|given| given.contains(&at));
        let has_empty_value = matches!(
            column.definition.kind,
            ColumnKind::Text | ColumnKind::Memo | ColumnKind::Lookup | ColumnKind::Guid | ColumnKind::Date
        ) || column.definition.kind == ColumnKind::Datetime;
        if column.definition.required && is_looked_at && has_empty_value && cells[at] == column.empty {
            infolog.warn(&format!("Field '{}' must be filled in.", field_label(table, at)));
            is_complete = false;
        }
    }
    if !is_complete {
        let name = table.name();
        infolog.warn(&format!("validateWrite failed on data source '{name} ({name})'"));
    }
}

/// `checkRestrictedDeleteActions`: no row may depend on the one that goes.
pub(crate) fn delete(
    session: &Session<'_>,
    table: &Table,
    cells: &[&str],
    infolog: &mut Infolog,
) -> Result<(), Response> {
    for (other, number) in &session.catalogue.relations_of(table).from {
        let relation = &session.catalogue.relations_of(other).to[*number];
        if relation.on_delete != DeleteBehavior::Restrict {
            continue;
        }
        let mark = relation.mark_of_target(other, cells);
        let depend = store::links_to(session.connection(), mark, 1).map_err(|error| failed(&error))?;
        if !depend.is_empty() {
            infolog.warn(&format!(
                "{} cannot be deleted while dependent {} exist.",
                entity_label(table),
                entity_label(other)
            ));
        }
    }
    Ok(())
}

/// The value as a person would write it.
fn shown(cell: &str) -> String {
    cell::text_of(cell).map_or_else(|| cell.to_owned(), std::borrow::Cow::into_owned)
}
