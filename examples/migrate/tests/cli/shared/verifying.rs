//! Verify by several processes.

use std::time::Duration;

use super::crowd::{Crowd, Moved};
use super::{EARLY, random};
use crate::lab::Lab;
use crate::postgres::Server;

const SECRETS: u64 = 10_000;
const LEASE: Duration = Duration::from_secs(3);
/// Requests are few when nothing is written.
const SLOW: [&str; 2] = ["--rate", "12"];

#[tokio::test]
async fn what_a_process_finds_is_known_after_it_is_killed() {
    let Some(server) = Server::new().await else {
        return;
    };
    let mut random = random();
    let lab = Lab::empty();
    let moved = Moved::new(&server, SECRETS).await;
    moved.run(&lab, "copy", &[]).expect(0);
    // One of the first page has another value.
    server
        .sql(
            "UPDATE secrets SET payload = payload || '!' \
             WHERE coordinate = (SELECT MIN(coordinate) FROM secrets)",
        )
        .await;
    let arguments = moved.arguments("verify", &["--json"]);
    let mut crowd = Crowd::new(&server, &lab, arguments).with_lease(LEASE);
    crowd.start(&SLOW);
    server
        .until("SELECT 1 FROM migrate_page WHERE page = 1 AND done = 1")
        .await;
    // Others take part before the one that knows is killed.
    crowd.start(&[]);
    server
        .until(
            "SELECT 1 FROM migrate_page WHERE page > 1 AND done = 1 \
             AND worker <> (SELECT worker FROM migrate_page WHERE page = 1)",
        )
        .await;
    crowd.kill(0);
    let ended = crowd.end(1).remove(0);
    let ended = ended.json();
    drop(crowd);
    assert_eq!(ended["stopped"], "conflict", "{ended}");
    assert_eq!(ended["stopped_by_another"], true, "{ended}");
    let states = "SELECT state || ' ' || intent || ' ' || COUNT(*) FROM migrate_secret GROUP BY state, intent ORDER BY 1";
    let rest = SECRETS - 1;
    assert_eq!(
        server.texts(states).await,
        ["conflict 1 1".to_owned(), format!("verified 1 {rest}")]
    );

    // Repaired, and verified by four processes that are killed and paused.
    server
        .sql("UPDATE secrets SET payload = rtrim(payload, '!')")
        .await;
    let repaired = moved.run(&lab, "copy", &[]).expect(0).json();
    assert_eq!(repaired["tally"]["resumed"], 1, "{repaired}");
    let arguments = moved.arguments("verify", &["--json"]);
    let mut crowd = Crowd::new(&server, &lab, arguments).with_lease(LEASE);
    crowd.start_all(&SLOW);
    crowd.troubles(&mut random, EARLY, &SLOW);
    crowd.replace_but(1);
    crowd.end(0);
    drop(crowd);
    assert_eq!(
        server.texts(states).await,
        [format!("verified 1 {SECRETS}")]
    );
    server.drop().await;
}
