//! What the store keeps of an attempt: one transaction with the cross references, the failed records, the counts and
//! the delivery's fate.
//!
//! Pure: makes the plan, the store carries it out.

use std::collections::BTreeMap;
use std::sync::Arc;

use dualwright_core::content::{content_hash, content_hash_of};
use dualwright_core::reconcile::Decision;
use dualwright_core::{Code, Operation, RowKey, SystemKind, TransactionId};

use super::attempt::Work;
use super::captured;
use super::link::{Link, LinkMap, Role};
use super::ownership::Identity;
use super::row::{RowFate, RowWork};
use super::table_map::is_unreal;
use crate::connect::Address;
use crate::store::{Counts, CrossReference, NewActivity, NewFailed, Settlement};

/// Where the attempted work came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Position among the changes of the link: the outbox sequence, or that of the failed record that is retried.
    pub sequence: i64,
    /// Failures of this record before.
    pub attempts: u32,
    pub now: i64,
}

/// The plan for rows that all have their fate. The caller adds the delivery's own fate, cursors and watermarks.
#[must_use]
pub fn settlement(link: &Link, work: &Work<'_>, rows: &[RowWork], origin: Origin) -> Settlement {
    let mut settlement = Settlement::default();
    let mut counts: BTreeMap<usize, Counts> = BTreeMap::new();
    // Made when it is needed, and once for all who share it.
    let mut payload_of_all: Option<Arc<[u8]>> = None;
    for row in rows {
        let Some(fate) = &row.fate else { continue };
        let map = &link.maps[row.map];
        if let Some(child) = &row.stands_in_for {
            settlement.activity.extend(placeholder(map, row, fate, child, origin.now));
            if let (Some(key), RowFate::Created) = (&row.key, fate) {
                settlement.cross_references.push((Arc::clone(&map.slug), key.clone(), left_as_placeholder(map, row)));
            }
            continue;
        }
        count(counts.entry(row.map).or_default(), fate, work.again);
        settlement.activity.extend(conflict(link, map, work, row, fate, origin.now));
        settlement.cross_references.extend(provenance(link, work, rows, row, origin.sequence));
        if let Some(key) = &row.key
            && let Some(reference) = cross_reference(map, work, row, fate, origin.sequence)
        {
            settlement.cross_references.push((Arc::clone(&map.slug), key.clone(), reference));
        }
        if !work.atomic && row.complaint.is_none() && resolves(fate) {
            // Also the record of a time when it might not have its key.
            let own = row.identity.as_ref().map(Identity::record_key);
            let names = row.key.iter().cloned().chain(own);
            settlement.resolved.extend(names.map(|key| (Arc::clone(&map.slug), work.source, key)));
        }
        let fault = match (fate, &row.complaint) {
            // Whoever shares the fate of a guilty row is named by that row's record and retried with it.
            (RowFate::Failed(fault), _) if fault.code == Code::TransactionRolledBack => continue,
            (RowFate::Failed(fault), _) => fault,
            (_, Some(complaint)) => {
                let counts = counts.entry(row.map).or_default();
                counts.failed += 1;
                complaint
            }
            _ => continue,
        };
        settlement.failed.push(NewFailed {
            map: Arc::clone(&map.slug),
            source: work.source,
            key: row.readable_key(),
            // A transaction is retried as a whole, so no single row of it can settle its record.
            row_key: row.record_key().filter(|_| !work.atomic),
            transaction: work.transaction,
            fault: fault.clone(),
            payload: match work.atomic {
                true => Arc::clone(payload_of_all.get_or_insert_with(|| captured::encode(work.changes).into())),
                false => captured::encode(&work.changes[row.change..=row.change]).into(),
            },
            atomic: work.atomic,
            attempts: origin.attempts + 1,
            at: origin.now,
            sequence: origin.sequence,
            waiting_for_parent: fault.code == Code::LookupNotFound,
        });
    }
    settlement.counts = counts
        .into_iter()
        .filter(|(_, counts)| *counts != Counts::default())
        .map(|(map, counts)| (Arc::clone(&link.maps[map].slug), work.source, counts))
        .collect();
    settlement
}

/// A line about a row that was made because another one refers to it.
fn placeholder(map: &LinkMap, row: &RowWork, fate: &RowFate, child: &str, now: i64) -> Option<NewActivity> {
    let text = match fate {
        RowFate::Created => format!(
            "record {} is not there and was made of its key, because record {child} refers to it; the real one fills it",
            row.readable_key()
        ),
        _ => return None,
    };
    Some(NewActivity { at: now, map: Some(Arc::clone(&map.slug)), kind: "placeholder", text })
}

/// How a placeholder is left: as a pair whose F&O row is not there yet.
fn left_as_placeholder(map: &LinkMap, row: &RowWork) -> CrossReference {
    CrossReference {
        dataverse_id: row.target_id(),
        dataverse_version: row.written_version.clone().unwrap_or_default(),
        dataverse_hash: Some(target_hash(map, SystemKind::Dataverse, row)),
        last_transaction: row.receipt,
        // Older than any change of the real row.
        last_sequence: 0,
        ..CrossReference::default()
    }
}

/// A line about a record that both sides changed: whose change stands, and whose is gone.
fn conflict(
    link: &Link,
    map: &LinkMap,
    work: &Work<'_>,
    row: &RowWork,
    fate: &RowFate,
    now: i64,
) -> Option<NewActivity> {
    let (source, target) = (work.source, work.source.other());
    let lost = match fate {
        RowFate::Yielded => source,
        RowFate::Created | RowFate::Updated | RowFate::Deleted if row.conflicting => target,
        _ => return None,
    };
    let (did, had) = match (row.operation, fate) {
        (Operation::Delete, _) => ("deleted", "changed"),
        (Operation::Upsert, RowFate::Created) => ("changed", "deleted"),
        (Operation::Upsert, RowFate::Yielded) if row.current.is_none() => ("changed", "deleted"),
        (Operation::Upsert, _) => ("changed", "changed"),
    };
    let text = format!(
        "record {} was {did} on {source} and {had} on {target}; {} wins, and what was done on {lost} is gone",
        row.readable_key(),
        link.conflict_winner
    );
    Some(NewActivity { at: now, map: Some(Arc::clone(&map.slug)), kind: "conflict", text })
}

/// Rows that the target holds for certain after this attempt, so that lookups need not be asked for again; only of maps
/// whose rows are `referred_to`.
#[must_use]
pub fn learned(
    work: &Work<'_>,
    rows: &[RowWork],
    referred_to: &dyn Fn(usize) -> bool,
) -> BTreeMap<usize, Vec<(RowKey, uuid::Uuid)>> {
    let mut learned: BTreeMap<usize, Vec<(RowKey, uuid::Uuid)>> = BTreeMap::new();
    for row in rows.iter().filter(|row| referred_to(row.map)) {
        let id = match work.source {
            SystemKind::Finops => row.target_id(),
            SystemKind::Dataverse => row.source_id,
        };
        let holds = matches!(row.fate, Some(RowFate::Created | RowFate::Updated | RowFate::Equal));
        if let (Some(key), Some(id), true) = (&row.key, id, holds && row.operation == Operation::Upsert) {
            learned.entry(row.map).or_default().push((key.clone(), id));
        }
    }
    learned
}

const fn resolves(fate: &RowFate) -> bool {
    matches!(
        fate,
        RowFate::Created
            | RowFate::Updated
            | RowFate::Deleted
            | RowFate::Equal
            | RowFate::Gone
            | RowFate::Yielded
            | RowFate::Mapped
    )
}

fn count(counts: &mut Counts, fate: &RowFate, again: bool) {
    // A new try is of a row that was counted when it failed.
    counts.rows += u64::from(!again);
    match fate {
        RowFate::Created => counts.created += 1,
        RowFate::Updated => counts.updated += 1,
        RowFate::Deleted => counts.deleted += 1,
        RowFate::Failed(_) => counts.failed += u64::from(!again),
        // The rows that it gave are counted with their own maps.
        RowFate::Mapped => counts.rows -= u64::from(!again),
        RowFate::Echo => {
            // Not a change of anybody's: neither a row nor a skip.
            counts.rows -= u64::from(!again);
            counts.echoes += 1;
        }
        RowFate::Equal | RowFate::Gone | RowFate::OutOfScope | RowFate::Superseded | RowFate::Yielded => {
            counts.skipped += 1;
        }
    }
}

/// How the pair of rows is left, when this attempt says anything about it.
fn cross_reference(
    map: &LinkMap,
    work: &Work<'_>,
    row: &RowWork,
    fate: &RowFate,
    sequence: i64,
) -> Option<CrossReference> {
    let target = work.source.other();
    let before = row.base.clone().unwrap_or_default();
    let before_sequence = before.last_sequence;
    let mut after = CrossReference { last_sequence: before.last_sequence.max(sequence), ..before };
    match fate {
        // Also where there was no pair: an older change that still waits must not bring the row back.
        RowFate::Deleted | RowFate::Gone if row.operation == Operation::Delete => {
            after.deleted = true;
            after.last_transaction = row.receipt.or(after.last_transaction);
        }
        RowFate::OutOfScope if row.detached => after.deleted = true,
        RowFate::Created | RowFate::Updated => {
            after.deleted = false;
            after.last_transaction = row.receipt.or(after.last_transaction);
            set_side(&mut after, work.source, &row.source_version, source_hash(map, work.source, row));
            let version = row.written_version.clone().unwrap_or_default();
            set_side(&mut after, target, &version, target_hash(map, target, row));
            set_id(&mut after, work, row);
        }
        RowFate::Equal if row.operation == Operation::Upsert => {
            after.deleted = false;
            set_side(&mut after, work.source, &row.source_version, source_hash(map, work.source, row));
            if let Some(current) = &row.current {
                let side = map.side(target);
                let hash = content_hash(&side.table.schema, &side.columns, &current.values);
                set_side(&mut after, target, &current.version, hash);
            }
            set_id(&mut after, work, row);
        }
        RowFate::Mapped => {
            after.deleted = row.operation == Operation::Delete;
            after.last_transaction = row.receipt.or(after.last_transaction);
            if row.operation == Operation::Upsert {
                set_side(&mut after, work.source, &row.source_version, source_hash(map, work.source, row));
            }
        }
        // Our write, as it came back: what the system made of it is what we left.
        RowFate::Echo if row.operation == Operation::Upsert => {
            set_side(&mut after, work.source, &row.source_version, source_hash(map, work.source, row));
            after.last_sequence = before_sequence;
        }
        _ => return None,
    }
    if let Some(key) = finops_key(map, work, row) {
        after.finops_key = Some(key);
    }
    if is_unreal(map, target) {
        // What the plugin would make of the other side now is known only when it is asked.
        match target {
            SystemKind::Finops => (after.finops_version, after.finops_hash) = (Arc::from(""), None),
            SystemKind::Dataverse => (after.dataverse_version, after.dataverse_hash) = (Arc::from(""), None),
        }
    }
    (row.base.as_ref() != Some(&after)).then_some(after)
}

/// What identifies the F&O row of the pair on its own side, where the key does not say it.
fn finops_key(map: &LinkMap, work: &Work<'_>, row: &RowWork) -> Option<RowKey> {
    match (work.source, &row.identity, &row.address) {
        (SystemKind::Finops, Some(Identity::Entity(key)), _) => Some(key.clone()),
        (SystemKind::Dataverse, _, Some(Address::Key(pairs))) if !map.plan.key_complete => {
            Some(RowKey::new(None, pairs.iter().map(|(_, value)| value)))
        }
        _ => None,
    }
}

/// Which source row a row of a table map belongs to: with the source row's key, under the name of its target table.
fn provenance(
    link: &Link,
    work: &Work<'_>,
    rows: &[RowWork],
    row: &RowWork,
    sequence: i64,
) -> Option<(Arc<str>, RowKey, CrossReference)> {
    let key = rows[row.part_of?].key.clone()?;
    let Role::Target(table_map) = link.maps[row.map].role else { return None };
    let table_map = &link.table_maps[table_map];
    let target = table_map.targets.iter().position(|&target| target == row.map)?;
    let dataverse_id = match work.source {
        SystemKind::Dataverse => row.source_id,
        SystemKind::Finops => row.target_id(),
    };
    let deleted = match row.fate.as_ref()? {
        RowFate::Created | RowFate::Updated | RowFate::Equal => false,
        RowFate::Deleted | RowFate::Gone => true,
        _ => return None,
    };
    let reference = CrossReference {
        dataverse_id: dataverse_id.or_else(|| row.base.as_ref()?.dataverse_id),
        deleted,
        last_sequence: sequence,
        ..CrossReference::default()
    };
    Some((table_map.provenance(link, target), key, reference))
}

fn set_side(reference: &mut CrossReference, side: SystemKind, version: &Arc<str>, hash: [u8; 16]) {
    match side {
        SystemKind::Finops => {
            reference.finops_version = Arc::clone(version);
            reference.finops_hash = Some(hash);
        }
        SystemKind::Dataverse => {
            reference.dataverse_version = Arc::clone(version);
            reference.dataverse_hash = Some(hash);
        }
    }
}

fn set_id(reference: &mut CrossReference, work: &Work<'_>, row: &RowWork) {
    let id = match work.source {
        SystemKind::Dataverse => row.source_id,
        SystemKind::Finops => row.target_id(),
    };
    reference.dataverse_id = id.or(reference.dataverse_id);
}

fn source_hash(map: &LinkMap, source: SystemKind, row: &RowWork) -> [u8; 16] {
    let side = map.side(source);
    content_hash(&side.table.schema, &side.columns, &row.source)
}

/// The target's content after our write: what was there, and what was sent on top of it.
fn target_hash(map: &LinkMap, target: SystemKind, row: &RowWork) -> [u8; 16] {
    let side = map.side(target);
    let schema = &side.table.schema;
    let before = match (&row.decision, &row.current) {
        (Some(Decision::Update { .. }), Some(current)) => Some(&current.values),
        _ => None,
    };
    let columns = map.flow(target).map(|flow| flow.target_columns.as_slice()).unwrap_or_default();
    content_hash_of(schema, &side.columns, |index| {
        let sent =
            columns.iter().zip(&row.values).rev().find(|(column, value)| **column == index && !value.is_absent());
        sent.map(|(_, value)| value).or_else(|| before.and_then(|before| before.get(index)))
    })
}

/// The transaction of a batch packed from a page: the same for the same page of the same run, so that a repetition
/// after a crash is recognised by its receipt.
#[must_use]
pub fn page_transaction(run: TransactionId, map: &str, page: u64) -> TransactionId {
    TransactionId(uuid::Uuid::new_v5(&run.0, format!("{map}\u{1f}{page}").as_bytes()))
}
