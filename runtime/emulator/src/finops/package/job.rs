//! Jobs: executions move on by turns.
//!
//! Owns what one turn does and who takes turns. One execution is under way at a time, in the order in which they were
//! asked for: the first turn plans it, each further one does an entity, the last one ends it. What a turn did is kept
//! before the next one begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dualwright_odata::batch::{Request, Response};
use serde::Deserialize;
use tokio::sync::{Notify, watch};

use super::execution::{self, Execution, Kind, Part, Problem, Status};
use super::{JOB_DETAILS, PROJECTS, export, import, put_row, recurring, value};
use crate::Inner;
use crate::exchange::{json, no_content};

/// Whether jobs run by themselves, and the bell that says there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    held: AtomicBool,
    bell: Notify,
}

impl Jobs {
    /// Lets executions wait for turns that somebody asks for.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
        self.ring();
    }

    pub fn ring(&self) {
        self.bell.notify_one();
    }
}

/// Takes turns while there is something to do, until the end.
pub(crate) async fn run(inner: Arc<Inner>, mut stopping: watch::Receiver<bool>) {
    // There may be executions of another life.
    inner.finops.jobs.ring();
    loop {
        tokio::select! {
            () = inner.finops.jobs.bell.notified() => {}
            // The sender goes only together with the server.
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        while !inner.finops.jobs.held.load(Ordering::Acquire) && !*stopping.borrow() {
            let taken = Arc::clone(&inner);
            match tokio::task::spawn_blocking(move || turn(&taken)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    tracing::error!(error = format!("{error:#}"), "a job cannot move on");
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "a job ended in a panic");
                    break;
                }
            }
        }
    }
}

/// Whether a request to this path may have given the jobs something to do; they look and see.
pub(crate) fn may_begin_job(path: &str) -> bool {
    path.contains(PROJECTS) || path.ends_with("$batch")
}

/// What only an emulator answers: turns, and the end of an execution. `None` when the path means nothing here.
pub(crate) fn own_route(inner: &Inner, path: &str, request: &Request) -> Option<Result<Response, String>> {
    let answer = match (request.method.as_str(), path) {
        ("POST", "/turn") => turn(inner)
            .map(|moved| json(200, value!({"moved": moved}).to_string().into_bytes()))
            .map_err(|error| format!("{error:#}")),
        ("POST", "/jobs") => read::<Hold>(request).map(|hold| {
            inner.finops.jobs.hold(hold.held);
            no_content(204)
        }),
        ("POST", "/cancel-execution") => read::<Cancel>(request).and_then(|cancel| {
            let id = cancel.execution_id;
            let canceled = inner.store.write(false, |session| execution::cancel(session.connection(), &id));
            canceled
                .map_err(|error: rusqlite::Error| error.to_string())?
                .map(|()| no_content(204))
                .ok_or_else(|| format!("no execution {id} is waiting or under way"))
        }),
        _ => return recurring::own_route(inner, path, request),
    };
    Some(answer)
}

fn read<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, String> {
    serde_json::from_slice(&request.body).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    held: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cancel {
    execution_id: String,
}

/// Moves the execution whose turn it is one step on; says whether there was one.
pub(crate) fn turn(inner: &Inner) -> anyhow::Result<bool> {
    let Some(execution) = inner.store.read(execution::due)? else { return Ok(false) };
    if let Err(error) = step(inner, &execution) {
        fail(inner, &execution, &format!("The batch job failed: {error:#}."))?;
    }
    Ok(true)
}

fn step(inner: &Inner, execution: &Execution) -> anyhow::Result<()> {
    if execution.status == Status::NotRun {
        let planned = match execution.kind {
            Kind::Export => {
                let catalogue = inner.store.catalogue();
                inner
                    .store
                    .read(|connection| Ok::<_, rusqlite::Error>(export::plan(connection, &catalogue, execution)))?
            }
            Kind::Import => import::begin(inner, execution),
        };
        return match planned {
            Ok(parts) => begin(inner, execution, &parts),
            Err(message) => fail(inner, execution, &message),
        };
    }
    let parts = inner.store.read(|connection| execution::parts(connection, execution.number))?;
    match parts.iter().find(|part| part.status == Status::NotRun) {
        Some(part) => match execution.kind {
            Kind::Export => export::run(inner, execution, part),
            Kind::Import => import::run(inner, execution, part),
        },
        None => {
            if execution.kind == Kind::Export {
                export::finish(inner, execution, &parts)?;
            }
            finish(inner, execution, &parts)
        }
    }
}

fn begin(inner: &Inner, execution: &Execution, parts: &[Part]) -> anyhow::Result<()> {
    inner.store.write(false, |session| {
        let connection = session.connection();
        for part in parts {
            execution::insert_part(connection, execution.number, part)?;
        }
        move_on(connection, execution.number, Status::NotRun, Status::Executing)
    })?;
    Ok(())
}

fn finish(inner: &Inner, execution: &Execution, parts: &[Part]) -> anyhow::Result<()> {
    inner.store.write(false, |session| {
        let status = Status::of_entities(parts.iter().map(|part| part.status));
        for part in parts {
            let counts = execution::counts(session.connection(), execution.number, part.place)?;
            let shown = if part.status == Status::Succeeded { "Finished" } else { "Error" };
            let row = value!({
                "JobId": execution.id, "EntityName": part.entity, "DefinitionGroupId": execution.project,
                "StagingStatus": shown, "TargetStatus": if execution.runs_target { shown } else { "NotRun" },
                "StagingRecordsCreatedCount": counts.staged, "TargetRecordsCreatedCount": counts.created,
                "TargetRecordsUpdatedCount": counts.updated, "TargetRecordsInErrorCount": counts.failed,
            });
            put_row(session, JOB_DETAILS, &row)?;
        }
        move_on(session.connection(), execution.number, Status::Executing, status)?;
        anyhow::Ok(())
    })
}

fn fail(inner: &Inner, execution: &Execution, message: &str) -> anyhow::Result<()> {
    inner.store.write(false, |session| {
        let connection = session.connection();
        let problem = Problem { message: message.to_owned(), ..Problem::default() };
        execution::insert_problem(connection, execution.number, "", &problem)?;
        move_on(connection, execution.number, execution.status, Status::Failed)
    })?;
    Ok(())
}

/// Changes the status, unless somebody else did meanwhile.
fn move_on(connection: &rusqlite::Connection, number: i64, before: Status, after: Status) -> rusqlite::Result<()> {
    if execution::status(connection, number)? == before {
        execution::set_status(connection, number, after)?;
    }
    Ok(())
}
