//! The published tables and maps that `DUALWRIGHT_DATA` leads to; its README says where they come from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualwright_core::schema::{AlternateKey, Lookup, LookupTarget};
use dualwright_core::{Column, Kind, Schema, SystemKind};
use rust_decimal::Decimal;
use serde_json::Value as Json;

/// The data folder, or `None` with the reason printed.
pub fn data() -> Option<PathBuf> {
    match std::env::var_os("DUALWRIGHT_DATA") {
        Some(folder) => Some(PathBuf::from(folder)),
        None if std::env::var("DUALWRIGHT_REQUIRE_ALL").is_ok_and(|all| all == "1") => {
            panic!("DUALWRIGHT_DATA is not set, and DUALWRIGHT_REQUIRE_ALL wants every test")
        }
        None => {
            println!("SKIPPED: DUALWRIGHT_DATA is not set");
            None
        }
    }
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = entries.map(|entry| entry.expect("a folder entry").path()).collect::<Vec<_>>();
    files.sort();
    files
}

pub fn map_files(data: &Path) -> Vec<PathBuf> {
    files(&data.join("maps")).into_iter().filter(|file| !file.ends_with("index.json")).collect()
}

/// Integration keys by entity set, where they are published.
pub fn keys(data: &Path) -> HashMap<String, Vec<String>> {
    let index: Vec<Json> = serde_json::from_str(&read(&data.join("maps/index.json"))).expect("index.json");
    let keyed = index.iter().filter(|map| !map["keys"].is_null());
    let key = |map: &Json| {
        let paths = map["keys"].as_array().expect("keys").iter().map(|path| path.as_str().expect("path").to_owned());
        (map["dvEntitySet"].as_str().expect("set").to_owned(), paths.collect())
    };
    keyed.map(key).collect()
}

/// The published tables.
pub struct Schemas {
    pub dataverse: HashMap<String, Arc<Schema>>,
    /// By display name in lower case.
    pub finops: HashMap<String, Arc<Schema>>,
}

impl Schemas {
    pub fn read(data: &Path) -> Self {
        let parse = |folder: &str| {
            files(&data.join("schemas").join(folder))
                .iter()
                .map(|file| serde_json::from_str::<Json>(&read(file)).expect("a schema file"))
                .collect::<Vec<_>>()
        };
        let (dataverse, finops) = (parse("dataverse"), parse("finops"));
        let text = |json: &Json| json.as_str().map(str::to_owned);
        let sets = dataverse
            .iter()
            .filter_map(|table| Some((text(&table["name"])?, text(&table["entitySet"])?)))
            .collect::<HashMap<_, _>>();
        Self {
            dataverse: dataverse
                .iter()
                .map(|table| {
                    let schema = schema(SystemKind::Dataverse, table, &table["entitySet"], &sets);
                    (text(&table["entitySet"]).expect("a set"), Arc::new(schema))
                })
                .collect(),
            finops: finops
                .iter()
                .map(|table| {
                    let schema = schema(SystemKind::Finops, table, &table["name"], &sets);
                    (text(&table["displayName"]).expect("a display name").to_lowercase(), Arc::new(schema))
                })
                .collect(),
        }
    }
}

fn schema(system: SystemKind, table: &Json, set: &Json, sets: &HashMap<String, String>) -> Schema {
    let fields = table["fields"].as_array().expect("fields");
    let mut columns = fields.iter().map(|field| column(system, field, sets)).collect::<Vec<_>>();
    // Every F&O entity of a company has it, whether its list of fields says so or not.
    let lists_company = columns.iter().any(|column| column.name.eq_ignore_ascii_case("dataAreaId"));
    if system == SystemKind::Finops && table["companySpecific"] == true && !lists_company {
        columns.push(Column::new("dataAreaId", Kind::Text));
    }
    let mut schema =
        Schema::new(system, table["name"].as_str().expect("a name"), set.as_str().expect("a set"), columns);
    schema.primary_id = table["primaryId"].as_str().and_then(|id| schema.index_of(id));
    let keys = table["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    match system {
        SystemKind::Finops => {
            let names = keys.iter().flat_map(|key| key["fields"].as_array().expect("key fields"));
            schema.key = names.filter_map(|name| schema.index_of(name.as_str()?)).collect();
            schema.company = schema.index_of("dataAreaId").filter(|_| table["companySpecific"] == true);
        }
        SystemKind::Dataverse => {
            for key in keys {
                let mut columns = Vec::<Arc<str>>::new();
                for path in key["columns"].as_array().expect("key columns") {
                    let first = path.as_str().and_then(|path| path.split('.').next()).expect("a path");
                    if !columns.iter().any(|own| **own == *first) {
                        columns.push(Arc::from(first));
                    }
                }
                schema.alternate_keys.push(AlternateKey { name: Arc::from("integrationKey"), columns });
            }
            schema.company = table["companyColumn"].as_str().and_then(|name| schema.index_of(name)).filter(|&index| {
                schema.alternate_keys.iter().any(|key| key.columns.contains(&schema.column(index).name))
            });
        }
    }
    schema
}

fn column(system: SystemKind, field: &Json, sets: &HashMap<String, String>) -> Column {
    let kind = match (system, field["type"].as_str().expect("a type")) {
        (_, "string" | "memo") => Kind::Text,
        (_, "enum") => Kind::Choice,
        (_, "picklist" | "state" | "status" | "integer" | "bigint" | "int32" | "int64") => Kind::Int64,
        (_, "decimal" | "real") => Kind::Decimal,
        (_, "money") => Kind::Money,
        (_, "double") => Kind::Float64,
        (_, "boolean") => Kind::Boolean,
        (SystemKind::Finops, "date" | "utcdatetime") | (_, "datetime") => Kind::Timestamp,
        (_, "date") => Kind::Date,
        (_, "uniqueidentifier") => Kind::Guid,
        (_, "lookup" | "customer" | "owner") => Kind::Lookup,
        (_, other) => panic!("unknown type {other}"),
    };
    let mut column = Column::new(field["name"].as_str().expect("a name"), kind);
    column.length_max = field["maxLength"].as_u64().and_then(|length| u32::try_from(length).ok());
    column.required = field["required"] == true;
    column.inferred = field["derived"] == true || field["typeFrom"].as_str().is_some_and(|from| from != "platform");
    column.read_only = field["readOnly"] == true;
    let limit = |name: &str| Decimal::from_scientific(&format!("{:e}", field[name].as_f64()?)).ok();
    (column.minimum, column.maximum) = (limit("min"), limit("max"));
    if let (Some(options), true) = (field["options"].as_object(), kind != Kind::Boolean) {
        column.options =
            options.iter().map(|(name, number)| (Arc::from(name.as_str()), number.as_i64().unwrap_or(0))).collect();
    }
    let tables = match &field["lookup"]["table"] {
        Json::String(table) => vec![table.clone()],
        Json::Array(tables) => tables.iter().filter_map(|table| table.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    if !tables.is_empty() {
        let targets = tables
            .iter()
            .map(|table| LookupTarget {
                table: Arc::from(table.as_str()),
                set: Arc::from(sets.get(table).cloned().unwrap_or_else(|| format!("{table}s"))),
                navigation_property: Arc::clone(&column.name),
            })
            .collect();
        column.lookup = Some(Lookup { targets });
    }
    column
}
