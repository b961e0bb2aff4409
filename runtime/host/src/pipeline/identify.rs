//! Which rows of which maps a delivery concerns, by key, and what was left of them before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dualwright_core::content::content_hash;
use dualwright_core::{Code, Fault, Operation, RowKey, SystemKind, Value};

use super::attempt::{Hold, Work};
use super::budget::Budget;
use super::link::{Link, LinkMap};
use super::ownership::{self, Identity};
use super::row::{RowFate, RowWork};
use crate::config::LeavingFilter;
use crate::connect::Address;
use crate::store::CrossReference;

/// One row per change and map of its table. What cannot be read is a failed row, never a lost one.
pub(super) fn expand(link: &Link, work: &Work<'_>) -> Vec<RowWork> {
    let mut rows = Vec::with_capacity(work.changes.len());
    for (position, change) in work.changes.iter().enumerate() {
        for (index, map) in link.maps.iter().enumerate() {
            let side = map.side(work.source);
            // The rows that a plugin gives are reached by way of their source row.
            let meant = |only: usize| {
                only == index || (work.source == SystemKind::Finops && link.comes_from(only) == Some(index))
            };
            if !work.only_map.is_none_or(meant)
                || *side.table.schema.set != *change.set
                || map.flow(work.source.other()).is_none()
            {
                continue;
            }
            let mut row = RowWork::new(position, index, change.operation);
            row.source_id = change.id;
            if let Some(json) = &change.row {
                match side.table.shape.decode(json.get()) {
                    Ok(decoded) => {
                        if let Some(Value::Guid(id)) = side.table.schema.primary_id.map(|id| &decoded.values[id]) {
                            row.source_id = Some(*id);
                        }
                        row.source = decoded.values;
                        row.source_version = Arc::from(decoded.etag.unwrap_or_default());
                    }
                    Err(fault) => row.fail(fault),
                }
            }
            row.identity = row.source_id.filter(|_| work.source == SystemKind::Dataverse).map(Identity::Id);
            rows.push(row);
        }
    }
    rows
}

/// Finds the key of every row, and passes over what the map or the link does not take.
pub(super) async fn identify(link: &Link, work: &Work<'_>, rows: &mut [RowWork], budget: &Budget) -> Result<(), Hold> {
    if work.source == SystemKind::Dataverse {
        link.lookups.make_room();
        read_names(link, work, rows, budget).await?;
        find_deleted(link, rows, budget).await?;
    }
    let names = link.lookups.names();
    for row in rows.iter_mut().filter(|row| row.is_open() && row.key.is_none()) {
        let map = &link.maps[row.map];
        let Some(flow) = map.flow(work.source.other()) else { continue };
        if row.source.is_empty() {
            // A delete of a row that was never paired.
            row.fate = Some(RowFate::Gone);
            continue;
        }
        if row.operation == Operation::Upsert && !flow.in_scope(&row.source) {
            // Whether it was carried over before is known when its key is.
            if work.dry || map.leaving_filter == LeavingFilter::Keep {
                row.fate = Some(RowFate::OutOfScope);
                continue;
            }
            row.left_filter = true;
        }
        if map.plan.company_specific {
            match flow.company(&row.source, &names).filter(|company| !company.is_empty()) {
                None => {
                    let what = format!("a row of {} names no company", map.side(work.source).table.schema.set);
                    row.called = Some(called(map, work.source, None, &row.source));
                    match row.operation {
                        Operation::Upsert if row.left_filter => row.fate = Some(RowFate::OutOfScope),
                        Operation::Upsert => row.fail(Fault::new(Code::CompanyUnknown, what)),
                        Operation::Delete => row.fate = Some(RowFate::Gone),
                    }
                    continue;
                }
                Some(company) => {
                    if !link.takes_company(map, &company) {
                        row.fate = Some(RowFate::OutOfScope);
                        continue;
                    }
                    row.company = Some(company);
                }
            }
        }
        match flow.key_in(row.company.as_deref(), &row.source, &names) {
            Ok(key) => {
                row.key = Some(key);
                if work.source == SystemKind::Finops {
                    row.identity = Identity::of_finops(map, &row.source);
                }
            }
            Err(fault) => {
                row.called = Some(called(map, work.source, row.company.as_deref(), &row.source));
                match row.operation {
                    Operation::Upsert if row.left_filter => row.fate = Some(RowFate::OutOfScope),
                    Operation::Upsert => row.fail(fault),
                    // What could not be named was never carried over.
                    Operation::Delete => row.fate = Some(RowFate::Gone),
                }
            }
        }
    }
    supersede(work.source, rows);
    Ok(())
}

/// As much of a row's key as the row itself says.
fn called(map: &LinkMap, source: SystemKind, company: Option<&str>, row: &[Value]) -> String {
    let schema = &map.side(source).table.schema;
    let parts = map
        .plan
        .key_fields
        .iter()
        .filter_map(|field| match source {
            SystemKind::Finops => field.finops.as_deref(),
            SystemKind::Dataverse => Some(&*field.dataverse),
        })
        .filter_map(|name| schema.index_of(name))
        .filter(|&index| Some(index) != schema.company)
        .map(|index| &row[index]);
    RowKey::new(company, parts).to_string()
}

/// Natural keys behind the ids that the rows hold.
async fn read_names(link: &Link, work: &Work<'_>, rows: &[RowWork], budget: &Budget) -> Result<(), Hold> {
    let mut by_map: HashMap<usize, Vec<&[Value]>> = HashMap::new();
    for row in rows.iter().filter(|row| row.is_open() && !row.source.is_empty()) {
        by_map.entry(row.map).or_default().push(&row.source);
    }
    for (map, rows) in by_map {
        let Some(flow) = link.maps[map].flow(work.source.other()) else { continue };
        let sources = link.sources(budget.before_write(std::time::Instant::now())?);
        link.lookups.read_names(&sources, &flow.names, &rows).await?;
    }
    Ok(())
}

/// A Dataverse delete says only the id; the cross reference knows whose it was.
async fn find_deleted(link: &Link, rows: &mut [RowWork], budget: &Budget) -> Result<(), Hold> {
    for (index, map) in link.maps.iter().enumerate() {
        let ids = rows
            .iter()
            .filter(|row| row.map == index && row.is_open() && row.source.is_empty())
            .filter_map(|row| row.source_id)
            .collect::<Vec<_>>();
        if ids.is_empty() {
            continue;
        }
        let mut known = link.store.cross_references_by_id(&link.scope, &map.slug, &ids).await?;
        for row in rows.iter_mut().filter(|row| row.map == index && row.source.is_empty()) {
            if let Some((key, base)) = row.source_id.and_then(|id| known.remove(&id)) {
                row.company = Some(key.company().to_owned()).filter(|company| !company.is_empty());
                row.key = Some(key);
                row.base = Some(base);
            }
        }
    }
    pass_over_revived(link, rows, budget).await
}

/// A delete does not say when it was. Where we wrote the row anew meanwhile, under its old id, because the other side
/// had changed it and wins, the delete is of the past.
async fn pass_over_revived(link: &Link, rows: &mut [RowWork], budget: &Budget) -> Result<(), Hold> {
    let mut found = Vec::new();
    {
        let deleted = rows.iter().enumerate().filter_map(|(index, row)| {
            let paired = row.base.as_ref().is_some_and(|base| !base.deleted);
            let is_delete = row.is_open() && row.operation == Operation::Delete && row.source.is_empty();
            Some((index, Address::Id(row.source_id.filter(|_| paired && is_delete)?)))
        });
        let deleted = deleted.collect::<Vec<_>>();
        if deleted.is_empty() {
            return Ok(());
        }
        let table = |index: usize| &*link.maps[rows[index].map].dataverse.table;
        let reads = deleted.iter().map(|(index, address)| (table(*index), address)).collect::<Vec<_>>();
        let timeout = budget.before_write(std::time::Instant::now())?;
        let stored = link.dataverse.read_rows(&reads, timeout).await?;
        // A row that is not given out is there all the same.
        let there = deleted.iter().zip(stored).filter(|(_, stored)| !matches!(stored, Ok(None)));
        found.extend(there.map(|((index, _), _)| *index));
    }
    for index in found {
        rows[index].fate = Some(RowFate::Superseded);
    }
    Ok(())
}

/// Of several changes of one row in one delivery only the last counts. A Dataverse feed tells how a row is now and which
/// ids are gone, not in which order: a key that is there again under another id was not deleted.
fn supersede(source: SystemKind, rows: &mut [RowWork]) {
    if source == SystemKind::Dataverse {
        let there = rows
            .iter()
            .filter(|row| row.is_open() && row.operation == Operation::Upsert)
            .filter_map(|row| Some((row.map, row.key.clone()?)))
            .collect::<HashSet<_>>();
        for row in rows.iter_mut().filter(|row| row.is_open() && row.operation == Operation::Delete) {
            if row.key.as_ref().is_some_and(|key| there.contains(&(row.map, key.clone()))) {
                row.fate = Some(RowFate::Superseded);
            }
        }
    }
    let mut seen = HashSet::with_capacity(rows.len());
    let open = rows.iter().enumerate().rev().filter(|(_, row)| row.is_open());
    let earlier = open.filter_map(|(index, row)| {
        // Two rows with one key are not two changes of one row.
        let again = !seen.insert((row.map, row.key.as_ref()?, row.identity.as_ref()));
        again.then_some(index)
    });
    for index in earlier.collect::<Vec<_>>() {
        rows[index].fate = Some(RowFate::Superseded);
    }
}

/// Attaches how each pair of rows was left, and ends what needs no work because of it: echoes, old changes, changes
/// that touch no mapped column.
pub(super) async fn recall(link: &Link, work: &Work<'_>, rows: &mut [RowWork], budget: &Budget) -> Result<(), Hold> {
    for (index, map) in link.maps.iter().enumerate() {
        let keys = rows
            .iter()
            .filter(|row| row.map == index && row.is_open() && row.base.is_none())
            .filter_map(|row| row.key.clone().filter(|_| !work.never_paired))
            .collect::<Vec<_>>();
        if keys.is_empty() {
            continue;
        }
        let mut known = link.store.cross_references(&link.scope, &map.slug, &keys).await?;
        for row in rows.iter_mut().filter(|row| row.map == index && row.is_open() && row.base.is_none()) {
            row.base = row.key.as_ref().and_then(|key| match row.identity {
                // Whoever has the same key is to be held against the same pair.
                Some(_) => known.get(key).cloned(),
                None => known.remove(key),
            });
        }
    }
    ownership::contend(link, work, rows, budget).await?;
    if !work.dry {
        for row in rows.iter_mut().filter(|row| row.is_open()) {
            let map = &link.maps[row.map];
            row.fate = known_fate(map, work, row).or_else(|| unpaired_fate(map, work, row));
            if row.left_filter && row.fate.is_none() {
                leave(map, row);
            }
        }
    }
    Ok(())
}

/// Attaches how a pair was left whose row is on the target although nothing was paired when the run began: it was
/// written since, by another page.
pub(super) async fn recall_one(link: &Link, row: &mut RowWork) -> Result<(), Hold> {
    if let (None, Some(key)) = (&row.base, &row.key) {
        let slug = &link.maps[row.map].slug;
        row.base = link.store.cross_references(&link.scope, slug, std::slice::from_ref(key)).await?.remove(key);
    }
    Ok(())
}

/// What a row outside the filter means for the row it was paired with.
fn leave(map: &LinkMap, row: &mut RowWork) {
    let paired = !row.takes_over && row.base.as_ref().is_some_and(|base| !base.deleted);
    match map.leaving_filter {
        LeavingFilter::Delete if paired => row.operation = Operation::Delete,
        LeavingFilter::Delete | LeavingFilter::Keep => row.fate = Some(RowFate::OutOfScope),
        LeavingFilter::Detach => {
            row.detached = paired;
            row.fate = Some(RowFate::OutOfScope);
        }
    }
}

fn known_fate(map: &LinkMap, work: &Work<'_>, row: &RowWork) -> Option<RowFate> {
    // What was left of the row that had the key before says nothing about this one.
    let base = row.base.as_ref().filter(|_| !row.takes_over)?;
    if work.order.is_some_and(|order| order < base.last_sequence) {
        return Some(RowFate::Superseded);
    }
    let origin = work.changes[row.change].origin;
    match row.operation {
        Operation::Delete if base.deleted || (origin.is_some() && origin == base.last_transaction) => {
            Some(RowFate::Echo)
        }
        // Our own delete, after which we wrote the row again.
        Operation::Delete if origin.is_some() => Some(RowFate::Superseded),
        Operation::Upsert if !base.deleted => {
            let (version, hash) = left(base, work.source);
            if is_version(version, row) {
                return (!work.again).then_some(RowFate::Echo);
            }
            // An image of an earlier write of ours, read after a later one.
            if origin.is_some() && origin != base.last_transaction {
                return Some(RowFate::Superseded);
            }
            let side = map.side(work.source);
            let now = content_hash(&side.table.schema, &side.columns, &row.source);
            // What no field fills does not count as content, so it is looked at.
            let plain = row.extra.is_empty() && row.references.is_empty();
            (hash == Some(now) && !work.again && plain).then_some(RowFate::Equal)
        }
        // An image of what we wrote before the row was deleted, read after that: it must not bring the row to life again.
        Operation::Upsert if origin.is_some() || is_version(left(base, work.source).0, row) => {
            Some(RowFate::Superseded)
        }
        Operation::Upsert | Operation::Delete => None,
    }
}

fn is_version(left: &str, row: &RowWork) -> bool {
    !left.is_empty() && *left == *row.source_version
}

/// A delete of a row that was never paired counts only when the map takes such rows at all.
fn unpaired_fate(map: &LinkMap, work: &Work<'_>, row: &RowWork) -> Option<RowFate> {
    let flow = map.flow(work.source.other())?;
    let foreign = row.base.is_none() && row.operation == Operation::Delete && !flow.in_scope(&row.source);
    foreign.then_some(RowFate::OutOfScope)
}

/// Version and content of one side as we last left it.
pub(super) const fn left(base: &CrossReference, side: SystemKind) -> (&Arc<str>, Option<[u8; 16]>) {
    match side {
        SystemKind::Finops => (&base.finops_version, base.finops_hash),
        SystemKind::Dataverse => (&base.dataverse_version, base.dataverse_hash),
    }
}
