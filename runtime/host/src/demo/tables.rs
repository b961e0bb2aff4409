//! The tables of both emulated systems, and what the demo asks of them.
//!
//! Names, types, options, limits and lookup targets are those of the published schemas.

use std::collections::HashMap;

use dualwright_emulator::{ColumnDefinition, ColumnKind, TableDefinition, TableFile, read_tables};

use super::DemoError;

/// Table definitions of the F&O emulator, as JSON.
pub const FINOPS_TABLES: &str = include_str!("../../demo/finops-tables.json");
/// Table definitions of the Dataverse emulator, as JSON.
pub const DATAVERSE_TABLES: &str = include_str!("../../demo/dataverse-tables.json");

/// The tables of both sides.
#[derive(Debug, Clone)]
pub struct Tables {
    pub finops: Vec<TableDefinition>,
    pub dataverse: Vec<TableDefinition>,
    finops_by_set: HashMap<String, usize>,
    dataverse_by_set: HashMap<String, usize>,
}

impl Tables {
    pub(super) fn read() -> Result<Self, DemoError> {
        let read = |file: &str, json: &str| -> Result<TableFile, DemoError> {
            read_tables(json).map_err(|error| DemoError::Data { file: file.to_owned(), message: format!("{error:#}") })
        };
        let finops = read("finops-tables.json", FINOPS_TABLES)?.tables;
        let dataverse = read("dataverse-tables.json", DATAVERSE_TABLES)?.tables;
        let by_set = |tables: &[TableDefinition]| {
            tables.iter().enumerate().map(|(at, table)| (table.set.clone(), at)).collect::<HashMap<_, _>>()
        };
        Ok(Self { finops_by_set: by_set(&finops), dataverse_by_set: by_set(&dataverse), finops, dataverse })
    }

    /// An F&O table by its public collection.
    #[must_use]
    pub fn finops_table(&self, set: &str) -> Option<&TableDefinition> {
        self.finops_by_set.get(set).map(|&at| &self.finops[at])
    }

    /// A Dataverse table by its entity set.
    #[must_use]
    pub fn dataverse_table(&self, set: &str) -> Option<&TableDefinition> {
        self.dataverse_by_set.get(set).map(|&at| &self.dataverse[at])
    }

    /// The entity set of a Dataverse table by its logical name.
    #[must_use]
    pub fn dataverse_set(&self, name: &str) -> Option<&str> {
        self.dataverse.iter().find(|table| table.name == name).map(|table| table.set.as_str())
    }
}

/// A column by its name in any case: maps write F&O names in upper case.
pub(super) fn column<'a>(table: &'a TableDefinition, name: &str) -> Option<&'a ColumnDefinition> {
    table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
}

/// The columns of the key by which Dataverse tells the rows of a table apart.
pub(super) fn dataverse_key(table: &TableDefinition) -> &[String] {
    table.alternate_keys.first().map(|key| key.columns.as_slice()).unwrap_or_default()
}

/// The lookup to the company, when it is part of the key.
pub(super) fn company_column(table: &TableDefinition) -> Option<&ColumnDefinition> {
    dataverse_key(table)
        .iter()
        .filter_map(|name| column(table, name))
        .find(|column| column.targets.iter().any(|target| target.table == "cdm_company"))
}

/// What F&O has where a row says nothing.
pub(super) fn finops_empty(column: &ColumnDefinition) -> serde_json::Value {
    use serde_json::Value;
    match column.kind {
        ColumnKind::Enum | ColumnKind::Choice => {
            let least = column.options.iter().min_by_key(|option| option.value);
            Value::from(least.map_or("", |option| option.name.as_str()))
        }
        ColumnKind::Int | ColumnKind::Bigint | ColumnKind::Decimal | ColumnKind::Money | ColumnKind::Double => {
            Value::from(0)
        }
        ColumnKind::Boolean => Value::from(false),
        ColumnKind::Datetime => Value::from("1900-01-01T00:00:00Z"),
        ColumnKind::Date => Value::from("1900-01-01"),
        ColumnKind::Text | ColumnKind::Memo | ColumnKind::Guid | ColumnKind::Lookup | ColumnKind::MultiChoice => {
            Value::from("")
        }
    }
}
