//! The F&O dialect over HTTP: keys, companies, empty values, queries, the change feed, metadata.

mod common;

use common::{System, operation, shown};
use dualwright_emulator::Dialect;
use dualwright_odata::batch::Item;

async fn started() -> System {
    let system = System::start(Dialect::Finops).await;
    for (company, group) in [("dat", "10"), ("usmf", "10"), ("usmf", "20")] {
        let body =
            format!(r#"{{"dataAreaId":"{company}","CustomerGroupId":"{group}","Description":"{company} {group}"}}"#);
        system.create("CustomerGroups", &body).await;
    }
    system
}

#[tokio::test]
async fn rows_are_found_by_their_whole_key_in_their_company() {
    let system = started().await;
    for (path, status) in [
        ("CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')?cross-company=true", 200),
        ("CustomerGroups(CustomerGroupId='10',dataAreaId='USMF')?cross-company=true", 200),
        ("CustomerGroups(CustomerGroupId='10 ',dataAreaId='usmf')?Cross-Company=TRUE", 200),
        ("CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')", 404),
        ("CustomerGroups(dataAreaId='dat',CustomerGroupId='10')", 200),
        ("CustomerGroups(dataAreaId='usmf',CustomerGroupId='30')?cross-company=true", 404),
        (
            "CustomerGroups(dataAreaId='usmf',CustomerGroupId='a text that is longer than the field')?cross-company=true",
            404,
        ),
        ("CustomerGroups(CustomerGroupId='10')?cross-company=true", 400),
        ("CustomerGroups(dataAreaId='usmf',NoSuch='10')?cross-company=true", 400),
        ("CustomerGroups('10')?cross-company=true", 400),
        ("Currencies('EUR')", 404),
        ("customergroups", 404),
        ("NoSuch", 404),
        ("/nosuch", 404),
        ("CustomerGroups(dataAreaId='dat',CustomerGroupId='10')/Description", 200),
        ("CustomerGroups(dataAreaId='dat',CustomerGroupId='10')/NoSuch", 404),
    ] {
        let reply = system.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
        if status >= 400 {
            assert!(reply.json()["error"]["innererror"]["message"].is_string(), "{path}: {}", reply.text);
        }
    }
    let row = system.json("CustomerGroups(dataAreaId='usmf',CustomerGroupId='20')?cross-company=true").await;
    // There are no nulls.
    for (name, wanted) in [
        ("dataAreaId", "\"usmf\""),
        ("Description", "\"usmf 20\""),
        ("IsPriceWithTax", "\"No\""),
        ("Rate", "0"),
        ("Days", "0"),
        ("Since", "\"1900-01-01T00:00:00Z\""),
    ] {
        assert_eq!(row[name].to_string(), wanted, "{name}");
    }
}

#[tokio::test]
async fn writes_are_checked_and_keep_to_their_company() {
    let system = started().await;
    let key = "CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')?cross-company=true";
    let etag = system.json(key).await["@odata.etag"].as_str().expect("etag").to_owned();
    let current = format!("If-Match: {etag}");
    let group = |rest: &str| format!(r#"{{"dataAreaId":"USMF","CustomerGroupId":"N"{rest}}}"#);
    for (method, path, headers, body, status, says) in [
        ("POST", "CustomerGroups", "", group(""), 201, "\"dataAreaId\":\"usmf\""),
        (
            "POST",
            "CustomerGroups",
            "",
            group(""),
            400,
            "Cannot create a record in Customer groups (CustomerGroup). CustomerGroupId: N.\\nThe record already exists..",
        ),
        ("POST", "CustomerGroups", "", r#"{"CustomerGroupId":"D"}"#.to_owned(), 201, "\"dataAreaId\":\"dat\""),
        ("POST", "CustomerGroups", "Prefer: return=minimal", r#"{"CustomerGroupId":"E"}"#.to_owned(), 204, ""),
        (
            "POST",
            "CustomerGroups",
            "",
            r#"{"Description":"x"}"#.to_owned(),
            400,
            "Infolog: Warning: Field 'CustomerGroupId' must be filled in.; Warning: validateWrite failed on data source",
        ),
        (
            "POST",
            "CustomerGroups",
            "",
            r#"{"CustomerGroupId":"01234567890"}"#.to_owned(),
            400,
            "longer than 10 characters.; Warning: validateField failed on field 'CustCustomerGroupEntity.CustomerGroupId'.",
        ),
        (
            "POST",
            "CustomerGroups",
            "",
            r#"{"CustomerGroupId":"X","IsPriceWithTax":"Maybe"}"#.to_owned(),
            400,
            "'Maybe'",
        ),
        (
            "POST",
            "CustomerGroups",
            "",
            r#"{"CustomerGroupId":"X","IsPriceWithTax":1}"#.to_owned(),
            400,
            "IsPriceWithTax",
        ),
        (
            "POST",
            "CustomerGroups",
            "",
            r#"{"CustomerGroupId":"X","description":"x"}"#.to_owned(),
            400,
            "'description' does not exist",
        ),
        ("POST", "CustomerGroups", "", r#"{"CustomerGroupId":"X","Days":"five"}"#.to_owned(), 400, "Days"),
        ("POST", "CustomerGroups", "", "{".to_owned(), 400, "request is invalid"),
        ("PATCH", key, "If-Match: W/\"1\"", r#"{"Days":1}"#.to_owned(), 412, "update conflict"),
        ("PATCH", key, &current, r#"{"Days":1,"Rate":0.1,"IsPriceWithTax":"yes"}"#.to_owned(), 204, ""),
        ("PATCH", key, &current, r#"{"Days":2}"#.to_owned(), 412, "update conflict"),
        (
            "PATCH",
            key,
            "If-Match: *\nPrefer: return=representation",
            r#"{"Description":null}"#.to_owned(),
            200,
            "\"Description\":\"\"",
        ),
        ("PATCH", key, "", r#"{"CustomerGroupId":"11"}"#.to_owned(), 400, "Field 'CustomerGroupId' cannot be edited."),
        ("PATCH", key, "", r#"{"CustomerGroupId":"10","Days":7}"#.to_owned(), 204, ""),
        (
            "PATCH",
            "CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')",
            "",
            r#"{"Days":3}"#.to_owned(),
            404,
            "No HTTP resource",
        ),
        (
            "PATCH",
            "CustomerGroups(dataAreaId='usmf',CustomerGroupId='99')?cross-company=true",
            "",
            "{}".to_owned(),
            404,
            "No HTTP resource",
        ),
        ("DELETE", key, "If-Match: W/\"1\"", String::new(), 412, "update conflict"),
        ("DELETE", "CustomerGroups(dataAreaId='usmf',CustomerGroupId='20')", "", String::new(), 404, ""),
        (
            "DELETE",
            "CustomerGroups(dataAreaId='usmf',CustomerGroupId='20')?cross-company=true",
            "",
            String::new(),
            204,
            "",
        ),
        (
            "POST",
            "CustomersV3",
            "",
            r#"{"dataAreaId":"usmf","CustomerAccount":"1","CustomerGroupId":"20"}"#.to_owned(),
            400,
            "Infolog: Warning: The value '20' in field 'CustomerGroupId' is not found in the related table 'Customer groups'.; \
             Warning: validateField failed on field 'CustCustomerV3Entity.CustomerGroupId'.",
        ),
        (
            "POST",
            "CustomersV3",
            "",
            r#"{"dataAreaId":"usmf","CustomerAccount":"1","CustomerGroupId":"10"}"#.to_owned(),
            201,
            "",
        ),
        ("POST", "CustomersV3", "", r#"{"dataAreaId":"usmf","CustomerAccount":"2"}"#.to_owned(), 201, ""),
        ("POST", "DualwrightChanges", "", "{}".to_owned(), 405, ""),
    ] {
        let reply = system.send(method, path, headers, &body).await;
        assert_eq!(reply.status, status, "{method} {path} {headers} {body}: {}", reply.text);
        assert!(reply.text.contains(says), "{method} {path} {body}: {}", reply.text);
    }
    let row = system.json(key).await;
    assert_eq!(row["Days"], 7);
    assert_eq!(row["Rate"].to_string(), "0.1");
    assert_eq!(row["IsPriceWithTax"], "Yes");
    let put = system.send("PUT", key, "", r#"{"Days":8}"#).await;
    assert_eq!(put.status, 204);
    let row = system.json(key).await;
    assert_eq!((row["Days"].to_string(), row["Rate"].to_string()), ("8".to_owned(), "0".to_owned()));
}

#[tokio::test]
async fn queries_filter_order_and_page() {
    let system = started().await;
    for number in 1..=7 {
        let body = format!(
            r#"{{"dataAreaId":"usmf","CustomerGroupId":"G{number}","Description":"US-{}","IsPriceWithTax":"{}","Days":{}}}"#,
            8 - number,
            if number % 2 == 0 { "Yes" } else { "No" },
            number * 10
        );
        system.create("CustomerGroups", &body).await;
    }
    let all = "cross-company=true";
    for (query, wanted) in [
        ("", "10"),
        ("$filter=dataAreaId eq 'usmf'", ""),
        (&format!("{all}&$filter=dataAreaId eq 'USMF' and Days lt 30"), "10 20 G1 G2"),
        (&format!("{all}&$filter=IsPriceWithTax eq Microsoft.Dynamics.DataEntities.NoYes'Yes'"), "G2 G4 G6"),
        (&format!("{all}&$filter=IsPriceWithTax ne Microsoft.Dynamics.DataEntities.NoYes'No' and Days gt 20"), "G4 G6"),
        (&format!("{all}&$filter=Description eq 'us-*' and Days ge 60"), "G6 G7"),
        (&format!("{all}&$filter=Description eq '*7'"), "G1"),
        (&format!("{all}&$filter=dataAreaId eq 'usmf' and CustomerGroupId eq 'g3'"), "G3"),
        (&format!("{all}&$filter=Since le 1900-01-01T00:00:00Z&$top=1&$skip=2"), "20"),
        (&format!("{all}&$orderby=Description desc&$top=2"), "20 10"),
        (&format!("{all}&$filter=Description eq 'US-*'&$orderby=Description"), "G7 G6 G5 G4 G3 G2 G1"),
    ] {
        let reply = system.get(&format!("CustomerGroups?{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text);
        assert_eq!(reply.column("CustomerGroupId").join(" "), wanted, "{query}");
    }
    assert_eq!(system.json(&format!("CustomerGroups?{all}&$count=true&$top=0")).await["@odata.count"], 10);
    assert_eq!(system.get("CustomerGroups/$count").await.text, "1");
    for query in ["$filter=days gt 1", "$filter=Days gt", "$select=days", "$orderby=x", "$top=-1", "$skiptoken=1"] {
        assert_eq!(system.get(&format!("CustomerGroups?{query}")).await.status, 400, "{query}");
    }
    let mut pages = Vec::new();
    let mut link = format!("CustomerGroups?{all}&$select=CustomerGroupId&$skip=1&$top=8");
    loop {
        let reply = system.send("GET", &link, "Prefer: odata.maxpagesize=3", "").await;
        pages.push(reply.column("CustomerGroupId").join(" "));
        match reply.json()["@odata.nextLink"].as_str() {
            Some(next) => link = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages.join("|"), "10 20 G1|G2 G3 G4|G5 G6");
}

#[tokio::test]
async fn the_feed_tells_transactions_with_images_and_origin() {
    let system = started().await;
    let seed = serde_json::json!({"CurrencyCode": "EUR", "Name": "Euro"});
    system.emulator.seed("Currencies", vec![seed.as_object().expect("object").clone()]).expect("seeds");
    let feed = |after: i64, top: usize| {
        format!(
            "DualwrightChanges?cross-company=true&$filter=ControlNumber%20gt%20{after}&$orderby=ControlNumber&$top={top}"
        )
    };
    let newest = "DualwrightChanges?cross-company=true&$orderby=ControlNumber%20desc&$top=1";
    let head = system.json(newest).await["value"][0]["ControlNumber"].as_i64().expect("number");
    let key = "CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')?cross-company=true";
    let set = vec![
        operation("1", "PATCH", &format!("/data/{key}"), "", r#"{"Days":5}"#),
        operation("2", "POST", "/data/DualwrightReceipts", "", r#"{"TransactionId":"0197-t","Tenant":"default"}"#),
        operation(
            "3",
            "DELETE",
            "/data/CustomerGroups(dataAreaId='usmf',CustomerGroupId='20')?cross-company=true",
            "",
            "",
        ),
        operation("4", "POST", "/data/Currencies", "", r#"{"CurrencyCode":"USD"}"#),
    ];
    let (_, answers) = system.batch(&[Item::ChangeSet(set)], "").await;
    assert_eq!(shown(&answers), "[204 201 204 201]");
    system.send("PATCH", "Currencies('EUR')", "", r#"{"Name":"euro"}"#).await;

    let entries = system.json(&feed(head, 100)).await["value"].as_array().expect("entries").clone();
    let text = |entry: &serde_json::Value, name: &str| entry[name].as_str().expect("text").to_owned();
    let lines = entries
        .iter()
        .map(|entry| {
            format!(
                "{} {} {} {}",
                text(entry, "Operation"),
                text(entry, "Collection"),
                entry["TransactionSize"],
                text(entry, "Origin")
            )
        })
        .collect::<Vec<_>>();
    assert_eq!(
        lines,
        [
            "Update CustomerGroups 3 0197-t",
            "Delete CustomerGroups 3 0197-t",
            "Insert Currencies 3 0197-t",
            "Update Currencies 1 "
        ]
    );
    assert!(entries[..3].windows(2).all(|pair| pair[0]["TransactionId"] == pair[1]["TransactionId"]));
    assert_ne!(entries[2]["TransactionId"], entries[3]["TransactionId"]);
    let image = |entry: usize, name: &str| -> serde_json::Value {
        serde_json::from_str(&text(&entries[entry], name)).unwrap_or_default()
    };
    assert_eq!(image(0, "Row")["Days"], 5);
    assert_eq!(image(0, "Row"), {
        let mut row = system.json(key).await;
        row.as_object_mut().expect("row").remove("@odata.context");
        row
    });
    assert_eq!(image(0, "Before")["Days"], 0);
    assert_eq!(image(1, "Row")["CustomerGroupId"], "20");
    assert_eq!(text(&entries[1], "Before"), "");
    assert_eq!(text(&entries[2], "Before"), "");
    assert_eq!(image(3, "Before")["Name"], "Euro");

    let numbers = entries.iter().map(|entry| entry["ControlNumber"].as_i64().expect("number")).collect::<Vec<_>>();
    assert!(head < numbers[0] && numbers.windows(2).all(|pair| pair[0] < pair[1]));
    for (after, top, wanted) in [(numbers[0], 2, &numbers[1..3]), (numbers[3], 2, &[]), (numbers[2], 5, &numbers[3..])]
    {
        let page = system.json(&feed(after, top)).await;
        let found = page["value"].as_array().expect("page").iter().filter_map(|entry| entry["ControlNumber"].as_i64());
        assert_eq!(found.collect::<Vec<_>>(), wanted, "{after} {top}");
    }
    assert_eq!(system.json(newest).await["value"][0]["ControlNumber"].as_i64(), numbers.last().copied());
}

#[tokio::test]
async fn entities_describe_themselves() {
    let system = started().await;
    let all = system.json("/metadata/DataEntities").await;
    let groups =
        all["value"].as_array().expect("list").iter().find(|one| one["PublicCollectionName"] == "CustomerGroups");
    let groups = groups.expect("customer groups");
    assert_eq!(groups["Name"], "CustCustomerGroupEntity");
    assert_eq!(groups["PublicEntityName"], "CustomerGroup");
    assert_eq!(groups["LabelId"], "Customer groups");
    let entity = system.json("/metadata/PublicEntities('CustomerGroup')").await;
    assert_eq!(entity["EntitySetName"], "CustomerGroups");
    let property = |name: &str| {
        let all = entity["Properties"].as_array().expect("list");
        all.iter().find(|one| one["Name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    for (name, type_name, key, mandatory) in [
        ("dataAreaId", "Edm.String", true, false),
        ("CustomerGroupId", "Edm.String", true, true),
        ("IsPriceWithTax", "Microsoft.Dynamics.DataEntities.NoYes", false, false),
        ("Rate", "Edm.Decimal", false, false),
        ("Days", "Edm.Int32", false, false),
        ("Since", "Edm.DateTimeOffset", false, false),
    ] {
        let one = property(name);
        assert_eq!(
            (&one["TypeName"], &one["IsKey"], &one["IsMandatory"]),
            (&type_name.into(), &key.into(), &mandatory.into()),
            "{name}"
        );
    }
    assert_eq!(property("CustomerGroupId")["MaxLength"], 10);
    assert_eq!(system.json("/metadata/PublicEnumerations('NoYes')").await["Members"][1]["Name"], "Yes");
    for (path, status) in [
        ("/metadata/PublicEntities", 200),
        ("/metadata/PublicEnumerations", 200),
        ("/metadata/Labels(Id='Customer groups',Language='en-us')", 200),
        ("/metadata/PublicEntities('NoSuch')", 404),
        ("/metadata/PublicEnumerations('NoSuch')", 404),
        ("/metadata/NoSuch", 404),
        ("$metadata", 200),
        ("", 200),
        ("/", 200),
    ] {
        assert_eq!(system.get(path).await.status, status, "{path}");
    }
}
