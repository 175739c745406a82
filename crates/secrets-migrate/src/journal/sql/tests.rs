//! What a journal in SQL promises, and what becomes of its file.

use std::sync::atomic::Ordering;

use secret_persistence_core::ManagedCoordinate;
use serde_json::{Value, json};

use super::entries::once_each;
use crate::database::{Database, Purpose};
use crate::{Counts, Journal as _, Mention, MigrateErrorKind, Run, SqlJournal};

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

/// Each empty journal, in its own database.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn the_journal_keeps_its_promises_in_postgres() {
    use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

    const URL: &str = "TEST_POSTGRES_URL";
    const USER: &str = "DATABASE_USER";
    const PASSWORD: &str = "DATABASE_PASSWORD";
    let Ok(url) = std::env::var(URL) else {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "{URL} is not set; run scripts/test"
        );
        eprintln!("SKIPPED: {URL} is not set");
        return;
    };
    let server: url::Url = url.parse().unwrap();
    let made = std::sync::Mutex::new(Vec::new());
    let empty = async || {
        let name = format!("journal_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        let variables = |variable: &str| match variable {
            USER => Some(server.username().to_owned()),
            PASSWORD => server.password().map(str::to_owned),
            _ => None,
        };
        let place = format!(
            "postgres://{}:{}/{name}",
            server.host_str().unwrap(),
            server.port().unwrap_or(5432),
        );
        made.lock().unwrap().push(name);
        (place, variables(USER), variables(PASSWORD))
    };
    let open = async |shared: bool, (place, user, password): &(String, _, _)| {
        let variables = |variable: &str| -> Option<String> {
            match variable {
                USER => Option::clone(user),
                PASSWORD => Option::clone(password),
                _ => None,
            }
        };
        match shared {
            true => SqlJournal::open_shared(place, &variables).await.unwrap(),
            false => SqlJournal::open(place, &variables).await.unwrap(),
        }
    };
    crate::conformance::journal(async || open(false, &empty().await).await).await;
    // One process of many has the same journal.
    crate::conformance::journal(async || open(true, &empty().await).await).await;
    crate::conformance::sharing(async || {
        let place = empty().await;
        let processes = (0..4).map(|_| open(true, &place));
        let opened = futures::future::join_all(processes).await;
        <[SqlJournal; 4]>::try_from(opened).unwrap()
    })
    .await;
    // A journal of an earlier build gets what it is without, also from a process that shares nothing.
    for shared in [false, true] {
        let place = empty().await;
        let journal = open(true, &place).await;
        let early = "ALTER TABLE migrate_pass DROP COLUMN stragglers";
        journal.database.script(early.into()).await.unwrap();
        journal.close().await;
        let journal = open(shared, &place).await;
        let passes = "SELECT stragglers::TEXT FROM migrate_pass";
        let passes = journal.database.few(passes.into(), Vec::new()).await;
        assert!(passes.unwrap().is_empty());
        journal.close().await;
    }
    // Whoever has lost its session sees it by the next one.
    let place = empty().await;
    let journal = open(true, &place).await;
    let session = journal.sharing().unwrap().session();
    assert_eq!(journal.counts().await.unwrap(), Counts::default());
    assert_eq!(journal.sharing().unwrap().session(), session);
    let made = made.into_inner().unwrap();
    assert!(made.len() > 5);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    let ended = sqlx::query(ended).bind(made.last());
    assert_eq!(ended.fetch_all(&mut connection).await.unwrap().len(), 1);
    // The first one may find that the session has ended.
    let _ = journal.counts().await;
    assert_eq!(journal.counts().await.unwrap(), Counts::default());
    assert_ne!(journal.sharing().unwrap().session(), session);
    for name in made {
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
            .execute(&mut connection)
            .await
            .unwrap();
    }
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
