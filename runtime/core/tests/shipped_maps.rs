//! The shipped Dual-write maps, read from `DUALWRIGHT_DATA` (its README says where they come from): every one parses,
//! and every one with a known key compiles against the published schemas.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualwright_core::filter::{parse_dataverse, parse_finops};
use dualwright_core::mapping::{Document, Encoding, Mapping, Problem, Severity};
use dualwright_core::plan::{PlanInput, compile};
use dualwright_core::schema::{AlternateKey, Lookup, LookupTarget};
use dualwright_core::{Column, Kind, Schema, SystemKind};
use rust_decimal::Decimal;
use serde_json::Value as Json;

/// The data folder, or `None` with the reason printed.
fn data() -> Option<PathBuf> {
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

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = entries.map(|entry| entry.expect("a folder entry").path()).collect::<Vec<_>>();
    files.sort();
    files
}

fn map_files(data: &Path) -> Vec<PathBuf> {
    files(&data.join("maps")).into_iter().filter(|file| !file.ends_with("index.json")).collect()
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

#[test]
fn every_shipped_map_parses_single_and_double_encoded() {
    let Some(data) = data() else { return };
    let files = map_files(&data);
    assert_eq!(files.len(), 137);
    let (mut fields, mut filters) = (0, 0);
    for file in files {
        let text = read(&file);
        let map = Mapping::parse(&text).unwrap_or_else(|all| panic!("{}:{}", file.display(), listed(&all)));
        let double = serde_json::to_string(&text).expect("a text is JSON");
        assert_eq!(Mapping::parse(&double).expect("double encoded"), map, "{}", file.display());
        let document = Document::parse(&double).expect("double encoded");
        assert_eq!(document.export(Encoding::AsImported, document.facts()), double, "{}", file.display());
        assert_eq!(document.export(Encoding::Plain, document.facts()), text, "{}", file.display());
        assert_eq!(Mapping::parse(&map.to_json()).expect("written anew"), map, "{}", file.display());
        let written: Json = serde_json::from_str(&text).expect("JSON");
        for (leg, written) in map.legs.iter().zip(written["legs"].as_array().expect("legs")) {
            assert_eq!(leg.fields.len(), written["fieldMappings"].as_array().expect("fields").len());
            fields += leg.fields.len();
            for (field, written) in leg.fields.iter().zip(written["fieldMappings"].as_array().expect("fields")) {
                let path = field.dataverse.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
                assert_eq!(path, written["destinationField"], "{}", file.display());
            }
            if !leg.finops_filter.is_empty() {
                parse_finops(&leg.finops_filter).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                filters += 1;
            }
            if !leg.dataverse_filter.is_empty() {
                parse_dataverse(&leg.dataverse_filter).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                filters += 1;
            }
        }
    }
    assert_eq!((fields, filters), (1_782, 23));
}

#[test]
fn every_shipped_map_with_a_key_compiles_against_the_published_schemas() {
    let Some(data) = data() else { return };
    let schemas = Schemas::read(&data);
    let index: Vec<Json> = serde_json::from_str(&read(&data.join("maps/index.json"))).expect("index.json");
    let keys = index
        .iter()
        .filter(|map| !map["keys"].is_null())
        .map(|map| {
            let key = map["keys"].as_array().expect("keys").iter().map(|path| path.as_str().expect("path").to_owned());
            (map["dvEntitySet"].as_str().expect("set").to_owned(), key.collect::<Vec<_>>())
        })
        .collect::<HashMap<_, _>>();
    let mut failures = String::new();
    let mut compiled = 0;
    let mut notices = BTreeMap::<&str, usize>::new();
    for map in &index {
        let file = data.join(map["file"].as_str().expect("file"));
        if map["keys"].is_null() || !file.exists() {
            continue;
        }
        let mapping = Mapping::parse(&read(&file)).expect("parses, see the other test");
        let leg = &mapping.legs[0];
        let (Some(dataverse), Some(finops)) =
            (schemas.dataverse.get(&leg.dataverse_set), schemas.finops.get(&leg.finops_entity.to_lowercase()))
        else {
            panic!("no schema for {}", mapping.name)
        };
        let input = PlanInput {
            leg,
            finops,
            dataverse,
            integration_key: &keys[&leg.dataverse_set],
            tables: &|set| schemas.dataverse.get(set).cloned(),
            key_of_set: &|set| keys.get(set).cloned(),
        };
        match compile(&input) {
            Ok(plan) => {
                compiled += 1;
                for notice in &plan.notices {
                    *notices.entry(notice.foreign_code.unwrap_or("none")).or_default() += 1;
                }
            }
            Err(all) => {
                let errors = all.into_iter().filter(|p| p.severity == Severity::Error).collect::<Vec<_>>();
                failures.push_str(&format!("\n{}:{}", mapping.name, listed(&errors)));
            }
        }
    }
    println!("{compiled} maps compiled, notices by code: {notices:?}");
    assert!(failures.is_empty(), "{failures}");
}

struct Schemas {
    dataverse: HashMap<String, Arc<Schema>>,
    /// By display name in lower case.
    finops: HashMap<String, Arc<Schema>>,
}

impl Schemas {
    fn read(data: &Path) -> Self {
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
    let columns = table["fields"].as_array().expect("fields").iter().map(|field| column(system, field, sets)).collect();
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
