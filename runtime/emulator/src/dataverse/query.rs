//! Queries of the Web API: which rows, in which order, a page at a time.
//!
//! Owns the query options and the pages. A page ends at a row and the next begins after it, so that rows added meanwhile
//! neither shift nor repeat others. Rows are streamed from the store; only an order needs to have seen all of them.

use std::cmp::Ordering;
use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::Request;
use dualwright_odata::url::{self, Resource};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::condition::{Condition, Passing, Place, Rows, candidates, each_related};
use super::expand::{Shape, Writer};
use super::filter::Compiler;
use crate::catalogue::{Link, Table};
use crate::cell;
use crate::exchange;
use crate::query::QueryError;
use crate::render;
use crate::store::{self, PLACE_BITS, Stamp};

/// Rows on a page at most, and by default.
pub(super) const PAGE_MAX: usize = 5_000;

const WITHIN: i64 = (1 << PLACE_BITS) - 1;

/// One part of an order.
#[derive(Debug)]
pub(crate) struct Order {
    pub place: Place,
    pub descending: bool,
}

impl Order {
    pub fn list(compiler: Compiler<'_>, table: &Arc<Table>, text: &str) -> Result<Vec<Self>, QueryError> {
        url::split_list(text)
            .into_iter()
            .map(|item| {
                let (path, descending) = match item.rsplit_once(' ') {
                    Some((path, "desc")) => (path.trim(), true),
                    Some((path, "asc")) => (path.trim(), false),
                    _ => (item, false),
                };
                Ok(Self { place: compiler.path(table, path, true)?, descending })
            })
            .collect()
    }

    pub fn keys(all: &[Self], connection: &Connection, rows: &Rows<'_>) -> Vec<Literal> {
        all.iter().map(|one| one.place.literal(connection, rows)).collect()
    }

    pub fn compare(all: &[Self], a: &[Literal], b: &[Literal]) -> Ordering {
        all.iter().zip(a.iter().zip(b)).fold(Ordering::Equal, |so_far, (one, (a, b))| {
            so_far.then_with(|| if one.descending { nulls_first(b, a) } else { nulls_first(a, b) })
        })
    }
}

/// Nulls come first, as in SQL.
pub(super) fn nulls_first(a: &Literal, b: &Literal) -> Ordering {
    match (a, b) {
        (Literal::Null, Literal::Null) => Ordering::Equal,
        (Literal::Null, _) => Ordering::Less,
        (_, Literal::Null) => Ordering::Greater,
        _ => a.compare(b).unwrap_or(Ordering::Equal),
    }
}

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Place of the last row that was sent.
    after: i64,
    /// Rows that are still wanted, when the number was limited.
    left: Option<usize>,
    /// What the order looks at, of the last row.
    #[serde(default)]
    order: Vec<String>,
}

impl Token {
    pub const fn after(place: i64) -> Self {
        Self { after: place, left: None, order: Vec::new() }
    }
}

/// A query of one table, or of the rows that point to one row.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub table: &'a Arc<Table>,
    pub shape: Shape,
    pub filter: Option<Condition>,
    order: Vec<Order>,
    top: Option<usize>,
    pub page_size: usize,
    /// Whether the caller named the size of a page.
    pub is_paged: bool,
    token: Option<Token>,
    /// The row whose collection is asked for, and how its rows hang on it.
    scope: Option<(Link, Uuid)>,
}

/// A page that was written.
#[derive(Debug)]
pub(crate) struct Page {
    /// Token of the next page, if there is one.
    pub next: Option<String>,
}

/// Takes a matching row and its cells; answers whether to go on.
type EachRow<'f> = dyn FnMut(Passing<'_>, &Rows<'_>) -> rusqlite::Result<bool> + 'f;

impl<'a> Query<'a> {
    pub fn new(
        compiler: Compiler<'_>,
        table: &'a Arc<Table>,
        resource: &Resource,
        request: &Request,
        scope: Option<(Link, Uuid)>,
    ) -> Result<Self, QueryError> {
        for (name, _) in &resource.options {
            if matches!(name.as_str(), "$skip" | "$search" | "$compute" | "$format" | "$levels" | "$index") {
                return Err(QueryError::Malformed(format!("The query parameter {name} is not supported.")));
            }
        }
        let top = match resource.option("$top") {
            None => None,
            Some(text) => Some(
                text.trim()
                    .parse::<usize>()
                    .ok()
                    .filter(|top| *top > 0 || text.trim() == "0")
                    .ok_or_else(|| QueryError::Malformed(format!("Invalid value '{text}' for $top query option found. The $top query option requires a non-negative integer value.")))?,
            ),
        };
        let size =
            exchange::preference(request, "odata.maxpagesize").or_else(|| exchange::preference(request, "maxpagesize"));
        let size = size.and_then(|size| size.parse::<usize>().ok()).filter(|size| *size > 0);
        let filter = resource.resolved("$filter").map(|text| compiler.filter(table, &text)).transpose()?;
        let filter = compiler.within_reach(table, filter);
        let order = resource.resolved("$orderby").map(|text| Order::list(compiler, table, &text)).transpose()?;
        let token = match resource.option("$skiptoken") {
            None => None,
            Some(token) => Some(
                exchange::unseal(token)
                    .ok_or_else(|| QueryError::Malformed("Malformed XML in the Paging Cookie".to_owned()))?,
            ),
        };
        Ok(Self {
            table,
            shape: Shape::new(compiler, table, resource.option("$select"), resource.option("$expand"))?,
            filter,
            order: order.unwrap_or_default(),
            // With a page size the limit is ignored ("Don't use the $top query option while paging records").
            top: top.filter(|_| size.is_none()),
            page_size: size.map_or(PAGE_MAX, |size| size.min(PAGE_MAX)),
            is_paged: size.is_some(),
            token,
            scope,
        })
    }

    /// Writes the rows of one page, with commas between them.
    pub fn run(&self, writer: &Writer<'_>, out: &mut Vec<u8>) -> Result<Page, QueryError> {
        let connection = writer.around.connection;
        let left = self.token.as_ref().map_or(self.top, |token| token.left);
        let limit = self.page_size.min(left.unwrap_or(usize::MAX));
        let may_go_on = left.is_none_or(|left| limit < left);
        if !self.order.is_empty() {
            return self.run_ordered(writer, out, limit, left);
        }
        let after = self.token.as_ref().map_or(0, |token| token.after);
        let (mut rows, mut last, mut goes_on) = (0, 0, false);
        if limit > 0 {
            let is_whole = self.shape.is_whole() && !writer.annotations.any();
            self.each_row(connection, after, !is_whole, &mut |row, matched| {
                if rows == limit {
                    goes_on = true;
                    return Ok(false);
                }
                if rows > 0 {
                    out.push(b',');
                }
                let stamp = Stamp { id: row.id, version: row.version };
                if is_whole {
                    render::write_stored(out, self.table, row.data, stamp);
                } else {
                    let cells = matched.first().and_then(Option::as_deref).unwrap_or_default();
                    writer.row(out, self.table, cells, stamp, &self.shape)?;
                }
                rows += 1;
                last = row.id & WITHIN;
                // Whether there is another row has to be known only when another page could bring it.
                Ok(rows < limit || may_go_on)
            })?;
        }
        let next = goes_on
            .then(|| exchange::seal(&Token { after: last, left: left.map(|left| left - rows), order: Vec::new() }));
        Ok(Page { next })
    }

    fn run_ordered(
        &self,
        writer: &Writer<'_>,
        out: &mut Vec<u8>,
        limit: usize,
        left: Option<usize>,
    ) -> Result<Page, QueryError> {
        let connection = writer.around.connection;
        let start = self.token.as_ref().map(|token| {
            let keys = self.order.iter().zip(&token.order);
            let keys = keys.map(|(one, cell)| cell::literal(one.place.kind, cell)).collect::<Vec<_>>();
            (keys, token.after)
        });
        type Sortable = (Vec<Literal>, i64);
        let compare = |a: &Sortable, b: &Sortable| Order::compare(&self.order, &a.0, &b.0).then(a.1.cmp(&b.1));
        let mut found = Vec::new();
        // One more than a page says whether there is another.
        let kept = limit.saturating_add(1);
        self.each_match(connection, 0, &mut |row, matched| {
            let sortable = (Order::keys(&self.order, connection, matched), row.id & WITHIN);
            if start.as_ref().is_none_or(|start| compare(&sortable, start) == Ordering::Greater) {
                found.push(sortable);
                // Only the first of all are wanted, so the rest is let go from time to time.
                if found.len() >= kept.saturating_mul(2).max(1_024) {
                    found.sort_unstable_by(compare);
                    found.truncate(kept);
                }
            }
            Ok(true)
        })?;
        found.sort_unstable_by(compare);
        let more_than = found.len() > limit;
        let (mut rows, mut token) = (0, None);
        for (_, place) in found.into_iter().take(limit) {
            let id = (self.table.number << PLACE_BITS) | place;
            let Some(row) = store::find_by_place(connection, id)? else { continue };
            let mut cells = Vec::with_capacity(self.table.columns.len());
            self.table.cells(&row.data, &mut cells);
            if rows > 0 {
                out.push(b',');
            }
            writer.row(out, self.table, &cells, row.stamp(), &self.shape)?;
            rows += 1;
            if rows == limit {
                let matched = [Some(cells)];
                let order = self.order.iter().map(|one| one.place.cell(connection, &matched).into_owned()).collect();
                token = Some(Token { after: place, left: left.map(|left| left - rows), order });
            }
        }
        let goes_on = more_than && left.is_none_or(|left| rows < left);
        Ok(Page { next: token.filter(|_| goes_on).map(|token| exchange::seal(&token)) })
    }

    /// How many rows match, on all pages, but not more than `most`.
    pub fn count(&self, connection: &Connection, most: i64) -> Result<i64, QueryError> {
        if self.filter.is_none() && self.scope.is_none() {
            return Ok(store::count(connection, self.table)?.min(most));
        }
        let mut count = 0;
        self.each_row(connection, 0, false, &mut |_, _| {
            count += 1;
            Ok(count < most)
        })?;
        Ok(count)
    }

    /// Calls `each` with every matching row behind the place `after`, in the order of places.
    pub fn each_match(&self, connection: &Connection, after: i64, each: &mut EachRow<'_>) -> Result<(), QueryError> {
        self.each_row(connection, after, true, each)
    }

    /// [`Query::each_match`], which without `with_cells` and without a filter does not look for the cells.
    fn each_row(
        &self,
        connection: &Connection,
        after: i64,
        with_cells: bool,
        each: &mut EachRow<'_>,
    ) -> Result<(), QueryError> {
        let mut check = |row: Passing<'_>| {
            if !with_cells && self.filter.is_none() {
                return each(row, &[]);
            }
            let mut cells = Vec::with_capacity(self.table.columns.len());
            self.table.cells(row.data, &mut cells);
            let rows = [Some(cells)];
            match &self.filter {
                Some(filter) if !filter.matches(connection, &rows) => Ok(true),
                _ => each(row, &rows),
            }
        };
        if let Some((link, of)) = &self.scope {
            return Ok(each_related(connection, self.table, link, *of, after, &mut check)?);
        }
        let few = match &self.filter {
            Some(filter) => candidates(connection, self.table, filter)?,
            None => None,
        };
        match few {
            Some(mut ids) => {
                ids.sort_unstable();
                ids.dedup();
                for id in ids.into_iter().filter(|id| id & WITHIN > after) {
                    if let Some(row) = store::find_by_place(connection, id)?
                        && !check(Passing { id, version: row.version, data: &row.data })?
                    {
                        break;
                    }
                }
            }
            None => store::scan(connection, self.table, after, WITHIN, false, &mut |id, version, data| {
                check(Passing { id, version, data })
            })?,
        }
        Ok(())
    }
}
