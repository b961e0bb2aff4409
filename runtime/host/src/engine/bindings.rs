//! The plugins of a map: installed at their places, with what they are given and where they stand among the map's own
//! transforms.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dualwright_core::plan::Flow;
use dualwright_core::plan::chain::Place;
use dualwright_core::{Column, Schema, SystemKind};
use dualwright_sandbox::{ExtensionPoint, InstallationSpec, Plugin, Sandbox};

use super::prepare::Problems;
use crate::config::{BindingConfig, Config, MapConfig, Stage};
use crate::pipeline::Binding;

/// What bindings are made with.
pub(super) struct Workshop<'a> {
    pub config: &'a Config,
    pub map: &'a MapConfig,
    pub sandbox: &'a Sandbox,
    pub plugins: &'a HashMap<String, Arc<Plugin>>,
}

/// One binding that can stand where it is to.
struct Admitted<'a> {
    config: &'a BindingConfig,
    plugin: &'a Arc<Plugin>,
    point: ExtensionPoint,
    /// It takes back what the same binding does in the other direction.
    back: bool,
    place: String,
}

/// The places of plugins in the chains of a flow: per field, the bindings that stand in it and where, in their order.
type Chains = BTreeMap<usize, Vec<(usize, usize)>>;

impl Workshop<'_> {
    /// The bindings of one direction, in the order in which they are called. Cuts the chains of the flow at their places.
    pub(super) fn bindings(&self, flow: Option<&mut Flow>, target: &Schema, problems: &mut Problems) -> Vec<Binding> {
        let Some(flow) = flow else { return Vec::new() };
        let mut admitted = self.admitted(flow.target, problems);
        // What was done last is taken back first.
        if admitted.iter().any(|binding| binding.back) {
            admitted.reverse();
        }
        let chains = chains(&admitted, flow, problems);
        let mut list = Vec::with_capacity(admitted.len());
        for (number, binding) in admitted.iter().enumerate() {
            let named = binding.plugin.description.columns_in(&binding.config.parameters);
            let column_at = |field: usize| flow.column_in_chain(field, place_at(&chains, flow, field, number));
            let found = inputs(binding.config, &named, flow, &column_at, target, &binding.place, problems);
            let Some((inputs, granted)) = found else { continue };
            let (config, point) = (binding.config, binding.point);
            // What only a parameter names is read, not written.
            let writable =
                if point == ExtensionPoint::Transform { (0..config.fields.len()).collect() } else { Vec::new() };
            let spec = InstallationSpec {
                tenant: Arc::from(self.config.tenant.as_str()),
                place: format!("map {}, {}", self.map.slug, config.stage.name()),
                point,
                source: Arc::new(granted),
                targets: Vec::new(),
                writable,
                parameters: config.parameters.clone(),
                limits: Some(config.limits),
            };
            match self.sandbox.install(binding.plugin, spec) {
                Ok(installation) => list.push(Binding {
                    plugin: Arc::from(config.plugin.as_str()),
                    stage: config.stage,
                    installation,
                    inputs,
                    cuts: cuts_behind(&chains, number),
                    back: binding.back,
                    on_fault: config.on_fault,
                }),
                Err(fault) => problems.fault("dualwright.toml", &binding.place, &fault),
            }
        }
        for (field, stands) in chains {
            flow.cut_chain(field, &stands.iter().map(|(_, place)| *place).collect::<Vec<_>>());
        }
        list
    }

    /// The bindings that lead to `target` and that their plugins can serve, as they are written.
    fn admitted(&self, target: SystemKind, problems: &mut Problems) -> Vec<Admitted<'_>> {
        let mut admitted = Vec::new();
        for config in self.map.bindings.iter().filter(|binding| binding.targets.contains(&target)) {
            let place = format!("map `{}`, plugin `{}`", self.map.slug, config.plugin);
            let Some(plugin) = self.plugins.get(&config.plugin) else { continue };
            let point = match config.stage {
                Stage::Transform => ExtensionPoint::Transform,
                Stage::PreValidate => ExtensionPoint::PreValidate,
                Stage::PostValidate => ExtensionPoint::PostValidate,
            };
            if !plugin.points.contains(&point) {
                let message = format!("it has no {} to offer", config.stage.name());
                problems.error("dualwright.toml", &place, &message, "Bind it at a stage that `plugin inspect` lists");
                continue;
            }
            let both = config.targets.len() > 1;
            if point == ExtensionPoint::Transform && both && !plugin.description.idempotent && !plugin.transforms_back {
                problems.error(
                    "dualwright.toml",
                    &place,
                    "it is bound both ways, but it neither says that it is idempotent nor has a way back",
                    "Bind it in one direction; both sides would change the value for ever",
                );
                continue;
            }
            // A plugin that goes forth to Dataverse goes back to F&O; bound in one direction it only goes forth.
            let back =
                point == ExtensionPoint::Transform && plugin.transforms_back && both && target == SystemKind::Finops;
            admitted.push(Admitted { config, plugin, point, back, place });
        }
        admitted
    }
}

/// Where the transforms among `admitted` stand in the chains of their fields.
fn chains(admitted: &[Admitted<'_>], flow: &Flow, problems: &mut Problems) -> Chains {
    let mut chains = Chains::new();
    for (number, binding) in admitted.iter().enumerate() {
        if binding.point != ExtensionPoint::Transform {
            continue;
        }
        let written = binding.config.place;
        // A place is meant on the way to Dataverse where the binding goes both ways. Without one, whatever is to be taken
        // back stands behind everything that way, and something that may be done twice is done last on either way.
        let turned = flow.target == SystemKind::Finops
            && binding.config.targets.len() > 1
            && (binding.back || written != Place::Last);
        for name in &binding.config.fields {
            // A name that is no field's is told with the inputs.
            let Some(field) = field_called(flow, name) else { continue };
            match flow.place_in_chain(field, written, turned) {
                Ok(place) => chains.entry(field).or_default().push((number, place)),
                Err(what) => {
                    let remedy = "Name a transform that the field has in the map, or leave before and after out";
                    problems.error("dualwright.toml", &binding.place, &what, remedy);
                }
            }
        }
    }
    for (field, stands) in &mut chains {
        for pair in stands.windows(2) {
            if pair[1].1 < pair[0].1 {
                let (first, second) = (&admitted[pair[0].0], &admitted[pair[1].0]);
                let what = format!(
                    "on the way to {} it stands in front of plugin `{}` in the chain of {}, and is called after it",
                    flow.target, first.config.plugin, flow.fields[*field].column.name
                );
                problems.error("dualwright.toml", &second.place, &what, "List the two in the order of their places");
            }
        }
        let end = flow.chain_length(*field);
        // Whoever stands behind everything needs no cut: what is before leads there anyway.
        while stands.last().is_some_and(|(_, place)| *place == end) {
            stands.pop();
        }
        stands.sort_by_key(|(_, place)| *place);
    }
    chains.retain(|_, stands| !stands.is_empty());
    chains
}

/// How many steps are done with a field when this binding is called.
fn place_at(chains: &Chains, flow: &Flow, field: usize, number: usize) -> usize {
    let stands = chains.get(&field).map(Vec::as_slice).unwrap_or_default();
    let next = stands.iter().find(|(own, _)| *own >= number);
    next.map_or_else(|| flow.chain_length(field), |(_, place)| *place)
}

/// What is to be carried on when this binding was called: fields, and the cut that each is at.
fn cuts_behind(chains: &Chains, number: usize) -> Vec<(usize, usize)> {
    let cut = |(field, stands): (&usize, &Vec<(usize, usize)>)| {
        Some((*field, stands.iter().position(|(own, _)| *own == number)?))
    };
    chains.iter().filter_map(cut).collect()
}

fn field_called(flow: &Flow, name: &str) -> Option<usize> {
    flow.fields.iter().position(|field| field.is_called(name))
}

/// What a binding is given: positions (fields for a transform, target columns for a validator) and their columns.
fn inputs<'f>(
    binding: &BindingConfig,
    named: &[&str],
    flow: &'f Flow,
    column_at: &dyn Fn(usize) -> &'f Column,
    target: &Schema,
    place: &str,
    problems: &mut Problems,
) -> Option<(Vec<usize>, Schema)> {
    let mut positions = Vec::new();
    let mut columns = Vec::new();
    let given = |name: &str| binding.fields.iter().any(|field| field.eq_ignore_ascii_case(name));
    // A validator without fields sees every written column, so whatever a parameter names is there already.
    let everything = binding.fields.is_empty() && binding.stage != Stage::Transform;
    let read = named.iter().copied().filter(|name| !everything && !given(name));
    for name in binding.fields.iter().map(String::as_str).chain(read) {
        let Some(field) = field_called(flow, name) else {
            let known = flow
                .fields
                .iter()
                .filter_map(|field| field.finops.as_deref().or(field.dataverse.as_deref()))
                .collect::<Vec<_>>()
                .join(", ");
            problems.error(
                "dualwright.toml",
                place,
                &format!("the map has no field {name} that goes to {}", flow.target),
                &format!("Use one of: {known}"),
            );
            return None;
        };
        if binding.stage == Stage::Transform {
            positions.push(field);
            columns.push(called(column_at(field), name));
            continue;
        }
        let own = match flow.target {
            SystemKind::Finops => flow.fields[field].finops.as_deref(),
            SystemKind::Dataverse => flow.fields[field].dataverse.as_deref().and_then(|path| path.split('.').next()),
        };
        let index = own.and_then(|own| target.index_of(own));
        let position = index.and_then(|index| flow.target_columns.iter().position(|&column| column == index));
        let (Some(index), Some(position)) = (index, position) else {
            problems.error("dualwright.toml", place, &format!("field {name} is not written"), "Name another field");
            return None;
        };
        positions.push(position);
        columns.push(called(target.column(index), name));
    }
    if everything {
        positions = (0..flow.target_columns.len()).collect();
        columns = flow.target_columns.iter().map(|&index| target.column(index).clone()).collect();
    }
    Some((positions, Schema::new(flow.target, &target.table, &target.set, columns)))
}

/// A column as a binding calls it, so that the parameters beside it can use the same name.
pub(super) fn called(column: &Column, name: &str) -> Column {
    Column { name: Arc::from(name), ..column.clone() }
}
