//! Collect by several processes.

use serde_json::json;
use sqlx::Connection as _;

use super::crowd::{Crowd, Gate, words};
use super::{EARLY, LATER, LEASE, random, rounds};
use crate::lab::{Lab, Ran};
use crate::postgres::Server;

const USED: u64 = 10_000;
const ORPHANS: u64 = 8_000;
const EXPIRED: u64 = 500;
/// Of this installation and of others, which stay.
const YOUNG: u64 = 300;
const FOREIGN: u64 = 700;
const PER_CONFIGURATION: u64 = 5;

/// How many deletes may be sent between two troubles. So many secrets are in one at most.
const GRANTED: u64 = 2;
const PAGE: u64 = 256;

/// Secrets of two installations, and the configurations that name some of them.
struct Site<'t> {
    server: &'t Server,
}

impl<'t> Site<'t> {
    async fn new(server: &'t Server) -> Self {
        let name = |kind: &str| {
            format!(
                "'airbyte_workspace_00000000-0000-0000-0000-000000000007_secret_' \
                 || md5('{kind}' || n)::uuid || '_v1'"
            )
        };
        let secrets = |kind: &str, owner: &str, age: u32, expires: &str, count: u64| {
            format!(
                "INSERT INTO secrets (coordinate, payload, owner, created, expires) \
                 SELECT {}, '{kind}', '{owner}', extract(epoch FROM now())::bigint - {age}, {expires} \
                 FROM generate_series(1, {count}) AS n",
                name(kind)
            )
        };
        let past = "extract(epoch FROM now())::bigint - 60";
        for sql in [
            "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT, owner TEXT, created BIGINT, \
             expires BIGINT)"
                .to_owned(),
            "CREATE TABLE actor (id INT PRIMARY KEY, configuration JSONB)".to_owned(),
            secrets("used", "lab", 200_000, "NULL", USED),
            secrets("orphan", "lab", 200_000, "NULL", ORPHANS),
            secrets("expired", "lab", 200_000, past, EXPIRED),
            secrets("young", "lab", 0, "NULL", YOUNG),
            secrets("foreign", "staging", 200_000, "NULL", FOREIGN),
            format!(
                "INSERT INTO actor SELECT (n - 1) / {PER_CONFIGURATION}, \
                 jsonb_object_agg('secret' || n, jsonb_build_object('_secret', {})) \
                 FROM generate_series(1, {USED}) AS n GROUP BY 1",
                name("used")
            ),
        ] {
            server.sql(&sql).await;
        }
        Self { server }
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let fixed = [
            "collect",
            "--store",
            &self.server.address("?table=secrets&mode=plain"),
            "--configs",
            &self
                .server
                .address("?table=actor&id=id&configuration=configuration"),
            "--journal",
            &self.server.address(""),
            "--json",
        ];
        words(&[&fixed, more])
    }

    fn run(&self, lab: &Lab, more: &[&str]) -> Ran {
        self.server.run(lab, &self.arguments(more))
    }

    /// A day and an hour pass for what the runs have seen.
    async fn wait(&self) {
        let sql = "UPDATE collect_secret SET since = since - 90000";
        self.server.sql(sql).await;
    }

    /// How many secrets of each kind are there.
    async fn kinds(&self) -> Vec<String> {
        let sql = "SELECT payload || ' ' || COUNT(*) FROM secrets GROUP BY payload ORDER BY 1";
        self.server.texts(sql).await
    }
}

const DELETE: [&str; 4] = ["--delete", "--all-references", "--max-share", "50"];

#[tokio::test]
async fn four_processes_collect_exactly_the_superfluous_whoever_is_killed_or_stopped() {
    let Some(server) = Server::new().await else {
        return;
    };
    let mut random = random();
    let lab = Lab::empty();
    let site = Site::new(&server).await;
    let all = USED + ORPHANS + EXPIRED + YOUNG + FOREIGN;
    let first = site.run(&lab, &[]).expect(0).json();
    assert_eq!(first["waiting"], ORPHANS, "{first}");
    site.wait().await;
    let gate = Gate::before(&server, "DELETE", "secrets").await;
    // Nothing is listed until the early troubles are over, and nothing deleted until it is granted.
    let listing = server.hold("collect_secret").await;
    let mut crowd = Crowd::new(&server, &lab, site.arguments(&DELETE)).with_lease(LEASE);
    crowd.start_all(&[]);
    server
        .until("SELECT worker FROM collect_page WHERE page = 0 AND worker IS NOT NULL")
        .await;
    crowd.troubles(&mut random, EARLY, &[]);
    listing.close().await.unwrap();
    crowd
        .until("SELECT worker FROM collect_page WHERE page > 0 AND worker IS NOT NULL")
        .await;
    assert_eq!(server.count("secrets").await, all);
    let status = ["status", "--json", "--journal", &server.address("")];
    let status = server.run(&lab, &status).expect(0).json();
    assert_eq!(status["collect"]["phase"], "working", "{status}");
    assert_eq!(
        status["collect"]["remaining"],
        ORPHANS + EXPIRED,
        "{status}"
    );
    for one in rounds() {
        crowd.troubles(&mut random, one, &[]);
        gate.grant(GRANTED).await;
        gate.until_used_up(&mut crowd).await;
        let kinds = site.kinds().await;
        for kept in [format!("used {USED}"), format!("young {YOUNG}")] {
            assert!(kinds.contains(&kept), "{kinds:?}");
        }
    }
    let half = server.count("secrets").await;
    let most = GRANTED * PAGE * LATER.0 as u64;
    assert!((all - most..all).contains(&half), "these met no deletes");
    crowd.replace_but(1);
    gate.open().await;
    crowd.end(0);
    drop(crowd);
    assert_eq!(
        site.kinds().await,
        [
            format!("foreign {FOREIGN}"),
            format!("used {USED}"),
            format!("young {YOUNG}")
        ]
    );
    assert_eq!(server.count("collect_secret").await, 0);
    let again = site.run(&lab, &DELETE).expect(0).json();
    let expected = (json!(0), json!(USED + YOUNG));
    assert_eq!(
        (&again["deleted"], &again["owned"]),
        (&expected.0, &expected.1)
    );
    server.drop().await;
}

#[tokio::test]
async fn what_one_process_finds_keeps_all_from_deleting() {
    let Some(server) = Server::new().await else {
        return;
    };
    let lab = Lab::empty();
    let site = Site::new(&server).await;
    let all = site.kinds().await;
    site.run(&lab, &[]).expect(0);
    site.wait().await;
    // More than a tenth would go, and then a place could mean any secret.
    for (status, stop) in [(3, "share"), (3, "unreadable")] {
        let workers = ["--delete", "--all-references", "--workers", "3"];
        let ran = site.run(&lab, &workers).expect(status).json();
        let reports = ran["workers"].as_array().unwrap();
        assert_eq!(reports.len(), 3, "{ran}");
        let mut found = 0;
        for report in reports {
            assert_eq!(report["stopped"], stop, "{ran}");
            assert_eq!(report["deleted"], 0, "{ran}");
            found += u32::from(report["stopped_by_another"] == false);
        }
        assert!(found > 0, "nobody found it: {ran}");
        assert_eq!(site.kinds().await, all);
        server
            .sql(
                "INSERT INTO actor VALUES (-1, '{\"a\": {\"_secret\": 5}}') ON CONFLICT DO NOTHING",
            )
            .await;
    }
    let preview = site.run(&lab, &["--workers", "2"]).expect(2);
    preview.says("--workers needs");
    server.drop().await;
}
