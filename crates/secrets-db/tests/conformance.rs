//! The conformance suite with every kind of table.

// Helpers of tests are tests too.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use secret_persistence_core::conformance::{self, Options};
use secret_persistence_core::{Expiry, Owner, SecretPersistence};
use secret_persistence_db::{Config, Database, Mode};
use support::{Folder, LEGACY, Raw, Setup, SomebodyElse, ring};

async fn keeps_every_promise(config: Config, raw: Raw) -> Database {
    let database = Database::connect(config.clone()).await.unwrap();
    let store: Arc<dyn SecretPersistence> = Arc::new(database.clone());
    let mut options = Options::default()
        .with_outsider(Arc::new(SomebodyElse {
            raw,
            store: database.clone(),
        }))
        .with_progress(|case| println!("{case}"))
        .with_reopen(move || {
            let config = config.clone();
            Box::pin(async move {
                let store = Database::connect(config).await?;
                Ok(Arc::new(store) as Arc<dyn SecretPersistence>)
            })
        });
    if database.capabilities().owner {
        options = options.with_owner(owner());
    }
    let report = conformance::run(&store, &options).await;
    println!("{report}");
    report.assert_passed();
    database
}

fn owner() -> Owner {
    Owner::parse("conformance").unwrap()
}

/// The three kinds, as settings of any engine.
fn kinds(config: impl Fn() -> Setup) -> [Config; 3] {
    let plain = config().mode(Mode::Plain);
    let encrypted = config().mode(Mode::Encrypted).keyring(&ring());
    [
        plain.clone().set("create", "false").build().unwrap(),
        plain.build().unwrap().with_owner(owner()),
        encrypted.build().unwrap().with_owner(owner()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_legacy_table() {
    let folder = Folder::new();
    let raw = folder.raw().await;
    raw.run(LEGACY).await.unwrap();
    let [legacy, ..] = kinds(|| folder.config());
    let store = keeps_every_promise(legacy, raw.clone()).await;
    assert_eq!(store.capabilities().expiry, Expiry::None);
    assert!(!store.capabilities().owner);
    // The table and its surroundings are unchanged.
    assert_eq!(
        raw.number("SELECT count(*) FROM pragma_table_info('secrets')")
            .await,
        2
    );
    assert_eq!(
        raw.number("SELECT count(*) FROM sqlite_schema WHERE type = 'table'")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_full_table() {
    let folder = Folder::new();
    let [_, full, _] = kinds(|| folder.config());
    let store = Database::connect(full.clone()).await.unwrap();
    assert_eq!(store.capabilities().expiry, Expiry::Swept);
    keeps_every_promise(full, folder.raw().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_encrypted() {
    let folder = Folder::new();
    let [.., encrypted] = kinds(|| folder.config());
    Database::connect(encrypted.clone()).await.unwrap();
    keeps_every_promise(encrypted, folder.raw().await).await;
}

#[cfg(feature = "postgres")]
mod on_postgres {
    use super::*;
    use crate::support::postgres::server;

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_legacy_table() {
        let Some(server) = server("postgres_legacy_table") else {
            return;
        };
        let home = server.home().await;
        home.raw.run(LEGACY).await.unwrap();
        // A role that may use the table, but not alter it or create another one.
        let role = home.role("user", "SELECT, INSERT, DELETE").await;
        let legacy = role.mode(Mode::Plain).build().unwrap();
        let store = keeps_every_promise(legacy, home.raw.clone()).await;
        assert_eq!(store.capabilities().expiry, Expiry::None);
        let columns =
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public'";
        assert_eq!(home.raw.number(columns).await, 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_full_table() {
        let Some(server) = server("postgres_full_table") else {
            return;
        };
        let home = server.home().await;
        let [_, full, _] = kinds(|| home.config());
        let store = keeps_every_promise(full, home.raw.clone()).await;
        assert_eq!(store.capabilities().expiry, Expiry::Swept);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_encrypted() {
        let Some(server) = server("postgres_encrypted") else {
            return;
        };
        let home = server.home().await;
        let [.., encrypted] = kinds(|| home.config());
        keeps_every_promise(encrypted, home.raw.clone()).await;
    }
}
