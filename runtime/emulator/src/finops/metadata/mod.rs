//! Tables as F&O describes them: `/metadata/DataEntities`, `PublicEntities`, `PublicEnumerations`, `Labels`.
//!
//! Owns the shape of those documents and the query options on their lists; everything in them comes from the catalogue.
//! `/data/$metadata` has a file of its own.

mod csdl;

use std::cmp::Ordering;
use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::{Request, Response};
use dualwright_odata::filter;
use dualwright_odata::url::{Key, Resource, Segment};
use serde_json::{Map, Value, json};

use super::package::described;
use super::read::{number, resource};
use super::refusal::{self, bad_query, entity_label, entity_name, field_label, nothing_at, type_name};
use super::write::is_read_only;
use crate::batch::Site;
use crate::catalogue::{Catalogue, Column, Table};
use crate::definition::{ColumnKind, OptionDefinition};
use crate::exchange;
use crate::query::order_of;
use crate::relation::Way;
use crate::store::Store;

pub(super) use csdl::csdl;

/// Answers a request below `/metadata`.
pub(crate) fn describe(store: &Store, site: &Site, request: &Request) -> Response {
    let catalogue = store.catalogue();
    read(&catalogue, site, request).unwrap_or_else(|refusal| refusal)
}

const LISTS: [&str; 3] = ["DataEntities", "PublicEntities", "PublicEnumerations"];

fn read(catalogue: &Catalogue, site: &Site, request: &Request) -> Result<Response, Response> {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Err(refusal::bad_method(&request.method));
    }
    let resource = resource(site, &request.url)?;
    let nothing = || nothing_at(site, &request.url);
    let root = format!("{}{}/$metadata", site.base, site.root);
    let (segment, rest) = match resource.segments.as_slice() {
        [] => {
            let sets = LISTS.map(|name| json!({"name": name, "kind": "EntitySet", "url": name}));
            return Ok(document(&json!({"@odata.context": root, "value": sets})));
        }
        [segment, rest @ ..] => (segment, rest),
    };
    if let ([count], Key::None) = (rest, &segment.key)
        && count.name == "$count"
    {
        let values = values(catalogue, &segment.name).ok_or_else(nothing)?;
        let mut response = exchange::no_content(200);
        response.headers.push(("Content-Type".into(), "text/plain".into()));
        response.body = select_rows(&resource, values)?.0.to_string().into_bytes();
        return Ok(response);
    }
    if !rest.is_empty() {
        return Err(nothing());
    }
    if segment.key == Key::None {
        let values = values(catalogue, &segment.name).ok_or_else(nothing)?;
        return list(&format!("{root}#{}", segment.name), &resource, values);
    }
    let name = key_text(segment).ok_or_else(nothing)?;
    let found = catalogue.tables().find(|table| match segment.name.as_str() {
        "DataEntities" => entity_name(table).eq_ignore_ascii_case(name),
        "PublicEntities" => table.name().eq_ignore_ascii_case(name),
        _ => false,
    });
    let mut item = match (segment.name.as_str(), found) {
        ("DataEntities", Some(table)) => data_entity(table),
        ("PublicEntities", Some(table)) => public_entity(catalogue, table),
        ("PublicEnumerations", _) => {
            let mut enums = catalogue.enums.iter();
            let (name, members) = enums.find(|(own, _)| own.eq_ignore_ascii_case(name)).ok_or_else(nothing)?;
            enumeration(name, members)
        }
        // A label that is no id of one is a text of its own.
        ("Labels", _) if is_label(catalogue, name) => json!({"Id": name, "Language": language(segment), "Value": name}),
        _ => return Err(nothing()),
    };
    keep_selected(&resource, &mut item)?;
    if let Some(members) = item.as_object_mut() {
        members.insert("@odata.context".into(), format!("{root}#{}/$entity", segment.name).into());
    }
    Ok(document(&item))
}

fn document(value: &Value) -> Response {
    exchange::json(200, value.to_string().into_bytes())
}

fn values(catalogue: &Catalogue, list: &str) -> Option<Vec<Value>> {
    Some(match list {
        "DataEntities" => catalogue.tables().map(data_entity).collect(),
        "PublicEntities" => catalogue.tables().map(|table| public_entity(catalogue, table)).collect(),
        "PublicEnumerations" => catalogue.enums.iter().map(|(name, members)| enumeration(name, members)).collect(),
        _ => return None,
    })
}

/// A list with its query options: `$filter`, `$orderby`, `$skip`, `$top`, `$count`, `$select`.
fn list(context: &str, resource: &Resource, values: Vec<Value>) -> Result<Response, Response> {
    let (count, mut values) = select_rows(resource, values)?;
    for value in &mut values {
        keep_selected(resource, value)?;
    }
    let mut document = Map::new();
    document.insert("@odata.context".into(), context.into());
    if resource.option("$count") == Some("true") {
        document.insert("@odata.count".into(), count.into());
    }
    document.insert("value".into(), values.into());
    Ok(self::document(&document.into()))
}

/// The rows that are asked for, and how many there are before the limits.
fn select_rows(resource: &Resource, mut values: Vec<Value>) -> Result<(usize, Vec<Value>), Response> {
    let known = values.first().and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(text) = resource.option("$filter") {
        // Texts compare without regard to case in any event.
        let text = without_lowering(text);
        let condition = filter::parse(&text).map_err(|error| {
            bad_query(&format!("Syntax error at position {} in '{text}': {}.", error.at, error.message))
        })?;
        let unknown = std::cell::RefCell::new(None);
        values.retain(|value| {
            filter::matches(&condition, &|name| match value.get(name) {
                Some(value) => literal(value),
                None => {
                    unknown.borrow_mut().get_or_insert_with(|| name.to_owned());
                    Literal::Null
                }
            })
        });
        if let Some(name) = unknown.into_inner() {
            return Err(bad_query(&format!("Could not find a property named '{name}'.")));
        }
    }
    let order = resource.order();
    if let Some((name, _)) = order.iter().find(|(name, _)| !known.contains_key(*name) && !known.is_empty()) {
        return Err(bad_query(&format!("Could not find a property named '{name}'.")));
    }
    values.sort_by(|a, b| {
        let compared = order.iter().map(|(name, descending)| {
            let order = order_of(&literal(&a[*name]), &literal(&b[*name]));
            if *descending { order.reverse() } else { order }
        });
        compared.into_iter().find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal)
    });
    let count = values.len();
    let skip = number(resource, "$skip")?.unwrap_or(0);
    let top = number(resource, "$top")?.unwrap_or(usize::MAX);
    Ok((count, values.into_iter().skip(skip).take(top).collect()))
}

fn keep_selected(resource: &Resource, value: &mut Value) -> Result<(), Response> {
    let names = resource.list("$select");
    let Some(members) = value.as_object_mut().filter(|_| !names.is_empty() && !names.contains(&"*")) else {
        return Ok(());
    };
    if let Some(name) = names.iter().find(|name| !members.contains_key(**name)) {
        return Err(bad_query(&format!("Could not find a property named '{name}'.")));
    }
    members.retain(|name, _| names.contains(&name.as_str()));
    Ok(())
}

fn literal(value: &Value) -> Literal {
    match value {
        Value::Bool(is) => Literal::Boolean(*is),
        Value::Number(number) => Literal::parse(&number.to_string()).unwrap_or(Literal::Null),
        Value::String(text) => Literal::text(text.as_str()),
        Value::Null | Value::Array(_) | Value::Object(_) => Literal::Null,
    }
}

/// `contains(tolower(Name),'cust')` as `contains(Name,'cust')`.
fn without_lowering(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut quoted = false;
    let mut dropped = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if !quoted && let Some(name) = ["tolower(", "toupper("].iter().find(|name| text[at..].starts_with(**name)) {
            depth += 1;
            dropped.push(depth);
            at += name.len();
            continue;
        }
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                let closes = dropped.last() == Some(&depth);
                depth = depth.saturating_sub(1);
                if closes {
                    dropped.pop();
                    at += 1;
                    continue;
                }
            }
            _ => {}
        }
        plain.push(c);
        at += c.len_utf8();
    }
    plain
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

fn language(segment: &Segment) -> &str {
    match &segment.key {
        Key::Named(pairs) => pairs.iter().find_map(|(name, value)| match value {
            Literal::Text(text) if name == "Language" => Some(text.as_str()),
            _ => None,
        }),
        _ => None,
    }
    .unwrap_or("en-us")
}

fn is_label(catalogue: &Catalogue, label: &str) -> bool {
    catalogue
        .tables()
        .any(|table| entity_label(table) == label || (0..table.columns.len()).any(|at| field_label(table, at) == label))
        || catalogue.enums.values().flatten().any(|member| member.name == label)
}

fn data_entity(table: &Arc<Table>) -> Value {
    json!({
        "Name": entity_name(table),
        "PublicEntityName": table.name(),
        "PublicCollectionName": table.set(),
        "LabelId": entity_label(table),
        "LabelText": entity_label(table),
        "DataServiceEnabled": true,
        "DataManagementEnabled": !table.is_bookkeeping,
        "EntityCategory": table.definition.category.as_deref().unwrap_or("Master"),
        "IsReadOnly": is_read_only(table),
    })
}

fn public_entity(catalogue: &Catalogue, table: &Arc<Table>) -> Value {
    let properties =
        table.columns.iter().enumerate().map(|(at, column)| property(table, at, column)).collect::<Vec<_>>();
    json!({
        "Name": table.name(),
        "EntitySetName": table.set(),
        "LabelId": entity_label(table),
        "IsReadOnly": is_read_only(table),
        "ConfigurationEnabled": true,
        "Properties": properties,
        "NavigationProperties": navigation_properties(catalogue, table),
        "PropertyGroups": [],
        "Actions": actions(table),
    })
}

fn actions(table: &Table) -> Vec<Value> {
    let (set, actions) = described();
    if set != table.set() {
        return Vec::new();
    }
    let of = |name: &str| {
        let element = name.strip_prefix("Collection(").and_then(|rest| rest.strip_suffix(')'));
        json!({"TypeName": element.unwrap_or(name), "IsCollection": element.is_some()})
    };
    actions
        .into_iter()
        .map(|action| {
            let parameters = action
                .parameters
                .iter()
                .map(|(name, kind)| json!({"Name": name, "Type": of(kind)}))
                .collect::<Vec<_>>();
            json!({
                "Name": action.name,
                "BindingKind": "BoundToEntitySet",
                "FieldLookup": null,
                "Parameters": parameters,
                "ReturnType": action.returns.map(of),
            })
        })
        .collect()
}

fn navigation_properties(catalogue: &Catalogue, table: &Table) -> Vec<Value> {
    let relations = catalogue.relations_of(table);
    let constraint = |(own, other): (&str, &str)| {
        json!({
            "@odata.type": "#Microsoft.Dynamics.Metadata.ReferentialConstraint",
            "Property": own,
            "ReferencedProperty": other,
        })
    };
    relations
        .ways
        .iter()
        .map(|(name, way)| {
            let (related, cardinality, constraints) = match way {
                Way::To(number) => {
                    let relation = &relations.to[*number];
                    let constraints = csdl::constraints(table, relation).map(constraint).collect::<Vec<_>>();
                    (relation.target.name(), "Single", constraints)
                }
                Way::From(other, number) => {
                    let relation = &catalogue.relations_of(other).to[*number];
                    let turned = csdl::constraints(other, relation).map(|(own, other)| constraint((other, own)));
                    (other.name(), "Multiple", turned.collect())
                }
            };
            json!({
                "Name": name,
                "RelatedEntity": related,
                "RelatedRelationName": null,
                "Cardinality": cardinality,
                "Constraints": constraints,
            })
        })
        .collect()
}

fn property(table: &Table, at: usize, column: &Column) -> Value {
    let definition = &column.definition;
    let is_key = table.key.contains(&at);
    let type_name = match definition.kind {
        ColumnKind::Enum | ColumnKind::Choice => type_name(enumeration_of(definition)),
        other => edm_type(other).to_owned(),
    };
    json!({
        "Name": column.property,
        "TypeName": type_name,
        "DataType": data_type(definition.kind),
        "LabelId": field_label(table, at),
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
        .map(|member| {
            json!({
                "Name": member.name,
                "Value": member.value,
                "LabelId": member.name,
                "LabelText": member.name,
                "ConfigurationEnabled": true,
            })
        })
        .collect::<Vec<_>>();
    json!({"Name": name, "LabelId": name, "LabelText": name, "Members": members})
}

/// Numbers, moments and ids always have a value.
const fn is_nullable(kind: ColumnKind) -> bool {
    matches!(
        kind,
        ColumnKind::Text
            | ColumnKind::Memo
            | ColumnKind::Lookup
            | ColumnKind::Choice
            | ColumnKind::MultiChoice
            | ColumnKind::Enum
    )
}

const fn edm_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Int => "Edm.Int32",
        ColumnKind::Bigint => "Edm.Int64",
        ColumnKind::Decimal | ColumnKind::Money => "Edm.Decimal",
        ColumnKind::Double => "Edm.Double",
        ColumnKind::Boolean => "Edm.Boolean",
        // Which of them are days is told by `DataType` alone.
        ColumnKind::Datetime | ColumnKind::Date => "Edm.DateTimeOffset",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowering_is_taken_out_of_filters() {
        for (text, wanted) in [
            ("contains(tolower(Name), 'cust')", "contains(Name, 'cust')"),
            ("(tolower(a) eq 'tolower(x)') and b eq 1", "(a eq 'tolower(x)') and b eq 1"),
            ("tolower(toupper(a)) eq ')'", "a eq ')'"),
            ("tolower(a", "a"),
        ] {
            assert_eq!(without_lowering(text), wanted, "{text}");
        }
    }
}
