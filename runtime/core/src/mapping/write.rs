//! A map that was made here, written as the JSON that Dual-write stores.

use super::read::Json;
use super::{FieldDirection, FieldMapping, Leg, Mapping, Transform};

impl Mapping {
    /// The JSON of the map; reading it gives this map again. A map that was imported is given out by its
    /// [`Document`](super::Document) instead, which keeps what this writer does not know.
    #[must_use]
    pub fn to_json(&self) -> String {
        let legs = self.legs.iter().enumerate().map(|(index, leg)| leg_json(index, leg)).collect();
        let map = object([
            ("name", text(&self.name)),
            ("leftEnvironmentType", text("AX")),
            ("centerEnvironmentType", text("CRM")),
            ("rightEnvironmentType", text("UNDEFINED")),
            ("legs", Json::List(legs)),
        ]);
        let mut written = serde_json::to_string_pretty(&map).expect("texts and lists are JSON");
        written.push('\n');
        written
    }
}

fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

fn object<const N: usize>(entries: [(&str, Json); N]) -> Json {
    Json::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn leg_json(index: usize, leg: &Leg) -> Json {
    object([
        ("id", text(&format!("{:03}", index + 1))),
        ("sourceSchema", text(&leg.finops_entity)),
        ("sourceSchemaDistinctName", leg.finops_distinct_name.as_deref().map_or(Json::Null, text)),
        ("sourceEnvironmentType", text("AX")),
        ("destinationSchema", text(&leg.dataverse_set)),
        ("destinationEnvironmentType", text("CRM")),
        ("sourceFilter", text(&leg.finops_filter)),
        ("reversedSourceFilter", text(&leg.dataverse_filter)),
        ("fieldMappings", Json::List(leg.fields.iter().map(field_json).collect())),
    ])
}

fn field_json(field: &FieldMapping) -> Json {
    let direction = match field.direction {
        FieldDirection::ToDataverse => "1",
        FieldDirection::ToFinops => "2",
        FieldDirection::Both => "3",
    };
    let path = field.dataverse.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let mut entries = vec![
        ("syncDirection", text(direction)),
        ("sourceField", text(field.finops.as_deref().unwrap_or("none"))),
        ("destinationField", text(&path)),
    ];
    if !field.transforms.is_empty() {
        entries.push(("valueTransforms", Json::List(field.transforms.iter().map(transform_json).collect())));
    }
    if let Some(set) = &field.related_set {
        entries.push(("destinationLookupFieldRelatedEntity", text(set)));
    }
    Json::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn transform_json(transform: &Transform) -> Json {
    match transform {
        Transform::Default { value } => object([("transformType", text("Default")), ("defaultValue", text(value))]),
        Transform::Truncate { length } => {
            object([("transformType", text("Truncate")), ("maxLength", Json::Number((*length).into()))])
        }
        Transform::ValueMap { pairs, default } => {
            let pairs = pairs.iter().map(|(finops, dataverse)| (finops.clone(), text(dataverse)));
            object([
                ("transformType", text("ValueMap")),
                ("valueMap", Json::Object(pairs.collect())),
                ("defaultValue", default.as_deref().map_or(Json::Null, text)),
                ("createValuesOnDestination", Json::Boolean(false)),
            ])
        }
    }
}
