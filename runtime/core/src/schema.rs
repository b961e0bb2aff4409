//! The columns of one table of one system, as that system describes itself.
//!
//! Knows nothing of maps. Built by a connector from the system's metadata, or from schema files.

use std::collections::HashMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use crate::change::SystemKind;
use crate::value::Kind;

/// Digits after the point by the code of a currency.
pub type CurrencyScales = Arc<[(Arc<str>, u8)]>;

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// The name on the wire: PascalCase property (F&O) or logical name (Dataverse).
    pub name: Arc<str>,
    pub kind: Kind,
    /// Longest text the system stores, in characters; `None` where the system does not say.
    pub length_max: Option<u32>,
    /// Digits after the point that the system keeps.
    pub scale: Option<u8>,
    /// For an amount that keeps as many digits as the currency of its row (Dataverse): the currencies by their code, as
    /// far as they are known. `scale` is then the greatest of them.
    pub scale_of_currency: Option<CurrencyScales>,
    pub required: bool,
    /// Calculated or kept by the system: never written.
    pub read_only: bool,
    pub minimum: Option<Decimal>,
    pub maximum: Option<Decimal>,
    /// Options of a choice: symbol or label, and its number.
    pub options: Arc<[(Arc<str>, i64)]>,
    /// The kind was guessed, not told by the system: what follows from it is a notice, never an error.
    pub inferred: bool,
    /// The name of the enumeration behind a choice of F&O, where the system says it: `NoYes`.
    pub enumeration: Option<Arc<str>>,
    /// For a lookup: what it points to.
    pub lookup: Option<Lookup>,
}

impl Column {
    #[must_use]
    pub fn new(name: impl AsRef<str>, kind: Kind) -> Self {
        Self {
            name: Arc::from(name.as_ref()),
            kind,
            length_max: None,
            scale: None,
            scale_of_currency: None,
            required: false,
            read_only: false,
            minimum: None,
            maximum: None,
            options: Arc::from([]),
            inferred: false,
            enumeration: None,
            lookup: None,
        }
    }
}

/// What a lookup column points to. More than one table makes it polymorphic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    pub targets: Vec<LookupTarget>,
}

/// One table that a lookup can point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupTarget {
    /// Logical name of the table, for instance `cdm_company`.
    pub table: Arc<str>,
    /// Entity set of the table, for instance `cdm_companies`.
    pub set: Arc<str>,
    /// The single-valued navigation property to bind; case-sensitive (reference 7.2).
    pub navigation_property: Arc<str>,
}

/// A key that the system itself enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlternateKey {
    pub name: Arc<str>,
    /// Column names of this table; a lookup column counts by its id.
    pub columns: Vec<Arc<str>>,
}

/// One table.
#[derive(Debug, Clone)]
pub struct Schema {
    pub system: SystemKind,
    /// Entity name (F&O) or logical name (Dataverse).
    pub table: Arc<str>,
    /// What stands in the URL: public collection (F&O) or entity set (Dataverse).
    pub set: Arc<str>,
    /// The GUID column that identifies a row (Dataverse); `None` for F&O, whose identity is its key.
    pub primary_id: Option<usize>,
    /// Indices of the key columns of the entity (F&O), `dataAreaId` among them when there is one.
    pub key: Vec<usize>,
    pub alternate_keys: Vec<AlternateKey>,
    /// Whether rows have versions, by which changes are found (Dataverse: `versionnumber`, which virtual and elastic
    /// tables lack). `None` where nobody said.
    pub versioned: Option<bool>,
    /// Whether the system can be asked for the changes of the table (Dataverse: change tracking). `None` where nobody
    /// said.
    pub tracked: Option<bool>,
    /// The column that names the company: `dataAreaId` (F&O) or the lookup to `cdm_company` (Dataverse).
    pub company: Option<usize>,
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
}

impl Schema {
    /// A schema with these columns. Names are found without regard to case, because a table map writes F&O names in
    /// upper case (reference 8.1); of two columns that differ in case only the first is found.
    #[must_use]
    pub fn new(system: SystemKind, table: &str, set: &str, columns: Vec<Column>) -> Self {
        let mut by_name = HashMap::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            by_name.entry(column.name.to_ascii_lowercase()).or_insert(index);
        }
        Self {
            system,
            table: Arc::from(table),
            set: Arc::from(set),
            primary_id: None,
            key: Vec::new(),
            alternate_keys: Vec::new(),
            versioned: None,
            tracked: None,
            company: None,
            columns,
            by_name,
        }
    }

    /// The same table with only these columns, in this order; indices of keys are carried over, and what refers to a
    /// dropped column is dropped. Rows of a wide table are then as short as the maps that read them.
    #[must_use]
    pub fn narrow(&self, keep: &[usize]) -> Self {
        let position = |index: usize| keep.iter().position(|&kept| kept == index);
        let mut narrowed = Self::new(
            self.system,
            &self.table,
            &self.set,
            keep.iter().map(|&index| self.columns[index].clone()).collect(),
        );
        narrowed.primary_id = self.primary_id.and_then(position);
        narrowed.key = self.key.iter().filter_map(|&index| position(index)).collect();
        narrowed.alternate_keys = self.alternate_keys.clone();
        narrowed.versioned = self.versioned;
        narrowed.tracked = self.tracked;
        narrowed.company = self.company.and_then(position);
        narrowed
    }

    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The index of a column by its name, in any case.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    #[must_use]
    pub fn column(&self, index: usize) -> &Column {
        &self.columns[index]
    }
}
