//! A user of one emulated system: writes and reads rows over HTTP, with keys and values as a person writes them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use dualwright_core::SystemKind;
use dualwright_emulator::{ColumnDefinition, ColumnKind, TableDefinition};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Map, Value, json};

/// A row as the system shows it.
pub type Row = Map<String, Value>;

/// Columns and values as a person writes them.
pub type Pairs = Vec<(String, String)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

/// One row that a user writes.
#[derive(Debug, Clone)]
pub struct Edit {
    pub operation: Operation,
    pub set: String,
    /// What identifies the row.
    pub key: Pairs,
    pub columns: Pairs,
}

#[derive(Clone)]
pub struct SystemClient {
    pub kind: SystemKind,
    pub base: String,
    client: Client,
    tables: Arc<HashMap<String, TableDefinition>>,
}

impl SystemClient {
    pub fn new(kind: SystemKind, base: String, tables: &[TableDefinition]) -> anyhow::Result<Self> {
        // A second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build()?;
        let tables = tables.iter().map(|table| (table.set.clone(), table.clone())).collect();
        Ok(Self { kind, base, client, tables: Arc::new(tables) })
    }

    const fn root(&self) -> &'static str {
        match self.kind {
            SystemKind::Finops => "/data",
            SystemKind::Dataverse => "/api/data/v9.2",
        }
    }

    fn table(&self, set: &str) -> anyhow::Result<&TableDefinition> {
        self.tables.get(set).with_context(|| format!("{} has no table {set}", self.kind))
    }

    fn column(&self, set: &str, name: &str) -> anyhow::Result<Option<&ColumnDefinition>> {
        Ok(self.table(set)?.columns.iter().find(|column| column.name == name))
    }

    fn primary_id(&self, set: &str) -> anyhow::Result<String> {
        let table = self.table(set)?;
        Ok(table.primary_id.clone().unwrap_or_else(|| format!("{}id", table.name)))
    }

    /// The answer to one GET.
    pub async fn get(&self, url: &str) -> anyhow::Result<Value> {
        let url = if url.starts_with("http") { url.to_owned() } else { format!("{}{url}", self.base) };
        let answer = self.client.get(&url).header("accept", "application/json").send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status.is_success(), "GET {url} answered {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("GET {url} answered {body}"))
    }

    /// The queries that the system was asked for lately, decoded: path, a question mark, and `name=value` with `&`.
    pub async fn asked(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.get("/_emulator/requests").await?;
        let urls =
            entries.as_array().context("the requests are no list")?.iter().filter_map(|entry| entry["url"].as_str());
        urls.map(|url| {
            let url = reqwest::Url::parse(&self.base)?.join(url)?;
            let query = url.query_pairs().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
            Ok(format!("{}?{}", url.path(), query.join("&")))
        })
        .collect()
    }

    /// Counts from now on how often rows of a table are read one by one within batches.
    pub async fn count_reads(&self, set: &str) -> anyhow::Result<()> {
        // A fault whose turn never comes counts what it looks at.
        let counted = |matching: Value| json!({"match": matching, "action": {"kind": "ignoreIfMatch"}});
        let rules = json!([
            counted(json!({"method": "GET", "path": self.path(set), "operation": true, "nth": u32::MAX})),
            counted(json!({"method": "POST", "body": format!("GET {}", self.path(set)), "nth": u32::MAX})),
        ]);
        self.control("POST", "faults", Some(&rules.to_string())).await
    }

    /// Reads of rows of that table since then, and batches that held any.
    pub async fn counted_reads(&self, set: &str) -> anyhow::Result<(u64, u64)> {
        let faults = self.get("/_emulator/faults").await?;
        let rules = faults["rules"].as_array().context("there are no rules")?;
        let seen = |part: &str, wanted: &str| {
            let rule = rules.iter().find(|rule| rule["match"][part] == wanted);
            rule.and_then(|rule| rule["seen"].as_u64()).with_context(|| format!("{set} is not counted"))
        };
        let path = self.path(set);
        Ok((seen("path", &path)?, seen("body", &format!("GET {path}"))?))
    }

    fn path(&self, set: &str) -> String {
        format!("{}/{set}", self.root())
    }

    /// One POST, of whatever the tables here do not tell.
    pub async fn post(&self, url: &str, body: String) -> anyhow::Result<()> {
        let request = self.client.post(format!("{}{url}", self.base)).header("content-type", "application/json");
        let answer = request.body(body).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "POST {url} answered {status}: {}", answer.text().await?);
        Ok(())
    }

    /// Every row of a table.
    pub async fn rows(&self, set: &str) -> anyhow::Result<Vec<Row>> {
        self.rows_where(set, None).await
    }

    /// The rows that an OData filter takes.
    pub async fn rows_where(&self, set: &str, filter: Option<&str>) -> anyhow::Result<Vec<Row>> {
        let mut options = Vec::new();
        if self.kind == SystemKind::Finops {
            options.push("cross-company=true".to_owned());
        }
        options.extend(filter.map(|filter| format!("$filter={}", percent(filter))));
        let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
        let mut rows = Vec::new();
        let mut next = Some(format!("{}/{set}{query}", self.root()));
        while let Some(url) = next {
            let mut page = self.get(&url).await?;
            let Some(Value::Array(values)) = page.get_mut("value").map(Value::take) else { bail!("{url} has no rows") };
            for value in values {
                let Value::Object(row) = value else { bail!("{url}: {value} is not a row") };
                rows.push(row);
            }
            next = page.get("@odata.nextLink").and_then(Value::as_str).map(str::to_owned);
        }
        Ok(rows)
    }

    /// The row that this key identifies.
    pub async fn find(&self, set: &str, key: &[(String, String)]) -> anyhow::Result<Option<Row>> {
        // The system looks for the first column that is a text; the rest is compared here.
        let mut filter = None;
        for (name, value) in key {
            if filter.is_none() && self.column(set, name)?.is_some_and(|column| column.kind == ColumnKind::Text) {
                filter = Some(format!("{name} eq '{}'", value.replace('\'', "''")));
            }
        }
        for row in self.rows_where(set, filter.as_deref()).await? {
            if self.differing(set, &row, key).await?.is_empty() {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// The columns in which a row is not as expected, with what it holds instead.
    pub async fn differing(&self, set: &str, row: &Row, wanted: &[(String, String)]) -> anyhow::Result<Vec<String>> {
        let mut differing = Vec::new();
        for (name, wanted) in wanted {
            let column = self.column(set, name)?.with_context(|| format!("{set} has no column {name}"))?;
            let property = if column.kind == ColumnKind::Lookup { format!("_{name}_value") } else { name.clone() };
            let current = row.get(&property).unwrap_or(&Value::Null);
            let wanted = match wanted.strip_prefix('@') {
                Some(reference) => self.id_of(reference).await?,
                None => wanted.clone(),
            };
            if !holds(column.kind, current, &wanted) {
                differing.push(format!("{name} is {}", shortened(&current.to_string())));
            }
        }
        Ok(differing)
    }

    /// The id behind `cdm_companies/cdm_companycode=usmf`.
    async fn id_of(&self, reference: &str) -> anyhow::Result<String> {
        let (set, key) = reference.split_once('/').with_context(|| format!("@{reference} is not @set/column=value"))?;
        let key = key_pairs(key).map_err(anyhow::Error::msg)?;
        let row = Box::pin(self.find(set, &key)).await?.with_context(|| format!("there is no row {reference}"))?;
        let id = row.get(&self.primary_id(set)?).and_then(Value::as_str);
        id.map(str::to_owned).with_context(|| format!("{set} shows no id"))
    }

    /// One edit, by itself. The answer when it is refused.
    pub async fn write(&self, edit: &Edit) -> anyhow::Result<Result<(), String>> {
        let (method, url, body) = self.request_of(edit).await?;
        let request = self.client.request(method, format!("{}{url}", self.base));
        let answer = match body {
            Some(body) => request.header("content-type", "application/json").body(body).send().await?,
            None => request.send().await?,
        };
        Ok(if answer.status().is_success() { Ok(()) } else { Err(refusal(answer).await) })
    }

    /// Several edits in one change set, so that the system takes all of them or none.
    pub async fn transaction(&self, edits: &[Edit]) -> anyhow::Result<Result<(), String>> {
        let mut set = String::new();
        for (position, edit) in edits.iter().enumerate() {
            let (method, url, body) = self.request_of(edit).await?;
            set.push_str(&format!(
                "--changes\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\nContent-ID: {}\r\n\r\n\
                 {method} {}{url} HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{}\r\n",
                position + 1,
                self.base,
                body.unwrap_or_default()
            ));
        }
        let body =
            format!("--all\r\nContent-Type: multipart/mixed; boundary=changes\r\n\r\n{set}--changes--\r\n--all--\r\n");
        let answer = self
            .client
            .post(format!("{}{}/$batch", self.base, self.root()))
            .header("content-type", "multipart/mixed; boundary=all")
            .body(body)
            .send()
            .await?;
        if !answer.status().is_success() {
            return Ok(Err(refusal(answer).await));
        }
        let answer = answer.text().await?;
        // Each part begins with its own status line.
        let refused = answer.lines().find(|line| line.starts_with("HTTP/1.1 ") && !line.starts_with("HTTP/1.1 2"));
        Ok(if refused.is_none() { Ok(()) } else { Err(answer) })
    }

    /// Deletes a column of a table, by their logical names (Dataverse).
    pub async fn drop_column(&self, table: &str, column: &str) -> anyhow::Result<()> {
        let attribute = format!("EntityDefinitions(LogicalName='{table}')/Attributes(LogicalName='{column}')");
        let answer = self.client.delete(format!("{}{}/{attribute}", self.base, self.root())).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{attribute} was not deleted: {status} {}", answer.text().await?);
        Ok(())
    }

    /// Tells the emulator what a real system cannot be told, below `/_emulator/`.
    pub async fn control(&self, method: &str, what: &str, body: Option<&str>) -> anyhow::Result<()> {
        let method = Method::from_bytes(method.as_bytes())?;
        let request = self.client.request(method, format!("{}/_emulator/{what}", self.base));
        let answer = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_owned()).send().await?,
            None => request.send().await?,
        };
        let status = answer.status();
        ensure!(status.is_success(), "{what} was refused: {status} {}", answer.text().await?);
        Ok(())
    }

    async fn request_of(&self, edit: &Edit) -> anyhow::Result<(Method, String, Option<String>)> {
        let (root, set) = (self.root(), &edit.set);
        Ok(match edit.operation {
            Operation::Insert => {
                let columns = edit.key.iter().chain(&edit.columns);
                (Method::POST, format!("{root}/{set}"), Some(self.body_of(set, columns).await?))
            }
            Operation::Update => {
                let body = self.body_of(set, edit.columns.iter()).await?;
                (Method::PATCH, self.url_of(set, &edit.key).await?, Some(body))
            }
            Operation::Delete => (Method::DELETE, self.url_of(set, &edit.key).await?, None),
        })
    }

    async fn url_of(&self, set: &str, key: &[(String, String)]) -> anyhow::Result<String> {
        let root = self.root();
        Ok(match self.kind {
            SystemKind::Finops => {
                let mut parts = Vec::with_capacity(key.len());
                for (name, value) in key {
                    parts.push(match self.column(set, name)?.map(|column| column.kind) {
                        Some(ColumnKind::Int | ColumnKind::Bigint | ColumnKind::Date | ColumnKind::Datetime) => {
                            format!("{name}={}", percent(value))
                        }
                        _ => format!("{name}='{}'", percent(&value.replace('\'', "''"))),
                    });
                }
                format!("{root}/{set}({})?cross-company=true", parts.join(","))
            }
            SystemKind::Dataverse => {
                let row = self.find(set, key).await?.with_context(|| format!("{set} has no row {key:?}"))?;
                let id = row.get(&self.primary_id(set)?).and_then(Value::as_str).context("the row shows no id")?;
                format!("{root}/{set}({id})")
            }
        })
    }

    async fn body_of(&self, set: &str, columns: impl Iterator<Item = &(String, String)>) -> anyhow::Result<String> {
        let mut body = Map::new();
        for (name, value) in columns {
            let column = self.column(set, name)?.with_context(|| format!("{set} has no column {name}"))?;
            if column.kind == ColumnKind::Lookup {
                let (property, bound) = match value.strip_prefix('@') {
                    None => (self.navigation(column, None), Value::Null),
                    Some(reference) => {
                        let target = reference.split('/').next().unwrap_or_default();
                        let id = self.id_of(reference).await?;
                        (self.navigation(column, Some(target)), Value::String(format!("/{target}({id})")))
                    }
                };
                body.insert(format!("{property}@odata.bind"), bound);
            } else {
                body.insert(name.clone(), cell(column.kind, value)?);
            }
        }
        Ok(Value::Object(body).to_string())
    }

    /// The navigation property that leads from a lookup to one of its tables.
    fn navigation(&self, column: &ColumnDefinition, set: Option<&str>) -> String {
        let name = set.and_then(|set| self.tables.get(set)).map(|table| table.name.as_str());
        let target = column.targets.iter().find(|target| name.is_none_or(|name| target.table == name));
        target.and_then(|target| target.navigation_property.clone()).unwrap_or_else(|| column.name.clone())
    }
}

/// `dataAreaId=usmf,CustomerGroupId=10`.
pub fn key_pairs(text: &str) -> Result<Pairs, String> {
    text.split(',')
        .map(|part| crate::words::pair(part).map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect()
}

fn cell(kind: ColumnKind, text: &str) -> anyhow::Result<Value> {
    if text == "null" {
        return Ok(Value::Null);
    }
    Ok(match kind {
        ColumnKind::Int
        | ColumnKind::Bigint
        | ColumnKind::Decimal
        | ColumnKind::Money
        | ColumnKind::Double
        | ColumnKind::Choice
        | ColumnKind::Boolean => serde_json::from_str(text).with_context(|| format!("{text} is not of this type"))?,
        _ => Value::String(text.to_owned()),
    })
}

/// Whether a cell holds what a person would call this value.
fn holds(kind: ColumnKind, current: &Value, wanted: &str) -> bool {
    match current {
        Value::Null => matches!(wanted, "null" | ""),
        Value::Bool(value) => wanted == value.to_string(),
        Value::Number(number) => match (number.as_f64(), wanted.parse::<f64>()) {
            (Some(current), Ok(wanted)) => (current - wanted).abs() < 1e-9,
            _ => false,
        },
        Value::String(text) if matches!(kind, ColumnKind::Date | ColumnKind::Datetime) => {
            text == wanted || text.get(..10) == Some(wanted)
        }
        Value::String(text) => text == wanted,
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    format!("{}… ({} characters)", text.chars().take(SHOWN_MAX).collect::<String>(), text.chars().count())
}

fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~'".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

async fn refusal(answer: reqwest::Response) -> String {
    let status: StatusCode = answer.status();
    format!("{status}: {}", answer.text().await.unwrap_or_default())
}
