//! Values that a system changes on their way in, so that what is read is not what was written.
//!
//! Owns the changes; works on cells and knows no table but by its set and column names.

use std::borrow::Cow;
use std::str::FromStr;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use super::FaultAction;
use crate::catalogue::Table;
use crate::cell;

/// How a value is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Normalisation {
    /// Text without white space at both ends.
    Trim,
    Upper,
    Lower,
    /// The first so many characters of a text.
    Truncate(usize),
    /// A number with that many digits after the point, halves away from zero.
    Round(u32),
}

/// One change in force.
#[derive(Debug, Clone)]
pub(crate) struct Normaliser {
    set: String,
    column: String,
    how: Normalisation,
}

impl Normaliser {
    pub fn of(action: &FaultAction) -> Option<Self> {
        match action {
            FaultAction::Normalise { set, column, how } => {
                Some(Self { set: set.clone(), column: column.clone(), how: *how })
            }
            _ => None,
        }
    }

    /// Changes the cell of its column in a row that is about to be written.
    pub fn apply(&self, table: &Table, cells: &mut [Cow<'_, str>]) {
        if self.set != table.set() {
            return;
        }
        if let Some(at) = table.property(&self.column)
            && let Some(changed) = self.how.of(&cells[at])
        {
            cells[at] = Cow::Owned(changed);
        }
    }
}

impl Normalisation {
    /// The changed cell; `None` when it stays as it is.
    fn of(self, cell: &str) -> Option<String> {
        if let Self::Round(digits) = self {
            let number = Decimal::from_str(cell).ok()?;
            let rounded = number.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero);
            return (rounded != number).then(|| rounded.normalize().to_string());
        }
        let text = cell::text_of(cell)?;
        let changed = match self {
            Self::Trim => text.trim().to_owned(),
            Self::Upper => text.to_uppercase(),
            Self::Lower => text.to_lowercase(),
            Self::Truncate(length) => text.chars().take(length).collect(),
            Self::Round(_) => return None,
        };
        (changed != text).then(|| cell::quoted(&changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_change_on_their_way_in() {
        for (how, cell, wanted) in [
            (r#""trim""#, r#"" a b ""#, Some(r#""a b""#)),
            (r#""trim""#, r#""a""#, None),
            (r#""upper""#, r#""straße""#, Some(r#""STRASSE""#)),
            (r#""lower""#, r#""ÄB""#, Some(r#""äb""#)),
            (r#"{"truncate":2}"#, r#""äöü""#, Some(r#""äö""#)),
            (r#"{"truncate":3}"#, r#""äöü""#, None),
            (r#"{"round":1}"#, "2.25", Some("2.3")),
            (r#"{"round":1}"#, "-2.25", Some("-2.3")),
            (r#"{"round":0}"#, "10", None),
            (r#"{"round":0}"#, "null", None),
            (r#""upper""#, "null", None),
            (r#""upper""#, "1", None),
        ] {
            let how: Normalisation = serde_json::from_str(how).expect("reads");
            assert_eq!(how.of(cell).as_deref(), wanted, "{how:?} {cell}");
        }
    }
}
