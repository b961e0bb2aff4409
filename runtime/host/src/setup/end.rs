//! The end of a link: everything that is known of it goes into a folder, and then out of the store.
//!
//! Owns the order of that: nothing is taken away before all of it is on the disk. The rows of both systems stay as they
//! are; only our own fences go, so that a request that is still on its way is refused.

use std::path::{Path, PathBuf};

use dualwright_core::value::format_timestamp;
use dualwright_core::{Code, Fault};
use serde::Serialize;

use super::Finding;
use super::plan::{Systems, TIMEOUT};
use super::record::LinkRecord;
use crate::connect::System;
use crate::store::{Exported, FailedFilter, NewActivity, Scope, Store};

/// How a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It begins anew: the next run does the initial sync again.
    Reset,
    /// It does not run any more, until it is made again.
    Unlink,
}

impl End {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Unlink => "unlink",
        }
    }

    const fn activity(self) -> &'static str {
        match self {
            Self::Reset => "link-reset",
            Self::Unlink => "link-unlinked",
        }
    }
}

/// What has not arrived, and would be gone with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Undelivered {
    /// Row changes that wait.
    pub waiting: u64,
    /// Failed records.
    pub failed: u64,
}

impl Undelivered {
    pub async fn of(store: &Store, scope: &Scope) -> Result<Self, Fault> {
        Ok(Self {
            waiting: store.backlog(scope).await?.rows,
            failed: store.failed_count(scope, FailedFilter::default()).await?,
        })
    }

    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.waiting == 0 && self.failed == 0
    }
}

/// Where an export goes when nobody says otherwise: below the state folder, named after link, end and time.
#[must_use]
pub fn folder_for(state: &Path, scope: &Scope, end: End, now: i64) -> PathBuf {
    // Colons cannot stand in names of files everywhere.
    let time = format_timestamp(now).chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>();
    state.join("exports").join(format!("{}-{}-{time}", scope.link, end.name()))
}

/// Exports everything, then takes it away. `connection_set` goes with the export. What is in the folder is for us alone,
/// since it holds rows of both systems. Answers the lines per table.
pub async fn end(
    store: &Store,
    scope: &Scope,
    end: End,
    folder: &Path,
    connection_set: &str,
    record: LinkRecord,
    now: i64,
) -> Result<Exported, Fault> {
    let failed = |error: std::io::Error| {
        Fault::new(Code::StoreFailed, format!("the folder {} cannot be written: {error}", folder.display()))
    };
    private_folder(folder).map_err(failed)?;
    if std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        let what = format!("the folder {} has something in it already; name an empty one", folder.display());
        return Err(Fault::new(Code::ConfigInvalid, what));
    }
    std::fs::write(folder.join("connection-set.json"), connection_set).map_err(failed)?;
    let exported = store.export(scope, folder).await?;
    // The names of the files are on the disk with it.
    #[cfg(unix)]
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    let lines = exported.iter().map(|(_, lines)| lines).sum::<u64>();
    let text = format!("{lines} rows were exported to {} and taken away", folder.display());
    store.erase(scope, NewActivity { at: now, map: None, kind: end.activity(), text }).await?;
    if end == End::Unlink {
        LinkRecord { ended_at: Some(now), ..record }.keep(store, scope, now, Vec::new()).await?;
    }
    Ok(exported)
}

/// Makes a folder, and those above it, for us alone; one that is there is left as it is.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Takes our fences away from both systems. A system that cannot be reached keeps them, which is said and harms nobody.
pub async fn remove_fences(systems: &Systems, partition: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for system in [&systems.finops, &systems.dataverse] {
        findings.push(remove_from(system, partition).await);
    }
    findings
}

async fn remove_from(system: &System, partition: &str) -> Finding {
    let kind = system.kind();
    match system.remove_fences(partition, TIMEOUT).await {
        Ok(removed) => Finding::fine(kind, "fences", format!("{removed} fences of the link were taken away")),
        Err(fault) if fault.code == Code::TableUnknown => Finding::fine(kind, "fences", "there is no table of fences"),
        Err(fault) => Finding::notice(kind, "fences", format!("its fences stay: {}", fault.message))
            .remedy("they harm nobody; delete the rows whose partition begins with the link's name when you can")
            .code(fault.code),
    }
}
