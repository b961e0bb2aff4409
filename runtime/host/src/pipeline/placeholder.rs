//! Rows that stand for others: where a map says so, a row that is referred to and is nowhere is made of its key, in the
//! same change set as the row that needs it.
//!
//! A placeholder is a row of the map that writes its table, and its cross reference says that F&O has none of it yet. So
//! it comes back as an echo, the real row fills it whatever was done to it meanwhile, and what a user of Dataverse makes of
//! it goes to F&O as a new row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use dualwright_core::lookup::LookupKey;
use dualwright_core::{Operation, RowKey, SystemKind};

use super::attempt::{Hold, Work};
use super::budget::Budget;
use super::link::{Link, Role};
use super::row::RowWork;
use super::target;
use crate::store::CrossReference;

/// A placeholder may need another one for its own key. The keys of the shipped maps are nested three deep.
const DEPTH_MAX: usize = 5;

/// Adds the rows that `rows` refer to, and that are nowhere, to `rows`. Their lookup keys are known.
pub(super) async fn make(link: &Link, work: &Work<'_>, rows: &mut Vec<RowWork>, budget: &Budget) -> Result<(), Hold> {
    if work.dry || work.source != SystemKind::Finops || link.maps.iter().all(|map| map.placeholders.is_empty()) {
        return Ok(());
    }
    let mut first = 0;
    for _ in 0..DEPTH_MAX {
        let before = rows.len();
        let wanted = wanted(link, rows, first, budget).await?;
        if wanted.is_empty() {
            return Ok(());
        }
        let mut bases = bases(link, &wanted).await?;
        for (child, key) in wanted {
            let base = bases.remove(&(Arc::clone(&key.set), key.key.clone()));
            rows.extend(row(link, rows, child, &key, base));
        }
        first = before;
    }
    Ok(())
}

/// Rows from `first` that refer to a row which is nowhere, once for each such row.
async fn wanted(link: &Link, rows: &[RowWork], first: usize, budget: &Budget) -> Result<Vec<(usize, LookupKey)>, Hold> {
    let providers = target::providers(link, SystemKind::Dataverse, rows);
    let mut wanted = Vec::new();
    let mut known = HashSet::new();
    for (position, map) in link.maps.iter().enumerate().filter(|(_, map)| !map.placeholders.is_empty()) {
        let Some(flow) = &map.plan.to_dataverse else { continue };
        let mut asked = Vec::new();
        let own = rows.iter().enumerate().skip(first);
        for (index, row) in own.filter(|(_, row)| row.map == position && row.is_open()) {
            let stands = row.operation == Operation::Upsert;
            for lookup in row.lookups.iter().filter(|_| stands) {
                let makes = map.placeholders[lookup.slot].as_ref().is_some_and(|made| made.set == lookup.set);
                if makes && !providers.contains_key(&(Arc::clone(&lookup.set), lookup.key.clone())) {
                    asked.push((index, lookup));
                }
            }
        }
        if asked.is_empty() {
            continue;
        }
        // A polymorphic reference that leads somewhere needs no placeholder, wherever that is.
        let others = asked
            .iter()
            .flat_map(|(index, lookup)| rows[*index].lookups.iter().filter(|other| other.slot == lookup.slot));
        let keys = others.collect::<Vec<_>>();
        let sources = link.sources(budget.before_write(Instant::now())?);
        let found = link.lookups.ids(&sources, &flow.lookups, &keys).await?;
        for (index, lookup) in asked {
            let leads = rows[index].lookups.iter().filter(|other| other.slot == lookup.slot).any(|other| {
                let name = (Arc::clone(&other.set), other.key.clone());
                found.contains_key(&name) || providers.contains_key(&name)
            });
            if !leads && known.insert((Arc::clone(&lookup.set), lookup.key.clone())) {
                wanted.push((index, lookup.clone()));
            }
        }
    }
    Ok(wanted)
}

/// What was left of rows that were there once.
async fn bases(
    link: &Link,
    wanted: &[(usize, LookupKey)],
) -> Result<HashMap<(Arc<str>, RowKey), CrossReference>, Hold> {
    let mut bases = HashMap::new();
    for map in link.maps.iter().filter(|map| map.role == Role::Ordinary) {
        let set = &map.dataverse.table.schema.set;
        let keys = wanted.iter().filter(|(_, key)| key.set == *set).map(|(_, key)| key.key.clone()).collect::<Vec<_>>();
        if !keys.is_empty() {
            let known = link.store.cross_references(&link.scope, &map.slug, &keys).await?;
            bases.extend(known.into_iter().map(|(key, base)| ((Arc::clone(set), key), base)));
        }
    }
    Ok(bases)
}

/// The placeholder for one row; `None` where the map that would make it does not carry its company.
fn row(link: &Link, rows: &[RowWork], child: usize, key: &LookupKey, base: Option<CrossReference>) -> Option<RowWork> {
    let made = link.maps[rows[child].map].placeholders.get(key.slot)?.as_ref()?;
    let map = &link.maps[made.map];
    let flow = map.plan.to_dataverse.as_ref()?;
    let company = key.key.company();
    if map.plan.company_specific && !link.takes_company(map, company) {
        return None;
    }
    let mut row = RowWork::new(rows[child].change, made.map, Operation::Upsert);
    row.stands_in_for = Some(rows[child].readable_key().into());
    row.key = Some(key.key.clone());
    row.company = map.plan.company_specific.then(|| company.to_owned());
    row.fields = flow.placeholder(key, &made.columns);
    row.base = base;
    match flow.lookup_keys(&row.fields, row.company.as_deref()) {
        Ok(lookups) => row.lookups = lookups,
        Err(fault) => row.fail(fault),
    }
    Some(row)
}
