//! What a dry run says: how rows would end, under what runs now and under what is tried.

use dualwright_core::Fault;
use serde::Serialize;

use super::text::{ROWS_SHOWN_MAX, render, table, thousands};

/// What `map dry-run --json` and `plugin dry-run --json` print, beside what was tried.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DryRunReport {
    pub maps: Vec<DryRunMap>,
    /// Rows that would be written or rejected, and rows that would end otherwise than now.
    pub records: Vec<DryRunRecord>,
}

/// The rows of one map in one direction.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DryRunMap {
    pub map: String,
    pub direction: String,
    pub rows: u64,
    /// `None` when only what is tried was asked for.
    pub before: Option<Outcomes>,
    pub after: Outcomes,
    /// Rows that would end otherwise, or with other values.
    pub differing: u64,
}

/// Rows by how they end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    /// The target holds it already, or has a newer change that wins.
    pub unchanged: u64,
    /// The filter, or the legal entities, do not take it.
    pub outside: u64,
    pub rejected: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    Created,
    Updated,
    Deleted,
    Unchanged,
    Outside,
    Rejected,
}

/// How one row ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub kind: OutcomeKind,
    /// Columns of the target that an update would write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Why it is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct DryRunRecord {
    pub map: String,
    pub direction: String,
    pub key: String,
    pub differs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Outcome>,
    pub after: Outcome,
    /// Columns of the target that would hold another value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnDifference>,
}

/// What the target would hold afterwards; values only where they were asked for.
#[derive(Debug, Clone, Serialize)]
pub struct ColumnDifference {
    pub column: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

impl Outcome {
    #[must_use]
    pub const fn of(kind: OutcomeKind) -> Self {
        Self { kind, columns: Vec::new(), code: None, reason: None }
    }

    /// A row that a map does not know of.
    #[must_use]
    pub const fn outside() -> Self {
        Self::of(OutcomeKind::Outside)
    }

    #[must_use]
    pub fn rejected(fault: &Fault) -> Self {
        Self {
            code: Some(fault.code.to_string()),
            reason: Some(fault.message.clone()),
            ..Self::of(OutcomeKind::Rejected)
        }
    }

    fn text(&self) -> String {
        match (&self.code, self.columns.as_slice()) {
            (Some(code), _) => format!("{} {code}", self.kind.name()),
            (None, _) => self.kind.name().to_owned(),
        }
    }
}

impl OutcomeKind {
    const ALL: [Self; 6] =
        [Self::Created, Self::Updated, Self::Deleted, Self::Unchanged, Self::Outside, Self::Rejected];

    const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Unchanged => "unchanged",
            Self::Outside => "outside",
            Self::Rejected => "rejected",
        }
    }
}

impl Outcomes {
    pub const fn count(&mut self, kind: OutcomeKind) {
        *self.place(kind) += 1;
    }

    const fn place(&mut self, kind: OutcomeKind) -> &mut u64 {
        match kind {
            OutcomeKind::Created => &mut self.created,
            OutcomeKind::Updated => &mut self.updated,
            OutcomeKind::Deleted => &mut self.deleted,
            OutcomeKind::Unchanged => &mut self.unchanged,
            OutcomeKind::Outside => &mut self.outside,
            OutcomeKind::Rejected => &mut self.rejected,
        }
    }
}

impl DryRunReport {
    /// Whether anything would end otherwise than now; without a comparison, whether anything is rejected.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.maps.iter().any(|map| map.differing > 0 || (map.before.is_none() && map.after.rejected > 0))
    }
}

/// The report as tables.
#[must_use]
pub fn dry_run_text(report: &DryRunReport) -> String {
    if report.maps.is_empty() {
        return "  there is no row to try it on\n".to_owned();
    }
    let mut text = String::new();
    for map in &report.maps {
        text.push_str(&format!("{}, {}: {} rows\n", map.map, map.direction, thousands(map.rows)));
        let mut out = match map.before {
            Some(_) => table(&["", "now", "then"], 1),
            None => table(&["", "then"], 1),
        };
        let (mut before, mut after) = (map.before, map.after);
        for kind in OutcomeKind::ALL {
            let counts = before.as_mut().map(|before| *before.place(kind)).into_iter().chain([*after.place(kind)]);
            let counts = counts.collect::<Vec<_>>();
            if counts.iter().any(|&count| count > 0) {
                out.add_row(std::iter::once(kind.name().to_owned()).chain(counts.into_iter().map(thousands)));
            }
        }
        text.push_str(&render(&out));
        if map.before.is_some() {
            text.push_str(&format!("  {} would end otherwise\n", thousands(map.differing)));
        }
        text.push('\n');
    }
    text.push_str(&records_text(report));
    text
}

fn records_text(report: &DryRunReport) -> String {
    let compared = report.maps.iter().any(|map| map.before.is_some());
    let shown = report.records.iter().filter(|record| record.differs || !compared).collect::<Vec<_>>();
    if shown.is_empty() {
        return match compared {
            true => "No row would end otherwise.\n".to_owned(),
            false => "No row would be written or rejected.\n".to_owned(),
        };
    }
    let mut out = match compared {
        true => table(&["map", "direction", "record", "now", "then", "columns, reason"], 6),
        false => table(&["map", "direction", "record", "then", "columns, reason"], 5),
    };
    for record in shown.iter().take(ROWS_SHOWN_MAX) {
        let mut cells = vec![record.map.clone(), record.direction.clone(), record.key.clone()];
        if compared {
            cells.push(record.before.as_ref().map(Outcome::text).unwrap_or_default());
        }
        cells.extend([record.after.text(), why(record)]);
        out.add_row(cells);
    }
    let mut text = render(&out);
    if let Some(more @ 1..) = shown.len().checked_sub(ROWS_SHOWN_MAX) {
        text.push_str(&format!("  and {} more, which --json lists\n", thousands(more as u64)));
    }
    text
}

fn why(record: &DryRunRecord) -> String {
    let columns = match record.columns.as_slice() {
        // What is written is known even where nothing is compared.
        [] => record.after.columns.join(", "),
        columns => columns.iter().map(column_text).collect::<Vec<_>>().join(", "),
    };
    let reasons = [record.after.reason.as_ref(), record.before.as_ref().and_then(|before| before.reason.as_ref())];
    let reason = reasons.into_iter().flatten().next();
    [Some(&columns), reason]
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join("; ")
}

fn column_text(column: &ColumnDifference) -> String {
    let shown = |value: &Option<serde_json::Value>| match value {
        None | Some(serde_json::Value::Null) => "empty".to_owned(),
        Some(value) => value.to_string(),
    };
    match (&column.before, &column.after) {
        (None, None) => column.column.clone(),
        (before, after) => format!("{}: {} → {}", column.column, shown(before), shown(after)),
    }
}

#[cfg(test)]
mod tests {
    use dualwright_core::Code;

    use super::*;

    #[test]
    fn a_dry_run_can_be_read() {
        let mut report = DryRunReport::default();
        assert_eq!(dry_run_text(&report), "  there is no row to try it on\n");
        assert!(!report.differs());
        let mut map = DryRunMap {
            map: "customers".to_owned(),
            direction: "finops → dataverse".to_owned(),
            rows: 1_200,
            ..DryRunMap::default()
        };
        map.after.count(OutcomeKind::Updated);
        map.after.count(OutcomeKind::Rejected);
        map.before.get_or_insert_default().count(OutcomeKind::Unchanged);
        map.differing = 2;
        report.maps.push(map);
        let record = |key: &str, after: Outcome, columns: Vec<ColumnDifference>| DryRunRecord {
            map: "customers".to_owned(),
            direction: "finops → dataverse".to_owned(),
            key: key.to_owned(),
            differs: true,
            before: Some(Outcome::of(OutcomeKind::Unchanged)),
            after,
            columns,
        };
        let column = |before, after| ColumnDifference { column: "name".to_owned(), before, after };
        let updated = || Outcome { columns: vec!["name".to_owned()], ..Outcome::of(OutcomeKind::Updated) };
        report.records = vec![
            record("usmf/1", updated(), vec![column(None, None)]),
            record("usmf/2", updated(), vec![column(Some("A".into()), Some(serde_json::Value::Null))]),
            record("usmf/3", Outcome::rejected(&Fault::new(Code::TextTooLong, "name is too long")), Vec::new()),
        ];
        assert!(report.differs());
        let wanted = "\
customers, finops → dataverse: 1,200 rows
             now  then
  updated      0     1
  unchanged    1     0
  rejected     0     1
  2 would end otherwise

  map        direction           record  now        then              columns, reason
  customers  finops → dataverse  usmf/1  unchanged  updated           name
  customers  finops → dataverse  usmf/2  unchanged  updated           name: \"A\" → empty
  customers  finops → dataverse  usmf/3  unchanged  rejected DW-1002  name is too long
";
        assert_eq!(dry_run_text(&report), wanted);
    }
}
