//! Webhooks and system jobs, against receivers on loopback.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use common::{Reply, System, tables};
use dualwright_emulator::{Clock, Dialect, Emulator, FaultPlan, PostSettings, ServeOptions, TlsIdentity};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What a receiver was sent.
#[derive(Debug)]
struct Received {
    uri: String,
    headers: HeaderMap,
    raw: String,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_str(&self.raw).unwrap_or_else(|error| panic!("{error}: {}", self.raw))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Answers with the statuses it is given, then with 200.
struct Receiver {
    url: String,
    received: mpsc::UnboundedReceiver<Received>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

type Shared = (mpsc::UnboundedSender<Received>, Arc<Mutex<VecDeque<u16>>>);

impl Receiver {
    async fn start() -> Self {
        let (send, received) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let router = Router::new().fallback(receive).with_state((send, Arc::clone(&answers)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = format!("http://{}/hook", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, received, answers }
    }

    fn answers(&self, statuses: &[u16]) {
        self.answers.lock().expect("not poisoned").extend(statuses);
    }

    async fn next(&mut self) -> Received {
        self.received.recv().await.expect("a request")
    }

    fn is_quiet(&mut self) -> bool {
        self.received.try_recv().is_err()
    }
}

async fn receive(State((send, answers)): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let raw = String::from_utf8_lossy(&body).into_owned();
    let _ = send.send(Received { uri: uri.to_string(), headers, raw });
    let status = answers.lock().expect("not poisoned").pop_front().unwrap_or(200);
    StatusCode::from_u16(status).expect("a status")
}

/// 2026-01-02T03:04:05Z.
const START_MICROS: i64 = 1_767_323_045_000_000;

async fn system() -> System {
    let emulator =
        Emulator::open_with_clock(Dialect::Dataverse, None, Clock::standing_at(START_MICROS)).expect("opens");
    emulator.define(&tables(Dialect::Dataverse).tables).expect("defines");
    System::serve(emulator).await
}

fn ok(reply: &Reply) -> &Reply {
    assert!(reply.status < 300, "{} {}", reply.status, reply.text);
    reply
}

async fn one(system: &System, path: &str, column: &str) -> String {
    let page = system.json(path).await;
    page["value"][0][column].as_str().unwrap_or_else(|| panic!("{path}: {page}")).to_owned()
}

/// Registers a step for a table as a client does it; gives its id.
async fn register(system: &System, url: &str, message: &str, table: &str, step: Value) -> String {
    let reply = try_register(system, url, message, table, step).await;
    ok(&reply).json()["sdkmessageprocessingstepid"].as_str().expect("an id").to_owned()
}

async fn endpoint(system: &System, url: &str) -> String {
    let body = json!({"name": "hook", "url": url, "contract": 8, "authtype": 4, "authvalue": "s3cret"});
    let made = system.create("serviceendpoints", &body.to_string()).await;
    assert_eq!(made.get("authvalue"), None, "{made}");
    made["serviceendpointid"].as_str().expect("an id").to_owned()
}

async fn try_register(system: &System, url: &str, message: &str, table: &str, step: Value) -> Reply {
    let endpoint = endpoint(system, url).await;
    let message_id = one(system, &format!("sdkmessages?$filter=name eq '{message}'"), "sdkmessageid").await;
    let filter =
        format!("sdkmessagefilters?$filter=primaryobjecttypecode eq '{table}' and _sdkmessageid_value eq {message_id}");
    let filter = one(system, &filter, "sdkmessagefilterid").await;
    let mut body = json!({
        "name": format!("{message} of {table}"), "stage": 40, "mode": 1, "rank": 1,
        "sdkmessageid@odata.bind": format!("/sdkmessages({message_id})"),
        "sdkmessagefilterid@odata.bind": format!("/sdkmessagefilters({filter})"),
        "eventhandler_serviceendpoint@odata.bind": format!("/serviceendpoints({endpoint})"),
    });
    for (name, value) in step.as_object().expect("an object") {
        body[name] = value.clone();
    }
    system.send("POST", "sdkmessageprocessingsteps", "Prefer: return=representation", &body.to_string()).await
}

async fn add_image(system: &System, step: &str, kind: u8, attributes: &str) -> Reply {
    let body = json!({
        "name": "img", "entityalias": "img", "imagetype": kind, "messagepropertyname": "Target", "attributes": attributes,
        "sdkmessageprocessingstepid@odata.bind": format!("/sdkmessageprocessingsteps({step})"),
    });
    system.send("POST", "sdkmessageprocessingstepimages", "", &body.to_string()).await
}

/// Waits until nothing is to be sent any more, without waiting for time.
async fn drained(system: &System) -> Value {
    for _ in 0..10_000 {
        let post = system.json("/_emulator/post").await;
        let all = post["messages"].as_array().expect("messages");
        if all.iter().all(|message| message["givenUp"] == true) {
            return post;
        }
        tokio::task::yield_now().await;
    }
    panic!("the queue was not emptied");
}

fn keys(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(|pair| pair["key"].as_str()).collect()
}

fn value<'a>(list: &'a Value, key: &str) -> &'a Value {
    let pair = list.as_array().and_then(|all| all.iter().find(|pair| pair["key"] == key));
    &pair.unwrap_or_else(|| panic!("no {key}: {list}"))["value"]
}

/// The members of the sample at
/// <https://learn.microsoft.com/power-apps/developer/data-platform/use-webhooks#request-body>, with what it says.
#[tokio::test]
async fn an_asynchronous_webhook_gets_the_whole_context() {
    let system = system().await;
    let mut receiver = Receiver::start().await;
    let step =
        register(&system, &receiver.url, "Update", "account", json!({"filteringattributes": "creditlimit,name"})).await;
    ok(&add_image(&system, &step, 2, "name,creditlimit").await);
    let company = system.create("cdm_companies", r#"{"cdm_companycode":"usmf"}"#).await;
    let company = company["cdm_companyid"].as_str().expect("an id");
    let account = system.create("accounts", r#"{"name":"before","creditlimit":1,"customertypecode":1}"#).await;
    let id = account["accountid"].as_str().expect("an id");
    let path = format!("accounts({id})");
    // No filtering column is named, so nothing is sent.
    ok(&system.send("PATCH", &path, "", r#"{"description":"x"}"#).await);
    let body = format!(
        r#"{{"name":"after","creditlimit":12.5,"customertypecode":3,"since":"2024-01-02","creditonhold":true,
            "msdyn_Company@odata.bind":"/cdm_companies({company})"}}"#
    );
    ok(&system.send("PATCH", &format!("{path}?tag=my-runtime"), "", &body).await);
    let received = receiver.next().await;

    assert_eq!(received.uri, "/hook?code=s3cret");
    assert!(received.raw.contains(r"\/Date("), "slashes are escaped: {}", received.raw);
    for (header, wanted) in [
        ("x-ms-dynamics-organization", "org"),
        ("x-ms-dynamics-entity-name", "account"),
        ("x-ms-dynamics-request-name", "Update"),
        ("x-ms-dynamics-msg-size-exceeded", ""),
        ("content-type", "application/json; charset=utf-8"),
    ] {
        assert_eq!(received.header(header), wanted, "{header}");
    }
    let context = received.json();
    assert_eq!(received.header("x-ms-correlation-request-id"), context["CorrelationId"].as_str().expect("an id"));
    assert_eq!(received.header("x-request-id"), context["RequestId"].as_str().expect("an id"));
    for (member, wanted) in [
        ("Depth", json!(1)),
        ("IsExecutingOffline", json!(false)),
        ("IsInTransaction", json!(false)),
        ("IsOfflinePlayback", json!(false)),
        ("IsolationMode", json!(1)),
        ("MessageName", json!("Update")),
        ("Mode", json!(1)),
        ("OperationCreatedOn", json!("/Date(1767323045000+0000)/")),
        ("OrganizationName", json!("org")),
        ("OutputParameters", json!([])),
        ("PrimaryEntityId", json!(id)),
        ("PrimaryEntityName", json!("account")),
        ("SecondaryEntityName", json!("none")),
        ("SharedVariables", json!([{"key": "tag", "value": "my-runtime"}])),
        ("Stage", json!(40)),
    ] {
        assert_eq!(context[member], wanted, "{member}");
    }
    let who = system.json("WhoAmI").await;
    assert_eq!((&context["UserId"], &context["InitiatingUserId"]), (&who["UserId"], &who["UserId"]));
    assert_eq!(context["OwningExtension"]["LogicalName"], "sdkmessageprocessingstep");
    assert_eq!(context["OwningExtension"]["Id"], json!(step));
    assert_eq!(context["ParentContext"]["Stage"], 30);
    assert_eq!(context["ParentContext"]["ParentContext"], Value::Null);

    let contracts = "http://schemas.microsoft.com/xrm/2011/Contracts";
    let target = value(&context["InputParameters"], "Target");
    assert_eq!(target["__type"], format!("Entity:{contracts}"));
    assert_eq!(target["LogicalName"], "account");
    let attributes = &target["Attributes"];
    for (name, wanted) in [
        ("name", json!("after")),
        ("creditlimit", json!({"__type": format!("Money:{contracts}"), "Value": 12.5})),
        ("customertypecode", json!({"__type": format!("OptionSetValue:{contracts}"), "Value": 3})),
        ("since", json!("/Date(1704153600000)/")),
        ("creditonhold", json!(true)),
        ("accountid", json!(id)),
        ("modifiedon", json!("/Date(1767323045000)/")),
        (
            "msdyn_company",
            json!({"__type": format!("EntityReference:{contracts}"), "Id": company, "KeyAttributes": [],
                "LogicalName": "cdm_company", "Name": null, "RowVersion": null}),
        ),
    ] {
        assert_eq!(*value(attributes, name), wanted, "{name}");
    }
    assert!(!keys(attributes).contains(&"description"), "only what was set: {attributes}");
    assert_eq!(*value(&target["FormattedValues"], "customertypecode"), "Customer");

    let image = |member: &str| value(&context[member], "img")["Attributes"].clone();
    assert_eq!(*value(&image("PreEntityImages"), "name"), "before");
    assert_eq!(*value(&image("PostEntityImages"), "name"), "after");
    let names = image("PostEntityImages");
    assert_eq!(
        keys(&names).into_iter().collect::<std::collections::BTreeSet<_>>(),
        ["accountid", "creditlimit", "name"].into()
    );

    drained(&system).await;
    let jobs = system.json("asyncoperations?$select=statecode,statuscode,messagename,_owningextensionid_value").await;
    let jobs = jobs["value"].as_array().expect("jobs").clone();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(jobs[0]["asyncoperationid"], context["OperationId"]);
    assert_eq!((&jobs[0]["statecode"], &jobs[0]["statuscode"]), (&json!(3), &json!(30)));
    assert_eq!(jobs[0]["_owningextensionid_value"], json!(step));
    assert!(receiver.is_quiet());
    system.end().await;
}

/// One case: what a step answers, and what becomes of the row and the job.
#[tokio::test]
async fn answers_decide_about_rows_and_jobs() {
    const SYNC: &str = r#"{"mode":0,"stage":40}"#;
    const BEFORE: &str = r#"{"mode":0,"stage":20}"#;
    const FIRST: &str = r#"{"mode":0,"stage":10}"#;
    const ASYNC: &str = r#"{"mode":1}"#;
    const TIDY: &str = r#"{"mode":1,"asyncautodelete":true}"#;
    for (step, answers, status, rows, sent, job) in [
        (SYNC, vec![200], 204, 1, 1, ""),
        (SYNC, vec![500], 400, 0, 1, ""),
        (SYNC, vec![404], 400, 0, 1, ""),
        (SYNC, vec![302], 400, 0, 1, ""),
        (SYNC, vec![503, 200], 204, 1, 2, ""),
        (SYNC, vec![502, 504], 400, 0, 2, ""),
        (BEFORE, vec![500], 400, 0, 1, ""),
        (FIRST, vec![429], 400, 0, 1, ""),
        (ASYNC, vec![204], 204, 1, 1, "3/30/0"),
        (ASYNC, vec![400], 204, 1, 1, "3/31/0"),
        (ASYNC, vec![500], 204, 1, 1, "3/31/0"),
        (ASYNC, vec![503, 200], 204, 1, 2, "3/30/1"),
        (ASYNC, vec![502, 504], 204, 1, 2, "3/31/1"),
        (TIDY, vec![200], 204, 1, 1, ""),
        (TIDY, vec![500], 204, 1, 1, "3/31/0"),
    ] {
        let case = format!("{step} answering {answers:?}");
        let system = system().await;
        let mut receiver = Receiver::start().await;
        receiver.answers(&answers);
        register(&system, &receiver.url, "Create", "account", serde_json::from_str(step).expect("a step")).await;
        let reply = system.send("POST", "accounts", "", r#"{"name":"A"}"#).await;
        assert_eq!(reply.status, status, "{case}: {}", reply.text);
        if status == 400 {
            assert_eq!(reply.code(), "0x80040265", "{case}");
            assert!(
                reply.text.contains("Endpoint unavailable") && !reply.text.contains("s3cret"),
                "{case}: {}",
                reply.text
            );
        }
        for number in 0..sent {
            receiver.next().await;
            if step != SYNC && number + 1 < sent {
                // The second attempt comes when its time has come.
                while system.json("asyncoperations").await["value"][0]["statecode"] != 1 {
                    tokio::task::yield_now().await;
                }
                system.emulator.clock().advance(std::time::Duration::from_secs(3_600));
            }
        }
        drained(&system).await;
        assert!(receiver.is_quiet(), "{case}: more was sent");
        assert_eq!(system.count("accounts").await, rows, "{case}");
        let jobs = system.json("asyncoperations").await;
        let shown = |job: &Value| format!("{}/{}/{}", job["statecode"], job["statuscode"], job["retrycount"]);
        let jobs = jobs["value"].as_array().expect("jobs").iter().map(shown).collect::<Vec<_>>().join(" ");
        assert_eq!(jobs, job, "{case}");
        system.end().await;
    }
}

#[tokio::test]
async fn nothing_is_sent_for_what_was_rolled_back() {
    let system = system().await;
    let mut receiver = Receiver::start().await;
    register(&system, &receiver.url, "Create", "account", json!({})).await;
    let change_set = dualwright_odata::batch::Item::ChangeSet(vec![
        common::operation("1", "POST", "accounts", "Content-Type: application/json", r#"{"name":"A"}"#),
        common::operation("2", "POST", "accounts", "Content-Type: application/json", r#"{"name":"longer than ten"}"#),
    ]);
    let (status, _) = system.batch(&[change_set], "").await;
    assert_eq!(status, 400);
    ok(&system.send("POST", "accounts", "", r#"{"name":"B"}"#).await);
    let received = receiver.next().await;
    assert!(received.raw.contains("\"B\"") && !received.raw.contains("\"A\""), "{}", received.raw);
    drained(&system).await;
    assert!(receiver.is_quiet());
    system.end().await;
}

#[tokio::test]
async fn what_is_queued_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.sqlite");
    let open = || {
        let clock = Clock::standing_at(START_MICROS);
        let emulator = Emulator::open_with_clock(Dialect::Dataverse, Some(&path), clock).expect("opens");
        emulator.define(&tables(Dialect::Dataverse).tables).expect("defines");
        emulator
    };
    let mut receiver = Receiver::start().await;
    receiver.answers(&[503]);
    let system = System::serve(open()).await;
    register(&system, &receiver.url, "Delete", "account", json!({})).await;
    let account = system.create("accounts", r#"{"name":"A"}"#).await;
    let id = account["accountid"].as_str().expect("an id").to_owned();
    ok(&system.send("DELETE", &format!("accounts({id})"), "", "").await);
    let first = receiver.next().await;
    system.end().await;

    // Its second attempt was not due yet; after a restart it is.
    let system = System::serve(open()).await;
    let again = receiver.next().await;
    assert_eq!(first.raw, again.raw);
    let target = value(&again.json()["InputParameters"], "Target").clone();
    assert_eq!((&target["Id"], &target["LogicalName"]), (&json!(id), &json!("account")));
    assert!(target["__type"].as_str().is_some_and(|kind| kind.starts_with("EntityReference:")), "{target}");
    drained(&system).await;
    assert_eq!(one(&system, "asyncoperations?$select=name", "name").await, "Delete of account");
    system.end().await;
}

#[tokio::test]
async fn a_failed_job_is_run_again_on_demand() {
    let system = system().await;
    let mut receiver = Receiver::start().await;
    receiver.answers(&[500]);
    register(&system, &receiver.url, "Create", "account", json!({})).await;
    ok(&system.send("POST", "accounts", "", r#"{"name":"A"}"#).await);
    let first = receiver.next().await;
    drained(&system).await;
    let job = system.json("asyncoperations?$filter=statuscode eq 31").await["value"][0].clone();
    assert_eq!(job["friendlymessage"], "Endpoint unavailable", "{job}");
    assert!(job["message"].as_str().is_some_and(|message| message.contains("500")), "{job}");
    let path = format!("asyncoperations({})", job["asyncoperationid"].as_str().expect("an id"));
    ok(&system.send("PATCH", &path, "", r#"{"statecode":0,"statuscode":0}"#).await);
    let again = receiver.next().await;
    assert_eq!((&first.raw, &first.uri), (&again.raw, &again.uri));
    drained(&system).await;
    assert_eq!(system.json(&path).await["statuscode"], 30);
    system.end().await;
}

/// "When the size of the entire HTTP payload exceeds 256KB", four members are left out.
#[tokio::test]
async fn a_long_message_is_cut() {
    let system = system().await;
    let mut receiver = Receiver::start().await;
    let step = register(&system, &receiver.url, "Create", "account", json!({})).await;
    let body = json!({
        "name": "img", "entityalias": "img", "imagetype": 1, "messagepropertyname": "Id",
        "sdkmessageprocessingstepid@odata.bind": format!("/sdkmessageprocessingsteps({step})"),
    });
    ok(&system.send("POST", "sdkmessageprocessingstepimages", "", &body.to_string()).await);
    for (length, is_cut) in [(20_000, false), (300_000, true)] {
        let body = json!({"name": "A", "description": "d".repeat(length)});
        ok(&system.send("POST", "accounts", "", &body.to_string()).await);
        let received = receiver.next().await;
        assert_eq!(!received.header("x-ms-dynamics-msg-size-exceeded").is_empty(), is_cut, "{length}");
        let context = received.json();
        for member in ["ParentContext", "InputParameters", "PreEntityImages", "PostEntityImages"] {
            assert_eq!(context.get(member).is_none(), is_cut, "{member} of {length}");
        }
        assert_eq!(context["PrimaryEntityName"], "account");
    }
    system.end().await;
}

#[tokio::test]
async fn what_a_caller_may_leave_out() {
    for (headers, status, sent) in [
        ("", 204, 2),
        ("MSCRM.BypassBusinessLogicExecution: CustomSync", 204, 1),
        ("MSCRM.BypassBusinessLogicExecution: CustomAsync", 204, 1),
        ("MSCRM.BypassBusinessLogicExecution: CustomSync,CustomAsync", 204, 0),
        ("MSCRM.BypassBusinessLogicExecution: Everything", 400, 0),
        ("MSCRM.BypassCustomPluginExecution: true", 204, 1),
        ("MSCRM.BypassCustomPluginExecution: false", 204, 2),
        ("MSCRM.BypassBusinessLogicExecutionStepIds: {sync}", 204, 1),
        ("MSCRM.BypassBusinessLogicExecutionStepIds: \"{sync}, {async}\"", 204, 0),
        ("MSCRM.BypassBusinessLogicExecutionStepIds: {sync},{sync},{sync},{sync}", 400, 0),
        ("MSCRM.BypassBusinessLogicExecutionStepIds: none", 400, 0),
    ] {
        let system = system().await;
        let mut receiver = Receiver::start().await;
        let sync = register(&system, &receiver.url, "Create", "account", json!({"mode": 0})).await;
        let queued = register(&system, &receiver.url, "Create", "account", json!({})).await;
        let headers = headers.replace("{sync}", &sync).replace("{async}", &queued);
        let reply = system.send("POST", "accounts", &headers, r#"{"name":"A"}"#).await;
        assert_eq!(reply.status, status, "{headers}: {}", reply.text);
        drained(&system).await;
        let mut count = 0;
        while !receiver.is_quiet() {
            count += 1;
        }
        assert_eq!(count, sent, "{headers}");
        system.end().await;
    }
}

#[tokio::test]
async fn steps_run_by_rank_for_each_row_of_a_bulk_message_and_not_when_disabled() {
    let system = system().await;
    let mut receiver = Receiver::start().await;
    let late =
        register(&system, &format!("{}/late", receiver.url), "Create", "account", json!({"mode": 0, "rank": 2})).await;
    register(&system, &format!("{}/early", receiver.url), "Create", "account", json!({"mode": 0, "rank": 1})).await;
    let bulk = r#"{"Targets":[{"@odata.type":"Microsoft.Dynamics.CRM.account","name":"A"},
        {"@odata.type":"Microsoft.Dynamics.CRM.account","name":"B"}]}"#;
    ok(&system.send("POST", "accounts/Microsoft.Dynamics.CRM.CreateMultiple", "", bulk).await);
    let mut uris = Vec::new();
    for _ in 0..4 {
        uris.push(receiver.next().await.uri);
    }
    let path = |name: &str| format!("/hook/{name}?code=s3cret");
    assert_eq!(uris, [path("early"), path("early"), path("late"), path("late")]);
    let step = format!("sdkmessageprocessingsteps({late})");
    ok(&system.send("PATCH", &step, "", r#"{"statecode":1,"statuscode":2}"#).await);
    ok(&system.send("POST", "accounts", "", r#"{"name":"C"}"#).await);
    assert_eq!(receiver.next().await.uri, path("early"));
    assert!(receiver.is_quiet());
    system.end().await;
}

/// What a step was told: its message, the names of its targets, and of their images.
fn told(received: &Received) -> String {
    let context = received.json();
    let message = received.header("x-ms-dynamics-request-name").to_owned();
    assert_eq!(context["MessageName"], message);
    let name = |entity: &Value| value(&entity["Attributes"], "name").as_str().unwrap_or("-").to_owned();
    let (targets, images, output) = if message.ends_with("Multiple") {
        let targets = value(&context["InputParameters"], "Targets");
        assert_eq!(targets["EntityName"], "account");
        let each = context["PostEntityImagesCollection"].as_array().expect("a list of lists");
        assert_eq!(context["PrimaryEntityId"], json!(uuid::Uuid::nil()));
        let targets = targets["Entities"].as_array().expect("entities").iter().map(name).collect::<Vec<_>>();
        (targets, each.iter().map(|images| name(value(images, "img"))).collect::<Vec<_>>(), "Ids")
    } else {
        let target = value(&context["InputParameters"], "Target");
        (vec![name(target)], vec![name(value(&context["PostEntityImages"], "img"))], "id")
    };
    assert_eq!(keys(&context["OutputParameters"]).contains(&output), message.starts_with("Create"), "{message}");
    format!("{message} {} ({})", targets.join(" "), images.join(" "))
}

/// <https://learn.microsoft.com/power-apps/developer/data-platform/write-plugin-multiple-operation>: a step for one row
/// runs for every row of a message about many, and a step for many runs for a message about one.
#[tokio::test]
async fn pipelines_of_one_row_and_of_many_are_merged() {
    let system = system().await;
    let mut receiver = Receiver::start().await;
    for (message, property) in
        [("Create", "Id"), ("CreateMultiple", "Ids"), ("Update", "Target"), ("UpdateMultiple", "Targets")]
    {
        let step = register(&system, &receiver.url, message, "account", json!({"mode": 0, "stage": 40})).await;
        let image = json!({
            "name": "img", "entityalias": "img", "imagetype": 1, "messagepropertyname": property, "attributes": "name",
            "sdkmessageprocessingstepid@odata.bind": format!("/sdkmessageprocessingsteps({step})"),
        });
        ok(&system.send("POST", "sdkmessageprocessingstepimages", "", &image.to_string()).await);
    }
    let id = common::id;
    let row = |number: u32, name: &str| json!({"@odata.type": "Microsoft.Dynamics.CRM.account", "accountid": id(number), "name": name});
    let many = |rows: &[Value]| json!({"Targets": rows}).to_string();
    let bulk = |message: &str| format!("accounts/Microsoft.Dynamics.CRM.{message}");
    for (method, path, body, wanted) in [
        ("POST", "accounts".to_owned(), row(1, "A").to_string(), vec!["Create A (A)", "CreateMultiple A (A)"]),
        (
            "POST",
            bulk("CreateMultiple"),
            many(&[row(2, "B"), row(3, "C")]),
            vec!["Create B (B)", "Create C (C)", "CreateMultiple B C (B C)"],
        ),
        (
            "PATCH",
            format!("accounts({})", id(1)),
            r#"{"name":"a"}"#.to_owned(),
            vec!["Update a (a)", "UpdateMultiple a (a)"],
        ),
        (
            "POST",
            bulk("UpdateMultiple"),
            many(&[row(1, "x"), row(2, "b")]),
            vec!["Update x (x)", "Update b (b)", "UpdateMultiple x b (x b)"],
        ),
        (
            "POST",
            bulk("UpsertMultiple"),
            many(&[row(1, "y"), row(4, "D"), row(2, "z")]),
            vec!["Update y (y)", "Update z (z)", "UpdateMultiple y z (y z)", "Create D (D)", "CreateMultiple D (D)"],
        ),
        ("DELETE", format!("accounts({})", id(4)), String::new(), vec![]),
    ] {
        ok(&system.send(method, &path, "", &body).await);
        for wanted in wanted {
            assert_eq!(told(&receiver.next().await), wanted, "{method} {path}");
        }
        assert!(receiver.is_quiet(), "{method} {path}");
    }
    // What a step about many refuses, goes as a whole.
    receiver.answers(&[200, 200, 500]);
    let body = many(&[row(5, "E"), row(6, "F")]);
    let reply = system.send("POST", &bulk("CreateMultiple"), "", &body).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "0x80040265"), "{}", reply.text);
    assert_eq!(system.count("accounts").await, 3);
    system.end().await;
}

/// A step for many updates runs when any of the rows names one of its columns, and is told of all of them.
#[tokio::test]
async fn a_filtered_step_about_many_is_told_of_all_rows() {
    let system = system().await;
    let mut receiver = Receiver::start().await;
    let step = json!({"mode": 1, "filteringattributes": "name"});
    register(&system, &receiver.url, "UpdateMultiple", "account", step.clone()).await;
    register(&system, &receiver.url, "Update", "account", step).await;
    let target = |number: u32, column: &str| json!({"@odata.type": "Microsoft.Dynamics.CRM.account", "accountid": common::id(number), column: "x"});
    ok(&system.send("POST", "accounts", "", &target(1, "name").to_string()).await);
    ok(&system.send("POST", "accounts", "", &target(2, "name").to_string()).await);
    for (first, second, many, single) in [("name", "description", 1, 1), ("description", "description", 0, 0)] {
        let body = json!({"Targets": [target(1, first), target(2, second)]}).to_string();
        ok(&system.send("POST", "accounts/Microsoft.Dynamics.CRM.UpdateMultiple", "", &body).await);
        drained(&system).await;
        let mut counts = (0, 0);
        while let Ok(received) = receiver.received.try_recv() {
            let context = received.json();
            if context["MessageName"] == "UpdateMultiple" {
                let all = &value(&context["InputParameters"], "Targets")["Entities"];
                assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
                counts.0 += 1;
            } else {
                counts.1 += 1;
            }
        }
        assert_eq!(counts, (many, single), "{first} {second}");
    }
    let jobs = system.json("asyncoperations?$select=messagename").await;
    let names = jobs["value"].as_array().expect("jobs").iter().map(|job| &job["messagename"]).collect::<Vec<_>>();
    assert_eq!(names, ["UpdateMultiple", "Update"], "{jobs}");
    system.end().await;
}

/// An endpoint that has 60 seconds, which pass when the clock is told so.
#[tokio::test]
async fn a_webhook_is_given_up_after_a_minute() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for (mode, waited_ms, status, job) in
        [(0, 59_999, 204, ""), (0, 60_000, 400, ""), (1, 59_999, 204, "3/30"), (1, 60_000, 204, "3/31")]
    {
        let system = system().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = format!("http://{}/hook", listener.local_addr().expect("address"));
        register(&system, &url, "Create", "account", json!({"mode": mode})).await;
        let clock = system.emulator.clock();
        let endpoint = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            // The minute has begun when anything arrives.
            let length = stream.read(&mut [0; 1024]).await.expect("reads");
            assert!(length > 0);
            clock.advance(std::time::Duration::from_millis(waited_ms));
            if waited_ms < 60_000 {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("writes");
            }
            drained(&system).await;
            stream
        };
        let (reply, _stream) = tokio::join!(system.send("POST", "accounts", "", r#"{"name":"A"}"#), endpoint);
        assert_eq!(reply.status, status, "{mode} {waited_ms}: {}", reply.text);
        assert_eq!(reply.text.contains("did not answer in time"), status == 400, "{}", reply.text);
        let jobs = system.json("asyncoperations?$select=statecode,statuscode").await;
        let shown = |job: &Value| format!("{}/{}", job["statecode"], job["statuscode"]);
        let jobs = jobs["value"].as_array().expect("jobs").iter().map(shown).collect::<Vec<_>>().join(" ");
        assert_eq!(jobs, job, "{mode} {waited_ms}");
        system.end().await;
    }
}

#[tokio::test]
async fn what_cannot_be_registered() {
    let system = system().await;
    for (message, step, part) in [
        ("Create", json!({"stage": 30}), "stage"),
        ("Create", json!({"stage": 20, "mode": 1}), "Asynchronous steps are only supported"),
        ("Create", json!({"mode": 0, "asyncautodelete": true}), "Async auto delete"),
        ("UpsertMultiple", json!({}), "not allowed on the specified message"),
        ("Update", json!({"filteringattributes": "name,nothing"}), "nothing"),
    ] {
        let reply = try_register(&system, "http://127.0.0.1:1/", message, "account", step.clone()).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "0x80040203"), "{message} {step}: {}", reply.text);
        assert!(reply.text.contains(part), "{message} {step}: {}", reply.text);
    }
    for (endpoint, part) in [
        (json!({"name": "a", "url": "http://a/", "contract": 2, "authtype": 4, "authvalue": "s3cret"}), "contract"),
        (json!({"name": "a", "url": "nowhere", "contract": 8, "authtype": 4, "authvalue": "s3cret"}), "absolute"),
        (json!({"name": "a", "url": "http://a/", "contract": 8, "authtype": 5, "authvalue": "s3cret"}), "http headers"),
        (json!({"name": "a", "url": "http://a/", "contract": 8, "authtype": 6, "authvalue": "s3cret"}), "query params"),
        (json!({"name": "a", "url": "http://a/", "contract": 8, "authtype": 2, "authvalue": "s3cret"}), "authtype"),
    ] {
        let reply = system.send("POST", "serviceendpoints", "", &endpoint.to_string()).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "0x80040203"), "{endpoint}: {}", reply.text);
        assert!(reply.text.contains(part) && !reply.text.contains("s3cret"), "{endpoint}: {}", reply.text);
    }
    for (message, kind, attributes, fits) in
        [("Create", 0, "", false), ("Delete", 1, "", false), ("Update", 2, "", true), ("Update", 0, "nothing", false)]
    {
        let step = register(&system, "http://127.0.0.1:1/", message, "account", json!({})).await;
        let reply = add_image(&system, &step, kind, attributes).await;
        assert_eq!(reply.status < 300, fits, "{message} {kind} {attributes}: {}", reply.text);
    }
    let reply = system.get("serviceendpoints?$select=authvalue").await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    let reply = system.get("serviceendpoints?$filter=authvalue eq 's3cret'").await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    system.end().await;
}

/// An HTTPS endpoint is believed when its certificate is, by an authority or on demand.
#[tokio::test]
async fn an_https_endpoint_has_to_be_trusted() {
    // Another emulator is the endpoint; a fault lets it take what is posted to it.
    let endpoint = Emulator::open(Dialect::Dataverse, None).expect("opens");
    let taken = r#"[{"match":{"path":"hook","times":0},"action":{"kind":"answer","status":200}}]"#;
    endpoint.add_faults(FaultPlan::from_json(taken.as_bytes()).expect("a plan").rules);
    let identity = TlsIdentity::generate(&["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("an identity");
    let authority = identity.ca_pem().to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let url = format!("https://{}/hook", listener.local_addr().expect("address"));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let options = ServeOptions { tls: Some(identity), ..ServeOptions::default() };
        let shutdown = async {
            let _ = stopped.await;
        };
        endpoint.serve_with(options, listener, shutdown).await
    });
    let system = system().await;
    register(&system, &url, "Create", "account", json!({"mode": 0})).await;
    let trusting = PostSettings { certificate_authorities: vec![authority], ..PostSettings::default() };
    let credulous = PostSettings { accept_invalid_certificates: true, ..PostSettings::default() };
    for (case, settings, status) in
        [("unknown", PostSettings::default(), 400), ("authority", trusting, 204), ("on demand", credulous, 204)]
    {
        system.emulator.set_post(settings).expect("sets");
        let reply = system.send("POST", "accounts", "", r#"{"name":"A"}"#).await;
        assert_eq!(reply.status, status, "{case}: {}", reply.text);
        assert!(!reply.text.contains("s3cret"), "{case}: {}", reply.text);
    }
    system.end().await;
    drop(stop);
    serving.await.expect("joins").expect("serves");
}

/// Doubled, late and lost events, as an emulator is told to make them.
#[tokio::test]
async fn events_come_twice_late_or_never() {
    for (fault, sent) in [("duplicateEvent", 2), ("loseEvent", 0)] {
        let system = system().await;
        let mut receiver = Receiver::start().await;
        register(&system, &receiver.url, "Create", "account", json!({})).await;
        let plan = format!(r#"[{{"action":{{"kind":"{fault}"}}}}]"#);
        system.emulator.add_faults(FaultPlan::from_json(plan.as_bytes()).expect("a plan").rules);
        ok(&system.send("POST", "accounts", "", r#"{"name":"A"}"#).await);
        drained(&system).await;
        let mut count = 0;
        while !receiver.is_quiet() {
            count += 1;
        }
        assert_eq!(count, sent, "{fault}");
        system.end().await;
    }
}
