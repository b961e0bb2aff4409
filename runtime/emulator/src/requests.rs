//! The last requests, for people who look.
//!
//! Owns a ring of them. Neither bodies nor headers are kept, and what authorises a URL by itself is taken out of it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Enough to see what a client did a minute ago, and small enough to forget about.
const KEPT_MAX: usize = 1_000;
/// Longer URLs are cut.
const URL_BYTES_MAX: usize = 2_000;
/// Options of a URL whose value lets anybody in who has it.
const SECRET_OPTIONS: [&str; 4] = ["sig", "access_token", "code", "token"];

/// One request and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestEntry {
    pub seq: u64,
    /// UTC microseconds since 1970, by the emulator's clock.
    pub at: i64,
    pub method: String,
    pub url: String,
    /// Status of the answer; 0 when the connection was broken instead.
    pub status: u16,
    pub ms: u64,
    /// The client that the token was given to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    ring: Mutex<(u64, VecDeque<RequestEntry>)>,
}

impl Requests {
    fn ring(&self) -> MutexGuard<'_, (u64, VecDeque<RequestEntry>)> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an entry; its number is given here.
    pub fn add(&self, mut entry: RequestEntry) {
        let mut ring = self.ring();
        ring.0 += 1;
        entry.seq = ring.0;
        if ring.1.len() == KEPT_MAX {
            ring.1.pop_front();
        }
        ring.1.push_back(entry);
    }

    /// The newest first, at most `limit`.
    pub fn newest(&self, limit: usize) -> Vec<RequestEntry> {
        self.ring().1.iter().rev().take(limit).cloned().collect()
    }
}

/// A URL as it may be shown.
pub(crate) fn shown_url(url: &str) -> String {
    let mut shown = match url.split_once('?') {
        None => url.to_owned(),
        Some((path, query)) => {
            let options = query.split('&').map(|option| match option.split_once('=') {
                Some((name, _)) if SECRET_OPTIONS.iter().any(|secret| name.eq_ignore_ascii_case(secret)) => {
                    format!("{name}=…")
                }
                _ => option.to_owned(),
            });
            format!("{path}?{}", options.collect::<Vec<_>>().join("&"))
        }
    };
    if shown.len() > URL_BYTES_MAX {
        let end = (0..=URL_BYTES_MAX).rev().find(|at| shown.is_char_boundary(*at)).unwrap_or(0);
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_forgets_the_oldest_and_shows_no_secrets() {
        let requests = Requests::default();
        for at in 0..1_001 {
            let url = shown_url("/x");
            requests.add(RequestEntry { seq: 0, at, method: "GET".into(), url, status: 200, ms: 0, client: None });
        }
        let all = requests.newest(usize::MAX);
        assert_eq!((all.len(), all[0].seq, all[999].seq, all[0].at), (1_000, 1_001, 2, 1_000));
        assert_eq!(requests.newest(1), all[..1]);
        for (url, wanted) in [
            ("/data/X?$filter=a eq 1&sig=abc", "/data/X?$filter=a eq 1&sig=…"),
            ("/x?SIG=1&b", "/x?SIG=…&b"),
            ("/x?design=1", "/x?design=1"),
        ] {
            assert_eq!(shown_url(url), wanted);
        }
        assert!(shown_url(&"é".repeat(2_000)).len() <= URL_BYTES_MAX + 3);
    }
}
