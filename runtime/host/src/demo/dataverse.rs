//! A row of F&O as somebody would have typed it into Dataverse, and the names by which rows are found there.
//!
//! Reads the same maps as the pipeline and shares no code with it beyond the parser: what this makes of a row is what a
//! person who knows the map would enter.

use std::collections::HashMap;
use std::fmt;

use dualwright_core::mapping::{FieldMapping, Reference, Transform};
use dualwright_emulator::{ColumnDefinition, ColumnKind, TableDefinition};
use serde_json::Value;
use uuid::Uuid;

use super::Row;
use super::maps::DemoMap;
use super::tables::{Tables, column, company_column, dataverse_key, finops_empty};

/// A Dataverse row by its natural key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowName {
    /// Entity set.
    pub set: String,
    /// One part per column of the table's key, in its order.
    pub key: Vec<KeyPart>,
    /// The id, for a row that the edits themselves create.
    pub id: Option<Uuid>,
}

/// One column of a natural key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// As the wire spells it, without quotes.
    Text(String),
    Row(Box<RowName>),
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.set)?;
        for (position, part) in self.key.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match part {
                KeyPart::Text(text) => f.write_str(text)?,
                KeyPart::Row(row) => row.fmt(f)?,
            }
        }
        f.write_str(")")
    }
}

/// A row that an edit names and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Dataverse has no row {0}")]
pub struct Missing(pub RowName);

/// The ids of Dataverse rows by natural key.
#[derive(Debug, Default)]
pub struct Ids {
    by_key: HashMap<(String, String), Uuid>,
}

impl Ids {
    /// Learns rows of a set, as the Web API or the emulator shows them. Every set that an edit names has to be learned:
    /// those of the maps.
    pub fn learn<'a>(&mut self, tables: &Tables, set: &str, rows: impl IntoIterator<Item = &'a Row>) {
        let Some(table) = tables.dataverse_table(set) else { return };
        let id_property = table.primary_id.clone().unwrap_or_else(|| format!("{}id", table.name));
        let properties = dataverse_key(table)
            .iter()
            .map(|name| match column(table, name).map(|column| column.kind) {
                Some(ColumnKind::Lookup) => format!("_{name}_value"),
                _ => name.clone(),
            })
            .collect::<Vec<_>>();
        for row in rows {
            let id = row.get(&id_property).and_then(Value::as_str).and_then(|id| Uuid::parse_str(id).ok());
            let parts = properties.iter().map(|name| row.get(name).map(plain_text)).collect::<Option<Vec<_>>>();
            if let (Some(id), Some(parts)) = (id, parts) {
                self.by_key.insert((set.to_owned(), canonical(&parts)), id);
            }
        }
    }

    /// The id behind a name.
    pub fn id_of(&self, name: &RowName) -> Result<Uuid, Missing> {
        if let Some(id) = name.id {
            return Ok(id);
        }
        let parts = name
            .key
            .iter()
            .map(|part| match part {
                KeyPart::Text(text) => Ok(text.clone()),
                KeyPart::Row(row) => self.id_of(row).map(|id| id.to_string()),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let key = (name.set.clone(), canonical(&parts));
        self.by_key.get(&key).copied().ok_or_else(|| Missing(name.clone()))
    }
}

/// Neither case nor trailing blanks count.
fn canonical(parts: &[String]) -> String {
    parts.iter().map(|part| part.trim_end().to_lowercase()).collect::<Vec<_>>().join("\u{1f}")
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Values and references of a Dataverse row.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    pub values: Row,
    /// By navigation property; `None` empties the lookup.
    pub binds: Vec<(String, Option<RowName>)>,
}

/// One map with both of its tables.
#[derive(Clone, Copy)]
pub(super) struct Translation<'a> {
    pub map: &'a DemoMap,
    pub tables: &'a Tables,
    pub finops: &'a TableDefinition,
    pub dataverse: &'a TableDefinition,
}

impl<'a> Translation<'a> {
    pub fn new(map: &'a DemoMap, tables: &'a Tables) -> Option<Self> {
        Some(Self {
            map,
            tables,
            finops: tables.finops_table(map.facts.finops_collection)?,
            dataverse: tables.dataverse_table(map.facts.dataverse_set)?,
        })
    }

    /// The whole row, to be created.
    pub fn new_row(&self, row: &Row) -> Columns {
        let mut columns = Columns::default();
        for field in self.map.fields_to_dataverse() {
            self.add(field, row, true, &mut columns);
        }
        if let Some(company) = company_column(self.dataverse) {
            let name = self.company(row);
            columns.binds.push((navigation(company, "cdm_company"), Some(name)));
        }
        columns
    }

    /// Only the columns that these properties of `row` are mapped to.
    pub fn changed(&self, row: &Row, changes: &Row) -> Columns {
        let mut columns = Columns::default();
        let mut after = row.clone();
        after.extend(changes.clone());
        for field in self.map.fields_to_dataverse() {
            let Some(finops) = &field.finops else { continue };
            if changes.keys().any(|name| name.eq_ignore_ascii_case(finops)) {
                self.add(field, &after, false, &mut columns);
            }
        }
        columns
    }

    fn add(&self, field: &FieldMapping, row: &Row, creating: bool, columns: &mut Columns) {
        let Some(path) = &field.dataverse else { return };
        let Some(target) = column(self.dataverse, &path.column) else { return };
        let value = match &field.finops {
            Some(name) => self.finops_value(name, row),
            None => Value::Null,
        };
        let value = transformed(&field.transforms, value);
        match &path.reference {
            Reference::None => match column_value(target, &value) {
                Value::Null if creating => {}
                value => {
                    columns.values.insert(path.column.clone(), value);
                }
            },
            Reference::Path(_) => {
                let Some(set) = &field.related_set else { return };
                let text = plain_text(&value);
                let table = self.tables.dataverse_table(set).map(|table| table.name.as_str()).unwrap_or_default();
                let property = navigation(target, table);
                if !text.is_empty() {
                    columns.binds.push((property, Some(self.name_of(set, &text, row))));
                } else if !creating {
                    columns.binds.push((property, None));
                }
            }
            Reference::ByTable(_) => {}
        }
    }

    /// A property of the row by its name in the map, or what F&O has in its place.
    fn finops_value(&self, name: &str, row: &Row) -> Value {
        let Some(own) = column(self.finops, name) else { return Value::Null };
        row.get(&own.name).cloned().unwrap_or_else(|| finops_empty(own))
    }

    /// The natural key of the row itself.
    pub fn own_name(&self, row: &Row) -> RowName {
        let key = dataverse_key(self.dataverse)
            .iter()
            .map(|name| {
                let company = company_column(self.dataverse).is_some_and(|company| company.name == *name);
                if company {
                    return KeyPart::Row(Box::new(self.company(row)));
                }
                let field = self.map.leg().fields.iter().find(|field| {
                    field.finops.is_some() && field.dataverse.as_ref().is_some_and(|path| path.column == *name)
                });
                let value = field.and_then(|field| field.finops.as_deref()).map(|own| self.finops_value(own, row));
                let text = value.as_ref().map(plain_text).unwrap_or_default();
                match field.and_then(|field| field.related_set.as_deref()) {
                    Some(set) => KeyPart::Row(Box::new(self.name_of(set, &text, row))),
                    None => KeyPart::Text(text),
                }
            })
            .collect();
        RowName { set: self.dataverse.set.clone(), key, id: None }
    }

    fn company(&self, row: &Row) -> RowName {
        let company = row.get("dataAreaId").map(plain_text).unwrap_or_default();
        RowName { set: "cdm_companies".to_owned(), key: vec![KeyPart::Text(company)], id: None }
    }

    /// The name of a row that `row` refers to by one value, in its own company where the table has companies.
    fn name_of(&self, set: &str, value: &str, row: &Row) -> RowName {
        let table = self.tables.dataverse_table(set);
        let company = table.and_then(company_column).map(|column| column.name.as_str());
        let key = table
            .map(dataverse_key)
            .unwrap_or_default()
            .iter()
            .map(|name| {
                if Some(name.as_str()) == company {
                    KeyPart::Row(Box::new(self.company(row)))
                } else {
                    KeyPart::Text(value.to_owned())
                }
            })
            .collect();
        RowName { set: set.to_owned(), key, id: None }
    }
}

fn navigation(column: &ColumnDefinition, table: &str) -> String {
    let target = column.targets.iter().find(|target| target.table == table);
    target.and_then(|target| target.navigation_property.clone()).unwrap_or_else(|| column.name.clone())
}

fn transformed(transforms: &[Transform], mut value: Value) -> Value {
    for transform in transforms {
        match transform {
            Transform::Default { value: default } => {
                if plain_text(&value).is_empty() {
                    value = Value::from(default.as_str());
                }
            }
            Transform::ValueMap { pairs, .. } => {
                let text = plain_text(&value);
                let found = pairs.iter().find(|(finops, _)| finops.eq_ignore_ascii_case(&text));
                value = found.map_or(Value::Null, |(_, dataverse)| Value::from(dataverse.as_str()));
            }
            Transform::Truncate { length } => {
                let text = plain_text(&value);
                value = Value::from(text.chars().take(*length as usize).collect::<String>());
            }
        }
    }
    value
}

/// The value as the Web API spells it for that column; the empty values of F&O are null.
fn column_value(column: &ColumnDefinition, value: &Value) -> Value {
    let text = plain_text(value);
    if text.is_empty() {
        return Value::Null;
    }
    match column.kind {
        ColumnKind::Boolean => Value::from(text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("yes")),
        ColumnKind::Choice | ColumnKind::Enum | ColumnKind::Int | ColumnKind::Bigint => {
            text.parse::<i64>().map_or(Value::Null, Value::from)
        }
        ColumnKind::Decimal | ColumnKind::Money | ColumnKind::Double => match value {
            Value::Number(_) => value.clone(),
            _ => text.parse().map_or(Value::Null, super::rows::decimal_json),
        },
        ColumnKind::Date | ColumnKind::Datetime if text.starts_with("1900-01-01") => Value::Null,
        _ => Value::from(text),
    }
}
