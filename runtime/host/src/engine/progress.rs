//! How far the work is, told to whoever watches.
//!
//! The engine only counts; what a watcher draws is the watcher's business, so that a script sees no bars.

use std::sync::Arc;

/// Something that happened, in the order it happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A map begins its initial sync; the source says how many rows it has, when it can.
    MapStarted {
        map: Arc<str>,
        rows_expected: Option<u64>,
    },
    /// Rows of a map are done, in whichever way.
    RowsDone {
        map: Arc<str>,
        rows: u64,
    },
    MapFinished {
        map: Arc<str>,
    },
    /// Live sync captured changes.
    Captured {
        rows: u64,
    },
    /// Live sync settled changes.
    Settled {
        rows: u64,
    },
    /// Something a person should know although the work goes on.
    Notice(String),
}

/// Watches the engine. Called often and from several tasks: must be quick and must not block.
pub trait Watcher: Send + Sync {
    fn event(&self, event: Event);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {
    fn event(&self, _event: Event) {}
}
