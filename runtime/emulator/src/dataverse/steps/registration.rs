//! What can be registered: endpoints, steps, images; and jobs that are set back to be run again.
//!
//! Owns the refusals. Their words are those of the platform where they are known; the code of all is that of an invalid
//! argument. Sources: <https://learn.microsoft.com/power-apps/developer/data-platform/register-plug-in>, and
//! `register-web-hook` beside it.

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use uuid::Uuid;

use super::super::rows::{Cells, place};
use super::super::{error, failed};
use super::endpoint::{HTTP_HEADER, HTTP_QUERY_STRING, WEBHOOK, WEBHOOK_KEY, pairs};
use super::{ENDPOINT, FILTER, IMAGE, JOB, MESSAGE, Registry, STEP, Stage, jobs, names, operation_of};
use crate::cell;
use crate::observe::{Observer, Operation, RowWrite};
use crate::session::Session;
use crate::store;

const INVALID_ARGUMENT: &str = "0x80040203";

/// Looks at writes to the tables of the event framework.
#[derive(Debug)]
pub(crate) struct Registration {
    pub registry: Arc<Registry>,
}

impl Registration {
    /// Whether a request may be about one of those tables. What `$1` stands for is not known yet.
    pub fn concerns(request: &Request) -> bool {
        ["serviceendpoint", "sdkmessageprocessingstep", "asyncoperation", "/$"]
            .iter()
            .any(|part| request.url.contains(part))
    }
}

fn refuse(message: &str) -> Result<(), Response> {
    Err(error(400, INVALID_ARGUMENT, message))
}

impl Observer for Registration {
    fn before(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
        let Some(after) = write.after else { return Ok(()) };
        let row = Cells { table: write.table, cells: after.into() };
        match write.table.name() {
            ENDPOINT => endpoint(&row),
            STEP => step(session, &row),
            IMAGE => image(session, &row),
            _ => Ok(()),
        }
    }

    fn after(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
        let Some(after) = write.after else { return Ok(()) };
        let row = Cells { table: write.table, cells: after.into() };
        match write.table.name() {
            JOB if write.operation == Operation::Update => {
                let before = write.before.map(|cells| Cells { table: write.table, cells: cells.into() });
                let was_done = before.is_some_and(|before| before.number("statecode") == 3);
                let step = row.id("owningextensionid").and_then(|id| self.registry.find(id));
                match step.filter(|_| was_done && row.number("statecode") == 0) {
                    Some(step) => jobs::requeue(session, &row, step).map_err(|error| failed(&error)),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn endpoint(row: &Cells<'_>) -> Result<(), Response> {
    if row.number("contract") != WEBHOOK {
        return refuse("Only endpoints whose contract is 8 (Webhook) can be registered here.");
    }
    let url = row.text("url");
    let is_absolute = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    if !(is_absolute("http://") || is_absolute("https://")) || host.is_empty() {
        return refuse("The url of a webhook has to be an absolute address with http or https.");
    }
    let secret = row.text("authvalue");
    match row.number("authtype") {
        WEBHOOK_KEY if !secret.is_empty() => Ok(()),
        HTTP_HEADER => {
            let pairs = pairs(&secret);
            let fits = pairs.iter().all(|(name, value)| {
                axum::http::HeaderName::try_from(name.as_str()).is_ok()
                    && axum::http::HeaderValue::try_from(value.as_str()).is_ok()
            });
            if pairs.is_empty() || !fits {
                return refuse(
                    "The http headers in authValue are invalid. Check if the authValue format, header names and values \
                     are valid for your Service Endpoint entity.",
                );
            }
            Ok(())
        }
        HTTP_QUERY_STRING if !pairs(&secret).is_empty() => Ok(()),
        WEBHOOK_KEY | HTTP_QUERY_STRING => refuse(
            "The http query params in authValue are invalid. Check if the authValue format, query parameter names and \
             values are valid for your Service Endpoint entity.",
        ),
        _ => refuse("The authtype of a webhook is 4 (WebhookKey), 5 (HttpHeader) or 6 (HttpQueryString)."),
    }
}

/// What a lookup of the row points to, as text of one of its columns.
fn behind(
    session: &Session<'_>,
    row: &Cells<'_>,
    lookup: &str,
    table: &str,
    column: &str,
) -> Result<Option<String>, Response> {
    let (Some(id), Some(target)) = (row.id(lookup), session.catalogue.by_name(table)) else { return Ok(None) };
    let found = store::find(session.connection(), &target.id_key(id)).map_err(|error| failed(&error))?;
    Ok(found.map(|found| Cells::of(target, &found.data).text(column)))
}

fn step(session: &Session<'_>, row: &Cells<'_>) -> Result<(), Response> {
    let is_async = row.number("mode") == 1;
    let Some(stage) = Stage::of(row.number("stage")) else {
        return refuse("Invalid plug-in registration stage: steps can be registered for the stages 10, 20 and 40.");
    };
    if is_async && stage != Stage::PostOperation {
        return refuse(
            "Asynchronous steps are only supported in AfterMainOperationInsideTransaction stages and \
             AfterMainOperationOutsideTransaction stage",
        );
    }
    if row.is("asyncautodelete") && !is_async {
        return refuse("Async auto delete can only be set for asynchronous steps.");
    }
    let message = behind(session, row, "sdkmessageid", MESSAGE, "name")?.unwrap_or_default();
    if operation_of(&message).is_none() {
        return refuse(&format!(
            "Custom SdkMessageProcessingStep is not allowed on the specified message: {message}. Register for Create, \
             Update, Delete, CreateMultiple or UpdateMultiple; an upsert raises those of what it does."
        ));
    }
    let Some(table) = behind(session, row, "sdkmessagefilterid", FILTER, "primaryobjecttypecode")? else {
        return Ok(());
    };
    if filter_message(session, row)? != row.id("sdkmessageid") {
        return refuse("The specified SdkMessageFilter does not belong to the specified SdkMessage.");
    }
    unknown_columns(session, &table, &row.text("filteringattributes"))
}

fn filter_message(session: &Session<'_>, row: &Cells<'_>) -> Result<Option<Uuid>, Response> {
    let (Some(id), Some(filters)) = (row.id("sdkmessagefilterid"), session.catalogue.by_name(FILTER)) else {
        return Ok(None);
    };
    let found = store::find(session.connection(), &filters.id_key(id)).map_err(|error| failed(&error))?;
    Ok(found.and_then(|found| Cells::of(filters, &found.data).id("sdkmessageid")))
}

fn unknown_columns(session: &Session<'_>, table: &str, list: &str) -> Result<(), Response> {
    let Some(table) = session.catalogue.by_name(table) else { return Ok(()) };
    match names(list).into_iter().find(|name| place(table, name).is_none()) {
        Some(name) => refuse(&format!("Entity '{}' does not contain attribute with Name = '{name}'.", table.name())),
        None => Ok(()),
    }
}

fn image(session: &Session<'_>, row: &Cells<'_>) -> Result<(), Response> {
    let Some(steps) = session.catalogue.by_name(STEP) else { return Ok(()) };
    let Some(id) = row.id("sdkmessageprocessingstepid") else { return Ok(()) };
    let found = store::find(session.connection(), &steps.id_key(id)).map_err(|error| failed(&error))?;
    let Some(found) = found else { return Ok(()) };
    let step = Cells::of(steps, &found.data);
    let kind = row.number("imagetype");
    let (is_pre, is_post) = (matches!(kind, 0 | 2), matches!(kind, 1 | 2));
    let message = behind(session, &step, "sdkmessageid", MESSAGE, "name")?.unwrap_or_default();
    let (does_not_fit, property) = match message.as_str() {
        "Create" => (is_pre, "Id"),
        "CreateMultiple" => (is_pre, "Ids"),
        "Delete" => (is_post, "Target"),
        "UpdateMultiple" => (false, "Targets"),
        _ => (false, "Target"),
    };
    if does_not_fit || (is_post && Stage::of(step.number("stage")) != Some(Stage::PostOperation)) {
        return refuse(&format!("Message {message} does not support this image type in this stage."));
    }
    if row.cell("messagepropertyname") != cell::NULL && row.text("messagepropertyname") != property {
        return refuse(&format!(
            "Message property name {} is not supported on message {message}.",
            row.text("messagepropertyname")
        ));
    }
    match behind(session, &step, "sdkmessagefilterid", FILTER, "primaryobjecttypecode")? {
        Some(table) => unknown_columns(session, &table, &row.text("attributes")),
        None => Ok(()),
    }
}
