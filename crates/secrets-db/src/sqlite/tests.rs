use secret_persistence_core::{SecretValue, Timestamp};
use sqlx::Connection as _;

use super::*;
use crate::envelope::{Binding, Sealed, open_joined};
use crate::keyring::KeyRing;
use crate::reencryption::Reencryption;

async fn open(path: &Path) -> SqliteClient {
    let settings = crate::SETTINGS.from_pairs([("path", path.to_string_lossy())]);
    let config = Config::from_settings(&settings.unwrap()).unwrap();
    SqliteClient::open(path, &config).await.unwrap().unwrap()
}

/// A scan would make each name as costly as the table is long.
#[tokio::test]
async fn every_read_looks_its_names_up() {
    let folder = tempfile::tempdir().unwrap();
    // The second table is somebody else's.
    let theirs = "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY COLLATE NOCASE, payload TEXT)";
    for (name, made) in [("ours.db", None), ("theirs.db", Some(theirs))] {
        let path = folder.path().join(name);
        if let Some(made) = made {
            let options = SqliteConnectOptions::new()
                .filename(&path)
                .create_if_missing(true);
            let mut connection = options.connect().await.unwrap();
            sqlx::query(made).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
        let client = open(&path).await;
        let sql = &client.sql;
        assert_eq!(sql.read_joined.is_some(), made.is_none());
        let sealed = sql
            .read_joined
            .iter()
            .flat_map(|joined| [joined, &sql.read_sealed]);
        for read in sealed.chain([&sql.read_plain, &sql.describe]) {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {read}")))
                .fetch_all(&client.readers)
                .await
                .unwrap();
            let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(
                matches!(&steps[..], [scan, search] if scan.starts_with("SCAN wanted")
                    && search.starts_with("SEARCH secrets USING") && search.ends_with("(coordinate=?)")),
                "{name}: {steps:?}"
            );
        }
        client.close().await;
    }
}

#[tokio::test]
async fn only_whole_rows_under_the_key_are_joined_and_each_has_the_place_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder.path().join("secrets.db")).await;
    let ring = KeyRing::generate("k1".parse().unwrap()).unwrap();
    let names = ["missing", "half", "other", "plain", "whole"];
    let value = SecretValue::new("value".to_owned());
    for name in &names[1..] {
        let binding = Binding {
            coordinate: name,
            expires: Some(7),
        };
        let sealed = Sealed::seal(&ring, binding, &value).unwrap();
        let sql = "INSERT INTO secrets (coordinate, payload, expires, ciphertext, nonce, \
                   wrapped_key, key_nonce, key_id) VALUES ($1, $2, 7, $3, $4, $5, $6, $7)";
        sqlx::query(sql)
            .bind(name)
            .bind((*name == "plain").then_some("value"))
            .bind(sealed.ciphertext)
            .bind((*name != "half").then_some(sealed.nonce))
            .bind(sealed.wrapped_key)
            .bind(sealed.key_nonce)
            .bind(if *name == "other" { "k2" } else { "k1" })
            .execute(&client.writer)
            .await
            .unwrap();
    }
    let rows = client.read_joined(&names, "k1").await.unwrap().unwrap();
    let mut found: Vec<_> = rows.iter().map(|row| row.place).collect();
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3, 4]);
    for row in rows {
        assert_eq!(row.expires, Some(7));
        assert_eq!(row.value.is_some(), names[row.place] == "whole");
        if let Some(joined) = row.value {
            let binding = |coordinate| Binding {
                coordinate,
                expires: row.expires,
            };
            assert_eq!(
                open_joined(joined.clone(), &ring, binding("whole")),
                Some(value.clone())
            );
            assert_eq!(open_joined(joined.clone(), &ring, binding("half")), None);
            for at in 0..joined.len() {
                let mut altered = joined.clone();
                altered[at] ^= 1;
                assert_eq!(open_joined(altered, &ring, binding("whole")), None);
                let shortened = joined[..at].to_vec();
                assert_eq!(open_joined(shortened, &ring, binding("whole")), None);
            }
        }
    }
    client.close().await;
}

#[test]
fn a_list_of_names_is_json() {
    let names = [
        "",
        "plain",
        "a\"b",
        "back\\slash",
        "line\nfeed",
        "\u{1}",
        "ä/€",
    ];
    for count in 0..=names.len() {
        let names = &names[..count];
        let json = json_of(names).unwrap();
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), names);
    }
}

#[tokio::test]
async fn a_reencryption_that_has_ended_is_not_brought_back() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder.path().join("secrets.db")).await;
    let key = "k1".parse().unwrap();
    let mut paused = Reencryption::under_way(&client, &key).await.unwrap();
    paused.reach(&client, "a").await.unwrap();
    // Another process ends it, and then this one goes on.
    Reencryption::end(&client).await.unwrap();
    paused.reach(&client, "b").await.unwrap();
    let next = Reencryption::under_way(&client, &key).await.unwrap();
    assert_ne!(next.id, paused.id);
    assert_eq!(next.cursor(Timestamp::now()), None);
}
