//! Recurring integrations: files that wait in the queue of a recurring data job.
//!
//! Owns `/api/connector` (enqueue, dequeue, ack) and what is known of a message. A file that is put in becomes an import,
//! and a package that is to be taken out comes from an export; both are executions like any other.
//!
//! Facts: <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/recurring-integrations>. Recurring
//! data jobs are made on a page there, and by `PUT /_emulator/recurring-jobs` here.

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::escape::decode;
use dualwright_odata::literal::format_date_time;
use dualwright_odata::url::{self, Resource};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use uuid::Uuid;

use super::execution::{self, Execution, Kind, Status};
use super::manifest::{self, EntityEntry, Manifest};
use super::{archive, blob, entity, has_project, label, project_entries};
use crate::Inner;
use crate::exchange::{json, no_content, with_header};
use crate::finops::refusal::{bad_method, error, failed};
use crate::session::Session;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS recurring_job(id TEXT PRIMARY KEY, project TEXT NOT NULL, takes_packages INTEGER NOT NULL,
        company TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS message(id TEXT PRIMARY KEY, job TEXT NOT NULL, execution TEXT NOT NULL, status TEXT NOT NULL,
        receipt TEXT NOT NULL DEFAULT '', dequeued INTEGER) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS message_of ON message(job, status);
";

const ROOT: &str = "/api/connector/";

/// "Until a message is successfully acknowledged, the same message will become available to dequeue every 30 minutes."
const HIDDEN_MICROS: i64 = 30 * 60 * 1_000_000;

/// A recurring data job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Job {
    /// The activity id.
    id: Uuid,
    project: String,
    /// Packages and not single files are put in.
    #[serde(default)]
    takes_packages: bool,
    #[serde(default)]
    legal_entity: String,
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageStatus {
    Enqueued,
    Dequeued,
    Acked,
    Preprocessing,
    Processing,
    Processed,
    PreProcessingError,
    ProcessedWithErrors,
    PostProcessingFailed,
}

impl MessageStatus {
    const fn name(self) -> &'static str {
        match self {
            Self::Enqueued => "Enqueued",
            Self::Dequeued => "Dequeued",
            Self::Acked => "Acked",
            Self::Preprocessing => "Preprocessing",
            Self::Processing => "Processing",
            Self::Processed => "Processed",
            Self::PreProcessingError => "PreProcessingError",
            Self::ProcessedWithErrors => "ProcessedWithErrors",
            Self::PostProcessingFailed => "PostProcessingFailed",
        }
    }

    /// From the execution that a message led to, and whether that got as far as to have entities.
    const fn of(status: Status, has_begun: bool) -> Self {
        match status {
            Status::NotRun => Self::Enqueued,
            Status::Executing if has_begun => Self::Processing,
            Status::Executing | Status::Unknown => Self::Preprocessing,
            Status::Succeeded => Self::Processed,
            Status::PartiallySucceeded => Self::ProcessedWithErrors,
            Status::Failed if has_begun => Self::ProcessedWithErrors,
            Status::Failed => Self::PreProcessingError,
            Status::Canceled => Self::PostProcessingFailed,
        }
    }
}

pub(crate) fn is_connector(path: &str) -> bool {
    below(path).is_some()
}

/// What follows the root; a language may stand before it: `/en/api/connector/…`.
fn below(path: &str) -> Option<&str> {
    let at = path.find(ROOT)?;
    let language = path[..at].trim_start_matches('/');
    let is_language = match language.len() {
        0 => true,
        2 => language.bytes().all(|byte| byte.is_ascii_alphabetic()),
        5 => language.as_bytes()[2] == b'-',
        _ => false,
    };
    is_language.then(|| &path[at + ROOT.len()..])
}

/// Answers a request below `/api/connector`.
pub(crate) fn answer(inner: &Inner, base: &str, request: &Request) -> Response {
    let response = respond(inner, base, request).unwrap_or_else(|refusal| refusal);
    inner.finops.jobs.ring();
    response
}

fn respond(inner: &Inner, base: &str, request: &Request) -> Result<Response, Response> {
    let (path, query) = request.url.split_once('?').unwrap_or((&request.url, ""));
    let nothing = || error(404, &format!("No HTTP resource was found that matches the request URI '{base}{path}'."));
    let (service, activity) = below(path).and_then(|below| below.split_once('/')).ok_or_else(nothing)?;
    let activity = decode(activity).unwrap_or_default();
    let id = Uuid::parse_str(activity.trim_matches(['{', '}', '/']))
        .map_err(|_| error(400, "The activity ID is not a GUID."))?;
    let query = url::parse(&format!("connector?{query}")).map_err(|refusal| error(400, &refusal.to_string()))?;
    let job = inner.store.read(|connection| job(connection, id)).map_err(|error| failed(&error))?;
    let job = job.ok_or_else(|| error(400, &format!("There is no enabled recurring data job with the ID '{id}'.")))?;
    match (service, request.method.as_str()) {
        ("enqueue", "POST") => enqueue(inner, &job, &query, request),
        ("dequeue", "GET") => dequeue(inner, base, &job),
        ("ack", "POST") => acknowledge(inner, &job, request),
        ("enqueue" | "dequeue" | "ack", method) => Err(bad_method(method)),
        _ => Err(nothing()),
    }
}

fn job(connection: &Connection, id: Uuid) -> rusqlite::Result<Option<Job>> {
    connection
        .query_row(
            "SELECT project, takes_packages, company FROM recurring_job WHERE id = ?1",
            [id.to_string()],
            |row| Ok(Job { id, project: row.get(0)?, takes_packages: row.get(1)?, legal_entity: row.get(2)? }),
        )
        .optional()
}

/// Puts a file in: the answer is the id of the message.
fn enqueue(inner: &Inner, job: &Job, query: &Resource, request: &Request) -> Result<Response, Response> {
    let package = if job.takes_packages { request.body.clone() } else { packed(inner, job, query, &request.body)? };
    let company = query.option("company").filter(|company| !company.is_empty()).unwrap_or(&job.legal_entity);
    let message = Uuid::new_v4();
    let written = inner.store.write(false, |session| {
        let blob = format!("{message}.zip");
        blob::put(session, &blob, &package)?;
        let execution = new_execution(inner, job, Kind::Import, company, &message, blob);
        execution::insert(session.connection(), &execution)?;
        insert(session.connection(), job, &message, &execution.id, MessageStatus::Enqueued)
    });
    written.map_err(|error| failed(&error))?;
    let mut response = no_content(200);
    response.body = message.to_string().into_bytes();
    Ok(with_header(response, "Content-Type", "text/plain; charset=utf-8"))
}

fn new_execution(inner: &Inner, job: &Job, kind: Kind, company: &str, message: &Uuid, blob: String) -> Execution {
    let company = if company.is_empty() { inner.finops.companies.of(None) } else { company.to_lowercase() };
    Execution {
        number: 0,
        id: format!("{}-{message}", job.project),
        kind,
        project: job.project.clone(),
        package: job.project.clone(),
        company,
        runs_target: true,
        overwrites: false,
        is_delta: false,
        rows_max: 0,
        blob,
        status: Status::NotRun,
    }
}

fn insert(
    connection: &Connection,
    job: &Job,
    message: &Uuid,
    execution: &str,
    status: MessageStatus,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO message(id, job, execution, status) VALUES (?1, ?2, ?3, ?4)",
        params![message.to_string(), job.id.to_string(), execution, status.name()],
    )?;
    Ok(())
}

/// A single file as the package that it stands for: its format is the one that the project has for the entity.
fn packed(inner: &Inner, job: &Job, query: &Resource, file: &[u8]) -> Result<Vec<u8>, Response> {
    let catalogue = inner.store.catalogue();
    let wanted = query.option("entity").unwrap_or_default();
    let table = entity(&catalogue, wanted).map_err(|message| error(400, &message))?;
    let entries = inner
        .store
        .read(|connection| project_entries(connection, &catalogue, &job.project))
        .map_err(|error| failed(&error))?;
    let entry = entries.into_iter().find(|entry| entry.name.eq_ignore_ascii_case(label(table)));
    let entry = entry.ok_or_else(|| {
        error(400, &format!("The data project {} does not contain the entity {wanted}.", job.project))
    })?;
    let entry = EntityEntry { file: "data".to_owned(), ..entry };
    let manifest = Manifest { project: job.project.clone(), description: String::new(), entities: vec![entry] };
    let files = [
        (manifest::MANIFEST, manifest.encode()),
        (manifest::HEADER, manifest::header(&job.project)),
        ("data", file.to_vec()),
    ];
    archive::pack(files.iter().map(|(name, content)| (*name, content.as_slice())))
        .map_err(|refusal| error(500, &refusal.to_string()))
}

/// Takes a package out, and hides it for a while; no content when there is none.
fn dequeue(inner: &Inner, base: &str, job: &Job) -> Result<Response, Response> {
    let found = inner.store.write(false, |session| take(session, base, job));
    Ok(match found.map_err(|error: rusqlite::Error| failed(&error))? {
        None => no_content(204),
        Some(answer) => json(200, answer.to_string().into_bytes()),
    })
}

fn take(session: &Session<'_>, base: &str, job: &Job) -> rusqlite::Result<Option<serde_json::Value>> {
    let connection = session.connection();
    let now = session.clock.now();
    let found: Option<(String, String, Option<i64>)> = connection
        .query_row(
            "SELECT message.id, execution.blob, dequeued FROM message JOIN execution ON execution.id = message.execution
             WHERE job = ?1 AND execution.kind = 'export' AND execution.status IN ('Succeeded', 'PartiallySucceeded')
             AND message.status <> 'Acked' AND (dequeued IS NULL OR dequeued <= ?2) ORDER BY execution.number LIMIT 1",
            params![job.id.to_string(), now - HIDDEN_MICROS],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((message, blob, before)) = found else { return Ok(None) };
    let receipt = Uuid::new_v4().simple().to_string();
    connection.execute(
        "UPDATE message SET status = 'Dequeued', receipt = ?2, dequeued = ?3 WHERE id = ?1",
        params![message, receipt, now],
    )?;
    let is_there = blob::get(connection, now, &blob)?.is_some();
    Ok(Some(value!({
        "CorrelationId": message,
        "PopReceipt": receipt,
        "DownloadLocation": blob::link(session, base, &blob)?,
        "IsDownLoadFileExist": is_there,
        "FileDownLoadErrorMessage": if is_there { "" } else { "The file is no longer in the blob storage." },
        "LastDequeueDateTime": before.map(|before| format_date_time(before - before.rem_euclid(1_000_000))),
    })))
}

/// What `dequeue` answered comes back, and the message is done.
fn acknowledge(inner: &Inner, job: &Job, request: &Request) -> Result<Response, Response> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Taken {
        correlation_id: String,
        pop_receipt: String,
    }
    let taken: Taken = serde_json::from_slice(&request.body)
        .map_err(|_| error(400, "The body has to be the answer of the dequeue request."))?;
    let changed = inner.store.write(false, |session| {
        session.connection().execute(
            "UPDATE message SET status = 'Acked' WHERE id = ?1 AND receipt = ?2 AND job = ?3",
            params![taken.correlation_id, taken.pop_receipt, job.id.to_string()],
        )
    });
    match changed.map_err(|error: rusqlite::Error| failed(&error))? {
        0 => Err(error(400, "The message was not dequeued with this receipt.")),
        _ => Ok(no_content(200)),
    }
}

/// The status of a message, and the execution that it led to.
pub(super) fn status(connection: &Connection, message: &str) -> rusqlite::Result<Option<(&'static str, String)>> {
    let found: Option<(String, String)> = connection
        .query_row(
            "SELECT execution, status FROM message WHERE id = ?1",
            [message.trim_matches(['{', '}']).to_lowercase()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((id, kept)) = found else { return Ok(None) };
    let own = [MessageStatus::Dequeued, MessageStatus::Acked].into_iter().find(|status| status.name() == kept);
    let status = match (own, execution::find(connection, &id)?) {
        (Some(own), _) => own,
        (None, None) => MessageStatus::Preprocessing,
        (None, Some(execution)) => {
            let has_begun = !execution::parts(connection, execution.number)?.is_empty();
            MessageStatus::of(execution.status, has_begun)
        }
    };
    Ok(Some((status.name(), id)))
}

/// `PUT /_emulator/recurring-jobs`: a recurring data job. `POST /_emulator/recurring-jobs/run` `{"id"}`: its time has come,
/// and it exports what is then to be dequeued.
pub(super) fn own_route(inner: &Inner, path: &str, request: &Request) -> Option<Result<Response, String>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Run {
        id: Uuid,
    }
    let answered = match (request.method.as_str(), path) {
        ("PUT" | "POST", "/recurring-jobs") => {
            serde_json::from_slice(&request.body).map_err(|error| error.to_string()).and_then(|job| put(inner, &job))
        }
        ("POST", "/recurring-jobs/run") => serde_json::from_slice(&request.body)
            .map_err(|error| error.to_string())
            .and_then(|run: Run| begin_export(inner, run.id)),
        _ => return None,
    };
    inner.finops.jobs.ring();
    Some(answered)
}

fn put(inner: &Inner, job: &Job) -> Result<Response, String> {
    let kept = inner.store.write(false, |session| {
        let catalogue = std::sync::Arc::clone(&session.catalogue);
        if !has_project(session.connection(), &catalogue, &job.project)? {
            return Ok(false);
        }
        session.connection().execute(
            "INSERT OR REPLACE INTO recurring_job VALUES (?1, ?2, ?3, ?4)",
            params![job.id.to_string(), job.project, job.takes_packages, job.legal_entity.to_lowercase()],
        )?;
        Ok(true)
    });
    match kept.map_err(|error: rusqlite::Error| error.to_string())? {
        true => Ok(no_content(204)),
        false => Err(format!("there is no data project {}", job.project)),
    }
}

fn begin_export(inner: &Inner, id: Uuid) -> Result<Response, String> {
    let begun = inner.store.write(false, |session| {
        let connection = session.connection();
        let Some(job) = job(connection, id)? else { return Ok(None) };
        let message = Uuid::new_v4();
        let execution = new_execution(inner, &job, Kind::Export, &job.legal_entity, &message, format!("{message}.zip"));
        execution::insert(connection, &execution)?;
        insert(connection, &job, &message, &execution.id, MessageStatus::Enqueued)?;
        Ok(Some(message))
    });
    let message = begun.map_err(|error: rusqlite::Error| error.to_string())?;
    let message = message.ok_or_else(|| format!("there is no recurring data job {id}"))?;
    Ok(json(200, value!({"messageId": message}).to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_far_as_its_execution() {
        for (status, has_begun, wanted) in [
            (Status::NotRun, false, "Enqueued"),
            (Status::Executing, false, "Preprocessing"),
            (Status::Executing, true, "Processing"),
            (Status::Succeeded, true, "Processed"),
            (Status::PartiallySucceeded, true, "ProcessedWithErrors"),
            (Status::Failed, true, "ProcessedWithErrors"),
            (Status::Failed, false, "PreProcessingError"),
            (Status::Canceled, true, "PostProcessingFailed"),
        ] {
            assert_eq!(MessageStatus::of(status, has_begun).name(), wanted, "{status:?} {has_begun}");
        }
        for (path, wanted) in [
            ("/api/connector/enqueue/1", Some("enqueue/1")),
            ("/en/api/connector/dequeue/1", Some("dequeue/1")),
            ("/data/api/connector/dequeue/1", None),
            ("/a/b/api/connector/ack/1", None),
            ("/en-us/api/connector/ack/1", Some("ack/1")),
            ("/data/Customers", None),
        ] {
            assert_eq!(below(path), wanted, "{path}");
        }
    }
}
