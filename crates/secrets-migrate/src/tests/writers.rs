//! Ordinary services that rotate secrets while a run is under way, and stores that behave in odd ways.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use secret_persistence_core::{
    Entry, Error, ErrorKind, ManagedCoordinate, Memory, Result, SecretPersistence, Write, Written,
};
use serde_json::json;

use super::world::{World, assert_complete, contents, has, name, pointer, put, remove, value};
use super::wrapped::{Wrapped, Wrapper};
use crate::{
    AllReferences, Class, Decisions, Event, MigrateErrorKind, Observer, Orphaned, Phase, State,
    Stop,
};

/// A store with one peculiarity.
struct Odd {
    store: Arc<Memory>,
    /// Describes every name, as one does whose values were destroyed behind them.
    hollow: bool,
    /// Refuses writes, and takes deletes.
    no_writes: bool,
}

#[async_trait]
impl Wrapper for Odd {
    fn store(&self) -> &dyn SecretPersistence {
        &*self.store
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        if self.no_writes {
            let refused = Error::new(ErrorKind::PermissionDenied, "no");
            return vec![Err(refused); writes.len()];
        }
        self.store.write_batch(writes).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        if self.hollow {
            return Ok(Entry::new(coordinate.clone()));
        }
        self.store.describe(coordinate).await
    }
}

/// A service as it saves: a new version, the row, then the old version goes; `mirrored` also in the
/// target, where it deletes first.
async fn rotate(world: &World, row: u32, old: u32, new: u32, mirrored: bool) {
    put(&world.source, new, &value(new)).await;
    if mirrored {
        put(&world.target, new, &value(new)).await;
    }
    tokio::task::yield_now().await;
    world.row(row, json!({ "password": pointer(new) }));
    tokio::task::yield_now().await;
    if mirrored {
        remove(&world.target, old).await;
        tokio::task::yield_now().await;
    }
    remove(&world.source, old).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_rotate_secrets_do_not_stop_a_copy_and_are_not_called_losses() {
    const ROWS: u32 = 40;
    for mirrored in [false, true] {
        // What is written and not saved yet looks like an orphan for a moment.
        let decisions = Decisions::default().with_orphaned(Orphaned::Leave);
        let world = Arc::new(World::empty(4).decided(decisions));
        for row in 1..=ROWS {
            put(&world.source, row, &value(row)).await;
            world.row(row, json!({ "password": pointer(row) }));
        }
        let (done, rotated) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let writer = {
            let (world, done, rotated) = (world.clone(), done.clone(), rotated.clone());
            tokio::spawn(async move {
                let mut current: Vec<u32> = (1..=ROWS).collect();
                let mut next = 1000;
                while !done.load(Ordering::Relaxed) {
                    let row = next % ROWS;
                    let old = current[row as usize];
                    rotate(&world, row + 1, old, next, mirrored).await;
                    current[row as usize] = next;
                    next += 1;
                    rotated.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        };
        let mut changed = 0;
        for round in 0..30 {
            let before = rotated.load(Ordering::Relaxed);
            for (command, report) in [
                ("copy", world.undisturbed().copy().await.unwrap()),
                ("verify", world.undisturbed().verify().await.unwrap()),
            ] {
                assert_eq!(
                    report.stopped, None,
                    "{command} {round}: {:#?}",
                    report.failures
                );
                assert_eq!(
                    report.failed, 0,
                    "{command} {round}: {:#?}",
                    report.failures
                );
                for class in [Class::Missing, Class::Lost, Class::Conflicting] {
                    assert_eq!(report.count(class), 0, "{command} {round}: {class}");
                }
                changed += report.tally.changed_since;
                assert_eq!(report.tally.changed_since, report.count(Class::Changed));
            }
            while rotated.load(Ordering::Relaxed) < before + 5 {
                tokio::task::yield_now().await;
            }
        }
        done.store(true, Ordering::Relaxed);
        writer.await.unwrap();
        assert!(mirrored || changed > 0, "nothing changed under it");
        // Once it is quiet a delta brings the rest.
        assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
        let report = world.undisturbed().verify().await.unwrap();
        assert_complete(&report, "verify");
        assert_eq!(report.tally.changed_since, 0);
        world.assert_hydrates(&world.target, "target").await;
        // The target may keep old versions that a copy had brought before they were deleted.
        let (source, target) = (contents(&world.source).await, contents(&world.target).await);
        assert!(
            source
                .iter()
                .all(|(name, value)| target.get(name) == Some(value))
        );
    }
}

#[tokio::test]
async fn a_name_without_a_value_is_named_with_its_remedy_and_left_by_rollback() {
    let world = World::with(4, 2).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    remove(&world.target, 2).await;
    let target = Arc::new(Wrapped(Odd {
        store: world.target.clone(),
        hollow: true,
        no_writes: false,
    }));
    let migration = world.between(world.source.clone(), target);
    let report = migration.verify().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Unverified));
    let lost = &report.findings[&Class::Lost].listed[0];
    assert_eq!(lost.coordinate.as_deref(), Some(name(2).as_str()));
    let detail = lost.detail.as_deref().unwrap();
    assert!(detail.contains("delete the secret"), "{detail}");
    let report = migration.rollback().await.unwrap();
    assert_eq!((report.tally.deleted, report.tally.kept), (3, 1));
    let kept = &report.findings[&Class::Kept].listed[0];
    assert_eq!(kept.coordinate.as_deref(), Some(name(2).as_str()));
    assert!(world.entry(2).await.intent, "it is still ours");
}

#[tokio::test(start_paused = true)]
async fn where_a_store_refuses_the_probe_somebody_has_to_say_that_it_may_go_on() {
    for refusing in ["source", "target"] {
        let mut world = World::with(4, 2).await;
        assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
        let odd = |store: &Arc<Memory>, name| -> Arc<dyn SecretPersistence> {
            Arc::new(Wrapped(Odd {
                store: store.clone(),
                hollow: false,
                no_writes: name == refusing,
            }))
        };
        let migration = |world: &World| {
            let (source, target) = (odd(&world.source, "source"), odd(&world.target, "target"));
            world.between(source, target)
        };
        let refused = [
            migration(&world).rollback().await,
            migration(&world).retire(AllReferences::confirmed()).await,
        ];
        for refused in refused {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), MigrateErrorKind::Undecided, "{error}");
            assert!(error.hint().unwrap().contains("--without-probe"), "{error}");
        }
        for number in 1..=4 {
            assert!(has(&world.source, number).await && has(&world.target, number).await);
        }
        world.options = world.options.clone().with_without_probe(true);
        let report = migration(&world).rollback().await.unwrap();
        assert_complete(&report, refusing);
        assert_eq!(report.tally.deleted, 4);
    }
}

#[tokio::test]
async fn a_conflict_that_nobody_has_any_more_stops_nothing() {
    let world = World::with(4, 2).await;
    put(&world.target, 1, "another").await;
    let report = world.undisturbed().copy().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Conflict));
    // The row is saved anew, and its old secret deleted.
    put(&world.source, 21, &value(21)).await;
    world.row(1, json!({ "password": pointer(21) }));
    remove(&world.source, 1).await;
    let report = world.undisturbed().verify().await.unwrap();
    assert_ne!(report.stopped, Some(Stop::Conflict), "{report:#?}");
    assert_eq!(report.count(Class::Conflicting), 0);
    assert_eq!(world.entry(1).await.state, State::Pending);
}

/// The bar moves with every secret that a store takes, not with a unit of many.
#[tokio::test]
async fn progress_is_told_secret_by_secret() {
    let world = World::with(40, 2).await;
    let batch = world.target.capabilities().write_batch as u64;
    let told = async |command: &str| {
        let steps = Arc::new(Steps::default());
        let migration = world.undisturbed().with_observer(steps.clone());
        let report = match command {
            "plan" => migration.plan().await,
            "copy" => migration.copy().await,
            "verify" => migration.verify().await,
            _ => migration.rollback().await,
        };
        assert_complete(&report.unwrap(), command);
        steps
    };
    let plan = told("plan").await;
    plan.expect(Phase::Compare, 40, batch);
    let copy = told("copy").await;
    copy.expect(Phase::Copy, 40, batch);
    let verify = told("verify").await;
    verify.expect(Phase::Compare, 40, batch);
    // Two secrets in each configuration; the page has all of them.
    verify.expect(Phase::Hydrate, 20, 16);
    let rollback = told("rollback").await;
    let deletes = world.target.capabilities().delete_batch as u64;
    rollback.expect(Phase::Delete, 40, deletes);
}

/// How far each phase says that it is.
#[derive(Debug, Default)]
struct Steps(parking_lot::Mutex<Vec<(Phase, u64)>>);

impl Observer for Steps {
    fn event(&self, event: &Event<'_>) {
        if let Event::Advanced { phase, done } = event {
            self.0.lock().push((*phase, *done));
        }
    }
}

impl Steps {
    /// Ends the test unless the phase got to its end in steps of at most this size.
    #[track_caller]
    fn expect(&self, of: Phase, all: u64, most: u64) {
        let steps = self.0.lock();
        let steps = steps.iter().filter(|(phase, _)| *phase == of);
        let mut steps: Vec<u64> = steps.map(|(_, done)| *done).collect();
        steps.insert(0, 0);
        assert_eq!(steps.last(), Some(&all), "{of}: {steps:?}");
        let mut sizes = steps.windows(2).map(|two| two[1] - two[0]);
        assert!(sizes.all(|size| size <= most), "{of}: {steps:?}");
    }
}
