//! The tolerance that stored maps need: double encoding, directions as digit, text or word, `none` for no column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{DataversePath, FieldDirection, FieldMapping, Leg, Mapping, Problem, Transform};

/// JSON with its order and its duplicate keys, which a value map needs.
#[derive(Debug, Clone)]
pub(super) enum Json {
    Null,
    Boolean(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn get(&self, name: &str) -> Option<&Self> {
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
    pub fn scalar(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Number(number) => Some(number.to_string()),
            Self::Boolean(value) => Some(if *value { "True" } else { "False" }.to_owned()),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
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

pub(super) struct Problems(pub Vec<Problem>);

impl Problems {
    fn add(&mut self, place: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem::error(place, message, remedy));
    }
}

/// A map inside its encodings.
pub(super) struct Unwrapped {
    /// The JSON of the map itself.
    pub plain: String,
    /// What stood around it: the row of `msdyn_dualwriteentitymap`, members in their order.
    pub row: Option<Json>,
    pub json: Json,
}

/// Takes a map out of its encodings: a JSON text that holds JSON, or an exported row with `msdyn_mapping`.
pub(super) fn unwrap(text: &str, problems: &mut Problems) -> Option<Unwrapped> {
    // A stored map is encoded twice at most, and the column of an exported row holds it once more.
    const ENCODINGS_MAX: usize = 4;
    let mut plain = text.trim_start_matches('\u{feff}').to_owned();
    let mut row = None;
    for _ in 0..ENCODINGS_MAX {
        let json = match serde_json::from_str::<Json>(&plain) {
            Ok(json) => json,
            Err(error) => {
                problems.add("map", format!("not JSON: {error}"), "export the map again, or correct the file");
                return None;
            }
        };
        match (json.get("legs"), json.get("msdyn_mapping")) {
            (None, Some(Json::Text(inner))) => {
                plain.clone_from(inner);
                row = Some(json);
            }
            _ => match json {
                Json::Text(inner) => plain = inner,
                Json::Object(_) => return Some(Unwrapped { plain, row, json }),
                _ => break,
            },
        }
    }
    problems.add("map", "the JSON is not a table map", "use the content of msdyn_mapping: an object with legs");
    None
}

pub(super) fn read_mapping(json: &Json, problems: &mut Problems) -> Option<Mapping> {
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
