//! Any URL, and any body: a documented answer, and never a panic.

use dualwright_odata::batch::Request;
use dualwright_odata::escape::component;
use serde_json::{Value, json};

use crate::batch::Site;
use crate::definition::read_tables;
use crate::{Clock, Dialect, Emulator};

/// Pieces of which queries and paths are put together, so that most of them mean something.
const WORDS: &[&str] = &[
    "accounts",
    "contacts",
    "accounts(00000000-0000-0000-0000-000000000001)",
    "accounts(accountnumber='A',msdyn_company=00000000-0000-0000-0000-000000000001)",
    "EntityDefinitions(LogicalName='account')",
    "RelationshipDefinitions",
    "GlobalOptionSetDefinitions",
    "Attributes",
    "Microsoft.Dynamics.CRM.PicklistAttributeMetadata",
    "LogicalName",
    "/",
    "(",
    ")",
    ",",
    ";",
    "'",
    "$select",
    "$filter",
    "$expand",
    "$orderby",
    "$top",
    "$count",
    "$ref",
    "$value",
    "=",
    "name",
    "accountid",
    "revenue",
    "creditlimit",
    "numberofemployees",
    "createdon",
    "since",
    "customertypecode",
    "primarycontactid",
    "_primarycontactid_value",
    "parentcustomerid_account",
    "ownerid",
    "contact_customer_accounts",
    "serviceendpoints",
    "authvalue",
    "systemuserroles_association",
    "roles",
    "null",
    "true",
    "-1",
    "3.5e300",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999999999999",
    "2024-02-30",
    "2024-01-02T03:04:05Z",
    "9999-12-31T23:59:59Z",
    "00000000-0000-0000-0000-000000000001",
    "'%_[a-'",
    " eq ",
    " ne ",
    " gt ",
    " le ",
    " and ",
    " or ",
    " in ",
    " desc",
    " with ",
    " as ",
    "not ",
    "any",
    "all",
    "o:o/name",
    "groupby",
    "aggregate",
    "filter",
    "sum",
    "average",
    "max",
    "countdistinct",
    "contains",
    "startswith",
    "Microsoft.Dynamics.CRM.",
    "In",
    "Between",
    "LastXDays",
    "NextXFiscalYears",
    "OlderThanXMonths",
    "InFiscalPeriodAndYear",
    "EqualUserId",
    "ContainValues",
    "PropertyName",
    "PropertyValue",
    "PropertyValues",
    "PropertyValue1",
    "[",
    "]",
    "\"",
    "<",
    "/>",
    ">",
    "<condition attribute='name' operator='",
    "<condition attribute='createdon' operator='",
    "last-x-days",
    "eq-userid",
    "' value='",
    "<link-entity name='contact' from='contactid' to='primarycontactid' alias='c'>",
    "</link-entity>",
    "<filter type='or'>",
    "</filter>",
    "<order attribute='name' descending='true'/>",
    "<attribute name='creditlimit' alias='a' aggregate='sum'/>",
    "<attribute name='createdon' alias='g' groupby='true' dategrouping='week'/>",
    " ",
    "ü",
    "\0",
    "1",
    "0",
];

/// Places into which words are put: the path, the query option, and what stands before and after.
const READS: &[(&str, &str, &str, &str)] = &[
    ("", "", "", ""),
    ("accounts(00000000-0000-0000-0000-000000000001)/", "", "", ""),
    ("accounts(", "", "", ")"),
    ("EntityDefinitions(LogicalName='account')/", "", "", ""),
    ("accounts?", "$filter", "", ""),
    ("accounts?", "$filter", "contact_customer_accounts/any(o:", ")"),
    ("accounts?", "$filter", "Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=[", "])"),
    ("accounts?", "$filter", "Microsoft.Dynamics.CRM.LastXDays(PropertyName='createdon',PropertyValue=", ")"),
    ("accounts?", "$filter", "startswith(name,'", "')"),
    ("accounts?", "$select", "", ""),
    ("accounts?", "$expand", "", ""),
    ("accounts?", "$expand", "primarycontactid(", ")"),
    ("accounts?", "$expand", "contact_customer_accounts($filter=", ";$top=1)"),
    ("accounts?", "$apply", "", ""),
    ("accounts?", "$apply", "groupby((", "),aggregate($count as n))"),
    ("accounts?", "$apply", "aggregate(", ")"),
    ("accounts?", "$orderby", "", ""),
    ("accounts?", "$top", "", ""),
    ("accounts?", "$skiptoken", "", ""),
    ("accounts?", "$deltatoken", "", ""),
    ("accounts?", "fetchXml", "", ""),
    ("accounts?", "fetchXml", "<fetch><entity name='account'>", "</entity></fetch>"),
    ("accounts?", "fetchXml", "<fetch aggregate='true'><entity name='account'>", "</entity></fetch>"),
    ("accounts?", "fetchXml", "<fetch ", "><entity name='account'><order attribute='name'/></entity></fetch>"),
    (
        "accounts?",
        "fetchXml",
        "<fetch><entity name='account'><filter><condition attribute='createdon' operator='",
        "'/></filter></entity></fetch>",
    ),
    ("EntityDefinitions?", "$filter", "", ""),
    ("EntityDefinitions?", "$expand", "", ""),
    ("RetrieveTotalRecordCount", "(EntityNames=@p1)?@p1", "", ""),
];

/// Where bodies are sent.
const WRITES: &[(&str, &str)] = &[
    ("POST", "accounts"),
    ("PATCH", "accounts(00000000-0000-0000-0000-000000000001)"),
    ("PATCH", "accounts(accountnumber='A',msdyn_company=00000000-0000-0000-0000-000000000001)"),
    ("PUT", "accounts(00000000-0000-0000-0000-000000000001)/name"),
    ("PUT", "accounts(00000000-0000-0000-0000-000000000001)/primarycontactid/$ref"),
    ("POST", "accounts(00000000-0000-0000-0000-000000000001)/contact_customer_accounts/$ref"),
    ("POST", "accounts/Microsoft.Dynamics.CRM.CreateMultiple"),
    ("POST", "accounts/Microsoft.Dynamics.CRM.UpdateMultiple"),
    ("POST", "accounts/Microsoft.Dynamics.CRM.UpsertMultiple"),
    ("POST", "EntityDefinitions"),
    ("PUT", "EntityDefinitions(LogicalName='account')"),
    ("POST", "EntityDefinitions(LogicalName='account')/Attributes"),
    ("PUT", "EntityDefinitions(LogicalName='account')/Attributes(LogicalName='name')"),
    ("POST", "EntityDefinitions(LogicalName='account')/Keys"),
    ("POST", "RelationshipDefinitions"),
    ("POST", "GlobalOptionSetDefinitions"),
    ("POST", "CreateOneToMany"),
    ("POST", "CreateCustomerRelationships"),
    ("POST", "InsertOptionValue"),
    ("POST", "serviceendpoints"),
    ("POST", "sdkmessageprocessingsteps"),
    ("POST", "roles(00000000-0000-0000-0000-000000000001)/Microsoft.Dynamics.CRM.AddPrivilegesRole"),
    ("POST", "systemusers(00000000-0000-0000-0000-000000000001)/systemuserroles_association/$ref"),
    ("POST", "$batch"),
];

const MEMBERS: &[&str] = &[
    "name",
    "accountid",
    "accountnumber",
    "creditlimit",
    "numberofemployees",
    "createdon",
    "overriddencreatedon",
    "statecode",
    "statuscode",
    "msdyn_Company@odata.bind",
    "primarycontactid@odata.bind",
    "primarycontactid",
    "contact_customer_accounts",
    "@odata.id",
    "@odata.type",
    "Targets",
    "SchemaName",
    "DisplayName",
    "LocalizedLabels",
    "Label",
    "Attributes",
    "IsPrimaryName",
    "MaxLength",
    "Precision",
    "MinValue",
    "RequiredLevel",
    "Value",
    "OptionSet",
    "OptionSetName",
    "GlobalOptionSet@odata.bind",
    "Options",
    "Name",
    "IsGlobal",
    "KeyAttributes",
    "Lookup",
    "ReferencedEntity",
    "ReferencingEntity",
    "Entity1LogicalName",
    "Entity2LogicalName",
    "IntersectEntityName",
    "CascadeConfiguration",
    "Delete",
    "EntityLogicalName",
    "AttributeLogicalName",
    "OneToManyRelationship",
    "contract",
    "authtype",
    "authvalue",
    "stage",
    "mode",
    "Privileges",
    "Depth",
];

const TEXTS: &[&str] = &[
    "",
    "A",
    "account",
    "contact",
    "new_thing",
    "New_Thing",
    "accounts",
    "Microsoft.Dynamics.CRM.account",
    "Microsoft.Dynamics.CRM.EntityMetadata",
    "Microsoft.Dynamics.CRM.StringAttributeMetadata",
    "Microsoft.Dynamics.CRM.PicklistAttributeMetadata",
    "Microsoft.Dynamics.CRM.DecimalAttributeMetadata",
    "#Microsoft.Dynamics.CRM.DateTimeAttributeMetadata",
    "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata",
    "Microsoft.Dynamics.CRM.ManyToManyRelationshipMetadata",
    "/accounts(00000000-0000-0000-0000-000000000001)",
    "accounts(name='x')",
    "$1",
    "00000000-0000-0000-0000-000000000001",
    "2024-02-30T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "Cascade",
    "http://127.0.0.1:1/hook",
    "ü\u{0}\u{1F600}",
];

const NUMBERS: &[i64] = &[0, 1, -1, 3, 100, 4_000, 5_000_000, i64::MAX, i64::MIN, 100_000_000];

fn pick<T: Copy>(all: &[T], number: u8) -> T {
    all[usize::from(number) % all.len()]
}

/// A value of JSON out of the words above, as the bytes have it.
fn value(bytes: &mut dyn Iterator<Item = u8>, depth: usize) -> Value {
    let mut next = || bytes.next().unwrap_or(0);
    match next() % 10 {
        0 => Value::Null,
        1 => json!(next() % 2 == 0),
        2 | 3 => json!(pick(TEXTS, next())),
        4 => json!(pick(NUMBERS, next())),
        5 => json!(f64::from(next()) * 1e300),
        // What labels and options look like.
        6 => json!({"LocalizedLabels": [{"Label": pick(TEXTS, next()), "LanguageCode": 1033}]}),
        7 => json!([{"Value": pick(NUMBERS, next()), "Label": {"LocalizedLabels": [{"Label": pick(TEXTS, next())}]}}]),
        _ if depth == 0 => Value::Null,
        8 => {
            let count = next() % 3;
            (0..count).map(|_| value(bytes, depth - 1)).collect()
        }
        _ => object(bytes, depth - 1),
    }
}

fn object(bytes: &mut dyn Iterator<Item = u8>, depth: usize) -> Value {
    let count = bytes.next().unwrap_or(0) % 6;
    let members = (0..count).map(|_| {
        let name = pick(MEMBERS, bytes.next().unwrap_or(0)).to_owned();
        (name, value(bytes, depth))
    });
    Value::Object(members.collect())
}

fn emulator() -> Emulator {
    let emulator = Emulator::open_with_clock(Dialect::Dataverse, None, Clock::standing_at(0)).expect("opens");
    emulator
        .define(&read_tables(include_str!("../../tests/golden/dataverse/tables.json")).expect("tables").tables)
        .expect("defines");
    emulator.found().expect("has its first rows");
    let id = "00000000-0000-0000-0000-000000000001";
    let seed = |set: &str, row: Value| {
        emulator.seed(set, vec![row.as_object().expect("an object").clone()]).expect("seeds");
    };
    seed("contacts", json!({"contactid": id, "lastname": "L"}));
    seed("accounts", json!({"accountid": id, "name": "A", "primarycontactid": id}));
    emulator
}

fn check(emulator: &Emulator, method: &str, below: &str, headers: &[(&str, &str)], body: Vec<u8>) {
    let site = Site {
        base: "http://host".to_owned(),
        root: super::ROOT.to_owned(),
        company: String::new(),
        caller: None,
        user: None,
        outlet: None,
    };
    let url = format!("{}/{below}", super::ROOT);
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = Request { method: method.to_owned(), url, body, headers, ..Request::default() };
    let answer = super::answer(&emulator.inner, site, &request);
    let known: &[u16] = &[200, 201, 204, 304, 400, 403, 404, 405, 410, 412, 413, 501];
    let shown = || String::from_utf8_lossy(&answer.body).into_owned();
    assert!(known.contains(&answer.status), "{method} {below}: {} {}", answer.status, shown());
    let is_json = answer.headers.iter().any(|(name, value)| name == "Content-Type" && value.contains("json"));
    // A refused batch tells of its operations, each with its own answer.
    let is_multipart = answer.headers.iter().any(|(name, value)| name == "Content-Type" && value.contains("multipart"));
    if (answer.status >= 400 && !is_multipart) || is_json {
        let read = serde_json::from_slice::<Value>(&answer.body);
        let read = read.unwrap_or_else(|error| panic!("{method} {below}: {error}: {}", shown()));
        if answer.status >= 400 {
            let code = read["error"]["code"].as_str().unwrap_or_default();
            assert!(code.starts_with("0x"), "{method} {below}: {read}");
            assert!(read["error"]["message"].is_string(), "{method} {below}: {read}");
        }
    }
}

fn words(numbers: &[u8]) -> String {
    numbers.iter().map(|number| pick(WORDS, *number)).collect()
}

#[test]
fn any_read_gets_a_documented_answer() {
    let emulator = emulator();
    bolero::check!().with_type::<(u8, bool, Vec<u8>, String)>().for_each(|(place, is_words, numbers, text)| {
        let (path, option, before, after) = pick(READS, *place);
        let inner = if *is_words { words(numbers) } else { text.chars().take(200).collect() };
        let below = match option {
            "" => format!(
                "{path}{before}{}{after}",
                if *is_words { inner.replace(' ', "%20") } else { component(&inner).into_owned() }
            ),
            _ => format!("{path}{option}={}", component(&format!("{before}{inner}{after}"))),
        };
        check(&emulator, "GET", &below, &[], Vec::new());
        check(
            &emulator,
            "GET",
            &below,
            &[("Prefer", "odata.include-annotations=\"*\",odata.maxpagesize=1")],
            Vec::new(),
        );
    });
}

#[test]
fn any_body_gets_a_documented_answer() {
    let emulator = emulator();
    bolero::check!().with_type::<(u8, bool, Vec<u8>)>().for_each(|(place, is_json, bytes)| {
        let (method, below) = pick(WRITES, *place);
        let body = match is_json {
            true => object(&mut bytes.iter().copied(), 3).to_string().into_bytes(),
            false => bytes.clone(),
        };
        if below != "$batch" {
            check(&emulator, method, below, &[("Content-Type", "application/json")], body);
            return;
        }
        let (method, below) = pick(WRITES, bytes.first().copied().unwrap_or(0));
        let part = String::from_utf8_lossy(&body).into_owned();
        let batch = format!(
            "--b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n{method} {}/{below} HTTP/1.1\r\n\
             Content-Type: application/json\r\n\r\n{part}\r\n--b--\r\n",
            super::ROOT
        );
        let headers = [("Content-Type", "multipart/mixed;boundary=b")];
        check(&emulator, "POST", "$batch", &headers, batch.into_bytes());
        check(&emulator, "POST", "$batch", &headers, body);
    });
}

/// What fuzzing found, by the request that showed it.
#[test]
fn what_was_found_stays_repaired() {
    let emulator = emulator();
    let option = json!({"Value": i64::MAX, "Label": {"LocalizedLabels": [{"Label": "A"}]}});
    for (method, below, body) in [
        ("POST", "GlobalOptionSetDefinitions", json!({"Name": "new_last", "Options": [option, option]})),
        ("POST", "InsertOptionValue", json!({"OptionSetName": "new_last", "Label": option["Label"]})),
    ] {
        check(&emulator, method, below, &[("Content-Type", "application/json")], body.to_string().into_bytes());
    }
}
