//! Who may do what, how often, and how changes are followed.

mod common;

use std::time::Duration;

use common::{System, tables};
use dualwright_emulator::{Clock, Dialect, Emulator};
use serde_json::{Value, json};

async fn system() -> System {
    let clock = Clock::standing_at(1_767_323_045_000_000);
    let emulator = Emulator::open_with_clock(Dialect::Dataverse, None, clock).expect("opens");
    emulator.define(&tables(Dialect::Dataverse).tables).expect("defines");
    System::serve(emulator).await
}

async fn made(system: &System, set: &str, body: Value, id: &str) -> String {
    system.create(set, &body.to_string()).await[id].as_str().expect("an id").to_owned()
}

/// A user with a role that has these privileges; gives user and role.
async fn user_with(system: &System, privileges: &[&str], depth: &str) -> (String, String) {
    let unit = system.json("WhoAmI").await["BusinessUnitId"].as_str().expect("an id").to_owned();
    let unit = format!("/businessunits({unit})");
    let user = json!({"lastname": "U", "fullname": "U", "businessunitid@odata.bind": unit});
    let user = made(system, "systemusers", user, "systemuserid").await;
    let role = json!({"name": "R", "businessunitid@odata.bind": unit});
    let role = made(system, "roles", role, "roleid").await;
    let mut wanted = Vec::new();
    for name in privileges {
        let found = system.json(&format!("privileges?$filter=name eq '{name}'")).await;
        wanted.push(json!({"PrivilegeId": found["value"][0]["privilegeid"], "Depth": depth}));
    }
    let body = json!({"Privileges": wanted}).to_string();
    let reply =
        system.send("POST", &format!("roles({role})/Microsoft.Dynamics.CRM.AddPrivilegesRole"), "", &body).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    let body = json!({"@odata.id": format!("{}/api/data/v9.2/roles({role})", system.base)}).to_string();
    let reply = system.send("POST", &format!("systemusers({user})/systemuserroles_association/$ref"), "", &body).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    (user, role)
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    let all = ["prvReadAccount", "prvCreateAccount", "prvWriteAccount", "prvDeleteAccount"];
    for (privileges, method, path, body, missing) in [
        (vec![], "GET", "accounts", "", "prvReadAccount"),
        (vec!["prvReadAccount"], "GET", "accounts", "", ""),
        (vec!["prvReadAccount"], "POST", "accounts", r#"{"name":"N"}"#, "prvCreateAccount"),
        (vec!["prvCreateAccount"], "POST", "accounts", r#"{"name":"N"}"#, ""),
        (vec!["prvReadAccount"], "PATCH", "{account}", r#"{"name":"N"}"#, "prvWriteAccount"),
        (vec!["prvWriteAccount"], "PATCH", "{account}", r#"{"name":"N"}"#, ""),
        (vec!["prvWriteAccount"], "DELETE", "{account}", "", "prvDeleteAccount"),
        (vec!["prvDeleteAccount"], "DELETE", "{account}", "", ""),
        (all.to_vec(), "PATCH", "{account}", r#"{"msdyn_Company@odata.bind":"{company}"}"#, "prvAppendAccount"),
        (
            [all.as_slice(), &["prvAppendAccount"]].concat(),
            "PATCH",
            "{account}",
            r#"{"msdyn_Company@odata.bind":"{company}"}"#,
            "prvAppendTocdm_company",
        ),
        (
            [all.as_slice(), &["prvAppendAccount", "prvAppendTocdm_company"]].concat(),
            "PATCH",
            "{account}",
            r#"{"msdyn_Company@odata.bind":"{company}"}"#,
            "",
        ),
    ] {
        let system = system().await;
        let account = made(&system, "accounts", json!({"name": "A"}), "accountid").await;
        let company = made(&system, "cdm_companies", json!({"cdm_companycode": "usmf"}), "cdm_companyid").await;
        let (user, _) = user_with(&system, &privileges, "Global").await;
        let path = path.replace("{account}", &format!("accounts({account})"));
        let body = body.replace("{company}", &format!("/cdm_companies({company})"));
        let reply = system.send(method, &path, &format!("MSCRMCallerID: {user}"), &body).await;
        let case = format!("{method} {path} with {privileges:?}: {}", reply.text);
        if missing.is_empty() {
            assert!(reply.status < 300, "{case}");
        } else {
            assert_eq!((reply.status, reply.code().as_str()), (403, "0x80040220"), "{case}");
            let named = format!("is missing {missing} privilege");
            assert!(reply.text.contains(&named) && reply.text.contains(&user), "{case}");
        }
        system.end().await;
    }
}

#[tokio::test]
async fn roles_are_given_taken_and_asked_for() {
    let system = system().await;
    let (user, role) = user_with(&system, &["prvReadAccount"], "Basic").await;
    let acting = format!("MSCRMCallerID: {user}");
    let who = system.send("GET", "WhoAmI", &acting, "").await.json();
    assert_eq!(who["UserId"], json!(user));
    let own = system.json(&format!("systemusers({user})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()")).await;
    assert_eq!(own["RolePrivileges"].as_array().map(Vec::len), Some(1), "{own}");
    assert_eq!(own["RolePrivileges"][0]["PrivilegeName"], "prvReadAccount");
    assert_eq!(own["RolePrivileges"][0]["Depth"], "Basic");
    let roles = system.json(&format!("systemusers({user})/systemuserroles_association?$select=name")).await;
    assert_eq!(roles["value"][0]["name"], "R", "{roles}");
    let all = system.json("roles?$select=name").await;
    for name in ["System Administrator", "Dual-write runtime user", "Dual-write app user"] {
        assert!(all["value"].as_array().expect("roles").iter().any(|role| role["name"] == name), "{name}: {all}");
    }
    // Change tracking needs the right to read everything.
    let tracking = format!("{acting}\nPrefer: odata.track-changes");
    assert_eq!(system.send("GET", "accounts", &tracking, "").await.status, 403);
    assert_eq!(system.send("GET", "accounts", &acting, "").await.status, 200);
    let reference = format!("systemusers({user})/systemuserroles_association({role})/$ref");
    assert_eq!(system.send("DELETE", &reference, "", "").await.status, 204);
    assert_eq!(system.send("GET", "accounts", &acting, "").await.status, 403);
    for (header, status) in [
        ("MSCRMCallerID: nobody", 400),
        ("MSCRMCallerID: 00000000-0000-0000-0000-000000000009", 404),
        ("CallerObjectId: 00000000-0000-0000-0000-000000000009", 404),
    ] {
        assert_eq!(system.send("GET", "WhoAmI", header, "").await.status, status, "{header}");
    }
    let reply = system.send("PATCH", &format!("systemusers({user})"), "", r#"{"isdisabled":true}"#).await;
    assert!(reply.status < 300, "{}", reply.text);
    assert_eq!(system.send("GET", "WhoAmI", &acting, "").await.code(), "0x80040225");
    system.end().await;
}

#[tokio::test]
async fn requests_beyond_the_limit_wait() {
    let system = system().await;
    let limits = r#"{"enabled":true,"requestsMax":2}"#;
    assert_eq!(system.send("PUT", "/_emulator/limits", "", limits).await.status, 204);
    let first = system.get("accounts").await;
    assert_eq!(first.header("x-ms-ratelimit-burst-remaining-xrm-requests"), "1");
    assert_eq!(first.header("x-ms-ratelimit-time-remaining-xrm-requests"), "1,200.00");
    // A batch is one request, and as many operations of the day as it holds.
    let get = || dualwright_odata::batch::Item::Single(common::operation("", "GET", "accounts", "", ""));
    let (status, _) = system.batch(&[get(), get(), get()], "").await;
    assert_eq!(status, 200);
    let refused = system.get("accounts").await;
    assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (429, "0x80072322", "300"));
    let shown = system.json("/_emulator/limits").await;
    assert_eq!(shown["users"][0]["dailyRequests"], 4, "{shown}");
    system.emulator.clock().advance(Duration::from_secs(300));
    assert_eq!(system.get("accounts").await.status, 200);
    system.end().await;
}

/// What is behind a link, from the service's own address.
fn link(page: &Value, name: &str) -> String {
    page[name].as_str().unwrap_or_else(|| panic!("no {name}: {page}")).to_owned()
}

async fn track(system: &System) -> Value {
    system.send("GET", "accounts?$select=name", "Prefer: odata.track-changes", "").await.json()
}

#[tokio::test]
async fn what_change_tracking_refuses() {
    let system = system().await;
    for (path, part) in [
        ("accounts?$filter=name eq 'A'", r#"The \"$filter\" query parameter isn't supported when Change Tracking"#),
        ("accounts?$orderby=name", r#"The \"$orderby\" query parameter"#),
        ("accounts?$expand=primarycontactid", r#"The \"$expand\" query parameter"#),
        ("accounts?$top=1", r#"The \"$top\" query parameter"#),
        ("serviceendpoints", "Change tracking is not enabled"),
    ] {
        let reply = system.send("GET", path, "Prefer: odata.track-changes", "").await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text);
        assert!(reply.text.contains(part), "{path}: {}", reply.text);
    }
    assert_eq!(system.get("accounts?$deltatoken=zz").await.status, 400);
    system.end().await;
}

#[tokio::test]
async fn links_grow_old() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for (days, wait_days, status) in [(7, 7, 200), (7, 8, 410), (1, 2, 410), (30, 8, 200)] {
        let system = system().await;
        let organization = system.json("organizations").await["value"][0]["organizationid"].clone();
        let path = format!("organizations({})", organization.as_str().expect("an id"));
        let body = json!({"expirechangetrackingindays": days}).to_string();
        assert!(system.send("PATCH", &path, "", &body).await.status < 300);
        let link = link(&track(&system).await, "@odata.deltaLink");
        system.emulator.clock().advance(DAY * wait_days);
        let reply = system.get(&link).await;
        assert_eq!(reply.status, status, "{days} {wait_days}: {}", reply.text);
        if status == 410 {
            assert_eq!(reply.code(), "0x80044352");
        }
        system.end().await;
    }
}

#[tokio::test]
async fn a_delta_is_net_and_misses_nothing_between_its_pages() {
    let system = system().await;
    let mut ids = Vec::new();
    for name in ["A", "B", "C"] {
        ids.push(made(&system, "accounts", json!({"name": name}), "accountid").await);
    }
    let first = track(&system).await;
    assert!(link(&first, "@odata.context").ends_with("#accounts(name)"), "{first}");
    let start = link(&first, "@odata.deltaLink");
    for name in ["x", "y"] {
        system.send("PATCH", &format!("accounts({})", ids[0]), "", &json!({"name": name}).to_string()).await;
    }
    system.send("PATCH", &format!("accounts({})", ids[1]), "", r#"{"name":"z"}"#).await;
    system.send("DELETE", &format!("accounts({})", ids[2]), "", "").await;
    let token = start.split("$deltatoken=").nth(1).expect("a token");
    assert_eq!(system.get(&format!("accounts/$count?$deltatoken={token}")).await.text, "3");

    let (mut names, mut deleted, mut next) = (Vec::new(), Vec::new(), start);
    let mut pages = 0;
    let end = loop {
        let page = system.send("GET", &next, "Prefer: odata.maxpagesize=1", "").await.json();
        pages += 1;
        for row in page["value"].as_array().expect("rows") {
            match row["reason"].as_str() {
                Some(reason) => deleted.push((row["id"].as_str().expect("an id").to_owned(), reason.to_owned())),
                None => names.push(row["name"].as_str().expect("a name").to_owned()),
            }
        }
        // Somebody writes while the pages are read: a row that was read, and one that is new.
        if pages == 1 {
            system.send("PATCH", &format!("accounts({})", ids[0]), "", r#"{"name":"late"}"#).await;
            made(&system, "accounts", json!({"name": "new"}), "accountid").await;
        }
        match page["@odata.nextLink"].as_str() {
            Some(link) => next = link.to_owned(),
            None => break link(&page, "@odata.deltaLink"),
        }
        assert!(pages < 10, "the pages do not end");
    };
    assert_eq!(names, ["y", "z"]);
    assert_eq!(deleted, [(ids[2].clone(), "deleted".to_owned())]);
    let rest = system.json(&end).await;
    assert!(link(&rest, "@odata.context").ends_with("#accounts(name)/$delta"), "{rest}");
    let mut late = rest["value"].as_array().expect("rows").iter().map(|row| row["name"].clone()).collect::<Vec<_>>();
    late.sort_by_key(ToString::to_string);
    assert_eq!(late, ["late", "new"]);
    system.end().await;
}

/// Privileges below the organization: whose rows are read and written, and how. The tree of units is `org` with `north`
/// below it, `far` below that, and `south` beside `north`.
#[tokio::test]
async fn depth_decides_whose_rows_are_reached() {
    const PRIVILEGES: [&str; 5] =
        ["prvReadAccount", "prvWriteAccount", "prvReadContact", "prvAppendToAccount", "prvReadcdm_company"];
    let system = system().await;
    let org = system.json("WhoAmI").await["BusinessUnitId"].as_str().expect("an id").to_owned();
    let mut units = vec![org.clone()];
    for (name, parent) in [("north", 0), ("far", 1), ("south", 0)] {
        let body =
            json!({"name": name, "parentbusinessunitid@odata.bind": format!("/businessunits({})", units[parent])});
        units.push(made(&system, "businessunits", body, "businessunitid").await);
    }
    // Somebody in every unit, who owns a row there; `own` is the caller's.
    let mut owners = Vec::new();
    for unit in &units {
        let body =
            json!({"lastname": "O", "fullname": "O", "businessunitid@odata.bind": format!("/businessunits({unit})")});
        owners.push(made(&system, "systemusers", body, "systemuserid").await);
    }
    let team = json!({"name": "T", "businessunitid@odata.bind": format!("/businessunits({})", units[3])});
    let team = made(&system, "teams", team, "teamid").await;
    for (depth, wanted) in [
        ("Basic", vec!["own", "team"]),
        ("Local", vec!["north", "own", "team"]),
        ("Deep", vec!["far", "north", "own", "team"]),
        ("Global", vec!["far", "north", "org", "own", "south", "team"]),
    ] {
        let (user, _) = user_with(&system, &PRIVILEGES, depth).await;
        let moved = json!({"businessunitid@odata.bind": format!("/businessunits({})", units[1])}).to_string();
        let reply = system.send("PATCH", &format!("systemusers({user})"), "", &moved).await;
        assert_eq!(reply.status, 204, "{}", reply.text);
        let member = json!({"@odata.id": format!("{}/api/data/v9.2/systemusers({user})", system.base)}).to_string();
        let reply = system.send("POST", &format!("teams({team})/teammembership_association/$ref"), "", &member).await;
        assert_eq!(reply.status, 204, "{}", reply.text);
        let mut accounts = Vec::new();
        let rows =
            ["org", "north", "far", "south"].into_iter().zip(&owners).map(|(name, owner)| (name, "systemusers", owner));
        for (name, set, owner) in rows.chain([("own", "systemusers", &user), ("team", "teams", &team)]) {
            let body = json!({"name": name, "description": depth, "ownerid@odata.bind": format!("/{set}({owner})")});
            let account = made(&system, "accounts", body, "accountid").await;
            let contact = json!({
                "lastname": name, "employer@odata.bind": format!("/accounts({account})"),
                "ownerid@odata.bind": format!("/systemusers({user})"),
            });
            system.create("contacts", &contact.to_string()).await;
            accounts.push((name, account));
        }
        let acting = format!("MSCRMCallerID: {user}");
        let fetch = format!(
            "<fetch><entity name='contact'><attribute name='lastname'/><link-entity name='account' from='accountid' \
             to='employer'><filter><condition attribute='description' operator='eq' value='{depth}'/></filter>\
             </link-entity></entity></fetch>"
        );
        let fetch = format!("contacts?fetchXml={}", dualwright_odata::escape::component(&fetch));
        for (path, column) in [
            (format!("accounts?$select=name&$filter=description eq '{depth}'&$orderby=name"), "name"),
            (format!("accounts?$apply=filter(description eq '{depth}')/groupby((name))"), "name"),
            (fetch, "lastname"),
        ] {
            let reply = system.send("GET", &path, &acting, "").await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
            let mut names = reply.column(column);
            names.sort_unstable();
            assert_eq!(names, wanted, "{depth} {path}");
        }
        let reply = system.send("GET", &format!("accounts/$count?$filter=description eq '{depth}'"), &acting, "").await;
        assert_eq!(reply.text.trim_start_matches('\u{feff}'), wanted.len().to_string(), "{depth}");
        let expanded =
            format!("contacts?$select=lastname&$expand=employer($select=name)&$filter=_ownerid_value eq {user}");
        let expanded = system.send("GET", &expanded, &acting, "").await.json();
        let mut behind = expanded["value"].as_array().expect("rows").iter().filter(|row| !row["employer"].is_null());
        assert!(behind.all(|row| wanted.contains(&row["lastname"].as_str().unwrap_or_default())), "{depth} {expanded}");
        for (name, account) in accounts {
            let reaches = wanted.contains(&name);
            for (method, body, access, status) in
                [("GET", "", "ReadAccess", 200), ("PATCH", r#"{"creditonhold":true}"#, "WriteAccess", 204)]
            {
                let reply = system.send(method, &format!("accounts({account})"), &acting, body).await;
                let case = format!("{depth} {method} {name}: {}", reply.text);
                if reaches {
                    assert_eq!(reply.status, status, "{case}");
                } else {
                    assert_eq!((reply.status, reply.code().as_str()), (403, "0x80048306"), "{case}");
                    assert!(reply.text.contains(access) && reply.text.contains(&account), "{case}");
                }
            }
        }
        // A table without owners is the organization's.
        let reply = system.send("GET", "cdm_companies", &acting, "").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    system.end().await;
}
