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
use crate::compiled::CompiledCode;
use crate::guest::{Allowance, GuestState};
use crate::installation::{Installation, InstallationSpec};
use crate::limits::{TABLE_ELEMENTS_MAX, TenantMemory};
use crate::plugin::Plugin;
use crate::session::{CallContext, Session};
use crate::timing::{PluginTiming, Record};

/// How often the epoch advances, so how exactly a limit is kept.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Address space of one memory in the pool. What a guest may really use is `memory_bytes_max`.
const MEMORY_SLOT_BYTES: usize = 256 * 1024 * 1024;
/// Touched memory that a slot keeps for its next instance, so that most of them fault no pages in.
const MEMORY_KEPT_BYTES: usize = 512 * 1024;
/// Core instances per component in the pool: the guest and two that wire its imports.
const CORE_INSTANCES_PER_GUEST: u32 = 3;
const WASM_STACK_BYTES: usize = 512 * 1024;

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
    /// Guest time and its host calls, per plugin and transaction; above it a plugin is reported as slow.
    pub goal: Duration,
    /// What a whole transaction may take: the time of a plugin is reported as a share of it.
    pub budget: Duration,
    /// Ends a call.
    pub hard_limit: Duration,
    /// All memories of an instance together.
    pub memory_bytes_max: usize,
    /// All live instances of a tenant together.
    pub tenant_memory_bytes_max: usize,
    /// What a guest may return, or give to a host function, at once.
    pub transfer_bytes_max: usize,
    /// What a guest is given at once.
    pub slice_bytes_max: usize,
    /// Where compiled code is kept; `None` compiles anew in every process.
    pub cache: Option<PathBuf>,
    pub ticker: Ticker,
    /// Instances that live at the same time, where they are pooled. Each reserves address space, not memory.
    pub instances_max: u32,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            goal: Duration::from_millis(500),
            budget: Duration::from_secs(120),
            hard_limit: Duration::from_secs(2),
            memory_bytes_max: 64 * 1024 * 1024,
            tenant_memory_bytes_max: 512 * 1024 * 1024,
            transfer_bytes_max: 8 * 1024 * 1024,
            slice_bytes_max: 4 * 1024 * 1024,
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
    tenants: Mutex<HashMap<String, Arc<TenantMemory>>>,
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
        let shared = Shared {
            engine,
            linker,
            settings,
            cache,
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
        Installation::new(self, plugin, spec, id).map(Arc::new)
    }

    /// The table maps that a plugin declares as data; none when it declares none.
    pub fn declared_maps(&self, plugin: &Plugin, parameters: &serde_json::Value) -> Result<Vec<Mapping>, Fault> {
        plugin.declared_maps(self, parameters)
    }

    /// Calls for one transaction of one tenant.
    #[must_use]
    pub fn session(&self, tenant: &str, context: CallContext) -> Session {
        Session::new(self.clone(), self.tenant(tenant), context)
    }

    /// Figures of every plugin that was admitted, by extension point.
    #[must_use]
    pub fn timings(&self) -> Vec<PluginTiming> {
        let records = self.shared.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
        records.iter().flat_map(|record| record.timings()).collect()
    }

    /// Advances the epoch, for [`Ticker::Manual`]. A limit is `ceil(limit / 5 ms) + 1` ticks, rounded up to an even
    /// number.
    pub fn tick(&self, ticks: u32) {
        for _ in 0..ticks {
            self.shared.engine.increment_epoch();
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn tenant(&self, tenant: &str) -> Arc<TenantMemory> {
        let mut tenants = self.shared.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        match tenants.get(tenant) {
            Some(memory) => memory.clone(),
            None => {
                let memory = Arc::new(TenantMemory::new(self.shared.settings.tenant_memory_bytes_max));
                tenants.insert(tenant.to_owned(), memory.clone());
                memory
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

    /// For calls outside a transaction.
    pub(crate) fn hard_limit(&self) -> Allowance {
        Allowance { time: self.shared.settings.hard_limit, from_budget: false }
    }
}

/// The engine for pure guests: synchronous, interruptible, pooled where the system grants the address space.
fn start_engine(settings: &SandboxSettings) -> Result<Engine, Fault> {
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(settings)));
    match Engine::new(&config) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!("plugin instances are not pooled, so each costs more: {error:#}");
            Engine::new(&base_config())
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

fn base_config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .wasm_features(REFUSED_FEATURES, false)
        // A call costs a third of what it costs with it.
        .concurrency_support(false)
        .epoch_interruption(true)
        // The same bits on every machine: a repeated delivery must give the same answer.
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

fn pool(settings: &SandboxSettings) -> PoolingAllocationConfig {
    let instances = settings.instances_max.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_GUEST))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(2))
        .max_memory_size(MEMORY_SLOT_BYTES.max(settings.memory_bytes_max))
        .table_elements(TABLE_ELEMENTS_MAX)
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
