//! One instance in its store: armed, entered, timed, and judged when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualwright_core::{Fault, error::Code};
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{CallHook, Store, Trap, UpdateDeadline, WasmBacktrace};

use crate::bindings::log;
use crate::checked::printable;
use crate::limits::{Limits, Refused, TenantMemory};
use crate::sandbox::{SandboxSettings, TICK, Ticker};
use crate::timing::{Phase, Stopwatch};

/// Lines per call and bytes of each, as `wit/log` promises.
const LOG_LINES_MAX: u32 = 64;
const LOG_LINE_BYTES_MAX: usize = 1024;
/// Log of one instance, so of one transaction.
const LOG_BYTES_MAX: usize = 64 * 1024;
/// Handles that a guest can hold; ours needs none.
const HANDLES_MAX: usize = 1_000;
/// A guest whose thread ran less than this part of the wall time was starved by others.
const STARVED_BELOW: f64 = 0.6;

/// Who is called, for messages and the log.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    /// `plugin text-cleanup 1.0.0 (map customers, transform NAME)`
    pub plugin: Arc<str>,
    /// The transaction, or what is being done instead.
    pub transaction: Arc<str>,
}

/// What a store holds.
pub(crate) struct GuestState {
    pub limits: Limits,
    pub stopwatch: Stopwatch,
    label: Label,
    deadline: Deadline,
    transfer_bytes_max: usize,
    log_lines: u32,
    log_bytes: usize,
    log_dropped: u32,
}

/// When a call ends, in ticks of the epoch. The way there has two halves: at the first one it is noted how much the
/// thread has run, at the second one a guest that was starved gets one more half.
#[derive(Debug, Default)]
struct Deadline {
    half_ticks: u64,
    /// Whether the limit is the plugin's own or what the transaction has left; nobody extends the latter.
    from_budget: bool,
    limit: Duration,
    fair: bool,
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    FirstHalf,
    SecondHalf(Option<(Instant, Duration)>),
    Extended,
}

impl Deadline {
    fn reached(&mut self) -> UpdateDeadline {
        match self.stage {
            Stage::FirstHalf => {
                let ran = if self.fair { thread_cpu_time() } else { None };
                self.stage = Stage::SecondHalf(ran.map(|ran| (Instant::now(), ran)));
                UpdateDeadline::Continue(self.half_ticks)
            }
            Stage::SecondHalf(Some((since, ran_before))) if !self.from_budget && starved(since, ran_before) => {
                tracing::warn!("the host is overloaded: a plugin at its hard limit gets half of it again");
                self.stage = Stage::Extended;
                UpdateDeadline::Continue(self.half_ticks)
            }
            Stage::SecondHalf(_) | Stage::Extended => UpdateDeadline::Interrupt,
        }
    }
}

fn starved(since: Instant, ran_before: Duration) -> bool {
    thread_cpu_time()
        .is_some_and(|ran| ran.saturating_sub(ran_before).as_secs_f64() < STARVED_BELOW * since.elapsed().as_secs_f64())
}

/// How long this thread has run, where the system says so. Slow, so only asked at a deadline.
fn thread_cpu_time() -> Option<Duration> {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(schedule.split_whitespace().next()?.parse().ok()?))
}

impl log::Host for GuestState {
    fn log(&mut self, level: log::Level, message: String) {
        if LOG_LINES_MAX <= self.log_lines || LOG_BYTES_MAX <= self.log_bytes {
            self.log_dropped += 1;
            return;
        }
        let line = printable(&message, LOG_LINE_BYTES_MAX);
        self.log_lines += 1;
        self.log_bytes += line.len();
        let (plugin, transaction) = (&*self.label.plugin, &*self.label.transaction);
        match level {
            log::Level::Debug => tracing::debug!(target: "dualwright::plugin", plugin, transaction, "{line}"),
            log::Level::Info => tracing::info!(target: "dualwright::plugin", plugin, transaction, "{line}"),
            log::Level::Warn => tracing::warn!(target: "dualwright::plugin", plugin, transaction, "{line}"),
            log::Level::Error => tracing::error!(target: "dualwright::plugin", plugin, transaction, "{line}"),
        }
    }
}

/// An instance that nothing has gone wrong in. After an error of [`Guest::enter`] it must be dropped.
pub(crate) struct Guest {
    pub store: Store<GuestState>,
    pub instance: Instance,
}

/// How long a guest may run now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub time: Duration,
    /// It is what the transaction has left, less than the plugin's own limit.
    pub from_budget: bool,
}

impl Guest {
    /// A fresh store and instance. Start functions run here, under the same limits.
    pub fn new(
        code: &InstancePre<GuestState>,
        settings: &SandboxSettings,
        tenant: &Arc<TenantMemory>,
        label: Label,
        allowance: Allowance,
    ) -> Result<Self, Fault> {
        let state = GuestState {
            limits: Limits::new(tenant.clone(), settings.memory_bytes_max),
            stopwatch: Stopwatch::start(),
            label,
            deadline: Deadline { fair: settings.ticker == Ticker::Thread, ..Deadline::default() },
            transfer_bytes_max: settings.transfer_bytes_max,
            log_lines: 0,
            log_bytes: 0,
            log_dropped: 0,
        };
        let mut store = Store::new(code.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(settings.transfer_bytes_max);
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().deadline.reached()));
        store.call_hook(|mut store, hook| {
            store.data_mut().stopwatch.enter(match hook {
                CallHook::CallingWasm | CallHook::ReturningFromHost => Phase::Guest,
                CallHook::ReturningFromWasm => Phase::Marshalling,
                CallHook::CallingHost => Phase::HostCall,
            });
            Ok(())
        });
        arm(&mut store, allowance);
        match guarded(|| code.instantiate(&mut store)) {
            Ok(instance) => Ok(Self { store, instance }),
            Err(failure) => Err(failure.fault(store.data())),
        }
    }

    /// Runs one export. The deadline is armed here, when everything else is ready.
    pub fn enter<R>(
        &mut self,
        allowance: Allowance,
        call: impl FnOnce(&mut Store<GuestState>) -> wasmtime::Result<R>,
    ) -> Result<R, Fault> {
        let state = self.store.data_mut();
        state.log_lines = 0;
        arm(&mut self.store, allowance);
        let result = guarded(|| call(&mut self.store));
        let state = self.store.data_mut();
        if 0 < state.log_dropped {
            let (plugin, dropped) = (&*state.label.plugin, state.log_dropped);
            tracing::warn!(target: "dualwright::plugin", plugin, dropped, "log lines were dropped");
            state.log_dropped = 0;
        }
        result.map_err(|failure| failure.fault(state))
    }
}

fn arm(store: &mut Store<GuestState>, allowance: Allowance) {
    // Rounded up and one more, because the tick that is under way may end at once.
    let ticks = allowance.time.as_nanos().div_ceil(TICK.as_nanos()) as u64 + 1;
    let deadline = &mut store.data_mut().deadline;
    deadline.half_ticks = ticks.div_ceil(2);
    deadline.from_budget = allowance.from_budget;
    deadline.limit = allowance.time;
    deadline.stage = Stage::FirstHalf;
    let first = deadline.half_ticks;
    store.set_epoch_deadline(first);
}

enum Failure {
    Guest(wasmtime::Error),
    /// The engine itself panicked. The process goes on: nothing but the dropped store was touched.
    Panic,
}

fn guarded<R>(call: impl FnOnce() -> wasmtime::Result<R>) -> Result<R, Failure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Failure::Guest),
        Err(_) => Err(Failure::Panic),
    }
}

impl Failure {
    /// Sorts what went wrong: the one place where an error of the engine gets its code.
    fn fault(self, state: &GuestState) -> Fault {
        let plugin = &state.label.plugin;
        let error = match self {
            Self::Guest(error) => error,
            Self::Panic => return Fault::new(Code::Internal, format!("the engine panicked while {plugin} ran")),
        };
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Fault::new(Code::Internal, format!("no instance is free for {plugin}: {error}"));
        }
        let trap = error.downcast_ref::<Trap>().copied();
        if trap == Some(Trap::Interrupt) {
            let limit = state.deadline.limit.as_millis();
            return if state.deadline.from_budget {
                let message = format!("{plugin} was ended: the transaction had {limit} ms left for it");
                Fault::new(Code::BudgetSpent, message)
            } else {
                Fault::new(Code::PluginTimedOut, format!("{plugin} ran past its limit of {limit} ms{}", frames(&error)))
            };
        }
        let mib = |bytes: usize| bytes.div_ceil(1024 * 1024);
        match state.limits.refused() {
            Some(Refused::Memory { bytes_max }) => {
                let message = format!("{plugin} needed more than the {} MiB it may have", mib(bytes_max));
                return Fault::new(Code::PluginOverMemory, message);
            }
            Some(Refused::TenantMemory { bytes_max }) => {
                let message =
                    format!("{plugin} needed more memory than the {} MiB of its tenant leave", mib(bytes_max));
                return Fault::new(Code::PluginOverMemory, message);
            }
            Some(Refused::Table) => {
                return Fault::new(Code::PluginOverMemory, format!("{plugin} needed larger tables than it may have"));
            }
            None => {}
        }
        match trap {
            Some(trap) => {
                let hint = match trap {
                    Trap::StackOverflow | Trap::MemoryOutOfBounds => " (too deep a recursion ends like this as well)",
                    _ => "",
                };
                Fault::new(Code::PluginTrapped, format!("{plugin} trapped: {trap}{hint}{}", frames(&error)))
            }
            // Neither a trap nor a limit: what the guest returned could not be read.
            None => {
                let cause = error.root_cause().to_string();
                let what = match cause.contains("fuel allocated for hostcalls") {
                    true => format!("more than {} MiB at once", mib(state.transfer_bytes_max)),
                    false => printable(&cause, 300),
                };
                Fault::new(Code::PluginBadOutput, format!("{plugin} gave an invalid answer: {what}"))
            }
        }
    }
}

/// The innermost guest functions, so that an author knows where to look.
fn frames(error: &wasmtime::Error) -> String {
    let names: Vec<String> = error
        .downcast_ref::<WasmBacktrace>()
        .into_iter()
        .flat_map(WasmBacktrace::frames)
        .filter_map(|frame| frame.func_name())
        .take(4)
        .map(|name| printable(name, 100))
        .collect();
    if names.is_empty() { String::new() } else { format!(", in {}", names.join(" < ")) }
}
