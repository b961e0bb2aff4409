//! Steps: webhooks that are called when rows are created, changed or deleted.
//!
//! Owns the tables of the event framework, the rows that every organization starts with (messages, and which of them each
//! table has), and the registered steps compiled for use. When they run stands in `pipeline`, what is sent in `context`
//! and `endpoint`, what becomes of asynchronous ones in `jobs`, what can be registered in `registration`. Sources:
//! <https://learn.microsoft.com/power-apps/developer/data-platform/use-webhooks> and `register-web-hook`,
//! `register-plug-in`, `event-framework` beside it.

mod context;
mod endpoint;
mod jobs;
mod pipeline;
mod registration;

use std::collections::HashMap;

use rusqlite::Connection;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::rows::{Cells, scan};
use crate::catalogue::{Catalogue, Table};
use crate::definition::{TableDefinition, read_tables};
use crate::observe::Operation;

pub(crate) use endpoint::Endpoint;
pub(crate) use jobs::settled;
pub(crate) use pipeline::{Pipeline, Wishes};
pub(crate) use registration::Registration;

pub(crate) const STEP: &str = "sdkmessageprocessingstep";
pub(crate) const IMAGE: &str = "sdkmessageprocessingstepimage";
pub(crate) const ENDPOINT: &str = "serviceendpoint";
pub(crate) const JOB: &str = "asyncoperation";
const MESSAGE: &str = "sdkmessage";
const FILTER: &str = "sdkmessagefilter";

/// Tables whose rows are compiled into the registry.
pub(crate) const TABLES: [&str; 3] = [STEP, IMAGE, ENDPOINT];
/// Tables without events of their own, as on the platform.
const WITHOUT_EVENTS: [&str; 6] = [STEP, IMAGE, ENDPOINT, JOB, MESSAGE, FILTER];

/// Messages that tables have. The pipelines of `Create` and `CreateMultiple` are one, as are those of the updates: whichever
/// of the two is sent, steps for the single message run for every row, and those for the other once for all of them
/// (<https://learn.microsoft.com/power-apps/developer/data-platform/write-plugin-multiple-operation>).
const MESSAGES: [&str; 6] = ["Create", "Update", "Delete", "CreateMultiple", "UpdateMultiple", "UpsertMultiple"];

pub(crate) fn tables() -> anyhow::Result<Vec<TableDefinition>> {
    Ok(read_tables(include_str!("tables.json"))?.tables)
}

pub(crate) type Row = (&'static str, Map<String, Value>);

fn row(set: &'static str, columns: Value) -> Option<Row> {
    match columns {
        Value::Object(columns) => Some((set, columns)),
        _ => None,
    }
}

fn known_id(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{kind}/{name}").as_bytes())
}

/// The messages of a new organization.
pub(crate) fn first_rows() -> Vec<Row> {
    let one = |name: &&str| {
        row("sdkmessages", json!({"sdkmessageid": known_id(MESSAGE, name), "name": name, "categoryname": name}))
    };
    MESSAGES.iter().filter_map(one).collect()
}

fn filter_id(table: &str, message: &str) -> Uuid {
    known_id(FILTER, &format!("{table}/{message}"))
}

/// The row by which one sees whether a table has its messages already.
pub(crate) fn sign_of(table: &Table) -> Option<Uuid> {
    (!WITHOUT_EVENTS.contains(&table.name())).then(|| filter_id(table.name(), MESSAGES[0]))
}

/// Which messages a table has.
pub(crate) fn rows_of(table: &Table) -> Vec<Row> {
    let one = |message: &&str| {
        row(
            "sdkmessagefilters",
            json!({
                "sdkmessagefilterid": filter_id(table.name(), message), "primaryobjecttypecode": table.name(),
                "secondaryobjecttypecode": "none", "availability": 0,
                "iscustomprocessingstepallowed": operation_of(message).is_some(),
                "sdkmessageid": known_id(MESSAGE, message),
            }),
        )
    };
    MESSAGES.iter().filter_map(one).collect()
}

/// When a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    PreValidation = 10,
    PreOperation = 20,
    PostOperation = 40,
}

impl Stage {
    const fn of(number: i64) -> Option<Self> {
        match number {
            10 => Some(Self::PreValidation),
            20 => Some(Self::PreOperation),
            40 => Some(Self::PostOperation),
            _ => None,
        }
    }
}

/// One registered step that is enabled.
#[derive(Debug)]
pub(crate) struct Step {
    pub id: Uuid,
    pub name: String,
    pub stage: Stage,
    pub is_async: bool,
    /// Whether it is told of all rows of a message at once, and not of each.
    pub is_about_many: bool,
    rank: i64,
    /// Columns of which an update has to name one; empty for all.
    filtering: Vec<String>,
    pub endpoint: Endpoint,
    pub images: Vec<Image>,
}

/// A picture of the row that a step wants.
#[derive(Debug)]
pub(crate) struct Image {
    pub alias: String,
    pub is_pre: bool,
    pub is_post: bool,
    /// Empty for all columns.
    pub attributes: Vec<String>,
}

/// Every enabled step, by table and operation, in the order in which they run.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    steps: HashMap<(String, Operation), Vec<Step>>,
}

impl Step {
    /// The message that it is registered for.
    pub const fn message(&self, operation: Operation) -> &'static str {
        match (operation, self.is_about_many) {
            (Operation::Create, false) => "Create",
            (Operation::Create, true) => "CreateMultiple",
            (Operation::Update, false) => "Update",
            (Operation::Update, true) => "UpdateMultiple",
            (Operation::Delete, _) => "Delete",
        }
    }
}

/// The operation behind a message that steps can be registered for, and whether it is about many rows. An upsert raises
/// those of what it does.
fn operation_of(message: &str) -> Option<(Operation, bool)> {
    match message {
        "Create" => Some((Operation::Create, false)),
        "CreateMultiple" => Some((Operation::Create, true)),
        "Update" => Some((Operation::Update, false)),
        "UpdateMultiple" => Some((Operation::Update, true)),
        "Delete" => Some((Operation::Delete, false)),
        _ => None,
    }
}

impl Registry {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn steps(&self, table: &Table, operation: Operation) -> &[Step] {
        // Steps are few, and rows with steps fewer: a search by a key that need not be built.
        let found = self.steps.iter().find(|((name, own), _)| name == table.name() && *own == operation);
        found.map_or(&[], |(_, steps)| steps.as_slice())
    }

    /// An enabled step by its id.
    pub fn find(&self, id: Uuid) -> Option<&Step> {
        self.steps.values().flatten().find(|step| step.id == id)
    }

    pub fn load(connection: &Connection, catalogue: &Catalogue) -> rusqlite::Result<Self> {
        let mut images: HashMap<Uuid, Vec<Image>> = HashMap::new();
        scan(connection, catalogue, IMAGE, |row| {
            let Some(step) = row.id("sdkmessageprocessingstepid") else { return };
            let kind = row.number("imagetype");
            images.entry(step).or_default().push(Image {
                alias: row.text("entityalias"),
                is_pre: matches!(kind, 0 | 2),
                is_post: matches!(kind, 1 | 2),
                attributes: names(&row.text("attributes")),
            });
        })?;
        let mut endpoints = HashMap::new();
        scan(connection, catalogue, ENDPOINT, |row| {
            if let Some(id) = row.own_id() {
                endpoints.insert(id, Endpoint::of(row));
            }
        })?;
        let (mut messages, mut filters) = (HashMap::new(), HashMap::new());
        let mut steps: HashMap<(String, Operation), Vec<Step>> = HashMap::new();
        let mut rows = Vec::new();
        scan(connection, catalogue, STEP, |row| rows.push(Registered::of(row)))?;
        if rows.is_empty() {
            return Ok(Self::default());
        }
        scan(connection, catalogue, MESSAGE, |row| {
            if let Some(id) = row.own_id() {
                messages.insert(id, row.text("name"));
            }
        })?;
        scan(connection, catalogue, FILTER, |row| {
            if let Some(id) = row.own_id() {
                filters.insert(id, row.text("primaryobjecttypecode"));
            }
        })?;
        for row in rows {
            let Some(message) = row.message.and_then(|id| messages.get(&id)) else { continue };
            let Some((operation, is_about_many)) = operation_of(message) else { continue };
            let (Some(endpoint), Some(stage)) = (row.endpoint.and_then(|id| endpoints.get(&id)), Stage::of(row.stage))
            else {
                continue;
            };
            let tables = match row.filter.and_then(|id| filters.get(&id)) {
                Some(table) => vec![table.clone()],
                // A step without a filter is for every table.
                None => catalogue
                    .tables()
                    .filter(|table| sign_of(table).is_some())
                    .map(|table| table.name().to_owned())
                    .collect(),
            };
            if !row.is_enabled {
                continue;
            }
            let own_images = images.remove(&row.id).unwrap_or_default();
            for table in tables {
                steps.entry((table, operation)).or_default().push(Step {
                    id: row.id,
                    name: row.name.clone(),
                    stage,
                    is_async: row.is_async,
                    is_about_many,
                    rank: row.rank,
                    filtering: row.filtering.clone(),
                    endpoint: endpoint.clone(),
                    images: own_images
                        .iter()
                        .map(|image| Image {
                            alias: image.alias.clone(),
                            attributes: image.attributes.clone(),
                            ..*image
                        })
                        .collect(),
                });
            }
        }
        for steps in steps.values_mut() {
            steps.sort_by_key(|step| (step.stage, step.rank));
        }
        Ok(Self { steps })
    }
}

/// A row of the table of steps.
struct Registered {
    id: Uuid,
    name: String,
    stage: i64,
    is_async: bool,
    is_enabled: bool,
    rank: i64,
    filtering: Vec<String>,
    message: Option<Uuid>,
    filter: Option<Uuid>,
    endpoint: Option<Uuid>,
}

impl Registered {
    fn of(row: &Cells<'_>) -> Self {
        Self {
            id: row.own_id().unwrap_or_default(),
            name: row.text("name"),
            stage: row.number("stage"),
            is_async: row.number("mode") == 1,
            is_enabled: row.number("statecode") == 0,
            rank: row.number("rank"),
            filtering: names(&row.text("filteringattributes")),
            message: row.id("sdkmessageid"),
            filter: row.id("sdkmessagefilterid"),
            endpoint: row.id("eventhandler"),
        }
    }
}

/// Names in a list with commas.
fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_lowercase).collect()
}
