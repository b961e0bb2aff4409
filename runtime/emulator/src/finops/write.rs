//! Writing rows: create, update, delete by natural key.
//!
//! Owns what F&O accepts and refuses; what a write means for the store is the session's business.

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{self, Key, Resource};

use super::{DEFAULT_COMPANY, entity, error, failed, find, nothing_at, resource, selection};
use crate::batch::{References, Site, resolve};
use crate::body::Members;
use crate::catalogue::{CHANGES, Column, Table};
use crate::cell::{self, Cell, Unfit};
use crate::definition::ColumnKind;
use crate::exchange::{self, json, no_content, with_header};
use crate::render::{self, Surroundings};
use crate::session::{Refusal, Session};
use crate::store::{self, Found};

/// Answers a request that changes something, and says which row it wrote: `Customers(dataAreaId='usmf',…)`.
pub(crate) fn write(
    site: &Site,
    session: &mut Session<'_>,
    references: &References,
    request: &Request,
) -> (Response, Option<String>) {
    let below = url::below(&site.root, &request.url).unwrap_or(&request.url);
    let target = resolve(references, below);
    let outcome =
        resource(site, &target).and_then(|resource| Write { site, session, request, resource: &resource }.answer());
    outcome.unwrap_or_else(|refusal| (refusal, None))
}

type Written = (Response, Option<String>);

struct Write<'a, 'c> {
    site: &'a Site,
    session: &'a mut Session<'c>,
    request: &'a Request,
    resource: &'a Resource,
}

impl Write<'_, '_> {
    fn answer(mut self) -> Result<Written, Response> {
        let [segment] = self.resource.segments.as_slice() else { return Err(nothing_at(self.site, &self.request.url)) };
        let table = self
            .session
            .catalogue
            .by_set(&segment.name)
            .cloned()
            .ok_or_else(|| nothing_at(self.site, &self.request.url))?;
        let is_keyed = segment.key != Key::None;
        match self.request.method.as_str() {
            _ if table.set() == CHANGES => Err(error(405, &format!("{CHANGES} can only be read."))),
            "POST" if !is_keyed => self.create(&table),
            "PATCH" | "MERGE" if is_keyed => self.update(&table, &segment.key, false),
            "PUT" if is_keyed => self.update(&table, &segment.key, true),
            "DELETE" if is_keyed => self.delete(&table, &segment.key),
            method => Err(error(405, &format!("The requested resource does not support http method '{method}'."))),
        }
    }

    fn create(&mut self, table: &Arc<Table>) -> Result<Written, Response> {
        let members = members(&self.request.body)?;
        let mut cells = table.empty_row();
        if let Some(at) = table.company {
            cells[at] = Cell::Owned(cell::quoted(DEFAULT_COMPANY));
        }
        apply(table, &members, &mut cells, false)?;
        self.check(table, &cells, None)?;
        let row = self.session.insert(table, cells).map_err(|refusal| refused(table, &refusal))?;
        self.written(table, &row, true)
    }

    /// PATCH changes what it names, PUT empties the rest.
    fn update(&mut self, table: &Arc<Table>, key: &Key, replaces: bool) -> Result<Written, Response> {
        let row = self.found(table, key)?;
        let members = members(&self.request.body)?;
        let before = table.owned_cells(&row.data);
        let mut cells = if replaces { table.empty_row() } else { before.clone() };
        for &at in &table.key {
            cells[at] = before[at].clone();
        }
        let touched = apply(table, &members, &mut cells, true)?;
        self.check(table, &cells, (!replaces).then_some(&touched))?;
        let row = self.session.update(table, &row, cells).map_err(|refusal| refused(table, &refusal))?;
        self.written(table, &row, false)
    }

    fn delete(&mut self, table: &Arc<Table>, key: &Key) -> Result<Written, Response> {
        let row = self.found(table, key)?;
        self.session.delete(table, &row).map_err(|refusal| refused(table, &refusal))?;
        Ok((no_content(204), None))
    }

    /// The row that a request names, in the version that it names.
    fn found(&self, table: &Table, key: &Key) -> Result<Found, Response> {
        let found = find(self.session.connection(), table, key, self.resource)?;
        let row = found.ok_or_else(|| nothing_at(self.site, &self.request.url))?;
        let etag = render::etag(table, row.stamp());
        if exchange::if_match(self.request).is_some_and(|header| !exchange::names_etag(header, &etag)) {
            let message = "The record was changed by another user since it was read (the etag does not match).";
            return Err(error(412, message));
        }
        if exchange::if_none_match(self.request).is_some_and(|header| exchange::names_etag(header, &etag)) {
            return Err(error(412, "The record exists already."));
        }
        Ok(row)
    }

    /// Refuses a row that lacks what it must have, or that names a record which is not there; of an existing row only
    /// what was written is looked at.
    fn check(&self, table: &Table, cells: &[Cell], touched: Option<&[usize]>) -> Result<(), Response> {
        for (at, column) in table.columns.iter().enumerate() {
            if !touched.is_none_or(|touched| touched.contains(&at)) {
                continue;
            }
            let is_text = matches!(column.definition.kind, ColumnKind::Text | ColumnKind::Memo | ColumnKind::Lookup);
            let is_empty = is_text && cells[at] == column.empty;
            if column.definition.required && is_empty {
                let message = format!(
                    "Write failed for table row of type '{}'. Infolog: Error: Field '{}' must be filled in.",
                    table.name(),
                    column.property
                );
                return Err(error(400, &message));
            }
            if !is_empty {
                self.check_relation(table, column, cells, at)?;
            }
        }
        Ok(())
    }

    /// A column that refers to the key of another table, if its definition says so.
    fn check_relation(&self, table: &Table, column: &Column, cells: &[Cell], at: usize) -> Result<(), Response> {
        for target in &column.definition.targets {
            let (Some(other), Some(name)) = (self.session.catalogue.by_name(&target.table), &target.column) else {
                continue;
            };
            let Some(place) = other.property(name) else { continue };
            let mut key = other.empty_row();
            key[place] = cells[at].clone();
            if let (Some(own), Some(company)) = (table.company, other.company) {
                key[company] = cells[own].clone();
            }
            let is_whole = other.key.iter().all(|part| *part == place || Some(*part) == other.company);
            let is_known = !is_whole
                || store::find(self.session.connection(), &other.row_key(&key))
                    .map_err(|error| failed(&error))?
                    .is_some();
            if !is_known {
                let message = format!(
                    "Write failed for table row of type '{}'. Infolog: Error: The value {} in field '{}' is not found in \
                     the related table '{}'.",
                    table.name(),
                    cells[at],
                    column.property,
                    other.definition.entity.as_deref().unwrap_or(other.name())
                );
                return Err(error(400, &message));
            }
        }
        Ok(())
    }

    fn written(&self, table: &Arc<Table>, row: &Found, created: bool) -> Result<Written, Response> {
        let mut cells = Vec::new();
        table.cells(&row.data, &mut cells);
        let path = format!("{}({})", table.set(), table.shown_key(&cells));
        let response = if exchange::wants_representation(self.request).unwrap_or(created) {
            let session = &*self.session;
            let around =
                Surroundings { connection: session.connection(), catalogue: &session.catalogue, clock: &session.clock };
            let selection = selection(table, self.resource)?;
            let body =
                entity(self.site, around, table, row, self.resource, &selection).map_err(|error| failed(&error))?;
            json(if created { 201 } else { 200 }, body)
        } else {
            no_content(204)
        };
        let response = if created {
            with_header(response, "Location", format!("{}{}/{path}", self.site.base, self.site.root))
        } else {
            response
        };
        Ok((with_header(response, "ETag", render::etag(table, row.stamp())), Some(path)))
    }
}

/// Puts the members of a body into the cells of a row; gives the columns that were named.
fn apply(table: &Table, members: &Members<'_>, cells: &mut [Cell], existing: bool) -> Result<Vec<usize>, Response> {
    let mut touched = Vec::with_capacity(members.0.len());
    for (name, value) in &members.0 {
        if name.contains('@') {
            continue;
        }
        let at = table.property(name).ok_or_else(|| {
            let message = format!(
                "The property '{name}' does not exist on type 'Microsoft.Dynamics.DataEntities.{}'. Make sure to only use \
                 property names that are defined by the type.",
                table.name()
            );
            error(400, &message)
        })?;
        if table.columns[at].definition.read_only {
            continue;
        }
        let cell = table.parse(at, value).map_err(|unfit| refused_value(table, at, unfit))?;
        if existing && table.key.contains(&at) {
            let is_same = cells[at] == cell || cells[at].to_lowercase() == cell.to_lowercase();
            if !is_same {
                return Err(error(400, &format!("The key field '{name}' of '{}' cannot be changed.", table.name())));
            }
            continue;
        }
        cells[at] = cell;
        touched.push(at);
    }
    Ok(touched)
}

fn members(body: &[u8]) -> Result<Members<'_>, Response> {
    Members::parse(body).map_err(|message| error(400, &format!("The request is not valid. {message}")))
}

fn refused_value(table: &Table, at: usize, unfit: Unfit) -> Response {
    let column = &table.columns[at];
    let (entity, name) = (table.name(), &column.property);
    let message = match unfit {
        Unfit::Type(expected) => {
            format!("The request is not valid. The value of '{name}' cannot be converted to the type '{expected}'.")
        }
        Unfit::TooLong(longest) => format!(
            "Write failed for table row of type '{entity}'. Infolog: Error: The value of field '{name}' is longer than \
             {longest} characters."
        ),
        Unfit::OutOfRange { minimum, maximum, .. } => format!(
            "Write failed for table row of type '{entity}'. Infolog: Error: The value of field '{name}' has to lie \
             between {minimum} and {maximum}."
        ),
        Unfit::Option(symbol) => format!(
            "The request is not valid. The value '{symbol}' of '{name}' is not a member of the enumeration '{}'.",
            column.definition.enumeration.as_deref().unwrap_or(name)
        ),
    };
    error(400, &message)
}

fn refused(table: &Table, refusal: &Refusal) -> Response {
    match refusal {
        Refusal::Duplicate(_) => {
            let entity = table.definition.entity.as_deref().unwrap_or(table.name());
            let message = format!("Cannot create a record in {entity} ({}). The record already exists.", table.name());
            error(409, &message)
        }
        Refusal::Referenced { table, column } => {
            error(400, &format!("The record cannot be deleted while records of {table} refer to it in {column}."))
        }
        Refusal::Observed(response) => response.as_ref().clone(),
        Refusal::Store(error) => failed(error),
    }
}
