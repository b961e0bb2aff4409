//! Runs plugins: compiles, limits, pools and times guests.
//!
//! The only crate that knows wasmtime. It knows rows and schemas, and nothing of maps, systems or stores.
//!
//! * [`Sandbox`] is one engine with its settings; it admits files as [`Plugin`]s.
//! * An [`Installation`] is a plugin with the columns it was granted, its parameters and its [`Limits`].
//! * A [`Session`] is one transaction of one tenant: it calls installations, each in an instance of its own that dies
//!   with the session, or earlier with the first trap, timeout or invalid answer. It blocks.
//! * A [`QueuedSession`] is the same on the sandbox's own threads, in fair turns, awaited from outside.
//!
//! What a guest returns is hostile until [`checked`] has seen it. `README.md` says what is limited and how to tune it.

mod batch;
mod bindings;
mod checked;
mod clocks;
mod compiled;
mod description;
mod fault;
mod guest;
mod installation;
mod limits;
mod parameters;
mod plugin;
mod queue;
mod queued;
mod sandbox;
mod session;
mod tenant;
mod timing;
mod warm;
mod watch;
mod workers;

pub use checked::answers::{Mapped, MappedReference, MappedRow, MappedTable, Merged, MergedRow, Patch, RowIssue};
pub use description::{Access, ColumnWant, Description, IssueText, Parameter, ParameterKind, Severity};
pub use fault::{Blame, CallFault, FaultKind};
pub use installation::{Installation, InstallationSpec};
pub use limits::{Limits, MEMORIES_HIGHEST, TABLE_ELEMENTS_HIGHEST, TABLES_HIGHEST, Warm};
pub use plugin::{ExtensionPoint, Plugin};
pub use queued::QueuedSession;
pub use sandbox::{Sandbox, SandboxSettings, Ticker};
pub use session::{CallContext, Part, RowInfo, Session};
pub use tenant::{TenantLimits, TenantUse};
pub use timing::PluginTiming;
