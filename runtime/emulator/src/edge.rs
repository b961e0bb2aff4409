//! What a request has to be before anybody looks at what it says, in the words of both services.
//!
//! Owns methods, media types, lengths and the headers that every answer has; knows no table.

use dualwright_odata::batch::{Request, Response, header};
use uuid::Uuid;

use crate::{Dialect, batch};

/// The largest message that Dataverse takes is 116.85 MB; this is above it, so that its own limit can answer.
pub(crate) const BODY_BYTES_MAX: usize = 128 * 1024 * 1024;
/// What is read of a larger message before it is refused: a caller that is still sending sees no answer.
pub(crate) const BODY_BYTES_DRAINED_MAX: usize = 1024 * 1024 * 1024;
/// <https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/overview#url-length-limits>
const URL_BYTES_MAX: usize = 32_768;

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"];
const ALLOW: &str = "GET, HEAD, POST, PATCH, PUT, DELETE, OPTIONS";

/// The answer to a request that goes no further: below the service root, before its token is looked at.
pub(crate) fn refuse(dialect: Dialect, request: &Request) -> Option<Response> {
    let error = |status, message: &str| batch::error(dialect, status, "0x80060888", message);
    if request.method == "OPTIONS" {
        return Some(options(dialect, request));
    }
    if !METHODS.contains(&request.method.as_str()) {
        let message = format!("The requested resource does not support http method '{}'.", request.method);
        let mut response = error(405, &message);
        response.headers.push(("Allow".into(), ALLOW.into()));
        return Some(response);
    }
    if request.url.len() > URL_BYTES_MAX {
        return Some(error(414, &format!("The URL is longer than {URL_BYTES_MAX} bytes.")));
    }
    let path = request.url.split('?').next().unwrap_or_default();
    if !is_well_encoded(path) {
        return Some(error(400, "The request URI is not valid: a % is not followed by two hexadecimal digits."));
    }
    let is_batch = path.len() >= 7 && path.as_bytes()[path.len() - 7..].eq_ignore_ascii_case(b"/$batch");
    if matches!(request.method.as_str(), "POST" | "PATCH" | "PUT") && !request.body.is_empty() && !is_batch {
        let media = header(&request.headers, "content-type").unwrap_or("application/json");
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // Binary values of file and image columns come as they are.
        let is_json = media == "application/json" || media == "application/octet-stream" || media.ends_with("+json");
        if !is_json {
            let message = format!("The request entity's media type '{media}' is not supported for this resource.");
            return Some(error(415, &message));
        }
    }
    None
}

fn is_well_encoded(path: &str) -> bool {
    let is_digit = |digit: Option<&u8>| digit.is_some_and(u8::is_ascii_hexdigit);
    let bytes = path.as_bytes();
    let escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    escapes.map(|(at, _)| at).all(|at| is_digit(bytes.get(at + 1)) && is_digit(bytes.get(at + 2)))
}

/// Which methods there are; a browser asks so before it sends a request from another page.
/// <https://learn.microsoft.com/power-apps/developer/data-platform/oauth-cross-origin-resource-sharing-connect-single-page-application>
fn options(dialect: Dialect, request: &Request) -> Response {
    let mut headers = vec![("Allow".to_owned(), ALLOW.to_owned())];
    if dialect == Dialect::Dataverse
        && let Some(origin) = header(&request.headers, "origin")
        && let Some(asked) = header(&request.headers, "access-control-request-method")
    {
        headers.push(("Access-Control-Allow-Origin".into(), origin.to_owned()));
        headers.push(("Access-Control-Allow-Methods".into(), asked.to_owned()));
        if let Some(names) = header(&request.headers, "access-control-request-headers") {
            headers.push(("Access-Control-Allow-Headers".into(), names.to_owned()));
        }
        headers.push(("Vary".into(), "Origin".into()));
    }
    Response { status: 200, headers, body: Vec::new(), content_id: None }
}

/// The headers by which a request can be found again in the logs of the system.
pub(crate) fn identify(dialect: Dialect, response: &mut Response) {
    let id = Uuid::new_v4().to_string();
    let names: &[&str] = match dialect {
        Dialect::Dataverse => &["x-ms-service-request-id", "REQ_ID"],
        Dialect::Finops => &["ActivityId"],
    };
    for name in names {
        if !response.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
            response.headers.push(((*name).to_owned(), id.clone()));
        }
    }
}

/// Smaller answers are not worth the work.
const COMPRESSED_BYTES_MIN: usize = 1_024;

/// Whether the caller asks for compressed answers.
pub(crate) fn wants_compression(request: &Request) -> bool {
    header(&request.headers, "accept-encoding").is_some_and(|codings| {
        codings.split(',').any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case("gzip")
                && weight.split_once('=').is_none_or(|(_, q)| q.trim().parse() != Ok(0.0))
        })
    })
}

/// Compresses an answer for who asks for it.
pub(crate) fn compress(request: &Request, response: &mut Response) {
    if !wants_compression(request) || response.body.len() < COMPRESSED_BYTES_MIN {
        return;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    if std::io::Write::write_all(&mut encoder, &response.body).is_ok()
        && let Ok(body) = encoder.finish()
    {
        response.body = body;
        response.headers.push(("Content-Encoding".into(), "gzip".into()));
        response.headers.push(("Vary".into(), "Accept-Encoding".into()));
    }
}
