//! Filters of a table map: one tree for both grammars, evaluated here, on rows of either system.
//!
//! A filter is read by the grammar of its side ([`parse_finops`], [`parse_dataverse`]) and bound to the columns of its
//! table ([`Filter::bind`]). Every error says at which character. How empty values compare differs:
//!
//! * F&O has no nulls: a missing value is the empty value of its kind, so `Group != "A"` takes a row without a group,
//!   and `Amount < 1` takes a row without an amount.
//! * Dataverse: a null equals null only, is unequal to every value, and is neither less nor greater than one; `''` is
//!   stored as null and means null.
//!
//! Texts compare without regard to case and trailing blanks on both sides (reference 8.8).

mod dataverse;
mod finops;

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

/// What a filter says, before anyone looked at columns.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Compare { column: ColumnName, comparison: Comparison, literal: Literal, literal_at: usize },
    Match { column: ColumnName, pattern: Pattern },
}

/// A column as it is written, and at which character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnName {
    pub name: String,
    pub at: usize,
}

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
    /// `EnumName::Symbol`: the symbol.
    Member(String),
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
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at character {}", self.message, self.at + 1)
    }
}

impl std::error::Error for FilterError {}

/// Parentheses and negations deep; a filter that a person wrote has a handful, and reading goes one call deeper each.
const DEPTH_MAX: usize = 64;

/// A filter bound to the columns of one table. The default takes every row.
#[derive(Debug, Clone)]
pub struct Filter {
    node: Node,
    columns: Vec<usize>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { node: Node::Constant(true), columns: Vec::new() }
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
        pattern: Pattern,
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
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let expression = match system {
            SystemKind::Finops => parse_finops(text)?,
            SystemKind::Dataverse => parse_dataverse(text)?,
        };
        Self::bind(&expression, schema)
    }

    /// Finds the columns and turns the literals into values of their kinds.
    pub fn bind(expression: &Expression, schema: &Schema) -> Result<Self, FilterError> {
        let mut columns = Vec::new();
        let node = bind(expression, schema, &mut columns)?;
        columns.sort_unstable();
        columns.dedup();
        Ok(Self { node, columns })
    }

    /// Indices of the columns that the filter looks at.
    #[must_use]
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether the row passes.
    #[must_use]
    pub fn matches(&self, row: &[Value]) -> bool {
        self.node.matches(row)
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
                return Err(FilterError { at: column.at, message });
            }
            let pattern = pattern.to_lower();
            let null = schema.system == SystemKind::Finops && pattern.matches("");
            Node::Match { column: index, pattern, null }
        }
        Expression::Compare { column, comparison, literal, literal_at } => {
            let index = find(column, schema, columns)?;
            compare(schema, index, *comparison, literal).map_err(|message| FilterError { at: *literal_at, message })?
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
    let index = index
        .ok_or_else(|| FilterError { at: name.at, message: format!("{} has no column {}", schema.table, name.name) })?;
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
        (Kind::Choice, Literal::Text(symbol) | Literal::Member(symbol)) => {
            let blank = symbol.trim().is_empty();
            if !blank && !column.options.is_empty() && convert::option_named(column, symbol).is_none() {
                return Err(format!("{} has no option {symbol:?}", column.name));
            }
            text(symbol)
        }
        (Kind::Choice, Literal::Boolean(value)) => text(if *value { "yes" } else { "no" }),
        (Kind::Text | Kind::Json | Kind::MultiChoice, Literal::Text(written) | Literal::Member(written)) => {
            text(written)
        }
        (Kind::Text | Kind::Json | Kind::MultiChoice, Literal::Number(number)) => text(&number.to_string()),
        (Kind::Int64 | Kind::Decimal | Kind::Money | Kind::Float64, Literal::Number(number)) => {
            Operand::Number(*number)
        }
        (Kind::Int64 | Kind::Decimal | Kind::Money | Kind::Float64, Literal::Text(written)) => {
            Operand::Number(convert::parse_decimal(written).ok_or_else(misfit)?)
        }
        (Kind::Boolean, Literal::Boolean(value)) => Operand::Boolean(*value),
        (Kind::Boolean, Literal::Text(written) | Literal::Member(written)) => {
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
            Self::IsNull(column) => match row.get(*column) {
                None => true,
                Some(Value::Text(text)) => text.trim_end().is_empty(),
                Some(value) => value.is_empty(),
            },
            Self::Compare { column, comparison, operand, null } => {
                let value = row.get(*column).unwrap_or(&Value::Absent);
                let order = if value.is_empty() {
                    match null {
                        NullOrder::Is(order) => Some(*order),
                        NullOrder::Nothing => None,
                    }
                } else {
                    operand.order(value)
                };
                match order {
                    Some(order) => comparison.holds(order),
                    None => *comparison == Comparison::NotEqual,
                }
            }
            Self::Match { column, pattern, null } => match row.get(*column) {
                Some(Value::Text(text)) => pattern.matches(&text.trim_end().to_lowercase()),
                _ => *null,
            },
        }
    }
}

impl Pattern {
    fn to_lower(&self) -> Self {
        match self {
            Self::StartsWith(text) => Self::StartsWith(text.to_lowercase()),
            Self::EndsWith(text) => Self::EndsWith(text.to_lowercase()),
            Self::Contains(text) => Self::Contains(text.to_lowercase()),
            Self::Like(text) => Self::Like(text.to_lowercase()),
        }
    }

    /// Whether a lower-case text fits a lower-case pattern.
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::StartsWith(start) => text.starts_with(start.as_str()),
            Self::EndsWith(end) => text.ends_with(end.as_str()),
            Self::Contains(part) => text.contains(part.as_str()),
            Self::Like(pattern) => like(pattern, text),
        }
    }
}

/// Greedy matching with one point of return: linear for sane patterns, never worse than pattern times text.
fn like(pattern: &str, text: &str) -> bool {
    let pattern = pattern.chars().collect::<Vec<_>>();
    let text = text.chars().collect::<Vec<_>>();
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut back {
                Some((star, from)) => {
                    *from += 1;
                    (p, t) = (*star + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&left| left == '*')
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
        Err(FilterError { at: self.at, message: message.into() })
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
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
