//! Postgres behind Debian's PgBouncer, with its defaults: what works in which mode, and what is said where it does not.

use std::sync::Arc;

use e2e::{PgBouncer, PoolMode, Postgres, available};
use secret_persistence_core::{
    ErrorKind, ManagedCoordinate, SecretPersistence, SecretPersistenceExt, SecretValue, Write,
    conformance::{self, Options},
    settings::StoreUrl,
};
use secret_persistence_db::{Config, Database};
use secret_persistence_migrate::{Access, Journal as _, MigrateErrorKind, SqlJournal, sources};
use sqlx::{Connection, PgConnection};

/// A database of its own on the shared server, a pooler in front of it, and the URLs of both.
async fn pooled(mode: PoolMode) -> Option<(PgBouncer, String, String)> {
    let server = Postgres::start_or_env().await?;
    let pooler = available(PgBouncer::start(server, mode))?;
    let name = format!("pooled_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(server.url()).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create)
        .execute(&mut connection)
        .await
        .unwrap();
    let mut direct = url::Url::parse(server.url()).unwrap();
    direct.set_path(&name);
    let url = pooler.url(&name);
    Some((pooler, url, direct.into()))
}

fn user(variable: &str) -> Option<String> {
    (variable == "DATABASE_USER").then(|| "postgres".to_owned())
}

async fn open(url: &str) -> secret_persistence_core::Result<Database> {
    let url = StoreUrl::parse(&format!("{url}?mode=plain")).unwrap();
    let settings = secret_persistence_db::SETTINGS
        .from_url(&url, &user)
        .unwrap();
    Database::connect(Config::from_settings(&settings)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_session_mode_everything_works() {
    let Some((_pooler, url, direct)) = pooled(PoolMode::Session).await else {
        return;
    };
    let store: Arc<dyn SecretPersistence> = Arc::new(open(&url).await.unwrap());
    conformance::run(&store, &Options::default())
        .await
        .assert_passed();

    let journal = SqlJournal::open(&url, &user).await.unwrap();
    journal.counts().await.unwrap();
    let second = SqlJournal::open(&url, &user).await.unwrap_err();
    assert!(second.to_string().contains("another process"), "{second}");
    drop(journal);

    // What is only read stays so, although the pooler takes no such parameter at the start.
    let mut connection = PgConnection::connect(&direct).await.unwrap();
    let table =
        "CREATE TABLE rows (id text, configuration text); INSERT INTO rows VALUES ('a', '{}')";
    sqlx::raw_sql(table).execute(&mut connection).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("query.sql");
    for (query, works) in [
        ("SELECT id, configuration FROM rows", true),
        (
            "WITH gone AS (DELETE FROM rows RETURNING *) SELECT id, configuration FROM gone",
            false,
        ),
    ] {
        std::fs::write(&file, query).unwrap();
        let source = format!("{url}?query-file={}", file.display());
        let rows = async {
            let source = sources::open(&source, &user, Access::ReadOnly).await?;
            source.page(None, 10).await
        };
        assert_eq!(rows.await.is_ok(), works, "{query}");
    }
}

/// Without prepared statements that are the client's own, no statement with a parameter is safe there.
#[tokio::test(flavor = "multi_thread")]
async fn in_transaction_mode_the_store_says_what_to_set_and_a_journal_is_refused() {
    let Some((_pooler, url, _)) = pooled(PoolMode::Transaction).await else {
        return;
    };
    // The first client may get through; with more of them the statements are mixed up.
    let mut stores = Vec::new();
    let mut refused = None;
    for _ in 0..4 {
        match open(&url).await {
            Ok(store) => stores.push(store),
            Err(error) => refused = Some(error),
        }
    }
    let value = || SecretValue::new("value".to_owned());
    for store in &stores {
        let name = format!("airbyte_w_secret_{}_v1", uuid::Uuid::new_v4());
        let name = ManagedCoordinate::parse(&name).unwrap();
        if let Err(error) = store.write(Write::new(name, value())).await {
            refused = Some(error);
        }
    }
    let error = refused.expect("PgBouncer before 1.21 mixes up prepared statements");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("max_prepared_statements"), "{error}");
    assert!(!error.is_retryable());

    // Its lock would belong to a connection of the server that everybody shares.
    let error = SqlJournal::open(&url, &user).await.unwrap_err();
    assert_eq!(error.kind(), MigrateErrorKind::Settings, "{error}");
    assert!(error.to_string().contains("transaction mode"), "{error}");
}
