//! `$filter` as Dataverse understands it: from the tree that OData gives to a condition on rows.
//!
//! Owns names of properties, collections and query functions, and which values a column can be compared with. The refusals
//! are those of the Web API.

use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::filter::{self, Argument, Comparison, Expression, Operand, TextFunction};
use uuid::Uuid;

use super::condition::{Condition, Pattern, Place, Test};
use super::metadata::edm_type;
use super::{roles, span, system};
use crate::batch::Site;
use crate::catalogue::{Catalogue, Table};
use crate::definition::ColumnKind;
use crate::query::QueryError;

const NAMESPACE: &str = "Microsoft.Dynamics.CRM.";

/// What a filter is compiled for.
#[derive(Clone, Copy)]
pub(crate) struct Compiler<'a> {
    pub catalogue: &'a Catalogue,
    /// Who asks: what a query looks at, the caller has to be allowed to read.
    pub site: &'a Site,
    /// UTC microseconds.
    pub now: i64,
}

impl Compiler<'_> {
    pub fn permit(&self, table: &Table) -> Result<(), QueryError> {
        super::permit(self.site, table).map_err(|refusal| QueryError::Refused(Box::new(refusal)))
    }

    /// The filter, and what a row has to meet for the caller to read it.
    pub fn within_reach(&self, table: &Arc<Table>, filter: Option<Condition>) -> Option<Condition> {
        self.joined_within_reach(table, 0, filter)
    }

    /// The same of the joined row with that number.
    pub fn joined_within_reach(
        &self,
        table: &Arc<Table>,
        source: usize,
        filter: Option<Condition>,
    ) -> Option<Condition> {
        let reach = self.site.user.as_ref().and_then(|caller| roles::reach_of(caller, table, source));
        match (filter, reach) {
            (Some(filter), Some(reach)) => Some(Condition::And(vec![filter, reach])),
            (filter, reach) => filter.or(reach),
        }
    }

    /// A property by its path, as [`Place::of_path`] reads it.
    pub fn path(&self, table: &Arc<Table>, path: &str, by_name: bool) -> Result<Place, QueryError> {
        let place = Place::of_path(self.catalogue, table, path, by_name);
        let place = place.ok_or_else(|| QueryError::Property(path.to_owned()))?;
        // A lookup shows the name of the row behind it to whoever may read the lookup, so that hop is not asked for.
        for (_, tables) in place.hops.iter().take(path.matches('/').count()) {
            tables.iter().try_for_each(|table| self.permit(table))?;
        }
        Ok(place)
    }

    /// The user who asks, the teams of that user, and the business unit.
    fn user(&self) -> (Uuid, Vec<Uuid>, Uuid) {
        match &self.site.user {
            Some(caller) => {
                let mut teams = caller.user.teams.iter().copied().collect::<Vec<_>>();
                teams.sort_unstable();
                (caller.user.id, teams, caller.user.business_unit)
            }
            None => (system::user_id(), Vec::new(), system::business_unit_id()),
        }
    }

    pub fn filter(&self, table: &Arc<Table>, text: &str) -> Result<Condition, QueryError> {
        let tree = filter::parse(text).map_err(|refusal| QueryError::Malformed(refusal.to_string()))?;
        self.expression(table, "", &tree)
    }

    /// `variable` is what the members of a collection are called, or nothing outside of one.
    fn expression(&self, table: &Arc<Table>, variable: &str, tree: &Expression) -> Result<Condition, QueryError> {
        let each = |all: &[Expression]| {
            all.iter().map(|one| self.expression(table, variable, one)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match tree {
            Expression::And(all) => Condition::And(each(all)?),
            Expression::Or(any) => Condition::Or(each(any)?),
            Expression::Not(inner) => Condition::Not(Box::new(self.expression(table, variable, inner)?)),
            Expression::Compare { left, operator, right } => match (left, right) {
                (Operand::Property(left), Operand::Property(right)) => {
                    let (left, right) = (self.place(table, variable, left)?, self.place(table, variable, right)?);
                    if !may_meet(left.kind, right.kind) {
                        return Err(incompatible(edm_type(left.kind), edm_type(right.kind), *operator));
                    }
                    Condition::Columns { left, operator: *operator, right }
                }
                (Operand::Property(name), Operand::Literal(value)) => {
                    self.comparison(table, variable, name, *operator, value)?
                }
                (Operand::Literal(value), Operand::Property(name)) => {
                    self.comparison(table, variable, name, mirrored(*operator), value)?
                }
                (Operand::Literal(left), Operand::Literal(right)) => {
                    Condition::Constant(filter::compare(left, *operator, right))
                }
                (Operand::Arithmetic(_), _) | (_, Operand::Arithmetic(_)) => {
                    return Err(QueryError::Malformed(
                        "Arithmetic operators are not supported in a filter.".to_owned(),
                    ));
                }
            },
            Expression::In { operand: Operand::Property(name), values } => {
                let place = self.place(table, variable, name)?;
                let values =
                    values.iter().map(|value| fitting(&place, Comparison::Equal, value)).collect::<Result<_, _>>()?;
                Condition::Test { place, test: Test::In(values) }
            }
            Expression::Text {
                function,
                operand: Operand::Property(name),
                part: Operand::Literal(Literal::Text(part)),
            } => {
                let place = self.place(table, variable, name)?;
                if !matches!(place.kind, ColumnKind::Text | ColumnKind::Memo) {
                    return Err(QueryError::Malformed(format!(
                        "No function signature for the function with name '{}' matches the specified arguments.",
                        function_name(*function)
                    )));
                }
                let pattern = match function {
                    TextFunction::Contains => format!("%{part}%"),
                    TextFunction::StartsWith => format!("{part}%"),
                    TextFunction::EndsWith => format!("%{part}"),
                    TextFunction::Like => part.clone(),
                };
                Condition::Test { place, test: Test::Like(Pattern::new(&pattern)) }
            }
            Expression::Boolean(Operand::Property(name)) => {
                self.comparison(table, variable, name, Comparison::Equal, &Literal::Boolean(true))?
            }
            Expression::Boolean(Operand::Literal(Literal::Boolean(is))) => Condition::Constant(*is),
            Expression::Lambda { collection, variable: inner_variable, all, inner } => {
                self.lambda(table, variable, collection, inner_variable, *all, inner.as_deref())?
            }
            Expression::Function { name, arguments } => self.function(table, variable, name, arguments)?,
            Expression::In { .. } | Expression::Text { .. } | Expression::Boolean(_) => {
                return Err(QueryError::Malformed("The operands of the filter are not supported.".to_owned()));
            }
        })
    }

    fn place(&self, table: &Arc<Table>, variable: &str, name: &str) -> Result<Place, QueryError> {
        let own = own_name(variable, name).ok_or_else(|| QueryError::Property(name.to_owned()))?;
        if let Some(first) = own.split('/').next()
            && own != first
            && self.catalogue.related(table.name(), first).is_some()
        {
            return Err(QueryError::Malformed(format!(
                "The parent value for a property access of a property '{}' is not a single value.",
                &own[first.len() + 1..]
            )));
        }
        self.path(table, own, false)
    }

    fn comparison(
        &self,
        table: &Arc<Table>,
        variable: &str,
        name: &str,
        operator: Comparison,
        value: &Literal,
    ) -> Result<Condition, QueryError> {
        let place = self.place(table, variable, name)?;
        let value = fitting(&place, operator, value)?;
        // Wildcards are understood in equalities, too ("Use wildcard characters").
        if let (Comparison::Equal | Comparison::NotEqual, Literal::Text(text), ColumnKind::Text) =
            (operator, &value, place.kind)
            && text.contains('%')
        {
            let test = Condition::Test { place, test: Test::Like(Pattern::new(text)) };
            return Ok(if operator == Comparison::Equal { test } else { Condition::Not(Box::new(test)) });
        }
        Ok(Condition::Test { place, test: Test::Compare(operator, value) })
    }

    fn lambda(
        &self,
        table: &Arc<Table>,
        variable: &str,
        collection: &str,
        inner_variable: &str,
        all: bool,
        inner: Option<&Expression>,
    ) -> Result<Condition, QueryError> {
        let own = own_name(variable, collection).ok_or_else(|| QueryError::Property(collection.to_owned()))?;
        if own.contains('/') {
            // Documented as not supported ("Filter using values of related collections").
            return Err(QueryError::Malformed(format!("A collection behind a lookup cannot be filtered by: '{own}'.")));
        }
        let (link, referring) =
            self.catalogue.related(table.name(), own).ok_or_else(|| QueryError::Property(own.to_owned()))?;
        self.permit(referring)?;
        let inner = inner.map(|inner| self.expression(referring, inner_variable, inner)).transpose()?;
        // Rows that the caller cannot see are none.
        let inner = match self.within_reach(referring, None) {
            Some(reach) if all => inner.map(|inner| Condition::Or(vec![Condition::Not(Box::new(reach)), inner])),
            Some(_) => self.within_reach(referring, inner),
            None => inner,
        };
        let own_id = table.primary_id.ok_or_else(|| QueryError::Property(own.to_owned()))?;
        Ok(Condition::Related {
            own_id: Place::own(table, own_id),
            table: Arc::clone(referring),
            link,
            all,
            inner: inner.map(Box::new),
        })
    }

    fn function(
        &self,
        table: &Arc<Table>,
        variable: &str,
        name: &str,
        arguments: &[(String, Argument)],
    ) -> Result<Condition, QueryError> {
        let short = name.strip_prefix(NAMESPACE).ok_or_else(|| unknown_function(name))?;
        let property = arguments.iter().find_map(|(own, value)| match value {
            Argument::Literal(Literal::Text(text)) if own == "PropertyName" => Some(text.as_str()),
            _ => None,
        });
        let property = property.ok_or_else(|| unknown_function(name))?;
        // `PropertyName` is a logical name as well as a property: `ownerid` means the lookup.
        let place = match self.place(table, variable, property) {
            Err(error) => {
                let own = own_name(variable, property).and_then(|own| table.readable_column(own));
                own.map(|at| Place::own(table, at)).ok_or(error)?
            }
            Ok(place) => place,
        };
        let values = arguments
            .iter()
            .filter(|(own, _)| own != "PropertyName")
            .flat_map(|(_, value)| match value {
                Argument::Literal(value) => std::slice::from_ref(value),
                Argument::List(values) => values.as_slice(),
            })
            .cloned()
            .collect::<Vec<_>>();
        self.function_test(place, short, &values).ok_or_else(|| unknown_function(name))
    }

    /// What a query function asks of a column; `None` when there is no such function, or its values do not fit. FetchXML
    /// asks the same under other names.
    pub fn function_test(&self, place: Place, name: &str, values: &[Literal]) -> Option<Condition> {
        let not = |condition: Condition| Condition::Not(Box::new(condition));
        let typed =
            || values.iter().map(|value| fitting(&place, Comparison::Equal, value).ok()).collect::<Option<Vec<_>>>();
        let equal = |place: Place, id: Uuid| Condition::Test {
            place,
            test: Test::Compare(Comparison::Equal, Literal::Guid(id)),
        };
        let numbers = || {
            values
                .iter()
                .map(|value| match value {
                    Literal::Number(number) => number.to_string().parse::<i64>().ok(),
                    Literal::Text(text) => text.trim().parse::<i64>().ok(),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>()
        };
        Some(match name {
            "In" => Condition::Test { test: Test::In(typed()?), place },
            "NotIn" => not(Condition::Test { test: Test::In(typed()?), place }),
            "Between" | "NotBetween" => {
                let [low, high] = <[Literal; 2]>::try_from(typed()?).ok()?;
                let test = Condition::Test { place, test: Test::Between(low, high) };
                if name == "Between" { test } else { not(test) }
            }
            "EqualUserId" | "EqualUserOrUserHierarchy" => equal(place, self.user().0),
            "NotEqualUserId" => not(equal(place, self.user().0)),
            "EqualUserTeams" | "EqualUserOrUserTeams" | "EqualUserOrUserHierarchyAndTeams" => {
                let (user, mut ids, _) = self.user();
                if name != "EqualUserTeams" {
                    ids.push(user);
                }
                Condition::Test { place, test: Test::In(ids.into_iter().map(Literal::Guid).collect()) }
            }
            "EqualBusinessId" => equal(place, self.user().2),
            "NotEqualBusinessId" => not(equal(place, self.user().2)),
            "EqualUserLanguage" => {
                Condition::Test { place, test: Test::Compare(Comparison::Equal, Literal::integer(1_033)) }
            }
            "ContainValues" if place.kind == ColumnKind::MultiChoice => {
                Condition::Test { place, test: Test::ContainsAny(numbers()?) }
            }
            "DoesNotContainValues" if place.kind == ColumnKind::MultiChoice => Condition::Or(vec![
                not(Condition::Test { place: place.clone(), test: Test::ContainsAny(numbers()?) }),
                Condition::Test { place, test: Test::Compare(Comparison::Equal, Literal::Null) },
            ]),
            "On" | "OnOrBefore" | "OnOrAfter" | "NotOn" => {
                let test = Condition::Test { test: span::day_test(name, values.first()?)?, place };
                if name == "NotOn" { not(test) } else { test }
            }
            _ if matches!(place.kind, ColumnKind::Datetime | ColumnKind::Date) => {
                Condition::Test { test: span::test_of(name, &numbers()?, self.now)?, place }
            }
            _ => return None,
        })
    }
}

/// A name without the variable of its collection; `None` when it does not begin with it.
fn own_name<'n>(variable: &str, name: &'n str) -> Option<&'n str> {
    if variable.is_empty() { Some(name) } else { name.strip_prefix(variable)?.strip_prefix('/') }
}

fn unknown_function(name: &str) -> QueryError {
    QueryError::Malformed(format!(
        "An unknown function with name '{name}' was found. This may also be a key lookup on a navigation property, which is not allowed."
    ))
}

const fn function_name(function: TextFunction) -> &'static str {
    match function {
        TextFunction::Contains => "contains",
        TextFunction::StartsWith => "startswith",
        TextFunction::EndsWith => "endswith",
        TextFunction::Like => "like",
    }
}

const fn mirrored(operator: Comparison) -> Comparison {
    match operator {
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        same => same,
    }
}

fn may_meet(left: ColumnKind, right: ColumnKind) -> bool {
    let group = |kind: ColumnKind| match edm_type(kind) {
        "Edm.Int32" | "Edm.Int64" | "Edm.Decimal" | "Edm.Double" => "number",
        other => other,
    };
    group(left) == group(right)
}

fn incompatible(left: &str, right: &str, operator: Comparison) -> QueryError {
    QueryError::Malformed(format!(
        "A binary operator with incompatible types was detected. Found operand types '{left}' and '{right}' for operator \
         kind '{}'.",
        match operator {
            Comparison::Equal => "Equal",
            Comparison::NotEqual => "NotEqual",
            Comparison::Greater => "GreaterThan",
            Comparison::GreaterOrEqual => "GreaterThanOrEqual",
            Comparison::Less => "LessThan",
            Comparison::LessOrEqual => "LessThanOrEqual",
        }
    ))
}

/// A value as the column would hold it. Quotes around what spells a value of the column's type are passed over, as the
/// documentation has them around ids; a label in place of an option's number is none.
fn fitting(place: &Place, operator: Comparison, value: &Literal) -> Result<Literal, QueryError> {
    use ColumnKind::{
        Bigint, Boolean, Choice, Date, Datetime, Decimal, Double, Enum, Guid, Int, Lookup, Memo, Money, MultiChoice,
        Text,
    };
    let unquoted = match value {
        Literal::Text(text) if !matches!(place.kind, Text | Memo | MultiChoice) => {
            let bare = text.trim().trim_start_matches('{').trim_end_matches('}');
            Literal::parse(bare).unwrap_or_else(|| value.clone())
        }
        other => other.clone(),
    };
    let fits = matches!(
        (place.kind, &unquoted),
        (_, Literal::Null)
            | (Text | Memo | MultiChoice, Literal::Text(_))
            | (Int | Bigint | Decimal | Money | Double | Choice | Enum, Literal::Number(_) | Literal::Double(_))
            | (Boolean, Literal::Boolean(_))
            | (Datetime | Date, Literal::DateTime(_) | Literal::Date(_))
            | (Guid | Lookup, Literal::Guid(_))
    );
    if fits {
        return Ok(unquoted);
    }
    let found = match value {
        Literal::Text(_) | Literal::Enum { .. } => "Edm.String",
        Literal::Number(_) => "Edm.Int32",
        Literal::Double(_) => "Edm.Double",
        Literal::Boolean(_) => "Edm.Boolean",
        Literal::Guid(_) => "Edm.Guid",
        Literal::Date(_) => "Edm.Date",
        Literal::DateTime(_) => "Edm.DateTimeOffset",
        Literal::Null => "Edm.Null",
    };
    Err(incompatible(edm_type(place.kind), found, operator))
}

/// A value that FetchXML wrote, which is text always.
pub(super) fn of_text(place: &Place, text: &str) -> Option<Literal> {
    match place.kind {
        ColumnKind::Boolean => match text {
            "1" | "true" => Some(Literal::Boolean(true)),
            "0" | "false" => Some(Literal::Boolean(false)),
            _ => None,
        },
        _ => fitting(place, Comparison::Equal, &Literal::text(text)).ok(),
    }
}
