//! 10,000 rows read over HTTP, against serialising the same rows in memory, and with a large table around them.
//!
//! Reading ends with the last byte of the answer and holds what it costs to send it over loopback and to receive it. The
//! baseline is what serde_json takes for the rows as the answer had them, etags included, parsed before the clock starts,
//! into a buffer that is large enough: it neither reads a file nor sends anything. It is given twice: of `Value` trees,
//! where each row has names of its own, and of packed rows that share their names, as a program with types would have
//! them, which is faster the wider a row is. Both are measured in one run. `PAGE_ROWS` is how many rows the table has in the end (1,000,000 when not set).

use std::hint::black_box;
use std::time::{Duration, Instant};

use dualwright_emulator::Dialect;
use serde::{Serialize, Serializer};
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
    let trees = serialised(&rows);
    let names = rows[0].as_object().expect("a row").keys().cloned().collect::<Vec<_>>();
    let packed =
        rows.iter().map(|row| Packed { names: &names, row: names.iter().map(|name| row[name].clone()).collect() });
    let packed = serialised(&packed.collect::<Vec<_>>());
    println!(
        "pages: {name}: {ROWS} rows read over HTTP in {small:?}, serialised in {trees:?}: {:.2} x, packed ones in \
         {packed:?}: {:.2} x",
        ratio(small, trees),
        ratio(small, packed)
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
async fn read(system: &System, dialect: Dialect) -> (Duration, Vec<Vec<u8>>) {
    let (query, page) = match dialect {
        Dialect::Dataverse => ("accounts", 5_000),
        Dialect::Finops => ("CustomersV3?cross-company=true", 10_000),
    };
    let root = if dialect == Dialect::Dataverse { "/api/data/v9.2/" } else { "/data/" };
    let root = format!("{}{root}", system.base);
    let (mut took, mut pages) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        pages.clear();
        let (mut path, started) = (query.to_owned(), Instant::now());
        while pages.len() * page < ROWS {
            let mut answer = system.open(&path).await;
            let mut parts = Vec::new();
            while let Some(part) = answer.chunk().await.expect("a body") {
                parts.push(part);
            }
            if let Some(next) = next_link(&parts) {
                path = next.strip_prefix(&root).expect("a link below the service root").to_owned();
            }
            pages.push(parts);
        }
        took.push(started.elapsed());
    }
    (median(took.into_iter()), pages.iter().map(|parts| parts.concat()).collect())
}

/// The link at the end of a page, without looking through its rows.
fn next_link(parts: &[impl AsRef<[u8]>]) -> Option<String> {
    const LINK_BYTES_MAX: usize = 1_000;
    let mut end = Vec::new();
    for part in parts.iter().rev() {
        end.splice(0..0, part.as_ref().iter().copied());
        if end.len() >= LINK_BYTES_MAX {
            break;
        }
    }
    let end = std::str::from_utf8(&end[end.len().saturating_sub(LINK_BYTES_MAX)..]).expect("ASCII");
    end.rsplit_once("@odata.nextLink\":\"").map(|(_, link)| link.trim_end_matches("\"}").to_owned())
}

fn rows_of(page: &[u8]) -> Vec<Value> {
    let mut page: Value = serde_json::from_slice(page).expect("json");
    match page["value"].take() {
        Value::Array(rows) => rows,
        other => panic!("no rows: {other}"),
    }
}

/// A row whose names are not its own.
struct Packed<'a> {
    names: &'a [String],
    row: Vec<Value>,
}

impl Serialize for Packed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.names.iter().zip(&self.row))
    }
}

/// The median of serialising them into a buffer that is there already.
fn serialised(rows: &[impl Serialize]) -> Duration {
    let mut buffer = Vec::new();
    let once = |_| {
        buffer.clear();
        let started = Instant::now();
        serde_json::to_writer(&mut buffer, black_box(rows)).expect("serialises");
        black_box(&buffer);
        started.elapsed()
    };
    median((0..ROUNDS).map(once))
}

fn median(took: impl Iterator<Item = Duration>) -> Duration {
    let mut took = took.collect::<Vec<_>>();
    took.sort_unstable();
    took[took.len() / 2]
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
