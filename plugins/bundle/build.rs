//! Builds the standard plugins for `wasm32-unknown-unknown`, makes them components and embeds them.
//!
//! A cargo within cargo: it has a target directory of its own, so it never waits for the lock of the outer one, and a
//! cleaned environment, so that flags and wrappers meant for the host do not reach the guests. Dependencies are those of
//! the workspace's Cargo.lock.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The standard plugins: folders beside this one.
const PLUGINS: &[&str] =
    &["text-cleanup", "email-validator", "money-rounding", "credit-limit", "stored-equals-sent", "customer-split"];

const TARGET: &str = "wasm32-unknown-unknown";

/// For the guests alone: every engine that runs components has SIMD, and the SDK's text checks gain from it.
const GUEST_FLAGS: &str = "-Ctarget-feature=+simd128";

fn main() {
    if let Err(message) = run() {
        eprintln!("\nThe standard plugins could not be built.\n{message}\n");
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let plugins = here.parent().ok_or("the bundle has no parent folder")?;
    let workspace = plugins.parent().ok_or("the plugins have no parent folder")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    watch(workspace, plugins);

    let toolchain = Toolchain::find()?;
    let mut source = String::from("/// Every standard plugin.\npub const STANDARD: &[Standard] = &[\n");
    for &name in PLUGINS {
        let core = toolchain.build(workspace, &out.join("guests"), &format!("dualwright-plugin-{name}"))?;
        let component = out.join(format!("{name}.wasm"));
        fs::write(&component, componentize(name, &core)?).map_err(|error| at(&component, &error))?;
        let _ = writeln!(source, "    Standard {{ name: {name:?}, bytes: include_bytes!({component:?}) }},");
    }
    source.push_str("];\n");
    let list = out.join("standard.rs");
    fs::write(&list, source).map_err(|error| at(&list, &error))
}

/// What the guests are built from. A folder counts with everything in it.
fn watch(workspace: &Path, plugins: &Path) {
    let mut paths = vec![plugins.join("bundle/build.rs")];
    paths.extend(
        ["Cargo.toml", "Cargo.lock", "wit", "sdk/rust/src", "sdk/rust/Cargo.toml"].map(|path| workspace.join(path)),
    );
    paths.extend(["sdk/rust-macros/src", "sdk/rust-macros/Cargo.toml"].map(|path| workspace.join(path)));
    for name in PLUGINS {
        paths.push(plugins.join(name).join("src"));
        paths.push(plugins.join(name).join("Cargo.toml"));
    }
    for path in paths {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

fn componentize(name: &str, core: &Path) -> Result<Vec<u8>, String> {
    let module = fs::read(core).map_err(|error| at(core, &error))?;
    wit_component::ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| format!("{name} is no component: {error:#}"))
}

/// A compiler that has, or can make, a standard library for the target.
enum Toolchain {
    /// The target is installed.
    Ready,
    /// The standard library's source is there, as Debian's rust-web-src ships it, and is built along.
    BuildStd { rustc: PathBuf, cargo: PathBuf, linker: Option<PathBuf> },
}

impl Toolchain {
    fn find() -> Result<Self, String> {
        let rustc = PathBuf::from(variable("RUSTC")?);
        if has_target(&rustc) {
            return Ok(Self::Ready);
        }
        let mut tried = String::new();
        if runs(Command::new("rustup").arg("--version")) {
            // The toolchain is the one that builds the host, by RUSTUP_TOOLCHAIN.
            let added = Command::new("rustup").args(["target", "add", TARGET]).stdin(Stdio::null()).output();
            match added {
                Ok(output) if output.status.success() && has_target(&rustc) => return Ok(Self::Ready),
                Ok(output) => tried = format!("`rustup target add {TARGET}` said:\n{}", tail(&output.stderr)),
                Err(error) => tried = format!("rustup did not start: {error}"),
            }
        }
        let cargo = PathBuf::from(variable("CARGO")?);
        for (rustc, cargo) in [(rustc, cargo), (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo"))] {
            let Some(sysroot) = sysroot(&rustc) else { continue };
            let source =
                [sysroot.join("lib/rustlib/src/rust/library"), PathBuf::from("/usr/lib/rustlib/src/rust/library")];
            if !source.iter().any(|library| library.join("std/src/lib.rs").exists()) || !cargo.exists() {
                continue;
            }
            if has_rust_lld(&sysroot) {
                return Ok(Self::BuildStd { rustc, cargo, linker: None });
            }
            if let Some(linker) = on_path("wasm-ld") {
                return Ok(Self::BuildStd { rustc, cargo, linker: Some(linker) });
            }
        }
        Err(format!(
            "The compiler has no standard library for {TARGET}. Install it in one of two ways, then build again:\n\
             \x20 with rustup:      rustup target add {TARGET}\n\
             \x20 with Debian's:    apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld\n{tried}"
        ))
    }

    /// Builds one guest; the path of its module.
    fn build(&self, workspace: &Path, target_dir: &Path, package: &str) -> Result<PathBuf, String> {
        let mut command = match self {
            Self::Ready => Command::new(variable("CARGO")?),
            Self::BuildStd { cargo, .. } => Command::new(cargo),
        };
        clean_environment(&mut command);
        command
            .arg("rustc")
            .arg("--manifest-path")
            .arg(workspace.join("Cargo.toml"))
            .args(["--package", package, "--lib", "--crate-type", "cdylib", "--profile", "guest", "--target", TARGET])
            .arg("--target-dir")
            .arg(target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", GUEST_FLAGS)
            .stdin(Stdio::null());
        if let Self::BuildStd { rustc, linker, .. } = self {
            command.args(["-Z", "build-std=std,panic_abort"]).env("RUSTC_BOOTSTRAP", "1").env("RUSTC", rustc);
            if let Some(linker) = linker {
                command
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env("CARGO_ENCODED_RUSTFLAGS", format!("{GUEST_FLAGS}\x1f-Clinker-flavor=wasm-ld"));
            }
        }
        let output = command.output().map_err(|error| format!("cargo did not start: {error}"))?;
        if !output.status.success() {
            return Err(format!("{package} does not compile for {TARGET}:\n{}", tail(&output.stderr)));
        }
        let file = format!("{}.wasm", package.replace('-', "_"));
        Ok(target_dir.join(TARGET).join("guest").join(file))
    }
}

/// Takes away what the outer build set for the host. Where cargo finds its home, its registries and its share of the
/// processors stays.
fn clean_environment(command: &mut Command) {
    const KEPT: &[&str] = &[
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const REMOVED: &[&str] = &[
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "CLIPPY_ARGS",
        "LLVM_PROFILE_FILE",
    ];
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let kept = KEPT.iter().any(|kept| name.starts_with(kept));
        if REMOVED.contains(&name) || (name.starts_with("CARGO") && !kept) {
            command.env_remove(name);
        }
    }
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).stderr(Stdio::null()).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

fn has_target(rustc: &Path) -> bool {
    let library = sysroot(rustc).map(|sysroot| sysroot.join("lib/rustlib").join(TARGET).join("lib"));
    library.and_then(|library| fs::read_dir(library).ok()).is_some_and(|mut entries| entries.next().is_some())
}

fn has_rust_lld(sysroot: &Path) -> bool {
    let host = env::var("HOST").unwrap_or_default();
    sysroot.join("lib/rustlib").join(host).join("bin/rust-lld").exists() || on_path("rust-lld").is_some()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.exists())
}

fn runs(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// The end of what a program said: enough to see the first error of a compiler, not a whole log.
fn tail(output: &[u8]) -> String {
    const LINES_MAX: usize = 60;
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}
