//! The tables that a link brings: receipts and fences on both systems, and the change feed of F&O.
//!
//! Owns their shape and how they come to be. Dataverse makes them through its metadata API; on F&O an entity comes with
//! a package that somebody deploys, so there they are present or missing.

use std::time::Duration;

use bytes::Bytes;
use dualwright_core::{Code, Fault, SystemKind};
use dualwright_odata::escape::{component, quote};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Purpose;
use super::metadata::Catalogue;
use super::{Failure, System, dataverse, finops};

/// What a table of the link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnTable {
    /// One row per transaction: a replay is refused by it, and an unknown outcome settled.
    Receipts,
    /// One row per partition: a late request is refused by it.
    Fences,
    /// What changed (F&O).
    Changes,
}

impl OwnTable {
    /// The tables that a system needs for everything that a link does.
    #[must_use]
    pub const fn of(system: SystemKind) -> &'static [Self] {
        match system {
            SystemKind::Dataverse => &[Self::Receipts, Self::Fences],
            SystemKind::Finops => &[Self::Receipts, Self::Fences, Self::Changes],
        }
    }

    /// Entity set or public collection.
    #[must_use]
    pub const fn set(self, system: SystemKind) -> &'static str {
        match (system, self) {
            (SystemKind::Dataverse, Self::Receipts) => "dualwright_receipts",
            (SystemKind::Dataverse, Self::Fences) => "dualwright_fences",
            (SystemKind::Dataverse, Self::Changes) => "dualwright_changes",
            (SystemKind::Finops, Self::Receipts) => "DualwrightReceipts",
            (SystemKind::Finops, Self::Fences) => "DualwrightFences",
            (SystemKind::Finops, Self::Changes) => "DualwrightChanges",
        }
    }
}

/// A table to be made on Dataverse.
struct NewTable {
    table: &'static str,
    label: &'static str,
    description: &'static str,
    key: NewText,
    more: Value,
}

struct NewText {
    column: &'static str,
    label: &'static str,
    length_max: u32,
}

/// English, which every environment has or shows for want of another language.
fn label(text: &str) -> Value {
    const ENGLISH: u32 = 1_033;
    let label = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.LocalizedLabel", "Label": text, "LanguageCode": ENGLISH,
    });
    json!({"@odata.type": "Microsoft.Dynamics.CRM.Label", "LocalizedLabels": [label]})
}

impl NewText {
    fn attribute(&self, required: bool) -> Value {
        let level = if required { "ApplicationRequired" } else { "None" };
        json!({
            "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata",
            "AttributeType": "String", "AttributeTypeName": {"Value": "StringType"},
            "SchemaName": self.column, "DisplayName": label(self.label), "MaxLength": self.length_max,
            "FormatName": {"Value": "Text"}, "RequiredLevel": {"Value": level},
        })
    }
}

impl NewTable {
    fn of(table: OwnTable) -> Option<Self> {
        match table {
            OwnTable::Receipts => Some(Self {
                table: "dualwright_receipt",
                label: "Receipt of dualwright",
                description: "One row per transaction that dualwright wrote: a repetition of it is refused.",
                key: NewText { column: "dualwright_transactionid", label: "Transaction", length_max: 100 },
                more: NewText { column: "dualwright_tenant", label: "Tenant", length_max: 100 }.attribute(false),
            }),
            OwnTable::Fences => Some(Self {
                table: "dualwright_fence",
                label: "Fence of dualwright",
                description: "One row per place that dualwright writes from: a request that comes late is refused.",
                key: NewText { column: "dualwright_partition", label: "Partition", length_max: 200 },
                more: json!({
                    "@odata.type": "Microsoft.Dynamics.CRM.BigIntAttributeMetadata",
                    "AttributeType": "BigInt", "AttributeTypeName": {"Value": "BigIntType"},
                    "SchemaName": "dualwright_epoch", "DisplayName": label("Epoch"),
                    "RequiredLevel": {"Value": "None"},
                }),
            }),
            OwnTable::Changes => None,
        }
    }

    fn definition(&self) -> Value {
        let mut primary = self.key.attribute(true);
        primary["IsPrimaryName"] = Value::Bool(true);
        json!({
            "@odata.type": "Microsoft.Dynamics.CRM.EntityMetadata",
            "SchemaName": self.table, "DisplayName": label(self.label),
            "DisplayCollectionName": label(&format!("{}s", self.label)), "Description": label(self.description),
            "OwnershipType": "OrganizationOwned", "IsActivity": false, "HasActivities": false, "HasNotes": false,
            "Attributes": [primary],
        })
    }
}

/// How often it is asked whether an index stands, and how long between. Dataverse builds indexes in the background; a
/// new table has none to speak of.
const INDEX_ASKED_MAX: u32 = 120;
const INDEX_PAUSE: Duration = Duration::from_secs(1);

impl System {
    /// The tables of the link that are missing here.
    #[must_use]
    pub fn missing_tables(&self, catalogue: &Catalogue) -> Vec<OwnTable> {
        let missing = OwnTable::of(self.kind).iter().filter(|table| !catalogue.has_set(table.set(self.kind)));
        missing.copied().collect()
    }

    /// Makes a table of the link on Dataverse, with the key that tells its rows apart, and waits until that key is
    /// enforced. What an earlier try left half done is finished.
    pub async fn install(&self, table: OwnTable, timeout: Duration) -> Result<(), Fault> {
        let Some(new) = NewTable::of(table).filter(|_| self.kind == SystemKind::Dataverse) else {
            let what = format!("{} cannot be given the table {}", self.kind, table.set(self.kind));
            return Err(Fault::new(Code::TargetIncapable, what));
        };
        let definitions = format!("{}/EntityDefinitions", dataverse::ROOT);
        let own = format!("{definitions}(LogicalName={})", component(&quote(new.table)));
        self.make(Method::POST, &definitions, &new.definition(), timeout).await?;
        self.make(Method::POST, &format!("{own}/Attributes"), &new.more, timeout).await?;
        let key = json!({
            "SchemaName": format!("{}_key", new.key.column), "DisplayName": label(new.key.label),
            "KeyAttributes": [new.key.column],
        });
        self.make(Method::POST, &format!("{own}/Keys"), &key, timeout).await?;
        self.index_stands(&own, new.table, timeout).await
    }

    async fn index_stands(&self, definition: &str, table: &str, timeout: Duration) -> Result<(), Fault> {
        #[derive(Deserialize)]
        struct Keys {
            value: Vec<Key>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Key {
            entity_key_index_status: Option<String>,
        }
        let mut status = String::new();
        for _ in 0..INDEX_ASKED_MAX {
            let keys: Keys = self.decoded(&self.get(&format!("{definition}/Keys"), None, timeout).await?, table)?;
            status = keys.value.into_iter().find_map(|key| key.entity_key_index_status).unwrap_or_default();
            match status.as_str() {
                "Active" => return Ok(()),
                "Failed" => break,
                _ => tokio::time::sleep(INDEX_PAUSE).await,
            }
        }
        let what = format!("the key of {table} on dataverse is not enforced: its index is {status:?}");
        Err(Fault::new(Code::TargetIncapable, what))
    }

    /// Has Dataverse keep the changes of a table. The whole definition is sent back, as the documentation asks for
    /// (<https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-definitions-using-web-api>).
    pub async fn track_changes(&self, table: &str, timeout: Duration) -> Result<(), Fault> {
        let url = format!("{}/EntityDefinitions(LogicalName={})", dataverse::ROOT, component(&quote(table)));
        let mut definition: Value = self.decoded(&self.get(&url, None, timeout).await?, table)?;
        definition["ChangeTrackingEnabled"] = Value::Bool(true);
        self.make(Method::PUT, &url, &definition, timeout).await?;
        let entities = format!("<importexportxml><entities><entity>{table}</entity></entities></importexportxml>");
        let publish = format!("{}/PublishXml", dataverse::ROOT);
        self.make(Method::POST, &publish, &json!({"ParameterXml": entities}), timeout).await
    }

    /// Sends a definition; one that is there already is fine.
    async fn make(&self, method: Method, url: &str, body: &Value, timeout: Duration) -> Result<(), Fault> {
        // A table, a column and a key with that name.
        const THERE_ALREADY: [&str; 3] = ["0x80047010", "0x80047013", "0x80060893"];
        let headers = [("content-type", "application/json"), ("mscrm.mergelabels", "true")];
        let body = Bytes::from(body.to_string());
        let answer = self
            .client
            .send(Purpose::Write, method, url, &headers, Some(body), timeout)
            .await
            .map_err(Failure::into_fault)?;
        if answer.status.is_success() {
            return Ok(());
        }
        let fault = answer.fault(self.kind.name());
        match fault.foreign_code.as_deref() {
            Some(code) if THERE_ALREADY.contains(&code) => Ok(()),
            _ => Err(fault),
        }
    }

    /// Takes away the fences whose partition begins so. A request of theirs that is still on its way is refused from
    /// then on. Answers how many there were.
    pub async fn remove_fences(&self, beginning: &str, timeout: Duration) -> Result<usize, Fault> {
        #[derive(Deserialize)]
        struct Fences {
            value: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            #[serde(alias = "dualwright_partition", alias = "PartitionId")]
            partition: String,
        }
        let set = OwnTable::Fences.set(self.kind);
        // F&O has no `startswith`; there a star is a wildcard.
        // https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/odata
        let (root, column, filter) = match self.kind {
            SystemKind::Dataverse => {
                let column = "dualwright_partition";
                (dataverse::ROOT, column, format!("startswith({column},{})", quote(beginning)))
            }
            SystemKind::Finops => {
                let column = "PartitionId";
                (finops::ROOT, column, format!("{column} eq {}", quote(&format!("{beginning}*"))))
            }
        };
        let url = format!("{root}/{set}?$select={column}&$filter={}", component(&filter));
        // A link has a lane per initial sync that may run at once, 16 at most.
        let fences: Fences = self.decoded(&self.get(&url, None, timeout).await?, "fences")?;
        let mut removed = 0;
        for fence in fences.value.iter().filter(|fence| fence.partition.starts_with(beginning)) {
            removed += usize::from(self.remove_fence(&fence.partition, timeout).await?);
        }
        Ok(removed)
    }
}
