//! Values as they stand in data files, and as they are stored.
//!
//! Owns the spelling of each type in a file: what the source-to-staging step of an import converts. Whether a value is
//! allowed is the write path's business.

use std::borrow::Cow;

use dualwright_odata::literal::{format_date, format_date_time, parse_date, parse_date_time};
use rust_decimal::Decimal;

use crate::cell;
use crate::definition::{ColumnDefinition, ColumnKind};

/// A stored cell as text of a data file. Dates are written with a time and without a zone: `1900-01-01 00:00:00`.
pub(super) fn text_of<'c>(column: &ColumnDefinition, cell: &'c str) -> Cow<'c, str> {
    match column.kind {
        ColumnKind::Datetime => {
            let text = cell.trim_matches('"').trim_end_matches('Z').replacen('T', " ", 1);
            Cow::Owned(text)
        }
        ColumnKind::Date => Cow::Owned(format!("{} 00:00:00", cell.get(1..11).unwrap_or_default())),
        ColumnKind::Guid => Cow::Owned(format!("{{{}}}", cell.trim_matches('"').to_uppercase())),
        _ => cell::text_of(cell).unwrap_or(Cow::Borrowed(cell)),
    }
}

/// Text of a data file as JSON for the write path; `None` when it is not of the column's type. Nothing is the empty
/// value of the type.
pub(super) fn json_of(column: &ColumnDefinition, text: &str) -> Option<String> {
    let is_text = matches!(column.kind, ColumnKind::Text | ColumnKind::Memo | ColumnKind::Lookup);
    if is_text {
        return Some(cell::quoted(text));
    }
    let text = text.trim();
    if text.is_empty() {
        return Some(cell::NULL.to_owned());
    }
    Some(match column.kind {
        ColumnKind::Int => text.parse::<i32>().ok()?.to_string(),
        ColumnKind::Bigint => text.parse::<i64>().ok()?.to_string(),
        ColumnKind::Decimal | ColumnKind::Money => {
            text.parse::<Decimal>().or_else(|_| Decimal::from_scientific(text)).ok()?.to_string()
        }
        ColumnKind::Double => serde_json::Number::from_f64(text.parse().ok()?)?.to_string(),
        ColumnKind::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => "true".to_owned(),
            "false" | "no" | "0" => "false".to_owned(),
            _ => return None,
        },
        ColumnKind::Datetime => format!("\"{}\"", format_date_time(moment(text)?)),
        ColumnKind::Date => {
            const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;
            let day = parse_date(text).or_else(|| i32::try_from(moment(text)?.div_euclid(DAY_MICROS)).ok())?;
            format!("\"{}\"", format_date(day))
        }
        ColumnKind::Guid => {
            let bare = text.trim_start_matches('{').trim_end_matches('}');
            format!("\"{}\"", uuid::Uuid::parse_str(bare).ok()?)
        }
        // A member by its name, or by its number.
        ColumnKind::Choice | ColumnKind::Enum => {
            let option = column.options.iter().find(|option| option.name.eq_ignore_ascii_case(text));
            let numbered =
                || text.parse().ok().and_then(|value: i64| column.options.iter().find(|own| own.value == value));
            cell::quoted(&option.or_else(numbered)?.name)
        }
        ColumnKind::Text | ColumnKind::Memo | ColumnKind::Lookup | ColumnKind::MultiChoice => return None,
    })
}

/// `2024-02-29`, `2024-02-29 13:00:00`, or as in OData.
fn moment(text: &str) -> Option<i64> {
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ if text.ends_with(['Z', 'z']) || text.get(10..)?.contains(['+', '-']) => text.replacen(' ', "T", 1),
        _ => format!("{}Z", text.replacen(' ', "T", 1)),
    };
    parse_date_time(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::no_yes;

    #[test]
    fn values_are_converted_both_ways() {
        use ColumnKind::{Bigint, Boolean, Date, Datetime, Decimal, Enum, Guid, Int, Text};
        let guid = "\"6f9619ff-8b86-d011-b42d-00c04fc964ff\"";
        for (kind, text, json, back) in [
            (Text, "007", Some("\"007\""), "007"),
            (Text, " \"x\"\r\n", Some("\" \\\"x\\\"\\r\\n\""), " \"x\"\r\n"),
            (Text, "", Some("\"\""), ""),
            (Int, "-5", Some("-5"), "-5"),
            (Int, "2147483648", None, ""),
            (Int, "five", None, ""),
            (Bigint, "5637144576", Some("5637144576"), "5637144576"),
            (Decimal, "1.50", Some("1.50"), "1.50"),
            (Decimal, "1,5", None, ""),
            (Boolean, "Yes", Some("true"), "true"),
            (Boolean, "maybe", None, ""),
            (Datetime, "2024-02-29 13:00:01", Some("\"2024-02-29T13:00:01Z\""), "2024-02-29 13:00:01"),
            (Datetime, "2024-02-29T13:00:01+01:00", Some("\"2024-02-29T12:00:01Z\""), "2024-02-29 12:00:01"),
            (Datetime, "2024-02-29", Some("\"2024-02-29T00:00:00Z\""), "2024-02-29 00:00:00"),
            (Datetime, "2024-02-30", None, ""),
            (Datetime, "\u{fc}", None, ""),
            (Date, "2024-02-29", Some("\"2024-02-29\""), "2024-02-29 00:00:00"),
            (Date, "1899-12-31 00:00:00", Some("\"1899-12-31\""), "1899-12-31 00:00:00"),
            (Date, "29.02.2024", None, ""),
            (Guid, "{6F9619FF-8B86-D011-B42D-00C04FC964FF}", Some(guid), "{6F9619FF-8B86-D011-B42D-00C04FC964FF}"),
            (Enum, "yes", Some("\"Yes\""), "Yes"),
            (Enum, "1", Some("\"Yes\""), "Yes"),
            (Enum, "2", None, ""),
            (Enum, "", Some("null"), "null"),
        ] {
            let column = ColumnDefinition { kind, options: no_yes(), ..ColumnDefinition::default() };
            let found = json_of(&column, text);
            assert_eq!(found.as_deref(), json, "{kind:?} {text}");
            if let Some(json) = found {
                assert_eq!(text_of(&column, &json), back, "{kind:?} {text}");
            }
        }
    }
}
