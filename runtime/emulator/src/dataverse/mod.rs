//! The dialect of Dataverse: URLs, reads, error bodies.
//!
//! Owns what the Web API says about rows; writing, metadata and change tracking have files of their own.

mod aggregate;
mod apply;
mod bulk;
mod condition;
mod delta;
pub(crate) mod detail;
mod display;
mod environment;
mod expand;
mod fetchxml;
mod filter;
#[cfg(test)]
mod fuzz;
mod limits;
mod metadata;
mod payload;
mod query;
mod read;
mod references;
pub(crate) mod roles;
mod rows;
mod span;
pub(crate) mod steps;
pub(crate) mod system;
mod write;
mod xml;

use dualwright_odata::Literal;
use dualwright_odata::batch::Response;
use dualwright_odata::url::{self, Key, Resource};
use rusqlite::Connection;
use uuid::Uuid;

use crate::batch::Site;
use crate::catalogue::Table;
use crate::cell::{self, Cell};
use crate::exchange::{self, json};
use crate::query::QueryError;
use crate::store::{self, Found};

pub(crate) use delta::expire_links;
pub(crate) use environment::{
    Environment, add_dual_write_users, answer, is_configuration, observers, prepare, site_of,
};
pub use limits::LimitSettings;
pub(crate) use read::read;
pub(crate) use write::write;

pub(crate) const ROOT: &str = "/api/data/v9.2";

/// Rows on a page at most, and by default.
const PAGE_MAX: usize = query::PAGE_MAX;

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
            Self::Refused(refusal) => *refusal,
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

/// Refuses to let the caller read a table without the privilege for it.
pub(super) fn permit(site: &Site, table: &Table) -> Result<(), Response> {
    site.user.as_ref().map_or(Ok(()), |caller| roles::may_read(caller, table))
}

/// The start of an answer, up to its context.
pub(super) fn context(site: &Site, fragment: &str) -> Vec<u8> {
    let context = format!("{}{}/$metadata#{fragment}", site.base, site.root);
    format!("{{\"@odata.context\":{}", cell::quoted(&context)).into_bytes()
}

pub(super) fn selected(resource: &Resource) -> String {
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
