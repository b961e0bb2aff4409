//! Tables that change under their maps: who is frozen and told, who goes on, and how a map comes back. The language is
//! that of [`dualwright_tests::scenario`].

use dualwright_core::SystemKind;
use dualwright_tests::scenario::check;
use dualwright_tests::world::tables;

/// The definition of an F&O table of the small set, changed.
fn redefined(set: &str, change: impl Fn(&mut serde_json::Value)) -> String {
    let all = tables(SystemKind::Finops).expect("the small set").tables;
    let table = all.iter().find(|table| table.set == set).expect("a table");
    let mut table = serde_json::to_value(table).expect("a table is JSON");
    change(&mut table);
    table.to_string()
}

/// The same without one of its columns.
fn without(set: &str, column: &str) -> String {
    redefined(set, |table| {
        let columns = table["columns"].as_array_mut().expect("columns");
        columns.retain(|own| own["name"] != column);
    })
}

fn retyped(set: &str, column: &str, kind: &str) -> String {
    redefined(set, |table| {
        let columns = table["columns"].as_array_mut().expect("columns");
        let own = columns.iter_mut().find(|own| own["name"] == column).expect("the column");
        *own = serde_json::json!({"name": column, "type": kind});
    })
}

/// At a start: the exchange rate, which every currency has to have, is gone.
#[test]
fn a_map_whose_mandatory_column_is_gone_is_frozen_and_the_others_go_on() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        start
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro
        dataverse drop transactioncurrency exchangerate
        restart
        activity map-frozen currencies mandatory column exchangerate of transactioncurrencies (dataverse) is gone
        activity map-frozen currencies then `dualwright map refresh currencies --accept`
        finops insert Currencies CurrencyCode=USD Name=Dollar
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization SalesCurrencyCode=EUR
        settle
        dataverse expect accounts accountnumber=C1 transactioncurrencyid=@transactioncurrencies/isocurrencycode=EUR
        dataverse absent transactioncurrencies isocurrencycode=USD
        failed none
        # What cannot be without the column stays frozen, accepted or not.
        refresh currencies
        settle
        dataverse absent transactioncurrencies isocurrencycode=USD
        dataverse update accounts accountnumber=C1 name=B
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=B SalesCurrencyCode=EUR
        ",
    );
}

/// While the runtime is at work: a column that the map only carries is gone, and the map goes on without it.
#[test]
fn a_map_goes_on_without_a_column_that_it_can_do_without() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization PrimaryContactEmail=a@x.org
        start
        dataverse expect accounts accountnumber=C1 emailaddress1=a@x.org
        dataverse drop account emailaddress1
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=B PrimaryContactEmail=b@x.org
        refresh
        activity table-changed customers mapped column emailaddress1 of accounts (dataverse) is gone; the map goes on without it
        settle
        dataverse expect accounts accountnumber=C1 name=B
        dataverse update accounts accountnumber=C1 name=C
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=C PrimaryContactEmail=b@x.org
        restart
        settle
        failed none
        ",
    );
}

/// Nobody refreshes anything: what the system refuses makes the runtime look.
#[test]
fn a_runtime_at_work_looks_at_tables_when_they_are_refused() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization PrimaryContactEmail=a@x.org
        start
        dataverse drop account emailaddress1
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=B PrimaryContactEmail=b@x.org
        finops insert Currencies CurrencyCode=EUR Name=Euro
        settle
        activity table-changed customers mapped column emailaddress1 of accounts (dataverse) is gone
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=C
        settle
        dataverse expect accounts accountnumber=C1 name=C
        failed none
        ",
    );
}

/// The key column of a group becomes a number; as it was, the map goes on and catches up with both sides.
#[test]
fn a_frozen_map_comes_back_with_its_tables_and_catches_up() {
    let (changed, original) =
        (retyped("CustomerGroups", "CustomerGroupId", "int"), redefined("CustomerGroups", |_| {}));
    check(&format!(
        r"
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Ten
        start
        finops redefine {changed}
        refresh
        activity map-frozen customer-groups the key column CustomerGroupId of CustomerGroups (finops) was a Text and is a Int64
        settle
        finops redefine {original}
        finops update CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Eleven
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=20 Description=Twenty
        dataverse insert msdyn_customergroups msdyn_groupid=30,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_description=Thirty
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization
        settle
        dataverse expect accounts accountnumber=C1 name=A
        dataverse expect msdyn_customergroups msdyn_groupid=10 msdyn_description=Ten
        dataverse absent msdyn_customergroups msdyn_groupid=20
        finops absent CustomerGroups dataAreaId=usmf,CustomerGroupId=30
        refresh
        activity map-thawed customer-groups its tables fit again
        settle
        dataverse expect msdyn_customergroups msdyn_groupid=10 msdyn_description=Eleven
        dataverse expect msdyn_customergroups msdyn_groupid=20 msdyn_description=Twenty
        finops expect CustomerGroups dataAreaId=usmf,CustomerGroupId=30 Description=Thirty
        failed none
        "
    ));
}

/// The policy of the map and side decides, and a person accepts.
#[test]
fn what_a_change_means_is_the_maps_choice() {
    let shorter = redefined("CustomerGroups", |table| {
        let columns = table["columns"].as_array_mut().expect("columns");
        columns.iter_mut().find(|own| own["name"] == "Description").expect("the column")["maxLength"] = 30.into();
    });
    let wider = redefined("CustomerGroups", |table| {
        let more = serde_json::json!({"name": "Remark", "type": "text", "maxLength": 10});
        table["columns"].as_array_mut().expect("columns").push(more);
    });
    let gone = without("CustomerGroups", "Description");
    let (insert, expect) = (
        "finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=20 Description=Twenty",
        "dataverse expect msdyn_customergroups msdyn_groupid=20",
    );
    // By default a column that takes less is noticed.
    check(&format!(
        "start\nfinops redefine {shorter}\nrefresh\nactivity table-changed customer-groups takes 30 characters and took more; \
         the map goes on as before\n{insert}\nsettle\n{expect} msdyn_description=Twenty\nfailed none"
    ));
    check(&format!(
        "map customer-groups drift.finops.retyped = \"freeze\"\nstart\nfinops redefine {shorter}\nrefresh\n{insert}\nsettle\n\
         activity map-frozen customer-groups takes 30 characters and took more\n\
         dataverse absent msdyn_customergroups msdyn_groupid=20\nrefresh customer-groups\nsettle\n\
         {expect} msdyn_description=Twenty\nfailed none"
    ));
    check(&format!(
        "start\nfinops redefine {wider}\nrefresh\nactivity table-changed customer-groups column Remark of CustomerGroups \
         (finops) is new; map it where it is wanted\n{insert}\nsettle\n{expect} msdyn_description=Twenty"
    ));
    check(&format!(
        "map customer-groups drift.finops.removed = \"freeze\"\nstart\nfinops redefine {gone}\nrestart\n\
         activity map-frozen customer-groups the mapped column Description of CustomerGroups (finops) is gone\nsettle"
    ));
}
