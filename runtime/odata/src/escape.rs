//! Quoting and percent-coding: what makes any text safe inside a URL or a literal.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Unreserved characters (RFC 3986, 2.3) and the quote, which delimits OData literals and is safe everywhere we use it.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'\'');

/// Percent-codes a key predicate, the value of a query option or of a form field.
#[must_use]
pub fn component(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, KEPT).into()
}

/// An OData text literal: quoted, quotes inside doubled. Not percent-coded.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for (index, piece) in text.split('\'').enumerate() {
        if index > 0 {
            quoted.push_str("''");
        }
        quoted.push_str(piece);
    }
    quoted.push('\'');
    quoted
}

/// Undoes percent-coding. A stray `%` stays as it is; `None` when the result is not UTF-8.
#[must_use]
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    // Hardly anything is coded, and then nothing has to be looked at twice.
    if text.contains('%') { percent_decode_str(text).decode_utf8().ok() } else { Some(Cow::Borrowed(text)) }
}

/// [`decode`] for the query of a URL, where `+` is a blank.
#[must_use]
pub fn decode_query(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let blanks = text.replace('+', " ");
        decode(&blanks).map(|decoded| Cow::Owned(decoded.into_owned()))
    } else {
        decode(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_quoting_and_coding() {
        for (text, quoted, coded) in [
            ("A", "'A'", "'A'"),
            ("", "''", "''"),
            ("O'Neil & Söhne", "'O''Neil & Söhne'", "'O''Neil%20%26%20S%C3%B6hne'"),
            ("a/b?c=#+%", "'a/b?c=#+%'", "'a%2Fb%3Fc%3D%23%2B%25'"),
        ] {
            assert_eq!(quote(text), quoted);
            assert_eq!(component(&quote(text)), coded);
            assert_eq!(decode(coded).as_deref(), Some(quoted));
            assert_eq!(decode_query(coded).as_deref(), Some(quoted));
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_kept_or_refused() {
        assert_eq!(decode("100%").as_deref(), Some("100%"));
        assert_eq!(decode("%zz").as_deref(), Some("%zz"));
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode_query("a+b%2Bc").as_deref(), Some("a b+c"));
    }
}
