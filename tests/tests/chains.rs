//! Plugins among the map's own transforms of a field: where they stand, and that the way back undoes the chain. The
//! language is that of [`dualwright_tests::scenario`].

use dualwright_core::SystemKind;
use dualwright_emulator::TableDefinition;
use dualwright_tests::scenario::check_with;
use dualwright_tests::world::Settings;

mod guest;

/// Countries: the code of F&O is a name on Dataverse, and a remark is cut to six letters.
const FINOPS: &str = r#"{"name": "Land", "set": "Lands", "entity": "Lands", "entityName": "LandEntity", "key": ["LandId"],
    "columns": [{"name": "LandId", "type": "text", "maxLength": 10}, {"name": "Code", "type": "text", "maxLength": 20},
        {"name": "Remark", "type": "text", "maxLength": 60}]}"#;
const DATAVERSE: &str = r#"{"name": "x_land", "set": "x_lands", "primaryId": "x_landid", "primaryName": "x_number",
    "alternateKeys": [{"name": "land", "columns": ["x_number"]}],
    "columns": [{"name": "x_number", "type": "text", "maxLength": 10}, {"name": "x_name", "type": "text", "maxLength": 40},
        {"name": "x_remark", "type": "text", "maxLength": 60}]}"#;
const MAP: &str = r#"{"name": "Lands", "legs": [{"sourceSchema": "Lands", "destinationSchema": "x_lands", "sourceFilter": "",
    "reversedSourceFilter": "", "fieldMappings": [
        {"syncDirection": "3", "sourceField": "LANDID", "destinationField": "x_number"},
        {"syncDirection": "3", "sourceField": "CODE", "destinationField": "x_name", "valueTransforms": [
            {"transformType": "Default", "defaultValue": "xx"},
            {"transformType": "ValueMap", "valueMap": {"DE": "germany", "FR": "france", "xx": "NOWHERE"}}]},
        {"syncDirection": "1", "sourceField": "REMARK", "destinationField": "x_remark", "valueTransforms": [
            {"transformType": "Default", "defaultValue": "straße!"}, {"transformType": "Truncate", "maxLength": 6}]}]}]}"#;

/// Tells a story about that map with bindings of the guest that writes in upper case, and back in lower case.
fn check(bindings: &[&str], story: &str) {
    check_plugin(r#"name = "hostile", parameters = { mode = "upper" }"#, bindings, story);
}

/// The same with a plugin of that name and these parameters.
fn check_plugin(plugin: &str, bindings: &[&str], story: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("lands.json");
    std::fs::write(&file, MAP).expect("writes");
    let bindings = bindings.iter().map(|own| format!("{{ stage = \"transform\", {plugin}, {own} }}"));
    let config = format!(
        "\n[[map]]\nslug = \"lands\"\nfile = {:?}\nintegration_key = [\"x_number\"]\nplugin = [{}]\n",
        file.display().to_string(),
        bindings.collect::<Vec<_>>().join(", ")
    );
    let table = |text: &str| serde_json::from_str::<TableDefinition>(text).expect("a table");
    let tables = vec![(SystemKind::Finops, table(FINOPS)), (SystemKind::Dataverse, table(DATAVERSE))];
    let plugins = vec![("hostile".to_owned(), guest::HOSTILE.clone())];
    let maps = vec!["companies".to_owned()];
    check_with(Settings { tables, config, maps, plugins, ..Settings::default() }, story);
}

#[test]
fn a_plugin_stands_behind_the_transforms_of_the_map() {
    check(
        &[r#"field = "REMARK", direction = "to-dataverse""#],
        r"
        finops insert Lands LandId=1 Code=DE Remark=straße!
        finops insert Lands LandId=2 Code=DE
        start
        dataverse expect x_lands x_number=1 x_name=germany x_remark=STRASSE
        dataverse expect x_lands x_number=2 x_remark=STRASSE
        ",
    );
}

/// Upper case makes two letters of one, so it shows what was cut first.
#[test]
fn a_plugin_stands_between_two_transforms() {
    for place in [r#"before = "truncate""#, r#"after = "default""#] {
        check(
            &[&format!(r#"field = "REMARK", direction = "to-dataverse", {place}"#)],
            r"
            finops insert Lands LandId=1 Code=DE Remark=straße!
            finops insert Lands LandId=2 Code=DE
            start
            dataverse expect x_lands x_number=1 x_remark=STRASS
            dataverse expect x_lands x_number=2 x_remark=STRASS
            calls hostile 1
            ",
        );
    }
    // In front of the default there is nothing to change.
    check(
        &[r#"field = "REMARK", direction = "to-dataverse", before = "default""#],
        r"
        finops insert Lands LandId=1 Code=DE Remark=straße!
        finops insert Lands LandId=2 Code=DE
        start
        dataverse expect x_lands x_number=1 x_remark=STRASS
        dataverse expect x_lands x_number=2 x_remark=straße
        ",
    );
}

/// One call for both fields, which are at different places of their chains; and two plugins in one chain.
#[test]
fn one_call_serves_fields_at_different_places() {
    check_plugin(
        r#"name = "text-cleanup", parameters = { case = "upper" }"#,
        &[
            r#"fields = ["CODE", "REMARK"], direction = "to-dataverse", after = "default""#,
            r#"field = "REMARK", direction = "to-dataverse", after = "truncate""#,
        ],
        r"
        finops insert Lands LandId=1 Code='  de ' Remark=straße!
        finops insert Lands LandId=2
        start
        dataverse expect x_lands x_number=1 x_name=germany x_remark=STRASS
        dataverse expect x_lands x_number=2 x_name=NOWHERE x_remark=STRASS
        calls text-cleanup 2
        ",
    );
}

/// What stands behind the value map on the way to Dataverse is undone in front of it on the way back.
#[test]
fn the_chain_is_walked_backwards_on_the_way_back() {
    check(
        &[r#"field = "CODE", direction = "both", after = "value-map""#],
        r"
        finops insert Lands LandId=1 Code=DE
        start
        dataverse expect x_lands x_number=1 x_name=GERMANY
        dataverse update x_lands x_number=1 x_name=FRANCE
        settle
        finops expect Lands LandId=1 Code=FR
        # The default is a value of F&O on either way.
        dataverse update x_lands x_number=1 x_name=null
        settle
        finops expect Lands LandId=1 Code=xx
        failed none
        ",
    );
    // In front of it, it sees what F&O holds: codes, which go back in lower case.
    check(
        &[r#"field = "CODE", direction = "both", before = "value-map""#],
        r"
        finops insert Lands LandId=1 Code=de
        start
        dataverse expect x_lands x_number=1 x_name=germany
        dataverse update x_lands x_number=1 x_name=france
        settle
        finops expect Lands LandId=1 Code=fr
        failed none
        ",
    );
}

#[test]
fn a_place_that_is_not_there_is_named() {
    let refused = |bindings: &[&str]| {
        let told = std::panic::catch_unwind(|| check(bindings, "start"));
        told.expect_err("it cannot start").downcast_ref::<String>().expect("a text").clone()
    };
    let said = refused(&[r#"field = "CODE", direction = "to-dataverse", after = "truncate""#]);
    assert!(said.contains("the map gives x_name no truncate to stand by"), "{said}");
    let said = refused(&[
        r#"field = "REMARK", direction = "to-dataverse", after = "truncate""#,
        r#"field = "REMARK", direction = "to-dataverse", before = "truncate""#,
    ]);
    assert!(said.contains("List the two in the order of their places"), "{said}");
    let said = refused(&[r#"field = "CODE", direction = "both", before = "default", after = "value-map""#]);
    assert!(said.contains("Write before or after"), "{said}");
}
