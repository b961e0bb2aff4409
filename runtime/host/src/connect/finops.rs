//! How F&O spells URLs, keys and bodies (reference 8), and the change feed that the link installs there.

use std::time::Duration;

use dualwright_core::{Code, Fault, Kind, Schema, TransactionId, Value};
use dualwright_odata::escape::component;

use super::batch::Part;
use super::row_json::{encode_cell, encode_text, literal};
use super::write::Fence;
use super::{Action, Address, System, Table, WriteOperation};

pub(super) const ROOT: &str = "/data";

/// One entry of the change feed: a row change inside one F&O transaction.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FeedEntry {
    pub control_number: i64,
    /// The F&O transaction; entries of one transaction follow each other.
    pub transaction_id: String,
    /// How many entries the transaction has: a transaction is complete when that many have been read.
    pub transaction_size: u32,
    pub collection: String,
    pub operation: FeedOperation,
    /// The row after the change, or before a delete, as JSON text.
    pub row: String,
    /// The row before the change, empty when there was none.
    #[serde(default)]
    pub before: String,
    /// The receipt that the same transaction wrote: ours when not empty.
    #[serde(default)]
    pub origin: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum FeedOperation {
    Insert,
    Update,
    Delete,
}

pub(super) fn query_url(table: &Table, select: &str) -> String {
    format!("{ROOT}/{}?cross-company=true&$select={select}", table.schema.set)
}

pub(super) fn row_part(table: &Table, address: &Address, select: &str) -> Part {
    Part::get(format!("{}?cross-company=true&$select={select}", row_url(&table.schema, address)))
}

fn row_url(schema: &Schema, address: &Address) -> String {
    let key = match address {
        // F&O rows have no ids; an address by id cannot be built for one and finds nothing.
        Address::Id(id) => id.to_string(),
        Address::Key(pairs) => {
            let parts = pairs.iter().map(|(name, value)| {
                let kind = schema.index_of(name).map(|index| schema.column(index).kind);
                let literal = match (kind, value) {
                    (Some(Kind::Text | Kind::Choice), Value::Null | Value::Absent) => "''".to_owned(),
                    (Some(Kind::Date), Value::Date(_)) => format!("{}{NOON}", literal(value)),
                    _ => literal(value),
                };
                format!("{name}={}", component(&literal))
            });
            parts.collect::<Vec<_>>().join(",")
        }
    };
    format!("{ROOT}/{}({key})", schema.set)
}

pub(super) fn receipt_url(transaction: TransactionId) -> String {
    format!("{ROOT}/DualwrightReceipts(TransactionId='{transaction}')")
}

pub(super) fn fence_url(partition: &str) -> String {
    format!("{ROOT}/DualwrightFences(PartitionId={})", component(&literal(&Value::text(partition))))
}

pub(super) fn fence_part(fence: &Fence) -> Part {
    let body = format!(r#"{{"Epoch":{}}}"#, fence.epoch).into_bytes();
    Part::json("PATCH", fence_url(&fence.partition), body).returning().if_match(&fence.version)
}

pub(super) fn new_fence_part(partition: &str) -> Part {
    let mut body = br#"{"Epoch":1,"PartitionId":"#.to_vec();
    encode_text(&mut body, partition);
    body.push(b'}');
    Part::json("POST", format!("{ROOT}/DualwrightFences"), body).returning()
}

pub(super) fn receipt_part(transaction: TransactionId, tenant: &str) -> Part {
    let mut body = format!(r#"{{"TransactionId":"{transaction}","Tenant":"#).into_bytes();
    encode_text(&mut body, tenant);
    body.push(b'}');
    Part::json("POST", format!("{ROOT}/DualwrightReceipts"), body)
}

pub(super) fn part_of(operation: &WriteOperation) -> Result<Part, Fault> {
    let schema = &operation.table.schema;
    // The version is wanted, and with it as few columns as can be named.
    let select = schema.key.iter().map(|&index| schema.column(index).name.as_ref()).collect::<Vec<_>>().join(",");
    let row = || format!("{}?cross-company=true", row_url(schema, &operation.address));
    Ok(match &operation.action {
        Action::Create { .. } => {
            let url = format!("{ROOT}/{}?cross-company=true&$select={select}", schema.set);
            Part::json("POST", url, body_of(operation, true)?).returning()
        }
        Action::Update { version } => {
            Part::json("PATCH", format!("{}&$select={select}", row()), body_of(operation, false)?)
                .returning()
                .if_match(version.as_deref().filter(|version| !version.is_empty()).unwrap_or("*"))
        }
        Action::Delete { version } => match version.as_deref().filter(|version| !version.is_empty()) {
            Some(version) => Part::delete(row()).if_match(version),
            None => Part::delete(row()),
        },
    })
}

/// Follows a day, which is a moment on F&O.
const NOON: &str = "T12:00:00Z";

/// One cell as F&O takes it.
fn encode(body: &mut Vec<u8>, kind: Kind, value: &Value) {
    encode_cell(body, kind, value);
    if kind == Kind::Date && matches!(value, Value::Date(_) | Value::Timestamp(_)) {
        // Behind the day is the end of its text.
        body.pop();
        body.extend_from_slice(NOON.as_bytes());
        body.push(b'"');
    }
}

/// The key stands in the URL of an update, and in the body of a create.
fn body_of(operation: &WriteOperation, with_key: bool) -> Result<Vec<u8>, Fault> {
    let (schema, shape) = (&operation.table.schema, &operation.table.shape);
    let mut body = Vec::with_capacity(64 + operation.values.len() * 40);
    body.push(b'{');
    let mut written = Vec::new();
    if with_key && let Address::Key(pairs) = &operation.address {
        for (name, value) in pairs {
            let Some(index) = schema.index_of(name) else {
                return Err(Fault::new(Code::TableUnknown, format!("{} has no column {name}", schema.set)).column(name));
            };
            body.extend_from_slice(&shape.member(index).name);
            encode(&mut body, schema.column(index).kind, value);
            body.push(b',');
            written.push(index);
        }
    }
    for (index, value) in &operation.values {
        let is_key = schema.key.contains(index);
        if value.is_absent() || written.contains(index) || (is_key && !with_key) {
            continue;
        }
        body.extend_from_slice(&shape.member(*index).name);
        encode(&mut body, schema.column(*index).kind, value);
        body.push(b',');
    }
    if body.last() == Some(&b',') {
        body.pop();
    }
    body.push(b'}');
    Ok(body)
}

impl System {
    /// The change feed after a control number, oldest first.
    pub async fn read_feed(&self, after: i64, rows_max: usize, timeout: Duration) -> Result<Vec<FeedEntry>, Fault> {
        let url = format!(
            "{ROOT}/DualwrightChanges?cross-company=true&$filter={}&$orderby=ControlNumber&$top={rows_max}",
            component(&format!("ControlNumber gt {after}"))
        );
        self.feed_entries(&url, timeout).await
    }

    /// The control number of the newest entry of the change feed; 0 when it is empty.
    pub async fn feed_head(&self, timeout: Duration) -> Result<i64, Fault> {
        let url =
            format!("{ROOT}/DualwrightChanges?cross-company=true&$orderby={}&$top=1", component("ControlNumber desc"));
        Ok(self.feed_entries(&url, timeout).await?.first().map_or(0, |entry| entry.control_number))
    }

    async fn feed_entries(&self, url: &str, timeout: Duration) -> Result<Vec<FeedEntry>, Fault> {
        #[derive(serde::Deserialize)]
        struct Raw {
            value: Vec<FeedEntry>,
        }
        let body = self.get(url, None, timeout).await?;
        serde_json::from_slice::<Raw>(&body).map(|raw| raw.value).map_err(|error| {
            Fault::new(Code::Unavailable, format!("the change feed of finops cannot be read: {error}"))
        })
    }
}
