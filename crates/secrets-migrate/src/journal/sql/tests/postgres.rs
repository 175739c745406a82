//! The same in Postgres, each journal in a database of its own.

use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;

use super::super::super::passes::Turn;
use crate::{
    Counts, Journal as _, Member, MigrateErrorKind, MigrateResult, Run, SharedWork, SqlJournal,
};

/// Longer than a case takes.
const LONG: Duration = Duration::from_secs(60);

/// A server, and the databases that were made on it.
struct Server {
    url: Url,
    made: Mutex<Vec<String>>,
}

impl Server {
    /// None, visibly, without a server.
    fn new() -> Option<Self> {
        const URL: &str = "TEST_POSTGRES_URL";
        let Ok(url) = std::env::var(URL) else {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "{URL} is not set; run scripts/test"
            );
            eprintln!("SKIPPED: {URL} is not set");
            return None;
        };
        Some(Self {
            url: url.parse().unwrap(),
            made: Mutex::default(),
        })
    }

    async fn connect(&self, database: &str) -> PgConnection {
        let mut url = self.url.clone();
        url.set_path(database);
        PgConnection::connect(url.as_str()).await.unwrap()
    }

    async fn sql(&self, database: &str, sql: String) {
        let mut connection = self.connect(database).await;
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    /// A new database.
    async fn empty(&self) -> String {
        let name = format!("journal_{}", uuid::Uuid::new_v4().simple());
        let sql = format!("CREATE DATABASE {name}");
        self.sql(self.url.path(), sql).await;
        self.made.lock().unwrap().push(name.clone());
        name
    }

    fn place(&self, database: &str) -> String {
        let host = self.url.host_str().unwrap();
        let port = self.url.port().unwrap_or(5432);
        format!("postgres://{host}:{port}/{database}")
    }

    async fn try_open(
        &self,
        shared: bool,
        database: &str,
        user: Option<(&str, &str)>,
    ) -> MigrateResult<SqlJournal> {
        let variables = |variable: &str| match (variable, user) {
            ("DATABASE_USER", Some((user, _))) => Some(user.to_owned()),
            ("DATABASE_PASSWORD", Some((_, password))) => Some(password.to_owned()),
            ("DATABASE_USER", None) => Some(self.url.username().to_owned()),
            ("DATABASE_PASSWORD", None) => self.url.password().map(str::to_owned),
            _ => None,
        };
        let place = self.place(database);
        match shared {
            true => SqlJournal::open_shared(&place, &variables).await,
            false => SqlJournal::open(&place, &variables).await,
        }
    }

    async fn open(&self, shared: bool, database: &str) -> SqlJournal {
        self.try_open(shared, database, None).await.unwrap()
    }

    /// Waits until no session with it is left: its lock ends with it.
    async fn quiet(&self, database: &str) {
        let mut connection = self.connect(self.url.path()).await;
        let sessions = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = $1";
        loop {
            let sessions = sqlx::query_scalar(sessions).bind(database);
            let left: i64 = sessions.fetch_one(&mut connection).await.unwrap();
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn drop(self) {
        for name in self.made.into_inner().unwrap() {
            let mut connection = PgConnection::connect(self.url.as_str()).await.unwrap();
            let sql = format!("DROP DATABASE {name} WITH (FORCE)");
            sqlx::query(AssertSqlSafe(sql))
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }
}

fn work() -> SharedWork {
    SharedWork::new("copy", "settings")
}

async fn join(journal: &SqlJournal) -> Member {
    let joined = journal.passes().join(&work(), "worker", LONG).await;
    joined.unwrap()
}

#[tokio::test]
async fn the_journal_keeps_its_promises_in_postgres() {
    let Some(server) = Server::new() else {
        return;
    };
    let empty = async |shared| server.open(shared, &server.empty().await).await;
    crate::conformance::journal(async || empty(false).await).await;
    // One process of many has the same journal.
    crate::conformance::journal(async || empty(true).await).await;
    crate::conformance::sharing(async || {
        let database = server.empty().await;
        let processes = (0..4).map(|_| server.open(true, &database));
        <[SqlJournal; 4]>::try_from(join_all(processes).await).unwrap()
    })
    .await;
    assert!(server.made.lock().unwrap().len() > 5);
    server.drop().await;
}

#[tokio::test]
async fn whoever_has_lost_its_session_sees_it_by_the_next_one() {
    let Some(server) = Server::new() else {
        return;
    };
    let database = server.empty().await;
    let journal = server.open(true, &database).await;
    let session = journal.sharing().unwrap().session();
    assert_eq!(journal.counts().await.unwrap(), Counts::default());
    assert_eq!(journal.sharing().unwrap().session(), session);
    let mut connection = server.connect(server.url.path()).await;
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    let ended = sqlx::query(ended).bind(&database);
    assert_eq!(ended.fetch_all(&mut connection).await.unwrap().len(), 1);
    // The first one may find that the session has ended.
    let _ = journal.counts().await;
    assert_eq!(journal.counts().await.unwrap(), Counts::default());
    assert_ne!(journal.sharing().unwrap().session(), session);
    server.drop().await;
}

/// A journal of an earlier build gets what it is without, also from a process that shares nothing, and a
/// role that may not add it is told how.
#[tokio::test]
async fn a_journal_of_an_earlier_build_is_completed() {
    let Some(server) = Server::new() else {
        return;
    };
    for shared in [false, true] {
        let database = server.empty().await;
        let early = server.open(true, &database).await;
        let number = join(&early).await.pass;
        // Not `close`, which removes it.
        early.database.close().await;
        let without = "ALTER TABLE migrate_pass DROP COLUMN stragglers";
        server.sql(&database, without.into()).await;

        let role = format!("role_{}", uuid::Uuid::new_v4().simple());
        let grants = format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'role'; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
        );
        server.sql(&database, grants).await;
        server.quiet(&database).await;
        let user = Some((role.as_str(), "role"));
        let refused = server.try_open(shared, &database, user).await.unwrap_err();
        assert_eq!(refused.kind(), MigrateErrorKind::Settings);
        assert_eq!(
            refused.hint(),
            Some(
                "let the owner of the table run `ALTER TABLE migrate_pass ADD COLUMN stragglers TIMESTAMPTZ`"
            )
        );

        server.quiet(&database).await;
        let journal = server.open(shared, &database).await;
        let member = join(&journal).await;
        assert!(
            member.pass > number,
            "the pass of the earlier build is kept"
        );
        journal.passes().end().await.unwrap();
        journal.database.close().await;
        // With the column, that role needs no more.
        server.quiet(&database).await;
        let journal = server.try_open(shared, &database, user).await.unwrap();
        journal.database.close().await;
        server
            .sql(&database, format!("DROP OWNED BY {role}; DROP ROLE {role}"))
            .await;
    }
    server.drop().await;
}

/// Whoever looks at its pass and takes a page of it much later does not take the absence of pages for the end
/// of all.
#[tokio::test]
async fn a_pass_without_pages_has_not_ended() {
    let Some(server) = Server::new() else {
        return;
    };
    let database = server.empty().await;
    let journal = server.open(true, &database).await;
    let run = Run {
        source: "source".into(),
        target: None,
        owner: None,
        workspaces: Vec::new(),
    };
    journal.open(&run).await.unwrap();
    let passes = journal.passes();
    let slow = join(&journal).await;
    assert!(passes.look(&slow).await.unwrap().is_none());
    let next = join(&journal).await;
    assert!(next.pass > slow.pass);
    let turn = passes.take(&slow).await.unwrap();
    assert!(matches!(turn, Turn::Superseded), "{turn:?}");

    // Killed before it has ended the pass: the pages are still there.
    let refuses = "ALTER TABLE migrate_pass ADD CONSTRAINT lasts CHECK (command <> '')";
    server.sql(&database, refuses.into()).await;
    passes.end().await.unwrap_err();
    assert!(passes.look(&next).await.unwrap().is_none());
    let turn = passes.take(&next).await.unwrap();
    assert!(matches!(turn, Turn::Page(_)), "{turn:?}");
    let allows = "ALTER TABLE migrate_pass DROP CONSTRAINT lasts";
    server.sql(&database, allows.into()).await;

    // What a process does alone ends also a pass whose pages had all ended.
    server
        .sql(
            &database,
            "UPDATE migrate_page SET done = 1, found = 'failures'".into(),
        )
        .await;
    let turn = passes.claim(&next).await.unwrap();
    assert!(
        matches!(&turn, Turn::Ended(found) if found == &["failures"]),
        "{turn:?}"
    );
    passes.end().await.unwrap();
    let turn = passes.claim(&next).await.unwrap();
    assert!(matches!(turn, Turn::Superseded), "{turn:?}");
    let refused = passes.rejoin(&work(), "worker", LONG).await.unwrap_err();
    assert_eq!(refused.kind(), MigrateErrorKind::AnotherRun);
    // It is nobody's pass any more.
    let status = journal.read_status().await.unwrap();
    assert!(status.pass.is_none(), "{status:?}");

    // Pages that nobody has removed in the way of this version.
    let last = join(&journal).await;
    server
        .sql(&database, "DELETE FROM migrate_page".into())
        .await;
    let damaged = passes.claim(&last).await.unwrap_err();
    assert_eq!(damaged.kind(), MigrateErrorKind::Journal);
    journal.database.close().await;
    server.drop().await;
}
