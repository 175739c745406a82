//! Split by several processes.

use serde_json::json;

use super::crowd::{Crowd, Gate, words};
use super::{EARLY, LEASE, random, rounds};
use crate::lab::{Lab, Ran};
use crate::postgres::Server;

const ROWS: u64 = 4_000;
const SECRETS: u64 = 2 * ROWS;

/// How many rows may be saved between two troubles.
const GRANTED: u64 = 300;

/// Rows that were never split.
struct Site<'t> {
    server: &'t Server,
}

impl<'t> Site<'t> {
    async fn new(server: &'t Server) -> Self {
        let specification = json!({ "properties": {
            "password": { "type": "string", "airbyte_secret": true },
            "token": { "type": "string", "airbyte_secret": true },
        } });
        for sql in [
            "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT)",
            "CREATE TABLE actor (id uuid PRIMARY KEY, workspace uuid, spec jsonb, configuration jsonb)",
            &format!(
                "INSERT INTO actor SELECT md5(n::text)::uuid, md5((n % 7)::text)::uuid, '{specification}', \
                 jsonb_build_object('host', 'h', 'password', 'raw-' || n, 'token', 'raw-t' || n) \
                 FROM generate_series(1, {ROWS}) AS n"
            ),
            "CREATE TABLE was AS SELECT id, configuration FROM actor",
            "CREATE TABLE changes (id uuid)",
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                INSERT INTO changes VALUES (NEW.id); RETURN NULL; END $$",
            "CREATE TRIGGER note AFTER UPDATE ON actor FOR EACH ROW EXECUTE FUNCTION note()",
        ] {
            server.sql(sql).await;
        }
        Self { server }
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let actors =
            "?table=actor&id=id&configuration=configuration&base_id=workspace&specification=spec";
        let fixed = [
            "split",
            "--store",
            &self.server.address("?table=secrets&mode=plain"),
            "--configs",
            &self.server.address(actors),
            "--journal",
            &self.server.address(""),
            "--json",
        ];
        words(&[&fixed, more])
    }

    fn run(&self, lab: &Lab, more: &[&str]) -> Ran {
        self.server.run(lab, &self.arguments(more))
    }

    /// How many rows have no raw secret.
    async fn split(&self) -> u64 {
        let raw = "SELECT COUNT(*)::text FROM actor WHERE configuration::text NOT LIKE '%raw-%'";
        self.server.texts(raw).await[0].parse().unwrap()
    }

    /// No row points to a secret that is not there, and each means what it meant.
    async fn expect_no_loss(&self) {
        let lost = "SELECT id::text FROM actor JOIN was USING (id) \
            LEFT JOIN secrets AS p ON p.coordinate = actor.configuration -> 'password' ->> '_secret' \
            LEFT JOIN secrets AS t ON t.coordinate = actor.configuration -> 'token' ->> '_secret' \
            WHERE actor.configuration <> was.configuration \
              AND (p.payload IS DISTINCT FROM was.configuration ->> 'password' \
                   OR t.payload IS DISTINCT FROM was.configuration ->> 'token')";
        assert_eq!(self.server.texts(lost).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn four_processes_split_each_row_once_whoever_is_killed_or_stopped() {
    let Some(server) = Server::new().await else {
        return;
    };
    let mut random = random();
    let lab = Lab::empty();
    let site = Site::new(&server).await;
    let gate = Gate::before(&server, "UPDATE", "actor").await;
    gate.close().await;
    let mut crowd = Crowd::new(&server, &lab, site.arguments(&[])).with_lease(LEASE);
    crowd.start_all(&[]);
    crowd.until("SELECT coordinate FROM secrets LIMIT 1").await;
    crowd.troubles(&mut random, EARLY, &[]);
    assert_eq!(site.split().await, 0);
    let status = ["status", "--json", "--journal", &server.address("")];
    let status = server.run(&lab, &status).expect(0).json();
    assert_eq!(status["pass"]["command"], "split", "{status}");
    assert_eq!(status["pass"]["phase"], "working", "{status}");
    for one in rounds() {
        crowd.troubles(&mut random, one, &[]);
        gate.grant(GRANTED).await;
        gate.until_used_up(&mut crowd).await;
        site.expect_no_loss().await;
    }
    let half = site.split().await;
    eprintln!("{half} of {ROWS} were split until then");
    assert!((1..ROWS).contains(&half), "{half}");
    crowd.replace_but(1);
    gate.open().await;
    crowd.end(0);
    drop(crowd);
    assert_eq!(site.split().await, ROWS);
    site.expect_no_loss().await;
    let changes = "SELECT COUNT(*) || ' ' || COUNT(DISTINCT id) FROM changes";
    assert_eq!(server.texts(changes).await, [format!("{ROWS} {ROWS}")]);
    // What the killed ones had written is gone, too.
    assert_eq!(server.count("secrets").await, SECRETS);
    let again = site.run(&lab, &[]).expect(0).json();
    assert_eq!(again["tally"]["split"], 0, "{again}");
    assert_eq!(server.count("secrets").await, SECRETS);
    server.drop().await;
}

#[tokio::test]
async fn one_command_starts_several_processes_that_split() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    let site = Site::new(&server).await;
    for (more, source) in [
        (&["--dry-run"][..], ""),
        (&[], "lines.jsonl"),
        (
            &[],
            "sqlite:rows.db?table=actor&id=id&configuration=configuration",
        ),
    ] {
        let mut arguments = site.arguments(&[more, &["--workers", "2"]].concat());
        if !source.is_empty() {
            let at = arguments
                .iter()
                .position(|word| word == "--configs")
                .unwrap();
            source.clone_into(&mut arguments[at + 1]);
        }
        server
            .run(&lab, &arguments)
            .expect(2)
            .says("--workers needs");
    }
    let ran = site.run(&lab, &["--workers", "3"]).expect(0).json();
    let reports = ran["workers"].as_array().unwrap();
    let split = reports
        .iter()
        .map(|report| report["tally"]["split"].as_u64().unwrap());
    assert_eq!(split.sum::<u64>(), ROWS, "{ran}");
    site.expect_no_loss().await;
    assert_eq!(server.count("secrets").await, SECRETS);
    server.drop().await;
}

/// The report counts what is kept, for people and for programs, and says what to do.
#[tokio::test]
async fn what_is_kept_is_counted_and_the_remedy_is_named() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    let site = Site::new(&server).await;
    let gate = Gate::before(&server, "UPDATE", "actor").await;
    gate.close().await;
    let mut crowd = Crowd::new(&server, &lab, site.arguments(&[])).with_lease(LEASE);
    crowd.start(&[]);
    crowd.until("SELECT coordinate FROM secrets LIMIT 1").await;
    crowd.kill(0);
    drop(crowd);
    // Nothing of it waits in the database any more, and somebody deletes its rows.
    server
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'UPDATE%actor%'",
        )
        .await;
    server.sql("DELETE FROM actor").await;
    gate.open().await;
    let notes = server.count("migrate_note").await;
    assert!(notes > 0, "it has noted no change");
    let written = server.count("secrets").await;
    let ran = site.run(&lab, &[]).expect(0).json();
    assert_eq!(ran["findings"]["kept"]["count"], notes, "{ran}");
    assert_eq!(ran["tally"]["kept"], 2 * notes, "{ran}");
    let detail = ran["findings"]["kept"]["listed"][0]["detail"].as_str();
    assert!(detail.unwrap().contains("start again after 2"), "{ran}");
    let mut arguments = site.arguments(&[]);
    arguments.retain(|argument| argument != "--json");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    server
        .run(&lab, &arguments)
        .expect(0)
        .says(&format!("{notes:>10}  not deleted from the store"))
        .says("the row is gone")
        .says("start again after 2");
    assert_eq!(server.count("secrets").await, written);
    server.drop().await;
}
