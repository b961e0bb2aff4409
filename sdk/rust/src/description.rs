//! What `describe` answers, put together from what [`plugin!`](crate::plugin) was given.

use crate::bindings::describe::exports::dualwright::plugin::describe::{Description, IssueText as WitIssueText};
use crate::issue::IssueText;
use crate::settings::{Declared, Settings};

/// What a plugin says of itself, apart from its settings.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub text: &'a str,
    pub issues: &'a [IssueText],
    pub idempotent: bool,
    pub reads_before: bool,
}

impl About<'_> {
    /// The description of a plugin with settings `S`.
    #[must_use]
    pub fn describe<S: Settings>(&self) -> Description {
        let mut declared = Declared::default();
        S::declare(&mut declared);
        let issues = self
            .issues
            .iter()
            .map(|issue| WitIssueText {
                code: issue.code.to_owned(),
                severity: issue.severity,
                text: issue.text.to_owned(),
            })
            .collect();
        Description {
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            text: self.text.to_owned(),
            parameters: declared.parameters,
            columns: declared.columns,
            issues,
            capabilities: Vec::new(),
            idempotent: self.idempotent,
            reads_before: self.reads_before,
            extensions: Vec::new(),
        }
    }
}
