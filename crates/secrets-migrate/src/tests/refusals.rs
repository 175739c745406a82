//! What a run refuses, and how it stops.
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use secret_persistence_core::{
    Coordinate, Error, ErrorKind, Memory, Operation, Owner, Read, Result, SecretPersistence,
    SecretPersistenceExt, Write, Written,
};
use serde_json::json;

use super::tap::{Done, Process, Tap};
use super::world::{World, assert_complete, contents, name, pointer, put};
use super::wrapped::{Wrapped, Wrapper};
use crate::{
    AllReferences, Cancellation, Class, ConfigRow, Decisions, Event, MemoryConfigs,
    MigrateErrorKind, Migration, Observer, Phase, Shared, Split, Stop,
};

#[tokio::test]
async fn a_journal_of_another_run_is_refused() {
    let (world, other) = (World::with(2, 1).await, World::with(2, 1).await);
    world.undisturbed().copy().await.unwrap();
    let strangers = [
        Migration::new(
            world.source.clone(),
            other.target.clone(),
            world.journal.clone(),
        ),
        Migration::new(
            other.source.clone(),
            world.target.clone(),
            world.journal.clone(),
        ),
        world
            .undisturbed()
            .with_owner(Owner::parse("other").unwrap()),
    ];
    for stranger in strangers {
        let error = stranger.rollback().await.unwrap_err();
        assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
    }
    let split = Split::new(world.source.clone(), world.journal.clone());
    let error = split.run().await.unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
    assert_eq!(contents(&world.target).await, contents(&world.source).await);
}

#[tokio::test]
async fn a_store_is_not_migrated_to_itself() {
    let world = World::with(2, 1).await;
    let migration = Migration::new(
        world.source.clone(),
        world.source.clone(),
        world.journal.clone(),
    );
    let error = migration.copy().await.unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::SameStore);
    let confirmed = AllReferences::confirmed();
    let error = migration.retire(confirmed).await.unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::SameStore);
    assert_eq!(world.source.len(), 2);
}

#[tokio::test]
async fn two_configurations_with_one_id_are_refused() {
    let rows = vec![
        ConfigRow::new("1", json!({})),
        ConfigRow::new("1", json!({})),
    ];
    let error = MemoryConfigs::new("configs", rows).unwrap_err();
    assert_eq!(error.place(), Some("configs#1"));
    let world = World::with(2, 1).await;
    let twice = world.undisturbed().with_configs(world.configs.clone());
    let error = twice.copy().await.unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::Configurations);
    assert_eq!(error.place(), Some("configs#1"));
    assert!(world.target.is_empty());
}

#[tokio::test]
async fn shared_coordinates_of_a_read_only_source_are_a_failure_that_says_so() {
    let world = World::with(2, 1)
        .await
        .decided(Decisions::default().with_shared(Shared::Unshare));
    let rows = vec![ConfigRow::new("5", json!({"a": pointer(1)}))];
    let query = MemoryConfigs::new("query", rows).unwrap().read_only();
    let migration = world.undisturbed().with_configs(Arc::new(query));
    let report = migration.copy().await.unwrap();
    assert!(!report.is_complete());
    assert_eq!(report.failures[0].configuration.as_deref(), Some("query#5"));
    assert_eq!(world.source.len(), 2, "no copy is left");
}

#[tokio::test]
async fn failures_are_named_and_too_many_stop_the_run() {
    let mut world = World::with(400, 1).await;
    world.options.max_failures = NonZeroUsize::new(5).unwrap();
    let process = Process::endless();
    let fails = |done: &Done<'_>| match done {
        Done::Write(writes) if writes[0].coordinate.as_str().contains("7_v1") => Some(
            Error::new(ErrorKind::Unavailable, "the store is down")
                .with_operation(Operation::Write)
                .with_coordinate(writes[0].coordinate.shared()),
        ),
        _ => None,
    };
    let source = Tap::new(world.source.clone(), &process);
    let target = Tap::new(world.target.clone(), &process).failing(fails);
    let report = world
        .migration_between(source, target, &process)
        .copy()
        .await
        .unwrap();
    assert_eq!(report.stopped, Some(Stop::Failures));
    assert!((5..40).contains(&report.failed), "{}", report.failed);
    let failure = &report.failures[0];
    assert_eq!(failure.kind, "unavailable");
    assert!(failure.coordinate.as_deref().unwrap().contains("7_v1"));
    assert!(report.states.intent > 0 && report.states.pending > 0);
    assert_complete(
        &world.undisturbed().copy().await.unwrap(),
        "once it is back",
    );
    assert_eq!(contents(&world.target).await, contents(&world.source).await);
}

#[tokio::test]
async fn a_source_that_fails_the_second_look_leaves_the_intent() {
    let world = World::with(2, 1).await;
    let process = Process::endless();
    let fails = |done: &Done<'_>| match done {
        Done::Read(names) => {
            static READS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let second = READS.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 2;
            second.then(|| {
                Error::new(ErrorKind::Unavailable, "the store is down")
                    .with_coordinate(names[0].shared())
            })
        }
        _ => None,
    };
    let source = Tap::new(world.source.clone(), &process).failing(fails);
    let target = Tap::new(world.target.clone(), &process);
    let migration = world.migration_between(source, target, &process);
    let report = migration.copy().await.unwrap();
    assert_eq!((report.failed, report.states.intent), (2, 2));
    assert_complete(
        &world.undisturbed().copy().await.unwrap(),
        "once it is back",
    );
}

#[derive(Debug, Default)]
struct Stopper {
    cancellation: Cancellation,
    phases: Mutex<Vec<(Phase, u64)>>,
    findings: Mutex<u64>,
}

impl Observer for Stopper {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Advanced {
                phase: Phase::Copy, ..
            } => self.cancellation.cancel(),
            Event::Ended { phase, done } => self.phases.lock().unwrap().push((*phase, *done)),
            Event::Found(_) => *self.findings.lock().unwrap() += 1,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_cancelled_run_finishes_what_it_began_and_goes_on_later() {
    let world = World::with(1000, 20).await;
    let observer = Arc::new(Stopper::default());
    let migration = world
        .undisturbed()
        .with_observer(observer.clone())
        .with_cancellation(observer.cancellation.clone());
    let report = migration.copy().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Cancelled));
    assert!(report.states.written > 0 && report.states.pending > 0);
    assert_eq!(report.states.intent, 0, "nothing is left half done");
    assert_eq!(world.target.len() as u64, report.states.written);
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    let observer = Arc::new(Stopper::default());
    let migration = world.undisturbed().with_observer(observer.clone());
    put(&world.source, 5000, "orphan").await;
    migration.plan().await.unwrap();
    assert_eq!(*observer.findings.lock().unwrap(), 1);
    assert_eq!(
        *observer.phases.lock().unwrap(),
        [
            (Phase::Scan, 500),
            (Phase::List, 1001),
            (Phase::Compare, 1000)
        ]
    );
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    use std::sync::atomic::{AtomicI64, Ordering};
    let mut world = World::with(300, 1).await;
    world.options.concurrency = NonZeroUsize::new(3);
    let process = Process::endless();
    let highest = Arc::new(AtomicI64::new(0));
    let store = Arc::new(Wrapped(InFlight {
        store: world.target.clone(),
        now: AtomicI64::new(0),
        highest: highest.clone(),
    }));
    let migration = world.migration_between(
        Tap::new(world.source.clone(), &process),
        Tap::new(store, &process),
        &process,
    );
    assert_complete(&migration.copy().await.unwrap(), "copy");
    assert_eq!(highest.load(Ordering::SeqCst), 3);
}

struct InFlight {
    store: Arc<Memory>,
    now: std::sync::atomic::AtomicI64,
    highest: Arc<std::sync::atomic::AtomicI64>,
}

impl InFlight {
    async fn pass(&self) {
        use std::sync::atomic::Ordering;
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.highest.fetch_max(now, Ordering::SeqCst);
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Wrapper for InFlight {
    fn store(&self) -> &dyn SecretPersistence {
        &*self.store
    }

    async fn read_batch(&self, names: &[Coordinate]) -> Vec<Result<Read>> {
        self.pass().await;
        self.store.read_batch(names).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.pass().await;
        self.store.write_batch(writes).await
    }
}

#[tokio::test]
async fn an_unknown_pointer_to_another_installation_is_no_orphan() {
    let mut world = World::with(2, 1).await;
    world.source = Arc::new(Memory::new().with_owner(Owner::parse("theirs").unwrap()));
    put(&world.source, 1, "x").await;
    put(&world.source, 2, "1").await;
    put(&world.source, 9, "theirs").await;
    let ours = world
        .undisturbed()
        .with_owner(Owner::parse("ours").unwrap());
    let report = ours.plan().await.unwrap();
    assert_eq!(report.count(Class::Orphaned), 0);
    assert_eq!(report.tally.foreign, 1);
    assert!(world.source.read(&name(9).into()).await.is_ok());
}

/// Services run migrations in tasks of their own.
#[test]
fn commands_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    fn never(migration: &Migration, split: &Split) {
        is_send(migration.plan());
        is_send(migration.copy());
        is_send(migration.verify());
        is_send(migration.rollback());
        is_send(migration.retire(AllReferences::confirmed()));
        is_send(split.run());
    }
    let _ = never;
}
