//! Everything that a link left in the store: given out as lines of JSON, and taken away.
//!
//! Owns the way of any row to JSON and back out of the file. It asks the file itself which tables there are, so a table
//! that a later version adds is given out and taken away too.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::folder::private_file;
use super::sql::Failure;
use super::{NewActivity, Scope, ledger};

/// What stays when a link ends: the log, so that it goes on when the link is made again, the numbers of its lines, and
/// what is known of the link itself.
const KEPT: &[&str] = &["activity", "sequence", "link_record"];

/// Lines that were written, by the table that they come from. Order is that of the tables' names.
pub type Exported = Vec<(String, u64)>;

/// The tables whose rows belong to links.
fn tables(connection: &Connection) -> Result<Vec<String>, Failure> {
    let tables = connection
        .prepare(
            "SELECT name FROM sqlite_schema AS own WHERE type = 'table'
             AND 2 = (SELECT count(*) FROM pragma_table_info(own.name) WHERE name IN ('tenant', 'link'))
             ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(tables)
}

/// Writes `TABLE.jsonl` into `folder` for every table that has rows of the link, a row a line. The files are on the disk
/// when this returns.
pub(super) fn export(connection: &Connection, scope: &Scope, folder: &Path) -> Result<Exported, Failure> {
    let mut exported = Exported::new();
    for table in tables(connection)? {
        let file = folder.join(format!("{}.jsonl", table.replace('_', "-")));
        let lines = export_table(connection, scope, &table, &file)?;
        if lines > 0 {
            exported.push((table, lines));
        }
    }
    Ok(exported)
}

fn export_table(connection: &Connection, scope: &Scope, table: &str, path: &Path) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::Refused(format!("{} cannot be written: {error}", path.display()));
    // In the order of the key, which begins with tenant and link.
    let mut statement = connection.prepare(&format!("SELECT * FROM {table} WHERE tenant = ?1 AND link = ?2"))?;
    let names = statement.column_names().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut rows = statement.query((&scope.tenant, &scope.link))?;
    let mut file: Option<BufWriter<File>> = None;
    let mut lines = 0;
    while let Some(row) = rows.next()? {
        let mut line = Map::new();
        for (index, name) in names.iter().enumerate() {
            line.insert(name.clone(), json_of(name, row.get_ref(index)?));
        }
        if file.is_none() {
            file = Some(BufWriter::new(private_file(path).map_err(failed)?));
        }
        if let Some(file) = &mut file {
            serde_json::to_writer(&mut *file, &Value::Object(line)).map_err(|error| failed(error.into()))?;
            file.write_all(b"\n").map_err(failed)?;
        }
        lines += 1;
    }
    if let Some(file) = file {
        file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    }
    Ok(lines)
}

/// Sixteen bytes that are an id are written as one, and a captured change as the JSON that it is; other bytes in
/// hexadecimal digits.
fn json_of(column: &str, value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => {
            let is_id = column.ends_with("_id") || column == "last_transaction";
            if let (true, Ok(id)) = (is_id, Uuid::from_slice(bytes)) {
                return id.to_string().into();
            }
            if column == "payload"
                && let Ok(change) = serde_json::from_slice(bytes)
            {
                return change;
            }
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
        }
    }
}

/// Takes away what a link has in the store, except what stays, and leaves a line in the log.
pub(super) fn erase(connection: &Connection, scope: &Scope, line: &NewActivity) -> Result<(), Failure> {
    for table in tables(connection)?.iter().filter(|table| !KEPT.contains(&table.as_str())) {
        connection
            .execute(&format!("DELETE FROM {table} WHERE tenant = ?1 AND link = ?2"), (&scope.tenant, &scope.link))?;
    }
    ledger::log(connection, scope, std::slice::from_ref(line))
}

/// What is kept of the link itself, as JSON.
pub(super) fn record(connection: &Connection, scope: &Scope) -> Result<Option<String>, Failure> {
    use rusqlite::OptionalExtension;
    let record = connection
        .prepare_cached("SELECT record FROM link_record WHERE tenant = ?1 AND link = ?2")?
        .query_row((&scope.tenant, &scope.link), |row| row.get(0))
        .optional()?;
    Ok(record)
}

pub(super) fn put_record(
    connection: &Connection,
    scope: &Scope,
    record: &str,
    lines: &[NewActivity],
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO link_record (tenant, link, record) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET record = excluded.record",
        )?
        .execute((&scope.tenant, &scope.link, record))?;
    ledger::log(connection, scope, lines)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One row for a link in every table there is, whatever its columns are.
    fn fill(connection: &Connection, link: &str) {
        for table in tables(connection).expect("tables") {
            let columns = connection
                .prepare(&format!("SELECT name, type FROM pragma_table_info('{table}')"))
                .and_then(|mut statement| {
                    statement
                        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                        .collect::<Result<Vec<(String, String)>, _>>()
                })
                .expect("columns");
            let cells = columns.iter().map(|(name, kind)| match (name.as_str(), kind.as_str()) {
                ("tenant", _) => "'t'".to_owned(),
                ("link", _) => format!("'{link}'"),
                ("payload", _) => "CAST('[{\"s\":\"accounts\"}]' AS BLOB)".to_owned(),
                (_, "BLOB") => "zeroblob(16)".to_owned(),
                (_, "INTEGER") => "7".to_owned(),
                _ => "'x'".to_owned(),
            });
            let sql = format!("INSERT INTO {table} VALUES ({})", cells.collect::<Vec<_>>().join(", "));
            connection.execute(&sql, []).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    #[test]
    fn every_table_is_given_out_and_taken_away_for_one_link_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = super::super::schema::open(&folder.path().join("store.sqlite"), true).expect("opens");
        fill(&connection, "own");
        fill(&connection, "other");
        let scope = Scope { tenant: "t".into(), link: "own".into() };
        let exported = export(&connection, &scope, folder.path()).expect("exports");
        let all = tables(&connection).expect("tables");
        assert!(all.len() >= 12 && all.iter().any(|table| table == "outbox"), "{all:?}");
        assert_eq!(exported, all.iter().map(|table| (table.clone(), 1)).collect::<Vec<_>>());
        let text = std::fs::read_to_string(folder.path().join("outbox.jsonl")).expect("reads");
        let line: Value = serde_json::from_str(&text).expect("one line of JSON");
        assert_eq!(line["link"], "own");
        assert_eq!(line["payload"][0]["s"], "accounts", "a captured change is readable");
        assert_eq!(line["transaction_id"], "00000000-0000-0000-0000-000000000000");
        let text = std::fs::read_to_string(folder.path().join("cross-reference.jsonl")).expect("reads");
        assert!(text.contains("\"finops_hash\":\"00000000000000000000000000000000\""), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode =
                std::fs::metadata(folder.path().join("failed-payload.jsonl")).expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "rows of both systems are nobody else's business");
        }

        let line = NewActivity { at: 1, map: None, kind: "link-reset", text: "gone".to_owned() };
        erase(&connection, &scope, &line).expect("erases");
        let count = |table: &str, link: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table} WHERE tenant = 't' AND link = ?1");
            connection.query_row(&sql, [link], |row| row.get(0)).expect("counts")
        };
        let left = all.iter().filter(|table| count(table, "own") > 0).map(String::as_str).collect::<BTreeSet<_>>();
        assert_eq!(left, KEPT.iter().copied().collect());
        assert_eq!(count("activity", "own"), 2, "the log has one line more");
        assert!(all.iter().all(|table| count(table, "other") == 1), "another link keeps what it has");
    }
}
