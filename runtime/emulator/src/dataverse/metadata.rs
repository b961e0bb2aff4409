//! Tables as Dataverse describes them: `EntityDefinitions` with its casts, and `$metadata`.
//!
//! Owns the shape of those documents; everything in them comes from the catalogue.

use std::fmt::Write as _;

use dualwright_odata::Literal;
use dualwright_odata::batch::Response;
use dualwright_odata::filter;
use dualwright_odata::url::{Key, Resource};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{BAD_QUERY, NOT_FOUND, error, no_such_set};
use crate::batch::Site;
use crate::catalogue::{self, Catalogue, Column, Table};
use crate::definition::ColumnKind;
use crate::exchange;

const NAMESPACE: &str = "Microsoft.Dynamics.CRM.";

/// Answers `EntityDefinitions…`.
pub(super) fn read(catalogue: &Catalogue, site: &Site, resource: &Resource) -> Result<Response, Response> {
    let Some((first, rest)) = resource.segments.split_first() else { return Err(no_such_set("")) };
    let root = format!("{}{}/$metadata#EntityDefinitions", site.base, site.root);
    if first.key == Key::None {
        if let Some(next) = rest.first() {
            return Err(no_such_set(&next.name));
        }
        let tables = catalogue.tables().map(|table| entity(table)).collect();
        return list(&root, tables, resource);
    }
    let table = catalogue
        .tables()
        .find(|table| names(table, &first.key))
        .ok_or_else(|| error(404, NOT_FOUND, "Could not find an entity with the specified name or id."))?;
    match rest {
        [] => {
            let mut one = selected(entity(table), &resource.list("$select"));
            one.insert("@odata.context".into(), json!(format!("{root}/$entity")));
            for item in resource.list("$expand") {
                let (name, _) = item.split_once('(').unwrap_or((item, ""));
                one.insert(name.to_owned(), Value::Array(collection(catalogue, table, name)?));
            }
            Ok(exchange::json(200, Value::Object(one).to_string().into_bytes()))
        }
        [step] if step.key == Key::None => list(&root, collection(catalogue, table, &step.name)?, resource),
        [step] if step.name == "Attributes" => attribute(table, &step.key, &root, resource),
        [step, cast] if step.name == "Attributes" && step.key == Key::None => {
            let kind = cast.name.strip_prefix(NAMESPACE).unwrap_or(&cast.name);
            let columns = table
                .columns
                .iter()
                .enumerate()
                .filter(|(at, column)| attribute_type(table, *at, column).1 == kind)
                .map(|(at, column)| attribute_value(table, at, column, true))
                .collect();
            list(&root, columns, resource)
        }
        [step, _] if step.name == "Attributes" => attribute(table, &step.key, &root, resource),
        [.., last] => Err(no_such_set(&last.name)),
    }
}

fn names(table: &Table, key: &Key) -> bool {
    match key {
        Key::Single(Literal::Guid(id)) => *id == metadata_id(table.name()),
        Key::Named(pairs) => match pairs.as_slice() {
            [(name, Literal::Text(value))] => match name.as_str() {
                "LogicalName" => value == table.name(),
                "EntitySetName" => value == table.set(),
                _ => false,
            },
            [(name, Literal::Guid(id))] => name == "MetadataId" && *id == metadata_id(table.name()),
            _ => false,
        },
        _ => false,
    }
}

fn metadata_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

fn label(text: &str) -> Value {
    let label = json!({"Label": text, "LanguageCode": 1033, "IsManaged": false});
    json!({"LocalizedLabels": [label], "UserLocalizedLabel": label})
}

fn entity(table: &Table) -> Map<String, Value> {
    let name = table.name();
    let Value::Object(entity) = json!({
        "MetadataId": metadata_id(name),
        "LogicalName": name,
        "SchemaName": name,
        "LogicalCollectionName": table.set(),
        "EntitySetName": table.set(),
        "DisplayName": label(table.definition.entity.as_deref().unwrap_or(name)),
        "PrimaryIdAttribute": table.definition.primary_id,
        "PrimaryNameAttribute": table.definition.primary_name,
        "ObjectTypeCode": 10_000 + table.number,
        "OwnershipType": "UserOwned",
        "ChangeTrackingEnabled": true,
        "IsOptimisticConcurrencyEnabled": true,
        "IsCustomEntity": name.contains('_'),
        "IsManaged": false,
        "TableType": "Standard",
    }) else {
        return Map::new();
    };
    entity
}

/// A list below one table.
fn collection(catalogue: &Catalogue, table: &Table, name: &str) -> Result<Vec<Value>, Response> {
    Ok(match name {
        "Attributes" => {
            table.columns.iter().enumerate().map(|(at, column)| attribute_value(table, at, column, false)).collect()
        }
        "Keys" => table
            .definition
            .alternate_keys
            .iter()
            .map(|key| {
                json!({
                    "MetadataId": metadata_id(&format!("{}.{}", table.name(), key.name)),
                    "SchemaName": key.name,
                    "LogicalName": key.name,
                    "EntityLogicalName": table.name(),
                    "KeyAttributes": key.columns,
                    "EntityKeyIndexStatus": "Active",
                    "IsManaged": false,
                })
            })
            .collect(),
        "ManyToOneRelationships" => relationships(catalogue, table).collect(),
        "OneToManyRelationships" => catalogue
            .tables()
            .flat_map(|other| relationships(catalogue, other))
            .filter(|relationship| relationship["ReferencedEntity"] == table.name())
            .collect(),
        "ManyToManyRelationships" => Vec::new(),
        other => return Err(no_such_set(other)),
    })
}

fn relationships<'a>(catalogue: &'a Catalogue, table: &'a Table) -> impl Iterator<Item = Value> + 'a {
    table.columns.iter().flat_map(move |column| {
        catalogue::targets(&column.definition).filter_map(move |(target, navigation)| {
            let referenced = catalogue.by_name(&target.table)?;
            let name = format!("{}_{}_{navigation}", referenced.name(), table.name());
            Some(json!({
                "MetadataId": metadata_id(&name),
                "SchemaName": name,
                "RelationshipType": "OneToManyRelationship",
                "ReferencingEntity": table.name(),
                "ReferencingAttribute": column.definition.name,
                "ReferencingEntityNavigationPropertyName": navigation,
                "ReferencedEntity": referenced.name(),
                "ReferencedAttribute": referenced.definition.primary_id,
                "ReferencedEntityNavigationPropertyName": name,
                "CascadeConfiguration": {
                    "Assign": "NoCascade", "Merge": "NoCascade", "Reparent": "NoCascade", "Share": "NoCascade",
                    "Unshare": "NoCascade",
                    "Delete": if column.definition.required { "Restrict" } else { "RemoveLink" },
                },
            }))
        })
    })
}

/// `AttributeType`, and the type that the cast names.
fn attribute_type(table: &Table, at: usize, column: &Column) -> (&'static str, &'static str) {
    match column.definition.kind {
        ColumnKind::Text => ("String", "StringAttributeMetadata"),
        ColumnKind::Memo => ("Memo", "MemoAttributeMetadata"),
        ColumnKind::MultiChoice => ("Virtual", "MultiSelectPicklistAttributeMetadata"),
        ColumnKind::Int => ("Integer", "IntegerAttributeMetadata"),
        ColumnKind::Bigint => ("BigInt", "BigIntAttributeMetadata"),
        ColumnKind::Decimal => ("Decimal", "DecimalAttributeMetadata"),
        ColumnKind::Money => ("Money", "MoneyAttributeMetadata"),
        ColumnKind::Double => ("Double", "DoubleAttributeMetadata"),
        ColumnKind::Boolean => ("Boolean", "BooleanAttributeMetadata"),
        ColumnKind::Datetime | ColumnKind::Date => ("DateTime", "DateTimeAttributeMetadata"),
        ColumnKind::Guid => ("Uniqueidentifier", "UniqueIdentifierAttributeMetadata"),
        ColumnKind::Choice | ColumnKind::Enum if Some(at) == table.server.state => ("State", "StateAttributeMetadata"),
        ColumnKind::Choice | ColumnKind::Enum if Some(at) == table.server.status => {
            ("Status", "StatusAttributeMetadata")
        }
        ColumnKind::Choice | ColumnKind::Enum => ("Picklist", "PicklistAttributeMetadata"),
        ColumnKind::Lookup if column.definition.name == "ownerid" => ("Owner", "LookupAttributeMetadata"),
        ColumnKind::Lookup if column.definition.name == "customerid" => ("Customer", "LookupAttributeMetadata"),
        ColumnKind::Lookup => ("Lookup", "LookupAttributeMetadata"),
    }
}

/// One column. Only a cast shows what only its type has.
fn attribute_value(table: &Table, at: usize, column: &Column, typed: bool) -> Value {
    let definition = &column.definition;
    let (attribute, metadata) = attribute_type(table, at, column);
    let is_id = Some(at) == table.primary_id;
    let level = match (is_id, definition.required) {
        (true, _) => "SystemRequired",
        (false, true) => "ApplicationRequired",
        (false, false) => "None",
    };
    let mut value = json!({
        "@odata.type": format!("#{NAMESPACE}{metadata}"),
        "MetadataId": metadata_id(&format!("{}.{}", table.name(), definition.name)),
        "LogicalName": definition.name,
        "SchemaName": definition.name,
        "EntityLogicalName": table.name(),
        "AttributeType": attribute,
        "AttributeTypeName": {"Value": format!("{attribute}Type")},
        "DisplayName": label(&definition.name),
        "RequiredLevel": {
            "Value": level, "CanBeChanged": !is_id, "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings",
        },
        "IsPrimaryId": is_id,
        "IsPrimaryName": table.definition.primary_name.as_ref() == Some(&definition.name),
        "IsValidForCreate": !definition.read_only,
        "IsValidForUpdate": !definition.read_only && !is_id,
        "IsValidForRead": true,
        "IsCustomAttribute": definition.name.contains('_'),
        "IsManaged": false,
        "AttributeOf": null,
    });
    if typed && let Value::Object(members) = &mut value {
        members.extend(typed_members(column));
    }
    value
}

fn typed_members(column: &Column) -> Map<String, Value> {
    let definition = &column.definition;
    let bound = |bound: &Option<serde_json::Number>, otherwise: f64| {
        bound.clone().map_or_else(|| json!(otherwise), Value::Number)
    };
    let members = match definition.kind {
        ColumnKind::Text => json!({
            "MaxLength": definition.max_length.unwrap_or(4_000), "Format": "Text", "FormatName": {"Value": "Text"},
        }),
        ColumnKind::Memo => json!({"MaxLength": definition.max_length.unwrap_or(1_048_576), "Format": "TextArea"}),
        ColumnKind::Int => json!({
            "MinValue": definition.min.clone().map_or_else(|| json!(i32::MIN), Value::Number),
            "MaxValue": definition.max.clone().map_or_else(|| json!(i32::MAX), Value::Number),
            "Format": "None",
        }),
        ColumnKind::Decimal => json!({
            "MinValue": bound(&definition.min, -100_000_000_000.0),
            "MaxValue": bound(&definition.max, 100_000_000_000.0),
            "Precision": definition.precision.unwrap_or(10),
        }),
        ColumnKind::Money => json!({
            "MinValue": bound(&definition.min, -922_337_203_685_477.0),
            "MaxValue": bound(&definition.max, 922_337_203_685_477.0),
            "Precision": definition.precision.unwrap_or(4), "PrecisionSource": 0, "IsBaseCurrency": false,
        }),
        ColumnKind::Double => json!({
            "MinValue": bound(&definition.min, -100_000_000_000.0),
            "MaxValue": bound(&definition.max, 100_000_000_000.0),
            "Precision": definition.precision.unwrap_or(5),
        }),
        ColumnKind::Datetime => json!({"Format": "DateAndTime", "DateTimeBehavior": {"Value": "UserLocal"}}),
        ColumnKind::Date => json!({"Format": "DateOnly", "DateTimeBehavior": {"Value": "DateOnly"}}),
        ColumnKind::Choice | ColumnKind::Enum | ColumnKind::MultiChoice => {
            let options = definition
                .options
                .iter()
                .map(|option| json!({"Value": option.value, "Label": label(&option.name), "IsManaged": false}))
                .collect::<Vec<_>>();
            json!({"OptionSet": {
                "Name": definition.name, "IsGlobal": false, "OptionSetType": "Picklist", "Options": options,
            }})
        }
        ColumnKind::Boolean => json!({"OptionSet": {
            "OptionSetType": "Boolean",
            "TrueOption": {"Value": 1, "Label": label("Yes")}, "FalseOption": {"Value": 0, "Label": label("No")},
        }}),
        ColumnKind::Lookup => {
            let targets = definition.targets.iter().map(|target| target.table.as_str()).collect::<Vec<_>>();
            json!({"Targets": targets})
        }
        ColumnKind::Bigint | ColumnKind::Guid => json!({}),
    };
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn attribute(table: &Table, key: &Key, root: &str, resource: &Resource) -> Result<Response, Response> {
    let name = match key {
        Key::Named(pairs) => match pairs.as_slice() {
            [(name, Literal::Text(value))] if name == "LogicalName" => value,
            _ => return Err(error(400, BAD_QUERY, "An attribute is named by its LogicalName.")),
        },
        _ => return Err(error(400, BAD_QUERY, "An attribute is named by its LogicalName.")),
    };
    let found = table.columns.iter().enumerate().find(|(_, column)| column.definition.name == *name);
    let (at, column) = found.ok_or_else(|| error(404, NOT_FOUND, &format!("Could not find attribute {name}.")))?;
    let Value::Object(value) = attribute_value(table, at, column, true) else {
        return Err(no_such_set(name));
    };
    let mut value = selected(value, &resource.list("$select"));
    value.insert("@odata.context".into(), json!(format!("{root}/Attributes/$entity")));
    Ok(exchange::json(200, Value::Object(value).to_string().into_bytes()))
}

/// A collection after `$filter` and `$select`.
fn list<T: Into<Value>>(context: &str, values: Vec<T>, resource: &Resource) -> Result<Response, Response> {
    let condition = match resource.option("$filter") {
        None => None,
        Some(text) => Some(filter::parse(text).map_err(|refusal| error(400, BAD_QUERY, &refusal.to_string()))?),
    };
    let names = resource.list("$select");
    let values = values
        .into_iter()
        .filter_map(|value| match value.into() {
            Value::Object(members) => Some(members),
            _ => None,
        })
        .filter(|members| {
            condition.as_ref().is_none_or(|condition| filter::matches(condition, &|name| literal_at(members, name)))
        })
        .map(|members| Value::Object(selected(members, &names)))
        .collect::<Vec<_>>();
    let body = json!({"@odata.context": context, "value": values});
    Ok(exchange::json(200, body.to_string().into_bytes()))
}

fn literal_at(members: &Map<String, Value>, path: &str) -> Literal {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match members.get(first) {
        Some(Value::Object(inner)) => literal_at(inner, rest),
        Some(Value::Bool(value)) => Literal::Boolean(*value),
        Some(Value::String(text)) => Literal::text(text.as_str()),
        Some(Value::Number(number)) => Literal::parse(&number.to_string()).unwrap_or(Literal::Null),
        _ => Literal::Null,
    }
}

fn selected(members: Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    if names.is_empty() {
        return members;
    }
    members
        .into_iter()
        .filter(|(name, _)| name == "MetadataId" || name.starts_with('@') || names.contains(&name.as_str()))
        .collect()
}

/// `$metadata`: types and sets.
pub(super) fn csdl(catalogue: &Catalogue) -> Response {
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><edmx:Edmx Version=\"4.0\" \
         xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\"><edmx:DataServices>\
         <Schema Namespace=\"Microsoft.Dynamics.CRM\" Alias=\"mscrm\" xmlns=\"http://docs.oasis-open.org/odata/ns/edm\">",
    );
    for table in catalogue.tables() {
        let key = table.definition.primary_id.as_deref().unwrap_or_default();
        // Writing to a string cannot fail, and names hold nothing that XML would have to escape.
        let _ = write!(xml, "<EntityType Name=\"{}\"><Key><PropertyRef Name=\"{key}\"/></Key>", table.name());
        for column in &table.columns {
            let _ =
                write!(xml, "<Property Name=\"{}\" Type=\"{}\"/>", column.property, edm_type(column.definition.kind));
            for (target, navigation) in catalogue::targets(&column.definition) {
                let _ = write!(
                    xml,
                    "<NavigationProperty Name=\"{navigation}\" Type=\"mscrm.{}\" Nullable=\"true\">\
                     <ReferentialConstraint Property=\"{}\" ReferencedProperty=\"{}id\"/></NavigationProperty>",
                    target.table, column.property, target.table
                );
            }
        }
        xml.push_str("</EntityType>");
    }
    xml.push_str("<EntityContainer Name=\"System\">");
    for table in catalogue.tables() {
        let _ = write!(xml, "<EntitySet Name=\"{}\" EntityType=\"mscrm.{}\"/>", table.set(), table.name());
    }
    xml.push_str("</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>");
    let mut response = exchange::no_content(200);
    response.headers.push(("Content-Type".into(), "application/xml".into()));
    response.body = xml.into_bytes();
    response
}

fn edm_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Memo | ColumnKind::MultiChoice => "Edm.String",
        ColumnKind::Int | ColumnKind::Choice | ColumnKind::Enum => "Edm.Int32",
        ColumnKind::Bigint => "Edm.Int64",
        ColumnKind::Decimal | ColumnKind::Money => "Edm.Decimal",
        ColumnKind::Double => "Edm.Double",
        ColumnKind::Boolean => "Edm.Boolean",
        ColumnKind::Datetime => "Edm.DateTimeOffset",
        ColumnKind::Date => "Edm.Date",
        ColumnKind::Guid | ColumnKind::Lookup => "Edm.Guid",
    }
}
