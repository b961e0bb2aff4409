//! Tables from schema files: one JSON file per table, as schemas of both systems are published in.
//!
//! Owns what such a file means for an emulator, and what is made up where it leaves something open. Members that are not
//! named here are passed over: files say more than an emulator needs.
//!
//! ```json
//! {"system": "dataverse", "name": "account", "entitySet": "accounts", "primaryId": "accountid",
//!  "keys": [{"name": "byNumber", "columns": ["accountnumber", "msdyn_company.cdm_companycode"]}],
//!  "fields": [{"name": "accountnumber", "type": "string", "maxLength": 20}]}
//! ```

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::Dialect;
use crate::definition::{
    ColumnDefinition, ColumnKind, KeyDefinition, NO_YES, OptionDefinition, TableDefinition, TargetDefinition, no_yes,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schema {
    system: String,
    name: String,
    #[serde(default)]
    display_name: Option<String>,
    /// Dataverse: what stands in URLs.
    #[serde(default)]
    entity_set: Option<String>,
    /// F&O: what stands in URLs.
    #[serde(default)]
    public_collection: Option<String>,
    #[serde(default)]
    primary_id: Option<String>,
    #[serde(default)]
    keys: Vec<Key>,
    #[serde(default)]
    company_specific: bool,
    fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
struct Key {
    name: String,
    /// Column names; of a lookup also a path such as `msdyn_company.cdm_companycode`.
    #[serde(alias = "fields")]
    columns: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    max_length: Option<u32>,
    #[serde(default)]
    precision: Option<u8>,
    #[serde(default)]
    min: Option<serde_json::Number>,
    #[serde(default)]
    max: Option<serde_json::Number>,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    read_only: bool,
    /// Names with their numbers.
    #[serde(default)]
    options: BTreeMap<String, i64>,
    #[serde(default, rename = "enum")]
    enumeration: Option<String>,
    #[serde(default)]
    lookup: Option<Lookup>,
}

#[derive(Debug, Deserialize)]
struct Lookup {
    table: OneOrMore,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Whether a JSON file is one of these, and not something else that lies beside them.
pub(crate) fn is_schema(json: &serde_json::Value) -> bool {
    json.get("fields").is_some_and(serde_json::Value::is_array) && json.get("system").is_some()
}

/// Reads one schema file. An F&O table whose file names no key gets its required columns as one, or its first column,
/// with the company before them where it is kept per company.
pub fn read_schema(dialect: Dialect, json: &str) -> anyhow::Result<TableDefinition> {
    let schema: Schema = serde_json::from_str(json).context("it is not a schema")?;
    ensure!(
        schema.system.eq_ignore_ascii_case(dialect.name()),
        "{} is a table of {}, and not of {}",
        schema.name,
        schema.system,
        dialect.name()
    );
    let mut seen = HashSet::new();
    let columns = schema
        .fields
        .iter()
        .filter(|field| seen.insert(field.name.to_ascii_lowercase()))
        .map(|field| column(dialect, &schema, field))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // Keys are spelled after another fashion in some files.
    let own_name = |name: &str| {
        let first = name.split('.').next().unwrap_or(name);
        let own = columns.iter().find(|column| column.name.eq_ignore_ascii_case(first));
        own.map(|column| column.name.clone())
    };
    let definition = match dialect {
        Dialect::Dataverse => {
            let alternate_keys = schema
                .keys
                .iter()
                .filter_map(|key| {
                    let columns = key.columns.iter().map(|name| own_name(name)).collect::<Option<Vec<_>>>()?;
                    Some(KeyDefinition { name: key.name.clone(), columns, ..KeyDefinition::default() })
                })
                .collect();
            TableDefinition {
                set: schema.entity_set.clone().unwrap_or_else(|| plural(&schema.name)),
                primary_id: schema.primary_id.clone(),
                primary_name: primary_name(&columns),
                alternate_keys,
                display_name: schema.display_name.clone(),
                name: schema.name,
                columns,
                ..TableDefinition::default()
            }
        }
        Dialect::Finops => {
            let name = schema.name.strip_suffix("Entity").unwrap_or(&schema.name).to_owned();
            let own = |name: &String| own_name(name).unwrap_or_else(|| name.clone());
            let mut key = match schema.keys.first() {
                Some(key) => key.columns.iter().map(own).collect::<Vec<_>>(),
                None => {
                    let required = columns.iter().filter(|column| column.required).map(|column| column.name.clone());
                    let key = required.collect::<Vec<_>>();
                    if key.is_empty() {
                        columns.iter().take(1).map(|column| column.name.clone()).collect()
                    } else {
                        key
                    }
                }
            };
            if schema.company_specific && !key.iter().any(|name| name == COMPANY) {
                key.insert(0, own_name(COMPANY).unwrap_or_else(|| COMPANY.to_owned()));
            }
            ensure!(!key.is_empty(), "{} has no columns", schema.name);
            TableDefinition {
                set: schema.public_collection.clone().unwrap_or_else(|| plural(&name)),
                entity: schema.display_name.clone(),
                entity_name: Some(schema.name),
                name,
                key,
                columns,
                ..TableDefinition::default()
            }
        }
    };
    definition.check()?;
    Ok(definition)
}

const COMPANY: &str = "dataAreaId";

fn column(dialect: Dialect, schema: &Schema, field: &Field) -> anyhow::Result<ColumnDefinition> {
    let kind = match field.kind.to_ascii_lowercase().as_str() {
        "string" | "text" => ColumnKind::Text,
        "memo" => ColumnKind::Memo,
        "integer" | "int" | "int32" => ColumnKind::Int,
        "bigint" | "int64" => ColumnKind::Bigint,
        "decimal" | "real" => ColumnKind::Decimal,
        "money" => ColumnKind::Money,
        "double" => ColumnKind::Double,
        "boolean" => ColumnKind::Boolean,
        "datetime" | "utcdatetime" => ColumnKind::Datetime,
        "date" => ColumnKind::Date,
        "uniqueidentifier" | "guid" => ColumnKind::Guid,
        "picklist" | "choice" | "state" | "status" => ColumnKind::Choice,
        "lookup" | "customer" | "owner" => ColumnKind::Lookup,
        // Without members it can hold any of them.
        "enum" if field.options.is_empty() && field.enumeration.as_deref() != Some(NO_YES) => ColumnKind::Text,
        "enum" => ColumnKind::Enum,
        other => bail!("{}.{}: {other} is no type that an emulator knows", schema.name, field.name),
    };
    // What the system fills itself is never missing from a request.
    let is_filled = field.read_only
        || matches!(field.kind.as_str(), "state" | "status" | "owner")
        || Some(&field.name) == schema.primary_id.as_ref();
    let targets = match &field.lookup {
        None => Vec::new(),
        Some(Lookup { table: OneOrMore::One(table) }) => vec![target(table, None)],
        Some(Lookup { table: OneOrMore::More(tables) }) => match tables.as_slice() {
            [table] => vec![target(table, None)],
            // Owners are one property whatever they are; other lookups to several tables have one for each.
            tables if field.kind == "owner" => tables.iter().map(|table| target(table, None)).collect(),
            tables => tables.iter().map(|table| target(table, Some(format!("{}_{table}", field.name)))).collect(),
        },
    };
    let mut options = field.options.iter().map(|(name, value)| OptionDefinition {
        name: name.clone(),
        value: *value,
        ..OptionDefinition::default()
    });
    let options = if matches!(kind, ColumnKind::Choice | ColumnKind::Enum) {
        let mut options = options.by_ref().collect::<Vec<_>>();
        options.sort_by_key(|option| option.value);
        if options.is_empty() && kind == ColumnKind::Enum { no_yes() } else { options }
    } else {
        Vec::new()
    };
    let enumeration = (kind == ColumnKind::Enum && dialect == Dialect::Finops).then(|| {
        // Two tables may give one enumeration different members, so it goes by the table where it has no name.
        field.enumeration.clone().unwrap_or_else(|| format!("{}_{}", schema.name, field.name))
    });
    Ok(ColumnDefinition {
        name: field.name.clone(),
        kind,
        max_length: field.max_length,
        precision: field.precision,
        min: field.min.clone(),
        max: field.max.clone(),
        required: field.required && !is_filled,
        read_only: field.read_only && Some(&field.name) != schema.primary_id.as_ref(),
        options,
        enumeration,
        targets,
        ..ColumnDefinition::default()
    })
}

fn target(table: &str, navigation_property: Option<String>) -> TargetDefinition {
    TargetDefinition { table: table.to_owned(), navigation_property, ..TargetDefinition::default() }
}

/// The column that people call a row by.
fn primary_name(columns: &[ColumnDefinition]) -> Option<String> {
    let texts = || columns.iter().filter(|column| column.kind == ColumnKind::Text).map(|column| column.name.as_str());
    let exact = ["name", "fullname", "subject", "title"].iter().find_map(|wanted| texts().find(|name| name == wanted));
    exact.or_else(|| texts().find(|name| name.ends_with("name"))).map(str::to_owned)
}

/// `SalesOrderLineV2` gives `SalesOrderLinesV2`, as collections are named.
fn plural(name: &str) -> String {
    let version = name.rfind('V').filter(|at| {
        let digits = &name[at + 1..];
        !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
    });
    let (stem, version) = name.split_at(version.unwrap_or(name.len()));
    let ends_in_vowel_y = ["ay", "ey", "oy", "uy"].iter().any(|end| stem.ends_with(end));
    if let Some(stem) = stem.strip_suffix('y').filter(|_| !ends_in_vowel_y) {
        format!("{stem}ies{version}")
    } else if ["s", "x", "ch", "sh"].iter().any(|end| stem.ends_with(end)) {
        format!("{stem}es{version}")
    } else {
        format!("{stem}s{version}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_systems_are_read() {
        let table = read_schema(
            Dialect::Dataverse,
            r#"{"system":"dataverse","name":"quote","entitySet":"quotes","primaryId":"quoteid","maps":[],
                "keys":[{"name":"k","columns":["quotenumber","msdyn_company.cdm_companycode"]},{"name":"x","columns":["no"]}],
                "fields":[{"name":"quoteid","type":"uniqueidentifier","required":true,"readOnly":true},
                {"name":"quotenumber","type":"string","maxLength":10,"required":true,"derived":true},
                {"name":"QuoteNumber","type":"string"},
                {"name":"name","type":"string"},
                {"name":"statecode","type":"state","required":true,"options":{"Won":2,"Draft":0}},
                {"name":"customerid","type":"customer","lookup":{"table":["account","contact"]}},
                {"name":"ownerid","type":"owner","required":true,"lookup":{"table":["systemuser","team"]}},
                {"name":"msdyn_company","type":"lookup","lookup":{"table":"cdm_company"}},
                {"name":"total","type":"money","min":0,"max":1000.5}]}"#,
        )
        .expect("reads");
        assert_eq!(
            (table.name.as_str(), table.set.as_str(), table.primary_name.as_deref()),
            ("quote", "quotes", Some("name"))
        );
        assert_eq!(table.alternate_keys.len(), 1, "a key of columns that are not there is left out");
        assert_eq!(table.alternate_keys[0].columns, ["quotenumber", "msdyn_company"]);
        let named = |name: &str| table.columns.iter().find(|column| column.name == name).expect("a column");
        assert!(!named("quoteid").required && !named("quoteid").read_only);
        assert!(named("quotenumber").required && !named("ownerid").required && !named("statecode").required);
        assert_eq!(named("statecode").options.iter().map(|option| option.value).collect::<Vec<_>>(), [0, 2]);
        let navigation = |name: &str| {
            named(name).targets.iter().map(|target| target.navigation_property.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            navigation("customerid"),
            [Some("customerid_account".to_owned()), Some("customerid_contact".to_owned())]
        );
        assert_eq!(navigation("ownerid"), [None, None]);
        assert_eq!(table.columns.len(), 8, "a name in another case is no other column");

        let table = read_schema(
            Dialect::Finops,
            r#"{"system":"finops","name":"SalesInvoiceLineV2Entity","displayName":"Sales invoice lines V2","companySpecific":true,
                "keys":[{"name":"EntityKey","fields":["InvoiceNumber"]}],
                "fields":[{"name":"INVOICENUMBER","type":"string","required":true},{"name":"Amount","type":"real"},
                {"name":"Kind","type":"enum","options":{"a":0}},{"name":"Open","type":"enum"},
                {"name":"Is","type":"enum","enum":"NoYes"},{"name":"At","type":"utcdatetime"}]}"#,
        )
        .expect("reads");
        assert_eq!((table.name.as_str(), table.set.as_str()), ("SalesInvoiceLineV2", "SalesInvoiceLinesV2"));
        assert_eq!(table.key, ["dataAreaId", "INVOICENUMBER"]);
        let kinds = table.columns.iter().map(|column| column.kind).collect::<Vec<_>>();
        use ColumnKind::{Datetime, Decimal, Enum, Text};
        assert_eq!(kinds, [Text, Decimal, Enum, Text, Enum, Datetime]);
        assert_eq!(table.columns[2].enumeration.as_deref(), Some("SalesInvoiceLineV2Entity_Kind"));
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        for (json, said) in [
            ("{", "line 1"),
            (r#"{"system":"finops","name":"x","fields":[]}"#, "table of finops"),
            (r#"{"system":"dataverse","name":"x","fields":[{"name":"a","type":"blob"}]}"#, "x.a: blob"),
            (r#"{"system":"dataverse","name":"x y","fields":[]}"#, "plain names"),
        ] {
            let error = format!("{:#}", read_schema(Dialect::Dataverse, json).expect_err(json));
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn collections_are_plural() {
        for (name, wanted) in [
            ("CustomerGroup", "CustomerGroups"),
            ("CustomerV3", "CustomersV3"),
            ("Currency", "Currencies"),
            ("TaxBox", "TaxBoxes"),
            ("Day", "Days"),
            ("V", "Vs"),
        ] {
            assert_eq!(plural(name), wanted);
        }
    }
}
