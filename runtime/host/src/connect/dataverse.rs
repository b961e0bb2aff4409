//! How Dataverse spells URLs, keys, bodies and its delta feed (reference 7).

use std::time::Duration;

use dualwright_core::{Code, Fault, Kind, TransactionId, Value};
use dualwright_odata::escape::component;
use reqwest::Method;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::batch::Part;
use super::http::Purpose;
use super::row_json::{encode_cell, encode_id, encode_text, literal, property_name};
use super::write::Fence;
use super::{Action, Address, Failure, System, Table, WriteOperation};

pub(super) const ROOT: &str = "/api/data/v9.2";

/// Marks our own writes for plug-ins and webhooks (reference 7.7). A hint; echoes are decided by version and content.
const TAG: &str = "tag=dualwright";

/// One entry of a delta feed.
#[derive(Debug)]
pub enum DeltaEntry {
    /// Created or changed: the row as it is now.
    Row(Box<RawValue>),
    Deleted(Uuid),
}

/// One page of a delta feed.
#[derive(Debug)]
pub struct DeltaPage {
    pub entries: Vec<DeltaEntry>,
    /// The next page of this answer, if there is one.
    pub next: Option<String>,
    /// On the last page: where to ask for what changes from now on.
    pub delta: Option<String>,
}

pub(super) fn query_url(table: &Table, select: &str) -> String {
    format!("{ROOT}/{}?$select={select}", table.schema.set)
}

/// A row by id or key. What cannot stand in a key URL is asked for with a filter (reference 7.2): columns that are no
/// declared alternate key, and values that Dataverse refuses there. Of several rows it is then always the same one.
pub(super) fn row_part(table: &Table, address: &Address, select: &str) -> Part {
    let set = &table.schema.set;
    let pairs = match address {
        Address::Id(id) => return Part::get(format!("{ROOT}/{set}({id})?$select={select}")),
        Address::Key(pairs) => pairs,
    };
    let parts = pairs.iter().map(|(name, value)| (property_of(table, name), literal(value))).collect::<Vec<_>>();
    let is_declared = table.schema.alternate_keys.iter().any(|key| {
        key.columns.len() == pairs.len()
            && key.columns.iter().all(|column| pairs.iter().any(|(name, _)| name.eq_ignore_ascii_case(column)))
    });
    if is_declared && pairs.iter().all(|(_, value)| stands_in_key_url(value)) {
        let key = parts.iter().map(|(name, value)| format!("{name}={}", component(value))).collect::<Vec<_>>();
        return Part::get(format!("{ROOT}/{set}({})?$select={select}", key.join(",")));
    }
    let filter = parts.iter().map(|(name, value)| format!("{name} eq {value}")).collect::<Vec<_>>().join(" and ");
    let order = table
        .schema
        .primary_id
        .map(|index| format!("&$orderby={}", table.schema.column(index).name))
        .unwrap_or_default();
    Part::query(format!("{ROOT}/{set}?$select={select}&$top=1{order}&$filter={}", component(&filter)))
}

fn property_of(table: &Table, column: &str) -> String {
    match table.schema.index_of(column) {
        Some(index) => property_name(&table.schema, index),
        None => column.to_owned(),
    }
}

fn stands_in_key_url(value: &Value) -> bool {
    match value {
        Value::Absent | Value::Null => false,
        Value::Text(text) => !text.is_empty() && !text.chars().any(|c| "/<>*%&:\\?#+\"".contains(c) || c.is_control()),
        _ => true,
    }
}

pub(super) fn receipt_url(transaction: TransactionId) -> String {
    format!("{ROOT}/dualwright_receipts(dualwright_transactionid='{transaction}')?$select=dualwright_receiptid")
}

pub(super) fn fence_url(partition: &str) -> String {
    let key = component(&literal(&Value::text(partition))).into_owned();
    format!("{ROOT}/dualwright_fences(dualwright_partition={key})?$select=dualwright_epoch")
}

pub(super) fn fence_part(fence: &Fence) -> Part {
    let body = format!(r#"{{"dualwright_epoch":{}}}"#, fence.epoch).into_bytes();
    Part::json("PATCH", fence_url(&fence.partition), body).returning().if_match(&fence.version)
}

pub(super) fn new_fence_part(partition: &str) -> Part {
    let mut body = br#"{"dualwright_epoch":1,"dualwright_partition":"#.to_vec();
    encode_text(&mut body, partition);
    body.push(b'}');
    Part::json("POST", format!("{ROOT}/dualwright_fences?$select=dualwright_epoch"), body).returning()
}

/// New fences by one bulk message, which answers for all of them.
pub(super) fn new_fences_part(partitions: &[String]) -> Part {
    let mut body = br#"{"Targets":["#.to_vec();
    for partition in partitions {
        body.extend_from_slice(
            br#"{"@odata.type":"Microsoft.Dynamics.CRM.dualwright_fence","dualwright_epoch":1,"dualwright_partition":"#,
        );
        encode_text(&mut body, partition);
        body.extend_from_slice(b"},");
    }
    body.pop();
    body.extend_from_slice(b"]}");
    Part::json("POST", format!("{ROOT}/dualwright_fences/Microsoft.Dynamics.CRM.CreateMultiple"), body)
}

pub(super) fn receipt_part(transaction: TransactionId, tenant: &str) -> Part {
    let mut body = format!(r#"{{"dualwright_transactionid":"{transaction}","dualwright_tenant":"#).into_bytes();
    encode_text(&mut body, tenant);
    body.push(b'}');
    Part::json("POST", format!("{ROOT}/dualwright_receipts"), body)
}

pub(super) fn part_of(operation: &WriteOperation) -> Result<Part, Fault> {
    let schema = &operation.table.schema;
    let set = &schema.set;
    // The version is wanted, and with it as few columns as can be named.
    let select = schema.primary_id.map_or("versionnumber", |index| &schema.column(index).name);
    let row = || match &operation.address {
        Address::Id(id) => Ok(format!("{ROOT}/{set}({id})")),
        Address::Key(_) => Err(Fault::new(Code::Internal, format!("a row of {set} was to be changed without its id"))),
    };
    Ok(match &operation.action {
        Action::Create { id } => {
            Part::json("POST", format!("{ROOT}/{set}?$select={select}&{TAG}"), body_of(operation, *id)?).returning()
        }
        Action::Update { version } => {
            Part::json("PATCH", format!("{}?$select={select}&{TAG}", row()?), body_of(operation, None)?)
                .returning()
                .if_match(version.as_deref().filter(|version| !version.is_empty()).unwrap_or("*"))
        }
        Action::Delete { version } => {
            let part = Part::delete(format!("{}?{TAG}", row()?));
            match version.as_deref().filter(|version| !version.is_empty()) {
                Some(version) => part.if_match(version),
                None => part,
            }
        }
    })
}

/// New rows of one table, all or none of them ("Use bulk operation messages" on learn.microsoft.com). The answer tells
/// no versions.
pub(super) fn create_multiple_part(operations: &[&WriteOperation]) -> Result<Part, Fault> {
    let Some(first) = operations.first() else {
        return Err(Fault::new(Code::Internal, "no row was to be created by a bulk operation"));
    };
    let schema = &first.table.schema;
    let head = format!(r#"{{"@odata.type":"Microsoft.Dynamics.CRM.{}""#, schema.table);
    let mut body = br#"{"Targets":["#.to_vec();
    for operation in operations {
        let Action::Create { id } = operation.action else {
            return Err(Fault::new(Code::Internal, "only new rows are created by a bulk operation"));
        };
        let row = body_of(operation, id)?;
        body.extend_from_slice(head.as_bytes());
        if row != b"{}" {
            body.push(b',');
        }
        body.extend_from_slice(&row[1..]);
        body.push(b',');
    }
    body.pop();
    body.extend_from_slice(b"]}");
    let url = format!("{ROOT}/{}/Microsoft.Dynamics.CRM.CreateMultiple?{TAG}", schema.set);
    Ok(Part::json("POST", url, body))
}

fn body_of(operation: &WriteOperation, id: Option<Uuid>) -> Result<Vec<u8>, Fault> {
    let schema = &operation.table.schema;
    let mut body = Vec::with_capacity(64 + operation.values.len() * 64);
    body.push(b'{');
    let shape = &operation.table.shape;
    if let (Some(id), Some(primary)) = (id, schema.primary_id) {
        body.extend_from_slice(&shape.member(primary).name);
        encode_cell(&mut body, Kind::Guid, &Value::Guid(id));
        body.push(b',');
    }
    for (index, value) in &operation.values {
        let column = schema.column(*index);
        if value.is_absent() {
            continue;
        }
        if column.kind == Kind::Lookup {
            let set = operation.sets.iter().find(|(own, _)| own == index).map(|(_, set)| &**set);
            let mut binds = shape.member(*index).binds.iter();
            let bind = binds.find(|bind| set.is_none_or(|set| *bind.set == *set)).ok_or_else(|| {
                let what = match set {
                    Some(set) => format!("{} of {} does not refer to {set}", column.name, schema.set),
                    None => format!("{} does not say what {} refers to", schema.set, column.name),
                };
                Fault::new(Code::TableUnknown, what).column(&column.name)
            })?;
            body.extend_from_slice(&bind.name);
            match value {
                Value::Guid(id) => {
                    body.extend_from_slice(&bind.link);
                    encode_id(&mut body, *id);
                    body.extend_from_slice(b")\"");
                }
                // Null, which takes the reference away (reference 7.2).
                _ => body.extend_from_slice(b"null"),
            }
        } else {
            body.extend_from_slice(&shape.member(*index).name);
            encode_cell(&mut body, column.kind, value);
        }
        body.push(b',');
    }
    if body.last() == Some(&b',') {
        body.pop();
    }
    body.push(b'}');
    Ok(body)
}

impl System {
    /// One page of the changes of `table`: `link` as an earlier page gave it, or `None` to enumerate the whole table
    /// and obtain the first link. A link that has expired answers `Ok(None)`: the table has to be enumerated again.
    pub async fn read_delta(
        &self,
        table: &Table,
        link: Option<&str>,
        rows_max: usize,
        timeout: Duration,
    ) -> Result<Option<DeltaPage>, Fault> {
        let first = query_url(table, &table.shape.select());
        let prefer = match link {
            None => format!("odata.track-changes,odata.maxpagesize={rows_max}"),
            Some(_) => format!("odata.maxpagesize={rows_max}"),
        };
        let answer = self
            .client
            .send(Purpose::Read, Method::GET, link.unwrap_or(&first), &[("prefer", &prefer)], None, timeout)
            .await
            .map_err(Failure::into_fault)?;
        if answer.status.is_success() {
            return parse_delta(&table.schema.set, &answer.body).map(|mut page| {
                page.next = page.next.map(|link| self.client.below_base(link));
                page.delta = page.delta.map(|link| self.client.below_base(link));
                Some(page)
            });
        }
        let fault = answer.fault("dataverse");
        // "Version stamp associated with the client has expired. Please perform a full sync."
        const EXPIRED: &str = "0x80044352";
        if answer.status == reqwest::StatusCode::GONE || fault.foreign_code.as_deref() == Some(EXPIRED) {
            return Ok(None);
        }
        Err(fault)
    }
}

fn parse_delta(set: &str, body: &[u8]) -> Result<DeltaPage, Fault> {
    #[derive(serde::Deserialize)]
    struct Raw {
        value: Vec<Box<RawValue>>,
        #[serde(rename = "@odata.nextLink")]
        next: Option<String>,
        #[serde(rename = "@odata.deltaLink")]
        delta: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Deleted {
        id: Uuid,
        #[serde(default)]
        reason: String,
    }
    let unreadable = |error: serde_json::Error| {
        Fault::new(Code::Unavailable, format!("the delta feed of {set} cannot be read: {error}"))
    };
    let raw: Raw = serde_json::from_slice(body).map_err(unreadable)?;
    let mut entries = Vec::with_capacity(raw.value.len());
    for row in raw.value {
        // A deleted entry is known by its context; a row never has that ending.
        let is_deleted = row.get().contains("$deletedEntity");
        match is_deleted.then(|| serde_json::from_str::<Deleted>(row.get())) {
            Some(Ok(deleted)) if deleted.reason == "deleted" => entries.push(DeltaEntry::Deleted(deleted.id)),
            _ => entries.push(DeltaEntry::Row(row)),
        }
    }
    Ok(DeltaPage { entries, next: raw.next, delta: raw.delta })
}
