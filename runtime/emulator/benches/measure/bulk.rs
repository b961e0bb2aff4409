//! UpsertMultiple of 1,000 rows over HTTP, against inserting the same rows into a copy of the SQLite file directly.
//!
//! The direct way writes what such a file needs to hold the rows: the rows as they are stored, their keys, the index by
//! which change tracking finds them, their alternate keys and their links, with prepared statements in one transaction
//! under the emulator's own pragmas, into a copy of the same file. It finds no row, checks and stamps nothing and keeps no
//! audit; the emulator's time holds all of that, JSON and HTTP. Rows that are there are measured against the same. All
//! alternate in one run, in a small table and in one of `BULK_ROWS` rows (1,000,000 when not set).

use std::path::Path;
use std::time::{Duration, Instant};

use dualwright_emulator::Dialect;
use rusqlite::{Connection, params};

use crate::common::{System, id};

const ROUNDS: u32 = 9;
const BATCH: u32 = 1_000;

pub async fn measure(folder: &Path) {
    let wanted = std::env::var("BULK_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000_u32);
    let file = folder.join("bulk.sqlite");
    let system = System::start_on(Dialect::Dataverse, Some(&file)).await;
    system.create("cdm_companies", &format!(r#"{{"cdm_companyid":"{}","cdm_companycode":"usmf"}}"#, id(901))).await;
    let small = compare(&system, &file, 0).await;
    let seeded = Instant::now();
    for start in (1_000_000..1_000_000 + wanted).step_by(10_000) {
        let rows = (start..start + 10_000).map(seed).collect();
        system.emulator.seed("accounts", rows).expect("seeds");
    }
    println!("bulk: seeding {wanted} rows: {:?}", seeded.elapsed());
    let large = compare(&system, &file, 100_000).await;
    for (name, small, large) in [("insert", small[0], large[0]), ("update", small[1], large[1])] {
        println!("bulk: {name} with {wanted} rows takes {:.2} x of a small table", ratio(large, small));
    }
    system.end().await;
}

/// Medians of inserting and of updating by UpsertMultiple.
async fn compare(system: &System, file: &Path, first: u32) -> [Duration; 2] {
    let copy = file.with_extension(format!("{first}.copy"));
    let source = Connection::open(file).expect("opens");
    source.execute("VACUUM INTO ?1", [copy.to_str().expect("a path")]).expect("copies");
    let mut direct = Connection::open(&copy).expect("opens");
    direct
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=8000; PRAGMA cache_size=-65536;",
        )
        .expect("pragmas");
    let (mut inserts, mut updates, mut directs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let before: i64 = source.query_row("SELECT max(id) FROM row", [], |row| row.get(0)).expect("a row");
        let body = targets(first + round * BATCH, "Name");
        inserts.push(post(system, &body).await);
        directs.push(insert_directly(&source, &mut direct, before));
        updates.push(post(system, &targets(first + round * BATCH, "Other")).await);
    }
    let [insert, update, straight] = [inserts, updates, directs].map(median);
    println!(
        "bulk: UpsertMultiple of {BATCH} new rows {insert:?}, of rows that are there {update:?}, inserted directly \
         {straight:?}: {:.2} x and {:.2} x",
        ratio(insert, straight),
        ratio(update, straight),
    );
    [insert, update]
}

async fn post(system: &System, body: &str) -> Duration {
    let started = Instant::now();
    let reply = system.send("POST", "accounts/Microsoft.Dynamics.CRM.UpsertMultiple", "", body).await;
    let took = started.elapsed();
    assert_eq!(reply.status, 204, "{}", reply.text);
    took
}

/// Puts the rows that came after `before` into the copy.
fn insert_directly(source: &Connection, direct: &mut Connection, before: i64) -> Duration {
    type Row = (i64, Vec<u8>, i64, i64, String);
    let rows: Vec<Row> = all(source, "SELECT id, key, version, number, data FROM row WHERE id > ?1", before, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    });
    assert_eq!(rows.len(), BATCH as usize);
    let keys: Vec<(Vec<u8>, i64)> =
        all(source, "SELECT key, row FROM alternate WHERE row > ?1", before, |row| Ok((row.get(0)?, row.get(1)?)));
    let links: Vec<(Vec<u8>, i64, i64)> =
        all(source, "SELECT target, row, place FROM link WHERE row > ?1", before, |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
    let started = Instant::now();
    let transaction = direct.transaction().expect("begins");
    {
        let mut row = transaction.prepare_cached("INSERT INTO row VALUES (?1, ?2, ?3, ?4, ?5)").expect("prepares");
        let mut key = transaction.prepare_cached("INSERT INTO alternate VALUES (?1, ?2)").expect("prepares");
        let mut link = transaction.prepare_cached("INSERT INTO link VALUES (?1, ?2, ?3)").expect("prepares");
        for (id, own, version, number, data) in &rows {
            row.execute(params![id, own, version, number, data]).expect("inserts");
        }
        for (own, of) in &keys {
            key.execute(params![own, of]).expect("inserts");
        }
        for (target, of, place) in &links {
            link.execute(params![target, of, place]).expect("inserts");
        }
    }
    transaction.commit().expect("commits");
    started.elapsed()
}

fn all<T>(
    connection: &Connection,
    query: &str,
    after: i64,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let mut statement = connection.prepare_cached(query).expect("prepares");
    let rows = statement.query_map([after], read).expect("queries");
    rows.collect::<Result<_, _>>().expect("reads")
}

fn targets(first: u32, name: &str) -> String {
    let one = |row: u32| {
        format!(
            r#"{{"@odata.type":"Microsoft.Dynamics.CRM.account","@odata.id":"accounts(accountnumber='B{row:07}',_msdyn_company_value={})","name":"{name} {}","numberofemployees":{},"customertypecode":3,"creditonhold":false,"since":"2024-02-29","lastseen":"2024-01-02T03:04:05Z","description":"somewhat longer text of row {row}, as people write them into such fields"}}"#,
            id(901),
            row % 1_000,
            row % 500,
        )
    };
    format!(r#"{{"Targets":[{}]}}"#, (first..first + BATCH).map(one).collect::<Vec<_>>().join(","))
}

fn seed(row: u32) -> serde_json::Map<String, serde_json::Value> {
    let value = serde_json::json!({
        "accountnumber": format!("C{row}"), "name": format!("N {}", row % 1_000), "creditlimit": row % 1_000, "msdyn_company": id(901),
        "description": format!("somewhat longer text of row {row}, as people write them into such fields"),
    });
    value.as_object().cloned().unwrap_or_default()
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}
