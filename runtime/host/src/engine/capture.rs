//! Capture: what the feeds of both systems say goes into the outbox, in one store transaction with the place reached.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dualwright_core::{Code, Fault, Operation, RowKey, SystemKind, TransactionId, Value};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Engine, EngineError};
use crate::connect::dataverse::DeltaEntry;
use crate::connect::finops::{FeedEntry, FeedOperation};
use crate::pipeline::{CapturedChange, captured};
use crate::store::{Capture, NewDelivery};

const FEED_TIMEOUT: Duration = Duration::from_secs(60);

/// Entries asked for at once: more than a transaction has (1,000 rows and its receipt), so that one fits.
const FEED_ENTRIES_MAX: usize = 2_500;

const FINOPS_FEED: &str = "finops/changes";

fn dataverse_feed(set: &str) -> String {
    format!("dataverse/{set}")
}

/// Beside the place of a feed stand the columns that it tells: a delta link repeats the query that it came from.
fn feed_columns(set: &str) -> String {
    format!("dataverse/{set}#columns")
}

/// Says that every row of a table is to be captured once more: `wanted` or `done`.
pub(super) fn catch_up(set: &str) -> String {
    format!("dataverse/{set}#catch-up")
}

impl Engine {
    /// Puts every feed at its present end, where it has no place yet. What happens from now on will be captured,
    /// also what happens while initial sync reads the tables.
    pub async fn start_feeds(&self) -> Result<(), EngineError> {
        let store = &self.link.store;
        let mut watermarks = Vec::new();
        if self.feeds_finops() && store.watermark(&self.link.scope, FINOPS_FEED).await?.is_none() {
            let head = self.patiently(|| async { Ok(self.link.finops.feed_head(FEED_TIMEOUT).await?) }).await?;
            watermarks.push((FINOPS_FEED.to_owned(), head.to_string()));
        }
        for set in self.dataverse_sets() {
            let feed = dataverse_feed(&set);
            let columns = self.feed_table(&set)?.shape.select();
            if store.watermark(&self.link.scope, &catch_up(&set)).await?.as_deref() == Some("wanted") {
                self.patiently(|| self.begin_feed_anew(&set, &columns)).await?;
                continue;
            }
            match store.watermark(&self.link.scope, &feed).await? {
                None => {
                    let (_, delta) = self.patiently(|| self.enumerate(&set)).await?;
                    watermarks.push((feed, delta));
                }
                Some(before) if !self.feed_tells(&set, &columns).await? => {
                    self.patiently(|| self.widen_feed(&set, &before, &columns)).await?;
                    continue;
                }
                Some(_) => {}
            }
            watermarks.push((feed_columns(&set), columns));
        }
        if !watermarks.is_empty() {
            store.capture(&self.link.scope, Capture { deliveries: Vec::new(), watermarks }).await?;
        }
        Ok(())
    }

    /// Whether the feed of a table tells every one of these columns. One whose columns nobody wrote down does.
    async fn feed_tells(&self, set: &str, columns: &str) -> Result<bool, EngineError> {
        let told = self.link.store.watermark(&self.link.scope, &feed_columns(set)).await?;
        let Some(told) = told else { return Ok(true) };
        let told = told.split(',').collect::<HashSet<_>>();
        Ok(columns.split(',').all(|column| told.contains(column)))
    }

    /// Captures every row of a table, and what the feed tells of deleted ones, if it still tells anything: after changes
    /// of the table, or of whoever reads it.
    async fn begin_feed_anew(&self, set: &Arc<str>, columns: &str) -> Result<(), EngineError> {
        let feed = dataverse_feed(set);
        let before = self.link.store.watermark(&self.link.scope, &feed).await?;
        let (mut entries, after) = self.enumerate(set).await?;
        if let Some(before) = &before
            && let Ok((last, _)) = self.delta(set, Some(before)).await
        {
            entries.extend(last.into_iter().filter(|entry| matches!(entry, DeltaEntry::Deleted(_))));
        }
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        sort_out(set, entries, &mut upserts, &mut deletes);
        let deliveries = self.pack_dataverse(&format!("{after}#anew"), upserts, deletes);
        let watermarks =
            vec![(feed, after), (feed_columns(set), columns.to_owned()), (catch_up(set), "done".to_owned())];
        self.link.store.capture(&self.link.scope, Capture { deliveries, watermarks }).await?;
        Ok(())
    }

    /// Goes over to a feed that tells more columns. Nothing is lost between the two: the new one begins before the old
    /// one is read to its end, and a row that the old one tells is taken as the new one began with it, whole.
    async fn widen_feed(&self, set: &Arc<str>, before: &str, columns: &str) -> Result<(), EngineError> {
        let (now, after) = self.enumerate(set).await?;
        let (last, _) = self.delta(set, Some(before)).await?;
        let table = self.feed_table(set)?;
        let id_of = |entry: &DeltaEntry| match entry {
            DeltaEntry::Deleted(id) => Some(*id),
            DeltaEntry::Row(row) => {
                let row = table.shape.decode(row.get()).ok()?;
                match row.values.get(table.schema.primary_id?)? {
                    Value::Guid(id) => Some(*id),
                    _ => None,
                }
            }
        };
        let mut whole = now.into_iter().filter_map(|entry| Some((id_of(&entry)?, entry))).collect::<HashMap<_, _>>();
        let entries = last
            .into_iter()
            .map(|entry| match (&entry, id_of(&entry)) {
                (DeltaEntry::Row(_), Some(id)) => whole.remove(&id).unwrap_or(entry),
                _ => entry,
            })
            .collect::<Vec<_>>();
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        sort_out(set, entries, &mut upserts, &mut deletes);
        let deliveries = self.pack_dataverse(&format!("{before}#{columns}"), upserts, deletes);
        let watermarks = vec![(dataverse_feed(set), after), (feed_columns(set), columns.to_owned())];
        self.link.store.capture(&self.link.scope, Capture { deliveries, watermarks }).await?;
        Ok(())
    }

    /// Captures what is new on both sides. Returns the number of captured row changes.
    pub(super) async fn capture(&self) -> Result<u64, EngineError> {
        Ok(self.capture_finops().await? + self.capture_dataverse().await?)
    }

    fn feeds_finops(&self) -> bool {
        self.link.maps.iter().any(|map| map.plan.to_dataverse.is_some())
    }

    /// Dataverse tables whose changes some map takes to F&O, parents first.
    fn dataverse_sets(&self) -> Vec<Arc<str>> {
        let mut sets = Vec::new();
        for map in self.link.maps.iter().filter(|map| map.reads_dataverse()) {
            let set = &map.dataverse.table.schema.set;
            if !sets.contains(set) {
                sets.push(Arc::clone(set));
            }
        }
        sets
    }

    async fn capture_finops(&self) -> Result<u64, EngineError> {
        if !self.feeds_finops() {
            return Ok(0);
        }
        let store = &self.link.store;
        let after = store.watermark(&self.link.scope, FINOPS_FEED).await?.unwrap_or_default();
        let after = after.parse::<i64>().unwrap_or(0);
        let mut entries = self.link.finops.read_feed(after, FEED_ENTRIES_MAX, FEED_TIMEOUT).await?;
        // A transaction larger than a page: read on until it is whole. That it is too large is for its delivery to say.
        while whole_transactions(&entries).is_empty() {
            let Some(last) = entries.last() else { return Ok(0) };
            let more = self.link.finops.read_feed(last.control_number, FEED_ENTRIES_MAX, FEED_TIMEOUT).await?;
            if more.is_empty() {
                return Ok(0);
            }
            entries.extend(more);
        }
        let whole = whole_transactions(&entries);
        let deliveries = self.pack_finops(whole);
        let rows = deliveries.iter().map(|delivery| u64::from(delivery.rows)).sum();
        let last = whole[whole.len() - 1].control_number;
        let watermarks = vec![(FINOPS_FEED.to_owned(), last.to_string())];
        store.capture(&self.link.scope, Capture { deliveries, watermarks }).await?;
        Ok(rows)
    }

    /// Transactions of several rows stay what they are; those of one row are packed into batches, as long as no row
    /// comes twice.
    fn pack_finops(&self, entries: &[FeedEntry]) -> Vec<NewDelivery> {
        let mut packer = Packer::new(SystemKind::Finops, (self.now)(), self.link.limits.batch_rows_max);
        for transaction in entries.chunk_by(|a, b| a.transaction_id == b.transaction_id) {
            let changes = transaction
                .iter()
                .filter(|entry| self.link.maps.iter().any(|map| *map.finops.table.schema.set == *entry.collection))
                .map(|entry| (self.row_name(entry), change_of(entry)))
                .collect::<Vec<_>>();
            let token = transaction[0].transaction_id.clone();
            // What our own change set wrote is not the user's transaction: each row stands for itself.
            let is_ours = transaction.iter().any(|entry| !entry.origin.is_empty());
            if changes.len() > 1 && !is_ours {
                packer.transaction(token, changes.into_iter().map(|(_, change)| change).collect());
            } else {
                for (name, change) in changes {
                    packer.row(&token, name, change);
                }
            }
        }
        packer.finish()
    }

    /// Names the row of an entry well enough to see that it comes twice.
    fn row_name(&self, entry: &FeedEntry) -> String {
        let table =
            self.link.maps.iter().map(|map| &map.finops.table).find(|table| *table.schema.set == *entry.collection);
        let key = table.and_then(|table| {
            let row = table.shape.decode(&entry.row).ok()?;
            let schema = &table.schema;
            Some(RowKey::new(None, schema.key.iter().map(|&index| &row.values[index])))
        });
        match key {
            Some(key) => format!("{}\u{1f}{}", entry.collection, key.as_str()),
            // Unreadable: it will be a failed record of its own.
            None => format!("{}\u{1f}\u{1f}{}", entry.collection, entry.control_number),
        }
    }

    async fn capture_dataverse(&self) -> Result<u64, EngineError> {
        let mut upserts = Vec::new();
        let mut deletes = Vec::new();
        let mut watermarks = Vec::new();
        let mut token = String::new();
        for set in self.dataverse_sets() {
            let feed = dataverse_feed(&set);
            let before = self.link.store.watermark(&self.link.scope, &feed).await?;
            let (entries, after) = self.delta(&set, before.as_deref()).await?;
            if entries.is_empty() {
                continue;
            }
            token.push_str(before.as_deref().unwrap_or_default());
            sort_out(&set, entries, &mut upserts, &mut deletes);
            watermarks.push((feed, after));
        }
        if watermarks.is_empty() {
            return Ok(0);
        }
        let deliveries = self.pack_dataverse(&token, upserts, deletes);
        let rows = deliveries.iter().map(|delivery| u64::from(delivery.rows)).sum();
        self.link.store.capture(&self.link.scope, Capture { deliveries, watermarks }).await?;
        Ok(rows)
    }

    /// Parents before children, as the changes come, and the other way round for deletes.
    fn pack_dataverse(
        &self,
        token: &str,
        upserts: Vec<CapturedChange>,
        mut deletes: Vec<CapturedChange>,
    ) -> Vec<NewDelivery> {
        deletes.reverse();
        let mut packer = Packer::new(SystemKind::Dataverse, (self.now)(), self.link.limits.batch_rows_max);
        for (number, change) in upserts.into_iter().chain(deletes).enumerate() {
            packer.row(&format!("{token}#{number}"), number.to_string(), change);
        }
        packer.finish()
    }

    /// What changed in a table since its watermark, and the next watermark.
    async fn delta(&self, set: &Arc<str>, before: Option<&str>) -> Result<(Vec<DeltaEntry>, String), EngineError> {
        let table = self.feed_table(set)?;
        let mut entries = Vec::new();
        let mut link = before.map(str::to_owned);
        // A feed that never comes to its end would be a defect of the system.
        const PAGES_MAX: usize = 100_000;
        for _ in 0..PAGES_MAX {
            let page = self.link.dataverse.read_delta(&table, link.as_deref(), FEED_ENTRIES_MAX, FEED_TIMEOUT).await?;
            let Some(page) = page else {
                tracing::warn!(%set, "the delta link has expired; the table is read as a whole");
                return self.reread(set).await;
            };
            entries.extend(page.entries);
            match (page.next, page.delta) {
                (Some(next), _) => link = Some(next),
                (None, Some(delta)) => return Ok((entries, delta)),
                (None, None) => break,
            }
        }
        Err(Fault::new(Code::Unavailable, format!("the delta feed of {set} has no end")).into())
    }

    /// The whole table, and a delta link that stands for this moment.
    async fn enumerate(&self, set: &Arc<str>) -> Result<(Vec<DeltaEntry>, String), EngineError> {
        Box::pin(self.delta(set, None)).await
    }

    /// The changes that an expired link would have told: every row as it is now, and a delete for every row that we
    /// know and that is gone.
    async fn reread(&self, set: &Arc<str>) -> Result<(Vec<DeltaEntry>, String), EngineError> {
        let (mut entries, delta) = self.enumerate(set).await?;
        let table = self.feed_table(set)?;
        let mut seen = HashSet::new();
        for entry in &entries {
            if let DeltaEntry::Row(row) = entry
                && let Ok(row) = table.shape.decode(row.get())
                && let Some(Value::Guid(id)) = table.schema.primary_id.map(|id| &row.values[id])
            {
                seen.insert(*id);
            }
        }
        for map in self.link.maps.iter().filter(|map| map.dataverse.table.schema.set == *set) {
            let mut after = None;
            loop {
                const KEYS_MAX: u32 = 10_000;
                let known = self.link.store.all_keys(&self.link.scope, &map.slug, after.take(), KEYS_MAX).await?;
                let Some((last, _)) = known.last() else { break };
                after = Some(last.clone());
                for (_, reference) in &known {
                    if let (Some(id), false) = (reference.dataverse_id, reference.deleted)
                        && !seen.contains(&id)
                    {
                        entries.push(DeltaEntry::Deleted(id));
                    }
                }
            }
        }
        Ok((entries, delta))
    }

    /// The table with the columns of every map that reads it.
    fn feed_table(&self, set: &Arc<str>) -> Result<Arc<crate::connect::Table>, Fault> {
        self.link
            .feed_tables
            .get(set)
            .cloned()
            .ok_or_else(|| Fault::new(Code::Internal, format!("no map reads {set}, yet its feed was asked for")))
    }
}

/// The entries of a delta feed as changes.
fn sort_out(
    set: &Arc<str>,
    entries: Vec<DeltaEntry>,
    upserts: &mut Vec<CapturedChange>,
    deletes: &mut Vec<CapturedChange>,
) {
    for entry in entries {
        match entry {
            DeltaEntry::Row(row) => upserts.push(CapturedChange {
                set: Arc::clone(set),
                operation: Operation::Upsert,
                id: None,
                row: Some(row),
                origin: None,
            }),
            DeltaEntry::Deleted(id) => deletes.push(CapturedChange {
                set: Arc::clone(set),
                operation: Operation::Delete,
                id: Some(id),
                row: None,
                origin: None,
            }),
        }
    }
}

/// The entries up to the end of the last transaction that is there as a whole.
fn whole_transactions(entries: &[FeedEntry]) -> &[FeedEntry] {
    let mut whole = 0;
    for transaction in entries.chunk_by(|a, b| a.transaction_id == b.transaction_id) {
        if transaction.len() < transaction[0].transaction_size as usize {
            break;
        }
        whole += transaction.len();
    }
    &entries[..whole]
}

fn change_of(entry: &FeedEntry) -> CapturedChange {
    CapturedChange {
        set: Arc::from(entry.collection.as_str()),
        operation: match entry.operation {
            FeedOperation::Insert | FeedOperation::Update => Operation::Upsert,
            FeedOperation::Delete => Operation::Delete,
        },
        id: None,
        // What is no JSON is kept as a text: no row can be read from it, so it becomes a failed record.
        row: RawValue::from_string(entry.row.clone()).or_else(|_| serde_json::value::to_raw_value(&entry.row)).ok(),
        origin: Uuid::parse_str(&entry.origin).ok().map(TransactionId),
    }
}

/// Packs changes into deliveries.
struct Packer {
    source: SystemKind,
    now: i64,
    rows_max: usize,
    deliveries: Vec<NewDelivery>,
    batch: Vec<CapturedChange>,
    names: HashSet<String>,
    first_token: String,
}

impl Packer {
    fn new(source: SystemKind, now: i64, rows_max: usize) -> Self {
        Self {
            source,
            now,
            rows_max,
            deliveries: Vec::new(),
            batch: Vec::new(),
            names: HashSet::new(),
            first_token: String::new(),
        }
    }

    fn transaction(&mut self, token: String, changes: Vec<CapturedChange>) {
        self.close();
        self.push(token, true, &changes);
    }

    fn row(&mut self, token: &str, name: String, change: CapturedChange) {
        if self.batch.len() >= self.rows_max || self.names.contains(&name) {
            self.close();
        }
        if self.batch.is_empty() {
            self.first_token = format!("{token}/{name}");
        }
        self.names.insert(name);
        self.batch.push(change);
    }

    fn close(&mut self) {
        if !self.batch.is_empty() {
            let changes = std::mem::take(&mut self.batch);
            let token = std::mem::take(&mut self.first_token);
            self.names.clear();
            self.push(token, false, &changes);
        }
    }

    fn push(&mut self, token: String, atomic: bool, changes: &[CapturedChange]) {
        self.deliveries.push(NewDelivery {
            transaction: TransactionId(Uuid::now_v7()),
            source: self.source,
            source_token: token,
            atomic,
            payload: captured::encode(changes),
            rows: u32::try_from(changes.len()).unwrap_or(u32::MAX),
            captured_at: self.now,
            retry_of: None,
        });
    }

    fn finish(mut self) -> Vec<NewDelivery> {
        self.close();
        self.deliveries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(control_number: i64, transaction: &str, size: u32) -> FeedEntry {
        FeedEntry {
            control_number,
            transaction_id: transaction.to_owned(),
            transaction_size: size,
            collection: "Currencies".to_owned(),
            operation: FeedOperation::Update,
            row: "{}".to_owned(),
            before: String::new(),
            origin: String::new(),
        }
    }

    #[test]
    fn a_transaction_is_taken_when_all_of_it_is_there() {
        for (entries, whole) in [
            (vec![], 0),
            (vec![entry(1, "a", 1)], 1),
            (vec![entry(1, "a", 2)], 0),
            (vec![entry(1, "a", 1), entry(2, "b", 2), entry(3, "b", 2)], 3),
            (vec![entry(1, "a", 1), entry(2, "b", 3), entry(3, "b", 3)], 1),
        ] {
            assert_eq!(whole_transactions(&entries).len(), whole, "{entries:?}");
        }
    }

    #[test]
    fn single_rows_are_packed_and_transactions_are_kept() {
        let change = || change_of(&entry(1, "t", 1));
        let mut packer = Packer::new(SystemKind::Finops, 0, 3);
        for name in ["a", "b", "a", "c", "d", "e"] {
            packer.row("t", name.to_owned(), change());
        }
        packer.transaction("u".to_owned(), vec![change(), change()]);
        packer.row("v", "a".to_owned(), change());
        let packed = packer.finish().iter().map(|delivery| (delivery.rows, delivery.atomic)).collect::<Vec<_>>();
        // The second `a` begins a new batch, which is full with three rows.
        assert_eq!(packed, [(2, false), (3, false), (1, false), (2, true), (1, false)]);
    }
}
