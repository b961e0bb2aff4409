//! `unlink` and `reset`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, session};
use super::{partition_of, scope_of, text};
use crate::engine::now_micros;
use crate::setup::connection_set::ConnectionSet;
use crate::setup::end::{self, End, Undelivered};
use crate::setup::plan::Systems;
use crate::setup::record::LinkRecord;
use crate::setup::{Finding, Verdict};
use crate::store::Store;

const UNLINK_EXAMPLES: &str = "\
First everything goes into a folder, whose name is printed: cross references, failed records with
the changes they failed on, the outbox, counters, positions, the activity log, as a file of JSON
lines each, and the link as a connection set. Then it is taken out of the store; the activity log
stays and goes on when the link is made again (`link create`). The rows of both systems stay as they
are; our fences on them are taken away, so that a request which is still on its way is refused.
dualwright.toml stays; `dualwright run` refuses it until the link is made again.

Refused while a runtime is at work, and while changes wait or records failed, unless --force is
given.

  dualwright link unlink
  dualwright link unlink --to ~/contoso-2026 --force

Exit codes: 0 it ended; 1 refused because something is undelivered; 2 wrong usage or configuration.";

const RESET_EXAMPLES: &str = "\
First everything goes into a folder, whose name is printed: cross references, failed records with
the changes they failed on, the outbox, counters, positions, the activity log, as a file of JSON
lines each, and the link as a connection set. Then it is taken out of the store; the activity log
stays. The rows of both systems stay as they are. The next `dualwright run` begins with the initial
sync, which finds the pairs again by their keys.

Refused while a runtime is at work, and while changes wait or records failed, unless --force is
given.

  dualwright link reset

Exit codes: 0 it begins anew; 1 refused because something is undelivered; 2 wrong usage or
configuration.";

#[derive(Debug, Args)]
pub(in super::super) struct EndArguments {
    /// Export into this folder, which has to be empty or not there; without it, into one below the state folder.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Also when changes wait or records failed. They are in the export, and will not be delivered.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with the folder and what is in it.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = UNLINK_EXAMPLES)]
pub(in super::super) struct UnlinkArguments {
    #[command(flatten)]
    end: EndArguments,
}

#[derive(Debug, Args)]
#[command(after_help = RESET_EXAMPLES)]
pub(in super::super) struct ResetArguments {
    #[command(flatten)]
    end: EndArguments,
}

#[derive(Debug, Serialize)]
struct EndReport<'a> {
    end: End,
    folder: String,
    /// Lines of JSON per table.
    exported: BTreeMap<&'a str, u64>,
    undelivered: Undelivered,
    findings: &'a [Finding],
}

pub(super) async fn unlink(arguments: UnlinkArguments) -> anyhow::Result<u8> {
    end_link(End::Unlink, arguments.end).await
}

pub(super) async fn reset(arguments: ResetArguments) -> anyhow::Result<u8> {
    end_link(End::Reset, arguments.end).await
}

async fn end_link(how: End, arguments: EndArguments) -> anyhow::Result<u8> {
    // An environment may be gone, and its secret with it.
    let Some(config) = session::read_config_with_the_secrets_there_are(&arguments.config.config)? else {
        return Ok(MISCONFIGURED);
    };
    let scope = scope_of(&config);
    if !Store::exists(&config.state) {
        eprintln!("error: there is no state folder {}, so there is nothing to end", config.state.display());
        return Ok(MISCONFIGURED);
    }
    if Store::is_in_use(&config.state) {
        eprintln!("error: a runtime is at work on {}; end it first, then repeat the command", config.state.display());
        return Ok(MISCONFIGURED);
    }
    let store = Store::open(&config.state)?;
    let undelivered = Undelivered::of(&store, &scope).await?;
    if !undelivered.is_none() && !arguments.force {
        store.close().await;
        eprintln!("error: {}; or add --force: they are exported, and not delivered", refusal(&undelivered));
        return Ok(DIFFERENT);
    }
    let now = now_micros();
    let record = LinkRecord::read(&store, &scope).await?;
    let set = ConnectionSet::of(&config, record.as_ref(), &BTreeMap::new()).to_json();
    let folder = arguments.to.unwrap_or_else(|| end::folder_for(&config.state, &scope, how, now));
    let record = record.unwrap_or_else(|| LinkRecord::of(&config, None, now));
    let ended = end::end(&store, &scope, how, &folder, &set, record, now).await;
    store.close().await;
    let exported = ended?;
    let findings = match how {
        End::Unlink => end::remove_fences(&Systems::of(&config)?, &partition_of(&config)).await,
        End::Reset => Vec::new(),
    };
    if arguments.json {
        output::print_json(&EndReport {
            end: how,
            folder: folder.display().to_string(),
            exported: exported.iter().map(|(table, lines)| (table.as_str(), *lines)).collect(),
            undelivered,
            findings: &findings,
        })?;
        return Ok(FINE);
    }
    let mut said = format!("exported to {}\n", folder.display());
    let rows = exported.iter().map(|(table, lines)| vec![table.clone(), crate::report::thousands(*lines)]).collect();
    said.push_str(&output::columns(&["table", "lines"], rows));
    let told = findings.into_iter().filter(|finding| finding.verdict != Verdict::Fine).collect::<Vec<_>>();
    said.push_str(&text(&told));
    said.push_str(match how {
        End::Unlink => "the link has ended; its activity log stays, and `dualwright link create` makes it again\n",
        End::Reset => "the link begins anew: the next `dualwright run` does the initial sync again\n",
    });
    output::print(&said)?;
    Ok(FINE)
}

fn refusal(undelivered: &Undelivered) -> String {
    let mut parts = Vec::new();
    if undelivered.waiting > 0 {
        let waiting = output::counted(undelivered.waiting, "row change waits", "row changes wait");
        parts.push(format!("{waiting} to be delivered (`dualwright run --once` delivers them)"));
    }
    if undelivered.failed > 0 {
        let failed = output::counted(undelivered.failed, "record failed", "records failed");
        parts.push(format!("{failed} (`dualwright status` lists them, `dualwright retry` tries again)"));
    }
    parts.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undelivered_is_named_with_a_way_out() {
        for (waiting, failed, parts) in [
            (1, 0, &["1 row change waits", "run --once"][..]),
            (0, 2, &["2 records failed", "retry"]),
            (3, 1, &["3 row changes wait", " and 1 record failed"]),
        ] {
            let said = refusal(&Undelivered { waiting, failed });
            for part in parts {
                assert!(said.contains(part), "{part} is not in {said}");
            }
        }
    }
}
