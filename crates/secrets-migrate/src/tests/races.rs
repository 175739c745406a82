//! What others do to the stores while a migration runs.
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use secret_persistence_core::{
    Coordinate, DeleteOptions, Entry, Error, ErrorKind, ManagedCoordinate, Memory, Owner, Read,
    Result, SecretPersistence, SecretPersistenceExt, SecretValue, Timestamp, Write,
};
use serde_json::json;

use super::tap::{Done, Process, Tap};
use super::world::{
    World, assert_complete, contents, has, name, pointer, put, remove, states, value,
};
use super::wrapped::{Wrapped, Wrapper};
use crate::{
    AllReferences, Class, Decisions, MigrateErrorKind, Orphaned, PendingDeletion, Shared, State,
    Stop,
};

#[tokio::test]
async fn a_secret_deleted_while_it_is_copied_does_not_stay_in_the_target() {
    // In the moment after it was written, the source loses secret 5, and its configuration. The
    // process may end at any operation around that.
    for does_last in [false, true] {
        for operation in 1.. {
            let world = World::with(5, 1).await;
            let process = Process::ending_at(operation, does_last);
            let (source, configs) = (world.source.clone(), world.configs.clone());
            let target = Tap::new(world.target.clone(), &process).after(move |done| {
                if let Done::Write(writes) = done
                    && writes.iter().any(|write| write.coordinate == name(5))
                {
                    remove(&source, 5).now_or_never();
                    configs.remove("5");
                }
            });
            let source = Tap::new(world.source.clone(), &process);
            let migration = world.migration_between(source, target, &process);
            let finished = process.run(migration.copy()).await.is_some();
            let was_written = !has(&world.source, 5).await;
            let what = format!("ended at {operation}, done: {does_last}");
            let report = world.undisturbed().copy().await.unwrap();
            assert_complete(&report, &what);
            assert_eq!(has(&world.target, 5).await, !was_written, "{what}");
            assert_eq!(
                contents(&world.target).await,
                contents(&world.source).await,
                "{what}"
            );
            if finished {
                break;
            }
        }
    }
}

/// A service deletes secret 5 in the moment in which its write fails. If its row is not gone by
/// then, it was a mistake.
#[tokio::test]
async fn a_failure_of_a_secret_that_a_service_deleted_meanwhile_is_none() {
    let fails = |done: &Done<'_>| match done {
        Done::Write(writes) if writes[0].coordinate == name(5) => Some(Error::new(
            ErrorKind::PendingDeletion,
            "a delete is under way",
        )),
        _ => None,
    };
    for saved in [true, false] {
        let world = World::with(5, 2).await;
        let process = Process::endless();
        let (source, configs) = (world.source.clone(), world.configs.clone());
        let target = Tap::new(world.target.clone(), &process)
            .failing(fails)
            .after(move |done| {
                if let Done::Write(writes) = done
                    && writes.iter().any(|write| write.coordinate == name(5))
                {
                    remove(&source, 5).now_or_never();
                    if saved {
                        configs.remove("5");
                    }
                }
            });
        let source = Tap::new(world.source.clone(), &process);
        let migration = world.migration_between(source, target, &process);
        let report = migration.copy().await.unwrap();
        let failed = u64::from(!saved);
        assert_eq!(
            (report.stopped, report.failed),
            (None, failed),
            "{report:#?}"
        );
        assert_eq!(
            (report.tally.written, report.tally.withdrawn),
            (4, 1 - failed)
        );
        assert_eq!(contents(&world.target).await, contents(&world.source).await);
    }
}

/// A store whose reads do not tell the expiry is asked for it, when the secret may be gone.
#[tokio::test]
async fn a_secret_deleted_before_its_expiry_is_asked_for_has_changed() {
    let world = World::with(5, 8).await;
    let process = Process::endless();
    let (store, configs) = (world.source.clone(), world.configs.clone());
    let source = Tap::new(world.source.clone(), &process)
        .without_expiry_in_reads()
        .after(move |done| {
            if let Done::Read(names) = done
                && names.contains(&name(5).into())
            {
                remove(&store, 5).now_or_never();
                configs.remove("5");
            }
        });
    let target = Tap::new(world.target.clone(), &process);
    let migration = world.migration_between(source, target, &process);
    let report = migration.copy().await.unwrap();
    assert_complete(&report, "copy");
    assert_eq!((report.tally.written, report.tally.changed_since), (4, 1));
    assert_eq!(contents(&world.target).await, contents(&world.source).await);
}

#[tokio::test]
async fn an_orphan_that_is_deleted_after_it_was_listed_is_gone_and_not_missing() {
    let world = World::with(4, 8)
        .await
        .decided(Decisions::default().with_orphaned(Orphaned::Copy));
    put(&world.source, 9, "orphan").await;
    let process = Process::endless();
    let store = world.source.clone();
    // The first read of it is that of the listing.
    let source = Tap::new(world.source.clone(), &process).after(move |done| {
        if let Done::Read(names) = done
            && names.contains(&name(9).into())
        {
            remove(&store, 9).now_or_never();
        }
    });
    let target = Tap::new(world.target.clone(), &process);
    let migration = world.migration_between(source, target, &process);
    let report = migration.copy().await.unwrap();
    assert_complete(&report, "copy");
    assert_eq!((report.tally.written, report.tally.gone), (4, 1));
    assert_eq!(
        (report.count(Class::Orphaned), report.count(Class::Missing)),
        (1, 0)
    );
}

#[tokio::test]
async fn a_delete_that_a_store_refuses_because_it_is_done_withdraws() {
    for done in [true, false] {
        let world = World::with(5, 1).await;
        let process = Process::endless();
        let (source, twin, configs) = (
            world.source.clone(),
            world.target.clone(),
            world.configs.clone(),
        );
        let fails = |done: &Done<'_>| {
            matches!(done, Done::Delete).then(|| Error::new(ErrorKind::Conflict, "it is changing"))
        };
        let target = Tap::new(world.target.clone(), &process)
            .failing(fails)
            .after(move |operation| {
                if let Done::Write(writes) = operation
                    && writes[0].coordinate == name(5)
                {
                    if done {
                        remove(&twin, 5).now_or_never();
                    }
                    remove(&source, 5).now_or_never();
                    configs.remove("5");
                }
            });
        let source = Tap::new(world.source.clone(), &process);
        let migration = world.migration_between(source, target, &process);
        let report = migration.copy().await.unwrap();
        assert_eq!(report.is_complete(), done, "{report:#?}");
        assert_eq!(report.tally.withdrawn, u64::from(done));
    }
}

#[tokio::test]
async fn what_a_configuration_still_mentions_is_never_withdrawn() {
    // The source store was emptied by mistake in the middle of a copy: the copies are all there is.
    let world = World::with(4, 1).await;
    let process = Process::ending_at(30, true);
    process.run(world.undisturbed().copy()).await;
    let mut transitions = Vec::new();
    for entry in world.entries().await {
        transitions.push(crate::Transition::new(
            entry.coordinate,
            State::Intent,
            true,
        ));
    }
    crate::Journal::advance(&*world.journal, &transitions)
        .await
        .unwrap();
    for number in 1..=4 {
        remove(&world.source, number).await;
    }
    let before = contents(&world.target).await;
    assert_eq!(before.len(), 4);
    let report = world.undisturbed().copy().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Undecided));
    assert_eq!(report.count(Class::Missing), 4);
    assert_eq!(contents(&world.target).await, before);
}

#[tokio::test]
async fn what_the_target_has_lost_is_copied_again_and_still_rolled_back() {
    let world = World::with(6, 2).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    remove(&world.target, 2).await;
    remove(&world.target, 3).await;
    let report = world.undisturbed().verify().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Unverified));
    assert_eq!(report.count(Class::Lost), 2);
    assert_eq!(report.tally.verified, 4);
    assert_eq!(report.failed, 2, "two configurations would not hydrate");
    for number in [2, 3] {
        let entry = world.entry(number).await;
        assert_eq!((entry.state, entry.intent), (State::Pending, true));
    }
    assert_complete(&world.undisturbed().copy().await.unwrap(), "repair");
    let report = world.undisturbed().verify().await.unwrap();
    assert_complete(&report, "verify again");
    assert_eq!(report.tally.verified, 6);
    assert_complete(&world.undisturbed().rollback().await.unwrap(), "rollback");
    assert!(world.target.is_empty());
}

#[tokio::test]
async fn verify_does_not_pass_a_copy_that_was_not_finished() {
    let mut seen = 0;
    for operation in 1.. {
        let world = World::with(4, 2)
            .await
            .decided(Decisions::default().with_orphaned(Orphaned::Copy));
        // Nobody mentions it, so that no configuration tells that it is not there.
        put(&world.source, 9, "orphan").await;
        let process = Process::ending_at(operation, true);
        if process
            .run(world.migration(&process).copy())
            .await
            .is_some()
        {
            break;
        }
        let unfinished = states(&world.entries().await).get(&State::Intent).copied();
        if unfinished.is_some() {
            let report = world.undisturbed().verify().await.unwrap();
            assert_eq!(report.stopped, Some(Stop::Unverified), "{operation}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[tokio::test]
async fn a_present_value_that_is_lost_gets_an_intent_only_when_we_write_it() {
    let world = World::with(2, 1).await;
    put(&world.target, 1, &value(1)).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    remove(&world.target, 1).await;
    world.undisturbed().verify().await.unwrap();
    let entry = world.entry(1).await;
    assert_eq!((entry.state, entry.intent), (State::Pending, false));
    // Somebody else puts it back before we do: it is theirs.
    put(&world.target, 1, &value(1)).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy again");
    assert_complete(&world.undisturbed().rollback().await.unwrap(), "rollback");
    assert!(has(&world.target, 1).await && !has(&world.target, 2).await);
}

#[tokio::test]
async fn a_conflict_stops_and_nothing_is_overwritten() {
    let world = World::with(6, 2).await;
    put(&world.target, 4, "another value").await;
    let report = world.undisturbed().plan().await.unwrap();
    assert_eq!(report.count(Class::Conflicting), 1);
    assert_eq!(report.stopped, Some(Stop::Undecided));
    for _ in 0..2 {
        let report = world.undisturbed().copy().await.unwrap();
        assert_eq!(report.stopped, Some(Stop::Conflict));
        assert_eq!(world.entry(4).await.state, State::Conflict);
        let there = world.target.read(&name(4).into()).await.unwrap();
        assert_eq!(there.value.expose(), "another value");
    }
    assert_complete(&world.undisturbed().rollback().await.unwrap(), "rollback");
    assert_eq!(world.target.len(), 1, "the other value is not ours");
    // The operator removes it: now the run finishes.
    remove(&world.target, 4).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    assert_eq!(contents(&world.target).await, contents(&world.source).await);
}

#[tokio::test]
async fn a_value_that_turns_up_between_the_look_and_the_write_is_left() {
    for same in [true, false] {
        let world = World::with(2, 1).await;
        let process = Process::endless();
        let theirs = world.target.clone();
        let target = Tap::new(world.target.clone(), &process).after(move |done| {
            if let Done::Read(names) = done
                && names.contains(&name(2).into())
            {
                let text = if same { value(2) } else { "theirs".to_owned() };
                let write = Write::new(name(2), SecretValue::new(text));
                let _ = theirs.write(write).now_or_never();
            }
        });
        let source = Tap::new(world.source.clone(), &process);
        let report = world
            .migration_between(source, target, &process)
            .copy()
            .await
            .unwrap();
        assert_eq!(report.is_complete(), same);
        let left = contents(&world.target).await;
        assert_eq!(left[name(2).as_str()] == value(2), same);
        if !same {
            assert_eq!(report.stopped, Some(Stop::Conflict));
            world.undisturbed().rollback().await.unwrap();
            assert_eq!(contents(&world.target).await[name(2).as_str()], "theirs");
        }
    }
}

#[tokio::test]
async fn retire_looks_at_both_sides_again() {
    let ours = Owner::parse("ours").unwrap();
    let mut world = World::with(8, 3).await;
    world.options.decisions = Decisions::default().with_orphaned(Orphaned::Leave);
    let copied = world.undisturbed().with_owner(ours.clone());
    assert_complete(&copied.copy().await.unwrap(), "copy");
    assert_complete(&copied.verify().await.unwrap(), "verify");
    // Since then: 7 was deleted, 8 is another value, 20 is new, and 6 is another's.
    remove(&world.source, 7).await;
    remove(&world.source, 8).await;
    world
        .source
        .insert(name(8).as_str(), SecretValue::new("replaced".to_owned()));
    put(&world.source, 20, "new").await;
    remove(&world.source, 6).await;
    let theirs = Arc::new(Memory::new().with_owner(Owner::parse("theirs").unwrap()));
    put(&theirs, 6, &value(6)).await;
    let source = Owned {
        store: world.source.clone(),
        theirs,
    };
    let migration = world
        .between(Arc::new(Wrapped(source)), world.target.clone())
        .with_owner(ours);
    let report = migration.retire(AllReferences::confirmed()).await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Remaining), "8 and 20 are left");
    assert_eq!((report.failed, report.tally.remaining), (0, 2));
    assert_eq!(report.tally.deleted, 5);
    assert_eq!(report.tally.foreign, 1);
    assert_eq!(report.tally.gone, 1);
    assert_eq!(report.tally.kept, 1);
    assert!(!report.unreachable.is_empty());
    let left = contents(&world.source).await;
    assert_eq!(left[name(8).as_str()], "replaced");
    assert_eq!(left[name(20).as_str()], "new");
    assert_eq!(left.len(), 2);
    world.assert_hydrates(&world.target, "retired").await;
}

/// Reads and describes what is another's from another store.
struct Owned {
    store: Arc<Memory>,
    theirs: Arc<Memory>,
}

#[async_trait]
impl Wrapper for Owned {
    fn store(&self) -> &dyn SecretPersistence {
        &*self.store
    }

    async fn read_batch(&self, names: &[Coordinate]) -> Vec<Result<Read>> {
        let mut reads = self.store.read_batch(names).await;
        for (read, theirs) in reads.iter_mut().zip(self.theirs.read_batch(names).await) {
            if theirs.is_ok() {
                *read = theirs;
            }
        }
        reads
    }

    async fn delete_batch(
        &self,
        names: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        for name in names {
            let theirs = self.theirs.read(&name.clone().into()).await;
            assert!(theirs.is_err(), "another's secret is deleted");
        }
        self.store.delete_batch(names, options).await
    }

    async fn describe(&self, name: &ManagedCoordinate) -> Result<Entry> {
        match self.theirs.describe(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => self.store.describe(name).await,
            theirs => theirs,
        }
    }
}

#[tokio::test]
async fn retire_refuses_one_store_under_two_addresses() {
    let world = World::with(4, 2).await;
    let process = Process::endless();
    let migration = |process: &Arc<Process>| {
        world.migration_between(
            Tap::new(world.source.clone(), process).at("localhost"),
            Tap::new(world.source.clone(), process).at("127.0.0.1"),
            process,
        )
    };
    let report = migration(&process).copy().await.unwrap();
    assert_eq!(report.tally.present, 4);
    let before = contents(&world.source).await;
    let error = migration(&process)
        .retire(AllReferences::confirmed())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::SameStore);
    assert_eq!(contents(&world.source).await, before);
}

#[tokio::test]
async fn a_row_saved_while_it_is_hydrated_is_read_again() {
    let world = World::with(2, 1).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    put(&world.source, 9, "1").await;
    put(&world.target, 9, "1").await;
    let process = Process::endless();
    let (target, configs) = (world.target.clone(), world.configs.clone());
    let reads = std::sync::atomic::AtomicU32::new(0);
    // The second read of secret 1 is that of the hydration; just before, an update was committed.
    let tap = Tap::new(world.source.clone(), &process);
    let spoiled = Tap::new(world.target.clone(), &process).after(move |done| {
        if let Done::Read(_) = done
            && reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1
        {
            remove(&target, 1).now_or_never();
            configs.put(crate::ConfigRow::new("1", json!({"password": pointer(9)})));
        }
    });
    let report = world
        .migration_between(tap, spoiled, &process)
        .verify()
        .await
        .unwrap();
    assert_complete(&report, "verify");
}

#[tokio::test]
async fn rollback_refuses_where_the_source_no_longer_hydrates() {
    let world = World::with(6, 2).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    remove(&world.source, 3).await;
    let before = contents(&world.target).await;
    let report = world.undisturbed().rollback().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Hydration));
    assert_eq!(report.failures.len(), 1);
    let failure = &report.failures[0];
    assert_eq!(failure.configuration.as_deref(), Some("configs#3"));
    assert_eq!(failure.place.as_deref(), Some("/password"));
    assert_eq!(failure.coordinate.as_deref(), Some(name(3).as_str()));
    assert_eq!(failure.kind, "not_found");
    assert_eq!(contents(&world.target).await, before);
}

#[tokio::test]
async fn rollback_leaves_what_the_source_has_not_got_any_more() {
    let world = World::with(6, 2).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    remove(&world.source, 5).await;
    remove(&world.source, 6).await;
    world.configs.remove("5");
    let report = world.undisturbed().rollback().await.unwrap();
    assert_complete(&report, "rollback");
    assert_eq!(report.tally.deleted, 4);
    assert_eq!(report.count(Class::Kept), 2);
    assert!(has(&world.target, 5).await && has(&world.target, 6).await);
}

#[tokio::test]
async fn a_delta_copies_what_is_new_and_nothing_else() {
    let world = World::with(6, 2).await;
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    put(&world.source, 11, &value(11)).await;
    world.row(11, json!({"password": pointer(11)}));
    let report = world.undisturbed().copy().await.unwrap();
    assert_complete(&report, "delta");
    assert_eq!(report.tally.written, 1);
    assert_eq!(contents(&world.target).await, contents(&world.source).await);
    let idle = world.undisturbed().copy().await.unwrap();
    assert_eq!(idle.tally.written + idle.tally.resumed, 0);
}

#[tokio::test]
async fn what_is_pending_deletion_in_the_target_is_restored_only_if_it_is_equal() {
    let world = World::with(4, 2).await;
    for (number, text) in [(1, value(1)), (2, "another".to_owned())] {
        put(&world.target, number, &text).await;
        world
            .target
            .delete(&name(number), &DeleteOptions::default())
            .await
            .unwrap();
    }
    let report = world.undisturbed().copy().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Undecided));
    assert_eq!(report.undecided, [Class::PendingDeletion]);
    let world = world.decided(Decisions::default().with_pending_deletion(PendingDeletion::Restore));
    let report = world.undisturbed().copy().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Conflict));
    assert_eq!(world.entry(1).await.state, State::Present);
    assert_eq!(world.entry(2).await.state, State::Conflict);
    let other = world.target.read(&name(2).into()).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::PendingDeletion);
    world.undisturbed().rollback().await.unwrap();
    assert_eq!(
        contents(&world.target)
            .await
            .into_keys()
            .collect::<Vec<_>>(),
        [name(1).to_string()],
        "what was there before stays"
    );
}

#[tokio::test]
async fn a_lagging_listing_does_no_harm() {
    let world = World::with(4, 2)
        .await
        .decided(Decisions::default().with_orphaned(Orphaned::Copy));
    put(&world.source, 30, "orphan").await;
    put(&world.source, 31, "unlisted orphan").await;
    let process = Process::endless();
    // It shows a secret that has gone, and neither the configurations' nor one of the orphans.
    let source = Tap::new(world.source.clone(), &process).listing_only(vec![name(30), name(99)]);
    let target = Tap::new(world.target.clone(), &process);
    let migration = world.migration_between(source, target, &process);
    let report = migration.copy().await.unwrap();
    assert_complete(&report, "copy");
    assert_eq!(report.count(Class::Orphaned), 1);
    assert_eq!(states(&world.entries().await)[&State::Written], 5);
    assert_complete(&migration.verify().await.unwrap(), "verify");
    assert!(has(&world.target, 30).await && !has(&world.target, 31).await);
}

#[tokio::test]
async fn expiry_is_kept_whether_reads_tell_it_or_not() {
    for reads_expiry in [true, false] {
        let world = World::with(2, 1).await;
        let expires = Timestamp::now().saturating_add(std::time::Duration::from_secs(3600));
        let past = Timestamp::from_unix_seconds(1).unwrap();
        for (number, expires) in [(11, expires), (13, past)] {
            let write = Write::new(name(number), SecretValue::new("x".to_owned()))
                .with_expires(Some(expires));
            world.source.write(write).await.unwrap();
            world.row(number, json!({"password": pointer(number)}));
        }
        world.configs.remove("13");
        let world = world.decided(Decisions::default().with_orphaned(Orphaned::Copy));
        let process = Process::endless();
        let mut source = Tap::new(world.source.clone(), &process);
        if !reads_expiry {
            source = source.without_expiry_in_reads();
        }
        let target = Tap::new(world.target.clone(), &process);
        let report = world
            .migration_between(source, target, &process)
            .copy()
            .await
            .unwrap();
        assert_complete(&report, "copy");
        let copied = world.target.describe(&name(11)).await.unwrap();
        assert_eq!(copied.expires, Some(expires));
        assert!(!has(&world.target, 13).await, "it has expired");
        assert_eq!(report.tally.skipped, 1);
    }
}

#[tokio::test]
async fn unsharing_ended_at_any_operation_leaves_no_copy_behind() {
    for does_last in [false, true] {
        for operation in 1.. {
            let world = World::with(4, 2)
                .await
                .decided(Decisions::default().with_shared(Shared::Unshare));
            // Row 1 and 3 keep theirs; 11 shares two of them, and one twice; 13 shares one.
            world.row(11, json!({"a": pointer(1), "b": [pointer(1), pointer(3)]}));
            world.row(13, json!({"c": pointer(3)}));
            let process = Process::ending_at(operation, does_last);
            let finished = process
                .run(world.migration(&process).copy())
                .await
                .is_some();
            let what = format!("ended at {operation}, done: {does_last}");
            let report = world.undisturbed().copy().await.unwrap();
            assert_complete(&report, &what);
            assert_eq!(world.source.len(), 7, "{what}: three copies, no more");
            assert_eq!(
                contents(&world.target).await,
                contents(&world.source).await,
                "{what}"
            );
            world.assert_hydrates(&world.target, &what).await;
            let plan = world.undisturbed().plan().await.unwrap();
            assert_eq!(plan.count(Class::Shared), 0, "{what}");
            assert_eq!(plan.count(Class::Orphaned), 0, "{what}");
            // What a write of the killed run could still bring is deleted again until it is too late
            // for that; nothing that was saved is noted any more.
            let notes = crate::Journal::notes(&*world.journal, None, 9).await;
            for note in notes.unwrap() {
                assert!(note.text.contains("\"abandoned\":true"), "{what}: {note:?}");
            }
            if finished {
                break;
            }
        }
    }
}
