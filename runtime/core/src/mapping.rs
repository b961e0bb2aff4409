//! A table map as it is written: the `msdyn_mapping` JSON of a Dual-write map (reference 1.3).
//!
//! Owns the tolerance that stored maps need: double encoding, directions as digit, text or word, `none` for no column,
//! polymorphic paths. Knows no schema, so it judges the shape alone; [`crate::plan`] judges the meaning. Every problem
//! of a map is collected, with its place and what to do about it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A table map. Left is always F&O, right is always Dataverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub name: String,
    /// At least one.
    pub legs: Vec<Leg>,
}

/// One pair of tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Display name of the data entity (`sourceSchema`).
    pub finops_entity: String,
    /// The entity's own name, where the map says it.
    pub finops_distinct_name: Option<String>,
    /// Entity set (`destinationSchema`).
    pub dataverse_set: String,
    /// X++ range expression over the F&O entity; empty means every row.
    pub finops_filter: String,
    /// OData `$filter` over the Dataverse table; empty means every row.
    pub dataverse_filter: String,
    /// At least one.
    pub fields: Vec<FieldMapping>,
}

/// One row of a map: a pair of columns and what happens between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMapping {
    pub direction: FieldDirection,
    /// `None` where the map says `none`: a Default supplies the value.
    pub finops: Option<String>,
    pub dataverse: Option<DataversePath>,
    pub transforms: Vec<Transform>,
    /// Entity set behind the first hop, where the map says it.
    pub related_set: Option<String>,
}

impl fmt::Display for FieldMapping {
    /// The row as people write it: `CUSTOMERGROUPID = msdyn_customergroupid.msdyn_groupid`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finops = self.finops.as_deref().unwrap_or("none");
        let symbol = self.direction.symbol(!self.transforms.is_empty());
        match &self.dataverse {
            Some(path) => write!(f, "{finops} {symbol} {path}"),
            None => write!(f, "{finops} {symbol} none"),
        }
    }
}

/// Which way a field mapping goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldDirection {
    ToDataverse,
    ToFinops,
    Both,
}

impl FieldDirection {
    #[must_use]
    pub const fn goes_to(self, target: crate::SystemKind) -> bool {
        match target {
            crate::SystemKind::Dataverse => matches!(self, Self::ToDataverse | Self::Both),
            crate::SystemKind::Finops => matches!(self, Self::ToFinops | Self::Both),
        }
    }

    /// The symbol of the documentation (reference 1.4).
    #[must_use]
    pub const fn symbol(self, transforms: bool) -> &'static str {
        match (self, transforms) {
            (Self::ToDataverse, false) => ">",
            (Self::ToDataverse, true) => ">>",
            (Self::ToFinops, false) => "<",
            (Self::ToFinops, true) => "<<",
            (Self::Both, false) => "=",
            (Self::Both, true) => "><",
        }
    }

    /// Digits are those of the stored maps; words and symbols are those of tools and documentation.
    fn from_word(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "1" | "foonly" | "forward" | "todataverse" | "to-dataverse" | "unidirectional" | ">" | ">>" => {
                Self::ToDataverse
            }
            "2" | "ceonly" | "backward" | "reverse" | "tofinops" | "to-finops" | "<" | "<<" => Self::ToFinops,
            "3" | "both" | "bidirectional" | "=" | "><" => Self::Both,
            _ => return None,
        })
    }
}

/// Where a field mapping ends on the Dataverse side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataversePath {
    /// The column of the mapped table itself.
    pub column: String,
    pub reference: Reference,
}

/// What follows the column, when it is a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Nothing: a plain column.
    None,
    /// Columns from hop to hop; the last one holds the natural key value. Not empty.
    Path(Vec<String>),
    /// Polymorphic: for each table the path to its key. Not empty.
    ByTable(Vec<(String, Vec<String>)>),
}

impl DataversePath {
    /// Hops in shipped maps are three at most; more than this is a slip of the pen.
    const HOPS_MAX: usize = 8;

    /// Reads `column`, `lookup.key`, `lookup.lookup.key` or `lookup.Table(key).Table(key)`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let end = rest.find(['.', '(']).unwrap_or(rest.len());
            let name = &rest[..end];
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(format!("{text:?} is not a column path: {name:?} is not a name"));
            }
            let mut inner = None;
            rest = &rest[end..];
            if let Some(after) = rest.strip_prefix('(') {
                let close = after.find(')').ok_or_else(|| format!("{text:?} lacks a closing parenthesis"))?;
                inner = Some(Self::plain_path(text, &after[..close])?);
                rest = &after[close + 1..];
            }
            steps.push((name.to_owned(), inner));
            match rest.strip_prefix('.') {
                Some("") => return Err(format!("{text:?} ends with a dot")),
                Some(after) => rest = after,
                None if rest.is_empty() => {}
                None => return Err(format!("{text:?} is not a column path: a dot is missing before {rest:?}")),
            }
        }
        if steps.len() > Self::HOPS_MAX {
            return Err(format!("{text:?} has more than {} steps", Self::HOPS_MAX));
        }
        let mut steps = steps.into_iter();
        let (column, reference) = match steps.next() {
            None => return Err("the path is empty".to_owned()),
            Some((_, Some(_))) => return Err(format!("{text:?} starts with a table instead of a lookup column")),
            Some((column, None)) => (column, steps.collect::<Vec<_>>()),
        };
        let tables = reference.iter().filter(|(_, inner)| inner.is_some()).count();
        let reference = if reference.is_empty() {
            Reference::None
        } else if tables == 0 {
            Reference::Path(reference.into_iter().map(|(name, _)| name).collect())
        } else if tables == reference.len() {
            Reference::ByTable(reference.into_iter().map(|(table, path)| (table, path.unwrap_or_default())).collect())
        } else {
            return Err(format!("{text:?} mixes columns and tables after {column}"));
        };
        Ok(Self { column, reference })
    }

    fn plain_path(text: &str, inner: &str) -> Result<Vec<String>, String> {
        let path = inner.split('.').map(|step| step.trim().to_owned()).collect::<Vec<_>>();
        let is_name = |step: &String| !step.is_empty() && step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if path.iter().all(is_name) { Ok(path) } else { Err(format!("{text:?} is not a column path: see {inner:?}")) }
    }
}

impl fmt::Display for DataversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        match &self.reference {
            Reference::None => Ok(()),
            Reference::Path(path) => write!(f, ".{}", path.join(".")),
            Reference::ByTable(tables) => {
                tables.iter().try_for_each(|(table, path)| write!(f, ".{table}({})", path.join(".")))
            }
        }
    }
}

/// What happens to a value on its way (reference 1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transform {
    /// Stands in where there is no source column or no value.
    Default { value: String },
    /// Pairs of F&O value and Dataverse value, inverted on the way back; compared without regard to case.
    ValueMap { pairs: Vec<(String, String)>, default: Option<String> },
    /// Cuts a text to this many characters.
    Truncate { length: u32 },
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The map cannot run.
    Error,
    /// The map runs; a person should know.
    Notice,
}

/// One thing that is wrong with a map.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where in the map.
    pub place: String,
    pub message: String,
    /// What a person does about it.
    pub remedy: String,
    pub severity: Severity,
    /// The code that Dual-write gives the same problem (reference 5.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_code: Option<&'static str>,
}

impl Problem {
    #[must_use]
    pub fn error(place: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
            remedy: remedy.into(),
            severity: Severity::Error,
            foreign_code: None,
        }
    }

    #[must_use]
    pub fn notice(place: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, ..Self::error(place, message, remedy) }
    }

    #[must_use]
    pub const fn foreign(mut self, code: &'static str) -> Self {
        self.foreign_code = Some(code);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(code) = self.foreign_code {
            write!(f, " [{code}]")?;
        }
        write!(f, "; {}", self.remedy)
    }
}

impl Mapping {
    /// Reads a map from its JSON, or from a JSON text that holds that JSON. Fails with every problem of its shape.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems(Vec::new());
        let mapping = read_document(text, &mut problems).and_then(|json| read_mapping(&json, &mut problems));
        match mapping {
            Some(mapping) if problems.0.is_empty() => Ok(mapping),
            _ => Err(problems.0),
        }
    }
}

/// JSON with its order and its duplicate keys, which a value map needs.
#[derive(Debug, Clone)]
enum Json {
    Null,
    Boolean(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => {
                entries.iter().find(|(key, _)| key == name).map(|(_, value)| value).filter(|value| !value.is_null())
            }
            _ => None,
        }
    }

    const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// A scalar as a map would spell it in a text.
    fn scalar(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Number(number) => Some(number.to_string()),
            Self::Boolean(value) => Some(if *value { "True" } else { "False" }.to_owned()),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonVisitor;
        impl<'de> Visitor<'de> for JsonVisitor {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Boolean(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number))
            }
            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Json::Object(entries))
            }
        }
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, place: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem::error(place, message, remedy));
    }
}

fn read_document(text: &str, problems: &mut Problems) -> Option<Json> {
    // A stored map is encoded twice at most, and the column of an exported row holds it once more.
    const ENCODINGS_MAX: usize = 4;
    let mut text = text.trim_start_matches('\u{feff}').to_owned();
    for _ in 0..ENCODINGS_MAX {
        let json = match serde_json::from_str::<Json>(&text) {
            Ok(json) => json,
            Err(error) => {
                problems.add("map", format!("not JSON: {error}"), "export the map again, or correct the file");
                return None;
            }
        };
        match (json.get("legs"), json.get("msdyn_mapping")) {
            (None, Some(Json::Text(inner))) => text.clone_from(inner),
            _ => match json {
                Json::Text(inner) => text = inner,
                Json::Object(_) => return Some(json),
                _ => break,
            },
        }
    }
    problems.add("map", "the JSON is not a table map", "use the content of msdyn_mapping: an object with legs");
    None
}

fn read_mapping(json: &Json, problems: &mut Problems) -> Option<Mapping> {
    let Some(Json::List(written)) = json.get("legs") else {
        problems.add("legs", "the map has no legs", "export the map again: a map is an object with a list of legs");
        return None;
    };
    if written.is_empty() {
        problems.add("legs", "the map has no legs", "export the map again");
    }
    let legs = written
        .iter()
        .enumerate()
        .filter_map(|(index, leg)| read_leg(leg, &format!("legs[{index}]"), problems))
        .collect::<Vec<_>>();
    let name = ["name", "msdyn_name"]
        .into_iter()
        .find_map(|key| json.get(key).and_then(Json::scalar).filter(|name| !name.trim().is_empty()))
        .or_else(|| legs.first().map(|leg| format!("{} - {}", leg.dataverse_set, leg.finops_entity)))
        .unwrap_or_default();
    Some(Mapping { name, legs })
}

fn read_leg(json: &Json, place: &str, problems: &mut Problems) -> Option<Leg> {
    if !matches!(json, Json::Object(_)) {
        problems.add(place, "a leg is an object", "export the map again");
        return None;
    }
    if let Some(Json::Text(kind)) = json.get("sourceEnvironmentType")
        && kind.eq_ignore_ascii_case("CRM")
    {
        problems.add(
            format!("{place}.sourceEnvironmentType"),
            "the left side is Dataverse",
            "turn the leg around: the left side of a table map is always F&O",
        );
    }
    let finops_entity = required_text(json, place, "sourceSchema", "name the F&O entity", problems);
    let dataverse_set = required_text(json, place, "destinationSchema", "name the Dataverse entity set", problems);
    let finops_filter = optional_text(json, place, "sourceFilter", problems);
    let dataverse_filter = optional_text(json, place, "reversedSourceFilter", problems);
    let finops_distinct_name = optional_text(json, place, "sourceSchemaDistinctName", problems);
    let fields_place = format!("{place}.fieldMappings");
    let written = match json.get("fieldMappings") {
        Some(Json::List(written)) if !written.is_empty() => written.as_slice(),
        _ => {
            problems.add(fields_place.as_str(), "the leg maps no fields", "map at least the key columns");
            &[]
        }
    };
    let fields = written
        .iter()
        .enumerate()
        .filter_map(|(index, field)| read_field(field, &format!("{fields_place}[{index}]"), problems))
        .collect();
    Some(Leg {
        finops_entity: finops_entity?,
        finops_distinct_name: Some(finops_distinct_name).filter(|name| !name.is_empty()),
        dataverse_set: dataverse_set?,
        finops_filter,
        dataverse_filter,
        fields,
    })
}

fn required_text(json: &Json, place: &str, name: &str, remedy: &str, problems: &mut Problems) -> Option<String> {
    match json.get(name) {
        Some(Json::Text(text)) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        _ => {
            problems.add(format!("{place}.{name}"), format!("{name} is missing or not a text"), remedy);
            None
        }
    }
}

fn optional_text(json: &Json, place: &str, name: &str, problems: &mut Problems) -> String {
    match json.get(name) {
        None => String::new(),
        Some(Json::Text(text)) => text.trim().to_owned(),
        Some(_) => {
            problems.add(
                format!("{place}.{name}"),
                format!("{name} is not a text"),
                "write it as a text, or leave it out",
            );
            String::new()
        }
    }
}

/// A column name; `none`, blank and null say that there is no column.
fn column_name(json: &Json, place: &str, name: &str, problems: &mut Problems) -> Option<String> {
    let text = optional_text(json, place, name, problems);
    (!text.is_empty() && !text.eq_ignore_ascii_case("none")).then_some(text)
}

fn read_field(json: &Json, place: &str, problems: &mut Problems) -> Option<FieldMapping> {
    if !matches!(json, Json::Object(_)) {
        problems.add(place, "a field mapping is an object", "export the map again");
        return None;
    }
    let direction = json.get("syncDirection").and_then(Json::scalar).and_then(|word| FieldDirection::from_word(&word));
    if direction.is_none() {
        problems.add(
            format!("{place}.syncDirection"),
            "syncDirection is missing or unknown",
            "write 1 (F&O to Dataverse), 2 (Dataverse to F&O) or 3 (both)",
        );
    }
    let finops = column_name(json, place, "sourceField", problems);
    if let Some(name) = finops.as_deref().filter(|name| !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')) {
        problems.add(
            format!("{place}.sourceField"),
            format!("{name:?} is not the name of an F&O column"),
            "F&O columns have no path; name a column of the entity",
        );
    }
    let dataverse = column_name(json, place, "destinationField", problems).and_then(|text| {
        DataversePath::parse(&text)
            .map_err(|message| {
                problems.add(
                    format!("{place}.destinationField"),
                    message,
                    "write column, lookup.key or lookup.Table(key).Table(key)",
                );
            })
            .ok()
    });
    if finops.is_none() && json.get("destinationField").is_none() {
        problems.add(place, "the field mapping names no column", "name a column on one side, or delete the row");
    }
    let transforms = match json.get("valueTransforms") {
        None => Vec::new(),
        Some(Json::List(written)) => written
            .iter()
            .enumerate()
            .filter_map(|(index, written)| {
                read_transform(written, &format!("{place}.valueTransforms[{index}]"), problems)
            })
            .collect(),
        Some(_) => {
            problems.add(format!("{place}.valueTransforms"), "valueTransforms is not a list", "write a list, or null");
            Vec::new()
        }
    };
    let related_set = optional_text(json, place, "destinationLookupFieldRelatedEntity", problems);
    Some(FieldMapping {
        direction: direction?,
        finops,
        dataverse,
        transforms,
        related_set: Some(related_set).filter(|set| !set.is_empty()),
    })
}

fn read_transform(json: &Json, place: &str, problems: &mut Problems) -> Option<Transform> {
    let written = ["transformType", "$type"].into_iter().find_map(|key| json.get(key).and_then(Json::scalar));
    let word = written.as_deref().unwrap_or_default().to_ascii_lowercase();
    let default = json.get("defaultValue").and_then(Json::scalar);
    if word.contains("valuemap") {
        let Some(Json::Object(entries)) = json.get("valueMap") else {
            problems.add(format!("{place}.valueMap"), "the value map has no pairs", "add the pairs of values");
            return None;
        };
        let mut pairs = Vec::with_capacity(entries.len());
        for (finops, dataverse) in entries {
            match dataverse {
                Json::Null => pairs.push((finops.clone(), String::new())),
                other => match other.scalar() {
                    Some(text) => pairs.push((finops.clone(), text)),
                    None => problems.add(
                        format!("{place}.valueMap"),
                        format!("the value for {finops:?} is not a text"),
                        "write the Dataverse value as a text",
                    ),
                },
            }
        }
        Some(Transform::ValueMap { pairs, default: default.filter(|value| !value.is_empty()) })
    } else if word.contains("default") {
        if default.is_none() {
            problems.add(format!("{place}.defaultValue"), "the Default has no value", "give the default value");
        }
        Some(Transform::Default { value: default? })
    } else if word.contains("truncate") {
        let length = match json {
            Json::Object(entries) => entries
                .iter()
                .filter(|(key, _)| key.to_ascii_lowercase().contains("length"))
                .find_map(|(_, value)| value.scalar()?.trim().parse::<u32>().ok()),
            _ => None,
        };
        if length.is_none() {
            problems.add(format!("{place}.length"), "the Truncate has no length", "give the length in characters");
        }
        Some(Transform::Truncate { length: length? })
    } else {
        problems.add(
            format!("{place}.transformType"),
            match &written {
                Some(word) => format!("the transform {word:?} is unknown"),
                None => "transformType is missing".to_owned(),
            },
            "use Default, ValueMap or Truncate, or bind a plugin",
        );
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map with one leg whose field mappings are these.
    fn with_fields(fields: &str) -> String {
        format!(
            r#"{{"name":"m","legs":[{{"sourceSchema":"Customers V3","destinationSchema":"accounts",
            "sourceFilter":null,"reversedSourceFilter":" a eq 1 ","fieldMappings":[{fields}]}}]}}"#
        )
    }

    fn one_field(field: &str) -> Result<FieldMapping, Vec<Problem>> {
        let map = Mapping::parse(&with_fields(field))?;
        Ok(map.legs[0].fields[0].clone())
    }

    #[test]
    fn directions_in_every_spelling() {
        use FieldDirection::{Both, ToDataverse, ToFinops};
        let cases = [
            ("1", ToDataverse),
            ("2", ToFinops),
            ("3", Both),
            (r#""1""#, ToDataverse),
            (r#"" 3 ""#, Both),
            (r#""Bidirectional""#, Both),
            (r#""Forward""#, ToDataverse),
            (r#""CEOnly""#, ToFinops),
            (r#""><""#, Both),
        ];
        for (written, wanted) in cases {
            let field = format!(r#"{{"syncDirection":{written},"sourceField":"A","destinationField":"b"}}"#);
            assert_eq!(one_field(&field).expect(written).direction, wanted, "{written}");
        }
    }

    #[test]
    fn paths() {
        let path = |column: &str, reference| DataversePath { column: column.to_owned(), reference };
        let list = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let cases = [
            ("accountnumber", path("accountnumber", Reference::None)),
            ("a.b", path("a", Reference::Path(list(&["b"])))),
            ("a.b.c", path("a", Reference::Path(list(&["b", "c"])))),
            (
                "customerid.Account(accountnumber).Contact(msdyn_contactpersonid)",
                path(
                    "customerid",
                    Reference::ByTable(vec![
                        ("Account".to_owned(), list(&["accountnumber"])),
                        ("Contact".to_owned(), list(&["msdyn_contactpersonid"])),
                    ]),
                ),
            ),
        ];
        for (text, wanted) in cases {
            let parsed = DataversePath::parse(text).expect(text);
            assert_eq!(parsed, wanted);
            assert_eq!(parsed.to_string(), text);
        }
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a.B(c",
            "a.B(c)d",
            "a.B()",
            "B(c)",
            "a.b.B(c)",
            "a.ä",
            "a.b.c.d.e.f.g.h.i",
        ] {
            assert!(DataversePath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn columns_that_are_none() {
        let cases = [
            (r#""sourceField":"none","destinationField":"a""#, None, Some("a")),
            (r#""sourceField":"NONE","destinationField":"a""#, None, Some("a")),
            (r#""sourceField":null,"destinationField":"a""#, None, Some("a")),
            (r#""sourceField":"","destinationField":"a""#, None, Some("a")),
            (r#""sourceField":"A","destinationField":"none""#, Some("A"), None),
            (r#""sourceField":"A""#, Some("A"), None),
        ];
        for (columns, finops, dataverse) in cases {
            let field = format!(r#"{{"syncDirection":1,{columns}}}"#);
            let field = one_field(&field).expect(columns);
            let path = field.dataverse.map(|path| path.to_string());
            assert_eq!((field.finops.as_deref(), path.as_deref()), (finops, dataverse), "{columns}");
        }
    }

    #[test]
    fn transforms() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let cases = [
            ("null", vec![]),
            ("[]", vec![]),
            (
                r#"[{"transformType":"Default","valueMap":null,"defaultValue":3}]"#,
                vec![Transform::Default { value: "3".to_owned() }],
            ),
            (
                r#"[{"$type":"Microsoft.Dynamics.Integrator.ValueMapTransform","valueMap":{"no":false,"":"x","b":null,"no":"y"},"defaultValue":null}]"#,
                vec![Transform::ValueMap {
                    pairs: vec![pair("no", "False"), pair("", "x"), pair("b", ""), pair("no", "y")],
                    default: None,
                }],
            ),
            (
                r#"[{"transformType":"valueMap","valueMap":{"a":"1"},"defaultValue":"2"},{"transformType":"Truncate","maxLength":"7"}]"#,
                vec![
                    Transform::ValueMap { pairs: vec![pair("a", "1")], default: Some("2".to_owned()) },
                    Transform::Truncate { length: 7 },
                ],
            ),
        ];
        for (written, wanted) in cases {
            let field = format!(
                r#"{{"syncDirection":3,"sourceField":"A","destinationField":"b","valueTransforms":{written}}}"#
            );
            assert_eq!(one_field(&field).expect(written).transforms, wanted, "{written}");
        }
    }

    #[test]
    fn encodings() {
        let text = with_fields(r#"{"syncDirection":3,"sourceField":"A","destinationField":"b"}"#);
        let map = Mapping::parse(&text).expect("a map");
        assert_eq!(map.legs[0].dataverse_filter, "a eq 1");
        assert_eq!(map.legs[0].fields[0].to_string(), "A = b");
        let double = serde_json::to_string(&text).expect("a text");
        let exported = format!(r#"{{"msdyn_name":"x","msdyn_mapping":{double}}}"#);
        for other in [&double, &exported, &format!("\u{feff}{text}")] {
            assert_eq!(Mapping::parse(other).as_ref(), Ok(&map), "{other}");
        }
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let cases = [
            ("", "map"),
            ("[]", "map"),
            ("7", "map"),
            (r#""\"\\\"7\\\"\"""#, "map"),
            (r#"{"name":"m"}"#, "legs"),
            (r#"{"legs":[]}"#, "legs"),
            (r#"{"legs":[7]}"#, "legs[0]"),
            (r#"{"legs":[{"sourceSchema":"A","destinationSchema":"b"}]}"#, "legs[0].fieldMappings"),
            (
                r#"{"legs":[{"sourceEnvironmentType":"CRM","destinationSchema":7,"sourceFilter":1,"fieldMappings":[
                {"syncDirection":4,"sourceField":"A.B","destinationField":"b."},
                {"syncDirection":"3","valueTransforms":[{"transformType":"Default"},{"transformType":"ValueMap"},{"transformType":"Truncate"},{"transformType":"Concat"},{}]},
                7]}]}"#,
                "legs[0].sourceEnvironmentType legs[0].sourceSchema legs[0].destinationSchema legs[0].sourceFilter \
                 legs[0].fieldMappings[0].syncDirection legs[0].fieldMappings[0].sourceField \
                 legs[0].fieldMappings[0].destinationField legs[0].fieldMappings[1] \
                 legs[0].fieldMappings[1].valueTransforms[0].defaultValue \
                 legs[0].fieldMappings[1].valueTransforms[1].valueMap \
                 legs[0].fieldMappings[1].valueTransforms[2].length \
                 legs[0].fieldMappings[1].valueTransforms[3].transformType \
                 legs[0].fieldMappings[1].valueTransforms[4].transformType legs[0].fieldMappings[2]",
            ),
        ];
        for (text, places) in cases {
            let problems = Mapping::parse(text).expect_err(text);
            let told = problems.iter().map(|problem| problem.place.as_str()).collect::<Vec<_>>().join(" ");
            assert_eq!(told, places, "{text}");
            assert!(problems.iter().all(|problem| !problem.remedy.is_empty()));
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(Mapping::parse(&deep).is_err());
    }
}
