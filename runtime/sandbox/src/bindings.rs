//! The Rust side of `wit/`, generated. Nothing else in the crate spells out an interface name's types.

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
