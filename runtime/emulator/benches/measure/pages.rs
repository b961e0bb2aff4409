//! 10,000 rows read over HTTP, against serialising the same rows in memory, and with a large table around them.
//!
//! Reading ends with the last byte of the answer and holds what it costs to send it over loopback and to receive it. The
//! baseline is what serde_json takes for the rows as the answer had them, etags included, parsed before the clock starts,
//! into a buffer that is large enough: it neither reads a file nor sends anything. It is given twice: of `Value` trees,
//! where each row has names of its own, and of packed rows that share their names, as a program with types would have
//! them, which is faster the wider a row is. Both are measured in one run. `PAGE_ROWS` is how many rows the table has in the
//! end (1,000,000 when not set). On F&O there are two tables: one of 4 columns, where what a row costs by itself is all,
//! and one with as many columns as the published entity `CustomersV3`, of which every fifth holds something.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dualwright_emulator::{Dialect, TableFile, read_tables};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::common::{System, id};

const ROWS: usize = 10_000;
const ROUNDS: usize = 15;

/// Columns of the entity `CustCustomerV3Entity` as published in the Common Data Model.
const WIDE_COLUMNS: usize = 303;

pub async fn measure(dialect: Dialect) {
    let wanted = std::env::var("PAGE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000_usize);
    let name = dialect.name();
    let system = System::start(dialect).await;
    if dialect == Dialect::Dataverse {
        system.create("cdm_companies", &format!(r#"{{"cdm_companyid":"{}","cdm_companycode":"usmf"}}"#, id(901))).await;
    }
    add(&system, dialect, 0, ROWS);
    let small = compare(&system, dialect, name, table_of(dialect)).await;
    add(&system, dialect, ROWS, wanted);
    let (large, _) = read(&system, dialect, table_of(dialect)).await;
    println!("pages: {name}: among {wanted} rows in {large:?}: {:.2} x of the small table", ratio(large, small));
    if dialect == Dialect::Finops {
        system.emulator.define(&wide_table().tables).expect("defines");
        system.emulator.seed(WIDE, (0..ROWS).map(wide_row).collect()).expect("seeds");
        compare(&system, dialect, "finops, wide", WIDE).await;
    }
    system.end().await;
}

const fn table_of(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Dataverse => "accounts",
        Dialect::Finops => "CustomersV3",
    }
}

const WIDE: &str = "WideCustomers";

/// Texts, numbers, dates and enumerations by turns, as an entity has them.
fn wide_table() -> TableFile {
    let column = |at: usize| match at % 4 {
        0 => json!({"name": format!("CustomerText{at}"), "type": "text", "maxLength": 60}),
        1 => json!({"name": format!("CustomerAmount{at}"), "type": "decimal"}),
        2 => json!({"name": format!("IsCustomerFlag{at}"), "type": "enum", "enum": "NoYes"}),
        _ => json!({"name": format!("CustomerDate{at}"), "type": "datetime"}),
    };
    let mut columns = vec![
        json!({"name": "dataAreaId", "type": "text", "maxLength": 4}),
        json!({"name": "CustomerAccount", "type": "text", "maxLength": 20, "required": true}),
    ];
    columns.extend((columns.len()..WIDE_COLUMNS).map(column));
    let table =
        json!({"name": "WideCustomer", "set": WIDE, "key": ["dataAreaId", "CustomerAccount"], "columns": columns});
    read_tables(&json!({"tables": [table]}).to_string()).expect("reads")
}

fn wide_row(row: usize) -> Map<String, Value> {
    let mut cells = Map::new();
    cells.insert("dataAreaId".into(), json!("usmf"));
    cells.insert("CustomerAccount".into(), json!(format!("C{row}")));
    for at in (2..WIDE_COLUMNS).step_by(5) {
        let (name, value) = match at % 4 {
            0 => (format!("CustomerText{at}"), json!(format!("text {at} of row {row}"))),
            1 => (format!("CustomerAmount{at}"), json!(row)),
            2 => (format!("IsCustomerFlag{at}"), json!("Yes")),
            _ => (format!("CustomerDate{at}"), json!("2024-01-02T03:04:05Z")),
        };
        cells.insert(name, value);
    }
    cells
}

/// Reads the pages of a table and serialises its rows; gives what reading took.
async fn compare(system: &System, dialect: Dialect, name: &str, set: &str) -> Duration {
    let (small, pages) = read(system, dialect, set).await;
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
    small
}

fn add(system: &System, dialect: Dialect, from: usize, to: usize) {
    let set = table_of(dialect);
    for start in (from..to).step_by(10_000) {
        let rows = (start..to.min(start + 10_000)).map(|row| super::seed(dialect, row)).collect();
        system.emulator.seed(set, rows).expect("seeds");
    }
}

/// The median of reading the first rows in the largest pages of the system, and the pages.
async fn read(system: &System, dialect: Dialect, set: &str) -> (Duration, Vec<Vec<u8>>) {
    let (query, page) = match dialect {
        Dialect::Dataverse => (set.to_owned(), 5_000),
        Dialect::Finops => (format!("{set}?cross-company=true"), 10_000),
    };
    let root = if dialect == Dialect::Dataverse { "/api/data/v9.2/" } else { "/data/" };
    let root = format!("{}{root}", system.base);
    let (mut took, mut pages) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        pages.clear();
        let (mut path, started) = (query.clone(), Instant::now());
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
