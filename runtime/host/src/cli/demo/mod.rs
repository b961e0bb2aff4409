//! `dualwright demo`: everything in a minute, with nothing else installed.
//!
//! Starts both systems, loads them, and then does what `dualwright run` does on the configuration that it writes into its
//! state folder; in between it plays the users who edit both sides. Killed at any moment and started again, it goes on.

mod place;
mod systems;
mod users;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use self::place::Place;
use self::systems::Systems;
use super::session::{self, Phases};
use super::watch::{Bars, Lines};
use super::{DIFFERENT, FINE, MISCONFIGURED, output, run};
use crate::demo::{BadRow, DataSource};
use crate::engine::progress::Watcher;
use crate::engine::{Engine, EngineError, LiveEnd};
use crate::report::{RunReport, thousands};

const EXAMPLES: &str = "\
Everything is on this machine, and nothing of it stays but the state folder.

  dualwright demo                               watch it, then look around until Ctrl-C
  dualwright demo --once --json | jq .equal     for a script
  dualwright demo --data adventureworks --state aw   19,820 customers in place of some hundred

Stopped or killed, the same command goes on from where it was. The state folder holds
dualwright.toml and its maps, as a person would write them, and both systems' rows: finops.db and
dataverse.db.

Exit codes: 0 both sides are equal and exactly the bad rows were rejected; 1 anything else was
found; 2 wrong usage, or it could not start.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArguments {
    /// A folder with the AdventureWorks CSV files, with the shipped maps in `maps` in it or beside it; without it, a
    /// small data set that the program brings along.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the state lives. The same folder again goes on from there; a new one starts afresh.
    #[arg(long, value_name = "DIR", default_value = ".dualwright/demo")]
    state: PathBuf,
    /// End after the comparison; otherwise both sides are kept in step until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// End with one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub(super) async fn demo(arguments: DemoArguments) -> anyhow::Result<u8> {
    let say = |text: String| {
        if arguments.json {
            eprintln!("{text}");
        } else {
            // Whoever reads it may have gone; what is shown is a courtesy, the report is not.
            let _ = output::print(&format!("{text}\n"));
        }
    };
    let stop = run::stop_when_interrupted();
    let mut phases = Phases::new();
    let source = match &arguments.data {
        Some(folder) => DataSource::folder(folder)?,
        None => DataSource::embedded()?,
    };
    let mut place = Place::open(&arguments.state, arguments.data.as_deref())?;
    // The systems outlive the engine, so that it can end what it has begun.
    let systems_stop = CancellationToken::new();
    let systems = Systems::start(&mut place, source.tables(), &systems_stop).await?;
    say(format!(
        "F&O on {}, Dataverse on {}, state in {}",
        systems.finops,
        systems.dataverse,
        arguments.state.display()
    ));
    if !place.seeded() {
        let rows = systems.seed(&source)?;
        place.set_seeded()?;
        say(format!("loaded {} rows into F&O, {} of them bad on purpose", thousands(rows), source.bad_rows()?.len()));
    }
    phases.end("load");

    let config = source.write_settings(&arguments.state, &systems.urls())?;
    let Some(config) = session::read_config(&config)? else { return Ok(MISCONFIGURED) };
    let person = output::is_for_a_person(arguments.json);
    let bars = Arc::new(Bars::new());
    let watcher: Arc<dyn Watcher> = if person { Arc::clone(&bars) as _ } else { Arc::new(Lines::default()) };
    let engine = tokio::select! {
        engine = session::open_engine(&config, watcher, arguments.json) => engine?,
        () = stop.cancelled() => {
            eprintln!("stopped; the state is kept in {}", arguments.state.display());
            return Ok(FINE);
        }
    };
    let Some(engine) = engine else { return Ok(MISCONFIGURED) };
    say(format!("{} maps checked, plugins ready", engine.link().maps.len()));
    phases.end("start");

    let shown = show(&arguments, &source, &systems, &mut place, &engine, &mut phases, &stop, &bars, &say).await;
    bars.clear();
    let code = match shown {
        Ok(code) => code,
        Err(Ended::Engine(EngineError::Stopped)) => {
            eprintln!("stopped; the state is kept in {}", arguments.state.display());
            FINE
        }
        Err(Ended::Engine(EngineError::Fault(fault))) => {
            eprintln!("error: {fault}\n  {}", fault.code.remedy());
            MISCONFIGURED
        }
        Err(Ended::Other(error)) => return Err(error),
    };
    session::close(&engine).await?;
    drop(engine);
    systems_stop.cancel();
    systems.ended().await;
    Ok(code)
}

/// What `work` comes to, unless somebody stops the demo before.
async fn until_stopped<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Result<T, EngineError> {
    tokio::select! {
        done = work => Ok(done),
        () = stop.cancelled() => Err(EngineError::Stopped),
    }
}

/// Why the demo ended early.
enum Ended {
    Engine(EngineError),
    Other(anyhow::Error),
}

impl From<EngineError> for Ended {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one procedure, made one after the other")]
async fn show(
    arguments: &DemoArguments,
    source: &DataSource,
    systems: &Systems,
    place: &mut Place,
    engine: &Engine,
    phases: &mut Phases,
    stop: &CancellationToken,
    bars: &Bars,
    say: &(dyn Fn(String) + Sync),
) -> Result<u8, Ended> {
    engine.start_feeds().await?;
    say("initial sync, parents first".to_owned());
    engine.initial_sync(stop).await?;
    phases.end("initial sync");
    engine.live(LiveEnd::Settled, stop).await?;
    phases.end("first live turn");

    // A change set that is cut off may have arrived; the next start finds out.
    let edits = until_stopped(stop, users::play(source, systems, place)).await??;
    if edits > 0 {
        say(format!("{} rows created, changed and deleted on both sides", thousands(edits)));
    }
    phases.end("edits");
    engine.live(LiveEnd::Settled, stop).await?;
    phases.end("live sync");

    let report = until_stopped(stop, session::report(engine, phases)).await??;
    bars.clear();
    let verdict = Verdict::of(&report, &source.bad_rows().map_err(anyhow::Error::from)?);
    if arguments.json {
        output::print_json(&report)?;
    } else {
        session::print(&report)?;
        output::print(&format!("{verdict}\n"))?;
    }
    if arguments.once {
        return Ok(if verdict.is_fine() { FINE } else { DIFFERENT });
    }
    say(format!(
        "both sides are kept in step until Ctrl-C; look at them with\n  curl '{}/data/Currencies'\n  curl '{}/api/data/v9.2/transactioncurrencies'\n  dualwright status --config {}",
        systems.finops,
        systems.dataverse,
        arguments.state.join("dualwright.toml").display()
    ));
    match engine.live(LiveEnd::Never, stop).await {
        Err(EngineError::Stopped) => {
            say(format!("stopped; the state is kept in {}", arguments.state.display()));
            Ok(if verdict.is_fine() { FINE } else { DIFFERENT })
        }
        other => other.map(|()| FINE).map_err(Ended::from),
    }
}

/// Whether the demo ended as it must: both sides equal, and exactly the bad rows rejected, each for its reason.
struct Verdict {
    equal: bool,
    rejected: usize,
    /// Bad rows that went through, or were rejected for another reason.
    missing: Vec<String>,
    /// Good rows that were rejected.
    unexpected: Vec<String>,
}

impl Verdict {
    fn of(report: &RunReport, bad: &[BadRow]) -> Self {
        let wanted =
            bad.iter().map(|row| (row.map.clone(), row.readable_key(), row.code.clone())).collect::<BTreeSet<_>>();
        let found = report
            .failed
            .iter()
            .map(|record| (record.map.clone(), record.key.clone(), record.code.clone()))
            .collect::<BTreeSet<_>>();
        let name = |(map, key, code): &(String, String, String)| format!("{map} {key} {code}");
        Self {
            equal: report.equal,
            rejected: found.len(),
            missing: wanted.difference(&found).map(name).collect(),
            unexpected: found.difference(&wanted).map(name).collect(),
        }
    }

    fn is_fine(&self) -> bool {
        self.equal && self.missing.is_empty() && self.unexpected.is_empty()
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_fine() {
            return write!(f, "equal; exactly the {} bad rows were rejected, each for its reason", self.rejected);
        }
        if !self.equal {
            writeln!(f, "the two sides differ")?;
        }
        for row in &self.missing {
            writeln!(f, "should have been rejected: {row}")?;
        }
        for row in &self.unexpected {
            writeln!(f, "should not have been rejected: {row}")?;
        }
        Ok(())
    }
}
