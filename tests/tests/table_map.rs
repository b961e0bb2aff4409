//! Stories about a table map whose rows a plugin computes: one F&O customer, an account and a contact.

use dualwright_core::SystemKind;
use dualwright_emulator::{TableDefinition, read_tables};
use dualwright_tests::scenario::check_with;
use dualwright_tests::world::Settings;

const CUSTOMERS: &str = r#"{"tables": [
  {"name": "CustomerV3", "set": "CustomersV3", "entity": "Customers V3", "entityName": "CustCustomerV3Entity",
   "key": ["dataAreaId", "CustomerAccount"], "columns": [
    {"name": "dataAreaId", "type": "text", "maxLength": 4, "required": true},
    {"name": "CustomerAccount", "type": "text", "maxLength": 20, "required": true},
    {"name": "OrganizationName", "type": "text", "maxLength": 200},
    {"name": "PrimaryContactEmail", "type": "text", "maxLength": 255},
    {"name": "PrimaryContactPhone", "type": "text", "maxLength": 255},
    {"name": "PersonFirstName", "type": "text", "maxLength": 25},
    {"name": "PersonLastName", "type": "text", "maxLength": 25},
    {"name": "SalesCurrencyCode", "type": "text", "maxLength": 3},
    {"name": "CreditLimit", "type": "decimal"},
    {"name": "InternalRemark", "type": "text", "maxLength": 255}]}]}"#;

const PARTIES: &str = r#"{"tables": [
  {"name": "account", "set": "accounts", "primaryId": "accountid", "primaryName": "name",
   "alternateKeys": [{"name": "account_key", "columns": ["accountnumber", "msdyn_company"]}], "columns": [
    {"name": "accountnumber", "type": "text", "maxLength": 20},
    {"name": "msdyn_company", "type": "lookup",
     "targets": [{"table": "cdm_company", "navigationProperty": "msdyn_company"}]},
    {"name": "name", "type": "text", "maxLength": 160, "required": true},
    {"name": "customertypecode", "type": "choice", "options": [{"name": "Customer", "value": 3}]},
    {"name": "transactioncurrencyid", "type": "lookup",
     "targets": [{"table": "transactioncurrency", "navigationProperty": "transactioncurrencyid"}]},
    {"name": "creditlimit", "type": "money", "precision": 2, "min": 0, "max": 100000000},
    {"name": "primarycontactid", "type": "lookup",
     "targets": [{"table": "contact", "navigationProperty": "primarycontactid"}]},
    {"name": "description", "type": "memo", "maxLength": 2000}]},
  {"name": "contact", "set": "contacts", "primaryId": "contactid", "primaryName": "lastname",
   "alternateKeys": [{"name": "contact_key", "columns": ["msdyn_contactpersonid", "msdyn_company"]}], "columns": [
    {"name": "msdyn_contactpersonid", "type": "text", "maxLength": 20},
    {"name": "msdyn_company", "type": "lookup",
     "targets": [{"table": "cdm_company", "navigationProperty": "msdyn_company"}]},
    {"name": "emailaddress1", "type": "text", "maxLength": 100},
    {"name": "telephone1", "type": "text", "maxLength": 50},
    {"name": "firstname", "type": "text", "maxLength": 50},
    {"name": "lastname", "type": "text", "maxLength": 50},
    {"name": "description", "type": "memo", "maxLength": 2000}]}]}"#;

fn settings(parameters: &str) -> Settings {
    let tables = |kind: SystemKind, text: &str| {
        let file = read_tables(text).expect("the tables of this file are valid");
        file.tables.into_iter().map(move |table: TableDefinition| (kind, table)).collect::<Vec<_>>()
    };
    let config = format!(
        r#"
[[map]]
slug = "customer-split"
finops_collection = "CustomersV3"
table_map = {{ plugin = "customer-split", parameters = {{ {parameters} }} }}

[[map.table]]
set = "accounts"
integration_key = ["accountnumber", "msdyn_company.cdm_companycode"]

[[map.table]]
set = "contacts"
integration_key = ["msdyn_contactpersonid", "msdyn_company.cdm_companycode"]
"#
    );
    Settings {
        maps: vec!["companies".to_owned(), "currencies".to_owned()],
        tables: [tables(SystemKind::Finops, CUSTOMERS), tables(SystemKind::Dataverse, PARTIES)].concat(),
        config,
        ..Settings::default()
    }
}

fn check(story: &str) {
    check_with(settings(""), story);
}

#[test]
fn a_customer_becomes_an_account_and_its_contact() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Adventure PrimaryContactEmail=jane.doe@example.com SalesCurrencyCode=EUR CreditLimit=10
        finops insert CustomersV3 dataAreaId=gbsi,CustomerAccount=C9 OrganizationName='Not ours'
        start
        dataverse expect contacts msdyn_contactpersonid=C1-C emailaddress1=jane.doe@example.com firstname=Jane lastname=Doe msdyn_company=@cdm_companies/cdm_companycode=usmf
        dataverse expect accounts accountnumber=C1 name=Adventure creditlimit=10 customertypecode=3 primarycontactid=@contacts/msdyn_contactpersonid=C1-C transactioncurrencyid=@transactioncurrencies/isocurrencycode=EUR
        dataverse absent accounts accountnumber=C9
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=Bikes PrimaryContactPhone=555
        finops insert CustomersV3 dataAreaId=demf,CustomerAccount=C3 OrganizationName=Alone
        settle
        dataverse expect accounts accountnumber=C2 name=Bikes primarycontactid=@contacts/msdyn_contactpersonid=C2-C
        dataverse expect contacts msdyn_contactpersonid=C2-C telephone1=555 lastname=Contact
        dataverse expect accounts accountnumber=C3 name=Alone primarycontactid=null
        dataverse absent contacts msdyn_contactpersonid=C3-C
        finops writes 0
        failed none
        ",
    );
}

#[test]
fn a_contact_that_comes_later_is_referred_to() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Adventure
        start
        dataverse expect accounts accountnumber=C1 primarycontactid=null
        dataverse writes 4
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail=ann@example.com
        settle
        dataverse writes 2
        dataverse expect accounts accountnumber=C1 primarycontactid=@contacts/msdyn_contactpersonid=C1-C
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail=lee@example.com
        settle
        dataverse writes 1
        dataverse expect contacts msdyn_contactpersonid=C1-C emailaddress1=lee@example.com lastname=Lee
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail=
        settle
        dataverse writes 1
        dataverse expect accounts accountnumber=C1 primarycontactid=null
        finops writes 0
        failed none
        ",
    );
}

#[test]
fn edits_on_dataverse_arrive_in_the_customer() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Adventure PrimaryContactEmail=jane.doe@example.com CreditLimit=10
        start
        dataverse update contacts msdyn_contactpersonid=C1-C telephone1=555-0100
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactPhone=555-0100 PrimaryContactEmail=jane.doe@example.com OrganizationName=Adventure PersonLastName=
        finops writes 1
        dataverse update accounts accountnumber=C1 name='Adventure Works' creditlimit=25
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName='Adventure Works' CreditLimit=25 PrimaryContactPhone=555-0100
        finops writes 1
        dataverse update accounts accountnumber=C1 name=Adventure
        dataverse update contacts msdyn_contactpersonid=C1-C firstname=Ann lastname=Lee
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Adventure PersonFirstName=Ann PersonLastName=Lee
        finops writes 1
        failed none
        ",
    );
}

#[test]
fn echoes_end() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Adventure PrimaryContactEmail=jane.doe@example.com
        start
        dataverse writes 5
        finops writes 0
        settle
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 InternalRemark='not mapped'
        dataverse update contacts msdyn_contactpersonid=C1-C description='not mapped'
        settle
        dataverse writes 0
        finops writes 0
        dataverse update contacts msdyn_contactpersonid=C1-C emailaddress1=jd@example.com
        settle
        finops writes 1
        dataverse writes 0
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail=jane.doe@example.com
        settle
        finops writes 0
        dataverse writes 1
        dataverse expect contacts msdyn_contactpersonid=C1-C emailaddress1=jane.doe@example.com
        settle
        restart
        settle
        finops writes 0
        dataverse writes 0
        ",
    );
}

#[test]
fn what_begins_on_dataverse_becomes_a_customer() {
    check(
        r"
        start
        dataverse insert contacts msdyn_contactpersonid=C7-C,msdyn_company=@cdm_companies/cdm_companycode=usmf emailaddress1=jo@example.com firstname=Jo lastname=Ray
        dataverse insert contacts msdyn_contactpersonid=X1,msdyn_company=@cdm_companies/cdm_companycode=usmf emailaddress1=x@example.com lastname=X
        settle
        dataverse insert accounts accountnumber=C7,msdyn_company=@cdm_companies/cdm_companycode=usmf name=New customertypecode=3 primarycontactid=@contacts/msdyn_contactpersonid=C7-C
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C7 OrganizationName=New PrimaryContactEmail=jo@example.com PersonFirstName=Jo
        finops absent CustomersV3 dataAreaId=usmf,CustomerAccount=X1
        finops writes 1
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C7 OrganizationName=Newer
        settle
        dataverse expect accounts accountnumber=C7 name=Newer primarycontactid=@contacts/msdyn_contactpersonid=C7-C
        failed none
        ",
    );
}

#[test]
fn deletes_go_both_ways() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=One PrimaryContactEmail=a@example.com
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=Two PrimaryContactEmail=b@example.com
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C3 OrganizationName=Three
        start
        finops delete CustomersV3 dataAreaId=usmf,CustomerAccount=C1
        finops delete CustomersV3 dataAreaId=usmf,CustomerAccount=C3
        settle
        dataverse absent accounts accountnumber=C1
        dataverse absent contacts msdyn_contactpersonid=C1-C
        dataverse absent accounts accountnumber=C3
        dataverse delete accounts accountnumber=C2
        settle
        finops absent CustomersV3 dataAreaId=usmf,CustomerAccount=C2
        finops writes 1
        settle
        finops writes 0
        failed none
        ",
    );
}

#[test]
fn a_customer_that_the_plugin_refuses_is_set_aside() {
    check(
        r"
        start
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1234567890123456789 OrganizationName=Long
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Good SalesCurrencyCode=ABC
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=Good PrimaryContactEmail=a@example.com
        settle
        dataverse expect accounts accountnumber=C2 name=Good
        failed customer-split usmf/c1234567890123456789 DW-1101 column=CustomerAccount
        failed customer-split-accounts usmf/c1 DW-1006
        finops insert Currencies CurrencyCode=ABC Name=Abc
        settle
        dataverse expect accounts accountnumber=C1 transactioncurrencyid=@transactioncurrencies/isocurrencycode=ABC
        ",
    );
}

#[test]
fn a_transaction_is_taken_as_a_whole() {
    check(
        r"
        start
        finops transaction insert Currencies CurrencyCode=EUR Name=Euro ; insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=One SalesCurrencyCode=EUR PrimaryContactEmail=a@example.com
        settle
        dataverse expect accounts accountnumber=C1 transactioncurrencyid=@transactioncurrencies/isocurrencycode=EUR primarycontactid=@contacts/msdyn_contactpersonid=C1-C
        finops transaction insert Currencies CurrencyCode=USD Name=Dollar ; insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=Two SalesCurrencyCode=XXX PrimaryContactEmail=a@example.com
        settle
        dataverse absent transactioncurrencies isocurrencycode=USD
        dataverse absent contacts msdyn_contactpersonid=C2-C
        failed customer-split-accounts usmf/c2 DW-1006
        ",
    );
}

#[test]
fn both_sides_changed() {
    for (winner, email, phone) in [("finops", "f@example.com", "1"), ("dataverse", "d@example.com", "2")] {
        check(&format!(
            r"
            winner {winner}
            finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=One PrimaryContactEmail=a@example.com PersonLastName=A
            start
            finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail=f@example.com PrimaryContactPhone=1
            dataverse update contacts msdyn_contactpersonid=C1-C emailaddress1=d@example.com telephone1=2
            settle
            finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail={email} PrimaryContactPhone={phone}
            dataverse expect contacts msdyn_contactpersonid=C1-C emailaddress1={email} telephone1={phone}
            failed none
            "
        ));
    }
}
