//! What `wit-bindgen` makes of the folder `wit/`: the records, and one export per extension point.
//!
//! The records are used as they are, on every target. The export macros are for [`plugin!`](crate::plugin) alone. One
//! module per exported interface, so that a component exports exactly what its plugin has.
#![allow(missing_docs, clippy::all, rust_2018_idioms)]

mod shared {
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/log"],
        inline: "
            package dualwright:sdk-shared;
            world shared {
                import dualwright:types/types@0.1.0;
                import dualwright:log/log@0.1.0;
            }
        ",
        generate_all,
        generate_unused_types: true,
    });
}

pub use shared::dualwright::log::log;
pub use shared::dualwright::types::types;

/// What a plugin says of itself.
pub mod describe {
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/plugin"],
        inline: "
            package dualwright:sdk-describe;
            world describe {
                export dualwright:plugin/describe@0.1.0;
            }
        ",
        with: { "dualwright:types/types@0.1.0": crate::bindings::types },
        pub_export_macro: true,
        export_macro_name: "export_describe",
        default_bindings_module: "dualwright_sdk::bindings::describe",
    });
}

/// A transform, one way.
pub mod transform {
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/transform"],
        inline: "
            package dualwright:sdk-transform;
            world transform {
                export dualwright:transform/transform@0.1.0;
            }
        ",
        with: { "dualwright:types/types@0.1.0": crate::bindings::types },
        pub_export_macro: true,
        export_macro_name: "export_transform",
        default_bindings_module: "dualwright_sdk::bindings::transform",
    });
}

/// A validator before the write.
pub mod pre {
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/validate"],
        inline: "
            package dualwright:sdk-pre;
            world pre {
                export dualwright:validate/pre@0.1.0;
            }
        ",
        with: { "dualwright:types/types@0.1.0": crate::bindings::types },
        pub_export_macro: true,
        export_macro_name: "export_pre",
        default_bindings_module: "dualwright_sdk::bindings::pre",
    });
}

/// A validator after the write.
pub mod post {
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/validate"],
        inline: "
            package dualwright:sdk-post;
            world post {
                export dualwright:validate/post@0.1.0;
            }
        ",
        with: { "dualwright:types/types@0.1.0": crate::bindings::types },
        pub_export_macro: true,
        export_macro_name: "export_post",
        default_bindings_module: "dualwright_sdk::bindings::post",
    });
}

/// A table map.
pub mod table_map {
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/table-map"],
        inline: "
            package dualwright:sdk-table-map;
            world table-map {
                export dualwright:table-map/table-map@0.1.0;
            }
        ",
        with: { "dualwright:types/types@0.1.0": crate::bindings::types },
        pub_export_macro: true,
        export_macro_name: "export_table_map",
        default_bindings_module: "dualwright_sdk::bindings::table_map",
    });
}

/// The way back of a table map.
pub mod table_map_back {
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/table-map"],
        inline: "
            package dualwright:sdk-table-map-back;
            world table-map-back {
                export dualwright:table-map/table-map-back@0.1.0;
            }
        ",
        with: { "dualwright:types/types@0.1.0": crate::bindings::types },
        pub_export_macro: true,
        export_macro_name: "export_table_map_back",
        default_bindings_module: "dualwright_sdk::bindings::table_map_back",
    });
}

/// Table maps as data.
pub mod declare {
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/table-map"],
        inline: "
            package dualwright:sdk-declare;
            world declare {
                export dualwright:table-map/declare@0.1.0;
            }
        ",
        with: { "dualwright:types/types@0.1.0": crate::bindings::types },
        pub_export_macro: true,
        export_macro_name: "export_declare",
        default_bindings_module: "dualwright_sdk::bindings::declare",
    });
}
