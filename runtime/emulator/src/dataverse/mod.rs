//! The dialect of Dataverse: URLs, reads, error bodies.
//!
//! Owns what the Web API says about rows; writing, metadata and change tracking have files of their own.

mod bulk;
mod delta;
mod environment;
mod limits;
mod metadata;
mod payload;
mod references;
pub(crate) mod roles;
mod rows;
pub(crate) mod steps;
pub(crate) mod system;
mod write;

use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{self, Key, Resource};
use rusqlite::Connection;
use uuid::Uuid;

use crate::batch::Site;
use crate::catalogue::{Catalogue, Table};
use crate::cell::{self, Cell};
use crate::clock::Clock;
use crate::exchange::{self, json, no_content, with_header};
use crate::query::{self, Filter, Query, QueryError};
use crate::render::{self, Selection, Surroundings};
use crate::store::{self, Found, Store};

pub(crate) use delta::expire_links;
pub(crate) use environment::{
    Environment, add_dual_write_users, answer, is_configuration, observers, prepare, site_of,
};
pub use limits::LimitSettings;
pub(crate) use write::write;

pub(crate) const ROOT: &str = "/api/data/v9.2";

/// Rows on a page at most, and by default.
const PAGE_MAX: usize = 5_000;
/// What `$count` says at most.
const COUNT_MAX: i64 = 5_000;

pub(super) const NOT_FOUND: &str = "0x80040217";
pub(super) const NO_SUCH_KEY_VALUES: &str = "0x80060891";
pub(super) const BAD_QUERY: &str = "0x80060888";
pub(super) const BAD_PAYLOAD: &str = "0x80048d19";
pub(super) const VERSION_MISMATCH: &str = "0x80060882";
pub(super) const DUPLICATE: &str = "0x80040237";
pub(super) const DUPLICATE_KEY: &str = "0x80060892";

/// The service root at the start of a path, whatever its minor version.
pub(crate) fn root(path: &str) -> Option<&str> {
    let root = path.get(..ROOT.len())?;
    let (stem, minor) = root.split_at(ROOT.len() - 1);
    let fits = stem.eq_ignore_ascii_case(&ROOT[..ROOT.len() - 1])
        && minor.bytes().all(|digit| digit.is_ascii_digit())
        && matches!(path.as_bytes().get(ROOT.len()), None | Some(b'/'));
    fits.then_some(root)
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> Response {
    let body = serde_json::json!({"error": {"code": code, "message": message}});
    json(status, body.to_string().into_bytes())
}

pub(super) fn failed(error: &rusqlite::Error) -> Response {
    tracing::error!(%error, "the store failed");
    self::error(500, "0x80040216", "An unexpected error occurred.")
}

impl QueryError {
    fn dataverse(self, table: &Table) -> Response {
        match self {
            Self::Property(name) => error(
                400,
                BAD_QUERY,
                &format!("Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{}'.", table.name()),
            ),
            Self::Malformed(message) => error(400, BAD_QUERY, &message),
            Self::Store(error) => failed(&error),
        }
    }
}

/// Which row a key names.
pub(super) enum Locator {
    Id(Uuid),
    /// The number of an alternate key, and a cell for each of its columns.
    Alternate(usize, Vec<Cell>),
}

impl Locator {
    pub fn new(table: &Table, key: &Key) -> Result<Self, Response> {
        let pairs = match key {
            Key::None => return Err(error(400, BAD_QUERY, "A key was expected.")),
            Key::Single(Literal::Guid(id)) => return Ok(Self::Id(*id)),
            Key::Single(literal) => {
                let text = match literal {
                    Literal::Text(text) => text.clone(),
                    other => other.to_string(),
                };
                return Uuid::parse_str(&text)
                    .map(Self::Id)
                    .map_err(|_| error(400, BAD_QUERY, "Bad Request - Error in query syntax."));
            }
            Key::Named(pairs) => pairs,
        };
        let mut places = Vec::with_capacity(pairs.len());
        for (name, literal) in pairs {
            let Some(at) = table.property(name) else { return Err(no_such_key(table)) };
            places.push((at, literal));
        }
        if let [(at, Literal::Guid(id))] = places.as_slice()
            && Some(*at) == table.primary_id
        {
            return Ok(Self::Id(*id));
        }
        let number = table.alternate_keys.iter().position(|(_, columns)| {
            columns.len() == places.len() && columns.iter().all(|column| places.iter().any(|(at, _)| at == column))
        });
        let Some(number) = number else { return Err(no_such_key(table)) };
        let cells = table.alternate_keys[number]
            .1
            .iter()
            .filter_map(|column| places.iter().find(|(at, _)| at == column))
            .map(|(at, literal)| table.cell_of(*at, literal))
            .collect::<Option<Vec<_>>>();
        match cells {
            Some(cells) if !cells.iter().any(|cell| cell == cell::NULL) => Ok(Self::Alternate(number, cells)),
            // A value that the column cannot hold is a key that no row has.
            _ => Err(no_such_key_values(table)),
        }
    }

    pub fn find(&self, connection: &Connection, table: &Table) -> rusqlite::Result<Option<Found>> {
        match self {
            Self::Id(id) => store::find(connection, &table.id_key(*id)),
            Self::Alternate(number, cells) => {
                let key = table.alternate_key_of(*number, cells.iter().map(AsRef::as_ref));
                store::find_by_alternate(connection, &key)
            }
        }
    }

    pub fn not_found(&self, table: &Table) -> Response {
        match self {
            Self::Id(id) => {
                let message = format!("Entity '{}' With Id = {id} Does Not Exist", table.name());
                error(404, NOT_FOUND, &message)
            }
            Self::Alternate(..) => no_such_key_values(table),
        }
    }
}

/// What stands in the brackets is no key of the table ("Use an alternate key to reference a record").
fn no_such_key(table: &Table) -> Response {
    let name = table.name();
    let message = format!(
        "The key in the request URI is not valid for resource 'Microsoft.Dynamics.CRM.{name}'. Ensure that the names and \
         number of key properties match the declared or alternate key properties for the resource \
         'Microsoft.Dynamics.CRM.{name}'."
    );
    error(400, BAD_QUERY, &message)
}

fn no_such_key_values(table: &Table) -> Response {
    let message = format!("A record with the specified key values does not exist in {} entity", table.name());
    error(404, NO_SUCH_KEY_VALUES, &message)
}

pub(super) fn no_such_set(name: &str) -> Response {
    error(404, BAD_QUERY, &format!("Resource not found for the segment '{name}'."))
}

/// Reads the URL of a request below the service root.
pub(super) fn resource(site: &Site, target: &str) -> Result<Resource, Response> {
    let Some(below) = url::below(&site.root, target) else {
        return Err(error(404, BAD_QUERY, &format!("There is nothing at {target}.")));
    };
    url::parse(below).map_err(|refusal| error(400, BAD_QUERY, &refusal.to_string()))
}

/// Answers a GET.
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
    match first.name.as_str() {
        "$metadata" => {
            let annotated = resource.option("annotations") == Some("true")
                || exchange::preference(request, "odata.include-annotations").is_some();
            return Ok(metadata::csdl(catalogue, annotated));
        }
        _ if metadata::is_about_definitions(&resource) => return metadata::read(catalogue, site, &resource),
        "RetrieveVersion" => return Ok(json(200, br#"{"Version":"9.2.0.0"}"#.to_vec())),
        _ => {}
    }
    let around = Surroundings { connection, catalogue, clock };
    if let Some(caller) = &site.user
        && let Some(answer) = roles::read(site, caller, around, &resource, request)
    {
        return answer;
    }
    let table = catalogue.by_set(&first.name).ok_or_else(|| no_such_set(&first.name))?;
    permit(site, table)?;
    match (&first.key, rest) {
        (Key::None, []) => read_set(site, around, table, &resource, request),
        (Key::None, [count]) if count.name == "$count" => {
            let count = match delta::Request::of(&resource, request)? {
                Some(delta) => delta.count(site, around, table)?,
                None => {
                    let query = query_of(around, table, &resource, request)?;
                    query.count(connection).map_err(|error| error.dataverse(table))?.min(COUNT_MAX)
                }
            };
            let mut response = no_content(200);
            response.headers.push(("Content-Type".into(), "text/plain".into()));
            response.body = count.to_string().into_bytes();
            Ok(response)
        }
        (Key::None, [next, ..]) => Err(no_such_set(&next.name)),
        (key, path) => {
            let locator = Locator::new(table, key)?;
            let row = locator.find(connection, table).map_err(|error| failed(&error))?;
            let row = row.ok_or_else(|| locator.not_found(table))?;
            match path {
                [] => read_row(site, around, table, &row, &resource, request),
                [property] => read_behind(site, around, table, &row, &property.name, &resource, request),
                [navigation, reference] if reference.name == "$ref" => {
                    let (target, id) = follow(catalogue, table, &row, &navigation.name)?;
                    let body = serde_json::json!({
                        "@odata.context": format!("{}{}/$metadata#$ref", site.base, site.root),
                        "@odata.id": format!("{}{}/{}({id})", site.base, site.root, target.set()),
                    });
                    Ok(json(200, body.to_string().into_bytes()))
                }
                [_, next, ..] => Err(no_such_set(&next.name)),
            }
        }
    }
}

/// Refuses to let the caller read a table without the privilege for it.
pub(super) fn permit(site: &Site, table: &Table) -> Result<(), Response> {
    site.user.as_ref().map_or(Ok(()), |caller| roles::may_read(caller, table))
}

fn service_document(site: &Site, catalogue: &Catalogue) -> Response {
    let sets = catalogue
        .tables()
        .map(|table| serde_json::json!({"name": table.set(), "kind": "EntitySet", "url": table.set()}))
        .collect::<Vec<_>>();
    let context = format!("{}{}/$metadata", site.base, site.root);
    json(200, serde_json::json!({"@odata.context": context, "value": sets}).to_string().into_bytes())
}

pub(super) fn selection(
    around: Surroundings<'_>,
    table: &Table,
    resource: &Resource,
    request: &Request,
) -> Result<Selection, Response> {
    let columns = query::select(table, &resource.list("$select")).map_err(|error| error.dataverse(table))?;
    let expansions =
        query::expand(around.catalogue, table, &resource.list("$expand")).map_err(|error| error.dataverse(table))?;
    let annotations = exchange::preference(request, "odata.include-annotations").is_some();
    Ok(Selection { columns, expansions, annotations, related: Vec::new() })
}

fn query_of<'a>(
    around: Surroundings<'_>,
    table: &'a Arc<Table>,
    resource: &Resource,
    request: &Request,
) -> Result<Query<'a>, Response> {
    for (name, _) in &resource.options {
        if matches!(name.as_str(), "$skip" | "$apply" | "$search" | "$compute") {
            return Err(error(400, BAD_QUERY, &format!("The query option {name} is not supported.")));
        }
    }
    let number = |name: &str| match resource.option(name) {
        None => Ok(None),
        Some(text) => text
            .parse::<usize>()
            .map(Some)
            .map_err(|_| error(400, BAD_QUERY, &format!("Invalid value '{text}' for {name}."))),
    };
    let filter = match resource.option("$filter") {
        None => None,
        Some(text) => Some(Filter::new(around.catalogue, table, text).map_err(|error| error.dataverse(table))?),
    };
    let order = resource
        .order()
        .into_iter()
        .map(|(name, descending)| match table.readable(name) {
            Some(column) => Ok((column, descending)),
            None => Err(QueryError::Property(name.to_owned()).dataverse(table)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let token = match resource.option("$skiptoken") {
        None => None,
        Some(token) => Some(exchange::unseal(token).ok_or_else(|| error(400, BAD_QUERY, "Malformed skip token."))?),
    };
    Ok(Query {
        table,
        selection: selection(around, table, resource, request)?,
        filter,
        order,
        top: number("$top")?,
        skip: 0,
        page_size: exchange::page_size(request, PAGE_MAX),
        company: None,
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
    if let Some(delta) = delta::Request::of(resource, request)? {
        return delta.answer(site, around, table, resource, request);
    }
    let query = query_of(around, table, resource, request)?;
    let mut body = context(site, &format!("{}{}", table.set(), selected(resource)));
    if resource.option("$count") == Some("true") {
        let count = query.count(around.connection).map_err(|error| error.dataverse(table))?;
        body.extend_from_slice(format!(",\"@odata.count\":{}", count.min(COUNT_MAX)).as_bytes());
        if query.selection.annotations {
            let annotations = format!(
                ",\"@Microsoft.Dynamics.CRM.totalrecordcount\":{},\
                 \"@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded\":{}",
                count.min(COUNT_MAX),
                count > COUNT_MAX
            );
            body.extend_from_slice(annotations.as_bytes());
        }
    }
    body.extend_from_slice(b",\"value\":[");
    let page = query.run(around, &mut body).map_err(|error| error.dataverse(table))?;
    body.push(b']');
    if let Some(token) = page.next {
        push_link(&mut body, "nextLink", site, table, resource, "$skiptoken", &token);
    }
    body.push(b'}');
    let mut response = json(200, body);
    if page.rows > 0 && exchange::preference(request, "odata.maxpagesize").is_some() {
        let size = query.page_size;
        response = with_header(response, "Preference-Applied", format!("odata.maxpagesize={size}"));
    }
    Ok(response)
}

/// The start of an answer, up to its context.
pub(super) fn context(site: &Site, fragment: &str) -> Vec<u8> {
    let context = format!("{}{}/$metadata#{fragment}", site.base, site.root);
    format!("{{\"@odata.context\":{}", cell::quoted(&context)).into_bytes()
}

fn selected(resource: &Resource) -> String {
    resource.option("$select").map(|names| format!("({names})")).unwrap_or_default()
}

pub(super) fn push_link(
    body: &mut Vec<u8>,
    name: &str,
    site: &Site,
    table: &Table,
    resource: &Resource,
    token_name: &str,
    token: &str,
) {
    let query = exchange::link_query(resource, &[(token_name, token)]);
    let link = format!("{}{}/{}{query}", site.base, site.root, table.set());
    body.extend_from_slice(format!(",\"@odata.{name}\":{}", cell::quoted(&link)).as_bytes());
}

fn read_row(
    site: &Site,
    around: Surroundings<'_>,
    table: &Arc<Table>,
    row: &Found,
    resource: &Resource,
    request: &Request,
) -> Result<Response, Response> {
    let etag = render::etag(table, row.stamp());
    if exchange::if_none_match(request).is_some_and(|header| exchange::names_etag(header, &etag)) {
        return Ok(no_content(304));
    }
    let selection = selection(around, table, resource, request)?;
    let body = entity(site, around, table, row, resource, &selection).map_err(|error| failed(&error))?;
    Ok(with_header(json(200, body), "ETag", etag))
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

/// A single property, or the row behind a lookup.
fn read_behind(
    site: &Site,
    around: Surroundings<'_>,
    table: &Arc<Table>,
    row: &Found,
    name: &str,
    resource: &Resource,
    request: &Request,
) -> Result<Response, Response> {
    let mut cells = Vec::new();
    table.cells(&row.data, &mut cells);
    if let Some(at) = table.readable(name) {
        if cells[at] == cell::NULL {
            return Ok(no_content(204));
        }
        let mut body = context(site, &format!("{}({})/{name}", table.set(), table.shown_key(&cells)));
        body.extend_from_slice(format!(",\"value\":{}}}", cells[at]).as_bytes());
        return Ok(json(200, body));
    }
    let (target, id) = follow(around.catalogue, table, row, name)?;
    let locator = Locator::Id(id);
    let found = locator.find(around.connection, target).map_err(|error| failed(&error))?;
    let found = found.ok_or_else(|| locator.not_found(target))?;
    read_row(site, around, target, &found, resource, request)
}

/// The table and the id that a lookup of a row points to.
fn follow<'a>(
    catalogue: &'a Catalogue,
    table: &Table,
    row: &Found,
    navigation: &str,
) -> Result<(&'a Arc<Table>, Uuid), Response> {
    let (at, target) = table.navigation(navigation).ok_or_else(|| no_such_set(navigation))?;
    let target = catalogue.by_name(target).ok_or_else(|| no_such_set(navigation))?;
    let mut cells = Vec::new();
    table.cells(&row.data, &mut cells);
    let id = table.id_of(&cells[at]).ok_or_else(|| no_content(204))?;
    Ok((target, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_all_minor_versions() {
        for (path, wanted) in [
            ("/api/data/v9.2/accounts", Some("/api/data/v9.2")),
            ("/API/data/v9.0", Some("/API/data/v9.0")),
            ("/api/data/v9.22/accounts", None),
            ("/api/data/v8.2/accounts", None),
            ("/data", None),
            ("/äpi/data/v9.2x", None),
        ] {
            assert_eq!(root(path), wanted, "{path}");
        }
    }
}
