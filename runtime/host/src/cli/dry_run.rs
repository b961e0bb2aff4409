//! `dualwright map dry-run` and `dualwright plugin dry-run`: what would become of rows, before anything is activated.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use dualwright_core::mapping::MapVersion;
use dualwright_sandbox::{Sandbox, SandboxSettings};
use serde::Serialize;

use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, plugin, session};
use crate::config::versions::Versions;
use crate::config::{Config, PluginFile};
use crate::engine::dry_run::{DryRun, RowsFrom, slugs_of};
use crate::engine::now_micros;
use crate::engine::prepare::{PreparedLink, prepare_with, sandbox_settings};
use crate::pipeline::Link;
use crate::report::{DryRunReport, dry_run_text};
use crate::store::Store;

const MAP_EXAMPLES: &str = "\
Every row goes through the map twice in thought: as the configuration has it now, and as the version
or the file has it, with filters, lookups, transforms, plugins and what the other side holds.
Nothing is written, to neither system nor the state folder, and a runtime may be at work meanwhile.
A validator that judges after the write is not asked. Recorded changes hold the columns that were
captured, which may be fewer than another version reads; those count as not said.

  dualwright map dry-run customers --version 1.0.0.7
  dualwright map dry-run customers --file new.json --limit 50000 --values
  dualwright map dry-run customers --recorded --json | jq '.records[] | select(.differs)'
  dualwright map dry-run customers                       only what the map would do now

Exit codes: 0 nothing would end otherwise; 1 something would, or without another version some row is
rejected; 2 the version has errors, or a system does not answer.";

#[derive(Debug, Args)]
#[command(after_help = MAP_EXAMPLES)]
pub(super) struct MapDryRunArguments {
    /// The slug of a map of the configuration.
    #[arg(value_name = "SLUG")]
    map: String,
    /// A version that was imported.
    #[arg(long, conflicts_with = "file")]
    version: Option<MapVersion>,
    /// A map file that was not imported yet.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    over: Over,
}

const PLUGIN_EXAMPLES: &str = "\
Every row of the maps that use the plugin goes through them twice in thought: as the configuration
has it now, and with the other component or parameters. Nothing is written, to neither system nor
the state folder, and a runtime may be at work meanwhile. A validator that judges after the write is
not asked.

  dualwright plugin dry-run text-cleanup --parameter case=title
  dualwright plugin dry-run pricing --file target/pricing.wasm --map customers --values

Exit codes: 0 nothing would end otherwise; 1 something would; 2 the plugin is refused, or a system
does not answer.";

#[derive(Debug, Args)]
#[command(after_help = PLUGIN_EXAMPLES)]
pub(super) struct PluginDryRunArguments {
    /// The name of a plugin that a map of the configuration uses.
    #[arg(value_name = "NAME")]
    plugin: String,
    /// Another component.
    #[arg(long, value_name = "FILE", required_unless_present = "parameter")]
    file: Option<PathBuf>,
    /// A parameter that is to be another one, as `plugin inspect` lists them.
    #[arg(long, value_name = "NAME=VALUE")]
    parameter: Vec<String>,
    /// Only in this map.
    #[arg(long, value_name = "SLUG")]
    map: Option<String>,
    #[command(flatten)]
    over: Over,
}

/// Which rows, and how they are shown.
#[derive(Debug, Args)]
struct Over {
    /// Over rows as the systems hold them now (the default).
    #[arg(long, conflicts_with = "recorded")]
    live: bool,
    /// Over what the state folder holds: failed records, and changes that wait.
    #[arg(long)]
    recorded: bool,
    /// Rows to read of each map and side.
    #[arg(long, value_name = "ROWS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Show the values that differ. Without it names and keys only, so that the output may be passed on.
    #[arg(long)]
    values: bool,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with every row that would be written, rejected, or end otherwise.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Said<'a> {
    /// What is tried, in words.
    tried: &'a str,
    differs: bool,
    #[serde(flatten)]
    report: &'a DryRunReport,
}

/// What is tried, beside what runs.
struct Trial {
    /// In words.
    what: String,
    before: Option<Config>,
    after: Config,
    /// Slugs of maps of the configuration.
    maps: Vec<String>,
}

pub(super) async fn map(arguments: &MapDryRunArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config(&arguments.over.config.config)? else { return Ok(MISCONFIGURED) };
    let slug = &arguments.map;
    let mut after = config.clone();
    let Some(map) = after.maps.iter_mut().find(|map| map.slug == *slug) else {
        let known = config.maps.iter().map(|map| map.slug.as_str());
        bail!("{}", output::there_is_no("map", slug, known));
    };
    let what = match (&arguments.version, &arguments.file) {
        (Some(version), _) => {
            map.file = Versions::of(&config.state, slug).file(*version);
            if !map.file.is_file() {
                bail!("map {slug} has no version {version}; `dualwright map versions {slug}` lists them");
            }
            format!("map {slug}, version {version}")
        }
        (None, Some(file)) => {
            map.file.clone_from(file);
            format!("map {slug}, {}", file.display())
        }
        (None, None) => format!("map {slug}, as it is"),
    };
    let is_other = arguments.version.is_some() || arguments.file.is_some();
    let before = is_other.then_some(config);
    try_out(Trial { what, before, after, maps: vec![slug.clone()] }, &arguments.over).await
}

pub(super) async fn plugin(arguments: &PluginDryRunArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config(&arguments.over.config.config)? else { return Ok(MISCONFIGURED) };
    let name = &arguments.plugin;
    let mut after = config.clone();
    if let Some(file) = &arguments.file {
        after.plugins.retain(|plugin| plugin.name != *name);
        after.plugins.push(PluginFile { name: name.clone(), file: file.clone(), sha256: None });
    }
    let parameters = plugin::parameters_of(name, &after.plugins, &arguments.parameter)?;
    let wanted = |slug: &str| arguments.map.as_ref().is_none_or(|map| map == slug);
    let mut maps = Vec::new();
    for map in after.maps.iter_mut().filter(|map| wanted(&map.slug)) {
        for binding in map.bindings.iter_mut().filter(|binding| binding.plugin == *name) {
            put(&mut binding.parameters, &parameters);
            maps.push(map.slug.clone());
        }
    }
    for map in after.table_maps.iter_mut().filter(|map| wanted(&map.slug) && map.plugin == *name) {
        put(&mut map.parameters, &parameters);
        maps.push(map.slug.clone());
    }
    maps.dedup();
    if maps.is_empty() {
        let place = arguments.map.as_ref().map_or_else(|| "no map".to_owned(), |map| format!("no map {map}"));
        bail!("{place} of the configuration uses plugin {name}; bind it in a configuration of its own to try it");
    }
    let mut what = format!("plugin {name}");
    if let Some(file) = &arguments.file {
        what.push_str(&format!(", {}", file.display()));
    }
    for parameter in &arguments.parameter {
        what.push_str(&format!(", {parameter}"));
    }
    try_out(Trial { what, before: Some(config), after, maps }, &arguments.over).await
}

/// Puts parameters in the place of those with the same names.
fn put(place: &mut serde_json::Value, parameters: &serde_json::Map<String, serde_json::Value>) {
    if let serde_json::Value::Object(place) = place {
        place.extend(parameters.clone());
    }
}

async fn try_out(trial: Trial, over: &Over) -> anyhow::Result<u8> {
    // Where nothing ever ran there are no pairs, and an empty store says so.
    let nowhere = tempfile::tempdir()?;
    let store = match Store::exists(&trial.after.state) {
        true => Store::open_read_only(&trial.after.state)?,
        false => Store::open(nowhere.path())?,
    };
    // Compiled code is not kept: a dry run leaves nothing behind.
    let sandbox = Sandbox::new(SandboxSettings { cache: None, ..sandbox_settings(&trial.after) })?;
    let after = link(&trial.after, &store, &sandbox).await;
    let before = match &trial.before {
        Some(config) => link(config, &store, &sandbox).await.map(Some),
        None => Some(None),
    };
    let (Some(before), Some(after)) = (before, after) else {
        eprintln!("error: nothing was tried for {}; correct what is said above", trial.what);
        return Ok(MISCONFIGURED);
    };
    let maps = trial.maps.iter().flat_map(|map| slugs_of(&after, map)).collect::<HashSet<Arc<str>>>();
    let run = DryRun {
        before: before.as_ref(),
        after: &after,
        maps,
        rows: if over.recorded { RowsFrom::Recorded } else { RowsFrom::Live },
        rows_max: over.limit as usize,
        with_values: over.values,
        now: now_micros(),
    };
    let report = run.run().await;
    store.close().await;
    let report = match report {
        Ok(report) => report,
        Err(fault) => {
            eprintln!("error: {fault}\n  {}", fault.code.remedy());
            return Ok(MISCONFIGURED);
        }
    };
    if over.json {
        output::print_json(&Said { tried: &trial.what, differs: report.differs(), report: &report })?;
    } else {
        output::print(&format!("{}\n\n{}", trial.what, dry_run_text(&report)))?;
    }
    Ok(if report.differs() { DIFFERENT } else { FINE })
}

/// The link of a configuration; problems are printed, all of them.
async fn link(config: &Config, store: &Store, sandbox: &Sandbox) -> Option<Link> {
    match prepare_with(config, store.clone(), sandbox.clone()).await {
        Ok(PreparedLink { link, .. }) => Some(link),
        Err(problems) => {
            for problem in problems.iter().filter(|problem| problem.is_error) {
                eprintln!("{problem}");
            }
            None
        }
    }
}
