//! Table maps by plugins on the path of a delivery: source rows become rows of the target maps, and back.
//!
//! To Dataverse the plugin is asked once the source rows are known to have changed; what it gives are rows of the target
//! maps, which go on like any others. To F&O the changed rows of the target maps are put together with those that belong
//! to the same source row, and what the plugin makes of them is one row of the source map. Either way the rows that were
//! taken up stand aside and share the fate of what became of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use dualwright_core::{Code, Fault, Operation, RowKey, SystemKind, Value};
use dualwright_sandbox::{
    CallFault, Installation, Mapped, MergedRow, Part, QueuedSession as Session, RowInfo, Session as Calls,
};
use uuid::Uuid;

use super::attempt::{Hold, Work};
use super::budget::Budget;
use super::guests::{self, Piece};
use super::link::{Link, LinkMap, Role, TableMap, TargetColumn};
use super::row::{RowFate, RowReference, RowWork};
use crate::connect::{Address, StoredRow};

/// Lets the plugins make rows of the target maps. Returns whether there are any, which then have no key yet.
pub(super) async fn split(
    link: &Link,
    work: &Work<'_>,
    session: &mut Session,
    rows: &mut Vec<RowWork>,
) -> Result<bool, Hold> {
    let before = rows.len();
    for table_map in link.table_maps.iter().filter(|_| work.source == SystemKind::Finops) {
        let own = guests::open_rows(rows, table_map.source, |_| true);
        if own.is_empty() {
            continue;
        }
        let sources = own.iter().map(|&at| rows[at].source.as_slice());
        let inputs = guests::Picked::new(sources, &table_map.source_columns);
        let given = Arc::new((inputs, guests::Infos::of(rows, &own)));
        let answers = guests::in_pieces(session, own.len(), || {
            let (installation, given) = (Arc::clone(&table_map.installation), Arc::clone(&given));
            move |calls: &mut Calls, piece: Piece| {
                let (inputs, infos) = &*given;
                calls.table_map(&installation, &infos.lend(piece.clone()), &inputs.rows(piece))
            }
        })
        .await;
        for (piece, answer) in answers {
            match answer {
                Ok(mapped) => take_mapped(link, table_map, rows, &own[piece], mapped),
                Err(fault) => guests::faulted(rows, &own[piece], &table_map.plugin, table_map.on_fault, fault)?,
            }
        }
        for &at in own.iter() {
            rows[at].fate.get_or_insert(RowFate::Mapped);
        }
    }
    Ok(rows.len() > before)
}

/// Rows of the target maps from what the plugin gave for `own`.
fn take_mapped(link: &Link, table_map: &TableMap, rows: &mut Vec<RowWork>, own: &[usize], mapped: Mapped) {
    guests::complain(rows, own, mapped.issues, false);
    let mut next = rows.len();
    // Where each row of the answer will be; nowhere when its source row was rejected.
    let places = mapped
        .tables
        .iter()
        .map(|table| {
            let place = |source: usize| {
                rows[own[source]].is_open().then(|| {
                    next += 1;
                    next - 1
                })
            };
            table.rows.iter().map(|row| row.source).map(place).collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    for (target, table) in mapped.tables.into_iter().enumerate() {
        let columns = &table_map.target_columns[target];
        let map = table_map.targets[target];
        let schema = &link.maps[map].finops.table.schema;
        for given in table.rows {
            let source = own[given.source];
            if !rows[source].is_open() {
                continue;
            }
            let mut row = RowWork::new(rows[source].change, map, given.operation);
            row.part_of = Some(source);
            row.source_version = rows[source].source_version.clone();
            row.source = vec![Value::Absent; schema.columns().len()];
            let mut company = rows[source].company.clone().unwrap_or_default();
            for (column, value) in columns.iter().zip(given.values) {
                match column {
                    TargetColumn::Value(index) => row.source[*index] = value,
                    TargetColumn::Company => {
                        if let Some(text) = value.as_text().filter(|text| !text.trim().is_empty()) {
                            text.clone_into(&mut company);
                        }
                    }
                    TargetColumn::Reference(index) if !value.is_absent() => row.extra.push((*index, value)),
                    TargetColumn::Reference(_) => {}
                }
            }
            if let Some(column) = schema.company {
                row.source[column] = Value::text(&company);
            }
            for reference in given.references {
                if let TargetColumn::Reference(column) = columns[reference.column]
                    && let Some(to) = places[reference.table][reference.row]
                {
                    row.references.push(RowReference { column, row: to });
                }
            }
            rows.push(row);
        }
    }
}

/// The rows of target maps that belong to one source row.
#[derive(Default)]
struct Group {
    /// Of the source row; `None` when no source row is known.
    key: Option<RowKey>,
    company: Option<String>,
    /// Changed rows: position of the target, and index of the row.
    changed: Vec<(usize, usize)>,
    /// What the plugin is given: changed rows and those that are only read along.
    parts: Vec<PartRow>,
    current: Option<StoredRow>,
}

struct PartRow {
    target: usize,
    info: Info,
    values: Vec<Value>,
}

/// What a guest is told of a row that was read along, or changed.
struct Info {
    operation: Operation,
    creating: bool,
    company: String,
}

impl Info {
    fn as_info(&self) -> RowInfo<'_> {
        RowInfo { operation: self.operation, creating: self.creating, company: &self.company }
    }
}

/// Lets the plugins make source rows of changed rows of their target maps.
pub(super) async fn merge(
    link: &Link,
    work: &Work<'_>,
    session: &mut Session,
    rows: &mut Vec<RowWork>,
    budget: &Budget,
) -> Result<(), Hold> {
    // In thought each row is held against the row that the plugin gives, not against the source row.
    if work.source != SystemKind::Dataverse || work.dry {
        return Ok(());
    }
    for table_map in &link.table_maps {
        let mut groups = group(link, table_map, rows).await?;
        if groups.is_empty() {
            continue;
        }
        read_along(link, table_map, rows, &mut groups, budget).await?;
        groups.retain(|group| group.changed.iter().all(|&(_, at)| rows[at].is_open()));
        read_sources(link, table_map, &mut groups, budget).await?;
        let current = groups
            .iter()
            .map(|group| Some(guests::pick(&group.current.as_ref()?.values, &table_map.source_columns)))
            .collect::<Vec<_>>();
        let first = groups.iter().map(|group| group.changed[0].1).collect::<Vec<_>>();
        let parts = groups.iter_mut().map(|group| std::mem::take(&mut group.parts)).collect::<Vec<_>>();
        let given = Arc::new((parts, current));
        let answers = guests::in_pieces(session, groups.len(), || {
            let (installation, given) = (Arc::clone(&table_map.installation), Arc::clone(&given));
            move |calls: &mut Calls, piece: Piece| {
                let (parts, current) = &*given;
                let current = current[piece.clone()].iter().map(Option::as_deref).collect::<Vec<_>>();
                call_back(calls, &installation, &parts[piece], &current)
            }
        })
        .await;
        let mut merged = Vec::new();
        for (piece, answer) in answers {
            match answer {
                Ok(answer) => {
                    guests::complain(rows, &first[piece.clone()], answer.issues, false);
                    merged.extend(piece.zip(answer.rows));
                }
                Err(fault) => guests::faulted(rows, &first[piece], &table_map.plugin, table_map.on_fault, fault)?,
            }
        }
        for group in &groups {
            if let Some(RowFate::Failed(fault)) = rows[group.changed[0].1].fate.clone() {
                group.changed.iter().for_each(|&(_, at)| rows[at].fail(fault.clone()));
            }
        }
        let start = rows.len();
        for (at, answer) in merged {
            take_merged(link, table_map, rows, &groups[at], answer);
        }
        recall_sources(link, table_map, &mut rows[start..]).await?;
    }
    Ok(())
}

/// The open rows of the target maps by the source row that they are known to belong to. A row of which nothing is known
/// stands alone, with the rows that it refers to itself.
async fn group(link: &Link, table_map: &TableMap, rows: &[RowWork]) -> Result<Vec<Group>, Hold> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_key: HashMap<RowKey, usize> = HashMap::new();
    for (target, &map) in table_map.targets.iter().enumerate() {
        let own = guests::open_rows(rows, map, |_| true);
        if own.is_empty() {
            continue;
        }
        let ids = own.iter().filter_map(|&at| rows[at].source_id).collect::<Vec<_>>();
        let provenance = table_map.provenance(link, target);
        let mut known = link.store.cross_references_by_id(&link.scope, &provenance, &ids).await?;
        for at in own {
            let key = rows[at].source_id.and_then(|id| known.remove(&id)).map(|(key, _)| key);
            let place = key.as_ref().and_then(|key| by_key.get(key).copied()).unwrap_or_else(|| {
                groups.push(Group { company: rows[at].company.clone(), key: key.clone(), ..Group::default() });
                groups.len() - 1
            });
            if let Some(key) = key {
                by_key.insert(key, place);
            }
            groups[place].changed.push((target, at));
        }
    }
    // A row alone joins the one that refers to it.
    let referred = groups
        .iter()
        .enumerate()
        .flat_map(|(place, group)| {
            group.changed.iter().flat_map(move |&(target, at)| {
                references(link, table_map, target, &rows[at].source).into_iter().map(move |to| (to, place))
            })
        })
        .collect::<HashMap<(usize, Uuid), usize>>();
    for place in 0..groups.len() {
        let group = &groups[place];
        if group.key.is_some() || group.changed.len() != 1 {
            continue;
        }
        let (target, at) = group.changed[0];
        let to = rows[at].source_id.and_then(|id| referred.get(&(target, id)).copied());
        if let Some(to) = to.filter(|&to| to != place && !groups[to].changed.is_empty() && !has(&groups[to], target)) {
            groups[place].changed.clear();
            groups[to].changed.push((target, at));
        }
    }
    groups.retain(|group| !group.changed.is_empty());
    Ok(groups)
}

fn has(group: &Group, target: usize) -> bool {
    group.changed.iter().any(|(own, _)| *own == target)
}

/// The rows of other targets that a row refers to: position of the target, and id.
fn references(link: &Link, table_map: &TableMap, target: usize, row: &[Value]) -> Vec<(usize, Uuid)> {
    let schema = &link.maps[table_map.targets[target]].dataverse.table.schema;
    let mut found = Vec::new();
    for column in &table_map.target_columns[target] {
        let TargetColumn::Reference(index) = column else { continue };
        let (Some(Value::Guid(id)), Some(lookup)) = (row.get(*index), &schema.column(*index).lookup) else { continue };
        let set = |target: &usize| link.maps[table_map.targets[*target]].dataverse.table.schema.set.clone();
        let to = (0..table_map.targets.len()).filter(|to| lookup.targets.iter().any(|leads| leads.set == set(to)));
        found.extend(to.map(|to| (to, *id)));
    }
    found
}

/// Fills the parts: the changed rows, and the rows of the other targets as Dataverse holds them.
async fn read_along(
    link: &Link,
    table_map: &TableMap,
    rows: &mut [RowWork],
    groups: &mut [Group],
    budget: &Budget,
) -> Result<(), Hold> {
    for group in groups.iter_mut() {
        for &(target, at) in &group.changed {
            let row = &rows[at];
            let info = Info { operation: row.operation, creating: false, company: company_of(group.company.as_ref()) };
            let values = part_values(link, table_map, target, &row.fields, &row.source, row.key.as_ref(), &info);
            group.parts.push(PartRow { target, info, values });
        }
    }
    for (target, &map) in table_map.targets.iter().enumerate() {
        let lacking = (0..groups.len()).filter(|&place| !has(&groups[place], target)).collect::<Vec<_>>();
        let keys = lacking.iter().filter_map(|&place| groups[place].key.clone()).collect::<Vec<_>>();
        let known = link.store.cross_references(&link.scope, &table_map.provenance(link, target), &keys).await?;
        let mut asked = Vec::new();
        for place in lacking {
            let group = &groups[place];
            let pair = group.key.as_ref().and_then(|key| known.get(key)).filter(|pair| !pair.deleted);
            let referred = || {
                let own = group.changed.iter();
                let mut all = own.flat_map(|&(from, at)| references(link, table_map, from, &rows[at].source));
                all.find(|(to, _)| *to == target).map(|(_, id)| id)
            };
            if let Some(id) = pair.and_then(|pair| pair.dataverse_id).or_else(referred) {
                asked.push((place, Address::Id(id)));
            }
        }
        if asked.is_empty() {
            continue;
        }
        let table = &link.maps[map].dataverse.table;
        let Some(flow) = link.maps[map].flow(SystemKind::Finops) else { continue };
        let reads = asked.iter().map(|(_, address)| (&**table, address)).collect::<Vec<_>>();
        let read = link.dataverse.read_rows(&reads, budget.before_write(Instant::now())?).await?;
        let mut there = Vec::new();
        for ((place, _), row) in asked.into_iter().zip(read) {
            match row {
                Ok(Some(row)) => there.push((place, row)),
                // Gone by now: its delete is on the way.
                Ok(None) => {}
                Err(fault) => fail(rows, &groups[place], &fault),
            }
        }
        let values = there.iter().map(|(_, row)| row.values.as_slice()).collect::<Vec<_>>();
        let sources = link.sources(budget.before_write(Instant::now())?);
        link.lookups.read_names(&sources, &flow.names, &values).await?;
        for (place, row) in there {
            match flow.project(&row.values, &link.lookups.names()) {
                Ok(fields) => {
                    let company = company_of(groups[place].company.as_ref());
                    let info = Info { operation: Operation::Upsert, creating: false, company };
                    let values = part_values(link, table_map, target, &fields, &row.values, None, &info);
                    groups[place].parts.push(PartRow { target, info, values });
                }
                Err(fault) => fail(rows, &groups[place], &fault),
            }
        }
    }
    Ok(())
}

fn company_of(company: Option<&String>) -> String {
    company.cloned().unwrap_or_default()
}

fn fail(rows: &mut [RowWork], group: &Group, fault: &Fault) {
    for &(_, at) in &group.changed {
        rows[at].fail(fault.clone());
    }
}

/// A row of a target as the plugin sees it: from the fields of the way back, and of a deleted row from its key.
fn part_values(
    link: &Link,
    table_map: &TableMap,
    target: usize,
    fields: &[Value],
    source: &[Value],
    key: Option<&RowKey>,
    info: &Info,
) -> Vec<Value> {
    let map = &link.maps[table_map.targets[target]];
    let schema = &map.finops.table.schema;
    let mut given = vec![Value::Absent; schema.columns().len()];
    let flow_fields = map.flow(SystemKind::Finops).map(|flow| flow.fields.as_slice()).unwrap_or_default();
    for (field, value) in flow_fields.iter().zip(fields) {
        if let Some(index) = field.finops.as_deref().and_then(|name| schema.index_of(name)) {
            given[index] = value.clone();
        }
    }
    if fields.is_empty() {
        for (name, value) in key.and_then(|key| map.plan.finops_key(schema, key)).unwrap_or_default() {
            if let Some(index) = schema.index_of(&name) {
                given[index] = value;
            }
        }
    }
    table_map.target_columns[target]
        .iter()
        .map(|column| match column {
            TargetColumn::Value(index) => given[*index].clone(),
            TargetColumn::Company => Value::text(&info.company),
            TargetColumn::Reference(index) => source.get(*index).cloned().unwrap_or_default(),
        })
        .collect()
}

/// The source rows as F&O holds them.
async fn read_sources(link: &Link, table_map: &TableMap, groups: &mut [Group], budget: &Budget) -> Result<(), Hold> {
    let map = &link.maps[table_map.source];
    let table = &map.finops.table;
    let asked = groups
        .iter()
        .enumerate()
        .filter_map(|(place, group)| {
            Some((place, Address::Key(map.plan.finops_key(&table.schema, group.key.as_ref()?)?)))
        })
        .collect::<Vec<_>>();
    if asked.is_empty() {
        return Ok(());
    }
    let reads = asked.iter().map(|(_, address)| (&**table, address)).collect::<Vec<_>>();
    let read = link.finops.read_rows(&reads, budget.before_write(Instant::now())?).await?;
    for ((place, _), row) in asked.iter().zip(read) {
        // A key that F&O refuses to look for names no row.
        groups[*place].current = row.ok().flatten();
    }
    Ok(())
}

/// The rows of one target table that take part, column by column as the guest takes them.
#[derive(Default)]
struct TableParts<'a> {
    info: Vec<RowInfo<'a>>,
    rows: Vec<&'a [Value]>,
    source_rows: Vec<usize>,
}

fn call_back(
    calls: &mut Calls,
    installation: &Installation,
    groups: &[Vec<PartRow>],
    current: &[Option<&[Value]>],
) -> Result<dualwright_sandbox::Merged, CallFault> {
    let mut tables: Vec<TableParts<'_>> = Vec::new();
    tables.resize_with(installation.spec.targets.len(), TableParts::default);
    for (position, parts) in groups.iter().enumerate() {
        for part in parts {
            let table = &mut tables[part.target];
            table.info.push(part.info.as_info());
            table.rows.push(&part.values);
            table.source_rows.push(position);
        }
    }
    let parts = tables
        .iter()
        .enumerate()
        .filter(|(_, parts)| !parts.rows.is_empty())
        .map(|(table, parts)| Part { table, info: &parts.info, rows: &parts.rows, source_rows: &parts.source_rows })
        .collect::<Vec<_>>();
    calls.table_map_back(installation, &parts, current)
}

/// One row of the source map, in whose fate the changed rows share.
fn take_merged(link: &Link, table_map: &TableMap, rows: &mut Vec<RowWork>, group: &Group, merged: MergedRow) {
    if group.changed.iter().any(|&(_, at)| !rows[at].is_open()) {
        return;
    }
    let Some(operation) = merged.operation else {
        // Of no source row, or of one to which this change means nothing.
        let fate = if group.key.is_some() { RowFate::Equal } else { RowFate::OutOfScope };
        group.changed.iter().for_each(|&(_, at)| rows[at].fate = Some(fate.clone()));
        return;
    };
    let map = &link.maps[table_map.source];
    let schema = &map.finops.table.schema;
    let mut values = vec![Value::Absent; schema.columns().len()];
    for (&column, value) in table_map.source_columns.iter().zip(merged.values) {
        values[column] = value;
    }
    if let (Some(column), Some(company)) = (schema.company, &group.company) {
        values[column] = Value::text(company);
    }
    let mut row = RowWork::new(rows[group.changed[0].1].change, table_map.source, operation);
    row.company.clone_from(&group.company);
    let key = match (&group.key, map.flow(SystemKind::Dataverse)) {
        (Some(key), _) => Ok(key.clone()),
        (None, Some(flow)) => flow.key(&values, &()),
        (None, None) => Err(Fault::new(Code::Internal, "a table map has no way to Dataverse")),
    };
    match key {
        Ok(key) => row.key = Some(key),
        Err(fault) => return fail(rows, group, &fault),
    }
    if operation == Operation::Upsert {
        let fields = map.flow(SystemKind::Finops).map(|flow| flow.fields.as_slice()).unwrap_or_default();
        let value = |name: Option<&str>| name.and_then(|name| schema.index_of(name)).map(|index| values[index].clone());
        row.fields = fields.iter().map(|field| value(field.finops.as_deref()).unwrap_or_default()).collect();
    }
    let place = rows.len();
    for &(_, at) in &group.changed {
        rows[at].part_of = Some(place);
        rows[at].fate = Some(RowFate::Mapped);
    }
    rows.push(row);
}

/// How the source rows were left. They are not the source of this delivery, so nothing of it ends them early.
async fn recall_sources(link: &Link, table_map: &TableMap, rows: &mut [RowWork]) -> Result<(), Hold> {
    let keys = rows.iter().filter_map(|row| row.key.clone()).collect::<Vec<_>>();
    if keys.is_empty() {
        return Ok(());
    }
    let known = link.store.cross_references(&link.scope, &table_map.slug, &keys).await?;
    let mut seen = HashSet::new();
    for row in rows {
        let Some(key) = &row.key else { continue };
        row.base = known.get(key).cloned();
        if !seen.insert(key.clone()) {
            let what = format!("two records of this delivery are both record {key} on F&O");
            row.fail(Fault::new(Code::DuplicateKey, what));
        }
    }
    Ok(())
}

/// Gives the rows that stood aside their fate, when everything else has one.
pub(super) fn close(link: &Link, work: &Work<'_>, rows: &mut [RowWork]) {
    match work.source {
        SystemKind::Finops => close_split(link, rows),
        SystemKind::Dataverse => close_merged(rows),
    }
}

/// A source row has arrived when all its rows have.
fn close_split(link: &Link, rows: &mut [RowWork]) {
    let mut faults: HashMap<usize, String> = HashMap::new();
    let mut receipts = HashMap::new();
    for row in rows.iter() {
        let Some(source) = row.part_of else { continue };
        if matches!(row.fate, Some(RowFate::Failed(_))) {
            faults.entry(source).or_insert_with(|| {
                format!("record {} of map {}, which it gives, failed", row.readable_key(), link.maps[row.map].slug)
            });
        }
        if let Some(receipt) = row.receipt {
            receipts.insert(source, receipt);
        }
    }
    for (source, what) in faults {
        if matches!(rows[source].fate, Some(RowFate::Mapped)) {
            // The rows that failed have their own records.
            rows[source].fail(Fault::new(Code::TransactionRolledBack, what));
        }
    }
    for (source, receipt) in receipts {
        rows[source].receipt = Some(receipt);
    }
}

/// What was put together shares the fate of the source row.
fn close_merged(rows: &mut [RowWork]) {
    for at in 0..rows.len() {
        let (Some(source), Some(RowFate::Mapped)) = (rows[at].part_of, &rows[at].fate) else { continue };
        let deleted = rows[at].operation == Operation::Delete;
        let fate = match &rows[source].fate {
            None => continue,
            Some(RowFate::Failed(fault)) => RowFate::Failed(fault.clone()),
            Some(RowFate::Yielded) => RowFate::Yielded,
            Some(_) if deleted => RowFate::Deleted,
            Some(fate @ (RowFate::Created | RowFate::Updated | RowFate::Superseded)) => fate.clone(),
            Some(_) => RowFate::Equal,
        };
        rows[at].receipt = rows[source].receipt;
        rows[at].fate = Some(fate);
    }
    // The changed rows have records of their own, with which the source row is tried again.
    let sources = rows.iter().filter_map(|row| row.part_of).collect::<HashSet<_>>();
    for source in sources {
        if let Some(RowFate::Failed(fault)) = &rows[source].fate {
            let fault = Fault { code: Code::TransactionRolledBack, ..fault.clone() };
            rows[source].fail(fault);
        }
    }
}

/// Whether a map's rows on this side are only rows of a plugin, which no system holds.
pub(super) const fn is_unreal(map: &LinkMap, side: SystemKind) -> bool {
    matches!((map.role, side), (Role::Target(_), SystemKind::Finops) | (Role::Source(_), SystemKind::Dataverse))
}
