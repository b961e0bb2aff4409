//! Writes what was decided: change sets with a receipt and a fence, until every row has its fate.
//!
//! Owns what happens next with every answer a system can give to a change set. The only step of the path that changes
//! anything outside.

use std::time::Instant;

use dualwright_core::reconcile::Decision;
use dualwright_core::{Class, Code, Fault, Operation, SystemKind, TransactionId};
use uuid::Uuid;

use super::attempt::{Hold, Work};
use super::budget::Budget;
use super::link::{Lane, Link};
use super::row::{RowFate, RowWork};
use super::{identify, target};
use crate::connect::{Action, Address, CHANGE_SET_ROWS_MAX, WriteOperation, WriteOutcome, WrittenRow};

/// How often one row is read again because the target moved on between our read and our write.
const REREADS_MAX: u8 = 3;

/// Requests that one attempt may send: each rejects one row of a full change set at worst, and a few more settle doubts.
const ROUNDS_MAX: usize = CHANGE_SET_ROWS_MAX + 50;

pub(super) async fn write(
    link: &Link,
    lane: &Lane,
    work: &Work<'_>,
    rows: &mut [RowWork],
    budget: &Budget,
) -> Result<(), Hold> {
    let target = work.source.other();
    let mut part = 0;
    // How many rows the next change set may have. After a refusal it ends before the refused row, so that what is known
    // to be good gets through and is not sent again with every further refusal.
    let mut limit = CHANGE_SET_ROWS_MAX;
    for _ in 0..ROUNDS_MAX {
        if work.atomic && rows.iter().any(|row| matches!(row.fate, Some(RowFate::Failed(_)))) {
            return Ok(());
        }
        let mut order = in_order(rows);
        if order.is_empty() {
            return Ok(());
        }
        if !work.atomic {
            order.truncate(limit);
        }
        let operations = order.iter().map(|&index| operation(link, target, &rows[index])).collect::<Vec<_>>();
        if work.atomic
            && let Err(fault) = link.system(target).fits(&operations)
        {
            // Its first row stands for all of it.
            rows[order[0]].fail(fault);
            return Ok(());
        }
        let timeout = budget.for_write(Instant::now())?;
        let mut fence = lane.fence(link, target, timeout).await?;
        let receipt = receipt_of(work.transaction, part);
        let outcome = link.system(target).write(&link.scope.tenant, receipt, &mut fence, &operations, timeout).await;
        match outcome {
            WriteOutcome::Applied(written) => {
                part += 1;
                limit = CHANGE_SET_ROWS_MAX;
                for (&index, written) in order.iter().zip(written) {
                    applied(&mut rows[index], receipt, written);
                }
            }
            WriteOutcome::AlreadyApplied => {
                part += 1;
                found_applied(link, work, rows, &order, receipt, budget).await?;
            }
            WriteOutcome::Rejected { position: Some(position), fault } => {
                let Some(&index) = order.get(position) else {
                    return Err(fault.into());
                };
                rejected(link, work, rows, index, fault, budget).await?;
                if !work.atomic {
                    limit = position.max(1);
                }
            }
            WriteOutcome::Rejected { position: None, fault } => match fault.class() {
                Class::Transient | Class::Misconfigured => return Err(fault.into()),
                // The system does not say which row it is: look for it in halves.
                Class::Rejected | Class::PluginFault if !work.atomic && order.len() > 1 => limit = order.len() / 2,
                // The only one, or the one that stands for its transaction.
                Class::Rejected | Class::PluginFault => rows[order[0]].fail(fault),
            },
            // Whoever took the partition is a runtime that we do not know of, or an earlier life of ours; take it back.
            WriteOutcome::FenceLost(fault) => {
                tracing::warn!(partition = lane.partition(), %fault, "the fence was lost and is taken again");
                let timeout = budget.for_write(Instant::now())?;
                link.system(target).bump_fence(&mut fence, timeout).await?;
            }
            WriteOutcome::Wait { after, fault } => return Err(Hold { after: Some(after), fault }),
            WriteOutcome::Unknown(fault) => {
                tracing::warn!(transaction = %receipt, %fault, "the outcome of a change set is unknown and is looked up");
                // After the bump the request can no longer be applied, so what the receipt says then stays true.
                let timeout = budget.for_write(Instant::now())?;
                link.system(target).bump_fence(&mut fence, timeout).await?;
                if link.system(target).has_receipt(receipt, timeout).await? {
                    part += 1;
                    found_applied(link, work, rows, &order, receipt, budget).await?;
                }
            }
        }
    }
    Err(Fault::new(Code::Internal, format!("a delivery was not settled in {ROUNDS_MAX} requests")).into())
}

/// The receipt of one part of a delivery: the transaction's own id first, and others derived from it, always the same.
fn receipt_of(transaction: TransactionId, part: u32) -> TransactionId {
    match part {
        0 => transaction,
        part => TransactionId(Uuid::new_v5(&transaction.0, &part.to_be_bytes())),
    }
}

/// Open rows in the order in which a system can take them: parents before children, deletes last and children first.
fn in_order(rows: &[RowWork]) -> Vec<usize> {
    let mut order = (0..rows.len()).filter(|&index| rows[index].is_open()).collect::<Vec<_>>();
    order.sort_by_key(|&index| {
        let row = &rows[index];
        match row.operation {
            Operation::Upsert => (0, row.rank, row.map, row.depth, index),
            Operation::Delete => (1, 0, usize::MAX - row.map, 0, index),
        }
    });
    order
}

fn operation(link: &Link, target: SystemKind, row: &RowWork) -> WriteOperation {
    let map = &link.maps[row.map];
    let table = map.side(target).table.clone();
    let current = row.current.as_ref();
    let version = current.map(|current| current.version.clone());
    let columns = map.flow(target).map(|flow| flow.target_columns.as_slice()).unwrap_or_default();
    let pairs = |positions: &mut dyn Iterator<Item = usize>| {
        positions.map(|position| (columns[position], row.values[position].clone())).collect::<Vec<_>>()
    };
    let (action, mut values) = match (&row.operation, &row.decision) {
        (Operation::Delete, _) => (Action::Delete { version }, Vec::new()),
        (Operation::Upsert, Some(Decision::Update { changed })) => {
            (Action::Update { version }, pairs(&mut changed.iter().copied()))
        }
        (Operation::Upsert, _) => (Action::Create { id: row.target_id() }, pairs(&mut (0..row.values.len()))),
    };
    if row.operation == Operation::Upsert {
        values.extend(row.differing_extra(&table.schema).cloned());
    }
    // A new F&O row is named by its key, which stands among its values.
    let address = row.address.clone().unwrap_or(Address::Key(Vec::new()));
    WriteOperation { table, address, action, values, sets: row.sets.clone() }
}

fn applied(row: &mut RowWork, receipt: TransactionId, written: WrittenRow) {
    row.receipt = Some(receipt);
    row.written_version = Some(written.version);
    row.fate = Some(decided_fate(row));
}

fn decided_fate(row: &RowWork) -> RowFate {
    match (&row.operation, &row.decision) {
        (Operation::Delete, _) => RowFate::Deleted,
        (Operation::Upsert, Some(Decision::Update { .. })) => RowFate::Updated,
        (Operation::Upsert, _) => RowFate::Created,
    }
}

/// An earlier request wrote these rows, or some of them: reads them back. What is as wanted was written; the rest is
/// decided anew and goes into the next part.
async fn found_applied(
    link: &Link,
    work: &Work<'_>,
    rows: &mut [RowWork],
    order: &[usize],
    receipt: TransactionId,
    budget: &Budget,
) -> Result<(), Hold> {
    target::read_rows(link, work, rows, order, budget.for_write(Instant::now())?).await?;
    for &index in order {
        if !rows[index].is_open() {
            continue;
        }
        let wanted = decided_fate(&rows[index]);
        target::settle_on(link, work, &mut rows[index]);
        let row = &mut rows[index];
        match row.fate {
            Some(RowFate::Equal) => {
                row.written_version = row.current.as_ref().map(|current| current.version.clone());
                row.receipt = Some(receipt);
                row.fate = Some(wanted);
            }
            Some(RowFate::Gone) => {
                row.receipt = Some(receipt);
                row.fate = Some(wanted);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The system refused one row: it is read again when the target has only moved on, and fails otherwise.
async fn rejected(
    link: &Link,
    work: &Work<'_>,
    rows: &mut [RowWork],
    index: usize,
    fault: Fault,
    budget: &Budget,
) -> Result<(), Hold> {
    let moved_on = matches!(fault.code, Code::DuplicateKey | Code::VersionConflict | Code::TargetGone);
    if moved_on && rows[index].rereads < REREADS_MAX {
        rows[index].rereads += 1;
        if fault.code == Code::TargetGone
            && let Err(missing) = target::refer_anew(link, work, rows, index, budget).await?
        {
            fail(link, rows, index, missing);
            return Ok(());
        }
        if work.never_paired {
            identify::recall_one(link, &mut rows[index]).await?;
        }
        if fault.code == Code::DuplicateKey
            && let Some(address) = target::address_by_key(link, work, &rows[index])
        {
            rows[index].address = Some(address);
        }
        target::read_rows(link, work, rows, &[index], budget.for_write(Instant::now())?).await?;
        if rows[index].is_open() {
            target::settle_on(link, work, &mut rows[index]);
        }
        return Ok(());
    }
    let fault = if moved_on { Fault { code: Code::TargetRejected, ..fault } } else { fault };
    fail(link, rows, index, fault);
    Ok(())
}

fn fail(link: &Link, rows: &mut [RowWork], index: usize, fault: Fault) {
    let id = rows[index].target_id();
    rows[index].fail(fault);
    if let Some(id) = id {
        fail_dependents(link, rows, index, id);
    }
}

/// Rows that refer to a row that will not be created cannot be created either; they wait for it.
fn fail_dependents(link: &Link, rows: &mut [RowWork], failed: usize, id: Uuid) {
    let key = rows[failed].readable_key();
    let why = match (&rows[failed].stands_in_for, &rows[failed].fate) {
        // It has no record of its own that would say so.
        (Some(_), Some(RowFate::Failed(fault))) => format!("which cannot be made as a placeholder: {fault}"),
        _ => "which was rejected".to_owned(),
    };
    let creating = matches!(rows[failed].decision, Some(Decision::Create));
    if !creating {
        return;
    }
    let slug = link.maps[rows[failed].map].slug.clone();
    let mut ids = vec![id];
    while let Some(id) = ids.pop() {
        for row in rows.iter_mut().filter(|row| row.is_open() && row.operation == Operation::Upsert) {
            let id_value = dualwright_core::Value::Guid(id);
            let refers = row.values.contains(&id_value) || row.extra.iter().any(|(_, value)| *value == id_value);
            if refers && row.target_id() != Some(id) {
                ids.extend(row.target_id().filter(|_| matches!(row.decision, Some(Decision::Create))));
                row.fail(Fault::new(Code::LookupNotFound, format!("it refers to record {key} of map {slug}, {why}")));
            }
        }
    }
}
