//! What lasts: restarts, kills, definitions that grow, seeds, and the audit.

mod common;

use std::process::{Child, Command, Stdio};

use common::{System, id, operation, tables};
use dualwright_emulator::{ColumnDefinition, ColumnKind, Dialect, Emulator, KeyDefinition};
use dualwright_odata::batch::{Item, encode_requests};
use serde_json::{Map, Value, json};

fn row(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let folder = tempfile::tempdir().expect("folder");
    let store = folder.path().join("dataverse.sqlite");
    let system = System::start_on(Dialect::Dataverse, Some(&store)).await;
    system.create("accounts", &format!(r#"{{"accountid":"{}","name":"One"}}"#, id(1))).await;
    let track = "Prefer: odata.track-changes";
    let feed = system.send("GET", "accounts?$select=name", track, "").await.json();
    let delta = feed["@odata.deltaLink"].as_str().expect("link").split_once("/api").expect("path").1.to_owned();
    let before = system.json(&format!("accounts({})", id(1))).await;
    system.end().await;
    // A clean stop leaves one file.
    let files = std::fs::read_dir(folder.path()).expect("folder").count();
    assert_eq!(files, 1);

    let system = System::serve(Emulator::open(Dialect::Dataverse, Some(&store)).expect("opens")).await;
    let mut after = system.json(&format!("accounts({})", id(1))).await;
    after["@odata.context"] = before["@odata.context"].clone();
    assert_eq!(after, before);
    system.create("accounts", &format!(r#"{{"accountid":"{}","name":"Two"}}"#, id(2))).await;
    let changes = system.get(&format!("/api{delta}")).await;
    assert_eq!(changes.column("name"), ["Two"]);
    assert_eq!(system.emulator.audit().expect("audit").len(), 2);
    system.end().await;
    assert!(Emulator::open(Dialect::Finops, Some(&store)).is_err());
    assert!(Emulator::open(Dialect::Dataverse, Some(folder.path())).is_err());
}

/// The other process of the next test: serves a store until it is killed.
#[tokio::test]
async fn serve_until_killed() {
    let Ok(store) = std::env::var("DUALWRIGHT_EMULATOR_STORE") else { return };
    let emulator = Emulator::open(Dialect::Finops, Some(store.as_ref())).expect("opens");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    println!("port={}", listener.local_addr().expect("address").port());
    emulator.serve(listener, std::future::pending()).await.expect("serves");
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test]
async fn a_kill_leaves_whole_change_sets() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().expect("folder");
    let store = folder.path().join("finops.sqlite");
    let emulator = Emulator::open(Dialect::Finops, Some(&store)).expect("opens");
    emulator.define(&tables(Dialect::Finops).tables).expect("defines");
    drop(emulator);
    const SETS: usize = 4;
    const ROWS: usize = 200;
    let client = reqwest_client();
    let (mut acknowledged, mut started) = (0, 0);
    for round in 0..SETS {
        let mut child = Killed(
            Command::new(std::env::current_exe().expect("own path"))
                .args(["--exact", "serve_until_killed", "--nocapture"])
                .env("DUALWRIGHT_EMULATOR_STORE", &store)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("starts"),
        );
        let mut lines = BufReader::new(child.0.stdout.take().expect("output")).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("port=").map(|(_, port)| port.trim().to_owned()))
            .expect("a port");
        // One set is answered; another may be anywhere when the process dies.
        for last in [false, true] {
            let operations = (0..ROWS).map(|row| {
                let body = format!(r#"{{"CustomerAccount":"{round}-{last}-{row}"}}"#);
                operation(&(row + 1).to_string(), "POST", "/data/CustomersV3", "", &body)
            });
            let (content_type, body) = encode_requests(&[Item::ChangeSet(operations.collect())]);
            let request = client
                .post(format!("http://127.0.0.1:{port}/data/$batch"))
                .header("content-type", content_type)
                .body(body);
            started += 1;
            if last {
                let sending = tokio::spawn(request.send());
                tokio::task::yield_now().await;
                child.kill();
                if matches!(sending.await.expect("joins"), Ok(answer) if answer.status() == 200) {
                    acknowledged += 1;
                }
            } else {
                assert_eq!(request.send().await.expect("answers").status(), 200);
                acknowledged += 1;
            }
        }
    }
    let emulator = Emulator::open(Dialect::Finops, Some(&store)).expect("opens");
    let rows = emulator.count("CustomersV3").expect("counts");
    assert_eq!(rows % ROWS, 0, "half a change set");
    assert!((acknowledged..=started).contains(&(rows / ROWS)), "{acknowledged} {started} {}", rows / ROWS);
    assert_eq!(emulator.audit().expect("audit").len(), rows);
    assert_eq!(emulator.count("DualwrightChanges").expect("counts"), rows);
}

fn reqwest_client() -> reqwest::Client {
    // A second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("client")
}

#[tokio::test]
async fn definitions_grow_and_rows_stay() {
    let system = System::start(Dialect::Dataverse).await;
    system.create("accounts", r#"{"name":"One","accountnumber":"A"}"#).await;
    system.create("accounts", r#"{"name":"Two","accountnumber":"A"}"#).await;
    let mut table = tables(Dialect::Dataverse).tables.remove(1);
    assert_eq!(table.name, "account");
    let extra = ColumnDefinition { name: "extra".into(), kind: ColumnKind::Text, ..ColumnDefinition::default() };
    table.columns.insert(0, extra);
    let key = KeyDefinition { name: "by_name".into(), columns: vec!["name".into()], ..KeyDefinition::default() };
    table.alternate_keys.push(key);
    system.emulator.define(&[table.clone()]).expect("grows");
    system.emulator.define(&[table.clone()]).expect("is there already");
    assert_eq!(system.json("accounts(name='TWO')").await["extra"].to_string(), "null");
    assert_eq!(system.send("POST", "accounts", "", r#"{"name":"one"}"#).await.status, 412);
    system.send("PATCH", "accounts(name='one')", "", r#"{"extra":"x"}"#).await;
    assert_eq!(system.json("accounts(name='one')").await["extra"], "x");
    // Rows that do not fit a new key keep it away.
    let by_number =
        KeyDefinition { name: "by_number".into(), columns: vec!["accountnumber".into()], ..KeyDefinition::default() };
    table.alternate_keys.push(by_number);
    assert!(system.emulator.define(&[table.clone()]).is_err());
    assert_eq!(system.get("accounts(accountnumber='A')").await.status, 400);
    table.alternate_keys.pop();
    let nonsense =
        KeyDefinition { name: "nonsense".into(), columns: vec!["nosuch".into()], ..KeyDefinition::default() };
    table.alternate_keys.push(nonsense);
    assert!(system.emulator.define(&[table]).is_err());
    assert_eq!(system.json("accounts(name='one')").await["extra"], "x");
}

#[tokio::test]
async fn seeds_are_upserts_outside_of_audit_and_feed() {
    let system = System::start(Dialect::Finops).await;
    let rows = || vec![row(json!({"CurrencyCode": "EUR", "Name": "Euro"})), row(json!({"CurrencyCode": "USD"}))];
    assert_eq!(system.emulator.seed("Currencies", rows()).expect("seeds"), 2);
    assert_eq!(
        system.emulator.seed("Currencies", vec![row(json!({"CurrencyCode": "eur", "Name": "E"}))]).expect("seeds"),
        1
    );
    assert_eq!(system.emulator.count("Currencies").expect("counts"), 2);
    assert_eq!(system.emulator.rows("Currencies").expect("rows")[0]["Name"], "E");
    for (set, bad) in [
        ("NoSuch", json!({})),
        ("Currencies", json!({"CurrencyCode": "TOOLONG"})),
        ("Currencies", json!({"NoSuch": 1})),
    ] {
        let rows = vec![row(json!({"CurrencyCode": "GBP"})), row(bad.clone())];
        assert!(system.emulator.seed(set, rows).is_err(), "{set} {bad}");
    }
    assert_eq!(system.emulator.count("Currencies").expect("counts"), 2);
    assert!(system.emulator.audit().expect("audit").is_empty());
    assert_eq!(system.emulator.count("DualwrightChanges").expect("counts"), 0);

    let dataverse = System::start(Dialect::Dataverse).await;
    let company = row(json!({"cdm_companyid": id(1), "cdm_companycode": "usmf"}));
    dataverse.emulator.seed("cdm_companies", vec![company]).expect("seeds");
    let account = |name: &str| row(json!({"accountnumber": "A", "name": name, "msdyn_company": id(1)}));
    dataverse.emulator.seed("accounts", vec![account("a"), account("b")]).expect("seeds");
    let rows = dataverse.emulator.rows("accounts").expect("rows");
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["name"], &rows[0]["_msdyn_company_value"]), (&json!("b"), &json!(id(1))));
}

#[tokio::test]
async fn the_audit_tells_every_write_once() {
    let system = System::start(Dialect::Finops).await;
    let key = "Currencies('EUR')";
    system.send("POST", "Currencies", "", r#"{"CurrencyCode":"EUR","Name":"a"}"#).await;
    system.send("PATCH", key, "", r#"{"Name":"b"}"#).await;
    system.send("PATCH", key, "", r#"{"Name":"b"}"#).await;
    system
        .send("PATCH", key, "", r#"{"Name":"far too long for this column, which holds only sixty characters"}"#)
        .await;
    system.send("PATCH", key, "", r#"{"Name":"a"}"#).await;
    system.send("DELETE", key, "", "").await;
    let audit = system.json("/_emulator/audit").await;
    let entries = audit.as_array().expect("list");
    let line =
        |entry: &Value| format!("{} {} {} {}", entry["seq"], entry["operation"], entry["key"], entry["equalBefore"]);
    assert_eq!(
        entries.iter().map(line).collect::<Vec<_>>(),
        [
            r#"1 "Insert" "CurrencyCode='EUR'" false"#,
            r#"2 "Update" "CurrencyCode='EUR'" false"#,
            r#"3 "Update" "CurrencyCode='EUR'" true"#,
            r#"4 "Update" "CurrencyCode='EUR'" false"#,
            r#"5 "Delete" "CurrencyCode='EUR'" false"#,
        ]
    );
    assert_eq!(entries[0]["contentHash"], entries[3]["contentHash"]);
    assert_ne!(entries[0]["contentHash"], entries[1]["contentHash"]);
    assert_eq!(entries[4]["contentHash"], "");
    assert_eq!(entries[0]["receipt"], Value::Null);
    assert_eq!(system.json("/_emulator/audit?after=3").await.as_array().map(Vec::len), Some(2));
    assert_eq!(system.get("/_emulator/audit?after=x").await.status, 400);
    assert_eq!(system.get("/_emulator/nosuch").await.status, 404);
}
