//! How far the demo is, kept in its state folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// The state folder of one demo.
pub(super) struct Place {
    folder: PathBuf,
    kept: Kept,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The data folder; none for the built-in set.
    data: Option<PathBuf>,
    /// Ports of F&O and Dataverse: links that the systems gave out hold them.
    ports: Option<(u16, u16)>,
    seeded: bool,
    /// Change sets of the users that were sent, F&O and Dataverse.
    sent: (usize, usize),
}

impl Place {
    const FILE: &str = "demo.json";

    pub(super) fn open(folder: &Path, data: Option<&Path>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let data = data.map(std::fs::canonicalize).transpose().context("the data folder cannot be found")?;
        let file = folder.join(Self::FILE);
        let kept = match std::fs::read(&file) {
            Ok(bytes) => {
                let kept: Kept = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} cannot be read; use another --state folder", file.display()))?;
                if kept.data != data {
                    bail!("{} holds a demo of other data; use another --state folder", folder.display());
                }
                kept
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept { data, ..Kept::default() },
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
        };
        Ok(Self { folder: folder.to_owned(), kept })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) const fn ports(&self) -> Option<(u16, u16)> {
        self.kept.ports
    }

    pub(super) fn set_ports(&mut self, ports: (u16, u16)) -> anyhow::Result<()> {
        self.kept.ports = Some(ports);
        self.keep()
    }

    pub(super) const fn seeded(&self) -> bool {
        self.kept.seeded
    }

    pub(super) fn set_seeded(&mut self) -> anyhow::Result<()> {
        self.kept.seeded = true;
        self.keep()
    }

    pub(super) const fn sent(&self) -> (usize, usize) {
        self.kept.sent
    }

    pub(super) fn set_sent(&mut self, sent: (usize, usize)) -> anyhow::Result<()> {
        self.kept.sent = sent;
        self.keep()
    }

    /// Written beside and moved over, so that a kill leaves the old or the new one.
    fn keep(&self) -> anyhow::Result<()> {
        let file = self.folder.join(Self::FILE);
        let beside = self.folder.join("demo.json.new");
        std::fs::write(&beside, serde_json::to_vec_pretty(&self.kept)?)
            .and_then(|()| std::fs::rename(&beside, &file))
            .with_context(|| format!("{} cannot be written", file.display()))
    }
}
