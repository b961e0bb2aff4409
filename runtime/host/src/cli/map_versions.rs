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
The file is kept byte for byte, in whatever encoding it came: the JSON of a map, a JSON text that holds
it, or a row of msdyn_dualwriteentitymaps. A version is written once; another text needs another version.

  dualwright map import customers.json --map customers --activate
  dualwright map import row.json --map customers --version 1.0.0.7 --publisher contoso";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(super) struct ImportArguments {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The slug of the map that the file is a version of.
    #[arg(long, value_name = "SLUG")]
    map: String,
    /// Four numbers; without it what the file says, or the one after the newest.
    #[arg(long)]
    version: Option<MapVersion>,
    #[arg(long)]
    publisher: Option<String>,
    #[arg(long)]
    author: Option<String>,
    #[arg(long)]
    description: Option<String>,
    /// Activate it too.
    #[arg(long)]
    activate: bool,
    #[command(flatten)]
    checked: CheckedWith,
    #[command(flatten)]
    config: ConfigArgument,
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
    #[arg(long)]
    json: bool,
}

const ACTIVATE_EXAMPLES: &str = "\
A map of the configuration with version = \"active\" is this version from now on. A version with an error is
refused, and every reason is said. A runtime at work takes it up between two transactions, after it has
checked it against both systems; what it finds wrong stands in the activity log (`dualwright status`), and
the version before runs on. Rows that do not change stay as they are: `dualwright compare` lists those
that the new version would write differently. What it would do to which rows is said beforehand by
`dualwright map dry-run`.

  dualwright map activate customers 1.0.0.7 --schemas schemas/";

#[derive(Debug, Args)]
#[command(after_help = ACTIVATE_EXAMPLES)]
pub(super) struct ActivateArguments {
    #[arg(value_name = "SLUG")]
    map: String,
    #[arg(value_name = "VERSION")]
    version: MapVersion,
    #[command(flatten)]
    checked: CheckedWith,
    #[command(flatten)]
    config: ConfigArgument,
    #[arg(long)]
    json: bool,
}

const DIFF_EXAMPLES: &str = "\
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
    #[arg(long)]
    json: bool,
}

/// The state folder that a configuration names. Only that is read: a map may be imported before the rest is right.
fn state_folder(config: &Path) -> anyhow::Result<PathBuf> {
    let folder = config.parent().unwrap_or(Path::new("."));
    let text = match fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(folder.join("state")),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", config.display())),
    };
    let written: toml::Table = toml::from_str(&text).with_context(|| format!("{} is not TOML", config.display()))?;
    Ok(folder.join(written.get("state").and_then(toml::Value::as_str).unwrap_or("state")))
}

fn versions_of(config: &ConfigArgument, slug: &str) -> anyhow::Result<Versions> {
    if !crate::config::is_slug(slug) {
        bail!("`{slug}` is no slug: use lower-case letters, digits, - and _");
    }
    Ok(Versions::of(&state_folder(&config.config)?, slug))
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn say_problems(what: &str, problems: &[Problem]) {
    for problem in problems {
        eprintln!("{what}: {problem}");
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
        code = activate_version(&versions, &arguments.map, version, &arguments.checked, arguments.json)?;
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
        let what = wanted.map_or_else(|| "versions".to_owned(), |version| format!("version {version}"));
        eprintln!("error: the map {} has no {what}; see `dualwright map versions`", arguments.map);
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
    } else {
        let headings = ["map", "version", "", "publisher", "author", "description"];
        output::print(&output::columns(&headings, rows))?;
    }
    Ok(FINE)
}

pub(super) fn activate(arguments: &ActivateArguments) -> anyhow::Result<u8> {
    let versions = versions_of(&arguments.config, &arguments.map)?;
    let code = activate_version(&versions, &arguments.map, arguments.version, &arguments.checked, arguments.json)?;
    if arguments.json {
        output::print_json(&json!({ "map": arguments.map, "version": arguments.version, "active": code == FINE }))?;
    }
    Ok(code)
}

fn activate_version(
    versions: &Versions,
    slug: &str,
    version: MapVersion,
    checked: &CheckedWith,
    quiet: bool,
) -> anyhow::Result<u8> {
    if let Err(error) = versions.text(version) {
        eprintln!("error: version {version} of {slug} cannot be activated: {error}; see `dualwright map versions`");
        return Ok(MISCONFIGURED);
    }
    let problems = map::errors_of(&versions.file(version), checked.schemas.as_deref())?;
    if !problems.is_empty() {
        say_problems(&format!("version {version} of {slug}"), &problems);
        eprintln!("error: the version is not activated; correct it, and import it under another version");
        return Ok(MISCONFIGURED);
    }
    versions.activate(version).context("the version cannot be activated")?;
    if !quiet {
        println!("version {version} of {slug} is active; a runtime at work takes it up after its next transaction");
    }
    Ok(FINE)
}

pub(super) fn diff(arguments: &DiffArguments) -> anyhow::Result<u8> {
    let texts = match arguments.maps.as_slice() {
        [before, after] => [read_file(Path::new(before))?, read_file(Path::new(after))?],
        [slug, before, after] => {
            let versions = versions_of(&arguments.config, slug)?;
            let text = |written: &str| {
                let version = written.parse::<MapVersion>().map_err(anyhow::Error::msg)?;
                versions.text(version).with_context(|| format!("version {version} of {slug}"))
            };
            [text(before)?, text(after)?]
        }
        _ => bail!("name two files, or a slug and two versions"),
    };
    let mut mappings = Vec::new();
    for text in texts {
        match Mapping::parse(&text) {
            Ok(mapping) => mappings.push(mapping),
            Err(problems) => {
                say_problems("map", &problems);
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
        assert!(diff_of(["as", "1.0", "3.0"]).is_err(), "there is no such version");
    }
}
