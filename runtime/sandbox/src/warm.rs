//! Instances that outlive their transaction, where an installation asks for it.
//!
//! A shelf belongs to one installation, so to one tenant, one digest and one set of settings and grants: nothing on it
//! can be taken by anybody else. Only what ended its transaction soundly is put back, and never for ever.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::guest::Guest;
use crate::installation::Functions;
use crate::limits::{Limits, Warm};

/// An instance that is configured and in which nothing has gone wrong.
pub(crate) struct Live {
    pub guest: Guest,
    pub functions: Functions,
    pub history: History,
}

/// What decides whether an instance may serve once more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History {
    pub made: Instant,
    pub transactions: u32,
    /// Right after it was configured.
    pub memory_bytes_first: usize,
}

pub(crate) struct Shelf {
    limits: Limits,
    idle: Mutex<Vec<Live>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    pub fn new(limits: Limits) -> Self {
        Self { limits, idle: Mutex::default() }
    }

    /// The instance that was used last, if one may serve again.
    pub fn take(&self, now: Instant) -> Option<Live> {
        let (limits, warm) = (&self.limits, self.limits.warm?);
        let mut retired = Vec::new();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = loop {
            match idle.pop() {
                Some(live) if may_serve(&warm, limits, &live.history, live.memory_bytes(), now) => break Some(live),
                Some(live) => retired.push(live),
                None => break None,
            }
        };
        // Stores are dropped without the lock.
        drop(idle);
        found
    }

    /// Keeps an instance whose transaction ended soundly, if it may serve again and there is a place for it.
    pub fn put(&self, mut live: Live, now: Instant) {
        let (limits, Some(warm)) = (&self.limits, self.limits.warm) else { return };
        live.history.transactions += 1;
        if !may_serve(&warm, limits, &live.history, live.memory_bytes(), now) {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < warm.idle_max {
            idle.push(live);
        }
    }
}

impl Live {
    fn memory_bytes(&self) -> usize {
        self.guest.store.data().limiter.memory_bytes()
    }
}

/// A guest that grows from transaction to transaction keeps something of each; it retires before that matters.
fn may_serve(warm: &Warm, limits: &Limits, history: &History, memory_bytes: usize, now: Instant) -> bool {
    let age = now.saturating_duration_since(history.made);
    history.transactions < warm.transactions_max
        && age < warm.age_max
        && memory_bytes <= limits.memory_bytes_max / 4 * 3
        && memory_bytes <= history.memory_bytes_first.saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_instance_retires_by_age_by_use_and_by_growth() {
        let made = Instant::now();
        let warm = Warm { idle_max: 1, transactions_max: 3, age_max: Duration::from_secs(60) };
        let limits = Limits { memory_bytes_max: 1_000, ..Limits::default() };
        let cases = [
            ("fresh", 0, 0, 100, 100, true),
            ("used and grown a little", 2, 59, 100, 200, true),
            ("used up", 3, 0, 100, 100, false),
            ("old", 0, 60, 100, 100, false),
            ("more than twice as large as at first", 1, 0, 100, 201, false),
            ("near its limit", 1, 0, 700, 751, false),
        ];
        for (case, transactions, age_seconds, first, memory, wanted) in cases {
            let history = History { made, transactions, memory_bytes_first: first };
            let now = made + Duration::from_secs(age_seconds);
            assert_eq!(may_serve(&warm, &limits, &history, memory, now), wanted, "{case}");
        }
    }
}
