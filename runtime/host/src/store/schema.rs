//! The tables, how they came to be, and the settings without which a commit would not be durable.

use std::path::Path;
use std::time::Duration;

use dualwright_core::Fault;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::sql::failed;

/// Marks the file as ours: "DWst" in ASCII.
const APPLICATION_ID: i32 = 0x4457_7374;

/// One step per version, in order; a released step is never changed. The file's `user_version` counts the steps that
/// it has had.
const MIGRATIONS: &[&str] = &[
    include_str!("tables.sql"),
    include_str!("finops_key.sql"),
    include_str!("captured_rows.sql"),
    include_str!("link_record.sql"),
];

/// The version that this program reads and writes.
const VERSION: i64 = MIGRATIONS.len() as i64;

/// Longest wait for another process that writes (`retry` beside a runtime). Its transactions take milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// Distinct statements of this module with room to spare.
const STATEMENTS_MAX: usize = 64;

/// The connection that writes. With `migrate`, a new or older file is brought to this version.
pub(super) fn open(file: &Path, migrate: bool) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = connect(file, flags)?;
    check_owner(&connection, file, migrate)?;
    let settings = make_durable(&connection).map_err(|error| cannot_open(file, &error))?;
    check_durable(file, &settings)?;
    if migrate {
        apply_migrations(&mut connection).map_err(|error| cannot_open(file, &error))?;
    }
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_to_read(file: &Path) -> Result<Connection, Fault> {
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    check_owner(&connection, file, false)?;
    Ok(connection)
}

fn connect(file: &Path, flags: OpenFlags) -> Result<Connection, Fault> {
    let connect = || {
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        Ok(connection)
    };
    connect().map_err(|error| cannot_open(file, &error))
}

fn cannot_open(file: &Path, error: &rusqlite::Error) -> Fault {
    failed(format!("the store {} cannot be opened: {error}", file.display()))
}

/// Refuses a file of another program, and one of another version unless it may be migrated.
fn check_owner(connection: &Connection, file: &Path, migrate: bool) -> Result<(), Fault> {
    let read = || {
        let owner: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((owner, version, tables))
    };
    let (owner, version, tables) = read().map_err(|error| cannot_open(file, &error))?;
    let is_new = owner == 0 && version == 0 && tables == 0;
    if owner != APPLICATION_ID && !is_new {
        return Err(failed(format!("{} is not a store of dualwright; name another state folder", file.display())));
    }
    if version > VERSION {
        return Err(failed(format!(
            "the store {} has version {version}, this program knows {VERSION}; use the newer program",
            file.display()
        )));
    }
    if version < VERSION && !migrate {
        return Err(failed(format!(
            "the store {} has version {version} and needs {VERSION}; start the runtime once to bring it up to date",
            file.display()
        )));
    }
    Ok(())
}

/// What SQLite says of itself, after it was asked to be durable.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    journal_mode: String,
    synchronous: i64,
}

fn make_durable(connection: &Connection) -> Result<Settings, rusqlite::Error> {
    let _: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", "full")?;
    // Where fsync alone does not reach the disk (macOS); elsewhere without effect.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    // 16 MiB: folding the log back costs two fsyncs, and a page of an initial sync writes a few hundred KiB.
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    Ok(Settings {
        journal_mode: connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?,
        synchronous: connection.pragma_query_value(None, "synchronous", |row| row.get(0))?,
    })
}

fn check_durable(file: &Path, settings: &Settings) -> Result<(), Fault> {
    // 2 is FULL: with a write-ahead log, NORMAL loses the last commits when the machine fails.
    const FULL: i64 = 2;
    if settings.journal_mode == "wal" && settings.synchronous == FULL {
        return Ok(());
    }
    Err(failed(format!(
        "the store {} would not be durable: SQLite reports journal_mode {} instead of wal, or synchronous {} instead \
         of {FULL}; keep the state folder on a local disk",
        file.display(),
        settings.journal_mode,
        settings.synchronous
    )))
}

fn apply_migrations(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default()) {
        transaction.execute_batch(migration)?;
    }
    if version < VERSION {
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_that_is_synced_at_each_commit_is_accepted() {
        for (journal_mode, synchronous, accepted) in
            [("wal", 2, true), ("wal", 1, false), ("wal", 0, false), ("delete", 2, false), ("memory", 2, false)]
        {
            let settings = Settings { journal_mode: journal_mode.to_owned(), synchronous };
            assert_eq!(check_durable(Path::new("x"), &settings).is_ok(), accepted, "{settings:?}");
        }
    }

    #[test]
    fn what_sqlite_reports_is_what_was_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open(&folder.path().join("store.sqlite"), true).expect("opens");
        let settings = make_durable(&connection).expect("settings");
        assert_eq!(settings, Settings { journal_mode: "wal".to_owned(), synchronous: 2 });
    }

    #[test]
    fn files_of_others_and_of_other_versions_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("store.sqlite");
        let prepared = |sql: &str| {
            let _ = std::fs::remove_file(&file);
            Connection::open(&file).expect("opens").execute_batch(sql).expect("runs");
        };
        prepared("CREATE TABLE other (a)");
        let refused = open(&file, true).expect_err("a file of another program");
        assert!(refused.message.contains("not a store of dualwright"), "{refused}");
        prepared(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99; CREATE TABLE t (a)"));
        let refused = open(&file, true).expect_err("a newer file");
        assert!(refused.message.contains("has version 99"), "{refused}");
        prepared("");
        let refused = open_to_read(&file).expect_err("an empty file");
        assert!(refused.message.contains("start the runtime once"), "{refused}");
        std::fs::write(
            &file,
            b"this is text, and more of it than a header of SQLite has, so that it is read as one, \
            which takes a hundred bytes",
        )
        .expect("written");
        assert!(open(&file, true).is_err());
    }
}
