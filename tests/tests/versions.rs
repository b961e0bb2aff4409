//! Versions of maps: taken up while the runtime is at work, or refused while the one before runs on; and dry runs, which
//! say beforehand what another version or another plugin would do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dualwright_core::SystemKind;
use dualwright_core::mapping::{Document, VersionFacts};
use dualwright_tests::audit;
use dualwright_tests::scenario::check;
use dualwright_tests::systems::{Edit, Operation};
use dualwright_tests::world::{Settings, World};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dualwright-under-test");

/// The fixture's map of customers with one more field, in the words of `version`.
const WITH_REMARK: &str = r#"'{"syncDirection": "3", "sourceField": "CUSTOMERSINCE"' => '{"syncDirection": "3", "sourceField": "INTERNALREMARK", "destinationField": "description"}, {"syncDirection": "3", "sourceField": "CUSTOMERSINCE"'"#;

#[test]
fn another_version_is_taken_up_between_two_transactions() {
    check(&format!(
        r#"
        versioned customers
        version customers 1.0.0.1 {WITH_REMARK}
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization InternalRemark=one
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=B PartyType=Organization InternalRemark=two
        start
        dataverse expect accounts accountnumber=C1 name=A description=null
        dataverse update accounts accountnumber=C2 name=B2 description='said before'
        activate customers 1.0.0.1
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 InternalRemark=three
        settle
        activity version-taken-up customers 1.0.0.1 runs from here on, after 1.0.0.0
        dataverse expect accounts accountnumber=C1 name=A description=three
        # Captured by the feed of the version before, which tells less, and yet whole.
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=B2 InternalRemark='said before'
        dataverse update accounts accountnumber=C1 description=four
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 InternalRemark=four
        # And back: the remark stays where it is.
        activate customers 1.0.0.0
        settle
        dataverse update accounts accountnumber=C1 description=five name=A5
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A5 InternalRemark=four
        failed none
        "#
    ));
}

#[test]
fn a_version_with_an_error_is_refused_and_the_one_before_runs_on() {
    check(
        r#"
        versioned customers
        version customers 1.0.0.1 PRIMARYCONTACTEMAIL => NOSUCHCOLUMN
        version customers 1.0.0.2 '"defaultValue": "3"' => '"defaultValue": "11"'
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization
        start
        activate customers 1.0.0.1
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=B PrimaryContactEmail=b@x.example
        settle
        activity version-refused customers 1.0.0.1 is not taken up, and 1.0.0.0 runs on: field NOSUCHCOLUMN
        dataverse expect accounts accountnumber=C1 name=B emailaddress1=b@x.example customertypecode=3
        # One that is right is taken up after it.
        activate customers 1.0.0.2
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=C
        settle
        activity version-taken-up customers 1.0.0.2 runs from here on, after 1.0.0.0
        dataverse expect accounts accountnumber=C1 name=C customertypecode=11
        failed none
        "#,
    );
}

#[test]
fn what_was_edited_is_not_run() {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let mut world = World::new(Default::default()).await.expect("a world");
        let text = World::map_text("currencies").expect("a map");
        let versions = world.versions("currencies");
        let facts = Document::parse(&text).expect("a map").facts().clone();
        versions.import(&facts, &text).expect("imported");
        versions.activate(facts.version).expect("activated");
        world.settings().versioned.push("currencies".to_owned());
        world.open().await.expect("as it was imported");
        std::fs::write(versions.file(facts.version), text.replace("\"3\"", "\"1\"")).expect("edited");
        let refused = world.open().await.expect_err("as nobody imported it");
        assert!(refused.to_string().contains("is not the text that was imported"), "{refused:#}");
        world.end().await.expect("ended");
    });
}

// ---- dry runs

/// A row of a customer on F&O.
async fn customer(world: &World, account: &str, columns: &[(&str, &str)]) {
    let own = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let edit = Edit {
        operation: Operation::Insert,
        set: "CustomersV3".to_owned(),
        key: own(&[("dataAreaId", "usmf"), ("CustomerAccount", account)]),
        columns: own(columns),
    };
    world.finops.write(&edit).await.expect("an answer").expect("it is taken");
}

async fn legal_entity(world: &World) {
    let edit = Edit {
        operation: Operation::Insert,
        set: "LegalEntities".to_owned(),
        key: vec![("LegalEntityId".to_owned(), "usmf".to_owned())],
        columns: vec![("Name".to_owned(), "Contoso US".to_owned())],
    };
    world.finops.write(&edit).await.expect("an answer").expect("it is taken");
}

/// Everything that a dry run must leave as it is: what both systems wrote, and the files of the state folder.
async fn traces(world: &World) -> (usize, usize, BTreeMap<String, Vec<u8>>) {
    let entries = async |kind| audit::read(world.system(kind), 0).await.expect("an audit").len();
    let mut files = BTreeMap::new();
    let mut folders = vec![world.config_file().with_file_name("state")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.display().to_string();
            if path.is_dir() {
                folders.push(path);
            // Where readers of SQLite say that they read.
            } else if !name.ends_with("-shm") {
                files.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    (entries(SystemKind::Finops).await, entries(SystemKind::Dataverse).await, files)
}

/// Calls the program, and holds it to leaving no trace.
async fn dry_run(world: &World, arguments: &[&str]) -> (i32, String) {
    let before = traces(world).await;
    let config = world.config_file();
    let arguments = arguments.iter().map(ToString::to_string).collect::<Vec<_>>();
    let called = tokio::task::spawn_blocking(move || {
        Command::new(PROGRAM).args(&arguments).arg("--config").arg(config).output().expect("it runs")
    });
    let output = called.await.expect("it ends");
    assert!(before == traces(world).await, "a dry run has left something behind");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code().expect("no signal"), format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// How every record of one direction ends: key, now, then, columns that differ.
fn ends(text: &str, direction: &str) -> Vec<String> {
    let said: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let records = said["records"].as_array().expect("records").iter();
    let mut ends = records
        .filter(|record| record["direction"] == direction)
        .map(|record| {
            let columns = record["columns"].as_array().into_iter().flatten().filter_map(|own| own["column"].as_str());
            let code = record["after"]["code"].as_str().unwrap_or_default();
            let end = |of: &str| record[of]["kind"].as_str().unwrap_or("-").to_owned();
            let columns = columns.collect::<Vec<_>>().join(",");
            format!("{} {} {} {code}{columns}", record["key"].as_str().expect("a key"), end("before"), end("after"))
        })
        .collect::<Vec<_>>();
    ends.sort();
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_of_a_version_says_what_would_become_of_which_rows() {
    let mut world = World::new(Settings::default()).await.expect("a world");
    legal_entity(&world).await;
    let organization = ("PartyType", "Organization");
    customer(&world, "C1", &[("OrganizationName", "A"), organization, ("InternalRemark", "between us")]).await;
    customer(&world, "C2", &[("OrganizationName", "B"), organization, ("OnHoldStatus", "Payment")]).await;
    customer(&world, "C3", &[("OrganizationName", "C"), organization]).await;
    customer(&world, "G1", &[("OrganizationName", "Gone"), organization]).await;
    customer(&world, "P1", &[("OrganizationName", "D"), ("PartyType", "Person")]).await;
    // Dataverse knows no fewer than no employees.
    customer(&world, "N1", &[("OrganizationName", "E"), organization, ("EmployeeCount", "-1")]).await;
    world.start().await.expect("started");
    assert_eq!(world.failed().await.expect("failed records").len(), 1);

    let mut text = World::map_text("customers").expect("a map");
    for (old, new) in [
        (r#"((PartyType == \"Organization\"))"#, r#"(OrganizationName != \"Gone\")"#),
        (r#", "payment": "806380003"}"#, "}"),
        (r#"{"syncDirection": "3", "sourceField": "EMPLOYEECOUNT", "destinationField": "numberofemployees"},"#, ""),
        (
            r#"{"syncDirection": "3", "sourceField": "CUSTOMERSINCE""#,
            r#"{"syncDirection": "1", "sourceField": "INTERNALREMARK", "destinationField": "description"},
               {"syncDirection": "3", "sourceField": "CUSTOMERSINCE""#,
        ),
    ] {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text = text.replace(old, new);
    }
    let versions = world.versions("customers");
    let facts = VersionFacts { version: "1.0.0.7".parse().expect("a version"), ..VersionFacts::default() };
    versions.import(&facts, &text).expect("imported");

    let to_dataverse = "finops → dataverse";
    let (code, said) = dry_run(&world, &["map", "dry-run", "customers", "--version", "1.0.0.7", "--json"]).await;
    assert_eq!(code, 1, "{said}");
    let wanted = [
        "usmf/c1 unchanged updated description",
        // The value map lists it no more.
        "usmf/c2 unchanged rejected DW-1005",
        "usmf/g1 unchanged outside ",
        "usmf/n1 rejected created ",
        "usmf/p1 outside created ",
    ];
    assert_eq!(ends(&said, to_dataverse), wanted, "{said}");
    assert_eq!(ends(&said, "dataverse → finops"), ["usmf/c2 unchanged rejected DW-1005"], "{said}");
    assert!(!said.contains("between us"), "a value is shown that nobody asked for: {said}");

    // As a person sees it, with values.
    let arguments = ["map", "dry-run", "customers", "--version", "1.0.0.7", "--values"];
    let (code, said) = dry_run(&world, &arguments).await;
    assert_eq!(code, 1, "{said}");
    for part in [
        "customers, finops → dataverse: 6 rows",
        "description: empty → \"between us\"",
        "  5 would end otherwise",
        "rejected DW-1005",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }

    // What failed would get through.
    let file = world.config_file().with_file_name("new.json");
    std::fs::write(&file, &text).expect("written");
    let file = file.display().to_string();
    let arguments = ["map", "dry-run", "customers", "--file", &file, "--recorded", "--json"];
    let (code, said) = dry_run(&world, &arguments).await;
    assert_eq!((code, ends(&said, to_dataverse)), (1, vec!["usmf/n1 rejected created ".to_owned()]), "{said}");

    // Without another version: what the map would do now.
    let (code, said) = dry_run(&world, &["map", "dry-run", "customers", "--json"]).await;
    let code_of_it = world.failed().await.expect("failed records")[0].fault.code;
    assert_eq!((code, ends(&said, to_dataverse)), (1, vec![format!("usmf/n1 - rejected {code_of_it}")]), "{said}");
    // A version that says the same.
    let (code, said) = dry_run(&world, &["map", "dry-run", "currencies", "--file", &map_of("currencies")]).await;
    assert_eq!(code, 0, "{said}");
    for wrong in [["map", "dry-run", "custmers"].as_slice(), &["map", "dry-run", "customers", "--version", "9.9"]] {
        assert_eq!(dry_run(&world, wrong).await.0, 2, "{wrong:?}");
    }
    world.end().await.expect("ended");
}

fn map_of(slug: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/small/maps/{slug}.json"));
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_of_a_plugin_says_what_would_become_of_which_rows() {
    let binding =
        r#"{ name = "text-cleanup", stage = "transform", field = "ORGANIZATIONNAME", direction = "to-dataverse" }"#;
    let bindings = vec![("customers".to_owned(), binding.to_owned())];
    let mut world = World::new(Settings { bindings, ..Settings::default() }).await.expect("a world");
    legal_entity(&world).await;
    let organization = ("PartyType", "Organization");
    customer(&world, "C1", &[("OrganizationName", "contoso"), organization]).await;
    customer(&world, "C2", &[("OrganizationName", "FABRIKAM"), organization]).await;
    // Where no runtime ever was, a version may have been imported all the same.
    world.configure().expect("written");
    let map = World::map_text("currencies").expect("a map");
    world.versions("currencies").import(&VersionFacts::default(), &map).expect("imported");
    let (code, said) = dry_run(&world, &["map", "dry-run", "legal-entities"]).await;
    assert_eq!(code, 2, "{said}");
    let (code, said) = dry_run(&world, &["map", "dry-run", "companies", "--json"]).await;
    assert_eq!((code, ends(&said, "finops → dataverse")), (0, vec!["usmf - created ".to_owned()]), "{said}");
    world.start().await.expect("started");
    let arguments = ["plugin", "dry-run", "text-cleanup", "--parameter", "case=upper", "--json"];
    let (code, said) = dry_run(&world, &arguments).await;
    assert_eq!(code, 1, "{said}");
    assert_eq!(ends(&said, "finops → dataverse"), ["usmf/c1 unchanged updated name"], "{said}");
    let (code, said) = dry_run(&world, &["plugin", "dry-run", "money-rounding", "--parameter", "x=1"]).await;
    assert_eq!(code, 2, "{said}");
    world.end().await.expect("ended");
}
