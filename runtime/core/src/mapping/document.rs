//! A map as it was imported, kept letter by letter, and how it is given out again.
//!
//! Nothing is lost because nothing is written anew: what was read stays the text it was, unknown members among it, and
//! other encodings are made of the text that it holds.

use super::read::{Json, Problems, Unwrapped, read_mapping, unwrap};
use super::{MapVersion, Mapping, Problem, VersionFacts};

/// How the JSON of a map is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Byte for byte as it was read.
    #[default]
    AsImported,
    /// The JSON of the map itself.
    Plain,
    /// A JSON text that holds the JSON of the map, as some rows of `msdyn_dualwriteentitymap` have it.
    Double,
    /// A row of `msdyn_dualwriteentitymap`: name, version and the map as a text.
    Row,
}

/// A map with the text it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    text: String,
    plain: String,
    facts: VersionFacts,
    mapping: Mapping,
}

impl Document {
    /// Reads a map in any encoding. Fails with every problem of its shape.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems(Vec::new());
        let read = unwrap(text, &mut problems).and_then(|unwrapped| {
            let mapping = read_mapping(&unwrapped.json, &mut problems)?;
            Some((unwrapped, mapping))
        });
        match read {
            Some((unwrapped, mut mapping)) if problems.0.is_empty() => {
                let facts = facts(&unwrapped);
                // The row that a map stands in names it, where the map does not.
                if unwrapped.json.get("name").is_none()
                    && let Some(name) = unwrapped.row.as_ref().and_then(|row| text_of(row, "msdyn_name"))
                {
                    mapping.name = name;
                }
                Ok(Self { text: text.to_owned(), plain: unwrapped.plain, facts, mapping })
            }
            _ => Err(problems.0),
        }
    }

    #[must_use]
    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    #[must_use]
    pub fn into_mapping(self) -> Mapping {
        self.mapping
    }

    /// What the text says of its version; what it does not say is the default.
    #[must_use]
    pub const fn facts(&self) -> &VersionFacts {
        &self.facts
    }

    /// The map in this encoding. `facts` stand in the row, where there is one.
    #[must_use]
    pub fn export(&self, encoding: Encoding, facts: &VersionFacts) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        match encoding {
            Encoding::AsImported => self.text.clone(),
            Encoding::Plain => self.plain.clone(),
            Encoding::Double => text(&self.plain),
            Encoding::Row => {
                let name = facts.row_name(&self.mapping.name);
                let mut row = serde_json::Map::new();
                row.insert("msdyn_name".to_owned(), name.into());
                row.insert("msdyn_displayname".to_owned(), self.mapping.name.clone().into());
                row.insert("msdyn_version".to_owned(), facts.version.to_string().into());
                row.insert("msdyn_mapping".to_owned(), self.plain.clone().into());
                serde_json::Value::Object(row).to_string()
            }
        }
    }
}

fn text_of(json: &Json, name: &str) -> Option<String> {
    json.get(name).and_then(Json::scalar).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn facts(unwrapped: &Unwrapped) -> VersionFacts {
    let own = |names: &[&str]| {
        let places = unwrapped.row.iter().chain([&unwrapped.json]);
        places.flat_map(|place| names.iter().filter_map(|name| text_of(place, name))).next()
    };
    let publisher = own(&["msdyn_publisher", "publisher"]).or_else(|| {
        // `sst_[uoms - Units]`: the prefix of the publisher stands before the bracket.
        let name = unwrapped.row.as_ref().and_then(|row| text_of(row, "msdyn_name"))?;
        let (prefix, _) = name.split_once("_[")?;
        (!prefix.is_empty()).then(|| prefix.to_owned())
    });
    VersionFacts {
        version: own(&["msdyn_version", "version"]).and_then(|text| text.parse().ok()).unwrap_or(MapVersion::FIRST),
        publisher: publisher.unwrap_or_default(),
        author: own(&["author", "_ownerid_value@OData.Community.Display.V1.FormattedValue"]).unwrap_or_default(),
        description: own(&["msdyn_description", "description"]).unwrap_or_default(),
    }
}
