//! `/_emulator/events`: what F&O keeps on its page "Business events".
//!
//! Owns the catalogue as it is shown, endpoints, activations per legal entity, and the errors with resending.
//!
//! * `GET /events`: endpoints, activations and errors; `GET /events/catalog`: every event with its fields
//! * `GET /events/schema?event=…`: the contract of a business event without values
//! * `PUT /events/endpoints` `{"name", "url"}`; `DELETE /events/endpoints?name=…`
//! * `PUT /events/activations` `{"event", "legalEntity", "endpoint", "active"}`: `legalEntity` empty for all of them, `active`
//!   false to pause; `DELETE /events/activations?event=…&legalEntity=…&endpoint=…`
//! * `POST /events/resend` `{"id"}`: an error once more, with its retries

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{self, Resource};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ENDPOINTS_MAX, Event, Kind, payload};
use crate::Inner;
use crate::catalogue::{Catalogue, Table};
use crate::exchange::{self, no_content};
use crate::finops::package::{entities, label};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    name: String,
    url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Activation {
    event: String,
    #[serde(default)]
    legal_entity: String,
    endpoint: String,
    #[serde(default = "yes")]
    active: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resend {
    id: i64,
}

/// Answers a request below `/_emulator/events`; `None` when the path means nothing there.
pub(in crate::finops) fn answer(inner: &Inner, path: &str, request: &Request) -> Option<Result<Response, String>> {
    let query = match url::parse(&request.url) {
        Ok(query) => query,
        Err(error) => return Some(Err(error.to_string())),
    };
    let below = path.strip_prefix("/events")?;
    let answered = match (request.method.as_str(), below) {
        ("GET", "") => state(inner),
        ("GET", "/catalog") => Ok(shown(&catalog(&inner.store.catalogue()))),
        ("GET", "/schema") => schema(inner, &query),
        ("PUT" | "POST", "/endpoints") => read(request).and_then(|endpoint| put_endpoint(inner, &endpoint)),
        ("DELETE", "/endpoints") => {
            change(inner, "DELETE FROM event_endpoint WHERE name = ?1", &[query.option("name").unwrap_or_default()])
        }
        ("PUT" | "POST", "/activations") => read(request).and_then(|activation| activate(inner, &activation)),
        ("DELETE", "/activations") => change(
            inner,
            "DELETE FROM event_activation WHERE event = ?1 AND company = lower(?2) AND endpoint = ?3",
            &["event", "legalEntity", "endpoint"].map(|name| query.option(name).unwrap_or_default()),
        ),
        ("POST", "/resend") => read(request).and_then(|resend: Resend| send_again(inner, resend.id)),
        _ => return None,
    };
    inner.finops.watch.forget();
    Some(answered)
}

fn read<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, String> {
    serde_json::from_slice(&request.body).map_err(|error| error.to_string())
}

fn shown(value: &Value) -> Response {
    exchange::json(200, value.to_string().into_bytes())
}

fn change(inner: &Inner, statement: &str, values: &[&str]) -> Result<Response, String> {
    let changed = inner
        .store
        .write(false, |session| session.connection().execute(statement, rusqlite::params_from_iter(values)))
        .map_err(|error: rusqlite::Error| error.to_string())?;
    if changed > 0 { Ok(no_content(204)) } else { Err("there is no such thing".to_owned()) }
}

/// The table and the event behind an id of the catalogue.
fn find(catalogue: &Catalogue, id: &str) -> Result<(Arc<Table>, Event), String> {
    let events = entities(catalogue).flat_map(|table| Event::ALL.into_iter().map(move |event| (table, event)));
    let found = events.into_iter().find(|(table, event)| event.id(table).eq_ignore_ascii_case(id.trim()));
    found.map(|(table, event)| (Arc::clone(table), event)).ok_or_else(|| format!("there is no event {id}"))
}

fn catalog(catalogue: &Catalogue) -> Value {
    let of = |kind: Kind| {
        let events = entities(catalogue).flat_map(move |table| {
            Event::ALL.into_iter().filter(move |event| event.kind == kind).map(move |event| {
                let fields = match kind {
                    Kind::Business => payload::schema(&event.id(table), table)
                        .as_object()
                        .map(|sample| sample.keys().cloned().collect::<Vec<_>>())
                        .unwrap_or_default(),
                    Kind::Data => table.columns.iter().map(|column| payload::logical_name(&column.property)).collect(),
                };
                json!({
                    "id": event.id(table),
                    "category": label(table),
                    "name": event.title(table),
                    "companySpecific": table.company.is_some(),
                    "fields": fields,
                })
            })
        });
        events.collect::<Vec<_>>()
    };
    json!({"businessEvents": of(Kind::Business), "dataEvents": of(Kind::Data)})
}

fn schema(inner: &Inner, query: &Resource) -> Result<Response, String> {
    let id = query.option("event").unwrap_or_default();
    let (table, event) = find(&inner.store.catalogue(), id)?;
    if event.kind != Kind::Business {
        return Err("the schema of a data event is that of its virtual table".to_owned());
    }
    Ok(shown(&payload::schema(id, &table)))
}

fn put_endpoint(inner: &Inner, endpoint: &Endpoint) -> Result<Response, String> {
    if endpoint.name.trim().is_empty() {
        return Err("an endpoint needs a name".to_owned());
    }
    // F&O takes HTTPS only; plain HTTP is for receivers on a developer's machine.
    if !endpoint.url.starts_with("https://") && !endpoint.url.starts_with("http://") {
        return Err("the address of an endpoint begins with https:// or http://".to_owned());
    }
    change(
        inner,
        "INSERT INTO event_endpoint VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET url = excluded.url",
        &[endpoint.name.trim(), &endpoint.url],
    )
}

fn activate(inner: &Inner, activation: &Activation) -> Result<Response, String> {
    let (table, event) = find(&inner.store.catalogue(), &activation.event)?;
    let company = activation.legal_entity.trim().to_lowercase();
    if table.company.is_none() && !company.is_empty() {
        return Err(format!("{} is not company-specific; it is activated in all legal entities", activation.event));
    }
    let outcome = inner.store.write(false, |session| {
        let connection = session.connection();
        let is_there = |sql: &str, values: &[&str]| -> rusqlite::Result<i64> {
            connection.query_row(sql, rusqlite::params_from_iter(values), |row| row.get(0))
        };
        if is_there("SELECT count(*) FROM event_endpoint WHERE name = ?1", &[&activation.endpoint])? == 0 {
            return Ok(Some(format!("there is no endpoint {}", activation.endpoint)));
        }
        let id = event.id(&table);
        let others = is_there(
            "SELECT count(*) FROM event_activation WHERE event = ?1 AND company = ?2 AND endpoint <> ?3",
            &[&id, &company, &activation.endpoint],
        )?;
        if others >= ENDPOINTS_MAX {
            return Ok(Some(format!(
                "{id} has {ENDPOINTS_MAX} endpoints already, which is the limit in a legal entity"
            )));
        }
        connection.execute(
            "INSERT OR REPLACE INTO event_activation VALUES (?1, ?2, ?3, ?4)",
            params![id, company, activation.endpoint, activation.active],
        )?;
        Ok(None)
    });
    match outcome.map_err(|error: rusqlite::Error| error.to_string())? {
        None => Ok(no_content(204)),
        Some(refusal) => Err(refusal),
    }
}

fn state(inner: &Inner) -> Result<Response, String> {
    let rows = |connection: &Connection, sql: &str, shape: fn(&rusqlite::Row<'_>) -> rusqlite::Result<Value>| {
        connection.prepare(sql)?.query_map([], shape)?.collect::<rusqlite::Result<Vec<_>>>()
    };
    let state = inner.store.read(|connection| {
        let endpoints = rows(connection, "SELECT name, url FROM event_endpoint ORDER BY name", |row| {
            Ok(json!({"name": row.get::<_, String>(0)?, "url": row.get::<_, String>(1)?}))
        })?;
        let activations = rows(
            connection,
            "SELECT event, company, endpoint, is_active FROM event_activation ORDER BY event, company, endpoint",
            |row| {
                Ok(json!({
                    "event": row.get::<_, String>(0)?, "legalEntity": row.get::<_, String>(1)?,
                    "endpoint": row.get::<_, String>(2)?, "active": row.get::<_, bool>(3)?,
                }))
            },
        )?;
        let errors = rows(
            connection,
            "SELECT id, reference, attempts, outcome, body FROM post
             WHERE due IS NULL AND owner IN ('business-event', 'data-event') ORDER BY id",
            |row| {
                let body: Vec<u8> = row.get(4)?;
                Ok(json!({
                    "id": row.get::<_, i64>(0)?, "event": row.get::<_, String>(1)?, "attempts": row.get::<_, i64>(2)?,
                    "error": row.get::<_, String>(3)?,
                    "payload": serde_json::from_slice::<Value>(&body).unwrap_or_default(),
                }))
            },
        )?;
        Ok(json!({"endpoints": endpoints, "activations": activations, "errors": errors}))
    });
    Ok(shown(&state.map_err(|error: rusqlite::Error| error.to_string())?))
}

/// Goes to the endpoint that the event has now, which may be another one than when it failed.
fn send_again(inner: &Inner, id: i64) -> Result<Response, String> {
    let sent = inner.store.write(false, |session| {
        let found: Option<String> = session
            .connection()
            .query_row("SELECT reference FROM post WHERE id = ?1 AND due IS NULL", [id], |row| row.get(0))
            .optional()?;
        let Some(event) = found else { return Ok(false) };
        session.connection().execute(
            "UPDATE post SET attempts = 0, due = ?2, outcome = '',
                url = coalesce((SELECT url FROM event_activation JOIN event_endpoint ON name = endpoint
                    WHERE event = ?3 AND is_active AND url = post.url),
                    (SELECT url FROM event_activation JOIN event_endpoint ON name = endpoint
                    WHERE event = ?3 AND is_active ORDER BY name LIMIT 1), url)
             WHERE id = ?1",
            params![id, session.clock.steady(), event],
        )?;
        session.queued();
        Ok(true)
    });
    match sent.map_err(|error: rusqlite::Error| error.to_string())? {
        true => Ok(no_content(204)),
        false => Err(format!("there is no error {id}")),
    }
}
