//! A million secrets, or as many as there is time for.
//!
//! `MIGRATE_PROOF_SECRETS=1000000 MIGRATE_PROOF_PROGRAM=<a release build of secret-migrate>
//! cargo test … -- --ignored --nocapture a_large_migration`, beside a Postgres server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::crowd::{Crowd, Moved, PER_CONFIGURATION};
use super::random;
use crate::kill::Random;
use crate::lab::Lab;
use crate::postgres::Server;

const TROUBLES: (usize, usize) = (50, 20);
const LEASE: Duration = Duration::from_secs(3);

/// The share of pages, in percent, before which the last trouble happens.
const UNTIL: u64 = 90;

#[tokio::test]
#[ignore = "run by hand: it takes many minutes"]
async fn a_large_migration_whoever_is_killed_or_stopped() {
    let number = std::env::var("MIGRATE_PROOF_SECRETS").unwrap_or_else(|_| "100000".to_owned());
    let secrets: u64 = number.parse().unwrap();
    let program = std::env::var_os("MIGRATE_PROOF_PROGRAM").map(PathBuf::from);
    let server = Server::new().await.expect("a Postgres server");
    let mut random = random();
    let lab = Lab::empty();
    let moved = Moved::new(&server, secrets).await;
    let proof = Proof {
        server: &server,
        lab: &lab,
        moved: &moved,
        program,
    };

    proof.command("copy", &mut random).await;
    let states = "SELECT state || ' ' || intent || ' ' || COUNT(*) || ' ' || COUNT(copies.coordinate) \
                  FROM migrate_secret LEFT JOIN copies USING (coordinate) GROUP BY state, intent ORDER BY 1";
    let all = |state: &str, there: u64| [format!("{state} {secrets} {there}")];
    assert_eq!(server.count("copies").await, secrets);
    assert_eq!(server.texts(states).await, all("written 1", secrets));

    proof.command("verify", &mut random).await;
    assert_eq!(server.texts(states).await, all("verified 1", secrets));
    let once = proof.alone("verify");
    assert_eq!(once["tally"]["verified"], secrets, "{once}");
    assert_eq!(
        once["tally"]["hydrated"],
        secrets / PER_CONFIGURATION,
        "{once}"
    );

    proof.command("rollback", &mut random).await;
    assert_eq!(server.count("copies").await, 0);
    assert_eq!(server.count("secrets").await, secrets);
    assert_eq!(server.texts(states).await, all("pending 0", 0));
    server.drop().await;
}

struct Proof<'t> {
    server: &'t Server,
    lab: &'t Lab,
    moved: &'t Moved<'t>,
    program: Option<PathBuf>,
}

impl Proof<'_> {
    /// Runs a command with kills and pauses at random shares of its pages.
    async fn command(&self, command: &str, random: &mut Random) {
        let began = Instant::now();
        let arguments = self.moved.arguments(command, &["--json"]);
        let mut crowd = Crowd::new(self.server, self.lab, arguments)
            .with_lease(LEASE)
            .with_program(self.program.clone());
        crowd.start_all(&[]);
        let total = TROUBLES.0 + TROUBLES.1;
        let mut at: Vec<u64> = (0..total).map(|_| random.below(UNTIL * 10)).collect();
        at.sort_unstable();
        let mut left = TROUBLES;
        for permille in at {
            loop {
                crowd.resume_due(Instant::now());
                if self.done(command).await >= permille {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            left = crowd.trouble(random, left, &[]);
        }
        let until = Instant::now() + LEASE * 2;
        while Instant::now() < until {
            crowd.resume_due(Instant::now());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        crowd.end(0);
        let taken = began.elapsed().as_secs_f64();
        eprintln!(
            "{command}: {} kills and {} pauses, {taken:.0} s",
            TROUBLES.0, TROUBLES.1
        );
    }

    /// Runs a command in one process.
    fn alone(&self, command: &str) -> serde_json::Value {
        let arguments = self.moved.arguments(command, &["--json"]);
        let mut crowd = Crowd::new(self.server, self.lab, arguments);
        crowd = crowd.with_program(self.program.clone());
        crowd.start(&[]);
        crowd.end(0).remove(0).json()
    }

    /// How much of the secrets' pages has ended, in permille.
    async fn done(&self, command: &str) -> u64 {
        let sql = format!(
            "SELECT (1000 * COUNT(*) FILTER (WHERE done = 1) / GREATEST(COUNT(*), 1))::text \
             FROM migrate_page JOIN migrate_pass USING (pass) \
             WHERE upto IS NOT NULL AND command = '{command}'"
        );
        // The tables come with the first process.
        self.server
            .until("SELECT 1 FROM migrate_page LIMIT 1")
            .await;
        self.server.texts(&sql).await[0].parse().unwrap()
    }
}
