//! Whole answers, checked: patches, rows of other tables, merged rows, issues.
//!
//! Pure: an answer and what was granted go in, values or the first violation come out. Nothing here enters a guest.

use std::collections::HashSet;

use dualwright_core::{Column, Fault, Kind, Operation, Value, error::Code};

use super::{Cell, Grant, Invalid, ROWS_PER_SOURCE_ROW_MAX, actions, columns, indices, issues};
use crate::bindings::{table_map, table_map_back, transform, wit};
use crate::description::{Description, Severity};

/// What a plugin has to say about one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowIssue {
    pub row: usize,
    /// Index in the installation's source.
    pub column: Option<usize>,
    pub severity: Severity,
    /// The plugin's own code is the foreign code; the message holds its arguments.
    pub fault: Fault,
}

/// The answer of a transform.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch {
    /// Row, column and value of each cell that changes.
    pub cells: Vec<(usize, usize, Value)>,
    pub issues: Vec<RowIssue>,
}

/// The answer of a table map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mapped {
    /// One for each target of the installation, in its order.
    pub tables: Vec<MappedTable>,
    pub issues: Vec<RowIssue>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct MappedTable {
    pub rows: Vec<MappedRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MappedRow {
    /// The source row it comes from.
    pub source: usize,
    pub operation: Operation,
    /// In the order of the target's schema; absent where the column is not written.
    pub values: Vec<Value>,
    pub references: Vec<MappedReference>,
}

/// A lookup to a row of the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedReference {
    /// The lookup column, an index in the schema of its own table.
    pub column: usize,
    /// The table that is referred to, an index in the installation's targets.
    pub table: usize,
    /// The row in that table of the answer.
    pub row: usize,
}

/// The answer of a table map's way back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// One per source row.
    pub rows: Vec<MergedRow>,
    pub issues: Vec<RowIssue>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MergedRow {
    /// `None` where there is nothing to write.
    pub operation: Option<Operation>,
    /// In the order of the source's schema; absent where the column is not written.
    pub values: Vec<Value>,
}

/// Who answered, for the texts of faults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answerer<'a> {
    /// `plugin text-cleanup 1.0.0 (map customers, transform NAME)`
    pub label: &'a str,
    pub plugin: &'a str,
    pub description: &'a Description,
}

/// Which rows of a call were asked for: calls are cut into slices, and an answer counts from the start of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    pub start: usize,
    pub rows: usize,
}

impl Answerer<'_> {
    pub fn patch(
        &self,
        answer: transform::Patch,
        grant: Grant<'_>,
        slice: Slice,
        patch: &mut Patch,
    ) -> Result<(), Invalid> {
        let Slice { start, rows } = slice;
        let returned = columns(&answer.columns, grant, rows)?;
        patch.cells.reserve(returned.len() * rows);
        for column in &returned {
            for row in 0..rows {
                match column.cell(row)? {
                    Cell::Absent => {}
                    Cell::Set(value) => patch.cells.push((start + row, column.index, value)),
                    Cell::TooLong(characters) => patch.issues.push(RowIssue {
                        column: Some(column.index),
                        ..self.too_long(column.column(), characters, start + row)
                    }),
                }
            }
        }
        self.issues(answer.issues, grant.columns, slice, &mut patch.issues)
    }

    pub fn issues(
        &self,
        given: Vec<wit::Issue>,
        columns: &[Column],
        slice: Slice,
        found: &mut Vec<RowIssue>,
    ) -> Result<(), Invalid> {
        issues(&given, columns, slice.rows)?;
        found.extend(given.into_iter().map(|issue| {
            let message = self.description.issue_message(&issue.code, &issue.args);
            let fault = Fault::new(Code::PluginRejected, format!("{}: {message}", self.plugin)).foreign(issue.code);
            let column = issue.column.map(usize::from);
            RowIssue {
                row: slice.start + issue.row as usize,
                column,
                severity: issue.severity.into(),
                fault: match column {
                    Some(column) => fault.column(&columns[column].name),
                    None => fault,
                },
            }
        }));
        Ok(())
    }

    fn too_long(&self, column: &Column, characters: usize, row: usize) -> RowIssue {
        let message = format!(
            "{} gave {characters} characters for a column of {}",
            self.label,
            column.length_max.unwrap_or_default()
        );
        RowIssue {
            row,
            column: None,
            severity: Severity::Error,
            fault: Fault::new(Code::TextTooLong, message).column(&column.name),
        }
    }

    /// `mapped` has a table for each of `targets`.
    pub fn mapped(
        &self,
        answer: table_map::Mapped,
        source: &[Column],
        targets: &[Grant<'_>],
        slice: Slice,
        mapped: &mut Mapped,
    ) -> Result<(), Invalid> {
        let rows_of = |table: usize| {
            answer.tables.iter().find(|given| usize::from(given.table) == table).map_or(0, |given| given.rows as usize)
        };
        // References count within the slice; earlier slices stand before them.
        let before: Vec<usize> = mapped.tables.iter().map(|table| table.rows.len()).collect();
        let mut seen = HashSet::new();
        for given in &answer.tables {
            let table = usize::from(given.table);
            let Some(&grant) = targets.get(table) else {
                return Err(Invalid::new(format!("target table {table} of {}", targets.len())));
            };
            if !seen.insert(table) {
                return Err(Invalid::new(format!("target table {table} is there twice")));
            }
            let (count, rows) = (given.rows as usize, slice.rows);
            if ROWS_PER_SOURCE_ROW_MAX * rows < count {
                return Err(Invalid::new(format!("{count} rows for target table {table} from {rows} source rows")));
            }
            let mut made = self.mapped_rows(given, grant, slice, &mut mapped.issues)?;
            check_references(given, grant, targets.len(), &rows_of, &mut made, &before)?;
            mapped.tables[table].rows.extend(made);
        }
        self.issues(answer.issues, source, slice, &mut mapped.issues)
    }

    fn mapped_rows(
        &self,
        given: &table_map::TableRows,
        grant: Grant<'_>,
        slice: Slice,
        found: &mut Vec<RowIssue>,
    ) -> Result<Vec<MappedRow>, Invalid> {
        let count = given.rows as usize;
        let sources = indices(&given.source_rows, count, slice.rows, "source row")?;
        let actions = actions(&given.actions, count, 1, &[1, 2])?;
        let returned = columns(&given.columns, grant, count)?;
        let mut made: Vec<MappedRow> = sources
            .into_iter()
            .zip(actions)
            .map(|(source, action)| MappedRow {
                source: slice.start + source,
                operation: if action == 2 { Operation::Delete } else { Operation::Upsert },
                values: vec![Value::Absent; grant.columns.len()],
                references: Vec::new(),
            })
            .collect();
        for column in &returned {
            for (row, made) in made.iter_mut().enumerate() {
                match column.cell(row)? {
                    Cell::Absent => {}
                    Cell::Set(value) => made.values[column.index] = value,
                    Cell::TooLong(characters) => found.push(self.too_long(column.column(), characters, made.source)),
                }
            }
        }
        Ok(made)
    }

    /// `rows` were to be computed.
    pub fn merged(&self, answer: table_map_back::Merged, grant: Grant<'_>, rows: usize) -> Result<Merged, Invalid> {
        let actions = actions(&answer.actions, rows, 1, &[0, 1, 2])?;
        let returned = columns(&answer.columns, grant, rows)?;
        let mut merged = Merged::default();
        merged.rows.extend(actions.into_iter().map(|action| MergedRow {
            operation: match action {
                0 => None,
                2 => Some(Operation::Delete),
                _ => Some(Operation::Upsert),
            },
            values: vec![Value::Absent; grant.columns.len()],
        }));
        for column in &returned {
            for (row, made) in merged.rows.iter_mut().enumerate() {
                match column.cell(row)? {
                    Cell::Absent => {}
                    Cell::Set(value) => made.values[column.index] = value,
                    Cell::TooLong(characters) => merged.issues.push(RowIssue {
                        column: Some(column.index),
                        ..self.too_long(column.column(), characters, row)
                    }),
                }
            }
        }
        self.issues(answer.issues, grant.columns, Slice { start: 0, rows }, &mut merged.issues)?;
        Ok(merged)
    }
}

/// References go from an unwritten lookup column to a row of the same answer, at most one per cell.
fn check_references(
    given: &table_map::TableRows,
    grant: Grant<'_>,
    targets: usize,
    rows_of: &dyn Fn(usize) -> usize,
    made: &mut [MappedRow],
    before: &[usize],
) -> Result<(), Invalid> {
    for reference in &given.references {
        let (row, column) = (reference.row as usize, usize::from(reference.column));
        let (table, target_row) = (usize::from(reference.target_table), reference.target_row as usize);
        let Some(made) = made.get_mut(row) else {
            return Err(Invalid::new(format!("a reference in row {row} of {}", given.rows)));
        };
        let lookup = match grant.columns.get(column) {
            Some(lookup) if lookup.kind == Kind::Lookup && grant.writable[column] => lookup,
            _ => return Err(Invalid::new(format!("a reference in column {column}, which is no writable lookup"))),
        };
        let what = if !made.values[column].is_absent() {
            "a reference beside a cell"
        } else if made.references.iter().any(|other| other.column == column) {
            "two references in one cell"
        } else if targets <= table || rows_of(table) <= target_row {
            "a reference to a row that is not there"
        } else {
            made.references.push(MappedReference { column, table, row: before[table] + target_row });
            continue;
        };
        return Err(Invalid { column: Some(lookup.name.clone()), what: format!("{what} in row {row}") });
    }
    Ok(())
}
