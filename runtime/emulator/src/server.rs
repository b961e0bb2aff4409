//! HTTP: from a connection to a request, from a request to its dialect, and the faults on the way.
//!
//! Owns the socket's side of everything; a request is answered on a blocking thread, because the store blocks.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::body::HttpBody as _;
use axum::extract::{ConnectInfo, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request as HttpRequest, Response as HttpResponse, StatusCode};
use dualwright_odata::batch::{Request, Response, header};
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::batch::{self, Site};
use crate::clock::http_date;
use crate::connection::{Entrance, Peer};
use crate::fault::FaultAction;
use crate::outlet::{self, Answer, Outlet};
use crate::requests::{RequestEntry, shown_url};
use crate::token::Tokens;
use crate::{Dialect, Inner, ServeOptions, dataverse, edge, exchange, finops, own, post};

/// Requests under way at the end get that long.
const LAST_REQUESTS_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Server {
    inner: Arc<Inner>,
    tokens: Option<Arc<Tokens>>,
    scheme: &'static str,
    stopping: watch::Receiver<bool>,
}

pub(crate) async fn serve(
    inner: Arc<Inner>,
    options: ServeOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let tls = options.tls.map(|identity| identity.acceptor()).transpose()?;
    let jobs = (inner.store.dialect == Dialect::Finops)
        .then(|| tokio::spawn(finops::package::run(Arc::clone(&inner), stopping.clone())));
    let server = Server {
        inner: Arc::clone(&inner),
        tokens: options.tokens.map(|check| Arc::new(Tokens::new(check))),
        scheme: if tls.is_some() { "https" } else { "http" },
        stopping: stopping.clone(),
    };
    let service = Router::new().fallback(handle).with_state(server).into_make_service_with_connect_info::<Peer>();
    let serving = axum::serve(Entrance::new(listener, tls), service).with_graceful_shutdown(async move {
        shutdown.await;
        stop.send_replace(true);
    });
    let posting = tokio::spawn(post::run(Arc::clone(&inner), stopping.clone()));
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
    // The listener may be gone without anybody having asked for the end.
    posting.abort();
    let _ = posting.await;
    tokio::task::spawn_blocking(move || inner.store.checkpoint()).await?;
    Ok(())
}

/// One request from its head to the head of its answer, and the entry that remembers both.
async fn handle(
    State(server): State<Server>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: HttpRequest<Body>,
) -> HttpResponse<Body> {
    let inner = Arc::clone(&server.inner);
    let dialect = inner.store.dialect;
    let started = Instant::now();
    let at = inner.clock.now();
    let (parts, body) = request.into_parts();
    let (method, url) = (parts.method.as_str().to_owned(), target(&parts));
    let is_own = is_below(&url, own::ROOT);
    let is_head = method == "HEAD";
    let mut client = None;
    let mut answer = match read_body(body).await {
        Ok(body) => {
            let request = raised(&parts, &url, body);
            server.answer(&peer, request, is_own, &mut client).await
        }
        Err(Unread::TooLarge) => Some(batch::error(dialect, 413, "0x80040203", "The message is too large.").into()),
        Err(Unread::Broken) => Some(batch::error(dialect, 400, "0x80060888", "The message broke off.").into()),
    };
    if !is_own {
        inner.requests.add(RequestEntry {
            seq: 0,
            at,
            method,
            url: shown_url(&url),
            status: answer.as_ref().map_or(0, |answer| answer.response.status),
            ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            client: client.as_deref().map(str::to_owned),
        });
        if let Some(Answer { response, .. }) = &mut answer {
            edge::identify(dialect, response);
            response.headers.push(("Date".into(), http_date(inner.clock.now_seconds())));
        }
        inner.faults.answered();
    }
    let Some(mut answer) = answer else {
        peer.cut();
        return outgoing(exchange::no_content(503).into());
    };
    if is_head {
        answer.response.body.clear();
    }
    outgoing(answer)
}

impl Server {
    /// The answer to a request; `None` when the connection shall break instead.
    async fn answer(
        &self,
        peer: &Peer,
        request: Request,
        is_own: bool,
        client: &mut Option<Arc<str>>,
    ) -> Option<Answer> {
        let inner = &self.inner;
        let dialect = inner.store.dialect;
        if is_own {
            return Some(self.respond(request, None).await);
        }
        let host = header(&request.headers, "host").unwrap_or("localhost");
        let base = format!("{}://{host}", self.scheme);
        if let Some(tokens) = &self.tokens
            && let Some(response) = tokens.answer(&inner.clock, &base, &request)
        {
            return Some(response.into());
        }
        if is_service(dialect, &request.url)
            && let Some(refusal) = edge::refuse(dialect, &request)
        {
            return Some(refusal.into());
        }
        if let Some(tokens) = &self.tokens {
            *client = tokens.caller(&inner.clock, host, &request.headers);
            if client.is_none() && needs_token(dialect, &request.url) {
                return Some(tokens.unauthorized(dialect, &base).into());
            }
        }
        let caller = client.clone();
        let Some(action) = inner.faults.strike(false, &request.method, &request.url, &request.body) else {
            return Some(self.respond(request, caller).await);
        };
        self.suffer(peer, action, request, caller).await
    }

    /// Lets a fault strike.
    async fn suffer(
        &self,
        peer: &Peer,
        action: FaultAction,
        mut request: Request,
        caller: Option<Arc<str>>,
    ) -> Option<Answer> {
        let inner = &self.inner;
        match action {
            FaultAction::Slow { ms } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Some(self.respond(request, caller).await)
            }
            FaultAction::Hold { answers, ms_max } => {
                let response = self.respond(request, caller).await;
                let mut stopping = self.stopping.clone();
                tokio::select! {
                    () = inner.faults.after_answers(answers) => {}
                    () = tokio::time::sleep(Duration::from_millis(ms_max)) => {}
                    _ = stopping.wait_for(|stopping| *stopping) => {}
                }
                Some(response)
            }
            FaultAction::Answer { status, code, message, retry_after, after_applying } => {
                if after_applying {
                    self.respond(request, caller).await;
                }
                let retry_after = retry_after.map(|after| after.header(&inner.clock));
                Some(batch::ordered(inner.store.dialect, status, &code, &message, retry_after).into())
            }
            FaultAction::Hang { after_applying } => {
                if after_applying {
                    self.respond(request, caller).await;
                }
                let mut stopping = self.stopping.clone();
                let _ = stopping.wait_for(|stopping| *stopping).await;
                peer.cut();
                None
            }
            FaultAction::Reset => None,
            FaultAction::ApplyThenReset => {
                self.respond(request, caller).await;
                None
            }
            FaultAction::IgnoreIfMatch => {
                request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("if-match"));
                Some(self.respond(request, caller).await)
            }
            FaultAction::ExpireDeltaLinks => {
                let expiring = Arc::clone(inner);
                let expired = tokio::task::spawn_blocking(move || dataverse::expire_links(&expiring.store)).await;
                if !matches!(expired, Ok(Ok(()))) {
                    tracing::error!("delta links could not be expired");
                }
                Some(self.respond(request, caller).await)
            }
            FaultAction::Skew { ms } => {
                inner.clock.set_skew_ms(ms);
                Some(self.respond(request, caller).await)
            }
            // These strike elsewhere, and never here.
            FaultAction::Normalise { .. }
            | FaultAction::SplitChangeSets
            | FaultAction::DuplicateEvent { .. }
            | FaultAction::LateEvent { .. }
            | FaultAction::LoseEvent => Some(self.respond(request, caller).await),
        }
    }

    /// The answer, as soon as its head is there.
    async fn respond(&self, request: Request, caller: Option<Arc<str>>) -> Answer {
        let inner = Arc::clone(&self.inner);
        let scheme = self.scheme;
        let dialect = inner.store.dialect;
        let (outlet, inlet) = outlet::channel();
        let answering = tokio::task::spawn_blocking(move || {
            let outlet = Arc::new(outlet);
            let may_begin = request.method == "GET" && !edge::wants_compression(&request);
            let ahead = may_begin.then(|| Arc::clone(&outlet));
            let mut response = route(&inner, scheme, caller, ahead, &request);
            if !outlet.has_begun() {
                edge::compress(&request, &mut response);
            }
            outlet.finish(response);
        });
        if let Some(answer) = inlet.answer().await {
            return answer;
        }
        if let Err(error) = answering.await {
            tracing::error!(%error, "a request was not answered");
        }
        batch::error(dialect, 500, "0x80040216", "An unexpected error occurred.").into()
    }
}

fn route(
    inner: &Inner,
    scheme: &str,
    caller: Option<Arc<str>>,
    outlet: Option<Arc<Outlet>>,
    request: &Request,
) -> Response {
    let path = request.url.split('?').next().unwrap_or_default();
    if let Some(below) = path.strip_prefix(own::ROOT).filter(|_| is_below(path, own::ROOT)) {
        return own::route(inner, below, request);
    }
    if path == "/" {
        return own::front_page(inner);
    }
    let host = header(&request.headers, "host").unwrap_or("localhost");
    let nothing = || batch::error(inner.store.dialect, 404, "0x80060888", &format!("There is nothing at {path}."));
    let base = format!("{scheme}://{host}");
    if inner.store.dialect == Dialect::Finops {
        return finops::answer(inner, &base, caller, outlet, request).unwrap_or_else(nothing);
    }
    let Some(root) = dataverse::root(path) else { return nothing() };
    let site = Site { base, root: root.to_owned(), company: String::new(), caller, user: None, outlet };
    dataverse::answer(inner, site, request)
}

/// Whether a URL is below the root of the service itself, where its rules about requests hold.
fn is_service(dialect: Dialect, url: &str) -> bool {
    let path = url.split('?').next().unwrap_or_default();
    match dialect {
        Dialect::Dataverse => dataverse::root(path).is_some(),
        Dialect::Finops => finops::is_service(path),
    }
}

/// Blobs are reached by URLs that carry their own authorisation, and the front page says nothing worth one.
fn needs_token(dialect: Dialect, url: &str) -> bool {
    let path = url.split('?').next().unwrap_or_default();
    path != "/" && !(dialect == Dialect::Finops && finops::package::is_blob(path))
}

fn is_below(url: &str, root: &str) -> bool {
    url.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Path and query as they were sent. A request through a proxy names the whole URL.
fn target(parts: &Parts) -> String {
    parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()
}

fn raised(parts: &Parts, url: &str, body: Vec<u8>) -> Request {
    Request {
        method: parts.method.as_str().to_owned(),
        url: url.to_owned(),
        headers: owned(&parts.headers),
        body,
        content_id: None,
    }
}

/// Why there is no body.
enum Unread {
    TooLarge,
    /// The caller went away, or its chunks make no sense. Half a message is none.
    Broken,
}

/// Reads a body. What is too large is read to its end all the same, within reason: a caller that is still sending would
/// not see the answer.
async fn read_body(body: Body) -> Result<Vec<u8>, Unread> {
    let mut whole =
        Vec::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or(0).min(edge::BODY_BYTES_MAX));
    let mut length = 0_usize;
    let mut stream = body.into_data_stream();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| Unread::Broken)?;
        length = length.saturating_add(part.len());
        if length > edge::BODY_BYTES_DRAINED_MAX {
            break;
        }
        if length > edge::BODY_BYTES_MAX {
            whole = Vec::new();
        } else {
            whole.extend_from_slice(&part);
        }
    }
    if length > edge::BODY_BYTES_MAX { Err(Unread::TooLarge) } else { Ok(whole) }
}

fn owned(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

fn outgoing(Answer { response, rest }: Answer) -> HttpResponse<Body> {
    let mut out = HttpResponse::new(match rest {
        None => Body::from(response.body),
        Some(rest) => Body::from_stream(stream::once(ready(Ok(response.body.into()))).chain(rest)),
    });
    *out.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            out.headers_mut().append(name, value);
        }
    }
    out
}
