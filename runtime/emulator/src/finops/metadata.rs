//! Tables as F&O describes them: `/metadata/…`, and `/data/$metadata`.
//!
//! Owns the shape of those documents; everything in them comes from the catalogue.

use std::fmt::Write as _;
use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{Key, Segment};
use serde_json::{Value, json};

use super::{error, nothing_at, resource};
use crate::batch::Site;
use crate::catalogue::{CHANGES, Catalogue, Column, Table};
use crate::definition::{ColumnKind, OptionDefinition};
use crate::exchange;
use crate::store::Store;

const NAMESPACE: &str = "Microsoft.Dynamics.DataEntities";

/// Answers a request below `/metadata`.
pub(crate) fn describe(store: &Store, site: &Site, request: &Request) -> Response {
    let catalogue = store.catalogue();
    read(&catalogue, site, request).unwrap_or_else(|refusal| refusal)
}

fn read(catalogue: &Catalogue, site: &Site, request: &Request) -> Result<Response, Response> {
    if request.method != "GET" {
        return Err(error(405, "Metadata can only be read."));
    }
    let resource = resource(site, &request.url)?;
    let nothing = || nothing_at(site, &request.url);
    let [segment] = resource.segments.as_slice() else { return Err(nothing()) };
    let context = format!("{}{}/$metadata#{}", site.base, site.root, segment.name);
    let table_named = |name: &str, wanted: &dyn Fn(&Table) -> &str| {
        catalogue.tables().find(|table| wanted(table) == name).ok_or_else(nothing)
    };
    let document = match (segment.name.as_str(), key_text(segment)) {
        ("DataEntities", None) => list(&context, catalogue.tables().map(data_entity)),
        ("DataEntities", Some(name)) => data_entity(table_named(name, &|table| application_name(table))?),
        ("PublicEntities", None) => list(&context, catalogue.tables().map(public_entity)),
        ("PublicEntities", Some(name)) => public_entity(table_named(name, &|table| table.name())?),
        ("PublicEnumerations", None) => {
            list(&context, catalogue.enums.iter().map(|(name, members)| enumeration(name, members)))
        }
        ("PublicEnumerations", Some(name)) => {
            let members = catalogue.enums.get(name).ok_or_else(nothing)?;
            enumeration(name, members)
        }
        ("Labels", Some(id)) => {
            let table = table_named(id, &|table| entity_label(table))?;
            json!({"Id": id, "Language": "en-us", "Value": entity_label(table)})
        }
        _ => return Err(nothing()),
    };
    Ok(exchange::json(200, document.to_string().into_bytes()))
}

/// The name in `PublicEntities('Customer')` or `Labels(Id='…',Language='en-us')`.
fn key_text(segment: &Segment) -> Option<&str> {
    match &segment.key {
        Key::Single(Literal::Text(text)) => Some(text),
        Key::Named(pairs) => pairs.iter().find_map(|(name, value)| match value {
            Literal::Text(text) if matches!(name.as_str(), "Name" | "Id") => Some(text.as_str()),
            _ => None,
        }),
        _ => None,
    }
}

fn list(context: &str, values: impl Iterator<Item = Value>) -> Value {
    json!({"@odata.context": context, "value": values.collect::<Vec<_>>()})
}

/// The data entity's name in the application.
fn application_name(table: &Table) -> &str {
    table.definition.entity_name.as_deref().or(table.definition.entity.as_deref()).unwrap_or(table.name())
}

/// The data entity's display name, which is what table maps write.
fn entity_label(table: &Table) -> &str {
    table.definition.entity.as_deref().unwrap_or(table.name())
}

fn data_entity(table: &Arc<Table>) -> Value {
    json!({
        "Name": application_name(table),
        "PublicEntityName": table.name(),
        "PublicCollectionName": table.set(),
        // A label may be a text of its own instead of the id of one.
        "LabelId": entity_label(table),
        "DataServiceEnabled": true,
        "DataManagementEnabled": true,
        "EntityCategory": "Master",
        "IsReadOnly": table.set() == CHANGES,
    })
}

fn public_entity(table: &Arc<Table>) -> Value {
    let properties =
        table.columns.iter().enumerate().map(|(at, column)| property(table, at, column)).collect::<Vec<_>>();
    json!({
        "Name": table.name(),
        "EntitySetName": table.set(),
        "LabelId": entity_label(table),
        "IsReadOnly": table.set() == CHANGES,
        "ConfigurationEnabled": true,
        "Properties": properties,
        "NavigationProperties": [],
        "PropertyGroups": [],
        "Actions": [],
    })
}

fn property(table: &Table, at: usize, column: &Column) -> Value {
    let definition = &column.definition;
    let is_key = table.key.contains(&at);
    let (type_name, data_type) = match definition.kind {
        ColumnKind::Enum | ColumnKind::Choice => (format!("{NAMESPACE}.{}", enumeration_of(definition)), "Enum"),
        other => (edm_type(other).to_owned(), data_type(other)),
    };
    json!({
        "Name": column.property,
        "TypeName": type_name,
        "DataType": data_type,
        "IsKey": is_key,
        "IsMandatory": definition.required,
        "ConfigurationEnabled": true,
        "AllowEdit": !definition.read_only && !is_key,
        "AllowEditOnCreate": !definition.read_only,
        "IsDimension": false,
        "DimensionRelation": null,
        "IsDynamicDimension": false,
        "DimensionLegalEntityProperty": null,
        "DimensionTypeProperty": null,
        "MaxLength": definition.max_length,
    })
}

fn enumeration_of(definition: &crate::ColumnDefinition) -> &str {
    definition.enumeration.as_deref().unwrap_or(&definition.name)
}

fn enumeration(name: &str, members: &[OptionDefinition]) -> Value {
    let members = members
        .iter()
        .map(|member| json!({"Name": member.name, "Value": member.value, "ConfigurationEnabled": true}))
        .collect::<Vec<_>>();
    json!({"Name": name, "Members": members})
}

const fn edm_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Int => "Edm.Int32",
        ColumnKind::Bigint => "Edm.Int64",
        ColumnKind::Decimal | ColumnKind::Money => "Edm.Decimal",
        ColumnKind::Double => "Edm.Double",
        ColumnKind::Boolean => "Edm.Boolean",
        ColumnKind::Datetime => "Edm.DateTimeOffset",
        ColumnKind::Date => "Edm.Date",
        ColumnKind::Guid => "Edm.Guid",
        ColumnKind::Text
        | ColumnKind::Memo
        | ColumnKind::Lookup
        | ColumnKind::Choice
        | ColumnKind::MultiChoice
        | ColumnKind::Enum => "Edm.String",
    }
}

const fn data_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Int => "Int32",
        ColumnKind::Bigint => "Int64",
        ColumnKind::Decimal | ColumnKind::Money | ColumnKind::Double => "Real",
        ColumnKind::Datetime => "UtcDateTime",
        ColumnKind::Date => "Date",
        ColumnKind::Guid => "Guid",
        ColumnKind::Boolean | ColumnKind::Choice | ColumnKind::Enum => "Enum",
        ColumnKind::Text | ColumnKind::Memo | ColumnKind::Lookup | ColumnKind::MultiChoice => "String",
    }
}

/// `$metadata`: types, enumerations and sets.
pub(super) fn csdl(catalogue: &Catalogue) -> Response {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><edmx:Edmx Version=\"4.0\" \
         xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\"><edmx:DataServices>\
         <Schema Namespace=\"{NAMESPACE}\" xmlns=\"http://docs.oasis-open.org/odata/ns/edm\">"
    );
    // Writing to a string cannot fail, and names of tables and columns hold nothing that XML would have to escape.
    for (name, members) in &catalogue.enums {
        let _ = write!(xml, "<EnumType Name=\"{name}\">");
        for member in members {
            let symbol = member.name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            let _ = write!(xml, "<Member Name=\"{symbol}\" Value=\"{}\"/>", member.value);
        }
        xml.push_str("</EnumType>");
    }
    for table in catalogue.tables() {
        let _ = write!(xml, "<EntityType Name=\"{}\"><Key>", table.name());
        for at in &table.key {
            let _ = write!(xml, "<PropertyRef Name=\"{}\"/>", table.columns[*at].property);
        }
        xml.push_str("</Key>");
        for column in &table.columns {
            let kind = match column.definition.kind {
                ColumnKind::Enum | ColumnKind::Choice => format!("{NAMESPACE}.{}", enumeration_of(&column.definition)),
                other => edm_type(other).to_owned(),
            };
            let _ = write!(xml, "<Property Name=\"{}\" Type=\"{kind}\"/>", column.property);
        }
        xml.push_str("</EntityType>");
    }
    xml.push_str("<EntityContainer Name=\"Resources\">");
    for table in catalogue.tables() {
        let _ = write!(xml, "<EntitySet Name=\"{}\" EntityType=\"{NAMESPACE}.{}\"/>", table.set(), table.name());
    }
    xml.push_str("</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>");
    let mut response = exchange::no_content(200);
    response.headers.push(("Content-Type".into(), "application/xml".into()));
    response.body = xml.into_bytes();
    response
}
