//! Copies of shared secrets, made by processes that are killed when they are about to save a row.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use secret_persistence_core::Location;
use secret_persistence_core::connector::Record;
use serde_json::json;

use super::sent::Sent;
use super::world::{World, assert_complete, contents, name, pointer, remove};
use crate::{Class, ConfigSource as _, Decisions, Journal as _, Migration, Report, Shared, Update};

/// Rows 1 and 3 have secrets, and row 11 shares one of them.
async fn world() -> World {
    let mut world = World::with(4, 2).await;
    world.row(11, json!({"a": pointer(1), "b": [pointer(1)]}));
    world.options = world.options.with_lease(Duration::ZERO);
    world.decided(Decisions::default().with_shared(Shared::Unshare))
}

fn migration(world: &World, table: &Arc<Sent>) -> Migration {
    let (source, target) = (world.source.clone(), world.target.clone());
    Migration::new(source, target, world.journal.clone())
        .with_configs(table.clone())
        .with_options(world.options.clone())
}

fn assert_kept(report: &Report, says: Option<&str>, what: &str) {
    let count = u64::from(says.is_some());
    assert_eq!(report.count(Class::Kept), count, "{what}: {report:?}");
    assert_eq!(report.tally.kept, count, "{what}");
    assert_eq!(report.count(Class::Orphaned), 0, "{what}");
    for kept in report
        .findings
        .get(&Class::Kept)
        .iter()
        .flat_map(|kept| &kept.listed)
    {
        assert_eq!(kept.configuration.as_deref(), Some("configs#11"), "{what}");
        let detail = kept.detail.as_deref().unwrap();
        assert!(detail.contains(says.unwrap()), "{what}: {detail}");
        assert!(detail.contains("start again"), "{what}: {detail}");
    }
}

/// A copy is deleted only when no row can get it any more: a row that points to nothing has lost its secret.
#[tokio::test]
async fn what_a_killed_process_has_sent_may_arrive_at_any_time() {
    for meanwhile in [
        "at once",
        "read late",
        "unshared again",
        "not shared any more",
        "not unshared",
        "deleted",
    ] {
        let mut world = world().await;
        let table = Sent::to(&world.configs);
        let killed = migration(&world, &table);
        table.kill_when_told(killed.copy()).await;
        assert_eq!(world.source.len(), 5, "{meanwhile}: a copy was made");
        let row = world.configs.row("11").await.unwrap().unwrap();
        let mut says = None;
        match meanwhile {
            "at once" => assert_eq!(table.arrive().await, Update::Saved),
            "read late" => table.arrives.store(true, Ordering::SeqCst),
            "unshared again" => {}
            "not shared any more" => {
                world.row(1, json!({"password": pointer(2)}));
                says = Some("may still save this row");
            }
            "not unshared" => {
                world.options.decisions = Decisions::default().with_shared(Shared::Keep);
                says = Some("may still save this row");
            }
            _ => {
                world.configs.remove("11");
                says = Some("the row is gone");
            }
        }
        let report = migration(&world, &table).copy().await.unwrap();
        assert_complete(&report, meanwhile);
        assert_kept(&report, says, meanwhile);
        if says.is_some() {
            if meanwhile == "deleted" {
                world.configs.put(row);
            }
            assert_eq!(table.arrive().await, Update::Saved, "{meanwhile}");
        } else if meanwhile == "unshared again" {
            assert_eq!(table.arrive().await, Update::Changed, "{meanwhile}");
        }
        world.assert_hydrates(&world.source, meanwhile).await;
        if meanwhile == "not shared any more" {
            remove(&world.source, 1).await;
        }
        // Everything has ended: nothing is noted, and nothing is left.
        world.options.decisions = Decisions::default().with_shared(Shared::Unshare);
        let report = migration(&world, &table).copy().await.unwrap();
        assert_complete(&report, meanwhile);
        assert_kept(&report, None, meanwhile);
        world.assert_hydrates(&world.target, meanwhile).await;
        if meanwhile != "not shared any more" {
            assert_eq!(world.source.len(), 5, "{meanwhile}: one copy");
            let source = contents(&world.source).await;
            assert_eq!(contents(&world.target).await, source, "{meanwhile}");
        }
        let notes = world.journal.notes(None, 9).await.unwrap();
        for note in notes {
            // What was deleted is deleted again for as long as its write may arrive.
            assert!(
                note.text.contains("\"abandoned\":true"),
                "{meanwhile}: {note:?}"
            );
        }
    }
}

/// A note of an earlier build, which has neither the source nor what the row pointed to.
#[tokio::test]
async fn an_unsharing_that_an_earlier_build_began_is_ended() {
    let world = world().await;
    let table = Sent::to(&world.configs);
    let plan = migration(&world, &table).plan().await;
    assert_eq!(plan.unwrap().count(Class::Shared), 2);
    let record = Record::of_writes(vec![Location::new(name(99))]);
    let note = json!({"configuration": "configs#11", "abandoned": false, "names": record});
    let key = format!("unshare configs#11 {}", name(99));
    let note = note.to_string();
    world.journal.put_note(&key, Some(&note)).await.unwrap();
    // Without an earlier process, the first update arrives.
    table.arrives_at_once();
    let report = migration(&world, &table).copy().await.unwrap();
    assert_complete(&report, "an earlier build");
    assert_kept(&report, Some("an earlier build"), "an earlier build");
    world
        .assert_hydrates(&world.target, "an earlier build")
        .await;
}

/// What was given up is deleted without a look at its row, which may be in a source that this run does not have.
#[tokio::test]
async fn a_change_that_was_given_up_needs_no_source() {
    let world = World::with(2, 1).await;
    let written = Record::of_writes(vec![Location::new(name(99))]);
    let note = json!({
        "configuration": "gone#11", "source": "gone", "abandoned": true, "names": written,
    });
    let key = format!("unshare gone#11 {}", name(99));
    let text = note.to_string();
    world.journal.put_note(&key, Some(&text)).await.unwrap();
    world.undisturbed().copy().await.unwrap();
}
