//! Writes phone numbers in the international form (E.164): `(0171) 123-45 67` in Germany becomes `+491711234567`.
//!
//! An example of what a partner adds to a shipped table map. It is complete: parameters, issues, tests.

use dualwright_sdk::prelude::*;

#[derive(Debug, Clone, Settings)]
pub struct Parameters {
    /// The column with the ISO code of the record's country.
    pub country: Option<Column>,
    /// The country of records that name none.
    pub default_country: Option<String>,
    /// Country codes that are not built in, or that you dial differently, for instance FO = 298.
    pub dialling_codes: Vec<(String, String)>,
    /// Reject a record whose number cannot be one; otherwise the number stays as it is.
    #[setting(default = false)]
    pub strict: bool,
}

/// Country, dialling code, and the digit that is dialled before a number within the country and left out from abroad.
const COUNTRIES: &[(&str, &str, &str)] = &[
    ("AT", "43", "0"),
    ("AU", "61", "0"),
    ("BE", "32", "0"),
    ("BR", "55", "0"),
    ("CA", "1", "1"),
    ("CH", "41", "0"),
    ("CN", "86", "0"),
    ("CZ", "420", ""),
    ("DE", "49", "0"),
    ("DK", "45", ""),
    ("ES", "34", ""),
    ("FI", "358", "0"),
    ("FR", "33", "0"),
    ("GB", "44", "0"),
    ("IE", "353", "0"),
    ("IN", "91", "0"),
    ("IT", "39", ""),
    ("JP", "81", "0"),
    ("MX", "52", ""),
    ("NL", "31", "0"),
    ("NO", "47", ""),
    ("NZ", "64", "0"),
    ("PL", "48", ""),
    ("PT", "351", ""),
    ("SE", "46", "0"),
    ("SG", "65", ""),
    ("US", "1", "1"),
    ("ZA", "27", "0"),
];

/// Parameters that fit together, and to the table.
#[derive(Debug)]
pub struct Rules {
    numbers: Vec<Column>,
    country: Option<Column>,
    default_country: Option<String>,
    dialling_codes: Vec<(String, String)>,
    strict: bool,
}

impl State for Rules {
    type Settings = Parameters;

    fn prepare(parameters: Parameters, tables: &Tables) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let numbers: Vec<Column> = tables.bound().collect();
        for column in &numbers {
            if tables.kind(*column) != Some(Kind::Text) {
                let name = tables.definition(*column).map_or("", |definition| definition.name.as_str());
                refusals.push(refuse_column(name, "is not text, so it holds no phone number"));
            }
        }
        if parameters.country.is_none() && parameters.default_country.is_none() {
            refusals.push(refuse_parameter("country", "is missing: name the country column, or set `default-country`"));
        }
        for (country, code) in &parameters.dialling_codes {
            if code.is_empty() || 3 < code.len() || !code.bytes().all(|byte| byte.is_ascii_digit()) {
                refusals.push(refuse_parameter("dialling-codes", format!("{country} must have one to three digits")));
            }
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        Ok(Self {
            numbers,
            country: parameters.country,
            default_country: parameters.default_country,
            dialling_codes: parameters.dialling_codes,
            strict: parameters.strict,
        })
    }
}

impl Rules {
    /// The dialling code of a country, and the digit that is left out from abroad.
    fn dialling(&self, country: &str) -> Option<(&str, &str)> {
        let own = self.dialling_codes.iter().find(|(known, _)| known.eq_ignore_ascii_case(country));
        let built_in = COUNTRIES.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(country));
        match own {
            Some((_, code)) => Some((code, built_in.map_or("0", |(_, _, trunk)| trunk))),
            None => built_in.map(|(_, code, trunk)| (*code, *trunk)),
        }
    }
}

const INVALID: IssueText = IssueText::error(
    "phone-number-invalid",
    "the phone number cannot be one in {0}: correct the number or the country",
);

/// Changes the numbers of one row.
fn rewrite(rules: &Rules, row: &mut RowPatch<'_>) -> Vec<Issue> {
    let named = rules.country.and_then(|column| row.text(column)).map(str::trim).filter(|country| !country.is_empty());
    let country = named.or(rules.default_country.as_deref()).unwrap_or_default();
    let mut issues = Vec::new();
    for &column in &rules.numbers {
        let Some(number) = row.text(column).filter(|number| !number.trim().is_empty()) else { continue };
        match international(number, rules.dialling(country)) {
            Some(written) if written == number => {}
            Some(written) => row.set(column, &written),
            None if rules.strict => issues.push(INVALID.on(column).arg(country)),
            None => {}
        }
    }
    issues
}

/// Fewest and most digits of a number with its country (E.164).
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// The number as it is dialled from abroad. None when it cannot be one.
fn international(number: &str, dialling: Option<(&str, &str)>) -> Option<String> {
    let number = number.trim();
    let is_filler = |character: char| matches!(character, ' ' | '-' | '.' | '/' | '(' | ')' | '\u{a0}');
    let digits: String = number.chars().filter(|&character| !is_filler(character)).collect();
    let abroad = digits.strip_prefix('+').or_else(|| digits.strip_prefix("00"));
    let written = match (abroad, dialling) {
        // +49 (0) 171 is written by people, and the zero is never dialled.
        (Some(rest), _) => match number.split_once("(0)") {
            Some((country, _)) => {
                let country = country.chars().filter(char::is_ascii_digit).count();
                let country = country - if digits.starts_with('+') { 0 } else { 2 };
                let (country, rest) = rest.split_at_checked(country)?;
                format!("+{country}{}", rest.strip_prefix('0').unwrap_or(rest))
            }
            None => format!("+{rest}"),
        },
        (None, Some((code, trunk))) => {
            let within = if trunk.is_empty() { &digits[..] } else { digits.strip_prefix(trunk).unwrap_or(&digits) };
            format!("+{code}{within}")
        }
        (None, None) => return None,
    };
    let is_number = written[1..].bytes().all(|byte| byte.is_ascii_digit()) && DIGITS.contains(&(written.len() - 1));
    is_number.then_some(written)
}

dualwright_sdk::plugin! {
    name: "phone-number",
    text: "Writes phone numbers in the international form (E.164), by the country that stands in another column.",
    state: Rules,
    issues: [INVALID],
    idempotent: true,
    transform: row(rewrite),
}

#[cfg(test)]
mod tests {
    use dualwright_sdk::settings::SettingValue;
    use dualwright_sdk::testing::{Bench, column};

    use super::*;

    fn bench() -> Bench {
        Bench::new([column("telephone1", Kind::Text).writable(), column("country", Kind::Text)])
            .setting("country", SettingValue::Column(1))
    }

    #[test]
    fn numbers() {
        let table = [
            ("(0171) 123-45 67", "DE", "telephone1=+491711234567"),
            ("+49 (0) 171 1234567", "DE", "telephone1=+491711234567"),
            ("0049 (0)171 1234567", "US", "telephone1=+491711234567"),
            ("0043 1 234 56 78", "DE", "telephone1=+4312345678"),
            ("398-555-0132", "us", "telephone1=+13985550132"),
            ("1 398 555-0132", "US", "telephone1=+13985550132"),
            ("06 1234 5678", "IT", "telephone1=+390612345678"),
            ("+13985550132", "US", "="),
            ("+13985550132", "", "="),
            ("398-555-0132", "", "="),
            ("call me", "US", "="),
            ("12", "US", "="),
            ("", "US", "="),
        ];
        for (number, country, wanted) in table {
            let lines = bench().transform::<Plugin>(&[vec![number.into(), country.into()]]).expect("it runs");
            assert_eq!(lines, [wanted], "{number} in {country}");
        }
    }

    #[test]
    fn parameters() {
        let own = vec![("FO".to_owned(), "298".to_owned())];
        let strict = || bench().setting("strict", SettingValue::Boolean(true));
        let table = [
            (strict(), "call me", "US", "telephone1!phone-number-invalid(US)"),
            (strict(), "398-555-0132", "", "telephone1!phone-number-invalid()"),
            (
                bench().setting("default-country", SettingValue::Text("GB".to_owned())),
                "020 7946 0000",
                "",
                "telephone1=+442079460000",
            ),
            (bench().setting("dialling-codes", SettingValue::Pairs(own)), "201234", "FO", "telephone1=+298201234"),
        ];
        for (bench, number, country, wanted) in table {
            let lines = bench.transform::<Plugin>(&[vec![number.into(), country.into()]]).expect("it runs");
            assert_eq!(lines, [wanted], "{number} in {country}");
        }
        let failure = Bench::new([column("telephone1", Kind::Text).writable()])
            .transform::<Plugin>(&[vec!["1".into()]])
            .expect_err("it is refused");
        assert_eq!(failure.reasons(), ["country: is missing: name the country column, or set `default-country`"]);
    }

    /// What makes it safe on a field that goes both ways.
    #[test]
    fn a_number_that_was_written_stays() {
        for number in ["(0171) 123-45 67", "0043 1 234 56 78", "171 1234567"] {
            let once = international(number, Some(("49", "0"))).expect("it is a number");
            assert_eq!(international(&once, Some(("49", "0"))), Some(once.clone()), "{number}");
        }
    }
}
