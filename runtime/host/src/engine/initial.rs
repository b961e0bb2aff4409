//! Initial sync: every row of a map's F&O entity, page by page, several pages at a time.
//!
//! The place reached is kept with the rows of each page in one store transaction. A page that is repeated after a
//! crash has the same transaction id, so its receipt tells what was applied already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dualwright_core::{Fault, Operation, SystemKind, TransactionId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::progress::Event;
use super::{Engine, EngineError};
use crate::connect::RawRow;
use crate::pipeline::settle::{Origin, page_transaction};
use crate::pipeline::{Attempted, CapturedChange, Lane, LinkMap, Role, Work};
use crate::store::{Scope, Store};

/// One page takes seconds at most; more means that the system does not answer.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// How far the initial sync of a map is: all pages before `page` are settled.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Position {
    run: Uuid,
    started_at: i64,
    page: u64,
    /// Link of that page; none for the first.
    next: Option<String>,
    done: bool,
    /// The target had no row when the run began, so rows are created without a look first.
    target_was_empty: bool,
    /// The legal entities that the run carries over; `None` where rows belong to none, or where it was not kept yet.
    #[serde(default)]
    companies: Option<BTreeSet<String>>,
    /// Those that earlier runs carried over.
    #[serde(default)]
    companies_before: BTreeSet<String>,
}

/// What is left to do once a run is done.
#[derive(Debug)]
enum After {
    Nothing,
    /// The list of legal entities is another one now, and the rows of all of them are there.
    Noted(Position),
    /// Legal entities were added.
    Run(Position),
}

impl Position {
    /// Compares the legal entities whose rows were carried over with those that the map carries now. One that was taken
    /// off the list is forgotten, so that it is carried over as a whole when it is added again.
    fn after(&self, wanted: Option<&BTreeSet<String>>, now: i64) -> After {
        let Some(wanted) = wanted else { return After::Nothing };
        let noted = |companies| Self {
            companies: Some(companies),
            companies_before: BTreeSet::new(),
            done: true,
            next: None,
            ..self.clone()
        };
        let Some(own) = &self.companies else { return After::Noted(noted(wanted.clone())) };
        let carried = own.union(&self.companies_before).cloned().collect::<BTreeSet<_>>();
        if carried == *wanted {
            return After::Nothing;
        }
        let kept = carried.intersection(wanted).cloned().collect::<BTreeSet<_>>();
        if kept == *wanted {
            return After::Noted(noted(kept));
        }
        After::Run(Self {
            run: Uuid::now_v7(),
            started_at: now,
            page: 0,
            next: None,
            done: false,
            target_was_empty: false,
            companies: Some(wanted.difference(&kept).cloned().collect()),
            companies_before: kept,
        })
    }
}

/// The position of a map that is to be read once more, from its beginning.
pub(super) fn anew(now: i64) -> String {
    let run = Uuid::now_v7();
    encode(&Position {
        run,
        started_at: now,
        page: 0,
        next: None,
        done: false,
        target_was_empty: false,
        companies: None,
        companies_before: BTreeSet::new(),
    })
}

/// Pages that were read and are not settled, and where each begins.
#[derive(Debug, Default)]
struct Open {
    pages: BTreeMap<u64, Option<String>>,
    /// Number and link of the page that is read next.
    upcoming: (u64, Option<String>),
}

impl Open {
    /// The first page that is not settled when `page` is. Another page that is being settled may stay unsettled, so it
    /// counts.
    fn first_unsettled_after(&self, page: u64) -> (u64, Option<String>) {
        let first = self.pages.iter().find(|(open, _)| **open != page);
        first.map_or_else(|| self.upcoming.clone(), |(page, link)| (*page, link.clone()))
    }
}

struct ReadPage {
    number: u64,
    rows: Vec<RawRow>,
}

/// A page that was written and is not settled yet.
struct CarriedPage {
    number: u64,
    changes: Vec<CapturedChange>,
    attempted: Attempted,
}

/// Whether the store knows of an initial sync of the map that came to its end.
pub(crate) async fn has_had_initial_sync(store: &Store, scope: &Scope, map: &str) -> Result<bool, Fault> {
    let position = store.cursor(scope, &job_of(map)).await?;
    // A position that cannot be read is the next start's to report.
    let position = position.and_then(|text| serde_json::from_str::<Position>(&text).ok());
    Ok(position.is_some_and(|position| position.done))
}

/// The job under which the store keeps how far a map is.
pub(super) fn job_of(map: &str) -> String {
    format!("initial-sync/{map}")
}

impl Engine {
    /// Initial sync of every map that has not had it, parents first.
    pub async fn initial_sync(&self, stop: &CancellationToken) -> Result<(), EngineError> {
        for (index, map) in self.link.maps.iter().enumerate() {
            // Once more where legal entities were added while a run was under way.
            while map.reads_finops() && self.initial_sync_map(index, map, stop).await? {}
        }
        // A circle of lookups leaves rows that wait for rows of a later map.
        self.retry_waiting(None, stop).await?;
        Ok(())
    }

    /// Whether there was something to do.
    async fn initial_sync_map(
        &self,
        index: usize,
        map: &LinkMap,
        stop: &CancellationToken,
    ) -> Result<bool, EngineError> {
        let job = job_of(&map.slug);
        let companies = self.link.companies_of(map);
        let (mut position, begins) = match self.link.store.cursor(&self.link.scope, &job).await? {
            Some(text) => (decode(&job, &text)?, false),
            None => (self.beginning(map, companies.clone(), stop).await?, true),
        };
        if position.done {
            match position.after(companies.as_ref(), (self.now)()) {
                After::Nothing => return Ok(false),
                After::Noted(noted) => {
                    self.keep_position(&job, &noted).await?;
                    return Ok(false);
                }
                After::Run(next) => position = next,
            }
        }
        let filter = self.link.finops_query_of(map, position.companies.as_ref());
        let rows_expected =
            self.link.finops.count(&map.finops.table, filter.as_deref(), PAGE_TIMEOUT).await.ok().flatten();
        self.watcher.event(Event::MapStarted { map: map.slug.clone(), rows_expected });

        // The rows that a table map's plugin makes are paired by other maps, and placeholders before their rows come.
        let has_placeholders = self.link.maps.iter().any(|map| !map.placeholders.is_empty());
        let may_be_new = begins && map.role == Role::Ordinary && !has_placeholders;
        let never_paired = may_be_new && !self.link.store.has_cross_references(&self.link.scope, &map.slug).await?;
        let run = Arc::new(Run {
            engine: self.clone(),
            map: index,
            open: Mutex::new(Open { pages: BTreeMap::new(), upcoming: (position.page, position.next.clone()) }),
            never_paired,
            position: position.clone(),
            job: job.clone(),
            stop: stop.clone(),
        });
        let (send, receive) = mpsc::channel::<ReadPage>(self.lanes.len());
        let receive = Arc::new(tokio::sync::Mutex::new(receive));
        let mut lanes = JoinSet::new();
        for lane in 0..self.lanes.len() {
            lanes.spawn(Arc::clone(&run).carry_pages(lane, Arc::clone(&receive)));
        }
        drop(receive);
        let work = async {
            let mut worked = Ok(());
            while worked.is_ok()
                && let Some(ended) = lanes.join_next().await
            {
                worked = joined(ended);
            }
            // Where one has failed the others end too, and the reader must not wait for them.
            lanes.shutdown().await;
            worked
        };
        let (read, worked) = tokio::join!(run.read_pages(filter.as_deref(), send), work);
        // The lane's reason first: a reader whose receivers are gone only says that they are gone.
        worked?;
        read?;
        self.link.claims.settled();
        self.retry_waiting(Some(index), stop).await?;
        let done = Position { done: true, ..position };
        self.keep_position(&job, &done).await?;
        self.watcher.event(Event::MapFinished { map: map.slug.clone() });
        Ok(true)
    }

    async fn keep_position(&self, job: &str, position: &Position) -> Result<(), EngineError> {
        let cursor = Some((job.to_owned(), encode(position)));
        let settlement = crate::store::Settlement { cursor, ..crate::store::Settlement::default() };
        Ok(self.link.store.settle(&self.link.scope, settlement).await?)
    }

    /// Where a map begins that has had nothing of its initial sync.
    async fn beginning(
        &self,
        map: &LinkMap,
        companies: Option<BTreeSet<String>>,
        stop: &CancellationToken,
    ) -> Result<Position, EngineError> {
        // The targets of a table map are several, and of each row it is not known which it gives.
        let probe = || self.link.dataverse.probe_empty(&map.dataverse.table, PAGE_TIMEOUT);
        let target_was_empty = map.role == Role::Ordinary && self.persist(stop, probe).await?;
        Ok(Position {
            run: Uuid::now_v7(),
            started_at: (self.now)(),
            page: 0,
            next: None,
            done: false,
            target_was_empty,
            companies,
            companies_before: BTreeSet::new(),
        })
    }
}

/// The initial sync of one map, shared by its tasks.
struct Run {
    engine: Engine,
    /// Index of the map.
    map: usize,
    job: String,
    position: Position,
    /// No row of the map had a pair when the run began.
    never_paired: bool,
    open: Mutex<Open>,
    stop: CancellationToken,
}

impl Run {
    fn map(&self) -> &LinkMap {
        &self.engine.link.maps[self.map]
    }

    async fn read_pages(&self, filter: Option<&str>, send: mpsc::Sender<ReadPage>) -> Result<(), EngineError> {
        loop {
            let (number, link) = lock(&self.open).upcoming.clone();
            let page = self.read_page(filter, link.as_deref()).await?;
            let last = page.next.is_none();
            {
                let mut open = lock(&self.open);
                open.pages.insert(number, link);
                open.upcoming = (number + 1, page.next);
            }
            if send.send(ReadPage { number, rows: page.rows }).await.is_err() || last {
                return Ok(());
            }
        }
    }

    async fn read_page(&self, filter: Option<&str>, link: Option<&str>) -> Result<crate::connect::Page, EngineError> {
        let (finops, table) = (&self.engine.link.finops, &self.map().finops.table);
        let rows_max = self.engine.link.limits.batch_rows_max;
        self.engine.persist(&self.stop, || finops.read_page(table, filter, link, rows_max, PAGE_TIMEOUT)).await
    }

    /// Works in one lane until there are no more pages. While the store settles a page, the next one is under way; it is
    /// not settled before that one, so a lane never leaves more than two behind.
    async fn carry_pages(
        self: Arc<Self>,
        lane: usize,
        pages: Arc<tokio::sync::Mutex<mpsc::Receiver<ReadPage>>>,
    ) -> Result<(), EngineError> {
        let mut settling = JoinSet::new();
        loop {
            let page = pages.lock().await.recv().await;
            let carried = match page {
                Some(page) => Some(self.carry_page(&self.engine.lanes[lane], page).await?),
                None => None,
            };
            if let Some(settled) = settling.join_next().await {
                joined(settled)?;
            }
            let Some(carried) = carried else { return Ok(()) };
            settling.spawn(Arc::clone(&self).settle_page(carried));
        }
    }

    async fn carry_page(&self, lane: &Lane, page: ReadPage) -> Result<CarriedPage, EngineError> {
        if self.stop.is_cancelled() {
            return Err(EngineError::Stopped);
        }
        let set = &self.map().finops.table.schema.set;
        let changes = page
            .rows
            .into_iter()
            .map(|row| CapturedChange {
                set: Arc::clone(set),
                operation: Operation::Upsert,
                id: None,
                row: Some(row.json),
                origin: None,
            })
            .collect::<Vec<_>>();
        let attempted = self.engine.carry(lane, self.work(page.number, &changes), &self.stop).await?;
        Ok(CarriedPage { number: page.number, changes, attempted })
    }

    async fn settle_page(self: Arc<Self>, page: CarriedPage) -> Result<(), EngineError> {
        let work = self.work(page.number, &page.changes);
        let origin = Origin { sequence: 0, attempts: 0, now: (self.engine.now)() };
        let reached = |settlement: &mut crate::store::Settlement| {
            let (page, next) = lock(&self.open).first_unsettled_after(page.number);
            let position = Position { page, next, ..self.position.clone() };
            settlement.cursor = Some((self.job.clone(), encode(&position)));
        };
        self.engine.keep(&work, &page.attempted, origin, reached).await?;
        lock(&self.open).pages.remove(&page.number);
        self.engine.keep_plugin_timings_at_times().await?;
        let rows = page.changes.len() as u64;
        self.engine.watcher.event(Event::RowsDone { map: self.map().slug.clone(), rows });
        Ok(())
    }

    fn work<'a>(&self, page: u64, changes: &'a [CapturedChange]) -> Work<'a> {
        Work {
            transaction: page_transaction(TransactionId(self.position.run), &self.map().slug, page),
            source: SystemKind::Finops,
            atomic: false,
            changes,
            attempt: 1,
            captured_at: self.position.started_at,
            order: None,
            assume_absent: self.position.target_was_empty,
            never_paired: self.never_paired,
            only_map: Some(self.map),
            again: false,
            dry: false,
        }
    }
}

/// What a task came to.
fn joined(ended: Result<Result<(), EngineError>, JoinError>) -> Result<(), EngineError> {
    match ended {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(EngineError::Stopped),
        },
    }
}

fn decode(job: &str, position: &str) -> Result<Position, EngineError> {
    serde_json::from_str(position).map_err(|error| {
        let what = format!("the position of {job} cannot be read: {error}");
        dualwright_core::Fault::new(dualwright_core::Code::StoreFailed, what).into()
    })
}

fn encode(position: &Position) -> String {
    serde_json::to_string(position).expect("a position holds only strings and numbers")
}

fn lock(open: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_entities_that_were_added_are_carried_over_and_those_taken_off_forgotten() {
        let set = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        let done = |own: Option<&str>, before: &str| Position {
            run: Uuid::nil(),
            started_at: 0,
            page: 7,
            next: None,
            done: true,
            target_was_empty: true,
            companies: own.map(set),
            companies_before: set(before),
        };
        for (own, before, wanted, after) in [
            (Some("usmf"), "", Some("usmf"), "nothing"),
            (Some("usmf"), "demf", Some("usmf demf"), "nothing"),
            (Some("usmf"), "", None, "nothing"),
            (None, "", None, "nothing"),
            // A position from before companies were kept stands for those of now.
            (None, "", Some("usmf demf"), "noted demf usmf"),
            (Some("usmf demf"), "", Some("usmf"), "noted usmf"),
            (Some("usmf"), "", Some("usmf demf"), "run demf after usmf"),
            (Some("demf"), "usmf", Some("usmf gbsi"), "run gbsi after usmf"),
            (Some("usmf"), "", Some("demf"), "run demf after "),
        ] {
            let shown = |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            let said = match done(own, before).after(wanted.map(set).as_ref(), 9) {
                After::Nothing => "nothing".to_owned(),
                After::Noted(noted) => {
                    assert!(noted.done && noted.companies_before.is_empty());
                    format!("noted {}", shown(noted.companies.as_ref().expect("noted")))
                }
                After::Run(run) => {
                    assert!(!run.done && run.page == 0 && run.started_at == 9 && !run.target_was_empty);
                    let (own, before) = (run.companies.expect("its companies"), run.companies_before);
                    format!("run {} after {}", shown(&own), shown(&before))
                }
            };
            assert_eq!(said, after, "{own:?} {before} {wanted:?}");
        }
    }

    #[test]
    fn the_place_kept_is_the_first_page_that_is_not_settled() {
        let link = |number: u64| Some(format!("link-{number}"));
        let mut open = Open { pages: BTreeMap::new(), upcoming: (4, link(4)) };
        open.pages.insert(2, link(2));
        open.pages.insert(3, link(3));
        // Both are being settled, and either may be the only one that is when the runtime is killed.
        assert_eq!(open.first_unsettled_after(2), (3, link(3)));
        assert_eq!(open.first_unsettled_after(3), (2, link(2)));
        open.pages.remove(&2);
        assert_eq!(open.first_unsettled_after(3), (4, link(4)));
    }
}
