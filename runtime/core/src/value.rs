//! One cell of a row, and the kinds a column can have.
//!
//! A row is a `Vec<Value>` in the order of its [`Schema`](crate::schema::Schema): no names on the hot path.

use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;
use uuid::Uuid;

/// The kind of a column. The number is the one that crosses the boundary to a guest (`wit/types`), so it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u16)]
pub enum Kind {
    Boolean = 1,
    Int64 = 2,
    Float64 = 3,
    /// Exact; at most 28 digits after the point.
    Decimal = 4,
    Text = 5,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp = 6,
    /// Days since 1970-01-01.
    Date = 7,
    Guid = 8,
    Bytes = 9,
    /// A JSON document as text.
    Json = 10,
    /// One option: the symbol (F&O) or the option's number as text (Dataverse), carried as [`Value::Text`].
    Choice = 11,
    /// Several options, comma separated, carried as [`Value::Text`].
    MultiChoice = 12,
    /// An amount in the currency of its row, carried as [`Value::Decimal`].
    Money = 13,
    /// A reference to another row by its id (Dataverse), carried as [`Value::Guid`].
    Lookup = 14,
}

impl Kind {
    /// The number that guests see.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The kind with that number, if there is one.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Boolean,
            2 => Self::Int64,
            3 => Self::Float64,
            4 => Self::Decimal,
            5 => Self::Text,
            6 => Self::Timestamp,
            7 => Self::Date,
            8 => Self::Guid,
            9 => Self::Bytes,
            10 => Self::Json,
            11 => Self::Choice,
            12 => Self::MultiChoice,
            13 => Self::Money,
            14 => Self::Lookup,
            _ => return None,
        })
    }
}

/// One cell.
///
/// `Absent` (the sender said nothing about this column) is not `Null` (the sender said it is empty): a patch, a
/// partial entity and "clear this field" need the difference.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    #[default]
    Absent,
    Null,
    Boolean(bool),
    Int(i64),
    Float(f64),
    Decimal(Decimal),
    Text(Arc<str>),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// Days since 1970-01-01.
    Date(i32),
    Guid(Uuid),
    Bytes(Arc<[u8]>),
}

impl Value {
    #[must_use]
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Null or absent: there is nothing to send or to look up.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Absent | Self::Null)
    }

    /// The name of the variant, for messages. Never the value itself.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Null => "null",
            Self::Boolean(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Float(_) => "float",
            Self::Decimal(_) => "decimal",
            Self::Text(_) => "text",
            Self::Timestamp(_) => "timestamp",
            Self::Date(_) => "date",
            Self::Guid(_) => "guid",
            Self::Bytes(_) => "bytes",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl fmt::Display for Value {
    /// For keys and tools. Text is written as it is; null and absent are empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent | Self::Null => Ok(()),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Decimal(value) => write!(f, "{}", value.normalize()),
            Self::Text(value) => f.write_str(value),
            Self::Timestamp(micros) => f.write_str(&crate::value::format_timestamp(*micros)),
            Self::Date(days) => f.write_str(&crate::value::format_date(*days)),
            Self::Guid(value) => write!(f, "{value}"),
            Self::Bytes(value) => write!(f, "{} bytes", value.len()),
        }
    }
}

/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;

/// 1900-01-01, which F&O stores for no date: microseconds, and days since 1970-01-01.
pub const NO_DATE_MICROS: i64 = NO_DATE_DAYS as i64 * MICROS_PER_DAY;
pub const NO_DATE_DAYS: i32 = -25_567;

/// `2024-01-02T03:04:05Z`, with a fraction only when there is one (Edm.DateTimeOffset).
#[must_use]
pub fn format_timestamp(micros: i64) -> String {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let rest = micros.rem_euclid(MICROS_PER_DAY);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let date = format_date(i32::try_from(days).unwrap_or(i32::MAX));
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        format!("{date}T{h:02}:{m:02}:{s:02}Z")
    } else {
        let digits = format!("{fraction:06}");
        format!("{date}T{h:02}:{m:02}:{s:02}.{}Z", digits.trim_end_matches('0'))
    }
}

/// `2024-01-02` (Edm.Date).
#[must_use]
pub fn format_date(days: i32) -> String {
    let epoch = time::Date::from_ordinal_date(1970, 1).unwrap_or(time::Date::MIN);
    match epoch.checked_add(time::Duration::days(i64::from(days))) {
        Some(date) => format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()),
        None => "9999-12-31".to_owned(),
    }
}

/// Parses `2024-01-02` to days since 1970-01-01.
#[must_use]
pub fn parse_date(text: &str) -> Option<i32> {
    let mut parts = text.splitn(3, '-');
    let year: i32 = parts.next()?.parse().ok()?;
    let month: u8 = parts.next()?.parse().ok()?;
    let day: u8 = parts.next()?.parse().ok()?;
    let date = time::Date::from_calendar_date(year, time::Month::try_from(month).ok()?, day).ok()?;
    Some(date.to_julian_day() - time::Date::from_ordinal_date(1970, 1).ok()?.to_julian_day())
}

/// Parses RFC 3339 and its usual relaxations (no seconds fraction, a space for `T`, no zone meaning UTC, a bare date).
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.len() == 10 {
        return Some(i64::from(parse_date(text)?) * MICROS_PER_DAY);
    }
    let days = i64::from(parse_date(text.get(..10)?)?);
    let clock = text.get(11..)?;
    if !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
        return None;
    }
    let (clock, offset_minutes) = match clock.find(['Z', 'z', '+', '-']) {
        None => (clock, 0),
        Some(at) if clock.as_bytes()[at].eq_ignore_ascii_case(&b'z') => (&clock[..at], 0),
        Some(at) => {
            let sign = if clock.as_bytes()[at] == b'-' { -1 } else { 1 };
            let (hours, minutes) = clock[at + 1..].split_once(':')?;
            // Parsed narrowly, so that no offset overflows.
            (&clock[..at], sign * (i64::from(hours.parse::<u8>().ok()?) * 60 + i64::from(minutes.parse::<u8>().ok()?)))
        }
    };
    let mut parts = clock.splitn(3, ':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let (seconds, micros) = match parts.next() {
        None => (0, 0),
        Some(rest) => match rest.split_once('.') {
            None => (rest.parse::<i64>().ok()?, 0),
            Some((seconds, fraction)) => {
                if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
                (seconds.parse::<i64>().ok()?, six.parse::<i64>().ok()?)
            }
        },
    };
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) || !(0..61).contains(&seconds) {
        return None;
    }
    let total = ((hours * 60 + minutes - offset_minutes) * 60 + seconds) * 1_000_000 + micros;
    Some(days * MICROS_PER_DAY + total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_survive_the_round_trip() {
        for text in ["1900-01-01T00:00:00Z", "2024-02-29T23:59:59Z", "2154-12-31T00:00:00Z", "2019-04-30T01:02:03.5Z"] {
            let micros = parse_timestamp(text).expect(text);
            assert_eq!(format_timestamp(micros), text);
        }
    }

    #[test]
    fn relaxed_spellings_mean_the_same_instant() {
        let wanted = parse_timestamp("2024-01-02T03:04:05Z");
        for text in ["2024-01-02 03:04:05", "2024-01-02T03:04:05.000", "2024-01-02T05:04:05+02:00"] {
            assert_eq!(parse_timestamp(text), wanted, "{text}");
        }
        for text in [
            "",
            "2024",
            "2024-13-01T00:00:00Z",
            "2024-01-02T25:00:00Z",
            "2024-01-02X03:04:05Z",
            "2024-01-02T03:04:05.Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }
}
