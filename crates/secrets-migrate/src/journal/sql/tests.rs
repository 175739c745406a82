//! What a journal in SQL promises, and what becomes of its file.

use std::sync::atomic::Ordering;

use secret_persistence_core::ManagedCoordinate;
use serde_json::{Value, json};

use super::entries::once_each;
use crate::database::{Database, Purpose};
use crate::{Counts, Journal as _, Mention, MigrateErrorKind, Run, SqlJournal};

#[cfg(feature = "postgres")]
mod postgres;

fn mention(coordinate: &str, holder: Option<&str>) -> Mention {
    Mention::new(
        ManagedCoordinate::parse(coordinate).unwrap(),
        holder.map(str::to_owned),
    )
}

#[test]
fn mentions_of_one_statement_are_noted_one_after_the_other() {
    let (a, b) = ("airbyte_a_v1", "airbyte_b_v1");
    let items = once_each(&[
        mention(a, None),
        mention(b, Some("x")),
        mention(a, Some("y")),
        mention(a, Some("y")),
        mention(b, Some("y")),
        mention(b, None),
    ]);
    assert_eq!(
        serde_json::from_str::<Value>(&items).unwrap(),
        json!([{ "c": a, "h": "y", "s": 0 }, { "c": b, "h": "x", "s": 1 }])
    );
}

#[tokio::test]
async fn the_journal_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let files = std::sync::atomic::AtomicUsize::new(0);
    let empty = async || {
        let file = files.fetch_add(1, Ordering::Relaxed);
        let path = folder.path().join(format!("{file}.db"));
        SqlJournal::open(path.to_str().unwrap(), &|_| None)
            .await
            .unwrap()
    };
    crate::conformance::journal(empty).await;
    assert!(files.into_inner() > 5);
}

#[tokio::test]
async fn a_run_that_did_nothing_leaves_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let text = path.to_str().unwrap();
    let open = async || SqlJournal::open(text, &|_| None).await.unwrap();
    let run = |owner| Run {
        source: "s".into(),
        target: None,
        owner,
        workspaces: Vec::new(),
    };
    let looked = async |journal: &SqlJournal| {
        journal.open(&run(None)).await.unwrap();
        let scan = journal.begin_scan().await.unwrap();
        let mentions = [mention("airbyte_a_v1", None)];
        journal.mention(scan, &mentions).await.unwrap();
    };
    let journal = open().await;
    looked(&journal).await;
    journal.close().await;
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    // A killed one is taken over, also by one that does nothing.
    let journal = open().await;
    looked(&journal).await;
    drop(journal);
    let journal = open().await;
    journal.open(&run(Some("me".into()))).await.unwrap();
    journal.close().await;
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    // A database of somebody else's is left as it was.
    let other = Database::sqlite(&path, Purpose::Own).await.unwrap();
    let made = other.execute("CREATE TABLE theirs (a TEXT)".into(), Vec::new());
    made.await.unwrap();
    other.close().await;
    let journal = open().await;
    looked(&journal).await;
    journal.close().await;
    let other = Database::sqlite(&path, Purpose::Own).await.unwrap();
    let tables = other.few("SELECT name FROM sqlite_master".into(), Vec::new());
    assert_eq!(tables.await.unwrap(), [[Some("theirs".to_owned())]]);
    other.close().await;
    // And one in which something was done stays.
    let journal = open().await;
    looked(&journal).await;
    journal.put_note("a", Some("{}")).await.unwrap();
    journal.put_note("a", None).await.unwrap();
    journal.close().await;
    let journal = open().await;
    let refused = journal.open(&run(Some("me".into()))).await.unwrap_err();
    assert_eq!(refused.kind(), MigrateErrorKind::AnotherRun);
    journal.close().await;
    let journal = open().await;
    assert_eq!(journal.counts().await.unwrap().pending, 1);
    journal.close().await;
}

#[tokio::test]
async fn a_journal_without_a_run_has_a_status() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let text = path.to_str().unwrap();
    // Killed between the tables and the run.
    let killed = SqlJournal::open(text, &|_| None).await.unwrap();
    killed.database.close().await;
    let status = SqlJournal::status(text, &|_| None).await.unwrap();
    assert_eq!(status.run, None);
    assert_eq!(status.states, Counts::default());
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_file_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let text = path.to_str().unwrap();
    let first = SqlJournal::open(text, &|_| None).await.unwrap();
    let refused = SqlJournal::open(text, &|_| None).await;
    assert!(refused.unwrap_err().to_string().contains("another process"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    first.close().await;
    let second = SqlJournal::open(text, &|_| None).await.unwrap();
    second.close().await;
}
