//! Any URL, and any body: a documented answer, and never a panic.

use dualwright_odata::batch::Request;
use serde_json::{Value, json};

use crate::definition::read_tables;
use crate::{Clock, Dialect, Emulator};

/// Pieces of which URLs are put together, so that most of them mean something.
const WORDS: &[&str] = &[
    "/data",
    "/metadata",
    "/",
    "?",
    "&",
    "=",
    "(",
    ")",
    ",",
    ";",
    "'",
    "''",
    "%27",
    "%20",
    "+",
    "%",
    "%ff",
    " ",
    "*",
    "$filter",
    "$select",
    "$expand",
    "$orderby",
    "$top",
    "$skip",
    "$count",
    "$skiptoken",
    "$format",
    "$value",
    "$metadata",
    "$batch",
    "$apply",
    "cross-company=true",
    "CustomersV3",
    "CustomerGroups",
    "SalesOrderHeadersV2",
    "SalesOrderLines",
    "OddKeys",
    "SalesOrderHeader",
    "Customers",
    "dataAreaId",
    "CustomerAccount",
    "CustomerGroupId",
    "CreditLimit",
    "PartyType",
    "LastOrderAt",
    "RowId",
    "'usmf'",
    "'US-001'",
    "'10'",
    "'*0*'",
    "null",
    "true",
    "-1",
    "3.5e3",
    "99999999999999999999999999999",
    "2024-01-02",
    "2024-01-02T03:04:05Z",
    "6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab",
    "Microsoft.Dynamics.DataEntities.DirPartyType'Person'",
    " eq ",
    " ne ",
    " gt ",
    " le ",
    " and ",
    " or ",
    "not ",
    " in ",
    " has ",
    " desc",
    "contains",
    "tolower",
    "DataEntities",
    "PublicEntities",
    "PublicEnumerations",
    "Labels",
    "Name",
    "ü",
    "1",
    "0",
];

/// A URL from any bytes: of words, or as it comes.
fn url(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((kind, rest)) if kind % 4 != 0 => {
            let start = if kind % 4 == 1 { "/data/CustomersV3?$filter=" } else { "/data/" };
            rest.iter().fold(start.to_owned(), |url, byte| url + WORDS[usize::from(*byte) % WORDS.len()])
        }
        Some((_, rest)) => format!("/data/{}", String::from_utf8_lossy(rest)),
        None => String::new(),
    }
}

fn emulator() -> Emulator {
    let emulator = Emulator::open_with_clock(Dialect::Finops, None, Clock::standing_at(0)).expect("opens");
    emulator
        .define(&read_tables(include_str!("../../tests/common/sales.json")).expect("tables").tables)
        .expect("defines");
    let seed = |set: &str, row: Value| {
        emulator.seed(set, vec![row.as_object().expect("an object").clone()]).expect("seeds");
    };
    seed("CustomerGroups", json!({"dataAreaId": "usmf", "CustomerGroupId": "10"}));
    for account in ["US-001", "US-002"] {
        seed("CustomersV3", json!({"dataAreaId": "usmf", "CustomerAccount": account, "CustomerGroupId": "10"}));
        seed(
            "CustomersV3",
            json!({"dataAreaId": "dat", "CustomerAccount": account, "PartyType": "Person", "CreditLimit": 2.5}),
        );
    }
    seed(
        "SalesOrderHeadersV2",
        json!({"dataAreaId": "usmf", "SalesOrderNumber": "1", "OrderingCustomerAccountNumber": "US-001"}),
    );
    seed("SalesOrderLines", json!({"dataAreaId": "usmf", "InventoryLotId": "1", "SalesOrderNumber": "1"}));
    emulator
}

fn check(emulator: &Emulator, method: &str, url: String, body: &[u8]) {
    let request = Request { method: method.to_owned(), url, body: body.to_vec(), ..Request::default() };
    let Some(answer) = super::answer(&emulator.inner, "http://host", None, None, &request) else { return };
    let known: &[u16] = &[200, 201, 204, 400, 404, 405, 415];
    assert!(known.contains(&answer.status), "{} {}: {}", request.method, request.url, answer.status);
    let is_json = answer.headers.iter().any(|(name, value)| name == "Content-Type" && value.contains("json"));
    let read = serde_json::from_slice::<Value>(&answer.body);
    if answer.status >= 400 {
        let read = read.unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.url));
        assert!(read["error"]["innererror"]["message"].is_string(), "{} {}: {read}", request.method, request.url);
    } else if is_json {
        let read = read.unwrap_or_else(|error| {
            panic!("{} {}: {error}: {}", request.method, request.url, String::from_utf8_lossy(&answer.body))
        });
        assert!(read["@odata.context"].is_string(), "{} {}: {read}", request.method, request.url);
    }
}

#[test]
fn any_url_gets_a_documented_answer() {
    let emulator = emulator();
    bolero::check!().for_each(|bytes: &[u8]| check(&emulator, "GET", url(bytes), b""));
}

#[test]
fn any_write_gets_a_documented_answer() {
    let emulator = emulator();
    bolero::check!().for_each(|bytes: &[u8]| {
        let (method, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let (head, body) = rest.split_at(rest.len() / 2);
        let method = ["POST", "PATCH", "PUT", "DELETE"][usize::from(*method) % 4];
        let members = body
            .chunks(2)
            .map(|pair| {
                let word = |at: usize| WORDS[usize::from(*pair.get(at).unwrap_or(&0)) % WORDS.len()];
                format!("{:?}:{:?}", word(0), word(1))
            })
            .collect::<Vec<_>>();
        check(&emulator, method, url(head), format!("{{{}}}", members.join(",")).as_bytes());
        check(&emulator, method, url(head), body);
    });
}
