//! Live sync: capture, deliver, in turns, until stopped or, when asked, until nothing is left to do.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::deliver::Delivered;
use super::progress::Event;
use super::{Engine, EngineError};

/// When live sync ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveEnd {
    /// Only when it is stopped.
    Never,
    /// When both feeds are at their end and nothing waits.
    Settled,
}

/// Deliveries taken from the outbox at once.
const DELIVERIES_MAX: u32 = 64;

/// How long live sync waits before it looks for changes again, where the configuration leaves it open.
const LOOKS_APART: Duration = Duration::from_millis(500);

/// Each table of Dataverse is one request. A user may send 6,000 in five minutes; looking takes half of them at most.
/// <https://learn.microsoft.com/power-apps/developer/data-platform/api-limits>
const REQUESTS_APART: Duration = Duration::from_millis(100);

fn pause_between_looks(tables: usize) -> Duration {
    LOOKS_APART.max(REQUESTS_APART.saturating_mul(u32::try_from(tables).unwrap_or(u32::MAX)))
}

/// Why live sync came to an end that is none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LivePause {
    /// As [`LiveEnd::Settled`] says.
    Settled,
    /// It was asked to pause, and no transaction is under way.
    Asked,
}

impl Engine {
    /// Keeps both sides in step.
    pub async fn live(&self, end: LiveEnd, stop: &CancellationToken) -> Result<(), EngineError> {
        self.live_until(end, stop, &|| false).await.map(drop)
    }

    /// The same, until `pause` says so; it is asked between transactions.
    pub(super) async fn live_until(
        &self,
        end: LiveEnd,
        stop: &CancellationToken,
        pause: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<LivePause, EngineError> {
        let mut quiet = 0;
        let mut failures = 0;
        while !stop.is_cancelled() {
            self.hear_of_tables().await?;
            if pause() {
                return Ok(LivePause::Asked);
            }
            let captured = match self.capture().await {
                Ok(captured) => {
                    failures = 0;
                    captured
                }
                Err(EngineError::Fault(fault)) if fault.class() != dualwright_core::Class::Rejected => {
                    failures += 1;
                    self.doubt(&fault);
                    if pause() {
                        return Ok(LivePause::Asked);
                    }
                    self.wait(&fault.into(), failures, stop).await?;
                    quiet = 0;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if captured > 0 {
                self.watcher.event(Event::Captured { rows: captured });
            }
            let (delivered, progress) = self.deliver_due(stop, pause).await?;
            self.keep_plugin_timings_at_times().await?;
            if progress && self.retry_waiting(None, stop).await? > 0 {
                quiet = 0;
                continue;
            }
            if captured > 0 || delivered > 0 {
                quiet = 0;
                continue;
            }
            let backlog = self.link.store.backlog(&self.link.scope).await?;
            // Twice, because what the last delivery wrote comes back through a feed.
            quiet = if backlog.deliveries == 0 { quiet + 1 } else { 0 };
            if end == LiveEnd::Settled && quiet >= 2 {
                return Ok(LivePause::Settled);
            }
            let wait = if end == LiveEnd::Settled && quiet > 0 {
                Duration::from_millis(1)
            } else {
                self.link.limits.poll_interval.unwrap_or_else(|| pause_between_looks(self.link.feed_tables.len()))
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
        Err(EngineError::Stopped)
    }

    /// Works through the outbox: how many rows were settled, and whether a new change of theirs changed the target. When
    /// the target cannot take anything now, the rest waits with the first.
    async fn deliver_due(
        &self,
        stop: &CancellationToken,
        pause: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<(u64, bool), EngineError> {
        let mut delivered = 0;
        let mut progress = false;
        loop {
            let due = self.link.store.due(&self.link.scope, (self.now)(), DELIVERIES_MAX).await?;
            if due.is_empty() {
                return Ok((delivered, progress));
            }
            for delivery in &due {
                if stop.is_cancelled() || pause() {
                    return Ok((delivered, progress));
                }
                match self.deliver(&self.lanes[0], delivery).await? {
                    Delivered::Waits => return Ok((delivered, progress)),
                    outcome => {
                        delivered += u64::from(delivery.rows);
                        // A new try of a transaction that waits must not set off the next one.
                        progress |= outcome == Delivered::Progress && delivery.retry_of.is_none();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_for_changes_leaves_half_of_the_requests_to_others() {
        for (tables, wanted_ms) in [(0, 500), (1, 500), (5, 500), (6, 600), (25, 2_500), (137, 13_700)] {
            let pause = pause_between_looks(tables);
            assert_eq!(pause, Duration::from_millis(wanted_ms), "{tables} tables");
            let requests = tables as f64 * 300.0 / pause.as_secs_f64();
            assert!(requests <= 3_000.0, "{tables} tables send {requests} requests in five minutes");
        }
    }
}
