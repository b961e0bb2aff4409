//! `dualwright map`: table maps, read and checked without any system.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use dualwright_core::SystemKind;
use dualwright_core::filter::{parse_dataverse, parse_finops};
use dualwright_core::mapping::{FieldMapping, Leg, Mapping, Problem, Reference, Severity, Transform};
use dualwright_core::plan::{PlanInput, PlanSettings, compile};
use serde::Serialize;
use serde_json::json;

use super::schemas::Schemas;
use super::{ConfigArgument, FINE, MISCONFIGURED, dry_run, map_catalogue, map_refresh, map_versions, output, session};
use crate::config::{BindingConfig, Config, MappedTableConfig, TableMapConfig};

#[derive(Debug, Subcommand)]
pub(super) enum MapCommand {
    /// Say everything that is wrong with table maps, before anything runs.
    Check(CheckArguments),
    /// The maps of a configuration, or of files.
    List(ListArguments),
    /// One map, field by field.
    Show(ShowArguments),
    /// The maps that come with the program: look at them, and add them.
    Catalogue(map_catalogue::CatalogueArguments),
    /// Keep a map file as a version of a map.
    Import(map_versions::ImportArguments),
    /// Give a version out again.
    Export(map_versions::ExportArguments),
    /// The versions of maps, and which of them are active.
    Versions(map_versions::VersionsArguments),
    /// Read the tables of both systems anew, and see whether the maps still fit.
    Refresh(map_refresh::RefreshArguments),
    /// Use a version from now on, if nothing is wrong with it.
    Activate(map_versions::ActivateArguments),
    /// Say what a version would do to which rows, before it is activated; writes nothing.
    DryRun(Box<dry_run::MapDryRunArguments>),
    /// What two versions of a map say differently.
    Diff(map_versions::DiffArguments),
}

const CHECK_EXAMPLES: &str = "\
A map is the JSON of a Dual-write map (msdyn_mapping), as it is exported. Without --schemas its
shape and its filters are checked, and what could not be checked is said. With --schemas tables and
columns, types and lengths, lookups and the integration key are checked too. `dualwright run` checks
all of it against the systems themselves before it starts.

  dualwright map check maps/accounts__customers-v3.json
  dualwright map check maps/ --schemas schemas/
  dualwright map check                          the maps of ./dualwright.toml
  dualwright map check --emulated               the same, against the tables of the emulators

Exit codes: 0 no errors (notices are not errors); 2 at least one error.";

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(super) struct CheckArguments {
    /// Map files, or folders of them; without any, the maps of the configuration.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A folder with the tables of both systems, one JSON file each.
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
    /// Check against the tables that both emulators have with --catalogue.
    #[arg(long, conflicts_with = "schemas")]
    emulated: bool,
    /// A Dataverse column path of the integration key, where the configuration or the tables do not say it; once for
    /// each column.
    #[arg(long, value_name = "PATH")]
    key: Vec<String>,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with every problem.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Map files, or folders of them; without any, the maps of the configuration.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON list.
    #[arg(long)]
    json: bool,
}

const SHOW_EXAMPLES: &str = "\
Between the columns stands the direction: > to Dataverse, < to F&O, = both; doubled (>>, <<, ><)
with transforms.

  dualwright map show customers                 a map of ./dualwright.toml, with its plugins
  dualwright map show maps/accounts__customers-v3.json";

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(super) struct ShowArguments {
    /// A map file, or the slug of a map of the configuration.
    #[arg(value_name = "FILE|SLUG")]
    map: String,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn map(command: MapCommand) -> anyhow::Result<u8> {
    match command {
        MapCommand::DryRun(arguments) => dry_run::map(&arguments).await,
        MapCommand::Refresh(arguments) => map_refresh::refresh(arguments).await,
        MapCommand::Check(arguments) => check(&arguments),
        MapCommand::List(arguments) => list(&arguments),
        MapCommand::Show(arguments) => show(&arguments),
        MapCommand::Catalogue(arguments) => map_catalogue::catalogue(&arguments),
        MapCommand::Import(arguments) => map_versions::import(&arguments),
        MapCommand::Export(arguments) => map_versions::export(&arguments),
        MapCommand::Versions(arguments) => map_versions::versions(&arguments),
        MapCommand::Activate(arguments) => map_versions::activate(&arguments),
        MapCommand::Diff(arguments) => map_versions::diff(&arguments),
    }
}

/// A map file, and what a configuration adds to it.
#[derive(Debug, Default)]
struct Source {
    file: PathBuf,
    slug: Option<String>,
    integration_key: Vec<String>,
    bindings: Vec<BindingConfig>,
    /// A plugin computes its rows, so there is no map in the file.
    table_map: Option<TableMapConfig>,
    settings: PlanSettings,
}

/// The files that are meant; `None` when the configuration could not be read, which was said then.
fn sources(files: &[PathBuf], config: &Path) -> anyhow::Result<Option<Vec<Source>>> {
    if files.is_empty() {
        return Ok(session::read_config_without_secrets(config)?.map(|read| of_config(config, read)));
    }
    let mut sources = Vec::new();
    for file in files {
        if !file.is_dir() {
            sources.push(Source { file: file.clone(), ..Source::default() });
            continue;
        }
        let entries = std::fs::read_dir(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let mut inside = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        // An index lists maps and is none.
        inside.retain(|path| {
            path.extension().is_some_and(|extension| extension == "json") && !path.ends_with("index.json")
        });
        inside.sort();
        sources.extend(inside.into_iter().map(|file| Source { file, ..Source::default() }));
    }
    Ok(Some(sources))
}

fn of_config(file: &Path, config: Config) -> Vec<Source> {
    let source = |map: crate::config::MapConfig| Source {
        file: map.file,
        slug: Some(map.slug),
        integration_key: map.integration_key,
        bindings: map.bindings,
        table_map: None,
        settings: map.settings,
    };
    let computed = |map: TableMapConfig| Source {
        file: file.to_owned(),
        slug: Some(map.slug.clone()),
        table_map: Some(map),
        ..Source::default()
    };
    config.maps.into_iter().map(source).chain(config.table_maps.into_iter().map(computed)).collect()
}

/// Reads a map file. A file that cannot be read is a problem like any other, so that the rest is still checked.
fn read(source: &Source) -> Result<Mapping, Vec<Problem>> {
    let file = &source.file;
    if let Some(map) = &source.table_map {
        // What its plugin makes of a row is not for a file to say.
        return Ok(Mapping { name: format!("[{}] by plugin {}", map.finops_collection, map.plugin), legs: Vec::new() });
    }
    let text = std::fs::read_to_string(file).map_err(|error| {
        vec![Problem::error("file", format!("cannot be read: {error}"), "name a file that can be read")]
    })?;
    Mapping::parse(&text)
}

// ---- check

/// What was found about one map.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    ok: bool,
    problems: Vec<Problem>,
    /// What could not be checked, and why.
    left_out: Vec<String>,
}

const OF_A_PLUGIN: &str = "maps whose rows a plugin computes: `dualwright run` asks the plugin and both systems before it \
    starts";

const WITHOUT_SCHEMAS: &str = "tables and columns, types and lengths, required columns, lookups and the integration \
    key: that needs --schemas DIR";

fn check(arguments: &CheckArguments) -> anyhow::Result<u8> {
    let Some(all) = check_all(arguments)? else { return Ok(MISCONFIGURED) };
    let ok = all.iter().all(|checked| checked.ok);
    if arguments.json {
        output::print_json(&json!({ "ok": ok, "maps": all }))?;
    } else {
        output::print(&checked_text(&all))?;
    }
    Ok(if ok { FINE } else { MISCONFIGURED })
}

/// The errors of one map file, as `map check` finds them.
pub(super) fn errors_of(file: &Path, schemas: Option<&Path>) -> anyhow::Result<Vec<Problem>> {
    let arguments = CheckArguments {
        files: vec![file.to_owned()],
        schemas: schemas.map(Path::to_owned),
        emulated: false,
        key: Vec::new(),
        config: ConfigArgument { config: PathBuf::new() },
        json: false,
    };
    let all = check_all(&arguments)?.unwrap_or_default();
    let problems = all.into_iter().flat_map(|checked| checked.problems);
    Ok(problems.filter(|problem| problem.severity == Severity::Error).collect())
}

fn check_all(arguments: &CheckArguments) -> anyhow::Result<Option<Vec<Checked>>> {
    let Some(sources) = sources(&arguments.files, &arguments.config.config)? else { return Ok(None) };
    let schemas = match &arguments.schemas {
        Some(folder) => Some(Schemas::read(folder)?),
        None if arguments.emulated => Some(Schemas::emulated()?),
        None => None,
    };
    let mappings = sources.iter().map(read).collect::<Vec<_>>();
    let keys = Keys::of(&sources, &mappings, schemas.as_ref());
    let mut all = Vec::with_capacity(sources.len());
    for (source, mapping) in sources.iter().zip(mappings) {
        let mut checked = Checked {
            file: source.file.display().to_string(),
            slug: source.slug.clone(),
            name: None,
            ok: true,
            problems: Vec::new(),
            left_out: Vec::new(),
        };
        match mapping {
            Err(problems) => {
                checked.problems = problems;
                checked.left_out.push("everything but the shape: it has to be right first".to_owned());
            }
            Ok(mapping) => {
                for leg in &mapping.legs {
                    match &schemas {
                        None => check_shape(leg, &mut checked),
                        Some(schemas) => check_meaning(leg, schemas, source, &arguments.key, &keys, &mut checked),
                    }
                }
                checked.name = Some(mapping.name);
                checked.left_out.extend(source.table_map.as_ref().map(|_| OF_A_PLUGIN.to_owned()));
            }
        }
        checked.ok = checked.problems.iter().all(|problem| problem.severity != Severity::Error);
        all.push(checked);
    }
    Ok(Some(all))
}

/// Integration keys by entity set: of the maps that are checked together, else as the tables say.
struct Keys(std::collections::HashMap<String, Vec<String>>);

impl Keys {
    fn of(sources: &[Source], mappings: &[Result<Mapping, Vec<Problem>>], schemas: Option<&Schemas>) -> Self {
        let mut keys = schemas.map(|schemas| schemas.keys.clone()).unwrap_or_default();
        for (source, mapping) in sources.iter().zip(mappings) {
            for leg in mapping.iter().flat_map(|mapping| &mapping.legs) {
                if !source.integration_key.is_empty() {
                    keys.insert(leg.dataverse_set.clone(), source.integration_key.clone());
                }
            }
        }
        Self(keys)
    }
}

/// What can be said without any table.
fn check_shape(leg: &Leg, checked: &mut Checked) {
    for (system, text, parsed) in [
        (SystemKind::Finops, &leg.finops_filter, parse_finops(&leg.finops_filter)),
        (SystemKind::Dataverse, &leg.dataverse_filter, parse_dataverse(&leg.dataverse_filter)),
    ] {
        if let (false, Err(error)) = (text.trim().is_empty(), parsed) {
            checked.problems.push(Problem::of_filter(system, text, &error));
        }
    }
    if checked.left_out.is_empty() {
        checked.left_out.push(WITHOUT_SCHEMAS.to_owned());
    }
}

/// The same checks as before a start, against tables from files.
fn check_meaning(leg: &Leg, schemas: &Schemas, source: &Source, key: &[String], keys: &Keys, checked: &mut Checked) {
    let finops = leg
        .finops_distinct_name
        .as_deref()
        .and_then(|name| schemas.finops(name))
        .or_else(|| schemas.finops(&leg.finops_entity));
    if finops.is_none() {
        let known = schemas.finops_names.iter().map(String::as_str);
        checked.problems.push(unknown("sourceSchema", "F&O entity", &leg.finops_entity, known).foreign("DIPV1018"));
    }
    let dataverse = schemas.dataverse.get(&leg.dataverse_set);
    if dataverse.is_none() {
        let known = schemas.dataverse.keys().map(String::as_str);
        let problem = unknown("destinationSchema", "Dataverse table", &leg.dataverse_set, known);
        checked.problems.push(problem.foreign("DIPV1020"));
    }
    let (Some(finops), Some(dataverse)) = (finops, dataverse) else {
        checked.left_out.push("the columns: both tables have to be known first".to_owned());
        return;
    };
    let key = [key, &source.integration_key, keys.0.get(&leg.dataverse_set).map_or(&[][..], Vec::as_slice)]
        .into_iter()
        .find(|key| !key.is_empty())
        .unwrap_or_default();
    let input = PlanInput {
        leg,
        finops,
        dataverse,
        integration_key: key,
        tables: &|set| schemas.dataverse.get(set).map(Arc::clone),
        key_of_set: &|set| keys.0.get(set).cloned(),
        settings: source.settings,
    };
    let mut problems = match compile(&input) {
        Ok(plan) => plan.notices,
        Err(problems) => problems,
    };
    if key.is_empty() {
        // That the key is missing is no fault of the map: it stands in the configuration. The key also says whether the
        // table belongs to companies, and so what its lookups have to name (DIPV1027).
        problems.retain(|problem| {
            !problem.place.starts_with("integration key") && problem.foreign_code != Some("DIPV1027")
        });
        checked.left_out.push(
            "the integration key, the company and the keys of lookups: no key is known for the table; name its columns \
             with --key, or in the configuration"
                .to_owned(),
        );
    }
    checked.problems.append(&mut problems);
}

fn unknown<'a>(place: &str, what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let near = output::near(name, known);
    let remedy = match near {
        Some(near) => format!("did you mean {near}? Otherwise add the table to the schemas"),
        None => "correct the name, or add the table to the schemas".to_owned(),
    };
    Problem::error(place, format!("the schemas have no {what} {name}"), remedy)
}

fn checked_text(all: &[Checked]) -> String {
    let mut text = String::new();
    let mut left_out = std::collections::BTreeMap::<&str, usize>::new();
    for checked in all {
        let name = checked.name.as_deref().map(|name| format!("  {name}")).unwrap_or_default();
        let verdict = if checked.ok { "ok" } else { "error" };
        text.push_str(&format!("{verdict:<6} {}{name}\n", checked.file));
        for problem in &checked.problems {
            let kind = match problem.severity {
                Severity::Error => "error",
                Severity::Notice => "notice",
            };
            text.push_str(&format!("       {kind}: {problem}\n"));
            for line in problem.excerpt.iter().flat_map(|excerpt| excerpt.lines()) {
                text.push_str(&format!("           {line}\n"));
            }
        }
        for what in &checked.left_out {
            *left_out.entry(what).or_default() += 1;
        }
    }
    for (what, count) in left_out {
        let of = if all.len() == 1 { String::new() } else { format!(" for {count} of {} maps", all.len()) };
        text.push_str(&format!("not checked{of}: {what}\n"));
    }
    let errors = all.iter().filter(|checked| !checked.ok).count();
    match errors {
        0 => text.push_str(&format!("{} checked, no errors\n", output::counted(all.len() as u64, "map", "maps"))),
        _ => text
            .push_str(&format!("{} checked, {errors} with errors\n", output::counted(all.len() as u64, "map", "maps"))),
    }
    text
}

// ---- list

#[derive(Debug, Serialize)]
struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<String>,
    file: String,
    finops_entity: String,
    dataverse_set: String,
    direction: &'static str,
    fields: usize,
    lookups: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plugins: Vec<String>,
}

fn list(arguments: &ListArguments) -> anyhow::Result<u8> {
    let Some(sources) = sources(&arguments.files, &arguments.config.config)? else { return Ok(MISCONFIGURED) };
    let mut code = FINE;
    let mut listed = Vec::new();
    for source in &sources {
        if let Some(map) = &source.table_map {
            listed.push(Listed::of_plugin(source, map));
            continue;
        }
        match read(source) {
            Ok(mapping) => listed.extend(mapping.legs.iter().map(|leg| Listed::of(source, leg))),
            Err(problems) => {
                code = MISCONFIGURED;
                let count = output::counted(problems.len() as u64, "problem", "problems");
                eprintln!("error: {}: {count}; see `dualwright map check`", source.file.display());
            }
        }
    }
    if arguments.json {
        output::print_json(&listed)?;
        return Ok(code);
    }
    let rows = listed
        .into_iter()
        .map(|map| {
            vec![
                map.slug.unwrap_or_else(|| file_name(&map.file)),
                map.finops_entity,
                map.direction.to_owned(),
                map.dataverse_set,
                map.fields.to_string(),
                map.lookups.to_string(),
                map.plugins.join(", "),
            ]
        })
        .collect();
    let headings = ["map", "F&O entity", "", "Dataverse table", "fields", "lookups", "plugins"];
    output::print(&output::columns(&headings, rows))?;
    Ok(code)
}

fn file_name(file: &str) -> String {
    Path::new(file).file_name().map_or_else(|| file.to_owned(), |name| name.to_string_lossy().into_owned())
}

impl Listed {
    fn of_plugin(source: &Source, map: &TableMapConfig) -> Self {
        Self {
            slug: source.slug.clone(),
            file: source.file.display().to_string(),
            finops_entity: map.finops_collection.clone(),
            dataverse_set: map.tables.iter().map(|table| table.set.as_str()).collect::<Vec<_>>().join(", "),
            direction: "plugin",
            fields: 0,
            lookups: 0,
            plugins: vec![map.plugin.clone()],
        }
    }

    fn of(source: &Source, leg: &Leg) -> Self {
        let is_lookup =
            |field: &&FieldMapping| field.dataverse.as_ref().is_some_and(|path| path.reference != Reference::None);
        Self {
            slug: source.slug.clone(),
            file: source.file.display().to_string(),
            finops_entity: leg.finops_entity.clone(),
            dataverse_set: leg.dataverse_set.clone(),
            direction: direction(leg),
            fields: leg.fields.len(),
            lookups: leg.fields.iter().filter(is_lookup).count(),
            plugins: source.bindings.iter().map(|binding| binding.plugin.clone()).collect(),
        }
    }
}

fn direction(leg: &Leg) -> &'static str {
    let goes = |target| leg.fields.iter().any(|field| field.direction.goes_to(target));
    match (goes(SystemKind::Dataverse), goes(SystemKind::Finops)) {
        (true, true) => "↔",
        (true, false) => "→",
        (false, true) => "←",
        (false, false) => "none",
    }
}

// ---- show

fn show(arguments: &ShowArguments) -> anyhow::Result<u8> {
    let source = if Path::new(&arguments.map).is_file() {
        Source { file: PathBuf::from(&arguments.map), ..Source::default() }
    } else if arguments.config.config.is_file() {
        let Some(config) = session::read_config_without_secrets(&arguments.config.config)? else {
            return Ok(MISCONFIGURED);
        };
        let maps = of_config(&arguments.config.config, config);
        match maps.iter().position(|map| map.is_called(&arguments.map)) {
            Some(position) => maps.into_iter().nth(position).unwrap_or_default(),
            None => {
                let known = maps.iter().filter_map(|map| map.slug.as_deref());
                eprintln!("error: {}", output::there_is_no("map", &arguments.map, known));
                return Ok(MISCONFIGURED);
            }
        }
    } else {
        eprintln!(
            "error: {} is no file, and there is no {} whose maps have slugs; name a map file, or --config FILE",
            arguments.map,
            arguments.config.config.display()
        );
        return Ok(MISCONFIGURED);
    };
    let mapping = match read(&source) {
        Ok(mapping) => mapping,
        Err(problems) => {
            for problem in problems {
                eprintln!("error: {}, {problem}", source.file.display());
            }
            return Ok(MISCONFIGURED);
        }
    };
    if arguments.json {
        output::print_json(&shown_json(&source, &mapping))?;
    } else {
        output::print(&shown_text(&source, &mapping))?;
    }
    Ok(FINE)
}

impl Source {
    /// Whether a map, or one of the tables of a map that a plugin computes, has this slug.
    fn is_called(&self, slug: &str) -> bool {
        let of_table = |map: &TableMapConfig| map.tables.iter().any(|table| map.slug_of(&table.set) == slug);
        self.slug.as_deref() == Some(slug) || self.table_map.as_ref().is_some_and(of_table)
    }
}

fn table_map_json(map: &TableMapConfig) -> serde_json::Value {
    let table = |table: &MappedTableConfig| json!({ "set": table.set, "slug": map.slug_of(&table.set), "integration_key": table.integration_key });
    json!({
        "plugin": map.plugin,
        "parameters": map.parameters,
        "on_fault": map.on_fault,
        "finops_collection": map.finops_collection,
        "tables": map.tables.iter().map(table).collect::<Vec<_>>(),
    })
}

fn shown_json(source: &Source, mapping: &Mapping) -> serde_json::Value {
    let field = |field: &FieldMapping| {
        json!({
            "finops": field.finops,
            "dataverse": field.dataverse.as_ref().map(ToString::to_string),
            "to_dataverse": field.direction.goes_to(SystemKind::Dataverse),
            "to_finops": field.direction.goes_to(SystemKind::Finops),
            "transforms": field.transforms.iter().map(transform).collect::<Vec<_>>(),
        })
    };
    let leg = |leg: &Leg| {
        json!({
            "finops_entity": leg.finops_entity,
            "finops_distinct_name": leg.finops_distinct_name,
            "dataverse_set": leg.dataverse_set,
            "finops_filter": leg.finops_filter,
            "dataverse_filter": leg.dataverse_filter,
            "fields": leg.fields.iter().map(field).collect::<Vec<_>>(),
        })
    };
    json!({
        "slug": source.slug,
        "file": source.file,
        "name": mapping.name,
        "integration_key": source.integration_key,
        "plugins": source.bindings.iter().map(binding_json).collect::<Vec<_>>(),
        "table_map": source.table_map.as_ref().map(table_map_json),
        "legs": mapping.legs.iter().map(leg).collect::<Vec<_>>(),
    })
}

fn binding_json(binding: &BindingConfig) -> serde_json::Value {
    json!({
        "plugin": binding.plugin,
        "stage": binding.stage,
        "fields": binding.fields,
        "to": binding.targets,
        "parameters": binding.parameters,
        "on_fault": binding.on_fault,
    })
}

fn shown_text(source: &Source, mapping: &Mapping) -> String {
    let mut text = format!("{}\n", mapping.name);
    if let Some(map) = &source.table_map {
        let mut fact = |name: &str, value: &str| text.push_str(&format!("  {name:<18}{value}\n"));
        fact("F&O collection", &map.finops_collection);
        fact("plugin", &format!("{} computes the rows; `dualwright plugin inspect` lists its columns", map.plugin));
        if map.parameters.as_object().is_some_and(|parameters| !parameters.is_empty()) {
            fact("parameters", &map.parameters.to_string());
        }
        for table in &map.tables {
            fact("Dataverse table", &table.set);
            fact("integration key", &table.integration_key.join(", "));
            fact("records, counts", &map.slug_of(&table.set));
        }
    }
    for leg in &mapping.legs {
        let mut fact = |name: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("  {name:<18}{value}\n"));
            }
        };
        let own_name = leg.finops_distinct_name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
        fact("file", &source.file.display().to_string());
        fact("F&O entity", &format!("{}{own_name}", leg.finops_entity));
        fact("Dataverse table", &leg.dataverse_set);
        fact("F&O filter", &leg.finops_filter);
        fact("Dataverse filter", &leg.dataverse_filter);
        fact("integration key", &source.integration_key.join(", "));
        for binding in &source.bindings {
            fact("plugin", &bound(binding));
        }
        let rows = leg
            .fields
            .iter()
            .map(|field| {
                vec![
                    field.finops.clone().unwrap_or_else(|| "none".to_owned()),
                    field.direction.symbol(!field.transforms.is_empty()).to_owned(),
                    field.dataverse.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
                    field.transforms.iter().map(transform).collect::<Vec<_>>().join(", "),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&output::columns(&["F&O column", "", "Dataverse column", "transforms"], rows));
    }
    text
}

fn bound(binding: &BindingConfig) -> String {
    let fields = if binding.fields.is_empty() { "the whole row".to_owned() } else { binding.fields.join(", ") };
    let to = binding.targets.iter().map(|target| target.name()).collect::<Vec<_>>().join(" and ");
    format!("{}, {} of {fields}, to {to}", binding.plugin, binding.stage.name())
}

fn transform(transform: &Transform) -> String {
    match transform {
        Transform::Default { value } => format!("default {value:?}"),
        Transform::Truncate { length } => format!("truncate to {length}"),
        Transform::ValueMap { pairs, default } => {
            let pairs = pairs.iter().map(|(finops, dataverse)| format!("{finops}: {dataverse}")).collect::<Vec<_>>();
            let default = default.as_ref().map(|value| format!(", otherwise {value}")).unwrap_or_default();
            format!("values {}{default}", pairs.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = r#"{"name": "[Customer groups] - [msdyn_customergroups]", "legs": [{
        "sourceSchema": "Customer groups", "destinationSchema": "msdyn_customergroups",
        "sourceFilter": "", "reversedSourceFilter": "", "fieldMappings": [
            {"syncDirection": "3", "sourceField": "CUSTOMERGROUPID", "destinationField": "msdyn_groupid"},
            {"syncDirection": "1", "sourceField": "BLOCKED", "destinationField": "msdyn_blocked",
                "valueTransforms": [{"transformType": "ValueMap", "valueMap": {"no": "False", "yes": "True"}}]},
            {"syncDirection": "3", "sourceField": "TERMS", "destinationField": "msdyn_termsid.msdyn_name",
                "destinationLookupFieldRelatedEntity": "msdyn_paymentterms"}]}]}"#;

    fn mapping(text: &str) -> Mapping {
        Mapping::parse(text).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn checked() -> Checked {
        Checked { file: "m.json".into(), slug: None, name: None, ok: true, problems: Vec::new(), left_out: Vec::new() }
    }

    #[test]
    fn without_tables_the_filters_are_checked_and_the_rest_is_named() {
        for (finops, dataverse, places) in [
            ("", "", &[][..]),
            (r#"(PartyType == \"Organization\")"#, "customertypecode eq 3", &[]),
            ("PartyType ==", "", &["filter on finops"]),
            ("", "customertypecode eq", &["filter on dataverse"]),
            ("(", ")", &["filter on finops", "filter on dataverse"]),
        ] {
            let text = MAP
                .replace(r#""sourceFilter": """#, &format!(r#""sourceFilter": "{finops}""#))
                .replace(r#""reversedSourceFilter": """#, &format!(r#""reversedSourceFilter": "{dataverse}""#));
            let mut checked = checked();
            check_shape(&mapping(&text).legs[0], &mut checked);
            let found = checked.problems.iter().map(|problem| problem.place.as_str()).collect::<Vec<_>>();
            assert_eq!(found, places, "{finops} | {dataverse}");
            assert_eq!(checked.left_out, [WITHOUT_SCHEMAS]);
        }
    }

    #[test]
    fn the_verdict_can_be_read() {
        let mut bad = checked();
        bad.ok = false;
        bad.problems.push(Problem::error(
            "sourceSchema",
            "the schemas have no F&O entity Custmers",
            "did you mean Customers?",
        ));
        bad.problems.push(Problem::notice("field A", "is long", "shorten it"));
        let mut good = checked();
        good.name = Some("[Customers]".to_owned());
        good.left_out.push(WITHOUT_SCHEMAS.to_owned());
        let wanted = format!(
            "error  m.json\n       error: sourceSchema: the schemas have no F&O entity Custmers; did you mean \
             Customers?\n       notice: field A: is long; shorten it\nok     m.json  [Customers]\nnot checked for 1 of 2 \
             maps: {WITHOUT_SCHEMAS}\n2 maps checked, 1 with errors\n"
        );
        assert_eq!(checked_text(&[bad, good]), wanted);
    }

    #[test]
    fn a_map_is_shown_field_by_field() {
        let source =
            Source { file: "m.json".into(), integration_key: vec!["msdyn_groupid".into()], ..Source::default() };
        let text = shown_text(&source, &mapping(MAP));
        for line in [
            "  F&O entity        Customer groups",
            "  integration key   msdyn_groupid",
            "  CUSTOMERGROUPID  =   msdyn_groupid",
            "  BLOCKED          >>  msdyn_blocked             values no: False, yes: True",
            "  TERMS            =   msdyn_termsid.msdyn_name",
        ] {
            assert!(text.lines().any(|own| own == line), "{line:?} is missing in\n{text}");
        }
        let json = shown_json(&source, &mapping(MAP));
        assert_eq!(json["legs"][0]["fields"][1]["to_finops"], false);
        let listed = Listed::of(&source, &mapping(MAP).legs[0]);
        assert_eq!((listed.direction, listed.fields, listed.lookups), ("↔", 3, 1));
    }

    #[test]
    fn a_map_that_a_plugin_computes_is_known() {
        let map = TableMapConfig {
            slug: "customer-split".to_owned(),
            finops_collection: "CustomersV3".to_owned(),
            plugin: "customer-split".to_owned(),
            parameters: json!({ "contact-suffix": "-P" }),
            on_fault: crate::config::FaultPolicy::SetAside,
            limits: dualwright_sandbox::Limits::default(),
            tables: vec![MappedTableConfig { set: "accounts".into(), integration_key: vec!["accountnumber".into()] }],
        };
        let source = Source { slug: Some(map.slug.clone()), table_map: Some(map.clone()), ..Source::default() };
        for (slug, known) in [("customer-split", true), ("customer-split-accounts", true), ("accounts", false)] {
            assert_eq!(source.is_called(slug), known, "{slug}");
        }
        let text = shown_text(&source, &read(&source).expect("needs no file"));
        for line in ["  Dataverse table   accounts", "  parameters        {\"contact-suffix\":\"-P\"}"] {
            assert!(text.lines().any(|own| own == line), "{line:?} is missing in\n{text}");
        }
        let listed = Listed::of_plugin(&source, &map);
        assert_eq!((listed.direction, listed.dataverse_set.as_str()), ("plugin", "accounts"));
    }

    /// The published tables and maps, where they are at hand.
    #[test]
    fn shipped_maps_pass_with_and_without_tables() {
        let Some(data) = std::env::var_os("DUALWRIGHT_DATA").map(PathBuf::from) else {
            let all = std::env::var("DUALWRIGHT_REQUIRE_ALL").is_ok_and(|all| all == "1");
            assert!(!all, "DUALWRIGHT_DATA is not set, and DUALWRIGHT_REQUIRE_ALL wants every test");
            println!("SKIPPED: DUALWRIGHT_DATA is not set");
            return;
        };
        let index = std::fs::read_to_string(data.join("maps/index.json")).expect("the index");
        let index: Vec<serde_json::Value> = serde_json::from_str(&index).expect("JSON");
        let with_key = index.iter().filter(|map| !map["keys"].is_null());
        let with_key =
            with_key.map(|map| data.join(map["file"].as_str().expect("a file"))).filter(|file| file.exists());
        for (files, count, schemas) in
            [(vec![data.join("maps")], 137, None), (with_key.collect(), 71, Some(data.join("schemas")))]
        {
            let with = schemas.is_some();
            let arguments = CheckArguments {
                files,
                schemas,
                emulated: false,
                key: Vec::new(),
                config: ConfigArgument { config: PathBuf::from("dualwright.toml") },
                json: false,
            };
            let all = check_all(&arguments).expect("checks").expect("files");
            assert_eq!(all.len(), count);
            let bad = all.into_iter().filter(|checked| !checked.ok).collect::<Vec<_>>();
            assert!(bad.is_empty(), "with tables: {with}\n{}", checked_text(&bad));
        }
    }
}
