//! The bulk messages: `CreateMultiple`, `UpdateMultiple`, `UpsertMultiple`.
//!
//! Owns their bodies and answers ("Use bulk operation messages" on learn.microsoft.com). On standard tables, which all
//! tables here are, any error undoes all of it; how many rows there are is limited by the size of the message only.

use std::sync::Arc;

use dualwright_odata::batch::Response;
use dualwright_odata::url;
use uuid::Uuid;

use super::payload::{self, Goal};
use super::write::{Write, id_of};
use super::{Locator, context, error, no_such_set};
use crate::body::{self, Members};
use crate::catalogue::Table;
use crate::cell;
use crate::exchange::{json, no_content};

const NAMESPACE: &str = "Microsoft.Dynamics.CRM.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Create,
    Update,
    Upsert,
}

#[derive(serde::Deserialize)]
struct Body<'a> {
    #[serde(rename = "Targets", borrow)]
    targets: Vec<Members<'a>>,
}

impl Write<'_, '_> {
    pub(super) fn bulk(&mut self, table: &Arc<Table>, action: &str) -> Result<Response, Response> {
        let message = match action.strip_prefix(NAMESPACE).unwrap_or(action) {
            "CreateMultiple" => Message::Create,
            "UpdateMultiple" => Message::Update,
            "UpsertMultiple" => Message::Upsert,
            // Documented for standard tables; elastic ones have it.
            "DeleteMultiple" => return Err(error(501, "0x80040224", "DeleteMultiple has not yet been implemented.")),
            _ => return Err(no_such_set(action)),
        };
        let request = self.request;
        let body: Body<'_> = body::read(&request.body).map_err(|error| payload::refuse(table, &error.to_string()))?;
        let mut ids = Vec::with_capacity(if message == Message::Create { body.targets.len() } else { 0 });
        for members in &body.targets {
            self.check_type(table, members)?;
            let locator = if message == Message::Create { None } else { self.locate(table, members)? };
            let found = match &locator {
                None if message == Message::Update => {
                    return Err(payload::refuse(table, "A row without its key cannot be updated."));
                }
                None => None,
                Some(locator) => match self.found(table, locator)? {
                    None if message == Message::Update => return Err(locator.not_found(table)),
                    found => found,
                },
            };
            match (found, &locator) {
                (Some(row), locator) => drop(self.update(table, &row, members, locator.as_ref())?),
                (None, Some(locator)) => {
                    refuse_key_twice(table, locator, members)?;
                    self.create_row(table, members, Goal::CreateAt(locator), None, 0)?;
                }
                (None, None) => {
                    let row = self.create_row(table, members, Goal::Create, None, 0)?;
                    ids.extend(id_of(table, &row).filter(|_| message == Message::Create));
                }
            }
        }
        if message != Message::Create {
            return Ok(no_content(204));
        }
        let mut body = context(self.site, "Microsoft.Dynamics.CRM.CreateMultipleResponse");
        let ids = serde_json::to_string(&ids).unwrap_or_default();
        body.extend_from_slice(format!(",\"Ids\":{ids}}}").as_bytes());
        Ok(json(200, body))
    }

    /// Every target has to say its type, and it has to be the table's.
    fn check_type(&self, table: &Table, members: &Members<'_>) -> Result<(), Response> {
        let named = members.get("@odata.type").and_then(cell::text_of);
        let bare = named.as_deref().and_then(|named| named.trim_start_matches('#').strip_prefix(NAMESPACE));
        if bare == Some(table.name()) {
            return Ok(());
        }
        let message = match named {
            None => format!("The @odata.type of a target is missing; {NAMESPACE}{} was expected.", table.name()),
            Some(_) => format!("A target of type {NAMESPACE}{} was expected.", table.name()),
        };
        Err(payload::refuse(table, &message))
    }

    /// Which row a target names: by `@odata.id`, or by its id column.
    fn locate(&self, table: &Table, members: &Members<'_>) -> Result<Option<Locator>, Response> {
        if let Some(link) = members.get("@odata.id").and_then(cell::text_of) {
            let below = url::below(&self.site.root, &link).unwrap_or_else(|| link.trim_start_matches('/'));
            let resource = url::parse(below).map_err(|refusal| payload::refuse(table, &refusal.to_string()))?;
            return match resource.segments.as_slice() {
                [segment] if segment.name == table.set() => Locator::new(table, &segment.key).map(Some),
                _ => Err(payload::refuse(table, "The @odata.id names no row of this set.")),
            };
        }
        let id = table.primary_id.and_then(|at| members.get(&table.columns[at].property)).and_then(cell::text_of);
        match id {
            None => Ok(None),
            Some(id) => match Uuid::parse_str(&id) {
                Ok(id) => Ok(Some(Locator::Id(id))),
                Err(_) => Err(payload::refuse(table, "The id of a row is not a GUID.")),
            },
        }
    }
}

/// The key of a row that `UpsertMultiple` creates comes from its `@odata.id`; given once more in the body it is refused,
/// as the platform does, although a single upsert takes it.
fn refuse_key_twice(table: &Table, locator: &Locator, members: &Members<'_>) -> Result<(), Response> {
    let Locator::Alternate(number, _) = locator else { return Ok(()) };
    let columns = &table.alternate_keys[*number].1;
    let is_twice = members.0.iter().any(|(name, _)| match name.strip_suffix("@odata.bind") {
        Some(name) => table.navigation(name).is_some_and(|(at, _)| columns.contains(&at)),
        None => columns.iter().any(|at| table.columns[*at].property == *name),
    });
    if is_twice {
        return Err(error(400, "0x80040203", "An item with the same key has already been added."));
    }
    Ok(())
}
