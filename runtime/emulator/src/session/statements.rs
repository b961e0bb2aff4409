//! What one session does again and again: its statements, prepared once, and ids for new rows.
//!
//! Knows their texts and nothing of what they are for. A statement of the connection's own cache has to be looked up by
//! its text each time, which costs as much as a small write.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{CachedStatement, Connection};
use uuid::{Builder, Uuid};

/// The statements of row writes.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    insert_row: Option<CachedStatement<'c>>,
    update_row: Option<CachedStatement<'c>>,
    insert_alternate: Option<CachedStatement<'c>>,
    insert_link: Option<CachedStatement<'c>>,
    delete_tombstone: Option<CachedStatement<'c>>,
}

impl<'c> Statements<'c> {
    pub const fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            insert_row: None,
            update_row: None,
            insert_alternate: None,
            insert_link: None,
            delete_tombstone: None,
        }
    }

    /// Id, key, version, number of the table, data.
    pub fn insert_row(&mut self) -> rusqlite::Result<&mut CachedStatement<'c>> {
        let text = "INSERT INTO row(id, key, version, number, data) VALUES (?1, ?2, ?3, ?4, ?5)";
        prepared(&mut self.insert_row, self.connection, text)
    }

    /// Version, data, id.
    pub fn update_row(&mut self) -> rusqlite::Result<&mut CachedStatement<'c>> {
        let text = "UPDATE row SET version = ?1, data = ?2 WHERE id = ?3";
        prepared(&mut self.update_row, self.connection, text)
    }

    /// Key, id of the row.
    pub fn insert_alternate(&mut self) -> rusqlite::Result<&mut CachedStatement<'c>> {
        prepared(&mut self.insert_alternate, self.connection, "INSERT INTO alternate VALUES (?1, ?2)")
    }

    /// Target, id of the row, column.
    pub fn insert_link(&mut self) -> rusqlite::Result<&mut CachedStatement<'c>> {
        prepared(&mut self.insert_link, self.connection, "INSERT OR IGNORE INTO link VALUES (?1, ?2, ?3)")
    }

    /// Key.
    pub fn delete_tombstone(&mut self) -> rusqlite::Result<&mut CachedStatement<'c>> {
        prepared(&mut self.delete_tombstone, self.connection, "DELETE FROM tombstone WHERE key = ?1")
    }
}

fn prepared<'s, 'c>(
    slot: &'s mut Option<CachedStatement<'c>>,
    connection: &'c Connection,
    text: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'c>> {
    Ok(match slot {
        Some(statement) => statement,
        None => slot.insert(connection.prepare_cached(text)?),
    })
}

/// Ids of version 7 (RFC 9562) in ascending order, so that rows added one after the other lie together in the store. The
/// system is asked for randomness once per session and not once per row.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// Milliseconds of the first 48 bits, with the number within them in the twelve bits below.
    sequence: u64,
    /// State of a SplitMix64 generator.
    random: u64,
}

impl Ids {
    pub fn next(&mut self) -> Uuid {
        const NUMBER_BITS: u32 = 12;
        if self.sequence == 0 {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            self.sequence = u64::try_from(since).unwrap_or(0) << NUMBER_BITS;
            // The upper half of a random id has fixed bits, but not in its lower 62.
            self.random = Uuid::new_v4().as_u64_pair().1;
        }
        self.sequence += 1;
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut tail = [0; 10];
        let number = self.sequence & ((1 << NUMBER_BITS) - 1);
        tail[..2].copy_from_slice(&u16::try_from(number).unwrap_or(0).to_be_bytes());
        tail[2..].copy_from_slice(&mixed.to_be_bytes());
        Builder::from_unix_timestamp_millis(self.sequence >> NUMBER_BITS, &tail).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_and_differ_between_sessions() {
        let (mut one, mut other) = (Ids::default(), Ids::default());
        let ids = (0..10_000).map(|_| one.next()).collect::<Vec<_>>();
        assert!(ids.is_sorted_by(|a, b| a < b), "each is above the one before");
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        let others = (0..10_000).map(|_| other.next()).collect::<std::collections::HashSet<_>>();
        assert!(ids.iter().all(|id| !others.contains(id)), "two sessions of one millisecond give different ids");
    }
}
