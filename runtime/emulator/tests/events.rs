//! Business events and data events, received over HTTP.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use common::{System, operation};
use dualwright_emulator::Dialect;
use dualwright_odata::batch::Item;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// An endpoint that keeps what it got, and answers what it was told to, or 200.
struct Receiver {
    url: String,
    answers: Arc<Mutex<VecDeque<u16>>>,
    got: mpsc::UnboundedReceiver<Value>,
}

#[derive(Clone)]
struct Receiving {
    answers: Arc<Mutex<VecDeque<u16>>>,
    send: mpsc::UnboundedSender<Value>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = format!("http://{}/events", listener.local_addr().expect("address"));
        let (send, got) = mpsc::unbounded_channel();
        let answers = Arc::<Mutex<VecDeque<u16>>>::default();
        let state = Receiving { answers: Arc::clone(&answers), send };
        let receive = |State(state): State<Receiving>, body: axum::body::Bytes| async move {
            let _ = state.send.send(serde_json::from_slice(&body).expect("JSON"));
            let status = state.answers.lock().expect("answers").pop_front().unwrap_or(200);
            StatusCode::from_u16(status).expect("a status")
        };
        let router = Router::new().fallback(receive).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, answers, got }
    }

    async fn next(&mut self) -> Value {
        tokio::time::timeout(Duration::from_secs(30), self.got.recv())
            .await
            .expect("an event in time")
            .expect("an event")
    }
}

async fn own(system: &System, method: &str, path: &str, body: Value) -> common::Reply {
    system.send(method, &format!("/_emulator/events{path}"), "", &body.to_string()).await
}

async fn activate(system: &System, receiver: &Receiver, events: &[(&str, &str)]) {
    let endpoint = json!({"name": "receiver", "url": receiver.url});
    assert_eq!(own(system, "PUT", "/endpoints", endpoint).await.status, 204);
    for (event, company) in events {
        let activation = json!({"event": event, "legalEntity": company, "endpoint": "receiver"});
        let reply = own(system, "PUT", "/activations", activation).await;
        assert_eq!(reply.status, 204, "{event}: {}", reply.text);
    }
}

fn group(company: &str, group: &str) -> String {
    json!({"dataAreaId": company, "CustomerGroupId": group, "Days": 5, "IsPriceWithTax": "Yes"}).to_string()
}

#[tokio::test]
async fn a_business_event_is_told_after_the_commit_in_its_legal_entity() {
    let system = System::start(Dialect::Finops).await;
    let mut receiver = Receiver::start().await;
    activate(&system, &receiver, &[("CustCustomerGroupCreatedBusinessEvent", "USMF")]).await;
    system.create("CustomerGroups", &group("dat", "1")).await;
    // The second operation is refused, so the first has not happened.
    let set = vec![
        operation("1", "POST", "/data/CustomerGroups?cross-company=true", "", &group("usmf", "2")),
        operation("2", "POST", "/data/CustomerGroups?cross-company=true", "", &group("usmf", "2")),
    ];
    system.batch(&[Item::ChangeSet(set)], "").await;
    system.create("CustomerGroups", &group("usmf", "3")).await;
    system.create("CustomerGroups", &group("usmf", "4")).await;
    let mut events = [receiver.next().await, receiver.next().await];
    // There is no order among events; the control number tells.
    events.sort_by_key(|event| event["ControlNumber"].as_i64());
    let keys = events.iter().map(|event| event["CustomerGroupId"].as_str().expect("a key")).collect::<Vec<_>>();
    assert_eq!(keys, ["3", "4"]);
    assert_ne!(events[0]["ControlNumber"], events[1]["ControlNumber"]);
    assert_ne!(events[0]["EventId"], events[1]["EventId"]);
    let event = events[0].as_object().expect("an object");
    let names = event.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>();
    let wanted = [
        "BusinessEventId",
        "BusinessEventLegalEntity",
        "ContextRecordSubject",
        "ControlNumber",
        "CustomerGroupId",
        "EventId",
        "EventTime",
        "EventTimeIso8601",
        "InitiatingUserAADObjectId",
        "LegalEntity",
        "MajorVersion",
        "MinorVersion",
        "ParentContextRecordSubjects",
    ];
    assert_eq!(names, std::collections::BTreeSet::from(wanted), "a notice, and not the record");
    assert_eq!(event["BusinessEventId"], "CustCustomerGroupCreatedBusinessEvent");
    assert_eq!((&event["BusinessEventLegalEntity"], &event["LegalEntity"]), (&json!("usmf"), &json!("usmf")));
    assert_eq!((&event["MajorVersion"], &event["MinorVersion"]), (&json!(0), &json!(0)));
    let time = event["EventTime"].as_str().expect("text");
    assert!(time.starts_with("/Date(") && time.ends_with("000)/"), "{time}");
    assert_eq!(event["EventTimeIso8601"].as_str().map(str::len), Some("2022-12-30T13:51:15.2942742Z".len()));
}

#[tokio::test]
async fn a_data_event_holds_the_record_and_how_it_was() {
    let system = System::start(Dialect::Finops).await;
    let mut receiver = Receiver::start().await;
    let events = ["Created", "Updated", "Deleted"].map(|action| format!("CustCustomerGroupEntity_OnExternal{action}"));
    activate(&system, &receiver, &events.each_ref().map(|event| (event.as_str(), ""))).await;
    let key = "CustomerGroups(dataAreaId='usmf',CustomerGroupId='1')?cross-company=true";
    system.create("CustomerGroups", &group("usmf", "1")).await;
    let created = receiver.next().await;
    system.send("PATCH", key, "", r#"{"Days": 6, "Since": "2024-02-29T00:00:00Z"}"#).await;
    let updated = receiver.next().await;
    system.send("DELETE", key, "", "").await;
    let deleted = receiver.next().await;
    let parameter = |event: &Value, name: &str| {
        let all = event["InputParameters"].as_array().expect("parameters");
        all.iter().find(|one| one["key"] == name).map(|one| one["value"].clone())
    };
    let attribute = |entity: &Value, name: &str| {
        let all = entity["Attributes"].as_array().expect("attributes");
        all.iter().find(|one| one["key"] == name).map(|one| one["value"].clone())
    };
    for (event, message, days, days_before) in [
        (&created, "OnExternalCreated", 5, None),
        (&updated, "OnExternalUpdated", 6, Some(5)),
        (&deleted, "OnExternalDeleted", 6, Some(6)),
    ] {
        assert_eq!(event["MessageName"], message);
        assert_eq!(event["PrimaryEntityName"], "mserp_custcustomergroupentity");
        let target = parameter(event, "Target").expect("a target");
        assert_eq!(target["__type"], "Entity:http://schemas.microsoft.com/xrm/2011/Contracts");
        assert_eq!((&target["Id"], &target["LogicalName"]), (&event["PrimaryEntityId"], &event["PrimaryEntityName"]));
        assert_eq!(attribute(&target, "mserp_days"), Some(json!(days)), "{message}");
        let before = parameter(event, "PreImage").and_then(|image| attribute(&image, "mserp_days"));
        assert_eq!(before, days_before.map(|days| json!(days)), "{message}");
    }
    assert_eq!(created["PrimaryEntityId"], updated["PrimaryEntityId"]);
    let target = parameter(&created, "Target").expect("a target");
    assert_eq!(attribute(&target, "mserp_since"), None, "an empty date is left out");
    let option = attribute(&target, "mserp_ispricewithtax").expect("an option");
    assert_eq!(option["Value"], 200_000_001);
    let target = parameter(&updated, "Target").expect("a target");
    assert_eq!(attribute(&target, "mserp_since"), Some(json!("/Date(1709164800000)/")));
}

#[tokio::test]
async fn three_retries_a_second_apart_then_an_error_that_can_be_sent_again() {
    let system = System::start(Dialect::Finops).await;
    let mut receiver = Receiver::start().await;
    activate(&system, &receiver, &[("CurrencyCreatedBusinessEvent", "")]).await;
    receiver.answers.lock().expect("answers").extend([500, 503, 404, 500]);
    system.create("Currencies", r#"{"CurrencyCode": "EUR"}"#).await;
    let first = receiver.next().await;
    for _ in 0..3 {
        // The wait begins when the attempt is booked, so the time moves on until the next attempt arrives.
        let again = loop {
            system.emulator.clock().advance(Duration::from_secs(1));
            match receiver.got.try_recv() {
                Ok(event) => break event,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(again, first, "the same event");
    }
    let error = loop {
        let state = own(&system, "GET", "", json!({})).await.json();
        match state["errors"].as_array().expect("errors").first() {
            Some(error) => break error.clone(),
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!((&error["attempts"], &error["event"]), (&json!(4), &json!("CurrencyCreatedBusinessEvent")));
    assert_eq!(error["payload"], first);
    assert_eq!(own(&system, "POST", "/resend", json!({"id": error["id"]})).await.status, 204);
    assert_eq!(receiver.next().await, first);
}

#[tokio::test]
async fn endpoints_and_activations_are_checked() {
    let system = System::start(Dialect::Finops).await;
    let receiver = Receiver::start().await;
    activate(&system, &receiver, &[("CustCustomerV3UpdatedBusinessEvent", "usmf")]).await;
    for (method, path, body, status, says) in [
        ("PUT", "/endpoints", json!({"name": "x", "url": "ftp://host"}), 400, "https://"),
        ("PUT", "/endpoints", json!({"name": " ", "url": "https://host"}), 400, "name"),
        ("PUT", "/activations", json!({"event": "NoSuchBusinessEvent", "endpoint": "receiver"}), 400, "no event"),
        (
            "PUT",
            "/activations",
            json!({"event": "CurrencyCreatedBusinessEvent", "endpoint": "none"}),
            400,
            "no endpoint",
        ),
        (
            "PUT",
            "/activations",
            json!({"event": "CurrencyEntity_OnExternalCreated", "legalEntity": "usmf", "endpoint": "receiver"}),
            400,
            "not company-specific",
        ),
        ("POST", "/resend", json!({"id": 99}), 400, "no error 99"),
        ("DELETE", "/endpoints?name=none", json!({}), 400, "no such thing"),
        ("GET", "/schema?event=CurrencyEntity_OnExternalCreated", json!({}), 400, "virtual table"),
        ("GET", "/nothing", json!({}), 404, "nothing at"),
    ] {
        let reply = own(&system, method, path, body.clone()).await;
        assert!(reply.status == status && reply.text.contains(says), "{method} {path} {body}: {}", reply.text);
    }
    let activation = |number: usize| json!({"event": "CurrencyCreatedBusinessEvent", "endpoint": format!("e{number}"), "active": number != 3});
    for number in 0..11 {
        let endpoint = json!({"name": format!("e{number}"), "url": "https://localhost:1/"});
        assert_eq!(own(&system, "PUT", "/endpoints", endpoint).await.status, 204);
        let reply = own(&system, "PUT", "/activations", activation(number)).await;
        assert_eq!(reply.status, if number < 10 { 204 } else { 400 }, "{number}: {}", reply.text);
    }
    let path = "/activations?event=CurrencyCreatedBusinessEvent&legalEntity=&endpoint=e0";
    assert_eq!(own(&system, "DELETE", path, json!({})).await.status, 204);
    assert_eq!(own(&system, "PUT", "/activations", activation(10)).await.status, 204);
    let schema = own(&system, "GET", "/schema?event=CustCustomerGroupDeletedBusinessEvent", json!({})).await.json();
    assert_eq!((&schema["CustomerGroupId"], &schema["ControlNumber"]), (&json!(""), &json!(0)));
    assert_eq!(schema["EventTime"], "/Date(-2208988800000)/");
    let catalog = own(&system, "GET", "/catalog", json!({})).await.json();
    let count = |kind: &str| catalog[kind].as_array().expect("a list").len();
    assert_eq!((count("businessEvents"), count("dataEvents")), (9, 9), "three of each for three entities");
}
