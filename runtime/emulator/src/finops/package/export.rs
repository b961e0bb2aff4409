//! Exports: rows of entities become files of a package.
//!
//! Owns which rows are taken and how they are written. An entity is read in one snapshot of the store.

use std::sync::Arc;

use anyhow::Context;
use rusqlite::{Connection, params};

use super::execution::{self, Counts, Execution, Part, Status};
use super::manifest::{self, EntityEntry, FieldMap, Manifest};
use super::text::SourceFormat;
use super::xml::push_element;
use super::{archive, blob, csv, entity, label, project_entries, staging_columns, target_name, value};
use crate::Inner;
use crate::catalogue::{Catalogue, Table};
use crate::finops::tracking::{self, Since};
use crate::{cell, store};

/// The entities of an export.
pub(super) fn plan(connection: &Connection, catalogue: &Catalogue, execution: &Execution) -> Result<Vec<Part>, String> {
    let entries = project_entries(connection, catalogue, &execution.project).map_err(|error| error.to_string())?;
    let parts = entries.into_iter().enumerate().map(|(place, entry)| {
        let table = entity(catalogue, &entry.name)?;
        let format = SourceFormat::of(&entry.format).ok_or_else(|| unknown_format(&entry.format, label(table)))?;
        Ok(Part {
            place: i64::try_from(place).unwrap_or(i64::MAX),
            entity: label(table).to_owned(),
            file: file_name(label(table), format),
            format: format.to_string(),
            map: staging_columns(table)
                .map(|at| {
                    let field = table.columns[at].property.to_uppercase();
                    FieldMap { column: field.clone(), field }
                })
                .collect(),
            is_incremental: entry.is_incremental || execution.is_delta,
            order: entry.order,
            status: Status::NotRun,
        })
    });
    parts.collect()
}

pub(super) fn unknown_format(format: &str, entity: &str) -> String {
    format!("The source data format {format} of entity {entity} is not supported.")
}

/// A label as the name of a file: characters that no file name can have are left out, as F&O does.
fn file_name(label: &str, format: SourceFormat) -> String {
    let name = label.replace(['\\', '/', ':', '*', '?', '"', '<', '>', '|'], "");
    format!("{}.{}", name.trim(), format.extension())
}

/// Writes the file of one entity, and keeps it packed with the execution.
pub(super) fn run(inner: &Inner, execution: &Execution, part: &Part) -> anyhow::Result<()> {
    let catalogue = inner.store.catalogue();
    let table = entity(&catalogue, &part.entity).map_err(anyhow::Error::msg)?;
    let format = SourceFormat::of(&part.format).with_context(|| format!("the format {} is not known", part.format))?;
    let (text, rows, version) = inner.store.read(|connection| {
        let version = store::setting(connection, "counter")?.unwrap_or(0);
        let since = if part.is_incremental {
            tracking::since(connection, &execution.project, table, &execution.company)?
        } else {
            None
        };
        let (text, rows) = file(connection, execution, table, format, since.as_ref())?;
        Ok::<_, rusqlite::Error>((text, rows, version))
    })?;
    let packed = archive::pack([(part.file.as_str(), format.encode(&text).as_slice())])?;
    inner.store.write(false, |session| {
        let connection = session.connection();
        connection.execute(
            "UPDATE execution_entity SET data = ?3, version = ?4 WHERE execution = ?1 AND place = ?2",
            params![execution.number, part.place, packed, version],
        )?;
        let counts = Counts { staged: rows, created: rows, ..Counts::default() };
        execution::finish_part(connection, execution.number, part.place, Status::Succeeded, counts)
    })?;
    Ok(())
}

/// The file of an entity as text, with how many rows are in it.
fn file(
    connection: &Connection,
    execution: &Execution,
    table: &Arc<Table>,
    format: SourceFormat,
    since: Option<&Since>,
) -> rusqlite::Result<(String, i64)> {
    let columns = staging_columns(table).collect::<Vec<_>>();
    let fields = columns.iter().map(|at| table.columns[*at].property.to_uppercase()).collect::<Vec<_>>();
    let company = cell::quoted(&execution.company);
    let element = target_name(table).to_uppercase();
    let mut out = String::new();
    let mut rows = 0;
    match format {
        SourceFormat::XmlElement => out.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<Document>\r\n"),
        SourceFormat::Csv | SourceFormat::CsvUnicode => {
            csv::push_record(&mut out, fields.iter().map(String::as_str));
        }
    }
    store::scan(connection, table, 0, i64::MAX, false, &mut |id, version, data| {
        let mut cells = Vec::with_capacity(table.columns.len());
        table.cells(data, &mut cells);
        let is_wanted = table.company.is_none_or(|at| cells[at] == company)
            && match since {
                None => true,
                Some(since) => since.holds(connection, id, version)?,
            }
            && (execution.rows_max == 0 || rows < execution.rows_max);
        if !is_wanted {
            return Ok(execution.rows_max == 0 || rows < execution.rows_max);
        }
        rows += 1;
        let start = out.len();
        match format {
            SourceFormat::XmlElement => {
                out.push('<');
                out.push_str(&element);
                out.push('>');
                for (at, field) in columns.iter().zip(&fields) {
                    push_element(&mut out, field, &value::text_of(&table.columns[*at].definition, cells[*at]));
                }
                out.push_str("</");
                out.push_str(&element);
                out.push_str(">\r\n");
            }
            SourceFormat::Csv | SourceFormat::CsvUnicode => {
                for (number, at) in columns.iter().enumerate() {
                    if number > 0 {
                        out.push(',');
                    }
                    csv::push_field(&mut out, &value::text_of(&table.columns[*at].definition, cells[*at]));
                }
                if out.len() == start {
                    out.push_str("\"\"");
                }
                out.push_str("\r\n");
            }
        }
        Ok(true)
    })?;
    if format == SourceFormat::XmlElement {
        out.push_str("</Document>\r\n");
    }
    Ok((out, rows))
}

/// Puts the files together, when all are there.
pub(super) fn finish(inner: &Inner, execution: &Execution, parts: &[Part]) -> anyhow::Result<()> {
    let catalogue = inner.store.catalogue();
    let entry = |part: &Part| {
        let table = entity(&catalogue, &part.entity).ok();
        EntityEntry {
            name: part.entity.clone(),
            target: table.map_or_else(String::new, |table| target_name(table).to_owned()),
            format: part.format.clone(),
            file: part.file.clone(),
            is_incremental: part.is_incremental,
            is_disabled: false,
            order: part.order,
            map: part.map.clone(),
        }
    };
    let whole = Manifest {
        project: execution.project.clone(),
        description: execution.package.clone(),
        entities: parts.iter().map(entry).collect(),
    };
    let documents = archive::pack([
        (manifest::MANIFEST, whole.encode().as_slice()),
        (manifest::HEADER, manifest::header(&execution.package).as_slice()),
    ])?;
    let mut packages = vec![documents];
    inner.store.read(|connection| {
        let mut statement = connection.prepare_cached(
            "SELECT data FROM execution_entity WHERE execution = ?1 AND data IS NOT NULL ORDER BY place",
        )?;
        for data in statement.query_map([execution.number], |row| row.get(0))? {
            packages.push(data?);
        }
        Ok::<_, rusqlite::Error>(())
    })?;
    let package = archive::join(packages.iter().map(Vec::as_slice))?;
    inner.store.write(false, |session| {
        blob::put(session, &execution.blob, &package)?;
        let connection = session.connection();
        for part in parts {
            let version: Option<i64> = connection.query_row(
                "SELECT version FROM execution_entity WHERE execution = ?1 AND place = ?2",
                [execution.number, part.place],
                |row| row.get(0),
            )?;
            // A preview leaves everything as it was.
            if let (Some(version), Ok(table), 0) = (version, entity(&catalogue, &part.entity), execution.rows_max) {
                tracking::advance(connection, &execution.project, table, &execution.company, version)?;
            }
        }
        connection.execute("UPDATE execution_entity SET data = NULL WHERE execution = ?1", [execution.number])?;
        Ok::<_, rusqlite::Error>(())
    })?;
    Ok(())
}
