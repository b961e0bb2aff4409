//! Whatever stands in a query, the answer is rows or a documented refusal: no panic, no dropped connection.

mod common;

use common::System;
use dualwright_emulator::Dialect;
use dualwright_odata::escape::component;

/// Queries with a gap, into which anything is put.
const FRAMES: &[(&str, &str)] = &[
    ("accounts?$filter=", ""),
    ("accounts?$filter=name eq 'a' and ", " or contains(name,'b')"),
    ("accounts?$filter=contact_customer_accounts/any(c:", ")"),
    ("accounts?$filter=Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=[", "])"),
    ("accounts?$filter=Microsoft.Dynamics.CRM.LastXDays(PropertyName='createdon',PropertyValue=", ")"),
    ("accounts?$filter=startswith(name,'", "')"),
    ("accounts?$expand=primarycontactid(", ")"),
    ("accounts?$expand=contact_customer_accounts($filter=", ";$top=1)"),
    ("accounts?$apply=", ""),
    ("accounts?$apply=groupby((", "),aggregate($count as n))"),
    ("accounts?$orderby=", ""),
    ("accounts?$skiptoken=", ""),
    ("accounts?fetchXml=", ""),
    (
        "accounts?fetchXml=<fetch><entity name='account'><filter><condition attribute='name' ",
        "/></filter></entity></fetch>",
    ),
    ("accounts?fetchXml=<fetch ", "><entity name='account'><order attribute='name'/></entity></fetch>"),
    ("EntityDefinitions?$filter=", ""),
    ("EntityDefinitions(LogicalName='account')/", ""),
    ("accounts(", ")"),
    ("accounts/", ""),
];

#[test]
fn every_query_is_answered_or_refused() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let system = runtime.block_on(async {
        let system = System::start(Dialect::Dataverse).await;
        system.create("accounts", r#"{"name":"a"}"#).await;
        system
    });
    bolero::check!().with_iterations(600).with_type::<(u8, String)>().for_each(|(frame, text)| {
        let (before, after) = FRAMES[usize::from(*frame) % FRAMES.len()];
        let text = text.chars().take(400).collect::<String>();
        let url = match before.split_once('=') {
            Some((path, start)) if before.contains('?') => {
                format!("{path}={}", component(&format!("{start}{text}{after}")))
            }
            _ => format!("{before}{}{after}", component(&text)),
        };
        let reply = runtime.block_on(system.get(&url));
        assert!(reply.status < 500 || reply.status == 501, "{url}: {} {}", reply.status, reply.text);
        if reply.status >= 400 {
            assert!(reply.code().starts_with("0x"), "{url}: {}", reply.text);
        }
    });
}
