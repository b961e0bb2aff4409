//! When a call ends, and for what reason.
//!
//! A guest is convicted on its own time alone: what its thread has run since it was entered, read from the thread's CPU
//! clock. Wall time bounds everything, but a guest that reaches that bound without having used its own time was kept
//! from running by the machine, and the machine is blamed. Both clocks are read in the callback of the epoch, once per
//! tick and only while a guest runs, so short calls never pay for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clocks::Clocks;
use crate::limits::Limits;
use crate::sandbox::TICK;

/// How long a guest may run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Of its own time.
    pub own: Duration,
    /// Of wall time, by the plugin's own limits.
    pub wall: Duration,
    /// What the transaction has left for it, in wall time.
    pub budget: Duration,
}

impl Allowance {
    /// What a guest can count on at most.
    pub fn most(&self) -> Duration {
        self.own.min(self.budget)
    }
}

/// Why a call was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It used up its own time.
    OwnTime { limit: Duration },
    /// The wall clock reached its bound, and of that time the guest's thread had run only so much.
    WallTime { limit: Duration, own: Duration },
    /// The transaction had no more than this left for it.
    Budget { left: Duration },
    /// One of its host calls took longer than those may.
    HostCall { limit: Duration },
    /// Nobody waits for its answer any more.
    Cancelled,
}

/// The decision, on its own: how much was used, against what is allowed.
fn judge(allowance: &Allowance, own: Duration, wall: Duration) -> Option<Ending> {
    if allowance.own <= own {
        Some(Ending::OwnTime { limit: allowance.own })
    } else if allowance.budget <= wall {
        Some(Ending::Budget { left: allowance.budget })
    } else if allowance.wall <= wall {
        Some(Ending::WallTime { limit: allowance.wall, own })
    } else {
        None
    }
}

/// The first look at a running guest, from which on its thread's clock counts.
#[derive(Debug, Clone, Copy)]
struct FirstLook {
    /// What it is taken to have run before: all of the wall time, but never more than a tick.
    own: Duration,
    cpu: Option<Duration>,
}

/// Watches one guest, call by call.
#[derive(Debug)]
pub(crate) struct Watch {
    clocks: Clocks,
    cancelled: Arc<AtomicBool>,
    host_call_limit: Duration,
    allowance: Allowance,
    started: Instant,
    first: Option<FirstLook>,
    /// Own time after which a look finds the goal missed; `None` once it was found.
    goal_left: Option<Duration>,
    host_call_since: Option<Instant>,
    ended: Option<Ending>,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    GoesOn,
    /// It goes on, and is past its goal for the first time.
    OverGoal,
    Ends,
}

impl Watch {
    pub fn new(clocks: Clocks, limits: &Limits, cancelled: Arc<AtomicBool>) -> Self {
        let started = clocks.now();
        Self {
            clocks,
            cancelled,
            host_call_limit: limits.host_call_limit,
            allowance: Allowance { own: Duration::ZERO, wall: Duration::ZERO, budget: Duration::ZERO },
            started,
            first: None,
            goal_left: None,
            host_call_since: None,
            ended: None,
        }
    }

    /// Begins a call. `goal_left` is what its plugin may still take before it misses its goal.
    pub fn begin(&mut self, allowance: Allowance, goal_left: Duration) {
        self.allowance = allowance;
        self.started = self.clocks.now();
        self.first = None;
        self.goal_left = Some(goal_left);
        self.host_call_since = None;
        self.ended = None;
    }

    /// Looks at the running guest; called once per tick.
    pub fn look(&mut self) -> Look {
        self.clocks.looked();
        if self.cancelled.load(Ordering::Relaxed) {
            self.ended = Some(Ending::Cancelled);
            return Look::Ends;
        }
        let wall = self.clocks.now().saturating_duration_since(self.started);
        let own = self.own(wall);
        self.ended = judge(&self.allowance, own, wall);
        if self.ended.is_some() {
            Look::Ends
        } else if self.goal_left.is_some_and(|left| left < own) {
            self.goal_left = None;
            Look::OverGoal
        } else {
            Look::GoesOn
        }
    }

    fn own(&mut self, wall: Duration) -> Duration {
        let cpu = self.clocks.thread_cpu();
        let first = *self.first.get_or_insert(FirstLook { own: wall.min(TICK), cpu });
        match (first.cpu, cpu) {
            (Some(then), Some(now)) => first.own + now.saturating_sub(then),
            // Where the system does not say how long a thread ran, the wall clock has to do.
            _ => wall,
        }
    }

    /// Of the call that ends now: how long its thread was kept from running, as far as anybody looked.
    pub fn starved(&mut self) -> Duration {
        if self.first.is_none() {
            return Duration::ZERO;
        }
        let wall = self.clocks.now().saturating_duration_since(self.started);
        wall.saturating_sub(self.own(wall))
    }

    /// A host call begins.
    pub fn host_call_begins(&mut self) {
        self.host_call_since = Some(self.clocks.now());
    }

    /// A host call ends; `Err` when it took longer than host calls may, or nobody waits any more. The epoch does not
    /// interrupt the host's own code, so each host call must keep to [`Watch::host_call_until`] by itself, and this
    /// is what holds it to that.
    pub fn host_call_ends(&mut self) -> Result<(), Ending> {
        let Some(since) = self.host_call_since.take() else { return Ok(()) };
        let took = self.clocks.now().saturating_duration_since(since);
        let ending = if self.cancelled.load(Ordering::Relaxed) {
            Ending::Cancelled
        } else if self.host_call_limit < took {
            Ending::HostCall { limit: self.host_call_limit }
        } else {
            return Ok(());
        };
        self.ended = Some(ending);
        Err(ending)
    }

    pub fn ended(&self) -> Option<Ending> {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const ALLOWANCE: Allowance = Allowance { own: millis(2_000), wall: millis(8_000), budget: millis(90_000) };

    #[test]
    fn who_is_blamed_follows_from_both_clocks() {
        let little_left = Allowance { budget: millis(1_000), ..ALLOWANCE };
        let just_enough = Allowance { budget: millis(2_000), ..ALLOWANCE };
        let cases = [
            ("it may go on", ALLOWANCE, 1_999, 1_999, None),
            ("its own time is up", ALLOWANCE, 2_000, 2_000, Some(Ending::OwnTime { limit: millis(2_000) })),
            ("half the machine", ALLOWANCE, 1_500, 3_000, None),
            ("its own time, later", ALLOWANCE, 2_000, 4_000, Some(Ending::OwnTime { limit: millis(2_000) })),
            (
                "starved up to the bound",
                ALLOWANCE,
                1_900,
                8_000,
                Some(Ending::WallTime { limit: millis(8_000), own: millis(1_900) }),
            ),
            ("the budget first", little_left, 990, 1_000, Some(Ending::Budget { left: millis(1_000) })),
            ("both at once are its own", just_enough, 2_000, 2_000, Some(Ending::OwnTime { limit: millis(2_000) })),
            ("both, but starved", just_enough, 1_999, 2_000, Some(Ending::Budget { left: millis(2_000) })),
        ];
        for (case, allowance, own, wall, wanted) in cases {
            assert_eq!(judge(&allowance, millis(own), millis(wall)), wanted, "{case}");
        }
    }

    /// Ticks until the watch ends a guest that never stops, and why.
    fn ticks_until_end(cpu_percent: u32, allowance: Allowance, cancel_at: Option<u64>) -> (u64, Ending) {
        let clocks = Clocks::manual();
        let Clocks::Manual(manual) = &clocks else { unreachable!("it was made so") };
        manual.set_cpu_percent(cpu_percent);
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut watch = Watch::new(clocks.clone(), &Limits::default(), cancelled.clone());
        watch.begin(allowance, millis(500));
        for tick in 1..=100_000 {
            manual.advance();
            if cancel_at == Some(tick) {
                cancelled.store(true, Ordering::Relaxed);
            }
            if watch.look() == Look::Ends {
                return (tick, watch.ended().expect("it says why"));
            }
        }
        panic!("it was never ended");
    }

    #[test]
    fn ticks_are_counted_in_the_guests_own_time() {
        let own = Ending::OwnTime { limit: millis(2_000) };
        assert_eq!(ticks_until_end(100, ALLOWANCE, None), (400, own), "a machine of its own");
        assert_eq!(ticks_until_end(50, ALLOWANCE, None), (799, own), "half of one: twice as long");
        let starved = Ending::WallTime { limit: millis(8_000), own: millis(5) + millis(320).saturating_sub(millis(0)) };
        let (ticks, ending) = ticks_until_end(4, ALLOWANCE, None);
        assert_eq!(ticks, 1_600, "the wall clock bounds everything");
        assert!(matches!(ending, Ending::WallTime { own, .. } if own < millis(330)), "{ending:?} {starved:?}");
        assert_eq!(ticks_until_end(100, ALLOWANCE, Some(7)), (7, Ending::Cancelled), "within a tick");
    }

    #[test]
    fn the_goal_is_missed_once_and_by_own_time() {
        let clocks = Clocks::manual();
        let Clocks::Manual(manual) = &clocks else { unreachable!("it was made so") };
        manual.set_cpu_percent(50);
        let mut watch = Watch::new(clocks.clone(), &Limits::default(), Arc::default());
        watch.begin(ALLOWANCE, millis(100));
        let looks = (0..100).map(|_| {
            manual.advance();
            watch.look()
        });
        let over = looks.enumerate().filter(|(_, look)| *look == Look::OverGoal).map(|(tick, _)| tick + 1);
        assert_eq!(over.collect::<Vec<_>>(), [40], "5 ms of the first tick, then half of every further one");
        assert_eq!(watch.starved(), millis(500) - millis(5) - millis(99 * 5) / 2, "and nobody else's time is booked");
    }

    #[test]
    fn a_host_call_has_a_deadline_of_its_own() {
        let clocks = Clocks::manual();
        let Clocks::Manual(manual) = &clocks else { unreachable!("it was made so") };
        let limits = Limits { host_call_limit: millis(20), ..Limits::default() };
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut watch = Watch::new(clocks.clone(), &limits, cancelled.clone());
        watch.begin(ALLOWANCE, millis(500));
        let mut after = |ticks: u32| {
            watch.host_call_begins();
            (0..ticks).for_each(|_| manual.advance());
            watch.host_call_ends()
        };
        assert_eq!(after(4), Ok(()));
        assert_eq!(after(5), Err(Ending::HostCall { limit: millis(20) }));
        cancelled.store(true, Ordering::Relaxed);
        assert_eq!(after(0), Err(Ending::Cancelled), "nobody waits for what comes next");
    }
}
