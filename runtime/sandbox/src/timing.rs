//! Where the time of a call goes: marshalling, guest and host calls are booked apart, so that an author can see which
//! of them is theirs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::plugin::ExtensionPoint;

/// What is happening at a moment of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Building and checking buffers, and copying them in and out.
    Marshalling,
    Guest,
    HostCall,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spans {
    pub marshalling: Duration,
    pub guest: Duration,
    pub host_call: Duration,
}

impl Spans {
    /// What a plugin is judged by.
    pub fn own(&self) -> Duration {
        self.guest + self.host_call
    }

    pub fn add(&mut self, other: Self) {
        self.marshalling += other.marshalling;
        self.guest += other.guest;
        self.host_call += other.host_call;
    }
}

/// A stopwatch with one lap per phase.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    mark: Instant,
    phase: Phase,
    spans: Spans,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { mark: Instant::now(), phase: Phase::Marshalling, spans: Spans::default() }
    }

    /// Forgets the time since the last event.
    pub fn restart(&mut self) {
        *self = Self::start();
    }

    pub fn enter(&mut self, phase: Phase) {
        let now = Instant::now();
        let elapsed = now - self.mark;
        match self.phase {
            Phase::Marshalling => self.spans.marshalling += elapsed,
            Phase::Guest => self.spans.guest += elapsed,
            Phase::HostCall => self.spans.host_call += elapsed,
        }
        self.mark = now;
        self.phase = phase;
    }

    /// Takes time back from the guest in which its thread was kept from running.
    pub fn forgive(&mut self, starved: Duration) {
        self.spans.guest = self.spans.guest.saturating_sub(starved);
    }

    /// What was booked since the start or the last call of this, and starts anew.
    pub fn take(&mut self) -> Spans {
        self.enter(Phase::Marshalling);
        std::mem::take(&mut self.spans)
    }
}

/// What is known of one plugin at one extension point, since the sandbox was made.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PluginTiming {
    pub plugin: String,
    pub version: String,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    pub point: ExtensionPoint,
    /// Calls of the host; one that was sliced counts once.
    pub calls: u64,
    pub rows: u64,
    /// Guest time and its host calls, per call.
    pub p50_micros: u64,
    pub p95_micros: u64,
    pub p99_micros: u64,
    pub max_micros: u64,
    /// Sums over all calls.
    pub guest_micros: u64,
    pub host_call_micros: u64,
    pub marshalling_micros: u64,
    /// Fresh instances, and the time to make and configure them.
    pub instances: u64,
    pub setup_micros: u64,
    /// The largest part of one transaction's budget that this plugin used, from 0 to 1.
    pub budget_share_max: f64,
    /// Transactions in which the plugin took longer than the goal.
    pub over_goal: u64,
    /// Traps, timeouts, exceeded limits, invalid answers and reported failures.
    pub faults: u64,
    pub memory_peak_bytes: u64,
    /// Instructions of all calls, and of making and configuring instances, where the engine counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup_fuel: Option<u64>,
}

/// The figures of one plugin. Shared by everything that calls it.
#[derive(Debug)]
pub(crate) struct Record {
    plugin: String,
    version: String,
    digest: String,
    points: Mutex<BTreeMap<ExtensionPoint, Figures>>,
}

#[derive(Debug)]
struct Figures {
    calls: u64,
    rows: u64,
    own_micros: Histogram<u64>,
    spans: Spans,
    instances: u64,
    setup: Duration,
    budget_share_max: f64,
    over_goal: u64,
    faults: u64,
    memory_peak_bytes: usize,
    fuel: Option<u64>,
    setup_fuel: Option<u64>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            calls: 0,
            rows: 0,
            // Two significant digits up to ten minutes, which no call can exceed: about 15 KiB.
            own_micros: Histogram::new_with_bounds(1, 600_000_000, 2).expect("the bounds are in order"),
            spans: Spans::default(),
            instances: 0,
            setup: Duration::ZERO,
            budget_share_max: 0.0,
            over_goal: 0,
            faults: 0,
            memory_peak_bytes: 0,
            fuel: None,
            setup_fuel: None,
        }
    }
}

/// What one call of the host came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CallFigures {
    pub rows: usize,
    pub spans: Spans,
    pub memory_bytes: usize,
    pub is_fault: bool,
    pub fuel: Option<u64>,
}

fn add_fuel(sum: &mut Option<u64>, fuel: Option<u64>) {
    if let Some(fuel) = fuel {
        *sum = Some(sum.unwrap_or(0).saturating_add(fuel));
    }
}

impl Record {
    pub fn new(plugin: &str, version: &str, digest: &str) -> Arc<Self> {
        Arc::new(Self {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            digest: digest.to_owned(),
            points: Mutex::default(),
        })
    }

    pub fn is_of(&self, plugin: &str, digest: &str) -> bool {
        self.plugin == plugin && self.digest == digest
    }

    fn with(&self, point: ExtensionPoint, change: impl FnOnce(&mut Figures)) {
        // Figures stay usable whatever happened to another thread.
        change(self.points.lock().unwrap_or_else(PoisonError::into_inner).entry(point).or_default());
    }

    pub fn call(&self, point: ExtensionPoint, call: &CallFigures) {
        self.with(point, |figures| {
            figures.calls += 1;
            figures.rows += call.rows as u64;
            let micros = u64::try_from(call.spans.own().as_micros()).unwrap_or(u64::MAX);
            figures.own_micros.saturating_record(micros);
            figures.spans.add(call.spans);
            figures.faults += u64::from(call.is_fault);
            figures.memory_peak_bytes = figures.memory_peak_bytes.max(call.memory_bytes);
            add_fuel(&mut figures.fuel, call.fuel);
        });
    }

    pub fn instance(&self, point: ExtensionPoint, setup: Duration, fuel: Option<u64>) {
        self.with(point, |figures| {
            figures.instances += 1;
            figures.setup += setup;
            add_fuel(&mut figures.setup_fuel, fuel);
        });
    }

    pub fn transaction(&self, point: ExtensionPoint, budget_share: f64, over_goal: bool) {
        self.with(point, |figures| {
            figures.budget_share_max = figures.budget_share_max.max(budget_share);
            figures.over_goal += u64::from(over_goal);
        });
    }

    pub fn timings(&self) -> Vec<PluginTiming> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.points
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(&point, figures)| PluginTiming {
                plugin: self.plugin.clone(),
                version: self.version.clone(),
                digest: self.digest.clone(),
                point,
                calls: figures.calls,
                rows: figures.rows,
                p50_micros: figures.own_micros.value_at_quantile(0.5),
                p95_micros: figures.own_micros.value_at_quantile(0.95),
                p99_micros: figures.own_micros.value_at_quantile(0.99),
                max_micros: figures.own_micros.max(),
                guest_micros: micros(figures.spans.guest),
                host_call_micros: micros(figures.spans.host_call),
                marshalling_micros: micros(figures.spans.marshalling),
                instances: figures.instances,
                setup_micros: micros(figures.setup),
                budget_share_max: figures.budget_share_max,
                over_goal: figures.over_goal,
                faults: figures.faults,
                memory_peak_bytes: figures.memory_peak_bytes as u64,
                fuel: figures.fuel,
                setup_fuel: figures.setup_fuel,
            })
            .collect()
    }
}
