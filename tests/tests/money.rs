//! Amounts of money keep the digits that Dataverse keeps: their column's own, or those of the currency of their row. The
//! language is that of [`dualwright_tests::scenario`].

use dualwright_core::SystemKind;
use dualwright_emulator::{ColumnDefinition, TableDefinition};
use dualwright_tests::scenario::check_with;
use dualwright_tests::world::{Settings, tables};

/// The small tables, in which the digits of an account's credit limit follow from its currency.
fn check(story: &str) {
    let table = |set: &str, change: &dyn Fn(&mut TableDefinition)| {
        let all = tables(SystemKind::Dataverse).expect("the small tables").tables;
        let mut table = all.into_iter().find(|table| table.set == set).expect("a table");
        change(&mut table);
        (SystemKind::Dataverse, table)
    };
    let accounts = table("accounts", &|table| {
        let amount = table.columns.iter_mut().find(|column| column.name == "creditlimit").expect("a column");
        amount.precision = None;
    });
    let currencies = table("transactioncurrencies", &|table| {
        let digits = serde_json::json!({"name": "currencyprecision", "type": "int"});
        table.columns.push(serde_json::from_value::<ColumnDefinition>(digits).expect("a column"));
    });
    let currencies_there = [("JPY", 0), ("EUR", 2), ("KWD", 3)].map(|(code, digits)| {
        format!(
            "finops insert Currencies CurrencyCode={code} Name={code}
            dataverse insert transactioncurrencies isocurrencycode={code} currencyname={code} exchangerate=1 \
             currencyprecision={digits}"
        )
    });
    let story = format!("{}\n{story}", currencies_there.join("\n"));
    check_with(Settings { tables: vec![accounts, currencies], ..Settings::default() }, &story);
}

#[test]
fn an_amount_keeps_the_digits_of_its_currency() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C0 OrganizationName=Yen PartyType=Organization SalesCurrencyCode=JPY CreditLimit=12.5
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=Euro PartyType=Organization SalesCurrencyCode=EUR CreditLimit=12.345
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C3 OrganizationName=Dinar PartyType=Organization SalesCurrencyCode=KWD CreditLimit=12.3455
        start
        failed none
        dataverse expect accounts accountnumber=C0 creditlimit=13
        dataverse expect accounts accountnumber=C2 creditlimit=12.35
        dataverse expect accounts accountnumber=C3 creditlimit=12.346
        dataverse update accounts accountnumber=C3 creditlimit=1.23456
        settle
        dataverse expect accounts accountnumber=C3 creditlimit=1.235
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C3 CreditLimit=1.235
        failed none
        ",
    );
}

/// Nor are they what makes the two sides differ.
#[test]
fn digits_that_dataverse_does_not_keep_are_not_sent_again() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C0 OrganizationName=Yen PartyType=Organization SalesCurrencyCode=JPY CreditLimit=12.5
        start
        compared
        dataverse writes 4
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C0 CreditLimit=12.6
        settle
        dataverse writes 0
        dataverse expect accounts accountnumber=C0 creditlimit=13
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C0 SalesCurrencyCode=EUR
        settle
        dataverse writes 1
        dataverse expect accounts accountnumber=C0 creditlimit=12.6
        failed none
        ",
    );
}
