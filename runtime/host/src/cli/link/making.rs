//! `plan`, `create` and `test`.

use clap::Args;

use super::super::{ConfigArgument, DIFFERENT, MISCONFIGURED, output, session};
use super::{partition_of, print, record_of, scope_of};
use crate::engine::now_micros;
use crate::setup::plan::{self, Systems, ToDo};
use crate::setup::record::LinkRecord;
use crate::setup::{Verdict, connection_test, worst};
use crate::store::Store;

const PLAN_EXAMPLES: &str = "\
Asks both systems and changes nothing. Looked at are:
  authentication, reach   whether each lets us in
  clock                   how far its clock is from ours
  own-tables              receipts and fences (and F&O's change feed): there, to be made, or what
                          goes without them
  companies               whether both have the legal entities, and how many are linked at once
  role                    whether we may do what the maps need
  change-tracking         whether Dataverse keeps the changes of the tables that maps follow
  other-products          whether Dual-write itself runs between the two

  dualwright link plan                          of ./dualwright.toml
  dualwright link plan --json | jq '.findings[] | select(.verdict != \"fine\")'

Exit codes: 0 nothing is in the way; 1 something is wrong; 2 the configuration is.";

const CREATE_EXAMPLES: &str = "\
Does what `link plan` finds to do: makes the tables of receipts and fences on Dataverse, switches
change tracking on where maps follow a table, and keeps a record of the link in the state folder. On
F&O an entity comes with a package, which somebody has to deploy. Makes nothing when something is
wrong. May be repeated.

Legal entities are those of `companies` in dualwright.toml, at most 40 at once; more are added with
`link add-company`, 250 in all ([limits] companies_when_linking_max, companies_live_max).

Exit codes: 0 linked; 1 something is wrong, and nothing was made; 2 the configuration is.";

const TEST_EXAMPLES: &str = "\
Names what is wrong: authentication, role, clock, own-tables (receipts and fences), change-sets (not
atomic), if-match (ignored inside them), delta (changes are not given out), bulk-messages (missing).
Rows are written to our own fence table only, and gone at the end. Works beside a runtime.

  dualwright link test
  dualwright link test --json | jq -e '.verdict != \"wrong\"'      for a monitor

Exit codes: 0 nothing is wrong; 1 something is; 2 the configuration is.";

#[derive(Debug, Args)]
#[command(after_help = PLAN_EXAMPLES)]
pub(in super::super) struct PlanArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with every finding.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub(in super::super) struct CreateArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with every finding.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
pub(in super::super) struct TestArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with every finding.
    #[arg(long)]
    json: bool,
}

pub(super) async fn plan(arguments: PlanArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config(&arguments.config.config)? else { return Ok(MISCONFIGURED) };
    let record = record_of(&config.state, &scope_of(&config)).await?;
    let linked = record.as_ref().is_some_and(|record| record.ended_at.is_none());
    let systems = Systems::of(&config)?;
    let look = plan::look(&config, &systems, record.as_ref().filter(|_| linked)).await;
    let command = arguments.config.for_command_line();
    let next = match worst(&look.findings) {
        Verdict::Wrong => "nothing was changed; correct what is wrong first".to_owned(),
        _ if linked && look.to_do.is_empty() => "nothing was changed; the link is made".to_owned(),
        _ => format!("nothing was changed; to make the link: dualwright link create{command}"),
    };
    print(&config, linked, &look.findings, &next, arguments.json)
}

pub(super) async fn create(arguments: CreateArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config(&arguments.config.config)? else { return Ok(MISCONFIGURED) };
    let scope = scope_of(&config);
    let store = Store::open(&config.state)?;
    let before = LinkRecord::read(&store, &scope).await?;
    let current = before.as_ref().filter(|record| record.ended_at.is_none());
    let systems = Systems::of(&config)?;
    let look = plan::look(&config, &systems, current).await;
    let mut findings = look.findings;
    if worst(&findings) == Verdict::Wrong {
        store.close().await;
        let next = "nothing was made; correct what is wrong first";
        return print(&config, current.is_some(), &findings, next, arguments.json);
    }
    let made = plan::make(&systems.dataverse, &look.to_do).await;
    // What was to be done is told by what came of it.
    findings.retain(|finding| finding.verdict != Verdict::ToDo);
    findings.extend(made);
    if worst(&findings) == Verdict::Wrong {
        store.close().await;
        let next = "the link was not made; correct what is wrong and repeat the command, which goes on from there";
        return print(&config, current.is_some(), &findings, next, arguments.json);
    }
    let now = now_micros();
    let mut record = LinkRecord::of(&config, look.identity.as_ref(), now);
    if let Some(current) = current {
        (record.id, record.created_at) = (current.id, current.created_at);
        for (company, since) in &mut record.companies {
            *since = current.companies.get(company).copied().unwrap_or(*since);
        }
    }
    let lines = activity(&record, before.as_ref(), &look.to_do);
    record.keep(&store, &scope, now, lines).await?;
    store.close().await;
    let command = arguments.config.for_command_line();
    let next = match current {
        Some(_) => "the link was made before; it is as it should be".to_owned(),
        None => format!("the link is made; to keep both sides in step: dualwright run{command}"),
    };
    print(&config, true, &findings, &next, arguments.json)
}

fn activity(record: &LinkRecord, before: Option<&LinkRecord>, done: &[ToDo]) -> Vec<(&'static str, String)> {
    let companies = record.companies.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let between = format!("{} and {}, companies {companies}", record.finops_url, record.dataverse_url);
    let mut lines = match before {
        None => vec![("link-created", between)],
        Some(before) if before.ended_at.is_some() => vec![("link-created", format!("again, {between}"))],
        Some(before) if before.companies.keys().ne(record.companies.keys()) => {
            vec![("link-companies", format!("now {companies}"))]
        }
        Some(_) => Vec::new(),
    };
    lines.extend(done.iter().map(|done| match done {
        ToDo::Install(table) => ("link-installed", table.set(dualwright_core::SystemKind::Dataverse).to_owned()),
        ToDo::TrackChanges(table) => ("link-installed", format!("change tracking of {table}")),
    }));
    lines
}

pub(super) async fn test(arguments: TestArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config(&arguments.config.config)? else { return Ok(MISCONFIGURED) };
    let record = record_of(&config.state, &scope_of(&config)).await?;
    let current = record.as_ref().filter(|record| record.ended_at.is_none());
    let systems = Systems::of(&config)?;
    let partition = partition_of(&config);
    let findings = connection_test::test(&config, &systems, partition.trim_end_matches('/'), current).await;
    let next = match worst(&findings) {
        Verdict::Wrong => "the connection does not keep what a link relies on",
        _ => "the connection is fine",
    };
    let code = print(&config, current.is_some(), &findings, next, arguments.json)?;
    if code == DIFFERENT && !arguments.json {
        let wrong = findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
        eprintln!("{}", output::counted(wrong as u64, "thing is wrong", "things are wrong"));
    }
    Ok(code)
}
