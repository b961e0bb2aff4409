//! What a plugin has to say about one row, and the texts it is said in.

use std::fmt;

use crate::bindings::types;
use crate::settings::Column;

pub use crate::bindings::types::Severity;

/// An issue that the plugin can report. Make each a constant, list it in [`plugin!`](crate::plugin), and report it by
/// [`IssueText::on`] or [`IssueText::row`]:
///
/// ```
/// use dualwright_sdk::prelude::*;
///
/// const TOO_LONG: IssueText = IssueText::error("name-too-long", "the name has {0} characters, at most {1} are allowed");
///
/// fn check(column: Column, name: &str) -> Option<Issue> {
///     (name.len() > 30).then(|| TOO_LONG.on(column).arg(name.len()).arg(30))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueText {
    /// A stable name, lower case with dashes.
    pub code: &'static str,
    pub severity: Severity,
    /// One sentence with `{0}`, `{1}` for the arguments: what is wrong with the record and what would be right.
    pub text: &'static str,
}

impl IssueText {
    /// Rejects the record.
    #[must_use]
    pub const fn error(code: &'static str, text: &'static str) -> Self {
        Self { code, severity: Severity::Error, text }
    }

    /// Marks the record, which goes on.
    #[must_use]
    pub const fn warning(code: &'static str, text: &'static str) -> Self {
        Self { code, severity: Severity::Warning, text }
    }

    /// Shown with the record, nothing else.
    #[must_use]
    pub const fn info(code: &'static str, text: &'static str) -> Self {
        Self { code, severity: Severity::Info, text }
    }

    /// About one column of the row.
    #[must_use]
    pub fn on(&self, column: Column) -> Issue {
        Issue { column: Some(column), ..self.row() }
    }

    /// About the row as a whole.
    #[must_use]
    pub fn row(&self) -> Issue {
        Issue { code: self.code, severity: self.severity, column: None, args: Vec::new() }
    }
}

/// One issue of one row. Which row, the SDK knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Issue {
    pub code: &'static str,
    pub severity: Severity,
    pub column: Option<Column>,
    /// What goes into the text. Shown to operators: no secrets.
    pub args: Vec<String>,
}

impl Issue {
    /// Adds the next argument.
    #[must_use]
    pub fn arg(mut self, value: impl fmt::Display) -> Self {
        self.args.push(value.to_string());
        self
    }

    /// The same issue with less or more weight.
    #[must_use]
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    pub(crate) fn at(self, row: usize) -> types::Issue {
        types::Issue {
            row: crate::buffer::u32_of(row),
            column: self.column.map(Column::id),
            severity: self.severity,
            code: self.code.to_owned(),
            args: self.args,
        }
    }
}

/// What a function of a row may return: nothing, one issue, or several.
pub trait Verdict {
    /// Hands each issue over.
    fn issues(self, report: &mut dyn FnMut(Issue));
}

impl Verdict for () {
    fn issues(self, _: &mut dyn FnMut(Issue)) {}
}

impl Verdict for Issue {
    fn issues(self, report: &mut dyn FnMut(Issue)) {
        report(self);
    }
}

impl Verdict for Option<Issue> {
    fn issues(self, report: &mut dyn FnMut(Issue)) {
        self.into_iter().for_each(report);
    }
}

impl Verdict for Vec<Issue> {
    fn issues(self, report: &mut dyn FnMut(Issue)) {
        self.into_iter().for_each(report);
    }
}

impl<V: Verdict> Verdict for Result<V, Issue> {
    fn issues(self, report: &mut dyn FnMut(Issue)) {
        match self {
            Ok(verdict) => verdict.issues(report),
            Err(issue) => report(issue),
        }
    }
}
