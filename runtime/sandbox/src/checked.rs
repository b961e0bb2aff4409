//! What a guest returned, checked: the only way from a guest's buffers to values.
//!
//! Everything in an answer is hostile. One violation makes the answer as a whole invalid; the fault names the column and
//! what is wrong with it, never the value. A text that is longer than its column is not a violation but a fault of its
//! row: the plugin may have been given it like that.

pub(crate) mod answers;
#[cfg(test)]
mod fuzz;

use std::sync::Arc;

use dualwright_core::{Column, Fault, Kind, Value, error::Code};
use rust_decimal::Decimal;

use crate::batch::{ABSENT, Layout, NULL, VALUE, layout, scale};
use crate::bindings::wit;

/// Issues per row; a plugin that finds more has found enough.
const ISSUES_PER_ROW_MAX: usize = 16;
/// Arguments of an issue, and bytes of one.
const ARGUMENTS_MAX: usize = 16;
const ARGUMENT_BYTES_MAX: usize = 4 * 1024;
const CODE_BYTES_MAX: usize = 100;
/// Rows that one source row can become in one target table.
pub(crate) const ROWS_PER_SOURCE_ROW_MAX: usize = 16;

/// 0001-01-01 and 9999-12-31, the dates that both systems can write.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;
const MICROS: std::ops::RangeInclusive<i64> = {
    let day = dualwright_core::value::MICROS_PER_DAY;
    *DAYS.start() as i64 * day..=(*DAYS.end() as i64 + 1) * day - 1
};

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub column: Option<Arc<str>>,
    pub what: String,
}

impl Invalid {
    pub fn new(what: impl Into<String>) -> Self {
        Self { column: None, what: what.into() }
    }

    fn in_column(column: &Column, what: impl Into<String>) -> Self {
        Self { column: Some(column.name.clone()), what: what.into() }
    }

    pub fn fault(self, plugin: &str) -> Fault {
        let fault = Fault::new(Code::PluginBadOutput, format!("{plugin} gave an invalid answer: {}", self.what));
        match self.column {
            Some(column) => fault.column(column),
            None => fault,
        }
    }
}

/// Which columns may be written, and what they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant<'a> {
    pub columns: &'a [Column],
    pub writable: &'a [bool],
}

/// One returned cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// Leave it as it is.
    Absent,
    /// Null or a value.
    Set(Value),
    /// A text of that many characters, longer than the column.
    TooLong(usize),
}

/// One returned column whose buffers are sound.
#[derive(Debug)]
pub(crate) struct CheckedColumn<'a> {
    /// Its index in the schema.
    pub index: usize,
    column: &'a Column,
    state: &'a [u8],
    cells: Cells<'a>,
}

#[derive(Debug)]
enum Cells<'a> {
    Fixed { width: usize, data: &'a [u8] },
    Text { offsets: &'a [u8], data: &'a str },
    Bytes { offsets: &'a [u8], data: &'a [u8] },
}

/// Checks that every column is granted, there once, of the right kind, and that its buffers hold exactly `rows` cells.
pub(crate) fn columns<'a>(
    returned: &'a [wit::ColumnResult],
    grant: Grant<'a>,
    rows: usize,
) -> Result<Vec<CheckedColumn<'a>>, Invalid> {
    let mut seen = vec![false; grant.columns.len()];
    let mut checked = Vec::with_capacity(returned.len().min(grant.columns.len()));
    for answer in returned {
        let index = usize::from(answer.id);
        let Some(column) = grant.columns.get(index) else {
            return Err(Invalid::new(format!("column {index} of {}", grant.columns.len())));
        };
        let invalid = |what: String| Invalid::in_column(column, what);
        if !grant.writable.get(index).copied().unwrap_or(false) {
            return Err(invalid("the column is not granted for writing".into()));
        }
        if std::mem::replace(&mut seen[index], true) {
            return Err(invalid("the column is there twice".into()));
        }
        if answer.kind != column.kind.code() {
            return Err(invalid(format!("kind {} instead of {}", answer.kind, column.kind.code())));
        }
        if !answer.state.is_empty() && answer.state.len() != rows {
            return Err(invalid(format!("{} states for {rows} rows", answer.state.len())));
        }
        if let Some(row) = answer.state.iter().position(|&state| !matches!(state, ABSENT | NULL | VALUE)) {
            return Err(invalid(format!("state {} in row {row}", answer.state[row])));
        }
        let cells = match layout(column.kind) {
            Layout::Fixed(width) => {
                if !answer.offsets.is_empty() {
                    return Err(invalid("offsets in a column of fixed width".into()));
                }
                if answer.data.len() != rows * width {
                    return Err(invalid(format!("{} bytes for {rows} rows of {width}", answer.data.len())));
                }
                Cells::Fixed { width, data: &answer.data }
            }
            Layout::Offsets => {
                check_offsets(&answer.offsets, answer.data.len(), rows).map_err(invalid)?;
                if column.kind == Kind::Bytes {
                    Cells::Bytes { offsets: &answer.offsets, data: &answer.data }
                } else {
                    let text = std::str::from_utf8(&answer.data)
                        .map_err(|error| invalid(format!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
                    if let Some(row) = (0..rows).find(|&row| !text.is_char_boundary(offset(&answer.offsets, row + 1))) {
                        return Err(invalid(format!("row {row} ends inside a character")));
                    }
                    Cells::Text { offsets: &answer.offsets, data: text }
                }
            }
        };
        checked.push(CheckedColumn { index, column, state: &answer.state, cells });
    }
    Ok(checked)
}

fn check_offsets(offsets: &[u8], data: usize, rows: usize) -> Result<(), String> {
    if offsets.len() != 4 * (rows + 1) {
        return Err(format!("{} bytes of offsets for {rows} rows", offsets.len()));
    }
    let mut last = 0;
    for row in 0..=rows {
        let next = offset(offsets, row);
        if row == 0 && next != 0 {
            return Err("the first offset is not 0".into());
        }
        if next < last {
            return Err(format!("the offsets descend in row {}", row - 1));
        }
        if data < next {
            return Err(format!("row {} ends behind the data", row.saturating_sub(1)));
        }
        last = next;
    }
    if last != data {
        return Err(format!("the last offset is {last}, and there are {data} bytes"));
    }
    Ok(())
}

/// The offset with that number. The buffer's length was checked.
fn offset(offsets: &[u8], index: usize) -> usize {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&offsets[4 * index..4 * index + 4]);
    u32::from_le_bytes(bytes) as usize
}

impl CheckedColumn<'_> {
    pub fn column(&self) -> &Column {
        self.column
    }

    /// The cell of a row below the number of rows that was checked.
    pub fn cell(&self, row: usize) -> Result<Cell, Invalid> {
        match self.state.get(row) {
            Some(&ABSENT) => return Ok(Cell::Absent),
            Some(&NULL) => return Ok(Cell::Set(Value::Null)),
            _ => {}
        }
        let invalid = |what: &str| Invalid::in_column(self.column, format!("{what} in row {row}"));
        let value = match self.cells {
            Cells::Fixed { width, data } => {
                let bytes = &data[width * row..width * (row + 1)];
                self.fixed(bytes).map_err(invalid)?
            }
            Cells::Text { offsets, data } => {
                let text = &data[offset(offsets, row)..offset(offsets, row + 1)];
                if let Some(length_max) = self.column.length_max
                    && length_max as usize <= text.len()
                {
                    let characters = text.chars().count();
                    if (length_max as usize) < characters {
                        return Ok(Cell::TooLong(characters));
                    }
                }
                if self.column.kind == Kind::Json && serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
                    return Err(invalid("invalid JSON"));
                }
                Value::Text(Arc::from(text))
            }
            Cells::Bytes { offsets, data } => {
                Value::Bytes(Arc::from(&data[offset(offsets, row)..offset(offsets, row + 1)]))
            }
        };
        Ok(Cell::Set(value))
    }

    fn fixed(&self, bytes: &[u8]) -> Result<Value, &'static str> {
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes.try_into().expect("the width belongs to the kind")
        }
        Ok(match self.column.kind {
            Kind::Boolean => match bytes {
                [0] => Value::Boolean(false),
                [1] => Value::Boolean(true),
                _ => return Err("neither 0 nor 1"),
            },
            Kind::Int64 => Value::Int(i64::from_le_bytes(array(bytes))),
            Kind::Float64 => match f64::from_le_bytes(array(bytes)) {
                float if float.is_finite() => Value::Float(float),
                _ => return Err("a float that is no number"),
            },
            Kind::Decimal | Kind::Money => {
                let decimal = from_scale(i128::from_le_bytes(array(bytes)), scale(self.column));
                Value::Decimal(decimal.ok_or("a decimal that does not fit")?)
            }
            Kind::Timestamp => match i64::from_le_bytes(array(bytes)) {
                micros if MICROS.contains(&micros) => Value::Timestamp(micros),
                _ => return Err("a time outside the years 1 to 9999"),
            },
            Kind::Date => match i32::from_le_bytes(array(bytes)) {
                days if DAYS.contains(&days) => Value::Date(days),
                _ => return Err("a date outside the years 1 to 9999"),
            },
            Kind::Guid | Kind::Lookup => Value::Guid(uuid::Uuid::from_bytes(array(bytes))),
            Kind::Text | Kind::Bytes | Kind::Json | Kind::Choice | Kind::MultiChoice => {
                unreachable!("kinds with offsets are not fixed")
            }
        })
    }
}

/// The decimal, without trailing zeros, if 96 bits hold its digits.
fn from_scale(mut mantissa: i128, scale: u8) -> Option<Decimal> {
    let mut scale = u32::from(scale);
    while 0 < scale {
        // Almost every amount fits 64 bits, where a division costs a tenth.
        match i64::try_from(mantissa) {
            Ok(small) if small % 10 == 0 => mantissa = i128::from(small / 10),
            Err(_) if mantissa % 10 == 0 => mantissa /= 10,
            _ => break,
        }
        scale -= 1;
    }
    Decimal::try_from_i128_with_scale(mantissa, scale).ok()
}

/// Little-endian u32, one per row, each below `bound`.
pub(crate) fn indices(bytes: &[u8], rows: usize, bound: usize, what: &str) -> Result<Vec<usize>, Invalid> {
    if bytes.len() != 4 * rows {
        return Err(Invalid::new(format!("{} bytes of {what} for {rows} rows", bytes.len())));
    }
    (0..rows)
        .map(|row| match offset(bytes, row) {
            index if index < bound => Ok(index),
            index => Err(Invalid::new(format!("{what} {index} of {bound} in row {row}"))),
        })
        .collect()
}

/// One byte per row, each at most `max`; empty means every row is `usual`.
pub(crate) fn actions(bytes: &[u8], rows: usize, usual: u8, allowed: &[u8]) -> Result<Vec<u8>, Invalid> {
    if bytes.is_empty() {
        return Ok(vec![usual; rows]);
    }
    if bytes.len() != rows {
        return Err(Invalid::new(format!("{} actions for {rows} rows", bytes.len())));
    }
    match bytes.iter().position(|action| !allowed.contains(action)) {
        Some(row) => Err(Invalid::new(format!("action {} in row {row}", bytes[row]))),
        None => Ok(bytes.to_vec()),
    }
}

/// Checks numbers, columns and sizes of issues.
pub(crate) fn issues(issues: &[wit::Issue], columns: &[Column], rows: usize) -> Result<(), Invalid> {
    if ISSUES_PER_ROW_MAX * rows < issues.len() {
        return Err(Invalid::new(format!("{} issues for {rows} rows", issues.len())));
    }
    for issue in issues {
        if rows <= issue.row as usize {
            return Err(Invalid::new(format!("an issue for row {} of {rows}", issue.row)));
        }
        if let Some(column) = issue.column
            && columns.len() <= usize::from(column)
        {
            return Err(Invalid::new(format!("an issue for column {column} of {}", columns.len())));
        }
        let code = &issue.code;
        if code.is_empty() || CODE_BYTES_MAX < code.len() || !code.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Invalid::new("an issue whose code is no short name"));
        }
        if ARGUMENTS_MAX < issue.args.len() {
            return Err(Invalid::new(format!("an issue with {} arguments", issue.args.len())));
        }
        if let Some(long) = issue.args.iter().find(|argument| ARGUMENT_BYTES_MAX < argument.len()) {
            return Err(Invalid::new(format!("an issue with an argument of {} bytes", long.len())));
        }
    }
    Ok(())
}

/// A text of a guest for people: at most `bytes_max` bytes, without control characters.
pub(crate) fn printable(text: &str, bytes_max: usize) -> String {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Marks that turn the direction of text can forge what a line seems to say.
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut printable: String = text[..end].chars().map(|c| if hidden(c) { ' ' } else { c }).collect();
    if end < text.len() {
        printable.push('…');
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: Kind) -> Column {
        let mut column = Column::new("c", kind);
        column.length_max = Some(3);
        column.scale = Some(2);
        column
    }

    fn answer(kind: Kind, state: &[u8], offsets: &[u32], data: &[u8]) -> wit::ColumnResult {
        wit::ColumnResult {
            id: 0,
            kind: kind.code(),
            state: state.to_vec(),
            offsets: offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect(),
            data: data.to_vec(),
        }
    }

    fn cells(answer: &wit::ColumnResult, column: &Column, rows: usize) -> Result<Vec<Cell>, String> {
        let grant = Grant { columns: std::slice::from_ref(column), writable: &[true] };
        let checked = columns(std::slice::from_ref(answer), grant, rows).map_err(|invalid| invalid.what)?;
        (0..rows).map(|row| checked[0].cell(row).map_err(|invalid| invalid.what)).collect()
    }

    #[test]
    fn sound_buffers_become_values() {
        let decimal = |text: &str| Cell::Set(Value::Decimal(text.parse().unwrap()));
        let text = |text: &str| Cell::Set(Value::text(text));
        type Case = (Kind, &'static [u8], &'static [u32], Vec<u8>, Vec<Cell>);
        let cases: Vec<Case> = vec![
            (Kind::Text, &[], &[0, 2, 2], "ä".into(), vec![text("ä"), text("")]),
            (Kind::Text, &[0, 1], &[0, 0, 0], vec![], vec![Cell::Absent, Cell::Set(Value::Null)]),
            (Kind::Text, &[], &[0, 3, 7], "abcabcd".into(), vec![text("abc"), Cell::TooLong(4)]),
            (Kind::Text, &[], &[0, 6], "äöü".into(), vec![text("äöü")]),
            (Kind::Boolean, &[2, 0], &[], vec![1, 9], vec![Cell::Set(Value::Boolean(true)), Cell::Absent]),
            (Kind::Decimal, &[], &[], (-1250i128).to_le_bytes().to_vec(), vec![decimal("-12.5")]),
            (Kind::Money, &[], &[], (100i128).to_le_bytes().to_vec(), vec![decimal("1")]),
            (Kind::Date, &[], &[], (-719_162i32).to_le_bytes().to_vec(), vec![Cell::Set(Value::Date(-719_162))]),
            (Kind::Json, &[], &[0, 2], "{}".into(), vec![text("{}")]),
            (Kind::Bytes, &[], &[0, 1], vec![0xff], vec![Cell::Set(Value::Bytes(Arc::from([0xff])))]),
            (Kind::Int64, &[], &[], i64::MIN.to_le_bytes().to_vec(), vec![Cell::Set(Value::Int(i64::MIN))]),
        ];
        for (kind, state, offsets, data, wanted) in cases {
            let answer = answer(kind, state, offsets, &data);
            assert_eq!(cells(&answer, &column(kind), wanted.len()), Ok(wanted), "{answer:?}");
        }
    }

    #[test]
    fn unsound_buffers_are_refused() {
        let huge = i128::MAX.to_le_bytes();
        let nan = f64::NAN.to_le_bytes();
        type Case<'a> = (Kind, &'a [u8], &'a [u32], &'a [u8], usize, &'a str);
        let cases: Vec<Case<'_>> = vec![
            (Kind::Text, &[], &[0, 2, 1], b"ab", 2, "the offsets descend in row 1"),
            (Kind::Text, &[], &[0, 9], b"ab", 1, "row 0 ends behind the data"),
            (Kind::Text, &[], &[1, 2], b"ab", 1, "the first offset is not 0"),
            (Kind::Text, &[], &[0, 1], b"ab", 1, "the last offset is 1, and there are 2 bytes"),
            (Kind::Text, &[], &[0, 1, 2], "ä".as_bytes(), 2, "row 0 ends inside a character"),
            (Kind::Text, &[], &[0, 2], &[0xc3, 0x28], 1, "invalid UTF-8 at byte 0"),
            (Kind::Text, &[], &[0], b"", 1, "4 bytes of offsets for 1 rows"),
            (Kind::Text, &[2], &[0, 1, 2], b"ab", 2, "1 states for 2 rows"),
            (Kind::Text, &[3], &[0, 1], b"a", 1, "state 3 in row 0"),
            (Kind::Boolean, &[], &[], &[2], 1, "neither 0 nor 1 in row 0"),
            (Kind::Boolean, &[], &[], &[1, 1], 1, "2 bytes for 1 rows of 1"),
            (Kind::Boolean, &[], &[0, 1], &[1], 1, "offsets in a column of fixed width"),
            (Kind::Float64, &[], &[], &nan, 1, "a float that is no number in row 0"),
            (Kind::Decimal, &[], &[], &huge, 1, "a decimal that does not fit in row 0"),
            (Kind::Date, &[], &[], &[0xff, 0xff, 0xff, 0x7f], 1, "a date outside the years 1 to 9999 in row 0"),
            (Kind::Json, &[], &[0, 1], b"{", 1, "invalid JSON in row 0"),
        ];
        for (kind, state, offsets, data, rows, wanted) in cases {
            let answer = answer(kind, state, offsets, data);
            assert_eq!(cells(&answer, &column(kind), rows), Err(wanted.to_owned()), "{answer:?}");
        }
    }

    #[test]
    fn only_granted_columns_are_taken_once_and_in_their_kind() {
        let schema = [column(Kind::Boolean), column(Kind::Boolean)];
        let grant = Grant { columns: &schema, writable: &[true, false] };
        let of = |id, kind: Kind| wit::ColumnResult { id, ..answer(kind, &[], &[], &[1]) };
        let cases: [(&[wit::ColumnResult], &str); 4] = [
            (&[of(1, Kind::Boolean)], "the column is not granted for writing"),
            (&[of(7, Kind::Boolean)], "column 7 of 2"),
            (&[of(0, Kind::Boolean), of(0, Kind::Boolean)], "the column is there twice"),
            (&[of(0, Kind::Text)], "kind 5 instead of 1"),
        ];
        for (answer, wanted) in cases {
            assert_eq!(columns(answer, grant, 1).map(|_| ()).map_err(|invalid| invalid.what), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn issues_are_bounded() {
        let issue = |row, column, code: &str, args: Vec<String>| wit::Issue {
            row,
            column,
            severity: wit::Severity::Error,
            code: code.into(),
            args,
        };
        let schema = [column(Kind::Text)];
        let cases = [
            (vec![issue(0, Some(0), "fine", vec!["a".into()])], None),
            (vec![issue(2, None, "late", vec![])], Some("an issue for row 2 of 2")),
            (vec![issue(0, Some(1), "wide", vec![])], Some("an issue for column 1 of 1")),
            (vec![issue(0, None, "", vec![])], Some("an issue whose code is no short name")),
            (vec![issue(0, None, "a\nb", vec![])], Some("an issue whose code is no short name")),
            (vec![issue(0, None, "long", vec!["x".repeat(5_000)])], Some("an issue with an argument of 5000 bytes")),
            (vec![issue(0, None, "many", vec![String::new(); 17])], Some("an issue with 17 arguments")),
            (vec![issue(0, None, "flood", vec![]); 33], Some("33 issues for 2 rows")),
        ];
        for (given, wanted) in cases {
            assert_eq!(issues(&given, &schema, 2).err().map(|invalid| invalid.what).as_deref(), wanted);
        }
    }

    #[test]
    fn texts_of_guests_cannot_forge_lines() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{202e}c", 100), "a b [31m c");
        assert_eq!(printable("ääää", 5), "ää…");
    }
}
