//! Writing rows: create, update, upsert, delete, single columns.
//!
//! Owns the requests and their answers ("Create a table row", "Update and delete table rows", "Use Upsert" and "Perform
//! conditional operations using the Web API" on learn.microsoft.com). What a body may hold is `payload`'s, links are
//! `references`', bulk messages are `bulk`'s, and what a write means for the store is the session's business.

use std::borrow::Cow;
use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{self, Key, Resource, Segment};
use uuid::Uuid;

use super::metadata;
use super::payload::{self, Goal, Later, members};
use super::read::entity;
use super::{BAD_QUERY, DUPLICATE, Locator, VERSION_MISMATCH, error, failed, no_such_set, resource, roles};
use crate::batch::{References, Site, resolve};
use crate::body::Members;
use crate::catalogue::Table;
use crate::cell;
use crate::exchange::{self, json, no_content, with_header};
use crate::render::{self, Surroundings};
use crate::session::Session;
use crate::store::Found;

/// Rows within rows within rows, of one deep insert.
const NESTING_MAX: usize = 16;

/// Answers a request that changes something, and says which row it wrote: `accounts(6a8f…)`.
pub(crate) fn write(
    site: &Site,
    session: &mut Session<'_>,
    references: &References,
    request: &Request,
) -> (Response, Option<String>) {
    let below = url::below(&site.root, &request.url).unwrap_or(&request.url);
    let target = resolve(references, below);
    let outcome = resource(site, &target).and_then(|resource| {
        if metadata::is_about_definitions(&resource) {
            return metadata::write(site, session, request, &resource);
        }
        if let Some(caller) = &site.user
            && let Some(answer) = roles::write(caller, session, &resource, request)
        {
            return answer.map(|response| (response, None));
        }
        let path = url::below(&site.root, &target).unwrap_or(&target);
        let path = path.split('?').next().unwrap_or_default();
        Write { site, session, references, request, resource: &resource, path }.answer()
    });
    outcome.unwrap_or_else(|refusal| (refusal, None))
}

type Written = (Response, Option<String>);

/// One request that changes something.
pub(super) struct Write<'a, 'c> {
    pub site: &'a Site,
    pub session: &'a mut Session<'c>,
    pub references: &'a References,
    pub request: &'a Request,
    pub resource: &'a Resource,
    /// What stands in the URL below the service root and before the query.
    path: &'a str,
}

impl Write<'_, '_> {
    fn answer(mut self) -> Result<Written, Response> {
        let Some((first, rest)) = self.resource.segments.split_first() else {
            return Err(error(405, BAD_QUERY, "The service root cannot be written."));
        };
        let table = self.session.catalogue.by_set(&first.name).cloned().ok_or_else(|| no_such_set(&first.name))?;
        match (self.request.method.as_str(), &first.key, rest) {
            ("POST", Key::None, []) => self.create(&table),
            ("POST", Key::None, [action]) => self.bulk(&table, &action.name).map(|response| (response, None)),
            ("PATCH" | "MERGE", key, []) if *key != Key::None => self.patch(&table, key),
            ("DELETE", key, []) if *key != Key::None => self.delete(&table, key),
            ("PUT" | "DELETE" | "PATCH", key, [property]) if *key != Key::None => {
                self.property(&table, key, property).map(|response| (response, None))
            }
            ("PUT" | "DELETE" | "POST", key, [navigation, reference])
                if *key != Key::None && reference.name == "$ref" =>
            {
                self.reference(&table, key, navigation).map(|response| (response, None))
            }
            (_, _, [.., last]) if !last.name.starts_with('$') && table.property(&last.name).is_none() => {
                Err(no_such_set(&last.name))
            }
            (method, ..) => {
                Err(error(405, BAD_QUERY, &format!("The method {method} is not allowed for this resource.")))
            }
        }
    }

    fn create(&mut self, table: &Arc<Table>) -> Result<Written, Response> {
        let request = self.request;
        let members = members(table, &request.body)?;
        let row = self.create_row(table, &members, Goal::Create, None, 0)?;
        self.written(table, &row, true, None)
    }

    /// Adds a row and the rows that its body holds. `preset` is a lookup that the row gets whatever its body says.
    pub(super) fn create_row(
        &mut self,
        table: &Arc<Table>,
        members: &Members<'_>,
        goal: Goal<'_>,
        preset: Option<(usize, Uuid)>,
        depth: usize,
    ) -> Result<Found, Response> {
        if depth == NESTING_MAX {
            return Err(payload::refuse(table, &format!("Rows are nested more than {NESTING_MAX} deep.")));
        }
        let mut cells = table.empty_row().into_iter().collect::<Vec<Cow<'_, str>>>();
        let put = self.apply(table, members, &mut cells, goal, depth)?;
        if let Goal::CreateAt(locator) = goal {
            place(table, locator, &mut cells);
        }
        if let Some((at, id)) = preset {
            cells[at] = cell::guid_cell(id);
        }
        payload::require(table, &cells, None)?;
        let row = self.session.insert(table, cells).map_err(|refusal| payload::refused(table, refusal))?;
        if !put.later.is_empty() {
            let id = id_of(table, &row).unwrap_or_default();
            for later in put.later {
                match later {
                    Later::Create { relation, table, rows } => {
                        for members in &rows {
                            self.create_row(&table, members, Goal::Create, Some((relation.column, id)), depth + 1)?;
                        }
                    }
                    Later::Join { crossing, links } => self.join_all(table, &crossing, id, &links)?,
                    Later::Bind { relation, links } => {
                        for link in &links {
                            self.attach(&relation, link, Some(id))?;
                        }
                    }
                }
            }
        }
        Ok(row)
    }

    fn patch(&mut self, table: &Arc<Table>, key: &Key) -> Result<Written, Response> {
        let locator = Locator::new(table, key)?;
        let request = self.request;
        let members = members(table, &request.body)?;
        let echo = matches!(locator, Locator::Alternate(..)).then_some(self.path);
        match self.found(table, &locator)? {
            Some(row) => {
                self.check_conditions(table, &row, true)?;
                let row = self.update(table, &row, &members, Some(&locator))?;
                self.written(table, &row, false, echo)
            }
            None => {
                // An upsert becomes a create unless the caller says that the row must be there.
                if exchange::if_match(self.request).is_some() {
                    return Err(locator.not_found(table));
                }
                let row = self.create_row(table, &members, Goal::CreateAt(&locator), None, 0)?;
                self.written(table, &row, true, echo)
            }
        }
    }

    pub(super) fn update(
        &mut self,
        table: &Arc<Table>,
        row: &Found,
        members: &Members<'_>,
        locator: Option<&Locator>,
    ) -> Result<Found, Response> {
        let mut cells = table.borrowed_cells(&row.data);
        let put = self.apply(table, members, &mut cells, Goal::Update(locator), 0)?;
        payload::require(table, &cells, Some(&put.named))?;
        self.session.update_named(table, row, cells, &put.named).map_err(|refusal| payload::refused(table, refusal))
    }

    fn delete(&mut self, table: &Arc<Table>, key: &Key) -> Result<Written, Response> {
        let locator = Locator::new(table, key)?;
        let row = self.found(table, &locator)?.ok_or_else(|| locator.not_found(table))?;
        self.check_conditions(table, &row, false)?;
        self.session.delete(table, &row).map_err(|refusal| payload::refused(table, refusal))?;
        Ok((no_content(204), None))
    }

    /// `PUT accounts(…)/name` with `{"value":…}`, or `DELETE accounts(…)/name`.
    fn property(&mut self, table: &Arc<Table>, key: &Key, property: &Segment) -> Result<Response, Response> {
        let locator = Locator::new(table, key)?;
        let name = &property.name;
        if table.property(name).is_none() {
            return Err(no_such_set(name));
        }
        let row = self.found(table, &locator)?.ok_or_else(|| locator.not_found(table))?;
        self.check_conditions(table, &row, false)?;
        let request = self.request;
        let body = members(table, &request.body)?;
        let value = match self.request.method.as_str() {
            "DELETE" => cell::NULL,
            _ => body.get("value").ok_or_else(|| payload::refuse(table, "A member named value was expected."))?,
        };
        self.update(table, &row, &Members(vec![(Cow::Borrowed(name), value)]), None)?;
        Ok(no_content(204))
    }

    pub(super) fn found(&self, table: &Table, locator: &Locator) -> Result<Option<Found>, Response> {
        locator.find(self.session.connection(), table).map_err(|error| failed(&error))
    }

    /// The row is there: may it be updated, and in that version? `If-None-Match` limits an upsert and nothing else.
    pub(super) fn check_conditions(&self, table: &Table, row: &Found, is_upsert: bool) -> Result<(), Response> {
        let etag = render::etag(table, row.stamp());
        if is_upsert && exchange::if_none_match(self.request).is_some_and(|header| exchange::names_etag(header, &etag))
        {
            return Err(error(412, DUPLICATE, "A record with matching key values already exists."));
        }
        if exchange::if_match(self.request).is_some_and(|header| !exchange::names_etag(header, &etag)) {
            let message = "The version of the existing record doesn't match the RowVersion property provided.";
            return Err(error(412, VERSION_MISMATCH, message));
        }
        Ok(())
    }

    /// The answer to a row that was written. `echo` is how the request named it, when that was by an alternate key.
    fn written(&self, table: &Arc<Table>, row: &Found, created: bool, echo: Option<&str>) -> Result<Written, Response> {
        let id = id_of(table, row).unwrap_or_default();
        let path = format!("{}({id})", table.set());
        let etag = render::etag(table, row.stamp());
        if exchange::wants_representation(self.request) == Some(true) {
            let session = &*self.session;
            let around =
                Surroundings { connection: session.connection(), catalogue: &session.catalogue, clock: &session.clock };
            let mut wanted = Cow::Borrowed(self.resource);
            if !created {
                // Documented: an update ignores what should be expanded.
                wanted.to_mut().options.retain(|(name, _)| !name.eq_ignore_ascii_case("$expand"));
            }
            let body = entity(self.site, around, table, row, &wanted, self.request)?;
            let response = json(if created { 201 } else { 200 }, body);
            let response = with_header(response, "Preference-Applied", "return=representation");
            return Ok((with_header(response, "ETag", etag), Some(path)));
        }
        let link = format!("{}{}/{}", self.site.base, self.site.root, echo.unwrap_or(&path));
        let response = with_header(no_content(204), "OData-EntityId", link.as_str());
        let response = if created { with_header(response, "Location", link.as_str()) } else { response };
        Ok((with_header(response, "ETag", etag), Some(path)))
    }
}

/// Writes the key that a row was addressed by into its cells. What the body said of an alternate key stands.
fn place(table: &Table, locator: &Locator, cells: &mut [Cow<'_, str>]) {
    match locator {
        Locator::Id(id) => {
            if let Some(at) = table.primary_id {
                cells[at] = cell::guid_cell(*id);
            }
        }
        Locator::Alternate(number, values) => {
            for (&at, value) in table.alternate_keys[*number].1.iter().zip(values) {
                if cells[at] == cell::NULL {
                    cells[at] = value.clone();
                }
            }
        }
    }
}

pub(super) fn id_of(table: &Table, row: &Found) -> Option<Uuid> {
    let at = table.primary_id?;
    table.id_of(&cell::nth(&row.data, at)?)
}
