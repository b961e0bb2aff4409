//! Rows that are written as they are: no map made them, and no receipt stands beside them.
//!
//! For generated rows, whose writer is a user of the system and not this runtime.

use std::time::Duration;

use dualwright_core::{Code, Fault};
use serde_json::{Map, Value};

use super::batch::Part;
use super::http::{Failure, Purpose, fault_of};
use super::{BATCH_OPERATIONS_MAX, System, finops, parse_page};

impl System {
    /// Whether an F&O set has any row, in any company.
    pub async fn has_rows(&self, set: &str, timeout: Duration) -> Result<bool, Fault> {
        let body = self.get(&format!("{}/{set}?cross-company=true&$top=1", finops::ROOT), None, timeout).await?;
        Ok(!parse_page(self.kind, &body)?.rows.is_empty())
    }

    /// Creates rows of F&O sets in one change set: all of them, or none.
    pub async fn create_together(&self, rows: &[(&str, &Map<String, Value>)], timeout: Duration) -> Result<(), Fault> {
        if rows.len() > BATCH_OPERATIONS_MAX {
            let what = format!("{} rows do not fit one change set, which takes {BATCH_OPERATIONS_MAX}", rows.len());
            return Err(Fault::new(Code::TooLarge, what));
        }
        let mut parts = Vec::with_capacity(rows.len());
        for (set, row) in rows {
            let body = serde_json::to_vec(row)
                .map_err(|error| Fault::new(Code::Internal, format!("a row of {set} cannot be written: {error}")))?;
            parts.push(Part::json("POST", format!("{}/{set}?cross-company=true", finops::ROOT), body));
        }
        let answers = self.batch(Purpose::Write, &parts, timeout).await.map_err(Failure::into_fault)?;
        let Some(refused) = answers.iter().find(|answer| !answer.is_success()) else { return Ok(()) };
        let mut fault = fault_of(self.kind.name(), refused.status, &refused.body);
        if let Some((set, _)) = refused.position.and_then(|position| rows.get(position)) {
            fault.message = format!("{set}: {}", fault.message);
        }
        Err(fault)
    }
}
