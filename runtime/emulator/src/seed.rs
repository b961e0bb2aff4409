//! Tables and rows for an emulator, from files or over HTTP.
//!
//! Owns what a seed is made of and what is wrong with it: every refusal names the file, the line and the column. Rows of one
//! seed are added all or none; a row whose key is there already gets the named columns.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::body::{Members, seed_cells, seeded_column};
use crate::catalogue::Table;
use crate::cell::{Cell, Unfit};
use crate::definition::{ColumnKind, TableDefinition, TableFile, read_tables};
use crate::{Dialect, Emulator, Inner, schema};

/// What to seed: tables first, then rows.
#[derive(Debug, Default)]
pub struct SeedPlan {
    tables: Vec<Source>,
    rows: Vec<RowSource>,
}

/// A text with its name in messages.
#[derive(Debug)]
struct Source {
    name: String,
    text: String,
}

#[derive(Debug)]
enum RowSource {
    /// `{"set": [row, …]}`.
    Json(Source),
    Csv(String, Source),
}

/// What was seeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SeedReport {
    pub tables: usize,
    /// Rows by set.
    pub rows: BTreeMap<String, usize>,
}

/// The body of `POST /_emulator/seed`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    tables: Option<Box<RawValue>>,
    #[serde(default)]
    enums: Option<Box<RawValue>>,
    #[serde(default)]
    schemas: Vec<Box<RawValue>>,
    #[serde(default)]
    rows: Option<Box<RawValue>>,
    /// CSV text by set.
    #[serde(default)]
    csv: BTreeMap<String, String>,
}

/// Files that one folder of schemas may hold, in all its folders.
const FILES_MAX: usize = 10_000;

impl SeedPlan {
    /// Reads `{"tables": […], "enums": […], "schemas": [{…}], "rows": {"set": [{…}]}, "csv": {"set": "…"}}`.
    pub fn from_json(name: &str, json: &str) -> anyhow::Result<Self> {
        let written: Written = serde_json::from_str(json).with_context(|| format!("{name} is not a seed"))?;
        let source = |part: &str, text: String| Source { name: format!("{name}, {part}"), text };
        let mut plan = Self::default();
        if let Some(tables) = written.tables {
            let enums = written.enums.map_or_else(|| "[]".to_owned(), |enums| enums.get().to_owned());
            plan.tables.push(source("tables", format!("{{\"tables\":{},\"enums\":{enums}}}", tables.get())));
        }
        for (number, schema) in written.schemas.into_iter().enumerate() {
            plan.tables.push(source(&format!("schema {}", number + 1), schema.get().to_owned()));
        }
        if let Some(rows) = written.rows {
            plan.rows.push(RowSource::Json(source("rows", rows.get().to_owned())));
        }
        for (set, text) in written.csv {
            plan.rows.push(RowSource::Csv(set.clone(), source(&format!("csv {set}"), text)));
        }
        Ok(plan)
    }

    /// Adds the tables of a file: definitions (`{"tables": […]}`) or one schema.
    pub fn tables_file(&mut self, path: &Path) -> anyhow::Result<()> {
        self.tables.push(read(path)?);
        Ok(())
    }

    /// Adds the schemas of a file, or of a folder and the folders in it that are of the system; other files are passed over.
    pub fn schemas(&mut self, dialect: Dialect, path: &Path) -> anyhow::Result<()> {
        if !path.is_dir() {
            return self.tables_file(path);
        }
        let mut folders = vec![path.to_owned()];
        let mut found = 0;
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
            let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
            paths.sort();
            for path in paths {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                if path.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                let source = read(&path)?;
                let json: serde_json::Value =
                    serde_json::from_str(&source.text).map_err(|error| source.wrong_json(&error))?;
                if !schema::is_schema(&json) || json["system"] != dialect.name() {
                    continue;
                }
                found += 1;
                anyhow::ensure!(found <= FILES_MAX, "{} holds more than {FILES_MAX} schemas", folder.display());
                self.tables.push(source);
            }
        }
        anyhow::ensure!(found > 0, "{} holds no schemas of {}", path.display(), dialect.name());
        Ok(())
    }

    /// Adds the rows of a file `{"set": [row, …]}`.
    pub fn rows_file(&mut self, path: &Path) -> anyhow::Result<()> {
        self.rows.push(RowSource::Json(read(path)?));
        Ok(())
    }

    /// Adds the rows of a CSV file whose first line names properties.
    pub fn csv_file(&mut self, set: &str, path: &Path) -> anyhow::Result<()> {
        self.rows.push(RowSource::Csv(set.to_owned(), read(path)?));
        Ok(())
    }

    pub(crate) fn apply(&self, inner: &Inner) -> anyhow::Result<SeedReport> {
        let dialect = inner.store.dialect;
        let mut report = SeedReport::default();
        let mut definitions = Vec::new();
        for source in &self.tables {
            definitions.extend(source.definitions(dialect)?);
        }
        report.tables = definitions.len();
        let definitions = definitions.into_iter().map(|table| crate::catalogue::completed(dialect, table)).collect();
        inner.define(definitions)?;
        inner.store.write(false, |session| {
            let catalogue = Arc::clone(&session.catalogue);
            let table_of = |set: &str, source: &Source| {
                catalogue.by_set(set).with_context(|| format!("{}: there is no set {set}", source.name))
            };
            for rows in &self.rows {
                match rows {
                    RowSource::Csv(set, source) => {
                        let table = table_of(set, source)?;
                        let count = source.each_csv_row(table, &mut |at, cells| {
                            seed_cells(session, table, cells).with_context(|| format!("{}:{at}", source.name))
                        })?;
                        *report.rows.entry(set.clone()).or_default() += count;
                    }
                    RowSource::Json(source) => {
                        let sets: BTreeMap<String, Vec<&RawValue>> =
                            serde_json::from_str(&source.text).map_err(|error| source.wrong_json(&error))?;
                        for (set, rows) in sets {
                            let table = table_of(&set, source)?;
                            for row in &rows {
                                let cells = source.json_row(table, row)?;
                                seed_cells(session, table, cells).with_context(|| source.place(row.get()))?;
                            }
                            *report.rows.entry(set).or_default() += rows.len();
                        }
                    }
                }
            }
            anyhow::Ok(report)
        })
    }
}

impl Emulator {
    /// Adds tables, then rows, the rows all or none; outside of feed and audit.
    pub fn apply_seed(&self, plan: &SeedPlan) -> anyhow::Result<SeedReport> {
        plan.apply(&self.inner)
    }
}

fn read(path: &Path) -> anyhow::Result<Source> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    // Spreadsheets put a mark before the first letter.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(Source { name, text })
}

impl Source {
    fn definitions(&self, dialect: Dialect) -> anyhow::Result<Vec<TableDefinition>> {
        let json: serde_json::Value = serde_json::from_str(&self.text).map_err(|error| self.wrong_json(&error))?;
        if schema::is_schema(&json) {
            return Ok(vec![schema::read_schema(dialect, &self.text).with_context(|| self.name.clone())?]);
        }
        // Read once more for the line and column of what does not fit.
        serde_json::from_str::<TableFile>(&self.text).map_err(|error| self.wrong_json(&error))?;
        Ok(read_tables(&self.text).with_context(|| self.name.clone())?.tables)
    }

    fn wrong_json(&self, error: &serde_json::Error) -> anyhow::Error {
        let said = error.to_string();
        let what = said.split(" at line ").next().unwrap_or_default();
        anyhow!("{}:{}:{}: {what}", self.name, error.line(), error.column())
    }

    /// `rows.json:3:17` of a part of this text.
    fn place(&self, part: &str) -> String {
        let offset = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    fn json_row(&self, table: &Table, row: &RawValue) -> anyhow::Result<Vec<(usize, Cell)>> {
        let members = Members::parse(row.get().as_bytes())
            .map_err(|_| anyhow!("{}: a row of {} has to be an object", self.place(row.get()), table.set()))?;
        let mut cells = Vec::with_capacity(members.0.len());
        for (name, json) in &members.0 {
            if name.starts_with('@') {
                continue;
            }
            let place = || format!("{}: {name}", self.place(json));
            let at = seeded_column(table, name)
                .with_context(|| format!("{}: {} has no such column", place(), table.set()))?;
            let cell = table.parse(at, json).map_err(|unfit| anyhow!("{}: {}", place(), said(&unfit)))?;
            cells.push((at, cell));
        }
        Ok(cells)
    }

    /// Calls `each` with the line and the cells of every row.
    fn each_csv_row(
        &self,
        table: &Table,
        each: &mut dyn FnMut(u64, Vec<(usize, Cell)>) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(self.text.as_bytes());
        let mut record = csv::StringRecord::new();
        let mut columns = Vec::new();
        let mut count = 0;
        loop {
            match reader.read_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return Ok(count),
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    bail!("{}:{line}: {}", self.name, csv_error(&error));
                }
            }
            let line = record.position().map_or(0, csv::Position::line);
            if columns.is_empty() {
                for (number, name) in record.iter().enumerate() {
                    let at = seeded_column(table, name.trim()).with_context(|| {
                        format!("{}:{line}: column {}: {} has no column {name:?}", self.name, number + 1, table.set())
                    })?;
                    columns.push(at);
                }
                continue;
            }
            let mut cells = Vec::with_capacity(columns.len());
            for (number, (at, text)) in columns.iter().zip(record.iter()).enumerate() {
                let column = &table.columns[*at];
                let cell = match json_of(column.definition.kind, text) {
                    Some(json) => table.parse(*at, &json).map_err(|unfit| said(&unfit)),
                    None => Err("it is no number".to_owned()),
                };
                let cell = cell.map_err(|what| {
                    anyhow!("{}:{line}: column {} ({}): {what}", self.name, number + 1, column.property)
                })?;
                cells.push((*at, cell));
            }
            each(line, cells)?;
            count += 1;
        }
    }
}

fn csv_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the line has {len} fields, and the first line {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "the line is not UTF-8".to_owned(),
        _ => "the line cannot be read".to_owned(),
    }
}

/// The JSON value that a text in a table stands for; `None` when it cannot stand for one. Nothing is no value.
fn json_of(kind: ColumnKind, text: &str) -> Option<String> {
    let quoted = |text: &str| Some(crate::cell::quoted(text));
    if text.is_empty() {
        return Some("null".to_owned());
    }
    match kind {
        ColumnKind::Int
        | ColumnKind::Bigint
        | ColumnKind::Decimal
        | ColumnKind::Money
        | ColumnKind::Double
        | ColumnKind::Choice => {
            // Databases write a number below one without its zero.
            let text = text.trim();
            let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
            let zero = if digits.starts_with('.') { "0" } else { "" };
            let number = format!("{sign}{zero}{digits}");
            serde_json::from_str::<serde_json::Number>(&number).ok().map(|_| number)
        }
        ColumnKind::Boolean => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some("true".to_owned()),
            "false" | "no" | "0" => Some("false".to_owned()),
            _ => quoted(text),
        },
        // `2024-01-02 03:04:05` is what databases and spreadsheets write.
        ColumnKind::Datetime if text.as_bytes().get(10) == Some(&b' ') && text.is_char_boundary(11) => {
            quoted(&format!("{}T{}Z", &text[..10], &text[11..]))
        }
        _ => quoted(text),
    }
}

/// What does not fit, without the value.
fn said(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Type(expected) => format!("it has to be {expected}"),
        Unfit::TooLong(longest) => format!("it is longer than {longest} characters"),
        Unfit::OutOfRange { minimum, maximum, .. } => format!("it has to be from {minimum} to {maximum}"),
        Unfit::Option(_) => "it is none of the options".to_owned(),
    }
}
