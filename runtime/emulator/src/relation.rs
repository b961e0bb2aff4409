//! Relations of F&O: columns whose values name a row of another table.
//!
//! Owns how they are compiled from definitions, under which names they are navigated, and the marks by which the rows
//! that refer to a row are found without looking through their table. Knows neither requests nor what is checked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::catalogue::{Catalogue, Table};
use crate::cell;
use crate::definition::DeleteBehavior;

/// Everything that a table has to do with others.
#[derive(Debug)]
pub(crate) struct Relations {
    /// What its rows refer to.
    pub to: Vec<Relation>,
    /// What refers to its rows: the table, and the number among that table's relations.
    pub from: Vec<(Arc<Table>, usize)>,
    /// Navigation properties by name.
    pub ways: BTreeMap<String, Way>,
}

/// One relation, as seen from the row that refers.
#[derive(Debug)]
pub(crate) struct Relation {
    /// Its number among the relations of its table.
    pub number: usize,
    pub target: Arc<Table>,
    /// Columns that hold the same value: own, and the target's.
    pub pairs: Vec<(usize, usize)>,
    /// The columns of the companies, when both rows belong to one and so have to belong to the same.
    pub company: Option<(usize, usize)>,
    /// The pairs, with the company, name every column of the target's key: one row at most is meant.
    pub names_key: bool,
    pub on_delete: DeleteBehavior,
    navigation: String,
    collection: String,
}

/// Where a navigation property leads.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// To the row that is referred to, by one of the own relations.
    To(usize),
    /// To the rows of another table that refer to this one by one of theirs.
    From(Arc<Table>, usize),
}

impl Relations {
    pub const NONE: Self = Self { to: Vec::new(), from: Vec::new(), ways: BTreeMap::new() };
}

impl Relation {
    fn new(catalogue: &Catalogue, table: &Table, at: usize, number: usize, target_number: usize) -> Option<Self> {
        let column = &table.columns[at].definition;
        let definition = &column.targets[target_number];
        let target = catalogue.by_name(&definition.table)?;
        let index = |table: &Table, name: &str| table.columns.iter().position(|own| own.definition.name == *name);
        let mut pairs = vec![(at, index(target, definition.column.as_deref()?)?)];
        for pair in &definition.further {
            pairs.push((index(table, &pair.column)?, index(target, &pair.related)?));
        }
        let company = table
            .company
            .zip(target.company)
            .filter(|(own, other)| !pairs.iter().any(|(from, to)| from == own || to == other));
        let names_key = target
            .key
            .iter()
            .all(|part| pairs.iter().any(|(_, to)| to == part) || company.is_some_and(|(_, other)| other == *part));
        Some(Self {
            number,
            pairs,
            company,
            names_key,
            on_delete: definition.on_delete.unwrap_or(DeleteBehavior::NoCascade),
            navigation: definition.navigation_property.clone().unwrap_or_else(|| target.name().to_owned()),
            collection: definition.collection.clone().unwrap_or_else(|| table.set().to_owned()),
            target: Arc::clone(target),
        })
    }

    /// Whether a row refers to nothing by this relation: all its columns are empty.
    pub fn is_empty<C: AsRef<str>>(&self, table: &Table, cells: &[C]) -> bool {
        self.pairs.iter().all(|(own, _)| cells[*own].as_ref() == table.columns[*own].empty)
    }

    /// What all rows of `table` that refer to the same row have in common, computed from one of them.
    pub fn mark<C: AsRef<str>>(&self, table: &Table, cells: &[C]) -> Option<Uuid> {
        let own = self.pairs.iter().chain(&self.company).map(|(own, _)| cells[*own].as_ref());
        (!self.is_empty(table, cells)).then(|| self.mark_of(table, own))
    }

    /// The same, computed from the row of the target that they refer to.
    pub fn mark_of_target<C: AsRef<str>>(&self, table: &Table, target: &[C]) -> Uuid {
        self.mark_of(table, self.pairs.iter().chain(&self.company).map(|(_, other)| target[*other].as_ref()))
    }

    fn mark_of<'a>(&self, table: &Table, cells: impl Iterator<Item = &'a str>) -> Uuid {
        let mut key = Vec::with_capacity(64);
        key.extend_from_slice(&table.number.to_be_bytes());
        key.extend_from_slice(&self.number.to_be_bytes());
        cells.for_each(|cell| cell::push_key(&mut key, cell));
        let digest = Sha256::digest(&key);
        let mut mark = [0; 16];
        mark.copy_from_slice(&digest[..16]);
        Uuid::from_bytes(mark)
    }

    /// The key of the row that is referred to, when the relation names all of it.
    pub fn target_key<C: AsRef<str>>(&self, cells: &[C]) -> Option<Vec<u8>> {
        if !self.names_key {
            return None;
        }
        let mut key = self.target.empty_row();
        for (own, other) in self.pairs.iter().chain(&self.company) {
            key[*other] = cell::Cell::Owned(cells[*own].as_ref().to_owned());
        }
        Some(self.target.row_key(&key))
    }
}

/// The relations of every table that has any.
pub(crate) fn all(catalogue: &Catalogue) -> HashMap<i64, Relations> {
    let mut all = HashMap::<i64, Relations>::new();
    for table in catalogue.tables() {
        let mut to = Vec::new();
        for (at, column) in table.columns.iter().enumerate() {
            for target in 0..column.definition.targets.len() {
                to.extend(Relation::new(catalogue, table, at, to.len(), target));
            }
        }
        if to.is_empty() {
            continue;
        }
        for relation in &to {
            let other = all.entry(relation.target.number).or_insert(Relations::NONE);
            other.from.push((Arc::clone(table), relation.number));
        }
        all.entry(table.number).or_insert(Relations::NONE).to = to;
    }
    let ways = catalogue.tables().filter(|table| all.contains_key(&table.number)).map(|table| {
        let relations = &all[&table.number];
        let to = relations.to.iter().map(|relation| (&relation.navigation, Way::To(relation.number)));
        let from = relations.from.iter().filter_map(|(other, number)| {
            let relation = all.get(&other.number)?.to.get(*number)?;
            Some((&relation.collection, Way::From(Arc::clone(other), *number)))
        });
        let mut ways = BTreeMap::new();
        for (name, way) in to.chain(from) {
            // A name that is taken already, by a column or by another way, names nothing else.
            if table.property(name).is_none() && name != table.name() && !ways.contains_key(name) {
                ways.insert(name.clone(), way);
            }
        }
        (table.number, ways)
    });
    for (number, ways) in ways.collect::<Vec<_>>() {
        if let Some(relations) = all.get_mut(&number) {
            relations.ways = ways;
        }
    }
    all
}
