//! The table maps that come with the program, the tables they stand on, and rows for them.
//!
//! Owns `catalogue/`: a manifest, one map a file, and the tables of both emulated systems that the demo does not define.
//! Names, columns, types and value maps are facts of the published entities and tables; for the maps of projects, of
//! which no list of fields is published, they follow from the published columns of both sides. Knows no pipeline, no
//! store and no socket.

pub mod generate;

use std::collections::BTreeSet;

use dualwright_core::SystemKind;
use dualwright_core::mapping::{Leg, Mapping};
use dualwright_emulator::{TableDefinition, read_tables};
use serde::Deserialize;

use crate::demo::{DATAVERSE_TABLES, FINOPS_TABLES};

/// The whole catalogue, parents first.
#[derive(Debug, Clone)]
pub struct Catalogue {
    maps: Vec<CatalogueMap>,
}

/// One map that is ready to be added.
#[derive(Debug, Clone)]
pub struct CatalogueMap {
    pub slug: String,
    /// What it is a part of: `sales-orders` has headers and lines.
    pub scenario: String,
    /// One line for people.
    pub summary: String,
    /// Dataverse column paths, company included.
    pub integration_key: Vec<String>,
    /// Slugs of the maps whose rows its lookups lead to, not those behind them.
    pub prerequisites: Vec<String>,
    /// The file as it is.
    pub json: &'static str,
    mapping: Mapping,
}

/// Which way the rows of a map go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapDirection {
    ToDataverse,
    ToFinops,
    BothWays,
}

impl MapDirection {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToDataverse => "to Dataverse",
            Self::ToFinops => "to F&O",
            Self::BothWays => "both ways",
        }
    }

    #[must_use]
    pub fn of(leg: &Leg) -> Self {
        let goes_to = |target| leg.fields.iter().any(|field| field.direction.goes_to(target));
        match (goes_to(SystemKind::Dataverse), goes_to(SystemKind::Finops)) {
            (true, true) => Self::BothWays,
            (false, true) => Self::ToFinops,
            (_, false) => Self::ToDataverse,
        }
    }
}

/// How many rows an initial sync writes at a time, as Dual-write does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Threading {
    /// Row after row, because each row writes several tables that others share.
    Single,
    Multi,
}

impl Threading {
    /// Of a Dataverse table, by its entity set. Source: Microsoft Learn, "Considerations for initial sync".
    #[must_use]
    pub fn of_set(set: &str) -> Self {
        const SINGLE: [&str; 9] = [
            "accounts",
            "cdm_employments",
            "cdm_positionworkerassignmentmaps",
            "msdyn_inventorylocations",
            "msdyn_productcategories",
            "msdyn_shipvias",
            "msdyn_taxcodes",
            "msdyn_vendors",
            "msdyn_warehouses",
        ];
        if SINGLE.iter().any(|single| single.eq_ignore_ascii_case(set)) { Self::Single } else { Self::Multi }
    }

    /// Rows that one run should carry from Dataverse to F&O, per legal entity.
    #[must_use]
    pub const fn rows_max(self) -> u64 {
        match self {
            Self::Single => 70_000,
            Self::Multi => 500_000,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Multi => "multi",
        }
    }
}

/// Why the catalogue that was built in does not hold together; a test keeps this from happening.
#[derive(Debug, thiserror::Error)]
#[error("the catalogue of maps: {0}")]
pub struct CatalogueError(String);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    slug: String,
    scenario: String,
    summary: String,
    integration_key: Vec<String>,
    prerequisites: Vec<String>,
}

const MANIFEST: &str = include_str!("../../catalogue/manifest.json");

macro_rules! files {
    ($($slug:literal)*) => {
        &[$(($slug, include_str!(concat!("../../catalogue/maps/", $slug, ".json")))),*]
    };
}

/// The files of the maps, by slug.
const FILES: &[(&str, &str)] = files![
    "legal-entities" "currencies" "ledgers" "units" "parties" "payment-days" "payment-schedules" "payment-terms"
    "customer-payment-methods" "vendor-payment-methods" "sales-tax-groups" "customer-groups" "vendor-groups" "vendors"
    "customers-accounts" "customers-contacts" "products" "released-products" "released-distinct-products" "sites"
    "warehouses" "terms-of-delivery" "modes-of-delivery" "sales-order-origins" "price-customer-groups"
    "sales-order-headers" "sales-order-lines" "on-hand-requests" "on-hand-entries" "project-contracts" "projects"
    "project-tasks"
];

impl Catalogue {
    /// What was built in.
    pub fn embedded() -> Result<Self, CatalogueError> {
        let entries: Vec<Entry> = serde_json::from_str(MANIFEST).map_err(|error| CatalogueError(error.to_string()))?;
        let mut maps: Vec<CatalogueMap> = Vec::with_capacity(entries.len());
        for entry in entries {
            let broken = |what: &str| CatalogueError(format!("{}: {what}", entry.slug));
            let (_, json) = FILES.iter().find(|(slug, _)| *slug == entry.slug).ok_or_else(|| broken("has no file"))?;
            let mapping = Mapping::parse(json).map_err(|problems| broken(&format!("{problems:?}")))?;
            if mapping.legs.len() != 1 {
                return Err(broken("has not one leg"));
            }
            if let Some(late) = entry.prerequisites.iter().find(|own| maps.iter().all(|map| map.slug != **own)) {
                return Err(broken(&format!("comes before {late}")));
            }
            maps.push(CatalogueMap {
                slug: entry.slug,
                scenario: entry.scenario,
                summary: entry.summary,
                integration_key: entry.integration_key,
                prerequisites: entry.prerequisites,
                json,
                mapping,
            });
        }
        Ok(Self { maps })
    }

    #[must_use]
    pub fn maps(&self) -> &[CatalogueMap] {
        &self.maps
    }

    #[must_use]
    pub fn map(&self, slug: &str) -> Option<&CatalogueMap> {
        self.maps.iter().find(|map| map.slug == slug)
    }

    /// The scenarios, in the order of their first maps.
    #[must_use]
    pub fn scenarios(&self) -> Vec<&str> {
        let mut scenarios = Vec::new();
        for map in &self.maps {
            if !scenarios.contains(&map.scenario.as_str()) {
                scenarios.push(&map.scenario);
            }
        }
        scenarios
    }

    /// The maps that a name means: one map, or all of a scenario. Empty for a name that means nothing.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<&CatalogueMap> {
        match self.map(name) {
            // A scenario may be called like one of its maps; whoever names it wants all of it.
            Some(map) if map.scenario != name => vec![map],
            _ => self.maps.iter().filter(|map| map.scenario == name).collect(),
        }
    }

    /// These maps and all that they need, parents first.
    #[must_use]
    pub fn with_prerequisites(&self, wanted: &[&CatalogueMap]) -> Vec<&CatalogueMap> {
        let mut slugs = wanted.iter().map(|map| map.slug.as_str()).collect::<BTreeSet<_>>();
        // Prerequisites stand before whoever needs them, so that one way back finds all.
        for map in self.maps.iter().rev() {
            if slugs.contains(map.slug.as_str()) {
                slugs.extend(map.prerequisites.iter().map(String::as_str));
            }
        }
        self.maps.iter().filter(|map| slugs.contains(map.slug.as_str())).collect()
    }
}

impl CatalogueMap {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.mapping.name
    }

    /// The only leg.
    #[must_use]
    pub fn leg(&self) -> &Leg {
        &self.mapping.legs[0]
    }

    #[must_use]
    pub fn direction(&self) -> MapDirection {
        MapDirection::of(self.leg())
    }

    #[must_use]
    pub fn threading(&self) -> Threading {
        Threading::of_set(&self.leg().dataverse_set)
    }
}

/// The tables of one emulated system on which the catalogue and the demo stand.
pub fn tables(kind: SystemKind) -> Result<Vec<TableDefinition>, CatalogueError> {
    let (demo, own) = match kind {
        SystemKind::Finops => (FINOPS_TABLES, include_str!("../../catalogue/finops-tables.json")),
        SystemKind::Dataverse => (DATAVERSE_TABLES, include_str!("../../catalogue/dataverse-tables.json")),
    };
    let mut tables = Vec::new();
    for json in [demo, own] {
        tables.extend(read_tables(json).map_err(|error| CatalogueError(format!("{error:#}")))?.tables);
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_holds_together() {
        let catalogue = Catalogue::embedded().expect("a catalogue");
        assert_eq!(catalogue.maps().len(), FILES.len(), "a file is not in the manifest");
        let finops = tables(SystemKind::Finops).expect("tables");
        let dataverse = tables(SystemKind::Dataverse).expect("tables");
        for map in catalogue.maps() {
            let leg = map.leg();
            let entity = leg.finops_distinct_name.as_deref();
            assert!(
                finops.iter().any(|table| table.entity.as_deref() == Some(&leg.finops_entity)
                    && entity.is_none_or(|name| table.entity_name.as_deref() == Some(name))),
                "{}: the F&O emulator has no {}",
                map.slug,
                leg.finops_entity
            );
            assert!(dataverse.iter().any(|table| table.set == leg.dataverse_set), "{}", map.slug);
            // What lookups lead to is a map that comes before, or the map itself.
            for set in leg.fields.iter().filter_map(|field| field.related_set.as_deref()) {
                let is_there = map
                    .prerequisites
                    .iter()
                    .filter_map(|slug| catalogue.map(slug))
                    .chain([map])
                    .any(|other| other.leg().dataverse_set == set);
                assert!(is_there, "{}: no prerequisite writes {set}", map.slug);
            }
            assert_eq!(Mapping::parse(&map.mapping.to_json()).as_ref(), Ok(&map.mapping), "{}", map.slug);
            assert!(map.summary.len() <= 80 && !map.summary.ends_with('.'), "{}", map.summary);
        }
    }

    #[test]
    fn a_name_means_a_map_or_a_scenario_and_what_they_need_comes_first() {
        let catalogue = Catalogue::embedded().expect("a catalogue");
        let slugs = |maps: Vec<&CatalogueMap>| maps.iter().map(|map| map.slug.clone()).collect::<Vec<_>>().join(" ");
        for (name, wanted) in [
            ("currencies", "currencies"),
            (
                "sales-orders",
                "terms-of-delivery modes-of-delivery sales-order-origins price-customer-groups sales-order-headers \
                 sales-order-lines",
            ),
            ("projects", "project-contracts projects project-tasks"),
            ("project-tasks", "project-tasks"),
            ("nothing", ""),
        ] {
            assert_eq!(slugs(catalogue.named(name)), wanted, "{name}");
        }
        let needed = slugs(catalogue.with_prerequisites(&catalogue.named("project-tasks")));
        assert_eq!(
            needed,
            "legal-entities currencies parties payment-days payment-schedules payment-terms customer-payment-methods \
             vendor-payment-methods sales-tax-groups customer-groups vendor-groups vendors customers-accounts \
             customers-contacts project-contracts projects project-tasks"
        );
    }

    #[test]
    fn direction_and_threading_follow_from_the_map() {
        let catalogue = Catalogue::embedded().expect("a catalogue");
        let of =
            |slug: &str| catalogue.map(slug).map(|map| (map.direction(), map.threading(), map.threading().rows_max()));
        assert_eq!(of("vendors"), Some((MapDirection::BothWays, Threading::Single, 70_000)));
        assert_eq!(of("released-products"), Some((MapDirection::ToDataverse, Threading::Multi, 500_000)));
    }
}
