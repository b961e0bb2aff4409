//! Rounds amounts to what their currency can pay.
//!
//! Works on exact decimals. The currency of a row stands in another column of it.

mod currency;

use dualwright_sdk::prelude::*;

pub use currency::{MinorUnit, minor_unit};

/// What becomes of a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Choice)]
pub enum Half {
    /// To the even neighbour, as banks do.
    HalfEven,
    /// Away from zero, as invoices do.
    HalfUp,
}

/// What becomes of an amount whose currency is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Choice)]
pub enum Unknown {
    Reject,
    Keep,
}

#[derive(Debug, Clone, Settings)]
pub struct Parameters {
    /// The column that holds the ISO 4217 code of the row's currency.
    pub currency: Column,
    /// Where a half goes: half-even to the even neighbour, half-up away from zero.
    #[setting(default = "half-even")]
    pub rounding: Half,
    /// The currency of rows that name none.
    pub default_currency: Option<String>,
    /// Digits after the point for currencies that you round differently, for instance CHF = 1.
    pub digits: Vec<(String, String)>,
    /// What becomes of an amount whose currency is missing or is not in ISO 4217: reject the record, or keep the amount.
    #[setting(default = "reject")]
    pub unknown_currency: Unknown,
}

/// Parameters that fit together, and to the table.
#[derive(Debug)]
pub struct Rules {
    amounts: Vec<Column>,
    currency: Column,
    rounding: Rounding,
    default_currency: Option<String>,
    digits: Vec<(String, u8)>,
    unknown_currency: Unknown,
}

/// Most digits that `digits` may ask for; ISO 4217 has at most four.
const DIGITS_MAX: u8 = 10;

impl State for Rules {
    type Settings = Parameters;

    fn prepare(parameters: Parameters, tables: &Tables) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let amounts: Vec<Column> = tables.bound().collect();
        for column in &amounts {
            if !matches!(tables.kind(*column), Some(Kind::Decimal | Kind::Money)) {
                let name = tables.definition(*column).map_or("", |definition| definition.name.as_str());
                refusals.push(refuse_column(name, "is no amount: bind this transform to decimal or money columns"));
            }
        }
        if !matches!(tables.kind(parameters.currency), Some(Kind::Text | Kind::Choice)) {
            refusals
                .push(refuse_parameter("currency", "names a column that is not text, so it holds no currency code"));
        }
        let mut digits = Vec::new();
        for (code, number) in &parameters.digits {
            match number.trim().parse::<u8>() {
                Ok(number) if number <= DIGITS_MAX => digits.push((code.trim().to_uppercase(), number)),
                _ => refusals.push(refuse_parameter("digits", format!("{code} must have 0 to {DIGITS_MAX} digits"))),
            }
        }
        let default_currency = parameters.default_currency.map(|code| code.trim().to_uppercase());
        if let Some(code) = &default_currency
            && minor_unit(code).is_none()
            && !digits.iter().any(|(known, _)| known == code)
        {
            refusals.push(refuse_parameter("default-currency", format!("{code} is not in ISO 4217")));
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        Ok(Self {
            amounts,
            currency: parameters.currency,
            rounding: match parameters.rounding {
                Half::HalfEven => Rounding::HalfEven,
                Half::HalfUp => Rounding::HalfUp,
            },
            default_currency,
            digits,
            unknown_currency: parameters.unknown_currency,
        })
    }
}

const UNKNOWN: IssueText = IssueText::error(
    "currency-unknown",
    "the currency {0} is not in ISO 4217, so the amount cannot be rounded: correct the currency, or name its digits",
);
const MISSING: IssueText = IssueText::error(
    "currency-missing",
    "the record has an amount and no currency: enter the currency, or set a default for such records",
);

/// Rounds the amounts of one row.
pub fn round(rules: &Rules, row: &mut RowPatch<'_>) -> Option<Issue> {
    if rules.amounts.iter().all(|&amount| row.decimal(amount).is_none()) {
        return None;
    }
    let code = match row.text(rules.currency).map(str::trim) {
        None | Some("") => rules.default_currency.as_deref(),
        code => code,
    };
    let unit = code.and_then(|code| unit_of(rules, code));
    let Some(unit) = unit else {
        return match (rules.unknown_currency, code) {
            (Unknown::Keep, _) => None,
            (Unknown::Reject, Some(code)) => Some(UNKNOWN.on(rules.currency).arg(code)),
            (Unknown::Reject, None) => Some(MISSING.on(rules.currency)),
        };
    };
    let MinorUnit::Digits(digits) = unit else { return None };
    for &column in &rules.amounts {
        if let Some(amount) = row.decimal(column) {
            let rounded = amount.round(digits, rules.rounding);
            if rounded != amount {
                row.set(column, rounded);
            }
        }
    }
    None
}

fn unit_of(rules: &Rules, code: &str) -> Option<MinorUnit> {
    let mut upper = [0; 3];
    let code = match code.as_bytes() {
        bytes @ [_, _, _] => {
            upper.copy_from_slice(bytes);
            upper.make_ascii_uppercase();
            std::str::from_utf8(&upper).ok()?
        }
        _ => code,
    };
    match rules.digits.iter().find(|(known, _)| known == code) {
        Some((_, digits)) => Some(MinorUnit::Digits(*digits)),
        None => minor_unit(code),
    }
}

dualwright_sdk::plugin! {
    name: "money-rounding",
    text: "Rounds amounts to what their currency can pay: two digits for most, none for yen, three for Kuwaiti dinar \
           (ISO 4217). Changes every decimal or money column it is bound to.",
    state: Rules,
    issues: [UNKNOWN, MISSING],
    idempotent: true,
    transform: row(round),
}

#[cfg(test)]
mod tests {
    use dualwright_sdk::settings::SettingValue;
    use dualwright_sdk::testing::{Bench, column};

    use super::*;

    fn bench() -> Bench {
        let amount = column("creditlimit", Kind::Money).writable().scale(4);
        Bench::new([amount, column("currency", Kind::Text), column("note", Kind::Text)])
            .setting("currency", SettingValue::Column(1))
    }

    fn text(value: &str) -> SettingValue {
        SettingValue::Text(value.to_owned())
    }

    #[test]
    fn amounts() {
        let up = || bench().setting("rounding", text("half-up"));
        let pairs = vec![("chf".to_owned(), "1".to_owned()), ("PTS".to_owned(), "0".to_owned())];
        let own = || bench().setting("digits", SettingValue::Pairs(pairs.clone()));
        let keep = || bench().setting("unknown-currency", text("keep"));
        let table: &[(Bench, &str, Cell<'_>, &str)] = &[
            (bench(), "10.1250", "USD".into(), "creditlimit=10.1200"),
            (up(), "10.1250", "USD".into(), "creditlimit=10.1300"),
            (up(), "-10.1250", "USD".into(), "creditlimit=-10.1300"),
            (bench(), "10.1300", "USD".into(), "="),
            (bench(), "1500.5000", "JPY".into(), "creditlimit=1500.0000"),
            (up(), "1500.5000", " jpy ".into(), "creditlimit=1501.0000"),
            (bench(), "1.2345", "KWD".into(), "creditlimit=1.2340"),
            (bench(), "1.2345", "CLF".into(), "="),
            (bench(), "1.2345", "XAU".into(), "="),
            (bench(), "1.2345", "ZZZ".into(), "currency!currency-unknown(ZZZ)"),
            (bench(), "1.2345", "Yen".into(), "currency!currency-unknown(Yen)"),
            (bench(), "1.2345", Cell::Null, "currency!currency-missing()"),
            (bench(), "1.2345", "".into(), "currency!currency-missing()"),
            (keep(), "1.2345", "ZZZ".into(), "="),
            (keep(), "1.2345", Cell::Null, "="),
            (bench().setting("default-currency", text("eur")), "1.2345", Cell::Null, "creditlimit=1.2300"),
            (own(), "1.2500", "CHF".into(), "creditlimit=1.2000"),
            (own(), "1.5000", "pts".into(), "creditlimit=2.0000"),
        ];
        for (bench, amount, currency, wanted) in table {
            let amount: Decimal = amount.parse().expect("a decimal");
            let lines = bench.transform::<Plugin>(&[vec![amount.into(), *currency]]).expect("it runs");
            assert_eq!(lines, [*wanted], "{amount} {currency:?}");
        }
    }

    #[test]
    fn rows_without_an_amount_need_no_currency() {
        let rows = [vec![Cell::Null, Cell::Null], vec![Cell::Absent, "ZZZ".into()]];
        assert_eq!(bench().transform::<Plugin>(&rows).expect("it runs"), ["=", "="]);
    }

    #[test]
    fn wrong_installations_are_refused() {
        let amount = || column("limit", Kind::Money).writable();
        let on_text = Bench::new([column("limit", Kind::Text).writable(), column("currency", Kind::Text)])
            .setting("currency", SettingValue::Column(1));
        let table = [
            (on_text, "limit: is no amount: bind this transform to decimal or money columns"),
            (Bench::new([amount()]), "currency: is missing or of another kind than the description says"),
            (
                Bench::new([amount()]).setting("currency", SettingValue::Column(0)),
                "currency: names a column that is not text, so it holds no currency code",
            ),
            (bench().setting("default-currency", text("ZZZ")), "default-currency: ZZZ is not in ISO 4217"),
            (
                bench().setting("digits", SettingValue::Pairs(vec![("EUR".to_owned(), "many".to_owned())])),
                "digits: EUR must have 0 to 10 digits",
            ),
        ];
        for (bench, wanted) in table {
            let failure = bench.transform::<Plugin>(&[vec![Cell::Null]]).expect_err("it is refused");
            assert_eq!(failure.reasons(), [wanted]);
        }
    }
}
