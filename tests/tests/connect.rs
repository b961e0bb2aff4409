//! The connectors against both emulated systems: what a request asks for, what it changes, and what an answer means.
//!
//! One story per promise, told on both dialects wherever both make it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dualwright::connect::dataverse::DeltaEntry;
use dualwright::connect::finops::FeedOperation;
use dualwright::connect::{
    Action, Address, CHANGE_SET_ROWS_MAX, Endpoint, Fence, StoredRow, System, TRANSACTION_ROWS_MAX, Table,
    WriteOperation, WriteOutcome, WrittenRow,
};
use dualwright_core::{Code, Kind, SystemKind, TransactionId, Value};
use dualwright_emulator::{Dialect, Emulator, FaultRule, TableDefinition};
use serde_json::{Map, json};
use tokio::net::TcpListener;
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(30);

/// One emulated system, a client of it, and its table of customer groups.
struct World {
    emulator: Emulator,
    system: System,
    groups: Arc<Table>,
    company: Uuid,
    tables: HashMap<&'static str, Arc<Table>>,
}

fn definitions(kind: SystemKind) -> Vec<TableDefinition> {
    let tables = match kind {
        SystemKind::Dataverse => json!([
            {"name": "cdm_company", "set": "cdm_companies", "primaryId": "cdm_companyid", "primaryName": "cdm_name",
             "alternateKeys": [{"name": "code", "columns": ["cdm_companycode"]}],
             "columns": [{"name": "cdm_companycode", "type": "text", "maxLength": 10, "required": true},
                         {"name": "cdm_name", "type": "text", "maxLength": 100}]},
            {"name": "msdyn_customergroup", "set": "msdyn_customergroups", "primaryId": "msdyn_customergroupid",
             "primaryName": "msdyn_groupid",
             "alternateKeys": [{"name": "group", "columns": ["msdyn_company", "msdyn_groupid"]}],
             "columns": [
                {"name": "msdyn_company", "type": "lookup",
                 "targets": [{"table": "cdm_company", "navigationProperty": "msdyn_Company"}]},
                {"name": "msdyn_groupid", "type": "text", "maxLength": 10, "required": true},
                {"name": "msdyn_description", "type": "text", "maxLength": 60},
                {"name": "msdyn_days", "type": "int", "min": 0, "max": 365},
                {"name": "msdyn_limit", "type": "money", "precision": 2},
                {"name": "msdyn_since", "type": "datetime"},
                {"name": "msdyn_until", "type": "date"},
                {"name": "msdyn_isused", "type": "boolean"},
                {"name": "msdyn_kind", "type": "choice",
                 "options": [{"name": "Retail", "value": 192350000}, {"name": "Wholesale", "value": 192350001}]}]}
        ]),
        SystemKind::Finops => json!([
            {"name": "CustomerGroup", "set": "CustomerGroups", "entity": "Customer groups",
             "entityName": "CustCustomerGroupEntity", "key": ["dataAreaId", "CustomerGroupId"],
             "columns": [
                {"name": "dataAreaId", "type": "text", "maxLength": 4, "required": true},
                {"name": "CustomerGroupId", "type": "text", "maxLength": 10, "required": true},
                {"name": "Description", "type": "text", "maxLength": 60},
                {"name": "Days", "type": "int"},
                {"name": "Limit", "type": "decimal"},
                {"name": "Since", "type": "datetime"},
                {"name": "IsUsed", "type": "enum", "enum": "NoYes",
                 "options": [{"name": "No", "value": 0}, {"name": "Yes", "value": 1}]}]}
        ]),
    };
    serde_json::from_value(tables).expect("definitions")
}

impl World {
    async fn new(kind: SystemKind) -> Self {
        let dialect = match kind {
            SystemKind::Finops => Dialect::Finops,
            SystemKind::Dataverse => Dialect::Dataverse,
        };
        let emulator = Emulator::open(dialect, None).expect("opens");
        emulator.define(&definitions(kind)).expect("defines");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}/", listener.local_addr().expect("address")).parse().expect("url");
        let serving = emulator.clone();
        // Ends with the test's runtime.
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });

        let system = System::new(kind, Endpoint { base, credentials: None, ca_pem: None }).expect("client");
        let catalogue = system.catalogue(TIMEOUT).await.expect("catalogue");
        let mut tables = HashMap::new();
        let sets: &[&str] = match kind {
            SystemKind::Finops => &["CustomerGroups"],
            SystemKind::Dataverse => &["cdm_companies", "msdyn_customergroups"],
        };
        for set in sets {
            let schema = system.schema(&catalogue, set, TIMEOUT).await.expect("schema");
            // Columns of our own only: a system adds some that no map reads.
            let own = definitions(kind).into_iter().find(|table| table.set == **set).expect("defined").columns;
            let mut keep =
                own.iter().map(|column| schema.index_of(&column.name).expect("a column")).collect::<Vec<_>>();
            keep.extend(schema.primary_id);
            tables.insert(*set, Arc::new(Table::new(Arc::new(schema.narrow(&keep)))));
        }
        let company = Uuid::from_u128(1);
        if kind == SystemKind::Dataverse {
            let row = json!({"cdm_companyid": company.to_string(), "cdm_companycode": "usmf"});
            emulator.seed("cdm_companies", vec![row.as_object().expect("object").clone()]).expect("seeds");
        }
        let groups = Arc::clone(&tables[sets[sets.len() - 1]]);
        Self { emulator, system, groups, company, tables }
    }

    fn kind(&self) -> SystemKind {
        self.system.kind()
    }

    /// The columns that hold group and description.
    fn columns(&self) -> (&'static str, &'static str) {
        match self.kind() {
            SystemKind::Finops => ("CustomerGroupId", "Description"),
            SystemKind::Dataverse => ("msdyn_groupid", "msdyn_description"),
        }
    }

    fn id(&self, group: &str) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, group.as_bytes())
    }

    /// How an operation that changes the row names it.
    fn address(&self, group: &str) -> Address {
        match self.kind() {
            SystemKind::Finops => self.key(group),
            SystemKind::Dataverse => Address::Id(self.id(group)),
        }
    }

    /// The row by its natural key.
    fn key(&self, group: &str) -> Address {
        let company = match self.kind() {
            SystemKind::Finops => (Arc::from("dataAreaId"), Value::text("usmf")),
            SystemKind::Dataverse => (Arc::from("msdyn_company"), Value::Guid(self.company)),
        };
        Address::Key(vec![company, (Arc::from(self.columns().0), Value::text(group))])
    }

    fn index(&self, column: &str) -> usize {
        self.groups.schema.index_of(column).expect("a column")
    }

    fn create(&self, group: &str, description: &str) -> WriteOperation {
        let (group_column, description_column) = self.columns();
        let mut values = vec![
            (self.index(group_column), Value::text(group)),
            (self.index(description_column), Value::text(description)),
        ];
        match self.kind() {
            SystemKind::Finops => values.push((self.index("dataAreaId"), Value::text("usmf"))),
            SystemKind::Dataverse => values.push((self.index("msdyn_company"), Value::Guid(self.company))),
        }
        let id = (self.kind() == SystemKind::Dataverse).then(|| self.id(group));
        WriteOperation {
            table: Arc::clone(&self.groups),
            address: self.address(group),
            action: Action::Create { id },
            values,
            sets: Vec::new(),
        }
    }

    fn update(&self, group: &str, version: Option<&Arc<str>>, description: &str) -> WriteOperation {
        WriteOperation {
            table: Arc::clone(&self.groups),
            address: self.address(group),
            action: Action::Update { version: version.cloned() },
            values: vec![(self.index(self.columns().1), Value::text(description))],
            sets: Vec::new(),
        }
    }

    fn delete(&self, group: &str, version: Option<&Arc<str>>) -> WriteOperation {
        WriteOperation {
            table: Arc::clone(&self.groups),
            address: self.address(group),
            action: Action::Delete { version: version.cloned() },
            values: Vec::new(),
            sets: Vec::new(),
        }
    }

    async fn fence(&self) -> Fence {
        self.system.open_fence("default/demo/0", TIMEOUT).await.expect("a fence")
    }

    async fn write(&self, transaction: u128, fence: &mut Fence, operations: &[WriteOperation]) -> WriteOutcome {
        let transaction = TransactionId(Uuid::from_u128(transaction));
        self.system.write("default", transaction, fence, operations, TIMEOUT).await
    }

    /// The row at an address.
    async fn read(&self, address: &Address) -> Option<StoredRow> {
        let mut rows = self.system.read_rows(&[(&self.groups, address)], TIMEOUT).await.expect("reads");
        assert_eq!(rows.len(), 1);
        rows.remove(0).expect("it can be read")
    }

    /// Groups and their descriptions, as the system has them now.
    async fn stored(&self) -> Vec<(String, String)> {
        let (group, description) = self.columns();
        let page = self.system.read_page(&self.groups, None, None, 1_000, TIMEOUT).await.expect("a page");
        assert_eq!(page.next, None);
        let mut rows = page
            .rows
            .iter()
            .map(|row| {
                let values = self.groups.shape.decode(row.json.get()).expect("a row").values;
                (values[self.index(group)].to_string(), values[self.index(description)].to_string())
            })
            .collect::<Vec<_>>();
        rows.sort();
        rows
    }
}

const BOTH: [SystemKind; 2] = [SystemKind::Finops, SystemKind::Dataverse];

fn applied(outcome: WriteOutcome) -> Vec<WrittenRow> {
    match outcome {
        WriteOutcome::Applied(rows) => rows,
        other => panic!("it was to be applied: {other:?}"),
    }
}

/// Position and code of a refusal.
fn rejected(outcome: WriteOutcome) -> (Option<usize>, Code) {
    match outcome {
        WriteOutcome::Rejected { position, fault } => (position, fault.code),
        other => panic!("it was to be rejected: {other:?}"),
    }
}

fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(group, description)| ((*group).to_owned(), (*description).to_owned())).collect()
}

#[tokio::test]
async fn both_systems_describe_their_tables() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let schema = &world.groups.schema;
        let shown = schema
            .columns()
            .iter()
            .map(|column| {
                let mut text = format!("{} {:?}", column.name, column.kind);
                if let Some(length) = column.length_max {
                    text += &format!(" length {length}");
                }
                if column.required {
                    text += " required";
                }
                for (name, number) in column.options.iter() {
                    text += &format!(" {name}={number}");
                }
                for target in column.lookup.iter().flat_map(|lookup| &lookup.targets) {
                    text += &format!(" -> {} by {}", target.set, target.navigation_property);
                }
                text
            })
            .collect::<Vec<_>>();
        match kind {
            SystemKind::Finops => {
                assert_eq!(
                    shown,
                    [
                        "dataAreaId Text length 4 required",
                        "CustomerGroupId Text length 10 required",
                        "Description Text length 60",
                        "Days Int64",
                        "Limit Decimal",
                        "Since Timestamp",
                        "IsUsed Choice No=0 Yes=1",
                    ]
                );
                assert_eq!((schema.key.as_slice(), schema.company), (&[0, 1][..], Some(0)));
                let catalogue = world.system.catalogue(TIMEOUT).await.expect("catalogue");
                for name in ["Customer groups", "customer GROUPS", "CustCustomerGroupEntity", "CustomerGroup"] {
                    assert_eq!(catalogue.collection_of_entity(name), Some("CustomerGroups"), "{name}");
                }
                assert_eq!(catalogue.collection_of_entity("Vendor groups"), None);
            }
            SystemKind::Dataverse => {
                assert_eq!(
                    shown,
                    [
                        "msdyn_company Lookup -> cdm_companies by msdyn_Company",
                        "msdyn_groupid Text length 10 required",
                        "msdyn_description Text length 60",
                        "msdyn_days Int64",
                        "msdyn_limit Money",
                        "msdyn_since Timestamp",
                        "msdyn_until Date",
                        "msdyn_isused Boolean",
                        "msdyn_kind Int64 Retail=192350000 Wholesale=192350001",
                        "msdyn_customergroupid Guid",
                    ]
                );
                let days = schema.column(3);
                let limits = [days.minimum, days.maximum].map(|limit| limit.map(|limit| limit.to_string()));
                assert_eq!(limits, [Some("0".to_owned()), Some("365".to_owned())]);
                assert_eq!((schema.primary_id, schema.company), (Some(9), Some(0)));
                assert_eq!(schema.alternate_keys[0].columns.len(), 2);
                assert_eq!(world.tables["cdm_companies"].schema.company, None);
            }
        }
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_misconfigured() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let catalogue = world.system.catalogue(TIMEOUT).await.expect("catalogue");
        let fault = world.system.schema(&catalogue, "Nothing", TIMEOUT).await.expect_err("it is refused");
        assert_eq!(fault.code, Code::TableUnknown);
        let mut schema = (*world.groups.schema).clone();
        schema.set = Arc::from("Nothing");
        let fault = world
            .system
            .read_page(&Table::new(Arc::new(schema)), None, None, 10, TIMEOUT)
            .await
            .expect_err("it is refused");
        assert_eq!(fault.code, Code::TableUnknown, "{fault}");
    }
}

#[tokio::test]
async fn a_change_set_creates_updates_and_deletes() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let mut fence = world.fence().await;
        let created =
            applied(world.write(1, &mut fence, &[world.create("10", "O'Neil \"&\"\nÄ"), world.create("20", "")]).await);
        assert!(created.iter().all(|row| !row.version.is_empty()), "{created:?}");
        let changed = applied(
            world
                .write(
                    2,
                    &mut fence,
                    &[
                        world.update("10", Some(&created[0].version), "b"),
                        world.delete("20", Some(&created[1].version)),
                        world.create("30", "c"),
                    ],
                )
                .await,
        );
        assert_ne!(changed[0].version, created[0].version);
        assert_eq!(world.stored().await, rows(&[("10", "b"), ("30", "c")]));

        // The version that a write gave is the one that a read shows, and that the next write names.
        let address = world.key("10");
        let read = world.read(&address).await.expect("a row");
        assert_eq!(read.version, changed[0].version);
        assert_eq!(read.id, (kind == SystemKind::Dataverse).then(|| world.id("10")));
        applied(world.write(3, &mut fence, &[world.update("10", Some(&read.version), "d")]).await);
        assert_eq!(world.stored().await, rows(&[("10", "d"), ("30", "c")]));
    }
}

#[tokio::test]
async fn a_refused_change_set_names_its_operation_and_changes_nothing() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let mut fence = world.fence().await;
        let created = applied(world.write(1, &mut fence, &[world.create("10", "a")]).await);
        let before = world.stored().await;
        let stale: Arc<str> = Arc::from("W/\"0\"");
        let long = "x".repeat(61);
        for (number, bad, code) in [
            (0, world.create("10", "again"), Code::DuplicateKey),
            (1, world.update("10", Some(&stale), "b"), Code::VersionConflict),
            (2, world.delete("10", Some(&stale)), Code::VersionConflict),
            (3, world.update("99", None, "b"), Code::TargetGone),
            (4, world.delete("99", None), Code::TargetGone),
            (5, world.create("50", &long), Code::TargetRejected),
        ] {
            let operations = [
                world.create("20", "first"),
                world.update("10", Some(&created[0].version), "second"),
                bad,
                world.create("30", "last"),
            ];
            let refused = world.write(100 + number, &mut fence, &operations).await;
            // The second operation moves the row on, so a third that names its old version is refused for that.
            assert_eq!(rejected(refused), (Some(2), code), "{kind} {number}");
            assert_eq!(world.stored().await, before);
        }
        // The fence did not move, so the next change set passes.
        applied(world.write(2, &mut fence, &[world.create("20", "c")]).await);
    }
}

#[tokio::test]
async fn a_replay_is_told_by_its_receipt() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let mut fence = world.fence().await;
        let before = fence.clone();
        let transaction = TransactionId(Uuid::from_u128(1));
        assert!(!world.system.has_receipt(transaction, TIMEOUT).await.expect("answers"));
        applied(world.write(1, &mut fence, &[world.create("10", "a")]).await);
        assert!(world.system.has_receipt(transaction, TIMEOUT).await.expect("answers"));
        let again = world.write(1, &mut fence, &[world.create("10", "b")]).await;
        assert_eq!(again, WriteOutcome::AlreadyApplied);

        // Sent once more as it was: the fence, or at the latest the receipt, keeps it out.
        let mut late = before;
        let outcome = world.write(1, &mut late, &[world.create("20", "late")]).await;
        assert!(matches!(outcome, WriteOutcome::FenceLost(_) | WriteOutcome::AlreadyApplied), "{outcome:?}");
        assert_eq!(world.stored().await, rows(&[("10", "a")]));
    }
}

#[tokio::test]
async fn whoever_takes_the_fence_ends_the_one_before() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let mut first = world.fence().await;
        applied(world.write(1, &mut first, &[world.create("10", "a")]).await);
        let mut second = world.fence().await;
        assert!(second.epoch > first.epoch);
        let outcome = world.write(2, &mut first, &[world.create("20", "zombie")]).await;
        assert!(matches!(outcome, WriteOutcome::FenceLost(_)), "{outcome:?}");
        applied(world.write(3, &mut second, &[world.create("30", "b")]).await);
        world.system.bump_fence(&mut first, TIMEOUT).await.expect("bumps");
        let outcome = world.write(4, &mut second, &[]).await;
        assert!(matches!(outcome, WriteOutcome::FenceLost(_)), "{outcome:?}");
        applied(world.write(2, &mut first, &[world.create("20", "c")]).await);
        assert_eq!(world.stored().await, rows(&[("10", "a"), ("20", "c"), ("30", "b")]));

        // Another partition has a fence of its own.
        let mut other = world.system.open_fence("default/demo/1", TIMEOUT).await.expect("a fence");
        applied(world.write(5, &mut other, &[]).await);
        applied(world.write(6, &mut first, &[]).await);
    }
}

#[tokio::test]
async fn a_full_change_set_is_applied_and_a_larger_one_is_not_sent() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let mut fence = world.fence().await;
        assert!(world.system.probe_empty(&world.groups, TIMEOUT).await.expect("answers"));
        let mut operations =
            (0..CHANGE_SET_ROWS_MAX).map(|number| world.create(&number.to_string(), "a")).collect::<Vec<_>>();
        assert_eq!(applied(world.write(1, &mut fence, &operations).await).len(), CHANGE_SET_ROWS_MAX);
        assert!(!world.system.probe_empty(&world.groups, TIMEOUT).await.expect("answers"));
        let count = world.system.count(&world.groups, None, TIMEOUT).await.expect("answers");
        assert_eq!(count, Some(CHANGE_SET_ROWS_MAX as u64));
        let column = world.columns().0;
        let filter = format!("{column} eq '7' or {column} eq '8'");
        assert_eq!(world.system.count(&world.groups, Some(&filter), TIMEOUT).await, Ok(Some(2)));

        let change = |number: usize| world.update(&number.to_string(), None, "b");
        operations = (0..=CHANGE_SET_ROWS_MAX).map(change).collect();
        assert_eq!(rejected(world.write(2, &mut fence, &operations).await), (None, Code::TooLarge));
        operations = (0..=TRANSACTION_ROWS_MAX).map(|number| world.create(&format!("x{number}"), "a")).collect();
        assert_eq!(rejected(world.write(2, &mut fence, &operations).await), (None, Code::TooLarge));
    }
}

#[tokio::test]
async fn more_new_rows_than_operations_go_together() {
    let world = World::new(SystemKind::Dataverse).await;
    let mut fence = world.fence().await;
    applied(world.write(1, &mut fence, &[world.create("old", "a")]).await);
    let new = |number: usize| world.create(&number.to_string(), "a");
    let mut operations = (1..TRANSACTION_ROWS_MAX).map(new).collect::<Vec<_>>();
    operations.insert(500, world.update("old", None, "b"));
    let rows = applied(world.write(2, &mut fence, &operations).await);
    assert_eq!(rows.len(), TRANSACTION_ROWS_MAX);
    // Only a row that went alone has a version to tell.
    let told = rows.iter().enumerate().filter(|(_, row)| !row.version.is_empty());
    assert_eq!(told.map(|(position, _)| position).collect::<Vec<_>>(), [500]);
    assert_eq!(rows[0].id, Some(world.id("1")));
    let count = world.system.count(&world.groups, None, TIMEOUT).await.expect("answers");
    assert_eq!(count, Some(TRANSACTION_ROWS_MAX as u64));
    let stored = world.read(&world.key("7")).await.expect("it is there");
    assert_eq!(stored.id, Some(world.id("7")));
    assert!(stored.values.contains(&Value::Guid(world.company)));
    // The fence has moved on with it, and a replay is known.
    assert_eq!(world.write(2, &mut fence, &operations).await, WriteOutcome::AlreadyApplied);
}

#[tokio::test]
async fn of_rows_that_go_together_the_refused_one_is_found_and_nothing_stays() {
    let world = World::new(SystemKind::Dataverse).await;
    let mut fence = world.fence().await;
    applied(world.write(1, &mut fence, &[world.create("old", "a")]).await);
    // One that is there already, in another row; and texts that do not fit. In the first and in the second probe.
    let mut twice = world.create("old", "a");
    twice.action = Action::Create { id: Some(world.id("new")) };
    for position in [0, 17, 994, TRANSACTION_ROWS_MAX - 1] {
        for (bad, code) in
            [(twice.clone(), Code::DuplicateKey), (world.create("new", &"x".repeat(61)), Code::TargetRejected)]
        {
            let mut operations =
                (1..TRANSACTION_ROWS_MAX).map(|number| world.create(&number.to_string(), "a")).collect::<Vec<_>>();
            operations.insert(position, bad);
            assert_eq!(rejected(world.write(2, &mut fence, &operations).await), (Some(position), code));
        }
    }
    assert_eq!(world.stored().await, rows(&[("old", "a")]));
    // The fence is where it was, and no receipt is left.
    applied(world.write(2, &mut fence, &[world.create("next", "a")]).await);
}

#[tokio::test]
async fn rows_are_read_by_many_addresses_in_their_order() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let (group, description) = world.columns();
        let awkward = ["1", "O'Neil", "a/b?c", "50%&+#", "ü \\ <>"];
        let mut fence = world.fence().await;
        let creates = awkward.iter().map(|name| world.create(name, "x")).collect::<Vec<_>>();
        applied(world.write(1, &mut fence, &creates).await);
        let mut addresses = awkward.iter().map(|name| world.key(name)).collect::<Vec<_>>();
        addresses.insert(2, world.key("nobody"));
        if kind == SystemKind::Dataverse {
            addresses.push(world.address("O'Neil"));
            addresses.push(Address::Id(Uuid::from_u128(77)));
            // No declared key, so it is looked for.
            addresses.push(Address::Key(vec![(Arc::from(description), Value::text("x"))]));
        }
        // More than one batch.
        let many = addresses.iter().cycle().take(addresses.len() * 300).collect::<Vec<_>>();
        let reads = many.iter().map(|address| (&*world.groups, *address)).collect::<Vec<_>>();
        let read = world.system.read_rows(&reads, TIMEOUT).await.expect("reads");
        let names = read
            .iter()
            .map(|row| {
                row.as_ref()
                    .expect("it can be read")
                    .as_ref()
                    .map_or("-".to_owned(), |row| row.values[world.index(group)].to_string())
            })
            .collect::<Vec<_>>();
        let mut wanted = vec!["1", "O'Neil", "-", "a/b?c", "50%&+#", "ü \\ <>"];
        if kind == SystemKind::Dataverse {
            let first = awkward.iter().min_by_key(|name| world.id(name)).expect("some");
            wanted.extend(["O'Neil", "-", first]);
        }
        assert_eq!(names.len(), many.len());
        for names in names.chunks(wanted.len()) {
            assert_eq!(names, wanted);
        }
    }
}

#[tokio::test]
async fn pages_hold_every_row_once() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let (group, _) = world.columns();
        let seeds = (0..2_500)
            .map(|number| {
                let row = match kind {
                    SystemKind::Finops => json!({"dataAreaId": "usmf", "CustomerGroupId": number.to_string()}),
                    SystemKind::Dataverse => json!({"msdyn_groupid": number.to_string()}),
                };
                row.as_object().expect("object").clone()
            })
            .collect::<Vec<Map<_, _>>>();
        assert_eq!(world.emulator.seed(&world.groups.schema.set, seeds).expect("seeds"), 2_500);
        // F&O knows no text functions, but a star in a value.
        let filter = match kind {
            SystemKind::Finops => format!("{group} ne '1*'"),
            SystemKind::Dataverse => format!("not startswith({group},'1')"),
        };
        for (filter, rows_max, wanted) in [(None, 998_usize, 2_500_usize), (Some(filter.as_str()), 300, 2_500 - 1_111)]
        {
            let (mut seen, mut pages, mut next) = (Vec::new(), 0_usize, None::<String>);
            loop {
                let page = world
                    .system
                    .read_page(&world.groups, filter, next.as_deref(), rows_max, TIMEOUT)
                    .await
                    .expect("a page");
                assert!(page.rows.len() <= rows_max);
                pages += 1;
                for row in &page.rows {
                    let row = world.groups.shape.decode(row.json.get()).expect("a row");
                    seen.push(row.values[world.index(group)].to_string());
                }
                match page.next {
                    Some(link) => next = Some(link),
                    None => break,
                }
            }
            assert_eq!((seen.len(), pages), (wanted, wanted.div_ceil(rows_max)));
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), wanted);
        }
    }
}

#[tokio::test]
async fn values_of_every_kind_come_back_as_they_were_sent() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let decimal = |text: &str| Value::Decimal(text.parse().expect("decimal"));
        let values = match kind {
            SystemKind::Finops => vec![
                ("Days", Value::Int(-3)),
                ("Limit", decimal("1234567890.123456")),
                ("Since", Value::Timestamp(1_704_164_645_000_000)),
                ("IsUsed", Value::text("Yes")),
            ],
            SystemKind::Dataverse => vec![
                ("msdyn_days", Value::Int(365)),
                ("msdyn_limit", decimal("1234567.89")),
                ("msdyn_since", Value::Timestamp(1_704_164_645_000_000)),
                ("msdyn_until", Value::Date(19_724)),
                ("msdyn_isused", Value::Boolean(true)),
                ("msdyn_kind", Value::Int(192_350_001)),
                ("msdyn_company", Value::Guid(world.company)),
            ],
        };
        let mut operation = world.create("10", "a");
        operation.values.retain(|(index, _)| world.groups.schema.column(*index).kind != Kind::Lookup);
        operation.values.extend(values.iter().map(|(name, value)| (world.index(name), value.clone())));
        let mut fence = world.fence().await;
        applied(world.write(1, &mut fence, &[operation]).await);
        let address = world.address("10");
        let read = world.read(&address).await.expect("a row");
        for (name, value) in &values {
            assert_eq!(&read.values[world.index(name)], value, "{name}");
        }
        if kind == SystemKind::Dataverse {
            // Everything can be emptied again, the reference included.
            let nulls = values.iter().map(|(name, _)| (world.index(name), Value::Null)).collect();
            let mut operation = world.update("10", None, "a");
            operation.values = nulls;
            applied(world.write(2, &mut fence, &[operation]).await);
            let read = world.read(&address).await.expect("a row");
            for (name, _) in &values {
                assert!(read.values[world.index(name)].is_empty(), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn the_delta_of_dataverse_tells_changes_and_deletes_once() {
    let world = World::new(SystemKind::Dataverse).await;
    let mut fence = world.fence().await;
    let creates = (0..7).map(|number| world.create(&number.to_string(), "a")).collect::<Vec<_>>();
    applied(world.write(1, &mut fence, &creates).await);

    // The entries up to the end of an answer, and the link to what comes after.
    let read = async |link: Option<String>| {
        let (mut entries, mut link) = (Vec::new(), link);
        loop {
            let page = world.system.read_delta(&world.groups, link.as_deref(), 3, TIMEOUT).await.expect("answers");
            let page = page.expect("it has not expired");
            for entry in page.entries {
                entries.push(match entry {
                    DeltaEntry::Row(row) => {
                        let row = world.groups.shape.decode(row.get()).expect("a row");
                        let (group, description) = world.columns();
                        assert!(row.etag.is_some());
                        format!("{}={}", row.values[world.index(group)], row.values[world.index(description)])
                    }
                    DeltaEntry::Deleted(id) => format!("deleted {}", u8::from(id == world.id("3"))),
                });
            }
            match (page.next, page.delta) {
                (Some(next), None) => link = Some(next),
                (None, Some(delta)) => {
                    entries.sort();
                    return (entries, delta);
                }
                other => panic!("a page ends with one link: {other:?}"),
            }
        }
    };
    let (all, delta) = read(None).await;
    assert_eq!(all, ["0=a", "1=a", "2=a", "3=a", "4=a", "5=a", "6=a"]);
    let (none, delta) = read(Some(delta)).await;
    assert!(none.is_empty());
    let operations = [
        world.update("1", None, "b"),
        world.delete("3", None),
        // The feed's own words in a row do not make it a deleted one.
        world.create("8", "$deletedEntity"),
    ];
    applied(world.write(2, &mut fence, &operations).await);
    applied(world.write(3, &mut fence, &[world.update("1", None, "c")]).await);
    let (changes, delta) = read(Some(delta)).await;
    assert_eq!(changes, ["1=c", "8=$deletedEntity", "deleted 1"]);
    assert!(read(Some(delta)).await.0.is_empty());
}

#[tokio::test]
async fn the_feed_of_finops_tells_whole_transactions_and_their_origin() {
    let world = World::new(SystemKind::Finops).await;
    assert_eq!(world.system.feed_head(TIMEOUT).await, Ok(0));
    let mut fence = world.fence().await;
    applied(world.write(1, &mut fence, &[world.create("10", "a"), world.create("20", "b")]).await);
    applied(world.write(2, &mut fence, &[world.update("10", None, "c"), world.delete("20", None)]).await);

    let entries = world.system.read_feed(0, 100, TIMEOUT).await.expect("answers");
    let shown = entries
        .iter()
        .map(|entry| {
            let row = world.groups.shape.decode(&entry.row).expect("a row");
            let before = if entry.before.is_empty() {
                "-".to_owned()
            } else {
                world.groups.shape.decode(&entry.before).expect("a row").values[2].to_string()
            };
            let origin = Uuid::parse_str(&entry.origin).expect("ours").as_u128();
            assert_eq!(entry.collection, "CustomerGroups");
            format!(
                "{origin} of {} {:?} {} {before} > {}",
                entry.transaction_size, entry.operation, row.values[1], row.values[2]
            )
        })
        .collect::<Vec<_>>();
    assert_eq!(
        shown,
        ["1 of 2 Insert 10 - > a", "1 of 2 Insert 20 - > b", "2 of 2 Update 10 a > c", "2 of 2 Delete 20 - > b"]
    );
    assert_eq!(entries[0].transaction_id, entries[1].transaction_id);
    assert_ne!(entries[1].transaction_id, entries[2].transaction_id);
    assert!(entries.windows(2).all(|pair| pair[0].control_number < pair[1].control_number));
    assert_eq!(entries[2].operation, FeedOperation::Update);

    let rest = world.system.read_feed(entries[1].control_number, 1, TIMEOUT).await.expect("answers");
    assert_eq!(rest.iter().map(|entry| entry.control_number).collect::<Vec<_>>(), [entries[2].control_number]);
    assert_eq!(world.system.feed_head(TIMEOUT).await, Ok(entries[3].control_number));
}

/// Makes a system fail as the rules say.
fn faults(world: &World, rules: serde_json::Value) {
    let rules: Vec<FaultRule> = serde_json::from_value(rules).expect("rules");
    world.emulator.add_faults(rules);
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_by_bump_and_receipt() {
    for kind in BOTH {
        for (action, was_applied) in [
            (json!({"kind": "reset"}), false),
            (json!({"kind": "applyThenReset"}), true),
            (json!({"kind": "answer", "status": 500}), false),
            (json!({"kind": "answer", "status": 503}), false),
            (json!({"kind": "answer", "status": 502, "afterApplying": true}), true),
        ] {
            let world = World::new(kind).await;
            let mut fence = world.fence().await;
            faults(&world, json!([{"match": {"method": "POST", "path": "$batch"}, "action": action}]));
            let outcome = world.write(1, &mut fence, &[world.create("10", "a")]).await;
            assert!(matches!(outcome, WriteOutcome::Unknown(_)), "{kind} {action}: {outcome:?}");
            world.system.bump_fence(&mut fence, TIMEOUT).await.expect("bumps");
            let transaction = TransactionId(Uuid::from_u128(1));
            assert_eq!(world.system.has_receipt(transaction, TIMEOUT).await, Ok(was_applied), "{kind} {action}");
            let again = world.write(1, &mut fence, &[world.create("10", "a")]).await;
            assert_eq!(matches!(again, WriteOutcome::AlreadyApplied), was_applied, "{kind} {action}: {again:?}");
            assert_eq!(world.stored().await, rows(&[("10", "a")]));
        }
    }
}

#[tokio::test]
async fn a_wait_that_is_asked_for_reaches_the_caller() {
    for kind in BOTH {
        // The request as a whole, or the first row of the change set.
        for operation in [false, true] {
            let world = World::new(kind).await;
            let mut fence = world.fence().await;
            let matching = match operation {
                true => json!({"method": "POST", "path": world.groups.schema.set, "operation": true}),
                false => json!({"method": "POST", "path": "$batch"}),
            };
            let action = json!({"kind": "answer", "status": 429, "code": "0x80072322", "retryAfter": 240});
            faults(&world, json!([{"match": matching, "action": action}]));
            match world.write(1, &mut fence, &[world.create("10", "a")]).await {
                WriteOutcome::Wait { after, fault } => {
                    assert_eq!((after, fault.code), (Duration::from_secs(240), Code::Throttled));
                }
                other => panic!("{kind} {operation}: {other:?}"),
            }
            assert_eq!(world.emulator.count(&world.groups.schema.set).expect("counts"), 0);
        }
    }
}

#[tokio::test]
async fn a_read_waits_as_it_is_told_and_is_sent_again() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let mut fence = world.fence().await;
        applied(world.write(1, &mut fence, &[world.create("10", "a")]).await);
        let action = json!({"kind": "answer", "status": 429, "retryAfter": 0});
        faults(&world, json!([{"match": {"times": 2}, "action": action}]));
        let address = world.key("10");
        assert!(world.read(&address).await.is_some());
        faults(&world, json!([{"match": {"times": 2}, "action": action}]));
        assert_eq!(world.stored().await, rows(&[("10", "a")]));
        // Longer than we have.
        let action = json!({"kind": "answer", "status": 503, "retryAfter": 300});
        faults(&world, json!([{"action": action}]));
        let fault = world.system.probe_empty(&world.groups, TIMEOUT).await.expect_err("it is refused");
        assert_eq!(fault.code, Code::Unavailable);
    }
}

#[tokio::test]
async fn a_delta_link_that_has_expired_is_told_apart() {
    let world = World::new(SystemKind::Dataverse).await;
    let page = world.system.read_delta(&world.groups, None, 100, TIMEOUT).await.expect("answers").expect("a page");
    let link = page.delta.expect("a link");
    assert!(world.system.read_delta(&world.groups, Some(&link), 100, TIMEOUT).await.expect("answers").is_some());
    world.emulator.expire_delta_links().expect("expires");
    assert!(world.system.read_delta(&world.groups, Some(&link), 100, TIMEOUT).await.expect("answers").is_none());
}
