//! Who read a secret last, and from when on the ledger knows.

use std::collections::BTreeSet;
use std::time::Duration;

use secret_persistence_core::{
    Actor, AuditEvent, AuditSink, Coordinate, ErrorKind, LastReads, Operation, ReadHistory,
    StorageId, Timestamp,
};
use secret_persistence_db::{Ledger, LedgerReader};

use super::Home;
use super::prune::until_closed;
use crate::support::{Raw, managed};

fn name(number: usize) -> Coordinate {
    Coordinate::Managed(managed(number))
}

fn ago(seconds: u64) -> Timestamp {
    Timestamp::now().saturating_sub(Duration::from_secs(seconds))
}

fn read(number: usize, actor: &str, at: Timestamp) -> AuditEvent {
    let mut event = AuditEvent::new(Actor::new(actor), Operation::Read, name(number));
    event.at = at;
    event
}

impl Home {
    /// What the ledger knows about these secrets.
    async fn asked(&self, numbers: std::ops::Range<usize>) -> LastReads {
        let names: BTreeSet<Coordinate> = numbers.map(name).collect();
        self.reader().await.last_reads(&names).await.unwrap()
    }
}

/// Secret, time, actor, whether the line is genuine.
fn told(found: &LastReads) -> Vec<(&str, Timestamp, Option<&str>, bool)> {
    found
        .reads
        .iter()
        .map(|(name, read)| {
            let actor = read.actor.as_ref().map(Actor::as_str);
            (name.as_str(), read.at, actor, read.genuine)
        })
        .collect()
}

#[tokio::test]
async fn the_last_read_is_told_and_what_was_no_read_is_not() {
    // Whoever chooses a name must not become a read, or hide one.
    let hostile = r#"otto","operation":"read","outcome":"ok","#;
    for home in Home::all("the_last_read_is_told").await {
        let (one, other) = (home.ledger(), home.ledger());
        let (first, later, last) = (ago(500), ago(300), ago(100));
        let mut events = vec![
            read(1, "maria", later),
            read(1, "maria", first),
            read(2, "paul", first),
            read(9, "maria", last),
        ];
        for operation in [Operation::Write, Operation::Describe, Operation::Delete] {
            for number in [1, 2, 3] {
                let mut event = AuditEvent::new(Actor::new(hostile), operation, name(number));
                event.at = last;
                events.push(event);
            }
        }
        let failed = |number| {
            let event = read(number, hostile, last);
            event.with_failure(Some(ErrorKind::NotFound))
        };
        events.extend([failed(1), failed(4)]);
        one.record(&events).await.unwrap();
        other.record(&[read(2, hostile, later)]).await.unwrap();

        let found = home.asked(1..6).await;
        assert_eq!(
            told(&found),
            [
                (name(1).as_str(), later, Some("maria"), true),
                (name(2).as_str(), later, Some(hostile), true),
            ],
            "{}",
            home.url
        );
        assert_eq!(found.since, Some(first), "{}", home.url);
        // No name, no read; the beginning is known nevertheless.
        let none = home.asked(0..0).await;
        assert_eq!((none.reads.len(), none.since), (0, Some(first)));
    }
}

/// A name that others manage is another secret in the store of another tenant, who must not learn who reads it.
#[tokio::test]
async fn of_a_name_that_others_manage_only_reads_from_the_default_storage_count() {
    let external = Coordinate::parse("prod/db").unwrap();
    for home in Home::all("only_reads_from_the_default_storage").await {
        let of = |name: &Coordinate, storage: Option<&str>, seconds| {
            let mut event = read(1, storage.unwrap_or("default"), ago(seconds));
            event.location.coordinate = name.clone();
            event.location.storage_id = storage.map(|id| StorageId::parse(id).unwrap());
            event
        };
        let ledger = home.ledger();
        // A name of ours is one secret, in whichever storage.
        let events = [
            of(&external, Some("tenant"), 500),
            of(&name(1), Some("tenant"), 500),
        ];
        ledger.record(&events).await.unwrap();
        let names = BTreeSet::from([external.clone(), name(1)]);
        let asked = async || home.reader().await.last_reads(&names).await.unwrap();
        let actors = |found: &LastReads| -> Vec<(String, String)> {
            told(found)
                .iter()
                .map(|(name, _, actor, _)| ((*name).to_owned(), actor.unwrap().to_owned()))
                .collect()
        };
        let ours = (name(1).as_str().to_owned(), "tenant".to_owned());
        assert_eq!(
            actors(&asked().await),
            std::slice::from_ref(&ours),
            "{}",
            home.url
        );
        // A later read of the other one does not hide an earlier one of this one.
        let events = [of(&external, None, 300), of(&external, Some("tenant"), 100)];
        ledger.record(&events).await.unwrap();
        let theirs = ("prod/db".to_owned(), "default".to_owned());
        assert_eq!(actors(&asked().await), [theirs, ours], "{}", home.url);
    }
}

const INDEXES_OF_SQLITE: &str =
    "SELECT count(*) FROM sqlite_master WHERE name = 'secret_ledger_reads'";
#[cfg(feature = "postgres")]
const INDEXES_OF_POSTGRES: &str = "SELECT count(*) FROM pg_index
     JOIN pg_class ON pg_class.oid = indexrelid
     WHERE indrelid = 'secret_ledger'::regclass AND relname = 'secret_ledger_reads'";

fn indexes(raw: &Raw) -> &'static str {
    match raw {
        Raw::Sqlite(_) => INDEXES_OF_SQLITE,
        #[cfg(feature = "postgres")]
        Raw::Postgres(_) => INDEXES_OF_POSTGRES,
    }
}

#[tokio::test]
async fn a_ledger_of_an_earlier_build_gets_the_index_of_reads() {
    for home in Home::all("a_ledger_of_an_earlier_build").await {
        let Some(raw) = home.raw().await else {
            continue;
        };
        home.ledger().ready().await.unwrap();
        let sql = indexes(&raw);
        assert_eq!(raw.number(sql).await, 1, "{}", home.url);
        raw.run("DROP INDEX secret_ledger_reads").await.unwrap();
        // Who only reads cannot add it, and gets an answer nevertheless.
        assert_eq!(home.asked(1..2).await, LastReads::default());
        assert_eq!(raw.number(sql).await, 0, "{}", home.url);
        home.ledger().ready().await.unwrap();
        assert_eq!(raw.number(sql).await, 1, "{}", home.url);
    }
}

/// It would be an outage if values could not be handed out for want of an index.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn an_index_that_cannot_be_made_keeps_no_line_out() {
    for home in Home::all("an_index_that_cannot_be_made").await {
        let Some(Raw::Postgres(pool)) = home.raw().await else {
            continue;
        };
        home.ledger().ready().await.unwrap();
        let raw = Raw::Postgres(pool.clone());
        raw.run("DROP INDEX secret_ledger_reads").await.unwrap();
        let mut writer = pool.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE secret_ledger IN ROW EXCLUSIVE MODE")
            .execute(&mut *writer)
            .await
            .unwrap();
        let line = read(1, "maria", ago(5));
        home.ledger().record(&[line]).await.unwrap();
        assert_eq!(raw.number(INDEXES_OF_POSTGRES).await, 0);
        writer.rollback().await.unwrap();
        assert_eq!(told(&home.asked(1..2).await).len(), 1);
    }
}

/// Each list of ages writes a line for each secret.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_name_that_is_described_and_never_read_costs_one_look() {
    let described = format!(
        "INSERT INTO secret_ledger (writer, sequence, at, coordinate, line)
         SELECT 'other', number, number, '{}', '{{\"operation\":\"describe\",\"outcome\":\"ok\",}}'
         FROM generate_series(1, 5000) AS number",
        name(1).as_str()
    );
    for home in Home::all("a_name_that_is_described").await {
        let Some(raw @ Raw::Postgres(_)) = home.raw().await else {
            continue;
        };
        // The oldest line is about another name.
        let oldest = read(2, "maria", Timestamp::from_unix_seconds(0).unwrap());
        home.ledger().record(&[oldest]).await.unwrap();
        raw.run(&described).await.unwrap();
        raw.run("ANALYZE secret_ledger").await.unwrap();
        assert!(home.asked(1..2).await.reads.is_empty());
        let of = |what: &str, index: &str| {
            format!(
                "SELECT {what} FROM pg_stat_user_indexes
                 WHERE relid = 'secret_ledger'::regclass AND indexrelname = 'secret_ledger_{index}'"
            )
        };
        // The server counts a moment after the connection ends.
        while raw.number(&of("idx_scan", "reads")).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(raw.number(&of("idx_tup_read", "coordinate")).await, 0);
    }
}

#[tokio::test]
async fn an_empty_ledger_knows_nothing_and_says_so() {
    for home in Home::all("an_empty_ledger_knows_nothing").await {
        home.ledger().ready().await.unwrap();
        assert_eq!(home.asked(1..3).await, LastReads::default(), "{}", home.url);
    }
}

/// A prune takes the proof that something was not read, and the ledger must not pretend to have it.
#[tokio::test]
async fn what_was_pruned_is_no_proof_that_nothing_was_read() {
    for home in Home::all("what_was_pruned_is_no_proof").await {
        let (old, late, young) = (ago(900), ago(800), ago(100));
        // One byte: every write has a file of its own. The times are not in order, as those of calls
        // that end at the same time.
        let ledger = Ledger::new(home.config_with(&home.ring, "?file-bytes=1")).unwrap();
        for event in [
            read(1, "maria", late),
            read(2, "maria", old),
            read(3, "maria", young),
        ] {
            ledger.record(&[event]).await.unwrap();
        }
        // A chain of which nothing is pruned, although it is older: its first line is young.
        let other = Ledger::new(home.config_with(&home.ring, "?file-bytes=1")).unwrap();
        other.record(&[read(4, "paul", young)]).await.unwrap();
        other.record(&[read(5, "paul", old)]).await.unwrap();
        drop(other);
        until_closed(&home).await;
        assert_eq!(home.asked(1..6).await.since, Some(old), "{}", home.url);

        let pruned = home.reader().await.prune(ago(400), &[]).await.unwrap();
        assert_eq!(pruned.lines, 2, "{}", home.url);
        let found = home.asked(1..6).await;
        let names: Vec<&str> = told(&found).iter().map(|(name, ..)| *name).collect();
        let (three, four, five) = (name(3), name(4), name(5));
        let expected = [three.as_str(), four.as_str(), five.as_str()];
        assert_eq!(names, expected, "{}", home.url);
        let since = late.saturating_add(Duration::from_secs(1));
        assert_eq!(found.since, Some(since), "{}", home.url);

        // Of a ledger that has only its mark, too.
        let pruned = home.reader().await.prune(ago(50), &[]).await.unwrap();
        assert!(pruned.lines > 0);
        let since = home.asked(1..2).await.since.unwrap();
        assert!(since > young, "{}", home.url);
    }
}

#[tokio::test]
async fn a_line_that_is_not_genuine_is_called_so_and_proves_no_beginning() {
    for home in Home::all("a_line_that_is_not_genuine").await {
        let events = [read(1, "maria", ago(900)), read(2, "maria", ago(500))];
        home.ledger().record(&events).await.unwrap();
        let genuine = |found: &LastReads| -> Vec<bool> {
            told(found).iter().map(|(.., genuine)| *genuine).collect()
        };
        assert_eq!(genuine(&home.asked(1..3).await), [true, true]);
        tamper(&home, 2, "\"maria\"", "\"otto\"").await;
        let found = home.asked(1..3).await;
        assert_eq!(genuine(&found), [true, false], "{}", home.url);
        assert!(found.since.is_some());
        tamper(&home, 1, "\"maria\"", "\"otto\"").await;
        let found = home.asked(1..3).await;
        assert_eq!(genuine(&found), [false, false], "{}", home.url);
        assert_eq!(found.since, None, "{}", home.url);
        // Not even who: the line is none any more.
        tamper(&home, 2, "\"actor\"", "\"author\"").await;
        let found = home.asked(2..3).await;
        assert_eq!(told(&found)[0].2, None, "{}", home.url);
        assert_eq!(genuine(&found), [false], "{}", home.url);
    }
}

#[tokio::test]
async fn a_mark_that_is_not_genuine_proves_nothing() {
    for home in Home::all("a_mark_that_is_not_genuine").await {
        let ledger = Ledger::new(home.config_with(&home.ring, "?file-bytes=1")).unwrap();
        ledger.record(&[read(1, "maria", ago(900))]).await.unwrap();
        ledger.record(&[read(2, "maria", ago(100))]).await.unwrap();
        drop(ledger);
        until_closed(&home).await;
        let reader = home.reader().await;
        assert_eq!(reader.prune(ago(400), &[]).await.unwrap().lines, 1);
        assert!(home.asked(1..3).await.since.is_some());
        tamper(&home, 1, "\"lines\":1", "\"lines\":2").await;
        assert_eq!(home.asked(1..3).await.since, None, "{}", home.url);
    }
}

/// Without the key of the lines, nothing is certain.
#[tokio::test]
async fn a_line_of_an_unknown_key_is_not_genuine() {
    for home in Home::all("a_line_of_an_unknown_key").await {
        home.ledger()
            .record(&[read(1, "maria", ago(5))])
            .await
            .unwrap();
        let mut renamed = home.ring.clone();
        renamed.add("k9".parse().unwrap()).unwrap();
        renamed.activate(&"k9".parse().unwrap()).unwrap();
        renamed.remove(&"k1".parse().unwrap()).unwrap();
        let reader = LedgerReader::open(&home.config_with(&renamed, ""))
            .await
            .unwrap();
        let found = reader.last_reads(&BTreeSet::from([name(1)])).await.unwrap();
        assert!(!told(&found)[0].3, "{}", home.url);
        assert_eq!(found.since, None);
    }
}

/// Replaces a text in the line with a sequence.
async fn tamper(home: &Home, sequence: i64, from: &str, to: &str) {
    if let Some(raw) = home.raw().await {
        let sql = format!(
            "UPDATE secret_ledger SET line = replace(line, '{from}', '{to}') WHERE sequence = {sequence}"
        );
        assert_eq!(raw.run(&sql).await.unwrap(), 1);
        return;
    }
    let folder = home.folder.as_ref().unwrap().path().join("ledger");
    let number = format!("\"sequence\":{sequence},");
    let mut changed = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| {
            let is_it = line.contains(&number) && line.contains(from);
            changed += usize::from(is_it);
            let line = if is_it {
                line.replace(from, to)
            } else {
                line.to_owned()
            };
            line + "\n"
        });
        let text: String = lines.collect();
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(changed, 1);
}
