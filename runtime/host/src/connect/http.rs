//! One HTTP client per system: credentials, timeouts, throttling, and what an answer means.
//!
//! Owns the classification of answers into faults; knows nothing of rows or of either dialect.

use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dualwright_core::{Code, Fault};
use dualwright_odata::escape;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Semaphore;

/// Where a system is and how to sign in to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Scheme and host, without a path: `https://contoso.crm.dynamics.com`.
    pub base: Url,
    pub credentials: Option<ClientCredentials>,
    /// Certificates to trust beside those of the machine, as PEM.
    pub ca_pem: Option<Vec<u8>>,
}

/// OAuth 2.0 client credentials (reference 7.1 and 8.1).
#[derive(Clone)]
pub struct ClientCredentials {
    pub token_url: Url,
    pub client_id: String,
    pub client_secret: String,
    pub scope: String,
}

impl std::fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCredentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The request certainly had no effect: it was not sent, or the system refused to look at it. `retry_after` is
    /// how long the system wants to be left alone, when it says so.
    NotSent { fault: Fault, retry_after: Option<Duration> },
    /// The request may or may not have had its effect: it was sent, and no answer came that settles it.
    Unknown(Fault),
}

impl Failure {
    pub(super) const fn not_sent(fault: Fault) -> Self {
        Self::NotSent { fault, retry_after: None }
    }

    /// For requests that only read, where the difference does not matter.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        match self {
            Self::NotSent { fault, .. } | Self::Unknown(fault) => fault,
        }
    }
}

/// What a request is for; decides what is done when the system asks us to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Changes nothing: is sent again after the wait, as often as the timeout allows.
    Read,
    /// The caller decides, since it holds the budget and the fence.
    Write,
}

/// Requests under way at one time. Dataverse refuses the 53rd of one user (reference 7.8); others may share ours.
const REQUESTS_AT_ONCE_MAX: usize = 40;

/// How often a read is sent again because the system asked us to wait.
const READ_WAITS_MAX: usize = 10;

#[derive(Debug)]
pub(super) struct Client {
    inner: reqwest::Client,
    endpoint: Endpoint,
    token: Mutex<Option<(HeaderValue, Instant)>>,
    /// Until when the system wants to be left alone.
    quiet_until: Mutex<Option<Instant>>,
    permits: Semaphore,
    name: &'static str,
}

impl Client {
    /// `name` is the system's name, for messages.
    pub(super) fn new(name: &'static str, endpoint: Endpoint) -> Result<Self, Fault> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // A second installation is refused and harmless.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let no_client =
            |error: reqwest::Error| Fault::new(Code::ConfigInvalid, format!("no HTTP client for {name}: {error}"));
        let trusted = match &endpoint.ca_pem {
            Some(pem) => reqwest::Certificate::from_pem_bundle(pem).map_err(no_client)?,
            None => Vec::new(),
        };
        let inner = reqwest::Client::builder()
            .tls_certs_merge(trusted)
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(no_client)?;
        Ok(Self {
            inner,
            endpoint,
            token: Mutex::new(None),
            quiet_until: Mutex::new(None),
            permits: Semaphore::new(REQUESTS_AT_ONCE_MAX),
            name,
        })
    }

    /// Sends one request and reads the whole answer. `url` is a path with its query below the base, or an absolute
    /// link that the system itself gave us (a next link), which must point to the same host.
    ///
    /// A request that changes something and is told to wait comes back as an answer with status 429 or 503, or, while
    /// the wait lasts, as [`Failure::NotSent`] without being sent.
    pub(super) async fn send(
        &self,
        purpose: Purpose,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let url = self.resolve(url).map_err(Failure::not_sent)?;
        let map = header_map(headers).map_err(Failure::not_sent)?;
        let deadline = Instant::now() + timeout;
        let mut waits = 0;
        let mut token_renewed = false;
        loop {
            self.wait_until_welcome(purpose, deadline).await?;
            let answer = self.exchange(&method, &url, &map, body.clone(), deadline).await?;
            if let Some(after) = answer.wait_asked() {
                self.keep_quiet(after);
                if purpose == Purpose::Read && waits < READ_WAITS_MAX && Instant::now() + after < deadline {
                    waits += 1;
                    continue;
                }
            }
            if answer.status == StatusCode::UNAUTHORIZED {
                *lock(&self.token) = None;
                // A token can be revoked before it expires; a request that was refused so had no effect.
                if self.endpoint.credentials.is_some() && !token_renewed {
                    token_renewed = true;
                    continue;
                }
            }
            return Ok(answer);
        }
    }

    /// A link of the system as a path and query, so that it stays good when the system answers elsewhere later (another
    /// port, another name). A link to another host is left as it is: it will be refused when it is followed.
    pub(super) fn below_base(&self, link: String) -> String {
        match self.endpoint.base.join(&link) {
            Ok(url) if url.origin() == self.endpoint.base.origin() => match url.query() {
                Some(query) => format!("{}?{query}", url.path()),
                None => url.path().to_owned(),
            },
            _ => link,
        }
    }

    fn resolve(&self, url: &str) -> Result<Url, Fault> {
        let url = self.endpoint.base.join(url).map_err(|error| {
            Fault::new(Code::Internal, format!("{} was given a URL it cannot use: {error}", self.name))
        })?;
        if url.origin() == self.endpoint.base.origin() {
            Ok(url)
        } else {
            let what = format!("{} gave a link to another host; it is not followed", self.name);
            Err(Fault::new(Code::TargetRejected, what))
        }
    }

    /// One request, one answer.
    async fn exchange(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<Bytes>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let out_of_time =
            || Failure::not_sent(Fault::new(Code::TimedOut, format!("no time is left for {}", self.name)));
        let remaining = || deadline.saturating_duration_since(Instant::now());
        let permit = tokio::time::timeout(remaining(), self.permits.acquire()).await.map_err(|_| out_of_time())?;
        // The semaphore is never closed, so there always is a permit.
        let _permit = permit.map_err(|_| out_of_time())?;
        let token = self.token(remaining()).await?;
        let timeout = remaining();
        if timeout.is_zero() {
            return Err(out_of_time());
        }
        let mut request = self.inner.request(method.clone(), url.clone()).headers(headers.clone()).timeout(timeout);
        if let Some(token) = token {
            request = request.header(reqwest::header::AUTHORIZATION, token);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(|error| self.failure(&error))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = response.bytes().await.map_err(|error| self.failure(&error))?;
        Ok(Answer { status, headers, body })
    }

    /// Nobody knows how far a request came that was sent; one that found no connection was not sent.
    fn failure(&self, error: &reqwest::Error) -> Failure {
        if error.is_connect() || error.is_builder() {
            let what = format!("{} at {} cannot be reached: {}", self.name, self.endpoint.base, cause(error));
            return Failure::not_sent(Fault::new(Code::Unavailable, what));
        }
        let (code, what) = if error.is_timeout() {
            (Code::TimedOut, "did not answer in time")
        } else {
            (Code::Unavailable, "broke the connection")
        };
        Failure::Unknown(Fault::new(code, format!("{} {what}", self.name)))
    }

    fn keep_quiet(&self, after: Duration) {
        let until = Instant::now() + after;
        let mut quiet_until = lock(&self.quiet_until);
        *quiet_until = Some(quiet_until.map_or(until, |before| before.max(until)));
    }

    async fn wait_until_welcome(&self, purpose: Purpose, deadline: Instant) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(until) = lock(&self.quiet_until).filter(|until| *until > now) else { return Ok(()) };
        if purpose == Purpose::Read && until < deadline {
            tokio::time::sleep_until(until.into()).await;
            return Ok(());
        }
        let fault = Fault::new(Code::Throttled, format!("{} asked to be left alone for a while", self.name));
        Err(Failure::NotSent { fault, retry_after: Some(until - now) })
    }

    async fn token(&self, timeout: Duration) -> Result<Option<HeaderValue>, Failure> {
        let Some(credentials) = &self.endpoint.credentials else { return Ok(None) };
        if let Some((token, until)) = lock(&self.token).as_ref()
            && Instant::now() < *until
        {
            return Ok(Some(token.clone()));
        }
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &credentials.client_id),
            ("client_secret", &credentials.client_secret),
            ("scope", &credentials.scope),
        ]
        .iter()
        .map(|(name, value)| format!("{name}={}", escape::component(value)))
        .collect::<Vec<_>>()
        .join("&");
        let fault = |code: Code, what: &str| Fault::new(code, format!("no token for {}: {what}", self.name));
        let unreachable = |error: reqwest::Error| {
            let what = format!("the token endpoint {} cannot be reached: {}", credentials.token_url, cause(&error));
            Failure::not_sent(fault(Code::Unavailable, &what))
        };
        let response = self
            .inner
            .post(credentials.token_url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .timeout(timeout)
            .send()
            .await
            .map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            let code = match status.as_u16() {
                429 => Code::Throttled,
                500.. => Code::Unavailable,
                _ => Code::Unauthorized,
            };
            let answer = Answer { status, headers, body };
            let what = format!("the token endpoint answered {}", status.as_u16());
            let mut fault = fault(code, &what);
            // `AADSTS7000215`: the number says what is wrong, where the status only says that something is.
            fault.foreign_code = entra_code(&answer.body);
            return Err(Failure::NotSent { fault, retry_after: answer.retry_after() });
        }
        #[derive(serde::Deserialize)]
        struct Token {
            access_token: String,
            #[serde(default)]
            expires_in: u64,
        }
        let unusable = || Failure::not_sent(fault(Code::Unauthorized, "the answer is not a token"));
        let token: Token = serde_json::from_slice(&body).map_err(|_| unusable())?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.access_token)).map_err(|_| unusable())?;
        value.set_sensitive(true);
        // A minute early, so that a token does not expire on its way.
        let until = Instant::now() + Duration::from_secs(token.expires_in.saturating_sub(60));
        *lock(&self.token) = Some((value.clone(), until));
        Ok(Some(value))
    }
}

/// The code of a refusal by Microsoft Entra ID
/// (<https://learn.microsoft.com/entra/identity-platform/reference-error-codes>).
fn entra_code(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Refusal {
        error_codes: Vec<u32>,
    }
    let refusal = serde_json::from_slice::<Refusal>(body).ok()?;
    refusal.error_codes.first().map(|number| format!("AADSTS{number}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn header_map(headers: &[(&str, &str)]) -> Result<HeaderMap, Fault> {
    let mut map = HeaderMap::with_capacity(headers.len() + 3);
    map.insert("odata-version", HeaderValue::from_static("4.0"));
    map.insert("odata-maxversion", HeaderValue::from_static("4.0"));
    map.insert("accept", HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        match (HeaderName::try_from(*name), HeaderValue::try_from(*value)) {
            (Ok(name), Ok(value)) => map.insert(name, value),
            _ => return Err(Fault::new(Code::Internal, format!("the header {name} is not valid"))),
        };
    }
    Ok(map)
}

impl Answer {
    /// The fault of an answer that is not a success.
    pub(super) fn fault(&self, system: &str) -> Fault {
        fault_of(system, self.status.as_u16(), &self.body)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the answer says about waiting, if it does.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after").map(|value| retry_after(Some(value), unix_seconds()))
    }

    /// How long the system wants to be left alone; `None` when it was willing to look at the request.
    pub(super) fn wait_asked(&self) -> Option<Duration> {
        match self.status.as_u16() {
            429 => Some(self.retry_after().unwrap_or(WAIT_UNSAID)),
            // Without a wait it is a failure somewhere on the way, maybe on the way back.
            503 => self.retry_after(),
            _ => None,
        }
    }
}

pub(super) fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The wait where a system asks for one and does not say how long.
pub(super) const WAIT_UNSAID: Duration = Duration::from_secs(1);

/// How long a system asks us to wait: seconds or an HTTP date (reference 7.8, 8.2); a second when it does not say.
#[must_use]
pub(super) fn retry_after(value: Option<&str>, now_unix_seconds: i64) -> Duration {
    // Longer than any documented window (5 minutes); a garbled header must not stop a map for a day.
    const LONGEST: u64 = 600;
    let Some(value) = value.map(str::trim) else { return WAIT_UNSAID };
    if let Ok(seconds) = value.parse::<u64>() {
        return Duration::from_secs(seconds.min(LONGEST));
    }
    match parse_http_date(value) {
        Some(at) => Duration::from_secs(u64::try_from(at - now_unix_seconds).unwrap_or(0).min(LONGEST)),
        None => WAIT_UNSAID,
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7) in seconds since 1970.
pub(super) fn parse_http_date(value: &str) -> Option<i64> {
    let mut parts = value.split_ascii_whitespace().skip(1);
    let day: u8 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        .iter()
        .position(|name| *name == month)?;
    let year: i32 = parts.next()?.parse().ok()?;
    let clock = parts.next()?;
    let text = format!("{year:04}-{:02}-{day:02}T{clock}Z", month + 1);
    dualwright_core::value::parse_timestamp(&text).map(|micros| micros / 1_000_000)
}

/// What an error answer means. `body` is the OData error body, whose code is kept beside ours.
#[must_use]
pub(super) fn fault_of(system: &str, status: u16, body: &[u8]) -> Fault {
    let error = ErrorBody::read(body);
    let code = match (status, error.code.as_str()) {
        (_, "0x80040237" | "0x80060892") => Code::DuplicateKey,
        (_, "0x80060882") => Code::VersionConflict,
        (_, "0x80072321" | "0x80072322" | "0x80072326") => Code::Throttled,
        // A deadlock of the database behind Dataverse.
        (_, "0x80044150") => Code::Unavailable,
        // A duplicate detection rule: a 412 that no second reading cures.
        (_, "0x80040333") => Code::TargetRejected,
        (_, "0x80060888" | "0x8006088a") => Code::TableUnknown,
        (401 | 403, _) => Code::Unauthorized,
        (404, _) => Code::TargetGone,
        (409, _) => Code::DuplicateKey,
        (412, _) => Code::VersionConflict,
        (413, _) => Code::TooLarge,
        (429, _) => Code::Throttled,
        (400 | 500, _) if error.is_infolog && error.message.contains("already exists") => Code::DuplicateKey,
        (500, _) if error.is_infolog => Code::TargetRejected,
        (408 | 500 | 502 | 503 | 504, _) => Code::Unavailable,
        _ => Code::TargetRejected,
    };
    let foreign = if error.code.is_empty() { status.to_string() } else { error.code };
    Fault::new(code, format!("{system} answered {status}: {}", error.message)).foreign(foreign)
}

/// What an OData error body says.
#[derive(Default)]
struct ErrorBody {
    /// In hexadecimal where it is a number: Dataverse writes its codes in both ways (reference 5.3).
    code: String,
    /// The message of a remote may quote a value, so it is cut short.
    message: String,
    /// X++ refused the row. F&O says so inside, with a status that also stands for its own failures.
    is_infolog: bool,
}

impl ErrorBody {
    fn read(body: &[u8]) -> Self {
        const MESSAGE_CHARS_MAX: usize = 300;
        #[derive(serde::Deserialize)]
        struct Body {
            error: Outer,
        }
        #[derive(serde::Deserialize)]
        struct Outer {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
            innererror: Option<Inner>,
        }
        #[derive(serde::Deserialize)]
        struct Inner {
            #[serde(default)]
            message: String,
        }
        let Ok(Body { error }) = serde_json::from_slice::<Body>(body) else {
            return Self { message: "no readable error body".to_owned(), ..Self::default() };
        };
        let inner = error.innererror.map(|inner| inner.message).unwrap_or_default();
        let is_infolog = inner.contains("Infolog") || inner.starts_with("Write failed");
        // F&O's own message is always "An error has occurred."
        let message = if is_infolog { inner } else { error.message };
        let code = match error.code.parse::<i32>() {
            Ok(number) if number < 0 => format!("{number:#010x}"),
            _ if error.code.starts_with("0x") => error.code.to_ascii_lowercase(),
            _ => error.code,
        };
        Self {
            code,
            message: message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect(),
            is_infolog,
        }
    }
}

/// What lies at the bottom of an error: a refused connection, an unknown name, a certificate that nobody trusts.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_cannot_be_reached_is_named_with_the_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one");
        drop(listener);
        let base = Url::parse(&format!("http://{address}")).expect("a URL");
        let client =
            Client::new("dataverse", Endpoint { base, credentials: None, ca_pem: None }).expect("it can be made");
        let error = client.inner.get(client.endpoint.base.clone()).send().await.expect_err("nobody listens");
        let Failure::NotSent { fault, .. } = client.failure(&error) else { panic!("it was not sent") };
        assert_eq!(fault.code, Code::Unavailable);
        let wanted = format!("dataverse at http://{address}/ cannot be reached: Connection refused");
        assert!(fault.message.starts_with(&wanted), "{}", fault.message);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = dualwright_core::value::parse_timestamp("1994-11-06T08:49:30Z").expect("date") / 1_000_000;
        for (value, seconds) in [
            (Some("7"), 7),
            (Some("Sun, 06 Nov 1994 08:49:37 GMT"), 7),
            (Some("Sun, 06 Nov 1994 08:49:00 GMT"), 0),
            (Some("soon"), 1),
            (None, 1),
            (Some("99999999"), 600),
        ] {
            assert_eq!(retry_after(value, now), Duration::from_secs(seconds), "{value:?}");
        }
    }

    #[test]
    fn answers_are_classified() {
        let plain = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
        let infolog = |text: &str| {
            format!(
                r#"{{"error":{{"code":"","message":"An error has occurred.","innererror":{{"message":"Write failed for table row of type 'X'. Infolog: Error: {text}"}}}}}}"#
            )
        };
        for (status, body, wanted) in [
            (412, plain("0x80040237"), Code::DuplicateKey),
            (400, plain("0x80060892"), Code::DuplicateKey),
            (400, plain("-2147088238"), Code::DuplicateKey),
            (412, plain("0x80060882"), Code::VersionConflict),
            (412, plain(""), Code::VersionConflict),
            (412, plain("0x80040333"), Code::TargetRejected),
            (400, plain("0x80044331"), Code::TargetRejected),
            (404, plain("0x80040217"), Code::TargetGone),
            (404, plain("0x8006088A"), Code::TableUnknown),
            (429, plain("0x80072322"), Code::Throttled),
            (429, plain("-2147015902"), Code::Throttled),
            (500, plain("0x80044150"), Code::Unavailable),
            (503, plain(""), Code::Unavailable),
            (403, plain("0x80072560"), Code::Unauthorized),
            (413, plain(""), Code::TooLarge),
            (400, infolog("The record already exists."), Code::DuplicateKey),
            (500, infolog("Customer group must be filled in."), Code::TargetRejected),
            (500, "<html>".to_owned(), Code::Unavailable),
        ] {
            assert_eq!(fault_of("dataverse", status, body.as_bytes()).code, wanted, "{status} {body}");
        }
        assert_eq!(fault_of("dataverse", 400, b"<html>").foreign_code.as_deref(), Some("400"));
        let fault = fault_of("finops", 500, infolog("Customer group must be filled in.").as_bytes());
        assert!(fault.message.ends_with("Customer group must be filled in."), "{fault}");
    }

    fn answer(status: u16, retry_after: Option<&'static str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert("retry-after", HeaderValue::from_static(value));
        }
        Answer { status: StatusCode::from_u16(status).expect("status"), headers, body: Bytes::new() }
    }

    #[test]
    fn only_an_answer_that_asks_for_a_wait_is_one() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (status, retry_after, wanted) in [
            (429, Some("7"), seconds(7)),
            (429, None, seconds(1)),
            (503, Some("30"), seconds(30)),
            (503, None, None),
            (500, Some("7"), None),
            (200, Some("7"), None),
        ] {
            assert_eq!(answer(status, retry_after).wait_asked(), wanted, "{status} {retry_after:?}");
        }
    }

    #[test]
    fn links_to_other_hosts_are_not_followed() {
        let base = Url::parse("https://contoso.crm.dynamics.com/").expect("url");
        let client = Client::new("dataverse", Endpoint { base, credentials: None, ca_pem: None }).expect("client");
        for (url, follows) in [
            ("/api/data/v9.2/accounts?$top=1", true),
            ("https://contoso.crm.dynamics.com/api/data/v9.2/accounts?$skiptoken=x", true),
            ("https://evil.example/api/data/v9.2/accounts", false),
            ("http://contoso.crm.dynamics.com/api/data/v9.2/accounts", false),
            ("//evil.example/accounts", false),
        ] {
            assert_eq!(client.resolve(url).is_ok(), follows, "{url}");
        }
    }
}
