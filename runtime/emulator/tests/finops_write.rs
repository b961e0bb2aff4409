//! What F&O checks and answers when rows are written: a line per case. The order of the checks is documented at
//! <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/odata#validate-methods>.

mod common;

#[path = "common/sales.rs"]
mod sales;

use common::{System, operation, shown};
use dualwright_emulator::Emulator;
use dualwright_odata::batch::Item;
use serde_json::json;

const GROUP: &str = "CustCustomerGroupEntity";

fn customer(rest: &str) -> String {
    format!(r#"{{"dataAreaId":"usmf","CustomerAccount":"X","CustomerGroupId":"10"{rest}}}"#)
}

fn customer_failed(infolog: &str) -> String {
    format!("Write failed for table row of type 'CustCustomerV3Entity'. Infolog: {infolog}.")
}

#[tokio::test]
async fn rows_that_are_refused_say_everything_that_is_wrong() {
    let system = sales::started().await;
    let field = |name: &str| format!("Warning: validateField failed on field 'CustCustomerV3Entity.{name}'");
    let unknown_group =
        "Warning: The value 'zz' in field 'Customer group' is not found in the related table 'Customer groups'.";
    for (body, says) in [
        // validateField: all of them are told, and nothing further is looked at.
        (
            r#"{"dataAreaId":"usmf","CustomerGroupId":"zz","SalesCurrencyCode":"XXX"}"#.to_owned(),
            customer_failed(&format!(
                "{unknown_group}; {}; Warning: The value 'XXX' in field 'Currency' is not found in the related table \
                 'Currencies'.; {}",
                field("CustomerGroupId"),
                field("SalesCurrencyCode")
            )),
        ),
        (
            customer(r#","OrganizationName":"more than twenty characters","CreditLimit":-1"#),
            customer_failed(&format!(
                "Warning: The value of field 'OrganizationName' is longer than 20 characters.; {}; Warning: The value of \
                 field 'CreditLimit' has to lie between 0 and unbounded.; {}",
                field("OrganizationName"),
                field("CreditLimit")
            )),
        ),
        // A group of another company is no group here.
        (r#"{"dataAreaId":"ussi","CustomerAccount":"X","CustomerGroupId":"20"}"#.to_owned(),
            customer_failed(&format!("Warning: The value '20' in field 'Customer group' is not found in the related table 'Customer groups'.; {}", field("CustomerGroupId")))),
        // validateWrite: mandatory fields, when every given field is fine.
        (
            r#"{"dataAreaId":"usmf","CustomerAccount":"X","CustomerGroupId":""}"#.to_owned(),
            customer_failed("Warning: Field 'Customer group' must be filled in.; Warning: validateWrite failed on data source 'CustomerV3 (CustomerV3)'"),
        ),
        // What is not of the type at all is no row to begin with.
        (customer(r#","NoSuch":1"#), "The property 'NoSuch' does not exist on type 'Microsoft.Dynamics.DataEntities.CustomerV3'. Make sure to only use property names that are defined by the type.".to_owned()),
        (customer(r#","CreditRating":"5""#), "CreditRating : Cannot convert the literal '\"5\"' to the expected type 'Edm.Int32'.".to_owned()),
        (customer(r#","CreditRating":2147483648"#), "CreditRating : Cannot convert the literal '2147483648' to the expected type 'Edm.Int32'.".to_owned()),
        (customer(r#","CreditRating":1.5"#), "CreditRating : Cannot convert the literal '1.5' to the expected type 'Edm.Int32'.".to_owned()),
        (customer(r#","PartyRecordId":9223372036854775808"#), "PartyRecordId : Cannot convert the literal '9223372036854775808' to the expected type 'Edm.Int64'.".to_owned()),
        (customer(r#","PartyType":"Maybe""#), "PartyType : The value 'Maybe' is not a member of the enumeration 'Microsoft.Dynamics.DataEntities.DirPartyType'.".to_owned()),
        (customer(r#","PartyType":1"#), "PartyType : Cannot convert the literal '1' to the expected type 'Microsoft.Dynamics.DataEntities.DirPartyType'.".to_owned()),
        (customer(r#","LastOrderAt":"yesterday""#), "LastOrderAt : Cannot convert the literal '\"yesterday\"' to the expected type 'Edm.DateTimeOffset'.".to_owned()),
        (customer(r#","RowId":"x""#), "RowId : Cannot convert the literal '\"x\"' to the expected type 'Edm.Guid'.".to_owned()),
        ("[]".to_owned(), String::new()),
        ("{".to_owned(), String::new()),
    ] {
        let reply = system.send("POST", "CustomersV3", "", &body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        let json = reply.json();
        assert_eq!(json["error"]["code"], "");
        assert!(json["error"]["innererror"]["type"].is_string() && json["error"]["innererror"]["stacktrace"].is_string());
        if !says.is_empty() {
            assert_eq!(sales::said(&reply.text), says, "{body}");
        }
    }
    assert_eq!(system.count("CustomersV3").await, 0);
}

#[tokio::test]
async fn what_is_kept_of_a_row() {
    let system = sales::started().await;
    let row = system
        .create(
            "CustomersV3",
            r##"{"@odata.type":"#Microsoft.Dynamics.DataEntities.CustomerV3","dataAreaId":"USMF","CustomerAccount":"X  ",
                "CustomerGroupId":"10","OrganizationName":"Name  ","CreditLimit":1.2345675,"PartyType":"organization",
                "LastOrderAt":"2024-01-02T05:04:05.9+02:00","SalesCurrencyCode":null,"Factor":1e3,"PartyRecordId":"9007199254740993",
                "RowId":"{6A8F1F3C-5B1D-4F4E-9D0A-0123456789AB}"}"##,
        )
        .await;
    for (name, wanted) in [
        ("@odata.etag", json!(row["@odata.etag"])),
        ("dataAreaId", json!("usmf")),
        ("CustomerAccount", json!("X")),
        ("OrganizationName", json!("Name")),
        ("CreditLimit", json!(1.234_568)),
        ("PartyType", json!("Organization")),
        ("LastOrderAt", json!("2024-01-02T03:04:05Z")),
        ("SalesCurrencyCode", json!("")),
        ("CreditRating", json!(0)),
        ("PartyRecordId", json!(9_007_199_254_740_993_i64)),
        ("RowId", json!("6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab")),
    ] {
        assert_eq!(row[name], wanted, "{name}");
    }
    assert_eq!(row["Factor"], 1000.0);
    // The record's version and id, in base 64; a record that was never changed has version 1.
    assert!(row["@odata.etag"].as_str().expect("etag").starts_with("W/\"JzEsNTYzNz"), "{row}");
}

#[tokio::test]
async fn answers_to_writes() {
    let system = sales::started().await;
    let made = system.send("POST", "CustomersV3", "", &customer("")).await;
    let location = format!("{}/data/CustomersV3(dataAreaId='usmf',CustomerAccount='X')", system.base);
    assert_eq!((made.status, made.header("location")), (201, location.as_str()));
    let etag = made.header("etag").to_owned();
    assert_eq!(made.json()["@odata.etag"], etag.as_str());
    let key = "CustomersV3(CustomerAccount='x',dataAreaId='USMF')?cross-company=true";
    let stale = "W/\"JzEsMSc=\"";
    let current = |etag: &str| format!("If-Match: {etag}");
    for (method, headers, body, status) in [
        ("PATCH", current(stale), r#"{"CreditRating":1}"#, 412),
        ("PATCH", current(&etag), r#"{"CreditRating":1}"#, 204),
        ("PATCH", current(&etag), r#"{"CreditRating":2}"#, 412),
        ("PATCH", current("*"), r#"{"CreditRating":3}"#, 204),
        ("PATCH", format!("If-Match: {stale}, *"), r#"{"CreditRating":3}"#, 204),
        ("PATCH", "If-None-Match: *".to_owned(), r#"{"CreditRating":4}"#, 412),
        ("PATCH", "Prefer: return=representation".to_owned(), r#"{"CreditRating":5}"#, 200),
        ("PATCH", "Prefer: return=minimal".to_owned(), "{}", 204),
        ("PUT", current(stale), r#"{"CustomerGroupId":"10"}"#, 412),
        ("PUT", String::new(), r#"{"CustomerGroupId":"10","CreditLimit":5}"#, 204),
        ("PUT", String::new(), r#"{"CreditLimit":5}"#, 400),
        ("POST", String::new(), "{}", 405),
        ("DELETE", current(stale), "", 412),
        ("DELETE", current("*"), "", 204),
        ("DELETE", String::new(), "", 404),
        ("PATCH", String::new(), "{}", 404),
        ("PATCH", "If-Match: *".to_owned(), "{}", 404),
    ] {
        let reply = system.send(method, key, &headers, body).await;
        assert_eq!(reply.status, status, "{method} {headers} {body}: {}", reply.text);
        match status {
            204 if method != "DELETE" => {
                assert_eq!(reply.header("odata-entityid"), location, "{method} {headers}");
                assert!(reply.text.is_empty() && reply.header("etag").starts_with("W/\""), "{method} {headers}");
            }
            200 => assert_eq!(
                (reply.json()["CreditRating"].as_i64(), reply.header("preference-applied")),
                (Some(5), "return=representation")
            ),
            412 => assert!(
                sales::said(&reply.text)
                    .starts_with("Cannot edit a record in Customers (CustomerV3).\nAn update conflict occurred")
            ),
            _ => {}
        }
    }
    for (method, path, status) in [
        ("DELETE", "CustomersV3", 405),
        ("PUT", "CustomersV3", 405),
        ("POST", "InventorySites", 405),
        ("POST", "NoSuch", 404),
        ("POST", "", 405),
        ("PUT", "CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')/Description", 405),
        ("POST", "CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')/NoSuch", 404),
        ("POST", "CustomerGroups(x", 400),
        ("PATCH", "CustomerGroups('10')", 400),
    ] {
        let reply = system.send(method, path, "", "{}").await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_row_keeps_its_key() {
    let system = sales::started().await;
    let key = "CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')?cross-company=true";
    for (body, status) in [
        (r#"{"CustomerGroupId":"10 ","dataAreaId":"USMF","Description":"x"}"#, 204),
        (r#"{"CustomerGroupId":"11"}"#, 400),
        (r#"{"dataAreaId":"ussi"}"#, 400),
    ] {
        let reply = system.send("PATCH", key, "", body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        if status == 400 {
            assert!(
                sales::said(&reply.text).contains(&format!("Write failed for table row of type '{GROUP}'")),
                "{}",
                reply.text
            );
        }
    }
    let taken = system.send("POST", "CustomerGroups", "", r#"{"dataAreaId":"usmf","CustomerGroupId":"10 "}"#).await;
    assert_eq!(taken.status, 400);
    assert_eq!(
        sales::said(&taken.text),
        format!(
            "Write failed for table row of type '{GROUP}'. Infolog: Info: Cannot create a record in Customer groups (CustomerGroup). Customer group: 10.\nThe record already exists.."
        )
    );
}

#[tokio::test]
async fn keys_are_drawn_from_sequences() {
    let emulator = sales::emulator();
    sales::seed(
        &emulator,
        "CustomersV3",
        vec![json!({"dataAreaId": "usmf", "CustomerAccount": "c-000002", "CustomerGroupId": "10"})],
    );
    let system = System::serve(emulator.clone()).await;
    let draw = async |system: &System, set: &str, body: &str, name: &str| -> String {
        let reply = system.send("POST", set, "", body).await;
        if reply.status == 201 {
            reply.json()[name].as_str().expect("a key").to_owned()
        } else {
            reply.status.to_string()
        }
    };
    let orders = |company: &str, account: &str| {
        format!(r#"{{"dataAreaId":"{company}","OrderingCustomerAccountNumber":"{account}"}}"#)
    };
    for (set, body, wanted) in [
        ("CustomersV3", r#"{"dataAreaId":"usmf","CustomerGroupId":"10"}"#.to_owned(), "C-000001"),
        // The next one is somebody's choice already.
        ("CustomersV3", r#"{"dataAreaId":"usmf","CustomerGroupId":"10"}"#.to_owned(), "C-000003"),
        ("CustomersV3", r#"{"dataAreaId":"ussi","CustomerGroupId":"10","CustomerAccount":""}"#.to_owned(), "C-000001"),
        ("CustomersV3", r#"{"dataAreaId":"usmf","CustomerGroupId":"10","CustomerAccount":"own"}"#.to_owned(), "own"),
        // Not continuous: the number of a row that is refused is lost.
        ("CustomersV3", r#"{"dataAreaId":"usmf"}"#.to_owned(), "400"),
        ("CustomersV3", r#"{"dataAreaId":"usmf","CustomerGroupId":"10"}"#.to_owned(), "C-000005"),
        // Continuous: it is given to the next one.
        ("SalesOrderHeadersV2", orders("usmf", "own"), "SO-0100"),
        ("SalesOrderHeadersV2", r#"{"dataAreaId":"usmf"}"#.to_owned(), "400"),
        ("SalesOrderHeadersV2", orders("usmf", "own"), "SO-0101"),
    ] {
        let name = if set == "CustomersV3" { "CustomerAccount" } else { "SalesOrderNumber" };
        assert_eq!(draw(&system, set, &body, name).await, wanted, "{set} {body}");
    }
    // A change set that is refused gives back what was continuous.
    let set = |account: &str| {
        Item::ChangeSet(vec![
            operation("1", "POST", "/data/SalesOrderHeadersV2", "", &orders("usmf", "own")),
            operation("2", "POST", "/data/SalesOrderHeadersV2", "", &orders("usmf", account)),
        ])
    };
    let (_, answers) = system.batch(&[set("nobody"), set("own")], "Prefer: odata.continue-on-error").await;
    assert_eq!(shown(&answers), "[400/2] [201 201]");
    let numbers = emulator.rows("SalesOrderHeadersV2").expect("rows");
    let numbers = numbers.iter().map(|row| row["SalesOrderNumber"].as_str().expect("text")).collect::<Vec<_>>();
    assert_eq!(numbers, ["SO-0100", "SO-0101", "SO-0102", "SO-0103"]);
}

fn with_order(emulator: &Emulator) {
    sales::seed(
        emulator,
        "CustomersV3",
        vec![
            json!({"dataAreaId": "usmf", "CustomerAccount": "C", "CustomerGroupId": "10", "SalesCurrencyCode": "EUR"}),
        ],
    );
    sales::seed(
        emulator,
        "SalesOrderHeadersV2",
        vec![json!({"dataAreaId": "usmf", "SalesOrderNumber": "S", "OrderingCustomerAccountNumber": "c"})],
    );
    let lines = (1..=3).map(|line| json!({"dataAreaId": "usmf", "InventoryLotId": line.to_string(), "SalesOrderNumber": "S", "ItemNumber": format!("D{line}"), "OrderedSalesQuantity": 10 - line}));
    sales::seed(emulator, "SalesOrderLines", lines.collect());
}

#[tokio::test]
async fn rows_that_others_depend_on_stay() {
    let emulator = sales::emulator();
    with_order(&emulator);
    let system = System::serve(emulator).await;
    for (path, status, says) in [
        (
            "CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')",
            400,
            "Delete failed for table row of type 'CustCustomerGroupEntity'. Infolog: Warning: Customer groups cannot be deleted while dependent Customers exist..",
        ),
        // The group of the same name in another company is nobody's.
        ("CustomerGroups(dataAreaId='ussi',CustomerGroupId='10')", 204, ""),
        // A shared row is held by rows of any company.
        ("Currencies('EUR')", 400, "Currencies cannot be deleted while dependent Customers exist."),
        ("Currencies('USD')", 204, ""),
        (
            "CustomersV3(dataAreaId='usmf',CustomerAccount='C')",
            400,
            "Customers cannot be deleted while dependent Sales orders exist.",
        ),
        // Lines go with their order, and then nothing holds the others.
        ("SalesOrderHeadersV2(dataAreaId='usmf',SalesOrderNumber='S')", 204, ""),
        ("CustomersV3(dataAreaId='usmf',CustomerAccount='C')", 204, ""),
        ("CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')", 204, ""),
        ("Currencies('EUR')", 204, ""),
    ] {
        let reply = system.send("DELETE", &format!("{path}?cross-company=true"), "", "").await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
        assert!(sales::said(&reply.text).contains(says), "{path}: {}", reply.text);
    }
    assert_eq!(system.count("SalesOrderLines").await, 0);
}

#[tokio::test]
async fn related_rows_are_expanded_and_navigated() {
    let emulator = sales::emulator();
    with_order(&emulator);
    let system = System::serve(emulator).await;
    let all = "cross-company=true";
    let orders = format!(
        "SalesOrderHeadersV2?{all}&$select=SalesOrderNumber&$expand=SalesOrderLines($select=InventoryLotId,ItemNumber)"
    );
    let page = system.json(&orders).await;
    assert_eq!(
        page["@odata.context"],
        format!(
            "{}/data/$metadata#SalesOrderHeadersV2(SalesOrderNumber,SalesOrderLines(InventoryLotId,ItemNumber))",
            system.base
        )
    );
    let lines = page["value"][0]["SalesOrderLines"].as_array().expect("lines");
    assert_eq!(
        lines.iter().map(|line| line["ItemNumber"].as_str().expect("text")).collect::<Vec<_>>(),
        ["D1", "D2", "D3"]
    );
    assert!(lines[0]["@odata.etag"].is_string() && lines[0].get("OrderedSalesQuantity").is_none(), "{}", lines[0]);
    let header = "SalesOrderHeadersV2(dataAreaId='usmf',SalesOrderNumber='S')";
    for (path, pointer, wanted) in [
        (
            format!(
                "{header}?{all}&$expand=SalesOrderLines($orderby=OrderedSalesQuantity;$top=1;$skip=1),OrderingCustomer($select=CustomerAccount)"
            ),
            "/SalesOrderLines/0/ItemNumber",
            "D2",
        ),
        (format!("{header}?{all}&$expand=OrderingCustomer"), "/OrderingCustomer/CustomerAccount", "C"),
        (
            format!("SalesOrderLines?{all}&$expand=SalesOrderHeader&$top=1"),
            "/value/0/SalesOrderHeader/SalesOrderNumber",
            "S",
        ),
        (format!("{header}/OrderingCustomer?{all}"), "/CustomerAccount", "C"),
        (format!("{header}/SalesOrderLines?{all}&$filter=OrderedSalesQuantity%20lt%209"), "/value/0/ItemNumber", "D2"),
        (
            format!("{header}/SalesOrderLines?{all}&$orderby=ItemNumber%20desc&$select=ItemNumber"),
            "/value/0/ItemNumber",
            "D3",
        ),
        (
            format!("CustomerGroups(dataAreaId='usmf',CustomerGroupId='10')/Customers?{all}"),
            "/value/0/CustomerAccount",
            "C",
        ),
    ] {
        let found = system.json(&path).await;
        assert_eq!(found.pointer(pointer).and_then(|value| value.as_str()), Some(wanted), "{path}: {found}");
    }
    assert_eq!(system.get(&format!("{header}/SalesOrderLines/$count?{all}")).await.text, "3");
    assert_eq!(system.json(&format!("{header}/SalesOrderLines?{all}&$count=true&$top=1")).await["@odata.count"], 3);
    assert_eq!(
        system.json(&format!("CustomersV3?{all}&$expand=SalesOrders")).await["value"][0]["SalesOrders"][0]["SalesOrderNumber"],
        "S"
    );
    // A line that moves to another order is found there.
    let moved = r#"{"SalesOrderNumber":"T"}"#;
    system
        .create(
            "SalesOrderHeadersV2",
            r#"{"dataAreaId":"usmf","SalesOrderNumber":"T","OrderingCustomerAccountNumber":"C"}"#,
        )
        .await;
    system.send("PATCH", &format!("SalesOrderLines(dataAreaId='usmf',InventoryLotId='2')?{all}"), "", moved).await;
    assert_eq!(system.get(&format!("{header}/SalesOrderLines/$count?{all}")).await.text, "2");
    assert_eq!(system.get(&format!("{}/SalesOrderLines/$count?{all}", header.replace("'S'", "'t'"))).await.text, "1");
    let nobody = system.get(&format!("CustomersV3(dataAreaId='usmf',CustomerAccount='C')/CustomerGroup?{all}")).await;
    assert_eq!(nobody.status, 200, "{}", nobody.text);
    let no_currency = system.create("CustomersV3", &customer("")).await;
    assert_eq!(no_currency["SalesCurrencyCode"], "");
    assert_eq!(
        system.get(&format!("CustomersV3(dataAreaId='usmf',CustomerAccount='X')/Currency?{all}")).await.status,
        204
    );
    assert!(system.json(&format!("CustomersV3(dataAreaId='usmf',CustomerAccount='X')?{all}&$expand=Currency")).await["Currency"].is_null());
}
