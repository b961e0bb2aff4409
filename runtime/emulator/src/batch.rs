//! `$batch`: change sets that are one transaction, and operations that stand alone.
//!
//! Owns order, atomicity and references between operations; the framing is `dualwright-odata`'s, and what an operation
//! means is the dialect's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use dualwright_odata::batch::{self, BatchError, Item, Request, Response, header};
use rusqlite::Connection;
use uuid::Uuid;

use crate::control::Level;
use crate::dataverse::roles::Caller;
use crate::exchange::preference;
use crate::fault::FaultAction;
use crate::observe::Observer;
use crate::outlet::Outlet;
use crate::session::Session;
use crate::{Dialect, Inner, dataverse, finops};

/// Where the service is, as its caller writes it.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// `http://127.0.0.1:4711`.
    pub base: String,
    /// `/api/data/v9.2`, without a slash at its end.
    pub root: String,
    /// The company in which the caller works (F&O).
    pub company: String,
    /// The client that the caller's token was given to; none where nobody needs a token.
    pub caller: Option<Arc<str>>,
    /// The user who that is (Dataverse).
    pub user: Option<Arc<Caller>>,
    /// Where a large answer may begin before it is complete; a batch has to know all of it.
    pub outlet: Option<Arc<Outlet>>,
}

/// Rows that operations of a change set wrote, by Content-ID: `accounts(6a8f…)`.
pub(crate) type References = HashMap<String, String>;

/// A refusal on its way out of a transaction.
struct Refused(Response);

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        tracing::error!(%error, "the store failed");
        Self(failure(&error.to_string()))
    }
}

fn failure(message: &str) -> Response {
    let error = serde_json::json!({"error": {"code": "0x80040216", "message": message}});
    crate::exchange::json(500, error.to_string().into_bytes())
}

/// An error body in the words of the dialect.
pub(crate) fn error(dialect: Dialect, status: u16, code: &str, message: &str) -> Response {
    match dialect {
        Dialect::Dataverse => dataverse::error(status, code, message),
        Dialect::Finops => finops::error(status, message),
    }
}

fn read(inner: &Inner, site: &Site, connection: &Connection, request: &Request) -> Response {
    let level = Level::of(inner.store.dialect, request);
    if level == Level::Minimal {
        return read_minimal(inner, site, connection, request);
    }
    let site = Site { outlet: None, ..site.clone() };
    let mut response = read_minimal(inner, &site, connection, request);
    level.apply(&site, &inner.store.catalogue(), &mut response);
    response
}

fn read_minimal(inner: &Inner, site: &Site, connection: &Connection, request: &Request) -> Response {
    match inner.store.dialect {
        Dialect::Dataverse => {
            let mut answer = match dataverse::site_of(inner, site, request) {
                Ok(site) => dataverse::read(&inner.store, &site, connection, request),
                Err(refusal) => refusal,
            };
            dataverse::detail::add(request, &mut answer);
            answer
        }
        Dialect::Finops => finops::read(&inner.store, site, connection, request),
    }
}

/// Answers a request that changes something, within a transaction.
pub(crate) fn write(
    inner: &Inner,
    site: &Site,
    session: &mut Session<'_>,
    references: &References,
    request: &Request,
) -> (Response, Option<String>) {
    let (mut response, written) = write_minimal(inner, site, session, references, request);
    if inner.store.dialect == Dialect::Dataverse {
        dataverse::detail::add(request, &mut response);
    }
    Level::of(inner.store.dialect, request).apply(site, &session.catalogue, &mut response);
    (response, written)
}

fn write_minimal(
    inner: &Inner,
    site: &Site,
    session: &mut Session<'_>,
    references: &References,
    request: &Request,
) -> (Response, Option<String>) {
    match inner.store.dialect {
        Dialect::Dataverse => {
            let observed = dataverse::site_of(inner, site, request).and_then(|site| {
                let observers = dataverse::observers(inner, &site, request)?;
                observe(inner, session, observers, request)?;
                Ok(site)
            });
            match observed {
                Ok(site) => {
                    session.caller = site.user.as_ref().map(|user| user.in_session()).unwrap_or_default();
                    let answer = dataverse::write(&site, session, references, request);
                    if answer.0.status < 400
                        && let Err(refusal) = session.complete()
                    {
                        return (refusal, None);
                    }
                    answer
                }
                Err(refusal) => (refusal, None),
            }
        }
        Dialect::Finops => {
            if let Err(refusal) = observe(inner, session, finops::observers(inner), request) {
                return (refusal, None);
            }
            finops::write(&inner.finops, site, session, references, request)
        }
    }
}

/// Lets these have a say in what an operation writes, unless its message is more than they take. Where nothing is handed
/// on, a larger one is written.
fn observe(
    inner: &Inner,
    session: &mut Session<'_>,
    observers: Vec<Box<dyn Observer>>,
    request: &Request,
) -> Result<(), Response> {
    if observers.iter().any(|observer| observer.takes_messages())
        && request.body.len() > inner.dataverse.limits.message_bytes_max()
    {
        let size = request.body.len() / (1024 * 1024);
        let message = format!("Message size exceeded when sending context to Sandbox. Message size: {size} MB");
        return Err(error(inner.store.dialect, 400, "0x80040216", &message));
    }
    session.observed_by(observers);
    Ok(())
}

/// Answers a request: one operation, or a batch of them.
pub(crate) fn answer(inner: &Inner, site: &Site, request: &Request) -> Response {
    let path = request.url.split('?').next().unwrap_or_default();
    if !path.get(site.root.len()..).is_some_and(|rest| rest.eq_ignore_ascii_case("/$batch")) {
        return single(inner, site, request);
    }
    if request.method == "POST" {
        whole(inner, site, request)
    } else {
        error(inner.store.dialect, 405, "0x80060888", "A batch has to be posted.")
    }
}

/// A request that cannot be read, in the codes of Dataverse.
const MALFORMED: &str = "0x80060888";

fn operations(items: &[Item<Request>]) -> impl Iterator<Item = &Request> {
    items.iter().flat_map(|item| match item {
        Item::Single(one) => std::slice::from_ref(one),
        Item::ChangeSet(all) => all.as_slice(),
    })
}

fn is_batch(url: &str) -> bool {
    let path = url.split('?').next().unwrap_or_default().trim_end_matches('/');
    path.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case("$batch"))
}

/// Answers one request that is not a batch.
pub(crate) fn single(inner: &Inner, site: &Site, request: &Request) -> Response {
    let response = if matches!(request.method.as_str(), "GET" | "HEAD") {
        inner.store.read(|connection| Ok::<_, Refused>(read(inner, site, connection, request)))
    } else {
        inner.store.write(true, |session| {
            let (response, _) = write(inner, site, session, &References::new(), request);
            if response.status < 400 { Ok(response) } else { Err(Refused(response)) }
        })
    };
    response.unwrap_or_else(|Refused(response)| response)
}

/// Answers a batch.
pub(crate) fn whole(inner: &Inner, site: &Site, request: &Request) -> Response {
    let site = &Site { outlet: None, ..site.clone() };
    let dialect = inner.store.dialect;
    let content_type = header(&request.headers, "content-type").unwrap_or_default();
    let operations_max = match dialect {
        Dialect::Dataverse => batch::OPERATIONS_MAX,
        Dialect::Finops => finops::BATCH_OPERATIONS_MAX,
    };
    let items = match batch::parse_requests_up_to(operations_max, content_type, &request.body) {
        Ok(items) => items,
        Err(BatchError::NotMultipart) => {
            let message = "The Content-Type header of a batch has to be multipart/mixed with a boundary.";
            return error(dialect, 400, MALFORMED, message);
        }
        Err(refusal) => return error(dialect, 400, MALFORMED, &refusal.to_string()),
    };
    if let Some(nested) = operations(&items).find(|one| is_batch(&one.url)) {
        let message = format!("A batch cannot hold another batch: {} {}.", nested.method, nested.url);
        return error(dialect, 400, MALFORMED, &message);
    }
    let goes_on = preference(request, "odata.continue-on-error")
        .or_else(|| preference(request, "continue-on-error"))
        .is_some_and(|value| value != "false");
    let splits = inner.faults.splits(&request.url, &request.body);
    let mut answers = Vec::with_capacity(items.len());
    let mut status = 200;
    let mut rest = items.as_slice();
    while let Some(item) = rest.first() {
        let refused = match item {
            // Reads that follow each other see one state of the store, and wait for it once.
            Item::Single(first) if first.method == "GET" => {
                let reads = rest
                    .iter()
                    .map_while(|item| match item {
                        Item::Single(read) if read.method == "GET" => Some(read),
                        _ => None,
                    })
                    .collect::<Vec<_>>();
                let (answered, refused) = read_all(inner, site, &reads, goes_on);
                rest = &rest[answered.len()..];
                answers.extend(answered.into_iter().map(Item::Single));
                refused
            }
            Item::Single(one) => {
                rest = &rest[1..];
                let mut answer =
                    strike(inner, one).map_or_else(|struck| struck, |request| single(inner, site, &request));
                answer.content_id.clone_from(&one.content_id);
                let refused = (answer.status >= 400).then_some(answer.status);
                answers.push(Item::Single(answer));
                refused
            }
            Item::ChangeSet(operations) => {
                rest = &rest[1..];
                let outcome = if splits { split(inner, site, operations) } else { change_set(inner, site, operations) };
                match outcome {
                    Ok(applied) => {
                        answers.push(Item::ChangeSet(applied));
                        None
                    }
                    Err(refusal) => {
                        let status = refusal.status;
                        // Both answer with a change set that holds the refusal alone.
                        answers.push(Item::ChangeSet(vec![refusal]));
                        Some(status)
                    }
                }
            }
        };
        if let Some(refused) = refused
            && !goes_on
        {
            // Dataverse says by the status of the whole that it stopped; F&O only inside.
            if dialect == Dialect::Dataverse {
                status = refused;
            }
            break;
        }
    }
    let (content_type, body) = batch::encode_responses_as(&answers, &Uuid::now_v7().to_string());
    Response {
        status,
        headers: vec![("Content-Type".into(), content_type), ("OData-Version".into(), "4.0".into())],
        body,
        content_id: None,
    }
}

fn read_all(inner: &Inner, site: &Site, reads: &[&Request], goes_on: bool) -> (Vec<Response>, Option<u16>) {
    let mut answers = Vec::with_capacity(reads.len());
    let mut refused = None;
    let outcome = inner.store.read(|connection| {
        for request in reads {
            let mut answer =
                strike(inner, request).map_or_else(|struck| struck, |request| read(inner, site, connection, &request));
            answer.content_id.clone_from(&request.content_id);
            let status = answer.status;
            answers.push(answer);
            if status >= 400 {
                refused = Some(status);
                if !goes_on {
                    break;
                }
            }
        }
        Ok::<_, Refused>(())
    });
    if let Err(Refused(response)) = outcome {
        refused = Some(response.status);
        answers.push(response);
    }
    (answers, refused)
}

/// Applies all operations, or refuses them with the answer to the one that failed.
fn change_set(inner: &Inner, site: &Site, operations: &[Request]) -> Result<Vec<Response>, Response> {
    let outcome = inner.store.write(true, |session| {
        let mut references = References::new();
        let mut answers = Vec::with_capacity(operations.len());
        for (number, request) in operations.iter().enumerate() {
            answers.push(operation(inner, site, session, &mut references, number, request)?);
        }
        Ok(answers)
    });
    outcome.map_err(|Refused(response)| response)
}

/// A change set that is no transaction: each operation is applied by itself, up to the one that failed.
fn split(inner: &Inner, site: &Site, operations: &[Request]) -> Result<Vec<Response>, Response> {
    let mut references = References::new();
    let mut answers = Vec::with_capacity(operations.len());
    for (number, request) in operations.iter().enumerate() {
        let outcome =
            inner.store.write(true, |session| operation(inner, site, session, &mut references, number, request));
        answers.push(outcome.map_err(|Refused(response)| response)?);
    }
    Ok(answers)
}

/// One operation of a change set.
fn operation(
    inner: &Inner,
    site: &Site,
    session: &mut Session<'_>,
    references: &mut References,
    number: usize,
    request: &Request,
) -> Result<Response, Refused> {
    let refuse = |mut response: Response| {
        response.content_id.clone_from(&request.content_id);
        Refused(response)
    };
    if request.method == "GET" {
        let message = "A change set cannot hold a GET request.";
        return Err(refuse(error(inner.store.dialect, 400, MALFORMED, message)));
    }
    let struck = strike(inner, request).map_err(refuse)?;
    let (mut response, written) = write(inner, site, session, references, &struck);
    if response.status >= 400 {
        return Err(refuse(response));
    }
    if let Some(written) = written {
        let id = request.content_id.clone().unwrap_or_else(|| (number + 1).to_string());
        references.insert(id, written);
    }
    response.content_id.clone_from(&request.content_id);
    Ok(response)
}

/// Lets a fault that was ordered for operations inside batches strike: the request that goes on, or the answer.
fn strike<'a>(inner: &Inner, request: &'a Request) -> Result<Cow<'a, Request>, Response> {
    match inner.faults.strike(true, &request.method, &request.url, &request.body) {
        Some(FaultAction::Answer { status, code, message, retry_after, .. }) => {
            let retry_after = retry_after.map(|after| after.header(&inner.clock));
            Err(ordered(inner.store.dialect, status, &code, &message, retry_after))
        }
        Some(FaultAction::IgnoreIfMatch) => {
            let mut request = request.clone();
            request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("if-match"));
            Ok(Cow::Owned(request))
        }
        _ => Ok(Cow::Borrowed(request)),
    }
}

/// The answer that a fault rule orders.
pub(crate) fn ordered(
    dialect: Dialect,
    status: u16,
    code: &str,
    message: &str,
    retry_after: Option<String>,
) -> Response {
    let mut response = match dialect {
        Dialect::Finops if !code.is_empty() => finops::error_with_code(status, code, message),
        _ => error(dialect, status, code, message),
    };
    if let Some(after) = retry_after {
        response.headers.push(("Retry-After".into(), after));
    }
    response
}

/// Puts the path of an earlier row in the place of a reference such as `$1` or `$1/name`.
pub(crate) fn resolve<'a>(references: &References, path: &'a str) -> std::borrow::Cow<'a, str> {
    let Some(rest) = path.trim_start_matches('/').strip_prefix('$') else { return path.into() };
    let length = rest.find(['/', '?']).unwrap_or(rest.len());
    match references.get(&rest[..length]) {
        Some(row) => format!("{row}{}", &rest[length..]).into(),
        None => path.into(),
    }
}
