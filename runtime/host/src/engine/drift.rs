//! Tables that change under their maps: what a map was validated against is kept in the state, held against what both
//! systems say at every look, and decides whether the map goes on.
//!
//! Owns the record of a map and its verdict. A map that was never validated has no record: what is wrong with it is an
//! error like any other. One that was, and that does not fit its tables any more, is frozen, and the others go on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dualwright_core::drift::{Drift, DriftAction, DriftKind, TableRecord, UsedColumns, drifts};
use dualwright_core::mapping::Leg;
use dualwright_core::plan::MapPlan;
use dualwright_core::{Code, Fault, Schema, SystemKind};
use serde::{Deserialize, Serialize};

use super::order::Node;
use super::prepare::{Problems, StartProblem};
use crate::config::{Config, MapConfig};
use crate::pipeline::LinkMap;
use crate::store::{NewActivity, Scope, Settlement, Store};

/// Says that some map's record is another one; a runtime at work looks at it.
pub(super) const CHANGED: &str = "tables";

/// What a map was validated against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MapRecord {
    /// SHA-256 of what else the validation depends on: the map's text and its key.
    map: String,
    finops: TableRecord,
    dataverse: TableRecord,
    /// Columns whose fields are left out, because the tables do not take them any more.
    left_out: Vec<(SystemKind, String)>,
    frozen: Option<Frozen>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Frozen {
    /// Microseconds since 1970.
    at: i64,
    why: Vec<String>,
}

/// A map that carries nothing, because its tables changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FrozenMap {
    pub map: Arc<str>,
    pub why: Vec<String>,
}

/// What became of a map, because its tables changed or fit again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableNews {
    pub map: Arc<str>,
    /// As the activity log calls it: `map-frozen`, `map-thawed` or `table-changed`.
    pub kind: &'static str,
    pub text: String,
}

impl FrozenMap {
    /// What a person does about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        format!(
            "correct the map or the table, then `dualwright map refresh {} --accept`; it then catches up with what it missed",
            self.map
        )
    }
}

fn job(slug: &str) -> String {
    format!("tables/{slug}")
}

fn record_of(slug: &str, text: &str) -> Result<MapRecord, Fault> {
    serde_json::from_str(text).map_err(|error| {
        Fault::new(Code::StoreFailed, format!("what map {slug} was validated against cannot be read: {error}"))
    })
}

/// The maps of a configuration that are frozen, as the state says.
pub async fn frozen_maps(config: &Config, store: &Store) -> Result<Vec<FrozenMap>, Fault> {
    let scope = scope_of(config);
    let mut frozen = Vec::new();
    for map in &config.maps {
        let Some(text) = store.cursor(&scope, &job(&map.slug)).await? else { continue };
        if let Some(own) = record_of(&map.slug, &text)?.frozen {
            frozen.push(FrozenMap { map: Arc::from(map.slug.as_str()), why: own.why });
        }
    }
    Ok(frozen)
}

pub(super) fn scope_of(config: &Config) -> Scope {
    Scope { tenant: Arc::from(config.tenant.as_str()), link: Arc::from(config.link.slug.as_str()) }
}

/// What is known of the maps, and what this look at their tables finds.
pub(super) struct Watch<'a> {
    config: &'a Config,
    store: &'a Store,
    /// Maps that are validated anew, whatever was known of their tables.
    accepted: &'a BTreeSet<String>,
    now: i64,
    before: HashMap<String, MapRecord>,
    after: Vec<(String, MapRecord)>,
    activity: Vec<NewActivity>,
    pub frozen: Vec<FrozenMap>,
    /// Maps that go on after they were frozen.
    pub thawed: Vec<String>,
    /// Dataverse tables whose feeds have to begin anew.
    feeds: BTreeSet<String>,
}

/// One way to compile a map: the leg to take, into these problems.
pub(super) type Compile<'a> = dyn FnMut(&Leg, &mut Problems) -> Option<(LinkMap, Node)> + 'a;

impl<'a> Watch<'a> {
    pub(super) async fn open(
        config: &'a Config,
        store: &'a Store,
        accepted: &'a BTreeSet<String>,
        now: i64,
    ) -> Result<Self, Fault> {
        let scope = scope_of(config);
        let mut before = HashMap::new();
        for map in &config.maps {
            if let Some(text) = store.cursor(&scope, &job(&map.slug)).await? {
                before.insert(map.slug.clone(), record_of(&map.slug, &text)?);
            }
        }
        Ok(Self {
            config,
            store,
            accepted,
            now,
            before,
            after: Vec::new(),
            activity: Vec::new(),
            frozen: Vec::new(),
            thawed: Vec::new(),
            feeds: BTreeSet::new(),
        })
    }

    /// What the map was validated against, where that still says something.
    fn known(&self, map: &MapConfig, fingerprint: &str) -> Option<&MapRecord> {
        let same = |record: &&MapRecord| record.map == fingerprint || record.frozen.is_some();
        self.before.get(&map.slug).filter(same)
    }

    /// A map that cannot even be held against its tables, for instance because one is gone.
    pub(super) fn unreadable(&mut self, map: &MapConfig, text: &str, found: Problems, problems: &mut Problems) {
        match self.known(map, &fingerprint(map, text)).cloned() {
            Some(record) => self.freeze(map, record, reasons(&found)),
            None => problems.take(found),
        }
    }

    /// Compiles a map against its tables, as far as it may go on. `None` when it may not: then it is frozen, or its
    /// problems are among `problems`.
    pub(super) fn compile(
        &mut self,
        map: &MapConfig,
        text: &str,
        leg: &Leg,
        tables: [&Schema; 2],
        problems: &mut Problems,
        compile: &mut Compile<'_>,
    ) -> Option<(LinkMap, Node)> {
        let fingerprint = fingerprint(map, text);
        let mut whole = Problems::default();
        let compiled = compile(leg, &mut whole);
        let compiled = compiled.filter(|_| whole.errors() == 0);
        let known = self.known(map, &fingerprint).cloned();
        let accepted = self.accepted.contains(&map.slug);
        let Some(record) = known.filter(|_| !accepted) else {
            // Validated for the first time, or anew.
            return match (compiled, self.before.get(&map.slug).cloned()) {
                (None, Some(record)) if accepted && record.frozen.is_some() => {
                    self.freeze(map, record, reasons(&whole));
                    None
                }
                (compiled, before) => {
                    problems.take(whole);
                    let compiled = compiled?;
                    self.validated(map, fingerprint, &compiled.0, tables, Vec::new(), before);
                    Some(compiled)
                }
            };
        };
        let found = changes(&record, tables);
        let is_same = record.map == fingerprint;
        if let Some(frozen) = &record.frozen
            && !(compiled.is_some() && (found.is_empty() || !is_same))
        {
            self.freeze(map, record.clone(), frozen.why.clone());
            return None;
        }
        // The tables are again as they were, or the map was corrected.
        if record.frozen.is_some() {
            problems.take(whole);
            let compiled = compiled?;
            self.validated(map, fingerprint, &compiled.0, tables, Vec::new(), Some(record));
            return Some(compiled);
        }
        let (mut freezing, mut noticed) = (Vec::new(), Vec::new());
        for drift in found {
            match map.drift.of(drift.system).action(&drift) {
                DriftAction::Freeze | DriftAction::FreezeEssential => freezing.push(drift.to_string()),
                DriftAction::Notice => noticed.push((drift, true)),
                DriftAction::Ignore => noticed.push((drift, false)),
            }
        }
        if !freezing.is_empty() {
            self.freeze(map, record, freezing);
            return None;
        }
        if let Some(compiled) = compiled {
            problems.take(whole);
            self.notice(map, &noticed, &[]);
            self.validated(map, fingerprint, &compiled.0, tables, Vec::new(), Some(record));
            return Some(compiled);
        }
        // Without what is gone, and then without what it cannot take any more.
        let mut left_out = record.left_out.clone();
        for kind in [DriftKind::Removed, DriftKind::Retyped] {
            let more = noticed.iter().filter(|(drift, _)| drift.kind == kind);
            left_out.extend(more.map(|(drift, _)| (drift.system, drift.column.clone())));
            left_out.sort();
            left_out.dedup();
            let mut found = Problems::default();
            let shorter = without(leg, &left_out);
            if let Some(compiled) = compile(&shorter, &mut found).filter(|_| found.errors() == 0) {
                problems.take(found);
                let news = left_out.iter().filter(|own| !record.left_out.contains(own)).cloned().collect::<Vec<_>>();
                self.notice(map, &noticed, &news);
                self.validated(map, fingerprint, &compiled.0, tables, left_out, Some(record));
                return Some(compiled);
            }
        }
        let mut why = noticed.iter().map(|(drift, _)| drift.to_string()).collect::<Vec<_>>();
        why.extend(reasons(&whole));
        self.freeze(map, record, why);
        None
    }

    fn freeze(&mut self, map: &MapConfig, record: MapRecord, why: Vec<String>) {
        let frozen = FrozenMap { map: Arc::from(map.slug.as_str()), why };
        if record.frozen.as_ref().is_none_or(|before| before.why != frozen.why) {
            let text = format!("frozen: {}; {}", frozen.why.join("; "), frozen.remedy());
            self.log(map, "map-frozen", text);
            let at = record.frozen.as_ref().map_or(self.now, |before| before.at);
            self.after
                .push((map.slug.clone(), MapRecord { frozen: Some(Frozen { at, why: frozen.why.clone() }), ..record }));
        }
        self.frozen.push(frozen);
    }

    fn notice(&mut self, map: &MapConfig, noticed: &[(Drift, bool)], left_out: &[(SystemKind, String)]) {
        for (drift, _) in noticed.iter().filter(|(_, told)| *told) {
            let is_left_out = left_out.iter().any(|own| *own == (drift.system, drift.column.clone()));
            let consequence = match (drift.kind, is_left_out) {
                (_, true) => "; the map goes on without it",
                (DriftKind::New, _) => "; map it where it is wanted",
                _ => "; the map goes on as before",
            };
            self.log(map, "table-changed", format!("{drift}{consequence}"));
        }
    }

    fn validated(
        &mut self,
        map: &MapConfig,
        fingerprint: String,
        link_map: &LinkMap,
        tables: [&Schema; 2],
        left_out: Vec<(SystemKind, String)>,
        before: Option<MapRecord>,
    ) {
        let used = used_columns(map, &link_map.plan, link_map);
        let after = MapRecord {
            map: fingerprint,
            finops: TableRecord::of(tables[0], &used[0]),
            dataverse: TableRecord::of(tables[1], &used[1]),
            left_out,
            frozen: None,
        };
        if before.as_ref().is_some_and(|before| before.frozen.is_some()) {
            self.log(map, "map-thawed", "its tables fit again; it catches up with what it missed".to_owned());
            self.thawed.push(map.slug.clone());
            self.feeds.insert(after.dataverse.set.clone());
        }
        if before.as_ref().is_some_and(|before| before.left_out != after.left_out) {
            // A feed repeats the query that it began with, also columns that are gone.
            self.feeds.insert(after.dataverse.set.clone());
        }
        if before.as_ref() != Some(&after) {
            self.after.push((map.slug.clone(), after));
        }
    }

    fn log(&mut self, map: &MapConfig, kind: &'static str, text: String) {
        let map = Some(Arc::from(map.slug.as_str()));
        self.activity.push(NewActivity { at: self.now, map, kind, text });
    }

    /// What happened to maps at this look.
    pub(super) fn news(&self) -> Vec<TableNews> {
        let of =
            |line: &NewActivity| Some(TableNews { map: line.map.clone()?, kind: line.kind, text: line.text.clone() });
        self.activity.iter().filter_map(of).collect()
    }

    /// Keeps what was found, where there is something to keep it in.
    pub(super) async fn keep(&mut self) -> Result<(), Fault> {
        if self.store.is_read_only() {
            return Ok(());
        }
        let scope = scope_of(self.config);
        let changed = !self.after.is_empty();
        let mut cursors = Vec::new();
        for (slug, record) in &self.after {
            let text = serde_json::to_string(record).map_err(|error| {
                Fault::new(Code::Internal, format!("a record of tables cannot be written: {error}"))
            })?;
            cursors.push((job(slug), text));
        }
        for slug in &self.thawed {
            cursors.push((super::initial::job_of(slug), super::initial::anew(self.now)));
        }
        let watermarks = self.feeds.iter().map(|set| (super::capture::catch_up(set), "wanted".to_owned()));
        let mut first = Settlement {
            activity: std::mem::take(&mut self.activity),
            watermarks: watermarks.collect(),
            ..Settlement::default()
        };
        // Last of all, so that whoever looks finds everything.
        cursors.extend(changed.then(|| (CHANGED.to_owned(), self.now.to_string())));
        for cursor in cursors {
            let settlement = Settlement { cursor: Some(cursor), ..std::mem::take(&mut first) };
            self.store.settle(&scope, settlement).await?;
        }
        Ok(())
    }
}

fn fingerprint(map: &MapConfig, text: &str) -> String {
    use sha2::Digest;
    let mut digest = sha2::Sha256::new();
    digest.update(text.as_bytes());
    for path in &map.integration_key {
        digest.update([0]);
        digest.update(path.as_bytes());
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn reasons(problems: &Problems) -> Vec<String> {
    let error = |problem: &StartProblem| format!("{}: {}", problem.place, problem.message);
    problems.list().iter().filter(|problem| problem.is_error).map(error).collect()
}

fn changes(record: &MapRecord, [finops, dataverse]: [&Schema; 2]) -> Vec<Drift> {
    // What a choice offers is kept for mapped columns only, so both are read as if they were.
    let used = |before: &TableRecord| UsedColumns {
        key: Vec::new(),
        mapped: before.columns.keys().map(|name| name.to_lowercase()).collect(),
    };
    let mut found = drifts(SystemKind::Finops, &record.finops, &TableRecord::of(finops, &used(&record.finops)));
    found.extend(drifts(
        SystemKind::Dataverse,
        &record.dataverse,
        &TableRecord::of(dataverse, &used(&record.dataverse)),
    ));
    found
}

fn used_columns(map: &MapConfig, plan: &MapPlan, link_map: &LinkMap) -> [UsedColumns; 2] {
    let names = |schema: &Schema, columns: &[usize]| {
        columns.iter().map(|&index| schema.column(index).name.to_lowercase()).collect::<Vec<_>>()
    };
    let (finops, dataverse) = (&link_map.finops.table.schema, &link_map.dataverse.table.schema);
    let mut key = names(finops, &finops.key);
    key.extend(plan.key_fields.iter().filter_map(|field| field.finops.as_ref()).map(|name| name.to_lowercase()));
    let first = |path: &String| path.split('.').next().unwrap_or(path).to_lowercase();
    [
        UsedColumns { key, mapped: names(finops, &plan.finops_columns) },
        UsedColumns {
            key: map.integration_key.iter().map(first).collect(),
            mapped: names(dataverse, &plan.dataverse_columns),
        },
    ]
}

fn without(leg: &Leg, columns: &[(SystemKind, String)]) -> Leg {
    let mut shorter = leg.clone();
    shorter.fields.retain(|field| {
        !columns.iter().any(|(system, name)| match system {
            SystemKind::Finops => field.finops.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name)),
            SystemKind::Dataverse => field.dataverse.as_ref().is_some_and(|own| own.column.eq_ignore_ascii_case(name)),
        })
    });
    shorter
}
