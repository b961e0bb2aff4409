//! Failures on demand, and input that nobody should send.

mod common;

use common::{System, operation, shown};
use dualwright_emulator::Dialect;
use dualwright_odata::batch::Item;

const POST: &str = r#"{"CurrencyCode":"EUR"}"#;

#[tokio::test]
async fn faults_strike_before_or_after_the_write() {
    for (action, status, code, applied) in [
        (
            r#"{"kind":"answer","status":429,"code":"0x80072322","message":"wait","retryAfter":7}"#,
            Some(429),
            "0x80072322",
            false,
        ),
        (r#"{"kind":"answer","status":503,"retryAfter":"Sun, 06 Nov 1994 08:49:37 GMT"}"#, Some(503), "", false),
        (r#"{"kind":"answer","status":502,"afterApplying":true}"#, Some(502), "", true),
        (r#"{"kind":"reset"}"#, None, "", false),
        (r#"{"kind":"applyThenReset"}"#, None, "", true),
        (r#"{"kind":"slow","ms":1}"#, Some(201), "", true),
    ] {
        let system = System::start(Dialect::Finops).await;
        let rule = format!(r#"[{{"match":{{"method":"POST","path":"Currencies","body":"EUR"}},"action":{action}}}]"#);
        assert_eq!(system.send("POST", "/_emulator/faults", "", &rule).await.status, 204, "{rule}");
        assert_eq!(system.get("Currencies").await.status, 200);
        let reply = system.try_send("POST", "Currencies", "", POST).await;
        assert_eq!(reply.as_ref().ok().map(|reply| reply.status), status, "{action}");
        if let Ok(reply) = reply {
            assert_eq!(reply.code(), code, "{action}");
            assert_eq!(!reply.header("retry-after").is_empty(), action.contains("retryAfter"), "{action}");
        }
        assert_eq!(system.count("Currencies").await == 1, applied, "{action}");
        // It struck once.
        let again = system.send("POST", "Currencies", "", POST).await.status;
        assert_eq!(again, if applied { 400 } else { 201 }, "{action}");
        system.end().await;
    }
}

#[tokio::test]
async fn a_hanging_answer_ends_with_the_caller_or_the_system() {
    let system = System::start(Dialect::Finops).await;
    let rules = r#"[{"match":{"times":0},"action":{"kind":"hang","afterApplying":true}}]"#;
    system.send("POST", "/_emulator/faults", "", rules).await;
    let url = format!("{}/data/Currencies", system.base);
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let abandoned = tokio::spawn(client.post(&url).body(POST).send());
    while system.count("Currencies").await < 1 {
        tokio::task::yield_now().await;
    }
    abandoned.abort();
    assert!(abandoned.await.expect_err("it hangs").is_cancelled());
    assert_eq!(system.send("DELETE", "/_emulator/faults", "", "").await.status, 204);
    assert_eq!(system.get("Currencies").await.column("CurrencyCode"), ["EUR"]);
    system.send("POST", "/_emulator/faults", "", rules).await;
    let asking = tokio::spawn(client.post(url).body(r#"{"CurrencyCode":"USD"}"#).send());
    while system.count("Currencies").await < 2 {
        tokio::task::yield_now().await;
    }
    system.end().await;
    assert!(asking.await.expect("joins").is_err());
}

#[tokio::test]
async fn faults_strike_inside_batches() {
    let system = System::start(Dialect::Dataverse).await;
    let rules = r#"[{"match":{"operation":true,"path":"contacts","body":"bad","times":2},
        "action":{"kind":"answer","status":400,"code":"0x80040265","message":"a plug-in says no"}}]"#;
    assert_eq!(system.send("POST", "/_emulator/faults", "", rules).await.status, 204);
    let contact = |id: &str, name: &str| {
        operation(id, "POST", "/api/data/v9.2/contacts", "", &format!(r#"{{"lastname":"{name}"}}"#))
    };
    let set = || Item::ChangeSet(vec![contact("1", "good"), contact("2", "bad")]);
    for wanted in ["[400/0x80040265/2]", "[400/0x80040265/2]", "[204 204]"] {
        let (_, answers) = system.batch(&[set()], "").await;
        assert_eq!(shown(&answers), wanted);
    }
    assert_eq!(system.count("contacts").await, 2);
    for rules in
        ["{}", "[{}]", r#"[{"action":{"kind":"explode"}}]"#, r#"[{"match":{"nosuch":1},"action":{"kind":"reset"}}]"#]
    {
        assert_eq!(system.send("POST", "/_emulator/faults", "", rules).await.status, 400, "{rules}");
    }
}

#[tokio::test]
async fn a_split_change_set_keeps_what_came_before_the_refusal() {
    let system = System::start(Dialect::Dataverse).await;
    let contact = |id: &str, body: &str| operation(id, "POST", "contacts", "", body);
    let set = || Item::ChangeSet(vec![contact("1", r#"{"lastname":"good"}"#), contact("2", r#"{"nosuch":1}"#)]);
    for (split, kept) in [(false, 0), (true, 1)] {
        if split {
            let rule = r#"[{"match":{"path":"$batch","times":0},"action":{"kind":"splitChangeSets"}}]"#;
            assert_eq!(system.send("POST", "/_emulator/faults", "", rule).await.status, 204);
        }
        let (_, answers) = system.batch(&[set()], "").await;
        assert!(shown(&answers).starts_with("[400/"), "{}", shown(&answers));
        assert_eq!(system.count("contacts").await, kept, "split: {split}");
    }
    system.end().await;
}

#[tokio::test]
async fn an_emulator_can_lack_what_a_link_installs() {
    for (dialect, set) in [(Dialect::Dataverse, "dualwright_fences"), (Dialect::Finops, "DualwrightFences")] {
        let system = System::start(dialect).await;
        assert_eq!(system.get(set).await.status, 200);
        assert_eq!(system.send("DELETE", "/_emulator/link-package", "", "").await.status, 204);
        assert_eq!(system.get(set).await.status, 404);
        system.end().await;
    }
}

/// Always the same damages of valid requests: each is answered, and the system is well afterwards.
#[tokio::test]
async fn damaged_requests_are_answered() {
    const SPICE: &[&str] =
        &["'", "(", ")", "%27", "%", ",", "=", "$", "/", "\0", "é", "{", "}", "\"", "[", "@", " ", "-", "9"];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below.max(1)
    };
    let mut damaged = |text: &str| {
        let mut text = text.to_owned();
        for _ in 0..=next(3) {
            let places = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect::<Vec<_>>();
            let at = places[next(places.len())];
            match next(3) {
                0 => text.truncate(at),
                1 => text.insert_str(at, SPICE[next(SPICE.len())]),
                _ => {
                    let to = places[next(places.len())];
                    text.replace_range(at.min(to)..at.max(to), "");
                }
            }
        }
        text
    };
    for (dialect, paths, body, set) in [
        (
            Dialect::Dataverse,
            [
                "accounts(accountnumber='A1',_msdyn_company_value=00000000-0000-0000-0000-000000000901)?$select=name",
                "accounts?$filter=name eq 'x' and (creditlimit gt 5 or msdyn_Company/cdm_companycode eq 'y')&$orderby=name desc",
                "accounts?$skiptoken=7b226166746572223a312c226c656674223a6e756c6c2c226f72646572223a5b5d7d&$top=3",
                "accounts?$deltatoken=7b2276657273696f6e223a322c22697373756564223a31373030303030303030307d",
                "EntityDefinitions(LogicalName='account')/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata",
            ],
            r#"{"name":"n","creditlimit":1.5,"since":"2024-01-02","msdyn_Company@odata.bind":"/cdm_companies(cdm_companycode='u')"}"#,
            "accounts",
        ),
        (
            Dialect::Finops,
            [
                "CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')?cross-company=true&$select=Days",
                "CustomerGroups?$filter=IsPriceWithTax eq Microsoft.Dynamics.DataEntities.NoYes'Yes' or Description eq 'U*'&$top=3",
                "DualwrightChanges?$filter=ControlNumber gt 5 and ControlNumber le 99&$orderby=ControlNumber desc&$skip=2",
                "/metadata/PublicEntities('CustomerGroup')",
                "/_emulator/audit?after=5",
            ],
            r#"{"CustomerGroupId":"X","Days":5,"Rate":1e3,"IsPriceWithTax":"Yes","Since":"2024-01-02T03:04:05Z"}"#,
            "CustomerGroups",
        ),
    ] {
        let system = System::start(dialect).await;
        let escape = |text: &str| {
            text.bytes().fold(String::new(), |mut out, byte| {
                if byte.is_ascii_graphic() && byte != b'#' && byte != b'"' {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
                out
            })
        };
        for round in 0..300 {
            for path in paths {
                let path = escape(&damaged(path));
                let method = ["GET", "PATCH", "DELETE", "PUT"][round % 4];
                let reply = system.send(method, &path, "", &damaged(body)).await;
                assert!(reply.status != 500, "{method} {path}: {}", reply.text);
            }
            let body = damaged(body);
            let reply = system.send("POST", set, "Prefer: return=representation", &body).await;
            assert!(reply.status != 500, "{body}: {}", reply.text);
            let set = Item::ChangeSet(vec![operation("1", "POST", set, "", &body)]);
            let (content_type, batch) = dualwright_odata::batch::encode_requests(&[set]);
            let batch = damaged(&String::from_utf8_lossy(&batch));
            let reply = system.send("POST", "$batch", &format!("Content-Type: {content_type}"), &batch).await;
            assert!(reply.status != 500, "{batch}: {}", reply.text);
        }
        assert_eq!(system.get("/").await.status, 200);
        system.emulator.audit().expect("audit");
        system.end().await;
    }
}
