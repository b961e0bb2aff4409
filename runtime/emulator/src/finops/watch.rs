//! Who looks at the row writes of F&O: change tracking and events.
//!
//! Owns the decision whether anybody does, so that writes cost nothing as long as nobody does.

use std::sync::atomic::{AtomicU8, Ordering};

use dualwright_odata::batch::Response;

use super::refusal::failed;
use super::{events, tracking};
use crate::Inner;
use crate::observe::{Observer, RowWrite};
use crate::session::Session;

/// Whether anybody looks; asked again after it was forgotten.
#[derive(Debug, Default)]
pub(crate) struct Watch(AtomicU8);

const NOBODY: u8 = 1;
const SOMEBODY: u8 = 2;

impl Watch {
    /// Something was registered, or is no longer.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Who has a say in the row writes of one request.
pub(crate) fn observers(inner: &Inner) -> Vec<Box<dyn Observer>> {
    let watch = &inner.finops.watch.0;
    let mut known = watch.load(Ordering::Acquire);
    if known == 0 {
        let is_watched: rusqlite::Result<bool> = inner
            .store
            .read(|connection| Ok(tracking::looks_at_writes(connection)? || events::are_active(connection)?));
        // When it cannot be told, looking does no harm.
        known = if is_watched.unwrap_or(true) { SOMEBODY } else { NOBODY };
        watch.store(known, Ordering::Release);
    }
    if known == SOMEBODY { vec![Box::new(Watcher)] } else { Vec::new() }
}

struct Watcher;

impl Observer for Watcher {
    fn after(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
        tracking::follow(session, write).and_then(|()| events::raise(session, write)).map_err(|error| failed(&error))
    }
}
