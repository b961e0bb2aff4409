//! From a configuration to a [`Link`]: reads both systems' tables, compiles every map, installs every plugin.
//!
//! All problems are collected: a person who corrects a configuration wants to see all of it at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use dualwright_core::mapping::{Leg, Mapping, Reference, Severity};
use dualwright_core::plan::{self, PlanInput};
use dualwright_core::{Class, Code, Fault, Schema, SystemKind};
use dualwright_sandbox::{Plugin, Sandbox, SandboxSettings};

use super::bindings::Workshop;
use super::drift::{TableNews, Watch};
use super::order::{Node, parents_first};
use super::references;
use super::table_map::{self, ReadTableMap};
use crate::config::{Config, MapConfig, versions};
use crate::connect::metadata::Catalogue;
use crate::connect::{System, Table};
use crate::pipeline::lookups::Lookups;
use crate::pipeline::ownership::Claims;
use crate::pipeline::{Link, LinkMap, Role, Side};
use crate::setup::record::LinkRecord;
use crate::store::{Scope, Store};

const METADATA_TIMEOUT: Duration = Duration::from_secs(60);

/// Lookups lead at most this far: the longest path of the shipped maps has three parts, and its company one more.
const HOPS_MAX: usize = 5;

/// One thing that is wrong, or worth knowing, before anything starts.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StartProblem {
    pub is_error: bool,
    /// A system did not answer: nothing can be said of the rest, and another try may find nothing wrong.
    #[serde(skip)]
    pub is_passing: bool,
    pub file: String,
    pub place: String,
    pub message: String,
    pub remedy: String,
    /// A text that is wrong, and under it a line whose caret points at the character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

impl std::fmt::Display for StartProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_error { "error" } else { "notice" };
        write!(f, "{kind}: {}, {}: {}", self.file, self.place, self.message)?;
        if !self.remedy.is_empty() {
            // A remedy is a sentence of its own, or goes on with this one.
            let between = if self.remedy.starts_with(char::is_uppercase) { "." } else { ";" };
            write!(f, "{between} {}", self.remedy)?;
        }
        self.excerpt.iter().flat_map(|excerpt| excerpt.lines()).try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// A link that may start, and what else should be known of it.
pub struct PreparedLink {
    pub link: Link,
    pub notices: Vec<StartProblem>,
    /// What this look at the tables found, beyond what was known.
    pub news: Vec<TableNews>,
}

/// The sandbox of this configuration.
pub fn sandbox(config: &Config) -> Result<Sandbox, Fault> {
    Sandbox::new(sandbox_settings(config))
}

/// Settings of the sandbox for this configuration.
pub(crate) fn sandbox_settings(config: &Config) -> SandboxSettings {
    let default = SandboxSettings::default();
    SandboxSettings {
        limits: config.limits.plugin,
        tenant: config.limits.tenant,
        budget: config.limits.transaction_budget,
        threads: config.limits.plugin_threads.unwrap_or(default.threads),
        memory_bytes_highest: config.plugin_memory_bytes_highest().max(default.memory_bytes_highest),
        cache: Some(config.state.join("compiled")),
        ..default
    }
}

/// Makes the link of a configuration, or says everything that is in the way.
pub async fn prepare(config: &Config, store: Store) -> Result<PreparedLink, Vec<StartProblem>> {
    let sandbox = sandbox(config).map_err(|fault| vec![of_link(&fault)])?;
    prepare_with(config, store, sandbox).await
}

/// The same with a sandbox that is there already, whose figures go on.
pub async fn prepare_with(config: &Config, store: Store, sandbox: Sandbox) -> Result<PreparedLink, Vec<StartProblem>> {
    prepare_accepting(config, store, sandbox, &BTreeSet::new()).await
}

/// The same, and what these maps were validated against counts no more: their tables are taken as they are.
pub async fn prepare_accepting(
    config: &Config,
    store: Store,
    sandbox: Sandbox,
    accepted: &BTreeSet<String>,
) -> Result<PreparedLink, Vec<StartProblem>> {
    let mut problems = Problems::default();
    let scope = Scope { tenant: Arc::from(config.tenant.as_str()), link: Arc::from(config.link.slug.as_str()) };
    match LinkRecord::read(&store, &scope).await {
        Ok(record) => {
            if let Some(ended) = record.as_ref().and_then(LinkRecord::ended) {
                problems.error("dualwright.toml", "link", &ended, "`dualwright link create` makes it again");
                return Err(problems.list);
            }
        }
        Err(fault) => return Err(vec![of_link(&fault)]),
    }
    let finops = System::new(SystemKind::Finops, config.link.finops.clone()).map_err(|fault| vec![of_link(&fault)])?;
    let dataverse =
        System::new(SystemKind::Dataverse, config.link.dataverse.clone()).map_err(|fault| vec![of_link(&fault)])?;
    let (left, right) = tokio::join!(finops.catalogue(METADATA_TIMEOUT), dataverse.catalogue(METADATA_TIMEOUT));
    let (left, right) = match (left, right) {
        (Ok(left), Ok(right)) => (left, right),
        (left, right) => return Err([left.err(), right.err()].iter().flatten().map(of_link).collect()),
    };

    let plugins = admit(config, &sandbox, &mut problems);
    let watch = Watch::open(config, &store, accepted, super::now_micros()).await;
    let mut watch = watch.map_err(|fault| vec![of_link(&fault)])?;
    let maps = read_maps(config, &left, &right, &mut watch, &mut problems);
    let read_table_maps = table_map::read(config, &plugins, &left, &right, &mut problems);
    check_keys(&maps, &read_table_maps, &mut problems);
    check_entities(&maps, &mut problems);
    let wanted = Wanted::of(&maps, &read_table_maps);
    let schemas = Schemas::read(&finops, &dataverse, [&left, &right], &wanted, &mut problems).await;
    let keys = wanted.keys;

    let mut link_maps = Vec::new();
    let mut nodes = Vec::new();
    for map in &maps {
        let tables = (schemas.finops.get(&map.collection), schemas.dataverse.get(&map.leg.dataverse_set));
        let (Some(finops), Some(dataverse)) = tables else { continue };
        let mut as_leg = |leg: &Leg, problems: &mut Problems| {
            let map = ReadMap { leg: leg.clone(), ..map.clone() };
            compile(config, &map, &schemas, &keys, &sandbox, &plugins, problems)
        };
        let tables = [&**finops, &**dataverse];
        let compiled = watch.compile(map.config, &map.text, &map.leg, tables, &mut problems, &mut as_leg);
        if let Some((link_map, node)) = compiled {
            link_maps.push(link_map);
            nodes.push(node);
        }
    }
    let mut table_maps = Vec::new();
    for map in &read_table_maps {
        if let Some(compiled) = map.compile(config, &schemas, &keys, &sandbox, &mut problems) {
            let first = link_maps.len();
            let mut table_map = compiled.table_map;
            table_map.source += first;
            table_map.targets.iter_mut().for_each(|target| *target += first);
            for (link_map, node) in compiled.maps {
                if link_maps.iter().any(|other: &LinkMap| other.slug == link_map.slug) {
                    problems.error(
                        "dualwright.toml",
                        &format!("map `{}`", table_map.slug),
                        &format!("another map is called {}, as the map of one of its tables is", link_map.slug),
                        "Give one of the two another slug",
                    );
                }
                link_maps.push(link_map);
                nodes.push(node);
            }
            table_maps.push(table_map);
        }
    }
    if problems.list.iter().any(|problem| problem.is_error) {
        return Err(problems.list);
    }

    let (order, cut) = parents_first(&nodes);
    for position in cut {
        problems.notice(
            &link_maps[position].slug.clone(),
            "lookups",
            "this map and one that it refers to refer to each other; rows that miss their parent are tried again",
        );
    }
    for (index, table_map) in table_maps.iter_mut().enumerate() {
        link_maps[table_map.source].role = Role::Source(index);
        for &target in &table_map.targets {
            link_maps[target].role = Role::Target(index);
        }
        let place = |position: usize| order.iter().position(|&other| other == position).unwrap_or(position);
        table_map.source = place(table_map.source);
        table_map.targets.iter_mut().for_each(|target| *target = place(*target));
    }
    let mut slots = link_maps.into_iter().map(Some).collect::<Vec<_>>();
    let mut maps = order.into_iter().filter_map(|position| slots[position].take()).collect::<Vec<_>>();
    references::mark_circles(&mut maps);
    references::find_placeholders(config, &mut maps, &mut problems);
    if problems.errors() > 0 {
        return Err(problems.list);
    }
    let mut maps_of: HashMap<Arc<str>, Vec<Arc<str>>> = HashMap::new();
    for map in &maps {
        let set = Arc::clone(&map.dataverse.table.schema.set);
        maps_of.entry(set).or_default().push(Arc::clone(&map.slug));
    }
    let news = watch.news();
    watch.keep().await.map_err(|fault| vec![of_link(&fault)])?;
    for frozen in &watch.frozen {
        let message = format!("it is frozen: {}", frozen.why.join("; "));
        problems.add(false, "dualwright.toml", &format!("map `{}`", frozen.map), &message, &frozen.remedy());
    }
    let frozen = std::mem::take(&mut watch.frozen);
    let feed_tables = feed_tables(&maps, &schemas);
    let link = Link {
        scope,
        limits: config.limits,
        companies: config.link.companies.clone(),
        conflict_winner: config.link.conflict_winner,
        finops,
        dataverse,
        store,
        sandbox,
        lookups: Lookups::default(),
        claims: Claims::default(),
        tables: schemas.narrowed(),
        feed_tables,
        maps,
        table_maps,
        maps_of,
        frozen,
    };
    Ok(PreparedLink { link, notices: problems.list, news })
}

/// A plugin by its name: from the configuration's files, or one that comes with the runtime.
fn admit(config: &Config, sandbox: &Sandbox, problems: &mut Problems) -> HashMap<String, Arc<Plugin>> {
    let mut wanted = BTreeSet::new();
    for binding in config.maps.iter().flat_map(|map| &map.bindings) {
        wanted.insert(binding.plugin.as_str());
    }
    wanted.extend(config.table_maps.iter().map(|map| map.plugin.as_str()));
    let mut plugins = HashMap::new();
    for name in wanted {
        match plugin_bytes(config, name) {
            Ok(bytes) => match sandbox.admit(name, &bytes) {
                Ok(plugin) => {
                    plugins.insert(name.to_owned(), plugin);
                }
                Err(fault) => problems.fault("dualwright.toml", &format!("plugin `{name}`"), &fault),
            },
            Err((message, remedy)) => {
                problems.error("dualwright.toml", &format!("plugin `{name}`"), &message, &remedy);
            }
        }
    }
    plugins
}

fn plugin_bytes(config: &Config, name: &str) -> Result<std::borrow::Cow<'static, [u8]>, (String, String)> {
    use sha2::Digest;
    if let Some(file) = config.plugins.iter().find(|plugin| plugin.name == name) {
        let bytes = std::fs::read(&file.file).map_err(|error| {
            (format!("{} cannot be read: {error}", file.file.display()), "Name a file that can be read".to_owned())
        })?;
        if let Some(wanted) = &file.sha256 {
            let digest = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            if !wanted.eq_ignore_ascii_case(&digest) {
                let message = format!("{} has sha256 {digest}, not the one that is required", file.file.display());
                return Err((message, "Take the file that was approved, or approve this one".to_owned()));
            }
        }
        return Ok(bytes.into());
    }
    dualwright_plugins::standard(name).map(Into::into).ok_or_else(|| {
        let standard = dualwright_plugins::STANDARD.iter().map(|plugin| plugin.name).collect::<Vec<_>>().join(", ");
        (
            "is neither among the [[plugin]] files nor a standard plugin".to_owned(),
            format!("Add a [[plugin]] with its file, or use one of: {standard}"),
        )
    })
}

/// A map that was read, with the names of its two tables.
#[derive(Clone)]
struct ReadMap<'a> {
    config: &'a MapConfig,
    text: String,
    leg: Leg,
    collection: String,
}

fn read_maps<'a>(
    config: &'a Config,
    finops: &Catalogue,
    dataverse: &Catalogue,
    watch: &mut Watch<'_>,
    problems: &mut Problems,
) -> Vec<ReadMap<'a>> {
    let mut maps = Vec::new();
    for map in &config.maps {
        let file = map.file.display().to_string();
        let text = match versions::read(&map.file) {
            Ok(text) => text,
            Err(error) => {
                problems.error(&file, "file", &format!("cannot be read: {error}"), "Name a file that can be read");
                continue;
            }
        };
        let mapping = match Mapping::parse(&text) {
            Ok(mapping) => mapping,
            Err(found) => {
                problems.extend(&file, found);
                continue;
            }
        };
        let mut legs = mapping.legs.into_iter();
        let (Some(leg), None) = (legs.next(), legs.next()) else {
            problems.error(&file, "legs", "a map has one leg", "Split the map into one map per leg");
            continue;
        };
        // Whether a table that is not there was there before makes the difference.
        let mut own = Problems::default();
        if !dataverse.has_set(&leg.dataverse_set) {
            own.error(
                &file,
                "destinationSchema",
                &format!("Dataverse has no table {} [DIPV1020]", leg.dataverse_set),
                "Correct the name, or install the solution that brings the table",
            );
        }
        let by_name = leg.finops_distinct_name.as_deref().and_then(|name| finops.collection_of_entity(name));
        let collection = map
            .finops_collection
            .clone()
            .or_else(|| by_name.map(str::to_owned))
            .or_else(|| finops.collection_of_entity(&leg.finops_entity).map(str::to_owned));
        match collection {
            Some(collection) if finops.has_set(&collection) && own.errors() == 0 => {
                maps.push(ReadMap { config: map, text, leg, collection });
                continue;
            }
            Some(collection) if finops.has_set(&collection) => {}
            Some(collection) => own.error(
                &file,
                "finops_collection",
                &format!("F&O has no public collection {collection}"),
                "Correct finops_collection of the map",
            ),
            None => own.error(
                &file,
                "sourceSchema",
                &format!("the public collection of entity {} is not known [DIPV1018]", leg.finops_entity),
                "Give the map its finops_collection",
            ),
        }
        watch.unreadable(map, &text, own, problems);
    }
    maps
}

/// A table has one integration key, whoever writes it: lookups of other maps find its rows by it.
fn check_keys(maps: &[ReadMap<'_>], table_maps: &[ReadTableMap<'_>], problems: &mut Problems) {
    let of_maps = maps.iter().map(|map| (&map.leg.dataverse_set, &map.config.slug, &map.config.integration_key));
    let of_table_maps = table_maps
        .iter()
        .flat_map(|map| map.config.tables.iter().map(|table| (&table.set, &map.config.slug, &table.integration_key)));
    let mut first: HashMap<String, (&String, Vec<String>)> = HashMap::new();
    for (set, slug, key) in of_maps.chain(of_table_maps) {
        let mut key = key.iter().map(|path| path.to_lowercase()).collect::<Vec<_>>();
        key.sort();
        let (other, known) = first.entry(set.to_lowercase()).or_insert_with(|| (slug, key.clone()));
        if *known != key {
            let what = format!("it gives table {set} another integration key than map `{other}` does");
            problems.error(
                "dualwright.toml",
                &format!("map `{slug}`"),
                &what,
                "A table has one integration key: give both maps the same",
            );
        }
    }
}

/// Several maps that read one entity look at every change of it, each for itself (health check 1700).
fn check_entities(maps: &[ReadMap<'_>], problems: &mut Problems) {
    let mut of_entity: BTreeMap<&str, Vec<&ReadMap<'_>>> = BTreeMap::new();
    for map in maps {
        of_entity.entry(&map.collection).or_default().push(map);
    }
    for (collection, maps) in of_entity.iter().filter(|(_, maps)| maps.len() > 1) {
        // With a filter of its own a map says which of the changes are its.
        if maps.iter().any(|map| map.leg.finops_filter.trim().is_empty()) {
            let slugs = maps.iter().map(|map| map.config.slug.as_str()).collect::<Vec<_>>().join(", ");
            let what = format!("{slugs} read {collection}, so every change of it is looked at by each [HC1700]");
            problems.notice("dualwright.toml", "map", &what);
        }
    }
}

/// What the maps need to know of both systems.
struct Wanted {
    collections: BTreeSet<String>,
    /// Every path that a map or a key follows, with the Dataverse table where it begins.
    paths: Vec<(String, Vec<String>)>,
    /// Integration keys of the tables that some map writes.
    keys: HashMap<String, Vec<String>>,
}

impl Wanted {
    fn of(maps: &[ReadMap<'_>], table_maps: &[ReadTableMap<'_>]) -> Self {
        let mut wanted = Self { collections: BTreeSet::new(), paths: Vec::new(), keys: HashMap::new() };
        for map in table_maps {
            wanted.collections.insert(map.config.finops_collection.clone());
            wanted.paths.extend(map.config.tables.iter().map(|table| (table.set.clone(), Vec::new())));
            wanted.paths.extend(map.paths());
            let tables = map.config.tables.iter();
            wanted.keys.extend(tables.map(|table| (table.set.clone(), table.integration_key.clone())));
        }
        for map in maps {
            let set = &map.leg.dataverse_set;
            wanted.collections.insert(map.collection.clone());
            wanted.paths.push((set.clone(), Vec::new()));
            let key = map.config.integration_key.iter().map(|path| parts(path));
            wanted.paths.extend(paths_of(&map.leg).chain(key).map(|path| (set.clone(), path)));
            wanted.keys.insert(set.clone(), map.config.integration_key.clone());
        }
        wanted
    }
}

/// Tables of both systems, whole, and which columns of the Dataverse ones somebody needs for lookups.
#[derive(Default)]
pub(super) struct Schemas {
    pub(super) finops: HashMap<String, Arc<Schema>>,
    pub(super) dataverse: HashMap<String, Arc<Schema>>,
    columns: HashMap<String, BTreeSet<usize>>,
}

impl Schemas {
    async fn read(
        finops: &System,
        dataverse: &System,
        [left, catalogue]: [&Catalogue; 2],
        wanted: &Wanted,
        problems: &mut Problems,
    ) -> Self {
        let mut schemas = Self::default();
        let collections = wanted.collections.iter().map(String::as_str).collect();
        for (set, schema) in read_all(finops, left, collections).await {
            match schema {
                Ok(schema) => {
                    schemas.finops.insert(set, Arc::new(schema));
                }
                Err(fault) => problems.fault("dualwright.toml", &format!("F&O table {set}"), &fault),
            }
        }
        let mut open = wanted.paths.clone();
        let mut followed = BTreeSet::new();
        for _ in 0..HOPS_MAX {
            let missing = open
                .iter()
                .map(|(set, _)| set.as_str())
                .filter(|set| !schemas.dataverse.contains_key(*set) && catalogue.has_set(set))
                .collect::<BTreeSet<_>>();
            for (set, schema) in read_all(dataverse, catalogue, missing).await {
                match schema {
                    Ok(schema) => {
                        schemas.dataverse.insert(set, Arc::new(schema));
                    }
                    Err(fault) => problems.fault("dualwright.toml", &format!("Dataverse table {set}"), &fault),
                }
            }
            let mut next = Vec::new();
            for (set, path) in std::mem::take(&mut open) {
                if !followed.insert((set.clone(), path.clone())) {
                    continue;
                }
                schemas.follow(&set, &path, &wanted.keys, &mut next);
            }
            if next.is_empty() {
                break;
            }
            open = next;
        }
        schemas
    }

    /// Notes the first column of `path`, and where the rest of it leads.
    fn follow(
        &mut self,
        set: &str,
        path: &[String],
        keys: &HashMap<String, Vec<String>>,
        next: &mut Vec<(String, Vec<String>)>,
    ) {
        let (Some(schema), Some((first, rest))) = (self.dataverse.get(set), path.split_first()) else { return };
        let Some(index) = schema.index_of(first) else { return };
        self.columns.entry(set.to_owned()).or_default().insert(index);
        let targets = schema.column(index).lookup.iter().flat_map(|lookup| &lookup.targets);
        for target in targets.filter(|_| !rest.is_empty()) {
            next.push((target.set.to_string(), rest.to_vec()));
            for key in keys.get(&*target.set).into_iter().flatten() {
                next.push((target.set.to_string(), parts(key)));
            }
            if let Some(company) = self.company_path(&target.set) {
                next.push((target.set.to_string(), company));
            }
        }
    }

    /// A company-specific table is searched with its company, whoever writes it.
    fn company_path(&self, set: &str) -> Option<Vec<String>> {
        let schema = self.dataverse.get(set)?;
        let company = schema.column(schema.company?).name.to_string();
        Some(vec![company, "cdm_companycode".to_owned()])
    }

    /// The tables that lookups point to, with only the columns that somebody follows.
    fn narrowed(&self) -> HashMap<Arc<str>, Arc<Table>> {
        self.dataverse
            .iter()
            .map(|(set, schema)| {
                let mut keep = self.columns.get(set).cloned().unwrap_or_default();
                keep.extend(schema.primary_id);
                keep.extend(schema.company);
                let keep = keep.into_iter().collect::<Vec<_>>();
                (Arc::from(set.as_str()), Arc::new(Table::new(Arc::new(schema.narrow(&keep)))))
            })
            .collect()
    }
}

async fn read_all(
    system: &System,
    catalogue: &Catalogue,
    sets: BTreeSet<&str>,
) -> Vec<(String, Result<Schema, Fault>)> {
    // Metadata is read once per start; a few requests at a time do not trouble anybody's service protection.
    const AT_ONCE: usize = 8;
    let mut read = Vec::with_capacity(sets.len());
    let sets = sets.into_iter().collect::<Vec<_>>();
    for chunk in sets.chunks(AT_ONCE) {
        let requests = chunk
            .iter()
            .map(|set| async move { ((*set).to_owned(), system.schema(catalogue, set, METADATA_TIMEOUT).await) });
        read.extend(futures_util::future::join_all(requests).await);
    }
    read
}

pub(super) fn parts(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// The Dataverse paths of a leg's fields.
fn paths_of(leg: &Leg) -> impl Iterator<Item = Vec<String>> + '_ {
    leg.fields.iter().filter_map(|field| field.dataverse.as_ref()).flat_map(|path| {
        let rests = match &path.reference {
            Reference::None => vec![Vec::new()],
            Reference::Path(rest) => vec![rest.clone()],
            Reference::ByTable(tables) => tables.iter().map(|(_, rest)| rest.clone()).collect(),
        };
        rests.into_iter().map(|rest| std::iter::once(path.column.clone()).chain(rest).collect())
    })
}

fn compile(
    config: &Config,
    map: &ReadMap<'_>,
    schemas: &Schemas,
    keys: &HashMap<String, Vec<String>>,
    sandbox: &Sandbox,
    plugins: &HashMap<String, Arc<Plugin>>,
    problems: &mut Problems,
) -> Option<(LinkMap, Node)> {
    let file = map.config.file.display().to_string();
    let finops = schemas.finops.get(&map.collection)?;
    let dataverse = schemas.dataverse.get(&map.leg.dataverse_set)?;
    let plan_of = |finops: &Schema, dataverse: &Schema| {
        plan::compile(&PlanInput {
            leg: &map.leg,
            finops,
            dataverse,
            integration_key: &map.config.integration_key,
            tables: &|set| schemas.dataverse.get(set).cloned(),
            key_of_set: &|set| keys.get(set).cloned(),
            settings: map.config.settings,
        })
    };
    let whole = match plan_of(finops, dataverse) {
        Ok(plan) => plan,
        Err(found) => {
            problems.extend(&file, found);
            return None;
        }
    };
    // A second time against only the columns that the map touches: rows are as short as that from here on.
    let finops = Arc::new(finops.narrow(&with_ids(finops, &whole.finops_columns)));
    let dataverse = Arc::new(dataverse.narrow(&with_ids(dataverse, &whole.dataverse_columns)));
    let plan = match plan_of(&finops, &dataverse) {
        Ok(plan) => plan,
        Err(found) => {
            problems.extend(&file, found);
            return None;
        }
    };
    problems.extend(&file, plan.notices.clone());
    let mut plan = plan;
    references::apply_rules(map.config, &mut plan, &dataverse, problems);
    let mut refers_to = BTreeSet::new();
    for path in paths_of(&map.leg).chain(map.config.integration_key.iter().map(|path| parts(path))) {
        if path.len() > 1
            && let Some(index) = dataverse.index_of(&path[0])
        {
            let targets = dataverse.column(index).lookup.iter().flat_map(|lookup| &lookup.targets);
            refers_to.extend(targets.map(|target| target.set.to_string()));
        }
    }
    let node = Node { set: map.leg.dataverse_set.clone(), refers_to };
    let workshop = Workshop { config, map: map.config, sandbox, plugins };
    let to_dataverse = workshop.bindings(plan.to_dataverse.as_mut(), &dataverse, problems);
    let to_finops = workshop.bindings(plan.to_finops.as_mut(), &finops, problems);
    let link_map = LinkMap {
        slug: Arc::from(map.config.slug.as_str()),
        role: Role::Ordinary,
        finops: Side { columns: content_columns(&finops, &plan.finops_columns), table: Arc::new(Table::new(finops)) },
        dataverse: Side {
            columns: content_columns(&dataverse, &plan.dataverse_columns),
            table: Arc::new(Table::new(dataverse)),
        },
        plan,
        to_dataverse,
        to_finops,
        placeholders: Vec::new(),
        leaving_filter: map.config.leaving_filter,
        companies: map.config.companies.clone(),
    };
    Some((link_map, node))
}

/// The columns of a map that are content: all but the id.
pub(super) fn content_columns(schema: &Schema, used: &[usize]) -> Vec<usize> {
    used.iter().copied().filter(|&index| Some(index) != schema.primary_id).collect()
}

/// The columns of a map, and those that identify a row.
pub(super) fn with_ids(schema: &Schema, columns: &[usize]) -> Vec<usize> {
    let mut keep = columns.iter().copied().collect::<BTreeSet<_>>();
    keep.extend(schema.primary_id);
    keep.extend(schema.key.iter().copied());
    keep.extend(schema.company);
    keep.into_iter().collect()
}

/// What the delta feed of a table has to select: the columns of every map that takes it to F&O.
fn feed_tables(maps: &[LinkMap], schemas: &Schemas) -> HashMap<Arc<str>, Arc<Table>> {
    let mut columns: BTreeMap<Arc<str>, BTreeSet<usize>> = BTreeMap::new();
    for map in maps.iter().filter(|map| map.reads_dataverse()) {
        let schema = &map.dataverse.table.schema;
        let Some(whole) = schemas.dataverse.get(&*schema.set) else { continue };
        columns
            .entry(Arc::clone(&schema.set))
            .or_default()
            .extend(schema.columns().iter().filter_map(|column| whole.index_of(&column.name)));
    }
    columns
        .into_iter()
        .filter_map(|(set, keep)| {
            let keep = keep.into_iter().collect::<Vec<_>>();
            let schema = schemas.dataverse.get(&*set)?.narrow(&keep);
            Some((set, Arc::new(Table::new(Arc::new(schema)))))
        })
        .collect()
}

#[derive(Default)]
pub(super) struct Problems {
    list: Vec<StartProblem>,
}

impl Problems {
    pub(super) fn list(&self) -> &[StartProblem] {
        &self.list
    }

    pub(super) fn take(&mut self, more: Self) {
        self.list.extend(more.list);
    }

    fn add(&mut self, is_error: bool, file: &str, place: &str, message: &str, remedy: &str) {
        self.list.push(StartProblem {
            is_error,
            is_passing: false,
            file: file.to_owned(),
            place: place.to_owned(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
            excerpt: None,
        });
    }

    pub(super) fn error(&mut self, file: &str, place: &str, message: &str, remedy: &str) {
        self.add(true, file, place, message, remedy);
    }

    pub(super) fn errors(&self) -> usize {
        self.list.iter().filter(|problem| problem.is_error).count()
    }

    pub(super) fn notice(&mut self, file: &str, place: &str, message: &str) {
        self.add(false, file, place, message, "");
    }

    pub(super) fn fault(&mut self, file: &str, place: &str, fault: &Fault) {
        self.list.push(StartProblem { file: file.to_owned(), place: place.to_owned(), ..of_link(fault) });
    }

    pub(super) fn extend(&mut self, file: &str, found: Vec<dualwright_core::mapping::Problem>) {
        for problem in found {
            let is_error = problem.severity == Severity::Error;
            let code = problem.foreign_code.map(|code| format!(" [{code}]")).unwrap_or_default();
            let message = format!("{}{code}", problem.message);
            self.add(is_error, file, &problem.place, &message, &problem.remedy);
            if let Some(added) = self.list.last_mut() {
                added.excerpt = problem.excerpt;
            }
        }
    }
}

fn of_link(fault: &Fault) -> StartProblem {
    StartProblem {
        is_error: true,
        is_passing: fault.class() == Class::Transient,
        file: "dualwright.toml".to_owned(),
        place: "link".to_owned(),
        message: fault.to_string(),
        remedy: match fault.code {
            Code::Unavailable | Code::TimedOut => {
                "see whether its url under [link] is right, and whether it runs and can be reached from here; then repeat \
                 the command"
                    .to_owned()
            }
            Code::Throttled => "repeat the command in some minutes".to_owned(),
            code => code.remedy().to_owned(),
        },
        excerpt: None,
    }
}
