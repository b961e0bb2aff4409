//! The settings that tie the demo together: `dualwright.toml` and the maps beside it.
//!
//! Written as a person would write them, with every binding of the standard plugins and why it is there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{DataSource, DemoError};

/// Where the two systems answer.
#[derive(Debug, Clone)]
pub struct Urls {
    pub finops: String,
    pub dataverse: String,
}

/// The bindings of the standard plugins, by map.
const PLUGINS: &[(&str, &str)] = &[];

pub(super) fn write(source: &DataSource, folder: &Path, urls: &Urls) -> Result<PathBuf, DemoError> {
    let write = |path: PathBuf, text: &str| {
        std::fs::write(&path, text).map_err(|source| DemoError::Write { file: path.clone(), source }).map(|()| path)
    };
    let maps = folder.join("maps");
    std::fs::create_dir_all(&maps).map_err(|source| DemoError::Write { file: maps.clone(), source })?;
    for map in source.maps() {
        write(maps.join(format!("{}.json", map.facts.slug)), &map.json)?;
    }
    write(folder.join("dualwright.toml"), &text(source, urls))
}

fn text(source: &DataSource, urls: &Urls) -> String {
    let companies = source.companies().iter().map(|company| quoted(company)).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "# One link between an F&O and a Dataverse environment, fifteen table maps, and the standard plugins.\n\
         tenant = \"default\"\n\
         state = \"state\"\n\n\
         [link]\n\
         slug = \"demo\"\n\
         companies = [{companies}]\n\
         conflict_winner = \"finops\"\n\
         finops.url = {}\n\
         dataverse.url = {}\n",
        quoted(&urls.finops),
        quoted(&urls.dataverse)
    );
    for map in source.maps() {
        let key = map.facts.integration_key.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(", ");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[map]]\nslug = \"{slug}\"\nfile = \"maps/{slug}.json\"\nintegration_key = [{key}]\nfinops_collection = \"{}\"\n",
            map.facts.finops_collection,
            slug = map.facts.slug,
        );
        for (_, binding) in PLUGINS.iter().filter(|(slug, _)| *slug == map.facts.slug) {
            let _ = write!(text, "\n[[map.plugin]]\n{binding}");
        }
    }
    text
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
