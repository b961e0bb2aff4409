//! The one thread that writes. It commits in groups: what is queued when it looks becomes one transaction, so many
//! callers share one fsync and none of them waits for a timer.
//!
//! Each request stands in a savepoint of its own and fails alone. Answers go out after the commit, so an `Ok` is on
//! the disk. A request whose caller has gone away is carried out all the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use dualwright_core::Fault;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::folder::Lock;
use super::sql::{Failure, failed};

/// Requests of one commit. At a thousand rows each this is a second of work, and more gain nothing: the fsync is
/// shared by hundreds already.
pub(super) const GROUP_MAX: usize = 256;

/// Requests that wait before callers have to.
const QUEUE_MAX: usize = 1_024;

/// Carries itself out, or learns why it cannot be.
type Request = Box<dyn FnOnce(Result<&Connection, Fault>) -> Outcome + Send>;

/// A request that was carried out or refused, and the way to its caller.
struct Outcome {
    stands: bool,
    /// Told whether the group was committed.
    answer: Box<dyn FnOnce(Result<(), Fault>)>,
}

#[derive(Debug)]
pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    commits: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn start(connection: Connection, lock: Option<Lock>) -> Result<Self, Fault> {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let commits = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&commits);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(connection, lock, requests, &count))
            .map_err(|error| failed(format!("the store's writer cannot be started: {error}")))?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)), commits })
    }

    /// Carries out `work` and commits it, together with whatever else is queued.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Fault> {
        let closed = || failed(format!("{name}: the store is closed"));
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (reply, answered) = oneshot::channel();
        let request: Request = Box::new(move |connection| {
            let result = connection.and_then(|connection| work(connection).map_err(|failure| failure.into_fault(name)));
            Outcome {
                stands: result.is_ok(),
                answer: Box::new(move |committed| {
                    // Nobody may be waiting any more, which is their business.
                    let _ = reply.send(committed.and(result));
                }),
            }
        });
        queue.ok_or_else(closed)?.send(request).await.map_err(|_| closed())?;
        answered.await.map_err(|_| failed(format!("{name}: the store's writer has ended")))?
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Finishes what is queued and ends the thread.
    pub(super) async fn close(&self) {
        if let Some(thread) = self.hang_up() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    fn hang_up(&self) -> Option<JoinHandle<()>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Writer {
    /// Waits for the thread, so that the folder is free when the store is gone.
    fn drop(&mut self) {
        if let Some(thread) = self.hang_up() {
            let _ = thread.join();
        }
    }
}

fn serve(connection: Connection, lock: Option<Lock>, mut requests: mpsc::Receiver<Request>, commits: &AtomicU64) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while let Some(first) = requests.blocking_recv() {
        group.push(first);
        while group.len() < GROUP_MAX
            && let Ok(next) = requests.try_recv()
        {
            group.push(next);
        }
        let mut outcomes = Vec::with_capacity(group.len());
        let committed = carry_out(&connection, group.drain(..), &mut outcomes, commits);
        if let Err(fault) = &committed {
            tracing::error!(requests = outcomes.len(), "{fault}");
        }
        for outcome in outcomes {
            (outcome.answer)(committed.clone());
        }
    }
    // A log that cannot be folded back now is folded back at the next start.
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(())) {
        tracing::warn!("the store's log stays as it is: {error}");
    }
    // The lock last: whoever has it finds a file that nobody else writes.
    drop(connection);
    drop(lock);
}

/// One transaction for all of `group`. Every request ends in `outcomes`, whatever happens.
fn carry_out(
    connection: &Connection,
    group: impl Iterator<Item = Request>,
    outcomes: &mut Vec<Outcome>,
    commits: &AtomicU64,
) -> Result<(), Fault> {
    let fault = |what: &str, error: &rusqlite::Error| failed(format!("the store could not {what}: {error}"));
    let mut broken = connection.execute_batch("BEGIN IMMEDIATE").err().map(|error| fault("begin to write", &error));
    for request in group {
        let outcome = match &broken {
            Some(fault) => request(Err(fault.clone())),
            None => {
                let (outcome, error) = in_savepoint(connection, request);
                broken = error.map(|error| fault("keep a request apart from the others", &error));
                outcome
            }
        };
        outcomes.push(outcome);
    }
    let committed = match broken {
        Some(fault) => Err(fault),
        None if outcomes.iter().any(|outcome| outcome.stands) => {
            connection.execute_batch("COMMIT").map_err(|error| fault("commit", &error))
        }
        None => connection.execute_batch("ROLLBACK").map_err(|error| fault("roll back", &error)),
    };
    if committed.is_ok() {
        commits.fetch_add(u64::from(outcomes.iter().any(|outcome| outcome.stands)), Ordering::Relaxed);
    } else if !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    committed
}

/// The error is one that ends the group: a full disk, for instance, makes SQLite roll back all of the transaction.
fn in_savepoint(connection: &Connection, request: Request) -> (Outcome, Option<rusqlite::Error>) {
    if let Err(error) = connection.execute_batch("SAVEPOINT request") {
        return (request(Err(failed(format!("the store could not set a savepoint: {error}")))), Some(error));
    }
    let outcome = request(Ok(connection));
    let end = if outcome.stands { "RELEASE request" } else { "ROLLBACK TO request; RELEASE request" };
    let error = connection.execute_batch(end).err();
    (outcome, error)
}
