//! What time it is, on the wall and on the clock of the running thread.
//!
//! Everything in this crate that judges by time asks here, so that a test can hold both clocks in its hands: it ticks,
//! says how much of a tick the threads got, and no test has to wait or to guess.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::sandbox::TICK;

/// The two clocks of a sandbox.
#[derive(Debug, Clone)]
pub(crate) enum Clocks {
    System,
    Manual(Arc<ManualClocks>),
}

/// Clocks that move by ticks, and what a test needs to know to tick at the right moment.
#[derive(Debug)]
pub(crate) struct ManualClocks {
    started: Instant,
    wall_nanos: AtomicU64,
    cpu_nanos: AtomicU64,
    /// How much of the wall time every thread gets.
    cpu_percent: AtomicU32,
    /// Guests that are inside a call.
    pub running: AtomicUsize,
    /// How often a guest has begun a call.
    pub entries: AtomicU64,
    /// How often a running guest has noticed a tick.
    pub looks: AtomicU64,
}

impl Clocks {
    pub fn manual() -> Self {
        Self::Manual(Arc::new(ManualClocks {
            started: Instant::now(),
            wall_nanos: AtomicU64::new(0),
            cpu_nanos: AtomicU64::new(0),
            cpu_percent: AtomicU32::new(100),
            running: AtomicUsize::new(0),
            entries: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        }))
    }

    pub fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            Self::Manual(clocks) => clocks.started + Duration::from_nanos(clocks.wall_nanos.load(Ordering::SeqCst)),
        }
    }

    /// How long this thread has run on a processor; `None` where the system does not say. A system call, so nothing
    /// that happens per row or per short call asks for it.
    pub fn thread_cpu(&self) -> Option<Duration> {
        match self {
            Self::System => thread_cpu_time(),
            Self::Manual(clocks) => Some(Duration::from_nanos(clocks.cpu_nanos.load(Ordering::SeqCst))),
        }
    }

    /// Notes that a guest is inside a call, until the guard is dropped.
    pub fn enter(&self) -> Option<Inside> {
        match self {
            Self::System => None,
            Self::Manual(clocks) => {
                clocks.entries.fetch_add(1, Ordering::SeqCst);
                clocks.running.fetch_add(1, Ordering::SeqCst);
                Some(Inside(clocks.clone()))
            }
        }
    }

    /// A running guest has noticed a tick.
    pub fn looked(&self) {
        if let Self::Manual(clocks) = self {
            clocks.looks.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl ManualClocks {
    pub fn advance(&self) {
        let nanos = TICK.as_nanos() as u64;
        self.wall_nanos.fetch_add(nanos, Ordering::SeqCst);
        let percent = u64::from(self.cpu_percent.load(Ordering::SeqCst));
        self.cpu_nanos.fetch_add(nanos * percent / 100, Ordering::SeqCst);
    }

    pub fn set_cpu_percent(&self, percent: u32) {
        self.cpu_percent.store(percent, Ordering::SeqCst);
    }
}

/// A guest is inside a call as long as this lives.
pub(crate) struct Inside(Arc<ManualClocks>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(unix)]
fn thread_cpu_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(not(unix))]
fn thread_cpu_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_has_run_and_one_that_sleeps_has_not() {
        let Some(before) = thread_cpu_time() else { return };
        let mut sum = 0u64;
        while thread_cpu_time().expect("it was there before") == before {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        assert!(before < thread_cpu_time().expect("it was there before"));
    }

    #[test]
    fn manual_clocks_move_by_ticks_and_share() {
        let clocks = Clocks::manual();
        let Clocks::Manual(manual) = &clocks else { unreachable!("it was made so") };
        let (wall, cpu) = (clocks.now(), clocks.thread_cpu().expect("always there"));
        manual.advance();
        manual.set_cpu_percent(40);
        manual.advance();
        assert_eq!(clocks.now() - wall, 2 * TICK);
        assert_eq!(clocks.thread_cpu().expect("always there") - cpu, TICK + TICK * 2 / 5);
    }
}
