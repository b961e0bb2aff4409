//! Tables, columns, keys and relationships made through the metadata API, and how they describe themselves.

mod common;

use common::System;
use dualwright_emulator::Dialect;
use serde_json::{Value, json};

fn label(text: &str) -> Value {
    json!({"@odata.type": "Microsoft.Dynamics.CRM.Label", "LocalizedLabels": [
        {"@odata.type": "Microsoft.Dynamics.CRM.LocalizedLabel", "Label": text, "LanguageCode": 1033}]})
}

/// The documentation's own example ("Create and update table definitions using the Web API").
fn bank_account() -> String {
    json!({
        "@odata.type": "Microsoft.Dynamics.CRM.EntityMetadata",
        "SchemaName": "new_BankAccount", "DisplayName": label("Bank Account"),
        "DisplayCollectionName": label("Bank Accounts"), "OwnershipType": "UserOwned",
        "HasActivities": false, "HasNotes": false, "IsActivity": false,
        "Attributes": [{
            "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "AttributeType": "String",
            "AttributeTypeName": {"Value": "StringType"}, "SchemaName": "new_AccountName", "IsPrimaryName": true,
            "RequiredLevel": {"Value": "None", "CanBeChanged": true}, "DisplayName": label("Account Name"),
            "FormatName": {"Value": "Text"}, "MaxLength": 100,
        }],
    })
    .to_string()
}

fn attribute(kind: &str, name: &str, more: Value) -> String {
    let mut body = json!({
        "@odata.type": format!("Microsoft.Dynamics.CRM.{kind}AttributeMetadata"), "SchemaName": name,
        "DisplayName": label(name), "RequiredLevel": {"Value": "None"},
    });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body.to_string()
}

async fn posted(system: &System, path: &str, body: &str) -> String {
    let reply = system.send("POST", path, "", body).await;
    assert_eq!(reply.status, 204, "{path} {body}: {}", reply.text);
    reply.header("odata-entityid").to_owned()
}

const TABLE: &str = "EntityDefinitions(LogicalName='new_bankaccount')";

#[tokio::test]
async fn a_table_with_every_kind_of_column_is_made_and_used_at_once() {
    let system = System::start(Dialect::Dataverse).await;
    let made = posted(&system, "EntityDefinitions", &bank_account()).await;
    assert_eq!(system.json(made.split("/v9.2/").nth(1).expect("URL")).await["LogicalName"], "new_bankaccount");
    let options = json!({"IsGlobal": false, "OptionSetType": "Picklist", "Options": [
        {"Value": 727000000, "Label": label("Bravo")}, {"Value": 727000001, "Label": label("Delta")}]});
    let choice = json!({"OptionSet": options});
    for (kind, name, more, cast, pointer, wanted) in [
        (
            "String",
            "new_Mail",
            json!({"FormatName": {"Value": "Email"}, "MaxLength": 50}),
            "",
            "/FormatName/Value",
            json!("Email"),
        ),
        ("Memo", "new_Notes", json!({"MaxLength": 500}), "", "/MaxLength", json!(500)),
        ("Integer", "new_Count", json!({"MinValue": 0, "MaxValue": 9}), "", "/MaxValue", json!(9)),
        ("BigInt", "new_Big", json!({}), "", "/MaxValue", json!(i64::MAX)),
        (
            "Decimal",
            "new_Rate",
            json!({"Precision": 1, "MinValue": 0.0, "MaxValue": 100.0}),
            "",
            "/Precision",
            json!(1),
        ),
        ("Double", "new_Ratio", json!({"Precision": 3}), "", "/Precision", json!(3)),
        ("Money", "new_Balance", json!({"PrecisionSource": 2}), "", "/PrecisionSource", json!(2)),
        (
            "Boolean",
            "new_Open",
            json!({"OptionSet": {"TrueOption": {"Value": 1, "Label": label("Open")},
            "FalseOption": {"Value": 0, "Label": label("Shut")}}}),
            "OptionSet",
            "/OptionSet/TrueOption/Label/UserLocalizedLabel/Label",
            json!("Open"),
        ),
        ("DateTime", "new_Checked", json!({"Format": "DateOnly"}), "", "/Format", json!("DateOnly")),
        (
            "DateTime",
            "new_Born",
            json!({"Format": "DateOnly", "DateTimeBehavior": {"Value": "DateOnly"}}),
            "",
            "/DateTimeBehavior/Value",
            json!("DateOnly"),
        ),
        (
            "DateTime",
            "new_Clock",
            json!({"Format": "DateAndTime", "DateTimeBehavior": {"Value": "TimeZoneIndependent"}}),
            "",
            "/DateTimeBehavior/Value",
            json!("TimeZoneIndependent"),
        ),
        ("Picklist", "new_Kind", choice.clone(), "OptionSet", "/OptionSet/Options/1/Value", json!(727000001)),
        (
            "MultiSelectPicklist",
            "new_Kinds",
            choice,
            "OptionSet",
            "/OptionSet/Options/0/Label/UserLocalizedLabel/Label",
            json!("Bravo"),
        ),
    ] {
        posted(&system, &format!("{TABLE}/Attributes"), &attribute(kind, name, more)).await;
        let expand = if cast.is_empty() { String::new() } else { format!("?$expand={cast}") };
        let one = system
            .json(&format!(
                "{TABLE}/Attributes(LogicalName='{}')/Microsoft.Dynamics.CRM.{kind}AttributeMetadata{expand}",
                name.to_lowercase()
            ))
            .await;
        assert_eq!(one["SchemaName"], name);
        assert_eq!(one.pointer(pointer), Some(&wanted), "{name} {pointer}: {one}");
    }
    let relationship = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata", "SchemaName": "new_contact_new_bankaccount",
        "ReferencedEntity": "contact", "ReferencedAttribute": "contactid", "ReferencingEntity": "new_bankaccount",
        "CascadeConfiguration": {"Delete": "Cascade"},
        "Lookup": {"@odata.type": "Microsoft.Dynamics.CRM.LookupAttributeMetadata", "SchemaName": "new_AccountOwner",
            "DisplayName": label("Account Owner"), "RequiredLevel": {"Value": "None"}},
    });
    posted(&system, "RelationshipDefinitions", &relationship.to_string()).await;
    let relationships = system.json(&format!("{TABLE}/ManyToOneRelationships")).await;
    let own = relationships["value"].as_array().expect("list").iter();
    let own = own.filter(|one| one["SchemaName"] == "new_contact_new_bankaccount").collect::<Vec<_>>();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["ReferencingEntityNavigationPropertyName"], "new_AccountOwner");
    assert_eq!(own[0]["CascadeConfiguration"]["Delete"], "Cascade");
    let key =
        json!({"SchemaName": "new_ByMail", "DisplayName": label("Mail"), "KeyAttributes": ["new_mail", "new_kind"]});
    posted(&system, &format!("{TABLE}/Keys"), &key.to_string()).await;

    let contact = system.create("contacts", r#"{"lastname":"Miller"}"#).await;
    let body = json!({
        "new_accountname": "Savings", "new_mail": "a@b.c", "new_kind": 727000001, "new_kinds": "727000001,727000000",
        "new_balance": 12.5, "new_count": 9, "new_open": true, "new_born": "2024-02-29",
        "new_AccountOwner@odata.bind": format!("/contacts({})", contact["contactid"].as_str().expect("id")),
    });
    let row = system.create("new_bankaccounts", &body.to_string()).await;
    assert_eq!(row["new_kinds"], "727000000,727000001");
    assert_eq!(row["new_balance"].to_string(), "12.5");
    let found = system.json("new_bankaccounts(new_mail='A@b.c',new_kind=727000001)?$expand=new_AccountOwner").await;
    assert_eq!(found["new_AccountOwner"]["lastname"], "Miller");
    let twice = system.send("POST", "new_bankaccounts", "", r#"{"new_mail":"a@b.c","new_kind":727000001}"#).await;
    assert_eq!((twice.status, twice.code().as_str()), (412, "0x80060892"));
    let csdl = system.get("$metadata").await.text;
    assert!(csdl.contains("<EntitySet Name=\"new_bankaccounts\" EntityType=\"mscrm.new_bankaccount\">"));

    // Cells are kept by place: a column that goes takes its own with it, and no other.
    let column = format!("{TABLE}/Attributes(LogicalName='new_notes')");
    assert_eq!(system.send("DELETE", &column, "", "").await.status, 204);
    let after = system.json("new_bankaccounts(new_mail='a@b.c',new_kind=727000001)?$expand=new_AccountOwner").await;
    assert!(after.get("new_notes").is_none());
    assert_eq!(after["new_born"], "2024-02-29");
    assert_eq!(after["new_AccountOwner"]["lastname"], "Miller");
    assert_eq!(system.send("DELETE", &format!("{TABLE}/Keys(LogicalName='new_bymail')"), "", "").await.status, 204);
    assert_eq!(system.get("new_bankaccounts(new_mail='a@b.c',new_kind=727000001)").await.status, 400);
    assert_eq!(system.send("DELETE", TABLE, "", "").await.status, 204);
    assert_eq!(system.get("new_bankaccounts").await.status, 404);
    assert_eq!(system.get(TABLE).await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_made_is_refused() {
    let system = System::start(Dialect::Dataverse).await;
    posted(&system, "EntityDefinitions", &bank_account()).await;
    posted(&system, &format!("{TABLE}/Attributes"), &attribute("Integer", "new_Count", json!({}))).await;
    posted(&system, &format!("{TABLE}/Keys"), r#"{"SchemaName":"new_key","KeyAttributes":["new_count"]}"#).await;
    let nameless = r#"{"SchemaName":"new_Other","Attributes":[]}"#;
    for (method, path, body, status, code) in [
        ("POST", "EntityDefinitions".to_owned(), bank_account(), 400, "0x80047010"),
        ("POST", "EntityDefinitions".to_owned(), nameless.to_owned(), 400, "0x80047014"),
        ("POST", "EntityDefinitions".to_owned(), "{".to_owned(), 400, "0x80048d19"),
        ("POST", format!("{TABLE}/Attributes"), attribute("Integer", "new_Count", json!({})), 400, "0x80047013"),
        ("POST", format!("{TABLE}/Attributes"), attribute("Integer", "new Count", json!({})), 400, "0x80040203"),
        ("POST", format!("{TABLE}/Attributes"), attribute("Lookup", "new_To", json!({})), 400, "0x80040203"),
        (
            "POST",
            format!("{TABLE}/Attributes"),
            attribute("String", "new_Long", json!({"MaxLength": 4001})),
            400,
            "0x80040203",
        ),
        (
            "POST",
            format!("{TABLE}/Keys"),
            r#"{"SchemaName":"new_key","KeyAttributes":["new_count"]}"#.to_owned(),
            400,
            "0x80060893",
        ),
        (
            "POST",
            format!("{TABLE}/Keys"),
            r#"{"SchemaName":"new_2","KeyAttributes":["nosuch"]}"#.to_owned(),
            400,
            "0x80041103",
        ),
        ("PATCH", TABLE.to_owned(), "{}".to_owned(), 405, "0x80060888"),
        ("DELETE", format!("{TABLE}/Attributes(LogicalName='new_count')"), String::new(), 400, "0x8004f01f"),
        ("DELETE", format!("{TABLE}/Attributes(LogicalName='createdon')"), String::new(), 400, "0x80040203"),
        ("DELETE", "EntityDefinitions(LogicalName='contact')".to_owned(), String::new(), 400, "0x8004f01f"),
        ("DELETE", "EntityDefinitions(LogicalName='systemuser')".to_owned(), String::new(), 400, "0x80040203"),
        ("DELETE", "EntityDefinitions(LogicalName='nosuch')".to_owned(), String::new(), 404, "0x80040217"),
        ("POST", "PublishXml".to_owned(), r#"{"ParameterXml":"<importexportxml/>"}"#.to_owned(), 204, ""),
        ("POST", "PublishAllXml".to_owned(), String::new(), 204, ""),
    ] {
        let reply = system.send(method, &path, "", &body).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{method} {path} {body}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_key_that_rows_stand_against_fails_until_it_is_tried_again() {
    let system = System::start(Dialect::Dataverse).await;
    posted(&system, "EntityDefinitions", &bank_account()).await;
    let one = system.create("new_bankaccounts", r#"{"new_accountname":"A"}"#).await;
    system.create("new_bankaccounts", r#"{"new_accountname":"a"}"#).await;
    posted(&system, &format!("{TABLE}/Keys"), r#"{"SchemaName":"new_key","KeyAttributes":["new_accountname"]}"#).await;
    let status =
        || async { system.json(&format!("{TABLE}/Keys(LogicalName='new_key')")).await["EntityKeyIndexStatus"].clone() };
    assert_eq!(status().await, "Failed");
    let id = one["new_bankaccountid"].as_str().expect("id");
    system.send("DELETE", &format!("new_bankaccounts({id})"), "", "").await;
    let again = r#"{"EntityLogicalName":"new_bankaccount","EntityKeyLogicalName":"new_key"}"#;
    assert_eq!(system.send("POST", "ReactivateEntityKey", "", again).await.status, 204);
    assert_eq!(status().await, "Active");
    assert_eq!(system.get("new_bankaccounts(new_accountname='A')").await.status, 200);
}

/// `$metadata` names nothing that it does not define.
#[tokio::test]
async fn the_csdl_has_no_loose_ends() {
    let system = System::start(Dialect::Dataverse).await;
    let xml = system.get("$metadata?annotations=true").await.text;
    let mut reader = quick_xml::Reader::from_str(&xml);
    let (mut defined, mut used, mut sets, mut targets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    loop {
        use quick_xml::events::Event;
        match reader.read_event().expect("well-formed XML") {
            Event::Eof => break,
            Event::Start(element) | Event::Empty(element) => {
                let name = element.name().as_ref().to_owned();
                let value = |wanted: &str| {
                    element
                        .attributes()
                        .filter_map(Result::ok)
                        .find(|attribute| attribute.key.as_ref() == wanted)
                        .map(|attribute| attribute.value.into_owned())
                };
                match name.as_str() {
                    "EntityType" | "ComplexType" | "EnumType" => {
                        defined.extend(value("Name"));
                        used.extend(value("BaseType"));
                    }
                    "Property" | "NavigationProperty" | "Parameter" | "ReturnType" => used.extend(value("Type")),
                    "EntitySet" => {
                        sets.extend(value("Name"));
                        used.extend(value("EntityType"));
                    }
                    "NavigationPropertyBinding" => targets.extend(value("Target")),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    for name in &used {
        let bare = name.trim_start_matches("Collection(").trim_end_matches(')');
        if let Some(own) = bare.strip_prefix("mscrm.") {
            assert!(defined.iter().any(|one| one == own), "{name} is not defined");
        } else {
            assert!(bare.starts_with("Edm."), "{name}");
        }
    }
    assert!(sets.len() > 8 && targets.iter().all(|target| sets.contains(target)));
    assert!(xml.contains("Partner=\"account_primary_contact\""));
    assert!(xml.contains("PropertyPath=\"_msdyn_company_value\""));
}

#[tokio::test]
async fn definitions_are_selected_filtered_and_expanded() {
    let system = System::start(Dialect::Dataverse).await;
    for (path, pointer, wanted) in [
        (
            "EntityDefinitions?$select=LogicalName&$filter=OwnershipType eq Microsoft.Dynamics.CRM.OwnershipTypes'None'",
            "/value/2/LogicalName",
            json!("organization"),
        ),
        ("EntityDefinitions?$select=LogicalName&$filter=CanCreateAttributes/Value eq false", "/value", json!([])),
        ("EntityDefinitions(LogicalName='account')?$select=EntitySetName", "/EntitySetName", json!("accounts")),
        (
            "EntityDefinitions(LogicalName='account')?$select=LogicalName&$expand=Attributes($select=LogicalName;\
          $filter=AttributeType eq Microsoft.Dynamics.CRM.AttributeTypeCode'Picklist')",
            "/Attributes/0/LogicalName",
            json!("customertypecode"),
        ),
        ("EntityDefinitions(LogicalName='account')/ObjectTypeCode", "/value", json!(1)),
        (
            "EntityDefinitions(LogicalName='account')/Attributes/Microsoft.Dynamics.CRM.PicklistAttributeMetadata\
          ?$select=LogicalName&$expand=OptionSet,GlobalOptionSet",
            "/value/0/GlobalOptionSet",
            Value::Null,
        ),
        (
            "EntityDefinitions(LogicalName='account')/Attributes(LogicalName='customertypecode')/\
          Microsoft.Dynamics.CRM.PicklistAttributeMetadata/OptionSet?$select=Options",
            "/Options/0/Value",
            json!(1),
        ),
        (
            "EntityDefinitions(LogicalName='account')/Attributes?$select=SchemaName&\
          $filter=RequiredLevel/Value eq Microsoft.Dynamics.CRM.AttributeRequiredLevel'ApplicationRequired'",
            "/value/0/SchemaName",
            json!("Name"),
        ),
        (
            "EntityDefinitions(LogicalName='contact')/Attributes(LogicalName='parentcustomerid')",
            "/AttributeType",
            json!("Customer"),
        ),
        (
            "EntityDefinitions(LogicalName='contact')/Attributes/Microsoft.Dynamics.CRM.LookupAttributeMetadata?$select=Targets",
            "/value/0/Targets",
            json!(["account", "contact"]),
        ),
        (
            "RelationshipDefinitions(SchemaName='account_primary_contact')",
            "/ReferencedEntityNavigationPropertyName",
            json!("account_primary_contact"),
        ),
        (
            "RelationshipDefinitions/Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata?$select=SchemaName&\
          $filter=ReferencingAttribute eq 'primarycontactid'",
            "/value/0/SchemaName",
            json!("account_primary_contact"),
        ),
        (
            "EntityDefinitions?$select=SchemaName&$expand=Keys($select=KeyAttributes)&$filter=LogicalName eq 'account'",
            "/value/0/Keys/0/KeyAttributes",
            json!(["accountnumber", "msdyn_company"]),
        ),
    ] {
        let document = system.json(path).await;
        assert_eq!(document.pointer(pointer), Some(&wanted), "{path} {pointer}: {document}");
    }
    for (path, status) in [
        ("EntityDefinitions?$top=1", 400),
        ("EntityDefinitions?$select=NoSuch", 400),
        ("EntityDefinitions?$filter=LogicalName eq", 400),
        ("EntityDefinitions(LogicalName='account')/Attributes(LogicalName='nosuch')", 404),
        ("EntityDefinitions(LogicalName='account')/Attributes?$expand=OptionSet", 400),
        ("RelationshipDefinitions(SchemaName='nosuch')", 404),
    ] {
        let reply = system.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
    }
}
