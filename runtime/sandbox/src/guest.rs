//! One instance in its store: armed, entered, timed, and judged when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use wasmtime::component::{Instance, InstancePre};
use wasmtime::{AsContext, CallHook, Store, Trap, UpdateDeadline, WasmBacktrace};

use crate::bindings::log;
use crate::checked::printable;
use crate::clocks::Clocks;
use crate::fault::{CallFault, FaultKind};
use crate::limits::{Limits, Refused, StoreLimiter};
use crate::sandbox::Shared;
use crate::tenant::{InstancePlace, Tenant};
use crate::timing::{Phase, Stopwatch};
use crate::watch::{Allowance, Ending, Look, Watch};

/// Enough for any guest, and each call begins with as much again.
const FUEL: u64 = u64::MAX;

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
    pub limiter: StoreLimiter,
    pub stopwatch: Stopwatch,
    limits: Limits,
    label: Label,
    watch: Watch,
    clocks: Clocks,
    log_lines: u32,
    log_bytes: usize,
    log_dropped: u32,
    /// Where the guest was when it went past its goal.
    slow_in: Option<String>,
    /// Held as long as the store lives.
    _place: InstancePlace,
}

impl log::Host for GuestState {
    fn log(&mut self, level: log::Level, message: String) {
        let bytes_left = self.limits.log_bytes_max.saturating_sub(self.log_bytes);
        if self.limits.log_lines_max <= self.log_lines || bytes_left == 0 {
            self.log_dropped += 1;
            return;
        }
        let line = printable(&message, self.limits.log_line_bytes_max.min(bytes_left));
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

/// Where an instance is made: whose it is, and what it may use.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub shared: &'a Shared,
    pub tenant: &'a Arc<Tenant>,
    pub limits: &'a Limits,
    /// Set when nobody waits for the answer any more.
    pub cancelled: &'a Arc<AtomicBool>,
}

impl Guest {
    /// A fresh store and instance. Start functions run here, under the same limits.
    pub fn new(
        code: &InstancePre<GuestState>,
        ground: Ground<'_>,
        label: Label,
        allowance: Allowance,
    ) -> Result<Self, CallFault> {
        let limits = ground.limits;
        let Some(place) = ground.tenant.take_instance() else {
            let message = format!(
                "{} got no instance: the tenant has {} of them at work, which is as many as it may have",
                label.plugin, ground.tenant.limits.instances_max
            );
            return Err(FaultKind::TenantInstances.fault(message));
        };
        let clocks = &ground.shared.clocks;
        let state = GuestState {
            limiter: StoreLimiter::new(ground.tenant.clone(), *limits),
            stopwatch: Stopwatch::start(),
            limits: *limits,
            label,
            watch: Watch::new(clocks.clone(), limits, ground.cancelled.clone()),
            clocks: clocks.clone(),
            log_lines: 0,
            log_bytes: 0,
            log_dropped: 0,
            slow_in: None,
            _place: place,
        };
        let mut store = Store::new(code.engine(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits.transfer_out_bytes_max);
        store.set_max_component_handles(limits.handles_max);
        if ground.shared.settings.fuel {
            store.set_fuel(FUEL).expect("the engine was made with fuel");
        }
        store.epoch_deadline_callback(|mut store| {
            let look = store.data_mut().watch.look();
            if look == Look::OverGoal {
                let frames = frames_of(&WasmBacktrace::force_capture(store.as_context()));
                store.data_mut().slow_in.get_or_insert(frames);
            }
            Ok(match look {
                Look::GoesOn | Look::OverGoal => UpdateDeadline::Continue(1),
                Look::Ends => UpdateDeadline::Interrupt,
            })
        });
        store.call_hook(|mut store, hook| {
            let state = store.data_mut();
            state.stopwatch.enter(match hook {
                CallHook::CallingWasm | CallHook::ReturningFromHost => Phase::Guest,
                CallHook::ReturningFromWasm => Phase::Marshalling,
                CallHook::CallingHost => Phase::HostCall,
            });
            match hook {
                CallHook::CallingHost => state.watch.host_call_begins(),
                CallHook::ReturningFromHost => {
                    if state.watch.host_call_ends().is_err() {
                        return Err(Trap::Interrupt.into());
                    }
                }
                CallHook::CallingWasm | CallHook::ReturningFromWasm => {}
            }
            Ok(())
        });
        let goal_left = limits.goal;
        let made = run(&mut store, allowance, goal_left, |store| code.instantiate(store));
        match made {
            Ok(instance) => Ok(Self { store, instance }),
            Err(failure) => Err(failure.fault(store.data())),
        }
    }

    /// Runs one export. The deadline is armed here, when everything else is ready. `goal_left` is what the plugin may
    /// still take before it is reported as slow.
    pub fn enter<R>(
        &mut self,
        allowance: Allowance,
        goal_left: Duration,
        call: impl FnOnce(&mut Store<GuestState>) -> wasmtime::Result<R>,
    ) -> Result<R, CallFault> {
        let state = self.store.data_mut();
        state.log_lines = 0;
        state.limiter.begin();
        let result = run(&mut self.store, allowance, goal_left, call);
        let state = self.store.data_mut();
        if 0 < state.log_dropped {
            let (plugin, dropped) = (&*state.label.plugin, state.log_dropped);
            tracing::warn!(target: "dualwright::plugin", plugin, dropped, "log lines were dropped");
            state.log_dropped = 0;
        }
        result.map_err(|failure| failure.fault(state))
    }

    /// Gets an instance of an earlier transaction ready for another one.
    pub fn begin_transaction(&mut self, transaction: Arc<str>, cancelled: &Arc<AtomicBool>) {
        let state = self.store.data_mut();
        state.label.transaction = transaction;
        state.watch = Watch::new(state.clocks.clone(), &state.limits, cancelled.clone());
        state.log_bytes = 0;
        state.slow_in = None;
    }

    /// Instructions that were executed since this was last asked, where the engine counts them.
    pub fn take_fuel(&mut self) -> Option<u64> {
        let left = self.store.get_fuel().ok()?;
        self.store.set_fuel(FUEL).ok()?;
        Some(FUEL - left)
    }

    /// Where the guest was when it went past its goal.
    pub fn take_slow_in(&mut self) -> Option<String> {
        self.store.data_mut().slow_in.take()
    }
}

fn run<R>(
    store: &mut Store<GuestState>,
    allowance: Allowance,
    goal_left: Duration,
    call: impl FnOnce(&mut Store<GuestState>) -> wasmtime::Result<R>,
) -> Result<R, Failure> {
    // Looked at with every tick. The one that is under way may end at once; what it ends then is a fraction.
    store.set_epoch_deadline(1);
    let state = store.data_mut();
    state.watch.begin(allowance, goal_left);
    let inside = state.clocks.enter();
    let result = match catch_unwind(AssertUnwindSafe(|| call(&mut *store))) {
        Ok(result) => result.map_err(Failure::Guest),
        Err(_) => Err(Failure::Panic),
    };
    drop(inside);
    let state = store.data_mut();
    let starved = state.watch.starved();
    state.stopwatch.forgive(starved);
    result
}

enum Failure {
    Guest(wasmtime::Error),
    /// The engine itself panicked. The process goes on: nothing but the dropped store was touched.
    Panic,
}

impl Failure {
    /// Sorts what went wrong: the one place where an error of the engine gets its kind.
    fn fault(self, state: &GuestState) -> CallFault {
        let plugin = &state.label.plugin;
        let error = match self {
            Self::Guest(error) => error,
            Self::Panic => return FaultKind::Internal.fault(format!("the engine panicked while {plugin} ran")),
        };
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return FaultKind::Internal.fault(format!("no instance is free for {plugin}: {error}"));
        }
        let trap = error.downcast_ref::<Trap>().copied();
        if let (Some(Trap::Interrupt), Some(ending)) = (trap, state.watch.ended()) {
            return ended(ending, plugin, &frames(&error));
        }
        let mib = |bytes: usize| bytes.div_ceil(1024 * 1024);
        match state.limiter.refused() {
            Some(Refused::Memory { bytes_max }) => {
                let whose = if bytes_max < state.limits.memory_bytes_max { "its tenant" } else { "it" };
                let message = format!("{plugin} needed more than the {} MiB that {whose} may have", mib(bytes_max));
                return FaultKind::Memory.fault(message);
            }
            Some(Refused::TenantMemory { bytes_max }) => {
                let message = format!(
                    "{plugin} found no memory: its tenant's other instances hold too much of its {} MiB",
                    mib(bytes_max)
                );
                return FaultKind::TenantMemory.fault(message);
            }
            Some(Refused::Table { elements_max }) => {
                let message = format!("{plugin} needed larger tables than the {elements_max} elements it may have");
                return FaultKind::Tables.fault(message);
            }
            None => {}
        }
        match trap {
            Some(trap) => {
                let hint = match trap {
                    Trap::StackOverflow | Trap::MemoryOutOfBounds => " (too deep a recursion ends like this as well)",
                    _ => "",
                };
                FaultKind::Trap.fault(format!("{plugin} trapped: {trap}{hint}{}", frames(&error)))
            }
            // Neither a trap nor a limit: what the guest returned could not be read.
            None => {
                let cause = error.root_cause().to_string();
                if cause.contains("fuel allocated for hostcalls") {
                    let most = mib(state.limits.transfer_out_bytes_max);
                    let message = format!("{plugin} gave an invalid answer: more than {most} MiB at once");
                    return FaultKind::Transfer.fault(message);
                }
                if let Some((_, what)) = cause.split_once("resource limit exceeded: ") {
                    let message = format!("{plugin} is made of more parts than it may have: {}", printable(what, 200));
                    return FaultKind::Parts.fault(message);
                }
                FaultKind::Answer.fault(format!("{plugin} gave an invalid answer: {}", printable(&cause, 300)))
            }
        }
    }
}

/// The fault of a call that was ended.
fn ended(ending: Ending, plugin: &str, frames: &str) -> CallFault {
    match ending {
        Ending::OwnTime { limit } => FaultKind::OwnTime
            .fault(format!("{plugin} ran past its limit of {} ms of its own time{frames}", limit.as_millis())),
        Ending::WallTime { limit, own } => FaultKind::WallTime.fault(format!(
            "{plugin} was ended after {} ms, of which its thread could run for {} ms only: the machine is overloaded",
            limit.as_millis(),
            own.as_millis()
        )),
        Ending::Budget { left } => FaultKind::Budget
            .fault(format!("{plugin} was ended: the transaction had {} ms left for it", left.as_millis())),
        Ending::HostCall { limit } => FaultKind::HostCall
            .fault(format!("{plugin} was ended: one of its host calls took longer than {} ms", limit.as_millis())),
        Ending::Cancelled => FaultKind::Cancelled.fault(format!("{plugin} was ended: nobody waits for it any more")),
    }
}

/// The innermost guest functions, so that an author knows where to look.
fn frames(error: &wasmtime::Error) -> String {
    let names = error.downcast_ref::<WasmBacktrace>().map(frames_of).unwrap_or_default();
    if names.is_empty() { names } else { format!(", in {names}") }
}

fn frames_of(backtrace: &WasmBacktrace) -> String {
    let names = backtrace.frames().iter().filter_map(|frame| frame.func_name());
    names.take(4).map(|name| printable(name, 100)).collect::<Vec<_>>().join(" < ")
}
