//! The extension point *validator*: from a function of two rows to a list of issues.

use crate::bindings::types::{self, Batch, CallError, Context};
use crate::instance::Configured;
use crate::issue::Verdict;
use crate::rows::{Row, Rows};

/// Runs a function of a row and its counterpart over every row: before the write the counterpart is the target's row as
/// it was read, after the write the target's row as it is stored. None where the target has no such row, or where
/// nothing was read.
///
/// # Errors
/// When the buffers are broken.
pub fn check<S, V: Verdict>(
    function: impl Fn(&S, Row<'_>, Option<Row<'_>>) -> V,
    configured: &Configured<S>,
    context: &Context,
    batch: &Batch,
    counterparts: &[types::Column],
) -> Result<Vec<types::Issue>, CallError> {
    let schema = &configured.tables.source;
    let rows = Rows::new(context, schema, None, batch)?;
    let counterparts = Rows::beside(context, schema, counterparts, rows.len())?;
    let mut issues = Vec::new();
    for row in rows.iter() {
        let counterpart = counterparts.row_if_there(row.index());
        function(&configured.state, row, counterpart).issues(&mut |issue| issues.push(issue.at(row.index())));
    }
    Ok(issues)
}
