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

/// What a row has to hold: a path that begins in its table, and the value at the end of it.
type Wanted<'a> = (&'a [&'a str], &'a Value);

/// The column of a company's row that holds what F&O calls `dataAreaId`.
const COMPANY_CODE: &str = "cdm_companycode";

/// Lookups of a map that one read of Dataverse resolves. An initial sync of Dual-write fails over ten, and splitting them
/// is the documented way (Microsoft Learn, "Initial synchronization considerations").
pub const LOOKUPS_PER_READ_MAX: usize = 10;

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

    /// Empties caches that have grown too large. Not while a delivery counts on what was read for it.
    pub fn make_room(&self) {
        if lock(&self.nested).len() > ENTRIES_MAX {
            lock(&self.nested).clear();
        }
        if lock(&self.names).len() > ENTRIES_MAX {
            lock(&self.names).clear();
        }
    }

    /// The ids behind `keys` as the system itself says now: somebody else may have deleted such a row and made it anew,
    /// of which neither the caches nor the cross references know.
    pub async fn ids_anew(&self, sources: &Sources<'_>, keys: &[LookupKey]) -> Result<HashMap<RowName, Uuid>, Fault> {
        lock(&self.nested).clear();
        let mut open = HashMap::new();
        for key in keys {
            self.forget(&key.set, &key.key);
            open.insert((Arc::clone(&key.set), key.key.clone()), key);
        }
        let mut found = HashMap::new();
        self.ids_from_system(sources, &mut open, &mut found).await?;
        Ok(found)
    }

    /// The ids behind `keys`, as far as there are such rows.
    pub async fn ids(
        &self,
        sources: &Sources<'_>,
        slots: &[LookupSlot],
        keys: &[&LookupKey],
    ) -> Result<HashMap<RowName, Uuid>, Fault> {
        let mut found = HashMap::new();
        let mut open: HashMap<RowName, &LookupKey> = HashMap::new();
        {
            let ids = lock(&self.ids);
            for &key in keys {
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
            let paths = key.columns.iter().map(|column| column.split('.').collect::<Vec<_>>()).collect::<Vec<_>>();
            let wanted = paths.iter().map(Vec::as_slice).zip(&key.values).collect::<Vec<_>>();
            if let Some(pairs) = self.own_columns(sources, table, &wanted, key.key.company()).await? {
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

    /// What a row of `table` holds in columns of its own when its paths lead to the wanted values: `None` when one of them
    /// leads nowhere. Paths that begin with the same lookup lead to one row, so they are followed together.
    async fn own_columns(
        &self,
        sources: &Sources<'_>,
        table: &Table,
        wanted: &[Wanted<'_>],
        company: &str,
    ) -> Result<Option<Vec<(Arc<str>, Value)>>, Fault> {
        let mut pairs: Vec<(Arc<str>, Value)> = Vec::with_capacity(wanted.len());
        for &(path, value) in wanted {
            let [first, rest @ ..] = path else { continue };
            if rest.is_empty() {
                pairs.push((Arc::from(*first), value.clone()));
                continue;
            }
            if pairs.iter().any(|(column, _)| column.eq_ignore_ascii_case(first)) {
                continue;
            }
            let beyond = wanted
                .iter()
                .filter(|(path, _)| path.len() > 1 && path[0].eq_ignore_ascii_case(first))
                .map(|&(path, value)| (&path[1..], value))
                .collect::<Vec<_>>();
            match Box::pin(self.nested_id(sources, table, first, beyond, company)).await? {
                Some(id) => pairs.push((Arc::from(*first), Value::Guid(id))),
                None => return Ok(None),
            }
        }
        Ok(Some(pairs))
    }

    /// The id of the row that `column` of `table` would point to: the one that holds everything `wanted` of it. Companies
    /// and hierarchies: few, and asked for once. A row that belongs to a company is looked for in the company of the row
    /// that refers to it, unless a path says which.
    async fn nested_id(
        &self,
        sources: &Sources<'_>,
        table: &Table,
        column: &str,
        wanted: Vec<Wanted<'_>>,
        company: &str,
    ) -> Result<Option<Uuid>, Fault> {
        let lookup = table.schema.index_of(column).and_then(|index| table.schema.column(index).lookup.as_ref());
        for target in lookup.into_iter().flat_map(|lookup| &lookup.targets) {
            let Some(related) = sources.tables.get(&target.set) else { continue };
            let own = related.schema.company.map(|index| Arc::clone(&related.schema.column(index).name));
            let path = own.as_deref().map(|own| [own, COMPANY_CODE]);
            let code = Value::text(company);
            let mut wanted = wanted.clone();
            if let Some(path) = &path
                && !company.is_empty()
                && !wanted
                    .iter()
                    .any(|(given, _)| given.first().is_some_and(|first| first.eq_ignore_ascii_case(path[0])))
            {
                wanted.push((path, &code));
            }
            let asked = wanted.iter().map(|(path, value)| format!("{}={}", path.join("."), value).to_lowercase());
            let cached = (Arc::clone(&target.set), asked.collect::<Vec<_>>().join("\u{1f}"));
            if let Some(id) = lock(&self.nested).get(&cached) {
                return Ok(Some(*id));
            }
            let Some(pairs) = self.own_columns(sources, related, &wanted, company).await? else { continue };
            let address = Address::Key(pairs);
            let rows = sources.dataverse.read_rows(&[(related, &address)], sources.timeout).await?;
            if let Some(id) = rows.into_iter().next().and_then(Result::ok).flatten().and_then(|row| row.id) {
                lock(&self.nested).insert(cached, id);
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Reads whatever `slots` will ask about `rows`, so that [`Names`] can answer without waiting.
    /// More lookups than a read of Dual-write takes are read in several rounds.
    pub async fn read_names(&self, sources: &Sources<'_>, slots: &[NameSlot], rows: &[&[Value]]) -> Result<(), Fault> {
        for slots in slots.chunks(LOOKUPS_PER_READ_MAX) {
            self.read_names_of(sources, slots, rows).await?;
        }
        Ok(())
    }

    async fn read_names_of(&self, sources: &Sources<'_>, slots: &[NameSlot], rows: &[&[Value]]) -> Result<(), Fault> {
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
