//! `dualwright run`: the two systems of a configuration, kept in step.

use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::session::{self, Phases};
use super::watch::{Bars, Lines};
use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output};
use crate::engine::progress::Watcher;
use crate::engine::runtime::Runtime;
use crate::engine::{EngineError, LiveEnd};

/// Keys of the configuration, for `--help`.
const KEYS: &str = "\
Configuration (TOML; paths are relative to the file):
  tenant = \"default\"              state = \"state\"
  [limits]  transaction_budget_seconds = 120, write_reserve_seconds = 30,
            poll_interval_ms (500, longer for many tables), batch_rows_max = 998,
            initial_sync_concurrency = 4, companies_when_linking_max = 40, companies_live_max = 250,
            clock_skew_max_seconds = 60,
            plugin_threads (one per processor)
  [limits.plugin] what a plugin may use: goal_ms = 500, hard_limit_ms = 2000 (its own time),
                  wall_limit_ms = 20000, call_min_ms = 50, host_call_ms = 5000, memory_mib = 64,
                  table_elements, core_instances, memories, tables, handles, slice_kib = 4096,
                  transfer_in_kib = 8192, transfer_out_kib = 8192, log_lines = 64,
                  log_line_bytes = 1024, log_kib = 64, warm = { idle, transactions, minutes }
  [limits.tenant] what all plugins may use together: memory_mib = 512, instances = 192,
                  calls_in_flight, calls_waiting = 1000
  [link]    slug, companies = [\"usmf\"], conflict_winner = \"finops\"
            finops.url, dataverse.url, and for each .auth = { token_url, client_id,
            client_secret = { env = \"NAME\" }, scope } and .ca_file = \"ca.pem\"
  [[plugin]]      name, file, sha256
  [[map]]         slug, file (msdyn_mapping JSON) or version = \"active\" (see `map import`),
                  integration_key = [\"…\"], finops_collection, companies = [\"usmf\"],
                  unmatched = \"fail\" | \"keep\" | \"clear\",
                  leaving_filter = \"keep\" | \"delete\" | \"detach\",
                  finops_nulls = \"empty-value\" | \"unknown\",
                  lookup_missing = \"hold\" | \"fail\" | \"default\" | \"stub\",
                  drift = { finops and dataverse, each { new, removed, retyped } =
                  \"freeze-essential\" | \"freeze\" | \"notice\" | \"ignore\" }
                  or, computed by a plugin: slug, finops_collection,
                  table_map = { plugin, parameters = { }, on_fault = \"set-aside\" | \"fail\" }
  [[map.lookup]]  field, missing = \"hold\" | \"fail\" | \"default\" | \"stub\", with default:
                  default = { key = \"…\" } or none, with stub: map, columns = { column = \"…\" }
  [[map.table]]   of a table_map: set, integration_key = [\"…\"]
  [[map.plugin]]  name, stage = \"transform\" | \"pre-validate\" | \"post-validate\", field or fields,
                  direction = \"to-dataverse\" | \"to-finops\" | \"both\", parameters = { },
                  before or after = \"default\" | \"value-map\" | \"truncate\" (transforms),
                  on_fault = \"set-aside\" | \"fail\" | \"pass-through\"
`dualwright config schema` prints the same as a JSON Schema, for editors.";

#[derive(Debug, Args)]
#[command(after_long_help = KEYS)]
pub(super) struct RunArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// End when both sides are in step, with a comparison; otherwise go on until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// End with one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: RunArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config(&arguments.config.config)? else { return Ok(MISCONFIGURED) };
    let person = output::is_for_a_person(arguments.json);
    let bars = Arc::new(Bars::new());
    let watcher: Arc<dyn Watcher> = if person { Arc::clone(&bars) as _ } else { Arc::new(Lines::default()) };
    let stop = stop_when_interrupted();
    let engine = tokio::select! {
        engine = session::open_engine_patiently(&config, watcher, arguments.json) => engine?,
        () = stop.cancelled() => return Ok(FINE),
    };
    let Some(engine) = engine else { return Ok(MISCONFIGURED) };
    let end = if arguments.once { LiveEnd::Settled } else { LiveEnd::Never };
    let mut phases = Phases::new();
    let mut runtime = Runtime::new(config, engine);
    let outcome = keep_in_step(&mut runtime, end, &stop, &mut phases).await;
    let engine = runtime.engine();
    bars.clear();
    let code = match outcome {
        Ok(()) => {
            let report = tokio::select! {
                report = session::report(engine, &phases) => report?,
                () = stop.cancelled() => {
                    session::close(engine).await?;
                    return Ok(FINE);
                }
            };
            if arguments.json {
                output::print_json(&report)?;
            } else {
                session::print(&report)?;
            }
            if report.equal && report.failed.is_empty() { FINE } else { DIFFERENT }
        }
        Err(EngineError::Stopped) => {
            if !arguments.json {
                eprintln!("stopped; the state is kept, and the same command goes on from here");
            }
            FINE
        }
        Err(EngineError::Fault(fault)) => {
            eprintln!("error: {fault}\n  {}", fault.code.remedy());
            MISCONFIGURED
        }
    };
    session::close(engine).await?;
    Ok(code)
}

async fn keep_in_step(
    runtime: &mut Runtime,
    end: LiveEnd,
    stop: &CancellationToken,
    phases: &mut Phases,
) -> Result<(), EngineError> {
    let engine = runtime.engine();
    engine.start_feeds().await?;
    engine.initial_sync(stop).await?;
    phases.end("initial sync");
    let outcome = runtime.live(end, stop).await;
    phases.end("live sync");
    outcome
}

/// A token that Ctrl-C or a polite end from outside cancels.
pub(super) fn stop_when_interrupted() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        output::interrupted().await;
        token.cancel();
    });
    stop
}
