//! Stand-ins for both systems, good enough that clients nobody here wrote cannot tell.
//!
//! Owns two servers, one per dialect, over one SQLite file each: metadata, rows, change sets, feeds, an audit of what was
//! applied, and faults on demand. Knows no table map and nothing of the program that talks to it; what it can be asked is
//! what the real systems can be asked, and `/_emulator/…` beside that.

mod audit;
mod batch;
mod body;
mod cached;
mod catalogue;
mod cell;
mod clock;
mod connection;
mod control;
mod dataverse;
mod definition;
mod edge;
mod exchange;
mod fault;
mod finops;
mod observe;
mod outlet;
mod own;
mod page;
mod post;
mod query;
mod redefine;
mod relation;
mod render;
mod requests;
mod schema;
mod seed;
mod server;
mod session;
mod store;
mod tls;
mod token;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Map, Value};

pub use audit::AuditEntry;
pub use clock::Clock;
pub use dataverse::LimitSettings;
pub use definition::{
    ColumnDefinition, ColumnKind, ColumnPair, DateBehavior, DeleteBehavior, EnumDefinition, KeyDefinition,
    NumberSequenceDefinition, OptionDefinition, Ownership, TableDefinition, TableFile, TargetDefinition, read_tables,
};
pub use fault::{FaultAction, FaultMatch, FaultPlan, FaultRates, FaultRule, Normalisation, RandomFaults, RetryAfter};
pub use finops::{Priority, ResourceLevel, ThrottleSettings};
pub use post::PostSettings;
pub use requests::RequestEntry;
pub use schema::read_schema;
pub use seed::{SeedPlan, SeedReport};
pub use tls::{TlsIdentity, ca_path};
pub use token::{TokenCheck, TokenClient};

/// Which system is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    Finops,
    Dataverse,
}

impl Dialect {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finops => "finops",
            Self::Dataverse => "dataverse",
        }
    }
}

/// One emulated system. Clones share it.
#[derive(Debug, Clone)]
pub struct Emulator {
    inner: Arc<Inner>,
}

/// How an emulator is reached.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// HTTPS with this certificate; without one, HTTP.
    pub tls: Option<TlsIdentity>,
    /// Whose tokens are good; without it nobody needs one.
    pub tokens: Option<TokenCheck>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub store: store::Store,
    pub clock: Clock,
    pub faults: Arc<fault::Faults>,
    pub requests: requests::Requests,
    /// What an F&O keeps beside its rows.
    pub finops: finops::State,
    pub post: Arc<post::Post>,
    /// What a Dataverse keeps beside its rows.
    pub dataverse: dataverse::Environment,
}

impl Inner {
    /// Puts definitions in force, with what comes with every table.
    fn define(&self, definitions: Vec<TableDefinition>) -> anyhow::Result<()> {
        self.store.define(definitions)?;
        if self.store.dialect == Dialect::Finops {
            finops::package::complete_projects(&self.store)?;
        }
        Ok(())
    }
}

impl Emulator {
    /// Opens a store, or makes it; without a path it is temporary and goes with the last clone. A store that was used
    /// before brings its tables and rows.
    pub fn open(dialect: Dialect, store: Option<&Path>) -> anyhow::Result<Self> {
        Self::open_with_clock(dialect, store, Clock::running())
    }

    /// [`Emulator::open`] with a time of its own.
    pub fn open_with_clock(dialect: Dialect, store: Option<&Path>, clock: Clock) -> anyhow::Result<Self> {
        let faults = Arc::new(fault::Faults::new(dialect));
        let store = store::Store::open(dialect, store, clock.clone(), Arc::clone(&faults))?;
        let post = Arc::new(post::Post::open(&store)?);
        let inner = Inner {
            store,
            clock,
            faults,
            requests: requests::Requests::default(),
            finops: finops::State::default(),
            post,
            dataverse: dataverse::Environment::default(),
        };
        let emulator = Self { inner: Arc::new(inner) };
        emulator.define(&catalogue::link_package(dialect))?;
        if dialect == Dialect::Dataverse {
            emulator.define(&dataverse::system::tables())?;
            emulator.define(&dataverse::roles::tables()?)?;
            emulator.define(&dataverse::steps::tables()?)?;
        }
        Ok(emulator)
    }

    /// The system's time, to be moved or bent.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.inner.store.dialect
    }

    /// Adds tables, and columns to tables that are there. What is there already is left alone.
    pub fn define(&self, tables: &[TableDefinition]) -> anyhow::Result<()> {
        let completed = tables.iter().map(|table| catalogue::completed(self.dialect(), table.clone())).collect();
        self.inner.define(completed)
    }

    /// Puts a definition in force in place of the one before, as a deployment does: columns may be others, and be gone.
    pub fn redefine(&self, table: TableDefinition) -> anyhow::Result<()> {
        let table = catalogue::completed(self.dialect(), table);
        self.inner.store.write(false, |session| session.redefine(table))
    }

    /// Adds rows, or replaces the named columns of rows with the same key, all or none; outside of feed and audit.
    /// Properties are spelled as on the wire; a lookup may be given as `_name_value` or as `name`, with an id.
    pub fn seed(&self, set: &str, rows: Vec<Map<String, Value>>) -> anyhow::Result<usize> {
        let count = rows.len();
        self.inner.store.write(false, |session| {
            let table = session.catalogue.by_set(set).cloned().with_context(|| format!("there is no set {set}"))?;
            for (number, row) in rows.into_iter().enumerate() {
                body::seed(session, &table, &row).with_context(|| format!("row {} of {set}", number + 1))?;
            }
            anyhow::Ok(count)
        })
    }

    /// Adds the rows that every organization starts with (Dataverse). Once: what was changed since stays changed.
    fn found(&self) -> anyhow::Result<()> {
        if self.dialect() == Dialect::Finops || self.inner.store.setting("founded")?.is_some() {
            return Ok(());
        }
        let own = catalogue::completed(self.dialect(), dataverse::system::currency());
        let catalogue = self.inner.store.catalogue();
        let has_own_currencies = catalogue.by_name(&own.name).is_some_and(|table| table.definition != own);
        for (set, row) in dataverse::system::rows(!has_own_currencies) {
            self.seed(set, vec![row])?;
        }
        self.inner.store.set_setting("founded", 1)?;
        Ok(())
    }

    /// How outgoing requests reach their endpoints; kept in the store.
    pub fn set_post(&self, settings: PostSettings) -> anyhow::Result<()> {
        self.inner.post.set(&self.inner.store, settings)
    }

    /// Service protection (Dataverse). Off until it is set.
    pub fn set_limits(&self, settings: LimitSettings) {
        self.inner.dataverse.limits.set(settings);
    }

    #[must_use]
    pub fn limits(&self) -> LimitSettings {
        self.inner.dataverse.limits.settings()
    }

    /// Adds the applications of Dual-write as users, so that a link finds what it needs (Dataverse). From then on every
    /// other application has to be a user too.
    pub fn add_dual_write_users(&self) -> anyhow::Result<()> {
        dataverse::add_dual_write_users(&self.inner)
    }

    /// All rows of a set as they would be read, in the order in which they were added.
    pub fn rows(&self, set: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
        let catalogue = self.inner.store.catalogue();
        let table = catalogue.by_set(set).with_context(|| format!("there is no set {set}"))?;
        self.inner.store.read(|connection| {
            let mut rows = Vec::new();
            let mut json = Vec::new();
            store::scan(connection, table, 0, i64::MAX, false, &mut |id, version, data| {
                json.clear();
                render::write_stored(&mut json, table, data, store::Stamp { id, version });
                rows.push(serde_json::from_slice(&json));
                Ok(true)
            })?;
            Ok(rows.into_iter().collect::<Result<Vec<_>, _>>()?)
        })
    }

    pub fn count(&self, set: &str) -> anyhow::Result<usize> {
        let catalogue = self.inner.store.catalogue();
        let table = catalogue.by_set(set).with_context(|| format!("there is no set {set}"))?;
        let count = self.inner.store.read(|connection| store::count(connection, table))?;
        Ok(usize::try_from(count)?)
    }

    /// Every write that was applied, oldest first.
    pub fn audit(&self) -> anyhow::Result<Vec<AuditEntry>> {
        Ok(self.inner.store.read(|connection| audit::entries(connection, 0))?)
    }

    /// Keeps executions of data management waiting until turns are asked for, or lets them run by themselves again (F&O).
    pub fn hold_jobs(&self, held: bool) {
        self.inner.finops.jobs.hold(held);
    }

    /// Moves the data management job whose turn it is one step on; says whether there was one (F&O).
    pub fn turn(&self) -> anyhow::Result<bool> {
        match self.dialect() {
            Dialect::Finops => finops::package::turn(&self.inner),
            Dialect::Dataverse => Ok(false),
        }
    }

    /// Adds faults, to be played when a request matches them.
    pub fn add_faults(&self, rules: Vec<FaultRule>) {
        self.inner.faults.add(FaultPlan { rules, random: None });
    }

    /// Adds the rules of a plan; its random faults replace those before.
    pub fn add_fault_plan(&self, plan: FaultPlan) {
        self.inner.faults.add(plan);
    }

    /// The last requests, the newest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestEntry> {
        self.inner.requests.newest(usize::MAX)
    }

    pub fn clear_faults(&self) {
        self.inner.faults.clear();
    }

    /// Makes every delta link that was given out until now too old (Dataverse).
    pub fn expire_delta_links(&self) -> anyhow::Result<()> {
        dataverse::expire_links(&self.inner.store)
    }

    /// Throttling (F&O). Off until it is set.
    pub fn set_throttling(&self, settings: ThrottleSettings) {
        self.inner.finops.throttle.set(settings);
    }

    /// Answers requests until `shutdown` resolves, then finishes those under way and leaves the store in one file.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        self.serve_with(ServeOptions::default(), listener, shutdown).await
    }

    /// [`Emulator::serve`] with TLS, or for callers with a token only.
    pub async fn serve_with(
        &self,
        options: ServeOptions,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        self.found()?;
        if self.dialect() == Dialect::Dataverse {
            dataverse::prepare(&self.inner)?;
        }
        server::serve(Arc::clone(&self.inner), options, listener, shutdown).await
    }
}
