//! Faults by chance, the same ones for the same seed.
//!
//! Owns the draw. The fate of a request depends on the seed and on how many requests that match came before it, and on
//! nothing else: the same seed and the same sequence of requests give the same faults.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use super::{FaultAction, FaultMatch, RetryAfter};
use crate::Dialect;

/// Faults that come by chance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RandomFaults {
    pub seed: u64,
    #[serde(default)]
    pub rates: FaultRates,
    /// The same of single operations inside batches, where only `reject`, `throttle`, `serverError` and `ignoreIfMatch` can
    /// strike.
    #[serde(default)]
    pub operation_rates: FaultRates,
    /// Which requests are exposed to chance, and which operations; `nth` and `times` count each for themselves.
    #[serde(rename = "match", default = "all")]
    pub matching: FaultMatch,
    /// The longest wait of `slow` and of a late event, and what `throttle` asks for at most.
    #[serde(default = "ms_max")]
    pub ms_max: u64,
}

fn all() -> FaultMatch {
    FaultMatch { times: 0, ..FaultMatch::default() }
}

const fn ms_max() -> u64 {
    1_000
}

/// The share of requests, or of events, that each kind of fault strikes: from 0 to 1, together at most 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FaultRates {
    /// Refused with status 400.
    pub reject: f64,
    /// Applied, and the answer is lost.
    pub lose: f64,
    /// No answer; applied or not.
    pub hang: f64,
    pub slow: f64,
    /// The connection breaks before anything is applied.
    pub reset: f64,
    /// Status 429 with Retry-After, as seconds or as a date.
    pub throttle: f64,
    /// Status 500, 502, 503 or 504; applied or not.
    pub server_error: f64,
    /// The answer comes after a later one.
    pub reorder: f64,
    pub ignore_if_match: f64,
    pub expire_delta_links: f64,
    /// Of events: posted twice.
    pub duplicate_event: f64,
    /// Of events: posted late.
    pub late_event: f64,
}

impl FaultRates {
    fn of_requests(&self) -> [(&'static str, f64); 10] {
        [
            ("reject", self.reject),
            ("lose", self.lose),
            ("hang", self.hang),
            ("slow", self.slow),
            ("reset", self.reset),
            ("throttle", self.throttle),
            ("serverError", self.server_error),
            ("reorder", self.reorder),
            ("ignoreIfMatch", self.ignore_if_match),
            ("expireDeltaLinks", self.expire_delta_links),
        ]
    }

    /// Those of them that an operation inside a batch can have.
    fn of_operations(&self) -> [(&'static str, f64); 4] {
        [
            ("reject", self.reject),
            ("throttle", self.throttle),
            ("serverError", self.server_error),
            ("ignoreIfMatch", self.ignore_if_match),
        ]
    }

    fn of_events(&self) -> [(&'static str, f64); 2] {
        [("duplicateEvent", self.duplicate_event), ("lateEvent", self.late_event)]
    }
}

impl RandomFaults {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let operations = self.operation_rates.of_operations();
        let others = self.operation_rates.of_requests().into_iter().chain(self.operation_rates.of_events());
        for (name, rate) in others {
            let is_possible = operations.iter().any(|(possible, _)| *possible == name);
            ensure!(is_possible || rate == 0.0, "the rate {name} cannot strike an operation inside a batch");
        }
        for rates in [self.rates.of_requests().as_slice(), self.rates.of_events().as_slice(), operations.as_slice()] {
            for (name, rate) in rates {
                ensure!((0.0..=1.0).contains(rate), "the rate {name} is {rate}, and has to be from 0 to 1");
            }
            ensure!(rates.iter().map(|(_, rate)| rate).sum::<f64>() <= 1.0 + 1e-9, "the rates come to more than 1");
        }
        Ok(())
    }
}

/// Random faults with what they did.
#[derive(Debug, Serialize)]
pub(super) struct Chance {
    #[serde(flatten)]
    faults: RandomFaults,
    /// Requests that matched.
    requests: u64,
    /// Operations inside batches that matched.
    operations: u64,
    events: u64,
    hits: BTreeMap<&'static str, u64>,
}

impl Chance {
    pub fn new(faults: RandomFaults) -> Self {
        Self { faults, requests: 0, operations: 0, events: 0, hits: BTreeMap::new() }
    }

    /// What strikes a request, or with `operation` one of the operations inside a batch.
    pub fn strike(
        &mut self,
        dialect: Dialect,
        operation: bool,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Option<FaultAction> {
        let matching = &self.faults.matching;
        if !matching.fits(method, path, body) {
            return None;
        }
        let counter = if operation { &mut self.operations } else { &mut self.requests };
        *counter += 1;
        let number = *counter;
        let first = u64::from(matching.nth.max(1));
        if number < first || (matching.times != 0 && number - first >= u64::from(matching.times)) {
            return None;
        }
        let (mut draw, kind, what) = if operation {
            // Numbers of their own, far from those of requests.
            let mut draw = Draw::new(self.faults.seed, number | (1 << 62));
            let kind = draw.kind(&self.faults.operation_rates.of_operations())?;
            (draw, kind, "operation")
        } else {
            let mut draw = Draw::new(self.faults.seed, number);
            let kind = draw.kind(&self.faults.rates.of_requests())?;
            (draw, kind, "request")
        };
        *self.hits.entry(kind).or_default() += 1;
        let ms = draw.below(self.faults.ms_max.max(1)) + 1;
        let which = draw.below(4);
        let is_applied = draw.below(2) == 1;
        let said = format!("Fault by chance: seed {}, {what} {number}.", self.faults.seed);
        let answer = |status: u16, code: &str, retry_after, after_applying| FaultAction::Answer {
            status,
            code: code.to_owned(),
            message: said.clone(),
            retry_after,
            after_applying,
        };
        let (rejected, throttled, failed) = match dialect {
            Dialect::Dataverse => ("0x80040265", "0x80072322", "0x80040216"),
            Dialect::Finops => ("", "", ""),
        };
        Some(match kind {
            "reject" => answer(400, rejected, None, false),
            "lose" => FaultAction::ApplyThenReset,
            "hang" => FaultAction::Hang { after_applying: is_applied },
            "slow" => FaultAction::Slow { ms },
            "reset" => FaultAction::Reset,
            "throttle" => {
                let seconds = ms.div_ceil(1_000);
                let after = if is_applied {
                    RetryAfter::Seconds(seconds)
                } else {
                    RetryAfter::DateAfter { date_after_seconds: seconds }
                };
                answer(429, throttled, Some(after), false)
            }
            "serverError" => answer(
                [500, 502, 503, 504][usize::try_from(which).unwrap_or(0)],
                failed,
                None,
                is_applied && !operation,
            ),
            "reorder" => FaultAction::Hold { answers: 1, ms_max: self.faults.ms_max },
            "ignoreIfMatch" => FaultAction::IgnoreIfMatch,
            _ => FaultAction::ExpireDeltaLinks,
        })
    }

    pub fn event(&mut self) -> Option<FaultAction> {
        self.events += 1;
        // Events have numbers of their own, far from those of requests.
        let mut draw = Draw::new(self.faults.seed, self.events | (1 << 63));
        let kind = draw.kind(&self.faults.rates.of_events())?;
        *self.hits.entry(kind).or_default() += 1;
        Some(match kind {
            "duplicateEvent" => FaultAction::DuplicateEvent { copies: 1 },
            _ => FaultAction::LateEvent { ms: draw.below(self.faults.ms_max.max(1)) + 1 },
        })
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014), begun anew for every request.
struct Draw(u64);

impl Draw {
    fn new(seed: u64, number: u64) -> Self {
        let mut draw = Self(seed);
        Self(draw.next() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn kind(&mut self, rates: &[(&'static str, f64)]) -> Option<&'static str> {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let mut at = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        for (name, rate) in rates {
            if at < *rate {
                return Some(name);
            }
            at -= rate;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance(seed: u64, rates: FaultRates) -> Chance {
        Chance::new(RandomFaults { seed, rates, operation_rates: rates, matching: all(), ms_max: 100 })
    }

    #[test]
    fn the_same_seed_and_requests_give_the_same_faults() {
        let rates = FaultRates {
            reject: 0.1,
            lose: 0.1,
            hang: 0.1,
            slow: 0.1,
            reset: 0.1,
            throttle: 0.1,
            server_error: 0.1,
            reorder: 0.1,
            ignore_if_match: 0.1,
            expire_delta_links: 0.05,
            duplicate_event: 0.5,
            late_event: 0.25,
        };
        let play = |seed: u64| {
            let mut chance = chance(seed, rates);
            let requests =
                (0..500).map(|_| chance.strike(Dialect::Dataverse, false, "GET", "/x", b"")).collect::<Vec<_>>();
            let events = (0..500).map(|_| chance.event()).collect::<Vec<_>>();
            (requests, events, chance.hits)
        };
        let (requests, events, hits) = play(7);
        assert_eq!((requests.clone(), events.clone(), hits.clone()), play(7));
        assert_ne!(requests, play(8).0);
        assert_eq!(hits.len(), 12, "every kind comes up: {hits:?}");
        for (kind, rate) in rates.of_requests().into_iter().chain(rates.of_events()) {
            let share = hits[kind];
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
            let wanted = (rate * 500.0) as u64;
            assert!(wanted / 2 < share && share < wanted * 2, "{kind}: {share} of 500 at a rate of {rate}");
        }
        // An event or an operation in between changes nothing for the requests.
        let mut mixed = chance(7, rates);
        let again = (0..500).map(|_| {
            mixed.event();
            mixed.strike(Dialect::Dataverse, true, "GET", "/x", b"");
            mixed.strike(Dialect::Dataverse, false, "GET", "/x", b"")
        });
        assert!(again.eq(requests));
    }

    #[test]
    fn operations_inside_batches_have_rates_of_their_own() {
        let rates =
            FaultRates { reject: 0.1, throttle: 0.1, server_error: 0.1, ignore_if_match: 0.1, ..FaultRates::default() };
        let play = |operation: bool| {
            let mut chance = chance(7, FaultRates::default());
            chance.faults.operation_rates = rates;
            chance.faults.check().expect("rates that fit");
            let struck = (0..500).filter_map(|_| chance.strike(Dialect::Dataverse, operation, "PATCH", "/x", b""));
            (struck.collect::<Vec<_>>(), chance.hits.len())
        };
        assert_eq!(play(false), (Vec::new(), 0));
        let (struck, kinds) = play(true);
        assert_eq!((kinds, play(true).0 == struck), (4, true));
        assert!(100 < struck.len() && struck.len() < 300, "{}", struck.len());
        for action in struck {
            // Nothing of a change set stays when one of it is refused.
            let fits =
                matches!(&action, FaultAction::Answer { after_applying: false, .. } | FaultAction::IgnoreIfMatch);
            assert!(fits, "{action:?}");
        }
        let mut faults = chance(7, FaultRates::default()).faults;
        faults.operation_rates = FaultRates { hang: 0.1, ..FaultRates::default() };
        assert!(faults.check().is_err());
    }

    #[test]
    fn only_what_matches_is_exposed() {
        let mut chance = chance(1, FaultRates { reset: 1.0, ..FaultRates::default() });
        chance.faults.matching = FaultMatch { path: Some("/a".into()), nth: 2, times: 2, ..FaultMatch::default() };
        let mut strike = |path: &str| chance.strike(Dialect::Finops, false, "GET", path, b"").is_some();
        assert_eq!(["/a", "/b", "/a", "/a", "/a"].map(&mut strike), [false, false, true, true, false]);
    }
}
