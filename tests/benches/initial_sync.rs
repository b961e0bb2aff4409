//! Initial sync of generated customers over loopback, with two plugins bound, against a bare copy loop: the same pages,
//! batches and requests at a time, columns renamed, no runtime between. Beside it what an emulator takes against
//! direct SQLite inserts, because that is the floor under both, and the processor time of all that takes part: it says
//! the same when others use the machine too.
//!
//! `DUALWRIGHT_BENCH_ROWS` and `DUALWRIGHT_BENCH_ROUNDS` change the size.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use dualwright::engine::progress::Unwatched;
use dualwright_core::SystemKind;
use dualwright_odata::batch::Writer;
use dualwright_tests::measure::{Samples, Table, processor_time, rate, time, times};
use dualwright_tests::random::Random;
use dualwright_tests::systems::{Row, SystemClient};
use dualwright_tests::world::{Served, Settings, open_engine, write_config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The program's own; both sides of a ratio have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a change set holds beside receipt and fence, and what the runtime uses.
const BATCH_ROWS: usize = 998;
const CONCURRENCY: usize = 4;
const COMPANIES: [&str; 2] = ["usmf", "demf"];
const CURRENCIES: [&str; 4] = ["EUR", "USD", "GBP", "JPY"];
const SEED: u64 = 20_240_229;

fn from_environment(name: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is not a number")),
        Err(_) => Ok(default),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rows = from_environment("DUALWRIGHT_BENCH_ROWS", 100_000)?;
    let rounds = from_environment("DUALWRIGHT_BENCH_ROUNDS", 3)?;
    let folder = TempDir::new()?;
    let (finops, finops_client) = Served::start(SystemKind::Finops, Some(&folder.path().join("finops.sqlite"))).await?;
    seed(&finops, rows)?;

    let (mut copied, mut synced, mut inserted) = (Way::default(), Way::default(), Samples::default());
    for round in 0..rounds {
        let folder = folder.path().join(round.to_string());
        copied.add(rows, &copy_round(&folder.join("copy"), &finops_client, rows).await?);
        synced.add(rows, &sync_round(&folder.join("sync"), &finops_client, rows).await?);
        inserted.add(rows as f64 / insert_round(&folder.join("insert"), rows)?);
    }
    finops.end().await?;

    let mut table = Table::default();
    table.line("bare copy loop", copied.rate.shown(rate), "");
    table.line("initial sync, two plugins", synced.rate.shown(rate), "");
    table.line("initial sync by bare copy", synced.rate.ratio(&copied.rate).shown(times), "at least 0.70 wanted");
    table.line("direct SQLite inserts", inserted.shown(rate), "");
    table.line("bare copy by direct inserts", copied.rate.ratio(&inserted).shown(times), "");
    table.line("processor time of a row, bare copy", copied.processor.shown(time), "");
    table.line("processor time of a row, initial sync", synced.processor.shown(time), "");
    table.print(&format!("Initial sync of {rows} rows, {rounds} rounds"));
    Ok(())
}

/// What one way of carrying the rows over takes.
#[derive(Default)]
struct Way {
    /// Rows per second.
    rate: Samples,
    /// Seconds of processor time per row.
    processor: Samples,
}

impl Way {
    fn add(&mut self, rows: usize, spent: &Spent) {
        self.rate.add(rows as f64 / spent.seconds);
        if let Some(processor) = spent.processor_seconds {
            self.processor.add(processor / rows as f64);
        }
    }
}

/// What a round took.
struct Spent {
    seconds: f64,
    processor_seconds: Option<f64>,
}

/// From here on until [`Watch::stop`].
struct Watch {
    started: Instant,
    processor: Option<f64>,
}

impl Watch {
    fn start() -> Self {
        Self { started: Instant::now(), processor: processor_time() }
    }

    fn stop(&self) -> Spent {
        let seconds = self.started.elapsed().as_secs_f64();
        let processor_seconds = self.processor.zip(processor_time()).map(|(before, after)| after - before);
        Spent { seconds, processor_seconds }
    }
}

fn row(value: Value) -> Row {
    match value {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

/// Customers as people type them: blanks and capitals where they do not belong.
fn customers(rows: usize) -> Vec<Row> {
    let mut random = Random::new(SEED);
    let on_hold = ["No", "No", "No", "Invoice", "All", "Payment"];
    (0..rows)
        .map(|number| {
            let name = format!("  Customer   {number} {}  ", "of a somewhat long name ".repeat(random.below(3) as usize));
            row(json!({
                "dataAreaId": COMPANIES[number % 2],
                "CustomerAccount": format!("C{number:07}"),
                "OrganizationName": name,
                "PartyType": "Organization",
                "CustomerGroupId": (random.below(5)).to_string(),
                "SalesCurrencyCode": random.pick(&CURRENCIES),
                "CreditLimit": random.below(10_000_000) as f64 / 100.0,
                "EmployeeCount": random.below(1_000),
                "PrimaryContactEmail": format!("Info.{number}@Example.COM"),
                "OnHoldStatus": random.pick(&on_hold),
                "CustomerSince": format!("20{:02}-{:02}-{:02}", random.below(24), 1 + random.below(12), 1 + random.below(28)),
            }))
        })
        .collect()
}

fn seed(finops: &Served, rows: usize) -> anyhow::Result<()> {
    let emulator = &finops.emulator;
    emulator
        .seed("LegalEntities", COMPANIES.map(|code| row(json!({ "LegalEntityId": code, "Name": code }))).to_vec())?;
    emulator.seed(
        "Currencies",
        CURRENCIES.map(|code| row(json!({ "CurrencyCode": code, "Name": code, "Symbol": code }))).to_vec(),
    )?;
    let groups = COMPANIES.iter().flat_map(|company| {
        (0..5).map(move |number| {
            row(json!({ "dataAreaId": company, "CustomerGroupId": number.to_string(), "Description": "Group" }))
        })
    });
    emulator.seed("CustomerGroups", groups.collect())?;
    for chunk in customers(rows).chunks(10_000) {
        emulator.seed("CustomersV3", chunk.to_vec())?;
    }
    Ok(())
}

/// What the runtime takes for the customers; the small tables are there before.
async fn sync_round(folder: &Path, finops: &SystemClient, rows: usize) -> anyhow::Result<Spent> {
    std::fs::create_dir_all(folder)?;
    let (dataverse, client) = Served::start(SystemKind::Dataverse, Some(&folder.join("dataverse.sqlite"))).await?;
    let stop = CancellationToken::new();
    let limits = vec![format!("batch_rows_max = {BATCH_ROWS}"), format!("initial_sync_concurrency = {CONCURRENCY}")];
    let small = ["companies", "currencies", "customer-groups"].map(str::to_owned).to_vec();
    let mut settings = Settings { maps: small, limits, ..Settings::default() };
    let file = write_config(folder, &settings, &finops.base, &client.base)?;
    let engine = open_engine(&file, Arc::new(Unwatched)).await?;
    engine.initial_sync(&stop).await?;
    engine.link().store.close().await;
    drop(engine);

    settings.maps.clear();
    settings.bindings = [
        r#"{ name = "text-cleanup", stage = "transform", field = "ORGANIZATIONNAME", direction = "both", parameters = { trim = true, collapse = true } }"#,
        r#"{ name = "text-cleanup", stage = "transform", field = "PRIMARYCONTACTEMAIL", direction = "both", parameters = { case = "lower" } }"#,
    ]
    .map(|binding| ("customers".to_owned(), binding.to_owned()))
    .to_vec();
    let file = write_config(folder, &settings, &finops.base, &client.base)?;
    let engine = open_engine(&file, Arc::new(Unwatched)).await?;
    let watch = Watch::start();
    engine.initial_sync(&stop).await?;
    let spent = watch.stop();
    ensure!(dataverse.emulator.count("accounts")? == rows, "not every customer arrived");
    engine.link().store.close().await;
    dataverse.end().await?;
    Ok(spent)
}

/// What a loop takes that only renames columns.
async fn copy_round(folder: &Path, finops: &SystemClient, rows: usize) -> anyhow::Result<Spent> {
    std::fs::create_dir_all(folder)?;
    let (dataverse, client) = Served::start(SystemKind::Dataverse, Some(&folder.join("dataverse.sqlite"))).await?;
    let ids = Arc::new(Ids::seed(&dataverse)?);
    let http = reqwest::Client::builder().no_proxy().build()?;
    let watch = Watch::start();
    let (send, receive) = mpsc::channel::<Vec<Value>>(CONCURRENCY);
    let receive = Arc::new(Mutex::new(receive));
    let reader = async {
        let select = "dataAreaId,CustomerAccount,OrganizationName,PartyType,CustomerGroupId,SalesCurrencyCode,CreditLimit,\
                      EmployeeCount,PrimaryContactEmail,OnHoldStatus,CustomerSince";
        let mut next = Some(format!("{}/data/CustomersV3?cross-company=true&$select={select}", finops.base));
        while let Some(url) = next {
            let answer = http.get(&url).header("prefer", format!("odata.maxpagesize={BATCH_ROWS}")).send().await?;
            let mut page: Value = serde_json::from_slice(&answer.error_for_status()?.bytes().await?)?;
            next = page.get("@odata.nextLink").and_then(Value::as_str).map(str::to_owned);
            let Some(Value::Array(rows)) = page.get_mut("value").map(Value::take) else { break };
            for chunk in rows.chunks(BATCH_ROWS) {
                send.send(chunk.to_vec()).await.context("the writers are gone")?;
            }
        }
        drop(send);
        anyhow::Ok(())
    };
    let mut writers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (receive, http, ids, base) = (Arc::clone(&receive), http.clone(), Arc::clone(&ids), client.base.clone());
        writers.spawn(async move {
            loop {
                let page = receive.lock().await.recv().await;
                let Some(page) = page else { return anyhow::Ok(()) };
                write_page(&http, &base, &ids, &page).await?;
            }
        });
    }
    reader.await?;
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let spent = watch.stop();
    ensure!(dataverse.emulator.count("accounts")? == rows, "not every customer was copied");
    dataverse.end().await?;
    Ok(spent)
}

/// Ids of the small tables: a bare loop knows them beforehand.
struct Ids {
    companies: HashMap<String, String>,
    currencies: HashMap<String, String>,
    groups: HashMap<(String, String), String>,
}

impl Ids {
    fn seed(dataverse: &Served) -> anyhow::Result<Self> {
        let mut number = 0_u128;
        let mut id = || {
            number += 1;
            let hex = format!("{number:032x}");
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        };
        let companies = COMPANIES.map(|code| (code.to_owned(), id())).into_iter().collect::<HashMap<_, _>>();
        let currencies = CURRENCIES.map(|code| (code.to_owned(), id())).into_iter().collect::<HashMap<_, _>>();
        let mut groups = HashMap::new();
        for company in COMPANIES {
            for number in 0..5 {
                groups.insert((company.to_owned(), number.to_string()), id());
            }
        }
        let emulator = &dataverse.emulator;
        let rows = companies.iter().map(|(code, id)| row(json!({ "cdm_companyid": id, "cdm_companycode": code })));
        emulator.seed("cdm_companies", rows.collect())?;
        let rows = currencies.iter().map(|(code, id)| {
            row(json!({ "transactioncurrencyid": id, "isocurrencycode": code, "currencyname": code, "currencysymbol": code,
                "exchangerate": 1 }))
        });
        emulator.seed("transactioncurrencies", rows.collect())?;
        let rows = groups.iter().map(|((company, group), id)| {
            row(json!({
                "msdyn_customergroupid": id,
                "msdyn_groupid": group,
                "_msdyn_company_value": companies[company],
            }))
        });
        emulator.seed("msdyn_customergroups", rows.collect())?;
        Ok(Self { companies, currencies, groups })
    }
}

async fn write_page(http: &reqwest::Client, base: &str, ids: &Ids, page: &[Value]) -> anyhow::Result<()> {
    let mut writer = Writer::with_capacity(page.len() * 900);
    writer.open_change_set();
    for (position, from) in page.iter().enumerate() {
        let text = |name: &str| from[name].as_str().unwrap_or_default();
        let company = text("dataAreaId");
        let group = ids.groups.get(&(company.to_owned(), text("CustomerGroupId").to_owned())).context("a group")?;
        let on_hold = match text("OnHoldStatus") {
            "Invoice" => 806_380_001,
            "All" => 806_380_002,
            "Payment" => 806_380_003,
            _ => 806_380_000,
        };
        let body = json!({
            "accountnumber": from["CustomerAccount"],
            "msdyn_company@odata.bind": format!("/cdm_companies({})", ids.companies.get(company).context("a company")?),
            "name": from["OrganizationName"],
            "customertypecode": 3,
            "msdyn_customergroupid@odata.bind": format!("/msdyn_customergroups({group})"),
            "transactioncurrencyid@odata.bind":
                format!("/transactioncurrencies({})", ids.currencies.get(text("SalesCurrencyCode")).context("a currency")?),
            "creditlimit": from["CreditLimit"],
            "numberofemployees": from["EmployeeCount"],
            "emailaddress1": from["PrimaryContactEmail"],
            "msdyn_onholdstatus": on_hold,
            "msdyn_customersince": text("CustomerSince").get(..10),
        });
        let id = (position + 1).to_string();
        let headers = [("Content-Type", "application/json")];
        writer.request(Some(&id), "POST", "/api/data/v9.2/accounts", headers, body.to_string().as_bytes());
    }
    let (content_type, body) = writer.finish();
    let answer = http
        .post(format!("{base}/api/data/v9.2/$batch"))
        .header("content-type", content_type)
        .body(body)
        .send()
        .await?
        .error_for_status()?;
    let text = answer.text().await?;
    let refused = text.lines().find(|line| line.starts_with("HTTP/1.1 ") && !line.starts_with("HTTP/1.1 2"));
    ensure!(refused.is_none(), "{text}");
    Ok(())
}

/// Seconds that SQLite takes for rows of this size in transactions of this size, with the index that a key needs.
fn insert_round(folder: &Path, rows: usize) -> anyhow::Result<f64> {
    std::fs::create_dir_all(folder)?;
    let mut connection = rusqlite::Connection::open(folder.join("direct.sqlite"))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE accounts (id BLOB PRIMARY KEY, number TEXT, company TEXT, data TEXT, UNIQUE (number, company));",
    )?;
    let rows = customers(rows).into_iter().map(|row| Value::Object(row).to_string()).collect::<Vec<_>>();
    let started = Instant::now();
    for (page, chunk) in rows.chunks(BATCH_ROWS).enumerate() {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO accounts VALUES (?1, ?2, ?3, ?4)")?;
            for (position, row) in chunk.iter().enumerate() {
                let number = page * BATCH_ROWS + position;
                let id = (number as u128).to_be_bytes();
                insert.execute((id.as_slice(), format!("C{number:07}"), COMPANIES[number % 2], row))?;
            }
        }
        transaction.commit()?;
    }
    Ok(started.elapsed().as_secs_f64())
}
