//! What the Web API answers to queries: filters, functions, expansions, aggregates, annotations and FetchXML.

mod common;

use common::{System, id};
use dualwright_emulator::Dialect;
use serde_json::{Value, json};

/// Three companies' worth of accounts and the people in them.
async fn started() -> System {
    let system = System::start(Dialect::Dataverse).await;
    system.create("cdm_companies", &format!(r#"{{"cdm_companyid":"{}","cdm_companycode":"usmf"}}"#, id(901))).await;
    for (number, name) in [(51, "Ann"), (52, "Bob"), (53, "Cid")] {
        system.create("contacts", &format!(r#"{{"contactid":"{}","lastname":"{name}"}}"#, id(number))).await;
    }
    for (number, name, more) in [
        (
            1,
            "Alpine",
            json!({"creditlimit": 1000.5, "numberofemployees": 10, "customertypecode": 3, "creditonhold": true,
            "since": "2024-02-29", "primarycontactid@odata.bind": format!("/contacts({})", id(51)),
            "msdyn_Company@odata.bind": format!("/cdm_companies({})", id(901))}),
        ),
        (
            2,
            "Blue Yond",
            json!({"creditlimit": 20, "numberofemployees": 200, "customertypecode": 1,
            "lastseen": "2024-01-02T03:04:05Z", "primarycontactid@odata.bind": format!("/contacts({})", id(52))}),
        ),
        (3, "O'Brian", json!({"numberofemployees": 200, "customertypecode": 3, "description": "Men's 50%"})),
        (4, "coho", json!({"creditonhold": false})),
    ] {
        let mut body = json!({"accountid": id(number), "name": name, "accountnumber": format!("A{number}")});
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        system.create("accounts", &body.to_string()).await;
    }
    for (contact, account) in [(51, 1), (52, 1), (53, 2)] {
        let body = format!(r#"{{"parentcustomerid_account@odata.bind":"/accounts({})"}}"#, id(account));
        assert_eq!(system.send("PATCH", &format!("contacts({})", id(contact)), "", &body).await.status, 204);
    }
    system
}

/// The last digits of the ids of what came back.
fn shown(reply: &common::Reply, column: &str) -> String {
    reply.column(column).iter().map(|id| id.trim_start_matches(['0', '-']).to_owned()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn filters_choose_rows() {
    let system = started().await;
    for (filter, wanted) in [
        ("name eq 'ALPINE'", "1"),
        ("name ne 'Alpine'", "2 3 4"),
        ("lastname eq 'x' or name eq 'coho'", "400"),
        ("name eq 'O''Brian'", "3"),
        ("startswith(name,'[ab]')", "1 2"),
        ("contains(name,'l_i')", "1"),
        ("contains(name,'l_')", "1 2"),
        ("not contains(name,'l')", "3 4"),
        ("endswith(name,'HO')", "4"),
        ("name eq '%l%'", "1 2"),
        ("creditlimit gt 20 and creditlimit le 1000.5", "1"),
        ("creditlimit eq null", "3 4"),
        ("creditlimit ne null", "1 2"),
        ("numberofemployees in (10,7)", "1"),
        ("creditonhold", "1"),
        ("not creditonhold", "2 3 4"),
        ("since eq 2024-02-29", "1"),
        ("lastseen ge 2024-01-02T03:04:05Z", "2"),
        ("customertypecode eq 'Customer'", "400"),
        ("numberofemployees eq 'ten'", "400"),
        ("customertypecode eq '3'", "1 3"),
        ("_primarycontactid_value eq 00000000-0000-0000-0000-000000000051", "1"),
        ("_primarycontactid_value eq '00000000-0000-0000-0000-000000000051'", "1"),
        ("primarycontactid/lastname eq 'bob'", "2"),
        ("primarycontactid/parentcustomerid_account/name eq 'Alpine'", "1 2"),
        ("accountnumber eq name", ""),
        ("numberofemployees ge customertypecode", "1 2 3"),
        ("name gt customertypecode", "400"),
        ("contact_customer_accounts/any()", "1 2"),
        ("not contact_customer_accounts/any()", "3 4"),
        ("contact_customer_accounts/any(c:c/lastname eq 'Cid')", "2"),
        ("contact_customer_accounts/any(c:c/lastname eq 'Ann' and c/parentcustomerid_account/name eq 'Alpine')", "1"),
        ("contact_customer_accounts/all(c:c/lastname ne 'Ann')", "2 3 4"),
        ("contact_customer_accounts/any(c:c/account_primary_contact/any(a:a/name eq 'Alpine'))", "1"),
        ("primarycontactid/contact_customer_accounts/any(c:c/lastname eq 'x')", "400"),
        ("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=[\"O'Brian\",\"Coho\"])", "3 4"),
        ("Microsoft.Dynamics.CRM.NotIn(PropertyName='numberofemployees',PropertyValues=['10'])", "2 3"),
        ("Microsoft.Dynamics.CRM.Between(PropertyName='numberofemployees',PropertyValues=[\"5\",\"199\"])", "1"),
        ("Microsoft.Dynamics.CRM.NotBetween(PropertyName='numberofemployees',PropertyValues=[\"5\",\"199\"])", "2 3"),
        ("Microsoft.Dynamics.CRM.Today(PropertyName='createdon')", "1 2 3 4"),
        ("Microsoft.Dynamics.CRM.Yesterday(PropertyName='createdon')", ""),
        ("Microsoft.Dynamics.CRM.LastXHours(PropertyName='createdon',PropertyValue=1)", "1 2 3 4"),
        ("Microsoft.Dynamics.CRM.OlderThanXYears(PropertyName='lastseen',PropertyValue=1)", "2"),
        ("Microsoft.Dynamics.CRM.On(PropertyName='lastseen',PropertyValue='2024-01-02')", "2"),
        ("Microsoft.Dynamics.CRM.OnOrAfter(PropertyName='since',PropertyValue='2024-02-29')", "1"),
        ("Microsoft.Dynamics.CRM.OnOrBefore(PropertyName='since',PropertyValue='2024-02-28')", ""),
        ("Microsoft.Dynamics.CRM.NoSuch(PropertyName='name')", "400"),
        ("Microsoft.Dynamics.CRM.Today(PropertyName='name')", "400"),
        ("Microsoft.Dynamics.CRM.Under(PropertyName='accountid',PropertyValue='x')", "400"),
        ("name eq 'O'Brian'", "400"),
        ("nosuch eq 1", "400"),
        ("tolower(name) eq 'x'", "400"),
        ("name eq", "400"),
    ] {
        let reply = system.get(&format!("accounts?$select=accountid&$filter={}", filter.replace('%', "%25"))).await;
        let found = if reply.status == 200 { shown(&reply, "accountid") } else { reply.status.to_string() };
        assert_eq!(found, wanted, "{filter}: {}", reply.text);
        if reply.status == 400 {
            assert_eq!(reply.code(), "0x80060888", "{filter}");
        }
    }
    let alias = "accounts?$select=accountid&$filter=@p1 ne @p3&$orderby=@p2 desc&@p1=creditlimit&@p2=name";
    assert_eq!(shown(&system.get(alias).await, "accountid"), "2 1");
}

#[tokio::test]
async fn orders_pages_and_paths() {
    let system = started().await;
    for (path, wanted) in [
        ("accounts?$orderby=numberofemployees desc,name", "2 3 1 4"),
        ("accounts?$orderby=primarycontactid/lastname desc", "2 1 3 4"),
        ("accounts?$orderby=_primarycontactid_value", "3 4 1 2"),
        ("accounts?$top=2", "1 2"),
        ("accounts?$skip=1", "400"),
        ("accounts?$search=x", "400"),
        ("accounts?$orderby=nosuch", "400"),
        ("accounts?$top=-1", "400"),
        ("accounts?savedQuery=00000000-0000-0000-0000-000000000001", "404"),
        ("accounts(00000000-0000-0000-0000-000000000001)/contact_customer_accounts", "51 52"),
        ("accounts(00000000-0000-0000-0000-000000000001)/contact_customer_accounts?$filter=lastname eq 'Bob'", "52"),
        ("accounts(00000000-0000-0000-0000-000000000001)/primarycontactid/account_primary_contact", "1"),
        ("systemusers?$filter=fullname eq 'System Administrator'", "1"),
    ] {
        let reply = system.get(path).await;
        let found = match reply.status {
            200 if path.starts_with("systemusers") => reply.column("systemuserid").len().to_string(),
            200 if path.contains("contact_customer_accounts") => shown(&reply, "contactid"),
            200 => shown(&reply, "accountid"),
            status => status.to_string(),
        };
        assert_eq!(found, wanted, "{path}: {}", reply.text);
    }
    // A page ends at a row, whatever is added or removed meanwhile.
    let mut link = "accounts?$select=accountid&$orderby=name desc".to_owned();
    let mut seen = Vec::new();
    for round in 0.. {
        let page = system.send("GET", &link, "Prefer: odata.maxpagesize=2", "").await;
        assert_eq!(page.header("preference-applied"), "odata.maxpagesize=2");
        seen.push(shown(&page, "accountid"));
        if round == 0 {
            system.create("accounts", &format!(r#"{{"accountid":"{}","name":"zzz"}}"#, id(9))).await;
        }
        let Some(next) = page.json()["@odata.nextLink"].as_str().map(str::to_owned) else { break };
        link = next.split("/v9.2/").nth(1).expect("link").to_owned();
    }
    assert_eq!(seen, ["3 4", "2 1"]);
    assert_eq!(system.get("accounts/$count").await.text, "5");
    assert_eq!(system.get("accounts/$count?$filter=name eq 'zzz'").await.text, "1");
    assert_eq!(system.get(&format!("accounts({})/name/$value", id(1))).await.text, "Alpine");
    assert_eq!(system.json(&format!("accounts({})/primarycontactid/lastname", id(1))).await["value"], "Ann");
    let links = system.json(&format!("accounts({})/contact_customer_accounts/$ref", id(1))).await;
    assert_eq!(links["value"].as_array().map(Vec::len), Some(2));
    let counted = system.json("RetrieveTotalRecordCount(EntityNames=['account','contact'])").await;
    assert_eq!(counted["EntityRecordCountCollection"]["Values"], json!([5, 3]));
    let aliased = system.json("RetrieveTotalRecordCount(EntityNames=@p1)?@p1=[\"contact\"]").await;
    assert_eq!(aliased["EntityRecordCountCollection"]["Values"], json!([3]));
}

#[tokio::test]
async fn related_rows_come_inline() {
    let system = started().await;
    let one = id(1);
    let row = system
        .json(&format!(
            "accounts({one})?$select=name&$expand=primarycontactid($select=lastname),contact_customer_accounts(\
             $select=lastname;$filter=lastname ne 'x';$orderby=lastname desc;$top=1)"
        ))
        .await;
    assert!(
        row["@odata.context"]
            .as_str()
            .expect("context")
            .ends_with("#accounts(name,primarycontactid(lastname),contact_customer_accounts(lastname))/$entity")
    );
    assert_eq!(row["primarycontactid"], json!({"lastname": "Ann", "contactid": id(51)}));
    let inner = &row["contact_customer_accounts"];
    assert_eq!(inner.as_array().map(Vec::len), Some(1));
    assert_eq!((&inner[0]["lastname"], &inner[0]["_parentcustomerid_value"]), (&json!("Bob"), &json!(one)));
    assert!(inner[0]["@odata.etag"].is_string());
    let next = row["contact_customer_accounts@odata.nextLink"].as_str().expect("link");
    let again = system.json(next.split("/v9.2/").nth(1).expect("link")).await;
    assert_eq!(again["value"][0]["lastname"], "Bob");
    let nested = system
        .send(
            "GET",
            "accounts?$select=name&$filter=name eq 'Alpine'&$expand=contact_customer_accounts($select=lastname;\
             $expand=parentcustomerid_account($select=name))",
            "Prefer: odata.maxpagesize=1",
            "",
        )
        .await
        .json();
    let account = &nested["value"][0];
    assert_eq!(account["contact_customer_accounts"].as_array().map(Vec::len), Some(1));
    assert_eq!(account["contact_customer_accounts"][0]["parentcustomerid_account"]["name"], "Alpine");
    let next = account["contact_customer_accounts@odata.nextLink"].as_str().expect("link");
    let rest = system.json(next.split("/v9.2/").nth(1).expect("link")).await;
    assert_eq!(rest["value"].as_array().map(Vec::len), Some(1));
    assert_eq!(rest["value"][0]["lastname"], "Bob");
    let reference = system.json(&format!("accounts({one})?$select=name&$expand=primarycontactid/$ref")).await;
    assert!(
        reference["primarycontactid"]["@odata.id"].as_str().expect("link").ends_with(&format!("contacts({})", id(51)))
    );
    for (expand, says) in [
        ("contact_customer_accounts/$ref", "Expand with $ref is only supported on lookup type navigation property."),
        ("primarycontactid($top=1)", "Only $select and $filter clause can be provided"),
        ("contact_customer_accounts($expand=parentcustomerid_account;$top=1)", "Only $select and $filter clause"),
        ("contact_customer_accounts($skip=1)", "$skip"),
        ("nosuch", "Could not find a property named 'nosuch' on type 'Microsoft.Dynamics.CRM.account'."),
    ] {
        let reply = system.get(&format!("accounts?$expand={expand}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "0x80060888"), "{expand}");
        assert!(reply.text.contains(says), "{expand}: {}", reply.text);
    }
}

#[tokio::test]
async fn annotations_say_what_people_read() {
    let system = started().await;
    let one = format!("accounts({})", id(1));
    let all = system.send("GET", &one, "Prefer: odata.include-annotations=\"*\"", "").await;
    assert_eq!(all.header("preference-applied"), "odata.include-annotations=\"*\"");
    let row = all.json();
    for (name, wanted) in [
        ("creditlimit", "$1,000.50"),
        ("numberofemployees", "10"),
        ("customertypecode", "Customer"),
        ("creditonhold", "Yes"),
        ("statecode", "Active"),
        ("since", "2/29/2024"),
        ("_primarycontactid_value", "Ann"),
        ("_msdyn_company_value", "usmf"),
    ] {
        assert_eq!(row[format!("{name}@OData.Community.Display.V1.FormattedValue")], wanted, "{name}");
    }
    assert_eq!(row["_msdyn_company_value@Microsoft.Dynamics.CRM.associatednavigationproperty"], "msdyn_Company");
    let some = "Prefer: odata.include-annotations=\"Microsoft.Dynamics.CRM.*\"";
    let row = system.send("GET", &format!("{one}?$select=creditlimit,_primarycontactid_value"), some, "").await.json();
    assert!(row.get("creditlimit@OData.Community.Display.V1.FormattedValue").is_none());
    assert_eq!(row["_primarycontactid_value@Microsoft.Dynamics.CRM.lookuplogicalname"], "contact");
    assert!(row.as_object().expect("row").contains_key("_transactioncurrencyid_value"));
    let counted = system.send("GET", "accounts?$count=true&$top=1", some, "").await.json();
    assert_eq!(
        (&counted["@odata.count"], &counted["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"]),
        (&json!(4), &json!(false))
    );
    assert_eq!(system.send("GET", "accounts", some, "").await.json()["@Microsoft.Dynamics.CRM.totalrecordcount"], -1);
    let moment = system
        .send("GET", &format!("accounts({})/lastseen", id(2)), "Prefer: odata.include-annotations=\"*\"", "")
        .await;
    assert_eq!(moment.json()["value@OData.Community.Display.V1.FormattedValue"], "1/2/2024 3:04 AM");
}

#[tokio::test]
async fn rows_are_aggregated() {
    let system = started().await;
    for (apply, wanted) in [
        ("groupby((customertypecode))", json!([{}, {"customertypecode": 1}, {"customertypecode": 3}])),
        (
            "groupby((customertypecode),aggregate($count as count))",
            json!([{"count": 1}, {"customertypecode": 1, "count": 1}, {"customertypecode": 3, "count": 2}]),
        ),
        ("aggregate(creditlimit with sum as total)", json!([{"total": 1020.5}])),
        (
            "aggregate(creditlimit with average as a,numberofemployees with min as b,name with max as c)",
            json!([{"a": 510.25, "b": 10, "c": "O'Brian"}]),
        ),
        ("aggregate(numberofemployees with countdistinct as n)", json!([{"n": 2}])),
        (
            "filter(customertypecode eq 3)/groupby((primarycontactid/lastname))",
            json!([{"contact_lastname": "Ann"}, {}]),
        ),
        ("filter(name eq 'nobody')/aggregate($count as count)", json!([{"count": 0}])),
        ("groupby((since))", Value::Null),
        ("concat(aggregate($count as c))", Value::Null),
        ("aggregate(name with sum as total)", Value::Null),
        ("aggregate(nosuch with sum as total)", Value::Null),
    ] {
        let reply = system.get(&format!("accounts?$apply={apply}")).await;
        match wanted {
            Value::Null => assert_eq!((reply.status, reply.code().as_str()), (400, "0x80060888"), "{apply}"),
            wanted => {
                let mut found = reply.json()["value"].as_array().cloned().unwrap_or_default();
                let mut wanted = wanted.as_array().cloned().unwrap_or_default();
                found.sort_by_key(Value::to_string);
                wanted.sort_by_key(Value::to_string);
                assert_eq!(found, wanted, "{apply}: {}", reply.text);
            }
        }
    }
    let labelled = "Prefer: odata.include-annotations=\"OData.Community.Display.V1.FormattedValue\"";
    let total =
        system.send("GET", "accounts?$apply=aggregate(creditlimit with sum as total)", labelled, "").await.json();
    assert_eq!(total["value"][0]["total@OData.Community.Display.V1.FormattedValue"], "$1,020.50");
}

fn fetch(body: &str) -> String {
    let text = body.replace('%', "%25").replace('&', "%26").replace('#', "%23").replace('+', "%2B");
    format!("?fetchXml={text}")
}

#[tokio::test]
async fn fetch_xml_is_understood() {
    let system = started().await;
    let condition = |inner: &str| {
        format!("<fetch><entity name='account'><attribute name='accountid'/><filter>{inner}</filter></entity></fetch>")
    };
    let link = "<link-entity name='contact' from='parentcustomerid' to='accountid' alias='c'";
    for (xml, wanted) in [
        (condition("<condition attribute='name' operator='eq' value='alpine'/>"), "1"),
        (condition("<condition attribute='name' operator='like' value='%l%'/>"), "1 2"),
        (condition("<condition attribute='description' operator='not-like' value='%x%'/>"), "1 2 3 4"),
        (condition("<condition attribute='creditlimit' operator='null'/>"), "3 4"),
        (condition("<condition attribute='numberofemployees' operator='between'><value>5</value><value>20</value></condition>"), "1"),
        (condition("<condition attribute='numberofemployees' operator='in'><value>10</value><value>200</value></condition>"), "1 2 3"),
        (condition("<condition attribute='creditonhold' operator='eq' value='1'/>"), "1"),
        (condition("<condition attribute='createdon' operator='last-x-hours' value='1'/>"), "1 2 3 4"),
        (condition("<condition attribute='since' operator='on-or-after' value='2024-02-29'/>"), "1"),
        (condition("<condition attribute='primarycontactid' operator='eq' value='{00000000-0000-0000-0000-000000000052}'/>"), "2"),
        (condition("<filter type='or'><condition attribute='name' operator='eq' value='coho'/><condition attribute='name' operator='begins-with' value='O'/></filter>"), "3 4"),
        (condition("<condition attribute='accountnumber' operator='eq' valueof='name'/>"), ""),
        (condition(&format!("{link} link-type='any'><filter><condition attribute='lastname' operator='eq' value='Cid'/></filter></link-entity>")), "2"),
        (condition(&format!("{link} link-type='not any'/>")), "3 4"),
        (condition("<condition attribute='nosuch' operator='null'/>"), "0x80041103"),
        (condition("<condition attribute='name' operator='nosuch'/>"), "0x80041100"),
        (condition("<condition attribute='customertypecode' operator='eq' value='Customer'/>"), "0x80041100"),
        ("<fetch><entity name='nosuch'/></fetch>".to_owned(), "0x80041102"),
        ("<fetch><entity name='account'><foo/></entity></fetch>".to_owned(), "0x8004111c"),
        ("<fetch><entity name='account'>".to_owned(), "0x80041100"),
        ("<fetch top='1' page='2'><entity name='account'/></fetch>".to_owned(), "0x80041100"),
        ("<fetch top='2'><entity name='account'><attribute name='accountid'/><order attribute='name' descending='true'/></entity></fetch>".to_owned(), "3 4"),
        ("<fetch count='3' page='2'><entity name='account'><attribute name='accountid'/></entity></fetch>".to_owned(), "4"),
        (format!("<fetch><entity name='account'><attribute name='accountid'/>{}</entity></fetch>", format!("{link}/>").replace("alias='c'", "") .repeat(16)), "0x8004430d"),
        (format!("<fetch><entity name='account'><attribute name='accountid'/><filter><condition entityname='c' attribute='contactid' operator='null'/></filter>{link} link-type='outer'/></entity></fetch>"), "3 4"),
    ] {
        let reply = system.get(&format!("accounts{}", fetch(&xml))).await;
        let found = if reply.status == 200 { shown(&reply, "accountid") } else { reply.code() };
        assert_eq!(found, wanted, "{xml}: {}", reply.text);
    }
}

#[tokio::test]
async fn fetch_xml_joins_pages_and_aggregates() {
    let system = started().await;
    let labelled = "Prefer: odata.include-annotations=\"*\"";
    let joined = "<fetch><entity name='account'><attribute name='name' alias='title'/><order attribute='name'/>\
                  <link-entity name='contact' from='parentcustomerid' to='accountid' alias='c'>\
                  <attribute name='lastname'/><attribute name='parentcustomerid'/></link-entity></entity></fetch>";
    let rows = system.send("GET", &format!("accounts{}", fetch(joined)), labelled, "").await.json();
    let names = rows["value"].as_array().expect("rows").iter();
    let names = names.map(|row| format!("{} {}", row["title"], row["c.lastname"])).collect::<Vec<_>>();
    assert_eq!(names, ["\"Alpine\" \"Ann\"", "\"Alpine\" \"Bob\"", "\"Blue Yond\" \"Cid\""]);
    assert_eq!(rows["value"][0]["c_x002e_parentcustomerid@OData.Community.Display.V1.FormattedValue"], "Alpine");

    let page = |page: u32, cookie: &str| {
        format!(
            "<fetch count='2' page='{page}' paging-cookie='{cookie}' returntotalrecordcount='true'><entity name='account'>\
             <attribute name='name'/><order attribute='name'/></entity></fetch>"
        )
    };
    let first = system.send("GET", &format!("accounts{}", fetch(&page(1, ""))), labelled, "").await.json();
    assert_eq!((&first["@odata.count"], &first["@Microsoft.Dynamics.CRM.morerecords"]), (&json!(4), &json!(true)));
    let cookie = first["@Microsoft.Dynamics.CRM.fetchxmlpagingcookie"].as_str().expect("cookie");
    let inner = cookie.split("pagingcookie=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("cookie");
    let inner = dualwright_odata::escape::decode(inner).expect("text").into_owned();
    let inner = dualwright_odata::escape::decode(&inner).expect("text").into_owned();
    assert!(
        inner.starts_with("<cookie page=\"1\"><name last=\"Blue Yond\" first=\"Alpine\" /><accountid last=\"{"),
        "{inner}"
    );
    system.create("accounts", r#"{"name":"Aaaa"}"#).await;
    let escaped = inner.replace('<', "&lt;").replace('>', "&gt;");
    let second = system.send("GET", &format!("accounts{}", fetch(&page(2, &escaped))), labelled, "").await.json();
    assert_eq!(second["value"][0]["name"], "coho");
    assert_eq!(second["value"][1]["name"], "O'Brian");
    assert_eq!(second["@Microsoft.Dynamics.CRM.morerecords"], false);

    let aggregate = "<fetch aggregate='true'><entity name='account'>\
                     <attribute name='numberofemployees' alias='Average' aggregate='avg'/>\
                     <attribute name='numberofemployees' alias='Count' aggregate='count'/>\
                     <attribute name='numberofemployees' alias='Filled' aggregate='countcolumn'/>\
                     <attribute name='numberofemployees' alias='Distinct' aggregate='countcolumn' distinct='true'/>\
                     <attribute name='numberofemployees' alias='Sum' aggregate='sum'/></entity></fetch>";
    let row = system.json(&format!("accounts{}", fetch(aggregate))).await["value"][0].clone();
    assert_eq!(row, json!({"Average": 136.6666666667, "Count": 5, "Filled": 3, "Distinct": 2, "Sum": 410}));
    let grouped = "<fetch aggregate='true'><entity name='account'><attribute name='accountid' alias='n' aggregate='count'/>\
                   <attribute name='lastseen' alias='year' groupby='true' dategrouping='year'/>\
                   <order alias='year' descending='true'/></entity></fetch>";
    let rows = system.json(&format!("accounts{}", fetch(grouped))).await;
    assert_eq!(rows["value"], json!([{"year": 2024, "n": 1}, {"n": 4}]));
    let limited = aggregate.replace("aggregate='true'>", "aggregate='true' aggregatelimit='2'>");
    let refused = system.get(&format!("accounts{}", fetch(&limited))).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "0x8004e023"));
    let distinct =
        "<fetch distinct='true'><entity name='account'><attribute name='numberofemployees'/></entity></fetch>";
    let rows = system.json(&format!("accounts{}", fetch(distinct))).await;
    assert_eq!(rows["value"].as_array().map(Vec::len), Some(3));
}
