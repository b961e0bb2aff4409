//! Anything at all as an answer: it is refused or understood, nothing panics, and what is understood keeps every rule.
//!
//! Runs for a moment with the tests, and for as long as wanted with `cargo bolero`. The generator begins with sound
//! answers and breaks a few bytes and lengths of them, because random buffers fail at the first check.

use bolero::TypeGenerator;
use dualwright_core::{Column, Kind, Operation, Value};

use super::answers::{Answerer, Mapped, MappedTable, Merged, Patch, Slice};
use super::{Grant, ISSUES_PER_ROW_MAX, Layout, ROWS_PER_SOURCE_ROW_MAX, layout};
use crate::bindings::{table_map, table_map_back, transform, wit};
use crate::description::Description;

const ROWS: usize = 3;
const START: usize = 10;

/// One returned column: mostly as it has to be.
#[derive(Debug, Clone, TypeGenerator)]
struct AnyColumn {
    id: u8,
    /// Says another kind than its column has.
    wrong_kind: Option<u16>,
    states: Option<[u8; ROWS]>,
    lengths: [u8; ROWS],
    /// What the cells are made of.
    bytes: Vec<u8>,
    broken: Vec<Broken>,
}

/// One thing done to a sound column.
#[derive(Debug, Clone, TypeGenerator)]
enum Broken {
    State(u8, u8),
    Offset(u8, u8),
    Data(u8, u8),
    CutState(u8),
    CutOffsets(u8),
    CutData(u8),
    MoreData(u8),
}

#[derive(Debug, Clone, TypeGenerator)]
struct AnyIssue {
    row: u8,
    column: Option<u8>,
    severity: u8,
    code: String,
    args: Vec<String>,
}

#[derive(Debug, Clone, TypeGenerator)]
struct AnyTable {
    table: u8,
    rows: u8,
    sources: Vec<u8>,
    actions: Vec<u8>,
    columns: Vec<AnyColumn>,
    references: Vec<(u8, u8, u8, u8)>,
}

#[derive(Debug, Clone, TypeGenerator)]
struct AnyAnswer {
    tables: Vec<AnyTable>,
    columns: Vec<AnyColumn>,
    actions: Vec<u8>,
    issues: Vec<AnyIssue>,
}

/// A column of every kind, some of them writable.
fn schema() -> (Vec<Column>, Vec<bool>) {
    let columns: Vec<Column> = (1..=14)
        .map(|code| {
            let kind = Kind::from_code(code).expect("there are fourteen");
            let mut column = Column::new(format!("C{code}"), kind);
            column.length_max = (kind == Kind::Text).then_some(4);
            column.scale = Some(2);
            column
        })
        .collect();
    let writable = (0..columns.len()).map(|index| index != 1).collect();
    (columns, writable)
}

fn column(given: &AnyColumn, schema: &[Column], rows: usize) -> wit::ColumnResult {
    // One in a while is a column that is not there.
    let id = u16::from(given.id) % (schema.len() as u16 + 1);
    let kind = schema.get(usize::from(id)).map_or(Kind::Text, |column| column.kind);
    let mut state: Vec<u8> = given.states.iter().flat_map(|states| states.map(|state| state % 3)).collect();
    if given.states.is_some() {
        state.resize(rows, 2);
    }
    let cell = |index: usize| given.bytes.get(index % given.bytes.len().max(1)).copied().unwrap_or(b'1');
    let (mut offsets, mut data) = (Vec::new(), Vec::new());
    match layout(kind) {
        Layout::Fixed(width) => data.extend((0..rows * width).map(cell)),
        Layout::Offsets => {
            offsets.extend_from_slice(&0u32.to_le_bytes());
            for row in 0..rows {
                let length = usize::from(given.lengths[row % ROWS] % 8);
                // Mostly letters, so that most of it is text.
                data.extend((0..length).map(|index| cell(row + index) & 0x7f));
                offsets.extend_from_slice(&(data.len() as u32).to_le_bytes());
            }
        }
    }
    for broken in &given.broken {
        let set = |bytes: &mut Vec<u8>, at: u8, value: u8| {
            let length = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(usize::from(at) % length) {
                *byte = value;
            }
        };
        let cut = |bytes: &mut Vec<u8>, by: u8| bytes.truncate(bytes.len().saturating_sub(usize::from(by)));
        match *broken {
            Broken::State(at, value) => set(&mut state, at, value),
            Broken::Offset(at, value) => set(&mut offsets, at, value),
            Broken::Data(at, value) => set(&mut data, at, value),
            Broken::CutState(by) => cut(&mut state, by),
            Broken::CutOffsets(by) => cut(&mut offsets, by),
            Broken::CutData(by) => cut(&mut data, by),
            Broken::MoreData(value) => data.push(value),
        }
    }
    wit::ColumnResult { id, kind: given.wrong_kind.unwrap_or(kind.code()), state, offsets, data }
}

fn columns(given: &[AnyColumn], schema: &[Column], rows: usize) -> Vec<wit::ColumnResult> {
    given.iter().map(|given| column(given, schema, rows)).collect()
}

fn issues(given: &[AnyIssue]) -> Vec<wit::Issue> {
    let issue = |given: &AnyIssue| wit::Issue {
        row: u32::from(given.row) % (ROWS as u32 + 1),
        column: given.column.map(|column| u16::from(column) % 16),
        severity: match given.severity % 3 {
            0 => wit::Severity::Info,
            1 => wit::Severity::Warning,
            _ => wit::Severity::Error,
        },
        code: given.code.clone(),
        args: given.args.clone(),
    };
    given.iter().map(issue).collect()
}

fn table(given: &AnyTable, schema: &[Column]) -> table_map::TableRows {
    let rows = u32::from(given.rows) % 8;
    let mut sources = given.sources.iter().map(|source| u32::from(*source) % 4).collect::<Vec<_>>();
    sources.resize(rows as usize, 0);
    let reference = |&(row, column, target_table, target_row): &(u8, u8, u8, u8)| table_map::Reference {
        row: u32::from(row) % 8,
        column: 13 - u16::from(column) % 2,
        target_table: u16::from(target_table) % 3,
        target_row: u32::from(target_row) % 8,
    };
    table_map::TableRows {
        table: u16::from(given.table) % 3,
        rows,
        source_rows: sources.iter().flat_map(|source| source.to_le_bytes()).collect(),
        actions: given.actions.iter().map(|action| action % 4).collect(),
        columns: columns(&given.columns, schema, rows as usize),
        references: given.references.iter().map(reference).collect(),
    }
}

fn description() -> Description {
    Description {
        name: "any".to_owned(),
        version: "0.1.0".to_owned(),
        text: String::new(),
        parameters: Vec::new(),
        columns: Vec::new(),
        issues: Vec::new(),
        idempotent: false,
        reads_before: false,
    }
}

/// A value of that kind, within what its column can hold.
fn fits(value: &Value, column: &Column) -> bool {
    match (column.kind, value) {
        (_, Value::Null) => true,
        (Kind::Boolean, Value::Boolean(_))
        | (Kind::Int64, Value::Int(_))
        | (Kind::Timestamp, Value::Timestamp(_))
        | (Kind::Guid | Kind::Lookup, Value::Guid(_))
        | (Kind::Bytes, Value::Bytes(_))
        | (Kind::Choice | Kind::MultiChoice, Value::Text(_)) => true,
        (Kind::Date, Value::Date(days)) => (-719_162..=2_932_896).contains(days),
        (Kind::Float64, Value::Float(float)) => float.is_finite(),
        (Kind::Decimal | Kind::Money, Value::Decimal(decimal)) => decimal.scale() <= 2,
        (Kind::Text, Value::Text(text)) => text.chars().count() <= 4,
        (Kind::Json, Value::Text(text)) => serde_json::from_str::<serde_json::Value>(text).is_ok(),
        _ => false,
    }
}

#[test]
fn any_answer_is_refused_or_understood() {
    let (schema, writable) = schema();
    let description = description();
    let by = Answerer { label: "plugin any", plugin: "any", description: &description };
    bolero::check!().with_type::<AnyAnswer>().for_each(|given| {
        let grant = Grant { columns: &schema, writable: &writable };
        let slice = Slice { start: START, rows: ROWS };
        let own_rows = START..START + ROWS;

        let mut patch = Patch::default();
        let answer =
            transform::Patch { columns: columns(&given.columns, &schema, ROWS), issues: issues(&given.issues) };
        if by.patch(answer, grant, slice, &mut patch).is_ok() {
            assert!(patch.issues.len() <= ROWS * (ISSUES_PER_ROW_MAX + schema.len()));
            for (row, index, value) in &patch.cells {
                assert!(own_rows.contains(row) && writable[*index] && fits(value, &schema[*index]), "{value:?}");
            }
            for issue in &patch.issues {
                assert!(own_rows.contains(&issue.row) && issue.column.is_none_or(|column| column < schema.len()));
            }
        }

        let targets = [grant, grant];
        let mut mapped = Mapped::default();
        mapped.tables.resize_with(targets.len(), MappedTable::default);
        let answer = table_map::Mapped {
            tables: given.tables.iter().map(|given| table(given, &schema)).collect(),
            issues: issues(&given.issues),
        };
        if by.mapped(answer, &schema, &targets, slice, &mut mapped).is_ok() {
            for table in &mapped.tables {
                assert!(table.rows.len() <= ROWS * ROWS_PER_SOURCE_ROW_MAX);
                for row in &table.rows {
                    assert!(own_rows.contains(&row.source));
                    assert!(matches!(row.operation, Operation::Upsert | Operation::Delete));
                    for (column, value) in schema.iter().zip(&row.values) {
                        assert!(value.is_absent() || fits(value, column), "{value:?}");
                    }
                    for reference in &row.references {
                        assert!(row.values[reference.column].is_absent(), "beside a cell");
                        assert!(reference.row < mapped.tables[reference.table].rows.len(), "to a row that is there");
                    }
                }
            }
        }

        let answer = table_map_back::Merged {
            actions: given.actions.iter().map(|action| action % 4).collect(),
            columns: columns(&given.columns, &schema, ROWS),
            issues: issues(&given.issues),
        };
        if let Ok(Merged { rows, issues }) = by.merged(answer, grant, ROWS) {
            assert_eq!(rows.len(), ROWS);
            assert!(issues.iter().all(|issue| issue.row < ROWS));
        }
    });
}

/// The generator reaches both ends: without that, the test above would show nothing.
#[test]
fn sound_and_broken_answers_are_both_generated() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (schema, writable) = schema();
    let description = description();
    let by = Answerer { label: "plugin any", plugin: "any", description: &description };
    let (sound, broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    bolero::check!().with_type::<AnyColumn>().for_each(|given| {
        let answer = transform::Patch { columns: vec![column(given, &schema, ROWS)], issues: Vec::new() };
        let grant = Grant { columns: &schema, writable: &writable };
        let counted = match by.patch(answer, grant, Slice { start: 0, rows: ROWS }, &mut Patch::default()) {
            Ok(()) => &sound,
            Err(_) => &broken,
        };
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let (sound, broken) = (sound.into_inner(), broken.into_inner());
    assert!(10 < sound && 10 < broken, "{sound} sound, {broken} broken");
}
