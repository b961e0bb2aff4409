//! Write dualwright plugins in Rust: plain functions of a value or of a row.
//!
//! An author writes functions, a settings struct and one [`plugin!`]. Buffers, numbers of columns, `describe`,
//! `configure` and the exports of the component are the business of this crate. It knows `wit/` and nothing of the host,
//! and it builds on every target, so a plugin's logic has ordinary unit tests. The guide for authors is README.md.

pub mod bindings;
mod buffer;
mod cell;
mod decimal;
pub mod description;
pub mod instance;
mod issue;
pub mod log;
mod plugin;
mod rows;
pub mod settings;
pub mod table_map;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod transform;
pub mod validate;

pub use cell::{Cell, Kind};
pub use decimal::{Decimal, NotADecimal, Rounding, SCALE_MAX};
pub use dualwright_sdk_macros::{Choice, Settings};
pub use issue::{Issue, IssueText, Severity, Verdict};
pub use rows::{Operation, Row, Rows, System};
pub use settings::{Column, State, Table, Tables};

/// What a plugin usually needs.
pub mod prelude {
    pub use crate::settings::{Refusal, State, refuse, refuse_column, refuse_parameter};
    pub use crate::table_map::{Group, Joined, Split};
    pub use crate::transform::RowPatch;
    pub use crate::{
        Cell, Choice, Column, Decimal, Issue, IssueText, Kind, Operation, Rounding, Row, Settings, Severity, System,
        Table, Tables, Verdict,
    };
}

/// Holds the guide's example to what the crate is.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Guide;
