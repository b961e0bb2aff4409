//! What a change means.
//!
//! Everything in this crate is pure: no I/O, no async, no clock, no wasmtime. Time, seeds and bytes come in as
//! arguments, plans and decisions go out. Whatever needs a socket, a file or a guest lives in another crate.

pub mod change;
pub mod content;
mod convert;
pub mod drift;
pub mod error;
pub mod filter;
pub mod lookup;
pub mod mapping;
pub mod plan;
pub mod reconcile;
pub mod schema;
mod transform;
pub mod value;

pub use change::{Change, Operation, RowKey, SystemKind, TransactionId};
pub use error::{Class, Code, Fault};
pub use lookup::{LookupRule, Missing};
pub use schema::{Column, CurrencyScales, Schema};
pub use transform::{StepKind, Unmatched};
pub use value::{Kind, Value};
