//! `dualwright retry`: failed records into the outbox again.
//!
//! Only writes requests; a runtime carries them out. So it works beside one, and also when none is at work.

use clap::Args;
use serde::Serialize;

use super::{ConfigArgument, FINE, MISCONFIGURED, output, session};
use crate::engine::now_micros;
use crate::store::{FailedFilter, FailedRecord, Scope, Store};

const EXAMPLES: &str = "\
Correct the cause first: at the source, in the map, or in a plugin's settings. `dualwright status`
lists the records with their ids, reasons and remedies. What is tried again is the change as it was
captured.

  dualwright retry 12 17                        two records
  dualwright retry --map customers              all of a map
  dualwright retry --all

Exit codes: 0 they are queued, or there is nothing to do; 2 an id or map that does not exist.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "map", "all"])))]
pub(super) struct RetryArguments {
    /// Ids of failed records, as `status` lists them.
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Every failed record of this map.
    #[arg(long, value_name = "SLUG")]
    map: Option<String>,
    /// Every failed record.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with what was queued.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, PartialEq, Serialize)]
struct RetryReport {
    /// Failed records that were meant.
    records: usize,
    /// Deliveries that were queued: one per record, or per transaction that is retried as a whole.
    queued: u32,
    /// A runtime is at work and takes them up now.
    running: bool,
}

pub(super) async fn retry(arguments: RetryArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config_without_secrets(&arguments.config.config)? else {
        return Ok(MISCONFIGURED);
    };
    let running = Store::is_in_use(&config.state);
    let store = Store::open_beside(&config.state)?;
    let scope = Scope { tenant: config.tenant.as_str().into(), link: config.link.slug.as_str().into() };
    let records = store.failed(&scope, FailedFilter::default()).await?;
    let maps = config.map_slugs();
    let maps = maps.iter().map(String::as_str).collect::<Vec<_>>();
    let meant = match meant(&records, &maps, &arguments.ids, arguments.map.as_deref()) {
        Ok(meant) => meant,
        Err(message) => {
            store.close().await;
            eprintln!("error: {message}");
            return Ok(MISCONFIGURED);
        }
    };
    let queued = store.requeue(&scope, &meant, now_micros()).await?;
    store.close().await;
    let report = RetryReport { records: meant.len(), queued, running };
    if arguments.json {
        output::print_json(&report)?;
    } else {
        output::print(&format!("{}\n", said(&report)))?;
    }
    Ok(FINE)
}

/// The ids that are meant, or what is wrong with the question.
fn meant(records: &[FailedRecord], maps: &[&str], ids: &[i64], map: Option<&str>) -> Result<Vec<i64>, String> {
    if let Some(map) = map {
        let of_map = records.iter().filter(|record| *record.map == *map).map(|record| record.id).collect::<Vec<_>>();
        // A map may have left the configuration and still have records.
        if of_map.is_empty() && !maps.contains(&map) {
            return Err(output::there_is_no("map", map, maps.iter().copied()));
        }
        return Ok(of_map);
    }
    if ids.is_empty() {
        return Ok(records.iter().map(|record| record.id).collect());
    }
    let known = records.iter().map(|record| record.id.to_string()).collect::<Vec<_>>();
    match ids.iter().map(i64::to_string).find(|id| !known.contains(id)) {
        // Ids are not words: one that looks like another is not what was meant.
        Some(id) if known.is_empty() => Err(format!("there is no failed record {id}, and no other either")),
        Some(id) => Err(format!("there is no failed record {id}. There are: {}", known.join(", "))),
        None => Ok(ids.to_vec()),
    }
}

fn said(report: &RetryReport) -> String {
    let records = match report.records {
        1 => "1 failed record".to_owned(),
        records => format!("{records} failed records"),
    };
    match report {
        RetryReport { records: 0, .. } => "no record failed; nothing to do".to_owned(),
        RetryReport { queued: 0, .. } => format!("{records}, queued already"),
        RetryReport { running: true, .. } => {
            format!("{records} queued; the runtime that is at work takes them up now, see `dualwright status`")
        }
        RetryReport { running: false, .. } => format!("{records} queued; the next `dualwright run` takes them up"),
    }
}

#[cfg(test)]
mod tests {
    use dualwright_core::{Code, Fault, SystemKind, TransactionId};

    use super::*;

    fn record(id: i64, map: &str) -> FailedRecord {
        FailedRecord {
            id,
            map: map.into(),
            source: SystemKind::Finops,
            key: String::new(),
            row_key: None,
            transaction: TransactionId(uuid::Uuid::nil()),
            fault: Fault::new(Code::TextTooLong, ""),
            payload: Vec::new(),
            atomic: false,
            attempts: 1,
            first_at: 0,
            last_at: 0,
            sequence: 1,
            waiting_for_parent: false,
        }
    }

    #[test]
    fn only_what_exists_is_meant() {
        let records = [record(3, "customers"), record(5, "vendors"), record(8, "customers"), record(9, "retired")];
        let maps = ["customers", "vendors", "currencies"];
        for (ids, map, wanted) in [
            (&[][..], None, Ok(vec![3, 5, 8, 9])),
            (&[8, 3], None, Ok(vec![8, 3])),
            (&[3, 4], None, Err("there is no failed record 4. There are: 3, 5, 8, 9")),
            (&[], Some("customers"), Ok(vec![3, 8])),
            (&[], Some("retired"), Ok(vec![9])),
            (&[], Some("currencies"), Ok(vec![])),
            (
                &[],
                Some("vendor"),
                Err("there is no map vendor; did you mean vendors? There are: customers, vendors, currencies"),
            ),
        ] {
            assert_eq!(meant(&records, &maps, ids, map), wanted.map_err(str::to_owned), "{ids:?} {map:?}");
        }
        let none = meant(&[], &maps, &[1], None);
        assert_eq!(none, Err("there is no failed record 1, and no other either".to_owned()));
    }

    #[test]
    fn it_says_who_takes_them_up() {
        for (records, queued, running, part) in [
            (0, 0, false, "nothing to do"),
            (1, 0, true, "1 failed record, queued already"),
            (2, 1, true, "2 failed records queued; the runtime that is at work"),
            (2, 2, false, "2 failed records queued; the next `dualwright run`"),
        ] {
            let said = said(&RetryReport { records, queued, running });
            assert!(said.contains(part), "{said}");
        }
    }
}
