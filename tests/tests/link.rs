//! The life of a link through the real program: planned, made, tested, given companies, reset, ended and made again,
//! between two emulators that fail on demand.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use dualwright::store::{Capture, NewDelivery, Scope, Store};
use dualwright_core::{SystemKind, TransactionId};
use dualwright_emulator::{Emulator, ServeOptions, TokenCheck, TokenClient};
use dualwright_tests::audit;
use dualwright_tests::systems::{Edit, Operation, SystemClient, key_pairs};
use dualwright_tests::world::{Served, Settings, dialect, tables, write_config};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dualwright-under-test");

/// Both systems, and a folder with a configuration.
struct Stage {
    finops: SystemClient,
    dataverse: SystemClient,
    served: [Served; 2],
    folder: TempDir,
    config: PathBuf,
    secret: &'static str,
}

/// What the program said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("no JSON: {:?}, and {}", self.out, self.err))
    }

    /// Verdict and text of each finding of one check.
    fn findings(&self, check: &str, system: &str) -> anyhow::Result<Vec<(String, String)>> {
        let json = self.json()?;
        let all = json["findings"].as_array().context("there are findings")?;
        let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        let own = all.iter().filter(|finding| text(finding, "check") == check && text(finding, "system") == system);
        Ok(own
            .map(|finding| {
                let words = ["what", "remedy", "code", "foreign_code"].map(|name| text(finding, name));
                (text(finding, "verdict"), words.join(" "))
            })
            .collect())
    }

    #[track_caller]
    fn is(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "{word:?} is not in\n{}{}", self.out, self.err);
        }
    }

    /// A finding of this check has this verdict and says these words.
    #[track_caller]
    fn finds(&self, check: &str, system: &str, verdict: &str, words: &str) {
        let found = self.findings(check, system).expect("findings");
        let is_it = |(own, said): &(String, String)| own == verdict && said.contains(words);
        assert!(found.iter().any(is_it), "{check} {system} {verdict} {words:?} is not in {found:#?}");
    }
}

impl Stage {
    async fn with(settings: &Settings) -> anyhow::Result<Self> {
        let (left, finops) = Served::start(SystemKind::Finops, None).await?;
        let (right, dataverse) = Served::start(SystemKind::Dataverse, None).await?;
        let folder = TempDir::new()?;
        let config = write_config(folder.path(), settings, &finops.base, &dataverse.base)?;
        let stage = Self { finops, dataverse, served: [left, right], folder, config, secret: "" };
        for code in ["usmf", "demf", "gbsi"] {
            stage.insert(SystemKind::Finops, &format!("LegalEntities LegalEntityId={code} Name={code}")).await?;
        }
        Ok(stage)
    }

    /// Three small maps, one company.
    fn small() -> Settings {
        let maps = ["companies", "payment-terms", "customer-groups"].map(str::to_owned).to_vec();
        Settings { maps, companies: vec!["usmf".to_owned()], ..Settings::default() }
    }

    const fn system(&self, kind: SystemKind) -> &SystemClient {
        match kind {
            SystemKind::Finops => &self.finops,
            SystemKind::Dataverse => &self.dataverse,
        }
    }

    const fn emulator(&self, kind: SystemKind) -> &Emulator {
        match kind {
            SystemKind::Finops => &self.served[0].emulator,
            SystemKind::Dataverse => &self.served[1].emulator,
        }
    }

    fn edit(operation: Operation, line: &str) -> anyhow::Result<Edit> {
        let mut words = line.split(' ');
        let set = words.next().unwrap_or_default().to_owned();
        let key = key_pairs(words.next().unwrap_or_default()).map_err(anyhow::Error::msg)?;
        let columns = words.map(|word| word.split_once('=').unwrap_or((word, "")));
        let columns = columns.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Edit { operation, set, key, columns })
    }

    /// `SET KEY COLUMN…`.
    async fn insert(&self, kind: SystemKind, line: &str) -> anyhow::Result<()> {
        let answer = self.system(kind).write(&Self::edit(Operation::Insert, line)?).await?;
        answer.map_err(|refused| anyhow::anyhow!("{line}: {refused}"))
    }

    async fn update(&self, kind: SystemKind, line: &str) -> anyhow::Result<()> {
        let answer = self.system(kind).write(&Self::edit(Operation::Update, line)?).await?;
        answer.map_err(|refused| anyhow::anyhow!("{line}: {refused}"))
    }

    async fn has(&self, kind: SystemKind, line: &str) -> anyhow::Result<bool> {
        let edit = Self::edit(Operation::Insert, line)?;
        let Some(row) = self.system(kind).find(&edit.set, &edit.key).await? else { return Ok(false) };
        Ok(self.system(kind).differing(&edit.set, &row, &edit.columns).await?.is_empty())
    }

    fn program(&self, arguments: &[&str]) -> Said {
        let output = Command::new(PROGRAM)
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .env("LINK_TEST_SECRET", self.secret)
            .output()
            .expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn link(&self, arguments: &[&str]) -> Said {
        self.program(&[&["link"], arguments].concat())
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn scope() -> Scope {
        Scope { tenant: "default".into(), link: "small".into() }
    }

    fn rewrite(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let before = std::fs::read_to_string(&self.config)?;
        let after = before.replacen(from, to, 1);
        ensure!(before != after, "{from:?} is not in\n{before}");
        std::fs::write(&self.config, after)?;
        Ok(())
    }

    fn config_text(&self) -> String {
        std::fs::read_to_string(&self.config).expect("the configuration can be read")
    }

    /// Fences by their partition, of both systems.
    fn fences(&self) -> anyhow::Result<Vec<String>> {
        let mut fences = Vec::new();
        for (kind, set, column) in [
            (SystemKind::Finops, "DualwrightFences", "PartitionId"),
            (SystemKind::Dataverse, "dualwright_fences", "dualwright_partition"),
        ] {
            let rows = self.emulator(kind).rows(set)?;
            fences.extend(rows.iter().map(|row| row[column].as_str().unwrap_or_default().to_owned()));
        }
        Ok(fences)
    }

    async fn end(self) -> anyhow::Result<()> {
        let [left, right] = self.served;
        left.end().await?;
        right.end().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_planned_made_and_run() -> anyhow::Result<()> {
    let stage = Stage::with(&Stage::small()).await?;
    stage.dataverse.control("DELETE", "link-package", None).await?;
    let fence = "/api/data/v9.2/EntityDefinitions(LogicalName='dualwright_fence')";

    let said = stage.link(&["plan", "--json"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    said.finds("own-tables", "dataverse", "to-do", "dualwright_receipts is missing and will be made");
    said.finds("own-tables", "dataverse", "to-do", "dualwright_fences");
    said.finds("own-tables", "finops", "fine", "DualwrightReceipts, DualwrightFences, DualwrightChanges");
    said.finds("authentication", "dataverse", "fine", "knows us as user");
    said.finds("companies", "finops", "fine", "LegalEntities has all 1");
    said.finds("companies", "dataverse", "notice", "map `companies` brings what F&O has");
    said.finds("role", "dataverse", "fine", "may do what the maps need");
    assert_eq!(said.json()?["linked"], json!(false));
    assert!(stage.dataverse.get(fence).await.is_err(), "a plan makes nothing");
    assert!(!stage.state().exists(), "and leaves nothing on this machine");
    stage.link(&["plan"]).is(0, &["to do", "nothing was changed; to make the link: dualwright link create"]);

    stage.link(&["create"]).is(0, &["dualwright_fences was made", "the link is made", "dualwright run"]);
    let table = stage.dataverse.get(fence).await?;
    assert_eq!(table["EntitySetName"], json!("dualwright_fences"));
    stage.link(&["plan"]).is(0, &["nothing was changed; the link is made"]);
    stage.link(&["create"]).is(0, &["it is as it should be"]);

    stage.insert(SystemKind::Finops, "CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Retail").await?;
    stage.program(&["run", "--once"]).is(0, &[]);
    assert!(stage.has(SystemKind::Dataverse, "msdyn_customergroups msdyn_groupid=10 msdyn_description=Retail").await?);
    let status = stage.program(&["status", "--json"]).json()?;
    let kinds = status["activity"].as_array().context("a log")?.iter().filter_map(|line| line["kind"].as_str());
    let kinds = kinds.filter(|kind| kind.starts_with("link-")).collect::<Vec<_>>();
    assert_eq!(kinds, ["link-installed", "link-installed", "link-created"], "the newest first");
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finops_lacks_is_named_with_what_goes_without_it() -> anyhow::Result<()> {
    let stage = Stage::with(&Stage::small()).await?;
    stage.finops.control("DELETE", "link-package", None).await?;
    let said = stage.link(&["plan", "--json"]);
    assert_eq!(said.code, Some(1));
    said.finds("own-tables", "finops", "wrong", "DualwrightFences is missing");
    said.finds("own-tables", "finops", "wrong", "only maps to Dataverse run");
    said.finds("own-tables", "finops", "wrong", "no change of F&O is seen, and only maps to F&O run");
    stage.link(&["create"]).is(1, &["nothing was made", "deploy the package", "DW-3005"]);
    let said = stage.link(&["test", "--json"]);
    said.finds("own-tables", "finops", "wrong", "DualwrightReceipts is missing");
    said.finds("change-sets", "finops", "notice", "so they were not");
    said.finds("delta", "finops", "wrong", "DualwrightChanges is missing");
    // A map that leads to Dataverse only does not need what is written on F&O.
    stage.end().await?;
    let stage = Stage::with(&Settings { maps: vec!["companies".to_owned()], ..Stage::small() }).await?;
    stage.finops.control("DELETE", "link-package", None).await?;
    let said = stage.link(&["plan", "--json"]);
    said.finds("own-tables", "finops", "notice", "DualwrightReceipts is missing");
    said.finds("own-tables", "finops", "wrong", "DualwrightChanges is missing");
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn companies_exist_on_both_sides_and_are_not_too_many() -> anyhow::Result<()> {
    let stage = Stage::with(&Settings {
        maps: vec!["customer-groups".to_owned(), "payment-terms".to_owned()],
        ..Stage::small()
    })
    .await?;
    let said = stage.link(&["plan", "--json"]);
    said.finds("companies", "dataverse", "wrong", "cdm_companies has no usmf");
    said.finds("companies", "dataverse", "wrong", "DWDVEV1003");
    stage.insert(SystemKind::Dataverse, "cdm_companies cdm_companycode=USMF cdm_name=Contoso").await?;
    stage.link(&["create"]).is(0, &["the link is made"]);

    stage.link(&["add-company", "frrt"]).is(1, &["LegalEntities has no frrt", "DWFOEV1003", "nothing was added"]);
    stage.link(&["add-company", "gbsi"]).is(1, &["cdm_companies has no gbsi"]);
    assert!(stage.config_text().contains("companies = [\"usmf\"]"));
    stage.rewrite("[limits]\n", "[limits]\ncompanies_live_max = 1\n")?;
    stage.link(&["add-company", "gbsi"]).is(2, &["would have 2 legal entities, and limits.companies_live_max is 1"]);
    stage.rewrite("companies = [\"usmf\"]", "companies = [\"usmf\", \"gbsi\"]")?;
    stage.link(&["plan"]).is(2, &["link.companies", "names 2 legal entities, and limits.companies_live_max is 1"]);
    stage.rewrite("companies_live_max = 1", "companies_live_max = 250")?;

    // More than forty at once are refused, as Dual-write does, unless the setting says otherwise.
    let many = (0..41).map(|number| format!("c{number:03}")).collect::<Vec<_>>();
    for code in &many {
        stage.insert(SystemKind::Finops, &format!("LegalEntities LegalEntityId={code} Name={code}")).await?;
        stage.insert(SystemKind::Dataverse, &format!("cdm_companies cdm_companycode={code} cdm_name={code}")).await?;
    }
    stage.rewrite("companies = [\"usmf\", \"gbsi\"]", &format!("companies = {many:?}"))?;
    stage
        .link(&["create"])
        .is(1, &["the link has 41 legal entities", "companies_when_linking_max is 40", "add-company"]);
    stage.rewrite("[limits]\n", "[limits]\ncompanies_when_linking_max = 41\n")?;
    stage.link(&["create"]).is(0, &["has all 41 of the link"]);
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_company_is_carried_over_and_a_removed_one_left_alone() -> anyhow::Result<()> {
    let stage = Stage::with(&Stage::small()).await?;
    for company in ["usmf", "gbsi"] {
        let row = format!("CustomerGroups dataAreaId={company},CustomerGroupId=10 Description=Ten");
        stage.insert(SystemKind::Finops, &row).await?;
    }
    stage.rewrite("companies = [\"usmf\"]", "companies = [\"usmf\"] # as agreed")?;
    stage.link(&["create"]).is(0, &[]);
    stage.program(&["run", "--once"]).is(0, &[]);
    let of = |company: &str| {
        format!("msdyn_customergroups msdyn_groupid=10,msdyn_company=@cdm_companies/cdm_companycode={company}")
    };
    assert!(stage.has(SystemKind::Dataverse, &of("usmf")).await?);
    assert!(!stage.has(SystemKind::Dataverse, &of("gbsi")).await?, "maps run for the companies of the link only");

    let said = stage.link(&["add-company", "GBSI"]);
    said.is(0, &["gbsi added; the next `dualwright run` carries its rows over"]);
    assert!(stage.config_text().contains("companies = [\"usmf\", \"gbsi\"] # as agreed"), "{}", stage.config_text());
    stage.link(&["add-company", "gbsi"]).is(0, &["they belong to the link already"]);
    let before = audit::read(&stage.dataverse, 0).await?.last().map_or(0, |entry| entry.sequence);
    stage.program(&["run", "--once"]).is(0, &[]);
    assert!(stage.has(SystemKind::Dataverse, &of("gbsi")).await?);
    let written = audit::read(&stage.dataverse, before).await?;
    assert_eq!(written.len(), 1, "what was there is not written again: {written:#?}");

    let said = stage.link(&["remove", "gbsi", "--json"]);
    assert_eq!(said.json()?["companies"], json!(["usmf"]));
    stage.update(SystemKind::Finops, "CustomerGroups dataAreaId=gbsi,CustomerGroupId=10 Description=Changed").await?;
    stage.insert(SystemKind::Finops, "CustomerGroups dataAreaId=gbsi,CustomerGroupId=11 Description=Eleven").await?;
    stage.program(&["run", "--once"]);
    assert!(stage.has(SystemKind::Dataverse, &format!("{} msdyn_description=Ten", of("gbsi"))).await?);

    // Added again, it is carried over as a whole.
    stage.link(&["add-company", "gbsi"]).is(0, &["gbsi added"]);
    stage.program(&["run", "--once"]).is(0, &[]);
    assert!(stage.has(SystemKind::Dataverse, &format!("{} msdyn_description=Changed", of("gbsi"))).await?);
    assert!(stage.has(SystemKind::Dataverse, &of("gbsi").replace("=10,", "=11,")).await?);

    stage.link(&["remove", "usfm"]).is(2, &["there is no company usfm. There are: gbsi, usmf"]);
    stage.link(&["remove", "usmf", "gbsi"]).is(2, &["carries nothing", "dualwright link unlink"]);
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_is_not_removed_under_changes_that_wait_or_a_map_that_names_it() -> anyhow::Result<()> {
    let mut settings = Stage::small();
    settings.companies.push("demf".to_owned());
    settings.map_lines.push(("customer-groups".to_owned(), "companies = [\"demf\"]".to_owned()));
    let stage = Stage::with(&settings).await?;
    stage.program(&["run", "--once"]).is(0, &[]);
    stage.link(&["remove", "demf"]).is(2, &["map `customer-groups` lists demf among its own companies"]);
    stage.rewrite("companies = [\"demf\"]\n", "")?;
    wait_in_the_outbox(&stage).await?;
    stage.link(&["remove", "demf"]).is(1, &["1 row change waits to be delivered", "run --once", "--force"]);
    stage.link(&["remove", "demf", "--force"]).is(0, &["demf removed"]);
    stage.end().await
}

/// A change that was captured and not delivered.
async fn wait_in_the_outbox(stage: &Stage) -> anyhow::Result<()> {
    let store = Store::open(&stage.state())?;
    let delivery = NewDelivery {
        transaction: TransactionId(uuid::Uuid::from_u128(7)),
        source: SystemKind::Finops,
        source_token: "captured and not delivered".to_owned(),
        atomic: false,
        payload: br#"[{"s":"CustomerGroups","o":"Upsert"}]"#.to_vec(),
        rows: 1,
        captured_at: 1,
        retry_of: None,
    };
    store.capture(&Stage::scope(), Capture { deliveries: vec![delivery], watermarks: Vec::new() }).await?;
    store.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_test_names_what_is_wrong() -> anyhow::Result<()> {
    const STALE: &str = r#"[{"match":{"operation":true,"times":0},"action":{"kind":"ignoreIfMatch"}}]"#;
    const SPLIT: &str = r#"[{"match":{"times":0},"action":{"kind":"splitChangeSets"}}]"#;
    const NO_BULK: &str = r#"[{"match":{"operation":true,"path":"CreateMultiple","times":0},
        "action":{"kind":"answer","status":501,"code":"0x80040224","message":"not implemented"}}]"#;
    const NO_GROUPS: &str = r#"[{"match":{"path":"/CustomerGroups","times":0},
        "action":{"kind":"answer","status":403,"code":"","message":"not allowed"}}]"#;
    const NO_FENCES: &str = r#"[{"match":{"path":"ences","times":0},
        "action":{"kind":"answer","status":403,"code":"","message":"not allowed"}}]"#;
    const DOWN: &str = r#"[{"match":{"times":0},"action":{"kind":"reset"}}]"#;
    const BUSY: &str =
        r#"[{"match":{"path":"$batch","times":0},"action":{"kind":"answer","status":503,"message":"busy"}}]"#;
    let stage = Stage::with(&Stage::small()).await?;
    let well = stage.link(&["test", "--json"]);
    assert_eq!(well.code, Some(0), "{}{}", well.out, well.err);
    for check in ["authentication", "clock", "change-sets", "if-match", "delta", "role"] {
        for system in ["finops", "dataverse"] {
            well.finds(check, system, "fine", "");
        }
    }
    well.finds("bulk-messages", "dataverse", "fine", "1000 rows");
    use SystemKind::{Dataverse, Finops};
    for (system, fault, check, verdict, words) in [
        (Dataverse, STALE, "if-match", "wrong", "took a write to a version that the row does not have"),
        (Finops, STALE, "if-match", "wrong", "a late request could overwrite"),
        (Dataverse, SPLIT, "change-sets", "wrong", "the first row stayed"),
        (Finops, SPLIT, "change-sets", "wrong", "all or nothing does not hold"),
        (Dataverse, NO_BULK, "bulk-messages", "notice", "more than 998 rows are refused"),
        (Finops, NO_GROUPS, "role", "wrong", "CustomerGroups"),
        (Finops, NO_FENCES, "role", "wrong", "DualwrightFences cannot be written"),
        (Dataverse, NO_FENCES, "role", "wrong", "dualwright_fences cannot be written"),
        (Finops, DOWN, "reach", "wrong", "link.finops.url"),
        (Dataverse, DOWN, "reach", "wrong", "broke the connection"),
        (Dataverse, BUSY, "change-sets", "notice", "it could not be told"),
    ] {
        stage.system(system).control("POST", "faults", Some(fault)).await?;
        let said = stage.link(&["test", "--json"]);
        stage.system(system).control("DELETE", "faults", None).await?;
        said.finds(check, system.name(), verdict, words);
        let code = i32::from(verdict == "wrong");
        assert_eq!(said.code, Some(code), "{check}: {}", said.out);
        assert_eq!(stage.fences()?, [""; 0], "{check} leaves something behind");
        let other = system.other();
        for check in ["authentication", "change-sets", "if-match"] {
            said.finds(check, other.name(), "fine", "");
        }
    }
    for (system, skew_ms, words) in [(Finops, 600_000, "ahead of ours"), (Dataverse, -600_000, "behind ours")] {
        let skew = |ms: i64| json!({"skewMs": ms}).to_string();
        stage.system(system).control("POST", "clock", Some(&skew(skew_ms))).await?;
        let said = stage.link(&["test", "--json"]);
        stage.system(system).control("POST", "clock", Some(&skew(0))).await?;
        said.finds("clock", system.name(), "wrong", words);
    }
    stage.rewrite("[limits]\n", "[limits]\nclock_skew_max_seconds = 900\n")?;
    stage.finops.control("POST", "clock", Some(&json!({"skewMs": 600_000}).to_string())).await?;
    stage.link(&["test", "--json"]).finds("clock", "finops", "fine", "within 900 s");
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn change_tracking_that_is_off_is_named_and_switched_on() -> anyhow::Result<()> {
    let stage = Stage::with(&Stage::small()).await?;
    let url = "/api/data/v9.2/EntityDefinitions(LogicalName='msdyn_customergroup')";
    let mut definition = stage.dataverse.get(url).await?;
    definition["ChangeTrackingEnabled"] = json!(false);
    let put = reqwest::Client::builder().no_proxy().build()?.put(format!("{}{url}", stage.dataverse.base));
    let answer = put.header("content-type", "application/json").body(definition.to_string()).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);

    let said = stage.link(&["test", "--json"]);
    said.finds("delta", "dataverse", "wrong", "change tracking of msdyn_customergroups is off");
    said.finds("delta", "dataverse", "wrong", "customer-groups");
    let said = stage.link(&["plan", "--json"]);
    said.finds("change-tracking", "dataverse", "to-do", "msdyn_customergroups");
    stage.link(&["create"]).is(0, &["changes of msdyn_customergroup are kept from now on"]);
    stage.link(&["test"]).is(0, &["the connection is fine"]);
    stage.end().await
}

/// A Dataverse that asks for tokens, and the configuration that has one.
async fn guarded(secret: &'static str) -> anyhow::Result<(Stage, tokio::task::JoinHandle<()>, Emulator)> {
    const APPLICATION: &str = "6f5c8f9e-0000-4000-8000-00000000abcd";
    let mut stage = Stage::with(&Stage::small()).await?;
    let emulator = Emulator::open(dialect(SystemKind::Dataverse), None)?;
    emulator.define(&tables(SystemKind::Dataverse)?.tables)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let client = TokenClient { id: APPLICATION.to_owned(), secret: "right".to_owned() };
    let options = ServeOptions { tls: None, tokens: Some(TokenCheck::new("contoso.example", vec![client])) };
    let serving = emulator.clone();
    let task = tokio::spawn(async move {
        // Ends with the test's runtime.
        let _ = serving.serve_with(options, listener, std::future::pending()).await;
    });
    let auth = format!(
        "dataverse.url = \"{base}\"\ndataverse.auth = {{ token_url = \"{base}/contoso.example/oauth2/v2.0/token\", client_id = \
         \"{APPLICATION}\", client_secret = {{ env = \"LINK_TEST_SECRET\" }}, scope = \"{base}/.default\" }}"
    );
    stage.rewrite(&format!("dataverse.url = \"{}\"", stage.dataverse.base), &auth)?;
    stage.secret = secret;
    Ok((stage, task, emulator))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_an_unknown_user_and_a_missing_role_are_told_apart() -> anyhow::Result<()> {
    let (mut stage, task, emulator) = guarded("wrong").await?;
    let said = stage.link(&["test", "--json"]);
    assert_eq!(said.code, Some(1));
    said.finds("authentication", "dataverse", "wrong", "AADSTS7000215");
    said.finds("authentication", "dataverse", "wrong", "link.dataverse.auth.client_secret");
    stage.link(&["plan", "--json"]).finds("authentication", "dataverse", "wrong", "client_secret");

    stage.secret = "right";
    stage.link(&["test"]).is(0, &["the connection is fine"]);
    // As soon as applications are users, ours has to be one.
    emulator.add_dual_write_users()?;
    let said = stage.link(&["test", "--json"]);
    said.finds("role", "dataverse", "wrong", "create the application user");
    said.finds("role", "dataverse", "wrong", "0x80072560");

    let user = json!({
        "systemuserid": "6f5c8f9e-0000-4000-8000-000000000001", "fullname": "dualwright", "isdisabled": false,
        "applicationid": "6f5c8f9e-0000-4000-8000-00000000abcd", "accessmode": 4,
    });
    let Value::Object(user) = user else { unreachable!("it is an object") };
    emulator.seed("systemusers", vec![user])?;
    let said = stage.link(&["plan", "--json"]);
    said.finds("role", "dataverse", "wrong", "our user lacks prv");
    said.finds("role", "dataverse", "wrong", "give the application user a role");
    assert_eq!(said.code, Some(1));
    let said = stage.link(&["test", "--json"]);
    said.finds("role", "dataverse", "wrong", "our user lacks prv");
    said.finds("role", "dataverse", "wrong", "dualwright_fences cannot be written");

    let administrator = emulator.rows("roles")?.into_iter().find(|row| row["name"] == json!("System Administrator"));
    let role = administrator.context("there is that role")?["roleid"].clone();
    let Value::Object(has) = json!({
        "systemuserroleid": "6f5c8f9e-0000-4000-8000-000000000002",
        "systemuserid": "6f5c8f9e-0000-4000-8000-000000000001", "roleid": role,
    }) else {
        unreachable!("it is an object")
    };
    emulator.seed("systemuserrolescollection", vec![has])?;
    stage.link(&["test"]).is(0, &["the connection is fine"]);
    stage.link(&["plan"]).is(0, &["may do what the maps need"]);
    task.abort();
    stage.end().await
}

/// Lines of a file of the export.
fn lines(folder: &Path, table: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(format!("{table}.jsonl"))).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_exports_everything_and_begins_anew() -> anyhow::Result<()> {
    let stage = Stage::with(&Stage::small()).await?;
    stage.link(&["create"]).is(0, &[]);
    stage.insert(SystemKind::Finops, "CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Ten").await?;
    // Its payment term does not exist, so it fails.
    let row = "CustomerGroups dataAreaId=usmf,CustomerGroupId=11 PaymentTermId=Net7";
    stage.insert(SystemKind::Finops, row).await?;
    stage.program(&["run", "--once"]).is(1, &["DW-1006"]);
    wait_in_the_outbox(&stage).await?;
    let holder = Store::open(&stage.state())?;
    stage.link(&["reset", "--force"]).is(2, &["a runtime is at work", "end it first"]);
    let pairs = holder.cross_reference_count(&Stage::scope(), "customer-groups").await?;
    holder.close().await;
    assert!(pairs >= 1);
    stage.link(&["reset"]).is(1, &["1 row change waits", "1 record failed", "dualwright retry", "--force"]);

    let folder = stage.folder.path().join("kept");
    let folder_name = folder.display().to_string();
    let said = stage.link(&["reset", "--force", "--to", &folder_name, "--json"]);
    let report = said.json()?;
    assert_eq!(report["folder"], json!(folder_name));
    assert_eq!(report["undelivered"], json!({"waiting": 1, "failed": 1}));
    let of_groups =
        lines(&folder, "cross-reference").into_iter().filter(|line| line["map"] == json!("customer-groups"));
    assert_eq!(of_groups.count() as u64, pairs);
    assert_eq!(lines(&folder, "failed").len(), 1);
    assert_eq!(lines(&folder, "failed-payload")[0]["payload"][0]["s"], json!("CustomerGroups"), "as it was captured");
    assert_eq!(lines(&folder, "outbox")[0]["transaction_id"], json!("00000000-0000-0000-0000-000000000007"));
    for table in ["activity", "counts", "watermark", "cursor", "captured"] {
        let count = lines(&folder, table).len() as u64;
        assert_eq!(report["exported"][table].as_u64(), Some(count), "{table}");
        assert!(count > 0, "{table}");
    }
    let set = std::fs::read_to_string(folder.join("connection-set.json"))?;
    assert!(set.contains("legalEntityMappings"));
    stage.link(&["reset", "--to", &folder_name]).is(2, &["has something in it already"]);

    let status = stage.program(&["status", "--json", "--activity", "50"]).json()?;
    assert_eq!((&status["backlog"]["deliveries"], &status["maps"]), (&json!(0), &json!([])));
    let log = status["activity"].as_array().context("a log")?;
    assert_eq!(log[0]["kind"], json!("link-reset"));
    assert!(log.iter().any(|line| line["kind"] == json!("link-created")), "the log goes on: {log:#?}");

    stage.insert(SystemKind::Finops, "PaymentTerms dataAreaId=usmf,Name=Net7 NumberOfDays=7").await?;
    stage.program(&["run", "--once"]).is(0, &["Both sides compared\n  equal"]);
    let groups = stage.dataverse.rows("msdyn_customergroups").await?;
    assert_eq!(groups.len(), 2, "the pairs are found again, nothing is doubled");
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_link_does_not_run_and_goes_on_in_its_log_when_it_is_made_again() -> anyhow::Result<()> {
    let stage = Stage::with(&Stage::small()).await?;
    stage.link(&["unlink"]).is(2, &["so there is nothing to end"]);
    stage.link(&["create"]).is(0, &[]);
    stage.insert(SystemKind::Finops, "CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Ten").await?;
    stage.program(&["run", "--once"]).is(0, &[]);
    let own = stage.fences()?.pop().context("the run left a fence")?;
    // F&O has a fence of this link too, and one of another.
    let others = "default/another/0";
    let fence = |partition: &str| match json!({ "PartitionId": partition, "Epoch": 1 }) {
        Value::Object(fence) => fence,
        _ => unreachable!("it is an object"),
    };
    stage.emulator(SystemKind::Finops).seed("DualwrightFences", vec![fence(&own), fence(others)])?;
    let said = stage.link(&["unlink"]);
    said.is(0, &["exported to", "cross_reference", "the link has ended", "dualwright link create"]);
    assert!(!said.out.contains("its fences stay"), "{}", said.out);
    let folder = said.out.lines().find_map(|line| line.strip_prefix("exported to ")).context("its name is printed")?;
    assert!(!lines(Path::new(folder), "cross-reference").is_empty());
    assert_eq!(stage.fences()?, [others], "no fence of the link is left on either system, and no other is gone");
    assert!(stage.has(SystemKind::Dataverse, "msdyn_customergroups msdyn_groupid=10 msdyn_description=Ten").await?);

    stage.program(&["run", "--once"]).is(2, &["the link was ended by `link unlink` at", "dualwright link create"]);
    stage.link(&["create"]).is(0, &["the link is made"]);
    stage.program(&["run", "--once"]).is(0, &[]);
    let status = stage.program(&["status", "--json", "--activity", "50"]).json()?;
    let log = status["activity"].as_array().context("a log")?;
    let kinds = log.iter().rev().filter_map(|line| line["kind"].as_str()).filter(|kind| kind.starts_with("link-"));
    assert_eq!(kinds.collect::<Vec<_>>(), ["link-created", "link-unlinked", "link-created"]);
    assert!(log.iter().any(|line| line["text"].as_str().is_some_and(|text| text.starts_with("again, http"))));

    // A system that is gone keeps nobody from ending the link.
    let Stage { served: [left, right], .. } = stage;
    left.end().await?;
    right.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_while_a_system_is_gone() -> anyhow::Result<()> {
    // A link that was never made by a command ends all the same.
    let stage = Stage::with(&Stage::small()).await?;
    stage.program(&["run", "--once"]).is(0, &[]);
    let gone = r#"[{"match":{"times":0},"action":{"kind":"reset"}}]"#;
    stage.dataverse.control("POST", "faults", Some(gone)).await?;
    stage.link(&["unlink"]).is(0, &["its fences stay", "they harm nobody", "the link has ended"]);
    stage.dataverse.control("DELETE", "faults", None).await?;
    stage.program(&["run", "--once"]).is(2, &["the link was ended by `link unlink` at"]);
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_set_goes_out_and_comes_in_without_secrets() -> anyhow::Result<()> {
    let (stage, task, _emulator) = guarded("a-secret-of-ours").await?;
    let file = stage.folder.path().join("set.json");
    let file_name = file.display().to_string();
    stage.link(&["export", &file_name]).is(0, &["two environments, 1 legal entity"]);
    let text = std::fs::read_to_string(&file)?;
    assert!(!text.contains("a-secret-of-ours") && !text.contains("LINK_TEST_SECRET"), "{text}");
    let set: Value = serde_json::from_str(&text)?;
    let detail = &set["dualWriteDetail"];
    let usmf = json!([{"left": {"name": "USMF", "id": "USMF"}, "right": {"name": "USMF", "id": "USMF"}}]);
    assert_eq!(detail["legalEntityMappings"]["mappings"], usmf);
    assert_eq!(set["environments"]["small-finops"]["targetType"], json!("AX"));
    assert_eq!(set["environments"]["small-dataverse"]["targetType"], json!("CRM"));
    assert_eq!(detail["conflictResolution"]["master"], json!("small-finops"));

    // Changed by hand, it is taken into the configuration it came from, and only what it says is changed.
    let mut changed = set.clone();
    changed["dualWriteDetail"]["conflictResolution"]["master"] = json!("small-dataverse");
    let demf = json!({"left": {"name": "DEMF", "id": "DEMF"}, "right": {"name": "DEMF", "id": "DEMF"}});
    changed["dualWriteDetail"]["legalEntityMappings"]["mappings"].as_array_mut().context("a list")?.push(demf);
    changed["dualWriteDetail"]["alertSettings"] = json!([{"name": "many"}]);
    std::fs::write(&file, changed.to_string())?;
    let before = stage.config_text();
    stage.link(&["import", &file_name]).is(0, &["companies demf, usmf", "left out: dualWriteDetail.alertSettings"]);
    let wanted = before
        .replace("companies = [\"usmf\"]", "companies = [\"usmf\", \"demf\"]")
        .replace("conflict_winner = \"finops\"", "conflict_winner = \"dataverse\"");
    assert_eq!(stage.config_text(), wanted);

    // And into a new one.
    let new = stage.folder.path().join("new.toml");
    let output = Command::new(PROGRAM).args(["link", "import", &file_name, "--config"]).arg(&new).output()?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&new)?;
    assert!(text.contains("slug = \"small\"") && text.contains(&stage.finops.base), "{text}");
    std::fs::write(&file, "{}")?;
    stage.link(&["import", &file_name]).is(2, &["is no connection set"]);
    task.abort();
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_carries_some_companies_and_a_row_without_one_is_reported() -> anyhow::Result<()> {
    let mut settings = Stage::small();
    settings.companies.push("demf".to_owned());
    settings.map_lines.push(("customer-groups".to_owned(), "companies = [\"usmf\"]".to_owned()));
    let stage = Stage::with(&settings).await?;
    for company in ["usmf", "demf"] {
        let key = format!("dataAreaId={company},CustomerGroupId=10");
        stage.insert(SystemKind::Finops, &format!("CustomerGroups {key} Description=Ten")).await?;
        stage
            .insert(SystemKind::Finops, &format!("PaymentTerms dataAreaId={company},Name=Net7 NumberOfDays=7"))
            .await?;
    }
    let said = stage.program(&["run", "--once", "--json"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let rows = |json: &Value, map: &str| {
        let maps = json["maps"].as_array().cloned().unwrap_or_default();
        maps.iter().find(|one| one["map"] == json!(map)).and_then(|one| one["created"].as_u64())
    };
    let json = said.json()?;
    assert_eq!((rows(&json, "payment-terms"), rows(&json, "customer-groups")), (Some(2), Some(1)));

    stage.insert(SystemKind::Dataverse, "msdyn_customergroups msdyn_groupid=12 msdyn_description=Nobody").await?;
    let said = stage.program(&["run", "--once", "--json"]);
    assert_eq!(said.code, Some(1));
    let failed = said.json()?["failed"][0].clone();
    assert_eq!((&failed["map"], &failed["code"]), (&json!("customer-groups"), &json!("DW-1008")));
    stage.program(&["status"]).is(1, &["DW-1008", "customer-groups"]);
    stage.end().await
}

#[test]
fn every_verb_explains_itself() {
    let help = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).arg("--help").output().expect("the program runs");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let all = help(&["link"]);
    for verb in ["plan", "create", "test", "add-company", "remove", "unlink", "reset", "export", "import"] {
        assert!(all.contains(&format!("  {verb} ")), "{verb} is not in\n{all}");
        let own = help(&["link", verb]);
        for part in ["--json", "--config"] {
            assert!(own.contains(part), "{part} is not in the help of {verb}:\n{own}");
        }
        assert!(own.contains("Exit codes") || own.contains("dualwright link "), "{own}");
    }
    assert!(all.contains("Remove legal entities from the link"), "{all}");
    assert!(help(&["link", "remove"]).contains("`link unlink` removes the link itself"));
}
