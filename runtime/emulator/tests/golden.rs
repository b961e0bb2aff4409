//! Requests and responses written from the documentation: `tests/golden/<dialect>/<topic>.http`, one story per file.
//!
//! A story runs against an emulator of its own. Its tables are those of `<dialect>/tables.json` and of
//! `<topic>.tables.json` beside it, its rows (`{"set": [row, …]}`) those of `<dialect>/rows.json` and `<topic>.rows.json`;
//! all of them may be missing. Its clock stands at 2026-01-02T03:04:05Z until the story moves it.
//!
//! ```text
//! # What this shows, and where it is documented.
//! > POST /api/data/v9.2/accounts
//! > Content-Type: application/json
//! >
//! > {"name":"A"}
//! < 204
//! < OData-EntityId: {{base}}/api/data/v9.2/accounts({{guid:a}})
//! <
//! ! POST /hook
//! ! Content-Type: application/json; charset=utf-8
//! !
//! ! {"MessageName": "Create", "...": "..."}
//! ```
//!
//! * A request is sent as it stands here, so it may be wrong in any way; `Host` and `Content-Length` are added, lines of
//!   a multipart body end with CR LF, and `{{name}}` is what was captured before. `{{base}}` is the service's address.
//! * Of a response, the status and the named headers are compared (`Name!` is a header that must not be there). After an
//!   empty `<` line comes the body: none when nothing follows, JSON as JSON, anything else as text. `<* text` lines are
//!   parts that the body must hold in this order.
//! * In a response `{{guid:a}} {{etag:a}} {{link:a}} {{number:a}} {{time:a}} {{text:a}}` stand for a value of that form,
//!   which `{{a}}` names from then on; without a name nothing is kept. In JSON, `"@@any"` is any value, and an object
//!   with `"...": "..."` may have more members than are named.
//!
//! * What the system itself posts to `{{inbox}}` stands behind `!`, compared like a response: its next message, in the
//!   order in which they arrive. Each is answered 200.
//!
//! `GOLDEN=part` runs only the stories whose file name holds `part`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use dualwright_emulator::{Clock, Dialect, Emulator, read_tables};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// 2026-01-02T03:04:05Z.
const START_MICROS: i64 = 1_767_323_045_000_000;

#[tokio::test]
async fn dataverse_stories() {
    check(Dialect::Dataverse).await;
}

#[tokio::test]
async fn finops_stories() {
    check(Dialect::Finops).await;
}

async fn check(dialect: Dialect) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(dialect.name());
    let wanted = std::env::var("GOLDEN").unwrap_or_default();
    let mut files = std::fs::read_dir(&folder)
        .expect("the folder of stories")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "http"))
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .collect::<Vec<_>>();
    files.sort();
    assert!(!files.is_empty() || !wanted.is_empty(), "no stories in {}", folder.display());
    let mut failures = Vec::new();
    for file in &files {
        if let Err(failure) = run(dialect, file).await {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            failures.push(format!("{}/{name}:{failure}", dialect.name()));
        }
    }
    assert!(failures.is_empty(), "{} of {} stories fail\n\n{}", failures.len(), files.len(), failures.join("\n\n"));
}

/// Plays one story; the failure begins with its line.
async fn run(dialect: Dialect, file: &Path) -> Result<(), String> {
    let at_top = |error: String| format!("1: {error}");
    let story = std::fs::read_to_string(file).map_err(|error| at_top(error.to_string()))?;
    let exchanges = read_story(&story)?;
    let clock = Clock::standing_at(START_MICROS);
    let emulator = Emulator::open_with_clock(dialect, None, clock).map_err(|error| at_top(format!("{error:#}")))?;
    furnish(&emulator, file).map_err(at_top)?;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let host = listener.local_addr().expect("address").to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        emulator.serve(listener, shutdown).await
    });
    let mut inbox = Inbox::start().await;
    let base = ("base".to_owned(), format!("http://{host}"));
    let mut names = BTreeMap::from([base, ("inbox".to_owned(), inbox.url.clone())]);
    let mut outcome = Ok(());
    for exchange in &exchanges {
        outcome = exchange
            .play(&host, &mut inbox, &mut names)
            .await
            .map_err(|failure| format!("{}: {failure}", exchange.line));
        if outcome.is_err() {
            break;
        }
    }
    drop(stop);
    serving.await.expect("joins").expect("serves");
    outcome
}

/// Where the system posts to.
struct Inbox {
    url: String,
    posted: mpsc::UnboundedReceiver<Reply>,
}

impl Inbox {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let (send, posted) = mpsc::unbounded_channel();
        let receive = |State(send): State<mpsc::UnboundedSender<Reply>>, request: Request| async move {
            let (parts, body) = request.into_parts();
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body").to_vec();
            let _ = send.send(Reply { status: format!("{} {}", parts.method, parts.uri), headers, body });
        };
        let router = Router::new().fallback(receive).with_state(send);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, posted }
    }

    async fn next(&mut self) -> Result<Reply, String> {
        let next = tokio::time::timeout(std::time::Duration::from_secs(30), self.posted.recv()).await;
        next.ok().flatten().ok_or_else(|| "nothing was posted".to_owned())
    }
}

/// Tables and rows of the dialect and of the story.
fn furnish(emulator: &Emulator, story: &Path) -> Result<(), String> {
    let folder = story.parent().unwrap_or(Path::new("."));
    let beside = |kind: &str| [folder.join(format!("{kind}.json")), story.with_extension(format!("{kind}.json"))];
    let read = |path: &PathBuf| std::fs::read_to_string(path).ok();
    for path in beside("tables") {
        let Some(json) = read(&path) else { continue };
        let said = |error: anyhow::Error| format!("{}: {error:#}", path.display());
        emulator.define(&read_tables(&json).map_err(said)?.tables).map_err(said)?;
    }
    for path in beside("rows") {
        let Some(json) = read(&path) else { continue };
        let sets: Map<String, Value> =
            serde_json::from_str(&json).map_err(|error| format!("{}: {error}", path.display()))?;
        for (set, rows) in sets {
            let rows = serde_json::from_value(rows).map_err(|error| format!("{}: {set}: {error}", path.display()))?;
            emulator.seed(&set, rows).map_err(|error| format!("{}: {error:#}", path.display()))?;
        }
    }
    Ok(())
}

/// One request and what is expected back, or what the system posts.
#[derive(Debug, Default)]
struct Exchange {
    /// Where it begins in its file.
    line: usize,
    /// The response is a message of the system, and there is no request.
    is_posted: bool,
    request: Message,
    response: Message,
    /// Parts that the body holds in this order.
    parts: Vec<String>,
}

#[derive(Debug, Default)]
struct Message {
    /// Request line, or status.
    first: String,
    headers: Vec<(String, String)>,
    /// `None` when nothing is said about it.
    body: Option<Vec<String>>,
}

fn read_story(story: &str) -> Result<Vec<Exchange>, String> {
    let mut exchanges = Vec::<Exchange>::new();
    let mut answering = true;
    for (number, line) in story.lines().enumerate() {
        let wrong = |what: &str| Err(format!("{}: {what}: {line}", number + 1));
        let (is_request, text) = if let Some(text) = line.strip_prefix('!') {
            let is_next = number == 0 || !story.lines().nth(number - 1).is_some_and(|line| line.starts_with('!'));
            if is_next {
                exchanges.push(Exchange { line: number + 1, is_posted: true, ..Exchange::default() });
            }
            (false, text)
        } else if let Some(part) = line.strip_prefix("<* ") {
            match exchanges.last_mut() {
                Some(last) => last.parts.push(part.to_owned()),
                None => return wrong("a response without a request"),
            }
            continue;
        } else if let Some(text) = line.strip_prefix('>') {
            (true, text)
        } else if let Some(text) = line.strip_prefix('<') {
            (false, text)
        } else if line.trim().is_empty() || line.starts_with('#') {
            continue;
        } else {
            return wrong("neither comment nor request nor response");
        };
        let text = text.strip_prefix(' ').unwrap_or(text);
        if is_request && answering {
            exchanges.push(Exchange { line: number + 1, ..Exchange::default() });
        }
        answering = !is_request;
        let Some(exchange) = exchanges.last_mut() else { return wrong("a response without a request") };
        let message = if is_request { &mut exchange.request } else { &mut exchange.response };
        if let Some(body) = &mut message.body {
            body.push(text.to_owned());
        } else if message.first.is_empty() {
            message.first = text.to_owned();
        } else if text.is_empty() {
            message.body = Some(Vec::new());
        } else {
            match text.split_once(':') {
                Some((name, value)) => message.headers.push((name.to_owned(), value.trim_start().to_owned())),
                None if text.ends_with('!') => message.headers.push((text.to_owned(), String::new())),
                None => return wrong("not a header"),
            }
        }
    }
    match exchanges.iter().find(|exchange| exchange.response.first.is_empty()) {
        Some(unanswered) => Err(format!("{}: no response is expected", unanswered.line)),
        None if exchanges.is_empty() => Err("1: there are no requests".to_owned()),
        None => Ok(exchanges),
    }
}

type Names = BTreeMap<String, String>;

/// What came back.
struct Reply {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Exchange {
    async fn play(&self, host: &str, inbox: &mut Inbox, names: &mut Names) -> Result<(), String> {
        let reply = if self.is_posted { inbox.next().await? } else { self.send(host, names).await? };
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let shown = || {
            let headers = reply.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>();
            format!("\n{}\n{headers}\n{text}", reply.status)
        };
        let first = if self.is_posted { &self.response.first } else { &self.request.first };
        if reply.status != self.response.first {
            return Err(format!("{first}: status {} and not {}{}", reply.status, self.response.first, shown()));
        }
        for (name, wanted) in &self.response.headers {
            let values = |name: &str| {
                let own = reply.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
                own.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
            };
            let fits = match name.strip_suffix('!') {
                Some(absent) => values(absent).is_empty(),
                None => values(name).into_iter().any(|value| matches_text(wanted, value, names)),
            };
            if !fits {
                return Err(format!("{first}: header {name}: {wanted} is not what came{}", shown()));
            }
        }
        let mut rest = text.as_str();
        for part in &self.parts {
            let part = fill(part, names)?;
            let Some(at) = rest.find(&part) else { return Err(format!("{first}: {part:?} is missing{}", shown())) };
            rest = &rest[at + part.len()..];
        }
        let Some(body) = &self.response.body else { return Ok(()) };
        let wanted = body.join("\n");
        let differs = |what: String| Err(format!("{first}: {what}{}", shown()));
        match serde_json::from_str::<Value>(&wanted) {
            _ if wanted.is_empty() && self.parts.is_empty() && !text.is_empty() => differs("a body".to_owned()),
            _ if wanted.is_empty() => Ok(()),
            Ok(wanted) => match serde_json::from_str(&text) {
                Ok(value) => compare(&wanted, &value, "", names).or_else(differs),
                Err(error) => differs(format!("the body is not JSON ({error})")),
            },
            Err(_) if matches_text(&wanted, &text, names) => Ok(()),
            Err(error) if wanted.starts_with(['{', '[']) => differs(format!("the wanted body is not JSON ({error})")),
            Err(_) => differs(format!("the body is not {wanted:?}")),
        }
    }

    /// Writes the request byte by byte: no client could be trusted with a wrong one.
    async fn send(&self, host: &str, names: &Names) -> Result<Reply, String> {
        let filled = |text: &str| fill(text, names);
        let mut headers = String::new();
        let mut is_multipart = false;
        for (name, value) in &self.request.headers {
            is_multipart |= name.eq_ignore_ascii_case("content-type") && value.starts_with("multipart/");
            headers.push_str(&format!("{name}: {}\r\n", filled(value)?));
        }
        let has = |name: &str| self.request.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let end = if is_multipart { "\r\n" } else { "\n" };
        let mut body = filled(&self.request.body.as_ref().map(|lines| lines.join(end)).unwrap_or_default())?;
        if is_multipart {
            body.push_str(end);
        }
        if !has("host") {
            headers.push_str(&format!("Host: {host}\r\n"));
        }
        if !has("content-length")
            && !has("transfer-encoding")
            && (!body.is_empty() || !self.request.first.starts_with("GET "))
        {
            headers.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let request = format!("{} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n{body}", filled(&self.request.first)?);
        let mut answer = Vec::new();
        let mut stream = TcpStream::connect(host).await.map_err(|error| error.to_string())?;
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        stream.read_to_end(&mut answer).await.map_err(|error| format!("the connection broke: {error}"))?;
        read_reply(&answer).ok_or_else(|| format!("no answer: {}", String::from_utf8_lossy(&answer)))
    }
}

fn read_reply(answer: &[u8]) -> Option<Reply> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect::<Vec<_>>();
    let is_chunked =
        headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("transfer-encoding") && value == "chunked");
    let mut rest = &answer[end + 4..];
    if !is_chunked {
        return Some(Reply { status, headers, body: rest.to_vec() });
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(Reply { status, headers, body });
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 4 + size..)?;
    }
}

/// Puts captured values in the place of `{{name}}`.
fn fill(text: &str, names: &Names) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or_else(|| format!("{{{{ without }}}}: {text}"))?;
        let value = names.get(name).ok_or_else(|| format!("{{{{{name}}}}} was not captured before"))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn compare(wanted: &Value, value: &Value, path: &str, names: &mut Names) -> Result<(), String> {
    let differs = || Err(format!("{}: wanted {wanted}, got {value}", if path.is_empty() { "the body" } else { path }));
    match (wanted, value) {
        (Value::String(any), _) if any == "@@any" => Ok(()),
        (Value::Object(wanted), Value::Object(value)) => {
            for (name, wanted) in wanted.iter().filter(|(name, _)| *name != "...") {
                let path = format!("{path}/{name}");
                let Some(value) = value.get(name) else { return Err(format!("{path} is missing")) };
                compare(wanted, value, &path, names)?;
            }
            match value.keys().find(|name| !wanted.contains_key(*name)) {
                Some(more) if !wanted.contains_key("...") => Err(format!("{path}/{more} was not expected")),
                _ => Ok(()),
            }
        }
        (Value::Array(wanted), Value::Array(value)) if wanted.len() == value.len() => wanted
            .iter()
            .zip(value)
            .enumerate()
            .try_for_each(|(at, (wanted, value))| compare(wanted, value, &format!("{path}/{at}"), names)),
        (Value::String(wanted), Value::String(value)) if matches_text(wanted, value, names) => Ok(()),
        (Value::String(wanted), Value::Number(number))
            if wanted.starts_with("{{number") && matches_text(wanted, &number.to_string(), names) =>
        {
            Ok(())
        }
        // 1 and 1.0 are one number.
        (Value::Number(wanted), Value::Number(value)) if wanted.as_f64() == value.as_f64() => Ok(()),
        _ if wanted == value => Ok(()),
        _ => differs(),
    }
}

/// Whether `value` has the form of `wanted`; what it captures is kept when it has.
fn matches_text(wanted: &str, value: &str, names: &mut Names) -> bool {
    let mut captured = Names::new();
    let fits = matches_from(wanted, value, names, &mut captured);
    if fits {
        names.append(&mut captured);
    }
    fits
}

fn matches_from(wanted: &str, value: &str, names: &Names, captured: &mut Names) -> bool {
    let Some((literal, rest)) = wanted.split_once("{{") else { return wanted == value };
    let Some(value) = value.strip_prefix(literal) else { return false };
    let Some((slot, rest)) = rest.split_once("}}") else { return false };
    let (form, name) = match slot.split_once(':') {
        Some((form, name)) => (form, name),
        None if FORMS.contains(&slot) => (slot, ""),
        None => {
            let known = captured.get(slot).or_else(|| names.get(slot)).cloned();
            let after = known.and_then(|known| value.strip_prefix(known.as_str()));
            return after.is_some_and(|after| matches_from(rest, after, names, captured));
        }
    };
    // The shortest value that lets the rest fit.
    value.char_indices().map(|(at, letter)| at + letter.len_utf8()).any(|end| {
        has_form(form, &value[..end]) && {
            if !name.is_empty() {
                captured.insert(name.to_owned(), value[..end].to_owned());
            }
            matches_from(rest, &value[end..], names, captured)
        }
    })
}

const FORMS: [&str; 6] = ["guid", "etag", "link", "number", "time", "text"];

fn has_form(form: &str, text: &str) -> bool {
    let all = |text: &str, fits: fn(u8) -> bool| !text.is_empty() && text.bytes().all(fits);
    match form {
        "guid" => {
            text.len() == 36
                && text.bytes().enumerate().all(|(at, byte)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => byte.is_ascii_hexdigit(),
                })
        }
        "etag" => text
            .strip_prefix("W/\"")
            .and_then(|tag| tag.strip_suffix('"'))
            .is_some_and(|tag| !tag.is_empty() && !tag.contains('"')),
        "link" => {
            let path = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
            path.is_some_and(|path| all(path, |byte| byte.is_ascii_graphic()))
        }
        "number" => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            all(digits, |byte| byte.is_ascii_digit() || byte == b'.')
                && digits.starts_with(|c: char| c.is_ascii_digit())
        }
        "time" => {
            text.len() >= 20 && text.ends_with('Z') && text[..10].bytes().all(|b| b.is_ascii_digit() || b == b'-')
        }
        "text" => true,
        _ => false,
    }
}

#[test]
fn the_runner_sees_differences() {
    let names = Names::from([("a".to_owned(), "1".to_owned())]);
    for (wanted, value, fits) in [
        ("x{{number:n}}y", "x12y", true),
        ("x{{number:n}}y{{n}}", "x12y12", true),
        ("x{{number:n}}y{{n}}", "x12y13", false),
        ("{{a}}", "1", true),
        ("{{a}}", "2", false),
        ("({{guid}})", "(00000000-0000-0000-0000-000000000001)", true),
        ("({{guid}})", "(00000000-0000-0000-0000-00000000000)", false),
        ("W/{{etag}}", "W/\"1\"", false),
        ("{{etag:e}}", "W/\"1\"", true),
        ("{{link:l}}?x", "https://h/p?x", true),
        ("{{unknown}}", "", false),
        ("{{text}}.", "so it is.", true),
        ("{{text}}", "", false),
        ("plain", "plainer", false),
    ] {
        assert_eq!(matches_text(wanted, value, &mut names.clone()), fits, "{wanted} {value}");
    }
    for (wanted, value, fits) in [
        (r#"{"a":1}"#, r#"{"a":1.0}"#, true),
        (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false),
        (r#"{"a":1,"...":"..."}"#, r#"{"a":1,"b":2}"#, true),
        (r#"{"a":1,"...":"..."}"#, r#"{"b":2}"#, false),
        (r#"{"a":"@@any"}"#, r#"{"a":null}"#, true),
        (r#"{"a":"@@any"}"#, "{}", false),
        (r#"["{{number:n}}","{{n}}"]"#, r#"[5,"5"]"#, true),
        ("[1,2]", "[1]", false),
        (r#""1""#, "1", false),
    ] {
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(compare(&json(wanted), &json(value), "", &mut names.clone()).is_ok(), fits, "{wanted} {value}");
    }
    for broken in ["", "# only words", "< 200", "> GET /", "> GET /\n< 200\nnonsense", "> GET /\n> nonsense\n< 200"] {
        assert!(read_story(broken).is_err(), "{broken}");
    }
}
