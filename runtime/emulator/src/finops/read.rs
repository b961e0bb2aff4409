//! Reading rows: sets, single rows, properties, and what they are related to.
//!
//! Owns what a GET below `/data` may ask and the shape of the answer; how rows are found and written is for `query` and
//! `render`, what a condition may say for `condition`.

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::escape::component;
use dualwright_odata::url::{self, Key, Resource, Segment};
use rusqlite::Connection;
use serde_json::json as value;

use super::key::{self, crosses_companies};
use super::refusal::{self, bad_query, failed, nothing_at};
use super::{condition, expand, metadata};
use crate::batch::Site;
use crate::catalogue::{Catalogue, Table};
use crate::cell;
use crate::exchange::{self, json, no_content, with_header};
use crate::query::{self, Query, QueryError};
use crate::relation::Way;
use crate::render::{self, Selection, Surroundings};
use crate::store::{self, Found, Store};

/// Rows on a page at most, and by default.
pub(super) const PAGE_MAX: usize = 10_000;

impl QueryError {
    pub(super) fn finops(self, table: &Table) -> Response {
        match self {
            Self::Property(name) => bad_query(&refusal::unknown_property(table, &name)),
            Self::Malformed(message) => bad_query(&message),
            Self::Refused(refusal) => *refusal,
            Self::Store(error) => failed(&error),
        }
    }
}

/// Reads the URL of a request below the service root.
pub(super) fn resource(site: &Site, target: &str) -> Result<Resource, Response> {
    let below = url::below(&site.root, target).ok_or_else(|| nothing_at(site, target))?;
    url::parse(below).map_err(|refusal| refusal::error(400, &refusal.to_string()))
}

/// Answers a GET below `/data`.
pub(crate) fn read(store: &Store, site: &Site, connection: &Connection, request: &Request) -> Response {
    let catalogue = store.catalogue();
    let read = resource(site, &request.url).and_then(|resource| {
        let around = Surroundings { connection, catalogue: &catalogue, clock: &store.clock };
        Read { site, around, resource: &resource, request }.answer()
    });
    read.unwrap_or_else(|refusal| refusal)
}

struct Read<'a> {
    site: &'a Site,
    around: Surroundings<'a>,
    resource: &'a Resource,
    request: &'a Request,
}

impl<'a> Read<'a> {
    fn answer(&self) -> Result<Response, Response> {
        let Some((first, rest)) = self.resource.segments.split_first() else {
            return Ok(service_document(self.site, self.around.catalogue));
        };
        if first.name == "$metadata" && rest.is_empty() {
            return Ok(metadata::csdl(self.around.catalogue));
        }
        let table = self.around.catalogue.by_set(&first.name).ok_or_else(|| self.nothing())?;
        match (&first.key, rest) {
            (Key::None, []) => {
                self.allow(LIST_OPTIONS)?;
                self.set(table)
            }
            (Key::None, [count]) if is_plain(count, "$count") => {
                self.allow(&["$filter", "$skip", "$top"])?;
                let query = self.query(table)?;
                let count = query.count(self.around.connection).map_err(|error| error.finops(table))?;
                Ok(plain(count.to_string()))
            }
            (Key::None, _) => Err(self.nothing()),
            (key, rest) => {
                let found = key::find(self.site, self.around.connection, table, key, self.resource)?;
                self.row(table, &found.ok_or_else(|| self.nothing())?, rest)
            }
        }
    }

    fn nothing(&self) -> Response {
        nothing_at(self.site, &self.request.url)
    }

    /// Refuses query options of OData that this resource does not have. Others are nobody's business.
    fn allow(&self, options: &[&str]) -> Result<(), Response> {
        for (number, (name, value)) in self.resource.options.iter().enumerate() {
            if !name.starts_with('$') {
                continue;
            }
            if !options.contains(&name.as_str()) && name != "$format" {
                return Err(bad_query(&format!("The query parameter '{name}' is not supported.")));
            }
            if self.resource.options[..number].iter().any(|(other, _)| other == name) {
                return Err(bad_query(&format!(
                    "Query option '{name}' was specified more than once, but it must be \
                                               specified at most once."
                )));
            }
            let is_json = value.eq_ignore_ascii_case("json") || value.starts_with("application/json");
            if name == "$format" && !is_json {
                return Err(refusal::error(
                    415,
                    &format!("A supported MIME type could not be found that matches '{value}'."),
                ));
            }
        }
        Ok(())
    }

    fn row(&self, table: &Arc<Table>, row: &Found, rest: &[Segment]) -> Result<Response, Response> {
        let mut cells = Vec::new();
        table.cells(&row.data, &mut cells);
        let [first, rest @ ..] = rest else {
            self.allow(&["$select", "$expand"])?;
            let etag = render::etag(table, row.stamp());
            if exchange::if_none_match(self.request).is_some_and(|header| exchange::names_etag(header, &etag)) {
                return Ok(with_header(no_content(304), "ETag", etag));
            }
            return self.entity(table, row);
        };
        if first.key != Key::None {
            return Err(self.nothing());
        }
        if let Some(at) = table.property(&first.name) {
            self.allow(&[])?;
            return match rest {
                [] => {
                    let path = format!("{}/{}", shown_path(table, &cells), first.name);
                    let mut body = context(self.site, &path);
                    body.extend_from_slice(format!(",\"value\":{}}}", cells[at]).as_bytes());
                    Ok(json(200, body))
                }
                [raw] if is_plain(raw, "$value") => {
                    Ok(plain(cell::text_of(cells[at]).map_or_else(|| cells[at].to_owned(), |text| text.into_owned())))
                }
                _ => Err(self.nothing()),
            };
        }
        let way = self.around.catalogue.relations_of(table).ways.get(&first.name).ok_or_else(|| self.nothing())?;
        self.related(table, &cells, way, rest)
    }

    /// What stands behind a navigation property.
    fn related(&self, table: &Arc<Table>, cells: &[&str], way: &Way, rest: &[Segment]) -> Result<Response, Response> {
        let (other, rows) = expand::rows_behind(self.around, table, cells, way).map_err(|error| failed(&error))?;
        match (way, rest) {
            (Way::To(_), []) => {
                self.allow(&["$select", "$expand"])?;
                match rows.first() {
                    Some(row) => self.entity(&other, row),
                    None => Ok(no_content(204)),
                }
            }
            (Way::From(..), []) => {
                self.allow(&["$select", "$filter", "$orderby", "$top", "$skip", "$count"])?;
                let list = expand::List::of(self.around, &other, self.resource)?;
                let mut body = context(self.site, &format!("{}{}", other.set(), self.selected()));
                let rows = list.apply(self.around, &other, rows);
                if self.resource.option("$count") == Some("true") {
                    body.extend_from_slice(format!(",\"@odata.count\":{}", rows.count).as_bytes());
                }
                body.extend_from_slice(b",\"value\":[");
                rows.write(&mut body, self.around, &other, &list.selection).map_err(|error| failed(&error))?;
                body.extend_from_slice(b"]}");
                Ok(json(200, body))
            }
            (Way::From(..), [count]) if is_plain(count, "$count") => {
                self.allow(&["$filter"])?;
                let list = expand::List::of(self.around, &other, self.resource)?;
                Ok(plain(list.apply(self.around, &other, rows).count.to_string()))
            }
            _ => Err(self.nothing()),
        }
    }

    fn entity(&self, table: &Arc<Table>, row: &Found) -> Result<Response, Response> {
        let selection = selection(self.around, table, self.resource)?;
        let body =
            entity(self.site, self.around, table, row, self.resource, &selection).map_err(|error| failed(&error))?;
        Ok(with_header(json(200, body), "ETag", render::etag(table, row.stamp())))
    }

    /// `$select` and `$expand` as the context of an answer repeats them.
    fn selected(&self) -> String {
        selected(self.resource)
    }

    fn query(&self, table: &'a Arc<Table>) -> Result<Query<'a>, Response> {
        let filter = match self.resource.option("$filter") {
            None => None,
            Some(text) => Some(condition::read(self.around.catalogue, table, text)?),
        };
        let token = match self.resource.option("$skiptoken") {
            None => None,
            Some(token) => Some(
                exchange::unseal(token)
                    .ok_or_else(|| bad_query("The value of the $skiptoken query option is not valid."))?,
            ),
        };
        let company =
            (!crosses_companies(self.resource) && table.company.is_some()).then(|| cell::quoted(&self.site.company));
        Ok(Query {
            table,
            selection: selection(self.around, table, self.resource)?,
            filter,
            order: order(table, self.resource)?,
            top: number(self.resource, "$top")?,
            skip: number(self.resource, "$skip")?.unwrap_or(0),
            page_size: exchange::page_size(self.request, PAGE_MAX),
            company,
            token,
        })
    }

    fn set(&self, table: &'a Arc<Table>) -> Result<Response, Response> {
        let query = self.query(table)?;
        let mut body = context(self.site, &format!("{}{}", table.set(), self.selected()));
        match self.resource.option("$count") {
            None | Some("false") => {}
            Some("true") => {
                let count = query.count(self.around.connection).map_err(|error| error.finops(table))?;
                body.extend_from_slice(format!(",\"@odata.count\":{count}").as_bytes());
            }
            Some(other) => {
                return Err(bad_query(&format!(
                    "Invalid value '{other}' for $count query option found. Valid values are 'true' \
                                               and 'false'."
                )));
            }
        }
        body.extend_from_slice(b",\"value\":[");
        let head = |body| {
            let response = json(200, body);
            match exchange::preference(self.request, "odata.maxpagesize") {
                Some(size) => with_header(response, "Preference-Applied", format!("odata.maxpagesize={size}")),
                None => response,
            }
        };
        let mut hand_over = |body: &mut Vec<u8>| {
            if let Some(outlet) = &self.site.outlet {
                outlet.offer(|| head(Vec::new()), body);
            }
        };
        let page = query.run(self.around, &mut body, &mut hand_over).map_err(|error| error.finops(table))?;
        body.push(b']');
        if let Some(token) = page.next {
            let query = exchange::link_query(self.resource, &[("$skiptoken", &token)]);
            let link = format!("{}{}/{}{query}", self.site.base, self.site.root, table.set());
            body.extend_from_slice(format!(",\"@odata.nextLink\":{}", cell::quoted(&link)).as_bytes());
        }
        body.push(b'}');
        Ok(head(body))
    }
}

const LIST_OPTIONS: &[&str] = &["$filter", "$count", "$orderby", "$skip", "$top", "$expand", "$select", "$skiptoken"];

fn is_plain(segment: &Segment, name: &str) -> bool {
    segment.name == name && segment.key == Key::None
}

fn plain(text: String) -> Response {
    let mut response = no_content(200);
    response.headers.push(("Content-Type".into(), "text/plain".into()));
    response.body = text.into_bytes();
    response
}

pub(super) fn number(resource: &Resource, name: &str) -> Result<Option<usize>, Response> {
    match resource.option(name) {
        None => Ok(None),
        Some(text) => text.trim().parse::<u32>().map(|number| Some(number as usize)).map_err(|_| {
            bad_query(&format!(
                "Invalid value '{text}' for {name} query option found. The {name} query option requires a non-negative \
                 integer value."
            ))
        }),
    }
}

pub(super) fn order(table: &Table, resource: &Resource) -> Result<Vec<(usize, bool)>, Response> {
    resource
        .order()
        .into_iter()
        .map(|(name, descending)| match table.property(name) {
            Some(column) => Ok((column, descending)),
            None => Err(QueryError::Property(name.to_owned()).finops(table)),
        })
        .collect()
}

fn service_document(site: &Site, catalogue: &Catalogue) -> Response {
    let sets = catalogue
        .tables()
        .map(|table| value!({"name": table.set(), "kind": "EntitySet", "url": table.set()}))
        .collect::<Vec<_>>();
    let context = format!("{}{}/$metadata", site.base, site.root);
    json(200, value!({"@odata.context": context, "value": sets}).to_string().into_bytes())
}

/// What is wanted of each row.
pub(super) fn selection(around: Surroundings<'_>, table: &Table, resource: &Resource) -> Result<Selection, Response> {
    let columns = query::select(table, &resource.list("$select")).map_err(|error| error.finops(table))?;
    let related = resource
        .list("$expand")
        .into_iter()
        .map(|item| expand::Related::of(around, table, item))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Selection { columns, related })
}

fn selected(resource: &Resource) -> String {
    let mut names = resource.list("$select").into_iter().map(str::to_owned).collect::<Vec<_>>();
    if names.is_empty() {
        return String::new();
    }
    for item in resource.list("$expand") {
        let name = item.split('(').next().unwrap_or(item);
        names.push(match item.split_once("$select=") {
            Some((_, inner)) => format!("{name}({})", inner.split([';', ')']).next().unwrap_or_default()),
            None => name.to_owned(),
        });
    }
    format!("({})", names.join(","))
}

/// The start of an answer, up to its context.
fn context(site: &Site, fragment: &str) -> Vec<u8> {
    let context = format!("{}{}/$metadata#{fragment}", site.base, site.root);
    format!("{{\"@odata.context\":{}", cell::quoted(&context)).into_bytes()
}

/// One row as a document of its own.
pub(super) fn entity(
    site: &Site,
    around: Surroundings<'_>,
    table: &Table,
    row: &Found,
    resource: &Resource,
    selection: &Selection,
) -> rusqlite::Result<Vec<u8>> {
    let mut body = context(site, &format!("{}{}/$entity", table.set(), selected(resource)));
    let at = body.len();
    let mut cells = Vec::with_capacity(table.columns.len());
    table.cells(&row.data, &mut cells);
    render::write_row(&mut body, around, table, &cells, row.stamp(), selection)?;
    // The row's opening bracket becomes the comma behind the context.
    body[at] = b',';
    Ok(body)
}

/// A row's address below the service root, ready to stand in a URL: `CustomerGroups(dataAreaId='usmf',…)`.
pub(super) fn shown_path<C: AsRef<str>>(table: &Table, cells: &[C]) -> String {
    let parts = table.key.iter().map(|&at| {
        let column = &table.columns[at];
        let literal = cell::literal(column.definition.kind, cells[at].as_ref());
        format!("{}={}", column.property, component(&literal.to_string()))
    });
    format!("{}({})", table.set(), parts.collect::<Vec<_>>().join(","))
}

/// The row with this place.
pub(super) fn row_at(around: Surroundings<'_>, place: i64) -> rusqlite::Result<Option<Found>> {
    store::find_by_place(around.connection, place)
}
