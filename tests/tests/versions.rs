//! Versions of maps: taken up while the runtime is at work, or refused while the one before runs on.

use dualwright_core::mapping::Document;
use dualwright_tests::scenario::check;
use dualwright_tests::world::World;

/// The fixture's map of customers with one more field, in the words of `version`.
const WITH_REMARK: &str = r#"'{"syncDirection": "3", "sourceField": "CUSTOMERSINCE"' => '{"syncDirection": "3", "sourceField": "INTERNALREMARK", "destinationField": "description"}, {"syncDirection": "3", "sourceField": "CUSTOMERSINCE"'"#;

#[test]
fn another_version_is_taken_up_between_two_transactions() {
    check(&format!(
        r#"
        versioned customers
        version customers 1.0.0.1 {WITH_REMARK}
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization InternalRemark=one
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=B PartyType=Organization InternalRemark=two
        start
        dataverse expect accounts accountnumber=C1 name=A description=null
        dataverse update accounts accountnumber=C2 name=B2 description='said before'
        activate customers 1.0.0.1
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 InternalRemark=three
        settle
        activity version-taken-up customers 1.0.0.1 runs from here on, after 1.0.0.0
        dataverse expect accounts accountnumber=C1 name=A description=three
        # Captured by the feed of the version before, which tells less, and yet whole.
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C2 OrganizationName=B2 InternalRemark='said before'
        dataverse update accounts accountnumber=C1 description=four
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 InternalRemark=four
        # And back: the remark stays where it is.
        activate customers 1.0.0.0
        settle
        dataverse update accounts accountnumber=C1 description=five name=A5
        settle
        finops expect CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A5 InternalRemark=four
        failed none
        "#
    ));
}

#[test]
fn a_version_with_an_error_is_refused_and_the_one_before_runs_on() {
    check(
        r#"
        versioned customers
        version customers 1.0.0.1 PRIMARYCONTACTEMAIL => NOSUCHCOLUMN
        version customers 1.0.0.2 '"defaultValue": "3"' => '"defaultValue": "11"'
        finops insert CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=A PartyType=Organization
        start
        activate customers 1.0.0.1
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=B PrimaryContactEmail=b@x.example
        settle
        activity version-refused customers 1.0.0.1 is not taken up, and 1.0.0.0 runs on: field NOSUCHCOLUMN
        dataverse expect accounts accountnumber=C1 name=B emailaddress1=b@x.example customertypecode=3
        # One that is right is taken up after it.
        activate customers 1.0.0.2
        finops update CustomersV3 dataAreaId=usmf,CustomerAccount=C1 OrganizationName=C
        settle
        activity version-taken-up customers 1.0.0.2 runs from here on, after 1.0.0.0
        dataverse expect accounts accountnumber=C1 name=C customertypecode=11
        failed none
        "#,
    );
}

#[test]
fn what_was_edited_is_not_run() {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let mut world = World::new(Default::default()).await.expect("a world");
        let text = World::map_text("currencies").expect("a map");
        let versions = world.versions("currencies");
        let facts = Document::parse(&text).expect("a map").facts().clone();
        versions.import(&facts, &text).expect("imported");
        versions.activate(facts.version).expect("activated");
        world.settings().versioned.push("currencies".to_owned());
        world.open().await.expect("as it was imported");
        std::fs::write(versions.file(facts.version), text.replace("\"3\"", "\"1\"")).expect("edited");
        let refused = world.open().await.expect_err("as nobody imported it");
        assert!(refused.to_string().contains("is not the text that was imported"), "{refused:#}");
        world.end().await.expect("ended");
    });
}
