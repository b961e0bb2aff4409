//! One cell: from the JSON that was sent to the JSON that is kept, and to a literal for filters.
//!
//! Owns what a column accepts and how it is spelled. A cell is kept exactly as it is sent out again, so reading rows
//! is copying; two cells are equal when their texts are. Knows no table and no error body.

use std::borrow::Cow;
use std::str::FromStr;

use dualwright_odata::Literal;
use dualwright_odata::literal::{format_date, format_date_time, parse_date, parse_date_time};
use rust_decimal::{Decimal, RoundingStrategy};
use uuid::Uuid;

use crate::Dialect;
use crate::definition::{ColumnDefinition, ColumnKind};

/// JSON text of one value.
pub(crate) type Cell = Cow<'static, str>;

pub(crate) const NULL: &str = "null";

/// Follows a day on F&O, where a column that holds days is an `Edm.DateTimeOffset`: in the middle of the day, no zone on
/// either side of Greenwich makes another of it.
pub(crate) const NOON: &str = "T12:00:00Z";

/// Why a value is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is of another type; the type that was expected.
    Type(&'static str),
    TooLong(u32),
    /// Below or above what the column allows, with the value and the bounds.
    OutOfRange {
        value: String,
        minimum: String,
        maximum: String,
    },
    /// Not an option of the column.
    Option(String),
}

/// The cell that stands for no value: null, or on F&O the empty value of the type.
pub(crate) fn empty(dialect: Dialect, column: &ColumnDefinition) -> Cell {
    if dialect == Dialect::Dataverse {
        return Cow::Borrowed(NULL);
    }
    match column.kind {
        ColumnKind::Text | ColumnKind::Memo | ColumnKind::Lookup | ColumnKind::MultiChoice => Cow::Borrowed("\"\""),
        ColumnKind::Int | ColumnKind::Bigint | ColumnKind::Decimal | ColumnKind::Money | ColumnKind::Double => {
            Cow::Borrowed("0")
        }
        ColumnKind::Boolean => Cow::Borrowed("false"),
        ColumnKind::Datetime => Cow::Borrowed("\"1900-01-01T00:00:00Z\""),
        // A day is sent as its noon.
        ColumnKind::Date => Cow::Borrowed("\"1900-01-01T12:00:00Z\""),
        ColumnKind::Guid => Cow::Borrowed("\"00000000-0000-0000-0000-000000000000\""),
        ColumnKind::Choice | ColumnKind::Enum => column
            .options
            .iter()
            .min_by_key(|option| option.value)
            .map_or(Cow::Borrowed("\"\""), |option| Cow::Owned(quoted(&option.name))),
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// The text behind a JSON string; `None` when the JSON is something else.
pub(crate) fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Raises a JSON value to a cell of `column`.
pub(crate) fn parse<'j>(dialect: Dialect, column: &ColumnDefinition, json: &'j str) -> Result<Cow<'j, str>, Unfit> {
    if json == NULL {
        return Ok(empty(dialect, column));
    }
    let text = |expected| text_of(json).ok_or(Unfit::Type(expected));
    Ok(match column.kind {
        ColumnKind::Text | ColumnKind::Memo => {
            let text = text("Edm.String")?;
            // Both systems drop trailing blanks of what they store and compare; Dataverse keeps no empty text.
            let kept = if dialect == Dialect::Finops { text.trim_end_matches(' ') } else { &*text };
            if let Some(longest) = column.max_length
                && kept.len() > longest as usize
                && kept.chars().count() > longest as usize
            {
                return Err(Unfit::TooLong(longest));
            }
            if kept.is_empty() {
                empty(dialect, column)
            } else if kept.len() + 2 == json.len() && !json.contains('\\') {
                // It is spelled as we would spell it.
                Cow::Borrowed(json)
            } else {
                Cow::Owned(quoted(kept))
            }
        }
        ColumnKind::Int | ColumnKind::Bigint => {
            let expected = if column.kind == ColumnKind::Int { "Edm.Int32" } else { "Edm.Int64" };
            // A 64-bit number may travel as text (IEEE754Compatible).
            let digits = if column.kind == ColumnKind::Bigint { json.trim_matches('"') } else { json };
            let number = digits.parse::<i64>().map_err(|_| Unfit::Type(expected))?;
            if column.kind == ColumnKind::Int && i32::try_from(number).is_err() {
                return Err(Unfit::Type(expected));
            }
            if column.min.is_some() || column.max.is_some() {
                in_range(column, &Decimal::from(number))?;
            }
            Cow::Owned(number.to_string())
        }
        ColumnKind::Decimal | ColumnKind::Money => {
            let number = decimal(json.trim_matches('"')).ok_or(Unfit::Type("Edm.Decimal"))?;
            let rounded = number.round_dp_with_strategy(scale(dialect, column), RoundingStrategy::MidpointAwayFromZero);
            in_range(column, &rounded)?;
            Cow::Owned(rounded.normalize().to_string())
        }
        ColumnKind::Double => {
            let number = json.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            let number = number.ok_or(Unfit::Type("Edm.Double"))?.to_string();
            if let Some(exact) = decimal(&number) {
                in_range(column, &exact)?;
            }
            Cow::Owned(number)
        }
        ColumnKind::Boolean => match json {
            "true" => Cow::Borrowed("true"),
            "false" => Cow::Borrowed("false"),
            _ => return Err(Unfit::Type("Edm.Boolean")),
        },
        ColumnKind::Datetime => {
            let text = text("Edm.DateTimeOffset")?;
            // Both systems keep whole seconds.
            let micros = parse_date_time(&text).ok_or(Unfit::Type("Edm.DateTimeOffset"))?;
            Cow::Owned(format!("\"{}\"", format_date_time(micros - micros.rem_euclid(1_000_000))))
        }
        ColumnKind::Date => {
            let expected = if dialect == Dialect::Finops { "Edm.DateTimeOffset" } else { "Edm.Date" };
            let text = text(expected)?;
            let is_date = text.len() == 10 || parse_date_time(&text).is_some();
            let day = text.get(..10).filter(|_| is_date).and_then(parse_date).ok_or(Unfit::Type(expected))?;
            let noon = if dialect == Dialect::Finops { NOON } else { "" };
            Cow::Owned(format!("\"{}{noon}\"", format_date(day)))
        }
        ColumnKind::Guid => guid_cell(Uuid::parse_str(&text("Edm.Guid")?).map_err(|_| Unfit::Type("Edm.Guid"))?),
        ColumnKind::Lookup if dialect == Dialect::Dataverse => {
            guid_cell(Uuid::parse_str(&text("Edm.Guid")?).map_err(|_| Unfit::Type("Edm.Guid"))?)
        }
        ColumnKind::Lookup => Cow::Owned(quoted(text("Edm.String")?.trim_end_matches(' '))),
        ColumnKind::MultiChoice => {
            let text = text("Edm.String")?;
            let mut values = Vec::new();
            for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                let value = part.parse::<i32>().map_err(|_| Unfit::Type("Edm.String"))?;
                if !column.options.is_empty() && !column.options.iter().any(|option| option.value == i64::from(value)) {
                    return Err(Unfit::Option(part.to_owned()));
                }
                values.push(value);
            }
            values.sort_unstable();
            values.dedup();
            if values.is_empty() {
                return Ok(empty(dialect, column));
            }
            Cow::Owned(quoted(&values.iter().map(i32::to_string).collect::<Vec<_>>().join(",")))
        }
        ColumnKind::Choice | ColumnKind::Enum if dialect == Dialect::Dataverse => {
            let number = json.parse::<i32>().map_err(|_| Unfit::Type("Edm.Int32"))?;
            if !column.options.is_empty() && !column.options.iter().any(|option| option.value == i64::from(number)) {
                return Err(Unfit::Option(number.to_string()));
            }
            Cow::Owned(number.to_string())
        }
        ColumnKind::Choice | ColumnKind::Enum => {
            let symbol = text("Edm.Enum")?;
            if symbol.is_empty() {
                return Ok(empty(dialect, column));
            }
            match column.options.iter().find(|option| option.name.eq_ignore_ascii_case(&symbol)) {
                Some(option) => Cow::Owned(quoted(&option.name)),
                None => return Err(Unfit::Option(symbol.into_owned())),
            }
        }
    })
}

pub(crate) fn guid_cell(id: Uuid) -> Cell {
    let mut digits = [0; uuid::fmt::Hyphenated::LENGTH];
    let digits = id.hyphenated().encode_lower(&mut digits);
    let mut cell = String::with_capacity(digits.len() + 2);
    cell.push('"');
    cell.push_str(digits);
    cell.push('"');
    Cow::Owned(cell)
}

/// Digits after the point that a column keeps.
fn scale(dialect: Dialect, column: &ColumnDefinition) -> u32 {
    column.precision.map_or(
        match (dialect, column.kind) {
            (Dialect::Finops, _) => 16,
            (Dialect::Dataverse, ColumnKind::Money) => 4,
            (Dialect::Dataverse, _) => 10,
        },
        u32::from,
    )
}

fn decimal(text: &str) -> Option<Decimal> {
    if text.contains(['e', 'E']) { Decimal::from_scientific(text).ok() } else { Decimal::from_str(text).ok() }
}

fn in_range(column: &ColumnDefinition, number: &Decimal) -> Result<(), Unfit> {
    let bound = |bound: &Option<serde_json::Number>| {
        let bound = bound.as_ref()?;
        bound.as_i64().map(Decimal::from).or_else(|| decimal(&bound.to_string()))
    };
    let (minimum, maximum) = (bound(&column.min), bound(&column.max));
    if minimum.is_some_and(|minimum| *number < minimum) || maximum.is_some_and(|maximum| maximum < *number) {
        let shown = |bound: Option<Decimal>| {
            bound.map_or_else(|| "unbounded".to_owned(), |bound| bound.normalize().to_string())
        };
        return Err(Unfit::OutOfRange { value: number.to_string(), minimum: shown(minimum), maximum: shown(maximum) });
    }
    Ok(())
}

/// The JSON of a literal that stood in a URL.
pub(crate) fn json_of(literal: &Literal) -> String {
    match literal {
        Literal::Null => NULL.to_owned(),
        Literal::Boolean(value) => value.to_string(),
        Literal::Number(value) => value.normalize().to_string(),
        Literal::Double(value) => value.to_string(),
        Literal::Text(text) | Literal::Enum { member: text, .. } => quoted(text),
        Literal::Guid(id) => format!("\"{id}\""),
        Literal::Date(days) => format!("\"{}\"", format_date(*days)),
        Literal::DateTime(micros) => format!("\"{}\"", format_date_time(*micros)),
    }
}

/// A stored cell as a literal, for filters and orders.
pub(crate) fn literal(kind: ColumnKind, cell: &str) -> Literal {
    if cell == NULL {
        return Literal::Null;
    }
    let unquoted = || text_of(cell).map(Cow::into_owned).unwrap_or_default();
    match kind {
        ColumnKind::Int | ColumnKind::Bigint | ColumnKind::Decimal | ColumnKind::Money | ColumnKind::Double => {
            Literal::parse(cell).unwrap_or(Literal::Null)
        }
        ColumnKind::Boolean => Literal::Boolean(cell == "true"),
        ColumnKind::Datetime => parse_date_time(cell.trim_matches('"')).map_or(Literal::Null, Literal::DateTime),
        ColumnKind::Date => {
            let text = cell.trim_matches('"');
            parse_date(text)
                .map(Literal::Date)
                .or_else(|| parse_date_time(text).map(Literal::DateTime))
                .unwrap_or(Literal::Null)
        }
        ColumnKind::Text | ColumnKind::Memo | ColumnKind::MultiChoice => Literal::Text(unquoted()),
        ColumnKind::Guid | ColumnKind::Lookup | ColumnKind::Choice | ColumnKind::Enum => {
            if cell.starts_with('"') {
                let text = unquoted();
                match Uuid::parse_str(&text) {
                    Ok(id) if matches!(kind, ColumnKind::Guid | ColumnKind::Lookup) => Literal::Guid(id),
                    _ => Literal::Text(text),
                }
            } else {
                Literal::parse(cell).unwrap_or(Literal::Null)
            }
        }
    }
}

/// A cell as part of a key: text without regard to case and trailing blanks.
pub(crate) fn push_key(key: &mut Vec<u8>, cell: &str) {
    match text_of(cell) {
        Some(text) => {
            let text = text.trim_end_matches(' ');
            if text.is_ascii() {
                key.extend(text.bytes().map(|byte| byte.to_ascii_lowercase()));
            } else {
                key.extend_from_slice(text.to_lowercase().as_bytes());
            }
        }
        None => key.extend_from_slice(cell.as_bytes()),
    }
    // Cannot stand inside a JSON string unescaped, and hardly ever in a key.
    key.push(0x1f);
}

/// The cells of the stored form of a row, a JSON array that we wrote ourselves.
#[derive(Debug, Clone)]
pub(crate) struct Cells<'a> {
    /// What is left of the row; `None` behind the last cell.
    rest: Option<&'a str>,
}

/// Reads the stored form of a row cell by cell.
pub(crate) fn each(data: &str) -> Cells<'_> {
    let inner = data.len().checked_sub(1).and_then(|end| data.get(1..end));
    Cells { rest: inner.filter(|inner| !inner.is_empty()) }
}

impl Cells<'_> {
    /// Passes over the next cells if they are these, which stand as in a row; otherwise stays where it is.
    pub fn pass(&mut self, cells: &str) -> bool {
        let Some(behind) = self.rest.and_then(|rest| rest.strip_prefix(cells)) else { return false };
        match behind.as_bytes().first() {
            None => self.rest = None,
            Some(b',') => self.rest = behind.get(1..),
            // The last of them only begins alike.
            Some(_) => return false,
        }
        true
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let bytes = rest.as_bytes();
        let mut end = 0;
        match bytes.first() {
            Some(b'"') => {
                end = 1;
                // Strings are long, so their ends are searched for many bytes at a time.
                while let Some(quote) = bytes.get(end..).and_then(|rest| memchr::memchr(b'"', rest)) {
                    end += quote + 1;
                    let is_escaped = bytes[..end - 1].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
                    if !is_escaped {
                        break;
                    }
                }
            }
            // Most cells of a wide row are empty.
            Some(b'n') => end = NULL.len().min(bytes.len()),
            _ => {}
        }
        while bytes.get(end).is_some_and(|byte| *byte != b',') {
            end += 1;
        }
        self.rest = rest.get(end + 1..);
        rest.get(..end)
    }
}

/// Splits the stored form of a row into its cells.
pub(crate) fn split<'a>(data: &'a str, cells: &mut Vec<&'a str>) {
    cells.clear();
    cells.extend(each(data));
}

/// One cell of a stored row; `None` of a row that is older than the column.
pub(crate) fn nth(data: &str, place: usize) -> Option<&str> {
    each(data).nth(place)
}

/// The stored form of a row.
pub(crate) fn join<'a>(cells: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let length = cells.clone().into_iter().map(|cell| cell.len() + 1).sum::<usize>();
    let mut data = String::with_capacity(length + 2);
    data.push('[');
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            data.push(',');
        }
        data.push_str(cell);
    }
    data.push(']');
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{OptionDefinition, no_yes};

    fn column(kind: ColumnKind) -> ColumnDefinition {
        ColumnDefinition { name: "c".into(), kind, ..Default::default() }
    }

    #[test]
    fn what_a_column_makes_of_a_value() {
        use ColumnKind::{
            Bigint, Boolean, Choice, Date, Datetime, Decimal, Double, Enum, Guid, Int, Memo, Money, Text,
        };
        use Dialect::{Dataverse, Finops};
        let text = ColumnDefinition { max_length: Some(3), ..column(Text) };
        let price = ColumnDefinition { precision: Some(2), ..column(Money) };
        let percent = ColumnDefinition {
            min: serde_json::Number::from_f64(0.0),
            max: serde_json::Number::from_f64(100.0),
            ..column(Decimal)
        };
        let choice = ColumnDefinition {
            options: vec![OptionDefinition { name: "A".into(), value: 7, state: None }],
            ..column(Choice)
        };
        let flag = ColumnDefinition { options: no_yes(), ..column(Enum) };
        for (dialect, column, json, wanted) in [
            (Dataverse, &text, r#""abc""#, Ok("\"abc\"")),
            (Dataverse, &text, r#""äöü""#, Ok("\"äöü\"")),
            (Dataverse, &text, r#""abcd""#, Err(Unfit::TooLong(3))),
            (Dataverse, &text, r#""""#, Ok("null")),
            (Dataverse, &text, "1", Err(Unfit::Type("Edm.String"))),
            (Finops, &text, r#""ab  ""#, Ok("\"ab\"")),
            (Finops, &text, "null", Ok("\"\"")),
            (Dataverse, &column(Memo), r#""a\u0041\n\"""#, Ok(r#""aA\n\"""#)),
            (Dataverse, &column(Int), "2147483648", Err(Unfit::Type("Edm.Int32"))),
            (Dataverse, &column(Int), "1.0", Err(Unfit::Type("Edm.Int32"))),
            (Dataverse, &column(Bigint), r#""9007199254740993""#, Ok("9007199254740993")),
            (Dataverse, &price, "1.005", Ok("1.01")),
            (Dataverse, &price, "-1.005", Ok("-1.01")),
            (Dataverse, &price, "1.00", Ok("1")),
            (Dataverse, &column(Money), "12345678901234567.89015", Ok("12345678901234567.8902")),
            (Dataverse, &column(Decimal), "1e3", Ok("1000")),
            (Dataverse, &percent, "100.00000000001", Ok("100")),
            (
                Dataverse,
                &percent,
                "101",
                Err(Unfit::OutOfRange { value: "101".into(), minimum: "0".into(), maximum: "100".into() }),
            ),
            (Finops, &column(Decimal), "null", Ok("0")),
            (Dataverse, &column(Double), "1.50", Ok("1.5")),
            (Dataverse, &column(Boolean), "\"true\"", Err(Unfit::Type("Edm.Boolean"))),
            (Dataverse, &column(Datetime), r#""2024-01-02T05:04:05.999+02:00""#, Ok("\"2024-01-02T03:04:05Z\"")),
            (Dataverse, &column(Datetime), r#""soon""#, Err(Unfit::Type("Edm.DateTimeOffset"))),
            (Finops, &column(Datetime), "null", Ok("\"1900-01-01T00:00:00Z\"")),
            (Dataverse, &column(Date), r#""2024-02-30""#, Err(Unfit::Type("Edm.Date"))),
            (Dataverse, &column(Date), r#""2024-02-29T00:00:00Z""#, Ok("\"2024-02-29\"")),
            (
                Dataverse,
                &column(Guid),
                r#""{6A8F1F3C-5B1D-4F4E-9D0A-0123456789AB}""#,
                Ok("\"6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab\""),
            ),
            (Dataverse, &choice, "7", Ok("7")),
            (Dataverse, &choice, "8", Err(Unfit::Option("8".into()))),
            (Finops, &flag, r#""yes""#, Ok("\"Yes\"")),
            (Finops, &flag, r#""Maybe""#, Err(Unfit::Option("Maybe".into()))),
            (Finops, &flag, "null", Ok("\"No\"")),
            (Finops, &flag, "true", Err(Unfit::Type("Edm.Enum"))),
        ] {
            let made = parse(dialect, column, json);
            assert_eq!(made.as_deref().map_err(Clone::clone), wanted, "{dialect:?} {:?} {json}", column.kind);
        }
    }

    #[test]
    fn rows_are_joined_and_split() {
        for cells in [vec![], vec!["null"], vec!["\"a,\\\"]b\"", "1", "\"\"", "\"\\\\\"", "null"]] {
            let data = join(cells.iter().copied());
            let mut again = Vec::new();
            split(&data, &mut again);
            assert_eq!(again, cells, "{data}");
            for place in 0..=cells.len() {
                assert_eq!(nth(&data, place), cells.get(place).copied(), "{data} {place}");
            }
        }
    }

    #[test]
    fn keys_do_not_regard_case_and_trailing_blanks() {
        let key = |cell: &str| {
            let mut key = Vec::new();
            push_key(&mut key, cell);
            key
        };
        assert_eq!(key("\"Ab \""), key("\"aB\""));
        assert_eq!(key("\"Ä\""), key("\"ä\""));
        assert_ne!(key("\"a b\""), key("\"ab\""));
        assert_eq!(key("7"), b"7\x1f");
    }
}
