//! Who is asked and told about row writes, inside their transaction.
//!
//! Owns the moments: whether the caller may, before a row is written, after it was. Knows no plug-in step, no role and no
//! request; what is registered for a table, and for whom a session writes, is for the observers themselves to know.

use std::sync::Arc;

use dualwright_odata::batch::Response;
use uuid::Uuid;

use crate::catalogue::Table;
use crate::session::Session;

/// What a write does to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// What a caller needs to be allowed to do (Dataverse: `prvCreateAccount`, `prvAppendToContact` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Create,
    Write,
    Delete,
    /// To give the row a lookup.
    Append,
    /// To be what a lookup points to.
    AppendTo,
    /// To give the row another owner.
    Assign,
}

/// One question of whether the caller may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    pub table: &'a Arc<Table>,
    pub right: Right,
    /// The row as it is, where there is one: a cell per column.
    pub row: Option<&'a [&'a str]>,
}

/// One row write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowWrite<'a> {
    pub table: &'a Arc<Table>,
    pub operation: Operation,
    /// The primary id; nil in a table that has none.
    pub id: Uuid,
    /// The columns that the request named, equal values included, in the order of the table: what a Target holds. Of a
    /// create they are those that it gave a value.
    pub named: &'a [usize],
    /// The row before, a cell per column; none of a create. This is the pre-image.
    pub before: Option<&'a [&'a str]>,
    /// The row as it is going to be, or after the write as it is; none of a delete. This is the post-image.
    pub after: Option<&'a [&'a str]>,
}

/// Somebody who has a say in row writes. A refusal becomes the answer, and the whole transaction is rolled back.
///
/// Writes that an observer makes through the session are not observed again.
pub(crate) trait Observer {
    /// Whether the message of the request is handed on as a whole, so that it must not be larger than a step takes.
    fn takes_messages(&self) -> bool {
        false
    }

    /// Whether the caller may. Asked before anything of the row is written.
    fn permit(&mut self, _session: &Session<'_>, _access: &Access<'_>) -> Result<(), Response> {
        Ok(())
    }

    /// The row is about to be written (pre-validation and pre-operation).
    fn before(&mut self, _session: &mut Session<'_>, _write: &RowWrite<'_>) -> Result<(), Response> {
        Ok(())
    }

    /// The row was written, and nothing is committed yet (post-operation).
    fn after(&mut self, _session: &mut Session<'_>, _write: &RowWrite<'_>) -> Result<(), Response> {
        Ok(())
    }

    /// The request wrote all of its rows.
    fn complete(&mut self, _session: &mut Session<'_>) -> Result<(), Response> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::session::Refusal;
    use crate::store::{self, Found, Store};
    use crate::{Dialect, catalogue, cell, dataverse, read_tables};

    /// Writes down what it is told, and refuses what it is told to refuse.
    struct Scribe {
        lines: Arc<Mutex<Vec<String>>>,
        refused: &'static str,
    }

    impl Scribe {
        fn line(&self, line: String) -> Result<(), Response> {
            let is_refused = line == self.refused;
            self.lines.lock().expect("lines").push(line);
            if is_refused { Err(dataverse::error(403, "0x80040220", "no")) } else { Ok(()) }
        }

        fn row(&self, moment: &str, session: &Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
            let found = store::find(session.connection(), &write.table.id_key(write.id)).expect("reads");
            let name = |cells: Option<&[&str]>| cells.map_or("-", |cells| cells[1]).to_owned();
            let named = write.named.iter().map(|at| write.table.columns[*at].definition.name.as_str());
            self.line(format!(
                "{moment} {:?} {} named [{}] {} to {}, stored {}",
                write.operation,
                write.table.name(),
                named.collect::<Vec<_>>().join(" "),
                name(write.before),
                name(write.after),
                found.is_some(),
            ))
        }
    }

    impl Observer for Scribe {
        fn permit(&mut self, _: &Session<'_>, access: &Access<'_>) -> Result<(), Response> {
            let row = if access.row.is_some() { " there" } else { "" };
            self.line(format!("{:?} {}{row}?", access.right, access.table.name()))
        }

        fn before(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
            self.row("before", session, write)
        }

        fn after(&mut self, session: &mut Session<'_>, write: &RowWrite<'_>) -> Result<(), Response> {
            self.row("after", session, write)
        }
    }

    const TABLES: &str = r#"{"tables":[{"name":"a","set":"as","columns":[{"name":"aid","type":"guid"},
        {"name":"name","type":"text"},{"name":"parent","type":"lookup","targets":[{"table":"a"}]}]}]}"#;

    fn run(refused: &'static str) -> (Vec<String>, Option<u16>, i64) {
        let faults = Arc::new(crate::fault::Faults::new(Dialect::Dataverse));
        let store = Store::open(Dialect::Dataverse, None, crate::Clock::running(), faults).expect("opens");
        let tables = read_tables(TABLES).expect("reads").tables;
        store
            .define(tables.into_iter().map(|one| catalogue::completed(Dialect::Dataverse, one)).collect())
            .expect("ok");
        let lines = Arc::default();
        let outcome = store.write(true, |session| {
            session.observed_by(vec![Box::new(Scribe { lines: Arc::clone(&lines), refused })]);
            let table = session.catalogue.by_name("a").cloned().expect("table");
            let row = |name: &str| {
                let mut cells = table.empty_row();
                cells[1] = cell::Cell::Owned(cell::quoted(name));
                cells
            };
            let one = session.insert(&table, row("one"))?;
            let mut two = row("two");
            two[2] = cell::Cell::Owned(table.owned_cells(&one.data)[0].to_string());
            session.insert(&table, two)?;
            let again: Found = session.update_named(&table, &one, row_of(&table, &one, "uno"), &[1])?;
            session.delete(&table, &again)
        });
        let status = match outcome {
            Ok(()) => None,
            Err(Refusal::Observed(response)) => Some(response.status),
            Err(other) => panic!("{other:?}"),
        };
        let table = store.catalogue().by_name("a").cloned().expect("table");
        let count = store.read(|connection| store::count(connection, &table)).expect("counts");
        let lines = lines.lock().expect("lines").clone();
        (lines, status, count)
    }

    fn row_of(table: &Table, row: &Found, name: &str) -> Vec<cell::Cell> {
        let mut cells = table.owned_cells(&row.data);
        cells[1] = cell::Cell::Owned(cell::quoted(name));
        cells
    }

    #[test]
    fn observers_are_told_of_every_row_and_can_refuse_it() {
        let (lines, status, count) = run("");
        assert_eq!((status, count), (None, 1));
        assert_eq!(
            lines,
            [
                "Create a?",
                "before Create a named [name] - to \"one\", stored false",
                "after Create a named [name] - to \"one\", stored true",
                "Create a?",
                "Append a?",
                "AppendTo a there?",
                "before Create a named [name parent] - to \"two\", stored false",
                "after Create a named [name parent] - to \"two\", stored true",
                "Write a there?",
                "before Update a named [name] \"one\" to \"uno\", stored true",
                "after Update a named [name] \"one\" to \"uno\", stored true",
                "Delete a there?",
                "before Delete a named [] \"uno\" to -, stored true",
                "Write a there?",
                "before Update a named [parent] \"two\" to \"two\", stored true",
                "after Update a named [parent] \"two\" to \"two\", stored true",
                "after Delete a named [] \"uno\" to -, stored false",
            ]
        );
        // Whatever refuses, nothing of the transaction stays.
        for refused in ["AppendTo a there?", lines[9].clone().leak(), lines[16].clone().leak()] {
            let (lines, status, count) = run(refused);
            assert_eq!((lines.last().map(String::as_str), status, count), (Some(refused), Some(403), 0));
        }
    }
}
