//! Stage, commit, abort, settle: what is written, what is deleted, and what is said when that fails.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value, json};

use super::faulty::{Call, Faulty, Rotated, faulty};
use super::hydrating::{Rows, reference};
use super::{acting, coordinate, insert, over, pointer, scope, spec, storage, stored, target};
use crate::connector::{ConnectorOptions, Policy, ProblemKind, Settled, Staged};
use crate::{
    Capabilities, Error, ErrorKind, Location, ManagedCoordinate, Memory, Operation, Owner,
    Recovery, Scope, SecretPersistence, Stores, Timestamp,
};

fn call(operation: Operation, coordinate: &str, recovery: Option<Recovery>) -> Call {
    Call {
        operation,
        coordinate: coordinate.to_owned(),
        recovery,
    }
}

/// A row with `a` saved, and the change of `a` to another value, staged.
async fn staged_change(store: &Arc<Faulty>) -> (Value, Staged) {
    insert(store, 1, "old");
    let saved = json!({"host": "h", "a": pointer(1)});
    let edited = json!({"host": "h", "a": "new"});
    let staged = over(store)
        .stage_update(&spec(), &scope(), saved.clone(), edited)
        .await
        .unwrap();
    (saved, staged)
}

#[tokio::test]
async fn a_new_configuration_is_written_and_nothing_deleted() {
    let store = faulty();
    let config = json!({"host": "h", "a": "one", "b": "two"});
    let staged = over(&store)
        .stage_create(&spec(), &scope(), config)
        .await
        .unwrap();
    let saved = staged.config().clone();
    assert_eq!(saved["host"], "h");
    for (name, value) in [("a", "one"), ("b", "two")] {
        let name = target(&saved, name);
        assert_eq!(stored(&store, name).await.as_deref(), Some(value));
        assert!(scope().contains(&ManagedCoordinate::parse(name).unwrap()));
    }
    assert_eq!(store.requests(), 1, "one batch");
    let cleanup = staged.commit().await.unwrap();
    assert!(cleanup.is_finished() && cleanup.deleted.is_empty());
    assert_eq!(store.memory.len(), 2);
}

#[tokio::test]
async fn the_record_holds_names_and_nothing_else() {
    let store = faulty();
    insert(&store, 1, "old hunter2");
    let saved = json!({"host": "h", "a": pointer(1)});
    let edited = json!({"host": "h", "a": "new hunter2"});
    let planned = over(&store)
        .plan_update(&spec(), &scope(), saved, edited)
        .await
        .unwrap();
    assert!(
        store.calls(Operation::Write).is_empty(),
        "a plan writes nothing"
    );
    let record = planned.record().clone();
    let text = serde_json::to_string(&record).unwrap();
    assert!(!text.contains("hunter2") && !format!("{planned:?}").contains("hunter2"));
    assert_eq!(record.supersedes()[0].coordinate, coordinate(1));

    let staged = planned.stage().await.unwrap();
    assert_eq!(
        record.writes()[0].coordinate.as_str(),
        target(staged.config(), "a")
    );
    assert!(!format!("{staged:?}").contains("hunter2"));
    let _ = staged.commit().await.unwrap();
}

#[tokio::test]
async fn a_masked_update_writes_and_deletes_nothing() {
    let store = faulty();
    insert(&store, 1, "old");
    let saved = json!({"host": "h", "a": pointer(1)});
    let edited = json!({"host": "h", "a": "**********"});
    let staged = over(&store)
        .stage_update(&spec(), &scope(), saved.clone(), edited)
        .await
        .unwrap();
    assert_eq!(*staged.config(), saved);
    assert!(staged.record().is_empty());
    assert!(staged.commit().await.unwrap().is_finished());
    assert!(store.calls(Operation::Write).is_empty());
    assert!(store.calls(Operation::Delete).is_empty());
}

#[tokio::test]
async fn commit_deletes_what_was_replaced_with_the_configured_window() {
    let store = faulty();
    let (_, staged) = staged_change(&store).await;
    let new = target(staged.config(), "a").to_owned();
    let cleanup = staged.commit().await.unwrap();
    assert_eq!(cleanup.deleted[0].coordinate, coordinate(1));
    assert!(cleanup.is_finished());
    let deletes = store.calls(Operation::Delete);
    let configured = Some(Recovery::Configured);
    assert_eq!(
        deletes,
        [call(Operation::Delete, coordinate(1).as_str(), configured)]
    );
    assert_eq!(stored(&store, &new).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn abort_deletes_what_was_written_at_once() {
    let store = faulty();
    let (_, staged) = staged_change(&store).await;
    let new = target(staged.config(), "a").to_owned();
    let cleanup = staged.abort().await.unwrap();
    let immediate = Some(Recovery::Immediate);
    assert_eq!(
        store.calls(Operation::Delete),
        [call(Operation::Delete, &new, immediate)]
    );
    assert_eq!(cleanup.deleted[0].coordinate.as_str(), new);
    assert_eq!(
        stored(&store, coordinate(1).as_str()).await.as_deref(),
        Some("old")
    );
    assert!(
        !cleanup.is_finished() && cleanup.again.is_some(),
        "an attempt that timed out may still land"
    );
}

#[tokio::test]
async fn a_failed_write_takes_the_whole_stage_back() {
    let store = faulty();
    store.fail(|call| {
        let fails = call.operation == Operation::Write && call.coordinate.contains("_v1");
        fails.then_some(ErrorKind::Unavailable)
    });
    insert(&store, 1, "old");
    let saved = json!({"host": "h", "a": pointer(1)});
    // `a` becomes a version 2, which is written; `b` is a version 1, whose outcome is unknown.
    let edited = json!({"host": "h", "a": "new", "b": "hunter2"});
    let error = over(&store)
        .stage_update(&spec(), &scope(), saved, edited)
        .await
        .unwrap_err();
    assert_eq!(error.problems().len(), 1);
    assert_eq!(error.problems()[0].place().as_str(), "/b");
    assert!(error.is_retryable());
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert_eq!(store.calls(Operation::Delete).len(), 2);
    assert_eq!(store.memory.len(), 1, "only what was there before");
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_named() {
    let store = faulty();
    store.fail(|call| match call.operation {
        Operation::Write => Some(ErrorKind::Unavailable),
        Operation::Delete => Some(ErrorKind::Throttled),
        _ => None,
    });
    let error = over(&store)
        .stage_create(&spec(), &scope(), json!({"a": "one"}))
        .await
        .unwrap_err();
    let operations: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| {
            assert_eq!(problem.place().as_str(), "/a");
            assert!(problem.coordinate().is_some());
            problem.error().and_then(Error::operation)
        })
        .collect();
    assert_eq!(
        operations,
        [Some(Operation::Write), Some(Operation::Delete)]
    );
}

#[tokio::test]
async fn where_immediate_deletion_is_refused_the_window_is_taken() {
    let store = faulty();
    let (_, staged) = staged_change(&store).await;
    store.fail(|call| {
        let refused = call.recovery == Some(Recovery::Immediate);
        refused.then_some(ErrorKind::PermissionDenied)
    });
    let cleanup = staged.abort().await.unwrap();
    assert!(cleanup.failed.is_empty());
    let recoveries: Vec<_> = store
        .calls(Operation::Delete)
        .into_iter()
        .filter_map(|call| call.recovery)
        .collect();
    assert_eq!(recoveries, [Recovery::Immediate, Recovery::Configured]);
}

#[tokio::test]
async fn a_write_that_is_refused_for_its_credentials_goes_to_the_store_opened_anew() {
    let (refusing, good) = (faulty(), faulty());
    refusing.fail_all(Operation::Write, ErrorKind::Unauthenticated);
    let opener = Rotated::new(vec![refusing, good.clone()]);
    let stores = Stores::new(faulty()).with_opener(opener.clone());
    let policy = Policy::default().with_write_storage(Some(storage("other")));
    let options = ConnectorOptions::default().with_policy(policy);
    let staged = acting(stores, options)
        .stage_create(&spec(), &scope(), json!({"a": "one"}))
        .await
        .unwrap();
    assert_eq!((opener.opened(), good.memory.len()), (2, 1));
    let _ = staged.commit().await.unwrap();
}

#[tokio::test]
async fn a_name_that_has_anothers_value_is_not_deleted() {
    let store = faulty();
    store.fail_all(Operation::Write, ErrorKind::AlreadyExists);
    let config = json!({"a": "one"});
    let error = over(&store)
        .stage_create(&spec(), &scope(), config)
        .await
        .unwrap_err();
    assert_eq!(
        error.problems()[0].error().map(Error::kind),
        Some(ErrorKind::AlreadyExists)
    );
    assert!(store.calls(Operation::Delete).is_empty());
}

#[tokio::test]
async fn a_delete_that_fails_does_not_fail_the_commit() {
    let store = faulty();
    let (_, staged) = staged_change(&store).await;
    store.fail_all(Operation::Delete, ErrorKind::Unavailable);
    let record = staged.record().clone();
    let cleanup = staged.commit().await.unwrap();
    assert!(!cleanup.is_finished());
    assert_eq!(cleanup.failed[0].location.coordinate, coordinate(1));
    assert_eq!(cleanup.failed[0].error.kind(), ErrorKind::Unavailable);

    store.fail(|_| None);
    let healed = over(&store)
        .heal(&record, super::super::RecordState::Saved)
        .await;
    assert!(healed.unwrap().is_finished());
    assert_eq!(store.memory.len(), 1);
}

#[tokio::test]
async fn settling_looks_at_the_row_and_guesses_nothing() {
    let store = faulty();
    let (saved, staged) = staged_change(&store).await;
    let new = target(staged.config(), "a").to_owned();
    let settled = staged.settle(Some(&saved)).await.unwrap();
    assert!(matches!(settled, Settled::Aborted(_)));
    assert_eq!(stored(&store, &new).await, None);

    let (_, staged) = staged_change(&store).await;
    let new = staged.config().clone();
    let settled = staged.settle(Some(&new)).await.unwrap();
    assert!(matches!(settled, Settled::Committed(_)));
    assert_eq!(stored(&store, coordinate(1).as_str()).await, None);

    for current in [Some(json!({"host": "h", "a": pointer(9)})), None] {
        let (_, staged) = staged_change(&store).await;
        let new = target(staged.config(), "a").to_owned();
        let settled = staged.settle(current.as_ref()).await.unwrap();
        assert!(matches!(settled, Settled::Undecided));
        assert!(stored(&store, &new).await.is_some());
        assert!(stored(&store, coordinate(1).as_str()).await.is_some());
    }
}

#[tokio::test]
async fn settling_knows_rows_that_come_and_go() {
    let store = faulty();
    let secrets = over(&store);
    let create = || async {
        let staged = secrets
            .stage_create(&spec(), &scope(), json!({"a": "one"}))
            .await;
        staged.unwrap()
    };
    let aborted = create().await.settle(None).await.unwrap();
    assert!(matches!(aborted, Settled::Aborted(_)));
    assert!(store.memory.is_empty());
    let staged = create().await;
    let saved = staged.config().clone();
    let committed = staged.settle(Some(&saved)).await.unwrap();
    assert!(matches!(committed, Settled::Committed(_)));

    let delete = || async { secrets.stage_delete(&scope(), saved.clone()).await.unwrap() };
    let aborted = delete().await.settle(Some(&saved)).await.unwrap();
    assert!(matches!(aborted, Settled::Aborted(_)));
    assert_eq!(store.memory.len(), 1);
    let staged = delete().await;
    assert!(staged.config().is_null());
    let committed = staged.settle(None).await.unwrap();
    assert!(matches!(committed, Settled::Committed(_)));
    assert!(store.memory.is_empty());
}

#[tokio::test]
async fn the_end_of_a_row_takes_what_is_ours_and_leaves_the_rest() {
    let (store, other) = (faulty(), faulty());
    insert(&store, 1, "one");
    insert(&other, 2, "two");
    let theirs = Scope::workspace(uuid::Uuid::from_u128(99));
    let theirs = ManagedCoordinate::new(&theirs, uuid::Uuid::from_u128(1), 1).unwrap();
    let secrets = acting(
        Stores::new(store.clone()).with_store(storage("other"), other.clone()),
        ConnectorOptions::default().with_references(Arc::new(Rows::new(&[(
            7,
            Location::new(coordinate(3).into()),
        )]))),
    );
    let id = uuid::Uuid::from_u128(7);
    let saved = json!({
        "a": pointer(1),
        "again": pointer(1),
        "b": {"_secret": coordinate(2).as_str(), "_secret_storage_id": "other"},
        "c": {"_secret": theirs.as_str()},
        "d": {"_secret": "team/password"},
        "e": {"_secret": coordinate(3).as_str(), "_secret_reference_id": id.to_string()},
    });
    let staged = secrets.stage_delete(&scope(), saved).await.unwrap();
    assert!(store.calls(Operation::Delete).is_empty());
    let cleanup = staged.commit().await.unwrap();
    assert_eq!(cleanup.released_references, [id]);
    let deleted: Vec<String> = cleanup.deleted.iter().map(ToString::to_string).collect();
    assert_eq!(
        deleted,
        [
            coordinate(1).to_string(),
            format!("{} in storage other", coordinate(2))
        ]
    );
    assert_eq!(store.calls(Operation::Delete).len(), 1);
    assert_eq!(other.calls(Operation::Delete).len(), 1);
}

/// Deleting it would break every other configuration that has the reference.
#[tokio::test]
async fn what_a_removed_reference_stands_for_is_left_though_a_pointer_names_it_too() {
    let store = faulty();
    insert(&store, 1, "one");
    let rows = Rows::new(&[(7, Location::new(coordinate(1).into()))]);
    let secrets = acting(
        Stores::new(store.clone()),
        ConnectorOptions::default().with_references(Arc::new(rows)),
    );
    let saved = json!({"a": pointer(1), "b": reference(7)});
    let changed = secrets
        .stage_update(&spec(), &scope(), saved.clone(), json!({}))
        .await
        .unwrap();
    let removed = secrets.stage_delete(&scope(), saved).await.unwrap();
    for staged in [changed, removed] {
        let cleanup = staged.commit().await.unwrap();
        assert_eq!(cleanup.released_references, [uuid::Uuid::from_u128(7)]);
        assert!(cleanup.deleted.is_empty(), "{cleanup:?}");
    }
    assert_eq!(
        stored(&store, coordinate(1).as_str()).await.as_deref(),
        Some("one")
    );
}

/// Airbyte names its default storage by an id; what was saved before that names none.
#[tokio::test]
async fn a_secret_that_another_id_of_the_same_store_still_names_is_left() {
    let store = faulty();
    insert(&store, 1, "one");
    let stores = Stores::new(store.clone()).with_store(storage("default"), store.clone());
    let secrets = acting(stores, ConnectorOptions::default());
    let named = json!({"_secret": coordinate(1).as_str(), "_secret_storage_id": "default"});
    let saved = json!({"a": pointer(1), "b": named});
    for edited in [json!({"a": pointer(1)}), json!({"b": named})] {
        let staged = secrets
            .stage_update(&spec(), &scope(), saved.clone(), edited)
            .await
            .unwrap();
        let cleanup = staged.commit().await.unwrap();
        assert!(cleanup.deleted.is_empty(), "{cleanup:?}");
    }
    let full = secrets.hydrate(saved).await.unwrap();
    assert_eq!(*full, json!({"a": "one", "b": "one"}));
}

#[tokio::test]
async fn a_delete_that_is_refused_for_its_credentials_goes_to_the_store_opened_again() {
    let memory = faulty();
    insert(&memory, 1, "one");
    memory.fail_all(Operation::Delete, ErrorKind::Unauthenticated);
    let good = faulty();
    insert(&good, 1, "one");
    let opener = Rotated::new(vec![memory, good.clone()]);
    let secrets = acting(
        Stores::new(faulty()).with_opener(opener.clone()),
        ConnectorOptions::default(),
    );
    let saved = json!({"a": {"_secret": coordinate(1).as_str(), "_secret_storage_id": "other"}});
    let staged = secrets.stage_delete(&scope(), saved).await.unwrap();
    let cleanup = staged.commit().await.unwrap();
    assert_eq!(cleanup.deleted.len(), 1, "{cleanup:?}");
    assert_eq!(opener.opened(), 2);
    assert_eq!(stored(&good, coordinate(1).as_str()).await, None);
}

#[tokio::test]
async fn secrets_go_to_the_storage_of_the_policy_and_their_pointers_say_so() {
    let (default, other) = (faulty(), faulty());
    let policy = Policy::default().with_write_storage(Some(storage("other")));
    let options = ConnectorOptions::default().with_policy(policy);
    let stores = Stores::new(default.clone()).with_store(storage("other"), other.clone());
    let staged = acting(stores, options.clone())
        .stage_create(&spec(), &scope(), json!({"a": "one"}))
        .await
        .unwrap();
    assert_eq!(staged.config()["a"]["_secret_storage_id"], "other");
    assert_eq!(
        staged.record().writes()[0].storage_id,
        Some(storage("other"))
    );
    assert_eq!((default.requests(), other.memory.len()), (0, 1));
    let _ = staged.abort().await.unwrap();
    assert!(other.memory.is_empty());

    let error = acting(Stores::new(default), options)
        .stage_create(&spec(), &scope(), json!({"a": "one"}))
        .await
        .unwrap_err();
    assert_eq!(error.problems()[0].kind(), ProblemKind::UnknownStorage);
}

#[tokio::test]
async fn a_secret_of_another_installation_is_left_and_reported() {
    let owner = |name: &str| Owner::parse(name).unwrap();
    let ours = Arc::new(Faulty::new(Memory::new().with_owner(owner("staging"))));
    let theirs = Arc::new(Faulty::new(Memory::new().with_owner(owner("production"))));
    for (store, foreign) in [(&ours, false), (&theirs, true)] {
        let write = crate::Write::new(coordinate(1), "one".to_owned().into());
        store.memory.write_batch(&[write]).await[0]
            .as_ref()
            .unwrap();
        // Stored by somebody before owners were known.
        insert(store, 2, "two");
        let stores = Stores::new(store.clone()).with_owner(owner("staging"));
        let saved = json!({"a": pointer(1), "b": pointer(2)});
        let staged = acting(stores, ConnectorOptions::default())
            .stage_delete(&scope(), saved)
            .await
            .unwrap();
        let cleanup = staged.commit().await.unwrap();
        assert_eq!(store.memory.len(), usize::from(foreign));
        assert_eq!(cleanup.deleted.len(), 2 - usize::from(foreign));
        let reported: Vec<_> = cleanup
            .foreign
            .iter()
            .map(|foreign| (foreign.location.coordinate.clone(), foreign.owner.as_str()))
            .collect();
        let expected = [(coordinate(1), "production")];
        assert_eq!(reported, expected[..usize::from(foreign)]);
    }
    // Who does not say who he is owns nothing that has an owner.
    let staged = over(&theirs)
        .stage_delete(&scope(), json!({"a": pointer(1)}))
        .await
        .unwrap();
    assert_eq!(staged.commit().await.unwrap().foreign.len(), 1);
}

#[tokio::test]
async fn an_owner_that_cannot_be_read_stops_the_delete_and_one_that_cannot_be_kept_does_not() {
    let store = faulty();
    let (_, staged) = staged_change(&store).await;
    store.fail_all(Operation::Describe, ErrorKind::PermissionDenied);
    let cleanup = staged.commit().await.unwrap();
    assert_eq!(
        cleanup.failed[0].error.operation(),
        Some(Operation::Describe)
    );
    assert!(store.calls(Operation::Delete).is_empty());

    let capabilities = Capabilities {
        owner: false,
        ..Memory::new().capabilities()
    };
    let memory = Memory::new().with_capabilities(capabilities);
    let store = Arc::new(Faulty::new(memory));
    let (_, staged) = staged_change(&store).await;
    assert!(staged.commit().await.unwrap().is_finished());
    assert!(store.calls(Operation::Describe).is_empty());
}

#[tokio::test]
async fn a_secret_that_is_gone_is_repaired_by_entering_it_again() {
    let store = faulty();
    let saved = json!({"host": "h", "a": pointer(1)});
    let edited = json!({"host": "h", "a": "again"});
    let staged = over(&store)
        .stage_update(&spec(), &scope(), saved.clone(), edited.clone())
        .await
        .unwrap();
    let name = target(staged.config(), "a").to_owned();
    let _ = staged.commit().await.unwrap();
    assert_eq!(stored(&store, &name).await.as_deref(), Some("again"));

    // What merely cannot be read now is no reason to replace it.
    store.fail_all(Operation::Read, ErrorKind::Unavailable);
    let error = over(&store)
        .stage_update(&spec(), &scope(), saved, edited)
        .await
        .unwrap_err();
    assert_eq!(error.problems()[0].place().as_str(), "/a");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn short_lived_secrets_expire() {
    let store = faulty();
    let expires = Timestamp::now().saturating_add(Duration::from_secs(3600));
    let planned = over(&store)
        .plan_create(&spec(), &Scope::ephemeral(), json!({"a": "one"}))
        .await
        .unwrap();
    let staged = planned.with_expires(Some(expires)).stage().await.unwrap();
    let name = ManagedCoordinate::parse(target(staged.config(), "a")).unwrap();
    assert_eq!(
        store.memory.describe(&name).await.unwrap().expires,
        Some(expires)
    );
}

#[tokio::test]
async fn an_old_plan_is_refused_before_it_writes() {
    let store = faulty();
    let options = ConnectorOptions::default().with_deadline(Duration::ZERO);
    let secrets = acting(Stores::new(store.clone()), options);
    let error = secrets
        .stage_create(&spec(), &scope(), json!({"a": "one"}))
        .await
        .unwrap_err();
    assert_eq!(error.problems()[0].kind(), ProblemKind::StalePlan);
    assert_eq!(store.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_is_dropped_midway_is_healed_by_its_record() {
    let store = Arc::new(Faulty::new(Memory::new()).with_delay(Duration::from_secs(1)));
    let planned = over(&store)
        .plan_create(&spec(), &scope(), json!({"a": "one", "b": "two"}))
        .await
        .unwrap();
    let record = planned.record().clone();
    assert!(planned.stage().now_or_never().is_none());
    let healed = over(&store)
        .heal(&record, super::super::RecordState::Abandoned)
        .await;
    assert_eq!(healed.unwrap().deleted.len(), 2);
    assert!(store.memory.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_writes_that_fail_are_all_taken_back_and_all_named() {
    let store = faulty();
    store.fail(|call| match call.operation {
        Operation::Write | Operation::Delete => Some(ErrorKind::Unavailable),
        _ => None,
    });
    let specification = json!({"additionalProperties": {"airbyte_secret": true}});
    let spec = crate::connector::ConnectorSpec::compile(&specification).unwrap();
    let config: serde_json::Map<String, Value> = (0..5_000)
        .map(|at| (format!("s{at}"), json!("value")))
        .collect();
    let error = over(&store)
        .stage_create(&spec, &scope(), config.into())
        .await
        .unwrap_err();
    assert_eq!(error.problems().len(), 10_000);
    assert_eq!(store.calls(Operation::Delete).len(), 5_000);
}
