//! `$filter` as F&O takes it: comparisons of like with like, enumerations by their full name, a star as a wildcard.
//!
//! Owns which conditions are refused and in which words (those of the OData library); what a condition means for a row is
//! `query`'s. Documented are the operators, and in place of text functions the star; `in` and `has` are not supported.

use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::Response;
use dualwright_odata::filter::{self, ArithmeticOperator, Comparison, Expression, Operand, TextFunction};

use super::refusal::{self, bad_query};
use crate::catalogue::{Catalogue, Table};
use crate::definition::ColumnKind;
use crate::query::Filter;

/// Reads a filter and checks the types in it.
pub(crate) fn read(catalogue: &Catalogue, table: &Arc<Table>, text: &str) -> Result<Filter, Response> {
    let expression = filter::parse(text).map_err(|error| {
        bad_query(&format!("Syntax error at position {} in '{text}': {}.", error.at, error.message))
    })?;
    Check { catalogue, table, text }.condition(&expression)?;
    Filter::new(catalogue, table, text).map_err(|error| error.finops(table))
}

/// The type of an operand, as far as it decides what it can be compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
    /// Goes with everything.
    Null,
    Boolean,
    /// With its name.
    Number(&'static str),
    Text,
    Guid,
    Date,
    DateTime,
    /// With its full name.
    Enum(String),
}

impl Type {
    fn name(&self) -> String {
        match self {
            Self::Null => "Null".to_owned(),
            Self::Boolean => "Edm.Boolean".to_owned(),
            Self::Number(name) => (*name).to_owned(),
            Self::Text => "Edm.String".to_owned(),
            Self::Guid => "Edm.Guid".to_owned(),
            Self::Date => "Edm.Date".to_owned(),
            Self::DateTime => "Edm.DateTimeOffset".to_owned(),
            Self::Enum(name) => name.clone(),
        }
    }

    fn goes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) | (Self::Number(_), Self::Number(_)) => true,
            (Self::Date | Self::DateTime, Self::Date | Self::DateTime) => true,
            _ => self == other,
        }
    }
}

struct Check<'a> {
    catalogue: &'a Catalogue,
    table: &'a Arc<Table>,
    text: &'a str,
}

impl Check<'_> {
    fn condition(&self, expression: &Expression) -> Result<(), Response> {
        match expression {
            Expression::And(all) | Expression::Or(all) => all.iter().try_for_each(|one| self.condition(one)),
            Expression::Not(inner) => self.condition(inner),
            Expression::Compare { left, operator, right } => self.comparison(left, *operator, right),
            Expression::In { .. } => {
                let at = self.text.find(" in").map_or(0, |at| at + 1);
                Err(bad_query(&format!("Syntax error at position {at} in '{}'.", self.text)))
            }
            Expression::Text { function, .. } => {
                let name = match function {
                    TextFunction::Contains => "contains",
                    TextFunction::StartsWith => "startswith",
                    TextFunction::EndsWith => "endswith",
                    TextFunction::Like => "like",
                };
                Err(unknown_function(name))
            }
            Expression::Lambda { collection, .. } => Err(bad_query(&refusal::unknown_property(self.table, collection))),
            Expression::Function { name, .. } => Err(unknown_function(name)),
            Expression::Boolean(operand) => match self.type_of(operand)? {
                Type::Boolean => Ok(()),
                _ => Err(bad_query("The $filter expression must evaluate to a single boolean value.")),
            },
        }
    }

    fn comparison(&self, left: &Operand, operator: Comparison, right: &Operand) -> Result<(), Response> {
        let (left, right) = (self.type_of(left)?, self.type_of(right)?);
        let is_enum = matches!(left, Type::Enum(_)) || matches!(right, Type::Enum(_));
        let is_equality = matches!(operator, Comparison::Equal | Comparison::NotEqual);
        if left.goes_with(&right) && (is_equality || !is_enum) {
            return Ok(());
        }
        let operator = match operator {
            Comparison::Equal => "Equal",
            Comparison::NotEqual => "NotEqual",
            Comparison::Greater => "GreaterThan",
            Comparison::GreaterOrEqual => "GreaterThanOrEqual",
            Comparison::Less => "LessThan",
            Comparison::LessOrEqual => "LessThanOrEqual",
        };
        Err(incompatible(&left, &right, operator))
    }

    fn type_of(&self, operand: &Operand) -> Result<Type, Response> {
        match operand {
            Operand::Property(name) => {
                let at = self.table.property(name);
                let at = at.ok_or_else(|| bad_query(&refusal::unknown_property(self.table, name)))?;
                let definition = &self.table.columns[at].definition;
                Ok(match definition.kind {
                    ColumnKind::Int => Type::Number("Edm.Int32"),
                    ColumnKind::Bigint => Type::Number("Edm.Int64"),
                    ColumnKind::Decimal | ColumnKind::Money => Type::Number("Edm.Decimal"),
                    ColumnKind::Double => Type::Number("Edm.Double"),
                    ColumnKind::Boolean => Type::Boolean,
                    ColumnKind::Datetime | ColumnKind::Date => Type::DateTime,
                    ColumnKind::Guid => Type::Guid,
                    ColumnKind::Choice | ColumnKind::Enum => {
                        Type::Enum(refusal::type_name(definition.enumeration.as_deref().unwrap_or(&definition.name)))
                    }
                    _ => Type::Text,
                })
            }
            Operand::Literal(literal) => self.type_of_literal(literal),
            Operand::Arithmetic(both) => {
                let (left, right) = (self.type_of(&both.left)?, self.type_of(&both.right)?);
                let operator = match both.operator {
                    ArithmeticOperator::Add => "Add",
                    ArithmeticOperator::Subtract => "Subtract",
                    ArithmeticOperator::Multiply => "Multiply",
                    ArithmeticOperator::Divide => "Divide",
                    ArithmeticOperator::Modulo => "Modulo",
                };
                match (&left, &right) {
                    (Type::Number(left), Type::Number(right)) => Ok(Type::Number(wider(left, right))),
                    _ => Err(incompatible(&left, &right, operator)),
                }
            }
        }
    }

    fn type_of_literal(&self, literal: &Literal) -> Result<Type, Response> {
        Ok(match literal {
            Literal::Null => Type::Null,
            Literal::Boolean(_) => Type::Boolean,
            Literal::Number(number) => {
                let text = number.to_string();
                Type::Number(match (text.parse::<i32>(), text.parse::<i64>()) {
                    (Ok(_), _) => "Edm.Int32",
                    (_, Ok(_)) => "Edm.Int64",
                    _ => "Edm.Decimal",
                })
            }
            Literal::Double(_) => Type::Number("Edm.Double"),
            Literal::Text(_) => Type::Text,
            Literal::Guid(_) => Type::Guid,
            Literal::Date(_) => Type::Date,
            Literal::DateTime(_) => Type::DateTime,
            Literal::Enum { type_name, member } => {
                let short = type_name.strip_prefix(super::NAMESPACE).and_then(|rest| rest.strip_prefix('.'));
                let members = short.and_then(|name| self.catalogue.enums.get(name));
                let is_member =
                    members.is_some_and(|members| members.iter().any(|one| one.name.eq_ignore_ascii_case(member)));
                if !is_member {
                    return Err(bad_query(&format!(
                        "The string '{type_name}'{member}'' is not a valid enumeration type constant."
                    )));
                }
                Type::Enum(type_name.clone())
            }
        })
    }
}

fn incompatible(left: &Type, right: &Type, operator: &str) -> Response {
    bad_query(&format!(
        "A binary operator with incompatible types was detected. Found operand types '{}' and '{}' for operator kind \
         '{operator}'.",
        left.name(),
        right.name()
    ))
}

/// The type of what two numbers make.
fn wider(left: &'static str, right: &'static str) -> &'static str {
    const NARROW_TO_WIDE: [&str; 4] = ["Edm.Int32", "Edm.Int64", "Edm.Decimal", "Edm.Double"];
    let rank = |name: &str| NARROW_TO_WIDE.iter().position(|own| *own == name);
    if rank(left) < rank(right) { right } else { left }
}

pub(super) fn unknown_function(name: &str) -> Response {
    bad_query(&format!(
        "An unknown function with name '{name}' was found. This may also be a function import or a key lookup on a \
         navigation property, which is not allowed."
    ))
}
