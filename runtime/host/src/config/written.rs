//! The file as it was written, key by key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dualwright_core::drift::{DriftAction, DriftPolicy};
use dualwright_core::filter::Nulls;
use dualwright_core::mapping::MapVersion;
use dualwright_core::plan::PlanSettings;
use dualwright_core::plan::chain::Place;
use dualwright_core::{LookupRule, Missing, StepKind, SystemKind, Unmatched};
use dualwright_sandbox::Limits as PluginLimits;
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use super::plugin_limits::{WrittenPluginLimits, WrittenTenantLimits};
use super::versions::Versions;
use super::{
    BindingConfig, Config as Meaning, ConfigProblem, DriftPolicies, FaultPolicy, LeavingFilter, Limits, LinkConfig,
    LookupConfig, MapConfig, MappedTableConfig, PluginFile, Stage, TableMapConfig, certificates, endpoint, is_slug,
};
use crate::connect::{ClientCredentials, Endpoint};

/// The configuration of a link between an F&O and a Dataverse environment. Paths are relative to the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "dualwright.toml")]
pub(super) struct Config {
    /// Whose link this is: first in every key and path. Lower-case letters, digits, - and _.
    #[serde(default = "default_tenant")]
    tenant: String,
    /// Folder of the store and of compiled plugins.
    #[serde(default = "default_state")]
    state: PathBuf,
    /// Times and sizes.
    #[serde(default)]
    limits: WrittenLimits,
    /// The two environments.
    link: Link,
    /// Plugins that do not come with the runtime.
    #[serde(default)]
    plugin: Vec<Plugin>,
    /// Table maps.
    #[serde(default)]
    map: Vec<Map>,
}

fn default_tenant() -> String {
    "default".to_owned()
}

fn default_state() -> PathBuf {
    PathBuf::from("state")
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Limits")]
struct WrittenLimits {
    /// What a transaction may take, from its attempt to its end; 120 when left out.
    transaction_budget_seconds: Option<u64>,
    /// The part of the budget that only the write may use; 30 when left out.
    write_reserve_seconds: Option<u64>,
    /// What a plugin may use, where its installation says nothing else.
    #[serde(default)]
    plugin: WrittenPluginLimits,
    /// What all plugins of the tenant may use together.
    #[serde(default)]
    tenant: WrittenTenantLimits,
    /// Threads that plugins run on; one per processor when left out.
    #[schemars(range(min = 1, max = 256))]
    plugin_threads: Option<usize>,
    /// How often the feeds are asked when they had nothing. When left out: 500, and longer where they are many, so that
    /// looking takes at most half of the requests that Dataverse allows.
    poll_interval_ms: Option<u64>,
    /// Rows of one batch; 998 when left out, which is what a change set holds beside receipt and fence.
    #[schemars(range(min = 1, max = 998))]
    batch_rows_max: Option<usize>,
    /// Batches of an initial sync that are under way at the same time; 4 when left out.
    #[schemars(range(min = 1, max = 16))]
    initial_sync_concurrency: Option<usize>,
    /// Legal entities that `link create` takes at once; 40 when left out, as Dual-write has it.
    #[schemars(range(min = 1))]
    companies_when_linking_max: Option<usize>,
    /// Legal entities that a link may have in all; 250 when left out, as Dual-write has it.
    #[schemars(range(min = 1))]
    companies_live_max: Option<usize>,
    /// How far the clock of a system may be from ours before `link test` calls it wrong; 60 when left out.
    clock_skew_max_seconds: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Link {
    /// Its name in keys, paths and logs. Lower-case letters, digits, - and _.
    slug: String,
    /// Legal entities to keep in step, as `dataAreaId` writes them.
    companies: Vec<String>,
    /// Whose value stands when both sides changed a record; finops when left out.
    #[serde(default = "default_winner")]
    #[schemars(with = "SystemName")]
    conflict_winner: SystemKind,
    finops: Side,
    dataverse: Side,
}

const fn default_winner() -> SystemKind {
    SystemKind::Finops
}

/// How a [`SystemKind`] is written.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
#[expect(dead_code, reason = "it only stands for the names in the JSON Schema")]
enum SystemName {
    Finops,
    Dataverse,
}

/// One environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Side {
    /// Scheme and host, for instance https://contoso.crm.dynamics.com.
    url: String,
    /// Certificates to trust beside those of the machine, as PEM.
    ca_file: Option<PathBuf>,
    /// OAuth 2.0 client credentials; an emulator with --no-auth needs none.
    auth: Option<Auth>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Auth {
    /// Where tokens are given out.
    token_url: String,
    client_id: String,
    client_secret: SecretReference,
    scope: String,
}

/// Where a secret is to be found; a secret itself never stands in the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SecretReference {
    /// An environment variable.
    env: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Plugin {
    /// What maps call it.
    name: String,
    /// The component.
    file: PathBuf,
    /// The digest that the file must have; `dualwright plugin inspect` prints it.
    sha256: Option<String>,
}

/// A table map: either a file and its integration key, or a plugin that computes the rows and its tables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Map {
    /// Its name in keys, messages and on the command line. Lower-case letters, digits, - and _.
    slug: String,
    /// The map, as Dual-write exports it (msdyn_mapping).
    file: Option<PathBuf>,
    /// In place of a file: a version that was imported, or `active`.
    version: Option<String>,
    /// The Dataverse columns that identify a row, as dotted paths, with the company.
    integration_key: Option<Vec<String>>,
    /// The public collection of the F&O entity, where its metadata does not say it.
    finops_collection: Option<String>,
    /// What becomes of a value that no value map lists; fail when left out.
    #[schemars(with = "Option<UnmatchedName>")]
    unmatched: Option<Unmatched>,
    /// What a missing value means to the filter on F&O; empty-value when left out.
    #[schemars(with = "Option<NullsName>")]
    finops_nulls: Option<Nulls>,
    /// What becomes of a row that refers to one that is not there; hold when left out.
    #[schemars(with = "Option<MissingName>")]
    lookup_missing: Option<Missing>,
    /// The same for single lookups, and what it takes.
    #[serde(default)]
    lookup: Vec<Lookup>,
    /// What it means for the map when its tables change.
    #[serde(default)]
    drift: Drift,
    /// What becomes of the other side's row when a row leaves the filter of its side; keep when left out.
    leaving_filter: Option<LeavingFilter>,
    /// Of the link's legal entities those that the map carries; all of them when left out.
    companies: Option<Vec<String>>,
    /// Plugins at this map, in their order.
    #[serde(default)]
    plugin: Vec<Binding>,
    table_map: Option<TableMap>,
    /// The Dataverse tables that the plugin of `table_map` writes.
    #[serde(default)]
    table: Vec<Table>,
}

/// The names of [`Unmatched`], for the schema of the file.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum UnmatchedName {
    Fail,
    Keep,
    Clear,
}

/// The names of [`Nulls`], for the schema of the file.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum NullsName {
    EmptyValue,
    Unknown,
}

/// What it means for a map when the tables of either side change.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Drift {
    #[serde(default)]
    finops: DriftSide,
    #[serde(default)]
    dataverse: DriftSide,
}

/// `freeze-essential`, the default, freezes the map when it is a key or mandatory column, and notices others; `freeze`,
/// `notice` and `ignore` do the same for every column. A map that goes on does so without fields that do not fit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DriftSide {
    /// A column that was not there before.
    #[schemars(with = "Option<DriftActionName>")]
    new: Option<DriftAction>,
    /// A mapped column that is gone.
    #[schemars(with = "Option<DriftActionName>")]
    removed: Option<DriftAction>,
    /// A mapped column of another type, or that takes less than before.
    #[schemars(with = "Option<DriftActionName>")]
    retyped: Option<DriftAction>,
}

impl DriftSide {
    fn policy(&self) -> DriftPolicy {
        DriftPolicy {
            new: self.new.unwrap_or_default(),
            removed: self.removed.unwrap_or_default(),
            retyped: self.retyped.unwrap_or_default(),
        }
    }
}

/// The names of [`DriftAction`], for the schema of the file.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum DriftActionName {
    FreezeEssential,
    Freeze,
    Notice,
    Ignore,
}

/// One lookup of a map, and what becomes of a row whose lookup leads to no row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lookup {
    /// The lookup, by its Dataverse column or by an F&O column that fills it.
    field: String,
    /// `fail` waits for somebody to retry the row, `hold` for the missing row, `default` refers to another row or to
    /// none, `stub` makes the missing row of its key.
    #[schemars(with = "MissingName")]
    missing: Missing,
    /// With missing = "default": the key columns of the row to refer to, without the company. None when left out.
    #[serde(default)]
    default: BTreeMap<String, String>,
    /// With missing = "stub": the map that writes the placeholder; the first that writes the table when left out.
    map: Option<String>,
    /// With missing = "stub": what the placeholder holds beside its key, by Dataverse columns of that map.
    #[serde(default)]
    columns: BTreeMap<String, String>,
}

/// The names of [`Missing`], for the schema of the file.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum MissingName {
    Fail,
    Hold,
    Default,
    Stub,
}

/// Stands for file and integration key where a plugin computes the rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TableMap {
    plugin: String,
    /// As the plugin declares them; `dualwright plugin inspect` lists them.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    parameters: BTreeMap<String, toml::Value>,
    /// What a trap, a timeout or a broken answer means for the record.
    #[serde(default)]
    on_fault: FaultPolicy,
    /// Where this installation may use more, or less, than `[limits.plugin]` says.
    #[serde(default)]
    limits: WrittenPluginLimits,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Entity set.
    set: String,
    /// The columns that identify a row, as dotted paths, with the company.
    integration_key: Vec<String>,
}

/// One plugin at one place of a map.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Binding {
    /// A standard plugin, or one of the [[plugin]] files.
    name: String,
    stage: WrittenStage,
    /// The field mapping that it changes, by its F&O or Dataverse name.
    field: Option<String>,
    /// Several field mappings; a validator without any sees the whole row.
    #[serde(default)]
    fields: Vec<String>,
    direction: BindingDirection,
    /// For a transform: in front of this transform of the map. Bound both ways, this is meant on the way to Dataverse,
    /// and the chain is walked backwards on the way back. Behind all of them when neither is there.
    #[schemars(with = "Option<StepName>")]
    before: Option<StepKind>,
    /// The same, behind this transform of the map.
    #[schemars(with = "Option<StepName>")]
    after: Option<StepKind>,
    /// As the plugin declares them; `dualwright plugin inspect` lists them.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    parameters: BTreeMap<String, toml::Value>,
    /// What a trap, a timeout or a broken answer means for the record.
    #[serde(default)]
    on_fault: FaultPolicy,
    /// Where this installation may use more, or less, than `[limits.plugin]` says.
    #[serde(default)]
    limits: WrittenPluginLimits,
}

/// The names of [`StepKind`], for the schema of the file.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum StepName {
    Default,
    ValueMap,
    Truncate,
}

/// Where on the way of a row.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum WrittenStage {
    Transform,
    PreValidate,
    PostValidate,
    /// A place of its own in the file; known here to say so.
    #[schemars(skip)]
    TableMap,
}

/// Which way.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum BindingDirection {
    ToDataverse,
    ToFinops,
    Both,
}

pub(super) struct Problems<'a> {
    file: &'a str,
    list: Vec<ConfigProblem>,
}

impl Problems<'_> {
    pub(super) fn add(&mut self, place: impl Into<String>, message: impl Into<String>, remedy: &str) {
        self.list.push(ConfigProblem {
            file: self.file.to_owned(),
            place: place.into(),
            message: message.into(),
            remedy: remedy.to_owned(),
        });
    }
}

pub(super) fn raise(
    written: Config,
    file: &str,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Meaning, Vec<ConfigProblem>> {
    let mut problems = Problems { file, list: Vec::new() };
    for (place, slug) in [("tenant", &written.tenant), ("link.slug", &written.link.slug)] {
        if !is_slug(slug) {
            problems.add(place, format!("`{slug}` is not a slug"), "Use lower-case letters, digits, - and _");
        }
    }
    let limits = raise_limits(&written.limits, &mut problems);
    let companies = raise_companies(&written.link.companies, limits.companies_live_max, &mut problems);
    let finops = raise_side("link.finops", &written.link.finops, folder, environment, &mut problems);
    let dataverse = raise_side("link.dataverse", &written.link.dataverse, folder, environment, &mut problems);

    let mut names = BTreeSet::new();
    let plugins = written
        .plugin
        .into_iter()
        .map(|plugin| {
            if !names.insert(plugin.name.clone()) {
                problems.add("plugin", format!("`{}` is there twice", plugin.name), "Give each plugin its own name");
            }
            PluginFile { name: plugin.name, file: folder.join(plugin.file), sha256: plugin.sha256 }
        })
        .collect();

    let mut slugs = BTreeSet::new();
    let mut maps = Vec::with_capacity(written.map.len());
    let mut table_maps = Vec::new();
    for map in written.map {
        let place = format!("map `{}`", map.slug);
        if !is_slug(&map.slug) {
            problems.add(&place, "its slug is not a slug", "Use lower-case letters, digits, - and _");
        }
        if !slugs.insert(map.slug.clone()) {
            problems.add(&place, "the slug is there twice", "Give each map its own slug");
        }
        match map.table_map {
            Some(_) => table_maps.extend(raise_table_map(map, &place, &limits.plugin, &mut problems)),
            None => {
                let state = folder.join(&written.state);
                maps.extend(raise_map(map, &place, folder, &state, &companies, &limits.plugin, &mut problems));
            }
        }
    }
    if slugs.is_empty() {
        problems.add("map", "there is no map", "Add a [[map]] with its slug, file and integration_key");
    }
    match (finops, dataverse) {
        (Some(finops), Some(dataverse)) if problems.list.is_empty() => Ok(Meaning {
            tenant: written.tenant,
            state: folder.join(written.state),
            limits,
            link: LinkConfig {
                slug: written.link.slug,
                companies,
                conflict_winner: written.link.conflict_winner,
                finops,
                dataverse,
            },
            plugins,
            maps,
            table_maps,
        }),
        _ => Err(problems.list),
    }
}

fn raise_limits(written: &WrittenLimits, problems: &mut Problems<'_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        transaction_budget: written.transaction_budget_seconds.map_or(default.transaction_budget, Duration::from_secs),
        write_reserve: written.write_reserve_seconds.map_or(default.write_reserve, Duration::from_secs),
        plugin: written.plugin.raise(&default.plugin, "limits.plugin", problems),
        tenant: written.tenant.raise(problems),
        plugin_threads: written.plugin_threads,
        poll_interval: written.poll_interval_ms.map(Duration::from_millis).or(default.poll_interval),
        batch_rows_max: written.batch_rows_max.unwrap_or(default.batch_rows_max),
        initial_sync_concurrency: written.initial_sync_concurrency.unwrap_or(default.initial_sync_concurrency),
        companies_when_linking_max: written.companies_when_linking_max.unwrap_or(default.companies_when_linking_max),
        companies_live_max: written.companies_live_max.unwrap_or(default.companies_live_max),
        clock_skew_max: written.clock_skew_max_seconds.map_or(default.clock_skew_max, Duration::from_secs),
    };
    if limits.write_reserve >= limits.transaction_budget {
        problems.add("limits", "the write reserve leaves nothing of the budget", "Make write_reserve_seconds smaller");
    }
    if !(1..=crate::connect::CHANGE_SET_ROWS_MAX).contains(&limits.batch_rows_max) {
        problems.add(
            "limits.batch_rows_max",
            "is not between 1 and 998",
            "A change set holds 998 rows beside receipt and fence",
        );
    }
    if limits.plugin_threads.is_some_and(|threads| !(1..=256).contains(&threads)) {
        problems.add("limits.plugin_threads", "is not between 1 and 256", "Leave it out for one per processor");
    }
    if !(1..=16).contains(&limits.initial_sync_concurrency) {
        problems.add("limits.initial_sync_concurrency", "is not between 1 and 16", "Start with 4");
    }
    limits
}

fn raise_companies(written: &[String], live_max: usize, problems: &mut Problems<'_>) -> BTreeSet<String> {
    let companies = written.iter().map(|company| company.to_lowercase()).collect::<BTreeSet<_>>();
    if companies.is_empty() {
        problems.add("link.companies", "names no legal entity", "List the legal entities to keep in step");
    }
    if companies.len() > live_max {
        problems.add(
            "link.companies",
            format!("names {} legal entities, and limits.companies_live_max is {live_max}", companies.len()),
            "Take some out, or raise the limit",
        );
    }
    companies
}

fn raise_side(
    place: &str,
    side: &Side,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems<'_>,
) -> Option<Endpoint> {
    let credentials = match &side.auth {
        None => None,
        Some(auth) => {
            let secret = environment(&auth.client_secret.env);
            if secret.is_none() {
                problems.add(
                    format!("{place}.auth.client_secret"),
                    format!("the environment variable {} is not set", auth.client_secret.env),
                    "Set it before the start",
                );
            }
            match Url::parse(&auth.token_url) {
                Ok(token_url) => Some(ClientCredentials {
                    token_url,
                    client_id: auth.client_id.clone(),
                    client_secret: secret.unwrap_or_default(),
                    scope: auth.scope.clone(),
                }),
                Err(error) => {
                    problems.add(
                        format!("{place}.auth.token_url"),
                        format!("is not a URL: {error}"),
                        "Give the token endpoint",
                    );
                    None
                }
            }
        }
    };
    let ca_pem = side.ca_file.as_ref().and_then(|file| {
        let path = folder.join(file);
        match std::fs::read(&path).map_err(|error| error.to_string()).and_then(certificates) {
            Ok(pem) => Some(pem),
            Err(error) => {
                problems.add(
                    format!("{place}.ca_file"),
                    format!("{} does not hold certificates: {error}", path.display()),
                    "Give a PEM file with the certificates to trust",
                );
                None
            }
        }
    });
    match endpoint(&side.url, credentials, ca_pem) {
        Ok(endpoint) => Some(endpoint),
        Err(message) => {
            problems.add(
                format!("{place}.url"),
                message,
                "Give scheme and host, for instance https://contoso.crm.dynamics.com",
            );
            None
        }
    }
}

/// A map with a file. `None` when something is wrong with it.
fn raise_map(
    map: Map,
    place: &str,
    folder: &Path,
    state: &Path,
    companies_of_link: &BTreeSet<String>,
    plugin_limits: &PluginLimits,
    problems: &mut Problems<'_>,
) -> Option<MapConfig> {
    let bindings =
        map.plugin.into_iter().filter_map(|binding| raise_binding(binding, place, plugin_limits, problems)).collect();
    let file = match (&map.file, &map.version) {
        (Some(file), None) => Some(folder.join(file)),
        (None, Some(version)) => raise_version(version, &map.slug, place, state, problems),
        (Some(_), Some(_)) => {
            problems.add(place, "has a file and a version", "Delete one of the two");
            None
        }
        (None, None) => {
            let remedy = "Name its file, the version that was imported, or the plugin that maps its table";
            problems.add(place, "has neither a file nor a version nor a table_map", remedy);
            None
        }
    };
    let companies = map.companies.map(|list| list.iter().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>());
    if let Some(own) = &companies {
        let unknown = own.difference(companies_of_link).map(String::as_str).collect::<Vec<_>>().join(", ");
        if own.is_empty() || !unknown.is_empty() {
            let what =
                if own.is_empty() { "companies is empty".to_owned() } else { format!("the link has no {unknown}") };
            problems.add(place, what, "List legal entities of the link, or leave companies out for all of them");
        }
    }
    let integration_key = map.integration_key.unwrap_or_default();
    if integration_key.is_empty() {
        problems.add(place, "integration_key is empty", "List the Dataverse columns of the key");
    }
    if !map.table.is_empty() {
        problems.add(place, "has a [[map.table]] and no table_map", "Add its table_map, or delete the tables");
    }
    let lookups = raise_lookups(map.lookup_missing, map.lookup, place, problems);
    Some(MapConfig {
        slug: map.slug,
        file: file?,
        follows_active: map.version.as_deref() == Some(ACTIVE),
        integration_key,
        finops_collection: map.finops_collection,
        bindings,
        settings: PlanSettings {
            unmatched: map.unmatched.unwrap_or_default(),
            finops_nulls: map.finops_nulls.unwrap_or_default(),
        },
        lookups,
        drift: DriftPolicies { finops: map.drift.finops.policy(), dataverse: map.drift.dataverse.policy() },
        leaving_filter: map.leaving_filter.unwrap_or_default(),
        companies,
    })
}

/// Stands for whichever version was activated last.
const ACTIVE: &str = "active";

fn raise_lookups(
    all: Option<Missing>,
    written: Vec<Lookup>,
    place: &str,
    problems: &mut Problems<'_>,
) -> Vec<LookupConfig> {
    let mut lookups = Vec::with_capacity(written.len() + 1);
    let mut fields = BTreeSet::new();
    for lookup in written {
        let mut add = |message: &str, remedy: &str| {
            problems.add(format!("{place}, lookup {}", lookup.field), message, remedy);
        };
        if !fields.insert(lookup.field.to_lowercase()) {
            add("is there twice", "Name each lookup once");
        }
        if !lookup.default.is_empty() && lookup.missing != Missing::Default {
            add("has a default that nothing uses", "Write missing = \"default\", or delete default");
        }
        if (lookup.map.is_some() || !lookup.columns.is_empty()) && lookup.missing != Missing::Stub {
            add("says what a placeholder holds, and makes none", "Write missing = \"stub\", or delete map and columns");
        }
        lookups.push(LookupConfig {
            rule: LookupRule {
                field: Some(lookup.field),
                missing: lookup.missing,
                default: lookup.default.into_iter().collect(),
            },
            stub_map: lookup.map,
            stub_columns: lookup.columns.into_iter().collect(),
        });
    }
    lookups.extend(all.map(|missing| LookupConfig {
        rule: LookupRule { field: None, missing, default: Vec::new() },
        ..LookupConfig::default()
    }));
    lookups
}

/// The file of an imported version. Whether it is there is seen when it is read, as with any other file.
fn raise_version(version: &str, slug: &str, place: &str, state: &Path, problems: &mut Problems<'_>) -> Option<PathBuf> {
    let versions = Versions::of(state, slug);
    if version == ACTIVE {
        return Some(versions.active_file());
    }
    match version.parse::<MapVersion>() {
        Ok(version) => Some(versions.file(version)),
        Err(message) => {
            problems.add(place, message, "Write version = \"active\", or a version that `map versions` lists");
            None
        }
    }
}

/// A map whose rows a plugin computes. `None` when something is wrong with it.
fn raise_table_map(
    map: Map,
    place: &str,
    plugin_limits: &PluginLimits,
    problems: &mut Problems<'_>,
) -> Option<TableMapConfig> {
    for (key, is_there) in [
        ("file", map.file.is_some()),
        ("version", map.version.is_some()),
        ("integration_key", map.integration_key.is_some()),
        ("plugin", !map.plugin.is_empty()),
        ("unmatched", map.unmatched.is_some()),
        ("finops_nulls", map.finops_nulls.is_some()),
        ("lookup_missing", map.lookup_missing.is_some()),
        ("lookup", !map.lookup.is_empty()),
        ("leaving_filter", map.leaving_filter.is_some()),
        ("companies", map.companies.is_some()),
    ] {
        if is_there {
            problems.add(place, format!("has a table_map, which leaves no place for {key}"), "Delete one of the two");
        }
    }
    if map.finops_collection.is_none() {
        problems.add(place, "finops_collection is missing", "Name the public collection that the plugin maps");
    }
    if map.table.is_empty() {
        problems.add(
            place,
            "there is no [[map.table]]",
            "List the Dataverse tables, each with set and integration_key",
        );
    }
    let mut sets = BTreeSet::new();
    for table in &map.table {
        if table.integration_key.is_empty() {
            let what = format!("integration_key of table {} is empty", table.set);
            problems.add(place, what, "List the Dataverse columns of the key");
        }
        if !sets.insert(table.set.to_lowercase()) {
            problems.add(place, format!("table {} is there twice", table.set), "Name each table once");
        }
    }
    let table_map = map.table_map?;
    if table_map.on_fault == FaultPolicy::PassThrough {
        problems.add(
            place,
            format!("plugin `{}` may not let records pass when it fails", table_map.plugin),
            "Only a transform may have on_fault = \"pass-through\"",
        );
    }
    let limits =
        table_map.limits.raise(plugin_limits, &format!("{place}, plugin `{}`, limits", table_map.plugin), problems);
    let parameters = raise_parameters(table_map.parameters, place, problems);
    Some(TableMapConfig {
        slug: map.slug,
        finops_collection: map.finops_collection?,
        plugin: table_map.plugin,
        parameters,
        on_fault: table_map.on_fault,
        limits,
        tables: map
            .table
            .into_iter()
            .map(|table| MappedTableConfig { set: table.set, integration_key: table.integration_key })
            .collect(),
    })
}

fn raise_binding(
    binding: Binding,
    place: &str,
    plugin_limits: &PluginLimits,
    problems: &mut Problems<'_>,
) -> Option<BindingConfig> {
    let stage = match binding.stage {
        WrittenStage::Transform => Stage::Transform,
        WrittenStage::PreValidate => Stage::PreValidate,
        WrittenStage::PostValidate => Stage::PostValidate,
        WrittenStage::TableMap => {
            problems.add(
                place,
                format!("plugin `{}` maps a table, which is no stage of a map", binding.name),
                "Give a map of its own table_map = { plugin = \"…\" } and its [[map.table]] entries",
            );
            return None;
        }
    };
    let mut fields = binding.fields;
    fields.extend(binding.field);
    if stage == Stage::Transform && fields.is_empty() {
        problems.add(place, format!("plugin `{}` transforms no field", binding.name), "Name its field");
    }
    if binding.on_fault == FaultPolicy::PassThrough && stage != Stage::Transform {
        problems.add(
            place,
            format!("plugin `{}` may not let records pass when it fails", binding.name),
            "Only a transform may have on_fault = \"pass-through\"",
        );
    }
    let place_in_chain = match (binding.before, binding.after) {
        (None, None) => Place::Last,
        (Some(step), None) => Place::Before(step),
        (None, Some(step)) => Place::After(step),
        (Some(_), Some(_)) => {
            let what = format!("plugin `{}` is to stand before one transform and after another", binding.name);
            problems.add(place, what, "Write before or after");
            Place::Last
        }
    };
    if place_in_chain != Place::Last && stage != Stage::Transform {
        problems.add(
            place,
            format!("plugin `{}` changes no field, so it stands in no chain", binding.name),
            "Leave before and after out",
        );
    }
    let targets = match binding.direction {
        BindingDirection::ToDataverse => vec![SystemKind::Dataverse],
        BindingDirection::ToFinops => vec![SystemKind::Finops],
        BindingDirection::Both => vec![SystemKind::Dataverse, SystemKind::Finops],
    };
    let limits = binding.limits.raise(plugin_limits, &format!("{place}, plugin `{}`, limits", binding.name), problems);
    let parameters = raise_parameters(binding.parameters, place, problems);
    Some(BindingConfig {
        plugin: binding.name,
        stage,
        fields,
        place: place_in_chain,
        targets,
        parameters,
        on_fault: binding.on_fault,
        limits,
    })
}

fn raise_parameters(
    written: BTreeMap<String, toml::Value>,
    place: &str,
    problems: &mut Problems<'_>,
) -> serde_json::Value {
    let parameters = written.into_iter().filter_map(|(name, value)| match serde_json::to_value(value) {
        Ok(value) => Some((name, value)),
        Err(_) => {
            problems.add(
                place,
                format!("parameter `{name}` cannot be written as JSON"),
                "Use text, numbers, true and false",
            );
            None
        }
    });
    serde_json::Value::Object(parameters.collect())
}
