//! Rows of the user's, from JSON to typed rows and back.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail};
use dualwright_core::value::{parse_date, parse_timestamp};
use dualwright_core::{Column, Kind, Value};
use dualwright_sandbox::Description;
use rust_decimal::Decimal;
use serde_json::{Map, Value as Json};

use super::output;

/// Kinds of columns that are known before the values are seen.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Said on the command line.
    said: BTreeMap<String, Kind>,
    /// Accepted by the plugin, the preferred one first.
    accepted: BTreeMap<String, Vec<Kind>>,
}

impl Wants {
    /// `said` are `name:kind`.
    pub(super) fn of(description: &Description, said: &[String]) -> anyhow::Result<Self> {
        let mut wants = Self::default();
        for column in description.columns.iter().filter(|column| column.table.is_empty() && !column.kinds.is_empty()) {
            wants.accepted.insert(column.name.to_lowercase(), column.kinds.clone());
        }
        for pair in said {
            let (name, kind) = pair.rsplit_once(':').with_context(|| format!("--column {pair} is not NAME:KIND"))?;
            let Some(known) = kinds().find(|known| kind_name(*known) == kind) else {
                let names = kinds().map(kind_name).collect::<Vec<_>>();
                bail!("{}", output::there_is_no("kind", kind, names.iter().map(String::as_str)));
            };
            wants.said.insert(name.to_lowercase(), known);
        }
        Ok(wants)
    }

    fn kind(&self, name: &str, values: &[&Json]) -> anyhow::Result<Kind> {
        let name = name.to_lowercase();
        if let Some(kind) = self.said.get(&name) {
            return Ok(*kind);
        }
        let fits = |kind: &Kind| values.iter().all(|value| value_of(*kind, value).is_some());
        match self.accepted.get(&name) {
            Some(kinds) => Ok(kinds.iter().copied().find(fits).unwrap_or(kinds[0])),
            None => [Kind::Boolean, Kind::Int64, Kind::Decimal, Kind::Text]
                .into_iter()
                .find(|kind| values.iter().all(|value| looks_like(*kind, value)))
                .with_context(|| {
                    format!("column {name} holds values of several kinds; say which with --column {name}:KIND")
                }),
        }
    }
}

/// Typed rows.
#[derive(Debug)]
pub(super) struct Rows {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    /// Reads a list of objects. Columns are in the order in which they occur; a key that a row lacks is absent in it.
    pub(super) fn read(file: &Path, wants: &Wants) -> anyhow::Result<Self> {
        let objects = objects(file)?;
        let objects = objects
            .into_iter()
            .enumerate()
            .map(|(row, object)| object.with_context(|| format!("{}: row {} is null", file.display(), row + 1)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Self::of(&objects, wants).with_context(|| file.display().to_string())
    }

    fn of(objects: &[Map<String, Json>], wants: &Wants) -> anyhow::Result<Self> {
        let mut names: Vec<&str> = Vec::new();
        for name in objects.iter().flat_map(Map::keys) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let columns = names
            .into_iter()
            .map(|name| {
                let values = objects.iter().filter_map(|object| object.get(name)).collect::<Vec<_>>();
                Ok(Column::new(name, wants.kind(name, &values)?))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let rows = typed(&columns, objects)?;
        Ok(Self { columns, rows })
    }

    /// The company of each row: its dataAreaId, or else `company`.
    pub(super) fn companies(&self, company: &str) -> Vec<String> {
        let column = self.columns.iter().position(|column| column.name.eq_ignore_ascii_case("dataAreaId"));
        let own = |row: &Vec<Value>| column.and_then(|column| row[column].as_text()).map(str::to_lowercase);
        self.rows.iter().map(|row| own(row).unwrap_or_else(|| company.to_owned())).collect()
    }
}

/// Rows that stand beside others, in the same columns and the same order; null for no row.
pub(super) fn read_beside(file: &Path, beside: &Rows) -> anyhow::Result<Vec<Option<Vec<Value>>>> {
    let objects = objects(file)?;
    if objects.len() != beside.rows.len() {
        bail!(
            "{} has {} rows, and there are {}; null stands for no row",
            file.display(),
            objects.len(),
            beside.rows.len()
        );
    }
    let names = beside.columns.iter().map(|column| &*column.name).collect::<Vec<_>>();
    if let Some(name) = objects.iter().flatten().flat_map(Map::keys).find(|name| !names.contains(&name.as_str())) {
        bail!("{}: {}", file.display(), output::there_is_no("column", name, names));
    }
    let row = |object: Option<Map<String, Json>>| match object {
        None => Ok(None),
        Some(object) => Ok(typed(&beside.columns, &[object])?.pop()),
    };
    objects.into_iter().map(row).collect::<anyhow::Result<_>>().with_context(|| file.display().to_string())
}

fn objects(file: &Path) -> anyhow::Result<Vec<Option<Map<String, Json>>>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    }
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a JSON list of objects, one for each row", file.display()))
}

fn typed(columns: &[Column], objects: &[Map<String, Json>]) -> anyhow::Result<Vec<Vec<Value>>> {
    let row = |(number, object): (usize, &Map<String, Json>)| {
        let cell = |column: &Column| match object.get(&*column.name) {
            None => Ok(Value::Absent),
            Some(json) => value_of(column.kind, json).with_context(|| {
                format!("row {}, column {}: {json} is not a {}", number + 1, column.name, kind_name(column.kind))
            }),
        };
        columns.iter().map(cell).collect::<anyhow::Result<Vec<_>>>()
    };
    objects.iter().enumerate().map(row).collect()
}

fn looks_like(kind: Kind, json: &Json) -> bool {
    match (kind, json) {
        (_, Json::Null) | (Kind::Boolean, Json::Bool(_)) | (Kind::Text, Json::String(_)) => true,
        (Kind::Int64 | Kind::Decimal, Json::Number(_)) => value_of(kind, json).is_some(),
        _ => false,
    }
}

fn value_of(kind: Kind, json: &Json) -> Option<Value> {
    Some(match (kind, json) {
        (_, Json::Null) => Value::Null,
        (Kind::Boolean, Json::Bool(value)) => Value::Boolean(*value),
        (Kind::Int64, Json::Number(number)) => Value::Int(number.as_i64()?),
        (Kind::Float64, Json::Number(number)) => Value::Float(number.as_f64()?),
        (Kind::Decimal | Kind::Money, Json::Number(number)) => Value::Decimal(decimal(&number.to_string())?),
        (Kind::Decimal | Kind::Money, Json::String(digits)) => Value::Decimal(decimal(digits)?),
        (Kind::Text | Kind::Choice | Kind::MultiChoice | Kind::Json, Json::String(text)) => Value::text(text),
        (Kind::Choice, Json::Number(option)) => Value::text(option.to_string()),
        (Kind::Json, other) => Value::text(other.to_string()),
        (Kind::Timestamp, Json::String(text)) => Value::Timestamp(parse_timestamp(text)?),
        (Kind::Date, Json::String(text)) => Value::Date(parse_date(text)?),
        (Kind::Guid | Kind::Lookup, Json::String(text)) => Value::Guid(uuid::Uuid::parse_str(text).ok()?),
        _ => return None,
    })
}

fn decimal(digits: &str) -> Option<Decimal> {
    Decimal::from_str(digits).or_else(|_| Decimal::from_scientific(digits)).ok()
}

/// A value as JSON; a number that JSON readers would round is a text.
pub(super) fn json_of(value: &Value) -> Json {
    match value {
        Value::Absent | Value::Null => Json::Null,
        Value::Boolean(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Decimal(value) => {
            let digits = value.normalize().to_string();
            let number = serde_json::from_str::<Json>(&digits).ok();
            number.filter(|number| number.to_string().trim_end_matches(".0") == digits).unwrap_or(Json::from(digits))
        }
        other => Json::from(other.to_string()),
    }
}

/// A row as an object, without its absent cells.
pub(super) fn object_of(columns: &[Column], row: &[Value]) -> Map<String, Json> {
    let cells = columns.iter().zip(row).filter(|(_, value)| !value.is_absent());
    cells.map(|(column, value)| (column.name.to_string(), json_of(value))).collect()
}

fn kinds() -> impl Iterator<Item = Kind> {
    (1..=14).filter_map(Kind::from_code).filter(|kind| *kind != Kind::Bytes)
}

/// The name of a kind as `--column` takes it.
pub(super) fn kind_name(kind: Kind) -> String {
    let name = format!("{kind:?}");
    let mut out = String::with_capacity(name.len() + 1);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(json: &str, said: &[(&str, Kind)], accepted: &[(&str, &[Kind])]) -> anyhow::Result<Rows> {
        let wants = Wants {
            said: said.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
            accepted: accepted.iter().map(|(name, kinds)| ((*name).to_owned(), kinds.to_vec())).collect(),
        };
        Rows::of(&serde_json::from_str::<Vec<Map<String, Json>>>(json).expect("JSON"), &wants)
    }

    #[test]
    fn kinds_are_said_wanted_or_seen() {
        use Kind::{Boolean, Decimal, Int64, Money, Text, Timestamp};
        for (json, said, accepted, kind) in [
            (r#"[{"a": "x"}]"#, &[][..], &[][..], Text),
            (r#"[{"a": 1}, {"a": null}, {}]"#, &[], &[], Int64),
            (r#"[{"a": 1}, {"a": 1.5}]"#, &[], &[], Decimal),
            (r#"[{"a": true}]"#, &[], &[], Boolean),
            (r#"[{"a": null}]"#, &[], &[], Boolean),
            (r#"[{"a": 1}]"#, &[], &[("a", &[Text, Money][..])], Money),
            (r#"[{"A": "2024-01-02"}]"#, &[], &[("a", &[Timestamp])], Timestamp),
            (r#"[{"a": 1}]"#, &[("a", Decimal)], &[("a", &[Money])], Decimal),
        ] {
            let rows = rows(json, said, accepted).unwrap_or_else(|error| panic!("{json}: {error:#}"));
            assert_eq!(rows.columns[0].kind, kind, "{json}");
        }
        let mixed = rows(r#"[{"a": 1}, {"a": "x"}]"#, &[], &[]).expect_err("mixed");
        assert!(format!("{mixed:#}").contains("--column a:KIND"), "{mixed:#}");
        let wrong = rows(r#"[{"a": "x"}, {"a": "soon"}]"#, &[("a", Kind::Date)], &[]).expect_err("no date");
        assert!(format!("{wrong:#}").contains("row 1, column a: \"x\" is not a date"), "{wrong:#}");
    }

    #[test]
    fn rows_survive_the_round_trip() {
        let json = r#"[{"t":"x","n":12,"d":10.25,"big":"12345678901234567890.12","b":false,"none":null},{"d":1}]"#;
        let rows = rows(json, &[("big", Kind::Money)], &[]).expect("rows");
        let back = rows.rows.iter().map(|row| object_of(&rows.columns, row)).collect::<Vec<_>>();
        assert_eq!(serde_json::to_value(back).expect("JSON"), serde_json::from_str::<Json>(json).expect("JSON"));
    }

    #[test]
    fn names_of_kinds_are_those_of_the_help() {
        let names = kinds().map(kind_name).collect::<Vec<_>>().join(", ");
        let wanted =
            "boolean, int64, float64, decimal, text, timestamp, date, guid, json, choice, multi-choice, money, lookup";
        assert_eq!(names, wanted);
    }
}
