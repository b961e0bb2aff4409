//! What the platform makes of a write by itself: owner, state, amounts, dates; and the limits of a request.

mod common;

use common::{System, id, operation, shown};
use dualwright_emulator::Dialect;
use dualwright_odata::batch::Item;

/// Each case: what is sent to a fresh row, the status and code, and columns afterwards.
#[tokio::test]
async fn state_status_owner_and_amounts_follow_from_what_is_written() {
    let system = System::start(Dialect::Dataverse).await;
    let euro = format!(
        r#"{{"transactioncurrencyid":"{}","currencyname":"Euro","isocurrencycode":"EUR","currencysymbol":"E","exchangerate":0.8}}"#,
        id(700)
    );
    system.create("transactioncurrencies", &euro).await;
    let team = system.get("teams?$select=name").await.column("teamid").remove(0);
    let user = system.json("WhoAmI").await["UserId"].as_str().expect("id").to_owned();
    let unit = system.json("WhoAmI").await["BusinessUnitId"].as_str().expect("id").to_owned();
    let in_euro = format!(r#""transactioncurrencyid@odata.bind":"/transactioncurrencies({})""#, id(700));
    let to_team = format!(r#"{{"ownerid@odata.bind":"/teams({team})"}}"#);
    let team_shown = format!("{team} null {team} {unit}");
    let own_shown = format!("{user} {user} null {unit}");
    let owner = "_ownerid_value _owninguser_value _owningteam_value _owningbusinessunit_value";
    let money = "creditlimit creditlimit_base exchangerate";
    for (created, changed, status, code, columns, wanted) in [
        // (state and status)
        ("", "{}", 204, "", "statecode statuscode", "0 1"),
        ("", r#"{"statecode":1}"#, 204, "", "statecode statuscode", "1 2"),
        ("", r#"{"statecode":1,"statuscode":2}"#, 204, "", "statecode statuscode", "1 2"),
        ("", r#"{"statecode":1,"statuscode":1}"#, 400, "0x80048408", "statecode statuscode", "0 1"),
        ("", r#"{"statuscode":2}"#, 400, "0x80048408", "statecode statuscode", "0 1"),
        ("", r#"{"statuscode":1}"#, 204, "", "statecode statuscode", "0 1"),
        ("", r#"{"statuscode":9}"#, 400, "0x8004431A", "statecode statuscode", "0 1"),
        (r#","statecode":1"#, "{}", 204, "", "statecode statuscode", "1 2"),
        (r#","statecode":1"#, r#"{"statecode":0}"#, 204, "", "statecode statuscode", "0 1"),
        (r#","statecode":1"#, r#"{"name":"n"}"#, 204, "", "statecode statuscode", "1 2"),
        // (who it belongs to)
        ("", "{}", 204, "", owner, own_shown.as_str()),
        ("", to_team.as_str(), 204, "", owner, team_shown.as_str()),
        ("", r#"{"ownerid@odata.bind":null}"#, 204, "", owner, own_shown.as_str()),
        ("", "{}", 204, "", "_createdby_value _modifiedby_value", format!("{user} {user}").leak()),
        // (amounts)
        (r#","creditlimit":100"#, "{}", 204, "", money, "100 100 1"),
        (format!(r#","creditlimit":100,{in_euro}"#).leak(), "{}", 204, "", money, "100 125 0.8"),
        (r#","creditlimit":100"#, format!("{{{in_euro}}}").leak(), 204, "", money, "100 125 0.8"),
        (format!(r#","creditlimit":100,{in_euro}"#).leak(), r#"{"creditlimit":1}"#, 204, "", money, "1 1.25 0.8"),
        (r#","creditlimit":100"#, r#"{"creditlimit":null}"#, 204, "", money, "null null 1"),
        ("", r#"{"name":"n"}"#, 204, "", money, "null null null"),
        (r#","creditlimit_base":7"#, r#"{"creditlimit_base":7}"#, 204, "", money, "null null null"),
        // (dates)
        (
            r#","overriddencreatedon":"2020-02-03T00:00:00Z""#,
            r#"{"overriddencreatedon":"2021-01-01T00:00:00Z"}"#,
            204,
            "",
            "createdon",
            "2020-02-03T00:00:00Z",
        ),
        // (rows within rows are for a create)
        ("", r#"{"primarycontactid":{"lastname":"x"}}"#, 400, "0x80048d19", "_primarycontactid_value", "null"),
    ] {
        let row = system.create("accounts", &format!(r#"{{"name":"a"{created}}}"#)).await;
        let path = format!("accounts({})", row["accountid"].as_str().expect("id"));
        let reply = system.send("PATCH", &path, "If-Match: *", changed).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{created} {changed}: {}", reply.text);
        let after = system.json(&path).await;
        let shown = columns.split(' ').map(|name| match &after[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), wanted, "{created} {changed}");
    }
    let refused = system.send("POST", "accounts", "", r#"{"name":"a","statuscode":2}"#).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "0x80048408"));
    assert!(refused.text.contains("2 is not a valid status code for state code"), "{}", refused.text);
}

#[tokio::test]
async fn a_url_has_a_length_and_a_batch_takes_twice_that() {
    let system = System::start(Dialect::Dataverse).await;
    system.create("accounts", r#"{"name":"a"}"#).await;
    let of_length = |length: usize| {
        let start = "/api/data/v9.2/accounts?$select=name&$filter=name eq 'a' or name eq '";
        format!("{start}{}'", "x".repeat(length - start.len() - 1))
    };
    let coded = |length: usize| {
        let url = of_length(length).replace(' ', "%20").replace('\'', "%27");
        let longer = url.len() - length;
        url.replacen(&"x".repeat(longer), "", 1)
    };
    for (length, status) in [(32_768, 200), (32_769, 414)] {
        let reply = system.get(&coded(length)).await;
        assert_eq!(reply.status, status, "{length}: {}", reply.text);
    }
    for (length, wanted) in [(40_000, "200"), (65_500, "200")] {
        let read = Item::Single(operation("", "GET", &of_length(length), "", ""));
        let (_, answers) = system.batch(&[read], "").await;
        assert_eq!(shown(&answers), wanted, "{length}");
    }
}

/// Rows that refer to one that goes, in every behavior, and in a circle.
#[tokio::test]
async fn a_delete_does_to_others_what_their_relationships_say() {
    let tables = r#"{"tables":[
        {"name":"t_parent","set":"t_parents","columns":[{"name":"t_name","type":"text"},
          {"name":"t_favourite","type":"lookup","targets":[{"table":"t_child","onDelete":"Cascade"}]}]},
        {"name":"t_child","set":"t_children","columns":[{"name":"t_name","type":"text"},
          {"name":"t_cascade","type":"lookup","targets":[{"table":"t_parent","onDelete":"Cascade"}]},
          {"name":"t_remove","type":"lookup","targets":[{"table":"t_parent","onDelete":"RemoveLink"}]},
          {"name":"t_restrict","type":"lookup","targets":[{"table":"t_parent","onDelete":"Restrict"}]}]}]}"#;
    for (link, status, left) in [("t_cascade", 204, 0), ("t_remove", 204, 1), ("t_restrict", 405, 1)] {
        let system = System::start(Dialect::Dataverse).await;
        system.emulator.define(&dualwright_emulator::read_tables(tables).expect("reads").tables).expect("defines");
        let parent = format!(r#"{{"t_parentid":"{}"}}"#, id(1));
        let child = format!(r#"{{"t_childid":"{}","{link}@odata.bind":"/t_parents({})"}}"#, id(2), id(1));
        system.create("t_parents", &parent).await;
        system.create("t_children", &child).await;
        let back = format!(r#"{{"t_favourite@odata.bind":"/t_children({})"}}"#, id(2));
        assert_eq!(system.send("PATCH", &format!("t_parents({})", id(1)), "", &back).await.status, 204);
        let reply = system.send("DELETE", &format!("t_parents({})", id(1)), "", "").await;
        assert_eq!(reply.status, status, "{link}: {}", reply.text);
        assert_eq!(system.count("t_children").await, left, "{link}");
        assert_eq!(system.count("t_parents").await, usize::from(status != 204), "{link}");
        if left == 1 && status == 204 {
            let child = system.json(&format!("t_children({})", id(2))).await;
            assert!(child[format!("_{link}_value")].is_null(), "{child}");
        }
    }
}
