//! The path of a transaction: from captured changes to rows on the target, and to what the store keeps of it.
//!
//! [`attempt::attempt`] is the path; the other modules are its steps. Nothing here decides when something is attempted
//! (that is the engine) and nothing here commits (that is [`settle`]'s plan, carried out by the store).

pub mod attempt;
pub mod budget;
pub mod captured;
mod guests;
mod identify;
pub mod link;
pub mod lookups;
pub mod ownership;
mod placeholder;
pub mod row;
pub mod settle;
mod table_map;
mod target;
mod write;

pub use attempt::{Attempted, Verdict, Work, attempt};
pub use budget::Budget;
pub use captured::CapturedChange;
pub use link::{Binding, Lane, Link, LinkMap, Placeholder, Role, Side, TableMap, TargetColumn};
pub use row::{RowFate, RowWork};
