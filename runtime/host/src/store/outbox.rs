//! Deliveries that wait, and the memory of what was captured.

use rusqlite::{Connection, OptionalExtension, Row};

use super::sql::{Failure, count_of, fault_of, system_of, take_numbers, transaction_of};
use super::{Backlog, Capture, Delivery, Fate, NewDelivery, Pace, Scope, ledger};

/// Tokens of captured work that are kept per link. A feed repeats at most what one reading of it holds, thousands; a
/// caller that posts a transaction again does so within days.
const TOKENS_MAX: i64 = 100_000;
const TOKEN_AGE_MAX: i64 = 30 * 24 * 3_600 * 1_000_000;
/// Tokens are looked through once in so many deliveries.
const TOKENS_PRUNED_EVERY: i64 = 1_000;

/// Payloads that [`due`] holds at once. The largest single one is bounded by the source: 116.85 MB.
const DUE_BYTES_MAX: usize = 64 << 20;

pub(super) fn capture(connection: &Connection, scope: &Scope, capture: &Capture) -> Result<u32, Failure> {
    let mut new = 0;
    for delivery in &capture.deliveries {
        new += u32::from(capture_one(connection, scope, delivery)?);
    }
    ledger::put_watermarks(connection, scope, &capture.watermarks)?;
    Ok(new)
}

/// Whether the delivery is new.
fn capture_one(connection: &Connection, scope: &Scope, delivery: &NewDelivery) -> Result<bool, Failure> {
    let known = connection
        .prepare_cached("SELECT 1 FROM captured WHERE tenant = ?1 AND link = ?2 AND system = ?3 AND token = ?4")?
        .exists((&scope.tenant, &scope.link, delivery.source.name(), &delivery.source_token))?;
    if known {
        return Ok(false);
    }
    let sequence = insert(connection, scope, delivery)?;
    connection
        .prepare_cached(
            "INSERT INTO captured (tenant, link, system, token, sequence, captured_at, rows)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            &scope.tenant,
            &scope.link,
            delivery.source.name(),
            &delivery.source_token,
            sequence,
            delivery.captured_at,
            delivery.rows,
        ))?;
    if sequence % TOKENS_PRUNED_EVERY == 0 {
        forget_tokens(connection, scope, sequence - TOKENS_MAX, delivery.captured_at.saturating_sub(TOKEN_AGE_MAX))?;
    }
    Ok(true)
}

/// Puts a delivery at the end of the outbox.
pub(super) fn insert(connection: &Connection, scope: &Scope, delivery: &NewDelivery) -> Result<i64, Failure> {
    let sequence = take_numbers(connection, scope, "outbox", 1)?;
    connection
        .prepare_cached(
            "INSERT INTO outbox (tenant, link, sequence, transaction_id, source, atomic, rows, captured_at, retry_of,
                 payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute((
            &scope.tenant,
            &scope.link,
            sequence,
            delivery.transaction.0.as_bytes(),
            delivery.source.name(),
            delivery.atomic,
            delivery.rows,
            delivery.captured_at,
            delivery.retry_of,
            &delivery.payload,
        ))?;
    Ok(sequence)
}

/// Our own writes that came back with a delivery are nobody's change: without them the pace is that of people.
pub(super) fn discount_echoes(
    connection: &Connection,
    scope: &Scope,
    sequence: i64,
    echoes: u64,
) -> Result<(), Failure> {
    if echoes == 0 {
        return Ok(());
    }
    connection
        .prepare_cached(
            "UPDATE captured SET rows = max(rows - ?4, 0) WHERE tenant = ?1 AND link = ?2 AND sequence = ?3",
        )?
        .execute((&scope.tenant, &scope.link, sequence, i64::try_from(echoes).unwrap_or(i64::MAX)))?;
    Ok(())
}

/// How fast changes came in, as far back as tokens are kept; `None` where none is.
pub(super) fn pace(connection: &Connection, scope: &Scope) -> Result<Option<Pace>, Failure> {
    const MINUTE_MICROS: i64 = 60_000_000;
    let whose = (&scope.tenant, &scope.link);
    let most = connection
        .prepare_cached(
            "SELECT max(rows), ifnull(max(CASE system WHEN 'finops' THEN rows END), 0) FROM captured
             WHERE tenant = ?1 AND link = ?2",
        )?
        .query_row(whose, |row| Ok((row.get::<_, Option<i64>>(0)?, count_of(row, 1)?)))?;
    let (Some(_), finops_rows_max) = most else { return Ok(None) };
    let mut busiest = connection.prepare_cached(
        "SELECT ifnull(max(together), 0) FROM (SELECT sum(rows) AS together FROM captured
         WHERE tenant = ?1 AND link = ?2 GROUP BY captured_at / ?3)",
    )?;
    let mut within = |micros: i64| busiest.query_row((whose.0, whose.1, micros), |row| count_of(row, 0));
    Ok(Some(Pace {
        finops_rows_max,
        rows_per_minute_max: within(MINUTE_MICROS)?,
        rows_per_ten_minutes_max: within(10 * MINUTE_MICROS)?,
    }))
}

/// Forgets tokens up to a sequence or a time, but never one whose delivery still waits.
pub(super) fn forget_tokens(connection: &Connection, scope: &Scope, up_to: i64, before: i64) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "DELETE FROM captured WHERE tenant = ?1 AND link = ?2 AND (sequence <= ?3 OR captured_at < ?4)
             AND sequence < ifnull((SELECT min(sequence) FROM outbox WHERE tenant = ?1 AND link = ?2), ?5)",
        )?
        .execute((&scope.tenant, &scope.link, up_to, before, i64::MAX))?;
    Ok(())
}

/// Attempts after which a delivery that waits no longer holds up the later ones of its source: by then it is more
/// likely that something is wrong with it than with the system.
const HOLDS_MAX: u32 = 5;

/// What may be tried now, in order. While a delivery waits for its next attempt, the later ones of its source wait too,
/// so that changes arrive in the order in which they were made.
pub(super) fn due(connection: &Connection, scope: &Scope, now: i64, limit: u32) -> Result<Vec<Delivery>, Failure> {
    due_within(connection, scope, now, limit, DUE_BYTES_MAX)
}

pub(super) fn due_within(
    connection: &Connection,
    scope: &Scope,
    now: i64,
    limit: u32,
    bytes_max: usize,
) -> Result<Vec<Delivery>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, transaction_id, source, atomic, payload, rows, captured_at, attempt, retry_of FROM outbox
         WHERE tenant = ?1 AND link = ?2 AND not_before <= ?3
         AND NOT EXISTS (SELECT 1 FROM outbox AS earlier
             WHERE earlier.tenant = ?1 AND earlier.link = ?2 AND earlier.source = outbox.source
             AND earlier.sequence < outbox.sequence AND earlier.not_before > ?3 AND earlier.attempt < ?5)
         ORDER BY sequence LIMIT ?4",
    )?;
    let mut due = Vec::new();
    let mut bytes = 0;
    for delivery in statement.query_map((&scope.tenant, &scope.link, now, limit, HOLDS_MAX), delivery_of)? {
        let delivery = delivery?;
        bytes += delivery.payload.len();
        if bytes > bytes_max && !due.is_empty() {
            break;
        }
        due.push(delivery);
    }
    Ok(due)
}

fn delivery_of(row: &Row<'_>) -> Result<Delivery, rusqlite::Error> {
    Ok(Delivery {
        sequence: row.get(0)?,
        transaction: transaction_of(row, 1)?,
        source: system_of(row, 2)?,
        atomic: row.get(3)?,
        payload: row.get(4)?,
        rows: row.get(5)?,
        captured_at: row.get(6)?,
        attempt: row.get(7)?,
        retry_of: row.get(8)?,
    })
}

pub(super) fn backlog(connection: &Connection, scope: &Scope) -> Result<Backlog, Failure> {
    let mut backlog = connection
        .prepare_cached(
            "SELECT count(*), ifnull(sum(rows), 0), min(captured_at), count(*) FILTER (WHERE attempt > 0) FROM outbox
             WHERE tenant = ?1 AND link = ?2",
        )?
        .query_row((&scope.tenant, &scope.link), |row| {
            Ok(Backlog {
                deliveries: count_of(row, 0)?,
                rows: count_of(row, 1)?,
                oldest_captured_at: row.get(2)?,
                retrying: count_of(row, 3)?,
                fault: None,
            })
        })?;
    if backlog.retrying > 0 {
        backlog.fault = connection
            .prepare_cached(
                "SELECT fault_code, fault_message, fault_column, fault_foreign_code FROM outbox
                 WHERE tenant = ?1 AND link = ?2 AND attempt > 0 ORDER BY sequence LIMIT 1",
            )?
            .query_row((&scope.tenant, &scope.link), |row| fault_of(row, 0))?;
    }
    Ok(backlog)
}

/// Gives a delivery its fate; answers the failed record that it was a new try of.
pub(super) fn settle(
    connection: &Connection,
    scope: &Scope,
    sequence: i64,
    fate: &Fate,
) -> Result<Option<i64>, Failure> {
    let retry_of = match fate {
        Fate::Complete | Fate::Failed => connection
            .prepare_cached("DELETE FROM outbox WHERE tenant = ?1 AND link = ?2 AND sequence = ?3 RETURNING retry_of")?
            .query_row((&scope.tenant, &scope.link, sequence), |row| row.get(0))
            .optional()?,
        Fate::Retry { not_before, fault } => connection
            .prepare_cached(
                "UPDATE outbox SET attempt = attempt + 1, not_before = ?4, fault_code = ?5, fault_message = ?6,
                     fault_column = ?7, fault_foreign_code = ?8
                 WHERE tenant = ?1 AND link = ?2 AND sequence = ?3 RETURNING retry_of",
            )?
            .query_row(
                (
                    &scope.tenant,
                    &scope.link,
                    sequence,
                    not_before,
                    fault.code as u16,
                    &fault.message,
                    &fault.column,
                    &fault.foreign_code,
                ),
                |row| row.get(0),
            )
            .optional()?,
    };
    retry_of.ok_or_else(|| Failure::Refused(format!("delivery {sequence} is not in the outbox any more")))
}

/// Whether a new try of one of these failed records waits already.
pub(super) fn has_retry_of(connection: &Connection, scope: &Scope, ids: &[i64]) -> Result<bool, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM outbox WHERE tenant = ?1 AND link = ?2 AND retry_of = ?3")?;
    for id in ids {
        if statement.exists((&scope.tenant, &scope.link, id))? {
            return Ok(true);
        }
    }
    Ok(false)
}
