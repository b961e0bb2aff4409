//! Both sides under the maps: what is only here, only there, or different.
//!
//! Reads both tables, carries every F&O row over in thought (filter, transforms, plugins, lookups) and holds the
//! result against what Dataverse has. Rows in the error queue are not differences: they are listed there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualwright_core::content::same;
use dualwright_core::reconcile::{Decision, reconcile};
use dualwright_core::{Operation, RowKey, SystemKind, TransactionId, Value};
use uuid::Uuid;

use super::{Engine, EngineError};
use crate::connect::Table;
use crate::pipeline::attempt::{Prepared, prepare};
use crate::pipeline::{Budget, CapturedChange, LinkMap, Role, RowFate, RowWork, Work, captured};
use crate::report::{Difference, DifferenceKind};
use crate::store::FailedFilter;

const PAGE_TIMEOUT: Duration = Duration::from_secs(120);

struct DataverseRow {
    values: Vec<Value>,
    json: Box<serde_json::value::RawValue>,
    matched: bool,
}

impl Engine {
    /// Every difference between the two sides, map by map.
    pub async fn compare(&self) -> Result<Vec<Difference>, EngineError> {
        let mut differences = Vec::new();
        // The source of a table map is compared as the rows that its plugin makes of it.
        let compared = |map: &LinkMap| !matches!(map.role, Role::Source(_));
        for (index, map) in self.link.maps.iter().enumerate().filter(|(_, map)| compared(map)) {
            differences.extend(self.patiently(|| self.compare_map(index, map)).await?);
        }
        Ok(differences)
    }

    async fn compare_map(&self, index: usize, map: &LinkMap) -> Result<Vec<Difference>, EngineError> {
        let failed = self.failed_of(index, map).await?;
        let right_query = self.link.dataverse_query(map);
        let mut right = self.read_dataverse(map, right_query.as_deref()).await?;
        let mut differences = Vec::new();
        // Keys of the source rows, where a plugin makes the rows of the map.
        let mut sources = HashSet::new();
        let mut next: Option<String> = None;
        let query = if map.role == Role::Ordinary { self.link.finops_query(map) } else { None };
        loop {
            let rows_max = self.link.limits.batch_rows_max;
            let table = self.table_read(index, SystemKind::Finops);
            let page =
                self.link.finops.read_page(table, query.as_deref(), next.as_deref(), rows_max, PAGE_TIMEOUT).await?;
            let set = &table.schema.set;
            let changes = page.rows.into_iter().map(|row| change(set, row.json)).collect::<Vec<_>>();
            let (rows, others): (Vec<_>, Vec<_>) = self
                .carried_together(index, SystemKind::Finops, &changes)
                .await?
                .into_iter()
                .partition(|row| row.map == index);
            sources.extend(others.into_iter().filter(|row| row.part_of.is_none()).filter_map(|row| row.key));
            let mut open = Vec::new();
            for row in rows {
                match (&row.fate, &row.key) {
                    (Some(RowFate::OutOfScope | RowFate::Superseded), _) => {}
                    (Some(RowFate::Failed(_)), _) if failed.knows(&row) => {}
                    (_, Some(key)) if failed.keys.contains(key) => {
                        if let Some(found) = row.target_id().and_then(|id| right.get_mut(&id)) {
                            found.matched = true;
                        }
                    }
                    (Some(RowFate::Failed(_)), _) if failed.unnamed => {}
                    (Some(RowFate::Failed(fault)), _) => differences.push(Difference {
                        map: map.slug.to_string(),
                        key: row.readable_key(),
                        kind: DifferenceKind::OnlyFinops,
                        columns: fault.column.iter().cloned().collect(),
                    }),
                    _ => open.push(row),
                }
            }
            if right_query.is_some() {
                self.read_missing(map, &open, &mut right).await?;
            }
            self.match_rows(map, open, &mut right, &mut differences).await?;
            match page.next {
                Some(link) => next = Some(link),
                None => break,
            }
        }
        self.only_right(index, map, right, &failed, &sources, &mut differences).await?;
        Ok(differences)
    }

    /// Holds rows as they should be against rows as they are.
    async fn match_rows(
        &self,
        map: &LinkMap,
        rows: Vec<RowWork>,
        right: &mut HashMap<Uuid, DataverseRow>,
        differences: &mut Vec<Difference>,
    ) -> Result<(), EngineError> {
        let schema = &map.dataverse.table.schema;
        let Some(flow) = map.plan.to_dataverse.as_ref() else { return Ok(()) };
        let mut suspects = Vec::new();
        for row in rows {
            let Some(found) = row.target_id().and_then(|id| right.get_mut(&id)) else {
                differences.push(difference(map, &row, DifferenceKind::OnlyFinops, Vec::new()));
                continue;
            };
            found.matched = true;
            let decision = reconcile(schema, &flow.target_columns, &row.values, Some(&found.values), false, true);
            if let Decision::Update { changed } = decision {
                let columns = changed
                    .iter()
                    .map(|&position| schema.column(flow.target_columns[position]).name.to_string())
                    .collect::<Vec<_>>();
                suspects.push((row, columns));
            }
        }
        // A plugin may normalise what it sends and not what it finds; then the way back says that they are equal.
        let changes = suspects
            .iter()
            .filter_map(|(row, _)| right.get(&row.target_id()?))
            .map(|row| change(&schema.set, row.json.clone()))
            .collect::<Vec<_>>();
        let position = self.link.maps.iter().position(|other| other.slug == map.slug).unwrap_or_default();
        let back = if map.plan.to_finops.is_some() && !changes.is_empty() {
            self.carried(position, SystemKind::Dataverse, &changes).await?
        } else {
            Vec::new()
        };
        let back = back.into_iter().filter_map(|row| Some((row.source_id?, row))).collect::<HashMap<_, _>>();
        for (row, columns) in suspects {
            // Columns that do not go back cannot be excused by the way back.
            let excusable = columns.iter().all(|column| goes_back(map, column));
            let equal_back =
                row.target_id().and_then(|id| back.get(&id)).is_some_and(|back| is_equal_back(map, &row, back));
            if !(excusable && equal_back) {
                differences.push(difference(map, &row, DifferenceKind::Different, columns));
            }
        }
        Ok(())
    }

    /// Dataverse rows that no F&O row stands for, as far as the map and the link take them.
    async fn only_right(
        &self,
        index: usize,
        map: &LinkMap,
        right: HashMap<Uuid, DataverseRow>,
        failed: &Failed,
        sources: &HashSet<RowKey>,
        differences: &mut Vec<Difference>,
    ) -> Result<(), EngineError> {
        let set = &map.dataverse.table.schema.set;
        let alone = right.into_iter().filter(|(id, row)| !row.matched && !failed.ids.contains(id)).collect::<Vec<_>>();
        if map.plan.to_finops.is_none() {
            differences.extend(alone.iter().map(|(id, _)| Difference {
                map: map.slug.to_string(),
                key: id.to_string(),
                kind: DifferenceKind::OnlyDataverse,
                columns: Vec::new(),
            }));
            return Ok(());
        }
        let changes = alone.into_iter().map(|(_, row)| change(set, row.json)).collect::<Vec<_>>();
        for chunk in changes.chunks(self.link.limits.batch_rows_max) {
            let rows = self.carried(index, SystemKind::Dataverse, chunk).await?;
            let missed = self.missed(index, &rows, sources).await?;
            let is_missed = |row: &RowWork| match (&missed, row.source_id) {
                (Some(missed), Some(id)) => missed.contains(&id),
                (Some(_), None) => false,
                (None, _) => true,
            };
            for row in rows.into_iter().filter(is_missed) {
                let known = row.key.as_ref().is_some_and(|key| failed.keys.contains(key));
                if !known && !matches!(row.fate, Some(RowFate::OutOfScope | RowFate::Superseded)) {
                    differences.push(difference(map, &row, DifferenceKind::OnlyDataverse, Vec::new()));
                }
            }
        }
        Ok(())
    }

    /// Of rows that stand alone, the ids of those whose F&O row should be there; `None` for all of them. Where a plugin
    /// makes the rows, these are the ones that belong to a source row which F&O has no more: a row that its source row
    /// does not give any longer is left alone, and a row that never had one means nothing on F&O.
    async fn missed(
        &self,
        index: usize,
        rows: &[RowWork],
        there: &HashSet<RowKey>,
    ) -> Result<Option<HashSet<Uuid>>, EngineError> {
        let Role::Target(table_map) = self.link.maps[index].role else { return Ok(None) };
        let table_map = &self.link.table_maps[table_map];
        let (scope, store) = (&self.link.scope, &self.link.store);
        let target = table_map.targets.iter().position(|&target| target == index).unwrap_or_default();
        let ids = rows.iter().filter_map(|row| row.source_id).collect::<Vec<_>>();
        let known = store.cross_references_by_id(scope, &table_map.provenance(&self.link, target), &ids).await?;
        let keys = known.values().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let sources = store.cross_references(scope, &table_map.slug, &keys).await?;
        let failed = FailedFilter { map: Some(Arc::clone(&table_map.slug)), ..FailedFilter::default() };
        let failed = store.failed(scope, failed).await?.into_iter().filter_map(|record| record.row_key);
        let failed = failed.collect::<HashSet<_>>();
        let is_missed = |key: &RowKey| {
            sources.get(key).is_some_and(|pair| !pair.deleted) && !there.contains(key) && !failed.contains(key)
        };
        let missed = known.into_iter().filter(|(_, (key, pair))| !pair.deleted && is_missed(key));
        Ok(Some(missed.map(|(id, _)| id).collect()))
    }

    /// The real table behind a side of a map: rows that a plugin makes are read as their source rows.
    fn table_read(&self, index: usize, side: SystemKind) -> &Table {
        let index = match side {
            SystemKind::Finops => self.link.comes_from(index).unwrap_or(index),
            SystemKind::Dataverse => index,
        };
        &self.link.maps[index].side(side).table
    }

    /// Rows of the map as they would be written now, without writing or reading the target.
    async fn carried(
        &self,
        index: usize,
        source: SystemKind,
        changes: &[CapturedChange],
    ) -> Result<Vec<RowWork>, EngineError> {
        let mut rows = self.carried_together(index, source, changes).await?;
        // A table map's other rows are compared with their own maps.
        rows.retain(|row| row.map == index);
        Ok(rows)
    }

    async fn carried_together(
        &self,
        index: usize,
        source: SystemKind,
        changes: &[CapturedChange],
    ) -> Result<Vec<RowWork>, EngineError> {
        let work = Work {
            transaction: TransactionId(Uuid::nil()),
            source,
            atomic: false,
            changes,
            attempt: 1,
            captured_at: (self.now)(),
            order: None,
            assume_absent: false,
            never_paired: false,
            only_map: Some(index),
            again: false,
            dry: true,
        };
        let budget = Budget::new(Instant::now(), self.link.limits.transaction_budget, self.link.limits.write_reserve);
        match prepare(&self.link, &work, &budget).await {
            Prepared { rows, hold: None } => Ok(rows),
            Prepared { hold: Some(hold), .. } => Err(hold.fault.into()),
        }
    }

    /// The Dataverse rows that F&O rows stand for, and that the filter of Dataverse did not bring.
    async fn read_missing(
        &self,
        map: &LinkMap,
        rows: &[RowWork],
        right: &mut HashMap<Uuid, DataverseRow>,
    ) -> Result<(), EngineError> {
        // URLs of Dataverse end at 32 KiB; a term takes about 60 bytes, trebled where it is coded.
        const IDS_MAX: usize = 100;
        let Some(id_column) = map.dataverse.table.schema.primary_id else { return Ok(()) };
        let name = &map.dataverse.table.schema.column(id_column).name;
        let ids = rows.iter().filter_map(RowWork::target_id).filter(|id| !right.contains_key(id));
        for ids in ids.collect::<Vec<_>>().chunks(IDS_MAX) {
            let query = ids.iter().map(|id| format!("{name} eq {id}")).collect::<Vec<_>>().join(" or ");
            right.extend(self.read_dataverse(map, Some(&query)).await?);
        }
        Ok(())
    }

    async fn read_dataverse(
        &self,
        map: &LinkMap,
        query: Option<&str>,
    ) -> Result<HashMap<Uuid, DataverseRow>, EngineError> {
        let table: &Table = &map.dataverse.table;
        let mut rows = HashMap::new();
        let mut next: Option<String> = None;
        loop {
            // Dataverse's largest page (reference 7.2).
            const PAGE_ROWS_MAX: usize = 5_000;
            let page =
                self.link.dataverse.read_page(table, query, next.as_deref(), PAGE_ROWS_MAX, PAGE_TIMEOUT).await?;
            for row in page.rows {
                let values = table.shape.decode(row.json.get())?.values;
                if let Some(Value::Guid(id)) = table.schema.primary_id.map(|id| &values[id]) {
                    rows.insert(*id, DataverseRow { values, json: row.json, matched: false });
                }
            }
            match page.next {
                Some(link) => next = Some(link),
                None => return Ok(rows),
            }
        }
    }

    async fn failed_of(&self, index: usize, map: &LinkMap) -> Result<Failed, EngineError> {
        let mut failed = Failed::default();
        for record in self.link.store.failed(&self.link.scope, FailedFilter::default()).await? {
            let own = *record.map == *map.slug;
            match &record.row_key {
                Some(key) if own => {
                    failed.keys.insert(key.clone());
                }
                Some(_) => continue,
                None => failed.unnamed |= own && !record.atomic && record.source == SystemKind::Finops,
            }
            // The record of a transaction stands for every row of it, in whichever map.
            let set = &self.table_read(index, record.source).schema.set;
            let changes = captured::decode(&record.payload)?;
            let changes = changes.into_iter().filter(|change| change.set == *set).collect::<Vec<_>>();
            for row in self.carried(index, record.source, &changes).await? {
                failed.keys.extend(row.record_key());
                if record.source == SystemKind::Dataverse {
                    failed.ids.extend(row.source_id);
                }
            }
        }
        Ok(failed)
    }
}

/// Whether a Dataverse column is one that the map takes to F&O.
fn goes_back(map: &LinkMap, column: &str) -> bool {
    map.plan.to_finops.as_ref().is_some_and(|flow| {
        flow.fields
            .iter()
            .filter_map(|field| field.dataverse.as_deref())
            .any(|path| path.split('.').next() == Some(column))
    })
}

fn is_equal_back(map: &LinkMap, row: &RowWork, back: &RowWork) -> bool {
    let schema = &map.finops.table.schema;
    let Some(flow) = map.plan.to_finops.as_ref() else { return false };
    back.values.len() == flow.target_columns.len()
        && flow
            .target_columns
            .iter()
            .zip(&back.values)
            .all(|(&column, value)| value.is_absent() || same(schema, column, value, &row.source[column]))
}

/// What the error queue knows of a map.
#[derive(Default)]
struct Failed {
    keys: HashSet<RowKey>,
    ids: HashSet<Uuid>,
    /// Some F&O rows failed before their key was known.
    unnamed: bool,
}

impl Failed {
    /// Whether this row has a record of its own, because it may not have its key.
    fn knows(&self, row: &RowWork) -> bool {
        row.identity.as_ref().is_some_and(|identity| self.keys.contains(&identity.record_key()))
    }
}

fn change(set: &std::sync::Arc<str>, json: Box<serde_json::value::RawValue>) -> CapturedChange {
    CapturedChange { set: set.clone(), operation: Operation::Upsert, id: None, row: Some(json), origin: None }
}

fn difference(map: &LinkMap, row: &RowWork, kind: DifferenceKind, columns: Vec<String>) -> Difference {
    Difference { map: map.slug.to_string(), key: row.readable_key(), kind, columns }
}
