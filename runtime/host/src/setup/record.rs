//! What is known of a link itself: when it was made, between which environments, with which legal entities, and whether
//! it has ended.
//!
//! Owns that record and its JSON. A link that runs without ever having been made by a command has none.

use std::collections::BTreeMap;

use dualwright_core::value::format_timestamp;
use dualwright_core::{Code, Fault};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Config;
use crate::connect::Identity;
use crate::store::{NewActivity, Scope, Store};

/// Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    pub id: Uuid,
    pub created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
    pub finops_url: String,
    pub dataverse_url: String,
    /// The Dataverse organization: a copy of an environment has another one.
    pub organization: Option<Uuid>,
    /// Legal entities, and since when each belongs to the link.
    pub companies: BTreeMap<String, i64>,
}

impl LinkRecord {
    /// The record of a link that has none yet.
    #[must_use]
    pub fn of(config: &Config, identity: Option<&Identity>, now: i64) -> Self {
        Self {
            id: Uuid::now_v7(),
            created_at: now,
            ended_at: None,
            finops_url: config.link.finops.base.to_string(),
            dataverse_url: config.link.dataverse.base.to_string(),
            organization: identity.map(|identity| identity.organization_id),
            companies: config.link.companies.iter().map(|company| (company.clone(), now)).collect(),
        }
    }

    /// What the store has, if it has one.
    pub async fn read(store: &Store, scope: &Scope) -> Result<Option<Self>, Fault> {
        let Some(json) = store.link_record(scope).await? else { return Ok(None) };
        serde_json::from_str(&json)
            .map(Some)
            .map_err(|error| Fault::new(Code::StoreFailed, format!("the record of the link cannot be read: {error}")))
    }

    /// Keeps the record, with lines of the activity log: kind and text.
    pub async fn keep(
        &self,
        store: &Store,
        scope: &Scope,
        now: i64,
        lines: Vec<(&'static str, String)>,
    ) -> Result<(), Fault> {
        let json = serde_json::to_string(self)
            .map_err(|error| Fault::new(Code::Internal, format!("the record cannot be written: {error}")))?;
        let lines = lines.into_iter().map(|(kind, text)| NewActivity { at: now, map: None, kind, text }).collect();
        store.put_link_record(scope, &json, lines).await
    }

    /// Why this record keeps a link from running; `None` when it does not.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        let at = format_timestamp(self.ended_at?);
        Some(format!("the link was ended by `link unlink` at {at}"))
    }

    /// Whether Dataverse is another organization than the one that was linked.
    #[must_use]
    pub fn is_elsewhere(&self, identity: &Identity) -> bool {
        self.organization.is_some_and(|linked| linked != identity.organization_id)
    }
}
