//! Where a webhook is posted to, and how it proves who it is.
//!
//! Owns the kinds of authentication of a webhook
//! (<https://learn.microsoft.com/power-apps/developer/data-platform/register-web-hook#authentication-options>). What
//! stands in `authvalue` is a secret: it never reaches a message, a log or an answer.

use dualwright_odata::escape::component;

use super::super::rows::Cells;

/// `contract` of a webhook.
pub(crate) const WEBHOOK: i64 = 8;
pub(super) const WEBHOOK_KEY: i64 = 4;
pub(super) const HTTP_HEADER: i64 = 5;
pub(super) const HTTP_QUERY_STRING: i64 = 6;

/// A registered endpoint.
#[derive(Clone)]
pub(crate) struct Endpoint {
    url: String,
    kind: i64,
    secret: String,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url.split('?').next()).field("kind", &self.kind).finish()
    }
}

impl Endpoint {
    pub(super) fn of(row: &Cells<'_>) -> Self {
        Self { url: row.text("url"), kind: row.number("authtype"), secret: row.text("authvalue") }
    }

    /// The URL with its secret, and the headers that carry one.
    pub fn address(&self) -> (String, Vec<(String, String)>) {
        let mut url = self.url.clone();
        let mut query = |name: &str, value: &str| {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{}={}", component(name), component(value)));
        };
        match self.kind {
            WEBHOOK_KEY => query("code", &self.secret),
            HTTP_QUERY_STRING => pairs(&self.secret).iter().for_each(|(name, value)| query(name, value)),
            HTTP_HEADER => return (url, pairs(&self.secret)),
            _ => {}
        }
        (url, Vec::new())
    }
}

/// The names and values of `<settings><setting name="…" value="…" /></settings>`, which the registration tool writes.
/// Text that is none of that has none; `registration` refuses it.
pub(super) fn pairs(settings: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for element in settings.split("<setting ").skip(1) {
        let Some(end) = element.find('>') else { continue };
        let (name, value) = (attribute(&element[..end], "name"), attribute(&element[..end], "value"));
        if let (Some(name), Some(value)) = (name, value) {
            found.push((name, value));
        }
    }
    found
}

fn attribute(element: &str, name: &str) -> Option<String> {
    let start = element.find(&format!("{name}="))? + name.len() + 1;
    let quote = element[start..].chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let rest = &element[start + 1..];
    let text = &rest[..rest.find(quote)?];
    Some(
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_where_the_endpoint_expects_them_and_nowhere_else() {
        let settings = r#"<settings><setting name="x-key" value="a&amp;b" /><setting value='2' name='n'/></settings>"#;
        for (url, kind, secret, wanted, headers) in [
            ("https://a/b", WEBHOOK_KEY, "s 1", "https://a/b?code=s%201", vec![]),
            ("https://a/b?c=d", WEBHOOK_KEY, "k-2", "https://a/b?c=d&code=k-2", vec![]),
            ("https://a", HTTP_HEADER, settings, "https://a", vec![("x-key", "a&b"), ("n", "2")]),
            ("https://a", HTTP_QUERY_STRING, settings, "https://a?x-key=a%26b&n=2", vec![]),
            ("https://a", HTTP_HEADER, "no settings", "https://a", vec![]),
            ("https://a", 0, "k-2", "https://a", vec![]),
        ] {
            let endpoint = Endpoint { url: url.into(), kind, secret: secret.into() };
            let headers: Vec<(String, String)> =
                headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(endpoint.address(), (wanted.to_owned(), headers), "{kind} {url}");
            assert!(!format!("{endpoint:?}").contains(secret), "{endpoint:?}");
        }
    }
}
