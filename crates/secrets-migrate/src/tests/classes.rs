//! What a plan finds, and that each class waits for its decision.
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_core::connector::ResolveReferences;
use secret_persistence_core::{
    Capabilities, DeleteOptions, Expiry, Listing, Location, Memory, SecretPersistence,
    SecretPersistenceExt, SecretValue, StorageId, Timestamp, Write,
};
use serde_json::json;
use uuid::Uuid;

use super::tap::{Process, Tap, TapJournal};
use super::world::{World, assert_complete, contents, has, name, pointer, put, remove, value};
use crate::{
    AllReferences, Class, ConfigRow, Decisions, Expiring, External, MemoryConfigs, Migration,
    Missing, Orphaned, PendingDeletion, Shared, State, Stop, Storage, Unfit,
};

/// One of everything that has to be decided.
async fn everything() -> World {
    let mut world = World::with(2, 4).await;
    let capabilities = Capabilities {
        max_value_bytes: 100,
        nul: false,
        expiry: Expiry::None,
        ..world.target.capabilities()
    };
    world.target = Arc::new(Memory::new().with_capabilities(capabilities));
    let expires = Some(Timestamp::now().saturating_add(std::time::Duration::from_secs(3600)));
    let write = Write::new(name(11), SecretValue::new("short-lived".to_owned()));
    world
        .source
        .write(write.with_expires(expires))
        .await
        .unwrap();
    world.row(11, json!({"a": pointer(11)}));
    world.row(13, json!({"a": {"_secret": "team/password"}}));
    world.row(15, json!({"a": {"b": [pointer(15)]}}));
    put(&world.source, 17, "an orphan").await;
    put(&world.source, 19, "deleted in the target").await;
    put(&world.target, 19, "deleted in the target").await;
    world
        .target
        .delete(&name(19), &DeleteOptions::default())
        .await
        .unwrap();
    world.row(19, json!({"a": pointer(19)}));
    world.row(21, json!({"a": pointer(1)}));
    let mut elsewhere = pointer(23);
    elsewhere["_secret_storage_id"] = json!("team-a");
    world.row(23, json!({ "a": elsewhere }));
    put(&world.source, 25, &"x".repeat(101)).await;
    put(&world.source, 26, "nul\0").await;
    world
        .source
        .insert(name(27).as_str(), SecretValue::new(String::new()));
    world.row(
        25,
        json!({"a": pointer(25), "b": pointer(26), "c": pointer(27)}),
    );
    put(&world.source, 29, "present").await;
    put(&world.target, 29, "present").await;
    world.row(29, json!({"a": pointer(29)}));
    world
}

fn decisions() -> Vec<(Class, Decisions)> {
    let none = Decisions::default();
    vec![
        (
            Class::Expiring,
            none.clone().with_expiring(Expiring::DropExpiry),
        ),
        (Class::External, none.clone().with_external(External::Leave)),
        (Class::Missing, none.clone().with_missing(Missing::Skip)),
        (Class::Orphaned, none.clone().with_orphaned(Orphaned::Copy)),
        (
            Class::PendingDeletion,
            none.clone().with_pending_deletion(PendingDeletion::Restore),
        ),
        (Class::Shared, none.clone().with_shared(Shared::Keep)),
        (
            Class::Storage,
            none.clone().with_storage("team-a", Storage::Leave),
        ),
        (Class::Unfit, none.with_unfit(Unfit::Skip)),
    ]
}

/// All decisions but the one about a class.
fn all_but(class: Option<Class>) -> Decisions {
    let mut all = Decisions::default();
    for (_, one) in decisions()
        .into_iter()
        .filter(|(decided, _)| Some(*decided) != class)
    {
        all.expiring = all.expiring.or(one.expiring);
        all.external = all.external.or(one.external);
        all.missing = all.missing.or(one.missing);
        all.orphaned = all.orphaned.or(one.orphaned);
        all.pending_deletion = all.pending_deletion.or(one.pending_deletion);
        all.shared = all.shared.or(one.shared);
        all.storage.extend(one.storage);
        all.unfit = all.unfit.or(one.unfit);
    }
    all
}

#[tokio::test]
async fn a_plan_finds_every_class_and_changes_nothing() {
    let world = everything().await;
    let before = (contents(&world.source).await, contents(&world.target).await);
    let report = world.undisturbed().plan().await.unwrap();
    let counts: Vec<(Class, u64)> = report
        .findings
        .iter()
        .map(|(class, findings)| (*class, findings.count))
        .collect();
    assert_eq!(
        counts,
        [
            (Class::Expiring, 1),
            (Class::External, 1),
            (Class::Missing, 1),
            (Class::Orphaned, 1),
            (Class::PendingDeletion, 1),
            (Class::Present, 1),
            (Class::Shared, 2),
            (Class::Storage, 1),
            (Class::Unfit, 3),
        ]
    );
    let waiting: Vec<Class> = decisions().into_iter().map(|(class, _)| class).collect();
    assert_eq!(report.undecided, waiting);
    assert_eq!(report.stopped, Some(Stop::Undecided));
    assert_eq!(report.storages[""], 11);
    assert_eq!(report.storages["team-a"], 1);
    assert_eq!(report.tally.configurations, 9);
    let finding = &report.findings[&Class::Missing].listed[0];
    assert_eq!(finding.coordinate.as_deref(), Some(name(15).as_str()));
    assert_eq!(finding.configuration.as_deref(), Some("configs#15"));
    let finding = &report.findings[&Class::External].listed[0];
    assert_eq!(finding.coordinate.as_deref(), Some("team/password"));
    assert_eq!(finding.place.as_deref(), Some("/a"));
    let mut kinds: Vec<&str> = report.findings[&Class::Unfit]
        .listed
        .iter()
        .filter_map(|finding| finding.kind.as_deref())
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        ["invalid_value", "invalid_value", "payload_too_large"]
    );
    assert_eq!(
        (contents(&world.source).await, contents(&world.target).await),
        before
    );
    assert!(
        world
            .entries()
            .await
            .iter()
            .all(|entry| entry.state == State::Pending && !entry.intent)
    );
}

#[tokio::test]
async fn each_class_stops_plan_and_copy_until_it_is_decided() {
    for (class, _) in decisions() {
        let world = everything().await.decided(all_but(Some(class)));
        let report = world.undisturbed().plan().await.unwrap();
        assert_eq!(report.undecided, [class]);
        let report = world.undisturbed().copy().await.unwrap();
        assert_eq!(report.stopped, Some(Stop::Undecided), "{class}");
        assert_eq!(report.undecided, [class]);
    }
    let world = everything().await.decided(all_but(None));
    assert_complete(&world.undisturbed().plan().await.unwrap(), "plan");
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    let mut there = Vec::new();
    for number in 1..=30 {
        if has(&world.target, number).await {
            there.push(number);
        }
    }
    assert_eq!(there, [1, 2, 11, 17, 19, 29]);
}

#[tokio::test]
async fn what_cannot_be_understood_always_stops() {
    let world = World::with(2, 4).await.decided(all_but(None));
    world.row(5, json!({"a": {"_secret": 5}}));
    world.row(
        7,
        json!({"a": {"_secret_reference_id": Uuid::nil().to_string()}}),
    );
    world.configs.put(ConfigRow::bare("9", "airbyte_v1"));
    let report = world.undisturbed().copy().await.unwrap();
    assert_eq!(report.undecided, [Class::Unreadable, Class::Unresolved]);
    assert_eq!(report.stopped, Some(Stop::Undecided));
    let unresolved = &report.findings[&Class::Unresolved].listed;
    assert_eq!(unresolved.len(), 1);
    assert_eq!(unresolved[0].configuration.as_deref(), Some("configs#7"));
    let listed = &report.findings[&Class::Unreadable].listed;
    let kinds: Vec<&str> = listed
        .iter()
        .filter_map(|finding| finding.kind.as_deref())
        .collect();
    assert_eq!(kinds, ["malformed_pointer", "malformed_pointer"]);
    assert_eq!(listed[0].configuration.as_deref(), Some("configs#5"));
    assert_eq!(listed[0].place.as_deref(), Some("/a"));
    assert!(world.target.is_empty());
}

#[tokio::test]
async fn a_source_that_cannot_list_says_that_orphans_are_unknown() {
    let mut world = World::with(2, 4).await;
    let capabilities = Capabilities {
        listing: Listing::None,
        ..world.source.capabilities()
    };
    let source = Memory::new().with_capabilities(capabilities);
    for (name, value) in contents(&world.source).await {
        source.insert(&name, SecretValue::new(value));
    }
    world.source = Arc::new(source);
    let report = world.undisturbed().plan().await.unwrap();
    assert_complete(&report, "plan");
    assert!(report.unlisted);
}

#[tokio::test]
async fn missing_secrets_that_are_skipped_break_neither_verify_nor_rollback() {
    let world = World::with(4, 2)
        .await
        .decided(Decisions::default().with_missing(Missing::Skip));
    world.row(15, json!({"a": pointer(15)}));
    for report in [
        world.undisturbed().copy().await,
        world.undisturbed().verify().await,
        world.undisturbed().rollback().await,
    ] {
        assert_complete(&report.unwrap(), "skipped");
    }
}

#[tokio::test]
async fn external_secrets_are_expected_in_the_target_or_left_where_they_are() {
    let world = World::with(2, 2).await;
    world
        .source
        .insert("team/password", SecretValue::new("theirs".to_owned()));
    world.row(13, json!({"a": {"_secret": "team/password"}}));
    let world = world.decided(Decisions::default().with_external(External::Expect));
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    let report = world.undisturbed().verify().await.unwrap();
    assert_eq!(report.stopped, Some(Stop::Hydration));
    assert_eq!(
        report.failures[0].coordinate.as_deref(),
        Some("team/password")
    );
    world
        .target
        .insert("team/password", SecretValue::new("theirs".to_owned()));
    assert_complete(&world.undisturbed().verify().await.unwrap(), "expected");
    let world = World::with(2, 2).await;
    world
        .source
        .insert("team/password", SecretValue::new("theirs".to_owned()));
    world.row(13, json!({"a": {"_secret": "team/password"}}));
    let world = world.decided(Decisions::default().with_external(External::Leave));
    assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
    assert_complete(&world.undisturbed().verify().await.unwrap(), "left");
    assert!(
        world
            .target
            .read(&"team/password".parse().unwrap())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_storage_id_is_moved_or_left() {
    for (decision, moved) in [(Storage::Move, true), (Storage::Leave, false)] {
        let world = World::with(2, 2).await.decided(
            Decisions::default()
                .with_storage("team-a", decision)
                .with_orphaned(Orphaned::Leave),
        );
        put(&world.source, 23, "team a's").await;
        let mut with_id = pointer(23);
        with_id["_secret_storage_id"] = json!("team-a");
        with_id["_secret_encoding"] = json!("json");
        put(&world.source, 25, "1").await;
        let mut other = pointer(25);
        other["_secret_encoding"] = json!("json");
        if moved {
            with_id
                .as_object_mut()
                .unwrap()
                .retain(|key, _| key != "_secret_encoding");
        }
        world.row(23, json!({"a": with_id, "b": other}));
        assert_complete(&world.undisturbed().copy().await.unwrap(), "copy");
        assert_complete(&world.undisturbed().verify().await.unwrap(), "verify");
        assert_eq!(has(&world.target, 23).await, moved);
    }
}

struct References(HashMap<Uuid, Location>);

#[async_trait]
impl ResolveReferences for References {
    async fn resolve(
        &self,
        ids: &[Uuid],
    ) -> secret_persistence_core::Result<Vec<Option<Location>>> {
        Ok(ids.iter().map(|id| self.0.get(id).cloned()).collect())
    }
}

#[tokio::test]
async fn references_are_resolved_and_never_count_as_shared() {
    let world = World::with(2, 2).await;
    put(&world.source, 31, "by reference").await;
    let id = Uuid::from_u128(7);
    let by_reference = json!({"_secret_reference_id": id.to_string()});
    world.row(31, json!({"a": by_reference}));
    world.row(
        33,
        json!({"a": {"_secret_reference_id": id.to_string(), "_secret": name(31).as_str()}}),
    );
    let bare = MemoryConfigs::new("bare", vec![ConfigRow::bare("1", name(31).as_str())]).unwrap();
    let references = References(HashMap::from([(id, Location::new(name(31).into()))]));
    let migration = world
        .undisturbed()
        .with_references(Arc::new(references))
        .with_configs(Arc::new(bare.read_only()));
    let report = migration.copy().await.unwrap();
    assert_complete(&report, "copy");
    assert_eq!(report.tally.bare_coordinates, 1);
    assert_complete(&migration.verify().await.unwrap(), "verify");
    assert!(has(&world.target, 31).await);
    // One that names another secret than the pointer beside it, one in another storage, none at all.
    world.row(
        35,
        json!({"a": {"_secret_reference_id": id.to_string(), "_secret": name(1).as_str()}}),
    );
    world.row(
        37,
        json!({"a": {"_secret_reference_id": Uuid::from_u128(8).to_string()}}),
    );
    let elsewhere = References(HashMap::from([(
        id,
        Location::new(name(31).into()).with_storage_id(Some(StorageId::parse("team-a").unwrap())),
    )]));
    let migration = world.undisturbed().with_references(Arc::new(elsewhere));
    let report = migration.plan().await.unwrap();
    assert_eq!(report.count(Class::Unreadable), 2);
    assert_eq!(report.count(Class::Storage), 2);
}

/// Hydration refuses such a pointer, so a migration that moved it would not be complete.
#[tokio::test]
async fn a_reference_into_another_storage_than_the_pointer_beside_it_names_is_unreadable() {
    let world = World::with(2, 2).await;
    put(&world.source, 31, "by reference").await;
    let id = Uuid::from_u128(7);
    let mut moved = pointer(31);
    moved["_secret_reference_id"] = json!(id.to_string());
    moved["_secret_storage_id"] = json!("team-a");
    world.row(31, json!({ "a": moved }));
    let references = References(HashMap::from([(id, Location::new(name(31).into()))]));
    let migration = world.undisturbed().with_references(Arc::new(references));
    let report = migration.plan().await.unwrap();
    assert_eq!(report.count(Class::Unreadable), 1);
    let finding = &report.findings[&Class::Unreadable].listed[0];
    assert_eq!(finding.kind.as_deref(), Some("reference_mismatch"));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let mut world = World::with(7, 2).await;
    put(&world.target, 1, &value(1)).await;
    world.options.dry_run = true;
    let before = (contents(&world.source).await, contents(&world.target).await);
    let report = world.undisturbed().copy().await.unwrap();
    assert_complete(&report, "copy");
    assert_eq!((report.tally.written, report.tally.present), (6, 1));
    assert_eq!(report.states.pending, 7);
    world.options.dry_run = false;
    world.undisturbed().copy().await.unwrap();
    remove(&world.target, 7).await;
    let after = contents(&world.target).await;
    world.options.dry_run = true;
    let report = world.undisturbed().verify().await.unwrap();
    assert_eq!((report.tally.lost, report.states.written), (1, 6));
    let report = world.undisturbed().rollback().await.unwrap();
    assert_eq!(report.tally.deleted, 5);
    put(&world.target, 7, &value(7)).await;
    let confirmed = AllReferences::confirmed();
    let report = world.undisturbed().retire(confirmed).await.unwrap();
    assert_eq!(report.tally.deleted, 7);
    remove(&world.target, 7).await;
    assert_eq!(
        (contents(&world.source).await, contents(&world.target).await),
        (before.0, after)
    );
}

#[tokio::test]
async fn nothing_is_asked_for_in_one_piece() {
    let mut world = World::with(3000, 1000).await;
    // What a scan finds is noted for many pages together.
    world.options.page = std::num::NonZeroUsize::new(10).unwrap();
    world.options.listed = 5;
    world.options.decisions = Decisions::default().with_missing(Missing::Skip);
    for number in 4001..4050 {
        world.row(number, json!({"a": pointer(number)}));
    }
    let process = Process::endless();
    let journal = Arc::new(TapJournal::new(world.journal.clone(), &process));
    let migration = Migration::new(
        Arc::new(Tap::new(world.source.clone(), &process)),
        Arc::new(Tap::new(world.target.clone(), &process)),
        journal.clone(),
    )
    .with_configs(world.configs.clone())
    .with_options(world.options.clone());
    let report = migration.copy().await.unwrap();
    assert_complete(&report, "copy");
    assert_eq!(report.count(Class::Missing), 49);
    assert_eq!(report.findings[&Class::Missing].listed.len(), 5);
    assert_complete(&migration.verify().await.unwrap(), "verify");
    assert!(journal.largest() <= 500, "{}", journal.largest());
}
