//! `dualwright advise`: whether a live link serves the purpose, and what will hurt.
//!
//! Questions are answered by flags; what a configuration says is taken from it. The numbers are those of the published
//! limits of Dual-write, where they hold here too, or the point where its users were hurt.

use clap::{Args, ValueEnum};
use dualwright_core::mapping::{Leg, Mapping};
use dualwright_core::{SystemKind, plan::checks};
use serde::Serialize;

use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, session};

/// Rows of one transaction that F&O may send.
const TRANSACTION_ROWS_MAX: u64 = 1_000;
/// Rows of one initial sync, per legal entity.
const RUN_ROWS_MAX: u64 = 500_000;
/// Rows that a table takes in which rows are written one after the other.
const SINGLE_THREADED_ROWS_MAX: u64 = 70_000;
/// Rows a second that a live link should be asked for.
const LIVE_ROWS_PER_SECOND_MAX: u64 = 1_000;
/// The goal of a plugin per transaction, in milliseconds.
const PLUGIN_GOAL_MS: u64 = 500;

/// Entities whose rows are written one after the other, because each writes several tables that others share.
const SINGLE_THREADED: [&str; 2] = ["customers v3", "vendors v2"];

/// Entity sets whose writes end in the shared tables of parties and addresses.
const ADDRESS_SETS: [&str; 8] = [
    "accounts",
    "contacts",
    "msdyn_vendors",
    "msdyn_parties",
    "msdyn_partypostaladdresses",
    "msdyn_partyelectronicaddresses",
    "msdyn_postaladdresses",
    "msdyn_postaladdresscollections",
];

const EXAMPLES: &str = "\
  dualwright advise --need read-only
  dualwright advise --rows 800000 --rows-per-transaction 5000
  dualwright advise --config dualwright.toml --map-rows customers=90000

Exit codes: 0 nothing speaks against it; 1 there are warnings; 2 the configuration cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AdviseArguments {
    #[command(flatten)]
    questions: Questions,
    #[command(flatten)]
    config: ConfigArgument,
    #[arg(long)]
    json: bool,
}

/// The questions of the decision tree; what is not answered is not judged.
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
struct KnownMap {
    slug: String,
    leg: Leg,
}

pub(super) fn advise(arguments: &AdviseArguments) -> anyhow::Result<u8> {
    let mut maps = Vec::new();
    if arguments.config.config.is_file() {
        let Some(config) = session::read_config_without_secrets(&arguments.config.config)? else {
            return Ok(MISCONFIGURED);
        };
        for map in config.maps {
            // A map that cannot be read is the business of `map check`.
            let mapping = std::fs::read_to_string(&map.file).ok().and_then(|text| Mapping::parse(&text).ok());
            let legs = mapping.into_iter().flat_map(|mapping| mapping.legs);
            maps.extend(legs.map(|leg| KnownMap { slug: map.slug.clone(), leg }));
        }
    }
    let advice = judge(&arguments.questions, &maps);
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

fn text_of(advice: &[Advice]) -> String {
    let line = |advice: &Advice| {
        let kind = if advice.is_warning { "warning" } else { "fine" };
        format!("{kind:<8}{}: {}. {}\n", advice.topic, advice.what, advice.remedy)
    };
    advice.iter().map(line).collect()
}

fn judge(questions: &Questions, maps: &[KnownMap]) -> Vec<Advice> {
    let mut advice = Vec::new();
    let mut add = |is_warning, topic, what: String, remedy: &str| {
        advice.push(Advice { is_warning, topic, what, remedy: remedy.to_owned() });
    };
    if questions.other_system {
        let remedy = "Use the APIs of the two systems, or a general integration service";
        add(true, "system", "a link keeps F&O and Dataverse in step, and no other system".to_owned(), remedy);
    }
    if questions.on_premises {
        let what = "Dual-write does not serve F&O on the premises; this runtime does, where its OData is reachable";
        add(false, "premises", what.to_owned(), "See that the connection test passes");
    }
    match questions.data {
        Some(Data::Master) => {
            add(false, "data", "master data is what pre-built maps are for".to_owned(), "Start from the shipped maps");
        }
        Some(Data::Transactions) => {
            let remedy = "Run the maps of their parents first: orders wait for customers and products";
            add(false, "data", "orders and invoices are carried live".to_owned(), remedy);
        }
        Some(Data::Other) => {
            let remedy = "Consider packages for files and bulk, or the APIs, before you write a map";
            add(true, "data", "neither master data nor transactions".to_owned(), remedy);
        }
        None => {}
    }
    match questions.need {
        Some(Need::BothWays) => {
            let remedy = "Choose conflict_winner, and fields that go one way where one side owns them";
            add(false, "need", "both sides write".to_owned(), remedy);
        }
        Some(Need::ReadOnly) => {
            let remedy = "Read through a virtual table: nothing is stored twice, and nothing can be late";
            add(true, "need", "one side only reads".to_owned(), remedy);
        }
        None => {}
    }
    if let Some(rows) = questions.rows_per_transaction {
        let over = rows > TRANSACTION_ROWS_MAX;
        let remedy = if over { "Commit after every 1,000 rows at the source" } else { "Nothing to do" };
        add(over, "transaction", format!("{rows} rows in one transaction, of at most {TRANSACTION_ROWS_MAX}"), remedy);
    }
    if let Some(rows) = questions.rows {
        let over = rows > RUN_ROWS_MAX;
        let remedy = if over {
            "Import the rows on both sides by packages, then start the maps without an initial sync"
        } else {
            "Let the initial sync copy them"
        };
        add(
            over,
            "initial-sync",
            format!("{rows} rows per legal entity, of at most {RUN_ROWS_MAX} in one run"),
            remedy,
        );
    }
    if let Some(rows) = questions.rows_per_second {
        let over = rows > LIVE_ROWS_PER_SECOND_MAX;
        let remedy = if over { "Collect the changes and carry them in batches" } else { "Nothing to do" };
        add(over, "live-rate", format!("{rows} rows a second, of at most {LIVE_ROWS_PER_SECOND_MAX} live"), remedy);
    }
    if questions.bulk_import {
        let remedy = "Stop the maps, import on both sides, and start them without an initial sync";
        add(true, "bulk-import", "an import under a running map is carried row by row".to_owned(), remedy);
    }
    for (plugin, ms) in &questions.plugin_ms {
        let over = *ms > PLUGIN_GOAL_MS;
        let remedy =
            if over { "Give it fewer rows or columns, or do its work after the write" } else { "Nothing to do" };
        add(
            over,
            "slow-plugin",
            format!("{plugin} takes {ms} ms per transaction, of at most {PLUGIN_GOAL_MS}"),
            remedy,
        );
    }
    for map in maps {
        let rows = questions.map_rows.iter().find(|(slug, _)| *slug == map.slug).map(|(_, rows)| *rows);
        if let Some(rows) = rows {
            let single = SINGLE_THREADED.contains(&map.leg.finops_entity.to_lowercase().as_str());
            let most = if single { SINGLE_THREADED_ROWS_MAX } else { RUN_ROWS_MAX };
            if rows > most {
                let why = if single { " written one after the other" } else { "" };
                let remedy = "Import the rows on both sides by packages, then start the map without an initial sync";
                add(true, "map-rows", format!("{} has {rows} rows{why}, of at most {most}", map.slug), remedy);
            }
        }
        let goes = |target| map.leg.fields.iter().any(|field| field.direction.goes_to(target));
        if goes(SystemKind::Dataverse) && !goes(SystemKind::Finops) {
            let remedy = "If Dataverse only shows the rows, a virtual table serves without a second copy";
            add(true, "one-way", format!("{} goes to Dataverse only", map.slug), remedy);
        }
    }
    let shared = maps
        .iter()
        .filter(|map| ADDRESS_SETS.contains(&map.leg.dataverse_set.to_lowercase().as_str()))
        .map(|map| map.slug.as_str())
        .collect::<Vec<_>>();
    if shared.len() > 1 {
        let what = format!("{} write the same tables of parties and addresses", shared.join(", "));
        add(true, "shared-addresses", what, "Pause the others while one of them makes its initial sync");
    }
    let mut entities = std::collections::BTreeMap::<String, Vec<&str>>::new();
    for map in maps {
        entities.entry(map.leg.finops_entity.to_lowercase()).or_default().push(&map.slug);
    }
    for slugs in entities.values().filter(|slugs| slugs.len() > 1) {
        debug_assert!(checks::CHECKS.iter().any(|check| check.code == HC_SEVERAL_MAPS));
        let what = format!(
            "{} read one F&O entity, so every change of it is looked at by each [{HC_SEVERAL_MAPS}]",
            slugs.join(", ")
        );
        add(true, "one-entity", what, "Give each map a filter, or join maps that need none");
    }
    advice
}

/// The code of the table map health check for this.
const HC_SEVERAL_MAPS: &str = "HC1700";

#[cfg(test)]
mod tests {
    use super::*;

    fn map(slug: &str, entity: &str, set: &str, direction: u8) -> KnownMap {
        let text = format!(
            r#"{{"legs":[{{"sourceSchema":"{entity}","destinationSchema":"{set}","fieldMappings":[
            {{"syncDirection":{direction},"sourceField":"A","destinationField":"a"}}]}}]}}"#
        );
        let leg = Mapping::parse(&text).expect("a map").legs.remove(0);
        KnownMap { slug: slug.to_owned(), leg }
    }

    /// A line each: what is asked, and the topics that are answered, warnings with a mark.
    #[test]
    fn every_branch_of_the_decision_tree_is_answered() {
        let asked = Questions::default;
        let customers = || map("customers", "Customers V3", "accounts", 3);
        let cases = [
            (asked(), vec![], ""),
            (Questions { data: Some(Data::Master), ..asked() }, vec![], "data"),
            (Questions { data: Some(Data::Transactions), ..asked() }, vec![], "data"),
            (Questions { data: Some(Data::Other), ..asked() }, vec![], "data!"),
            (Questions { need: Some(Need::BothWays), ..asked() }, vec![], "need"),
            (Questions { need: Some(Need::ReadOnly), ..asked() }, vec![], "need!"),
            (Questions { on_premises: true, ..asked() }, vec![], "premises"),
            (Questions { other_system: true, ..asked() }, vec![], "system!"),
            (Questions { rows_per_transaction: Some(1_000), ..asked() }, vec![], "transaction"),
            (Questions { rows_per_transaction: Some(1_001), ..asked() }, vec![], "transaction!"),
            (Questions { rows: Some(500_000), ..asked() }, vec![], "initial-sync"),
            (Questions { rows: Some(500_001), ..asked() }, vec![], "initial-sync!"),
            (Questions { rows_per_second: Some(1_000), ..asked() }, vec![], "live-rate"),
            (Questions { rows_per_second: Some(1_001), ..asked() }, vec![], "live-rate!"),
            (Questions { bulk_import: true, ..asked() }, vec![], "bulk-import!"),
            (Questions { plugin_ms: vec![("p".into(), 500)], ..asked() }, vec![], "slow-plugin"),
            (Questions { plugin_ms: vec![("p".into(), 501)], ..asked() }, vec![], "slow-plugin!"),
            (Questions { map_rows: vec![("customers".into(), 70_000)], ..asked() }, vec![customers()], ""),
            (Questions { map_rows: vec![("customers".into(), 70_001)], ..asked() }, vec![customers()], "map-rows!"),
            (
                Questions { map_rows: vec![("units".into(), 70_001)], ..asked() },
                vec![map("units", "Units", "uoms", 3)],
                "",
            ),
            (asked(), vec![map("units", "Units", "uoms", 1)], "one-way!"),
            (asked(), vec![customers(), map("vendors", "Vendors V2", "msdyn_vendors", 3)], "shared-addresses!"),
            (
                asked(),
                vec![map("a", "Attachments", "annotations", 3), map("b", "attachments", "notes", 2)],
                "one-entity!",
            ),
        ];
        for (questions, maps, wanted) in cases {
            let advice = judge(&questions, &maps);
            let told = advice.iter().map(|one| format!("{}{}", one.topic, if one.is_warning { "!" } else { "" }));
            assert_eq!(told.collect::<Vec<_>>().join(" "), wanted, "{questions:?}");
            assert!(advice.iter().all(|one| !one.remedy.is_empty()));
        }
    }
}
