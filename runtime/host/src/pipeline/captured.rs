//! A change as it was captured: the source's own JSON, kept until it has arrived.
//!
//! The outbox holds this form and not the mapped one, so a corrected map or plugin heals a failed delivery by replay.

use std::sync::Arc;

use dualwright_core::{Code, Fault, Operation, TransactionId};
use serde_json::value::RawValue;
use uuid::Uuid;

/// One row change in the words of its source.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct CapturedChange {
    /// Entity set or public collection.
    #[serde(rename = "s")]
    pub set: Arc<str>,
    #[serde(rename = "o")]
    pub operation: Operation,
    /// Id on the source, where the row itself is not known any more (a Dataverse delete).
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// The row after the change, or before a delete.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub row: Option<Box<RawValue>>,
    /// Our own transaction that caused the change, when the feed says so.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<TransactionId>,
}

/// The changes of one delivery as the outbox keeps them.
pub fn encode(changes: &[CapturedChange]) -> Vec<u8> {
    serde_json::to_vec(changes).expect("captured changes hold only strings, ids and JSON that was read before")
}

pub fn decode(payload: &[u8]) -> Result<Vec<CapturedChange>, Fault> {
    serde_json::from_slice(payload)
        .map_err(|error| Fault::new(Code::StoreFailed, format!("a stored delivery cannot be read: {error}")))
}
