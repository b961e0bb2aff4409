//! How an emulator is reached: over TLS, with a token, and by requests that are wrong before anybody reads them.

mod common;

use std::time::Duration;

use common::System;
use dualwright_emulator::{Clock, Dialect, Emulator, ServeOptions, TlsIdentity, TokenCheck, TokenClient, ca_path};
use serde_json::{Value, json};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";

fn check() -> TokenCheck {
    let client = |id: &str, secret: &str| TokenClient { id: id.to_owned(), secret: secret.to_owned() };
    TokenCheck::new(TENANT, vec![client("app-1", "s3cret&="), client("app-2", "other")])
}

async fn protected(dialect: Dialect) -> System {
    let emulator = Emulator::open_with_clock(dialect, None, Clock::standing_at(1_767_323_045_000_000)).expect("opens");
    emulator.define(&common::tables(dialect).tables).expect("defines");
    System::serve_with(emulator, ServeOptions { tokens: Some(check()), tls: None }).await
}

async fn token(system: &System, form: &str) -> common::Reply {
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    system.send("POST", &path, "Content-Type: application/x-www-form-urlencoded", form).await
}

fn form(system: &System) -> String {
    format!("grant_type=client_credentials&client_id=app-1&client_secret=s3cret%26%3D&scope={}%2F.default", system.base)
}

#[tokio::test]
async fn links_name_the_scheme_that_was_used() {
    let folder = tempfile::tempdir().expect("a folder");
    for dialect in [Dialect::Dataverse, Dialect::Finops] {
        let emulator = Emulator::open(dialect, None).expect("opens");
        emulator.define(&common::tables(dialect).tables).expect("defines");
        let identity = TlsIdentity::kept_in(folder.path(), &[]).expect("a certificate");
        let ca = std::fs::read_to_string(ca_path(folder.path())).expect("a file");
        assert_eq!(identity.ca_pem(), ca);
        let system = System::serve_with(emulator, ServeOptions { tls: Some(identity), tokens: None }).await;
        assert!(system.base.starts_with("https://"));
        let (set, rows) = match dialect {
            Dialect::Dataverse => ("contacts", [r#"{"lastname":"A"}"#, r#"{"lastname":"B"}"#]),
            Dialect::Finops => ("Currencies", [r#"{"CurrencyCode":"A"}"#, r#"{"CurrencyCode":"B"}"#]),
        };
        for row in rows {
            let reply = system.send("POST", set, "", row).await;
            assert!(reply.status < 300, "{}", reply.text);
            if dialect == Dialect::Dataverse {
                assert!(reply.header("odata-entityid").starts_with(&system.base), "{:?}", reply.headers);
            }
        }
        let page = system.send("GET", set, "Prefer: odata.maxpagesize=1", "").await.json();
        assert!(page["@odata.context"].as_str().expect("a context").starts_with(&system.base), "{page}");
        let next = page["@odata.nextLink"].as_str().expect("a link").to_owned();
        assert!(next.starts_with(&system.base), "{next}");
        assert_eq!(system.json(&next).await["value"].as_array().map(Vec::len), Some(1));

        // Who does not trust the certificate does not get through, and who speaks plain HTTP does no harm.
        let stranger = reqwest::Client::builder().no_proxy().build().expect("client");
        assert!(stranger.get(&system.base).send().await.is_err());
        assert!(stranger.get(system.base.replace("https", "http")).send().await.is_err());
        assert_eq!(system.get("/").await.status, 200);
        system.end().await;
    }
}

#[tokio::test]
async fn a_connection_with_tls_can_be_broken_too() {
    let emulator = Emulator::open(Dialect::Finops, None).expect("opens");
    emulator.define(&common::tables(Dialect::Finops).tables).expect("defines");
    let identity = TlsIdentity::generate(&[]).expect("a certificate");
    let system = System::serve_with(emulator, ServeOptions { tls: Some(identity), tokens: None }).await;
    system.send("POST", "/_emulator/faults", "", r#"[{"action":{"kind":"applyThenReset"}}]"#).await;
    assert!(system.try_send("POST", "Currencies", "", r#"{"CurrencyCode":"EUR"}"#).await.is_err());
    assert_eq!(system.count("Currencies").await, 1);
    system.end().await;
}

#[tokio::test]
async fn a_token_opens_the_service_until_it_expires() {
    for dialect in [Dialect::Dataverse, Dialect::Finops] {
        let system = protected(dialect).await;
        let set = if dialect == Dialect::Dataverse { "accounts" } else { "Currencies" };
        let refused = system.get(set).await;
        assert_eq!(refused.status, 401);
        let challenge =
            format!("Bearer authorization_uri={}/{TENANT}/oauth2/authorize, resource_id={}/", system.base, system.base);
        assert_eq!(refused.header("www-authenticate"), challenge);

        let answer = token(&system, &form(&system)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.header("cache-control"), "no-store, no-cache");
        let answer = answer.json();
        assert_eq!(
            answer,
            json!({"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599,
                "access_token": answer["access_token"]})
        );
        let bearer = format!("Authorization: Bearer {}", answer["access_token"].as_str().expect("a token"));
        assert_eq!(system.send("GET", set, &bearer, "").await.status, 200);
        assert_eq!(system.emulator.requests()[0].client.as_deref(), Some("app-1"));

        let mut damaged = bearer.clone();
        damaged.replace_range(damaged.len() - 2..damaged.len() - 1, if damaged.ends_with("AA") { "B" } else { "A" });
        for wrong in
            [damaged.as_str(), "Authorization: Bearer x", "Authorization: Bearer a.b.c", "Authorization: Basic x"]
        {
            if wrong != bearer {
                assert_eq!(system.send("GET", set, wrong, "").await.status, 401, "{wrong}");
            }
        }
        // Another service on this machine does not take it.
        let foreign = format!("{bearer}\nHost: other.example");
        assert_eq!(system.send("GET", set, &foreign, "").await.status, 401);

        system.emulator.clock().advance(Duration::from_secs(3_599 + 299));
        assert_eq!(system.send("GET", set, &bearer, "").await.status, 200, "the clocks of two machines may differ");
        system.emulator.clock().advance(Duration::from_secs(1));
        assert_eq!(system.send("GET", set, &bearer, "").await.status, 401);
        system.emulator.clock().set_skew_ms(-3_600_000);
        assert_eq!(system.send("GET", set, &bearer, "").await.status, 200, "the clock that lies decides");
        system.end().await;
    }
}

#[tokio::test]
async fn what_the_token_endpoint_refuses() {
    let system = protected(Dialect::Dataverse).await;
    let base = &system.base;
    let scope = format!("scope={base}/.default");
    let v2 = format!("/{TENANT}/oauth2/v2.0/token");
    let v1 = format!("/{TENANT}/oauth2/token");
    for (method, path, form, status, error, code) in [
        ("GET", v2.as_str(), String::new(), 400, "invalid_request", 900_561),
        ("POST", "/contoso.example/oauth2/v2.0/token", String::new(), 400, "invalid_request", 90_002),
        ("POST", &v2, String::new(), 400, "invalid_request", 900_144),
        ("POST", &v2, "grant_type=password".into(), 400, "unsupported_grant_type", 70_003),
        ("POST", &v2, "grant_type=client_credentials".into(), 400, "invalid_request", 900_144),
        (
            "POST",
            &v2,
            "grant_type=client_credentials&client_id=x&client_secret=y".into(),
            400,
            "unauthorized_client",
            700_016,
        ),
        ("POST", &v2, "grant_type=client_credentials&client_id=app-1".into(), 401, "invalid_client", 7_000_218),
        (
            "POST",
            &v2,
            "grant_type=client_credentials&client_id=app-1&client_secret=other".into(),
            401,
            "invalid_client",
            7_000_215,
        ),
        (
            "POST",
            &v2,
            "grant_type=client_credentials&client_id=app-2&client_secret=other".into(),
            400,
            "invalid_request",
            900_144,
        ),
        (
            "POST",
            &v2,
            format!("grant_type=client_credentials&client_id=app-2&client_secret=other&scope={base}"),
            400,
            "invalid_scope",
            1_002_012,
        ),
        (
            "POST",
            &v2,
            "grant_type=client_credentials&client_id=app-2&client_secret=other&scope=https://no.example/.default"
                .into(),
            400,
            "invalid_resource",
            500_011,
        ),
        (
            "POST",
            &v1,
            format!("grant_type=client_credentials&client_id=app-2&client_secret=other&{scope}"),
            400,
            "invalid_request",
            900_144,
        ),
        (
            "POST",
            &v1,
            "grant_type=client_credentials&client_id=app-2&client_secret=other&resource=nonsense".into(),
            400,
            "invalid_resource",
            500_011,
        ),
        ("POST", &v1, "%zz=%&&==&\u{0}".into(), 400, "invalid_request", 900_144),
    ] {
        let reply = system.send(method, path, "Content-Type: application/x-www-form-urlencoded", &form).await;
        let json = reply.json();
        assert_eq!((reply.status, json["error"].as_str()), (status, Some(error)), "{method} {path} {form}: {json}");
        assert_eq!(json["error_codes"], json!([code]), "{form}");
        assert_eq!(json["timestamp"], "2026-01-02 03:04:05Z");
        let described = json["error_description"].as_str().unwrap_or_default();
        let (message, rest) = described.split_once("\r\nTrace ID: ").expect("a trace id");
        assert!(message.starts_with(&format!("AADSTS{code}: ")), "{described}");
        let trace = json["trace_id"].as_str().unwrap_or_default();
        assert!(rest.starts_with(trace) && rest.ends_with("\r\nTimestamp: 2026-01-02 03:04:05Z"), "{described}");
        assert_eq!(json["error_uri"], format!("https://login.microsoftonline.com/error?code={code}"));
        assert!(!described.contains("s3cret"), "{described}");
    }
    system.end().await;
}

#[tokio::test]
async fn every_way_to_a_token() {
    let system = protected(Dialect::Finops).await;
    let base = &system.base;
    let v1 = format!("/{TENANT}/oauth2/token");
    let opens = async |answer: Value| {
        let bearer = format!("authorization: bearer {}", answer["access_token"].as_str().expect("a token"));
        assert_eq!(system.send("GET", "Currencies", &bearer, "").await.status, 200);
    };
    let form = format!("grant_type=client_credentials&client_id=APP-2&client_secret=other&resource={base}/");
    let answer = system.send("POST", &v1, "", &form).await.json();
    assert_eq!(
        (&answer["expires_in"], &answer["not_before"], &answer["expires_on"], &answer["resource"]),
        (&json!("3599"), &json!("1767323045"), &json!("1767326644"), &json!(format!("{base}/")))
    );
    opens(answer).await;
    // The application id of the service stands for every environment; the client may come in a header.
    let form = "grant_type=client_credentials&scope=00000015-0000-0000-c000-000000000000/.default";
    let headers = "Authorization: Basic YXBwLTI6b3RoZXI=";
    opens(system.send("POST", &format!("/{TENANT}/oauth2/v2.0/token"), headers, form).await.json()).await;
    for (path, endpoint) in [("", "oauth2"), ("v2.0/", "oauth2/v2.0")] {
        let known = system.json(&format!("/{TENANT}/{path}.well-known/openid-configuration")).await;
        assert_eq!(known["token_endpoint"], format!("{base}/{TENANT}/{endpoint}/token"));
        assert_eq!(system.get(&format!("/other/{path}.well-known/openid-configuration")).await.status, 400);
    }
    assert_eq!(system.json(&format!("/{TENANT}/discovery/v2.0/keys")).await, json!({"keys": []}));
    // What runs the emulator needs no token.
    assert_eq!(system.get("/_emulator/audit").await.status, 200);
    system.end().await;
}

#[tokio::test]
async fn requests_that_are_wrong_before_anybody_reads_them() {
    for (dialect, root, body) in [
        (Dialect::Dataverse, "/api/data/v9.2/contacts", r#"{"lastname":"A"}"#),
        (Dialect::Finops, "/data/Currencies", r#"{"CurrencyCode":"A"}"#),
    ] {
        let system = System::start(dialect).await;
        let long = format!("{root}?$filter={}", "x".repeat(33_000));
        for (method, path, headers, status) in [
            ("TRACE", root, "", 405),
            ("PROPFIND", root, "", 405),
            ("POST", root, "Content-Type: text/plain", 415),
            ("POST", root, "Content-Type: application/xml; charset=utf-8", 415),
            ("POST", root, "Content-Type: application/x-www-form-urlencoded", 415),
            ("PATCH", root, "Content-Type: ;", 415),
            ("GET", &long, "", 414),
            ("GET", "/api/data/v9.2/%ZZ", "", if dialect == Dialect::Dataverse { 400 } else { 404 }),
            ("GET", "/data/%ZZ", "", if dialect == Dialect::Dataverse { 404 } else { 400 }),
            ("GET", "/nowhere", "", 404),
            ("DELETE", "/_emulator/audit", "", 404),
        ] {
            let reply = system.send(method, path, headers, if status == 415 { body } else { "" }).await;
            assert_eq!(reply.status, status, "{method} {path} {headers}: {}", reply.text);
            assert!(reply.json()["error"]["message"].is_string(), "{method} {path}: {}", reply.text);
            if status == 405 {
                assert!(reply.header("allow").contains("PATCH"));
            }
        }
        let headers = "Content-Type: application/json; charset=utf-8; IEEE754Compatible=true";
        let reply = system.send("POST", root, headers, body).await;
        assert!(reply.status < 300, "{headers}: {}", reply.text);
        let options =
            system.send("OPTIONS", root, "Origin: http://x.example\nAccess-Control-Request-Method: PATCH", "").await;
        assert_eq!(options.status, 200);
        assert!(options.header("allow").contains("OPTIONS"));
        let allowed = if dialect == Dialect::Dataverse { "http://x.example" } else { "" };
        assert_eq!(options.header("access-control-allow-origin"), allowed);

        let (get, head) = (system.get(root).await, system.send("HEAD", root, "", "").await);
        assert_eq!((head.status, head.text.as_str()), (get.status, ""));
        assert_eq!(head.header("content-type"), get.header("content-type"));
        let names: &[&str] =
            if dialect == Dialect::Dataverse { &["x-ms-service-request-id", "REQ_ID"] } else { &["ActivityId"] };
        for name in names {
            assert_eq!(get.header(name).len(), 36, "{name}: {:?}", get.headers);
            assert_ne!(get.header(name), head.header(name), "every request has its own");
        }
        system.end().await;
    }
}

#[tokio::test]
async fn answers_are_compressed_for_who_asks() {
    let system = System::start(Dialect::Finops).await;
    let rows = (0..50).map(|number| json!({"CurrencyCode": format!("{number:03}")}));
    let rows = rows.map(|row| serde_json::from_value(row).expect("a row")).collect();
    system.emulator.seed("Currencies", rows).expect("seeds");
    for (accepts, compressed) in [("gzip", true), ("br, gzip;q=0.5", true), ("gzip;q=0", false), ("br", false)] {
        let (body, headers) = system.raw("Currencies", &format!("Accept-Encoding: {accepts}")).await;
        assert_eq!(headers.get("content-encoding").is_some(), compressed, "{accepts}");
        let text = if compressed {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut text).expect("gzip");
            text
        } else {
            String::from_utf8(body).expect("text")
        };
        let json: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["value"].as_array().map(Vec::len), Some(50), "{accepts}");
    }
    system.end().await;
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let system = System::start(Dialect::Dataverse).await;
    let rules = r#"[{"action":{"kind":"reset"}}]"#;
    let host = system.base.strip_prefix("http://").expect("http").to_owned();
    for (origin, status) in
        [("http://evil.example".to_owned(), 403), ("null".to_owned(), 403), (format!("http://{host}"), 204)]
    {
        let reply = system.send("POST", "/_emulator/faults", &format!("Origin: {origin}"), rules).await;
        assert_eq!(reply.status, status, "{origin}: {}", reply.text);
    }
    system.end().await;
}
