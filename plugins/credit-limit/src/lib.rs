//! Keeps credit limits within bounds before they reach the target.

use dualwright_sdk::prelude::*;

#[derive(Debug, Clone, Settings)]
pub struct Parameters {
    /// The column that holds the credit limit.
    pub amount: Column,
    /// The column that holds the currency of the limit. Needed for `limits`.
    pub currency: Option<Column>,
    /// Highest limit per currency, for instance EUR = 250000.
    pub limits: Vec<(String, String)>,
    /// Highest limit in any other currency, or in all where there is no currency column.
    #[setting(minimum = 0)]
    pub limit: Option<Decimal>,
    /// By how many percent a limit may grow at once, over what the target holds. Not set: by any.
    #[setting(minimum = 0)]
    pub increase_percent: Option<Decimal>,
    /// Reject a record without a limit.
    #[setting(default = false)]
    pub mandatory: bool,
    /// A column that says per record whether a limit is mandatory: a boolean, or Yes and No.
    pub mandatory_column: Option<Column>,
}

/// Parameters that fit together, and to the table.
#[derive(Debug)]
pub struct Rules {
    amount: Column,
    currency: Option<Column>,
    /// Codes in upper case.
    limits: Vec<(String, Decimal)>,
    limit: Option<Decimal>,
    increase_percent: Option<Decimal>,
    mandatory: bool,
    mandatory_column: Option<Column>,
}

impl State for Rules {
    type Settings = Parameters;

    fn prepare(parameters: Parameters, tables: &Tables) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Vec::new();
        if !matches!(tables.kind(parameters.amount), Some(Kind::Decimal | Kind::Money)) {
            refusals.push(refuse_parameter("amount", "names a column that is no amount"));
        }
        if parameters.currency.is_some_and(|column| !matches!(tables.kind(column), Some(Kind::Text | Kind::Choice))) {
            refusals
                .push(refuse_parameter("currency", "names a column that is not text, so it holds no currency code"));
        }
        if parameters
            .mandatory_column
            .is_some_and(|column| !matches!(tables.kind(column), Some(Kind::Boolean | Kind::Choice | Kind::Text)))
        {
            refusals.push(refuse_parameter("mandatory-column", "names a column that says neither yes nor no"));
        }
        if !parameters.limits.is_empty() && parameters.currency.is_none() {
            refusals.push(refuse_parameter("limits", "are per currency: name the currency column too"));
        }
        let mut limits = Vec::new();
        for (code, digits) in &parameters.limits {
            match digits.trim().parse::<Decimal>() {
                Ok(limit) if !limit.is_negative() => limits.push((code.trim().to_uppercase(), limit)),
                _ => refusals.push(refuse_parameter("limits", format!("{code} must have a number such as 250000"))),
            }
        }
        let negative = |number: Option<Decimal>| number.is_some_and(Decimal::is_negative);
        if negative(parameters.limit) {
            refusals.push(refuse_parameter("limit", "must be at least 0"));
        }
        if negative(parameters.increase_percent) {
            refusals.push(refuse_parameter("increase-percent", "must be at least 0"));
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        Ok(Self {
            amount: parameters.amount,
            currency: parameters.currency,
            limits,
            limit: parameters.limit,
            increase_percent: parameters.increase_percent,
            mandatory: parameters.mandatory,
            mandatory_column: parameters.mandatory_column,
        })
    }
}

const MISSING: IssueText = IssueText::error("credit-limit-missing", "the record needs a credit limit: enter one");
const NEGATIVE: IssueText = IssueText::error("credit-limit-negative", "the credit limit is below zero: correct it");
const EXCEEDED: IssueText = IssueText::error(
    "credit-limit-exceeded",
    "the credit limit is over {0}, the highest allowed: lower it, or have the highest limit raised",
);
const INCREASE: IssueText = IssueText::error(
    "credit-limit-increase",
    "the credit limit grows by more than {0} percent at once: raise it in steps, or have the record released",
);

/// Judges the credit limit of one row.
pub fn check(rules: &Rules, proposed: Row<'_>, current: Option<Row<'_>>) -> Option<Issue> {
    if proposed.operation() == Operation::Delete {
        return None;
    }
    let cell = proposed.cell(rules.amount);
    // Nothing was said about the column, so the target keeps what it has; a new record has nothing.
    if cell.is_absent() && proposed.operation() != Operation::Create && current.is_some() {
        return None;
    }
    let amount = cell.decimal().unwrap_or_default();
    if amount.is_zero() {
        return is_mandatory(rules, proposed).then(|| MISSING.on(rules.amount));
    }
    if amount.is_negative() {
        return Some(NEGATIVE.on(rules.amount));
    }
    let currency = rules.currency.and_then(|column| proposed.text(column)).map(str::trim).unwrap_or_default();
    let highest = rules.limits.iter().find(|(code, _)| code.eq_ignore_ascii_case(currency)).map(|(_, limit)| *limit);
    if let Some(highest) = highest.or(rules.limit)
        && highest < amount
    {
        let highest = if currency.is_empty() { highest.to_string() } else { format!("{highest} {currency}") };
        return Some(EXCEEDED.on(rules.amount).arg(highest));
    }
    let percent = rules.increase_percent?;
    let before = comparable(rules, currency, current?)?;
    is_over(amount, before, percent).then(|| INCREASE.on(rules.amount).arg(percent))
}

fn is_mandatory(rules: &Rules, row: Row<'_>) -> bool {
    rules.mandatory
        || rules.mandatory_column.is_some_and(|column| match row.cell(column) {
            Cell::Boolean(value) => value,
            Cell::Text(text) => ["yes", "true", "1"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes)),
            _ => false,
        })
}

/// The target's limit, where it has one in the same currency.
fn comparable(rules: &Rules, currency: &str, current: Row<'_>) -> Option<Decimal> {
    let same = match rules.currency.map(|column| current.cell(column)) {
        None | Some(Cell::Absent) => true,
        Some(cell) => cell.text().unwrap_or_default().trim().eq_ignore_ascii_case(currency),
    };
    current.decimal(rules.amount).filter(|before| same && !before.is_zero() && !before.is_negative())
}

/// amount > before * (100 + percent) / 100, without dividing. A product that does not fit a number of 38 digits is over
/// anything a system stores.
fn is_over(amount: Decimal, before: Decimal, percent: Decimal) -> bool {
    let hundred = Decimal::from(100);
    let allowed = hundred.checked_add(percent).and_then(|percent| before.checked_mul(percent));
    match (amount.checked_mul(hundred), allowed) {
        (Some(amount), Some(allowed)) => allowed < amount,
        (_, None) => false,
        (None, Some(_)) => true,
    }
}

dualwright_sdk::plugin! {
    name: "credit-limit",
    text: "Keeps credit limits within bounds before the write: a highest limit per currency, a largest increase over what \
           the target holds, and records that must have a limit.",
    state: Rules,
    issues: [MISSING, NEGATIVE, EXCEEDED, INCREASE],
    pre_validate: check,
}

#[cfg(test)]
mod tests {
    use dualwright_sdk::settings::SettingValue;
    use dualwright_sdk::testing::{Bench, column};

    use super::*;

    fn bench() -> Bench {
        Bench::new([
            column("creditlimit", Kind::Money),
            column("currency", Kind::Text),
            column("mandatory", Kind::Choice),
        ])
        .setting("amount", SettingValue::Column(0))
        .setting("currency", SettingValue::Column(1))
    }

    fn decimal(value: &str) -> SettingValue {
        SettingValue::Decimal(value.to_owned())
    }

    fn money(text: &str) -> Cell<'static> {
        Cell::Decimal(text.parse().expect("a decimal"))
    }

    #[test]
    fn limits() {
        let pairs = vec![("eur".to_owned(), "1000".to_owned()), ("JPY".to_owned(), "150000".to_owned())];
        let limits =
            || bench().setting("limits", SettingValue::Pairs(pairs.clone())).setting("limit", decimal("500.50"));
        let must = || bench().setting("mandatory", SettingValue::Boolean(true));
        let may = || bench().setting("mandatory-column", SettingValue::Column(2));
        let (usd, eur, chf) = ("USD".into(), "EUR".into(), "CHF".into());
        let table: &[(&str, Bench, [Cell<'_>; 3], &str)] = &[
            ("no rule", bench(), [money("9999999"), usd, Cell::Null], "="),
            ("at the limit", limits(), [money("1000.00"), eur, Cell::Null], "="),
            ("over it", limits(), [money("1000.01"), eur, Cell::Null], "creditlimit!credit-limit-exceeded(1000 EUR)"),
            (
                "any other currency",
                limits(),
                [money("501"), chf, Cell::Null],
                "creditlimit!credit-limit-exceeded(500.50 CHF)",
            ),
            (
                "no currency",
                limits(),
                [money("501"), Cell::Null, Cell::Null],
                "creditlimit!credit-limit-exceeded(500.50)",
            ),
            ("below zero", bench(), [money("-0.01"), usd, Cell::Null], "creditlimit!credit-limit-negative()"),
            ("none", bench(), [Cell::Null, usd, Cell::Null], "="),
            ("none but mandatory", must(), [Cell::Null, usd, Cell::Null], "creditlimit!credit-limit-missing()"),
            ("zero but mandatory", must(), [money("0"), usd, Cell::Null], "creditlimit!credit-limit-missing()"),
            ("the record says so", may(), [Cell::Null, usd, "Yes".into()], "creditlimit!credit-limit-missing()"),
            ("the record says no", may(), [Cell::Null, usd, "No".into()], "="),
        ];
        for (name, bench, row, wanted) in table {
            assert_eq!(bench.pre_validate::<Plugin>(&[row.to_vec()], &[]).expect("it runs"), [*wanted], "{name}");
        }
    }

    #[test]
    fn increases() {
        let too_much = "creditlimit!credit-limit-increase(12.5)";
        type Limit<'a> = (&'a str, &'a str);
        let table: &[(&str, &str, &str, Option<Limit<'_>>, &str)] = &[
            ("a new record", "1000", "EUR", None, "="),
            ("lower", "1", "EUR", Some(("1000", "EUR")), "="),
            ("exactly as much as allowed", "1125.00", "EUR", Some(("1000", "EUR")), "="),
            ("more", "1125.01", "EUR", Some(("1000", "EUR")), too_much),
            ("from zero", "1125.01", "EUR", Some(("0", "EUR")), "="),
            ("in another currency", "99999", "JPY", Some(("1000", "EUR")), "="),
        ];
        let bench = bench().setting("increase-percent", decimal("12.5"));
        for (name, amount, currency, current, wanted) in table {
            let current: Vec<Vec<Cell<'_>>> =
                current.iter().map(|(amount, currency)| vec![money(amount), (*currency).into()]).collect();
            let lines = bench
                .pre_validate::<Plugin>(&[vec![money(amount), (*currency).into(), Cell::Null]], &current)
                .expect("it runs");
            assert_eq!(lines, [*wanted], "{name}");
        }
    }

    #[test]
    fn a_column_nobody_spoke_of_is_not_judged() {
        let bench = bench().setting("mandatory", SettingValue::Boolean(true));
        let current = [vec![money("10"), "EUR".into()]];
        let lines = bench.pre_validate::<Plugin>(&[vec![Cell::Absent, "EUR".into()]], &current).expect("it runs");
        assert_eq!(lines, ["="]);
    }

    #[test]
    fn wrong_installations_are_refused() {
        let amount = |kind| Bench::new([column("limit", kind)]).setting("amount", SettingValue::Column(0));
        let pairs = |text: &str| SettingValue::Pairs(vec![("EUR".to_owned(), text.to_owned())]);
        let table = [
            (amount(Kind::Text), "amount: names a column that is no amount"),
            (
                amount(Kind::Money).setting("limits", pairs("1")),
                "limits: are per currency: name the currency column too",
            ),
            (bench().setting("limits", pairs("much")), "limits: EUR must have a number such as 250000"),
            (bench().setting("limit", decimal("-1")), "limit: must be at least 0"),
        ];
        for (bench, wanted) in table {
            let failure = bench.pre_validate::<Plugin>(&[vec![Cell::Null]], &[]).expect_err("it is refused");
            assert_eq!(failure.reasons(), [wanted]);
        }
    }
}
