//! What became of the columns of a table since a map was validated against it.
//!
//! Pure. A [`TableRecord`] is kept when a map is validated; [`drifts`] holds a table as it is now against it, and a
//! [`DriftPolicy`] says what each difference means for the map.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::change::SystemKind;
use crate::schema::{Column, Schema};

/// What a column is to a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnRole {
    /// It identifies the row.
    Key,
    /// The system wants a value, and the map gives it one.
    Mandatory,
    /// The map reads or writes it.
    Mapped,
    Unmapped,
}

/// A table as it was when a map was validated against it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableRecord {
    pub set: String,
    /// By name.
    pub columns: BTreeMap<String, ColumnRecord>,
}

/// One column of it: what a map depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnRecord {
    pub role: ColumnRole,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_max: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<u8>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Symbols or numbers of a choice that is mapped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Entity sets that a lookup leads to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leads_to: Vec<String>,
}

/// The columns that a map uses, by name and in lower case.
#[derive(Debug, Clone, Default)]
pub struct UsedColumns {
    pub key: Vec<String>,
    pub mapped: Vec<String>,
}

impl TableRecord {
    /// A table as it is now.
    #[must_use]
    pub fn of(schema: &Schema, used: &UsedColumns) -> Self {
        let columns = schema.columns().iter().map(|column| {
            let name = column.name.to_lowercase();
            let role = match () {
                () if used.key.contains(&name) => ColumnRole::Key,
                () if !used.mapped.contains(&name) => ColumnRole::Unmapped,
                () if column.required => ColumnRole::Mandatory,
                () => ColumnRole::Mapped,
            };
            (column.name.to_string(), ColumnRecord::of(column, role))
        });
        Self { set: schema.set.to_string(), columns: columns.collect() }
    }
}

impl ColumnRecord {
    fn of(column: &Column, role: ColumnRole) -> Self {
        let is_used = role != ColumnRole::Unmapped;
        Self {
            role,
            kind: format!("{:?}", column.kind),
            length_max: column.length_max,
            scale: column.scale,
            required: column.required,
            read_only: column.read_only,
            options: match is_used {
                true => column.options.iter().map(|(name, number)| format!("{name}={number}")).collect(),
                false => Vec::new(),
            },
            leads_to: column.lookup.iter().flat_map(|own| &own.targets).map(|own| own.set.to_string()).collect(),
        }
    }

    /// What changed so that a map may not fit any more; `None` when whatever fitted still fits.
    fn narrowed_to(&self, now: &Self) -> Option<String> {
        let lost = |before: &[String], now: &[String]| {
            before.iter().filter(|own| !now.contains(own)).cloned().collect::<Vec<_>>().join(", ")
        };
        let shorter = |before: Option<u32>, now: Option<u32>| now.filter(|now| before.is_none_or(|own| *now < own));
        if self.kind != now.kind {
            return Some(format!("was a {} and is a {}", self.kind, now.kind));
        }
        let places = lost(&self.leads_to, &now.leads_to);
        if !places.is_empty() {
            return Some(format!("does not lead to {places} any more"));
        }
        let options = lost(&self.options, &now.options);
        if !options.is_empty() {
            return Some(format!("has lost the options {options}"));
        }
        if let Some(length) = shorter(self.length_max, now.length_max) {
            return Some(format!("takes {length} characters and took more"));
        }
        if let Some(scale) = shorter(self.scale.map(u32::from), now.scale.map(u32::from)) {
            return Some(format!("keeps {scale} decimal places and kept more"));
        }
        if now.read_only && !self.read_only {
            return Some("cannot be written any more".to_owned());
        }
        (now.required && !self.required).then(|| "is required and was not".to_owned())
    }
}

/// What happened to a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftKind {
    New,
    Removed,
    Retyped,
}

/// One difference between a table as a map knows it and as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    pub system: SystemKind,
    pub table: String,
    pub column: String,
    pub kind: DriftKind,
    pub role: ColumnRole,
    /// What is another way now; words that follow the column.
    pub what: String,
}

impl Drift {
    /// The map cannot do without the column, or the system not without a value for it.
    #[must_use]
    pub const fn is_essential(&self) -> bool {
        matches!(self.role, ColumnRole::Key | ColumnRole::Mandatory)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            ColumnRole::Key => "the key column ",
            ColumnRole::Mandatory => "the mandatory column ",
            ColumnRole::Mapped => "the mapped column ",
            ColumnRole::Unmapped => "the column ",
        };
        write!(f, "{role}{} of {} ({}) {}", self.column, self.table, self.system, self.what)
    }
}

/// Every difference that may matter to a map: new columns, and what became of those that it uses.
#[must_use]
pub fn drifts(system: SystemKind, before: &TableRecord, now: &TableRecord) -> Vec<Drift> {
    let drift = |column: &str, kind, role, what: String| Drift {
        system,
        table: before.set.clone(),
        column: column.to_owned(),
        kind,
        role,
        what,
    };
    let find = |name: &str| now.columns.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, own)| own);
    let mut found = Vec::new();
    for (name, own) in before.columns.iter().filter(|(_, own)| own.role != ColumnRole::Unmapped) {
        match find(name) {
            None => found.push(drift(name, DriftKind::Removed, own.role, "is gone".to_owned())),
            Some(column) => {
                if let Some(what) = own.narrowed_to(column) {
                    found.push(drift(name, DriftKind::Retyped, own.role, what));
                }
            }
        }
    }
    for (name, column) in &now.columns {
        if before.columns.keys().any(|own| own.eq_ignore_ascii_case(name)) {
            continue;
        }
        // Dataverse does not insist on the columns that it calls required.
        let wants_a_value = column.required && !column.read_only && system == SystemKind::Finops;
        let role = if wants_a_value { ColumnRole::Mandatory } else { ColumnRole::Unmapped };
        let what = if wants_a_value { "is new and required" } else { "is new" };
        found.push(drift(name, DriftKind::New, role, what.to_owned()));
    }
    found
}

/// What a difference means for the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftAction {
    /// The map is frozen when it is a key or mandatory column; otherwise it is noticed.
    #[default]
    FreezeEssential,
    /// The map is frozen: it carries nothing until somebody has looked at it.
    Freeze,
    /// A line of the activity log; the map goes on, without a field that it cannot carry any more.
    Notice,
    /// The same without the line.
    Ignore,
}

/// What the differences of one side mean for a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DriftPolicy {
    pub new: DriftAction,
    pub removed: DriftAction,
    pub retyped: DriftAction,
}

impl DriftPolicy {
    /// [`DriftAction::Freeze`], [`DriftAction::Notice`] or [`DriftAction::Ignore`].
    #[must_use]
    pub const fn action(&self, drift: &Drift) -> DriftAction {
        let action = match drift.kind {
            DriftKind::New => self.new,
            DriftKind::Removed => self.removed,
            DriftKind::Retyped => self.retyped,
        };
        match action {
            DriftAction::FreezeEssential if drift.is_essential() => DriftAction::Freeze,
            DriftAction::FreezeEssential => DriftAction::Notice,
            action => action,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Kind;

    fn column(name: &str, kind: Kind) -> Column {
        Column::new(name, kind)
    }

    fn table(columns: Vec<Column>) -> TableRecord {
        let used =
            UsedColumns { key: vec!["id".to_owned()], mapped: ["name", "size", "id"].map(str::to_owned).to_vec() };
        TableRecord::of(&Schema::new(SystemKind::Dataverse, "thing", "things", columns), &used)
    }

    fn text(name: &str, length: u32, required: bool) -> Column {
        Column { length_max: Some(length), required, ..column(name, Kind::Text) }
    }

    fn choice(name: &str, options: &[(&str, i64)]) -> Column {
        let options = options.iter().map(|(name, number)| (std::sync::Arc::from(*name), *number)).collect();
        Column { options, ..column(name, Kind::Choice) }
    }

    /// What the default policy does, the role, and the difference in words.
    #[test]
    fn differences_are_named_and_weighed() {
        use SystemKind::{Dataverse, Finops};
        let known =
            || vec![text("id", 10, true), text("name", 20, true), column("size", Kind::Int64), text("other", 9, false)];
        let changed = |name: &str, now: Option<Column>| {
            let mut columns = known();
            columns.retain(|own| *own.name != *name);
            columns.extend(now);
            columns
        };
        let decimal = |scale| Column { scale: Some(scale), ..column("size", Kind::Decimal) };
        let cases: Vec<(SystemKind, Vec<Column>, Vec<Column>, &str)> = vec![
            (Dataverse, known(), known(), ""),
            (Dataverse, known(), changed("id", None), "Freeze the key column id of things (dataverse) is gone"),
            (
                Dataverse,
                known(),
                changed("name", None),
                "Freeze the mandatory column name of things (dataverse) is gone",
            ),
            (Finops, known(), changed("size", None), "Notice the mapped column size of things (finops) is gone"),
            (Finops, known(), changed("other", None), ""),
            (Finops, known(), changed("other", Some(column("other", Kind::Int64))), ""),
            (
                Dataverse,
                known(),
                changed("size", Some(column("size", Kind::Text))),
                "Notice the mapped column size of things (dataverse) was a Int64 and is a Text",
            ),
            (
                Dataverse,
                known(),
                changed("id", Some(text("id", 5, true))),
                "Freeze the key column id of things (dataverse) takes 5 characters and took more",
            ),
            (Dataverse, known(), changed("id", Some(text("ID", 15, true))), ""),
            (
                Dataverse,
                known(),
                changed("size", Some(Column { required: true, ..column("size", Kind::Int64) })),
                "Notice the mapped column size of things (dataverse) is required and was not",
            ),
            (
                Dataverse,
                known(),
                changed("name", Some(Column { read_only: true, ..text("name", 20, true) })),
                "Freeze the mandatory column name of things (dataverse) cannot be written any more",
            ),
            (
                Dataverse,
                changed("size", Some(decimal(4))),
                changed("size", Some(decimal(2))),
                "Notice the mapped column size of things (dataverse) keeps 2 decimal places and kept more",
            ),
            (Dataverse, changed("size", Some(decimal(4))), changed("size", Some(decimal(10))), ""),
            (
                Dataverse,
                changed("size", Some(choice("size", &[("S", 1), ("M", 2)]))),
                changed("size", Some(choice("size", &[("S", 1), ("L", 2)]))),
                "Notice the mapped column size of things (dataverse) has lost the options M=2",
            ),
            (
                Dataverse,
                changed("size", Some(choice("size", &[("S", 1)]))),
                changed("size", Some(choice("size", &[("S", 1), ("L", 2)]))),
                "",
            ),
            (
                Dataverse,
                known(),
                changed("-", Some(text("more", 5, true))),
                "Notice the column more of things (dataverse) is new",
            ),
            (
                Finops,
                known(),
                changed("-", Some(text("more", 5, true))),
                "Freeze the mandatory column more of things (finops) is new and required",
            ),
        ];
        for (system, before, now, wanted) in cases {
            let found = drifts(system, &table(before), &table(now));
            let policy = DriftPolicy::default();
            let found = found.iter().map(|drift| format!("{:?} {drift}", policy.action(drift))).collect::<Vec<_>>();
            assert_eq!(found.join("; "), wanted);
        }
    }

    #[test]
    fn a_policy_may_say_otherwise() {
        let drift = |kind, role| Drift {
            system: SystemKind::Finops,
            table: "t".to_owned(),
            column: "c".to_owned(),
            kind,
            role,
            what: String::new(),
        };
        let policy =
            DriftPolicy { new: DriftAction::Ignore, removed: DriftAction::Freeze, retyped: DriftAction::Notice };
        let cases = [
            (DriftKind::New, ColumnRole::Mandatory, DriftAction::Ignore),
            (DriftKind::Removed, ColumnRole::Mapped, DriftAction::Freeze),
            (DriftKind::Retyped, ColumnRole::Key, DriftAction::Notice),
        ];
        for (kind, role, wanted) in cases {
            assert_eq!(policy.action(&drift(kind, role)), wanted);
        }
    }
}
