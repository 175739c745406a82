//! Rollback and retire by several processes.

use super::crowd::{Crowd, Moved};
use super::{EARLY, LATER, LEASE, SECRETS, SLOW, random, rounds};
use crate::kill::Random;
use crate::lab::Lab;
use crate::postgres::Server;

/// Every so many secrets have another value than when they were copied.
const CHANGED: u64 = 2000;

/// Changes the values of a few secrets, spread over all pages, in the source.
async fn change(server: &Server) {
    server
        .sql(&format!(
            "UPDATE secrets SET payload = payload || '!' WHERE coordinate IN ( \
                SELECT coordinate FROM ( \
                    SELECT coordinate, row_number() OVER (ORDER BY coordinate) AS number FROM secrets) AS numbered \
                WHERE number % {CHANGED} = 0)"
        ))
        .await;
}

/// What a journal that says what is not so would be caught by: the target has what it disowns.
async fn expect_truth(server: &Server) {
    let disowned = server
        .texts(
            "SELECT journal.coordinate FROM migrate_secret AS journal \
             JOIN copies ON copies.coordinate = journal.coordinate WHERE journal.intent = 0",
        )
        .await;
    assert_eq!(disowned, Vec::<String>::new());
}

/// Rolls everything back, with four processes that are killed and paused, but what has changed.
pub(super) async fn all_is_rolled_back(
    server: &Server,
    lab: &Lab,
    moved: &Moved<'_>,
    random: &mut Random,
) {
    change(server).await;
    let kept = SECRETS / CHANGED;
    let arguments = moved.arguments("rollback", &["--json"]);
    let mut crowd = Crowd::new(server, lab, arguments).with_lease(LEASE);
    crowd.start_all(&SLOW);
    crowd.troubles(random, EARLY, &SLOW);
    assert_eq!(
        server.secrets("copies").await,
        SECRETS,
        "these met no proof"
    );
    server
        .until(&format!(
            "SELECT 1 WHERE (SELECT COUNT(*) FROM {}) < {SECRETS}",
            Server::without_probes("copies")
        ))
        .await;
    for one in rounds() {
        crowd.troubles(random, one, &SLOW);
        expect_truth(server).await;
    }
    let half = server.secrets("copies").await;
    eprintln!("{half} of {SECRETS} were left until then");
    assert!((kept + 1..SECRETS).contains(&half), "these met no rollback");
    // Each secret that a killed process has deleted is asked about once more, which takes a slow one long.
    crowd.replace_but(0);
    crowd.end(0);
    drop(crowd);

    assert_eq!(server.secrets("secrets").await, SECRETS);
    let states = server
        .texts(
            "SELECT state || ' ' || intent || ' ' || COUNT(*) || ' ' || COUNT(copies.coordinate) \
             FROM migrate_secret LEFT JOIN copies USING (coordinate) GROUP BY state, intent ORDER BY 1",
        )
        .await;
    let gone = SECRETS - kept;
    assert_eq!(
        states,
        [
            format!("pending 0 {gone} 0"),
            format!("verified 1 {kept} {kept}")
        ]
    );
    assert_eq!(server.secrets("copies").await, kept);
    let again = moved.run(lab, "rollback", &[]).expect(0).json();
    assert_eq!(again["tally"]["kept"], kept, "{again}");
    assert_eq!(again["tally"]["deleted"], 0, "{again}");
}

#[tokio::test]
async fn four_processes_share_a_retirement_whoever_is_killed_or_stopped() {
    let Some(server) = Server::new().await else {
        return;
    };
    let mut random = random();
    let lab = Lab::empty();
    let moved = Moved::new(&server, SECRETS).await;
    moved.run(&lab, "copy", &[]).expect(0);
    change(&server).await;
    let kept = SECRETS / CHANGED;
    let arguments = moved.arguments("retire", &["--all-references", "--json"]);
    let mut crowd = Crowd::new(&server, &lab, arguments).with_lease(LEASE);
    crowd.start_all(&SLOW);
    crowd.troubles(&mut random, EARLY, &SLOW);
    assert_eq!(
        server.secrets("secrets").await,
        SECRETS,
        "these met no proof"
    );
    server
        .until(&format!(
            "SELECT 1 WHERE (SELECT COUNT(*) FROM {}) < {SECRETS}",
            Server::without_probes("secrets")
        ))
        .await;
    crowd.troubles(&mut random, LATER, &SLOW);
    let half = server.secrets("secrets").await;
    eprintln!("{half} of {SECRETS} were left until then");
    assert!((kept + 1..SECRETS).contains(&half), "these met no deletes");
    crowd.replace_but(1);
    // One counts what remains, when all pages have ended, and all know.
    let ended = crowd.end(1);
    drop(crowd);
    let mut counted = 0;
    for ran in &ended {
        let report = ran.json();
        assert_eq!(report["stopped"], "remaining", "{report}");
        if report["stopped_by_another"] == false {
            assert_eq!(report["tally"]["remaining"], kept, "{report}");
            counted += 1;
        }
    }
    assert!(counted > 0, "nobody counted");
    assert_eq!(server.secrets("secrets").await, kept);
    assert_eq!(server.secrets("copies").await, SECRETS);
    let lost = server
        .texts(
            "SELECT coordinate FROM secrets WHERE payload NOT LIKE '%!' \
             UNION SELECT coordinate FROM migrate_secret WHERE state || intent <> 'written1'",
        )
        .await;
    assert_eq!(lost, Vec::<String>::new());
    let again = moved.run(&lab, "retire", &["--all-references"]).expect(1);
    let again = again.json();
    assert_eq!(again["tally"]["deleted"], 0, "{again}");
    assert_eq!(again["tally"]["remaining"], kept, "{again}");
    server.drop().await;
}
