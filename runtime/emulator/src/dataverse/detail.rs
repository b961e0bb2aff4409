//! What a refusal says to who asks for annotations: more than its code and its message.
//!
//! Owns the members of "Include more details with errors"
//! (<https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors#include-more-details-with-errors>),
//! and the names of the codes in them.

use dualwright_odata::batch::{Request, Response};
use serde_json::{Value, json};

use super::display::Annotations;

/// Names of codes, as "Web service error codes" lists them.
const NAMES: [(&str, &str); 14] = [
    ("0x80040203", "InvalidArgument"),
    ("0x80040216", "UnExpected"),
    ("0x80040217", "ObjectDoesNotExist"),
    ("0x80040220", "PrivilegeDenied"),
    ("0x80040237", "DuplicateRecord"),
    ("0x80040265", "IsvAborted"),
    ("0x80044331", "StringLengthTooLong"),
    ("0x80048306", "PrivilegeDenied"),
    ("0x80048d19", "InvalidInputPayload"),
    ("0x80060882", "ConcurrencyVersionMismatch"),
    ("0x80060888", "ODataQueryError"),
    ("0x80060891", "RecordNotFoundByEntityKey"),
    ("0x80060892", "DuplicateRecordEntityKey"),
    ("0x80072322", "RateLimitExceeded"),
];

/// Adds the details to an error body, when all annotations are asked for.
pub(crate) fn add(request: &Request, response: &mut Response) {
    const OWN: &str = "Microsoft.PowerApps.CDS.ErrorDetails.HttpStatusCode";
    if response.status < 400 || !Annotations::of(request).include(OWN) {
        return;
    }
    let Ok(mut body) = serde_json::from_slice::<Value>(&response.body) else { return };
    let Some(error) = body.get_mut("error").and_then(Value::as_object_mut) else { return };
    let code = error.get("code").and_then(Value::as_str).unwrap_or_default().to_owned();
    let message = error.get("message").cloned().unwrap_or_default();
    let category = if response.status < 500 { "ClientError" } else { "SystemFailure" };
    let name = NAMES.iter().find(|(own, _)| *own == code).map_or("UnExpected", |(_, name)| name);
    let help = format!(
        "http://go.microsoft.com/fwlink/?LinkID=398563&error=Microsoft.Crm.CrmException%3a{}&client=platform",
        code.trim_start_matches("0x")
    );
    for (term, value) in [
        ("ErrorDetails.OperationStatus", json!("0")),
        ("ErrorDetails.SubErrorCode", json!("-2146233088")),
        ("ErrorDetails.ApiExceptionCategory", json!(category)),
        ("ErrorDetails.ApiExceptionMessageName", json!(name)),
        ("ErrorDetails.ApiExceptionHttpStatusCode", json!(response.status.to_string())),
        ("HelpLink", json!(help)),
        ("TraceText", json!("")),
        ("InnerError.Message", message),
    ] {
        error.insert(format!("@Microsoft.PowerApps.CDS.{term}"), value);
    }
    response.body = body.to_string().into_bytes();
}
