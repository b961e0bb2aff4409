//! When steps run: synchronous ones inside the transaction, asynchronous ones after its commit.
//!
//! Owns which of the registered steps a write runs, and what the caller may keep from running
//! (<https://learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic>). Of a message about many
//! rows the steps run when all rows are known, stage by stage; they cannot tell, since all of it is one transaction.

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response, header};
use dualwright_odata::url;
use uuid::Uuid;

use super::super::roles::{self, Caller};
use super::super::{BAD_QUERY, error, failed};
use super::context::{self, Body, ORGANIZATION_NAME};
use super::jobs::{self, Job, TIMEOUT_MS};
use super::{Registry, Stage, Step};
use crate::catalogue::Table;
use crate::observe::{Observer, Operation, RowWrite};
use crate::post::{self, Message, Outcome, Owner, Post};
use crate::session::Session;

/// What a person reads when a webhook failed, and the code beside it: that of business logic that ended an operation.
pub(super) const UNAVAILABLE: &str = "Endpoint unavailable";
const FAILED: &str = "0x80040265";
/// The same code as a number with its sign, as rows of jobs hold it.
pub(super) const FAILED_NUMBER: i64 = -2_147_220_891;
/// Steps that a caller may name to be left out (`BypassBusinessLogicExecutionStepIdsLimit`).
const BYPASSED_STEPS_MAX: usize = 3;

/// What a request says about steps.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    no_sync: bool,
    no_async: bool,
    without: Vec<Uuid>,
    tag: Option<String>,
    /// The request is one of the bulk messages.
    is_about_many: bool,
}

impl Wishes {
    /// Reads the headers and the query of a request. What the caller may not wish is refused.
    pub fn of(request: &Request, caller: &Caller) -> Result<Self, Response> {
        let path = request.url.split('?').next().unwrap_or_default();
        let mut wishes = Self { is_about_many: path.ends_with("Multiple"), ..Self::default() };
        if let Some(kinds) = header(&request.headers, "MSCRM.BypassBusinessLogicExecution") {
            roles::require(caller, roles::BYPASS_LOGIC)?;
            for kind in kinds.split(',').map(str::trim) {
                match kind {
                    "CustomSync" => wishes.no_sync = true,
                    "CustomAsync" => wishes.no_async = true,
                    other => {
                        let message = format!("'{other}' is not a value of BypassBusinessLogicExecution.");
                        return Err(error(400, BAD_QUERY, &message));
                    }
                }
            }
        }
        if let Some(value) = header(&request.headers, "MSCRM.BypassCustomPluginExecution")
            && value.trim().eq_ignore_ascii_case("true")
        {
            roles::require(caller, roles::BYPASS_PLUGINS)?;
            wishes.no_sync = true;
        }
        if let Some(ids) = header(&request.headers, "MSCRM.BypassBusinessLogicExecutionStepIds") {
            let malformed = || error(400, BAD_QUERY, "BypassBusinessLogicExecutionStepIds is a list of GUIDs.");
            wishes.without = ids
                .trim()
                .trim_matches('"')
                .split(',')
                .map(|id| Uuid::parse_str(id.trim()).map_err(|_| malformed()))
                .collect::<Result<_, _>>()?;
            if wishes.without.len() > BYPASSED_STEPS_MAX {
                let message = format!("BypassBusinessLogicExecutionStepIds takes at most {BYPASSED_STEPS_MAX} steps.");
                return Err(error(400, BAD_QUERY, &message));
            }
        }
        if request.url.contains("tag=")
            && let Ok(resource) = url::parse(&request.url)
        {
            wishes.tag = resource.option("tag").map(str::to_owned);
        }
        Ok(wishes)
    }
}

/// Runs the steps of one operation.
#[derive(Debug)]
pub(crate) struct Pipeline {
    registry: Arc<Registry>,
    post: Arc<Post>,
    caller: Arc<Caller>,
    wishes: Wishes,
    correlation_id: Uuid,
    request_id: Uuid,
    /// What a message about many rows wrote, of tables with steps.
    written: Vec<Written>,
}

/// A row write that outlives the moment.
#[derive(Debug)]
struct Written {
    table: Arc<Table>,
    operation: Operation,
    id: Uuid,
    named: Vec<usize>,
    before: Option<Vec<String>>,
    after: Option<Vec<String>>,
}

impl Written {
    fn of(write: &RowWrite<'_>) -> Self {
        let owned = |cells: Option<&[&str]>| cells.map(|cells| cells.iter().map(|cell| (*cell).to_owned()).collect());
        Self {
            table: Arc::clone(write.table),
            operation: write.operation,
            id: write.id,
            named: write.named.to_vec(),
            before: owned(write.before),
            after: owned(write.after),
        }
    }
}

/// The images of a row that was written, as observers take them.
struct Rows<'w> {
    before: Option<Vec<&'w str>>,
    after: Option<Vec<&'w str>>,
}

impl<'w> Rows<'w> {
    fn of(written: &'w Written) -> Self {
        let borrowed = |cells: &'w Option<Vec<String>>| Some(cells.as_ref()?.iter().map(String::as_str).collect());
        Self { before: borrowed(&written.before), after: borrowed(&written.after) }
    }

    fn write<'r>(&'r self, written: &'r Written) -> RowWrite<'r> {
        RowWrite {
            table: &written.table,
            operation: written.operation,
            id: written.id,
            named: &written.named,
            before: self.before.as_deref(),
            after: self.after.as_deref(),
        }
    }
}

impl Pipeline {
    pub fn new(registry: Arc<Registry>, post: Arc<Post>, caller: Arc<Caller>, wishes: Wishes) -> Self {
        let (correlation_id, request_id) = (Uuid::new_v4(), Uuid::new_v4());
        Self { registry, post, caller, wishes, correlation_id, request_id, written: Vec::new() }
    }

    fn applies(&self, step: &Step, write: &RowWrite<'_>) -> bool {
        let is_wanted = if step.is_async { !self.wishes.no_async } else { !self.wishes.no_sync };
        let names_one = || {
            write.named.iter().any(|&at| {
                let name = &write.table.columns[at].definition.name;
                step.filtering.iter().any(|own| own.eq_ignore_ascii_case(name))
            })
        };
        let is_named = write.operation != Operation::Update || step.filtering.is_empty() || names_one();
        is_wanted && is_named && !self.wishes.without.contains(&step.id)
    }

    /// What a step is told of these rows: of each that concerns it, or of all when one does.
    fn told<'w, 'r>(&self, step: &Step, writes: &'w [RowWrite<'r>]) -> Vec<&'w [RowWrite<'r>]> {
        if step.is_about_many {
            return writes.iter().any(|write| self.applies(step, write)).then_some(writes).into_iter().collect();
        }
        writes.chunks(1).filter(|one| one.iter().all(|write| self.applies(step, write))).collect()
    }

    fn body(&self, session: &Session<'_>, step: &Step, writes: &[RowWrite<'_>], operation_id: Uuid) -> Body {
        let around = context::Surroundings {
            connection: session.connection(),
            catalogue: &session.catalogue,
            caller: &self.caller,
            correlation_id: self.correlation_id,
            request_id: self.request_id,
            tag: self.wishes.tag.as_deref(),
            now: session.clock.now(),
        };
        context::body(&around, step, writes, operation_id)
    }

    fn message(&self, step: &Step, table: &Table, operation: Operation, body: Body, reference: String) -> Message {
        let (url, mut headers) = step.endpoint.address();
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
        add("Content-Type", "application/json; charset=utf-8");
        add("x-request-id", &self.request_id.to_string());
        add("x-ms-dynamics-organization", ORGANIZATION_NAME);
        add("x-ms-dynamics-entity-name", table.name());
        add("x-ms-dynamics-request-name", step.message(operation));
        add("x-ms-correlation-request-id", &self.correlation_id.to_string());
        if body.is_cut {
            add("x-ms-dynamics-msg-size-exceeded", "True");
        }
        Message {
            owner: Owner::Step,
            reference,
            url,
            headers,
            body: body.json.into_bytes(),
            timeout_ms: TIMEOUT_MS,
            retry: jobs::retry(),
        }
    }

    /// Calls the synchronous steps of a stage. The rows are of one table, and written by one operation.
    fn call(&self, session: &Session<'_>, writes: &[RowWrite<'_>], stage: Stage) -> Result<(), Response> {
        let Some(RowWrite { table, operation, .. }) = writes.first() else { return Ok(()) };
        for step in self.registry.steps(table, *operation) {
            if step.stage != stage || step.is_async {
                continue;
            }
            for told in self.told(step, writes) {
                let body = self.body(session, step, told, Uuid::nil());
                let message = self.message(step, table, *operation, body, String::new());
                let mut outcome = self.post.call(&session.clock, &message);
                if matches!(outcome, Outcome::Answered(502..=504)) {
                    outcome = self.post.call(&session.clock, &message);
                }
                if !outcome.is_success() {
                    tracing::info!(step = %step.name, %outcome, "a synchronous webhook failed");
                    let message = format!("{UNAVAILABLE}. The webhook call of step '{}' failed: {outcome}.", step.name);
                    return Err(error(400, FAILED, &message));
                }
            }
        }
        Ok(())
    }

    /// Queues the asynchronous steps, each with its job.
    fn queue(&self, session: &mut Session<'_>, writes: &[RowWrite<'_>]) -> rusqlite::Result<()> {
        let Some(RowWrite { table, operation, .. }) = writes.first() else { return Ok(()) };
        for step in self.registry.steps(table, *operation).iter().filter(|step| step.is_async) {
            for told in self.told(step, writes) {
                let id = Uuid::now_v7();
                let body = self.body(session, step, told, id);
                let message = self.message(step, table, *operation, body, id.to_string());
                let job = Job {
                    id,
                    step,
                    message_name: step.message(*operation),
                    table,
                    correlation_id: self.correlation_id,
                    request_id: self.request_id,
                    message: &message,
                };
                jobs::create(session, &job)?;
                let due = session.clock.steady();
                post::enqueue(session, &message, due)?;
            }
        }
        Ok(())
    }
}

impl Observer for Pipeline {
    fn takes_messages(&self) -> bool {
        true
    }

    fn before(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
        if self.wishes.is_about_many {
            return Ok(());
        }
        let writes = std::slice::from_ref(write);
        self.call(session, writes, Stage::PreValidation)?;
        self.call(session, writes, Stage::PreOperation)
    }

    fn after(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
        if self.wishes.is_about_many {
            if !self.registry.steps(write.table, write.operation).is_empty() {
                self.written.push(Written::of(write));
            }
            return Ok(());
        }
        let writes = std::slice::from_ref(write);
        self.call(session, writes, Stage::PostOperation)?;
        self.queue(session, writes).map_err(|error| failed(&error))
    }

    fn complete(&mut self, session: &mut Session<'_>) -> Result<(), Response> {
        let mut left = std::mem::take(&mut self.written);
        let mut groups = Vec::new();
        while let Some(first) = left.first() {
            let (table, operation) = (Arc::clone(&first.table), first.operation);
            let is_with = |one: &Written| one.table.number == table.number && one.operation == operation;
            let (group, rest) = left.into_iter().partition::<Vec<_>, _>(is_with);
            groups.push(group);
            left = rest;
        }
        let rows = groups.iter().map(|group| group.iter().map(Rows::of).collect::<Vec<_>>()).collect::<Vec<_>>();
        let writes = groups
            .iter()
            .zip(&rows)
            .map(|(group, rows)| group.iter().zip(rows).map(|(one, rows)| rows.write(one)).collect::<Vec<_>>())
            .collect::<Vec<_>>();
        for stage in [Stage::PreValidation, Stage::PreOperation, Stage::PostOperation] {
            writes.iter().try_for_each(|writes| self.call(session, writes, stage))?;
        }
        writes.iter().try_for_each(|writes| self.queue(session, writes).map_err(|error| failed(&error)))
    }
}
