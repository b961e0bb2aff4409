//! `$batch` bodies: multipart/mixed with nested change sets, both directions.
//!
//! Owns the framing. What an operation means, and whether a change set is applied as one, is its reader's business.
//! Written with CRLF; read with CRLF or bare LF, with quoted and bare boundaries, preambles and epilogues, because
//! both dialects and people with an editor send all of these.

use std::io::Write as _;

use thiserror::Error;

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    pub method: String,
    /// As it was written: below the service root, from the host, or with scheme and host.
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub content_id: Option<String>,
}

/// The answer to one operation, or to a change set that was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub content_id: Option<String>,
}

/// One item of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<T> {
    Single(T),
    /// All of it, or nothing.
    ChangeSet(Vec<T>),
}

/// A batch that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    #[error("the content type is not multipart/mixed with a boundary")]
    NotMultipart,
    /// In all, or in one change set; in the words of the systems themselves.
    #[error("{}", too_many(*.in_change_set, *.operations_max))]
    TooManyOperations { in_change_set: bool, operations_max: usize },
    #[error("the batch cannot be read at byte {at}: {message}")]
    Malformed { at: usize, message: &'static str },
}

fn too_many(in_change_set: bool, operations_max: usize) -> String {
    if in_change_set {
        format!(
            "The current change set contains too many operations. A maximum number of '{operations_max}' operations are \
             allowed in a change set."
        )
    } else {
        format!(
            "The current batch message contains too many parts. Only batch messages with a maximum number of \
             '{operations_max}' query operations, including changeset operations, are allowed."
        )
    }
}

/// Operations in one batch, change sets counted by what they hold. What Dataverse accepts.
pub const OPERATIONS_MAX: usize = 1_000;

/// Header lines of one part; no system sends a quarter of it.
const HEADERS_MAX: usize = 100;

/// How boundaries of a request begin: of the batch, and of a change set in it.
const REQUEST_NAMES: [&str; 2] = ["batch_dualwright", "changeset_dualwright"];

/// Longest line of a part's head: a URL of 64 KB with its method.
const LINE_BYTES_MAX: usize = 66 * 1024;

/// The value of a header by its name in any case.
#[must_use]
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Content type and body of a batch request. Inside a change set a request without a Content-ID gets its position
/// in the set, counted from 1, because a change set needs one.
#[must_use]
pub fn encode_requests(items: &[Item<Request>]) -> (String, Vec<u8>) {
    let mut writer = Writer::avoiding(REQUEST_NAMES.map(str::to_owned), items, |request| &request.body);
    for item in items {
        match item {
            Item::Single(request) => request.write(&mut writer, None),
            Item::ChangeSet(requests) => {
                writer.open_change_set();
                for (index, request) in requests.iter().enumerate() {
                    request.write(&mut writer, Some(index + 1));
                }
                writer.close_change_set();
            }
        }
    }
    writer.finish()
}

/// Content type and body of a batch answer.
#[must_use]
pub fn encode_responses(items: &[Item<Response>]) -> (String, Vec<u8>) {
    encode_responses_as(items, "dualwright")
}

/// Content type and body of a batch answer, with boundaries as both systems write them: `batchresponse_` and
/// `changesetresponse_`, each with `token` and a number. Clients in the wild look for these very words.
#[must_use]
pub fn encode_responses_as(items: &[Item<Response>], token: &str) -> (String, Vec<u8>) {
    let names = [format!("batchresponse_{token}"), format!("changesetresponse_{token}")];
    let mut writer = Writer::avoiding(names, items, |response| &response.body);
    for item in items {
        match item {
            Item::Single(response) => response.write(&mut writer),
            Item::ChangeSet(responses) => {
                writer.open_change_set();
                for response in responses {
                    response.write(&mut writer);
                }
                writer.close_change_set();
            }
        }
    }
    writer.finish()
}

/// Reads a batch request.
pub fn parse_requests(content_type: &str, body: &[u8]) -> Result<Vec<Item<Request>>, BatchError> {
    parse_requests_up_to(OPERATIONS_MAX, content_type, body)
}

/// [`parse_requests`] of a system that takes another number of operations.
pub fn parse_requests_up_to(
    operations_max: usize,
    content_type: &str,
    body: &[u8],
) -> Result<Vec<Item<Request>>, BatchError> {
    parse_messages_up_to(operations_max, content_type, body, &|message| {
        let (method, url) = message.request_line().ok_or("a request line was expected")?;
        Ok(Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: message.owned_headers(),
            body: message.body.to_vec(),
            content_id: message.content_id().map(str::to_owned),
        })
    })
}

/// Reads a batch answer.
pub fn parse_responses(content_type: &str, body: &[u8]) -> Result<Vec<Item<Response>>, BatchError> {
    parse_messages(content_type, body, &|message| {
        Ok(Response {
            status: message.status().ok_or("a status line was expected")?,
            headers: message.owned_headers(),
            body: message.body.to_vec(),
            content_id: message.content_id().map(str::to_owned),
        })
    })
}

impl Request {
    fn write(&self, writer: &mut Writer, position: Option<usize>) {
        let position = position.map(|position| position.to_string());
        let id = self.content_id.as_deref().or(position.as_deref());
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        writer.request(id, &self.method, &self.url, headers, &self.body);
    }
}

impl Response {
    fn write(&self, writer: &mut Writer) {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        writer.response(self.content_id.as_deref(), self.status, headers, &self.body);
    }
}

/// Writes a batch piece by piece, so that nothing is copied twice.
///
/// A body must not hold a line that begins with the batch's boundary. JSON on one line never does; for any other body
/// use [`encode_requests`] or [`encode_responses`], which choose a boundary that no body holds.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    /// How boundaries of the batch and of its change sets begin.
    names: [String; 2],
    number: u32,
    change_sets: u32,
    in_change_set: bool,
}

impl Writer {
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self::named(REQUEST_NAMES.map(str::to_owned), bytes)
    }

    fn named(names: [String; 2], bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), names, number: 0, change_sets: 0, in_change_set: false }
    }

    /// A writer whose boundaries stand in none of the bodies.
    fn avoiding<T>(names: [String; 2], items: &[Item<T>], body: impl Fn(&T) -> &[u8]) -> Self {
        let bodies = || {
            items.iter().flat_map(|item| match item {
                Item::Single(one) => std::slice::from_ref(one),
                Item::ChangeSet(all) => all.as_slice(),
            })
        };
        let size = bodies().map(|one| body(one).len() + 300).sum::<usize>();
        let mut writer = Self::named(names, size);
        // A delimiter begins a line, so a body of one line cannot hold it.
        let suspects = bodies().map(&body).filter(|body| body.contains(&b'\n')).collect::<Vec<_>>();
        // Ends: n bodies of limited size cannot hold every number.
        while suspects.iter().any(|suspect| {
            writer.names.iter().any(|name| {
                let stem = format!("{name}_{}", writer.number);
                suspect.windows(stem.len()).any(|window| window == stem.as_bytes())
            })
        }) {
            writer.number += 1;
        }
        writer
    }

    /// Every part until [`close_change_set`](Self::close_change_set) belongs to one change set.
    pub fn open_change_set(&mut self) {
        debug_assert!(!self.in_change_set, "change sets do not nest");
        self.delimiter(false);
        self.change_sets += 1;
        let boundary = format!("{}_{}_{}", self.names[1], self.number, self.change_sets);
        self.text(&format!("Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n"));
        self.in_change_set = true;
    }

    pub fn close_change_set(&mut self) {
        self.delimiter(true);
        self.in_change_set = false;
    }

    /// Adds one request.
    pub fn request<'a>(
        &mut self,
        content_id: Option<&str>,
        method: &str,
        url: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: &[u8],
    ) {
        self.part(content_id);
        self.line_text(method);
        self.out.push(b' ');
        self.line_text(url);
        self.text(" HTTP/1.1\r\n");
        self.head_and_body(headers, body);
    }

    /// Adds one answer.
    pub fn response<'a>(
        &mut self,
        content_id: Option<&str>,
        status: u16,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: &[u8],
    ) {
        self.part(content_id);
        self.text(&format!("HTTP/1.1 {status} {}\r\n", reason(status)));
        self.head_and_body(headers, body);
    }

    /// Content type and body of the whole batch.
    #[must_use]
    pub fn finish(mut self) -> (String, Vec<u8>) {
        if self.in_change_set {
            self.close_change_set();
        }
        self.delimiter(true);
        (format!("multipart/mixed; boundary={}_{}", self.names[0], self.number), self.out)
    }

    fn part(&mut self, content_id: Option<&str>) {
        self.delimiter(false);
        self.text("Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n");
        if let Some(id) = content_id {
            self.text("Content-ID: ");
            self.line_text(id);
            self.text("\r\n");
        }
        self.text("\r\n");
    }

    fn head_and_body<'a>(&mut self, headers: impl IntoIterator<Item = (&'a str, &'a str)>, body: &[u8]) {
        for (name, value) in headers {
            self.line_text(name);
            self.text(": ");
            self.line_text(value);
            self.text("\r\n");
        }
        self.text("\r\n");
        self.out.extend_from_slice(body);
        self.text("\r\n");
    }

    fn delimiter(&mut self, is_close: bool) {
        // Writing to memory cannot fail.
        let _ = match self.in_change_set {
            true => write!(self.out, "--{}_{}_{}", self.names[1], self.number, self.change_sets),
            false => write!(self.out, "--{}_{}", self.names[0], self.number),
        };
        self.text(if is_close { "--\r\n" } else { "\r\n" });
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Text from outside that has to stay on its line.
    fn line_text(&mut self, text: &str) {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            self.out.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
        } else {
            self.text(text);
        }
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        424 => "Failed Dependency",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

/// An embedded HTTP message, borrowed from the batch.
#[derive(Debug)]
pub struct Message<'a> {
    /// Request line or status line.
    pub first_line: &'a str,
    /// Names and values as they were sent.
    pub headers: Vec<(&'a str, &'a str)>,
    pub body: &'a [u8],
    content_id: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// Method and URL. A URL may hold blanks, as hand-written batches do.
    #[must_use]
    pub fn request_line(&self) -> Option<(&'a str, &'a str)> {
        let (method, rest) = self.first_line.split_once(' ')?;
        let url = match rest.rsplit_once(' ') {
            Some((url, version)) if version.starts_with("HTTP/") => url,
            _ => rest,
        }
        .trim();
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic());
        (is_method && !url.is_empty()).then_some((method, url))
    }

    /// The status of `HTTP/1.1 204 No Content`.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        let mut words = self.first_line.split_ascii_whitespace();
        words.next().filter(|word| word.starts_with("HTTP/"))?;
        words.next()?.parse().ok().filter(|status| (100..600).contains(status))
    }

    /// From the part's own head, or from the message's, where some servers put it.
    #[must_use]
    pub fn content_id(&self) -> Option<&'a str> {
        self.content_id.or_else(|| self.header("content-id").map(bare_id))
    }

    /// The value of a header by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        find_header(&self.headers, name)
    }

    fn owned_headers(&self) -> Vec<(String, String)> {
        self.headers
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("content-id"))
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }
}

/// Reads a batch and makes `T` of each message. What `make` refuses is an error at the message's place.
pub fn parse_messages<T>(
    content_type: &str,
    body: &[u8],
    make: &dyn Fn(&Message<'_>) -> Result<T, &'static str>,
) -> Result<Vec<Item<T>>, BatchError> {
    parse_messages_up_to(OPERATIONS_MAX, content_type, body, make)
}

fn parse_messages_up_to<T>(
    operations_max: usize,
    content_type: &str,
    body: &[u8],
    make: &dyn Fn(&Message<'_>) -> Result<T, &'static str>,
) -> Result<Vec<Item<T>>, BatchError> {
    let boundary = boundary_of(content_type).ok_or(BatchError::NotMultipart)?;
    let mut reader = Reader { bytes: body, at: 0, operations: 0, operations_max, before_set: None };
    let mut items = Vec::new();
    // Before the first delimiter there may be a preamble.
    let (_, mut is_last) = reader.until(boundary)?;
    while !is_last {
        let head = reader.headers()?;
        match find_header(&head, "content-type").and_then(boundary_of) {
            Some(inner) => {
                let mut set = Vec::new();
                reader.before_set = Some(reader.operations);
                let (_, mut is_last_of_set) = reader.until(inner)?;
                while !is_last_of_set {
                    let head = reader.headers()?;
                    if find_header(&head, "content-type").and_then(boundary_of).is_some() {
                        return Err(reader.malformed("a change set may not hold another batch or change set"));
                    }
                    let made;
                    (made, is_last_of_set) = reader.message(&head, inner, make)?;
                    set.push(made);
                }
                items.push(Item::ChangeSet(set));
                reader.before_set = None;
                (_, is_last) = reader.until(boundary)?;
            }
            None => {
                let made;
                (made, is_last) = reader.message(&head, boundary, make)?;
                items.push(Item::Single(made));
            }
        }
    }
    Ok(items)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    operations: usize,
    operations_max: usize,
    /// How many operations there were before the change set that is being read.
    before_set: Option<usize>,
}

impl<'a> Reader<'a> {
    const fn malformed(&self, message: &'static str) -> BatchError {
        BatchError::Malformed { at: self.at, message }
    }

    /// The next line without its end; `None` at the end of the batch.
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let length = memchr::memchr(b'\n', rest);
        self.at += length.map_or(rest.len(), |length| length + 1);
        let line = &rest[..length.unwrap_or(rest.len())];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Everything up to the delimiter line, without the line end that belongs to the delimiter, and whether it was
    /// the closing one. The batch continues after that line.
    fn until(&mut self, boundary: &str) -> Result<(&'a [u8], bool), BatchError> {
        let start = self.at;
        loop {
            let line_start = self.at;
            let Some(line) = self.line() else {
                return Err(self.malformed("it ends before its last delimiter"));
            };
            let Some(after) = line.strip_prefix(b"--").and_then(|rest| rest.strip_prefix(boundary.as_bytes())) else {
                continue;
            };
            let is_close = after.starts_with(b"--");
            let padding = if is_close { &after[2..] } else { after };
            // `--batch_10` is not a delimiter of `batch_1`.
            if !padding.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
                continue;
            }
            let content = &self.bytes[start..line_start];
            let content = content.strip_suffix(b"\n").unwrap_or(content);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            return Ok((content, is_close));
        }
    }

    /// Header lines up to the empty line.
    fn headers(&mut self) -> Result<Vec<(&'a str, &'a str)>, BatchError> {
        let mut headers = Vec::new();
        loop {
            let start = self.at;
            let Some(line) = self.line() else {
                return Err(self.malformed("it ends inside the head of a part"));
            };
            if line.is_empty() {
                return Ok(headers);
            }
            match head_line(line).and_then(|line| line.split_once(':')) {
                Some((name, value)) if headers.len() < HEADERS_MAX => headers.push((name.trim(), value.trim())),
                Some(_) => return Err(self.malformed("a part has too many headers")),
                None => return Err(BatchError::Malformed { at: start, message: "a header was expected" }),
            }
        }
    }

    fn message<T>(
        &mut self,
        part_head: &[(&'a str, &'a str)],
        boundary: &str,
        make: &dyn Fn(&Message<'_>) -> Result<T, &'static str>,
    ) -> Result<(T, bool), BatchError> {
        if self.operations == self.operations_max {
            let in_change_set = self.before_set == Some(0);
            return Err(BatchError::TooManyOperations { in_change_set, operations_max: self.operations_max });
        }
        self.operations += 1;
        let start = self.at;
        let (content, is_last) = self.until(boundary)?;
        let mut message = split_message(content).map_err(|message| BatchError::Malformed { at: start, message })?;
        message.content_id = find_header(part_head, "content-id").map(bare_id);
        make(&message).map(|made| (made, is_last)).map_err(|message| BatchError::Malformed { at: start, message })
    }
}

fn split_message(content: &[u8]) -> Result<Message<'_>, &'static str> {
    let mut reader = Reader { bytes: content, at: 0, operations: 0, operations_max: 1, before_set: None };
    let first_line = loop {
        let line = reader.line().ok_or("a part is empty")?;
        if !line.is_empty() {
            break head_line(line).ok_or("the first line of a part cannot be read")?.trim();
        }
    };
    let mut headers = Vec::new();
    // A message without a body may end with its head.
    while let Some(line) = reader.line().filter(|line| !line.is_empty()) {
        let (name, value) =
            head_line(line).and_then(|line| line.split_once(':')).ok_or("a header of an operation cannot be read")?;
        if headers.len() == HEADERS_MAX {
            return Err("an operation has too many headers");
        }
        headers.push((name.trim(), value.trim()));
    }
    let body = content.get(reader.at..).unwrap_or_default();
    // Empty lines before a delimiter are padding, not a body.
    let body = if body.iter().all(u8::is_ascii_whitespace) { &[] } else { body };
    Ok(Message { first_line, headers, body, content_id: None })
}

fn head_line(line: &[u8]) -> Option<&str> {
    (line.len() <= LINE_BYTES_MAX).then(|| std::str::from_utf8(line).ok()).flatten()
}

fn find_header<'a>(headers: &[(&'a str, &'a str)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn bare_id(id: &str) -> &str {
    id.trim_start_matches('<').trim_end_matches('>')
}

/// The boundary of `multipart/mixed; boundary="x"`; `None` for another type.
fn boundary_of(content_type: &str) -> Option<&str> {
    let mut parts = content_type.split(';');
    if !parts.next()?.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        (name.trim().eq_ignore_ascii_case("boundary") && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, url: &str, body: &str) -> Request {
        Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
            content_id: None,
        }
    }

    fn response(status: u16, content_id: &str, body: &str) -> Response {
        Response {
            status,
            headers: vec![("ETag".to_owned(), "W/\"1\"".to_owned())],
            body: body.as_bytes().to_vec(),
            content_id: (!content_id.is_empty()).then(|| content_id.to_owned()),
        }
    }

    /// The batch in a few words per operation.
    fn shown_requests(content_type: &str, body: &str) -> String {
        let one = |request: &Request| {
            format!(
                "{}{} {} [{}] {}",
                request.content_id.as_ref().map(|id| format!("#{id} ")).unwrap_or_default(),
                request.method,
                request.url,
                request.headers.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
                String::from_utf8_lossy(&request.body),
            )
        };
        match parse_requests(content_type, body.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(items) => items
                .iter()
                .map(|item| match item {
                    Item::Single(request) => one(request),
                    Item::ChangeSet(set) => format!("{{{}}}", set.iter().map(one).collect::<Vec<_>>().join(" ; ")),
                })
                .collect::<Vec<_>>()
                .join(" | "),
        }
    }

    #[test]
    fn batches_survive_the_round_trip() {
        let requests = vec![
            Item::Single(request("GET", "/data/A?$filter=x eq 'y z'", "")),
            Item::ChangeSet(vec![request("POST", "A", "{\"a\":\"ü\"}"), request("DELETE", "A(1)", "")]),
            Item::Single(request("PATCH", "A(2)", "two\r\nlines\n")),
        ];
        let (content_type, body) = encode_requests(&requests);
        let mut read = parse_requests(&content_type, &body).expect("parses");
        if let Item::ChangeSet(set) = &mut read[1] {
            let ids = set.iter_mut().map(|request| request.content_id.take()).collect::<Vec<_>>();
            assert_eq!(ids, [Some("1".to_owned()), Some("2".to_owned())]);
        }
        assert_eq!(read, requests);

        let responses = vec![
            Item::Single(response(404, "", "{}")),
            Item::ChangeSet(vec![response(201, "1", "{\"a\":1}"), response(204, "2", "")]),
            Item::ChangeSet(vec![]),
            Item::Single(response(412, "7", "{\"error\":{}}")),
        ];
        let (content_type, body) = encode_responses(&responses);
        assert_eq!(parse_responses(&content_type, &body).expect("parses"), responses);
        let (content_type, body) = encode_responses(&[]);
        assert_eq!(parse_responses(&content_type, &body), Ok(vec![]));
    }

    #[test]
    fn a_change_set_is_written_as_both_systems_read_it() {
        let (content_type, body) = encode_requests(&[Item::ChangeSet(vec![request("POST", "/data/A", "{}")])]);
        assert_eq!(content_type, "multipart/mixed; boundary=batch_dualwright_0");
        assert_eq!(
            String::from_utf8(body).expect("text").replace("\r\n", "~\n"),
            "--batch_dualwright_0~
Content-Type: multipart/mixed; boundary=changeset_dualwright_0_1~
~
--changeset_dualwright_0_1~
Content-Type: application/http~
Content-Transfer-Encoding: binary~
Content-ID: 1~
~
POST /data/A HTTP/1.1~
Content-Type: application/json~
~
{}~
--changeset_dualwright_0_1--~
--batch_dualwright_0--~
"
        );
    }

    /// Batches as others write them; line ends are bare here and CRLF in the second run.
    #[test]
    fn foreign_batches_are_read() {
        for (name, content_type, body, wanted) in [
            (
                "the documentation's own",
                "multipart/mixed; boundary=\"batch_1\"",
                "--batch_1
Content-Type: multipart/mixed; boundary=\"changeset_1\"

--changeset_1
Content-Type: application/http
Content-Transfer-Encoding: binary
Content-ID: 1

POST /api/data/v9.2/accounts HTTP/1.1
Content-Type: application/json; type=entry

{\"name\":\"A\"}
--changeset_1
Content-Type: application/http
Content-Transfer-Encoding: binary
Content-ID: <2>

POST https://x/api/data/v9.2/contacts HTTP/1.1
Content-Type: application/json

{\"parentcustomerid_account@odata.bind\":\"$1\"}

--changeset_1--

--batch_1
Content-Type: application/http

GET accounts?$filter=name eq 'a b' HTTP/1.1
Accept: application/json

--batch_1--
",
                "{#1 POST /api/data/v9.2/accounts [Content-Type=application/json; type=entry] {\"name\":\"A\"} ; \
                 #2 POST https://x/api/data/v9.2/contacts [Content-Type=application/json] \
                 {\"parentcustomerid_account@odata.bind\":\"$1\"}_} | \
                 GET accounts?$filter=name eq 'a b' [Accept=application/json] ",
            ),
            (
                "preamble, epilogue, padding, odd case, an inner content id, no version",
                "Multipart/Mixed;charset=utf-8; Boundary=b",
                "hello
--b\t
content-type:application/http


get A
CONTENT-id: x
--b--
bye",
                "#x get A [] ",
            ),
            (
                "a boundary that begins like another",
                "multipart/mixed; boundary=b",
                "--b
Content-Type: application/http

POST A HTTP/1.1

--bb
--b--",
                "POST A [] --bb",
            ),
            ("an empty batch", "multipart/mixed; boundary=b", "--b--", ""),
            ("no boundary", "multipart/mixed", "--b--", "the content type is not multipart/mixed with a boundary"),
            ("json", "application/json", "{}", "the content type is not multipart/mixed with a boundary"),
            (
                "cut off",
                "multipart/mixed; boundary=b",
                "--b
Content-Type: application/http

POST A HTTP/1.1

{}",
                "it ends before its last delimiter",
            ),
            (
                "a change set in a change set",
                "multipart/mixed; boundary=b",
                "--b
Content-Type: multipart/mixed; boundary=c

--c
Content-Type: multipart/mixed; boundary=d

--d--
--c--
--b--",
                "a change set may not hold another batch or change set",
            ),
            (
                "no request",
                "multipart/mixed; boundary=b",
                "--b
Content-Type: application/http

1
--b--",
                "a request line was expected",
            ),
            (
                "nothing in a part",
                "multipart/mixed; boundary=b",
                "--b
Content-Type: application/http

--b--",
                "a part is empty",
            ),
            (
                "a head that is none",
                "multipart/mixed; boundary=b",
                "--b
hm

--b--",
                "a header was expected",
            ),
        ] {
            let wanted_bare = wanted.replace("_}", "\n}");
            let wanted_crlf = wanted.replace("_}", "\r\n}");
            for (body, wanted) in [(body.to_owned(), wanted_bare), (body.replace('\n', "\r\n"), wanted_crlf)] {
                let shown = shown_requests(content_type, &body);
                assert!(shown == wanted || shown.ends_with(&format!(": {wanted}")), "{name}: {shown:?}");
            }
        }
    }

    #[test]
    fn answers_are_read_as_they_are_sent() {
        let body = "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_2\r\n\r\n\
            --changesetresponse_2\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\
            Content-ID: 1\r\n\r\nHTTP/1.1 204 No Content\r\nOData-Version: 4.0\r\n\
            OData-EntityId: https://x/accounts(1)\r\n\r\n\r\n--changesetresponse_2--\r\n--batchresponse_1\r\n\
            Content-Type: application/http\r\n\r\nHTTP/1.1 429\r\nRetry-After: 7\r\n\r\n\
            {\"error\":{\"code\":\"0x80072322\"}}\r\n--batchresponse_1--";
        let items = parse_responses("multipart/mixed; boundary=batchresponse_1", body.as_bytes()).expect("parses");
        let [Item::ChangeSet(set), Item::Single(single)] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!((set[0].status, set[0].content_id.as_deref(), set[0].body.len()), (204, Some("1"), 0));
        assert_eq!(header(&set[0].headers, "odata-entityid"), Some("https://x/accounts(1)"));
        assert_eq!((single.status, header(&single.headers, "retry-after")), (429, Some("7")));
        assert_eq!(single.body, b"{\"error\":{\"code\":\"0x80072322\"}}");
        for line in ["", "HTTP/1.1", "HTTP/1.1 x", "HTTP/1.1 99999", "ok 200"] {
            let body = format!("--b\nContent-Type: application/http\n\n{line}\n\n{{}}\n--b--");
            assert!(parse_responses("multipart/mixed; boundary=b", body.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn operations_are_counted() {
        let many = |count: usize| vec![request("DELETE", "A(1)", ""); count];
        let (content_type, body) = encode_requests(&[Item::ChangeSet(many(OPERATIONS_MAX))]);
        assert!(parse_requests(&content_type, &body).is_ok());
        let (content_type, body) =
            encode_requests(&[Item::ChangeSet(many(OPERATIONS_MAX)), Item::Single(request("GET", "A", ""))]);
        let refused = parse_requests(&content_type, &body);
        assert_eq!(
            refused,
            Err(BatchError::TooManyOperations { in_change_set: false, operations_max: OPERATIONS_MAX })
        );
        let (content_type, body) = encode_requests(&[Item::ChangeSet(many(OPERATIONS_MAX + 1))]);
        let refused = parse_requests(&content_type, &body).expect_err("too many");
        assert_eq!(refused, BatchError::TooManyOperations { in_change_set: true, operations_max: OPERATIONS_MAX });
        assert!(refused.to_string().contains("A maximum number of '1000' operations are allowed in a change set"));
    }

    #[test]
    fn nothing_from_outside_breaks_out_of_its_place() {
        let mut forged = request("GET", "A\r\nX-Evil: 1", "a\n--batch_dualwright_0--\n");
        forged.headers.push(("If-Match".to_owned(), "1\r\n\r\n{}".to_owned()));
        let (content_type, body) = encode_requests(&[Item::Single(forged)]);
        assert_eq!(content_type, "multipart/mixed; boundary=batch_dualwright_1");
        let items = parse_requests(&content_type, &body).expect("parses");
        let [Item::Single(read)] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!(read.url, "A  X-Evil: 1");
        assert_eq!(header(&read.headers, "if-match"), Some("1    {}"));
        assert_eq!(read.body, b"a\n--batch_dualwright_0--\n");
    }

    #[test]
    fn an_answer_has_the_boundaries_that_clients_look_for() {
        let items = vec![
            Item::ChangeSet(vec![response(204, "1", "")]),
            Item::Single(response(200, "", "a\n--batchresponse_t_0\n")),
        ];
        let (content_type, body) = encode_responses_as(&items, "t");
        assert_eq!(content_type, "multipart/mixed; boundary=batchresponse_t_1");
        let text = String::from_utf8(body.clone()).expect("text");
        assert!(
            text.starts_with("--batchresponse_t_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_t_1_1")
        );
        assert_eq!(parse_responses(&content_type, &body).expect("parses"), items);
    }

    /// Every mutation of a valid batch is either read or refused; none panics or hangs.
    #[test]
    fn mutations_are_read_or_refused() {
        let (content_type, valid) = encode_requests(&[
            Item::Single(request("GET", "A?$filter=a eq 'b'", "")),
            Item::ChangeSet(vec![request("POST", "A", "{\"a\":1}"), request("PATCH", "$1", "{}")]),
        ]);
        crate::tests::mutate(&valid, 20_000, |bytes| {
            let _ = parse_requests(&content_type, bytes);
            let _ = parse_responses(&content_type, bytes);
            if let Ok(text) = std::str::from_utf8(bytes) {
                let _ = parse_requests(text, &valid);
            }
        });
    }
}
