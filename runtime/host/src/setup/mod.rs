//! The life of a link outside its runs: what it needs before it can be made, what is made, whether a connection keeps
//! its promises, which legal entities it has, and how it ends.
//!
//! Owns findings about two systems and the record of a link; carries no row. Each step asks first and says everything it
//! found, in one list.

pub mod companies;
pub mod connection_set;
pub mod connection_test;
pub mod end;
mod needs;
pub mod plan;
pub mod record;

use dualwright_core::{Code, Fault, SystemKind};
use serde::Serialize;

/// How good or bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// `link create` does it.
    ToDo,
    /// The link works; a person should know.
    Notice,
    /// The link, or a part of it, does not work like this.
    Wrong,
}

impl Verdict {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::ToDo => "to do",
            Self::Notice => "notice",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// `None` when it is about both, or about the configuration.
    pub system: Option<SystemKind>,
    /// What was looked at: a word that stays the same, for scripts.
    pub check: &'static str,
    /// What was found, with the table, map or company that it is about.
    pub what: String,
    /// What a person does about it; empty when nothing has to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The system's own code, or the one that Dual-write has for the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_code: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, system: Option<SystemKind>, check: &'static str, what: impl Into<String>) -> Self {
        Self { verdict, system, check, what: what.into(), remedy: String::new(), code: None, foreign_code: None }
    }

    fn fine(system: impl Into<Option<SystemKind>>, check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Verdict::Fine, system.into(), check, what)
    }

    fn to_do(system: impl Into<Option<SystemKind>>, check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Verdict::ToDo, system.into(), check, what)
    }

    fn notice(system: impl Into<Option<SystemKind>>, check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Verdict::Notice, system.into(), check, what)
    }

    fn wrong(system: impl Into<Option<SystemKind>>, check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Verdict::Wrong, system.into(), check, what)
    }

    /// A request that failed, in the words of its fault.
    fn of_fault(system: SystemKind, check: &'static str, fault: &Fault) -> Self {
        Self::wrong(system, check, fault.message.clone())
            .remedy(fault.code.remedy())
            .code(fault.code)
            .foreign(fault.foreign_code.as_deref())
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    const fn code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    fn foreign(mut self, code: Option<&str>) -> Self {
        self.foreign_code = code.map(str::to_owned);
        self
    }
}

/// The worst of all, which decides what may be done next.
#[must_use]
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Fine)
}

/// A few names of many, for a message.
fn named<T: AsRef<str>>(names: &[T]) -> String {
    const NAMED_MAX: usize = 5;
    let first = names.iter().take(NAMED_MAX).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMED_MAX) {
        None | Some(0) => first,
        Some(more) => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_cut_short() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        for (count, wanted) in [(0, ""), (1, "a"), (5, "a, b, c, d, e"), (6, "a, b, c, d, e and 1 more")] {
            assert_eq!(named(&names[..count]), wanted);
        }
    }

    #[test]
    fn the_worst_decides() {
        let fine = Finding::fine(None, "x", "");
        let wrong = Finding::wrong(SystemKind::Finops, "x", "");
        let notice = Finding::notice(SystemKind::Dataverse, "x", "");
        assert_eq!(worst(&[]), Verdict::Fine);
        assert_eq!(worst(&[fine.clone(), notice.clone()]), Verdict::Notice);
        assert_eq!(worst(&[notice, wrong, fine]), Verdict::Wrong);
    }
}
