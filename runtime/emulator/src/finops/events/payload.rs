//! What stands in the messages.
//!
//! Owns the JSON of both kinds: the contract of a business event, and the RemoteExecutionContext of a data event with the
//! record as its virtual table has it.

use dualwright_odata::literal::{format_date_time, parse_date, parse_date_time};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Event;
use crate::catalogue::Table;
use crate::cell;
use crate::definition::{ColumnDefinition, ColumnKind};
use crate::finops::refusal::entity_name;
use crate::observe::{Operation, RowWrite};
use crate::store::{self, PLACE_BITS};

/// Control numbers begin where F&O begins to number records.
const NUMBER_BASE: i64 = 5_637_144_576;

const CONTRACTS: &str = "http://schemas.microsoft.com/xrm/2011/Contracts";

/// Virtual tables number the members of an enumeration from there.
const OPTION_BASE: i64 = 200_000_000;

fn milliseconds(micros: i64) -> String {
    format!("/Date({})/", micros.div_euclid(1_000))
}

/// A business event is a notice: its contract names the record by its key, without numbers of records, with symbols of
/// enumerations.
pub(super) fn business(id: &str, table: &Table, row: &[&str], company: &str, control_number: i64, now: i64) -> Value {
    let seconds = now - now.rem_euclid(1_000_000);
    let mut contract = Map::new();
    for &at in table.key.iter().filter(|at| Some(**at) != table.company) {
        let column = &table.columns[at];
        contract.insert(column.property.clone(), contract_value(&column.definition, row[at]));
    }
    if table.company.is_some() {
        contract.insert("LegalEntity".into(), json!(company));
    }
    let shared = json!({
        "BusinessEventId": id,
        "BusinessEventLegalEntity": company,
        "ContextRecordSubject": "",
        "ControlNumber": NUMBER_BASE + control_number,
        "EventId": Uuid::new_v4().to_string().to_uppercase(),
        "EventTime": milliseconds(seconds),
        "EventTimeIso8601": iso(now),
        "InitiatingUserAADObjectId": "{00000000-0000-0000-0000-000000000000}",
        "MajorVersion": 0,
        "MinorVersion": 0,
        "ParentContextRecordSubjects": [],
    });
    if let Value::Object(shared) = shared {
        contract.extend(shared);
    }
    Value::Object(contract)
}

/// With seven digits of a second, as .NET writes it.
fn iso(micros: i64) -> String {
    let seconds = format_date_time(micros - micros.rem_euclid(1_000_000));
    format!("{}.{:06}0Z", seconds.trim_end_matches('Z'), micros.rem_euclid(1_000_000))
}

fn contract_value(column: &ColumnDefinition, cell: &str) -> Value {
    match column.kind {
        ColumnKind::Date | ColumnKind::Datetime => {
            micros(column, cell).map_or(Value::Null, |at| json!(milliseconds(at)))
        }
        _ => serde_json::from_str(cell).unwrap_or(Value::Null),
    }
}

fn micros(column: &ColumnDefinition, cell: &str) -> Option<i64> {
    let text = cell.trim_matches('"');
    match column.kind {
        ColumnKind::Date => Some(i64::from(parse_date(text.get(..10)?)?) * 86_400_000_000),
        _ => parse_date_time(text),
    }
}

/// The members of a contract that a receiver may expect, without values: what "Download schema" gives.
pub(super) fn schema(id: &str, table: &Table) -> Value {
    let empty = table.columns.iter().map(|column| &*column.empty).collect::<Vec<_>>();
    let mut sample = business(id, table, &empty, "", -NUMBER_BASE, -2_208_988_800_000_000);
    sample["BusinessEventId"] = json!("");
    sample["EventId"] = json!("");
    sample["EventTimeIso8601"] = json!("1900-01-01T00:00:00Z");
    sample["ParentContextRecordSubjects"] = Value::Null;
    sample
}

/// Logical names of virtual tables and their columns.
pub(super) fn logical_name(name: &str) -> String {
    format!("mserp_{}", name.to_lowercase())
}

/// The context in which the virtual table's message is sent: the record in `Target`, and as it was in `PreImage`.
pub(super) fn data(connection: &Connection, event: Event, write: &RowWrite<'_>, now: i64) -> rusqlite::Result<Value> {
    let table = write.table;
    // Of a row that goes, the place is no longer known; its key names it as well.
    let key = write.after.or(write.before).map(|row| table.row_key(row)).unwrap_or_default();
    let place = store::find(connection, &key)?.map(|row| row.id);
    let id = record_id(table, place, &key);
    let mut parameters = Vec::new();
    if let Some(row) = write.after.or(write.before) {
        parameters.push(json!({"key": "Target", "value": record(table, id, row)}));
    }
    if let Some(before) = write.before {
        parameters.push(json!({"key": "PreImage", "value": record(table, id, before)}));
    }
    let nobody = Uuid::nil();
    Ok(json!({
        "BusinessUnitId": nobody,
        "CorrelationId": Uuid::new_v4(),
        "Depth": 1,
        "InitiatingUserAzureActiveDirectoryObjectId": nobody,
        "InitiatingUserId": nobody,
        "InputParameters": parameters,
        "IsExecutingOffline": false,
        "IsInTransaction": false,
        "IsOfflinePlayback": false,
        "IsolationMode": 1,
        "MessageName": event.message(),
        "Mode": 1,
        "OperationCreatedOn": milliseconds(now - now.rem_euclid(1_000_000)),
        "OperationId": Uuid::new_v4(),
        "OrganizationId": nobody,
        "OrganizationName": "org",
        "OutputParameters": [],
        "OwningExtension": null,
        "ParentContext": null,
        "PostEntityImages": [],
        "PreEntityImages": [],
        "PrimaryEntityId": id,
        "PrimaryEntityName": logical_name(entity_name(table)),
        "RequestId": Uuid::new_v4(),
        "SecondaryEntityName": "none",
        "SharedVariables": [],
        "Stage": if event.operation == Operation::Delete { 20 } else { 40 },
        "UserId": nobody,
    }))
}

/// The id of a record in its virtual table: the number of the table, and of the record in it.
fn record_id(table: &Table, place: Option<i64>, key: &[u8]) -> Uuid {
    let number = place.map_or_else(
        || key.iter().fold(0, |hash: i64, byte| hash.wrapping_mul(31).wrapping_add(i64::from(*byte))),
        |place| place & ((1 << PLACE_BITS) - 1),
    );
    let table = u128::from(u32::try_from(table.number).unwrap_or(u32::MAX));
    Uuid::from_u128((table << 96) | u128::from(number.unsigned_abs()))
}

/// The record as an entity. Dates that are empty are left out, as documented.
fn record(table: &Table, id: Uuid, row: &[&str]) -> Value {
    let mut attributes = vec![json!({"key": logical_name(&format!("{}id", entity_name(table))), "value": id})];
    let mut formatted = Vec::new();
    for (column, cell) in table.columns.iter().zip(row) {
        let name = logical_name(&column.property);
        let value = match column.definition.kind {
            ColumnKind::Date | ColumnKind::Datetime => match micros(&column.definition, cell) {
                Some(at) if **cell != *column.empty => json!(milliseconds(at)),
                _ => continue,
            },
            ColumnKind::Enum | ColumnKind::Choice => {
                let symbol = cell::text_of(cell).unwrap_or_default();
                let Some(option) = column.definition.options.iter().find(|option| option.name == *symbol) else {
                    continue;
                };
                formatted.push(json!({"key": name, "value": option.name}));
                json!({"__type": format!("OptionSetValue:{CONTRACTS}"), "Value": OPTION_BASE + option.value})
            }
            _ => serde_json::from_str(cell).unwrap_or(Value::Null),
        };
        attributes.push(json!({"key": name, "value": value}));
    }
    json!({
        "__type": format!("Entity:{CONTRACTS}"),
        "Attributes": attributes,
        "EntityState": null,
        "FormattedValues": formatted,
        "Id": id,
        "KeyAttributes": [],
        "LogicalName": logical_name(entity_name(table)),
        "RelatedEntities": [],
        "RowVersion": null,
    })
}
