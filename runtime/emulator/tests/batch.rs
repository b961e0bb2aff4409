//! `$batch` on both systems: order, atomicity, references, limits; and the receipt and fence that clients put into it.

mod common;

use common::{System, id, operation, shown};
use dualwright_emulator::Dialect;
use dualwright_odata::batch::{Item, Request, Response};

const ACCOUNTS: &str = "/api/data/v9.2/accounts";

fn post(content_id: &str, name: &str) -> Request {
    operation(content_id, "POST", ACCOUNTS, "Content-Type: application/json", &format!(r#"{{"name":"{name}"}}"#))
}

fn get(path: &str) -> Item<Request> {
    Item::Single(operation("", "GET", path, "", ""))
}

#[tokio::test]
async fn a_change_set_is_applied_as_one_or_not_at_all() {
    let system = System::start(Dialect::Dataverse).await;
    let known = system.create("accounts", r#"{"name":"known"}"#).await;
    let row = format!("{ACCOUNTS}({})", known["accountid"].as_str().expect("id"));
    let patch = |id: &str, headers: &str, body: &str| operation(id, "PATCH", &row, headers, body);
    let set = |operations: Vec<Request>| Item::ChangeSet(operations);
    for (items, headers, status, wanted, count) in [
        (vec![set(vec![post("1", "a"), post("2", "b")])], "", 200, "[204 204]", 3),
        (vec![set(vec![post("1", "a"), post("2", "far too long")])], "", 400, "[400/0x80044331/2]", 3),
        (
            vec![set(vec![post("7", "a"), patch("x", "If-Match: W/\"999999\"", r#"{"name":"b"}"#)])],
            "",
            412,
            "[412/0x80060882/x]",
            3,
        ),
        (
            vec![set(vec![post("1", "a")]), set(vec![post("1", "far too long")]), set(vec![post("1", "b")])],
            "",
            400,
            "[204] [400/0x80044331/1]",
            4,
        ),
        (
            vec![set(vec![post("1", "a")]), set(vec![post("1", "far too long")]), set(vec![post("1", "b")])],
            "Prefer: odata.continue-on-error",
            200,
            "[204] [400/0x80044331/1] [204]",
            6,
        ),
        (
            vec![Item::Single(post("", "a")), Item::Single(post("", "far too long")), Item::Single(post("", "b"))],
            "",
            400,
            "204 400/0x80044331",
            7,
        ),
        (vec![get("accounts?$top=1"), get("/api/data/v9.2/nosuch"), get(&row)], "", 404, "200 404/0x80060888", 7),
        (
            vec![get("accounts?$top=1"), get("/api/data/v9.2/nosuch"), get(&row)],
            "Prefer: odata.continue-on-error",
            200,
            "200 404/0x80060888 200",
            7,
        ),
        (vec![set(vec![post("1", "a"), operation("2", "GET", ACCOUNTS, "", "")])], "", 400, "[400/0x80060888/2]", 7),
        (vec![set(vec![])], "", 200, "[]", 7),
        // A row is updated in the version that the same set gave it.
        (
            vec![set(vec![patch("1", "If-Match: *", r#"{"name":"c"}"#), patch("2", "If-Match: *", r#"{"name":"d"}"#)])],
            "",
            200,
            "[204 204]",
            7,
        ),
    ] {
        let (found, answers) = system.batch(&items, headers).await;
        assert_eq!((found, shown(&answers).as_str()), (status, wanted), "{items:?}");
        assert_eq!(system.count("accounts").await, count, "{wanted}");
    }
    assert_eq!(system.json(&row).await["name"], "d");
    let names = system.get("accounts?$filter=name eq 'far too long'").await.column("name");
    assert!(names.is_empty());
}

#[tokio::test]
async fn operations_refer_to_rows_of_the_same_set() {
    let system = System::start(Dialect::Dataverse).await;
    let contact = |number: u32, link: &str| {
        let body = format!(
            r#"{{"contactid":"{}","lastname":"c{number}","parentcustomerid_account@odata.bind":"{link}"}}"#,
            id(number)
        );
        operation(&number.to_string(), "POST", "/api/data/v9.2/contacts", "", &body)
    };
    let account = operation("9", "POST", ACCOUNTS, "", &format!(r#"{{"accountid":"{}","name":"a"}}"#, id(100)));
    for (operations, wanted) in [
        (vec![contact(1, "$9")], "[400/0x80048d19/1]"),
        (vec![contact(1, &format!("/accounts({})", id(100)))], "[404/0x80040217/1]"),
        (vec![contact(1, "$9"), account.clone()], "[400/0x80048d19/1]"),
        (
            vec![
                account,
                contact(1, "$9"),
                contact(2, &format!("/accounts({})", id(100))),
                operation("8", "PATCH", "$9", "", r#"{"name":"b"}"#),
                operation("7", "PATCH", "/api/data/v9.2/$1", "", r#"{"lastname":"z"}"#),
            ],
            "[204 204 204 204 204]",
        ),
    ] {
        let (_, answers) = system.batch(&[Item::ChangeSet(operations)], "").await;
        assert_eq!(shown(&answers), wanted);
    }
    assert_eq!(system.json(&format!("accounts({})", id(100))).await["name"], "b");
    assert_eq!(system.json(&format!("contacts({})", id(1))).await["lastname"], "z");
    let linked = system.get(&format!("contacts?$filter=_parentcustomerid_value eq {}", id(100))).await;
    assert_eq!(linked.column("lastname"), ["z", "c2"]);
}

#[tokio::test]
async fn a_batch_has_a_limit_and_a_form() {
    let system = System::start(Dialect::Dataverse).await;
    let rows = |count: usize| (0..count).map(|row| post(&(row + 1).to_string(), "n")).collect::<Vec<_>>();
    let (status, answers) = system.batch(&[Item::ChangeSet(rows(1_000))], "").await;
    assert_eq!(status, 200);
    assert!(matches!(answers.as_slice(), [Item::ChangeSet(all)] if all.len() == 1_000));
    assert_eq!(system.count("accounts").await, 1_000);
    let (content_type, body) = dualwright_odata::batch::encode_requests(&[Item::ChangeSet(rows(1_001))]);
    let body = String::from_utf8(body).expect("text");
    let refused = system.send("POST", "$batch", &format!("Content-Type: {content_type}"), &body).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    for (method, content_type, body, status) in [
        ("POST", "application/json", "{}", 400),
        ("POST", "multipart/mixed", "", 400),
        ("POST", "multipart/mixed; boundary=b", "--b\r\nnonsense", 400),
        ("POST", "multipart/mixed; boundary=b", "--b--", 200),
        ("GET", "multipart/mixed; boundary=b", "", 405),
    ] {
        let reply = system.send(method, "$batch", &format!("Content-Type: {content_type}"), body).await;
        assert_eq!(reply.status, status, "{method} {content_type} {body}: {}", reply.text);
    }
    assert_eq!(system.count("accounts").await, 1_000);
}

/// Receipt and fence as the runtime writes them, on both systems.
#[tokio::test]
async fn receipts_and_fences_hold() {
    for dialect in [Dialect::Dataverse, Dialect::Finops] {
        let system = System::start(dialect).await;
        let (fences, fence, epoch, receipts, receipt, row) = match dialect {
            Dialect::Dataverse => (
                "dualwright_fences",
                "dualwright_fences(dualwright_partition='p%2F1')",
                "dualwright_epoch",
                "/api/data/v9.2/dualwright_receipts",
                "dualwright_transactionid",
                post("3", "n"),
            ),
            Dialect::Finops => (
                "DualwrightFences",
                "DualwrightFences(PartitionId='p%2F1')",
                "Epoch",
                "/data/DualwrightReceipts",
                "TransactionId",
                operation("3", "POST", "/data/Currencies", "", r#"{"CurrencyCode":"EUR"}"#),
            ),
        };
        let partition = if dialect == Dialect::Dataverse { "dualwright_partition" } else { "PartitionId" };
        let root = if dialect == Dialect::Dataverse { "/api/data/v9.2/" } else { "/data/" };
        let body = format!(r#"{{"{epoch}":1,"{partition}":"p/1"}}"#);
        assert_eq!(system.get(fence).await.status, 404);
        let first = system.create(fences, &body).await;
        let taken = system.send("POST", fences, "", &body).await;
        assert!(matches!(taken.status, 400 | 412) && taken.text.contains("already exists"), "{}", taken.text);
        let set = |version: &str, transaction: &str, row: &Request| {
            Item::ChangeSet(vec![
                operation(
                    "1",
                    "PATCH",
                    &format!("{root}{fence}"),
                    &format!("If-Match: {version}\nPrefer: return=representation"),
                    &format!(r#"{{"{epoch}":1}}"#),
                ),
                operation("2", "POST", receipts, "", &format!(r#"{{"{receipt}":"{transaction}"}}"#)),
                row.clone(),
            ])
        };
        let version = first["@odata.etag"].as_str().expect("etag").to_owned();
        let (_, answers) = system.batch(&[set(&version, "t1", &row)], "").await;
        let [Item::ChangeSet(applied)] = answers.as_slice() else { panic!("{}", shown(&answers)) };
        let after: serde_json::Value = serde_json::from_slice(&applied[0].body).expect("fence");
        // The fence has a new version, although its epoch is what it was.
        let next = after["@odata.etag"].as_str().expect("etag").to_owned();
        assert_ne!(next, version);
        let refused = |answers: &[Item<Response>]| match answers {
            [Item::Single(one)] => (one.status, one.content_id.clone().unwrap_or_default()),
            [Item::ChangeSet(all)] if all.len() == 1 => (all[0].status, all[0].content_id.clone().unwrap_or_default()),
            other => panic!("{}", shown(other)),
        };
        // The late twin of the request, and a repetition with the right fence.
        let (_, late) = system.batch(&[set(&version, "t1", &row)], "").await;
        assert_eq!(refused(&late), (412, "1".to_owned()));
        let (_, again) = system.batch(&[set(&next, "t1", &row)], "").await;
        let duplicate = if dialect == Dialect::Dataverse { 412 } else { 400 };
        assert_eq!(refused(&again), (duplicate, "2".to_owned()));
        assert_eq!(system.json(fence).await["@odata.etag"], next.as_str());
        let path = format!("{}({receipt}='t1')", receipts.trim_start_matches(root));
        assert_eq!(system.get(&path).await.status, 200);
        assert_eq!(system.get(&path.replace("t1", "t2")).await.status, 404);

        let audit = system.emulator.audit().expect("audit");
        let lines = audit
            .iter()
            .map(|one| format!("{} {} {}", one.operation, one.set, one.receipt.as_deref().unwrap_or_default()))
            .collect::<Vec<_>>();
        let set = if dialect == Dialect::Dataverse { "accounts" } else { "Currencies" };
        assert_eq!(lines, [format!("Insert {set} t1")]);
    }
}
