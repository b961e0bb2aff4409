//! Both systems as emulators on loopback, a configuration, and the real engine between them, in one process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use dualwright::config::Config;
use dualwright::config::versions::Versions;
use dualwright::engine::prepare::{prepare, prepare_accepting, sandbox};
use dualwright::engine::progress::{Event, Watcher};
use dualwright::engine::runtime::Runtime;
use dualwright::engine::{Engine, LiveEnd};
use dualwright::report::Difference;
use dualwright::store::{Activity, FailedFilter, FailedRecord, Store};
use dualwright_core::SystemKind;
use dualwright_emulator::{Dialect, Emulator, TableDefinition, TableFile, read_tables};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::systems::SystemClient;

/// Longer than anything here takes by far: a story that does not settle fails instead of hanging.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// The maps of the small table set: slug and integration key.
const MAPS: &[(&str, &[&str])] = &[
    ("companies", &["cdm_companycode"]),
    ("currencies", &["isocurrencycode"]),
    ("payment-terms", &["msdyn_company.cdm_companycode", "msdyn_name"]),
    ("customer-groups", &["msdyn_company.cdm_companycode", "msdyn_groupid"]),
    ("customers", &["accountnumber", "msdyn_company.cdm_companycode"]),
];

/// What a test changes of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub companies: Vec<String>,
    /// `finops` or `dataverse`.
    pub conflict_winner: String,
    /// Lines of the `[limits]` table.
    pub limits: Vec<String>,
    /// Slug of a map, and a line of it in the configuration.
    pub map_lines: Vec<(String, String)>,
    /// Slug of a map, and a binding as an inline table.
    pub bindings: Vec<(String, String)>,
    /// Maps that are whichever version of them is active.
    pub versioned: Vec<String>,
    /// Plugins that do not come with the runtime: name and component.
    pub plugins: Vec<(String, Vec<u8>)>,
    /// Only these maps; empty for all.
    pub maps: Vec<String>,
    /// Tables that are not in the small set, or stand for the ones there.
    pub tables: Vec<(SystemKind, TableDefinition)>,
    /// More of the configuration, as it is written.
    pub config: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            companies: vec!["usmf".to_owned(), "demf".to_owned()],
            conflict_winner: "finops".to_owned(),
            limits: vec!["poll_interval_ms = 10".to_owned()],
            map_lines: Vec::new(),
            bindings: Vec::new(),
            versioned: Vec::new(),
            plugins: Vec::new(),
            maps: Vec::new(),
            tables: Vec::new(),
            config: String::new(),
        }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/small")
}

fn map_file(slug: &str) -> PathBuf {
    fixtures().join(format!("maps/{slug}.json"))
}

/// The tables of one side.
pub fn tables(kind: SystemKind) -> anyhow::Result<TableFile> {
    let file = fixtures().join(format!("{kind}.json"));
    let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    read_tables(&text)
}

#[must_use]
pub const fn dialect(kind: SystemKind) -> Dialect {
    match kind {
        SystemKind::Finops => Dialect::Finops,
        SystemKind::Dataverse => Dialect::Dataverse,
    }
}

/// Writes `dualwright.toml` into `folder` and names it.
pub fn write_config(folder: &Path, settings: &Settings, finops: &str, dataverse: &str) -> anyhow::Result<PathBuf> {
    let mut text = String::from("tenant = \"default\"\nstate = \"state\"\n");
    if !settings.limits.is_empty() {
        text.push_str(&format!("\n[limits]\n{}\n", settings.limits.join("\n")));
    }
    text.push_str(&format!(
        "\n[link]\nslug = \"small\"\ncompanies = {:?}\nconflict_winner = \"{}\"\nfinops.url = \"{finops}\"\n\
         dataverse.url = \"{dataverse}\"\n",
        settings.companies, settings.conflict_winner
    ));
    for (name, component) in &settings.plugins {
        let file = folder.join(format!("{name}.wasm"));
        std::fs::write(&file, component)?;
        text.push_str(&format!("\n[[plugin]]\nname = \"{name}\"\nfile = {:?}\n", file.display().to_string()));
    }
    let wanted = |slug: &str| settings.maps.is_empty() || settings.maps.iter().any(|map| map == slug);
    for (slug, key) in MAPS.iter().filter(|(slug, _)| wanted(slug)) {
        let source = match settings.versioned.iter().any(|own| own == slug) {
            true => "version = \"active\"".to_owned(),
            false => format!("file = {:?}", map_file(slug).display().to_string()),
        };
        text.push_str(&format!("\n[[map]]\nslug = \"{slug}\"\n{source}\nintegration_key = {key:?}\n"));
        for (_, line) in settings.map_lines.iter().filter(|(map, _)| map == slug) {
            text.push_str(line);
            text.push('\n');
        }
        let bindings = settings.bindings.iter().filter(|(map, _)| map == slug).map(|(_, binding)| binding.as_str());
        let bindings = bindings.collect::<Vec<_>>();
        if !bindings.is_empty() {
            text.push_str(&format!("plugin = [{}]\n", bindings.join(", ")));
        }
    }
    text.push_str(&settings.config);
    let file = folder.join("dualwright.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// One emulator that serves in this process.
pub struct Served {
    pub emulator: Emulator,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Served {
    /// Tables and no rows; in memory, or in a file that may have been used before.
    pub async fn start(kind: SystemKind, store: Option<&Path>) -> anyhow::Result<(Self, SystemClient)> {
        Self::start_with(kind, store, tables(kind)?.tables).await
    }

    /// The same with these tables.
    pub async fn start_with(
        kind: SystemKind,
        store: Option<&Path>,
        tables: Vec<TableDefinition>,
    ) -> anyhow::Result<(Self, SystemClient)> {
        let emulator = Emulator::open(dialect(kind), store)?;
        emulator.define(&tables)?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let (serving, stopped) = (emulator.clone(), stop.clone());
        let task = tokio::spawn(async move { serving.serve(listener, stopped.cancelled_owned()).await });
        Ok((Self { emulator, stop, task }, SystemClient::new(kind, base, &tables)?))
    }

    pub async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await?
    }
}

/// The engine of a configuration file, on the state that the file names. All problems are in the error.
pub async fn open_engine(file: &Path, watcher: Arc<dyn Watcher>) -> anyhow::Result<Engine> {
    Ok(open_with_config(file, watcher).await?.1)
}

async fn open_with_config(file: &Path, watcher: Arc<dyn Watcher>) -> anyhow::Result<(Config, Engine)> {
    fn listed<T: ToString>(problems: &[T]) -> String {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
    let config = match Config::read(file, &|_| None) {
        Ok(config) => config,
        Err(problems) => bail!("the configuration is refused:\n{}", listed(&problems)),
    };
    let store = Store::open(&config.state)?;
    match prepare(&config, store).await {
        Ok(prepared) => Ok((config, Engine::new(Arc::new(prepared.link), watcher))),
        Err(problems) => bail!("the link cannot start:\n{}", listed(&problems)),
    }
}

/// What the engine says while it works; shown when a story fails.
#[derive(Default)]
pub struct Heard(Mutex<Vec<String>>);

impl Heard {
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watcher for Heard {
    fn event(&self, event: Event) {
        // The first ones tell the story; a test that retries for ever must not fill the memory.
        const LINES_MAX: usize = 200;
        if let Event::Notice(text) = event {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() < LINES_MAX {
                lines.push(text);
            }
        }
    }
}

pub struct World {
    pub finops: SystemClient,
    pub dataverse: SystemClient,
    pub heard: Arc<Heard>,
    settings: Settings,
    runtime: Option<Runtime>,
    systems: [Served; 2],
    folder: TempDir,
}

impl World {
    /// Both systems, with their tables and no rows.
    pub async fn new(settings: Settings) -> anyhow::Result<Self> {
        let defined = |kind: SystemKind| -> anyhow::Result<Vec<TableDefinition>> {
            let own = settings.tables.iter().filter(|(own, _)| *own == kind).map(|(_, table)| table.clone());
            let mut defined = tables(kind)?.tables;
            defined.retain(|table| !settings.tables.iter().any(|(_, own)| own.set == table.set));
            defined.extend(own);
            Ok(defined)
        };
        let (left, finops) = Served::start_with(SystemKind::Finops, None, defined(SystemKind::Finops)?).await?;
        let (right, dataverse) =
            Served::start_with(SystemKind::Dataverse, None, defined(SystemKind::Dataverse)?).await?;
        Ok(Self {
            finops,
            dataverse,
            heard: Arc::default(),
            settings,
            runtime: None,
            systems: [left, right],
            folder: TempDir::new()?,
        })
    }

    #[must_use]
    pub const fn system(&self, kind: SystemKind) -> &SystemClient {
        match kind {
            SystemKind::Finops => &self.finops,
            SystemKind::Dataverse => &self.dataverse,
        }
    }

    /// The emulator behind a system, for rows in bulk.
    #[must_use]
    pub const fn emulator(&self, kind: SystemKind) -> &Emulator {
        match kind {
            SystemKind::Finops => &self.systems[0].emulator,
            SystemKind::Dataverse => &self.systems[1].emulator,
        }
    }

    pub const fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Opens the runtime on its state: at first a new one, later the one that was left.
    pub async fn open(&mut self) -> anyhow::Result<()> {
        self.close().await;
        let file = self.configure()?;
        let (config, engine) = open_with_config(&file, Arc::clone(&self.heard) as _).await?;
        self.runtime = Some(Runtime::new(config, engine));
        Ok(())
    }

    /// Writes the configuration, as it is before a start.
    pub fn configure(&self) -> anyhow::Result<PathBuf> {
        write_config(self.folder.path(), &self.settings, &self.finops.base, &self.dataverse.base)
    }

    /// Ends the runtime politely; its state stays.
    pub async fn close(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.engine().link().store.close().await;
        }
    }

    fn engine(&self) -> anyhow::Result<&Engine> {
        Ok(self.runtime.as_ref().context("the runtime is not open: `start` is missing")?.engine())
    }

    /// The versions of a map, where the runtime looks for them.
    #[must_use]
    pub fn versions(&self, map: &str) -> Versions {
        Versions::of(&self.folder.path().join("state"), map)
    }

    /// The text of a map as the fixtures have it.
    pub fn map_text(map: &str) -> anyhow::Result<String> {
        let file = map_file(map);
        std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))
    }

    /// The configuration as it was written at the last start.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("dualwright.toml")
    }

    /// Feeds, initial sync, and live sync until nothing is left to do.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.open().await?;
        let stop = CancellationToken::new();
        let engine = self.engine()?;
        engine.start_feeds().await?;
        tokio::time::timeout(SETTLED_WITHIN, engine.initial_sync(&stop))
            .await
            .context("initial sync does not end")??;
        self.settle().await
    }

    /// Live sync until both feeds are at their end and nothing waits.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        let runtime = self.runtime.as_mut().context("the runtime is not open: `start` is missing")?;
        let stop = CancellationToken::new();
        let live = runtime.live(LiveEnd::Settled, &stop);
        let heard = &self.heard;
        tokio::time::timeout(SETTLED_WITHIN, live)
            .await
            .with_context(|| format!("nothing settles; the engine said:\n{}", heard.lines().join("\n")))??;
        Ok(())
    }

    pub async fn failed(&self) -> anyhow::Result<Vec<FailedRecord>> {
        let link = self.engine()?.link();
        Ok(link.store.failed(&link.scope, FailedFilter::default()).await?)
    }

    /// The newest lines of the activity log.
    pub async fn activity(&self) -> anyhow::Result<Vec<Activity>> {
        const LINES: u32 = 100;
        let link = self.engine()?.link();
        Ok(link.store.activity(&link.scope, LINES).await?)
    }

    /// Where plugins were called, as far as the store knows.
    pub async fn timed_places(&self) -> anyhow::Result<Vec<String>> {
        let link = self.engine()?.link();
        Ok(link.store.plugin_timings(&link.scope).await?.into_iter().map(|(place, _)| place).collect())
    }

    /// How often a plugin was called by the runtime that is open.
    pub fn calls(&self, plugin: &str) -> anyhow::Result<u64> {
        let timings = self.engine()?.plugin_timings();
        Ok(timings.iter().filter(|timing| timing.plugin == plugin).map(|timing| timing.calls).sum())
    }

    /// What `dualwright map refresh` does, beside the runtime: the lines that it prints.
    pub async fn refresh(&self, accepted: &[&str]) -> anyhow::Result<Vec<String>> {
        let config =
            Config::read(&self.config_file(), &|_| None).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let store = Store::open_beside(&config.state)?;
        let accepted = accepted.iter().map(|slug| (*slug).to_owned()).collect();
        let prepared = prepare_accepting(&config, store.clone(), sandbox(&config)?, &accepted).await;
        store.close().await;
        let prepared = prepared.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        Ok(prepared.news.into_iter().map(|news| format!("{} {} {}", news.kind, news.map, news.text)).collect())
    }

    /// Puts failed records into the outbox again.
    pub async fn retry(&self, ids: &[i64]) -> anyhow::Result<()> {
        let link = self.engine()?.link();
        link.store.requeue(&link.scope, ids, dualwright::engine::now_micros()).await?;
        Ok(())
    }

    pub async fn compare(&self) -> anyhow::Result<Vec<Difference>> {
        Ok(self.engine()?.compare().await?)
    }

    /// Ends everything that was started here.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.close().await;
        for served in self.systems {
            served.end().await?;
        }
        Ok(())
    }
}
