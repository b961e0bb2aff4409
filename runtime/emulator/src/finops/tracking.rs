//! Change tracking: which rows of an entity changed since they were last exported.
//!
//! Owns what is tracked of each entity and how far each data project has exported it. Only exports ask. A change counts
//! for a whole row and never for a field, and a package tells of no deletion: F&O keeps track of those for exports to a
//! database alone. <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/entity-change-track>

use dualwright_odata::batch::{Request, Response};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::package::{entity, label};
use crate::Inner;
use crate::catalogue::Table;
use crate::exchange::{json, no_content};
use crate::observe::{Operation, RowWrite};
use crate::session::Session;
use crate::store::{self, PLACE_BITS};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS tracking(entity TEXT PRIMARY KEY COLLATE NOCASE, mode TEXT NOT NULL, fields TEXT NOT NULL)
        WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS tracked(id INTEGER PRIMARY KEY, version INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS exported(project TEXT NOT NULL COLLATE NOCASE, entity TEXT NOT NULL COLLATE NOCASE,
        company TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY(project, entity, company)) WITHOUT ROWID;
";

/// Which changes make a row count as changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Mode {
    /// Those of the primary table's fields: the named ones, or all when none are.
    PrimaryTable,
    /// Those of any field.
    EntireEntity,
    /// Those of the fields that the entity's own query names.
    CustomQuery,
    None,
}

/// What is tracked of one entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tracking {
    /// Its label.
    entity: String,
    mode: Mode,
    /// Public or staging names; without any every field counts.
    #[serde(default)]
    fields: Vec<String>,
}

impl Tracking {
    fn counts(&self, name: &str) -> bool {
        self.mode == Mode::EntireEntity
            || self.fields.is_empty()
            || self.fields.iter().any(|field| field.eq_ignore_ascii_case(name))
    }
}

/// Rows that changed after a version of the store.
#[derive(Debug)]
pub(super) struct Since {
    version: i64,
    /// Not every field counts, so that a row's version does not tell.
    is_partial: bool,
}

impl Since {
    /// Whether the row at this place, in this version, has to be exported.
    pub fn holds(&self, connection: &Connection, id: i64, version: i64) -> rusqlite::Result<bool> {
        if version <= self.version {
            return Ok(false);
        }
        // A place is given together with the row's first version.
        let created = id & ((1 << PLACE_BITS) - 1);
        if !self.is_partial || created > self.version {
            return Ok(true);
        }
        let tracked: Option<i64> = connection
            .prepare_cached("SELECT version FROM tracked WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        Ok(tracked.is_some_and(|tracked| tracked > self.version))
    }
}

fn find(connection: &Connection, entity: &str) -> rusqlite::Result<Option<Tracking>> {
    let found: Option<(String, String)> = connection
        .prepare_cached("SELECT mode, fields FROM tracking WHERE entity = ?1")?
        .query_row([entity], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.and_then(|(mode, fields)| {
        let mode = serde_json::from_value(serde_json::Value::String(mode)).ok()?;
        Some(Tracking { entity: entity.to_owned(), mode, fields: serde_json::from_str(&fields).ok()? })
    }))
}

/// From where a project goes on with an entity; `None` when all rows are wanted, because the entity is not tracked or
/// the project exports it for the first time.
pub(super) fn since(
    connection: &Connection,
    project: &str,
    table: &Table,
    company: &str,
) -> rusqlite::Result<Option<Since>> {
    let Some(tracking) = find(connection, label(table))? else { return Ok(None) };
    let company = if table.company.is_some() { company } else { "" };
    let version: Option<i64> = connection
        .query_row(
            "SELECT version FROM exported WHERE project = ?1 AND entity = ?2 AND company = ?3",
            params![project, label(table), company],
            |row| row.get(0),
        )
        .optional()?;
    let is_partial = tracking.mode != Mode::EntireEntity && !tracking.fields.is_empty();
    Ok(version.map(|version| Since { version, is_partial }))
}

/// A project has exported an entity up to a version.
pub(super) fn advance(
    connection: &Connection,
    project: &str,
    table: &Table,
    company: &str,
    version: i64,
) -> rusqlite::Result<()> {
    let company = if table.company.is_some() { company } else { "" };
    connection.execute(
        "INSERT OR REPLACE INTO exported VALUES (?1, ?2, ?3, ?4)",
        params![project, label(table), company, version],
    )?;
    Ok(())
}

/// Lets a project begin an entity anew; says whether it had exported it.
pub(super) fn reset(connection: &Connection, project: &str, entity: &str) -> rusqlite::Result<bool> {
    let count = connection
        .execute("DELETE FROM exported WHERE project = ?1 AND entity = ?2", params![project, entity.trim()])?;
    Ok(count > 0)
}

/// Whether any entity is tracked by some of its fields, so that writes have to be looked at.
pub(super) fn looks_at_writes(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS(SELECT 1 FROM tracking WHERE fields <> '[]')", [], |row| row.get(0))
}

/// Writes down that a row changed in what is tracked of it.
pub(super) fn follow(session: &Session<'_>, write: &RowWrite<'_>) -> rusqlite::Result<()> {
    let (Operation::Update, Some(before), Some(after)) = (write.operation, write.before, write.after) else {
        return Ok(());
    };
    let connection = session.connection();
    let table = write.table;
    let Some(tracking) = find(connection, label(table))? else { return Ok(()) };
    let changed = |at: &usize| before[*at] != after[*at] && tracking.counts(&table.columns[*at].property);
    if (0..table.columns.len()).any(|at| changed(&at))
        && let Some(row) = store::find(connection, &table.row_key(after))?
    {
        connection
            .prepare_cached("INSERT OR REPLACE INTO tracked VALUES (?1, ?2)")?
            .execute(params![row.id, row.version])?;
    }
    Ok(())
}

/// `GET /_emulator/change-tracking`: what is tracked. `PUT`: tracks an entity, or no longer (`"mode": "none"`); what
/// F&O has a page for and no service.
pub(super) fn route(inner: &Inner, request: &Request) -> Result<Response, String> {
    if request.method == "GET" {
        let list = inner.store.read(|connection| {
            let mut statement = connection.prepare("SELECT entity FROM tracking ORDER BY entity")?;
            let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            names.iter().map(|name| find(connection, name)).collect::<rusqlite::Result<Vec<_>>>()
        });
        let list = list.map_err(|error: rusqlite::Error| error.to_string())?;
        return Ok(json(200, serde_json::to_vec(&list).map_err(|error| error.to_string())?));
    }
    let mut wanted: Tracking = serde_json::from_slice(&request.body).map_err(|error| error.to_string())?;
    let catalogue = inner.store.catalogue();
    let table = entity(&catalogue, &wanted.entity)?;
    label(table).clone_into(&mut wanted.entity);
    let unknown = wanted
        .fields
        .iter()
        .find(|field| !table.columns.iter().any(|column| column.property.eq_ignore_ascii_case(field)));
    if let Some(unknown) = unknown {
        return Err(format!("{} has no field {unknown}", wanted.entity));
    }
    let kept = inner.store.write(false, |session| {
        let connection = session.connection();
        // What was exported before is no beginning for other changes.
        connection.execute("DELETE FROM exported WHERE entity = ?1", [&wanted.entity])?;
        connection.execute("DELETE FROM tracking WHERE entity = ?1", [&wanted.entity])?;
        if wanted.mode != Mode::None {
            let mode = serde_json::to_value(wanted.mode).unwrap_or_default();
            let fields = serde_json::to_string(&wanted.fields).unwrap_or_default();
            connection.execute(
                "INSERT INTO tracking VALUES (?1, ?2, ?3)",
                params![wanted.entity, mode.as_str().unwrap_or_default(), fields],
            )?;
        }
        Ok(())
    });
    kept.map_err(|error: rusqlite::Error| error.to_string())?;
    inner.finops.watch.forget();
    Ok(no_content(204))
}
