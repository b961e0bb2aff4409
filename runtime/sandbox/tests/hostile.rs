//! What a hostile plugin can try, written by hand where no compiler would produce it: time, memory, returned values,
//! the allocator, the life cycle, other tenants.
//!
//! Every case of the table asserts the same: the right kind of fault and the right blame; ended within the limit and
//! two ticks; nothing of it left afterwards; a neighbour's calls right; the tenant's next transaction fine. Time is
//! ticks that this file makes; no test waits.

mod common;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use common::{HOSTILE, changed, context, names, run, slices, spec, ticking};
use dualwright_core::error::Code;
use dualwright_core::{Fault, Value};
use dualwright_sandbox::{
    Blame, CallContext, CallFault, ExtensionPoint, FaultKind, Installation, InstallationSpec, Limits, Sandbox,
    SandboxSettings, TenantLimits, Ticker, Warm,
};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding};

/// 20 ticks.
const HARD_LIMIT: Duration = Duration::from_millis(100);
const HARD_LIMIT_TICKS: u32 = 20;

/// A guest in the text format. Every function of the published world is there; a case replaces the body of some.
#[derive(Clone, Copy)]
struct Guest {
    /// Module fields: tables, globals, functions that a body calls.
    fields: &'static str,
    pages: u32,
    describe: &'static str,
    configure: &'static str,
    apply: &'static str,
    realloc: &'static str,
    post_return: &'static str,
}

const GUEST: Guest =
    Guest { fields: "", pages: 2, describe: "", configure: "", apply: "", realloc: "", post_return: "" };

impl Guest {
    /// Results lie at 512 and are zero, which means fine and nothing to say; the allocator begins at 64 KiB.
    fn text(&self) -> String {
        let Self { fields, pages, describe, configure, apply, realloc, post_return } = self;
        let configure_of = |name: &str, parameters: usize| {
            let parameters = "i32 ".repeat(parameters);
            format!(
                r#"(func (export "dualwright:{name}#configure") (param {parameters}) (result i32) {configure} i32.const 512)"#
            )
        };
        let unused = |name: &str, parameters: &str| {
            format!(r#"(func (export "dualwright:{name}") (param {parameters}) (result i32) unreachable)"#)
        };
        format!(
            r#"(module
                (import "dualwright:log/log@0.1.0" "log" (func $log (param i32 i32 i32)))
                (memory (export "memory") {pages})
                (global $next (mut i32) (i32.const 65536))
                (data (i32.const 1024) "\00\08\00\00\03\00\00\00\08\08\00\00\05\00\00\00")
                (data (i32.const 2048) "odd")
                (data (i32.const 2056) "0.1.0")
                {fields}
                (func $allocate (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
                    {realloc}
                    global.get $next
                    (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get $size) (i32.const 15)) (i32.const -16)))))
                (export "cabi_realloc" (func $allocate))
                (func (export "dualwright:plugin/describe@0.1.0#describe") (result i32) {describe} i32.const 1024)
                {transform_configure}
                (func (export "dualwright:transform/transform@0.1.0#apply") (param i32) (result i32) {apply} i32.const 512)
                (func (export "cabi_post_dualwright:transform/transform@0.1.0#apply") (param i32) {post_return})
                {rest}
            )"#,
            transform_configure = configure_of("transform/transform@0.1.0", 11),
            rest = [
                unused("transform/transform-back@0.1.0#apply", "i32"),
                configure_of("validate/pre@0.1.0", 11),
                unused("validate/pre@0.1.0#check", "i32"),
                configure_of("validate/post@0.1.0", 11),
                unused("validate/post@0.1.0#check", "i32"),
                configure_of("table-map/table-map@0.1.0", 13),
                unused("table-map/table-map@0.1.0#apply", "i32"),
                unused(
                    "table-map/table-map-back@0.1.0#apply",
                    "i32 i32 i32 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32"
                ),
                unused("table-map/declare@0.1.0#declare", "i32 i32"),
            ]
            .join("\n"),
        )
    }

    fn component(&self) -> Vec<u8> {
        /// The world that all these guests are of, as the compiled one carries it.
        static WORLD: LazyLock<DecodedWasm> = LazyLock::new(|| wit_component::decode(&HOSTILE).unwrap());
        let DecodedWasm::Component(resolve, world) = &*WORLD else { panic!("the hostile guest is a component") };
        let mut module = wat::parse_str(self.text()).unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
        wit_component::embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }
}

/// Where in its life a guest does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Admission,
    Installation,
    Call,
}

/// How a guest ends: where, with which kind of fault, and at which tick if it would go on for ever.
type End = (Stage, FaultKind, Option<u32>);

fn sandbox(change: impl FnOnce(&mut SandboxSettings)) -> Sandbox {
    common::sandbox(|settings| {
        settings.limits.hard_limit = HARD_LIMIT;
        settings.limits.wall_limit = 4 * HARD_LIMIT;
        change(settings);
    })
}

fn of_tenant(tenant: &str) -> InstallationSpec {
    InstallationSpec { tenant: tenant.into(), ..spec(ExtensionPoint::Transform, "upper") }
}

/// A compiled guest takes parameters that the hand-written ones do not declare.
fn of_tenant_bare(tenant: &str) -> InstallationSpec {
    InstallationSpec { parameters: serde_json::json!({}), ..of_tenant(tenant) }
}

fn good(sandbox: &Sandbox, tenant: &str) -> Arc<Installation> {
    sandbox.install(&sandbox.admit("good", &HOSTILE).unwrap(), of_tenant(tenant)).unwrap()
}

fn works(sandbox: &Sandbox, tenant: &str, installation: &Installation) -> bool {
    run(&mut sandbox.session(tenant, context()), installation, &["a"]) == Ok(vec![(0, "A".to_owned())])
}

/// Lives the guest's life until something goes wrong: where, what, the fault, and the ticks of its last call.
fn live(sandbox: &Sandbox, component: &[u8]) -> (Stage, Result<CallFault, Fault>, u32) {
    let (admitted, ticks) = ticking(sandbox, || sandbox.admit("odd", component));
    let plugin = match admitted {
        Ok(plugin) => plugin,
        Err(fault) => return (Stage::Admission, Err(fault), ticks),
    };
    let (installed, ticks) = ticking(sandbox, || sandbox.install(&plugin, of_tenant_bare("hostile")));
    let installation = match installed {
        Ok(installation) => installation,
        Err(fault) => return (Stage::Installation, Err(fault), ticks),
    };
    let mut session = sandbox.session("hostile", context());
    let (answer, ticks) = ticking(sandbox, || run(&mut session, &installation, &["secret"]));
    let Err(fault) = answer else { panic!("nothing went wrong: {answer:?}") };
    assert_eq!(sandbox.tenant_use("hostile").instances, 0, "what went wrong is gone while its transaction goes on");
    let (again, _) = ticking(sandbox, || run(&mut session, &installation, &["secret"]));
    assert_eq!(again.map_err(|fault| fault.kind), Err(fault.kind), "a fresh instance does the same");
    (Stage::Call, Ok(fault), ticks)
}

fn check(cases: &[(&str, Guest, End)]) {
    // Ticks come as fast as a guest looks, so where none goes on for ever no number of looks may convict.
    let timed = cases.iter().any(|(_, _, (.., limit_ticks))| limit_ticks.is_some());
    let sandbox = sandbox(|settings| {
        if !timed {
            settings.limits.hard_limit = Duration::from_secs(3_600);
            settings.limits.wall_limit = Duration::from_secs(3_600);
        }
    });
    let (own, neighbour) = (good(&sandbox, "hostile"), good(&sandbox, "neighbour"));
    for (case, guest, (stage, kind, limit_ticks)) in cases {
        println!("{case}");
        let (found, fault, ticks) = live(&sandbox, &guest.component());
        let text = match &fault {
            Ok(fault) => fault.to_string(),
            Err(fault) => fault.to_string(),
        };
        assert_eq!(found, *stage, "{case}: {text}");
        match fault {
            Ok(fault) => {
                assert_eq!((fault.kind, fault.blame()), (*kind, Blame::Plugin), "{case}: {text}");
                assert!(!text.contains("secret"), "{case}: {text}");
            }
            Err(fault) => {
                let wanted = match kind {
                    FaultKind::OwnTime => Code::PluginTimedOut,
                    FaultKind::Trap => Code::PluginTrapped,
                    FaultKind::Memory | FaultKind::Tables => Code::PluginOverMemory,
                    FaultKind::Invalid => Code::PluginInvalid,
                    _ => Code::PluginBadOutput,
                };
                assert_eq!(fault.code, wanted, "{case}: {text}");
            }
        }
        if let Some(limit_ticks) = limit_ticks {
            assert!((*limit_ticks..=limit_ticks + 2).contains(&ticks), "{case}: ended after {ticks} ticks");
        }
        for tenant in ["hostile", ""] {
            let left = sandbox.tenant_use(tenant);
            assert_eq!((left.instances, left.memory_bytes), (0, 0), "{case}: nothing of it is left");
        }
        assert!(works(&sandbox, "neighbour", &neighbour), "{case}: a neighbour");
        assert!(works(&sandbox, "hostile", &own), "{case}: the tenant's next transaction");
    }
}

const OWN_TIME: Option<u32> = Some(HARD_LIMIT_TICKS);

#[test]
fn nobody_runs_for_ever() {
    let in_call = (Stage::Call, FaultKind::OwnTime, OWN_TIME);
    check(&[
        ("in the export", Guest { apply: "(loop br 0)", ..GUEST }, in_call),
        (
            "in the start function",
            Guest { fields: "(func $begin (loop br 0)) (start $begin)", ..GUEST },
            (Stage::Admission, FaultKind::OwnTime, OWN_TIME),
        ),
        ("in describe", Guest { describe: "(loop br 0)", ..GUEST }, (Stage::Admission, FaultKind::OwnTime, OWN_TIME)),
        (
            "in configure",
            Guest { configure: "(loop br 0)", ..GUEST },
            (Stage::Installation, FaultKind::OwnTime, OWN_TIME),
        ),
        (
            "in the allocator",
            Guest { realloc: "(loop br 0)", ..GUEST },
            (Stage::Installation, FaultKind::OwnTime, OWN_TIME),
        ),
        ("after the return", Guest { post_return: "(loop br 0)", ..GUEST }, in_call),
        (
            "by cheap host calls",
            Guest { apply: "(loop (call $log (i32.const 0) (i32.const 2048) (i32.const 3)) br 0)", ..GUEST },
            in_call,
        ),
        (
            "by filling memory",
            Guest {
                pages: 128,
                apply: "(loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 8388608)) br 0)",
                ..GUEST
            },
            in_call,
        ),
        (
            "by copying memory",
            Guest {
                pages: 128,
                apply: "(loop (memory.copy (i32.const 0) (i32.const 1) (i32.const 8388607)) br 0)",
                ..GUEST
            },
            in_call,
        ),
        (
            "by filling a table",
            Guest {
                fields: "(table $t 15000 funcref)",
                apply: "(loop (table.fill $t (i32.const 0) (ref.null func) (i32.const 15000)) br 0)",
                ..GUEST
            },
            in_call,
        ),
        (
            "by calling itself in turns",
            Guest {
                fields: "(func $even (param i32) (result i32) (if (result i32) (i32.eqz (local.get 0)) (then i32.const 1) \
                         (else (call $even (i32.sub (local.get 0) (i32.const 1))))))",
                apply: "(loop (drop (call $even (i32.const 500))) br 0)",
                ..GUEST
            },
            in_call,
        ),
    ]);
}

#[test]
fn nobody_has_more_memory_than_granted() {
    let refused = |kind| (Stage::Call, kind, None);
    let grow_all = "(if (i32.eq (memory.grow (i32.const 2000)) (i32.const -1)) (then unreachable))";
    let grow_in_steps = "(loop (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) br 0)";
    check(&[
        ("at once", Guest { apply: grow_all, ..GUEST }, refused(FaultKind::Memory)),
        ("page by page", Guest { apply: grow_in_steps, ..GUEST }, refused(FaultKind::Memory)),
        ("from the start", Guest { pages: 1025, ..GUEST }, (Stage::Admission, FaultKind::Memory, None)),
        (
            "a table that grows",
            Guest {
                fields: "(table $t 1 funcref)",
                apply: "(if (i32.eq (table.grow $t (ref.null func) (i32.const 30000)) (i32.const -1)) (then unreachable))",
                ..GUEST
            },
            refused(FaultKind::Tables),
        ),
        (
            "two tables together",
            Guest { fields: "(table 12000 funcref) (table 12000 funcref)", ..GUEST },
            (Stage::Admission, FaultKind::Tables, None),
        ),
        (
            "many tables",
            Guest {
                fields: "(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)",
                ..GUEST
            },
            (Stage::Admission, FaultKind::Invalid, None),
        ),
        (
            "a stack without end",
            Guest { fields: "(func $deeper (call $deeper) (call $deeper))", apply: "(call $deeper)", ..GUEST },
            refused(FaultKind::Trap),
        ),
    ]);
}

#[test]
fn who_takes_a_refusal_well_is_not_punished() {
    let sandbox = sandbox(|_| {});
    let guest = Guest { apply: "(drop (memory.grow (i32.const 2000)))", ..GUEST };
    let plugin = sandbox.admit("modest", &guest.component()).unwrap();
    let installation = sandbox.install(&plugin, of_tenant_bare("default")).unwrap();
    assert_eq!(run(&mut sandbox.session("default", context()), &installation, &["a"]), Ok(vec![]));
}

/// Bodies of `apply` that put something at 512, where its result lies.
#[test]
fn returned_values_are_hostile_until_checked() {
    let answer = |apply: &'static str| Guest { apply, ..GUEST };
    let bad = (Stage::Call, FaultKind::Answer, None);
    check(&[
        ("a result beyond memory", answer("(return (i32.const -256))"), bad),
        ("a result that is not aligned", answer("(return (i32.const 513))"), bad),
        ("neither right nor wrong", answer("(i32.store8 (i32.const 512) (i32.const 7))"), bad),
        ("a gigabyte of columns in a small memory", answer("(i32.store (i32.const 520) (i32.const 40000000))"), bad),
        (
            "columns at the end of memory",
            answer("(i32.store (i32.const 516) (i32.const 131068)) (i32.store (i32.const 520) (i32.const 1))"),
            bad,
        ),
        (
            "columns that are not aligned",
            answer("(i32.store (i32.const 516) (i32.const 601)) (i32.store (i32.const 520) (i32.const 1))"),
            bad,
        ),
        (
            "a column that is not there",
            answer(
                "(i32.store (i32.const 516) (i32.const 600)) (i32.store (i32.const 520) (i32.const 1))
                 (i32.store16 (i32.const 600) (i32.const 77))",
            ),
            bad,
        ),
        (
            "offsets that are too few",
            answer(
                "(i32.store (i32.const 516) (i32.const 600)) (i32.store (i32.const 520) (i32.const 1))
                 (i32.store16 (i32.const 602) (i32.const 5))",
            ),
            bad,
        ),
        (
            "a failure with an unknown case",
            answer("(i32.store8 (i32.const 512) (i32.const 1)) (i32.store8 (i32.const 516) (i32.const 9))"),
            bad,
        ),
        (
            "a failure whose text is no UTF-8",
            answer(
                "(i32.store8 (i32.const 512) (i32.const 1)) (i32.store8 (i32.const 516) (i32.const 1))
                 (i32.store (i32.const 520) (i32.const 600)) (i32.store (i32.const 524) (i32.const 1))
                 (i32.store8 (i32.const 600) (i32.const 255))",
            ),
            bad,
        ),
        (
            "a failure with a text of 9 MiB",
            Guest {
                pages: 200,
                ..answer(
                    "(i32.store8 (i32.const 512) (i32.const 1)) (i32.store8 (i32.const 516) (i32.const 1))
                     (i32.store (i32.const 520) (i32.const 4096)) (i32.store (i32.const 524) (i32.const 9437184))",
                )
            },
            (Stage::Call, FaultKind::Transfer, None),
        ),
        (
            "a log line of 9 MiB",
            Guest { pages: 200, ..answer("(call $log (i32.const 1) (i32.const 4096) (i32.const 9437184))") },
            (Stage::Call, FaultKind::Transfer, None),
        ),
        ("a log line beyond memory", answer("(call $log (i32.const 1) (i32.const 131071) (i32.const 2))"), bad),
        ("a log line of no level", answer("(call $log (i32.const 9) (i32.const 2048) (i32.const 3))"), bad),
    ]);
}

#[test]
fn an_allocator_can_hurt_its_guest_alone() {
    let at = |realloc: &'static str, kind| (Guest { realloc, ..GUEST }, (Stage::Installation, kind, None));
    let (unaligned, answer) = at("(return (i32.const 65537))", FaultKind::Answer);
    let (beyond, _) = at("(return (i32.const -16))", FaultKind::Answer);
    let (trapping, trap) = at("unreachable", FaultKind::Trap);
    let (calling, _) = at("(call $log (i32.const 0) (i32.const 2048) (i32.const 3))", FaultKind::Trap);
    check(&[
        ("unaligned", unaligned, answer),
        ("beyond memory", beyond, answer),
        ("traps", trapping, trap),
        ("calls the host", calling, trap),
    ]);
    // The same place for everything: what it was given overlaps, and only it will see that.
    let sandbox = sandbox(|_| {});
    let overlapping = Guest { realloc: "(return (i32.const 65536))", ..GUEST };
    let plugin = sandbox.admit("odd", &overlapping.component()).unwrap();
    let installation = sandbox.install(&plugin, of_tenant_bare("default")).unwrap();
    assert_eq!(run(&mut sandbox.session("default", context()), &installation, &["a", "b"]), Ok(vec![]));
}

#[test]
fn a_busy_machine_convicts_nobody() {
    let sandbox = sandbox(|_| {});
    let plugin = sandbox.admit("odd", &Guest { apply: "(loop br 0)", ..GUEST }.component()).unwrap();
    let installation = sandbox.install(&plugin, of_tenant_bare("hostile")).unwrap();
    let cases = [
        // Half of the machine: twice the ticks, and still its own doing.
        (50, FaultKind::OwnTime, Blame::Plugin, Code::PluginTimedOut, 39..=41),
        // A tenth: the wall clock ends it first, and nobody blames the plugin.
        (10, FaultKind::WallTime, Blame::Host, Code::HostOverloaded, 80..=82),
    ];
    for (percent, kind, blame, code, wanted) in cases {
        sandbox.set_cpu_percent(percent);
        let mut session = sandbox.session("hostile", context());
        let (answer, ticks) = ticking(&sandbox, || run(&mut session, &installation, &["a"]));
        let fault = answer.unwrap_err();
        assert_eq!((fault.kind, fault.blame(), fault.fault.code), (kind, blame, code), "{fault}");
        assert!(wanted.contains(&ticks), "{percent} %: {ticks} ticks");
    }
}

#[test]
fn a_chain_of_plugins_draws_on_one_purse() {
    let sandbox = sandbox(|_| {});
    let plugin = sandbox.admit("odd", &Guest { apply: "(loop br 0)", ..GUEST }.component()).unwrap();
    let chain: Vec<_> = (0..10).map(|_| sandbox.install(&plugin, of_tenant_bare("hostile")).unwrap()).collect();
    // Enough for four and a half of them.
    let deadline = sandbox.now() + 9 * HARD_LIMIT / 2;
    let purse = CallContext { deadline, ..context() };
    let mut session = sandbox.session("hostile", purse);
    let mut kinds = Vec::new();
    for installation in &chain {
        let left_ms = deadline.saturating_duration_since(sandbox.now()).as_millis();
        let left_ticks = u32::try_from(left_ms / (HARD_LIMIT.as_millis() / u128::from(HARD_LIMIT_TICKS))).unwrap();
        let (answer, ticks) = ticking(&sandbox, || run(&mut session, installation, &["a"]));
        let fault = answer.unwrap_err();
        kinds.push(fault.kind);
        if fault.kind == FaultKind::Budget {
            assert_eq!((fault.fault.code, fault.blame()), (Code::BudgetSpent, Blame::Transaction), "{fault}");
            assert!(ticks <= left_ticks + 2, "{ticks} of {left_ticks}");
        }
    }
    let convicted = kinds.iter().take_while(|kind| **kind == FaultKind::OwnTime).count();
    assert!((3..=4).contains(&convicted), "{kinds:?}");
    assert!(kinds[convicted..].iter().all(|kind| *kind == FaultKind::Budget), "the rest gets what is left, or nothing");
    assert!(sandbox.timings()[0].faults as usize == convicted, "and is not blamed");
}

#[test]
fn a_tenant_that_holds_everything_stops_itself_alone() {
    let sandbox = sandbox(|settings| {
        settings.tenant = TenantLimits { instances_max: 3, memory_bytes_max: 40 << 20, ..TenantLimits::default() };
    });
    let grow =
        Guest { apply: "(if (i32.eq (memory.grow (i32.const 256)) (i32.const -1)) (then unreachable))", ..GUEST };
    let plugin = sandbox.admit("odd", &grow.component()).unwrap();
    let greedy = sandbox.install(&plugin, of_tenant_bare("greedy")).unwrap();
    let neighbour = good(&sandbox, "neighbour");
    let own = good(&sandbox, "greedy");

    // Each session keeps an instance of 16 MiB alive.
    let mut first = sandbox.session("greedy", context());
    let mut second = sandbox.session("greedy", context());
    run(&mut first, &greedy, &["a"]).unwrap();
    run(&mut second, &greedy, &["a"]).unwrap();
    let fault = run(&mut sandbox.session("greedy", context()), &greedy, &["a"]).unwrap_err();
    assert_eq!((fault.kind, fault.blame()), (FaultKind::TenantMemory, Blame::Tenant), "{fault}");
    assert_eq!(fault.fault.code, Code::TenantLimitReached);

    let mut third = sandbox.session("greedy", context());
    run(&mut third, &own, &["a"]).unwrap();
    let fault = run(&mut sandbox.session("greedy", context()), &own, &["a"]).unwrap_err();
    assert_eq!((fault.kind, fault.blame()), (FaultKind::TenantInstances, Blame::Tenant), "{fault}");
    assert!(works(&sandbox, "neighbour", &neighbour));
    drop((first, second, third));
    assert!(works(&sandbox, "greedy", &own), "nothing is held any more");
}

#[test]
fn nothing_is_found_in_the_place_of_another_tenant() {
    // One place in the pool, so that the second tenant gets the first one's.
    let sandbox = common::sandbox(|settings| settings.instances_max = 1);
    let fill =
        Guest { pages: 256, apply: "(memory.fill (i32.const 65536) (i32.const 171) (i32.const 16711680))", ..GUEST };
    let grow_and_look = "(local $at i32)
        (drop (memory.grow (i32.const 240)))
        (local.set $at (i32.const 131072))
        (loop
            (if (i32.load (local.get $at)) (then unreachable))
            (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (i32.const 15728640))))";
    let look = Guest { pages: 2, apply: grow_and_look, ..GUEST };
    let admit = |guest: &Guest| sandbox.admit("odd", &guest.component()).unwrap();
    let (fill, look) = (admit(&fill), admit(&look));
    let one = sandbox.install(&fill, of_tenant_bare("one")).unwrap();
    let other = sandbox.install(&look, of_tenant_bare("other")).unwrap();
    for _ in 0..3 {
        run(&mut sandbox.session("one", context()), &one, &["a"]).unwrap();
        run(&mut sandbox.session("other", context()), &other, &["a"]).unwrap();
    }
}

#[test]
fn an_instance_is_used_again_only_where_that_was_asked_for() {
    let sandbox = sandbox(|_| {});
    let plugin = sandbox.admit("hostile", &HOSTILE).unwrap();
    let install = |tenant: &str, mode: &str, warm| {
        let limits = Limits { warm, ..sandbox.settings().limits };
        let spec = InstallationSpec { limits: Some(limits), ..spec(ExtensionPoint::Transform, mode) };
        sandbox.install(&plugin, InstallationSpec { tenant: tenant.into(), ..spec }).unwrap()
    };
    let warm = Some(Warm { transactions_max: 3, ..Warm::default() });
    let (cold, one, other) = (install("a", "calls", None), install("a", "calls", warm), install("b", "calls", warm));
    let calls = |tenant: &str, installation: &Installation| {
        let answer = run(&mut sandbox.session(tenant, context()), installation, &["a"]).unwrap();
        answer[0].1.parse::<u32>().unwrap()
    };
    let counted: Vec<_> = (0..5).map(|_| (calls("a", &cold), calls("a", &one), calls("b", &other))).collect();
    assert_eq!(
        counted,
        [(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 1, 1), (1, 2, 2)],
        "three transactions each, and not shared"
    );

    let trapping = install("a", "trap-on-x", warm);
    let live_before = sandbox.tenant_use("a").instances;
    run(&mut sandbox.session("a", context()), &trapping, &["a"]).unwrap();
    assert_eq!(sandbox.tenant_use("a").instances, live_before + 1, "it waits for the next transaction");
    run(&mut sandbox.session("a", context()), &trapping, &["x"]).unwrap_err();
    assert_eq!(sandbox.tenant_use("a").instances, live_before, "what trapped is never entered again");
}

/// Polls without an async runtime: the calls run on threads of the sandbox.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[test]
fn a_call_that_is_dropped_ends_at_the_next_tick_and_its_session_with_it() {
    let sandbox = sandbox(|_| {});
    let plugin = sandbox.admit("odd", &Guest { apply: "(loop br 0)", ..GUEST }.component()).unwrap();
    let installation = sandbox.install(&plugin, of_tenant_bare("hostile")).unwrap();
    let mut session = sandbox.queued_session(&"hostile".into(), context());
    let seen: Arc<Mutex<Option<CallFault>>> = Arc::default();
    {
        let (seen, installation) = (seen.clone(), installation.clone());
        let mut call = Box::pin(session.run(move |calls| {
            let rows = names(&["a"]);
            let answer = calls.transform(&installation, &changed(1), &slices(&rows));
            *seen.lock().unwrap() = answer.err();
        }));
        // It is under way as soon as it holds an instance.
        while sandbox.tenant_use("hostile").instances == 0 {
            assert!(poll(call.as_mut()).is_pending());
            std::thread::yield_now();
        }
    }
    let ticks = sandbox.tick_until(|| seen.lock().unwrap().is_some());
    let fault = seen.lock().unwrap().take().unwrap();
    assert_eq!((fault.kind, fault.blame()), (FaultKind::Cancelled, Blame::Transaction), "{fault}");
    assert!(ticks <= 2, "{ticks}");
    while sandbox.tenant_use("hostile").instances != 0 || sandbox.tenant_use("hostile").calls_in_flight != 0 {
        std::thread::yield_now();
    }
    let mut call = Box::pin(session.run(|_| ()));
    assert!(matches!(poll(call.as_mut()), std::task::Poll::Ready(Err(_))), "the session went with the call");
}

#[test]
fn a_flood_of_calls_waits_in_its_own_line() {
    let sandbox = sandbox(|settings| settings.threads = 1);
    let plugin = sandbox.admit("odd", &Guest { apply: "(loop br 0)", ..GUEST }.component()).unwrap();
    let looping = sandbox.install(&plugin, of_tenant_bare("hostile")).unwrap();
    // Ticks come as fast as its looks here, so only a limit that no looks of one call reach leaves it alone.
    let patient =
        Limits { hard_limit: Duration::from_secs(3_600), wall_limit: Duration::from_secs(3_600), ..Limits::default() };
    let good = sandbox
        .install(
            &sandbox.admit("good", &HOSTILE).unwrap(),
            InstallationSpec { limits: Some(patient), ..of_tenant("neighbour") },
        )
        .unwrap();
    let order: Arc<Mutex<Vec<&str>>> = Arc::default();
    let call = |tenant: &'static str, installation: &Arc<Installation>| {
        let (order, installation) = (order.clone(), installation.clone());
        let mut session = sandbox.queued_session(&tenant.into(), context());
        let mut call = Box::pin(async move {
            session
                .run(move |calls| {
                    let rows = names(&["a"]);
                    let answer = calls.transform(&installation, &changed(1), &slices(&rows));
                    order.lock().unwrap().push(tenant);
                    answer.map(|patch| patch.cells[0].2 == Value::text("A"))
                })
                .await
        });
        assert!(poll(call.as_mut()).is_pending());
        call
    };
    let flood: Vec<_> = (0..30).map(|_| call("hostile", &looping)).collect();
    let mut neighbour = call("neighbour", &good);
    sandbox.tick_until(|| order.lock().unwrap().contains(&"neighbour"));
    assert!(order.lock().unwrap().len() <= 3, "after one round: {:?}", order.lock().unwrap());
    let answer = loop {
        if let std::task::Poll::Ready(answer) = poll(neighbour.as_mut()) {
            break answer;
        }
        std::thread::yield_now();
    };
    assert_eq!(answer, Ok(Ok(true)));
    drop(flood);
    sandbox.tick_until(|| {
        sandbox.tenant_use("hostile").calls_in_flight + sandbox.tenant_use("hostile").calls_waiting == 0
    });
}

#[test]
fn instructions_are_counted_exactly() {
    let count = || {
        let sandbox = common::sandbox(|settings| settings.fuel = true);
        let plugin = sandbox.admit("hostile", &HOSTILE).unwrap();
        let installation = sandbox.install(&plugin, of_tenant("default")).unwrap();
        for _ in 0..2 {
            run(&mut sandbox.session("default", context()), &installation, &["a", "b"]).unwrap();
        }
        let timing = sandbox.timings().remove(0);
        (timing.fuel.unwrap(), timing.setup_fuel.unwrap())
    };
    let (calls, setup) = count();
    assert_eq!((calls, setup), count(), "in another engine as well");
    assert!(0 < setup && 0 < calls && calls % 2 == 0, "{calls} {setup}");
    let plain = common::sandbox(|_| {});
    let installation = plain.install(&plain.admit("hostile", &HOSTILE).unwrap(), of_tenant("default")).unwrap();
    run(&mut plain.session("default", context()), &installation, &["a"]).unwrap();
    assert_eq!(plain.timings()[0].fuel, None, "nobody pays for it who did not ask");
    assert_eq!(plain.settings().ticker, Ticker::Manual);
}
