//! The two emulated systems of the demo.

use anyhow::Context;
use dualwright_emulator::{Dialect, Emulator};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::place::Place;
use crate::demo::{DataSource, Tables, Urls};

pub(super) struct Systems {
    pub finops: String,
    pub dataverse: String,
    left: Emulator,
    right: Emulator,
    servers: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Systems {
    /// Opens both, with their tables, and lets them answer until `stop`.
    pub(super) async fn start(place: &mut Place, tables: &Tables, stop: &CancellationToken) -> anyhow::Result<Self> {
        let open = |dialect: Dialect, name: &str| {
            Emulator::open(dialect, Some(&place.file(name))).with_context(|| format!("{name} cannot be opened"))
        };
        let left = open(Dialect::Finops, "finops.db")?;
        let right = open(Dialect::Dataverse, "dataverse.db")?;
        left.define(&tables.finops)?;
        right.define(&tables.dataverse)?;
        let before = place.ports();
        let finops = listen(before.map(|(port, _)| port)).await?;
        let dataverse = listen(before.map(|(_, port)| port)).await?;
        let ports = (finops.local_addr()?.port(), dataverse.local_addr()?.port());
        place.set_ports(ports)?;
        let serve = |emulator: &Emulator, listener| {
            let (emulator, stop) = (emulator.clone(), stop.clone());
            tokio::spawn(async move { emulator.serve(listener, async move { stop.cancelled().await }).await })
        };
        let servers = vec![serve(&left, finops), serve(&right, dataverse)];
        Ok(Self {
            finops: format!("http://127.0.0.1:{}", ports.0),
            dataverse: format!("http://127.0.0.1:{}", ports.1),
            left,
            right,
            servers,
        })
    }

    pub(super) fn urls(&self) -> Urls {
        Urls { finops: self.finops.clone(), dataverse: self.dataverse.clone() }
    }

    /// Puts the demo's rows into F&O. Repeating it changes nothing.
    pub(super) fn seed(&self, source: &DataSource) -> anyhow::Result<u64> {
        let mut rows = 0;
        for set in source.finops_rows()? {
            rows += self.left.seed(set.set, set.rows)? as u64;
        }
        Ok(rows)
    }

    /// All rows of a Dataverse set.
    pub(super) fn dataverse_rows(&self, set: &str) -> anyhow::Result<Vec<crate::demo::Row>> {
        self.right.rows(set)
    }

    /// Waits until both have ended.
    pub(super) async fn ended(self) {
        for server in self.servers {
            match server.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("an emulator ended with {error:#}"),
                Err(error) => tracing::warn!("an emulator broke: {error}"),
            }
        }
    }
}

/// The port of the last time, when it is still free: links that were given out then stay good.
async fn listen(port: Option<u16>) -> anyhow::Result<TcpListener> {
    if let Some(port) = port
        && let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await
    {
        return Ok(listener);
    }
    TcpListener::bind(("127.0.0.1", 0)).await.context("no free port on 127.0.0.1")
}
