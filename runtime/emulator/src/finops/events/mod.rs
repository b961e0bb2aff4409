//! Business events and data events: what an F&O tells others about its changes.
//!
//! Owns the catalogue (three business events and three data events for every entity), endpoints, activations, and raising:
//! a message is queued in the transaction of the change it tells of. Sending and trying again are the queue's business.
//!
//! Facts: <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/business-events/home-page>,
//! <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/business-events/data-events>. Endpoints and activations
//! are kept on pages there and have no service, so they are `/_emulator/events` here.

mod payload;
mod route;

use rusqlite::{Connection, params};

use super::package::label;
use super::refusal::entity_name;
use crate::catalogue::Table;
use crate::cell;
use crate::observe::{Operation, RowWrite};
use crate::post::{self, Message, Owner, Retry, RetryAfter};
use crate::session::Session;

pub(super) use route::answer;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS event_endpoint(name TEXT PRIMARY KEY COLLATE NOCASE, url TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS event_activation(event TEXT NOT NULL COLLATE NOCASE, company TEXT NOT NULL,
        endpoint TEXT NOT NULL COLLATE NOCASE, is_active INTEGER NOT NULL, PRIMARY KEY(event, company, endpoint))
        WITHOUT ROWID;
";

/// "The number of endpoints that can subscribe to the same business event in a legal entity is limited to ten."
const ENDPOINTS_MAX: i64 = 10;

/// "The system retries to send the business events three times with an interval of one second per retry."
const RETRY_WAITS_MS: [u64; 3] = [1_000; 3];

/// How long an endpoint may take to answer is not documented.
const TIMEOUT_MS: u32 = 30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Business,
    Data,
}

/// One event of the catalogue.
#[derive(Debug, Clone, Copy)]
struct Event {
    kind: Kind,
    operation: Operation,
}

impl Event {
    const ALL: [Self; 6] = {
        const fn event(kind: Kind, operation: Operation) -> Event {
            Event { kind, operation }
        }
        [
            event(Kind::Business, Operation::Create),
            event(Kind::Business, Operation::Update),
            event(Kind::Business, Operation::Delete),
            event(Kind::Data, Operation::Create),
            event(Kind::Data, Operation::Update),
            event(Kind::Data, Operation::Delete),
        ]
    };

    /// The event's id: `<noun><past tense action>BusinessEvent`, or the message of the virtual table.
    fn id(self, table: &Table) -> String {
        let name = entity_name(table);
        match self.kind {
            Kind::Business => format!("{}{}BusinessEvent", name.strip_suffix("Entity").unwrap_or(name), self.action()),
            Kind::Data => format!("{name}_{}", self.message()),
        }
    }

    /// What people read: `Customer groups created`.
    fn title(self, table: &Table) -> String {
        format!("{} {}", label(table), self.action().to_lowercase())
    }

    const fn action(self) -> &'static str {
        match self.operation {
            Operation::Create => "Created",
            Operation::Update => "Updated",
            Operation::Delete => "Deleted",
        }
    }

    /// The message that a virtual table has for changes made elsewhere.
    const fn message(self) -> &'static str {
        match self.operation {
            Operation::Create => "OnExternalCreated",
            Operation::Update => "OnExternalUpdated",
            Operation::Delete => "OnExternalDeleted",
        }
    }
}

/// Whether any event is active.
pub(super) fn are_active(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS(SELECT 1 FROM event_activation WHERE is_active)", [], |row| row.get(0))
}

/// The addresses to which an event of a company goes.
fn endpoints(connection: &Connection, event: &str, company: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT DISTINCT url FROM event_activation JOIN event_endpoint ON name = endpoint
             WHERE event = ?1 AND is_active AND company IN ('', ?2) ORDER BY name",
        )?
        .query_map(params![event, company], |row| row.get(0))?
        .collect()
}

/// Queues what a row write gives to tell. It is sent when the transaction is committed, and forgotten otherwise.
pub(super) fn raise(session: &mut Session<'_>, write: &RowWrite<'_>) -> rusqlite::Result<()> {
    let table = write.table;
    let Some(row) = write.after.or(write.before) else { return Ok(()) };
    let company = table.company.and_then(|at| cell::text_of(row[at])).unwrap_or_default();
    for event in Event::ALL.into_iter().filter(|event| event.operation == write.operation) {
        let id = event.id(table);
        let urls = endpoints(session.connection(), &id, &company)?;
        if urls.is_empty() {
            continue;
        }
        let control_number = session.next();
        let now = session.clock.now();
        let body = match event.kind {
            Kind::Business => payload::business(&id, table, row, &company, control_number, now),
            Kind::Data => payload::data(session.connection(), event, write, now)?,
        };
        let owner = match event.kind {
            Kind::Business => Owner::BusinessEvent,
            Kind::Data => Owner::DataEvent,
        };
        for url in urls {
            let message = Message {
                owner,
                reference: id.clone(),
                url,
                headers: vec![("Content-Type".into(), "application/json; charset=utf-8".into())],
                body: body.to_string().into_bytes(),
                timeout_ms: TIMEOUT_MS,
                retry: Retry { waits_ms: RETRY_WAITS_MS.to_vec(), after: RetryAfter::AnyFailure },
            };
            let due = session.clock.steady();
            post::enqueue(session, &message, due)?;
        }
    }
    Ok(())
}
