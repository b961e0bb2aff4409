//! Throttling: priorities when resources run short, and limits per user.
//!
//! Owns who is let in. Resources are not measured but set, at `/_emulator/throttling`; the higher their use, the more
//! priorities are turned away. The limits per user are those that F&O announced with Dataverse's numbers and retired in
//! 10.0.36; they are counted for each user and application, on what is one web server here.
//! <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/priority-based-throttling>,
//! <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/service-protection-api-limits>

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dualwright_odata::batch::Response;
use serde::{Deserialize, Serialize};

use super::refusal::throttled;
use crate::clock::{Clock, MICROS_PER_SECOND};

/// What is throttled. `GET` and `PUT /_emulator/throttling` read and replace it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ThrottleSettings {
    pub enabled: bool,
    /// How much of the system's resources is in use.
    pub resources: ResourceLevel,
    /// Priorities by client id or user ("Throttling priority mapping"). Who is not named has a low one.
    pub priorities: BTreeMap<String, Priority>,
    /// What `Retry-After` says while resources are short.
    pub retry_after_seconds: u64,
    /// The limits per user, which the real system has no longer by default.
    pub user_limits: bool,
    pub requests_max: u32,
    pub execution_seconds_max: u32,
    pub concurrent_max: u32,
    pub window_seconds: u32,
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            resources: ResourceLevel::Normal,
            priorities: BTreeMap::new(),
            retry_after_seconds: 30,
            user_limits: true,
            requests_max: 6_000,
            execution_seconds_max: 1_200,
            concurrent_max: 52,
            window_seconds: 300,
        }
    }
}

/// How short resources are, by who is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ResourceLevel {
    /// Nobody is.
    Normal,
    /// Low priorities are.
    Elevated,
    /// Low and medium ones are.
    High,
    /// Everybody is.
    Critical,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    Low,
    Medium,
    High,
}

impl Priority {
    const fn is_turned_away(self, level: ResourceLevel) -> bool {
        match self {
            Self::Low => matches!(level, ResourceLevel::Elevated | ResourceLevel::High | ResourceLevel::Critical),
            Self::Medium => matches!(level, ResourceLevel::High | ResourceLevel::Critical),
            Self::High => matches!(level, ResourceLevel::Critical),
        }
    }
}

/// The settings in force, and what every user has done.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    settings: ThrottleSettings,
    users: HashMap<String, Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    under_way: u32,
    /// What began in each second of the window, oldest first: the second, requests, and microseconds they took.
    seconds: VecDeque<(i64, u32, i64)>,
}

impl Usage {
    fn forget_before(&mut self, second: i64) {
        while self.seconds.front().is_some_and(|(own, ..)| *own < second) {
            self.seconds.pop_front();
        }
    }

    /// Seconds until enough has left the window that `fits` holds for what remains.
    fn until(&self, now: i64, window: i64, fits: impl Fn(u64, i64) -> bool) -> u64 {
        let mut requests = self.seconds.iter().map(|(_, requests, _)| u64::from(*requests)).sum::<u64>();
        let mut micros = self.seconds.iter().map(|(.., micros)| micros).sum::<i64>();
        for (second, own_requests, own_micros) in &self.seconds {
            requests -= u64::from(*own_requests);
            micros -= own_micros;
            if fits(requests, micros) {
                return u64::try_from(second + window - now).unwrap_or(0).max(1);
            }
        }
        u64::try_from(window).unwrap_or(1)
    }
}

/// A request that was let in; it is under way until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Admitted<'a> {
    throttle: &'a Throttle,
    clock: &'a Clock,
    user: Option<String>,
    since: i64,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let Some(user) = &self.user else { return };
        let now = self.clock.steady();
        let mut state = self.throttle.lock();
        if let Some(usage) = state.users.get_mut(user) {
            usage.under_way = usage.under_way.saturating_sub(1);
            let second = self.since.div_euclid(MICROS_PER_SECOND);
            if let Some(slot) = usage.seconds.iter_mut().rev().find(|(own, ..)| *own == second) {
                slot.2 += now.saturating_sub(self.since).max(0);
            }
        }
    }
}

impl Throttle {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn settings(&self) -> ThrottleSettings {
        self.lock().settings.clone()
    }

    /// Puts other settings in force; what was counted is forgotten.
    pub fn set(&self, settings: ThrottleSettings) {
        *self.lock() = State { settings, users: HashMap::new() };
    }

    /// Lets a request in, or answers it with 429.
    pub fn admit<'a>(&'a self, clock: &'a Clock, caller: Option<&str>) -> Result<Admitted<'a>, Response> {
        let since = clock.steady();
        let mut state = self.lock();
        let State { settings, users } = &mut *state;
        if !settings.enabled {
            return Ok(Admitted { throttle: self, clock, user: None, since });
        }
        let caller = caller.unwrap_or_default();
        let priority = settings.priorities.get(caller).copied().unwrap_or(Priority::Low);
        if priority.is_turned_away(settings.resources) {
            let message = "This request could not be processed at this time due to system experiencing high resource \
                           utilization.";
            return Err(throttled(message, settings.retry_after_seconds));
        }
        if !settings.user_limits {
            return Ok(Admitted { throttle: self, clock, user: None, since });
        }
        let window = i64::from(settings.window_seconds);
        let second = since.div_euclid(MICROS_PER_SECOND);
        let usage = users.entry(caller.to_owned()).or_default();
        usage.forget_before(second - window + 1);
        let requests = usage.seconds.iter().map(|(_, requests, _)| u64::from(*requests)).sum::<u64>();
        let micros = usage.seconds.iter().map(|(.., micros)| micros).sum::<i64>();
        let requests_max = u64::from(settings.requests_max);
        let micros_max = i64::from(settings.execution_seconds_max) * MICROS_PER_SECOND;
        if requests >= requests_max {
            let after = usage.until(second, window, |requests, _| requests < requests_max);
            return Err(throttled(
                &format!(
                    "Number of requests exceeded the limit of {requests_max} over the time window of {window} seconds."
                ),
                after,
            ));
        }
        if micros >= micros_max {
            let after = usage.until(second, window, |_, micros| micros < micros_max);
            return Err(throttled(
                &format!(
                    "Combined execution time of incoming requests exceeded limit of {} seconds over time window of {window} \
                     seconds. Decrease number of concurrent requests or reduce the duration of requests and try again later.",
                    settings.execution_seconds_max
                ),
                after,
            ));
        }
        if usage.under_way >= settings.concurrent_max {
            let message = format!("Number of concurrent requests exceeded the limit of {}.", settings.concurrent_max);
            return Err(throttled(&message, 1));
        }
        usage.under_way += 1;
        match usage.seconds.back_mut().filter(|(own, ..)| *own == second) {
            Some(slot) => slot.1 += 1,
            None => usage.seconds.push_back((second, 1, 0)),
        }
        Ok(Admitted { throttle: self, clock, user: Some(caller.to_owned()), since })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(outcome: Result<Admitted<'_>, Response>) -> Option<(String, String)> {
        let response = outcome.err()?;
        let body: serde_json::Value = serde_json::from_slice(&response.body).expect("json");
        let after = response.headers.iter().find(|(name, _)| name == "Retry-After").expect("a time").1.clone();
        Some((body["error"]["message"].as_str().expect("text").to_owned(), after))
    }

    #[test]
    fn priorities_are_turned_away_from_low_to_high() {
        let clock = Clock::standing_at(0);
        let throttle = Throttle::default();
        for (level, low, medium, high) in [
            (ResourceLevel::Normal, true, true, true),
            (ResourceLevel::Elevated, false, true, true),
            (ResourceLevel::High, false, false, true),
            (ResourceLevel::Critical, false, false, false),
        ] {
            throttle.set(ThrottleSettings {
                enabled: true,
                resources: level,
                priorities: [("m".to_owned(), Priority::Medium), ("h".to_owned(), Priority::High)].into(),
                ..ThrottleSettings::default()
            });
            for (caller, wanted) in [(None, low), (Some("unknown"), low), (Some("m"), medium), (Some("h"), high)] {
                assert_eq!(throttle.admit(&clock, caller).is_ok(), wanted, "{level:?} {caller:?}");
            }
        }
        let (message, after) = refused(throttle.admit(&clock, None)).expect("refused");
        assert_eq!(after, "30");
        assert!(message.contains("high resource utilization"), "{message}");
        throttle.set(ThrottleSettings { resources: ResourceLevel::Critical, ..ThrottleSettings::default() });
        assert!(throttle.admit(&clock, None).is_ok(), "off");
    }

    #[test]
    fn a_user_is_held_to_requests_time_and_concurrency_in_a_sliding_window() {
        let clock = Clock::standing_at(0);
        let throttle = Throttle::default();
        let settings = ThrottleSettings {
            enabled: true,
            requests_max: 3,
            execution_seconds_max: 60,
            concurrent_max: 2,
            ..ThrottleSettings::default()
        };
        throttle.set(settings.clone());
        // The first at 0 s, two more at 100 s.
        drop(throttle.admit(&clock, Some("a")));
        clock.advance(Duration::from_secs(100));
        drop(throttle.admit(&clock, Some("a")));
        drop(throttle.admit(&clock, Some("a")));
        let (message, after) = refused(throttle.admit(&clock, Some("a"))).expect("refused");
        assert_eq!(message, "Number of requests exceeded the limit of 3 over the time window of 300 seconds.");
        assert_eq!(after, "200");
        assert!(throttle.admit(&clock, Some("b")).is_ok(), "others are not concerned");
        clock.advance(Duration::from_secs(200));
        assert!(throttle.admit(&clock, Some("a")).is_ok(), "the first has left the window");

        throttle.set(settings.clone());
        let first = throttle.admit(&clock, Some("a")).expect("in");
        let second = throttle.admit(&clock, Some("a")).expect("in");
        let (message, after) = refused(throttle.admit(&clock, Some("a"))).expect("refused");
        assert_eq!((message.as_str(), after.as_str()), ("Number of concurrent requests exceeded the limit of 2.", "1"));
        clock.advance(Duration::from_secs(61));
        drop((first, second));
        let (message, after) = refused(throttle.admit(&clock, Some("a"))).expect("refused");
        assert!(message.starts_with("Combined execution time of incoming requests exceeded limit of 60 seconds over"));
        assert_eq!(after, "239");
    }
}
