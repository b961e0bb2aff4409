//! The error queue: records that could not be carried over, until they are.
//!
//! A record is one row of one map from one source, so a row that fails again is the same record. Where no key is known
//! (and for atomic transactions, which fail as a whole) the captured changes stand for it.

use std::sync::Arc;

use dualwright_core::{RowKey, TransactionId};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::sql::{Failure, count_of, fault_of, system_of, take_numbers, transaction_of};
use super::{FailedFilter, FailedRecord, NewActivity, NewDelivery, NewFailed, Scope, ledger, outbox};

/// SHA-256 of the captured changes.
pub(super) type PayloadHash = [u8; 32];

/// The hashes of the records' payloads, each shared payload looked at once.
pub(super) fn payload_hashes(records: &[NewFailed]) -> Vec<PayloadHash> {
    let mut hashes: Vec<PayloadHash> = Vec::with_capacity(records.len());
    for (position, record) in records.iter().enumerate() {
        let shared = position.checked_sub(1).filter(|&before| Arc::ptr_eq(&records[before].payload, &record.payload));
        hashes.push(shared.map_or_else(|| Sha256::digest(&record.payload).into(), |before| hashes[before]));
    }
    hashes
}

/// Keeps a record; answers its id. What fails again keeps its id and counts its attempts; a newer change of the row is
/// a new record in place of the old one; an older change says nothing about a newer one.
pub(super) fn keep(
    connection: &Connection,
    scope: &Scope,
    new: &NewFailed,
    hash: &PayloadHash,
) -> Result<i64, Failure> {
    let identity = identity(new, hash);
    let before = connection
        .prepare_cached(
            "SELECT id, sequence, payload_hash, first_at FROM failed
             WHERE tenant = ?1 AND link = ?2 AND map = ?3 AND source = ?4 AND identity = ?5",
        )?
        .query_row((&scope.tenant, &scope.link, &new.map, new.source.name(), &identity), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, [u8; 32]>(2)?, row.get::<_, i64>(3)?))
        })
        .optional()?;
    match before {
        None => insert(connection, scope, new, &identity, hash, new.at),
        Some((id, sequence, _, first_at)) if new.sequence > sequence => {
            remove(connection, scope, id)?;
            insert(connection, scope, new, &identity, hash, first_at)
        }
        Some((id, _, payload, _)) => {
            if payload == *hash {
                fail_again(connection, scope, id, new)?;
            }
            Ok(id)
        }
    }
}

fn identity(new: &NewFailed, hash: &[u8; 32]) -> String {
    match &new.row_key {
        Some(key) => format!("key:{}", key.as_str()),
        None => {
            let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            format!("payload:{hash}:{}", new.key)
        }
    }
}

fn insert(
    connection: &Connection,
    scope: &Scope,
    new: &NewFailed,
    identity: &str,
    hash: &[u8; 32],
    first_at: i64,
) -> Result<i64, Failure> {
    connection
        .prepare_cached(
            "INSERT INTO failed_payload (tenant, link, hash, payload) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute((&scope.tenant, &scope.link, hash, &new.payload))?;
    let id = take_numbers(connection, scope, "failed", 1)?;
    connection
        .prepare_cached(
            "INSERT INTO failed (tenant, link, id, map, source, identity, key, row_key, transaction_id, fault_code,
                 fault_message, fault_column, fault_foreign_code, payload_hash, atomic, attempts, first_at, last_at,
                 sequence, waiting_for_parent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
        )?
        .execute(rusqlite::params![
            scope.tenant,
            scope.link,
            id,
            new.map,
            new.source.name(),
            identity,
            new.key,
            new.row_key.as_ref().map(RowKey::as_str),
            new.transaction.0.as_bytes(),
            new.fault.code as u16,
            new.fault.message,
            new.fault.column,
            new.fault.foreign_code,
            hash,
            new.atomic,
            new.attempts,
            first_at,
            new.at,
            new.sequence,
            new.waiting_for_parent,
        ])?;
    Ok(id)
}

fn fail_again(connection: &Connection, scope: &Scope, id: i64, new: &NewFailed) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE failed SET transaction_id = ?4, fault_code = ?5, fault_message = ?6, fault_column = ?7,
                 fault_foreign_code = ?8, attempts = attempts + 1, last_at = ?9, waiting_for_parent = ?10
             WHERE tenant = ?1 AND link = ?2 AND id = ?3",
        )?
        .execute((
            &scope.tenant,
            &scope.link,
            id,
            new.transaction.0.as_bytes(),
            new.fault.code as u16,
            &new.fault.message,
            &new.fault.column,
            &new.fault.foreign_code,
            new.at,
            new.waiting_for_parent,
        ))?;
    Ok(())
}

/// Closes a record, if it is open.
pub(super) fn remove(connection: &Connection, scope: &Scope, id: i64) -> Result<(), Failure> {
    let hash = connection
        .prepare_cached("DELETE FROM failed WHERE tenant = ?1 AND link = ?2 AND id = ?3 RETURNING payload_hash")?
        .query_row((&scope.tenant, &scope.link, id), |row| row.get::<_, [u8; 32]>(0))
        .optional()?;
    hash.map_or(Ok(()), |hash| drop_payload(connection, scope, &hash))
}

/// Closes the record of a row, if there is one and it is not of a newer change than `up_to`.
pub(super) fn resolve<'a>(
    connection: &Connection,
    scope: &Scope,
    rows: impl IntoIterator<Item = (&'a str, &'a str, &'a RowKey)>,
    up_to: i64,
) -> Result<(), Failure> {
    let any = connection
        .prepare_cached("SELECT 1 FROM failed WHERE tenant = ?1 AND link = ?2 LIMIT 1")?
        .exists((&scope.tenant, &scope.link))?;
    if !any {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "DELETE FROM failed WHERE tenant = ?1 AND link = ?2 AND map = ?3 AND source = ?4 AND identity = ?5
         AND sequence <= ?6 RETURNING payload_hash",
    )?;
    for (map, source, key) in rows {
        let identity = format!("key:{}", key.as_str());
        let row = (&scope.tenant, &scope.link, map, source, identity, up_to);
        let hash = statement.query_row(row, |row| row.get::<_, [u8; 32]>(0)).optional()?;
        if let Some(hash) = hash {
            drop_payload(connection, scope, &hash)?;
        }
    }
    Ok(())
}

fn drop_payload(connection: &Connection, scope: &Scope, hash: &[u8; 32]) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "DELETE FROM failed_payload WHERE tenant = ?1 AND link = ?2 AND hash = ?3 AND NOT EXISTS
                 (SELECT 1 FROM failed WHERE tenant = ?1 AND link = ?2 AND payload_hash = ?3)",
        )?
        .execute((&scope.tenant, &scope.link, hash))?;
    Ok(())
}

/// The records that a new try of `id` is about: it alone, or all of its atomic transaction.
pub(super) fn together(connection: &Connection, scope: &Scope, id: i64) -> Result<Vec<i64>, Failure> {
    let ids = connection
        .prepare_cached(
            "SELECT other.id FROM failed AS one JOIN failed AS other
                 ON other.tenant = one.tenant AND other.link = one.link AND other.payload_hash = one.payload_hash
             WHERE one.tenant = ?1 AND one.link = ?2 AND one.id = ?3
                 AND (other.id = one.id OR (one.atomic AND other.atomic AND other.source = one.source))
             ORDER BY other.id",
        )?
        .query_map((&scope.tenant, &scope.link, id), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(ids)
}

pub(super) fn requeue(connection: &Connection, scope: &Scope, ids: &[i64], now: i64) -> Result<u32, Failure> {
    let mut made = 0;
    let mut lines = Vec::new();
    for &id in ids {
        let filter = FailedFilter { ids: Some(vec![id]), ..FailedFilter::default() };
        let Some(record) = list(connection, scope, &filter)?.pop() else { continue };
        let together = together(connection, scope, id)?;
        if outbox::has_retry_of(connection, scope, &together)? {
            continue;
        }
        let delivery = NewDelivery {
            transaction: TransactionId(Uuid::now_v7()),
            source: record.source,
            source_token: String::new(),
            atomic: record.atomic,
            payload: record.payload,
            // How many rows an atomic transaction has besides those that failed, only its payload says.
            rows: u32::try_from(together.len()).unwrap_or(u32::MAX),
            // Guests see the time of the first try again, so that a new try differs only in what was corrected.
            captured_at: record.first_at,
            retry_of: Some(id),
        };
        outbox::insert(connection, scope, &delivery)?;
        let text = format!("record {} is to be tried again", record.key);
        lines.push(NewActivity { at: now, map: Some(record.map), kind: "retry-requested", text });
        made += 1;
    }
    ledger::log(connection, scope, &lines)?;
    Ok(made)
}

/// The filter as SQL, with its arguments.
fn condition(scope: &Scope, filter: &FailedFilter) -> (String, Vec<Box<dyn ToSql>>) {
    let mut sql = "tenant = ?1 AND link = ?2".to_owned();
    let mut arguments: Vec<Box<dyn ToSql>> =
        vec![Box::new(Arc::clone(&scope.tenant)), Box::new(Arc::clone(&scope.link))];
    let mut add = |column: &str, argument: Box<dyn ToSql>| {
        arguments.push(argument);
        sql.push_str(&format!(" AND {column} ?{}", arguments.len()));
    };
    if let Some(map) = &filter.map {
        add("map =", Box::new(Arc::clone(map)));
    }
    if let Some(source) = filter.source {
        add("source =", Box::new(source.name()));
    }
    if let Some(waiting) = filter.waiting_for_parent {
        add("waiting_for_parent =", Box::new(waiting));
    }
    if let Some(after) = filter.after {
        add("id >", Box::new(after));
    }
    if let Some(ids) = &filter.ids {
        // Numbers need no quoting, and a list of them no limit of its own.
        let ids = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        sql.push_str(&format!(" AND id IN ({ids})"));
    }
    (sql, arguments)
}

pub(super) fn list(
    connection: &Connection,
    scope: &Scope,
    filter: &FailedFilter,
) -> Result<Vec<FailedRecord>, Failure> {
    let (condition, arguments) = condition(scope, filter);
    let limit = filter.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
    let sql = format!(
        "SELECT id, map, source, key, row_key, transaction_id, fault_code, fault_message, fault_column,
             fault_foreign_code, atomic, attempts, first_at, last_at, sequence, waiting_for_parent, payload_hash,
             (SELECT payload FROM failed_payload AS kept WHERE kept.tenant = failed.tenant
                  AND kept.link = failed.link AND kept.hash = failed.payload_hash)
         FROM failed WHERE {condition} ORDER BY id{limit}"
    );
    let records = connection
        .prepare(&sql)?
        .query_map(rusqlite::params_from_iter(arguments), record_of)?
        .collect::<Result<_, _>>()?;
    Ok(records)
}

pub(super) fn count(connection: &Connection, scope: &Scope, filter: &FailedFilter) -> Result<u64, Failure> {
    let (condition, arguments) = condition(scope, filter);
    let limit = filter.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM failed WHERE {condition}{limit})");
    Ok(connection.query_row(&sql, rusqlite::params_from_iter(arguments), |row| count_of(row, 0))?)
}

fn record_of(row: &Row<'_>) -> Result<FailedRecord, rusqlite::Error> {
    let key: Option<String> = row.get(4)?;
    Ok(FailedRecord {
        id: row.get(0)?,
        map: row.get(1)?,
        source: system_of(row, 2)?,
        key: row.get(3)?,
        row_key: key.as_deref().map(RowKey::from_stored),
        transaction: transaction_of(row, 5)?,
        fault: fault_of(row, 6)?.ok_or(rusqlite::Error::InvalidQuery)?,
        atomic: row.get(10)?,
        attempts: row.get(11)?,
        first_at: row.get(12)?,
        last_at: row.get(13)?,
        sequence: row.get(14)?,
        waiting_for_parent: row.get(15)?,
        payload: row.get(17)?,
    })
}
