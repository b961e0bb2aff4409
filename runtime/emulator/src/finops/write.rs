//! Writing rows: create, update, delete by natural key.
//!
//! Owns what F&O accepts and how it answers, in the order in which the platform calls the methods of an entity. What is
//! checked is `validate`'s, and what a write means for the store is the session's business.

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{self, Key, Resource};

use super::key;
use super::read::{entity, resource, selection, shown_path};
use super::refusal::{self, Infolog, entity_label, failed, field_label, nothing_at};
use super::{State, package, validate};
use crate::batch::{References, Site, resolve};
use crate::body::Members;
use crate::catalogue::{CHANGES, Table};
use crate::cell::{self, Cell, Unfit};
use crate::definition::{ColumnKind, DeleteBehavior};
use crate::exchange::{self, json, no_content, with_header};
use crate::render::{self, Surroundings};
use crate::session::{Refusal, Session};
use crate::store::{self, Found};

/// Answers a request that changes something, and says which row it wrote: `Customers(dataAreaId='usmf',…)`.
pub(crate) fn write(
    state: &State,
    site: &Site,
    session: &mut Session<'_>,
    references: &References,
    request: &Request,
) -> (Response, Option<String>) {
    let below = url::below(&site.root, &request.url).unwrap_or(&request.url);
    let target = resolve(references, below);
    let outcome = resource(site, &target)
        .and_then(|resource| Write { state, site, session, request, resource: &resource }.answer());
    outcome.unwrap_or_else(|refusal| (refusal, None))
}

type Written = (Response, Option<String>);

struct Write<'a, 'c> {
    state: &'a State,
    site: &'a Site,
    session: &'a mut Session<'c>,
    request: &'a Request,
    resource: &'a Resource,
}

impl Write<'_, '_> {
    fn answer(mut self) -> Result<Written, Response> {
        if let Some(action) = package::action_of(self.resource) {
            return package::act(self.site, self.session, self.request, action).map(|response| (response, None));
        }
        let nothing = || nothing_at(self.site, &self.request.url);
        let Some((segment, rest)) = self.resource.segments.split_first() else {
            return Err(refusal::bad_method(&self.request.method));
        };
        let table = self.session.catalogue.by_set(&segment.name).cloned().ok_or_else(nothing)?;
        if let [below] = rest
            && table.property(&below.name).is_some()
        {
            // One property cannot be written by itself.
            return Err(refusal::bad_method(&self.request.method));
        }
        if !rest.is_empty() {
            return Err(nothing());
        }
        let is_keyed = segment.key != Key::None;
        match self.request.method.as_str() {
            "POST" | "PATCH" | "PUT" | "DELETE" | "MERGE" if is_read_only(&table) => {
                Err(refusal::error(405, &format!("{} can only be read.", table.set())))
            }
            "POST" if !is_keyed => self.create(&table),
            "PATCH" | "MERGE" if is_keyed => self.update(&table, &segment.key, false),
            "PUT" if is_keyed => self.update(&table, &segment.key, true),
            "DELETE" if is_keyed => self.delete(&table, &segment.key),
            method => Err(refusal::bad_method(method)),
        }
    }

    /// `initValue`, the given fields, `validateField`, `defaultRow`, `validateWrite`, `write`.
    fn create(&mut self, table: &Arc<Table>) -> Result<Written, Response> {
        let members = members(&self.request.body)?;
        let mut cells = table.empty_row();
        if let Some(at) = table.company {
            cells[at] = Cell::Owned(cell::quoted(&self.site.company));
        }
        let mut infolog = Infolog::default();
        let given = apply(table, &members, &mut cells, Operation::Create, &mut infolog)?;
        validate::fields(self.session, table, &cells, &given, &mut infolog)?;
        self.pass(table, &infolog)?;
        self.state.sequences.fill(self.session, table, &mut cells).map_err(|error| failed(&error))?;
        validate::row(table, &cells, None, &mut infolog);
        self.pass(table, &infolog)?;
        let shown = cells.clone();
        let row = self.session.insert(table, cells).map_err(|refusal| refused(table, &shown, &refusal))?;
        self.written(table, &row, true)
    }

    /// PATCH changes what it names, PUT empties the rest.
    fn update(&mut self, table: &Arc<Table>, key: &Key, replaces: bool) -> Result<Written, Response> {
        let row = self.found(table, key)?;
        let members = members(&self.request.body)?;
        let before = table.owned_cells(&row.data);
        let mut cells = if replaces { table.empty_row() } else { before.clone() };
        for (at, column) in table.columns.iter().enumerate() {
            if table.key.contains(&at) || column.definition.read_only {
                cells[at] = before[at].clone();
            }
        }
        let mut infolog = Infolog::default();
        let given = apply(table, &members, &mut cells, Operation::Update, &mut infolog)?;
        validate::fields(self.session, table, &cells, &given, &mut infolog)?;
        self.pass(table, &infolog)?;
        validate::row(table, &cells, (!replaces).then_some(&given), &mut infolog);
        self.pass(table, &infolog)?;
        let row = self.session.update(table, &row, cells).map_err(|refusal| refused(table, &before, &refusal))?;
        self.written(table, &row, false)
    }

    fn delete(&mut self, table: &Arc<Table>, key: &Key) -> Result<Written, Response> {
        let row = self.found(table, key)?;
        delete_row(self.session, table, &row, 0)?;
        Ok((no_content(204), None))
    }

    fn pass(&self, table: &Table, infolog: &Infolog) -> Result<(), Response> {
        if infolog.is_empty() { Ok(()) } else { Err(infolog.refusal(table)) }
    }

    /// The row that a request names, in the version that it names.
    fn found(&self, table: &Table, key: &Key) -> Result<Found, Response> {
        let found = key::find(self.site, self.session.connection(), table, key, self.resource)?;
        let row = found.ok_or_else(|| nothing_at(self.site, &self.request.url))?;
        let etag = render::etag(table, row.stamp());
        if exchange::if_match(self.request).is_some_and(|header| !exchange::names_etag(header, &etag)) {
            return Err(refusal::conflict(table));
        }
        if exchange::if_none_match(self.request).is_some_and(|header| exchange::names_etag(header, &etag)) {
            return Err(refusal::conflict(table));
        }
        Ok(row)
    }

    fn written(&self, table: &Arc<Table>, row: &Found, created: bool) -> Result<Written, Response> {
        let mut cells = Vec::new();
        table.cells(&row.data, &mut cells);
        let path = shown_path(table, &cells);
        let address = format!("{}{}/{path}", self.site.base, self.site.root);
        let wanted = exchange::wants_representation(self.request);
        let mut response = if wanted.unwrap_or(created) {
            let around = Surroundings {
                connection: self.session.connection(),
                catalogue: &self.session.catalogue,
                clock: &self.session.clock,
            };
            let selection = selection(around, table, self.resource)?;
            let body =
                entity(self.site, around, table, row, self.resource, &selection).map_err(|error| failed(&error))?;
            json(if created { 201 } else { 200 }, body)
        } else {
            with_header(no_content(204), "OData-EntityId", address.clone())
        };
        if created {
            response = with_header(response, "Location", address);
        }
        if let Some(wanted) = wanted {
            let applied = if wanted { "return=representation" } else { "return=minimal" };
            response = with_header(response, "Preference-Applied", applied);
        }
        Ok((with_header(response, "ETag", render::etag(table, row.stamp())), Some(path)))
    }
}

pub(super) fn is_read_only(table: &Table) -> bool {
    table.definition.read_only || table.set() == CHANGES
}

/// Removes a row, and the rows that go with it.
fn delete_row(session: &mut Session<'_>, table: &Arc<Table>, row: &Found, depth: usize) -> Result<(), Response> {
    // Longer chains of rows that go with each other are circles.
    const DEPTH_MAX: usize = 16;
    let mut infolog = Infolog::default();
    let mut cells = Vec::new();
    table.cells(&row.data, &mut cells);
    validate::delete(session, table, &cells, &mut infolog)?;
    if !infolog.is_empty() {
        return Err(infolog.delete_refusal(table));
    }
    let mut going = Vec::new();
    for (other, number) in &session.catalogue.relations_of(table).from {
        let relation = &session.catalogue.relations_of(other).to[*number];
        if relation.on_delete == DeleteBehavior::Cascade && depth < DEPTH_MAX {
            let mark = relation.mark_of_target(other, &cells);
            let links = store::links_to(session.connection(), mark, usize::MAX).map_err(|error| failed(&error))?;
            going.extend(links.into_iter().map(|(place, _)| (Arc::clone(other), place)));
        }
    }
    for (other, place) in going {
        let found = store::find_by_place(session.connection(), place).map_err(|error| failed(&error))?;
        if let Some(found) = found.filter(|found| found.id != row.id) {
            delete_row(session, &other, &found, depth + 1)?;
        }
    }
    session.delete(table, row).map_err(|refusal| refused(table, &cells, &refusal))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    Update,
}

/// Puts the members of a body into the cells of a row; gives the columns that were named. What does not fit its type is
/// a request that cannot be read; what the field does not take is reported.
fn apply(
    table: &Table,
    members: &Members<'_>,
    cells: &mut [Cell],
    operation: Operation,
    infolog: &mut Infolog,
) -> Result<Vec<usize>, Response> {
    let mut given = Vec::with_capacity(members.0.len());
    for (name, value) in &members.0 {
        if name.contains('@') {
            continue;
        }
        let at = table.property(name).ok_or_else(|| {
            refusal::bad_body(&format!(
                "The property '{name}' does not exist on type '{}'. Make sure to only use property names that are defined \
                 by the type.",
                refusal::type_name(table.name())
            ))
        })?;
        let column = &table.columns[at];
        if column.definition.read_only {
            continue;
        }
        let cell = match table.parse(at, value) {
            Ok(cell) => cell,
            Err(unfit) => {
                report(table, at, value, unfit, infolog)?;
                continue;
            }
        };
        if operation == Operation::Update && table.key.contains(&at) {
            if !is_same_key(&cells[at], &cell) {
                infolog.refuse_field(table, at, &format!("Field '{}' cannot be edited.", field_label(table, at)));
            }
            continue;
        }
        cells[at] = cell;
        given.push(at);
    }
    Ok(given)
}

/// Whether two cells name the same row.
fn is_same_key(a: &str, b: &str) -> bool {
    let pushed = |cell: &str| {
        let mut key = Vec::new();
        cell::push_key(&mut key, cell);
        key
    };
    pushed(a) == pushed(b)
}

fn members(body: &[u8]) -> Result<Members<'_>, Response> {
    Members::parse(body).map_err(|message| refusal::bad_body(&message))
}

fn report(table: &Table, at: usize, json: &str, unfit: Unfit, infolog: &mut Infolog) -> Result<(), Response> {
    let column = &table.columns[at];
    let label = field_label(table, at);
    let is_enum = matches!(column.definition.kind, ColumnKind::Enum | ColumnKind::Choice);
    let enumeration =
        || refusal::type_name(column.definition.enumeration.as_deref().unwrap_or(&column.definition.name));
    match unfit {
        Unfit::Option(symbol) => Err(refusal::bad_body(&format!(
            "{} : The value '{symbol}' is not a member of the enumeration '{}'.",
            column.property,
            enumeration()
        ))),
        Unfit::Type(expected) => {
            // What cannot be read may be long.
            let literal = json.chars().take(100).collect::<String>();
            let expected = if is_enum { enumeration() } else { expected.to_owned() };
            Err(refusal::bad_body(&format!(
                "{} : Cannot convert the literal '{literal}' to the expected type '{expected}'.",
                column.property
            )))
        }
        Unfit::TooLong(longest) => {
            infolog.refuse_field(
                table,
                at,
                &format!("The value of field '{label}' is longer than {longest} characters."),
            );
            Ok(())
        }
        Unfit::OutOfRange { minimum, maximum, .. } => {
            let text = format!("The value of field '{label}' has to lie between {minimum} and {maximum}.");
            infolog.refuse_field(table, at, &text);
            Ok(())
        }
    }
}

fn refused<C: AsRef<str>>(table: &Table, cells: &[C], refusal: &Refusal) -> Response {
    match refusal {
        Refusal::Duplicate(_) => {
            let own = table.key.iter().filter(|at| Some(**at) != table.company);
            let key = own
                .map(|&at| {
                    let value = cell::text_of(cells[at].as_ref()).unwrap_or_else(|| cells[at].as_ref().into());
                    format!("{}: {value}", field_label(table, at))
                })
                .collect::<Vec<_>>()
                .join(", ");
            let mut infolog = Infolog::default();
            infolog.info(&format!(
                "Cannot create a record in {} ({}). {key}.\nThe record already exists.",
                entity_label(table),
                table.name()
            ));
            infolog.refusal(table)
        }
        Refusal::Referenced { table: other, column } => {
            let mut infolog = Infolog::default();
            infolog.error(&format!("The record cannot be deleted while records of {other} refer to it in {column}."));
            infolog.delete_refusal(table)
        }
        Refusal::Status { status, .. } => {
            let mut infolog = Infolog::default();
            infolog.error(&format!("{status} is no status that the record can have."));
            infolog.refusal(table)
        }
        Refusal::Observed(response) => response.as_ref().clone(),
        Refusal::Store(error) => failed(error),
    }
}
