//! `dualwright.toml`: what was written, and what it means.
//!
//! Owns the file's shape and its defaults. The file is read once into [`written`], raised once into [`Config`], and
//! nothing after that checks it again. All problems are collected; unknown keys are problems.

pub mod edit;
mod plugin_limits;
pub mod versions;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dualwright_core::drift::DriftPolicy;
use dualwright_core::mapping::MapVersion;
use dualwright_core::plan::PlanSettings;
use dualwright_core::plan::chain::Place;
use dualwright_core::{Code, LookupRule, SystemKind};
use dualwright_sandbox::{Limits as PluginLimits, TenantLimits};
use reqwest::Url;

use crate::connect::{ClientCredentials, Endpoint};
use versions::Versions;

/// Everything the runtime was told.
#[derive(Debug, Clone)]
pub struct Config {
    pub tenant: String,
    /// Folder of the store and the compiled-code cache.
    pub state: PathBuf,
    pub limits: Limits,
    pub link: LinkConfig,
    pub plugins: Vec<PluginFile>,
    pub maps: Vec<MapConfig>,
    pub table_maps: Vec<TableMapConfig>,
}

/// Times and sizes, all with the defaults that the design decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub transaction_budget: Duration,
    /// Part of the budget that only the write may use.
    pub write_reserve: Duration,
    /// What a plugin may use where its installation says nothing else.
    pub plugin: PluginLimits,
    /// What all plugins of the tenant may use together.
    pub tenant: TenantLimits,
    /// Threads that plugins run on; `None` for one per processor.
    pub plugin_threads: Option<usize>,
    /// How often the feeds are asked when they had nothing; `None` for half a second, and longer where they are many.
    pub poll_interval: Option<Duration>,
    /// Rows of one batch; at most what a change set holds.
    pub batch_rows_max: usize,
    /// Batches of an initial sync that are under way at the same time.
    pub initial_sync_concurrency: usize,
    /// Legal entities that `link create` takes at once; others are added one by one.
    pub companies_when_linking_max: usize,
    /// Legal entities that a link may have in all.
    pub companies_live_max: usize,
    /// How far the clock of a system may be from ours before the connection test says so.
    pub clock_skew_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transaction_budget: Duration::from_secs(120),
            write_reserve: Duration::from_secs(30),
            plugin: PluginLimits::default(),
            tenant: TenantLimits::default(),
            plugin_threads: None,
            poll_interval: None,
            batch_rows_max: crate::connect::CHANGE_SET_ROWS_MAX,
            initial_sync_concurrency: 4,
            companies_when_linking_max: 40,
            companies_live_max: 250,
            clock_skew_max: Duration::from_secs(60),
        }
    }
}

/// One F&O environment tied to one Dataverse environment.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    pub slug: String,
    /// Legal entities of the link, lower case.
    pub companies: BTreeSet<String>,
    /// Whose value stands when both sides changed a record.
    pub conflict_winner: SystemKind,
    pub finops: Endpoint,
    pub dataverse: Endpoint,
}

/// A plugin that does not come with the runtime.
#[derive(Debug, Clone)]
pub struct PluginFile {
    pub name: String,
    pub file: PathBuf,
    /// The digest that the file must have.
    pub sha256: Option<String>,
}

/// One table map and how it is to run here.
#[derive(Debug, Clone)]
pub struct MapConfig {
    pub slug: String,
    pub file: PathBuf,
    /// It was written as `version = "active"`: the file is that of the version that was active then, and another one
    /// may take over.
    pub follows_active: bool,
    /// Dataverse column paths, company included (reference 1.8).
    pub integration_key: Vec<String>,
    /// Public collection of the F&O entity.
    pub finops_collection: Option<String>,
    pub bindings: Vec<BindingConfig>,
    pub settings: PlanSettings,
    pub lookups: Vec<LookupConfig>,
    pub drift: DriftPolicies,
    pub leaving_filter: LeavingFilter,
    /// Of the link's legal entities those that the map carries, lower case; `None` for all of them.
    pub companies: Option<BTreeSet<String>>,
}

/// Which version is active, by the slug of the map.
pub type ActiveVersions = BTreeMap<String, Option<MapVersion>>;

/// What changes of its tables mean for a map, per side.
#[derive(Debug, Clone, Copy, Default)]
pub struct DriftPolicies {
    pub finops: DriftPolicy,
    pub dataverse: DriftPolicy,
}

impl DriftPolicies {
    #[must_use]
    pub const fn of(&self, system: SystemKind) -> &DriftPolicy {
        match system {
            SystemKind::Finops => &self.finops,
            SystemKind::Dataverse => &self.dataverse,
        }
    }
}

/// What a map says about one lookup, or about all of them, when it leads to no row.
#[derive(Debug, Clone, Default)]
pub struct LookupConfig {
    pub rule: LookupRule,
    /// With [`Missing::Stub`]: the map that the placeholder is made by; `None` for the first that writes the table.
    pub stub_map: Option<String>,
    /// With [`Missing::Stub`]: what else the placeholder holds, by Dataverse paths of that map, as maps spell values.
    pub stub_columns: Vec<(String, String)>,
}

/// What becomes of the other side's row when a row that was carried over leaves the filter of its own side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LeavingFilter {
    /// It stays as it is, and is updated again when the row comes back; deleting the row deletes it still. The
    /// documentation of Dual-write is silent; this is what its behaviour amounts to.
    #[default]
    Keep,
    /// It is deleted.
    Delete,
    /// It stays, and the two are no pair any more: deleting one leaves the other alone.
    Detach,
}

/// A map whose rows a plugin computes: one F&O table, and the Dataverse tables that it becomes.
#[derive(Debug, Clone)]
pub struct TableMapConfig {
    pub slug: String,
    pub finops_collection: String,
    pub plugin: String,
    /// JSON object, as the plugin declares its parameters.
    pub parameters: serde_json::Value,
    pub on_fault: FaultPolicy,
    pub limits: PluginLimits,
    /// At least one, each set once.
    pub tables: Vec<MappedTableConfig>,
}

/// One Dataverse table that a table map writes.
#[derive(Debug, Clone)]
pub struct MappedTableConfig {
    /// Entity set.
    pub set: String,
    /// Dataverse column paths, company included (reference 1.8).
    pub integration_key: Vec<String>,
}

/// One plugin at one place of a map.
#[derive(Debug, Clone)]
pub struct BindingConfig {
    pub plugin: String,
    pub stage: Stage,
    /// The field mappings concerned, by their F&O or Dataverse name; empty for a validator that sees the whole row.
    pub fields: Vec<String>,
    /// For a transform: where it stands among the map's own transforms of its fields.
    pub place: Place,
    /// The systems that a flow may lead to for this binding to apply.
    pub targets: Vec<SystemKind>,
    /// JSON object, as the plugin declares its parameters.
    pub parameters: serde_json::Value,
    pub on_fault: FaultPolicy,
    pub limits: PluginLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    Transform,
    PreValidate,
    PostValidate,
}

impl Stage {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::PreValidate => "pre-validate",
            Self::PostValidate => "post-validate",
        }
    }
}

/// What a trap, a timeout or a broken answer of a plugin means for the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultPolicy {
    /// The record goes to the error queue; in a transaction the whole transaction does.
    #[default]
    SetAside,
    /// The whole delivery fails.
    Fail,
    /// The value passes as it was (transforms only).
    PassThrough,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ConfigProblem {
    pub file: String,
    pub place: String,
    pub message: String,
    pub remedy: String,
}

impl std::fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}, {}: {}. {}", Code::ConfigInvalid, self.file, self.place, self.message, self.remedy)
    }
}

impl TableMapConfig {
    /// The slug of the map that pairs the rows that the plugin gives with this table.
    #[must_use]
    pub fn slug_of(&self, set: &str) -> String {
        format!("{}-{set}", self.slug)
    }
}

impl Config {
    /// The most memory that any installation may give an instance.
    #[must_use]
    pub fn plugin_memory_bytes_highest(&self) -> usize {
        let bindings = self.maps.iter().flat_map(|map| &map.bindings).map(|binding| &binding.limits);
        let all = bindings.chain(self.table_maps.iter().map(|map| &map.limits)).chain([&self.limits.plugin]);
        all.map(|limits| limits.memory_bytes_max).max().unwrap_or_default()
    }

    /// The slugs of all maps as records and counts name them: a table map has one of its own and one for each table.
    #[must_use]
    pub fn map_slugs(&self) -> Vec<String> {
        let of_tables = self.table_maps.iter().flat_map(|map| {
            std::iter::once(map.slug.clone()).chain(map.tables.iter().map(|table| map.slug_of(&table.set)))
        });
        self.maps.iter().map(|map| map.slug.clone()).chain(of_tables).collect()
    }

    /// The version that is active now, of every map that follows it; `None` where none is.
    #[must_use]
    pub fn active_versions(&self) -> ActiveVersions {
        let follow = self.maps.iter().filter(|map| map.follows_active);
        follow.map(|map| (map.slug.clone(), Versions::of(&self.state, &map.slug).active())).collect()
    }

    /// The versions that were active when the configuration was read.
    #[must_use]
    pub fn versions_read(&self) -> ActiveVersions {
        let follow = self.maps.iter().filter(|map| map.follows_active);
        follow.map(|map| (map.slug.clone(), versions::version_of(&map.file))).collect()
    }

    /// The same configuration with these versions in place of those that were active when it was read.
    #[must_use]
    pub fn with_versions(&self, active: &ActiveVersions) -> Self {
        let mut config = self.clone();
        for map in config.maps.iter_mut().filter(|map| map.follows_active) {
            if let Some(Some(version)) = active.get(&map.slug) {
                map.file = Versions::of(&config.state, &map.slug).file(*version);
            }
        }
        config
    }

    /// Reads a configuration file. Paths in it are relative to its folder. `environment` resolves references to
    /// secrets, so that a test needs no process environment.
    pub fn read(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<ConfigProblem>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            vec![ConfigProblem {
                file: path.display().to_string(),
                place: "file".to_owned(),
                message: format!("cannot be read: {error}"),
                remedy: "Name a file that exists and can be read".to_owned(),
            }]
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&path.display().to_string(), &text, folder, environment)
    }

    /// The JSON Schema of the file: for editors, and for whoever writes one by program.
    #[must_use]
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(written::Config).to_value()
    }

    /// Raises the text of a configuration file.
    pub fn parse(
        file: &str,
        text: &str,
        folder: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<ConfigProblem>> {
        let written: written::Config = toml::from_str(text).map_err(|error| {
            let place = error.span().map_or_else(
                || "file".to_owned(),
                |span| format!("line {}", text[..span.start.min(text.len())].matches('\n').count() + 1),
            );
            vec![ConfigProblem {
                file: file.to_owned(),
                place,
                message: error.message().trim_end_matches('.').to_owned(),
                remedy: "Correct the key or its value; `dualwright run --help` lists the keys".to_owned(),
            }]
        })?;
        written::raise(written, file, folder, environment)
    }
}

/// A slug: what stands in keys, paths and URLs.
pub(crate) fn is_slug(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// A PEM file with one certificate at least, as it was read.
fn certificates(pem: Vec<u8>) -> Result<Vec<u8>, String> {
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if found.is_empty() => Err("there is none in it".to_owned()),
        Ok(_) => Ok(pem),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn endpoint(
    url: &str,
    credentials: Option<ClientCredentials>,
    ca_pem: Option<Vec<u8>>,
) -> Result<Endpoint, String> {
    let base = Url::parse(url).map_err(|error| format!("`{url}` is not a URL: {error}"))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(format!("`{url}` is not an http or https URL"));
    }
    Ok(Endpoint { base, credentials, ca_pem })
}

#[cfg(test)]
mod tests;
