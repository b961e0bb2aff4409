//! The Rust side of `wit/`, generated, under shorter names.

wasmtime::component::bindgen!({
    path: [
        "../../wit/types",
        "../../wit/log",
        "../../wit/plugin",
        "../../wit/transform",
        "../../wit/validate",
        "../../wit/table-map",
        "../../wit/worlds",
    ],
    world: "dualwright:worlds/everything",
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub(crate) use dualwright::log::log;
pub(crate) use dualwright::types::types as wit;
pub(crate) use exports::dualwright::plugin::describe;
pub(crate) use exports::dualwright::table_map::{declare, table_map, table_map_back};
pub(crate) use exports::dualwright::transform::{transform, transform_back};
pub(crate) use exports::dualwright::validate::{post, pre};
