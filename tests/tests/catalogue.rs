//! The maps that come with the program, on rows that come with it: added by the command line, run by the real host
//! against both emulators, edited on both sides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use dualwright::catalogue::generate::{Sizes, all};
use dualwright::catalogue::{Catalogue, MapDirection, tables};
use dualwright::config::Config;
use dualwright::engine::prepare::prepare;
use dualwright::engine::{Engine, LiveEnd};
use dualwright::report::{Difference, DifferenceKind, PluginReport};
use dualwright::store::{Capture, NewDelivery, Scope, Store};
use dualwright_core::{SystemKind, TransactionId};
use dualwright_emulator::TableDefinition;
use dualwright_tests::audit;
use dualwright_tests::systems::{Edit, Operation, Row, SystemClient, key_pairs};
use dualwright_tests::world::{Heard, Served, open_engine};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dualwright-under-test");

/// What somebody changes on one side of a map, and where it has to be on the other.
struct Change {
    map: &'static str,
    finops: &'static str,
    /// The column of F&O, and of Dataverse.
    columns: (&'static str, &'static str),
    dataverse: &'static str,
    /// The row of Dataverse, in the small language of keys; the row of F&O is the first one that the map carries.
    row: &'static str,
}

const COMPANY: &str = "@cdm_companies/cdm_companycode=usmf";

macro_rules! changes {
    ($($map:literal: $finops:literal $from:literal - $to:literal $dataverse:literal $row:literal;)*) => {
        &[$(Change { map: $map, finops: $finops, columns: ($from, $to), dataverse: $dataverse, row: $row },)*]
    };
}

/// One for every map of the catalogue. `$` stands for the company of the first rows.
const CHANGES: &[Change] = changes![
    "legal-entities": "LegalEntities" "Name" - "cdm_name" "cdm_companies" "cdm_companycode=usmf";
    "currencies": "Currencies" "Name" - "currencyname" "transactioncurrencies" "isocurrencycode=USD";
    "ledgers": "Ledgers" "Description" - "msdyn_description" "msdyn_ledgers" "msdyn_name=USMF";
    "units": "UnitsOfMeasure" "UnitDescription" - "msdyn_description" "uoms" "msdyn_symbol=ea";
    "parties": "CDSParties" "KnownAs" - "msdyn_nickname" "msdyn_parties" "msdyn_partynumber=PC-0000001";
    "payment-terms": "PaymentTerms" "Description" - "msdyn_description" "msdyn_paymentterms"
        "msdyn_name=Cash,msdyn_company=$";
    "payment-days": "PaymentDaysCDS" "Description" - "msdyn_description" "msdyn_paymentdays"
        "msdyn_name=Fri,msdyn_company=$";
    "payment-schedules": "PaymentSchedules" "Description" - "msdyn_description" "msdyn_paymentschedules"
        "msdyn_name=Halves,msdyn_company=$";
    "customer-payment-methods": "CustomerPaymentMethods" "Description" - "msdyn_description"
        "msdyn_customerpaymentmethods" "msdyn_name=Transfer,msdyn_company=$";
    "vendor-payment-methods": "VendorPaymentMethods" "Description" - "msdyn_description"
        "msdyn_vendorpaymentmethods" "msdyn_name=Transfer,msdyn_company=$";
    "sales-tax-groups": "TaxGroups" "Description" - "msdyn_description" "msdyn_taxgroups"
        "msdyn_name=Full,msdyn_company=$";
    "terms-of-delivery": "DeliveryTerms" "TermsDescription" - "msdyn_termsdescription" "msdyn_termsofdeliveries"
        "msdyn_termscode=EXW,msdyn_company=$";
    "modes-of-delivery": "DeliveryModes" "ModeDescription" - "msdyn_description" "msdyn_shipvias"
        "msdyn_name=Road,msdyn_company=$";
    "sales-order-origins": "SalesOrderOrigins" "OriginDescription" - "msdyn_origindescription"
        "msdyn_salesorderorigins" "msdyn_origincode=Web,msdyn_company=$";
    "price-customer-groups": "PriceCustomerGroups" "GroupName" - "msdyn_groupname" "msdyn_pricecustomergroups"
        "msdyn_groupcode=Key,msdyn_company=$";
    "customer-groups": "CustomerGroups" "Description" - "msdyn_description" "msdyn_customergroups"
        "msdyn_groupid=10,msdyn_company=$";
    "vendor-groups": "VendorGroups" "Description" - "msdyn_description" "msdyn_vendorgroups"
        "msdyn_vendorgroup=MAT,msdyn_company=$";
    "vendors": "VendorsV2" "OurAccountNumber" - "msdyn_ourvendoraccountnumber" "msdyn_vendors"
        "msdyn_vendoraccountnumber=V-0000001,msdyn_company=$";
    "customers-accounts": "CustomersV3" "CreditRating" - "msdyn_creditrating" "accounts"
        "accountnumber=C-0000001,msdyn_company=$";
    "customers-contacts": "CustomersV3" "SalesMemo" - "description" "contacts"
        "msdyn_contactpersonid=C-0000007,msdyn_company=@cdm_companies/cdm_companycode=gbsi";
    "products": "AllProducts" "ProductName" - "msdyn_productname" "msdyn_globalproducts"
        "msdyn_productnumber=P-0000001";
    "released-products": "ReleasedProductsV2" "ShelfAdvicePeriodDays" - "msdyn_shelfadviceperioddays"
        "msdyn_sharedproductdetails" "msdyn_itemnumber=I-0000001,msdyn_companyid=$";
    "released-distinct-products": "CDSReleasedDistinctProducts" "ProductName" - "name" "products"
        "msdyn_productnumber=P-0000001,msdyn_companyid=$";
    "sites": "OperationalSites" "SiteName" - "msdyn_sitename" "msdyn_operationalsites"
        "msdyn_siteid=1,msdyn_company=$";
    "warehouses": "Warehouses" "WarehouseName" - "msdyn_description" "msdyn_warehouses"
        "msdyn_warehouseidentifier=99,msdyn_company=$";
    "sales-order-headers": "CDSSalesOrderHeaders" "CustomersOrderReference" - "msdyn_customersorderreference"
        "salesorders" "msdyn_salesordernumber=SO1-0000001";
    "sales-order-lines": "CDSSalesOrderLines" "LineDescription" - "msdyn_linedescription" "salesorderdetails"
        "sequencenumber=1,salesorderid=@salesorders/msdyn_salesordernumber=SO1-0000001";
    "on-hand-requests": "CDSInventoryOnHandRequests" "REFERENCENUMBER" - "msdyn_referencenumber"
        "msdyn_inventoryonhandrequests" "msdyn_requestid=OH-0000001";
    "on-hand-entries": "CDSInventoryOnHandEntries" "OnHandQuantity" - "msdyn_onhandquantity"
        "msdyn_inventoryonhandentries" "msdyn_request=@msdyn_inventoryonhandrequests/msdyn_requestid=OH-0000001";
    "project-contracts": "ProjectContracts" "CustomersOrderReference" - "msdyn_customersorderreference" "salesorders"
        "msdyn_salesordernumber=PCN-0000001";
    "projects": "ProjectsV2" "Description" - "msdyn_description" "msdyn_projects" "msdyn_projectnumber=PRJ-0000001";
    "project-tasks": "CDSProjectTasks" "Name" - "msdyn_subject" "msdyn_projecttasks"
        "msdyn_wbsid=1,msdyn_project=@msdyn_projects/msdyn_projectnumber=PRJ-0000001";
];

/// Maps that go both ways by their keys alone: every other column is F&O's.
const ONE_WAY_BACK: [&str; 1] = ["on-hand-entries"];

struct Group {
    finops: SystemClient,
    dataverse: SystemClient,
    systems: [Served; 2],
    folder: TempDir,
    config: PathBuf,
}

impl Group {
    /// Both systems with the tables of the catalogue, and a configuration to which its maps were added.
    async fn new(tables_of: &dyn Fn(SystemKind) -> anyhow::Result<Vec<TableDefinition>>) -> anyhow::Result<Self> {
        let (left, finops) = Served::start_with(SystemKind::Finops, None, tables_of(SystemKind::Finops)?).await?;
        let (right, dataverse) =
            Served::start_with(SystemKind::Dataverse, None, tables_of(SystemKind::Dataverse)?).await?;
        let folder = TempDir::new()?;
        let config = folder.path().join("dualwright.toml");
        std::fs::write(
            &config,
            format!(
                "tenant = \"default\"\nstate = \"state\"\n\n[limits]\npoll_interval_ms = 10\n\n[link]\nslug = \"group\"\n\
                 companies = [\"usmf\", \"demf\", \"gbsi\", \"jpmf\"]\nconflict_winner = \"finops\"\n\
                 finops.url = \"{}\"\ndataverse.url = \"{}\"\n",
                finops.base, dataverse.base
            ),
        )?;
        let group = Self { finops, dataverse, systems: [left, right], folder, config };
        let (code, said) = group.run(&["map", "catalogue", "add", "--all"]).await?;
        ensure!(code == Some(0), "the catalogue cannot be added: {said}");
        Ok(group)
    }

    /// The program with these arguments and the configuration: exit code, and all that it said.
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(&self.config);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        Ok((output.status.code(), said))
    }

    fn seed(&self, sizes: &Sizes) -> anyhow::Result<BTreeMap<&'static str, Vec<Row>>> {
        let mut sets = BTreeMap::new();
        for set in all(sizes, 1) {
            sets.insert(set.set, set.rows.clone());
            self.systems[0].emulator.seed(set.set, set.rows)?;
        }
        Ok(sets)
    }

    async fn end(self) -> anyhow::Result<()> {
        for served in self.systems {
            served.end().await?;
        }
        drop(self.folder);
        Ok(())
    }
}

/// Rows that somebody makes on Dataverse, parents first, and what F&O has to have of them. `$` stands for the company.
const BORN_ON_DATAVERSE: &[(&str, &str, &str, &str)] = &[
    (
        "msdyn_paymentterms",
        "msdyn_name=New,msdyn_company=$,msdyn_description=Made here",
        "PaymentTerms",
        "dataAreaId=usmf,Name=New,Description=Made here",
    ),
    (
        "msdyn_parties",
        "msdyn_partynumber=P-NEW,msdyn_partytype=192350002,msdyn_organizationname=New Works",
        "CDSParties",
        "PartyNumber=P-NEW,PartyType=Organization,OrganizationName=New Works",
    ),
    (
        "accounts",
        "accountnumber=A-NEW,msdyn_company=$,customertypecode=3,msdyn_partyid=@msdyn_parties/msdyn_partynumber=P-NEW,\
         transactioncurrencyid=@transactioncurrencies/isocurrencycode=USD,\
         msdyn_customergroupid=@msdyn_customergroups/msdyn_groupid=10,\
         msdyn_paymentterm=@msdyn_paymentterms/msdyn_name=New",
        "CustomersV3",
        "dataAreaId=usmf,CustomerAccount=A-NEW,PartyType=Organization,PartyNumber=P-NEW,SalesCurrencyCode=USD,\
         CustomerGroupId=10,PaymentTerms=New",
    ),
    (
        "salesorders",
        "msdyn_salesordernumber=SO-NEW,msdyn_company=$,msdyn_ordertype=192350000,\
         customerid=@accounts/accountnumber=A-NEW,transactioncurrencyid=@transactioncurrencies/isocurrencycode=USD,\
         msdyn_language=192350015,shipto_country=united states",
        "CDSSalesOrderHeaders",
        "dataAreaId=usmf,SalesOrderNumber=SO-NEW,OrderingCustomerAccountNumber=A-NEW,CurrencyCode=USD,LanguageId=en-us,\
         DeliveryAddressCountryRegionISOCode=us",
    ),
    (
        "salesorderdetails",
        "sequencenumber=1,salesorderid=@salesorders/msdyn_salesordernumber=SO-NEW,quantity=4,\
         productid=@products/msdyn_productnumber=P-0000001,uomid=@uoms/msdyn_symbol=ea,priceperunit=2.5",
        "CDSSalesOrderLines",
        "dataAreaId=usmf,SalesOrderNumber=SO-NEW,LineCreationSequenceNumber=1,ProductNumber=P-0000001,\
         SalesUnitSymbol=ea,OrderedSalesQuantity=4,SalesPrice=2.5",
    ),
    (
        "salesorders",
        "msdyn_salesordernumber=PCN-NEW,name=Refit,msdyn_company=$,msdyn_ordertype=192350001,\
         customerid=@accounts/accountnumber=A-NEW,transactioncurrencyid=@transactioncurrencies/isocurrencycode=USD",
        "ProjectContracts",
        "dataAreaId=usmf,ProjectContractId=PCN-NEW,Name=Refit,CustomerAccountNumber=A-NEW",
    ),
    (
        "msdyn_projects",
        "msdyn_projectnumber=PRJ-NEW,msdyn_subject=Refit,msdyn_scheduledstart=2026-03-01T00:00:00Z,\
         msdyn_salesorderid=@salesorders/msdyn_salesordernumber=PCN-NEW",
        "ProjectsV2",
        "dataAreaId=usmf,ProjectId=PRJ-NEW,ProjectName=Refit,ProjectContractId=PCN-NEW",
    ),
    (
        "msdyn_projecttasks",
        "msdyn_wbsid=1,msdyn_subject=Survey,msdyn_project=@msdyn_projects/msdyn_projectnumber=PRJ-NEW",
        "CDSProjectTasks",
        "dataAreaId=usmf,ProjectId=PRJ-NEW,WorkBreakdownStructureID=1,Name=Survey",
    ),
    (
        "msdyn_inventoryonhandrequests",
        "msdyn_requestid=OH-NEW,msdyn_company=$,msdyn_orderquantity=3,msdyn_isatpcalculation=false,\
         msdyn_product=@products/msdyn_productnumber=P-0000001,\
         msdyn_inventorysite=@msdyn_operationalsites/msdyn_siteid=1",
        "CDSInventoryOnHandRequests",
        "dataAreaId=usmf,REQUESTID=OH-NEW,PRODUCTNUMBER=P-0000001,INVENTORYSITEID=1,ORDERQUANTITY=3",
    ),
];

async fn settle(engine: &Engine) -> anyhow::Result<()> {
    Ok(engine.live(LiveEnd::Settled, &CancellationToken::new()).await?)
}

/// Nothing failed, and both sides are the same. What F&O sets by itself in a row that was made on Dataverse (a zero, a
/// No) does not go back before F&O changes the row, so those rows differ, and in nothing else.
async fn expect_equal(engine: &Engine, when: &str) -> anyhow::Result<()> {
    let link = engine.link();
    let failed = link.store.failed(&link.scope, Default::default()).await?;
    let failed = failed.iter().map(|record| format!("{} {}: {}", record.map, record.key, record.fault));
    let failed = failed.take(20).collect::<Vec<_>>();
    ensure!(failed.is_empty(), "{when}, records failed:\n{}", failed.join("\n"));
    let mut differences = engine.compare().await?;
    let is_born = |difference: &Difference| difference.key.ends_with("-new");
    differences.retain(|difference| !is_born(difference) || difference.kind != DifferenceKind::Different);
    let shown = differences.iter().take(20).map(|difference| format!("{difference:?}")).collect::<Vec<_>>();
    ensure!(shown.is_empty(), "{when}, {} differences:\n{}", differences.len(), shown.join("\n"));
    Ok(())
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The key of a row of F&O, as an edit names it.
fn finops_key(definitions: &[TableDefinition], set: &str, row: &Row) -> anyhow::Result<Vec<(String, String)>> {
    let table = definitions.iter().find(|table| table.set == set).context("no such table")?;
    table.key.iter().map(|name| Ok((name.clone(), text_of(row.get(name).context("no key")?)))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_map_of_the_catalogue_carries_generated_rows_both_ways() -> anyhow::Result<()> {
    let group = Group::new(&|kind| Ok(tables(kind)?)).await?;
    let (code, said) = group.run(&["map", "check", "--emulated"]).await?;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("notice") && !said.contains("no map writes"), "{said}");
    let mut sizes = Sizes::of(24);
    sizes.set("sales-orders", 20).map_err(anyhow::Error::msg)?;
    let sets = group.seed(&sizes)?;

    let engine = open_engine(&group.config, Arc::new(Heard::default())).await?;
    engine.start_feeds().await?;
    engine.initial_sync(&CancellationToken::new()).await?;
    settle(&engine).await?;
    expect_equal(&engine, "after the initial sync").await?;
    // Equal is not yet there: every row of every set has arrived, in as many rows as there are.
    let catalogue = Catalogue::embedded()?;
    let finops_tables = tables(SystemKind::Finops)?;
    let mut rows_of_set = BTreeMap::<&str, usize>::new();
    for map in catalogue.maps() {
        let set = finops_tables.iter().find(|table| table.entity.as_deref() == Some(&map.leg().finops_entity));
        let rows = &sets[set.context("no such entity")?.set.as_str()];
        let persons = rows.iter().filter(|row| row.get("PartyType").is_some_and(|own| own == "Person")).count();
        *rows_of_set.entry(map.leg().dataverse_set.as_str()).or_default() += match map.slug.as_str() {
            "customers-accounts" => rows.len() - persons,
            "customers-contacts" => persons,
            _ => rows.len(),
        };
    }
    for (set, rows) in rows_of_set {
        assert!(rows > 0, "{set} was given no row");
        assert_eq!(group.dataverse.rows(set).await?.len(), rows, "{set}");
    }

    changes_go_both_ways(&group, &engine, &catalogue, &finops_tables, &sets).await?;
    rows_are_born_on_dataverse(&group, &engine).await?;
    orders_arrive_whole(&group, &engine).await?;
    // All that was changed, and none of the hundreds of rows that the runtime itself wrote.
    let pace = engine.link().store.pace(&engine.link().scope).await?.context("nothing was measured")?;
    let edits = 2 * CHANGES.len() + BORN_ON_DATAVERSE.len() + 6 * 13;
    assert!(pace.rows_per_ten_minutes_max as usize <= edits, "{pace:?} of at most {edits}");
    engine.link().store.close().await;
    group.end().await
}

/// The first generated row that the map of a change carries.
fn first_row<'a>(change: &Change, sets: &'a BTreeMap<&'static str, Vec<Row>>) -> anyhow::Result<&'a Row> {
    let is_person = |row: &&Row| row.get("PartyType").is_some_and(|own| own == "Person");
    let wants_person = change.map == "customers-contacts";
    sets[change.finops].iter().find(|row| !wants_person || is_person(row)).context("no row")
}

async fn changes_go_both_ways(
    group: &Group,
    engine: &Engine,
    catalogue: &Catalogue,
    finops_tables: &[TableDefinition],
    sets: &BTreeMap<&'static str, Vec<Row>>,
) -> anyhow::Result<()> {
    for map in catalogue.maps() {
        assert!(CHANGES.iter().any(|change| change.map == map.slug), "{} has no change", map.slug);
    }
    let number = |column: &str| ["ShelfAdvicePeriodDays", "OnHandQuantity"].contains(&column);
    let value = |change: &Change, side: &str| {
        if number(change.columns.0) { "4321".to_owned() } else { format!("From {side}") }
    };
    for change in CHANGES {
        let first = first_row(change, sets)?;
        let edit = Edit {
            operation: Operation::Update,
            set: change.finops.to_owned(),
            key: finops_key(finops_tables, change.finops, first)?,
            columns: vec![(change.columns.0.to_owned(), value(change, "F&O"))],
        };
        group.finops.write(&edit).await?.map_err(|refused| anyhow::anyhow!("{}: {refused}", change.map))?;
    }
    settle(engine).await?;
    for change in CHANGES {
        let mut wanted = key_pairs(&change.row.replace('$', COMPANY)).map_err(anyhow::Error::msg)?;
        wanted.push((change.columns.1.to_owned(), value(change, "F&O")));
        let found = group.dataverse.find(change.dataverse, &wanted).await?;
        assert!(found.is_some(), "{}: the change of F&O did not arrive", change.map);
    }
    expect_equal(engine, "after changes on F&O").await?;

    let direction = |slug: &str| catalogue.map(slug).map(|map| map.direction());
    let goes_back =
        |change: &&Change| direction(change.map) == Some(MapDirection::BothWays) && !ONE_WAY_BACK.contains(&change.map);
    for change in CHANGES.iter().filter(goes_back) {
        let edit = Edit {
            operation: Operation::Update,
            set: change.dataverse.to_owned(),
            key: key_pairs(&change.row.replace('$', COMPANY)).map_err(anyhow::Error::msg)?,
            columns: vec![(change.columns.1.to_owned(), value(change, "DV"))],
        };
        group.dataverse.write(&edit).await?.map_err(|refused| anyhow::anyhow!("{}: {refused}", change.map))?;
    }
    settle(engine).await?;
    for change in CHANGES.iter().filter(goes_back) {
        let first = first_row(change, sets)?;
        let mut wanted = finops_key(finops_tables, change.finops, first)?;
        wanted.push((change.columns.0.to_owned(), value(change, "DV")));
        let found = group.finops.find(change.finops, &wanted).await?;
        assert!(found.is_some(), "{}: the change of Dataverse did not arrive", change.map);
    }
    expect_equal(engine, "after changes on Dataverse").await
}

async fn rows_are_born_on_dataverse(group: &Group, engine: &Engine) -> anyhow::Result<()> {
    for (set, columns, ..) in BORN_ON_DATAVERSE {
        let edit = Edit {
            operation: Operation::Insert,
            set: (*set).to_owned(),
            key: key_pairs(&columns.replace('$', COMPANY)).map_err(anyhow::Error::msg)?,
            columns: Vec::new(),
        };
        group.dataverse.write(&edit).await?.map_err(|refused| anyhow::anyhow!("{set}: {refused}"))?;
    }
    settle(engine).await?;
    for (_, columns, set, wanted) in BORN_ON_DATAVERSE {
        let wanted = key_pairs(wanted).map_err(anyhow::Error::msg)?;
        assert!(group.finops.find(set, &wanted).await?.is_some(), "{set}: {columns} did not arrive");
    }
    expect_equal(engine, "after rows were made on Dataverse").await
}

/// Orders that the program writes into F&O, each with its lines in one transaction, are one transaction on Dataverse.
async fn orders_arrive_whole(group: &Group, engine: &Engine) -> anyhow::Result<()> {
    let before = audit::read(&group.dataverse, 0).await?.last().map_or(0, |entry| entry.sequence);
    let arguments = ["generate", "--customers", "24", "--orders", "--seed", "2", "--size", "sales-orders=6", "--json"];
    let (code, said) = group.run(&arguments).await?;
    assert_eq!(code, Some(0), "{said}");
    let written: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    assert_eq!(written["CDSSalesOrderHeaders"], 6);
    settle(engine).await?;
    expect_equal(engine, "after new orders").await?;

    let entries = audit::read(&group.dataverse, before).await?;
    let transaction_of = entries
        .iter()
        .filter(|entry| entry.operation == "Insert" && entry.is_ours())
        .map(|entry| (entry.key.as_str(), entry.transaction.as_str()))
        .collect::<BTreeMap<_, _>>();
    let orders = group.dataverse.rows_where("salesorders", Some("startswith(msdyn_salesordernumber,'SO2-')")).await?;
    assert_eq!(orders.len(), 6);
    let mut lines = 0;
    let mut transactions = Vec::new();
    for order in &orders {
        let id = order["salesorderid"].as_str().context("no id")?;
        let transaction = transaction_of.get(id).context("the order was not written by the runtime")?;
        transactions.push(*transaction);
        let filter = format!("_salesorderid_value eq {id}");
        for line in group.dataverse.rows_where("salesorderdetails", Some(&filter)).await? {
            let line = line["salesorderdetailid"].as_str().context("no id")?;
            assert_eq!(transaction_of.get(line), Some(transaction), "a line of {id} came apart from it");
            lines += 1;
        }
    }
    assert_eq!(written["CDSSalesOrderLines"], lines);
    transactions.sort_unstable();
    transactions.dedup();
    assert_eq!(transactions.len(), 6, "orders that F&O wrote apart were written together");
    // The same orders again are refused by F&O, and the message says what to do.
    let (code, said) = group.run(&arguments).await?;
    assert!(code == Some(2) && said.contains("--seed"), "{code:?} {said}");
    Ok(())
}

/// A field that goes to F&O needs the changes of its table; that they cannot be read is said before anything starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_changes_are_not_tracked_is_refused() -> anyhow::Result<()> {
    let group = Group::new(&|kind| {
        let mut tables = tables(kind)?;
        for table in &mut tables {
            table.untracked = ["accounts", "products"].contains(&table.set.as_str());
        }
        Ok(tables)
    })
    .await?;
    let (code, said) = group.run(&["run", "--once"]).await?;
    assert_eq!(code, Some(2), "{said}");
    let told = said.lines().filter(|line| line.contains("[DIPV1019]")).collect::<Vec<_>>();
    // Nothing of `products` goes to F&O, so nobody asks for its changes.
    assert_eq!(told.len(), 1, "{said}");
    for part in ["customers-accounts.json", "change tracking is off for account", "turn on change tracking"] {
        assert!(told[0].contains(part), "{part:?} is not in {}", told[0]);
    }
    group.end().await
}

/// Health check 1700: a notice, unless each of the maps says by a filter which rows are its.
#[tokio::test(flavor = "multi_thread")]
async fn maps_of_one_entity_are_a_notice_at_the_start() -> anyhow::Result<()> {
    let group = Group::new(&|kind| Ok(tables(kind)?)).await?;
    let notices = async || -> anyhow::Result<Vec<String>> {
        let config = Config::read(&group.config, &|_| None).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let store = Store::open(&config.state)?;
        let prepared = prepare(&config, store.clone()).await.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        store.close().await;
        let notices = prepared.notices.iter().map(ToString::to_string);
        Ok(notices.filter(|notice| notice.contains("[HC1700]")).collect())
    };
    assert_eq!(notices().await?, Vec::<String>::new(), "accounts and contacts have filters");
    let file = group.folder.path().join("maps/customers-contacts.json");
    let map = std::fs::read_to_string(&file)?;
    let filter = r#""sourceFilter": "((PartyType == \"Person\"))""#;
    assert!(map.contains(filter), "{map}");
    std::fs::write(&file, map.replace(filter, r#""sourceFilter": """#))?;
    let told = notices().await?;
    assert!(told.len() == 1 && told[0].contains("customers-accounts, customers-contacts read CustomersV3"), "{told:?}");
    group.end().await
}

/// Files for `emulate --rows`, and a store that is seeded at once, hold the same rows.
#[test]
fn a_store_is_seeded_with_a_company_of_the_asked_size() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let run = |arguments: &[&str], store: &Path| -> anyhow::Result<Value> {
        let output = Command::new(PROGRAM).args(arguments).arg("--store").arg(store).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let store = folder.path().join("finops.db");
    let seed = ["emulate", "seed", "finops", "--catalogue", "--generate", "40", "--size", "vendors=9", "--json"];
    let first = run(&seed, &store)?;
    assert_eq!((&first["rows"]["CustomersV3"], &first["rows"]["VendorsV2"]), (&40.into(), &9.into()));
    // Sets that have rows are left alone.
    assert_eq!(run(&seed, &store)?["rows"], serde_json::json!({}));
    Ok(())
}

/// What nobody tells is measured: rows on both systems, the pace and the plugins in the store. A flag goes before it,
/// and what cannot be measured is said.
#[tokio::test(flavor = "multi_thread")]
async fn advice_is_given_on_what_the_systems_and_the_store_tell() -> anyhow::Result<()> {
    let group = Group::new(&|kind| Ok(tables(kind)?)).await?;
    let advice = async |flags: &[&str]| -> anyhow::Result<Vec<(String, bool, String)>> {
        let arguments = [&["advise", "--json"], flags].concat();
        let (code, said) = group.run(&arguments).await?;
        ensure!(code == Some(0) || code == Some(1), "{said}");
        let advice: Vec<Value> = serde_json::from_str(&said).with_context(|| said.clone())?;
        let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let all = advice.iter().map(|one| (text(one, "topic"), one["is_warning"] == true, text(one, "what")));
        Ok(all.collect())
    };
    let of = |advice: &[(String, bool, String)], topic: &str| {
        let own = advice.iter().filter(|one| one.0 == topic);
        own.map(|one| format!("{}{}", if one.1 { "! " } else { "" }, one.2)).collect::<Vec<_>>()
    };

    // A configuration that never ran: the maps and the rows are judged.
    let warehouse = |number: usize| {
        let row = serde_json::json!({"dataAreaId": "usmf", "WarehouseId": number.to_string()});
        row.as_object().cloned().unwrap_or_default()
    };
    group.systems[0].emulator.seed("Warehouses", (0..70_001).map(warehouse).collect())?;
    let told = advice(&[]).await?;
    assert_eq!(
        of(&told, "map-rows"),
        ["! warehouses has 70,001 rows in a legal entity, in a table that is written row after row, of at most 70,000"]
    );
    assert_eq!(of(&told, "not-measured"), Vec::<String>::new());
    assert_eq!(of(&told, "transaction"), Vec::<String>::new());
    assert!(of(&told, "shared-addresses")[0].starts_with("! "), "{told:?}");
    // Of the maps that go one way, those whose rows others refer to have to be copied.
    let one_way = of(&told, "one-way").iter().map(|what| what.split(' ').nth(1).map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(one_way, [Some("ledgers".to_owned()), Some("released-products".to_owned())]);
    assert_eq!(of(&advice(&["--map-rows", "warehouses=10"]).await?, "map-rows"), Vec::<String>::new());
    assert_eq!(of(&advice(&["--offline"]).await?, "map-rows"), Vec::<String>::new());

    // Rows of Dataverse count where F&O would write them one by one.
    let vendors = (0..70_001).map(|number| {
        let row = serde_json::json!({"msdyn_vendoraccountnumber": format!("V{number}")});
        row.as_object().cloned().unwrap_or_default()
    });
    group.systems[1].emulator.seed("msdyn_vendors", vendors.collect())?;
    let rows = of(&advice(&["--map-rows", "warehouses=10"]).await?, "map-rows");
    assert_eq!(
        rows,
        ["! vendors has 70,001 rows on Dataverse, in a table that F&O writes row after row, of at most 70,000"]
    );

    // A store that a runtime left behind.
    let store = Store::open(&group.folder.path().join("state"))?;
    let scope = Scope { tenant: "default".into(), link: "group".into() };
    let delivery = NewDelivery {
        transaction: TransactionId(uuid::Uuid::from_u128(1)),
        source: SystemKind::Finops,
        source_token: "1".to_owned(),
        atomic: true,
        payload: Vec::new(),
        rows: 61_000,
        captured_at: 1,
        retry_of: None,
    };
    store.capture(&scope, Capture { deliveries: vec![delivery], watermarks: Vec::new() }).await?;
    let timing =
        PluginReport { plugin: "text-cleanup".to_owned(), over_goal: 2, max_us: 700_000, ..Default::default() };
    store.save_plugin_timings(&scope, "text-cleanup/transform", &serde_json::to_string(&timing)?).await?;
    store.close().await;
    let told = advice(&["--offline"]).await?;
    assert_eq!(
        of(&told, "transaction"),
        ["! 61,000 rows in one transaction, the largest that F&O sent, of at most 1,000"]
    );
    assert_eq!(of(&told, "live-rate"), ["! 1,016 rows a second in the busiest minute, of at most 1,000 live"]);
    assert!(of(&told, "bulk-import")[0].starts_with("! 61,000 rows came within ten minutes"), "{told:?}");
    assert_eq!(
        of(&told, "slow-plugin"),
        ["! text-cleanup took longer than 500 ms in 2 transactions, up to 700 ms in one call"]
    );
    let flags =
        ["--offline", "--rows-per-transaction", "10", "--rows-per-second", "5", "--plugin-ms", "text-cleanup=9"];
    let told = advice(&flags).await?;
    for topic in ["transaction", "live-rate", "slow-plugin"] {
        assert!(!of(&told, topic)[0].starts_with("! "), "{told:?}");
    }

    // Neither system answers.
    let Group { systems, folder, config, finops, dataverse } = group;
    for served in systems {
        served.end().await?;
    }
    let text = std::fs::read_to_string(&config)?.replace(&finops.base, "http://127.0.0.1:9");
    std::fs::write(&config, text.replace(&dataverse.base, "http://127.0.0.1:9"))?;
    let mut command = Command::new(PROGRAM);
    command.args(["advise", "--config"]).arg(&config);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("unknown not-measured: rows were not counted")).count(), 2);
    drop(folder);
    Ok(())
}
