//! A table map as it is written: the `msdyn_mapping` JSON of a Dual-write map (reference 1.3).
//!
//! Owns the tolerance that stored maps need: double encoding, directions as digit, text or word, `none` for no column,
//! polymorphic paths. Knows no schema, so it judges the shape alone; [`crate::plan`] judges the meaning. Every problem
//! of a map is collected, with its place and what to do about it.

mod diff;
mod document;
mod read;
mod version;
mod write;

use std::fmt;

pub use diff::{Difference, differences};
pub use document::{Document, Encoding};
pub use version::{MapVersion, VersionFacts};

/// A table map. Left is always F&O, right is always Dataverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub name: String,
    /// At least one.
    pub legs: Vec<Leg>,
}

/// One pair of tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Display name of the data entity (`sourceSchema`).
    pub finops_entity: String,
    /// The entity's own name, where the map says it.
    pub finops_distinct_name: Option<String>,
    /// Entity set (`destinationSchema`).
    pub dataverse_set: String,
    /// X++ range expression over the F&O entity; empty means every row.
    pub finops_filter: String,
    /// OData `$filter` over the Dataverse table; empty means every row.
    pub dataverse_filter: String,
    /// At least one.
    pub fields: Vec<FieldMapping>,
}

/// One row of a map: a pair of columns and what happens between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMapping {
    pub direction: FieldDirection,
    /// `None` where the map says `none`: a Default supplies the value.
    pub finops: Option<String>,
    pub dataverse: Option<DataversePath>,
    pub transforms: Vec<Transform>,
    /// Entity set behind the first hop, where the map says it.
    pub related_set: Option<String>,
}

impl fmt::Display for FieldMapping {
    /// The row as people write it: `CUSTOMERGROUPID = msdyn_customergroupid.msdyn_groupid`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finops = self.finops.as_deref().unwrap_or("none");
        let symbol = self.direction.symbol(!self.transforms.is_empty());
        match &self.dataverse {
            Some(path) => write!(f, "{finops} {symbol} {path}"),
            None => write!(f, "{finops} {symbol} none"),
        }
    }
}

/// Which way a field mapping goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldDirection {
    ToDataverse,
    ToFinops,
    Both,
}

impl FieldDirection {
    #[must_use]
    pub const fn goes_to(self, target: crate::SystemKind) -> bool {
        match target {
            crate::SystemKind::Dataverse => matches!(self, Self::ToDataverse | Self::Both),
            crate::SystemKind::Finops => matches!(self, Self::ToFinops | Self::Both),
        }
    }

    /// The symbol of the documentation (reference 1.4).
    #[must_use]
    pub const fn symbol(self, transforms: bool) -> &'static str {
        match (self, transforms) {
            (Self::ToDataverse, false) => ">",
            (Self::ToDataverse, true) => ">>",
            (Self::ToFinops, false) => "<",
            (Self::ToFinops, true) => "<<",
            (Self::Both, false) => "=",
            (Self::Both, true) => "><",
        }
    }

    /// Digits are those of the stored maps; words and symbols are those of tools and documentation.
    fn from_word(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "1" | "foonly" | "forward" | "todataverse" | "to-dataverse" | "unidirectional" | ">" | ">>" => {
                Self::ToDataverse
            }
            "2" | "ceonly" | "backward" | "reverse" | "tofinops" | "to-finops" | "<" | "<<" => Self::ToFinops,
            "3" | "both" | "bidirectional" | "=" | "><" => Self::Both,
            _ => return None,
        })
    }
}

/// Where a field mapping ends on the Dataverse side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataversePath {
    /// The column of the mapped table itself.
    pub column: String,
    pub reference: Reference,
}

/// What follows the column, when it is a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Nothing: a plain column.
    None,
    /// Columns from hop to hop; the last one holds the natural key value. Not empty.
    Path(Vec<String>),
    /// Polymorphic: for each table the path to its key. Not empty.
    ByTable(Vec<(String, Vec<String>)>),
}

impl DataversePath {
    /// Hops in shipped maps are three at most; more than this is a slip of the pen.
    const HOPS_MAX: usize = 8;

    /// Reads `column`, `lookup.key`, `lookup.lookup.key` or `lookup.Table(key).Table(key)`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let end = rest.find(['.', '(']).unwrap_or(rest.len());
            let name = &rest[..end];
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(format!("{text:?} is not a column path: {name:?} is not a name"));
            }
            let mut inner = None;
            rest = &rest[end..];
            if let Some(after) = rest.strip_prefix('(') {
                let close = after.find(')').ok_or_else(|| format!("{text:?} lacks a closing parenthesis"))?;
                inner = Some(Self::plain_path(text, &after[..close])?);
                rest = &after[close + 1..];
            }
            steps.push((name.to_owned(), inner));
            match rest.strip_prefix('.') {
                Some("") => return Err(format!("{text:?} ends with a dot")),
                Some(after) => rest = after,
                None if rest.is_empty() => {}
                None => return Err(format!("{text:?} is not a column path: a dot is missing before {rest:?}")),
            }
        }
        if steps.len() > Self::HOPS_MAX {
            return Err(format!("{text:?} has more than {} steps", Self::HOPS_MAX));
        }
        let mut steps = steps.into_iter();
        let (column, reference) = match steps.next() {
            None => return Err("the path is empty".to_owned()),
            Some((_, Some(_))) => return Err(format!("{text:?} starts with a table instead of a lookup column")),
            Some((column, None)) => (column, steps.collect::<Vec<_>>()),
        };
        let tables = reference.iter().filter(|(_, inner)| inner.is_some()).count();
        let reference = if reference.is_empty() {
            Reference::None
        } else if tables == 0 {
            Reference::Path(reference.into_iter().map(|(name, _)| name).collect())
        } else if tables == reference.len() {
            Reference::ByTable(reference.into_iter().map(|(table, path)| (table, path.unwrap_or_default())).collect())
        } else {
            return Err(format!("{text:?} mixes columns and tables after {column}"));
        };
        Ok(Self { column, reference })
    }

    fn plain_path(text: &str, inner: &str) -> Result<Vec<String>, String> {
        let path = inner.split('.').map(|step| step.trim().to_owned()).collect::<Vec<_>>();
        let is_name = |step: &String| !step.is_empty() && step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if path.iter().all(is_name) { Ok(path) } else { Err(format!("{text:?} is not a column path: see {inner:?}")) }
    }
}

impl fmt::Display for DataversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        match &self.reference {
            Reference::None => Ok(()),
            Reference::Path(path) => write!(f, ".{}", path.join(".")),
            Reference::ByTable(tables) => {
                tables.iter().try_for_each(|(table, path)| write!(f, ".{table}({})", path.join(".")))
            }
        }
    }
}

/// What happens to a value on its way (reference 1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transform {
    /// Stands in where there is no source column or no value.
    Default { value: String },
    /// Pairs of F&O value and Dataverse value, inverted on the way back; compared without regard to case.
    ValueMap { pairs: Vec<(String, String)>, default: Option<String> },
    /// Cuts a text to this many characters.
    Truncate { length: u32 },
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { value } => write!(f, "a default of `{value}`"),
            Self::Truncate { length } => write!(f, "a cut at {length} characters"),
            Self::ValueMap { pairs, default } => {
                write!(f, "a value map of {} value{}", pairs.len(), if pairs.len() == 1 { "" } else { "s" })?;
                default.as_ref().map_or(Ok(()), |value| write!(f, ", otherwise `{value}`"))
            }
        }
    }
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The map cannot run.
    Error,
    /// The map runs; a person should know.
    Notice,
}

/// One thing that is wrong with a map.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where in the map.
    pub place: String,
    pub message: String,
    /// What a person does about it.
    pub remedy: String,
    pub severity: Severity,
    /// The code that Dual-write gives the same problem (reference 5.1); see [`checks`](crate::plan::checks).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_code: Option<&'static str>,
    /// The text that is wrong, and under it a line whose caret points at the character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

impl Problem {
    #[must_use]
    pub fn error(place: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
            remedy: remedy.into(),
            severity: Severity::Error,
            foreign_code: None,
            excerpt: None,
        }
    }

    /// A filter that cannot be read.
    #[must_use]
    pub fn of_filter(system: crate::SystemKind, text: &str, error: &crate::filter::FilterError) -> Self {
        let code = match system {
            crate::SystemKind::Dataverse => "DIPV1012",
            crate::SystemKind::Finops => "HC900",
        };
        let problem = Self::error(format!("filter on {system}"), error.to_string(), "correct the filter").foreign(code);
        Self { excerpt: Some(error.pointed(text)), ..problem }
    }

    #[must_use]
    pub fn notice(place: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, ..Self::error(place, message, remedy) }
    }

    /// The same, but nothing that keeps the map from running.
    #[must_use]
    pub fn noticed(self) -> Self {
        Self { severity: Severity::Notice, ..self }
    }

    #[must_use]
    pub const fn foreign(mut self, code: &'static str) -> Self {
        self.foreign_code = Some(code);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(code) = self.foreign_code {
            write!(f, " [{code}]")?;
        }
        write!(f, "; {}", self.remedy)
    }
}

impl Mapping {
    /// Reads a map from its JSON, or from a JSON text that holds that JSON. Fails with every problem of its shape.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        Document::parse(text).map(Document::into_mapping)
    }
}

#[cfg(test)]
mod tests;
