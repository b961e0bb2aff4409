//! When something is attempted, and what happens around it: start, initial sync, live sync, compare.
//!
//! The pipeline knows how a delivery is carried over; this module decides which one is next. All durable state is in
//! the store, so any of this may be killed at any point and started again.

mod bindings;
mod capture;
pub mod compare;
mod deliver;
pub mod drift;
pub mod dry_run;
mod initial;
mod live;
pub mod order;
pub mod prepare;
pub mod progress;
mod references;
pub mod runtime;
mod table_map;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dualwright_core::{Class, Code, Fault};

use crate::pipeline::attempt::Hold;
use crate::pipeline::{Lane, Link};
use crate::report::PluginReport;
pub(crate) use initial::has_had_initial_sync;
pub use live::LiveEnd;
use progress::Watcher;

/// Runs one link. Clones share it.
#[derive(Clone)]
pub struct Engine {
    link: Arc<Link>,
    watcher: Arc<dyn Watcher>,
    /// The first one is live sync's; all serve initial sync.
    lanes: Arc<[Lane]>,
    /// Microseconds since 1970.
    now: fn() -> i64,
    kept_timings: Arc<Mutex<KeptTimings>>,
    tables: Arc<Mutex<Tables>>,
}

/// What is thought of the tables of both systems.
#[derive(Debug, Default)]
struct Tables {
    /// A system does not know what we ask of it, or refuses what we write: perhaps its tables are others now.
    doubtful: bool,
    /// Somebody else looked at them, and found something.
    told: bool,
    /// When that was, as far as this engine knows.
    told_at: Option<String>,
}

/// When plugin timings were last written to the store, and how many calls they knew of.
#[derive(Debug, Default)]
struct KeptTimings {
    at: i64,
    calls: u64,
}

impl Engine {
    #[must_use]
    pub fn new(link: Arc<Link>, watcher: Arc<dyn Watcher>) -> Self {
        let lanes = (0..link.limits.initial_sync_concurrency).map(|number| Lane::new(&link.scope, number)).collect();
        Self { link, watcher, lanes, now: now_micros, kept_timings: Arc::default(), tables: Arc::default() }
    }

    /// An engine that goes on where this one stops, with another link over the same store. Its lanes are the same, so
    /// that no fence has to change hands.
    #[must_use]
    fn succeeded_by(&self, link: Arc<Link>) -> Self {
        Self { link, kept_timings: Arc::default(), tables: Arc::default(), ..self.clone() }
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what may come of changed tables.
    fn doubt(&self, fault: &Fault) {
        if matches!(fault.code, Code::TableUnknown | Code::TargetRejected) {
            self.tables().doubtful = true;
        }
    }

    /// Whether somebody else said since the last time that maps are frozen, thawed or to be read anew.
    async fn hear_of_tables(&self) -> Result<(), Fault> {
        let told_at = self.link.store.cursor(&self.link.scope, drift::CHANGED).await?;
        let mut tables = self.tables();
        let told_at = told_at.unwrap_or_default();
        tables.told |= tables.told_at.as_ref().is_some_and(|known| *known != told_at);
        tables.told_at = Some(told_at);
        Ok(())
    }

    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What the plugins of this run took, per plugin and extension point.
    #[must_use]
    pub fn plugin_timings(&self) -> Vec<PluginReport> {
        self.link.sandbox.timings().into_iter().map(PluginReport::from).collect()
    }

    /// Writes the plugin timings to the store, where `status` reads them.
    pub async fn keep_plugin_timings(&self) -> Result<(), Fault> {
        let timings = self.plugin_timings();
        let calls = timings.iter().map(|timing| timing.calls).sum();
        *self.kept_timings.lock().unwrap_or_else(PoisonError::into_inner) = KeptTimings { at: (self.now)(), calls };
        let link = &self.link;
        // All at once, so that they share one commit.
        let saves = timings.iter().map(|timing| async move {
            let place = format!("{}/{}", timing.plugin, timing.stage);
            let json = serde_json::to_string(timing)
                .map_err(|error| Fault::new(Code::Internal, format!("timings cannot be written: {error}")))?;
            link.store.save_plugin_timings(&link.scope, &place, &json).await
        });
        futures_util::future::try_join_all(saves).await.map(|_| ())
    }

    /// The same now and then, so that a runtime that is killed leaves them behind, and one at work shows them.
    async fn keep_plugin_timings_at_times(&self) -> Result<(), Fault> {
        // Seldom enough to cost nothing beside the commits of the work itself.
        const EVERY_MICROS: i64 = 5_000_000;
        {
            let kept = self.kept_timings.lock().unwrap_or_else(PoisonError::into_inner);
            if (self.now)().saturating_sub(kept.at) < EVERY_MICROS {
                return Ok(());
            }
            let calls = self.link.sandbox.timings().iter().map(|timing| timing.calls).sum::<u64>();
            if calls == kept.calls {
                return Ok(());
            }
        }
        self.keep_plugin_timings().await
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
