//! Number sequences: keys that are drawn when a row is created without them.
//!
//! Owns how numbers are counted and spelled. A continuous sequence counts inside the transaction of the row, so a row
//! that is refused gives its number back; the others count outside of it, and leave gaps.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::catalogue::Table;
use crate::cell::{self, Cell};
use crate::definition::NumberSequenceDefinition;
use crate::session::Session;
use crate::store;

/// The last numbers of sequences that are not continuous, by the name of their counter.
#[derive(Debug, Default)]
pub(crate) struct Sequences(Mutex<HashMap<String, u64>>);

/// How a number is written: `C-######` makes 12 to `C-000012`. A number that is longer than its place is not cut.
pub(crate) fn spell(format: &str, number: u64) -> String {
    let Some(start) = format.find('#') else { return format!("{format}{number}") };
    let width = format.len() - start - format[start..].trim_start_matches('#').len();
    format!("{}{number:0width$}{}", &format[..start], &format[start + width..])
}

impl Sequences {
    /// Draws numbers for the columns of a new row that are empty and have a sequence. Numbers that a row has already,
    /// because somebody chose them, are passed over.
    pub fn fill(&self, session: &Session<'_>, table: &Table, cells: &mut [Cell]) -> rusqlite::Result<()> {
        for (at, column) in table.columns.iter().enumerate() {
            let Some(sequence) = &column.definition.number_sequence else { continue };
            if cells[at] != column.empty {
                continue;
            }
            let counter = counter_name(table, at, cells);
            // A chosen key may stand in the way; more than that in a row does not happen by choice.
            const TAKEN_MAX: u32 = 10_000;
            for _ in 0..TAKEN_MAX {
                let number = self.next(session, &counter, sequence)?;
                cells[at] = Cell::Owned(cell::quoted(&spell(&sequence.format, number)));
                let is_taken = table.key.contains(&at)
                    && table.key.iter().all(|own| cells[*own] != table.columns[*own].empty)
                    && store::find(session.connection(), &table.row_key(cells))?.is_some();
                if !is_taken {
                    break;
                }
            }
        }
        Ok(())
    }

    fn next(&self, session: &Session<'_>, counter: &str, sequence: &NumberSequenceDefinition) -> rusqlite::Result<u64> {
        let kept: Option<i64> = store::setting(session.connection(), counter)?;
        let mut last = kept.and_then(|last| u64::try_from(last).ok());
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !sequence.continuous {
            last = last.max(counted.get(counter).copied());
        }
        let number = last.map_or(sequence.first.unwrap_or(1), |last| last.saturating_add(1));
        if !sequence.continuous {
            counted.insert(counter.to_owned(), number);
        }
        drop(counted);
        store::put_setting(session.connection(), counter, i64::try_from(number).unwrap_or(i64::MAX))?;
        Ok(number)
    }
}

/// Every company counts for itself.
fn counter_name(table: &Table, column: usize, cells: &[Cell]) -> String {
    let company = table.company.and_then(|at| cell::text_of(&cells[at])).unwrap_or_default();
    format!("sequence {} {} {company}", table.name(), table.columns[column].property)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_into_their_format() {
        for (format, number, wanted) in [
            ("C-######", 12, "C-000012"),
            ("######", 1_234_567, "1234567"),
            ("US-###-V", 7, "US-007-V"),
            ("#", 10, "10"),
            ("ä##", 3, "ä03"),
            ("none", 3, "none3"),
        ] {
            assert_eq!(spell(format, number), wanted, "{format} {number}");
        }
    }
}
