//! Requests that an emulated system sends out by itself: webhooks, business events, data events.
//!
//! Owns the queue in the store, the worker that empties it, and the client. A message is queued in the transaction of the
//! change that it tells of, so none is lost and none tells of a change that was rolled back; it stays until its receiver
//! took it or the owner's patience ended, over restarts too. A message that was under way when the process died is sent
//! again. Knows neither what a message says nor what its owner makes of the outcome.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use dualwright_odata::batch::{Request, Response};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::fault::EventFate;
use crate::session::Session;
use crate::store::Store;
use crate::{Inner, dataverse, exchange};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS post(id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, reference TEXT NOT NULL,
        url TEXT NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL, timeout_ms INTEGER NOT NULL, retry TEXT NOT NULL,
        attempts INTEGER NOT NULL, due INTEGER, outcome TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS post_due ON post(due, id);
";

/// Messages under way at once; a receiver on the same machine hardly takes more.
const UNDER_WAY_MAX: usize = 16;
/// Messages that are given up stay to be looked at, the newest so many.
const GIVEN_UP_KEPT: i64 = 1_000;
/// Messages that are listed for people.
const LISTED_MAX: i64 = 200;

/// How endpoints are reached. Kept in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PostSettings {
    /// Takes any certificate of an HTTPS endpoint.
    pub accept_invalid_certificates: bool,
    /// Certificate authorities in PEM, beside those of the machine.
    pub certificate_authorities: Vec<String>,
}

/// Who queued a message, and is told what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A step of Dataverse; the reference is the id of its system job.
    Step,
    /// Business events of F&O.
    BusinessEvent,
    /// Data events of F&O.
    DataEvent,
}

impl Owner {
    const ALL: [Self; 3] = [Self::Step, Self::BusinessEvent, Self::DataEvent];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Step => "webhook",
            Self::BusinessEvent => "business-event",
            Self::DataEvent => "data-event",
        }
    }
}

/// One request to be sent, always a POST.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub owner: Owner,
    /// What the owner knows it by.
    pub reference: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub timeout_ms: u32,
    pub retry: Retry,
}

/// When a message is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retry {
    /// The wait before the second attempt, the third, and so on; as many attempts follow.
    pub waits_ms: Vec<u64>,
    pub after: RetryAfter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RetryAfter {
    /// 502, 503 and 504 only.
    Gateway,
    /// Whatever is no success.
    AnyFailure,
}

impl Retry {
    /// The wait before the next attempt after `attempts` of them; `None` when it is given up.
    fn wait(&self, attempts: usize, outcome: &Outcome) -> Option<Duration> {
        let is_tried_again = match self.after {
            RetryAfter::Gateway => matches!(outcome, Outcome::Answered(502..=504)),
            RetryAfter::AnyFailure => !outcome.is_success(),
        };
        let wait = self.waits_ms.get(attempts.checked_sub(1)?).filter(|_| is_tried_again)?;
        Some(Duration::from_millis(*wait))
    }
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered(u16),
    TimedOut,
    /// No answer, with the reason. It names no address, because a secret may stand in one.
    Unreachable(String),
}

impl Outcome {
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Answered(200..=299))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "the endpoint answered {status}"),
            Self::TimedOut => f.write_str("the endpoint did not answer in time"),
            Self::Unreachable(reason) => write!(f, "the endpoint could not be reached: {reason}"),
        }
    }
}

/// The client, as the settings want it.
#[derive(Debug)]
pub(crate) struct Post {
    client: RwLock<(PostSettings, reqwest::Client)>,
}

impl Post {
    pub fn open(store: &Store) -> anyhow::Result<Self> {
        let kept: Option<String> = store.read(|connection| crate::store::setting(connection, SETTING))?;
        let settings: PostSettings = match kept {
            Some(json) => serde_json::from_str(&json).context("the stored settings of outgoing requests")?,
            None => PostSettings::default(),
        };
        let client = client(&settings)?;
        Ok(Self { client: RwLock::new((settings, client)) })
    }

    pub fn settings(&self) -> PostSettings {
        self.client.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub fn set(&self, store: &Store, settings: PostSettings) -> anyhow::Result<()> {
        let client = client(&settings)?;
        store.set_setting(SETTING, serde_json::to_string(&settings)?)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = (settings, client);
        Ok(())
    }

    fn client(&self) -> reqwest::Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Sends a message once and waits for the answer. Only for a thread that may block; that is where writes happen.
    pub fn call(&self, clock: &Clock, message: &Message) -> Outcome {
        let attempt = attempt(self.client(), clock, message);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.block_on(attempt),
            Err(_) => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(attempt),
                Err(error) => Outcome::Unreachable(error.to_string()),
            },
        }
    }
}

const SETTING: &str = "post";

fn client(settings: &PostSettings) -> anyhow::Result<reqwest::Client> {
    // A second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut authorities = Vec::new();
    for pem in &settings.certificate_authorities {
        authorities.extend(
            reqwest::Certificate::from_pem_bundle(pem.as_bytes()).context("a certificate authority is no PEM")?,
        );
    }
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_merge(authorities)
        .tls_danger_accept_invalid_certs(settings.accept_invalid_certificates);
    builder.build().context("no client for outgoing requests")
}

async fn attempt(client: reqwest::Client, clock: &Clock, message: &Message) -> Outcome {
    let mut request = client.post(&message.url).body(message.body.clone());
    for (name, value) in &message.headers {
        request = request.header(name, value);
    }
    let given_up = clock.steady().saturating_add(i64::from(message.timeout_ms) * 1_000);
    let answered = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        // What it says is not looked at, but a receiver that is cut off in the middle of its answer would complain.
        let _ = response.bytes().await;
        Ok::<_, reqwest::Error>(status)
    };
    tokio::select! {
        answered = answered => match answered {
            Ok(status) => Outcome::Answered(status),
            Err(error) => Outcome::Unreachable(reason(&error.without_url())),
        },
        () = clock.reached(given_up) => Outcome::TimedOut,
    }
}

fn reason(error: &reqwest::Error) -> String {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        reason = format!("{reason}: {inner}");
        source = inner.source();
    }
    reason
}

/// Queues a message: it is sent once the session is committed, at `due` (UTC microseconds, steady) or later.
pub(crate) fn enqueue(session: &mut Session<'_>, message: &Message, due: i64) -> rusqlite::Result<i64> {
    let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    session
        .connection()
        .prepare_cached(
            "INSERT INTO post(owner, reference, url, headers, body, timeout_ms, retry, attempts, due, outcome)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, '')",
        )?
        .execute(params![
            message.owner.name(),
            message.reference,
            message.url,
            json(serde_json::to_string(&message.headers)),
            message.body,
            message.timeout_ms,
            json(serde_json::to_string(&message.retry)),
            due,
        ])?;
    session.queued();
    Ok(session.connection().last_insert_rowid())
}

/// A message in the queue.
#[derive(Debug)]
struct Queued {
    id: i64,
    attempts: usize,
    message: Message,
}

/// Sends what is due until `stopping` turns true. What is under way then is left in the queue.
pub(crate) async fn run(inner: Arc<Inner>, mut stopping: watch::Receiver<bool>) {
    let mut taken = HashSet::new();
    let mut under_way = JoinSet::new();
    let start = {
        let inner = Arc::clone(&inner);
        // The clock of another life may have been ahead of this one's.
        tokio::task::spawn_blocking(move || {
            inner.store.write(false, |session| {
                let now = inner.clock.steady();
                session.connection().execute("UPDATE post SET due = ?1 WHERE due > ?1", [now])
            })
        })
        .await
    };
    if let Ok(Err(error)) = start {
        tracing::error!(%error, "outgoing requests are not sent");
        return;
    }
    loop {
        let queued = inner.store.queued.notified();
        let (found, next) = match next_due(&inner, &taken).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "the queue of outgoing requests cannot be read");
                (Vec::new(), None)
            }
        };
        for one in found {
            taken.insert(one.id);
            under_way.spawn(carry(Arc::clone(&inner), one));
        }
        let is_full = taken.len() >= UNDER_WAY_MAX;
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            Some(done) = under_way.join_next() => match done {
                Ok(id) => { taken.remove(&id); }
                // A message whose task is gone is taken up again after a restart.
                Err(error) => tracing::error!(%error, "an outgoing request was dropped"),
            },
            () = queued, if !is_full => {}
            () = wait_until(&inner.clock, next), if !is_full => {}
        }
    }
}

async fn wait_until(clock: &Clock, due: Option<i64>) {
    match due {
        Some(due) => clock.reached(due).await,
        None => std::future::pending().await,
    }
}

/// What is due and not taken, and when the next one will be.
async fn next_due(inner: &Arc<Inner>, taken: &HashSet<i64>) -> anyhow::Result<(Vec<Queued>, Option<i64>)> {
    let free = UNDER_WAY_MAX.saturating_sub(taken.len());
    let (inner, taken) = (Arc::clone(inner), taken.clone());
    tokio::task::spawn_blocking(move || {
        let now = inner.clock.steady();
        inner.store.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, owner, reference, url, headers, body, timeout_ms, retry, attempts, due FROM post
                 WHERE due IS NOT NULL ORDER BY due, id",
            )?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let id: i64 = row.get(0)?;
                if taken.contains(&id) {
                    continue;
                }
                let due: i64 = row.get(9)?;
                if due > now || found.len() == free {
                    return Ok((found, Some(due)));
                }
                let name: String = row.get(1)?;
                let Some(owner) = Owner::ALL.into_iter().find(|owner| owner.name() == name) else { continue };
                let text = |at: usize| row.get::<_, String>(at);
                let malformed =
                    |error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error);
                let retry = serde_json::from_str(&text(7)?).map_err(|error| malformed(Box::new(error)))?;
                let message = Message {
                    owner,
                    reference: text(2)?,
                    url: text(3)?,
                    headers: serde_json::from_str(&text(4)?).unwrap_or_default(),
                    body: row.get(5)?,
                    timeout_ms: row.get(6)?,
                    retry,
                };
                let attempts = usize::try_from(row.get::<_, i64>(8)?).unwrap_or(usize::MAX);
                found.push(Queued { id, attempts, message });
            }
            anyhow::Ok((found, None))
        })
    })
    .await?
}

/// Sends one message and books what came of it.
async fn carry(inner: Arc<Inner>, queued: Queued) -> i64 {
    let Queued { id, attempts, message } = queued;
    let fate = match attempts {
        0 => inner.faults.event(&message.url, &message.body),
        _ => EventFate { posts: 1, delay: Duration::ZERO },
    };
    let late = i64::try_from(fate.delay.as_micros()).unwrap_or(i64::MAX);
    inner.clock.reached(inner.clock.steady().saturating_add(late)).await;
    // Of an event that is lost on the way, its sender believes that it arrived.
    let mut outcome = Outcome::Answered(200);
    for _ in 0..fate.posts {
        outcome = attempt(inner.post.client(), &inner.clock, &message).await;
    }
    let booked = tokio::task::spawn_blocking(move || settle(&inner, id, attempts + 1, &message, &outcome)).await;
    match booked {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the outcome of an outgoing request was not booked"),
        Err(error) => tracing::error!(%error, "the outcome of an outgoing request was not booked"),
    }
    id
}

fn settle(inner: &Inner, id: i64, attempts: usize, message: &Message, outcome: &Outcome) -> anyhow::Result<()> {
    let again = message.retry.wait(attempts, outcome);
    inner.store.write(true, |session| {
        if outcome.is_success() {
            session.connection().execute("DELETE FROM post WHERE id = ?1", [id])?;
        } else {
            let wait = again.map(|wait| i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
            let due = wait.map(|wait| inner.clock.steady().saturating_add(wait));
            session.connection().execute(
                "UPDATE post SET attempts = ?2, due = ?3, outcome = ?4 WHERE id = ?1",
                params![id, i64::try_from(attempts).unwrap_or(i64::MAX), due, outcome.to_string()],
            )?;
            session
                .connection()
                .execute("DELETE FROM post WHERE due IS NULL AND id <= ?1 - ?2", params![id, GIVEN_UP_KEPT])?;
        }
        match message.owner {
            Owner::Step => dataverse::steps::settled(session, &message.reference, attempts, outcome, again.is_none())?,
            // Whoever receives these is not told of to anybody but the list of what was given up.
            Owner::BusinessEvent | Owner::DataEvent => {}
        }
        anyhow::Ok(())
    })
}

/// One message as people see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: i64,
    owner: String,
    reference: String,
    /// Without its query, where secrets stand.
    address: String,
    attempts: i64,
    /// Nothing more is going to be tried.
    given_up: bool,
    /// What came of the last attempt.
    outcome: String,
}

fn listed(connection: &Connection) -> rusqlite::Result<Vec<Listed>> {
    connection
        .prepare_cached(
            "SELECT id, owner, reference, url, attempts, due IS NULL, outcome FROM post ORDER BY id DESC LIMIT ?1",
        )?
        .query_map([LISTED_MAX], |row| {
            let url: String = row.get(3)?;
            Ok(Listed {
                id: row.get(0)?,
                owner: row.get(1)?,
                reference: row.get(2)?,
                address: url.split('?').next().unwrap_or_default().to_owned(),
                attempts: row.get(4)?,
                given_up: row.get(5)?,
                outcome: row.get(6)?,
            })
        })?
        .collect()
}

/// `GET /_emulator/post`: settings and queue. `PUT`: the settings.
pub(crate) fn route(inner: &Inner, request: &Request) -> Response {
    let refuse = |status: u16, message: String| {
        let error = serde_json::json!({"error": {"code": "emulator", "message": message}});
        exchange::json(status, error.to_string().into_bytes())
    };
    match request.method.as_str() {
        "GET" => match inner.store.read(listed) {
            Ok(messages) => {
                let settings = inner.post.settings();
                let answer = serde_json::json!({"settings": settings, "messages": messages});
                exchange::json(200, answer.to_string().into_bytes())
            }
            Err(error) => refuse(500, error.to_string()),
        },
        "PUT" => match serde_json::from_slice(&request.body) {
            Ok(settings) => match inner.post.set(&inner.store, settings) {
                Ok(()) => exchange::no_content(204),
                Err(error) => refuse(400, format!("{error:#}")),
            },
            Err(error) => refuse(400, error.to_string()),
        },
        method => refuse(405, format!("{method} is not for the outgoing requests")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again() {
        let gateway = Retry { waits_ms: vec![10], after: RetryAfter::Gateway };
        let any = Retry { waits_ms: vec![1, 2], after: RetryAfter::AnyFailure };
        let unreachable = || Outcome::Unreachable("refused".into());
        for (retry, attempts, outcome, wanted) in [
            (&gateway, 1, Outcome::Answered(503), Some(10)),
            (&gateway, 1, Outcome::Answered(502), Some(10)),
            (&gateway, 1, Outcome::Answered(504), Some(10)),
            (&gateway, 2, Outcome::Answered(503), None),
            (&gateway, 1, Outcome::Answered(500), None),
            (&gateway, 1, Outcome::Answered(429), None),
            (&gateway, 1, Outcome::TimedOut, None),
            (&gateway, 1, unreachable(), None),
            (&any, 1, Outcome::Answered(500), Some(1)),
            (&any, 2, unreachable(), Some(2)),
            (&any, 3, Outcome::TimedOut, None),
            (&any, 1, Outcome::Answered(204), None),
            (&any, 0, Outcome::TimedOut, None),
        ] {
            let wait = retry.wait(attempts, &outcome);
            assert_eq!(wait, wanted.map(Duration::from_millis), "{attempts} {outcome}");
        }
    }
}
