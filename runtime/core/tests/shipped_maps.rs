//! The shipped Dual-write maps, read from `DUALWRIGHT_DATA` (its README says where they come from): every one parses and
//! is given out as it came, and what validation finds in them is a reviewed list.

mod published;

use std::path::Path;

use dualwright_core::filter::{parse_dataverse, parse_finops};
use dualwright_core::mapping::{Document, Encoding, Mapping, Problem, Severity};
use dualwright_core::plan::{PlanInput, PlanSettings, compile};
use published::{Schemas, data, keys, map_files, read};
use serde_json::Value as Json;

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

#[test]
fn every_shipped_map_parses_single_and_double_encoded() {
    let Some(data) = data() else { return };
    let files = map_files(&data);
    assert_eq!(files.len(), 137);
    let (mut fields, mut filters) = (0, 0);
    for file in files {
        let text = read(&file);
        let map = Mapping::parse(&text).unwrap_or_else(|all| panic!("{}:{}", file.display(), listed(&all)));
        let double = serde_json::to_string(&text).expect("a text is JSON");
        assert_eq!(Mapping::parse(&double).expect("double encoded"), map, "{}", file.display());
        let document = Document::parse(&double).expect("double encoded");
        assert_eq!(document.export(Encoding::AsImported, document.facts()), double, "{}", file.display());
        assert_eq!(document.export(Encoding::Plain, document.facts()), text, "{}", file.display());
        assert_eq!(Mapping::parse(&map.to_json()).expect("written anew"), map, "{}", file.display());
        let written: Json = serde_json::from_str(&text).expect("JSON");
        for (leg, written) in map.legs.iter().zip(written["legs"].as_array().expect("legs")) {
            assert_eq!(leg.fields.len(), written["fieldMappings"].as_array().expect("fields").len());
            fields += leg.fields.len();
            for (field, written) in leg.fields.iter().zip(written["fieldMappings"].as_array().expect("fields")) {
                let path = field.dataverse.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
                assert_eq!(path, written["destinationField"], "{}", file.display());
            }
            if !leg.finops_filter.is_empty() {
                parse_finops(&leg.finops_filter).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                filters += 1;
            }
            if !leg.dataverse_filter.is_empty() {
                parse_dataverse(&leg.dataverse_filter).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                filters += 1;
            }
        }
    }
    assert_eq!((fields, filters), (1_782, 23));
}

const FINDINGS_ARE: &str = "\
# What validation finds in the shipped maps against the published tables, reviewed. One line each:
# set - entity | severity | code | place | message
# DIPV1003: no key is published for the map. DIPV1012 and DIPV1030: the published table has a number where the map has
# the name of a table (objecttypecode), or lacks a column of the sales solution (msdyn_isreadytosync).
";

/// What validation says of every shipped map, reviewed line by line: `set - entity`, severity, code, place, message.
/// Types of the published schemas are inferred in part, so nothing that follows from a type alone may be an error.
#[test]
fn findings_about_the_shipped_maps_are_the_reviewed_ones() {
    let Some(data) = data() else { return };
    let schemas = Schemas::read(&data);
    let keys = keys(&data);
    let mut found = FINDINGS_ARE.to_owned();
    let (mut compiled, mut maps) = (0, 0);
    let started = std::time::Instant::now();
    for file in map_files(&data) {
        let text = read(&file);
        let mapping = Mapping::parse(&text).expect("parses, see the other test");
        maps += 1;
        for leg in &mapping.legs {
            let name = format!("{} - {}", leg.dataverse_set, leg.finops_entity);
            let (Some(dataverse), Some(finops)) =
                (schemas.dataverse.get(&leg.dataverse_set), schemas.finops.get(&leg.finops_entity.to_lowercase()))
            else {
                panic!("no schema for {name}")
            };
            let own_key = keys.get(&leg.dataverse_set);
            let input = PlanInput {
                leg,
                finops,
                dataverse,
                integration_key: own_key.map_or(&[], Vec::as_slice),
                tables: &|set| schemas.dataverse.get(set).cloned(),
                key_of_set: &|set| keys.get(set).cloned(),
                settings: PlanSettings::default(),
            };
            let problems = match compile(&input) {
                Ok(plan) => {
                    compiled += 1;
                    plan.notices
                }
                Err(problems) => problems,
            };
            for problem in problems {
                let Problem { place, message, severity, foreign_code, .. } = problem;
                let severity = match severity {
                    Severity::Error => "error",
                    Severity::Notice => "notice",
                };
                found.push_str(&format!(
                    "{name} | {severity} | {} | {place} | {message}\n",
                    foreign_code.unwrap_or("-")
                ));
            }
        }
    }
    println!("{maps} maps validated in {:?}, {compiled} without errors", started.elapsed());
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shipped-findings.txt"));
    if std::env::var_os("DUALWRIGHT_BLESS").is_some() {
        std::fs::write(golden, &found).expect("the list can be written");
    }
    let wanted = read(golden);
    let (wanted, found) = (wanted.lines().collect::<Vec<_>>(), found.lines().collect::<Vec<_>>());
    let new = found.iter().filter(|line| !wanted.contains(line)).copied().collect::<Vec<_>>();
    let gone = wanted.iter().filter(|line| !found.contains(line)).copied().collect::<Vec<_>>();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new:\n{}\ngone:\n{}\nrun the test with DUALWRIGHT_BLESS=1 and review what changed",
        new.join("\n"),
        gone.join("\n")
    );
    assert_eq!((maps, wanted.len()), (137, found.len()));
}
