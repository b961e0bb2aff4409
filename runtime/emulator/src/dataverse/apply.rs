//! `$apply`: filter, groupby and aggregate ("Aggregate data using OData").
//!
//! Owns the grammar of the transformations that Dataverse documents, and the document that comes back.

use std::sync::Arc;

use dualwright_odata::batch::Response;
use dualwright_odata::url::{Resource, split_list};

use super::aggregate::{Function, Groups, ROWS_MAX, too_many};
use super::condition::{Condition, Passing, Place, candidates};
use super::display::{self, FORMATTED};
use super::expand::{Writer, separate};
use super::filter::Compiler;
use super::{BAD_QUERY, context, error, failed};
use crate::catalogue::Table;
use crate::cell;
use crate::definition::ColumnKind;
use crate::query::QueryError;
use crate::store;

/// A property to group by, and its name in the answer.
struct Group {
    place: Place,
    name: String,
    /// The column's own place, when it is the row's own: it may have labels.
    own: Option<usize>,
}

/// `revenue with sum as total`; `$count` has no property.
struct Aggregate {
    place: Option<Place>,
    own: Option<usize>,
    function: Function,
    name: String,
}

#[derive(Default)]
struct Plan {
    filter: Option<Condition>,
    groups: Vec<Group>,
    aggregates: Vec<Aggregate>,
}

pub(super) fn answer(
    compiler: Compiler<'_>,
    writer: &Writer<'_>,
    table: &Arc<Table>,
    text: &str,
    resource: &Resource,
) -> Result<Vec<u8>, Response> {
    let refused = |error: QueryError| error.dataverse(table);
    let mut plan = Plan::default();
    for step in steps(text) {
        plan.add(compiler, table, step).map_err(refused)?;
    }
    if let Some(text) = resource.resolved("$filter") {
        let further = compiler.filter(table, &text).map_err(refused)?;
        plan.filter = Some(match plan.filter {
            Some(own) => Condition::And(vec![own, further]),
            None => further,
        });
    }
    plan.filter = compiler.within_reach(table, plan.filter);
    if let Some(text) = resource.option("$orderby") {
        let names = split_list(text).into_iter().filter_map(|item| item.split(' ').next());
        let aggregated = names.into_iter().any(|name| plan.aggregates.iter().any(|one| one.name == name));
        if aggregated {
            return Err(error(400, BAD_QUERY, "The query node SingleValueOpenPropertyAccess is not supported."));
        }
    }
    plan.run(writer, table)
}

/// The transformations, which slashes outside of brackets and quotes part.
fn steps(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start) = (0_usize, false, 0);
    let mut steps = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\'' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.saturating_sub(1),
            b'/' if !quoted && depth == 0 => {
                steps.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    steps.push(text[start..].trim());
    steps
}

fn malformed(text: &str) -> QueryError {
    QueryError::Malformed(format!("The $apply transformation '{text}' is not supported."))
}

impl Plan {
    fn add(&mut self, compiler: Compiler<'_>, table: &Arc<Table>, step: &str) -> Result<(), QueryError> {
        let (name, inner) = step
            .split_once('(')
            .and_then(|(name, rest)| Some((name.trim(), rest.strip_suffix(')')?)))
            .ok_or_else(|| malformed(step))?;
        match name {
            // A filter behind a group would be one of its results.
            "filter" if self.groups.is_empty() && self.aggregates.is_empty() => {
                let own = compiler.filter(table, inner)?;
                self.filter = Some(match self.filter.take() {
                    Some(before) => Condition::And(vec![before, own]),
                    None => own,
                });
            }
            "groupby" if self.groups.is_empty() && self.aggregates.is_empty() => {
                let parts = split_list(inner);
                let (names, rest) = parts.split_first().ok_or_else(|| malformed(step))?;
                let names = names.strip_prefix('(').and_then(|names| names.strip_suffix(')'));
                for path in split_list(names.ok_or_else(|| malformed(step))?) {
                    self.groups.push(Group::new(compiler, table, path)?);
                }
                match rest {
                    [] => {}
                    [aggregate] => self.aggregate(compiler, table, aggregate)?,
                    _ => return Err(malformed(step)),
                }
            }
            "aggregate" if self.aggregates.is_empty() => self.aggregate(compiler, table, step)?,
            _ => return Err(malformed(step)),
        }
        Ok(())
    }

    fn aggregate(&mut self, compiler: Compiler<'_>, table: &Arc<Table>, text: &str) -> Result<(), QueryError> {
        let inner = text.strip_prefix("aggregate(").and_then(|rest| rest.strip_suffix(')'));
        for item in split_list(inner.ok_or_else(|| malformed(text))?) {
            let words = item.split_whitespace().collect::<Vec<_>>();
            let aggregate = match words.as_slice() {
                ["$count", "as", name] => {
                    Aggregate { place: None, own: None, function: Function::Count, name: (*name).to_owned() }
                }
                [path, "with", function, "as", name] => {
                    let function = Function::of(function).ok_or_else(|| malformed(item))?;
                    let place = compiler.path(table, path, false)?;
                    let is_number = matches!(
                        place.kind,
                        ColumnKind::Int
                            | ColumnKind::Bigint
                            | ColumnKind::Decimal
                            | ColumnKind::Money
                            | ColumnKind::Double
                    );
                    if matches!(function, Function::Sum | Function::Average) && !is_number {
                        return Err(QueryError::Malformed(format!("The property '{path}' cannot be summed.")));
                    }
                    Aggregate { place: Some(place), own: table.property(path), function, name: (*name).to_owned() }
                }
                _ => return Err(malformed(item)),
            };
            self.aggregates.push(aggregate);
        }
        Ok(())
    }

    fn run(&self, writer: &Writer<'_>, table: &Arc<Table>) -> Result<Vec<u8>, Response> {
        let connection = writer.around.connection;
        let mut groups = Groups::new(self.aggregates.iter().map(|one| one.function).collect(), ROWS_MAX);
        let mut is_within = true;
        let mut add = |row: Passing<'_>| {
            let mut cells = Vec::with_capacity(table.columns.len());
            table.cells(row.data, &mut cells);
            let rows = [Some(cells)];
            if self.filter.as_ref().is_some_and(|filter| !filter.matches(connection, &rows)) {
                return Ok(true);
            }
            let group = self.groups.iter().map(|one| one.place.cell(connection, &rows).into_owned()).collect();
            let values = self.aggregates.iter().map(|one| match &one.place {
                None => (String::new(), dualwright_odata::Literal::Null),
                Some(place) => {
                    let cell = place.cell(connection, &rows).into_owned();
                    let literal = cell::literal(place.kind, &cell);
                    (cell, literal)
                }
            });
            is_within = groups.add(group, values);
            Ok(is_within)
        };
        let few = match &self.filter {
            Some(filter) => candidates(connection, table, filter).map_err(|error| failed(&error))?,
            None => None,
        };
        let seen = match few {
            Some(mut ids) => {
                ids.sort_unstable();
                ids.dedup();
                ids.into_iter().try_for_each(|id| match store::find_by_place(connection, id)? {
                    Some(row) => add(Passing { id, version: row.version, data: &row.data }).map(|_| ()),
                    None => Ok(()),
                })
            }
            None => store::scan(connection, table, 0, i64::MAX, false, &mut |id, version, data| {
                add(Passing { id, version, data })
            }),
        };
        seen.map_err(|error| failed(&error))?;
        if !is_within {
            return Err(too_many());
        }
        let mut body = context(writer.site, table.set());
        body.extend_from_slice(b",\"value\":[");
        for (number, (group, values)) in groups.finish(!self.groups.is_empty()).into_iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.push(b'{');
            for (one, cell) in self.groups.iter().zip(&group).filter(|(_, cell)| *cell != cell::NULL) {
                let shown = one.own.and_then(|at| shown_alone(writer, table, at, cell));
                push(&mut body, writer, &one.name, cell, shown);
            }
            for (one, cell) in self.aggregates.iter().zip(&values) {
                let shown = match (one.function, one.own) {
                    (Function::Count | Function::CountColumn | Function::CountDistinct, _) => {
                        Some(display::grouped(cell, Some(0)))
                    }
                    (_, Some(at)) if cell != cell::NULL => shown_alone(writer, table, at, cell),
                    _ => None,
                };
                push(&mut body, writer, &one.name, cell, shown);
            }
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        Ok(body)
    }
}

impl Group {
    fn new(compiler: Compiler<'_>, table: &Arc<Table>, path: &str) -> Result<Self, QueryError> {
        let place = compiler.path(table, path, false)?;
        if matches!(place.kind, ColumnKind::Datetime | ColumnKind::Date) {
            return Err(QueryError::Malformed(format!("Grouping by the date property '{path}' is not supported.")));
        }
        // A property behind a lookup is named after its table: `contact_fullname`.
        let name = match path.rsplit_once('/') {
            None => path.to_owned(),
            Some((_, property)) => {
                let behind = place.hops.last().and_then(|(_, tables)| tables.first());
                format!("{}_{property}", behind.map_or("", |table| table.name()))
            }
        };
        Ok(Self { own: table.property(path), place, name })
    }
}

/// The formatted value of a cell that stands outside of its row.
pub(super) fn shown_alone(writer: &Writer<'_>, table: &Table, at: usize, cell: &str) -> Option<String> {
    let column = &table.columns[at];
    match column.definition.kind {
        ColumnKind::Money => {
            Some(display::money(writer.around, &writer.targets, Some(super::system::base_currency_id()), cell))
        }
        ColumnKind::Lookup => writer.targets.of(writer.around, table, at, cell)?.name,
        _ => display::plain(column, cell),
    }
}

pub(super) fn push(body: &mut Vec<u8>, writer: &Writer<'_>, name: &str, cell: &str, shown: Option<String>) {
    if let Some(shown) = shown.filter(|_| writer.annotations.formatted) {
        separate(body);
        body.extend_from_slice(cell::quoted(&format!("{name}@{FORMATTED}")).as_bytes());
        body.push(b':');
        body.extend_from_slice(cell::quoted(&shown).as_bytes());
    }
    separate(body);
    body.extend_from_slice(cell::quoted(name).as_bytes());
    body.push(b':');
    body.extend_from_slice(cell.as_bytes());
}
