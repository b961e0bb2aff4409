//! What live sync adds: from the moment a user's write is answered on one side until its row stands on the other,
//! against a direct write to the other side and one fsync.
//!
//! `DUALWRIGHT_BENCH_SAMPLES` changes the number of writes.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dualwright::engine::LiveEnd;
use dualwright::engine::progress::Unwatched;
use dualwright_core::SystemKind;
use dualwright_tests::audit;
use dualwright_tests::measure::{Samples, Table, time};
use dualwright_tests::systems::{Edit, Operation, SystemClient};
use dualwright_tests::world::{Served, Settings, open_engine, write_config};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The program's own; both sides of a ratio have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often the runtime asks a feed that had nothing: half of it is waited for on average.
const POLL_INTERVAL_MS: u64 = 5;

/// How often we look whether the row is there.
const LOOK_EVERY: Duration = Duration::from_micros(200);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let samples = match std::env::var("DUALWRIGHT_BENCH_SAMPLES") {
        Ok(text) => text.parse().context("DUALWRIGHT_BENCH_SAMPLES is not a number")?,
        Err(_) => 300_usize,
    };
    let folder = TempDir::new()?;
    let (left, finops) = Served::start(SystemKind::Finops, Some(&folder.path().join("finops.sqlite"))).await?;
    let (right, dataverse) =
        Served::start(SystemKind::Dataverse, Some(&folder.path().join("dataverse.sqlite"))).await?;
    insert(&finops, "LegalEntities", &[("LegalEntityId", "usmf"), ("Name", "Contoso")]).await?;
    insert(&finops, "Currencies", &[("CurrencyCode", "EUR"), ("Name", "Euro"), ("Symbol", "€")]).await?;
    insert(&finops, "Currencies", &[("CurrencyCode", "USD"), ("Name", "Dollar"), ("Symbol", "$")]).await?;
    let settings = Settings { limits: vec![format!("poll_interval_ms = {POLL_INTERVAL_MS}")], ..Settings::default() };
    let file = write_config(folder.path(), &settings, &finops.base, &dataverse.base)?;
    let engine = Arc::new(open_engine(&file, Arc::new(Unwatched)).await?);
    let stop = CancellationToken::new();
    engine.start_feeds().await?;
    engine.initial_sync(&stop).await?;
    engine.live(LiveEnd::Settled, &stop).await?;
    let live = tokio::spawn({
        let (engine, stop) = (Arc::clone(&engine), stop.clone());
        async move { engine.live(LiveEnd::Never, &stop).await }
    });

    let mut floor = File::create(folder.path().join("fsync"))?;
    let (mut direct, mut to_dataverse, mut to_finops) = (Samples::default(), Samples::default(), Samples::default());
    for number in 0..samples {
        let name = format!("Name {number}");
        let from_finops = Edit {
            operation: Operation::Update,
            set: "Currencies".to_owned(),
            key: vec![("CurrencyCode".to_owned(), "EUR".to_owned())],
            columns: vec![("Name".to_owned(), name.clone())],
        };
        to_dataverse.add_time(arrives(&finops, &from_finops, &dataverse, "transactioncurrencies").await?);
        let from_dataverse = Edit {
            operation: Operation::Update,
            set: "transactioncurrencies".to_owned(),
            key: vec![("isocurrencycode".to_owned(), "USD".to_owned())],
            columns: vec![("currencyname".to_owned(), name.clone())],
        };
        to_finops.add_time(arrives(&dataverse, &from_dataverse, &finops, "Currencies").await?);
        // A table that no map reads, so that the runtime has nothing to do with it.
        let started = Instant::now();
        let receipt = format!(r#"{{"dualwright_transactionid":"bench-{number}"}}"#);
        dataverse.post("/api/data/v9.2/dualwright_receipts", receipt).await?;
        floor.write_all(name.as_bytes())?;
        floor.sync_all()?;
        direct.add_time(started.elapsed());
    }
    stop.cancel();
    // It ends with an error that says that it was stopped.
    let _ = live.await?;
    engine.link().store.close().await;
    left.end().await?;
    right.end().await?;

    let mut table = Table::default();
    for (name, samples) in
        [("direct write and fsync", &direct), ("F&O to Dataverse", &to_dataverse), ("Dataverse to F&O", &to_finops)]
    {
        let figures = format!("p50 {:>9}  p99 {:>9}", time(samples.median()), time(samples.quantile(0.99)));
        table.line(name, figures, "");
    }
    for (name, samples) in [("added, F&O to Dataverse", &to_dataverse), ("added, Dataverse to F&O", &to_finops)] {
        let added = |share: f64| time((samples.quantile(share) - direct.quantile(share)).max(0.0));
        table.line(name, format!("p50 {:>9}  p99 {:>9}", added(0.5), added(0.99)), "");
    }
    table.print(&format!("Live latency, {samples} writes each way, feeds asked every {POLL_INTERVAL_MS} ms"));
    Ok(())
}

async fn insert(system: &SystemClient, set: &str, columns: &[(&str, &str)]) -> anyhow::Result<()> {
    let columns = columns.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let edit = Edit { operation: Operation::Insert, set: set.to_owned(), key: Vec::new(), columns };
    system.write(&edit).await?.map_err(anyhow::Error::msg)
}

/// How long a user's edit takes from its answer until the runtime's write of it stands in the other side's audit.
async fn arrives(from: &SystemClient, edit: &Edit, to: &SystemClient, set: &str) -> anyhow::Result<Duration> {
    const GIVEN_UP_AFTER: Duration = Duration::from_secs(30);
    let mut seen = audit::read(to, 0).await?.last().map_or(0, |entry| entry.sequence);
    from.write(edit).await?.map_err(anyhow::Error::msg)?;
    let answered = Instant::now();
    loop {
        let entries = audit::read(to, seen).await?;
        if entries.iter().any(|entry| entry.is_ours() && entry.set == set) {
            return Ok(answered.elapsed());
        }
        seen = entries.last().map_or(seen, |entry| entry.sequence);
        ensure!(answered.elapsed() < GIVEN_UP_AFTER, "a row does not arrive");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
