//! A plugin with what it was granted: columns, writable columns, parameters.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use dualwright_core::{Column, Fault, Kind, Schema, SystemKind, error::Code};

use crate::batch::scale;
use crate::bindings::{post, pre, table_map, table_map_back, transform, transform_back, wit};
use crate::checked::Grant;
use crate::description::Access;
use crate::fault::{CallFault, FaultKind};
use crate::guest::{Ground, Guest, Label};
use crate::limits::Limits;
use crate::parameters::{Lent, Setting, resolve};
use crate::plugin::{ExtensionPoint, Plugin, listed, refusal};
use crate::sandbox::Sandbox;
use crate::tenant::Tenant;
use crate::warm::{History, Live, Shelf};
use crate::watch::Allowance;

/// A column's number crosses as u16.
const COLUMNS_MAX: usize = u16::MAX as usize;
const TARGETS_MAX: usize = 100;

/// What is to be installed.
#[derive(Debug, Clone)]
pub struct InstallationSpec {
    pub tenant: Arc<str>,
    /// For messages and timings: `map currencies, transform NAME`.
    pub place: String,
    pub point: ExtensionPoint,
    /// The granted columns, in the order of the rows that will be passed.
    pub source: Arc<Schema>,
    /// For a table map: the columns of each target table.
    pub targets: Vec<Arc<Schema>>,
    /// Indices of the columns of `source` that it may change.
    pub writable: Vec<usize>,
    /// A table of names and values.
    pub parameters: serde_json::Value,
    /// What it may use; `None` for the limits of the sandbox.
    pub limits: Option<Limits>,
}

/// A plugin in its place, accepted by itself and by the host.
#[derive(Debug)]
pub struct Installation {
    pub plugin: Arc<Plugin>,
    pub spec: InstallationSpec,
    pub limits: Limits,
    /// Tells installations of one sandbox apart.
    pub(crate) id: u64,
    /// `plugin text-cleanup 1.0.0 (map customers, transform NAME)`
    pub(crate) label: Arc<str>,
    settings: Vec<Setting>,
    source_writable: Vec<bool>,
    targets_writable: Vec<Vec<bool>>,
    pub(crate) shelf: Arc<Shelf>,
}

/// The functions of an instance that is configured for one place.
pub(crate) enum Functions {
    Transform(transform::Guest, Option<transform_back::Guest>),
    Pre(pre::Guest),
    Post(post::Guest),
    TableMap(table_map::Guest, Option<table_map_back::Guest>),
}

impl Installation {
    pub(crate) fn new(sandbox: &Sandbox, plugin: &Arc<Plugin>, spec: InstallationSpec, id: u64) -> Result<Self, Fault> {
        let label: Arc<str> = format!("plugin {} {} ({})", plugin.name, plugin.version, spec.place).into();
        let refused =
            |problems: Vec<String>| Fault::new(Code::PluginRefused, format!("{label}: {}", listed(&problems, "; ")));
        let mut problems = check_spec(plugin, &spec);
        let settings = match resolve(&plugin.description, &spec.parameters, Some(&spec.source)) {
            Ok(settings) => settings,
            Err(more) => {
                problems.extend(more);
                Vec::new()
            }
        };
        if !problems.is_empty() {
            return Err(refused(problems));
        }
        let mut source_writable = vec![false; spec.source.columns().len()];
        for &column in &spec.writable {
            source_writable[column] = true;
        }
        let writable = |column: &Column| !column.read_only;
        let targets_writable = spec.targets.iter().map(|t| t.columns().iter().map(writable).collect()).collect();
        let limits = spec.limits.unwrap_or(sandbox.settings().limits);
        let installation = Self {
            plugin: plugin.clone(),
            limits,
            spec,
            id,
            label,
            settings,
            source_writable,
            targets_writable,
            shelf: Arc::new(Shelf::new(limits)),
        };
        let tenant = sandbox.tenant(&installation.spec.tenant);
        let allowance = outside_transactions(&installation.limits);
        installation
            .instantiate(sandbox, &tenant, &Arc::default(), "start-up".into(), allowance)
            .map_err(CallFault::into_fault)?;
        Ok(installation)
    }

    /// A fresh instance, configured.
    pub(crate) fn instantiate(
        &self,
        sandbox: &Sandbox,
        tenant: &Arc<Tenant>,
        cancelled: &Arc<AtomicBool>,
        transaction: Arc<str>,
        allowance: Allowance,
    ) -> Result<Live, CallFault> {
        let started = Instant::now();
        let label = Label { plugin: self.label.clone(), transaction };
        let ground = Ground { shared: sandbox.shared(), tenant, limits: &self.limits, cancelled };
        let mut guest = Guest::new(&self.plugin.code, ground, label, allowance)?;
        let functions = self.functions(&mut guest)?;
        let lent = Lent::new(&self.settings);
        let settings = lent.lend();
        let source = LentSchema::new(&self.spec.source);
        let targets: Vec<LentSchema<'_>> = self.spec.targets.iter().map(|target| LentSchema::new(target)).collect();
        let configured = guest.enter(allowance, self.limits.goal, |store| {
            let input = source.lend(&self.source_writable);
            match &functions {
                Functions::Transform(guest, _) => guest.call_configure(store, input.schema(), &settings),
                Functions::Pre(guest) => guest.call_configure(store, input.schema(), &settings),
                Functions::Post(guest) => guest.call_configure(store, input.schema(), &settings),
                Functions::TableMap(guest, _) => {
                    let lent: Vec<_> =
                        targets.iter().zip(&self.targets_writable).map(|(t, writable)| t.lend(writable)).collect();
                    let targets: Vec<_> = lent.iter().map(LentColumns::schema).collect();
                    guest.call_configure(store, input.schema(), &targets, &settings)
                }
            }
        })?;
        configured.map_err(|refusals| {
            let problems: Vec<String> = refusals.iter().map(refusal).collect();
            FaultKind::Refused.fault(format!("{} refuses: {}", self.label, listed(&problems, "; ")))
        })?;
        let fuel = guest.take_fuel();
        self.plugin.record.instance(self.spec.point, started.elapsed(), fuel);
        let memory_bytes_first = guest.store.data().limiter.memory_bytes();
        let history = History { made: sandbox.shared().clocks.now(), transactions: 0, memory_bytes_first };
        Ok(Live { guest, functions, history })
    }

    fn functions(&self, guest: &mut Guest) -> Result<Functions, CallFault> {
        let exports = &self.plugin.exports;
        let (store, instance) = (&mut guest.store, &guest.instance);
        let mut load = || -> wasmtime::Result<Option<Functions>> {
            macro_rules! loaded {
                ($interface:ident) => {
                    match &exports.$interface {
                        Some(indices) => Some(indices.load(&mut *store, instance)?),
                        None => None,
                    }
                };
            }
            Ok(match self.spec.point {
                ExtensionPoint::Transform => match loaded!(transform) {
                    Some(forth) => Some(Functions::Transform(forth, loaded!(transform_back))),
                    None => None,
                },
                ExtensionPoint::PreValidate => loaded!(pre).map(Functions::Pre),
                ExtensionPoint::PostValidate => loaded!(post).map(Functions::Post),
                ExtensionPoint::TableMap => match loaded!(table_map) {
                    Some(forth) => Some(Functions::TableMap(forth, loaded!(table_map_back))),
                    None => None,
                },
            })
        };
        let functions = load().map_err(|error| FaultKind::Invalid.fault(format!("{}: {error:#}", self.label)))?;
        functions.ok_or_else(|| {
            FaultKind::Invalid.fault(format!("{} does not export {}", self.label, self.spec.point.name()))
        })
    }

    pub(crate) fn source_grant(&self) -> Grant<'_> {
        Grant { columns: self.spec.source.columns(), writable: &self.source_writable }
    }

    pub(crate) fn target_grants(&self) -> Vec<Grant<'_>> {
        (0..self.spec.targets.len()).filter_map(|target| self.target_grant(target)).collect()
    }

    pub(crate) fn target_grant(&self, target: usize) -> Option<Grant<'_>> {
        let columns = self.spec.targets.get(target)?.columns();
        Some(Grant { columns, writable: &self.targets_writable[target] })
    }
}

/// For calls that belong to no transaction, whose budget could end them.
pub(crate) fn outside_transactions(limits: &Limits) -> Allowance {
    Allowance { own: limits.hard_limit, wall: limits.wall_limit, budget: std::time::Duration::MAX }
}

/// All that is wrong with a specification, apart from its parameters.
fn check_spec(plugin: &Plugin, spec: &InstallationSpec) -> Vec<String> {
    let mut problems = Vec::new();
    if !plugin.points.contains(&spec.point) {
        let points: Vec<_> = plugin.points.iter().map(|point| point.name()).collect();
        problems.push(format!("it is no {}; it is {}", spec.point.name(), points.join(", ")));
    }
    let columns = spec.source.columns();
    if COLUMNS_MAX < columns.len() || spec.targets.iter().any(|target| COLUMNS_MAX < target.columns().len()) {
        problems.push(format!("a table with more than {COLUMNS_MAX} columns"));
    }
    if TARGETS_MAX < spec.targets.len() {
        problems.push(format!("more than {TARGETS_MAX} target tables"));
    }
    if (spec.point == ExtensionPoint::TableMap) == spec.targets.is_empty() {
        problems.push("a table map has target tables, and nothing else has any".to_owned());
    }
    for &column in &spec.writable {
        if columns.len() <= column {
            problems.push(format!("column {column} of {} is to be writable", columns.len()));
        }
    }
    for want in &plugin.description.columns {
        let table = if want.table.is_empty() {
            Some(&spec.source)
        } else {
            spec.targets.iter().chain([&spec.source]).find(|table| *table.set == *want.table)
        };
        let found = table.and_then(|table| Some((table, table.index_of(&want.name)?)));
        match found {
            None if want.required => {
                let of = if want.table.is_empty() { String::new() } else { format!(" of {}", want.table) };
                problems.push(format!("it needs the column {}{of}: {}", want.name, want.text));
            }
            None => {}
            Some((table, index)) => {
                let kind = table.column(index).kind;
                if !want.kinds.is_empty() && !want.kinds.contains(&kind) {
                    problems.push(format!("the column {} is {kind:?}, and it works with {:?}", want.name, want.kinds));
                }
                if want.access == Access::Write && Arc::ptr_eq(table, &spec.source) && !spec.writable.contains(&index) {
                    problems.push(format!("it writes the column {}, which is not granted for writing", want.name));
                }
            }
        }
    }
    problems
}

/// A schema in the shape that crosses: what has to be built once, and borrows from the schema.
struct LentSchema<'a> {
    schema: &'a Schema,
    options: Vec<Vec<wit::ChoiceOption<'a>>>,
    targets: Vec<Vec<&'a str>>,
}

struct LentColumns<'a> {
    schema: &'a Schema,
    columns: Vec<wit::ColumnDef<'a>>,
}

impl<'a> LentSchema<'a> {
    fn new(schema: &'a Schema) -> Self {
        let options = |column: &'a Column| match column.kind {
            Kind::Choice | Kind::MultiChoice => {
                column.options.iter().map(|(name, value)| wit::ChoiceOption { name, value: *value }).collect()
            }
            _ => Vec::new(),
        };
        let targets = |column: &'a Column| {
            column.lookup.iter().flat_map(|lookup| lookup.targets.iter().map(|target| &*target.set)).collect()
        };
        Self {
            schema,
            options: schema.columns().iter().map(options).collect(),
            targets: schema.columns().iter().map(targets).collect(),
        }
    }

    fn lend(&'a self, writable: &[bool]) -> LentColumns<'a> {
        let columns = self.schema.columns().iter().enumerate().map(|(index, column)| wit::ColumnDef {
            name: &column.name,
            kind: column.kind.code(),
            writable: writable[index],
            required: column.required,
            length_max: column.length_max.unwrap_or(0),
            scale: scale(column),
            options: &self.options[index],
            targets: &self.targets[index],
            extensions: &[],
        });
        LentColumns { schema: self.schema, columns: columns.collect() }
    }
}

impl LentColumns<'_> {
    fn schema(&self) -> wit::Schema<'_> {
        wit::Schema {
            system: system(self.schema.system),
            table: &self.schema.table,
            set: &self.schema.set,
            columns: &self.columns,
            extensions: &[],
        }
    }
}

pub(crate) const fn system(kind: SystemKind) -> wit::System {
    match kind {
        SystemKind::Finops => wit::System::Finops,
        SystemKind::Dataverse => wit::System::Dataverse,
    }
}
