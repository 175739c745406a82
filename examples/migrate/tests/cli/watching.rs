//! `status`: what others can see of a copy under way, from any machine.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::lab::{Lab, Ran};
use crate::postgres::Server;

const CONFIGURATIONS: usize = 500;
const SECRETS: u64 = 2_000;

/// A copy at a rate, with its journal on the server.
fn copying(server: &Server, lab: &Lab, rate: &str) -> Command {
    let mut arguments = lab.between("copy", &["--rate", rate]);
    let at = arguments.iter().position(|word| word == "journal.db");
    arguments[at.unwrap()] = server.address("");
    server.command(lab, &arguments)
}

#[tokio::test]
async fn anyone_with_the_journal_sees_how_far_a_copy_is() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::with(CONFIGURATIONS, 4).await;
    let journal = server.address("");
    let of_journal = ["--journal", journal.as_str()];
    let status = |more: &[&str]| {
        let arguments = [&["status"], &of_journal[..], more].concat();
        server.run(&lab, &arguments)
    };
    // Nothing is created by looking.
    status(&[]).expect(2);
    assert_eq!(
        server
            .texts("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
            .await
            .len(),
        0
    );

    let copy = |rate: &str| {
        let mut command = copying(&server, &lab, rate);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut slow = copy("1");
    server
        .until("SELECT 1 FROM migrate_page WHERE page > 0 AND worker IS NOT NULL")
        .await;
    let seen = status(&["--json"]).expect(0).json();
    let pass = &seen["pass"];
    assert_eq!(
        (&pass["command"], &pass["phase"]),
        (&"copy".into(), &"working".into()),
        "{seen}"
    );
    assert_eq!(pass["secrets"], SECRETS, "{seen}");
    assert!(pass["remaining"].as_u64().unwrap() > 0, "{seen}");
    let workers = pass["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 1, "{seen}");
    assert!(workers[0]["holds"].as_u64().unwrap() > 0, "{seen}");
    assert!(workers[0]["lapses_in"].as_f64().unwrap() > 0.0, "{seen}");
    let ran = status(&[]).expect(0).says("copy       working");
    ran.says("processes  1 at work").says("remaining  ");

    // It is killed: its pages are held until their leases end, and then the pass is left.
    slow.kill().unwrap();
    slow.wait().unwrap();
    server
        .sql("UPDATE migrate_page SET until = now() - interval '1 s' WHERE done = 0 AND until IS NOT NULL")
        .await;
    server
        .sql("UPDATE migrate_pass SET until = now() - interval '1 s'")
        .await;
    status(&[])
        .expect(0)
        .says("left: nobody works on it")
        .says("processes  0 at work");

    // Whoever watches sees that it is left, goes on, and ends.
    let arguments = [&["status"], &of_journal[..], &["--watch", "1s", "--json"]].concat();
    let mut watch = server.command(&lab, &arguments);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = BufReader::new(watch.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let first = seen.next().unwrap();
    assert_eq!(first["pass"]["phase"], "left", "{first}");
    let mut quick = copy("1000");
    let last = seen.last().unwrap();
    assert!(watch.wait().unwrap().success());
    assert!(quick.wait().unwrap().success());
    assert_eq!(last["pass"]["phase"], "ended", "{last}");
    assert_eq!(
        (&last["pass"]["remaining"], &last["pass"]["failed"]),
        (&0.into(), &0.into()),
        "{last}"
    );
    assert_eq!(last["states"]["written"], SECRETS, "{last}");
    status(&["--watch"])
        .expect(0)
        .says("2000 written")
        .says("copy       ended");

    // A journal in a file says what it has, if no process uses it.
    lab.moves("copy", &[]).expect(0);
    let seen = lab
        .run(&["status", "--journal", "journal.db", "--watch", "--json"])
        .expect(0)
        .json();
    assert_eq!(seen["states"]["present"], SECRETS, "{seen}");
    assert!(seen["pass"].is_null(), "{seen}");
    assert_ne!(lab.run(&["status", "--journal", "none.db"]).status, 0);
    assert!(!lab.file("none.db").exists());
    server.drop().await;
}

/// The database that hands out the requests is that of the journal, so no command outlasts it for long.
#[tokio::test]
async fn a_copy_whose_journal_is_away_ends_and_goes_on_later() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::with(10, 4).await;
    let slow = copying(&server, &lab, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server
        .until("SELECT 1 FROM migrate_page WHERE page > 0 AND worker IS NOT NULL")
        .await;
    let name = &server.database;
    let away = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    let ended =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    let back = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    let mut others = PgConnection::connect(server.url.as_str()).await.unwrap();
    for sql in [away, ended] {
        let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut others).await;
        done.unwrap();
    }
    let ran = Ran::from(slow.wait_with_output().unwrap());
    ran.expect(4).says("journal");
    let done = sqlx::query(AssertSqlSafe(back)).execute(&mut others).await;
    done.unwrap();
    let again = copying(&server, &lab, "1000").output().unwrap();
    Ran::from(again).expect(0);
    server.drop().await;
}
