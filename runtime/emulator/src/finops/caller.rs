//! Who asks: the application or user that a bearer token names.
//!
//! Owns reading the claims; whether the token is a good one was decided before. Companies and priorities are looked up
//! by what this gives.

use dualwright_odata::batch::{Request, header};
use serde_json::Value;

/// The client id of an application, or the name of a user; `None` without a token that says either.
pub(crate) fn of(request: &Request) -> Option<String> {
    let token = header(&request.headers, "authorization")?;
    let (scheme, token) = token.split_once(' ')?;
    let payload = token.trim().split('.').nth(1).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
    let claims: Value = serde_json::from_slice(&decoded(payload)?).ok()?;
    ["appid", "azp", "upn", "unique_name", "oid", "sub"]
        .iter()
        .find_map(|claim| claims.get(*claim)?.as_str())
        .map(str::to_owned)
}

/// Base 64 for URLs, without padding (RFC 7515).
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = ((bits << 6) | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or_default());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_read_from_the_claims() {
        for (token, wanted) in [
            // {"appid":"1b2c","sub":"x"}
            ("Bearer h.eyJhcHBpZCI6IjFiMmMiLCJzdWIiOiJ4In0.s", Some("1b2c")),
            // {"upn":"a@b?"}
            ("bearer h.eyJ1cG4iOiJhQGI_In0.s", Some("a@b?")),
            ("Basic h.eyJhcHBpZCI6IjFiMmMifQ.s", None),
            ("Bearer opaque", None),
            ("Bearer a.%.c", None),
            ("Bearer a.e30.c", None),
        ] {
            let headers = vec![("Authorization".to_owned(), token.to_owned())];
            let request = Request { headers, ..Request::default() };
            assert_eq!(of(&request).as_deref(), wanted, "{token}");
        }
    }
}
