//! Rows to buffers: the three byte buffers per column that guests read (`wit/types`).
//!
//! Buffers are kept and filled again, so a cell costs no allocation. [`crate::checked`] is the way back.

use std::borrow::Cow;

use dualwright_core::{Column, Fault, Kind, Operation, Value, error::Code};
use rust_decimal::Decimal;

use crate::bindings::wit;
use crate::session::RowInfo;

/// Digits after the point where the schema does not say: what Dataverse keeps at most.
const SCALE_DEFAULT: u8 = 10;
/// As many as an exact decimal can have.
const SCALE_MAX: u8 = 28;

pub(crate) const ABSENT: u8 = 0;
pub(crate) const NULL: u8 = 1;
pub(crate) const VALUE: u8 = 2;

pub(crate) const CREATED: u8 = 1;
pub(crate) const CHANGED: u8 = 2;
pub(crate) const DELETED: u8 = 3;

/// How the cells of a kind lie in `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// This many bytes per row.
    Fixed(usize),
    /// Between two offsets.
    Offsets,
}

pub(crate) const fn layout(kind: Kind) -> Layout {
    match kind {
        Kind::Boolean => Layout::Fixed(1),
        Kind::Int64 | Kind::Float64 | Kind::Timestamp => Layout::Fixed(8),
        Kind::Date => Layout::Fixed(4),
        Kind::Decimal | Kind::Money | Kind::Guid | Kind::Lookup => Layout::Fixed(16),
        Kind::Text | Kind::Bytes | Kind::Json | Kind::Choice | Kind::MultiChoice => Layout::Offsets,
    }
}

/// The scale in which the decimals of a column cross, fixed per column. Zero for other kinds.
pub(crate) fn scale(column: &Column) -> u8 {
    match column.kind {
        Kind::Decimal | Kind::Money => column.scale.unwrap_or(SCALE_DEFAULT).min(SCALE_MAX),
        _ => 0,
    }
}

/// Rows as a caller has them: the row after the change, or nothing where there is none.
pub(crate) trait Rows {
    fn len(&self) -> usize;
    fn row(&self, index: usize) -> Option<&[Value]>;
}

impl Rows for &[&[Value]] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    fn row(&self, index: usize) -> Option<&[Value]> {
        Some(self[index])
    }
}

impl Rows for &[Option<&[Value]>] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    fn row(&self, index: usize) -> Option<&[Value]> {
        self[index]
    }
}

/// One column of a batch.
#[derive(Debug, Default)]
struct Buffers {
    kind: u16,
    state: Vec<u8>,
    offsets: Vec<u8>,
    data: Vec<u8>,
}

/// The columns of one batch. Kept between batches for its buffers.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    used: usize,
    buffers: Vec<Buffers>,
}

impl Columns {
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Fills the buffers with these rows. Fails at the first cell that cannot cross: the fault names row and column.
    pub fn encode(&mut self, columns: &[Column], rows: &impl Rows) -> Result<(), Fault> {
        if self.buffers.len() < columns.len() {
            self.buffers.resize_with(columns.len(), Buffers::default);
        }
        self.used = columns.len();
        for (index, column) in columns.iter().enumerate() {
            self.buffers[index].encode(column, index, rows).map_err(|misfit| misfit.fault(column))?;
        }
        Ok(())
    }

    /// The size of all buffers.
    pub fn bytes(&self) -> usize {
        let size = |column: &Buffers| column.state.len() + column.offsets.len() + column.data.len();
        self.buffers[..self.used].iter().map(size).sum()
    }

    /// What a guest is given.
    pub fn lend(&self) -> Vec<wit::ColumnParam<'_>> {
        self.buffers[..self.used]
            .iter()
            .enumerate()
            .map(|(index, column)| wit::ColumnParam {
                // A schema of more than 65,535 columns was refused at installation.
                id: index as u16,
                kind: column.kind,
                state: &column.state,
                offsets: &column.offsets,
                data: &column.data,
            })
            .collect()
    }
}

/// A cell that cannot cross.
struct Misfit {
    row: usize,
    reason: MisfitReason,
}

enum MisfitReason {
    Type(&'static str),
    Digits,
    NotANumber,
    TooMuch,
}

impl Misfit {
    fn fault(self, column: &Column) -> Fault {
        let Self { row, reason } = self;
        let (code, what) = match reason {
            MisfitReason::Type(found) => {
                (Code::WrongType, format!("row {row} holds {found} where {:?} is wanted", column.kind))
            }
            MisfitReason::Digits => (
                Code::NumberOutOfRange,
                format!("row {row} holds a decimal that does not fit {} digits after the point", scale(column)),
            ),
            MisfitReason::NotANumber => (Code::NumberOutOfRange, format!("row {row} holds a float that is no number")),
            MisfitReason::TooMuch => (Code::TooLarge, format!("the texts up to row {row} are larger than 4 GiB")),
        };
        Fault::new(code, what).column(&column.name)
    }
}

static ABSENT_CELL: Value = Value::Absent;

impl Buffers {
    fn encode(&mut self, column: &Column, index: usize, rows: &impl Rows) -> Result<(), Misfit> {
        self.kind = column.kind.code();
        self.state.clear();
        self.offsets.clear();
        self.data.clear();
        let typed = |found: &Value| MisfitReason::Type(found.type_name());
        match column.kind {
            Kind::Boolean => self.fixed(index, rows, |value| match value {
                Value::Boolean(value) => Ok([u8::from(*value)]),
                other => Err(typed(other)),
            }),
            Kind::Int64 => self.fixed(index, rows, |value| match value {
                Value::Int(value) => Ok(value.to_le_bytes()),
                other => Err(typed(other)),
            }),
            Kind::Float64 => self.fixed(index, rows, |value| match value {
                Value::Float(value) if value.is_finite() => Ok(value.to_le_bytes()),
                Value::Float(_) => Err(MisfitReason::NotANumber),
                other => Err(typed(other)),
            }),
            Kind::Decimal | Kind::Money => {
                let scale = scale(column);
                self.fixed(index, rows, |value| match value {
                    Value::Decimal(value) => match at_scale(*value, scale) {
                        Some(mantissa) => Ok(mantissa.to_le_bytes()),
                        None => Err(MisfitReason::Digits),
                    },
                    other => Err(typed(other)),
                })
            }
            Kind::Timestamp => self.fixed(index, rows, |value| match value {
                Value::Timestamp(value) => Ok(value.to_le_bytes()),
                other => Err(typed(other)),
            }),
            Kind::Date => self.fixed(index, rows, |value| match value {
                Value::Date(value) => Ok(value.to_le_bytes()),
                other => Err(typed(other)),
            }),
            Kind::Guid | Kind::Lookup => self.fixed(index, rows, |value| match value {
                Value::Guid(value) => Ok(*value.as_bytes()),
                other => Err(typed(other)),
            }),
            Kind::Text | Kind::Json | Kind::Choice | Kind::MultiChoice => {
                self.variable(index, rows, |value| match value {
                    Value::Text(value) => Ok(value.as_bytes()),
                    other => Err(typed(other)),
                })
            }
            Kind::Bytes => self.variable(index, rows, |value| match value {
                Value::Bytes(value) => Ok(value),
                other => Err(typed(other)),
            }),
        }
    }

    fn fixed<const N: usize>(
        &mut self,
        index: usize,
        rows: &impl Rows,
        bytes: impl Fn(&Value) -> Result<[u8; N], MisfitReason>,
    ) -> Result<(), Misfit> {
        self.data.reserve(rows.len() * N);
        self.cells(index, rows, |data, value| {
            data.extend_from_slice(&match value {
                Some(value) => bytes(value)?,
                None => [0; N],
            });
            Ok(())
        })
    }

    fn variable(
        &mut self,
        index: usize,
        rows: &impl Rows,
        bytes: impl Fn(&Value) -> Result<&[u8], MisfitReason>,
    ) -> Result<(), Misfit> {
        let mut offsets = std::mem::take(&mut self.offsets);
        offsets.reserve(4 * (rows.len() + 1));
        offsets.extend_from_slice(&0u32.to_le_bytes());
        let done = self.cells(index, rows, |data, value| {
            if let Some(value) = value {
                data.extend_from_slice(bytes(value)?);
            }
            let end = u32::try_from(data.len()).map_err(|_| MisfitReason::TooMuch)?;
            offsets.extend_from_slice(&end.to_le_bytes());
            Ok(())
        });
        self.offsets = offsets;
        done
    }

    /// Books the state of every cell and lets `push` write its bytes; `None` is a cell without a value.
    fn cells(
        &mut self,
        index: usize,
        rows: &impl Rows,
        mut push: impl FnMut(&mut Vec<u8>, Option<&Value>) -> Result<(), MisfitReason>,
    ) -> Result<(), Misfit> {
        self.state.reserve(rows.len());
        let mut all_values = true;
        for row in 0..rows.len() {
            let cell = rows.row(row).and_then(|cells| cells.get(index)).unwrap_or(&ABSENT_CELL);
            let (state, value) = match cell {
                Value::Absent => (ABSENT, None),
                Value::Null => (NULL, None),
                value => (VALUE, Some(value)),
            };
            all_values &= state == VALUE;
            self.state.push(state);
            push(&mut self.data, value).map_err(|reason| Misfit { row, reason })?;
        }
        if all_values {
            // Empty means every row has a value.
            self.state.clear();
        }
        Ok(())
    }
}

/// The value times 10 to the power of `scale`, if it is a whole number of at most 128 bits. Never rounds.
pub(crate) fn at_scale(value: Decimal, scale: u8) -> Option<i128> {
    const POWERS: [i128; SCALE_MAX as usize + 1] = {
        let mut powers = [1; SCALE_MAX as usize + 1];
        let mut exponent = 1;
        while exponent < powers.len() {
            powers[exponent] = 10 * powers[exponent - 1];
            exponent += 1;
        }
        powers
    };
    let (mantissa, have, wanted) = (value.mantissa(), value.scale() as usize, usize::from(scale));
    if have <= wanted {
        mantissa.checked_mul(*POWERS.get(wanted - have)?)
    } else {
        let divisor = POWERS.get(have - wanted)?;
        (mantissa % divisor == 0).then(|| mantissa / divisor)
    }
}

/// Operation and company of each row, as a guest is given them.
#[derive(Debug, Default)]
pub(crate) struct About<'a> {
    operations: Vec<u8>,
    companies: Vec<Cow<'a, str>>,
    company: Vec<u8>,
}

impl<'a> About<'a> {
    pub fn encode(info: &[RowInfo<'a>]) -> Self {
        let operation = |row: &RowInfo<'_>| match (row.operation, row.creating) {
            (Operation::Delete, _) => DELETED,
            (Operation::Upsert, true) => CREATED,
            (Operation::Upsert, false) => CHANGED,
        };
        let mut about = Self::default();
        if info.iter().any(|row| operation(row) != CHANGED) {
            about.operations = info.iter().map(operation).collect();
        }
        // Rows of one company usually come together.
        let mut written: Vec<&str> = Vec::new();
        let mut last = 0;
        let mut company = Vec::with_capacity(2 * info.len());
        for row in info {
            if written.get(last) != Some(&row.company) {
                last = written.iter().position(|&known| known == row.company).unwrap_or_else(|| {
                    written.push(row.company);
                    written.len() - 1
                });
            }
            // A slice has fewer rows than 65,536 companies.
            company.extend_from_slice(&(last as u16).to_le_bytes());
        }
        if 1 < written.len() {
            about.company = company;
        }
        about.companies = written
            .into_iter()
            .map(|company| match company.chars().any(char::is_uppercase) {
                true => Cow::Owned(company.to_lowercase()),
                false => Cow::Borrowed(company),
            })
            .collect();
        about
    }

    pub fn companies(&self) -> Vec<&str> {
        self.companies.iter().map(AsRef::as_ref).collect()
    }

    pub fn lend<'b>(
        &'b self,
        rows: usize,
        companies: &'b [&'b str],
        columns: &'b [wit::ColumnParam<'b>],
        before: &'b [wit::ColumnParam<'b>],
    ) -> wit::Batch<'b> {
        wit::Batch {
            // A slice has at most `ROWS_PER_SLICE_MAX` rows.
            rows: rows as u32,
            operations: &self.operations,
            companies,
            company: &self.company,
            columns,
            before,
        }
    }
}

/// Rows of one slice: more would not fit the company index, and nothing is gained.
const ROWS_PER_SLICE_MAX: usize = 20_000;

/// Cuts rows into slices whose buffers stay below `bytes_max`; a row that is larger alone is a slice alone.
pub(crate) fn slices(
    columns: &[Column],
    parts: &[&dyn Rows],
    rows: usize,
    bytes_max: usize,
) -> Vec<std::ops::Range<usize>> {
    let fixed: usize = columns
        .iter()
        .map(|column| match layout(column.kind) {
            Layout::Fixed(width) => width + 1,
            Layout::Offsets => 5,
        })
        .sum();
    let variable: Vec<usize> =
        (0..columns.len()).filter(|&index| layout(columns[index].kind) == Layout::Offsets).collect();
    let bytes = |part: &dyn Rows, row: usize| {
        fixed
            + part.row(row).map_or(0, |cells| {
                variable
                    .iter()
                    .map(|&index| match cells.get(index) {
                        Some(Value::Text(text)) => text.len(),
                        Some(Value::Bytes(bytes)) => bytes.len(),
                        _ => 0,
                    })
                    .sum()
            })
    };
    let mut slices = Vec::new();
    let (mut start, mut held) = (0, 0);
    for row in 0..rows {
        let wanted: usize = parts.iter().filter(|part| part.len() != 0).map(|&part| bytes(part, row)).sum();
        if start < row && (bytes_max < held + wanted || ROWS_PER_SLICE_MAX <= row - start) {
            slices.push(start..row);
            (start, held) = (row, 0);
        }
        held += wanted;
    }
    if start < rows {
        slices.push(start..rows);
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_cross_exactly_or_not_at_all() {
        let cases = [
            ("12.5", 2, Some(1250)),
            ("12.500", 2, Some(1250)),
            ("-0.01", 2, Some(-1)),
            ("0.001", 2, None),
            ("79228162514264337593543950335", 0, Some(79_228_162_514_264_337_593_543_950_335)),
            ("79228162514264337593543950335", 10, None),
            ("7922816251426433759354395033", 10, Some(79_228_162_514_264_337_593_543_950_330_000_000_000)),
            ("0.0000000000000000000000000001", 28, Some(1)),
        ];
        for (text, scale, wanted) in cases {
            assert_eq!(at_scale(text.parse().unwrap(), scale), wanted, "{text} at {scale}");
        }
    }

    #[test]
    fn cells_lie_as_the_contract_says() {
        let columns = [Column::new("a", Kind::Text), Column::new("b", Kind::Int64), Column::new("c", Kind::Boolean)];
        let rows: [&[Value]; 3] = [
            &[Value::text("äx"), Value::Int(-2), Value::Boolean(true)],
            &[Value::Null, Value::Int(1), Value::Absent],
            &[Value::text("z"), Value::Int(0)],
        ];
        let mut encoded = Columns::default();
        encoded.encode(&columns, &rows.as_slice()).unwrap();
        let lent = encoded.lend();
        assert_eq!((lent[0].state, lent[0].data), (&[2, 1, 2][..], "äxz".as_bytes()));
        assert_eq!(lent[0].offsets, [0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!((lent[1].state, lent[1].offsets, lent[1].data.len()), (&[][..], &[][..], 24));
        assert_eq!(lent[1].data[..8], (-2i64).to_le_bytes());
        assert_eq!((lent[2].state, lent[2].data), (&[2, 0, 0][..], &[1, 0, 0][..]), "a short row ends in absent cells");
    }

    #[test]
    fn a_cell_that_cannot_cross_is_named_and_not_shown() {
        let mut decimal = Column::new("amount", Kind::Decimal);
        decimal.scale = Some(2);
        let cases = [
            (Column::new("n", Kind::Int64), Value::text("secret"), Code::WrongType),
            (decimal, Value::Decimal("0.123".parse().unwrap()), Code::NumberOutOfRange),
            (Column::new("f", Kind::Float64), Value::Float(f64::NAN), Code::NumberOutOfRange),
        ];
        for (column, value, code) in cases {
            let (name, good, bad) = (column.name.clone(), [Value::Null], [value]);
            let rows: [&[Value]; 2] = [&good, &bad];
            let fault = Columns::default().encode(&[column], &rows.as_slice()).unwrap_err();
            assert_eq!((fault.code, fault.column.as_deref()), (code, Some(&*name)), "{fault}");
            assert!(fault.message.contains("row 1") && !fault.message.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn rows_are_told_apart_by_operation_and_company() {
        let row = |operation, creating, company| RowInfo { operation, creating, company };
        let rows = [
            row(Operation::Upsert, false, "usmf"),
            row(Operation::Upsert, true, "DEMF"),
            row(Operation::Delete, false, "usmf"),
        ];
        let about = About::encode(&rows);
        assert_eq!(about.operations, [CHANGED, CREATED, DELETED]);
        assert_eq!((about.companies(), &*about.company), (vec!["usmf", "demf"], &[0, 0, 1, 0, 0, 0][..]));
        let plain = About::encode(&rows[..1]);
        assert!(plain.operations.is_empty() && plain.company.is_empty(), "the usual case costs nothing");
    }

    #[test]
    fn large_calls_are_cut() {
        let columns = [Column::new("a", Kind::Text)];
        let long = [Value::text("x".repeat(40))];
        let short = [Value::text("x")];
        let rows: [&[Value]; 5] = [&short, &short, &long, &long, &short];
        let rows = rows.as_slice();
        assert_eq!(slices(&columns, &[&rows], 5, 50), [0..2, 2..3, 3..4, 4..5], "45, 12, 45 and 45 bytes");
        assert_eq!(slices(&columns, &[&rows], 5, 1_000), vec![0..5; 1]);
        assert_eq!(slices(&columns, &[&rows], 5, 1), [0..1, 1..2, 2..3, 3..4, 4..5], "a row is never cut");
        assert!(slices(&columns, &[&rows], 0, 50).is_empty());
    }
}
