//! Legal entities of a link: whether both systems have them, and how many there may be.
//!
//! Owns that comparison. Which companies a link has is what `dualwright.toml` says; here it is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dualwright_core::{Code, Fault, SystemKind};

use super::{Finding, named};
use crate::connect::metadata::Catalogue;
use crate::connect::{Company, System};

/// Where each system keeps its legal entities.
#[must_use]
pub const fn set_of(system: SystemKind) -> &'static str {
    match system {
        SystemKind::Finops => "LegalEntities",
        SystemKind::Dataverse => "cdm_companies",
    }
}

/// The legal entities of one system, by their code in lower case; `None` when it has no table of them.
pub type Known = Option<BTreeMap<String, Company>>;

/// Reads the legal entities of a system.
pub async fn read(system: &System, catalogue: &Catalogue, timeout: Duration) -> Result<Known, Fault> {
    let set = set_of(system.kind());
    if !catalogue.has_set(set) {
        return Ok(None);
    }
    let companies = system.companies(set, timeout).await?;
    Ok(Some(companies.into_iter().map(|company| (company.code.clone(), company)).collect()))
}

/// What is to be said of the companies that a link shall have. `map` is the one that makes Dataverse's companies from
/// those of F&O.
#[must_use]
pub fn judge(wanted: &BTreeSet<String>, finops: &Known, dataverse: &Known, map: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (system, known) in [(SystemKind::Finops, finops), (SystemKind::Dataverse, dataverse)] {
        let set = set_of(system);
        let Some(known) = known else {
            let what = format!("there is no table {set}, so it is not known whether the legal entities exist");
            let finding = match system {
                SystemKind::Finops => Finding::notice(system, "companies", what),
                SystemKind::Dataverse => Finding::wrong(system, "companies", what)
                    .remedy("install the Dual-write core solution, or another that brings cdm_company")
                    .code(Code::TableUnknown),
            };
            findings.push(finding);
            continue;
        };
        let missing = wanted.iter().filter(|company| !known.contains_key(*company)).collect::<Vec<_>>();
        let teamless = wanted
            .iter()
            .filter(|code| known.get(*code).is_some_and(|company| company.has_owning_team == Some(false)))
            .collect::<Vec<_>>();
        if !teamless.is_empty() {
            let what = format!("no team owns the rows of {}", named(&teamless));
            findings.push(
                Finding::notice(system, "owning-team", what)
                    .remedy(
                        "give the company its default owning team, with the roles Dual-write runtime user and app user",
                    )
                    .foreign(Some("DWDVEV1007")),
            );
        }
        if missing.is_empty() {
            let what = format!("{set} has all {} of the link", wanted.len());
            findings.push(Finding::fine(system, "companies", what));
            continue;
        }
        let what = format!("{set} has no {}", named(&missing));
        findings.push(match (system, map) {
            (SystemKind::Dataverse, Some(map)) => {
                let what = format!("{what}; map `{map}` brings what F&O has at the first run");
                Finding::notice(system, "companies", what)
            }
            (SystemKind::Dataverse, None) => Finding::wrong(system, "companies", what)
                .remedy("create the company there, add the map of legal entities, or take it off the list")
                .code(Code::CompanyUnknown)
                .foreign(Some("DWDVEV1003")),
            (SystemKind::Finops, _) => Finding::wrong(system, "companies", what)
                .remedy(near(&missing, known))
                .code(Code::CompanyUnknown)
                .foreign(Some("DWFOEV1003")),
        });
    }
    findings
}

fn near(missing: &[&String], known: &BTreeMap<String, Company>) -> String {
    let all = known.keys().collect::<Vec<_>>();
    match missing {
        [_] if !all.is_empty() => format!("correct its code, or take it off the list; there are {}", named(&all)),
        _ => "correct their codes, or take them off the list".to_owned(),
    }
}

/// Whether so many may be linked at once.
#[must_use]
pub fn judge_count(count: usize, when_linking_max: usize) -> Option<Finding> {
    (count > when_linking_max).then(|| {
        let what =
            format!("the link has {count} legal entities, and limits.companies_when_linking_max is {when_linking_max}");
        Finding::wrong(None, "companies", what)
            .remedy("link with fewer and add the others with `link add-company`, or raise the limit")
            .code(Code::ConfigInvalid)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn known(codes: &str) -> Known {
        let company = |code: &str| {
            let (code, teamless) = code.strip_suffix('!').map_or((code, None), |code| (code, Some(false)));
            let company = Company { code: code.to_owned(), name: code.to_uppercase(), has_owning_team: teamless };
            (code.to_owned(), company)
        };
        Some(codes.split_whitespace().map(company).collect())
    }

    #[test]
    fn companies_are_there_or_are_told() {
        let wanted = ["demf".to_owned(), "usmf".to_owned()].into();
        for (finops, dataverse, map, wrong, notices) in [
            (known("usmf demf gbsi"), known("usmf demf"), None, "", ""),
            (known("usmf"), known("usmf demf"), None, "LegalEntities has no demf", ""),
            (known("usmf demf"), known("usmf"), None, "cdm_companies has no demf", ""),
            (known("usmf demf"), known(""), Some("companies"), "", "map `companies` brings"),
            (known("usmf demf"), known("usmf! demf"), None, "", "no team owns the rows of usmf"),
            (None, known("usmf demf"), None, "", "no table LegalEntities"),
            (known("usmf demf"), None, Some("companies"), "no table cdm_companies", ""),
        ] {
            let findings = judge(&wanted, &finops, &dataverse, map);
            let of = |verdict| {
                let own = findings.iter().filter(|finding| finding.verdict == verdict);
                own.map(|finding| finding.what.as_str()).collect::<Vec<_>>().join("; ")
            };
            for (said, part) in [(of(Verdict::Wrong), wrong), (of(Verdict::Notice), notices)] {
                assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{said:?} for {part:?}");
            }
        }
    }

    #[test]
    fn forty_at_once_unless_the_setting_says_more() {
        assert_eq!(judge_count(40, 40), None);
        let finding = judge_count(41, 40).expect("one too many");
        assert!(finding.what.contains("41") && finding.remedy.contains("add-company"), "{finding:?}");
        assert_eq!(judge_count(41, 250), None);
    }
}
