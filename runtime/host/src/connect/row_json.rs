//! Rows as the two systems write them in JSON, and rows as positional values.
//!
//! Owns the spelling of a cell on the wire; knows nothing of maps or of HTTP. Decimals are read from the digits that
//! were sent, never through a binary float.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use dualwright_core::value::{format_date, format_timestamp, parse_date, parse_timestamp};
use dualwright_core::{Code, Column, Fault, Kind, Schema, SystemKind, Value};
use dualwright_odata::escape;
use rust_decimal::Decimal;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

/// How the rows of one table are spelled.
#[derive(Debug)]
pub struct RowShape {
    schema: Arc<Schema>,
    /// One per column.
    properties: Vec<String>,
    members: Vec<Member>,
    by_property: HashMap<String, usize>,
}

/// A column in the body of a write, as far as it is the same for every row.
#[derive(Debug)]
pub(super) struct Member {
    /// `"name":`
    pub name: Vec<u8>,
    /// Of a lookup: one for each set that it may lead to.
    pub binds: Vec<Bind>,
}

/// A lookup in the body of a write, up to the id.
#[derive(Debug)]
pub(super) struct Bind {
    pub set: Arc<str>,
    /// `"navigation@odata.bind":`
    pub name: Vec<u8>,
    /// `"/set(`
    pub link: Vec<u8>,
}

impl Member {
    fn new(column: &Column) -> Self {
        let name = |text: &str| {
            let mut name = Vec::with_capacity(text.len() + 3);
            encode_text(&mut name, text);
            name.push(b':');
            name
        };
        let targets = column.lookup.iter().flat_map(|lookup| &lookup.targets);
        let binds = targets.map(|target| {
            let mut link = Vec::new();
            encode_text(&mut link, &format!("/{}(", target.set));
            link.pop();
            Bind {
                set: Arc::clone(&target.set),
                name: name(&format!("{}@odata.bind", target.navigation_property)),
                link,
            }
        });
        Self { name: name(&column.name), binds: binds.collect() }
    }
}

/// A row as it was read: its values in the order of the schema, and its version when the system sent one.
#[derive(Debug, Clone)]
pub struct DecodedRow {
    pub values: Vec<Value>,
    pub etag: Option<String>,
}

impl RowShape {
    #[must_use]
    pub fn new(schema: Arc<Schema>) -> Self {
        let properties = (0..schema.columns().len()).map(|index| property_name(&schema, index)).collect::<Vec<_>>();
        let by_property = properties.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let members = schema.columns().iter().map(Member::new).collect();
        Self { schema, properties, members, by_property }
    }

    /// How a column begins in the body of a write.
    pub(super) fn member(&self, column: usize) -> &Member {
        &self.members[column]
    }

    /// The column of a property. Systems mostly send them in one order, so the one that comes `next` is tried first.
    fn column_of(&self, name: &str, next: usize) -> Option<usize> {
        match self.properties.get(next) {
            Some(property) if property == name => Some(next),
            _ => self.by_property.get(name).copied(),
        }
    }

    /// The `$select` list of every column of the schema.
    #[must_use]
    pub fn select(&self) -> String {
        self.properties.join(",")
    }

    /// Reads one row. Properties that the schema does not have are passed over; a cell of the wrong type is a fault
    /// that names the column.
    pub fn decode(&self, json: &str) -> Result<DecodedRow, Fault> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        RowSeed { shape: self }.deserialize(&mut deserializer).map_err(|error| {
            Fault::new(Code::WrongType, format!("a row of {} could not be read: {error}", self.schema.set))
        })?
    }
}

/// The property that carries a column: a lookup travels as `_name_value` (reference 7.2).
#[must_use]
pub(super) fn property_name(schema: &Schema, index: usize) -> String {
    let column = schema.column(index);
    if schema.system == SystemKind::Dataverse && column.kind == Kind::Lookup {
        format!("_{}_value", column.name)
    } else {
        column.name.to_string()
    }
}

struct RowSeed<'a> {
    shape: &'a RowShape,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Result<DecodedRow, Fault>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Result<DecodedRow, Fault>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let schema = &self.shape.schema;
        let mut values = vec![Value::Absent; schema.columns().len()];
        let mut etag = None;
        let mut fault = None;
        let mut next = 0;
        while let Some(property) = map.next_key_seed(PropertySeed { shape: self.shape, next })? {
            match property {
                Property::Column(index) => {
                    next = index + 1;
                    let raw = map.next_value::<&RawValue>()?.get();
                    match decode_cell(schema.column(index).kind, raw) {
                        Some(value) => values[index] = value,
                        None if fault.is_none() => {
                            let column = schema.column(index);
                            let what = format!("a {:?} was expected in a row of {}", column.kind, schema.set);
                            fault = Some(Fault::new(Code::WrongType, what).column(&column.name));
                        }
                        None => {}
                    }
                }
                Property::Etag => etag = map.next_value::<Option<String>>()?,
                Property::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fault.map_or(Ok(DecodedRow { values, etag }), Err))
    }
}

/// What a property of a row means to us.
enum Property {
    Column(usize),
    Etag,
    Other,
}

/// Recognises a property without keeping its name.
struct PropertySeed<'a> {
    shape: &'a RowShape,
    next: usize,
}

impl<'de> DeserializeSeed<'de> for PropertySeed<'_> {
    type Value = Property;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Property, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for PropertySeed<'_> {
    type Value = Property;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a property")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Property, E> {
        Ok(match self.shape.column_of(name, self.next) {
            Some(index) => Property::Column(index),
            None if name == "@odata.etag" => Property::Etag,
            None => Property::Other,
        })
    }
}

/// One cell from its JSON text; `None` when the text is not of that kind.
fn decode_cell(kind: Kind, raw: &str) -> Option<Value> {
    if raw == "null" {
        return Some(Value::Null);
    }
    Some(match kind {
        Kind::Boolean => Value::Boolean(match raw {
            "true" => true,
            "false" => false,
            _ => return None,
        }),
        Kind::Int64 => Value::Int(match raw.parse() {
            Ok(number) => number,
            // A bigint may travel as a string (OData IEEE754Compatible).
            Err(_) => text_of(raw)?.parse().ok()?,
        }),
        Kind::Float64 => Value::Float(raw.parse().ok()?),
        Kind::Decimal | Kind::Money => Value::Decimal(parse_decimal(raw.trim_matches('"'))?),
        Kind::Text | Kind::Choice | Kind::MultiChoice | Kind::Json => match text_of(raw) {
            Some(text) => Value::text(text),
            // A number where text is expected keeps its spelling: an option set may be declared as text.
            None if raw.starts_with(|c: char| c.is_ascii_digit() || c == '-') => Value::text(raw),
            None => return None,
        },
        Kind::Timestamp => Value::Timestamp(parse_timestamp(&text_of(raw)?)?),
        Kind::Date => Value::Date(parse_date(text_of(raw)?.get(..10)?)?),
        Kind::Guid | Kind::Lookup => Value::Guid(Uuid::parse_str(&text_of(raw)?).ok()?),
        Kind::Bytes => return None,
    })
}

fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

fn parse_decimal(text: &str) -> Option<Decimal> {
    Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).ok()
}

/// The cell as an OData literal, for keys and filters.
#[must_use]
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => escape::quote(text),
        Value::Absent | Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

/// Writes one cell as JSON. An absent cell is the caller's business and is written as null.
pub(super) fn encode_cell(out: &mut Vec<u8>, kind: Kind, value: &Value) {
    match value {
        Value::Absent | Value::Null => out.extend_from_slice(b"null"),
        Value::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Int(value) => write_display(out, value),
        Value::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => write_display(out, number),
            None => out.extend_from_slice(b"null"),
        },
        Value::Decimal(value) => write_display(out, value),
        Value::Text(text) => encode_text(out, text),
        Value::Timestamp(micros) if kind == Kind::Date => {
            encode_text(out, format_timestamp(*micros).get(..10).unwrap_or_default());
        }
        Value::Timestamp(micros) => encode_text(out, &format_timestamp(*micros)),
        Value::Date(days) if kind == Kind::Timestamp => encode_text(out, &format!("{}T00:00:00Z", format_date(*days))),
        Value::Date(days) => encode_text(out, &format_date(*days)),
        Value::Guid(id) => {
            out.push(b'"');
            encode_id(out, *id);
            out.push(b'"');
        }
        Value::Bytes(_) => out.extend_from_slice(b"null"),
    }
}

fn write_display(out: &mut Vec<u8>, value: impl fmt::Display) {
    write!(out, "{value}").expect("writing to memory cannot fail");
}

/// Writes an id in its usual spelling, without quotes.
pub(super) fn encode_id(out: &mut Vec<u8>, id: Uuid) {
    out.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
}

/// Writes a JSON string with its quotes.
pub(super) fn encode_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualwright_core::Column;

    fn shape() -> RowShape {
        let columns = vec![
            Column::new("name", Kind::Text),
            Column::new("creditlimit", Kind::Money),
            Column::new("msdyn_company", Kind::Lookup),
            Column::new("createdon", Kind::Timestamp),
            Column::new("customertypecode", Kind::Int64),
        ];
        RowShape::new(Arc::new(Schema::new(SystemKind::Dataverse, "account", "accounts", columns)))
    }

    #[test]
    fn a_row_is_read_in_the_order_of_its_schema() {
        let row = shape()
            .decode(r#"{"@odata.etag":"W/\"7\"","creditlimit":12345678901234567.8901,"other":[1,{}],"name":"A \"q\"\n😀","_msdyn_company_value":null,"createdon":"2024-01-02T03:04:05Z"}"#)
            .expect("decodes");
        assert_eq!(row.etag.as_deref(), Some("W/\"7\""));
        assert_eq!(row.values[0], Value::text("A \"q\"\n😀"));
        assert_eq!(row.values[1], Value::Decimal(Decimal::from_str("12345678901234567.8901").expect("decimal")));
        assert_eq!(row.values[2], Value::Null);
        assert_eq!(row.values[4], Value::Absent);
    }

    #[test]
    fn a_cell_of_the_wrong_type_names_its_column_and_not_its_value() {
        let fault = shape().decode(r#"{"customertypecode":"secret"}"#).expect_err("is refused");
        assert_eq!(fault.code, Code::WrongType);
        assert_eq!(fault.column.as_deref(), Some("customertypecode"));
        assert!(!fault.to_string().contains("secret"));
        assert!(shape().decode("[1]").is_err());
        assert!(shape().decode("{\"name\":").is_err());
    }
}
