//! What a plugin says of itself, checked once at admission.

use dualwright_core::Kind;
use rust_decimal::Decimal;

use crate::bindings::{describe as wit_describe, wit};
use crate::checked::printable;

/// Longest text that a description may hold in one place.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Entries of one list of a description.
const ENTRIES_MAX: usize = 500;

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Description {
    pub name: String,
    pub version: String,
    pub text: String,
    pub parameters: Vec<Parameter>,
    /// Columns needed under a fixed name. See [`Description::columns_in`] for those that depend on parameters.
    pub columns: Vec<ColumnWant>,
    pub issues: Vec<IssueText>,
    /// Applied to its own result it changes nothing.
    pub idempotent: bool,
    /// Wants the rows before the change as well.
    pub reads_before: bool,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Parameter {
    pub name: String,
    pub kind: ParameterKind,
    pub required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "digits")]
    pub minimum: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "digits")]
    pub maximum: Option<Decimal>,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterKind {
    Boolean,
    Integer,
    Decimal,
    Text,
    /// One of the options.
    Choice,
    /// Names a column of the source.
    Column,
    Texts,
    Columns,
    /// A table of names and texts.
    Pairs,
    Json,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ColumnWant {
    /// Entity set or collection; empty for the source itself.
    pub table: String,
    pub name: String,
    pub access: Access,
    /// Empty for any.
    pub kinds: Vec<Kind>,
    pub required: bool,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    Read,
    Write,
}

/// An issue that the plugin can report, with the text shown for it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct IssueText {
    pub code: String,
    pub severity: Severity,
    pub text: String,
}

/// How much an issue weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Shown with the record, nothing else.
    Info,
    /// The record goes on and is marked.
    Warning,
    /// The record is rejected.
    Error,
}

impl From<wit::Severity> for Severity {
    fn from(severity: wit::Severity) -> Self {
        match severity {
            wit::Severity::Info => Self::Info,
            wit::Severity::Warning => Self::Warning,
            wit::Severity::Error => Self::Error,
        }
    }
}

impl Description {
    /// The columns of the source that these parameters name: the host grants them before it installs.
    #[must_use]
    pub fn columns_in<'a>(&self, parameters: &'a serde_json::Value) -> Vec<&'a str> {
        self.parameters
            .iter()
            .filter_map(|parameter| Some((parameter.kind, parameters.get(&parameter.name)?)))
            .flat_map(|(kind, value)| match kind {
                ParameterKind::Column => value.as_str().into_iter().collect(),
                ParameterKind::Columns => {
                    value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect()
                }
                _ => Vec::new(),
            })
            .collect()
    }

    /// The sentence for an issue: the declared text with the arguments in it.
    pub(crate) fn issue_message(&self, code: &str, arguments: &[String]) -> String {
        match self.issues.iter().find(|issue| issue.code == code) {
            Some(issue) => fill(&issue.text, arguments),
            None if arguments.is_empty() => code.to_owned(),
            None => {
                let arguments: Vec<String> = arguments.iter().map(|argument| printable(argument, 200)).collect();
                format!("{code} ({})", arguments.join(", "))
            }
        }
    }

    /// All that is wrong with a description, or the description.
    pub(crate) fn checked(given: wit_describe::Description) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        if !is_name(&given.name) {
            problems.push(format!("the name {:?} is not lower case with dashes", printable(&given.name, 80)));
        }
        if given.version.is_empty() || 40 < given.version.len() || !given.version.bytes().all(|b| b.is_ascii_graphic())
        {
            problems.push("the version is not of the form 1.2.3".to_owned());
        }
        for (list, entries) in [
            ("parameters", given.parameters.len()),
            ("columns", given.columns.len()),
            ("issues", given.issues.len()),
            ("capabilities", given.capabilities.len()),
        ] {
            if ENTRIES_MAX < entries {
                problems.push(format!("{entries} {list}, and at most {ENTRIES_MAX} are accepted"));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // Capabilities are granted by name, and there is none yet.
        if !given.capabilities.is_empty() {
            let names: Vec<_> = given.capabilities.iter().map(|wanted| printable(&wanted.name, 80)).collect();
            problems.push(format!("it wants capabilities that are not offered: {}", names.join(", ")));
        }
        let mut parameters: Vec<Parameter> = Vec::with_capacity(given.parameters.len());
        for parameter in given.parameters {
            let name = printable(&parameter.name, 80);
            if !is_name(&parameter.name) {
                problems.push(format!("parameter {name:?}: the name is not lower case with dashes"));
            }
            if parameters.iter().any(|other| other.name == parameter.name) {
                problems.push(format!("parameter {name}: declared twice"));
            }
            match Parameter::checked(parameter) {
                Ok(parameter) => parameters.push(parameter),
                Err(what) => problems.push(format!("parameter {name}: {what}")),
            }
        }
        let mut columns = Vec::with_capacity(given.columns.len());
        for column in given.columns {
            let kinds: Option<Vec<Kind>> = column.kinds.iter().map(|&code| Kind::from_code(code)).collect();
            match kinds {
                Some(kinds) => columns.push(ColumnWant {
                    table: printable(&column.table, 200),
                    name: printable(&column.name, 200),
                    access: match column.access {
                        wit_describe::Access::Read => Access::Read,
                        wit_describe::Access::Write => Access::Write,
                    },
                    kinds,
                    required: column.required,
                    text: printable(&column.text, TEXT_BYTES_MAX),
                }),
                None => problems.push(format!("column {}: a kind that does not exist", printable(&column.name, 80))),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: given.name,
            version: given.version,
            text: printable(&given.text, TEXT_BYTES_MAX),
            parameters,
            columns,
            issues: given
                .issues
                .into_iter()
                .map(|issue| IssueText {
                    code: printable(&issue.code, 100),
                    severity: issue.severity.into(),
                    text: printable(&issue.text, TEXT_BYTES_MAX),
                })
                .collect(),
            idempotent: given.idempotent,
            reads_before: given.reads_before,
        })
    }
}

impl Parameter {
    fn checked(given: wit_describe::Parameter) -> Result<Self, String> {
        use wit_describe::ParameterKind as Given;
        let number = |digits: Option<String>| match digits {
            Some(digits) => digits.parse().map(Some).map_err(|_| "its range is not written in digits".to_owned()),
            None => Ok(None),
        };
        let default = match given.default_value {
            Some(_) if given.required => return Err("it is required and has a default".to_owned()),
            Some(json) => Some(serde_json::from_str(&json).map_err(|_| "its default is not JSON".to_owned())?),
            None => None,
        };
        let parameter = Self {
            name: given.name,
            kind: match given.kind {
                Given::Boolean => ParameterKind::Boolean,
                Given::Integer => ParameterKind::Integer,
                Given::Decimal => ParameterKind::Decimal,
                Given::Text => ParameterKind::Text,
                Given::Choice => ParameterKind::Choice,
                Given::Column => ParameterKind::Column,
                Given::Texts => ParameterKind::Texts,
                Given::Columns => ParameterKind::Columns,
                Given::Pairs => ParameterKind::Pairs,
                Given::Json => ParameterKind::Json,
            },
            required: given.required,
            default,
            options: given.options,
            minimum: number(given.minimum)?,
            maximum: number(given.maximum)?,
            text: printable(&given.text, TEXT_BYTES_MAX),
        };
        if (parameter.kind == ParameterKind::Choice) == parameter.options.is_empty() {
            return Err("a choice needs options, and nothing else has any".to_owned());
        }
        Ok(parameter)
    }
}

/// As text: a JSON number would not be exact.
fn digits<S: serde::Serializer>(number: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => serializer.collect_str(number),
        None => serializer.serialize_none(),
    }
}

/// `{0}`, `{1}` and so on become the arguments; everything else stays.
fn fill(text: &str, arguments: &[String]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        rest = &rest[start..];
        let argument = rest.find('}').and_then(|end| {
            let argument = arguments.get(rest[1..end].parse::<usize>().ok()?)?;
            Some((argument, end + 1))
        });
        let taken = match argument {
            Some((argument, end)) => {
                filled.push_str(&printable(argument, 200));
                end
            }
            None => {
                filled.push('{');
                1
            }
        };
        rest = &rest[taken..];
    }
    filled.push_str(rest);
    filled
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= 80 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_take_their_arguments() {
        let arguments = ["12".to_owned(), "10\n".to_owned()];
        let cases = [
            ("{0} is above {1}", "12 is above 10 "),
            ("{2} {x} {", "{2} {x} {"),
            ("nothing", "nothing"),
            ("{0}{0}", "1212"),
        ];
        for (text, wanted) in cases {
            assert_eq!(fill(text, &arguments), wanted);
        }
    }
}
