//! A runtime whose maps may change under it: an engine, and the configuration that it was made of.
//!
//! Which version of a map is active is asked between two transactions. What runs is never edited: another version makes
//! another link, compiled and checked against both systems like at a start, and takes over as a whole or not at all.

use std::sync::Arc;

use dualwright_core::mapping::MapVersion;
use tokio_util::sync::CancellationToken;

use super::live::LivePause;
use super::prepare::{PreparedLink, StartProblem, prepare_with};
use super::progress::Event;
use super::{Engine, EngineError, LiveEnd};
use crate::config::{ActiveVersions, Config};
use crate::store::{NewActivity, Settlement};

/// How long the tables of both systems are left alone when a look at them found nothing: reading them takes some requests
/// per table, and a row may be refused for many reasons.
const LOOKED_AT_AGAIN_AFTER_MICROS: i64 = 60_000_000;

/// How long a system that does not answer is left alone before the other version is tried again.
const TRIED_AGAIN_AFTER_MICROS: i64 = 30_000_000;

/// A link that is kept in step, whatever version of its maps is active.
pub struct Runtime {
    config: Config,
    engine: Engine,
    running: ActiveVersions,
    not_yet: Option<NotYet>,
    /// When the tables were looked at last, because of a doubt.
    looked_at: Option<i64>,
}

/// Versions that could not take over.
struct NotYet {
    versions: ActiveVersions,
    /// `None` when they were refused: then only other ones are tried.
    again_at: Option<i64>,
}

impl Runtime {
    /// Of the configuration that `engine` was made of.
    #[must_use]
    pub fn new(config: Config, engine: Engine) -> Self {
        // What was read, not what is active by now.
        let running = config.versions_read();
        Self { config, engine, running, not_yet: None, looked_at: None }
    }

    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Keeps both sides in step, takes up versions of maps as they are activated, and freezes maps whose tables change.
    pub async fn live(&mut self, end: LiveEnd, stop: &CancellationToken) -> Result<(), EngineError> {
        loop {
            let wanted = || self.wanted(self.config.active_versions()).is_some() || self.is_to_look();
            match self.engine.live_until(end, stop, &wanted).await {
                Ok(LivePause::Settled) => return Ok(()),
                Ok(LivePause::Asked) => {
                    if let Some(wanted) = self.wanted(self.config.active_versions()) {
                        self.take_up(wanted, stop).await?;
                    }
                    if self.is_to_look() {
                        self.look_at_tables(stop).await?;
                    }
                }
                // A feed that cannot be read any more, for instance because its table is gone.
                Err(EngineError::Fault(fault)) => {
                    if !self.look_at_tables(stop).await? {
                        return Err(fault.into());
                    }
                }
                Err(stopped) => return Err(stopped),
            }
        }
    }

    fn is_to_look(&self) -> bool {
        let tables = self.engine.tables();
        let again_at = self.looked_at.map(|at| at.saturating_add(LOOKED_AT_AGAIN_AFTER_MICROS));
        tables.told || (tables.doubtful && again_at.is_none_or(|at| at <= (self.engine.now)()))
    }

    /// Reads the tables of both systems again. Whether the runtime goes on with other maps, or other fields, than before.
    async fn look_at_tables(&mut self, stop: &CancellationToken) -> Result<bool, EngineError> {
        self.looked_at = Some((self.engine.now)());
        let told = {
            let mut tables = self.engine.tables();
            tables.doubtful = false;
            std::mem::take(&mut tables.told)
        };
        let link = &self.engine.link;
        let config = self.config.with_versions(&self.running);
        match prepare_with(&config, link.store.clone(), link.sandbox.clone()).await {
            Ok(prepared) if told || !prepared.news.is_empty() || prepared.link.frozen != link.frozen => {
                for news in &prepared.news {
                    self.engine.watcher.event(Event::Notice(format!("map {}: {}", news.map, news.text)));
                }
                self.engine = self.engine.succeeded_by(Arc::new(prepared.link));
                self.engine.start_feeds().await?;
                self.engine.initial_sync(stop).await?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(problems) => {
                let notice = format!("the tables could not be looked at: {}", reasons(&problems));
                self.engine.watcher.event(Event::Notice(notice));
                Ok(false)
            }
        }
    }

    /// These versions, when they are others than those that run and may be tried now.
    fn wanted(&self, mut active: ActiveVersions) -> Option<ActiveVersions> {
        // A pointer that is gone says nothing of what is to run.
        for (map, version) in &mut active {
            *version = version.or_else(|| self.running.get(map).copied().flatten());
        }
        let not_yet = self.not_yet.as_ref().filter(|not_yet| not_yet.versions == active);
        let waits = not_yet.is_some_and(|not_yet| not_yet.again_at.is_none_or(|at| (self.engine.now)() < at));
        (active != self.running && !waits).then_some(active)
    }

    async fn take_up(&mut self, wanted: ActiveVersions, stop: &CancellationToken) -> Result<(), EngineError> {
        let link = &self.engine.link;
        let config = self.config.with_versions(&wanted);
        match prepare_with(&config, link.store.clone(), link.sandbox.clone()).await {
            Ok(prepared) => self.go_on_with(prepared, wanted, stop).await,
            Err(problems) if problems.iter().any(|problem| problem.is_passing) => {
                let why = problems.iter().find(|problem| problem.is_passing).map_or("", |problem| &problem.message);
                let notice = format!("another version of a map waits to be taken up: {why}");
                self.engine.watcher.event(Event::Notice(notice));
                let again_at = Some((self.engine.now)().saturating_add(TRIED_AGAIN_AFTER_MICROS));
                self.not_yet = Some(NotYet { versions: wanted, again_at });
                Ok(())
            }
            Err(problems) => {
                let why = reasons(&problems);
                let lines = self.changed(&wanted).into_iter().map(|(map, before, after)| {
                    let text = format!(
                        "version {} is not taken up, and {} runs on: {why}; import a corrected text under another \
                         version, and activate that",
                        named(after),
                        named(before)
                    );
                    (map, "version-refused", text)
                });
                let lines = lines.collect::<Vec<_>>();
                self.log(lines).await?;
                self.not_yet = Some(NotYet { versions: wanted, again_at: None });
                Ok(())
            }
        }
    }

    async fn go_on_with(
        &mut self,
        prepared: PreparedLink,
        wanted: ActiveVersions,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        let engine = self.engine.succeeded_by(Arc::new(prepared.link));
        // Columns that only the other version reads are captured from here on, a direction that is new to a map too.
        engine.start_feeds().await?;
        let lines = self
            .changed(&wanted)
            .into_iter()
            .map(|(map, before, after)| {
                let text = format!("version {} runs from here on, after {}", named(after), named(before));
                (map, "version-taken-up", text)
            })
            .collect::<Vec<_>>();
        self.engine = engine;
        self.running = wanted;
        self.not_yet = None;
        self.log(lines).await?;
        // Nothing is left to do where a map has had it; a map that went one way only may never have had it.
        self.engine.initial_sync(stop).await
    }

    /// The maps whose version is another one, with both versions.
    fn changed(&self, wanted: &ActiveVersions) -> Vec<(Arc<str>, Option<MapVersion>, Option<MapVersion>)> {
        let versions = wanted.iter().map(|(map, after)| (map, self.running.get(map).copied().flatten(), *after));
        let changed = versions.filter(|(_, before, after)| before != after);
        changed.map(|(map, before, after)| (Arc::from(map.as_str()), before, after)).collect()
    }

    async fn log(&self, lines: Vec<(Arc<str>, &'static str, String)>) -> Result<(), EngineError> {
        let at = (self.engine.now)();
        let activity = lines.into_iter().map(|(map, kind, text)| {
            self.engine.watcher.event(Event::Notice(format!("map {map}: {text}")));
            NewActivity { at, map: Some(map), kind, text }
        });
        let settlement = Settlement { activity: activity.collect(), ..Settlement::default() };
        Ok(self.engine.link.store.settle(&self.engine.link.scope, settlement).await?)
    }
}

fn named(version: Option<MapVersion>) -> String {
    version.map_or_else(|| "none".to_owned(), |version| version.to_string())
}

/// Everything that is wrong, in one line of the activity log.
fn reasons(problems: &[StartProblem]) -> String {
    // The rest is what `map check` is for.
    const SHOWN_MAX: usize = 5;
    let errors = problems.iter().filter(|problem| problem.is_error).collect::<Vec<_>>();
    let shown = errors.iter().take(SHOWN_MAX).map(|problem| format!("{}: {}", problem.place, problem.message));
    let more = match errors.len().saturating_sub(SHOWN_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("{}{more}", shown.collect::<Vec<_>>().join("; "))
}
