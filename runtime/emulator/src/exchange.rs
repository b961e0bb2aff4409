//! What a request asks beside its URL, and how an answer is put together.
//!
//! Owns headers and tokens that both dialects share; a request is the same whether it came alone or in a batch.

use dualwright_odata::batch::{Request, Response, header};
use dualwright_odata::escape::component;
use dualwright_odata::url::Resource;

/// A preference by its name: `Some("")` when it has no value.
pub(crate) fn preference<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request
        .headers
        .iter()
        .filter(|(own, _)| own.eq_ignore_ascii_case("prefer"))
        .flat_map(|(_, value)| value.split([',', ';']))
        .find_map(|one| {
            let (own, value) = one.split_once('=').unwrap_or((one, ""));
            own.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
        })
}

pub(crate) fn wants_representation(request: &Request) -> Option<bool> {
    match preference(request, "return")? {
        "representation" => Some(true),
        "minimal" => Some(false),
        _ => None,
    }
}

/// Rows on one page: what was asked for, within what the system gives.
pub(crate) fn page_size(request: &Request, largest: usize) -> usize {
    preference(request, "odata.maxpagesize")
        .or_else(|| preference(request, "maxpagesize"))
        .and_then(|size| size.parse().ok())
        .map_or(largest, |size: usize| size.clamp(1, largest))
}

/// Whether an If-Match or If-None-Match header names this etag.
pub(crate) fn names_etag(header: &str, etag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    header.split(',').any(|one| one.trim() == "*" || bare(one) == bare(etag))
}

pub(crate) fn if_match(request: &Request) -> Option<&str> {
    header(&request.headers, "if-match")
}

pub(crate) fn if_none_match(request: &Request) -> Option<&str> {
    header(&request.headers, "if-none-match").filter(|value| *value != "null")
}

/// The answer to one request.
pub(crate) fn json(status: u16, body: Vec<u8>) -> Response {
    Response {
        status,
        headers: vec![
            ("Content-Type".into(), "application/json; odata.metadata=minimal".into()),
            ("OData-Version".into(), "4.0".into()),
        ],
        body,
        content_id: None,
    }
}

pub(crate) fn no_content(status: u16) -> Response {
    Response { status, headers: vec![("OData-Version".into(), "4.0".into())], body: Vec::new(), content_id: None }
}

pub(crate) fn with_header(mut response: Response, name: &str, value: impl Into<String>) -> Response {
    response.headers.push((name.to_owned(), value.into()));
    response
}

/// The query of a link to the next page: the options of this request, with `own` instead of those of the same names.
/// A skip has been made by then, and a limit is part of the token.
pub(crate) fn link_query(resource: &Resource, own: &[(&str, &str)]) -> String {
    let mut query = String::new();
    let kept = resource
        .options
        .iter()
        .filter(|(name, _)| {
            !matches!(name.as_str(), "$skip" | "$top" | "$skiptoken" | "$deltatoken")
                && !own.iter().any(|(replaced, _)| replaced == name)
        })
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in kept.chain(own.iter().copied()) {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.push_str(&component(value));
    }
    query
}

/// An opaque token: the caller shall not be tempted to read it.
pub(crate) fn seal(token: &impl serde::Serialize) -> String {
    let json = serde_json::to_vec(token).unwrap_or_default();
    json.iter().fold(String::with_capacity(json.len() * 2), |mut hex, byte| {
        hex.push_str(&format!("{byte:02x}"));
        hex
    })
}

pub(crate) fn unseal<T: serde::de::DeserializeOwned>(token: &str) -> Option<T> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = token
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_and_etags() {
        let request = Request {
            headers: vec![("Prefer".into(), "return=representation, odata.maxpagesize=5;odata.track-changes".into())],
            ..Request::default()
        };
        assert_eq!(wants_representation(&request), Some(true));
        assert_eq!(page_size(&request, 100), 5);
        assert_eq!(page_size(&request, 3), 3);
        assert!(preference(&request, "odata.track-changes").is_some());
        assert!(preference(&request, "odata.continue-on-error").is_none());
        for (header, etag, wanted) in [
            ("*", "W/\"1\"", true),
            ("W/\"1\"", "W/\"1\"", true),
            ("\"1\"", "W/\"1\"", true),
            ("W/\"2\", W/\"1\"", "W/\"1\"", true),
            ("W/\"11\"", "W/\"1\"", false),
            ("", "W/\"1\"", false),
        ] {
            assert_eq!(names_etag(header, etag), wanted, "{header}");
        }
        assert_eq!(unseal::<(i64, String)>(&seal(&(7, "ä"))), Some((7, "ä".to_owned())));
        assert_eq!(unseal::<i64>("xyz"), None);
        assert_eq!(unseal::<i64>("é1"), None);
    }
}
