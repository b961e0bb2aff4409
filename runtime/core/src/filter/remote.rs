//! A filter as a query of the system itself, so that a read brings only rows that may pass.
//!
//! The two judge values differently at the edges: collations, trailing blanks, wildcards, nulls. What is not certain is
//! therefore left out of the query, or widened, and the rows that come are judged again here. The query takes every row
//! that the filter takes; it is [`exact`](RemoteQuery::exact) when it takes no other.

use rust_decimal::Decimal;

use super::write::{quoted, word};
use super::{Comparison, Expression, Literal, Nulls, Operand, Pattern, bind};
use crate::change::SystemKind;
use crate::convert;
use crate::schema::{Column, Schema};
use crate::value::{Kind, MICROS_PER_DAY, Value, format_date, format_timestamp};

/// OData for `$filter`, not yet percent-coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteQuery {
    pub text: String,
    /// It takes exactly the rows that the filter takes.
    pub exact: bool,
}

/// URLs end at 32 KiB where they are longest, and percent-coding may treble a text.
const LENGTH_MAX: usize = 4_000;

pub(super) fn query(expression: &Expression, schema: &Schema, nulls: Nulls) -> Option<RemoteQuery> {
    let translation = Translation { schema, nulls };
    let part = translation.part(expression, false)?;
    (part.text.len() <= LENGTH_MAX).then_some(RemoteQuery { text: part.text, exact: part.exact })
}

struct Part {
    text: String,
    exact: bool,
    /// A single `ne`.
    unequal: bool,
}

struct Translation<'a> {
    schema: &'a Schema,
    nulls: Nulls,
}

impl Translation<'_> {
    /// A condition that every row meets which the expression takes, or, when it is `negated`, which it leaves out.
    fn part(&self, expression: &Expression, negated: bool) -> Option<Part> {
        match (expression, negated) {
            (Expression::And(list), false) | (Expression::Or(list), true) => {
                let parts = list.iter().map(|one| self.part(one, negated)).collect::<Vec<_>>();
                let all = parts.iter().all(Option::is_some);
                let parts = parts.into_iter().flatten().collect::<Vec<_>>();
                let exact = all && parts.iter().all(|part| part.exact);
                (!parts.is_empty()).then(|| Part { text: chain(parts, " and "), exact, unequal: false })
            }
            (Expression::Or(list), false) | (Expression::And(list), true) => {
                let parts = list.iter().map(|one| self.part(one, negated)).collect::<Option<Vec<_>>>()?;
                let exact = parts.iter().all(|part| part.exact);
                Some(Part { text: chain(parts, " or "), exact, unequal: false })
            }
            (Expression::Not(inner), _) => self.part(inner, !negated),
            (Expression::Compare { column, comparison, literal, .. }, _) => {
                let index = self.index(&column.name)?;
                let comparison = if negated { complement(*comparison) } else { *comparison };
                let part = self.compare(self.schema.column(index), comparison, literal)?;
                self.with_nulls(part, index, self.takes_null(expression, negated)?)
            }
            (Expression::Match { column, pattern }, _) => {
                let index = self.index(&column.name)?;
                let part = self.matched(self.schema.column(index), pattern, negated)?;
                self.with_nulls(part, index, self.takes_null(expression, negated)?)
            }
        }
    }

    fn index(&self, name: &str) -> Option<usize> {
        let bare = name.strip_prefix('_').and_then(|name| name.strip_suffix("_value"));
        self.schema.index_of(name).or_else(|| self.schema.index_of(bare?))
    }

    /// Whether a row without a value passes, as it is judged here.
    fn takes_null(&self, expression: &Expression, negated: bool) -> Option<bool> {
        let node = bind(expression, self.schema, &mut Vec::new()).ok()?;
        Some(match self.nulls {
            Nulls::EmptyValue => node.matches(&[]) != negated,
            Nulls::Unknown => false,
        })
    }

    /// The condition with what it has to say of nulls, whatever the system itself makes of them.
    fn with_nulls(&self, part: Part, index: usize, takes_null: bool) -> Option<Part> {
        let column = self.schema.column(index);
        let is_text = matches!(column.kind, Kind::Text | Kind::Json);
        let name = self.name(column);
        if !takes_null {
            // For F&O, a null of its view may well be unequal to something.
            let certain = match self.schema.system {
                SystemKind::Dataverse => true,
                SystemKind::Finops => self.nulls == Nulls::EmptyValue && (column.required || !part.unequal),
            };
            return Some(Part { exact: part.exact && certain, ..part });
        }
        match self.schema.system {
            SystemKind::Dataverse if part.text == format!("{name} eq null") => {
                Some(if is_text { Part { text: format!("({name} eq null or {name} eq '')"), ..part } } else { part })
            }
            SystemKind::Dataverse if is_text => {
                Some(Part { text: format!("({} or {name} eq null or {name} eq '')", part.text), ..part })
            }
            SystemKind::Dataverse => Some(Part { text: format!("({} or {name} eq null)", part.text), ..part }),
            // A view may hold nulls that it gives out as empty values, and a comparison does not take them there.
            SystemKind::Finops if column.required || self.schema.key.contains(&index) => Some(part),
            SystemKind::Finops if is_text => Some(Part { text: format!("({} or {name} eq null)", part.text), ..part }),
            SystemKind::Finops => None,
        }
    }

    fn name(&self, column: &Column) -> String {
        if column.kind == Kind::Lookup { format!("_{}_value", column.name) } else { column.name.to_string() }
    }

    fn compare(&self, column: &Column, comparison: Comparison, literal: &Literal) -> Option<Part> {
        let name = self.name(column);
        let is_equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let is_blank = match literal {
            Literal::Null => true,
            Literal::Text(text) => text.trim_end().is_empty(),
            _ => false,
        };
        if self.schema.system == SystemKind::Dataverse && is_blank {
            let part = |text| Some(Part { text, exact: true, unequal: false });
            return match comparison {
                // The blank text is added with the nulls.
                Comparison::Equal => part(format!("{name} eq null")),
                Comparison::NotEqual => part(format!("{name} ne null")),
                _ => None,
            };
        }
        let operand = super::operand(column, literal).ok()?;
        let (text, exact) = match (&operand, column.kind) {
            (Operand::Text(_), Kind::Text) if is_equality => {
                let (Literal::Text(text) | Literal::Member { symbol: text, .. }) = literal else { return None };
                // Collations differ in what they call the same letter, and a star of F&O stands for anything.
                let certain = !text.contains(char::is_alphabetic) && !text.contains('*');
                if comparison == Comparison::NotEqual && !certain {
                    return None;
                }
                (quoted(text.trim_end()), certain)
            }
            (Operand::Text(symbol), Kind::Choice) if is_equality && self.schema.system == SystemKind::Finops => {
                let symbol = convert::option_named(column, symbol).map(|(symbol, _)| symbol)?;
                let enumeration = column.enumeration.as_ref()?;
                (format!("Microsoft.Dynamics.DataEntities.{enumeration}'{symbol}'"), true)
            }
            (Operand::Number(number), Kind::Int64) if number.fract().is_zero() => {
                (number.trunc().normalize().to_string(), true)
            }
            (Operand::Number(number), Kind::Decimal | Kind::Money) => (spelled(*number), true),
            (Operand::Number(number), Kind::Float64) if !is_equality => (spelled(*number), false),
            (Operand::Boolean(value), Kind::Boolean) if is_equality => (value.to_string(), true),
            (Operand::Instant(micros), Kind::Timestamp) => (format_timestamp(*micros), true),
            (Operand::Instant(micros), Kind::Date) if micros.rem_euclid(MICROS_PER_DAY) == 0 => {
                let day = format_date(i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()?);
                // F&O has a day as the moment of its noon.
                (if self.schema.system == SystemKind::Finops { format!("{day}T12:00:00Z") } else { day }, true)
            }
            (Operand::Guid(id), Kind::Guid | Kind::Lookup) => (id.to_string(), true),
            _ => return None,
        };
        let unequal = comparison == Comparison::NotEqual;
        Some(Part { text: format!("{name} {} {text}", word(comparison)), exact, unequal })
    }

    fn matched(&self, column: &Column, pattern: &Pattern, negated: bool) -> Option<Part> {
        if column.kind != Kind::Text {
            return None;
        }
        let name = self.name(column);
        let (function, text) = match pattern {
            Pattern::StartsWith(text) => ("startswith", text.as_str()),
            Pattern::Contains(text) => ("contains", text.as_str()),
            // Trailing blanks count on the other side, and not here.
            Pattern::EndsWith(_) => return None,
            Pattern::Like(pattern) => {
                let inner = pattern.trim_matches('*');
                if inner.contains(['*', '?']) || inner.is_empty() {
                    return None;
                }
                match (pattern.starts_with('*'), pattern.ends_with('*')) {
                    (true, true) => ("contains", inner),
                    (false, true) => ("startswith", inner),
                    _ => return None,
                }
            }
        };
        let special = match self.schema.system {
            SystemKind::Dataverse => text.contains(['%', '_', '[', '*']),
            SystemKind::Finops => text.contains(['*', '?']),
        };
        let certain = !special && !text.contains(char::is_alphabetic) && !text.ends_with(' ');
        if text.is_empty() || (negated && !certain) {
            return None;
        }
        let text = match (self.schema.system, function) {
            (SystemKind::Dataverse, _) => format!("{function}({name},{})", quoted(text)),
            // Its text functions are few, but a star at an end of the value is a wildcard.
            (SystemKind::Finops, "startswith") => format!("{name} eq {}", quoted(&format!("{text}*"))),
            (SystemKind::Finops, _) => format!("{name} eq {}", quoted(&format!("*{text}*"))),
        };
        Some(Part { text: if negated { format!("not ({text})") } else { text }, exact: certain, unequal: false })
    }
}

const fn complement(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Equal => Comparison::NotEqual,
        Comparison::NotEqual => Comparison::Equal,
        Comparison::Less => Comparison::GreaterOrEqual,
        Comparison::LessOrEqual => Comparison::Greater,
        Comparison::Greater => Comparison::LessOrEqual,
        Comparison::GreaterOrEqual => Comparison::Less,
    }
}

fn chain(parts: Vec<Part>, between: &str) -> String {
    let texts = parts.into_iter().map(|part| part.text).collect::<Vec<_>>();
    if texts.len() == 1 { texts.concat() } else { format!("({})", texts.join(between)) }
}

fn spelled(number: Decimal) -> String {
    Value::Decimal(number).to_string()
}
