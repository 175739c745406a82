//! One event per coordinate and operation, never a value; and what a sink that fails means.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::json;

use super::faulty::faulty;
use super::{acting, coordinate, insert, pointer, scope, spec, storage};
use crate::connector::{ConnectorError, ConnectorOptions, Place, ProblemKind};
use crate::{
    AuditEvent, AuditMode, AuditSink, Error, ErrorKind, Operation, Result, StorageId, Stores,
};

#[derive(Default)]
struct Sink {
    events: Mutex<Vec<AuditEvent>>,
    fails: AtomicBool,
}

impl Sink {
    fn failing() -> Arc<Self> {
        let sink = Arc::new(Self::default());
        sink.fails.store(true, Ordering::SeqCst);
        sink
    }

    fn take(&self) -> Vec<AuditEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

#[async_trait]
impl AuditSink for Sink {
    async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the audit table is full",
            ));
        }
        self.events.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

fn kinds(error: &ConnectorError) -> Vec<ProblemKind> {
    error
        .problems()
        .iter()
        .map(crate::connector::Problem::kind)
        .collect()
}

#[tokio::test]
async fn every_coordinate_and_operation_is_one_event_without_a_value() {
    let (store, other, sink) = (faulty(), faulty(), Arc::new(Sink::default()));
    insert(&store, 1, "old hunter2");
    let stores = Stores::new(store.clone())
        .with_store(storage("other"), other)
        .with_audit(sink.clone(), AuditMode::Required);
    let secrets = acting(stores, ConnectorOptions::default());

    let missing = json!({"_secret": coordinate(2).as_str(), "_secret_storage_id": "other"});
    let saved = json!([pointer(1), pointer(1), missing]);
    secrets.hydrate(saved).await.unwrap_err();
    let events = sink.take();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            assert_eq!(event.actor.as_str(), "alice");
            assert_eq!(event.operation, Operation::Read);
            let storage_id = event.location.storage_id.as_ref().map(StorageId::as_str);
            (
                event.location.coordinate.to_string(),
                storage_id,
                event.failure,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (coordinate(1).to_string(), None, None),
            (
                coordinate(2).to_string(),
                Some("other"),
                Some(ErrorKind::NotFound)
            ),
        ]
    );

    let saved = json!({"host": "h", "a": pointer(1)});
    let edited = json!({"host": "h", "a": "new hunter2"});
    let staged = secrets
        .stage_update(&spec(), &scope(), saved, edited)
        .await
        .unwrap();
    let written = staged.record().writes()[0].coordinate.clone();
    store.fail_all(Operation::Delete, ErrorKind::Throttled);
    let _ = staged.commit().await.unwrap();
    let events = sink.take();
    assert!(!format!("{events:?}").contains("hunter2"));
    let told: Vec<_> = events
        .into_iter()
        .map(|event| (event.operation, event.location.coordinate, event.failure))
        .collect();
    let old = coordinate(1);
    assert_eq!(
        told,
        [
            (Operation::Read, old.clone().into(), None),
            (Operation::Write, written.into(), None),
            (Operation::Delete, old.into(), Some(ErrorKind::Throttled)),
        ]
    );
}

/// A place shares its path in memory, and a sink writes it in full: without a bound, four mebibytes
/// of configurations made an event of eight hundred.
#[tokio::test]
async fn the_text_of_places_is_bounded_and_what_is_left_out_is_counted() {
    let (store, sink) = (faulty(), Arc::new(Sink::default()));
    for number in 1..=30 {
        insert(&store, number, "hunter2");
    }
    let stores = Stores::new(store).with_audit(sink.clone(), AuditMode::Required);
    let secrets = acting(stores, ConnectorOptions::default());
    // Each of 30 secrets at 100 long places: 34 MB of text, if nobody bounds it.
    let long = |number: u128| format!("{number}{}", "k".repeat(11 << 10));
    let saved: serde_json::Map<_, _> = (1..=30)
        .map(|number| (long(number), json!(vec![pointer(number); 100])))
        .collect();
    let saved = serde_json::Value::Object(saved);
    let check = |events: Vec<AuditEvent>| {
        assert_eq!(events.len(), 30);
        let text = |event: &AuditEvent| -> usize {
            event.places.iter().map(|place| place.as_str().len()).sum()
        };
        for event in &events {
            assert_eq!(event.places.len() + event.places_omitted, 100);
            assert!(text(event) <= 64 << 10, "{}", text(event));
        }
        let all: usize = events.iter().map(text).sum();
        // As many as fit.
        assert!(((1 << 20) - (64 << 10)..=1 << 20).contains(&all), "{all}");
    };
    secrets.hydrate(saved.clone()).await.unwrap();
    check(sink.take());
    let many = saved.as_object().unwrap().clone().into_iter();
    let many = many.map(|(key, value)| json!({ key: value })).collect();
    for full in secrets.hydrate_many(many).await.unwrap() {
        full.unwrap();
    }
    check(sink.take());
}

/// Each secret with its places, and every event with the id of the request.
#[tokio::test]
async fn events_say_the_places_and_the_request() {
    let (store, sink) = (faulty(), Arc::new(Sink::default()));
    insert(&store, 1, "old");
    let stores = Stores::new(store.clone()).with_audit(sink.clone(), AuditMode::Required);
    let secrets = acting(stores, ConnectorOptions::default()).for_request("r-1");
    let told = || -> Vec<(Operation, String)> {
        sink.take()
            .into_iter()
            .map(|event| {
                assert_eq!(event.request.as_deref(), Some("r-1"));
                let places: Vec<&str> = event.places.iter().map(Place::as_str).collect();
                (event.operation, places.join(" "))
            })
            .collect()
    };
    let one = |operation, places: &str| vec![(operation, places.to_owned())];

    let saved = json!({"a": pointer(1), "b": [pointer(1)]});
    secrets.hydrate(saved.clone()).await.unwrap();
    assert_eq!(told(), one(Operation::Read, "/a /b/0"));
    // The same place of two configurations once.
    let many = vec![saved.clone(), json!({"a": pointer(1), "c": pointer(1)})];
    secrets.hydrate_many(many).await.unwrap();
    assert_eq!(told(), one(Operation::Read, "/a /b/0 /c"));

    let staged = secrets
        .stage_create(&spec(), &scope(), json!({"a": "new"}))
        .await
        .unwrap();
    assert_eq!(told(), one(Operation::Write, "/a"));
    let _ = staged.abort().await.unwrap();
}

#[tokio::test]
async fn a_required_audit_that_fails_returns_no_value_and_leaves_no_secret() {
    let store = faulty();
    insert(&store, 1, "old");
    let stores = Stores::new(store.clone()).with_audit(Sink::failing(), AuditMode::Required);
    let secrets = acting(stores, ConnectorOptions::default());
    let error = secrets.hydrate(pointer(1)).await.unwrap_err();
    assert_eq!(kinds(&error), [ProblemKind::AuditFailed]);

    let created = secrets
        .stage_create(&spec(), &scope(), json!({"a": "new"}))
        .await;
    // Of the write, and of the delete that took it back.
    let failed = ProblemKind::AuditFailed;
    assert_eq!(kinds(&created.unwrap_err()), [failed, failed]);
    assert_eq!(store.calls(Operation::Write).len(), 1);
    assert_eq!(store.memory.len(), 1);
}

#[tokio::test]
async fn a_required_audit_that_fails_after_the_save_fails_the_commit_alone() {
    let store = faulty();
    insert(&store, 1, "old");
    let sink = Arc::new(Sink::default());
    let stores = Stores::new(store.clone()).with_audit(sink.clone(), AuditMode::Required);
    let staged = acting(stores, ConnectorOptions::default())
        .stage_delete(&scope(), json!({"a": pointer(1)}))
        .await
        .unwrap();
    sink.fails.store(true, Ordering::SeqCst);
    let error = staged.commit().await.unwrap_err();
    assert_eq!(kinds(&error), [ProblemKind::AuditFailed]);
}

#[tokio::test]
async fn a_best_effort_audit_that_fails_is_counted_and_the_operation_goes_on() {
    let store = faulty();
    insert(&store, 1, "one");
    let stores = Stores::new(store).with_audit(Sink::failing(), AuditMode::BestEffort);
    let secrets = acting(stores.clone(), ConnectorOptions::default());
    let full = secrets.hydrate(pointer(1)).await.unwrap();
    assert_eq!(*full, json!("one"));
    let _ = secrets.hydrate(json!([pointer(1), pointer(2)])).await;
    assert_eq!(stores.unaudited(), 3);
}

#[tokio::test]
async fn where_nobody_listens_nothing_is_counted() {
    let store = faulty();
    insert(&store, 1, "one");
    let stores = Stores::new(store);
    let secrets = acting(stores.clone(), ConnectorOptions::default());
    secrets.hydrate(pointer(1)).await.unwrap();
    assert_eq!(stores.unaudited(), 0);
}
