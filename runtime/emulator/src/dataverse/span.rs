//! The query functions of Dataverse: `LastXDays`, `ThisWeek`, `On`, `Between`, `ContainValues` and their like.
//!
//! Owns their names and what they mean at a given time. FetchXML has the same ones under hyphenated names. Weeks begin on
//! Sunday, the fiscal year is the calendar year with quarters, and everybody lives in UTC: the settings of a new
//! organization.

use dualwright_odata::Literal;
use dualwright_odata::literal::{format_date, parse_date};

use super::condition::{MICROS_PER_DAY, Test};

const MICROS_PER_MINUTE: i64 = 60_000_000;
const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;

/// Year, month and day of a number of days since 1970.
pub(super) fn civil(days: i64) -> (i64, i64, i64) {
    let text = format_date(i32::try_from(days).unwrap_or(0));
    let mut parts = text.rsplitn(3, '-').map(|part| part.parse::<i64>().unwrap_or(1));
    let (day, month, year) = (parts.next(), parts.next(), parts.next());
    (year.unwrap_or(1970), month.unwrap_or(1), day.unwrap_or(1))
}

/// 1 for the first of January.
pub(super) fn day_of_year(days: i64) -> i64 {
    days - days_of(civil(days).0, 1, 1) + 1
}

/// Days since 1970 of a date; a day beyond the end of its month is its last.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year.clamp(1, 9_999);
    (0..4).find_map(|less| parse_date(&format!("{year:04}-{month:02}-{:02}", (day - less).max(1)))).map_or(0, i64::from)
}

fn add_months(days: i64, months: i64) -> i64 {
    let (year, month, day) = civil(days);
    let total = year.saturating_mul(12).saturating_add(month - 1).saturating_add(months);
    days_of(total.div_euclid(12), total.rem_euclid(12) + 1, day)
}

/// What a function with numbers for arguments asks of a date, at the time `now`; `None` when there is none of that name,
/// or the numbers are too few.
pub(super) fn test_of(name: &str, numbers: &[i64], now: i64) -> Option<Test> {
    let today = now.div_euclid(MICROS_PER_DAY);
    let (year, month, _) = civil(today);
    let week = today - (today + 4).rem_euclid(7);
    let month_start = days_of(year, month, 1);
    let quarter = (month - 1) / 3;
    let quarter_start = |offset: i64| add_months(days_of(year, quarter * 3 + 1, 1), offset.saturating_mul(3));
    let days = |from: i64, to: i64| Some(Test::Span(from * MICROS_PER_DAY, to * MICROS_PER_DAY));
    let since = |from: i64| Some(Test::Span(from, now + 1));
    let until = |to: i64| Some(Test::Span(now, to));
    // Nobody asks for more, and the arithmetic stays far from its limits.
    let first = || numbers.first().copied().map(|number| number.clamp(0, 100_000));
    let months_ago = |months: i64| add_months(today, -months) * MICROS_PER_DAY;
    let months_ahead = |months: i64| (add_months(today, months) + 1) * MICROS_PER_DAY;
    match name {
        "Today" => days(today, today + 1),
        "Yesterday" => days(today - 1, today),
        "Tomorrow" => days(today + 1, today + 2),
        "Last7Days" => since((today - 7) * MICROS_PER_DAY),
        "Next7Days" => until((today + 8) * MICROS_PER_DAY),
        "ThisWeek" => days(week, week + 7),
        "LastWeek" => days(week - 7, week),
        "NextWeek" => days(week + 7, week + 14),
        "ThisMonth" => days(month_start, add_months(month_start, 1)),
        "LastMonth" => days(add_months(month_start, -1), month_start),
        "NextMonth" => days(add_months(month_start, 1), add_months(month_start, 2)),
        "ThisYear" | "ThisFiscalYear" => days(days_of(year, 1, 1), days_of(year + 1, 1, 1)),
        "LastYear" | "LastFiscalYear" => days(days_of(year - 1, 1, 1), days_of(year, 1, 1)),
        "NextYear" | "NextFiscalYear" => days(days_of(year + 1, 1, 1), days_of(year + 2, 1, 1)),
        "ThisFiscalPeriod" => days(quarter_start(0), quarter_start(1)),
        "LastFiscalPeriod" => days(quarter_start(-1), quarter_start(0)),
        "NextFiscalPeriod" => days(quarter_start(1), quarter_start(2)),
        "LastXHours" => since(now - first()? * MICROS_PER_HOUR),
        "NextXHours" => until(now + first()? * MICROS_PER_HOUR),
        "LastXDays" => since((today - first()?) * MICROS_PER_DAY),
        "NextXDays" => until((today + first()? + 1) * MICROS_PER_DAY),
        "LastXWeeks" => since((today - 7 * first()?) * MICROS_PER_DAY),
        "NextXWeeks" => until((today + 7 * first()? + 1) * MICROS_PER_DAY),
        "LastXMonths" => since(months_ago(first()?)),
        "NextXMonths" => until(months_ahead(first()?)),
        "LastXYears" => since(months_ago(12 * first()?)),
        "NextXYears" => until(months_ahead(12 * first()?)),
        "LastXFiscalPeriods" => days(quarter_start(-first()?), quarter_start(0)),
        "NextXFiscalPeriods" => days(quarter_start(1), quarter_start(1 + first()?)),
        "LastXFiscalYears" => days(days_of(year - first()?, 1, 1), days_of(year, 1, 1)),
        "NextXFiscalYears" => days(days_of(year + 1, 1, 1), days_of(year + 1 + first()?, 1, 1)),
        "OlderThanXMinutes" => Some(Test::Span(i64::MIN, now - first()? * MICROS_PER_MINUTE)),
        "OlderThanXHours" => Some(Test::Span(i64::MIN, now - first()? * MICROS_PER_HOUR)),
        "OlderThanXDays" => Some(Test::Span(i64::MIN, (today - first()?) * MICROS_PER_DAY)),
        "OlderThanXWeeks" => Some(Test::Span(i64::MIN, (today - 7 * first()?) * MICROS_PER_DAY)),
        "OlderThanXMonths" => Some(Test::Span(i64::MIN, months_ago(first()?))),
        "OlderThanXYears" => Some(Test::Span(i64::MIN, months_ago(12 * first()?))),
        "InFiscalYear" => days(days_of(first()?, 1, 1), days_of(first()? + 1, 1, 1)),
        "InFiscalPeriod" => Some(Test::Quarter(first()?)),
        "InFiscalPeriodAndYear" | "InOrBeforeFiscalPeriodAndYear" | "InOrAfterFiscalPeriodAndYear" => {
            let [period, year] = *numbers else { return None };
            let from = add_months(days_of(year.clamp(1, 9_990), 1, 1), (period.clamp(1, 4) - 1) * 3);
            let to = add_months(from, 3);
            match name {
                "InFiscalPeriodAndYear" => days(from, to),
                "InOrBeforeFiscalPeriodAndYear" => Some(Test::Span(i64::MIN, to * MICROS_PER_DAY)),
                _ => Some(Test::Span(from * MICROS_PER_DAY, i64::MAX)),
            }
        }
        _ => None,
    }
}

/// `On`, `OnOrBefore`, `OnOrAfter`, `NotOn`: a day as a whole.
pub(super) fn day_test(name: &str, day: &Literal) -> Option<Test> {
    let days = match day {
        Literal::Date(days) => i64::from(*days),
        Literal::DateTime(micros) => micros.div_euclid(MICROS_PER_DAY),
        Literal::Text(text) => i64::from(parse_date(text.get(..10)?)?),
        _ => return None,
    };
    let (from, to) = (days * MICROS_PER_DAY, (days + 1) * MICROS_PER_DAY);
    Some(match name {
        "On" | "NotOn" => Test::Span(from, to),
        "OnOrBefore" => Test::Span(i64::MIN, to),
        "OnOrAfter" => Test::Span(from, i64::MAX),
        _ => return None,
    })
}

/// `last-x-days` as `LastXDays`.
pub(super) fn of_fetch(operator: &str) -> String {
    match operator {
        "last-seven-days" => return "Last7Days".to_owned(),
        "next-seven-days" => return "Next7Days".to_owned(),
        _ => {}
    }
    operator
        .replace("olderthan", "older-than")
        .split('-')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualwright_odata::literal::{format_date_time, parse_date_time};

    /// At noon of Thursday, 29 February 2024.
    #[test]
    fn spans_at_a_known_time() {
        let now = parse_date_time("2024-02-29T12:00:00Z").expect("time");
        for (name, numbers, wanted) in [
            ("Today", &[][..], "2024-02-29T00:00:00Z 2024-03-01T00:00:00Z"),
            ("Yesterday", &[], "2024-02-28T00:00:00Z 2024-02-29T00:00:00Z"),
            ("ThisWeek", &[], "2024-02-25T00:00:00Z 2024-03-03T00:00:00Z"),
            ("LastMonth", &[], "2024-01-01T00:00:00Z 2024-02-01T00:00:00Z"),
            ("NextYear", &[], "2025-01-01T00:00:00Z 2026-01-01T00:00:00Z"),
            ("LastXHours", &[6], "2024-02-29T06:00:00Z 2024-02-29T12:00:00.000001Z"),
            ("LastXDays", &[1], "2024-02-28T00:00:00Z 2024-02-29T12:00:00.000001Z"),
            ("NextXDays", &[1], "2024-02-29T12:00:00Z 2024-03-02T00:00:00Z"),
            ("LastXYears", &[1], "2023-02-28T00:00:00Z 2024-02-29T12:00:00.000001Z"),
            ("LastXMonths", &[3], "2023-11-29T00:00:00Z 2024-02-29T12:00:00.000001Z"),
            ("ThisFiscalPeriod", &[], "2024-01-01T00:00:00Z 2024-04-01T00:00:00Z"),
            ("InFiscalPeriodAndYear", &[4, 2023], "2023-10-01T00:00:00Z 2024-01-01T00:00:00Z"),
        ] {
            let Some(Test::Span(from, to)) = test_of(name, numbers, now) else { panic!("{name}") };
            assert_eq!(format!("{} {}", format_date_time(from), format_date_time(to)), wanted, "{name} {numbers:?}");
        }
        for (name, numbers) in [("LastXDays", &[][..]), ("NoSuch", &[1]), ("InFiscalPeriodAndYear", &[1])] {
            assert!(test_of(name, numbers, now).is_none(), "{name}");
        }
        assert_eq!(of_fetch("olderthan-x-minutes"), "OlderThanXMinutes");
        assert_eq!(of_fetch("in-or-before-fiscal-period-and-year"), "InOrBeforeFiscalPeriodAndYear");
    }
}
