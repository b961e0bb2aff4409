//! The content of a row as its system stores it: when two values are the same, and a hash that is equal exactly then.
//!
//! Content is case-sensitive, unlike keys: a corrected spelling is a change. What a system cannot store apart is the
//! same (reference 8.8): trailing blanks, digits beyond the scale, and on F&O an empty value and no value.

use rust_decimal::{Decimal, RoundingStrategy};
use sha2::{Digest, Sha256};

use crate::change::SystemKind;
use crate::schema::{Column, Schema};
use crate::value::{self, Kind, Value};

/// Half of a SHA-256: enough to tell contents of one row apart.
pub type ContentHash = [u8; 16];

/// The hash of these columns of a row.
#[must_use]
pub fn content_hash(schema: &Schema, columns: &[usize], row: &[Value]) -> ContentHash {
    content_hash_of(schema, columns, |index| row.get(index))
}

/// [`content_hash`] of a row that is put together from others: `cell` answers what a column holds, and nothing for one
/// that holds nothing.
#[must_use]
pub fn content_hash_of<'a>(
    schema: &Schema,
    columns: &[usize],
    cell: impl Fn(usize) -> Option<&'a Value>,
) -> ContentHash {
    let mut feed = Feed::default();
    for &index in columns {
        let column = schema.column(index);
        feed.bytes(column.name.as_bytes());
        feed.byte(0x1f);
        Content::of(schema.system, column, cell(index).unwrap_or(&Value::Absent)).write(&mut feed);
        feed.byte(0x1e);
    }
    feed.finish()
}

/// Gathers what is hashed, since a hasher is slow at taking a few bytes at a time.
struct Feed {
    hasher: Sha256,
    gathered: [u8; 512],
    length: usize,
}

impl Default for Feed {
    fn default() -> Self {
        Self { hasher: Sha256::new(), gathered: [0; 512], length: 0 }
    }
}

impl Feed {
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let room = &mut self.gathered[self.length..];
        if let Some(room) = room.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
            return;
        }
        self.hasher.update(&self.gathered[..self.length]);
        self.length = 0;
        self.hasher.update(bytes);
    }

    fn finish(mut self) -> ContentHash {
        self.hasher.update(&self.gathered[..self.length]);
        let digest = self.hasher.finalize();
        let mut hash = ContentHash::default();
        hash.copy_from_slice(&digest[..16]);
        hash
    }
}

/// Whether the system of `schema` stores the same for both.
#[must_use]
pub fn same(schema: &Schema, column: usize, a: &Value, b: &Value) -> bool {
    let column = schema.column(column);
    Content::of(schema.system, column, a) == Content::of(schema.system, column, b)
}

/// A decimal at the scale that a column keeps, rounded as SQL does.
#[must_use]
pub(crate) fn at_scale(number: Decimal, scale: Option<u8>) -> Decimal {
    match scale {
        Some(scale) if number.scale() > u32::from(scale) => {
            number.round_dp_with_strategy(u32::from(scale), RoundingStrategy::MidpointAwayFromZero)
        }
        _ => number,
    }
}

/// What is stored, without what the system does not keep.
#[derive(Debug)]
enum Content<'a> {
    Empty,
    Boolean(bool),
    Number(Decimal),
    Float(f64),
    Text(&'a str),
    /// One option of a choice, in any case.
    Symbol(&'a str),
    Micros(i64),
    Guid(uuid::Uuid),
    Bytes(&'a [u8]),
}

impl PartialEq for Content<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::Boolean(a), Self::Boolean(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Symbol(a), Self::Symbol(b)) => a.eq_ignore_ascii_case(b),
            (Self::Micros(a), Self::Micros(b)) => a == b,
            (Self::Guid(a), Self::Guid(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            _ => false,
        }
    }
}

impl<'a> Content<'a> {
    fn of(system: SystemKind, column: &'a Column, value: &'a Value) -> Self {
        match value {
            Value::Absent | Value::Null => Self::empty(system, column),
            Value::Boolean(value) => Self::Boolean(*value),
            Value::Int(number) => Self::number(Decimal::from(*number), column),
            Value::Decimal(number) => Self::number(*number, column),
            Value::Float(number) if column.kind == Kind::Float64 => Self::Float(*number + 0.0),
            Value::Float(number) => match Decimal::try_from(*number) {
                Ok(number) => Self::number(number, column),
                Err(_) => Self::Float(*number),
            },
            Value::Text(text) => {
                let text = text.trim_end();
                match column.kind {
                    _ if text.is_empty() => Self::empty(system, column),
                    Kind::Choice => Self::Symbol(text),
                    _ => Self::Text(text),
                }
            }
            Value::Timestamp(micros) if column.kind == Kind::Date => {
                Self::micros(system, micros.div_euclid(value::MICROS_PER_DAY) * value::MICROS_PER_DAY)
            }
            Value::Timestamp(micros) => Self::micros(system, *micros),
            Value::Date(days) => Self::micros(system, i64::from(*days) * value::MICROS_PER_DAY),
            Value::Guid(id) if id.is_nil() && system == SystemKind::Finops => Self::Empty,
            Value::Guid(id) => Self::Guid(*id),
            Value::Bytes(bytes) => Self::Bytes(bytes),
        }
    }

    /// F&O has no nulls: what is missing there is the empty value of its kind.
    fn empty(system: SystemKind, column: &'a Column) -> Self {
        if system == SystemKind::Dataverse {
            return Self::Empty;
        }
        match column.kind {
            Kind::Int64 | Kind::Decimal | Kind::Money => Self::Number(Decimal::ZERO),
            Kind::Float64 => Self::Float(0.0),
            Kind::Boolean => Self::Boolean(false),
            Kind::Choice => crate::convert::empty_option(column).map_or(Self::Empty, |symbol| Self::Symbol(symbol)),
            _ => Self::Empty,
        }
    }

    fn number(number: Decimal, column: &Column) -> Self {
        if column.kind == Kind::Float64 {
            return Self::Float(f64::try_from(number).unwrap_or_default() + 0.0);
        }
        Self::Number(at_scale(number, column.scale))
    }

    fn micros(system: SystemKind, micros: i64) -> Self {
        if system == SystemKind::Finops && micros == value::NO_DATE_MICROS { Self::Empty } else { Self::Micros(micros) }
    }

    fn write(&self, feed: &mut Feed) {
        match self {
            Self::Empty => {}
            Self::Boolean(value) => feed.bytes(&[b'b', u8::from(*value)]),
            Self::Number(number) => {
                feed.byte(b'n');
                feed.bytes(&number.normalize().serialize());
            }
            Self::Float(number) => {
                feed.byte(b'f');
                feed.bytes(&number.to_bits().to_le_bytes());
            }
            Self::Text(text) => {
                feed.byte(b't');
                feed.bytes(text.as_bytes());
            }
            Self::Symbol(symbol) => {
                feed.byte(b's');
                for byte in symbol.bytes() {
                    feed.byte(byte.to_ascii_lowercase());
                }
            }
            Self::Micros(micros) => {
                feed.byte(b'd');
                feed.bytes(&micros.to_le_bytes());
            }
            Self::Guid(id) => {
                feed.byte(b'g');
                feed.bytes(id.as_bytes());
            }
            Self::Bytes(bytes) => {
                feed.byte(b'y');
                feed.bytes(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;
    use std::sync::Arc;

    use super::*;

    fn schema(system: SystemKind, column: Column) -> Schema {
        Schema::new(system, "t", "ts", vec![column])
    }

    fn decimal(text: &str) -> Value {
        Value::Decimal(Decimal::from_str(text).expect(text))
    }

    #[test]
    fn values_are_the_same_when_the_system_cannot_tell_them_apart() {
        use SystemKind::{Dataverse, Finops};
        let scaled = |scale| Column { scale: Some(scale), ..Column::new("c", Kind::Decimal) };
        let choice = || Column {
            options: Arc::from([(Arc::from("No"), 0), (Arc::from("Yes"), 1)]),
            ..Column::new("c", Kind::Choice)
        };
        let plain = |kind| Column::new("c", kind);
        let day = value::parse_timestamp("2024-01-02").expect("a day");
        let cases = [
            (Finops, plain(Kind::Text), Value::text("a"), Value::text("a  "), true),
            (Finops, plain(Kind::Text), Value::text("a"), Value::text("A"), false),
            (Finops, plain(Kind::Text), Value::text(""), Value::Null, true),
            (Finops, plain(Kind::Text), Value::Absent, Value::Null, true),
            (Dataverse, plain(Kind::Text), Value::text(""), Value::Null, true),
            (Finops, scaled(2), decimal("1.005"), decimal("1.01"), true),
            (Finops, scaled(2), decimal("1.50"), decimal("1.5"), true),
            (Finops, scaled(2), decimal("1.5"), decimal("1.51"), false),
            (Finops, plain(Kind::Decimal), decimal("0"), Value::Null, true),
            (Dataverse, plain(Kind::Decimal), decimal("0"), Value::Null, false),
            (Dataverse, plain(Kind::Money), decimal("3"), Value::Int(3), true),
            (Dataverse, plain(Kind::Float64), Value::Float(0.0), Value::Float(-0.0), true),
            (Finops, plain(Kind::Timestamp), Value::Timestamp(value::NO_DATE_MICROS), Value::Null, true),
            (Dataverse, plain(Kind::Timestamp), Value::Timestamp(value::NO_DATE_MICROS), Value::Null, false),
            (Dataverse, plain(Kind::Date), Value::Timestamp(day + 1), Value::Timestamp(day), true),
            (Finops, choice(), Value::text("no"), Value::text("No"), true),
            (Finops, choice(), Value::text("No"), Value::Null, true),
            (Finops, choice(), Value::text("Yes"), Value::Null, false),
            (Finops, plain(Kind::Boolean), Value::Boolean(false), Value::Null, true),
            (Dataverse, plain(Kind::Boolean), Value::Boolean(false), Value::Null, false),
        ];
        for (system, column, a, b, wanted) in cases {
            let schema = schema(system, column);
            let place = format!("{system} {:?}: {a:?} and {b:?}", schema.column(0).kind);
            assert_eq!(same(&schema, 0, &a, &b), wanted, "{place}");
            assert_eq!(same(&schema, 0, &b, &a), wanted, "{place}");
            let hashes = [a, b].map(|value| content_hash(&schema, &[0], &[value]));
            assert_eq!(hashes[0] == hashes[1], wanted, "hash of {place}");
        }
    }

    #[test]
    fn a_long_row_is_hashed_whole() {
        let columns = (0..9).map(|number| Column::new(format!("c{number}"), Kind::Text)).collect::<Vec<_>>();
        let schema = Schema::new(SystemKind::Finops, "t", "ts", columns);
        let all = (0..9).collect::<Vec<_>>();
        let mut row = vec![Value::text("x".repeat(100)); 9];
        row[3] = Value::text("y".repeat(2_000));
        let mut whole = Sha256::new();
        for (index, value) in row.iter().enumerate() {
            whole.update(format!("c{index}\u{1f}t{value}\u{1e}"));
        }
        assert_eq!(content_hash(&schema, &all, &row), whole.finalize()[..16]);
        row[8] = Value::text("z");
        assert_ne!(content_hash(&schema, &all, &row), content_hash(&schema, &all[..8], &row));
    }

    #[test]
    fn a_value_that_moves_to_another_column_changes_the_hash() {
        let columns = vec![Column::new("a", Kind::Text), Column::new("b", Kind::Text)];
        let schema = Schema::new(SystemKind::Finops, "t", "ts", columns);
        let one = content_hash(&schema, &[0, 1], &[Value::text("x"), Value::Null]);
        let other = content_hash(&schema, &[0, 1], &[Value::Null, Value::text("x")]);
        assert_ne!(one, other);
    }
}
