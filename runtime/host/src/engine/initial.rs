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
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::progress::Event;
use super::{Engine, EngineError};
use crate::connect::RawRow;
use crate::pipeline::settle::{Origin, page_transaction};
use crate::pipeline::{CapturedChange, LinkMap, Role, Work};
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

/// Pages under way, and where each begins.
#[derive(Debug, Default)]
struct Open {
    pages: BTreeMap<u64, Option<String>>,
    /// Number and link of the page that is read next.
    upcoming: (u64, Option<String>),
}

impl Open {
    fn first_unsettled(&self) -> (u64, Option<String>) {
        self.pages.first_key_value().map_or_else(|| self.upcoming.clone(), |(page, link)| (*page, link.clone()))
    }
}

struct ReadPage {
    number: u64,
    rows: Vec<RawRow>,
}

/// Whether the store knows of an initial sync of the map that came to its end.
pub(crate) async fn has_had_initial_sync(store: &Store, scope: &Scope, map: &str) -> Result<bool, Fault> {
    let position = store.cursor(scope, &job_of(map)).await?;
    // A position that cannot be read is the next start's to report.
    let position = position.and_then(|text| serde_json::from_str::<Position>(&text).ok());
    Ok(position.is_some_and(|position| position.done))
}

/// The job under which the store keeps how far a map is.
fn job_of(map: &str) -> String {
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
        let mut position: Position = match self.link.store.cursor(&self.link.scope, &job).await? {
            Some(text) => serde_json::from_str(&text).map_err(|error| {
                dualwright_core::Fault::new(
                    dualwright_core::Code::StoreFailed,
                    format!("the position of {job} cannot be read: {error}"),
                )
            })?,
            None => Position {
                run: Uuid::now_v7(),
                started_at: (self.now)(),
                page: 0,
                next: None,
                done: false,
                // The targets of a table map are several, and of each row it is not known which it gives.
                target_was_empty: map.role == Role::Ordinary
                    && self
                        .persist(stop, || self.link.dataverse.probe_empty(&map.dataverse.table, PAGE_TIMEOUT))
                        .await?,
                companies: companies.clone(),
                companies_before: BTreeSet::new(),
            },
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

        let open =
            Arc::new(Mutex::new(Open { pages: BTreeMap::new(), upcoming: (position.page, position.next.clone()) }));
        let (send, receive) = mpsc::channel::<ReadPage>(self.lanes.len());
        let receive = tokio::sync::Mutex::new(receive);
        let reader = self.read_pages(map, filter.as_deref(), &open, send, stop);
        let workers = self.lanes.iter().map(|lane| {
            let (open, receive, position, job) = (&open, &receive, &position, &job);
            async move {
                loop {
                    let page = receive.lock().await.recv().await;
                    let Some(page) = page else { return Ok::<(), EngineError>(()) };
                    self.carry_page(index, map, lane, page, position, job, open, stop).await?;
                }
            }
        });
        let work = async {
            let worked = futures_util::future::try_join_all(workers).await;
            // Whatever ended the workers, the reader must not wait for them.
            receive.lock().await.close();
            worked
        };
        let (read, worked) = tokio::join!(reader, work);
        // The worker's reason first: a reader whose receivers are gone only says that they are gone.
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

    async fn read_pages(
        &self,
        map: &LinkMap,
        filter: Option<&str>,
        open: &Mutex<Open>,
        send: mpsc::Sender<ReadPage>,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        loop {
            let (number, link) = lock(open).upcoming.clone();
            let page = self.read_page(map, filter, link.as_deref(), stop).await?;
            let last = page.next.is_none();
            {
                let mut open = lock(open);
                open.pages.insert(number, link);
                open.upcoming = (number + 1, page.next);
            }
            if send.send(ReadPage { number, rows: page.rows }).await.is_err() || last {
                return Ok(());
            }
        }
    }

    async fn read_page(
        &self,
        map: &LinkMap,
        filter: Option<&str>,
        link: Option<&str>,
        stop: &CancellationToken,
    ) -> Result<crate::connect::Page, EngineError> {
        let rows_max = self.link.limits.batch_rows_max;
        self.persist(stop, || self.link.finops.read_page(&map.finops.table, filter, link, rows_max, PAGE_TIMEOUT)).await
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one loop body")]
    async fn carry_page(
        &self,
        index: usize,
        map: &LinkMap,
        lane: &crate::pipeline::Lane,
        page: ReadPage,
        position: &Position,
        job: &str,
        open: &Mutex<Open>,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        if stop.is_cancelled() {
            return Err(EngineError::Stopped);
        }
        let rows = page.rows.len() as u64;
        let set = &map.finops.table.schema.set;
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
        let work = Work {
            transaction: page_transaction(TransactionId(position.run), &map.slug, page.number),
            source: SystemKind::Finops,
            atomic: false,
            changes: &changes,
            attempt: 1,
            captured_at: position.started_at,
            order: None,
            assume_absent: position.target_was_empty,
            only_map: Some(index),
            again: false,
            dry: false,
        };
        let origin = Origin { sequence: 0, attempts: 0, now: (self.now)() };
        let addition = |settlement: &mut crate::store::Settlement, _: &[crate::pipeline::RowWork]| {
            let mut open = lock(open);
            open.pages.remove(&page.number);
            let (page, next) = open.first_unsettled();
            settlement.cursor = Some((job.to_owned(), encode(&Position { page, next, ..position.clone() })));
        };
        self.carry(lane, work, origin, &addition, stop).await?;
        self.keep_plugin_timings_at_times().await?;
        self.watcher.event(Event::RowsDone { map: map.slug.clone(), rows });
        Ok(())
    }
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
        assert_eq!(open.first_unsettled(), (4, link(4)));
        open.pages.insert(2, link(2));
        open.pages.insert(3, link(3));
        assert_eq!(open.first_unsettled(), (2, link(2)));
        open.pages.remove(&2);
        assert_eq!(open.first_unsettled(), (3, link(3)));
        open.pages.remove(&3);
        assert_eq!(open.first_unsettled(), (4, link(4)));
    }
}
