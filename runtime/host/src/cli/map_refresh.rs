//! `dualwright map refresh`: the tables of both systems, read anew and held against what the maps were validated with.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use super::output::counted;
use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, session};
use crate::engine::drift::frozen_maps;
use crate::engine::prepare::{prepare_accepting, sandbox};
use crate::store::Store;

const EXAMPLES: &str = "\
What Dual-write calls \"Refresh tables\". What a map was validated against is kept in the state
folder: columns that are new, gone or of another type since then are told, and the setting `drift`
of the map says what they mean. By default a key or mandatory column freezes the map: it carries
nothing until somebody has looked at it, and the others go on. The same look is taken at every
start, and by a runtime at work when a system refuses what it knew before.

A frozen map goes on when its tables are as they were, when its corrected text fits them, or when
its tables are accepted as they are. It then catches up with what it missed, deletions apart:
`dualwright compare` names those.

  dualwright map refresh                        all maps of ./dualwright.toml
  dualwright map refresh customers --accept     go on with these tables, if the map fits them
  dualwright map refresh --json | jq .frozen

A runtime at work hears of it. Exit codes: 0 all maps fit; 1 a map is frozen; 2 a system does not
answer, or a map that was never validated has errors.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RefreshArguments {
    /// Maps of the configuration to accept; without any, --accept means all of them.
    #[arg(value_name = "SLUG", requires = "accept")]
    maps: Vec<String>,
    /// Take the tables as they are, and let a frozen map that fits them go on.
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn refresh(arguments: RefreshArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config(&arguments.config.config)? else { return Ok(MISCONFIGURED) };
    let known = config.maps.iter().map(|map| map.slug.clone()).collect::<BTreeSet<_>>();
    let mut accepted = arguments.maps.iter().cloned().collect::<BTreeSet<_>>();
    if let Some(unknown) = accepted.difference(&known).next() {
        let known = known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        eprintln!("error: the configuration has no map {unknown}; it has {known}");
        return Ok(MISCONFIGURED);
    }
    if arguments.accept && accepted.is_empty() {
        accepted = known;
    }
    let store = if config.state.exists() { Store::open_beside(&config.state)? } else { Store::open(&config.state)? };
    let prepared = prepare_accepting(&config, store.clone(), sandbox(&config)?, &accepted).await;
    let frozen = frozen_maps(&config, &store).await;
    store.close().await;
    let news = match prepared {
        Ok(prepared) => prepared.news,
        Err(problems) => {
            for problem in problems.iter().filter(|problem| problem.is_error) {
                eprintln!("{problem}");
            }
            let errors = problems.iter().filter(|problem| problem.is_error).count();
            eprintln!("{}; nothing was changed", counted(errors as u64, "problem", "problems"));
            return Ok(MISCONFIGURED);
        }
    };
    let frozen = frozen?;
    if arguments.json {
        output::print_json(&json!({ "news": news, "frozen": frozen }))?;
    } else {
        let mut text = String::new();
        for line in &news {
            text.push_str(&format!("map {}: {}\n", line.map, line.text));
        }
        for map in frozen.iter().filter(|map| !news.iter().any(|line| line.map == map.map && line.kind == "map-frozen"))
        {
            text.push_str(&format!("map {}: still frozen: {}; {}\n", map.map, map.why.join("; "), map.remedy()));
        }
        if text.is_empty() {
            text = format!("{} fit their tables\n", counted(config.maps.len() as u64, "map", "maps"));
        }
        output::print(&text)?;
    }
    Ok(if frozen.is_empty() { FINE } else { DIFFERENT })
}
