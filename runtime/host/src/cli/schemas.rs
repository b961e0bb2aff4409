//! Tables from files, for checks that ask no system: one JSON object per table, in any folder below `--schemas`.
//!
//! The shape is that of the published table lists: `system`, `name`, `entitySet` or `displayName` and
//! `publicCollection`, `keys`, `companySpecific`, `fields` with `name`, `type`, and what a type needs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use dualwright_core::schema::{AlternateKey, Lookup, LookupTarget};
use dualwright_core::{Column, Kind, Schema, SystemKind};
use dualwright_emulator::{ColumnDefinition, ColumnKind, TableDefinition};
use rust_decimal::Decimal;
use serde::Deserialize;

use crate::catalogue::{self, Catalogue};

/// Folders within folders; a deeper tree is a slip, or a link to itself.
const DEPTH_MAX: usize = 8;

/// The tables of both systems.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    /// By entity set.
    pub dataverse: BTreeMap<String, Arc<Schema>>,
    /// By every name that a map may use, in lower case: own name, display name, public collection.
    finops: BTreeMap<String, Arc<Schema>>,
    /// Display names of the F&O entities.
    pub finops_names: Vec<String>,
    /// Integration keys of Dataverse tables, by entity set: column paths, the company's among them.
    pub keys: HashMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    system: SystemKind,
    name: String,
    entity_set: Option<String>,
    display_name: Option<String>,
    public_collection: Option<String>,
    primary_id: Option<String>,
    #[serde(default)]
    keys: Vec<Key>,
    #[serde(default)]
    company_specific: bool,
    company_column: Option<String>,
    fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
struct Key {
    name: String,
    /// Dataverse.
    #[serde(default)]
    columns: Vec<String>,
    /// F&O.
    #[serde(default)]
    fields: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    max_length: Option<u32>,
    precision: Option<u8>,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    read_only: bool,
    min: Option<f64>,
    max: Option<f64>,
    #[serde(default)]
    options: Option<BTreeMap<String, i64>>,
    lookup: Option<FieldLookup>,
    /// Made from the maps, not from a description of the table.
    #[serde(default)]
    derived: bool,
    /// How the type was guessed.
    type_from: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FieldLookup {
    table: OneOrMore,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Schemas {
    /// Reads every table below `folder`. Files that are no table (an index, for instance) are passed over; a table that
    /// cannot be read is an error, since a check without it would say that columns are missing.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        collect(folder, DEPTH_MAX, &mut files)?;
        files.sort();
        let mut tables = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            let json: serde_json::Value =
                serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
            if json.get("system").is_some() && json.get("fields").is_some() {
                let table: Table =
                    serde_json::from_value(json).with_context(|| format!("{} is not a table", file.display()))?;
                tables.push((file, table));
            }
        }
        if tables.is_empty() {
            bail!("{} has no table: expected are JSON files with system, name and fields", folder.display());
        }
        Self::of(&tables)
    }

    /// The tables that both emulators have with `--catalogue`, and the keys of the maps of the catalogue.
    pub(super) fn emulated() -> anyhow::Result<Self> {
        let mut schemas = Self::default();
        for map in Catalogue::embedded()?.maps() {
            schemas.keys.insert(map.leg().dataverse_set.clone(), map.integration_key.clone());
        }
        let dataverse = catalogue::tables(SystemKind::Dataverse)?;
        let set_of = dataverse.iter().map(|table| (table.name.as_str(), table.set.as_str())).collect::<HashMap<_, _>>();
        for table in &dataverse {
            schemas.dataverse.insert(table.set.clone(), Arc::new(of_definition(SystemKind::Dataverse, table, &set_of)));
        }
        for table in catalogue::tables(SystemKind::Finops)? {
            let schema = Arc::new(of_definition(SystemKind::Finops, &table, &set_of));
            schemas.finops_names.push(table.entity.clone().unwrap_or_else(|| table.name.clone()));
            let names = [Some(&table.name), Some(&table.set), table.entity.as_ref(), table.entity_name.as_ref()];
            for name in names.into_iter().flatten() {
                schemas.finops.insert(name.to_lowercase(), Arc::clone(&schema));
            }
        }
        Ok(schemas)
    }

    fn of(tables: &[(PathBuf, Table)]) -> anyhow::Result<Self> {
        let set_of = tables
            .iter()
            .filter_map(|(_, table)| Some((table.name.as_str(), table.entity_set.as_deref()?)))
            .collect::<HashMap<_, _>>();
        let mut schemas = Self::default();
        for (file, table) in tables {
            let schema = table.schema(&set_of).with_context(|| format!("{}", file.display()))?;
            let schema = Arc::new(schema);
            match table.system {
                SystemKind::Dataverse => {
                    if let Some(key) = table.keys.iter().find(|key| key.name == "integrationKey") {
                        schemas.keys.insert(schema.set.to_string(), key.columns.clone());
                    }
                    schemas.dataverse.insert(schema.set.to_string(), schema);
                }
                SystemKind::Finops => {
                    schemas.finops_names.push(table.display_name.clone().unwrap_or_else(|| table.name.clone()));
                    let names = [Some(&table.name), table.display_name.as_ref(), table.public_collection.as_ref()];
                    for name in names.into_iter().flatten() {
                        schemas.finops.insert(name.to_lowercase(), Arc::clone(&schema));
                    }
                }
            }
        }
        Ok(schemas)
    }

    /// An F&O entity by one of its names, in any case.
    pub(super) fn finops(&self, entity: &str) -> Option<&Arc<Schema>> {
        self.finops.get(&entity.trim().to_lowercase())
    }
}

/// A table as an emulator defines it.
fn of_definition(system: SystemKind, table: &TableDefinition, set_of: &HashMap<&str, &str>) -> Schema {
    let columns = table.columns.iter().map(|column| column_of(system, column, set_of)).collect();
    let mut schema = Schema::new(system, &table.name, &table.set, columns);
    schema.alternate_keys = table
        .alternate_keys
        .iter()
        .map(|key| AlternateKey {
            name: Arc::from(key.name.as_str()),
            columns: key.columns.iter().map(|column| Arc::from(column.as_str())).collect(),
        })
        .collect();
    schema.key = table.key.iter().filter_map(|name| schema.index_of(name)).collect();
    match system {
        SystemKind::Finops => schema.company = schema.index_of("dataAreaId").filter(|at| schema.key.contains(at)),
        SystemKind::Dataverse => {
            let id = table.primary_id.clone().unwrap_or_else(|| format!("{}id", table.name));
            schema.primary_id = schema.index_of(&id);
            schema.versioned = Some(true);
            schema.tracked = Some(!table.untracked);
            schema.company = (0..schema.columns().len()).find(|&at| {
                let column = schema.column(at);
                let targets = column.lookup.iter().flat_map(|lookup| &lookup.targets);
                targets.into_iter().any(|target| &*target.table == "cdm_company")
                    && schema.alternate_keys.iter().any(|key| key.columns.contains(&column.name))
            });
        }
    }
    schema
}

fn column_of(system: SystemKind, definition: &ColumnDefinition, set_of: &HashMap<&str, &str>) -> Column {
    let kind = match definition.kind {
        ColumnKind::Text | ColumnKind::Memo => Kind::Text,
        ColumnKind::Int | ColumnKind::Bigint | ColumnKind::Choice => Kind::Int64,
        ColumnKind::Decimal => Kind::Decimal,
        // F&O has amounts as plain numbers.
        ColumnKind::Money if system == SystemKind::Finops => Kind::Decimal,
        ColumnKind::Double if system == SystemKind::Finops => Kind::Decimal,
        ColumnKind::Money => Kind::Money,
        ColumnKind::Double => Kind::Float64,
        ColumnKind::Boolean => Kind::Boolean,
        // F&O sends every date with a time.
        ColumnKind::Date if system == SystemKind::Dataverse => Kind::Date,
        ColumnKind::Date | ColumnKind::Datetime => Kind::Timestamp,
        ColumnKind::Guid => Kind::Guid,
        ColumnKind::MultiChoice => Kind::MultiChoice,
        ColumnKind::Lookup => Kind::Lookup,
        ColumnKind::Enum => Kind::Choice,
    };
    let mut column = Column::new(&definition.name, kind);
    column.length_max = definition.max_length;
    column.scale = definition.precision;
    column.required = definition.required;
    column.read_only = definition.read_only;
    let limit = |limit: &Option<serde_json::Number>| limit.as_ref().and_then(|limit| limit.to_string().parse().ok());
    (column.minimum, column.maximum) = (limit(&definition.min), limit(&definition.max));
    column.options = definition.options.iter().map(|option| (Arc::from(option.name.as_str()), option.value)).collect();
    column.enumeration = definition.enumeration.as_deref().map(Arc::from);
    let targets = definition.targets.iter().filter_map(|target| {
        Some(LookupTarget {
            table: Arc::from(target.table.as_str()),
            set: Arc::from(*set_of.get(target.table.as_str())?),
            navigation_property: Arc::from(target.navigation_property.as_deref().unwrap_or(&definition.name)),
        })
    });
    let targets = targets.collect::<Vec<_>>();
    if system == SystemKind::Dataverse && !targets.is_empty() {
        column.lookup = Some(Lookup { targets });
    }
    column
}

impl Table {
    fn schema(&self, set_of: &HashMap<&str, &str>) -> anyhow::Result<Schema> {
        let set = match self.system {
            SystemKind::Dataverse => self.entity_set.as_ref().context("a Dataverse table needs its entitySet")?,
            SystemKind::Finops => self.public_collection.as_ref().unwrap_or(&self.name),
        };
        let columns = self.fields.iter().map(|field| field.column(self.system, set_of));
        let mut columns = columns.collect::<Result<Vec<_>, _>>()?;
        // Every F&O entity of a company has it, whether its list of fields says so or not.
        let lists_company = columns.iter().any(|column| column.name.eq_ignore_ascii_case("dataAreaId"));
        if self.system == SystemKind::Finops && self.company_specific && !lists_company {
            columns.push(Column::new("dataAreaId", Kind::Text));
        }
        let mut schema = Schema::new(self.system, &self.name, set, columns);
        schema.primary_id = self.primary_id.as_deref().and_then(|id| schema.index_of(id));
        match self.system {
            SystemKind::Finops => {
                let fields = self.keys.first().map(|key| key.fields.as_slice()).unwrap_or_default();
                schema.key = fields.iter().filter_map(|name| schema.index_of(name)).collect();
                schema.company = schema.index_of("dataAreaId").filter(|_| self.company_specific);
            }
            SystemKind::Dataverse => {
                for key in &self.keys {
                    // A key that goes through lookups holds the lookup columns themselves.
                    let mut columns = Vec::<Arc<str>>::new();
                    for path in &key.columns {
                        let first = path.split('.').next().unwrap_or(path);
                        if !columns.iter().any(|own| **own == *first) {
                            columns.push(Arc::from(first));
                        }
                    }
                    schema.alternate_keys.push(AlternateKey { name: Arc::from(key.name.as_str()), columns });
                }
                let company = self.company_column.as_deref().and_then(|name| schema.index_of(name));
                schema.company = company.filter(|&index| {
                    let name = &schema.column(index).name;
                    schema.alternate_keys.iter().any(|key| key.columns.contains(name))
                });
            }
        }
        Ok(schema)
    }
}

impl Field {
    fn column(&self, system: SystemKind, set_of: &HashMap<&str, &str>) -> anyhow::Result<Column> {
        let kind = match (system, self.kind.as_str()) {
            (_, "string" | "text" | "memo") => Kind::Text,
            (_, "enum" | "choice") => Kind::Choice,
            (_, "picklist" | "state" | "status" | "integer" | "int" | "bigint" | "int32" | "int64") => Kind::Int64,
            (_, "decimal" | "real") => Kind::Decimal,
            (_, "money") => Kind::Money,
            (_, "double") => Kind::Float64,
            (_, "boolean") => Kind::Boolean,
            // F&O sends every date with a time.
            (SystemKind::Finops, "date" | "utcdatetime") | (_, "datetime") => Kind::Timestamp,
            (_, "date") => Kind::Date,
            (_, "uniqueidentifier" | "guid") => Kind::Guid,
            (_, "lookup" | "customer" | "owner") => Kind::Lookup,
            (_, other) => bail!("column {}: there is no type {other}", self.name),
        };
        let mut column = Column::new(&self.name, kind);
        column.length_max = self.max_length;
        column.scale = self.precision;
        column.required = self.required;
        column.inferred = self.derived || self.type_from.as_deref().is_some_and(|from| from != "platform");
        column.read_only = self.read_only;
        let limit = |limit: Option<f64>| Decimal::from_scientific(&format!("{:e}", limit?)).ok();
        (column.minimum, column.maximum) = (limit(self.min), limit(self.max));
        if let (Some(options), true) = (&self.options, kind != Kind::Boolean) {
            column.options = options.iter().map(|(name, number)| (Arc::from(name.as_str()), *number)).collect();
        }
        let tables = match &self.lookup {
            Some(FieldLookup { table: OneOrMore::One(table) }) => std::slice::from_ref(table),
            Some(FieldLookup { table: OneOrMore::More(tables) }) => tables,
            None => &[],
        };
        if !tables.is_empty() {
            let target = |table: &String| LookupTarget {
                table: Arc::from(table.as_str()),
                set: Arc::from(set_of.get(table.as_str()).map_or_else(|| format!("{table}s"), ToString::to_string)),
                navigation_property: Arc::clone(&column.name),
            };
            column.lookup = Some(Lookup { targets: tables.iter().map(target).collect() });
        }
        Ok(column)
    }
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && depth > 0 {
            collect(&path, depth - 1, files)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(folder.join(name).parent().expect("a parent")).expect("a folder");
        std::fs::write(folder.join(name), text).expect("written");
    }

    const GROUPS: &str = r#"{"system": "dataverse", "name": "msdyn_customergroup", "entitySet": "msdyn_customergroups",
        "primaryId": "msdyn_customergroupid", "companySpecific": true, "companyColumn": "msdyn_company",
        "keys": [{"name": "integrationKey", "columns": ["msdyn_groupid", "msdyn_company.cdm_companycode"]}],
        "fields": [{"name": "msdyn_customergroupid", "type": "uniqueidentifier"},
            {"name": "msdyn_groupid", "type": "string", "maxLength": 20, "required": true},
            {"name": "msdyn_rate", "type": "decimal", "precision": 2, "min": 0, "max": 100.5},
            {"name": "msdyn_company", "type": "lookup", "lookup": {"table": "cdm_company"}},
            {"name": "ownerid", "type": "owner", "lookup": {"table": ["systemuser", "team"]}}]}"#;
    const COMPANIES: &str =
        r#"{"system": "dataverse", "name": "cdm_company", "entitySet": "cdm_companies", "fields": []}"#;
    const ENTITY: &str = r#"{"system": "finops", "name": "CustCustomerGroupEntity", "displayName": "Customer groups",
        "publicCollection": "CustomerGroups", "companySpecific": true,
        "keys": [{"name": "EntityKey", "fields": ["dataAreaId", "CustomerGroupId"]}],
        "fields": [{"name": "dataAreaId", "type": "string"}, {"name": "CustomerGroupId", "type": "string"},
            {"name": "Blocked", "type": "enum", "options": {"No": 0, "Yes": 1}}, {"name": "Since", "type": "date"}]}"#;

    #[test]
    fn tables_are_read_from_any_folder_below() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "index.json", "[]");
        write(folder.path(), "notes.txt", "not JSON");
        write(folder.path(), "dataverse/group.json", GROUPS);
        write(folder.path(), "dataverse/company.json", COMPANIES);
        write(folder.path(), "finops/deep/entity.json", ENTITY);
        let schemas = Schemas::read(folder.path()).expect("schemas");
        let group = &schemas.dataverse["msdyn_customergroups"];
        assert_eq!(schemas.keys["msdyn_customergroups"], ["msdyn_groupid", "msdyn_company.cdm_companycode"]);
        assert_eq!((group.primary_id, group.company), (Some(0), Some(3)));
        assert_eq!(*group.alternate_keys[0].columns, [Arc::from("msdyn_groupid"), Arc::from("msdyn_company")]);
        let targets = |column: usize| {
            let lookup = group.column(column).lookup.as_ref().expect("a lookup");
            lookup.targets.iter().map(|target| target.set.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            (targets(3), targets(4)),
            (vec!["cdm_companies".into()], vec!["systemusers".into(), "teams".into()])
        );
        let rate = group.column(2);
        assert_eq!((rate.scale, rate.maximum), (Some(2), Some(Decimal::new(1005, 1))));
        assert_eq!(group.column(1).length_max, Some(20));

        for name in ["Customer groups", "CUSTCUSTOMERGROUPENTITY", "customergroups", " customer groups "] {
            let entity = schemas.finops(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((&*entity.set, &*entity.key, entity.company), ("CustomerGroups", &[0, 1][..], Some(0)));
            assert_eq!((entity.column(2).kind, entity.column(3).kind), (Kind::Choice, Kind::Timestamp));
        }
        assert!(schemas.finops("customers").is_none());
    }

    #[test]
    fn what_is_no_table_is_named() {
        for (text, part) in [
            ("{", "is not JSON"),
            (r#"{"system": "finops", "fields": []}"#, "is not a table"),
            (r#"{"system": "other", "name": "x", "fields": []}"#, "is not a table"),
            (r#"{"system": "dataverse", "name": "x", "fields": []}"#, "entitySet"),
            (
                r#"{"system": "finops", "name": "x", "fields": [{"name": "a", "type": "blob"}]}"#,
                "column a: there is no type blob",
            ),
            ("{}", "has no table"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            write(folder.path(), "x.json", text);
            let error = format!("{:#}", Schemas::read(folder.path()).expect_err("no schemas"));
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
