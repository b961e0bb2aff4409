//! Makes components, for authors who have no other tool for it.
//!
//! `dualwright-component FOLDER` builds the plugin crate in that folder for `wasm32-unknown-unknown` and writes the
//! component beside its sources; `dualwright-component MODULE.wasm` turns a module that is already built into one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";

/// Small and fast, whatever the crate's own profile says.
const PROFILE: &[&str] = &[
    "profile.release.opt-level=3",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic='abort'",
    "profile.release.strip=true",
    "profile.release.debug=false",
];

const HELP: &str = "\
Makes a plugin a component.

usage: dualwright-component FOLDER|MODULE.wasm [OUT.wasm]

FOLDER       a plugin crate: it is built for wasm32-unknown-unknown first
MODULE.wasm  a module that is already built
OUT.wasm     where the component goes; by default NAME.wasm in the folder, or NAME.component.wasm beside the module";

/// Wrong usage, as everywhere in dualwright.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (input, out) = match arguments.as_slice() {
        [input] if input.as_os_str() != "--help" && input.as_os_str() != "-h" => (input, None),
        [input, out] => (input, Some(out.clone())),
        [_] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(USAGE);
        }
    };
    match make(input, out) {
        Ok((out, bytes)) => {
            println!("{} ({} KiB)", out.display(), bytes.div_ceil(1024));
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn make(input: &Path, out: Option<PathBuf>) -> Result<(PathBuf, usize), String> {
    let (module, beside) = if input.is_dir() {
        let module = build(input)?;
        let name = module.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
        (module, input.join(format!("{name}.wasm")))
    } else {
        (input.to_owned(), input.with_extension("component.wasm"))
    };
    let out = out.unwrap_or(beside);
    let bytes = fs::read(&module).map_err(|error| format!("{}: {error}", module.display()))?;
    let component = wit_component::ComponentEncoder::default()
        .module(&bytes)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| format!("{} is no plugin: {error:#}", module.display()))?;
    fs::write(&out, &component).map_err(|error| format!("{}: {error}", out.display()))?;
    Ok((out, component.len()))
}

/// Builds the crate in that folder; the path of its module, as cargo says it.
fn build(folder: &Path) -> Result<PathBuf, String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["rustc", "--lib", "--crate-type", "cdylib", "--release", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .args(PROFILE.iter().flat_map(|setting| ["--config", setting]))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo did not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("{} does not build. Is the target there? rustup target add {TARGET}", folder.display()));
    }
    // The last module named is the crate's own; its dependencies come before it.
    let said = String::from_utf8_lossy(&output.stdout);
    said.split('"')
        .rfind(|part| part.ends_with(".wasm"))
        .map(PathBuf::from)
        .ok_or_else(|| format!("{} built no module", folder.display()))
}
