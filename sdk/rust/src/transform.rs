//! The extension point *field transform*: from a function of a text or of a row to a patch.

use std::ops::Deref;

use crate::bindings::transform::exports::dualwright::transform::transform::Patch;
use crate::bindings::types::{Batch, CallError, Context, Refusal};
use crate::buffer::{ABSENT, ColumnWriter, NULL, TextWriter, VALUE};
use crate::cell::{Cell, Kind};
use crate::instance::Configured;
use crate::issue::{Issue, Verdict};
use crate::rows::{Row, Rows};
use crate::settings::{Column, Tables, refuse, refuse_column};

/// What becomes of a text.
#[derive(Debug)]
pub enum Outcome {
    /// It is what was written into the buffer.
    Written,
    /// The column becomes empty.
    Empty,
    /// It stays as it is, and the row has an issue.
    Rejected(Issue),
}

/// A function of one text. Two forms:
///
/// * `fn(&State, &str, &mut String)` appends the new text to the buffer, as `Read::read_to_string` does: what stands
///   there already is the column so far, so nothing is allocated or copied per value. It may return nothing or a
///   `Result<(), Issue>`.
/// * `fn(&State, &str) -> T`, where `T` is `String`, `Option<String>` (None makes the column empty) or a `Result` of
///   one of them and an `Issue`.
///
/// It is called for every row of every bound column that has a text. A result equal to the text changes nothing.
pub trait TextFunction<S, Form> {
    fn call(&self, state: &S, text: &str, out: &mut String) -> Outcome;
}

/// Marks the form that writes into a buffer.
#[derive(Debug)]
pub struct Writes<R>(R);

/// Marks the form that returns its result.
#[derive(Debug)]
pub struct Returns<R>(R);

impl<S, R: Done, F: Fn(&S, &str, &mut String) -> R> TextFunction<S, Writes<R>> for F {
    #[inline]
    fn call(&self, state: &S, text: &str, out: &mut String) -> Outcome {
        self(state, text, out).outcome()
    }
}

impl<S, R: IntoText, F: Fn(&S, &str) -> R> TextFunction<S, Returns<R>> for F {
    #[inline]
    fn call(&self, state: &S, text: &str, out: &mut String) -> Outcome {
        self(state, text).write(out)
    }
}

/// What a function that writes into a buffer may return.
pub trait Done {
    fn outcome(self) -> Outcome;
}

impl Done for () {
    fn outcome(self) -> Outcome {
        Outcome::Written
    }
}

impl Done for Result<(), Issue> {
    fn outcome(self) -> Outcome {
        self.map_or_else(Outcome::Rejected, |()| Outcome::Written)
    }
}

/// What a function that returns its result may return.
pub trait IntoText {
    fn write(self, out: &mut String) -> Outcome;
}

impl IntoText for String {
    fn write(self, out: &mut String) -> Outcome {
        out.push_str(&self);
        Outcome::Written
    }
}

impl<T: IntoText> IntoText for Option<T> {
    fn write(self, out: &mut String) -> Outcome {
        self.map_or(Outcome::Empty, |text| text.write(out))
    }
}

impl<T: IntoText> IntoText for Result<T, Issue> {
    fn write(self, out: &mut String) -> Outcome {
        self.map_or_else(Outcome::Rejected, |text| text.write(out))
    }
}

/// A text transform must be bound to text columns.
#[must_use]
pub fn check_text(tables: &Tables) -> Vec<Refusal> {
    let mut refusals = check_bound(tables);
    for column in tables.bound() {
        if tables.kind(column) != Some(Kind::Text) {
            let name = tables.definition(column).map_or("", |definition| definition.name.as_str());
            refusals.push(refuse_column(name, "is not text: bind this transform to text columns"));
        }
    }
    refusals
}

/// A transform must be bound to something.
#[must_use]
pub fn check_bound(tables: &Tables) -> Vec<Refusal> {
    if tables.bound().next().is_some() {
        Vec::new()
    } else {
        vec![refuse("is bound to no column: name the field it shall change")]
    }
}

/// Runs a function of a text over every bound column.
///
/// # Errors
/// When the buffers are broken.
pub fn apply_text<S, Form>(
    function: impl TextFunction<S, Form>,
    configured: &Configured<S>,
    context: &Context,
    input: &Batch,
) -> Result<Patch, CallError> {
    let rows = Rows::new(context, &configured.tables.source, None, input)?;
    let mut patch = Patch { columns: Vec::new(), issues: Vec::new() };
    for column in configured.tables.bound() {
        let Some(view) = rows.view(column.id()).filter(|view| view.kind() == Kind::Text) else { continue };
        let mut writer = TextWriter::new(rows.len(), view.text_len());
        for row in 0..rows.len() {
            if view.state(row) != VALUE {
                writer.finish_row(ABSENT);
                continue;
            }
            let before = view.text(row);
            let start = writer.data.len();
            let outcome = function.call(&configured.state, before, &mut writer.data);
            let Some(after) = writer.data.get(start..) else {
                return Err(CallError::Failed(
                    "the plugin removed text from the buffer that is not its own".to_owned(),
                ));
            };
            let state = match outcome {
                Outcome::Written if same(after.as_bytes(), before.as_bytes()) => ABSENT,
                Outcome::Written => VALUE,
                Outcome::Empty => NULL,
                Outcome::Rejected(mut issue) => {
                    issue.column.get_or_insert(column);
                    patch.issues.push(issue.at(row));
                    ABSENT
                }
            };
            if state != VALUE {
                writer.data.truncate(start);
            }
            writer.finish_row(state);
        }
        patch.columns.extend(writer.finish(column.id()));
    }
    Ok(patch)
}

/// Whether two texts are equal, in words: the comparison that comes with the target goes byte by byte.
#[inline]
fn same(after: &[u8], before: &[u8]) -> bool {
    if after.len() != before.len() {
        return false;
    }
    let (after_words, after_rest) = after.as_chunks::<8>();
    let (before_words, before_rest) = before.as_chunks::<8>();
    let words = after_words.iter().zip(before_words).all(|(a, b)| u64::from_le_bytes(*a) == u64::from_le_bytes(*b));
    words && after_rest.iter().zip(before_rest).all(|(a, b)| a == b)
}

/// One row that may be changed. Reading gives what came; what was set is not read back.
#[derive(Debug)]
pub struct RowPatch<'a> {
    row: Row<'a>,
    patch: &'a mut Changes,
}

impl<'a> Deref for RowPatch<'a> {
    type Target = Row<'a>;

    fn deref(&self) -> &Row<'a> {
        &self.row
    }
}

impl RowPatch<'_> {
    /// Gives a bound column another value. A number must fit the column's scale; round it first.
    pub fn set<'c>(&mut self, column: Column, value: impl Into<Cell<'c>>) {
        self.patch.set(self.row.index(), column, value.into());
    }

    /// Makes a bound column empty.
    pub fn clear(&mut self, column: Column) {
        self.set(column, Cell::Null);
    }
}

/// Writers by column id, made when first needed.
#[derive(Debug)]
struct Changes {
    rows: usize,
    /// Kind and scale; None for a column that may not be written.
    writable: Vec<Option<(Kind, u8)>>,
    writers: Vec<Option<ColumnWriter>>,
    /// The first thing that went wrong: a mistake in the plugin.
    mistake: Option<String>,
}

impl Changes {
    fn new(tables: &Tables, rows: usize) -> Self {
        let columns = &tables.source.columns;
        let writable = columns
            .iter()
            .map(|column| if column.writable { Some((Kind::from_code(column.kind)?, column.scale)) } else { None })
            .collect();
        Self { rows, writable, writers: columns.iter().map(|_| None).collect(), mistake: None }
    }

    fn set(&mut self, row: usize, column: Column, cell: Cell<'_>) {
        let id = usize::from(column.id());
        let result = match (self.writable.get(id), self.writers.get_mut(id)) {
            (Some(Some((kind, scale))), Some(writer)) if column.table().is_none() => writer
                .get_or_insert_with(|| ColumnWriter::new(column.id(), *kind, *scale, self.rows, 0))
                .set(row, cell)
                .map_err(|what| format!("the plugin set column {id} to {what}")),
            _ => Err(format!("the plugin set column {id}, which it may not write")),
        };
        if let Err(mistake) = result {
            self.mistake.get_or_insert(mistake);
        }
    }
}

/// Runs a function of a row over every row.
///
/// # Errors
/// When the buffers are broken, or the function set something it may not.
pub fn apply_row<S, V: Verdict>(
    function: impl Fn(&S, &mut RowPatch<'_>) -> V,
    configured: &Configured<S>,
    context: &Context,
    input: &Batch,
) -> Result<Patch, CallError> {
    let rows = Rows::new(context, &configured.tables.source, None, input)?;
    let mut changes = Changes::new(&configured.tables, rows.len());
    let mut issues = Vec::new();
    for row in rows.iter() {
        let mut patch = RowPatch { row, patch: &mut changes };
        function(&configured.state, &mut patch).issues(&mut |issue| issues.push(issue.at(row.index())));
    }
    if let Some(mistake) = changes.mistake {
        return Err(CallError::Failed(mistake));
    }
    let columns = changes.writers.into_iter().flatten().filter_map(|writer| writer.finish(rows.len())).collect();
    Ok(Patch { columns, issues })
}
