//! The record of applied writes: append only, written in the transaction of the writes themselves.
//!
//! Owns how it is read. "Nothing twice" is decided here and never from how the rows look in the end.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

/// One applied row change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    pub seq: i64,
    /// The change set, or the single write: one transaction of the store.
    pub transaction: String,
    /// The transaction id of the receipt that the same change set wrote.
    pub receipt: Option<String>,
    pub set: String,
    /// The row's id, or its key as in a URL.
    pub key: String,
    /// `Insert`, `Update` or `Delete`.
    pub operation: String,
    /// Of what the row held afterwards, without the columns that say when it was written; empty after a delete.
    pub content_hash: String,
    /// The row held the same before.
    pub equal_before: bool,
}

/// The entries after `after`.
pub(crate) fn entries(connection: &Connection, after: i64) -> rusqlite::Result<Vec<AuditEntry>> {
    connection
        .prepare_cached(
            "SELECT seq, change_set, receipt, collection, key, operation, hash, equal FROM audit WHERE seq > ?1
             ORDER BY seq",
        )?
        .query_map([after], entry)?
        .collect()
}

/// The newest entries before `before`, or of all when it is 0; the newest first.
pub(crate) fn newest(connection: &Connection, before: i64, limit: usize) -> rusqlite::Result<Vec<AuditEntry>> {
    let before = if before == 0 { i64::MAX } else { before };
    connection
        .prepare_cached(
            "SELECT seq, change_set, receipt, collection, key, operation, hash, equal FROM audit WHERE seq < ?1
             ORDER BY seq DESC LIMIT ?2",
        )?
        .query_map(rusqlite::params![before, i64::try_from(limit).unwrap_or(i64::MAX)], entry)?
        .collect()
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get(0)?,
        transaction: row.get(1)?,
        receipt: row.get(2)?,
        set: row.get(3)?,
        key: row.get(4)?,
        operation: row.get(5)?,
        content_hash: row.get(6)?,
        equal_before: row.get(7)?,
    })
}
