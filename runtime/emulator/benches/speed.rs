//! How fast the emulators are: bulk messages against plain SQLite, change sets of 1,000 creates, pages of a large table, reads by key in batches.
//!
//! `cargo bench -p dualwright-emulator --bench speed`, or with `-- bulk`, `-- sets` or `-- pages` a part of it. Figures
//! only; what must hold is in the tests.

#[path = "measure/bulk.rs"]
mod bulk;
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "measure/pages.rs"]
mod pages;

use std::time::Instant;

use common::{System, id, operation};
use dualwright_emulator::Dialect;
use dualwright_odata::batch::Item;

const ROWS: usize = 100_000;
const SETS: u32 = 10;

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wants = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wants("bulk") {
        measure_bulk().await;
    }
    if wants("sets") {
        for dialect in [Dialect::Dataverse, Dialect::Finops] {
            measure_sets(dialect).await;
        }
    }
    if wants("pages") {
        for dialect in [Dialect::Finops, Dialect::Dataverse] {
            pages::measure(dialect).await;
        }
    }
}

async fn measure_bulk() {
    let folder = std::env::temp_dir().join(format!("dualwright-speed-bulk-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    bulk::measure(&folder).await;
    std::fs::remove_dir_all(&folder).expect("removes its folder");
}

async fn measure_sets(dialect: Dialect) {
    let folder = std::env::temp_dir().join(format!("dualwright-speed-{}-{}", dialect.name(), std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let system = System::start_on(dialect, Some(&folder.join("store.sqlite"))).await;
    measure(&system, dialect).await;
    system.end().await;
    std::fs::remove_dir_all(&folder).expect("removes its folder");
}

async fn measure(system: &System, dialect: Dialect) {
    let name = dialect.name();
    let (set, query) = match dialect {
        Dialect::Dataverse => ("accounts", "accounts?$select=accountnumber,name,creditlimit,_msdyn_company_value"),
        Dialect::Finops => ("CustomersV3", "CustomersV3?cross-company=true"),
    };
    if dialect == Dialect::Dataverse {
        system.create("cdm_companies", &format!(r#"{{"cdm_companyid":"{}","cdm_companycode":"usmf"}}"#, id(901))).await;
    }
    for round in 0..SETS {
        let rows = (0..1_000_u32).map(|row| create(dialect, round * 1_000 + row)).collect();
        let started = Instant::now();
        let (status, _) = system.batch(&[Item::ChangeSet(rows)], "").await;
        assert_eq!(status, 200);
        println!("{name}: change set of 1,000 creates: {:?}", started.elapsed());
    }
    let reads = (0..1_000_u32).map(|row| Item::Single(read(dialect, row))).collect::<Vec<_>>();
    let started = Instant::now();
    let (_, answers) = system.batch(&reads, "").await;
    assert_eq!(answers.len(), 1_000);
    println!("{name}: batch of 1,000 reads by key: {:?}", started.elapsed());

    let rows = (10_000..ROWS).map(|row| seed(dialect, row)).collect::<Vec<_>>();
    let (count, started) = (rows.len(), Instant::now());
    system.emulator.seed(set, rows).expect("seeds");
    println!("{name}: seeding {count} rows: {:?}", started.elapsed());

    for page in [1_000, 5_000] {
        let started = Instant::now();
        let (mut link, mut rows) = (query.to_owned(), 0);
        loop {
            let reply = system.send("GET", &link, &format!("Prefer: odata.maxpagesize={page}"), "").await;
            rows += reply.text.matches("@odata.etag").count();
            match reply.text.rsplit_once("@odata.nextLink\":\"") {
                Some((_, next)) => link = next.trim_end_matches("\"}").to_owned(),
                None => break,
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{name}: {rows} rows in pages of {page}: {:.0} rows/s", rows as f64 / seconds);
        if dialect == Dialect::Finops && page == 5_000 {
            export(system, rows, rows as f64 / seconds).await;
        }
    }
}

/// The same rows as a package, against reading them page by page.
async fn export(system: &System, rows: usize, paged_rows_per_s: f64) {
    const ACTION: &str = "DataManagementDefinitionGroups/Microsoft.Dynamics.DataEntities.ExportToPackage";
    system.emulator.hold_jobs(true);
    let body = r#"{"definitionGroupId":"Customers V3","packageName":"p","executionId":"","reExecute":false,"legalEntityId":"usmf"}"#;
    let started = Instant::now();
    let reply = system.send("POST", ACTION, "", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    while system.emulator.turn().expect("turns") {}
    let rows_per_s = rows as f64 / started.elapsed().as_secs_f64();
    println!(
        "finops: {rows} rows as a package: {rows_per_s:.0} rows/s, {:.2} times the pages",
        rows_per_s / paged_rows_per_s
    );
}

fn create(dialect: Dialect, row: u32) -> dualwright_odata::batch::Request {
    let (url, body) = match dialect {
        Dialect::Dataverse => (
            "/api/data/v9.2/accounts?$select=accountid",
            format!(
                r#"{{"accountid":"{}","accountnumber":"C{row}","name":"Name {row}","creditlimit":{row}.5,"customertypecode":3,"description":"somewhat longer text of row {row}","msdyn_Company@odata.bind":"/cdm_companies({})"}}"#,
                id(1_000_000 + row),
                id(901)
            ),
        ),
        Dialect::Finops => (
            "/data/CustomersV3?cross-company=true&$select=CustomerAccount",
            format!(r#"{{"dataAreaId":"usmf","CustomerAccount":"C{row}","OrganizationName":"Name of row {row}"}}"#),
        ),
    };
    operation("", "POST", url, "Content-Type: application/json\nPrefer: return=representation", &body)
}

fn read(dialect: Dialect, row: u32) -> dualwright_odata::batch::Request {
    let url = match dialect {
        Dialect::Dataverse => {
            format!("/api/data/v9.2/accounts(accountnumber='C{row}',_msdyn_company_value={})?$select=name", id(901))
        }
        Dialect::Finops => {
            format!("/data/CustomersV3(dataAreaId='usmf',CustomerAccount='C{row}')?cross-company=true")
        }
    };
    operation("", "GET", &url, "", "")
}

fn seed(dialect: Dialect, row: usize) -> serde_json::Map<String, serde_json::Value> {
    let value = match dialect {
        Dialect::Dataverse => serde_json::json!({
            "accountnumber": format!("C{row}"), "name": format!("N {row}"), "creditlimit": row, "msdyn_company": id(901),
            "description": format!("somewhat longer text of row {row}"),
        }),
        Dialect::Finops => serde_json::json!({
            "dataAreaId": "usmf", "CustomerAccount": format!("C{row}"), "OrganizationName": format!("Name of row {row}"),
        }),
    };
    value.as_object().cloned().unwrap_or_default()
}
