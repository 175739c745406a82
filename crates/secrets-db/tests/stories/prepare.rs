//! Our own columns are added on request, and not before.

use secret_persistence_core::{
    ErrorKind, Expiry, SecretPersistence, SecretPersistenceExt, Timestamp,
};
use secret_persistence_db::{Database, Mode};

use crate::support::{LEGACY, Place, managed, secret, write};

#[tokio::test(flavor = "multi_thread")]
async fn prepare_shows_its_sql_and_runs_it_on_request() {
    for place in Place::all("prepare_shows_its_sql").await {
        let raw = place.raw().await;
        raw.run(LEGACY).await.unwrap();
        raw.insert(managed(1).as_str(), "old").await;
        let config = place.config().build().unwrap();

        // Opened and left unchanged.
        let store = Database::connect(config.clone()).await.unwrap();
        let capabilities = store.capabilities();
        assert_eq!(
            (capabilities.expiry, capabilities.owner),
            (Expiry::None, false)
        );
        assert_eq!(
            store.read(&managed(1).into()).await.unwrap().value,
            secret("old")
        );
        store.write(write(2, "two")).await.unwrap();
        store.close().await;

        let shown = Database::prepare_sql(&config).await.unwrap();
        assert_eq!(shown, Database::prepare_sql(&config).await.unwrap());
        for column in ["owner", "created", "expires", "ciphertext"] {
            assert!(
                shown
                    .iter()
                    .any(|sql| sql.contains(&format!("ADD COLUMN {column} ")))
            );
        }
        assert_eq!(Database::prepare(&config).await.unwrap(), shown);
        assert!(Database::prepare(&config).await.unwrap().is_empty());

        let store = Database::connect(config).await.unwrap();
        let capabilities = store.capabilities();
        assert_eq!(
            (capabilities.expiry, capabilities.owner),
            (Expiry::Swept, true)
        );
        let expires = Timestamp::from_unix_seconds(2_000_000_000).unwrap();
        store
            .write(write(3, "three").with_expires(Some(expires)))
            .await
            .unwrap();
        assert_eq!(
            store.read(&managed(3).into()).await.unwrap().expires,
            Some(expires)
        );
        assert_eq!(
            store.read(&managed(1).into()).await.unwrap().value,
            secret("old")
        );
        assert_eq!(store.describe(&managed(1)).await.unwrap().created, None);
        store.close().await;
    }
}

/// A table with some of our columns, created by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_some_columns_uses_what_it_has() {
    for place in Place::all("a_table_with_some_columns").await {
        let raw = place.raw().await;
        raw.run("CREATE TABLE secrets (payload TEXT, expires BIGINT, coordinate TEXT PRIMARY KEY)")
            .await
            .unwrap();
        let store = place.open(Mode::Plain, None).await.unwrap();
        let capabilities = store.capabilities();
        assert_eq!(
            (capabilities.expiry, capabilities.owner),
            (Expiry::Swept, false)
        );
        let past = Timestamp::from_unix_seconds(1).unwrap();
        store
            .write(write(1, "one").with_expires(Some(past)))
            .await
            .unwrap();
        store.write(write(2, "two")).await.unwrap();
        let swept = store.sweep(Timestamp::now(), None).await.unwrap();
        assert_eq!(swept.deleted, [managed(1)]);
        assert_eq!(
            store.read(&managed(2).into()).await.unwrap().value,
            secret("two")
        );
        store.close().await;
    }
}

/// A store with another name, in an unusual spelling, beside the usual one.
#[tokio::test(flavor = "multi_thread")]
async fn odd_table_names_work() {
    for place in Place::all("odd_table_names_work").await {
        for name in ["Secrets2", r#""order""#, r#""a ""quoted"" name; --""#] {
            let config = place.config().set("table", name).build().unwrap();
            let store = Database::connect(config).await.unwrap();
            store.write(write(1, name)).await.unwrap();
            assert_eq!(
                store.read(&managed(1).into()).await.unwrap().value,
                secret(name)
            );
            store.close().await;
        }
    }
}

/// A dry run with a table that is misspelt or does not exist yet: it reads as empty, and nothing is
/// created.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_reads_a_missing_table_as_empty_and_makes_nothing() {
    for place in Place::all("dry-run").await {
        let dry = async |table: &str| {
            let config = place.config().set("create", "dry-run").set("table", table);
            Database::connect(config.build().unwrap()).await.unwrap()
        };
        let expect_empty = async |store: Database| {
            let read = store.read(&managed(1).into()).await.unwrap_err();
            assert_eq!(read.kind(), ErrorKind::NotFound);
            let page = store.list_page(&Default::default(), None).await.unwrap();
            assert!(page.entries.is_empty() && page.next.is_none());
            store
                .delete(&managed(1), &Default::default())
                .await
                .unwrap();
            let written = store.write(write(1, "value")).await.unwrap_err();
            assert_eq!(written.kind(), ErrorKind::Unsupported, "{written}");
            store.close().await;
        };
        let absent = dry("secrets").await;
        let (identity, capabilities) = (absent.identity().await.unwrap(), absent.capabilities());
        expect_empty(absent).await;
        if let Place::Sqlite(folder) = &place {
            assert!(!folder.file().exists());
        }
        // It has the same name as the real store.
        let made = Database::connect(place.config().build().unwrap())
            .await
            .unwrap();
        assert_eq!(made.identity().await.unwrap().location, identity.location);
        assert_eq!(made.capabilities(), capabilities);
        made.write(write(1, "value")).await.unwrap();
        made.close().await;
        let there = dry("secrets").await;
        there.read(&managed(1).into()).await.unwrap();
        there.close().await;
        expect_empty(dry("secretz").await).await;
        let raw = place.raw().await;
        assert!(raw.run("SELECT 1 FROM secretz").await.is_err());
    }
}
