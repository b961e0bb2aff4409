//! The time a transaction has left: one purse for everything that is done for it.
//!
//! Reads, plugins and the write draw on the same total, in the order in which they come, so a chain of plugins shares
//! what is left instead of multiplying a limit. The reserve is for the write, for what finds out or undoes what a write
//! did, and for the plugins that judge it afterwards.

use std::time::{Duration, Instant};

use dualwright_core::{Code, Fault};

/// Drawn on by reads, plugins and writes; the reserve keeps a slow plugin from leaving a transaction half decided.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    started: Instant,
    total: Duration,
    write_reserve: Duration,
}

impl Budget {
    /// A budget that runs from `started`: the arrival of the request, or the start of the attempt.
    #[must_use]
    pub const fn new(started: Instant, total: Duration, write_reserve: Duration) -> Self {
        Self { started, total, write_reserve }
    }

    #[must_use]
    pub const fn total(&self) -> Duration {
        self.total
    }

    /// What everything before the write may still use.
    pub fn before_write(&self, now: Instant) -> Result<Duration, Fault> {
        self.left(now, self.total.saturating_sub(self.write_reserve), "before the write")
    }

    /// What the write may still use.
    pub fn for_write(&self, now: Instant) -> Result<Duration, Fault> {
        self.left(now, self.total, "for the write")
    }

    /// When a plugin that runs before the write ends at the latest. In the past when nothing is left.
    #[must_use]
    pub fn end_before_write(&self) -> Instant {
        self.started + self.total.saturating_sub(self.write_reserve)
    }

    /// When everything ends, plugins that run after the write included.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.started + self.total
    }

    fn left(&self, now: Instant, of: Duration, what: &str) -> Result<Duration, Fault> {
        let used = now.saturating_duration_since(self.started);
        match of.checked_sub(used) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Fault::new(
                Code::BudgetSpent,
                format!("nothing is left {what} of the budget of {} s", self.total.as_secs()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_left_to_the_write() {
        let started = Instant::now();
        let budget = Budget::new(started, Duration::from_secs(120), Duration::from_secs(30));
        let at = |seconds| started + Duration::from_secs(seconds);
        assert_eq!(budget.before_write(at(60)).expect("left"), Duration::from_secs(30));
        assert_eq!(budget.before_write(at(90)).expect_err("spent").code, Code::BudgetSpent);
        assert_eq!(budget.for_write(at(90)).expect("left"), Duration::from_secs(30));
        assert_eq!(budget.for_write(at(120)).expect_err("spent").code, Code::BudgetSpent);
        assert_eq!((budget.end_before_write(), budget.end()), (at(90), at(120)));
    }
}
