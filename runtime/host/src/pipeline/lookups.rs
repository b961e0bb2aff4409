//! Ids behind natural keys, and natural keys behind ids, for a whole delivery at a time.
//!
//! Owns the caches and the order of the places to look: what this delivery creates, what was found before, the cross
//! reference, the system itself. Keys of rows are immutable (reference 1.8, rule 5), so what was found stays true
//! until a row is deleted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dualwright_core::lookup::{LookupKey, LookupNames, LookupSlot, NameSlot, NameTarget};
use dualwright_core::{Fault, RowKey, Value};
use uuid::Uuid;

use crate::connect::{Address, System, Table};
use crate::store::{Scope, Store};

/// A row of a Dataverse table by its natural key.
type RowName = (Arc<str>, RowKey);

/// Entries kept before a cache is emptied: some 100 bytes each, and far more than a link has parents.
const ENTRIES_MAX: usize = 1_000_000;

/// What was found before.
#[derive(Debug, Default)]
pub struct Lookups {
    ids: Mutex<HashMap<RowName, Uuid>>,
    nested: Mutex<HashMap<(Arc<str>, String), Uuid>>,
    names: Mutex<HashMap<(Uuid, String), Value>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a search needs besides the caches.
pub struct Sources<'a> {
    pub scope: &'a Scope,
    pub store: &'a Store,
    pub dataverse: &'a System,
    /// Tables that lookups point to, with their key columns.
    pub tables: &'a HashMap<Arc<str>, Arc<Table>>,
    /// The maps that write a table, whose cross references know its rows.
    pub maps_of: &'a HashMap<Arc<str>, Vec<Arc<str>>>,
    pub timeout: Duration,
}

impl Lookups {
    /// Remembers rows that were written.
    pub fn learn(&self, set: &Arc<str>, rows: impl IntoIterator<Item = (RowKey, Uuid)>) {
        let mut ids = lock(&self.ids);
        if ids.len() > ENTRIES_MAX {
            ids.clear();
        }
        ids.extend(rows.into_iter().map(|(key, id)| ((Arc::clone(set), key), id)));
    }

    /// Forgets a row that was deleted, or that turned out not to be there.
    pub fn forget(&self, set: &Arc<str>, key: &RowKey) {
        lock(&self.ids).remove(&(Arc::clone(set), key.clone()));
    }

    /// The ids behind `keys`, as far as there are such rows.
    pub async fn ids(
        &self,
        sources: &Sources<'_>,
        slots: &[LookupSlot],
        keys: &[LookupKey],
    ) -> Result<HashMap<RowName, Uuid>, Fault> {
        let mut found = HashMap::new();
        let mut open: HashMap<RowName, &LookupKey> = HashMap::new();
        {
            let ids = lock(&self.ids);
            for key in keys {
                let name = (Arc::clone(&key.set), key.key.clone());
                match ids.get(&name) {
                    Some(id) => {
                        found.insert(name, *id);
                    }
                    None => {
                        open.insert(name, key);
                    }
                }
            }
        }
        self.ids_from_store(sources, slots, &mut open, &mut found).await?;
        self.ids_from_system(sources, &mut open, &mut found).await?;
        Ok(found)
    }

    async fn ids_from_store(
        &self,
        sources: &Sources<'_>,
        slots: &[LookupSlot],
        open: &mut HashMap<RowName, &LookupKey>,
        found: &mut HashMap<RowName, Uuid>,
    ) -> Result<(), Fault> {
        let mut by_map: HashMap<Arc<str>, (Arc<str>, Vec<RowKey>)> = HashMap::new();
        for ((set, row), key) in &*open {
            if !slots.get(key.slot).is_some_and(|slot| slot.complete) {
                continue;
            }
            for map in sources.maps_of.get(set).into_iter().flatten() {
                by_map.entry(Arc::clone(map)).or_insert_with(|| (Arc::clone(set), Vec::new())).1.push(row.clone());
            }
        }
        for (map, (set, rows)) in by_map {
            let known = sources.store.cross_references(sources.scope, &map, &rows).await?;
            for (row, reference) in known {
                if let (Some(id), false) = (reference.dataverse_id, reference.deleted) {
                    let name = (Arc::clone(&set), row);
                    open.remove(&name);
                    lock(&self.ids).insert(name.clone(), id);
                    found.insert(name, id);
                }
            }
        }
        Ok(())
    }

    async fn ids_from_system(
        &self,
        sources: &Sources<'_>,
        open: &mut HashMap<RowName, &LookupKey>,
        found: &mut HashMap<RowName, Uuid>,
    ) -> Result<(), Fault> {
        let mut asked = Vec::with_capacity(open.len());
        for (name, key) in &*open {
            let Some(table) = sources.tables.get(&key.set) else { continue };
            let mut pairs = Vec::with_capacity(key.columns.len());
            for (column, value) in key.columns.iter().zip(&key.values) {
                let path = column.split('.').collect::<Vec<_>>();
                match path.as_slice() {
                    [_] => pairs.push((Arc::clone(column), value.clone())),
                    [first, rest @ ..] => match self.nested_id(sources, table, first, rest, value).await? {
                        Some(id) => pairs.push((Arc::from(*first), Value::Guid(id))),
                        None => break,
                    },
                    [] => {}
                }
            }
            if pairs.len() == key.columns.len() {
                asked.push((name.clone(), Arc::clone(table), Address::Key(pairs)));
            }
        }
        let reads = asked.iter().map(|(_, table, address)| (&**table, address)).collect::<Vec<_>>();
        let rows = sources.dataverse.read_rows(&reads, sources.timeout).await?;
        let mut ids = lock(&self.ids);
        for ((name, ..), row) in asked.into_iter().zip(rows) {
            // A key that the system refuses to look for names no row.
            if let Some(id) = row.ok().flatten().and_then(|row| row.id) {
                ids.insert(name.clone(), id);
                found.insert(name, id);
            }
        }
        Ok(())
    }

    /// The id of the row that `column` of `table` would point to: the one whose `path` has `value`. Companies and
    /// hierarchies: few, and asked for once.
    async fn nested_id(
        &self,
        sources: &Sources<'_>,
        table: &Table,
        column: &str,
        path: &[&str],
        value: &Value,
    ) -> Result<Option<Uuid>, Fault> {
        let target = table
            .schema
            .index_of(column)
            .and_then(|index| table.schema.column(index).lookup.as_ref())
            .and_then(|lookup| lookup.targets.first());
        let Some(target) = target else { return Ok(None) };
        let Some(related) = sources.tables.get(&target.set) else { return Ok(None) };
        let cached = (Arc::clone(&target.set), format!("{}={}", path.join("."), value.to_string().to_lowercase()));
        if let Some(id) = lock(&self.nested).get(&cached) {
            return Ok(Some(*id));
        }
        let (first, rest) = match path {
            [] => return Ok(None),
            [first, rest @ ..] => (*first, rest),
        };
        let pair = if rest.is_empty() {
            value.clone()
        } else {
            match Box::pin(self.nested_id(sources, related, first, rest, value)).await? {
                Some(id) => Value::Guid(id),
                None => return Ok(None),
            }
        };
        let address = Address::Key(vec![(Arc::from(first), pair)]);
        let rows = sources.dataverse.read_rows(&[(related, &address)], sources.timeout).await?;
        let id = rows.into_iter().next().and_then(Result::ok).flatten().and_then(|row| row.id);
        if let Some(id) = id {
            lock(&self.nested).insert(cached, id);
        }
        Ok(id)
    }

    /// Reads whatever `slots` will ask about `rows`, so that [`Names`] can answer without waiting.
    pub async fn read_names(&self, sources: &Sources<'_>, slots: &[NameSlot], rows: &[&[Value]]) -> Result<(), Fault> {
        let mut wanted: HashSet<(Uuid, NameTarget)> = HashSet::new();
        for slot in slots {
            for row in rows {
                if let Some(Value::Guid(id)) = row.get(slot.column) {
                    for target in &slot.targets {
                        wanted.insert((*id, target.clone()));
                    }
                }
            }
        }
        self.read_wanted(sources, wanted.into_iter().collect()).await
    }

    async fn read_wanted(&self, sources: &Sources<'_>, wanted: Vec<(Uuid, NameTarget)>) -> Result<(), Fault> {
        let wanted = {
            let names = lock(&self.names);
            wanted
                .into_iter()
                .filter(|(id, target)| !names.contains_key(&(*id, name_key(&target.path))))
                .filter(|(_, target)| sources.tables.contains_key(&target.set))
                .collect::<Vec<_>>()
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let addresses = wanted.iter().map(|(id, _)| Address::Id(*id)).collect::<Vec<_>>();
        let reads = wanted
            .iter()
            .zip(&addresses)
            .filter_map(|((_, target), address)| Some((&**sources.tables.get(&target.set)?, address)))
            .collect::<Vec<_>>();
        let rows = sources.dataverse.read_rows(&reads, sources.timeout).await?;
        let mut through: Vec<((Uuid, NameTarget), (Uuid, NameTarget))> = Vec::new();
        for ((id, target), row) in wanted.into_iter().zip(rows) {
            let (Ok(Some(row)), Some(table)) = (row, sources.tables.get(&target.set)) else { continue };
            let Some((first, rest)) = target.path.split_first() else { continue };
            let Some(index) = table.schema.index_of(first) else { continue };
            match (&row.values[index], rest) {
                (value, []) => {
                    lock(&self.names).insert((id, name_key(&target.path)), value.clone());
                }
                (Value::Guid(next), rest) => {
                    let lookup = table.schema.column(index).lookup.as_ref();
                    for to in lookup.into_iter().flat_map(|lookup| &lookup.targets) {
                        let next_target = NameTarget { set: Arc::clone(&to.set), path: rest.to_vec() };
                        through.push(((id, target.clone()), (*next, next_target)));
                    }
                }
                _ => {}
            }
        }
        if !through.is_empty() {
            let next = through.iter().map(|(_, next)| next.clone()).collect();
            Box::pin(self.read_wanted(sources, next)).await?;
            let mut names = lock(&self.names);
            for ((id, target), (next, next_target)) in through {
                if let Some(value) = names.get(&(next, name_key(&next_target.path))).cloned() {
                    names.insert((id, name_key(&target.path)), value);
                }
            }
        }
        Ok(())
    }

    #[must_use]
    pub const fn names(&self) -> Names<'_> {
        Names { lookups: self }
    }
}

fn name_key(path: &[Arc<str>]) -> String {
    path.join(".")
}

/// Answers from what was read.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    lookups: &'a Lookups,
}

impl LookupNames for Names<'_> {
    fn name(&self, slot: &NameSlot, id: Uuid) -> Option<Value> {
        let names = lock(&self.lookups.names);
        slot.targets.iter().find_map(|target| names.get(&(id, name_key(&target.path))).cloned())
    }
}
