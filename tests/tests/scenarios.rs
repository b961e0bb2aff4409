//! Stories about records: what a user does on one side, and what everybody sees afterwards. The language is that of
//! [`dualwright_tests::scenario`].

use dualwright_core::SystemKind;
use dualwright_tests::scenario::{check, check_with};
use dualwright_tests::world::Settings;

mod guest;

use guest::HOSTILE;

/// Tells a story with the guest that misbehaves at hand.
fn check_hostile(story: &str) {
    let plugins = vec![("hostile".to_owned(), HOSTILE.clone())];
    check_with(Settings { plugins, ..Settings::default() }, story);
}

/// What a system can do to a change set, and that it ends right.
const PASSING_FAULTS: &[&str] = &[
    r#"{"kind":"answer","status":429,"code":"0x80072322","message":"slow down","retryAfter":1}"#,
    r#"{"kind":"answer","status":429,"code":"0x80072322","retryAfter":"Sun, 06 Nov 1994 08:49:37 GMT"}"#,
    r#"{"kind":"answer","status":503,"message":"busy","retryAfter":1}"#,
    r#"{"kind":"answer","status":503,"message":"somewhere on the way"}"#,
    r#"{"kind":"answer","status":503,"message":"on the way back","afterApplying":true}"#,
    r#"{"kind":"answer","status":500,"message":"on the way back","afterApplying":true}"#,
    r#"{"kind":"answer","status":504}"#,
    r#"{"kind":"slow","ms":50}"#,
    r#"{"kind":"reset"}"#,
    r#"{"kind":"applyThenReset"}"#,
    r#"{"kind":"hang"}"#,
    r#"{"kind":"hang","afterApplying":true}"#,
];

#[test]
fn what_finops_has_arrives_and_follows() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro Symbol=€
        start
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro currencysymbol=€ exchangerate=1
        dataverse expect cdm_companies cdm_companycode=usmf cdm_name='Contoso US'
        finops insert Currencies CurrencyCode=USD Name='US Dollar' Symbol=$
        finops update Currencies CurrencyCode=EUR Name='Euro (new)'
        settle
        dataverse expect transactioncurrencies isocurrencycode=USD currencyname='US Dollar' currencysymbol=$
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname='Euro (new)' currencysymbol=€
        finops delete Currencies CurrencyCode=EUR
        settle
        dataverse absent transactioncurrencies isocurrencycode=EUR
        dataverse expect transactioncurrencies isocurrencycode=USD currencyname='US Dollar'
        failed none
        ",
    );
}

#[test]
fn what_dataverse_has_goes_back() {
    check(
        r"
        start
        dataverse insert msdyn_customergroups msdyn_groupid=20,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_description=Retail msdyn_issalestaxincludedinprice=true
        settle
        finops expect CustomerGroups dataAreaId=usmf,CustomerGroupId=20 Description=Retail IsSalesTaxIncludedInPrice=Yes
        dataverse update msdyn_customergroups msdyn_groupid=20 msdyn_description=Wholesale msdyn_issalestaxincludedinprice=false
        settle
        finops expect CustomerGroups dataAreaId=usmf,CustomerGroupId=20 Description=Wholesale IsSalesTaxIncludedInPrice=No
        dataverse delete msdyn_customergroups msdyn_groupid=20
        settle
        finops absent CustomerGroups dataAreaId=usmf,CustomerGroupId=20
        failed none
        ",
    );
}

#[test]
fn an_echo_ends() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        start
        dataverse writes 4
        finops writes 0
        settle
        dataverse update transactioncurrencies isocurrencycode=EUR currencyname=Euros
        settle
        finops writes 1
        dataverse writes 0
        finops update Currencies CurrencyCode=EUR Symbol=€
        settle
        finops writes 0
        dataverse writes 1
        settle
        restart
        settle
        finops writes 0
        dataverse writes 0
        ",
    );
}

#[test]
fn a_change_that_touches_no_mapped_column_writes_nothing() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Adventure PartyType=Organization
        start
        dataverse writes 4
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 InternalRemark='not mapped'
        dataverse update accounts accountnumber=C1 description='not mapped'
        settle
        dataverse writes 0
        finops writes 0
        ",
    );
}

#[test]
fn filters_of_both_sides_hold() {
    check(
        r"
        finops insert Currencies CurrencyCode=999 Name=None
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=P1 OrganizationName=Person PartyType=Person
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=O1 OrganizationName=Organization PartyType=Organization
        start
        dataverse absent transactioncurrencies isocurrencycode=999
        dataverse absent accounts accountnumber=P1
        dataverse expect accounts accountnumber=O1 name=Organization customertypecode=3
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=P1 OrganizationName='Still a person'
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=P2 OrganizationName=Person PartyType=Person
        dataverse insert accounts accountnumber=V1,msdyn_company=@cdm_companies/cdm_companycode=usmf name=Vendor customertypecode=11
        dataverse insert accounts accountnumber=C1,msdyn_company=@cdm_companies/cdm_companycode=usmf name=Customer customertypecode=3
        settle
        dataverse absent accounts accountnumber=P1
        dataverse absent accounts accountnumber=P2
        finops absent CustomersV3 dataAreaId=usmf,CustomerAccount=V1
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Customer PartyType=Organization
        failed none
        ",
    );
}

/// Reads ask each system for what may pass; what comes is judged again. A Dataverse row that an F&O row stands for is held
/// against it whatever the filter of Dataverse says.
#[test]
fn filters_narrow_what_is_read_on_both_sides() {
    check(
        r#"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=O1 OrganizationName=A PartyType=Organization
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=P1 OrganizationName=B PartyType=Person
        start
        finops asked '/CustomersV3?' 'PartyType eq Microsoft.Dynamics.DataEntities.DirPartyType\'Organization\'' dataAreaId
        dataverse absent accounts accountnumber=P1
        dataverse insert accounts accountnumber=V1,msdyn_company=@cdm_companies/cdm_companycode=usmf name=Vendor customertypecode=11
        dataverse update accounts accountnumber=O1 customertypecode=11
        settle
        finops absent CustomersV3 dataAreaId=usmf,CustomerAccount=V1
        # Neither the vendor nor the customer that became one is read by the filter, and the customer is read by its id.
        differences 1
        compared
        dataverse asked '/accounts?' '$filter=customertypecode eq 3'
        dataverse asked '/accounts?' '$filter=accountid eq '
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=O1 OrganizationName=C
        settle
        dataverse expect accounts accountnumber=O1 name=C customertypecode=3
        differences 0
        "#,
    );
}

/// On F&O by the setting, on Dataverse as OData has it: nothing is unequal to nothing, and an empty text is none.
#[test]
fn filters_judge_missing_values_as_each_side_does() {
    let finops = |filter: &str, nulls: &str, there: bool| {
        let expected = if there { "expect" } else { "absent" };
        check(&format!(
            r#"
            versioned customers
            map customers finops_nulls = "{nulls}"
            version customers 1.0.0.1 '((PartyType == \\"Organization\\"))' => '({filter})'
            activate customers 1.0.0.1
            finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=E1 OrganizationName=A
            finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=X1 OrganizationName=B PrimaryContactEmail=x@x.example
            start
            dataverse {expected} accounts accountnumber=E1
            dataverse absent accounts accountnumber=X1
            finops update CustomersV3 dataAreaId=usmf,CustomerAccount=E1 OrganizationName=C
            settle
            dataverse {expected} accounts accountnumber=E1
            dataverse absent accounts accountnumber=X1
            failed none
            "#
        ));
    };
    for filter in [r#"PrimaryContactEmail == \\"\\""#, r#"PrimaryContactEmail != \\"x@x.example\\""#] {
        finops(filter, "empty-value", true);
        finops(filter, "unknown", false);
    }
    let dataverse = |filter: &str, empty: &str, filled: &str| {
        check(&format!(
            r#"
            versioned customers
            version customers 1.0.0.1 'customertypecode eq 3' => '{filter}'
            activate customers 1.0.0.1
            start
            dataverse insert accounts accountnumber=N1,msdyn_company=@cdm_companies/cdm_companycode=usmf name=A customertypecode=3 emailaddress1=null
            dataverse insert accounts accountnumber=E1,msdyn_company=@cdm_companies/cdm_companycode=usmf name=B customertypecode=3 emailaddress1=''
            dataverse insert accounts accountnumber=X1,msdyn_company=@cdm_companies/cdm_companycode=usmf name=C customertypecode=3 emailaddress1=x@x.example
            settle
            finops {empty} CustomersV3 dataAreaId=usmf,CustomerAccount=N1
            finops {empty} CustomersV3 dataAreaId=usmf,CustomerAccount=E1
            finops {filled} CustomersV3 dataAreaId=usmf,CustomerAccount=X1
            failed none
            "#
        ));
    };
    dataverse("emailaddress1 eq null", "expect", "absent");
    dataverse("emailaddress1 ne null", "absent", "expect");
    dataverse("emailaddress1 ne \\'\\'", "absent", "expect");
}

/// What becomes of the other row: the setting, whether it is still there, and what compare says then.
#[test]
fn a_row_that_leaves_the_filter_follows_the_policy() {
    let story = |policy: &str, then: &str| {
        format!(
            r"
            map customers leaving_filter = {policy}
            finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=O1 OrganizationName=A PartyType=Organization
            finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=P1 OrganizationName=B PartyType=Person
            start
            dataverse expect accounts accountnumber=O1 name=A
            finops update CustomersV3 dataAreaId=usmf,CustomerAccount=O1 PartyType=Person
            finops update CustomersV3 dataAreaId=usmf,CustomerAccount=P1 OrganizationName=C
            settle
            failed none
            {then}
            "
        )
    };
    check(&story(
        "\"delete\"",
        r"
            dataverse absent accounts accountnumber=O1
            finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=O1 PartyType=Person
            finops update CustomersV3 dataAreaId=usmf,CustomerAccount=O1 PartyType=Organization
            settle
            dataverse expect accounts accountnumber=O1 name=A
            dataverse update accounts accountnumber=O1 customertypecode=11
            settle
            finops absent CustomersV3 dataAreaId=usmf,CustomerAccount=O1
        ",
    ));
    check(&story(
        "\"keep\"",
        r"
            dataverse expect accounts accountnumber=O1 name=A
            finops delete CustomersV3 dataAreaId=usmf,CustomerAccount=O1
            settle
            dataverse absent accounts accountnumber=O1
        ",
    ));
    check(&story(
        "\"detach\"",
        r"
            dataverse expect accounts accountnumber=O1 name=A
            finops delete CustomersV3 dataAreaId=usmf,CustomerAccount=O1
            settle
            dataverse expect accounts accountnumber=O1 name=A
            differences 1
        ",
    ));
}

#[test]
fn a_map_may_carry_some_of_the_legal_entities() {
    check(
        r#"
        companies usmf demf
        map customers companies = ["USMF"]
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization
        finops insert CustomersV3 dataAreaId=demf,CustomerAccount=C1 OrganizationName=B PartyType=Organization
        finops insert CustomerGroups dataAreaId=demf,CustomerGroupId=10 Description=Ten
        start
        dataverse expect accounts accountnumber=C1 name=A
        dataverse absent accounts accountnumber=C1,msdyn_company=@cdm_companies/cdm_companycode=demf
        dataverse expect msdyn_customergroups msdyn_groupid=10,msdyn_company=@cdm_companies/cdm_companycode=demf msdyn_description=Ten
        finops update CustomersV3 dataAreaId=demf,CustomerAccount=C1 OrganizationName=C
        settle
        dataverse absent accounts accountnumber=C1,msdyn_company=@cdm_companies/cdm_companycode=demf
        failed none
        "#,
    );
}

#[test]
fn a_value_that_no_value_map_lists_follows_the_setting() {
    check(
        r#"
        map customers unmatched = "clear"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization OnHoldStatus=Never
        start
        dataverse expect accounts accountnumber=C1 msdyn_onholdstatus=null
        failed none
        "#,
    );
}

#[test]
fn value_maps_translate_both_ways() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization OnHoldStatus=Invoice
        start
        dataverse expect accounts accountnumber=C1 msdyn_onholdstatus=806380001
        dataverse update accounts accountnumber=C1 msdyn_onholdstatus=806380003
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OnHoldStatus=Payment
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OnHoldStatus=Never
        settle
        failed customers usmf/c1 DW-1005 column=msdyn_onholdstatus
        dataverse expect accounts accountnumber=C1 msdyn_onholdstatus=806380003
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OnHoldStatus=No
        settle
        failed none
        dataverse expect accounts accountnumber=C1 msdyn_onholdstatus=806380000
        ",
    );
}

#[test]
fn a_row_waits_for_its_parent_and_heals() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Adventure PartyType=Organization CustomerGroupId=10
        start
        failed customers usmf/c1 DW-1006 column=msdyn_customergroupid
        dataverse absent accounts accountnumber=C1
        # The same group of another company is not the parent.
        finops insert CustomerGroups dataAreaId=demf,CustomerGroupId=10 Description=Elsewhere
        settle
        failed customers usmf/c1 DW-1006
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Large
        settle
        failed none
        dataverse expect accounts accountnumber=C1 name=Adventure msdyn_company=@cdm_companies/cdm_companycode=usmf
        ",
    );
}

#[test]
fn a_chain_of_parents_heals() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Adventure PartyType=Organization CustomerGroupId=10
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Large PaymentTermId=Net30
        start
        failed customer-groups usmf/10 DW-1006
        failed customers usmf/c1 DW-1006
        finops insert PaymentTerms dataAreaId=usmf,Name=Net30 Description='30 days' NumberOfDays=30
        settle
        failed none
        dataverse expect msdyn_customergroups msdyn_groupid=10 msdyn_paymenttermid=@msdyn_paymentterms/msdyn_name=Net30
        dataverse expect accounts accountnumber=C1 msdyn_customergroupid=@msdyn_customergroups/msdyn_groupid=10
        ",
    );
}

#[test]
fn lookups_go_both_ways() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Large
        finops insert CustomerGroups dataAreaId=demf,CustomerGroupId=10 Description=Gross
        finops insert CustomersV3 dataAreaId=demf,CustomerAccount=C1 OrganizationName=Abenteuer PartyType=Organization CustomerGroupId=10 SalesCurrencyCode=EUR
        start
        dataverse expect accounts accountnumber=C1 msdyn_customergroupid=@msdyn_customergroups/msdyn_description=Gross transactioncurrencyid=@transactioncurrencies/isocurrencycode=EUR
        dataverse insert accounts accountnumber=C2,msdyn_company=@cdm_companies/cdm_companycode=usmf name=Adventure customertypecode=3 msdyn_customergroupid=@msdyn_customergroups/msdyn_description=Large transactioncurrencyid=@transactioncurrencies/isocurrencycode=EUR
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C2 CustomerGroupId=10 SalesCurrencyCode=EUR
        dataverse update accounts accountnumber=C2 transactioncurrencyid=null
        finops update CustomersV3 dataAreaId=demf,CustomerAccount=C1 CustomerGroupId=
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C2 CustomerGroupId=10 SalesCurrencyCode=
        dataverse expect accounts accountnumber=C1 msdyn_customergroupid=null
        failed none
        ",
    );
}

#[test]
fn a_company_outside_the_link_stays_outside() {
    check(
        r"
        finops insert CustomerGroups dataAreaId=gbsi,CustomerGroupId=10 Description=Outside
        start
        dataverse absent msdyn_customergroups msdyn_groupid=10
        finops insert CustomerGroups dataAreaId=gbsi,CustomerGroupId=11 Description=Outside
        dataverse insert msdyn_customergroups msdyn_groupid=12,msdyn_company=@cdm_companies/cdm_companycode=gbsi msdyn_description=Outside
        settle
        dataverse absent msdyn_customergroups msdyn_groupid=11
        finops absent CustomerGroups dataAreaId=gbsi,CustomerGroupId=12
        failed none
        ",
    );
}

#[test]
fn a_dataverse_row_without_a_company_is_kept_as_failed() {
    check(
        r"
        start
        dataverse insert msdyn_customergroups msdyn_groupid=12 msdyn_description='No company'
        settle
        # Its key is not known, so it goes by its id.
        failed customer-groups * DW-1008
        finops absent CustomerGroups dataAreaId=usmf,CustomerGroupId=12
        dataverse update msdyn_customergroups msdyn_groupid=12 msdyn_company=@cdm_companies/cdm_companycode=usmf
        settle
        failed none
        finops expect CustomerGroups dataAreaId=usmf,CustomerGroupId=12 Description='No company'
        ",
    );
}

#[test]
fn bad_rows_are_set_aside_and_heal_when_corrected() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=G1 OrganizationName=Good PartyType=Organization
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=B1 OrganizationName= PartyType=Organization
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=B2 OrganizationName=Long PartyType=Organization PrimaryContactEmail='\{x*41}'
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=B3 OrganizationName=Low PartyType=Organization CreditLimit=-0.01
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=B4 OrganizationName=High PartyType=Organization EmployeeCount=1000001
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=G2 OrganizationName='Good too' PartyType=Organization
        start
        failed customers usmf/b1 DW-1001 column=name
        failed customers usmf/b2 DW-1002 column=emailaddress1
        failed customers usmf/b3 DW-1003 column=creditlimit
        failed customers usmf/b4 DW-1003 column=numberofemployees
        dataverse expect accounts accountnumber=G1 name=Good
        dataverse expect accounts accountnumber=G2 name='Good too'
        dataverse absent accounts accountnumber=B1
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=B1 OrganizationName=Named
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=B2 PrimaryContactEmail='\{x*40}'
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=B3 CreditLimit=0
        settle
        failed customers usmf/b4 DW-1003
        dataverse expect accounts accountnumber=B1 name=Named
        dataverse expect accounts accountnumber=B2 emailaddress1='\{x*40}'
        dataverse expect accounts accountnumber=B3 creditlimit=0
        # A retry without a correction fails again, as one record and not as two.
        retry customers usmf/b4
        failed customers usmf/b4 DW-1003
        finops delete CustomersV3 dataAreaId=usmf,CustomerAccount=B4
        settle
        failed none
        ",
    );
}

#[test]
fn bad_rows_of_dataverse_are_set_aside_too() {
    check(
        r"
        start
        dataverse insert msdyn_paymentterms msdyn_name=Net30,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_description=Good msdyn_days=30
        dataverse insert msdyn_paymentterms msdyn_name=TooLongForFinops,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_description=Bad msdyn_days=30
        settle
        failed payment-terms usmf/toolongforfinops DW-1002 column=Name
        finops expect PaymentTerms dataAreaId=usmf,Name=Net30 Description=Good NumberOfDays=30
        dataverse update msdyn_paymentterms msdyn_name=Net30 msdyn_days=31
        settle
        finops expect PaymentTerms dataAreaId=usmf,Name=Net30 NumberOfDays=31
        dataverse delete msdyn_paymentterms msdyn_name=TooLongForFinops
        settle
        failed none
        ",
    );
}

#[test]
fn a_newer_change_supersedes_a_failed_one() {
    check(
        r"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=First PartyType=Organization
        start
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail='\{x*41}'
        settle
        failed customers usmf/c1 DW-1002
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail=a@b.example OrganizationName=Second
        settle
        failed none
        dataverse expect accounts accountnumber=C1 name=Second emailaddress1=a@b.example
        # And a newer failure replaces an older one.
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail='\{x*41}'
        settle
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 PrimaryContactEmail= CreditLimit=-1
        settle
        failed customers usmf/c1 DW-1003
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 CreditLimit=1
        settle
        failed none
        dataverse expect accounts accountnumber=C1 creditlimit=1 emailaddress1=null
        ",
    );
}

#[test]
fn a_transaction_falls_as_a_whole_and_is_retried_as_a_whole() {
    check(
        r"
        start
        dataverse writes 3
        finops transaction insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Large ; insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Good PartyType=Organization CustomerGroupId=10 ; insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=Bad PartyType=Organization PrimaryContactEmail='\{x*41}'
        settle
        dataverse writes 0
        failed customers usmf/c2 DW-1002
        dataverse absent msdyn_customergroups msdyn_groupid=10
        dataverse absent accounts accountnumber=C1
        # The whole transaction again, corrected.
        finops transaction update CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Larger ; update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Better ; update CustomersV3 dataAreaId=usmf,CustomerAccount=C2 PrimaryContactEmail=a@b.example
        settle
        dataverse writes 3
        dataverse expect accounts accountnumber=C1 name=Better msdyn_customergroupid=@msdyn_customergroups/msdyn_groupid=10
        dataverse expect accounts accountnumber=C2 name=Bad emailaddress1=a@b.example
        # What failed before is old now: a retry sees that and writes nothing.
        retry customers usmf/c2
        dataverse writes 0
        failed none
        ",
    );
}

#[test]
fn a_good_transaction_is_one_change_set() {
    check(
        r"
        start
        dataverse writes 3
        finops transaction insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=Child PartyType=Organization CustomerGroupId=10 ; insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Parent
        settle
        dataverse writes 2
        dataverse expect accounts accountnumber=C1 msdyn_customergroupid=@msdyn_customergroups/msdyn_groupid=10
        finops transaction delete CustomerGroups dataAreaId=usmf,CustomerGroupId=10 ; update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 CustomerGroupId=
        settle
        dataverse writes 2
        dataverse absent msdyn_customergroups msdyn_groupid=10
        dataverse expect accounts accountnumber=C1 msdyn_customergroupid=null
        failed none
        ",
    );
}

#[test]
fn awkward_texts_arrive_as_they_are() {
    check(
        r#"
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount='O\'N "1"' OrganizationName='A "quote", it\'s\nbroken & <b>😀</b> %41 \\ ÄÖ' PartyType=Organization
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=LONG OrganizationName='\{x*4000}' PartyType=Organization
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=EMOJI OrganizationName='\{😀*2000}' PartyType=Organization
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=TOOLONG OrganizationName='\{x*4001}' PartyType=Organization
        start
        failed customers usmf/toolong DW-1002 column=name
        dataverse expect accounts accountnumber='O\'N "1"' name='A "quote", it\'s\nbroken & <b>😀</b> %41 \\ ÄÖ'
        dataverse expect accounts accountnumber=LONG name='\{x*4000}'
        dataverse expect accounts accountnumber=EMOJI name='\{😀*2000}'
        dataverse update accounts accountnumber='O\'N "1"' name='back\n"again" it\'s 😀'
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount='O\'N "1"' OrganizationName='back\n"again" it\'s 😀'
        dataverse insert accounts accountnumber='D/1 #%&+',msdyn_company=@cdm_companies/cdm_companycode=usmf name=Odd customertypecode=3
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount='D/1 #%&+' OrganizationName=Odd
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount='D/1 #%&+' OrganizationName='Odd still'
        settle
        dataverse expect accounts accountnumber='D/1 #%&+' name='Odd still'
        dataverse delete accounts accountnumber='O\'N "1"'
        finops delete CustomersV3 dataAreaId=usmf,CustomerAccount=TOOLONG
        settle
        finops absent CustomersV3 dataAreaId=usmf,CustomerAccount='O\'N "1"'
        failed none
        "#,
    );
}

#[test]
fn rows_that_are_there_already_are_paired_by_key() {
    check(
        r"
        dataverse insert transactioncurrencies isocurrencycode=EUR currencyname=Alt exchangerate=1
        dataverse insert transactioncurrencies isocurrencycode=USD currencyname='US Dollar' exchangerate=1
        finops insert Currencies CurrencyCode=EUR Name=Euro
        finops insert Currencies CurrencyCode=USD Name='US Dollar'
        finops insert Currencies CurrencyCode=GBP Name=Pound
        start
        # Three companies, one update, one create; the dollar is equal.
        dataverse writes 5
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro
        dataverse delete transactioncurrencies isocurrencycode=USD
        settle
        finops absent Currencies CurrencyCode=USD
        ",
    );
}

#[test]
fn of_two_changes_of_one_row_the_winner_stands() {
    for (winner, stands) in [("finops", "Left"), ("dataverse", "Right")] {
        check(&format!(
            r"
            winner {winner}
            finops insert Currencies CurrencyCode=EUR Name=Euro
            start
            finops update Currencies CurrencyCode=EUR Name=Left
            dataverse update transactioncurrencies isocurrencycode=EUR currencyname=Right
            settle
            finops expect Currencies CurrencyCode=EUR Name={stands}
            dataverse expect transactioncurrencies isocurrencycode=EUR currencyname={stands}
            failed none
            activity conflict currencies eur {winner} wins
            "
        ));
    }
}

#[test]
fn a_row_that_was_deleted_may_come_again() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        start
        finops delete Currencies CurrencyCode=EUR
        settle
        dataverse absent transactioncurrencies isocurrencycode=EUR
        finops insert Currencies CurrencyCode=EUR Name='Euro again'
        settle
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname='Euro again'
        dataverse delete transactioncurrencies isocurrencycode=EUR
        settle
        finops absent Currencies CurrencyCode=EUR
        dataverse insert transactioncurrencies isocurrencycode=EUR currencyname='And again' exchangerate=1
        settle
        finops expect Currencies CurrencyCode=EUR Name='And again'
        failed none
        ",
    );
}

#[test]
fn several_changes_of_one_row_end_with_the_last() {
    check(
        r"
        start
        dataverse writes 3
        finops insert Currencies CurrencyCode=EUR Name=1
        finops update Currencies CurrencyCode=EUR Name=2
        finops delete Currencies CurrencyCode=EUR
        finops insert Currencies CurrencyCode=EUR Name=3
        finops update Currencies CurrencyCode=EUR Name=4
        settle
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=4
        finops insert Currencies CurrencyCode=USD Name=1
        finops delete Currencies CurrencyCode=USD
        settle
        dataverse absent transactioncurrencies isocurrencycode=USD
        failed none
        ",
    );
}

#[test]
fn what_changes_while_the_runtime_is_down_is_caught_up() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        finops insert Currencies CurrencyCode=USD Name=Dollar
        start
        finops update Currencies CurrencyCode=EUR Name=Left
        dataverse delete transactioncurrencies isocurrencycode=USD
        restart
        settle
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Left
        finops absent Currencies CurrencyCode=USD
        failed none
        ",
    );
}

#[test]
fn whatever_dataverse_does_to_a_change_set_it_is_applied_once() {
    for action in PASSING_FAULTS {
        for times in [1, 2] {
            println!("{times} times {action}");
            check(&format!(
                r#"
                limit transaction_budget_seconds = 2
                limit write_reserve_seconds = 1
                finops insert Currencies CurrencyCode=EUR Name=Euro
                finops insert Currencies CurrencyCode=GBP Name=Pound
                start
                dataverse writes 5
                dataverse faults [{{"match":{{"path":"$batch","body":"dualwright_receipts","times":{times}}},"action":{action}}}]
                finops transaction insert Currencies CurrencyCode=USD Name=Dollar ; update Currencies CurrencyCode=EUR Name=Euros ; delete Currencies CurrencyCode=GBP
                settle
                dataverse writes 3
                dataverse expect transactioncurrencies isocurrencycode=USD currencyname=Dollar
                dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euros
                dataverse absent transactioncurrencies isocurrencycode=GBP
                failed none
                "#
            ));
        }
    }
}

#[test]
fn whatever_finops_does_to_a_change_set_it_is_applied_once() {
    for action in PASSING_FAULTS {
        println!("{action}");
        check(&format!(
            r#"
            limit transaction_budget_seconds = 2
            limit write_reserve_seconds = 1
            finops insert Currencies CurrencyCode=EUR Name=Euro
            finops insert Currencies CurrencyCode=GBP Name=Pound
            start
            finops faults [{{"match":{{"path":"$batch","body":"DualwrightReceipts"}},"action":{action}}}]
            dataverse insert transactioncurrencies isocurrencycode=USD currencyname=Dollar exchangerate=1
            dataverse update transactioncurrencies isocurrencycode=EUR currencyname=Euros
            dataverse delete transactioncurrencies isocurrencycode=GBP
            settle
            finops writes 3
            finops expect Currencies CurrencyCode=USD Name=Dollar
            finops expect Currencies CurrencyCode=EUR Name=Euros
            finops absent Currencies CurrencyCode=GBP
            failed none
            "#
        ));
    }
}

#[test]
fn what_a_system_does_to_a_page_of_initial_sync_is_survived() {
    for action in PASSING_FAULTS {
        println!("{action}");
        check(&format!(
            r#"
            limit transaction_budget_seconds = 2
            limit write_reserve_seconds = 1
            finops insert Currencies CurrencyCode=EUR Name=Euro
            finops insert Currencies CurrencyCode=USD Name=Dollar
            dataverse faults [{{"match":{{"path":"$batch","body":"dualwright_receipts","nth":2}},"action":{action}}}]
            start
            dataverse writes 5
            failed none
            "#
        ));
    }
}

#[test]
fn a_refused_record_is_set_aside_and_the_others_go_on() {
    check(
        r#"
        start
        dataverse writes 3
        dataverse faults [{"match":{"operation":true,"path":"transactioncurrencies","body":"Bad"},"action":{"kind":"answer","status":400,"code":"0x80048d19","message":"a plug-in says no"}}]
        finops insert Currencies CurrencyCode=EUR Name=Euro
        finops insert Currencies CurrencyCode=BAD Name=Bad
        finops insert Currencies CurrencyCode=USD Name=Dollar
        settle
        dataverse writes 2
        failed currencies bad DW-1201
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro
        dataverse expect transactioncurrencies isocurrencycode=USD currencyname=Dollar
        dataverse absent transactioncurrencies isocurrencycode=BAD
        retry currencies bad
        dataverse writes 1
        failed none
        "#,
    );
}

#[test]
fn a_refused_record_fails_its_whole_transaction() {
    check(
        r#"
        start
        dataverse writes 3
        dataverse faults [{"match":{"operation":true,"path":"transactioncurrencies","body":"Bad"},"action":{"kind":"answer","status":400,"code":"0x80048d19","message":"a plug-in says no"}}]
        finops transaction insert Currencies CurrencyCode=EUR Name=Euro ; insert Currencies CurrencyCode=BAD Name=Bad ; insert Currencies CurrencyCode=USD Name=Dollar
        settle
        dataverse writes 0
        failed currencies bad DW-1201
        retry currencies bad
        dataverse writes 3
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro
        failed none
        "#,
    );
}

#[test]
fn a_change_set_that_is_refused_as_a_whole_is_kept() {
    check(
        r#"
        start
        dataverse faults [{"match":{"path":"$batch","body":"dualwright_receipts"},"action":{"kind":"answer","status":400,"code":"0x80048d19","message":"no"}}]
        finops insert Currencies CurrencyCode=EUR Name=Euro
        settle
        failed currencies eur DW-1201
        dataverse absent transactioncurrencies isocurrencycode=EUR
        retry currencies eur
        failed none
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro
        "#,
    );
}

#[test]
fn a_row_that_moved_on_is_read_again() {
    check(
        r#"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        start
        dataverse writes 4
        dataverse faults [{"match":{"operation":true,"method":"PATCH","path":"transactioncurrencies"},"action":{"kind":"answer","status":412,"code":"0x80060882","message":"the version does not match"}}]
        finops update Currencies CurrencyCode=EUR Name=Euros
        settle
        dataverse writes 1
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euros
        finops faults [{"match":{"operation":true,"method":"PATCH","path":"Currencies"},"action":{"kind":"answer","status":412,"message":"the version does not match"}}]
        dataverse update transactioncurrencies isocurrencycode=EUR currencysymbol=€
        settle
        finops writes 1
        finops expect Currencies CurrencyCode=EUR Symbol=€ Name=Euros
        failed none
        "#,
    );
}

#[test]
fn reads_that_fail_are_repeated() {
    for path in ["DualwrightChanges", "Currencies"] {
        check(&format!(
            r#"
            finops insert Currencies CurrencyCode=EUR Name=Euro
            start
            finops faults [{{"match":{{"method":"GET","path":"{path}","times":2}},"action":{{"kind":"reset"}}}}]
            dataverse faults [{{"match":{{"method":"GET","path":"transactioncurrencies"}},"action":{{"kind":"answer","status":503}}}}]
            finops update Currencies CurrencyCode=EUR Name=Euros
            dataverse insert transactioncurrencies isocurrencycode=USD currencyname=Dollar exchangerate=1
            settle
            finops well
            dataverse well
            dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euros
            finops expect Currencies CurrencyCode=USD Name=Dollar
            failed none
            "#
        ));
    }
}

#[test]
fn an_expired_delta_link_loses_nothing() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        finops insert Currencies CurrencyCode=USD Name=Dollar
        start
        dataverse update transactioncurrencies isocurrencycode=EUR currencyname=Euros
        dataverse delete transactioncurrencies isocurrencycode=USD
        dataverse insert transactioncurrencies isocurrencycode=GBP currencyname=Pound exchangerate=1
        dataverse forget
        settle
        finops expect Currencies CurrencyCode=EUR Name=Euros
        finops absent Currencies CurrencyCode=USD
        finops expect Currencies CurrencyCode=GBP Name=Pound
        failed none
        ",
    );
}

#[test]
fn a_batch_is_cut_and_one_bad_row_of_it_is_found() {
    let insert = |number: u32| {
        let limit = if number == 17 { -1 } else { 1 };
        format!(
            "finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C{number} OrganizationName=Customer{number} \
             PartyType=Organization CreditLimit={limit}"
        )
    };
    let first = (1..=25).map(insert).collect::<Vec<_>>().join("\n");
    let later = (26..=45).map(insert).collect::<Vec<_>>().join("\n");
    check(&format!(
        "
        limit batch_rows_max = 10
        {first}
        start
        dataverse writes 27
        failed customers usmf/c17 DW-1003
        {later}
        settle
        dataverse writes 20
        failed customers usmf/c17 DW-1003
        "
    ));
}

#[test]
fn a_plugin_that_breaks_on_one_record_of_a_batch_fails_that_one() {
    let good = (10..40)
        .map(|number| format!("finops insert Currencies CurrencyCode=A{number} Name=Good{number}"))
        .collect::<Vec<_>>()
        .join("\n");
    for (wrong, code) in [
        ("trap", "DW-4001"),
        ("loop", "DW-4002"),
        ("memory", "DW-4003"),
        ("recursion", "DW-4001"),
        ("utf8", "DW-4004"),
        ("offsets", "DW-4004"),
        ("too-many-rows", "DW-4004"),
        ("wrong-kind", "DW-4004"),
        ("not-granted", "DW-4004"),
        ("failed", "DW-4006"),
    ] {
        println!("{wrong}");
        check_hostile(&format!(
            r#"
            limit plugin.hard_limit_ms = 100
            limit plugin.wall_limit_ms = 60000
            bind currencies {{ name = "hostile", stage = "transform", field = "NAME", direction = "to-dataverse", parameters = {{ mode = "{wrong}-on-x" }} }}
            {good}
            finops insert Currencies CurrencyCode=BAD Name=x
            finops insert Currencies CurrencyCode=ZZZ Name=Last
            start
            dataverse writes 34
            failed currencies bad {code}
            dataverse expect transactioncurrencies isocurrencycode=ZZZ currencyname=Last
            dataverse absent transactioncurrencies isocurrencycode=BAD
            finops update Currencies CurrencyCode=ZZZ Name=Later
            finops update Currencies CurrencyCode=A20 Name=x
            finops update Currencies CurrencyCode=A30 Name=Better
            settle
            dataverse writes 2
            failed currencies bad {code}
            failed currencies a20 {code}
            finops update Currencies CurrencyCode=BAD Name=Good
            finops update Currencies CurrencyCode=A20 Name=Good
            settle
            dataverse writes 2
            failed none
            "#
        ));
    }
}

#[test]
fn a_plugin_that_breaks_in_a_transaction_rolls_all_of_it_back() {
    check_hostile(
        r#"
        bind currencies { name = "hostile", stage = "transform", field = "NAME", direction = "to-dataverse", parameters = { mode = "trap-on-x" } }
        start
        dataverse writes 3
        finops transaction insert Currencies CurrencyCode=EUR Name=Euro ; insert Currencies CurrencyCode=BAD Name=x ; insert Currencies CurrencyCode=USD Name=Dollar
        settle
        dataverse writes 0
        failed currencies bad DW-4001
        finops update Currencies CurrencyCode=BAD Name=Good
        finops update Currencies CurrencyCode=EUR Symbol=€
        finops update Currencies CurrencyCode=USD Symbol=$
        settle
        dataverse writes 3
        retry currencies bad
        dataverse writes 0
        failed none
        "#,
    );
}

#[test]
fn what_a_fault_means_is_the_bindings_choice() {
    check_hostile(
        r#"
        bind currencies { name = "hostile", stage = "transform", field = "NAME", direction = "to-dataverse", parameters = { mode = "trap-on-x" }, on_fault = "pass-through" }
        finops insert Currencies CurrencyCode=EUR Name=x
        start
        failed none
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=x
        "#,
    );
    check_hostile(
        r#"
        bind currencies { name = "hostile", stage = "transform", field = "NAME", direction = "to-dataverse", parameters = { mode = "trap-on-x" }, on_fault = "fail" }
        start
        dataverse writes 3
        finops insert Currencies CurrencyCode=EUR Name=x
        finops insert Currencies CurrencyCode=USD Name=Dollar
        settle
        dataverse writes 0
        failed currencies eur DW-4001
        failed currencies usd DW-4001
        finops update Currencies CurrencyCode=EUR Name=Euro
        settle
        retry currencies usd
        dataverse writes 2
        failed none
        "#,
    );
}

#[test]
fn a_validator_rejects_before_the_write_and_complains_after_it() {
    check_hostile(
        r#"
        bind currencies { name = "hostile", stage = "pre-validate", fields = ["NAME"], direction = "to-dataverse", parameters = { mode = "" } }
        bind customer-groups { name = "hostile", stage = "post-validate", fields = ["DESCRIPTION"], direction = "to-dataverse", parameters = { mode = "" } }
        finops insert Currencies CurrencyCode=EUR Name=bad
        finops insert Currencies CurrencyCode=USD Name=Dollar
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=bad
        start
        failed currencies eur DW-1101 column=currencyname
        failed customer-groups usmf/10 DW-1102 column=msdyn_description
        dataverse absent transactioncurrencies isocurrencycode=EUR
        dataverse expect msdyn_customergroups msdyn_groupid=10 msdyn_description=bad
        finops update Currencies CurrencyCode=EUR Name=Euro
        finops update CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=good
        settle
        failed none
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro
        "#,
    );
}

#[test]
fn a_standard_plugin_cleans_texts_and_no_echo_comes_of_it() {
    check(
        r#"
        bind currencies { name = "text-cleanup", stage = "transform", field = "NAME", direction = "both", parameters = { trim = true, collapse = true } }
        finops insert Currencies CurrencyCode=EUR Name='  Euro   of  Europe '
        start
        timed text-cleanup
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname='Euro of Europe'
        dataverse writes 4
        settle
        finops writes 0
        dataverse update transactioncurrencies isocurrencycode=EUR currencyname='The   euro'
        settle
        finops expect Currencies CurrencyCode=EUR Name='The euro'
        finops writes 1
        dataverse writes 0
        settle
        finops writes 0
        dataverse writes 0
        "#,
    );
}

#[test]
fn a_transaction_that_is_too_large_for_the_target_is_kept_and_blocks_nobody() {
    let rows = |numbers: std::ops::Range<u32>, verb: &str, description: &str| {
        numbers
            .map(|number| {
                format!("{verb} CustomerGroups dataAreaId=usmf,CustomerGroupId={number} Description={description}")
            })
            .collect::<Vec<_>>()
            .join(" ; ")
    };
    // As many as F&O sends in one transaction: more than Dataverse takes one by one.
    let fits = rows(0..1_000, "insert", "Many");
    let too_large = rows(1_000..2_500, "insert", "More");
    // Changes have conditions, so each needs an operation.
    let too_many_changes = rows(0..999, "update", "Changed");
    check(&format!(
        "
        start
        dataverse writes 3
        finops transaction {fits}
        settle
        dataverse writes 1000
        dataverse expect msdyn_customergroups msdyn_groupid=999 msdyn_description=Many
        failed none
        # It comes back from Dataverse and is known by its content.
        settle
        finops writes 0
        finops transaction {too_large}
        finops insert Currencies CurrencyCode=EUR Name=Euro
        settle
        dataverse writes 1
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=Euro
        dataverse absent msdyn_customergroups msdyn_groupid=1000
        failed customer-groups * DW-3006
        finops transaction {too_many_changes}
        settle
        dataverse writes 0
        failed customer-groups * DW-3006
        failed customer-groups * DW-3006
        "
    ));
}

#[test]
fn one_bad_row_of_a_transaction_that_needs_bulk_operations_is_named() {
    let inserts = (0..1_000).map(|number| {
        let description = if number == 700 { "Bad" } else { "Good" };
        format!("insert CustomerGroups dataAreaId=usmf,CustomerGroupId={number} Description={description}")
    });
    let inserts = inserts.collect::<Vec<_>>().join(" ; ");
    check(&format!(
        r#"
        start
        dataverse writes 3
        dataverse faults [{{"match":{{"operation":true,"path":"msdyn_customergroups","body":"Bad","times":2}},"action":{{"kind":"answer","status":400,"code":"0x80048d19","message":"a plug-in says no"}}}}]
        finops transaction {inserts}
        settle
        dataverse writes 0
        failed customer-groups usmf/700 DW-1201
        retry customer-groups usmf/700
        dataverse writes 1000
        failed none
        "#
    ));
}

/// What each side does to a row that both have, before anything of it is carried over.
/// Dataverse holds a name in upper case, F&O in lower case: a transform that goes forth goes back as well.
#[test]
fn a_transform_bound_both_ways_is_taken_back() {
    check_hostile(
        r#"
        bind currencies { name = "hostile", stage = "transform", field = "NAME", direction = "both", parameters = { mode = "upper" } }
        finops insert Currencies CurrencyCode=EUR Name=euro
        start
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname=EURO
        dataverse update transactioncurrencies isocurrencycode=EUR currencyname='THE EURO'
        settle
        finops expect Currencies CurrencyCode=EUR Name='the euro'
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname='THE EURO'
        finops update Currencies CurrencyCode=EUR Name='euro again'
        settle
        dataverse expect transactioncurrencies isocurrencycode=EUR currencyname='EURO AGAIN'
        finops expect Currencies CurrencyCode=EUR Name='euro again'
        failed none
        "#,
    );
}

/// Whoever deletes a row and makes it anew gives it another id; rows that refer to it find the new one, also where no
/// map tells of it.
#[test]
fn a_reference_to_a_row_that_was_made_anew_heals() {
    let maps = ["companies", "customer-groups"].map(str::to_owned).to_vec();
    check_with(
        Settings { maps, ..Settings::default() },
        r"
        start
        dataverse insert msdyn_paymentterms msdyn_name=Net30,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_days=30
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 PaymentTermId=Net30
        settle
        dataverse expect msdyn_customergroups msdyn_groupid=10 msdyn_paymenttermid=@msdyn_paymentterms/msdyn_name=Net30
        finops delete CustomerGroups dataAreaId=usmf,CustomerGroupId=10
        settle
        dataverse delete msdyn_paymentterms msdyn_name=Net30,msdyn_company=@cdm_companies/cdm_companycode=usmf
        dataverse insert msdyn_paymentterms msdyn_name=Net30,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_days=31
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=11 PaymentTermId=Net30
        settle
        dataverse expect msdyn_customergroups msdyn_groupid=11 msdyn_paymenttermid=@msdyn_paymentterms/msdyn_days=31
        dataverse delete msdyn_paymentterms msdyn_name=Net30,msdyn_company=@cdm_companies/cdm_companycode=usmf
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=12 PaymentTermId=Net30
        finops delete CustomerGroups dataAreaId=usmf,CustomerGroupId=11
        settle
        failed customer-groups usmf/12 DW-1006
        ",
    );
}

/// Two companies have a group of the same name, and the way to the desk leads through it.
#[test]
fn a_way_of_several_lookups_stays_in_its_company() {
    let table = |kind, json: &str| (kind, serde_json::from_str(json).expect("a table"));
    let tables = vec![
        table(
            SystemKind::Finops,
            r#"{"name": "Note", "set": "Notes", "entity": "Notes", "entityName": "NoteEntity", "key": ["dataAreaId", "NoteId"],
                "columns": [{"name": "dataAreaId", "type": "text", "maxLength": 4},
                    {"name": "NoteId", "type": "text", "maxLength": 10}, {"name": "GroupId", "type": "text", "maxLength": 10}]}"#,
        ),
        table(
            SystemKind::Dataverse,
            r#"{"name": "msdyn_desk", "set": "msdyn_desks", "primaryId": "msdyn_deskid", "primaryName": "msdyn_name",
                "alternateKeys": [{"name": "desk", "columns": ["msdyn_company", "msdyn_name"]}],
                "columns": [{"name": "msdyn_name", "type": "text", "maxLength": 10},
                    {"name": "msdyn_company", "type": "lookup", "targets": [{"table": "cdm_company", "navigationProperty": "msdyn_company"}]},
                    {"name": "msdyn_groupid", "type": "lookup", "targets": [{"table": "msdyn_customergroup", "navigationProperty": "msdyn_groupid"}]}]}"#,
        ),
        table(
            SystemKind::Dataverse,
            r#"{"name": "msdyn_note", "set": "msdyn_notes", "primaryId": "msdyn_noteid", "primaryName": "msdyn_number",
                "alternateKeys": [{"name": "note", "columns": ["msdyn_company", "msdyn_number"]}],
                "columns": [{"name": "msdyn_number", "type": "text", "maxLength": 10, "required": true},
                    {"name": "msdyn_company", "type": "lookup", "targets": [{"table": "cdm_company", "navigationProperty": "msdyn_company"}]},
                    {"name": "msdyn_deskid", "type": "lookup", "targets": [{"table": "msdyn_desk", "navigationProperty": "msdyn_deskid"}]}]}"#,
        ),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let map = folder.path().join("notes.json");
    let json = r#"{"name": "Notes", "legs": [{"sourceSchema": "Notes", "destinationSchema": "msdyn_notes", "sourceFilter": "",
        "reversedSourceFilter": "", "fieldMappings": [
            {"syncDirection": "1", "sourceField": "NOTEID", "destinationField": "msdyn_number"},
            {"syncDirection": "1", "sourceField": "GROUPID", "destinationField": "msdyn_deskid.msdyn_groupid.msdyn_groupid"}]}]}"#;
    std::fs::write(&map, json).expect("writes");
    let config = format!(
        "\n[[map]]\nslug = \"notes\"\nfile = {:?}\nintegration_key = [\"msdyn_company.cdm_companycode\", \"msdyn_number\"]\n",
        map.display().to_string()
    );
    let each = |line: &str| ["usmf", "demf"].map(|company| line.replace("COMPANY", company)).join("\n");
    let story = [
        each("finops insert CustomerGroups dataAreaId=COMPANY,CustomerGroupId=10 Description=COMPANY"),
        "start".to_owned(),
        each(
            "dataverse insert msdyn_desks msdyn_name=D-COMPANY msdyn_company=@cdm_companies/cdm_companycode=COMPANY \
             msdyn_groupid=@msdyn_customergroups/msdyn_description=COMPANY",
        ),
        each("finops insert Notes dataAreaId=COMPANY,NoteId=N-COMPANY GroupId=10"),
        "settle\nfailed none".to_owned(),
        each("dataverse expect msdyn_notes msdyn_number=N-COMPANY msdyn_deskid=@msdyn_desks/msdyn_name=D-COMPANY"),
    ];
    check_with(Settings { tables, config, ..Settings::default() }, &story.join("\n"));
}

#[test]
fn of_a_change_and_a_delete_the_winner_stands_too() {
    let left = [
        ("update", "finops update Currencies CurrencyCode=EUR Name=Left"),
        ("delete", "finops delete Currencies CurrencyCode=EUR"),
    ];
    let right = [
        ("update", "dataverse update transactioncurrencies isocurrencycode=EUR currencyname=Right"),
        ("delete", "dataverse delete transactioncurrencies isocurrencycode=EUR"),
    ];
    // The pair may be one that the runtime made, or one that it found.
    for found in ["", "dataverse insert transactioncurrencies isocurrencycode=EUR currencyname=Euro exchangerate=1"] {
        for winner in ["finops", "dataverse"] {
            for (left_does, left_line) in left {
                for (right_does, right_line) in right {
                    println!("{winner} wins, finops {left_does}, dataverse {right_does}, {found}");
                    let (does, name) = if winner == "finops" { (left_does, "Left") } else { (right_does, "Right") };
                    let stands = if does == "update" {
                        format!(
                            "finops expect Currencies CurrencyCode=EUR Name={name}
                            dataverse expect transactioncurrencies isocurrencycode=EUR currencyname={name}"
                        )
                    } else {
                        "finops absent Currencies CurrencyCode=EUR
                        dataverse absent transactioncurrencies isocurrencycode=EUR"
                            .to_owned()
                    };
                    check(&format!(
                        "
                        winner {winner}
                        finops insert Currencies CurrencyCode=EUR Name=Euro
                        {found}
                        start
                        {left_line}
                        {right_line}
                        settle
                        {stands}
                        settle
                        {stands}
                        failed none
                        "
                    ));
                }
            }
        }
    }
}

#[test]
fn everything_of_a_user_who_does_everything_at_once_arrives() {
    check(
        r"
        finops insert Currencies CurrencyCode=EUR Name=Euro
        finops insert CustomerGroups dataAreaId=usmf,CustomerGroupId=10 Description=Large
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=One PartyType=Organization CustomerGroupId=10 SalesCurrencyCode=EUR
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=Two PartyType=Organization CustomerGroupId=10
        start
        finops delete CustomersV3 dataAreaId=usmf,CustomerAccount=C1
        dataverse update accounts accountnumber=C1 numberofemployees=5
        dataverse delete accounts accountnumber=C2
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C2 EmployeeCount=6
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C3 OrganizationName=Left PartyType=Organization
        dataverse insert accounts accountnumber=C3,msdyn_company=@cdm_companies/cdm_companycode=usmf name=Right customertypecode=3
        settle
        # F&O wins: its delete stands, its update of a row that Dataverse deleted stands, its name stands.
        finops absent CustomersV3 dataAreaId=usmf,CustomerAccount=C1
        dataverse absent accounts accountnumber=C1
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C2 EmployeeCount=6
        dataverse expect accounts accountnumber=C2 numberofemployees=6 name=Two
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C3 OrganizationName=Left
        dataverse expect accounts accountnumber=C3 name=Left
        failed none
        ",
    );
}
