//! Whose key it is: of two rows of one side with the same integration key, the pair belongs to the one that had the key
//! first. The other one is a failed record, and stays out of the way, until one of the keys is corrected.
//!
//! Owns the comparison of rows by what identifies them on their own side: the id of a Dataverse row, the entity's own key
//! of an F&O row. F&O rows whose integration key holds the entity's own key cannot be mistaken and cost nothing here.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dualwright_core::plan::MapPlan;
use dualwright_core::{Code, Fault, Operation, RowKey, SystemKind, Value};
use uuid::Uuid;

use super::attempt::{Hold, Work};
use super::budget::Budget;
use super::link::{Link, LinkMap, Role};
use super::row::{RowFate, RowWork};
use crate::connect::Address;
use crate::store::CrossReference;

/// What identifies a row on its own side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The own key of an F&O entity.
    Entity(RowKey),
    /// The id of a Dataverse row.
    Id(Uuid),
}

impl Identity {
    /// Of an F&O row, where the integration key does not say it.
    pub(super) fn of_finops(map: &LinkMap, row: &[Value]) -> Option<Self> {
        // Which rows a plugin makes, and how they share keys, is the plugin's business.
        let matters = !map.plan.key_complete && !matches!(map.role, Role::Target(_));
        matters.then(|| Self::Entity(MapPlan::entity_key(&map.finops.table.schema, row)))
    }

    /// Names the failed record of a row that may not have its key: not the name of any other row's.
    #[must_use]
    pub fn record_key(&self) -> RowKey {
        // No company and no key begins with a control character.
        match self {
            Self::Entity(key) => RowKey::from_stored(&format!("\u{1e}{}", key.as_str())),
            Self::Id(id) => RowKey::from_stored(&format!("\u{1e}{id}")),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entity(key) => key.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// Keys that rows of deliveries under way have taken and of which the store does not know yet: pages of an initial sync
/// are carried at the same time.
#[derive(Debug, Default)]
pub struct Claims(Mutex<HashMap<(usize, RowKey), Identity>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashMap<(usize, RowKey), Identity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a key for a row, or says who has it.
    fn take(&self, map: usize, key: &RowKey, identity: &Identity) -> Result<(), Identity> {
        match self.lock().entry((map, key.clone())) {
            Entry::Vacant(free) => {
                free.insert(identity.clone());
                Ok(())
            }
            Entry::Occupied(taken) if taken.get() == identity => Ok(()),
            Entry::Occupied(taken) => Err(taken.get().clone()),
        }
    }

    fn holder(&self, map: usize, key: &RowKey) -> Option<Identity> {
        self.lock().get(&(map, key.clone())).cloned()
    }

    /// Gives back what rows have taken that did not arrive.
    pub(super) fn give_back(&self, rows: &[RowWork]) {
        let failed = rows.iter().filter(|row| matches!(row.fate, Some(RowFate::Failed(_))) && row.identity.is_some());
        for row in failed {
            let Some(key) = &row.key else { continue };
            let mut claims = self.lock();
            if claims.get(&(row.map, key.clone())) == row.identity.as_ref() {
                claims.remove(&(row.map, key.clone()));
            }
        }
    }

    /// Forgets all of them. Only when everything that was under way is in the store.
    pub fn settled(&self) {
        self.lock().clear();
    }
}

/// Rows of one map with one key.
struct Group {
    map: usize,
    key: RowKey,
    /// In the order of the delivery.
    rows: Vec<usize>,
}

/// Who may go on with a key.
enum Holder {
    /// One of the rows.
    Row(usize),
    /// A row that is not in this delivery.
    Other(Identity),
    /// Nobody of the rows wants it: there is nothing to decide.
    Nobody,
}

/// Lets one row have each key. The bases of the rows are attached already.
pub(super) async fn contend(link: &Link, work: &Work<'_>, rows: &mut [RowWork], budget: &Budget) -> Result<(), Hold> {
    let mut by_key: BTreeMap<(usize, RowKey), Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        if let (true, Some(key), Some(_)) = (row.is_open(), &row.key, &row.identity) {
            by_key.entry((row.map, key.clone())).or_default().push(index);
        }
    }
    if by_key.is_empty() {
        return Ok(());
    }
    let mut doubtful = Vec::new();
    for ((map, key), own) in by_key {
        let group = Group { map, key, rows: own };
        note_heirs(rows, &group, work.source);
        match holder(link, work, rows, &group) {
            Holder::Row(index) => leave_to(link, work, rows, &group, Some(index), None),
            Holder::Other(owner) => doubtful.push((group, owner)),
            Holder::Nobody => {}
        }
    }
    let there = are_there(link, work, &doubtful, budget).await?;
    for ((group, owner), there) in doubtful.into_iter().zip(there) {
        let heir = group.rows.iter().copied().find(|&index| rows[index].operation == Operation::Upsert);
        let heir = heir.filter(|_| !there);
        if let Some(heir) = heir {
            rows[heir].takes_over = true;
        }
        leave_to(link, work, rows, &group, heir, Some(owner));
    }
    refuse_changed_keys(link, work, rows).await
}

/// Where the pair was deleted, what is known of it is not of a row that has the key now.
fn note_heirs(rows: &mut [RowWork], group: &Group, side: SystemKind) {
    for &index in &group.rows {
        let row = &mut rows[index];
        let before = row.base.as_ref().filter(|base| base.deleted).and_then(|base| identity(base, side));
        row.takes_over |= before.is_some() && before != row.identity;
    }
}

/// The row that a pair belongs to, or belonged to, on this side.
fn identity(base: &CrossReference, side: SystemKind) -> Option<Identity> {
    match side {
        SystemKind::Finops => base.finops_key.clone().map(Identity::Entity),
        SystemKind::Dataverse => base.dataverse_id.map(Identity::Id),
    }
}

fn holder(link: &Link, work: &Work<'_>, rows: &mut [RowWork], group: &Group) -> Holder {
    let upsert_but = |rows: &[RowWork], but: Option<usize>| {
        group.rows.iter().copied().find(|&at| Some(at) != but && rows[at].operation == Operation::Upsert)
    };
    let base = rows[group.rows[0]].base.as_ref();
    let owner = match base {
        Some(base) => identity(base, work.source).filter(|_| !base.deleted),
        None => link.claims.holder(group.map, &group.key),
    };
    let Some(owner) = owner else { return upsert_but(rows, None).map_or(Holder::Nobody, Holder::Row) };
    match group.rows.iter().copied().find(|&at| rows[at].identity.as_ref() == Some(&owner)) {
        None => Holder::Other(owner),
        Some(own) if rows[own].operation == Operation::Upsert => Holder::Row(own),
        // The owner goes, and another row comes in its place.
        Some(own) => match upsert_but(rows, Some(own)) {
            None => Holder::Row(own),
            Some(heir) => {
                rows[own].fate = Some(RowFate::Superseded);
                rows[heir].takes_over = true;
                Holder::Row(heir)
            }
        },
    }
}

/// One row goes on, the others do not.
fn leave_to(
    link: &Link,
    work: &Work<'_>,
    rows: &mut [RowWork],
    group: &Group,
    mut holder: Option<usize>,
    mut owner: Option<Identity>,
) {
    if let Some(index) = holder
        && !work.dry
        && rows[index].operation == Operation::Upsert
        && let Some(identity) = &rows[index].identity
        && let Err(other) = link.claims.take(group.map, &group.key, identity)
    {
        (holder, owner) = (None, Some(other));
    }
    let own = holder.and_then(|index| rows[index].identity.clone());
    let Some(owner) = own.or(owner) else { return };
    for &index in &group.rows {
        let row = &mut rows[index];
        if Some(index) != holder && row.is_open() {
            let what = format!("{owner} has the integration key {} too, and had it first", group.key);
            refuse(row, Code::KeyAmbiguous, what);
        }
    }
}

/// A row that may not have its key: it fails, or goes without having been carried over.
fn refuse(row: &mut RowWork, code: Code, what: String) {
    row.base = None;
    row.takes_over = false;
    if let (Some(key), Some(identity)) = (row.key.take(), &row.identity) {
        row.called = Some(format!("{key} ({identity})"));
    }
    match row.operation {
        Operation::Upsert => row.fail(Fault::new(code, what)),
        Operation::Delete => row.fate = Some(RowFate::Gone),
    }
}

/// Whether the owners still have these keys, as their system itself says.
async fn are_there(
    link: &Link,
    work: &Work<'_>,
    doubtful: &[(Group, Identity)],
    budget: &Budget,
) -> Result<Vec<bool>, Hold> {
    // An owner that cannot be asked for, or that the system does not show, is taken to be there.
    let mut there = vec![true; doubtful.len()];
    let mut asked = Vec::new();
    for (position, (group, owner)) in doubtful.iter().enumerate() {
        let schema = &link.maps[group.map].side(work.source).table.schema;
        let address = match owner {
            Identity::Id(id) => Some(Address::Id(*id)),
            Identity::Entity(key) => MapPlan::entity_key_pairs(schema, key).map(Address::Key),
        };
        asked.extend(address.map(|address| (position, address)));
    }
    if asked.is_empty() {
        return Ok(there);
    }
    let table = |position: usize| &*link.maps[doubtful[position].0.map].side(work.source).table;
    let reads = asked.iter().map(|(position, address)| (table(*position), address)).collect::<Vec<_>>();
    let stored = link.system(work.source).read_rows(&reads, budget.before_write(Instant::now())?).await?;
    for ((position, _), stored) in asked.iter().zip(stored) {
        let Ok(stored) = stored else { continue };
        let group = &doubtful[*position].0;
        let (Some(stored), Some(flow)) = (stored, link.maps[group.map].flow(work.source.other())) else {
            there[*position] = false;
            continue;
        };
        let sources = link.sources(budget.before_write(Instant::now())?);
        link.lookups.read_names(&sources, &flow.names, &[&stored.values]).await?;
        let key = flow.key(&stored.values, &link.lookups.names()).ok();
        there[*position] = flow.in_scope(&stored.values) && key.as_ref() == Some(&group.key);
    }
    Ok(there)
}

/// A row that is paired under another key had its key changed, which would leave its other row behind without one.
async fn refuse_changed_keys(link: &Link, work: &Work<'_>, rows: &mut [RowWork]) -> Result<(), Hold> {
    if work.dry {
        return Ok(());
    }
    for (map_index, map) in link.maps.iter().enumerate() {
        let new = (0..rows.len())
            .filter(|&at| rows[at].map == map_index && rows[at].is_open() && rows[at].operation == Operation::Upsert)
            .filter(|&at| rows[at].identity.is_some() && rows[at].base.as_ref().is_none_or(|base| base.deleted))
            .collect::<Vec<_>>();
        if new.is_empty() {
            continue;
        }
        let paired = match work.source {
            SystemKind::Dataverse => {
                let ids = new.iter().filter_map(|&at| rows[at].source_id).collect::<Vec<_>>();
                let known = link.store.cross_references_by_id(&link.scope, &map.slug, &ids).await?;
                known.into_iter().map(|(id, pair)| (Identity::Id(id), pair)).collect::<HashMap<_, _>>()
            }
            SystemKind::Finops => {
                let keys = new.iter().filter_map(|&at| match &rows[at].identity {
                    Some(Identity::Entity(key)) => Some(key.clone()),
                    _ => None,
                });
                let keys = keys.collect::<Vec<_>>();
                let known = link.store.cross_references_by_finops_key(&link.scope, &map.slug, &keys).await?;
                known.into_iter().map(|(key, pair)| (Identity::Entity(key), pair)).collect()
            }
        };
        for at in new {
            let before = rows[at].identity.as_ref().and_then(|identity| paired.get(identity));
            if let Some((before, _)) = before.filter(|(key, pair)| !pair.deleted && rows[at].key.as_ref() != Some(key))
            {
                let what = format!("it is paired as record {before} and has another key now");
                refuse(&mut rows[at], Code::Immutable, what);
            }
        }
    }
    Ok(())
}
