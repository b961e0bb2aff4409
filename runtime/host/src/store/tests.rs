//! The store from outside: what is kept, what is kept together, and whose it is.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use dualwright_core::{Code, Fault, RowKey, SystemKind, TransactionId, Value};
use uuid::Uuid;

use super::*;

const MAP: &str = "customers";

fn scope(tenant: &str) -> Scope {
    Scope { tenant: Arc::from(tenant), link: Arc::from("contoso") }
}

fn key(name: &str) -> RowKey {
    RowKey::new(Some("usmf"), [&Value::Text(name.into())])
}

fn transaction(number: u128) -> TransactionId {
    TransactionId(Uuid::from_u128(number))
}

fn reference(id: u128) -> CrossReference {
    CrossReference {
        dataverse_id: Some(Uuid::from_u128(id)),
        finops_key: None,
        finops_version: Arc::from(format!("W/\"{id}\"")),
        dataverse_version: Arc::from("W/\"7\""),
        finops_hash: Some([1; 16]),
        dataverse_hash: None,
        deleted: false,
        last_transaction: Some(transaction(id)),
        last_sequence: 3,
    }
}

fn delivery(token: &str) -> NewDelivery {
    NewDelivery {
        transaction: transaction(1),
        source: SystemKind::Finops,
        source_token: token.to_owned(),
        atomic: false,
        payload: format!("payload of {token}").into_bytes(),
        rows: 2,
        captured_at: 1_000,
        retry_of: None,
    }
}

fn capture(tokens: &[&str]) -> Capture {
    Capture { deliveries: tokens.iter().map(|token| delivery(token)).collect(), watermarks: Vec::new() }
}

fn failure(name: &str, sequence: i64) -> NewFailed {
    NewFailed {
        map: Arc::from(MAP),
        source: SystemKind::Finops,
        key: format!("usmf/{name}"),
        row_key: Some(key(name)),
        transaction: transaction(9),
        fault: Fault::new(Code::TextTooLong, "too long").column("name").foreign("0x80044331"),
        payload: Arc::from(format!("change {sequence} of {name}").into_bytes()),
        atomic: false,
        attempts: 1,
        at: 100 + sequence,
        sequence,
        waiting_for_parent: false,
    }
}

fn failing(records: Vec<NewFailed>) -> Settlement {
    Settlement { failed: records, ..Settlement::default() }
}

async fn all_failed(store: &Store, scope: &Scope) -> Vec<FailedRecord> {
    store.failed(scope, FailedFilter::default()).await.expect("failed records")
}

async fn due(store: &Store, scope: &Scope) -> Vec<Delivery> {
    store.due(scope, 1 << 40, 100).await.expect("deliveries")
}

/// One of everything.
async fn fill(store: &Store, scope: &Scope, id: u128) {
    let watermarks = vec![("finops/changes".to_owned(), id.to_string())];
    let deliveries = vec![delivery("a"), delivery("b")];
    assert_eq!(store.capture(scope, Capture { deliveries, watermarks }).await, Ok(2));
    let fault = Fault::new(Code::Unavailable, "no answer");
    store
        .settle(
            scope,
            Settlement {
                delivery: Some((1, Fate::Retry { not_before: 50, fault })),
                cross_references: vec![(Arc::from(MAP), key("c1"), reference(id))],
                failed: vec![failure("c2", 1)],
                counts: vec![(Arc::from(MAP), SystemKind::Finops, Counts { rows: 2, created: 1, ..Counts::default() })],
                activity: vec![NewActivity { at: 5, map: None, kind: "note", text: id.to_string() }],
                cursor: Some(("initial-sync/customers".to_owned(), id.to_string())),
                ..Settlement::default()
            },
        )
        .await
        .expect("settles");
    let intent = Intent {
        transaction: transaction(1),
        side: SystemKind::Finops,
        state: IntentState::Sent,
        epoch: 1,
        request_hash: [4; 32],
        deadline: i64::try_from(id).expect("small"),
    };
    store.put_intent(scope, intent).await.expect("an intent");
    store.save_plugin_timings(scope, "trim/transform", &id.to_string()).await.expect("timings");
}

/// What every read function answers, in words. A read function that is added belongs here.
async fn read_all(store: &Store, scope: &Scope) -> Vec<(&'static str, String)> {
    let ids = (0..5).map(Uuid::from_u128).collect::<Vec<_>>();
    let everything = FailedFilter::default;
    vec![
        ("cross_references", format!("{:?}", store.cross_references(scope, MAP, &[key("c1"), key("c2")]).await)),
        ("cross_references_by_id", format!("{:?}", store.cross_references_by_id(scope, MAP, &ids).await)),
        ("cross_reference_count", format!("{:?}", store.cross_reference_count(scope, MAP).await)),
        ("all_keys", format!("{:?}", store.all_keys(scope, MAP, None, 10).await)),
        ("watermark", format!("{:?}", store.watermark(scope, "finops/changes").await)),
        ("due", format!("{:?}", store.due(scope, 1 << 40, 100).await)),
        ("backlog", format!("{:?}", store.backlog(scope).await)),
        ("cursor", format!("{:?}", store.cursor(scope, "initial-sync/customers").await)),
        ("counts", format!("{:?}", store.counts(scope).await)),
        ("activity", format!("{:?}", store.activity(scope, 10).await)),
        ("failed", format!("{:?}", store.failed(scope, everything()).await)),
        ("failed_count", format!("{:?}", store.failed_count(scope, everything()).await)),
        ("open_intents", format!("{:?}", store.open_intents(scope).await)),
        ("intent", format!("{:?}", store.intent(scope, transaction(1), SystemKind::Finops).await)),
        ("plugin_timings", format!("{:?}", store.plugin_timings(scope).await)),
    ]
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep").join("state");
    let store = Store::open(&path).expect("opens");
    fill(&store, &scope("a"), 3).await;
    let before = read_all(&store, &scope("a")).await;
    assert!(before.iter().all(|(_, answer)| answer.starts_with("Ok(")), "{before:#?}");
    store.close().await;
    assert!(store.backlog(&scope("a")).await.is_err(), "a closed store answers nothing");
    assert!(store.capture(&scope("a"), capture(&["z"])).await.is_err());

    let store = Store::open(&path).expect("opens again");
    assert_eq!(read_all(&store, &scope("a")).await, before);
    drop(store);
    let store = Store::open(&path).expect("the folder is free as soon as the store is gone");
    assert_eq!(read_all(&store, &scope("a")).await, before);
}

#[tokio::test]
async fn tenants_never_see_each_others_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let other_link = Scope { tenant: Arc::from("a"), link: Arc::from("fabrikam") };
    let empty = read_all(&store, &scope("a")).await;
    fill(&store, &scope("a"), 3).await;
    let of_a = read_all(&store, &scope("a")).await;
    for ((name, before), (_, after)) in empty.iter().zip(&of_a) {
        assert_ne!(before, after, "{name} has nothing to show, so this test shows nothing");
    }
    assert_eq!(read_all(&store, &scope("b")).await, empty);
    assert_eq!(read_all(&store, &other_link).await, empty);

    // The same keys, tokens, sequences and ids.
    fill(&store, &scope("b"), 4).await;
    fill(&store, &other_link, 4).await;
    assert_eq!(read_all(&store, &scope("a")).await, of_a);
    let one_only = ["cross_reference_count", "due", "backlog", "counts", "failed", "failed_count"];
    for ((name, of_a), (_, of_b)) in of_a.iter().zip(read_all(&store, &scope("b")).await) {
        assert_eq!(*of_a == of_b, one_only.contains(name), "{name}: {of_b}");
    }

    // Writes of one leave the other as it is.
    let of_b = read_all(&store, &scope("b")).await;
    store.requeue(&scope("a"), &[1], 1).await.expect("requeues");
    let all = Settlement {
        delivery: Some((1, Fate::Complete)),
        resolved: vec![(Arc::from(MAP), SystemKind::Finops, key("c2"))],
        resolved_ids: vec![1],
        ..Settlement::default()
    };
    store.settle(&scope("a"), all).await.expect("settles");
    store.close_intent(&scope("a"), transaction(1), SystemKind::Finops, true).await.expect("closes");
    assert_eq!(read_all(&store, &scope("b")).await, of_b);
}

#[tokio::test]
async fn a_repeated_capture_is_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    assert_eq!(store.capture(&scope, capture(&["x", "y", "x"])).await, Ok(2));
    let done = Settlement { delivery: Some((1, Fate::Complete)), ..Settlement::default() };
    store.settle(&scope, done).await.expect("settles");
    // Also after it was carried over; the watermark moves all the same.
    let watermarks = vec![("feed".to_owned(), "12".to_owned())];
    assert_eq!(store.capture(&scope, Capture { watermarks, ..capture(&["x", "z"]) }).await, Ok(1));
    assert_eq!(store.watermark(&scope, "feed").await, Ok(Some("12".to_owned())));
    // The same token of the other system is other work.
    let mut other = capture(&["x"]);
    other.deliveries[0].source = SystemKind::Dataverse;
    assert_eq!(store.capture(&scope, other).await, Ok(1));
    let sequences = due(&store, &scope).await.iter().map(|delivery| delivery.sequence).collect::<Vec<_>>();
    assert_eq!(sequences, [2, 3, 4]);
}

#[tokio::test]
async fn tokens_are_forgotten_by_number_and_age_but_not_while_their_delivery_waits() {
    // Tokens 1 to 5; 1 and 2 are captured long before the others.
    for (settled, up_to, before, kept) in [
        (&[][..], 3, 0, &["1", "2", "3", "4", "5"][..]),
        (&[1, 2, 3, 4, 5], 3, 0, &["4", "5"]),
        (&[1, 2, 3, 4, 5], 0, 500, &["3", "4", "5"]),
        (&[1, 3, 4, 5], 5, 9_999, &["2", "3", "4", "5"]),
        (&[1, 2, 3, 4, 5], 0, 0, &["1", "2", "3", "4", "5"]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let scope = scope("a");
        let mut work = capture(&["1", "2", "3", "4", "5"]);
        for delivery in &mut work.deliveries[..2] {
            delivery.captured_at = 10;
        }
        store.capture(&scope, work.clone()).await.expect("captures");
        for &sequence in settled {
            let done = Settlement { delivery: Some((sequence, Fate::Complete)), ..Settlement::default() };
            store.settle(&scope, done).await.expect("settles");
        }
        let owned = scope.clone();
        store
            .write("forget", move |connection| outbox::forget_tokens(connection, &owned, up_to, before))
            .await
            .expect("forgets");
        let again = store.capture(&scope, work).await.expect("captures again");
        assert_eq!(again as usize, 5 - kept.len(), "settled {settled:?}, up to {up_to}, before {before}");
    }
}

#[tokio::test]
async fn deliveries_come_in_order_when_they_are_due() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let mut work = capture(&["a", "b", "c", "d"]);
    work.deliveries[3].source = SystemKind::Dataverse;
    store.capture(&scope, work).await.expect("captures");
    let fault = Fault::new(Code::Throttled, "slow down").foreign("429");
    let retry = async || {
        let fate = Fate::Retry { not_before: 700, fault: fault.clone() };
        let settlement = Settlement { delivery: Some((2, fate)), ..Settlement::default() };
        store.settle(&scope, settlement).await.expect("settles");
    };
    let check = async |now, limit, sequences: &[i64]| {
        let due = store.due(&scope, now, limit).await.expect("deliveries");
        assert_eq!(due.iter().map(|due| due.sequence).collect::<Vec<_>>(), sequences, "at {now}, at most {limit}");
    };
    check(0, 9, &[1, 2, 3, 4]).await;
    retry().await;
    // The second one waits, and whatever its source did later with it.
    for (now, limit, sequences) in
        [(0, 9, &[1, 4][..]), (699, 9, &[1, 4]), (700, 9, &[1, 2, 3, 4]), (700, 2, &[1, 2]), (700, 0, &[])]
    {
        check(now, limit, sequences).await;
    }
    let second = store.due(&scope, 700, 9).await.expect("deliveries").remove(1);
    assert_eq!((second.attempt, second.payload.as_slice()), (1, &b"payload of b"[..]));
    let backlog = store.backlog(&scope).await.expect("a backlog");
    let wanted =
        Backlog { deliveries: 4, rows: 8, oldest_captured_at: Some(1_000), retrying: 1, fault: Some(fault.clone()) };
    assert_eq!(backlog, wanted);
    // What can be held at once is bounded, but one is always there.
    for (bytes_max, count) in [(0, 1), (12, 1), (24, 2), (1_000, 4)] {
        let owned = scope.clone();
        let due = store.read(move |connection| outbox::due_within(connection, &owned, 700, 9, bytes_max)).await;
        assert_eq!(due.expect("deliveries").len(), count, "{bytes_max} bytes");
    }
    // After five attempts it is probably to blame itself, and holds up nobody.
    for sequences in [&[1, 4][..], &[1, 4], &[1, 4], &[1, 3, 4]] {
        retry().await;
        check(699, 9, sequences).await;
    }
}

#[tokio::test]
async fn a_settlement_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    fill(&store, &scope, 3).await;
    let before = read_all(&store, &scope).await;
    let everything = || Settlement {
        delivery: Some((2, Fate::Complete)),
        cross_references: vec![(Arc::from(MAP), key("c1"), CrossReference { deleted: true, ..reference(3) })],
        failed: vec![failure("c9", 2)],
        resolved: vec![(Arc::from(MAP), SystemKind::Finops, key("c2"))],
        resolved_ids: vec![1],
        counts: vec![(Arc::from(MAP), SystemKind::Finops, Counts { rows: 1, ..Counts::default() })],
        activity: vec![NewActivity { at: 5, map: Some(Arc::from(MAP)), kind: "note", text: "x".to_owned() }],
        cursor: Some(("initial-sync/customers".to_owned(), "after".to_owned())),
        watermarks: vec![("finops/changes".to_owned(), "after".to_owned())],
    };
    let gone = Settlement { delivery: Some((99, Fate::Complete)), ..everything() };
    let fault = store.settle(&scope, gone).await.expect_err("there is no delivery 99");
    assert_eq!(fault.code, Code::StoreFailed);
    assert!(fault.message.contains("delivery 99 is not in the outbox any more"), "{fault}");
    assert_eq!(read_all(&store, &scope).await, before);

    // The last step fails: everything before it was done by then.
    let owned = scope.clone();
    let fault = store
        .write("settle", move |connection| {
            settle::settle(connection, &owned, &everything())?;
            Err::<(), _>(sql::Failure::Refused("by the test".to_owned()))
        })
        .await
        .expect_err("refused");
    assert_eq!(fault.message, "settle: by the test");
    assert_eq!(read_all(&store, &scope).await, before);

    store.settle(&scope, everything()).await.expect("the same settlement is fine otherwise");
    let after = read_all(&store, &scope).await;
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).map(|((name, _), _)| *name);
    assert_eq!(
        changed.collect::<Vec<_>>(),
        [
            "cross_references",
            "cross_references_by_id",
            "all_keys",
            "watermark",
            "due",
            "backlog",
            "cursor",
            "counts",
            "activity",
            "failed"
        ]
    );
}

/// Holds the writer until the sender is dropped.
fn hold(store: &Store) -> (std::sync::mpsc::Sender<()>, impl Future<Output = Result<(), Fault>> + Unpin) {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let store = store.clone();
    let mut holding = Box::pin(async move {
        let held = move |_: &rusqlite::Connection| {
            drop(begin);
            let _ = released.recv();
            Ok(())
        };
        store.write("hold", held).await
    });
    queue(&mut holding);
    // The writer has taken it, alone, when it drops its end.
    let _ = begun.recv();
    (release, holding)
}

fn queue<T>(future: &mut (impl Future<Output = T> + Unpin)) {
    let polled = std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending), "the writer is held, so it cannot have answered");
}

#[tokio::test]
async fn what_is_queued_shares_a_commit_and_fails_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let mut rows = 0;
    // The one that holds the writer is the first commit.
    for (requests, commits) in [(1, 2), (20, 2), (writer::GROUP_MAX, 2), (writer::GROUP_MAX + 1, 3)] {
        let before = store.commits();
        let (release, holding) = hold(&store);
        let mut settlements = Vec::new();
        for number in 0..requests {
            let mut settlement = Settlement {
                counts: vec![(Arc::from(MAP), SystemKind::Finops, Counts { rows: 1, ..Counts::default() })],
                ..Settlement::default()
            };
            if number % 10 == 3 {
                settlement.delivery = Some((77, Fate::Complete));
            }
            // Tokio makes a task that does this much at once wait for its next turn.
            let mut future = Box::pin(tokio::task::unconstrained(store.settle(&scope, settlement)));
            queue(&mut future);
            settlements.push(future);
        }
        drop(release);
        holding.await.expect("held");
        let mut through = 0;
        for (number, settlement) in settlements.into_iter().enumerate() {
            let answer = settlement.await;
            assert_eq!(answer.is_err(), number % 10 == 3, "request {number}: {answer:?}");
            through += u64::from(answer.is_ok());
        }
        assert_eq!(store.commits() - before, commits, "{requests} requests");
        rows += through;
        assert_eq!(store.counts(&scope).await.expect("counts")[0].2.rows, rows);
    }
}

#[tokio::test]
async fn a_group_that_cannot_be_committed_fails_with_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let fault = store
        .write("break", |connection| Ok(connection.execute_batch("ROLLBACK")?))
        .await
        .expect_err("the savepoint is gone with the transaction");
    assert!(fault.message.contains("no such savepoint"), "{fault}");
    assert_eq!(store.capture(&scope, capture(&["a"])).await, Ok(1), "the next one is not affected");
}

#[tokio::test]
async fn a_record_fails_until_it_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let shown = async |store: &Store| {
        all_failed(store, &scope)
            .await
            .iter()
            .map(|record| {
                let payload = String::from_utf8_lossy(&record.payload).into_owned();
                format!(
                    "{} {} x{} since {} until {}: {payload}",
                    record.id, record.key, record.attempts, record.first_at, record.last_at
                )
            })
            .collect::<Vec<_>>()
    };
    let newer = |record: NewFailed, at| NewFailed { at, ..record };
    let resolved = |sequence: Option<i64>| Settlement {
        delivery: sequence.map(|sequence| (sequence, Fate::Complete)),
        resolved: vec![(Arc::from(MAP), SystemKind::Finops, key("c"))],
        ..Settlement::default()
    };
    store.capture(&scope, capture(&["1", "2", "3", "4", "5", "6"])).await.expect("captures");
    for (what, settlement, records) in [
        ("it fails", failing(vec![failure("c", 4)]), &["1 usmf/c x1 since 104 until 104: change 4 of c"][..]),
        (
            "it fails again",
            failing(vec![newer(failure("c", 4), 300)]),
            &["1 usmf/c x2 since 104 until 300: change 4 of c"],
        ),
        (
            "it fails again in a batch that names an older sequence",
            failing(vec![NewFailed { sequence: 2, at: 400, ..failure("c", 4) }]),
            &["1 usmf/c x3 since 104 until 400: change 4 of c"],
        ),
        (
            "an older change fails late",
            failing(vec![newer(failure("c", 3), 500)]),
            &["1 usmf/c x3 since 104 until 400: change 4 of c"],
        ),
        (
            "a newer change fails",
            failing(vec![newer(failure("c", 5), 600)]),
            &["2 usmf/c x1 since 104 until 600: change 5 of c"],
        ),
        ("an older change gets through", resolved(Some(3)), &["2 usmf/c x1 since 104 until 600: change 5 of c"]),
        ("that change gets through", resolved(Some(5)), &[]),
        ("it fails once more", failing(vec![failure("c", 6)]), &["3 usmf/c x1 since 106 until 106: change 6 of c"]),
        ("what the source holds now gets through", resolved(None), &[]),
        (
            "two rows without a key fail, and one of them again",
            failing(vec![
                NewFailed { row_key: None, ..failure("d", 1) },
                NewFailed { row_key: None, ..failure("d", 2) },
                NewFailed { row_key: None, at: 700, ..failure("d", 1) },
            ]),
            &["4 usmf/d x2 since 101 until 700: change 1 of d", "5 usmf/d x1 since 102 until 102: change 2 of d"],
        ),
        (
            "they are closed by id, unknown ones are passed over",
            Settlement { resolved_ids: vec![4, 5, 6, 7], ..Settlement::default() },
            &[],
        ),
    ] {
        store.settle(&scope, settlement).await.unwrap_or_else(|fault| panic!("{what}: {fault}"));
        assert_eq!(shown(&store).await, records, "{what}");
    }
    let kept = |connection: &rusqlite::Connection| {
        Ok(connection.query_row("SELECT count(*) FROM failed_payload", [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(store.read(kept).await, Ok(0), "no payload outlives its records");
}

#[tokio::test]
async fn a_failed_record_keeps_everything_and_is_found_by_filter() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let vendor = NewFailed { map: Arc::from("vendors"), source: SystemKind::Dataverse, ..failure("v", 3) };
    let waiting = NewFailed { waiting_for_parent: true, ..failure("b", 2) };
    store.settle(&scope, failing(vec![failure("a", 1), waiting, vendor])).await.expect("settles");
    let first = all_failed(&store, &scope).await.remove(0);
    let new = failure("a", 1);
    let wanted = FailedRecord {
        id: 1,
        map: new.map,
        source: new.source,
        key: new.key,
        row_key: new.row_key,
        transaction: new.transaction,
        fault: new.fault,
        payload: new.payload.to_vec(),
        atomic: false,
        attempts: 1,
        first_at: 101,
        last_at: 101,
        sequence: 1,
        waiting_for_parent: false,
    };
    assert_eq!(first, wanted);
    let any = FailedFilter::default;
    for (filter, ids) in [
        (any(), &[1, 2, 3][..]),
        (FailedFilter { map: Some(Arc::from("vendors")), ..any() }, &[3]),
        (FailedFilter { map: Some(Arc::from("vendor")), ..any() }, &[]),
        (FailedFilter { source: Some(SystemKind::Finops), ..any() }, &[1, 2]),
        (FailedFilter { ids: Some(vec![3, 1, 8]), ..any() }, &[1, 3]),
        (FailedFilter { ids: Some(vec![]), ..any() }, &[]),
        (FailedFilter { waiting_for_parent: Some(true), ..any() }, &[2]),
        (FailedFilter { waiting_for_parent: Some(false), ..any() }, &[1, 3]),
        (FailedFilter { limit: Some(2), ..any() }, &[1, 2]),
        (FailedFilter { limit: Some(2), after: Some(1), ..any() }, &[2, 3]),
        (FailedFilter { source: Some(SystemKind::Finops), after: Some(1), limit: Some(5), ..any() }, &[2]),
    ] {
        let found = store.failed(&scope, filter.clone()).await.expect("records");
        assert_eq!(found.iter().map(|record| record.id).collect::<Vec<_>>(), ids, "{filter:?}");
        assert_eq!(store.failed_count(&scope, filter.clone()).await, Ok(ids.len() as u64), "{filter:?}");
    }
}

#[tokio::test]
async fn a_record_is_tried_again_once_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    store.settle(&scope, failing(vec![failure("c", 1)])).await.expect("settles");
    assert_eq!(store.requeue(&scope, &[1, 1, 55], 900).await, Ok(1));
    assert_eq!(store.requeue(&scope, &[1], 901).await, Ok(0), "it waits already");
    let delivery = due(&store, &scope).await.remove(0);
    assert_eq!((delivery.retry_of, delivery.payload.as_slice()), (Some(1), &b"change 1 of c"[..]));
    assert_ne!(delivery.transaction, transaction(9), "a new try has a receipt of its own");
    assert_eq!(delivery.captured_at, 101, "guests see the time of the first try");
    assert_eq!(store.activity(&scope, 1).await.expect("activity")[0].text, "record usmf/c is to be tried again");

    // It fails again: the same record, one attempt more.
    let again = NewFailed { transaction: delivery.transaction, ..failure("c", 1) };
    let failed = Settlement { delivery: Some((delivery.sequence, Fate::Failed)), ..failing(vec![again]) };
    store.settle(&scope, failed).await.expect("settles");
    let record = all_failed(&store, &scope).await.remove(0);
    assert_eq!((record.id, record.attempts, record.transaction), (1, 2, delivery.transaction));

    // And it gets through.
    assert_eq!(store.requeue(&scope, &[1], 902).await, Ok(1));
    let delivery = due(&store, &scope).await.remove(0);
    let done = Settlement {
        delivery: Some((delivery.sequence, Fate::Complete)),
        resolved_ids: vec![1],
        ..Settlement::default()
    };
    store.settle(&scope, done).await.expect("settles");
    assert!(all_failed(&store, &scope).await.is_empty());
    assert!(due(&store, &scope).await.is_empty());
}

#[tokio::test]
async fn a_transaction_is_tried_again_as_a_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let of_transaction = |name: &str| NewFailed {
        row_key: None,
        atomic: true,
        payload: Arc::from(*b"both changes"),
        ..failure(name, 1)
    };
    store.settle(&scope, failing(vec![of_transaction("a"), of_transaction("b")])).await.expect("settles");
    assert_eq!(store.requeue(&scope, &[1, 2], 900).await, Ok(1), "one delivery for both");
    let delivery = due(&store, &scope).await.remove(0);
    assert_eq!((delivery.atomic, delivery.payload.as_slice()), (true, &b"both changes"[..]));

    // Only one of the two rows is still wrong: the other one's record would mislead.
    let failed = Settlement {
        delivery: Some((delivery.sequence, Fate::Failed)),
        ..failing(vec![NewFailed { transaction: delivery.transaction, ..of_transaction("b") }])
    };
    store.settle(&scope, failed).await.expect("settles");
    let records = all_failed(&store, &scope).await;
    let shown = records.iter().map(|record| (record.id, record.attempts, record.transaction)).collect::<Vec<_>>();
    assert_eq!(shown, [(2, 2, delivery.transaction)]);
}

#[tokio::test]
async fn pairs_are_found_by_key_by_id_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let put = async |pairs: Vec<(&str, CrossReference)>| {
        let cross_references =
            pairs.into_iter().map(|(name, reference)| (Arc::from(MAP), key(name), reference)).collect();
        let settlement = Settlement { cross_references, ..Settlement::default() };
        store.settle(&scope, settlement).await.expect("settles");
    };
    let unknown = CrossReference::default();
    put(vec![("b", reference(2)), ("a", reference(1)), ("c", unknown.clone())]).await;
    let found = store.cross_references(&scope, MAP, &[key("a"), key("c"), key("x")]).await.expect("pairs");
    assert_eq!(found, HashMap::from([(key("a"), reference(1)), (key("c"), unknown.clone())]));
    assert_eq!(store.cross_references(&scope, "vendors", &[key("a")]).await, Ok(HashMap::new()));

    let page = async |after: Option<&str>, limit| {
        let page = store.all_keys(&scope, MAP, after.map(key), limit).await.expect("pairs");
        page.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2).await, ["usmf/a", "usmf/b"]);
    assert_eq!(page(Some("b"), 2).await, ["usmf/c"]);
    assert_eq!(store.cross_reference_count(&scope, MAP).await, Ok(3));

    // A pair keeps its id, gets one, changes it, loses it; and another key takes over the id of a deleted one.
    let ids = [1, 2, 3].map(Uuid::from_u128);
    let deleted = |id| CrossReference { deleted: true, last_sequence: 9, ..reference(id) };
    for (pairs, found) in [
        (vec![("a", CrossReference { last_sequence: 8, ..reference(1) })], &["1 usmf/a 8", "2 usmf/b 3"][..]),
        (vec![("c", reference(3))], &["1 usmf/a 8", "2 usmf/b 3", "3 usmf/c 3"]),
        (vec![("c", reference(4))], &["1 usmf/a 8", "2 usmf/b 3"]),
        (vec![("b", CrossReference { dataverse_id: None, ..reference(2) })], &["1 usmf/a 8"]),
        (vec![("a", deleted(1))], &["1 usmf/a 9"]),
        (vec![("d", reference(1))], &["1 usmf/d 3"]),
    ] {
        put(pairs).await;
        let by_id = store.cross_references_by_id(&scope, MAP, &ids).await.expect("pairs");
        let mut shown = by_id
            .iter()
            .map(|(id, (key, reference))| format!("{} {key} {}", id.as_u128(), reference.last_sequence))
            .collect::<Vec<_>>();
        shown.sort();
        assert_eq!(shown, found);
    }
}

#[tokio::test]
async fn counts_add_up_and_activity_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let one = Counts { rows: 1, created: 2, updated: 3, deleted: 4, skipped: 5, failed: 6, echoes: 7 };
    for source in [SystemKind::Finops, SystemKind::Dataverse, SystemKind::Finops] {
        let settlement = Settlement { counts: vec![(Arc::from(MAP), source, one)], ..Settlement::default() };
        store.settle(&scope, settlement).await.expect("settles");
    }
    let two = Counts { rows: 2, created: 4, updated: 6, deleted: 8, skipped: 10, failed: 12, echoes: 14 };
    let wanted = vec![(MAP.to_owned(), SystemKind::Finops, two), (MAP.to_owned(), SystemKind::Dataverse, one)];
    assert_eq!(store.counts(&scope).await, Ok(wanted));

    let line = |number: i64| NewActivity { at: number, map: Some(Arc::from(MAP)), kind: "note", text: "x".to_owned() };
    for lines in [0..9_000, 9_000..10_005] {
        let settlement = Settlement { activity: lines.map(line).collect(), ..Settlement::default() };
        store.settle(&scope, settlement).await.expect("settles");
    }
    let lines = store.activity(&scope, 20_000).await.expect("activity");
    let (newest, oldest) = (lines.first().expect("lines"), lines.last().expect("lines"));
    assert_eq!((lines.len(), newest.at, oldest.at), (10_000, 10_004, 5));
    assert_eq!((newest.map.as_deref(), newest.kind.as_str()), (Some(MAP), "note"));
}

#[tokio::test]
async fn an_intent_moves_on_and_never_back() {
    use IntentState::{Done, Prepared, Sent, Unknown};
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    let intent = |state, epoch| Intent {
        transaction: transaction(1),
        side: SystemKind::Dataverse,
        state,
        epoch,
        request_hash: [2; 32],
        deadline: 5,
    };
    let close = async |applied| store.close_intent(&scope, transaction(1), SystemKind::Dataverse, applied).await;
    assert!(close(true).await.expect_err("there is none").message.contains("there is none"));
    for (state, epoch, refused) in [
        (Prepared, 3, None),
        (Sent, 3, None),
        (Sent, 2, Some("epoch 3 has taken over from epoch 2")),
        (Unknown, 4, None),
        (Sent, 3, Some("epoch 4 has taken over from epoch 3")),
    ] {
        let answer = store.put_intent(&scope, intent(state, epoch)).await;
        match refused {
            None => assert_eq!(answer, Ok(()), "{state:?} {epoch}"),
            Some(why) => assert!(answer.expect_err("refused").message.ends_with(why), "{state:?} {epoch}"),
        }
    }
    assert_eq!(store.open_intents(&scope).await, Ok(vec![intent(Unknown, 4)]));
    assert_eq!(close(true).await, Ok(()));
    assert_eq!(close(true).await, Ok(()), "twice is fine");
    assert!(close(false).await.expect_err("the other way").message.ends_with("it is done already"));
    assert!(store.put_intent(&scope, intent(Sent, 5)).await.is_err(), "it is not opened again");
    assert_eq!(store.open_intents(&scope).await, Ok(vec![]));
    let closed = store.intent(&scope, transaction(1), SystemKind::Dataverse).await.expect("an intent");
    assert_eq!(closed, Some(intent(Done, 4)));
    assert_eq!(store.intent(&scope, transaction(1), SystemKind::Finops).await, Ok(None));
}

/// Rows by the minute, in any order, of two systems; of another tenant nothing counts.
#[tokio::test]
async fn the_store_remembers_how_fast_changes_came() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opens");
    let scope = scope("a");
    assert_eq!(store.pace(&scope).await, Ok(None));
    let captured = |token: &str, source, rows, minute: i64| NewDelivery {
        source,
        rows,
        captured_at: minute * 60_000_000 + 1,
        ..delivery(token)
    };
    let (finops, dataverse) = (SystemKind::Finops, SystemKind::Dataverse);
    let deliveries = vec![
        captured("1", finops, 1_001, 10),
        captured("2", dataverse, 5_000, 11),
        captured("3", finops, 400, 10),
        captured("4", finops, 7, 19),
        captured("5", finops, 900, 20),
    ];
    let of_other = Capture { deliveries: vec![captured("1", finops, 9_999, 1)], watermarks: Vec::new() };
    store.capture(&super::tests::scope("b"), of_other).await.expect("captures");
    // A repetition is not counted again.
    for deliveries in [deliveries.clone(), deliveries] {
        store.capture(&scope, Capture { deliveries, watermarks: Vec::new() }).await.expect("captures");
    }
    let pace = Pace { finops_rows_max: 1_001, rows_per_minute_max: 5_000, rows_per_ten_minutes_max: 6_408 };
    assert_eq!(store.pace(&scope).await, Ok(Some(pace)));
    // Our own writes that came back were no changes.
    let echoes = Counts { echoes: 4_990, ..Counts::default() };
    let settlement = Settlement {
        delivery: Some((2, Fate::Complete)),
        counts: vec![(Arc::from(MAP), dataverse, echoes)],
        ..Settlement::default()
    };
    store.settle(&scope, settlement).await.expect("settles");
    let pace = Pace { rows_per_minute_max: 1_401, rows_per_ten_minutes_max: 1_418, ..pace };
    assert_eq!(store.pace(&scope).await, Ok(Some(pace)));
}

#[tokio::test]
async fn one_runtime_has_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state");
    for refused in [Store::open_read_only(&path), Store::open_beside(&path)] {
        let fault = refused.expect_err("there is nothing");
        assert!(fault.message.contains("has no store yet"), "{fault}");
    }
    assert!(!path.exists(), "looking makes nothing");
    assert!(!Store::is_in_use(&path));

    let store = Store::open(&path).expect("opens");
    let scope = scope("a");
    store.settle(&scope, failing(vec![failure("c", 1)])).await.expect("settles");
    let fault = Store::open(&path).expect_err("the folder is taken");
    let place = path.display().to_string();
    assert!(fault.message.contains(&place) && fault.message.contains("in use by another dualwright"), "{fault}");
    assert!(Store::is_in_use(&path));

    // Others may look, and add a little.
    let reader = Store::open_read_only(&path).expect("opens to be read");
    assert_eq!(reader.failed_count(&scope, FailedFilter::default()).await, Ok(1));
    let fault = reader.requeue(&scope, &[1], 1).await.expect_err("it may only read");
    assert!(fault.message.contains("opened only to be read"), "{fault}");
    let beside = Store::open_beside(&path).expect("opens beside");
    assert_eq!(beside.requeue(&scope, &[1], 1).await, Ok(1));
    beside.close().await;
    assert_eq!(due(&store, &scope).await.len(), 1);
    assert!(Store::is_in_use(&path), "whoever looked or added took nothing");

    store.close().await;
    assert!(!Store::is_in_use(&path));
    Store::open(&path).expect("opens when the other is closed");
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_kept_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let folder = tempfile::tempdir().expect("a folder");
    let open = |name: &str| folder.path().join(name);
    let made = open("made");
    let (empty, shared) = (open("empty"), open("shared"));
    for path in [&empty, &shared] {
        std::fs::create_dir(path).expect("a folder");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    std::fs::write(shared.join("other"), b"of somebody else").expect("a file");
    // A folder with other things in it is not ours to close.
    for (path, wanted) in [(&made, 0o700), (&empty, 0o700), (&shared, 0o755)] {
        let store = Store::open(path).expect("opens");
        store.capture(&scope("a"), capture(&["x"])).await.expect("captures");
        assert_eq!(mode(path), wanted, "{}", path.display());
        for file in ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "lock"] {
            assert_eq!(mode(&path.join(file)), 0o600, "{file} in {}", path.display());
        }
    }
}
