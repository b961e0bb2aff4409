//! The demo's data against its own promises, for the embedded set and, where it is there, for AdventureWorks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use dualwright_core::mapping::{Reference, Transform};
use dualwright_core::{Code, SystemKind};
use dualwright_emulator::{ColumnDefinition, ColumnKind, Dialect, Emulator};
use serde_json::Value;
use uuid::Uuid;

use super::dataverse::Translation;
use super::tables::{column, company_column, dataverse_key, finops_empty};
use super::*;

/// AdventureWorks, or why there is none.
fn adventureworks() -> Option<DataSource> {
    let Some(folder) = std::env::var_os("DUALWRIGHT_DATA") else {
        assert!(
            std::env::var_os("DUALWRIGHT_REQUIRE_ALL").is_none_or(|value| value != "1"),
            "DUALWRIGHT_DATA is not set and DUALWRIGHT_REQUIRE_ALL=1"
        );
        println!("SKIPPED: DUALWRIGHT_DATA names no folder with AdventureWorks");
        return None;
    };
    Some(DataSource::folder(Path::new(&folder)).expect("AdventureWorks is read"))
}

fn embedded() -> DataSource {
    DataSource::embedded().expect("the embedded data is read")
}

fn text<'r>(row: &'r Row, name: &str) -> &'r str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn key_of(source: &DataSource, set: &str, row: &Row) -> String {
    let table = source.tables().finops_table(set).expect("a table");
    table.key.iter().map(|name| text(row, name).trim_end().to_lowercase()).collect::<Vec<_>>().join("|")
}

fn count(sets: &[FinopsSet], set: &str) -> usize {
    sets.iter().find(|own| own.set == set).expect("a set").rows.len()
}

/// What a Dataverse column says against a value; `None` when it is fine.
fn misfit(column: &ColumnDefinition, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => {
            let longest = column.max_length? as usize;
            (text.trim_end().chars().count() > longest).then(|| format!("{} is longer than {longest}", column.name))
        }
        Value::Number(number) => {
            let number = number.as_f64()?;
            let beyond = |bound: &Option<serde_json::Number>, over: &dyn Fn(f64, f64) -> bool| {
                bound.as_ref().and_then(serde_json::Number::as_f64).is_some_and(|bound| over(number, bound))
            };
            if beyond(&column.min, &|number, bound| number < bound)
                || beyond(&column.max, &|number, bound| number > bound)
            {
                return Some(format!("{} is out of range", column.name));
            }
            let unknown = column.kind == ColumnKind::Choice
                && !column.options.iter().any(|option| Some(option.value) == value.as_i64());
            unknown.then(|| format!("{} has no such option", column.name))
        }
        _ => None,
    }
}

/// Everything that is wrong with a row as Dataverse would take it, lookups apart.
fn misfits(translation: &Translation<'_>, row: &Row) -> Vec<String> {
    let columns = translation.new_row(row);
    let table = translation.dataverse;
    let mut found = Vec::new();
    for (name, value) in &columns.values {
        found.extend(misfit(column(table, name).expect("a column"), value));
    }
    for column in table.columns.iter().filter(|column| column.required) {
        if columns
            .values
            .get(&column.name)
            .is_none_or(|value| value.as_str().is_some_and(|text| text.trim().is_empty()))
        {
            found.push(format!("{} is required", column.name));
        }
    }
    for field in translation.map.fields_to_dataverse() {
        let (Some(name), Some(path)) = (&field.finops, &field.dataverse) else { continue };
        let own = column(translation.finops, name).expect("a column");
        let value = row.get(&own.name).cloned().unwrap_or_else(|| finops_empty(own));
        let is_mapped = field.transforms.iter().any(|transform| matches!(transform, Transform::ValueMap { .. }));
        if is_mapped && value.as_str() != Some("") && !columns.values.contains_key(&path.column) {
            found.push(format!("{} has a value that is not mapped", path.column));
        }
    }
    found
}

#[test]
fn maps_name_only_what_both_tables_have() {
    let mut sources = vec![embedded()];
    sources.extend(adventureworks());
    for source in sources {
        assert_eq!(source.maps().len(), 15);
        for map in source.maps() {
            let slug = map.facts.slug;
            let translation = Translation::new(map, source.tables()).expect(slug);
            assert_eq!(translation.finops.entity.as_deref(), Some(map.leg().finops_entity.as_str()), "{slug}");
            for field in &map.leg().fields {
                if let Some(name) = &field.finops {
                    assert!(column(translation.finops, name).is_some(), "{slug}: {name}");
                }
                let Some(path) = &field.dataverse else { continue };
                let own =
                    column(translation.dataverse, &path.column).unwrap_or_else(|| panic!("{slug}: {}", path.column));
                match &path.reference {
                    Reference::None => assert_ne!(own.kind, ColumnKind::Lookup, "{slug}: {}", path.column),
                    Reference::Path(steps) => {
                        let set = field.related_set.as_deref().expect("a related set");
                        let related = source.tables().dataverse_table(set).unwrap_or_else(|| panic!("{slug}: {set}"));
                        assert!(
                            own.targets.iter().any(|target| target.table == related.name),
                            "{slug}: {}",
                            path.column
                        );
                        assert!(column(related, &steps[0]).is_some(), "{slug}: {set}.{}", steps[0]);
                        assert!(!dataverse_key(related).is_empty(), "{slug}: {set}");
                    }
                    Reference::ByTable(_) => panic!("{slug}: {} is polymorphic", path.column),
                }
            }
            // The integration key is what the table's own key says.
            let heads = map.facts.integration_key.iter().map(|path| path.split('.').next().unwrap_or_default());
            let heads = heads.collect::<BTreeSet<_>>();
            assert_eq!(heads, dataverse_key(translation.dataverse).iter().map(String::as_str).collect(), "{slug}");
            let has_company = translation.finops.key.iter().any(|name| name == "dataAreaId");
            assert_eq!(company_column(translation.dataverse).is_some(), has_company, "{slug}");
        }
    }
}

#[test]
fn every_lookup_target_is_a_table() {
    let source = embedded();
    for table in &source.tables().dataverse {
        for target in table.columns.iter().flat_map(|column| &column.targets) {
            assert!(source.tables().dataverse_set(&target.table).is_some(), "{}: {}", table.name, target.table);
        }
    }
}

#[test]
fn both_emulators_take_the_tables_and_the_rows() {
    let source = embedded();
    let dataverse = Emulator::open(Dialect::Dataverse, None).expect("opens");
    dataverse.define(&source.tables().dataverse).expect("Dataverse tables are defined");
    let finops = Emulator::open(Dialect::Finops, None).expect("opens");
    finops.define(&source.tables().finops).expect("F&O tables are defined");
    for FinopsSet { set, rows } in source.finops_rows().expect("rows") {
        let wanted = rows.len();
        finops.seed(set, rows).unwrap_or_else(|error| panic!("{set}: {error:#}"));
        assert_eq!(finops.count(set).expect("counts"), wanted, "{set}: rows with one key");
    }
}

/// Keys unique, lookups closed, values within the limits of both sides; the bad rows, and only they, break a rule.
fn check_rows(source: &DataSource) {
    let good = source.good_rows();
    let mut keys: HashMap<&str, HashSet<String>> = HashMap::new();
    for FinopsSet { set, rows } in &good {
        let own = keys.entry(set).or_default();
        let table = source.tables().finops_table(set).expect("a table");
        for row in rows {
            let key = key_of(source, set, row);
            assert!(own.insert(key.clone()), "{set}: {key} is there twice");
            for (name, value) in row {
                let column = column(table, name).unwrap_or_else(|| panic!("{set} has no property {name}"));
                assert_eq!(misfit(column, value), None, "{set}: {key}");
                if column.kind == ColumnKind::Enum {
                    assert!(column.options.iter().any(|option| value == option.name.as_str()), "{set}: {key}, {name}");
                }
            }
        }
    }
    let collections = source
        .maps()
        .iter()
        .map(|map| (map.facts.dataverse_set, map.facts.finops_collection))
        .collect::<HashMap<_, _>>();
    let mut followed: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for map in source.maps() {
        let slug = map.facts.slug;
        let translation = Translation::new(map, source.tables()).expect(slug);
        let rows = &good.iter().find(|own| own.set == map.facts.finops_collection).expect("a set").rows;
        for row in rows.iter().filter(|row| map.takes(row)) {
            let key = key_of(source, map.facts.finops_collection, row);
            assert_eq!(misfits(&translation, row), Vec::<String>::new(), "{slug}: {key}");
            for (finops, set) in map.lookups() {
                let name = &column(translation.finops, finops).expect("a column").name;
                let value = text(row, name).trim_end().to_lowercase();
                if value.is_empty() {
                    continue;
                }
                let collection = collections
                    .get(set)
                    .unwrap_or_else(|| panic!("{slug}: {key} fills {name}, and no map writes {set}"));
                let has_company = source.tables().finops_table(collection).expect("a table").key.len() == 2;
                let wanted = if has_company { format!("{}|{value}", text(row, "dataAreaId")) } else { value };
                assert!(keys[collection].contains(&wanted), "{slug}: {key} refers to {wanted} of {set}");
                *followed.entry((slug, name.clone())).or_default() += 1;
            }
        }
    }
    for wanted in [
        ("customers-accounts", "InvoiceAccount"),
        ("customers-accounts", "CustomerGroupId"),
        ("customers-contacts", "SalesCurrencyCode"),
        ("released-products", "AlternativeItemNumber"),
        ("released-products", "PrimaryVendorAccountNumber"),
        ("released-products", "PurchaseUnitSymbol"),
        ("vendors", "VendorPartyNumber"),
        ("party-contacts", "PartyNumber"),
    ] {
        assert!(followed.contains_key(&(wanted.0, wanted.1.to_owned())), "nothing exercises {wanted:?}");
    }
    let bad = source.bad_rows().expect("bad rows");
    for row in &bad {
        let key = key_of(source, &row.set, &row.row);
        assert!(!keys[row.set.as_str()].contains(&key), "{}: {key} is a good row too", row.set);
    }
    assert!(source.companies().len() >= 3);
    assert_eq!(count(&good, "LegalEntities"), source.companies().len());
}

/// The edits: enough of them, each row once, nothing dangling, every Dataverse row known.
fn check_edits(source: &DataSource) {
    let edits = source.edits().expect("edits");
    let good = source.good_rows();
    let mut touched = HashSet::new();
    for (system, sets) in [(SystemKind::Finops, &edits.finops), (SystemKind::Dataverse, &edits.dataverse)] {
        let counts = edits.counts(system);
        let of = |slug, operation| counts.get(&(slug, operation)).copied().unwrap_or_default();
        for map in source.maps() {
            let slug = map.facts.slug;
            let rows = &good.iter().find(|own| own.set == map.facts.finops_collection).expect("a set").rows;
            let rows = rows.iter().filter(|row| map.takes(row)).count();
            let (creates, updates, deletes) =
                (of(slug, EditOperation::Create), of(slug, EditOperation::Update), of(slug, EditOperation::Delete));
            let made = creates + updates + deletes;
            if map.facts.both_ways {
                assert!(made * 20 >= rows, "{system} {slug}: {made} edits of {rows} rows");
                assert!(creates > 0 && updates > 0 && deletes > 0, "{system} {slug}: {creates} {updates} {deletes}");
            } else if system == SystemKind::Dataverse {
                assert_eq!(made, 0, "{slug} goes one way");
            }
        }
        for set in sets {
            assert!((1..=edits::CHANGE_SET_EDITS_MAX).contains(&set.edits.len()));
            for edit in &set.edits {
                assert_eq!(edit.system, system);
                let map = source.maps().iter().find(|map| map.facts.slug == edit.map).expect("a map");
                let identity = match &edit.name {
                    Some(name) => RowName { id: None, ..name.clone() }.to_string(),
                    None => finops_name(source, map, edit).to_string(),
                };
                assert!(touched.insert(identity.to_lowercase()), "{identity} is edited twice");
                if edit.operation == EditOperation::Update {
                    assert!(!edit.body.is_empty(), "{identity}: nothing changes");
                }
            }
        }
    }
    // Whatever goes, nobody refers to it: neither rows that stay nor other edits.
    let gone = edits
        .finops
        .iter()
        .chain(&edits.dataverse)
        .flat_map(|set| &set.edits)
        .filter(|edit| edit.operation == EditOperation::Delete)
        .map(|edit| {
            let map = source.maps().iter().find(|map| map.facts.slug == edit.map).expect("a map");
            edit.name.clone().unwrap_or_else(|| finops_name(source, map, edit)).to_string().to_lowercase()
        })
        .collect::<HashSet<_>>();
    let mut ids = Ids::default();
    for map in source.maps() {
        let translation = Translation::new(map, source.tables()).expect("a map");
        let rows = &good.iter().find(|own| own.set == map.facts.finops_collection).expect("a set").rows;
        let mut stored = Vec::new();
        for row in rows.iter().filter(|row| map.takes(row)) {
            let own = translation.own_name(row);
            stored.push(stored_key(&translation, &own, &ids));
            if gone.contains(&own.to_string().to_lowercase()) {
                continue;
            }
            for target in translation.new_row(row).binds.into_iter().filter_map(|(_, target)| target) {
                assert!(!gone.contains(&target.to_string().to_lowercase()), "{own} refers to {target}, which goes");
            }
        }
        ids.learn(source.tables(), map.facts.dataverse_set, &stored);
    }
    for edit in edits.dataverse.iter().flat_map(|set| &set.edits) {
        let request = edit.request(&ids).unwrap_or_else(|missing| panic!("{}: {missing}", edit.map));
        assert!(request.url.starts_with("/api/data/v9.2/"));
        for target in edit.binds.iter().filter_map(|(_, target)| target.as_ref()) {
            assert!(!gone.contains(&target.to_string().to_lowercase()), "a new reference to {target}, which goes");
        }
    }
    for edit in edits.finops.iter().flat_map(|set| &set.edits) {
        let request = edit.request(&ids).expect("F&O needs no ids");
        assert!(request.url.starts_with("/data/") && request.url.ends_with("cross-company=true"));
        let map = source.maps().iter().find(|map| map.facts.slug == edit.map).expect("a map");
        if edit.operation == EditOperation::Create {
            let translation = Translation::new(map, source.tables()).expect("a map");
            assert_eq!(misfits(&translation, &edit.body), Vec::<String>::new(), "{}", edit.map);
            for target in translation.new_row(&edit.body).binds.into_iter().filter_map(|(_, target)| target) {
                assert!(!gone.contains(&target.to_string().to_lowercase()), "a new reference to {target}, which goes");
            }
        }
        let table = source.tables().finops_table(&edit.set).expect("a table");
        for (name, value) in &edit.body {
            assert_eq!(misfit(column(table, name).expect("a column"), value), None, "{}", edit.map);
        }
    }
    let again = source.edits().expect("edits");
    assert_eq!(format!("{edits:?}"), format!("{again:?}"), "the script changes from run to run");
}

/// The name that the F&O row of an edit has on Dataverse.
fn finops_name(source: &DataSource, map: &DemoMap, edit: &Edit) -> RowName {
    let translation = Translation::new(map, source.tables()).expect("a map");
    let row = edit
        .key
        .iter()
        .map(|(name, literal)| (name.clone(), Value::from(literal.trim_matches('\'').replace("''", "'"))))
        .collect::<Row>();
    translation.own_name(&row)
}

/// The key of a Dataverse row as the Web API would show it, with an id that follows from the name.
fn stored_key(translation: &Translation<'_>, name: &RowName, ids: &Ids) -> Row {
    let table = translation.dataverse;
    let mut row = Row::new();
    for (column, part) in dataverse_key(table).iter().zip(&name.key) {
        match part {
            KeyPart::Text(text) => row.insert(column.clone(), Value::from(text.as_str())),
            KeyPart::Row(target) => {
                let id = ids.id_of(target).unwrap_or_else(|missing| panic!("{missing}"));
                row.insert(format!("_{column}_value"), Value::from(id.to_string()))
            }
        };
    }
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.to_string().as_bytes());
    row.insert(table.primary_id.clone().expect("an id column"), Value::from(id.to_string()));
    row
}

#[test]
fn the_embedded_rows_keep_every_promise() {
    let source = embedded();
    check_rows(&source);
    let rows = source.good_rows();
    let all = serde_json::to_string(&rows.iter().map(|set| &set.rows).collect::<Vec<_>>()).expect("JSON");
    for awkward in ["🚲", "ß", "日本", "\\\"", "\\n", "'", "ar", "  "] {
        assert!(all.contains(awkward), "nothing has {awkward}");
    }
    assert!((250..400).contains(&count(&rows, "CustomersV3")));
    assert_eq!(source.companies(), ["usmf", "eumf", "apmf"]);
}

#[test]
fn the_embedded_edits_keep_every_promise() {
    check_edits(&embedded());
}

#[test]
fn adventureworks_keeps_every_promise() {
    let Some(source) = adventureworks() else { return };
    check_rows(&source);
    let rows = source.good_rows();
    for (set, wanted) in [
        ("Currencies", 105 + 1),
        ("UnitsOfMeasure", 38),
        ("VendorsV2", 104),
        ("CustomersV3", 19_820),
        ("AllProducts", 504),
        ("LegalEntities", 4),
        ("CDSParties", 701 + 104 + 18_484),
    ] {
        assert_eq!(count(&rows, set), wanted, "{set}");
    }
    let customers = &rows.iter().find(|set| set.set == "CustomersV3").expect("customers").rows;
    let organizations = customers.iter().filter(|row| text(row, "PartyType") == "Organization").count();
    assert_eq!((organizations, customers.len() - organizations), (701 + 635, 18_484));
    check_edits(&source);
}

#[test]
fn bad_rows_are_of_a_dozen_kinds_and_break_what_they_say() {
    let source = embedded();
    let bad = source.bad_rows().expect("bad rows");
    assert!(bad.len() >= 15);
    assert!(bad.iter().map(|row| row.kind.as_str()).collect::<BTreeSet<_>>().len() >= 12);
    let codes = Code::ALL.iter().map(ToString::to_string).collect::<HashSet<_>>();
    for row in &bad {
        let map = source.maps().iter().find(|map| map.facts.slug == row.map).unwrap_or_else(|| panic!("{}", row.map));
        let translation = Translation::new(map, source.tables()).expect("a map");
        assert_eq!(map.facts.finops_collection, row.set, "{}", row.how);
        assert_eq!(map.leg().finops_entity, row.entity, "{}", row.how);
        assert!(map.takes(&row.row), "{}", row.how);
        assert!(codes.contains(&row.code), "{}: there is no {}", row.how, row.code);
        if let Some(name) = &row.column {
            assert!(column(translation.dataverse, name).is_some(), "{}: there is no column {name}", row.how);
        }
        // What can be told from the row alone is exactly one thing, in the column that is named.
        let found = misfits(&translation, &row.row);
        match row.code.as_str() {
            "DW-1001" | "DW-1002" | "DW-1003" | "DW-1005" => {
                let named = row.column.as_deref().expect("a column");
                assert!(found.len() == 1 && found[0].starts_with(named), "{}: {found:?}", row.how);
            }
            _ => assert_eq!(found, Vec::<String>::new(), "{}", row.how),
        }
    }
    assert_eq!(bad[2].readable_key(), "usmf/bad-01");
}

#[test]
fn a_folder_without_data_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = DataSource::folder(folder.path()).expect_err("there is no data");
    assert!(error.to_string().contains("Customer.csv"), "{error}");
    std::fs::write(folder.path().join("Customer.csv"), "CustomerID\n").expect("writes");
    let error = DataSource::folder(folder.path()).expect_err("there are no maps");
    assert!(error.to_string().contains("maps"), "{error}");
    std::fs::create_dir(folder.path().join("maps")).expect("creates");
    let error = DataSource::folder(folder.path()).expect_err("a file is missing");
    assert!(matches!(error, DemoError::Read { .. }), "{error}");
}

#[test]
fn settings_name_every_map_once() {
    let source = embedded();
    let folder = tempfile::tempdir().expect("a folder");
    let urls = Urls { finops: "http://127.0.0.1:1".to_owned(), dataverse: "http://127.0.0.1:2".to_owned() };
    let path = source.write_settings(folder.path(), &urls).expect("is written");
    let text = std::fs::read_to_string(path).expect("reads");
    let settings = text.parse::<toml::Table>().expect("TOML");
    let maps = settings["map"].as_array().expect("maps");
    assert_eq!(maps.len(), 15);
    let mut stages = BTreeSet::new();
    for map in maps {
        assert!(folder.path().join(map["file"].as_str().expect("a file")).is_file());
        let facts = MAPS.iter().find(|facts| map["slug"].as_str() == Some(facts.slug)).expect("a map of the demo");
        let own = source.maps().iter().find(|own| own.facts.slug == facts.slug).expect("a map");
        let known = own.leg().fields.iter().filter_map(|field| field.finops.as_deref()).collect::<HashSet<_>>();
        let bindings = map.get("plugin").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for binding in bindings {
            stages.insert((binding["name"].as_str().expect("a name"), binding["stage"].as_str().expect("a stage")));
            let list = binding.get("fields").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
            for field in list.iter().chain(binding.get("field")) {
                assert!(known.contains(field.as_str().expect("a name")), "{}: {field}", facts.slug);
            }
        }
    }
    let wanted = [
        ("credit-limit", "pre-validate"),
        ("email-validator", "pre-validate"),
        ("money-rounding", "transform"),
        ("stored-equals-sent", "post-validate"),
        ("text-cleanup", "transform"),
    ];
    assert_eq!(stages.into_iter().collect::<Vec<_>>(), wanted);
}
