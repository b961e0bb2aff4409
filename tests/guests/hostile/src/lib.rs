//! A guest for tests of the sandbox: the parameter `mode` says what it does, mostly something that no plugin may do.
//!
//! Written against the bare bindings, because an SDK would not let it misbehave. Empty on every target but WebAssembly.

#![cfg(target_family = "wasm")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

wit_bindgen::generate!({
    path: [
        "../../../wit/types",
        "../../../wit/log",
        "../../../wit/plugin",
        "../../../wit/transform",
        "../../../wit/validate",
        "../../../wit/table-map",
        "../../../wit/worlds",
    ],
    world: "dualwright:worlds/everything",
    generate_all,
});

use dualwright::log::log::{Level, log};
use dualwright::types::types::{
    Batch, CallError, Column, Context, Issue, Refusal, Schema, Setting, SettingValue, Severity,
};
use exports::dualwright::plugin::describe;
use exports::dualwright::table_map::{declare, table_map, table_map_back};
use exports::dualwright::transform::{transform, transform_back};
use exports::dualwright::validate::{post, pre};

struct Hostile;
export!(Hostile);

static MODE: Mutex<String> = Mutex::new(String::new());
static WRITABLE: Mutex<Vec<bool>> = Mutex::new(Vec::new());
/// Seen by later calls of the same instance, and must be seen by nobody else.
static CALLS: AtomicU32 = AtomicU32::new(0);

fn mode() -> String {
    MODE.lock().unwrap().clone()
}

fn configure(input: &Schema, settings: &[Setting]) -> Result<(), Vec<Refusal>> {
    for setting in settings {
        if let ("mode", SettingValue::Text(mode)) = (setting.name.as_str(), &setting.value) {
            MODE.lock().unwrap().clone_from(mode);
        }
    }
    *WRITABLE.lock().unwrap() = input.columns.iter().map(|column| column.writable).collect();
    match mode().as_str() {
        "configure-loop" => forever(),
        "configure-trap" => panic!("not today"),
        "configure-refuse" => Err(vec![
            Refusal { parameter: Some("mode".into()), column: None, message: "no such mode".into() },
            Refusal { parameter: None, column: Some("NAME".into()), message: "must be\nshorter".into() },
        ]),
        _ => Ok(()),
    }
}

impl describe::Guest for Hostile {
    fn describe() -> describe::Description {
        use describe::{IssueText, Parameter, ParameterKind};
        let parameter = |name: &str, kind, required, default: Option<&str>| Parameter {
            name: name.into(),
            kind,
            required,
            default_value: default.map(Into::into),
            options: vec![],
            minimum: None,
            maximum: None,
            text: "what to do wrong".into(),
        };
        describe::Description {
            name: "hostile".into(),
            version: "0.1.0".into(),
            text: "Misbehaves on demand.".into(),
            parameters: vec![
                parameter("mode", ParameterKind::Text, true, None),
                Parameter {
                    minimum: Some("1".into()),
                    maximum: Some("10".into()),
                    ..parameter("times", ParameterKind::Integer, false, Some("1"))
                },
            ],
            columns: vec![],
            issues: vec![IssueText {
                code: "bad-name".into(),
                severity: Severity::Error,
                text: "the name has {0} letters".into(),
            }],
            capabilities: vec![],
            idempotent: false,
            reads_before: true,
            extensions: vec![],
        }
    }
}

impl transform::Guest for Hostile {
    fn configure(input: Schema, settings: Vec<Setting>) -> Result<(), Vec<Refusal>> {
        configure(&input, &settings)
    }

    fn apply(ctx: Context, input: Batch) -> Result<transform::Patch, CallError> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let rows = input.rows as usize;
        let mut columns = Vec::new();
        let mut issues = Vec::new();
        let wrong = mode();
        // Only where a row says so, to be found by halving.
        let wrong = match wrong.strip_suffix("-on-x") {
            Some(wrong) if texts(&input.columns[0], rows, str::to_owned).contains(&Some("x".into())) => wrong,
            Some(_) => "",
            None => &wrong,
        };
        match wrong {
            "upper" => columns.push(text_column(0, &texts(&input.columns[0], rows, str::to_uppercase))),
            // What came in goes out: everything that may be written.
            "echo" => {
                let writable = WRITABLE.lock().unwrap().clone();
                columns = input.columns.into_iter().filter(|column| writable[usize::from(column.id)]).collect();
            }
            "before" => columns = input.before.into_iter().take(1).collect(),
            "context" => {
                let company = |row: usize| {
                    let index = input.company.get(2 * row).copied().unwrap_or(0);
                    input.companies[usize::from(index)].clone()
                };
                let told: Vec<_> = (0..rows)
                    .map(|row| {
                        let operation = input.operations.get(row).copied().unwrap_or(2);
                        let (now, seed, target) = (ctx.now, ctx.seed, ctx.target);
                        Some(format!("{operation} {} {now} {seed} {} {target:?}", company(row), ctx.attempt))
                    })
                    .collect();
                columns.push(text_column(0, &told));
            }
            "calls" => columns.push(text_column(0, &vec![Some(calls.to_string()); rows])),
            "trap" => panic!("boom"),
            "loop" => forever(),
            "memory" => {
                let mut held = vec![0u8; 200 << 20];
                held.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                std::hint::black_box(held);
            }
            "recursion" => {
                std::hint::black_box(deeper(1));
            }
            "huge" => columns.push(text_column(0, &vec![Some("x".repeat((20 << 20) / rows)); rows])),
            "long" => columns.push(text_column(0, &vec![Some("x".repeat(1000)); rows])),
            "not-granted" => columns.push(text_column(1, &vec![Some("x".into()); rows])),
            "twice" => {
                columns.push(text_column(0, &vec![Some("x".into()); rows]));
                columns.push(text_column(0, &vec![Some("x".into()); rows]));
            }
            "no-such-column" => columns.push(text_column(99, &vec![Some("x".into()); rows])),
            "wrong-kind" => columns.push(Column { kind: 2, ..text_column(0, &vec![Some("x".into()); rows]) }),
            "too-many-rows" => columns.push(text_column(0, &vec![Some("x".into()); rows + 1])),
            "state" => columns.push(Column { state: vec![7; rows], ..text_column(0, &vec![None; rows]) }),
            "offsets" => {
                let mut column = text_column(0, &vec![Some("x".into()); rows]);
                column.offsets[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
                columns.push(column);
            }
            "utf8" => {
                let mut column = text_column(0, &vec![Some("xy".into()); rows]);
                column.data[0] = 0xff;
                columns.push(column);
            }
            "log" => (0..1000).for_each(|line| log(Level::Info, &format!("{line} \u{1b}[31m {}", "x".repeat(5000)))),
            "failed" => return Err(CallError::Failed("no luck".into())),
            "retry" => return Err(CallError::RetryAfter(250)),
            "issue-flood" => issues = (0..100_000).map(|_| issue(0, "flood", vec![])).collect(),
            "issue-row" => issues.push(issue(input.rows, "late", vec![])),
            "issue-argument" => issues.push(issue(0, "long", vec!["x".repeat(100_000)])),
            _ => {}
        }
        Ok(transform::Patch { columns, issues })
    }
}

impl transform_back::Guest for Hostile {
    fn apply(_ctx: Context, input: Batch) -> Result<transform::Patch, CallError> {
        let lower = texts(&input.columns[0], input.rows as usize, str::to_lowercase);
        Ok(transform::Patch { columns: vec![text_column(0, &lower)], issues: vec![] })
    }
}

impl pre::Guest for Hostile {
    fn configure(input: Schema, settings: Vec<Setting>) -> Result<(), Vec<Refusal>> {
        configure(&input, &settings)
    }

    fn check(_ctx: Context, proposed: Batch, current: Vec<Column>) -> Result<Vec<Issue>, CallError> {
        Ok(compare(&proposed, &current))
    }
}

impl post::Guest for Hostile {
    fn configure(input: Schema, settings: Vec<Setting>) -> Result<(), Vec<Refusal>> {
        configure(&input, &settings)
    }

    fn check(_ctx: Context, sent: Batch, stored: Vec<Column>) -> Result<Vec<Issue>, CallError> {
        Ok(compare(&sent, &stored))
    }
}

/// An error for every row named `bad`, a warning for every row whose name differs from the other side's.
fn compare(batch: &Batch, other: &[Column]) -> Vec<Issue> {
    let rows = batch.rows as usize;
    let names = texts(&batch.columns[0], rows, str::to_owned);
    let others = other.first().map(|column| texts(column, rows, str::to_owned));
    let mut issues = Vec::new();
    for (row, name) in names.iter().enumerate() {
        if name.as_deref() == Some("bad") {
            issues.push(issue(row as u32, "bad-name", vec!["3".into()]));
        }
        if let Some(others) = &others
            && others[row] != *name
        {
            issues.push(Issue { severity: Severity::Warning, ..issue(row as u32, "differs", vec![]) });
        }
    }
    issues
}

impl table_map::Guest for Hostile {
    fn configure(input: Schema, _targets: Vec<Schema>, settings: Vec<Setting>) -> Result<(), Vec<Refusal>> {
        configure(&input, &settings)
    }

    /// Each source row becomes a row of table 0 with its name, and one of table 1 that refers to it in column 1.
    fn apply(_ctx: Context, input: Batch) -> Result<table_map::Mapped, CallError> {
        let rows = input.rows;
        let each: Vec<u8> = (0..rows).flat_map(u32::to_le_bytes).collect();
        let names = texts(&input.columns[0], rows as usize, str::to_owned);
        let mut parent = table_map::TableRows {
            table: 0,
            rows,
            source_rows: each.clone(),
            actions: vec![],
            columns: vec![text_column(0, &names)],
            references: vec![],
        };
        let reference = |row| table_map::Reference { row, column: 1, target_table: 0, target_row: row };
        let mut child = table_map::TableRows {
            table: 1,
            references: (0..rows).map(reference).collect(),
            columns: vec![text_column(0, &texts(&input.columns[0], rows as usize, str::to_lowercase))],
            ..parent.clone()
        };
        match mode().as_str() {
            "map-delete" => parent.actions = vec![2; rows as usize],
            "map-action" => parent.actions = vec![9; rows as usize],
            "map-source-row" => parent.source_rows = rows.to_le_bytes().repeat(rows as usize),
            "map-table" => child.table = 7,
            "map-table-twice" => child.table = 0,
            "map-reference" => child.references[0].target_row = rows,
            "map-reference-column" => child.references[0].column = 0,
            "map-reference-twice" => child.references.push(reference(0)),
            "map-too-many" => {
                parent.rows = rows * 17;
                parent.source_rows = parent.source_rows.repeat(17);
                parent.columns.clear();
            }
            _ => {}
        }
        Ok(table_map::Mapped { tables: vec![parent, child], issues: vec![] })
    }
}

impl table_map_back::Guest for Hostile {
    /// The name of a source row is the names of its parts, one after the other.
    fn apply(
        _ctx: Context,
        rows: u32,
        parts: Vec<table_map_back::Part>,
        current: Vec<Column>,
    ) -> Result<table_map_back::Merged, CallError> {
        let mut names = vec![String::new(); rows as usize];
        for part in &parts {
            let given = texts(&part.rows.columns[0], part.rows.rows as usize, str::to_owned);
            for (row, name) in given.into_iter().enumerate() {
                let source = u32::from_le_bytes(part.source_rows[4 * row..4 * row + 4].try_into().unwrap());
                names[source as usize].push_str(&name.unwrap_or_default());
            }
        }
        let now = texts(&current[0], rows as usize, str::to_owned);
        // A row that is already right is not written.
        let actions = names.iter().zip(&now).map(|(name, now)| u8::from(now.as_ref() != Some(name))).collect();
        let names: Vec<_> = names.into_iter().map(Some).collect();
        Ok(table_map_back::Merged { actions, columns: vec![text_column(0, &names)], issues: vec![] })
    }
}

impl declare::Guest for Hostile {
    fn declare(settings: Vec<Setting>) -> Result<Vec<declare::MapDeclaration>, Vec<Refusal>> {
        let broken =
            settings.iter().any(|setting| matches!(&setting.value, SettingValue::Text(m) if m == "declare-broken"));
        let field = |finops: &str, dataverse: &str, transforms| declare::Field {
            direction: declare::Direction::Both,
            finops: Some(finops.into()),
            dataverse: Some(dataverse.into()),
            transforms,
        };
        let fields = vec![
            field("NAME", if broken { "a b" } else { "name" }, vec![declare::BuiltIn::Truncate(10)]),
            field("GROUP", "groupid.code", vec![]),
        ];
        Ok(vec![declare::MapDeclaration {
            name: "declared".into(),
            legs: vec![declare::Leg {
                finops_entity: "Things".into(),
                dataverse_set: "things".into(),
                finops_filter: String::new(),
                dataverse_filter: String::new(),
                fields,
            }],
        }])
    }
}

fn issue(row: u32, code: &str, args: Vec<String>) -> Issue {
    Issue { row, column: Some(0), severity: Severity::Error, code: code.into(), args }
}

/// The texts of a column, changed; `None` where there is no value.
fn texts(column: &Column, rows: usize, change: impl Fn(&str) -> String) -> Vec<Option<String>> {
    let offset = |row: usize| u32::from_le_bytes(column.offsets[4 * row..4 * row + 4].try_into().unwrap()) as usize;
    (0..rows)
        .map(|row| match column.state.get(row) {
            Some(0 | 1) => None,
            _ => Some(change(std::str::from_utf8(&column.data[offset(row)..offset(row + 1)]).unwrap())),
        })
        .collect()
}

fn text_column(id: u16, cells: &[Option<String>]) -> Column {
    let mut column = Column { id, kind: 5, state: vec![], offsets: vec![0; 4], data: vec![] };
    for cell in cells {
        column.state.push(if cell.is_some() { 2 } else { 0 });
        column.data.extend_from_slice(cell.as_deref().unwrap_or_default().as_bytes());
        column.offsets.extend_from_slice(&(column.data.len() as u32).to_le_bytes());
    }
    column
}

fn forever() -> ! {
    loop {
        std::hint::black_box(());
    }
}

#[expect(unconditional_recursion, reason = "it is meant to run out of stack")]
fn deeper(depth: u64) -> u64 {
    let held = std::hint::black_box([depth; 64]);
    deeper(depth + 1) + held[0]
}
