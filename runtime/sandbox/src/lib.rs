//! Runs plugins: compiles, limits, pools and times guests.
//!
//! The only crate that knows wasmtime. It knows rows and schemas, and nothing of maps, systems or stores. Everything
//! blocks: callers run it on threads that may block.
//!
//! * [`Sandbox`] is one engine with its settings; it admits files as [`Plugin`]s.
//! * An [`Installation`] is a plugin with the columns it was granted and its parameters.
//! * A [`Session`] is one transaction of one tenant: it calls installations, each in an instance of its own that dies
//!   with the session, or earlier with the first trap, timeout or invalid answer.
//!
//! What a guest returns is hostile until [`checked`] has seen it.

mod batch;
mod bindings;
mod checked;
mod compiled;
mod description;
mod guest;
mod installation;
mod limits;
mod parameters;
mod plugin;
mod sandbox;
mod session;
mod timing;

pub use description::{Access, ColumnWant, Description, IssueText, Parameter, ParameterKind, Severity};
pub use installation::{Installation, InstallationSpec};
pub use plugin::{ExtensionPoint, Plugin};
pub use sandbox::{Sandbox, SandboxSettings, Ticker};
pub use session::{
    CallContext, CallFault, Mapped, MappedReference, MappedRow, MappedTable, Merged, MergedRow, Part, Patch, RowInfo,
    RowIssue, Session,
};
pub use timing::PluginTiming;
