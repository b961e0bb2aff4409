//! Rows as the Web API sends them: selected columns, annotations, and rows to which they are related.
//!
//! Owns `$select` and `$expand` and the shape of what comes back ("Select columns", "Join tables using OData"). Cells are
//! copied as they are stored. Which rows are sent is the query's business.

use std::sync::Arc;

use dualwright_odata::url;
use uuid::Uuid;

use super::condition::{Condition, Passing, each_related};
use super::display::{self, Annotations, FORMATTED, LOOKUP_NAVIGATION, LOOKUP_TABLE, Targets};
use super::filter::Compiler;
use super::query::Order;
use super::roles;
use crate::batch::Site;
use crate::catalogue::{Link, Table};
use crate::cell;
use crate::definition::ColumnKind;
use crate::query::{QueryError, select};
use crate::render::Surroundings;
use crate::store::{self, Stamp};

/// Expansions of one request ("Join tables using OData").
const EXPANSIONS_MAX: usize = 15;
/// Rows of an expanded collection.
const EXPANDED_MAX: usize = 5_000;

/// What is wanted of each row.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// Column places; all of them when not given.
    pub columns: Option<Vec<usize>>,
    pub expansions: Vec<Expansion>,
}

#[derive(Debug)]
pub(crate) struct Expansion {
    pub name: String,
    what: What,
    /// `name($select…)` as it stands in a context.
    context: String,
}

#[derive(Debug)]
enum What {
    /// The row behind a lookup, or only a link to it.
    Row { column: usize, tables: Vec<Arc<Table>>, shape: Shape, only_reference: bool },
    /// The rows that point here.
    Collection(Box<Collection>),
}

#[derive(Debug)]
struct Collection {
    table: Arc<Table>,
    link: Link,
    shape: Shape,
    filter: Option<Condition>,
    order: Vec<Order>,
    top: Option<usize>,
    /// The options, for the link to the rows.
    query: String,
}

/// What one answer is written with.
pub(crate) struct Writer<'a> {
    pub around: Surroundings<'a>,
    pub site: &'a Site,
    pub annotations: Annotations,
    pub targets: Targets,
    /// Rows of an expanded collection on one page; only nested expansions are paged.
    pub page_size: Option<usize>,
    /// Whether the row was just written: then rows behind its lookups have etags, too.
    pub is_representation: bool,
}

impl Shape {
    pub fn new(
        compiler: Compiler<'_>,
        table: &Arc<Table>,
        selected: Option<&str>,
        expanded: Option<&str>,
    ) -> Result<Self, QueryError> {
        let shape = Self::nested(compiler, table, selected, expanded, 0)?;
        if shape.expansions.iter().map(Expansion::count).sum::<usize>() > EXPANSIONS_MAX {
            return Err(QueryError::Malformed(format!(
                "The number of expand options exceeds the limit of {EXPANSIONS_MAX}."
            )));
        }
        Ok(shape)
    }

    fn nested(
        compiler: Compiler<'_>,
        table: &Arc<Table>,
        selected: Option<&str>,
        expanded: Option<&str>,
        depth: usize,
    ) -> Result<Self, QueryError> {
        let names = selected.map(url::split_list).unwrap_or_default();
        let mut columns = select(table, &names)?;
        // An amount is nothing without its currency.
        if let (Some(columns), Some(currency)) = (&mut columns, table.server.currency)
            && !columns.contains(&currency)
            && columns.iter().any(|at| table.columns[*at].definition.kind == ColumnKind::Money)
        {
            columns.insert(columns.len() - 1, currency);
        }
        if depth > EXPANSIONS_MAX {
            return Err(QueryError::Malformed("The expand options are nested too deep.".to_owned()));
        }
        let items = expanded.map(url::split_list).unwrap_or_default();
        let expansions = items
            .into_iter()
            .map(|item| Expansion::new(compiler, table, item, depth))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { columns, expansions })
    }

    /// Whether the row is wanted as it is stored.
    pub fn is_whole(&self) -> bool {
        self.columns.is_none() && self.expansions.is_empty()
    }

    fn has_nested(&self) -> bool {
        self.expansions.iter().any(|one| !one.shape().expansions.is_empty())
    }

    /// What stands in brackets behind a set in a context.
    pub fn context(&self, selected: Option<&str>) -> String {
        let names = selected.map(url::split_list).unwrap_or_default();
        let all = names.into_iter().map(str::to_owned).chain(self.expansions.iter().map(|one| one.context.clone()));
        let all = all.collect::<Vec<_>>();
        if all.is_empty() { String::new() } else { format!("({})", all.join(",")) }
    }
}

impl Expansion {
    fn new(compiler: Compiler<'_>, table: &Arc<Table>, item: &str, depth: usize) -> Result<Self, QueryError> {
        let (name, options) = match item.split_once('(') {
            Some((name, rest)) => (name.trim(), rest.strip_suffix(')').unwrap_or(rest)),
            None => (item, ""),
        };
        let (name, only_reference) = name.strip_suffix("/$ref").map_or((name, false), |name| (name, true));
        let options = url::split_options(options);
        let option = |wanted: &str| options.iter().find(|(own, _)| *own == wanted).map(|(_, value)| *value);
        if let Some((other, _)) =
            options.iter().find(|(own, _)| !matches!(*own, "$select" | "$filter" | "$orderby" | "$top" | "$expand"))
        {
            return Err(QueryError::Malformed(format!("The query option '{other}' is not supported in $expand.")));
        }
        let is_row = table.navigation(name);
        let target = match is_row {
            Some(_) => table.navigation_targets(name).first().and_then(|first| compiler.catalogue.by_name(first)),
            None => compiler.catalogue.related(table.name(), name).map(|(_, referring)| referring),
        };
        let Some(target) = target else { return Err(QueryError::Property(name.to_owned())) };
        compiler.permit(target)?;
        let shape = Shape::nested(compiler, target, option("$select"), option("$expand"), depth + 1)?;
        let limited = option("$orderby").is_some() || option("$top").is_some();
        if limited && (is_row.is_some() || depth > 0 || !shape.expansions.is_empty()) {
            return Err(QueryError::Malformed(
                "Only $select and $filter clause can be provided while doing $expand on many-to-one relationship or nested \
                 one-to-many relationship."
                    .to_owned(),
            ));
        }
        let inner = shape.context(option("$select"));
        let context = match only_reference {
            true => format!("{name},{name}/$ref()"),
            false => format!("{name}{}", if inner.is_empty() { "()" } else { &inner }),
        };
        let what = match is_row {
            Some((column, _)) => {
                let tables = table.navigation_targets(name);
                let tables = tables.iter().filter_map(|name| compiler.catalogue.by_name(name)).cloned();
                let tables = tables.collect::<Vec<_>>();
                tables.iter().try_for_each(|table| compiler.permit(table))?;
                What::Row { column, tables, shape, only_reference }
            }
            None if only_reference => {
                return Err(QueryError::Malformed(
                    "Expand with $ref is only supported on lookup type navigation property.".to_owned(),
                ));
            }
            None => {
                let Some((link, _)) = compiler.catalogue.related(table.name(), name) else {
                    return Err(QueryError::Property(name.to_owned()));
                };
                let filter = option("$filter").map(|text| compiler.filter(target, text)).transpose()?;
                let filter = compiler.within_reach(target, filter);
                let top = option("$top").map(|text| {
                    text.parse().map_err(|_| QueryError::Malformed(format!("Invalid value '{text}' for $top.")))
                });
                let order = option("$orderby").map(|text| Order::list(compiler, target, text)).transpose()?;
                let query = options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
                What::Collection(Box::new(Collection {
                    table: Arc::clone(target),
                    link,
                    shape,
                    filter,
                    order: order.unwrap_or_default(),
                    top: top.transpose()?,
                    query: if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) },
                }))
            }
        };
        Ok(Self { name: name.to_owned(), what, context })
    }

    fn shape(&self) -> &Shape {
        match &self.what {
            What::Row { shape, .. } => shape,
            What::Collection(collection) => &collection.shape,
        }
    }

    fn count(&self) -> usize {
        1 + self.shape().expansions.iter().map(Self::count).sum::<usize>()
    }
}

impl Writer<'_> {
    pub fn row(
        &self,
        out: &mut Vec<u8>,
        table: &Table,
        cells: &[&str],
        stamp: Stamp,
        shape: &Shape,
    ) -> rusqlite::Result<()> {
        crate::render::open(out, table, stamp);
        self.members(out, table, cells, shape, shape.has_nested())
    }

    /// What follows the opening bracket and the etag, up to the closing bracket.
    fn members(
        &self,
        out: &mut Vec<u8>,
        table: &Table,
        cells: &[&str],
        shape: &Shape,
        nested: bool,
    ) -> rusqlite::Result<()> {
        match &shape.columns {
            None => (0..table.columns.len())
                .filter(|at| !table.columns[*at].definition.secret)
                .for_each(|at| self.column(out, table, cells, at)),
            Some(columns) => columns.iter().for_each(|at| self.column(out, table, cells, *at)),
        }
        for expansion in &shape.expansions {
            separate(out);
            out.extend_from_slice(cell::quoted(&expansion.name).as_bytes());
            out.push(b':');
            match &expansion.what {
                What::Row { column, tables, shape, only_reference } => {
                    self.row_behind(out, table, cells[*column], tables, shape, *only_reference, nested)?;
                }
                What::Collection(collection) => {
                    self.collection(out, table, cells, &expansion.name, collection, nested)?
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a row and what is wanted of the one behind it")]
    fn row_behind(
        &self,
        out: &mut Vec<u8>,
        table: &Table,
        cell: &str,
        tables: &[Arc<Table>],
        shape: &Shape,
        only_reference: bool,
        nested: bool,
    ) -> rusqlite::Result<()> {
        let Some(id) = table.id_of(&cell) else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        for (number, target) in tables.iter().enumerate() {
            let Some(row) = store::find(self.around.connection, &target.id_key(id))? else { continue };
            if only_reference {
                let link = format!("{}{}/{}({id})", self.site.base, self.site.root, target.set());
                out.extend_from_slice(format!("{{\"@odata.id\":{}}}", cell::quoted(&link)).as_bytes());
                return Ok(());
            }
            let mut cells = Vec::with_capacity(target.columns.len());
            target.cells(&row.data, &mut cells);
            if self.site.user.as_ref().is_some_and(|caller| roles::may_read_row(caller, target, &cells).is_err()) {
                break;
            }
            if self.is_representation {
                crate::render::open(out, target, row.stamp());
            } else {
                out.push(b'{');
            }
            // What was selected was found in the first table; an owner of another kind is sent whole.
            let whole = Shape::default();
            return self.members(out, target, &cells, if number == 0 { shape } else { &whole }, nested);
        }
        out.extend_from_slice(b"null");
        Ok(())
    }

    fn collection(
        &self,
        out: &mut Vec<u8>,
        table: &Table,
        cells: &[&str],
        name: &str,
        collection: &Collection,
        nested: bool,
    ) -> rusqlite::Result<()> {
        let id = table.primary_id.and_then(|at| table.id_of(&cells[at])).unwrap_or_default();
        let limit = collection.top.unwrap_or(EXPANDED_MAX).min(EXPANDED_MAX);
        let limit = if nested { self.page_size.map_or(limit, |size| size.min(limit)) } else { limit };
        let target = &collection.table;
        out.push(b'[');
        let mut written = 0;
        let mut last = 0;
        let mut write = |out: &mut Vec<u8>, cells: &[&str], stamp: Stamp| {
            if written > 0 {
                out.push(b',');
            }
            written += 1;
            last = stamp.id & ((1 << store::PLACE_BITS) - 1);
            out.push(b'{');
            if !nested {
                out.extend_from_slice(b"\"@odata.etag\":");
                out.extend_from_slice(cell::quoted(&crate::render::etag(target, stamp)).as_bytes());
                // The lookup by which they are found comes with them.
                if let Some(column) = collection.link.lookup()
                    && collection.shape.columns.as_ref().is_some_and(|columns| !columns.contains(&column))
                {
                    self.column(out, target, cells, column);
                }
            }
            self.members(out, target, cells, &collection.shape, nested)
        };
        let fits = |cells: &[&str]| {
            let rows = [Some(cells.to_vec())];
            collection.filter.as_ref().is_none_or(|filter| filter.matches(self.around.connection, &rows))
        };
        let mut count = 0;
        if collection.order.is_empty() {
            each_related(self.around.connection, target, &collection.link, id, 0, &mut |row: Passing<'_>| {
                let mut cells = Vec::with_capacity(target.columns.len());
                target.cells(row.data, &mut cells);
                if fits(&cells) {
                    if count == limit {
                        return Ok(false);
                    }
                    count += 1;
                    write(out, &cells, Stamp { id: row.id, version: row.version })?;
                }
                Ok(true)
            })?;
        } else {
            let mut sortable = Vec::new();
            each_related(self.around.connection, target, &collection.link, id, 0, &mut |row: Passing<'_>| {
                let mut cells = Vec::with_capacity(target.columns.len());
                target.cells(row.data, &mut cells);
                if fits(&cells) {
                    sortable.push((Order::keys(&collection.order, self.around.connection, &[Some(cells)]), row.id));
                }
                Ok(true)
            })?;
            sortable.sort_by(|a, b| Order::compare(&collection.order, &a.0, &b.0).then(a.1.cmp(&b.1)));
            for (_, id) in sortable.into_iter().take(limit) {
                let Some(row) = store::find_by_place(self.around.connection, id)? else { continue };
                let mut cells = Vec::with_capacity(target.columns.len());
                target.cells(&row.data, &mut cells);
                write(out, &cells, row.stamp())?;
            }
        }
        out.push(b']');
        let token = if nested && count == limit && count > 0 {
            let token = crate::exchange::seal(&super::query::Token::after(last));
            let joint = if collection.query.is_empty() { '?' } else { '&' };
            format!("{joint}$skiptoken={token}")
        } else {
            String::new()
        };
        if !nested || !token.is_empty() {
            let link =
                format!("{}{}/{}({id})/{name}{}{token}", self.site.base, self.site.root, table.set(), collection.query);
            let member = format!(",{}:{}", cell::quoted(&format!("{name}@odata.nextLink")), cell::quoted(&link));
            out.extend_from_slice(member.as_bytes());
        }
        Ok(())
    }

    /// One column with what stands beside it.
    pub fn column(&self, out: &mut Vec<u8>, table: &Table, cells: &[&str], at: usize) {
        let column = &table.columns[at];
        if column.definition.secret {
            return;
        }
        let cell = cells.get(at).copied().unwrap_or(cell::NULL);
        if cell != cell::NULL && self.annotations.any() {
            self.annotate(out, table, cells, at, &column.property);
        }
        separate(out);
        out.extend_from_slice(column.label.as_bytes());
        out.extend_from_slice(cell.as_bytes());
    }

    /// The annotations of a value under the name that it travels by.
    pub fn annotate(&self, out: &mut Vec<u8>, table: &Table, cells: &[&str], at: usize, name: &str) {
        let mut annotate = |term: &str, value: &str| {
            separate(out);
            out.extend_from_slice(cell::quoted(&format!("{name}@{term}")).as_bytes());
            out.push(b':');
            out.extend_from_slice(cell::quoted(value).as_bytes());
        };
        if self.annotations.formatted
            && let Some(shown) = display::formatted(self.around, &self.targets, table, cells, at)
        {
            annotate(FORMATTED, &shown);
        }
        let asks = self.annotations.lookup_table || self.annotations.lookup_navigation;
        if asks
            && table.columns[at].definition.kind == ColumnKind::Lookup
            && let Some(target) = self.targets.of(self.around, table, at, cells[at])
        {
            if self.annotations.lookup_navigation {
                annotate(LOOKUP_NAVIGATION, &target.navigation);
            }
            if self.annotations.lookup_table {
                annotate(LOOKUP_TABLE, target.table.name());
            }
        }
    }

    /// A link to a row.
    pub fn link(&self, table: &Table, id: Uuid) -> String {
        format!("{}{}/{}({id})", self.site.base, self.site.root, table.set())
    }
}

/// A comma, unless an object or a list has just begun.
pub(crate) fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'{' | b'[')) {
        out.push(b',');
    }
}
