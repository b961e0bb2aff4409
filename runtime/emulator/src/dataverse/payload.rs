//! What a body holds, as cells of a row; and the words in which the Web API refuses it.
//!
//! Owns columns, types, lengths, ranges and nested rows of a body ("Create a table row", "Web service error codes" on
//! learn.microsoft.com). Knows no URL and no header.

use std::borrow::Cow;
use std::sync::Arc;

use dualwright_odata::batch::Response;

use super::write::{Write, id_of};
use super::{BAD_PAYLOAD, BAD_QUERY, DUPLICATE, DUPLICATE_KEY, Locator, error, failed};
use crate::body::Members;
use crate::catalogue::{Column, Crossing, Relation, Table};
use crate::cell::{self, NULL, Unfit};
use crate::definition::ColumnKind;
use crate::session::Refusal;

/// A value is missing that a row must have.
const MISSING: &str = "0x80040203";

/// What the cells are for.
#[derive(Clone, Copy)]
pub(super) enum Goal<'k> {
    Create,
    /// A row is created because no row has this key.
    CreateAt(&'k Locator),
    /// The row that was found, by this key.
    Update(Option<&'k Locator>),
}

/// What a body says beyond the cells.
#[derive(Default)]
pub(super) struct Put<'b> {
    /// The columns that it names.
    pub named: Vec<usize>,
    /// What has to wait until the row is there.
    pub later: Vec<Later<'b>>,
}

/// Rows that point to the new one.
pub(super) enum Later<'b> {
    Create { relation: Arc<Relation>, table: Arc<Table>, rows: Vec<Members<'b>> },
    Bind { relation: Arc<Relation>, links: Vec<String> },
    Join { crossing: Arc<Crossing>, links: Vec<String> },
}

impl Write<'_, '_> {
    /// Puts the members of a body into the cells of a row.
    pub(super) fn apply<'b>(
        &mut self,
        table: &Arc<Table>,
        members: &Members<'b>,
        cells: &mut [Cow<'b, str>],
        goal: Goal<'_>,
        depth: usize,
    ) -> Result<Put<'b>, Response> {
        let mut put = Put { named: Vec::with_capacity(members.0.len()), later: Vec::new() };
        let is_update = matches!(goal, Goal::Update(_));
        // Of a row that was found by an alternate key, the columns of that key are not looked at.
        let fixed: &[usize] = match goal {
            Goal::Update(Some(Locator::Alternate(number, _))) => &table.alternate_keys[*number].1,
            _ => &[],
        };
        for (name, value) in &members.0 {
            if let Some((navigation, annotation)) = name.split_once('@') {
                if annotation == "odata.bind" && !navigation.is_empty() {
                    self.apply_bind(table, navigation, value, cells, is_update, fixed, &mut put)?;
                }
                continue;
            }
            let Some(at) = table.property(name) else {
                self.apply_nested(table, name, value, cells, is_update, depth, &mut put)?;
                continue;
            };
            let column = &table.columns[at];
            if column.definition.kind == ColumnKind::Lookup {
                let message = "CRM do not support direct update of Entity Reference properties, \
                               Use Navigation properties instead.";
                return Err(error(400, BAD_QUERY, message));
            }
            // What only the system writes is passed over, as the platform does; so is what only a create may give.
            let is_closed = column.definition.read_only || (is_update && column.definition.create_only);
            if is_closed || table.server.is_stamp(at) || fixed.contains(&at) {
                continue;
            }
            let cell = table.borrow(at, value).map_err(|unfit| refused_value(table, column, unfit, value))?;
            if Some(at) == table.primary_id {
                let id = match goal {
                    Goal::Update(_) => Some(&*cells[at]).and_then(|cell| table.id_of(&cell)),
                    Goal::CreateAt(Locator::Id(id)) => Some(*id),
                    Goal::Create | Goal::CreateAt(Locator::Alternate(..)) => None,
                };
                if let Some(id) = id {
                    if table.id_of(&cell) != Some(id) {
                        return Err(refuse(table, "The id of a row cannot be changed."));
                    }
                    continue;
                }
            }
            cells[at] = cell;
            put.named.push(at);
        }
        Ok(put)
    }

    #[expect(clippy::too_many_arguments, reason = "one member of a body, with all that it may touch")]
    fn apply_bind<'b>(
        &mut self,
        table: &Arc<Table>,
        navigation: &str,
        value: &str,
        cells: &mut [Cow<'b, str>],
        is_update: bool,
        fixed: &[usize],
        put: &mut Put<'b>,
    ) -> Result<(), Response> {
        if let Some((at, _)) = table.navigation(navigation) {
            if fixed.contains(&at) {
                return Ok(());
            }
            cells[at] = match value {
                NULL => Cow::Borrowed(NULL),
                link => {
                    let link = cell::text_of(link).ok_or_else(|| refuse(table, "A link was expected."))?;
                    cell::guid_cell(self.linked(table, navigation, &link)?)
                }
            };
            put.named.push(at);
            return Ok(());
        }
        let crossing = self.session.catalogue.crossing(table.name(), navigation);
        if let Some(crossing) = crossing.map(|(crossing, _)| Arc::clone(crossing)) {
            if is_update {
                return Err(refuse_deep(table, navigation));
            }
            let links = serde_json::from_str(value).map_err(|_| refuse(table, "A list of links was expected."))?;
            put.later.push(Later::Join { crossing, links });
            return Ok(());
        }
        let relation =
            self.session.catalogue.collection(table.name(), navigation).map(|(relation, _)| relation.clone());
        let Some(relation) = relation else {
            let message = format!(
                "An undeclared property '{navigation}' which only has property annotations in the payload but no \
                 property value was found in the payload. In OData, only declared navigation properties and declared \
                 named streams can be represented as properties without values."
            );
            return Err(refuse(table, &message));
        };
        if is_update {
            return Err(refuse_deep(table, navigation));
        }
        let links = serde_json::from_str(value).map_err(|_| refuse(table, "A list of links was expected."))?;
        put.later.push(Later::Bind { relation, links });
        Ok(())
    }

    /// A member that is no column: a row behind a lookup, rows that point here, or a mistake.
    #[expect(clippy::too_many_arguments, reason = "one member of a body, with all that it may touch")]
    fn apply_nested<'b>(
        &mut self,
        table: &Arc<Table>,
        name: &str,
        value: &'b str,
        cells: &mut [Cow<'b, str>],
        is_update: bool,
        depth: usize,
        put: &mut Put<'b>,
    ) -> Result<(), Response> {
        if let Some((at, target)) = table.navigation(name) {
            if value == NULL {
                cells[at] = Cow::Borrowed(NULL);
                put.named.push(at);
                return Ok(());
            }
            if is_update {
                return Err(refuse_deep(table, name));
            }
            let target = self.session.catalogue.by_name(target).cloned();
            let target = target.ok_or_else(|| unknown_property(table, name))?;
            let nested = members(&target, value.as_bytes())?;
            let row = self.create_row(&target, &nested, Goal::Create, None, depth + 1)?;
            cells[at] = id_of(&target, &row).map_or(Cow::Borrowed(NULL), cell::guid_cell);
            put.named.push(at);
            return Ok(());
        }
        let found = self.session.catalogue.collection(table.name(), name);
        let Some((relation, target)) = found.map(|(relation, target)| (relation.clone(), target.clone())) else {
            return Err(unknown_property(table, name));
        };
        if is_update {
            return Err(refuse_deep(table, name));
        }
        let rows = serde_json::from_str(value).map_err(|error| refuse(&target, &error.to_string()))?;
        put.later.push(Later::Create { relation, table: target, rows });
        Ok(())
    }
}

pub(super) fn members<'b>(table: &Table, body: &'b [u8]) -> Result<Members<'b>, Response> {
    Members::parse(body).map_err(|message| refuse(table, &message))
}

/// A body that cannot be read, in the words of the Web API.
pub(super) fn refuse(table: &Table, message: &str) -> Response {
    let message = format!(
        "Error identified in Payload provided by the user for Entity :'{}', For more information on this error please \
         follow this help link https://go.microsoft.com/fwlink/?linkid=2195293  ---->  InnerException : \
         Microsoft.OData.ODataException: {message}",
        table.set()
    );
    error(400, BAD_PAYLOAD, &message)
}

fn refuse_deep(table: &Table, navigation: &str) -> Response {
    let message = format!(
        "Deep update of the navigation property '{navigation}' is not supported. Update the related row by itself."
    );
    refuse(table, &message)
}

pub(super) fn unknown_property(table: &Table, name: &str) -> Response {
    let message = format!(
        "The property '{name}' does not exist on type 'Microsoft.Dynamics.CRM.{}'. Make sure to only use property names \
         that are defined by the type.",
        table.name()
    );
    refuse(table, &message)
}

/// Refuses a row that lacks what it must have; of an existing row only what was written is looked at.
pub(super) fn require(table: &Table, cells: &[Cow<'_, str>], named: Option<&[usize]>) -> Result<(), Response> {
    let lacks = |at: usize| {
        let is_own = || Some(at) == table.primary_id || table.server.is_stamp(at) || table.server.owner == Some(at);
        table.columns[at].definition.required && cells[at] == NULL && !is_own()
    };
    let missing = match named {
        None => (0..cells.len()).find(|&at| lacks(at)),
        Some(named) => named.iter().copied().find(|&at| lacks(at)),
    };
    match missing {
        None => Ok(()),
        Some(at) => {
            let name = &table.columns[at].definition.name;
            Err(error(400, MISSING, &format!("Required field '{name}' of entity '{}' is missing.", table.name())))
        }
    }
}

fn refused_value(table: &Table, column: &Column, unfit: Unfit, given: &str) -> Response {
    let (name, entity) = (&column.definition.name, table.name());
    match unfit {
        Unfit::Type(expected) => {
            /// Of what was given, that much is repeated.
            const SHOWN_CHARS_MAX: usize = 100;
            let given = cell::text_of(given).unwrap_or(Cow::Borrowed(given));
            let given = given.chars().take(SHOWN_CHARS_MAX).collect::<String>();
            refuse(table, &format!("Cannot convert the literal '{given}' to the expected type '{expected}'. ({name})"))
        }
        Unfit::TooLong(longest) => {
            let message = format!(
                "A validation error occurred.  The length of the '{name}' attribute of the '{entity}' entity exceeded \
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

pub(super) fn refused(table: &Table, refusal: Refusal) -> Response {
    match refusal {
        Refusal::Duplicate(None) => error(412, DUPLICATE, "Cannot insert duplicate key."),
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
        // The status of what is not allowed, because "Compose HTTP requests and handle errors" lists it there.
        Refusal::Referenced { table, column } => {
            let message = format!(
                "The object you tried to delete is associated with another object and cannot be deleted. \
                 ({table}.{column} refers to it.)"
            );
            error(405, "0x80040227", &message)
        }
        Refusal::Status { status, state, id } => {
            let message = format!(
                "{status} is not a valid status code for state code {}State.{state} on {} with Id {id}.",
                table.definition.schema_name.as_deref().unwrap_or(table.name()),
                table.name()
            );
            error(400, "0x80048408", &message)
        }
        Refusal::Observed(response) => *response,
        Refusal::Store(error) => failed(&error),
    }
}
