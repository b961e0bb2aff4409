//! What must survive a crash: outbox, cross references, failed records, cursors, intents, counts and activity.
//!
//! Owns the SQLite file and its schema; knows nothing of what a row means. Every key begins with tenant and link
//! ([`Scope`]). [`Store::capture`] and [`Store::settle`] are one transaction each: after a crash all of it is there or
//! none of it. A call that answered `Ok` is on the disk.
//!
//! One thread writes ([`writer`]); it commits what is queued in one go. Reads go to other connections, on blocking
//! threads, and see everything that was answered before they began.

mod cross_reference;
mod data;
mod export;
mod failed;
mod folder;
mod intent;
mod ledger;
mod outbox;
mod readers;
mod schema;
mod settle;
mod sql;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use dualwright_core::{Fault, RowKey, SystemKind, TransactionId};
use uuid::Uuid;

pub use data::{
    Activity, Backlog, Capture, Counts, CrossReference, Delivery, FailedFilter, FailedRecord, Fate, Intent,
    IntentState, NewActivity, NewDelivery, NewFailed, Pace, Scope, Settlement,
};
pub use export::Exported;
use folder::Folder;
use readers::Readers;
use writer::Writer;

/// The store of one state folder. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    readers: Readers,
    /// `None` when the store was opened only to be read.
    writer: Option<Writer>,
}

impl Store {
    /// Opens the store of `folder`, making both when they are not there, and keeps every other runtime out of it.
    ///
    /// Fails when another process has the folder, when the file is not ours or newer than this program, and when
    /// SQLite does not confirm the durability that was asked for.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        let (folder, lock) = Folder::take(folder)?;
        Self::open_to_write(&folder, Some(lock))
    }

    /// Opens a store that is there already beside the runtime that may be using it, for a command that adds a little,
    /// such as `retry`. SQLite keeps the two apart, one transaction at a time.
    pub fn open_beside(folder: &Path) -> Result<Self, Fault> {
        let folder = Folder::existing(folder)?;
        Self::open_to_write(&folder, None)
    }

    /// Opens a store that is there already, to look at it; the runtime may be using it.
    pub fn open_read_only(folder: &Path) -> Result<Self, Fault> {
        let folder = Folder::existing(folder)?;
        let readers = Readers::open(folder.database())?;
        Ok(Self { inner: Arc::new(Inner { readers, writer: None }) })
    }

    /// Whether the folder has a store.
    #[must_use]
    pub fn exists(folder: &Path) -> bool {
        Folder::existing(folder).is_ok()
    }

    /// It was opened only to be looked at.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.inner.writer.is_none()
    }

    /// Whether a runtime has this folder now.
    #[must_use]
    pub fn is_in_use(folder: &Path) -> bool {
        Folder::is_taken(folder)
    }

    fn open_to_write(folder: &Folder, lock: Option<folder::Lock>) -> Result<Self, Fault> {
        let connection = schema::open(&folder.database(), lock.is_some())?;
        let readers = Readers::open(folder.database())?;
        let writer = Writer::start(connection, lock)?;
        Ok(Self { inner: Arc::new(Inner { readers, writer: Some(writer) }) })
    }

    /// Finishes what is queued, folds the write-ahead log into the file and lets go of the folder. Whatever is asked
    /// for afterwards fails.
    pub async fn close(&self) {
        self.inner.readers.close();
        if let Some(writer) = &self.inner.writer {
            writer.close().await;
        }
    }

    /// Commits so far: several requests may share one.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.inner.writer.as_ref().map_or(0, Writer::commits)
    }

    // ---- cross references

    /// The pairs of these keys, as far as there are any.
    pub async fn cross_references(
        &self,
        scope: &Scope,
        map: &str,
        keys: &[RowKey],
    ) -> Result<HashMap<RowKey, CrossReference>, Fault> {
        let (scope, map, keys) = (scope.clone(), map.to_owned(), keys.to_vec());
        self.read(move |connection| cross_reference::by_key(connection, &scope, &map, &keys)).await
    }

    /// The pairs whose Dataverse row has one of these ids.
    pub async fn cross_references_by_id(
        &self,
        scope: &Scope,
        map: &str,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, (RowKey, CrossReference)>, Fault> {
        let (scope, map, ids) = (scope.clone(), map.to_owned(), ids.to_vec());
        self.read(move |connection| cross_reference::by_id(connection, &scope, &map, &ids)).await
    }

    /// The pairs whose F&O row is identified by one of these keys of its own.
    pub async fn cross_references_by_finops_key(
        &self,
        scope: &Scope,
        map: &str,
        finops_keys: &[RowKey],
    ) -> Result<HashMap<RowKey, (RowKey, CrossReference)>, Fault> {
        let (scope, map, keys) = (scope.clone(), map.to_owned(), finops_keys.to_vec());
        self.read(move |connection| cross_reference::by_finops_key(connection, &scope, &map, &keys)).await
    }

    /// Whether a map has any pairs, deleted ones included.
    pub async fn has_cross_references(&self, scope: &Scope, map: &str) -> Result<bool, Fault> {
        let (scope, map) = (scope.clone(), map.to_owned());
        self.read(move |connection| cross_reference::is_any(connection, &scope, &map)).await
    }

    /// How many pairs a map has, deleted ones included.
    pub async fn cross_reference_count(&self, scope: &Scope, map: &str) -> Result<u64, Fault> {
        let (scope, map) = (scope.clone(), map.to_owned());
        self.read(move |connection| cross_reference::count(connection, &scope, &map)).await
    }

    /// All pairs of a map in the order of their keys, from the one behind `after`.
    pub async fn all_keys(
        &self,
        scope: &Scope,
        map: &str,
        after: Option<RowKey>,
        limit: u32,
    ) -> Result<Vec<(RowKey, CrossReference)>, Fault> {
        let (scope, map) = (scope.clone(), map.to_owned());
        self.read(move |connection| cross_reference::page(connection, &scope, &map, after.as_ref(), limit)).await
    }

    // ---- outbox

    /// Keeps deliveries and watermarks; answers how many deliveries were new.
    pub async fn capture(&self, scope: &Scope, capture: Capture) -> Result<u32, Fault> {
        let scope = scope.clone();
        self.write("capture", move |connection| outbox::capture(connection, &scope, &capture)).await
    }

    /// The position that a feed was captured up to.
    pub async fn watermark(&self, scope: &Scope, feed: &str) -> Result<Option<String>, Fault> {
        let (scope, feed) = (scope.clone(), feed.to_owned());
        self.read(move |connection| ledger::watermark(connection, &scope, &feed)).await
    }

    /// Deliveries that may be attempted now, in order of their sequence; the caller knows which of them are under way.
    /// Ends early, but never empty, when the payloads become too large to hold at once.
    pub async fn due(&self, scope: &Scope, now: i64, limit: u32) -> Result<Vec<Delivery>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| outbox::due(connection, &scope, now, limit)).await
    }

    /// What waits.
    pub async fn backlog(&self, scope: &Scope) -> Result<Backlog, Fault> {
        let scope = scope.clone();
        self.read(move |connection| outbox::backlog(connection, &scope)).await
    }

    /// How fast changes came in, as far back as the store remembers; `None` where there were none.
    pub async fn pace(&self, scope: &Scope) -> Result<Option<Pace>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| outbox::pace(connection, &scope)).await
    }

    // ---- settlement

    /// Keeps everything that an attempt leaves behind. Fails, and keeps nothing, when its delivery is not in the
    /// outbox any more: then somebody else has settled it.
    pub async fn settle(&self, scope: &Scope, settlement: Settlement) -> Result<(), Fault> {
        let scope = scope.clone();
        self.write("settle", move |connection| settle::settle(connection, &scope, &settlement)).await
    }

    /// The position of a job.
    pub async fn cursor(&self, scope: &Scope, job: &str) -> Result<Option<String>, Fault> {
        let (scope, job) = (scope.clone(), job.to_owned());
        self.read(move |connection| ledger::cursor(connection, &scope, &job)).await
    }

    /// What was counted, by map and source.
    pub async fn counts(&self, scope: &Scope) -> Result<Vec<(String, SystemKind, Counts)>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| ledger::counts(connection, &scope)).await
    }

    /// The newest lines of the activity log, the newest first.
    pub async fn activity(&self, scope: &Scope, limit: u32) -> Result<Vec<Activity>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| ledger::activity(connection, &scope, limit)).await
    }

    // ---- error queue

    /// Open failed records in the order of their ids.
    pub async fn failed(&self, scope: &Scope, filter: FailedFilter) -> Result<Vec<FailedRecord>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| failed::list(connection, &scope, &filter)).await
    }

    /// How many records [`Store::failed`] would list.
    pub async fn failed_count(&self, scope: &Scope, filter: FailedFilter) -> Result<u64, Fault> {
        let scope = scope.clone();
        self.read(move |connection| failed::count(connection, &scope, &filter)).await
    }

    /// Makes deliveries of failed records, one per record or, for an atomic transaction, one for all its records.
    /// Records that are unknown, or whose delivery waits already, make none. Answers how many were made. The records
    /// stay until such a delivery settles them.
    pub async fn requeue(&self, scope: &Scope, ids: &[i64], now: i64) -> Result<u32, Fault> {
        let (scope, ids) = (scope.clone(), ids.to_vec());
        self.write("requeue", move |connection| failed::requeue(connection, &scope, &ids, now)).await
    }

    // ---- intents: for sides that keep no receipts, and for callers that wait for a transaction on both sides. Outbox mode
    // with receipts, which is all that runs today, needs none.

    /// Writes an intent down, or moves it on. Fails when a newer epoch wrote it, or when it is closed.
    pub async fn put_intent(&self, scope: &Scope, intent: Intent) -> Result<(), Fault> {
        let scope = scope.clone();
        self.write("put_intent", move |connection| intent::put(connection, &scope, &intent)).await
    }

    /// Intents whose outcome is not known, the oldest transaction first.
    pub async fn open_intents(&self, scope: &Scope) -> Result<Vec<Intent>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| intent::open(connection, &scope)).await
    }

    /// What is known of one intent, closed ones included as long as they are kept.
    pub async fn intent(
        &self,
        scope: &Scope,
        transaction: TransactionId,
        side: SystemKind,
    ) -> Result<Option<Intent>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| intent::find(connection, &scope, transaction, side)).await
    }

    /// Closes an intent: `applied` or not. Closing it twice the same way is fine, the other way is refused.
    pub async fn close_intent(
        &self,
        scope: &Scope,
        transaction: TransactionId,
        side: SystemKind,
        applied: bool,
    ) -> Result<(), Fault> {
        let scope = scope.clone();
        self.write("close_intent", move |connection| intent::close(connection, &scope, transaction, side, applied))
            .await
    }

    // ---- the link itself

    /// What is kept of the link, as it was put.
    pub async fn link_record(&self, scope: &Scope) -> Result<Option<String>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| export::record(connection, &scope)).await
    }

    /// Keeps what is to be known of the link, and lines of the activity log with it.
    pub async fn put_link_record(&self, scope: &Scope, record: &str, lines: Vec<NewActivity>) -> Result<(), Fault> {
        let (scope, record) = (scope.clone(), record.to_owned());
        self.write("put_link_record", move |connection| export::put_record(connection, &scope, &record, &lines)).await
    }

    /// Writes everything that the store knows of the link into `folder`, a file of JSON lines per table.
    pub async fn export(&self, scope: &Scope, folder: &Path) -> Result<Exported, Fault> {
        let (scope, folder) = (scope.clone(), folder.to_owned());
        self.read(move |connection| export::export(connection, &scope, &folder)).await
    }

    /// Takes away everything that the store knows of the link, except its record and its activity log, which gets a line.
    pub async fn erase(&self, scope: &Scope, line: NewActivity) -> Result<(), Fault> {
        let scope = scope.clone();
        self.write("erase", move |connection| export::erase(connection, &scope, &line)).await
    }

    // ---- plugin timings

    /// Keeps the timings of a plugin at one place, so that another process can show them.
    pub async fn save_plugin_timings(&self, scope: &Scope, place: &str, json: &str) -> Result<(), Fault> {
        let (scope, place, json) = (scope.clone(), place.to_owned(), json.to_owned());
        self.write("save_plugin_timings", move |connection| {
            ledger::save_plugin_timings(connection, &scope, &place, &json)
        })
        .await
    }

    /// Place and timings, as they were saved.
    pub async fn plugin_timings(&self, scope: &Scope) -> Result<Vec<(String, String)>, Fault> {
        let scope = scope.clone();
        self.read(move |connection| ledger::plugin_timings(connection, &scope)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, sql::Failure> + Send + 'static,
    ) -> Result<T, Fault> {
        self.inner.readers.run(work).await
    }

    async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, sql::Failure> + Send + 'static,
    ) -> Result<T, Fault> {
        match &self.inner.writer {
            Some(writer) => writer.run(name, work).await,
            None => Err(sql::failed(format!("{name}: the store was opened only to be read"))),
        }
    }
}
