//! Who is asked and told about row writes, inside their transaction.
//!
//! Owns the moments: whether the caller may, before a row is written, after it was. Knows no plug-in step, no role and no
//! request; what is registered for a table, and for whom a session writes, is for the observers themselves to know.

use std::sync::Arc;

use dualwright_odata::batch::Response;
use uuid::Uuid;

use crate::catalogue::Table;
use crate::session::Session;

/// What a write does to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// What a caller needs to be allowed to do (Dataverse: `prvCreateAccount`, `prvAppendToContact` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Create,
    Write,
    Delete,
    /// To give the row a lookup.
    Append,
    /// To be what a lookup points to.
    AppendTo,
    /// To give the row another owner.
    Assign,
}

/// One question of whether the caller may.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "no observer is registered yet")]
pub(crate) struct Access<'a> {
    pub table: &'a Arc<Table>,
    pub right: Right,
    /// The row as it is, where there is one: a cell per column.
    pub row: Option<&'a [&'a str]>,
}

/// One row write.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "no observer is registered yet")]
pub(crate) struct RowWrite<'a> {
    pub table: &'a Arc<Table>,
    pub operation: Operation,
    /// The primary id; nil in a table that has none.
    pub id: Uuid,
    /// The columns that the request named, equal values included, in the order of the table: what a Target holds. Of a
    /// create they are those that got a value.
    pub named: &'a [usize],
    /// The row before, a cell per column; none of a create. This is the pre-image.
    pub before: Option<&'a [&'a str]>,
    /// The row as it is going to be, or after the write as it is; none of a delete. This is the post-image.
    pub after: Option<&'a [&'a str]>,
}

/// Somebody who has a say in row writes. A refusal becomes the answer, and the whole transaction is rolled back.
///
/// Writes that an observer makes through the session are not observed again.
pub(crate) trait Observer {
    /// Whether the caller may. Asked before anything of the row is written.
    fn permit(&mut self, _session: &Session<'_>, _access: &Access<'_>) -> Result<(), Response> {
        Ok(())
    }

    /// The row is about to be written (pre-validation and pre-operation).
    fn before(&mut self, _session: &mut Session<'_>, _write: &RowWrite<'_>) -> Result<(), Response> {
        Ok(())
    }

    /// The row was written, and nothing is committed yet (post-operation).
    fn after(&mut self, _session: &mut Session<'_>, _write: &RowWrite<'_>) -> Result<(), Response> {
        Ok(())
    }
}
