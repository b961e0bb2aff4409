//! Positions, counts, the activity log and timings.

use std::sync::Arc;

use dualwright_core::SystemKind;
use rusqlite::{Connection, OptionalExtension};

use super::sql::{Failure, count_of, stored, system_of, take_numbers};
use super::{Activity, Counts, NewActivity, Scope};

/// Lines of the activity log that are kept per link: some weeks of a quiet link, a day of a busy one.
const ACTIVITY_MAX: i64 = 10_000;

pub(super) fn watermark(connection: &Connection, scope: &Scope, feed: &str) -> Result<Option<String>, Failure> {
    let position = connection
        .prepare_cached("SELECT position FROM watermark WHERE tenant = ?1 AND link = ?2 AND feed = ?3")?
        .query_row((&scope.tenant, &scope.link, feed), |row| row.get(0))
        .optional()?;
    Ok(position)
}

pub(super) fn put_watermarks(
    connection: &Connection,
    scope: &Scope,
    watermarks: &[(String, String)],
) -> Result<(), Failure> {
    for (feed, position) in watermarks {
        connection
            .prepare_cached(
                "INSERT INTO watermark (tenant, link, feed, position) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET position = excluded.position",
            )?
            .execute((&scope.tenant, &scope.link, feed, position))?;
    }
    Ok(())
}

pub(super) fn cursor(connection: &Connection, scope: &Scope, job: &str) -> Result<Option<String>, Failure> {
    let position = connection
        .prepare_cached("SELECT position FROM cursor WHERE tenant = ?1 AND link = ?2 AND job = ?3")?
        .query_row((&scope.tenant, &scope.link, job), |row| row.get(0))
        .optional()?;
    Ok(position)
}

pub(super) fn put_cursor(connection: &Connection, scope: &Scope, job: &str, position: &str) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO cursor (tenant, link, job, position) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET position = excluded.position",
        )?
        .execute((&scope.tenant, &scope.link, job, position))?;
    Ok(())
}

pub(super) fn counts(connection: &Connection, scope: &Scope) -> Result<Vec<(String, SystemKind, Counts)>, Failure> {
    let counts = connection
        .prepare_cached(
            "SELECT map, source, rows, created, updated, deleted, skipped, failed, echoes FROM counts
             WHERE tenant = ?1 AND link = ?2 ORDER BY map, source DESC",
        )?
        .query_map((&scope.tenant, &scope.link), |row| {
            let counts = Counts {
                rows: count_of(row, 2)?,
                created: count_of(row, 3)?,
                updated: count_of(row, 4)?,
                deleted: count_of(row, 5)?,
                skipped: count_of(row, 6)?,
                failed: count_of(row, 7)?,
                echoes: count_of(row, 8)?,
            };
            Ok((row.get(0)?, system_of(row, 1)?, counts))
        })?
        .collect::<Result<_, _>>()?;
    Ok(counts)
}

pub(super) fn add_counts(
    connection: &Connection,
    scope: &Scope,
    counts: &[(Arc<str>, SystemKind, Counts)],
) -> Result<(), Failure> {
    for (map, source, counts) in counts {
        connection
            .prepare_cached(
                "INSERT INTO counts
                     (tenant, link, map, source, rows, created, updated, deleted, skipped, failed, echoes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT DO UPDATE SET rows = rows + excluded.rows, created = created + excluded.created,
                     updated = updated + excluded.updated, deleted = deleted + excluded.deleted,
                     skipped = skipped + excluded.skipped, failed = failed + excluded.failed,
                     echoes = echoes + excluded.echoes",
            )?
            .execute((
                &scope.tenant,
                &scope.link,
                map,
                source.name(),
                stored(counts.rows),
                stored(counts.created),
                stored(counts.updated),
                stored(counts.deleted),
                stored(counts.skipped),
                stored(counts.failed),
                stored(counts.echoes),
            ))?;
    }
    Ok(())
}

pub(super) fn activity(connection: &Connection, scope: &Scope, limit: u32) -> Result<Vec<Activity>, Failure> {
    let lines = connection
        .prepare_cached(
            "SELECT id, at, map, kind, text FROM activity WHERE tenant = ?1 AND link = ?2 ORDER BY id DESC LIMIT ?3",
        )?
        .query_map((&scope.tenant, &scope.link, limit), |row| {
            Ok(Activity { id: row.get(0)?, at: row.get(1)?, map: row.get(2)?, kind: row.get(3)?, text: row.get(4)? })
        })?
        .collect::<Result<_, _>>()?;
    Ok(lines)
}

/// Adds lines to the activity log, and lets go of the oldest.
pub(super) fn log(connection: &Connection, scope: &Scope, lines: &[NewActivity]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    let first = take_numbers(connection, scope, "activity", lines.len())?;
    let mut last = first;
    for (id, line) in (first..).zip(lines) {
        connection
            .prepare_cached(
                "INSERT INTO activity (tenant, link, id, at, map, kind, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((&scope.tenant, &scope.link, id, line.at, &line.map, line.kind, &line.text))?;
        last = id;
    }
    connection.prepare_cached("DELETE FROM activity WHERE tenant = ?1 AND link = ?2 AND id <= ?3")?.execute((
        &scope.tenant,
        &scope.link,
        last - ACTIVITY_MAX,
    ))?;
    Ok(())
}

pub(super) fn save_plugin_timings(
    connection: &Connection,
    scope: &Scope,
    place: &str,
    json: &str,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO plugin_timings (tenant, link, place, timings) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET timings = excluded.timings",
        )?
        .execute((&scope.tenant, &scope.link, place, json))?;
    Ok(())
}

pub(super) fn plugin_timings(connection: &Connection, scope: &Scope) -> Result<Vec<(String, String)>, Failure> {
    let timings = connection
        .prepare_cached("SELECT place, timings FROM plugin_timings WHERE tenant = ?1 AND link = ?2 ORDER BY place")?
        .query_map((&scope.tenant, &scope.link), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(timings)
}
