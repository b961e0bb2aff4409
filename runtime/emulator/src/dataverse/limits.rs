//! Service protection, and the requests that a user is entitled to.
//!
//! Owns the sliding window of each user and what is refused in it. Source of the numbers, codes and messages:
//! <https://learn.microsoft.com/power-apps/developer/data-platform/api-limits>. Real environments count per web server;
//! this is one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dualwright_odata::batch::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::error;
use crate::clock::MICROS_PER_SECOND;
use crate::exchange;

/// What each user may do. All of it can be changed at `/_emulator/limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitSettings {
    pub enabled: bool,
    /// Requests in one window.
    pub requests_max: u32,
    /// Execution time of all requests in one window.
    pub execution_ms_max: u64,
    /// Requests at once.
    pub concurrent_max: u32,
    pub window_seconds: u32,
    /// Operations a day that a user is entitled to. More are counted and not refused, as the platform does.
    pub daily_requests: u64,
    /// The largest message that is handed to steps; it is refused whether or not the rest is enabled.
    pub message_bytes_max: usize,
}

/// 116.85 MB.
const MESSAGE_BYTES_MAX: usize = 116_850 * 1024 * 1024 / 1000;

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            requests_max: 6_000,
            execution_ms_max: 1_200_000,
            concurrent_max: 52,
            window_seconds: 300,
            daily_requests: 40_000,
            message_bytes_max: MESSAGE_BYTES_MAX,
        }
    }
}

/// The counters of every user.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    settings: LimitSettings,
    users: HashMap<Uuid, Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    under_way: u32,
    /// What began in each second of the window, oldest first.
    seconds: VecDeque<Slot>,
    /// Operations in each hour of the last day, oldest first.
    hours: VecDeque<(i64, u64)>,
}

#[derive(Debug)]
struct Slot {
    second: i64,
    requests: u32,
    micros: i64,
}

/// A request that was let in. It counts as under way until it is handed back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Admitted {
    user: Uuid,
    started: i64,
}

const DAY_HOURS: i64 = 24;
const HOUR_SECONDS: i64 = 3_600;
/// Waiting for another request to end is waiting for a moment.
const CONCURRENCY_RETRY_SECONDS: i64 = 1;

impl Usage {
    fn requests(&self) -> u32 {
        self.seconds.iter().map(|slot| slot.requests).sum()
    }

    fn micros(&self) -> i64 {
        self.seconds.iter().map(|slot| slot.micros).sum()
    }

    fn forget(&mut self, settings: &LimitSettings, second: i64) {
        let window = i64::from(settings.window_seconds);
        while self.seconds.front().is_some_and(|slot| slot.second + window <= second) {
            self.seconds.pop_front();
        }
        let hour = second.div_euclid(HOUR_SECONDS);
        while self.hours.front().is_some_and(|(at, _)| at + DAY_HOURS <= hour) {
            self.hours.pop_front();
        }
    }

    fn slot(&mut self, second: i64) -> &mut Slot {
        // Time of one that ends belongs to the second in which it ends; the newest slot is never behind by much.
        if self.seconds.back().is_none_or(|slot| slot.second < second) {
            self.seconds.push_back(Slot { second, requests: 0, micros: 0 });
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }

    /// Seconds until so much has left the window that `is_over` no longer holds for what stays.
    fn retry_after(&self, settings: &LimitSettings, second: i64, is_over: impl Fn(u32, i64) -> bool) -> i64 {
        let (mut requests, mut micros) = (self.requests(), self.micros());
        for slot in &self.seconds {
            requests -= slot.requests;
            micros -= slot.micros;
            if !is_over(requests, micros) {
                return (slot.second + i64::from(settings.window_seconds) - second).max(1);
            }
        }
        i64::from(settings.window_seconds)
    }
}

impl Limits {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, settings: LimitSettings) {
        self.state().settings = settings;
    }

    pub fn message_bytes_max(&self) -> usize {
        self.state().settings.message_bytes_max
    }

    pub fn settings(&self) -> LimitSettings {
        self.state().settings.clone()
    }

    /// Lets a request in, at `now` in microseconds, or refuses it. `None` when nothing is counted.
    pub fn enter(&self, user: Uuid, now: i64) -> Result<Option<Admitted>, Response> {
        let State { settings, users } = &mut *self.state();
        if !settings.enabled {
            return Ok(None);
        }
        let second = now.div_euclid(MICROS_PER_SECOND);
        let usage = users.entry(user).or_default();
        usage.forget(settings, second);
        let micros_max = i64::try_from(settings.execution_ms_max.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let window = settings.window_seconds;
        if usage.under_way >= settings.concurrent_max {
            let message = format!("Number of concurrent requests exceeded the limit of {}.", settings.concurrent_max);
            return Err(refused("0x80072326", &message, CONCURRENCY_RETRY_SECONDS));
        }
        if usage.requests() >= settings.requests_max {
            let message = format!(
                "Number of requests exceeded the limit of {} over time window of {window} seconds.",
                settings.requests_max
            );
            let after = usage.retry_after(settings, second, |requests, _| requests >= settings.requests_max);
            return Err(refused("0x80072322", &message, after));
        }
        if usage.micros() >= micros_max {
            let message = format!(
                "Combined execution time of incoming requests exceeded limit of {}  milliseconds over time window of \
                 {window} seconds. Decrease number of concurrent requests or reduce the duration of requests and try \
                 again later.",
                grouped(settings.execution_ms_max)
            );
            let after = usage.retry_after(settings, second, |_, micros| micros >= micros_max);
            return Err(refused("0x80072321", &message, after));
        }
        usage.under_way += 1;
        usage.slot(second).requests += 1;
        Ok(Some(Admitted { user, started: now }))
    }

    /// Books a request that is done, and says in its answer what is left.
    pub fn leave(&self, admitted: Option<Admitted>, now: i64, response: &mut Response) {
        let Some(Admitted { user, started }) = admitted else { return };
        let State { settings, users } = &mut *self.state();
        let second = now.div_euclid(MICROS_PER_SECOND);
        let usage = users.entry(user).or_default();
        usage.under_way = usage.under_way.saturating_sub(1);
        usage.slot(second).micros += (now - started).max(0);
        let requests = settings.requests_max.saturating_sub(usage.requests());
        let used_ms = u64::try_from(usage.micros() / 1_000).unwrap_or(0);
        let left_ms = settings.execution_ms_max.saturating_sub(used_ms);
        let seconds = format!("{}.{:02}", grouped(left_ms / 1_000), left_ms % 1_000 / 10);
        response.headers.push(("x-ms-ratelimit-burst-remaining-xrm-requests".into(), requests.to_string()));
        response.headers.push(("x-ms-ratelimit-time-remaining-xrm-requests".into(), seconds));
    }

    /// Counts an operation against what its user is entitled to: each one of a batch, and each row of a bulk message.
    /// <https://learn.microsoft.com/power-platform/admin/api-request-limits-allocations>
    pub fn use_up(&self, user: Uuid, now: i64, request: &Request) {
        let State { settings, users } = &mut *self.state();
        if !settings.enabled {
            return;
        }
        let second = now.div_euclid(MICROS_PER_SECOND);
        let hour = second.div_euclid(HOUR_SECONDS);
        let usage = users.entry(user).or_default();
        usage.forget(settings, second);
        let operations = operations(request);
        match usage.hours.back_mut() {
            Some((at, count)) if *at == hour => *count += operations,
            _ => usage.hours.push_back((hour, operations)),
        }
    }

    /// `GET` and `PUT /_emulator/limits`.
    pub fn route(&self, now: i64, request: &Request) -> Response {
        match request.method.as_str() {
            "GET" => exchange::json(200, self.shown(now).to_string().into_bytes()),
            "PUT" => match serde_json::from_slice(&request.body) {
                Ok(settings) => {
                    self.set(settings);
                    exchange::no_content(204)
                }
                Err(refusal) => error(400, "emulator", &refusal.to_string()),
            },
            "DELETE" => {
                // Requests under way are handed back to a user who has none then, which is fine.
                self.state().users.clear();
                exchange::no_content(204)
            }
            method => error(405, "emulator", &format!("{method} is not for the limits")),
        }
    }

    fn shown(&self, now: i64) -> serde_json::Value {
        let State { settings, users } = &mut *self.state();
        let second = now.div_euclid(MICROS_PER_SECOND);
        let mut shown = Vec::with_capacity(users.len());
        for (user, usage) in users {
            usage.forget(settings, second);
            let daily: u64 = usage.hours.iter().map(|(_, count)| count).sum();
            shown.push(serde_json::json!({
                "user": user, "requests": usage.requests(), "executionMs": usage.micros() / 1_000,
                "concurrent": usage.under_way, "dailyRequests": daily, "dailyExceeded": daily > settings.daily_requests,
            }));
        }
        shown.sort_by_key(|user| user["user"].to_string());
        serde_json::json!({"settings": settings, "users": shown})
    }
}

fn refused(code: &str, message: &str, after_seconds: i64) -> Response {
    exchange::with_header(error(429, code, message), "Retry-After", after_seconds.to_string())
}

/// `1,200,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many operations a request stands for.
fn operations(request: &Request) -> u64 {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(rename = "Targets", borrow)]
        targets: Vec<&'a RawValue>,
    }
    let path = request.url.split('?').next().unwrap_or_default();
    if !path.ends_with("Multiple") {
        return 1;
    }
    serde_json::from_slice::<Body<'_>>(&request.body).map_or(1, |body| u64::try_from(body.targets.len()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = MICROS_PER_SECOND;

    fn limits(requests_max: u32, execution_ms_max: u64, concurrent_max: u32) -> Limits {
        let limits = Limits::default();
        limits.set(LimitSettings {
            enabled: true,
            requests_max,
            execution_ms_max,
            concurrent_max,
            ..LimitSettings::default()
        });
        limits
    }

    /// The code and the wait of a refusal, or what is left: requests and seconds.
    fn once(limits: &Limits, user: u128, start: i64, end: i64) -> String {
        let header = |response: &Response, name: &str| {
            let found = response.headers.iter().find(|(own, _)| own == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        match limits.enter(Uuid::from_u128(user), start) {
            Err(response) => {
                let body: serde_json::Value = serde_json::from_slice(&response.body).expect("an error body");
                assert_eq!(response.status, 429);
                format!("{} {}", body["error"]["code"].as_str().unwrap_or_default(), header(&response, "Retry-After"))
            }
            Ok(admitted) => {
                let mut response = exchange::no_content(204);
                limits.leave(admitted, end, &mut response);
                let requests = header(&response, "x-ms-ratelimit-burst-remaining-xrm-requests");
                format!("{requests} {}", header(&response, "x-ms-ratelimit-time-remaining-xrm-requests"))
            }
        }
    }

    #[test]
    fn requests_of_a_window_are_counted_and_leave_it() {
        let limits = limits(3, 1_200_000, 52);
        for (user, second, wanted) in [
            (1, 0, "2 1,200.00"),
            (1, 10, "1 1,200.00"),
            (1, 10, "0 1,200.00"),
            (1, 20, "0x80072322 280"),
            (2, 20, "2 1,200.00"),
            (1, 299, "0x80072322 1"),
            (1, 300, "0 1,200.00"),
            (1, 301, "0x80072322 9"),
            (1, 310, "1 1,200.00"),
            (1, 1_000, "2 1,200.00"),
        ] {
            assert_eq!(once(&limits, user, second * SECOND, second * SECOND), wanted, "user {user} at {second}");
        }
    }

    #[test]
    fn execution_time_is_summed() {
        let limits = limits(6_000, 10_000, 52);
        for (start, end, wanted) in [
            (0, 4, "5999 6.00"),
            (5, 12, "5998 0.00"),
            (12, 12, "0x80072321 292"),
            (303, 303, "0x80072321 1"),
            (304, 304, "5998 3.00"),
        ] {
            assert_eq!(once(&limits, 1, start * SECOND, end * SECOND), wanted, "from {start} to {end}");
        }
    }

    #[test]
    fn requests_at_once_are_refused_at_once() {
        let limits = limits(6_000, 1_200_000, 2);
        let user = Uuid::from_u128(1);
        let first = limits.enter(user, 0).expect("one");
        let second = limits.enter(user, 0).expect("two");
        assert_eq!(once(&limits, 1, 0, 0), "0x80072326 1");
        limits.leave(first, SECOND, &mut exchange::no_content(204));
        assert_eq!(once(&limits, 1, SECOND, SECOND), "5997 1,199.00");
        limits.leave(second, SECOND, &mut exchange::no_content(204));
    }

    #[test]
    fn a_day_counts_operations_and_refuses_none() {
        let limits = limits(6_000, 1_200_000, 52);
        limits.set(LimitSettings { daily_requests: 3, ..limits.settings() });
        let user = Uuid::from_u128(1);
        let request = |url: &str, body: &str| Request {
            url: url.to_owned(),
            body: body.as_bytes().to_vec(),
            ..Request::default()
        };
        let bulk = request("/accounts/Microsoft.Dynamics.CRM.CreateMultiple?tag=a", r#"{"Targets":[{},{},{}]}"#);
        for (hour, request, wanted) in [
            (0, request("/accounts", "{}"), (1, false)),
            (1, bulk, (4, true)),
            (1, request("/accounts/Microsoft.Dynamics.CRM.CreateMultiple", "broken"), (5, true)),
            (24, request("/accounts", "{}"), (5, true)),
            (25, request("/accounts", "{}"), (2, false)),
        ] {
            let now = hour * HOUR_SECONDS * SECOND;
            limits.use_up(user, now, &request);
            let shown = limits.shown(now);
            let user = &shown["users"][0];
            let counted = (user["dailyRequests"].as_u64().unwrap_or_default(), user["dailyExceeded"] == true);
            assert_eq!(counted, wanted, "in hour {hour}");
        }
    }

    #[test]
    fn what_is_off_counts_nothing() {
        let limits = Limits::default();
        assert!(limits.enter(Uuid::nil(), 0).expect("lets in").is_none());
        limits.use_up(Uuid::nil(), 0, &Request::default());
        assert_eq!(limits.shown(0)["users"], serde_json::json!([]));
        assert_eq!(grouped(1_200_000), "1,200,000");
    }
}
