//! The blob storage that packages travel through, on the emulator itself.
//!
//! Owns `/dmf/<name>` with its shared access signature: Put Blob, Put Block, Put Block List, Get Blob, Get Blob Properties,
//! with the errors of Azure Storage. Knows nothing of what is in a blob.
//!
//! Facts: <https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api>.

use dualwright_odata::batch::{Request, Response, header};
use dualwright_odata::escape::component;
use dualwright_odata::literal::format_date_time;
use dualwright_odata::url;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::xml::{self, push_element};
use crate::Inner;
use crate::session::Session;

const ROOT: &str = "/dmf/";
const API_VERSION: &str = "2021-08-06";

/// A link can be used that long. The documentation says only that it is short.
const LINK_MICROS: i64 = 60 * 60 * 1_000_000;

/// "The file in Blob storage will remain there for seven days."
const KEPT_MICROS: i64 = 7 * 24 * 60 * 60 * 1_000_000;

pub(crate) fn is_blob(path: &str) -> bool {
    path.starts_with(ROOT)
}

/// A new link to a blob, which need not be there yet. Blobs whose time is over go at the same occasion.
pub(super) fn link(session: &Session<'_>, base: &str, name: &str) -> rusqlite::Result<String> {
    let (connection, now) = (session.connection(), session.clock.now());
    connection.execute("DELETE FROM blob WHERE kept_until < ?1", [now])?;
    let signature = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let expires = now + LINK_MICROS;
    connection.execute(
        "INSERT INTO blob(name, signature, expires, kept_until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(name) DO UPDATE SET signature = excluded.signature, expires = excluded.expires",
        params![name, signature, expires, now + KEPT_MICROS],
    )?;
    let until = format_date_time(expires - expires.rem_euclid(1_000_000));
    let until = component(&until);
    Ok(format!("{base}{ROOT}{}?sv={API_VERSION}&sr=b&sig={signature}&se={until}&sp=rw", component(name)))
}

/// Keeps a blob that the system wrote itself.
pub(super) fn put(session: &Session<'_>, name: &str, data: &[u8]) -> rusqlite::Result<()> {
    session.connection().execute(
        "INSERT INTO blob(name, signature, expires, kept_until, data) VALUES (?1, '', 0, ?2, ?3)
         ON CONFLICT(name) DO UPDATE SET data = excluded.data, kept_until = excluded.kept_until",
        params![name, session.clock.now() + KEPT_MICROS, data],
    )?;
    Ok(())
}

/// The content of a blob, if it was uploaded and its time is not over.
pub(super) fn get(connection: &Connection, now: i64, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let data: Option<Option<Vec<u8>>> = connection
        .query_row("SELECT data FROM blob WHERE name = ?1 AND kept_until >= ?2", params![name, now], |row| row.get(0))
        .optional()?;
    Ok(data.flatten())
}

/// The name of the blob that a link leads to, whoever the link says the host is.
pub(super) fn name_in(link: &str) -> Option<String> {
    let path = link.split(['?', '#']).next()?;
    let at = path.find(ROOT)?;
    let name = dualwright_odata::escape::decode(&path[at + ROOT.len()..])?.into_owned();
    (!name.is_empty()).then_some(name)
}

/// Answers a request for a blob.
pub(crate) fn answer(inner: &Inner, request: &Request) -> Response {
    respond(inner, request).unwrap_or_else(|refusal| refusal)
}

fn respond(inner: &Inner, request: &Request) -> Result<Response, Response> {
    let not_there = || refuse(404, "BlobNotFound", "The specified blob does not exist.");
    let name = name_in(&request.url).ok_or_else(not_there)?;
    let query = url::parse(&format!("/dmf?{}", request.url.split_once('?').map_or("", |(_, query)| query)));
    let query = query.map_err(|_| refuse(400, "InvalidQueryParameterValue", "A query parameter cannot be read."))?;
    let known: Option<(String, i64)> = inner
        .store
        .read(|connection| {
            connection
                .query_row("SELECT signature, expires FROM blob WHERE name = ?1", [&name], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
        })
        .map_err(|error| failed(&error))?;
    let (signature, expires) = known.unwrap_or_default();
    if signature.is_empty() || query.option("sig") != Some(signature.as_str()) || expires < inner.clock.now() {
        return Err(refuse(
            403,
            "AuthenticationFailed",
            "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly \
             including the signature.",
        ));
    }
    match request.method.as_str() {
        "PUT" => match query.option("comp") {
            None => put_blob(inner, &name, request),
            Some("block") => {
                let id = query.option("blockid").unwrap_or_default();
                if id.is_empty() {
                    let message = "A required query parameter was not specified for this request: blockid.";
                    return Err(refuse(400, "MissingRequiredQueryParameter", message));
                }
                write(inner, |session| {
                    session.connection().execute(
                        "INSERT OR REPLACE INTO blob_block VALUES (?1, ?2, ?3)",
                        params![name, id, request.body],
                    )
                })?;
                Ok(plain(201))
            }
            Some("blocklist") => put_block_list(inner, &name, request),
            Some(_) => Err(refuse(400, "InvalidQueryParameterValue", "Value for 'comp' is not supported.")),
        },
        "GET" | "HEAD" => {
            let data = inner
                .store
                .read(|connection| get(connection, inner.clock.now(), &name))
                .map_err(|error| failed(&error))?;
            ranged(request, data.ok_or_else(not_there)?)
        }
        _ => Err(refuse(405, "UnsupportedHttpVerb", "The resource doesn't support the specified HTTP verb.")),
    }
}

fn put_blob(inner: &Inner, name: &str, request: &Request) -> Result<Response, Response> {
    match header(&request.headers, "x-ms-blob-type") {
        None => {
            let message = "An HTTP header that's mandatory for this request is not specified: x-ms-blob-type.";
            return Err(refuse(400, "MissingRequiredHeader", message));
        }
        Some(kind) if kind.eq_ignore_ascii_case("BlockBlob") => {}
        Some(_) => {
            let message = "The value for one of the HTTP headers is not in the correct format: x-ms-blob-type.";
            return Err(refuse(400, "InvalidHeaderValue", message));
        }
    }
    write(inner, |session| upload(session, name, &request.body))?;
    Ok(plain(201))
}

fn put_block_list(inner: &Inner, name: &str, request: &Request) -> Result<Response, Response> {
    let text = super::text::decoded(&request.body).and_then(|text| xml::read(&text));
    let list = text.map_err(|error| refuse(400, "InvalidXmlDocument", &error))?;
    let missing = || refuse(400, "InvalidBlockList", "The specified block list is invalid.");
    let mut whole = Vec::new();
    for block in &list.children {
        let data: Option<Vec<u8>> = inner
            .store
            .read(|connection| {
                connection
                    .query_row(
                        "SELECT data FROM blob_block WHERE name = ?1 AND id = ?2",
                        params![name, block.text.trim()],
                        |row| row.get(0),
                    )
                    .optional()
            })
            .map_err(|error| failed(&error))?;
        whole.extend_from_slice(&data.ok_or_else(missing)?);
    }
    write(inner, |session| {
        session.connection().execute("DELETE FROM blob_block WHERE name = ?1", [name])?;
        upload(session, name, &whole)
    })?;
    Ok(plain(201))
}

fn upload(session: &Session<'_>, name: &str, data: &[u8]) -> rusqlite::Result<usize> {
    session.connection().execute(
        "UPDATE blob SET data = ?2, kept_until = ?3 WHERE name = ?1",
        params![name, data, session.clock.now() + KEPT_MICROS],
    )
}

fn write<T>(inner: &Inner, work: impl FnOnce(&Session<'_>) -> rusqlite::Result<T>) -> Result<T, Response> {
    inner.store.write(false, |session| work(session)).map_err(|error: rusqlite::Error| failed(&error))
}

/// The whole blob, or the range that was asked for: `bytes=0-499`.
fn ranged(request: &Request, data: Vec<u8>) -> Result<Response, Response> {
    let wanted = header(&request.headers, "x-ms-range").or_else(|| header(&request.headers, "range"));
    let Some(range) = wanted.and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Ok(download(200, data));
    };
    let bounds = range.split_once('-').and_then(|(first, last)| {
        let first = first.parse::<usize>().ok()?;
        let last = if last.is_empty() { usize::MAX } else { last.parse().ok()? };
        (first <= last && first < data.len()).then(|| (first, last.min(data.len() - 1)))
    });
    let Some((first, last)) = bounds else {
        let message = "The range specified is invalid for the current size of the resource.";
        return Err(refuse(416, "InvalidRange", message));
    };
    let mut response = download(206, data[first..=last].to_vec());
    response.headers.push(("Content-Range".into(), format!("bytes {first}-{last}/{}", data.len())));
    Ok(response)
}

fn download(status: u16, data: Vec<u8>) -> Response {
    let mut response = plain(status);
    response.headers.push(("Content-Type".into(), "application/octet-stream".into()));
    response.headers.push(("Accept-Ranges".into(), "bytes".into()));
    response.body = data;
    response
}

fn plain(status: u16) -> Response {
    Response {
        status,
        headers: vec![
            ("x-ms-version".into(), API_VERSION.into()),
            ("x-ms-request-id".into(), Uuid::new_v4().to_string()),
            ("x-ms-blob-type".into(), "BlockBlob".into()),
        ],
        body: Vec::new(),
        content_id: None,
    }
}

fn refuse(status: u16, code: &str, message: &str) -> Response {
    let mut response = plain(status);
    let mut body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error>".to_owned();
    push_element(&mut body, "Code", code);
    push_element(&mut body, "Message", message);
    body.push_str("</Error>");
    response.headers.push(("x-ms-error-code".into(), code.to_owned()));
    response.headers.push(("Content-Type".into(), "application/xml".into()));
    response.body = body.into_bytes();
    response
}

fn failed(error: &rusqlite::Error) -> Response {
    tracing::error!(%error, "the store failed");
    refuse(500, "InternalError", "The server encountered an internal error.")
}
