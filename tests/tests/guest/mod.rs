//! The guest that misbehaves, for stories that need one.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// The guest that misbehaves, as a component; built once per run in a target folder of its own.
pub static HOSTILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "dualwright-guest-hostile", "--profile", "guest"])
        .args(["--target", "wasm32-unknown-unknown", "--target-dir"])
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
    let module = target.join("wasm32-unknown-unknown/guest/dualwright_guest_hostile.wasm");
    let module = std::fs::read(module).expect("it was built there");
    let encoder = wit_component::ComponentEncoder::default().module(&module).expect("it is a module");
    encoder.validate(true).encode().expect("it is a component")
});
