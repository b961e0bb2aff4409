//! Resource paths and query options: `accounts(accountnumber='A-1')/name?$select=name`.
//!
//! Owns the grammar; does not know which sets exist.

use thiserror::Error;

use crate::escape::{decode, decode_query};
use crate::literal::{self, Literal};

/// A parsed URL below the service root.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resource {
    pub segments: Vec<Segment>,
    /// Query options in their order, decoded: `("$select", "name")`.
    pub options: Vec<(String, String)>,
}

/// One step of the path: a set, a property, `$count`, `$ref`, `$1`, or a qualified action or type.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub name: String,
    pub key: Key,
}

/// What stands in the brackets of a segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// No brackets.
    None,
    /// `accounts(6a8f…)`.
    Single(Literal),
    /// `Customers(dataAreaId='usmf',CustomerAccount='1')`; empty for `WhoAmI()`.
    Named(Vec<(String, Literal)>),
}

/// A URL that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the URL cannot be read at position {at}: {message}")]
pub struct UrlError {
    /// Byte offset in the decoded path, or 0 for the query.
    pub at: usize,
    pub message: &'static str,
}

/// Longest URL that is read; Dataverse accepts 64 KB inside a batch.
pub const URL_BYTES_MAX: usize = 64 * 1024;

/// Reads a path below the service root, with its query.
pub fn parse(text: &str) -> Result<Resource, UrlError> {
    if text.len() > URL_BYTES_MAX {
        return Err(UrlError { at: URL_BYTES_MAX, message: "it is too long" });
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    // Coded quotes and slashes mean the same as plain ones once they are inside quotes, so the path is decoded first.
    let path = decode(path).ok_or(UrlError { at: 0, message: "the path is not UTF-8" })?;
    let mut resource = Resource { segments: parse_path(&path)?, options: parse_query(query)? };
    let Resource { segments, options } = &mut resource;
    // `sets(code=@k)?@k='A'`: an alias that nothing is assigned to is null.
    for segment in segments {
        let Key::Named(pairs) = &mut segment.key else { continue };
        for (_, value) in pairs {
            if let Literal::Text(text) = value
                && let Some(alias) = text.strip_prefix(ALIAS)
            {
                let assigned = options.iter().find(|(name, _)| name == alias).map(|(_, value)| value.as_str());
                *value = match assigned {
                    None => Literal::Null,
                    Some(text) => Literal::parse(text).unwrap_or_else(|| Literal::text(text)),
                };
            }
        }
    }
    Ok(resource)
}

/// Marks an alias among the texts of a path: no request can hold it.
const ALIAS: char = '\u{f8ff}';

/// A parameter alias, or a list in square brackets, at the start of a value; with its length.
fn read_special(text: &str) -> Option<(Literal, usize)> {
    if let Some(name) = text.strip_prefix('@') {
        let length = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(text.len(), |at| at + 1);
        return Some((Literal::Text(format!("{ALIAS}{}", &text[..length])), length));
    }
    if !text.starts_with('[') {
        return None;
    }
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            (']', None) => return Some((Literal::text(&text[..=at]), at + 1)),
            _ => {}
        }
    }
    None
}

/// The members of a list in square brackets, with either kind of quotes.
#[must_use]
pub fn read_list(text: &str) -> Vec<String> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    split_list(inner).into_iter().map(|item| item.trim_matches(['\'', '"']).to_owned()).collect()
}

/// What follows `root` in a request target: a full URL, a path from the host, or a path that is already below the
/// root. `None` when it is a path to somewhere else. `root` has no slash at its end.
#[must_use]
pub fn below<'a>(root: &str, target: &'a str) -> Option<&'a str> {
    let scheme = target.find("://").filter(|&at| at <= 5 && target[..at].bytes().all(|b| b.is_ascii_alphabetic()));
    let path = match scheme {
        Some(at) => {
            let rest = &target[at + 3..];
            &rest[rest.find('/')?..]
        }
        None => target,
    };
    if !path.starts_with('/') {
        return Some(path);
    }
    let rest = path.get(..root.len()).filter(|start| start.eq_ignore_ascii_case(root)).map(|_| &path[root.len()..])?;
    match rest.as_bytes().first() {
        None | Some(b'?') => Some(rest),
        Some(b'/') => Some(&rest[1..]),
        Some(_) => None,
    }
}

fn parse_path(path: &str) -> Result<Vec<Segment>, UrlError> {
    let mut segments = Vec::new();
    let mut at = path.len() - path.trim_start_matches('/').len();
    while at < path.len() {
        let rest = &path[at..];
        let name_length = rest.find(['/', '(']).unwrap_or(rest.len());
        let name = &rest[..name_length];
        if name.is_empty() {
            return Err(UrlError { at, message: "a segment has no name" });
        }
        at += name_length;
        let key = if path[at..].starts_with('(') {
            let (key, length) =
                parse_key(&path[at + 1..]).map_err(|(offset, message)| UrlError { at: at + 1 + offset, message })?;
            at += 1 + length;
            key
        } else {
            Key::None
        };
        segments.push(Segment { name: name.to_owned(), key });
        if at < path.len() {
            if !path[at..].starts_with('/') {
                return Err(UrlError { at, message: "a slash was expected" });
            }
            at += 1;
        }
    }
    Ok(segments)
}

/// Reads a key up to and with its closing bracket; gives its length too.
fn parse_key(text: &str) -> Result<(Key, usize), (usize, &'static str)> {
    let blanks = |at: usize| at + (text[at..].len() - text[at..].trim_start_matches(' ').len());
    let mut at = blanks(0);
    if text[at..].starts_with(')') {
        return Ok((Key::Named(Vec::new()), at + 1));
    }
    let mut single = None;
    let mut pairs = Vec::new();
    loop {
        let name_length = text[at..]
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@')))
            .unwrap_or(text.len() - at);
        let after_name = blanks(at + name_length);
        let name = if name_length > 0 && text[after_name..].starts_with('=') {
            let name = &text[at..at + name_length];
            at = blanks(after_name + 1);
            Some(name)
        } else {
            None
        };
        let (value, length) = literal::read(&text[at..])
            .or_else(|| read_special(&text[at..]).filter(|_| name.is_some()))
            .ok_or((at, "a literal was expected"))?;
        at = blanks(at + length);
        match name {
            Some(name) if single.is_none() => pairs.push((name.to_owned(), value)),
            None if pairs.is_empty() && single.is_none() => single = Some(value),
            _ => return Err((at, "every part of a composite key needs a name")),
        }
        match text.as_bytes().get(at) {
            Some(b',') => at = blanks(at + 1),
            Some(b')') => return Ok((single.map_or(Key::Named(pairs), Key::Single), at + 1)),
            _ => return Err((at, "a comma or a closing bracket was expected")),
        }
    }
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, UrlError> {
    let not_text = || UrlError { at: 0, message: "a query option is not UTF-8" };
    query
        .split('&')
        .filter(|option| !option.is_empty())
        .map(|option| {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let name = decode_query(name).ok_or_else(not_text)?.into_owned();
            let value = decode_query(value).ok_or_else(not_text)?.into_owned();
            Ok((name, value))
        })
        .collect()
}

impl Resource {
    /// The value of the first query option with that name, in any case.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A query option with its parameter aliases replaced by what they stand for, or by null.
    #[must_use]
    pub fn resolved(&self, name: &str) -> Option<String> {
        let text = self.option(name)?;
        let mut resolved = String::with_capacity(text.len());
        let (mut rest, mut quoted) = (text, false);
        while let Some(letter) = rest.chars().next() {
            // Only where an alias may begin is its end looked for: what is filtered by may be long.
            let is_start = letter == '@' && !quoted && !resolved.ends_with(|c: char| c.is_alphanumeric());
            let name = |rest: &str| {
                rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(rest.len(), |after| after + 1)
            };
            if let Some(end) = is_start.then(|| name(rest)).filter(|end| *end > 1) {
                let alias = &rest[..end];
                let assigned = self.options.iter().find(|(own, _)| own == alias).map(|(_, value)| value.as_str());
                resolved.push_str(assigned.unwrap_or("null"));
                rest = &rest[end..];
                continue;
            }
            quoted ^= letter == '\'';
            resolved.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
        Some(resolved)
    }

    /// The items of a list option such as `$select`; empty when it is not given.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.option(name).map(split_list).unwrap_or_default()
    }

    /// `$orderby` as properties and whether each descends.
    #[must_use]
    pub fn order(&self) -> Vec<(&str, bool)> {
        self.list("$orderby")
            .into_iter()
            .map(|item| match item.rsplit_once(' ') {
                Some((property, "desc")) => (property.trim(), true),
                Some((property, "asc")) => (property.trim(), false),
                _ => (item, false),
            })
            .collect()
    }
}

/// Splits at commas outside quotes and brackets; blanks around items and empty items are dropped.
#[must_use]
pub fn split_list(text: &str) -> Vec<&str> {
    split_at(text, b',')
}

fn split_at(text: &str, separator: u8) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut depth, mut quoted) = (0, 0_usize, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\'' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.saturating_sub(1),
            _ if byte == separator && !quoted && depth == 0 => {
                items.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(text[start..].trim());
    items.retain(|item| !item.is_empty());
    items
}

/// Splits the options inside brackets, `$select=a,b;$filter=c eq ';'`, into names and values.
#[must_use]
pub fn split_options(text: &str) -> Vec<(&str, &str)> {
    split_at(text, b';')
        .into_iter()
        .map(|option| match option.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim()),
            None => (option, ""),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path in a spelling of its own: names, keys with their literals, and options.
    fn shown(text: &str) -> String {
        match parse(text) {
            Err(error) => format!("{}: {}", error.at, error.message),
            Ok(resource) => {
                let segments = resource.segments.iter().map(|segment| match &segment.key {
                    Key::None => segment.name.clone(),
                    Key::Single(value) => format!("{}[{value}]", segment.name),
                    Key::Named(pairs) => {
                        let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
                        format!("{}[{}]", segment.name, pairs.join(" "))
                    }
                });
                let options = resource.options.iter().map(|(name, value)| format!("?{name}={value}"));
                segments.chain(options).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn paths_keys_and_options() {
        for (text, wanted) in [
            ("", ""),
            ("accounts", "accounts"),
            ("/accounts/", "accounts"),
            ("accounts/$count", "accounts $count"),
            (
                "accounts(6A8F1F3C-5b1d-4f4e-9d0a-0123456789ab)/primarycontactid/$ref",
                "accounts[6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab] primarycontactid $ref",
            ),
            ("accounts(accountnumber='A%2F1 ''x''')", "accounts[accountnumber='A/1 ''x''']"),
            ("accounts(accountnumber=%27A/1%27)", "accounts[accountnumber='A/1']"),
            (
                "Customers(dataAreaId='usmf', CustomerAccount='1)',Line=-5,Date=1900-01-01T00:00:00Z)?cross-company=true",
                "Customers[dataAreaId='usmf' CustomerAccount='1)' Line=-5 Date=1900-01-01T00:00:00Z] ?cross-company=true",
            ),
            (
                "R(NoYes=Microsoft.Dynamics.DataEntities.NoYes'Yes')",
                "R[NoYes=Microsoft.Dynamics.DataEntities.NoYes'Yes']",
            ),
            ("WhoAmI()", "WhoAmI[]"),
            ("accounts/Microsoft.Dynamics.CRM.CreateMultiple", "accounts Microsoft.Dynamics.CRM.CreateMultiple"),
            ("$1", "$1"),
            ("a?$filter=name%20eq%20'x%26y'+or&$top=5&tag", "a ?$filter=name eq 'x&y' or ?$top=5 ?tag="),
            ("EntityDefinitions(LogicalName='account')/Keys", "EntityDefinitions[LogicalName='account'] Keys"),
            ("a//b", "2: a segment has no name"),
            ("(1)", "0: a segment has no name"),
            ("a(1", "3: a comma or a closing bracket was expected"),
            ("a(1)b", "4: a slash was expected"),
            ("a('x)", "2: a literal was expected"),
            ("a(x)", "2: a literal was expected"),
            ("a(1,2)", "5: every part of a composite key needs a name"),
            ("a(b=1,2)", "7: every part of a composite key needs a name"),
            ("a(%ff)", "0: the path is not UTF-8"),
        ] {
            assert_eq!(shown(text), wanted, "{text}");
        }
    }

    #[test]
    fn aliases_stand_for_what_is_assigned() {
        let resource = parse("a(k=@k,l=@none)?$filter=@p1 ne @p3 and c eq '@p1'&@p1=revenue&@k='x'").expect("parses");
        assert_eq!(resource.resolved("$filter").as_deref(), Some("revenue ne null and c eq '@p1'"));
        assert_eq!(
            resource.segments[0].key,
            Key::Named(vec![("k".to_owned(), Literal::text("x")), ("l".to_owned(), Literal::Null)])
        );
        let list = parse("F(Names=['a',\"b\"])").expect("parses");
        let Key::Named(pairs) = &list.segments[0].key else { panic!("{list:?}") };
        let Literal::Text(text) = &pairs[0].1 else { panic!("{pairs:?}") };
        assert_eq!(read_list(text), ["a", "b"]);
        assert_eq!(
            split_options("$select=a,b;$filter=c eq ';';$expand=d($select=e;$top=1)"),
            [("$select", "a,b"), ("$filter", "c eq ';'"), ("$expand", "d($select=e;$top=1)")]
        );
    }

    #[test]
    fn targets_are_cut_at_the_root() {
        let root = "/api/data/v9.2";
        for (target, wanted) in [
            ("/api/data/v9.2/accounts?$top=1", Some("accounts?$top=1")),
            ("/API/data/v9.2/accounts", Some("accounts")),
            ("https://host:1/api/data/v9.2/accounts(1)", Some("accounts(1)")),
            ("accounts?$filter=url eq 'http://x'", Some("accounts?$filter=url eq 'http://x'")),
            ("$1", Some("$1")),
            ("/api/data/v9.2", Some("")),
            ("/api/data/v9.22/accounts", None),
            ("/data/Customers", None),
            ("https://host", None),
            ("", Some("")),
        ] {
            assert_eq!(below(root, target), wanted, "{target}");
        }
    }

    #[test]
    fn list_options_are_split() {
        let resource =
            parse("a?$select= a ,b,,c&$orderby=x desc,y asc, z&$EXPAND=n($select=p,q),m(f='),')").expect("parses");
        assert_eq!(resource.list("$select"), ["a", "b", "c"]);
        assert_eq!(resource.order(), [("x", true), ("y", false), ("z", false)]);
        assert_eq!(resource.list("$expand"), ["n($select=p,q)", "m(f='),')"]);
        assert!(resource.list("$apply").is_empty());
    }
}
