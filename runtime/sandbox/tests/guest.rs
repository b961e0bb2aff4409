//! Guests that behave, misbehave and break off, through the sandbox as the host uses it.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{HOSTILE, changed, context, names, run, sandbox, slices, source, spec, ticking};
use dualwright_core::error::Code;
use dualwright_core::schema::{Lookup, LookupTarget};
use dualwright_core::{Column, Kind, Operation, Schema, SystemKind, Value};
use dualwright_sandbox::{
    CallContext, ExtensionPoint, Installation, InstallationSpec, Limits, MappedReference, Part, RowInfo, Sandbox,
    SandboxSettings, Severity,
};
use serde_json::json;

fn installed(sandbox: &Sandbox, spec: InstallationSpec) -> Arc<Installation> {
    sandbox.install(&sandbox.admit("hostile", &HOSTILE).unwrap(), spec).unwrap()
}

fn transform(sandbox: &Sandbox, mode: &str) -> Arc<Installation> {
    installed(sandbox, spec(ExtensionPoint::Transform, mode))
}

fn some(rows: &[[Value; 2]]) -> Vec<Option<&[Value]>> {
    rows.iter().map(|row| Some(row.as_slice())).collect()
}

#[test]
fn a_transform_answers_with_the_cells_it_changes() {
    let sandbox = sandbox(|_| {});
    let upper = transform(&sandbox, "upper");
    assert_eq!(upper.plugin.points.len(), 4, "{:?}", upper.plugin.points);
    assert!(
        upper.plugin.transforms_back
            && upper.plugin.maps_back
            && upper.plugin.declares_maps
            && upper.plugin.description.reads_before
    );
    let mut session = sandbox.session("default", context());
    assert_eq!(run(&mut session, &upper, &["a", "ä"]).unwrap(), [(0, "A".into()), (1, "Ä".into())]);

    let rows = [[Value::Null, Value::Null], [Value::Absent, Value::Null], [Value::text("b"), Value::Null]];
    let patch = session.transform(&upper, &changed(3), &slices(&rows)).unwrap();
    assert_eq!(patch.cells, [(2, 0, Value::text("B"))]);

    let rows = names(&["LOUD"]);
    let patch = session.transform_back(&upper, &changed(1), &slices(&rows)).unwrap();
    assert_eq!(patch.cells, [(0, 0, Value::text("loud"))]);
    assert!(Duration::ZERO < session.spent(&upper));
}

#[test]
fn every_kind_survives_the_way_there_and_back() {
    let sandbox = sandbox(|_| {});
    let value = |kind: Kind| match kind {
        Kind::Boolean => vec![Value::Boolean(true), Value::Boolean(false)],
        Kind::Int64 => vec![Value::Int(i64::MIN), Value::Int(i64::MAX)],
        Kind::Float64 => vec![Value::Float(-0.5), Value::Float(f64::MAX)],
        Kind::Decimal | Kind::Money => vec!["-12.5", "0", "7922816251426433.7593543950", "0.0000000001"]
            .into_iter()
            .map(|digits| Value::Decimal(digits.parse().unwrap()))
            .collect(),
        Kind::Text => vec![Value::text(""), Value::text("O'Brien\n👩‍🚀")],
        Kind::Timestamp => vec![Value::Timestamp(-2_208_988_800_000_000), Value::Timestamp(1)],
        Kind::Date => vec![Value::Date(-25_567), Value::Date(20_000)],
        Kind::Guid | Kind::Lookup => vec![Value::Guid(uuid::Uuid::from_u128(7)), Value::Guid(uuid::Uuid::max())],
        Kind::Bytes => vec![Value::Bytes(Arc::from([0, 255])), Value::Bytes(Arc::from([]))],
        Kind::Json => vec![Value::text("{\"a\":[1]}"), Value::text("null")],
        Kind::Choice => vec![Value::text("Yes"), Value::text("100000001")],
        Kind::MultiChoice => vec![Value::text("1,2"), Value::text("")],
    };
    let kinds: Vec<Kind> = (1..=14).map(|code| Kind::from_code(code).unwrap()).collect();
    let columns = kinds.iter().map(|kind| Column::new(format!("{kind:?}"), *kind)).collect();
    let echo = installed(
        &sandbox,
        InstallationSpec {
            source: Arc::new(Schema::new(SystemKind::Dataverse, "thing", "things", columns)),
            writable: (0..kinds.len()).collect(),
            ..spec(ExtensionPoint::Transform, "echo")
        },
    );
    let rows: Vec<Vec<Value>> = (0..6)
        .map(|row| {
            kinds
                .iter()
                .map(|kind| match row {
                    4 => Value::Null,
                    5 => Value::Absent,
                    row => value(*kind)[row % value(*kind).len()].clone(),
                })
                .collect()
        })
        .collect();
    let given: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
    let mut session = sandbox.session("default", context());
    let patch = session.transform(&echo, &changed(rows.len()), &given).unwrap();
    let mut returned = vec![vec![Value::Absent; kinds.len()]; rows.len()];
    for (row, column, value) in patch.cells {
        returned[row][column] = value;
    }
    assert_eq!(returned, rows);
}

#[test]
fn a_guest_is_told_what_it_may_know() {
    let sandbox = sandbox(|_| {});
    let context_told = transform(&sandbox, "context");
    let rows = names(&["a", "b", "c"]);
    let row = |operation, creating, company| RowInfo { operation, creating, company };
    let info = [
        row(Operation::Upsert, true, "USMF"),
        row(Operation::Upsert, false, ""),
        row(Operation::Delete, false, "demf"),
    ];
    let mut session = sandbox.session("default", context());
    let patch = session.transform(&context_told, &info, &slices(&rows)).unwrap();
    let told: Vec<String> = patch.cells.iter().map(|(_, _, value)| value.to_string()).collect();
    assert_eq!(
        told,
        [
            "1 usmf 1700000000000000 42 3 System::Dataverse",
            "2  1700000000000000 42 3 System::Dataverse",
            "3 demf 1700000000000000 42 3 System::Dataverse",
        ]
    );

    let before = transform(&sandbox, "before");
    let images = names(&["was a", "was b"]);
    let images = [Some(images[0].as_slice()), None, Some(images[1].as_slice())];
    let patch = session.transform_changes(&before, &info, &slices(&rows), &images).unwrap();
    assert_eq!(patch.cells, [(0, 0, Value::text("was a")), (2, 0, Value::text("was b"))]);
}

#[test]
fn what_a_guest_does_wrong_is_named_and_ends_its_instance() {
    use Code::*;
    let cases = [
        ("trap", PluginTrapped, "trapped: wasm trap: wasm `unreachable` instruction executed, in "),
        ("recursion", PluginTrapped, "(too deep a recursion ends like this as well)"),
        ("memory", PluginOverMemory, "needed more than the 64 MiB that it may have"),
        ("huge", PluginBadOutput, "invalid answer: more than 8 MiB at once"),
        ("not-granted", PluginBadOutput, "the column is not granted for writing [column OTHER]"),
        ("no-such-column", PluginBadOutput, "column 99 of 2"),
        ("twice", PluginBadOutput, "the column is there twice [column NAME]"),
        ("wrong-kind", PluginBadOutput, "kind 2 instead of 5 [column NAME]"),
        ("too-many-rows", PluginBadOutput, "3 states for 2 rows [column NAME]"),
        ("state", PluginBadOutput, "state 7 in row 0 [column NAME]"),
        ("offsets", PluginBadOutput, "row 0 ends behind the data [column NAME]"),
        ("utf8", PluginBadOutput, "invalid UTF-8 at byte 0 [column NAME]"),
        ("issue-flood", PluginBadOutput, "100000 issues for 2 rows"),
        ("issue-row", PluginBadOutput, "an issue for row 2 of 2"),
        ("issue-argument", PluginBadOutput, "an issue with an argument of 100000 bytes"),
        ("failed", PluginFailed, "failed: no luck"),
    ];
    let sandbox = sandbox(|_| {});
    let upper = transform(&sandbox, "upper");
    for (mode, code, wanted) in cases {
        let hostile = transform(&sandbox, mode);
        let mut session = sandbox.session("default", context());
        let fault = run(&mut session, &hostile, &["secret one", "secret two"]).expect_err(mode).fault;
        let shown = fault.to_string();
        assert_eq!(fault.code, code, "{mode}: {shown}");
        assert!(shown.contains(wanted), "{mode}: {shown}");
        assert!(shown.contains("plugin hostile 0.1.0 (map things)") && !shown.contains("secret"), "{mode}: {shown}");
        assert!(run(&mut session, &hostile, &["again"]).is_err(), "{mode}: a fresh instance does the same");
        assert_eq!(run(&mut session, &upper, &["a"]).unwrap(), [(0, "A".into())], "{mode}: others go on");
    }
    let faults: u64 = sandbox.timings().iter().map(|timing| timing.faults).sum();
    assert_eq!(faults, 2 * cases.len() as u64);
}

#[test]
fn a_guest_that_asks_for_patience_is_heard() {
    let sandbox = sandbox(|_| {});
    let retry = transform(&sandbox, "retry");
    let fault = run(&mut sandbox.session("default", context()), &retry, &["a"]).unwrap_err();
    assert_eq!((fault.fault.code, fault.retry_after), (Code::PluginFailed, Some(Duration::from_millis(250))));
}

#[test]
fn a_text_too_long_for_its_column_concerns_its_row_alone() {
    let sandbox = sandbox(|_| {});
    let long = transform(&sandbox, "long");
    let rows = names(&["a"]);
    let patch = sandbox.session("default", context()).transform(&long, &changed(1), &slices(&rows)).unwrap();
    assert!(patch.cells.is_empty());
    let [issue] = patch.issues.as_slice() else { panic!("{:?}", patch.issues) };
    assert_eq!((issue.row, issue.column, issue.severity), (0, Some(0), Severity::Error));
    assert_eq!((issue.fault.code, issue.fault.column.as_deref()), (Code::TextTooLong, Some("NAME")));
}

#[test]
fn an_endless_loop_ends_at_the_hard_limit_or_with_the_budget() {
    let sandbox = sandbox(|_| {});
    let looping = transform(&sandbox, "loop");
    let cases = [
        (Duration::from_secs(120), Code::PluginTimedOut, "ran past its limit of 2000 ms"),
        (Duration::from_secs(1), Code::BudgetSpent, "the transaction had"),
        (Duration::ZERO, Code::BudgetSpent, "was not called: the transaction's budget is spent"),
    ];
    for (left, code, wanted) in cases {
        let context = CallContext { deadline: sandbox.now() + left, ..context() };
        let mut session = sandbox.session("default", context);
        let fault = ticking(&sandbox, || run(&mut session, &looping, &["a"])).0.unwrap_err().fault;
        assert_eq!(fault.code, code, "{fault}");
        assert!(fault.message.contains(wanted), "{fault}");
    }
    // By the clock, too: this is the only test that waits, for as long as the limit.
    let sandbox = Sandbox::new(SandboxSettings {
        limits: Limits { hard_limit: Duration::from_millis(50), ..Limits::default() },
        ..SandboxSettings::default()
    });
    let sandbox = sandbox.unwrap();
    let looping = transform(&sandbox, "loop");
    let fault = run(&mut sandbox.session("default", context()), &looping, &["a"]).unwrap_err().fault;
    assert_eq!(fault.code, Code::PluginTimedOut, "{fault}");
}

#[test]
fn ticks_below_the_limit_end_nothing() {
    let sandbox = sandbox(|settings| settings.limits.hard_limit = Duration::from_millis(50));
    let upper = transform(&sandbox, "upper");
    let mut session = sandbox.session("default", context());
    for _ in 0..10 {
        // The limit counts from the entry of each call: what passed before it does not matter.
        sandbox.tick(1_000);
        assert_eq!(run(&mut session, &upper, &["a"]).unwrap(), [(0, "A".into())]);
    }
}

#[test]
fn state_lives_for_one_transaction_of_one_tenant() {
    let sandbox = sandbox(|_| {});
    let calls = transform(&sandbox, "calls");
    for tenant in ["default", "default", "other"] {
        let mut session = sandbox.session(tenant, context());
        for wanted in ["1", "2", "3"] {
            assert_eq!(run(&mut session, &calls, &["a"]).unwrap(), [(0, wanted.into())], "{tenant}");
        }
    }
}

#[test]
fn an_instance_is_fresh_after_a_trap() {
    let sandbox = sandbox(|_| {});
    let trapping = transform(&sandbox, "trap-on-x");
    let mut session = sandbox.session("default", context());
    assert!(run(&mut session, &trapping, &["a", "b"]).is_ok());
    assert_eq!(run(&mut session, &trapping, &["a", "x"]).unwrap_err().fault.code, Code::PluginTrapped);
    assert!(run(&mut session, &trapping, &["a"]).is_ok(), "the host halves until it has the one");
    let timing = &sandbox.timings()[0];
    // One at installation, one for the session, one after the trap.
    assert_eq!((timing.calls, timing.rows, timing.faults, timing.instances), (3, 5, 1, 3));
}

#[test]
fn memory_is_counted_over_all_instances_of_a_tenant() {
    let sandbox = sandbox(|settings| {
        settings.limits.memory_bytes_max = 256 << 20;
        settings.tenant.memory_bytes_max = 100 << 20;
    });
    let memory = transform(&sandbox, "memory");
    let upper = transform(&sandbox, "upper");
    let mut session = sandbox.session("default", context());
    let fault = run(&mut session, &memory, &["a"]).unwrap_err().fault;
    assert_eq!(fault.code, Code::PluginOverMemory);
    assert!(fault.message.contains("the 100 MiB that its tenant may have"), "{fault}");
    assert!(run(&mut session, &upper, &["a"]).is_ok(), "what the dropped instance held was given back");
}

#[test]
fn large_calls_are_cut_and_look_whole() {
    let sandbox = sandbox(|settings| settings.limits.slice_bytes_max = 4096);
    let (upper, calls) = (transform(&sandbox, "upper"), transform(&sandbox, "calls"));
    let given: Vec<String> = (0..500).map(|row| format!("row {row}")).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let mut session = sandbox.session("default", context());
    let wanted: Vec<_> = (0..500).map(|row| (row, format!("ROW {row}"))).collect();
    assert_eq!(run(&mut session, &upper, &given).unwrap(), wanted);
    let slices = run(&mut session, &calls, &given).unwrap().pop().unwrap().1;
    assert_eq!(slices, "3", "each of 4 KiB at most");
    assert_eq!(sandbox.timings()[0].calls, 2);

    let sandbox = self::sandbox(|settings| settings.limits.transfer_in_bytes_max = 1 << 20);
    let upper = transform(&sandbox, "upper");
    let long = "x".repeat(5 << 20);
    let fault = run(&mut sandbox.session("default", context()), &upper, &["a", &long]).unwrap_err().fault;
    assert_eq!(fault.code, Code::TooLarge, "{fault}");
}

#[test]
fn a_flood_of_log_lines_is_cut() {
    let sandbox = sandbox(|_| {});
    let log = transform(&sandbox, "log");
    assert!(run(&mut sandbox.session("default", context()), &log, &["a"]).is_ok());
    let timing = &sandbox.timings()[0];
    assert!(timing.guest_micros + timing.host_call_micros <= 60_000_000, "{timing:?}");
}

#[test]
fn validators_report_rows() {
    let sandbox = sandbox(|_| {});
    let rows = names(&["good", "bad", "new"]);
    let others = names(&["good", "worse"]);
    let others = [Some(others[0].as_slice()), Some(others[1].as_slice()), None];
    let mut session = sandbox.session("default", context());
    for point in [ExtensionPoint::PreValidate, ExtensionPoint::PostValidate] {
        let validator = installed(&sandbox, spec(point, "check"));
        let issues = match point {
            ExtensionPoint::PreValidate => session.pre_validate(&validator, &changed(3), &others, &slices(&rows)),
            _ => session.post_validate(&validator, &changed(3), &slices(&rows), &others),
        };
        let issues = issues.unwrap();
        let shown: Vec<String> =
            issues.iter().map(|issue| format!("{} {:?} {}", issue.row, issue.severity, issue.fault)).collect();
        assert_eq!(
            shown,
            [
                "1 Error DW-1101: hostile: the name has 3 letters [column NAME] [bad-name]",
                "1 Warning DW-1101: hostile: differs [column NAME] [differs]",
                "2 Warning DW-1101: hostile: differs [column NAME] [differs]",
            ],
            "{point:?}"
        );
    }
    let validator = installed(&sandbox, spec(ExtensionPoint::PreValidate, "check"));
    assert!(session.pre_validate(&validator, &changed(1), &[], &slices(&rows[..1])).unwrap().is_empty());
}

fn table_map(sandbox: &Sandbox, mode: &str) -> Arc<Installation> {
    let table = |name: &str, columns| Arc::new(Schema::new(SystemKind::Dataverse, name, &format!("{name}s"), columns));
    let mut parent = Column::new("parent", Kind::Lookup);
    let target = LookupTarget { table: "account".into(), set: "accounts".into(), navigation_property: "parent".into() };
    parent.lookup = Some(Lookup { targets: vec![target] });
    let targets = vec![
        table("account", vec![Column::new("name", Kind::Text)]),
        table("contact", vec![Column::new("fullname", Kind::Text), parent]),
    ];
    installed(sandbox, InstallationSpec { targets, ..spec(ExtensionPoint::TableMap, mode) })
}

#[test]
fn a_table_map_splits_and_merges() {
    let sandbox = sandbox(|settings| settings.limits.slice_bytes_max = 64);
    let split = table_map(&sandbox, "split");
    let rows = names(&["Ann", "Bob", "Cyd", "Dan", "Eve"]);
    let mut session = sandbox.session("default", context());
    let mapped = session.table_map(&split, &changed(5), &slices(&rows)).unwrap();
    let [accounts, contacts] = mapped.tables.as_slice() else { panic!("{mapped:?}") };
    for (row, name) in ["Ann", "Bob", "Cyd", "Dan", "Eve"].into_iter().enumerate() {
        assert_eq!((accounts.rows[row].source, &accounts.rows[row].values), (row, &vec![Value::text(name)]));
        let contact = &contacts.rows[row];
        assert_eq!(contact.values, [Value::text(name.to_lowercase()), Value::Absent]);
        assert_eq!(contact.references, [MappedReference { column: 1, table: 0, row }], "slices are joined");
    }
    let deleted = table_map(&sandbox, "map-delete");
    let mapped = session.table_map(&deleted, &changed(1), &slices(&rows[..1])).unwrap();
    assert_eq!(mapped.tables[0].rows[0].operation, Operation::Delete);

    let (ann, bob, smith) = ([Value::text("Ann")], [Value::text("Bob")], [Value::text(" Smith"), Value::Null]);
    let info = changed(2);
    let parts = [
        Part { table: 0, info: &info, rows: &[&ann, &bob], source_rows: &[0, 1] },
        Part { table: 1, info: &info[..1], rows: &[&smith], source_rows: &[0] },
    ];
    let current = names(&["Ann Jones", "Bob"]);
    let merged = session.table_map_back(&split, &parts, &some(&current)).unwrap();
    let shown: Vec<_> = merged.rows.iter().map(|row| (row.operation, row.values[0].to_string())).collect();
    assert_eq!(shown, [(Some(Operation::Upsert), "Ann Smith".into()), (None, "Bob".into())]);
}

#[test]
fn a_table_map_that_breaks_a_rule_is_refused() {
    let sandbox = sandbox(|_| {});
    let cases = [
        ("map-action", "action 9 in row 0"),
        ("map-source-row", "source row 2 of 2 in row 0"),
        ("map-table", "target table 7 of 2"),
        ("map-table-twice", "target table 0 is there twice"),
        ("map-reference", "a reference to a row that is not there in row 0 [column parent]"),
        ("map-reference-column", "a reference in column 0, which is no writable lookup"),
        ("map-reference-twice", "two references in one cell in row 0 [column parent]"),
        ("map-too-many", "34 rows for target table 0 from 2 source rows"),
    ];
    let rows = names(&["a", "b"]);
    for (mode, wanted) in cases {
        let hostile = table_map(&sandbox, mode);
        let mut session = sandbox.session("default", context());
        let fault = session.table_map(&hostile, &changed(2), &slices(&rows)).expect_err(mode).fault;
        assert_eq!(fault.code, Code::PluginBadOutput, "{mode}: {fault}");
        assert!(fault.to_string().contains(wanted), "{mode}: {fault}");
    }
}

#[test]
fn an_installation_is_judged_before_any_transaction() {
    let sandbox = sandbox(|_| {});
    let plugin = sandbox.admit("hostile", &HOSTILE).unwrap();
    let good = || spec(ExtensionPoint::Transform, "upper");
    let cases: Vec<(InstallationSpec, Code, &[&str])> = vec![
        (
            InstallationSpec { parameters: json!({ "times": 11, "colour": 1 }), ..good() },
            Code::PluginRefused,
            &["parameter colour is unknown", "parameter mode is required", "parameter times must be at most 10"],
        ),
        (InstallationSpec { writable: vec![5], ..good() }, Code::PluginRefused, &["column 5 of 2 is to be writable"]),
        (
            InstallationSpec { targets: vec![source()], ..good() },
            Code::PluginRefused,
            &["a table map has target tables"],
        ),
        (
            spec(ExtensionPoint::Transform, "configure-refuse"),
            Code::PluginRefused,
            &["refuses: parameter mode: no such mode; column NAME: must be shorter"],
        ),
        (spec(ExtensionPoint::Transform, "configure-trap"), Code::PluginTrapped, &["unreachable"]),
        (spec(ExtensionPoint::Transform, "configure-loop"), Code::PluginTimedOut, &["2000 ms"]),
    ];
    for (spec, code, wanted) in cases {
        let fault = ticking(&sandbox, || sandbox.install(&plugin, spec)).0.unwrap_err();
        assert_eq!(fault.code, code, "{fault}");
        for wanted in wanted {
            assert!(fault.message.contains(wanted), "{fault}");
        }
    }
}

#[test]
fn maps_are_declared_as_data() {
    let sandbox = sandbox(|_| {});
    let plugin = sandbox.admit("hostile", &HOSTILE).unwrap();
    let maps = sandbox.declared_maps(&plugin, &json!({ "mode": "any" })).unwrap();
    let fields: Vec<String> = maps[0].legs[0].fields.iter().map(ToString::to_string).collect();
    assert_eq!(
        (maps[0].name.as_str(), fields),
        ("declared", vec!["NAME >< name".into(), "GROUP = groupid.code".into()])
    );
    let fault = sandbox.declared_maps(&plugin, &json!({ "mode": "declare-broken" })).unwrap_err();
    assert_eq!(fault.code, Code::MapInvalid, "{fault}");
}

#[test]
fn time_is_booked_by_what_it_was_spent_on() {
    let sandbox = sandbox(|settings| settings.limits.goal = Duration::ZERO);
    let (upper, log) = (transform(&sandbox, "upper"), transform(&sandbox, "log"));
    for _ in 0..3 {
        let mut session = sandbox.session("default", context());
        for _ in 0..2 {
            run(&mut session, &upper, &["a", "b"]).unwrap();
        }
        run(&mut session, &log, &["a"]).unwrap();
    }
    let timings = sandbox.timings();
    let [timing] = timings.as_slice() else { panic!("{timings:?}") };
    assert_eq!((timing.calls, timing.rows, timing.faults), (9, 15, 0));
    assert_eq!(timing.over_goal, 3, "per transaction, whatever the number of installations");
    assert!(0.0 < timing.budget_share_max && timing.budget_share_max < 1.0, "{timing:?}");
    assert!(0 < timing.host_call_micros && 0 < timing.memory_peak_bytes, "{timing:?}");
    assert!(timing.p50_micros <= timing.p99_micros && timing.p99_micros <= timing.max_micros, "{timing:?}");
}

#[test]
fn compiled_code_is_kept_and_a_changed_entry_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let with_cache = || sandbox(|settings| settings.cache = Some(folder.path().to_owned()));
    let entry = || {
        let mut entries: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "code"))
            .collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.pop().unwrap()
    };
    with_cache().admit("hostile", &HOSTILE).unwrap();
    let good = std::fs::read(entry()).unwrap();
    with_cache().admit("hostile", &HOSTILE).unwrap();

    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle..middle + 64].fill(0xcc);
    std::fs::write(entry(), &bad).unwrap();
    let sandbox = with_cache();
    let upper = transform(&sandbox, "upper");
    assert_eq!(run(&mut sandbox.session("default", context()), &upper, &["a"]).unwrap(), [(0, "A".into())]);
    assert_ne!(std::fs::read(entry()).unwrap(), bad, "it was compiled and written again");
}

/// Components that no compiler would make.
mod text {
    use super::*;

    const WRONG_TYPES: &str = r#"(component
        (core module $m (func (export "f") (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func $f (result u32) (canon lift (core func $i "f")))
        (instance $describe (export "describe" (func $f)))
        (instance $transform (export "configure" (func $f)) (export "apply" (func $f)))
        (export "dualwright:plugin/describe@0.1.0" (instance $describe))
        (export "dualwright:transform/transform@0.1.0" (instance $transform)))"#;

    fn with_module(module: &str) -> String {
        WRONG_TYPES.replace("(core module $m", &format!("(core module $m {module}"))
    }

    #[test]
    fn admission_says_what_is_wrong_with_a_file() {
        let component = |text: &str| wat::parse_str(text).unwrap();
        let mut large = component("(component)");
        large.resize(11 << 20, 0);
        let cases: Vec<(&str, Vec<u8>, Code, &[&str])> = vec![
            (
                "foreign imports",
                component(
                    r#"(component
                        (import "wasi:cli/environment@0.2.0" (instance (export "get-environment" (func))))
                        (import "wasi:clocks/wall-clock@0.2.0" (instance))
                        (import "dualwright:log/log@0.2.0" (instance))
                        (import "run" (func)))"#,
                ),
                Code::PluginInvalid,
                &["wasi:cli/environment@0.2.0, wasi:clocks/wall-clock@0.2.0, dualwright:log/log@0.2.0, run"],
            ),
            (
                "a function that the host does not have",
                component(r#"(component (import "dualwright:log/log@0.1.0" (instance (export "shout" (func)))))"#),
                Code::PluginInvalid,
                &["its imports do not fit this host", "shout"],
            ),
            ("no description", component("(component)"), Code::PluginInvalid, &["does not export dualwright:plugin/"]),
            (
                "no extension point",
                component(&WRONG_TYPES.replace("transform@0.1.0", "transform@0.9.0")),
                Code::PluginInvalid,
                &["no extension point that this host knows", "dualwright:transform/transform@0.9.0"],
            ),
            (
                "a missing function",
                component(&WRONG_TYPES.replace(r#"(export "apply" (func $f))"#, "")),
                Code::PluginInvalid,
                &["apply"],
            ),
            ("wrong types", component(WRONG_TYPES), Code::PluginInvalid, &["does not have the published type"]),
            ("a core module", component("(module)"), Code::PluginInvalid, &["a core module, not a component"]),
            ("not WebAssembly", b"#!/bin/sh".to_vec(), Code::PluginInvalid, &["not WebAssembly"]),
            ("empty", vec![], Code::PluginInvalid, &["not WebAssembly"]),
            ("too large", large, Code::PluginInvalid, &["11 MiB are too large, 10 are accepted"]),
            ("cut short", component(WRONG_TYPES)[..40].to_vec(), Code::PluginInvalid, &["not a valid component"]),
            (
                "threads",
                component(&with_module("(memory 1 1 shared)")),
                Code::PluginInvalid,
                &["not a valid component", "threads"],
            ),
            ("64-bit memory", component(&with_module("(memory i64 1)")), Code::PluginInvalid, &["memory64"]),
            (
                "a start function that never ends",
                component(&with_module("(func $s (loop br 0)) (start $s)")),
                Code::PluginTimedOut,
                &["2000 ms"],
            ),
            (
                "a start function that traps",
                component(&with_module("(func $s unreachable) (start $s)")),
                Code::PluginTrapped,
                &["unreachable"],
            ),
            ("200 MB from the start", component(&with_module("(memory 3200)")), Code::PluginOverMemory, &["64 MiB"]),
            (
                "many core instances",
                component(&WRONG_TYPES.replace(
                    "(core instance $i",
                    &format!("(core module $n) {} (core instance $i", "(core instance (instantiate $n)) ".repeat(16)),
                )),
                Code::PluginOverMemory,
                &["is made of more parts than it may have: instance count too high at 17"],
            ),
            (
                "many memories",
                component(&WRONG_TYPES.replace(
                    "(core instance $i",
                    &format!(
                        "(core module $n (memory 1)) {} (core instance $i",
                        "(core instance (instantiate $n)) ".repeat(3)
                    ),
                )),
                Code::PluginOverMemory,
                &["is made of more parts than it may have: memory count too high at 3"],
            ),
            (
                "two tables that are too large together",
                component(&with_module("(table 15000 funcref)").replace(
                    "(core instance $i",
                    "(core module $n (table 15000 funcref)) (core instance (instantiate $n)) (core instance $i",
                )),
                Code::PluginOverMemory,
                &["larger tables than the 20000 elements it may have"],
            ),
        ];
        let sandbox = sandbox(|_| {});
        for (case, bytes, code, wanted) in cases {
            let fault = ticking(&sandbox, || sandbox.admit("odd", &bytes)).0.expect_err(case);
            assert_eq!(fault.code, code, "{case}: {fault}");
            for wanted in wanted {
                assert!(fault.message.contains(wanted), "{case}: {fault}");
            }
        }
    }

    #[test]
    fn compiled_code_is_never_accepted_as_a_plugin() {
        let engine = wasmtime::Engine::default();
        let compiled = engine.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap();
        let fault = sandbox(|_| {}).admit("odd", &compiled).unwrap_err();
        assert!(fault.message.contains("compiled code, which is never accepted"), "{fault}");
    }
}
