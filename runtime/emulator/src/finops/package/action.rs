//! The package API: actions bound to `DataManagementDefinitionGroups`.
//!
//! Owns names, parameters, answers and refusals of the actions. They only write down what is wanted and say how far it
//! is; jobs do the work.
//!
//! The documentation prints the answer of the export actions as an object in an object; its own context, `$metadata` and
//! the published samples say that it is a string, and a string it is here.

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{Key, Resource};
use rusqlite::Connection;
use serde_json::{Value, json};
use uuid::Uuid;

use super::archive::Package;
use super::execution::{self, Execution, Kind, Problem, Stage, Status};
use super::text::SourceFormat;
use super::{PROJECTS, blob, csv, entity, has_project, import, label, recurring};
use crate::batch::Site;
use crate::exchange::{json as answer, no_content};
use crate::finops::refusal::{bad_body, bad_method, error, failed, nothing_at};
use crate::finops::tracking;
use crate::session::Session;

const NAMESPACE: &str = "Microsoft.Dynamics.DataEntities.";

/// Longest id of an execution, and longest name of a file: what F&O's fields hold.
const NAME_CHARS_MAX: usize = 255;

/// The action that a path names, if it is one of these.
pub(crate) fn action_of(resource: &Resource) -> Option<&str> {
    match resource.segments.as_slice() {
        [set, action] if set.name == PROJECTS && set.key == Key::None => action.name.strip_prefix(NAMESPACE),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Boolean,
    Number,
}

use Type::{Boolean, Number, Text};

const IMPORT: &[(&str, Type)] = &[
    ("packageUrl", Text),
    ("definitionGroupId", Text),
    ("executionId", Text),
    ("execute", Boolean),
    ("overwrite", Boolean),
    ("legalEntityId", Text),
];
const EXPORT: &[(&str, Type)] = &[
    ("definitionGroupId", Text),
    ("packageName", Text),
    ("executionId", Text),
    ("reExecute", Boolean),
    ("legalEntityId", Text),
];
const PREVIEW: &[(&str, Type)] = &[
    ("definitionGroupId", Text),
    ("packageName", Text),
    ("executionId", Text),
    ("reExecute", Boolean),
    ("legalEntityId", Text),
    ("count", Number),
];
const EXECUTION: &[(&str, Type)] = &[("executionId", Text)];
const EXECUTION_ENTITY: &[(&str, Type)] = &[("executionId", Text), ("entityName", Text)];

/// Every action with its parameters.
const ACTIONS: &[(&str, &[(&str, Type)])] = &[
    ("ExportToPackage", EXPORT),
    ("ExportToPackageAsync", EXPORT),
    ("ExportToPackageDelta", EXPORT),
    ("ExportToPackagePreview", PREVIEW),
    ("ExportToPackagePreviewAsync", PREVIEW),
    ("GenerateImportTargetErrorKeysFile", EXECUTION_ENTITY),
    ("GetAzureWriteUrl", &[("uniqueFileName", Text)]),
    ("GetEntityExecutionSummaryStatusList", EXECUTION),
    ("GetExecutionErrors", EXECUTION),
    ("GetExecutionIdByMessageId", &[("_messageId", Text)]),
    ("GetExecutionSummaryStatus", EXECUTION),
    ("GetExportedPackageUrl", EXECUTION),
    ("GetImportStagingErrorFileUrl", EXECUTION_ENTITY),
    ("GetImportTargetErrorKeysFileUrl", EXECUTION_ENTITY),
    ("GetMessageStatus", &[("messageId", Text)]),
    ("ImportFromPackage", IMPORT),
    ("ImportFromPackageAsync", IMPORT),
    ("InitializeDataManagement", &[]),
    ("InitializeDataManagementAsync", &[]),
    ("ResetVersionToken", &[("definitionGroupId", Text), ("entityName", Text), ("sourceName", Text)]),
];

/// What one action looks like from outside, with the types of the protocol.
pub(crate) struct Described {
    pub name: &'static str,
    pub parameters: Vec<(&'static str, &'static str)>,
    /// What it answers, if anything.
    pub returns: Option<&'static str>,
}

/// The set whose rows the actions are bound to, and all of them.
pub(crate) fn described() -> (&'static str, Vec<Described>) {
    let one = |(name, parameters): &(&'static str, &'static [(&'static str, Type)])| Described {
        name,
        parameters: parameters
            .iter()
            .map(|(name, kind)| {
                let of = match kind {
                    Text => "Edm.String",
                    Boolean => "Edm.Boolean",
                    Number => "Edm.Int32",
                };
                (*name, of)
            })
            .collect(),
        returns: match *name {
            "InitializeDataManagement" | "InitializeDataManagementAsync" => None,
            "GenerateImportTargetErrorKeysFile" => Some("Edm.Boolean"),
            "GetEntityExecutionSummaryStatusList" => Some("Collection(Edm.String)"),
            _ => Some("Edm.String"),
        },
    };
    (PROJECTS, ACTIONS.iter().map(one).collect())
}

/// Carries an action out.
pub(crate) fn act(site: &Site, session: &mut Session<'_>, request: &Request, name: &str) -> Result<Response, Response> {
    if request.method != "POST" {
        return Err(bad_method(&request.method));
    }
    let Some((name, known)) = ACTIONS.iter().find(|(own, _)| *own == name) else {
        return Err(nothing_at(site, &request.url));
    };
    let given = Given::read(name, known, &request.body)?;
    let call = Call { site, given };
    match *name {
        "ExportToPackage"
        | "ExportToPackageAsync"
        | "ExportToPackageDelta"
        | "ExportToPackagePreview"
        | "ExportToPackagePreviewAsync" => call.export(session, *name == "ExportToPackageDelta"),
        "ImportFromPackage" => call.import(session, true),
        "ImportFromPackageAsync" => call.import(session, false),
        "GetAzureWriteUrl" => call.write_url(session),
        "GetExportedPackageUrl" => call.package_url(session),
        "GetExecutionSummaryStatus" => {
            let status = call.execution(session.connection())?.status;
            Ok(call.value("Edm.String", json!(status.name())))
        }
        "GetEntityExecutionSummaryStatusList" => call.entity_statuses(session),
        "GetExecutionErrors" => call.errors(session),
        "GetImportStagingErrorFileUrl" => call.staging_error_file(session),
        "GenerateImportTargetErrorKeysFile" => call.make_error_keys(session),
        "GetMessageStatus" => Ok(call.text_value(call.message(session.connection(), "messageId")?.0)),
        "GetExecutionIdByMessageId" => Ok(call.text_value(call.message(session.connection(), "_messageId")?.1)),
        "ResetVersionToken" => {
            let (project, entity) = (call.given.text("definitionGroupId"), call.given.text("entityName"));
            let was = tracking::reset(session.connection(), project, entity).map_err(|error| failed(&error))?;
            Ok(call.value("Edm.Boolean", json!(was)))
        }
        "GetImportTargetErrorKeysFileUrl" => call.error_keys_file(session),
        _ => Ok(no_content(204)),
    }
}

/// The parameters of a call.
struct Given(Vec<(String, Value)>);

impl Given {
    /// Reads a body as OData does: no parameter that the action does not have, and all that must not be null.
    fn read(action: &str, known: &[(&str, Type)], body: &[u8]) -> Result<Self, Response> {
        let invalid = bad_body;
        let body: Value = if body.iter().all(u8::is_ascii_whitespace) {
            json!({})
        } else {
            serde_json::from_slice(body).map_err(|refusal| invalid(&format!("The body is not JSON: {refusal}.")))?
        };
        let Value::Object(members) = body else { return Err(invalid("The body has to be a JSON object.")) };
        for (name, value) in &members {
            let Some((_, kind)) = known.iter().find(|(own, _)| own == name) else {
                return Err(invalid(&format!(
                    "The parameter '{name}' in the request payload is not a valid parameter for the operation '{action}'."
                )));
            };
            let (fits, expected) = match kind {
                Text => (value.is_string() || value.is_null(), "Edm.String"),
                Boolean => (value.is_boolean(), "Edm.Boolean"),
                // The documentation shows a number in quotes.
                Number => {
                    (value.is_i64() || value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()), "Edm.Int32")
                }
            };
            if !fits {
                return Err(invalid(&format!(
                    "Cannot convert the value of '{name}' to the expected type '{expected}'."
                )));
            }
        }
        let missing = known
            .iter()
            .filter(|(name, kind)| *kind == Boolean && !members.contains_key(*name))
            .map(|(name, _)| *name)
            .collect::<Vec<_>>();
        if !missing.is_empty() {
            return Err(invalid(&format!(
                "One or more parameters of the operation '{action}' are missing from the request payload. The missing \
                 parameters are: {}.",
                missing.join(", ")
            )));
        }
        Ok(Self(members.into_iter().collect()))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn is(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    fn number(&self, name: &str) -> i64 {
        let value = self.get(name);
        value.and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok())).unwrap_or(0)
    }
}

struct Call<'a> {
    site: &'a Site,
    given: Given,
}

impl Call<'_> {
    fn value(&self, kind: &str, value: Value) -> Response {
        let context = format!("{}{}/$metadata#{kind}", self.site.base, self.site.root);
        answer(200, json!({"@odata.context": context, "value": value}).to_string().into_bytes())
    }

    fn text_value(&self, text: impl Into<String>) -> Response {
        self.value("Edm.String", Value::String(text.into()))
    }

    fn company(&self) -> String {
        let company = self.given.text("legalEntityId").trim();
        if company.is_empty() { self.site.company.clone() } else { company.to_lowercase() }
    }

    fn execution(&self, connection: &Connection) -> Result<Execution, Response> {
        let id = self.given.text("executionId").trim();
        execution::find(connection, id).map_err(|error| failed(&error))?.ok_or_else(|| {
            error(400, &format!("Execution summary records for the execution ID '{id}' were not found."))
        })
    }

    /// The status of a message, and the execution it led to.
    fn message(&self, connection: &Connection, parameter: &str) -> Result<(&'static str, String), Response> {
        let id = self.given.text(parameter).trim();
        recurring::status(connection, id)
            .map_err(|error| failed(&error))?
            .ok_or_else(|| error(400, &format!("The message with the ID '{id}' was not found.")))
    }

    /// The id of a new execution: the given one unless it is taken, or one of its own.
    fn new_id(&self, connection: &Connection, project: &str, may_repeat: bool) -> Result<String, Response> {
        let id = self.given.text("executionId").trim();
        if id.is_empty() {
            return Ok(format!("{project}-{}", Uuid::new_v4().to_string().to_uppercase()));
        }
        if id.chars().count() > NAME_CHARS_MAX {
            return Err(error(400, &format!("The execution ID is longer than {NAME_CHARS_MAX} characters.")));
        }
        match execution::find(connection, id).map_err(|error| failed(&error))? {
            Some(older) if older.status.is_under_way() => {
                Err(error(400, &format!("The execution '{id}' is still under way.")))
            }
            Some(_) if !may_repeat => Err(error(400, &format!("The execution ID '{id}' already exists."))),
            _ => Ok(id.to_owned()),
        }
    }

    fn project(&self) -> Result<String, Response> {
        let project = self.given.text("definitionGroupId").trim();
        if project.is_empty() {
            return Err(error(400, "The parameter 'definitionGroupId' must be filled in."));
        }
        Ok(project.to_owned())
    }

    fn export(&self, session: &mut Session<'_>, is_delta: bool) -> Result<Response, Response> {
        let project = self.project()?;
        let connection = session.connection();
        if !has_project(connection, &session.catalogue, &project).map_err(|error| failed(&error))? {
            return Err(error(400, &format!("Data project {project} does not exist.")));
        }
        let id = self.new_id(connection, &project, self.given.is("reExecute"))?;
        let package = match self.given.text("packageName").trim() {
            "" => project.as_str(),
            name => name.strip_suffix(".zip").unwrap_or(name),
        };
        let execution = Execution {
            number: 0,
            kind: Kind::Export,
            package: package.to_owned(),
            company: self.company(),
            runs_target: true,
            overwrites: false,
            is_delta,
            rows_max: self.given.number("count").max(0),
            blob: format!("{package}-{}.zip", Uuid::new_v4()),
            status: Status::NotRun,
            project,
            id,
        };
        execution::insert(connection, &execution).map_err(|error| failed(&error))?;
        Ok(self.text_value(execution.id))
    }

    /// The synchronous action answers when the package has been looked at, and refuses a bad one; the asynchronous one
    /// answers at once, and what is wrong with the package is found in the execution.
    fn import(&self, session: &mut Session<'_>, looks_first: bool) -> Result<Response, Response> {
        let project = self.project()?;
        let connection = session.connection();
        let url = self.given.text("packageUrl");
        let name = blob::name_in(url);
        let package = match &name {
            Some(name) => blob::get(connection, session.clock.now(), name).map_err(|error| failed(&error))?,
            None => None,
        };
        let (Some(name), Some(package)) = (name, package) else {
            return Err(error(400, "There is no data package at the package URL."));
        };
        if looks_first {
            let parts = Package::open(&package).map_err(|error| error.to_string()).and_then(|mut package| {
                let manifest = import::manifest(&mut package)?;
                import::plan(&session.catalogue, &mut package, &manifest)
            });
            parts.map_err(|message| error(400, &message))?;
            let other = execution::under_way(connection, Kind::Import, &project).map_err(|error| failed(&error))?;
            if let Some(other) = other {
                let message = format!(
                    "The data project {project} is in use by the execution '{other}'. ImportFromPackage must not be called \
                     in parallel."
                );
                return Err(error(400, &message));
            }
        }
        let execution = Execution {
            number: 0,
            id: self.new_id(connection, &project, true)?,
            kind: Kind::Import,
            package: String::new(),
            company: self.company(),
            runs_target: self.given.is("execute"),
            overwrites: self.given.is("overwrite"),
            is_delta: false,
            rows_max: 0,
            blob: name,
            status: Status::NotRun,
            project,
        };
        execution::insert(connection, &execution).map_err(|error| failed(&error))?;
        Ok(self.text_value(execution.id))
    }

    fn write_url(&self, session: &Session<'_>) -> Result<Response, Response> {
        let name = self.given.text("uniqueFileName").trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            let message = format!("The parameter 'uniqueFileName' has to hold 1 to {NAME_CHARS_MAX} characters.");
            return Err(error(400, &message));
        }
        let url = blob::link(session, &self.site.base, name).map_err(|error| failed(&error))?;
        let id = format!("{{{}}}", Uuid::new_v4().to_string().to_uppercase());
        Ok(self.text_value(json!({"BlobId": id, "BlobUrl": url}).to_string()))
    }

    /// A link to a file that is there, or nothing.
    fn link(&self, session: &Session<'_>, name: &str) -> Result<Response, Response> {
        let found = blob::get(session.connection(), session.clock.now(), name).map_err(|error| failed(&error))?;
        if found.is_none() {
            return Ok(self.text_value(""));
        }
        let url = blob::link(session, &self.site.base, name).map_err(|error| failed(&error))?;
        Ok(self.text_value(url))
    }

    fn package_url(&self, session: &Session<'_>) -> Result<Response, Response> {
        let execution = self.execution(session.connection())?;
        if execution.kind != Kind::Export {
            return Err(error(400, &format!("The execution '{}' is not an export.", execution.id)));
        }
        self.link(session, &execution.blob)
    }

    fn entity_statuses(&self, session: &Session<'_>) -> Result<Response, Response> {
        let connection = session.connection();
        let execution = self.execution(connection)?;
        let parts = execution::parts(connection, execution.number).map_err(|error| failed(&error))?;
        let lines = parts
            .iter()
            .map(|part| json!({"EntityName": part.entity, "EntityExecutionStatus": part.status.name()}).to_string())
            .collect::<Vec<_>>();
        Ok(self.value("Collection(Edm.String)", json!(lines)))
    }

    fn errors(&self, session: &Session<'_>) -> Result<Response, Response> {
        let connection = session.connection();
        let execution = self.execution(connection)?;
        let problems = execution::problems(connection, execution.number, None, None).map_err(|error| failed(&error))?;
        let lines = problems
            .iter()
            .map(|problem| json!({"RecordId": problem.keys, "Field": problem.field, "ErrorMessage": problem.message}))
            .collect::<Vec<_>>();
        Ok(self.text_value(Value::Array(lines).to_string()))
    }

    /// The execution, the label of the entity, and what was set aside of it in one step of the import.
    fn set_aside(
        &self,
        session: &Session<'_>,
        stage: Stage,
    ) -> Result<(Execution, execution::Part, Vec<Problem>), Response> {
        let connection = session.connection();
        let execution = self.execution(connection)?;
        let wanted = self.given.text("entityName");
        let table = entity(&session.catalogue, wanted).map_err(|message| error(400, &message))?;
        let parts = execution::parts(connection, execution.number).map_err(|error| failed(&error))?;
        let part = parts.into_iter().find(|part| part.entity == label(table)).ok_or_else(|| {
            error(400, &format!("The execution '{}' does not contain the entity {wanted}.", execution.id))
        })?;
        let problems = execution::problems(connection, execution.number, Some(&part.entity), Some(stage))
            .map_err(|error| failed(&error))?;
        Ok((execution, part, problems))
    }

    fn staging_error_file(&self, session: &Session<'_>) -> Result<Response, Response> {
        let (execution, part, problems) = self.set_aside(session, Stage::Staging)?;
        if problems.is_empty() || execution.status.is_under_way() {
            return Ok(self.text_value(""));
        }
        let name = error_file(&execution, &part.entity, "staging errors");
        let mut out = String::new();
        csv::push_record(&mut out, ["LINE", "FIELD", "MESSAGE", "RECORD"]);
        for problem in &problems {
            csv::push_record(&mut out, [&*problem.line.to_string(), &problem.field, &problem.message, &problem.record]);
        }
        self.keep_file(session, &name, &out)?;
        self.link(session, &name)
    }

    fn make_error_keys(&self, session: &Session<'_>) -> Result<Response, Response> {
        let (execution, part, problems) = self.set_aside(session, Stage::Target)?;
        if !problems.is_empty() {
            let mut out = String::new();
            csv::push_record(&mut out, ["LINE", "KEYS", "FIELD", "MESSAGE"]);
            for problem in &problems {
                let keys = problem.keys.as_str();
                csv::push_record(&mut out, [&*problem.line.to_string(), keys, &problem.field, &problem.message]);
            }
            self.keep_file(session, &error_file(&execution, &part.entity, "error keys"), &out)?;
        }
        Ok(self.value("Edm.Boolean", json!(!problems.is_empty())))
    }

    /// The file is there once it was made.
    fn error_keys_file(&self, session: &Session<'_>) -> Result<Response, Response> {
        let (execution, part, _) = self.set_aside(session, Stage::Target)?;
        self.link(session, &error_file(&execution, &part.entity, "error keys"))
    }

    fn keep_file(&self, session: &Session<'_>, name: &str, text: &str) -> Result<(), Response> {
        blob::put(session, name, &SourceFormat::CsvUnicode.encode(text)).map_err(|error| failed(&error))
    }
}

fn error_file(execution: &Execution, entity: &str, kind: &str) -> String {
    format!("{} {entity} {kind} {}.csv", execution.number, execution.id)
}
