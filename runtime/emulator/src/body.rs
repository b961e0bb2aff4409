//! Request bodies: a JSON object as its members, each still in its own JSON.
//!
//! Owns reading them without going through binary numbers, and the seeding of rows. What a member means is the
//! dialect's business.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::catalogue::Table;
use crate::cell::{self, Cell};
use crate::session::{Refusal, Session};
use crate::store;

/// Members of a JSON object in their order.
#[derive(Debug, Default)]
pub(crate) struct Members<'a>(pub Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    /// Reads an object. An empty body is an object without members.
    pub fn parse(body: &'a [u8]) -> Result<Self, String> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        read(body).map_err(|error| error.to_string())
    }

    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, json)| *json)
    }
}

/// Reads JSON that holds members. Whether it is text is looked at once, and not anew for each value.
pub(crate) fn read<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        // It says where.
        Err(_) => serde_json::from_slice(body),
    }
}

/// A member's name, copied only when it is written with escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<(Cow<'de, str>, &'de str)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(32);
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader).map(Members)
    }
}

/// The column that a seed names: as on the wire, or a lookup by its own name.
pub(crate) fn seeded_column(table: &Table, name: &str) -> Option<usize> {
    table.property(name).or_else(|| table.columns.iter().position(|column| column.definition.name == name))
}

/// Adds a row, or changes the row with its key.
pub(crate) fn seed(session: &mut Session<'_>, table: &Arc<Table>, row: &Map<String, Value>) -> anyhow::Result<()> {
    let mut given = Vec::with_capacity(row.len());
    for (name, value) in row {
        if name.starts_with('@') {
            continue;
        }
        let at = seeded_column(table, name).with_context(|| format!("{} has no column {name}", table.name()))?;
        let cell = table.parse(at, &value.to_string()).map_err(|unfit| anyhow!("{name}: {unfit:?}"))?;
        given.push((at, cell));
    }
    seed_cells(session, table, given)
}

/// [`seed`], of cells that fit their columns.
pub(crate) fn seed_cells(
    session: &mut Session<'_>,
    table: &Arc<Table>,
    given: Vec<(usize, Cell)>,
) -> anyhow::Result<()> {
    let mut cells = table.empty_row();
    for (at, cell) in &given {
        cells[*at] = cell.clone();
    }
    let has_own_key = table.primary_id.is_none_or(|at| cells[at] != cell::NULL);
    let mut found = None;
    if has_own_key {
        found = store::find(session.connection(), &table.row_key(&cells))?;
    } else {
        for number in 0..table.alternate_keys.len() {
            if let Some(key) = table.alternate_key(number, &cells) {
                found = store::find_by_alternate(session.connection(), &key)?;
            }
            if found.is_some() {
                break;
            }
        }
    }
    let outcome = match found {
        None => session.insert(table, cells),
        Some(found) => {
            let mut cells = table.owned_cells(&found.data);
            for (at, cell) in given {
                cells[at] = cell;
            }
            session.update(table, &found, cells)
        }
    };
    match outcome {
        Ok(_) => Ok(()),
        Err(Refusal::Store(error)) => Err(error.into()),
        Err(Refusal::Duplicate(Some(number))) => bail!("its key {} is taken", table.alternate_keys[number].0),
        Err(refusal) => bail!("it cannot be kept: {refusal:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_spelling() {
        let members = Members::parse(br#"{"a":1.10,"b\u0041":{"c":[1,2]},"d":null}"#).expect("reads");
        assert_eq!(members.0, [("a".into(), "1.10"), ("bA".into(), r#"{"c":[1,2]}"#), ("d".into(), "null")]);
        assert!(matches!(members.0[0].0, Cow::Borrowed(_)), "plain names are not copied");
        assert_eq!(members.get("d"), Some("null"));
        assert!(Members::parse(b" ").expect("empty").0.is_empty());
        for broken in ["[1]", "{", "{\"a\":}", "null", "\u{fffd}"] {
            assert!(Members::parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
