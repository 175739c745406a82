//! SIGKILL at any moment: the process is killed at a store operation or a journal write, before it or
//! after it, in every phase; then the same command is run again, and nothing is lost or doubled.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use secret_persistence_core::connector::{ConnectorOptions, ConnectorSecrets};
use secret_persistence_core::{Actor, SecretPersistence, Stores};
use sqlx::Row;

use crate::lab::{Lab, Ran, expect_exactly, folder, names};

const CONFIGURATIONS: usize = 500;
const PER_CONFIGURATION: usize = 4;

/// How often each phase is killed and resumed from its beginning; the phases are three, and copy is
/// killed once more in a row.
const KILLS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_secrets_survive_kills_in_every_phase() {
    let seed = seed();
    println!("MIGRATE_KILL_SEED={seed}");
    let mut random = Random(seed);
    let lab = Lab::with(CONFIGURATIONS, PER_CONFIGURATION).await;
    let mut kills = 0;

    for phase in ["copy", "verify", "rollback"] {
        let before = folder();
        keep(lab.folder(), before.path());
        let points = points(&lab, phase);
        keep(before.path(), lab.folder());
        println!("{phase}: {points} points");
        for share in 0..KILLS {
            // One in each stretch of the phase, so that they are spread over all of it.
            let stretch = (points / KILLS).max(1);
            let at = share * stretch + random.below(stretch) + 1;
            assert!(
                stopped_and_killed(&lab, phase, at),
                "{phase} was over before point {at}"
            );
            kills += 1;
            lab.moves(phase, &[]).expect(0);
            after(&lab, phase).await;
            keep(before.path(), lab.folder());
        }
        if phase == "copy" {
            // Killed again and again, each time a little later, without ever starting over.
            for share in 1..=4 {
                let at = points * share / 5;
                kills += u64::from(stopped_and_killed(&lab, phase, at));
            }
        }
        // What the next phase begins with.
        lab.moves(phase, &[]).expect(0);
        after(&lab, phase).await;
    }
    println!("{kills} kills");
    assert!(kills >= 20, "{kills} kills");
}

/// What has to hold once a phase is over, however often it was killed.
async fn after(lab: &Lab, phase: &str) {
    lab.expect_source_whole().await;
    let (source, target) = (lab.source().await, lab.target().await);
    match phase {
        "rollback" => {
            assert_eq!(names(&target).await.len(), 0);
            hydrate_all(lab, &source).await;
        }
        _ => {
            expect_exactly(&target, &lab.secrets).await;
            hydrate_all(lab, &target).await;
        }
    }
    source.close().await;
    target.close().await;
}

/// Hydrates every configuration, and compares what comes out.
async fn hydrate_all(lab: &Lab, store: &secret_persistence::database::Database) {
    let store: std::sync::Arc<dyn SecretPersistence> = std::sync::Arc::new(store.clone());
    let stores = Stores::new(store);
    let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default());
    let acting = secrets.acting_as(&Actor::new("test"));
    let table = lab.configurations().await;
    let rows = sqlx::query("SELECT configuration FROM actor")
        .fetch_all(&table)
        .await
        .unwrap();
    table.close().await;
    assert_eq!(rows.len(), CONFIGURATIONS);
    for row in rows {
        let saved: serde_json::Value = serde_json::from_str(row.get::<&str, _>(0)).unwrap();
        let full = acting.hydrate(saved.clone()).await.unwrap();
        for field in 0..PER_CONFIGURATION {
            let field = format!("secret{field}");
            let name = saved[&field]["_secret"].as_str().unwrap().parse().unwrap();
            assert_eq!(full[&field], lab.secrets[&name].as_str());
        }
    }
}

/// How many points a phase has when nobody kills it.
fn points(lab: &Lab, phase: &str) -> u64 {
    let output = lab
        .command(&lab.between(phase, &[]))
        .env("MIGRATE_TEST_POINTS", "points")
        .output()
        .unwrap();
    Ran::from(output).expect(0);
    let points = std::fs::read_to_string(lab.file("points")).unwrap();
    points.parse().unwrap()
}

/// Runs a phase to its k-th point and kills it there with SIGKILL. False if it was over before.
fn stopped_and_killed(lab: &Lab, phase: &str, at: u64) -> bool {
    let mut child = lab
        .command(&lab.between(phase, &[]))
        .env("MIGRATE_TEST_STOP_AT", at.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    for line in stderr.lines() {
        if line.unwrap().starts_with("stopped at point") {
            // `Child::kill` is SIGKILL.
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
    }
    let status = child.wait().unwrap();
    assert_eq!(
        status.code(),
        Some(0),
        "{phase} neither stopped at {at} nor ended well"
    );
    false
}

/// Copies the files of the lab; those that are not there any more are removed.
fn keep(from: &Path, to: &Path) {
    let names = |folder: &Path| -> Vec<_> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    };
    let kept = names(from);
    for name in names(to).iter().filter(|name| !kept.contains(name)) {
        std::fs::remove_file(to.join(name)).unwrap();
    }
    for name in kept {
        // Permissions come along, without which a key ring is refused.
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

pub(crate) fn seed() -> u64 {
    match std::env::var("MIGRATE_KILL_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    }
}

/// splitmix64: repeatable from its seed, which is all that is asked of it here.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
