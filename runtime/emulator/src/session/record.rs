//! What is kept of a change set beside its rows: the audit, and the feed of changes on F&O.
//!
//! Owns both records. They are written when the change set is complete, because only then its receipt is known.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::params;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Committed, Session};
use crate::catalogue::{RECEIPTS, Table};
use crate::cell;
use crate::observe::Operation;
use crate::render;
use crate::store::{PLACE_BITS, Stamp};

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
pub(super) struct Applied {
    table: Arc<Table>,
    operation: Operation,
    key: String,
    hash: String,
    equal: bool,
    /// The row before and after as the feed shows it; only F&O has the feed.
    images: Option<(String, String)>,
}

impl Session<'_> {
    /// Keeps what the records will need of a change; `before` and `after` have a cell per column.
    pub(super) fn record(
        &mut self,
        table: &Arc<Table>,
        operation: Operation,
        before: Option<(Stamp, &[&str])>,
        after: Option<(Stamp, &[Cow<'_, str>])>,
    ) {
        self.has_configured |= table.is_configuration;
        if let Some((_, after)) = after
            && let Some((_, column)) = RECEIPTS.iter().find(|(set, _)| *set == table.set())
            && operation == Operation::Create
        {
            self.receipt = table.property(column).and_then(|at| cell::text_of(&after[at])).map(Cow::into_owned);
        }
        if !self.recorded || table.is_bookkeeping {
            return;
        }
        let equal = operation == Operation::Update
            && matches!((before, after), (Some((_, before)), Some((_, after))) if is_equal(table, before, after));
        let images = self.feed.is_some().then(|| {
            let old = before.map(|(stamp, cells)| image(table, cells, stamp)).unwrap_or_default();
            let new = after.map(|(stamp, cells)| image(table, cells, stamp)).unwrap_or_default();
            (old, new)
        });
        let (key, hash) = match (before, after) {
            (_, Some((_, cells))) => (table.shown_key(cells), content_hash(table, cells, &mut self.scratch)),
            (Some((_, cells)), None) => (table.shown_key(cells), String::new()),
            (None, None) => return,
        };
        self.applied.push(Applied { table: Arc::clone(table), operation, key, hash, equal, images });
    }

    /// Writes the records and commits; gives the counter from which the next session goes on.
    pub fn commit(mut self) -> rusqlite::Result<Committed> {
        let change_set = Uuid::now_v7().to_string();
        let applied = std::mem::take(&mut self.applied);
        self.write_audit(&applied, &change_set)?;
        if let Some(feed) = self.feed.take() {
            for change in &applied {
                self.write_feed(&feed, change, &change_set, applied.len())?;
            }
        }
        self.transaction
            .prepare_cached("UPDATE setting SET value = ?1 WHERE name = 'counter'")?
            .execute([self.counter])?;
        self.transaction.commit()?;
        Ok(Committed { counter: self.counter, has_queued: self.has_queued, has_configured: self.has_configured })
    }

    fn write_audit(&self, applied: &[Applied], change_set: &str) -> rusqlite::Result<()> {
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO audit(change_set, receipt, collection, key, operation, hash, equal)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for change in applied {
            insert.execute(params![
                change_set,
                self.receipt,
                change.table.set(),
                change.key,
                change.operation.name(),
                change.hash,
                change.equal,
            ])?;
        }
        Ok(())
    }

    fn write_feed(
        &mut self,
        feed: &Arc<Table>,
        change: &Applied,
        change_set: &str,
        size: usize,
    ) -> rusqlite::Result<()> {
        let Some((old, new)) = &change.images else { return Ok(()) };
        let (row, before) = match change.operation {
            Operation::Delete => (old.as_str(), ""),
            Operation::Create | Operation::Update => (new.as_str(), old.as_str()),
        };
        let place = self.next();
        let cells = [
            place.to_string(),
            cell::quoted(change_set),
            size.to_string(),
            cell::quoted(change.table.set()),
            cell::quoted(change.operation.name()),
            cell::quoted(row),
            cell::quoted(before),
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

fn image<C: AsRef<str>>(table: &Table, cells: &[C], stamp: Stamp) -> String {
    let data = cell::join(cells.iter().map(AsRef::as_ref));
    let mut json = Vec::with_capacity(data.len() * 2);
    render::write_stored(&mut json, table, &data, stamp);
    String::from_utf8(json).unwrap_or_default()
}

fn is_equal(table: &Table, before: &[&str], after: &[Cow<'_, str>]) -> bool {
    before.iter().zip(after).enumerate().all(|(at, (before, after))| before == after || table.server.is_stamp(at))
}

/// Of what is in a row, as far as people and other systems put it there. Columns without a value do not count, so a
/// column that a table gets later changes no hash.
fn content_hash<C: AsRef<str>>(table: &Table, cells: &[C], scratch: &mut Vec<u8>) -> String {
    scratch.clear();
    for (at, (column, cell)) in table.columns.iter().zip(cells).enumerate() {
        let cell = cell.as_ref();
        if cell != column.empty && !table.server.is_stamp(at) {
            scratch.extend_from_slice(column.label.as_bytes());
            scratch.extend_from_slice(cell.as_bytes());
            scratch.push(b',');
        }
    }
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut hash = String::with_capacity(32);
    for byte in Sha256::digest(scratch.as_slice()).iter().take(16) {
        hash.push(char::from(HEX[usize::from(byte >> 4)]));
        hash.push(char::from(HEX[usize::from(byte & 15)]));
    }
    hash
}
