//! Checks e-mail addresses before they reach the target.
//!
//! The rules are those that mail servers keep, not everything RFC 5322 would allow: no quoted local part, no comments, no
//! bare host names. Letters beyond ASCII are allowed, as RFC 6531 does. An issue never repeats the address.

use dualwright_sdk::prelude::*;

/// What an issue does to the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Choice)]
pub enum Weight {
    /// The record is rejected.
    Error,
    /// The record goes on and is marked.
    Warning,
}

#[derive(Debug, Clone, Settings)]
pub struct Parameters {
    /// Columns that hold addresses. Not set: every granted text column with `email` in its name.
    pub columns: Vec<Column>,
    /// Reject a record without an address.
    #[setting(default = false)]
    pub required: bool,
    /// Domains that are allowed, with their subdomains. Not set: any.
    pub domains: Vec<String>,
    /// Judge only records in which this column has one of `when-values`; for a column that holds addresses of all kinds,
    /// of which only some are e-mail addresses. Not set: every record.
    pub when_column: Option<Column>,
    /// The values of `when-column`, as they are written: a text, or the number of an option.
    pub when_values: Vec<String>,
    /// A column may hold several addresses, separated by semicolons.
    #[setting(default = false)]
    pub several: bool,
    /// Whether an address that is not right rejects the record or only marks it.
    #[setting(default = "error")]
    pub weight: Weight,
}

/// Parameters that fit together, and to the table.
#[derive(Debug)]
pub struct Rules {
    columns: Vec<Column>,
    /// In lower case.
    domains: Vec<String>,
    required: bool,
    several: bool,
    severity: Severity,
    when: Option<(Column, Vec<String>)>,
}

impl State for Rules {
    type Settings = Parameters;

    fn prepare(parameters: Parameters, tables: &Tables) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let mut columns = parameters.columns;
        if columns.is_empty() {
            let is_email = |column: &Column| {
                let named = |name: &str| name.to_ascii_lowercase().contains("email");
                tables.kind(*column) == Some(Kind::Text)
                    && tables.definition(*column).is_some_and(|definition| named(&definition.name))
            };
            columns = tables.all().filter(is_email).collect();
            if columns.is_empty() {
                refusals.push(refuse_parameter(
                    "columns",
                    "no granted text column has email in its name: name the columns",
                ));
            }
        }
        for column in &columns {
            if tables.kind(*column) != Some(Kind::Text) {
                let name = tables.definition(*column).map_or("", |definition| definition.name.as_str());
                refusals.push(refuse_column(name, "is not text, so it holds no e-mail address"));
            }
        }
        for domain in &parameters.domains {
            if let Some(fault) = domain_fault(domain) {
                refusals.push(refuse_parameter("domains", format!("{domain} is no domain: {fault}")));
            }
        }
        let when = match (parameters.when_column, parameters.when_values) {
            (Some(column), values) if !values.is_empty() => Some((column, values)),
            (None, values) if values.is_empty() => None,
            _ => {
                refusals.push(refuse_parameter("when-column", "goes together with when-values: set both or neither"));
                None
            }
        };
        if !refusals.is_empty() {
            return Err(refusals);
        }
        Ok(Self {
            when,
            columns,
            domains: parameters.domains.iter().map(|domain| domain.to_lowercase()).collect(),
            required: parameters.required,
            several: parameters.several,
            severity: match parameters.weight {
                Weight::Error => Severity::Error,
                Weight::Warning => Severity::Warning,
            },
        })
    }
}

const MISSING: IssueText = IssueText::error("email-missing", "the record has no e-mail address: enter one");
const INVALID: IssueText =
    IssueText::error("email-invalid", "the e-mail address is not valid: {0}. Correct it at the source");
const DOMAIN: IssueText = IssueText::error(
    "email-domain",
    "the domain of the e-mail address is not among those allowed: correct the address, or add the domain",
);

/// Judges the addresses of one row.
pub fn check(rules: &Rules, proposed: Row<'_>, _current: Option<Row<'_>>) -> Vec<Issue> {
    if proposed.operation() == Operation::Delete {
        return Vec::new();
    }
    if let Some((column, values)) = &rules.when
        && !values.iter().any(|value| holds(proposed.cell(*column), value))
    {
        return Vec::new();
    }
    let mut issues = Vec::new();
    for &column in &rules.columns {
        let cell = proposed.cell(column);
        // Nothing was said about the column, so the target keeps what it has; a new record has nothing.
        if cell.is_absent() && proposed.operation() != Operation::Create {
            continue;
        }
        let text = cell.text().unwrap_or_default().trim();
        if text.is_empty() {
            if rules.required {
                issues.push(MISSING.on(column));
            }
            continue;
        }
        issues.extend(judge(rules, text).map(|issue| Issue { column: Some(column), ..issue }));
    }
    for issue in &mut issues {
        issue.severity = rules.severity;
    }
    issues
}

/// Whether a cell has this value, as it is written.
fn holds(cell: Cell<'_>, value: &str) -> bool {
    match cell {
        Cell::Int(number) => value.trim().parse() == Ok(number),
        Cell::Boolean(flag) => value.trim().eq_ignore_ascii_case(if flag { "true" } else { "false" }),
        cell => cell.text().is_some_and(|text| text.trim().eq_ignore_ascii_case(value.trim())),
    }
}

/// The first thing that is wrong with what a column holds.
fn judge(rules: &Rules, text: &str) -> Option<Issue> {
    let mut addresses = text.split(if rules.several { ';' } else { '\u{0}' }).map(str::trim).peekable();
    while let Some(address) = addresses.next() {
        // A semicolon at the end is no further address.
        if address.is_empty() && addresses.peek().is_none() {
            return None;
        }
        if let Some(fault) = address_fault(address) {
            return Some(INVALID.row().arg(fault));
        }
        if !rules.domains.is_empty() && !is_allowed(rules, address) {
            return Some(DOMAIN.row());
        }
    }
    None
}

fn is_allowed(rules: &Rules, address: &str) -> bool {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain).to_lowercase();
    rules
        .domains
        .iter()
        .any(|allowed| domain.strip_suffix(allowed.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Most bytes that SMTP carries (RFC 5321, 4.5.3.1).
const ADDRESS_BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// What is wrong with an address, if something is.
#[must_use]
pub fn address_fault(address: &str) -> Option<&'static str> {
    let Some((local, domain)) = address.rsplit_once('@') else {
        return Some("there is no @");
    };
    if local.is_empty() {
        return Some("there is nothing before the @");
    }
    if local.contains('@') {
        return Some("there is more than one @");
    }
    if address.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Some("there is a blank or a control character in it");
    }
    if ADDRESS_BYTES_MAX < address.len() || LOCAL_BYTES_MAX < local.len() {
        return Some("it is too long");
    }
    let is_allowed = |character: char| {
        character.is_ascii_alphanumeric() || !character.is_ascii() || "!#$%&'*+-/=?^_`{|}~.".contains(character)
    };
    if !local.chars().all(is_allowed) {
        return Some("there is a character before the @ that is not allowed");
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Some("a dot before the @ stands at an end or beside another one");
    }
    domain_fault(domain)
}

/// What is wrong with a domain, if something is.
fn domain_fault(domain: &str) -> Option<&'static str> {
    if domain.is_empty() {
        return Some("there is no domain after the @");
    }
    if DOMAIN_BYTES_MAX < domain.len() {
        return Some("its domain is too long");
    }
    if !domain.contains('.') {
        return Some("its domain has no dot");
    }
    for label in domain.split('.') {
        if label.is_empty() {
            return Some("its domain has a dot at an end or beside another one");
        }
        if LABEL_BYTES_MAX < label.len() {
            return Some("a part of its domain is too long");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Some("a part of its domain begins or ends with a dash");
        }
        if !label.chars().all(|character| character.is_alphanumeric() || character == '-') {
            return Some("its domain has a character that is not allowed");
        }
    }
    let top = domain.rsplit('.').next().unwrap_or_default();
    if top.chars().all(|character| character.is_ascii_digit()) {
        return Some("its domain ends with a number");
    }
    None
}

dualwright_sdk::plugin! {
    name: "email-validator",
    text: "Checks e-mail addresses before the write: whether there is one, whether it can be one, and whether its domain is \
           among those allowed. The mailbox itself is not looked for.",
    state: Rules,
    issues: [MISSING, INVALID, DOMAIN],
    pre_validate: check,
}

#[cfg(test)]
mod tests {
    use dualwright_sdk::settings::SettingValue;
    use dualwright_sdk::testing::{Bench, column};

    use super::*;

    #[test]
    fn addresses() {
        let long_local = "a".repeat(65) + "@example.com";
        let long_label = format!("a@{}.com", "b".repeat(64));
        let table = [
            ("jon24@adventure-works.com", None),
            ("o'neil.k+erp@mail.example.co.uk", None),
            ("用户@例子.公司", None),
            ("ÄÖ@bücher.example", None),
            ("jon24", Some("there is no @")),
            ("@example.com", Some("there is nothing before the @")),
            ("a@b@example.com", Some("there is more than one @")),
            ("a b@example.com", Some("there is a blank or a control character in it")),
            ("a@example.com\u{7}", Some("there is a blank or a control character in it")),
            ("a,b@example.com", Some("there is a character before the @ that is not allowed")),
            (".a@example.com", Some("a dot before the @ stands at an end or beside another one")),
            ("a..b@example.com", Some("a dot before the @ stands at an end or beside another one")),
            ("a@", Some("there is no domain after the @")),
            ("a@localhost", Some("its domain has no dot")),
            ("a@example..com", Some("its domain has a dot at an end or beside another one")),
            ("a@example.com.", Some("its domain has a dot at an end or beside another one")),
            ("a@-example.com", Some("a part of its domain begins or ends with a dash")),
            ("a@exam_ple.com", Some("its domain has a character that is not allowed")),
            ("a@10.0.0.1", Some("its domain ends with a number")),
            (&long_local, Some("it is too long")),
            (&long_label, Some("a part of its domain is too long")),
        ];
        for (address, wanted) in table {
            assert_eq!(address_fault(address), wanted, "{address}");
        }
    }

    #[test]
    fn rows() {
        let plain = || Bench::new([column("emailaddress1", Kind::Text), column("name", Kind::Text)]);
        let required = || plain().setting("required", SettingValue::Boolean(true));
        let domains = || plain().setting("domains", SettingValue::Texts(vec!["Example.com".to_owned()]));
        let several = || plain().setting("several", SettingValue::Boolean(true));
        let table: &[(&str, Bench, Cell<'_>, &str)] = &[
            ("a valid one", plain(), " jon@example.com ".into(), "="),
            ("none", plain(), Cell::Null, "="),
            ("nothing said", required(), Cell::Absent, "="),
            ("none but required", required(), Cell::Null, "emailaddress1!email-missing()"),
            ("blanks but required", required(), "  ".into(), "emailaddress1!email-missing()"),
            ("not valid", plain(), "jon".into(), "emailaddress1!email-invalid(there is no @)"),
            ("a domain allowed", domains(), "a@EXAMPLE.com".into(), "="),
            ("a subdomain allowed", domains(), "a@mail.example.com".into(), "="),
            ("a domain not allowed", domains(), "a@badexample.com".into(), "emailaddress1!email-domain()"),
            (
                "two where one is expected",
                plain(),
                "a@b.com;c@d.com".into(),
                "emailaddress1!email-invalid(there is more than one @)",
            ),
            ("two", several(), "a@b.com; c@d.com;".into(), "="),
            ("the second not valid", several(), "a@b.com;c".into(), "emailaddress1!email-invalid(there is no @)"),
        ];
        for (name, bench, cell, wanted) in table {
            let lines = bench.pre_validate::<Plugin>(&[vec![*cell, "no address".into()]], &[]).expect("it runs");
            assert_eq!(lines, [*wanted], "{name}");
        }
    }

    #[test]
    fn only_records_of_the_right_type_are_judged() {
        let values = ["Email", "2", "true"].map(str::to_owned);
        let bench = |kind| {
            Bench::new([column("locator", Kind::Text), column("type", kind)])
                .setting("columns", SettingValue::Columns(vec![0]))
                .setting("when-column", SettingValue::Column(1))
                .setting("when-values", SettingValue::Texts(values.to_vec()))
        };
        let wrong = "locator!email-invalid(there is no @)";
        let table: &[(Kind, Cell<'_>, &str)] = &[
            (Kind::Choice, "email".into(), wrong),
            (Kind::Choice, "Phone".into(), "="),
            (Kind::Int64, Cell::Int(2), wrong),
            (Kind::Int64, Cell::Int(3), "="),
            (Kind::Boolean, true.into(), wrong),
            (Kind::Choice, Cell::Null, "="),
        ];
        for (kind, cell, wanted) in table {
            let lines = bench(*kind).pre_validate::<Plugin>(&[vec!["555-0100".into(), *cell]], &[]).expect("it runs");
            assert_eq!(lines, [*wanted], "{cell:?}");
        }
    }

    #[test]
    fn wrong_installations_are_refused() {
        let table = [
            (
                Bench::new([column("name", Kind::Text)]),
                "columns: no granted text column has email in its name: name the columns",
            ),
            (
                Bench::new([column("limit", Kind::Money)]).setting("columns", SettingValue::Columns(vec![0])),
                "limit: is not text, so it holds no e-mail address",
            ),
            (
                Bench::new([column("email", Kind::Text)])
                    .setting("domains", SettingValue::Texts(vec!["example".to_owned()])),
                "domains: example is no domain: its domain has no dot",
            ),
        ];
        for (bench, wanted) in table {
            let failure = bench.pre_validate::<Plugin>(&[vec!["a@b.com".into()]], &[]).expect_err("it is refused");
            assert_eq!(failure.reasons(), [wanted]);
        }
    }
}
