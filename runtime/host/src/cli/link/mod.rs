//! `dualwright link`: two environments, from before the link is made until after it has ended.
//!
//! Owns arguments and what is printed; what is found and done is [`crate::setup`]'s.

mod companies;
mod end;
mod making;
mod set;

use std::path::Path;

use clap::Subcommand;
use serde::Serialize;

use super::{DIFFERENT, FINE, output};
use crate::config::Config;
use crate::setup::record::LinkRecord;
use crate::setup::{Finding, Verdict, worst};
use crate::store::{Scope, Store};

#[derive(Debug, Subcommand)]
pub(super) enum LinkCommand {
    /// Say what a link needs and what would be made, before anything is.
    Plan(making::PlanArguments),
    /// Make the link: the tables that it needs, and its record.
    Create(making::CreateArguments),
    /// Test the connection: name what is wrong with it, and leave nothing behind.
    Test(making::TestArguments),
    /// Add legal entities to the link.
    AddCompany(companies::AddArguments),
    /// Remove legal entities from the link (to remove the link itself: unlink).
    Remove(companies::RemoveArguments),
    /// End the link: export everything that is known of it, then take it away.
    Unlink(end::UnlinkArguments),
    /// Begin anew: export everything that is known of the link, take it away, and keep the link.
    Reset(end::ResetArguments),
    /// Write the link as a connection set of Dual-write.
    Export(set::ExportArguments),
    /// Take environments and legal entities from a connection set of Dual-write.
    Import(set::ImportArguments),
}

pub(super) async fn link(command: LinkCommand) -> anyhow::Result<u8> {
    match command {
        LinkCommand::Plan(arguments) => making::plan(arguments).await,
        LinkCommand::Create(arguments) => making::create(arguments).await,
        LinkCommand::Test(arguments) => making::test(arguments).await,
        LinkCommand::AddCompany(arguments) => companies::add(arguments).await,
        LinkCommand::Remove(arguments) => companies::remove(arguments).await,
        LinkCommand::Unlink(arguments) => end::unlink(arguments).await,
        LinkCommand::Reset(arguments) => end::reset(arguments).await,
        LinkCommand::Export(arguments) => set::export(arguments).await,
        LinkCommand::Import(arguments) => set::import(arguments),
    }
}

fn scope_of(config: &Config) -> Scope {
    Scope { tenant: config.tenant.as_str().into(), link: config.link.slug.as_str().into() }
}

/// Where the fences of a link begin.
fn partition_of(config: &Config) -> String {
    format!("{}/{}/", config.tenant, config.link.slug)
}

/// What is known of the link, where there is a store already.
async fn record_of(state: &Path, scope: &Scope) -> anyhow::Result<Option<LinkRecord>> {
    if !Store::exists(state) {
        return Ok(None);
    }
    let store = Store::open_read_only(state)?;
    let record = LinkRecord::read(&store, scope).await;
    store.close().await;
    Ok(record?)
}

/// What `--json` prints of a look at both systems.
#[derive(Debug, Serialize)]
struct FindingsReport<'a> {
    tenant: &'a str,
    link: &'a str,
    /// The link was made, and has not ended.
    linked: bool,
    verdict: Verdict,
    companies: Vec<&'a str>,
    findings: &'a [Finding],
}

/// Prints findings, with a line of what comes next.
fn print(config: &Config, linked: bool, findings: &[Finding], next: &str, json: bool) -> anyhow::Result<u8> {
    let verdict = worst(findings);
    if json {
        output::print_json(&FindingsReport {
            tenant: &config.tenant,
            link: &config.link.slug,
            linked,
            verdict,
            companies: config.link.companies.iter().map(String::as_str).collect(),
            findings,
        })?;
    } else {
        let head = format!(
            "link {} of tenant {}: F&O {} and Dataverse {}\n",
            config.link.slug, config.tenant, config.link.finops.base, config.link.dataverse.base
        );
        output::print(&format!("{head}{}{next}\n", text(findings)))?;
    }
    Ok(if verdict == Verdict::Wrong { DIFFERENT } else { FINE })
}

/// A line per finding, and under it what to do.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let system = finding.system.map_or("both", |system| system.name());
        let codes = finding.code.map(|code| code.to_string()).into_iter().chain(finding.foreign_code.clone());
        let codes = codes.collect::<Vec<_>>().join(", ");
        let codes = if codes.is_empty() { String::new() } else { format!(" [{codes}]") };
        let head = format!("  {:<7} {system:<10} {:<16} ", finding.verdict.name(), finding.check);
        text.push_str(&format!("{head}{}{codes}\n", finding.what));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("{:width$}→ {}\n", "", finding.remedy, width = head.chars().count()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use dualwright_core::{Code, SystemKind};

    use super::*;

    #[test]
    fn a_finding_names_place_cause_codes_and_remedy() {
        let finding = Finding {
            verdict: Verdict::Wrong,
            system: Some(SystemKind::Finops),
            check: "companies",
            what: "LegalEntities has no gbsi".to_owned(),
            remedy: "correct its code".to_owned(),
            code: Some(Code::CompanyUnknown),
            foreign_code: Some("DWFOEV1003".to_owned()),
        };
        let fine = Finding {
            verdict: Verdict::Fine,
            remedy: String::new(),
            code: None,
            foreign_code: None,
            ..finding.clone()
        };
        let shown = text(&[finding, fine]);
        let wanted = "  wrong   finops     companies        LegalEntities has no gbsi [DW-1008, DWFOEV1003]\n                                      → correct its code\n  fine    finops     companies        LegalEntities has no gbsi\n";
        assert_eq!(shown, wanted);
    }
}
