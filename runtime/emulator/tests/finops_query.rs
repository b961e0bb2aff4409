//! What F&O makes of query options: a line per case. Documented at
//! <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/odata>.

mod common;

#[path = "common/sales.rs"]
mod sales;

use common::System;
use dualwright_odata::escape::component;
use serde_json::json;

async fn with_customers() -> System {
    let emulator = sales::emulator();
    let customers = [
        ("usmf", "US-001", "Contoso Retail", "Organization", 100.5, 3, "2024-01-02T03:04:05Z", 1_i64),
        ("usmf", "US-002", "retail *Shop*", "Person", 0.0, -1, "1900-01-01T00:00:00Z", 2),
        (
            "usmf",
            "DE-001",
            "O'Neil & Söhne",
            "Organization",
            0.123_456,
            2_147_483_647,
            "2025-12-31T23:59:59Z",
            9_007_199_254_740_993,
        ),
        ("ussi", "US-001", "Contoso Retail", "None", 7.0, 0, "1900-01-01T00:00:00Z", 0),
        ("dat", "D-1", "Default", "None", 1.0, 0, "1900-01-01T00:00:00Z", 0),
    ];
    let rows = customers.map(|(company, account, name, party, limit, rating, at, record)| {
        json!({"dataAreaId": company, "CustomerAccount": account, "OrganizationName": name, "PartyType": party,
            "CreditLimit": limit, "CreditRating": rating, "LastOrderAt": at, "PartyRecordId": record,
            "CustomerGroupId": "10", "RowId": format!("00000000-0000-0000-0000-{:012}", record % 1_000)})
    });
    sales::seed(&emulator, "CustomersV3", rows.to_vec());
    System::serve(emulator).await
}

#[tokio::test]
async fn filters() {
    let system = with_customers().await;
    let party = "Microsoft.Dynamics.DataEntities.DirPartyType";
    for (filter, wanted) in [
        ("CustomerAccount eq 'us-001'", "usmf/US-001 ussi/US-001"),
        ("CustomerAccount eq 'US-001  ' and dataAreaId eq 'USMF'", "usmf/US-001"),
        ("CustomerAccount ne 'US-001'", "usmf/US-002 usmf/DE-001 dat/D-1"),
        ("CustomerAccount eq 'US*'", "usmf/US-001 usmf/US-002 ussi/US-001"),
        ("CustomerAccount eq '*001'", "usmf/US-001 usmf/DE-001 ussi/US-001"),
        ("OrganizationName eq '*retail*'", "usmf/US-001 usmf/US-002 ussi/US-001"),
        ("CustomerAccount eq 'U*1'", "usmf/US-001 ussi/US-001"),
        ("CustomerAccount ne 'US*' and dataAreaId eq 'usmf'", "usmf/DE-001"),
        ("OrganizationName eq 'O''Neil & Söhne'", "usmf/DE-001"),
        (&format!("PartyType eq {party}'Person'"), "usmf/US-002"),
        (&format!("PartyType ne {party}'None'"), "usmf/US-001 usmf/US-002 usmf/DE-001"),
        (&format!("{party}'Person' eq PartyType"), "usmf/US-002"),
        ("CreditLimit gt 0.1 and CreditLimit le 7", "usmf/DE-001 ussi/US-001 dat/D-1"),
        ("CreditLimit eq 100.50", "usmf/US-001"),
        ("CreditRating lt 0", "usmf/US-002"),
        ("CreditRating eq 2147483647", "usmf/DE-001"),
        ("PartyRecordId eq 9007199254740993", "usmf/DE-001"),
        ("LastOrderAt gt 2024-06-01T00:00:00Z", "usmf/DE-001"),
        ("LastOrderAt ge 2024-01-02T05:04:05%2B02:00", "usmf/US-001 usmf/DE-001"),
        ("LastOrderAt lt 2024-01-02", "usmf/US-002 ussi/US-001 dat/D-1"),
        ("LastOrderAt eq 1900-01-01T00:00:00Z and dataAreaId eq 'usmf'", "usmf/US-002"),
        ("RowId eq 00000000-0000-0000-0000-000000000002", "usmf/US-002"),
        ("CreditRating add 1 eq 4", "usmf/US-001"),
        ("CreditRating sub 1 mul 2 eq 1", "usmf/US-001"),
        ("CreditRating div 0 eq 0", ""),
        // There are no nulls.
        ("OrganizationName eq null", ""),
        ("OrganizationName ne null and dataAreaId eq 'dat'", "dat/D-1"),
        ("SalesCurrencyCode eq ''", "usmf/US-001 usmf/US-002 usmf/DE-001 ussi/US-001 dat/D-1"),
        ("not (CreditRating ge 0 or dataAreaId eq 'dat')", "usmf/US-002"),
        ("CreditRating eq 3 or CreditRating eq -1 and CreditLimit eq 5", "usmf/US-001"),
        ("(CreditRating eq 3 or CreditRating eq -1) and CreditLimit eq 0", "usmf/US-002"),
    ] {
        let filter = filter.replace("%2B", "+");
        let query =
            format!("CustomersV3?cross-company=true&$select=dataAreaId,CustomerAccount&$filter={}", component(&filter));
        let reply = system.get(&query).await;
        assert_eq!(reply.status, 200, "{filter}: {}", reply.text);
        let found = reply.column("dataAreaId").into_iter().zip(reply.column("CustomerAccount"));
        let found = found.map(|(company, account)| format!("{company}/{account}")).collect::<Vec<_>>();
        assert_eq!(found.join(" "), wanted, "{filter}");
    }
}

#[tokio::test]
async fn conditions_that_are_refused() {
    let system = with_customers().await;
    let invalid = "The query specified in the URI is not valid. ";
    let types = |left: &str, right: &str, operator: &str| {
        format!(
            "A binary operator with incompatible types was detected. Found operand types '{left}' and '{right}' for operator \
             kind '{operator}'."
        )
    };
    let function = |name: &str| format!("An unknown function with name '{name}' was found.");
    let party = "Microsoft.Dynamics.DataEntities.DirPartyType";
    for (filter, says) in [
        // An enumeration is compared with its own members by their full name, and only for equality.
        ("PartyType eq 'Person'".to_owned(), types(party, "Edm.String", "Equal")),
        ("PartyType eq 1".to_owned(), types(party, "Edm.Int32", "Equal")),
        (
            "PartyType eq Microsoft.Dynamics.DataEntities.NoYes'Yes'".to_owned(),
            types(party, "Microsoft.Dynamics.DataEntities.NoYes", "Equal"),
        ),
        (format!("PartyType gt {party}'None'"), types(party, party, "GreaterThan")),
        (
            format!("PartyType eq {party}'Maybe'"),
            format!("The string '{party}'Maybe'' is not a valid enumeration type constant."),
        ),
        ("PartyType eq Unknown'None'".to_owned(), "is not a valid enumeration type constant.".to_owned()),
        ("CustomerAccount eq 1".to_owned(), types("Edm.String", "Edm.Int32", "Equal")),
        ("CreditRating eq '3'".to_owned(), types("Edm.Int32", "Edm.String", "Equal")),
        ("CreditLimit lt 'x'".to_owned(), types("Edm.Decimal", "Edm.String", "LessThan")),
        ("LastOrderAt ge '2024-01-01'".to_owned(), types("Edm.DateTimeOffset", "Edm.String", "GreaterThanOrEqual")),
        ("RowId ne 'x'".to_owned(), types("Edm.Guid", "Edm.String", "NotEqual")),
        ("OrganizationName add 1 eq 2".to_owned(), types("Edm.String", "Edm.Int32", "Add")),
        ("CreditLimit mul 2 gt 'x'".to_owned(), types("Edm.Decimal", "Edm.String", "GreaterThan")),
        ("CreditRating".to_owned(), "The $filter expression must evaluate to a single boolean value.".to_owned()),
        ("CustomerAccount in ('1','2')".to_owned(), "Syntax error at position 16 in 'CustomerAccount in (".to_owned()),
        (format!("PartyType has {party}'None'"), "Syntax error at position".to_owned()),
        ("contains(OrganizationName,'x')".to_owned(), function("contains")),
        ("startswith(OrganizationName,'x')".to_owned(), function("startswith")),
        ("endswith(OrganizationName,'x') eq true".to_owned(), function("endswith")),
        (
            "customeraccount eq '1'".to_owned(),
            "Could not find a property named 'customeraccount' on type 'Microsoft.Dynamics.DataEntities.CustomerV3'."
                .to_owned(),
        ),
        ("CustomerAccount eq".to_owned(), "Syntax error at position 18".to_owned()),
        ("(CreditRating eq 1".to_owned(), "Syntax error at position".to_owned()),
    ] {
        let reply = system.get(&format!("CustomersV3?$filter={}", component(&filter))).await;
        assert_eq!(reply.status, 400, "{filter}: {}", reply.text);
        let said = sales::said(&reply.text);
        assert!(said.starts_with(&format!("{invalid}{says}")) || said.contains(&says), "{filter}\n  {said}\n  {says}");
    }
}

#[tokio::test]
async fn options_that_are_refused() {
    let system = with_customers().await;
    for (path, status, says) in [
        ("CustomersV3?$apply=groupby((dataAreaId))", 400, "The query parameter '$apply' is not supported."),
        ("CustomersV3?$search=x", 400, "The query parameter '$search' is not supported."),
        ("CustomersV3?$deltatoken=x", 400, "'$deltatoken' is not supported."),
        (
            "CustomersV3?$top=-1",
            400,
            "Invalid value '-1' for $top query option found. The $top query option requires a non-negative integer value.",
        ),
        ("CustomersV3?$skip=x", 400, "Invalid value 'x' for $skip"),
        ("CustomersV3?$top=1&$top=2", 400, "Query option '$top' was specified more than once"),
        ("CustomersV3?$count=maybe", 400, "Invalid value 'maybe' for $count"),
        ("CustomersV3?$select=customeraccount", 400, "Could not find a property named 'customeraccount'"),
        ("CustomersV3?$orderby=NoSuch", 400, "Could not find a property named 'NoSuch'"),
        ("CustomersV3?$expand=NoSuch", 400, "Could not find a property named 'NoSuch'"),
        ("SalesOrderLines?$expand=SalesOrderHeader/OrderingCustomer", 400, "The maximum depth allowed is 1."),
        ("SalesOrderLines?$expand=SalesOrderHeader($expand=OrderingCustomer)", 400, "The maximum depth allowed is 1."),
        ("SalesOrderLines?$expand=SalesOrderHeader($top=1)", 400, "is not supported inside $expand"),
        ("CustomersV3?$skiptoken=zz", 400, "$skiptoken"),
        ("CustomersV3?$format=xml", 415, "MIME type"),
        ("CustomersV3?$format=json&anything=else", 200, ""),
        ("CustomersV3/$count?$orderby=CustomerAccount", 400, "'$orderby' is not supported"),
        (
            "CustomersV3(dataAreaId='dat',CustomerAccount='D-1')?$filter=CreditRating%20eq%201",
            400,
            "'$filter' is not supported",
        ),
        ("CustomersV3/NoSuch", 404, "No HTTP resource was found that matches the request URI 'http"),
        ("CustomersV3(dataAreaId='dat',CustomerAccount='D-1')/NoSuch", 404, "No HTTP resource"),
        ("CustomersV3(dataAreaId='dat',CustomerAccount='D-1')/OrganizationName/$value", 200, "Default"),
        ("CustomersV3(dataAreaId='dat',CustomerAccount='D-1')/CreditLimit/$value", 200, "1"),
    ] {
        let reply = system.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
        assert!(reply.text.contains(says), "{path}: {}", reply.text);
    }
}

#[tokio::test]
async fn companies() {
    let system = with_customers().await;
    let put = r#"{"default":"USMF","users":{"app-1":"ussi"}}"#;
    let (one, other) = (sales::as_application("app-1"), sales::as_application("app-2"));
    let usmf = "CustomersV3(dataAreaId='usmf',CustomerAccount='us-002')";
    assert_eq!(system.get("CustomersV3/$count").await.text, "1");
    assert_eq!(system.get(usmf).await.status, 404);
    assert_eq!(system.send("PUT", "/_emulator/companies", "", put).await.status, 204);
    for (headers, path, status, wanted) in [
        ("", "CustomersV3/$count", 200, "3"),
        ("", "CustomersV3/$count?cross-company=true", 200, "5"),
        ("", "CustomersV3/$count?cross-company=false", 200, "3"),
        ("", "CustomersV3/$count?$filter=dataAreaId%20eq%20'ussi'", 200, "0"),
        ("", "CustomersV3/$count?cross-company=true&$filter=dataAreaId%20eq%20'none'", 200, "0"),
        (&one, "CustomersV3/$count", 200, "1"),
        (&other, "CustomersV3/$count", 200, "3"),
        ("", usmf, 200, "retail"),
        (&one, usmf, 404, "No HTTP resource"),
        (&one, &format!("{usmf}?cross-company=true"), 200, "retail"),
        // Shared tables know no company.
        (&one, "Currencies('eur')", 200, "EUR"),
    ] {
        let reply = system.send("GET", path, headers, "").await;
        assert_eq!(reply.status, status, "{headers} {path}: {}", reply.text);
        assert!(reply.text.contains(wanted), "{headers} {path}: {}", reply.text);
    }
    for (headers, method, path, body, status, wanted) in [
        // Rows are created in any company, and changed in another one only when the request crosses companies.
        ("", "POST", "CustomerGroups", r#"{"CustomerGroupId":"A"}"#, 201, "\"dataAreaId\":\"usmf\""),
        (&*one, "POST", "CustomerGroups", r#"{"CustomerGroupId":"A"}"#, 201, "\"dataAreaId\":\"ussi\""),
        (
            "",
            "POST",
            "CustomerGroups",
            r#"{"CustomerGroupId":"B","dataAreaId":"USSI"}"#,
            201,
            "\"dataAreaId\":\"ussi\"",
        ),
        ("", "PATCH", "CustomerGroups(dataAreaId='ussi',CustomerGroupId='B')", "{}", 404, "No HTTP resource"),
        ("", "PATCH", "CustomerGroups(dataAreaId='ussi',CustomerGroupId='B')?cross-company=true", "{}", 204, ""),
        ("", "DELETE", "CustomerGroups(dataAreaId='ussi',CustomerGroupId='B')", "", 404, "No HTTP resource"),
        (&one, "DELETE", "CustomerGroups(dataAreaId='ussi',CustomerGroupId='B')", "", 204, ""),
        (
            "",
            "POST",
            "CustomerGroups",
            r#"{"CustomerGroupId":"A","dataAreaId":"zzzz"}"#,
            400,
            "Infolog: Warning: Company zzzz does not exist.; Warning: validateField failed on field \
             'CustCustomerGroupEntity.dataAreaId'.",
        ),
    ] {
        let reply = system.send(method, path, headers, body).await;
        assert_eq!(reply.status, status, "{headers} {method} {path} {body}: {}", reply.text);
        assert!(reply.text.contains(wanted), "{headers} {method} {path} {body}: {}", reply.text);
    }
}

#[tokio::test]
async fn keys_of_every_kind() {
    let emulator = sales::emulator();
    sales::seed(
        &emulator,
        "OddKeys",
        vec![
            json!({"Kind": "Person", "Day": "2024-02-29", "At": "2024-01-02T03:04:05Z", "Number": -9_007_199_254_740_993_i64,
        "RowId": "6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab", "Rate": 1.5, "Text": "a/b'c (d),e=f&g%h ü"}),
        ],
    );
    let system = System::serve(emulator).await;
    let party = "Microsoft.Dynamics.DataEntities.DirPartyType'Person'";
    let text = component("'A/B''C (d),e=f&g%h Ü  '").into_owned();
    let key = format!(
        "Kind={party},Day=2024-02-29,At=2024-01-02T03:04:05Z,Number=-9007199254740993,RowId=6A8F1F3C-5b1d-4f4e-9d0a-0123456789ab,Rate=1.50,Text={text}"
    );
    let turned = key.split(',').rev().collect::<Vec<_>>().join(",");
    let plain = key.replace(&text, "'A/B''C (d),e=f&g%h Ü  '");
    let everything = plain.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for (key, status) in [
        (key.clone(), 200),
        (turned, 200),
        (everything, 200),
        (key.replace("2024-01-02T03:04:05Z", "2024-01-02T04:04:05%2B01:00"), 200),
        (key.replace(party, "'person'"), 200),
        (key.replace("'Person'", "'Organization'"), 404),
        (key.replace("2024-02-29", "2024-02-28"), 404),
        (key.replace("1.50", "1.51"), 404),
        (key.replace("-9007199254740993", "-9007199254740992"), 404),
        (key.replace("-9007199254740993", "null"), 404),
        (key.replace("-9007199254740993", "'x'"), 404),
        (key.replace(",Rate=1.50", ""), 400),
        (key.replace("Rate=1.50", "NoSuch=1"), 400),
        (key.replace("Rate=1.50", "Number=1"), 400),
        (key.replace("Rate=1.50", "1.50"), 400),
        ("1".to_owned(), 400),
    ] {
        let reply = system.get(&format!("OddKeys({key})")).await;
        assert_eq!(reply.status, status, "{key}: {}", reply.text);
    }
    // The address of a new row leads to it.
    let body = json!({"Kind": "None", "Day": "2024-01-01", "At": "2024-01-01T00:00:00Z", "Number": 0, "RowId": "6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab",
        "Rate": 0.1, "Text": "x/y'ü%&?#"});
    let made = system.send("POST", "OddKeys", "Prefer: return=minimal", &body.to_string()).await;
    assert_eq!((made.status, made.header("preference-applied")), (204, "return=minimal"), "{}", made.text);
    assert_eq!(made.header("location"), made.header("odata-entityid"));
    let row = system.json(made.header("location")).await;
    assert_eq!((&row["Text"], &row["Rate"].to_string()), (&body["Text"], &"0.1".to_owned()));
}

#[tokio::test]
async fn pages_do_not_shift_when_rows_are_added() {
    let emulator = sales::emulator();
    let rows = |from: usize, to: usize| {
        (from..to).map(|row| json!({"dataAreaId": "usmf", "CustomerAccount": format!("A{row:05}"), "CreditRating": row % 7, "CustomerGroupId": "10"})).collect()
    };
    sales::seed(&emulator, "CustomersV3", rows(0, 25));
    let system = System::serve(emulator.clone()).await;
    for query in ["", "&$orderby=CreditRating%20desc,CustomerAccount", "&$filter=CreditRating%20ge%200"] {
        let mut link = format!("CustomersV3?cross-company=true&$select=CustomerAccount&$top=22{query}");
        let mut seen = Vec::new();
        let mut round = 0;
        loop {
            let reply = system.send("GET", &link, "Prefer: odata.maxpagesize=10", "").await;
            assert_eq!(reply.header("preference-applied"), "odata.maxpagesize=10");
            seen.extend(reply.column("CustomerAccount"));
            // Rows that were added behind the reader's back.
            let added = json!({"dataAreaId": "dat", "CustomerAccount": format!("A0000{round}x{}", query.len()), "CreditRating": 6, "CustomerGroupId": "10"});
            sales::seed(&emulator, "CustomersV3", vec![added]);
            round += 1;
            match reply.json()["@odata.nextLink"].as_str() {
                Some(next) => {
                    assert!(next.starts_with(&format!("{}/data/CustomersV3?", system.base)), "{next}");
                    link = next.to_owned();
                }
                None => break,
            }
        }
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!((seen.len(), once.len(), round), (22, 22, 3), "{query}");
    }
    sales::seed(&emulator, "CustomersV3", rows(100, 10_200));
    let page = system.get("CustomersV3?cross-company=true&$select=CustomerAccount").await;
    assert_eq!(page.column("CustomerAccount").len(), 10_000);
    assert!(page.json()["@odata.nextLink"].is_string());
}
