//! Writing rows: create, update, upsert, delete, single columns, and the bulk messages.
//!
//! Owns what the Web API accepts and refuses; what a write means for the store is the session's business.

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{self, Key, Resource, Segment};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::metadata;
use super::{
    BAD_PAYLOAD, BAD_QUERY, DUPLICATE, DUPLICATE_KEY, Locator, VERSION_MISMATCH, entity, error, failed, no_such_set,
    resource, selection,
};
use crate::batch::{References, Site, resolve};
use crate::body::Members;
use crate::catalogue::{Column, Table};
use crate::cell::{self, Cell, Unfit};
use crate::definition::ColumnKind;
use crate::exchange::{self, json, no_content, with_header};
use crate::render::{self, Surroundings};
use crate::session::{Refusal, Session};
use crate::store::Found;

/// Rows that one bulk message takes.
const BULK_MAX: usize = 1_000;

/// Answers a request that changes something, and says which row it wrote: `accounts(6a8f…)`.
pub(crate) fn write(
    site: &Site,
    session: &mut Session<'_>,
    references: &References,
    request: &Request,
) -> (Response, Option<String>) {
    let below = url::below(&site.root, &request.url).unwrap_or(&request.url);
    let target = resolve(references, below);
    let outcome = resource(site, &target).and_then(|resource| match metadata::is_about_definitions(&resource) {
        true => metadata::write(site, session, request, &resource),
        false => Write { site, session, references, request, resource: &resource }.answer(),
    });
    outcome.unwrap_or_else(|refusal| (refusal, None))
}

type Written = (Response, Option<String>);

struct Write<'a, 'c> {
    site: &'a Site,
    session: &'a mut Session<'c>,
    references: &'a References,
    request: &'a Request,
    resource: &'a Resource,
}

impl Write<'_, '_> {
    fn answer(mut self) -> Result<Written, Response> {
        let Some((first, rest)) = self.resource.segments.split_first() else {
            return Err(error(405, BAD_QUERY, "The service root cannot be written."));
        };
        let table = self.session.catalogue.by_set(&first.name).cloned().ok_or_else(|| no_such_set(&first.name))?;
        match (self.request.method.as_str(), &first.key, rest) {
            ("POST", Key::None, []) => self.create(&table),
            ("POST", Key::None, [action]) => self.bulk(&table, action).map(|response| (response, None)),
            ("PATCH" | "MERGE", key, []) if *key != Key::None => self.patch(&table, key),
            ("DELETE", key, []) if *key != Key::None => self.delete(&table, key),
            ("PUT" | "DELETE" | "PATCH", key, [property]) if *key != Key::None => self.property(&table, key, property),
            ("PUT" | "DELETE" | "POST", key, [navigation, reference])
                if *key != Key::None && reference.name == "$ref" =>
            {
                self.reference(&table, key, navigation)
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
        let members = members(&self.request.body)?;
        let mut cells = table.empty_row();
        self.apply(table, &members, &mut cells, None)?;
        self.insert(table, cells)
    }

    fn insert(&mut self, table: &Arc<Table>, cells: Vec<Cell>) -> Result<Written, Response> {
        require(table, &cells, None)?;
        let row = self.session.insert(table, cells).map_err(|refusal| refused(table, refusal))?;
        self.written(table, &row, true)
    }

    fn patch(&mut self, table: &Arc<Table>, key: &Key) -> Result<Written, Response> {
        let locator = Locator::new(table, key)?;
        let members = members(&self.request.body)?;
        match self.found(table, &locator)? {
            Some(row) => {
                self.check_conditions(table, &row)?;
                self.update(table, &row, &members)
            }
            None => {
                // An upsert becomes a create unless the caller says that the row must be there.
                if exchange::if_match(self.request).is_some() {
                    return Err(locator.not_found(table));
                }
                let mut cells = table.empty_row();
                self.apply(table, &members, &mut cells, None)?;
                place(table, &locator, &mut cells);
                self.insert(table, cells)
            }
        }
    }

    fn update(&mut self, table: &Arc<Table>, row: &Found, members: &Members<'_>) -> Result<Written, Response> {
        let mut cells = table.owned_cells(&row.data);
        let touched = self.apply(table, members, &mut cells, Some(row))?;
        require(table, &cells, Some(&touched))?;
        let row = self.session.update_named(table, row, cells, &touched).map_err(|refusal| refused(table, refusal))?;
        self.written(table, &row, false)
    }

    fn delete(&mut self, table: &Arc<Table>, key: &Key) -> Result<Written, Response> {
        let locator = Locator::new(table, key)?;
        let row = self.found(table, &locator)?.ok_or_else(|| locator.not_found(table))?;
        self.check_conditions(table, &row)?;
        self.session.delete(table, &row).map_err(|refusal| refused(table, refusal))?;
        Ok((no_content(204), None))
    }

    /// `PUT accounts(…)/name` with `{"value":…}`, or `DELETE accounts(…)/name`.
    fn property(&mut self, table: &Arc<Table>, key: &Key, property: &Segment) -> Result<Written, Response> {
        let locator = Locator::new(table, key)?;
        let name = &property.name;
        if table.property(name).is_none() {
            return Err(no_such_set(name));
        }
        let row = self.found(table, &locator)?.ok_or_else(|| locator.not_found(table))?;
        self.check_conditions(table, &row)?;
        let body = members(&self.request.body)?;
        let value = match self.request.method.as_str() {
            "DELETE" => cell::NULL,
            _ => body.get("value").ok_or_else(|| payload("A member named value was expected."))?,
        };
        self.update(table, &row, &Members(vec![(name.clone(), value)])).map(|_| (no_content(204), None))
    }

    /// `PUT accounts(…)/primarycontactid/$ref` with `{"@odata.id":…}`, or DELETE.
    fn reference(&mut self, table: &Arc<Table>, key: &Key, navigation: &Segment) -> Result<Written, Response> {
        let locator = Locator::new(table, key)?;
        let row = self.found(table, &locator)?.ok_or_else(|| locator.not_found(table))?;
        self.check_conditions(table, &row)?;
        let body = members(&self.request.body)?;
        let value = match self.request.method.as_str() {
            "DELETE" => cell::NULL,
            _ => body.get("@odata.id").ok_or_else(|| payload("A member named @odata.id was expected."))?,
        };
        let member = (format!("{}@odata.bind", navigation.name), value);
        self.update(table, &row, &Members(vec![member])).map(|_| (no_content(204), None))
    }

    fn found(&self, table: &Table, locator: &Locator) -> Result<Option<Found>, Response> {
        locator.find(self.session.connection(), table).map_err(|error| failed(&error))
    }

    fn check_conditions(&self, table: &Table, row: &Found) -> Result<(), Response> {
        let etag = render::etag(table, row.stamp());
        if exchange::if_none_match(self.request).is_some_and(|header| exchange::names_etag(header, &etag)) {
            let message = format!("A record with matching key values already exists in {} entity.", table.name());
            return Err(error(412, DUPLICATE, &message));
        }
        if exchange::if_match(self.request).is_some_and(|header| !exchange::names_etag(header, &etag)) {
            let message = "The version of the existing record doesn't match the RowVersion property provided.";
            return Err(error(412, VERSION_MISMATCH, message));
        }
        Ok(())
    }

    /// Puts the members of a body into the cells of a row; gives the columns that were named.
    fn apply(
        &self,
        table: &Arc<Table>,
        members: &Members<'_>,
        cells: &mut [Cell],
        existing: Option<&Found>,
    ) -> Result<Vec<usize>, Response> {
        let mut touched = Vec::with_capacity(members.0.len());
        for (name, value) in &members.0 {
            if let Some((navigation, annotation)) = name.split_once('@') {
                if annotation == "odata.bind" && !navigation.is_empty() {
                    let at = self.bind(table, navigation, value, cells)?;
                    touched.push(at);
                }
                continue;
            }
            let Some(at) = table.property(name) else {
                match table.navigation(name) {
                    Some((at, _)) if *value == cell::NULL => {
                        cells[at] = Cell::Borrowed(cell::NULL);
                        touched.push(at);
                        continue;
                    }
                    Some(_) => return Err(payload("Rows cannot be created within rows here.")),
                    None => return Err(unknown_property(table, name)),
                }
            };
            let column = &table.columns[at];
            if column.definition.kind == ColumnKind::Lookup {
                let message = "CRM do not support direct update of Entity Reference properties, \
                               Use Navigation properties instead.";
                return Err(error(400, BAD_QUERY, message));
            }
            // What only the system writes is passed over, as the platform does.
            if column.definition.read_only || table.server.is_stamp(at) {
                continue;
            }
            let cell = table.parse(at, value).map_err(|unfit| refused_value(table, column, unfit))?;
            if Some(at) == table.primary_id && existing.is_some() {
                if cells[at] != cell {
                    return Err(payload("The id of a row cannot be changed."));
                }
                continue;
            }
            cells[at] = cell;
            touched.push(at);
        }
        Ok(touched)
    }

    fn bind(&self, table: &Arc<Table>, navigation: &str, value: &str, cells: &mut [Cell]) -> Result<usize, Response> {
        let Some((at, _)) = table.navigation(navigation) else {
            let message = format!(
                "An undeclared property '{navigation}' which only has property annotations in the payload but no \
                 property value was found in the payload. In OData, only declared navigation properties and declared \
                 named streams can be represented as properties without values."
            );
            return Err(payload(&message));
        };
        if value == cell::NULL {
            cells[at] = Cell::Borrowed(cell::NULL);
            return Ok(at);
        }
        let link = cell::text_of(value).ok_or_else(|| payload("A link was expected."))?;
        let below = url::below(&self.site.root, &link).unwrap_or_else(|| link.trim_start_matches('/'));
        let path = resolve(self.references, below);
        if let Some(id) = path.strip_prefix('$') {
            return Err(payload(&format!("Content-ID Reference: '{id}' does not exist in the batch context.")));
        }
        let malformed = || payload(&format!("The link of '{navigation}' cannot be read."));
        let resource = url::parse(&path).map_err(|_| malformed())?;
        let [segment] = resource.segments.as_slice() else { return Err(malformed()) };
        let linked = self.session.catalogue.by_set(&segment.name).ok_or_else(|| no_such_set(&segment.name))?;
        if !table.navigation_targets(navigation).iter().any(|target| target == linked.name()) {
            return Err(payload(&format!("'{navigation}' cannot refer to a row of {}.", segment.name)));
        }
        let locator = Locator::new(linked, &segment.key)?;
        let id = match self.found(linked, &locator)? {
            None => return Err(locator.not_found(linked)),
            Some(row) => match &locator {
                Locator::Id(id) => *id,
                Locator::Alternate(..) => id_of(linked, &row).ok_or_else(malformed)?,
            },
        };
        cells[at] = cell::guid_cell(id);
        Ok(at)
    }

    fn written(&self, table: &Arc<Table>, row: &Found, created: bool) -> Result<Written, Response> {
        let id = id_of(table, row).unwrap_or_default();
        let path = format!("{}({id})", table.set());
        let link = format!("{}{}/{path}", self.site.base, self.site.root);
        let response = if exchange::wants_representation(self.request) == Some(true) {
            let session = &*self.session;
            let around =
                Surroundings { connection: session.connection(), catalogue: &session.catalogue, clock: &session.clock };
            let selection = selection(around, table, self.resource, self.request)?;
            let body =
                entity(self.site, around, table, row, self.resource, &selection).map_err(|error| failed(&error))?;
            let response = json(if created { 201 } else { 200 }, body);
            with_header(response, "Preference-Applied", "return=representation")
        } else {
            no_content(204)
        };
        let response = with_header(response, "OData-EntityId", link.as_str());
        let response = if created { with_header(response, "Location", link.as_str()) } else { response };
        Ok((with_header(response, "ETag", render::etag(table, row.stamp())), Some(path)))
    }

    /// `CreateMultiple`, `UpdateMultiple`, `UpsertMultiple`: all of the rows, or none.
    fn bulk(&mut self, table: &Arc<Table>, action: &Segment) -> Result<Response, Response> {
        #[derive(serde::Deserialize)]
        struct Body<'a> {
            #[serde(rename = "Targets", borrow)]
            targets: Vec<&'a RawValue>,
        }
        let name = action.name.strip_prefix("Microsoft.Dynamics.CRM.").unwrap_or(&action.name);
        if !matches!(name, "CreateMultiple" | "UpdateMultiple" | "UpsertMultiple") {
            return Err(no_such_set(&action.name));
        }
        let body: Body<'_> = serde_json::from_slice(&self.request.body).map_err(|error| payload(&error.to_string()))?;
        if body.targets.len() > BULK_MAX {
            return Err(error(400, BAD_QUERY, &format!("A message holds at most {BULK_MAX} rows.")));
        }
        let mut ids = Vec::with_capacity(body.targets.len());
        for target in body.targets {
            let members = members(target.get().as_bytes())?;
            let expected = format!("Microsoft.Dynamics.CRM.{}", table.name());
            if let Some(named) = members.get("@odata.type").and_then(cell::text_of)
                && named.trim_start_matches('#') != expected
            {
                return Err(payload(&format!("A row of type {expected} was expected.")));
            }
            let locator = self.target(table, &members)?;
            let found = match (&locator, name) {
                (None, "UpdateMultiple") => return Err(payload("A row without its id cannot be updated.")),
                (None, _) | (_, "CreateMultiple") => None,
                (Some(locator), _) => match self.found(table, locator)? {
                    None if name == "UpdateMultiple" => return Err(locator.not_found(table)),
                    found => found,
                },
            };
            let row = match found {
                Some(row) => {
                    let mut cells = table.owned_cells(&row.data);
                    let touched = self.apply(table, &members, &mut cells, Some(&row))?;
                    require(table, &cells, Some(&touched))?;
                    self.session.update_named(table, &row, cells, &touched)
                }
                None => {
                    let mut cells = table.empty_row();
                    self.apply(table, &members, &mut cells, None)?;
                    if let Some(locator) = &locator {
                        place(table, locator, &mut cells);
                    }
                    require(table, &cells, None)?;
                    self.session.insert(table, cells)
                }
            };
            ids.push(id_of(table, &row.map_err(|refusal| refused(table, refusal))?).unwrap_or_default());
        }
        Ok(match name {
            "CreateMultiple" => {
                let mut body = super::context(self.site, "Microsoft.Dynamics.CRM.CreateMultipleResponse");
                let ids = serde_json::to_string(&ids).unwrap_or_default();
                body.extend_from_slice(format!(",\"Ids\":{ids}}}").as_bytes());
                json(200, body)
            }
            _ => no_content(204),
        })
    }

    /// Which row a target of a bulk message names: by `@odata.id`, or by its id column.
    fn target(&self, table: &Table, members: &Members<'_>) -> Result<Option<Locator>, Response> {
        if let Some(link) = members.get("@odata.id").and_then(cell::text_of) {
            let below = url::below(&self.site.root, &link).unwrap_or_else(|| link.trim_start_matches('/'));
            let resource = url::parse(below).map_err(|refusal| payload(&refusal.to_string()))?;
            return match resource.segments.as_slice() {
                [segment] if segment.name == table.set() => Locator::new(table, &segment.key).map(Some),
                _ => Err(payload("The @odata.id names no row of this set.")),
            };
        }
        let id = table.primary_id.and_then(|at| members.get(&table.columns[at].property)).and_then(cell::text_of);
        match id {
            None => Ok(None),
            Some(id) => match Uuid::parse_str(&id) {
                Ok(id) => Ok(Some(Locator::Id(id))),
                Err(_) => Err(payload("The id of a row is not a GUID.")),
            },
        }
    }
}

/// Writes the key that a row was addressed by into its cells.
fn place(table: &Table, locator: &Locator, cells: &mut [Cell]) {
    match locator {
        Locator::Id(id) => {
            if let Some(at) = table.primary_id {
                cells[at] = cell::guid_cell(*id);
            }
        }
        Locator::Alternate(number, values) => {
            for (at, value) in table.alternate_keys[*number].1.iter().zip(values) {
                cells[*at] = value.clone();
            }
        }
    }
}

fn id_of(table: &Table, row: &Found) -> Option<Uuid> {
    let mut cells = Vec::new();
    table.cells(&row.data, &mut cells);
    table.primary_id.and_then(|at| table.id_of(&cells[at]))
}

fn members(body: &[u8]) -> Result<Members<'_>, Response> {
    Members::parse(body).map_err(|message| payload(&message))
}

fn payload(message: &str) -> Response {
    error(400, BAD_PAYLOAD, &format!("Error identified in Payload provided by the user: {message}"))
}

fn unknown_property(table: &Table, name: &str) -> Response {
    payload(&format!(
        "The property '{name}' does not exist on type 'Microsoft.Dynamics.CRM.{}'. Make sure to only use property names \
         that are defined by the type.",
        table.name()
    ))
}

/// Refuses a row that lacks what it must have; of an existing row only what was written is looked at.
fn require(table: &Table, cells: &[Cell], touched: Option<&[usize]>) -> Result<(), Response> {
    for (at, column) in table.columns.iter().enumerate() {
        let is_looked_at = touched.is_none_or(|touched| touched.contains(&at));
        let is_own = Some(at) == table.primary_id || table.server.is_stamp(at);
        if column.definition.required && cells[at] == cell::NULL && is_looked_at && !is_own {
            let message =
                format!("Required field '{}' of entity '{}' is missing.", column.definition.name, table.name());
            return Err(error(400, "0x80040203", &message));
        }
    }
    Ok(())
}

fn refused_value(table: &Table, column: &Column, unfit: Unfit) -> Response {
    let (name, entity) = (&column.definition.name, table.name());
    match unfit {
        Unfit::Type(expected) => {
            payload(&format!("The value of '{name}' cannot be converted to the expected type '{expected}'."))
        }
        Unfit::TooLong(longest) => {
            let message = format!(
                "A validation error occurred. The length of the '{name}' attribute of the '{entity}' entity exceeded \
                 the maximum allowed length of '{longest}'."
            );
            error(400, "0x80044331", &message)
        }
        Unfit::OutOfRange { value, minimum, maximum } => {
            let (code, kind) = match column.definition.kind {
                ColumnKind::Money => ("0x80044330", "Microsoft.Xrm.Sdk.Money"),
                ColumnKind::Decimal => ("0x80044330", "System.Decimal"),
                ColumnKind::Double => ("0x80044330", "System.Double"),
                _ => ("0x8004432f", "System.Int32"),
            };
            let message = format!(
                "A validation error occurred for {entity}.{name}. The value {value} of type {kind} is outside the valid \
                 range({minimum} to {maximum})."
            );
            error(400, code, &message)
        }
        Unfit::Option(value) => {
            let accepted =
                column.definition.options.iter().map(|option| option.value.to_string()).collect::<Vec<_>>().join(",");
            let message = format!(
                "A validation error occurred. The value {value} of '{name}' on record of type '{entity}' is outside the \
                 valid range. Accepted Values: {accepted}"
            );
            error(400, "0x8004431A", &message)
        }
    }
}

fn refused(table: &Table, refusal: Refusal) -> Response {
    match refusal {
        Refusal::Duplicate(None) => error(412, DUPLICATE, "A record with matching key values already exists."),
        Refusal::Duplicate(Some(number)) => {
            let (key, columns) = &table.alternate_keys[number];
            let columns =
                columns.iter().map(|at| table.columns[*at].definition.name.as_str()).collect::<Vec<_>>().join(", ");
            let message = format!(
                "Entity Key {key} violated. A record with the same value for {columns} already exists. A duplicate record \
                 cannot be created. Select one or more unique values and try again."
            );
            error(412, DUPLICATE_KEY, &message)
        }
        Refusal::Referenced { table, column } => {
            let message = format!(
                "The object you tried to delete is associated with another object and cannot be deleted. \
                 ({table}.{column} refers to it.)"
            );
            error(400, "0x80040227", &message)
        }
        Refusal::Observed(response) => *response,
        Refusal::Store(error) => failed(&error),
    }
}
