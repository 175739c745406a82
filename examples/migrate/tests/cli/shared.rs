//! One migration by several processes: some are killed, others are stopped for longer than their lease
//! and go on, at random moments.

mod collecting;
mod converting;
mod crowd;
mod deleting;
mod large;
mod splitting;
mod verifying;

use std::process::Stdio;
use std::time::Duration;

use sqlx::Connection as _;

use self::crowd::{Crowd, Moved, PER_CONFIGURATION, signal};
use crate::kill::{Random, seed};
use crate::lab::{Lab, Ran};
use crate::postgres::Server;

const SECRETS: u64 = 20_000;
const WORKERS: usize = 4;
/// Kills and pauses: the first few meet what comes before the secrets, and the others the secrets.
const EARLY: (usize, usize) = (2, 1);
const LATER: (usize, usize) = (6, 3);
const LEASE: Duration = Duration::from_secs(1);
/// Slow enough that each kill meets a command under way.
const SLOW: [&str; 2] = ["--rate", "24"];

/// The later ones in rounds of one kill and one pause at most.
fn rounds() -> impl Iterator<Item = (usize, usize)> {
    let (kills, pauses) = LATER;
    (0..kills.max(pauses)).map(move |round| ((round < kills).into(), (round < pauses).into()))
}

/// The same at every run with this number in `MIGRATE_KILL_SEED`.
fn random() -> Random {
    let seed = seed();
    eprintln!("MIGRATE_KILL_SEED={seed}");
    Random(seed)
}

#[tokio::test]
async fn four_processes_share_a_copy_whoever_is_killed_or_stopped() {
    let Some(server) = Server::new().await else {
        return;
    };
    let mut random = random();
    let lab = Lab::empty();
    let moved = Moved::new(&server, SECRETS).await;
    let arguments = moved.arguments("copy", &["--json"]);
    let mut crowd = Crowd::new(&server, &lab, arguments).with_lease(LEASE);
    crowd.start_all(&SLOW);
    // No copy is written until the early troubles are over.
    server
        .until("SELECT 1 FROM to_regclass('copies') AS made WHERE made IS NOT NULL")
        .await;
    let held = server.hold("copies").await;
    crowd.troubles(&mut random, EARLY, &SLOW);
    assert_eq!(server.count("copies").await, 0, "these met no scan");
    held.close().await.unwrap();
    server.until("SELECT 1 FROM copies LIMIT 1").await;
    crowd.troubles(&mut random, LATER, &SLOW);
    let half = server.count("copies").await;
    println!("{half} of {SECRETS} were copied until then");
    assert!((1..SECRETS).contains(&half), "these met no copy");
    crowd.replace_but(1);
    crowd.end(0);
    drop(crowd);

    // Nothing is left to do, and everything is there once.
    let again = moved.run(&lab, "copy", &[]).expect(0).json();
    assert_eq!(again["tally"]["written"], 0, "{again}");
    assert_eq!(server.count("copies").await, SECRETS);
    assert_eq!(server.count("secrets").await, SECRETS);
    let states = server
        .texts("SELECT DISTINCT state || ' ' || intent FROM migrate_secret")
        .await;
    assert_eq!(states, ["written 1"]);
    let verified = moved.run(&lab, "verify", &[]).expect(0).json();
    assert_eq!(verified["tally"]["verified"], SECRETS, "{verified}");
    assert_eq!(
        verified["tally"]["hydrated"],
        SECRETS / PER_CONFIGURATION,
        "{verified}"
    );
    deleting::all_is_rolled_back(&server, &lab, &moved, &mut random).await;
    server.drop().await;
}

#[tokio::test]
async fn processes_share_only_the_same_copy() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    let moved = Moved::new(&server, SECRETS).await;
    let mut crowd = Crowd::new(&server, &lab, moved.arguments("copy", &["--json"]));
    crowd.start(&["--rate", "20"]);
    server
        .until("SELECT command FROM migrate_pass WHERE ended = 0")
        .await;
    moved
        .run(&lab, "copy", &["--unfit", "skip"])
        .expect(2)
        .says("with other options");
    for command in ["verify", "rollback"] {
        moved
            .run(&lab, command, &[])
            .expect(2)
            .says("processes that copy share the journal now");
    }
    for (command, more) in [("copy", &["--dry-run"][..]), ("plan", &[])] {
        moved
            .run(&lab, command, more)
            .expect(4)
            .says("another process");
    }
    // A second process takes a part, and what either has done is all there is.
    crowd.start(&["--rate", "50"]);
    let ended = crowd.end(0);
    let written: Vec<u64> = ended
        .iter()
        .map(|ran| ran.json()["tally"]["written"].as_u64().unwrap())
        .collect();
    assert_eq!(written.iter().sum::<u64>(), SECRETS, "{written:?}");
    assert!(written.iter().all(|part| *part > 0), "{written:?}");
    drop(crowd);
    server.drop().await;
}

#[tokio::test]
async fn what_one_process_finds_stops_all() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    let moved = Moved::new(&server, SECRETS).await;
    server
        .sql("DELETE FROM secrets WHERE coordinate = (SELECT MAX(coordinate) FROM secrets)")
        .await;
    let mut crowd = Crowd::new(&server, &lab, moved.arguments("copy", &["--rate", "20"]));
    crowd.start(&[]);
    server
        .until("SELECT command FROM migrate_pass WHERE ended = 0")
        .await;
    crowd.start(&[]);
    for child in std::mem::take(&mut crowd.running) {
        Ran::from(child.wait_with_output().unwrap())
            .expect(3)
            .says("--missing skip");
    }
    drop(crowd);
    server.drop().await;
}

#[tokio::test]
async fn one_command_starts_several_processes() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    let moved = Moved::new(&server, SECRETS).await;
    let start = |rate: &str| {
        let arguments = moved.arguments("copy", &["--workers", "3", "--rate", rate, "--json"]);
        let mut command = server.command(&lab, &arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        child.spawn().unwrap()
    };
    let written = |ran: &Ran| -> Vec<u64> {
        let reports = ran.json()["workers"].clone();
        let reports = reports.as_array().unwrap().iter();
        reports
            .map(|report| report["tally"]["written"].as_u64().unwrap())
            .collect()
    };
    // SIGTERM reaches the first process only, which stops the others.
    let child = start("10");
    server.until("SELECT 1 FROM copies LIMIT 1").await;
    signal("-TERM", child.id());
    let stopped = Ran::from(child.wait_with_output().unwrap()).expect(130);
    let before: u64 = written(&stopped).iter().sum();
    assert_eq!(server.count("copies").await, before);
    assert!((1..SECRETS).contains(&before), "{before}");
    // One that is killed with SIGKILL leaves nobody behind.
    let mut child = start("10");
    let more = format!("SELECT 1 FROM copies OFFSET {before} LIMIT 1");
    server.until(&more).await;
    child.kill().unwrap();
    child.wait().unwrap();
    server
        .until(
            "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid())",
        )
        .await;
    let left = SECRETS - server.count("copies").await;
    assert!(left > 0, "all was copied before");
    let ended = Ran::from(start("500").wait_with_output().unwrap()).expect(0);
    let parts = written(&ended);
    assert_eq!((parts.len(), parts.iter().sum::<u64>()), (3, left));
    assert_eq!(server.count("copies").await, SECRETS);
    for (journal, more) in [
        ("journal.db", &[][..]),
        (&server.address(""), &["--dry-run"]),
    ] {
        let mut wrong = moved.arguments("copy", &[more, &["--workers", "2"]].concat());
        let at = wrong.iter().position(|word| word == "--journal").unwrap();
        journal.clone_into(&mut wrong[at + 1]);
        server.run(&lab, &wrong).expect(2).says("--workers needs");
    }
    let told = moved.run(
        &lab,
        "verify",
        &["--workers", "2", "--differences", "new.json"],
    );
    told.expect(2).says("each process with its own file");
    for (command, figure) in [("verify", "verified"), ("rollback", "deleted")] {
        let ran = moved.run(&lab, command, &["--workers", "2"]).expect(0);
        let ran = ran.json();
        assert_eq!(ran["command"], command);
        let parts = ran["workers"].as_array().unwrap().iter();
        let parts = parts.map(|report| report["tally"][figure].as_u64().unwrap());
        assert_eq!(parts.sum::<u64>(), SECRETS, "{ran}");
    }
    server.drop().await;
}
