//! Data management: whole tables in and out as packages.
//!
//! Owns the package API (bound actions of `DataManagementDefinitionGroups`), the data projects behind it, the blob storage
//! that packages travel through, and the jobs that carry executions out. Rows are written as any request writes them;
//! what a row may hold is not decided here.
//!
//! Facts: <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/data-management-api>.

mod action;
mod archive;
mod blob;
mod csv;
mod execution;
mod export;
mod import;
mod job;
mod manifest;
mod recurring;
mod text;
mod value;
mod xml;

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::json as value;

use crate::catalogue::{Catalogue, Table};
use crate::definition::{TableDefinition, read_tables};
use crate::session::{Refusal, Session};
use crate::store::{self, Store};
use crate::{body, cell};

use super::refusal::entity_name as target_name;
pub(crate) use action::{act, action_of, described};
pub(crate) use blob::{answer as answer_blob, is_blob};
pub(crate) use execution::interrupt;
pub(crate) use job::{Jobs, may_begin_job, own_route, run, turn};
use manifest::EntityEntry;
pub(crate) use recurring::{answer as answer_connector, is_connector};
use text::SourceFormat;

/// What is kept of data management beside its tables.
pub(crate) const SCHEMAS: [&str; 2] = [execution::SCHEMA, recurring::SCHEMA];

pub(crate) const PROJECTS: &str = "DataManagementDefinitionGroups";
pub(crate) const DETAILS: &str = "DataManagementDefinitionGroupDetails";
pub(crate) const JOB_DETAILS: &str = "DataManagementExecutionJobDetails";

/// The export project that holds every entity.
const EVERYTHING: &str = "All entities";

/// The tables of data management, which every F&O has.
pub(crate) fn tables() -> Vec<TableDefinition> {
    read_tables(include_str!("tables.json")).expect("they are part of the program and were read in its tests").tables
}

/// The name of an entity as data management and table maps write it.
pub(in crate::finops) fn label(table: &Table) -> &str {
    table.definition.entity.as_deref().unwrap_or(table.name())
}

/// Entities that data management knows: those that stand for business data.
pub(in crate::finops) fn entities(catalogue: &Catalogue) -> impl Iterator<Item = &Arc<Table>> {
    catalogue.tables().filter(|table| !table.is_bookkeeping)
}

/// An entity by its label, or by its name in the application; never by its public name.
pub(in crate::finops) fn entity<'c>(catalogue: &'c Catalogue, name: &str) -> Result<&'c Arc<Table>, String> {
    let name = name.trim();
    entities(catalogue)
        .find(|table| label(table).eq_ignore_ascii_case(name))
        .or_else(|| entities(catalogue).find(|table| target_name(table).eq_ignore_ascii_case(name)))
        .ok_or_else(|| format!("Entity {name} does not exist in the target environment."))
}

/// The columns of an entity's staging table: company-specific entities have no column for the company, which is the
/// execution's. A field's name is its column's in upper case.
pub(super) fn staging_columns(table: &Table) -> impl Iterator<Item = usize> {
    (0..table.columns.len()).filter(|at| Some(*at) != table.company)
}

/// Gives every entity an export project under its own label, and one project all of them. What is there already is
/// left alone.
pub(crate) fn complete_projects(store: &Store) -> anyhow::Result<()> {
    store.write(false, |session| {
        let catalogue = Arc::clone(&session.catalogue);
        let labels = entities(&catalogue).map(|table| label(table).to_owned()).collect::<Vec<_>>();
        if labels.is_empty() {
            return Ok(());
        }
        add_project(session, EVERYTHING, "Export")?;
        for (place, label) in labels.iter().enumerate() {
            add_project(session, label, "Export")?;
            let entry = EntityEntry {
                name: label.clone(),
                format: SourceFormat::CsvUnicode.to_string(),
                is_incremental: true,
                order: (1, 1, i64::try_from(place + 1)?),
                ..EntityEntry::default()
            };
            add_detail(session, label, &entry)?;
            add_detail(session, EVERYTHING, &entry)?;
        }
        anyhow::Ok(())
    })
}

fn add_project(session: &mut Session<'_>, name: &str, operation: &str) -> anyhow::Result<()> {
    add_row(
        session,
        PROJECTS,
        &value!({"Name": name, "OperationType": operation, "ProjectCategory": "Project", "GenerateDataPackage": "Yes"}),
    )
}

fn add_detail(session: &mut Session<'_>, project: &str, entry: &EntityEntry) -> anyhow::Result<()> {
    add_row(
        session,
        DETAILS,
        &value!({
            "DefinitionGroupId": project, "EntityName": entry.name, "SourceFormat": entry.format,
            "DefaultRefreshType": if entry.is_incremental { "IncrementalPush" } else { "FullPush" },
            "ExecutionUnit": entry.order.0, "LevelInExecutionUnit": entry.order.1, "SequenceInLevel": entry.order.2,
            "AutoGenerateMapping": "Yes", "ValidationStatus": "Yes", "RunBusinessLogic": "Yes",
            "RunBusinessValidation": "Yes", "RunValidateField": "Yes",
            "Disable": if entry.is_disabled { "Yes" } else { "No" }, "InputFilePath": entry.file,
        }),
    )
}

/// Adds a row unless its key is taken.
fn add_row(session: &mut Session<'_>, set: &str, row: &serde_json::Value) -> anyhow::Result<()> {
    let table = Arc::clone(session.catalogue.by_set(set).expect("data management brings its tables"));
    let row = row.as_object().expect("rows are objects");
    let mut cells = table.empty_row();
    for &at in &table.key {
        let json = row.get(&table.columns[at].property).map_or(cell::NULL.to_owned(), ToString::to_string);
        cells[at] = table.parse(at, &json).map_err(|unfit| anyhow::anyhow!("{set}: {unfit:?}"))?;
    }
    if store::find(session.connection(), &table.row_key(&cells))?.is_none() {
        body::seed(session, &table, row)?;
    }
    Ok(())
}

/// Adds a row, or replaces the one with its key.
fn put_row(session: &mut Session<'_>, set: &str, row: &serde_json::Value) -> anyhow::Result<()> {
    let table = Arc::clone(session.catalogue.by_set(set).expect("data management brings its tables"));
    body::seed(session, &table, row.as_object().expect("rows are objects"))
}

/// Whether there is a data project of that name.
fn has_project(connection: &Connection, catalogue: &Catalogue, name: &str) -> rusqlite::Result<bool> {
    let table = catalogue.by_set(PROJECTS).expect("data management brings its tables");
    let mut cells = table.empty_row();
    for &at in &table.key {
        let Ok(cell) = table.parse(at, &cell::quoted(name)) else { return Ok(false) };
        cells[at] = cell;
    }
    Ok(store::find(connection, &table.row_key(&cells))?.is_some())
}

/// The entities of a data project in the order in which they are worked on.
fn project_entries(
    connection: &Connection,
    catalogue: &Catalogue,
    project: &str,
) -> rusqlite::Result<Vec<EntityEntry>> {
    let table = catalogue.by_set(DETAILS).expect("data management brings its tables");
    let mut entries = Vec::new();
    store::scan(connection, table, 0, i64::MAX, false, &mut |_, _, data| {
        let mut cells = Vec::new();
        table.cells(data, &mut cells);
        let text = |name: &str| {
            let cell = table.property(name).map_or("", |at| cells[at]);
            cell::text_of(cell).map_or_else(|| cell.to_owned(), std::borrow::Cow::into_owned)
        };
        let number = |name: &str| text(name).parse().unwrap_or(0);
        if text("DefinitionGroupId").eq_ignore_ascii_case(project.trim_end_matches(' ')) && text("Disable") != "Yes" {
            let format = text("SourceFormat");
            entries.push(EntityEntry {
                name: text("EntityName"),
                format: if format.is_empty() { SourceFormat::CsvUnicode.to_string() } else { format },
                is_incremental: text("DefaultRefreshType") != "FullPush",
                order: (number("ExecutionUnit"), number("LevelInExecutionUnit"), number("SequenceInLevel")),
                ..EntityEntry::default()
            });
        }
        Ok(true)
    })?;
    entries.sort_by_key(|entry| entry.order);
    Ok(entries)
}

/// Takes every entity out of a data project.
fn clear_project(session: &mut Session<'_>, project: &str) -> Result<(), Refusal> {
    let table = Arc::clone(session.catalogue.by_set(DETAILS).expect("data management brings its tables"));
    let at = table.property("DefinitionGroupId").expect("it is part of the key");
    let mut places = Vec::new();
    store::scan(session.connection(), &table, 0, i64::MAX, false, &mut |id, _, data| {
        let mut cells = Vec::new();
        table.cells(data, &mut cells);
        let is_its_own =
            cell::text_of(cells[at]).is_some_and(|text| text.eq_ignore_ascii_case(project.trim_end_matches(' ')));
        if is_its_own {
            places.push(id);
        }
        Ok(true)
    })?;
    for place in places {
        if let Some(row) = store::find_by_place(session.connection(), place)? {
            session.delete(&table, &row)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_can_be_read() {
        assert_eq!(
            tables().iter().map(|table| table.set.as_str()).collect::<Vec<_>>(),
            [PROJECTS, DETAILS, JOB_DETAILS]
        );
    }
}
