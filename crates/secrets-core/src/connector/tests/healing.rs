//! What is left of a change is found by its record, exactly.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::faulty::{Faulty, faulty};
use super::{acting, coordinate, insert, over, pointer, scope, spec, stored};
use crate::connector::{ConnectorOptions, Record, RecordState};
use crate::{
    ErrorKind, Location, Memory, Operation, Owner, SecretPersistence, Stores, Timestamp, Write,
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
