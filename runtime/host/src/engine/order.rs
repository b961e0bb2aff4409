//! Parents first: the order in which maps run.
//!
//! Pure. A map comes after every map whose table one of its lookups points to; among maps that are free to go, the
//! order of the configuration decides.

use std::collections::{BTreeMap, BTreeSet};

/// What the order needs to know of a map.
#[derive(Debug, Clone)]
pub struct Node {
    /// The Dataverse table that the map writes.
    pub set: String,
    /// The Dataverse tables that its lookups point to.
    pub refers_to: BTreeSet<String>,
}

/// Positions of `nodes` in running order, and the positions where a circle had to be cut: such a map runs before one
/// of its parents, and rows that miss that parent are tried again when it has arrived.
#[must_use]
pub fn parents_first(nodes: &[Node]) -> (Vec<usize>, Vec<usize>) {
    let mut writers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, node) in nodes.iter().enumerate() {
        writers.entry(&node.set).or_default().push(position);
    }
    let mut waiting = nodes
        .iter()
        .enumerate()
        .map(|(position, node)| {
            let parents = node
                .refers_to
                .iter()
                .filter(|set| **set != node.set)
                .filter_map(|set| writers.get(set.as_str()))
                .flatten()
                .copied()
                .filter(|parent| *parent != position)
                .collect::<BTreeSet<_>>();
            (position, parents)
        })
        .collect::<BTreeMap<_, _>>();
    let mut order = Vec::with_capacity(nodes.len());
    let mut cut = Vec::new();
    while let Some(&first) = waiting.keys().next() {
        let free = waiting.iter().find(|(_, parents)| parents.is_empty()).map(|(position, _)| *position);
        let next = free.unwrap_or_else(|| {
            cut.push(first);
            first
        });
        waiting.remove(&next);
        for parents in waiting.values_mut() {
            parents.remove(&next);
        }
        order.push(next);
    }
    (order, cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nodes: &[(&str, &[&str])], wanted: &[usize], cut: &[usize]) {
        let nodes = nodes
            .iter()
            .map(|(set, refers_to)| Node {
                set: (*set).to_owned(),
                refers_to: refers_to.iter().map(|set| (*set).to_owned()).collect(),
            })
            .collect::<Vec<_>>();
        assert_eq!(parents_first(&nodes), (wanted.to_vec(), cut.to_vec()));
    }

    #[test]
    fn maps_run_after_what_they_refer_to() {
        check(
            &[("accounts", &["groups", "companies"]), ("groups", &["companies"]), ("companies", &[])],
            &[2, 1, 0],
            &[],
        );
        // Free ones keep the order of the configuration.
        check(&[("b", &[]), ("a", &[])], &[0, 1], &[]);
        // A table may refer to itself, and to tables that no map writes.
        check(&[("accounts", &["accounts", "systemusers"])], &[0], &[]);
        // Two maps may write one table.
        check(&[("lines", &["parties"]), ("parties", &[]), ("parties", &[])], &[1, 2, 0], &[]);
        // A circle is cut at the first map of the configuration.
        check(&[("accounts", &["contacts"]), ("contacts", &["accounts"]), ("notes", &["contacts"])], &[0, 1, 2], &[0]);
    }
}
