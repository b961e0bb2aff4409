//! `RemoteExecutionContext`: what a webhook is told.
//!
//! Owns its JSON as the platform's serializer writes it, members in the order of the alphabet and slashes escaped, and
//! what is left out of a message that would be too long. Source:
//! <https://learn.microsoft.com/power-apps/developer/data-platform/use-webhooks#request-body>.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use dualwright_odata::literal::{parse_date, parse_date_time};
use rusqlite::Connection;

use super::super::roles::Caller;
use super::super::{rows::place, system};
use super::{Image, Stage, Step};
use crate::catalogue::{Catalogue, Table};
use crate::cell;
use crate::definition::ColumnKind;
use crate::observe::{Operation, RowWrite};
use crate::store;

/// The longest body that is sent whole.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// What a longer one goes without.
const LEFT_OUT: [&str; 6] = [
    "ParentContext",
    "InputParameters",
    "PreEntityImages",
    "PostEntityImages",
    "PreEntityImagesCollection",
    "PostEntityImagesCollection",
];

const CONTRACTS: &str = "http://schemas.microsoft.com/xrm/2011/Contracts";
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What is the same for every step of one operation.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub connection: &'a Connection,
    pub catalogue: &'a Catalogue,
    pub caller: &'a Caller,
    pub correlation_id: Uuid,
    pub request_id: Uuid,
    /// The value of the optional parameter `tag`.
    pub tag: Option<&'a str>,
    /// UTC microseconds.
    pub now: i64,
}

/// A message as it is posted.
#[derive(Debug)]
pub(super) struct Body {
    pub json: String,
    /// Something was left out.
    pub is_cut: bool,
}

/// What one step is told of the rows: there is one, unless the step is about many; they are of one table, and written by
/// one operation. `operation_id` is that of its job, nil for a synchronous step.
pub(super) fn body(around: &Surroundings<'_>, step: &Step, writes: &[RowWrite<'_>], operation_id: Uuid) -> Body {
    let mut context = writes.first().map_or_else(Map::new, |first| context(around, step, first, writes, operation_id));
    let json = written(&context);
    if json.len() <= BODY_BYTES_MAX {
        return Body { json, is_cut: false };
    }
    for name in LEFT_OUT {
        context.remove(name);
    }
    Body { json: written(&context), is_cut: true }
}

fn written(context: &Map<String, Value>) -> String {
    // A slash stands in strings only, so it can be escaped wherever it is.
    serde_json::to_string(context).unwrap_or_default().replace('/', "\\/")
}

fn context(
    around: &Surroundings<'_>,
    step: &Step,
    first: &RowWrite<'_>,
    writes: &[RowWrite<'_>],
    operation_id: Uuid,
) -> Map<String, Value> {
    let is_after = step.stage == Stage::PostOperation;
    let is_create = first.operation == Operation::Create;
    let input = |is_after: bool| {
        if step.is_about_many {
            let targets = writes.iter().map(|write| target(around, write, is_after)).collect();
            json!([{"key": "Targets", "value": collection(first.table, targets)}])
        } else {
            json!([{"key": "Target", "value": target(around, first, is_after)}])
        }
    };
    let mut own = base(around, step, first, operation_id, step.stage as i32);
    own.insert("InputParameters".into(), input(is_after));
    if is_after && is_create {
        let output = if step.is_about_many {
            json!({"key": "Ids", "value": writes.iter().map(|write| write.id).collect::<Vec<_>>()})
        } else {
            json!({"key": "id", "value": first.id})
        };
        own.insert("OutputParameters".into(), json!([output]));
    }
    for (member, wanted) in [("PreEntityImages", false), ("PostEntityImages", true)] {
        let mut each = writes.iter().map(|write| images(around, step, write, wanted));
        if step.is_about_many {
            // A row's images stand at its place among the targets (`IPluginExecutionContext4`).
            own.insert(format!("{member}Collection"), each.collect());
        } else if let Some(images) = each.next() {
            own.insert(member.into(), images);
        }
    }
    // The main operation that the step belongs to, with what its caller sent.
    let mut parent = base(around, step, first, operation_id, 30);
    parent.insert("InputParameters".into(), input(false));
    own.insert("ParentContext".into(), Value::Object(parent));
    own
}

/// The images of one row that a step asked for: of the row before, or as `is_post` of the row after.
fn images(around: &Surroundings<'_>, step: &Step, write: &RowWrite<'_>, is_post: bool) -> Value {
    let row = if is_post { write.after } else { write.before };
    let is_wanted = |image: &&Image| {
        if is_post { image.is_post && step.stage == Stage::PostOperation } else { image.is_pre }
    };
    let one = |image: &Image| {
        let row = row?;
        let columns = (0..write.table.columns.len()).filter(|&at| {
            let name = &write.table.columns[at].definition.name;
            row[at] != cell::NULL
                && (image.attributes.is_empty()
                    || Some(at) == write.table.primary_id
                    || image.attributes.iter().any(|own| own.eq_ignore_ascii_case(name)))
        });
        Some(json!({"key": image.alias, "value": entity(around, write, row, columns)}))
    };
    step.images.iter().filter(is_wanted).filter_map(one).collect()
}

/// Rows as one parameter.
fn collection(table: &Table, entities: Vec<Value>) -> Value {
    json!({
        "__type": format!("EntityCollection:{CONTRACTS}"),
        "Entities": entities,
        "EntityName": table.name(),
        "MinActiveRowVersion": null,
        "MoreRecords": false,
        "PagingCookie": null,
        "TotalRecordCount": -1,
        "TotalRecordCountLimitExceeded": false,
    })
}

/// A context without parameters, images and parent.
fn base(
    around: &Surroundings<'_>,
    step: &Step,
    write: &RowWrite<'_>,
    operation_id: Uuid,
    stage: i32,
) -> Map<String, Value> {
    let (user, initiating) = (&around.caller.user, &around.caller.initiating);
    // A row that is not there yet has no id.
    let is_unborn = write.operation == Operation::Create && stage < Stage::PostOperation as i32 && stage != 30;
    let has_no_id = is_unborn || step.is_about_many;
    let shared = around.tag.map(|tag| json!({"key": "tag", "value": tag}));
    let context = json!({
        "BusinessUnitId": user.business_unit,
        "CorrelationId": around.correlation_id,
        "Depth": 1,
        "InitiatingUserAzureActiveDirectoryObjectId": initiating.object_id.unwrap_or(Uuid::nil()),
        "InitiatingUserId": initiating.id,
        "InputParameters": [],
        "IsExecutingOffline": false,
        "IsInTransaction": !step.is_async && step.stage != Stage::PreValidation,
        "IsOfflinePlayback": false,
        "IsolationMode": 1,
        "MessageName": step.message(write.operation),
        "Mode": i32::from(step.is_async),
        "OperationCreatedOn": date(around.now, "+0000"),
        "OperationId": operation_id,
        "OrganizationId": system::organization_id(),
        "OrganizationName": ORGANIZATION_NAME,
        "OutputParameters": [],
        "OwningExtension": reference(super::STEP, step.id, Some(&step.name), false),
        "ParentContext": null,
        "PostEntityImages": [],
        "PreEntityImages": [],
        "PrimaryEntityId": if has_no_id { Uuid::nil() } else { write.id },
        "PrimaryEntityName": write.table.name(),
        "RequestId": around.request_id,
        "SecondaryEntityName": "none",
        "SharedVariables": shared.into_iter().collect::<Vec<_>>(),
        "Stage": stage,
        "UserId": user.id,
        "UserAzureActiveDirectoryObjectId": user.object_id.unwrap_or(Uuid::nil()),
    });
    match context {
        Value::Object(context) => context,
        _ => Map::new(),
    }
}

/// The unique name of the organization, and the start of its host name.
pub(super) const ORGANIZATION_NAME: &str = "org";

/// What was sent: the named columns, or a reference to the row that goes.
fn target(around: &Surroundings<'_>, write: &RowWrite<'_>, is_after: bool) -> Value {
    let Some(after) = write.after else {
        return reference(write.table.name(), write.id, None, true);
    };
    let mut columns = write.named.to_vec();
    let stamps =
        ["modifiedon", "modifiedby", "modifiedonbehalfby"].map(|name| place(write.table, name).filter(|_| is_after));
    let id = write.table.primary_id.filter(|_| write.operation == Operation::Update || is_after);
    for at in [id].into_iter().chain(stamps).flatten() {
        if !columns.contains(&at) {
            columns.push(at);
        }
    }
    let mut entity = entity(around, write, after, columns.into_iter());
    if let Value::Object(members) = &mut entity {
        members.insert("__type".into(), json!(format!("Entity:{CONTRACTS}")));
    }
    entity
}

fn entity(
    around: &Surroundings<'_>,
    write: &RowWrite<'_>,
    row: &[&str],
    columns: impl Iterator<Item = usize>,
) -> Value {
    let mut attributes = Vec::new();
    let mut formatted = Vec::new();
    for at in columns {
        let column = &write.table.columns[at].definition;
        attributes.push(json!({"key": column.name, "value": value(around, write.table, at, row[at])}));
        let option = column.options.iter().find(|option| option.value.to_string() == row[at]);
        if let (ColumnKind::Choice, Some(option)) = (column.kind, option) {
            formatted.push(json!({"key": column.name, "value": option.name}));
        }
    }
    json!({
        "Attributes": attributes,
        "EntityState": null,
        "FormattedValues": formatted,
        "Id": write.id,
        "KeyAttributes": [],
        "LogicalName": write.table.name(),
        "RelatedEntities": [],
        "RowVersion": null,
    })
}

fn value(around: &Surroundings<'_>, table: &Table, at: usize, cell: &str) -> Value {
    if cell == cell::NULL {
        return Value::Null;
    }
    let typed = |name: &str, value: Value| json!({"__type": format!("{name}:{CONTRACTS}"), "Value": value});
    let plain = || serde_json::from_str(cell).unwrap_or(Value::Null);
    match table.columns[at].definition.kind {
        ColumnKind::Choice => typed("OptionSetValue", plain()),
        ColumnKind::Money => typed("Money", plain()),
        ColumnKind::MultiChoice => {
            let numbers = cell::text_of(cell).unwrap_or_default();
            let one = |number: &str| Some(json!({"Value": number.trim().parse::<i64>().ok()?}));
            numbers.split(',').filter_map(one).collect()
        }
        ColumnKind::Lookup => match table.id_of(&cell) {
            Some(id) => reference(&target_of(around, table, at, id), id, None, true),
            None => Value::Null,
        },
        ColumnKind::Datetime => {
            parse_date_time(cell.trim_matches('"')).map_or(Value::Null, |micros| json!(date(micros, "")))
        }
        ColumnKind::Date => parse_date(cell.trim_matches('"'))
            .map_or(Value::Null, |days| json!(date(i64::from(days).saturating_mul(MICROS_PER_DAY), ""))),
        _ => plain(),
    }
}

/// The table that a lookup points to: the only one it may, or the one that has the row.
fn target_of(around: &Surroundings<'_>, table: &Table, at: usize, id: Uuid) -> String {
    let targets = &table.columns[at].definition.targets;
    let has_row = |name: &str| {
        let target = around.catalogue.by_name(name)?;
        store::find(around.connection, &target.id_key(id)).ok().flatten()
    };
    let found = match targets.as_slice() {
        [only] => Some(only),
        several => several.iter().find(|target| has_row(&target.table).is_some()).or(several.first()),
    };
    found.map(|target| target.table.clone()).unwrap_or_default()
}

fn reference(table: &str, id: Uuid, name: Option<&str>, is_typed: bool) -> Value {
    let mut reference = json!({
        "Id": id, "KeyAttributes": [], "LogicalName": table, "Name": name, "RowVersion": null,
    });
    if let (true, Value::Object(members)) = (is_typed, &mut reference) {
        members.insert("__type".into(), json!(format!("EntityReference:{CONTRACTS}")));
    }
    reference
}

fn date(micros: i64, zone: &str) -> String {
    format!("/Date({}{zone})/", micros.div_euclid(1_000))
}
