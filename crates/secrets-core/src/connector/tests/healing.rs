//! What is left of a change is found: by its record, exactly, and without one by the collector.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::faulty::{Faulty, Rotated, faulty};
use super::{acting, coordinate, insert, over, pointer, scope, spec, storage, stored};
use crate::connector::{ConnectorOptions, Record, RecordState};
use crate::{
    ErrorKind, Location, ManagedCoordinate, Memory, Operation, Owner, SecretPersistence, Stores,
    Timestamp, Write,
};

const HOUR: Duration = Duration::from_secs(3600);

fn record(planned: Timestamp, writes: &[u128], supersedes: &[u128]) -> Record {
    let locations = |ids: &[u128]| {
        ids.iter()
            .map(|id| Location::new(coordinate(*id)))
            .collect::<Vec<_>>()
    };
    Record::new(planned, locations(writes), locations(supersedes))
}

fn start() -> Timestamp {
    "2026-11-21T06:00:00Z".parse().unwrap()
}

#[tokio::test]
async fn a_write_that_lands_after_its_delete_is_found_by_healing_until_the_deadline() {
    let store = faulty();
    let secrets = acting(
        Stores::new(store.clone()),
        ConnectorOptions::default().with_deadline(HOUR),
    );
    let record = record(start(), &[1], &[]);
    let first = secrets
        .heal_at(&record, RecordState::Abandoned, start())
        .await
        .unwrap();
    assert_eq!(first.again, Some(start().saturating_add(HOUR)));
    assert!(!first.is_finished());

    insert(&store, 1, "late");
    let last = secrets
        .heal_at(
            &record,
            RecordState::Abandoned,
            start().saturating_add(HOUR),
        )
        .await
        .unwrap();
    assert!(last.is_finished());
    assert!(store.memory.is_empty());
}

#[tokio::test]
async fn a_heal_that_could_not_delete_is_not_finished() {
    let store = faulty();
    insert(&store, 1, "late");
    store.fail_all(Operation::Delete, ErrorKind::Unavailable);
    let later = start().saturating_add(HOUR);
    let record = record(start(), &[1], &[]);
    let cleanup = over(&store)
        .heal_at(&record, RecordState::Abandoned, later)
        .await
        .unwrap();
    assert_eq!((cleanup.again, cleanup.is_finished()), (None, false));
}

#[tokio::test]
async fn healing_deletes_the_one_side_that_the_record_says() {
    for (state, left) in [(RecordState::Abandoned, 2), (RecordState::Saved, 1)] {
        let store = faulty();
        insert(&store, 1, "new");
        insert(&store, 2, "old");
        let record = record(start(), &[1], &[2]);
        for _ in 0..2 {
            let cleanup = over(&store).heal(&record, state).await.unwrap();
            assert!(cleanup.is_finished(), "healing twice does no harm");
        }
        assert_eq!(store.memory.len(), 1);
        assert!(stored(&store, coordinate(left).as_str()).await.is_some());
    }
}

#[tokio::test]
async fn a_copied_outbox_does_not_cost_another_installation_its_secrets() {
    // A staging system restored from production's backup has production's open records, which
    // production has saved meanwhile. Without the owner's check this would delete them.
    let owner = |name: &str| Owner::parse(name).unwrap();
    let store = Arc::new(Faulty::new(Memory::new().with_owner(owner("production"))));
    for id in [1, 2] {
        let write = Write::new(coordinate(id), "value".to_owned().into());
        store.memory.write_batch(&[write]).await[0]
            .as_ref()
            .unwrap();
    }
    let stores = Stores::new(store.clone()).with_owner(owner("staging"));
    let secrets = acting(stores, ConnectorOptions::default());
    let record = record(start(), &[1], &[2]);
    for state in [RecordState::Abandoned, RecordState::Saved] {
        let cleanup = secrets.heal(&record, state).await.unwrap();
        assert_eq!(cleanup.foreign.len(), 1);
    }
    assert_eq!(store.memory.len(), 2);
}

#[tokio::test]
async fn superseded_secrets_are_kept_for_the_retention_and_then_healed_away() {
    let store = faulty();
    insert(&store, 1, "old");
    let options = ConnectorOptions::default().with_retention(Some(HOUR));
    let secrets = acting(Stores::new(store.clone()), options);
    let saved = json!({"host": "h", "a": pointer(1)});
    let edited = json!({"host": "h", "a": "new"});
    let staged = secrets
        .stage_update(&spec(), &scope(), saved, edited)
        .await
        .unwrap();
    let record = staged.record().clone();
    let cleanup = staged.commit().await.unwrap();
    assert_eq!(cleanup.retained[0].coordinate, coordinate(1));
    assert!(!cleanup.is_finished());
    let until = cleanup.again.unwrap();
    assert_eq!(until, record.planned().saturating_add(HOUR));

    let early = secrets.heal(&record, RecordState::Saved).await.unwrap();
    assert_eq!(early.retained.len(), 1);
    assert_eq!(store.memory.len(), 2);
    let late = secrets
        .heal_at(&record, RecordState::Saved, until)
        .await
        .unwrap();
    assert!(late.is_finished());
    assert_eq!(stored(&store, coordinate(1).as_str()).await, None);
}

#[tokio::test]
async fn an_abort_is_not_retained() {
    let store = faulty();
    let options = ConnectorOptions::default().with_retention(Some(HOUR));
    let staged = acting(Stores::new(store.clone()), options)
        .stage_create(&spec(), &scope(), json!({"a": "one"}))
        .await
        .unwrap();
    let _ = staged.abort().await.unwrap();
    assert!(store.memory.is_empty());
}

#[tokio::test]
async fn the_collector_takes_what_is_unreferenced_ours_and_old() {
    let owner = |name: &str| Owner::parse(name).unwrap();
    let store = Arc::new(Faulty::new(Memory::new().with_owner(owner("theirs"))));
    let write = Write::new(coordinate(5), "foreign".to_owned().into());
    store.memory.write_batch(&[write]).await[0]
        .as_ref()
        .unwrap();
    for id in [1, 2, 3] {
        insert(&store, id, "value");
    }
    let others = "airbyte_workspace_00000000-0000-0000-0000-000000000002_secret_00000000-0000-0000-0000-000000000001_v1";
    store
        .memory
        .insert(others, "another scope".to_owned().into());
    let secrets = over(&store);
    let saved = json!({"a": pointer(1)});
    let referenced: HashSet<Location<ManagedCoordinate>> = secrets
        .locations(&saved)
        .await
        .unwrap()
        .into_iter()
        .collect();

    let young = secrets
        .collect(None, &scope(), &referenced, start())
        .await
        .unwrap();
    assert_eq!(young.young.len(), 3);
    assert_eq!(
        store.memory.len(),
        5,
        "what may belong to an open change is left"
    );

    let before = Timestamp::now().saturating_add(HOUR);
    let collected = secrets
        .collect(None, &scope(), &referenced, before)
        .await
        .unwrap();
    let deleted: Vec<_> = collected
        .cleanup
        .deleted
        .iter()
        .map(|location| location.coordinate.clone())
        .collect();
    assert_eq!(deleted, [coordinate(2), coordinate(3)]);
    assert_eq!(collected.cleanup.foreign.len(), 1);
    assert_eq!(store.memory.len(), 3);
    assert!(stored(&store, others).await.is_some());
}

#[tokio::test]
async fn a_collection_leaves_what_pointers_with_another_id_of_the_same_store_name() {
    let store = faulty();
    insert(&store, 1, "one");
    insert(&store, 2, "two");
    let stores = Stores::new(store.clone()).with_store(storage("default"), store.clone());
    let secrets = acting(stores, ConnectorOptions::default());
    let referenced = secrets.locations(&pointer(1)).await.unwrap();
    let referenced = referenced.into_iter().collect();
    let before = Timestamp::now().saturating_add(HOUR);
    let collected = secrets
        .collect(Some(&storage("default")), &scope(), &referenced, before)
        .await
        .unwrap();
    let deleted = &collected.cleanup.deleted;
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    assert_eq!(deleted[0].coordinate, coordinate(2));
}

#[tokio::test]
async fn a_listing_that_is_refused_for_its_credentials_goes_to_the_store_opened_again() {
    let (refusing, good) = (faulty(), faulty());
    refusing.fail_all(Operation::List, ErrorKind::Unauthenticated);
    insert(&good, 1, "superfluous");
    let opener = Rotated::new(vec![refusing, good.clone()]);
    let stores = Stores::new(faulty()).with_opener(opener.clone());
    let secrets = acting(stores, ConnectorOptions::default());
    let before = Timestamp::now().saturating_add(HOUR);
    let collected = secrets
        .collect(Some(&storage("other")), &scope(), &HashSet::new(), before)
        .await
        .unwrap();
    assert_eq!(collected.cleanup.deleted.len(), 1, "{collected:?}");
    assert_eq!(opener.opened(), 2);
    assert_eq!(stored(&good, coordinate(1).as_str()).await, None);
}
