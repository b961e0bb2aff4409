//! An admitted component: compiled, its imports and exports judged, its description read.

use std::sync::Arc;

use dualwright_core::mapping::{DataversePath, FieldDirection, FieldMapping, Leg, Mapping, Transform};
use dualwright_core::{Fault, error::Code};
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};
use wasmtime::{Engine, Precompiled};

use crate::bindings::{declare, describe, post, pre, table_map, table_map_back, transform, transform_back, wit};
use crate::checked::printable;
use crate::compiled::hex;
use crate::description::Description;
use crate::fault::CallFault;
use crate::guest::{Ground, Guest, GuestState, Label};
use crate::installation::outside_transactions;
use crate::parameters;
use crate::sandbox::Sandbox;
use crate::timing::Record;

/// Compiled guests of Rust, C and Go stay well below this.
const COMPONENT_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Problems named in one message.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Where in the path of a change a plugin is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtensionPoint {
    Transform,
    PreValidate,
    PostValidate,
    TableMap,
}

impl ExtensionPoint {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::PreValidate => "pre-validate",
            Self::PostValidate => "post-validate",
            Self::TableMap => "table-map",
        }
    }
}

/// A component that may be installed. Holds compiled code, no instance and nothing of a tenant.
pub struct Plugin {
    /// How the caller calls it.
    pub name: String,
    /// From its description. Identity is the digest.
    pub version: String,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The extension points it exports.
    pub points: Vec<ExtensionPoint>,
    /// Its transform has a way back.
    pub transforms_back: bool,
    /// Its table map has a way back.
    pub maps_back: bool,
    /// It declares table maps as data.
    pub declares_maps: bool,
    pub description: Description,
    pub(crate) code: InstancePre<GuestState>,
    pub(crate) exports: Exports,
    pub(crate) record: Arc<Record>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("digest", &self.digest)
            .field("points", &self.points)
            .finish_non_exhaustive()
    }
}

/// The interfaces of a component that this host knows.
pub(crate) struct Exports {
    describe: describe::GuestIndices,
    pub transform: Option<transform::GuestIndices>,
    pub transform_back: Option<transform_back::GuestIndices>,
    pub pre: Option<pre::GuestIndices>,
    pub post: Option<post::GuestIndices>,
    pub table_map: Option<table_map::GuestIndices>,
    pub table_map_back: Option<table_map_back::GuestIndices>,
    declare: Option<declare::GuestIndices>,
}

impl Plugin {
    pub(crate) fn admit(sandbox: &Sandbox, name: &str, bytes: &[u8]) -> Result<Self, Fault> {
        let invalid = |what: String| Fault::new(Code::PluginInvalid, format!("plugin {name}: {what}"));
        let shared = sandbox.shared();
        if COMPONENT_BYTES_MAX < bytes.len() {
            let mib = |bytes: usize| bytes.div_ceil(1024 * 1024);
            return Err(invalid(format!(
                "{} MiB are too large, {} are accepted",
                mib(bytes.len()),
                mib(COMPONENT_BYTES_MAX)
            )));
        }
        check_format(bytes).map_err(|what| invalid(what.to_owned()))?;
        let digest = hex(&Sha256::digest(bytes));
        let component = match shared.cache.as_ref().and_then(|cache| cache.load(&shared.engine, &digest)) {
            Some(component) => component,
            None => {
                let component = Component::from_binary(&shared.engine, bytes).map_err(|error| {
                    invalid(format!("it is not a valid component: {}", printable(&format!("{error:#}"), 500)))
                })?;
                if let Some(cache) = &shared.cache
                    && let Err(error) = cache.store(&digest, &component)
                {
                    tracing::warn!(plugin = name, %error, "its compiled code is not kept");
                }
                component
            }
        };
        let foreign = foreign_imports(&shared.engine, &component);
        if !foreign.is_empty() {
            return Err(invalid(format!(
                "it imports what plugins may not: {}; build it without WASI (wasm32-unknown-unknown for Rust)",
                listed(&foreign, ", ")
            )));
        }
        let code = shared.linker.instantiate_pre(&component).map_err(|error| {
            invalid(format!("its imports do not fit this host: {}", printable(&format!("{error:#}"), 500)))
        })?;
        let exports = Exports::of(&code).map_err(|what| invalid(printable(&what, 500)))?;
        let points = exports.points();
        if points.is_empty() && exports.declare.is_none() {
            let unknown = unknown_exports(&shared.engine, &component);
            let hint =
                if unknown.is_empty() { String::new() } else { format!("; it exports {}", listed(&unknown, ", ")) };
            return Err(invalid(format!("it exports no extension point that this host knows{hint}")));
        }

        let label = Label { plugin: format!("plugin {name}").into(), transaction: "admission".into() };
        // Admission belongs to no tenant; the empty name cannot be one.
        let tenant = sandbox.tenant("");
        let limits = &shared.settings.limits;
        let allowance = outside_transactions(limits);
        let cancelled = Arc::default();
        let ground = Ground { shared, tenant: &tenant, limits, cancelled: &cancelled };
        let mut guest = Guest::new(&code, ground, label, allowance).map_err(CallFault::into_fault)?;
        exports.check_types(&mut guest).map_err(|error| {
            invalid(format!("an export does not have the published type: {}", printable(&format!("{error:#}"), 500)))
        })?;
        let instance = guest.instance;
        let given = guest
            .enter(allowance, limits.goal, |store| exports.describe.load(&mut *store, &instance)?.call_describe(store));
        let given = given.map_err(CallFault::into_fault)?;
        let description = Description::checked(given)
            .map_err(|problems| invalid(format!("its description is not valid: {}", listed(&problems, "; "))))?;
        let record = sandbox.record(name, &description.version, &digest);
        Ok(Self {
            name: name.to_owned(),
            version: description.version.clone(),
            digest,
            points,
            transforms_back: exports.transform_back.is_some(),
            maps_back: exports.table_map_back.is_some(),
            declares_maps: exports.declare.is_some(),
            description,
            code,
            exports,
            record,
        })
    }

    pub(crate) fn declared_maps(&self, sandbox: &Sandbox, given: &serde_json::Value) -> Result<Vec<Mapping>, Fault> {
        let Some(declare) = &self.exports.declare else { return Ok(Vec::new()) };
        let plugin: Arc<str> = format!("plugin {} {}", self.name, self.version).into();
        let refused =
            |problems: Vec<String>| Fault::new(Code::PluginRefused, format!("{plugin}: {}", listed(&problems, "; ")));
        let settings = parameters::resolve(&self.description, given, None).map_err(refused)?;
        let lent = parameters::Lent::new(&settings);
        let label = Label { plugin: plugin.clone(), transaction: "declaration".into() };
        let limits = &sandbox.settings().limits;
        let allowance = outside_transactions(limits);
        let (tenant, cancelled) = (sandbox.tenant(""), Arc::default());
        let ground = Ground { shared: sandbox.shared(), tenant: &tenant, limits, cancelled: &cancelled };
        let mut guest = Guest::new(&self.code, ground, label, allowance).map_err(CallFault::into_fault)?;
        let instance = guest.instance;
        let declared = guest.enter(allowance, limits.goal, |store| {
            declare.load(&mut *store, &instance)?.call_declare(store, &lent.lend())
        });
        let declared = declared.map_err(CallFault::into_fault)?;
        let declared = declared.map_err(|refusals| refused(refusals.iter().map(refusal).collect()))?;
        let mut problems = Vec::new();
        let maps = declared.into_iter().map(|map| mapping(map, &mut problems)).collect();
        if problems.is_empty() {
            Ok(maps)
        } else {
            Err(Fault::new(Code::MapInvalid, format!("{plugin} declares: {}", listed(&problems, "; "))))
        }
    }
}

/// What the file is, if it is not a component.
fn check_format(bytes: &[u8]) -> Result<(), &'static str> {
    match Engine::detect_precompiled(bytes) {
        Some(Precompiled::Module | Precompiled::Component) => {
            return Err("it is compiled code, which is never accepted");
        }
        None => {}
    }
    // The magic number, then the version and the layer: 1 and 0 for modules, 13 and 1 for components.
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            Err("it is a core module, not a component; make one of it with wit-component")
        }
        _ => Err("it is not WebAssembly"),
    }
}

fn foreign_imports(engine: &Engine, component: &Component) -> Vec<String> {
    component
        .component_type()
        .imports(engine)
        .map(|(name, _)| name)
        .filter(|name| {
            // Versions below 1.0 are compatible within their minor version. `types` and others hold only types, which
            // need nothing of the host; a function in one of them does not link.
            let (interface, version) = name.split_once('@').unwrap_or((name, ""));
            !(interface.starts_with("dualwright:") && version.starts_with("0.1."))
        })
        .map(|name| printable(name, 200))
        .collect()
}

fn unknown_exports(engine: &Engine, component: &Component) -> Vec<String> {
    let described = |name: &&str| !name.starts_with("dualwright:plugin/describe");
    component
        .component_type()
        .exports(engine)
        .map(|(name, _)| name)
        .filter(described)
        .map(|name| printable(name, 200))
        .collect()
}

impl Exports {
    fn of(code: &InstancePre<GuestState>) -> Result<Self, String> {
        let has = |name: &str| code.component().get_export_index(None, name).is_some();
        let text = |error: wasmtime::Error| format!("{error:#}");
        macro_rules! optional {
            ($name:literal, $module:ident) => {
                if has($name) { Some($module::GuestIndices::new(code).map_err(text)?) } else { None }
            };
        }
        if !has("dualwright:plugin/describe@0.1.0") {
            return Err("it does not export dualwright:plugin/describe@0.1.0".to_owned());
        }
        Ok(Self {
            describe: describe::GuestIndices::new(code).map_err(text)?,
            transform: optional!("dualwright:transform/transform@0.1.0", transform),
            transform_back: optional!("dualwright:transform/transform-back@0.1.0", transform_back),
            pre: optional!("dualwright:validate/pre@0.1.0", pre),
            post: optional!("dualwright:validate/post@0.1.0", post),
            table_map: optional!("dualwright:table-map/table-map@0.1.0", table_map),
            table_map_back: optional!("dualwright:table-map/table-map-back@0.1.0", table_map_back),
            declare: optional!("dualwright:table-map/declare@0.1.0", declare),
        })
    }

    fn points(&self) -> Vec<ExtensionPoint> {
        [
            (self.transform.is_some(), ExtensionPoint::Transform),
            (self.pre.is_some(), ExtensionPoint::PreValidate),
            (self.post.is_some(), ExtensionPoint::PostValidate),
            (self.table_map.is_some(), ExtensionPoint::TableMap),
        ]
        .into_iter()
        .filter_map(|(there, point)| there.then_some(point))
        .collect()
    }

    /// Looks every function up once, so that a wrong type is found at admission.
    fn check_types(&self, guest: &mut Guest) -> wasmtime::Result<()> {
        let instance = guest.instance;
        let store = &mut guest.store;
        self.describe.load(&mut *store, &instance)?;
        macro_rules! check {
            ($($interface:ident)*) => {
                $(if let Some(indices) = &self.$interface { indices.load(&mut *store, &instance)?; })*
            };
        }
        check!(transform transform_back pre post table_map table_map_back declare);
        Ok(())
    }
}

fn mapping(map: declare::MapDeclaration, problems: &mut Vec<String>) -> Mapping {
    let name = printable(&map.name, 200);
    if map.legs.is_empty() || map.legs.iter().any(|leg| leg.fields.is_empty()) {
        problems.push(format!("map {name} has no legs, or a leg without fields"));
    }
    let legs = map.legs.into_iter().map(|leg| {
        let fields = leg.fields.into_iter().map(|field| FieldMapping {
            direction: match field.direction {
                declare::Direction::ToDataverse => FieldDirection::ToDataverse,
                declare::Direction::ToFinops => FieldDirection::ToFinops,
                declare::Direction::Both => FieldDirection::Both,
            },
            finops: field.finops,
            dataverse: field.dataverse.and_then(|path| {
                DataversePath::parse(&path)
                    .inspect_err(|what| problems.push(format!("map {name}: {}", printable(what, 300))))
                    .ok()
            }),
            transforms: field
                .transforms
                .into_iter()
                .map(|transform| match transform {
                    declare::BuiltIn::DefaultValue(value) => Transform::Default { value },
                    declare::BuiltIn::ValueMap((pairs, default)) => Transform::ValueMap { pairs, default },
                    declare::BuiltIn::Truncate(length) => Transform::Truncate { length },
                })
                .collect(),
            related_set: None,
        });
        Leg {
            finops_entity: leg.finops_entity,
            finops_distinct_name: None,
            dataverse_set: leg.dataverse_set,
            finops_filter: leg.finops_filter,
            dataverse_filter: leg.dataverse_filter,
            fields: fields.collect(),
        }
    });
    Mapping { legs: legs.collect(), name }
}

/// One refusal in one sentence.
pub(crate) fn refusal(refusal: &wit::Refusal) -> String {
    let message = printable(&refusal.message, 500);
    match (&refusal.parameter, &refusal.column) {
        (Some(parameter), _) => format!("parameter {}: {message}", printable(parameter, 80)),
        (None, Some(column)) => format!("column {}: {message}", printable(column, 200)),
        (None, None) => message,
    }
}

/// The first problems, and how many more there are.
pub(crate) fn listed(problems: &[String], separator: &str) -> String {
    let shown = problems.len().min(PROBLEMS_SHOWN_MAX);
    let mut text = problems[..shown].join(separator);
    if shown < problems.len() {
        text.push_str(&format!("{separator}and {} more", problems.len() - shown));
    }
    text
}
