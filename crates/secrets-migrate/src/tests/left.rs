//! One store under two storage ids: what a run deletes, and what configurations name by the other id.
use std::num::NonZeroUsize;

use futures::FutureExt as _;
use secret_persistence_core::StorageId;
use secret_persistence_core::connector::Pointer;
use serde_json::{Value, json};

use super::tap::{Done, Process, Tap};
use super::world::{World, assert_complete, contents, has, name, pointer, put, remove, value};
use crate::{AllReferences, Class, Decisions, Orphaned, Report, State, Stop, Storage};

/// The same secret, named by the storage id that the operator leaves alone.
fn elsewhere(number: u32) -> Value {
    Pointer::new(name(number).into())
        .with_storage_id(Some(StorageId::parse("other").unwrap()))
        .to_value()
}

fn decisions() -> Decisions {
    Decisions::default().with_storage("other", Storage::Leave)
}

/// Ends the test unless this one secret was kept, with the id as the reason.
#[track_caller]
fn assert_kept(report: &Report, number: u32) {
    assert_eq!(report.tally.kept, 1, "{report:#?}");
    let kept = &report.findings[&Class::Kept].listed[0];
    assert_eq!(kept.coordinate.as_deref(), Some(name(number).as_str()));
    let detail = kept.detail.as_deref().unwrap();
    assert!(detail.contains("storage other"), "{detail}");
}

/// An adopted installation: what is older than the adoption names the default storage by its id.
#[tokio::test]
async fn retire_keeps_what_a_configuration_names_by_another_id_of_the_source() {
    let world = World::with(4, 2).await.decided(decisions());
    world.row(31, json!({ "password": elsewhere(2) }));
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    let confirmed = AllReferences::confirmed();
    let report = world.undisturbed().retire(confirmed).await.unwrap();
    assert_eq!(report.tally.deleted, 3);
    assert_kept(&report, 2);
    assert_eq!(report.stopped, Some(Stop::Remaining));
    assert!(has(&world.source, 2).await && world.source.len() == 1);
}

/// A secret that only the other id names is an orphan to the source, and orphans may be copied.
#[tokio::test]
async fn retire_keeps_an_orphan_that_only_another_id_names() {
    let decisions = decisions().with_orphaned(Orphaned::Copy);
    let world = World::with(4, 2).await.decided(decisions);
    put(&world.source, 5, &value(5)).await;
    world.row(31, json!({ "password": elsewhere(5) }));
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    let confirmed = AllReferences::confirmed();
    let report = world.undisturbed().retire(confirmed).await.unwrap();
    assert_kept(&report, 5);
    assert!(has(&world.source, 5).await && world.source.len() == 1);
}

/// After the move the services name the target by its id, and somebody turns back.
#[tokio::test]
async fn rollback_keeps_what_a_configuration_names_by_an_id_of_the_target() {
    let world = World::with(4, 2).await.decided(decisions());
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    world.row(31, json!({ "password": elsewhere(2) }));
    for dry_run in [true, false] {
        let options = world.options.clone().with_dry_run(dry_run);
        let rollback = world.undisturbed().with_options(options);
        let report = rollback.rollback().await.unwrap();
        assert_complete(&report, "rollback");
        assert_eq!(report.tally.deleted, 3);
        assert_kept(&report, 2);
    }
    assert!(has(&world.target, 2).await && world.target.len() == 1);
    assert!(world.entry(2).await.intent, "it is still ours");
}

/// The source is empty by now: a copy must not take back from the target what only an id names there.
#[tokio::test]
async fn a_copy_does_not_withdraw_what_a_configuration_names_by_an_id_of_the_target() {
    let world = World::with(4, 2).await.decided(decisions());
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    for row in [1, 3] {
        world.row(row, json!({ "a": elsewhere(row), "b": elsewhere(row + 1) }));
    }
    let before = contents(&world.target).await;
    for number in 1..=4 {
        remove(&world.source, number).await;
    }
    // What a killed copy left as an intent is looked at again.
    let entry = world.entry(1).await;
    assert_eq!((entry.state, entry.intent), (State::Written, true));
    world.intend(1).await;
    let report = world.undisturbed().copy().await.unwrap();
    assert_complete(&report, "copy");
    assert_eq!(report.tally.withdrawn, 0);
    assert_eq!(contents(&world.target).await, before);
}

/// Without the other name, the same copy withdraws it.
#[tokio::test]
async fn what_nothing_names_any_more_is_withdrawn() {
    let world = World::with(4, 2).await.decided(decisions());
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    world.row(1, json!({ "b": pointer(2) }));
    remove(&world.source, 1).await;
    world.intend(1).await;
    let report = world.undisturbed().copy().await.unwrap();
    assert_complete(&report, "copy");
    assert_eq!(report.tally.withdrawn, 1);
    assert!(!has(&world.target, 1).await);
}

/// What the same scan has found a moment ago is known when a later page names it by the other id.
#[tokio::test]
async fn a_copy_that_a_later_page_names_is_not_withdrawn() {
    let mut world = World::with(1, 1).await;
    world.options = world
        .options
        .with_page(NonZeroUsize::MIN)
        .with_decisions(decisions());
    world.row(31, json!({ "password": elsewhere(1) }));
    let process = Process::endless();
    let (source, configs) = (world.source.clone(), world.configs.clone());
    let target = Tap::new(world.target.clone(), &process).after(move |done| {
        if matches!(done, Done::Write(_)) {
            remove(&source, 1).now_or_never();
            configs.remove("1");
        }
    });
    let source = Tap::new(world.source.clone(), &process);
    let migration = world.migration_between(source, target, &process);
    let report = migration.copy().await.unwrap();
    assert_eq!(report.tally.withdrawn, 0, "{report:#?}");
    assert!(has(&world.target, 1).await);
}
