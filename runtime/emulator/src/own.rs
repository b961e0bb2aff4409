//! What only an emulator answers: `/_emulator/…`.
//!
//! Owns the way to the audit, the clock, faults, requests, seeding and the pages; what they mean is their own business.
//! Nothing here asks for a token: it is the handle of whoever runs the emulator, who listens where they choose.

use std::time::Duration;

use dualwright_odata::batch::{Request, Response, header};
use dualwright_odata::literal::format_date_time;
use serde::Deserialize;

use crate::clock::Clock;
use crate::fault::FaultPlan;
use crate::seed::SeedPlan;
use crate::{Dialect, Inner, audit, catalogue, dataverse, exchange, finops, page, post};

pub(crate) const ROOT: &str = "/_emulator";

/// Answers a request to `path`, below the root.
pub(crate) fn route(inner: &Inner, path: &str, request: &Request) -> Response {
    let method = if request.method == "HEAD" { "GET" } else { request.method.as_str() };
    if method != "GET" && is_foreign(request) {
        return refuse(403, "a page of another site may not change an emulator".to_owned());
    }
    if inner.store.dialect == Dialect::Finops
        && let Some(outcome) = finops::own_route(inner, path, request)
    {
        return outcome.unwrap_or_else(|message| refuse(400, message));
    }
    match (method, path) {
        ("GET", "/audit") => match number_option(request, "after") {
            Ok(after) => match inner.store.read(|connection| audit::entries(connection, after)) {
                Ok(entries) => exchange::json(200, serde_json::to_vec(&entries).unwrap_or_default()),
                Err(error) => refuse(500, error.to_string()),
            },
            Err(error) => refuse(400, error),
        },
        ("GET", "/requests") => {
            let requests = inner.requests.newest(usize::MAX);
            exchange::json(200, serde_json::to_vec(&requests).unwrap_or_default())
        }
        ("GET", "/faults") => exchange::json(200, inner.faults.shown().to_string().into_bytes()),
        ("POST", "/faults") => match FaultPlan::from_json(&request.body) {
            Ok(plan) => {
                inner.faults.add(plan);
                exchange::no_content(204)
            }
            Err(error) => refuse(400, format!("{error:#}")),
        },
        ("DELETE", "/faults") => {
            inner.faults.clear();
            exchange::no_content(204)
        }
        ("POST", "/seed") => match SeedPlan::from_json("the request", &String::from_utf8_lossy(&request.body))
            .and_then(|plan| plan.apply(inner))
        {
            Ok(report) => exchange::json(200, serde_json::to_vec(&report).unwrap_or_default()),
            Err(error) => refuse(400, format!("{error:#}")),
        },
        ("GET", "/clock") => exchange::json(200, clock_state(&inner.clock)),
        ("POST", "/clock") => match serde_json::from_slice::<ClockChange>(&request.body) {
            Ok(change) => {
                change.apply(&inner.clock);
                exchange::json(200, clock_state(&inner.clock))
            }
            Err(error) => refuse(400, error.to_string()),
        },
        (_, "/post") => post::route(inner, request),
        (_, "/limits") if inner.store.dialect == Dialect::Dataverse => {
            inner.dataverse.limits.route(inner.clock.steady(), request)
        }
        ("POST", "/dual-write-users") if inner.store.dialect == Dialect::Dataverse => {
            match dataverse::add_dual_write_users(inner) {
                Ok(()) => exchange::no_content(204),
                Err(error) => refuse(500, format!("{error:#}")),
            }
        }
        ("DELETE", "/link-package") => match catalogue::remove_link_package(&inner.store) {
            Ok(()) => exchange::no_content(204),
            Err(error) => refuse(500, format!("{error:#}")),
        },
        ("POST", "/expire-delta-links") => match dataverse::expire_links(&inner.store) {
            Ok(()) => exchange::no_content(204),
            Err(error) => refuse(500, error.to_string()),
        },
        ("GET", _) => page::answer(inner, path, request)
            .unwrap_or_else(|| refuse(404, format!("there is nothing at {}", request.url))),
        _ => refuse(404, format!("{} {} is not known", request.method, request.url)),
    }
}

fn refuse(status: u16, message: String) -> Response {
    let error = serde_json::json!({"error": {"code": "emulator", "message": message}});
    exchange::json(status, error.to_string().into_bytes())
}

/// Whether a browser sends this for a page that is not ours.
fn is_foreign(request: &Request) -> bool {
    let host = header(&request.headers, "host").unwrap_or_default();
    header(&request.headers, "origin").is_some_and(|origin| {
        origin.split_once("://").is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
    })
}

fn number_option(request: &Request, name: &str) -> Result<i64, String> {
    let resource = dualwright_odata::url::parse(&request.url).map_err(|error| error.to_string())?;
    resource.option(name).map_or(Ok(0), str::parse).map_err(|_| format!("{name} has to be a number"))
}

/// What `POST /_emulator/clock` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct ClockChange {
    /// Moves the time on by that much.
    advance_ms: u64,
    /// What the system says the time is, is wrong by that much from now on.
    skew_ms: Option<i64>,
}

impl ClockChange {
    fn apply(&self, clock: &Clock) {
        clock.advance(Duration::from_millis(self.advance_ms));
        if let Some(skew_ms) = self.skew_ms {
            clock.set_skew_ms(skew_ms);
        }
    }
}

fn clock_state(clock: &Clock) -> Vec<u8> {
    let now = format_date_time(clock.now());
    serde_json::json!({"now": now, "skewMs": clock.skew_ms()}).to_string().into_bytes()
}

/// What is at the host's own root: which system this is, and how many rows it has.
pub(crate) fn front_page(inner: &Inner) -> Response {
    let catalogue = inner.store.catalogue();
    let counts = inner.store.read(|connection| {
        catalogue
            .tables()
            .map(|table| Ok((table.set().to_owned(), crate::store::count(connection, table)?.into())))
            .collect::<rusqlite::Result<serde_json::Map<String, serde_json::Value>>>()
    });
    let root = match inner.store.dialect {
        Dialect::Dataverse => dataverse::ROOT,
        Dialect::Finops => finops::ROOT,
    };
    let page = serde_json::json!({
        "system": inner.store.dialect.name(),
        "root": root,
        "sets": counts.unwrap_or_default(),
    });
    exchange::json(200, page.to_string().into_bytes())
}
