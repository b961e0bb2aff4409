//! Rows that have many of each other, and who may see what is behind a row.

mod common;

use common::{System, id};
use dualwright_emulator::Dialect;
use serde_json::{Value, json};

/// Accounts and contacts that are joined through a relationship made by the metadata API.
async fn started() -> System {
    let system = System::start(Dialect::Dataverse).await;
    let body = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.ManyToManyRelationshipMetadata", "SchemaName": "new_account_contact",
        "Entity1LogicalName": "account", "Entity2LogicalName": "contact", "IntersectEntityName": "new_account_contact",
    });
    let made = system.send("POST", "RelationshipDefinitions", "", &body.to_string()).await;
    assert_eq!(made.status, 204, "{}", made.text);
    assert!(made.header("odata-entityid").contains("RelationshipDefinitions("));
    for (number, name) in [(1, "A"), (2, "B")] {
        system.create("accounts", &json!({"accountid": id(number), "name": name}).to_string()).await;
    }
    for (number, name) in [(51, "Ann"), (52, "Bob"), (53, "Cid")] {
        system.create("contacts", &json!({"contactid": id(number), "lastname": name}).to_string()).await;
    }
    system
}

async fn joined(system: &System, row: &str, navigation: &str, other: &str) {
    let body = json!({"@odata.id": format!("{}/api/data/v9.2/{other}", system.base)}).to_string();
    let reply = system.send("POST", &format!("{row}/{navigation}/$ref"), "", &body).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
}

fn account(number: u32) -> String {
    format!("accounts({})", id(number))
}

fn contact(number: u32) -> String {
    format!("contacts({})", id(number))
}

#[tokio::test]
async fn rows_are_joined_and_parted_from_both_sides() {
    let system = started().await;
    let way = "new_account_contact";
    joined(&system, &account(1), way, &contact(51)).await;
    joined(&system, &account(1), way, &contact(52)).await;
    joined(&system, &contact(52), way, &account(2)).await;
    let names = |path: String, column: &'static str| {
        let system = &system;
        async move { system.get(&path).await.column(column).join(" ") }
    };
    assert_eq!(names(format!("{}/{way}", account(1)), "lastname").await, "Ann Bob");
    assert_eq!(names(format!("{}/{way}", contact(52)), "name").await, "A B");
    assert_eq!(names(format!("{}/{way}?$filter=lastname eq 'Bob'", account(1)), "lastname").await, "Bob");
    assert_eq!(names(format!("{}/{way}?$orderby=lastname desc", account(1)), "lastname").await, "Bob Ann");
    assert_eq!(system.get(&format!("{}/{way}/$count", account(1))).await.text, "2");
    assert_eq!(system.json(&format!("{}/{way}/$ref", account(1))).await["value"].as_array().map(Vec::len), Some(2));
    // Rows of the pairs' own table, and queries through it.
    assert_eq!(system.count("new_account_contactset").await, 3);
    assert_eq!(names(format!("accounts?$filter={way}/any(o:o/lastname eq 'Ann')"), "name").await, "A");
    let expanded = system.json(&format!("{}?$select=name&$expand={way}($select=lastname)", account(2))).await;
    assert_eq!(expanded[way][0]["lastname"], "Bob", "{expanded}");
    let fetch = "<fetch><entity name='account'><attribute name='name'/>\
        <link-entity name='new_account_contact' from='accountid' to='accountid' intersect='true'>\
        <link-entity name='contact' from='contactid' to='contactid' alias='c'><attribute name='lastname'/>\
        <filter><condition attribute='lastname' operator='eq' value='Ann'/></filter></link-entity></link-entity>\
        </entity></fetch>";
    let fetched = system.json(&format!("accounts?fetchXml={}", dualwright_odata::escape::component(fetch))).await;
    assert_eq!(fetched["value"].as_array().map(Vec::len), Some(1), "{fetched}");
    assert_eq!(fetched["value"][0]["c.lastname"], "Ann");
    // By key, by link, and with a row that goes.
    let part = format!("{}/{way}({})/$ref", account(1), id(51));
    assert_eq!(system.send("DELETE", &part, "", "").await.status, 204);
    assert_eq!(names(format!("{}/{way}", account(1)), "lastname").await, "Bob");
    let part = format!("{}/{way}/$ref?$id={}/api/data/v9.2/{}", contact(52), system.base, account(2));
    assert_eq!(system.send("DELETE", &part, "", "").await.status, 204);
    assert_eq!(names(format!("{}/{way}", contact(52)), "name").await, "A");
    assert_eq!(system.send("DELETE", &contact(52), "", "").await.status, 204);
    assert_eq!(names(format!("{}/{way}", account(1)), "lastname").await, "");
    assert_eq!(system.count("new_account_contactset").await, 0);
    for (method, path, body, status) in [
        ("POST", format!("{}/{way}/$ref", account(1)), json!({"@odata.id": format!("/{}", account(2))}), 400),
        ("POST", format!("{}/{way}/$ref", account(1)), json!({"@odata.id": format!("/{}", contact(99))}), 404),
        ("POST", format!("{}/{way}/$ref", account(1)), json!({}), 400),
        ("PUT", format!("{}/{way}/$ref", account(1)), json!({}), 405),
        ("DELETE", format!("{}/{way}/$ref", account(1)), json!({}), 400),
    ] {
        let reply = system.send(method, &path, "", &body.to_string()).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", reply.text);
    }
    let bound = json!({"name": "C", "new_account_contact@odata.bind": [format!("/{}", contact(51)), format!("/{}", contact(53))]});
    let made = system.create("accounts", &bound.to_string()).await;
    let made = format!("accounts({})/{way}", made["accountid"].as_str().expect("an id"));
    assert_eq!(names(made, "lastname").await, "Ann Cid");
    system.end().await;
}

#[tokio::test]
async fn a_relationship_describes_itself_and_goes() {
    let system = started().await;
    let all = system.json("EntityDefinitions(LogicalName='contact')/ManyToManyRelationships?$select=SchemaName").await;
    assert!(all["value"].as_array().expect("a list").iter().any(|one| one["SchemaName"] == "new_account_contact"));
    let path = "RelationshipDefinitions(SchemaName='new_account_contact')";
    let cast = "Microsoft.Dynamics.CRM.ManyToManyRelationshipMetadata";
    let one = system.json(&format!("{path}/{cast}")).await;
    for (member, wanted) in [
        ("RelationshipType", "ManyToManyRelationship"),
        ("Entity1LogicalName", "account"),
        ("Entity2IntersectAttribute", "contactid"),
        ("IntersectEntityName", "new_account_contact"),
        ("Entity1NavigationPropertyName", "new_account_contact"),
    ] {
        assert_eq!(one[member], wanted, "{member}: {one}");
    }
    let roles = system.json(&format!("RelationshipDefinitions/{cast}?$select=SchemaName")).await;
    assert!(roles.to_string().contains("systemuserroles_association"), "{roles}");
    assert_eq!(system.json("EntityDefinitions(LogicalName='new_account_contact')").await["IsIntersect"], true);
    let csdl = system.get("$metadata").await.text;
    let navigation = "<NavigationProperty Name=\"new_account_contact\" Type=\"Collection(mscrm.contact)\" \
                      Partner=\"new_account_contact\"/>";
    assert!(csdl.contains(navigation));
    assert_eq!(system.send("DELETE", path, "", "").await.status, 204);
    assert_eq!(system.get(path).await.status, 404);
    assert_eq!(system.get(&format!("{}/new_account_contact", account(1))).await.status, 404);
    // The same through the action, on one table, whose sides are told apart.
    let body = json!({"IntersectEntitySchemaName": "new_kin", "ManyToManyRelationship": {
        "SchemaName": "new_kin", "Entity1LogicalName": "contact", "Entity2LogicalName": "contact"}});
    let made = system.send("POST", "CreateManyToMany", "", &body.to_string()).await;
    assert!(made.json()["ManyToManyRelationshipId"].is_string(), "{}", made.text);
    joined(&system, &contact(51), "new_kin", &contact(52)).await;
    assert_eq!(system.get(&format!("{}/new_kin", contact(51))).await.column("lastname"), ["Bob"]);
    assert_eq!(system.get(&format!("{}/new_kin_referenced", contact(52))).await.column("lastname"), ["Ann"]);
    assert_eq!(system.get(&format!("{}/new_kin", contact(52))).await.column("lastname"), [""; 0]);
    system.end().await;
}

/// A user whose role has these privileges.
async fn user_with(system: &System, privileges: &[&str]) -> String {
    let unit = system.json("WhoAmI").await["BusinessUnitId"].as_str().expect("an id").to_owned();
    let unit = format!("/businessunits({unit})");
    let user = json!({"lastname": "U", "fullname": "U", "businessunitid@odata.bind": unit});
    let user = system.create("systemusers", &user.to_string()).await["systemuserid"].clone();
    let role = json!({"name": "R", "businessunitid@odata.bind": unit});
    let role = system.create("roles", &role.to_string()).await["roleid"].clone();
    let (user, role) = (user.as_str().expect("an id").to_owned(), role.as_str().expect("an id").to_owned());
    let wanted = privileges.iter().map(|name| json!({"PrivilegeName": name, "Depth": "Global"})).collect::<Vec<_>>();
    let path = format!("roles({role})/Microsoft.Dynamics.CRM.AddPrivilegesRole");
    assert_eq!(system.send("POST", &path, "", &json!({"Privileges": wanted}).to_string()).await.status, 204);
    joined(system, &format!("systemusers({user})"), "systemuserroles_association", &format!("roles({role})")).await;
    user
}

#[tokio::test]
async fn every_table_that_a_query_looks_at_has_to_be_readable() {
    let system = started().await;
    joined(&system, &account(1), "new_account_contact", &contact(51)).await;
    let link = json!({"primarycontactid@odata.bind": format!("/{}", contact(51))}).to_string();
    assert_eq!(system.send("PATCH", &account(1), "", &link).await.status, 204);
    let reader = format!("MSCRMCallerID: {}", user_with(&system, &["prvReadAccount"]).await);
    let both = format!("MSCRMCallerID: {}", user_with(&system, &["prvReadAccount", "prvReadContact"]).await);
    let fetch = |inner: &str| {
        let xml = format!("<fetch><entity name='account'>{inner}</entity></fetch>");
        format!("accounts?fetchXml={}", dualwright_odata::escape::component(&xml))
    };
    for path in [
        "accounts?$expand=primarycontactid($select=lastname)".to_owned(),
        "accounts?$expand=contact_customer_accounts($select=lastname)".to_owned(),
        "accounts?$expand=new_account_contact".to_owned(),
        "accounts?$filter=primarycontactid/lastname eq 'Ann'".to_owned(),
        "accounts?$filter=new_account_contact/any(o:o/lastname eq 'Ann')".to_owned(),
        "accounts?$filter=contact_customer_accounts/any()".to_owned(),
        "accounts?$orderby=primarycontactid/lastname".to_owned(),
        "accounts?$apply=groupby((primarycontactid/lastname))".to_owned(),
        "accounts?$apply=aggregate(primarycontactid/lastname with countdistinct as n)".to_owned(),
        format!("{}/primarycontactid", account(1)),
        format!("{}/primarycontactid/lastname", account(1)),
        format!("{}/new_account_contact", account(1)),
        format!("{}/contact_customer_accounts/$count", account(1)),
        fetch("<link-entity name='contact' from='contactid' to='primarycontactid'/>"),
        fetch("<link-entity name='contact' from='contactid' to='primarycontactid' link-type='outer'/>"),
        fetch("<filter><link-entity name='contact' from='parentcustomerid' to='accountid' link-type='any'/></filter>"),
        "RetrieveTotalRecordCount(EntityNames=@p)?@p=[\"contact\"]".to_owned(),
    ] {
        let refused = system.send("GET", &path, &reader, "").await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "0x80040220"), "{path}: {}", refused.text);
        assert!(refused.text.contains("prvReadContact"), "{path}: {}", refused.text);
        let shown = system.send("GET", &path, &both, "").await;
        assert_eq!(shown.status, 200, "{path}: {}", shown.text);
    }
    // What is asked is about the caller, and not about the administrator.
    let own = reader.trim_start_matches("MSCRMCallerID: ");
    assert_eq!(system.send("GET", "WhoAmI", &reader, "").await.json()["UserId"], own);
    let filter = "systemusers?$select=fullname&$filter=Microsoft.Dynamics.CRM.EqualUserId(PropertyName='systemuserid')";
    assert_eq!(system.send("GET", filter, &reader, "").await.column("systemuserid"), [own]);
    let xml = "<fetch><entity name='systemuser'><filter><condition attribute='systemuserid' operator='eq-userid'/>\
               </filter></entity></fetch>";
    let path = format!("systemusers?fetchXml={}", dualwright_odata::escape::component(xml));
    assert_eq!(system.send("GET", &path, &reader, "").await.column("systemuserid"), [own]);
    // Whoever joins rows has to be allowed to append them to each other.
    let body = json!({"@odata.id": format!("/{}", contact(52))}).to_string();
    let refused = system.send("POST", &format!("{}/new_account_contact/$ref", account(1)), &both, &body).await;
    assert!(refused.status == 403 && refused.text.contains("prvAppendAccount"), "{}", refused.text);
    system.end().await;
}

#[tokio::test]
async fn what_is_secret_cannot_be_read_in_any_way() {
    let system = System::start(Dialect::Dataverse).await;
    let body =
        json!({"name": "hook", "url": "https://127.0.0.1:1/", "contract": 8, "authtype": 4, "authvalue": "s3cret"});
    let made = system.send("POST", "serviceendpoints", "Prefer: return=representation", &body.to_string()).await;
    assert!(made.status == 201 && !made.text.contains("s3cret"), "{}", made.text);
    let id = made.json()["serviceendpointid"].as_str().expect("an id").to_owned();
    let fetch = |inner: &str| {
        let xml = format!("<fetch><entity name='serviceendpoint'>{inner}</entity></fetch>");
        format!("serviceendpoints?fetchXml={}", dualwright_odata::escape::component(&xml))
    };
    for (path, status) in [
        ("serviceendpoints".to_owned(), 200),
        (format!("serviceendpoints({id})"), 200),
        (fetch(""), 200),
        (fetch("<all-attributes/>"), 200),
        ("serviceendpoints?$select=authvalue".to_owned(), 400),
        ("serviceendpoints?$filter=authvalue eq 's3cret'".to_owned(), 400),
        ("serviceendpoints?$filter=startswith(authvalue,'s')".to_owned(), 400),
        (
            "serviceendpoints?$filter=Microsoft.Dynamics.CRM.In(PropertyName='authvalue',PropertyValues=['s3cret'])"
                .to_owned(),
            400,
        ),
        ("serviceendpoints?$orderby=authvalue".to_owned(), 400),
        ("serviceendpoints?$apply=groupby((authvalue))".to_owned(), 400),
        (format!("serviceendpoints({id})/authvalue"), 404),
        (fetch("<attribute name='authvalue'/>"), 400),
        (fetch("<order attribute='authvalue'/>"), 400),
        (fetch("<filter><condition attribute='authvalue' operator='like' value='s%'/></filter>"), 400),
    ] {
        let reply = system.get(&path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
        assert!(status != 200 || !reply.text.contains("authvalue"), "{path}: {}", reply.text);
    }
    let path = "EntityDefinitions(LogicalName='serviceendpoint')/Attributes(LogicalName='authvalue')";
    assert_eq!(system.json(path).await["IsValidForRead"], false);
    system.end().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_for_steps_is_refused() {
    let system = System::start(Dialect::Dataverse).await;
    let limit = r#"{"messageBytesMax":1000}"#;
    assert_eq!(system.send("PUT", "/_emulator/limits", "", limit).await.status, 204);
    let row = json!({"name": "A", "description": "d".repeat(1_000)}).to_string();
    // Nobody is told of it, so its size does not matter.
    assert_eq!(system.send("POST", "accounts", "", &row).await.status, 204);
    let endpoint =
        json!({"name": "hook", "url": "https://127.0.0.1:1/", "contract": 8, "authtype": 4, "authvalue": "k"});
    let endpoint = system.create("serviceendpoints", &endpoint.to_string()).await["serviceendpointid"].clone();
    let found = |set: &'static str, filter: &'static str, column: &'static str| {
        let system = &system;
        async move { system.json(&format!("{set}?$filter={filter}")).await["value"][0][column].clone() }
    };
    let message = found("sdkmessages", "name eq 'Create'", "sdkmessageid").await;
    let filter = "primaryobjecttypecode eq 'account' and sdkmessageid/name eq 'Create'";
    let filter = found("sdkmessagefilters", filter, "sdkmessagefilterid").await;
    let link = |set: &str, id: &Value| format!("/{set}({})", id.as_str().unwrap_or_default());
    let step = json!({
        "name": "s", "stage": 40, "mode": 1, "rank": 1,
        "sdkmessageid@odata.bind": link("sdkmessages", &message),
        "sdkmessagefilterid@odata.bind": link("sdkmessagefilters", &filter),
        "eventhandler_serviceendpoint@odata.bind": link("serviceendpoints", &endpoint),
    });
    let made = system.send("POST", "sdkmessageprocessingsteps", "", &step.to_string()).await;
    assert_eq!(made.status, 204, "{}", made.text);
    let refused = system.send("POST", "accounts", "", &row).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "0x80040216"), "{}", refused.text);
    assert!(refused.text.contains("Message size exceeded when sending context to Sandbox"), "{}", refused.text);
    assert_eq!(system.count("accounts").await, 1);
    system.end().await;
}

fn label(text: &str) -> Value {
    json!({"LocalizedLabels": [{"Label": text, "LanguageCode": 1033}]})
}

#[tokio::test]
async fn global_choices_and_relationships_are_made_through_actions() {
    let system = System::start(Dialect::Dataverse).await;
    let choice = json!({"@odata.type": "Microsoft.Dynamics.CRM.OptionSetMetadata", "IsGlobal": true, "Name": "new_colour",
        "OptionSetType": "Picklist", "Options": [{"Value": 1, "Label": label("Red")}, {"Label": label("Green")}]});
    let made = system.send("POST", "GlobalOptionSetDefinitions", "", &choice.to_string()).await;
    assert_eq!(made.status, 204, "{}", made.text);
    assert_eq!(system.send("POST", "GlobalOptionSetDefinitions", "", &choice.to_string()).await.status, 400);
    let own = made.header("odata-entityid").split("/v9.2/").nth(1).expect("a path").to_owned();
    let column = json!({"@odata.type": "Microsoft.Dynamics.CRM.PicklistAttributeMetadata", "SchemaName": "new_Colour",
        "RequiredLevel": {"Value": "None"}, "DisplayName": label("Colour"),
        "GlobalOptionSet@odata.bind": format!("/{own}")});
    let attributes = "EntityDefinitions(LogicalName='account')/Attributes";
    let made = system.send("POST", attributes, "", &column.to_string()).await;
    assert_eq!(made.status, 204, "{}", made.text);
    let option = json!({"OptionSetName": "new_colour", "Value": 7, "Label": label("Blue"), "SolutionUniqueName": ""});
    let inserted = system.send("POST", "InsertOptionValue", "", &option.to_string()).await;
    assert_eq!(inserted.json()["NewOptionValue"], 7, "{}", inserted.text);
    assert_eq!(system.send("POST", "InsertOptionValue", "", &option.to_string()).await.status, 400);
    // The new option counts for the column at once.
    system.create("accounts", r#"{"name":"A","new_colour":7}"#).await;
    let wrong = system.send("POST", "accounts", "", r#"{"name":"B","new_colour":8}"#).await;
    assert_eq!(wrong.status, 400, "{}", wrong.text);
    let read = system.json("GlobalOptionSetDefinitions(Name='new_colour')").await;
    let values =
        read["Options"].as_array().expect("options").iter().map(|one| one["Value"].clone()).collect::<Vec<_>>();
    assert_eq!(values, [json!(1), json!(2), json!(7)], "{read}");
    let cast = format!(
        "{attributes}(LogicalName='new_colour')/Microsoft.Dynamics.CRM.PicklistAttributeMetadata?$select=LogicalName\
         &$expand=GlobalOptionSet($select=Name)"
    );
    assert_eq!(system.json(&cast).await["GlobalOptionSet"]["Name"], "new_colour");
    // What is used stays; an own choice grows too.
    assert_eq!(
        system.send("DELETE", "GlobalOptionSetDefinitions(Name='new_colour')", "", "").await.code(),
        "0x8004f01f"
    );
    let own = json!({"EntityLogicalName": "account", "AttributeLogicalName": "customertypecode", "Value": 9, "Label": label("Nine")});
    assert_eq!(system.send("POST", "InsertOptionValue", "", &own.to_string()).await.json()["NewOptionValue"], 9);
    system.create("accounts", r#"{"name":"C","customertypecode":9}"#).await;

    let relationship = json!({
        "OneToManyRelationship": {"SchemaName": "new_contact_account", "ReferencedEntity": "contact",
            "ReferencingEntity": "account", "CascadeConfiguration": {"Delete": "Restrict"}},
        "Lookup": {"SchemaName": "new_Clerk", "DisplayName": label("Clerk"), "RequiredLevel": {"Value": "None"}}});
    let made = system.send("POST", "CreateOneToMany", "", &relationship.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert!(made.json()["AttributeId"].is_string() && made.json()["RelationshipId"].is_string(), "{}", made.text);
    system.create("contacts", &json!({"contactid": id(1), "lastname": "L"}).to_string()).await;
    let bound = json!({"name": "D", "new_Clerk@odata.bind": format!("/{}", contact(1))});
    system.create("accounts", &bound.to_string()).await;
    assert_eq!(system.send("DELETE", &contact(1), "", "").await.code(), "0x80040227");
    let path = "RelationshipDefinitions(SchemaName='new_contact_account')";
    assert_eq!(system.send("DELETE", path, "", "").await.status, 204);
    assert_eq!(system.get(path).await.status, 404);
    assert_eq!(system.get("accounts?$select=new_clerk").await.status, 400);
    assert_eq!(system.send("DELETE", &contact(1), "", "").await.status, 204);
    system.end().await;
}

#[tokio::test]
async fn clients_that_look_around_first_find_what_they_ask_for() {
    let system = System::start(Dialect::Dataverse).await;
    let bulk = "sdkmessagefilters?$select=sdkmessagefilterid&$expand=sdkmessageid($select=name)&$filter=(sdkmessageid/name \
                eq 'CreateMultiple' or sdkmessageid/name eq 'UpdateMultiple') and primaryobjecttypecode eq ";
    for table in ["account", "contact", "systemuser", "solution"] {
        let found = system.json(&format!("{bulk}'{table}'")).await;
        let names = found["value"].as_array().expect("rows").iter().map(|row| row["sdkmessageid"]["name"].clone());
        assert_eq!(names.collect::<Vec<_>>(), ["CreateMultiple", "UpdateMultiple"], "{table}: {found}");
    }
    let languages = system.json("RetrieveAvailableLanguages").await;
    assert_eq!(languages["LocaleIds"], json!([1033]), "{languages}");
    let solutions = "solutions?$select=uniquename,version&$expand=publisherid($select=uniquename,customizationprefix,\
                     customizationoptionvalueprefix)&$filter=uniquename eq 'Default'";
    let found = system.json(solutions).await;
    assert_eq!(found["value"][0]["publisherid"]["customizationprefix"], "new", "{found}");
    let publisher = json!({"friendlyname": "P", "uniquename": "p", "customizationprefix": "dw", "customizationoptionvalueprefix": 12_345});
    let publisher = system.create("publishers", &publisher.to_string()).await["publisherid"].clone();
    let solution = json!({"friendlyname": "S", "uniquename": "s", "version": "1.0.0.0",
        "publisherid@odata.bind": format!("/publishers({})", publisher.as_str().expect("an id"))});
    system.create("solutions", &solution.to_string()).await;
    // A table without change tracking has no delta links.
    let refused = system.send("GET", "serviceendpoints", "Prefer: odata.track-changes", "").await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.text.contains("Change tracking is not enabled for the entity 'serviceendpoint'"),
        "{}",
        refused.text
    );
    system.end().await;
}
