//! When steps run: synchronous ones inside the transaction, asynchronous ones after its commit.
//!
//! Owns which of the registered steps a write runs, and what the caller may keep from running
//! (<https://learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic>).

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response, header};
use dualwright_odata::url;
use uuid::Uuid;

use super::super::roles::{self, Caller};
use super::super::{BAD_QUERY, error, failed};
use super::context::{self, Body, ORGANIZATION_NAME};
use super::jobs::{self, Job, TIMEOUT_MS};
use super::{Registry, Stage, Step, message_of};
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
}

impl Wishes {
    /// Reads the headers and the query of a request. What the caller may not wish is refused.
    pub fn of(request: &Request, caller: &Caller) -> Result<Self, Response> {
        let mut wishes = Self::default();
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
}

impl Pipeline {
    pub fn new(registry: Arc<Registry>, post: Arc<Post>, caller: Arc<Caller>, wishes: Wishes) -> Self {
        Self { registry, post, caller, wishes, correlation_id: Uuid::new_v4(), request_id: Uuid::new_v4() }
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

    fn body(&self, session: &Session<'_>, step: &Step, write: &RowWrite<'_>, operation_id: Uuid) -> Body {
        let around = context::Surroundings {
            connection: session.connection(),
            catalogue: &session.catalogue,
            caller: &self.caller,
            correlation_id: self.correlation_id,
            request_id: self.request_id,
            tag: self.wishes.tag.as_deref(),
            now: session.clock.now(),
        };
        context::body(&around, step, write, operation_id)
    }

    fn message(&self, step: &Step, write: &RowWrite<'_>, body: Body, reference: String) -> Message {
        let (url, mut headers) = step.endpoint.address();
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
        add("Content-Type", "application/json; charset=utf-8");
        add("x-request-id", &self.request_id.to_string());
        add("x-ms-dynamics-organization", ORGANIZATION_NAME);
        add("x-ms-dynamics-entity-name", write.table.name());
        add("x-ms-dynamics-request-name", message_of(write.operation));
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

    /// Calls the synchronous steps of a stage.
    fn call(&self, session: &Session<'_>, write: &RowWrite<'_>, stage: Stage) -> Result<(), Response> {
        for step in self.registry.steps(write.table, write.operation) {
            if step.stage != stage || step.is_async || !self.applies(step, write) {
                continue;
            }
            let body = self.body(session, step, write, Uuid::nil());
            let message = self.message(step, write, body, String::new());
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
        Ok(())
    }

    /// Queues the asynchronous steps, each with its job.
    fn queue(&self, session: &mut Session<'_>, write: &RowWrite<'_>) -> rusqlite::Result<()> {
        for step in self.registry.steps(write.table, write.operation) {
            if !step.is_async || !self.applies(step, write) {
                continue;
            }
            let id = Uuid::now_v7();
            let body = self.body(session, step, write, id);
            let message = self.message(step, write, body, id.to_string());
            let job = Job {
                id,
                step,
                message_name: message_of(write.operation),
                table: write.table,
                correlation_id: self.correlation_id,
                request_id: self.request_id,
                message: &message,
            };
            jobs::create(session, &job)?;
            let due = session.clock.steady();
            post::enqueue(session, &message, due)?;
        }
        Ok(())
    }
}

impl Observer for Pipeline {
    fn takes_messages(&self) -> bool {
        true
    }

    fn before(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
        self.call(session, write, Stage::PreValidation)?;
        self.call(session, write, Stage::PreOperation)
    }

    fn after(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
        self.call(session, write, Stage::PostOperation)?;
        self.queue(session, write).map_err(|error| failed(&error))
    }
}
