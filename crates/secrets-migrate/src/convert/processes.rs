//! Conversions by several processes, of which some are slow, paused or gone.

// Clippy does not see that the module is one of tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{Coordinate, SecretPersistenceExt as _, SecretValue};
use secret_persistence_db::{
    Config, Database, EncryptOptions, KeyRing, Range, RotateOptions, SETTINGS,
};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Convert, ConvertJournal, ConvertReport, ConvertStop, DAMAGED, ROWS};
use crate::collect::lapses::Place;
use crate::journal::passes::{Claimed, Turn};
use crate::{
    Cancellation, Member, MigrateErrorKind, MigrateOptions, MigrateResult, SharedWork, SqlJournal,
};

/// Longer than a case takes.
const LONG: Duration = Duration::from_secs(600);

/// Short: it ends while the test sleeps.
const SHORT: Duration = Duration::from_millis(400);

/// So many that there are four ranges.
const ALL: u64 = 3 * ROWS as u64 + 7;

/// Two ranges, and a part of a third.
const HALF: u64 = 2 * ROWS as u64 + 500;

async fn run(connection: &mut PgConnection, sql: &str) {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql));
    sql.execute(connection).await.unwrap();
}

async fn number(connection: &mut PgConnection, sql: &str) -> u64 {
    let number: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .unwrap();
    number.unsigned_abs()
}

/// A plain table, of which each row counts how often it was changed.
struct Site {
    place: Place,
    connection: PgConnection,
    ring: KeyRing,
}

impl Site {
    async fn new() -> Option<Self> {
        let place = Place::new().await?;
        let mut connection = place.connect().await;
        run(
            &mut connection,
            &format!(
                "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT); \
                 INSERT INTO secrets SELECT 'airbyte_workspace_1_secret_' || n || '_v1', 'value ' || n \
                 FROM generate_series(1, {ALL}) AS n"
            ),
        )
        .await;
        let site = Self {
            place,
            connection,
            ring: KeyRing::generate("k1".parse().unwrap()).unwrap(),
        };
        Database::prepare(&site.config()).await.unwrap();
        Some(site)
    }

    /// From now on, each change of a row is noted.
    async fn watch(&mut self) {
        run(
            &mut self.connection,
            "CREATE TABLE changes (coordinate TEXT); \
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                INSERT INTO changes VALUES (NEW.coordinate); RETURN NULL; END $$; \
             CREATE TRIGGER note AFTER UPDATE ON secrets FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await;
    }

    /// How often the rows were changed in all, and at most each.
    async fn changes(&mut self) -> (u64, u64) {
        let all = number(&mut self.connection, "SELECT COUNT(*) FROM changes").await;
        let most = "SELECT COALESCE(MAX(times), 0) FROM ( \
                    SELECT COUNT(*) AS times FROM changes GROUP BY coordinate) AS counted";
        (all, number(&mut self.connection, most).await)
    }

    fn config(&self) -> Config {
        // One connection, which is in use while it rewrites the table.
        let url = format!(
            "{}?table=secrets&mode=encrypted&pool-size=1",
            self.place.url()
        );
        let url = StoreUrl::parse(&url).unwrap();
        let variables = |name: &str| self.place.variable(name);
        let mut settings = SETTINGS.from_url(&url, &variables).unwrap();
        settings
            .set_by_operator("keyring", self.ring.to_text())
            .unwrap();
        Config::from_settings(&settings).unwrap()
    }

    async fn journal(&self) -> Arc<ConvertJournal> {
        let variables = |name: &str| self.place.variable(name);
        let journal = ConvertJournal::open(&self.place.url(), &variables).await;
        Arc::new(journal.unwrap())
    }

    async fn process(&self, what: What, lease: Duration) -> Process {
        let journal = self.journal().await;
        let database = Database::connect(self.config()).await.unwrap();
        let convert = match what {
            What::Encrypt { rewrite } => {
                let options = EncryptOptions::default()
                    .with_nothing_else_reads(true)
                    .with_rewrite(rewrite);
                Convert::encryption(&database, &options, Arc::clone(&journal)).await
            }
            What::Rotate { reencrypt } => {
                let options = RotateOptions::default().with_reencrypt(reencrypt);
                Convert::rotation(&database, &options, Arc::clone(&journal)).await
            }
        };
        let cancellation = Cancellation::new();
        Process {
            convert: convert
                .unwrap()
                .with_options(MigrateOptions::default().with_lease(lease))
                .with_cancellation(cancellation.clone()),
            database,
            journal,
            cancellation,
        }
    }

    /// A second key, which is active from now on.
    fn activate(&mut self) {
        self.ring.add("k2".parse().unwrap()).unwrap();
        self.ring.activate(&"k2".parse().unwrap()).unwrap();
    }

    /// Every value is what it was.
    async fn expect_values(&self) {
        let store = Database::connect(self.config()).await.unwrap();
        let names: Vec<Coordinate> = (1..=ALL)
            .map(|n| Coordinate::parse(&format!("airbyte_workspace_1_secret_{n}_v1")).unwrap())
            .collect();
        for (n, read) in (1..=ALL).zip(store.read_many(&names).await) {
            assert_eq!(read.unwrap().value, SecretValue::new(format!("value {n}")));
        }
        store.close().await;
    }
}

#[derive(Clone, Copy)]
enum What {
    Encrypt { rewrite: bool },
    Rotate { reencrypt: bool },
}

struct Process {
    convert: Convert,
    database: Database,
    journal: Arc<ConvertJournal>,
    cancellation: Cancellation,
}

impl Process {
    async fn run(self) -> MigrateResult<ConvertReport> {
        let report = self.convert.run(&|_| ()).await;
        self.close().await;
        report
    }

    /// Stops after its first rows.
    async fn run_a_little(self) -> ConvertReport {
        let told = AtomicU64::new(0);
        let tell = |rows| {
            told.fetch_add(rows, Ordering::Relaxed);
            self.cancellation.cancel();
        };
        let report = self.convert.run(&tell).await.unwrap();
        assert_eq!(report.stopped, Some(ConvertStop::Cancelled));
        assert_eq!(report.converted, told.load(Ordering::Relaxed));
        self.close().await;
        report
    }

    /// Stops after so many rows, as if it was killed.
    async fn run_until(self, rows: u64) {
        let told = AtomicU64::new(0);
        let tell = |more| {
            if told.fetch_add(more, Ordering::Relaxed) + more == rows {
                self.cancellation.cancel();
            }
        };
        let stopped = self.convert.run(&tell).await.unwrap();
        assert_eq!(stopped.converted, rows);
        self.close().await;
    }

    async fn close(&self) {
        self.database.close().await;
        self.journal.close().await;
    }
}

#[tokio::test]
async fn several_encrypt_and_rotate_each_row_once() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    site.watch().await;
    let mut changes = 0;
    for what in [
        What::Encrypt { rewrite: false },
        What::Rotate { reencrypt: false },
        What::Rotate { reencrypt: true },
    ] {
        if let What::Rotate { reencrypt: false } = what {
            site.activate();
        }
        let stopped = site.process(what, LONG).await.run_a_little().await;
        let (one, two, three) = (
            site.process(what, LONG).await,
            site.process(what, LONG).await,
            site.process(what, LONG).await,
        );
        let (one, two, three) = tokio::join!(one.run(), two.run(), three.run());
        let reports = [one.unwrap(), two.unwrap(), three.unwrap()];
        let ended = reports.iter().filter(|report| report.ended.is_some());
        assert_eq!(ended.count(), 1, "{reports:?}");
        let converted: u64 = reports.iter().map(|report| report.converted).sum();
        let done = stopped.converted + converted;
        if let What::Rotate { reencrypt: true } = what {
            // No row shows that it was done: what one gives back is done again.
            assert_eq!(converted, ALL, "{reports:?}");
        } else {
            assert_eq!(done, ALL, "{reports:?}");
        }
        changes += done;
        assert_eq!(site.changes().await.0, changes);
        let command = ["encrypt", "rotate"][usize::from(changes > ALL)];
        let variables = |name: &str| site.place.variable(name);
        let status = SqlJournal::status(&site.place.url(), &variables).await;
        let status = status.unwrap().convert.unwrap();
        assert_eq!(
            (status.command.as_str(), status.phase.as_str()),
            (command, "ended")
        );
        assert_eq!((status.secrets, status.remaining), (ALL, 0));
    }
    site.expect_values().await;

    // Whoever comes a moment after others have done it has nothing to do; encrypting looks again.
    let late = site.process(What::Rotate { reencrypt: true }, LONG).await;
    let late = late.run().await.unwrap();
    assert_eq!((late.converted, late.stopped), (0, None));
    run(
        &mut site.connection,
        "INSERT INTO secrets VALUES ('airbyte_workspace_1_secret_0_v1', 'late')",
    )
    .await;
    let again = site.process(What::Encrypt { rewrite: false }, LONG).await;
    assert_eq!(again.run().await.unwrap().converted, 1);
    site.place.drop().await;
}

/// All were killed. Those that come later begin with the first range that had not ended.
#[tokio::test]
async fn a_reencryption_goes_on_where_all_were_killed() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    let encrypt = site.process(What::Encrypt { rewrite: false }, LONG).await;
    encrypt.run().await.unwrap();
    site.watch().await;
    let what = What::Rotate { reencrypt: true };
    // Two ranges have ended, and a third has begun.
    let process = site.process(what, SHORT).await;
    process.run_until(HALF).await;
    tokio::time::sleep(SHORT * 2).await;
    let next = site.process(what, LONG).await.run().await.unwrap();
    assert_eq!(next.converted, ALL - 2 * ROWS as u64);
    assert_eq!(site.changes().await, (ALL + 500, 2));
    let positions = "SELECT COUNT(*) FROM convert_position";
    assert_eq!(number(&mut site.connection, positions).await, 0);
    site.expect_values().await;
    site.place.drop().await;
}

/// After a leak, every value needs a new data key. What an earlier run had done long ago, or before another
/// one that has ended, would keep those that leaked.
#[tokio::test]
async fn a_position_that_is_left_over_keeps_no_data_key() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    let encrypt = site.process(What::Encrypt { rewrite: false }, LONG).await;
    encrypt.run().await.unwrap();
    let what = What::Rotate { reencrypt: true };
    for meanwhile in ["one process alone", "a day"] {
        site.process(what, SHORT).await.run_until(HALF).await;
        if meanwhile == "a day" {
            run(
                &mut site.connection,
                "UPDATE convert_position SET reached = reached - interval '25 hours'",
            )
            .await;
        } else {
            let options = RotateOptions::default().with_reencrypt(true);
            let alone = Database::connect(site.config()).await.unwrap();
            let rotated = alone.rotate(&options, &|_| {}).await.unwrap();
            assert_eq!(rotated.rotated, ALL);
            alone.close().await;
        }
        run(
            &mut site.connection,
            "CREATE TABLE leaked AS SELECT coordinate, ciphertext FROM secrets",
        )
        .await;
        tokio::time::sleep(SHORT * 2).await;
        let next = site.process(what, SHORT).await.run().await.unwrap();
        assert_eq!(next.converted, ALL, "{meanwhile}");
        let kept = "SELECT COUNT(*) FROM secrets JOIN leaked USING (coordinate, ciphertext)";
        assert_eq!(number(&mut site.connection, kept).await, 0, "{meanwhile}");
        run(&mut site.connection, "DROP TABLE leaked").await;
        tokio::time::sleep(SHORT * 2).await;
    }
    // Those of a re-encryption that ended without this journal go when they are void for their age.
    let positions = "SELECT COUNT(*) FROM convert_position";
    assert_eq!(number(&mut site.connection, positions).await, 0);
    site.expect_values().await;
    site.place.drop().await;
}

/// A service may keep its journal open for months.
#[tokio::test]
async fn a_process_encrypts_again_whenever_it_is_told() {
    let Some(site) = Site::new().await else {
        return;
    };
    let encrypt = site.process(What::Encrypt { rewrite: false }, LONG).await;
    encrypt.run().await.unwrap();
    let process = site.process(What::Rotate { reencrypt: true }, SHORT).await;
    for _ in 0..2 {
        let report = process.convert.run(&|_| {}).await.unwrap();
        assert_eq!(report.converted, ALL);
        tokio::time::sleep(SHORT * 2).await;
    }
    process.close().await;
    site.place.drop().await;
}

/// Each command rewrites the table once, whenever its processes start: a large table takes hours.
#[tokio::test]
async fn a_process_that_comes_late_does_not_rewrite_the_table_again() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    // `VACUUM FULL` gives the table another file.
    let file = "SELECT CAST(pg_relation_filenode('secrets') AS BIGINT)";
    let mut files = vec![number(&mut site.connection, file).await];
    let mut rewritings = async |site: &mut Site, late: Process| {
        let report = late.run().await.unwrap();
        let now = number(&mut site.connection, file).await;
        let is_rewritten = !files.contains(&now);
        files.push(now);
        let says = report.ended.is_some_and(|ended| ended.rewritten);
        assert_eq!(says, is_rewritten);
        (report.converted, is_rewritten)
    };
    let what = What::Encrypt { rewrite: true };
    let late = site.process(what, SHORT).await;
    let first = site.process(what, SHORT).await;
    assert_eq!(rewritings(&mut site, first).await, (ALL, true));
    // It began before that ended, and takes longer than a lease to come.
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(rewritings(&mut site, late).await, (0, false));
    // It begins after that, but less than a lease.
    let first = site.process(what, LONG).await;
    assert_eq!(rewritings(&mut site, first).await, (0, true));
    let late = site.process(what, LONG).await;
    assert_eq!(rewritings(&mut site, late).await, (0, false));
    // A damaged row is no reason, and a plain one is.
    run(
        &mut site.connection,
        "INSERT INTO secrets (coordinate, payload, key_id) VALUES ('a', 'damaged', 'k1')",
    )
    .await;
    let late = site.process(what, LONG).await;
    assert_eq!(rewritings(&mut site, late).await, (0, false));
    run(
        &mut site.connection,
        "INSERT INTO secrets (coordinate, payload) VALUES ('b', 'plain')",
    )
    .await;
    let late = site.process(what, LONG).await;
    assert_eq!(rewritings(&mut site, late).await, (1, true));
    site.place.drop().await;
}

/// `VACUUM FULL` waits for a reader for several leases, and nobody else begins it too.
#[tokio::test]
async fn a_rewriting_that_takes_long_is_progress() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    let what = What::Encrypt { rewrite: true };
    let lease = Duration::from_secs(5);
    site.process(What::Encrypt { rewrite: false }, lease)
        .await
        .run()
        .await
        .unwrap();
    run(
        &mut site.connection,
        "BEGIN; LOCK TABLE secrets IN ACCESS SHARE MODE",
    )
    .await;
    let (one, two) = (
        site.process(what, lease).await,
        site.process(what, lease).await,
    );
    let reader = async {
        tokio::time::sleep(lease * 3).await;
        run(&mut site.connection, "COMMIT").await;
    };
    let (one, two, ()) = tokio::join!(one.run(), two.run(), reader);
    let reports = [one.unwrap(), two.unwrap()];
    let ended: Vec<bool> = reports
        .iter()
        .filter_map(|report| Some(report.ended.as_ref()?.rewritten))
        .collect();
    assert_eq!(ended, [true], "{reports:?}");
    let claims = "SELECT epoch FROM convert_page WHERE upto IS NULL AND page > 0";
    assert_eq!(number(&mut site.connection, claims).await, 1);
    site.place.drop().await;
}

/// Whatever processes would do to each other is refused: another key, another option, another command.
#[tokio::test]
async fn processes_share_only_the_same_conversion() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    let first = site.journal().await;
    let what = What::Encrypt { rewrite: false };
    let process = site.process(what, LONG).await;
    let work = process.convert.work.clone();
    first.passes().join(&work, "first", LONG).await.unwrap();
    site.activate();
    for other in [
        What::Encrypt { rewrite: true },
        what,
        What::Rotate { reencrypt: false },
    ] {
        let other = site.process(other, LONG).await.run().await;
        let error = other.expect_err("another one is at work");
        assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
    }
    process.close().await;
    first.close().await;
    site.place.drop().await;
}

/// On another host, the address may lead to another table.
#[tokio::test]
async fn another_table_with_the_same_address_is_refused() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    let first = site.journal().await;
    let what = What::Encrypt { rewrite: false };
    let process = site.process(what, LONG).await;
    let work = process.convert.work.clone();
    first.passes().join(&work, "first", LONG).await.unwrap();
    assert_eq!(site.process(what, LONG).await.convert.work, work);
    run(
        &mut site.connection,
        "UPDATE secrets_meta SET value = 'another' WHERE name = 'table'",
    )
    .await;
    let other = site.process(what, LONG).await.run().await;
    let error = other.expect_err("it is another table");
    assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
    process.close().await;
    first.close().await;
    site.place.drop().await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_file_is_not_shared() {
    let Some(site) = Site::new().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.db");
    let url = format!("sqlite:{}?table=secrets&mode=encrypted", path.display());
    let mut settings = SETTINGS
        .from_url(&StoreUrl::parse(&url).unwrap(), &|_| None)
        .unwrap();
    settings
        .set_by_operator("keyring", site.ring.to_text())
        .unwrap();
    let database = Database::connect(Config::from_settings(&settings).unwrap())
        .await
        .unwrap();
    let journal = site.journal().await;
    let options = EncryptOptions::default().with_nothing_else_reads(true);
    let error = Convert::encryption(&database, &options, Arc::clone(&journal))
        .await
        .expect_err("another host has another file");
    assert!(
        format!("{error:?}").contains("do not share a file"),
        "{error:?}"
    );
    database.close().await;
    journal.close().await;
    site.place.drop().await;
}

/// Damaged rows stop nobody, and every process knows of them.
#[tokio::test]
async fn damaged_rows_are_known_to_all() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    run(
        &mut site.connection,
        "UPDATE secrets SET key_id = 'k1' WHERE payload IN ('value 5', 'value 6')",
    )
    .await;
    let what = What::Encrypt { rewrite: false };
    let (one, two) = (
        site.process(what, LONG).await,
        site.process(what, LONG).await,
    );
    let store = one.database.to_string();
    let (one, two) = tokio::join!(one.run(), two.run());
    let reports = [one.unwrap(), two.unwrap()];
    for failure in reports.iter().flat_map(|report| &report.failures) {
        assert!(failure.contains(&store), "{failure}");
    }
    assert_eq!(reports[0].converted + reports[1].converted, ALL - 2);
    for report in &reports {
        assert!(report.damaged > 0 || report.others_damaged, "{report:?}");
        if report.ended.is_some() {
            assert_eq!((report.damaged, report.failures.len()), (2, 2));
        }
        let shown = format!("{report:?}");
        assert!(!shown.contains("value 5"), "{shown}");
    }
    site.place.drop().await;
}

async fn claim(journal: &ConvertJournal, member: &Member) -> Claimed {
    match journal.passes().claim(member).await.unwrap() {
        Turn::Page(page) => page,
        other => panic!("no page: {other:?}"),
    }
}

fn lapses<T: std::fmt::Debug>(result: MigrateResult<T>) {
    let error = result.expect_err("another process has taken it over");
    assert_eq!(error.kind(), MigrateErrorKind::Lapsed);
}

fn range(after: Option<&str>, upto: &str) -> (Range, u64) {
    let range = Range::new(after.map(str::to_owned), Some(upto.to_owned()));
    (range, 10)
}

/// The re-encryption of some ranges.
const ID: u64 = 7;

#[tokio::test]
async fn whoever_lapsed_changes_nothing() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    let (slow, quick) = (site.journal().await, site.journal().await);
    let work = SharedWork::new("rotate", "settings");
    let member = quick.passes().join(&work, "quick", LONG).await.unwrap();
    let other = slow.passes().join(&work, "slow", SHORT).await.unwrap();
    // In the order of the table, which is not that of the bytes.
    let ranges = || {
        vec![
            range(None, "b"),
            range(Some("b"), "B"),
            range(Some("B"), "c"),
        ]
    };
    let stale = claim(&slow, &other).await.claim;
    tokio::time::sleep(SHORT * 2).await;
    let first = claim(&quick, &member).await.claim;
    lapses(slow.lay_out(stale, ID, ranges()).await);
    quick.lay_out(first, ID, ranges()).await.unwrap();
    lapses(quick.lay_out(first, ID, ranges()).await);

    // The slow one has the first range, and the quick one ends the second: the first is not done.
    let stale = claim(&slow, &other).await;
    assert_eq!((stale.after, stale.upto.as_deref()), (None, Some("b")));
    let second = claim(&quick, &member).await;
    assert_eq!(second.after.as_deref(), Some("b"));
    assert_eq!(second.upto.as_deref(), Some("B"));
    quick
        .finish(second.claim, Some(DAMAGED), true)
        .await
        .unwrap();
    assert_eq!(quick.position(ID).await.unwrap(), None);
    tokio::time::sleep(SHORT * 2).await;
    let again = claim(&quick, &member).await;
    assert_eq!(again.upto.as_deref(), Some("b"));
    lapses(slow.finish(stale.claim, None, true).await);
    assert_eq!(quick.position(ID).await.unwrap(), None);
    quick.finish(again.claim, None, true).await.unwrap();
    assert_eq!(quick.position(ID).await.unwrap().as_deref(), Some("B"));
    assert_eq!(quick.position(ID + 1).await.unwrap(), None);

    // Nobody ends the conversion before the last range has ended.
    let third = claim(&quick, &member).await;
    assert_eq!(third.upto.as_deref(), Some("c"));
    let wait = slow.passes().claim(&other).await.unwrap();
    assert!(matches!(wait, Turn::Wait), "{wait:?}");
    quick.finish(third.claim, None, true).await.unwrap();
    assert_eq!(quick.position(ID).await.unwrap().as_deref(), Some("B"));
    let stale = claim(&slow, &other).await;
    assert_eq!(stale.upto, None);
    tokio::time::sleep(SHORT * 2).await;
    let last = claim(&quick, &member).await;
    lapses(slow.finish_last(stale.claim, None).await);
    assert!(quick.position(ID).await.unwrap().is_some());
    quick.finish_last(last.claim, None).await.unwrap();
    assert_eq!(quick.position(ID).await.unwrap(), None);
    for process in [&quick, &slow] {
        let ended = process.passes().claim(&member).await.unwrap();
        assert!(
            matches!(&ended, Turn::Ended(found) if found == &[DAMAGED]),
            "{ended:?}"
        );
        let again = process.passes();
        let again = again.join_recent(&work, "late", LONG, Duration::ZERO).await;
        assert_eq!(again.unwrap().pass, member.pass);
    }
    // Whoever asks with a longer lease does not change how long ago it ended.
    let late = Member::new(member.pass, "late", LONG * 36);
    let ended = quick.passes().claim(&late).await.unwrap();
    assert!(matches!(ended, Turn::Ended(_)), "{ended:?}");
    let left = "SELECT CAST(extract(epoch FROM until - now()) AS BIGINT) FROM convert_pass";
    assert!(number(&mut site.connection, left).await <= LONG.as_secs());
    for process in [&quick, &slow] {
        process.close().await;
    }
    site.place.drop().await;
}
