//! `add-company` and `remove`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, session};
use super::{scope_of, text};
use crate::config::Config;
use crate::config::edit::{self, LinkEdit};
use crate::engine::now_micros;
use crate::setup::plan::{Systems, TIMEOUT};
use crate::setup::record::LinkRecord;
use crate::setup::{Finding, Verdict, companies, worst};
use crate::store::{NewActivity, Settlement, Store};

const ADD_EXAMPLES: &str = "\
The legal entities have to exist on both sides. `companies` in dualwright.toml is changed and
nothing else of that file; the next start carries all rows of the new ones over, map by map, before
it goes live. Maps that list companies of their own keep their lists.

  dualwright link add-company gbsi
  dualwright link add-company ussi ukrt --json

Exit codes: 0 added; 1 a system does not have one; 2 wrong usage or configuration.";

const REMOVE_EXAMPLES: &str = "\
Removes legal entities from the link; `link unlink` removes the link itself. `companies` in
dualwright.toml is changed and nothing else of that file. From the next start on their rows are left
alone; what was carried over stays on both sides, and a company that is added again is carried over
as a whole.

  dualwright link remove gbsi

Exit codes: 0 removed; 1 changes still wait to be delivered (--force removes all the same); 2 wrong
usage or configuration.";

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(in super::super) struct AddArguments {
    /// Legal entities, as dataAreaId writes them.
    #[arg(required = true, value_name = "COMPANY")]
    companies: Vec<String>,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with the companies and every finding.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub(in super::super) struct RemoveArguments {
    /// Legal entities of the link.
    #[arg(required = true, value_name = "COMPANY")]
    companies: Vec<String>,
    /// Also when changes wait: those of the removed ones are then not delivered.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with the companies.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct CompaniesReport<'a> {
    /// The list from the next start on.
    companies: Vec<&'a str>,
    changed: Vec<&'a str>,
    /// A runtime is at work; it takes up the list at its next start.
    running: bool,
    findings: &'a [Finding],
}

pub(super) async fn add(arguments: AddArguments) -> anyhow::Result<u8> {
    let path = &arguments.config.config;
    let Some(config) = session::read_config(path)? else { return Ok(MISCONFIGURED) };
    let known = &config.link.companies;
    let new = lower(&arguments.companies).into_iter().filter(|one| !known.contains(one)).collect::<BTreeSet<_>>();
    let all = known.union(&new).cloned().collect::<BTreeSet<_>>();
    if all.len() > config.limits.companies_live_max {
        eprintln!(
            "error: the link would have {} legal entities, and limits.companies_live_max is {}; remove others first, or \
             raise the limit",
            all.len(),
            config.limits.companies_live_max
        );
        return Ok(MISCONFIGURED);
    }
    let findings = look(&config, &new).await?;
    if worst(&findings) == Verdict::Wrong {
        if arguments.json {
            report(&config, known, &BTreeSet::new(), &findings)?;
        } else {
            output::print(&format!("{}nothing was added\n", text(&findings)))?;
        }
        return Ok(DIFFERENT);
    }
    if !change(path, &config, &all, "link-company-added", &new).await? {
        return Ok(MISCONFIGURED);
    }
    if arguments.json {
        report(&config, &all, &new, &findings)?;
    } else {
        let said = match joined(&new) {
            none if none.is_empty() => "they belong to the link already".to_owned(),
            names => format!("{names} added; {}", taken_up(&config, &format!("carries {} rows over", whose(&new)))),
        };
        let findings = findings.into_iter().filter(|finding| finding.verdict != Verdict::Fine).collect::<Vec<_>>();
        output::print(&format!("{}{said}\n", text(&findings)))?;
    }
    Ok(FINE)
}

pub(super) async fn remove(arguments: RemoveArguments) -> anyhow::Result<u8> {
    let path = &arguments.config.config;
    let Some(config) = session::read_config_without_secrets(path)? else { return Ok(MISCONFIGURED) };
    let known = &config.link.companies;
    let meant = lower(&arguments.companies);
    if let Some(unknown) = meant.iter().find(|one| !known.contains(*one)) {
        eprintln!("error: {}", output::there_is_no("company", unknown, known.iter().map(String::as_str)));
        return Ok(MISCONFIGURED);
    }
    let kept = known.difference(&meant).cloned().collect::<BTreeSet<_>>();
    if kept.is_empty() {
        eprintln!("error: a link without a legal entity carries nothing; to end it: dualwright link unlink");
        return Ok(MISCONFIGURED);
    }
    let mut naming =
        config.maps.iter().filter(|map| map.companies.as_ref().is_some_and(|own| !own.is_disjoint(&meant)));
    if let Some(map) = naming.next() {
        eprintln!(
            "error: map `{}` lists {} among its own companies; take it out there first",
            map.slug,
            joined(&map.companies.iter().flatten().filter(|one| meant.contains(*one)).cloned().collect())
        );
        return Ok(MISCONFIGURED);
    }
    let waiting = waiting(&config).await?;
    if waiting > 0 && !arguments.force {
        eprintln!(
            "error: {} to be delivered, and those of {} would not be any more; let `dualwright run --once` deliver them \
             first, or add --force",
            output::counted(waiting, "row change waits", "row changes wait"),
            joined(&meant)
        );
        return Ok(DIFFERENT);
    }
    if !change(path, &config, &kept, "link-company-removed", &meant).await? {
        return Ok(MISCONFIGURED);
    }
    if arguments.json {
        report(&config, &kept, &meant, &[])?;
    } else {
        let taken_up = taken_up(&config, &format!("leaves {} rows alone", whose(&meant)));
        output::print(&format!("{} removed; {taken_up}\n", joined(&meant)))?;
    }
    Ok(FINE)
}

fn lower(companies: &[String]) -> BTreeSet<String> {
    companies.iter().map(|company| company.to_lowercase()).collect()
}

fn joined(companies: &BTreeSet<String>) -> String {
    companies.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// How to speak of what these companies have.
fn whose(companies: &BTreeSet<String>) -> &'static str {
    if companies.len() == 1 { "its" } else { "their" }
}

fn taken_up(config: &Config, what: &str) -> String {
    if Store::is_in_use(&config.state) {
        return format!("the runtime that is at work goes on without the change; its next start {what}");
    }
    format!("the next `dualwright run` {what}")
}

/// Whether both systems have these companies.
async fn look(config: &Config, wanted: &BTreeSet<String>) -> anyhow::Result<Vec<Finding>> {
    let systems = Systems::of(config)?;
    let mut known = Vec::new();
    for system in [&systems.finops, &systems.dataverse] {
        let catalogue = system.catalogue(TIMEOUT).await;
        let catalogue =
            catalogue.with_context(|| format!("{} was asked; `dualwright link test` says more", system.kind()))?;
        known.push(companies::read(system, &catalogue, TIMEOUT).await?);
    }
    let makers = config
        .maps
        .iter()
        .find(|map| matches!(map.integration_key.as_slice(), [only] if only.eq_ignore_ascii_case("cdm_companycode")));
    Ok(companies::judge(wanted, &known[0], &known[1], makers.map(|map| map.slug.as_str())))
}

async fn waiting(config: &Config) -> anyhow::Result<u64> {
    if !Store::exists(&config.state) {
        return Ok(0);
    }
    let store = Store::open_read_only(&config.state)?;
    let backlog = store.backlog(&scope_of(config)).await;
    store.close().await;
    Ok(backlog?.rows)
}

/// Writes the list into the configuration, and what was done into the log. False when the result would be refused at a
/// start, which was said then.
async fn change(
    path: &Path,
    config: &Config,
    companies: &BTreeSet<String>,
    kind: &'static str,
    changed: &BTreeSet<String>,
) -> anyhow::Result<bool> {
    if changed.is_empty() {
        return Ok(true);
    }
    let before = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let edit = LinkEdit { companies: Some(companies.clone()), ..LinkEdit::default() };
    let after = edit::edited(&before, &edit).map_err(anyhow::Error::msg)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    if let Err(problems) = Config::parse(&path.display().to_string(), &after, folder, &|_| Some(String::new())) {
        for problem in problems {
            eprintln!("{problem}");
        }
        eprintln!("nothing was changed");
        return Ok(false);
    }
    edit::replace(path, &after).with_context(|| format!("{} cannot be written", path.display()))?;
    if !Store::exists(&config.state) {
        return Ok(true);
    }
    let (scope, now) = (scope_of(config), now_micros());
    let store = Store::open_beside(&config.state)?;
    match LinkRecord::read(&store, &scope).await? {
        Some(mut record) => {
            record.companies.retain(|company, _| companies.contains(company));
            for company in companies {
                record.companies.entry(company.clone()).or_insert(now);
            }
            record.keep(&store, &scope, now, vec![(kind, joined(changed))]).await?;
        }
        None => {
            let activity = vec![NewActivity { at: now, map: None, kind, text: joined(changed) }];
            store.settle(&scope, Settlement { activity, ..Settlement::default() }).await?;
        }
    }
    store.close().await;
    Ok(true)
}

fn report(
    config: &Config,
    companies: &BTreeSet<String>,
    changed: &BTreeSet<String>,
    findings: &[Finding],
) -> anyhow::Result<()> {
    output::print_json(&CompaniesReport {
        companies: companies.iter().map(String::as_str).collect(),
        changed: changed.iter().map(String::as_str).collect(),
        running: Store::is_in_use(&config.state),
        findings,
    })
}
