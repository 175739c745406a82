//! What a refresh promises: one exchange, and no new token without a row.

mod probes;
mod rows;
mod table;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::faulty::Faulty;
use super::{acting, coordinate, insert, over, pointer, scope, stored, target};
use crate::connector::{
    ActingSecrets, ConnectorOptions, Place, PlacedValues, Policy, ProblemKind, Refresh,
    RefreshError, RefreshRecord, Taken,
};
use crate::{
    DeleteOptions, ErrorKind, ManagedCoordinate, Memory, Operation, Recovery, Result,
    SecretPersistenceExt as _, SecretValue, StorageId, Stores,
};
use table::Table;

fn place(name: &str) -> Place {
    Place::root().child(name)
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.to_owned())
}

/// A store with the tokens `a` and `b`, and a row that points to them.
fn world() -> (Arc<Faulty>, Arc<Table>, Refresh) {
    let store = Arc::new(Faulty::new(Memory::new()));
    insert(&store, 1, "old a");
    insert(&store, 2, "old b");
    let config = json!({"host": "h", "a": pointer(1), "b": pointer(2)});
    let refresh = Refresh::new("row", &scope(), &config, [place("a"), place("b")]).unwrap();
    (store, Table::new(&config), refresh)
}

/// The store has taken a write of this process already, so that a refresh needs no probe.
async fn proven(store: &Arc<Faulty>) -> ActingSecrets {
    let secrets = over(store);
    let config = json!({"other": pointer(9)});
    insert(store, 9, "other");
    let refresh = Refresh::new("row", &scope(), &config, [place("other")]).unwrap();
    let other = vec![(place("other"), value("new"))];
    let table = Table::new(&config);
    let brought = secrets.bring_back(&table.rows(), &refresh, other).await;
    let config = brought.unwrap().config;
    let name = ManagedCoordinate::parse(target(&config, "other")).unwrap();
    let at_once = DeleteOptions::default().with_recovery(Recovery::Immediate);
    store.memory.delete(&name, &at_once).await.unwrap();
    secrets
}

/// An exchange of both tokens for these, which counts its calls.
fn exchange(
    calls: &Arc<AtomicUsize>,
    a: &'static str,
    b: &'static str,
) -> impl FnOnce(PlacedValues) -> std::future::Ready<Result<PlacedValues, Infallible>> + Send + 'static
{
    let calls = Arc::clone(calls);
    move |old| {
        let expected = [(place("a"), value("old a")), (place("b"), value("old b"))];
        assert_eq!(old, expected);
        calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(vec![(place("b"), value(b)), (place("a"), value(a))]))
    }
}

/// The row and the store have these tokens, and nothing else.
async fn has(store: &Faulty, table: &Table, a: &str, b: &str) {
    let config = table.config();
    for (name, expected) in [("a", a), ("b", b)] {
        let found = stored(store, target(&config, name)).await;
        assert_eq!(found.as_deref(), Some(expected), "{name}");
    }
    assert_eq!(store.memory.len(), 2, "secrets that the row does not have");
    assert!(table.locked().record.is_none());
}

#[tokio::test(start_paused = true)]
async fn many_callers_make_one_exchange_and_all_get_the_new_values() {
    let (store, table, refresh) = world();
    let calls = Arc::default();
    let secrets = over(&store);
    let callers = (0..8).map(|_| {
        let exchange = exchange(&calls, "new a", "new b");
        let (secrets, rows, refresh) = (secrets.clone(), table.rows(), refresh.clone());
        async move {
            let slow = |old| async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                exchange(old).await
            };
            secrets.refresh(&rows, &refresh, slow).await.unwrap()
        }
    });
    let all = futures::future::join_all(callers).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(all.iter().filter(|refreshed| refreshed.ours).count(), 1);
    for refreshed in all {
        let expected = [(place("a"), value("new a")), (place("b"), value("new b"))];
        assert_eq!(refreshed.values, expected);
        assert_eq!((refreshed.revision, refreshed.config), (2, table.config()));
    }
    has(&store, &table, "new a", "new b").await;
    let order: Vec<_> = store.calls(Operation::Write);
    let config = table.config();
    assert_eq!(
        order[1].coordinate,
        target(&config, "a"),
        "after the probe, the first place is written first"
    );
}

#[tokio::test]
async fn an_edit_during_the_exchange_stays() {
    let (store, table, refresh) = world();
    let editing = Arc::clone(&table);
    let exchange = move |_| async move {
        editing.edit(|config| {
            config["host"] = json!("elsewhere");
            // The token has moved to another place.
            config["list"] = json!([config["b"].take()]);
            config.as_object_mut().unwrap().remove("b");
        });
        let new = vec![(place("a"), value("new a")), (place("b"), value("new b"))];
        Ok::<_, Infallible>(new)
    };
    let secrets = over(&store);
    secrets
        .refresh(&table.rows(), &refresh, exchange)
        .await
        .unwrap();
    let config = table.config();
    assert_eq!(config["host"], "elsewhere");
    let name = config["list"][0]["_secret"].as_str().unwrap();
    assert_eq!(stored(&store, name).await.as_deref(), Some("new b"));
    assert_eq!(store.memory.len(), 2);
}

#[tokio::test]
async fn a_person_who_logs_in_during_the_exchange_wins() {
    let (store, table, refresh) = world();
    insert(&store, 3, "their a");
    insert(&store, 4, "their b");
    let editing = Arc::clone(&table);
    let exchange = move |_| async move {
        editing.edit(|config| {
            config["a"] = pointer(3);
            config["b"] = pointer(4);
        });
        Ok::<_, Infallible>(vec![(place("a"), value("new a"))])
    };
    let secrets = over(&store);
    let refreshed = secrets
        .refresh(&table.rows(), &refresh, exchange)
        .await
        .unwrap();
    assert!(!refreshed.ours);
    assert_eq!(refreshed.value(&place("a")), Some(&value("their a")));
    // What was written is deleted; the old tokens are the edit's to delete.
    let left: Vec<_> = [1, 2, 3, 4]
        .map(|id| coordinate(id).as_str().to_owned())
        .into();
    assert_eq!(store.memory.len(), left.len());
    assert!(table.locked().record.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_loses_no_token() {
    let (store, table, refresh) = world();
    let exchange = |_| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let new = vec![(place("a"), value("new a")), (place("b"), value("new b"))];
        Ok::<_, Infallible>(new)
    };
    let secrets = over(&store);
    let rows = table.rows();
    let call = secrets.refresh(&rows, &refresh, exchange);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), call)
            .await
            .is_err()
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    has(&store, &table, "new a", "new b").await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_repeated() {
    let (store, table, refresh) = world();
    let secrets = proven(&store).await;
    let calls = Arc::default();
    let down_until = Instant::now() + Duration::from_secs(20);
    store.fail(move |call| {
        let down = call.operation == Operation::Write && Instant::now() < down_until;
        down.then_some(ErrorKind::Unavailable)
    });

    let exchange = exchange(&calls, "new a", "new b");
    secrets
        .refresh(&table.rows(), &refresh, exchange)
        .await
        .unwrap();
    has(&store, &table, "new a", "new b").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_write_left_is_adopted() {
    let (store, table, refresh) = world();
    let secrets = proven(&store).await;
    let calls = Arc::default();
    // The store writes, and fails nevertheless.
    store.fail_all(Operation::Write, ErrorKind::Unavailable);

    let first = exchange(&calls, "new a", "new b");
    let failed = secrets.refresh(&table.rows(), &refresh, first).await;
    assert!(matches!(failed, Err(RefreshError::Connector(_))));
    store.fail(|_| None);
    let again = exchange(&calls, "never", "never");
    let refreshed = secrets
        .refresh(&table.rows(), &refresh, again)
        .await
        .unwrap();
    assert!(!refreshed.ours);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(refreshed.value(&place("a")), Some(&value("new a")));
    assert_eq!(
        refreshed.value(&place("b")),
        Some(&value("old b")),
        "it was never written"
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_and_arrives_late_is_no_reason_to_use_a_token_twice() {
    let (store, table, refresh) = world();
    let secrets = proven(&store).await;
    let calls = Arc::default();
    store.fail_all(Operation::Write, ErrorKind::Unavailable);

    let first = exchange(&calls, "new a", "new b");
    let failed = secrets.refresh(&table.rows(), &refresh, first).await;
    assert!(matches!(failed, Err(RefreshError::Connector(_))));
    store.fail(|_| None);
    // What was written shows five seconds later.
    let record = table.locked().record.clone().unwrap();
    let name = record.targets()[0].to.coordinate.clone();
    let at_once = DeleteOptions::default().with_recovery(Recovery::Immediate);
    store.memory.delete(&name, &at_once).await.unwrap();
    let late = Arc::clone(&store);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        late.memory.insert(name.as_str(), value("new a"));
    });
    let again = exchange(&calls, "never", "never");
    let refreshed = secrets
        .refresh(&table.rows(), &refresh, again)
        .await
        .unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(refreshed.value(&place("a")), Some(&value("new a")));
}

#[tokio::test(start_paused = true)]
async fn a_write_may_take_longer_than_the_lease() {
    let (store, table, refresh) = world();
    let refresh = refresh.with_patience(Duration::MAX);
    let calls: Arc<AtomicUsize> = Arc::default();
    let secrets = over(&store);
    let slow = Arc::clone(&store);
    let exchanged = exchange(&calls, "new a", "new b");
    let rows = table.rows();
    let first = secrets.refresh(&rows, &refresh, move |old| {
        slow.delay(Duration::from_secs(200));
        exchanged(old)
    });
    let second = secrets.refresh(&rows, &refresh, exchange(&calls, "never", "never"));
    let (first, second) = futures::join!(first, second);
    assert!(first.unwrap().ours);
    assert_eq!(second.unwrap().value(&place("a")), Some(&value("new a")));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    has(&store, &table, "new a", "new b").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_exchanged_for_a_store_that_cannot_be_opened() {
    let (store, table, refresh) = world();
    let policy = Policy::default().with_write_storage(Some(StorageId::parse("elsewhere").unwrap()));
    let options = ConnectorOptions::default().with_policy(policy);
    let secrets = acting(Stores::new(store.clone()), options);
    let calls: Arc<AtomicUsize> = Arc::default();
    let first = exchange(&calls, "new a", "new b");
    let failed = secrets.refresh(&table.rows(), &refresh, first).await;
    assert!(matches!(failed, Err(RefreshError::Connector(_))));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert!(table.locked().record.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_row_that_could_not_be_saved_is_saved_by_the_next_or_the_healer() {
    for heals in [false, true] {
        let (store, table, refresh) = world();
        let calls = Arc::default();
        table.locked().fails = true;
        let secrets = over(&store);
        let first = exchange(&calls, "new a", "new b");
        let failed = secrets.refresh(&table.rows(), &refresh, first).await;
        assert!(matches!(failed, Err(RefreshError::Rows(_))));
        // The lease lasts until the write has settled.
        tokio::time::sleep(Duration::from_secs(61)).await;
        if heals {
            let healed = secrets.heal_refreshes(&table.rows()).await.unwrap();
            assert_eq!(healed.adopted, ["row"]);
            has(&store, &table, "new a", "new b").await;
        }
        let again = exchange(&calls, "never", "never");
        let refreshed = secrets
            .refresh(&table.rows(), &refresh, again)
            .await
            .unwrap();
        assert_eq!((refreshed.ours, calls.load(Ordering::SeqCst)), (false, 1));
        has(&store, &table, "new a", "new b").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_fails_or_hangs_changes_nothing() {
    let (store, table, refresh) = world();
    let secrets = over(&store);
    let failed = secrets
        .refresh(&table.rows(), &refresh, |_| async { Err("no") })
        .await;
    assert!(matches!(failed, Err(RefreshError::Exchange("no"))));
    let hangs = |_| std::future::pending::<Result<_, Infallible>>();
    let failed = secrets.refresh(&table.rows(), &refresh, hangs).await;
    assert!(matches!(failed, Err(RefreshError::TimedOut)));
    has(&store, &table, "old a", "old b").await;
    let calls = Arc::default();
    let works = exchange(&calls, "new a", "new b");
    secrets
        .refresh(&table.rows(), &refresh, works)
        .await
        .unwrap();
    has(&store, &table, "new a", "new b").await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_died_is_waited_for_no_longer_than_its_lease() {
    let (store, table, refresh) = world();
    let calls = Arc::default();
    let rows = table.rows();
    let died = rows.take("row", Duration::from_secs(60)).await.unwrap();
    assert!(matches!(died, Taken::Held { .. }));
    let secrets = over(&store);
    let hasty = refresh.clone().with_patience(Duration::from_secs(1));
    let busy = secrets
        .refresh(&rows, &hasty, exchange(&calls, "never", "never"))
        .await;
    assert!(matches!(busy, Err(RefreshError::Busy)));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let patient = secrets
        .refresh(&rows, &refresh, exchange(&calls, "new a", "new b"))
        .await;
    assert!(patient.unwrap().ours);
}

#[tokio::test]
async fn what_a_connector_brings_back_is_saved_like_what_was_exchanged() {
    let (store, table, refresh) = world();
    let secrets = over(&store);
    let rows = table.rows();
    let same = vec![(place("a"), value("old a"))];
    let brought = secrets.bring_back(&rows, &refresh, same).await.unwrap();
    assert_eq!(
        (brought.revision, store.calls(Operation::Write).len()),
        (1, 0)
    );

    // The old values need not be readable.
    store.fail_all(Operation::Read, ErrorKind::Unavailable);
    let new = vec![(place("a"), value("new a")), (place("b"), value("new b"))];
    let brought = secrets.bring_back(&rows, &refresh, new).await.unwrap();
    assert!(brought.ours);
    store.fail(|_| None);
    has(&store, &table, "new a", "new b").await;

    // The row has newer ones than the connector began with.
    let late = vec![(place("a"), value("late a"))];
    let kept = secrets.bring_back(&rows, &refresh, late).await.unwrap();
    assert_eq!(kept.value(&place("a")), Some(&value("new a")));
    has(&store, &table, "new a", "new b").await;

    // It goes on with what it got.
    let next = Refresh::new("row", &scope(), &brought.config, [place("a")]).unwrap();
    let third = vec![(place("a"), value("third a"))];
    secrets.bring_back(&rows, &next, third).await.unwrap();
    has(&store, &table, "third a", "new b").await;
}

#[tokio::test]
async fn a_place_without_a_value_gets_one_and_an_omitted_one_keeps_its_own() {
    let (store, table, _) = world();
    table.edit(|config| config["deep"] = json!({}));
    let new = place("deep").child("a/b");
    let places = [place("a"), place("b"), new.clone()];
    let refresh = Refresh::new("row", &scope(), &table.config(), places).unwrap();
    let values = vec![(new.clone(), value("access"))];
    let exchange = |_| async { Ok::<_, Infallible>(values) };
    let refreshed = over(&store)
        .refresh(&table.rows(), &refresh, exchange)
        .await
        .unwrap();
    let expected = [
        (place("a"), value("old a")),
        (place("b"), value("old b")),
        (new, value("access")),
    ];
    assert_eq!(refreshed.values, expected);
    let name = table.config()["deep"]["a/b"]["_secret"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(stored(&store, &name).await.as_deref(), Some("access"));
}

#[tokio::test]
async fn a_value_for_another_place_is_a_problem_after_the_others_are_saved() {
    let (store, table, refresh) = world();
    let new = vec![(place("b"), value("new b")), (place("c"), value("new c"))];
    let exchange = |_| async { Ok::<_, Infallible>(new) };
    let failed = over(&store)
        .refresh(&table.rows(), &refresh, exchange)
        .await;
    let Err(RefreshError::Connector(error)) = failed else {
        panic!("it has no place for it");
    };
    assert_eq!(error.problems()[0].place(), &place("c"));
    assert!(!format!("{error} {error:?}").contains("new c"));
    has(&store, &table, "old a", "new b").await;
}

#[tokio::test]
async fn a_row_that_is_gone_leaves_nothing() {
    let (store, table, refresh) = world();
    let deleting = Arc::clone(&table);
    let exchange = move |_| async move {
        deleting.locked().row = None;
        Ok::<_, Infallible>(vec![(place("a"), value("new a"))])
    };
    let secrets = over(&store);
    let gone = secrets.refresh(&table.rows(), &refresh, exchange).await;
    assert!(matches!(gone, Err(RefreshError::Missing)));
    assert_eq!(store.memory.len(), 2, "the delete of the row deletes these");
    let rows = table.rows();
    let again = secrets.refresh(&rows, &refresh, |_| async { Ok::<_, Infallible>(vec![]) });
    assert!(matches!(again.await, Err(RefreshError::Missing)));
}

#[test]
fn places_that_a_refresh_cannot_replace_are_refused() {
    let reference = json!({"_secret_reference_id": Uuid::from_u128(1).to_string()});
    let mut encoded = pointer(1);
    encoded["_secret_encoding"] = json!("json");
    let config = json!({
        "a": pointer(1), "raw": "hunter2", "reference": reference, "encoded": encoded,
        "malformed": {"_secret": 1}, "null": null, "list": [],
    });
    for (first, second, refused) in [
        ("/null", None, "/null"),
        ("/none", None, "/none"),
        ("/a", Some("/raw"), "/raw"),
        ("/a", Some("/reference"), "/reference"),
        ("/a", Some("/encoded"), "/encoded"),
        ("/a", Some("/malformed"), "/malformed"),
        ("/a", Some("/a/b"), "/a/b"),
        ("/a", Some("/none/b"), "/none/b"),
        ("/a", Some("/list/0"), "/list/0"),
    ] {
        let places = [Some(first), second].into_iter().flatten();
        let places = places.map(|place| place.parse().unwrap());
        let error = Refresh::new("row", &scope(), &config, places).unwrap_err();
        assert_eq!(error.problems()[0].place().as_str(), refused);
        assert!(!error.to_string().contains("hunter2"));
    }
    let none = Refresh::new("row", &scope(), &config, []).unwrap_err();
    assert_eq!(none.problems()[0].kind(), ProblemKind::TypeMismatch);
    let twice = [place("a"), place("a"), place("null")];
    assert!(Refresh::new("row", &scope(), &config, twice).is_ok());
}

#[test]
fn a_record_of_a_newer_version_is_refused() {
    let text = json!({"format": "1", "planned": "2026-11-21T06:47:53Z", "targets": [{
        "place": "/a", "from": null, "to": {"coordinate": "airbyte_w_v2"}, "supersedes": null,
    }]});
    let record: RefreshRecord = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(record.targets()[0].place, place("a"));
    assert_eq!(serde_json::to_value(record).unwrap(), text);
    for (at, wrong) in [("/format", json!("3")), ("/targets/0/place", json!("a"))] {
        let mut changed = text.clone();
        *changed.pointer_mut(at).unwrap() = wrong;
        assert!(
            serde_json::from_value::<RefreshRecord>(changed).is_err(),
            "{at}"
        );
    }
}

#[test]
fn a_record_with_a_probe_has_a_format_of_its_own() {
    let with_probe = |format: &str| {
        json!({"format": format, "planned": "2026-11-21T06:47:53Z", "targets": [],
            "probe": {"coordinate": "airbyte_w_v1"}})
    };
    // Written by a version that had probes, and no format for them.
    for read in ["1", "2"] {
        let record: RefreshRecord = serde_json::from_value(with_probe(read)).unwrap();
        assert!(record.probe().is_some());
        // A version that knows the first format only must not try.
        assert_eq!(serde_json::to_value(record).unwrap(), with_probe("2"));
    }
}
