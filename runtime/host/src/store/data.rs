//! What goes into the store and comes out of it: plain data, without any SQL.

use std::sync::Arc;

use dualwright_core::{Fault, RowKey, SystemKind, TransactionId};
use uuid::Uuid;

/// Whose data: the tenant, and the link of that tenant. First in every key of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    pub tenant: Arc<str>,
    pub link: Arc<str>,
}

/// The pair of rows of one key, as we last left it or saw it in step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CrossReference {
    pub dataverse_id: Option<Uuid>,
    /// What identifies the F&O row on its own side, where the integration key does not say it.
    pub finops_key: Option<RowKey>,
    /// Empty when it is not known.
    pub finops_version: Arc<str>,
    /// Empty when it is not known.
    pub dataverse_version: Arc<str>,
    /// Content of the mapped columns of that side as we last left or saw it in step.
    pub finops_hash: Option<[u8; 16]>,
    pub dataverse_hash: Option<[u8; 16]>,
    pub deleted: bool,
    pub last_transaction: Option<TransactionId>,
    /// Outbox sequence of the newest change applied to the pair.
    pub last_sequence: i64,
}

impl CrossReference {
    /// Whether the Dataverse row only stands for an F&O row that was never seen.
    #[must_use]
    pub const fn is_placeholder(&self) -> bool {
        self.finops_hash.is_none() && self.dataverse_hash.is_some() && !self.deleted
    }
}

/// Work to be captured.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    pub transaction: TransactionId,
    pub source: SystemKind,
    /// Names this work at its source, once per link and system: a repeated capture of it is ignored.
    pub source_token: String,
    pub atomic: bool,
    pub payload: Vec<u8>,
    pub rows: u32,
    /// Microseconds since 1970.
    pub captured_at: i64,
    /// The failed record that this is a new try of.
    pub retry_of: Option<i64>,
}

/// Deliveries and the positions they were captured up to, kept together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    pub deliveries: Vec<NewDelivery>,
    /// Feed and position.
    pub watermarks: Vec<(String, String)>,
}

/// Work that waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Position among all deliveries of the link, ascending in the order of capture and never used twice.
    pub sequence: i64,
    pub transaction: TransactionId,
    pub source: SystemKind,
    pub atomic: bool,
    pub payload: Vec<u8>,
    pub rows: u32,
    pub captured_at: i64,
    /// Attempts that ended without a fate so far.
    pub attempt: u32,
    pub retry_of: Option<i64>,
}

/// What becomes of an attempted delivery.
#[derive(Debug, Clone)]
pub enum Fate {
    Complete,
    /// It stays in the outbox and is due again at `not_before`.
    Retry {
        not_before: i64,
        fault: Fault,
    },
    /// Its records are in the error queue.
    Failed,
}

/// A record for the error queue.
#[derive(Debug, Clone)]
pub struct NewFailed {
    pub map: Arc<str>,
    pub source: SystemKind,
    /// For people.
    pub key: String,
    /// `None` while the key is unknown, and for a record of an atomic transaction, which no single row settles.
    pub row_key: Option<RowKey>,
    pub transaction: TransactionId,
    pub fault: Fault,
    /// The captured changes, enough to try again. The records of one atomic transaction share them.
    pub payload: Arc<[u8]>,
    pub atomic: bool,
    pub attempts: u32,
    pub at: i64,
    /// Outbox sequence of the change.
    pub sequence: i64,
    pub waiting_for_parent: bool,
}

/// An open record of the error queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRecord {
    pub id: i64,
    pub map: Arc<str>,
    pub source: SystemKind,
    pub key: String,
    pub row_key: Option<RowKey>,
    pub transaction: TransactionId,
    pub fault: Fault,
    pub payload: Vec<u8>,
    pub atomic: bool,
    pub attempts: u32,
    pub first_at: i64,
    pub last_at: i64,
    pub sequence: i64,
    pub waiting_for_parent: bool,
}

/// Which failed records; `None` does not restrict.
#[derive(Debug, Clone, Default)]
pub struct FailedFilter {
    pub map: Option<Arc<str>>,
    pub source: Option<SystemKind>,
    pub ids: Option<Vec<i64>>,
    pub waiting_for_parent: Option<bool>,
    pub limit: Option<u32>,
    /// Only records with a greater id: records come in the order of their ids, so this continues a list.
    pub after: Option<i64>,
}

/// Rows of one map from one source, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub rows: u64,
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    pub skipped: u64,
    pub failed: u64,
    pub echoes: u64,
}

/// A line for the activity log.
#[derive(Debug, Clone)]
pub struct NewActivity {
    pub at: i64,
    pub map: Option<Arc<str>>,
    pub kind: &'static str,
    pub text: String,
}

/// A line of the activity log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    pub id: i64,
    pub at: i64,
    pub map: Option<String>,
    pub kind: String,
    pub text: String,
}

/// Everything that an attempt leaves behind, kept together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Settlement {
    /// Sequence of the delivery, when there is one, and its fate.
    pub delivery: Option<(i64, Fate)>,
    pub cross_references: Vec<(Arc<str>, RowKey, CrossReference)>,
    pub failed: Vec<NewFailed>,
    /// Rows that got through: their open failed records are closed, except those of a newer change than `delivery`.
    pub resolved: Vec<(Arc<str>, SystemKind, RowKey)>,
    pub resolved_ids: Vec<i64>,
    /// Added to what is counted already.
    pub counts: Vec<(Arc<str>, SystemKind, Counts)>,
    pub activity: Vec<NewActivity>,
    /// Job and its position, as JSON.
    pub cursor: Option<(String, String)>,
    pub watermarks: Vec<(String, String)>,
}

/// What waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backlog {
    pub deliveries: u64,
    pub rows: u64,
    pub oldest_captured_at: Option<i64>,
    /// Deliveries that were attempted and are to be attempted again.
    pub retrying: u64,
    /// Why the first of those waits.
    pub fault: Option<Fault>,
}

/// How fast changes came in from the feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Of the largest delivery of F&O: one transaction, or single rows that were packed.
    pub finops_rows_max: u64,
    /// In the busiest minute by the clock.
    pub rows_per_minute_max: u64,
    /// In the busiest ten minutes by the clock.
    pub rows_per_ten_minutes_max: u64,
}

/// How far a request to one side is known to have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntentState {
    /// Written down, not sent.
    Prepared,
    /// Sent, or about to be.
    Sent,
    /// Sent, and no answer tells what came of it.
    Unknown,
    /// Applied.
    Done,
    /// Not applied, and it never will be.
    Aborted,
}

impl IntentState {
    #[must_use]
    pub const fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Aborted)
    }
}

/// What we are about to do to one side, written down before it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub transaction: TransactionId,
    pub side: SystemKind,
    pub state: IntentState,
    /// Epoch of whoever wrote it; an older one may not write over a newer one.
    pub epoch: i64,
    /// SHA-256 of the request.
    pub request_hash: [u8; 32],
    /// Microseconds since 1970; after it nothing may be sent any more.
    pub deadline: i64,
}
