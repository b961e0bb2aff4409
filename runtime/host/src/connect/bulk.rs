//! More rows than a change set has operations: rows that are created go together, one operation per table.
//!
//! Owns which operation carries which rows. A single operation keeps its condition and tells the row's new version, so
//! rows go together only where they would not fit otherwise, and only on Dataverse.

use std::collections::HashSet;
use std::sync::Arc;

use dualwright_core::{Code, Fault, SystemKind, Value};

use super::{Action, CHANGE_SET_ROWS_MAX, WriteOperation};

/// Rows of one F&O transaction that Dataverse takes (reference 1.10).
pub const TRANSACTION_ROWS_MAX: usize = 1_000;

/// The rows that one operation of a change set carries, by their positions.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Carried {
    One(usize),
    /// New rows of one table, which do not refer to each other.
    Many(Vec<usize>),
}

/// The operations of a change set in their order, or why there cannot be one.
pub(super) fn pack(system: SystemKind, operations: &[WriteOperation]) -> Result<Vec<Carried>, Fault> {
    let together = system == SystemKind::Dataverse && operations.len() > CHANGE_SET_ROWS_MAX;
    if together && operations.len() > TRANSACTION_ROWS_MAX {
        let what =
            format!("the transaction has {} rows and {system} takes {TRANSACTION_ROWS_MAX} of one", operations.len());
        return Err(Fault::new(Code::TooLarge, what));
    }
    let carried = if together { pack_creates(operations) } else { (0..operations.len()).map(Carried::One).collect() };
    if carried.len() > CHANGE_SET_ROWS_MAX {
        let what = format!(
            "the transaction needs {} operations and {system} takes {CHANGE_SET_ROWS_MAX} beside receipt and fence",
            carried.len()
        );
        return Err(Fault::new(Code::TooLarge, what));
    }
    Ok(carried)
}

fn pack_creates(operations: &[WriteOperation]) -> Vec<Carried> {
    let mut carried = Vec::new();
    let mut positions = 0..operations.len();
    // Rows of a table follow each other, parents before children; deletes come last.
    for run in operations.chunk_by(|a, b| Arc::ptr_eq(&a.table, &b.table) && is_upsert(a) && is_upsert(b)) {
        let mut singles = Vec::new();
        let mut new = Vec::new();
        let mut ids = HashSet::new();
        for (operation, position) in run.iter().zip(positions.by_ref()) {
            let Action::Create { id: Some(id) } = operation.action else {
                singles.push(Carried::One(position));
                continue;
            };
            // What refers to a row must come in a later operation than the row.
            let refers = |(_, value): &(usize, Value)| matches!(value, Value::Guid(id) if ids.contains(id));
            if operation.values.iter().any(refers) {
                carried.push(together(std::mem::take(&mut new)));
                ids.clear();
            }
            new.push(position);
            ids.insert(id);
        }
        carried.extend((!new.is_empty()).then(|| together(new)));
        carried.extend(singles);
    }
    carried
}

const fn is_upsert(operation: &WriteOperation) -> bool {
    !matches!(operation.action, Action::Delete { .. })
}

/// One row keeps an operation of its own, which says more.
fn together(rows: Vec<usize>) -> Carried {
    match rows.as_slice() {
        [only] => Carried::One(*only),
        _ => Carried::Many(rows),
    }
}

#[cfg(test)]
mod tests {
    use dualwright_core::{Column, Kind, Schema};
    use uuid::Uuid;

    use super::super::{Address, Table};
    use super::*;

    /// `a1` creates row 1 of table a, `a2>1` one that refers to row 1, `a3!` updates, `a4-` deletes.
    fn operations(text: &str) -> Vec<WriteOperation> {
        let table = |name: &str| {
            let columns = vec![Column::new("parent", Kind::Lookup)];
            Arc::new(Table::new(Arc::new(Schema::new(SystemKind::Dataverse, name, name, columns))))
        };
        let tables = [table("a"), table("b")];
        let read = |word: &str| {
            let (table, rest) = word.split_at(1);
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let id = |text: &str| Uuid::from_u128(text.parse().expect("a number"));
            let (own, more) = (id(&rest[..end]), &rest[end..]);
            let action = match more {
                "!" => Action::Update { version: None },
                "-" => Action::Delete { version: None },
                _ => Action::Create { id: Some(own) },
            };
            let values = more.strip_prefix('>').map(|to| (0, Value::Guid(id(to)))).into_iter().collect();
            let table = Arc::clone(&tables[usize::from(table == "b")]);
            WriteOperation { table, address: Address::Id(own), action, values, sets: Vec::new() }
        };
        text.split_whitespace().map(read).collect()
    }

    #[test]
    fn new_rows_of_a_table_go_together_and_the_rest_singly() {
        for (rows, wanted) in [
            ("a1 a2 a3", "[0 1 2]"),
            ("a1", "0"),
            ("a1 b1 b2", "0 [1 2]"),
            ("a1 a2! a3", "[0 2] 1"),
            ("a1 a2 a3>1 a4", "[0 1] [2 3]"),
            ("a1 a2 b3>1 b4", "[0 1] [2 3]"),
            ("a1 a2 a3- a4- b5-", "[0 1] 2 3 4"),
        ] {
            let shown = pack_creates(&operations(rows)).into_iter().map(|carried| match carried {
                Carried::One(row) => row.to_string(),
                Carried::Many(rows) => {
                    format!("[{}]", rows.iter().map(usize::to_string).collect::<Vec<_>>().join(" "))
                }
            });
            assert_eq!(shown.collect::<Vec<_>>().join(" "), wanted, "{rows}");
        }
    }

    #[test]
    fn what_fits_singly_goes_singly_and_what_does_not_fit_is_told() {
        let many = |count: usize, more: &str| {
            operations(&(1..=count).map(|number| format!("a{number}{more}")).collect::<Vec<_>>().join(" "))
        };
        for (system, count, more, wanted) in [
            (SystemKind::Dataverse, 998, "", "998"),
            (SystemKind::Dataverse, 999, "", "1"),
            (SystemKind::Dataverse, 1_000, "", "1"),
            (SystemKind::Dataverse, 1_001, "", "DW-3006"),
            (SystemKind::Dataverse, 998, "!", "998"),
            (SystemKind::Dataverse, 999, "!", "DW-3006"),
            (SystemKind::Finops, 998, "", "998"),
            (SystemKind::Finops, 999, "", "DW-3006"),
        ] {
            let packed = pack(system, &many(count, more));
            let shown = packed.map_or_else(|fault| fault.code.to_string(), |carried| carried.len().to_string());
            assert_eq!(shown, wanted, "{system} {count}{more}");
        }
    }
}
