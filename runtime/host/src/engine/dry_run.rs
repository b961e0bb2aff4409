//! A dry run: what another version of a map or of a plugin would do, held against what runs now.
//!
//! The same rows go through the pipeline of two links, up to the write. Both read the systems and the store and write
//! to neither. Owns where the rows come from and how the two answers are matched; knows nothing of how a row is carried.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualwright_core::content::same;
use dualwright_core::reconcile::Decision;
use dualwright_core::{Fault, Operation, Schema, SystemKind, TransactionId, Value};
use uuid::Uuid;

use crate::connect::Table;
use crate::pipeline::attempt::{Prepared, rehearse};
use crate::pipeline::{Budget, CapturedChange, Link, LinkMap, RowFate, RowWork, Work, captured};
use crate::report::{ColumnDifference, DryRunMap, DryRunRecord, DryRunReport, Outcome, OutcomeKind, direction};
use crate::store::FailedFilter;

const PAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// Where the rows of a dry run come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsFrom {
    /// The systems, as the rows are now.
    Live,
    /// The store: failed records and changes that wait.
    Recorded,
}

/// What is tried.
pub struct DryRun<'a> {
    /// What runs now; `None` to see only what `after` does.
    pub before: Option<&'a Link>,
    pub after: &'a Link,
    /// Slugs of the maps concerned.
    pub maps: HashSet<Arc<str>>,
    pub rows: RowsFrom,
    /// Of each map and side, or of all that is recorded.
    pub rows_max: usize,
    /// Whether the report holds the values that differ.
    pub with_values: bool,
    /// Microseconds since 1970: the time that plugins see.
    pub now: i64,
}

/// Changes that go through the pipeline together.
struct Batch {
    source: SystemKind,
    atomic: bool,
    changes: Vec<CapturedChange>,
    captured_at: i64,
    /// Only this map; otherwise every map of the changed tables, as in live sync.
    only_map: Option<Arc<str>>,
}

/// A row as one of the two links leaves it.
struct Left<'a> {
    row: &'a RowWork,
    outcome: Outcome,
}

impl DryRun<'_> {
    /// Carries the rows over in thought. Fails when a system does not answer.
    pub async fn run(&self) -> Result<DryRunReport, Fault> {
        let mut report = DryRunReport::default();
        match self.rows {
            RowsFrom::Live => {
                for map in self.after.maps.iter().filter(|map| self.concerns(map)) {
                    for source in [SystemKind::Finops, SystemKind::Dataverse] {
                        self.live_rows(map, source, &mut report).await?;
                    }
                }
            }
            RowsFrom::Recorded => {
                for batch in self.recorded().await? {
                    self.try_batch(&batch, &mut report).await?;
                }
            }
        }
        Ok(report)
    }

    fn concerns(&self, map: &LinkMap) -> bool {
        self.maps.contains(&map.slug)
    }

    async fn live_rows(&self, map: &LinkMap, source: SystemKind, report: &mut DryRunReport) -> Result<(), Fault> {
        let reads = |map: &LinkMap| match source {
            SystemKind::Finops => map.reads_finops(),
            SystemKind::Dataverse => map.reads_dataverse(),
        };
        let own = &map.side(source).table.schema;
        let before = self.before.and_then(|link| link.maps.iter().find(|before| before.slug == map.slug));
        // A map that went to other tables says nothing of these rows.
        let before = before.filter(|before| before.side(source).table.schema.set == own.set);
        if !reads(map) && !before.is_some_and(reads) {
            return Ok(());
        }
        let table = before.map_or_else(
            || Table::new(Arc::clone(own)),
            |before| Table::new(Arc::new(joined(own, &before.side(source).table.schema))),
        );
        // No filter is sent along: a row that one version takes and the other does not is what is looked for.
        let query = match source {
            SystemKind::Finops => self.after.company_query(map),
            SystemKind::Dataverse => None,
        };
        let system = self.after.system(source);
        let (mut left, mut next) = (self.rows_max, None::<String>);
        while left > 0 {
            let rows_max = left.min(self.after.limits.batch_rows_max);
            let page = system.read_page(&table, query.as_deref(), next.as_deref(), rows_max, PAGE_TIMEOUT).await?;
            let rows = page.rows.into_iter().take(left).collect::<Vec<_>>();
            left -= rows.len();
            // A system may send more than was asked for.
            let mut changes = rows.into_iter().map(|row| CapturedChange {
                set: Arc::clone(&own.set),
                operation: Operation::Upsert,
                id: None,
                row: Some(row.json),
                origin: None,
            });
            loop {
                let changes = changes.by_ref().take(self.after.limits.batch_rows_max).collect::<Vec<_>>();
                if changes.is_empty() {
                    break;
                }
                let only_map = Some(Arc::clone(&map.slug));
                let batch = Batch { source, atomic: false, changes, captured_at: self.now, only_map };
                self.try_batch(&batch, report).await?;
            }
            match page.next {
                Some(link) => next = Some(link),
                None => break,
            }
        }
        Ok(())
    }

    /// What the store holds of changes to the tables concerned: failed records, then what waits.
    async fn recorded(&self) -> Result<Vec<Batch>, Fault> {
        let link = self.after;
        let mut batches = Vec::new();
        let mut left = self.rows_max;
        let mut take = |source: SystemKind, atomic: bool, payload: &[u8], captured_at: i64| -> Result<(), Fault> {
            let mut changes = captured::decode(payload)?;
            let concerned = |change: &CapturedChange| {
                link.maps.iter().any(|map| self.concerns(map) && map.side(source).table.schema.set == change.set)
            };
            // The rows of a transaction stand and fall together, those of other maps among them.
            match atomic && changes.iter().any(concerned) {
                true => {}
                false => changes.retain(concerned),
            }
            if !changes.is_empty() && left > 0 {
                left = left.saturating_sub(changes.len());
                batches.push(Batch { source, atomic, changes, captured_at, only_map: None });
            }
            Ok(())
        };
        let mut seen = HashSet::new();
        for record in link.store.failed(&link.scope, FailedFilter::default()).await? {
            // The records of one transaction hold all of it, each.
            if !record.atomic || seen.insert(record.transaction) {
                take(record.source, record.atomic, &record.payload, record.first_at)?;
            }
        }
        // Whatever waits, also what is not due yet.
        const DELIVERIES_MAX: u32 = 1_000;
        for delivery in link.store.due(&link.scope, i64::MAX, DELIVERIES_MAX).await? {
            if delivery.retry_of.is_none() {
                take(delivery.source, delivery.atomic, &delivery.payload, delivery.captured_at)?;
            }
        }
        Ok(batches)
    }

    async fn try_batch(&self, batch: &Batch, report: &mut DryRunReport) -> Result<(), Fault> {
        let target = batch.source.other();
        let after = self.carried(self.after, batch).await?;
        let before = match self.before {
            Some(link) => Some((link, self.carried(link, batch).await?)),
            None => None,
        };
        let mut earlier: HashMap<_, VecDeque<Left<'_>>> = HashMap::new();
        if let Some((link, rows)) = &before {
            for row in self.left(link, target, rows) {
                earlier.entry((row.row.change, Arc::clone(&link.maps[row.row.map].slug))).or_default().push_back(row);
            }
        }
        for row in self.left(self.after, target, &after) {
            let map = &self.after.maps[row.row.map];
            let earlier = earlier.get_mut(&(row.row.change, Arc::clone(&map.slug))).and_then(VecDeque::pop_front);
            let before = before.as_ref().map(|(link, _)| (*link, earlier.as_ref()));
            self.report(batch.source, map, before, &row, report);
        }
        Ok(())
    }

    /// Every row as `link` would leave it; nothing is written.
    async fn carried(&self, link: &Link, batch: &Batch) -> Result<Vec<RowWork>, Fault> {
        let only_map = batch.only_map.as_ref().map(|slug| link.maps.iter().position(|map| map.slug == *slug));
        // The map is new.
        if only_map == Some(None) {
            return Ok(Vec::new());
        }
        let work = Work {
            transaction: TransactionId(Uuid::nil()),
            source: batch.source,
            atomic: batch.atomic,
            changes: &batch.changes,
            attempt: 1,
            captured_at: batch.captured_at,
            order: None,
            assume_absent: false,
            never_paired: false,
            only_map: only_map.flatten(),
            again: true,
            dry: false,
        };
        let budget = Budget::new(Instant::now(), link.limits.transaction_budget, link.limits.write_reserve);
        match rehearse(link, &work, &budget).await {
            Prepared { rows, hold: None } => Ok(rows),
            Prepared { hold: Some(hold), .. } => Err(hold.fault),
        }
    }

    /// The rows of the maps concerned, and how they end. What a plugin made other rows of is told by those.
    fn left<'a>(&self, link: &'a Link, target: SystemKind, rows: &'a [RowWork]) -> impl Iterator<Item = Left<'a>> {
        let own = rows.iter().filter(|row| self.concerns(&link.maps[row.map]) && row.fate != Some(RowFate::Mapped));
        own.map(move |row| Left { row, outcome: outcome(link, target, row) })
    }

    fn report(
        &self,
        source: SystemKind,
        map: &LinkMap,
        before: Option<(&Link, Option<&Left<'_>>)>,
        after: &Left<'_>,
        report: &mut DryRunReport,
    ) {
        let direction = direction(source);
        let counted = match report.maps.iter().position(|own| own.map == *map.slug && own.direction == direction) {
            Some(position) => &mut report.maps[position],
            None => {
                let new = DryRunMap { map: map.slug.to_string(), direction: direction.clone(), ..DryRunMap::default() };
                report.maps.push(new);
                report.maps.last_mut().expect("it was pushed above")
            }
        };
        counted.rows += 1;
        counted.after.count(after.outcome.kind);
        let mut columns = Vec::new();
        let mut differs = false;
        let before_row = before.and_then(|(_, before)| before.map(|before| before.row));
        let before_row = before_row.filter(|_| after.row.key.is_none());
        let before = before.map(|(link, before)| {
            let earlier = before.map_or_else(Outcome::outside, |before| before.outcome.clone());
            columns = self.differing(source.other(), (link, before), (map, after));
            differs = earlier.kind != after.outcome.kind || earlier.code != after.outcome.code || !columns.is_empty();
            earlier
        });
        if let Some(before) = &before {
            counted.before.get_or_insert_default().count(before.kind);
            counted.differing += u64::from(differs);
        }
        let acts = !matches!(after.outcome.kind, OutcomeKind::Unchanged | OutcomeKind::Outside);
        if differs || acts {
            report.records.push(DryRunRecord {
                map: map.slug.to_string(),
                direction,
                // Of a row that a filter does not take nobody asks for the key.
                key: before_row.unwrap_or(after.row).readable_key(),
                differs,
                before,
                after: after.outcome.clone(),
                columns,
            });
        }
    }

    /// The columns that the two would leave with different values on the target.
    fn differing(
        &self,
        target: SystemKind,
        (link, before): (&Link, Option<&Left<'_>>),
        (map, after): (&LinkMap, &Left<'_>),
    ) -> Vec<ColumnDifference> {
        let Some(before) = before else { return Vec::new() };
        let before_map = &link.maps[before.row.map];
        let (earlier, later) = (written(before_map, target, before.row), written(map, target, after.row));
        // A row that is rejected or passed over holds no values to compare.
        if earlier.is_empty() || later.is_empty() {
            return Vec::new();
        }
        let (old, new) = (&before_map.side(target).table.schema, &map.side(target).table.schema);
        let shown = |value: &Value| {
            self.with_values.then(|| match value {
                Value::Null | Value::Absent => serde_json::Value::Null,
                value => serde_json::Value::String(value.to_string()),
            })
        };
        let mut columns = Vec::new();
        let names = later.iter().map(|(column, _)| &new.column(*column).name);
        let only_old = earlier.iter().map(|(column, _)| &old.column(*column).name);
        let only_old = only_old.filter(|name| !later.iter().any(|(column, _)| new.column(*column).name == **name));
        for name in names.chain(only_old) {
            let said = |schema: &Schema, written: &[(usize, &'_ Value)]| {
                let own = written.iter().find(|(column, _)| schema.column(*column).name == *name);
                own.map(|(_, value)| (*value).clone()).filter(|value| !value.is_absent())
            };
            // What one of the two does not write stays as it is, which the other one has seen.
            let stays = |schema: &Schema, row: &RowWork| {
                let column = schema.index_of(name)?;
                row.current.as_ref().and_then(|current| current.values.get(column)).cloned()
            };
            let a = said(old, &earlier).or_else(|| stays(new, after.row)).unwrap_or(Value::Null);
            let b = said(new, &later).or_else(|| stays(old, before.row)).unwrap_or(Value::Null);
            let (schema, column) = match new.index_of(name) {
                Some(column) => (new, Some(column)),
                None => (old, old.index_of(name)),
            };
            if column.is_some_and(|column| !same(schema, column, &a, &b)) {
                columns.push(ColumnDifference { column: name.to_string(), before: shown(&a), after: shown(&b) });
            }
        }
        columns
    }
}

/// The columns that a row writes, or holds already as it should.
fn written<'a>(map: &LinkMap, target: SystemKind, row: &'a RowWork) -> Vec<(usize, &'a Value)> {
    if !matches!(row.fate, None | Some(RowFate::Equal)) || row.operation == Operation::Delete {
        return Vec::new();
    }
    let columns = map.flow(target).map(|flow| flow.target_columns.as_slice()).unwrap_or_default();
    let extra = row.extra.iter().map(|(column, value)| (*column, value));
    columns.iter().copied().zip(&row.values).chain(extra).collect()
}

fn outcome(link: &Link, target: SystemKind, row: &RowWork) -> Outcome {
    let kind = match (&row.fate, row.operation, &row.decision) {
        (Some(RowFate::Failed(fault)), ..) => return Outcome::rejected(fault),
        (Some(RowFate::OutOfScope), ..) => OutcomeKind::Outside,
        (None, Operation::Delete, _) | (Some(RowFate::Deleted), ..) => OutcomeKind::Deleted,
        (None, _, Some(Decision::Create)) | (Some(RowFate::Created), ..) => OutcomeKind::Created,
        (None, _, Some(Decision::Update { changed })) => {
            let map = &link.maps[row.map];
            let schema = &map.side(target).table.schema;
            let columns = map.flow(target).map(|flow| flow.target_columns.as_slice()).unwrap_or_default();
            let changed = changed.iter().filter_map(|&position| columns.get(position).copied());
            let extra = row.differing_extra(schema).map(|(column, _)| *column);
            let columns = changed.chain(extra).map(|column| schema.column(column).name.to_string());
            return Outcome { columns: columns.collect(), ..Outcome::of(OutcomeKind::Updated) };
        }
        (Some(RowFate::Updated), ..) => OutcomeKind::Updated,
        _ => OutcomeKind::Unchanged,
    };
    Outcome::of(kind)
}

/// The table with the columns of both, so that one reading serves both.
fn joined(one: &Schema, other: &Schema) -> Schema {
    let more = other.columns().iter().filter(|column| one.index_of(&column.name).is_none());
    let columns = one.columns().iter().chain(more).cloned().collect();
    let mut joined = Schema::new(one.system, &one.table, &one.set, columns);
    joined.primary_id = one.primary_id;
    joined.key = one.key.clone();
    joined.company = one.company;
    joined
}

/// The slugs of a map of the configuration: a table map has one for its source and one for each of its tables.
#[must_use]
pub fn slugs_of(link: &Link, map: &str) -> HashSet<Arc<str>> {
    let mut slugs =
        link.maps.iter().filter(|own| *own.slug == *map).map(|own| Arc::clone(&own.slug)).collect::<HashSet<_>>();
    for table_map in link.table_maps.iter().filter(|own| *own.slug == *map) {
        let targets = table_map.targets.iter().chain([&table_map.source]);
        slugs.extend(targets.map(|&index| Arc::clone(&link.maps[index].slug)));
    }
    slugs
}
