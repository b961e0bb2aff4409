//! Tables as a person writes them down: names, columns, keys.
//!
//! Owns the JSON shape and its checks; knows neither storage nor HTTP.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

/// A file of definitions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableFile {
    pub tables: Vec<TableDefinition>,
    /// Enumerations that F&O columns name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enums: Vec<EnumDefinition>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableDefinition {
    /// Logical name (Dataverse) or public entity name (F&O).
    pub name: String,
    /// Entity set or public collection: what stands in URLs.
    pub set: String,
    /// Display name of the data entity, as a table map writes it (F&O).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Name of the data entity in the application's own code (F&O).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_name: Option<String>,
    /// The id column (Dataverse); the table's name with `id` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_name: Option<String>,
    /// Key columns (F&O).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// Further unique keys (Dataverse).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternate_keys: Vec<KeyDefinition>,
    /// `Master`, `Transaction`, `Reference`, `Parameter` or `Document` (F&O); `Master` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Its rows can only be read (F&O).
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// How its publisher writes the name: `new_BankAccount` (Dataverse). Derived from the name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_name: Option<String>,
    /// What people read, for one row and for many (Dataverse).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_collection_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who owns its rows (Dataverse); decides which columns of the system it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,
    /// Changes of its rows cannot be asked for (Dataverse).
    #[serde(default, skip_serializing_if = "is_false")]
    pub untracked: bool,
    /// The relationship whose pairs its rows are (Dataverse).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub many_to_many: Option<ManyToManyDefinition>,
    pub columns: Vec<ColumnDefinition>,
}

/// Who owns the rows of a Dataverse table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// A user or a team.
    User,
    Organization,
    /// A business unit: users and teams themselves.
    Business,
    /// Nobody: tables of the system, and those that join two others.
    None,
}

/// A relationship in which a row of either side has many of the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManyToManyDefinition {
    pub name: String,
    pub sides: [SideDefinition; 2],
}

/// One side of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SideDefinition {
    /// Logical name of the table.
    pub table: String,
    /// The column of the intersect table with its ids.
    pub column: String,
    /// What this side calls the rows of the other.
    pub navigation_property: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyDefinition {
    pub name: String,
    /// Logical names; a lookup by its own name, not by `_name_value`.
    pub columns: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Its index could not be built because rows were in the way; nothing is held apart by it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub failed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ColumnDefinition {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: ColumnKind,
    /// Longest text, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// Digits after the point; more are rounded away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<serde_json::Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<serde_json::Number>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Options of a choice, or members of an enumeration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<OptionDefinition>,
    /// The enumeration of an F&O column, or the global choice of a Dataverse one.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    pub enumeration: Option<String>,
    /// Where a lookup may point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetDefinition>,
    /// Where the value comes from when a row is created without it (F&O).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_sequence: Option<NumberSequenceDefinition>,
    /// How its publisher writes the name: `new_BankName` (Dataverse). Derived from the name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_name: Option<String>,
    /// What people read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What a text holds (`Email`, `Url`, `Phone`), or how much of a date is shown (`DateOnly`), in Dataverse's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// What the time of day of a datetime column means (Dataverse).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<DateBehavior>,
    /// It can be written, and never read (Dataverse).
    #[serde(default, skip_serializing_if = "is_false")]
    pub secret: bool,
    /// Only when a row is created it may be given (Dataverse).
    #[serde(default, skip_serializing_if = "is_false")]
    pub create_only: bool,
}

/// What a datetime column holds (Dataverse).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DateBehavior {
    /// A moment, shown in the zone of whoever reads it.
    UserLocal,
    /// A day.
    DateOnly,
    /// What the clock showed, wherever that was.
    TimeZoneIndependent,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    #[default]
    Text,
    Memo,
    Int,
    Bigint,
    Decimal,
    Money,
    Double,
    Boolean,
    Datetime,
    Date,
    Guid,
    /// An option, by its number (Dataverse).
    Choice,
    /// Any number of options: `"1,3"` (Dataverse).
    MultiChoice,
    Lookup,
    /// A member of an enumeration, by its name (F&O).
    Enum,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OptionDefinition {
    pub name: String,
    pub value: i64,
    /// The state that a status reason belongs to (Dataverse).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetDefinition {
    /// Logical name of the table.
    pub table: String,
    /// What `@odata.bind` names; the column's own name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub navigation_property: Option<String>,
    /// The key column that holds the same value (F&O): a value that no row of the target has is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Name of the relationship (Dataverse).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relationship: Option<String>,
    /// What the target calls the rows that point to it (Dataverse); the relationship's name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// What becomes of the row when its target is deleted (Dataverse).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<DeleteBehavior>,
    /// Further columns that have to hold the same value in one row of the target (F&O): a key of several fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<ColumnPair>,
}

/// Two columns that hold the same value in rows that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ColumnPair {
    /// In the row that refers.
    pub column: String,
    /// In the row that is referred to.
    pub related: String,
}

/// A number sequence of F&O: every company counts for itself, or all together where the table knows no company.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NumberSequenceDefinition {
    /// `C-######`: the number stands where the number signs are, filled up with zeros. Everything else is kept.
    pub format: String,
    /// The first number; 1 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// A number that was drawn for a row that was refused is given to the next one. Otherwise it is lost.
    #[serde(default, skip_serializing_if = "is_false")]
    pub continuous: bool,
}

/// What becomes of rows whose target is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeleteBehavior {
    /// Their lookup is emptied.
    RemoveLink,
    /// They keep the target from being deleted.
    Restrict,
    /// They are deleted with it.
    Cascade,
    NoCascade,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnumDefinition {
    pub name: String,
    pub members: Vec<OptionDefinition>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Reads a file of definitions. Every enumeration column gets the members of its enumeration as its options, so that
/// the tables can be passed on without the rest of the file.
pub fn read_tables(json: &str) -> anyhow::Result<TableFile> {
    let mut file: TableFile = serde_json::from_str(json).context("the table definitions cannot be read")?;
    let enums = file.enums.iter().map(|one| (one.name.as_str(), one.members.as_slice())).collect::<HashMap<_, _>>();
    for table in &mut file.tables {
        for column in &mut table.columns {
            if !column.options.is_empty() {
                continue;
            }
            if let Some(name) = &column.enumeration {
                column.options = match enums.get(name.as_str()) {
                    Some(members) => members.to_vec(),
                    None if name == NO_YES => no_yes(),
                    None => bail!("{}.{}: there is no enumeration {name}", table.name, column.name),
                };
            }
        }
    }
    Ok(file)
}

/// The enumeration that F&O has for booleans.
pub(crate) const NO_YES: &str = "NoYes";

pub(crate) fn no_yes() -> Vec<OptionDefinition> {
    [("No", 0), ("Yes", 1)].map(|(name, value)| OptionDefinition { name: name.into(), value, state: None }).to_vec()
}

impl TableDefinition {
    /// Whether a column holds the ids of one side of a relationship with many rows on either.
    pub(crate) fn joins(&self, column: &str) -> bool {
        self.many_to_many.as_ref().is_some_and(|own| own.sides.iter().any(|side| side.column == column))
    }

    /// Refuses what cannot work, naming the table and the column.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let table = &self.name;
        ensure!(is_name(&self.name) && is_name(&self.set), "table {table:?}: name and set have to be plain names");
        ensure!(self.columns.len() <= COLUMNS_MAX, "table {table}: more than {COLUMNS_MAX} columns");
        let mut names = HashSet::new();
        for column in &self.columns {
            ensure!(is_name(&column.name), "table {table}: {:?} is not a column name", column.name);
            ensure!(names.insert(&column.name), "table {table}: column {} stands there twice", column.name);
            if column.kind == ColumnKind::Enum {
                ensure!(!column.options.is_empty(), "{table}.{}: an enumeration needs members", column.name);
            }
            if let Some(sequence) = &column.number_sequence {
                ensure!(
                    sequence.format.matches('#').count() > 0 && column.kind == ColumnKind::Text,
                    "{table}.{}: a number sequence needs a text column and a format with number signs",
                    column.name
                );
            }
            ensure!(column.precision.is_none_or(|digits| digits <= 16), "{table}.{}: precision above 16", column.name);
        }
        Ok(())
    }

    /// This definition with what `newer` adds or changes. Columns keep their places: rows are stored by place.
    pub(crate) fn merged(&self, newer: &Self) -> Self {
        let mut merged = Self { columns: self.columns.clone(), ..newer.clone() };
        if merged.alternate_keys.is_empty() {
            merged.alternate_keys.clone_from(&self.alternate_keys);
        }
        for column in &newer.columns {
            match merged.columns.iter_mut().find(|own| own.name == column.name) {
                Some(own) => *own = column.clone(),
                None => merged.columns.push(column.clone()),
            }
        }
        merged
    }
}

/// Dataverse and F&O tables stay below it; a longer one is a mistake.
const COLUMNS_MAX: usize = 2_000;

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_its_enumerations_reach_the_columns() {
        let file = read_tables(
            r#"{"tables":[{"name":"Thing","set":"Things","key":["Id"],"columns":[{"name":"Id","type":"text","maxLength":5},
                {"name":"Is","type":"enum","enum":"NoYes"},{"name":"Kind","type":"enum","enum":"K"}]}],
                "enums":[{"name":"K","members":[{"name":"A","value":3}]}]}"#,
        )
        .expect("reads");
        assert_eq!(file.tables[0].columns[1].options, no_yes());
        assert_eq!(file.tables[0].columns[2].options[0].value, 3);
        assert!(
            read_tables(r#"{"tables":[{"name":"T","set":"S","columns":[{"name":"a","type":"enum","enum":"X"}]}]}"#)
                .is_err()
        );
        assert!(read_tables(r#"{"tables":[],"more":1}"#).is_err());
    }

    #[test]
    fn definitions_that_cannot_work_are_refused() {
        let table = |columns: &[(&str, ColumnKind)]| TableDefinition {
            name: "t".into(),
            set: "ts".into(),
            columns: columns
                .iter()
                .map(|(name, kind)| ColumnDefinition { name: (*name).into(), kind: *kind, ..Default::default() })
                .collect(),
            ..Default::default()
        };
        for (columns, fits) in [
            (vec![("a", ColumnKind::Text), ("b", ColumnKind::Lookup)], true),
            (vec![("a", ColumnKind::Text), ("a", ColumnKind::Int)], false),
            (vec![("a b", ColumnKind::Text)], false),
            (vec![("a", ColumnKind::Enum)], false),
        ] {
            assert_eq!(table(&columns).check().is_ok(), fits, "{columns:?}");
        }
    }
}
