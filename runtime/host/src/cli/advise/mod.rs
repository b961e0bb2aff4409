//! `dualwright advise`: whether a live link serves the purpose, and what will hurt.
//!
//! Questions are answered by flags; what a configuration, its systems and its store can tell is taken from them, and a
//! flag goes before what was measured.

mod judge;
mod measure;

use clap::{Args, ValueEnum};
use dualwright_core::mapping::{Leg, Mapping};
use serde::Serialize;

use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, session};
use crate::config::Config;

const EXAMPLES: &str = "\
Where a configuration is there, its maps are judged, rows are counted on both systems, and the store
says how fast changes came and how long plugins took. A flag goes before what was measured.

  dualwright advise --need read-only
  dualwright advise --rows 800000 --rows-per-transaction 5000
  dualwright advise --config dualwright.toml    what the systems and the store tell
  dualwright advise --offline --map-rows customers=90000

Exit codes: 0 nothing speaks against it; 1 there are warnings; 2 the configuration cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AdviseArguments {
    #[command(flatten)]
    questions: Questions,
    /// Ask neither system: no rows are counted.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON list.
    #[arg(long)]
    json: bool,
}

/// The questions of the decision tree; what is not answered is measured where that can be, and else not judged.
#[derive(Debug, Default, Args)]
struct Questions {
    /// What the data is: customers, vendors and products, or orders and invoices.
    #[arg(long, value_enum)]
    data: Option<Data>,
    /// Whether both sides write, or one only reads.
    #[arg(long, value_enum)]
    need: Option<Need>,
    /// Rows of the largest transaction.
    #[arg(long, value_name = "N")]
    rows_per_transaction: Option<u64>,
    /// Rows to copy at first, per legal entity.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// Rows of one map, per legal entity; once for each map.
    #[arg(long, value_name = "SLUG=N", value_parser = parse_pair)]
    map_rows: Vec<(String, u64)>,
    /// Changed rows a second at the busiest time.
    #[arg(long, value_name = "N")]
    rows_per_second: Option<u64>,
    /// Rows will be imported in bulk while maps run.
    #[arg(long)]
    bulk_import: bool,
    /// F&O runs on the premises.
    #[arg(long)]
    on_premises: bool,
    /// Milliseconds that a plugin takes per transaction; once for each plugin.
    #[arg(long, value_name = "NAME=MS", value_parser = parse_pair)]
    plugin_ms: Vec<(String, u64)>,
    /// What does not end in time.
    #[arg(long, value_enum)]
    timeouts: Option<Timeouts>,
    /// The other system is neither F&O nor Dataverse.
    #[arg(long)]
    other_system: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Data {
    Master,
    Transactions,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Need {
    BothWays,
    ReadOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Timeouts {
    Transaction,
    InitialSync,
}

fn parse_pair(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.split_once('=').ok_or("write NAME=NUMBER")?;
    Ok((name.to_owned(), number.parse().map_err(|_| format!("{number} is not a number"))?))
}

/// One thing to know.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Advice {
    is_warning: bool,
    /// A stable word for scripts.
    topic: &'static str,
    what: String,
    remedy: String,
}

/// A map as far as advice looks at it.
#[derive(Debug)]
struct KnownMap {
    slug: String,
    leg: Leg,
    /// Public collection of F&O, where the configuration says it.
    collection: Option<String>,
    /// Legal entities that it carries, lower case.
    companies: Vec<String>,
}

/// What nobody had to be asked for.
#[derive(Debug, Default, PartialEq)]
struct Measured {
    rows: Vec<MapRows>,
    pace: Option<Pace>,
    plugins: Vec<PluginTime>,
    /// Deliveries that wait and records that failed because their time was spent.
    budget_spent: u64,
    /// Slugs of the maps that have had their initial sync; `None` where there is no store yet.
    copied: Option<Vec<String>>,
    /// What could not be measured, and why.
    left_out: Vec<String>,
}

/// Rows of one map.
#[derive(Debug, Default, PartialEq, Eq)]
struct MapRows {
    slug: String,
    /// Of the legal entity that has most of them, on F&O.
    finops: Option<u64>,
    /// In all legal entities: Dataverse counts whole tables.
    dataverse: Option<u64>,
}

/// How fast changes came in, as far back as the store remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    /// Of the largest transaction of F&O.
    transaction_rows_max: u64,
    /// In the busiest minute.
    rows_per_minute_max: u64,
    /// In the busiest ten minutes.
    rows_per_ten_minutes_max: u64,
}

/// How long a plugin took.
#[derive(Debug, PartialEq, Eq)]
struct PluginTime {
    plugin: String,
    /// Transactions in which it took longer than the goal.
    over_goal: u64,
    /// Of the longest call.
    max_ms: u64,
}

pub(super) async fn advise(arguments: &AdviseArguments) -> anyhow::Result<u8> {
    let (mut maps, mut measured) = (Vec::new(), Measured::default());
    if arguments.config.config.is_file() {
        let Some(without) = session::read_config_without_secrets(&arguments.config.config)? else {
            return Ok(MISCONFIGURED);
        };
        maps = known_maps(&without);
        measure::store(&without, &mut measured).await;
        // The systems are asked only with the secrets; whoever lacks them still gets the rest.
        match Config::read(&arguments.config.config, &|name| std::env::var(name).ok()) {
            _ if arguments.offline => {}
            Ok(config) => measure::systems(&config, &maps, &mut measured).await,
            Err(problems) => {
                let why = problems.first().map_or_else(String::new, |problem| problem.message.clone());
                measured.left_out.push(format!("rows were not counted: {why}"));
            }
        }
    }
    let advice = judge::judge(&arguments.questions, &maps, &measured);
    let warned = advice.iter().any(|advice| advice.is_warning);
    if arguments.json {
        output::print_json(&advice)?;
    } else if advice.is_empty() {
        output::print("nothing was asked; see `dualwright advise --help`\n")?;
    } else {
        output::print(&text_of(&advice))?;
    }
    Ok(if warned { DIFFERENT } else { FINE })
}

fn known_maps(config: &Config) -> Vec<KnownMap> {
    let mut maps = Vec::new();
    for map in &config.maps {
        // A map that cannot be read is the business of `map check`.
        let mapping = std::fs::read_to_string(&map.file).ok().and_then(|text| Mapping::parse(&text).ok());
        for leg in mapping.into_iter().flat_map(|mapping| mapping.legs) {
            let takes = |company: &&String| map.companies.as_ref().is_none_or(|own| own.contains(*company));
            maps.push(KnownMap {
                slug: map.slug.clone(),
                leg,
                collection: map.finops_collection.clone(),
                companies: config.link.companies.iter().filter(takes).cloned().collect(),
            });
        }
    }
    maps
}

fn text_of(advice: &[Advice]) -> String {
    let line = |advice: &Advice| {
        let kind = if advice.is_warning { "warning" } else { "fine" };
        let kind = if advice.topic == judge::NOT_MEASURED { "unknown" } else { kind };
        format!("{kind:<8}{}: {}. {}\n", advice.topic, advice.what, advice.remedy)
    };
    advice.iter().map(line).collect()
}
