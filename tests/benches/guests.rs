//! What a guest costs: text work against the same function without a sandbox, rows handed over and back against JSON,
//! and a fresh instance with its first call.
//!
//! The first two take turns round by round, so that their ratio is of one run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use dualwright_core::{Column, Kind, Operation, Schema, SystemKind, TransactionId, Value};
use dualwright_plugin_text_cleanup::{Case, Cleanup, clean};
use dualwright_sandbox::{
    CallContext, CallFault, ExtensionPoint, Installation, InstallationSpec, RowInfo, Sandbox, SandboxSettings, Session,
};
use dualwright_tests::measure::{Samples, Table, take_turns, time, times};
use dualwright_tests::random::Random;
use serde_json::json;

/// The program's own; both sides of a ratio have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 1_000;
const COLUMNS: usize = 20;
const ROUNDS: usize = 200;
const FRESH: usize = 2_000;

fn main() -> anyhow::Result<()> {
    let sandbox = Sandbox::new(SandboxSettings::default())?;
    let mut table = Table::default();
    text_work(&sandbox, &mut table)?;
    rows_and_json(&sandbox, &mut table)?;
    fresh_instance(&sandbox, &mut table)?;
    table.print(&format!("Guests, batches of {ROWS} rows, {ROUNDS} rounds"));
    Ok(())
}

fn context() -> CallContext {
    CallContext {
        transaction: TransactionId(uuid::Uuid::nil()),
        attempt: 1,
        now_micros: 1_700_000_000_000_000,
        seed: 1,
        target: SystemKind::Dataverse,
        deadline: Instant::now() + Duration::from_secs(3_600),
    }
}

fn install(
    sandbox: &Sandbox,
    columns: Vec<Column>,
    writable: usize,
    parameters: serde_json::Value,
) -> anyhow::Result<Arc<Installation>> {
    let bytes = dualwright_plugins::standard("text-cleanup").context("a standard plugin")?;
    let plugin = sandbox.admit("text-cleanup", bytes)?;
    let spec = InstallationSpec {
        tenant: "bench".into(),
        place: "bench".to_owned(),
        point: ExtensionPoint::Transform,
        source: Arc::new(Schema::new(SystemKind::Finops, "Thing", "Things", columns)),
        targets: Vec::new(),
        writable: (0..writable).collect(),
        parameters,
        limits: None,
    };
    Ok(sandbox.install(&plugin, spec)?)
}

fn infos() -> Vec<RowInfo<'static>> {
    vec![RowInfo { operation: Operation::Upsert, creating: true, company: "usmf" }; ROWS]
}

/// Texts of 16 bytes with blanks and capitals where they do not belong, so that every one changes.
fn texts(random: &mut Random) -> Vec<Value> {
    (0..ROWS).map(|_| Value::text(format!(" Ab  {:05}  CdE ", random.below(100_000)))).collect()
}

/// A benchmark that goes wrong has nothing to measure.
fn measured<T>(answer: Result<T, CallFault>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(CallFault { fault, .. }) => panic!("the guest failed: {fault}"),
    }
}

fn text_work(sandbox: &Sandbox, table: &mut Table) -> anyhow::Result<()> {
    let parameters = json!({ "trim": true, "collapse": true, "case": "lower" });
    let installation = install(sandbox, vec![Column::new("NAME", Kind::Text)], 1, parameters)?;
    let texts = texts(&mut Random::new(1));
    anyhow::ensure!(texts.iter().all(|text| text.as_text().is_some_and(|text| text.len() == 16)), "16 bytes each");
    let rows = texts.iter().map(std::slice::from_ref).collect::<Vec<_>>();
    let infos = infos();
    let mut session = sandbox.session("bench", context());
    let settings = Cleanup { trim: true, collapse: true, case: Case::Lower, truncate: 0 };
    let mut out = String::new();
    let (guest, native) = take_turns(
        ROUNDS,
        10,
        || {
            let patch = measured(session.transform(&installation, &infos, &rows));
            assert_eq!(std::hint::black_box(patch).cells.len(), ROWS);
        },
        || {
            let mut cells = Vec::new();
            for (row, text) in texts.iter().enumerate() {
                let before = text.as_text().unwrap_or_default();
                out.clear();
                clean(&settings, before, &mut out);
                if out != before {
                    cells.push((row, 0_usize, Value::text(&out)));
                }
            }
            assert_eq!(std::hint::black_box(cells).len(), ROWS);
        },
    );
    table.line("trim, collapse, lower case: guest", guest.shown(time), "");
    table.line("  the same function natively", native.shown(time), "");
    table.line("  guest by native", guest.ratio(&native).shown(times), "at most 2.50 wanted");
    Ok(())
}

/// Rows as a business has them: texts, numbers, dates, truth values.
fn wide_rows(random: &mut Random) -> (Vec<Column>, Vec<Vec<Value>>) {
    let kinds = [Kind::Text, Kind::Text, Kind::Int64, Kind::Decimal, Kind::Timestamp, Kind::Boolean, Kind::Text];
    let columns = (0..COLUMNS).map(|number| Column::new(format!("COLUMN{number}"), kinds[number % kinds.len()]));
    let columns = columns.collect::<Vec<_>>();
    let rows = (0..ROWS)
        .map(|_| {
            columns
                .iter()
                .map(|column| match column.kind {
                    Kind::Int64 => Value::Int(i64::try_from(random.below(1_000_000)).unwrap_or_default()),
                    Kind::Decimal => Value::Decimal(rust_decimal::Decimal::new(
                        i64::try_from(random.below(1_000_000)).unwrap_or_default(),
                        2,
                    )),
                    Kind::Timestamp => {
                        Value::Timestamp(i64::try_from(random.below(1_700_000_000_000_000)).unwrap_or_default())
                    }
                    Kind::Boolean => Value::Boolean(random.below(2) == 0),
                    _ => Value::text(format!("Some text {:06}", random.below(1_000_000))),
                })
                .collect::<Vec<_>>()
        })
        .collect();
    (columns, rows)
}

/// Handing rows over and taking the answer back, without the guest's own work, against JSON bytes both ways.
fn rows_and_json(sandbox: &Sandbox, table: &mut Table) -> anyhow::Result<()> {
    let (columns, mut wide) = wide_rows(&mut Random::new(2));
    // One column changes in every row.
    for row in &mut wide {
        row[0] = Value::text(format!("  {}", row[0].as_text().unwrap_or_default()));
    }
    let names = columns.iter().map(|column| column.name.to_string()).collect::<Vec<_>>();
    let installation = install(sandbox, columns, 2, json!({ "trim": true, "collapse": true }))?;
    let rows = wide.iter().map(Vec::as_slice).collect::<Vec<_>>();
    let infos = infos();
    let mut session = sandbox.session("bench", context());
    let marshalling_before = marshalling_micros(sandbox);
    let mut calls = 0;
    let (whole, bytes) = take_turns(
        ROUNDS,
        1,
        || {
            let patch = measured(session.transform(&installation, &infos, &rows));
            assert_eq!(std::hint::black_box(patch).cells.len(), ROWS);
            calls += 1;
        },
        || {
            // The host writes, the guest reads and writes, the host reads: four passes, here all of them natively.
            let sent = to_json(&names, &wide);
            let read = from_json(&sent);
            let answered = serde_json::to_vec(&read).unwrap_or_default();
            assert_eq!(std::hint::black_box(from_json(&answered)).len(), ROWS);
        },
    );
    let per_call = (marshalling_micros(sandbox) - marshalling_before) as f64 / 1e6 / f64::from(calls);
    let cheaper = bytes.median() / per_call;
    table.line(format!("{COLUMNS} columns, one changes: whole call"), whole.shown(time), "");
    table.line("  marshalling in it (mean)", time(per_call), "");
    table.line("  JSON bytes both ways, natively", bytes.shown(time), "");
    table.line("  JSON by marshalling", times(cheaper), "at least 20.00 wanted");
    Ok(())
}

fn marshalling_micros(sandbox: &Sandbox) -> u64 {
    sandbox.timings().iter().map(|timing| timing.marshalling_micros).sum()
}

fn to_json(names: &[String], rows: &[Vec<Value>]) -> Vec<u8> {
    let rows = rows.iter().map(|row| {
        let cells = names.iter().zip(row).map(|(name, value)| {
            let value = match value {
                Value::Int(number) => json!(number),
                Value::Boolean(value) => json!(value),
                Value::Null | Value::Absent => serde_json::Value::Null,
                Value::Text(text) => json!(&**text),
                other => json!(other.to_string()),
            };
            (name.clone(), value)
        });
        cells.collect::<serde_json::Map<_, _>>()
    });
    serde_json::to_vec(&rows.collect::<Vec<_>>()).unwrap_or_default()
}

fn from_json(bytes: &[u8]) -> Vec<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// A session of its own for one row: a store, an instance, `configure`, and a call.
fn fresh_instance(sandbox: &Sandbox, table: &mut Table) -> anyhow::Result<()> {
    let installation = install(sandbox, vec![Column::new("NAME", Kind::Text)], 1, json!({}))?;
    let text = [Value::text("  One  ")];
    let info = &infos()[..1];
    let mut samples = Samples::default();
    let mut ended = Samples::default();
    for number in 0..FRESH + 100 {
        let context = context();
        let started = Instant::now();
        let mut session: Session = sandbox.session("bench", context);
        let patch = measured(session.transform(&installation, info, &[&text]));
        let first_call = started.elapsed();
        drop(session);
        assert_eq!(patch.cells.len(), 1);
        // The first ones find cold caches and pools.
        if number >= 100 {
            samples.add_time(first_call);
            ended.add_time(started.elapsed());
        }
    }
    table.line("fresh instance and first call", samples.shown(time), "under 50 µs wanted");
    table.line("  and its end", ended.shown(time), "");
    Ok(())
}
