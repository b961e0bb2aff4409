//! `$batch` bodies for the client side.
//!
//! Owns the correspondence between what was asked and what was answered; the framing itself is `dualwright-odata`'s.

use std::borrow::Cow;

use bytes::Bytes;
use dualwright_core::{Code, Fault};
use dualwright_odata::batch::{Item, Writer, parse_messages};

use super::http::{Answer, Failure};

/// One operation of a batch.
#[derive(Debug)]
pub(super) struct Part {
    pub method: &'static str,
    pub url: String,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: Vec<u8>,
    /// The URL is a query, so the answer is a page.
    pub is_query: bool,
}

impl Part {
    /// A row by its address.
    pub const fn get(url: String) -> Self {
        Self { method: "GET", url, headers: Vec::new(), body: Vec::new(), is_query: false }
    }

    /// A row by a filter.
    pub const fn query(url: String) -> Self {
        Self { method: "GET", url, headers: Vec::new(), body: Vec::new(), is_query: true }
    }

    /// A POST or PATCH of a JSON body.
    pub fn json(method: &'static str, url: String, body: Vec<u8>) -> Self {
        // Room for the two that may come.
        let mut headers = Vec::with_capacity(3);
        headers.push(("Content-Type", Cow::Borrowed("application/json")));
        Self { method, url, headers, body, is_query: false }
    }

    pub fn delete(url: String) -> Self {
        Self { method: "DELETE", url, headers: Vec::new(), body: Vec::new(), is_query: false }
    }

    /// The answer shall hold the row, so that its new version is known.
    #[must_use]
    pub fn returning(mut self) -> Self {
        self.headers.push(("Prefer", Cow::Borrowed("return=representation")));
        self
    }

    #[must_use]
    pub fn if_match(mut self, version: &str) -> Self {
        self.headers.push(("If-Match", Cow::Owned(version.to_owned())));
        self
    }
}

/// The answer to one operation, or to a change set that was refused.
#[derive(Debug)]
pub(super) struct PartAnswer {
    pub status: u16,
    /// Position of the operation in the request, when the answer says which one it belongs to.
    pub position: Option<usize>,
    pub etag: Option<String>,
    pub retry_after: Option<String>,
    /// A slice of the whole answer.
    pub body: Bytes,
}

impl PartAnswer {
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}

/// Content type and body. Every operation of a change set carries its position, counted from 1, as its Content-ID.
pub(super) fn encode(parts: &[Part], change_set: bool) -> (String, Vec<u8>) {
    // Head and delimiter of a part with our headers come to some 300 bytes.
    let bytes = parts.iter().map(|part| part.url.len() + part.body.len() + 320).sum::<usize>();
    let mut writer = Writer::with_capacity(bytes + 500);
    if change_set {
        writer.open_change_set();
    }
    for (position, part) in parts.iter().enumerate() {
        let id = change_set.then(|| (position + 1).to_string());
        let headers = part.headers.iter().map(|(name, value)| (*name, value.as_ref()));
        writer.request(id.as_deref(), part.method, &part.url, headers, &part.body);
    }
    if change_set {
        writer.close_change_set();
    }
    writer.finish()
}

/// What the answer to a batch of so many operations says: an answer per operation in their order, or, when a change
/// set was refused, a single one that says which operation it was, or that it was all of them.
pub(super) fn answers(system: &str, answer: &Answer, operations: usize) -> Result<Vec<PartAnswer>, Failure> {
    if answer.is_multipart() {
        return decode(system, answer, operations).map_err(Failure::Unknown);
    }
    if let Some(after) = answer.wait_asked() {
        return Err(Failure::NotSent { fault: answer.fault(system), retry_after: Some(after) });
    }
    match answer.status.as_u16() {
        // Whoever answered may stand between us and a system that has committed.
        408 | 500..=599 => Err(Failure::Unknown(answer.fault(system))),
        status @ 400..=499 => Ok(vec![PartAnswer {
            status,
            position: None,
            etag: None,
            retry_after: answer.header("retry-after").map(str::to_owned),
            body: answer.body.clone(),
        }]),
        status => {
            let what = format!("{system} answered {status} without an answer per operation");
            Err(Failure::Unknown(Fault::new(Code::Unavailable, what)))
        }
    }
}

fn decode(system: &str, answer: &Answer, operations: usize) -> Result<Vec<PartAnswer>, Fault> {
    let content_type = answer.header("content-type").unwrap_or_default();
    let items = parse_messages(content_type, &answer.body, &|message| {
        let position = message.content_id().and_then(|id| id.parse::<usize>().ok()).and_then(|id| id.checked_sub(1));
        Ok(PartAnswer {
            status: message.status().ok_or("a status line was expected")?,
            position: position.filter(|position| *position < operations),
            etag: message.header("etag").map(str::to_owned),
            retry_after: message.header("retry-after").map(str::to_owned),
            body: answer.body.slice_ref(message.body),
        })
    })
    .map_err(|error| Fault::new(Code::Unavailable, format!("{system} sent an answer that cannot be read: {error}")))?;
    let mut answers = Vec::with_capacity(operations);
    for item in items {
        match item {
            Item::Single(one) => answers.push(one),
            Item::ChangeSet(all) => answers.extend(all),
        }
    }
    // A server may answer a change set in an order of its own.
    if answers.iter().all(|answer| answer.position.is_some()) {
        answers.sort_by_key(|answer| answer.position);
    }
    Ok(answers)
}

impl Answer {
    fn is_multipart(&self) -> bool {
        self.header("content-type").is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/mixed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualwright_odata::batch::{Request, Response, encode_responses, header, parse_requests};
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderValue};

    fn answer(items: &[Item<Response>]) -> Answer {
        let (content_type, body) = encode_responses(items);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::try_from(content_type).expect("header"));
        Answer { status: StatusCode::OK, headers, body: Bytes::from(body) }
    }

    fn response(status: u16, content_id: Option<&str>, body: &str) -> Response {
        Response {
            status,
            headers: vec![("ETag".to_owned(), "W/\"5\"".to_owned())],
            body: body.as_bytes().to_vec(),
            content_id: content_id.map(str::to_owned),
        }
    }

    #[test]
    fn a_change_set_is_encoded_with_positions_and_conditions() {
        let parts = [
            Part::json("PATCH", "/data/F(1)".to_owned(), b"{\"Epoch\":2}".to_vec()).returning().if_match("W/\"1\""),
            Part::json("POST", "/data/A".to_owned(), b"{}".to_vec()),
            Part::delete("/data/A(2)".to_owned()),
        ];
        let (content_type, body) = encode(&parts, true);
        let items = parse_requests(&content_type, &body).expect("parses");
        let [Item::ChangeSet(set)] = items.as_slice() else { panic!("{items:?}") };
        let shown = |request: &Request| {
            let id = request.content_id.as_deref().unwrap_or("-");
            let condition = header(&request.headers, "if-match").unwrap_or("-");
            let body = String::from_utf8_lossy(&request.body);
            format!("{id} {} {} {condition} {body}", request.method, request.url)
        };
        assert_eq!(
            set.iter().map(shown).collect::<Vec<_>>(),
            ["1 PATCH /data/F(1) W/\"1\" {\"Epoch\":2}", "2 POST /data/A - {}", "3 DELETE /data/A(2) - "]
        );
        let (content_type, body) = encode(&[Part::get("/data/A(1)".to_owned())], false);
        let items = parse_requests(&content_type, &body).expect("parses");
        assert!(matches!(items.as_slice(), [Item::Single(one)] if one.content_id.is_none()), "{items:?}");
    }

    #[test]
    fn answers_are_decoded_in_order_and_know_their_operation() {
        let sets =
            answer(&[Item::ChangeSet(vec![response(200, Some("1"), "{\"a\":1}"), response(204, Some("2"), "")])]);
        let decoded = decode("finops", &sets, 2).expect("decodes");
        let shown = |one: &PartAnswer| (one.status, one.position, one.body.len(), one.etag.clone());
        let etag = Some("W/\"5\"".to_owned());
        assert_eq!(
            decoded.iter().map(shown).collect::<Vec<_>>(),
            [(200, Some(0), 7, etag.clone()), (204, Some(1), 0, etag.clone())]
        );
        // A refused change set: one answer, alone or in a set of its own, as different servers do.
        for (items, position) in [
            (vec![Item::Single(response(412, Some("2"), "{}"))], Some(1)),
            (vec![Item::ChangeSet(vec![response(412, Some("2"), "{}")])], Some(1)),
            (vec![Item::Single(response(412, None, "{}"))], None),
            (vec![Item::Single(response(412, Some("3"), "{}"))], None),
            (vec![Item::Single(response(412, Some("0"), "{}"))], None),
            (vec![Item::Single(response(412, Some("x"), "{}"))], None),
        ] {
            let decoded = decode("finops", &answer(&items), 2).expect("decodes");
            assert_eq!(decoded.iter().map(|one| one.position).collect::<Vec<_>>(), [position], "{items:?}");
        }
        let unordered = [Item::ChangeSet(vec![response(204, Some("2"), ""), response(200, Some("1"), "{}")])];
        let decoded = decode("finops", &answer(&unordered), 2).expect("decodes");
        assert_eq!(decoded.iter().map(|one| one.status).collect::<Vec<_>>(), [200, 204]);
        let mut broken = answer(&[Item::Single(response(200, None, "{}"))]);
        broken.body.truncate(60);
        assert_eq!(decode("finops", &broken, 1).map(|_| ()).expect_err("is refused").code, Code::Unavailable);
    }
    #[test]
    fn a_plain_answer_to_a_batch_says_what_became_of_all_of_it() {
        for (status, retry_after, wanted) in [
            (400, None, "refused 400"),
            (412, None, "refused 412"),
            (429, Some("5"), "not sent, DW-2001, wait 5s"),
            (429, None, "not sent, DW-2001, wait 1s"),
            (503, Some("9"), "not sent, DW-2002, wait 9s"),
            (503, None, "unknown, DW-2002"),
            (500, None, "unknown, DW-2002"),
            (504, Some("9"), "unknown, DW-2002"),
            (408, None, "unknown, DW-2002"),
            (200, None, "unknown, DW-2002"),
            (302, None, "unknown, DW-2002"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = retry_after {
                headers.insert("retry-after", HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(status).expect("status");
            let shown = match answers("finops", &Answer { status, headers, body: Bytes::new() }, 3) {
                Ok(answers) => format!("refused {}", answers[0].status),
                Err(Failure::NotSent { fault, retry_after }) => {
                    format!("not sent, {}, wait {:?}", fault.code, retry_after.unwrap_or_default())
                }
                Err(Failure::Unknown(fault)) => format!("unknown, {}", fault.code),
            };
            assert_eq!(shown, wanted, "{status} {retry_after:?}");
        }
    }
}
