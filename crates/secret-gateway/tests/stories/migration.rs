//! The progress of a migration, from its journal.

use std::path::Path;
use std::time::Duration;

use secret_persistence::{Environment, Memory, SecretPersistence as _};
use secret_persistence_migrate::{Journal as _, Mention, Run, SqlJournal};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use crate::world::{ask, name, texts};

/// What a gateway with this journal answers about the migration.
struct Shown {
    router: axum::Router,
    token: String,
}

impl Shown {
    async fn new(folder: &Path, journal: &str, environment: &Environment) -> Self {
        let settings = texts(folder, &[("migration-journal", journal)]);
        let settings = settings.parse().unwrap();
        let started = secret_gateway::start(settings, environment, None)
            .await
            .unwrap();
        Self {
            router: secret_gateway::router(started.gateway),
            token: std::fs::read_to_string(folder.join("token-operate")).unwrap(),
        }
    }

    async fn now(&self) -> Value {
        let headers = [("x-vault-token", self.token.as_str())];
        let answer = ask(&self.router, "GET", "/api/v1/status", &headers, None).await;
        answer.expect(200)["migration"].clone()
    }
}

/// A migration of three secrets that has found them.
async fn begin(journal: &SqlJournal) {
    let source = Memory::new().identity().await.unwrap();
    journal.open(&Run::new(&source, None, None)).await.unwrap();
    let scan = journal.begin_scan().await.unwrap();
    let mentions: Vec<Mention> = (1..=3)
        .map(|secret| Mention::new(name(1, secret).parse().unwrap(), None))
        .collect();
    journal.mention(scan, &mentions).await.unwrap();
}

/// A file is locked while `secret-migrate` runs, which does not stop the page.
#[tokio::test]
async fn a_journal_in_a_file_is_shown_between_the_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let text = path.to_str().unwrap();
    let shown = Shown::new(folder.path(), text, &Environment::empty()).await;
    let unreadable = json!({"readable": false});
    assert_eq!(shown.now().await, unreadable, "there is none yet");

    let journal = SqlJournal::open(text, &|_| None).await.unwrap();
    begin(&journal).await;
    assert_eq!(shown.now().await, unreadable, "another process has it");
    // As a process that ends: what closes a journal tidily removes one that was never used.
    drop(journal);
    let mut now = shown.now().await;
    for _ in 0..50 {
        if now["readable"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        now = shown.now().await;
    }
    assert_eq!(
        (&now["readable"], &now["pending"]),
        (&json!(true), &json!(3)),
        "{now}"
    );
    // Looking at it does not stop the next run.
    let next = SqlJournal::open(text, &|_| None).await.unwrap();
    next.close().await;
}

/// A journal in Postgres is shown while `secret-migrate` runs. Its credentials are in `JOURNAL_…`.
#[tokio::test]
async fn a_journal_in_postgres_is_shown_during_a_run() {
    let Some(server) = e2e::Postgres::start_or_env().await else {
        return;
    };
    let database = format!("journal_{}", Uuid::new_v4().simple());
    let mut administrator = PgConnection::connect(server.url()).await.unwrap();
    let made = AssertSqlSafe(format!("CREATE DATABASE {database}"));
    sqlx::query(made).execute(&mut administrator).await.unwrap();
    let url: url::Url = server.url().parse().unwrap();
    let (user, password) = (
        url.username().to_owned(),
        url.password().unwrap_or_default().to_owned(),
    );
    let place = format!(
        "postgres://{}:{}/{database}",
        url.host_str().unwrap(),
        url.port().unwrap_or(5432)
    );
    let environment = Environment::from_iter([
        ("JOURNAL_DATABASE_USER", user.as_str()),
        ("JOURNAL_DATABASE_PASSWORD", password.as_str()),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let shown = Shown::new(folder.path(), &place, &environment).await;
    let unreadable = json!({"readable": false});
    assert_eq!(shown.now().await, unreadable, "there is none yet");

    let variables = |variable: &str| match variable {
        "DATABASE_USER" => Some(user.clone()),
        "DATABASE_PASSWORD" => Some(password.clone()),
        _ => None,
    };
    let journal = SqlJournal::open(&place, &variables).await.unwrap();
    begin(&journal).await;
    let now = shown.now().await;
    assert_eq!(
        (&now["readable"], &now["pending"], &now["verified"]),
        (&json!(true), &json!(3), &json!(0)),
        "{now}"
    );
    // The run goes on, and the page with it.
    let scan = journal.begin_scan().await.unwrap();
    let another = Mention::new(name(1, 4).parse().unwrap(), None);
    journal.mention(scan, &[another]).await.unwrap();
    assert_eq!(shown.now().await["pending"], 4);
    drop(journal);

    let dropped = AssertSqlSafe(format!("DROP DATABASE {database} WITH (FORCE)"));
    sqlx::query(dropped)
        .execute(&mut administrator)
        .await
        .unwrap();
}
