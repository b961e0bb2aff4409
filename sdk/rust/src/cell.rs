//! One cell of a row, and the kinds a column can have.

use crate::decimal::Decimal;

/// The kind of a column, by the number that crosses the boundary (`wit/types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    Boolean = 1,
    Int64 = 2,
    Float64 = 3,
    Decimal = 4,
    Text = 5,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp = 6,
    /// Days since 1970-01-01.
    Date = 7,
    Guid = 8,
    Bytes = 9,
    /// One JSON document as text.
    Json = 10,
    /// The symbol (F&O) or the option's number as text (Dataverse).
    Choice = 11,
    /// As choice, separated by commas.
    MultiChoice = 12,
    /// An amount in the currency of its row.
    Money = 13,
    /// The id of the row that is referred to.
    Lookup = 14,
}

/// How the cells of a kind lie in a column's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Every cell has that many bytes.
    Fixed(usize),
    /// Offsets into UTF-8.
    Text,
    /// Offsets into anything.
    Bytes,
}

impl Kind {
    /// The number that crosses the boundary.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The kind with that number; None for one that this SDK does not know yet.
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

    /// As `describe` and messages write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Decimal => "decimal",
            Self::Text => "text",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Guid => "guid",
            Self::Bytes => "bytes",
            Self::Json => "json",
            Self::Choice => "choice",
            Self::MultiChoice => "multi-choice",
            Self::Money => "money",
            Self::Lookup => "lookup",
        }
    }

    pub(crate) const fn layout(self) -> Layout {
        match self {
            Self::Boolean => Layout::Fixed(1),
            Self::Date => Layout::Fixed(4),
            Self::Int64 | Self::Float64 | Self::Timestamp => Layout::Fixed(8),
            Self::Decimal | Self::Money | Self::Guid | Self::Lookup => Layout::Fixed(16),
            Self::Text | Self::Json | Self::Choice | Self::MultiChoice => Layout::Text,
            Self::Bytes => Layout::Bytes,
        }
    }
}

/// One cell, read or to be written.
///
/// Read, `Absent` means that the sender said nothing about the column. Written, `Absent` leaves the column as it is and
/// `Null` makes it empty.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Cell<'a> {
    #[default]
    Absent,
    Null,
    Boolean(bool),
    Int(i64),
    Float(f64),
    /// Decimal and money.
    Decimal(Decimal),
    /// Text, JSON, choice and multi-choice.
    Text(&'a str),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Guid and lookup.
    Guid([u8; 16]),
    Bytes(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// Null or absent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Absent | Self::Null)
    }

    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    #[must_use]
    pub const fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    #[must_use]
    pub const fn decimal(&self) -> Option<Decimal> {
        match self {
            Self::Decimal(value) => Some(*value),
            _ => None,
        }
    }

    #[must_use]
    pub const fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    #[must_use]
    pub const fn boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    #[must_use]
    pub const fn guid(&self) -> Option<[u8; 16]> {
        match self {
            Self::Guid(value) => Some(*value),
            _ => None,
        }
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Cell<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl From<bool> for Cell<'_> {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for Cell<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Cell<'_> {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<Decimal> for Cell<'_> {
    fn from(value: Decimal) -> Self {
        Self::Decimal(value)
    }
}

impl From<[u8; 16]> for Cell<'_> {
    fn from(value: [u8; 16]) -> Self {
        Self::Guid(value)
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    /// None makes the column empty.
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
