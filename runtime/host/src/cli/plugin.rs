//! `dualwright plugin`: what a plugin says of itself, and what it does to rows of the user's.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use dualwright_core::value::parse_timestamp;
use dualwright_core::{Column, Fault, Kind, Operation, Schema, SystemKind, TransactionId, Value};
use dualwright_sandbox::{
    CallContext, CallFault, Description, ExtensionPoint, InstallationSpec, Parameter, ParameterKind, Plugin,
    PluginTiming, RowInfo, RowIssue, Sandbox, SandboxSettings, Session, Severity,
};
use serde_json::{Value as Json, json};

use super::plugin_rows::{self as rows, Rows};
use super::{DIFFERENT, FINE, MISCONFIGURED, dry_run, output, session};
use crate::config::PluginFile;
use crate::engine::now_micros;
use crate::report::{duration, thousands};

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// What a plugin is: version, digest, extension points, parameters, columns.
    Inspect(InspectArguments),
    /// Call a plugin on rows of yours, and see what it does and how long that takes.
    Run(RunArguments),
    /// Say what another component, or other parameters, would do to the rows of your maps; writes nothing.
    DryRun(Box<dry_run::PluginDryRunArguments>),
}

const INSPECT_EXAMPLES: &str = "\
What stands here is what an operator needs to bind it: names for dualwright.toml, and the digest to
pin.

  dualwright plugin inspect                     the standard plugins
  dualwright plugin inspect text-cleanup
  dualwright plugin inspect target/my-plugin.wasm";

#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub(super) struct InspectArguments {
    /// A component file, or the name of a plugin; without it, all that have a name.
    #[arg(value_name = "FILE|NAME")]
    plugin: Option<String>,
    /// Also know the plugins of this configuration by their names.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object, or a list of them.
    #[arg(long)]
    json: bool,
}

const RUN_EXAMPLES: &str = "\
rows.json holds a list of objects, one for each row: [{\"NAME\": \"  Contoso \"}, {\"NAME\": null}].
The kind of a column is what the plugin wants, or else what the values look like; --column says it
where neither does.

  dualwright plugin run text-cleanup --point transform --rows rows.json --parameter case=title
  dualwright plugin run email-validator --point pre-validate --rows rows.json \\
    --parameter columns=emailaddress1
  dualwright plugin run my.wasm --point post-validate --rows sent.json --stored stored.json
  dualwright plugin run customer-split --point table-map --rows customers.json
  dualwright plugin run my.wasm --point transform --rows rows.json --fuel-max 200000

Nothing is written anywhere. The plugin runs under the limits of the runtime: a call may take 2 s
and 64 MiB. Kinds: boolean, int64, float64, decimal, text, timestamp, date, guid, json, choice,
multi-choice, money, lookup. Exit codes: 0 fine; 1 the plugin rejected a row, failed, or took more
than --fuel-max; 2 wrong usage, or the plugin refuses its settings.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(super) struct RunArguments {
    /// A component file, or the name of a plugin.
    #[arg(value_name = "FILE|NAME")]
    plugin: String,
    /// As what it is called.
    #[arg(long)]
    point: Point,
    /// The rows, a JSON list of objects; - reads standard input.
    #[arg(long, value_name = "FILE")]
    rows: PathBuf,
    /// A parameter of the plugin, as `plugin inspect` lists them: text as it is, lists with commas, or JSON.
    #[arg(long, value_name = "NAME=VALUE")]
    parameter: Vec<String>,
    /// Pre-validate: what the target holds now, in the order of the rows, null for none.
    #[arg(long, value_name = "FILE")]
    current: Option<PathBuf>,
    /// Post-validate: what the target stored, in the order of the rows, null for none; without it, the rows themselves.
    #[arg(long, value_name = "FILE")]
    stored: Option<PathBuf>,
    /// The kind of a column.
    #[arg(long, value_name = "NAME:KIND")]
    column: Vec<String>,
    /// Where the rows are going.
    #[arg(long, value_enum, default_value_t = Target::Dataverse)]
    target: Target,
    /// Call the way back of a transform instead.
    #[arg(long)]
    back: bool,
    /// The company of rows without a dataAreaId.
    #[arg(long, value_name = "COMPANY", default_value = "")]
    company: String,
    /// The time that the plugin sees, as 2025-01-31T12:00:00Z; without it, now.
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// Call it this often, for better timings.
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repeat: u32,
    /// Count the plugin's instructions: the same number on every machine, where times differ from run to run.
    #[arg(long)]
    fuel: bool,
    /// Fail when a call took more instructions than that, for checks that must not depend on the machine.
    #[arg(long, value_name = "INSTRUCTIONS")]
    fuel_max: Option<u64>,
    /// One JSON object with the rows afterwards, issues and timings.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Point {
    Transform,
    PreValidate,
    PostValidate,
    TableMap,
}

impl Point {
    const fn meaning(self) -> ExtensionPoint {
        match self {
            Self::Transform => ExtensionPoint::Transform,
            Self::PreValidate => ExtensionPoint::PreValidate,
            Self::PostValidate => ExtensionPoint::PostValidate,
            Self::TableMap => ExtensionPoint::TableMap,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Finops,
    Dataverse,
}

impl Target {
    const fn meaning(self) -> SystemKind {
        match self {
            Self::Finops => SystemKind::Finops,
            Self::Dataverse => SystemKind::Dataverse,
        }
    }
}

pub(super) async fn plugin(command: PluginCommand) -> anyhow::Result<u8> {
    match command {
        PluginCommand::DryRun(arguments) => dry_run::plugin(&arguments).await,
        PluginCommand::Inspect(arguments) => inspect(&arguments),
        PluginCommand::Run(arguments) => run(&arguments),
    }
}

fn sandbox(fuel: bool) -> anyhow::Result<Sandbox> {
    Ok(Sandbox::new(SandboxSettings { fuel, ..SandboxSettings::default() })?)
}

/// The component that is meant, and what to call it.
fn component(plugin: &str, files: &[PluginFile]) -> anyhow::Result<(String, Cow<'static, [u8]>)> {
    let of_file = |path: &Path, name: &str| {
        let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok((name.to_owned(), Cow::Owned(bytes)))
    };
    let path = Path::new(plugin);
    if path.is_file() {
        let name = path.file_stem().map_or(plugin.into(), std::ffi::OsStr::to_string_lossy);
        return of_file(path, &name);
    }
    if let Some(file) = files.iter().find(|file| file.name == plugin) {
        return of_file(&file.file, plugin);
    }
    if let Some(bytes) = dualwright_plugins::standard(plugin) {
        return Ok((plugin.to_owned(), Cow::Borrowed(bytes)));
    }
    bail!("{}", output::there_is_no("file or plugin", plugin, names(files)))
}

fn names(files: &[PluginFile]) -> impl Iterator<Item = &str> {
    let own = files.iter().map(|file| file.name.as_str());
    own.chain(dualwright_plugins::STANDARD.iter().map(|plugin| plugin.name))
}

// ---- inspect

fn inspect(arguments: &InspectArguments) -> anyhow::Result<u8> {
    let files = match &arguments.config {
        None => Vec::new(),
        Some(config) => match session::read_config_without_secrets(config)? {
            None => return Ok(MISCONFIGURED),
            Some(config) => config.plugins,
        },
    };
    let wanted = match &arguments.plugin {
        Some(plugin) => vec![plugin.as_str()],
        None => names(&files).collect(),
    };
    let sandbox = sandbox(false)?;
    let mut plugins = Vec::with_capacity(wanted.len());
    for name in wanted {
        let (name, bytes) = component(name, &files)?;
        match sandbox.admit(&name, &bytes) {
            Ok(plugin) => plugins.push((plugin, bytes.len())),
            Err(fault) => {
                eprint!("{}", fault_text(&fault));
                return Ok(MISCONFIGURED);
            }
        }
    }
    let json = |(plugin, bytes): &(Arc<Plugin>, usize)| plugin_json(plugin, *bytes);
    match (arguments.json, &arguments.plugin) {
        (true, Some(_)) => output::print_json(&plugins.first().map(json))?,
        (true, None) => output::print_json(&plugins.iter().map(json).collect::<Vec<_>>())?,
        (false, Some(_)) => {
            output::print(&plugins.iter().map(|(plugin, bytes)| plugin_text(plugin, *bytes)).collect::<String>())?;
        }
        (false, None) => {
            let row = |(plugin, _): &(Arc<Plugin>, usize)| {
                vec![
                    plugin.name.clone(),
                    plugin.version.clone(),
                    points(plugin),
                    first_sentence(&plugin.description.text),
                ]
            };
            let rows = plugins.iter().map(row).collect();
            let table = output::columns(&["plugin", "version", "is a", "what it does"], rows);
            output::print(&format!("{table}\n`dualwright plugin inspect NAME` tells more of one\n"))?;
        }
    }
    Ok(FINE)
}

fn points(plugin: &Plugin) -> String {
    plugin.points.iter().map(|point| point.name()).collect::<Vec<_>>().join(", ")
}

/// Enough to choose from a list; a first sentence that goes into detail ends at its colon.
fn first_sentence(text: &str) -> String {
    let end = text.find([':', '.', '\n']).unwrap_or(text.len());
    text[..end].to_owned()
}

fn plugin_json(plugin: &Plugin, bytes: usize) -> Json {
    json!({
        "name": plugin.name,
        "version": plugin.version,
        "sha256": plugin.digest,
        "bytes": bytes,
        "points": plugin.points,
        "has_way_back": plugin.transforms_back || plugin.maps_back,
        "declares_maps": plugin.declares_maps,
        "description": plugin.description,
    })
}

fn plugin_text(plugin: &Plugin, bytes: usize) -> String {
    let description = &plugin.description;
    let mut text = format!("{} {}\n", plugin.name, plugin.version);
    for line in description.text.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    text.push_str(&format!(
        "\n  sha256            {}\n  size              {} KiB\n  is a              {}\n  has a way back    {}\n  \
         idempotent        {}\n",
        plugin.digest,
        bytes.div_ceil(1024),
        points(plugin),
        yes(plugin.transforms_back || plugin.maps_back),
        yes(description.idempotent),
    ));
    if !description.parameters.is_empty() {
        let rows = description
            .parameters
            .iter()
            .map(|parameter| {
                vec![parameter.name.clone(), kind_of(parameter), default_of(parameter), parameter.text.clone()]
            })
            .collect();
        text.push_str(&format!("\nParameters\n{}", output::columns(&["name", "kind", "default", "meaning"], rows)));
    }
    if !description.columns.is_empty() {
        let rows = description
            .columns
            .iter()
            .map(|column| {
                let kinds = column.kinds.iter().map(|kind| rows::kind_name(*kind)).collect::<Vec<_>>();
                let name = match column.table.as_str() {
                    "" => column.name.clone(),
                    table => format!("{table}.{}", column.name),
                };
                let kinds = if kinds.is_empty() { "any".to_owned() } else { kinds.join(", ") };
                let access = format!("{:?}", column.access).to_lowercase();
                let needed = if column.required { "needed" } else { "if there" };
                vec![name, access, kinds, needed.to_owned(), column.text.clone()]
            })
            .collect();
        text.push_str(&format!("\nColumns\n{}", output::columns(&["column", "", "kinds", "", "meaning"], rows)));
    }
    if !description.issues.is_empty() {
        let rows = description
            .issues
            .iter()
            .map(|issue| vec![issue.code.clone(), severity(issue.severity).to_owned(), issue.text.clone()])
            .collect();
        text.push_str(&format!("\nWhat it may say of a row\n{}", output::columns(&["code", "", "text"], rows)));
    }
    text
}

fn kind_of(parameter: &Parameter) -> String {
    let name = match parameter.kind {
        ParameterKind::Boolean => "true or false",
        ParameterKind::Integer => "whole number",
        ParameterKind::Decimal => "number",
        ParameterKind::Text => "text",
        ParameterKind::Choice => return parameter.options.join(" | "),
        ParameterKind::Column => "column",
        ParameterKind::Texts => "texts",
        ParameterKind::Columns => "columns",
        ParameterKind::Pairs => "names and texts",
        ParameterKind::Json => "JSON",
    };
    match (&parameter.minimum, &parameter.maximum) {
        (Some(minimum), Some(maximum)) => format!("{name}, {minimum} to {maximum}"),
        (Some(minimum), None) => format!("{name}, at least {minimum}"),
        (None, Some(maximum)) => format!("{name}, at most {maximum}"),
        (None, None) => name.to_owned(),
    }
}

fn default_of(parameter: &Parameter) -> String {
    match &parameter.default {
        _ if parameter.required => "required".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(default) => default.to_string(),
        None => "none".to_owned(),
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn fault_text(fault: &Fault) -> String {
    format!("error: {fault}\n  {}\n", fault.code.remedy())
}

// ---- run

/// What a call did.
#[derive(Debug, Default)]
struct Done {
    /// The rows afterwards (transform), or the rows of each target table (table map).
    tables: Vec<(String, Vec<serde_json::Map<String, Json>>)>,
    /// Row, column, before, after.
    changes: Vec<(usize, String, Json, Json)>,
    issues: Vec<RowIssue>,
}

/// What a call leads to: exit code, standard output, standard error.
#[derive(Debug, Default)]
struct Said {
    code: u8,
    out: String,
    error: String,
}

fn run(arguments: &RunArguments) -> anyhow::Result<u8> {
    let said = call(arguments)?;
    eprint!("{}", said.error);
    output::print(&said.out)?;
    Ok(said.code)
}

fn call(arguments: &RunArguments) -> anyhow::Result<Said> {
    let refused = |fault: &Fault| Said { code: MISCONFIGURED, error: fault_text(fault), ..Said::default() };
    let (name, bytes) = component(&arguments.plugin, &[])?;
    let sandbox = sandbox(arguments.fuel || arguments.fuel_max.is_some())?;
    let plugin = match sandbox.admit(&name, &bytes) {
        Ok(plugin) => plugin,
        Err(fault) => return Ok(refused(&fault)),
    };
    if arguments.back && !(arguments.point == Point::Transform && plugin.transforms_back) {
        bail!("{name} has no way back that --back could call");
    }
    let parameters = parameters(&plugin.description, &arguments.parameter)?;
    let wants = rows::Wants::of(&plugin.description, &arguments.column)?;
    let source = Rows::read(&arguments.rows, &wants)?;
    let other = match (arguments.point, &arguments.current, &arguments.stored) {
        (Point::PreValidate, Some(file), None) | (Point::PostValidate, None, Some(file)) => Some(file),
        (_, None, None) => None,
        _ => bail!("--current is for pre-validate, --stored for post-validate"),
    };
    let target = if arguments.back { SystemKind::Finops } else { arguments.target.meaning() };
    let schema = Arc::new(Schema::new(target, "rows", "rows", source.columns.clone()));
    let other = match other {
        Some(file) => Some(rows::read_beside(file, &source)?),
        None => None,
    };
    let point = arguments.point.meaning();
    let targets = if point == ExtensionPoint::TableMap { targets(&plugin.description) } else { Vec::new() };
    let spec = InstallationSpec {
        tenant: Arc::from("default"),
        place: format!("plugin run, {}", point.name()),
        point,
        source: Arc::clone(&schema),
        targets: targets.clone(),
        // A table map with a way back writes the columns that it reads.
        writable: match point {
            ExtensionPoint::Transform | ExtensionPoint::TableMap => (0..schema.columns().len()).collect(),
            ExtensionPoint::PreValidate | ExtensionPoint::PostValidate => Vec::new(),
        },
        parameters,
        limits: None,
    };
    let installation = match sandbox.install(&plugin, spec) {
        Ok(installation) => installation,
        Err(fault) => return Ok(refused(&fault)),
    };

    let now = match &arguments.now {
        Some(text) => parse_timestamp(text).with_context(|| format!("--now {text} is not a time"))?,
        None => now_micros(),
    };
    let companies = source.companies(&arguments.company);
    let info = companies
        .iter()
        .enumerate()
        .map(|(row, company)| RowInfo {
            operation: Operation::Upsert,
            creating: other.as_ref().is_some_and(|other| other[row].is_none()),
            company,
        })
        .collect::<Vec<_>>();
    let given = source.rows.iter().map(Vec::as_slice).collect::<Vec<_>>();
    let beside = match &other {
        Some(other) => other.iter().map(Option::as_deref).collect::<Vec<_>>(),
        None if point == ExtensionPoint::PostValidate => given.iter().copied().map(Some).collect(),
        None => vec![None; given.len()],
    };
    let once = |session: &mut Session| -> Result<Done, CallFault> {
        Ok(match point {
            ExtensionPoint::Transform => {
                let patch = if arguments.back {
                    session.transform_back(&installation, &info, &given)?
                } else {
                    session.transform(&installation, &info, &given)?
                };
                patched(&source, patch.cells, patch.issues)
            }
            ExtensionPoint::PreValidate => {
                let issues = session.pre_validate(&installation, &info, &beside, &given)?;
                Done { issues, ..Done::default() }
            }
            ExtensionPoint::PostValidate => {
                let issues = session.post_validate(&installation, &info, &given, &beside)?;
                Done { issues, ..Done::default() }
            }
            ExtensionPoint::TableMap => {
                let mapped = session.table_map(&installation, &info, &given)?;
                let tables = targets.iter().zip(mapped.tables).map(|(schema, table)| {
                    let rows = table.rows.iter().map(|row| mapped_row(schema, row, &targets)).collect();
                    (schema.set.to_string(), rows)
                });
                Done { tables: tables.collect(), issues: mapped.issues, ..Done::default() }
            }
        })
    };
    let mut outcome = Ok(Done::default());
    for _ in 0..arguments.repeat {
        // A transaction each time, as in the runtime: a fresh instance that knows nothing of the one before.
        let context = CallContext {
            transaction: TransactionId(uuid::Uuid::now_v7()),
            attempt: 1,
            now_micros: now,
            seed: 0,
            target,
            deadline: Instant::now() + Duration::from_secs(90),
        };
        outcome = once(&mut sandbox.session("default", context));
        if outcome.is_err() {
            break;
        }
    }
    let timing = sandbox.timings().into_iter().find(|timing| timing.point == point);
    let done = match outcome {
        Ok(done) => done,
        Err(CallFault { fault, .. }) => {
            let mut said = Said { code: DIFFERENT, ..Said::default() };
            if arguments.json {
                said.out = output::json_text(&json!({ "ok": false, "fault": fault, "timing": timing }))?;
            } else {
                said.error = fault_text(&fault);
                said.out = timing.as_ref().map(timing_text).unwrap_or_default();
            }
            return Ok(said);
        }
    };
    let rejected = done.issues.iter().any(|issue| issue.severity == Severity::Error);
    let too_much = timing.as_ref().and_then(|timing| fuel_above(timing, arguments.fuel_max));
    let out = if arguments.json {
        output::json_text(&done_json(&plugin, point, &source, &done, timing.as_ref()))?
    } else {
        format!(
            "{} {}, {} of {}\n{}{}",
            plugin.name,
            plugin.version,
            point.name(),
            output::counted(given.len() as u64, "row", "rows"),
            done_text(point, &source, &done),
            timing.as_ref().map(timing_text).unwrap_or_default()
        )
    };
    Ok(Said {
        code: if rejected || too_much.is_some() { DIFFERENT } else { FINE },
        out,
        error: too_much.unwrap_or_default(),
    })
}

/// Parameters as the plugin declares them, from `name=value`. Ranges and options are judged where they are for
/// everybody: at the installation.
/// Parameters of a plugin of the configuration, as its description declares them.
pub(super) fn parameters_of(
    name: &str,
    files: &[PluginFile],
    given: &[String],
) -> anyhow::Result<serde_json::Map<String, Json>> {
    if given.is_empty() {
        return Ok(serde_json::Map::new());
    }
    let (name, bytes) = component(name, files)?;
    let plugin = sandbox(false)?.admit(&name, &bytes)?;
    match parameters(&plugin.description, given)? {
        Json::Object(parameters) => Ok(parameters),
        _ => Ok(serde_json::Map::new()),
    }
}

fn parameters(description: &Description, given: &[String]) -> anyhow::Result<Json> {
    let mut parameters = serde_json::Map::new();
    for pair in given {
        let (name, value) = pair.split_once('=').with_context(|| format!("--parameter {pair} is not NAME=VALUE"))?;
        let Some(parameter) = description.parameters.iter().find(|parameter| parameter.name == name) else {
            let known = description.parameters.iter().map(|parameter| parameter.name.as_str());
            bail!("{}", output::there_is_no("parameter", name, known));
        };
        let json = parameter_value(parameter, value)
            .with_context(|| format!("parameter {name}: {value:?} is not {}", kind_of(parameter)))?;
        parameters.insert(name.to_owned(), json);
    }
    Ok(Json::Object(parameters))
}

fn parameter_value(parameter: &Parameter, value: &str) -> Option<Json> {
    let as_json = || serde_json::from_str::<Json>(value).ok();
    match parameter.kind {
        ParameterKind::Boolean | ParameterKind::Integer | ParameterKind::Json => as_json(),
        // As text it stays exact.
        ParameterKind::Decimal | ParameterKind::Text | ParameterKind::Choice | ParameterKind::Column => {
            Some(Json::from(value))
        }
        ParameterKind::Texts | ParameterKind::Columns => match as_json() {
            Some(list @ Json::Array(_)) => Some(list),
            _ => Some(value.split(',').map(|part| Json::from(part.trim())).collect()),
        },
        ParameterKind::Pairs => match as_json() {
            Some(table @ Json::Object(_)) => Some(table),
            _ => value
                .split(',')
                .map(|pair| pair.split_once(':').map(|(name, text)| (name.trim().to_owned(), Json::from(text.trim()))))
                .collect::<Option<serde_json::Map<_, _>>>()
                .map(Json::Object),
        },
    }
}

/// The target tables that a table map names, with the columns that it names.
fn targets(description: &Description) -> Vec<Arc<Schema>> {
    let mut tables: Vec<(&str, Vec<Column>)> = Vec::new();
    for want in description.columns.iter().filter(|want| !want.table.is_empty()) {
        let column = Column::new(&want.name, want.kinds.first().copied().unwrap_or(Kind::Text));
        match tables.iter_mut().find(|(table, _)| *table == want.table) {
            Some((_, columns)) => columns.push(column),
            None => tables.push((&want.table, vec![column])),
        }
    }
    let schema =
        |(table, columns): (&str, Vec<Column>)| Arc::new(Schema::new(SystemKind::Dataverse, table, table, columns));
    tables.into_iter().map(schema).collect()
}

fn patched(source: &Rows, cells: Vec<(usize, usize, Value)>, issues: Vec<RowIssue>) -> Done {
    let mut after = source.rows.clone();
    let mut changes = Vec::with_capacity(cells.len());
    for (row, column, value) in cells {
        let before = rows::json_of(&after[row][column]);
        changes.push((row, source.columns[column].name.to_string(), before, rows::json_of(&value)));
        after[row][column] = value;
    }
    let table = after.iter().map(|row| rows::object_of(&source.columns, row)).collect();
    Done { tables: vec![("rows".to_owned(), table)], changes, issues }
}

fn mapped_row(
    schema: &Schema,
    row: &dualwright_sandbox::MappedRow,
    targets: &[Arc<Schema>],
) -> serde_json::Map<String, Json> {
    let mut object = rows::object_of(schema.columns(), &row.values);
    for reference in &row.references {
        let to = format!("{}[{}]", targets[reference.table].set, reference.row + 1);
        object.insert(schema.column(reference.column).name.to_string(), Json::from(to));
    }
    let mut all = serde_json::Map::new();
    all.insert("from_row".to_owned(), Json::from(row.source + 1));
    if row.operation == Operation::Delete {
        all.insert("operation".to_owned(), Json::from("delete"));
    }
    all.append(&mut object);
    all
}

fn issue_json(source: &Rows, issue: &RowIssue) -> Json {
    json!({
        "row": issue.row + 1,
        "column": issue.column.map(|column| source.columns[column].name.to_string()),
        "severity": issue.severity,
        "code": issue.fault.foreign_code,
        "message": issue.fault.message,
    })
}

fn done_json(
    plugin: &Plugin,
    point: ExtensionPoint,
    source: &Rows,
    done: &Done,
    timing: Option<&PluginTiming>,
) -> Json {
    let change = |(row, column, before, after): &(usize, String, Json, Json)| json!({ "row": row + 1, "column": column, "before": before, "after": after });
    let tables = done.tables.iter().map(|(name, rows)| (name.clone(), json!(rows))).collect::<serde_json::Map<_, _>>();
    json!({
        "ok": done.issues.iter().all(|issue| issue.severity != Severity::Error),
        "plugin": plugin.name,
        "version": plugin.version,
        "sha256": plugin.digest,
        "point": point,
        "tables": tables,
        "changes": done.changes.iter().map(change).collect::<Vec<_>>(),
        "issues": done.issues.iter().map(|issue| issue_json(source, issue)).collect::<Vec<_>>(),
        "timing": timing,
    })
}

/// Lines of a list that a terminal is shown; `--json` has them all.
const LINES_MAX: usize = 40;

fn done_text(point: ExtensionPoint, source: &Rows, done: &Done) -> String {
    let mut text = String::new();
    let mut section = |title: &str, headings: &[&str], mut rows: Vec<Vec<String>>| {
        let more = rows.len().saturating_sub(LINES_MAX);
        rows.truncate(LINES_MAX);
        text.push_str(&format!("\n{title}\n{}", output::columns(headings, rows)));
        if more > 0 {
            text.push_str(&format!("  … and {} more; --json has them all\n", thousands(more as u64)));
        }
    };
    match point {
        ExtensionPoint::Transform if done.changes.is_empty() => section("It changes nothing", &[], Vec::new()),
        ExtensionPoint::Transform => {
            let change = |(row, column, before, after): &(usize, String, Json, Json)| {
                vec![(row + 1).to_string(), column.clone(), before.to_string(), after.to_string()]
            };
            let rows = done.changes.iter().map(change).collect();
            section("Changes", &["row", "column", "before", "after"], rows);
        }
        ExtensionPoint::TableMap => {
            for (table, rows) in &done.tables {
                let row = |row: &serde_json::Map<String, Json>| vec![Json::Object(row.clone()).to_string()];
                section(table, &[], rows.iter().map(row).collect());
            }
        }
        ExtensionPoint::PreValidate | ExtensionPoint::PostValidate if done.issues.is_empty() => {
            section("It accepts every row", &[], Vec::new());
        }
        ExtensionPoint::PreValidate | ExtensionPoint::PostValidate => {}
    }
    if !done.issues.is_empty() {
        let issue = |issue: &RowIssue| {
            vec![
                (issue.row + 1).to_string(),
                issue.column.map(|column| source.columns[column].name.to_string()).unwrap_or_default(),
                severity(issue.severity).to_owned(),
                issue.fault.foreign_code.clone().unwrap_or_default(),
                issue.fault.message.clone(),
            ]
        };
        let rows = done.issues.iter().map(issue).collect();
        section("What it says", &["row", "column", "", "code", "text"], rows);
    }
    text
}

/// Where the time went. Set-up is making and configuring instances, which the runtime does once for each transaction.
fn timing_text(timing: &PluginTiming) -> String {
    let calls = if timing.calls == 1 { "1 call".to_owned() } else { format!("{} calls", thousands(timing.calls)) };
    let mut text = format!(
        "\nTime of {calls}\n  guest {}, host calls {}, marshalling {}, set-up {} for {} instances; \
         memory at most {} KiB\n",
        duration(timing.guest_micros),
        duration(timing.host_call_micros),
        duration(timing.marshalling_micros),
        duration(timing.setup_micros),
        thousands(timing.instances),
        thousands(timing.memory_peak_bytes.div_ceil(1024)),
    );
    if timing.calls > 1 {
        text.push_str(&format!(
            "  a call: p50 {}, p95 {}, p99 {}, max {}\n",
            duration(timing.p50_micros),
            duration(timing.p95_micros),
            duration(timing.p99_micros),
            duration(timing.max_micros),
        ));
    }
    if let Some(fuel) = timing.fuel {
        text.push_str(&format!(
            "  instructions: {} in all calls, {} per row; set-up {} per instance\n",
            thousands(fuel),
            thousands(fuel / timing.rows.max(1)),
            thousands(timing.setup_fuel.unwrap_or_default() / timing.instances.max(1)),
        ));
    }
    text
}

/// What to say when a call took more instructions than it may.
fn fuel_above(timing: &PluginTiming, fuel_max: Option<u64>) -> Option<String> {
    let per_call = timing.fuel? / timing.calls.max(1);
    let fuel_max = fuel_max.filter(|&fuel_max| fuel_max < per_call)?;
    Some(format!(
        "error: a call took {} instructions, more than the {} it may take\n",
        thousands(per_call),
        thousands(fuel_max)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, kind: ParameterKind) -> Parameter {
        Parameter {
            name: name.to_owned(),
            kind,
            required: false,
            default: None,
            options: Vec::new(),
            minimum: None,
            maximum: None,
            text: String::new(),
        }
    }

    #[test]
    fn parameters_take_the_kind_that_is_declared() {
        use ParameterKind::{Boolean, Choice, Columns, Decimal, Integer, Json as AnyJson, Pairs, Text, Texts};
        for (kind, value, wanted) in [
            (Boolean, "true", Some(json!(true))),
            (Boolean, "yes", None),
            (Integer, "12", Some(json!(12))),
            (Integer, "twelve", None),
            (Decimal, "0.10", Some(json!("0.10"))),
            (Text, "12", Some(json!("12"))),
            (Text, "a=b", Some(json!("a=b"))),
            (Text, "", Some(json!(""))),
            (Choice, "title", Some(json!("title"))),
            (Texts, "a, b", Some(json!(["a", "b"]))),
            (Columns, r#"["a,b"]"#, Some(json!(["a,b"]))),
            (Pairs, "EUR:2, JPY:0", Some(json!({"EUR": "2", "JPY": "0"}))),
            (Pairs, r#"{"a": "b:c"}"#, Some(json!({"a": "b:c"}))),
            (Pairs, "EUR", None),
            (AnyJson, "[1]", Some(json!([1]))),
            (AnyJson, "[1", None),
        ] {
            assert_eq!(parameter_value(&parameter("p", kind), value), wanted, "{kind:?} {value}");
        }
    }

    #[test]
    fn every_standard_plugin_can_be_inspected() {
        let sandbox = sandbox(false).expect("a sandbox");
        for standard in dualwright_plugins::STANDARD {
            let plugin = sandbox.admit(standard.name, standard.bytes).unwrap_or_else(|fault| panic!("{fault}"));
            let text = plugin_text(&plugin, standard.bytes.len());
            assert!(text.contains(&plugin.digest) && text.contains(plugin.points[0].name()), "{text}");
            assert_eq!(plugin_json(&plugin, 1)["description"]["name"], standard.name);
        }
    }

    #[test]
    fn a_plugin_runs_on_rows_of_the_users() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("rows.json");
        let arguments = |plugin: &str, point: Point, rows: &str, parameters: &[&str], json: bool| {
            std::fs::write(&file, rows).expect("written");
            RunArguments {
                plugin: plugin.to_owned(),
                point,
                rows: file.clone(),
                parameter: parameters.iter().map(ToString::to_string).collect(),
                current: None,
                stored: None,
                column: Vec::new(),
                target: Target::Dataverse,
                back: false,
                company: String::new(),
                now: None,
                repeat: 2,
                fuel: false,
                fuel_max: None,
                json,
            }
        };
        let run = |plugin: &str, point, rows: &str, parameters: &[&str], json| {
            call(&arguments(plugin, point, rows, parameters, json))
        };
        let rows = r#"[{"NAME": "  a  b "}, {"NAME": null}, {}]"#;
        let cleaned = run("text-cleanup", Point::Transform, rows, &["case=upper"], true).expect("runs");
        let json: Json = serde_json::from_str(&cleaned.out).expect("JSON");
        assert_eq!(cleaned.code, FINE);
        assert_eq!(json["changes"], json!([{"row": 1, "column": "NAME", "before": "  a  b ", "after": "A B"}]));
        assert_eq!(json["tables"]["rows"], json!([{"NAME": "A B"}, {"NAME": null}, {}]));
        assert_eq!(json["timing"]["calls"], 2);
        let cleaned = run("text-cleanup", Point::Transform, rows, &[], false).expect("runs");
        assert!(
            cleaned.out.contains("1    NAME    \"  a  b \"  \"a b\"") && cleaned.out.contains("Time of 2 calls"),
            "{}",
            cleaned.out
        );

        let counted = |fuel_max| {
            let arguments = arguments("text-cleanup", Point::Transform, rows, &[], true);
            let said = call(&RunArguments { fuel: true, fuel_max, ..arguments }).expect("runs");
            let json: Json = serde_json::from_str(&said.out).expect("JSON");
            (json["timing"]["fuel"].as_u64().expect("is counted"), said)
        };
        let (fuel, said) = counted(Some(1_000_000));
        assert!(0 < fuel && said.code == FINE, "{}", said.error);
        let (again, said) = counted(Some(1));
        assert_eq!((again, said.code), (fuel, DIFFERENT), "the same count, and more than it may be");
        assert!(said.error.contains("more than the 1 it may take"), "{}", said.error);

        let mail = r#"[{"mail": "no mail"}, {"mail": "a@example.com"}]"#;
        let rejected = run("email-validator", Point::PreValidate, mail, &["columns=mail"], true).expect("runs");
        let json: Json = serde_json::from_str(&rejected.out).expect("JSON");
        assert_eq!((rejected.code, &json["ok"], &json["issues"][0]["row"]), (DIFFERENT, &json!(false), &json!(1)));
        assert_eq!(json["issues"].as_array().map(Vec::len), Some(1));

        let customer = r#"[{"CustomerAccount": "C1", "OrganizationName": "Contoso", "PrimaryContactEmail":
            "jane.doe@example.com", "PrimaryContactPhone": "", "dataAreaId": "USMF"}]"#;
        let split = run("customer-split", Point::TableMap, customer, &[], true).expect("runs");
        let json: Json = serde_json::from_str(&split.out).unwrap_or_else(|error| panic!("{error}: {}", split.error));
        assert_eq!(json["tables"]["contacts"][0]["lastname"], "Doe", "{json:#}");
        assert_eq!(json["tables"]["accounts"][0]["primarycontactid"], "contacts[1]", "{json:#}");

        let not_a_point = run("text-cleanup", Point::PreValidate, "[]", &[], false).expect("is refused");
        assert_eq!(not_a_point.code, MISCONFIGURED);
        assert!(not_a_point.error.contains("it is transform"), "{}", not_a_point.error);
        for (plugin, parameters, part) in [
            ("text-clenup", &[][..], "did you mean text-cleanup?"),
            ("text-cleanup", &["cas=upper"], "did you mean case?"),
            ("text-cleanup", &["trim=perhaps"], "is not true or false"),
            ("text-cleanup", &["trim"], "is not NAME=VALUE"),
        ] {
            let error = run(plugin, Point::Transform, "[]", parameters, false).expect_err("is refused");
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
}
