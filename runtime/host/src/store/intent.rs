//! Intents: what we are about to do to a side that keeps no receipts, written down first. Outbox mode with receipts needs
//! none, so nothing writes one yet; what survives a crash, and what moves on to what, is settled here.

use dualwright_core::{SystemKind, TransactionId};
use rusqlite::{Connection, OptionalExtension, Row};

use super::sql::{Failure, system_of, transaction_of, unknown};
use super::{Intent, IntentState, Scope};

/// Closed intents that are kept per link, so that whoever asks again learns what became of a transaction.
const CLOSED_MAX: u32 = 10_000;

const STATES: [(IntentState, &str); 5] = [
    (IntentState::Prepared, "prepared"),
    (IntentState::Sent, "sent"),
    (IntentState::Unknown, "unknown"),
    (IntentState::Done, "done"),
    (IntentState::Aborted, "aborted"),
];

fn name(state: IntentState) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("", |(_, name)| name)
}

pub(super) fn put(connection: &Connection, scope: &Scope, intent: &Intent) -> Result<(), Failure> {
    let before = find(connection, scope, intent.transaction, intent.side)?;
    let refused = |why: String| {
        Err(Failure::Refused(format!("intent of transaction {} on {}: {why}", intent.transaction, intent.side)))
    };
    match before {
        Some(before) if before.epoch > intent.epoch => {
            return refused(format!("epoch {} has taken over from epoch {}", before.epoch, intent.epoch));
        }
        Some(before) if !before.state.is_open() => return refused(format!("it is {} already", name(before.state))),
        _ => {}
    }
    connection
        .prepare_cached(
            "INSERT INTO intent (tenant, link, transaction_id, side, state, epoch, request_hash, deadline)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT DO UPDATE SET state = excluded.state, epoch = excluded.epoch,
                 request_hash = excluded.request_hash, deadline = excluded.deadline",
        )?
        .execute((
            &scope.tenant,
            &scope.link,
            intent.transaction.0.as_bytes(),
            intent.side.name(),
            name(intent.state),
            intent.epoch,
            intent.request_hash,
            intent.deadline,
        ))?;
    Ok(())
}

pub(super) fn open(connection: &Connection, scope: &Scope) -> Result<Vec<Intent>, Failure> {
    let intents = connection
        .prepare_cached(
            "SELECT transaction_id, side, state, epoch, request_hash, deadline FROM intent
             WHERE tenant = ?1 AND link = ?2 AND state NOT IN ('done', 'aborted') ORDER BY transaction_id, side",
        )?
        .query_map((&scope.tenant, &scope.link), intent_of)?
        .collect::<Result<_, _>>()?;
    Ok(intents)
}

pub(super) fn find(
    connection: &Connection,
    scope: &Scope,
    transaction: TransactionId,
    side: SystemKind,
) -> Result<Option<Intent>, Failure> {
    let intent = connection
        .prepare_cached(
            "SELECT transaction_id, side, state, epoch, request_hash, deadline FROM intent
             WHERE tenant = ?1 AND link = ?2 AND transaction_id = ?3 AND side = ?4",
        )?
        .query_row((&scope.tenant, &scope.link, transaction.0.as_bytes(), side.name()), intent_of)
        .optional()?;
    Ok(intent)
}

pub(super) fn close(
    connection: &Connection,
    scope: &Scope,
    transaction: TransactionId,
    side: SystemKind,
    applied: bool,
) -> Result<(), Failure> {
    let after = if applied { IntentState::Done } else { IntentState::Aborted };
    let refused = |why: String| Err(Failure::Refused(format!("intent of transaction {transaction} on {side}: {why}")));
    match find(connection, scope, transaction, side)? {
        None => return refused("there is none".to_owned()),
        Some(before) if before.state == after => return Ok(()),
        Some(before) if !before.state.is_open() => return refused(format!("it is {} already", name(before.state))),
        Some(_) => {}
    }
    connection
        .prepare_cached(
            "UPDATE intent SET state = ?5 WHERE tenant = ?1 AND link = ?2 AND transaction_id = ?3 AND side = ?4",
        )?
        .execute((&scope.tenant, &scope.link, transaction.0.as_bytes(), side.name(), name(after)))?;
    // Transaction ids ascend with time, so the greatest are the newest.
    connection
        .prepare_cached(
            "DELETE FROM intent WHERE tenant = ?1 AND link = ?2 AND state IN ('done', 'aborted') AND transaction_id <
                 (SELECT transaction_id FROM intent WHERE tenant = ?1 AND link = ?2
                  ORDER BY transaction_id DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute((&scope.tenant, &scope.link, CLOSED_MAX))?;
    Ok(())
}

fn intent_of(row: &Row<'_>) -> Result<Intent, rusqlite::Error> {
    let state = row.get_ref(2)?.as_str()?;
    let state = STATES
        .iter()
        .find(|(_, name)| *name == state)
        .map(|(state, _)| *state)
        .ok_or_else(|| unknown(2, &format!("there is no state {state}")))?;
    Ok(Intent {
        transaction: transaction_of(row, 0)?,
        side: system_of(row, 1)?,
        state,
        epoch: row.get(3)?,
        request_hash: row.get(4)?,
        deadline: row.get(5)?,
    })
}
