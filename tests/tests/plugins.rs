//! Every standard plugin, as it is embedded, in the real sandbox: admitted, installed, and run over golden cases.
//!
//! What a plugin decides has its decision tables beside its source. Here it is shown that the component does the same,
//! that it keeps inside what it was granted, and what the host tells an operator.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualwright_core::schema::{Lookup, LookupTarget};
use dualwright_core::{Column, Kind, Operation, Schema, SystemKind, TransactionId, Value};
use dualwright_plugins::{STANDARD, standard};
use dualwright_sandbox::{
    CallContext, ExtensionPoint, Installation, InstallationSpec, Limits, Part, Plugin, RowInfo, RowIssue, Sandbox,
    SandboxSettings, Session,
};
use serde_json::{Value as Json, json};
use uuid::Uuid;

fn sandbox() -> Sandbox {
    Sandbox::new(SandboxSettings::default()).expect("the engine starts")
}

fn admit(sandbox: &Sandbox, name: &str) -> Arc<Plugin> {
    let bytes = standard(name).unwrap_or_else(|| panic!("{name} is a standard plugin"));
    sandbox.admit(name, bytes).unwrap_or_else(|fault| panic!("{name} is admitted: {fault}"))
}

fn table(system: SystemKind, set: &str, columns: &[(&str, Kind)]) -> Arc<Schema> {
    let columns = columns.iter().map(|&(name, kind)| {
        let mut column = Column::new(name, kind);
        if matches!(kind, Kind::Decimal | Kind::Money) {
            column.scale = Some(4);
        }
        if kind == Kind::Lookup {
            let target =
                LookupTarget { table: "contact".into(), set: "contacts".into(), navigation_property: name.into() };
            column.lookup = Some(Lookup { targets: vec![target] });
        }
        column
    });
    Arc::new(Schema::new(system, set, set, columns.collect()))
}

/// A plugin on a table: the first `writable` columns may be changed.
struct Place {
    sandbox: Sandbox,
    installation: Arc<Installation>,
}

impl Place {
    fn install(name: &str, point: ExtensionPoint, source: &Arc<Schema>, writable: usize, parameters: Json) -> Self {
        Self::install_map(name, point, source, &[], writable, parameters)
    }

    fn install_map(
        name: &str,
        point: ExtensionPoint,
        source: &Arc<Schema>,
        targets: &[Arc<Schema>],
        writable: usize,
        parameters: Json,
    ) -> Self {
        let sandbox = sandbox();
        let plugin = admit(&sandbox, name);
        let spec = InstallationSpec {
            tenant: "default".into(),
            place: "map test".to_owned(),
            point,
            source: source.clone(),
            targets: targets.to_vec(),
            writable: (0..writable).collect(),
            parameters,
            limits: None,
        };
        let installation =
            sandbox.install(&plugin, spec).unwrap_or_else(|fault| panic!("{name} is installed: {fault}"));
        Self { sandbox, installation }
    }

    fn session(&self) -> Session {
        self.sandbox.session(
            "default",
            CallContext {
                transaction: TransactionId(Uuid::nil()),
                attempt: 1,
                now_micros: 0,
                seed: 0,
                target: SystemKind::Dataverse,
                deadline: Instant::now() + Duration::from_secs(60),
            },
        )
    }
}

const fn info(operation: Operation) -> RowInfo<'static> {
    RowInfo { operation, creating: false, company: "usmf" }
}

fn lend(rows: &[Vec<Value>]) -> Vec<&[Value]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn money(digits: &str) -> Value {
    Value::Decimal(digits.parse().expect("a decimal"))
}

/// `0 column: what the operator reads [code]`
fn spoken(schema: &Schema, issues: &[RowIssue]) -> Vec<String> {
    let line = |issue: &RowIssue| {
        let column = issue.column.map_or("record", |column| &*schema.column(column).name);
        let code = issue.fault.foreign_code.as_deref().unwrap_or_default();
        format!("{} {column}: {} [{code}]", issue.row, issue.fault.message)
    };
    issues.iter().map(line).collect()
}

/// `column=value …` of what is not absent.
fn cells(schema: &Schema, values: &[Value]) -> String {
    let mut line = String::new();
    for (column, value) in schema.columns().iter().zip(values) {
        if !value.is_absent() {
            let shown = if *value == Value::Null { "null".to_owned() } else { value.to_string() };
            let _ = write!(line, " {}={shown}", column.name);
        }
    }
    line
}

fn check_issues(schema: &Schema, issues: &[RowIssue], wanted: &[(&str, &str)]) {
    let spoken = spoken(schema, issues);
    assert_eq!(spoken.len(), wanted.len(), "{spoken:#?}");
    for (spoken, (start, code)) in spoken.iter().zip(wanted) {
        assert!(spoken.starts_with(start) && spoken.ends_with(&format!("[{code}]")), "{spoken}");
        assert!(!spoken.contains('{'), "an argument is missing: {spoken}");
    }
}

#[test]
fn every_standard_plugin_is_admitted_and_describes_itself() {
    let sandbox = sandbox();
    assert_eq!(STANDARD.len(), 6);
    for plugin in STANDARD {
        let admitted = admit(&sandbox, plugin.name);
        let description = &admitted.description;
        assert_eq!(description.name, plugin.name);
        assert!(!description.text.is_empty() && !admitted.points.is_empty(), "{}", plugin.name);
        for parameter in &description.parameters {
            assert!(!parameter.text.is_empty(), "{}: parameter {} has no text", plugin.name, parameter.name);
        }
        for column in &description.columns {
            assert!(!column.text.is_empty(), "{}: column {} has no text", plugin.name, column.name);
        }
        assert!(plugin.bytes.len() < 256 * 1024, "{} has grown to {} bytes", plugin.name, plugin.bytes.len());
    }
}

#[test]
fn text_cleanup_patches_what_is_not_clean() {
    let schema = table(SystemKind::Finops, "CustomersV3", &[("OrganizationName", Kind::Text), ("City", Kind::Text)]);
    let parameters = json!({ "case": "title", "truncate": 20 });
    let place = Place::install("text-cleanup", ExtensionPoint::Transform, &schema, 1, parameters);
    let rows = [
        vec![text("  a  BIKE\tstore "), text(" as it is ")],
        vec![text("Clean Already"), Value::Null],
        vec![Value::Null, Value::Absent],
        vec![text("ÉLAN  vital 🦀"), Value::Null],
        vec![text(&"x y ".repeat(1_000)), Value::Null],
    ];
    let info = [info(Operation::Upsert); 5];
    let patch = place.session().transform(&place.installation, &info, &lend(&rows)).expect("it runs");
    let wanted = [(0, 0, text("A Bike Store")), (3, 0, text("Élan Vital 🦀")), (4, 0, text("X Y X Y X Y X Y X Y"))];
    assert_eq!(patch.cells, wanted);
    assert_eq!(patch.issues, []);
}

#[test]
fn money_rounding_rounds_by_currency() {
    let columns = [("CreditLimit", Kind::Decimal), ("SalesCurrencyCode", Kind::Text)];
    let schema = table(SystemKind::Finops, "CustomersV3", &columns);
    let parameters = json!({ "currency": "SALESCURRENCYCODE", "digits": { "CHF": 1 } });
    let place = Place::install("money-rounding", ExtensionPoint::Transform, &schema, 1, parameters);
    let rows = [
        vec![money("10.125"), text("USD")],
        vec![money("10.12"), text("USD")],
        vec![money("1500.5"), text("JPY")],
        vec![money("0.15"), text("CHF")],
        vec![money("1"), text("ZZZ")],
        vec![Value::Null, Value::Null],
    ];
    let info = [info(Operation::Upsert); 6];
    let patch = place.session().transform(&place.installation, &info, &lend(&rows)).expect("it runs");
    assert_eq!(patch.cells, [(0, 0, money("10.12")), (2, 0, money("1500")), (3, 0, money("0.2"))]);
    check_issues(&schema, &patch.issues, &[("4 SalesCurrencyCode: ", "currency-unknown")]);
}

#[test]
fn email_validator_rejects_what_no_server_takes() {
    let schema = table(SystemKind::Dataverse, "contacts", &[("emailaddress1", Kind::Text), ("lastname", Kind::Text)]);
    let parameters = json!({ "required": true, "domains": ["adventure-works.com"] });
    let place = Place::install("email-validator", ExtensionPoint::PreValidate, &schema, 0, parameters);
    let rows = [
        vec![text("jon24@adventure-works.com"), text("Yang")],
        vec![text("jon24"), text("Yang")],
        vec![Value::Null, text("Yang")],
        vec![text("jon24@example.com"), text("Yang")],
        vec![text("gone"), text("Yang")],
    ];
    let mut info = [info(Operation::Upsert); 5];
    info[4].operation = Operation::Delete;
    let issues = place.session().pre_validate(&place.installation, &info, &[], &lend(&rows)).expect("it runs");
    check_issues(
        &schema,
        &issues,
        &[
            ("1 emailaddress1: ", "email-invalid"),
            ("2 emailaddress1: ", "email-missing"),
            ("3 emailaddress1: ", "email-domain"),
        ],
    );
}

#[test]
fn credit_limit_looks_at_what_the_target_holds() {
    let columns = [("creditlimit", Kind::Money), ("transactioncurrencyid.isocurrencycode", Kind::Text)];
    let schema = table(SystemKind::Dataverse, "accounts", &columns);
    let parameters = json!({
        "amount": "creditlimit",
        "currency": "transactioncurrencyid.isocurrencycode",
        "limits": { "USD": 50000 },
        "increase-percent": 50,
    });
    let place = Place::install("credit-limit", ExtensionPoint::PreValidate, &schema, 0, parameters);
    let usd = |digits: &str| vec![money(digits), text("USD")];
    let proposed = [usd("150"), usd("151"), usd("50000.01"), usd("-1"), usd("151")];
    let current = [Some(usd("100")), Some(usd("100")), None, None, None];
    let current: Vec<Option<&[Value]>> = current.iter().map(|row| row.as_deref()).collect();
    let info = [info(Operation::Upsert); 5];
    let issues = place.session().pre_validate(&place.installation, &info, &current, &lend(&proposed)).expect("it runs");
    check_issues(
        &schema,
        &issues,
        &[
            ("1 creditlimit: ", "credit-limit-increase"),
            ("2 creditlimit: ", "credit-limit-exceeded"),
            ("3 creditlimit: ", "credit-limit-negative"),
        ],
    );
}

#[test]
fn stored_equals_sent_names_each_column_that_differs() {
    let columns = [("name", Kind::Text), ("creditlimit", Kind::Money), ("telephone1", Kind::Text)];
    let schema = table(SystemKind::Dataverse, "accounts", &columns);
    let parameters = json!({ "except": ["telephone1"], "weight": "warning" });
    let place = Place::install("stored-equals-sent", ExtensionPoint::PostValidate, &schema, 0, parameters);
    let row = |name: &str, limit: &str, phone: &str| vec![text(name), money(limit), text(phone)];
    let sent = [row("Bike Shop", "1.2345", "1"), row("Bike Shop", "1", "1"), row("Gone", "1", "1")];
    let stored = [Some(row("Bike", "1.23", "2")), Some(row("Bike Shop", "1.00", "1")), None];
    let stored: Vec<Option<&[Value]>> = stored.iter().map(|row| row.as_deref()).collect();
    let info = [info(Operation::Upsert); 3];
    let issues = place.session().post_validate(&place.installation, &info, &lend(&sent), &stored).expect("it runs");
    check_issues(
        &schema,
        &issues,
        &[("0 name: ", "stored-differs"), ("0 creditlimit: ", "stored-differs"), ("2 record: ", "stored-missing")],
    );
}

fn customer_split() -> (Arc<Schema>, [Arc<Schema>; 2], Place) {
    let texts = ["CustomerAccount", "OrganizationName", "PrimaryContactEmail", "PrimaryContactPhone"];
    let source = table(SystemKind::Finops, "CustomersV3", &texts.map(|name| (name, Kind::Text)));
    let accounts = [("accountnumber", Kind::Text), ("name", Kind::Text), ("primarycontactid", Kind::Lookup)];
    let contacts = ["msdyn_contactpersonid", "emailaddress1", "telephone1", "firstname", "lastname"];
    let targets = [
        table(SystemKind::Dataverse, "accounts", &accounts),
        table(SystemKind::Dataverse, "contacts", &contacts.map(|name| (name, Kind::Text))),
    ];
    let place = Place::install_map("customer-split", ExtensionPoint::TableMap, &source, &targets, 4, json!({}));
    (source, targets, place)
}

#[test]
fn customer_split_writes_an_account_and_its_contact() {
    let (source, targets, place) = customer_split();
    let rows = [
        vec![text("C1"), text("Bike Shop"), text("jane.doe@example.com"), text("555-0100")],
        vec![text("C2"), text("No Contact"), Value::Null, Value::Null],
        vec![text(""), text("No Number"), Value::Null, Value::Null],
        vec![text("C3"), Value::Absent, Value::Absent, Value::Absent],
    ];
    let mut info = [info(Operation::Upsert); 4];
    info[3].operation = Operation::Delete;
    let mapped = place.session().table_map(&place.installation, &info, &lend(&rows)).expect("it runs");
    let mut lines = Vec::new();
    for (schema, table) in targets.iter().zip(&mapped.tables) {
        for row in &table.rows {
            let mut line =
                format!("{} <-{} {:?}:{}", schema.set, row.source, row.operation, cells(schema, &row.values));
            for reference in &row.references {
                let column = &schema.column(reference.column).name;
                let _ = write!(line, " {column}->{} {}", targets[reference.table].set, reference.row);
            }
            lines.push(line);
        }
    }
    assert_eq!(
        lines,
        [
            "accounts <-0 Upsert: accountnumber=C1 name=Bike Shop primarycontactid->contacts 0",
            "accounts <-1 Upsert: accountnumber=C2 name=No Contact primarycontactid=null",
            "accounts <-3 Delete: accountnumber=C3",
            "contacts <-0 Upsert: msdyn_contactpersonid=C1-C emailaddress1=jane.doe@example.com telephone1=555-0100 \
             firstname=Jane lastname=Doe",
            "contacts <-3 Delete: msdyn_contactpersonid=C3-C",
        ]
    );
    check_issues(&source, &mapped.issues, &[("2 CustomerAccount: ", "customer-without-account")]);
}

#[test]
fn customer_split_finds_its_way_back() {
    let (source, _, place) = customer_split();
    let accounts = [vec![text("C1"), text("Bike Store"), Value::Null]];
    let contacts = [
        vec![text("C1-C"), text("ann@example.com"), Value::Null, Value::Null, text("Ann")],
        vec![text("C2-C"), text("bob@example.com"), text("1"), Value::Null, text("Bob")],
    ];
    let current = [None, Some(vec![text("C2"), text("Other"), Value::Null, Value::Null])];
    let current: Vec<Option<&[Value]>> = current.iter().map(|row| row.as_deref()).collect();
    let info = [info(Operation::Upsert); 2];
    let (accounts, contacts) = (lend(&accounts), lend(&contacts));
    let parts = [
        Part { table: 0, info: &info[..1], rows: &accounts, source_rows: &[0] },
        Part { table: 1, info: &info, rows: &contacts, source_rows: &[0, 1] },
    ];
    let merged = place.session().table_map_back(&place.installation, &parts, &current).expect("it runs");
    let lines: Vec<String> =
        merged.rows.iter().map(|row| format!("{:?}:{}", row.operation, cells(&source, &row.values))).collect();
    assert_eq!(
        lines,
        [
            "Some(Upsert): CustomerAccount=C1 OrganizationName=Bike Store PrimaryContactEmail=ann@example.com \
             PrimaryContactPhone=null",
            "Some(Upsert): CustomerAccount=C2 PrimaryContactEmail=bob@example.com PrimaryContactPhone=1",
        ]
    );
}

/// A result must not depend on which rows share a call: a transaction is cut into slices.
#[test]
fn slices_do_not_show() {
    let schema = table(SystemKind::Finops, "CustomersV3", &[("OrganizationName", Kind::Text)]);
    let rows: Vec<Vec<Value>> = (0..2_000).map(|row| vec![text(&format!("  Customer   {row} "))]).collect();
    let info = vec![info(Operation::Upsert); rows.len()];
    let mut answers = Vec::new();
    for slice_bytes_max in [4 * 1024 * 1024, 16 * 1024] {
        let sandbox = Sandbox::new(SandboxSettings {
            limits: Limits { slice_bytes_max, ..Limits::default() },
            ..Default::default()
        })
        .expect("it starts");
        let plugin = admit(&sandbox, "text-cleanup");
        let spec = InstallationSpec {
            tenant: "default".into(),
            place: "map test".to_owned(),
            point: ExtensionPoint::Transform,
            source: schema.clone(),
            targets: Vec::new(),
            writable: vec![0],
            parameters: json!({ "case": "lower" }),
            limits: None,
        };
        let installation = sandbox.install(&plugin, spec).expect("it is installed");
        let place = Place { sandbox, installation };
        answers.push(place.session().transform(&place.installation, &info, &lend(&rows)).expect("it runs").cells);
    }
    assert_eq!(answers[0].len(), rows.len());
    assert_eq!(answers[0][7], (7, 0, text("customer 7")));
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn wrong_parameters_stop_the_start() {
    let sandbox = sandbox();
    let schema = table(SystemKind::Finops, "CustomersV3", &[("Name", Kind::Text), ("CreditLimit", Kind::Decimal)]);
    let table = [
        ("text-cleanup", ExtensionPoint::Transform, 0, json!({ "case": "camel" }), "case"),
        ("text-cleanup", ExtensionPoint::Transform, 0, json!({ "colapse": true }), "colapse"),
        ("text-cleanup", ExtensionPoint::Transform, 1, json!({}), "CreditLimit"),
        ("money-rounding", ExtensionPoint::Transform, 1, json!({}), "currency"),
        ("money-rounding", ExtensionPoint::Transform, 0, json!({ "currency": "Name" }), "Name"),
        ("email-validator", ExtensionPoint::PreValidate, 0, json!({}), "columns"),
        ("credit-limit", ExtensionPoint::PreValidate, 0, json!({ "amount": "Name" }), "amount"),
        ("credit-limit", ExtensionPoint::PostValidate, 0, json!({ "amount": "CreditLimit" }), "it is no"),
    ];
    for (name, point, writable, parameters, wanted) in table {
        let plugin = admit(&sandbox, name);
        let spec = InstallationSpec {
            tenant: "default".into(),
            place: "map test".to_owned(),
            point,
            source: schema.clone(),
            targets: Vec::new(),
            writable: if point == ExtensionPoint::Transform { vec![writable] } else { Vec::new() },
            parameters: parameters.clone(),
            limits: None,
        };
        let fault = sandbox.install(&plugin, spec).expect_err("it is refused");
        assert_eq!(fault.code.to_string(), "DW-4005", "{name} {parameters}: {fault}");
        assert!(fault.message.contains(wanted), "{name} {parameters}: {fault}");
    }
}
