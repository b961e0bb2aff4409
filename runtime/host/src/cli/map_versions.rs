//! `dualwright map import|export|versions|activate|diff`: the versions of a map, told apart and never edited.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use dualwright_core::mapping::{Document, Encoding, MapVersion, Mapping, Problem, VersionFacts, differences};
use serde_json::json;

use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, map, output};
use crate::config::versions::{Imported, Versions};

const IMPORT_EXAMPLES: &str = "\
The file is kept byte for byte, in whatever encoding it came: the JSON of a map, a JSON text that
holds it, or a row of msdyn_dualwriteentitymaps. A version is written once; another text needs
another version.

  dualwright map import customers.json --map customers --activate
  dualwright map import row.json --map customers --version 1.0.0.7 --publisher contoso";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(super) struct ImportArguments {
    /// A map file, in any encoding.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The slug of the map that the file is a version of.
    #[arg(long, value_name = "SLUG")]
    map: String,
    /// Four numbers; without it what the file says, or the one after the newest.
    #[arg(long)]
    version: Option<MapVersion>,
    /// Who publishes it; without it what the file says.
    #[arg(long)]
    publisher: Option<String>,
    /// Who wrote it; without it what the file says.
    #[arg(long)]
    author: Option<String>,
    /// What is new in it; without it what the file says.
    #[arg(long)]
    description: Option<String>,
    /// Activate it too.
    #[arg(long)]
    activate: bool,
    #[command(flatten)]
    checked: CheckedWith,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// What an activation is checked against.
#[derive(Debug, Args)]
struct CheckedWith {
    /// A folder with the tables of both systems; without it the shape and the filters are checked.
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The slug of the map.
    #[arg(value_name = "SLUG")]
    map: String,
    /// Without it the active version, or the newest.
    #[arg(long)]
    version: Option<MapVersion>,
    /// How the map is written.
    #[arg(long, value_enum, default_value_t = WrittenEncoding::AsImported)]
    encoding: WrittenEncoding,
    /// Without it to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WrittenEncoding {
    /// Byte for byte.
    AsImported,
    /// The JSON of the map itself.
    Plain,
    /// A JSON text that holds it.
    Double,
    /// A row of msdyn_dualwriteentitymaps.
    Row,
}

impl From<WrittenEncoding> for Encoding {
    fn from(written: WrittenEncoding) -> Self {
        match written {
            WrittenEncoding::AsImported => Self::AsImported,
            WrittenEncoding::Plain => Self::Plain,
            WrittenEncoding::Double => Self::Double,
            WrittenEncoding::Row => Self::Row,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct VersionsArguments {
    /// The slug of a map; without it every map that has versions.
    #[arg(value_name = "SLUG")]
    map: Option<String>,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON list.
    #[arg(long)]
    json: bool,
}

const ACTIVATE_EXAMPLES: &str = "\
A map of the configuration with version = \"active\" is this version from now on. A version with an
error is refused, and every reason is said. A runtime at work takes it up between two transactions,
after it has checked it against both systems; what it finds wrong stands in the activity log
(`dualwright status`), and the version before runs on. Rows that do not change stay as they are:
`dualwright compare` lists those that the new version would write differently. What it would do to
which rows is said beforehand by `dualwright map dry-run`.

  dualwright map activate customers 1.0.0.7 --schemas schemas/";

#[derive(Debug, Args)]
#[command(after_help = ACTIVATE_EXAMPLES)]
pub(super) struct ActivateArguments {
    /// The slug of the map.
    #[arg(value_name = "SLUG")]
    map: String,
    /// A version that was imported.
    #[arg(value_name = "VERSION")]
    version: MapVersion,
    #[command(flatten)]
    checked: CheckedWith,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

const DIFF_EXAMPLES: &str = "\
Says in words which fields, transforms, filters and other settings differ.

  dualwright map diff customers 1.0.0.6 1.0.0.7
  dualwright map diff old.json new.json

Exit codes: 0 they say the same; 1 they differ; 2 one of them cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(super) struct DiffArguments {
    /// Two map files; or the slug of a map and two of its versions.
    #[arg(value_name = "FILE|SLUG VERSION", num_args = 2..=3, required = true)]
    maps: Vec<String>,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON list of the differences.
    #[arg(long)]
    json: bool,
}

/// A configuration as it is written, empty where there is none: a map may be imported before the rest is right.
fn written_config(config: &Path) -> anyhow::Result<toml::Table> {
    let text = match fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(toml::Table::new()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", config.display())),
    };
    toml::from_str(&text).with_context(|| format!("{} is not TOML", config.display()))
}

/// The state folder that a configuration names.
fn state_folder(config: &Path) -> anyhow::Result<PathBuf> {
    let folder = config.parent().unwrap_or(Path::new("."));
    let written = written_config(config)?;
    Ok(folder.join(written.get("state").and_then(toml::Value::as_str).unwrap_or("state")))
}

fn versions_of(config: &ConfigArgument, slug: &str) -> anyhow::Result<Versions> {
    if !crate::config::is_slug(slug) {
        bail!("`{slug}` is no slug: use lower-case letters, digits, - and _");
    }
    Ok(Versions::of(&state_folder(&config.config)?, slug))
}

/// Why the configuration would not use the active version of a map; `None` where it does.
fn why_it_is_not_used(config: &Path, slug: &str) -> anyhow::Result<Option<String>> {
    let written = written_config(config)?;
    let maps = written.get("map").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_named = |map: &&toml::Value| map.get("slug").and_then(toml::Value::as_str) == Some(slug);
    let text_of = |map: &toml::Value, key: &str| map.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let config = config.display();
    Ok(match maps.iter().find(is_named) {
        None => Some(format!("{config} has no map {slug}; add a [[map]] with version = \"active\"")),
        Some(map) => match (text_of(map, "version"), text_of(map, "file")) {
            (Some(version), _) if version == "active" => None,
            (Some(version), _) => Some(format!(
                "the map {slug} of {config} stays at version = \"{version}\"; write version = \"active\" there"
            )),
            (None, Some(file)) => Some(format!(
                "the map {slug} of {config} reads {file}; write version = \"active\" in place of its file"
            )),
            (None, None) => {
                Some(format!("the map {slug} of {config} has no version; write version = \"active\" there"))
            }
        },
    })
}

/// What to say where a map has no such version, or none at all.
fn there_is_no_version(versions: &Versions, slug: &str, version: Option<MapVersion>) -> anyhow::Result<String> {
    let all = versions.all().context("the versions cannot be listed")?;
    Ok(match version {
        Some(version) if !all.is_empty() => {
            let all = all.iter().map(|kept| kept.facts.version.to_string()).collect::<Vec<_>>();
            format!("the map {slug} has no version {version}. There are: {}", all.join(", "))
        }
        _ => format!("the map {slug} has no versions; `dualwright map import FILE --map {slug}` keeps the first"),
    })
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn say_problems(what: &str, problems: &[Problem]) {
    for problem in problems {
        eprintln!("error: {what}, {problem}");
        for line in problem.excerpt.iter().flat_map(|excerpt| excerpt.lines()) {
            eprintln!("    {line}");
        }
    }
}

pub(super) fn import(arguments: &ImportArguments) -> anyhow::Result<u8> {
    let versions = versions_of(&arguments.config, &arguments.map)?;
    let text = read_file(&arguments.file)?;
    let document = match Document::parse(&text) {
        Ok(document) => document,
        Err(problems) => {
            say_problems(&arguments.file.display().to_string(), &problems);
            return Ok(MISCONFIGURED);
        }
    };
    let facts = facts(arguments, &document, &versions, &text)?;
    let version = facts.version;
    let imported = match versions.import(&facts, &text) {
        Ok(imported) => imported,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            eprintln!(
                "error: version {version} of {} is another text, and a version never changes; give this one another \
                 --version",
                arguments.map
            );
            return Ok(MISCONFIGURED);
        }
        Err(error) => return Err(error).context("the version cannot be kept"),
    };
    if !arguments.json {
        let what = match imported {
            Imported::New => "imported",
            Imported::AlreadyThere => "was there already",
        };
        println!("version {version} of {} {what}", arguments.map);
    }
    let mut code = FINE;
    if arguments.activate {
        code = activate_version(
            &versions,
            &arguments.map,
            version,
            &arguments.checked,
            &arguments.config,
            arguments.json,
        )?;
    }
    if arguments.json {
        let new = imported == Imported::New;
        output::print_json(&json!({
            "map": arguments.map, "version": version, "new": new, "active": versions.active() == Some(version),
        }))?;
    }
    Ok(code)
}

/// What is said about the version: the flags, else the file. A version that nobody names is the next one.
fn facts(
    arguments: &ImportArguments,
    document: &Document,
    versions: &Versions,
    text: &str,
) -> anyhow::Result<VersionFacts> {
    let all = versions.all().context("the versions cannot be listed")?;
    let said = document.facts().clone();
    let is_same = |version| versions.text(version).is_ok_and(|own| own == text);
    let version = match arguments.version {
        Some(version) => version,
        None => match all.iter().map(|kept| kept.facts.version).find(|version| is_same(*version)) {
            Some(same) => same,
            None if all.iter().any(|kept| kept.facts.version == said.version) => {
                all.last().map_or(said.version, |newest| newest.facts.version.next())
            }
            None => said.version,
        },
    };
    let or = |given: &Option<String>, said: String| given.clone().unwrap_or(said);
    Ok(VersionFacts {
        version,
        publisher: or(&arguments.publisher, said.publisher),
        author: or(&arguments.author, said.author),
        description: or(&arguments.description, said.description),
    })
}

pub(super) fn export(arguments: &ExportArguments) -> anyhow::Result<u8> {
    let versions = versions_of(&arguments.config, &arguments.map)?;
    let all = versions.all().context("the versions cannot be listed")?;
    let wanted = arguments.version.or_else(|| versions.active()).or_else(|| Some(all.last()?.facts.version));
    let Some(kept) = wanted.and_then(|version| all.into_iter().find(|kept| kept.facts.version == version)) else {
        eprintln!("error: {}", there_is_no_version(&versions, &arguments.map, wanted)?);
        return Ok(MISCONFIGURED);
    };
    let text = versions.text(kept.facts.version).context("the version cannot be read")?;
    let document = Document::parse(&text)
        .map_err(|_| anyhow::anyhow!("version {} does not read as it did when it was imported", kept.facts.version))?;
    let exported = document.export(arguments.encoding.into(), &kept.facts);
    match &arguments.out {
        Some(path) => fs::write(path, exported).with_context(|| format!("{} cannot be written", path.display()))?,
        None => output::print(&exported)?,
    }
    Ok(FINE)
}

pub(super) fn versions(arguments: &VersionsArguments) -> anyhow::Result<u8> {
    let state = state_folder(&arguments.config.config)?;
    let slugs = match &arguments.map {
        Some(slug) => vec![slug.clone()],
        None => Versions::slugs(&state).context("the state folder cannot be read")?,
    };
    let (mut listed, mut rows) = (Vec::new(), Vec::new());
    for slug in slugs {
        let versions = versions_of(&arguments.config, &slug)?;
        for kept in versions.all().context("the versions cannot be listed")? {
            let is_active = versions.active() == Some(kept.facts.version);
            let VersionFacts { version, publisher, author, description } = kept.facts.clone();
            let mark = if is_active { "active" } else { "" };
            rows.push(vec![slug.clone(), version.to_string(), mark.to_owned(), publisher, author, description]);
            listed.push(json!({ "map": slug, "active": is_active, "version": kept }));
        }
    }
    if arguments.json {
        output::print_json(&listed)?;
    } else if let (true, Some(slug)) = (rows.is_empty(), &arguments.map) {
        println!("{}", there_is_no_version(&versions_of(&arguments.config, slug)?, slug, None)?);
    } else if rows.is_empty() {
        println!("no map has versions; `dualwright map import FILE --map SLUG` keeps the first of one");
    } else {
        let headings = ["map", "version", "", "publisher", "author", "description"];
        output::print(&output::columns(&headings, rows))?;
    }
    Ok(FINE)
}

pub(super) fn activate(arguments: &ActivateArguments) -> anyhow::Result<u8> {
    let versions = versions_of(&arguments.config, &arguments.map)?;
    let ActivateArguments { map, version, checked, config, json } = arguments;
    let code = activate_version(&versions, map, *version, checked, config, *json)?;
    if *json {
        let used = code == FINE && why_it_is_not_used(&config.config, map)?.is_none();
        output::print_json(&json!({ "map": map, "version": version, "active": code == FINE, "used": used }))?;
    }
    Ok(code)
}

fn activate_version(
    versions: &Versions,
    slug: &str,
    version: MapVersion,
    checked: &CheckedWith,
    config: &ConfigArgument,
    quiet: bool,
) -> anyhow::Result<u8> {
    match versions.text(version) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("error: {}", there_is_no_version(versions, slug, Some(version))?);
            return Ok(MISCONFIGURED);
        }
        Err(error) => return Err(error).with_context(|| format!("version {version} of {slug} cannot be read")),
    }
    let problems = map::errors_of(&versions.file(version), checked.schemas.as_deref())?;
    if !problems.is_empty() {
        say_problems(&format!("version {version} of {slug}"), &problems);
        eprintln!("error: the version is not activated; correct it, and import it under another version");
        return Ok(MISCONFIGURED);
    }
    versions.activate(version).context("the version cannot be activated")?;
    match why_it_is_not_used(&config.config, slug)? {
        Some(why) => {
            if !quiet {
                println!("version {version} of {slug} is active");
            }
            eprintln!("notice: nothing uses it yet: {why}");
        }
        None if quiet => {}
        None => {
            println!("version {version} of {slug} is active; a runtime at work takes it up after its next transaction");
        }
    }
    Ok(FINE)
}

pub(super) fn diff(arguments: &DiffArguments) -> anyhow::Result<u8> {
    let read = |path: &String| anyhow::Ok((path.clone(), read_file(Path::new(path))?));
    let texts = match arguments.maps.as_slice() {
        [before, after] => [read(before)?, read(after)?],
        [slug, before, after] => {
            let versions = versions_of(&arguments.config, slug)?;
            let text = |written: &str| {
                let version = written.parse::<MapVersion>().map_err(anyhow::Error::msg)?;
                let what = format!("version {version} of {slug}");
                match versions.text(version) {
                    Ok(text) => Ok((what, text)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        bail!("{}", there_is_no_version(&versions, slug, Some(version))?)
                    }
                    Err(error) => Err(error).with_context(|| format!("{what} cannot be read")),
                }
            };
            [text(before)?, text(after)?]
        }
        _ => bail!("name two files, or a slug and two versions"),
    };
    let mut mappings = Vec::new();
    for (what, text) in texts {
        match Mapping::parse(&text) {
            Ok(mapping) => mappings.push(mapping),
            Err(problems) => {
                say_problems(&what, &problems);
                return Ok(MISCONFIGURED);
            }
        }
    }
    let found = differences(&mappings[0], &mappings[1]);
    if arguments.json {
        output::print_json(&found)?;
    } else if found.is_empty() {
        println!("the two say the same");
    } else {
        output::print(&found.iter().map(|difference| format!("{difference}\n")).collect::<String>())?;
    }
    Ok(if found.is_empty() { FINE } else { DIFFERENT })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = r#"{"legs": [{"sourceSchema": "A", "destinationSchema": "as", "sourceFilter": "",
        "fieldMappings": [{"syncDirection": "3", "sourceField": "K", "destinationField": "k", "own": 1.0}]}]}"#;

    fn config(folder: &Path) -> ConfigArgument {
        ConfigArgument { config: folder.join("dualwright.toml") }
    }

    fn import_text(folder: &Path, text: &str, version: Option<&str>, activate: bool) -> u8 {
        let file = folder.join("given.json");
        fs::write(&file, text).expect("written");
        let arguments = ImportArguments {
            file,
            map: "as".to_owned(),
            version: version.map(|text| text.parse().expect("a version")),
            publisher: Some("sst".to_owned()),
            author: None,
            description: None,
            activate,
            checked: CheckedWith { schemas: None },
            config: config(folder),
            json: false,
        };
        import(&arguments).expect("no failure")
    }

    #[test]
    fn versions_are_imported_activated_and_given_out_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        fs::write(folder.join("dualwright.toml"), "state = \"kept\"\n").expect("written");
        assert_eq!(import_text(folder, MAP, None, true), FINE);
        let other = MAP.replace("\"3\"", "\"1\"");
        assert_eq!(import_text(folder, &other, Some("1.0"), false), MISCONFIGURED, "a version never changes");
        assert_eq!(import_text(folder, &other, None, false), FINE, "the next version");
        assert_eq!(import_text(folder, &other, None, false), FINE, "the same again");
        let broken = MAP.replace(r#""sourceFilter": """#, r#""sourceFilter": "K ==""#);
        assert_eq!(import_text(folder, &broken, Some("7"), true), MISCONFIGURED, "it has an error");
        let versions = Versions::of(&folder.join("kept"), "as");
        let all = versions.all().expect("listed").into_iter().map(|kept| kept.facts.version.to_string());
        assert_eq!(all.collect::<Vec<_>>(), ["1.0.0.0", "1.0.0.1", "7.0.0.0"]);
        assert!(versions.all().expect("listed").iter().all(|kept| kept.facts.publisher == "sst"));
        assert_eq!(versions.active(), Some(MapVersion::FIRST));
        for (encoding, wanted) in [
            (WrittenEncoding::AsImported, MAP.to_owned()),
            (WrittenEncoding::Double, serde_json::to_string(MAP).expect("a text")),
        ] {
            let out = folder.join("out.json");
            let arguments = ExportArguments {
                map: "as".to_owned(),
                version: None,
                encoding,
                out: Some(out.clone()),
                config: config(folder),
            };
            assert_eq!(export(&arguments).expect("no failure"), FINE);
            assert_eq!(fs::read_to_string(out).expect("written"), wanted);
        }
        let diff_of = |maps: [&str; 3]| {
            let maps = maps.iter().map(|text| (*text).to_owned()).collect();
            diff(&DiffArguments { maps, config: config(folder), json: false })
        };
        assert_eq!(diff_of(["as", "1.0", "1.0.0.1"]).expect("read"), DIFFERENT);
        assert_eq!(diff_of(["as", "1.0", "1.0"]).expect("read"), FINE);
        let error = diff_of(["as", "1.0", "3.0"]).expect_err("there is no such version").to_string();
        assert_eq!(error, "the map as has no version 3.0.0.0. There are: 1.0.0.0, 1.0.0.1, 7.0.0.0");
    }

    #[test]
    fn a_map_that_does_not_use_the_active_version_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("dualwright.toml");
        for (written, wanted) in [
            ("slug = \"as\"\nversion = \"active\"", None),
            ("slug = \"as\"\nversion = \"1.0.0.7\"", Some("stays at version = \"1.0.0.7\"")),
            (
                "slug = \"as\"\nfile = \"as.json\"",
                Some("reads as.json; write version = \"active\" in place of its file"),
            ),
            ("slug = \"bs\"\nversion = \"active\"", Some("has no map as; add a [[map]]")),
        ] {
            fs::write(&config, format!("[[map]]\n{written}\n")).expect("written");
            let why = why_it_is_not_used(&config, "as").expect("it can be read");
            assert_eq!(why.is_some(), wanted.is_some(), "{written}: {why:?}");
            assert!(why.unwrap_or_default().contains(wanted.unwrap_or_default()), "{written}");
        }
        fs::remove_file(&config).expect("it is there");
        assert!(why_it_is_not_used(&config, "as").expect("none is no failure").is_some());
    }

    #[test]
    fn versions_that_are_not_there_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let versions = Versions::of(folder.path(), "as");
        let text = there_is_no_version(&versions, "as", Some(MapVersion::FIRST)).expect("listed");
        assert_eq!(text, "the map as has no versions; `dualwright map import FILE --map as` keeps the first");
    }
}
