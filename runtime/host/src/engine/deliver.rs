//! One delivery or one batch: attempted until it has its fate, and settled.

use std::time::{Duration, Instant};

use dualwright_core::{Class, Code, Fault};

use super::progress::Event;
use super::{Engine, EngineError, backoff};
use crate::pipeline::settle::{Origin, learned, settlement};
use crate::pipeline::{Attempted, Budget, Lane, RowFate, Verdict, Work, attempt, captured};
use crate::store::{Delivery, FailedFilter, FailedRecord, Fate, NewActivity, Settlement};

/// What a caller adds to the settlement of a batch.
pub(super) type Addition<'a> = dyn Fn(&mut Settlement) + Send + Sync + 'a;

impl Engine {
    fn budget(&self) -> Budget {
        Budget::new(Instant::now(), self.link.limits.transaction_budget, self.link.limits.write_reserve)
    }

    /// Carries over a batch that is not in the outbox (initial sync, a second try), again and again until every row
    /// has its fate; then settles it together with what `addition` adds. Returns the number of rows that got through.
    pub(super) async fn carry(
        &self,
        lane: &Lane,
        mut work: Work<'_>,
        origin: Origin,
        addition: &Addition<'_>,
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<Attempted, EngineError> {
        // A misconfiguration may be cured while we wait (a role given, a secret renewed), but not for ever.
        const MISCONFIGURED_MAX: u32 = 3;
        let mut misconfigured = 0;
        loop {
            let attempted = attempt(&self.link, lane, &work, &self.budget()).await;
            match attempted.verdict {
                Verdict::Done => {
                    let mut settlement = settlement(&self.link, &work, &attempted.rows, origin);
                    addition(&mut settlement);
                    self.link.store.settle(&self.link.scope, settlement).await?;
                    self.learn(&work, &attempted);
                    return Ok(attempted);
                }
                Verdict::Retry(hold) => {
                    if hold.fault.class() == Class::Misconfigured {
                        misconfigured += 1;
                        if misconfigured >= MISCONFIGURED_MAX {
                            return Err(hold.fault.into());
                        }
                    }
                    self.wait(&hold, work.attempt, stop).await?;
                    work.attempt += 1;
                }
            }
        }
    }

    pub(super) async fn wait(
        &self,
        hold: &crate::pipeline::attempt::Hold,
        attempt: u32,
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<(), EngineError> {
        let wait = backoff(hold, attempt);
        self.watcher.event(Event::Notice(format!("{}; next attempt in {:.1} s", hold.fault, wait.as_secs_f64())));
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = stop.cancelled() => Err(EngineError::Stopped),
        }
    }

    fn learn(&self, work: &Work<'_>, attempted: &Attempted) {
        for (map, rows) in learned(work, &attempted.rows) {
            self.link.lookups.learn(&self.link.maps[map].dataverse.table.schema.set, rows);
        }
        for row in &attempted.rows {
            if let (Some(RowFate::Deleted | RowFate::Gone), Some(key)) = (&row.fate, &row.key) {
                self.link.lookups.forget(&self.link.maps[row.map].dataverse.table.schema.set, key);
            }
        }
    }

    /// One attempt at a delivery of the outbox. `None` when it was settled, a wait when it is to be tried again.
    pub(super) async fn deliver(&self, lane: &Lane, delivery: &Delivery) -> Result<Option<Duration>, EngineError> {
        let mut settled = Settlement { delivery: Some((delivery.sequence, Fate::Complete)), ..Settlement::default() };
        let changes = match captured::decode(&delivery.payload) {
            Ok(changes) => changes,
            Err(fault) => {
                // Nothing can be done with it, and it must not block the others; it stays in the activity log.
                settled.activity.push(activity((self.now)(), "delivery-unreadable", &fault));
                self.link.store.settle(&self.link.scope, settled).await?;
                return Ok(None);
            }
        };
        let record = match delivery.retry_of {
            None => None,
            Some(id) => match self.failed_record(id).await? {
                Some(record) => Some(record),
                // A newer change of the record arrived meanwhile and settled it.
                None => {
                    self.link.store.settle(&self.link.scope, settled).await?;
                    return Ok(None);
                }
            },
        };
        let origin = Origin {
            sequence: record.as_ref().map_or(delivery.sequence, |record| record.sequence),
            attempts: record.as_ref().map_or(0, |record| record.attempts),
            now: (self.now)(),
        };
        let work = Work {
            transaction: delivery.transaction,
            source: delivery.source,
            atomic: delivery.atomic,
            changes: &changes,
            attempt: delivery.attempt + 1,
            captured_at: delivery.captured_at,
            order: Some(origin.sequence),
            assume_absent: false,
            only_map: None,
            dry: false,
        };
        let attempted = attempt(&self.link, lane, &work, &self.budget()).await;
        match &attempted.verdict {
            Verdict::Done => {
                let mut settlement = settlement(&self.link, &work, &attempted.rows, origin);
                let failed = attempted.rows.iter().any(|row| matches!(row.fate, Some(RowFate::Failed(_))));
                let fate = if failed { Fate::Failed } else { Fate::Complete };
                settlement.delivery = Some((delivery.sequence, fate));
                if let (Some(record), false) = (&record, failed) {
                    settlement.resolved_ids = self.records_of(record).await?;
                }
                self.link.store.settle(&self.link.scope, settlement).await?;
                self.learn(&work, &attempted);
                self.watcher.event(Event::Settled { rows: changes.len() as u64 });
                Ok(None)
            }
            Verdict::Retry(hold) => {
                let wait = backoff(hold, delivery.attempt + 1);
                let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
                let fate = Fate::Retry { not_before: (self.now)().saturating_add(micros), fault: hold.fault.clone() };
                settled.delivery = Some((delivery.sequence, fate));
                settled.activity.push(activity((self.now)(), "delivery-retried", &hold.fault));
                self.link.store.settle(&self.link.scope, settled).await?;
                self.watcher.event(Event::Notice(format!(
                    "{}; next attempt in {:.1} s",
                    hold.fault,
                    wait.as_secs_f64()
                )));
                Ok(Some(wait))
            }
        }
    }

    async fn failed_record(&self, id: i64) -> Result<Option<FailedRecord>, Fault> {
        let filter = FailedFilter { ids: Some(vec![id]), ..FailedFilter::default() };
        Ok(self.link.store.failed(&self.link.scope, filter).await?.into_iter().next())
    }

    /// The failed records that a successful retry of `record` settles: all of its transaction.
    async fn records_of(&self, record: &FailedRecord) -> Result<Vec<i64>, Fault> {
        if !record.atomic {
            return Ok(vec![record.id]);
        }
        let filter = FailedFilter { map: Some(record.map.clone()), ..FailedFilter::default() };
        let records = self.link.store.failed(&self.link.scope, filter).await?;
        Ok(records.iter().filter(|other| other.transaction == record.transaction).map(|other| other.id).collect())
    }

    /// Tries the records again that wait for a row they refer to, in batches, as long as that helps.
    pub(super) async fn retry_waiting(
        &self,
        map: Option<usize>,
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<u64, EngineError> {
        // A chain of parents longer than this does not occur; a circle would go on for ever.
        const ROUNDS_MAX: usize = 10;
        let mut healed = 0;
        for _ in 0..ROUNDS_MAX {
            let filter = FailedFilter {
                map: map.map(|map| self.link.maps[map].slug.clone()),
                waiting_for_parent: Some(true),
                limit: Some(self.link.limits.batch_rows_max as u32 * 10),
                ..FailedFilter::default()
            };
            let records = self.link.store.failed(&self.link.scope, filter).await?;
            let mut round = 0;
            let batches = records.iter().filter(|record| !record.atomic).collect::<Vec<_>>();
            for same in batches.chunk_by(|a, b| a.map == b.map && a.source == b.source) {
                for chunk in same.chunks(self.link.limits.batch_rows_max) {
                    round += self.retry_chunk(chunk, stop).await?;
                }
            }
            for record in records.iter().filter(|record| record.atomic) {
                self.link.store.requeue(&self.link.scope, &[record.id], (self.now)()).await?;
            }
            healed += round;
            if round == 0 {
                break;
            }
        }
        Ok(healed)
    }

    async fn retry_chunk(
        &self,
        chunk: &[&FailedRecord],
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<u64, EngineError> {
        let Some(first) = chunk.first() else { return Ok(0) };
        let mut changes = Vec::with_capacity(chunk.len());
        for record in chunk {
            changes.extend(captured::decode(&record.payload)?);
        }
        let sequence = chunk.iter().map(|record| record.sequence).min().unwrap_or_default();
        let origin = Origin {
            sequence,
            attempts: chunk.iter().map(|record| record.attempts).max().unwrap_or_default(),
            now: (self.now)(),
        };
        let work = Work {
            transaction: dualwright_core::TransactionId(uuid::Uuid::now_v7()),
            source: first.source,
            atomic: false,
            changes: &changes,
            attempt: 1,
            captured_at: first.first_at,
            order: Some(sequence),
            assume_absent: false,
            only_map: self.link.maps.iter().position(|map| map.slug == first.map),
            dry: false,
        };
        let attempted = self.carry(&self.lanes[0], work, origin, &|_| {}, stop).await?;
        let through = attempted
            .rows
            .iter()
            .filter(|row| !matches!(&row.fate, Some(RowFate::Failed(fault)) if fault.code == Code::LookupNotFound));
        Ok(through.count() as u64)
    }
}

fn activity(at: i64, kind: &'static str, fault: &Fault) -> NewActivity {
    NewActivity { at, map: None, kind, text: fault.to_string() }
}
