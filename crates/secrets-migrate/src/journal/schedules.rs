//! Every schedule of processes that share a journal, on the journal itself.
//!
//! There is no model of the journal that could differ from it: a state is the content of the tables, what
//! each process remembers, and what the store holds. Each step of each process is a call of the real
//! journal on a real Postgres that was brought into that state; what the tables contain afterwards is the
//! next state. All states that can be reached are visited once. Beside the steps of the processes there
//! are these: a lease ends, a process halts the pass, is killed and starts anew, a call is delivered a second
//! time because its answer was lost, a request in flight reaches the store, a rollback follows a copy. A
//! process that is paused is one that takes no step while the others do.

// Clippy does not see that the module is one of tests.
#![allow(clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

mod calls;
mod tables;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use secret_persistence_core::ManagedCoordinate;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

use self::calls::{Call, Called};
use self::tables::{Pass, Tables};
use self::world::{At, Budget, Command, Step, World};
use super::{Journal, Run};
use crate::SqlJournal;

struct Explorer {
    /// As many sessions as there are processes: a process that is alone begins a new pass.
    journals: Vec<SqlJournal>,
    calls: HashMap<Call, Called>,
    tables: PgPool,
    names: Vec<ManagedCoordinate>,
}

impl Explorer {
    /// Visits every state that can be reached; returns how many there are, how many steps, and how
    /// many different calls those made.
    async fn explore(&mut self, command: Command, left: Budget) -> (usize, usize, usize) {
        let start = World {
            tables: Tables {
                pass: Pass {
                    number: 1,
                    command,
                    is_ended: true,
                    is_halted: false,
                    lasts: true,
                    has_stragglers: false,
                },
                pages: Vec::new(),
                secrets: BTreeMap::new(),
                scan: 0,
                seen: BTreeMap::new(),
                notes: BTreeSet::new(),
            },
            processes: vec![At::Outside(command); self.journals.len()],
            flying: BTreeSet::new(),
            store: BTreeSet::new(),
            left,
        };
        let mut numbers = HashMap::from([(start.clone(), 0)]);
        let mut worlds = vec![start];
        let mut came: Vec<Option<(usize, Step)>> = vec![None];
        let mut before: Vec<Vec<usize>> = vec![Vec::new()];
        let mut open = VecDeque::from([0]);
        let mut steps = 0;
        while let Some(number) = open.pop_front() {
            for step in worlds[number].steps() {
                steps += 1;
                let next = self.step(&worlds[number].clone(), step).await;
                let is_new = !numbers.contains_key(&next);
                let to = *numbers.entry(next.clone()).or_insert(worlds.len());
                if is_new {
                    let problem = next.check();
                    worlds.push(next);
                    came.push(Some((number, step)));
                    before.push(Vec::new());
                    open.push_back(to);
                    if let Err(problem) = problem {
                        panic!("{problem}:\n{}", story(&worlds, &came, to));
                    }
                }
                before[to].push(number);
            }
        }
        // From every state, however it was reached, the processes come to the end.
        let mut ends: Vec<bool> = worlds.iter().map(World::is_over).collect();
        let mut open: Vec<usize> = (0..worlds.len()).filter(|at| ends[*at]).collect();
        assert!(!open.is_empty(), "some schedule ends");
        while let Some(number) = open.pop() {
            for earlier in &before[number] {
                if !std::mem::replace(&mut ends[*earlier], true) {
                    open.push(*earlier);
                }
            }
        }
        // Whoever waits for a lease needs it to end.
        let stuck = (0..worlds.len()).find(|at| !ends[*at] && worlds[*at].left.expiries > 0);
        if let Some(stuck) = stuck {
            panic!("this never ends:\n{}", story(&worlds, &came, stuck));
        }
        (worlds.len(), steps, self.calls.len())
    }
}

fn story(worlds: &[World], came: &[Option<(usize, Step)>], mut at: usize) -> String {
    let mut lines = vec![format!("{:#?}", worlds[at])];
    while let Some((before, step)) = &came[at] {
        lines.push(format!("{step:?}: {:?}", worlds[at].processes));
        at = *before;
    }
    lines.reverse();
    lines.join("\n")
}

/// Explores a command and what follows it on a database of its own; skipped visibly without a server.
async fn explore(
    command: Command,
    processes: usize,
    secrets: u32,
    left: Budget,
) -> Option<(usize, usize, usize)> {
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "TEST_POSTGRES_URL is not set; run scripts/test"
        );
        eprintln!("SKIPPED: TEST_POSTGRES_URL is not set");
        return None;
    };
    let mut place: url::Url = url.parse().unwrap();
    let database = format!("schedules_{}", uuid::Uuid::new_v4().simple());
    let mut administrator = PgConnection::connect(&url).await.unwrap();
    let sql = format!("CREATE DATABASE {database}");
    sqlx::query(AssertSqlSafe(sql))
        .execute(&mut administrator)
        .await
        .unwrap();
    place.set_path(&database);
    let tables = PgPool::connect(place.as_str()).await.unwrap();
    let (user, password) = (
        place.username().to_owned(),
        place.password().map(str::to_owned),
    );
    let variables = move |name: &str| match name {
        "DATABASE_USER" => Some(user.clone()),
        "DATABASE_PASSWORD" => password.clone(),
        _ => None,
    };
    place.set_username("").unwrap();
    place.set_password(None).unwrap();
    let run = Run {
        source: "source".into(),
        target: Some("target".into()),
        owner: None,
        workspaces: Vec::new(),
    };
    let mut journals = Vec::new();
    for _ in 0..processes {
        let journal = SqlJournal::open_shared(place.as_str(), &variables)
            .await
            .unwrap();
        journal.open(&run).await.unwrap();
        journals.push(journal);
    }
    // A pass that has ended, so that the next one has a number that is known.
    let sql = "INSERT INTO migrate_pass VALUES (1, 1, 'copy', 'settings', 1, NULL, now())";
    sqlx::query(sql).execute(&tables).await.unwrap();
    let name = |number| format!("airbyte_workspace_1_secret_{number}_v1");
    let mut explorer = Explorer {
        journals,
        calls: HashMap::new(),
        tables,
        names: (1..=secrets)
            .map(|number| ManagedCoordinate::parse(&name(number)).unwrap())
            .collect(),
    };
    let explored = explorer.explore(command, left).await;
    let sql = format!("DROP DATABASE {database} WITH (FORCE)");
    sqlx::query(AssertSqlSafe(sql))
        .execute(&mut administrator)
        .await
        .unwrap();
    Some(explored)
}

#[tokio::test]
async fn no_schedule_of_two_processes_breaks_a_promise() {
    let left = Budget {
        expiries: 1,
        kills: 1,
        repeats: 1,
        ..Budget::default()
    };
    let Some((states, steps, calls)) = explore(Command::Copy, 2, 1, left).await else {
        return;
    };
    println!("{states} states, {steps} steps, {calls} calls of the journal");
    assert!(states > 500, "{states}");
}

/// Pages of configurations come into being one after the other: whatever happens to those who read them, each
/// follows the one before, and no row is left out or in two.
#[tokio::test]
async fn no_schedule_of_two_processes_breaks_the_chain_of_a_split() {
    let left = Budget {
        expiries: 1,
        kills: 1,
        ..Budget::default()
    };
    let Some((states, steps, calls)) = explore(Command::Split, 2, 2, left).await else {
        return;
    };
    println!("{states} states, {steps} steps, {calls} calls of the journal");
    assert!(states > 500, "{states}");
}

/// A process that was stopped goes on while two others, one after the other, take its pass over and end it,
/// and the operator then rolls back what they have copied.
#[tokio::test]
async fn no_schedule_of_two_takeovers_and_a_rollback_breaks_a_promise() {
    let left = Budget {
        halts: 2,
        rollbacks: 1,
        ..Budget::default()
    };
    let Some((states, steps, calls)) = explore(Command::Copy, 2, 1, left).await else {
        return;
    };
    println!("{states} states, {steps} steps, {calls} calls of the journal");
    assert!(states > 500, "{states}");
}

#[tokio::test]
#[ignore = "takes many minutes"]
async fn no_longer_schedule_of_two_processes_breaks_a_promise() {
    let left = Budget {
        expiries: 2,
        kills: 1,
        repeats: 1,
        ..Budget::default()
    };
    if let Some((states, steps, calls)) = explore(Command::Copy, 2, 2, left).await {
        println!("{states} states, {steps} steps, {calls} calls of the journal");
    }
}
