//! What the tests of the sandbox share: the hostile guest, and a sandbox whose clocks they hold in their hands.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use dualwright_core::{Column, Kind, Operation, Schema, SystemKind, TransactionId, Value};
use dualwright_sandbox::{
    CallContext, CallFault, ExtensionPoint, Installation, InstallationSpec, RowInfo, Sandbox, SandboxSettings, Session,
    Ticker,
};
use serde_json::json;

/// The guest of `tests/guests/hostile`, built once per run in a target folder of its own.
pub static HOSTILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "dualwright-guest-hostile", "--profile", "guest"])
        // With the names of functions, which a fault shows.
        .args(["--config", "profile.guest.strip=\"debuginfo\"", "--target", "wasm32-unknown-unknown", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Flags meant for the host do not suit the guest.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "the hostile guest does not build; is the target there? `rustup target add wasm32-unknown-unknown`"
    );
    let module = std::fs::read(target.join("wasm32-unknown-unknown/guest/dualwright_guest_hostile.wasm")).unwrap();
    wit_component::ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
});

pub fn sandbox(change: impl FnOnce(&mut SandboxSettings)) -> Sandbox {
    let mut settings = SandboxSettings { ticker: Ticker::Manual, instances_max: 16, ..SandboxSettings::default() };
    change(&mut settings);
    Sandbox::new(settings).unwrap()
}

pub fn context() -> CallContext {
    CallContext {
        transaction: TransactionId(uuid::Uuid::nil()),
        attempt: 3,
        now_micros: 1_700_000_000_000_000,
        seed: 42,
        target: SystemKind::Dataverse,
        deadline: Instant::now() + Duration::from_secs(120),
    }
}

pub fn source() -> Arc<Schema> {
    let mut name = Column::new("NAME", Kind::Text);
    name.length_max = Some(100);
    let columns = vec![name, Column::new("OTHER", Kind::Text)];
    Arc::new(Schema::new(SystemKind::Finops, "Thing", "Things", columns))
}

pub fn spec(point: ExtensionPoint, mode: &str) -> InstallationSpec {
    InstallationSpec {
        tenant: "default".into(),
        place: "map things".into(),
        point,
        source: source(),
        targets: vec![],
        writable: vec![0],
        parameters: json!({ "mode": mode }),
        limits: None,
    }
}

pub fn names(names: &[&str]) -> Vec<[Value; 2]> {
    names.iter().map(|name| [Value::text(name), Value::Null]).collect()
}

pub fn slices(rows: &[[Value; 2]]) -> Vec<&[Value]> {
    rows.iter().map(<[_; 2]>::as_slice).collect()
}

pub fn changed(rows: usize) -> Vec<RowInfo<'static>> {
    vec![RowInfo { operation: Operation::Upsert, creating: false, company: "usmf" }; rows]
}

pub fn run(
    session: &mut Session,
    installation: &Installation,
    given: &[&str],
) -> Result<Vec<(usize, String)>, CallFault> {
    let rows = names(given);
    let patch = session.transform(installation, &changed(rows.len()), &slices(&rows))?;
    Ok(patch.cells.into_iter().map(|(row, _, value)| (row, value.to_string())).collect())
}

/// Runs the work on a thread of its own and ticks whenever a guest runs; also returns how often.
pub fn ticking<R: Send>(sandbox: &Sandbox, work: impl FnOnce() -> R + Send) -> (R, u32) {
    std::thread::scope(|scope| {
        let worker = scope.spawn(work);
        let ticks = sandbox.tick_until(|| worker.is_finished());
        (worker.join().unwrap(), ticks)
    })
}
