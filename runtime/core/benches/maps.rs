//! What a map costs beside the same work written by hand: a row carried over, a filter judged. And how long the
//! validation of every shipped map takes, where the published tables are at hand.
//!
//! `cargo bench -p dualwright-core`. Both sides take turns, so that their ratio is of one run.

#[path = "../../../tests/src/measure.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the benches of the whole, its tests among it")]
mod measure;
#[path = "../tests/published/mod.rs"]
mod published;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use dualwright_core::filter::Filter;
use dualwright_core::lookup::LookupKey;
use dualwright_core::mapping::Mapping;
use dualwright_core::plan::{Flow, PlanInput, PlanSettings, compile};
use dualwright_core::schema::{Lookup, LookupTarget};
use dualwright_core::{Column, Kind, RowKey, Schema, SystemKind, Value};
use measure::{Table, take_turns, time, times};
use rust_decimal::{Decimal, RoundingStrategy};
use uuid::Uuid;

const ROWS: usize = 100;
const ROUNDS: usize = 2_000;

fn main() {
    let mut table = Table::default();
    rows(&mut table);
    filters(&mut table);
    validation(&mut table);
    table.print(&format!("Maps, {ROWS} rows, {ROUNDS} rounds"));
}

const MAP: &str = r#"{"name": "customers", "legs": [{"sourceSchema": "Customers V3", "destinationSchema": "accounts",
    "fieldMappings": [
    {"syncDirection": "3", "sourceField": "CUSTOMERACCOUNT", "destinationField": "accountnumber"},
    {"syncDirection": "3", "sourceField": "NAME", "destinationField": "name"},
    {"syncDirection": "3", "sourceField": "CREDITLIMIT", "destinationField": "creditlimit"},
    {"syncDirection": "3", "sourceField": "MEMO", "destinationField": "description",
        "valueTransforms": [{"transformType": "Truncate", "maxLength": 20}]},
    {"syncDirection": "3", "sourceField": "GROUPID", "destinationField": "msdyn_customergroupid.msdyn_groupid"},
    {"syncDirection": "3", "sourceField": "ONHOLD", "destinationField": "msdyn_onholdstatus", "valueTransforms": [
        {"transformType": "ValueMap", "valueMap": {"no": "806380000", "invoice": "806380001", "all": "806380002"}}]},
    {"syncDirection": "3", "sourceField": "ONETIME", "destinationField": "msdyn_onetime", "valueTransforms": [
        {"transformType": "ValueMap", "valueMap": {"no": "False", "yes": "True"}}]},
    {"syncDirection": "1", "sourceField": "none", "destinationField": "customertypecode",
        "valueTransforms": [{"transformType": "Default", "defaultValue": "3"}]},
    {"syncDirection": "3", "sourceField": "OPENED", "destinationField": "openedon"}]}]}"#;

fn finops() -> Schema {
    let options = |names: &[&str]| names.iter().zip(0..).map(|(name, number)| (Arc::from(*name), number)).collect();
    let choice = |name, names: &[&str]| Column { options: options(names), ..Column::new(name, Kind::Choice) };
    let columns = vec![
        Column::new("dataAreaId", Kind::Text),
        Column { required: true, ..Column::new("CustomerAccount", Kind::Text) },
        Column::new("Name", Kind::Text),
        Column::new("CreditLimit", Kind::Decimal),
        Column::new("Memo", Kind::Text),
        Column::new("GroupId", Kind::Text),
        choice("OnHold", &["No", "Invoice", "All"]),
        choice("OneTime", &["No", "Yes"]),
        Column::new("Opened", Kind::Timestamp),
    ];
    let mut schema = Schema::new(SystemKind::Finops, "CustomersV3", "CustomersV3", columns);
    (schema.key, schema.company) = (vec![0, 1], Some(0));
    schema
}

fn lookup(name: &str, table: &str, set: &str) -> Column {
    let target = LookupTarget { table: table.into(), set: set.into(), navigation_property: name.into() };
    Column { lookup: Some(Lookup { targets: vec![target] }), ..Column::new(name, Kind::Lookup) }
}

fn accounts() -> Schema {
    let columns = vec![
        Column { length_max: Some(20), ..Column::new("accountnumber", Kind::Text) },
        Column { length_max: Some(160), ..Column::new("name", Kind::Text) },
        Column { scale: Some(4), minimum: Some(Decimal::ZERO), ..Column::new("creditlimit", Kind::Money) },
        Column { length_max: Some(2_000), ..Column::new("description", Kind::Text) },
        lookup("msdyn_customergroupid", "msdyn_customergroup", "msdyn_customergroups"),
        Column::new("msdyn_onholdstatus", Kind::Int64),
        Column::new("msdyn_onetime", Kind::Boolean),
        Column::new("customertypecode", Kind::Int64),
        Column::new("openedon", Kind::Date),
        lookup("msdyn_company", "cdm_company", "cdm_companies"),
    ];
    let mut schema = Schema::new(SystemKind::Dataverse, "account", "accounts", columns);
    schema.company = Some(9);
    schema
}

fn table_of(set: &str) -> Option<Arc<Schema>> {
    let key = |name| Column { length_max: Some(20), ..Column::new(name, Kind::Text) };
    let schema = match set {
        "msdyn_customergroups" => {
            let columns = vec![key("msdyn_groupid"), lookup("msdyn_company", "cdm_company", "cdm_companies")];
            Schema::new(SystemKind::Dataverse, "msdyn_customergroup", set, columns)
        }
        "cdm_companies" => Schema::new(SystemKind::Dataverse, "cdm_company", set, vec![key("cdm_companycode")]),
        _ => return None,
    };
    Some(Arc::new(schema))
}

fn key_of(set: &str) -> Option<Vec<String>> {
    let key: &[&str] = match set {
        "accounts" => &["accountnumber", "msdyn_company.cdm_companycode"],
        "msdyn_customergroups" => &["msdyn_groupid", "msdyn_company.cdm_companycode"],
        "cdm_companies" => &["cdm_companycode"],
        _ => return None,
    };
    Some(key.iter().map(|path| (*path).to_owned()).collect())
}

fn source_rows() -> Vec<Vec<Value>> {
    let row = |number: usize| {
        vec![
            Value::text("usmf"),
            Value::text(format!("US-{number:06}")),
            Value::text(format!("Customer number {number}")),
            Value::Decimal(Decimal::new(number as i64 * 100_003, 5)),
            Value::text(["", "short", "a memo that is longer than twenty letters"][number % 3]),
            Value::text(["10", "20", "", "30"][number % 4]),
            Value::text(["No", "Invoice", "All"][number % 3]),
            Value::text(["No", "Yes"][number % 2]),
            Value::Timestamp(if number.is_multiple_of(5) {
                -2_208_988_800_000_000
            } else {
                number as i64 * 86_400_000_000
            }),
        ]
    };
    (0..ROWS).map(row).collect()
}

fn rows(table: &mut Table) {
    let (finops, dataverse) = (finops(), accounts());
    let mapping = Mapping::parse(MAP).expect("a map");
    let plan = compile(&PlanInput {
        leg: &mapping.legs[0],
        finops: &finops,
        dataverse: &dataverse,
        integration_key: &key_of("accounts").expect("a key"),
        tables: &table_of,
        key_of_set: &key_of,
        settings: PlanSettings::default(),
    })
    .unwrap_or_else(|problems| panic!("{problems:?}"));
    let flow = plan.to_dataverse.expect("a flow to Dataverse");
    let rows = source_rows();
    let mut by_key = HashMap::new();
    for (number, code) in ["10", "20", "30"].iter().enumerate() {
        by_key.insert(RowKey::new(Some("usmf"), &[Value::text(code)]), Uuid::from_u128(number as u128));
    }
    by_key.insert(RowKey::new(None, &[Value::text("usmf")]), Uuid::from_u128(99));
    let ids = |key: &LookupKey| by_key.get(&key.key).copied();
    let by_hand = |row: &[Value]| carried_by_hand(row, &by_key);
    for row in &rows {
        let (key, values) = carried(&flow, row, &ids);
        let (own_key, own_values) = by_hand(row);
        let named = |name: &str| {
            let index = dataverse.index_of(name).expect("a column");
            &values[flow.target_columns.iter().position(|&column| column == index).expect("a written column")]
        };
        assert_eq!(key, own_key);
        for (column, own) in dataverse.columns().iter().zip(&own_values) {
            assert_eq!(named(&column.name), own, "{}", column.name);
        }
    }
    let (of_plan, own) = take_turns(
        ROUNDS,
        1,
        || rows.iter().for_each(|row| drop(black_box(carried(&flow, black_box(row), &ids)))),
        || rows.iter().for_each(|row| drop(black_box(by_hand(black_box(row))))),
    );
    let projected = rows.iter().map(|row| flow.project(row, &()).expect("values")).collect::<Vec<_>>();
    let (of_key, of_fields) = take_turns(
        ROUNDS,
        1,
        || rows.iter().for_each(|row| drop(black_box(flow.key(black_box(row), &())))),
        || rows.iter().for_each(|row| drop(black_box(flow.project(black_box(row), &())))),
    );
    let (of_values, _) = take_turns(
        ROUNDS,
        1,
        || projected.iter().for_each(|row| drop(black_box(flow.finish(black_box(row), Some("usmf"), &ids, true)))),
        || {},
    );
    table.line("  its key", of_key.shown(|s| time(s / ROWS as f64)), "");
    table.line("  its fields", of_fields.shown(|s| time(s / ROWS as f64)), "");
    table.line("  its values", of_values.shown(|s| time(s / ROWS as f64)), "");
    table.line("a row by its plan", of_plan.shown(|s| time(s / ROWS as f64)), "");
    table.line("a row by hand", own.shown(|s| time(s / ROWS as f64)), "");
    table.line("plan by hand", of_plan.ratio(&own).shown(times), "at most 3");
}

fn carried(flow: &Flow, row: &[Value], ids: &dyn Fn(&LookupKey) -> Option<Uuid>) -> (RowKey, Vec<Value>) {
    let company = flow.company(row, &());
    let key = flow.key_in(company.as_deref(), row, &()).expect("a key");
    let fields = flow.project(row, &()).expect("values");
    let values = flow.finish(&fields, company.as_deref(), ids, true).expect("a row that fits");
    (key, values)
}

/// What an engineer would write for this map alone, with the same checks, the same ids by the same keys, and the same
/// answer.
fn carried_by_hand(row: &[Value], ids: &HashMap<RowKey, Uuid>) -> (RowKey, Vec<Value>) {
    let text = |index: usize| row[index].as_text().unwrap_or_default().trim_end();
    let checked = |text: &str, length_max: usize| -> Value {
        assert!(text.len() <= length_max || text.chars().count() <= length_max, "the text is too long");
        assert!(!text.bytes().any(|byte| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')), "the text is not one");
        if text.is_empty() { Value::Null } else { Value::text(text) }
    };
    let code = row[0].as_text().unwrap_or_default().trim().to_lowercase();
    let account = checked(text(1), 20);
    let key = RowKey::new(Some(&code), std::slice::from_ref(&account));
    let limit = match row[3] {
        Value::Decimal(limit) => limit.round_dp_with_strategy(4, RoundingStrategy::MidpointAwayFromZero),
        _ => panic!("the limit is no decimal"),
    };
    assert!(limit >= Decimal::ZERO, "the limit is negative");
    let memo = text(4);
    let memo = memo.char_indices().nth(20).map_or(memo, |(end, _)| &memo[..end]);
    let group = match text(5) {
        "" => Value::Null,
        _ => Value::Guid(ids[&RowKey::new(Some(&code), std::slice::from_ref(&row[5]))]),
    };
    let company = ids[&RowKey::new(None, std::slice::from_ref(&row[0]))];
    let on_hold = match text(6) {
        hold if hold.eq_ignore_ascii_case("no") => 806_380_000,
        hold if hold.eq_ignore_ascii_case("invoice") => 806_380_001,
        hold if hold.eq_ignore_ascii_case("all") => 806_380_002,
        _ => panic!("the value is not mapped"),
    };
    let one_time = match text(7) {
        flag if flag.eq_ignore_ascii_case("no") => false,
        flag if flag.eq_ignore_ascii_case("yes") => true,
        _ => panic!("the value is not mapped"),
    };
    let opened = match row[8] {
        Value::Timestamp(-2_208_988_800_000_000) => Value::Null,
        Value::Timestamp(micros) => Value::Date(micros.div_euclid(86_400_000_000) as i32),
        _ => Value::Null,
    };
    let values = vec![
        account,
        checked(text(2), 160),
        Value::Decimal(limit),
        checked(memo, 2_000),
        group,
        Value::Int(on_hold),
        Value::Boolean(one_time),
        Value::Int(3),
        opened,
        Value::Guid(company),
    ];
    (key, values)
}

fn filters(table: &mut Table) {
    let schema = finops();
    let rows = source_rows();
    let text =
        r#"((OnHold == "Invoice") && (CreditLimit > 100 || Name like "Customer number 1*") && (GroupId != "20"))"#;
    let filter = Filter::read(SystemKind::Finops, text, &schema).expect("a filter");
    let limit = Decimal::from(100);
    let by_hand = |row: &[Value]| {
        let text = |index: usize| row[index].as_text().unwrap_or_default().trim_end();
        let starts = |text: &str, start: &str| {
            text.len() >= start.len() && text.as_bytes()[..start.len()].eq_ignore_ascii_case(start.as_bytes())
        };
        text(6).eq_ignore_ascii_case("invoice")
            && (matches!(row[3], Value::Decimal(own) if own > limit) || starts(text(2), "customer number 1"))
            && !text(5).eq_ignore_ascii_case("20")
    };
    assert!(rows.iter().all(|row| filter.matches(row) == by_hand(row)));
    let passing = rows.iter().filter(|row| by_hand(row)).count();
    assert!(0 < passing && passing < ROWS);
    let count = |passes: &dyn Fn(&[Value]) -> bool| {
        let passing = rows.iter().filter(|row| passes(black_box(row))).count();
        black_box(passing);
    };
    let (of_filter, own) = take_turns(ROUNDS, 10, || count(&|row| filter.matches(row)), || count(&by_hand));
    table.line("a row by its filter", of_filter.shown(|s| time(s / ROWS as f64)), "");
    table.line("a row by hand", own.shown(|s| time(s / ROWS as f64)), "");
    table.line("filter by hand", of_filter.ratio(&own).shown(times), "at most 3");
}

fn validation(table: &mut Table) {
    let Some(data) = published::data() else { return };
    let schemas = published::Schemas::read(&data);
    let keys = published::keys(&data);
    let texts = published::map_files(&data).iter().map(|file| published::read(file)).collect::<Vec<_>>();
    let validate = || {
        let mut found = 0;
        for text in &texts {
            let mapping = Mapping::parse(text).expect("a map");
            for leg in &mapping.legs {
                let input = PlanInput {
                    leg,
                    finops: &schemas.finops[&leg.finops_entity.to_lowercase()],
                    dataverse: &schemas.dataverse[&leg.dataverse_set],
                    integration_key: keys.get(&leg.dataverse_set).map_or(&[], Vec::as_slice),
                    tables: &|set| schemas.dataverse.get(set).cloned(),
                    key_of_set: &|set| keys.get(set).cloned(),
                    settings: PlanSettings::default(),
                };
                found += compile(&input).map_or_else(|problems| problems.len(), |plan| plan.notices.len());
            }
        }
        black_box(found);
    };
    let (validated, _) = take_turns(20, 1, validate, || {});
    let what = format!("validation of {} shipped maps", texts.len());
    table.line(what, validated.shown(time), "under 1 s");
}
