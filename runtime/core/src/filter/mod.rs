//! Filters of a table map: one tree for both grammars, evaluated here, on rows of either system.
//!
//! A filter is read by the grammar of its side ([`parse_finops`], [`parse_dataverse`]) and bound to the columns of its
//! table ([`Filter::bind`]). Every error says at which character. How empty values compare differs:
//!
//! * F&O has no nulls: a missing value is the empty value of its kind, so `Group != "A"` takes a row without a group,
//!   and `Amount < 1` takes a row without an amount ([`Nulls::EmptyValue`], the default).
//! * An F&O entity is a view, though: what an outer join finds no row for is a null of SQL, which no comparison takes,
//!   not even `Group == ""` ([`Nulls::Unknown`]; Dual-write behaves so for such columns, and only for such).
//! * Dataverse: a null equals null only, is unequal to every value, and is neither less nor greater than one; `''` is
//!   stored as null and means null.
//!
//! Texts compare without regard to case and trailing blanks on both sides (reference 8.8).

mod dataverse;
mod finops;
mod pattern;
mod range;
mod remote;
mod write;

use std::cmp::Ordering;
use std::fmt;

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::change::SystemKind;
use crate::convert;
use crate::schema::{Column, Schema};
use crate::value::{Kind, Value};

pub use dataverse::parse_dataverse;
pub use finops::parse_finops;
use pattern::Test;
pub use remote::RemoteQuery;
pub use write::Written;

/// What a filter says, before anyone looked at columns.
///
/// Two trees are equal when they say the same, wherever it stands in their texts.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Compare { column: ColumnName, comparison: Comparison, literal: Literal, literal_at: Place },
    Match { column: ColumnName, pattern: Pattern },
}

/// A column as it is written, and at which character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnName {
    pub name: String,
    pub at: Place,
}

/// A character of the filter's text, counted from 0. It is no part of what the filter says: all places are equal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place(pub usize);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Null,
    Text(String),
    Number(Decimal),
    Boolean(bool),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Instant(i64),
    Guid(Uuid),
    /// `EnumName::Symbol`.
    Member {
        enumeration: String,
        symbol: String,
    },
}

/// A text test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    /// `*` stands for any text, `?` for one character.
    Like(String),
}

/// Why a filter is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// The character, counted from 0.
    pub at: usize,
    pub message: String,
    /// Index of the column whose kind is the reason.
    pub column: Option<usize>,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at character {}", self.message, self.at + 1)
    }
}

impl std::error::Error for FilterError {}

impl FilterError {
    /// The part of `text` around the character, and under it a line whose caret points at it.
    #[must_use]
    pub fn pointed(&self, text: &str) -> String {
        // What fits a line of a terminal beside an indent.
        const AROUND: usize = 50;
        let characters = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<Vec<_>>();
        let at = self.at.min(characters.len());
        let start = at.saturating_sub(AROUND);
        let end = (at + AROUND).min(characters.len());
        let (before, after) = (if start == 0 { "" } else { "…" }, if end == characters.len() { "" } else { "…" });
        let shown = characters[start..end].iter().collect::<String>();
        let indent = " ".repeat(at - start + before.chars().count());
        format!("{before}{shown}{after}\n{indent}^")
    }
}

/// What a value that is not there means to a filter of F&O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nulls {
    /// The empty value of its kind: a blank text, 0, 1900-01-01, the first option.
    #[default]
    EmptyValue,
    /// Nothing can be said of it: no comparison takes the row, and no negation of one either. Blank texts count as
    /// not there, since OData does not tell the two apart.
    Unknown,
}

/// Parentheses and negations deep; a filter that a person wrote has a handful, and reading goes one call deeper each.
const DEPTH_MAX: usize = 64;

/// A filter bound to the columns of one table. The default takes every row.
#[derive(Debug, Clone)]
pub struct Filter {
    node: Node,
    columns: Vec<usize>,
    nulls: Nulls,
    /// `None` where there is no filter.
    expression: Option<Expression>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { node: Node::Constant(true), columns: Vec::new(), nulls: Nulls::EmptyValue, expression: None }
    }
}

#[derive(Debug, Clone)]
enum Node {
    Constant(bool),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    /// The value is null.
    IsNull(usize),
    Compare {
        column: usize,
        comparison: Comparison,
        operand: Operand,
        null: NullOrder,
    },
    Match {
        column: usize,
        test: Test,
        null: bool,
    },
}

/// What a column is compared with, in its kind.
#[derive(Debug, Clone)]
enum Operand {
    /// In lower case, without trailing blanks.
    Text(String),
    Number(Decimal),
    Boolean(bool),
    Instant(i64),
    Guid(Uuid),
}

/// What no value compares as.
#[derive(Debug, Clone, Copy)]
enum NullOrder {
    /// The empty value of its kind (F&O), which stands in this order to the operand.
    Is(Ordering),
    /// Nothing (Dataverse).
    Nothing,
}

impl Filter {
    /// Reads the filter of one side. A blank text takes every row.
    pub fn read(system: SystemKind, text: &str, schema: &Schema) -> Result<Self, FilterError> {
        Self::read_with(system, text, schema, Nulls::EmptyValue)
    }

    /// The same, where F&O's missing values mean something else. Dataverse has a meaning of its own for them.
    pub fn read_with(system: SystemKind, text: &str, schema: &Schema, nulls: Nulls) -> Result<Self, FilterError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let expression = match system {
            SystemKind::Finops => parse_finops(text)?,
            SystemKind::Dataverse => parse_dataverse(text)?,
        };
        let nulls = if system == SystemKind::Finops { nulls } else { Nulls::EmptyValue };
        Ok(Self { nulls, ..Self::bind(expression, schema)? })
    }

    /// Finds the columns and turns the literals into values of their kinds.
    pub fn bind(expression: Expression, schema: &Schema) -> Result<Self, FilterError> {
        let mut columns = Vec::new();
        let node = bind(&expression, schema, &mut columns)?;
        columns.sort_unstable();
        columns.dedup();
        Ok(Self { node, columns, nulls: Nulls::EmptyValue, expression: Some(expression) })
    }

    /// Indices of the columns that the filter looks at.
    #[must_use]
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether every row passes.
    #[must_use]
    pub const fn takes_everything(&self) -> bool {
        matches!(self.node, Node::Constant(true))
    }

    /// Whether the row passes.
    #[must_use]
    pub fn matches(&self, row: &[Value]) -> bool {
        match self.nulls {
            Nulls::EmptyValue => self.node.matches(row),
            Nulls::Unknown => self.node.truth(row) == Some(true),
        }
    }

    /// The condition for the system's own query, so that only rows are read that may pass: it never leaves out a row
    /// that [`Filter::matches`] takes. `schema` is the one the filter was bound to. `None` when nothing can be left
    /// out.
    #[must_use]
    pub fn remote(&self, schema: &Schema) -> Option<RemoteQuery> {
        remote::query(self.expression.as_ref()?, schema, self.nulls)
    }
}

fn bind(expression: &Expression, schema: &Schema, columns: &mut Vec<usize>) -> Result<Node, FilterError> {
    Ok(match expression {
        Expression::And(list) => Node::And(bind_all(list, schema, columns)?),
        Expression::Or(list) => Node::Or(bind_all(list, schema, columns)?),
        Expression::Not(inner) => Node::Not(Box::new(bind(inner, schema, columns)?)),
        Expression::Match { column, pattern } => {
            let index = find(column, schema, columns)?;
            let kind = schema.column(index).kind;
            if !matches!(kind, Kind::Text | Kind::Json | Kind::Choice | Kind::MultiChoice) {
                let message = format!("{} is a {kind:?} and has no text to search", column.name);
                return Err(FilterError { column: Some(index), at: column.at.0, message });
            }
            let test = Test::new(pattern);
            let null = schema.system == SystemKind::Finops && test.matches("");
            Node::Match { column: index, test, null }
        }
        Expression::Compare { column, comparison, literal, literal_at } => {
            let index = find(column, schema, columns)?;
            compare(schema, index, *comparison, literal).map_err(|message| FilterError {
                column: Some(index),
                at: literal_at.0,
                message,
            })?
        }
    })
}

fn bind_all(list: &[Expression], schema: &Schema, columns: &mut Vec<usize>) -> Result<Vec<Node>, FilterError> {
    list.iter().map(|expression| bind(expression, schema, columns)).collect()
}

fn find(name: &ColumnName, schema: &Schema, columns: &mut Vec<usize>) -> Result<usize, FilterError> {
    // A lookup is filtered by the name of its value property (reference 7.2).
    let bare = name.name.strip_prefix('_').and_then(|name| name.strip_suffix("_value"));
    let index = schema.index_of(&name.name).or_else(|| bare.and_then(|bare| schema.index_of(bare)));
    let index = index.ok_or_else(|| FilterError {
        column: None,
        at: name.at.0,
        message: format!("{} has no column {}", schema.table, name.name),
    })?;
    columns.push(index);
    Ok(index)
}

fn compare(schema: &Schema, index: usize, comparison: Comparison, literal: &Literal) -> Result<Node, String> {
    let column = schema.column(index);
    let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    let is_null = match literal {
        Literal::Null => true,
        Literal::Text(text) => schema.system == SystemKind::Dataverse && text.trim_end().is_empty(),
        _ => false,
    };
    if is_null {
        return match comparison {
            Comparison::Equal => Ok(Node::IsNull(index)),
            Comparison::NotEqual => Ok(Node::Not(Box::new(Node::IsNull(index)))),
            // Null is neither less nor greater than anything.
            _ => Ok(Node::Constant(false)),
        };
    }
    if ordered && matches!(column.kind, Kind::Choice | Kind::MultiChoice | Kind::Guid | Kind::Lookup) {
        return Err(format!("{} is a {:?}, which has no order; use equal or not equal", column.name, column.kind));
    }
    let operand = operand(column, literal)?;
    let null = match schema.system {
        SystemKind::Dataverse => NullOrder::Nothing,
        SystemKind::Finops => operand.order(&convert::finops_empty(column)).map_or(NullOrder::Nothing, NullOrder::Is),
    };
    Ok(Node::Compare { column: index, comparison, operand, null })
}

/// The literal as a value of the column's kind.
fn operand(column: &Column, literal: &Literal) -> Result<Operand, String> {
    let misfit = || format!("{} is a {:?} and cannot be compared with this", column.name, column.kind);
    let text = |text: &str| Operand::Text(text.trim_end().to_lowercase());
    Ok(match (column.kind, literal) {
        (Kind::Choice, Literal::Number(number)) => {
            let number = i64::try_from(*number).map_err(|_| misfit())?;
            match column.options.iter().find(|(_, own)| *own == number) {
                Some((symbol, _)) => text(symbol),
                None => return Err(format!("{} has no option {number}", column.name)),
            }
        }
        (Kind::Choice, Literal::Text(symbol) | Literal::Member { symbol, .. }) => {
            if symbol.trim().is_empty() || column.options.is_empty() {
                return Ok(text(symbol));
            }
            // An option may be meant by its number, which is then a text like any other.
            let numbered = || {
                let number = symbol.trim().parse::<i64>().ok()?;
                column.options.iter().find(|(_, own)| *own == number)
            };
            match convert::option_named(column, symbol.trim()).or_else(numbered) {
                Some((symbol, _)) => text(symbol),
                None => return Err(format!("{} has no option {symbol:?}", column.name)),
            }
        }
        (Kind::Choice, Literal::Boolean(value)) => text(if *value { "yes" } else { "no" }),
        (
            Kind::Text | Kind::Json | Kind::MultiChoice,
            Literal::Text(written) | Literal::Member { symbol: written, .. },
        ) => text(written),
        (Kind::Text | Kind::Json | Kind::MultiChoice, Literal::Number(number)) => text(&number.to_string()),
        (Kind::Int64 | Kind::Decimal | Kind::Money | Kind::Float64, Literal::Number(number)) => {
            Operand::Number(*number)
        }
        (Kind::Int64 | Kind::Decimal | Kind::Money | Kind::Float64, Literal::Text(written)) => {
            // An option of Dataverse may be meant by its label.
            let labelled = || convert::option_named(column, written.trim()).map(|(_, number)| Decimal::from(*number));
            Operand::Number(convert::parse_decimal(written).or_else(labelled).ok_or_else(misfit)?)
        }
        (Kind::Boolean, Literal::Boolean(value)) => Operand::Boolean(*value),
        (Kind::Boolean, Literal::Text(written) | Literal::Member { symbol: written, .. }) => {
            Operand::Boolean(convert::parse_boolean(written.trim()).ok_or_else(misfit)?)
        }
        (Kind::Boolean, Literal::Number(number)) => {
            Operand::Boolean(convert::parse_boolean(&number.normalize().to_string()).ok_or_else(misfit)?)
        }
        (Kind::Timestamp | Kind::Date, Literal::Instant(micros)) => Operand::Instant(*micros),
        (Kind::Timestamp | Kind::Date, Literal::Text(written)) => {
            Operand::Instant(convert::parse_written_timestamp(written).ok_or_else(misfit)?)
        }
        (Kind::Guid | Kind::Lookup, Literal::Guid(id)) => Operand::Guid(*id),
        (Kind::Guid | Kind::Lookup, Literal::Text(written)) => {
            Operand::Guid(Uuid::parse_str(written.trim()).map_err(|_| misfit())?)
        }
        _ => return Err(misfit()),
    })
}

impl Operand {
    /// Whether `value` equals this operand; a value of another kind does not.
    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            // What differs in length or in its first letters, as most texts do, is told apart without more ado.
            (Self::Text(own), Value::Text(text)) => {
                let text = text.trim_end();
                (text.len() == own.len() && text.eq_ignore_ascii_case(own))
                    || (!text.is_ascii() && text.to_lowercase() == *own)
            }
            _ => self.order(value) == Some(Ordering::Equal),
        }
    }

    /// How `value` stands to this operand; `None` when they are of different kinds.
    fn order(&self, value: &Value) -> Option<Ordering> {
        Some(match (self, value) {
            (Self::Text(own), Value::Text(text)) => {
                let text = text.trim_end();
                if text.is_ascii() && own.is_ascii() {
                    let lower = text.bytes().map(|byte| byte.to_ascii_lowercase());
                    lower.cmp(own.bytes())
                } else {
                    text.to_lowercase().as_str().cmp(own)
                }
            }
            (Self::Number(own), Value::Int(number)) => Decimal::from(*number).cmp(own),
            (Self::Number(own), Value::Decimal(number)) => number.cmp(own),
            (Self::Number(own), Value::Float(number)) => Decimal::try_from(*number).ok()?.cmp(own),
            (Self::Boolean(own), Value::Boolean(value)) => value.cmp(own),
            (Self::Instant(own), Value::Timestamp(micros)) => micros.cmp(own),
            (Self::Instant(own), Value::Date(days)) => (i64::from(*days) * crate::value::MICROS_PER_DAY).cmp(own),
            (Self::Guid(own), Value::Guid(id)) => id.cmp(own),
            _ => return None,
        })
    }
}

impl Node {
    fn matches(&self, row: &[Value]) -> bool {
        match self {
            Self::Constant(value) => *value,
            Self::And(list) => list.iter().all(|node| node.matches(row)),
            Self::Or(list) => list.iter().any(|node| node.matches(row)),
            Self::Not(inner) => !inner.matches(row),
            Self::IsNull(column) => row.get(*column).is_none_or(is_missing),
            Self::Compare { column, comparison, operand, null } => {
                let value = row.get(*column).unwrap_or(&Value::Absent);
                let order = if value.is_empty() {
                    match null {
                        NullOrder::Is(order) => Some(*order),
                        NullOrder::Nothing => None,
                    }
                } else {
                    match comparison {
                        Comparison::Equal => return operand.equals(value),
                        Comparison::NotEqual => return !operand.equals(value),
                        _ => operand.order(value),
                    }
                };
                match order {
                    Some(order) => comparison.holds(order),
                    None => *comparison == Comparison::NotEqual,
                }
            }
            Self::Match { column, test, null } => match row.get(*column) {
                Some(Value::Text(text)) => test.matches(text.trim_end()),
                _ => *null,
            },
        }
    }

    /// The logic of SQL: `None` where a value is missing that decides.
    fn truth(&self, row: &[Value]) -> Option<bool> {
        match self {
            Self::Constant(value) => Some(*value),
            Self::And(list) => decided(list, row, false),
            Self::Or(list) => decided(list, row, true),
            Self::Not(inner) => inner.truth(row).map(|is| !is),
            Self::IsNull(_) => Some(self.matches(row)),
            Self::Compare { column, .. } | Self::Match { column, .. } => {
                (!row.get(*column).is_none_or(is_missing)).then(|| self.matches(row))
            }
        }
    }
}

/// One node that is `decisive` decides; else one that is unknown leaves the whole unknown.
fn decided(list: &[Node], row: &[Value], decisive: bool) -> Option<bool> {
    let mut told = Some(!decisive);
    for node in list {
        match node.truth(row) {
            Some(is) if is == decisive => return Some(decisive),
            Some(_) => {}
            None => told = None,
        }
    }
    told
}

fn is_missing(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.trim_end().is_empty(),
        value => value.is_empty(),
    }
}

/// Reads characters with their positions; what both grammars need.
struct Reader {
    characters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn new(text: &str) -> Self {
        Self { characters: text.chars().collect(), at: 0, depth: 0 }
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, FilterError> {
        Err(FilterError { column: None, at: self.at, message: message.into() })
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn peek_after(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }

    /// Takes `symbol` if it comes next.
    fn take(&mut self, symbol: &str) -> bool {
        let taken = symbol.chars().enumerate().all(|(ahead, c)| self.characters.get(self.at + ahead) == Some(&c));
        if taken {
            self.at += symbol.chars().count();
        }
        taken
    }

    /// The characters from here on that belong to a word.
    fn word(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek().is_some_and(&belongs) {
            self.at += 1;
        }
        self.characters[start..self.at].iter().collect()
    }

    fn deeper(&mut self) -> Result<(), FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.error(format!("the filter is nested more than {DEPTH_MAX} deep"));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), FilterError> {
        self.skip_blanks();
        match self.peek() {
            None => Ok(()),
            Some(c) => self.error(format!("unexpected {c:?}")),
        }
    }
}

fn joined(mut list: Vec<Expression>, join: impl Fn(Vec<Expression>) -> Expression) -> Expression {
    match list.pop() {
        Some(only) if list.is_empty() => only,
        Some(last) => {
            list.push(last);
            join(list)
        }
        None => join(list),
    }
}

#[cfg(test)]
mod tests;
