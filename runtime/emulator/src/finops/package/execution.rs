//! Executions: what was asked for, how far it is, and what went wrong.
//!
//! Owns how they are kept. An execution is a row that outlives the process; what was under way when the process ended is
//! marked as failed when the store is opened again, and what had not begun begins then.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::manifest::FieldMap;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS execution(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE COLLATE NOCASE,
        kind TEXT NOT NULL, project TEXT NOT NULL COLLATE NOCASE, package TEXT NOT NULL, company TEXT NOT NULL,
        runs_target INTEGER NOT NULL, overwrites INTEGER NOT NULL, is_delta INTEGER NOT NULL, rows_max INTEGER NOT NULL,
        blob TEXT NOT NULL, status TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS execution_waiting ON execution(status, number);
    CREATE TABLE IF NOT EXISTS execution_entity(execution INTEGER NOT NULL, place INTEGER NOT NULL, entity TEXT NOT NULL,
        file TEXT NOT NULL, format TEXT NOT NULL, map TEXT NOT NULL, is_incremental INTEGER NOT NULL,
        execution_unit INTEGER NOT NULL, level INTEGER NOT NULL, sequence INTEGER NOT NULL, status TEXT NOT NULL,
        staged INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL DEFAULT 0, updated INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0, data BLOB, version INTEGER, staging_errors TEXT NOT NULL DEFAULT '',
        error_keys TEXT NOT NULL DEFAULT '', PRIMARY KEY(execution, place)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS execution_error(seq INTEGER PRIMARY KEY AUTOINCREMENT, execution INTEGER NOT NULL,
        entity TEXT NOT NULL COLLATE NOCASE, stage TEXT NOT NULL, line INTEGER NOT NULL, record TEXT NOT NULL,
        keys TEXT NOT NULL, field TEXT NOT NULL, message TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS execution_error_of ON execution_error(execution, entity);
    CREATE TABLE IF NOT EXISTS blob(name TEXT PRIMARY KEY, signature TEXT NOT NULL, expires INTEGER NOT NULL,
        kept_until INTEGER NOT NULL, data BLOB);
    CREATE TABLE IF NOT EXISTS blob_block(name TEXT NOT NULL, id TEXT NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY(name, id)) WITHOUT ROWID;
";

/// `DMFExecutionSummaryStatus`. Of a whole execution, and of an entity in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Unknown,
    NotRun,
    Executing,
    Succeeded,
    PartiallySucceeded,
    Failed,
    Canceled,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Unknown,
        Self::NotRun,
        Self::Executing,
        Self::Succeeded,
        Self::PartiallySucceeded,
        Self::Failed,
        Self::Canceled,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::NotRun => "NotRun",
            Self::Executing => "Executing",
            Self::Succeeded => "Succeeded",
            Self::PartiallySucceeded => "PartiallySucceeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }

    fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|status| status.name() == name).unwrap_or(Self::Unknown)
    }

    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::NotRun | Self::Executing)
    }

    /// What came of rows: how many were there, and how many of them were set aside.
    pub const fn of_rows(rows: i64, failed: i64) -> Self {
        match (rows, failed) {
            (_, 0) => Self::Succeeded,
            (rows, failed) if failed < rows => Self::PartiallySucceeded,
            _ => Self::Failed,
        }
    }

    /// What came of an execution with these entities.
    pub fn of_entities(entities: impl Iterator<Item = Self>) -> Self {
        let (mut good, mut bad) = (true, true);
        for status in entities {
            good &= status == Self::Succeeded;
            bad &= status == Self::Failed;
        }
        match (good, bad) {
            (true, _) => Self::Succeeded,
            (false, true) => Self::Failed,
            (false, false) => Self::PartiallySucceeded,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Export,
    Import,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Import => "import",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Execution {
    pub number: i64,
    pub id: String,
    pub kind: Kind,
    pub project: String,
    /// Of an export: what its file is called.
    pub package: String,
    /// The legal entity, in lower case.
    pub company: String,
    /// Of an import: whether rows go on from staging to their tables.
    pub runs_target: bool,
    /// Of an import: whether the project becomes what the package says.
    pub overwrites: bool,
    /// Of an export: only what changed, whatever the project says.
    pub is_delta: bool,
    /// Of an export: rows of each entity at most; 0 for all.
    pub rows_max: i64,
    /// The package.
    pub blob: String,
    pub status: Status,
}

/// One entity of an execution.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub place: i64,
    pub entity: String,
    pub file: String,
    pub format: String,
    pub map: Vec<FieldMap>,
    pub is_incremental: bool,
    pub order: (i64, i64, i64),
    pub status: Status,
}

/// How many rows went where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub staged: i64,
    pub created: i64,
    pub updated: i64,
    pub failed: i64,
}

/// Why a row, or a whole file, was set aside.
#[derive(Debug, Clone, Default)]
pub(super) struct Problem {
    pub stage: Stage,
    /// Line of the file on which the record begins; 0 for the whole file.
    pub line: i64,
    /// The record as it stood in the file: one record of CSV.
    pub record: String,
    /// The values of its key: one record of CSV.
    pub keys: String,
    pub field: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// From the file to staging.
    #[default]
    Staging,
    /// From staging to the table.
    Target,
}

impl Stage {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Target => "target",
        }
    }
}

const COLUMNS: &str =
    "number, id, kind, project, package, company, runs_target, overwrites, is_delta, rows_max, blob, status";

fn execution_of(row: &Row<'_>) -> rusqlite::Result<Execution> {
    let kind: String = row.get(2)?;
    let status: String = row.get(11)?;
    Ok(Execution {
        number: row.get(0)?,
        id: row.get(1)?,
        kind: if kind == "import" { Kind::Import } else { Kind::Export },
        project: row.get(3)?,
        package: row.get(4)?,
        company: row.get(5)?,
        runs_target: row.get(6)?,
        overwrites: row.get(7)?,
        is_delta: row.get(8)?,
        rows_max: row.get(9)?,
        blob: row.get(10)?,
        status: Status::of(&status),
    })
}

/// Keeps a new execution, in place of an older one with its id.
pub(super) fn insert(connection: &Connection, execution: &Execution) -> rusqlite::Result<()> {
    if let Some(older) = find(connection, &execution.id)? {
        connection.execute("DELETE FROM execution WHERE number = ?1", [older.number])?;
        connection.execute("DELETE FROM execution_entity WHERE execution = ?1", [older.number])?;
        connection.execute("DELETE FROM execution_error WHERE execution = ?1", [older.number])?;
    }
    connection.execute(
        "INSERT INTO execution(id, kind, project, package, company, runs_target, overwrites, is_delta, rows_max, blob, status)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            execution.id,
            execution.kind.name(),
            execution.project,
            execution.package,
            execution.company,
            execution.runs_target,
            execution.overwrites,
            execution.is_delta,
            execution.rows_max,
            execution.blob,
            execution.status.name(),
        ],
    )?;
    Ok(())
}

pub(super) fn find(connection: &Connection, id: &str) -> rusqlite::Result<Option<Execution>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM execution WHERE id = ?1"))?
        .query_row([id], execution_of)
        .optional()
}

/// The execution whose turn it is: the one under way, or else the one that waits longest.
pub(super) fn due(connection: &Connection) -> rusqlite::Result<Option<Execution>> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM execution WHERE status = ?1 ORDER BY number LIMIT 1"))?;
    for status in [Status::Executing, Status::NotRun] {
        let found = statement.query_row([status.name()], execution_of).optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The execution of a project that is waiting or under way.
pub(super) fn under_way(connection: &Connection, kind: Kind, project: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row(
            "SELECT id FROM execution WHERE status IN ('NotRun', 'Executing') AND kind = ?1 AND project = ?2 LIMIT 1",
            params![kind.name(), project],
            |row| row.get(0),
        )
        .optional()
}

pub(super) fn set_status(connection: &Connection, number: i64, status: Status) -> rusqlite::Result<()> {
    connection.execute("UPDATE execution SET status = ?1 WHERE number = ?2", params![status.name(), number])?;
    Ok(())
}

pub(super) fn status(connection: &Connection, number: i64) -> rusqlite::Result<Status> {
    let status: Option<String> = connection
        .query_row("SELECT status FROM execution WHERE number = ?1", [number], |row| row.get(0))
        .optional()?;
    Ok(status.as_deref().map_or(Status::Unknown, Status::of))
}

/// Ends an execution that is waiting or under way; `None` when there is none.
pub(crate) fn cancel(connection: &Connection, id: &str) -> rusqlite::Result<Option<()>> {
    let Some(execution) = find(connection, id)?.filter(|execution| execution.status.is_under_way()) else {
        return Ok(None);
    };
    set_status(connection, execution.number, Status::Canceled)?;
    Ok(Some(()))
}

/// Marks what was under way when the process ended.
pub(crate) fn interrupt(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO execution_error(execution, entity, stage, line, record, keys, field, message)
         SELECT number, '', 'target', 0, '', '', '', 'The batch job was interrupted by a restart.'
         FROM execution WHERE status = 'Executing'",
        [],
    )?;
    connection.execute(
        "UPDATE execution_entity SET status = 'Failed' WHERE status IN ('NotRun', 'Executing')
         AND execution IN (SELECT number FROM execution WHERE status = 'Executing')",
        [],
    )?;
    connection.execute("UPDATE execution SET status = 'Failed' WHERE status = 'Executing'", [])?;
    Ok(())
}

pub(super) fn insert_part(connection: &Connection, execution: i64, part: &Part) -> rusqlite::Result<()> {
    let map = serde_json::to_string(&part.map.iter().map(|map| (&map.column, &map.field)).collect::<Vec<_>>());
    connection
        .prepare_cached(
            "INSERT INTO execution_entity(execution, place, entity, file, format, map, is_incremental, execution_unit, level,
             sequence, status) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            execution,
            part.place,
            part.entity,
            part.file,
            part.format,
            map.unwrap_or_default(),
            part.is_incremental,
            part.order.0,
            part.order.1,
            part.order.2,
            part.status.name(),
        ])?;
    Ok(())
}

pub(super) fn parts(connection: &Connection, execution: i64) -> rusqlite::Result<Vec<Part>> {
    connection
        .prepare_cached(
            "SELECT place, entity, file, format, map, is_incremental, execution_unit, level, sequence, status
             FROM execution_entity WHERE execution = ?1 ORDER BY place",
        )?
        .query_map([execution], |row| {
            let map: String = row.get(4)?;
            let map: Vec<(String, String)> = serde_json::from_str(&map).unwrap_or_default();
            let status: String = row.get(9)?;
            Ok(Part {
                place: row.get(0)?,
                entity: row.get(1)?,
                file: row.get(2)?,
                format: row.get(3)?,
                map: map.into_iter().map(|(column, field)| FieldMap { column, field }).collect(),
                is_incremental: row.get(5)?,
                order: (row.get(6)?, row.get(7)?, row.get(8)?),
                status: Status::of(&status),
            })
        })?
        .collect()
}

/// Writes down what came of an entity.
pub(super) fn finish_part(
    connection: &Connection,
    execution: i64,
    place: i64,
    status: Status,
    counts: Counts,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE execution_entity SET status = ?3, staged = ?4, created = ?5, updated = ?6, failed = ?7
         WHERE execution = ?1 AND place = ?2",
        params![execution, place, status.name(), counts.staged, counts.created, counts.updated, counts.failed],
    )?;
    Ok(())
}

pub(super) fn counts(connection: &Connection, execution: i64, place: i64) -> rusqlite::Result<Counts> {
    connection.query_row(
        "SELECT staged, created, updated, failed FROM execution_entity WHERE execution = ?1 AND place = ?2",
        [execution, place],
        |row| Ok(Counts { staged: row.get(0)?, created: row.get(1)?, updated: row.get(2)?, failed: row.get(3)? }),
    )
}

pub(super) fn insert_problem(
    connection: &Connection,
    execution: i64,
    entity: &str,
    problem: &Problem,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO execution_error(execution, entity, stage, line, record, keys, field, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            execution,
            entity,
            problem.stage.name(),
            problem.line,
            problem.record,
            problem.keys,
            problem.field,
            problem.message,
        ])?;
    Ok(())
}

/// The errors of an execution, of one entity or one stage of it when they are given.
pub(super) fn problems(
    connection: &Connection,
    execution: i64,
    entity: Option<&str>,
    stage: Option<Stage>,
) -> rusqlite::Result<Vec<Problem>> {
    connection
        .prepare_cached(
            "SELECT stage, line, record, keys, field, message FROM execution_error WHERE execution = ?1
             AND (?2 IS NULL OR entity = ?2) AND (?3 IS NULL OR stage = ?3) ORDER BY seq",
        )?
        .query_map(params![execution, entity, stage.map(Stage::name)], |row| {
            let stage: String = row.get(0)?;
            Ok(Problem {
                stage: if stage == "target" { Stage::Target } else { Stage::Staging },
                line: row.get(1)?,
                record: row.get(2)?,
                keys: row.get(3)?,
                field: row.get(4)?,
                message: row.get(5)?,
            })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_follow_from_rows_and_entities() {
        use Status::{Failed, PartiallySucceeded, Succeeded};
        for (rows, failed, wanted) in
            [(0, 0, Succeeded), (3, 0, Succeeded), (3, 1, PartiallySucceeded), (3, 3, Failed), (0, 1, Failed)]
        {
            assert_eq!(Status::of_rows(rows, failed), wanted, "{rows} {failed}");
        }
        for (entities, wanted) in [
            (vec![], Succeeded),
            (vec![Succeeded, Succeeded], Succeeded),
            (vec![Succeeded, Failed], PartiallySucceeded),
            (vec![PartiallySucceeded], PartiallySucceeded),
            (vec![Failed, PartiallySucceeded], PartiallySucceeded),
            (vec![Failed, Failed], Failed),
        ] {
            assert_eq!(Status::of_entities(entities.iter().copied()), wanted, "{entities:?}");
        }
        for status in Status::ALL {
            assert_eq!(Status::of(status.name()), status);
        }
    }
}
