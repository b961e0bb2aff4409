//! What the maps of a link do about rows that are not there: the rules of the configuration, circles of references, and
//! who makes placeholders.

use dualwright_core::Missing;
use dualwright_core::mapping::Severity;
use dualwright_core::plan::{Flow, MapPlan};
use dualwright_core::{Schema, Value};

use super::prepare::Problems;
use crate::config::{Config, LookupConfig, MapConfig};
use crate::pipeline::{LinkMap, Placeholder, Role};

/// Puts the rules of a map on its plan.
pub(super) fn apply_rules(map: &MapConfig, plan: &mut MapPlan, dataverse: &Schema, problems: &mut Problems) {
    let rules = map.lookups.iter().map(|lookup| lookup.rule.clone()).collect::<Vec<_>>();
    for problem in plan.apply_lookup_rules(&rules, dataverse) {
        debug_assert_eq!(problem.severity, Severity::Error, "a rule is right or wrong");
        let place = format!("map `{}`, {}", map.slug, problem.place);
        problems.error("dualwright.toml", &place, &problem.message, &problem.remedy);
    }
}

/// Finds the lookups that close a circle: of rows of one table, or of maps, where one had to run before its parent.
/// `maps` are in running order.
pub(super) fn mark_circles(maps: &mut [LinkMap]) {
    let sets = maps.iter().map(|map| map.dataverse.table.schema.set.clone()).collect::<Vec<_>>();
    for (position, map) in maps.iter_mut().enumerate() {
        let Some(flow) = &mut map.plan.to_dataverse else { continue };
        for slot in 0..flow.lookups.len() {
            let closes = flow.lookups[slot]
                .sets
                .iter()
                .any(|set| *set == sets[position] || (sets.contains(set) && !sets[..position].contains(set)));
            flow.lookups[slot].late = closes && flow.can_come_late(slot);
        }
    }
}

/// Finds the map that makes the placeholders of each lookup that asks for them. `maps` are in running order.
pub(super) fn find_placeholders(config: &Config, maps: &mut [LinkMap], problems: &mut Problems) {
    for position in 0..maps.len() {
        let Some(own) = config.maps.iter().find(|own| *own.slug == *maps[position].slug) else { continue };
        let Some(flow) = &maps[position].plan.to_dataverse else { continue };
        if maps[position].role != Role::Ordinary || flow.lookups.iter().all(|slot| slot.missing != Missing::Stub) {
            continue;
        }
        let found = (0..flow.lookups.len())
            .map(|slot| {
                let name = flow.lookups[slot].name();
                if flow.lookups[slot].missing != Missing::Stub {
                    return None;
                }
                let named = |lookup: &&LookupConfig| {
                    lookup.rule.field.as_ref().is_some_and(|field| maps[position].plan.is_named(name, field))
                };
                let rule = own.lookups.iter().find(named);
                let rule = rule.or_else(|| own.lookups.iter().find(|lookup| lookup.rule.field.is_none()))?;
                match placeholder(flow, slot, rule, maps) {
                    Ok(found) => Some(found),
                    Err((what, remedy)) => {
                        let place = format!("map `{}`, lookup {name}", own.slug);
                        problems.error("dualwright.toml", &place, &what, &remedy);
                        None
                    }
                }
            })
            .collect();
        maps[position].placeholders = found;
    }
}

/// Who makes a placeholder for this lookup, and of what; or why nobody can, and what to do.
fn placeholder(
    flow: &Flow,
    slot: usize,
    rule: &LookupConfig,
    maps: &[LinkMap],
) -> Result<Placeholder, (String, String)> {
    let slot = &flow.lookups[slot];
    let instead = "or use fail, hold or default";
    let mut refused = None;
    for (set, name) in slot.sets.iter().enumerate() {
        let writers = maps.iter().enumerate().filter(|(_, map)| {
            map.role == Role::Ordinary
                && map.dataverse.table.schema.set == *name
                && rule.stub_map.as_ref().is_none_or(|slug| **slug == *map.slug)
        });
        for (position, map) in writers {
            let Some(writer) = &map.plan.to_dataverse else { continue };
            match placeholder_by(slot, set, writer, map, rule) {
                Ok(columns) => return Ok(Placeholder { map: position, set: name.clone(), columns }),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
    }
    Err(refused.unwrap_or_else(|| {
        let sets = slot.sets.join(" or ");
        let what = match &rule.stub_map {
            None => format!("no map writes {sets}, so nobody makes placeholders there"),
            Some(slug) => format!("map `{slug}` does not write {sets}"),
        };
        (what, format!("add a map that writes it, {instead}"))
    }))
}

fn placeholder_by(
    slot: &dualwright_core::lookup::LookupSlot,
    set: usize,
    writer: &Flow,
    map: &LinkMap,
    rule: &LookupConfig,
) -> Result<Vec<(usize, Value)>, (String, String)> {
    if !slot.complete {
        let what =
            format!("it does not hold the whole key of {}, so a placeholder would have half a key", slot.sets[set]);
        return Err((what, "map every key column behind the lookup, or use fail, hold or default".to_owned()));
    }
    let mut columns = Vec::with_capacity(rule.stub_columns.len());
    for (path, text) in &rule.stub_columns {
        match writer.given_field(path, text) {
            Ok(given) => columns.push(given),
            Err(what) => {
                return Err((format!("a placeholder of map `{}`: {what}", map.slug), "correct columns".to_owned()));
            }
        }
    }
    let gaps = writer.placeholder_gaps(slot, set, &columns).join(", ");
    if gaps.is_empty() {
        return Ok(columns);
    }
    let what = format!("a placeholder of map `{}` would leave {gaps} empty, which Dataverse requires", map.slug);
    Err((
        what,
        format!("give columns = {{ {} = \"…\" }}, or a Default to the map's field", gaps.replace(", ", " = \"…\", ")),
    ))
}
