//! The two systems over OData: reading pages, rows and feeds, and writing change sets.
//!
//! Owns requests and their outcomes; knows nothing of maps, plugins or the store. The dialects differ in spelling
//! only, so there is one [`System`] with a file of spelling per dialect ([`dataverse`], [`finops`]).

mod batch;
mod bulk;
mod count;
pub mod dataverse;
pub mod finops;
mod http;
mod load;
pub mod metadata;
mod package;
mod probe;
mod row_json;
mod standing;
mod write;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dualwright_core::{Class, Code, Fault, Schema, SystemKind, TransactionId, Value};
use dualwright_odata::escape;
use reqwest::Method;
use serde_json::value::RawValue;
use uuid::Uuid;

use batch::{Part, PartAnswer};
pub use bulk::TRANSACTION_ROWS_MAX;
use http::{Client, Failure, Purpose};
pub use http::{ClientCredentials, Endpoint};
pub use package::OwnTable;
pub use probe::{Probe, Probed};
pub use row_json::{DecodedRow, RowShape};
pub use standing::{Company, Depth, Hello, Identity, Privileges, TablePrivilege, TableStanding};
pub use write::{Fence, WriteOutcome, WrittenRow};

/// Operations that one `$batch` may hold on Dataverse (reference 7.4); F&O is kept to the same.
const BATCH_OPERATIONS_MAX: usize = dualwright_odata::batch::OPERATIONS_MAX;

/// Row operations that fit one change set beside its receipt and its fence.
pub const CHANGE_SET_ROWS_MAX: usize = BATCH_OPERATIONS_MAX - 2;

/// One table as this runtime uses it: only the columns that some map reads or writes.
#[derive(Debug)]
pub struct Table {
    pub schema: Arc<Schema>,
    pub shape: RowShape,
}

impl Table {
    #[must_use]
    pub fn new(schema: Arc<Schema>) -> Self {
        Self { shape: RowShape::new(Arc::clone(&schema)), schema }
    }
}

/// Which row.
#[derive(Debug, Clone, PartialEq)]
pub enum Address {
    /// By its id (Dataverse).
    Id(Uuid),
    /// By its key columns and their values: all key fields (F&O), or the columns of an alternate key (Dataverse).
    Key(Vec<(Arc<str>, Value)>),
}

/// A row as a system holds it.
#[derive(Debug, Clone)]
pub struct StoredRow {
    pub id: Option<Uuid>,
    pub version: Arc<str>,
    pub values: Vec<Value>,
}

/// What to do with one row. A version is an etag as the system gave it.
#[derive(Debug, Clone)]
pub enum Action {
    /// Must be new; on Dataverse with an id that we chose, so that later operations of the change set can refer to it.
    Create { id: Option<Uuid> },
    /// Must exist; with a version, must be that version.
    Update { version: Option<Arc<str>> },
    /// Must exist; with a version, must be that version.
    Delete { version: Option<Arc<str>> },
}

/// One row operation of a change set.
#[derive(Debug, Clone)]
pub struct WriteOperation {
    pub table: Arc<Table>,
    pub address: Address,
    pub action: Action,
    /// Column index in the schema of `table`, and the value to write.
    pub values: Vec<(usize, Value)>,
    /// Lookup columns that may lead to several tables, and the entity set of the row that each leads to.
    pub sets: Vec<(usize, Arc<str>)>,
}

/// A row as a page or feed carried it, still in its own JSON.
#[derive(Debug)]
pub struct RawRow {
    pub json: Box<RawValue>,
}

/// One page of a table.
#[derive(Debug)]
pub struct Page {
    pub rows: Vec<RawRow>,
    pub next: Option<String>,
}

/// One system of a link.
#[derive(Debug)]
pub struct System {
    kind: SystemKind,
    client: Client,
}

impl System {
    pub fn new(kind: SystemKind, endpoint: Endpoint) -> Result<Self, Fault> {
        Ok(Self { kind, client: Client::new(kind.name(), endpoint)? })
    }

    #[must_use]
    pub const fn kind(&self) -> SystemKind {
        self.kind
    }

    /// A GET that must succeed, whose answer is there for whoever asks for a table: an unknown one is misconfigured.
    async fn get(&self, url: &str, prefer: Option<&str>, timeout: Duration) -> Result<Bytes, Fault> {
        let headers: &[(&str, &str)] = match &prefer {
            Some(prefer) => &[("prefer", prefer)],
            None => &[],
        };
        let answer = self
            .client
            .send(Purpose::Read, Method::GET, url, headers, None, timeout)
            .await
            .map_err(Failure::into_fault)?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let mut fault = answer.fault(self.kind.name());
        if fault.code == Code::TargetGone {
            fault.code = Code::TableUnknown;
        }
        Err(fault)
    }

    /// One page of `table`: the first one by `filter` (OData, unescaped), later ones by the link of the page before.
    /// A page may hold fewer rows than asked for, and still not be the last.
    pub async fn read_page(
        &self,
        table: &Table,
        filter: Option<&str>,
        next: Option<&str>,
        rows_max: usize,
        timeout: Duration,
    ) -> Result<Page, Fault> {
        let url = match next {
            Some(next) => next.to_owned(),
            None => self.query_url(table, &table.shape.select(), filter),
        };
        let body = self.get(&url, Some(&format!("odata.maxpagesize={rows_max}")), timeout).await?;
        let mut page = parse_page(self.kind, &body)?;
        page.next = page.next.map(|link| self.client.below_base(link));
        Ok(page)
    }

    /// Whether `table` has no row at all, in any company.
    pub async fn probe_empty(&self, table: &Table, timeout: Duration) -> Result<bool, Fault> {
        let url = format!("{}&$top=1", self.query_url(table, &narrow_select(table), None));
        let body = self.get(&url, None, timeout).await?;
        Ok(parse_page(self.kind, &body)?.rows.is_empty())
    }

    /// How many rows of `table` match `filter` (OData, unescaped), where the system can say it: Dataverse stops
    /// counting at 5,000 (reference 7.1).
    pub async fn count(&self, table: &Table, filter: Option<&str>, timeout: Duration) -> Result<Option<u64>, Fault> {
        const DATAVERSE_COUNT_MAX: u64 = 5_000;
        #[derive(serde::Deserialize)]
        struct Counted {
            #[serde(rename = "@odata.count")]
            count: Option<u64>,
        }
        let url = format!("{}&$count=true", self.query_url(table, &narrow_select(table), filter));
        let (url, prefer) = match self.kind {
            SystemKind::Finops => (format!("{url}&$top=1"), None),
            // Dataverse does not count what $top cuts off.
            SystemKind::Dataverse => (url, Some("odata.maxpagesize=1")),
        };
        let body = self.get(&url, prefer, timeout).await?;
        let counted: Counted = serde_json::from_slice(&body).map_err(|error| {
            Fault::new(Code::Unavailable, format!("{} sent a count that cannot be read: {error}", self.kind))
        })?;
        Ok(counted.count.filter(|count| self.kind == SystemKind::Finops || *count < DATAVERSE_COUNT_MAX))
    }

    fn query_url(&self, table: &Table, select: &str, filter: Option<&str>) -> String {
        let mut url = match self.kind {
            SystemKind::Finops => finops::query_url(table, select),
            SystemKind::Dataverse => dataverse::query_url(table, select),
        };
        if let Some(filter) = filter {
            url.push_str("&$filter=");
            url.push_str(&escape::component(filter));
        }
        url
    }

    /// The rows at these addresses, in their order; `None` where there is no such row, and a fault of its own for a row
    /// that the system does not give out. All in as few requests as the batch limit allows.
    pub async fn read_rows(
        &self,
        reads: &[(&Table, &Address)],
        timeout: Duration,
    ) -> Result<Vec<Result<Option<StoredRow>, Fault>>, Fault> {
        let mut rows = Vec::with_capacity(reads.len());
        let mut select = Select::default();
        for chunk in reads.chunks(BATCH_OPERATIONS_MAX) {
            let parts = chunk
                .iter()
                .map(|(table, address)| match self.kind {
                    SystemKind::Finops => finops::row_part(table, address, select.of(table)),
                    SystemKind::Dataverse => dataverse::row_part(table, address, select.of(table)),
                })
                .collect::<Vec<_>>();
            let answers = self.batch(Purpose::Read, &parts, timeout).await.map_err(Failure::into_fault)?;
            if answers.len() != parts.len() {
                let refused = answers.iter().find(|answer| !answer.is_success());
                let what = || format!("{} answered {} of {} reads of a batch", self.kind, answers.len(), parts.len());
                return Err(refused.map_or_else(
                    || Fault::new(Code::Unavailable, what()),
                    |refused| http::fault_of(self.kind.name(), refused.status, &refused.body),
                ));
            }
            for (((table, _), part), answer) in chunk.iter().zip(&parts).zip(&answers) {
                match self.stored_row(table, part, answer) {
                    Err(fault) if matches!(fault.class(), Class::Transient | Class::Misconfigured) => {
                        return Err(fault);
                    }
                    row => rows.push(row),
                }
            }
        }
        Ok(rows)
    }

    fn stored_row(&self, table: &Table, part: &Part, answer: &PartAnswer) -> Result<Option<StoredRow>, Fault> {
        if !answer.is_success() {
            let fault = http::fault_of(self.kind.name(), answer.status, &answer.body);
            return if fault.code == Code::TargetGone { Ok(None) } else { Err(fault) };
        }
        let row = if part.is_query {
            match parse_page(self.kind, &answer.body)?.rows.first() {
                None => return Ok(None),
                Some(row) => table.shape.decode(row.json.get())?,
            }
        } else {
            let text = std::str::from_utf8(&answer.body)
                .map_err(|_| Fault::new(Code::WrongType, format!("a row of {} is not UTF-8", table.schema.set)))?;
            table.shape.decode(text)?
        };
        let id = table.schema.primary_id.and_then(|index| match &row.values[index] {
            Value::Guid(id) => Some(*id),
            _ => None,
        });
        Ok(Some(StoredRow { id, version: Arc::from(row.etag.unwrap_or_default()), values: row.values }))
    }

    /// Whether the receipt of a transaction is there: the transaction was applied.
    pub async fn has_receipt(&self, transaction: TransactionId, timeout: Duration) -> Result<bool, Fault> {
        let url = match self.kind {
            SystemKind::Finops => finops::receipt_url(transaction),
            SystemKind::Dataverse => dataverse::receipt_url(transaction),
        };
        let answer = self
            .client
            .send(Purpose::Read, Method::GET, &url, &[], None, timeout)
            .await
            .map_err(Failure::into_fault)?;
        if answer.status.is_success() {
            return Ok(true);
        }
        let fault = answer.fault(self.kind.name());
        if fault.code == Code::TargetGone { Ok(false) } else { Err(fault) }
    }

    /// Sends reads, or one change set. A system that refuses the whole with a plain error answers for all of it.
    async fn batch(&self, purpose: Purpose, parts: &[Part], timeout: Duration) -> Result<Vec<PartAnswer>, Failure> {
        let (content_type, body) = batch::encode(parts, purpose == Purpose::Write);
        let headers = [("content-type", content_type.as_str()), ("prefer", "odata.continue-on-error")];
        // A change set stands and falls as one, so there is nothing to continue with.
        let headers = if purpose == Purpose::Write { &headers[..1] } else { &headers[..] };
        let url = match self.kind {
            SystemKind::Dataverse => format!("{}/$batch", dataverse::ROOT),
            SystemKind::Finops => format!("{}/$batch", finops::ROOT),
        };
        let answer = self.client.send(purpose, Method::POST, &url, headers, Some(Bytes::from(body)), timeout).await?;
        batch::answers(self.kind.name(), &answer, parts.len())
    }
}

/// The shortest list of columns with which rows can be told apart and counted.
fn narrow_select(table: &Table) -> String {
    match table.schema.primary_id.or_else(|| table.schema.key.first().copied()) {
        Some(index) => row_json::property_name(&table.schema, index),
        None => table.shape.select(),
    }
}

/// The select list of the table that was asked for last: reads come table by table.
#[derive(Default)]
struct Select<'a>(Option<(&'a Table, String)>);

impl<'a> Select<'a> {
    fn of(&mut self, table: &'a Table) -> &str {
        if !self.0.as_ref().is_some_and(|(known, _)| std::ptr::eq(*known, table)) {
            self.0 = Some((table, table.shape.select()));
        }
        self.0.as_ref().map_or("", |(_, select)| select)
    }
}

/// The `value` array of a page with its rows untouched.
fn parse_page(kind: SystemKind, body: &[u8]) -> Result<Page, Fault> {
    #[derive(serde::Deserialize)]
    struct Raw {
        value: Vec<Box<RawValue>>,
        #[serde(rename = "@odata.nextLink")]
        next: Option<String>,
    }
    let raw: Raw = serde_json::from_slice(body)
        .map_err(|error| Fault::new(Code::Unavailable, format!("{kind} sent a page that cannot be read: {error}")))?;
    Ok(Page { rows: raw.value.into_iter().map(|json| RawRow { json }).collect(), next: raw.next })
}

#[cfg(test)]
mod tests;
