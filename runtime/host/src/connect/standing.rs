//! Where we stand with a system: who we are there, what we may do, what time it is there, and which legal entities it
//! knows.
//!
//! Owns questions that are asked before a link runs, and never while a row is carried over. Nothing here changes
//! anything.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use dualwright_core::{Code, Fault, SystemKind};
use dualwright_odata::escape::{component, quote};
use reqwest::Method;
use serde::Deserialize;
use uuid::Uuid;

use super::http::{Purpose, parse_http_date, unix_seconds};
use super::{Failure, System, dataverse, finops};

/// The user as whom Dataverse sees us (`WhoAmI`,
/// <https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/whoami>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Identity {
    pub user_id: Uuid,
    pub business_unit_id: Uuid,
    pub organization_id: Uuid,
}

/// What a system says when it is spoken to for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// How far its clock is ahead of ours, in seconds; `None` when its answer has no date.
    pub clock_ahead_seconds: Option<i64>,
    /// Dataverse only: F&O tells nobody who they are.
    pub identity: Option<Identity>,
}

/// How far a privilege reaches: the rows of the user, of the business unit, of the units below it, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Depth {
    Basic,
    Local,
    Deep,
    Global,
}

/// Names of privileges, in lower case, and how far each reaches.
pub type Privileges = HashMap<String, Depth>;

/// What Dataverse says of a table beside its columns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TableStanding {
    pub logical_name: String,
    /// Its changes can be asked for.
    pub change_tracking_enabled: bool,
    /// The privileges that there are for it.
    pub privileges: Vec<TablePrivilege>,
}

/// One privilege for one table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TablePrivilege {
    /// `prvReadAccount`.
    pub name: String,
    /// `Read`, `Create`, `Write`, `Delete`, `Append`, `AppendTo`, `Assign`, `Share`.
    pub privilege_type: String,
}

/// A legal entity, as one of the systems knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Company {
    /// Lower case.
    pub code: String,
    pub name: String,
    /// Dataverse, where its table has the column: whether the company has a team that owns its rows.
    pub has_owning_team: Option<bool>,
}

impl System {
    /// Whether the system can be reached and takes our credentials.
    pub async fn hello(&self, timeout: Duration) -> Result<Hello, Fault> {
        let url = match self.kind {
            SystemKind::Dataverse => format!("{}/WhoAmI", dataverse::ROOT),
            SystemKind::Finops => "/metadata/DataEntities?$top=1".to_owned(),
        };
        let answer = self
            .client
            .send(Purpose::Read, Method::GET, &url, &[], None, timeout)
            .await
            .map_err(Failure::into_fault)?;
        if !answer.status.is_success() {
            return Err(answer.fault(self.kind.name()));
        }
        let clock_ahead_seconds = answer.header("date").and_then(parse_http_date).map(|theirs| theirs - unix_seconds());
        let identity = match self.kind {
            SystemKind::Dataverse => Some(self.decoded(&answer.body, "who we are")?),
            SystemKind::Finops => None,
        };
        Ok(Hello { clock_ahead_seconds, identity })
    }

    /// Everything that a user of Dataverse may do, by all roles of the user and of the user's teams.
    pub async fn privileges(&self, user: Uuid, timeout: Duration) -> Result<Privileges, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            role_privileges: Vec<One>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct One {
            privilege_name: String,
            depth: Depth,
        }
        let url = format!("{}/systemusers({user})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()", dataverse::ROOT);
        let body = self.get(&url, None, timeout).await?;
        let listed: Listed = self.decoded(&body, "our privileges")?;
        let mut privileges = Privileges::new();
        for one in listed.role_privileges {
            let depth = privileges.entry(one.privilege_name.to_lowercase()).or_insert(one.depth);
            *depth = one.depth.max(*depth);
        }
        Ok(privileges)
    }

    /// What Dataverse says of a table, by its logical name.
    pub async fn table_standing(&self, table: &str, timeout: Duration) -> Result<TableStanding, Fault> {
        let url = format!(
            "{}/EntityDefinitions(LogicalName={})?$select=LogicalName,ChangeTrackingEnabled,Privileges",
            dataverse::ROOT,
            component(&quote(table))
        );
        let body = self.get(&url, None, timeout).await?;
        self.decoded(&body, table)
    }

    /// Whether rows of a table are given out at all, to us.
    pub async fn may_read(&self, set: &str, timeout: Duration) -> Result<(), Fault> {
        let url = match self.kind {
            SystemKind::Dataverse => format!("{}/{set}?$top=1", dataverse::ROOT),
            SystemKind::Finops => format!("{}/{set}?cross-company=true&$top=1", finops::ROOT),
        };
        self.get(&url, None, timeout).await.map(|_| ())
    }

    /// Whether Dataverse gives out the changes of a table, to us.
    pub async fn may_track(&self, set: &str, primary_id: &str, timeout: Duration) -> Result<(), Fault> {
        let url = format!("{}/{set}?$select={primary_id}", dataverse::ROOT);
        self.get(&url, Some("odata.track-changes,odata.maxpagesize=1"), timeout).await.map(|_| ())
    }

    /// The legal entities that the system has. `set` is where it keeps them: `LegalEntities` or `cdm_companies`.
    pub async fn companies(&self, set: &str, timeout: Duration) -> Result<Vec<Company>, Fault> {
        #[derive(Deserialize)]
        struct Raw {
            value: Vec<serde_json::Map<String, serde_json::Value>>,
            #[serde(rename = "@odata.nextLink")]
            next: Option<String>,
        }
        // 250 companies are a few pages at most, whatever a page holds.
        const PAGES_MAX: usize = 1_000;
        let (code, name, first) = match self.kind {
            SystemKind::Dataverse => ("cdm_companycode", "cdm_name", format!("{}/{set}", dataverse::ROOT)),
            SystemKind::Finops => ("LegalEntityId", "Name", format!("{}/{set}?cross-company=true", finops::ROOT)),
        };
        const OWNING_TEAM: &str = "_cdm_defaultowningteam_value";
        let text = |row: &serde_json::Map<String, serde_json::Value>, column: &str| {
            row.get(column).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        let mut companies = Vec::new();
        let mut next = Some(first);
        for _ in 0..PAGES_MAX {
            let Some(url) = next else { return Ok(companies) };
            let page: Raw = self.decoded(&self.get(&url, None, timeout).await?, "its legal entities")?;
            companies.extend(page.value.iter().map(|row| Company {
                code: text(row, code).to_lowercase(),
                name: text(row, name),
                has_owning_team: row.get(OWNING_TEAM).map(|team| !team.is_null()),
            }));
            next = page.next.map(|link| self.client.below_base(link));
        }
        Err(Fault::new(Code::Unavailable, format!("the list of legal entities of {} has no end", self.kind)))
    }

    /// How many rows a Dataverse table has, as far as one page tells; `None` when there is no such table.
    pub async fn rows_of_other_products(&self, set: &str, timeout: Duration) -> Result<Option<usize>, Fault> {
        match self.get(&format!("{}/{set}?$top=100", dataverse::ROOT), None, timeout).await {
            Ok(body) => Ok(Some(super::parse_page(self.kind, &body)?.rows.len())),
            Err(fault) if fault.code == Code::TableUnknown => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    pub(super) fn decoded<T: serde::de::DeserializeOwned>(&self, body: &Bytes, what: &str) -> Result<T, Fault> {
        serde_json::from_slice(body).map_err(|error| {
            Fault::new(
                Code::Unavailable,
                format!("{} sent an answer about {what} that cannot be read: {error}", self.kind),
            )
        })
    }
}
