//! References by natural key: what a flow wants to know about other rows.
//!
//! A slot is compiled once per map, a key is built per row. Finding the rows is the host's business.

use std::sync::Arc;

use uuid::Uuid;

use crate::change::RowKey;
use crate::value::Value;

/// A Dataverse lookup column that a flow fills.
#[derive(Debug, Clone)]
pub struct LookupSlot {
    /// Index of the column in the target schema.
    pub column: usize,
    /// Entity sets that the row may be in, in the order to try them. More than one: the lookup is polymorphic.
    pub sets: Vec<Arc<str>>,
    /// The key columns are the whole integration key of the set, so the cross reference knows the row.
    pub complete: bool,
    pub(crate) name: Arc<str>,
    /// One per set.
    pub(crate) keys: Vec<SlotKey>,
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
