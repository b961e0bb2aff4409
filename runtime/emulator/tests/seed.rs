//! Tables and rows from files, and what is wrong with them.

mod common;

use std::path::PathBuf;

use common::System;
use dualwright_emulator::{Dialect, Emulator, SeedPlan, read_schema};
use serde_json::json;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    }
}

const SCHEMA: &str = r#"{"system":"finops","name":"CustomerGroupEntity","publicCollection":"CustomerGroups","companySpecific":true,
 "keys":[{"name":"EntityKey","fields":["CustomerGroupId"]}],
 "fields":[{"name":"CustomerGroupId","type":"string","maxLength":10,"required":true},{"name":"Description","type":"string","maxLength":30},
 {"name":"Rate","type":"real"},{"name":"Days","type":"int32"},{"name":"Since","type":"utcdatetime"},
 {"name":"IsUsed","type":"enum","enum":"NoYes","options":{"No":0,"Yes":1}}]}"#;

#[test]
fn schemas_and_csv_make_a_system() {
    let folder = Folder::new();
    let schemas = folder.file("schemas/finops/group.json", SCHEMA);
    folder.file("schemas/finops/notes.txt", "not JSON");
    folder.file("schemas/index.json", r#"{"tables": 1}"#);
    folder.file("schemas/dataverse/a.json", r#"{"system":"dataverse","name":"a","fields":[]}"#);
    let csv = folder.file(
        "groups.csv",
        "\u{feff}dataAreaId,CustomerGroupId,Description,Rate,Days,Since,IsUsed\n\
         USMF,10,\"Retail, \"\"big\"\"\nand small\",.9900,-3,2024-01-02 03:04:05.000,Yes\r\n\
         usmf,20,Grüße,,,,\n",
    );
    let emulator = Emulator::open(Dialect::Finops, None).expect("opens");
    let mut plan = SeedPlan::default();
    plan.schemas(Dialect::Finops, schemas.parent().and_then(|folder| folder.parent()).expect("a folder"))
        .expect("reads");
    plan.csv_file("CustomerGroups", &csv).expect("reads");
    let report = emulator.apply_seed(&plan).expect("seeds");
    assert_eq!(serde_json::to_value(&report).expect("JSON"), json!({"tables": 1, "rows": {"CustomerGroups": 2}}));
    let rows = emulator.rows("CustomerGroups").expect("rows");
    let shown = |row: usize| {
        ["dataAreaId", "CustomerGroupId", "Description", "Rate", "Days", "Since", "IsUsed"]
            .map(|name| rows[row][name].clone())
    };
    assert_eq!(
        json!(shown(0)),
        json!(["usmf", "10", "Retail, \"big\"\nand small", 0.99, -3, "2024-01-02T03:04:05Z", "Yes"])
    );
    assert_eq!(json!(shown(1)), json!(["usmf", "20", "Grüße", 0, 0, "1900-01-01T00:00:00Z", "No"]));
    // A table that was seeded can be exported like one that was defined.
    let projects = emulator.rows("DataManagementDefinitionGroups").expect("projects");
    let names = projects.iter().map(|project| project["Name"].as_str().unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0], "All entities");
    // The same key again changes the columns that are named, and adds nothing; seeds are not audited.
    let mut plan = SeedPlan::default();
    let again = folder.file("again.csv", "CustomerGroupId,dataAreaId,Days\n10,usmf,7\n");
    plan.csv_file("CustomerGroups", &again).expect("reads");
    emulator.apply_seed(&plan).expect("seeds");
    let rows = emulator.rows("CustomerGroups").expect("rows");
    assert_eq!((rows.len(), &rows[0]["Days"], &rows[0]["Rate"]), (2, &json!(7), &json!(0.99)));
    assert_eq!(emulator.audit().expect("audit"), []);
}

#[test]
fn what_is_wrong_is_named_by_file_line_and_column() {
    let folder = Folder::new();
    let schema = folder.file("group.json", SCHEMA);
    let head = "dataAreaId,CustomerGroupId,Description,Rate,Days,IsUsed";
    for (name, text, said) in [
        ("a.csv", "dataAreaId,Nothing\n".to_owned(), "a.csv:1: column 2: CustomerGroups has no column \"Nothing\""),
        ("b.csv", format!("{head}\nusmf,1,,,,\nusmf,2,,x,,\n"), "b.csv:3: column 4 (Rate): it is no number"),
        ("c.csv", format!("{head}\nusmf,1,,,1.5,\n"), "c.csv:2: column 5 (Days): it has to be"),
        ("d.csv", format!("{head}\nusmf,1,\"a\nb\",,,\nusmf,2,{},,,\n", "x".repeat(31)), "d.csv:4: column 3 (Description): it is longer than 30 characters"),
        ("e.csv", format!("{head}\nusmf,1,,,,Maybe\n"), "e.csv:2: column 6 (IsUsed): it is none of the options"),
        ("f.csv", format!("{head}\nusmf,1\n"), "f.csv:2: the line has 2 fields, and the first line 6"),
        ("g.json", "{\"CustomerGroups\": [\n {\"CustomerGroupId\": \"1\",\n  \"Days\": \"x\"}]}".to_owned(), "g.json:3:11: Days: it has to be"),
        ("h.json", "{\"CustomerGroups\": [\n\n  {\"No\": 1}]}".to_owned(), "h.json:3:10: No: CustomerGroups has no such column"),
        ("i.json", "{\"CustomerGroups\": [\n {},]}".to_owned(), "i.json:2:5: trailing comma"),
        ("j.json", "{\"CustomerGroups\": [[1]]}".to_owned(), "j.json:1:21: a row of CustomerGroups has to be an object"),
        ("k.json", "{\"Nothing\": []}".to_owned(), "there is no set Nothing"),
        ("tables.json", "{\"tables\": [\n {\"name\": \"T\", \"set\": \"Ts\", \"columns\": [{\"name\": \"a\", \"type\": \"blob\"}]}]}".to_owned(), "tables.json:2:"),
    ] {
        let path = folder.file(name, &text);
        let emulator = Emulator::open(Dialect::Finops, None).expect("opens");
        let mut plan = SeedPlan::default();
        plan.tables_file(&schema).expect("reads");
        match name {
            name if name.ends_with(".csv") => plan.csv_file("CustomerGroups", &path).expect("reads"),
            "tables.json" => plan.tables_file(&path).expect("reads"),
            _ => plan.rows_file(&path).expect("reads"),
        }
        let error = format!("{:#}", emulator.apply_seed(&plan).expect_err(name));
        assert!(error.contains(said) && error.contains(name), "{name}: {error}");
        assert!(!error.contains("Maybe"), "a value is not repeated: {error}");
        if name != "tables.json" {
            assert_eq!(emulator.count("CustomerGroups").expect("counts"), 0, "{name}: all rows or none");
        }
    }
}

#[tokio::test]
async fn a_seed_comes_over_http_too() {
    let system = System::start(Dialect::Dataverse).await;
    let seed = json!({
        "tables": [{"name": "thing", "set": "things", "columns": [{"name": "label", "type": "text"}]}],
        "schemas": [{"system": "dataverse", "name": "part", "fields": [{"name": "weight", "type": "decimal"}]}],
        "rows": {"things": [{"label": "a"}, {"label": "b"}]},
        "csv": {"parts": "weight\n1.50\n"},
    });
    let reply = system.send("POST", "/_emulator/seed", "Content-Type: application/json", &seed.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json(), json!({"tables": 2, "rows": {"parts": 1, "things": 2}}));
    assert_eq!(system.get("things?$orderby=label desc").await.column("label"), ["b", "a"]);
    assert_eq!(system.get("parts").await.column("weight"), ["1.5"]);
    for (seed, said) in [
        ("{", "seed"),
        (r#"{"nosuch": 1}"#, "nosuch"),
        (r#"{"rows": {"things": [{"label": 5}]}}"#, "label"),
        (r#"{"csv": {"things": "label\na\nb,c\n"}}"#, "csv things:3"),
    ] {
        let reply = system.send("POST", "/_emulator/seed", "", seed).await;
        assert_eq!(reply.status, 400, "{seed}: {}", reply.text);
        assert!(reply.text.contains(said), "{seed}: {}", reply.text);
    }
    assert_eq!(system.count("things").await, 2);
    system.end().await;
}

/// Every schema that is published can be served.
#[test]
fn all_published_schemas_are_read() {
    let Some(data) = std::env::var_os("DUALWRIGHT_DATA").map(PathBuf::from) else {
        assert!(std::env::var_os("DUALWRIGHT_REQUIRE_ALL").is_none(), "DUALWRIGHT_DATA is not set");
        println!("SKIPPED: DUALWRIGHT_DATA is not set");
        return;
    };
    for (dialect, tables) in [(Dialect::Finops, 156), (Dialect::Dataverse, 137)] {
        let emulator = Emulator::open(dialect, None).expect("opens");
        let mut plan = SeedPlan::default();
        plan.schemas(dialect, &data.join("schemas")).expect("reads");
        assert_eq!(emulator.apply_seed(&plan).expect("seeds").tables, tables);
    }
    let account = std::fs::read_to_string(data.join("schemas/dataverse/account.json")).expect("a file");
    let account = read_schema(Dialect::Dataverse, &account).expect("reads");
    assert_eq!((account.set.as_str(), account.primary_name.as_deref()), ("accounts", Some("name")));
}
