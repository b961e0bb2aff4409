//! The demo on AdventureWorks, held against the files themselves.
//!
//! Expected values are computed here from the CSV files alone; what Dataverse holds is read from its store. Rows that
//! the demo's users edited, and rows that it plants to be rejected, are left out: the audits and the report name them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use dualwright_emulator::{Dialect, Emulator};
use serde_json::{Map, Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dualwright-under-test");

type Record = HashMap<String, String>;

/// What one Dataverse row has to hold.
struct Expected {
    /// The column that identifies the row, and its value.
    key: (&'static str, String),
    /// The value that identifies the same row on F&O.
    finops_key: String,
    /// Column, or `lookup.column`, and its value; numbers and truth values as people write them.
    columns: Vec<(&'static str, String)>,
}

/// One table: the Dataverse set, the F&O set that it comes from, its rows.
struct ExpectedTable {
    dataverse: &'static str,
    finops: &'static str,
    rows: Vec<Expected>,
    /// Fewer compared rows than this would prove little.
    compared_min: usize,
}

#[test]
fn the_demo_holds_what_the_files_say() -> anyhow::Result<()> {
    let Some(data) = std::env::var_os("DUALWRIGHT_DATA").map(PathBuf::from) else {
        let why = "DUALWRIGHT_DATA does not name a folder with the AdventureWorks files";
        assert!(std::env::var_os("DUALWRIGHT_REQUIRE_ALL").is_none_or(|value| value != "1"), "{why}");
        println!("SKIPPED: {why}");
        return Ok(());
    };
    // Either the folder itself, or the one that holds it.
    let data = if data.join("Customer.csv").is_file() { data } else { data.join("adventureworks") };
    let state = tempfile::tempdir()?;
    let report = run_demo(Some(&data), state.path())?;
    let files = Files { folder: data };

    let open = |dialect, name: &str| {
        let store = state.path().join(name);
        ensure!(store.is_file(), "the demo keeps no {name} in its state folder");
        Emulator::open(dialect, Some(&store))
    };
    let dataverse = open(Dialect::Dataverse, "dataverse.db")?;
    let finops = open(Dialect::Finops, "finops.db")?;
    let mut compared = 0;
    let mut wrong = Vec::new();
    for table in expected(&files)? {
        let touched = Touched::read(&table, &finops, &dataverse, &report)?;
        let compared_here = compare(&table, &dataverse, &touched, &mut wrong)?;
        println!("{}: {compared_here} of {} rows compared", table.dataverse, table.rows.len());
        ensure!(
            compared_here >= table.compared_min,
            "only {compared_here} rows of {} were compared: {wrong:#?}",
            table.dataverse
        );
        compared += compared_here;
    }
    wrong.truncate(50);
    ensure!(wrong.is_empty(), "Dataverse does not hold what the files say: {wrong:#?}");
    ensure!(compared >= 500, "only {compared} rows were compared");
    Ok(())
}

#[test]
fn the_demo_without_data_keeps_its_promise() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    run_demo(None, state.path())?;
    Ok(())
}

/// Runs the demo to its end, and checks what its report promises to scripts.
fn run_demo(data: Option<&Path>, state: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--once", "--json", "--state"]).arg(state);
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout).context("the report is not text")?;
    ensure!(!text.contains('\u{1b}'), "there are colours in the output");
    let report: Value =
        serde_json::from_str(&text).with_context(|| format!("the report is not one JSON object: {text}\n{said}"))?;
    ensure!(report["equal"] == json!(true), "the two sides differ: {:#}\n{said}", report["differences"]);
    ensure!(report["differences"] == json!([]), "equal with differences: {:#}", report["differences"]);
    let maps = report["maps"].as_array().context("the report has no maps")?;
    ensure!(maps.len() >= 16, "{} flows are too few for the shipped maps", maps.len());
    for map in maps {
        for count in ["rows", "created", "updated", "deleted", "skipped", "failed"] {
            ensure!(map[count].is_u64(), "a map has no count {count}: {map}");
        }
    }
    let plugins = report["plugins"].as_array().context("the report has no plugins")?;
    ensure!(!plugins.is_empty(), "no plugin was called");
    for plugin in plugins {
        for timing in ["calls", "rows", "p50_us", "p95_us", "p99_us", "max_us", "guest_us", "marshalling_us"] {
            ensure!(plugin[timing].is_u64(), "a plugin has no {timing}: {plugin}");
        }
    }
    let failed = report["failed"].as_array().context("the report has no failed records")?;
    expect_planted(failed)?;
    for record in failed {
        for said in ["map", "key", "code", "reason", "remedy"] {
            ensure!(record[said].as_str().is_some_and(|text| !text.is_empty()), "no {said} in {record}");
        }
    }
    ensure!(output.status.code() == Some(0), "the demo ended with {:?}:\n{said}", output.status.code());
    Ok(report)
}

/// The rejected records are those that the demo's own list plants: the same maps, codes, columns and keys.
fn expect_planted(failed: &[Value]) -> anyhow::Result<()> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/host/demo/bad-rows.json");
    let list: Value = serde_json::from_slice(&std::fs::read(&list)?)?;
    let planted = list["rows"].as_array().context("the list of bad rows has no rows")?;
    ensure!(planted.len() >= 12, "a dozen kinds of bad rows are promised, {} are planted", planted.len());
    let mut open = failed.iter().collect::<Vec<_>>();
    for row in planted {
        let is_it = |record: &&Value| {
            let key = record["key"].as_str().unwrap_or_default().to_lowercase();
            // A `$` stands for a row of the data set.
            let known = row["key"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let known = known.filter_map(|name| row["row"][name].as_str()).filter(|value| !value.starts_with('$'));
            ["map", "code", "column"]
                .iter()
                .all(|said| record.get(said) == row.get(said).filter(|value| !value.is_null()))
                && known.map(str::to_lowercase).all(|value| key.contains(&value))
        };
        match open.iter().position(is_it) {
            Some(position) => drop(open.swap_remove(position)),
            None => anyhow::bail!("planted and not rejected: {row:#}; rejected: {open:#?}"),
        }
    }
    ensure!(open.is_empty(), "rejected and not planted: {open:#?}");
    println!("{} records were rejected, as planted", failed.len());
    Ok(())
}

/// Rows whose content is not what the files say, and why that is right.
struct Touched {
    /// Dataverse ids that a user wrote.
    ids: HashSet<String>,
    /// Keys of F&O rows that were written after they had been loaded, as URLs spell them.
    keys: HashSet<String>,
    /// Keys of records that were rejected, in lower case.
    failed: Vec<String>,
}

impl Touched {
    fn read(table: &ExpectedTable, finops: &Emulator, dataverse: &Emulator, report: &Value) -> anyhow::Result<Self> {
        let written = |emulator: &Emulator, set: &str, by_users_only: bool| {
            let entries = emulator.audit()?.into_iter().filter(|entry| entry.set == set);
            let by_user = |receipt: &Option<String>| receipt.as_deref().unwrap_or_default().is_empty();
            let entries = entries.filter(|entry| !by_users_only || by_user(&entry.receipt));
            anyhow::Ok(entries.map(|entry| entry.key).collect::<HashSet<_>>())
        };
        let failed = report["failed"].as_array().into_iter().flatten().filter_map(|record| record["key"].as_str());
        Ok(Self {
            ids: written(dataverse, table.dataverse, true)?,
            // Rows were loaded outside of the audit, so what the runtime wrote there a user wrote on Dataverse.
            keys: written(finops, table.finops, false)?,
            failed: failed.map(str::to_lowercase).collect(),
        })
    }

    fn finops_has(&self, key: &str) -> bool {
        let quoted = format!("'{}'", key.replace('\'', "''"));
        let failed = key.to_lowercase();
        self.keys.iter().any(|own| own.contains(&quoted))
            || self.failed.iter().any(|own| own.split('/').any(|part| part == failed))
    }
}

/// Holds the rows of a table against the store; answers how many were compared.
fn compare(
    table: &ExpectedTable,
    dataverse: &Emulator,
    touched: &Touched,
    wrong: &mut Vec<String>,
) -> anyhow::Result<usize> {
    let rows = dataverse.rows(table.dataverse)?;
    let mut lookups = Lookups { dataverse, tables: HashMap::new() };
    let key = table.rows.first().map_or("", |row| row.key.0);
    let mut found: HashMap<String, Vec<&Map<String, Value>>> = HashMap::new();
    for row in &rows {
        found.entry(lookups.text(row, key)?).or_default().push(row);
    }
    let mut compared = 0;
    for expected in &table.rows {
        if touched.finops_has(&expected.finops_key) {
            continue;
        }
        let place = format!("{} {}", table.dataverse, expected.key.1);
        let row = match found.get(&expected.key.1).map(Vec::as_slice).unwrap_or_default() {
            [row] => *row,
            [] => {
                wrong.push(format!("{place} is not there"));
                continue;
            }
            many => {
                wrong.push(format!("{place} is there {} times", many.len()));
                continue;
            }
        };
        if row.values().any(|value| value.as_str().is_some_and(|text| touched.ids.contains(text))) {
            continue;
        }
        compared += 1;
        for (column, wanted) in &expected.columns {
            let current = lookups.text(row, column)?;
            let is_same = match (current.parse::<f64>(), wanted.parse::<f64>()) {
                // Money has the digits of its column on each side.
                (Ok(current), Ok(wanted)) => (current - wanted).abs() < 0.005_1,
                _ => current.trim_end() == wanted.trim_end(),
            };
            if !is_same {
                wrong.push(format!("{place}: {column} is {current:?} and should be {wanted:?}"));
            }
        }
    }
    Ok(compared)
}

/// Rows that lookups lead to, by id.
struct Lookups<'a> {
    dataverse: &'a Emulator,
    tables: HashMap<&'static str, HashMap<String, Map<String, Value>>>,
}

impl Lookups<'_> {
    /// A cell as a person writes it; `lookup.column` is read from the row behind.
    fn text(&mut self, row: &Map<String, Value>, column: &str) -> anyhow::Result<String> {
        let Some((lookup, behind)) = column.split_once('.') else { return Ok(shown(row.get(column))) };
        let id = shown(row.get(&format!("_{lookup}_value")));
        if id.is_empty() {
            return Ok(String::new());
        }
        let (set, primary_id) = match behind {
            "cdm_companycode" => ("cdm_companies", "cdm_companyid"),
            "isocurrencycode" => ("transactioncurrencies", "transactioncurrencyid"),
            "msdyn_groupid" => ("msdyn_customergroups", "msdyn_customergroupid"),
            "msdyn_vendorgroup" => ("msdyn_vendorgroups", "msdyn_vendorgroupid"),
            "msdyn_partynumber" => ("msdyn_parties", "msdyn_partyid"),
            "msdyn_location" => ("msdyn_postaladdresscollections", "msdyn_postaladdresscollectionid"),
            _ => anyhow::bail!("nobody knows where {column} leads"),
        };
        if !self.tables.contains_key(set) {
            let rows = self.dataverse.rows(set)?;
            let by_id = rows.into_iter().map(|row| (shown(row.get(primary_id)), row)).collect();
            self.tables.insert(set, by_id);
        }
        let behind_row = self.tables.get(set).and_then(|table| table.get(&id));
        let behind_row = behind_row.with_context(|| format!("{column} leads to {id}, which is not in {set}"))?;
        Ok(shown(behind_row.get(behind)))
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

struct Files {
    folder: PathBuf,
}

impl Files {
    fn read(&self, name: &str) -> anyhow::Result<Vec<Record>> {
        let path = self.folder.join(format!("{name}.csv"));
        let mut reader = csv::Reader::from_path(&path).with_context(|| path.display().to_string())?;
        reader.deserialize().collect::<Result<_, _>>().with_context(|| path.display().to_string())
    }
}

/// What stands in a column, without the blanks that fill a fixed width.
fn cell<'a>(record: &'a Record, column: &str) -> &'a str {
    record.get(column).map_or("", |text| text.trim_end())
}

fn by<'a>(records: &'a [Record], column: &str) -> HashMap<&'a str, &'a Record> {
    records.iter().map(|record| (record.get(column).map_or("", |text| text.trim_end()), record)).collect()
}

/// Everything that is compared, from the files alone.
fn expected(files: &Files) -> anyhow::Result<Vec<ExpectedTable>> {
    let territories = files.read("SalesTerritory")?;
    let company_of = territories
        .iter()
        .map(|territory| {
            let country = cell(territory, "CountryRegionCode").to_lowercase();
            let company = match cell(territory, "Group") {
                "Europe" => "eumf".to_owned(),
                "Pacific" => "apmf".to_owned(),
                _ => format!("{country}mf"),
            };
            (cell(territory, "TerritoryID").to_owned(), company)
        })
        .collect::<BTreeMap<_, _>>();
    Ok(vec![
        currencies(files)?,
        units(files)?,
        products(files)?,
        vendors(files)?,
        accounts(files, &company_of)?,
        contacts(files, &company_of)?,
        addresses(files)?,
        email_addresses(files)?,
    ])
}

fn currencies(files: &Files) -> anyhow::Result<ExpectedTable> {
    let rows = files.read("Currency")?;
    let rows = rows.iter().map(|record| Expected {
        key: ("isocurrencycode", cell(record, "CurrencyCode").to_owned()),
        finops_key: cell(record, "CurrencyCode").to_owned(),
        columns: vec![("currencyname", cell(record, "Name").to_owned()), ("exchangerate", "1".to_owned())],
    });
    Ok(ExpectedTable {
        dataverse: "transactioncurrencies",
        finops: "Currencies",
        rows: rows.collect(),
        compared_min: 70,
    })
}

fn units(files: &Files) -> anyhow::Result<ExpectedTable> {
    let rows = files.read("UnitMeasure")?;
    let rows = rows.iter().map(|record| Expected {
        key: ("msdyn_symbol", cell(record, "UnitMeasureCode").to_owned()),
        finops_key: cell(record, "UnitMeasureCode").to_owned(),
        columns: vec![("msdyn_description", cell(record, "Name").to_owned())],
    });
    Ok(ExpectedTable { dataverse: "uoms", finops: "UnitsOfMeasure", rows: rows.collect(), compared_min: 25 })
}

fn products(files: &Files) -> anyhow::Result<ExpectedTable> {
    let rows = files.read("Product")?;
    let rows = rows.iter().map(|record| Expected {
        key: ("msdyn_productnumber", cell(record, "ProductNumber").to_owned()),
        finops_key: cell(record, "ProductNumber").to_owned(),
        columns: vec![("msdyn_productname", cell(record, "Name").to_owned())],
    });
    Ok(ExpectedTable {
        dataverse: "msdyn_globalproducts",
        finops: "AllProducts",
        rows: rows.collect(),
        compared_min: 400,
    })
}

fn vendors(files: &Files) -> anyhow::Result<ExpectedTable> {
    let mut ordered: HashMap<String, f64> = HashMap::new();
    for order in files.read("PurchaseOrderHeader")? {
        let total = cell(&order, "TotalDue").parse::<f64>().context("a total")?;
        *ordered.entry(cell(&order, "VendorID").to_owned()).or_default() += total;
    }
    let rows = files.read("Vendor")?;
    let rows = rows.iter().map(|record| {
        let id = cell(record, "BusinessEntityID");
        let hold = match (cell(record, "ActiveFlag"), cell(record, "PreferredVendorStatus")) {
            ("0", _) => "806380002",
            (_, "0") => "806380004",
            _ => "806380000",
        };
        Expected {
            key: ("msdyn_vendoraccountnumber", cell(record, "AccountNumber").to_owned()),
            finops_key: cell(record, "AccountNumber").to_owned(),
            columns: vec![
                ("msdyn_ourvendoraccountnumber", format!("AW-{id}")),
                ("msdyn_isperson", "false".to_owned()),
                ("msdyn_creditrating", cell(record, "CreditRating").to_owned()),
                ("msdyn_vendorcreditlimit", ordered.get(id).copied().unwrap_or_default().to_string()),
                ("msdyn_primarycontacturl", cell(record, "PurchasingWebServiceURL").to_owned()),
                ("msdyn_onholdstatus", hold.to_owned()),
                ("msdyn_vendorgroupid.msdyn_vendorgroup", format!("RATING{}", cell(record, "CreditRating"))),
                ("msdyn_partyid.msdyn_partynumber", format!("P{id:0>8}")),
            ],
        }
    });
    Ok(ExpectedTable { dataverse: "msdyn_vendors", finops: "VendorsV2", rows: rows.collect(), compared_min: 60 })
}

/// The map has no column for the name, which comes with the party; the loader puts it into the memo.
fn accounts(files: &Files, company_of: &BTreeMap<String, String>) -> anyhow::Result<ExpectedTable> {
    let territories = files.read("SalesTerritory")?;
    let territories = by(&territories, "TerritoryID");
    let stores = files.read("Store")?;
    let stores = by(&stores, "BusinessEntityID");
    let mut rows = Vec::new();
    for record in files.read("Customer")?.iter().filter(|record| !cell(record, "StoreID").is_empty()) {
        let store = stores.get(cell(record, "StoreID")).context("a customer's store")?;
        let territory = cell(record, "TerritoryID");
        let mut memo = cell(store, "Name").to_owned();
        memo.push_str(&format!("\nTerritory: {}", territories.get(territory).map_or("", |own| cell(own, "Name"))));
        if !cell(store, "SalesPersonID").is_empty() {
            memo.push_str(&format!("\nSales person: {}", cell(store, "SalesPersonID")));
        }
        let hold = match cell(record, "CustomerID").parse::<u32>().context("a number")? {
            id if id % 97 == 0 => "806380002",
            id if id % 50 == 0 => "806380001",
            id if id % 41 == 0 => "806380005",
            _ => "806380000",
        };
        rows.push(Expected {
            key: ("accountnumber", cell(record, "AccountNumber").to_owned()),
            finops_key: cell(record, "AccountNumber").to_owned(),
            columns: vec![
                ("description", memo),
                ("customertypecode", "3".to_owned()),
                ("msdyn_identificationnumber", format!("CUSTOMER-{}", cell(record, "CustomerID"))),
                ("msdyn_company.cdm_companycode", company_of.get(territory).cloned().unwrap_or_default()),
                ("msdyn_customergroupid.msdyn_groupid", format!("T{territory:0>2}S")),
                ("msdyn_partyid.msdyn_partynumber", format!("P{:0>8}", cell(record, "StoreID"))),
                ("msdyn_onholdstatus", hold.to_owned()),
            ],
        });
    }
    Ok(ExpectedTable { dataverse: "accounts", finops: "CustomersV3", rows, compared_min: 500 })
}

fn contacts(files: &Files, company_of: &BTreeMap<String, String>) -> anyhow::Result<ExpectedTable> {
    let rows = files.read("Customer")?;
    let rows = rows.iter().filter(|record| cell(record, "StoreID").is_empty()).map(|record| {
        let territory = cell(record, "TerritoryID");
        Expected {
            key: ("msdyn_contactpersonid", cell(record, "AccountNumber").to_owned()),
            finops_key: cell(record, "AccountNumber").to_owned(),
            columns: vec![
                ("msdyn_sellable", "true".to_owned()),
                ("msdyn_identificationnumber", format!("CUSTOMER-{}", cell(record, "CustomerID"))),
                ("msdyn_company.cdm_companycode", company_of.get(territory).cloned().unwrap_or_default()),
                ("msdyn_customergroupid.msdyn_groupid", format!("T{territory:0>2}P")),
                ("msdyn_partyid.msdyn_partynumber", format!("P{:0>8}", cell(record, "PersonID"))),
            ],
        }
    });
    Ok(ExpectedTable { dataverse: "contacts", finops: "CustomersV3", rows: rows.collect(), compared_min: 10_000 })
}

/// Addresses of stores, vendors and individual customers, the parties of the demo.
fn addresses(files: &Files) -> anyhow::Result<ExpectedTable> {
    let mut parties = HashSet::new();
    for (file, column) in [("Store", "BusinessEntityID"), ("Vendor", "BusinessEntityID")] {
        parties.extend(files.read(file)?.iter().map(|record| cell(record, column).to_owned()));
    }
    for customer in files.read("Customer")?.iter().filter(|record| cell(record, "StoreID").is_empty()) {
        parties.insert(cell(customer, "PersonID").to_owned());
    }
    let of_parties = files.read("BusinessEntityAddress")?;
    let of_parties = of_parties
        .iter()
        .filter(|link| parties.contains(cell(link, "BusinessEntityID")))
        .map(|link| cell(link, "AddressID"))
        .collect::<HashSet<_>>();
    let states = files.read("StateProvince")?;
    let states = by(&states, "StateProvinceID");
    let mut rows = Vec::new();
    for record in files.read("Address")?.iter().filter(|record| of_parties.contains(cell(record, "AddressID"))) {
        let state = states.get(cell(record, "StateProvinceID")).context("an address's state")?;
        let street = match record.get("AddressLine2").map(String::as_str) {
            None | Some("") => record.get("AddressLine1").cloned().unwrap_or_default(),
            Some(second) => format!("{}\n{second}", record.get("AddressLine1").map_or("", String::as_str)),
        };
        let location = format!("L{:0>8}", cell(record, "AddressID"));
        rows.push(Expected {
            key: ("msdyn_postaladdresscollectionid.msdyn_location", location.clone()),
            finops_key: location,
            columns: vec![
                ("msdyn_street", street),
                ("msdyn_city", cell(record, "City").to_owned()),
                ("msdyn_zipcode", cell(record, "PostalCode").to_owned()),
                ("msdyn_state", cell(state, "StateProvinceCode").to_owned()),
                ("msdyn_countryregionid", cell(state, "CountryRegionCode").to_owned()),
                ("msdyn_county", cell(state, "Name").to_owned()),
            ],
        });
    }
    Ok(ExpectedTable {
        dataverse: "msdyn_postaladdresses",
        finops: "CDSPostalAddressHistoriesV2",
        rows,
        compared_min: 10_000,
    })
}

/// E-mail addresses of individual customers.
fn email_addresses(files: &Files) -> anyhow::Result<ExpectedTable> {
    let individuals = files.read("Customer")?;
    let individuals = individuals
        .iter()
        .filter(|record| cell(record, "StoreID").is_empty())
        .map(|record| cell(record, "PersonID"))
        .collect::<HashSet<_>>();
    let rows = files.read("EmailAddress")?;
    let rows = rows.iter().filter(|record| individuals.contains(cell(record, "BusinessEntityID"))).map(|record| {
        let number = format!("E{:0>8}", cell(record, "EmailAddressID"));
        Expected {
            key: ("msdyn_electronicaddressnumber", number.clone()),
            finops_key: number,
            columns: vec![
                ("msdyn_locator", cell(record, "EmailAddress").to_owned()),
                ("msdyn_type", "192350002".to_owned()),
                ("msdyn_partyid.msdyn_partynumber", format!("P{:0>8}", cell(record, "BusinessEntityID"))),
            ],
        }
    });
    Ok(ExpectedTable {
        dataverse: "msdyn_partyelectronicaddresses",
        finops: "PartyContactsV3",
        rows: rows.collect(),
        compared_min: 10_000,
    })
}
