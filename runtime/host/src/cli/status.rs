//! `dualwright status`: what is behind, what failed, and what was done.
//!
//! Only reads, also beside a runtime that is at work.

use clap::Args;
use dualwright_core::value::format_timestamp;
use serde::Serialize;

use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, session};
use crate::engine::drift::{FrozenMap, frozen_maps};
use crate::engine::now_micros;
use crate::report::{FailedReport, MapReport, PluginReport, failed_text, maps_text, plugins_text, thousands};
use crate::store::{FailedFilter, Scope, Store};

const EXAMPLES: &str = "\
Reads the state folder that the configuration names, whether a runtime is at work there or not; asks
neither system.

  dualwright status                             of ./dualwright.toml
  dualwright status --config demo/dualwright.toml --activity 50
  dualwright status --json | jq .backlog        for a script or a monitor

Exit codes: 0 nothing failed; 1 records failed, `dualwright retry` tries them again, or a map is
frozen; 2 no such state.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Lines of the activity log to show, the newest ones.
    #[arg(long, value_name = "LINES", default_value_t = 10)]
    activity: u32,
    /// One JSON object with everything.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct StatusReport {
    tenant: String,
    link: String,
    /// A runtime has the state folder now.
    running: bool,
    backlog: BacklogReport,
    /// Maps that carry nothing, because their tables changed.
    frozen: Vec<FrozenMap>,
    maps: Vec<MapReport>,
    plugins: Vec<PluginReport>,
    failed: Vec<FailedReport>,
    activity: Vec<ActivityReport>,
}

#[derive(Debug, Serialize)]
struct BacklogReport {
    deliveries: u64,
    rows: u64,
    oldest_captured_at: Option<String>,
    retrying: u64,
    /// Why the first of those waits.
    reason: Option<String>,
    #[serde(skip)]
    oldest_micros: Option<i64>,
}

#[derive(Debug, Serialize)]
struct ActivityReport {
    at: String,
    map: Option<String>,
    kind: String,
    text: String,
}

pub(super) async fn status(arguments: StatusArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config_without_secrets(&arguments.config.config)? else {
        return Ok(MISCONFIGURED);
    };
    let running = Store::is_in_use(&config.state);
    let store = Store::open_read_only(&config.state)?;
    let scope = Scope { tenant: config.tenant.as_str().into(), link: config.link.slug.as_str().into() };
    let mut report = report(&store, &scope, running, arguments.activity).await?;
    report.frozen = frozen_maps(&config, &store).await?;
    store.close().await;
    if arguments.json {
        output::print_json(&report)?;
    } else {
        output::print(&text(&report, now_micros(), &arguments.config.for_command_line(), output::width()))?;
    }
    Ok(if report.failed.is_empty() && report.frozen.is_empty() { FINE } else { DIFFERENT })
}

async fn report(store: &Store, scope: &Scope, running: bool, lines: u32) -> anyhow::Result<StatusReport> {
    let backlog = store.backlog(scope).await?;
    let counts = store.counts(scope).await?;
    let timings = store.plugin_timings(scope).await?;
    let failed = store.failed(scope, FailedFilter::default()).await?;
    let activity = store.activity(scope, lines).await?;
    Ok(StatusReport {
        tenant: scope.tenant.to_string(),
        link: scope.link.to_string(),
        running,
        backlog: BacklogReport {
            deliveries: backlog.deliveries,
            rows: backlog.rows,
            oldest_captured_at: backlog.oldest_captured_at.map(format_timestamp),
            retrying: backlog.retrying,
            reason: backlog.fault.map(|fault| fault.to_string()),
            oldest_micros: backlog.oldest_captured_at,
        },
        frozen: Vec::new(),
        maps: counts.iter().map(|(map, source, counts)| session::map_report(map, *source, counts)).collect(),
        // What another version wrote and this one cannot read is not worth failing for.
        plugins: timings.iter().filter_map(|(_, timings)| serde_json::from_str(timings).ok()).collect(),
        failed: failed.into_iter().map(session::failed_report).collect(),
        activity: activity
            .into_iter()
            .map(|line| ActivityReport {
                at: format_timestamp(line.at),
                map: line.map,
                kind: line.kind,
                text: line.text,
            })
            .collect(),
    })
}

/// `config` is what another command needs to read the same configuration.
fn text(report: &StatusReport, now: i64, config: &str, width: Option<u16>) -> String {
    let state = if report.running { "a runtime is at work" } else { "no runtime is at work" };
    let mut text = format!("link {} of tenant {}: {state}\n\nWaiting\n", report.link, report.tenant);
    let backlog = &report.backlog;
    match (backlog.deliveries, backlog.oldest_micros) {
        (0, _) | (_, None) => text.push_str("  nothing\n"),
        (deliveries, Some(oldest)) => text.push_str(&format!(
            "  {} with {}, the oldest captured {}\n",
            output::counted(deliveries, "delivery", "deliveries"),
            output::counted(backlog.rows, "row", "rows"),
            output::ago(now.saturating_sub(oldest))
        )),
    }
    if let Some(reason) = &backlog.reason {
        text.push_str(&format!("  {} to be tried again: {reason}\n", thousands(backlog.retrying)));
    }
    let maps = match report.maps.as_slice() {
        [] => "  no row was carried over yet\n".to_owned(),
        maps => maps_text(maps),
    };
    text.push_str(&format!("\nMaps\n{maps}"));
    for map in &report.frozen {
        text.push_str(&format!("  {} is frozen: {}\n    {}\n", map.map, map.why.join("; "), map.remedy()));
    }
    if !report.plugins.is_empty() {
        text.push_str(&format!("\nPlugins, in the last run\n{}", plugins_text(&report.plugins)));
    }
    text.push_str(&format!("\nFailed records\n{}", failed_text(&report.failed, width)));
    if !report.failed.is_empty() {
        text.push_str(&format!("  correct the cause, then: dualwright retry --all{config}, or with the ids\n"));
    }
    if !report.activity.is_empty() {
        text.push_str("\nActivity\n");
        for line in &report.activity {
            let map = line.map.as_deref().map(|map| format!(" {map}:")).unwrap_or_default();
            text.push_str(&format!("  {}  {}{map} {}\n", line.at, line.kind, line.text));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dualwright_core::{Code, Fault, SystemKind, TransactionId};
    use uuid::Uuid;

    use super::*;
    use crate::store::{Capture, Counts, Fate, NewActivity, NewDelivery, NewFailed, Settlement};

    #[tokio::test]
    async fn the_page_says_what_waits_what_failed_and_what_was_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let scope = Scope { tenant: Arc::from("default"), link: Arc::from("contoso") };
        let read = async || report(&store, &scope, false, 10).await.expect("a report");
        let empty = "link contoso of tenant default: no runtime is at work\n\nWaiting\n  nothing\n\nMaps\n  \
                     no row was carried over yet\n\nFailed records\n  no record failed\n";
        assert_eq!(text(&read().await, 0, "", None), empty);

        let delivery = |token: &str| NewDelivery {
            transaction: TransactionId(Uuid::nil()),
            source: SystemKind::Finops,
            source_token: token.to_owned(),
            atomic: false,
            payload: Vec::new(),
            rows: 600,
            captured_at: 60_000_000,
            retry_of: None,
        };
        let deliveries = vec![delivery("a"), delivery("b")];
        store.capture(&scope, Capture { deliveries, watermarks: Vec::new() }).await.expect("captures");
        let fault = Fault::new(Code::Unavailable, "no answer");
        let settlement = Settlement {
            delivery: Some((1, Fate::Retry { not_before: 0, fault })),
            failed: vec![NewFailed {
                map: Arc::from("customers"),
                source: SystemKind::Finops,
                key: "usmf/C1".to_owned(),
                row_key: None,
                transaction: TransactionId(Uuid::nil()),
                fault: Fault::new(Code::TextTooLong, "NAME has 12 characters, name holds 10").column("name"),
                payload: Arc::from(Vec::new()),
                atomic: false,
                attempts: 1,
                at: 0,
                sequence: 1,
                waiting_for_parent: false,
            }],
            counts: vec![(
                Arc::from("customers"),
                SystemKind::Finops,
                Counts { rows: 2, failed: 1, ..Counts::default() },
            )],
            activity: vec![NewActivity { at: 0, map: None, kind: "delivery-retried", text: "no answer".to_owned() }],
            ..Settlement::default()
        };
        store.settle(&scope, settlement).await.expect("settles");
        let timings =
            PluginReport { plugin: "trim".to_owned(), stage: "transform".to_owned(), ..PluginReport::default() };
        let json = serde_json::to_string(&timings).expect("JSON");
        store.save_plugin_timings(&scope, "trim/transform", &json).await.expect("saves");
        store.save_plugin_timings(&scope, "of another version", "{}").await.expect("saves");

        let page = text(&read().await, 360_000_000, " --config x.toml", None);
        for line in [
            "  2 deliveries with 1,200 rows, the oldest captured 5 min ago",
            "  1 to be tried again: DW-2002: no answer",
            "  1970-01-01T00:00:00Z  delivery-retried no answer",
            "  correct the cause, then: dualwright retry --all --config x.toml, or with the ids",
        ] {
            assert!(page.lines().any(|own| own == line), "{line:?} is missing in\n{page}");
        }
        for part in ["customers", "usmf/C1", "DW-1002", "trim"] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
    }
}
