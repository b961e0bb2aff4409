//! Rows that are read along with others: `$expand`, and what stands behind a navigation property.
//!
//! Owns how related rows are found (by key in one direction, by their marks in the other), and the options of one
//! expansion. Only the first level can be expanded.

use std::cmp::Ordering;
use std::sync::Arc;

use dualwright_odata::batch::Response;
use dualwright_odata::url::{Resource, split_list};

use super::condition;
use super::read::{self, PAGE_MAX};
use super::refusal::{self, bad_query};
use crate::catalogue::Table;
use crate::cell;
use crate::query::{self, Filter, order_of};
use crate::relation::Way;
use crate::render::{self, Selection, Surroundings};
use crate::store::{self, Found};

/// One navigation property that is wanted with each row.
#[derive(Debug)]
pub(crate) struct Related {
    /// `"Lines":`, ready to be written.
    label: String,
    way: Way,
    table: Arc<Table>,
    list: List,
}

impl Related {
    /// Reads one item of `$expand`: `Lines`, or `Lines($select=ItemNumber;$top=3)`.
    pub fn of(around: Surroundings<'_>, table: &Table, item: &str) -> Result<Self, Response> {
        let (name, options) = match item.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')').unwrap_or(rest)),
            None => (item, ""),
        };
        if name.contains('/') {
            return Err(too_deep());
        }
        let relations = around.catalogue.relations_of(table);
        let way = relations.ways.get(name).ok_or_else(|| bad_query(&refusal::unknown_property(table, name)))?.clone();
        let other = match &way {
            Way::To(number) => Arc::clone(&relations.to[*number].target),
            Way::From(other, _) => Arc::clone(other),
        };
        let is_list = matches!(way, Way::From(..));
        let mut resource = Resource::default();
        for option in split_options(options) {
            match option.split_once('=') {
                Some(("$expand", _)) => return Err(too_deep()),
                Some((option @ "$select", value)) => resource.options.push((option.to_owned(), value.to_owned())),
                Some((option @ ("$filter" | "$orderby" | "$top" | "$skip"), value)) if is_list => {
                    resource.options.push((option.to_owned(), value.to_owned()));
                }
                _ => return Err(bad_query(&format!("'{option}' is not supported inside $expand."))),
            }
        }
        let list = List::of(around, &other, &resource)?;
        Ok(Self { label: format!(",{}:", cell::quoted(name)), way, table: other, list })
    }
}

fn too_deep() -> Response {
    bad_query(
        "The request includes a $expand path which is too deep. The maximum depth allowed is 1. To increase the limit, set \
         the 'MaxExpansionDepth' property on EnableQueryAttribute or ODataValidationSettings.",
    )
}

/// Splits at semicolons outside quotes and brackets.
fn split_options(text: &str) -> Vec<&str> {
    let (mut options, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0_usize, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\'' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.saturating_sub(1),
            b';' if !quoted && depth == 0 => {
                options.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    options.push(text[start..].trim());
    options.retain(|option| !option.is_empty());
    options
}

/// Which of the related rows are wanted, in which order, and what of each.
#[derive(Debug)]
pub(crate) struct List {
    pub selection: Selection,
    filter: Option<Filter>,
    order: Vec<(usize, bool)>,
    top: usize,
    skip: usize,
}

/// Rows that are left, and how many there were before the limits.
pub(crate) struct Rows {
    pub count: usize,
    rows: Vec<Found>,
}

impl List {
    pub fn of(around: Surroundings<'_>, table: &Arc<Table>, resource: &Resource) -> Result<Self, Response> {
        let columns = query::select(table, &split_list(resource.option("$select").unwrap_or_default()))
            .map_err(|error| error.finops(table))?;
        let filter = match resource.option("$filter") {
            Some(text) => Some(condition::read(around.catalogue, table, text)?),
            None => None,
        };
        Ok(Self {
            selection: Selection { columns, ..Selection::default() },
            filter,
            order: read::order(table, resource)?,
            top: read::number(resource, "$top")?.unwrap_or(PAGE_MAX).min(PAGE_MAX),
            skip: read::number(resource, "$skip")?.unwrap_or(0),
        })
    }

    pub fn apply(&self, around: Surroundings<'_>, table: &Table, mut rows: Vec<Found>) -> Rows {
        if let Some(filter) = &self.filter {
            rows.retain(|row| {
                let mut cells = Vec::new();
                table.cells(&row.data, &mut cells);
                filter.matches(around.connection, &cells)
            });
        }
        if !self.order.is_empty() {
            rows.sort_by(|a, b| self.compare(table, a, b));
        }
        Rows { count: rows.len(), rows: rows.into_iter().skip(self.skip).take(self.top).collect() }
    }

    fn compare(&self, table: &Table, a: &Found, b: &Found) -> Ordering {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        table.cells(&a.data, &mut left);
        table.cells(&b.data, &mut right);
        for (at, descending) in &self.order {
            let kind = table.columns[*at].definition.kind;
            let order = order_of(&cell::literal(kind, left[*at]), &cell::literal(kind, right[*at]));
            let order = if *descending { order.reverse() } else { order };
            if order != Ordering::Equal {
                return order;
            }
        }
        a.id.cmp(&b.id)
    }
}

impl Rows {
    /// Writes the rows with commas between them.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        around: Surroundings<'_>,
        table: &Table,
        selection: &Selection,
    ) -> rusqlite::Result<()> {
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            let mut cells = Vec::with_capacity(table.columns.len());
            table.cells(&row.data, &mut cells);
            render::write_row(out, around, table, &cells, row.stamp(), selection)?;
        }
        Ok(())
    }
}

/// Writes the members of a row that stand for its expanded navigation properties.
pub(crate) fn write(
    out: &mut Vec<u8>,
    around: Surroundings<'_>,
    table: &Table,
    cells: &[&str],
    related: &[Related],
) -> rusqlite::Result<()> {
    for one in related {
        out.extend_from_slice(one.label.as_bytes());
        let (_, rows) = rows_behind(around, table, cells, &one.way)?;
        let rows = one.list.apply(around, &one.table, rows);
        match one.way {
            Way::To(_) if rows.rows.is_empty() => out.extend_from_slice(b"null"),
            Way::To(_) => rows.write(out, around, &one.table, &one.list.selection)?,
            Way::From(..) => {
                out.push(b'[');
                rows.write(out, around, &one.table, &one.list.selection)?;
                out.push(b']');
            }
        }
    }
    Ok(())
}

/// The rows to which a navigation property leads from one row, in the order in which they were added.
pub(super) fn rows_behind(
    around: Surroundings<'_>,
    table: &Table,
    cells: &[&str],
    way: &Way,
) -> rusqlite::Result<(Arc<Table>, Vec<Found>)> {
    match way {
        Way::To(number) => {
            let relation = &around.catalogue.relations_of(table).to[*number];
            let key = if relation.is_empty(table, cells) { None } else { relation.target_key(cells) };
            let found = match key {
                Some(key) => store::find(around.connection, &key)?,
                None => None,
            };
            Ok((Arc::clone(&relation.target), found.into_iter().collect()))
        }
        Way::From(other, number) => {
            let relation = &around.catalogue.relations_of(other).to[*number];
            let mark = relation.mark_of_target(other, cells);
            let mut places = store::links_to(around.connection, mark, usize::MAX)?;
            places.sort_unstable();
            let mut rows = Vec::with_capacity(places.len());
            for (place, _) in places {
                rows.extend(read::row_at(around, place)?);
            }
            Ok((Arc::clone(other), rows))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_inside_an_expansion_are_split_outside_of_quotes() {
        for (text, wanted) in [
            ("", vec![]),
            ("$select=a,b", vec!["$select=a,b"]),
            ("$select=a;$filter=b eq ';' ; $top=1", vec!["$select=a", "$filter=b eq ';'", "$top=1"]),
            ("$expand=x($select=y;$top=1);$top=2", vec!["$expand=x($select=y;$top=1)", "$top=2"]),
        ] {
            assert_eq!(split_options(text), wanted, "{text}");
        }
    }
}
