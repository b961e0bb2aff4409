//! FetchXML: `accounts?fetchXml=<fetch>…` ("Query data using FetchXml").
//!
//! Owns the language: elements, operators, joins, pages and aggregates. What a condition means once it is read, how values
//! are shown and what aggregates compute is shared with OData queries.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::Response;
use dualwright_odata::escape::component;
use dualwright_odata::filter::Comparison;
use rusqlite::Connection;

use super::aggregate::{Function, Groups, ROWS_MAX, too_many};
use super::apply::{push, shown_alone};
use super::condition::{Condition, MICROS_PER_DAY, Pattern, Place, Test, candidates, each_referring};
use super::display;
use super::expand::{Writer, separate};
use super::filter::{Compiler, of_text};
use super::query::nulls_first;
use super::xml::{self, Element};
use super::{BAD_QUERY, context, error, failed, span};
use crate::catalogue::{Link, Table};
use crate::cell;
use crate::definition::ColumnKind;
use crate::render;
use crate::store::{self, Found};

/// The query cannot be read.
const INVALID: &str = "0x80041100";
const NO_TABLE: &str = "0x80041102";
const NO_COLUMN: &str = "0x80041103";
const TOO_MANY_LINKS: &str = "0x8004430d";

/// Joins of one query ("Join tables", "Limitations").
const LINKS_MAX: usize = 15;
const PAGE_MAX: usize = 5_000;
const COUNT_MAX: usize = 5_000;
/// Rows that pages without a cookie reach ("Page results", "Simple paging").
const SIMPLE_PAGING_MAX: usize = 50_000;

pub(super) fn answer(
    compiler: Compiler<'_>,
    writer: &Writer<'_>,
    table: &Arc<Table>,
    text: &str,
    counted: bool,
) -> Result<Vec<u8>, Response> {
    let root = xml::parse(text).map_err(|message| invalid(&format!("Invalid XML. {message}")))?;
    let mut fetch = Fetch::new(compiler, table, &root)?;
    fetch.counted |= counted;
    fetch.answer(writer)
}

fn invalid(message: &str) -> Response {
    error(400, INVALID, message)
}

/// One table of the query, and how it is joined to one before it.
struct Source {
    table: Arc<Table>,
    /// What its columns are prefixed with; empty for the table of the query itself.
    alias: String,
    join: Option<Join>,
    /// What its rows have to meet before they are joined.
    filter: Option<Condition>,
    columns: Vec<Selected>,
}

struct Join {
    parent: usize,
    /// Place in the joined table, and in the parent.
    from: usize,
    to: usize,
    outer: bool,
}

struct Selected {
    column: usize,
    alias: Option<String>,
    aggregate: Option<Function>,
    group: Option<Grouping>,
}

#[derive(Clone, Copy, PartialEq)]
enum Grouping {
    Value,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

struct OrderBy {
    what: What,
    descending: bool,
}

enum What {
    Column(Place),
    /// A column of an aggregate by its alias.
    Alias(String),
}

struct Fetch<'a> {
    compiler: Compiler<'a>,
    sources: Vec<Source>,
    /// What joined rows have to meet.
    after_joins: Option<Condition>,
    orders: Vec<OrderBy>,
    top: Option<usize>,
    page_size: usize,
    page: usize,
    cookie: Option<Element>,
    distinct: bool,
    aggregate: bool,
    aggregate_limit: usize,
    counted: bool,
    /// Rows of tables that are joined by columns without an index, by the value of the column.
    hashed: RefCell<HashMap<usize, HashMap<String, Vec<i64>>>>,
}

type Tuple = Vec<Option<Found>>;

impl<'a> Fetch<'a> {
    fn new(compiler: Compiler<'a>, table: &Arc<Table>, root: &Element) -> Result<Self, Response> {
        if root.name != "fetch" {
            return Err(invalid("The root of a query is the element fetch."));
        }
        let number = |name: &str| match root.attribute(name) {
            None => Ok(None),
            Some(text) => text
                .trim()
                .parse::<usize>()
                .map(Some)
                .map_err(|_| invalid(&format!("Invalid value for the attribute {name}: {text}."))),
        };
        let flag = |name: &str| matches!(root.attribute(name), Some("true" | "1"));
        let entity = root.children.iter().find(|child| child.name == "entity");
        let entity = entity.ok_or_else(|| invalid("The element fetch needs an element entity."))?;
        if let Some(other) = root.children.iter().find(|child| child.name != "entity" && child.name != "order") {
            return Err(invalid(&format!("Invalid Child Node, valid nodes are entity. NodeName = {}", other.name)));
        }
        let name = entity.attribute("name").unwrap_or_default();
        if name != table.name() {
            compiler.catalogue.by_name(name).ok_or_else(|| no_table(name))?;
            let message = format!("The entity of the fetchXml ('{name}') is not that of the set '{}'.", table.set());
            return Err(error(400, BAD_QUERY, &message));
        }
        let (top, count, page) = (number("top")?, number("count")?, number("page")?);
        if top.is_some() && page.is_some() {
            return Err(invalid("The top attribute can't be specified with paging attribute page"));
        }
        if top.is_some_and(|top| top > PAGE_MAX) {
            return Err(invalid(&format!("The top attribute cannot exceed {PAGE_MAX}.")));
        }
        let cookie = match root.attribute("paging-cookie") {
            None | Some("") => None,
            Some(text) => Some(xml::parse(text).map_err(|_| invalid("Malformed XML in the Paging Cookie"))?),
        };
        let mut fetch = Self {
            compiler,
            sources: Vec::new(),
            after_joins: None,
            orders: Vec::new(),
            top,
            page_size: count.filter(|count| *count > 0).unwrap_or(PAGE_MAX).min(PAGE_MAX),
            page: page.unwrap_or(1).max(1),
            cookie,
            distinct: flag("distinct"),
            aggregate: flag("aggregate"),
            aggregate_limit: number("aggregatelimit")?.unwrap_or(ROWS_MAX),
            counted: flag("returntotalrecordcount"),
            hashed: RefCell::default(),
        };
        fetch.source(Arc::clone(table), String::new(), None, entity)?;
        // Filters and orders may name any alias, so they are read when all are known.
        fetch.conditions(0, entity)?;
        Ok(fetch)
    }

    /// Adds a table with what hangs below it, in the order of the document.
    fn source(
        &mut self,
        table: Arc<Table>,
        alias: String,
        join: Option<Join>,
        element: &Element,
    ) -> Result<(), Response> {
        let own = self.sources.len();
        if own > LINKS_MAX {
            return Err(error(400, TOO_MANY_LINKS, "Number of link entities in query exceeded maximum limit."));
        }
        let mut columns = Vec::new();
        for child in &element.children {
            match child.name.as_str() {
                "attribute" => columns.push(self.selected(&table, child)?),
                "all-attributes" => columns.extend(all_columns(&table)),
                "filter" | "order" | "link-entity" | "no-attrs" => {}
                other => {
                    return Err(error(
                        400,
                        "0x8004111c",
                        &format!(
                            "Invalid Child Node, valid nodes are filter, order, link-entity, attribute, all-attributes, \
                             no-attrs. NodeName = {other}"
                        ),
                    ));
                }
            }
        }
        let says_columns = element.children.iter().any(|child| child.name == "no-attrs") || !columns.is_empty();
        if own == 0 && !says_columns && !self.aggregate {
            columns.extend(all_columns(&table));
        }
        self.sources.push(Source { table: Arc::clone(&table), alias, join, filter: None, columns });
        for child in element.children.iter().filter(|child| child.name == "link-entity") {
            let Some((linked, from, to)) = self.link(&table, child)? else { continue };
            let outer = match child.attribute("link-type").unwrap_or("inner") {
                "inner" | "natural" => false,
                "outer" => true,
                // Only whether there is a row matters, so it is a condition and not a join.
                "exists" | "in" | "any" | "not any" | "all" | "not all" | "matchfirstrowusingcrossapply" => continue,
                other => return Err(invalid(&format!("Invalid value for the attribute link-type: {other}."))),
            };
            let number = self.sources.len();
            let alias = child.attribute("alias").map_or_else(|| format!("{}{number}", linked.name()), str::to_owned);
            if self.sources.iter().any(|source| source.alias == alias) {
                return Err(invalid(&format!("The alias {alias} is not unique.")));
            }
            self.source(linked, alias, Some(Join { parent: own, from, to, outer }), child)?;
        }
        Ok(())
    }

    /// The table of a link, and the columns that have to be equal: in it, and in its parent.
    fn link(&self, parent: &Table, element: &Element) -> Result<Option<(Arc<Table>, usize, usize)>, Response> {
        let name = element.attribute("name").ok_or_else(|| invalid("A link-entity needs a name."))?;
        let table = self.compiler.catalogue.by_name(name).ok_or_else(|| no_table(name))?;
        super::permit(self.compiler.site, table)?;
        let (from, to) = (element.attribute("from"), element.attribute("to"));
        let (Some(from), Some(to)) = (from, to) else { return Err(invalid("A link-entity needs from and to.")) };
        let from = table.readable_column(from).ok_or_else(|| no_column(table, from))?;
        let to = parent.readable_column(to).ok_or_else(|| no_column(parent, to))?;
        Ok(Some((Arc::clone(table), from, to)))
    }

    fn selected(&self, table: &Table, element: &Element) -> Result<Selected, Response> {
        let name = element.attribute("name").ok_or_else(|| invalid("An attribute needs a name."))?;
        let column = table.readable_column(name).ok_or_else(|| no_column(table, name))?;
        let alias = element.attribute("alias").map(str::to_owned);
        let mut selected = Selected { alias, ..Selected::plain(column) };
        if !self.aggregate {
            return Ok(selected);
        }
        if selected.alias.is_none() {
            return Err(invalid(&format!("The attribute {name} of an aggregate needs an alias.")));
        }
        if let Some(function) = element.attribute("aggregate") {
            let distinct = element.attribute("distinct") == Some("true");
            selected.aggregate = Some(match Function::of(function) {
                Some(Function::CountColumn) if distinct => Function::CountDistinct,
                Some(function) => function,
                None => return Err(invalid(&format!("Invalid value for the attribute aggregate: {function}."))),
            });
        } else if element.attribute("groupby") == Some("true") {
            selected.group = Some(match element.attribute("dategrouping") {
                None => Grouping::Value,
                Some("day") => Grouping::Day,
                Some("week") => Grouping::Week,
                Some("month") => Grouping::Month,
                Some("quarter" | "fiscal-period") => Grouping::Quarter,
                Some("year" | "fiscal-year") => Grouping::Year,
                Some(other) => return Err(invalid(&format!("Invalid value for the attribute dategrouping: {other}."))),
            });
        } else {
            return Err(invalid(&format!("The attribute {name} is neither aggregated nor grouped by.")));
        }
        Ok(selected)
    }

    /// Filters and orders of one element and, in the order of the document, of the links below it.
    fn conditions(&mut self, own: usize, element: &Element) -> Result<usize, Response> {
        let mut all = Vec::new();
        let mut next = own + 1;
        let parent = Arc::clone(&self.sources[own].table);
        for child in &element.children {
            match child.name.as_str() {
                "filter" => all.push(self.filter(own, child)?),
                "order" => {
                    let order = self.order(own, child)?;
                    self.orders.push(order);
                }
                "link-entity" => match child.attribute("link-type") {
                    Some(
                        kind @ ("exists"
                        | "in"
                        | "any"
                        | "not any"
                        | "all"
                        | "not all"
                        | "matchfirstrowusingcrossapply"),
                    ) => {
                        all.push(self.related(own, &parent, kind, child)?);
                    }
                    _ => next = self.conditions(next, child)?,
                },
                _ => {}
            }
        }
        let condition = match all.len() {
            0 => None,
            _ => Some(Condition::And(all)),
        };
        let own_condition = match condition {
            Some(condition) if looks_beyond(&condition, own) => {
                self.after_joins = Some(match self.after_joins.take() {
                    Some(before) => Condition::And(vec![before, condition]),
                    None => condition,
                });
                None
            }
            condition => condition,
        };
        self.sources[own].filter = self.compiler.joined_within_reach(&parent, own, own_condition);
        Ok(next)
    }

    fn filter(&self, own: usize, element: &Element) -> Result<Condition, Response> {
        let mut all = Vec::new();
        for child in &element.children {
            all.push(match child.name.as_str() {
                "filter" => self.filter(own, child)?,
                "condition" => self.condition(own, child)?,
                "link-entity" => {
                    let kind = child.attribute("link-type").unwrap_or("any");
                    self.related(own, &self.sources[own].table, kind, child)?
                }
                other => {
                    return Err(invalid(&format!(
                        "Invalid Child Node, valid nodes are filter, condition, link-entity. NodeName = {other}"
                    )));
                }
            });
        }
        Ok(match element.attribute("type").unwrap_or("and") {
            "and" => Condition::And(all),
            "or" if all.is_empty() => Condition::Constant(true),
            "or" => Condition::Or(all),
            other => return Err(invalid(&format!("Invalid value for the attribute type: {other}."))),
        })
    }

    /// Whether rows of another table point to the row ("Filter on values in related records").
    fn related(&self, own: usize, parent: &Arc<Table>, kind: &str, element: &Element) -> Result<Condition, Response> {
        let Some((table, from, to)) = self.link(parent, element)? else { return Ok(Condition::Constant(true)) };
        if Some(to) != parent.primary_id || table.columns[from].definition.kind != ColumnKind::Lookup {
            let message = format!("The link-type {kind} needs a lookup of {} in from, and an id in to.", table.name());
            return Err(error(501, BAD_QUERY, &message));
        }
        let inner = Fetch {
            sources: vec![Source {
                table: Arc::clone(&table),
                alias: String::new(),
                join: None,
                filter: None,
                columns: Vec::new(),
            }],
            ..self.empty()
        };
        let filters = element.children.iter().filter(|child| child.name == "filter");
        let filters = filters.map(|child| inner.filter(0, child)).collect::<Result<Vec<_>, _>>()?;
        let mut own_id = Place::own(parent, to);
        own_id.source = own;
        let any = |inner: Option<Condition>| Condition::Related {
            own_id: own_id.clone(),
            table: Arc::clone(&table),
            link: Link::Lookup(from),
            all: false,
            inner: inner.map(Box::new),
        };
        let inner = (!filters.is_empty()).then_some(Condition::And(filters));
        let inner = self.compiler.within_reach(&table, inner);
        Ok(match kind {
            "not any" => Condition::Not(Box::new(any(inner))),
            // Documented so: there are rows, and none of them meets the filter.
            "all" => Condition::And(vec![any(None), Condition::Not(Box::new(any(inner)))]),
            _ => any(inner),
        })
    }

    fn empty(&self) -> Self {
        Fetch {
            compiler: self.compiler,
            sources: Vec::new(),
            after_joins: None,
            orders: Vec::new(),
            top: None,
            page_size: PAGE_MAX,
            page: 1,
            cookie: None,
            distinct: false,
            aggregate: false,
            aggregate_limit: ROWS_MAX,
            counted: false,
            hashed: RefCell::default(),
        }
    }

    /// A column by its name, of the element's own table or of an alias.
    fn place(&self, own: usize, entity: Option<&str>, name: &str) -> Result<Place, Response> {
        let source = match entity {
            None => own,
            Some(entity) => {
                let found = self.sources.iter().position(|source| source.alias == entity);
                let found = found.or_else(|| self.sources.iter().position(|source| source.table.name() == entity));
                found.ok_or_else(|| invalid(&format!("There is no link-entity with the name or alias {entity}.")))?
            }
        };
        let table = &self.sources[source].table;
        let column = table.readable_column(name).ok_or_else(|| no_column(table, name))?;
        Ok(Place { source, ..Place::own(table, column) })
    }

    fn condition(&self, own: usize, element: &Element) -> Result<Condition, Response> {
        let attribute = element.attribute("attribute").ok_or_else(|| invalid("A condition needs an attribute."))?;
        let place = self.place(own, element.attribute("entityname"), attribute)?;
        let operator = element.attribute("operator").ok_or_else(|| invalid("A condition needs an operator."))?;
        let comparison = match operator {
            "eq" => Some(Comparison::Equal),
            "ne" | "neq" => Some(Comparison::NotEqual),
            "gt" => Some(Comparison::Greater),
            "ge" => Some(Comparison::GreaterOrEqual),
            "lt" => Some(Comparison::Less),
            "le" => Some(Comparison::LessOrEqual),
            _ => None,
        };
        if let Some(other) = element.attribute("valueof") {
            let Some(operator) = comparison else {
                return Err(invalid(&format!("The operator {operator} cannot compare columns.")));
            };
            let (entity, name) = other.split_once('.').map_or((None, other), |(entity, name)| (Some(entity), name));
            return Ok(Condition::Columns { left: place, operator, right: self.place(own, entity, name)? });
        }
        let mut texts = element.attribute("value").map(str::to_owned).into_iter().collect::<Vec<_>>();
        texts.extend(
            element.children.iter().filter(|child| child.name == "value").map(|child| child.text.trim().to_owned()),
        );
        let needed =
            || texts.first().ok_or_else(|| invalid(&format!("The condition operator {operator} needs a value.")));
        let typed = |text: &str| {
            of_text(&place, text).ok_or_else(|| {
                invalid(&format!("The value of the condition on {attribute} is not of the type of the attribute."))
            })
        };
        if let Some(operator) = comparison {
            let value = typed(needed()?)?;
            return Ok(Condition::Test { place, test: Test::Compare(operator, value) });
        }
        // A condition that says no holds for nothing, too.
        let or_null = |test: Condition| {
            Condition::Or(vec![
                Condition::Not(Box::new(test)),
                Condition::Test { place: place.clone(), test: Test::Compare(Comparison::Equal, Literal::Null) },
            ])
        };
        let like = |pattern: String| Condition::Test { place: place.clone(), test: Test::Like(Pattern::new(&pattern)) };
        Ok(match operator {
            "null" => Condition::Test { place, test: Test::Compare(Comparison::Equal, Literal::Null) },
            "not-null" => Condition::Test { place, test: Test::Compare(Comparison::NotEqual, Literal::Null) },
            "like" => like(needed()?.clone()),
            "not-like" => or_null(like(needed()?.clone())),
            "begins-with" => like(format!("{}%", needed()?)),
            "not-begin-with" => or_null(like(format!("{}%", needed()?))),
            "ends-with" => like(format!("%{}", needed()?)),
            "not-end-with" => or_null(like(format!("%{}", needed()?))),
            "in" | "not-in" => {
                let values = texts.iter().map(|text| typed(text)).collect::<Result<Vec<_>, _>>()?;
                let test = Condition::Test { place: place.clone(), test: Test::In(values) };
                if operator == "in" { test } else { or_null(test) }
            }
            "between" | "not-between" => {
                let [low, high] = texts.as_slice() else {
                    return Err(invalid(&format!("{operator} needs two values.")));
                };
                let test = Condition::Test { test: Test::Between(typed(low)?, typed(high)?), place: place.clone() };
                if operator == "between" { test } else { Condition::Not(Box::new(test)) }
            }
            other => {
                let name = match other {
                    "eq-userid" => "EqualUserId".to_owned(),
                    "ne-userid" => "NotEqualUserId".to_owned(),
                    "eq-businessid" => "EqualBusinessId".to_owned(),
                    "ne-businessid" => "NotEqualBusinessId".to_owned(),
                    "eq-userlanguage" => "EqualUserLanguage".to_owned(),
                    "eq-useroruserteams" => "EqualUserOrUserTeams".to_owned(),
                    "eq-userteams" => "EqualUserTeams".to_owned(),
                    "eq-useroruserhierarchyandteams" => "EqualUserOrUserHierarchyAndTeams".to_owned(),
                    "eq-useroruserhierarchy" => "EqualUserOrUserHierarchy".to_owned(),
                    "contain-values" => "ContainValues".to_owned(),
                    "not-contain-values" => "DoesNotContainValues".to_owned(),
                    dated => span::of_fetch(dated),
                };
                let values = texts.iter().map(|text| Literal::text(text.as_str())).collect::<Vec<_>>();
                self.compiler.function_test(place, &name, &values).ok_or_else(|| {
                    invalid(&format!("The condition operator {other} is not supported for the attribute {attribute}."))
                })?
            }
        })
    }

    fn order(&self, own: usize, element: &Element) -> Result<OrderBy, Response> {
        let descending = element.attribute("descending") == Some("true");
        if let Some(alias) = element.attribute("alias") {
            return Ok(OrderBy { what: What::Alias(alias.to_owned()), descending });
        }
        let name = element.attribute("attribute").ok_or_else(|| invalid("An order needs an attribute or an alias."))?;
        let mut place = self.place(own, element.attribute("entityname"), name)?;
        // A lookup is ordered by the name of the row behind it.
        let table = &self.sources[place.source].table;
        if place.kind == ColumnKind::Lookup
            && let Some(by_name) =
                Place::of_path(self.compiler.catalogue, table, &table.columns[place.column].property, true)
        {
            place = Place { source: place.source, ..by_name };
        }
        Ok(OrderBy { what: What::Column(place), descending })
    }

    fn answer(&self, writer: &Writer<'_>) -> Result<Vec<u8>, Response> {
        let connection = writer.around.connection;
        if self.aggregate {
            return self.aggregated(writer);
        }
        let page = self.top.unwrap_or(self.page_size);
        let by_cookie = self.start(connection);
        let skip =
            if by_cookie.is_some() || self.top.is_some() { 0 } else { (self.page - 1).saturating_mul(self.page_size) };
        if skip.saturating_add(page) > SIMPLE_PAGING_MAX && by_cookie.is_none() {
            return Err(invalid("Paging without a cookie is limited to 50000 records. Use a paging cookie."));
        }
        let wanted = skip.saturating_add(page).saturating_add(1);
        let mut tuples: Vec<(Vec<Literal>, Tuple)> = Vec::new();
        let is_sorted = !self.orders.is_empty();
        let mut seen = HashSet::new();
        let mut count = 0_usize;
        self.each_tuple(connection, &mut |tuple| {
            if self.distinct {
                let mut shown = Vec::new();
                self.members(&mut shown, writer, tuple);
                if !seen.insert(shown) {
                    return Ok(true);
                }
            }
            count += 1;
            let keys = self.keys(connection, tuple);
            let is_behind = by_cookie.as_ref().is_none_or(|(last, id)| {
                self.compare(&keys, last).then_with(|| place_of(tuple).cmp(id)) == Ordering::Greater
            });
            if is_behind && (is_sorted || tuples.len() < wanted) {
                tuples.push((keys, tuple.to_vec()));
                if is_sorted && tuples.len() >= wanted.saturating_mul(2).max(1_024) {
                    self.sort(&mut tuples);
                    tuples.truncate(wanted);
                }
            }
            Ok(is_sorted || tuples.len() < wanted || (self.counted && count <= COUNT_MAX))
        })
        .map_err(|error| failed(&error))?;
        self.sort(&mut tuples);
        let more = tuples.len() > skip.saturating_add(page) && self.top.is_none();
        let shown = tuples.into_iter().skip(skip).take(page).map(|(_, tuple)| tuple).collect::<Vec<_>>();
        let table = &self.sources[0].table;
        let names = self.sources[0].columns.iter().map(|one| table.columns[one.column].property.as_str());
        let names = names.collect::<Vec<_>>().join(",");
        let mut body = context(writer.site, &format!("{}({names})", table.set()));
        self.totals(&mut body, writer, count);
        let flag = "Microsoft.Dynamics.CRM.morerecords";
        if more && writer.annotations.include("Microsoft.Dynamics.CRM.fetchxmlpagingcookie") && !self.distinct {
            let cookie = self.cookie(connection, &shown);
            body.extend_from_slice(
                format!(",\"@Microsoft.Dynamics.CRM.fetchxmlpagingcookie\":{}", cell::quoted(&cookie)).as_bytes(),
            );
        }
        if writer.annotations.include(flag) {
            body.extend_from_slice(format!(",\"@{flag}\":{more}").as_bytes());
        }
        body.extend_from_slice(b",\"value\":[");
        for (number, tuple) in shown.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.push(b'{');
            if let Some(Some(row)) = tuple.first()
                && !self.distinct
            {
                body.extend_from_slice(b"\"@odata.etag\":");
                body.extend_from_slice(cell::quoted(&render::etag(table, row.stamp())).as_bytes());
            }
            self.members(&mut body, writer, tuple);
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        Ok(body)
    }

    fn totals(&self, body: &mut Vec<u8>, writer: &Writer<'_>, count: usize) {
        let shown = count.min(COUNT_MAX);
        if self.counted {
            body.extend_from_slice(format!(",\"@odata.count\":{shown}").as_bytes());
        }
        for (term, value) in [
            ("totalrecordcount", if self.counted { shown.to_string() } else { "-1".to_owned() }),
            ("totalrecordcountlimitexceeded", (self.counted && count > COUNT_MAX).to_string()),
        ] {
            let term = format!("Microsoft.Dynamics.CRM.{term}");
            if writer.annotations.include(&term) {
                body.extend_from_slice(format!(",\"@{term}\":{value}").as_bytes());
            }
        }
    }

    /// The selected columns of all joined rows; what is null is left out.
    fn members(&self, body: &mut Vec<u8>, writer: &Writer<'_>, tuple: &[Option<Found>]) {
        for (number, (source, row)) in self.sources.iter().zip(tuple).enumerate() {
            let Some(row) = row else { continue };
            let table = &source.table;
            let mut cells = Vec::with_capacity(table.columns.len());
            table.cells(&row.data, &mut cells);
            let id = table
                .primary_id
                .filter(|id| number == 0 && !self.distinct && !source.columns.iter().any(|one| one.column == *id));
            let currency = table.server.currency.filter(|currency| {
                number == 0
                    && source.columns.iter().any(|one| table.columns[one.column].definition.kind == ColumnKind::Money)
                    && !source.columns.iter().any(|one| one.column == *currency)
            });
            let further = [currency, id].into_iter().flatten().map(|at| (at, None));
            for (at, alias) in source.columns.iter().map(|one| (one.column, one.alias.as_deref())).chain(further) {
                if cells[at] == cell::NULL {
                    continue;
                }
                let column = &table.columns[at];
                let name = match (alias, number) {
                    (Some(alias), _) => alias.to_owned(),
                    (None, 0) => column.property.clone(),
                    (None, _) => format!("{}.{}", source.alias, column.definition.name),
                };
                // An annotation's name cannot hold the dot of an alias.
                writer.annotate(body, table, &cells, at, &name.replace('.', "_x002e_"));
                separate(body);
                body.extend_from_slice(cell::quoted(&name).as_bytes());
                body.push(b':');
                body.extend_from_slice(cells[at].as_bytes());
            }
        }
    }

    fn keys(&self, connection: &Connection, tuple: &[Option<Found>]) -> Vec<Literal> {
        if self.orders.is_empty() {
            return Vec::new();
        }
        let rows = self.cells(tuple);
        self.orders
            .iter()
            .map(|order| match &order.what {
                What::Column(place) => {
                    let literal = place.literal(connection, &rows);
                    // Choices are ordered by their labels ("Order rows using FetchXml").
                    match (&literal, place.kind, place.hops.is_empty()) {
                        (Literal::Number(_), ColumnKind::Choice, true) => {
                            let column = &self.sources[place.source].table.columns[place.column];
                            display::plain(column, &place.cell(connection, &rows)).map_or(literal, Literal::Text)
                        }
                        _ => literal,
                    }
                }
                What::Alias(_) => Literal::Null,
            })
            .collect()
    }

    fn compare(&self, a: &[Literal], b: &[Literal]) -> Ordering {
        self.orders.iter().zip(a.iter().zip(b)).fold(Ordering::Equal, |so_far, (order, (a, b))| {
            so_far.then_with(|| if order.descending { nulls_first(b, a) } else { nulls_first(a, b) })
        })
    }

    fn sort(&self, tuples: &mut [(Vec<Literal>, Tuple)]) {
        if !self.orders.is_empty() {
            tuples.sort_by(|a, b| self.compare(&a.0, &b.0).then_with(|| place_of(&a.1).cmp(&place_of(&b.1))));
        }
    }

    fn cells<'t>(&self, tuple: &'t [Option<Found>]) -> Vec<Option<Vec<&'t str>>>
    where
        'a: 't,
    {
        self.sources
            .iter()
            .zip(tuple)
            .map(|(source, row)| {
                let row = row.as_ref()?;
                let mut cells = Vec::with_capacity(source.table.columns.len());
                cell::split(&row.data, &mut cells);
                cells.resize(source.table.columns.len().max(cells.len()), cell::NULL);
                Some(cells)
            })
            .collect()
    }

    /// Calls `each` with all combinations of rows that meet joins and filters, until it answers false.
    fn each_tuple(
        &self,
        connection: &Connection,
        each: &mut dyn FnMut(&[Option<Found>]) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<()> {
        let source = &self.sources[0];
        let few = match &source.filter {
            Some(filter) => candidates(connection, &source.table, filter)?,
            None => None,
        };
        let mut tuple = Vec::with_capacity(self.sources.len());
        let mut visit = |row: Found| {
            tuple.clear();
            tuple.push(Some(row));
            if self.fits(connection, &tuple) { self.extend(connection, &mut tuple, each) } else { Ok(true) }
        };
        match few {
            Some(mut ids) => {
                ids.sort_unstable();
                ids.dedup();
                for id in ids {
                    if let Some(row) = store::find_by_place(connection, id)?
                        && !visit(row)?
                    {
                        break;
                    }
                }
                Ok(())
            }
            None => store::scan(connection, &source.table, 0, i64::MAX, false, &mut |id, version, data| {
                visit(Found { id, version, data: data.to_owned() })
            }),
        }
    }

    /// Whether the last row of a tuple meets the filter of its table.
    fn fits(&self, connection: &Connection, tuple: &[Option<Found>]) -> bool {
        let own = tuple.len() - 1;
        match &self.sources[own].filter {
            None => true,
            Some(filter) => filter.matches(connection, &self.cells(tuple)),
        }
    }

    fn extend(
        &self,
        connection: &Connection,
        tuple: &mut Tuple,
        each: &mut dyn FnMut(&[Option<Found>]) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<bool> {
        let Some(source) = self.sources.get(tuple.len()) else {
            let fits = self.after_joins.as_ref().is_none_or(|after| after.matches(connection, &self.cells(tuple)));
            return if fits { each(tuple) } else { Ok(true) };
        };
        let Some(join) = &source.join else { return Ok(true) };
        let value = tuple[join.parent].as_ref().map(|row| {
            let mut cells = Vec::new();
            self.sources[join.parent].table.cells(&row.data, &mut cells);
            cells[join.to].to_owned()
        });
        let rows = match value.as_deref() {
            None | Some(cell::NULL) => Vec::new(),
            Some(value) => self.rows_with(connection, tuple.len(), join.from, value)?,
        };
        let mut found = false;
        for row in rows {
            tuple.push(Some(row));
            let fits = self.fits(connection, tuple);
            found |= fits;
            let goes_on = if fits { self.extend(connection, tuple, each)? } else { true };
            tuple.truncate(tuple.len().min(self.depth_of(source)));
            if !goes_on {
                return Ok(false);
            }
        }
        let is_kept = join.outer || tuple[join.parent].is_none();
        if found || !is_kept {
            return Ok(true);
        }
        tuple.push(None);
        let goes_on = self.extend(connection, tuple, each)?;
        tuple.truncate(self.depth_of(source));
        Ok(goes_on)
    }

    fn depth_of(&self, source: &Source) -> usize {
        self.sources.iter().position(|own| std::ptr::eq(own, source)).unwrap_or(0)
    }

    /// The rows of a source whose column holds a value.
    fn rows_with(
        &self,
        connection: &Connection,
        source: usize,
        column: usize,
        value: &str,
    ) -> rusqlite::Result<Vec<Found>> {
        let table = &self.sources[source].table;
        let mut rows = Vec::new();
        if Some(column) == table.primary_id {
            if let Some(id) = table.id_of(&value) {
                rows.extend(store::find(connection, &table.id_key(id))?);
            }
            return Ok(rows);
        }
        if table.columns[column].linked {
            if let Some(id) = table.id_of(&value) {
                each_referring(connection, table, column, id, 0, &mut |row| {
                    rows.push(Found { id: row.id, version: row.version, data: row.data.to_owned() });
                    Ok(true)
                })?;
            }
            return Ok(rows);
        }
        let mut hashed = self.hashed.borrow_mut();
        if let std::collections::hash_map::Entry::Vacant(entry) = hashed.entry(source) {
            let mut by_value: HashMap<String, Vec<i64>> = HashMap::new();
            store::scan(connection, table, 0, i64::MAX, false, &mut |id, _, data| {
                let mut cells = Vec::with_capacity(table.columns.len());
                table.cells(data, &mut cells);
                if cells[column] != cell::NULL {
                    by_value.entry(cells[column].to_lowercase()).or_default().push(id);
                }
                Ok(true)
            })?;
            entry.insert(by_value);
        }
        let ids = hashed.get(&source).and_then(|by_value| by_value.get(&value.to_lowercase())).cloned();
        drop(hashed);
        for id in ids.unwrap_or_default() {
            rows.extend(store::find_by_place(connection, id)?);
        }
        Ok(rows)
    }

    /// The values of the last row of the page before, and its place, as the cookie tells them; `None` when it cannot.
    fn start(&self, connection: &Connection) -> Option<(Vec<Literal>, i64)> {
        let cookie = self.cookie.as_ref()?;
        let table = &self.sources[0].table;
        let last = |name: &str| cookie.children.iter().find(|child| child.name == name)?.attribute("last");
        let id = last(table.definition.primary_id.as_deref()?)?;
        let id = uuid::Uuid::parse_str(id.trim_matches(['{', '}'])).ok()?;
        let row = store::find(connection, &table.id_key(id)).ok()??;
        let keys = self
            .orders
            .iter()
            .map(|order| match &order.what {
                What::Column(place) if place.source == 0 && place.hops.is_empty() => {
                    let name = &table.columns[place.column].definition.name;
                    match last(name) {
                        None => Some(Literal::Null),
                        Some(text) if place.kind == ColumnKind::Choice => Some(Literal::text(text)),
                        Some(text) => of_text(place, text),
                    }
                }
                _ => None,
            })
            .collect::<Option<Vec<_>>>()?;
        Some((keys, row.id))
    }

    /// The cookie for the page behind these rows: what its first and last row are ordered by, coded twice.
    fn cookie(&self, connection: &Connection, shown: &[Tuple]) -> String {
        let table = &self.sources[0].table;
        let mut inner = format!("<cookie page=\"{}\">", self.page);
        if let (Some(first), Some(last)) = (shown.first(), shown.last()) {
            let (first_keys, last_keys) = (self.keys(connection, first), self.keys(connection, last));
            for (at, order) in self.orders.iter().enumerate() {
                let What::Column(place) = &order.what else { continue };
                let name = &self.sources[place.source].table.columns[place.column].definition.name;
                let text = |value: &Literal| match value {
                    Literal::Text(text) => text.clone(),
                    other => other.to_string(),
                };
                let is_null = last_keys[at] == Literal::Null;
                let values = (text(&first_keys[at]), text(&last_keys[at]));
                inner.push_str(&format!("<{name}"));
                if !is_null {
                    inner.push_str(&format!(
                        " last=\"{}\" first=\"{}\"",
                        xml::escaped(&values.1),
                        xml::escaped(&values.0)
                    ));
                }
                inner.push_str(" />");
            }
            let id = |tuple: &Tuple| {
                let row = tuple.first().and_then(Option::as_ref)?;
                let mut cells = Vec::new();
                table.cells(&row.data, &mut cells);
                table.id_of(&cells[table.primary_id?])
            };
            if let (Some(first), Some(last), Some(name)) = (id(first), id(last), &table.definition.primary_id) {
                let (first, last) = (first.to_string().to_uppercase(), last.to_string().to_uppercase());
                inner.push_str(&format!("<{name} last=\"{{{last}}}\" first=\"{{{first}}}\" />"));
            }
        }
        inner.push_str("</cookie>");
        let coded = component(&component(&inner)).into_owned();
        format!("<cookie pagenumber=\"{}\" pagingcookie=\"{coded}\" istracking=\"False\" />", self.page + 1)
    }

    fn aggregated(&self, writer: &Writer<'_>) -> Result<Vec<u8>, Response> {
        let connection = writer.around.connection;
        let all = self
            .sources
            .iter()
            .enumerate()
            .flat_map(|(number, source)| source.columns.iter().map(move |one| (number, source, one)))
            .collect::<Vec<_>>();
        let groupings = all.iter().filter(|(_, _, one)| one.group.is_some()).collect::<Vec<_>>();
        let functions = all.iter().filter(|(_, _, one)| one.aggregate.is_some()).collect::<Vec<_>>();
        let kinds = functions.iter().filter_map(|(_, _, one)| one.aggregate).collect();
        let mut groups = Groups::new(kinds, self.aggregate_limit);
        let mut is_within = true;
        self.each_tuple(connection, &mut |tuple| {
            let rows = self.cells(tuple);
            let cell_of = |number: usize, at: usize| {
                rows.get(number).and_then(Option::as_ref).map_or(cell::NULL, |cells| cells[at])
            };
            let group = groupings
                .iter()
                .map(|(number, source, one)| {
                    let kind = source.table.columns[one.column].definition.kind;
                    grouped_cell(one.group.unwrap_or(Grouping::Value), kind, cell_of(*number, one.column))
                })
                .collect();
            let values = functions.iter().map(|(number, source, one)| {
                let cell = cell_of(*number, one.column);
                (cell.to_owned(), cell::literal(source.table.columns[one.column].definition.kind, cell))
            });
            is_within = groups.add(group, values);
            Ok(is_within)
        })
        .map_err(|error| failed(&error))?;
        if !is_within {
            return Err(too_many());
        }
        let mut results = groups.finish(!groupings.is_empty());
        for order in self.orders.iter().rev() {
            let What::Alias(alias) = &order.what else { continue };
            let group = groupings.iter().position(|(_, _, one)| one.alias.as_ref() == Some(alias));
            let function = functions.iter().position(|(_, _, one)| one.alias.as_ref() == Some(alias));
            let literal = |row: &(Vec<String>, Vec<String>)| {
                let cell = match (group, function) {
                    (Some(at), _) => &row.0[at],
                    (_, Some(at)) => &row.1[at],
                    _ => return Literal::Null,
                };
                match cell::text_of(cell) {
                    Some(text) => Literal::text(text),
                    None => Literal::parse(cell).unwrap_or(Literal::Null),
                }
            };
            results.sort_by(|a, b| {
                let order_of = nulls_first(&literal(a), &literal(b));
                if order.descending { order_of.reverse() } else { order_of }
            });
        }
        let limit = self.top.unwrap_or(self.page_size);
        let mut body = context(writer.site, self.sources[0].table.set());
        self.totals(&mut body, writer, results.len());
        body.extend_from_slice(b",\"value\":[");
        for (number, (group, values)) in results.into_iter().take(limit).enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.push(b'{');
            for ((_, source, one), cell) in groupings.iter().zip(&group).filter(|(_, cell)| *cell != cell::NULL) {
                let shown = match one.group {
                    Some(Grouping::Value) => shown_alone(writer, &source.table, one.column, cell),
                    _ => Some(display::grouped(cell, Some(0))),
                };
                push(&mut body, writer, one.alias.as_deref().unwrap_or_default(), cell, shown);
            }
            for ((_, source, one), cell) in functions.iter().zip(&values) {
                let shown = match one.aggregate {
                    Some(Function::Count | Function::CountColumn | Function::CountDistinct) => {
                        Some(display::grouped(cell, Some(0)))
                    }
                    _ if cell == cell::NULL => None,
                    _ => shown_alone(writer, &source.table, one.column, cell),
                };
                push(&mut body, writer, one.alias.as_deref().unwrap_or_default(), cell, shown);
            }
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        Ok(body)
    }
}

impl Selected {
    const fn plain(column: usize) -> Self {
        Self { column, alias: None, aggregate: None, group: None }
    }
}

/// Every column that may be read.
fn all_columns(table: &Table) -> impl Iterator<Item = Selected> {
    let readable = (0..table.columns.len()).filter(|at| !table.columns[*at].definition.secret);
    readable.map(Selected::plain)
}

/// The place of the first row of a tuple, which decides among equals.
fn place_of(tuple: &[Option<Found>]) -> i64 {
    tuple.first().and_then(Option::as_ref).map_or(0, |row| row.id)
}

/// Whether a condition looks at rows that are joined later.
fn looks_beyond(condition: &Condition, own: usize) -> bool {
    match condition {
        Condition::And(all) | Condition::Or(all) => all.iter().any(|one| looks_beyond(one, own)),
        Condition::Not(inner) => looks_beyond(inner, own),
        Condition::Constant(_) => false,
        Condition::Test { place, .. } | Condition::Related { own_id: place, .. } => place.source > own,
        Condition::Columns { left, right, .. } => left.source > own || right.source > own,
    }
}

/// The part of a value by which rows are grouped.
fn grouped_cell(grouping: Grouping, kind: ColumnKind, cell: &str) -> String {
    let days = match cell::literal(kind, cell) {
        Literal::DateTime(micros) => micros.div_euclid(MICROS_PER_DAY),
        Literal::Date(days) => i64::from(days),
        _ => return if grouping == Grouping::Value { cell.to_owned() } else { cell::NULL.to_owned() },
    };
    let (year, month, day) = span::civil(days);
    match grouping {
        Grouping::Value => cell.to_owned(),
        Grouping::Day => day.to_string(),
        // Week 1 is the one with the first of January; weeks begin on Sunday.
        Grouping::Week => {
            let first = days - (span::day_of_year(days) - 1);
            let offset = (first + 4).rem_euclid(7);
            ((days - first + offset) / 7 + 1).to_string()
        }
        Grouping::Month => month.to_string(),
        Grouping::Quarter => ((month - 1) / 3 + 1).to_string(),
        Grouping::Year => year.to_string(),
    }
}

fn no_table(name: &str) -> Response {
    let message =
        format!("The entity with a name = '{name}' with namemapping = 'Logical' was not found in the MetadataCache.");
    error(400, NO_TABLE, &message)
}

fn no_column(table: &Table, name: &str) -> Response {
    let message = format!(
        "'{}' entity doesn't contain attribute with Name = '{name}' and NameMappingType = 'Logical'.",
        table.name()
    );
    error(400, NO_COLUMN, &message)
}
