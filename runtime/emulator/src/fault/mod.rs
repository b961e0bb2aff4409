//! Failures on demand.
//!
//! Owns which faults are in force and when one of them strikes; the server, the batch and the sender of events carry them
//! out. Faults are not persisted: a system that is started again is well.
//!
//! `POST /_emulator/faults` takes a list of rules, for instance
//! `[{"match":{"method":"POST","path":"$batch","body":"accounts","nth":2,"times":3},
//!    "action":{"kind":"answer","status":429,"code":"0x80072322","message":"wait","retryAfter":5}}]`,
//! or a plan: `{"rules":[…],"random":{"seed":7,"rates":{"throttle":0.05,"lose":0.01}}}`.

mod normalise;
mod random;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Dialect;
use crate::clock::{Clock, MICROS_PER_SECOND, http_date};

pub use normalise::Normalisation;
pub(crate) use normalise::Normaliser;
pub use random::{FaultRates, RandomFaults};

/// What to do with which requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    #[serde(rename = "match", default)]
    pub matching: FaultMatch,
    pub action: FaultAction,
}

/// Rules, and faults that come by chance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultPlan {
    #[serde(default)]
    pub rules: Vec<FaultRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<RandomFaults>,
}

impl FaultPlan {
    /// Reads a plan, or a list of rules.
    pub fn from_json(json: &[u8]) -> anyhow::Result<Self> {
        let is_list = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let plan = if is_list {
            Self { rules: serde_json::from_slice(json)?, random: None }
        } else {
            serde_json::from_slice(json)?
        };
        anyhow::ensure!(is_list || plan != Self::default(), "the plan has neither rules nor random faults");
        if let Some(random) = &plan.random {
            random.check()?;
        }
        Ok(plan)
    }
}

/// Which requests. What is not given matches all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultMatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of the path with its query, as it was sent; of an event, a part of the address it goes to.
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
    /// Looks at the operations inside a batch, each by itself, and not at requests. Only `answer` and `ignoreIfMatch` can
    /// strike there.
    #[serde(default)]
    pub operation: bool,
}

impl Default for FaultMatch {
    fn default() -> Self {
        Self { method: None, path: None, body: None, nth: 1, times: 1, operation: false }
    }
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
    /// The normal answer, once that many requests that came later were answered; out of order, for who sent several at
    /// once. After `ms_max` it comes anyway.
    Hold {
        #[serde(default = "one")]
        answers: u32,
        #[serde(default = "hold_ms")]
        ms_max: u64,
    },
    /// The connection breaks before anything is applied.
    Reset,
    /// The request is applied, and the connection breaks.
    ApplyThenReset,
    /// The condition of the request is not looked at: a stale write gets through.
    IgnoreIfMatch,
    /// The change sets of a batch are no transactions: what comes before a refused operation stays.
    SplitChangeSets,
    /// Every delta link that was given out until now is too old from here on (Dataverse); the request itself goes on.
    ExpireDeltaLinks,
    /// The system's clock is wrong by that much from here on; the request itself goes on.
    Skew { ms: i64 },
    /// Values are changed on their way into a column, of every write while the rule is in force; `match` is not looked at.
    Normalise { set: String, column: String, how: Normalisation },
    /// An event is posted that many times more.
    DuplicateEvent {
        #[serde(default = "one")]
        copies: u32,
    },
    /// An event is posted that much later than it would be.
    LateEvent { ms: u64 },
    /// An event is never posted.
    LoseEvent,
}

const fn hold_ms() -> u64 {
    2_000
}

impl FaultAction {
    const fn concerns_events(&self) -> bool {
        matches!(self, Self::DuplicateEvent { .. } | Self::LateEvent { .. } | Self::LoseEvent)
    }

    /// Strikes a request, or an operation of a batch, before it is answered.
    const fn concerns_requests(&self) -> bool {
        !self.concerns_events() && !matches!(self, Self::Normalise { .. } | Self::SplitChangeSets)
    }
}

/// The `Retry-After` header, in both of its forms (RFC 9110, 10.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryAfter {
    Seconds(u64),
    /// A date as it is given here.
    Date(String),
    /// The date that is so many seconds after the emulator's now.
    #[serde(rename_all = "camelCase")]
    DateAfter {
        date_after_seconds: u64,
    },
}

impl RetryAfter {
    pub(crate) fn header(&self, clock: &Clock) -> String {
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Date(date) => date.clone(),
            Self::DateAfter { date_after_seconds } => {
                let seconds = i64::try_from(*date_after_seconds).unwrap_or(i64::MAX / MICROS_PER_SECOND);
                http_date(clock.now_seconds().saturating_add(seconds))
            }
        }
    }
}

/// What becomes of an event that is about to be posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventFate {
    /// How often it is posted; 0 when it gets lost.
    pub posts: u32,
    pub delay: Duration,
}

/// Faults in force.
#[derive(Debug)]
pub(crate) struct Faults {
    dialect: Dialect,
    state: Mutex<State>,
    normalisers: RwLock<Arc<[Normaliser]>>,
    /// Requests answered so far.
    answered: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Counted>,
    random: Option<random::Chance>,
}

#[derive(Debug, Serialize)]
struct Counted {
    #[serde(flatten)]
    rule: FaultRule,
    /// How many requests or events matched.
    seen: u32,
    /// How many it struck.
    hits: u32,
}

impl Faults {
    pub fn new(dialect: Dialect) -> Self {
        let (answered, _) = watch::channel(0);
        Self { dialect, state: Mutex::default(), normalisers: RwLock::new(Arc::new([])), answered }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds rules; random faults replace those before.
    pub fn add(&self, plan: FaultPlan) {
        let mut state = self.state();
        state.rules.extend(plan.rules.into_iter().map(|rule| Counted { rule, seen: 0, hits: 0 }));
        if let Some(random) = plan.random {
            state.random = Some(random::Chance::new(random));
        }
        let normalisers = state.rules.iter().filter_map(|counted| Normaliser::of(&counted.rule.action)).collect();
        *self.normalisers.write().unwrap_or_else(PoisonError::into_inner) = normalisers;
    }

    pub fn clear(&self) {
        *self.state() = State::default();
        *self.normalisers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new([]);
    }

    /// What is changed on its way into the store.
    pub fn normalisers(&self) -> Arc<[Normaliser]> {
        Arc::clone(&self.normalisers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Rules with what they matched and struck, and the random faults with their seed.
    pub fn shown(&self) -> serde_json::Value {
        let state = self.state();
        serde_json::json!({"rules": state.rules, "random": state.random})
    }

    /// What strikes this request, or this operation of a batch. Every rule that matches counts it; the first whose turn
    /// it is strikes. Chance strikes where no rule does.
    pub fn strike(&self, operation: bool, method: &str, path: &str, body: &[u8]) -> Option<FaultAction> {
        let mut state = self.state();
        let State { rules, random } = &mut *state;
        let mut struck = None;
        for counted in rules.iter_mut().filter(|counted| counted.rule.action.concerns_requests()) {
            let matching = &counted.rule.matching;
            let fits = matching.operation == operation && matching.fits(method, path, body);
            if fits && counted.counts() && struck.is_none() {
                counted.hits += 1;
                struck = Some(counted.rule.action.clone());
            }
        }
        if struck.is_none() {
            struck = random.as_mut().and_then(|chance| chance.strike(self.dialect, operation, method, path, body));
        }
        struck
    }

    /// Whether the change sets of this batch fall apart into their operations.
    pub fn splits(&self, path: &str, body: &[u8]) -> bool {
        let mut state = self.state();
        let mut splits = false;
        for counted in state.rules.iter_mut().filter(|counted| counted.rule.action == FaultAction::SplitChangeSets) {
            if counted.rule.matching.fits("POST", path, body) && counted.counts() {
                counted.hits += 1;
                splits = true;
            }
        }
        splits
    }

    /// What becomes of an event on its way to `url`. Asked once for every event, whatever its retries.
    pub fn event(&self, url: &str, body: &[u8]) -> EventFate {
        let mut state = self.state();
        let State { rules, random } = &mut *state;
        let mut fate = EventFate { posts: 1, delay: Duration::ZERO };
        for counted in rules.iter_mut().filter(|counted| counted.rule.action.concerns_events()) {
            if counted.rule.matching.fits("POST", url, body) && counted.counts() {
                counted.hits += 1;
                fate.suffer(&counted.rule.action);
            }
        }
        if let Some(action) = random.as_mut().and_then(random::Chance::event) {
            fate.suffer(&action);
        }
        fate
    }

    /// A request was answered.
    pub fn answered(&self) {
        self.answered.send_modify(|count| *count += 1);
    }

    /// Resolves once that many requests were answered from now on.
    pub async fn after_answers(&self, count: u32) {
        let mut answered = self.answered.subscribe();
        let upto = *answered.borrow_and_update() + u64::from(count);
        // The sender lives as long as the faults, so waiting cannot fail.
        let _ = answered.wait_for(|count| upto <= *count).await;
    }
}

impl EventFate {
    fn suffer(&mut self, action: &FaultAction) {
        match action {
            FaultAction::DuplicateEvent { copies } if self.posts > 0 => self.posts = self.posts.saturating_add(*copies),
            FaultAction::LateEvent { ms } => self.delay = self.delay.saturating_add(Duration::from_millis(*ms)),
            FaultAction::LoseEvent => self.posts = 0,
            _ => {}
        }
    }
}

impl FaultMatch {
    fn fits(&self, method: &str, path: &str, body: &[u8]) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.path.as_ref().is_none_or(|part| path.contains(part.as_str()))
            && self.body.as_ref().is_none_or(|part| contains(body, part.as_bytes()))
    }
}

impl Counted {
    /// Counts a match; whether it is its turn.
    fn counts(&mut self) -> bool {
        self.seen = self.seen.saturating_add(1);
        let matching = &self.rule.matching;
        let first = matching.nth.max(1);
        first <= self.seen && (matching.times == 0 || self.seen - first < matching.times)
    }
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(plan: &str) -> Faults {
        let faults = Faults::new(Dialect::Dataverse);
        faults.add(FaultPlan::from_json(plan.as_bytes()).expect("reads"));
        faults
    }

    #[test]
    fn rules_are_read_and_strike_when_it_is_their_turn() {
        let faults = faults(
            r#"[
            {"match":{"method":"post","path":"$batch","nth":2,"times":2},"action":{"kind":"reset"}},
            {"match":{"body":"accounts","times":0},"action":{"kind":"slow","ms":5}},
            {"match":{"operation":true},"action":{"kind":"answer","status":503,"retryAfter":"Sun, 06 Nov 1994 08:49:37 GMT"}},
            {"match":{"path":"/never"},"action":{"kind":"answer","status":429,"retryAfter":3}},
            {"match":{"path":"/never"},"action":{"kind":"hang"}}]"#,
        );
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
        let shown = faults.shown();
        let counts = |rule: usize| (shown["rules"][rule]["seen"].as_u64(), shown["rules"][rule]["hits"].as_u64());
        assert_eq!([counts(0), counts(1), counts(3)], [(Some(4), Some(2)), (Some(3), Some(2)), (Some(0), Some(0))]);
        faults.clear();
        assert_eq!(faults.shown(), serde_json::json!({"rules": [], "random": null}));
    }

    #[test]
    fn plans_that_mean_nothing_are_refused() {
        for broken in [
            "{}",
            "[{}]",
            "",
            r#"[{"action":{"kind":"explode"}}]"#,
            r#"{"rules":[],"more":1}"#,
            r#"{"random":{"seed":1,"rates":{"reset":1.5}}}"#,
            r#"{"random":{"seed":1,"rates":{"reset":0.6,"lose":0.6}}}"#,
            r#"{"random":{"seed":1,"rates":{"nosuch":0.1}}}"#,
            r#"[{"action":{"kind":"normalise","set":"s","column":"c","how":"explode"}}]"#,
        ] {
            assert!(FaultPlan::from_json(broken.as_bytes()).is_err(), "{broken}");
        }
        assert!(FaultPlan::from_json(b" []").is_ok());
    }

    #[test]
    fn both_forms_of_retry_after() {
        let clock = Clock::standing_at(784_111_777 * MICROS_PER_SECOND);
        for (json, wanted) in [
            ("7", "7"),
            (r#""soon""#, "soon"),
            (r#"{"dateAfterSeconds":0}"#, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (r#"{"dateAfterSeconds":86400}"#, "Mon, 07 Nov 1994 08:49:37 GMT"),
        ] {
            let after: RetryAfter = serde_json::from_str(json).expect("reads");
            assert_eq!(after.header(&clock), wanted);
        }
    }

    #[test]
    fn events_are_doubled_delayed_and_lost() {
        let faults = faults(
            r#"[{"match":{"path":"hook"},"action":{"kind":"duplicateEvent"}},
                {"match":{"body":"late","times":0},"action":{"kind":"lateEvent","ms":7}},
                {"match":{"nth":3},"action":{"kind":"loseEvent"}}]"#,
        );
        for (url, body, posts, ms) in [
            ("http://h/hook", "late", 2, 7),
            ("http://h/hook", "", 1, 0),
            ("http://h/", "late", 0, 7),
            ("http://h/", "", 1, 0),
        ] {
            let fate = EventFate { posts, delay: Duration::from_millis(ms) };
            assert_eq!(faults.event(url, body.as_bytes()), fate, "{url} {body}");
        }
        assert_eq!(faults.strike(false, "POST", "http://h/hook", b"late"), None);
    }
}
