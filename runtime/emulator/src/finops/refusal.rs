//! What F&O says when it refuses: the error body, the Infolog, and the texts of the OData library below it.
//!
//! Owns wording and statuses; knows neither rows nor what led there. The body is that of ASP.NET Web API
//! (`{"error":{"code":"","message":…,"innererror":{"message":…,"type":…,"stacktrace":…}}}`); what X++ says stands in
//! `innererror` alone, below "An error has occurred.".

use dualwright_odata::batch::Response;
use serde_json::json as value;

use crate::batch::Site;
use crate::catalogue::Table;
use crate::exchange::json;

const WRITE_EXCEPTION: &str = "Microsoft.Dynamics.Platform.Integration.Services.OData.AxODataWriteException";
const QUERY_EXCEPTION: &str = "Microsoft.OData.ODataException";
const GENERIC: &str = "An error has occurred.";

/// A refusal in plain words.
pub(crate) fn error(status: u16, message: &str) -> Response {
    error_with_code(status, "", message)
}

pub(crate) fn error_with_code(status: u16, code: &str, message: &str) -> Response {
    body(status, code, message, message, if status == 400 { QUERY_EXCEPTION } else { "" })
}

fn body(status: u16, code: &str, message: &str, inner: &str, exception: &str) -> Response {
    let body = value!({"error": {
        "code": code,
        "message": message,
        "innererror": {"message": inner, "type": exception, "stacktrace": ""},
    }});
    json(status, body.to_string().into_bytes())
}

/// The store failed, which is nobody's mistake.
pub(crate) fn failed(error: &rusqlite::Error) -> Response {
    tracing::error!(%error, "the store failed");
    body(500, "", GENERIC, "The request could not be completed.", "System.Data.SqlClient.SqlException")
}

/// There is nothing at this address: no such set, row or property.
pub(crate) fn nothing_at(site: &Site, target: &str) -> Response {
    let address = if target.contains("://") { target.to_owned() } else { format!("{}{target}", site.base) };
    let message = format!("No HTTP resource was found that matches the request URI '{address}'.");
    let inner = "No routing convention was found to select an action for the OData path.";
    body(404, "", &message, inner, "")
}

/// A query option that cannot be followed.
pub(crate) fn bad_query(message: &str) -> Response {
    body(400, "", &format!("The query specified in the URI is not valid. {message}"), message, QUERY_EXCEPTION)
}

/// A body that is not what the type says.
pub(crate) fn bad_body(message: &str) -> Response {
    body(400, "", "The request is invalid.", message, QUERY_EXCEPTION)
}

pub(crate) fn bad_method(method: &str) -> Response {
    error(405, &format!("The requested resource does not support http method '{method}'."))
}

pub(crate) fn unknown_property(table: &Table, name: &str) -> String {
    format!("Could not find a property named '{name}' on type '{}'.", type_name(table.name()))
}

pub(crate) fn type_name(name: &str) -> String {
    format!("{}.{name}", super::NAMESPACE)
}

/// The name of the data entity in the application, which is how X++ speaks of it.
pub(crate) fn entity_name(table: &Table) -> &str {
    table.definition.entity_name.as_deref().unwrap_or(table.name())
}

/// What people read instead of the entity's name.
pub(crate) fn entity_label(table: &Table) -> &str {
    table.definition.display_name.as_deref().or(table.definition.entity.as_deref()).unwrap_or(table.name())
}

/// What people read instead of the property's name.
pub(crate) fn field_label(table: &Table, column: usize) -> &str {
    let column = &table.columns[column];
    column.definition.display_name.as_deref().unwrap_or(&column.property)
}

/// What X++ reports while a row is written: everything it finds, and not only the first.
#[derive(Debug, Default)]
pub(crate) struct Infolog(Vec<String>);

impl Infolog {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn warn(&mut self, text: &str) {
        self.0.push(format!("Warning: {text}"));
    }

    pub fn error(&mut self, text: &str) {
        self.0.push(format!("Error: {text}"));
    }

    pub fn info(&mut self, text: &str) {
        self.0.push(format!("Info: {text}"));
    }

    /// A field was refused: what is wrong, and that its validation failed.
    pub fn refuse_field(&mut self, table: &Table, column: usize, text: &str) {
        self.warn(text);
        let name = format!("{}.{}", entity_name(table), table.columns[column].property);
        self.warn(&format!("validateField failed on field '{name}'"));
    }

    /// The answer to the write. Messages keep their own full stop, and another one ends the whole.
    pub fn refusal(&self, table: &Table) -> Response {
        let message =
            format!("Write failed for table row of type '{}'. Infolog: {}.", entity_name(table), self.0.join("; "));
        body(400, "", GENERIC, &message, WRITE_EXCEPTION)
    }

    /// The answer to a delete.
    pub fn delete_refusal(&self, table: &Table) -> Response {
        let message =
            format!("Delete failed for table row of type '{}'. Infolog: {}.", entity_name(table), self.0.join("; "));
        body(400, "", GENERIC, &message, WRITE_EXCEPTION)
    }
}

/// The row is not in the version that the request names.
pub(crate) fn conflict(table: &Table) -> Response {
    let message = format!(
        "Cannot edit a record in {} ({}).\nAn update conflict occurred due to another user process deleting the record or \
         changing one or more fields in the record.",
        entity_label(table),
        table.name()
    );
    body(412, "", GENERIC, &message, WRITE_EXCEPTION)
}

/// Too many requests, or too heavy ones.
pub(crate) fn throttled(message: &str, retry_after_seconds: u64) -> Response {
    let mut response = error(429, message);
    response.headers.push(("Retry-After".into(), retry_after_seconds.to_string()));
    response
}
