//! One tenant at a time: what a restricted migration moves, and what it leaves alone.
use std::collections::BTreeSet;

use secret_persistence_core::{
    ManagedCoordinate, Memory, Scope, SecretPersistenceExt, SecretValue, Write,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::tap::Process;
use super::world::{World, assert_complete, contents};
use crate::{AllReferences, Class, ConfigRow, MigrateErrorKind, Migration, Stop};

const OURS: Uuid = Uuid::from_u128(8);
const THEIRS: Uuid = Uuid::from_u128(9);

fn of(workspace: Uuid, number: u128) -> ManagedCoordinate {
    ManagedCoordinate::new(&Scope::workspace(workspace), Uuid::from_u128(number), 1).unwrap()
}

fn pointer(name: &ManagedCoordinate) -> Value {
    json!({ "_secret": name.as_str() })
}

fn row(world: &World, id: &str, base_id: Option<Uuid>, configuration: Value) {
    let row = ConfigRow::new(id, configuration).with_scope(None, base_id);
    world.configs.put(row);
}

/// Two tenants with two secrets and an orphan each; one row does not say whose it is, and theirs names
/// a secret of ours.
async fn world() -> World {
    let world = World::empty(2);
    for tenant in [OURS, THEIRS] {
        for number in 1..=4 {
            let name = of(tenant, number);
            let value = SecretValue::new(format!("canary of {name}"));
            world.source.write(Write::new(name, value)).await.unwrap();
        }
    }
    row(
        &world,
        "ours",
        Some(OURS),
        json!({ "a": pointer(&of(OURS, 1)) }),
    );
    row(
        &world,
        "unknown",
        None,
        json!([pointer(&of(OURS, 2)), pointer(&of(THEIRS, 2))]),
    );
    row(
        &world,
        "theirs",
        Some(THEIRS),
        json!({ "a": pointer(&of(THEIRS, 1)) }),
    );
    row(
        &world,
        "both",
        Some(THEIRS),
        json!({ "a": pointer(&of(OURS, 3)) }),
    );
    world
}

fn only_ours(world: &World) -> Migration {
    let mut options = world.options.clone();
    options.decisions.orphaned = Some(crate::Orphaned::Leave);
    options.decisions.other_scope = Some(crate::OtherScope::Keep);
    let migration = world.migration(&Process::endless()).with_options(options);
    migration.with_workspaces([OURS])
}

async fn names(store: &Memory) -> BTreeSet<String> {
    contents(store).await.into_keys().collect()
}

fn texts(names: &[ManagedCoordinate]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn one_workspace_is_moved_and_the_other_one_is_not_touched() {
    let world = world().await;
    let plan = only_ours(&world).plan().await.unwrap();
    assert_complete(&plan, "plan");
    assert_eq!(plan.run.workspaces, [OURS.to_string()]);
    assert!(
        plan.run
            .to_string()
            .ends_with(&format!("only workspace {OURS}")),
        "{}",
        plan.run
    );
    assert_eq!(plan.count(Class::Orphaned), 1);
    let copied = only_ours(&world).copy().await.unwrap();
    assert_complete(&copied, "copy");
    let moved = [of(OURS, 1), of(OURS, 2), of(OURS, 3)];
    assert_eq!(names(&world.target).await, texts(&moved));
    // The row of theirs names nothing of ours, and does not hydrate from the target.
    let verified = only_ours(&world).verify().await.unwrap();
    assert_complete(&verified, "verify");
    assert_eq!((verified.tally.verified, verified.tally.hydrated), (3, 3));

    let retired = only_ours(&world)
        .retire(AllReferences::confirmed())
        .await
        .unwrap();
    // Their service may still read the third one here; the orphan was never copied.
    assert_eq!(retired.stopped, Some(Stop::Remaining), "{retired:#?}");
    assert_eq!((retired.tally.deleted, retired.tally.kept), (2, 1));
    assert_eq!(retired.tally.remaining, 2);
    let left: Vec<_> = (1..=4)
        .map(|number| of(THEIRS, number))
        .chain([of(OURS, 3), of(OURS, 4)])
        .collect();
    assert_eq!(names(&world.source).await, texts(&left));
}

#[tokio::test]
async fn a_rollback_of_one_workspace_keeps_what_another_one_names() {
    let world = world().await;
    assert_complete(&only_ours(&world).copy().await.unwrap(), "copy");
    let rolled = only_ours(&world).rollback().await.unwrap();
    assert_complete(&rolled, "rollback");
    assert_eq!((rolled.tally.deleted, rolled.tally.kept), (2, 1));
    assert_eq!(names(&world.target).await, texts(&[of(OURS, 3)]));
    assert_eq!(names(&world.source).await.len(), 8);
}

#[tokio::test]
async fn a_journal_is_of_its_workspaces() {
    let world = world().await;
    assert_complete(&only_ours(&world).copy().await.unwrap(), "copy");
    let others = only_ours(&world).with_workspaces([OURS, THEIRS]);
    let all = only_ours(&world).with_workspaces([]);
    for other in [others, all] {
        for refused in [
            other.copy().await.unwrap_err(),
            other.verify().await.unwrap_err(),
            other.rollback().await.unwrap_err(),
            other.retire(AllReferences::confirmed()).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), MigrateErrorKind::AnotherRun);
            assert!(refused.to_string().contains("only workspace"), "{refused}");
        }
    }
    // The order in which they are given is not a difference.
    let same = only_ours(&world).with_workspaces([OURS, OURS]);
    assert_complete(&same.verify().await.unwrap(), "verify");
}

#[tokio::test]
async fn a_torn_row_of_another_workspace_stops_only_what_deletes() {
    let world = world().await;
    row(
        &world,
        "torn",
        Some(THEIRS),
        json!({ "a": { "_secret": 7 } }),
    );
    assert_complete(&only_ours(&world).copy().await.unwrap(), "copy");
    assert_complete(&only_ours(&world).verify().await.unwrap(), "verify");
    let retired = only_ours(&world)
        .retire(AllReferences::confirmed())
        .await
        .unwrap();
    assert_eq!(retired.stopped, Some(Stop::Hydration));
    let rolled = only_ours(&world).rollback().await.unwrap();
    assert_eq!(rolled.stopped, Some(Stop::Hydration));
    assert_eq!(
        (
            names(&world.source).await.len(),
            names(&world.target).await.len()
        ),
        (8, 3)
    );
}
