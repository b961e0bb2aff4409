//! When something is attempted, and what happens around it: start, initial sync, live sync, compare.
//!
//! The pipeline knows how a delivery is carried over; this module decides which one is next. All durable state is in
//! the store, so any of this may be killed at any point and started again.

mod capture;
pub mod compare;
mod deliver;
mod initial;
mod live;
pub mod order;
pub mod prepare;
pub mod progress;
mod table_map;

use std::sync::Arc;
use std::time::Duration;

use dualwright_core::{Class, Fault};

use crate::pipeline::attempt::Hold;
use crate::pipeline::{Lane, Link};
pub use live::LiveEnd;
use progress::Watcher;

/// Runs one link.
pub struct Engine {
    link: Arc<Link>,
    watcher: Arc<dyn Watcher>,
    /// The first one is live sync's; all serve initial sync.
    lanes: Vec<Lane>,
    /// Microseconds since 1970.
    now: fn() -> i64,
}

impl Engine {
    #[must_use]
    pub fn new(link: Arc<Link>, watcher: Arc<dyn Watcher>) -> Self {
        let lanes = (0..link.limits.initial_sync_concurrency).map(|number| Lane::new(&link.scope, number)).collect();
        Self { link, watcher, lanes, now: now_micros }
    }

    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }
}

/// Microseconds since 1970 by the system's clock.
#[must_use]
pub fn now_micros() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// How long to wait before the next attempt: what the target asked for, or longer and longer.
fn backoff(hold: &Hold, attempt: u32) -> Duration {
    // Half a minute at most, so that a target that is back is noticed while somebody still looks.
    const LONGEST: Duration = Duration::from_secs(30);
    const MISCONFIGURED: Duration = Duration::from_secs(30);
    match (hold.after, hold.fault.class()) {
        (Some(after), _) => after,
        (None, Class::Misconfigured) => MISCONFIGURED,
        (None, _) => Duration::from_millis(100).saturating_mul(1 << attempt.min(9)).min(LONGEST),
    }
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("stopped")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualwright_core::Code;

    #[test]
    fn waits_grow_and_end_growing() {
        let hold = |code, after| Hold { after, fault: Fault::new(code, "x") };
        let unavailable = hold(Code::Unavailable, None);
        assert_eq!(backoff(&unavailable, 1), Duration::from_millis(200));
        assert_eq!(backoff(&unavailable, 4), Duration::from_millis(1_600));
        assert_eq!(backoff(&unavailable, 400), Duration::from_secs(30));
        assert_eq!(backoff(&hold(Code::Throttled, Some(Duration::from_secs(7))), 1), Duration::from_secs(7));
        assert_eq!(backoff(&hold(Code::Unauthorized, None), 1), Duration::from_secs(30));
    }
}
