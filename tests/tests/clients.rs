//! Clients that others wrote, each running its own flows against an emulator as a user starts it: over TLS, with tokens.
//!
//! The flows are in `tests/clients`, in the languages of the clients; they share no code with the program. Node and
//! Python and the packages are installed by whoever wants these tests: see the README beside them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dualwright-under-test");
const CLIENT_ID: &str = "7c8b9a10-1111-4222-8333-444455556666";
const CLIENT_SECRET: &str = "a secret of the test";

/// A client that is not done by then hangs.
const DONE_WITHIN: Duration = Duration::from_secs(300);

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The interpreter with its packages, or a word about what is missing.
fn interpreter(program: PathBuf, packages: &Path, remedy: &str) -> Option<PathBuf> {
    let answers = std::process::Command::new(&program).arg("--version").output().is_ok_and(|run| run.status.success());
    if answers && packages.exists() {
        return Some(program);
    }
    let why = format!("{} with the packages of tests/clients is not there; {remedy}", program.display());
    assert!(std::env::var_os("DUALWRIGHT_REQUIRE_ALL").is_none_or(|value| value != "1"), "{why}");
    println!("SKIPPED: {why}");
    None
}

fn node() -> Option<PathBuf> {
    let packages = clients().join("node/node_modules/dynamics-web-api");
    interpreter("node".into(), &packages, "npm ci --prefix tests/clients/node")
}

fn python() -> Option<PathBuf> {
    let venv = clients().join("python/venv");
    interpreter(
        venv.join("bin/python"),
        &venv,
        "python3 -m venv tests/clients/python/venv && \
         tests/clients/python/venv/bin/pip install -r tests/clients/python/requirements.txt",
    )
}

/// One emulator as `dualwright emulate` starts it.
struct Running {
    _child: Child,
    _output: Lines<BufReader<ChildStdout>>,
    url: String,
    token_url: String,
    certificate: PathBuf,
    folder: TempDir,
}

impl Running {
    async fn start(system: &str) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let tables = format!("../runtime/host/demo/{system}-tables.json");
        let tables = Path::new(env!("CARGO_MANIFEST_DIR")).join(tables);
        let mut child = Command::new(PROGRAM)
            .args(["emulate", system, "--listen", "127.0.0.1:0", "--tls"])
            .args(["--client", &format!("{CLIENT_ID}={CLIENT_SECRET}"), "--tables"])
            .arg(tables)
            .arg("--store")
            .arg(folder.path().join("store.sqlite"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{PROGRAM} cannot be started"))?;
        let mut output = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let (mut url, mut token_url, mut certificate) = (None, None, None);
        while url.is_none() || token_url.is_none() || certificate.is_none() {
            let line = output.next_line().await?.context("the emulator ended before it listened")?;
            let last = line.split_whitespace().last().unwrap_or_default().to_owned();
            if line.contains("listening on") {
                url = Some(last);
            } else if line.starts_with("token endpoint") {
                token_url = Some(last);
            } else if line.starts_with("certificate") {
                certificate = Some(PathBuf::from(last));
            }
        }
        Ok(Self {
            _child: child,
            _output: output,
            url: url.context("an address")?,
            token_url: token_url.context("where tokens are")?,
            certificate: certificate.context("a certificate")?,
            folder,
        })
    }

    /// Runs a client's flows, and wants at least `flows` of them to have held.
    async fn holds(&self, program: &Path, script: &str, flows: usize) -> anyhow::Result<()> {
        let certificate = OsString::from(&self.certificate);
        let run = Command::new(program)
            .arg(clients().join(script))
            .current_dir(self.folder.path())
            .env("EMULATOR_URL", &self.url)
            .env("TOKEN_URL", &self.token_url)
            .env("CLIENT_ID", CLIENT_ID)
            .env("CLIENT_SECRET", CLIENT_SECRET)
            .env("NODE_EXTRA_CA_CERTS", &certificate)
            .env("REQUESTS_CA_BUNDLE", &certificate)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let run = tokio::time::timeout(DONE_WITHIN, run).await.with_context(|| format!("{script} hangs"))??;
        let (said, complained) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        ensure!(run.status.success(), "{script} ended with {}\n{said}\n{complained}", run.status);
        let held = said.lines().filter(|line| line.starts_with("holds: ")).count();
        ensure!(held >= flows, "only {held} of {flows} flows of {script} ran\n{said}");
        Ok(())
    }
}

#[tokio::test]
async fn dynamics_web_api_cannot_tell_dataverse_from_the_emulator() -> anyhow::Result<()> {
    let Some(node) = node() else { return Ok(()) };
    Running::start("dataverse").await?.holds(&node, "node/dynamics-web-api.mjs", 12).await
}

#[tokio::test]
async fn dataverse_api_cannot_tell_dataverse_from_the_emulator() -> anyhow::Result<()> {
    let Some(python) = python() else { return Ok(()) };
    Running::start("dataverse").await?.holds(&python, "python/dataverse_client.py", 7).await
}

#[tokio::test]
async fn python_odata_cannot_tell_finops_from_the_emulator() -> anyhow::Result<()> {
    let Some(python) = python() else { return Ok(()) };
    Running::start("finops").await?.holds(&python, "python/finops_client.py", 4).await
}
