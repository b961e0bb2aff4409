//! `dualwright map catalogue`: the maps that come with the program, to look at and to add.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgument, FINE, output};
use crate::catalogue::{Catalogue, CatalogueMap, Threading};

const EXAMPLES: &str = "\
A name is that of a map, or that of a scenario, which is all of its maps. Maps run parents first;
`single` tables should not get more than 70,000 rows from Dataverse in one run.

  dualwright map catalogue                    list them: where they go, and how rows are written
  dualwright map catalogue show vendors       one map, field by field, with what it needs
  dualwright map catalogue add sales-orders   headers and lines, and all that they need
  dualwright map check --emulated             check what was added against the emulators' tables";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct CatalogueArguments {
    #[command(subcommand)]
    command: Option<CatalogueCommand>,
    /// One JSON list.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CatalogueCommand {
    /// One map of the catalogue, field by field.
    Show(ShowArguments),
    /// Copy maps into the project, with the maps that they need.
    Add(AddArguments),
}

const SHOW_EXAMPLES: &str = "\
Between the columns stands the direction: > to Dataverse, < to F&O, = both; doubled (>>, <<, ><)
with transforms. With --json the file as it is.";

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArguments {
    /// A map of the catalogue.
    #[arg(value_name = "NAME")]
    name: String,
    /// The map as it is added.
    #[arg(long)]
    json: bool,
}

const ADD_EXAMPLES: &str = "\
Writes maps/SLUG.json beside the configuration, and a [[map]] for each at its end; with the folder
given by --into only the files. What is there already is left alone and said. Nothing runs before
`dualwright run` has checked it against both systems.

  dualwright map catalogue add customers
  dualwright map catalogue add --all --config contoso/dualwright.toml
  dualwright map catalogue add currencies --alone --into maps/";

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
struct AddArguments {
    /// Maps or scenarios.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// The whole catalogue.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Without the maps that they need.
    #[arg(long)]
    alone: bool,
    /// Only copy the files, into this folder; no configuration is touched.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn catalogue(arguments: &CatalogueArguments) -> anyhow::Result<u8> {
    let catalogue = Catalogue::embedded()?;
    match &arguments.command {
        None => list(&catalogue, arguments.json),
        Some(CatalogueCommand::Show(arguments)) => show(&catalogue, arguments),
        Some(CatalogueCommand::Add(arguments)) => add(&catalogue, arguments),
    }
}

fn list(catalogue: &Catalogue, json: bool) -> anyhow::Result<u8> {
    if json {
        output::print_json(&catalogue.maps().iter().map(facts).collect::<Vec<_>>())?;
        return Ok(FINE);
    }
    let mut text = String::new();
    for scenario in catalogue.scenarios() {
        text.push_str(&format!("{scenario}\n"));
        for map in catalogue.maps().iter().filter(|map| map.scenario == scenario) {
            text.push_str(&format!(
                "  {:<27}{:<14}{:<7}{}\n",
                map.slug,
                map.direction().name(),
                map.threading().name(),
                map.summary
            ));
        }
    }
    text.push_str("\nAdd one with `dualwright map catalogue add NAME`; the maps that it needs come along.\n");
    output::print(&text)?;
    Ok(FINE)
}

fn facts(map: &CatalogueMap) -> serde_json::Value {
    json!({
        "slug": map.slug,
        "scenario": map.scenario,
        "name": map.name(),
        "summary": map.summary,
        "finops_entity": map.leg().finops_entity,
        "dataverse_set": map.leg().dataverse_set,
        "integration_key": map.integration_key,
        "direction": map.direction(),
        "threading": map.threading(),
        "initial_sync_rows_max": map.threading().rows_max(),
        "prerequisites": map.prerequisites,
    })
}

fn show(catalogue: &Catalogue, arguments: &ShowArguments) -> anyhow::Result<u8> {
    let Some(map) = catalogue.map(&arguments.name) else {
        let of_scenario = catalogue.named(&arguments.name).iter().map(|map| map.slug.as_str()).collect::<Vec<_>>();
        if !of_scenario.is_empty() {
            bail!("{} is a scenario; name one of its maps: {}", arguments.name, of_scenario.join(", "));
        }
        let known = catalogue.maps().iter().map(|map| map.slug.as_str());
        bail!("{}", output::there_is_no("map in the catalogue called", &arguments.name, known));
    };
    if arguments.json {
        output::print(map.json)?;
        return Ok(FINE);
    }
    let leg = map.leg();
    let mut text = format!("{}  {}\n{}\n\n", map.slug, map.name(), map.summary);
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<14}{value}\n"));
    line("direction", map.direction().name());
    line("key", &map.integration_key.join(", "));
    line(
        "threading",
        &match map.threading() {
            Threading::Single => format!(
                "single: rows are written one after the other; above {} rows of Dataverse, import both sides by \
                 packages and start without an initial sync",
                crate::report::thousands(map.threading().rows_max())
            ),
            Threading::Multi => {
                format!(
                    "multi: up to {} rows per run and legal entity",
                    crate::report::thousands(map.threading().rows_max())
                )
            }
        },
    );
    let needed = catalogue.with_prerequisites(&[map]);
    let needed = needed.iter().filter(|other| other.slug != map.slug).map(|other| other.slug.as_str());
    line("needs", &needed.collect::<Vec<_>>().join(", "));
    for (side, filter) in [("F&O filter", &leg.finops_filter), ("DV filter", &leg.dataverse_filter)] {
        if !filter.is_empty() {
            line(side, filter);
        }
    }
    text.push('\n');
    for field in &leg.fields {
        text.push_str(&format!("  {field}\n"));
    }
    output::print(&text)?;
    Ok(FINE)
}

/// What was done with one map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Added {
    Added,
    /// The configuration has a map of that name, whatever it says.
    ThereAlready,
}

fn add(catalogue: &Catalogue, arguments: &AddArguments) -> anyhow::Result<u8> {
    let mut wanted = Vec::new();
    for name in &arguments.names {
        let named = catalogue.named(name);
        if named.is_empty() {
            let slugs = catalogue.maps().iter().map(|map| map.slug.as_str());
            let scenarios = catalogue.scenarios().into_iter().filter(|scenario| catalogue.map(scenario).is_none());
            let known = slugs.chain(scenarios);
            bail!("{}", output::there_is_no("map or scenario in the catalogue called", name, known));
        }
        wanted.extend(named);
    }
    if arguments.all {
        wanted.extend(catalogue.maps());
    }
    let maps = if arguments.alone {
        catalogue.maps().iter().filter(|map| wanted.iter().any(|own| own.slug == map.slug)).collect()
    } else {
        catalogue.with_prerequisites(&wanted)
    };
    let done = match &arguments.into {
        Some(folder) => copy(&maps, folder)?,
        None => enter(&maps, &arguments.config.config)?,
    };
    if arguments.json {
        let done = done.iter().map(|(map, added)| json!({ "slug": map.slug, "outcome": added })).collect::<Vec<_>>();
        output::print_json(&json!({ "maps": done }))?;
    } else {
        let line = |(map, added): &(&CatalogueMap, Added)| match added {
            Added::Added => format!("added    {}\n", map.slug),
            Added::ThereAlready => format!("present  {}\n", map.slug),
        };
        output::print(&done.iter().map(line).collect::<String>())?;
    }
    Ok(FINE)
}

/// Copies the files; a file that is there is left alone.
fn copy<'a>(maps: &[&'a CatalogueMap], folder: &Path) -> anyhow::Result<Vec<(&'a CatalogueMap, Added)>> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let mut done = Vec::with_capacity(maps.len());
    for map in maps {
        let file = folder.join(format!("{}.json", map.slug));
        let added = match write_new(&file, map.json)? {
            true => Added::Added,
            false => Added::ThereAlready,
        };
        done.push((*map, added));
    }
    Ok(done)
}

/// Copies the files beside a configuration and writes their maps at its end.
fn enter<'a>(maps: &[&'a CatalogueMap], config: &Path) -> anyhow::Result<Vec<(&'a CatalogueMap, Added)>> {
    let text = fs::read_to_string(config).with_context(|| {
        format!("{} cannot be read; --config names another, --into only copies the files", config.display())
    })?;
    let read: toml::Table = toml::from_str(&text).with_context(|| format!("{} is not TOML", config.display()))?;
    let present = read.get("map").and_then(toml::Value::as_array).into_iter().flatten();
    let present = present.filter_map(|map| map.get("slug")?.as_str()).collect::<Vec<_>>();
    let folder = config.parent().unwrap_or(Path::new(".")).join("maps");
    let mut done = Vec::with_capacity(maps.len());
    let mut appended = String::new();
    for map in maps {
        if present.contains(&map.slug.as_str()) {
            done.push((*map, Added::ThereAlready));
            continue;
        }
        let file = folder.join(format!("{}.json", map.slug));
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        if !write_new(&file, map.json)? && fs::read_to_string(&file).ok().as_deref() != Some(map.json) {
            bail!("{} is there and says something else: move it away, or give it a map of its own", file.display());
        }
        let key = map.integration_key.iter().map(|path| toml::Value::from(path.as_str()).to_string());
        // Writing to a string cannot fail.
        let _ = write!(
            appended,
            "\n# {}.\n[[map]]\nslug = \"{slug}\"\nfile = \"maps/{slug}.json\"\nintegration_key = [{}]\n",
            map.summary,
            key.collect::<Vec<_>>().join(", "),
            slug = map.slug
        );
        done.push((*map, Added::Added));
    }
    if !appended.is_empty() {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let whole = format!("{text}{end}{appended}");
        // A file of maps as they are read must not end in the middle: written beside, then put in its place.
        let beside = config.with_extension("toml.new");
        if let Err(error) = toml::from_str::<toml::Table>(&whole) {
            bail!("{} lists its maps in a way that none can be added at its end: {error}", config.display());
        }
        fs::write(&beside, whole).with_context(|| format!("{} cannot be written", beside.display()))?;
        fs::rename(&beside, config).with_context(|| format!("{} cannot be written", config.display()))?;
    }
    Ok(done)
}

/// Whether the file was not there before.
fn write_new(file: &Path, text: &str) -> anyhow::Result<bool> {
    use std::io::Write as _;
    match fs::File::create_new(file) {
        Ok(mut new) => {
            new.write_all(text.as_bytes()).with_context(|| format!("{} cannot be written", file.display()))?;
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("{} cannot be written", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const START: &str = "state = \"state\"\n\n[link]\nslug = \"a\"\ncompanies = [\"usmf\"]\n\
        finops.url = \"http://localhost:1\"\ndataverse.url = \"http://localhost:2\"";

    #[test]
    fn maps_are_added_with_all_that_they_need_and_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("dualwright.toml");
        fs::write(&config, START).expect("written");
        let catalogue = Catalogue::embedded().expect("a catalogue");
        let of = |name: &str| catalogue.with_prerequisites(&catalogue.named(name));
        let said = |done: Vec<(&CatalogueMap, Added)>| {
            done.iter().map(|(map, added)| format!("{} {added:?}", map.slug)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(said(enter(&of("sites"), &config).expect("added")), "legal-entities Added, sites Added");
        let second = said(enter(&of("warehouses"), &config).expect("added"));
        assert_eq!(second, "legal-entities ThereAlready, sites ThereAlready, warehouses Added");
        let read = Config::read(&config, &|_| None).expect("a configuration");
        assert_eq!(read.map_slugs(), ["legal-entities", "sites", "warehouses"]);
        for map in &read.maps {
            let own = catalogue.map(&map.slug).expect("a map of the catalogue");
            assert_eq!(map.integration_key, own.integration_key);
            assert_eq!(fs::read_to_string(&map.file).expect("a file"), own.json);
        }
        // A file of the same name that somebody wrote is not overwritten.
        fs::write(folder.path().join("maps/units.json"), "{}").expect("written");
        let refused = enter(&of("units"), &config).expect_err("it is refused");
        assert!(refused.to_string().contains("units.json"), "{refused}");
        assert_eq!(fs::read_to_string(folder.path().join("maps/units.json")).expect("a file"), "{}");
    }
}
