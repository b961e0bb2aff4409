//! `kill -9` of the runtime and of either system, again and again, while users edit both sides: in the end both sides
//! are equal, hold what was last written, and nothing was written twice.
//!
//! Three processes of the real program, each started again with the same command. `DUALWRIGHT_CRASH_ROUNDS` says how
//! many lives are taken, `DUALWRIGHT_CRASH_SEED` repeats a run.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use dualwright_core::SystemKind;
use dualwright_tests::audit;
use dualwright_tests::processes::{Part, Trio};
use dualwright_tests::random::Random;
use dualwright_tests::systems::{Edit, Operation, Row, SystemClient};
use dualwright_tests::world::Settings;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dualwright-under-test");

/// Enough for initial sync to be hit several times.
const CUSTOMERS: u64 = 10_000;
const CURRENCIES: u64 = 40;
const EDITS_PER_ROUND: u64 = 12;

/// What a user knows of a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Customer {
    company: String,
    name: String,
    employees: i64,
}

/// What both sides have to hold in the end, by account.
type Model = BTreeMap<String, Customer>;

fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_comes_twice() -> anyhow::Result<()> {
    let rounds = from_environment("DUALWRIGHT_CRASH_ROUNDS", 120);
    let seed = from_environment("DUALWRIGHT_CRASH_SEED", u64::from(std::process::id()));
    println!("{rounds} rounds, DUALWRIGHT_CRASH_SEED={seed}");
    crash_loop(rounds, seed).await.with_context(|| format!("DUALWRIGHT_CRASH_SEED={seed}"))
}

async fn crash_loop(rounds: u64, seed: u64) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let mut model = Model::new();
    let settings = Settings {
        limits: ["poll_interval_ms = 20", "batch_rows_max = 100"].map(str::to_owned).to_vec(),
        ..Settings::default()
    };
    let mut trio = Trio::new(PROGRAM, &settings, |finops| {
        for (set, rows) in seed_rows(&mut model) {
            finops.seed(set, rows)?;
        }
        Ok(())
    })?;
    for part in Part::ALL {
        trio.start(part).await?;
    }
    let mut next = CUSTOMERS;
    let mut in_initial_sync = 0;
    for round in 0..rounds {
        // During initial sync F&O is the side that counts; users of Dataverse begin when it is done.
        let initial = !trio.log(Part::Runtime).contains("initial sync of customers");
        for _ in 0..EDITS_PER_ROUND {
            let edit = if initial || random.below(2) == 0 {
                edit_finops(&trio.finops, &mut random, &mut model, &mut next).await
            } else {
                edit_dataverse(&trio.dataverse, &mut random, &mut model, &mut next).await
            };
            edit.with_context(|| format!("round {round}"))?;
        }
        // A moment between any two steps of whatever is under way; the seed says which.
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        in_initial_sync += u64::from(initial);
        let victim = *random.pick(&Part::ALL);
        trio.kill(victim).await.with_context(|| format!("round {round}"))?;
        trio.start(victim).await.with_context(|| format!("round {round}"))?;
    }
    println!("{in_initial_sync} lives were taken during initial sync");
    trio.kill(Part::Runtime).await?;
    let (code, report) = trio.run_once().await?;
    let log = trio.log(Part::Runtime);
    ensure!(report["equal"] == json!(true), "the two sides differ: {}\n{log}", report["differences"]);
    ensure!(report["failed"] == json!([]), "records failed: {}\n{log}", report["failed"]);
    ensure!(code == Some(0), "the runtime ended with {code:?}");

    for kind in [SystemKind::Finops, SystemKind::Dataverse] {
        let entries = audit::read(trio.system(kind), 0).await?;
        let violations = audit::violations(&entries);
        ensure!(violations.is_empty(), "the audit of {kind}: {violations:#?}");
        println!("{kind}: {} writes by the runtime", entries.iter().filter(|entry| entry.is_ours()).count());
    }
    let (finops, dataverse) = (finops_holds(&trio.finops).await?, dataverse_holds(&trio.dataverse).await?);
    expect_equal("F&O", &model, &finops)?;
    expect_equal("Dataverse", &model, &dataverse)?;
    for part in [Part::Finops, Part::Dataverse] {
        trio.stop(part).await?;
    }
    Ok(())
}

/// Small master data and many customers of two companies.
fn seed_rows(model: &mut Model) -> Vec<(&'static str, Vec<Row>)> {
    let row = |value: Value| match value {
        Value::Object(row) => row,
        _ => Row::new(),
    };
    let companies = ["usmf", "demf"];
    let entities = companies.iter().map(|code| row(json!({ "LegalEntityId": code, "Name": code }))).collect();
    let currencies = (0..CURRENCIES)
        .map(|number| {
            let name = format!("Currency {number}");
            row(json!({ "CurrencyCode": format!("C{number:02}"), "Name": name, "Symbol": "¤" }))
        })
        .collect();
    let groups = companies
        .iter()
        .flat_map(|company| (0..5).map(move |number| (company, number)))
        .map(|(company, number)| {
            row(json!({ "dataAreaId": company, "CustomerGroupId": number.to_string(), "Description": "Group" }))
        })
        .collect();
    let mut customers = Vec::new();
    for number in 0..CUSTOMERS {
        let account = account(number);
        let company = companies[number as usize % 2];
        let customer = Customer { company: company.to_owned(), name: format!("Customer {number}"), employees: 1 };
        customers.push(row(json!({
            "dataAreaId": company,
            "CustomerAccount": account,
            "OrganizationName": customer.name,
            "PartyType": "Organization",
            "CustomerGroupId": (number % 5).to_string(),
            "SalesCurrencyCode": format!("C{:02}", number % CURRENCIES),
            "EmployeeCount": customer.employees,
        })));
        model.insert(account, customer);
    }
    vec![
        ("LegalEntities", entities),
        ("Currencies", currencies),
        ("CustomerGroups", groups),
        ("CustomersV3", customers),
    ]
}

fn account(number: u64) -> String {
    format!("A{number:06}")
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A customer that users of this side edit. Each customer has one such side, so that no conflict decides.
fn own_customer(random: &mut Random, model: &Model, side: SystemKind) -> Option<(String, Customer)> {
    let parity = u64::from(side == SystemKind::Dataverse);
    (0..100)
        .map(|_| account(random.below(CUSTOMERS / 2) * 2 + parity))
        .find_map(|account| model.get(&account).map(|customer| (account.clone(), customer.clone())))
}

async fn edit_finops(
    system: &SystemClient,
    random: &mut Random,
    model: &mut Model,
    next: &mut u64,
) -> anyhow::Result<()> {
    let key = |account: &str, company: &str| pairs([("dataAreaId", company), ("CustomerAccount", account)]);
    let edit = |operation, key, columns| Edit { operation, set: "CustomersV3".to_owned(), key, columns };
    match random.below(8) {
        0 => {
            let customer = Customer { company: "usmf".to_owned(), name: format!("New {next}"), employees: 7 };
            let account = account(*next);
            *next += 1;
            let columns = pairs([
                ("OrganizationName", &customer.name),
                ("PartyType", "Organization"),
                ("CustomerGroupId", "1"),
                ("SalesCurrencyCode", "C01"),
                ("EmployeeCount", "7"),
            ]);
            written(system.write(&edit(Operation::Insert, key(&account, "usmf"), columns)).await?)?;
            model.insert(account, customer);
        }
        1 => {
            if let Some((account, customer)) = own_customer(random, model, SystemKind::Finops) {
                let key = key(&account, &customer.company);
                written(system.write(&edit(Operation::Delete, key, Vec::new())).await?)?;
                model.remove(&account);
            }
        }
        // Several rows in one transaction.
        2 | 3 => {
            let mut edits = Vec::new();
            let mut changed = BTreeMap::new();
            for _ in 0..3 {
                if let Some((account, mut customer)) = own_customer(random, model, SystemKind::Finops)
                    && !changed.contains_key(&account)
                {
                    customer.employees = i64::try_from(random.below(100_000))?;
                    let columns = pairs([("EmployeeCount", &customer.employees.to_string())]);
                    edits.push(edit(Operation::Update, key(&account, &customer.company), columns));
                    changed.insert(account, customer);
                }
            }
            written(system.transaction(&edits).await?)?;
            model.extend(changed);
        }
        _ => {
            if let Some((account, mut customer)) = own_customer(random, model, SystemKind::Finops) {
                customer.name = format!("Left {}", random.below(100_000));
                let columns = pairs([("OrganizationName", &customer.name)]);
                let key = key(&account, &customer.company);
                written(system.write(&edit(Operation::Update, key, columns)).await?)?;
                model.insert(account, customer);
            }
        }
    }
    Ok(())
}

async fn edit_dataverse(
    system: &SystemClient,
    random: &mut Random,
    model: &mut Model,
    next: &mut u64,
) -> anyhow::Result<()> {
    let edit = |operation, account: &str, columns| Edit {
        operation,
        set: "accounts".to_owned(),
        key: pairs([("accountnumber", account)]),
        columns,
    };
    if random.below(8) == 0 {
        let customer = Customer { company: "demf".to_owned(), name: format!("Neu {next}"), employees: 8 };
        let account = account(*next);
        *next += 1;
        let columns = pairs([
            ("msdyn_company", "@cdm_companies/cdm_companycode=demf"),
            ("name", &customer.name),
            ("customertypecode", "3"),
            ("numberofemployees", "8"),
        ]);
        written(system.write(&edit(Operation::Insert, &account, columns)).await?)?;
        model.insert(account, customer);
        return Ok(());
    }
    let Some((account, mut customer)) = own_customer(random, model, SystemKind::Dataverse) else { return Ok(()) };
    if random.below(6) == 0 {
        written(system.write(&edit(Operation::Delete, &account, Vec::new())).await?)?;
        model.remove(&account);
    } else {
        customer.name = format!("Right {}", random.below(100_000));
        let columns = pairs([("name", &customer.name)]);
        written(system.write(&edit(Operation::Update, &account, columns)).await?)?;
        model.insert(account, customer);
    }
    Ok(())
}

fn written(answer: Result<(), String>) -> anyhow::Result<()> {
    answer.map_err(|refused| anyhow::anyhow!("a user's edit was refused: {refused}"))
}

fn text(row: &Row, name: &str) -> String {
    row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(row: &Row, name: &str) -> i64 {
    row.get(name).and_then(Value::as_i64).unwrap_or_default()
}

async fn finops_holds(system: &SystemClient) -> anyhow::Result<Model> {
    let rows = system.rows("CustomersV3").await?;
    let customer = |row: &Row| Customer {
        company: text(row, "dataAreaId").to_lowercase(),
        name: text(row, "OrganizationName"),
        employees: number(row, "EmployeeCount"),
    };
    Ok(rows.iter().map(|row| (text(row, "CustomerAccount"), customer(row))).collect())
}

async fn dataverse_holds(system: &SystemClient) -> anyhow::Result<Model> {
    let companies = system.rows("cdm_companies").await?;
    let companies = companies
        .iter()
        .map(|row| (text(row, "cdm_companyid"), text(row, "cdm_companycode")))
        .collect::<BTreeMap<_, _>>();
    let rows = system.rows("accounts").await?;
    let customer = |row: &Row| Customer {
        company: companies.get(&text(row, "_msdyn_company_value")).cloned().unwrap_or_default(),
        name: text(row, "name"),
        employees: number(row, "numberofemployees"),
    };
    ensure!(
        rows.iter().map(|row| text(row, "accountnumber")).collect::<std::collections::BTreeSet<_>>().len()
            == rows.len(),
        "an account stands there twice"
    );
    Ok(rows.iter().map(|row| (text(row, "accountnumber"), customer(row))).collect())
}

fn expect_equal(side: &str, wanted: &Model, current: &Model) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for (account, wanted) in wanted {
        if current.get(account) != Some(wanted) {
            wrong.push(format!("{account} is {:?} and should be {wanted:?}", current.get(account)));
        }
    }
    wrong.extend(
        current.keys().filter(|account| !wanted.contains_key(*account)).map(|more| format!("{more} is too much")),
    );
    ensure!(wrong.is_empty(), "{side} does not hold what users wrote last: {wrong:#?}");
    Ok(())
}
