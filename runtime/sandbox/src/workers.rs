//! The threads that guests run on: a fixed number, fed by the fair queue, awaited from outside.
//!
//! Guests block their thread for as long as they run, so they never run on the threads of an async runtime. Whoever
//! awaits a [`Turn`] and drops it has cancelled the call: it is not begun any more, or ended at the next tick.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clocks::Clocks;
use crate::queue::{FairQueue, Full};
use crate::tenant::TenantLimits;

type Call = Box<dyn FnOnce() + Send>;

/// The threads. Dropping it lets them end, once nothing waits any more.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    count: usize,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    clocks: Clocks,
}

struct State {
    queue: FairQueue<Call>,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it did, the queue would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    /// No thread is started before the first call.
    pub fn new(count: usize, clocks: Clocks) -> Self {
        let count = count.max(1);
        let state = Mutex::new(State { queue: FairQueue::new(count), closed: false });
        let shared = Arc::new(Shared { state, wake: Condvar::new(), clocks });
        Self { shared, threads: Mutex::default(), count }
    }

    pub fn know(&self, tenant: &Arc<str>, limits: &TenantLimits) {
        self.shared.state().queue.know(tenant, limits);
    }

    pub fn usage(&self, tenant: &str) -> (usize, usize, Duration) {
        self.shared.state().queue.usage(tenant)
    }

    /// Queues a call that `make` makes when there is a place for it. `cancelled` is set when the turn is dropped.
    pub fn submit<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
        &self,
        tenant: &Arc<str>,
        limits: &TenantLimits,
        cancelled: &Arc<AtomicBool>,
        make: impl FnOnce() -> W,
    ) -> Result<Turn<T>, Full> {
        self.start();
        let answer = Arc::new(Answer { state: Mutex::new(AnswerState::Waiting(None)) });
        let turn = Turn { answer: answer.clone(), cancelled: cancelled.clone() };
        let cancelled = cancelled.clone();
        self.shared.state().queue.push(tenant, limits, || {
            let work = make();
            Box::new(move || {
                let outcome = match cancelled.load(Ordering::Relaxed) {
                    true => Err(Lost),
                    // What the work owns is dropped with it; nothing else was touched.
                    false => catch_unwind(AssertUnwindSafe(work)).map_err(|_| Lost),
                };
                answer.give(outcome);
            })
        })?;
        self.shared.wake.notify_one();
        Ok(turn)
    }

    fn start(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while threads.len() < self.count {
            let shared = self.shared.clone();
            let name = format!("plugin-{}", threads.len());
            match std::thread::Builder::new().name(name).spawn(move || work(&shared)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    tracing::error!(%error, running = threads.len(), "a thread for plugins does not start");
                    return;
                }
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.wake.notify_all();
        let threads = std::mem::take(self.threads.get_mut().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // The last one to hold the sandbox may have been a call, on a thread of ours.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn work(shared: &Shared) {
    let mut state = shared.state();
    loop {
        let Some((begun, call)) = state.queue.next() else {
            if state.closed {
                return;
            }
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        let before = shared.clocks.thread_cpu();
        call();
        let cpu = match (before, shared.clocks.thread_cpu()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => Duration::ZERO,
        };
        state = shared.state();
        state.queue.done(&begun, cpu);
    }
}

/// The call was not run to its end: it was cancelled, or it panicked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

struct Answer<T> {
    state: Mutex<AnswerState<T>>,
}

enum AnswerState<T> {
    Waiting(Option<Waker>),
    There(Result<T, Lost>),
    Taken,
}

impl<T> Answer<T> {
    fn state(&self) -> MutexGuard<'_, AnswerState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, outcome: Result<T, Lost>) {
        let before = std::mem::replace(&mut *self.state(), AnswerState::There(outcome));
        if let AnswerState::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// A call that was queued. Resolves when it has run; dropping it cancels it.
pub(crate) struct Turn<T> {
    answer: Arc<Answer<T>>,
    cancelled: Arc<AtomicBool>,
}

impl<T> Future for Turn<T> {
    type Output = Result<T, Lost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.answer.state();
        match &mut *state {
            AnswerState::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            AnswerState::There(_) => match std::mem::replace(&mut *state, AnswerState::Taken) {
                AnswerState::There(outcome) => Poll::Ready(outcome),
                AnswerState::Waiting(_) | AnswerState::Taken => Poll::Ready(Err(Lost)),
            },
            AnswerState::Taken => Poll::Ready(Err(Lost)),
        }
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        if matches!(&*self.answer.state(), AnswerState::Waiting(_)) {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut future).poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    fn submit<T: Send + 'static>(
        workers: &Workers,
        cancelled: &Arc<AtomicBool>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Turn<T>, Full> {
        workers.submit(&Arc::from("a"), &TenantLimits::default(), cancelled, || work)
    }

    #[test]
    fn calls_run_on_threads_of_their_own_and_are_awaited() {
        let workers = Workers::new(2, Clocks::System);
        let here = std::thread::current().id();
        let turns: Vec<_> = (0..100)
            .map(|number| {
                let work =
                    move || (number, std::thread::current().id(), std::thread::current().name().map(str::to_owned));
                submit(&workers, &Arc::default(), work).expect("there is a place")
            })
            .collect();
        for (wanted, turn) in turns.into_iter().enumerate() {
            let (number, thread, name) = block_on(turn).expect("it runs");
            assert!(number == wanted && thread != here && name.is_some_and(|name| name.starts_with("plugin-")));
        }
        assert_eq!(workers.usage("a").0, workers.usage("a").1, "nothing is left");
    }

    #[test]
    fn a_call_that_panics_takes_nobody_along() {
        let workers = Workers::new(1, Clocks::System);
        let broken = submit(&workers, &Arc::default(), || std::panic::resume_unwind(Box::new("broken")));
        assert_eq!(block_on(broken.expect("there is a place")), Err::<(), _>(Lost));
        assert_eq!(block_on(submit(&workers, &Arc::default(), || 7).expect("there is a place")), Ok(7));
    }

    #[test]
    fn who_stops_waiting_cancels() {
        let workers = Workers::new(1, Clocks::System);
        let (running, runs) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let first = submit(&workers, &Arc::default(), move || {
            running.send(()).expect("the test listens");
            released.recv().expect("the test lets it go");
        });
        let first = first.expect("there is a place");
        runs.recv().expect("the first one holds the only thread");
        let (cancelled, begun) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let second = {
            let begun = begun.clone();
            submit(&workers, &cancelled, move || begun.store(true, Ordering::SeqCst)).expect("there is a place")
        };
        drop(second);
        assert!(cancelled.load(Ordering::Relaxed));
        release.send(()).expect("it waits");
        assert_eq!(block_on(first), Ok(()));
        assert_eq!(block_on(submit(&workers, &Arc::default(), || 7).expect("there is a place")), Ok(7));
        assert!(!begun.load(Ordering::SeqCst), "it waited, and was not begun any more");
    }
}
