//! A value as another column takes it: between kinds, between the spellings of the two systems, and the checks a
//! target column makes.
//!
//! Knows columns, not maps.

use std::str::FromStr;
use std::sync::Arc;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use uuid::Uuid;

use crate::change::SystemKind;
use crate::content::at_scale;
use crate::error::{Code, Fault};
use crate::schema::Column;
use crate::value::{self, Kind, MICROS_PER_DAY, NO_DATE_DAYS, NO_DATE_MICROS, Value};

/// Whether values of one kind can ever become values of another without a value map.
pub(crate) const fn is_compatible(from: Kind, to: Kind) -> bool {
    use Kind::{
        Boolean, Bytes, Choice, Date, Decimal, Float64, Guid, Int64, Json, Lookup, Money, MultiChoice, Text, Timestamp,
    };
    match to {
        Text | Json => !matches!(from, Bytes | Lookup),
        MultiChoice => matches!(from, Text | MultiChoice | Choice),
        Int64 | Float64 | Decimal | Money => matches!(from, Int64 | Float64 | Decimal | Money | Text),
        Boolean => matches!(from, Boolean | Choice | Text | Int64),
        Choice => matches!(from, Choice | Text | Boolean | Int64),
        Timestamp | Date => matches!(from, Timestamp | Date | Text),
        Guid | Lookup => matches!(from, Guid | Lookup | Text),
        Bytes => matches!(from, Bytes),
    }
}

/// What an F&O value means: its empty values are no value (reference 8.8). Numbers and options stay.
pub(crate) fn from_finops(value: Value) -> Value {
    if is_finops_empty(&value) { Value::Null } else { value }
}

/// Whether F&O stores this where there is no value.
#[inline]
pub(crate) fn is_finops_empty(value: &Value) -> bool {
    match value {
        Value::Text(text) => is_blank_text(text),
        Value::Timestamp(NO_DATE_MICROS) | Value::Date(NO_DATE_DAYS) => true,
        Value::Guid(id) => id.is_nil(),
        _ => false,
    }
}

/// Nothing, or blanks only: neither system tells them apart.
#[inline]
pub(crate) fn is_blank_text(text: &str) -> bool {
    match text.as_bytes().last() {
        None => true,
        // The usual end of a text, for which nothing needs to be decoded.
        Some(last) if last.is_ascii_graphic() => false,
        Some(_) => text.trim_end().is_empty(),
    }
}

/// What F&O stores where there is no value.
pub(crate) fn finops_empty(column: &Column) -> Value {
    match column.kind {
        Kind::Text | Kind::Json | Kind::MultiChoice => Value::text(""),
        Kind::Choice => empty_option(column).map_or_else(|| Value::text(""), |name| Value::Text(Arc::clone(name))),
        Kind::Timestamp => Value::Timestamp(NO_DATE_MICROS),
        Kind::Date => Value::Date(NO_DATE_DAYS),
        Kind::Int64 => Value::Int(0),
        Kind::Decimal | Kind::Money => Value::Decimal(Decimal::ZERO),
        Kind::Float64 => Value::Float(0.0),
        Kind::Boolean => Value::Boolean(false),
        Kind::Guid => Value::Guid(Uuid::nil()),
        Kind::Lookup | Kind::Bytes => Value::Null,
    }
}

/// The option of an F&O enumeration that stands for no choice: the one numbered 0, or the first.
pub(crate) fn empty_option(column: &Column) -> Option<&Arc<str>> {
    let zero = column.options.iter().find(|(_, number)| *number == 0);
    zero.or(column.options.first()).map(|(name, _)| name)
}

/// `true`, `Yes`, `1` and their opposites, in any case.
pub(crate) fn parse_boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is(["true", "yes", "1"]) {
        Some(true)
    } else if is(["false", "no", "0"]) {
        Some(false)
    } else {
        None
    }
}

pub(crate) fn parse_decimal(text: &str) -> Option<Decimal> {
    let text = text.trim();
    Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).ok()
}

/// A point in time as maps spell it: ISO 8601, or month/day/year as in `1/1/1900`.
pub(crate) fn parse_written_timestamp(text: &str) -> Option<i64> {
    let text = text.trim();
    value::parse_timestamp(text).or_else(|| {
        let mut parts = text.split('/');
        let (month, day, year) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(i64::from(value::parse_date(&format!("{year}-{month}-{day}"))?) * MICROS_PER_DAY)
    })
}

/// The option of a choice with this symbol, in any case.
pub(crate) fn option_named<'a>(column: &'a Column, symbol: &str) -> Option<&'a (Arc<str>, i64)> {
    column.options.iter().find(|(name, _)| name.eq_ignore_ascii_case(symbol))
}

/// The value in the kind of `column`. Null and absent stay what they are.
pub(crate) fn coerce(value: Value, column: &Column) -> Result<Value, Fault> {
    match coerce_or_code(value, column) {
        Ok(value) => Ok(value),
        Err((code, what)) => Err(Fault::new(code, what).column(&column.name)),
    }
}

/// [`coerce`], from where the value is to where it belongs. A value is wide: to hand it on from step to step costs
/// more than to make it, so those that are what the column takes are made in their place.
#[inline]
pub(crate) fn coerce_into(value: &Value, column: &Column, place: &mut Value) -> Result<(), Box<Fault>> {
    match (value, column.kind) {
        (Value::Null, _) => *place = Value::Null,
        (Value::Absent, _) => *place = Value::Absent,
        (Value::Text(text), Kind::Text | Kind::Json | Kind::MultiChoice) => *place = Value::Text(Arc::clone(text)),
        (Value::Int(number), Kind::Int64) => *place = Value::Int(*number),
        (Value::Boolean(flag), Kind::Boolean) => *place = Value::Boolean(*flag),
        (Value::Date(days), Kind::Date) => *place = Value::Date(*days),
        (Value::Timestamp(micros), Kind::Date) => *place = day_of(*micros),
        (Value::Timestamp(micros), Kind::Timestamp) => *place = Value::Timestamp(*micros),
        (Value::Guid(id), Kind::Guid | Kind::Lookup) => *place = Value::Guid(*id),
        (Value::Decimal(number), Kind::Decimal | Kind::Money) => {
            *place = Value::Decimal(at_scale(*number, column.scale));
        }
        _ => return coerce_slowly_into(value, column, place),
    }
    Ok(())
}

/// Apart, so that the short way stays short.
#[inline(never)]
fn coerce_slowly_into(value: &Value, column: &Column, place: &mut Value) -> Result<(), Box<Fault>> {
    *place = coerce(value.clone(), column)?;
    Ok(())
}

fn coerce_or_code(value: Value, column: &Column) -> Result<Value, (Code, String)> {
    if value.is_empty() {
        return Ok(value);
    }
    let misfit = |value: &Value| {
        Err((Code::WrongType, format!("{} takes a {:?}, not this {}", column.name, column.kind, value.type_name())))
    };
    Ok(match column.kind {
        Kind::Text | Kind::Json | Kind::MultiChoice => match value {
            Value::Text(_) => value,
            Value::Bytes(_) => return misfit(&value),
            other => Value::text(other.to_string()),
        },
        Kind::Boolean => match &value {
            Value::Boolean(_) => value,
            Value::Int(0) => Value::Boolean(false),
            Value::Int(1) => Value::Boolean(true),
            Value::Text(text) => match parse_boolean(text.trim()) {
                Some(value) => Value::Boolean(value),
                None => return misfit(&value),
            },
            _ => return misfit(&value),
        },
        Kind::Int64 => match &value {
            Value::Int(_) => value,
            Value::Boolean(value) => Value::Int(i64::from(*value)),
            Value::Text(text) => match text.trim().parse() {
                Ok(number) => Value::Int(number),
                Err(_) => match (parse_decimal(text), option_named(column, text.trim())) {
                    (Some(number), _) => whole(number, column)?,
                    // An option of Dataverse by its label.
                    (None, Some((_, number))) => Value::Int(*number),
                    (None, None) => return misfit(&value),
                },
            },
            Value::Decimal(number) => whole(*number, column)?,
            Value::Float(number) => match Decimal::try_from(*number) {
                Ok(number) => whole(number, column)?,
                Err(_) => return misfit(&value),
            },
            _ => return misfit(&value),
        },
        Kind::Decimal | Kind::Money => {
            let number = match &value {
                Value::Decimal(number) => Some(*number),
                Value::Int(number) => Some(Decimal::from(*number)),
                Value::Float(number) => Decimal::try_from(*number).ok(),
                Value::Text(text) => parse_decimal(text),
                _ => None,
            };
            match number {
                Some(number) => Value::Decimal(at_scale(number, column.scale)),
                None => return misfit(&value),
            }
        }
        Kind::Float64 => match &value {
            Value::Float(number) if number.is_finite() => value,
            Value::Int(number) => Value::Float(*number as f64),
            Value::Decimal(number) => match number.to_f64() {
                Some(number) => Value::Float(number),
                None => return misfit(&value),
            },
            Value::Text(text) => match text.trim().parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float(number),
                _ => return misfit(&value),
            },
            _ => return misfit(&value),
        },
        Kind::Timestamp => match &value {
            Value::Timestamp(_) => value,
            Value::Date(days) => Value::Timestamp(i64::from(*days) * MICROS_PER_DAY),
            Value::Text(text) => match parse_written_timestamp(text) {
                Some(micros) => Value::Timestamp(micros),
                None => return misfit(&value),
            },
            _ => return misfit(&value),
        },
        Kind::Date => match &value {
            Value::Date(_) => value,
            Value::Timestamp(micros) => day_of(*micros),
            Value::Text(text) => match parse_written_timestamp(text) {
                Some(micros) => day_of(micros),
                None => return misfit(&value),
            },
            _ => return misfit(&value),
        },
        Kind::Guid | Kind::Lookup => match &value {
            Value::Guid(_) => value,
            Value::Text(text) => match Uuid::parse_str(text.trim()) {
                Ok(id) => Value::Guid(id),
                Err(_) => return misfit(&value),
            },
            _ => return misfit(&value),
        },
        Kind::Bytes => match &value {
            Value::Bytes(_) => value,
            _ => return misfit(&value),
        },
        Kind::Choice => return choice(value, column),
    })
}

/// The option's real symbol.
fn choice(value: Value, column: &Column) -> Result<Value, (Code, String)> {
    let unknown = || (Code::OptionUnknown, format!("{} has no such option", column.name));
    let found = match &value {
        Value::Text(symbol) => {
            if column.options.is_empty() || column.options.iter().any(|(name, _)| name == symbol) {
                return Ok(value);
            }
            let symbol = symbol.trim();
            option_named(column, symbol).or_else(|| yes_or_no(column, parse_boolean(symbol)?))
        }
        Value::Int(number) => column.options.iter().find(|(_, own)| own == number),
        Value::Boolean(value) => yes_or_no(column, *value),
        other => {
            let what = format!("{} takes an option, not this {}", column.name, other.type_name());
            return Err((Code::WrongType, what));
        }
    };
    found.map(|(name, _)| Value::Text(Arc::clone(name))).ok_or_else(unknown)
}

/// Some maps write true and false where the enumeration says Yes and No.
fn yes_or_no(column: &Column, value: bool) -> Option<&(Arc<str>, i64)> {
    option_named(column, if value { "Yes" } else { "No" })
}

fn day_of(micros: i64) -> Value {
    Value::Date(i32::try_from(micros.div_euclid(MICROS_PER_DAY)).unwrap_or(i32::MAX))
}

fn whole(number: Decimal, column: &Column) -> Result<Value, (Code, String)> {
    if !number.fract().is_zero() {
        return Err((Code::WrongType, format!("{} takes a whole number, not one with a fraction", column.name)));
    }
    match number.to_i64() {
        Some(number) => Ok(Value::Int(number)),
        None => Err((Code::NumberOutOfRange, format!("the number is too large for {}", column.name))),
    }
}

/// A value that a map spells out, as `column` takes it; blank means no value. `None` when the column cannot take it.
pub(crate) fn parse_written(text: &str, column: &Column) -> Option<Value> {
    if text.trim().is_empty() {
        return Some(Value::Null);
    }
    coerce(Value::text(text), column).ok()
}

/// The checks that the target makes of a value of the right kind: length, characters, range, options.
#[inline]
pub(crate) fn check(system: SystemKind, value: &Value, column: &Column) -> Result<(), Box<Fault>> {
    match value {
        Value::Text(text) => {
            // Bytes are never fewer than characters, so most texts need no counting.
            let fits = column.length_max.is_none_or(|longest| text.len() <= longest as usize);
            if fits && !holds_control_characters(text) { Ok(()) } else { check_text(text, column) }
        }
        Value::Int(_) | Value::Decimal(_) | Value::Float(_) => {
            let any_option = system != SystemKind::Dataverse || column.options.is_empty();
            let any_number = column.minimum.is_none() && column.maximum.is_none();
            if any_option && any_number { Ok(()) } else { check_number(system, value, column) }
        }
        _ => Ok(()),
    }
}

fn check_text(text: &str, column: &Column) -> Result<(), Box<Fault>> {
    let name = &column.name;
    if let Some(longest) = column.length_max {
        let length = text.trim_end().chars().count();
        if length > longest as usize {
            let what = format!("{name} takes {longest} characters, the text has {length}");
            return Err(Fault::new(Code::TextTooLong, what).column(name).into());
        }
    }
    if holds_control_characters(text) {
        let what = format!("the text for {name} holds control characters");
        return Err(Fault::new(Code::TextInvalid, what).column(name).into());
    }
    Ok(())
}

/// Tabs and ends of lines are none.
fn holds_control_characters(text: &str) -> bool {
    let is_one = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    // Without an early end, so that many bytes are looked at together.
    text.as_bytes().chunks(64).any(|bytes| bytes.iter().fold(false, |found, byte| found | is_one(byte)))
}

fn check_number(system: SystemKind, value: &Value, column: &Column) -> Result<(), Box<Fault>> {
    let name = &column.name;
    let number = match value {
        Value::Int(number) => {
            if system == SystemKind::Dataverse
                && !column.options.is_empty()
                && !column.options.iter().any(|(_, own)| own == number)
            {
                let what = format!("{name} has no such option");
                return Err(Fault::new(Code::OptionUnknown, what).column(name).into());
            }
            Decimal::from(*number)
        }
        Value::Decimal(number) => *number,
        Value::Float(number) if column.minimum.is_some() || column.maximum.is_some() => Decimal::try_from(*number)
            .map_err(|_| Fault::new(Code::NumberOutOfRange, format!("the number does not fit {name}")).column(name))?,
        _ => return Ok(()),
    };
    check_range(number, column)
}

fn check_range(number: Decimal, column: &Column) -> Result<(), Box<Fault>> {
    let too_small = column.minimum.is_some_and(|minimum| number < minimum);
    let too_large = column.maximum.is_some_and(|maximum| maximum < number);
    if too_small || too_large {
        let limit = if too_small { column.minimum } else { column.maximum }.unwrap_or_default();
        let word = if too_small { "at least" } else { "at most" };
        let what = format!("{} takes {word} {}", column.name, limit.normalize());
        return Err(Fault::new(Code::NumberOutOfRange, what).column(&column.name).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Value {
        Value::Decimal(Decimal::from_str(text).expect(text))
    }

    fn no_yes() -> Column {
        Column { options: Arc::from([(Arc::from("No"), 0), (Arc::from("Yes"), 1)]), ..Column::new("c", Kind::Choice) }
    }

    #[test]
    fn values_become_what_the_column_takes() {
        let plain = |kind| Column::new("c", kind);
        let scaled = Column { scale: Some(2), ..Column::new("c", Kind::Money) };
        let id = Uuid::from_u128(7);
        let labelled = Column { options: Arc::from([(Arc::from("Gold"), 7)]), ..plain(Kind::Int64) };
        let cases = [
            (Value::text("Yes"), plain(Kind::Boolean), Ok(Value::Boolean(true))),
            (Value::text("False"), plain(Kind::Boolean), Ok(Value::Boolean(false))),
            (Value::text("perhaps"), plain(Kind::Boolean), Err(Code::WrongType)),
            (Value::Boolean(true), no_yes(), Ok(Value::text("Yes"))),
            (Value::text("yes"), no_yes(), Ok(Value::text("Yes"))),
            (Value::text("False"), no_yes(), Ok(Value::text("No"))),
            (Value::Int(0), no_yes(), Ok(Value::text("No"))),
            (Value::Int(2), no_yes(), Err(Code::OptionUnknown)),
            (Value::text("maybe"), no_yes(), Err(Code::OptionUnknown)),
            (decimal("1"), no_yes(), Err(Code::WrongType)),
            (decimal("7.000"), plain(Kind::Int64), Ok(Value::Int(7))),
            (decimal("7.5"), plain(Kind::Int64), Err(Code::WrongType)),
            (decimal("99999999999999999999"), plain(Kind::Int64), Err(Code::NumberOutOfRange)),
            (Value::text("192350000"), plain(Kind::Int64), Ok(Value::Int(192_350_000))),
            (Value::text(""), plain(Kind::Int64), Err(Code::WrongType)),
            (Value::text(" gold"), labelled.clone(), Ok(Value::Int(7))),
            (Value::text("7"), labelled.clone(), Ok(Value::Int(7))),
            (Value::text("tin"), labelled, Err(Code::WrongType)),
            (Value::text("1.0000000000"), plain(Kind::Decimal), Ok(decimal("1.0000000000"))),
            (decimal("2.345"), scaled.clone(), Ok(decimal("2.35"))),
            (decimal("-2.345"), scaled, Ok(decimal("-2.35"))),
            (Value::Int(3), plain(Kind::Decimal), Ok(decimal("3"))),
            (Value::Int(3), plain(Kind::Text), Ok(Value::text("3"))),
            (Value::Date(NO_DATE_DAYS), plain(Kind::Timestamp), Ok(Value::Timestamp(NO_DATE_MICROS))),
            (Value::Timestamp(MICROS_PER_DAY + 5), plain(Kind::Date), Ok(Value::Date(1))),
            (Value::text("1/1/1900"), plain(Kind::Date), Ok(Value::Date(NO_DATE_DAYS))),
            (Value::text("1/1/19/00"), plain(Kind::Date), Err(Code::WrongType)),
            (Value::text(id.to_string()), plain(Kind::Guid), Ok(Value::Guid(id))),
            (Value::Null, plain(Kind::Guid), Ok(Value::Null)),
            (Value::Absent, plain(Kind::Text), Ok(Value::Absent)),
            (Value::Float(f64::NAN), plain(Kind::Decimal), Err(Code::WrongType)),
            (Value::Float(f64::INFINITY), plain(Kind::Float64), Err(Code::WrongType)),
        ];
        for (value, column, wanted) in cases {
            let place = format!("{value:?} as {:?}", column.kind);
            assert_eq!(coerce(value, &column).map_err(|fault| fault.code), wanted, "{place}");
        }
    }

    #[test]
    fn the_target_checks_what_it_stores() {
        let short = Column { length_max: Some(3), ..Column::new("c", Kind::Text) };
        let ranged =
            Column { minimum: Some(Decimal::ZERO), maximum: Some(Decimal::TEN), ..Column::new("c", Kind::Decimal) };
        let options = Column { options: Arc::from([(Arc::from("A"), 5)]), ..Column::new("c", Kind::Int64) };
        let cases = [
            (Value::text("abc"), &short, None),
            (Value::text("abc   "), &short, None),
            (Value::text("äöü"), &short, None),
            (Value::text("abcd"), &short, Some(Code::TextTooLong)),
            (Value::text("a\nb"), &short, None),
            (Value::text("a\u{1f}"), &short, Some(Code::TextInvalid)),
            (decimal("10"), &ranged, None),
            (decimal("10.01"), &ranged, Some(Code::NumberOutOfRange)),
            (decimal("-1"), &ranged, Some(Code::NumberOutOfRange)),
            (Value::Int(5), &options, None),
            (Value::Int(6), &options, Some(Code::OptionUnknown)),
            (Value::Null, &options, None),
        ];
        for (value, column, wanted) in cases {
            let code = check(SystemKind::Dataverse, &value, column).err().map(|fault| fault.code);
            assert_eq!(code, wanted, "{value:?}");
        }
    }
}
