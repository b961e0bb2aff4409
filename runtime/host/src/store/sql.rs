//! How our types stand in SQLite, and how its failures become ours.

use std::sync::Arc;

use dualwright_core::{Code, Fault, RowKey, SystemKind, TransactionId};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, Error, Row};
use uuid::Uuid;

use super::Scope;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(Error),
    /// The store works; the request is not one that it takes.
    Refused(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    pub(super) fn into_fault(self, what: &str) -> Fault {
        match self {
            Self::Sqlite(error) => failed(format!("{what}: {error}")),
            Self::Refused(why) => failed(format!("{what}: {why}")),
        }
    }
}

pub(super) fn failed(message: String) -> Fault {
    Fault::new(Code::StoreFailed, message)
}

/// Gives out `count` numbers that follow each other; answers the first. Numbers begin at 1.
pub(super) fn take_numbers(connection: &Connection, scope: &Scope, name: &str, count: usize) -> Result<i64, Error> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let last: i64 = connection
        .prepare_cached(
            "INSERT INTO sequence (tenant, link, name, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = value + excluded.value RETURNING value",
        )?
        .query_row((&scope.tenant, &scope.link, name, count), |row| row.get(0))?;
    Ok(last - count + 1)
}

pub(super) fn id_of(row: &Row<'_>, index: usize) -> Result<Option<Uuid>, Error> {
    Ok(row.get::<_, Option<[u8; 16]>>(index)?.map(Uuid::from_bytes))
}

pub(super) fn transaction_of(row: &Row<'_>, index: usize) -> Result<TransactionId, Error> {
    Ok(TransactionId(Uuid::from_bytes(row.get(index)?)))
}

pub(super) fn text_of(row: &Row<'_>, index: usize) -> Result<Arc<str>, Error> {
    Ok(Arc::from(row.get_ref(index)?.as_str()?))
}

pub(super) fn key_of(row: &Row<'_>, index: usize) -> Result<RowKey, Error> {
    Ok(RowKey::from_stored(row.get_ref(index)?.as_str()?))
}

pub(super) fn system_of(row: &Row<'_>, index: usize) -> Result<SystemKind, Error> {
    let name = row.get_ref(index)?.as_str()?;
    SystemKind::from_name(name).ok_or_else(|| unknown(index, &format!("there is no system {name}")))
}

/// A fault from its four columns, beginning at `index`; the code decides whether there is one.
pub(super) fn fault_of(row: &Row<'_>, index: usize) -> Result<Option<Fault>, Error> {
    let Some(number) = row.get::<_, Option<u16>>(index)? else { return Ok(None) };
    // A code that a later program wrote.
    let code = Code::ALL.iter().copied().find(|code| *code as u16 == number).unwrap_or(Code::Internal);
    Ok(Some(Fault {
        code,
        message: row.get(index + 1)?,
        column: row.get(index + 2)?,
        foreign_code: row.get(index + 3)?,
    }))
}

pub(super) fn count_of(row: &Row<'_>, index: usize) -> Result<u64, Error> {
    let count: i64 = row.get(index)?;
    u64::try_from(count).map_err(|_| Error::IntegralValueOutOfRange(index, count))
}

pub(super) fn unknown(index: usize, what: &str) -> Error {
    Error::FromSqlConversionFailure(index, Type::Text, Box::new(FromSqlError::Other(what.into())))
}

/// Counts are far below the limit of SQLite's integers.
pub(super) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
