//! System jobs: what became of asynchronous steps.
//!
//! Owns the rows of `asyncoperation` behind them and their way from ready to succeeded or failed. Source:
//! <https://learn.microsoft.com/power-apps/developer/data-platform/asynchronous-service>.

use std::sync::Arc;

use dualwright_odata::literal::format_date_time;
use uuid::Uuid;

use super::super::rows::{Cells, place};
use super::{JOB, Step};
use crate::catalogue::Table;
use crate::cell::{self, Cell};
use crate::clock::MICROS_PER_SECOND;
use crate::post::{Message, Outcome, Owner, Retry, RetryAfter};
use crate::session::{Refusal, Session};
use crate::store;

/// A webhook is given up after that time.
pub(super) const TIMEOUT_MS: u32 = 60_000;
/// "The WebHook service will make one more attempt only when these error codes are returned": 502, 503, 504. How long it
/// waits is not said.
const RETRY_WAIT_MS: u64 = 5_000;

pub(super) fn retry() -> Retry {
    Retry { waits_ms: vec![RETRY_WAIT_MS], after: RetryAfter::Gateway }
}

const READY: (i64, i64) = (0, 0);
const WAITING: (i64, i64) = (1, 10);
const SUCCEEDED: (i64, i64) = (3, 30);
const FAILED: (i64, i64) = (3, 31);

/// `errorcode` of a job whose webhook failed.
const WEBHOOK_FAILED: i64 = super::pipeline::FAILED_NUMBER;

/// A job to be made.
pub(super) struct Job<'a> {
    pub id: Uuid,
    pub step: &'a Step,
    pub message_name: &'static str,
    pub table: &'a Table,
    pub correlation_id: Uuid,
    pub request_id: Uuid,
    pub message: &'a Message,
}

fn text(text: &str) -> Cell {
    cell::quoted(text).into()
}

fn time(micros: i64) -> Cell {
    text(&format_date_time(micros - micros.rem_euclid(MICROS_PER_SECOND)))
}

fn set(table: &Table, cells: &mut [Cell], column: &str, value: Cell) {
    if let Some(at) = place(table, column) {
        cells[at] = value;
    }
}

fn set_state(table: &Table, cells: &mut [Cell], (state, status): (i64, i64)) {
    set(table, cells, "statecode", state.to_string().into());
    set(table, cells, "statuscode", status.to_string().into());
}

fn failed(refusal: Refusal) -> rusqlite::Error {
    match refusal {
        Refusal::Store(error) => error,
        // Ids of jobs are new, and nothing else of them is unique.
        other => rusqlite::Error::ToSqlConversionFailure(format!("{other:?}").into()),
    }
}

/// Makes a job that is ready. What it sends is kept with it, so that it can be sent again.
pub(super) fn create(session: &mut Session<'_>, job: &Job<'_>) -> rusqlite::Result<()> {
    let Some(table) = session.catalogue.by_name(JOB).cloned() else { return Ok(()) };
    let mut cells = table.empty_row();
    for (column, value) in [
        ("name", text(&job.step.name)),
        ("operationtype", Cell::Borrowed("1")),
        ("messagename", text(job.message_name)),
        ("primaryentitytype", text(job.table.name())),
        ("retrycount", Cell::Borrowed("0")),
        ("depth", Cell::Borrowed("1")),
        ("correlationid", cell::guid_cell(job.correlation_id)),
        ("requestid", cell::guid_cell(job.request_id)),
        ("owningextensionid", cell::guid_cell(job.step.id)),
        ("data", text(&kept(job.message))),
    ] {
        set(&table, &mut cells, column, value);
    }
    if let Some(at) = table.primary_id {
        cells[at] = cell::guid_cell(job.id);
    }
    set_state(&table, &mut cells, READY);
    session.unrecorded(|session| session.insert(&table, cells)).map(drop).map_err(failed)
}

/// What a job keeps of its message: everything but where it goes and the secrets on the way, which are the endpoint's.
fn kept(message: &Message) -> String {
    let own = message.headers.iter().filter(|(name, _)| is_own_header(name)).collect::<Vec<_>>();
    serde_json::json!({"headers": own, "body": String::from_utf8_lossy(&message.body)}).to_string()
}

fn is_own_header(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-type")
        || name.to_ascii_lowercase().starts_with("x-ms-")
        || name == "x-request-id"
}

/// Sends a job again that was set back to ready: to where its step's endpoint is now.
pub(super) fn requeue(session: &mut Session<'_>, row: &Cells<'_>, step: &Step) -> rusqlite::Result<()> {
    #[derive(serde::Deserialize)]
    struct Kept {
        headers: Vec<(String, String)>,
        body: String,
    }
    let (Some(id), Ok(kept)) = (row.own_id(), serde_json::from_str::<Kept>(&row.text("data"))) else { return Ok(()) };
    let (url, mut headers) = step.endpoint.address();
    headers.extend(kept.headers);
    let message = Message {
        owner: Owner::Step,
        reference: id.to_string(),
        url,
        headers,
        body: kept.body.into_bytes(),
        timeout_ms: TIMEOUT_MS,
        retry: retry(),
    };
    let due = session.clock.steady();
    crate::post::enqueue(session, &message, due).map(drop)
}

/// Books what came of an attempt: with `is_last`, nothing more is tried.
pub(crate) fn settled(
    session: &mut Session<'_>,
    reference: &str,
    attempts: usize,
    outcome: &Outcome,
    is_last: bool,
) -> rusqlite::Result<()> {
    let Some(table) = session.catalogue.by_name(JOB).cloned() else { return Ok(()) };
    let Ok(id) = Uuid::parse_str(reference) else { return Ok(()) };
    // Somebody may have removed the job meanwhile.
    let Some(found) = store::find(session.connection(), &table.id_key(id))? else { return Ok(()) };
    if outcome.is_success() && deletes(session, &table, &found)? {
        return session.unrecorded(|session| session.delete(&table, &found)).map_err(failed);
    }
    let now = session.clock.now();
    let mut cells = table.owned_cells(&found.data);
    set(&table, &mut cells, "retrycount", attempts.saturating_sub(1).to_string().into());
    if outcome.is_success() {
        set_state(&table, &mut cells, SUCCEEDED);
        for column in ["errorcode", "message", "friendlymessage"] {
            set(&table, &mut cells, column, Cell::Borrowed(cell::NULL));
        }
    } else {
        set_state(&table, &mut cells, if is_last { FAILED } else { WAITING });
        set(&table, &mut cells, "errorcode", WEBHOOK_FAILED.to_string().into());
        set(&table, &mut cells, "message", text(&format!("The webhook call failed: {outcome}.")));
        set(&table, &mut cells, "friendlymessage", text(super::pipeline::UNAVAILABLE));
    }
    if is_last || outcome.is_success() {
        set(&table, &mut cells, "completedon", time(now));
    }
    session.unrecorded(|session| session.update(&table, &found, cells)).map(drop).map_err(failed)
}

fn deletes(session: &Session<'_>, table: &Arc<Table>, job: &store::Found) -> rusqlite::Result<bool> {
    let Some(step) = Cells::of(table, &job.data).id("owningextensionid") else { return Ok(false) };
    let Some(steps) = session.catalogue.by_name(super::STEP) else { return Ok(false) };
    let found = store::find(session.connection(), &steps.id_key(step))?;
    Ok(found.is_some_and(|found| Cells::of(steps, &found.data).is("asyncautodelete")))
}
