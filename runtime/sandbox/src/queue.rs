//! Whose call is next: a fair queue over tenants.
//!
//! Deficit round robin on processor time. Each tenant has a line of its own and a credit in microseconds. A call is
//! begun while its tenant has credit, and is charged what it is expected to take; when it ends, the difference to what
//! it took is settled. When no tenant that may begin a call has credit, all of them earn. So a tenant whose calls take
//! long gets fewer of them, one that floods its line waits in it alone, and nobody waits while a thread is free.
//!
//! Plain data, without threads and clocks: [`crate::workers`] runs what this decides.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::tenant::TenantLimits;

/// What a tenant earns per round. About one tick: short enough that nobody waits long, long enough for many short calls.
const QUANTUM_MICROS: i64 = 5_000;
/// What the first call of a tenant is expected to take.
const EXPECTED_MICROS: i64 = 1_000;
/// No call is expected to take nothing, so that a flood of empty calls costs its tenant something.
const EXPECTED_MICROS_MIN: i64 = 10;

/// The line is as long as it may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub waiting: usize,
}

/// A call that was begun, to be given back with what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub tenant: Arc<str>,
    charged_micros: i64,
}

#[derive(Debug)]
struct Line<J> {
    waiting: VecDeque<J>,
    in_flight: usize,
    in_flight_max: Option<usize>,
    waiting_max: usize,
    credit_micros: i64,
    /// A running average of what its calls took.
    expected_micros: i64,
    cpu: Duration,
}

#[derive(Debug)]
pub(crate) struct FairQueue<J> {
    threads: usize,
    lines: HashMap<Arc<str>, Line<J>>,
    /// Tenants whose line is not empty, in the order of their turns.
    round: VecDeque<Arc<str>>,
}

impl<J> FairQueue<J> {
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), lines: HashMap::new(), round: VecDeque::new() }
    }

    /// Makes a tenant known; from the second one on, nobody may have all threads.
    pub fn know(&mut self, tenant: &Arc<str>, limits: &TenantLimits) {
        self.lines.entry(tenant.clone()).or_insert_with(|| Line {
            waiting: VecDeque::new(),
            in_flight: 0,
            in_flight_max: limits.calls_in_flight_max,
            waiting_max: limits.calls_waiting_max,
            credit_micros: 0,
            expected_micros: EXPECTED_MICROS,
            cpu: Duration::ZERO,
        });
    }

    /// Puts a call at the end of its tenant's line; it is made only when there is a place for it.
    pub fn push(&mut self, tenant: &Arc<str>, limits: &TenantLimits, call: impl FnOnce() -> J) -> Result<(), Full> {
        self.know(tenant, limits);
        let line = self.lines.get_mut(tenant).expect("it was made known above");
        if line.waiting_max <= line.waiting.len() {
            return Err(Full { waiting: line.waiting.len() });
        }
        if line.waiting.is_empty() {
            self.round.push_back(tenant.clone());
        }
        line.waiting.push_back(call());
        Ok(())
    }

    /// The next call that a free thread is to run, if any may begin.
    pub fn next(&mut self) -> Option<(Begun, J)> {
        let default_max = if self.lines.len() < 2 { self.threads } else { self.threads.saturating_sub(1).max(1) };
        let may_begin = |line: &Line<J>| line.in_flight < line.in_flight_max.unwrap_or(default_max).max(1);
        let mut least_debt: Option<i64> = None;
        let mut first = None;
        for (place, tenant) in self.round.iter().enumerate() {
            let line = &self.lines[tenant];
            if !may_begin(line) {
                continue;
            }
            if 0 < line.credit_micros {
                first = Some(place);
                break;
            }
            least_debt = Some(least_debt.map_or(line.credit_micros, |least| least.max(line.credit_micros)));
        }
        if first.is_none() {
            // As many rounds at once as the one with the least debt needs to be out of it.
            let rounds = 1 + -least_debt? / QUANTUM_MICROS;
            for (place, tenant) in self.round.iter().enumerate() {
                let line = self.lines.get_mut(tenant).expect("who waits is known");
                if may_begin(line) {
                    line.credit_micros += rounds * QUANTUM_MICROS;
                    if first.is_none() && 0 < line.credit_micros {
                        first = Some(place);
                    }
                }
            }
        }
        Some(self.begin(first?))
    }

    fn begin(&mut self, place: usize) -> (Begun, J) {
        let tenant = self.round[place].clone();
        let line = self.lines.get_mut(&tenant).expect("who waits is known");
        let call = line.waiting.pop_front().expect("a line in the round is not empty");
        let charged_micros = line.expected_micros;
        line.credit_micros -= charged_micros;
        line.in_flight += 1;
        if line.waiting.is_empty() {
            self.round.remove(place);
            // Credit is for those who wait; debts stay.
            line.credit_micros = line.credit_micros.min(0);
        } else if line.credit_micros <= 0 {
            self.round.remove(place);
            self.round.push_back(tenant.clone());
        }
        (Begun { tenant, charged_micros }, call)
    }

    /// A call has ended and took so much of a processor.
    pub fn done(&mut self, begun: &Begun, cpu: Duration) {
        let Some(line) = self.lines.get_mut(&begun.tenant) else { return };
        let took_micros = i64::try_from(cpu.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        line.in_flight -= 1;
        line.credit_micros -= took_micros - begun.charged_micros;
        if line.waiting.is_empty() {
            line.credit_micros = line.credit_micros.min(0);
        }
        line.expected_micros = ((7 * line.expected_micros + took_micros) / 8).max(EXPECTED_MICROS_MIN);
        line.cpu += cpu;
    }

    /// In flight, waiting, and the time used so far.
    pub fn usage(&self, tenant: &str) -> (usize, usize, Duration) {
        self.lines.get(tenant).map_or((0, 0, Duration::ZERO), |line| (line.in_flight, line.waiting.len(), line.cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(calls_in_flight_max: Option<usize>) -> TenantLimits {
        TenantLimits { calls_in_flight_max, calls_waiting_max: 10_000, ..TenantLimits::default() }
    }

    /// Runs `turns` calls on one thread and counts them, by tenant. Each tenant has a full line and calls of one length.
    fn turns(threads: usize, tenants: &[(&str, u64)], turns: usize) -> Vec<usize> {
        let mut queue = FairQueue::new(threads);
        let mut counts = vec![0; tenants.len()];
        for (number, (tenant, _)) in tenants.iter().enumerate() {
            for _ in 0..turns {
                queue.push(&Arc::from(*tenant), &limits(None), || number).expect("there is a place");
            }
        }
        for _ in 0..turns {
            let (begun, number) = queue.next().expect("somebody waits");
            counts[number] += 1;
            queue.done(&begun, Duration::from_micros(tenants[number].1));
        }
        counts
    }

    #[test]
    fn time_is_shared_and_not_turns() {
        /// Tenants with the microseconds of each call of theirs, and the calls of a thousand that each gets.
        type Case<'a> = (&'a [(&'a str, u64)], [usize; 2]);
        let cases: [Case<'_>; 3] = [
            (&[("a", 1_000), ("b", 1_000)], [500, 500]),
            (&[("a", 9_000), ("b", 1_000)], [100, 900]),
            (&[("a", 100_000), ("b", 100)], [1, 999]),
        ];
        for (tenants, wanted) in cases {
            let counts = turns(1, tenants, 1_000);
            for (count, wanted) in counts.iter().zip(wanted) {
                assert!(count.abs_diff(wanted) <= 10, "{tenants:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn who_comes_late_waits_for_one_round_and_not_for_the_whole_line() {
        let (flood, late) = (Arc::from("flood"), Arc::from("late"));
        let mut queue = FairQueue::new(1);
        for _ in 0..1_000 {
            queue.push(&flood, &limits(None), || "flood").expect("there is a place");
        }
        for _ in 0..100 {
            let (begun, _) = queue.next().expect("somebody waits");
            queue.done(&begun, Duration::from_millis(50));
        }
        queue.push(&late, &limits(None), || "late").expect("there is a place");
        let mut turn = 0;
        loop {
            turn += 1;
            let (begun, whose) = queue.next().expect("somebody waits");
            queue.done(&begun, Duration::from_millis(50));
            if whose == "late" {
                break;
            }
        }
        assert!(turn <= 2, "after {turn} turns");
    }

    #[test]
    fn one_tenant_alone_has_all_threads_and_two_leave_each_other_one() {
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let mut queue = FairQueue::new(4);
        for _ in 0..8 {
            queue.push(&a, &limits(None), || ()).expect("there is a place");
        }
        let begun = std::iter::from_fn(|| queue.next()).take(4).collect::<Vec<_>>();
        assert_eq!((begun.len(), queue.usage("a").0), (4, 4));
        for (begun, ()) in &begun {
            queue.done(begun, Duration::from_millis(1));
        }
        queue.know(&b, &limits(None));
        assert_eq!(std::iter::from_fn(|| queue.next()).count(), 3, "one thread is kept free for the other");
        queue.push(&b, &limits(None), || ()).expect("there is a place");
        assert_eq!(queue.next().expect("b may").0.tenant, b);
    }

    #[test]
    fn a_tenants_own_cap_and_line_are_kept() {
        let a = Arc::from("a");
        let mut queue = FairQueue::new(4);
        let small = TenantLimits { calls_waiting_max: 2, ..limits(Some(1)) };
        assert_eq!(queue.push(&a, &small, || 1), Ok(()));
        assert_eq!(queue.push(&a, &small, || 2), Ok(()));
        assert_eq!(queue.push(&a, &small, || unreachable!("it is not made")), Err(Full { waiting: 2 }));
        let (begun, _) = queue.next().expect("one may");
        assert_eq!(queue.next().map(|(_, call)| call), None, "one at a time");
        queue.done(&begun, Duration::from_micros(1));
        assert_eq!(queue.next().map(|(_, call)| call), Some(2));
    }

    #[test]
    fn what_was_used_alone_is_not_held_against_anybody() {
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let mut queue = FairQueue::new(1);
        for _ in 0..1_000 {
            queue.push(&a, &limits(None), || "a").expect("there is a place");
            let (begun, _) = queue.next().expect("it waits");
            queue.done(&begun, Duration::from_millis(20));
        }
        // An hour of use while nobody else wanted anything, and then both want everything.
        let mut counts = [0, 0];
        for _ in 0..200 {
            queue.push(&a, &limits(None), || "a").expect("there is a place");
            queue.push(&b, &limits(None), || "b").expect("there is a place");
        }
        for _ in 0..200 {
            let (begun, whose) = queue.next().expect("somebody waits");
            counts[usize::from(whose == "b")] += 1;
            queue.done(&begun, Duration::from_millis(20));
        }
        assert!(90 <= counts[0] && 90 <= counts[1], "{counts:?}");
    }
}
