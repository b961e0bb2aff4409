//! One SQLite file: rows, keys, links between rows, tombstones, audit, and the definitions themselves.
//!
//! Owns the file and its connections. Every write goes through one connection and one transaction, so a process that is
//! killed leaves whole change sets behind and nothing else; a file that is opened again needs nothing besides itself.
//! Knows tables by number and rows by key; knows no HTTP and no dialect.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::Context;
use rusqlite::{Connection, OptionalExtension, ToSql, TransactionBehavior, params};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::Dialect;
use crate::catalogue::{Catalogue, Table};
use crate::clock::Clock;
use crate::fault::Faults;
use crate::finops::{events, package, tracking};
use crate::post;
use crate::session::Session;

/// Bits of a row's place that count rows; the bits above are the table's number. Rows of a table so lie together.
pub(crate) const PLACE_BITS: u32 = 40;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS setting(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS definition(number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, json TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS choice(name TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS row(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, version INTEGER NOT NULL,
        number INTEGER NOT NULL, data TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS alternate(key BLOB PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS link(target BLOB NOT NULL, row INTEGER NOT NULL, place INTEGER NOT NULL,
        PRIMARY KEY(target, row, place)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS tombstone(key BLOB PRIMARY KEY, number INTEGER NOT NULL, version INTEGER NOT NULL)
        WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS audit(seq INTEGER PRIMARY KEY, change_set TEXT NOT NULL, receipt TEXT,
        collection TEXT NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL, hash TEXT NOT NULL, equal INTEGER NOT NULL);
";

/// Only Dataverse is asked for what changed after a version.
const VERSION_INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS row_version ON row(number, version);
    CREATE INDEX IF NOT EXISTS tombstone_version ON tombstone(number, version);
";

#[derive(Debug)]
pub(crate) struct Store {
    pub dialect: Dialect,
    pub clock: Clock,
    faults: Arc<Faults>,
    path: PathBuf,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
    catalogue: RwLock<Arc<Catalogue>>,
    /// Wakes who empties the queue of outgoing requests.
    pub queued: Notify,
    /// How often rows changed from which something is compiled.
    configuration: AtomicU64,
    /// Kept until the end when there is no file of the caller's.
    _directory: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Writer {
    connection: Connection,
    /// The last number given to a version or a row's place.
    counter: i64,
}

/// A row as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub id: i64,
    pub version: i64,
    pub data: String,
}

/// Which row, in which state: all that an etag tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The row's place.
    pub id: i64,
    pub version: i64,
}

impl Found {
    pub const fn stamp(&self) -> Stamp {
        Stamp { id: self.id, version: self.version }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic between two statements leaves a transaction that is rolled back when it is dropped.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub fn open(dialect: Dialect, path: Option<&Path>, clock: Clock, faults: Arc<Faults>) -> anyhow::Result<Self> {
        let (path, directory) = match path {
            Some(path) => (path.to_owned(), None),
            None => {
                let directory = tempfile::tempdir().context("no place for a temporary store")?;
                (directory.path().join("emulator.sqlite"), Some(directory))
            }
        };
        let connection = connect(&path)?;
        if directory.is_some() {
            connection.pragma_update(None, "synchronous", "OFF")?;
        }
        connection
            .execute_batch(SCHEMA)
            .and_then(|()| connection.execute_batch(post::SCHEMA))
            .with_context(|| format!("{} is not a store of an emulator", path.display()))?;
        if dialect == Dialect::Dataverse {
            connection.execute_batch(VERSION_INDEXES)?;
        } else {
            for schema in package::SCHEMAS.into_iter().chain([tracking::SCHEMA, events::SCHEMA]) {
                connection.execute_batch(schema)?;
            }
            package::interrupt(&connection)?;
        }
        let kept: Option<String> = setting(&connection, "dialect")?;
        match kept.as_deref() {
            None => {
                connection.execute("INSERT INTO setting VALUES ('dialect', ?1)", [dialect.name()])?;
                connection.execute("INSERT INTO setting VALUES ('counter', 0)", [])?;
            }
            Some(kept) => anyhow::ensure!(kept == dialect.name(), "{} holds the rows of {kept}", path.display()),
        }
        let counter = setting(&connection, "counter")?.unwrap_or(0);
        let catalogue = Arc::new(load_catalogue(&connection, dialect)?);
        Ok(Self {
            dialect,
            clock,
            faults,
            path,
            writer: Mutex::new(Writer { connection, counter }),
            readers: Mutex::new(Vec::new()),
            catalogue: RwLock::new(catalogue),
            queued: Notify::new(),
            configuration: AtomicU64::new(0),
            _directory: directory,
        })
    }

    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `work` on a connection that sees one state of the store and cannot write.
    pub fn read<T, E: From<rusqlite::Error>>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let pooled = lock(&self.readers).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => {
                let connection = connect(&self.path)?;
                connection.pragma_update(None, "query_only", true)?;
                connection
            }
        };
        let result = {
            let snapshot = connection.unchecked_transaction()?;
            work(&snapshot)
        };
        // More than that many readers at once happen under a burst; their connections need not stay.
        const READERS_KEPT: usize = 16;
        let mut readers = lock(&self.readers);
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        result
    }

    /// Runs `work` in one transaction: all of what it wrote is kept when it succeeds, and nothing otherwise.
    pub fn write<T, E: From<rusqlite::Error>>(
        &self,
        recorded: bool,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut guard = lock(&self.writer);
        let Writer { connection, counter } = &mut *guard;
        // The catalogue is read here and not before: tables may have been defined while we waited.
        let mut session = Session::new(
            connection,
            self.catalogue(),
            self.clock.clone(),
            if recorded { self.faults.normalisers() } else { Arc::new([]) },
            *counter,
            recorded,
        )?;
        let result = work(&mut session)?;
        let redefined = session.redefined.then(|| Arc::clone(&session.catalogue));
        let committed = session.commit()?;
        *counter = committed.counter;
        if let Some(catalogue) = redefined {
            *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = catalogue;
        }
        drop(guard);
        if committed.has_configured {
            self.configuration.fetch_add(1, Ordering::Release);
        }
        if committed.has_queued {
            self.queued.notify_one();
        }
        Ok(result)
    }

    /// Puts new definitions in force; a table that is known gets what they add.
    pub fn define(&self, definitions: Vec<crate::TableDefinition>) -> anyhow::Result<()> {
        let mut guard = lock(&self.writer);
        let transaction = guard.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = self.catalogue();
        let mut grown = Vec::new();
        for definition in definitions {
            definition.check()?;
            let known = before.by_name(&definition.name);
            let merged = match known {
                Some(table) => {
                    anyhow::ensure!(
                        table.definition.key == definition.key || definition.key.is_empty(),
                        "the key of {} cannot change",
                        definition.name
                    );
                    table.definition.merged(&definition)
                }
                None => definition,
            };
            if known.is_some_and(|table| table.definition == merged) {
                continue;
            }
            put_definition(&transaction, &merged)?;
            if known.is_some_and(|table| table.definition.alternate_keys != merged.alternate_keys) {
                grown.push(merged.name);
            }
        }
        let after = Arc::new(load_catalogue(&transaction, self.dialect)?);
        for table in after.tables().filter(|table| has_other_relations(&before, &after, table)) {
            mark_again(&transaction, &after, table)?;
        }
        for name in &grown {
            if let Some(table) = after.by_name(name) {
                index_again(&transaction, table).with_context(|| format!("the rows of {name} do not fit its keys"))?;
            }
        }
        transaction.commit()?;
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = after;
        Ok(())
    }

    /// Moves the log into the file, so that the file alone is the store.
    pub fn checkpoint(&self) {
        lock(&self.readers).clear();
        let guard = lock(&self.writer);
        if let Err(error) = guard.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the store was not checkpointed");
        }
    }

    pub fn setting(&self, name: &str) -> rusqlite::Result<Option<i64>> {
        self.read(|connection| setting(connection, name))
    }

    /// How often rows changed from which something is compiled.
    pub fn configuration(&self) -> u64 {
        self.configuration.load(Ordering::Acquire)
    }

    pub fn set_setting(&self, name: &str, value: impl ToSql) -> rusqlite::Result<()> {
        let guard = lock(&self.writer);
        guard.connection.execute("INSERT OR REPLACE INTO setting VALUES (?1, ?2)", params![name, value])?;
        Ok(())
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    // NORMAL: a killed process loses nothing, because what it wrote is with the operating system.
    // A checkpoint waits for the disk, so it comes after some 32 MB of log and not with every tenth change set.
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=8000; PRAGMA cache_size=-65536;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Keeps a definition in place of the one with its name.
pub(crate) fn put_definition(connection: &Connection, definition: &crate::TableDefinition) -> anyhow::Result<()> {
    let json = serde_json::to_string(definition)?;
    connection.execute(
        "INSERT INTO definition(name, json) VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET json = excluded.json",
        params![definition.name, json],
    )?;
    Ok(())
}

pub(crate) fn load_catalogue(connection: &Connection, dialect: Dialect) -> anyhow::Result<Catalogue> {
    let mut statement = connection.prepare("SELECT number, json FROM definition ORDER BY number")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    let mut definitions = Vec::new();
    for row in rows {
        let (number, json) = row?;
        definitions.push((number, serde_json::from_str(&json).context("a stored definition cannot be read")?));
    }
    let mut statement = connection.prepare("SELECT name, json FROM choice ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut choices = Vec::new();
    for row in rows {
        let (name, json) = row?;
        choices.push((name, serde_json::from_str(&json).context("a stored choice cannot be read")?));
    }
    Catalogue::new(dialect, definitions, choices)
}

pub(crate) fn index_again(connection: &Connection, table: &Table) -> anyhow::Result<()> {
    let number = u32::try_from(table.number)?;
    connection.execute(
        "DELETE FROM alternate WHERE key >= ?1 AND key < ?2",
        params![number.to_be_bytes().as_slice(), (number + 1).to_be_bytes().as_slice()],
    )?;
    let mut insert = connection.prepare("INSERT INTO alternate VALUES (?1, ?2)")?;
    scan(connection, table, 0, i64::MAX, false, &mut |id, _, data| {
        let mut cells = Vec::new();
        table.cells(data, &mut cells);
        for key in 0..table.alternate_keys.len() {
            if let Some(key) = table.alternate_key(key, &cells) {
                insert.execute(params![key, id])?;
            }
        }
        Ok(true)
    })?;
    Ok(())
}

/// Whether rows of a table refer to others in another way than before (F&O).
fn has_other_relations(before: &Catalogue, after: &Catalogue, table: &Table) -> bool {
    let shape = |catalogue: &Catalogue, table: &Table| {
        let to = catalogue.relations_of(table).to.iter();
        to.map(|relation| (relation.target.number, relation.pairs.clone(), relation.company)).collect::<Vec<_>>()
    };
    let wanted = shape(after, table);
    before.by_number(table.number).map_or(!wanted.is_empty(), |known| shape(before, known) != wanted)
}

/// Writes down anew to what the rows of a table refer.
fn mark_again(connection: &Connection, catalogue: &Catalogue, table: &Table) -> anyhow::Result<()> {
    let (first, last) = places(table);
    if !has_rows(connection, table)? {
        return Ok(());
    }
    connection.execute("DELETE FROM link WHERE row > ?1 AND row <= ?2", [first, last])?;
    let mut insert = connection.prepare("INSERT OR IGNORE INTO link VALUES (?1, ?2, ?3)")?;
    scan(connection, table, 0, i64::MAX, false, &mut |id, _, data| {
        let mut cells = Vec::new();
        table.cells(data, &mut cells);
        for (place, target) in crate::session::links(catalogue, table, &cells) {
            insert.execute(params![target.as_bytes().as_slice(), id, i64::try_from(place).unwrap_or(i64::MAX)])?;
        }
        Ok(true)
    })?;
    Ok(())
}

/// Keeps a setting with what else a transaction writes.
pub(crate) fn put_setting(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT OR REPLACE INTO setting VALUES (?1, ?2)")?.execute(params![name, value])?;
    Ok(())
}

/// Whether a table holds anything.
pub(crate) fn has_rows(connection: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let (first, last) = places(table);
    connection.prepare_cached("SELECT 1 FROM row WHERE id > ?1 AND id <= ?2 LIMIT 1")?.exists([first, last])
}

pub(crate) fn setting<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    connection
        .prepare_cached("SELECT value FROM setting WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

/// The row with this key.
pub(crate) fn find(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached("SELECT id, version, data FROM row WHERE key = ?1")?
        .query_row([key], |row| Ok(Found { id: row.get(0)?, version: row.get(1)?, data: row.get(2)? }))
        .optional()
}

/// Whether there is a row with this key.
pub(crate) fn exists(connection: &Connection, key: &[u8]) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM row WHERE key = ?1")?.exists([key])
}

pub(crate) fn find_by_alternate(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(
            "SELECT row.id, version, data FROM alternate JOIN row ON row.id = alternate.row WHERE alternate.key = ?1",
        )?
        .query_row([key], |row| Ok(Found { id: row.get(0)?, version: row.get(1)?, data: row.get(2)? }))
        .optional()
}

pub(crate) fn find_by_place(connection: &Connection, id: i64) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached("SELECT id, version, data FROM row WHERE id = ?1")?
        .query_row([id], |row| Ok(Found { id: row.get(0)?, version: row.get(1)?, data: row.get(2)? }))
        .optional()
}

/// What refers to a row: the places of the rows and the lookup columns in them.
pub(crate) fn links_to(connection: &Connection, target: Uuid, limit: usize) -> rusqlite::Result<Vec<(i64, usize)>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached("SELECT row, place FROM link WHERE target = ?1 LIMIT ?2")?
        .query_map(params![target.as_bytes().as_slice(), limit], |row| {
            // A place that is no column is passed over by whoever looks there.
            Ok((row.get(0)?, usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX)))
        })?
        .collect()
}

/// First and last place that a row of the table can have.
pub(crate) const fn places(table: &Table) -> (i64, i64) {
    (table.number << PLACE_BITS, ((table.number + 1) << PLACE_BITS) - 1)
}

/// Calls `each` with the rows of `table` whose place, counted within the table, is above `after` and at most `upto`,
/// until it answers false.
pub(crate) fn scan(
    connection: &Connection,
    table: &Table,
    after: i64,
    upto: i64,
    descending: bool,
    each: &mut dyn FnMut(i64, i64, &str) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let (first, last) = places(table);
    let low = first.saturating_add(after.clamp(0, last - first));
    let high = first.saturating_add(upto.clamp(0, last - first));
    let mut statement = connection.prepare_cached(if descending {
        "SELECT id, version, data FROM row WHERE id > ?1 AND id <= ?2 ORDER BY id DESC"
    } else {
        "SELECT id, version, data FROM row WHERE id > ?1 AND id <= ?2 ORDER BY id"
    })?;
    let mut rows = statement.query([low, high])?;
    while let Some(row) = rows.next()? {
        let data = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        if !each(row.get(0)?, row.get(1)?, data)? {
            break;
        }
    }
    Ok(())
}

pub(crate) fn count(connection: &Connection, table: &Table) -> rusqlite::Result<i64> {
    let (first, last) = places(table);
    connection
        .prepare_cached("SELECT count(*) FROM row WHERE id > ?1 AND id <= ?2")?
        .query_row([first, last], |row| row.get(0))
}
