//! Encrypt and rotate by several processes.

use super::crowd::{Crowd, Gate, Moved, words};
use super::{EARLY, LATER, LEASE, SECRETS, WORKERS, random, rounds};
use crate::kill::Random;
use crate::lab::{Lab, Ran};
use crate::postgres::Server;

/// How many statements may be sent between two troubles, and so many rows are in one at most.
const GRANTED: u64 = 2;
const STEP: u64 = 500;

/// The rows of a range, which is begun again when its process is killed.
const RANGE: u64 = 2000;

/// A command on the table of secrets, with its ring.
fn arguments(server: &Server, command: &[&str]) -> Vec<String> {
    let store = server.address("?table=secrets&mode=encrypted&keyring-file=ring");
    let fixed = [
        "--store",
        &store,
        "--journal",
        &server.address(""),
        "--json",
    ];
    words(&[command, &fixed])
}

fn run(server: &Server, lab: &Lab, command: &[&str]) -> Ran {
    server.run(lab, &arguments(server, command))
}

/// Runs a command in four processes, of which some are killed and others paused. `left` counts the rows that
/// are not done.
async fn carried_by_four(
    server: &Server,
    lab: &Lab,
    gate: &Gate<'_>,
    command: &[&str],
    left: &str,
    random: &mut Random,
) {
    gate.close().await;
    let mut crowd = Crowd::new(server, lab, arguments(server, command)).with_lease(LEASE);
    crowd.start_all(&[]);
    crowd.troubles(random, EARLY, &[]);
    crowd
        .until("SELECT worker FROM convert_page WHERE page > 0 AND worker IS NOT NULL")
        .await;
    assert_eq!(server.texts(left).await, [SECRETS.to_string()]);
    let status = ["status", "--json", "--journal", &server.address("")];
    let status = server.run(lab, &status).expect(0).json();
    assert_eq!(status["convert"]["command"], command[0], "{status}");
    assert_eq!(status["convert"]["phase"], "working", "{status}");
    assert_eq!(status["convert"]["remaining"], SECRETS, "{status}");
    for one in rounds() {
        crowd.troubles(random, one, &[]);
        gate.grant(GRANTED).await;
        gate.until_used_up(&mut crowd).await;
    }
    let half: u64 = server.texts(left).await[0].parse().unwrap();
    eprintln!("{half} of {SECRETS} were left until then");
    let most = GRANTED * STEP * LATER.0 as u64;
    assert!((SECRETS - most..SECRETS).contains(&half), "{half}");
    crowd.replace_but(1);
    gate.open().await;
    crowd.end(0);
    drop(crowd);
    assert_eq!(server.texts(left).await, ["0"]);
}

#[tokio::test]
async fn four_processes_convert_each_row_once_whoever_is_killed_or_stopped() {
    let Some(server) = Server::new().await else {
        return;
    };
    let mut random = random();
    let lab = Lab::empty();
    let moved = Moved::new(&server, SECRETS).await;
    let keygen = |arguments: &[&str]| {
        lab.run(&[&["keygen", "--file", "ring"], arguments].concat())
            .expect(0)
    };
    for sql in [
        "CREATE TABLE was AS SELECT * FROM secrets",
        "CREATE TABLE changes (coordinate TEXT)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            INSERT INTO changes VALUES (NEW.coordinate); RETURN NULL; END $$",
        "CREATE TRIGGER note AFTER UPDATE ON secrets FOR EACH ROW EXECUTE FUNCTION note()",
    ] {
        server.sql(sql).await;
    }
    let prepare = server.address("?table=secrets&mode=plain");
    server
        .run(&lab, &["prepare", "--run", "--store", &prepare])
        .expect(0);
    let gate = Gate::before(&server, "UPDATE", "secrets").await;
    let changes = "SELECT COUNT(*) || ' ' || COUNT(DISTINCT coordinate) FROM changes";
    let once = format!("{SECRETS} {SECRETS}");

    let encrypt = ["encrypt", "--nothing-else-reads-it"];
    let left = "SELECT COUNT(*)::text FROM secrets WHERE payload IS NOT NULL";
    carried_by_four(&server, &lab, &gate, &encrypt, left, &mut random).await;
    assert_eq!(server.texts(changes).await, [once.as_str()]);

    keygen(&["--add", "k2"]);
    keygen(&["--activate", "k2"]);
    server.sql("TRUNCATE changes").await;
    let left = "SELECT COUNT(*)::text FROM secrets WHERE key_id <> 'k2'";
    carried_by_four(&server, &lab, &gate, &["rotate"], left, &mut random).await;
    assert_eq!(server.texts(changes).await, [once.as_str()]);

    // Here a row does not show that it is done, so that a range is done again from its beginning.
    server.sql("TRUNCATE changes").await;
    server
        .sql("CREATE TABLE sealed AS SELECT * FROM secrets")
        .await;
    let left = "SELECT COUNT(*)::text FROM secrets JOIN sealed USING (coordinate) \
                WHERE secrets.ciphertext = sealed.ciphertext";
    let reencrypt = ["rotate", "--reencrypt"];
    carried_by_four(&server, &lab, &gate, &reencrypt, left, &mut random).await;
    let changed = server.count("changes").await;
    let troubles = LATER.0 + LATER.1 + WORKERS;
    let most = SECRETS + RANGE * troubles as u64;
    assert!((SECRETS..=most).contains(&changed), "{changed}");

    // Nothing is lost: every value is what it was.
    let from = server.address("?table=secrets&mode=encrypted&keyring-file=ring");
    let to = server.address("?table=plain&mode=plain");
    let mut copy = moved.arguments("copy", &[]);
    for (option, value) in [("--from", &from), ("--to", &to)] {
        let at = copy.iter().position(|word| word == option).unwrap();
        copy[at + 1].clone_from(value);
    }
    server.run(&lab, &copy).expect(0);
    let equal = "SELECT COUNT(*)::text FROM plain JOIN was USING (coordinate) WHERE plain.payload = was.payload";
    assert_eq!(server.texts(equal).await, [SECRETS.to_string()]);
    server.drop().await;
}

#[tokio::test]
async fn one_command_starts_several_processes_that_convert() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    let _moved = Moved::new(&server, SECRETS).await;
    let prepare = server.address("?table=secrets&mode=plain");
    server
        .run(&lab, &["prepare", "--run", "--store", &prepare])
        .expect(0);
    let workers = ["--workers", "3"];
    for (command, figure, rewritten) in [
        (
            &["encrypt", "--nothing-else-reads-it", "--vacuum-full"][..],
            "converted",
            1,
        ),
        (&["rotate", "--reencrypt"], "rotated", 0),
    ] {
        let ran = run(&server, &lab, &[command, &workers].concat()).expect(0);
        let ran = ran.json();
        assert_eq!(ran["command"], command[0]);
        let reports = ran["workers"].as_array().unwrap();
        let converted = reports
            .iter()
            .map(|report| report[figure].as_u64().unwrap());
        assert_eq!(converted.sum::<u64>(), SECRETS, "{ran}");
        let ended = reports.iter().filter(|report| report["rewritten"] == true);
        assert_eq!(ended.count(), rewritten, "{ran}");
    }
    // What nobody can share.
    let store = server.address("?table=secrets&mode=encrypted&keyring-file=ring");
    for journal in [&[][..], &["--journal", "journal.db"]] {
        let rotate = ["rotate", "--store", &store, "--workers", "2"];
        let ran = server.run(&lab, &[&rotate[..], journal].concat());
        ran.expect(2).says("--workers needs");
    }
    // A file has no effect, and does not come into being.
    let rotate = [
        "rotate",
        "--store",
        &store,
        "--journal",
        "journal.db",
        "--json",
    ];
    assert_eq!(server.run(&lab, &rotate).expect(0).json()["rotated"], 0);
    assert!(!lab.file("journal.db").exists());
    server.drop().await;
}
