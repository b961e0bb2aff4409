//! One settlement, all of it or nothing.

use dualwright_core::RowKey;
use rusqlite::Connection;

use super::sql::Failure;
use super::{Fate, Scope, Settlement, cross_reference, failed, ledger, outbox};

pub(super) fn settle(connection: &Connection, scope: &Scope, settlement: &Settlement) -> Result<(), Failure> {
    let mut up_to = i64::MAX;
    let mut retried = Vec::new();
    if let Some((sequence, fate)) = &settlement.delivery {
        up_to = *sequence;
        let retry_of = outbox::settle(connection, scope, *sequence, fate)?;
        let echoes = settlement.counts.iter().map(|(_, _, counts)| counts.echoes).sum();
        outbox::discount_echoes(connection, scope, *sequence, echoes)?;
        if let (Fate::Failed, Some(id)) = (fate, retry_of) {
            retried = failed::together(connection, scope, id)?;
        }
    }
    let resolved = settlement.resolved.iter().map(|(map, source, key): &(_, _, RowKey)| (&**map, source.name(), key));
    failed::resolve(connection, scope, resolved, up_to)?;
    for id in &settlement.resolved_ids {
        failed::remove(connection, scope, *id)?;
    }
    let mut kept = Vec::with_capacity(settlement.failed.len());
    let hashes = failed::payload_hashes(&settlement.failed);
    for (record, hash) in settlement.failed.iter().zip(&hashes) {
        kept.push(failed::keep(connection, scope, record, hash)?);
    }
    // What failed before and does not fail any more is told by other records now.
    for id in retried.iter().filter(|id| !kept.contains(id)) {
        failed::remove(connection, scope, *id)?;
    }
    let pairs = settlement.cross_references.iter().map(|(map, key, reference)| (&**map, key, reference));
    cross_reference::put(connection, scope, pairs)?;
    ledger::add_counts(connection, scope, &settlement.counts)?;
    ledger::log(connection, scope, &settlement.activity)?;
    if let Some((job, position)) = &settlement.cursor {
        ledger::put_cursor(connection, scope, job, position)?;
    }
    ledger::put_watermarks(connection, scope, &settlement.watermarks)
}
