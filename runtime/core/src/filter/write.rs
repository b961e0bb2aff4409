//! A filter's tree, written again in the grammar of a side.

use std::fmt;

use super::{Comparison, Expression, Literal, Pattern};
use crate::change::SystemKind;
use crate::value::{MICROS_PER_DAY, format_date, format_timestamp};

/// A tree in the grammar of a side; reading it again gives the same tree.
///
/// A tree that was read by the other side's grammar may hold what this one cannot say: it is then written in words that
/// no reader takes (`column like "a*b"` on Dataverse), never in words that mean something else.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    expression: &'a Expression,
    system: SystemKind,
}

impl Expression {
    #[must_use]
    pub const fn written(&self, system: SystemKind) -> Written<'_> {
        Written { expression: self, system }
    }
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.system {
            SystemKind::Finops => finops(f, self.expression, true),
            SystemKind::Dataverse => dataverse(f, self.expression, true),
        }
    }
}

type Write = fn(&mut fmt::Formatter<'_>, &Expression, bool) -> fmt::Result;

/// A chain, in brackets unless it is the whole.
fn chain(
    f: &mut fmt::Formatter<'_>,
    list: &[Expression],
    between: &str,
    is_whole: bool,
    write_one: Write,
) -> fmt::Result {
    if !is_whole {
        f.write_str("(")?;
    }
    for (position, one) in list.iter().enumerate() {
        if position > 0 {
            f.write_str(between)?;
        }
        write_one(f, one, false)?;
    }
    if is_whole { Ok(()) } else { f.write_str(")") }
}

fn finops(f: &mut fmt::Formatter<'_>, expression: &Expression, is_whole: bool) -> fmt::Result {
    match expression {
        Expression::And(list) => chain(f, list, " && ", is_whole, finops),
        Expression::Or(list) => chain(f, list, " || ", is_whole, finops),
        Expression::Not(inner) => {
            f.write_str("!(")?;
            finops(f, inner, true)?;
            f.write_str(")")
        }
        Expression::Compare { column, comparison, literal, .. } => {
            let symbol = match comparison {
                Comparison::Equal => "==",
                Comparison::NotEqual => "!=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
            };
            write!(f, "{} {symbol} ", column.name)?;
            finops_literal(f, literal)
        }
        Expression::Match { column, pattern } => {
            let pattern = match pattern {
                Pattern::StartsWith(text) => format!("{text}*"),
                Pattern::EndsWith(text) => format!("*{text}"),
                Pattern::Contains(text) => format!("*{text}*"),
                Pattern::Like(pattern) => pattern.clone(),
            };
            write!(f, "{} like ", column.name)?;
            finops_text(f, &pattern)
        }
    }
}

fn finops_literal(f: &mut fmt::Formatter<'_>, literal: &Literal) -> fmt::Result {
    match literal {
        Literal::Null => f.write_str("null"),
        Literal::Text(text) => finops_text(f, text),
        Literal::Number(number) => write!(f, "{number}"),
        Literal::Boolean(value) => write!(f, "{value}"),
        Literal::Instant(micros) if micros.rem_euclid(MICROS_PER_DAY) == 0 => {
            let days = i32::try_from(micros.div_euclid(MICROS_PER_DAY)).unwrap_or(i32::MAX);
            let date = format_date(days);
            let mut parts = date.rsplitn(3, '-');
            let mut part = || parts.next().unwrap_or_default();
            write!(f, "{}\\{}\\{}", part(), part(), part())
        }
        Literal::Instant(micros) => f.write_str(&format_timestamp(*micros)),
        Literal::Guid(id) => finops_text(f, &id.to_string()),
        Literal::Member { enumeration, symbol } => write!(f, "{enumeration}::{symbol}"),
    }
}

fn finops_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn dataverse(f: &mut fmt::Formatter<'_>, expression: &Expression, is_whole: bool) -> fmt::Result {
    match expression {
        Expression::And(list) => chain(f, list, " and ", is_whole, dataverse),
        Expression::Or(list) => chain(f, list, " or ", is_whole, dataverse),
        Expression::Not(inner) => {
            f.write_str("not (")?;
            dataverse(f, inner, true)?;
            f.write_str(")")
        }
        Expression::Compare { column, comparison, literal, .. } => {
            write!(f, "{} {} ", column.name, word(*comparison))?;
            dataverse_literal(f, literal)
        }
        Expression::Match { column, pattern } => {
            let (function, text) = match pattern {
                Pattern::StartsWith(text) => ("startswith", text),
                Pattern::EndsWith(text) => ("endswith", text),
                Pattern::Contains(text) => ("contains", text),
                Pattern::Like(pattern) => ("like", pattern),
            };
            write!(f, "{function}({},{})", column.name, quoted(text))
        }
    }
}

fn dataverse_literal(f: &mut fmt::Formatter<'_>, literal: &Literal) -> fmt::Result {
    match literal {
        Literal::Null => f.write_str("null"),
        Literal::Text(text) | Literal::Member { symbol: text, .. } => f.write_str(&quoted(text)),
        Literal::Number(number) => write!(f, "{number}"),
        Literal::Boolean(value) => write!(f, "{value}"),
        Literal::Instant(micros) => f.write_str(&format_timestamp(*micros)),
        Literal::Guid(id) => write!(f, "{id}"),
    }
}

/// The operator of OData.
pub(super) const fn word(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "eq",
        Comparison::NotEqual => "ne",
        Comparison::Less => "lt",
        Comparison::LessOrEqual => "le",
        Comparison::Greater => "gt",
        Comparison::GreaterOrEqual => "ge",
    }
}

/// A text as OData quotes it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
