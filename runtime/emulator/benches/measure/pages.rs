//! 10,000 rows read over HTTP, against serialising the same rows in memory, and with a large table around them.
//!
//! Both are measured in one run. `PAGE_ROWS` is how many rows the table has in the end (1,000,000 when not set).

use std::hint::black_box;
use std::time::{Duration, Instant};

use dualwright_emulator::Dialect;
use serde_json::Value;

use crate::common::{System, id};

const ROWS: usize = 10_000;
const ROUNDS: usize = 15;

pub async fn measure(dialect: Dialect) {
    let wanted = std::env::var("PAGE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000_usize);
    let name = dialect.name();
    let system = System::start(dialect).await;
    if dialect == Dialect::Dataverse {
        system.create("cdm_companies", &format!(r#"{{"cdm_companyid":"{}","cdm_companycode":"usmf"}}"#, id(901))).await;
    }
    add(&system, dialect, 0, ROWS);
    let (small, pages) = read(&system, dialect).await;
    let rows = pages.iter().flat_map(|page| rows_of(page)).collect::<Vec<_>>();
    assert_eq!(rows.len(), ROWS);
    let serialised = median((0..ROUNDS).map(|_| timed(|| black_box(serde_json::to_vec(&rows).expect("serialises")))));
    println!(
        "pages: {name}: {ROWS} rows read over HTTP in {small:?}, serialised in {serialised:?}: {:.2} x",
        ratio(small, serialised)
    );
    add(&system, dialect, ROWS, wanted);
    let (large, _) = read(&system, dialect).await;
    println!("pages: {name}: among {wanted} rows in {large:?}: {:.2} x of the small table", ratio(large, small));
    system.end().await;
}

fn add(system: &System, dialect: Dialect, from: usize, to: usize) {
    let set = if dialect == Dialect::Dataverse { "accounts" } else { "CustomersV3" };
    for start in (from..to).step_by(10_000) {
        let rows = (start..to.min(start + 10_000)).map(|row| super::seed(dialect, row)).collect();
        system.emulator.seed(set, rows).expect("seeds");
    }
}

/// The median of reading the first rows in the largest pages of the system, and the pages.
async fn read(system: &System, dialect: Dialect) -> (Duration, Vec<String>) {
    let (query, page) = match dialect {
        Dialect::Dataverse => ("accounts", 5_000),
        Dialect::Finops => ("CustomersV3?cross-company=true", 10_000),
    };
    let (mut took, mut pages) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        pages.clear();
        let (mut link, started) = (query.to_owned(), Instant::now());
        while pages.len() * page < ROWS {
            let reply = system.send("GET", &link, "", "").await;
            if let Some((_, next)) = reply.text.rsplit_once("@odata.nextLink\":\"") {
                link = next.trim_end_matches("\"}").to_owned();
            }
            pages.push(reply.text);
        }
        took.push(started.elapsed());
    }
    (median(took.into_iter()), pages)
}

fn rows_of(page: &str) -> Vec<Value> {
    let mut page: Value = serde_json::from_str(page).expect("json");
    match page["value"].take() {
        Value::Array(rows) => rows,
        other => panic!("no rows: {other}"),
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn median(took: impl Iterator<Item = Duration>) -> Duration {
    let mut took = took.collect::<Vec<_>>();
    took.sort_unstable();
    took[took.len() / 2]
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
