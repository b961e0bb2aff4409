//! One delivery or one batch: attempted until it has its fate, and settled.

use std::collections::HashSet;
use std::future::Future;
use std::time::Instant;

use dualwright_core::{Class, Fault, SystemKind, Value};

use super::progress::Event;
use super::{Engine, EngineError, backoff};
use crate::pipeline::settle::{Origin, learned, settlement};
use crate::pipeline::{Attempted, Budget, Lane, LinkMap, RowFate, RowWork, Verdict, Work, attempt, captured};
use crate::store::{Delivery, FailedFilter, FailedRecord, Fate, NewActivity, Settlement};

/// What one attempt at a delivery of the outbox came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// Settled; some row of it changed the target, so rows that waited for a parent may find it now.
    Progress,
    /// Settled, and nothing changed.
    Nothing,
    /// To be tried again.
    Waits,
}

impl Engine {
    fn budget(&self) -> Budget {
        Budget::new(Instant::now(), self.link.limits.transaction_budget, self.link.limits.write_reserve)
    }

    /// Carries over a batch that is not in the outbox (initial sync, a second try), again and again until every row has
    /// its fate. Nothing is kept of it before [`Self::keep`].
    pub(super) async fn carry(
        &self,
        lane: &Lane,
        mut work: Work<'_>,
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<Attempted, EngineError> {
        // A misconfiguration may be cured while we wait (a role given, a secret renewed), but not for ever.
        const MISCONFIGURED_MAX: u32 = 3;
        let mut misconfigured = 0;
        loop {
            let attempted = attempt(&self.link, lane, &work, &self.budget()).await;
            match attempted.verdict {
                Verdict::Done => {
                    self.doubt_refusals(&attempted);
                    return Ok(attempted);
                }
                Verdict::Retry(hold) => {
                    self.doubt(&hold.fault);
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

    /// Settles a batch that was carried over, together with what `addition` adds.
    pub(super) async fn keep(
        &self,
        work: &Work<'_>,
        attempted: &Attempted,
        origin: Origin,
        addition: impl FnOnce(&mut Settlement),
    ) -> Result<(), EngineError> {
        let mut settlement = settlement(&self.link, work, &attempted.rows, origin);
        addition(&mut settlement);
        self.link.store.settle(&self.link.scope, settlement).await?;
        self.learn(work, attempted);
        Ok(())
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
        let referred_to = |map: usize| self.link.tables.contains_key(&self.link.maps[map].dataverse.table.schema.set);
        for (map, rows) in learned(work, &attempted.rows, &referred_to) {
            self.link.lookups.learn(&self.link.maps[map].dataverse.table.schema.set, rows);
        }
        for row in &attempted.rows {
            if let (Some(RowFate::Deleted | RowFate::Gone), Some(key)) = (&row.fate, &row.key) {
                self.link.lookups.forget(&self.link.maps[row.map].dataverse.table.schema.set, key);
            }
        }
    }

    fn doubt_refusals(&self, attempted: &Attempted) {
        for row in &attempted.rows {
            if let Some(RowFate::Failed(fault)) = &row.fate {
                self.doubt(fault);
            }
        }
    }

    /// Asks a system until it answers, as long as only a passing fault keeps it from answering.
    pub(super) async fn persist<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        stop: &tokio_util::sync::CancellationToken,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, EngineError> {
        let mut attempt = 0;
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(fault) if fault.class() == Class::Transient => {
                    attempt += 1;
                    self.wait(&fault.into(), attempt, stop).await?;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Asks a system again a few times: for what a person waits for, and may ask for again.
    pub(super) async fn patiently<T, F: Future<Output = Result<T, EngineError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, EngineError> {
        // With the waits between, about a minute and a half.
        const ATTEMPTS_MAX: u32 = 10;
        let never = tokio_util::sync::CancellationToken::new();
        let mut attempt = 1;
        loop {
            match ask().await {
                Err(EngineError::Fault(fault)) if fault.class() == Class::Transient && attempt < ATTEMPTS_MAX => {
                    self.wait(&fault.into(), attempt, &never).await?;
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    /// One attempt at a delivery of the outbox.
    pub(super) async fn deliver(&self, lane: &Lane, delivery: &Delivery) -> Result<Delivered, EngineError> {
        // Live sync carries one delivery at a time, so what was taken before is in the store.
        self.link.claims.settled();
        let mut settled = Settlement { delivery: Some((delivery.sequence, Fate::Complete)), ..Settlement::default() };
        let changes = match captured::decode(&delivery.payload) {
            Ok(changes) => changes,
            Err(fault) => {
                // Nothing can be done with it, and it must not block the others; it stays in the activity log.
                settled.activity.push(activity((self.now)(), "delivery-unreadable", &fault));
                self.link.store.settle(&self.link.scope, settled).await?;
                return Ok(Delivered::Nothing);
            }
        };
        let record = match delivery.retry_of {
            None => None,
            Some(id) => match self.failed_record(id).await? {
                Some(record) => Some(record),
                // A newer change of the record arrived meanwhile and settled it.
                None => {
                    self.link.store.settle(&self.link.scope, settled).await?;
                    return Ok(Delivered::Nothing);
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
            never_paired: false,
            only_map: None,
            again: record.is_some(),
            dry: false,
        };
        let attempted = attempt(&self.link, lane, &work, &self.budget()).await;
        match &attempted.verdict {
            Verdict::Done => {
                let mut settlement = settlement(&self.link, &work, &attempted.rows, origin);
                let failed = attempted.rows.iter().any(still_fails);
                let fate = if failed { Fate::Failed } else { Fate::Complete };
                settlement.delivery = Some((delivery.sequence, fate));
                settlement.resolved_ids = self.ended_without_key(delivery.source, &attempted).await?;
                if let (Some(record), false) = (&record, failed) {
                    settlement.resolved_ids.extend(self.records_of(record).await?);
                }
                self.link.store.settle(&self.link.scope, settlement).await?;
                self.learn(&work, &attempted);
                self.doubt_refusals(&attempted);
                self.watcher.event(Event::Settled { rows: changes.len() as u64 });
                let progress = attempted.rows.iter().any(changed_target);
                Ok(if progress { Delivered::Progress } else { Delivered::Nothing })
            }
            Verdict::Retry(hold) => {
                self.doubt(&hold.fault);
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
                Ok(Delivered::Waits)
            }
        }
    }

    /// Failed records that no key can close and that this attempt has settled all the same: of a Dataverse row that is
    /// gone (its delete says nothing but the id) or whose key is complete now, of an F&O row that was deleted.
    async fn ended_without_key(&self, source: SystemKind, attempted: &Attempted) -> Result<Vec<i64>, Fault> {
        let filter = FailedFilter { source: Some(source), ..FailedFilter::default() };
        if self.link.store.failed_count(&self.link.scope, filter.clone()).await? == 0 {
            return Ok(Vec::new());
        }
        let settled = attempted.rows.iter().filter(|row| settles(row)).collect::<Vec<_>>();
        let ids = settled.iter().filter_map(|row| row.source_id).collect::<HashSet<_>>();
        let names = settled.iter().filter_map(|row| row.called.as_deref()).collect::<HashSet<_>>();
        if ids.is_empty() && names.is_empty() {
            return Ok(Vec::new());
        }
        let mut ended = Vec::new();
        for record in self.link.store.failed(&self.link.scope, filter).await?.iter().filter(|record| !record.atomic) {
            let Some(map) = self.link.maps.iter().find(|map| map.slug == record.map) else { continue };
            let by_name = record.row_key.is_none() && names.contains(&*record.key);
            if by_name || (source == SystemKind::Dataverse && self.is_of(record, map, &ids)) {
                ended.push(record.id);
            }
        }
        Ok(ended)
    }

    /// Whether a record is of one of these Dataverse rows.
    fn is_of(&self, record: &FailedRecord, map: &LinkMap, ids: &HashSet<uuid::Uuid>) -> bool {
        let table = &map.dataverse.table;
        let changes = captured::decode(&record.payload).unwrap_or_default();
        changes.iter().any(|change| {
            let row = change.row.as_ref().and_then(|row| table.shape.decode(row.get()).ok());
            let id = row.zip(table.schema.primary_id).map(|(row, index)| row.values[index].clone());
            matches!(id, Some(Value::Guid(id)) if ids.contains(&id))
        })
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
            // One sequence per batch, since an old change must not be taken for a newer one.
            for same in batches.chunk_by(|a, b| a.map == b.map && a.source == b.source && a.sequence == b.sequence) {
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
            never_paired: false,
            only_map: self.link.maps.iter().position(|map| map.slug == first.map),
            again: true,
            dry: false,
        };
        let attempted = self.carry(&self.lanes[0], work.clone(), stop).await?;
        // A record that is not of a transaction holds exactly one change, so its position names it.
        let fails = |position| attempted.rows.iter().any(|row| row.change == position && still_fails(row));
        let closed = chunk.iter().enumerate().filter(|(position, _)| !fails(*position)).map(|(_, record)| record.id);
        self.keep(&work, &attempted, origin, |settlement| settlement.resolved_ids.extend(closed)).await?;
        Ok(attempted.rows.iter().filter(|row| changed_target(row)).count() as u64)
    }
}

fn still_fails(row: &RowWork) -> bool {
    row.complaint.is_some() || matches!(row.fate, Some(RowFate::Failed(_)))
}

fn settles(row: &RowWork) -> bool {
    use RowFate::{Created, Deleted, Equal, Gone, Updated};
    row.complaint.is_none() && matches!(row.fate, Some(Created | Updated | Deleted | Equal | Gone))
}

fn changed_target(row: &RowWork) -> bool {
    matches!(row.fate, Some(RowFate::Created | RowFate::Updated | RowFate::Deleted))
}

fn activity(at: i64, kind: &'static str, fault: &Fault) -> NewActivity {
    NewActivity { at, map: None, kind, text: fault.to_string() }
}
