//! Many calls of `describe` at the same moment.

use futures::future::join_all;
use secret_persistence_core::{
    Entry, ErrorKind, ManagedCoordinate, Owner, Result, SecretPersistence, SecretPersistenceExt,
    Timestamp, Write,
};
use secret_persistence_db::Database;

use crate::support::{Folder, Place, managed, secret, write};

async fn together(store: &Database, names: &[ManagedCoordinate]) -> Vec<Result<Entry>> {
    join_all(names.iter().map(|name| store.describe(name))).await
}

async fn open(place: &Place) -> Database {
    let config = place.config().build().unwrap();
    Database::connect(config.with_owner(Owner::parse("ours").unwrap()))
        .await
        .unwrap()
}

/// Every third of 500 secrets is missing, every fifth has expired, and each name is asked for twice.
async fn each_name_has_its_own_answer(test: &str) {
    let past = Timestamp::from_unix_seconds(1_000_000_000).unwrap();
    let is_missing = |number: usize| number.is_multiple_of(3);
    let expires = |number: usize| number.is_multiple_of(5).then_some(past);
    for place in Place::all(test).await {
        let store = open(&place).await;
        let writes: Vec<Write> = (0..500)
            .filter(|number| !is_missing(*number))
            .map(|number| write(number, "value").with_expires(expires(number)))
            .collect();
        for written in store.write_many(&writes).await {
            written.unwrap();
        }
        let numbers: Vec<usize> = (0..500).chain(0..500).collect();
        let names: Vec<_> = numbers.iter().copied().map(managed).collect();
        for (number, entry) in numbers.iter().zip(together(&store, &names).await) {
            match entry {
                Ok(entry) => {
                    assert!(!is_missing(*number), "{number}");
                    assert_eq!(entry.coordinate, managed(*number));
                    assert_eq!(entry.owner.as_deref(), Some("ours"));
                    assert_eq!(entry.expires, expires(*number));
                    assert!(entry.created.is_some());
                }
                Err(error) => {
                    assert!(is_missing(*number), "{error}");
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                    assert_eq!(error.coordinate(), Some(managed(*number).as_str()));
                }
            }
        }
        store.close().await;
    }
}

#[tokio::test]
async fn each_name_has_its_own_answer_on_one_thread() {
    each_name_has_its_own_answer("each_name_has_its_own_answer_on_one_thread").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_name_has_its_own_answer_on_several() {
    each_name_has_its_own_answer("each_name_has_its_own_answer_on_several").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_fails_is_an_error_of_each_name() {
    for place in Place::all("a_statement_that_fails_is_an_error_of_each_name").await {
        let store = open(&place).await;
        let names: Vec<_> = (0..100).map(managed).collect();
        let raw = place.raw().await;
        raw.run("DROP TABLE secrets").await.unwrap();
        let read = store.read(&names[0].clone().into()).await.unwrap_err();
        let dropped = together(&store, &names).await;
        store.close().await;
        let closed = together(&store, &names).await;
        for (outcomes, kind) in [(dropped, read.kind()), (closed, ErrorKind::Unavailable)] {
            for (name, outcome) in names.iter().zip(outcomes) {
                let error = outcome.unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
                assert_eq!(error.coordinate(), Some(name.as_str()));
                assert!(error.store().is_some());
            }
        }
        raw.close().await;
    }
}

/// SQLite's columns have any type. A retirement must not fail for 500 secrets because of one.
#[tokio::test(flavor = "multi_thread")]
async fn one_odd_row_spoils_no_description_of_another() {
    let place = Place::Sqlite(Folder::new());
    let store = open(&place).await;
    let names: Vec<_> = (0..10).map(managed).collect();
    for number in 0..10 {
        store.write(write(number, "value")).await.unwrap();
    }
    let raw = place.raw().await;
    let odd = format!(
        "UPDATE secrets SET created = 'long ago' WHERE coordinate = '{}'",
        managed(7)
    );
    raw.run(&odd).await.unwrap();
    for (number, entry) in together(&store, &names).await.into_iter().enumerate() {
        assert_eq!(entry.is_err(), number == 7, "{entry:?}");
    }
    raw.close().await;
    store.close().await;
}

/// Each by itself would be 500.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_sees_few_statements() {
    use std::time::Duration;

    let Some(server) = crate::support::postgres::server("a_server_sees_few_statements") else {
        return;
    };
    let place = Place::Postgres(server.home().await);
    let raw = place.raw().await;
    // A backend reports what it did when its session ends, and a little later the server shows it.
    let transactions = async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        raw.number(sql).await
    };
    let names: Vec<_> = (0..500).map(managed).collect();
    let mut took = Vec::new();
    for is_together in [false, true] {
        let before = transactions().await;
        let store = open(&place).await;
        match is_together {
            true => drop(together(&store, &names).await),
            false => {
                for name in &names {
                    drop(store.describe(name).await);
                }
            }
        }
        store.close().await;
        took.push(transactions().await - before);
    }
    assert!(took[0] >= 500 && took[1] <= 100, "{took:?}");
    raw.close().await;
}

/// As with tests that share a store: each has a runtime, and ends when it likes.
#[test]
fn a_store_outlives_the_runtime_that_described() {
    let place = Place::Sqlite(Folder::new());
    let names: Vec<_> = (0..50).map(managed).collect();
    let new = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    let first = new();
    let store = first.block_on(open(&place));
    first.block_on(async {
        for name in names.clone() {
            let store = store.clone();
            tokio::spawn(async move { drop(store.describe(&name).await) });
        }
    });
    // In the middle of it.
    drop(first);
    let second = new();
    second.block_on(async {
        store
            .write(Write::new(managed(7), secret("value")))
            .await
            .unwrap();
        for (number, entry) in together(&store, &names).await.into_iter().enumerate() {
            assert_eq!(entry.is_ok(), number == 7);
        }
        store.close().await;
    });
}
