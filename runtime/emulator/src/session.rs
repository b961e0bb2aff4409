//! One change set while it is being applied.
//!
//! Owns what a write means for the store: keys, links, versions, tombstones, and the records of it (audit, feed) that
//! stand or fall with it. Knows nothing of how a change was asked for; values come in as cells that fit their columns.

use std::borrow::Cow;
use std::sync::Arc;

use dualwright_odata::batch::Response;
use dualwright_odata::literal::format_date_time;
use rusqlite::{Connection, Transaction, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Dialect;
use crate::catalogue::{CHANGES, Catalogue, RECEIPTS, Table};
use crate::cell::{self, Cell};
use crate::clock::{Clock, MICROS_PER_SECOND};
use crate::fault::Normaliser;
use crate::observe::{Access, Observer, Operation, Right, RowWrite};
use crate::render;
use crate::store::{self, Found, PLACE_BITS, Stamp};

pub(crate) struct Session<'c> {
    transaction: Transaction<'c>,
    pub catalogue: Arc<Catalogue>,
    pub clock: Clock,
    /// Changes of values that were ordered as faults.
    normalisers: Arc<[Normaliser]>,
    counter: i64,
    /// Whether what is written is audited and fed; a seed is not.
    recorded: bool,
    applied: Vec<Applied>,
    receipt: Option<String>,
    now: Cell,
    observers: Vec<Box<dyn Observer>>,
    /// Whether tables were defined here, so that others have to learn of them.
    pub redefined: bool,
}

impl Operation {
    /// As the audit and the feed spell it.
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "Insert",
            Self::Update => "Update",
            Self::Delete => "Delete",
        }
    }
}

/// One applied row change.
struct Applied {
    table: Arc<Table>,
    operation: Operation,
    before: Option<(Stamp, String)>,
    after: Option<(Stamp, String)>,
}

/// Why a write is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The row's own key, or the alternate key with that number, is taken.
    Duplicate(Option<usize>),
    /// A row whose lookup must not be empty refers to it.
    Referenced {
        table: String,
        column: String,
    },
    /// An observer's answer.
    Observed(Box<Response>),
    Store(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error)
    }
}

impl<'c> Session<'c> {
    pub fn new(
        transaction: Transaction<'c>,
        catalogue: Arc<Catalogue>,
        clock: Clock,
        normalisers: Arc<[Normaliser]>,
        counter: i64,
        recorded: bool,
    ) -> Self {
        let now = cell::quoted(&format_date_time(clock.now_seconds() * MICROS_PER_SECOND));
        Self {
            transaction,
            catalogue,
            clock,
            normalisers,
            counter,
            recorded,
            applied: Vec::new(),
            receipt: None,
            now: Cow::Owned(now),
            redefined: false,
            observers: Vec::new(),
        }
    }

    /// From here on these have a say in row writes, instead of those before.
    pub fn observed_by(&mut self, observers: Vec<Box<dyn Observer>>) {
        self.observers = observers;
    }

    /// Asks or tells every observer. They are out of the session meanwhile, so what they write is not observed.
    fn observe(
        &mut self,
        mut each: impl FnMut(&mut dyn Observer, &mut Self) -> Result<(), Response>,
    ) -> Result<(), Refusal> {
        let mut observers = std::mem::take(&mut self.observers);
        let outcome = observers.iter_mut().try_for_each(|observer| each(observer.as_mut(), self));
        self.observers = observers;
        outcome.map_err(|response| Refusal::Observed(Box::new(response)))
    }

    /// Asks whether the caller may write the row, and may give it the lookups that change.
    fn permit(&mut self, write: &RowWrite<'_>) -> Result<(), Refusal> {
        let right = match write.operation {
            Operation::Create => Right::Create,
            Operation::Update => Right::Write,
            Operation::Delete => Right::Delete,
        };
        let catalogue = Arc::clone(&self.catalogue);
        self.observe(|observer, session| {
            observer.permit(session, &Access { table: write.table, right, row: write.before })?;
            let Some(after) = write.after.filter(|_| write.table.dialect == Dialect::Dataverse) else { return Ok(()) };
            for &at in write.named {
                let column = &write.table.columns[at];
                let is_new = write.before.is_none_or(|before| before[at] != after[at]);
                if column.definition.kind != crate::ColumnKind::Lookup || after[at] == cell::NULL || !is_new {
                    continue;
                }
                let right = if column.definition.name == "ownerid" { Right::Assign } else { Right::Append };
                observer.permit(session, &Access { table: write.table, right, row: write.before })?;
                let Some(target) = write.table.id_of(&after[at]).filter(|_| right == Right::Append) else { continue };
                for to in &column.definition.targets {
                    let Some(table) = catalogue.by_name(&to.table) else { continue };
                    let found = store::find(session.connection(), &table.id_key(target));
                    if let Ok(Some(found)) = found {
                        let mut cells = Vec::new();
                        table.cells(&found.data, &mut cells);
                        observer.permit(session, &Access { table, right: Right::AppendTo, row: Some(&cells) })?;
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    pub fn connection(&self) -> &Connection {
        &self.transaction
    }

    /// The next version.
    pub const fn next(&mut self) -> i64 {
        self.counter += 1;
        self.counter
    }

    /// Adds a row; `cells` has one cell per column.
    pub fn insert(&mut self, table: &Arc<Table>, mut cells: Vec<Cell>) -> Result<Found, Refusal> {
        let version = self.next();
        if let Some(at) = table.primary_id
            && cells[at] == cell::NULL
        {
            cells[at] = cell::guid_cell(Uuid::now_v7());
        }
        let server = table.server;
        for (column, value) in [(server.state, "0"), (server.status, "1")] {
            if let Some(at) = column
                && cells[at] == cell::NULL
            {
                cells[at] = Cow::Borrowed(value);
            }
        }
        if let Some(at) = server.created {
            cells[at] = self.now.clone();
        }
        self.stamp(table, &mut cells, version);
        let named = if self.observers.is_empty() { Vec::new() } else { filled(&cells) };
        self.announce(table, Operation::Create, &named, None, Some(&cells))?;
        let id = (table.number << PLACE_BITS) | version;
        let key = table.row_key(&cells);
        let data = cell::join(cells.iter().map(AsRef::as_ref));
        self.transaction
            .prepare_cached("INSERT INTO row(id, key, version, number, data) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![id, key, version, table.number, data])
            .map_err(|error| if is_conflict(&error) { Refusal::Duplicate(None) } else { error.into() })?;
        for number in 0..table.alternate_keys.len() {
            if let Some(key) = table.alternate_key(number, &cells) {
                self.add_alternate(number, &key, id)?;
            }
        }
        if table.dialect == Dialect::Dataverse {
            self.transaction.prepare_cached("DELETE FROM tombstone WHERE key = ?1")?.execute([&key])?;
        }
        for (place, target) in links(&self.catalogue, table, &cells) {
            self.add_link(target, id, place)?;
        }
        if RECEIPTS.iter().any(|(set, _)| *set == table.set()) {
            let names = RECEIPTS.iter().filter_map(|(_, column)| table.property(column)).next();
            self.receipt = names.and_then(|at| cell::text_of(&cells[at]).map(Cow::into_owned));
        }
        self.record(table, Operation::Create, None, Some((Stamp { id, version }, &data)));
        self.confirm(table, Operation::Create, &named, None, Some(&cells))?;
        Ok(Found { id, version, data })
    }

    /// Tells observers what is going to be written, after asking whether the caller may.
    fn announce(
        &mut self,
        table: &Arc<Table>,
        operation: Operation,
        named: &[usize],
        before: Option<&[&str]>,
        after: Option<&[Cell]>,
    ) -> Result<(), Refusal> {
        if self.observers.is_empty() || table.is_bookkeeping {
            return Ok(());
        }
        let after = after.map(|cells| cells.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
        let write = row_write(table, operation, named, before, after.as_deref());
        self.permit(&write)?;
        self.observe(|observer, session| observer.before(session, &write))
    }

    /// Tells observers what was written.
    fn confirm(
        &mut self,
        table: &Arc<Table>,
        operation: Operation,
        named: &[usize],
        before: Option<&[&str]>,
        after: Option<&[Cell]>,
    ) -> Result<(), Refusal> {
        if self.observers.is_empty() || table.is_bookkeeping {
            return Ok(());
        }
        let after = after.map(|cells| cells.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
        let write = row_write(table, operation, named, before, after.as_deref());
        self.observe(|observer, session| observer.after(session, &write))
    }

    /// Replaces the cells of a row; what differs counts as named by the caller.
    pub fn update(&mut self, table: &Arc<Table>, row: &Found, cells: Vec<Cell>) -> Result<Found, Refusal> {
        let mut named = Vec::new();
        if !self.observers.is_empty() {
            let mut before = Vec::new();
            table.cells(&row.data, &mut before);
            named = (0..cells.len()).filter(|&at| cells[at] != before[at]).collect();
        }
        self.update_named(table, row, cells, &named)
    }

    /// Replaces the cells of a row; the caller named these columns.
    pub fn update_named(
        &mut self,
        table: &Arc<Table>,
        row: &Found,
        mut cells: Vec<Cell>,
        named: &[usize],
    ) -> Result<Found, Refusal> {
        let version = self.next();
        self.stamp(table, &mut cells, version);
        let mut before = Vec::new();
        table.cells(&row.data, &mut before);
        self.announce(table, Operation::Update, named, Some(&before), Some(&cells))?;
        for number in 0..table.alternate_keys.len() {
            let (old, new) = (table.alternate_key(number, &before), table.alternate_key(number, &cells));
            if old == new {
                continue;
            }
            if let Some(key) = old {
                self.transaction.prepare_cached("DELETE FROM alternate WHERE key = ?1")?.execute([key])?;
            }
            if let Some(key) = new {
                self.add_alternate(number, &key, row.id)?;
            }
        }
        let (old, new) = (links(&self.catalogue, table, &before), links(&self.catalogue, table, &cells));
        for (place, target) in old.iter().filter(|link| !new.contains(link)) {
            self.remove_link(*target, row.id, *place)?;
        }
        for (place, target) in new.iter().filter(|link| !old.contains(link)) {
            self.add_link(*target, row.id, *place)?;
        }
        let data = cell::join(cells.iter().map(AsRef::as_ref));
        self.transaction
            .prepare_cached("UPDATE row SET version = ?1, data = ?2 WHERE id = ?3")?
            .execute(params![version, data, row.id])?;
        self.record(
            table,
            Operation::Update,
            Some((row.stamp(), &row.data)),
            Some((Stamp { id: row.id, version }, &data)),
        );
        self.confirm(table, Operation::Update, named, Some(&before), Some(&cells))?;
        Ok(Found { id: row.id, version, data })
    }

    /// Removes a row. Lookups that point to it are emptied (RemoveLink), unless one of them must not be empty.
    pub fn delete(&mut self, table: &Arc<Table>, row: &Found) -> Result<(), Refusal> {
        let mut cells = Vec::new();
        table.cells(&row.data, &mut cells);
        self.announce(table, Operation::Delete, &[], Some(&cells), None)?;
        let key = table.row_key(&cells);
        if table.dialect == Dialect::Dataverse {
            let target = table.primary_id.and_then(|at| table.id_of(&cells[at]));
            if let Some(target) = target {
                self.unlink(table, target, row.id)?;
            }
            let version = self.next();
            self.transaction
                .prepare_cached("INSERT OR REPLACE INTO tombstone(key, number, version) VALUES (?1, ?2, ?3)")?
                .execute(params![key, table.number, version])?;
        }
        for (place, target) in links(&self.catalogue, table, &cells) {
            self.remove_link(target, row.id, place)?;
        }
        for number in 0..table.alternate_keys.len() {
            if let Some(key) = table.alternate_key(number, &cells) {
                self.transaction.prepare_cached("DELETE FROM alternate WHERE key = ?1")?.execute([key])?;
            }
        }
        self.transaction.prepare_cached("DELETE FROM row WHERE id = ?1")?.execute([row.id])?;
        self.record(table, Operation::Delete, Some((row.stamp(), &row.data)), None);
        self.confirm(table, Operation::Delete, &[], Some(&cells), None)?;
        Ok(())
    }

    fn unlink(&mut self, table: &Table, target: Uuid, own: i64) -> Result<(), Refusal> {
        for (id, place) in store::links_to(&self.transaction, target, usize::MAX)? {
            let Some(referring) = self.catalogue.by_number(id >> PLACE_BITS).cloned() else { continue };
            let Some(column) = referring.columns.get(place) else { continue };
            let points_here = column.definition.targets.iter().any(|to| to.table == table.name());
            if id == own || !points_here {
                continue;
            }
            if column.definition.required {
                return Err(Refusal::Referenced {
                    table: referring.name().to_owned(),
                    column: column.definition.name.clone(),
                });
            }
            if let Some(row) = store::find_by_place(&self.transaction, id)? {
                let mut cells = referring.owned_cells(&row.data);
                cells[place] = Cow::Borrowed(cell::NULL);
                self.update(&referring, &row, cells)?;
            }
        }
        Ok(())
    }

    /// What the system itself makes of a row that is about to be written.
    fn stamp(&self, table: &Table, cells: &mut [Cell], version: i64) {
        for normaliser in self.normalisers.iter() {
            normaliser.apply(table, cells);
        }
        if let Some(at) = table.server.version {
            cells[at] = Cow::Owned(version.to_string());
        }
        if let Some(at) = table.server.modified {
            cells[at] = self.now.clone();
        }
    }

    fn add_alternate(&self, number: usize, key: &[u8], row: i64) -> Result<(), Refusal> {
        self.transaction
            .prepare_cached("INSERT INTO alternate VALUES (?1, ?2)")?
            .execute(params![key, row])
            .map_err(|error| if is_conflict(&error) { Refusal::Duplicate(Some(number)) } else { error.into() })?;
        Ok(())
    }

    fn add_link(&self, target: Uuid, row: i64, place: usize) -> rusqlite::Result<()> {
        self.transaction.prepare_cached("INSERT OR IGNORE INTO link VALUES (?1, ?2, ?3)")?.execute(params![
            target.as_bytes().as_slice(),
            row,
            column_number(place)
        ])?;
        Ok(())
    }

    fn remove_link(&self, target: Uuid, row: i64, place: usize) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("DELETE FROM link WHERE target = ?1 AND row = ?2 AND place = ?3")?
            .execute(params![target.as_bytes().as_slice(), row, column_number(place)])?;
        Ok(())
    }

    fn record(
        &mut self,
        table: &Arc<Table>,
        operation: Operation,
        before: Option<(Stamp, &str)>,
        after: Option<(Stamp, &str)>,
    ) {
        if self.recorded && !table.is_bookkeeping {
            let owned = |side: Option<(Stamp, &str)>| side.map(|(stamp, data)| (stamp, data.to_owned()));
            self.applied.push(Applied {
                table: Arc::clone(table),
                operation,
                before: owned(before),
                after: owned(after),
            });
        }
    }

    /// Writes the records and commits; gives the counter from which the next session goes on.
    pub fn commit(mut self) -> rusqlite::Result<i64> {
        let change_set = Uuid::now_v7().to_string();
        let applied = std::mem::take(&mut self.applied);
        let feed = self.catalogue.by_set(CHANGES).cloned();
        for change in &applied {
            self.write_audit(change, &change_set)?;
            if let Some(feed) = &feed {
                self.write_feed(feed, change, &change_set, applied.len())?;
            }
        }
        self.transaction
            .prepare_cached("UPDATE setting SET value = ?1 WHERE name = 'counter'")?
            .execute([self.counter])?;
        self.transaction.commit()?;
        Ok(self.counter)
    }

    fn write_audit(&self, change: &Applied, change_set: &str) -> rusqlite::Result<()> {
        let table = &change.table;
        let content = |side: &Option<(Stamp, String)>| side.as_ref().map(|(_, data)| content_hash(table, data));
        let (before, after) = (content(&change.before), content(&change.after));
        let mut cells = Vec::new();
        let shown = change.after.as_ref().or(change.before.as_ref()).map_or("", |(_, data)| data);
        table.cells(shown, &mut cells);
        self.transaction
            .prepare_cached(
                "INSERT INTO audit(change_set, receipt, collection, key, operation, hash, equal)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                change_set,
                self.receipt,
                table.set(),
                table.shown_key(&cells),
                change.operation.name(),
                after.as_deref().unwrap_or_default(),
                change.operation == Operation::Update && before == after,
            ])?;
        Ok(())
    }

    fn write_feed(
        &mut self,
        feed: &Arc<Table>,
        change: &Applied,
        change_set: &str,
        size: usize,
    ) -> rusqlite::Result<()> {
        let image = |side: &Option<(Stamp, String)>| {
            side.as_ref().map_or_else(String::new, |(stamp, data)| {
                let mut json = Vec::with_capacity(data.len() * 2);
                render::write_stored(&mut json, &change.table, data, *stamp);
                String::from_utf8(json).unwrap_or_default()
            })
        };
        let (row, before) = match change.operation {
            Operation::Delete => (image(&change.before), String::new()),
            Operation::Create | Operation::Update => (image(&change.after), image(&change.before)),
        };
        let place = self.next();
        let cells = [
            place.to_string(),
            cell::quoted(change_set),
            size.to_string(),
            cell::quoted(change.table.set()),
            cell::quoted(change.operation.name()),
            cell::quoted(&row),
            cell::quoted(&before),
            cell::quoted(self.receipt.as_deref().unwrap_or_default()),
        ];
        let id = (feed.number << PLACE_BITS) | place;
        self.transaction
            .prepare_cached("INSERT INTO row(id, key, version, number, data) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                id,
                feed.row_key(&cells),
                place,
                feed.number,
                cell::join(cells.iter().map(String::as_str))
            ])?;
        Ok(())
    }
}

fn row_write<'a>(
    table: &'a Arc<Table>,
    operation: Operation,
    named: &'a [usize],
    before: Option<&'a [&'a str]>,
    after: Option<&'a [&'a str]>,
) -> RowWrite<'a> {
    let id = table.primary_id.and_then(|at| table.id_of(after.or(before)?.get(at)?));
    RowWrite { table, operation, id: id.unwrap_or_default(), named, before, after }
}

/// The columns that hold something.
fn filled(cells: &[Cell]) -> Vec<usize> {
    (0..cells.len()).filter(|&at| cells[at] != cell::NULL).collect()
}

/// A column's place as SQLite keeps it; a table has far fewer columns.
fn column_number(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

/// What a row points to: by its lookups, or on F&O by its relations, which are counted for themselves.
pub(crate) fn links<C: AsRef<str>>(catalogue: &Catalogue, table: &Table, cells: &[C]) -> Vec<(usize, Uuid)> {
    if table.dialect == Dialect::Finops {
        let relations = catalogue.relations_of(table).to.iter();
        return relations.filter_map(|relation| Some((relation.number, relation.mark(table, cells)?))).collect();
    }
    table
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.linked)
        .filter_map(|(place, _)| Some((place, table.id_of(&cells[place])?)))
        .collect()
}

/// What is in a row, as far as people and other systems put it there.
pub(crate) fn content_hash(table: &Table, data: &str) -> String {
    let mut cells = Vec::new();
    table.cells(data, &mut cells);
    let mut hasher = Sha256::new();
    for (at, (column, cell)) in table.columns.iter().zip(&cells).enumerate() {
        if !table.server.is_stamp(at) {
            hasher.update(column.label.as_bytes());
            hasher.update(cell.as_bytes());
            hasher.update(b",");
        }
    }
    hasher.finalize().iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
        hex.push_str(&format!("{byte:02x}"));
        hex
    })
}

fn is_conflict(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}
