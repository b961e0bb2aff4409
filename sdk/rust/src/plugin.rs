//! [`plugin!`](crate::plugin): from functions to the exports of a component.

/// Makes a crate a plugin: says what it is and which functions it offers. Once per crate.
///
/// ```
/// use dualwright_sdk::prelude::*;
///
/// fn shout(_: &(), text: &str, out: &mut String) {
///     out.extend(text.chars().flat_map(char::to_uppercase));
/// }
///
/// dualwright_sdk::plugin! {
///     name: "shout",
///     text: "Writes texts in upper case.",
///     state: (),
///     idempotent: true,
///     transform: text(shout),
/// }
/// # fn main() {}
/// ```
///
/// The parts, in this order; all but the first three may be left out:
///
/// | part | what it is |
/// |---|---|
/// | `name: "…"` | lower case with dashes |
/// | `text: "…"` | what it does and for whom |
/// | `state: T` | a `#[derive(Settings)]` struct, a type with `impl State`, or `()` |
/// | `issues: [A, B]` | every [`IssueText`](crate::IssueText) it can report |
/// | `idempotent: true` | a transform that changes nothing when applied to its own result |
/// | `reads_before: true` | wants the row before the change, [`Row::before`](crate::Row::before) |
/// | `transform: text(f)` | `f` is a [`TextFunction`](crate::transform::TextFunction): of each text of the bound columns |
/// | `transform: row(f)` | `fn(&T, &mut RowPatch<'_>) -> impl Verdict` |
/// | `pre_validate: f` | `fn(&T, Row<'_>, Option<Row<'_>>) -> impl Verdict`: the row proposed, and the target's as it is |
/// | `post_validate: f` | the same: the row sent, and the target's as it is stored |
/// | `table_map: f` | `fn(&T, Row<'_>, &mut Split<'_>) -> impl Verdict` |
/// | `table_map_back: f` | `fn(&T, Group<'_>, &mut Joined<'_>) -> impl Verdict` |
/// | `declare: f` | `fn(&T) -> Vec<MapDeclaration>`: table maps as data |
///
/// A [`Verdict`](crate::Verdict) is `()`, an `Issue`, an `Option` or a `Vec` of them, or a `Result<_, Issue>`.
///
/// The crate gets a type `Plugin` with what the host calls; unit tests reach it through [`testing`](crate::testing).
#[macro_export]
macro_rules! plugin {
    (
        name: $name:expr,
        text: $text:expr,
        state: $state:ty
        $(, issues: [$($issue:expr),* $(,)?])?
        $(, idempotent: $idempotent:expr)?
        $(, reads_before: $reads_before:expr)?
        $(, transform: $form:ident($transform:path))?
        $(, pre_validate: $pre:path)?
        $(, post_validate: $post:path)?
        $(, table_map: $table_map:path $(, table_map_back: $table_map_back:path)?)?
        $(, declare: $declare:path)?
        $(,)?
    ) => {
        /// The plugin as the host sees it.
        #[derive(Debug)]
        pub struct Plugin;

        const _: () = {
            use $crate::bindings::describe as bindings;
            use bindings::exports::dualwright::plugin::describe::{Description, Guest};

            impl Guest for Plugin {
                fn describe() -> Description {
                    $crate::description::About {
                        name: $name,
                        version: ::std::env!("CARGO_PKG_VERSION"),
                        text: $text,
                        issues: &[$($($issue),*)?],
                        idempotent: false $(|| $idempotent)?,
                        reads_before: false $(|| $reads_before)?,
                    }
                    .describe::<<$state as $crate::State>::Settings>()
                }
            }

            #[cfg(target_arch = "wasm32")]
            bindings::export_describe!(Plugin with_types_in bindings);
        };
        $($crate::__plugin_transform!($state, $form, $transform);)?
        $($crate::__plugin_validator!(pre, pre, export_pre, $state, $pre);)?
        $($crate::__plugin_validator!(post, post, export_post, $state, $post);)?
        $($crate::__plugin_table_map!($state, $table_map $(, $table_map_back)?);)?
        $($crate::__plugin_declare!($state, $declare);)?
    };
}

/// The instance of one exported interface.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_instance {
    ($state:ty) => {
        ::std::thread_local! {
            static INSTANCE: $crate::instance::Instance<$state> = ::std::default::Default::default();
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_transform {
    ($state:ty, text, $function:path) => {
        $crate::__plugin_transform!($state, $function, $crate::transform::apply_text, $crate::transform::check_text);
    };
    ($state:ty, row, $function:path) => {
        $crate::__plugin_transform!($state, $function, $crate::transform::apply_row, $crate::transform::check_bound);
    };
    ($state:ty, $function:path, $apply:path, $check:path) => {
        const _: () = {
            use bindings::exports::dualwright::transform::transform::{Guest, Patch};
            use $crate::bindings::transform as bindings;
            use $crate::bindings::types::{Batch, CallError, Context, Refusal, Schema, Setting};

            $crate::__plugin_instance!($state);

            impl Guest for Plugin {
                fn configure(input: Schema, settings: Vec<Setting>) -> Result<(), Vec<Refusal>> {
                    INSTANCE.with(|instance| instance.configure(input, Vec::new(), &settings, $check))
                }

                fn apply(context: Context, input: Batch) -> Result<Patch, CallError> {
                    let configured = INSTANCE.with(|instance| instance.get())?;
                    $apply($function, &configured, &context, &input)
                }
            }

            #[cfg(target_arch = "wasm32")]
    bindings::export_transform!(Plugin with_types_in bindings);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_validator {
    ($module:ident, $interface:ident, $export:ident, $state:ty, $function:path) => {
        const _: () = {
            use bindings::exports::dualwright::validate::$interface::Guest;
            use $crate::bindings::types::{Batch, CallError, Column, Context, Issue, Refusal, Schema, Setting};
            use $crate::bindings::$module as bindings;

            $crate::__plugin_instance!($state);

            impl Guest for Plugin {
                fn configure(input: Schema, settings: Vec<Setting>) -> Result<(), Vec<Refusal>> {
                    INSTANCE
                        .with(|instance| instance.configure(input, Vec::new(), &settings, $crate::instance::no_check))
                }

                fn check(context: Context, rows: Batch, counterparts: Vec<Column>) -> Result<Vec<Issue>, CallError> {
                    let configured = INSTANCE.with(|instance| instance.get())?;
                    $crate::validate::check($function, &configured, &context, &rows, &counterparts)
                }
            }

            #[cfg(target_arch = "wasm32")]
    bindings::$export!(Plugin with_types_in bindings);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_table_map {
    ($state:ty, $function:path $(, $back:path)?) => {
        const _: () = {
            use $crate::bindings::table_map as bindings;
            use $crate::bindings::types::{Batch, CallError, Context, Refusal, Schema, Setting};
            use bindings::exports::dualwright::table_map::table_map::{Guest, Mapped};

            $crate::__plugin_instance!($state);

            impl Guest for Plugin {
                fn configure(
                    source: Schema,
                    targets: Vec<Schema>,
                    settings: Vec<Setting>,
                ) -> Result<(), Vec<Refusal>> {
                    INSTANCE.with(|instance| {
                        instance.configure(source, targets, &settings, $crate::instance::no_check)
                    })
                }

                fn apply(context: Context, input: Batch) -> Result<Mapped, CallError> {
                    let configured = INSTANCE.with(|instance| instance.get())?;
                    $crate::table_map::apply($function, &configured, &context, &input)
                }
            }

            #[cfg(target_arch = "wasm32")]
            bindings::export_table_map!(Plugin with_types_in bindings);

            $($crate::__plugin_table_map_back!($back);)?
        };
    };
}

/// The way back shares the instance of the way there, because that is what is configured.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_table_map_back {
    ($function:path) => {
        const _: () = {
            use bindings::exports::dualwright::table_map::table_map_back::{Guest, Merged, Part};
            use $crate::bindings::table_map_back as bindings;
            use $crate::bindings::types::{CallError, Column, Context};

            impl Guest for Plugin {
                fn apply(
                    context: Context,
                    rows: u32,
                    parts: Vec<Part>,
                    current: Vec<Column>,
                ) -> Result<Merged, CallError> {
                    let configured = INSTANCE.with(|instance| instance.get())?;
                    $crate::table_map::apply_back($function, &configured, &context, rows, &parts, &current)
                }
            }

            #[cfg(target_arch = "wasm32")]
    bindings::export_table_map_back!(Plugin with_types_in bindings);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_declare {
    ($state:ty, $function:path) => {
        const _: () = {
            use bindings::exports::dualwright::table_map::declare::{Guest, MapDeclaration};
            use $crate::bindings::declare as bindings;
            use $crate::bindings::types::{Refusal, Setting};

            impl Guest for Plugin {
                fn declare(settings: Vec<Setting>) -> Result<Vec<MapDeclaration>, Vec<Refusal>> {
                    $crate::instance::without_tables::<$state>(&settings).map(|state| $function(&state))
                }
            }

            #[cfg(target_arch = "wasm32")]
    bindings::export_declare!(Plugin with_types_in bindings);
        };
    };
}
