//! HTTP: from a connection to a request, from a request to its dialect, and the faults on the way.
//!
//! Owns the socket's side of everything; a request is answered on a blocking thread, because the store blocks.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request as HttpRequest, Response as HttpResponse, StatusCode};
use dualwright_odata::batch::{Request, Response, header};
use dualwright_odata::literal::format_date_time;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::batch::{self, Site};
use crate::clock::Clock;
use crate::connection::{Cuttable, Peer};
use crate::fault::FaultAction;
use crate::{Dialect, Inner, audit, dataverse, exchange, finops};

/// The largest message that Dataverse takes is 116.85 MB.
const BODY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Requests under way at the end get that long.
const LAST_REQUESTS_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Server {
    inner: Arc<Inner>,
    stopping: watch::Receiver<bool>,
}

pub(crate) async fn serve(
    inner: Arc<Inner>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let jobs = (inner.store.dialect == Dialect::Finops)
        .then(|| tokio::spawn(finops::package::run(Arc::clone(&inner), stopping.clone())));
    let server = Server { inner: Arc::clone(&inner), stopping: stopping.clone() };
    let service = Router::new().fallback(handle).with_state(server).into_make_service_with_connect_info::<Peer>();
    let serving = axum::serve(Cuttable::new(listener), service).with_graceful_shutdown(async move {
        shutdown.await;
        stop.send_replace(true);
    });
    let mut stopped = stopping;
    tokio::select! {
        result = serving.into_future() => result?,
        () = async {
            // The sender goes only together with the branch above.
            let _ = stopped.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(LAST_REQUESTS_MAX).await;
        } => tracing::warn!("requests were still under way at the end"),
    }
    if let Some(jobs) = jobs {
        jobs.await?;
    }
    tokio::task::spawn_blocking(move || inner.store.checkpoint()).await?;
    Ok(())
}

async fn handle(
    State(server): State<Server>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: HttpRequest<Body>,
) -> HttpResponse<Body> {
    let dialect = server.inner.store.dialect;
    let (parts, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(_) => return outgoing(batch::error(dialect, 413, "0x80040203", "The message is too large.")),
    };
    let request = Request {
        method: parts.method.as_str().to_owned(),
        url: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: owned(&parts.headers),
        body: body.to_vec(),
        content_id: None,
    };
    let is_own = request.url.starts_with("/_emulator");
    let struck =
        if is_own { None } else { server.inner.faults.strike(false, &request.method, &request.url, &request.body) };
    let is_head = request.method == "HEAD";
    let mut response = match struck {
        None => respond(&server, request).await,
        Some(FaultAction::Slow { ms }) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            respond(&server, request).await
        }
        Some(FaultAction::Answer { status, code, message, retry_after, after_applying }) => {
            if after_applying {
                respond(&server, request).await;
            }
            batch::ordered(dialect, status, &code, &message, retry_after.map(|after| after.to_string()))
        }
        Some(FaultAction::Hang { after_applying }) => {
            if after_applying {
                respond(&server, request).await;
            }
            let mut stopping = server.stopping.clone();
            let _ = stopping.wait_for(|stopping| *stopping).await;
            peer.cut();
            exchange::no_content(503)
        }
        Some(FaultAction::Reset) => {
            peer.cut();
            exchange::no_content(503)
        }
        Some(FaultAction::ApplyThenReset) => {
            respond(&server, request).await;
            peer.cut();
            exchange::no_content(503)
        }
    };
    if is_head {
        response.body.clear();
    }
    outgoing(response)
}

async fn respond(server: &Server, request: Request) -> Response {
    let inner = Arc::clone(&server.inner);
    let dialect = inner.store.dialect;
    tokio::task::spawn_blocking(move || route(&inner, &request)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request was not answered");
        batch::error(dialect, 500, "0x80040216", "An unexpected error occurred.")
    })
}

fn route(inner: &Inner, request: &Request) -> Response {
    let path = request.url.split('?').next().unwrap_or_default();
    if let Some(own) = path.strip_prefix("/_emulator") {
        return own_route(inner, own, request);
    }
    if path == "/" {
        return front_page(inner);
    }
    let host = header(&request.headers, "host").unwrap_or("localhost");
    let nothing = || batch::error(inner.store.dialect, 404, "0x80060888", &format!("There is nothing at {path}."));
    let base = format!("http://{host}");
    if inner.store.dialect == Dialect::Finops {
        return finops::answer(inner, &base, request).unwrap_or_else(nothing);
    }
    let Some(root) = dataverse::root(path) else { return nothing() };
    let site = Site { base, root: root.to_owned(), company: String::new() };
    if path[root.len()..].eq_ignore_ascii_case("/$batch") {
        return if request.method == "POST" {
            batch::whole(inner, &site, request)
        } else {
            batch::error(inner.store.dialect, 405, "0x80060888", "A batch has to be posted.")
        };
    }
    batch::single(inner, &site, request)
}

/// What only an emulator answers: the audit, faults, and the age of delta links.
fn own_route(inner: &Inner, path: &str, request: &Request) -> Response {
    let refuse = |status: u16, message: String| {
        let error = serde_json::json!({"error": {"code": "emulator", "message": message}});
        exchange::json(status, error.to_string().into_bytes())
    };
    match (request.method.as_str(), path) {
        ("GET", "/audit") => {
            let after = match dualwright_odata::url::parse(&request.url) {
                Ok(resource) => resource.option("after").map_or(Ok(0), str::parse),
                Err(error) => return refuse(400, error.to_string()),
            };
            let Ok(after) = after else { return refuse(400, "after has to be a number".to_owned()) };
            match inner.store.read(|connection| audit::entries(connection, after)) {
                Ok(entries) => exchange::json(200, serde_json::to_vec(&entries).unwrap_or_default()),
                Err(error) => refuse(500, error.to_string()),
            }
        }
        ("POST", "/faults") => match serde_json::from_slice(&request.body) {
            Ok(rules) => {
                inner.faults.add(rules);
                exchange::no_content(204)
            }
            Err(error) => refuse(400, error.to_string()),
        },
        ("DELETE", "/faults") => {
            inner.faults.clear();
            exchange::no_content(204)
        }
        ("GET", "/clock") => exchange::json(200, clock_state(&inner.clock)),
        ("POST", "/clock") => match serde_json::from_slice::<ClockChange>(&request.body) {
            Ok(change) => {
                change.apply(&inner.clock);
                exchange::json(200, clock_state(&inner.clock))
            }
            Err(error) => refuse(400, error.to_string()),
        },
        ("POST", "/expire-delta-links") => match dataverse::expire_links(&inner.store) {
            Ok(()) => exchange::no_content(204),
            Err(error) => refuse(500, error.to_string()),
        },
        _ => match finops::own_route(inner, path, request).filter(|_| inner.store.dialect == Dialect::Finops) {
            Some(outcome) => outcome.unwrap_or_else(|message| refuse(400, message)),
            None => refuse(404, format!("{} {} is not known", request.method, request.url)),
        },
    }
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

fn front_page(inner: &Inner) -> Response {
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

fn owned(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

fn outgoing(response: Response) -> HttpResponse<Body> {
    let mut out = HttpResponse::new(Body::from(response.body));
    *out.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            out.headers_mut().append(name, value);
        }
    }
    out
}
