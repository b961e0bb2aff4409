//! Connections that only read. SQLite waits for the disk, so they work on blocking threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use dualwright_core::{Code, Fault};
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::schema;
use super::sql::{Failure, failed};

/// Reads at the same time. They are bound by the processor as soon as the file is in memory, and small machines have
/// two.
const CONNECTIONS_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Opens the first connection, so that a file that cannot be read is noticed at once.
    pub(super) fn open(file: PathBuf) -> Result<Self, Fault> {
        let first = schema::open_to_read(&file)?;
        Ok(Self { file, idle: Arc::new(Mutex::new(vec![first])), permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }

    /// Runs `work` on one snapshot of the store.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Fault> {
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.map_err(|_| failed("the store is closed".to_owned()))?;
        let (file, idle, permits) = (self.file.clone(), Arc::clone(&self.idle), Arc::clone(&self.permits));
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = match pop(&idle) {
                Some(connection) => connection,
                None => schema::open_to_read(&file)?,
            };
            let result = snapshot(&connection, work).map_err(|failure| failure.into_fault("the store cannot be read"));
            if !permits.is_closed() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            result
        });
        done.await
            .unwrap_or_else(|error| Err(Fault::new(Code::Internal, format!("a read of the store ended: {error}"))))
    }

    /// Ends reading: what is under way is finished, what comes later fails.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn pop(idle: &Mutex<Vec<Connection>>) -> Option<Connection> {
    idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// One read transaction: all statements see the same state, and the file is locked once.
fn snapshot<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
    let transaction = connection.unchecked_transaction()?;
    let result = work(&transaction)?;
    transaction.finish()?;
    Ok(result)
}
