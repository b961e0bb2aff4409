//! The byte buffers of `wit/types`: reading the cells of a column, and building one.
//!
//! All little-endian, as `wit/types/types.wit` describes them.

use crate::bindings::types::{self, CallError};
use crate::cell::{Cell, Kind, Layout};
use crate::decimal::Decimal;

pub(crate) const ABSENT: u8 = 0;
pub(crate) const NULL: u8 = 1;
pub(crate) const VALUE: u8 = 2;

/// Row numbers and offsets are u32 on the boundary, and a slice is at most some MiB.
pub(crate) fn u32_of(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn broken(column: u16, what: &str) -> CallError {
    CallError::Failed(format!("column {column} came with {what}"))
}

/// One column as it came, judged once so that reading a cell needs no checks of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnView<'a> {
    kind: Kind,
    scale: u8,
    /// Empty: every row has a value.
    state: &'a [u8],
    /// Text and bytes only.
    offsets: &'a [u8],
    data: &'a [u8],
    /// `data`, for kinds of text.
    text: &'a str,
}

impl<'a> ColumnView<'a> {
    /// None for a kind that this SDK does not know yet.
    pub(crate) fn new(column: &'a types::Column, scale: u8, rows: usize) -> Result<Option<Self>, CallError> {
        let Some(kind) = Kind::from_code(column.kind) else { return Ok(None) };
        if !column.state.is_empty() && column.state.len() != rows {
            return Err(broken(column.id, "states for other rows"));
        }
        let mut text = "";
        match kind.layout() {
            Layout::Fixed(width) => {
                if column.data.len() != rows * width {
                    return Err(broken(column.id, "cells for other rows"));
                }
            }
            layout => {
                check_offsets(column, rows)?;
                if layout == Layout::Text {
                    text =
                        std::str::from_utf8(&column.data).map_err(|_| broken(column.id, "text that is not UTF-8"))?;
                }
            }
        }
        Ok(Some(Self { kind, scale, state: &column.state, offsets: &column.offsets, data: &column.data, text }))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    #[inline]
    pub(crate) fn state(&self, row: usize) -> u8 {
        if self.state.is_empty() { VALUE } else { self.state[row] }
    }

    /// Bytes of text in all rows together.
    pub(crate) fn text_len(&self) -> usize {
        self.text.len()
    }

    #[inline]
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let at = row * 4;
        let (low, high) = self.offsets[at..at + 8].split_at(4);
        let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        number(low)..number(high)
    }

    /// The text of a row that has a value; only for kinds of text. An offset within a character gives nothing.
    #[inline]
    pub(crate) fn text(&self, row: usize) -> &'a str {
        self.text.get(self.range(row)).unwrap_or_default()
    }

    fn bytes<const N: usize>(&self, row: usize) -> [u8; N] {
        let mut cell = [0; N];
        cell.copy_from_slice(&self.data[row * N..(row + 1) * N]);
        cell
    }

    pub(crate) fn cell(&self, row: usize) -> Cell<'a> {
        match self.state(row) {
            VALUE => {}
            NULL => return Cell::Null,
            _ => return Cell::Absent,
        }
        match self.kind {
            Kind::Boolean => Cell::Boolean(self.data[row] != 0),
            Kind::Int64 => Cell::Int(i64::from_le_bytes(self.bytes(row))),
            Kind::Float64 => Cell::Float(f64::from_le_bytes(self.bytes(row))),
            Kind::Decimal | Kind::Money => {
                Decimal::new(i128::from_le_bytes(self.bytes(row)), self.scale).map_or(Cell::Null, Cell::Decimal)
            }
            Kind::Timestamp => Cell::Timestamp(i64::from_le_bytes(self.bytes(row))),
            Kind::Date => Cell::Date(i32::from_le_bytes(self.bytes(row))),
            Kind::Guid | Kind::Lookup => Cell::Guid(self.bytes(row)),
            Kind::Bytes => Cell::Bytes(&self.data[self.range(row)]),
            Kind::Text | Kind::Json | Kind::Choice | Kind::MultiChoice => Cell::Text(self.text(row)),
        }
    }
}

fn check_offsets(column: &types::Column, rows: usize) -> Result<(), CallError> {
    if column.offsets.len() != (rows + 1) * 4 {
        return Err(broken(column.id, "offsets for other rows"));
    }
    let mut before = 0;
    let mut ascending = true;
    for bytes in column.offsets.chunks_exact(4) {
        let offset = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        ascending &= before <= offset;
        before = offset;
    }
    if ascending && before as usize == column.data.len() {
        Ok(())
    } else {
        Err(broken(column.id, "offsets that do not fit its text"))
    }
}

/// Builds a column of text whose cells are written straight into it.
#[derive(Debug)]
pub(crate) struct TextWriter {
    /// The cells so far, one after the other; the next one is appended.
    pub data: String,
    states: Vec<u8>,
    offsets: Vec<u8>,
    absent_only: bool,
}

impl TextWriter {
    pub(crate) fn new(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity((rows + 1) * 4);
        offsets.extend_from_slice(&[0; 4]);
        Self { data: String::with_capacity(bytes), states: Vec::with_capacity(rows), offsets, absent_only: true }
    }

    /// What was appended is the row's cell; nothing may have been where the state is another than value.
    #[inline]
    pub(crate) fn finish_row(&mut self, state: u8) {
        self.absent_only &= state == ABSENT;
        self.states.push(state);
        self.offsets.extend_from_slice(&u32_of(self.data.len()).to_le_bytes());
    }

    /// None when no row has a cell.
    pub(crate) fn finish(self, id: u16) -> Option<types::Column> {
        let Self { data, states, offsets, absent_only } = self;
        let kind = Kind::Text.code();
        (!absent_only).then(|| types::Column { id, kind, state: states, offsets, data: data.into_bytes() })
    }
}

/// Builds a column, row after row. A row that is left out is absent.
#[derive(Debug)]
pub(crate) struct ColumnWriter {
    id: u16,
    kind: Kind,
    scale: u8,
    states: Vec<u8>,
    /// rows + 1 numbers; empty for kinds of a fixed width.
    offsets: Vec<u8>,
    data: Vec<u8>,
    absent_only: bool,
}

impl ColumnWriter {
    pub(crate) fn new(id: u16, kind: Kind, scale: u8, rows: usize, data: usize) -> Self {
        let mut offsets = Vec::new();
        if !matches!(kind.layout(), Layout::Fixed(_)) {
            offsets.reserve_exact((rows + 1) * 4);
            offsets.extend_from_slice(&0_u32.to_le_bytes());
        }
        Self {
            id,
            kind,
            scale,
            states: Vec::with_capacity(rows),
            offsets,
            data: Vec::with_capacity(data),
            absent_only: true,
        }
    }

    /// A cell of the last row or of a later one. A second cell for the same row takes the place of the first. The
    /// error says what would have been right.
    pub(crate) fn set(&mut self, row: usize, cell: Cell<'_>) -> Result<(), String> {
        self.reach(row);
        match (cell, self.kind) {
            (Cell::Absent, _) => self.push_empty(ABSENT),
            (Cell::Null, _) => self.push_empty(NULL),
            (Cell::Text(text), Kind::Text | Kind::Json | Kind::Choice | Kind::MultiChoice) => {
                self.push_bytes(text.as_bytes());
            }
            (Cell::Bytes(bytes), Kind::Bytes) => self.push_bytes(bytes),
            (Cell::Boolean(value), Kind::Boolean) => self.push_fixed(&[u8::from(value)]),
            (Cell::Int(value), Kind::Int64) => self.push_fixed(&value.to_le_bytes()),
            (Cell::Float(value), Kind::Float64) if value.is_finite() => self.push_fixed(&value.to_le_bytes()),
            (Cell::Decimal(value), Kind::Decimal | Kind::Money) => match value.with_scale(self.scale) {
                Some(value) => self.push_fixed(&value.units().to_le_bytes()),
                None => return Err(format!("a number with more digits than the {} it holds", self.scale)),
            },
            (Cell::Timestamp(micros), Kind::Timestamp) => self.push_fixed(&micros.to_le_bytes()),
            (Cell::Date(days), Kind::Date) => self.push_fixed(&days.to_le_bytes()),
            (Cell::Guid(id), Kind::Guid | Kind::Lookup) => self.push_fixed(&id),
            _ => return Err(format!("something that is not of kind {}", self.kind.name())),
        }
        Ok(())
    }

    fn push_empty(&mut self, state: u8) {
        self.absent_only &= state == ABSENT;
        self.states.push(state);
        match self.kind.layout() {
            Layout::Fixed(width) => self.data.resize(self.data.len() + width, 0),
            Layout::Text | Layout::Bytes => self.push_offset(),
        }
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        self.absent_only = false;
        self.states.push(VALUE);
        self.data.extend_from_slice(bytes);
        self.push_offset();
    }

    fn push_fixed(&mut self, bytes: &[u8]) {
        self.absent_only = false;
        self.states.push(VALUE);
        self.data.extend_from_slice(bytes);
    }

    fn push_offset(&mut self) {
        self.offsets.extend_from_slice(&u32_of(self.data.len()).to_le_bytes());
    }

    /// Makes `row` the next row.
    fn reach(&mut self, row: usize) {
        if self.states.len() > row {
            self.states.truncate(row);
            match self.kind.layout() {
                Layout::Fixed(width) => self.data.truncate(row * width),
                Layout::Text | Layout::Bytes => {
                    self.offsets.truncate((row + 1) * 4);
                    let at = row * 4;
                    let end = self.offsets[at..].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte));
                    self.data.truncate(end);
                }
            }
        }
        while self.states.len() < row {
            self.push_empty(ABSENT);
        }
    }

    /// None when no row has a cell.
    pub(crate) fn finish(self, rows: usize) -> Option<types::Column> {
        if self.absent_only { None } else { Some(self.finish_always(rows)) }
    }

    pub(crate) fn finish_always(mut self, rows: usize) -> types::Column {
        while self.states.len() < rows {
            self.push_empty(ABSENT);
        }
        let Self { id, kind, states, offsets, data, .. } = self;
        types::Column { id, kind: kind.code(), state: states, offsets, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().expect("a decimal")
    }

    /// Every kind: cells written are the cells read, and absent and null stay apart.
    #[test]
    fn what_is_written_is_read() {
        let table: &[(Kind, &[Cell<'_>])] = &[
            (Kind::Boolean, &[Cell::Boolean(true), Cell::Absent, Cell::Boolean(false), Cell::Null]),
            (Kind::Int64, &[Cell::Int(i64::MIN), Cell::Null, Cell::Int(i64::MAX)]),
            (Kind::Float64, &[Cell::Absent, Cell::Float(-0.5)]),
            (Kind::Decimal, &[Cell::Decimal(decimal("-12.50")), Cell::Null]),
            (Kind::Money, &[Cell::Null, Cell::Decimal(decimal("999999999999999999999.99"))]),
            (Kind::Text, &[Cell::Text(""), Cell::Text("Ünï 🦀 \"x\"\r\n"), Cell::Null, Cell::Absent, Cell::Text("z")]),
            (Kind::Timestamp, &[Cell::Timestamp(-1)]),
            (Kind::Date, &[Cell::Date(-25_567), Cell::Absent]),
            (Kind::Guid, &[Cell::Guid([7; 16])]),
            (Kind::Bytes, &[Cell::Bytes(&[0, 255]), Cell::Bytes(&[]), Cell::Null]),
            (Kind::Json, &[Cell::Text("{}")]),
            (Kind::Choice, &[Cell::Text("Organization")]),
            (Kind::MultiChoice, &[Cell::Text("1,2")]),
            (Kind::Lookup, &[Cell::Null, Cell::Guid([1; 16])]),
        ];
        for (kind, cells) in table {
            let mut writer = ColumnWriter::new(3, *kind, 2, cells.len(), 0);
            for (row, cell) in cells.iter().enumerate() {
                writer.set(row, *cell).expect("the kind fits");
            }
            let column = writer.finish(cells.len()).expect("there are cells");
            let view = ColumnView::new(&column, 2, cells.len()).expect("it is sound").expect("the kind is known");
            let read: Vec<Cell<'_>> = (0..cells.len()).map(|row| view.cell(row)).collect();
            assert_eq!(read, *cells, "{kind:?}");
        }
    }

    #[test]
    fn the_last_cell_of_a_row_wins_and_gaps_are_absent() {
        for kind in [Kind::Text, Kind::Int64] {
            let cell = |text: &'static str| if kind == Kind::Text { text.into() } else { Cell::Int(text.len() as i64) };
            let mut writer = ColumnWriter::new(0, kind, 0, 4, 0);
            writer.set(1, cell("first")).expect("fits");
            writer.set(1, cell("second one")).expect("fits");
            let column = writer.finish(4).expect("there are cells");
            let view = ColumnView::new(&column, 0, 4).expect("sound").expect("known");
            let read: Vec<Cell<'_>> = (0..4).map(|row| view.cell(row)).collect();
            assert_eq!(read, [Cell::Absent, cell("second one"), Cell::Absent, Cell::Absent]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let table = [
            (Kind::Text, Cell::Int(1)),
            (Kind::Int64, Cell::Text("1")),
            (Kind::Decimal, Cell::Decimal(decimal("0.001"))),
            (Kind::Float64, Cell::Float(f64::NAN)),
            (Kind::Boolean, Cell::Int(1)),
            (Kind::Date, Cell::Timestamp(0)),
        ];
        for (kind, cell) in table {
            assert!(ColumnWriter::new(0, kind, 2, 1, 0).set(0, cell).is_err(), "{cell:?} into {kind:?}");
        }
    }

    #[test]
    fn broken_buffers_are_errors() {
        let column = |kind: Kind, state: &[u8], offsets: &[u32], data: &[u8]| types::Column {
            id: 0,
            kind: kind.code(),
            state: state.to_vec(),
            offsets: offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect(),
            data: data.to_vec(),
        };
        let table = [
            ("too few states", column(Kind::Boolean, &[2], &[], &[1, 1])),
            ("too few cells", column(Kind::Int64, &[], &[], &[0; 8])),
            ("too few offsets", column(Kind::Text, &[], &[0, 1], b"ab")),
            ("descending offsets", column(Kind::Text, &[], &[0, 2, 1], b"ab")),
            ("text left over", column(Kind::Text, &[], &[0, 1, 1], b"ab")),
            ("not UTF-8", column(Kind::Text, &[], &[0, 1, 2], &[0xff, 0xff])),
        ];
        for (name, column) in table {
            assert!(ColumnView::new(&column, 0, 2).is_err(), "{name}");
        }
        let unknown = types::Column { id: 0, kind: 99, state: vec![], offsets: vec![], data: vec![] };
        assert!(matches!(ColumnView::new(&unknown, 0, 2), Ok(None)));
    }
}
