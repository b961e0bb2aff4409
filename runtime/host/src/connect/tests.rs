//! URLs and bodies in both dialects, and what a connection that breaks means.

use super::*;
use dualwright_core::schema::{AlternateKey, Lookup, LookupTarget};
use dualwright_core::{Column, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn groups() -> Arc<Table> {
    let company = LookupTarget {
        table: Arc::from("cdm_company"),
        set: Arc::from("cdm_companies"),
        navigation_property: Arc::from("msdyn_Company"),
    };
    let columns = vec![
        Column::new("msdyn_customergroupid", Kind::Guid),
        Column::new("msdyn_groupid", Kind::Text),
        Column { lookup: Some(Lookup { targets: vec![company] }), ..Column::new("msdyn_company", Kind::Lookup) },
        Column::new("msdyn_description", Kind::Text),
    ];
    let mut schema = Schema::new(SystemKind::Dataverse, "msdyn_customergroup", "msdyn_customergroups", columns);
    schema.primary_id = Some(0);
    schema.alternate_keys = vec![AlternateKey {
        name: Arc::from("key"),
        columns: vec![Arc::from("msdyn_company"), Arc::from("msdyn_groupid")],
    }];
    Arc::new(Table::new(Arc::new(schema)))
}

fn finops_groups() -> Arc<Table> {
    let columns = vec![
        Column::new("dataAreaId", Kind::Text),
        Column::new("CustomerGroupId", Kind::Text),
        Column::new("Description", Kind::Text),
        Column::new("IsUsed", Kind::Choice),
        Column::new("Since", Kind::Timestamp),
    ];
    let mut schema = Schema::new(SystemKind::Finops, "CustomerGroup", "CustomerGroups", columns);
    schema.key = vec![0, 1];
    schema.company = Some(0);
    Arc::new(Table::new(Arc::new(schema)))
}

fn id() -> Uuid {
    Uuid::from_u128(0x6a8f_1f3c_5b1d_4f4e_9d0a_0123_4567_89ab)
}

fn key(pairs: &[(&str, Value)]) -> Address {
    Address::Key(pairs.iter().map(|(name, value)| (Arc::from(*name), value.clone())).collect())
}

fn shown(part: &Part) -> String {
    let headers = part.headers.iter().filter(|(name, _)| *name != "Content-Type").map(|(name, value)| {
        let value = if *name == "Prefer" { "returning" } else { value.as_ref() };
        format!(" {value}")
    });
    format!("{} {}{} {}", part.method, part.url, headers.collect::<String>(), String::from_utf8_lossy(&part.body))
}

#[test]
fn rows_of_dataverse_are_addressed_by_id_key_or_filter() {
    let groups = groups();
    let company = || ("msdyn_company", Value::Guid(id()));
    for (address, wanted) in [
        (Address::Id(id()), "msdyn_customergroups(6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab)?$select=x"),
        (
            key(&[("msdyn_groupid", Value::text("O'N 1")), company()]),
            "msdyn_customergroups(msdyn_groupid='O''N%201',\
             _msdyn_company_value=6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab)?$select=x",
        ),
        // Not in a URL, not a declared key, and no value.
        (
            key(&[("msdyn_groupid", Value::text("a/b")), company()]),
            "msdyn_customergroups?$select=x&$top=1&$orderby=msdyn_customergroupid&$filter=msdyn_groupid%20eq%20'a%2Fb'\
             %20and%20_msdyn_company_value%20eq%206a8f1f3c-5b1d-4f4e-9d0a-0123456789ab",
        ),
        (
            key(&[("msdyn_groupid", Value::text("10"))]),
            "msdyn_customergroups?$select=x&$top=1&$orderby=msdyn_customergroupid&$filter=msdyn_groupid%20eq%20'10'",
        ),
        (
            key(&[("msdyn_groupid", Value::text("10")), ("msdyn_company", Value::Null)]),
            "msdyn_customergroups?$select=x&$top=1&$orderby=msdyn_customergroupid&$filter=msdyn_groupid%20eq%20'10'\
             %20and%20_msdyn_company_value%20eq%20null",
        ),
    ] {
        let part = dataverse::row_part(&groups, &address, "x");
        assert_eq!(part.url, format!("/api/data/v9.2/{wanted}"));
        assert_eq!(part.is_query, wanted.contains("$filter"), "{wanted}");
    }
}

#[test]
fn rows_of_finops_are_addressed_by_all_key_fields() {
    let groups = finops_groups();
    let address = key(&[("dataAreaId", Value::text("usmf")), ("CustomerGroupId", Value::text("1'0/&"))]);
    let part = finops::row_part(&groups, &address, "x");
    assert_eq!(
        part.url,
        "/data/CustomerGroups(dataAreaId='usmf',CustomerGroupId='1''0%2F%26')?cross-company=true&$select=x"
    );
    let blank = key(&[("dataAreaId", Value::text("usmf")), ("CustomerGroupId", Value::Null)]);
    let part = finops::row_part(&groups, &blank, "x");
    assert_eq!(part.url, "/data/CustomerGroups(dataAreaId='usmf',CustomerGroupId='')?cross-company=true&$select=x");
}

#[test]
fn a_lookup_of_several_tables_is_bound_to_the_table_of_its_row() {
    let target = |table: &str, set: &str| LookupTarget {
        table: Arc::from(table),
        set: Arc::from(set),
        navigation_property: Arc::from(format!("parentcustomerid_{table}")),
    };
    let targets = vec![target("account", "accounts"), target("contact", "contacts")];
    let columns = vec![Column { lookup: Some(Lookup { targets }), ..Column::new("parentcustomerid", Kind::Lookup) }];
    let schema = Schema::new(SystemKind::Dataverse, "contact", "contacts", columns);
    let table = Arc::new(Table::new(Arc::new(schema)));
    for (set, wanted) in [
        (None, "{\"parentcustomerid_account@odata.bind\":\"/accounts(ID)\"}"),
        (Some("accounts"), "{\"parentcustomerid_account@odata.bind\":\"/accounts(ID)\"}"),
        (Some("contacts"), "{\"parentcustomerid_contact@odata.bind\":\"/contacts(ID)\"}"),
        (Some("leads"), "DW-3002"),
    ] {
        let operation = WriteOperation {
            table: Arc::clone(&table),
            address: Address::Id(id()),
            action: Action::Create { id: None },
            values: vec![(0, Value::Guid(id()))],
            sets: set.map(|set| (0, Arc::from(set))).into_iter().collect(),
        };
        let found = match dataverse::part_of(&operation) {
            Ok(part) => String::from_utf8_lossy(&part.body).replace(&id().to_string(), "ID"),
            Err(fault) => fault.code.to_string(),
        };
        assert_eq!(found, wanted, "{set:?}");
    }
}

#[test]
fn operations_are_spelled_in_both_dialects() {
    let version = || Some(Arc::from("W/\"1\""));
    let dataverse = |action, values| {
        let operation =
            WriteOperation { table: groups(), address: Address::Id(id()), action, values, sets: Vec::new() };
        shown(&dataverse::part_of(&operation).expect("spelled"))
            .replace("6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab", "ID")
            .replace("/api/data/v9.2/msdyn_customergroups", "")
    };
    let select = "?$select=msdyn_customergroupid&tag=dualwright";
    for (action, values, wanted) in [
        (
            Action::Create { id: Some(id()) },
            vec![(1, Value::text("a\"b")), (2, Value::Guid(id())), (3, Value::Absent)],
            format!(
                "POST {select} returning {{\"msdyn_customergroupid\":\"ID\",\"msdyn_groupid\":\"a\\\"b\",\
                 \"msdyn_Company@odata.bind\":\"/cdm_companies(ID)\"}}"
            ),
        ),
        (Action::Create { id: None }, vec![], format!("POST {select} returning {{}}")),
        (
            Action::Update { version: version() },
            vec![(3, Value::Null), (2, Value::Null)],
            format!(
                "PATCH (ID){select} returning W/\"1\" {{\"msdyn_description\":null,\"msdyn_Company@odata.bind\":null}}"
            ),
        ),
        (Action::Update { version: None }, vec![], format!("PATCH (ID){select} returning * {{}}")),
        (Action::Delete { version: version() }, vec![], "DELETE (ID)?tag=dualwright W/\"1\" ".to_owned()),
        (Action::Delete { version: Some(Arc::from("")) }, vec![], "DELETE (ID)?tag=dualwright ".to_owned()),
    ] {
        assert_eq!(dataverse(action, values), wanted);
    }

    let address = || key(&[("dataAreaId", Value::text("usmf")), ("CustomerGroupId", Value::text("10"))]);
    let finops = |address, action, values| {
        let operation = WriteOperation { table: finops_groups(), address, action, values, sets: Vec::new() };
        shown(&finops::part_of(&operation).expect("spelled")).replace("/data/CustomerGroups", "")
    };
    let values = || vec![(1, Value::text("10")), (2, Value::text("Ä")), (3, Value::text("Yes")), (4, Value::Absent)];
    let row = "(dataAreaId='usmf',CustomerGroupId='10')?cross-company=true";
    let select = "&$select=dataAreaId,CustomerGroupId";
    for (address, action, values, wanted) in [
        (
            address(),
            Action::Create { id: None },
            values(),
            format!(
                "POST ?cross-company=true{select} returning {{\"dataAreaId\":\"usmf\",\"CustomerGroupId\":\"10\",\
                 \"Description\":\"Ä\",\"IsUsed\":\"Yes\"}}"
            ),
        ),
        // Its key stands among the values.
        (
            Address::Key(Vec::new()),
            Action::Create { id: None },
            vec![(0, Value::text("usmf")), (1, Value::text("10"))],
            format!(
                "POST ?cross-company=true{select} returning {{\"dataAreaId\":\"usmf\",\"CustomerGroupId\":\"10\"}}"
            ),
        ),
        // The key cannot change.
        (
            address(),
            Action::Update { version: version() },
            values(),
            format!("PATCH {row}{select} returning W/\"1\" {{\"Description\":\"Ä\",\"IsUsed\":\"Yes\"}}"),
        ),
        (address(), Action::Delete { version: version() }, vec![], format!("DELETE {row} W/\"1\" ")),
    ] {
        assert_eq!(finops(address, action, values), wanted);
    }
}

/// What a system that takes one connection, reads `request_bytes` and then does `then` makes of a change set.
async fn outcome_of(then: impl AsyncFnOnce(tokio::net::TcpStream)) -> WriteOutcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/", listener.local_addr().expect("address")).parse().expect("url");
    let system = System::new(SystemKind::Finops, Endpoint { base, credentials: None, ca_pem: None }).expect("client");
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.expect("a request") > 0);
        then(stream).await;
    };
    let mut fence = Fence { partition: "p".to_owned(), epoch: 1, version: Arc::from("W/\"1\"") };
    let transaction = TransactionId(id());
    let write = system.write("t", transaction, &mut fence, &[], Duration::from_millis(300));
    tokio::select! {
        biased;
        outcome = write => outcome,
        // The connection ends with the server, so the client comes to its end first or next.
        () = async { serve.await; std::future::pending().await } => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_sending_leaves_a_doubt() {
    let reset = outcome_of(async |stream| drop(stream)).await;
    assert!(matches!(&reset, WriteOutcome::Unknown(fault) if fault.code == Code::Unavailable), "{reset:?}");

    let half = outcome_of(async |mut stream| {
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Length: 500\r\n\r\n--b\r\n";
        stream.write_all(answer).await.expect("written");
    })
    .await;
    assert!(matches!(&half, WriteOutcome::Unknown(fault) if fault.code == Code::Unavailable), "{half:?}");

    let hung = outcome_of(async |stream| {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    assert!(matches!(&hung, WriteOutcome::Unknown(fault) if fault.code == Code::TimedOut), "{hung:?}");
}

#[tokio::test]
async fn a_system_that_cannot_be_reached_was_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/", listener.local_addr().expect("address")).parse().expect("url");
    drop(listener);
    let system = System::new(SystemKind::Finops, Endpoint { base, credentials: None, ca_pem: None }).expect("client");
    let mut fence = Fence { partition: "p".to_owned(), epoch: 1, version: Arc::from("W/\"1\"") };
    let outcome = system.write("t", TransactionId(id()), &mut fence, &[], Duration::from_secs(5)).await;
    assert!(matches!(&outcome, WriteOutcome::Wait { fault, .. } if fault.code == Code::Unavailable), "{outcome:?}");
}

#[tokio::test]
async fn a_system_that_asked_for_a_wait_is_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/", listener.local_addr().expect("address")).parse().expect("url");
    let system = System::new(SystemKind::Finops, Endpoint { base, credentials: None, ca_pem: None }).expect("client");
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.expect("a request") > 0);
        let answer = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("written");
        drop(listener);
    };
    let mut fence = Fence { partition: "p".to_owned(), epoch: 1, version: Arc::from("W/\"1\"") };
    let timeout = Duration::from_secs(20);
    let (first, ()) = tokio::join!(system.write("t", TransactionId(id()), &mut fence, &[], timeout), serve);
    let wait = |outcome: &WriteOutcome| match outcome {
        WriteOutcome::Wait { after, fault } => (after.as_secs(), fault.code),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(&first), (300, Code::Throttled));
    // Nobody listens any more: had they been sent, these would tell another story.
    let second = system.write("t", TransactionId(id()), &mut fence, &[], timeout).await;
    assert!(wait(&second).0 > 290 && wait(&second).1 == Code::Throttled, "{second:?}");
    let read = system.has_receipt(TransactionId(id()), timeout).await;
    assert_eq!(read.map_err(|fault| fault.code), Err(Code::Throttled));
}

#[test]
fn a_full_change_set_is_encoded_and_its_answer_decoded_without_loss() {
    use dualwright_odata::batch::{Item, Response, encode_responses, parse_requests};
    let table = groups();
    let parts = (0..CHANGE_SET_ROWS_MAX)
        .map(|number| {
            let values = vec![(1, Value::text(format!("G{number}"))), (2, Value::Guid(id()))];
            let action = Action::Create { id: Some(Uuid::from_u128(number as u128)) };
            let operation = WriteOperation {
                table: Arc::clone(&table),
                address: Address::Id(id()),
                action,
                values,
                sets: Vec::new(),
            };
            dataverse::part_of(&operation).expect("spelled")
        })
        .collect::<Vec<_>>();
    let (content_type, body) = batch::encode(&parts, true);
    let items = parse_requests(&content_type, &body).expect("parses");
    let [Item::ChangeSet(set)] = items.as_slice() else { panic!("{} items", items.len()) };
    assert_eq!(set.len(), CHANGE_SET_ROWS_MAX);
    let responses = set
        .iter()
        .map(|request| Response {
            status: 201,
            headers: Vec::new(),
            body: request.body.clone(),
            content_id: request.content_id.clone(),
        })
        .collect::<Vec<_>>();
    let (content_type, body) = encode_responses(&[Item::ChangeSet(responses)]);
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("content-type", content_type.parse().expect("header"));
    let answer = http::Answer { status: reqwest::StatusCode::OK, headers, body: Bytes::from(body) };
    let answers = batch::answers("dataverse", &answer, parts.len()).expect("decodes");
    assert_eq!(answers.len(), parts.len());
    for (position, (part, answer)) in parts.iter().zip(&answers).enumerate() {
        assert_eq!(answer.position, Some(position));
        assert_eq!(answer.body, part.body);
    }
}
