//! Failures on demand.
//!
//! Owns the rules and when one of them strikes; the server and the batch carry them out. Rules are not persisted: a
//! system that is started again is well.
//!
//! `POST /_emulator/faults` takes a list of rules, for instance
//! `[{"match":{"method":"POST","path":"$batch","body":"accounts","nth":2,"times":3},
//!    "action":{"kind":"answer","status":429,"code":"0x80072322","message":"wait","retryAfter":5}}]`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What to do with which requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    #[serde(rename = "match", default)]
    pub matching: FaultMatch,
    pub action: FaultAction,
}

/// Which requests. What is not given matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultMatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of the path with its query, as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A part of the body, as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The first of the matching requests that is struck, counted from 1.
    #[serde(default = "one")]
    pub nth: u32,
    /// How many are struck from there on; 0 for all.
    #[serde(default = "one")]
    pub times: u32,
    /// Looks at the operations inside a batch, each by itself, and not at requests. Only `answer` can strike there.
    #[serde(default)]
    pub operation: bool,
}

const fn one() -> u32 {
    1
}

/// What happens instead of a normal answer, or before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FaultAction {
    /// An error answer.
    Answer {
        status: u16,
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
        /// The `Retry-After` header: seconds, or an HTTP date.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<RetryAfter>,
        /// The request is applied all the same.
        #[serde(default)]
        after_applying: bool,
    },
    /// No answer, until the caller gives up.
    Hang {
        /// The request is applied all the same.
        #[serde(default)]
        after_applying: bool,
    },
    /// The normal answer, later.
    Slow { ms: u64 },
    /// The connection breaks before anything is applied.
    Reset,
    /// The request is applied, and the connection breaks.
    ApplyThenReset,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryAfter {
    Seconds(u64),
    Date(String),
}

impl std::fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds}"),
            Self::Date(date) => f.write_str(date),
        }
    }
}

/// Rules in force, with how many requests each has matched.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<(FaultRule, u32)>>,
}

impl Faults {
    fn rules(&self) -> MutexGuard<'_, Vec<(FaultRule, u32)>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, rules: Vec<FaultRule>) {
        self.rules().extend(rules.into_iter().map(|rule| (rule, 0)));
    }

    pub fn clear(&self) {
        self.rules().clear();
    }

    /// What strikes this request, or this operation of a batch. Every rule that matches counts it; the first whose turn
    /// it is strikes.
    pub fn strike(&self, operation: bool, method: &str, path: &str, body: &[u8]) -> Option<FaultAction> {
        let mut rules = self.rules();
        let mut struck = None;
        for (rule, seen) in rules.iter_mut() {
            let matching = &rule.matching;
            let fits = matching.operation == operation
                && matching.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
                && matching.path.as_ref().is_none_or(|part| path.contains(part.as_str()))
                && matching.body.as_ref().is_none_or(|part| contains(body, part.as_bytes()));
            if fits {
                *seen = seen.saturating_add(1);
                let first = matching.nth.max(1);
                let is_its_turn = first <= *seen && (matching.times == 0 || *seen - first < matching.times);
                if is_its_turn && struck.is_none() {
                    struck = Some(rule.action.clone());
                }
            }
        }
        struck
    }
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_strike_when_it_is_their_turn() {
        let faults = Faults::default();
        let rules = r#"[
            {"match":{"method":"post","path":"$batch","nth":2,"times":2},"action":{"kind":"reset"}},
            {"match":{"body":"accounts","times":0},"action":{"kind":"slow","ms":5}},
            {"match":{"operation":true},"action":{"kind":"answer","status":503,"retryAfter":"Sun, 06 Nov 1994 08:49:37 GMT"}},
            {"match":{"path":"/never"},"action":{"kind":"answer","status":429,"retryAfter":3}},
            {"match":{"path":"/never"},"action":{"kind":"hang"}}]"#;
        faults.add(serde_json::from_str(rules).expect("reads"));
        let strike = |method: &str, path: &str, body: &str| faults.strike(false, method, path, body.as_bytes());
        let slow = Some(FaultAction::Slow { ms: 5 });
        for (method, path, body, wanted) in [
            ("POST", "/data/$batch", "", None),
            ("GET", "/data/$batch", "", None),
            ("POST", "/data/$batch", "accounts", Some(FaultAction::Reset)),
            ("POST", "/data/$batch", "", Some(FaultAction::Reset)),
            ("POST", "/data/$batch", "", None),
            ("PUT", "/", "the accounts", slow.clone()),
            ("PUT", "/", "accounts", slow),
            ("PUT", "/", "account", None),
        ] {
            assert_eq!(strike(method, path, body), wanted, "{method} {path} {body}");
        }
        assert!(matches!(faults.strike(true, "GET", "/x", b""), Some(FaultAction::Answer { status: 503, .. })));
        assert!(serde_json::from_str::<FaultRule>(r#"{"action":{"kind":"explode"}}"#).is_err());
    }
}
