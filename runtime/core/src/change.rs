//! What a system says has happened: changes, and the transactions they belong to.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::value::Value;

/// One of the two sides of a link. In a table map, left is always F&O and right is always Dataverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemKind {
    Finops,
    Dataverse,
}

impl SystemKind {
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Finops => Self::Dataverse,
            Self::Dataverse => Self::Finops,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finops => "finops",
            Self::Dataverse => "dataverse",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "finops" => Some(Self::Finops),
            "dataverse" => Some(Self::Dataverse),
            _ => None,
        }
    }
}

impl fmt::Display for SystemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one transaction for ever: in the outbox, in the receipt on the target, in the activity log. A UUIDv7 made at
/// capture and stored before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TransactionId(pub Uuid);

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Created or changed; which of the two is decided against the target.
    Upsert,
    Delete,
}

/// The integration key of one row in its canonical spelling: company first (empty for global tables), then the key
/// values in the order of the key. Case and trailing blanks do not count, as neither system counts them (reference 8.8).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey(Arc<str>);

impl RowKey {
    /// Separates the parts; it cannot stand in a key, since no system stores control characters in one.
    const SEPARATOR: char = '\u{1f}';

    #[must_use]
    pub fn new<'a>(company: Option<&str>, parts: impl IntoIterator<Item = &'a Value>) -> Self {
        // Most keys fit; a longer one grows.
        let mut key = String::with_capacity(64);
        push_lower(&mut key, company.unwrap_or_default().trim_end());
        for part in parts {
            key.push(Self::SEPARATOR);
            match part {
                Value::Text(text) => push_lower(&mut key, text.trim_end()),
                other => push_lower(&mut key, &other.to_string()),
            }
        }
        Self(Arc::from(key))
    }

    /// The key as it was stored by [`RowKey::as_str`].
    #[must_use]
    pub fn from_stored(stored: &str) -> Self {
        Self(Arc::from(stored))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The company, empty for a global row.
    #[must_use]
    pub fn company(&self) -> &str {
        self.0.split(Self::SEPARATOR).next().unwrap_or_default()
    }

    /// The key values in their canonical spelling, without the company.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split(Self::SEPARATOR).skip(1)
    }
}

impl fmt::Display for RowKey {
    /// `usmf/10` or `10`: for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.0.split(Self::SEPARATOR).skip_while(|part| part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            f.write_str(part)?;
            if parts.peek().is_some() {
                f.write_str("/")?;
            }
        }
        Ok(())
    }
}

fn push_lower(key: &mut String, text: &str) {
    if text.is_ascii() {
        let start = key.len();
        key.push_str(text);
        key[start..].make_ascii_lowercase();
    } else {
        key.extend(text.chars().flat_map(char::to_lowercase));
    }
}

/// One captured row change, in the columns of its source table.
#[derive(Debug, Clone)]
pub struct Change {
    /// Entity set or public collection of the source table.
    pub set: Arc<str>,
    pub operation: Operation,
    /// The row's id on its source, where it has one (Dataverse).
    pub source_id: Option<Uuid>,
    /// The version the source gives it: etag or control number. Empty when the feed has none.
    pub source_version: Arc<str>,
    /// The row after the change, positional in the schema of `set`. For a delete: what is known, at least the key or the id.
    pub after: Vec<Value>,
    /// The row before the change, when the feed has it.
    pub before: Option<Vec<Value>>,
    /// The transaction id of a write of ours that caused this change, when the feed says so. A hint, never a proof.
    pub origin: Option<TransactionId>,
}
