//! Rows as JSON objects.
//!
//! Owns what stands in a row that is sent: its etag and the selected properties. Cells are copied as they are stored.

use rusqlite::Connection;

use crate::catalogue::{Catalogue, Table};
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
            // Put together at the end of the row, and coded from a copy.
            let start = out.len();
            out.push(b'\'');
            push_number(out, version);
            out.push(b',');
            push_number(out, FIRST_RECORD_ID.saturating_add(place));
            out.push(b'\'');
            // Two numbers of at most twenty bytes, and three signs.
            let mut content = [0_u8; 43];
            let length = out.len() - start;
            content[..length].copy_from_slice(&out[start..]);
            out.truncate(start);
            push_base64(out, &content[..length]);
        }
    }
    out.extend_from_slice(quote.as_bytes());
}

fn push_number(out: &mut Vec<u8>, number: i64) {
    // Sign and digits of any number.
    let mut digits = [0_u8; 20];
    let (mut at, mut left) = (digits.len(), number.unsigned_abs());
    loop {
        at -= 1;
        // A remainder of ten is a digit.
        digits[at] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
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

/// A whole row without annotations, from its stored form: nothing but copying.
pub(crate) fn write_stored(out: &mut Vec<u8>, table: &Table, data: &str, stamp: Stamp) {
    out.reserve(ETAG_BYTES + table.label_bytes + data.len());
    open(out, table, stamp);
    // A row that is older than a column has its empty value.
    let mut cells = cell::each(data);
    for column in &table.columns {
        let cell = cells.next().unwrap_or(&column.empty);
        if !column.definition.secret {
            push(out, &column.label, cell);
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
