//! What `run`, `compare` and `demo` share: from a configuration file to an engine, and from an engine to a report.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualwright_core::SystemKind;

use super::output::counted;
use crate::config::Config;
use crate::engine::progress::{Event, Watcher};
use crate::engine::{Engine, EngineError, prepare};
use crate::report::{Difference, FailedReport, MapReport, RunReport, direction};
use crate::store::{Counts, FailedFilter, FailedRecord, Store};

/// Reads a configuration; its problems are printed, all of them.
pub(super) fn read_config(path: &Path) -> anyhow::Result<Option<Config>> {
    read_config_with(path, &|name| std::env::var(name).ok())
}

/// The same for commands that talk to neither system: whoever looks at the state needs no secret for it.
pub(super) fn read_config_without_secrets(path: &Path) -> anyhow::Result<Option<Config>> {
    read_config_with(path, &|_| Some(String::new()))
}

/// The same for commands that must work without secrets, and do more with them.
pub(super) fn read_config_with_the_secrets_there_are(path: &Path) -> anyhow::Result<Option<Config>> {
    read_config_with(path, &|name| Some(std::env::var(name).unwrap_or_default()))
}

fn read_config_with(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Config>> {
    match Config::read(path, environment) {
        Ok(config) => Ok(Some(config)),
        Err(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            eprintln!("{}; nothing was started", counted(problems.len() as u64, "problem", "problems"));
            Ok(None)
        }
    }
}

/// Opens the store and raises the link; problems are printed, all of them.
pub(super) async fn open_engine(
    config: &Config,
    watcher: Arc<dyn Watcher>,
    quiet: bool,
) -> anyhow::Result<Option<Engine>> {
    open_engine_within(config, watcher, quiet, 1).await
}

/// The same for a runtime that is started beside its systems, or again after all of them broke down: as long as one
/// of them does not answer, it is tried again.
pub(super) async fn open_engine_patiently(
    config: &Config,
    watcher: Arc<dyn Watcher>,
    quiet: bool,
) -> anyhow::Result<Option<Engine>> {
    // With the waits between, about a minute and a half.
    const ATTEMPTS_MAX: u32 = 10;
    open_engine_within(config, watcher, quiet, ATTEMPTS_MAX).await
}

async fn open_engine_within(
    config: &Config,
    watcher: Arc<dyn Watcher>,
    quiet: bool,
    attempts_max: u32,
) -> anyhow::Result<Option<Engine>> {
    let store = Store::open(&config.state)?;
    let mut attempt = 1;
    let prepared = loop {
        match prepare::prepare(config, store.clone()).await {
            Err(problems) if attempt < attempts_max && problems.iter().any(|problem| problem.is_passing) => {
                const LONGEST: Duration = Duration::from_secs(30);
                let wait = Duration::from_millis(100).saturating_mul(1 << attempt).min(LONGEST);
                let why = problems.iter().find(|problem| problem.is_passing).map_or("", |problem| &problem.message);
                watcher.event(Event::Notice(format!("{why}; next attempt in {:.1} s", wait.as_secs_f64())));
                tokio::time::sleep(wait).await;
                attempt += 1;
            }
            prepared => break prepared,
        }
    };
    match prepared {
        Ok(prepared) => {
            if !quiet {
                for notice in &prepared.notices {
                    tracing::info!("{notice}");
                }
            }
            Ok(Some(Engine::new(Arc::new(prepared.link), watcher)))
        }
        Err(problems) => {
            for problem in problems.iter().filter(|problem| problem.is_error) {
                eprintln!("{problem}");
            }
            let errors = problems.iter().filter(|problem| problem.is_error).count();
            eprintln!("{}; nothing was started", counted(errors as u64, "problem", "problems"));
            Ok(None)
        }
    }
}

/// Seconds per phase.
#[derive(Debug)]
pub(super) struct Phases {
    started: Instant,
    pub seconds: BTreeMap<String, f64>,
}

impl Phases {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), seconds: BTreeMap::new() }
    }

    /// Ends the phase that is running and begins the next one.
    pub(super) fn end(&mut self, name: &str) {
        *self.seconds.entry(name.to_owned()).or_default() += self.started.elapsed().as_secs_f64();
        self.started = Instant::now();
    }
}

/// The whole report, with a comparison of both sides.
pub(super) async fn report(engine: &Engine, phases: &Phases) -> Result<RunReport, EngineError> {
    let differences: Vec<Difference> = engine.compare().await?;
    let link = engine.link();
    let maps = maps(&link.store, engine).await?;
    Ok(RunReport {
        equal: differences.is_empty(),
        maps,
        plugins: engine.plugin_timings(),
        differences,
        failed: failed(engine).await?,
        seconds: phases.seconds.clone(),
    })
}

async fn maps(store: &Store, engine: &Engine) -> Result<Vec<MapReport>, EngineError> {
    let link = engine.link();
    let counts = store.counts(&link.scope).await?;
    let mut reports = Vec::new();
    for map in &link.maps {
        for (slug, source, counts) in counts.iter().filter(|(slug, ..)| **slug == *map.slug) {
            let filter = FailedFilter { map: Some(map.slug.clone()), source: Some(*source), ..FailedFilter::default() };
            // What failed once and got through later is not failed any more.
            let failed = store.failed_count(&link.scope, filter).await?;
            reports.push(MapReport { failed, ..map_report(slug, *source, counts) });
        }
    }
    Ok(reports)
}

pub(super) fn map_report(slug: &str, source: SystemKind, counts: &Counts) -> MapReport {
    MapReport {
        map: slug.to_owned(),
        direction: direction(source),
        rows: counts.rows,
        created: counts.created,
        updated: counts.updated,
        deleted: counts.deleted,
        skipped: counts.skipped,
        failed: counts.failed,
    }
}

async fn failed(engine: &Engine) -> Result<Vec<FailedReport>, EngineError> {
    let link = engine.link();
    let records = link.store.failed(&link.scope, FailedFilter::default()).await?;
    Ok(records.into_iter().map(failed_report).collect())
}

pub(super) fn failed_report(record: FailedRecord) -> FailedReport {
    FailedReport {
        id: record.id,
        map: record.map.to_string(),
        direction: direction(record.source),
        key: record.key,
        code: record.fault.code.to_string(),
        column: record.fault.column,
        foreign_code: record.fault.foreign_code,
        reason: record.fault.message,
        remedy: record.fault.code.remedy().to_owned(),
        attempts: record.attempts,
    }
}

/// Prints a report as a page.
pub(super) fn print(report: &RunReport) -> anyhow::Result<()> {
    use crate::report::{differences_text, failed_text, maps_text, plugins_text};
    super::output::print(&format!(
        "\nMaps\n{}\nPlugins\n{}\nRejected records\n{}\nBoth sides compared\n{}\n",
        maps_text(&report.maps),
        plugins_text(&report.plugins),
        failed_text(&report.failed, super::output::width()),
        differences_text(&report.differences)
    ))
}

/// Keeps the timings for `status`, and closes the store.
pub(super) async fn close(engine: &Engine) -> anyhow::Result<()> {
    engine.keep_plugin_timings().await?;
    engine.link().store.close().await;
    Ok(())
}
