//! What the target is to hold, what it holds, and so what has to be done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualwright_core::content::content_hash;
use dualwright_core::lookup::LookupKey;
use dualwright_core::plan::Flow;
use dualwright_core::reconcile::{Decision, reconcile};
use dualwright_core::{Code, Fault, Operation, RowKey, SystemKind, Value};

use uuid::Uuid;

use super::attempt::{Hold, Work};
use super::budget::Budget;
use super::identify::left;
use super::link::{Link, LinkMap, Role};
use super::placeholder;
use super::row::{RowFate, RowWork};
use super::table_map::is_unreal;
use crate::connect::Address;
use crate::store::CrossReference;

/// Built-in transforms: one value per field of the flow.
pub(super) fn project(link: &Link, work: &Work<'_>, rows: &mut [RowWork]) {
    let names = link.lookups.names();
    for row in rows.iter_mut().filter(|row| row.is_open() && !row.source.is_empty()) {
        let Some(flow) = link.maps[row.map].flow(work.source.other()) else { continue };
        match flow.project(&row.source, &names) {
            Ok(fields) => row.fields = fields,
            // A row that is to be deleted is found by its cross reference; its content does not matter.
            Err(_) if row.operation == Operation::Delete && row.base.is_some() => {}
            Err(fault) => row.fail(fault),
        }
    }
}

/// Resolves lookups, reads the target and decides for every row. Rows that refer to rows of the same delivery wait for
/// those, so this goes in waves.
pub(super) async fn decide(link: &Link, work: &Work<'_>, rows: &mut Vec<RowWork>, budget: &Budget) -> Result<(), Hold> {
    let target = work.source.other();
    for row in rows.iter_mut().filter(|row| row.is_open() && !row.fields.is_empty()) {
        let Some(flow) = link.maps[row.map].flow(target) else { continue };
        match flow.lookup_keys(&row.fields, row.company.as_deref()) {
            Ok(lookups) => row.lookups = lookups,
            Err(_) if row.operation == Operation::Delete => {}
            Err(fault) => row.fail(fault),
        }
    }
    placeholder::make(link, work, rows, budget).await?;
    let providers = providers(link, target, rows);
    let mut undecided = (0..rows.len()).filter(|&index| rows[index].is_open()).collect::<Vec<_>>();
    let mut depth = 0;
    // A wave decides one row at least, so there are never more waves than rows.
    while !undecided.is_empty() {
        let open = undecided.iter().copied().collect::<HashSet<_>>();
        let waits = |index: usize| {
            rows[index]
                .lookups
                .iter()
                .filter_map(|lookup| providers.get(&(Arc::clone(&lookup.set), lookup.key.clone())))
                .chain(rows[index].references.iter().map(|reference| &reference.row))
                .any(|provider| *provider != index && open.contains(provider))
        };
        let (mut later, mut wave): (Vec<_>, Vec<_>) = undecided.iter().copied().partition(|&index| waits(index));
        if wave.is_empty() {
            // A circle: whoever refers to a row that is not there yet fails, and is tried again when it has arrived.
            wave = std::mem::take(&mut later);
        }
        decide_wave(link, work, rows, &wave, &providers, budget).await?;
        for &index in &wave {
            rows[index].depth = depth;
            rank(link, rows, index, &providers);
        }
        depth += 1;
        undecided = later;
    }
    Ok(())
}

/// A row that refers to one of a later map comes after it all the same.
fn rank(link: &Link, rows: &mut [RowWork], index: usize, providers: &Providers) {
    let map = &link.maps[rows[index].map];
    let turned = |flow: &Flow| !map.placeholders.is_empty() || flow.lookups.iter().any(|slot| slot.late);
    if !map.plan.to_dataverse.as_ref().is_some_and(turned) {
        return;
    }
    let parents = rows[index]
        .lookups
        .iter()
        .filter_map(|lookup| providers.get(&(Arc::clone(&lookup.set), lookup.key.clone())))
        .filter(|&&parent| parent != index && !matches!(rows[parent].fate, Some(RowFate::Failed(_))));
    let after = |parent: usize| rows[parent].rank + u32::from(rows[parent].map > rows[index].map);
    rows[index].rank = parents.map(|&parent| after(parent)).max().unwrap_or_default();
}

type Providers = HashMap<(Arc<str>, RowKey), usize>;

/// The rows of this delivery that others may refer to.
pub(super) fn providers(link: &Link, target: SystemKind, rows: &[RowWork]) -> Providers {
    if target == SystemKind::Finops {
        // F&O refers by natural keys, which need no row to be there first for us to write them.
        return HashMap::new();
    }
    rows.iter()
        .enumerate()
        .filter(|(_, row)| row.is_open() && row.operation == Operation::Upsert)
        .filter_map(|(index, row)| {
            let set = Arc::clone(&link.maps[row.map].dataverse.table.schema.set);
            Some(((set, row.key.clone()?), index))
        })
        .collect()
}

async fn decide_wave(
    link: &Link,
    work: &Work<'_>,
    rows: &mut [RowWork],
    wave: &[usize],
    providers: &Providers,
    budget: &Budget,
) -> Result<(), Hold> {
    let target = work.source.other();
    for (map_index, map) in link.maps.iter().enumerate() {
        let own = wave.iter().copied().filter(|&index| rows[index].map == map_index).collect::<Vec<_>>();
        if own.is_empty() {
            continue;
        }
        let Some(flow) = map.flow(target) else { continue };
        // Rows provided by this delivery answer for themselves; the rest is looked up together.
        let mut asked = Vec::new();
        for &index in &own {
            for lookup in &rows[index].lookups {
                if provided(providers, rows, index, lookup).is_none() {
                    asked.push(lookup);
                }
            }
        }
        let found = if asked.is_empty() {
            HashMap::new()
        } else {
            let sources = link.sources(budget.before_write(Instant::now())?);
            link.lookups.ids(&sources, &flow.lookups, &asked).await?
        };
        for &index in &own {
            if rows[index].fields.is_empty() {
                rows[index].address = known_address(map, target, &rows[index]);
                continue;
            }
            let row = &rows[index];
            let creating = row.base.as_ref().is_none_or(|base| base.deleted);
            let ids = |lookup: &LookupKey| {
                provided(providers, rows, index, lookup)
                    .or_else(|| found.get(&(Arc::clone(&lookup.set), lookup.key.clone())).copied())
            };
            let finished = flow.finish(&row.fields, row.company.as_deref(), &ids, creating);
            let finished = match finished {
                Err(faults) if !work.dry => {
                    let lacking = Lacking { flow, rows, wave, providers, index, creating };
                    lacking.finish(faults, &ids)
                }
                finished => finished.map(|values| (values, None)),
            };
            let sets = sets_of(flow, row, &ids);
            finish_row(map, flow, target, &mut rows[index], finished);
            rows[index].sets = sets;
        }
    }
    if !work.dry {
        for &index in wave {
            refer(link, rows, index);
        }
    }
    read_current(link, work, rows, wave, budget).await?;
    for &index in wave {
        if work.dry {
            let id = rows[index].current.as_ref().and_then(|current| current.id);
            rows[index].address = id.map(Address::Id).or(rows[index].address.take());
        } else if rows[index].is_open() {
            settle_on(link, work, &mut rows[index]);
        }
    }
    Ok(())
}

/// A row whose references do not all lead to rows.
struct Lacking<'a> {
    flow: &'a Flow,
    rows: &'a [RowWork],
    wave: &'a [usize],
    providers: &'a Providers,
    index: usize,
    creating: bool,
}

/// What a row is to hold, and which reference it lacks for now.
type Finished = Result<(Vec<Value>, Option<Fault>), Vec<Fault>>;

impl Lacking<'_> {
    /// A row that only lacks references which close a circle is written without them and waits for the rest.
    fn finish(&self, mut faults: Vec<Fault>, ids: &dyn Fn(&LookupKey) -> Option<Uuid>) -> Finished {
        let mut left_out = Vec::with_capacity(faults.len());
        for fault in &mut faults {
            left_out.push(self.late_slot(fault));
        }
        let row = &self.rows[self.index];
        let late = left_out.into_iter().collect::<Option<Vec<_>>>();
        let Some(late) = late.filter(|_| row.operation == Operation::Upsert) else { return Err(faults) };
        let company = row.company.as_deref();
        let values = self.flow.finish_without(&late, &row.fields, company, ids, self.creating)?;
        let mut fault = faults.swap_remove(0);
        fault.message.push_str("; the record was written without it, and gets it when that row is there");
        Ok((values, Some(fault)))
    }

    /// The slot that a fault is about, if the row can do without it for now.
    fn late_slot(&self, fault: &mut Fault) -> Option<usize> {
        if !matches!(fault.code, Code::LookupNotFound | Code::LookupRefused) {
            return None;
        }
        let name = fault.column.as_deref()?;
        let slot = self.flow.lookups.iter().position(|slot| slot.name() == name)?;
        let mut late = self.flow.lookups[slot].late && fault.code == Code::LookupNotFound;
        for lookup in self.rows[self.index].lookups.iter().filter(|lookup| lookup.slot == slot) {
            let Some(&parent) = self.providers.get(&(Arc::clone(&lookup.set), lookup.key.clone())) else { continue };
            // It is in this very delivery, and only the circle keeps it from coming first.
            if parent == self.index || self.wave.contains(&parent) {
                fault.code = Code::LookupNotFound;
                late = true;
            }
            let parent = &self.rows[parent];
            if let (Some(_), Some(RowFate::Failed(why))) = (&parent.stands_in_for, &parent.fate) {
                fault.message = format!("{}, and no placeholder can be made of it: {why}", fault.message);
                return None;
            }
        }
        (late && self.flow.can_come_late(slot)).then_some(slot)
    }
}

/// Puts the ids of the rows that this one refers to into what is written.
fn refer(link: &Link, rows: &mut [RowWork], index: usize) {
    for reference in std::mem::take(&mut rows[index].references) {
        let to = &rows[reference.row];
        let id = match to.fate {
            Some(RowFate::Failed(_)) => None,
            _ => to.target_id().or_else(|| to.base.as_ref().and_then(|base| base.dataverse_id)),
        };
        match id {
            Some(id) => {
                let set = Arc::clone(&link.maps[to.map].dataverse.table.schema.set);
                rows[index].sets.push((reference.column, set));
                rows[index].extra.push((reference.column, Value::Guid(id)));
            }
            None if rows[index].is_open() => {
                let what = format!("it refers to record {} of map {}", to.readable_key(), link.maps[to.map].slug);
                rows[index].fail(Fault::new(Code::LookupNotFound, format!("{what}, which is not there")));
            }
            None => {}
        }
    }
}

/// The tables that the polymorphic lookups of a row lead to, by column.
fn sets_of(flow: &Flow, row: &RowWork, ids: &dyn Fn(&LookupKey) -> Option<Uuid>) -> Vec<(usize, Arc<str>)> {
    let sets = flow.polymorphic_sets(&row.fields, row.company.as_deref(), ids);
    sets.into_iter().map(|(position, set)| (flow.target_columns[position], set)).collect()
}

/// The target says that something is not there that a row names. Perhaps it is one of the rows that it refers to: somebody
/// deleted that one, and may have made it anew. Every reference is asked for again, of the system itself. Inside: what the
/// row lacks now.
pub(super) async fn refer_anew(
    link: &Link,
    work: &Work<'_>,
    rows: &mut [RowWork],
    index: usize,
    budget: &Budget,
) -> Result<Result<(), Fault>, Hold> {
    let target = work.source.other();
    let providers = providers(link, target, rows);
    let asked = rows[index]
        .lookups
        .iter()
        .filter(|lookup| provided(&providers, rows, index, lookup).is_none())
        .cloned()
        .collect::<Vec<_>>();
    let Some(flow) = link.maps[rows[index].map].flow(target).filter(|_| !asked.is_empty()) else { return Ok(Ok(())) };
    let sources = link.sources(budget.for_write(Instant::now())?);
    let found = link.lookups.ids_anew(&sources, &asked).await?;
    let row = &rows[index];
    let ids = |lookup: &LookupKey| {
        provided(&providers, rows, index, lookup)
            .or_else(|| found.get(&(Arc::clone(&lookup.set), lookup.key.clone())).copied())
    };
    let creating = matches!(row.decision, Some(Decision::Create));
    let finished = flow.finish(&row.fields, row.company.as_deref(), &ids, creating).map(|values| (values, None));
    let finished = finished.or_else(|faults| {
        Lacking { flow, rows, wave: &[], providers: &providers, index, creating }.finish(faults, &ids)
    });
    Ok(match finished {
        Ok((values, lacking)) => {
            let sets = sets_of(flow, row, &ids);
            // References to rows of the same delivery keep theirs.
            let kept = std::mem::take(&mut rows[index].sets);
            let kept = kept.into_iter().filter(|(column, _)| !sets.iter().any(|(own, _)| own == column));
            rows[index].sets = kept.chain(sets.iter().cloned()).collect();
            rows[index].values = values;
            rows[index].complaint = lacking;
            Ok(())
        }
        Err(mut faults) => Err(faults.swap_remove(0)),
    })
}

fn provided(providers: &Providers, rows: &[RowWork], asking: usize, lookup: &LookupKey) -> Option<Uuid> {
    let provider = *providers.get(&(Arc::clone(&lookup.set), lookup.key.clone()))?;
    let row = &rows[provider];
    (provider != asking && !matches!(row.fate, Some(RowFate::Failed(_)))).then(|| row.target_id()).flatten()
}

fn finish_row(map: &LinkMap, flow: &Flow, target: SystemKind, row: &mut RowWork, finished: Finished) {
    match finished {
        Ok((values, lacking)) => {
            row.values = values;
            row.complaint = lacking;
            row.address = known_address(map, target, row)
                .or_else(|| Some(Address::Key(flow.target_key(&row.fields, &row.values, row.company.as_deref()))));
            let paired = row.base.as_ref().filter(|base| !base.deleted).and_then(|base| base.finops_key.as_ref());
            if let (SystemKind::Finops, Some(paired), Some(Address::Key(pairs))) = (target, paired, &row.address)
                && *paired != RowKey::new(None, pairs.iter().map(|(_, value)| value))
            {
                let what = format!("it is paired with record {paired} of {target}, whose key it would change");
                row.fail(Fault::new(Code::Immutable, what));
            }
        }
        Err(_) if row.operation == Operation::Delete => row.address = known_address(map, target, row),
        Err(mut faults) => {
            let more = faults.len().saturating_sub(1);
            let mut fault = faults.swap_remove(0);
            if more > 0 {
                fault.message = format!("{} (and {more} more problems of this record)", fault.message);
            }
            row.fail(fault);
        }
    }
}

/// Where the target row is, as far as the cross reference says.
fn known_address(map: &LinkMap, target: SystemKind, row: &RowWork) -> Option<Address> {
    let base = row.base.as_ref().filter(|base| !base.deleted)?;
    match target {
        SystemKind::Dataverse => base.dataverse_id.map(Address::Id),
        SystemKind::Finops => map.plan.finops_key(&map.finops.table.schema, row.key.as_ref()?).map(Address::Key),
    }
}

/// Reads what the target holds of these rows.
async fn read_current(
    link: &Link,
    work: &Work<'_>,
    rows: &mut [RowWork],
    wave: &[usize],
    budget: &Budget,
) -> Result<(), Hold> {
    let asked = wave
        .iter()
        .copied()
        .filter(|&index| rows[index].is_open())
        .filter(|&index| !is_unreal(&link.maps[rows[index].map], work.source.other()))
        .filter(|&index| match &rows[index].base {
            None => !work.assume_absent,
            // In thought, the cross reference already says which row it is.
            Some(_) => !work.dry,
        })
        .collect::<Vec<_>>();
    read_rows(link, work, rows, &asked, budget.before_write(Instant::now())?).await
}

/// Reads these rows of the target by their addresses, into `current`.
pub(super) async fn read_rows(
    link: &Link,
    work: &Work<'_>,
    rows: &mut [RowWork],
    asked: &[usize],
    timeout: Duration,
) -> Result<(), Hold> {
    let target = work.source.other();
    let mut found = Vec::with_capacity(asked.len());
    {
        let reads = asked
            .iter()
            .filter_map(|&index| {
                let address = rows[index].address.as_ref()?;
                Some((index, (&*link.maps[rows[index].map].side(target).table, address)))
            })
            .collect::<Vec<_>>();
        if reads.is_empty() {
            return Ok(());
        }
        let only = reads.iter().map(|(_, read)| *read).collect::<Vec<_>>();
        let current = link.system(target).read_rows(&only, timeout).await?;
        found.extend(reads.iter().map(|(index, _)| *index).zip(current));
    }
    for (index, current) in found {
        match current {
            Ok(current) => rows[index].current = current,
            Err(fault) => rows[index].fail(fault),
        }
    }
    Ok(())
}

/// Decides for one row, whose `current` is what the target holds.
pub(super) fn settle_on(link: &Link, work: &Work<'_>, row: &mut RowWork) {
    let target = work.source.other();
    let map = &link.maps[row.map];
    let side = map.side(target);
    let schema = &side.table.schema;
    // The rows of a table map are nowhere on F&O either, and stand for nothing.
    let is_placeholder = |base: &CrossReference| map.role == Role::Ordinary && base.is_placeholder();
    let changed = row.base.as_ref().zip(row.current.as_ref()).is_some_and(|(base, current)| {
        let (version, hash) = left(base, target);
        // What was done to a placeholder counts less than the real row.
        let yields = work.source == SystemKind::Finops && is_placeholder(base);
        !base.deleted
            && !yields
            && **version != *current.version
            && hash.is_some_and(|hash| hash != content_hash(schema, &side.columns, &current.values))
    });
    let source_wins = link.conflict_winner == work.source;
    if let (Some(current), SystemKind::Dataverse) = (&row.current, target)
        && let Some(id) = current.id
    {
        row.address = Some(Address::Id(id));
    }
    if row.stands_in_for.is_some() && row.current.is_some() {
        // Somebody else was faster.
        row.fate = Some(RowFate::Equal);
        return;
    }
    if row.operation == Operation::Delete {
        match &row.current {
            None => row.fate = Some(RowFate::Gone),
            Some(_) if changed && !source_wins => row.fate = Some(RowFate::Yielded),
            Some(_) => row.conflicting = changed,
        }
        return;
    }
    // A delete against a change: whose side wins. Only where the pair was there; a row that never was is created.
    let was_never_there = |base: &CrossReference| target == SystemKind::Finops && is_placeholder(base);
    let was_there = |base: &CrossReference| !base.deleted && !was_never_there(base);
    let deleted = row.current.is_none() && row.base.as_ref().is_some_and(was_there);
    if deleted && !source_wins {
        row.fate = Some(RowFate::Yielded);
        return;
    }
    let Some(flow) = map.flow(target) else { return };
    let current = row.current.as_ref().map(|current| current.values.as_slice());
    let decision = match reconcile(schema, &flow.target_columns, &row.values, current, changed, source_wins) {
        Decision::Equal if row.differing_extra(schema).next().is_none() => Decision::Equal,
        Decision::Equal if changed && !source_wins => Decision::Yield,
        Decision::Equal => Decision::Update { changed: Vec::new() },
        other => other,
    };
    row.conflicting = matches!(decision, Decision::Update { .. }) && changed || deleted;
    match &decision {
        Decision::Equal => row.fate = Some(RowFate::Equal),
        Decision::Yield => row.fate = Some(RowFate::Yielded),
        Decision::Create => match (target, &row.key) {
            (SystemKind::Dataverse, Some(key)) => row.address = Some(Address::Id(map.new_id(&link.scope, key))),
            (SystemKind::Dataverse, None) => {
                row.fail(Fault::new(Code::Internal, "a row without a key was to be created"));
            }
            // In the spelling of its source: the cross reference knows a key without regard to case.
            (SystemKind::Finops, _) => row.address = address_by_key(link, work, row).or(row.address.take()),
        },
        Decision::Update { .. } => {}
    }
    row.decision = Some(decision);
}

/// The address by key, for a row whose id was ours to choose and turned out to be somebody else's.
pub(super) fn address_by_key(link: &Link, work: &Work<'_>, row: &RowWork) -> Option<Address> {
    let flow = link.maps[row.map].flow(work.source.other())?;
    (!row.values.is_empty()).then(|| Address::Key(flow.target_key(&row.fields, &row.values, row.company.as_deref())))
}
