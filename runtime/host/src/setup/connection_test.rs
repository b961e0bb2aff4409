//! The connection test: whether both systems let us in, agree with us on the time, and keep the promises that a link
//! relies on.
//!
//! Owns which promises there are and what it means that one is broken. Rows that it writes are of our own fence table,
//! and gone when it ends.

use std::time::Duration;

use dualwright_core::{Code, Fault, SystemKind};

use super::needs::Needs;
use super::plan::{
    Systems, TIMEOUT, judge_clock, judge_privileges, judge_record, let_in, missing_privileges, not_let_in, readable,
};
use super::record::LinkRecord;
use super::{Finding, named, needs};
use crate::config::Config;
use crate::connect::metadata::Catalogue;
use crate::connect::{CHANGE_SET_ROWS_MAX, Hello, OwnTable, Probe, Probed, System, TRANSACTION_ROWS_MAX};

/// Puts both systems to the test. `partition` is where fences of the link begin.
pub async fn test(config: &Config, systems: &Systems, partition: &str, record: Option<&LinkRecord>) -> Vec<Finding> {
    let skew_max = config.limits.clock_skew_max;
    let (left, right) = tokio::join!(
        promises(&systems.finops, partition, skew_max, record),
        promises(&systems.dataverse, partition, skew_max, record)
    );
    let mut findings = left.findings;
    findings.extend(right.findings);
    let (Some(finops), Some(dataverse)) = (left.catalogue, right.catalogue) else { return findings };
    // Which maps cannot be read is for `plan` and `map check` to say.
    let (needs, _) = needs::read(config, &finops, &dataverse);
    findings.extend(readable(&systems.finops, needs.finops.keys()).await);
    findings.extend(finops_feed(&systems.finops, &finops, &needs).await);
    findings.extend(dataverse_tables(&systems.dataverse, &dataverse, &needs, right.hello).await);
    findings
}

struct Tested {
    findings: Vec<Finding>,
    catalogue: Option<Catalogue>,
    hello: Option<Hello>,
}

async fn promises(system: &System, partition: &str, skew_max: Duration, record: Option<&LinkRecord>) -> Tested {
    let kind = system.kind();
    let hello = match system.hello(TIMEOUT).await {
        Ok(hello) => hello,
        Err(fault) => return Tested { findings: vec![not_let_in(kind, &fault)], catalogue: None, hello: None },
    };
    let mut findings = vec![let_in(kind, &hello), judge_clock(kind, hello.clock_ahead_seconds, skew_max)];
    if let (Some(record), Some(identity)) = (record, &hello.identity) {
        findings.extend(judge_record(record, identity));
    }
    let catalogue = match system.catalogue(TIMEOUT).await {
        Ok(catalogue) => catalogue,
        Err(fault) => {
            findings.push(Finding::of_fault(kind, "tables", &fault));
            return Tested { findings, catalogue: None, hello: Some(hello) };
        }
    };
    let missing = system.missing_tables(&catalogue);
    for table in missing.iter().filter(|table| **table != OwnTable::Changes) {
        let remedy = match kind {
            SystemKind::Dataverse => "`dualwright link create` makes it",
            SystemKind::Finops => "deploy the package of dualwright",
        };
        findings.push(
            Finding::wrong(kind, "own-tables", format!("{} is missing", table.set(kind)))
                .remedy(remedy)
                .code(Code::TargetIncapable),
        );
    }
    if system.can_probe(&missing) {
        match system.probe(partition, TIMEOUT).await {
            Ok(probe) => findings.extend(judge_probe(kind, &probe)),
            Err(fault) => findings.push(fence_refused(kind, &fault)),
        }
    } else {
        let what = "change sets, conditions and bulk messages are tested with fences, so they were not";
        findings.push(Finding::notice(kind, "change-sets", what));
    }
    Tested { findings, catalogue: Some(catalogue), hello: Some(hello) }
}

fn fence_refused(kind: SystemKind, fault: &Fault) -> Finding {
    let what = format!("{} cannot be written: {}", OwnTable::Fences.set(kind), fault.message);
    let (check, remedy) = match fault.code {
        Code::Unauthorized => {
            ("role", "give the application user a role that may read, create, write and delete there")
        }
        code => ("own-tables", code.remedy()),
    };
    Finding::wrong(kind, check, what).remedy(remedy).code(fault.code).foreign(fault.foreign_code.as_deref())
}

/// What the probes found, in the words of the promise that is kept or broken.
fn judge_probe(kind: SystemKind, probe: &Probe) -> Vec<Finding> {
    let atomic = "a refused change set leaves nothing behind";
    let if_match = "a write to another version is refused inside a change set";
    let mut findings = vec![
        judge_promise(
            kind,
            "change-sets",
            &probe.change_sets,
            atomic,
            "all or nothing does not hold on this system; see what stands between us and it, and do not link it",
        ),
        judge_promise(
            kind,
            "if-match",
            &probe.if_match,
            if_match,
            "a late request could overwrite a newer row; see what takes the If-Match header away on the way there",
        ),
    ];
    if let Some(bulk) = &probe.bulk {
        let works = format!("CreateMultiple works, so a transaction may have {TRANSACTION_ROWS_MAX} rows");
        let mut finding = judge_promise(kind, "bulk-messages", bulk, &works, "");
        if let Probed::Broken(what) = bulk {
            // Nothing fails but the few transactions that are larger.
            finding = Finding::notice(kind, "bulk-messages", what.clone())
                .remedy(format!(
                    "transactions of more than {CHANGE_SET_ROWS_MAX} rows are refused; split them at the source"
                ))
                .code(Code::TargetIncapable);
        }
        findings.push(finding);
    }
    if !probe.left_behind.is_empty() {
        let what = format!("rows of the test are still there: {}", named(&probe.left_behind));
        findings.push(
            Finding::notice(kind, "left-behind", what)
                .remedy("let the application user delete fences, and test again: the next test takes them away"),
        );
    }
    findings
}

fn judge_promise(kind: SystemKind, check: &'static str, probed: &Probed, kept: &str, remedy: &str) -> Finding {
    match probed {
        Probed::Kept => Finding::fine(kind, check, kept),
        Probed::Broken(what) => Finding::wrong(kind, check, what.clone()).remedy(remedy).code(Code::TargetIncapable),
        Probed::Untold(fault) => Finding::notice(kind, check, format!("it could not be told: {}", fault.message))
            .remedy("test again")
            .code(fault.code)
            .foreign(fault.foreign_code.as_deref()),
    }
}

async fn finops_feed(system: &System, catalogue: &Catalogue, needs: &Needs) -> Option<Finding> {
    let kind = SystemKind::Finops;
    if !needs.follows(kind) {
        return None;
    }
    let set = OwnTable::Changes.set(kind);
    if !catalogue.has_set(set) {
        let what = format!("{set} is missing, so no change of F&O is seen");
        let finding = Finding::wrong(kind, "delta", what).remedy("deploy the package of dualwright");
        return Some(finding.code(Code::TargetIncapable));
    }
    Some(match system.feed_head(TIMEOUT).await {
        Ok(_) => Finding::fine(kind, "delta", format!("{set} tells what changes")),
        Err(fault) => Finding::of_fault(kind, "delta", &fault),
    })
}

/// Delta feeds and privileges of the tables that the maps use.
async fn dataverse_tables(system: &System, catalogue: &Catalogue, needs: &Needs, hello: Option<Hello>) -> Vec<Finding> {
    let kind = SystemKind::Dataverse;
    let mut findings = Vec::new();
    let identity = hello.and_then(|hello| hello.identity);
    let privileges = match identity {
        Some(identity) => match system.privileges(identity.user_id, TIMEOUT).await {
            Ok(privileges) => Some(privileges),
            Err(fault) => {
                findings.push(Finding::of_fault(kind, "role", &fault));
                None
            }
        },
        None => None,
    };
    let mut lacking = Vec::new();
    let mut followed = 0;
    for (set, using) in &needs.dataverse {
        let (Some(table), Some(id)) = (catalogue.table_of(set), catalogue.primary_id(set)) else { continue };
        let standing = match system.table_standing(table, TIMEOUT).await {
            Ok(standing) => standing,
            Err(fault) => {
                findings.push(Finding::of_fault(kind, "role", &fault));
                continue;
            }
        };
        let missing = privileges.as_ref().map(|ours| missing_privileges(using, &standing, ours)).unwrap_or_default();
        let may_not_read = missing.iter().any(|name| name.starts_with("prvRead"));
        lacking.extend(missing);
        if !using.followed {
            continue;
        }
        if !standing.change_tracking_enabled {
            findings.push(
                Finding::wrong(kind, "delta", format!("change tracking of {set} is off, so its changes are not seen"))
                    .remedy(format!(
                        "switch it on in the table's properties, or run `dualwright link create`; maps: {}",
                        using.maps.join(", ")
                    ))
                    .code(Code::TargetIncapable),
            );
            continue;
        }
        match system.may_track(set, id, TIMEOUT).await {
            Ok(()) => followed += 1,
            // The privilege that lacks is named below.
            Err(_) if may_not_read => {}
            Err(fault) => findings.push(Finding::of_fault(kind, "delta", &fault)),
        }
    }
    if followed > 0 {
        findings.push(Finding::fine(kind, "delta", format!("the changes of {followed} tables are given out")));
    }
    if privileges.is_some() {
        findings.push(judge_privileges(&lacking));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_broken_promise_is_named_and_what_goes_without_it() {
        let untold = Probed::Untold(Fault::new(Code::Throttled, "finops asked to be left alone"));
        let broken = || Probed::Broken("it did otherwise".to_owned());
        let probe = |change_sets, if_match, bulk| Probe { change_sets, if_match, bulk, left_behind: Vec::new() };
        for (probe, wanted) in [
            (probe(Probed::Kept, Probed::Kept, Some(Probed::Kept)), "fine fine fine"),
            (probe(broken(), Probed::Kept, None), "wrong fine"),
            (probe(Probed::Kept, broken(), None), "fine wrong"),
            (probe(Probed::Kept, Probed::Kept, Some(broken())), "fine fine notice"),
            (probe(untold.clone(), untold.clone(), Some(untold)), "notice notice notice"),
        ] {
            let findings = judge_probe(SystemKind::Dataverse, &probe);
            let verdicts = findings.iter().map(|finding| finding.verdict.name()).collect::<Vec<_>>().join(" ");
            assert_eq!(verdicts, wanted);
            for finding in findings.iter().filter(|finding| finding.verdict != Verdict::Fine) {
                assert!(!finding.remedy.is_empty(), "{finding:?}");
            }
        }
        let left = Probe { left_behind: vec!["p/test-1".to_owned()], ..probe(Probed::Kept, Probed::Kept, None) };
        assert!(judge_probe(SystemKind::Finops, &left).iter().any(|finding| finding.what.contains("p/test-1")));
    }
}
