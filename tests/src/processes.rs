//! The real program as three processes on loopback: both systems, and the runtime between them.
//!
//! Owns their command lines, ports and ends; ends only what it started.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dualwright_core::SystemKind;
use dualwright_emulator::Emulator;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::systems::SystemClient;
use crate::world::{Settings, dialect, tables, write_config};

/// A process that is not there by then is not going to be.
const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// Longer than any of these tests works on one thing.
const ENDED_WITHIN: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Finops,
    Dataverse,
    Runtime,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Finops, Self::Dataverse, Self::Runtime];

    const fn name(self) -> &'static str {
        match self {
            Self::Finops => "finops",
            Self::Dataverse => "dataverse",
            Self::Runtime => "runtime",
        }
    }
}

/// The three processes and the folder with their state.
pub struct Trio {
    pub finops: SystemClient,
    pub dataverse: SystemClient,
    binary: PathBuf,
    config: PathBuf,
    ports: [u16; 2],
    children: [Option<Child>; 3],
    folder: TempDir,
}

impl Trio {
    /// Tables, rows and a configuration; nothing runs yet. `seed` fills F&O.
    pub fn new(
        binary: &str,
        settings: &Settings,
        seed: impl FnOnce(&Emulator) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let ports = [free_port(None)?, 0];
        let ports = [ports[0], free_port(Some(ports[0]))?];
        let mut seed = Some(seed);
        let mut clients = Vec::new();
        for (kind, port) in [SystemKind::Finops, SystemKind::Dataverse].into_iter().zip(ports) {
            let tables = tables(kind)?.tables;
            let emulator = Emulator::open(dialect(kind), Some(&store(folder.path(), kind)))?;
            emulator.define(&tables)?;
            if let (SystemKind::Finops, Some(seed)) = (kind, seed.take_if(|_| kind == SystemKind::Finops)) {
                seed(&emulator)?;
            }
            clients.push(SystemClient::new(kind, format!("http://127.0.0.1:{port}"), &tables)?);
        }
        let [finops, dataverse] = <[SystemClient; 2]>::try_from(clients).ok().context("there are two systems")?;
        let config = write_config(folder.path(), settings, &finops.base, &dataverse.base)?;
        let children = [None, None, None];
        Ok(Self { finops, dataverse, binary: binary.into(), config, ports, children, folder })
    }

    #[must_use]
    pub const fn system(&self, kind: SystemKind) -> &SystemClient {
        match kind {
            SystemKind::Finops => &self.finops,
            SystemKind::Dataverse => &self.dataverse,
        }
    }

    /// What a part wrote to its standard error, over all its lives.
    pub fn log(&self, part: Part) -> String {
        std::fs::read_to_string(self.log_file(part)).unwrap_or_default()
    }

    fn log_file(&self, part: Part) -> PathBuf {
        self.folder.path().join(format!("{}.log", part.name()))
    }

    fn command(&self, part: Part) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.binary);
        let log = File::options().create(true).append(true).open(self.log_file(part))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        Ok(command)
    }

    /// Starts a part with the same command as ever; an emulator is listening when this returns.
    pub async fn start(&mut self, part: Part) -> anyhow::Result<()> {
        let mut command = self.command(part)?;
        let system = match part {
            Part::Runtime => {
                command.args(["run", "--config"]).arg(&self.config).stdout(Stdio::null());
                None
            }
            Part::Finops | Part::Dataverse => {
                let kind = if part == Part::Finops { SystemKind::Finops } else { SystemKind::Dataverse };
                let listen = format!("127.0.0.1:{}", self.ports[part as usize]);
                command.args(["emulate", part.name(), "--no-auth", "--no-limits", "--listen", &listen, "--store"]);
                command.arg(store(self.folder.path(), kind));
                Some(kind)
            }
        };
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", self.binary.display()))?;
        if system.is_some() {
            let output = child.stdout.take().context("its output is piped")?;
            let mut lines = BufReader::new(output).lines();
            let line = tokio::time::timeout(STARTED_WITHIN, lines.next_line()).await.context("it says nothing")??;
            let line = line.with_context(|| format!("the {} emulator ended:\n{}", part.name(), self.log(part)))?;
            ensure!(line.contains("listening"), "the {} emulator said: {line}", part.name());
        }
        self.children[part as usize] = Some(child);
        Ok(())
    }

    /// `kill -9`.
    pub async fn kill(&mut self, part: Part) -> anyhow::Result<()> {
        let Some(mut child) = self.children[part as usize].take() else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            bail!("the {} ended by itself with {status}:\n{}", part.name(), self.log(part));
        }
        child.kill().await?;
        Ok(())
    }

    /// Asks a part to end, and waits until it has.
    pub async fn stop(&mut self, part: Part) -> anyhow::Result<()> {
        let Some(mut child) = self.children[part as usize].take() else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            bail!("the {} ended by itself with {status}:\n{}", part.name(), self.log(part));
        }
        let id = child.id().context("it has not ended")?;
        Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        let status = tokio::time::timeout(ENDED_WITHIN, child.wait()).await.context("it does not end")??;
        ensure!(status.success(), "the {} ended with {status}:\n{}", part.name(), self.log(part));
        Ok(())
    }

    /// `run --once --json` to its end: its exit code and its report.
    pub async fn run_once(&self) -> anyhow::Result<(Option<i32>, serde_json::Value)> {
        let mut command = self.command(Part::Runtime)?;
        command.args(["run", "--once", "--json", "--config"]).arg(&self.config);
        let output = tokio::time::timeout(ENDED_WITHIN, command.output()).await.context("it does not end")??;
        let text = String::from_utf8_lossy(&output.stdout);
        let report = serde_json::from_str(&text)
            .with_context(|| format!("the report is {text:?}; the runtime said:\n{}", self.log(Part::Runtime)))?;
        Ok((output.status.code(), report))
    }
}

fn store(folder: &Path, kind: SystemKind) -> PathBuf {
    folder.join(format!("{kind}.sqlite"))
}

/// A port below those that the system gives away by itself, so that nobody takes it while its owner is down.
fn free_port(except: Option<u16>) -> anyhow::Result<u16> {
    const FIRST: u32 = 20_000;
    const PORTS: u32 = 10_000;
    let start = std::process::id().wrapping_mul(37) % PORTS;
    (0..PORTS)
        .filter_map(|offset| u16::try_from(FIRST + (start + offset) % PORTS).ok())
        .filter(|port| Some(*port) != except)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no port is free")
}
