//! What is compiled from rows that seldom change: registered steps, roles.
//!
//! Owns one value and when it is too old; the store counts how often rows of configuration changed.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::catalogue::Catalogue;
use crate::store::Store;

/// A value compiled from rows, made anew after they changed.
#[derive(Debug)]
pub(crate) struct Cached<T> {
    made: Mutex<Option<(u64, Arc<T>)>>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { made: Mutex::new(None) }
    }
}

impl<T> Cached<T> {
    /// The value as of the last commit before this call, or a later one.
    pub fn get(
        &self,
        store: &Store,
        make: impl FnOnce(&Connection, &Catalogue) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Arc<T>> {
        // Read before the rows: a commit in between makes the value look older than it is, never younger.
        let configuration = store.configuration();
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((of, value)) = made
            && of == configuration
        {
            return Ok(value);
        }
        let catalogue = store.catalogue();
        let value = Arc::new(store.read(|connection| make(connection, &catalogue))?);
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some((configuration, Arc::clone(&value)));
        Ok(value)
    }
}
