//! Faults that bend what a system does, and faults by chance.

mod common;

use common::{System, operation, shown};
use dualwright_emulator::{Clock, Dialect, Emulator, FaultPlan};
use dualwright_odata::batch::Item;
use serde_json::{Value, json};

async fn order(system: &System, rules: &str) {
    let reply = system.send("POST", "/_emulator/faults", "", rules).await;
    assert_eq!(reply.status, 204, "{rules}: {}", reply.text);
}

#[tokio::test]
async fn a_held_answer_comes_after_a_later_one() {
    let system = System::start(Dialect::Finops).await;
    order(&system, r#"[{"match":{"method":"POST","body":"EUR"},"action":{"kind":"hold","answers":2,"msMax":600000}}]"#)
        .await;
    let url = format!("{}/data/Currencies", system.base);
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let held = tokio::spawn(client.post(url).body(r#"{"CurrencyCode":"EUR"}"#).send());
    while system.count("Currencies").await < 1 {
        tokio::task::yield_now().await;
    }
    // It is applied, and its answer waits for two others.
    assert_eq!(system.get("Currencies").await.column("CurrencyCode"), ["EUR"]);
    assert!(!held.is_finished());
    assert_eq!(system.get("Currencies").await.status, 200);
    assert_eq!(held.await.expect("joins").expect("an answer").status(), 201);
    let order = system.emulator.requests();
    assert_eq!(order.iter().map(|entry| entry.method.as_str()).collect::<Vec<_>>(), ["POST", "GET", "GET"]);
    system.end().await;
}

#[tokio::test]
async fn a_stale_write_gets_through_when_ordered() {
    let system = System::start(Dialect::Dataverse).await;
    let contact = system.create("contacts", r#"{"lastname":"A"}"#).await;
    let path = format!("contacts({})", contact["contactid"].as_str().expect("an id"));
    let stale = format!("If-Match: {}", contact["@odata.etag"].as_str().expect("an etag"));
    assert!(system.send("PATCH", &path, "", r#"{"lastname":"B"}"#).await.status < 300);
    let patch = async || system.send("PATCH", &path, &stale, r#"{"lastname":"C"}"#).await.status;
    assert_eq!(patch().await, 412);
    order(&system, r#"[{"action":{"kind":"ignoreIfMatch"}}]"#).await;
    assert_eq!(patch().await, 204);
    assert_eq!(patch().await, 412);
    let set = || {
        let url = format!("/api/data/v9.2/{path}");
        Item::ChangeSet(vec![operation("1", "PATCH", &url, &stale, r#"{"lastname":"D"}"#)])
    };
    let refused = shown(&system.batch(&[set()], "").await.1);
    assert!(refused.starts_with("[412"), "{refused}");
    order(&system, r#"[{"match":{"operation":true,"method":"PATCH"},"action":{"kind":"ignoreIfMatch"}}]"#).await;
    assert_eq!(shown(&system.batch(&[set()], "").await.1), "[204]");
    system.end().await;
}

#[tokio::test]
async fn values_are_changed_on_their_way_in() {
    for dialect in [Dialect::Dataverse, Dialect::Finops] {
        let system = System::start(dialect).await;
        let (set, text, number, row) = match dialect {
            Dialect::Dataverse => ("accounts", "name", "rate", r#"{"name":" Ab ","rate":1.2345}"#),
            Dialect::Finops => (
                "CustomerGroups",
                "Description",
                "Rate",
                r#"{"dataAreaId":"dat","CustomerGroupId":"1","Description":" Ab ","Rate":1.2345}"#,
            ),
        };
        let rule = |column: &str, how: Value| json!({"action": {"kind": "normalise", "set": set, "column": column, "how": how}});
        let rules = json!([
            rule(text, json!("trim")),
            rule(text, json!("upper")),
            rule(text, json!({"truncate": 1})),
            rule(number, json!({"round": 1})),
            rule("nosuch", json!("lower")),
        ]);
        order(&system, &rules.to_string()).await;
        let made = system.create(set, row).await;
        assert_eq!((&made[text], &made[number]), (&json!("A"), &json!(1.2)), "{made}");
        // A seed is not a write, and without the rules a write is kept as it is.
        system.send("DELETE", "/_emulator/faults", "", "").await;
        let kept = system.create(set, &row.replace("\"1\"", "\"2\"")).await;
        assert_eq!(kept[number], json!(1.2345), "{kept}");
        system.end().await;
    }
}

#[tokio::test]
async fn a_clock_lies_and_delta_links_expire() {
    let emulator =
        Emulator::open_with_clock(Dialect::Dataverse, None, Clock::standing_at(784_111_777_000_000)).expect("opens");
    emulator.define(&common::tables(Dialect::Dataverse).tables).expect("defines");
    let system = System::serve(emulator).await;
    assert_eq!(system.get("contacts").await.header("date"), "Sun, 06 Nov 1994 08:49:37 GMT");
    order(&system, r#"[{"match":{"method":"POST"},"action":{"kind":"skew","ms":-3600000}}]"#).await;
    let contact = system.create("contacts", r#"{"lastname":"A"}"#).await;
    assert_eq!(contact["createdon"], "1994-11-06T07:49:37Z");
    assert_eq!(system.get("contacts").await.header("date"), "Sun, 06 Nov 1994 07:49:37 GMT");

    let track = "Prefer: odata.track-changes";
    let link = async || {
        let page = system.send("GET", "contacts?$select=lastname", track, "").await.json();
        page["@odata.deltaLink"].as_str().expect("a link").to_owned()
    };
    let before = link().await;
    assert_eq!(system.get(&before).await.status, 200);
    order(&system, r#"[{"match":{"path":"$deltatoken"},"action":{"kind":"expireDeltaLinks"}}]"#).await;
    let refused = system.get(&before).await;
    assert_eq!((refused.status, refused.code().as_str()), (410, "0x80044352"), "{}", refused.text);
    assert_eq!(system.get(&link().await).await.status, 200, "links of later are good");
    system.end().await;
}

#[tokio::test]
async fn both_forms_of_retry_after_are_sent() {
    let emulator =
        Emulator::open_with_clock(Dialect::Finops, None, Clock::standing_at(784_111_777_000_000)).expect("opens");
    emulator.define(&common::tables(Dialect::Finops).tables).expect("defines");
    let system = System::serve(emulator).await;
    for (after, wanted) in [("3", "3"), (r#"{"dateAfterSeconds":3}"#, "Sun, 06 Nov 1994 08:49:40 GMT")] {
        order(&system, &format!(r#"[{{"action":{{"kind":"answer","status":429,"retryAfter":{after}}}}}]"#)).await;
        let reply = system.get("Currencies").await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, wanted));
    }
    system.end().await;
}

/// The same seed and the same requests, twice: the same answers.
#[tokio::test]
async fn chance_repeats_itself() {
    let plan = r#"{"random":{"seed":SEED,"msMax":1,"match":{"method":"POST"},
        "rates":{"reject":0.1,"lose":0.1,"slow":0.1,"reset":0.1,"throttle":0.1,"serverError":0.1}}}"#;
    let play = async |seed: &str| {
        let system = System::start(Dialect::Dataverse).await;
        order(&system, &plan.replace("SEED", seed)).await;
        let mut answers = Vec::new();
        for number in 0..60 {
            let body = format!(r#"{{"lastname":"{number}"}}"#);
            let reply = system.try_send("POST", "contacts", "", &body).await;
            answers.push(reply.map_or(0, |reply| reply.status));
            assert_eq!(system.get("contacts?$top=1").await.status, 200, "only writes are exposed");
        }
        let faults = system.json("/_emulator/faults").await;
        let rows = system.count("contacts").await;
        system.end().await;
        (answers, faults, rows)
    };
    let first = play("11").await;
    assert_eq!(first, play("11").await);
    assert_ne!(first.0, play("12").await.0);
    let (answers, faults, rows) = first;
    let random = &faults["random"];
    assert_eq!((&random["seed"], &random["requests"]), (&json!(11), &json!(60)), "{faults}");
    let hits = |kind: &str| random["hits"][kind].as_u64().unwrap_or(0);
    let of = |statuses: &[u16]| answers.iter().filter(|status| statuses.contains(status)).count() as u64;
    assert_eq!(of(&[400]), hits("reject"), "{faults}");
    assert_eq!(of(&[429]), hits("throttle"));
    assert_eq!(of(&[500, 502, 503, 504]), hits("serverError"));
    assert_eq!(of(&[0]), hits("lose") + hits("reset"));
    let applied = rows as u64;
    assert!(
        of(&[204]) + hits("lose") <= applied && applied <= of(&[204]) + hits("lose") + hits("serverError"),
        "{faults}"
    );
}

#[test]
fn a_plan_is_added_by_the_library_too() {
    let emulator = Emulator::open(Dialect::Dataverse, None).expect("opens");
    let plan = FaultPlan::from_json(br#"{"rules":[{"action":{"kind":"reset"}}]}"#).expect("reads");
    assert_eq!(plan.rules.len(), 1);
    emulator.add_fault_plan(plan);
    emulator.clear_faults();
}
