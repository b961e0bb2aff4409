//! What happened, as data and as a page of text.
//!
//! Owns the shapes that `--json` prints and their tables for the terminal. Holds names, keys and counts, never the
//! value of a field.

mod dry_run;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;

pub use dry_run::{
    ColumnDifference, DryRunMap, DryRunRecord, DryRunReport, Outcome, OutcomeKind, Outcomes, dry_run_text,
};
pub use text::{differences_text, failed_text, maps_text, plugins_text};
pub(crate) use text::{duration, thousands};

/// The way of rows from one system, as reports name it.
#[must_use]
pub fn direction(source: dualwright_core::SystemKind) -> String {
    format!("{source} → {}", source.other())
}

/// Rows of one map in one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MapReport {
    pub map: String,
    /// `finops → dataverse` or back.
    pub direction: String,
    pub rows: u64,
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Equal on both sides already, or outside the map's filter.
    pub skipped: u64,
    /// Now in the error queue.
    pub failed: u64,
}

/// One plugin at one extension point. Times in microseconds.
#[derive(Debug, Clone, Default, Serialize, serde::Deserialize)]
pub struct PluginReport {
    pub plugin: String,
    pub stage: String,
    pub calls: u64,
    pub rows: u64,
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    pub guest_us: u64,
    pub host_call_us: u64,
    pub marshalling_us: u64,
    /// The longest that one transaction spent here, as a share of its budget.
    pub budget_share_max: f64,
    /// Transactions that spent more than the goal here.
    pub over_goal: u64,
    pub faults: u64,
}

impl From<dualwright_sandbox::PluginTiming> for PluginReport {
    fn from(timing: dualwright_sandbox::PluginTiming) -> Self {
        Self {
            plugin: timing.plugin,
            stage: timing.point.name().to_owned(),
            calls: timing.calls,
            rows: timing.rows,
            p50_us: timing.p50_micros,
            p95_us: timing.p95_micros,
            p99_us: timing.p99_micros,
            max_us: timing.max_micros,
            guest_us: timing.guest_micros,
            host_call_us: timing.host_call_micros,
            marshalling_us: timing.marshalling_micros,
            budget_share_max: timing.budget_share_max,
            over_goal: timing.over_goal,
            faults: timing.faults,
        }
    }
}

/// One record in the error queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedReport {
    pub id: i64,
    pub map: String,
    pub direction: String,
    pub key: String,
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_code: Option<String>,
    pub reason: String,
    pub remedy: String,
    pub attempts: u32,
}

/// One way in which the two sides are not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub map: String,
    pub key: String,
    pub kind: DifferenceKind,
    /// Dataverse names of the columns that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    OnlyFinops,
    OnlyDataverse,
    Different,
}

/// The object that `demo --json` and `run --once --json` end with.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    pub equal: bool,
    pub maps: Vec<MapReport>,
    pub plugins: Vec<PluginReport>,
    pub differences: Vec<Difference>,
    pub failed: Vec<FailedReport>,
    /// Seconds per phase.
    pub seconds: BTreeMap<String, f64>,
}
