//! Reports, after the write, which columns the target stored differently from what was sent.
//!
//! Server logic on the target (workflows, defaults, truncation) changes rows without saying so. Nothing can be undone
//! here; the issue says where to look. An issue never repeats a value.

use dualwright_sdk::prelude::*;

/// What an issue does to the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Choice)]
pub enum Weight {
    /// The record counts as failed.
    Error,
    /// The record is marked.
    Warning,
    /// Shown with the record, nothing else.
    Info,
}

#[derive(Debug, Clone, Settings)]
pub struct Parameters {
    /// Columns that are compared. Not set: every column that was sent.
    pub columns: Vec<Column>,
    /// Columns that are never compared, because the target is known to change them.
    pub except: Vec<Column>,
    /// Upper and lower case are the same.
    #[setting(default = false)]
    pub ignore_case: bool,
    /// Blanks at the end of a text are not compared. Both systems may drop them.
    #[setting(default = true)]
    pub ignore_trailing_blanks: bool,
    /// By how much numbers may differ, for targets that keep fewer digits.
    #[setting(default = 0, minimum = 0)]
    pub tolerance: Decimal,
    /// Whether a difference makes the record fail, marks it, or is only shown.
    #[setting(default = "error")]
    pub weight: Weight,
}

const MISSING: IssueText = IssueText::error(
    "stored-missing",
    "the target has no such record after the write: look for server logic that deletes it",
);
const STILL_THERE: IssueText = IssueText::error(
    "stored-still-there",
    "the target still has the record after it was deleted: look for server logic that keeps it",
);
const DIFFERS: IssueText = IssueText::error(
    "stored-differs",
    "the target stored something else than was sent: {0}. Look for server logic on the target that changes the column",
);

/// Compares one row with what is stored.
pub fn check(parameters: &Parameters, sent: Row<'_>, stored: Option<Row<'_>>) -> Vec<Issue> {
    let severity = match parameters.weight {
        Weight::Error => Severity::Error,
        Weight::Warning => Severity::Warning,
        Weight::Info => Severity::Info,
    };
    let issues = match (sent.operation(), stored) {
        (Operation::Delete, None) => Vec::new(),
        (Operation::Delete, Some(_)) => vec![STILL_THERE.row()],
        (_, None) => vec![MISSING.row()],
        (_, Some(stored)) => sent
            .columns()
            .filter(|column| parameters.columns.is_empty() || parameters.columns.contains(column))
            .filter(|column| !parameters.except.contains(column))
            .filter_map(|column| {
                let difference = difference(parameters, sent.cell(column), stored.cell(column))?;
                Some(DIFFERS.on(column).arg(difference))
            })
            .collect(),
    };
    issues.into_iter().map(|issue| issue.with_severity(severity)).collect()
}

/// In what way two cells differ. None: they do not, or there is nothing to compare.
fn difference(parameters: &Parameters, sent: Cell<'_>, stored: Cell<'_>) -> Option<&'static str> {
    // What was not sent may be anything; what was not read back cannot be judged.
    if sent.is_absent() || stored.is_absent() {
        return None;
    }
    match (is_blank(sent), is_blank(stored)) {
        (true, true) => return None,
        (true, false) => return Some("it should be empty and is not"),
        (false, true) => return Some("it is empty"),
        (false, false) => {}
    }
    match (sent, stored) {
        (Cell::Text(sent), Cell::Text(stored)) => text_difference(parameters, sent, stored),
        (Cell::Decimal(sent), Cell::Decimal(stored)) => {
            let apart =
                sent.checked_sub(stored).map(|apart| apart.max(Decimal::ZERO.checked_sub(apart).unwrap_or(apart)));
            match apart {
                Some(apart) if apart <= parameters.tolerance => None,
                _ if is_rounded(sent, stored) => Some("the number was rounded"),
                _ => Some("it is another number"),
            }
        }
        (Cell::Float(sent), Cell::Float(stored)) => {
            let tolerance = parameters.tolerance.to_string().parse::<f64>().unwrap_or(0.0);
            (tolerance < (sent - stored).abs()).then_some("it is another number")
        }
        _ if sent == stored => None,
        (Cell::Timestamp(sent), Cell::Timestamp(stored)) if (sent - stored).abs() < 1_000_000 => {
            Some("the fraction of the second was dropped")
        }
        _ => Some("it has another value"),
    }
}

/// Microseconds and days of 1900-01-01, which F&O stores for no date.
const NO_DATE_MICROS: i64 = -2_208_988_800_000_000;
const NO_DATE_DAYS: i32 = -25_567;

/// Both systems write "nothing" in their own way: null, an empty text, 1900-01-01.
fn is_blank(cell: Cell<'_>) -> bool {
    match cell {
        Cell::Absent | Cell::Null | Cell::Timestamp(NO_DATE_MICROS) | Cell::Date(NO_DATE_DAYS) => true,
        Cell::Text(text) => text.is_empty(),
        _ => false,
    }
}

fn text_difference(parameters: &Parameters, sent: &str, stored: &str) -> Option<&'static str> {
    let (sent, stored) = if parameters.ignore_trailing_blanks {
        (sent.trim_end_matches(' '), stored.trim_end_matches(' '))
    } else {
        (sent, stored)
    };
    if sent == stored {
        return None;
    }
    let same_letters = sent.chars().flat_map(char::to_lowercase).eq(stored.chars().flat_map(char::to_lowercase));
    if same_letters {
        (!parameters.ignore_case).then_some("upper and lower case differ")
    } else if sent.starts_with(stored) {
        Some("the text was cut")
    } else if sent.split_whitespace().eq(stored.split_whitespace()) {
        Some("blanks or line breaks differ")
    } else {
        Some("it is another text")
    }
}

/// The stored number is the sent one with fewer digits after the point.
fn is_rounded(sent: Decimal, stored: Decimal) -> bool {
    let digits = stored.shortest().scale();
    digits < sent.shortest().scale()
        && [Rounding::HalfEven, Rounding::HalfUp].iter().any(|&rounding| sent.round(digits, rounding) == stored)
}

dualwright_sdk::plugin! {
    name: "stored-equals-sent",
    text: "Compares, after the write, what the target stored with what was sent, and reports every column that differs: \
           cut, rounded, emptied or changed by server logic of the target.",
    state: Parameters,
    issues: [MISSING, STILL_THERE, DIFFERS],
    post_validate: check,
}

#[cfg(test)]
mod tests {
    use dualwright_sdk::settings::SettingValue;
    use dualwright_sdk::testing::{Bench, column};

    use super::*;

    fn money(text: &str) -> Cell<'static> {
        Cell::Decimal(text.parse().expect("a decimal"))
    }

    #[test]
    fn cells() {
        let differs = |what: &str| format!("c!stored-differs({what})");
        let equal = "=".to_owned();
        let table: &[(Kind, &str, Cell<'_>, Cell<'_>, String)] = &[
            (Kind::Text, "", "abc".into(), "abc".into(), equal.clone()),
            (Kind::Text, "", "abc  ".into(), "abc".into(), equal.clone()),
            (Kind::Text, "", Cell::Null, "".into(), equal.clone()),
            (Kind::Text, "", Cell::Absent, "anything".into(), equal.clone()),
            (Kind::Text, "", "sent".into(), Cell::Absent, equal.clone()),
            (Kind::Text, "", "abcdef".into(), "abc".into(), differs("the text was cut")),
            (Kind::Text, "", "abc".into(), Cell::Null, differs("it is empty")),
            (Kind::Text, "", Cell::Null, "abc".into(), differs("it should be empty and is not")),
            (Kind::Text, "", "Äbc".into(), "äBC".into(), differs("upper and lower case differ")),
            (Kind::Text, "ignore-case", "Äbc".into(), "äBC".into(), equal.clone()),
            (Kind::Text, "", "a\r\nb".into(), "a\nb".into(), differs("blanks or line breaks differ")),
            (Kind::Text, "", "abc".into(), "xyz".into(), differs("it is another text")),
            (Kind::Money, "", money("1.50"), money("1.5"), equal.clone()),
            (Kind::Money, "", money("1.255"), money("1.26"), differs("the number was rounded")),
            (Kind::Money, "", money("1.2"), money("7"), differs("it is another number")),
            (Kind::Money, "tolerance", money("-1.255"), money("-1.26"), equal.clone()),
            (Kind::Money, "tolerance", money("1.255"), money("1.27"), differs("it is another number")),
            (Kind::Float64, "", Cell::Float(0.5), Cell::Float(0.5), equal.clone()),
            (Kind::Float64, "", Cell::Float(0.5), Cell::Float(0.25), differs("it is another number")),
            (Kind::Boolean, "", true.into(), false.into(), differs("it has another value")),
            (Kind::Date, "", Cell::Null, Cell::Date(NO_DATE_DAYS), equal.clone()),
            (Kind::Timestamp, "", Cell::Timestamp(NO_DATE_MICROS), Cell::Null, equal.clone()),
            (
                Kind::Timestamp,
                "",
                Cell::Timestamp(1_500_000),
                Cell::Timestamp(1_000_000),
                differs("the fraction of the second was dropped"),
            ),
            (Kind::Guid, "", Cell::Guid([1; 16]), Cell::Guid([1; 16]), equal.clone()),
            (Kind::Lookup, "", Cell::Guid([1; 16]), Cell::Guid([2; 16]), differs("it has another value")),
        ];
        for (kind, setting, sent, stored, wanted) in table {
            let bench = Bench::new([
                column("key", Kind::Int64),
                column("c", *kind).scale(if *kind == Kind::Money { 3 } else { 0 }),
            ]);
            let bench = match *setting {
                "ignore-case" => bench.setting("ignore-case", SettingValue::Boolean(true)),
                "tolerance" => bench.setting("tolerance", SettingValue::Decimal("0.005".to_owned())),
                _ => bench,
            };
            let lines = bench
                .post_validate::<Plugin>(&[vec![1_i64.into(), *sent]], &[vec![1_i64.into(), *stored]])
                .expect("it runs");
            assert_eq!(lines, [wanted.as_str()], "{kind:?} {sent:?} {stored:?}");
        }
    }

    #[test]
    fn rows_and_columns() {
        let bench = || Bench::new([column("a", Kind::Int64), column("b", Kind::Int64)]);
        let (sent, other) = (vec![1_i64.into(), 2_i64.into()], vec![7_i64.into(), 8_i64.into()]);
        let nothing: Vec<Cell<'_>> = vec![Cell::Absent, Cell::Absent];
        let a = "a!stored-differs(it has another value)";
        let table = [
            ("all columns", bench(), &other, format!("{a} b!stored-differs(it has another value)")),
            ("one column", bench().setting("columns", SettingValue::Columns(vec![0])), &other, a.to_owned()),
            ("all but one", bench().setting("except", SettingValue::Columns(vec![1])), &other, a.to_owned()),
            ("no such row", bench(), &nothing, "!stored-missing()".to_owned()),
        ];
        for (name, bench, stored, wanted) in table {
            let lines = bench.post_validate::<Plugin>(std::slice::from_ref(&sent), std::slice::from_ref(stored));
            assert_eq!(lines.expect("it runs"), [wanted], "{name}");
        }
    }
}
