//! Primitive literals (OData ABNF, `primitiveLiteral`), as they stand in keys and filters.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use uuid::Uuid;

use crate::escape::quote;

/// One literal. `Display` writes it in its OData spelling, without percent-coding.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Null,
    Boolean(bool),
    /// Any number that a decimal holds exactly.
    Number(Decimal),
    /// A number beyond that: huge, tiny, `INF` or `NaN`.
    Double(f64),
    Text(String),
    Guid(Uuid),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    DateTime(i64),
    /// `Microsoft.Dynamics.DataEntities.NoYes'Yes'`.
    Enum {
        type_name: String,
        member: String,
    },
}

impl Literal {
    /// Reads one literal that makes up the whole of `text` (decoded). `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match read(text) {
            Some((literal, length)) if length == text.len() => Some(literal),
            _ => None,
        }
    }

    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    #[must_use]
    pub fn integer(number: i64) -> Self {
        Self::Number(Decimal::from(number))
    }

    /// How two literals compare; `None` when they have no order: a null, a NaN, or kinds that do not mix.
    ///
    /// Text compares without regard to case and trailing blanks, as the databases behind both dialects do. Text
    /// meets a number, a date, a GUID or a boolean as that kind when it spells one; an enumeration member compares by
    /// its name. Filters in the wild write all of these.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        use Literal::{Boolean, Date, DateTime, Double, Enum, Guid, Null, Number, Text};
        match (self, other) {
            (Null, _) | (_, Null) => None,
            (Boolean(a), Boolean(b)) => Some(a.cmp(b)),
            (Number(a), Number(b)) => Some(a.cmp(b)),
            (Double(a), Double(b)) => a.partial_cmp(b),
            (Number(a), Double(b)) => a.to_f64()?.partial_cmp(b),
            (Double(a), Number(b)) => a.partial_cmp(&b.to_f64()?),
            (Text(a), Text(b)) => Some(compare_text(a, b)),
            (Guid(a), Guid(b)) => Some(a.cmp(b)),
            (Date(a), Date(b)) => Some(a.cmp(b)),
            (DateTime(a), DateTime(b)) => Some(a.cmp(b)),
            (Date(a), DateTime(b)) => Some((i64::from(*a) * MICROS_PER_DAY).cmp(b)),
            (DateTime(a), Date(b)) => Some(a.cmp(&(i64::from(*b) * MICROS_PER_DAY))),
            (Enum { member: a, .. }, Enum { member: b, .. }) => Some(compare_text(a, b)),
            (Enum { member, .. }, Text(text)) => Some(compare_text(member, text)),
            (Text(text), Enum { member, .. }) => Some(compare_text(text, member)),
            (Text(text), typed) => compare_as(text, typed),
            (typed, Text(text)) => compare_as(text, typed).map(Ordering::reverse),
            _ => None,
        }
    }
}

/// `text` against a literal that is not text, after reading it as one of the same kind.
fn compare_as(text: &str, typed: &Literal) -> Option<Ordering> {
    match Literal::parse(text.trim_end())? {
        Literal::Null | Literal::Text(_) | Literal::Enum { .. } => None,
        read => read.compare(typed),
    }
}

fn compare_text(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_end_matches(' '), b.trim_end_matches(' '));
    if a.is_ascii() && b.is_ascii() {
        return a.bytes().map(|byte| byte.to_ascii_lowercase()).cmp(b.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    a.chars().flat_map(char::to_lowercase).cmp(b.chars().flat_map(char::to_lowercase))
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Double(value) if value.is_infinite() => f.write_str(if *value > 0.0 { "INF" } else { "-INF" }),
            Self::Double(value) => write!(f, "{value:e}"),
            Self::Text(text) => f.write_str(&quote(text)),
            Self::Guid(value) => write!(f, "{value}"),
            Self::Date(days) => f.write_str(&format_date(*days)),
            Self::DateTime(micros) => f.write_str(&format_date_time(*micros)),
            Self::Enum { type_name, member } => write!(f, "{type_name}{}", quote(member)),
        }
    }
}

/// Reads the literal at the start of `text`; gives it with its length in bytes.
pub(crate) fn read(text: &str) -> Option<(Literal, usize)> {
    if let Some((quoted, length)) = read_quoted(text) {
        return Some((Literal::Text(quoted), length));
    }
    // Everything else is a word without blanks, brackets, commas and quotes.
    let length = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | ':' | '_')))
        .unwrap_or(text.len());
    let word = &text[..length];
    if word.is_empty() {
        return None;
    }
    if is_type_name(word)
        && let Some((member, quoted_length)) = read_quoted(&text[length..])
    {
        return Some((Literal::Enum { type_name: word.to_owned(), member }, length + quoted_length));
    }
    parse_word(word).map(|literal| (literal, length))
}

/// A quoted text at the start of `text`, quotes inside doubled; with its length in bytes.
fn read_quoted(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix('\'')?;
    let mut value = String::new();
    let mut at = 0;
    loop {
        let end = at + inner[at..].find('\'')?;
        value.push_str(&inner[at..end]);
        if inner[end + 1..].starts_with('\'') {
            value.push('\'');
            at = end + 2;
        } else {
            return Some((value, end + 2));
        }
    }
}

fn is_type_name(word: &str) -> bool {
    word.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

fn parse_word(word: &str) -> Option<Literal> {
    Some(match word {
        "null" => Literal::Null,
        "true" => Literal::Boolean(true),
        "false" => Literal::Boolean(false),
        "INF" => Literal::Double(f64::INFINITY),
        "-INF" => Literal::Double(f64::NEG_INFINITY),
        "NaN" => Literal::Double(f64::NAN),
        _ if word.len() == 36 && word.as_bytes()[8] == b'-' => Literal::Guid(Uuid::parse_str(word).ok()?),
        _ if word.len() == 10 && word.as_bytes()[4] == b'-' => Literal::Date(parse_date(word)?),
        _ if word.len() > 10 && word.as_bytes()[4] == b'-' => Literal::DateTime(parse_date_time(word)?),
        _ => parse_number(word)?,
    })
}

fn parse_number(word: &str) -> Option<Literal> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    if !digits.starts_with(|c: char| c.is_ascii_digit())
        || !digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return None;
    }
    let exact = if word.contains(['e', 'E']) { Decimal::from_scientific(word) } else { Decimal::from_str(word) };
    match exact {
        Ok(number) => Some(Literal::Number(number)),
        Err(_) => word.parse().ok().map(Literal::Double),
    }
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01 of `2024-01-02`; `None` for a day that does not exist.
#[must_use]
pub fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    i32::try_from(days_from_civil(year, month, day)).ok()
}

/// Microseconds since 1970-01-01T00:00:00Z of `2024-01-02T03:04:05.678Z`. No zone means UTC; seconds may be missing.
#[must_use]
pub fn parse_date_time(text: &str) -> Option<i64> {
    let days = i64::from(parse_date(text.get(..10)?)?);
    if text.len() == 10 {
        return Some(days * MICROS_PER_DAY);
    }
    let clock = text.get(10..)?.strip_prefix(['T', 't', ' '])?;
    let zone_at = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let offset_minutes = match zone.as_bytes() {
        [] | [b'Z' | b'z'] => 0,
        [sign, h1, h2, b':', m1, m2] => {
            let minutes = digits(&[*h1, *h2])? * 60 + digits(&[*m1, *m2])?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let bytes = clock.as_bytes();
    if bytes.len() < 5 || bytes[2] != b':' {
        return None;
    }
    let (hours, minutes) = (digits(&bytes[..2])?, digits(&bytes[3..5])?);
    let (seconds, micros) = match &bytes[5..] {
        [] => (0, 0),
        [b':', s1, s2] => (digits(&[*s1, *s2])?, 0),
        [b':', s1, s2, b'.', fraction @ ..] if !fraction.is_empty() => {
            // Beyond the sixth digit nothing is kept.
            let mut six = [b'0'; 6];
            for (place, digit) in six.iter_mut().zip(fraction) {
                *place = *digit;
            }
            digits(fraction.get(6..).unwrap_or_default())?;
            (digits(&[*s1, *s2])?, digits(&six)?)
        }
        _ => return None,
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some(days * MICROS_PER_DAY + ((hours * 60 + minutes - offset_minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// `2024-01-02`.
#[must_use]
pub fn format_date(days: i32) -> String {
    let (year, month, day) = civil_from_days(i64::from(days));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2024-01-02T03:04:05Z`, with a fraction only when there is one.
#[must_use]
pub fn format_date_time(micros: i64) -> String {
    let (year, month, day) = civil_from_days(micros.div_euclid(MICROS_PER_DAY));
    let rest = micros.rem_euclid(MICROS_PER_DAY);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{}Z", fraction.trim_end_matches('0'))
}

/// A run of ASCII digits, 0 when empty; `None` when it holds anything else or more than 18 of them.
fn digits(bytes: &[u8]) -> Option<i64> {
    (bytes.len() <= 18 && bytes.iter().all(u8::is_ascii_digit))
        .then(|| bytes.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Proleptic Gregorian days (Howard Hinnant, "chrono-compatible low-level date algorithms").
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    (year_of_era + era * 400 + if month <= 2 { 1 } else { 0 }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_and_written() {
        let number = |text: &str| Literal::Number(Decimal::from_str(text).expect("decimal"));
        let guid = "6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab";
        for (text, wanted) in [
            ("null", Literal::Null),
            ("true", Literal::Boolean(true)),
            ("0", number("0")),
            ("-12.3400", number("-12.3400")),
            ("9007199254740993", number("9007199254740993")),
            ("'A'", Literal::text("A")),
            ("''", Literal::text("")),
            ("'O''Neil'", Literal::text("O'Neil")),
            ("''''", Literal::text("'")),
            (guid, Literal::Guid(Uuid::parse_str(guid).expect("guid"))),
            ("1970-01-02", Literal::Date(1)),
            ("1900-01-01", Literal::Date(-25_567)),
            ("1970-01-01T00:00:01Z", Literal::DateTime(1_000_000)),
            ("1969-12-31T23:59:59.5Z", Literal::DateTime(-500_000)),
            ("INF", Literal::Double(f64::INFINITY)),
            ("1e300", Literal::Double(1e300)),
            ("A.B.NoYes'Yes'", Literal::Enum { type_name: "A.B.NoYes".to_owned(), member: "Yes".to_owned() }),
        ] {
            assert_eq!(Literal::parse(text), Some(wanted.clone()), "{text}");
            assert_eq!(wanted.to_string(), text);
        }
    }

    #[test]
    fn relaxed_spellings_are_read() {
        for (text, wanted) in [
            ("2024-01-02T03:04Z", "2024-01-02T03:04:00Z"),
            ("2024-01-02T03:04:05", "2024-01-02T03:04:05Z"),
            ("2024-01-02T05:04:05+02:00", "2024-01-02T03:04:05Z"),
            ("2024-02-29T23:59:59.1234567Z", "2024-02-29T23:59:59.123456Z"),
            ("1e3", "1000"),
            ("+5", "5"),
        ] {
            assert_eq!(Literal::parse(text).map(|literal| literal.to_string()).as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for text in [
            "",
            "abc",
            "'open",
            "'a'b",
            "2023-02-29",
            "2024-13-01",
            "2024-01-02T25:00:00Z",
            "2024-01-02T03:04:05.Z",
            "2024-01-02T03:04:05.1234567xZ",
            "6a8f1f3c-5b1d-4f4e-9d0a-0123456789az",
            "1 2",
            "--1",
            "1x",
            "9'x'",
        ] {
            assert_eq!(Literal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn literals_compare_as_the_databases_do() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, wanted) in [
            ("'usmf'", "'USMF '", Some(Equal)),
            ("'Ä'", "'ä'", Some(Equal)),
            ("'a'", "'b'", Some(Less)),
            ("1.0", "1", Some(Equal)),
            ("'3'", "3", Some(Equal)),
            ("4", "'3'", Some(Greater)),
            ("'2021-06-23'", "2021-06-24T00:00:00Z", Some(Less)),
            ("2021-06-23", "2021-06-23T00:00:00Z", Some(Equal)),
            ("'true'", "true", Some(Equal)),
            ("'yes'", "A.NoYes'Yes'", Some(Equal)),
            ("1", "1e300", Some(Less)),
            ("null", "null", None),
            ("'x'", "1", None),
            ("NaN", "NaN", None),
        ] {
            let read = |text| Literal::parse(text).expect("literal");
            assert_eq!(read(a).compare(&read(b)), wanted, "{a} {b}");
        }
    }
}
