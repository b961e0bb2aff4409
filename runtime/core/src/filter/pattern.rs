//! A text test, made ready: no letter of the pattern is looked at twice per row where the text is plain.

use super::Pattern;

/// A [`Pattern`] in lower case.
#[derive(Debug, Clone)]
pub(super) enum Test {
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Like(Vec<char>),
}

impl Test {
    pub(super) fn new(pattern: &Pattern) -> Self {
        match pattern {
            Pattern::StartsWith(text) => Self::StartsWith(text.to_lowercase()),
            Pattern::EndsWith(text) => Self::EndsWith(text.to_lowercase()),
            Pattern::Contains(text) => Self::Contains(text.to_lowercase()),
            Pattern::Like(pattern) => Self::like(&pattern.to_lowercase()),
        }
    }

    /// Most patterns have their stars at the ends only, and are then one of the others.
    fn like(pattern: &str) -> Self {
        let inner = pattern.trim_matches('*');
        match (pattern.starts_with('*'), pattern.ends_with('*')) {
            _ if inner.contains(['*', '?']) => Self::Like(pattern.chars().collect()),
            (true, true) => Self::Contains(inner.to_owned()),
            (true, false) => Self::EndsWith(inner.to_owned()),
            (false, true) => Self::StartsWith(inner.to_owned()),
            (false, false) => Self::Like(pattern.chars().collect()),
        }
    }

    /// Whether a text, trailing blanks taken off, fits.
    pub(super) fn matches(&self, text: &str) -> bool {
        // Upper and lower case differ in length for some letters, so only plain texts are compared in place.
        if !text.is_ascii() {
            return self.matches_lower(&text.to_lowercase());
        }
        let text = text.as_bytes();
        match self {
            Self::StartsWith(start) => starts_with(text, start.as_bytes()),
            Self::EndsWith(end) => {
                text.len() >= end.len() && starts_with(&text[text.len() - end.len()..], end.as_bytes())
            }
            Self::Contains(part) => contains(text, part.as_bytes()),
            Self::Like(pattern) => like(pattern, text.iter().map(|byte| char::from(byte.to_ascii_lowercase()))),
        }
    }

    fn matches_lower(&self, text: &str) -> bool {
        match self {
            Self::StartsWith(start) => text.starts_with(start.as_str()),
            Self::EndsWith(end) => text.ends_with(end.as_str()),
            Self::Contains(part) => text.contains(part.as_str()),
            Self::Like(pattern) => like(pattern, text.chars()),
        }
    }
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.len() >= start.len() && text[..start.len()].eq_ignore_ascii_case(start)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    let Some((first, rest)) = part.split_first() else { return true };
    text.iter().enumerate().any(|(at, byte)| byte.to_ascii_lowercase() == *first && starts_with(&text[at + 1..], rest))
}

/// Greedy matching with one point of return: linear for sane patterns, never worse than pattern times text.
pub(super) fn like<T: Iterator<Item = char> + Clone>(pattern: &[char], text: T) -> bool {
    let (mut rest, mut p) = (text, 0);
    let mut back: Option<(usize, T)> = None;
    loop {
        let here = rest.clone();
        let Some(letter) = rest.next() else { break };
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, here.clone()));
                p += 1;
                rest = here;
            }
            Some(&wanted) if wanted == '?' || wanted == letter => p += 1,
            _ => match &mut back {
                Some((star, from)) => {
                    from.next();
                    (p, rest) = (*star + 1, from.clone());
                }
                None => return false,
            },
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|&left| left == '*')
}
