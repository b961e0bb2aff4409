//! What a system keeps of what it promises: change sets that are one transaction, conditions that are looked at, bulk
//! messages.
//!
//! Owns requests that tell, each of them against rows of our own fence table and each refused when the system keeps its
//! word. Whatever the answers, the rows are gone at the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dualwright_core::{Class, Code, Fault, SystemKind};
use reqwest::Method;

use super::batch::{Part, PartAnswer};
use super::http::{self, Purpose};
use super::write::{Fence, NO_VERSION};
use super::{Failure, OwnTable, System, dataverse, finops};

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// The system does as it should.
    Kept,
    /// It does not, and this is what it did.
    Broken(String),
    /// It could not be told.
    Untold(Fault),
}

/// What the probes of one system found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Of a change set that is refused nothing stays.
    pub change_sets: Probed,
    /// A write that names another version than the row has is refused, also inside a change set.
    pub if_match: Probed,
    /// `CreateMultiple` inside a change set; Dataverse only.
    pub bulk: Option<Probed>,
    /// Rows of the probes that could not be taken away, by their partition.
    pub left_behind: Vec<String>,
}

/// Rows that the probes use: one that is there, and others that must not come to be.
struct Rows {
    there: String,
    new: String,
    bulk: [String; 2],
}

impl Rows {
    /// Always the same for one link, so that what a broken-off test left behind is found by the next one.
    fn of(partition: &str) -> Self {
        let row = |number: u32| format!("{partition}/test-{number}");
        Self { there: row(1), new: row(2), bulk: [row(3), row(4)] }
    }

    fn all(&self) -> [&str; 4] {
        [&self.there, &self.new, &self.bulk[0], &self.bulk[1]]
    }
}

impl System {
    /// Puts the system to the test, with rows whose partition begins with `partition`. Fails when the fence table
    /// cannot be written at all.
    pub async fn probe(&self, partition: &str, timeout: Duration) -> Result<Probe, Fault> {
        let rows = Rows::of(partition);
        // What an earlier test left behind would be taken for what this one finds.
        if let Some((_, fault)) = self.clear(&rows, timeout).await.into_iter().next() {
            return Err(fault);
        }
        let probed = self.probe_with(&rows, timeout).await;
        let left_behind = self.clear(&rows, timeout).await.into_iter().map(|(partition, _)| partition).collect();
        probed.map(|probe| Probe { left_behind, ..probe })
    }

    async fn probe_with(&self, rows: &Rows, timeout: Duration) -> Result<Probe, Fault> {
        let fence = self.open_fence(&rows.there, timeout).await?;
        let bulk = match self.kind {
            SystemKind::Dataverse => Some(self.probe_bulk(rows, timeout).await),
            SystemKind::Finops => None,
        };
        Ok(Probe {
            change_sets: self.probe_change_sets(rows, timeout).await,
            if_match: self.probe_if_match(fence, timeout).await,
            bulk,
            left_behind: Vec::new(),
        })
    }

    /// A new row, and then one that is there already: the second is refused, so the first must not be there.
    async fn probe_change_sets(&self, rows: &Rows, timeout: Duration) -> Probed {
        let parts = [self.new_row(&rows.new), self.new_row(&rows.there)];
        let refusal = match self.refusal(&parts, timeout).await {
            Ok(Some(refusal)) => refusal,
            Ok(None) => return Probed::Broken("it took a second row with a key that was there already".to_owned()),
            Err(fault) => return Probed::Untold(fault),
        };
        if !matches!(refusal.fault.code, Code::DuplicateKey | Code::VersionConflict) {
            return Probed::Untold(refusal.fault);
        }
        match self.has_fence(&rows.new, timeout).await {
            Ok(false) => Probed::Kept,
            Ok(true) => Probed::Broken("of a change set that it refused, the first row stayed".to_owned()),
            Err(fault) => Probed::Untold(fault),
        }
    }

    /// A version that the row does not have, and then the one that it has.
    async fn probe_if_match(&self, fence: Fence, timeout: Duration) -> Probed {
        let stale = Fence { version: Arc::from(NO_VERSION), ..fence.clone() };
        match self.refusal(&[self.fence_part(&stale)], timeout).await {
            Ok(None) => {
                return Probed::Broken(
                    "inside a change set it took a write to a version that the row does not have".to_owned(),
                );
            }
            Ok(Some(refusal)) if refusal.fault.code == Code::VersionConflict => {}
            Ok(Some(Refusal { fault, .. })) | Err(fault) => return Probed::Untold(fault),
        }
        match self.refusal(&[self.fence_part(&fence)], timeout).await {
            Ok(None) => Probed::Kept,
            Ok(Some(_)) => Probed::Broken("inside a change set it refuses the version that the row has".to_owned()),
            Err(fault) => Probed::Untold(fault),
        }
    }

    /// Two new rows by one message, and then one that is there already: refused for the second operation, not the first.
    async fn probe_bulk(&self, rows: &Rows, timeout: Duration) -> Probed {
        let parts = [dataverse::new_fences_part(&rows.bulk), self.new_row(&rows.there)];
        match self.refusal(&parts, timeout).await {
            Ok(None) => Probed::Broken("it took a second row with a key that was there already".to_owned()),
            Ok(Some(refusal)) => {
                let reached_the_second =
                    refusal.position.map_or(refusal.fault.code == Code::DuplicateKey, |position| position == 1);
                match refusal.fault.class() {
                    _ if reached_the_second => Probed::Kept,
                    Class::Transient if refusal.fault.code != Code::TargetGone => Probed::Untold(refusal.fault),
                    _ => Probed::Broken(format!("it has no CreateMultiple inside a change set ({})", refusal.fault)),
                }
            }
            Err(fault) => Probed::Untold(fault),
        }
    }

    fn new_row(&self, partition: &str) -> Part {
        match self.kind {
            SystemKind::Finops => finops::new_fence_part(partition),
            SystemKind::Dataverse => dataverse::new_fence_part(partition),
        }
    }

    /// Why a change set was refused; `None` when it was not.
    async fn refusal(&self, parts: &[Part], timeout: Duration) -> Result<Option<Refusal>, Fault> {
        let answers = self.batch(Purpose::Write, parts, timeout).await.map_err(Failure::into_fault)?;
        let refused = super::write::refused(&answers);
        Ok(refused.map(|answer: &PartAnswer| Refusal {
            position: answer.position,
            fault: http::fault_of(self.kind.name(), answer.status, &answer.body),
        }))
    }

    async fn has_fence(&self, partition: &str, timeout: Duration) -> Result<bool, Fault> {
        Ok(self.read_fence(partition, timeout).await?.is_some())
    }

    /// Takes the rows away; answers those that are still there or of which it is not known, and why.
    async fn clear(&self, rows: &Rows, timeout: Duration) -> Vec<(String, Fault)> {
        let mut left = Vec::new();
        for partition in rows.all() {
            let gone = match self.has_fence(partition, timeout).await {
                Ok(false) => Ok(false),
                Ok(true) => self.remove_fence(partition, timeout).await,
                Err(fault) => Err(fault),
            };
            left.extend(gone.err().map(|fault| (partition.to_owned(), fault)));
        }
        left
    }

    /// Deletes a fence; false when there was none.
    pub(super) async fn remove_fence(&self, partition: &str, timeout: Duration) -> Result<bool, Fault> {
        let url = match self.kind {
            SystemKind::Finops => finops::fence_url(partition),
            SystemKind::Dataverse => dataverse::fence_url(partition),
        };
        let url = url.split('?').next().unwrap_or_default();
        let answer = self
            .client
            .send(Purpose::Write, Method::DELETE, url, &[], None::<Bytes>, timeout)
            .await
            .map_err(Failure::into_fault)?;
        if answer.status.is_success() {
            return Ok(true);
        }
        let fault = answer.fault(self.kind.name());
        if fault.code == Code::TargetGone { Ok(false) } else { Err(fault) }
    }

    /// Whether the table that the probes need is there.
    #[must_use]
    pub fn can_probe(&self, missing: &[OwnTable]) -> bool {
        !missing.contains(&OwnTable::Fences)
    }
}

struct Refusal {
    position: Option<usize>,
    fault: Fault,
}
