//! References by natural key: what a flow wants to know about other rows.
//!
//! A slot is compiled once per map, a key is built per row. Finding the rows is the host's business.

use std::sync::Arc;

use uuid::Uuid;

use crate::change::RowKey;
use crate::value::Value;

/// What becomes of a row whose lookup leads to no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// It fails, and somebody has to retry it.
    Fail,
    /// It fails, and is tried again by itself when rows have arrived.
    #[default]
    Hold,
    /// It refers to a row that the setting names, or to none.
    Default,
    /// The missing row is made of its key, and waits for the real one to fill it.
    Stub,
}

/// What a map says about one lookup, or about all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LookupRule {
    /// The lookup, by an F&O column that fills it, its own column or a path through it. `None`: every lookup that no
    /// other rule names.
    pub field: Option<String>,
    pub missing: Missing,
    /// With [`Missing::Default`]: the row to refer to, by key columns of its table as the map writes them behind the
    /// lookup, the company left out. Empty for no reference at all.
    pub default: Vec<(String, String)>,
}

/// A Dataverse lookup column that a flow fills.
#[derive(Debug, Clone)]
pub struct LookupSlot {
    /// Index of the column in the target schema.
    pub column: usize,
    /// Entity sets that the row may be in, in the order to try them. More than one: the lookup is polymorphic.
    pub sets: Vec<Arc<str>>,
    /// The key columns are the whole integration key of the set, so the cross reference knows the row.
    pub complete: bool,
    pub missing: Missing,
    /// It closes a circle of references: a row may be written before the one that it refers to, and get its reference
    /// afterwards.
    pub late: bool,
    pub(crate) name: Arc<str>,
    /// With [`Missing::Default`]: the set, and one value per part of its key, the company's left out.
    pub(crate) default: Option<(usize, Vec<Value>)>,
    /// One per set.
    pub(crate) keys: Vec<SlotKey>,
}

impl LookupSlot {
    /// The lookup column.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key columns of the table behind it, as dotted paths, for each of `sets`.
    pub fn key_columns(&self) -> impl Iterator<Item = &[Arc<str>]> {
        self.keys.iter().map(|key| &*key.columns)
    }
}

/// How the key of a row in one set is put together.
#[derive(Debug, Clone)]
pub(crate) struct SlotKey {
    pub(crate) columns: Arc<[Arc<str>]>,
    /// One per column.
    pub(crate) parts: Vec<SlotPart>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotPart {
    pub(crate) source: PartSource,
    /// Names a company: stands first in the row key, and only once.
    pub(crate) is_company: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartSource {
    /// Position in the flow's fields.
    Field(usize),
    /// The company of the row being written.
    Company,
}

/// The key of one row that a slot refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct LookupKey {
    /// Position in the flow's `lookups`.
    pub slot: usize,
    pub set: Arc<str>,
    /// Equal to the key that the map of `set` gives that row, when the slot is complete.
    pub key: RowKey,
    /// Dotted paths in the referenced table; shared by all rows of the slot.
    pub columns: Arc<[Arc<str>]>,
    /// One per column.
    pub values: Vec<Value>,
}

/// A natural key that a flow to F&O wants to know: of the row that a lookup column points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameSlot {
    /// Index of the column in the source schema that holds the id.
    pub column: usize,
    /// Where the id may lead. More than one: the lookup is polymorphic.
    pub targets: Vec<NameTarget>,
}

/// The column that holds the natural key, from hop to hop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameTarget {
    pub set: Arc<str>,
    pub path: Vec<Arc<str>>,
}

/// Natural keys that were read before a flow needs them.
pub trait LookupNames {
    fn name(&self, slot: &NameSlot, id: Uuid) -> Option<Value>;
}

/// For rows that hold no references.
impl LookupNames for () {
    fn name(&self, _slot: &NameSlot, _id: Uuid) -> Option<Value> {
        None
    }
}
