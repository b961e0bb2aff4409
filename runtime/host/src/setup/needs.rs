//! What the maps of a configuration need of both systems: tables, and what is done with their rows.
//!
//! Owns reading maps as far as that goes; whether a map is right is said by `map check` and at a start.

use std::collections::BTreeMap;

use dualwright_core::SystemKind;
use dualwright_core::mapping::{Mapping, Reference};

use super::{Finding, companies};
use crate::config::{Config, MapConfig};
use crate::connect::metadata::Catalogue;

/// What is done with the rows of one table, by all maps together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Slugs.
    pub maps: Vec<String>,
    /// Its rows are written.
    pub written: bool,
    /// Its changes are taken to the other side.
    pub followed: bool,
    /// Rows that are written refer to other rows.
    pub refers: bool,
}

/// Tables by their set or collection.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub finops: BTreeMap<String, Use>,
    pub dataverse: BTreeMap<String, Use>,
    /// Some map carries rows of legal entities.
    pub has_companies: bool,
    /// The map that makes `cdm_companies` from `LegalEntities`.
    pub companies_map: Option<String>,
}

impl Needs {
    pub fn of(&self, system: SystemKind) -> &BTreeMap<String, Use> {
        match system {
            SystemKind::Finops => &self.finops,
            SystemKind::Dataverse => &self.dataverse,
        }
    }

    pub fn writes(&self, system: SystemKind) -> bool {
        self.of(system).values().any(|own| own.written)
    }

    pub fn follows(&self, system: SystemKind) -> bool {
        self.of(system).values().any(|own| own.followed)
    }
}

/// One pair of tables of a map.
struct Pair<'a> {
    slug: &'a str,
    collection: &'a str,
    set: &'a str,
    to_dataverse: bool,
    to_finops: bool,
    /// Some column leads to another row.
    refers: bool,
}

/// Reads the maps. What cannot be read, or names a table that is not there, is a finding.
pub(super) fn read(config: &Config, finops: &Catalogue, dataverse: &Catalogue) -> (Needs, Vec<Finding>) {
    let mut needs = Needs::default();
    let mut findings = Vec::new();
    for map in &config.maps {
        let mapping = match mapping_of(map) {
            Ok(mapping) => mapping,
            Err(what) => {
                findings.push(Finding::wrong(None, "maps", what).remedy("see `dualwright map check`"));
                continue;
            }
        };
        for leg in &mapping.legs {
            let distinct = leg.finops_distinct_name.as_deref().and_then(|name| finops.collection_of_entity(name));
            let collection = map
                .finops_collection
                .as_deref()
                .or(distinct)
                .or_else(|| finops.collection_of_entity(&leg.finops_entity));
            let Some(collection) = collection else {
                let what = format!("the public collection of {} of map `{}` is not known", leg.finops_entity, map.slug);
                findings.push(
                    Finding::wrong(SystemKind::Finops, "tables", what)
                        .remedy("give the map its finops_collection")
                        .foreign(Some("DIPV1018")),
                );
                continue;
            };
            let goes = |target| leg.fields.iter().any(|field| field.direction.goes_to(target));
            let paths = leg.fields.iter().filter_map(|field| field.dataverse.as_ref());
            let pair = Pair {
                slug: &map.slug,
                collection,
                set: &leg.dataverse_set,
                to_dataverse: goes(SystemKind::Dataverse),
                to_finops: goes(SystemKind::Finops),
                refers: map.integration_key.iter().any(|path| path.contains('.'))
                    || paths.into_iter().any(|path| path.reference != Reference::None),
            };
            findings.extend(needs.add(&pair, finops, dataverse));
        }
    }
    for map in &config.table_maps {
        for table in &map.tables {
            // Whether it leads back as well only its plugin knows.
            let (collection, set) = (&map.finops_collection, &table.set);
            let pair = Pair { slug: &map.slug, collection, set, to_dataverse: true, to_finops: true, refers: true };
            findings.extend(needs.add(&pair, finops, dataverse));
        }
    }
    let tables = config.table_maps.iter().flat_map(|map| &map.tables).map(|table| &table.integration_key);
    let mut keys = config.maps.iter().map(|map| &map.integration_key).chain(tables);
    needs.has_companies =
        keys.any(|key| key.iter().any(|path| path.to_ascii_lowercase().ends_with(".cdm_companycode")));
    let makers = needs.dataverse.get(companies::set_of(SystemKind::Dataverse)).filter(|own| own.written);
    needs.companies_map = makers.and_then(|own| own.maps.first().cloned());
    (needs, findings)
}

fn mapping_of(map: &MapConfig) -> Result<Mapping, String> {
    let file = map.file.display();
    let text = std::fs::read_to_string(&map.file)
        .map_err(|error| format!("{file} of map `{}` cannot be read: {error}", map.slug))?;
    Mapping::parse(&text).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        format!("{file} of map `{}` is no map: {first}", map.slug)
    })
}

impl Needs {
    /// Adds what a map does with its two tables; a table that is not there is a finding.
    fn add(&mut self, pair: &Pair<'_>, finops: &Catalogue, dataverse: &Catalogue) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (table, tables, known, system, written, followed) in [
            (pair.collection, &mut self.finops, finops, SystemKind::Finops, pair.to_finops, pair.to_dataverse),
            (pair.set, &mut self.dataverse, dataverse, SystemKind::Dataverse, pair.to_dataverse, pair.to_finops),
        ] {
            if !known.has_set(table) {
                let code = if system == SystemKind::Finops { "DIPV1018" } else { "DIPV1020" };
                let what = format!("there is no table {table}, which map `{}` needs", pair.slug);
                let finding = Finding::wrong(system, "tables", what);
                findings.push(finding.remedy("install what brings the table, or correct the map").foreign(Some(code)));
                continue;
            }
            let own = tables.entry(table.to_owned()).or_default();
            own.maps.push(pair.slug.to_owned());
            own.written |= written;
            own.followed |= followed;
            own.refers |= written && pair.refers;
        }
        findings
    }
}
