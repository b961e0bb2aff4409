//! Rows as JSON objects.
//!
//! Owns what stands in a row that is sent: its etag and the selected properties. Cells are copied as they are stored.

use std::ops::Range;

use rusqlite::Connection;

use crate::catalogue::{Catalogue, Column, Table};
use crate::clock::Clock;
use crate::store::{PLACE_BITS, Stamp};
use crate::{Dialect, cell};

/// What is wanted of each row.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Column places; all of them when not given.
    pub columns: Option<Vec<usize>>,
    /// What stands behind navigation properties (F&O).
    pub related: Vec<crate::finops::expand::Related>,
}

impl Selection {
    /// Whether a row is wanted as it is stored: all of it, and nothing beside it.
    pub fn is_whole(&self) -> bool {
        self.columns.is_none() && self.related.is_empty()
    }
}

/// What rows behind lookups are read from.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub connection: &'a Connection,
    pub catalogue: &'a Catalogue,
    pub clock: &'a Clock,
}

/// Room for the start of a row, up to the end of its etag.
const ETAG_BYTES: usize = 96;

#[must_use]
pub(crate) fn etag(table: &Table, stamp: Stamp) -> String {
    let mut etag = Vec::with_capacity(48);
    push_etag(&mut etag, table, stamp, "\"");
    String::from_utf8(etag).unwrap_or_default()
}

/// Dataverse gives the row version. F&O gives the versions and ids of the records behind the row, of which there is one
/// here: `'1,5637144576'` in base 64, where 1 is the version of a record that was never changed.
fn push_etag(out: &mut Vec<u8>, table: &Table, stamp: Stamp, quote: &str) {
    out.extend_from_slice(b"W/");
    out.extend_from_slice(quote.as_bytes());
    match table.dialect {
        Dialect::Dataverse => push_number(out, stamp.version),
        Dialect::Finops => {
            // Record ids of the real system begin here.
            const FIRST_RECORD_ID: i64 = 5_637_144_576;
            // A row's place is its first version.
            let place = stamp.id & ((1 << PLACE_BITS) - 1);
            let version = if stamp.version == place { 1 } else { stamp.version };
            // Put together from behind, where its length need not be known: two numbers and three signs.
            let mut content = [b'\''; 2 * NUMBER_BYTES + 3];
            let end = content.len() - 1;
            let comma = put_number(&mut content, end, FIRST_RECORD_ID.saturating_add(place)) - 1;
            content[comma] = b',';
            let start = put_number(&mut content, comma, version) - 1;
            content[start] = b'\'';
            push_base64(out, &content[start..]);
        }
    }
    out.extend_from_slice(quote.as_bytes());
}

/// Sign and digits of any number.
const NUMBER_BYTES: usize = 20;

fn push_number(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0_u8; NUMBER_BYTES];
    let start = put_number(&mut digits, NUMBER_BYTES, number);
    out.extend_from_slice(&digits[start..]);
}

/// Writes a number such that it ends before `end`, of which at least [`NUMBER_BYTES`] are there; gives its start.
fn put_number(bytes: &mut [u8], end: usize, number: i64) -> usize {
    let (mut at, mut left) = (end, number.unsigned_abs());
    loop {
        at -= 1;
        // A remainder of ten is a digit.
        bytes[at] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        bytes[at] = b'-';
    }
    at
}

fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (whole, rest) = bytes.as_chunks::<3>();
    for [first, second, third] in whole {
        let bits = (u32::from(*first) << 16) | (u32::from(*second) << 8) | u32::from(*third);
        out.extend_from_slice(&[18, 12, 6, 0].map(|shift| DIGITS[((bits >> shift) & 63) as usize]));
    }
    if !rest.is_empty() {
        let group = rest;
        let bits = group.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit <= group.len() { DIGITS[value as usize] } else { b'=' });
        }
    }
}

/// Neighbouring columns, and what they look like when none of them holds anything, as most of a wide row do not.
#[derive(Debug)]
pub(crate) struct Group {
    columns: Range<usize>,
    /// Their cells in the stored form of a row.
    stored: String,
    /// Their names and cells in a row that is sent.
    sent: String,
}

/// Columns of a group: few enough that one which holds something does not spoil many.
const GROUP_COLUMNS: usize = 4;

/// The columns of a table in groups, in their order.
pub(crate) fn groups(columns: &[Column]) -> Vec<Group> {
    let groups = columns.chunks(GROUP_COLUMNS).enumerate().map(|(number, group)| {
        let start = number * GROUP_COLUMNS;
        let mut sent = Vec::new();
        for column in group.iter().filter(|column| !column.definition.secret) {
            push(&mut sent, &column.label, &column.empty);
        }
        Group {
            columns: start..start + group.len(),
            stored: group.iter().map(|column| column.empty.as_ref()).collect::<Vec<_>>().join(","),
            sent: String::from_utf8(sent).unwrap_or_default(),
        }
    });
    groups.collect()
}

/// A whole row without annotations, from its stored form: nothing but copying.
pub(crate) fn write_stored(out: &mut Vec<u8>, table: &Table, data: &str, stamp: Stamp) {
    out.reserve(ETAG_BYTES + table.label_bytes + data.len());
    open(out, table, stamp);
    // A row that is older than a column has its empty value.
    let mut cells = cell::each(data);
    for group in &table.groups {
        if cells.pass(&group.stored) {
            out.extend_from_slice(group.sent.as_bytes());
            continue;
        }
        for column in &table.columns[group.columns.clone()] {
            let cell = cells.next().unwrap_or(&column.empty);
            if !column.definition.secret {
                push(out, &column.label, cell);
            }
        }
    }
    out.push(b'}');
}

/// The opening bracket of a row, with its etag.
pub(crate) fn open(out: &mut Vec<u8>, table: &Table, stamp: Stamp) {
    out.extend_from_slice(b"{\"@odata.etag\":\"");
    push_etag(out, table, stamp, "\\\"");
    out.push(b'"');
}

fn push(out: &mut Vec<u8>, label: &str, cell: &str) {
    out.push(b',');
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(cell.as_bytes());
}

/// A row as it was asked for.
pub(crate) fn write_row(
    out: &mut Vec<u8>,
    around: Surroundings<'_>,
    table: &Table,
    cells: &[&str],
    stamp: Stamp,
    selection: &Selection,
) -> rusqlite::Result<()> {
    open(out, table, stamp);
    match &selection.columns {
        None => (0..cells.len()).for_each(|at| write_column(out, table, at, cells[at])),
        Some(columns) => columns.iter().for_each(|&at| write_column(out, table, at, cells[at])),
    }
    if !selection.related.is_empty() {
        crate::finops::expand::write(out, around, table, cells, &selection.related)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_column(out: &mut Vec<u8>, table: &Table, at: usize, cell: &str) {
    let column = &table.columns[at];
    if !column.definition.secret {
        push(out, &column.label, cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every choice of which columns hold something, of more columns than a group has, in both dialects.
    #[test]
    fn whole_rows_are_what_their_columns_are() {
        const COLUMNS: &str = r#"{"tables":[{"name":"t","set":"ts","key":["c0"],"columns":[
            {"name":"c0","type":"text"},{"name":"c1","type":"decimal"},{"name":"c2","type":"int"},
            {"name":"c3","type":"text","secret":true},{"name":"c4","type":"datetime"},{"name":"c5","type":"decimal"},
            {"name":"c6","type":"boolean"},{"name":"c7","type":"text"},{"name":"c8","type":"decimal"}]}]}"#;
        const VALUES: [&str; 9] =
            ["\"a,\\\"b\"", "0.5", "10", "\"s\"", "\"2020-01-01T00:00:00Z\"", "0.25", "true", "\"[,]\"", "0.125"];
        for dialect in [Dialect::Dataverse, Dialect::Finops] {
            let definitions = crate::read_tables(COLUMNS).expect("reads").tables;
            let catalogue = Catalogue::new(dialect, vec![(1, definitions[0].clone())], Vec::new()).expect("compiles");
            let table = catalogue.by_set("ts").expect("a table");
            for filled in 0..1 << VALUES.len() {
                let cells = (0..VALUES.len())
                    .map(|at| if filled >> at & 1 == 1 { VALUES[at] } else { &*table.columns[at].empty })
                    .collect::<Vec<_>>();
                let stamp = Stamp { id: 1, version: 2 };
                let mut wanted = Vec::new();
                open(&mut wanted, table, stamp);
                (0..cells.len()).for_each(|at| write_column(&mut wanted, table, at, cells[at]));
                wanted.push(b'}');
                // A row may end before the columns that came later.
                for length in [cells.len(), 7, 4] {
                    if cells[length..].iter().zip(&table.columns[length..]).any(|(cell, column)| *cell != column.empty)
                    {
                        continue;
                    }
                    let mut out = Vec::new();
                    write_stored(&mut out, table, &cell::join(cells[..length].iter().copied()), stamp);
                    let (out, wanted) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&wanted));
                    assert_eq!(out, wanted, "{dialect:?} {filled:b} {length}");
                }
            }
        }
    }

    #[test]
    fn numbers_of_every_length() {
        for number in [0, 7, 10, -1, 5_637_144_576, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).expect("text"), number.to_string());
        }
    }

    #[test]
    fn base_64_of_every_length() {
        for (bytes, wanted) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("'1,68719482833'", "JzEsNjg3MTk0ODI4MzMn")]
        {
            let mut out = Vec::new();
            push_base64(&mut out, bytes.as_bytes());
            assert_eq!(String::from_utf8(out).expect("text"), wanted, "{bytes}");
        }
    }
}
