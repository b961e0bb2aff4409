//! The dialect of Finance & Operations: URLs, companies, reads, error bodies.
//!
//! Owns what `/data` says about rows; writing and metadata have files of their own. There are no nulls here, keys are
//! natural, and only the default company is seen unless a request crosses companies.

mod metadata;
mod write;

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{self, Key, Resource};
use rusqlite::Connection;
use serde_json::json as value;

use crate::batch::Site;
use crate::catalogue::{Catalogue, Table};
use crate::cell;
use crate::clock::Clock;
use crate::exchange::{self, json, no_content, with_header};
use crate::query::{self, Filter, Query, QueryError};
use crate::render::{self, Selection, Surroundings};
use crate::store::{self, Found, Store};

pub(crate) use metadata::describe;
pub(crate) use write::write;

pub(crate) const ROOT: &str = "/data";

/// Rows on a page at most, and by default.
const PAGE_MAX: usize = 10_000;

/// The company that a request sees when it does not cross companies.
pub(super) const DEFAULT_COMPANY: &str = "dat";

pub(crate) fn root(path: &str) -> Option<&str> {
    let root = path.get(..ROOT.len())?;
    (root.eq_ignore_ascii_case(ROOT) && matches!(path.as_bytes().get(ROOT.len()), None | Some(b'/'))).then_some(root)
}

pub(crate) fn error(status: u16, message: &str) -> Response {
    error_with_code(status, "", message)
}

pub(crate) fn error_with_code(status: u16, code: &str, message: &str) -> Response {
    let body = value!({"error": {
        "code": code,
        "message": message,
        "innererror": {"message": message, "type": exception(status), "stacktrace": ""},
    }});
    json(status, body.to_string().into_bytes())
}

const fn exception(status: u16) -> &'static str {
    match status {
        404 => "Microsoft.Dynamics.Platform.Integration.Services.OData.HttpRequestNotFoundException",
        400 => "Microsoft.OData.ODataException",
        _ => "Microsoft.Dynamics.Platform.Integration.Services.OData.ODataErrorException",
    }
}

pub(super) fn failed(error: &rusqlite::Error) -> Response {
    tracing::error!(%error, "the store failed");
    self::error(500, "An error has occurred.")
}

pub(super) fn nothing_at(site: &Site, target: &str) -> Response {
    let message = format!("No HTTP resource was found that matches the request URI '{}{target}'.", site.base);
    error(404, &message)
}

impl QueryError {
    fn finops(self, table: &Table) -> Response {
        match self {
            Self::Property(name) => {
                let message = format!(
                    "The query specified in the URI is not valid. Could not find a property named '{name}' on type \
                     'Microsoft.Dynamics.DataEntities.{}'.",
                    table.name()
                );
                error(400, &message)
            }
            Self::Malformed(message) => error(400, &format!("The query specified in the URI is not valid. {message}")),
            Self::Store(error) => failed(&error),
        }
    }
}

pub(super) fn crosses_companies(resource: &Resource) -> bool {
    resource.option("cross-company").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Reads the URL of a request below the service root.
pub(super) fn resource(site: &Site, target: &str) -> Result<Resource, Response> {
    let below = url::below(&site.root, target).ok_or_else(|| nothing_at(site, target))?;
    url::parse(below).map_err(|refusal| error(400, &refusal.to_string()))
}

/// The cells of a key: all key fields by name, in any order; a key of one field also without its name.
pub(super) fn key_cells(table: &Table, key: &Key) -> Result<Option<Vec<cell::Cell>>, Response> {
    let incomplete = || {
        let names = table.key.iter().map(|at| table.columns[*at].property.as_str()).collect::<Vec<_>>().join(", ");
        error(400, &format!("The key of '{}' has to name all of: {names}.", table.set()))
    };
    let mut cells = table.empty_row();
    let mut place = |at: usize, literal| match table.cell_of(at, literal) {
        Some(cell) => {
            cells[at] = cell;
            true
        }
        None => false,
    };
    let fits = match key {
        Key::None => return Err(incomplete()),
        Key::Single(literal) => match table.key.as_slice() {
            [at] => place(*at, literal),
            _ => return Err(incomplete()),
        },
        Key::Named(pairs) => {
            let mut places = Vec::with_capacity(pairs.len());
            for (name, literal) in pairs {
                let at = table.property(name).filter(|at| table.key.contains(at)).ok_or_else(|| {
                    error(400, &format!("The property '{name}' is not a key property of '{}'.", table.set()))
                })?;
                places.push((at, literal));
            }
            if !table.key.iter().all(|at| places.iter().any(|(own, _)| own == at)) {
                return Err(incomplete());
            }
            places.into_iter().all(|(at, literal)| place(at, literal))
        }
    };
    // A value that the field cannot hold is a key that no row has.
    Ok(fits.then_some(cells))
}

/// The row with a key, if the request may see its company.
pub(super) fn find(
    connection: &Connection,
    table: &Table,
    key: &Key,
    resource: &Resource,
) -> Result<Option<Found>, Response> {
    let Some(cells) = key_cells(table, key)? else { return Ok(None) };
    if let Some(at) = table.company
        && !crosses_companies(resource)
        && cell::text_of(&cells[at]).as_deref() != Some(DEFAULT_COMPANY)
    {
        return Ok(None);
    }
    store::find(connection, &table.row_key(&cells)).map_err(|error| failed(&error))
}

/// Answers a GET below `/data`.
pub(crate) fn read(store: &Store, site: &Site, connection: &Connection, request: &Request) -> Response {
    let catalogue = store.catalogue();
    read_resource(site, connection, &catalogue, &store.clock, request).unwrap_or_else(|refusal| refusal)
}

fn read_resource(
    site: &Site,
    connection: &Connection,
    catalogue: &Catalogue,
    clock: &Clock,
    request: &Request,
) -> Result<Response, Response> {
    let resource = resource(site, &request.url)?;
    let Some((first, rest)) = resource.segments.split_first() else { return Ok(service_document(site, catalogue)) };
    if first.name == "$metadata" {
        return Ok(metadata::csdl(catalogue));
    }
    let table = catalogue.by_set(&first.name).ok_or_else(|| nothing_at(site, &request.url))?;
    let around = Surroundings { connection, catalogue, clock };
    match (&first.key, rest) {
        (Key::None, []) => read_set(site, around, table, &resource, request),
        (Key::None, [count]) if count.name == "$count" => {
            let query = query_of(around, table, &resource, request)?;
            let count = query.count(connection).map_err(|error| error.finops(table))?;
            let mut response = no_content(200);
            response.headers.push(("Content-Type".into(), "text/plain".into()));
            response.body = count.to_string().into_bytes();
            Ok(response)
        }
        (Key::None, _) => Err(nothing_at(site, &request.url)),
        (key, path) => {
            let row = find(connection, table, key, &resource)?.ok_or_else(|| nothing_at(site, &request.url))?;
            match path {
                [] => {
                    let etag = render::etag(table, row.stamp());
                    if exchange::if_none_match(request).is_some_and(|header| exchange::names_etag(header, &etag)) {
                        return Ok(no_content(304));
                    }
                    let selection = selection(table, &resource)?;
                    let body =
                        entity(site, around, table, &row, &resource, &selection).map_err(|error| failed(&error))?;
                    Ok(with_header(json(200, body), "ETag", etag))
                }
                [property] => {
                    let at = table.property(&property.name).ok_or_else(|| nothing_at(site, &request.url))?;
                    let mut cells = Vec::new();
                    table.cells(&row.data, &mut cells);
                    let key = table.shown_key(&cells);
                    let mut body = context(site, &format!("{}({key})/{}", table.set(), property.name));
                    body.extend_from_slice(format!(",\"value\":{}}}", cells[at]).as_bytes());
                    Ok(json(200, body))
                }
                _ => Err(nothing_at(site, &request.url)),
            }
        }
    }
}

fn service_document(site: &Site, catalogue: &Catalogue) -> Response {
    let sets = catalogue
        .tables()
        .map(|table| value!({"name": table.set(), "kind": "EntitySet", "url": table.set()}))
        .collect::<Vec<_>>();
    let context = format!("{}{}/$metadata", site.base, site.root);
    json(200, value!({"@odata.context": context, "value": sets}).to_string().into_bytes())
}

pub(super) fn selection(table: &Table, resource: &Resource) -> Result<Selection, Response> {
    if resource.option("$expand").is_some() {
        return Err(error(400, "Expanding is not supported here."));
    }
    let columns = query::select(table, &resource.list("$select")).map_err(|error| error.finops(table))?;
    Ok(Selection { columns, ..Selection::default() })
}

fn query_of<'a>(
    around: Surroundings<'_>,
    table: &'a Arc<Table>,
    resource: &Resource,
    request: &Request,
) -> Result<Query<'a>, Response> {
    let number = |name: &str| match resource.option(name) {
        None => Ok(None),
        Some(text) => {
            text.parse::<usize>().map(Some).map_err(|_| error(400, &format!("Invalid value '{text}' for {name}.")))
        }
    };
    let filter = match resource.option("$filter") {
        None => None,
        Some(text) => Some(Filter::new(around.catalogue, table, text).map_err(|error| error.finops(table))?),
    };
    let order = resource
        .order()
        .into_iter()
        .map(|(name, descending)| match table.property(name) {
            Some(column) => Ok((column, descending)),
            None => Err(QueryError::Property(name.to_owned()).finops(table)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let token = match resource.option("$skiptoken") {
        None => None,
        Some(token) => Some(exchange::unseal(token).ok_or_else(|| error(400, "Malformed skip token."))?),
    };
    let company = (!crosses_companies(resource)).then(|| cell::quoted(DEFAULT_COMPANY));
    Ok(Query {
        table,
        selection: selection(table, resource)?,
        filter,
        order,
        top: number("$top")?,
        skip: number("$skip")?.unwrap_or(0),
        page_size: exchange::page_size(request, PAGE_MAX),
        company: company.filter(|_| table.company.is_some()),
        token,
    })
}

fn read_set(
    site: &Site,
    around: Surroundings<'_>,
    table: &Arc<Table>,
    resource: &Resource,
    request: &Request,
) -> Result<Response, Response> {
    let query = query_of(around, table, resource, request)?;
    let mut body = context(site, table.set());
    if resource.option("$count") == Some("true") {
        let count = query.count(around.connection).map_err(|error| error.finops(table))?;
        body.extend_from_slice(format!(",\"@odata.count\":{count}").as_bytes());
    }
    body.extend_from_slice(b",\"value\":[");
    let page = query.run(around, &mut body).map_err(|error| error.finops(table))?;
    body.push(b']');
    if let Some(token) = page.next {
        let query = exchange::link_query(resource, &[("$skiptoken", &token)]);
        let link = format!("{}{}/{}{query}", site.base, site.root, table.set());
        body.extend_from_slice(format!(",\"@odata.nextLink\":{}", cell::quoted(&link)).as_bytes());
    }
    body.push(b'}');
    Ok(json(200, body))
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
    let selected = resource.option("$select").map(|names| format!("({names})")).unwrap_or_default();
    let mut body = context(site, &format!("{}{selected}/$entity", table.set()));
    let at = body.len();
    let mut cells = Vec::with_capacity(table.columns.len());
    table.cells(&row.data, &mut cells);
    render::write_row(&mut body, around, table, &cells, row.stamp(), selection)?;
    // The row's opening bracket becomes the comma behind the context.
    body[at] = b',';
    Ok(body)
}
