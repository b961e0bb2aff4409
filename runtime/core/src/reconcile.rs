//! What has to be done so that the target holds what is wanted.

use crate::change::SystemKind;
use crate::content::same;
use crate::schema::Schema;
use crate::value::Value;

/// What to do with one row of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Create,
    /// Write only these: positions in the flow's target columns. Not empty.
    Update {
        changed: Vec<usize>,
    },
    /// The target holds it already.
    Equal,
    /// The target changed too, and its side wins.
    Yield,
}

/// Compares what is wanted, one value per column of `columns`, with the full target row in the order of its schema.
/// An absent value wants nothing. Key and company columns of F&O are never written to a row that exists: they are
/// equal but for case, which is what a key does not count.
#[must_use]
pub fn reconcile(
    target: &Schema,
    columns: &[usize],
    wanted: &[Value],
    current: Option<&[Value]>,
    target_changed: bool,
    winner_is_source: bool,
) -> Decision {
    let Some(current) = current else { return Decision::Create };
    let fixed = |column: usize| {
        target.system == SystemKind::Finops && (target.key.contains(&column) || target.company == Some(column))
    };
    let changed = columns
        .iter()
        .zip(wanted)
        .enumerate()
        .filter(|(_, (column, wanted))| {
            !wanted.is_absent()
                && !fixed(**column)
                && !same(target, **column, wanted, current.get(**column).unwrap_or(&Value::Absent))
        })
        .map(|(position, _)| position)
        .collect::<Vec<_>>();
    if changed.is_empty() {
        Decision::Equal
    } else if target_changed && !winner_is_source {
        Decision::Yield
    } else {
        Decision::Update { changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Column;
    use crate::value::Kind;

    #[test]
    fn decisions() {
        let mut schema = Schema::new(
            SystemKind::Finops,
            "CustomerGroup",
            "CustomerGroups",
            vec![
                Column::new("dataAreaId", Kind::Text),
                Column::new("CustomerGroupId", Kind::Text),
                Column::new("Description", Kind::Text),
            ],
        );
        schema.key = vec![0, 1];
        schema.company = Some(0);
        let stored = [Value::text("USMF"), Value::text("a1"), Value::text("Retail")];
        let update = |changed: &[usize]| Decision::Update { changed: changed.to_vec() };
        // wanted description, target row, target changed, source wins
        let cases = [
            (Value::text("Retail"), None, false, true, Decision::Create),
            (Value::text("Retail "), Some(&stored), false, true, Decision::Equal),
            (Value::Absent, Some(&stored), false, true, Decision::Equal),
            (Value::text("retail"), Some(&stored), false, false, update(&[2])),
            (Value::Null, Some(&stored), false, false, update(&[2])),
            (Value::text("Wholesale"), Some(&stored), true, true, update(&[2])),
            (Value::text("Wholesale"), Some(&stored), true, false, Decision::Yield),
            (Value::text("Retail"), Some(&stored), true, false, Decision::Equal),
        ];
        for (description, current, target_changed, source_wins, decision) in cases {
            let place = format!("{description:?} {target_changed} {source_wins}");
            let wanted = [Value::text("usmf"), Value::text("A1"), description];
            let current = current.map(|row| row.as_slice());
            assert_eq!(
                reconcile(&schema, &[0, 1, 2], &wanted, current, target_changed, source_wins),
                decision,
                "{place}"
            );
        }
    }
}
