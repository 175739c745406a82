//! Everything or nothing, each secret once, all stores together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use uuid::Uuid;

use super::faulty::{Faulty, Rotated, faulty};
use super::{acting, coordinate, insert, over, pointer, storage};
use crate::connector::{ConnectorOptions, FreshError, ProblemKind, ResolveReferences};
use crate::{
    Coordinate, Error, ErrorKind, Location, Memory, Operation, Result, SecretPersistenceExt,
    SecretValue, Stores,
};

#[tokio::test]
async fn one_secret_in_a_hundred_places_is_read_once() {
    let store = faulty();
    insert(&store, 1, "one");
    let saved = json!({"all": vec![pointer(1); 100]});
    let full = over(&store).hydrate(saved).await.unwrap();
    assert_eq!(*full, json!({"all": vec!["one"; 100]}));
    assert_eq!(store.calls(Operation::Read).len(), 1);
    assert_eq!(store.requests(), 1);
}

#[tokio::test]
async fn ten_thousand_secrets_are_read_in_as_few_requests_as_the_store_allows() {
    let store = faulty();
    for id in 0..10_000 {
        insert(&store, id, &format!("value {id}"));
    }
    let saved: Vec<Value> = (0..10_000).map(pointer).collect();
    let full = over(&store).hydrate(saved.into()).await.unwrap();
    assert_eq!(full[9_999], "value 9999");
    assert_eq!(store.requests(), 10);
    assert_eq!(store.calls(Operation::Read).len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn the_reads_of_all_stores_go_out_together() {
    let delay = Duration::from_secs(1);
    let slow = || Arc::new(Faulty::new(Memory::new()).with_delay(delay));
    let (default, other, third) = (slow(), slow(), slow());
    let stores = Stores::new(default.clone())
        .with_store(storage("other"), other.clone())
        .with_store(storage("third"), third.clone());
    insert(&default, 1, "one");
    insert(&other, 1, "another one");
    insert(&third, 2, "two");
    let at = |id: u128, storage: &str| json!({"_secret": coordinate(id).as_str(), "_secret_storage_id": storage});
    let saved = json!([pointer(1), at(1, "other"), at(2, "third"), at(1, "other")]);
    let began = tokio::time::Instant::now();
    let full = acting(stores, ConnectorOptions::default())
        .hydrate(saved)
        .await
        .unwrap();
    // The same name in two stores is two secrets.
    assert_eq!(*full, json!(["one", "another one", "two", "another one"]));
    assert_eq!(began.elapsed(), delay);
    assert_eq!(default.requests() + other.requests() + third.requests(), 3);
}

#[tokio::test]
async fn every_failing_place_is_named_and_nothing_is_half_done() {
    let store = faulty();
    insert(&store, 1, "one");
    let pending = coordinate(3);
    insert(&store, 3, "three");
    let saved = json!({
        "ok": pointer(1),
        "missing": [pointer(2), pointer(2)],
        "pending": {"x/y": pointer(3)},
        "elsewhere": {"_secret": "airbyte_x_v1", "_secret_storage_id": "nobody's"},
    });
    store
        .memory
        .delete(&pending, &crate::DeleteOptions::default())
        .await
        .unwrap();
    let error = over(&store).hydrate(saved).await.unwrap_err();
    let problems: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| {
            (
                problem.place().as_str().to_owned(),
                problem.kind(),
                problem.coordinate().unwrap().to_owned(),
                problem.error().map(Error::kind),
            )
        })
        .collect();
    let name = |id| coordinate(id).to_string();
    let gone = Some(ErrorKind::NotFound);
    assert_eq!(
        problems,
        [
            (
                "/elsewhere".to_owned(),
                ProblemKind::UnknownStorage,
                "airbyte_x_v1".to_owned(),
                None
            ),
            ("/missing/0".to_owned(), ProblemKind::Store, name(2), gone),
            ("/missing/1".to_owned(), ProblemKind::Store, name(2), gone),
            (
                "/pending/x~1y".to_owned(),
                ProblemKind::Store,
                name(3),
                Some(ErrorKind::PendingDeletion)
            ),
        ]
    );
    assert!(!format!("{error} {error:?}").contains("one"));
}

#[tokio::test]
async fn null_is_an_empty_configuration() {
    let full = over(&faulty()).hydrate(Value::Null).await.unwrap();
    assert_eq!(*full, json!({}));
}

#[tokio::test]
async fn malformed_pointers_are_named_before_anything_is_read() {
    let store = faulty();
    let saved = json!({"a": pointer(1), "b": {"_secret": 5}, "c": {"_secret": "x", "y": 1}});
    let error = over(&store).hydrate(saved).await.unwrap_err();
    let places: Vec<&str> = error
        .problems()
        .iter()
        .map(|problem| problem.place().as_str())
        .collect();
    assert_eq!(places, ["/b", "/c"]);
    assert_eq!(store.requests(), 0);
}

#[tokio::test]
async fn a_value_that_looks_like_a_pointer_is_a_value() {
    let store = faulty();
    insert(&store, 1, &pointer(2).to_string());
    let mut json = pointer(1);
    json["_secret_encoding"] = json!("json");
    let full = over(&store)
        .hydrate(json!([pointer(1), json]))
        .await
        .unwrap();
    assert_eq!(*full, json!([pointer(2).to_string(), pointer(2)]));
    assert_eq!(store.calls(Operation::Read).len(), 1);
    assert!(!format!("{full:?}").contains("airbyte_"));
}

#[tokio::test]
async fn an_empty_value_that_others_stored_is_not_missing() {
    let store = faulty();
    store
        .memory
        .insert("team/empty", SecretValue::new(String::new()));
    let saved = json!({"a": {"_secret": "team/empty"}});
    assert_eq!(
        *over(&store).hydrate(saved).await.unwrap(),
        json!({"a": ""})
    );
}

pub(super) struct Rows {
    rows: HashMap<Uuid, Location>,
    failure: Option<ErrorKind>,
    short: bool,
    asked: AtomicUsize,
}

impl Rows {
    pub(super) fn new(rows: &[(u128, Location)]) -> Self {
        Self {
            rows: rows
                .iter()
                .map(|(id, row)| (Uuid::from_u128(*id), row.clone()))
                .collect(),
            failure: None,
            short: false,
            asked: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl ResolveReferences for Rows {
    async fn resolve(&self, ids: &[Uuid]) -> Result<Vec<Option<Location>>> {
        self.asked.fetch_add(ids.len(), Ordering::SeqCst);
        if let Some(kind) = self.failure {
            return Err(Error::new(kind, "no rows today"));
        }
        let ids = if self.short { &ids[1..] } else { ids };
        Ok(ids.iter().map(|id| self.rows.get(id).cloned()).collect())
    }
}

pub(super) fn reference(id: u128) -> Value {
    json!({"_secret_reference_id": Uuid::from_u128(id).to_string()})
}

#[tokio::test]
async fn references_are_resolved_once_and_decide() {
    let (default, other) = (faulty(), faulty());
    insert(&default, 1, "one");
    insert(&other, 1, "another one");
    let row = Location::new(coordinate(1).into());
    let rows = Arc::new(Rows::new(&[
        (7, row.clone()),
        (8, row.with_storage_id(Some(storage("other")))),
    ]));
    let secrets = acting(
        Stores::new(default).with_store(storage("other"), other),
        ConnectorOptions::default().with_references(rows.clone()),
    );
    let mut beside = reference(7);
    beside["_secret"] = json!(coordinate(1).as_str());
    let saved = json!([reference(7), reference(8), beside, reference(7)]);
    let full = secrets.hydrate(saved).await.unwrap();
    assert_eq!(*full, json!(["one", "another one", "one", "one"]));
    assert_eq!(rows.asked.load(Ordering::SeqCst), 2);

    let mut mismatch = reference(7);
    mismatch["_secret"] = json!(coordinate(2).as_str());
    let mut moved = reference(8);
    moved["_secret_storage_id"] = json!("third");
    let saved = json!([mismatch, reference(9), moved]);
    let error = secrets.hydrate(saved).await.unwrap_err();
    let kinds: Vec<ProblemKind> = error
        .problems()
        .iter()
        .map(crate::connector::Problem::kind)
        .collect();
    assert_eq!(
        kinds,
        [
            ProblemKind::ReferenceMismatch,
            ProblemKind::UnknownReference,
            ProblemKind::ReferenceMismatch
        ]
    );
}

#[tokio::test]
async fn references_that_cannot_be_resolved_stop_everything() {
    let store = faulty();
    insert(&store, 1, "one");
    let saved = json!([pointer(1), reference(7)]);
    let error = over(&store).hydrate(saved.clone()).await.unwrap_err();
    assert_eq!(error.problems().len(), 1);
    assert_eq!(error.problems()[0].kind(), ProblemKind::UnknownReference);
    assert_eq!(error.problems()[0].place().as_str(), "/1");

    for (failure, short) in [(Some(ErrorKind::Unavailable), false), (None, true)] {
        let rows = Rows {
            failure,
            short,
            ..Rows::new(&[])
        };
        let options = ConnectorOptions::default().with_references(Arc::new(rows));
        let error = acting(Stores::new(store.clone()), options)
            .hydrate(saved.clone())
            .await
            .unwrap_err();
        assert_eq!(error.problems()[0].kind(), ProblemKind::Store);
        assert_eq!(error.is_retryable(), failure.is_some());
    }
}

#[tokio::test]
async fn a_store_that_refuses_our_credentials_is_opened_anew_once() {
    let refusing = || {
        let store = faulty();
        store.fail_all(Operation::Read, ErrorKind::Unauthenticated);
        insert(&store, 1, "one");
        store
    };
    let good = faulty();
    insert(&good, 1, "one");
    let saved = json!({"_secret": coordinate(1).as_str(), "_secret_storage_id": "other"});

    let opener = Rotated::new(vec![refusing(), good]);
    let stores = Stores::new(faulty()).with_opener(opener.clone());
    let secrets = acting(stores, ConnectorOptions::default());
    assert_eq!(*secrets.hydrate(saved.clone()).await.unwrap(), json!("one"));
    assert_eq!(opener.opened(), 2);

    let opener = Rotated::new(vec![refusing()]);
    let stores = Stores::new(faulty()).with_opener(opener.clone());
    let secrets = acting(stores, ConnectorOptions::default());
    let error = secrets.hydrate(saved).await.unwrap_err();
    let kind = error.problems()[0].error().map(Error::kind);
    assert_eq!(kind, Some(ErrorKind::Unauthenticated));
    assert_eq!(opener.opened(), 2);
}

#[tokio::test]
async fn a_row_is_read_again_at_most_three_times_and_only_while_it_moves() {
    let secrets = over(&faulty());
    let rounds = AtomicUsize::new(0);
    let moving = || {
        let round = rounds.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, Error>((round, pointer(1))))
    };
    let error = secrets.hydrate_fresh(moving).await.unwrap_err();
    assert!(matches!(error, FreshError::Secrets(_)));
    assert_eq!(rounds.load(Ordering::SeqCst), 4, "one read and three more");

    let rounds = AtomicUsize::new(0);
    let unmoved = || {
        rounds.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, Error>((1, pointer(1))))
    };
    assert!(secrets.hydrate_fresh(unmoved).await.is_err());
    assert_eq!(rounds.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_row_is_not_read_again_for_what_a_newer_one_cannot_help() {
    let store = faulty();
    store.fail_all(Operation::Read, ErrorKind::PermissionDenied);
    let rounds = AtomicUsize::new(0);
    let row = || {
        let round = rounds.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, Error>((round, pointer(1))))
    };
    assert!(over(&store).hydrate_fresh(row).await.is_err());
    assert_eq!(rounds.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn locations_are_ours_and_resolved() {
    let rows = Rows::new(&[(7, Location::new(coordinate(2).into()))]);
    let options = ConnectorOptions::default().with_references(Arc::new(rows));
    let secrets = acting(Stores::new(faulty()), options);
    let saved = json!([pointer(1), reference(7), {"_secret": "team/password"}]);
    let names: Vec<Coordinate> = secrets
        .locations(&saved)
        .await
        .unwrap()
        .into_iter()
        .map(|location| location.coordinate.into())
        .collect();
    assert_eq!(names, [coordinate(1).into(), coordinate(2).into()]);
    assert!(secrets.locations(&reference(8)).await.is_err());
}
