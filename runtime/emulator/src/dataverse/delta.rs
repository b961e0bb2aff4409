//! Change tracking: what became of a table since a link was given out.
//!
//! Owns the two kinds of links. A link holds the version up to which everything was seen; an enumeration takes that version
//! before its first page, so whatever changes meanwhile comes again with the first delta, and nothing is missed.

use std::sync::Arc;

use dualwright_odata::batch::{self, Response};
use dualwright_odata::url::Resource;
use rusqlite::params;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::display::{Annotations, Targets};
use super::expand::{Shape, Writer};
use super::filter::Compiler;
use super::rows::Cells;
use super::{BAD_QUERY, PAGE_MAX, error, failed, push_link, roles, selected, system};
use crate::batch::Site;
use crate::catalogue::Table;
use crate::exchange::{self, json, with_header};
use crate::render::Surroundings;
use crate::store::{self, Store};

/// How many days a link is good when the organization does not say (`ExpireChangeTrackingInDays`).
const LINK_DAYS_MAX: i64 = 7;
const DAY_SECONDS: i64 = 24 * 60 * 60;
/// `ExpiredVersionStamp`.
const EXPIRED: &str = "0x80044352";
/// The newest version whose links are void, in the store's settings.
const EXPIRED_UPTO: &str = "expired_upto";

/// Voids every link that was given out until now. The counter moves on, so that links of later are newer than those.
pub(crate) fn expire_links(store: &Store) -> anyhow::Result<()> {
    let passed = store.write(false, |session| anyhow::Ok(session.next()))? - 1;
    store.set_setting(EXPIRED_UPTO, passed)?;
    Ok(())
}

/// What is asked of the feed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Every row there is, and then a link. `upto` is set from the second page on.
    Enumerate { after: i64, upto: Option<i64> },
    /// What changed after version `from`, up to `upto`: rows whose version is above `after`, then deletes.
    Changes { from: i64, upto: Option<i64>, after: i64, deletes: bool, issued: i64 },
}

/// What the last page leads to.
#[derive(Debug, Serialize, Deserialize)]
struct DeltaToken {
    version: i64,
    issued: i64,
}

impl Request {
    /// Whether a request of a set is one of the feed.
    pub fn of(resource: &Resource, request: &batch::Request) -> Result<Option<Self>, Response> {
        let malformed = || error(400, BAD_QUERY, "Malformed delta token.");
        let feed = if let Some(token) = resource.option("$deltatoken") {
            let token: DeltaToken = exchange::unseal(token).ok_or_else(malformed)?;
            Self::Changes {
                from: token.version,
                upto: None,
                after: token.version,
                deletes: false,
                issued: token.issued,
            }
        } else if let Some(token) = resource.option("$skiptoken") {
            // A token of a plain query is not one of ours.
            match exchange::unseal(token) {
                Some(feed) => feed,
                None => return Ok(None),
            }
        } else if exchange::preference(request, "odata.track-changes").is_some() {
            Self::Enumerate { after: 0, upto: None }
        } else {
            return Ok(None);
        };
        for name in ["$filter", "$orderby", "$expand", "$top"] {
            if resource.option(name).is_some() {
                let message =
                    format!("The \"{name}\" query parameter isn't supported when Change Tracking is enabled.");
                return Err(error(400, BAD_QUERY, &message));
            }
        }
        Ok(Some(feed))
    }

    /// Refuses what cannot be followed: tables that are not tracked, and callers who may not read all of a table.
    fn check(site: &Site, table: &Table) -> Result<(), Response> {
        if table.definition.untracked {
            let message = format!("Change tracking is not enabled for the entity '{}'.", table.name());
            return Err(error(400, BAD_QUERY, &message));
        }
        site.user.as_ref().map_or(Ok(()), |caller| roles::may_read_all(caller, table))
    }

    /// Refuses a link that is too old, or that is none of this store's.
    fn check_age(around: Surroundings<'_>, from: i64, issued: i64, counter: i64) -> Result<(), Response> {
        let expired: i64 =
            store::setting(around.connection, EXPIRED_UPTO).map_err(|error| failed(&error))?.unwrap_or(-1);
        let days = link_days_max(around).map_err(|error| failed(&error))?;
        let age_seconds = around.clock.now_seconds().saturating_sub(issued);
        if from <= expired || age_seconds > days.saturating_mul(DAY_SECONDS) || from > counter {
            let message = "Version stamp associated with the client has expired. Please perform a full sync.";
            return Err(error(410, EXPIRED, message));
        }
        Ok(())
    }

    /// `accounts/$count?$deltatoken=…`: how many changes the link would show.
    pub fn count(self, site: &Site, around: Surroundings<'_>, table: &Arc<Table>) -> Result<i64, Response> {
        Self::check(site, table)?;
        let counter = counter(around)?;
        let (from, upto) = match self {
            Self::Enumerate { upto, .. } => (0, upto),
            Self::Changes { from, upto, issued, .. } => {
                Self::check_age(around, from, issued, counter)?;
                (from, upto)
            }
        };
        let of = |sql: &str| {
            let mut statement = around.connection.prepare_cached(sql)?;
            statement.query_row(params![table.number, from, upto.unwrap_or(counter)], |row| row.get::<_, i64>(0))
        };
        let rows = of("SELECT count(*) FROM row WHERE number = ?1 AND version > ?2 AND version <= ?3");
        let rows = rows.map_err(|error| failed(&error))?;
        let deletes = of("SELECT count(*) FROM tombstone WHERE number = ?1 AND version > ?2 AND version <= ?3");
        // An enumeration shows no row that is gone.
        Ok(if from == 0 { rows } else { rows + deletes.map_err(|error| failed(&error))? })
    }

    pub fn answer(
        self,
        site: &Site,
        around: Surroundings<'_>,
        table: &Arc<Table>,
        resource: &Resource,
        request: &batch::Request,
    ) -> Result<Response, Response> {
        Self::check(site, table)?;
        let rows_max = exchange::page_size(request, PAGE_MAX);
        let compiler = Compiler { catalogue: around.catalogue, site, now: around.clock.now() };
        // Columns alone: what is expanded cannot be tracked.
        let shape = Shape::new(compiler, table, resource.option("$select"), None);
        let shape = shape.map_err(|error| error.dataverse(table))?;
        let annotations = Annotations::of(request);
        let applied = match annotations.text.as_str() {
            "" => "odata.track-changes".to_owned(),
            text => format!("odata.track-changes,odata.include-annotations=\"{text}\""),
        };
        let writer = Writer {
            around,
            site,
            annotations,
            targets: Targets::default(),
            page_size: None,
            is_representation: false,
        };
        let page = Page { site, around, table, writer, shape, rows_max };
        let counter = counter(around)?;
        let is_first = matches!(self, Self::Enumerate { .. });
        let kind = if is_first { "" } else { "/$delta" };
        let mut body = super::context(site, &format!("{}{}{kind}", table.set(), selected(resource)));
        body.extend_from_slice(b",\"value\":[");
        let (next, upto) = match self {
            Self::Enumerate { after, upto } => {
                let upto = upto.unwrap_or(counter);
                (page.enumerate(after, upto, &mut body), upto)
            }
            Self::Changes { from, upto, after, deletes, issued } => {
                Self::check_age(around, from, issued, counter)?;
                let upto = upto.unwrap_or(counter);
                (page.changes(from, upto, after, deletes, issued, &mut body), upto)
            }
        };
        let next = next.map_err(|error| failed(&error))?;
        body.push(b']');
        match next {
            Some(next) => {
                push_link(&mut body, "nextLink", site, table, resource, "$skiptoken", &exchange::seal(&next));
            }
            None => {
                let token = DeltaToken { version: upto, issued: around.clock.now_seconds() };
                push_link(&mut body, "deltaLink", site, table, resource, "$deltatoken", &exchange::seal(&token));
            }
        }
        body.push(b'}');
        let response = json(200, body);
        Ok(if is_first { with_header(response, "Preference-Applied", applied) } else { response })
    }
}

/// The last version that was committed.
fn counter(around: Surroundings<'_>) -> Result<i64, Response> {
    Ok(store::setting(around.connection, "counter").map_err(|error| failed(&error))?.unwrap_or(0))
}

/// What the organization says about the age of links.
fn link_days_max(around: Surroundings<'_>) -> rusqlite::Result<i64> {
    let Some(table) = around.catalogue.by_name(system::ORGANIZATION) else { return Ok(LINK_DAYS_MAX) };
    let found = store::find(around.connection, &table.id_key(system::organization_id()))?;
    let row = found.as_ref().map(|found| Cells::of(table, &found.data));
    let said = row.filter(|row| !row.is_null("expirechangetrackingindays"));
    Ok(said.map_or(LINK_DAYS_MAX, |row| row.number("expirechangetrackingindays")))
}

struct Page<'a> {
    site: &'a Site,
    around: Surroundings<'a>,
    table: &'a Arc<Table>,
    writer: Writer<'a>,
    shape: Shape,
    rows_max: usize,
}

impl Page<'_> {
    fn enumerate(&self, after: i64, upto: i64, body: &mut Vec<u8>) -> rusqlite::Result<Option<Request>> {
        const WITHIN: i64 = (1 << store::PLACE_BITS) - 1;
        let (mut rows, mut last, mut next) = (0, after, None);
        store::scan(self.around.connection, self.table, after, i64::MAX, false, &mut |id, version, data| {
            if rows == self.rows_max {
                next = Some(Request::Enumerate { after: last, upto: Some(upto) });
                return Ok(false);
            }
            let mut cells = Vec::with_capacity(self.table.columns.len());
            self.table.cells(data, &mut cells);
            separate(body, rows);
            self.writer.row(body, self.table, &cells, store::Stamp { id, version }, &self.shape)?;
            rows += 1;
            last = id & WITHIN;
            Ok(true)
        })?;
        Ok(next)
    }

    fn changes(
        &self,
        from: i64,
        upto: i64,
        after: i64,
        deletes: bool,
        issued: i64,
        body: &mut Vec<u8>,
    ) -> rusqlite::Result<Option<Request>> {
        let next = |after, deletes| Some(Request::Changes { from, upto: Some(upto), after, deletes, issued });
        let mut rows = 0;
        let mut last = after;
        if !deletes {
            let mut statement = self.around.connection.prepare_cached(
                "SELECT version, data, id FROM row WHERE number = ?1 AND version > ?2 AND version <= ?3 ORDER BY version",
            )?;
            let mut found = statement.query(params![self.table.number, after, upto])?;
            while let Some(row) = found.next()? {
                if rows == self.rows_max {
                    return Ok(next(last, false));
                }
                let version: i64 = row.get(0)?;
                let data = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
                let mut cells = Vec::with_capacity(self.table.columns.len());
                self.table.cells(data, &mut cells);
                separate(body, rows);
                let stamp = store::Stamp { id: row.get(2)?, version };
                self.writer.row(body, self.table, &cells, stamp, &self.shape)?;
                rows += 1;
                last = version;
            }
            last = from;
        }
        let mut statement = self.around.connection.prepare_cached(
            "SELECT version, key FROM tombstone WHERE number = ?1 AND version > ?2 AND version <= ?3 ORDER BY version",
        )?;
        let mut found = statement.query(params![self.table.number, last, upto])?;
        while let Some(row) = found.next()? {
            if rows == self.rows_max {
                return Ok(next(last, true));
            }
            last = row.get(0)?;
            let key = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let id = key.get(4..).and_then(|id| Uuid::from_slice(id).ok()).unwrap_or_default();
            let context = format!("{}{}/$metadata#{}/$deletedEntity", self.site.base, self.site.root, self.table.set());
            separate(body, rows);
            let entry = serde_json::json!({"@odata.context": context, "id": id, "reason": "deleted"});
            body.extend_from_slice(entry.to_string().as_bytes());
            rows += 1;
        }
        Ok(None)
    }
}

fn separate(body: &mut Vec<u8>, rows: usize) {
    if rows > 0 {
        body.push(b',');
    }
}
