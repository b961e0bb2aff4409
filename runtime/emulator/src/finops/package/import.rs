//! Imports: files of a package become rows of entities.
//!
//! Owns the way of a record from the file to staging (columns, types) and from there to its table, where it is written as
//! any request writes it. A record that is refused is set aside with the reason; those around it are kept.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use dualwright_odata::batch::{Request, Response};
use dualwright_odata::escape::component;

use super::archive::Package;
use super::execution::{self, Counts, Execution, Part, Problem, Stage, Status};
use super::manifest::{self, FieldMap, Manifest};
use super::text::SourceFormat;
use super::xml::{Document, Piece};
use super::{add_detail, add_project, blob, clear_project, csv, entity, export, label, staging_columns, value};
use crate::batch::{self, References, Site};
use crate::catalogue::{Catalogue, Table};
use crate::finops::ROOT;
use crate::finops::refusal::failed;
use crate::{Inner, cell, store};

/// The manifest of a package that has one, and a header with it.
pub(super) fn manifest(package: &mut Package<'_>) -> Result<Manifest, String> {
    let invalid = |name: &str, why: String| format!("The file '{name}' of the data package is not valid. {why}");
    let header = package.file(manifest::HEADER).map_err(|error| error.to_string())?;
    manifest::check_header(&header).map_err(|why| invalid(manifest::HEADER, why))?;
    let bytes = package.file(manifest::MANIFEST).map_err(|error| error.to_string())?;
    let mut manifest = Manifest::decode(&bytes).map_err(|why| invalid(manifest::MANIFEST, why))?;
    manifest.entities.retain(|entity| !entity.is_disabled);
    manifest.entities.sort_by_key(|entity| entity.order);
    Ok(manifest)
}

/// The entities of an import, when all of them can be imported as far as the manifest tells.
pub(super) fn plan(catalogue: &Catalogue, package: &mut Package<'_>, manifest: &Manifest) -> Result<Vec<Part>, String> {
    let parts = manifest.entities.iter().enumerate().map(|(place, entry)| {
        let table = entity(catalogue, &entry.name)?;
        let format =
            SourceFormat::of(&entry.format).ok_or_else(|| export::unknown_format(&entry.format, &entry.name))?;
        if !package.has(&entry.file) {
            return Err(super::archive::PackageError::Missing(entry.file.clone()).to_string());
        }
        if let Some(map) = entry.map.iter().find(|map| field(table, &map.field).is_none()) {
            return Err(format!("The mapping is incorrect for entity {} and field {}.", entry.name, map.field));
        }
        Ok(Part {
            place: i64::try_from(place).unwrap_or(i64::MAX),
            entity: label(table).to_owned(),
            file: entry.file.clone(),
            format: format.to_string(),
            map: entry.map.clone(),
            is_incremental: entry.is_incremental,
            order: entry.order,
            status: Status::NotRun,
        })
    });
    parts.collect()
}

/// The column behind a staging field.
fn field(table: &Table, name: &str) -> Option<usize> {
    (0..table.columns.len()).find(|at| table.columns[*at].property.eq_ignore_ascii_case(name))
}

/// Opens the package of an execution, and makes its project what the package says.
pub(super) fn begin(inner: &Inner, execution: &Execution) -> Result<Vec<Part>, String> {
    let bytes = bytes(inner, execution)?;
    let mut package = Package::open(&bytes).map_err(|error| error.to_string())?;
    let manifest = manifest(&mut package)?;
    let parts = plan(&inner.store.catalogue(), &mut package, &manifest)?;
    let written = inner.store.write(false, |session| {
        if execution.overwrites {
            clear_project(session, &execution.project).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        }
        add_project(session, &execution.project, "Import")?;
        for entry in &manifest.entities {
            add_detail(session, &execution.project, entry)?;
        }
        anyhow::Ok(())
    });
    written.map_err(|error| format!("The data project cannot be written: {error:#}."))?;
    Ok(parts)
}

fn bytes(inner: &Inner, execution: &Execution) -> Result<Vec<u8>, String> {
    let bytes = inner.store.read(|connection| blob::get(connection, inner.clock.now(), &execution.blob));
    bytes.map_err(|error| error.to_string())?.ok_or_else(|| "There is no data package at the package URL.".to_owned())
}

/// One record of a file, by columns of the file.
struct Incoming<'a> {
    line: usize,
    fields: Vec<Cow<'a, str>>,
}

/// Imports the file of one entity.
pub(super) fn run(inner: &Inner, execution: &Execution, part: &Part) -> anyhow::Result<()> {
    let catalogue = inner.store.catalogue();
    let table = entity(&catalogue, &part.entity).map_err(anyhow::Error::msg)?;
    let format = SourceFormat::of(&part.format).with_context(|| format!("the format {} is not known", part.format))?;
    let mut import = Import {
        inner,
        execution,
        table,
        site: Site {
            base: String::new(),
            root: ROOT.to_owned(),
            company: execution.company.clone(),
            caller: None,
            user: None,
            outlet: None,
        },
        counts: Counts::default(),
        rows: 0,
        problems: Vec::new(),
    };
    if let Err(message) = import.file(part, format) {
        import.rows += 1;
        import.counts.failed += 1;
        import.problems.push(Problem { message, ..Problem::default() });
    }
    let Import { counts, rows, problems, .. } = import;
    inner.store.write(false, |session| {
        let connection = session.connection();
        for problem in &problems {
            execution::insert_problem(connection, execution.number, &part.entity, problem)?;
        }
        let status = Status::of_rows(rows, counts.failed);
        execution::finish_part(connection, execution.number, part.place, status, counts)
    })?;
    Ok(())
}

struct Import<'a> {
    inner: &'a Inner,
    execution: &'a Execution,
    table: &'a Arc<Table>,
    site: Site,
    counts: Counts,
    rows: i64,
    problems: Vec<Problem>,
}

/// A response that is a refusal, on its way out of a transaction.
struct Refused(Response);

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self(failed(&error))
    }
}

impl Import<'_> {
    /// The error is one of the whole file.
    fn file(&mut self, part: &Part, format: SourceFormat) -> Result<(), String> {
        let bytes = bytes(self.inner, self.execution)?;
        let mut package = Package::open(&bytes).map_err(|error| error.to_string())?;
        let text = format.decode(&package.file(&part.file).map_err(|error| error.to_string())?)?;
        match format {
            SourceFormat::XmlElement => self.elements(part, &text),
            SourceFormat::Csv | SourceFormat::CsvUnicode => self.records(part, &text),
        }
    }

    fn records(&mut self, part: &Part, text: &str) -> Result<(), String> {
        let mut records = csv::Reader::new(text);
        let header = match records.next() {
            None => return Ok(()),
            Some(Ok(record)) => record,
            Some(Err(broken)) => return Err(format!("The header of the file cannot be read: {}.", broken.message)),
        };
        let columns = self.columns(part, header.fields.iter().map(AsRef::as_ref));
        for record in records {
            self.rows += 1;
            match record {
                Ok(record) if record.fields.len() == columns.len() => {
                    self.record(&columns, &Incoming { line: record.line, fields: record.fields });
                }
                Ok(record) => {
                    let message =
                        format!("The record has {} fields, and the header {}.", record.fields.len(), columns.len());
                    let mut shown = String::new();
                    csv::push_record(&mut shown, record.fields.iter().map(AsRef::as_ref));
                    self.set_aside(record.line, &shown, Stage::Staging, "", "", message);
                }
                Err(broken) => {
                    let message = format!("The record cannot be read: {}.", broken.message);
                    self.set_aside(broken.line, "", Stage::Staging, "", "", message);
                }
            }
        }
        Ok(())
    }

    fn elements(&mut self, part: &Part, text: &str) -> Result<(), String> {
        let mut document = Document::new(text);
        let not_a_file = || "The file does not begin with the element 'Document'.".to_owned();
        loop {
            match document.next()? {
                Some(Piece::Open(_)) => break,
                Some(Piece::Text(text)) if text.trim().is_empty() => {}
                _ => return Err(not_a_file()),
            }
        }
        let mut number = 0;
        while let Some(piece) = document.next()? {
            let Piece::Open(name) = piece else { continue };
            let record = document.element(name)?;
            number += 1;
            self.rows += 1;
            let columns = self.columns(part, record.children.iter().map(|child| child.name.as_str()));
            let fields = record.children.into_iter().map(|child| Cow::Owned(child.text)).collect();
            self.record(&columns, &Incoming { line: number, fields });
        }
        Ok(())
    }

    /// The column of the table behind each column of the file; none for those that are not mapped.
    fn columns<'f>(&self, part: &Part, file: impl Iterator<Item = &'f str>) -> Vec<Option<usize>> {
        let mapped = |column: &str| {
            let column = column.trim();
            if part.map.is_empty() {
                return field(self.table, column);
            }
            let is_its_own = |map: &&FieldMap| map.column.eq_ignore_ascii_case(column);
            part.map.iter().find(is_its_own).and_then(|map| field(self.table, &map.field))
        };
        file.map(mapped).collect()
    }

    fn record(&mut self, columns: &[Option<usize>], record: &Incoming<'_>) {
        let shown = || {
            let mut shown = String::new();
            csv::push_record(&mut shown, record.fields.iter().map(AsRef::as_ref));
            shown
        };
        let keys = {
            let by_column = columns
                .iter()
                .zip(&record.fields)
                .filter_map(|(at, text)| Some(((*at)?, text.as_ref())))
                .collect::<HashMap<_, _>>();
            let keys = self.table.key.iter().filter(|at| Some(**at) != self.table.company);
            let mut out = String::new();
            csv::push_record(&mut out, keys.map(|at| by_column.get(at).copied().unwrap_or_default()));
            out.trim_end_matches("\r\n").to_owned()
        };
        let mut staged: Vec<(usize, String, bool)> = Vec::with_capacity(columns.len());
        for (at, text) in columns.iter().zip(&record.fields) {
            let Some(at) = *at else { continue };
            let column = &self.table.columns[at];
            let field = column.property.to_uppercase();
            if Some(at) == self.table.company {
                // The legal entity is the execution's; a record of another one must not end up in it.
                if !text.is_empty() && !text.trim().eq_ignore_ascii_case(&self.execution.company) {
                    let message = "The record belongs to another legal entity than the import.".to_owned();
                    return self.set_aside(record.line, &shown(), Stage::Staging, &keys, &field, message);
                }
                continue;
            }
            match value::json_of(&column.definition, text) {
                Some(json) => staged.push((at, json, text.is_empty())),
                None => {
                    let message =
                        format!("The value of field '{field}' cannot be converted to the type of the staging field.");
                    return self.set_aside(record.line, &shown(), Stage::Staging, &keys, &field, message);
                }
            }
        }
        self.counts.staged += 1;
        if !self.execution.runs_target {
            return;
        }
        match self.apply(&staged) {
            Ok(true) => self.counts.created += 1,
            Ok(false) => self.counts.updated += 1,
            Err(refusal) => {
                let message = message_of(&refusal);
                let field = self.field_in(&message);
                self.set_aside(record.line, &shown(), Stage::Target, &keys, &field, message);
            }
        }
    }

    /// Writes a staged record in a transaction of its own, as a request would; says whether the row is new.
    fn apply(&self, staged: &[(usize, String, bool)]) -> Result<bool, Response> {
        let table = self.table;
        let written = self.inner.store.write(true, |session| {
            let mut key = table.empty_row();
            let mut has_key = true;
            if let Some(at) = table.company {
                key[at] = cell::quoted(&self.execution.company).into();
            }
            for &at in table.key.iter().filter(|at| Some(**at) != table.company) {
                let json = staged.iter().find(|(own, ..)| *own == at).map_or(cell::NULL, |(_, json, _)| json);
                match table.parse(at, json) {
                    Ok(cell) => key[at] = cell,
                    Err(_) => has_key = false,
                }
            }
            let is_new = !has_key || store::find(session.connection(), &table.row_key(&key))?.is_none();
            let request = self.request(staged, is_new, &key);
            let (response, _) = batch::write(self.inner, &self.site, session, &References::new(), &request);
            if response.status < 400 { Ok(is_new) } else { Err(Refused(response)) }
        });
        written.map_err(|Refused(response)| response)
    }

    fn request(&self, staged: &[(usize, String, bool)], is_new: bool, key: &[cell::Cell]) -> Request {
        let table = self.table;
        let mut body = String::from("{");
        let mut member = |name: &str, json: &str| {
            if body.len() > 1 {
                body.push(',');
            }
            body.push_str(&cell::quoted(name));
            body.push(':');
            body.push_str(json);
        };
        if let Some(at) = table.company.filter(|_| is_new) {
            member(&table.columns[at].property, &cell::quoted(&self.execution.company));
        }
        for (at, json, is_empty) in staged {
            // A field that is empty gets its default, or its number, when the row is created.
            let is_left_out = if is_new { *is_empty } else { table.key.contains(at) };
            if !is_left_out {
                member(&table.columns[*at].property, json);
            }
        }
        body.push('}');
        let path = if is_new { String::new() } else { format!("({})", component(&table.shown_key(key))) };
        Request {
            method: if is_new { "POST" } else { "PATCH" }.to_owned(),
            url: format!("{ROOT}/{}{path}?cross-company=true", table.set()),
            headers: vec![("Prefer".into(), "return=minimal".into())],
            body: body.into_bytes(),
            content_id: None,
        }
    }

    fn set_aside(&mut self, line: usize, record: &str, stage: Stage, keys: &str, field: &str, message: String) {
        self.counts.failed += 1;
        self.problems.push(Problem {
            stage,
            line: i64::try_from(line).unwrap_or(i64::MAX),
            record: record.trim_end_matches("\r\n").to_owned(),
            keys: keys.to_owned(),
            field: field.to_owned(),
            message,
        });
    }

    /// The field that a message of the write path names.
    fn field_in(&self, message: &str) -> String {
        let named = staging_columns(self.table)
            .map(|at| &self.table.columns[at].property)
            .find(|property| message.contains(&format!(".{property}'")) || message.contains(&format!("'{property}'")));
        named.map_or_else(String::new, |property| property.to_uppercase())
    }
}

/// What an error body says.
fn message_of(refusal: &Response) -> String {
    let body: serde_json::Value = serde_json::from_slice(&refusal.body).unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(serde_json::Value::as_str).map(str::to_owned);
    text("/error/innererror/message")
        .or_else(|| text("/error/message"))
        .unwrap_or_else(|| "The record was refused.".into())
}
