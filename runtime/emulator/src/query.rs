//! Queries: which rows, in which order, a page at a time.
//!
//! Owns the system query options and how rows are found for them; the dialects say which options there are and what
//! an answer looks like. A page ends at a row and the next begins after it, so that rows added meanwhile neither
//! shift nor repeat others.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::filter::{self, Comparison, Expression, Operand, TextFunction};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::Dialect;
use crate::catalogue::{Catalogue, Table};
use crate::cell;
use crate::definition::ColumnKind;
use crate::exchange;
use crate::render::{self, Selection, Surroundings};
use crate::store::{self, PLACE_BITS, Stamp};

/// Why a query is not answered.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// There is no such property.
    Property(String),
    Malformed(String),
    /// Somebody else's refusal: the caller may not read what the query looks at.
    Refused(Box<dualwright_odata::batch::Response>),
    Store(rusqlite::Error),
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error)
    }
}

/// A query of one table.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub table: &'a Arc<Table>,
    pub selection: Selection,
    pub filter: Option<Filter>,
    pub order: Vec<(usize, bool)>,
    pub top: Option<usize>,
    pub skip: usize,
    pub page_size: usize,
    /// The only company whose rows are seen, as a cell (F&O).
    pub company: Option<String>,
    pub token: Option<SkipToken>,
}

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SkipToken {
    /// Place of the last row that was sent.
    after: i64,
    /// Rows that are still wanted, when the number was limited.
    left: Option<usize>,
    /// What the order looks at, of the last row.
    #[serde(default)]
    order: Vec<String>,
}

/// A condition whose properties are known.
#[derive(Debug)]
pub(crate) struct Filter {
    expression: Expression,
    paths: HashMap<String, Path>,
}

/// A property of the row, or of a row behind its lookups.
#[derive(Debug)]
struct Path {
    hops: Vec<(usize, Arc<Table>)>,
    column: usize,
    kind: ColumnKind,
}

/// `$select` as column places.
pub(crate) fn select(table: &Table, names: &[&str]) -> Result<Option<Vec<usize>>, QueryError> {
    if names.is_empty() || names.contains(&"*") {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(names.len() + 1);
    for name in names {
        // A lookup may be selected by its navigation property; what comes is its value.
        let at = table.readable(name).or_else(|| table.navigation(name).map(|(at, _)| at));
        let at = at.ok_or_else(|| QueryError::Property((*name).to_owned()))?;
        if !columns.contains(&at) {
            columns.push(at);
        }
    }
    if let Some(id) = table.primary_id
        && !columns.contains(&id)
    {
        columns.push(id);
    }
    Ok(Some(columns))
}

impl Filter {
    /// Reads a filter and finds its properties.
    pub fn new(catalogue: &Catalogue, table: &Arc<Table>, text: &str) -> Result<Self, QueryError> {
        let mut expression = filter::parse(text).map_err(|error| QueryError::Malformed(error.to_string()))?;
        if table.dialect == Dialect::Finops {
            with_wildcards(&mut expression);
            with_days(&mut expression, table);
        }
        let mut paths = HashMap::new();
        let mut unknown = None;
        each_property(&expression, &mut |name| {
            if !paths.contains_key(name) {
                match Path::new(catalogue, table, name) {
                    Some(path) => drop(paths.insert(name.to_owned(), path)),
                    None => unknown = Some(name.to_owned()),
                }
            }
        });
        unknown.map_or(Ok(Self { expression, paths }), |name| Err(QueryError::Property(name)))
    }

    pub fn matches(&self, connection: &Connection, cells: &[&str]) -> bool {
        filter::matches(&self.expression, &|name| match self.paths.get(name) {
            Some(path) => path.value(connection, cells),
            None => Literal::Null,
        })
    }
}

impl Path {
    fn new(catalogue: &Catalogue, table: &Arc<Table>, name: &str) -> Option<Self> {
        let mut hops = Vec::new();
        let mut table = table;
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                let column = table.readable(part)?;
                return Some(Self { hops, column, kind: table.columns[column].definition.kind });
            }
            let (column, target) = table.navigation(part)?;
            table = catalogue.by_name(target)?;
            hops.push((column, Arc::clone(table)));
        }
        None
    }

    fn value(&self, connection: &Connection, cells: &[&str]) -> Literal {
        let Some(((first, table), rest)) = self.hops.split_first() else {
            return cell::literal(self.kind, cells[self.column]);
        };
        let (mut cell, mut table) = (cells[*first].to_owned(), table);
        let follow = |table: &Table, cell: &str, next: usize| -> Option<String> {
            let row = store::find(connection, &table.id_key(table.id_of(&cell)?)).ok()??;
            let mut inner = Vec::new();
            table.cells(&row.data, &mut inner);
            inner.get(next).map(|cell| (*cell).to_owned())
        };
        for (column, next) in rest {
            match follow(table, &cell, *column) {
                Some(found) => cell = found,
                None => return Literal::Null,
            }
            table = next;
        }
        follow(table, &cell, self.column).map_or(Literal::Null, |cell| cell::literal(self.kind, &cell))
    }
}

fn each_property<'a>(expression: &'a Expression, each: &mut dyn FnMut(&'a str)) {
    fn in_operand<'a>(operand: &'a Operand, each: &mut dyn FnMut(&'a str)) {
        match operand {
            Operand::Property(name) => each(name),
            Operand::Literal(_) => {}
            Operand::Arithmetic(both) => {
                in_operand(&both.left, each);
                in_operand(&both.right, each);
            }
        }
    }
    match expression {
        Expression::And(all) | Expression::Or(all) => all.iter().for_each(|one| each_property(one, each)),
        Expression::Not(inner) => each_property(inner, each),
        Expression::Compare { left, right, .. } => {
            in_operand(left, each);
            in_operand(right, each);
        }
        Expression::In { operand: one, .. } | Expression::Boolean(one) => in_operand(one, each),
        Expression::Text { operand: one, part, .. } => {
            in_operand(one, each);
            in_operand(part, each);
        }
        // Refused before anybody asks for their properties.
        Expression::Lambda { .. } | Expression::Function { .. } => {}
    }
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Compares columns that hold days with days, whatever time was given (F&O); the noon of a day stands for it.
fn with_days(expression: &mut Expression, table: &Table) {
    let is_day = |operand: &Operand| match operand {
        Operand::Property(name) => {
            table.property(name).is_some_and(|at| table.columns[at].definition.kind == ColumnKind::Date)
        }
        Operand::Literal(_) | Operand::Arithmetic(_) => false,
    };
    match expression {
        Expression::And(all) | Expression::Or(all) => all.iter_mut().for_each(|one| with_days(one, table)),
        Expression::Not(inner) => with_days(inner, table),
        Expression::Compare { left, right, .. } => {
            let (left_is_day, right_is_day) = (is_day(left), is_day(right));
            for (one, other) in [(left_is_day, right), (right_is_day, left)] {
                let Operand::Literal(literal) = other else { continue };
                let day = match literal {
                    Literal::Date(day) => i64::from(*day),
                    Literal::DateTime(micros) => micros.div_euclid(MICROS_PER_DAY),
                    _ => continue,
                };
                if one {
                    *literal = Literal::DateTime(day.saturating_mul(MICROS_PER_DAY) + MICROS_PER_DAY / 2);
                }
            }
        }
        _ => {}
    }
}

/// `CustomerAccount eq 'US*'` (F&O): a star stands for anything.
fn with_wildcards(expression: &mut Expression) {
    match expression {
        Expression::And(all) | Expression::Or(all) => all.iter_mut().for_each(with_wildcards),
        Expression::Not(inner) => with_wildcards(inner),
        Expression::Compare { left, operator, right } => {
            let Operand::Literal(Literal::Text(text)) = right else { return };
            let is_negated = match operator {
                Comparison::Equal => false,
                Comparison::NotEqual => true,
                _ => return,
            };
            if !text.contains('*') {
                return;
            }
            let part = Operand::Literal(Literal::text(text.as_str()));
            let call = Expression::Text { function: TextFunction::Like, operand: left.clone(), part };
            *expression = if is_negated { Expression::Not(Box::new(call)) } else { call };
        }
        Expression::In { .. }
        | Expression::Text { .. }
        | Expression::Boolean(_)
        | Expression::Lambda { .. }
        | Expression::Function { .. } => {}
    }
}

/// Takes place, version, stored form and cells of a row; answers whether to go on. There are no cells where the query
/// looks at none of them.
type EachMatch<'a> = dyn FnMut(i64, i64, &str, &[&str]) -> rusqlite::Result<bool> + 'a;

/// A page that was written.
#[derive(Debug)]
pub(crate) struct Page {
    /// Token of the next page, if there is one.
    pub next: Option<String>,
}

impl Query<'_> {
    /// Writes the rows of one page, with commas between them. `hand_over` may take what is written so far.
    pub fn run(
        &self,
        around: Surroundings<'_>,
        out: &mut Vec<u8>,
        hand_over: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<Page, QueryError> {
        let left = self.token.as_ref().map_or(self.top, |token| token.left);
        let limit = self.page_size.min(left.unwrap_or(usize::MAX));
        let may_go_on = left.is_none_or(|left| limit < left);
        let descending = match self.order.as_slice() {
            [] => false,
            [(column, descending)] if Some(*column) == self.table.clustered => *descending,
            _ => return self.run_ordered(around, out, hand_over, limit, left),
        };
        let after = self.token.as_ref().map(|token| token.after);
        let (mut rows, mut skipped, mut last, mut goes_on) = (0, 0, 0, false);
        if limit > 0 {
            self.each_match(around.connection, after, descending, &mut |place, version, data, cells| {
                if self.token.is_none() && skipped < self.skip {
                    skipped += 1;
                    return Ok(true);
                }
                if rows == limit {
                    goes_on = true;
                    return Ok(false);
                }
                if rows > 0 {
                    out.push(b',');
                }
                let stamp = Stamp { id: self.place(place), version };
                if self.selection.is_whole() {
                    render::write_stored(out, self.table, data, stamp);
                } else {
                    render::write_row(out, around, self.table, cells, stamp, &self.selection)?;
                }
                hand_over(out);
                rows += 1;
                last = place;
                // Whether there is another row has to be known only when another page could bring it.
                Ok(rows < limit || may_go_on)
            })?;
        }
        let next = goes_on
            .then(|| exchange::seal(&SkipToken { after: last, left: left.map(|left| left - rows), order: Vec::new() }));
        Ok(Page { next })
    }

    /// How many rows match, on all pages.
    pub fn count(&self, connection: &Connection) -> Result<i64, QueryError> {
        if self.filter.is_none() && self.company.is_none() {
            return Ok(store::count(connection, self.table)?);
        }
        let mut count = 0;
        self.each_match(connection, None, false, &mut |_, _, _, _| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// Every matching row has to be seen before the first can be sent; a page then begins after the last row of the
    /// page before, whatever was added.
    fn run_ordered(
        &self,
        around: Surroundings<'_>,
        out: &mut Vec<u8>,
        hand_over: &mut dyn FnMut(&mut Vec<u8>),
        limit: usize,
        left: Option<usize>,
    ) -> Result<Page, QueryError> {
        type Sortable = (Vec<Literal>, i64);
        let kind = |column: usize| self.table.columns[column].definition.kind;
        let compare = |a: &Sortable, b: &Sortable| {
            let by_columns =
                self.order.iter().zip(a.0.iter().zip(&b.0)).fold(Ordering::Equal, |so_far, (by, (a, b))| {
                    so_far.then_with(|| if by.1 { order_of(b, a) } else { order_of(a, b) })
                });
            by_columns.then(a.1.cmp(&b.1))
        };
        let start = self.token.as_ref().map(|token| {
            let values = self
                .order
                .iter()
                .zip(&token.order)
                .map(|(by, cell)| cell::literal(kind(by.0), cell))
                .collect::<Vec<_>>();
            (values, token.after)
        });
        let mut found: Vec<Sortable> = Vec::new();
        self.each_match(around.connection, None, false, &mut |place, _, _, cells| {
            let row = (self.order.iter().map(|by| cell::literal(kind(by.0), cells[by.0])).collect(), place);
            if start.as_ref().is_none_or(|start| compare(&row, start) == Ordering::Greater) {
                found.push(row);
            }
            Ok(true)
        })?;
        found.sort_by(compare);
        let skip = if self.token.is_none() { self.skip } else { 0 };
        let more_than = found.len().saturating_sub(skip) > limit;
        let (mut rows, mut token) = (0, None);
        for (_, place) in found.into_iter().skip(skip).take(limit) {
            let Some(row) = store::find_by_place(around.connection, self.place(place))? else { continue };
            let mut cells = Vec::new();
            self.table.cells(&row.data, &mut cells);
            if rows > 0 {
                out.push(b',');
            }
            render::write_row(out, around, self.table, &cells, row.stamp(), &self.selection)?;
            hand_over(out);
            rows += 1;
            if rows == limit {
                let order = self.order.iter().map(|by| cells[by.0].to_owned()).collect();
                token = Some(SkipToken { after: place, left: left.map(|left| left - rows), order });
            }
        }
        let goes_on = more_than && left.is_none_or(|left| rows < left);
        Ok(Page { next: token.filter(|_| goes_on).map(|token| exchange::seal(&token)) })
    }

    fn place(&self, within: i64) -> i64 {
        (self.table.number << PLACE_BITS) | within
    }

    /// Calls `each` with the place (within the table), version and cells of every matching row beyond `after`.
    fn each_match(
        &self,
        connection: &Connection,
        after: Option<i64>,
        descending: bool,
        each: &mut EachMatch<'_>,
    ) -> Result<(), QueryError> {
        const WITHIN: i64 = (1 << PLACE_BITS) - 1;
        let looks_at_cells = self.filter.is_some() || !self.order.is_empty() || !self.selection.is_whole();
        let check = |data: &str, each: &mut dyn FnMut(&[&str]) -> rusqlite::Result<bool>| {
            let in_company = match (&self.company, self.table.company) {
                (Some(company), Some(at)) => cell::nth(data, at).is_some_and(|cell| cell.eq_ignore_ascii_case(company)),
                _ => true,
            };
            if !in_company {
                return Ok(true);
            }
            if !looks_at_cells {
                return each(&[]);
            }
            let mut cells = Vec::with_capacity(self.table.columns.len());
            self.table.cells(data, &mut cells);
            if self.filter.as_ref().is_none_or(|filter| filter.matches(connection, &cells)) {
                each(&cells)
            } else {
                Ok(true)
            }
        };
        let candidates = match &self.filter {
            Some(filter) => candidates(connection, self.table, &filter.expression)?,
            None => None,
        };
        if let Some(places) = candidates {
            let mut places = places;
            places.sort_unstable();
            places.dedup();
            if descending {
                places.reverse();
            }
            for place in places {
                let within = place & WITHIN;
                let is_behind = after.is_some_and(|after| if descending { within >= after } else { within <= after });
                if is_behind {
                    continue;
                }
                if let Some(row) = store::find_by_place(connection, place)?
                    && !check(&row.data, &mut |cells| each(within, row.version, &row.data, cells))?
                {
                    break;
                }
            }
            return Ok(());
        }
        let (mut low, mut high) = self.filter.as_ref().map_or((0, WITHIN), |filter| self.bounds(&filter.expression));
        match after {
            Some(after) if descending => high = high.min(after - 1),
            Some(after) => low = low.max(after),
            None => {}
        }
        store::scan(connection, self.table, low, high, descending, &mut |id, version, data| {
            check(data, &mut |cells| each(id & WITHIN, version, data, cells))
        })?;
        Ok(())
    }

    /// The places that a condition on the clustered column leaves: after, and up to.
    fn bounds(&self, expression: &Expression) -> (i64, i64) {
        let (mut low, mut high) = (0, i64::MAX);
        let all = match expression {
            Expression::And(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        for one in all {
            if let Expression::Compare { left: Operand::Property(name), operator, right: Operand::Literal(value) } = one
                && self.table.clustered.is_some()
                && self.table.property(name) == self.table.clustered
                && let Literal::Number(number) = value
            {
                // Whole numbers are what the column holds; a fraction is left to the filter.
                let Ok(number) = number.to_string().parse::<i64>() else { continue };
                match operator {
                    Comparison::Greater => low = low.max(number),
                    Comparison::GreaterOrEqual => low = low.max(number.saturating_sub(1)),
                    Comparison::Less => high = high.min(number.saturating_sub(1)),
                    Comparison::LessOrEqual => high = high.min(number),
                    Comparison::Equal => (low, high) = (low.max(number.saturating_sub(1)), high.min(number)),
                    Comparison::NotEqual => {}
                }
            }
        }
        (low, high)
    }
}

/// Nulls come first, as in SQL.
pub(crate) fn order_of(a: &Literal, b: &Literal) -> Ordering {
    match (a, b) {
        (Literal::Null, Literal::Null) => Ordering::Equal,
        (Literal::Null, _) => Ordering::Less,
        (_, Literal::Null) => Ordering::Greater,
        _ => a.compare(b).unwrap_or(Ordering::Equal),
    }
}

/// The places of a few rows among which all matches are, when keys tell them.
fn candidates(connection: &Connection, table: &Table, expression: &Expression) -> rusqlite::Result<Option<Vec<i64>>> {
    match expression {
        Expression::Or(any) => {
            let mut places = Vec::new();
            for one in any {
                match candidates(connection, table, one)? {
                    Some(found) => places.extend(found),
                    None => return Ok(None),
                }
            }
            Ok(Some(places))
        }
        Expression::And(all) => {
            let equal = all.iter().filter_map(|one| equality(table, one)).collect::<Vec<_>>();
            if let Some(places) = by_keys(connection, table, &equal)? {
                return Ok(Some(places));
            }
            for one in all.iter().filter(|one| matches!(one, Expression::Or(_) | Expression::In { .. })) {
                if let Some(places) = candidates(connection, table, one)? {
                    return Ok(Some(places));
                }
            }
            Ok(None)
        }
        Expression::In { operand: Operand::Property(name), values } => {
            let Some(column) = table.property(name) else { return Ok(None) };
            let mut places = Vec::new();
            for value in values {
                match by_keys(connection, table, &[(column, value)])? {
                    Some(found) => places.extend(found),
                    None => return Ok(None),
                }
            }
            Ok(Some(places))
        }
        one => match equality(table, one) {
            Some(equal) => by_keys(connection, table, &[equal]),
            None => Ok(None),
        },
    }
}

fn equality<'a>(table: &Table, expression: &'a Expression) -> Option<(usize, &'a Literal)> {
    match expression {
        Expression::Compare {
            left: Operand::Property(name),
            operator: Comparison::Equal,
            right: Operand::Literal(value),
        }
        | Expression::Compare {
            left: Operand::Literal(value),
            operator: Comparison::Equal,
            right: Operand::Property(name),
        } if *value != Literal::Null => Some((table.property(name)?, value)),
        _ => None,
    }
}

/// The row that a whole key names; `None` when the equalities hold no whole key.
pub(crate) fn by_keys(
    connection: &Connection,
    table: &Table,
    equal: &[(usize, &Literal)],
) -> rusqlite::Result<Option<Vec<i64>>> {
    // A value that is not of the column's own type may still be equal to it in a filter: such a key is no key here.
    let cells = |columns: &[usize]| {
        columns
            .iter()
            .map(|at| equal.iter().find(|(column, _)| column == at).and_then(|(at, value)| table.cell_of(*at, value)))
            .collect::<Option<Vec<_>>>()
    };
    let own = match table.primary_id {
        Some(at) => cells(&[at]).and_then(|values| table.id_of(&values[0])).map(|id| table.id_key(id)),
        None => cells(&table.key).map(|values| {
            let mut row = table.empty_row();
            table.key.iter().zip(values).for_each(|(at, value)| row[*at] = value);
            table.row_key(&row)
        }),
    };
    if let Some(key) = own {
        return Ok(Some(store::find(connection, &key)?.into_iter().map(|row| row.id).collect()));
    }
    for (number, (_, columns)) in table.alternate_keys.iter().enumerate() {
        if let Some(values) = cells(columns)
            && !values.iter().any(|value| value == cell::NULL)
        {
            let key = table.alternate_key_of(number, values.iter().map(AsRef::as_ref));
            let found = store::find_by_alternate(connection, &key)?;
            return Ok(Some(found.into_iter().map(|row| row.id).collect()));
        }
    }
    Ok(None)
}
