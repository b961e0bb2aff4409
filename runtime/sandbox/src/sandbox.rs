//! One engine with its settings: the door through which files become plugins.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dualwright_core::mapping::Mapping;
use dualwright_core::{Fault, error::Code};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy, WasmBacktraceDetails, WasmFeatures,
};

use crate::bindings::log;
use crate::clocks::Clocks;
use crate::compiled::CompiledCode;
use crate::guest::GuestState;
use crate::installation::{Installation, InstallationSpec};
use crate::limits::{Limits, MEMORIES_HIGHEST, TABLE_ELEMENTS_HIGHEST, TABLES_HIGHEST};
use crate::plugin::Plugin;
use crate::queued::QueuedSession;
use crate::session::{CallContext, Session};
use crate::tenant::{Tenant, TenantLimits, TenantUse};
use crate::timing::{PluginTiming, Record};
use crate::workers::Workers;

/// How often the epoch advances, so how exactly a limit is kept.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Touched memory that a slot keeps for its next instance, so that most of them fault no pages in.
const MEMORY_KEPT_BYTES: usize = 512 * 1024;
/// Core instances per component in the pool. They are counted only, so nothing is reserved for them.
const CORE_INSTANCES_PER_GUEST: u32 = 16;

/// What advances the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticker {
    /// A thread of its own, by the clock.
    Thread,
    /// Whoever calls [`Sandbox::tick`]. For tests.
    Manual,
}

#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// For installations that bring no limits of their own, and for calls before there is one.
    pub limits: Limits,
    /// For each tenant.
    pub tenant: TenantLimits,
    /// What a whole transaction may take: the time of a plugin is reported as a share of it.
    pub budget: Duration,
    /// Threads that guests run on.
    pub threads: usize,
    /// The stack of a guest's WebAssembly, which is beside the one that it keeps in its own memory.
    pub stack_bytes: usize,
    /// Counts instructions: the same ones for the same code and input, on any machine. Slows guests down.
    pub fuel: bool,
    /// Address space of one memory, so the most that the limits of an installation can give it.
    pub memory_bytes_highest: usize,
    /// Where compiled code is kept; `None` compiles anew in every process.
    pub cache: Option<PathBuf>,
    pub ticker: Ticker,
    /// Instances that live at the same time, where they are pooled. Each reserves address space, not memory.
    pub instances_max: u32,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            tenant: TenantLimits::default(),
            budget: Duration::from_secs(120),
            threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            stack_bytes: 512 << 10,
            fuel: false,
            memory_bytes_highest: 256 << 20,
            cache: None,
            ticker: Ticker::Thread,
            instances_max: 256,
        }
    }
}

/// Compiles and runs plugins. Cheap to clone: all clones are one sandbox.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub engine: Engine,
    pub linker: Linker<GuestState>,
    pub settings: SandboxSettings,
    pub cache: Option<CompiledCode>,
    pub clocks: Clocks,
    pub workers: Workers,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    records: Mutex<Vec<Arc<Record>>>,
    installations: AtomicU64,
}

impl Sandbox {
    /// Fails when the engine does not start. A cache that cannot be opened, or address space that is refused, costs
    /// speed and is logged.
    pub fn new(settings: SandboxSettings) -> Result<Self, Fault> {
        let engine = start_engine(&settings)?;
        let mut linker = Linker::new(&engine);
        log::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)
            .map_err(|error| Fault::new(Code::Internal, format!("the plugin engine does not link: {error:#}")))?;
        let cache = settings.cache.as_deref().and_then(|folder| {
            CompiledCode::open(folder, &engine)
                .inspect_err(|error| {
                    tracing::warn!(folder = %folder.display(), %error, "compiled plugins are not kept");
                })
                .ok()
        });
        if settings.ticker == Ticker::Thread {
            start_ticker(&engine)?;
        }
        let clocks = match settings.ticker {
            Ticker::Thread => Clocks::System,
            Ticker::Manual => Clocks::manual(),
        };
        let shared = Shared {
            engine,
            linker,
            workers: Workers::new(settings.threads, clocks.clone()),
            settings,
            cache,
            clocks,
            tenants: Mutex::default(),
            records: Mutex::default(),
            installations: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    #[must_use]
    pub fn settings(&self) -> &SandboxSettings {
        &self.shared.settings
    }

    /// Compiles a component, refuses what it may not be, and asks it to describe itself. `name` is how the caller
    /// calls it, in messages and timings.
    pub fn admit(&self, name: &str, bytes: &[u8]) -> Result<Arc<Plugin>, Fault> {
        Plugin::admit(self, name, bytes).map(Arc::new)
    }

    /// Checks columns and parameters and lets the plugin judge them, so that a refusal surfaces before any transaction.
    pub fn install(&self, plugin: &Arc<Plugin>, spec: InstallationSpec) -> Result<Arc<Installation>, Fault> {
        let id = self.shared.installations.fetch_add(1, Ordering::Relaxed);
        self.shared.workers.know(&spec.tenant, &self.shared.settings.tenant);
        Installation::new(self, plugin, spec, id).map(Arc::new)
    }

    /// The table maps that a plugin declares as data; none when it declares none.
    pub fn declared_maps(&self, plugin: &Plugin, parameters: &serde_json::Value) -> Result<Vec<Mapping>, Fault> {
        plugin.declared_maps(self, parameters)
    }

    /// Calls for one transaction of one tenant, on the thread of whoever makes them.
    #[must_use]
    pub fn session(&self, tenant: &str, context: CallContext) -> Session {
        Session::new(self.clone(), self.tenant(tenant), context)
    }

    /// Calls for one transaction of one tenant, in the tenant's turns on the sandbox's own threads.
    #[must_use]
    pub fn queued_session(&self, tenant: &Arc<str>, context: CallContext) -> QueuedSession {
        QueuedSession::new(self.clone(), tenant.clone(), self.session(tenant, context))
    }

    /// What a tenant holds and has used.
    #[must_use]
    pub fn tenant_use(&self, tenant: &str) -> TenantUse {
        let (calls_in_flight, calls_waiting, cpu) = self.shared.workers.usage(tenant);
        let tenant = self.tenant(tenant);
        TenantUse {
            memory_bytes: tenant.memory_bytes(),
            instances: tenant.instances(),
            calls_in_flight,
            calls_waiting,
            cpu,
        }
    }

    /// Figures of every plugin that was admitted, by extension point.
    #[must_use]
    pub fn timings(&self) -> Vec<PluginTiming> {
        let records = self.shared.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
        records.iter().flat_map(|record| record.timings()).collect()
    }

    /// What time it is by the clock that deadlines are held against.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.clocks.now()
    }

    /// Advances the epoch and the clocks by 5 ms each, for [`Ticker::Manual`].
    pub fn tick(&self, ticks: u32) {
        for _ in 0..ticks {
            if let Clocks::Manual(clocks) = &self.shared.clocks {
                clocks.advance();
            }
            self.shared.engine.increment_epoch();
        }
    }

    /// How much of each following tick the threads run, for [`Ticker::Manual`]; 100 to begin with.
    pub fn set_cpu_percent(&self, percent: u32) {
        if let Clocks::Manual(clocks) = &self.shared.clocks {
            clocks.set_cpu_percent(percent);
        }
    }

    /// For [`Ticker::Manual`]: ticks while a guest runs, each time waiting until it has noticed, until `done` says so.
    /// Waits without ticking as long as no guest runs. Returns the ticks of the call that began last.
    pub fn tick_until(&self, done: impl Fn() -> bool) -> u32 {
        let Clocks::Manual(clocks) = &self.shared.clocks else { return 0 };
        let runs = || 0 < clocks.running.load(Ordering::SeqCst);
        let (mut ticks, mut entries) = (0, 0);
        while !done() {
            if !runs() {
                std::thread::yield_now();
                continue;
            }
            let (entered, looks) = (clocks.entries.load(Ordering::SeqCst), clocks.looks.load(Ordering::SeqCst));
            if entered != entries {
                (ticks, entries) = (0, entered);
            }
            self.tick(1);
            ticks += 1;
            while clocks.looks.load(Ordering::SeqCst) == looks && runs() && !done() {
                // A guest that was about to wait for the tick after this one is told again; no time passes by that.
                self.shared.engine.increment_epoch();
                std::thread::yield_now();
            }
        }
        ticks
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn tenant(&self, tenant: &str) -> Arc<Tenant> {
        let mut tenants = self.shared.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        match tenants.get(tenant) {
            Some(known) => known.clone(),
            None => {
                let new = Arc::new(Tenant::new(self.shared.settings.tenant));
                tenants.insert(tenant.to_owned(), new.clone());
                new
            }
        }
    }

    /// The figures of a plugin; the same ones when the same file is admitted again under its name.
    pub(crate) fn record(&self, name: &str, version: &str, digest: &str) -> Arc<Record> {
        let mut records = self.shared.records.lock().unwrap_or_else(PoisonError::into_inner);
        match records.iter().find(|record| record.is_of(name, digest)) {
            Some(record) => record.clone(),
            None => {
                let record = Record::new(name, version, digest);
                records.push(record.clone());
                record
            }
        }
    }
}

/// The engine for pure guests: synchronous, interruptible, pooled where the system grants the address space.
fn start_engine(settings: &SandboxSettings) -> Result<Engine, Fault> {
    let mut config = base_config(settings);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(settings)));
    match Engine::new(&config) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!("plugin instances are not pooled, so each costs more: {error:#}");
            Engine::new(&base_config(settings))
                .map_err(|error| Fault::new(Code::Internal, format!("the plugin engine does not start: {error:#}")))
        }
    }
}

/// What the WebAssembly of a plugin may use: what compilers of today emit, and nothing that is there for other uses.
/// Named one by one, so that an upgrade of the engine opens nothing by itself.
const REFUSED_FEATURES: WasmFeatures = WasmFeatures::THREADS
    .union(WasmFeatures::SHARED_EVERYTHING_THREADS)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::CUSTOM_PAGE_SIZES)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::WIDE_ARITHMETIC)
    .union(WasmFeatures::STACK_SWITCHING)
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::GC)
    .union(WasmFeatures::EXCEPTIONS)
    .union(WasmFeatures::LEGACY_EXCEPTIONS)
    .union(WasmFeatures::CM_ASYNC)
    .union(WasmFeatures::CM_ERROR_CONTEXT)
    .union(WasmFeatures::CM_FIXED_LENGTH_LISTS)
    .union(WasmFeatures::CM_GC)
    .union(WasmFeatures::CM_MAP);

fn base_config(settings: &SandboxSettings) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .wasm_features(REFUSED_FEATURES, false)
        // A call costs a third of what it costs with it.
        .concurrency_support(false)
        .epoch_interruption(true)
        // The same bits on every machine: a repeated delivery must give the same answer.
        .cranelift_nan_canonicalization(true)
        .consume_fuel(settings.fuel)
        .max_wasm_stack(settings.stack_bytes)
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

fn pool(settings: &SandboxSettings) -> PoolingAllocationConfig {
    let instances = settings.instances_max.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_GUEST))
        .total_memories(instances.saturating_mul(MEMORIES_HIGHEST as u32))
        .total_tables(instances.saturating_mul(TABLES_HIGHEST as u32))
        .max_memory_size(settings.memory_bytes_highest.max(settings.limits.memory_bytes_max))
        .max_tables_per_module(TABLES_HIGHEST as u32)
        .table_elements(TABLE_ELEMENTS_HIGHEST)
        .linear_memory_keep_resident(MEMORY_KEPT_BYTES)
        .table_keep_resident(MEMORY_KEPT_BYTES);
    pool
}

/// Advances the epoch until the engine is gone. A thread and not a task: nothing else may delay it.
fn start_ticker(engine: &Engine) -> Result<(), Fault> {
    let engine = engine.weak();
    let tick = move || {
        let started = Instant::now();
        let mut ticks = 0;
        loop {
            std::thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { return };
            // A late wake-up catches up, so that limits are those of the clock.
            let due = started.elapsed().as_nanos() / TICK.as_nanos();
            while ticks < due {
                engine.increment_epoch();
                ticks += 1;
            }
        }
    };
    std::thread::Builder::new()
        .name("plugin-ticker".to_owned())
        .spawn(tick)
        .map(drop)
        .map_err(|error| Fault::new(Code::Internal, format!("the plugin ticker does not start: {error}")))
}
