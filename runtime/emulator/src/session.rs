//! One change set while it is being applied.
//!
//! Owns what a write means for the store: keys, links, versions, tombstones, and the records of it (audit, feed) that
//! stand or fall with it. Knows nothing of how a change was asked for; values come in as cells that fit their columns.

mod record;
mod statements;
mod system;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use dualwright_odata::batch::Response;
use dualwright_odata::literal::format_date_time;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use statements::{Ids, Statements};
pub(crate) use system::Caller;

use crate::Dialect;
use crate::catalogue::{CHANGES, Catalogue, Table};
use crate::cell::{self, Cell};
use crate::clock::{Clock, MICROS_PER_SECOND};
use crate::dataverse::system as platform;
use crate::definition::DeleteBehavior;
use crate::fault::Normaliser;
use crate::observe::{Access, Observer, Operation, Right, RowWrite};
use crate::store::{self, Found, PLACE_BITS, Stamp};

pub(crate) struct Session<'c> {
    transaction: Transaction<'c>,
    statements: Statements<'c>,
    ids: Ids,
    pub catalogue: Arc<Catalogue>,
    pub clock: Clock,
    /// Changes of values that were ordered as faults.
    normalisers: Arc<[Normaliser]>,
    counter: i64,
    /// Whether what is written is audited and fed; a seed is not.
    recorded: bool,
    applied: Vec<record::Applied>,
    /// What is hashed of one row after the other.
    scratch: Vec<u8>,
    receipt: Option<String>,
    /// Messages are in the queue of outgoing requests.
    has_queued: bool,
    /// Rows changed from which something is compiled.
    has_configured: bool,
    /// The change feed, where the system has one (F&O).
    feed: Option<Arc<Table>>,
    now: Cell,
    /// For whom the rows are written.
    pub caller: Caller,
    observers: Vec<Box<dyn Observer>>,
    known: system::Known,
    /// Ids behind links that were followed before, as they were written. Empty again whenever one could be wrong.
    followed: HashMap<String, Uuid>,
    /// Rows whose delete is under way: what goes with them holds nobody.
    deleting: Vec<i64>,
    /// Whether tables were defined here, so that others have to learn of them.
    pub redefined: bool,
}

/// What others need to know of a session that was committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    /// From which the next session goes on.
    pub counter: i64,
    pub has_queued: bool,
    pub has_configured: bool,
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
    /// A status reason that its state does not have.
    Status {
        status: String,
        state: String,
        id: Uuid,
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
        connection: &'c Connection,
        catalogue: Arc<Catalogue>,
        clock: Clock,
        normalisers: Arc<[Normaliser]>,
        counter: i64,
        recorded: bool,
    ) -> rusqlite::Result<Self> {
        // The statements are held beside the transaction, so it cannot have the connection for itself; who calls has.
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let now = cell::quoted(&format_date_time(clock.now_seconds() * MICROS_PER_SECOND));
        Ok(Self {
            transaction,
            statements: Statements::new(connection),
            ids: Ids::default(),
            feed: catalogue.by_set(CHANGES).cloned(),
            catalogue,
            clock,
            normalisers,
            counter,
            recorded,
            applied: Vec::new(),
            scratch: Vec::new(),
            receipt: None,
            has_queued: false,
            has_configured: false,
            now: Cow::Owned(now),
            caller: Caller::default(),
            observers: Vec::new(),
            known: system::Known::default(),
            followed: HashMap::new(),
            deleting: Vec::new(),
            redefined: false,
        })
    }

    /// From here on these have a say in row writes, instead of those before.
    pub fn observed_by(&mut self, observers: Vec<Box<dyn Observer>>) {
        self.observers = observers;
    }

    /// Tells observers that the request wrote all of its rows.
    pub fn complete(&mut self) -> Result<(), Response> {
        match self.observe(|observer, session| observer.complete(session)) {
            Err(Refusal::Observed(refusal)) => Err(*refusal),
            _ => Ok(()),
        }
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

    /// Something was put into the queue of outgoing requests.
    pub const fn queued(&mut self) {
        self.has_queued = true;
    }

    /// Runs `work` without audit and feed: what the system writes for itself.
    pub fn unrecorded<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let recorded = std::mem::replace(&mut self.recorded, false);
        let result = work(self);
        self.recorded = recorded;
        result
    }

    /// The next version.
    pub const fn next(&mut self) -> i64 {
        self.counter += 1;
        self.counter
    }

    /// Adds a row; `cells` has one cell per column.
    pub fn insert(&mut self, table: &Arc<Table>, mut cells: Vec<Cow<'_, str>>) -> Result<Found, Refusal> {
        let named = if self.observers.is_empty() { Vec::new() } else { filled(&cells) };
        let version = self.next();
        // A number that nobody has seen has no grave.
        let mut is_new_id = false;
        if let Some(at) = table.primary_id
            && cells[at] == cell::NULL
        {
            cells[at] = cell::guid_cell(self.ids.next());
            is_new_id = true;
        }
        if table.dialect == Dialect::Dataverse {
            self.complete_new(table, &mut cells)?;
        }
        self.stamp(table, &mut cells, version);
        self.announce(table, Operation::Create, &named, None, Some(&cells))?;
        let id = (table.number << PLACE_BITS) | version;
        let key = table.row_key(&cells);
        let data = cell::join(cells.iter().map(AsRef::as_ref));
        self.statements
            .insert_row()?
            .execute(params![id, key, version, table.number, data])
            .map_err(|error| if is_conflict(&error) { Refusal::Duplicate(None) } else { error.into() })?;
        for number in 0..table.alternate_keys.len() {
            if let Some(key) = table.alternate_key(number, &cells) {
                self.add_alternate(number, &key, id)?;
            }
        }
        if table.dialect == Dialect::Dataverse && !is_new_id {
            self.statements.delete_tombstone()?.execute([&key])?;
        }
        for (place, target) in links(&self.catalogue, table, &cells) {
            self.add_link(target, id, place)?;
        }
        self.forget(table);
        self.record(table, Operation::Create, None, Some((Stamp { id, version }, &cells)));
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
        after: Option<&[Cow<'_, str>]>,
    ) -> Result<(), Refusal> {
        self.observe_row(table, operation, named, (before, after), |session, write| {
            session.permit(write)?;
            session.observe(|observer, session| observer.before(session, write))
        })
    }

    /// Tells observers what was written.
    fn confirm(
        &mut self,
        table: &Arc<Table>,
        operation: Operation,
        named: &[usize],
        before: Option<&[&str]>,
        after: Option<&[Cow<'_, str>]>,
    ) -> Result<(), Refusal> {
        self.observe_row(table, operation, named, (before, after), |session, write| {
            session.observe(|observer, session| observer.after(session, write))
        })
    }

    /// Puts a row write before observers, where there are any. `images` are the row before and after.
    fn observe_row(
        &mut self,
        table: &Arc<Table>,
        operation: Operation,
        named: &[usize],
        images: (Option<&[&str]>, Option<&[Cow<'_, str>]>),
        moment: impl FnOnce(&mut Self, &RowWrite<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if self.observers.is_empty() || table.is_bookkeeping {
            return Ok(());
        }
        let (before, after) = images;
        let after = after.map(|cells| cells.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
        let after = after.as_deref();
        let id = table.primary_id.and_then(|at| table.id_of(after.or(before)?.get(at)?)).unwrap_or_default();
        moment(self, &RowWrite { table, operation, id, named, before, after })
    }

    /// Replaces the cells of a row; what differs counts as named by the caller.
    pub fn update(&mut self, table: &Arc<Table>, row: &Found, cells: Vec<Cow<'_, str>>) -> Result<Found, Refusal> {
        let mut before = Vec::new();
        table.cells(&row.data, &mut before);
        let named = (0..cells.len()).filter(|&at| cells[at] != before[at]).collect::<Vec<_>>();
        self.update_named(table, row, cells, &named)
    }

    /// Replaces the cells of a row; the caller named these columns.
    pub fn update_named(
        &mut self,
        table: &Arc<Table>,
        row: &Found,
        mut cells: Vec<Cow<'_, str>>,
        named: &[usize],
    ) -> Result<Found, Refusal> {
        let version = self.next();
        let mut before = Vec::with_capacity(cells.len());
        table.cells(&row.data, &mut before);
        if table.dialect == Dialect::Dataverse {
            self.complete_changed(table, &before, &mut cells, named)?;
        }
        self.stamp(table, &mut cells, version);
        self.announce(table, Operation::Update, named, Some(&before), Some(&cells))?;
        for (number, (_, columns)) in table.alternate_keys.iter().enumerate() {
            if columns.iter().all(|&at| before[at] == cells[at]) {
                continue;
            }
            let (old, new) = (table.alternate_key(number, &before), table.alternate_key(number, &cells));
            if old == new {
                continue;
            }
            self.followed.clear();
            if let Some(key) = old {
                self.transaction.prepare_cached("DELETE FROM alternate WHERE key = ?1")?.execute([key])?;
            }
            if let Some(key) = new {
                self.add_alternate(number, &key, row.id)?;
            }
        }
        if table.dialect == Dialect::Finops {
            let (old, new) = (links(&self.catalogue, table, &before), links(&self.catalogue, table, &cells));
            for (place, target) in old.iter().filter(|link| !new.contains(link)) {
                self.remove_link(*target, row.id, *place)?;
            }
            for (place, target) in new.iter().filter(|link| !old.contains(link)) {
                self.add_link(*target, row.id, *place)?;
            }
        }
        for &place in &table.linked {
            if before[place] == cells[place] {
                continue;
            }
            if let Some(old) = table.id_of(&before[place]) {
                self.remove_link(old, row.id, place)?;
            }
            if let Some(new) = table.id_of(&cells[place]) {
                self.add_link(new, row.id, place)?;
            }
        }
        let data = cell::join(cells.iter().map(AsRef::as_ref));
        self.statements.update_row()?.execute(params![version, data, row.id])?;
        self.forget(table);
        self.record(
            table,
            Operation::Update,
            Some((row.stamp(), &before)),
            Some((Stamp { id: row.id, version }, &cells)),
        );
        self.confirm(table, Operation::Update, named, Some(&before), Some(&cells))?;
        Ok(Found { id: row.id, version, data })
    }

    /// Removes a row, and does to the rows that point to it what their relationships say.
    pub fn delete(&mut self, table: &Arc<Table>, row: &Found) -> Result<(), Refusal> {
        let mut cells = Vec::new();
        table.cells(&row.data, &mut cells);
        self.announce(table, Operation::Delete, &[], Some(&cells), None)?;
        let key = table.row_key(&cells);
        self.followed.clear();
        if table.dialect == Dialect::Dataverse {
            if let Some(target) = table.primary_id.and_then(|at| table.id_of(&cells[at])) {
                self.deleting.push(row.id);
                let outcome = self.release(table, target);
                self.deleting.pop();
                outcome?;
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
        self.forget(table);
        self.record(table, Operation::Delete, Some((row.stamp(), &cells)), None);
        self.confirm(table, Operation::Delete, &[], Some(&cells), None)?;
        Ok(())
    }

    /// Settles what becomes of the rows that point to one that goes. Those that hold it are looked for first.
    fn release(&mut self, table: &Table, target: Uuid) -> Result<(), Refusal> {
        let mut settled = Vec::new();
        for (id, place) in store::links_to(&self.transaction, target, usize::MAX)? {
            let Some(referring) = self.catalogue.by_number(id >> PLACE_BITS).cloned() else { continue };
            let relations = self.catalogue.relations_to(table.name()).iter();
            let relation = relations
                .chain(self.catalogue.joins_to(table.name()))
                .find(|relation| relation.column == place && relation.referencing == referring.name());
            let Some(relation) = relation.filter(|_| !self.deleting.contains(&id)) else { continue };
            if relation.on_delete == DeleteBehavior::Restrict {
                let column = referring.columns[place].definition.name.clone();
                return Err(Refusal::Referenced { table: referring.name().to_owned(), column });
            }
            settled.push((referring, id, place, relation.on_delete));
        }
        for (referring, id, place, behavior) in settled {
            // A row may be gone by now with another one.
            let Some(row) = store::find_by_place(&self.transaction, id)? else { continue };
            match behavior {
                DeleteBehavior::Cascade => self.delete(&referring, &row)?,
                DeleteBehavior::RemoveLink => {
                    let mut cells = referring.borrowed_cells(&row.data);
                    cells[place] = Cow::Borrowed(cell::NULL);
                    self.update_named(&referring, &row, cells, &[place])?;
                }
                DeleteBehavior::NoCascade | DeleteBehavior::Restrict => {}
            }
        }
        Ok(())
    }

    /// The id behind a link that was followed before in this change set.
    pub fn followed(&self, link: &str) -> Option<Uuid> {
        self.followed.get(link).copied()
    }

    pub fn follow(&mut self, link: &str, id: Uuid) {
        /// A change set has at most a thousand operations, and a bulk message no limit.
        const LINKS_MAX: usize = 10_000;
        if self.followed.len() < LINKS_MAX {
            self.followed.insert(link.to_owned(), id);
        }
    }

    /// What is known of the platform's rows may be wrong after one of them is written.
    fn forget(&mut self, table: &Table) {
        if matches!(table.name(), platform::USER | platform::TEAM | platform::CURRENCY | platform::ORGANIZATION) {
            self.known = system::Known::default();
        }
    }

    /// What the system itself makes of a row that is about to be written.
    fn stamp(&self, table: &Table, cells: &mut [Cow<'_, str>], version: i64) {
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

    fn add_alternate(&mut self, number: usize, key: &[u8], row: i64) -> Result<(), Refusal> {
        self.statements
            .insert_alternate()?
            .execute(params![key, row])
            .map_err(|error| if is_conflict(&error) { Refusal::Duplicate(Some(number)) } else { error.into() })?;
        Ok(())
    }

    fn add_link(&mut self, target: Uuid, row: i64, place: usize) -> rusqlite::Result<()> {
        let target = target.as_bytes().as_slice();
        self.statements.insert_link()?.execute(params![target, row, column_number(place)])?;
        Ok(())
    }

    fn remove_link(&self, target: Uuid, row: i64, place: usize) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("DELETE FROM link WHERE target = ?1 AND row = ?2 AND place = ?3")?
            .execute(params![target.as_bytes().as_slice(), row, column_number(place)])?;
        Ok(())
    }
}

/// The columns that hold something.
fn filled(cells: &[Cow<'_, str>]) -> Vec<usize> {
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
    table.linked.iter().filter_map(|&place| Some((place, table.id_of(&cells[place])?))).collect()
}

fn is_conflict(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}
