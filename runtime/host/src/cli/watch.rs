//! What a person sees while the work goes on: a bar per map with rows, rows per second and the time left; plain lines
//! where standard error is not a terminal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use crate::engine::progress::{Event, Watcher};
use crate::report::thousands;

/// Draws bars.
pub(super) struct Bars {
    all: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    maps: HashMap<Arc<str>, ProgressBar>,
    live: Option<ProgressBar>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { all: MultiProgress::new(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the live line away, so that what is printed next stands alone.
    pub(super) fn clear(&self) {
        if let Some(live) = self.state().live.take() {
            live.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━╌")
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{} rows/s", thousands(state.per_sec() as u64));
        })
}

impl Watcher for Bars {
    fn event(&self, event: Event) {
        let mut state = self.state();
        match event {
            Event::MapStarted { map, rows_expected } => {
                let bar = match rows_expected {
                    Some(rows) => ProgressBar::new(rows).with_style(style(
                        "  {prefix:<30!} {bar:28} {human_pos:>9} of {human_len:<9} {rate:>14}  {eta:>4} left",
                    )),
                    None => {
                        ProgressBar::no_length().with_style(style("  {prefix:<30!} {human_pos:>9} rows {rate:>14}"))
                    }
                };
                let bar = self.all.add(bar.with_prefix(map.to_string()));
                bar.tick();
                state.maps.insert(map, bar);
            }
            Event::RowsDone { map, rows } => {
                if let Some(bar) = state.maps.get(&map) {
                    bar.inc(rows);
                }
            }
            Event::MapFinished { map } => {
                if let Some(bar) = state.maps.remove(&map) {
                    bar.set_style(style("  {prefix:<30!} {bar:28} {human_pos:>9} rows in {elapsed}"));
                    bar.set_length(bar.position());
                    bar.finish();
                }
            }
            Event::Captured { rows } => {
                let all = self.all.clone();
                let live = state.live.get_or_insert_with(|| {
                    let bar = ProgressBar::new(0)
                        .with_style(style("  {prefix:<30!} {bar:28} {human_pos:>9} of {human_len:<9} {rate:>14}"))
                        .with_prefix("live sync");
                    let bar = all.add(bar);
                    bar.enable_steady_tick(Duration::from_millis(200));
                    bar
                });
                live.inc_length(rows);
            }
            Event::Settled { rows } => {
                if let Some(live) = &state.live {
                    live.inc(rows);
                }
            }
            Event::Notice(text) => {
                let _ = self.all.println(format!("  {text}"));
            }
        }
    }
}

/// Writes a line where something begins or ends.
#[derive(Default)]
pub(super) struct Lines {
    rows: Mutex<HashMap<Arc<str>, u64>>,
}

impl Watcher for Lines {
    fn event(&self, event: Event) {
        let mut rows_done = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::MapStarted { map, .. } => {
                rows_done.insert(map, 0);
            }
            Event::RowsDone { map, rows } => *rows_done.entry(map).or_default() += rows,
            Event::MapFinished { map } => {
                let rows = rows_done.remove(&map).unwrap_or_default();
                eprintln!("initial sync of {map}: {} rows", thousands(rows));
            }
            Event::Notice(text) => eprintln!("{text}"),
            Event::Captured { .. } | Event::Settled { .. } => {}
        }
    }
}
