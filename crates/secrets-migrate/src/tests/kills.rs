//! A process that ends at any operation, and the next one that goes on.
use secret_persistence_core::SecretPersistence;

use super::tap::Process;
use super::world::{World, assert_complete, contents, name, put, states, value};
use crate::{AllReferences, Report, State};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    Copy,
    Verify,
    Rollback,
    Retire,
}

impl Command {
    async fn run(self, world: &World, process: &std::sync::Arc<Process>) -> Option<Report> {
        let migration = world.migration(process);
        let command = async {
            match self {
                Self::Copy => migration.copy().await,
                Self::Verify => migration.verify().await,
                Self::Rollback => migration.rollback().await,
                Self::Retire => migration.retire(AllReferences::confirmed()).await,
            }
        };
        process.run(command).await.map(Result::unwrap)
    }
}

/// A world with `present` secrets that the target had before.
async fn world(secrets: u32, present: u32, batch: usize) -> World {
    let world = World::with(secrets, batch).await;
    for number in 1..=present {
        put(&world.target, number, &value(number)).await;
    }
    world
}

/// Ends `command` at every operation in turn, after all `before` have run through, then runs it
/// again, and whatever `check` says must hold.
async fn everywhere(
    secrets: u32,
    batch: usize,
    before: &[Command],
    command: Command,
    check: impl AsyncFn(&World, &str),
) -> u64 {
    let mut kills = 0;
    for does_last in [false, true] {
        for operation in 1.. {
            let world = world(secrets, 3, batch).await;
            for step in before {
                let report = step.run(&world, &Process::endless()).await.unwrap();
                assert_complete(&report, "before");
            }
            let what = format!("{command:?} ended at {operation}, done: {does_last}");
            let process = Process::ending_at(operation, does_last);
            if command.run(&world, &process).await.is_some() {
                break;
            }
            kills += 1;
            let report = command.run(&world, &Process::endless()).await.unwrap();
            assert_complete(&report, &what);
            check(&world, &what).await;
        }
    }
    assert!(kills > 10, "only {kills} kills");
    kills
}

/// All that a copy promises: every secret once and equal, hydrating, and rollback takes back exactly
/// what was written.
async fn copied(world: &World, what: &str) {
    assert_eq!(
        contents(&world.target).await,
        contents(&world.source).await,
        "{what}"
    );
    let secrets = world.source.len();
    let entries = world.entries().await;
    assert_eq!(entries.len(), secrets, "{what}");
    assert_eq!(states(&entries)[&State::Present], 3, "{what}");
    assert_eq!(states(&entries)[&State::Written], secrets - 3, "{what}");
    let report = Command::Verify.run(world, &Process::endless()).await;
    let report = report.unwrap();
    assert_complete(&report, what);
    assert_eq!(report.tally.verified, secrets as u64, "{what}");
    assert_eq!(
        report.tally.hydrated,
        world.configs.rows().len() as u64,
        "{what}"
    );
    world.assert_hydrates(&world.target, what).await;
    let report = Command::Rollback.run(world, &Process::endless()).await;
    assert_complete(&report.unwrap(), what);
    rolled_back(world, what).await;
}

async fn rolled_back(world: &World, what: &str) {
    let left = contents(&world.target).await;
    let before: Vec<String> = (1..=3).map(|number| name(number).to_string()).collect();
    assert_eq!(left.keys().cloned().collect::<Vec<_>>(), before, "{what}");
    world.assert_hydrates(&world.source, what).await;
    let intents = world.entries().await;
    assert!(intents.iter().all(|entry| !entry.intent), "{what}");
}

#[tokio::test]
async fn a_copy_ended_at_any_operation_is_finished_by_the_next() {
    for (secrets, batch) in [(5, 1), (19, 4), (40, 100)] {
        everywhere(secrets, batch, &[], Command::Copy, copied).await;
    }
}

#[tokio::test]
async fn a_verification_ended_at_any_operation_is_finished_by_the_next() {
    everywhere(
        19,
        4,
        &[Command::Copy],
        Command::Verify,
        async |world, what| {
            let states = states(&world.entries().await);
            assert_eq!(states[&State::Verified], 16, "{what}");
            assert_eq!(states[&State::Present], 3, "{what}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_rollback_ended_at_any_operation_is_finished_by_the_next() {
    let before = [Command::Copy, Command::Verify];
    everywhere(19, 4, &before, Command::Rollback, rolled_back).await;
    // Also one of a copy that itself was never finished.
    for does_last in [false, true] {
        for operation in 1.. {
            let world = world(19, 3, 4).await;
            let process = Process::ending_at(operation, does_last);
            if Command::Copy.run(&world, &process).await.is_some() {
                break;
            }
            let what = format!("copy ended at {operation}, done: {does_last}");
            let report = Command::Rollback.run(&world, &Process::endless()).await;
            assert_complete(&report.unwrap(), &what);
            rolled_back(&world, &what).await;
        }
    }
}

#[tokio::test]
async fn a_retirement_ended_at_any_operation_is_finished_by_the_next() {
    let before = [Command::Copy, Command::Verify];
    everywhere(19, 4, &before, Command::Retire, async |world, what| {
        assert!(world.source.is_empty(), "{what}");
        world.assert_hydrates(&world.target, what).await;
        // Neither a copy nor a rollback afterwards takes the only values away.
        Command::Copy.run(world, &Process::endless()).await;
        Command::Rollback.run(world, &Process::endless()).await;
        world.assert_hydrates(&world.target, what).await;
    })
    .await;
}

#[tokio::test]
async fn two_thousand_secrets_survive_kills_in_every_phase() {
    let world = world(2000, 3, 20).await;
    let everything = contents(&world.source).await;
    let mut kills = 0;
    for command in [
        Command::Copy,
        Command::Verify,
        Command::Rollback,
        Command::Copy,
    ] {
        // Growing steps, so that each start comes further than the one before whatever it has to do
        // again.
        let mut operations = 7;
        loop {
            let process = Process::ending_at(operations, kills % 2 == 0);
            match command.run(&world, &process).await {
                Some(report) => {
                    assert_complete(&report, &format!("{command:?}"));
                    break;
                }
                None => kills += 1,
            }
            operations += 1 + operations / 7;
        }
        assert_eq!(contents(&world.source).await, everything);
        if command == Command::Rollback {
            rolled_back(&world, "2,000 secrets").await;
        }
    }
    assert!(kills >= 40, "only {kills} kills");
    copied(&world, "2,000 secrets").await;
    assert_eq!(world.source.identity().await.unwrap().store, "memory");
}
