//! One emulated system on loopback, and requests to it in a few words.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::Path;

use dualwright_emulator::{Dialect, Emulator, ServeOptions, TableFile, read_tables};
use dualwright_odata::batch::{Item, Request, Response, encode_requests, parse_responses};
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const DATAVERSE: &str = r#"{"tables":[
  {"name":"cdm_company","set":"cdm_companies","primaryName":"cdm_companycode",
   "alternateKeys":[{"name":"cdm_companycode_key","columns":["cdm_companycode"]}],
   "columns":[{"name":"cdm_companycode","type":"text","maxLength":4,"required":true}]},
  {"name":"account","set":"accounts","primaryName":"name",
   "alternateKeys":[{"name":"accountnumber_key","columns":["accountnumber","msdyn_company"]}],
   "columns":[
    {"name":"accountnumber","type":"text","maxLength":20},
    {"name":"name","type":"text","maxLength":10,"required":true},
    {"name":"description","type":"memo"},
    {"name":"creditlimit","type":"money","precision":2,"min":0,"max":1000000},
    {"name":"rate","type":"decimal","precision":4},
    {"name":"numberofemployees","type":"int","min":0,"max":500},
    {"name":"creditonhold","type":"boolean"},
    {"name":"customertypecode","type":"choice","options":[{"name":"Competitor","value":1},{"name":"Customer","value":3}]},
    {"name":"since","type":"date"},
    {"name":"lastseen","type":"datetime"},
    {"name":"statecode","type":"choice","options":[{"name":"Active","value":0},{"name":"Inactive","value":1}]},
    {"name":"msdyn_company","type":"lookup","targets":[{"table":"cdm_company","navigationProperty":"msdyn_Company"}]},
    {"name":"primarycontactid","type":"lookup","targets":[{"table":"contact"}]}]},
  {"name":"contact","set":"contacts","primaryName":"lastname",
   "columns":[
    {"name":"lastname","type":"text","maxLength":50},
    {"name":"parentcustomerid","type":"lookup","targets":[
      {"table":"account","navigationProperty":"parentcustomerid_account"},
      {"table":"contact","navigationProperty":"parentcustomerid_contact"}]},
    {"name":"employer","type":"lookup","required":false,"targets":[{"table":"account","navigationProperty":"employer"}]}]},
  {"name":"order","set":"orders","primaryId":"orderid",
   "columns":[{"name":"account","type":"lookup","required":true,"targets":[{"table":"account","navigationProperty":"account"}]}]}
]}"#;

pub const FINOPS: &str = r#"{"tables":[
  {"name":"CustomerGroup","set":"CustomerGroups","entity":"Customer groups","entityName":"CustCustomerGroupEntity",
   "key":["dataAreaId","CustomerGroupId"],
   "columns":[
    {"name":"dataAreaId","type":"text","maxLength":4},
    {"name":"CustomerGroupId","type":"text","maxLength":10,"required":true},
    {"name":"Description","type":"text","maxLength":20},
    {"name":"IsPriceWithTax","type":"enum","enum":"NoYes"},
    {"name":"Rate","type":"decimal"},
    {"name":"Days","type":"int"},
    {"name":"Since","type":"datetime"}]},
  {"name":"CustomerV3","set":"CustomersV3","entity":"Customers V3","entityName":"CustCustomerV3Entity",
   "key":["dataAreaId","CustomerAccount"],
   "columns":[
    {"name":"dataAreaId","type":"text","maxLength":4},
    {"name":"CustomerAccount","type":"text","maxLength":20,"required":true},
    {"name":"OrganizationName","type":"text","maxLength":60},
    {"name":"CustomerGroupId","type":"text","maxLength":10,
     "targets":[{"table":"CustomerGroup","column":"CustomerGroupId"}]}]},
  {"name":"Currency","set":"Currencies","entity":"Currencies","entityName":"CurrencyEntity","key":["CurrencyCode"],
   "columns":[{"name":"CurrencyCode","type":"text","maxLength":3,"required":true},{"name":"Name","type":"text","maxLength":60}]}
]}"#;

pub struct System {
    pub emulator: Emulator,
    pub base: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<anyhow::Result<()>>>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Code of the error body, or its message where there is no code.
    pub fn code(&self) -> String {
        code_of(&self.text)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The value of one property of every row of a page.
    pub fn column(&self, name: &str) -> Vec<String> {
        let json = self.json();
        let rows = json["value"].as_array().unwrap_or_else(|| panic!("no page: {json}"));
        rows.iter().map(|row| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned)).collect()
    }
}

pub fn code_of(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    json["error"]["code"].as_str().unwrap_or_default().to_owned()
}

impl System {
    pub async fn start(dialect: Dialect) -> Self {
        Self::start_on(dialect, None).await
    }

    pub async fn start_on(dialect: Dialect, store: Option<&Path>) -> Self {
        let emulator = Emulator::open(dialect, store).expect("opens");
        let tables = tables(dialect);
        emulator.define(&tables.tables).expect("defines");
        Self::serve(emulator).await
    }

    pub async fn serve(emulator: Emulator) -> Self {
        Self::serve_with(emulator, ServeOptions::default()).await
    }

    pub async fn serve_with(emulator: Emulator, options: ServeOptions) -> Self {
        // A second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(tls) = &options.tls {
            client = client.tls_certs_only([reqwest::Certificate::from_pem(tls.ca_pem().as_bytes()).expect("PEM")]);
        }
        let client = client.build().expect("client");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", listener.local_addr().expect("address"));
        let (stop, stopped) = oneshot::channel();
        let serving = emulator.clone();
        let serving = tokio::spawn(async move {
            serving
                .serve_with(options, listener, async {
                    let _ = stopped.await;
                })
                .await
        });
        Self { emulator, base, client, stop: Some(stop), serving: Some(serving) }
    }

    pub async fn end(mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            serving.await.expect("joins").expect("serves");
        }
    }

    fn root(&self) -> &'static str {
        match self.emulator.dialect() {
            Dialect::Dataverse => "/api/data/v9.2/",
            Dialect::Finops => "/data/",
        }
    }

    /// `headers` as `Name: value` lines; `path` below the service root, or from the host, or a whole link.
    pub async fn try_send(&self, method: &str, path: &str, headers: &str, body: &str) -> reqwest::Result<Reply> {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else if path.starts_with('/') {
            format!("{}{path}", self.base)
        } else {
            format!("{}{}{path}", self.base, self.root())
        };
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("method");
        let mut request = self.client.request(method, url).body(body.to_owned());
        for line in headers.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").expect("Name: value");
            request = request.header(name, value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = String::from_utf8_lossy(&response.bytes().await?).into_owned();
        Ok(Reply { status, headers, text })
    }

    pub async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        self.try_send(method, path, headers, body).await.expect("an answer")
    }

    /// The answer to a GET whose body is still to be read.
    pub async fn open(&self, path: &str) -> reqwest::Response {
        let url = format!("{}{}{path}", self.base, self.root());
        self.client.get(url).send().await.expect("an answer")
    }

    /// The bytes of the answer to a GET, and its headers.
    pub async fn raw(&self, path: &str, header: &str) -> (Vec<u8>, HeaderMap) {
        let (name, value) = header.split_once(": ").expect("Name: value");
        let url = format!("{}{}{path}", self.base, self.root());
        let response = self.client.get(url).header(name, value).send().await.expect("an answer");
        let headers = response.headers().clone();
        (response.bytes().await.expect("a body").to_vec(), headers)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", "").await
    }

    /// A GET that must find something.
    pub async fn json(&self, path: &str) -> Value {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.json()
    }

    /// Adds a row that must be accepted, and gives it back.
    pub async fn create(&self, set: &str, body: &str) -> Value {
        let reply = self.send("POST", set, "Prefer: return=representation", body).await;
        assert_eq!(reply.status, 201, "{body}: {}", reply.text);
        reply.json()
    }

    pub async fn batch(&self, items: &[Item<Request>], headers: &str) -> (u16, Vec<Item<Response>>) {
        let (content_type, body) = encode_requests(items);
        let headers = format!("Content-Type: {content_type}\n{headers}");
        let reply = self.send("POST", "$batch", &headers, &String::from_utf8(body).expect("text")).await;
        let answers = parse_responses(reply.header("content-type"), reply.text.as_bytes());
        (reply.status, answers.unwrap_or_else(|error| panic!("{error}: {}", reply.text)))
    }

    /// Every row of a set, without reading what is not asked for.
    pub async fn count(&self, set: &str) -> usize {
        self.emulator.count(set).expect("counts")
    }
}

pub fn tables(dialect: Dialect) -> TableFile {
    read_tables(match dialect {
        Dialect::Dataverse => DATAVERSE,
        Dialect::Finops => FINOPS,
    })
    .expect("definitions")
}

/// An operation of a batch: method, URL, `Name: value` lines, body.
pub fn operation(id: &str, method: &str, url: &str, headers: &str, body: &str) -> Request {
    Request {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: headers
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: body.as_bytes().to_vec(),
        content_id: (!id.is_empty()).then(|| id.to_owned()),
    }
}

/// An answer to a batch in short: statuses, a change set in brackets, a refusal with its code and Content-ID.
pub fn shown(answers: &[Item<Response>]) -> String {
    let one = |response: &Response| {
        let code = code_of(&String::from_utf8_lossy(&response.body));
        let id = response.content_id.as_deref().filter(|_| response.status >= 400).unwrap_or_default();
        [response.status.to_string(), code, id.to_owned()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("/")
    };
    answers
        .iter()
        .map(|item| match item {
            Item::Single(response) => one(response),
            Item::ChangeSet(all) => format!("[{}]", all.iter().map(one).collect::<Vec<_>>().join(" ")),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn id(number: u32) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}
