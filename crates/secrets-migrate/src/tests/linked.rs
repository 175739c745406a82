//! Stores that follow each other, secrets of other scopes, and writers beside a run.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::{
    DeleteOptions, ManagedCoordinate, Memory, Result, SecretPersistence, SecretPersistenceExt,
    Write, Written,
};
use serde_json::json;
use uuid::Uuid;

use super::world::{World, assert_complete, contents, has, name, pointer, put, remove, value};
use super::wrapped::{Wrapped, Wrapper};
use crate::{
    AllReferences, Class, ConfigRow, Decisions, MigrateErrorKind, Missing, OtherScope,
    PendingDeletion, Recoverable, Shared, State, Stop,
};

/// A store whose writes and deletes somebody carries over to another one a while later.
struct Followed {
    store: Arc<Memory>,
    by: Arc<Memory>,
    writes: bool,
    /// Only names that contain this follow.
    only: String,
    /// How much later.
    lag: Duration,
    /// What else happens to these names.
    also: Option<Box<dyn Fn() + Send + Sync>>,
}

const LAG: Duration = Duration::from_millis(300);

#[async_trait]
impl Wrapper for Followed {
    fn store(&self) -> &dyn SecretPersistence {
        &*self.store
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        if self.writes {
            let (by, writes) = (self.by.clone(), writes.to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(LAG).await;
                by.write_batch(&writes).await
            });
        }
        self.store.write_batch(writes).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        for coordinate in coordinates {
            if coordinate.as_str().contains(&self.only) {
                if let Some(also) = &self.also {
                    also();
                }
                let (by, name, options) = (self.by.clone(), coordinate.clone(), options.clone());
                let lag = self.lag;
                let following = tokio::spawn(async move {
                    tokio::time::sleep(lag).await;
                    by.delete(&name, &options).await
                });
                if lag.is_zero() {
                    following.await.unwrap().unwrap();
                }
            }
        }
        self.store.delete_batch(coordinates, options).await
    }
}

async fn copied(secrets: u32) -> World {
    let mut world = World::with(secrets, 2).await;
    world.options = world.options.with_lag(LAG * 2);
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    world
}

#[tokio::test(start_paused = true)]
async fn what_follows_is_neither_retired_nor_rolled_back() {
    for writes in [true, false] {
        let world = copied(6).await;
        let before = contents(&world.source).await;
        let source = Followed {
            store: world.source.clone(),
            by: world.target.clone(),
            writes,
            only: "".to_owned(),
            lag: LAG,
            also: None,
        };
        let error = world
            .between(Arc::new(Wrapped(source)), world.target.clone())
            .retire(AllReferences::confirmed())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), MigrateErrorKind::SameStore, "{error}");
        let target = Followed {
            store: world.target.clone(),
            by: world.source.clone(),
            writes,
            only: "".to_owned(),
            lag: LAG,
            also: None,
        };
        let error = world
            .between(world.source.clone(), Arc::new(Wrapped(target)))
            .rollback()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), MigrateErrorKind::SameStore, "{error}");
        tokio::time::sleep(LAG * 3).await;
        assert_eq!(contents(&world.source).await, before, "{writes}");
        assert_eq!(contents(&world.target).await, before, "{writes}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_secret_that_both_lose_is_put_back_and_ends_the_run() {
    let world = copied(6).await;
    let before = contents(&world.source).await;
    // A trigger that lets the probe pass: only names of this workspace follow.
    let source = Followed {
        store: world.source.clone(),
        by: world.target.clone(),
        writes: false,
        only: "000000000001_secret".to_owned(),
        lag: LAG,
        also: None,
    };
    let report = world
        .between(Arc::new(Wrapped(source)), world.target.clone())
        .retire(AllReferences::confirmed())
        .await
        .unwrap();
    assert_eq!(report.stopped, Some(Stop::Linked));
    assert_eq!(report.tally.deleted, 0);
    assert_eq!(report.failures.len(), 1);
    assert_eq!(contents(&world.source).await, before, "it was written back");
    tokio::time::sleep(LAG * 3).await;
    assert_eq!(
        world.target.len(),
        5,
        "one was deleted, and it is in the source"
    );
}

/// A replica that has only some names, and gets them late: neither the probe nor the first secret shows
/// it, and what was deleted is still there a moment later.
#[tokio::test(start_paused = true)]
async fn a_loss_that_arrives_late_ends_the_run_too() {
    for command in ["retire", "rollback"] {
        let world = copied(6).await;
        let before = contents(&world.source).await;
        let (emptied, kept) = match command {
            "retire" => (&world.source, &world.target),
            _ => (&world.target, &world.source),
        };
        let followed = Arc::new(Wrapped(Followed {
            store: emptied.clone(),
            by: kept.clone(),
            writes: false,
            only: "000000000006_v1".to_owned(),
            lag: LAG,
            also: None,
        }));
        let report = match command {
            "retire" => {
                let migration = world.between(followed, world.target.clone());
                migration.retire(AllReferences::confirmed()).await.unwrap()
            }
            _ => {
                let migration = world.between(world.source.clone(), followed);
                migration.rollback().await.unwrap()
            }
        };
        assert_eq!(report.stopped, Some(Stop::Linked), "{command}");
        assert_eq!(report.tally.deleted, 5, "{command}");
        assert_eq!(report.failures.len(), 1, "{command}");
        // Whatever is in neither store any more would be lost.
        let now = (contents(emptied).await, contents(kept).await);
        for (name, value) in &before {
            let somewhere = now.0.get(name).or_else(|| now.1.get(name));
            assert_eq!(somewhere, Some(value), "{command}");
        }
        assert!(world.entry(6).await.intent, "{command}: it is still ours");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_service_deletes_beside_a_rollback_is_not_taken_for_a_replica() {
    for saves_first in [true, false] {
        let world = copied(6).await;
        let configs = world.configs.clone();
        // The service saves a row without the secret, then deletes it in both stores.
        let saves = move || configs.put(ConfigRow::new("3".to_owned(), json!({"password": null})));
        let target = Followed {
            store: world.target.clone(),
            by: world.source.clone(),
            writes: false,
            only: name(3).as_str().to_owned(),
            lag: Duration::ZERO,
            also: saves_first.then(|| Box::new(saves) as Box<dyn Fn() + Send + Sync>),
        };
        let report = world
            .between(world.source.clone(), Arc::new(Wrapped(target)))
            .rollback()
            .await
            .unwrap();
        if saves_first {
            assert_complete(&report, "rollback");
            assert_eq!(contents(&world.target).await.len(), 0);
        } else {
            assert_eq!(report.stopped, Some(Stop::Linked));
            assert!(has(&world.target, 3).await, "it is written back");
        }
    }
}

#[tokio::test]
async fn a_pointer_at_another_workspace_waits_for_a_decision_and_is_never_unshared() {
    let workspace = |number: u128| Some(Uuid::from_u128(number));
    let mut world = World::empty(2);
    put(&world.source, 1, &value(1)).await;
    for (id, base_id) in [("owner", workspace(1)), ("thief", workspace(2))] {
        let row = ConfigRow::new(id, json!({"password": pointer(1)}));
        world.configs.put(row.with_scope(None, base_id));
    }
    let report = world.undisturbed().plan().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Undecided));
    assert_eq!(report.count(Class::OtherScope), 1);
    let found = &report.findings[&Class::OtherScope].listed[0];
    assert_eq!(found.configuration.as_deref(), Some("configs#thief"));
    world.options.decisions = Decisions::default().with_shared(Shared::Unshare);
    let report = world.undisturbed().copy().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Undecided));
    world.options.decisions = world.options.decisions.with_other_scope(OtherScope::Keep);
    assert_complete(&world.undisturbed().copy().await.unwrap(), "decided");
    assert_eq!(world.source.len(), 1, "the thief gets no copy of its own");
    assert_eq!(contents(&world.target).await, contents(&world.source).await);
}

#[tokio::test]
async fn what_rollback_left_in_a_recovery_window_is_ours_again_once_it_is_restored() {
    let mut world = World::with(4, 2).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    // The store keeps what it deletes, whatever is asked for: as Azure does without the right to purge.
    for number in 1..=4 {
        let kept = DeleteOptions::default();
        world.target.delete(&name(number), &kept).await.unwrap();
    }
    assert_complete(&world.undisturbed().rollback().await.unwrap(), "rollback");
    for number in 1..=4 {
        let entry = world.entry(number).await;
        assert_eq!((entry.state, entry.intent), (State::Pending, true));
    }
    world.options.decisions = Decisions::default().with_pending_deletion(PendingDeletion::Restore);
    assert_complete(&world.undisturbed().copy().await.unwrap(), "restored");
    let report = world.undisturbed().rollback().await.unwrap();
    assert_complete(&report, "rollback again");
    assert_eq!(report.tally.deleted, 4);
    assert!(world.target.is_empty());
}

#[tokio::test]
async fn a_conflict_that_is_over_is_compared_again_and_one_that_is_not_is_listed() {
    let world = World::with(4, 2).await;
    put(&world.target, 1, "another").await;
    put(&world.target, 3, "another").await;
    let report = world.undisturbed().copy().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Conflict));
    remove(&world.target, 1).await;
    put(&world.target, 1, &value(1)).await;
    let report = world.undisturbed().verify().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Conflict));
    assert_eq!(world.entry(1).await.state, State::Present);
    let listed = &report.findings[&Class::Conflicting].listed;
    assert_eq!(listed[0].coordinate.as_deref(), Some(name(3).as_str()));
}

#[tokio::test]
async fn what_the_source_can_restore_is_not_called_missing() {
    let mut world = World::with(4, 2).await;
    let kept = DeleteOptions::default();
    world.source.delete(&name(1), &kept).await.unwrap();
    let report = world.undisturbed().plan().await.unwrap();
    assert_eq!(report.count(Class::Missing), 0);
    assert_eq!(report.count(Class::Recoverable), 1);
    let detail = report.findings[&Class::Recoverable].listed[0]
        .detail
        .as_deref();
    assert!(detail.unwrap().contains("restore it there"), "{detail:?}");
    assert_eq!(report.undecided, [Class::Recoverable]);
    world.options.decisions = Decisions::default().with_recoverable(Recoverable::Skip);
    assert_complete(&world.undisturbed().plan().await.unwrap(), "decided");
}

#[tokio::test]
async fn a_configuration_that_was_skipped_is_named() {
    let mut world = World::with(4, 2).await;
    remove(&world.source, 1).await;
    world.options.decisions = Decisions::default().with_missing(Missing::Skip);
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    let report = world.undisturbed().verify().await.unwrap();
    assert_complete(&report, "verify");
    let skipped = &report.findings[&Class::Skipped].listed[0];
    assert_eq!(skipped.configuration.as_deref(), Some("configs#1"));
    assert_eq!(skipped.coordinate.as_deref(), Some(name(1).as_str()));
}

#[tokio::test]
async fn what_was_saved_since_the_copy_is_counted_apart_and_not_retired_past() {
    let world = World::with(4, 2).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    // Somebody rotates: a new version, the row, then the old one goes.
    put(&world.source, 21, &value(21)).await;
    world.row(3, json!({"password": pointer(21)}));
    remove(&world.source, 3).await;
    remove(&world.source, 4).await;
    let report = world.undisturbed().verify().await.unwrap();
    assert_complete(&report, "verify");
    assert_eq!(report.tally.changed_since, 1);
    assert_eq!(report.tally.lost, 0);
    assert_eq!(report.count(Class::Changed), 1);
    let confirmed = AllReferences::confirmed();
    let report = world.undisturbed().retire(confirmed).await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Hydration));
    assert!(has(&world.source, 1).await && has(&world.source, 21).await);
}
