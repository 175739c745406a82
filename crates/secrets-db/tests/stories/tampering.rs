//! Someone who can write the database, but has no key, changes rows.

use secret_persistence_core::{
    Coordinate, ErrorKind, SecretPersistence, SecretPersistenceExt, Timestamp,
};
use secret_persistence_db::{Database, Mode};

use crate::support::{Place, managed, ring, secret, write};

const ROW_1: &str = "coordinate = 'airbyte_workspace_1_secret_000001_v1'";
const ROW_2: &str = "coordinate = 'airbyte_workspace_1_secret_000002_v1'";

async fn kind_of(store: &Database, number: usize) -> Result<String, ErrorKind> {
    store
        .read(&managed(number).into())
        .await
        .map(|read| read.value.expose().to_owned())
        .map_err(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_changed_is_integrity_and_spoils_no_other() {
    for place in Place::all("a_row_that_was_changed_is_integrity").await {
        let mut ring = ring();
        ring.add("k2".parse().unwrap()).unwrap();
        let store = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        let raw = place.raw().await;
        let soon = Timestamp::from_unix_seconds(2_000_000_000).unwrap();
        let swap = |columns: &[&str]| -> String {
            let set = |from: &str| -> String {
                columns
                    .iter()
                    .map(|name| format!("{name} = (SELECT {name} FROM other WHERE {from})"))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            format!(
                "CREATE TABLE other AS SELECT * FROM secrets; \
                 UPDATE secrets SET {} WHERE {ROW_1}; UPDATE secrets SET {} WHERE {ROW_2}; \
                 DROP TABLE other",
                set(ROW_2),
                set(ROW_1)
            )
        };
        let whole = ["ciphertext", "nonce", "wrapped_key", "key_nonce", "key_id"];
        let mut changes = vec![
            // An encrypted row replaced by a plain one, or by one that is both.
            format!(
                "DELETE FROM secrets WHERE {ROW_1}; \
                     INSERT INTO secrets (coordinate, payload) VALUES ('airbyte_workspace_1_secret_000001_v1', 'theirs')"
            ),
            format!("UPDATE secrets SET payload = 'theirs' WHERE {ROW_1}"),
            format!(
                "UPDATE secrets SET payload = 'theirs', ciphertext = NULL, nonce = NULL, \
                     wrapped_key = NULL, key_nonce = NULL, key_id = NULL WHERE {ROW_1}"
            ),
            // With another expiry, or none.
            format!("UPDATE secrets SET expires = expires + 1 WHERE {ROW_1}"),
            format!("UPDATE secrets SET expires = NULL WHERE {ROW_1}"),
            // With the id of another key of the ring, of none, or an invalid one.
            format!("UPDATE secrets SET key_id = 'k2' WHERE {ROW_1}"),
            format!("UPDATE secrets SET key_id = 'k9' WHERE {ROW_1}"),
            format!("UPDATE secrets SET key_id = 'No id!' WHERE {ROW_1}"),
            // Swapped: as a whole, and in parts.
            swap(&whole),
            swap(&["ciphertext", "nonce"]),
            swap(&["wrapped_key", "key_nonce"]),
            swap(&["ciphertext"]),
            // Moved to another name.
            format!(
                "DELETE FROM secrets WHERE {ROW_1}; \
                     UPDATE secrets SET coordinate = 'airbyte_workspace_1_secret_000001_v1' WHERE {ROW_2}"
            ),
        ];
        // With NULL columns, each and all.
        changes.extend(whole.map(|name| format!("UPDATE secrets SET {name} = NULL WHERE {ROW_1}")));
        changes.push(format!(
            "UPDATE secrets SET ciphertext = NULL, nonce = NULL, wrapped_key = NULL, \
             key_nonce = NULL, key_id = NULL WHERE {ROW_1}"
        ));
        for change in changes {
            raw.run("DELETE FROM secrets").await.unwrap();
            let writes = [1, 2, 3]
                .map(|number| write(number, &format!("value {number}")).with_expires(Some(soon)));
            for result in store.write_many(&writes).await {
                result.unwrap();
            }
            raw.run(&change).await.unwrap();
            assert_eq!(
                kind_of(&store, 1).await,
                Err(ErrorKind::Integrity),
                "{change}"
            );
            // A write reports such a row too, and does not treat it as its own.
            let again = store.write(writes[0].clone()).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::Integrity, "{change}");
            assert_eq!(again.coordinate(), Some(managed(1).as_str()));
            let names: Vec<Coordinate> = [3, 1].map(|number| managed(number).into()).to_vec();
            let batch = store.read_batch(&names).await;
            assert_eq!(
                batch[0].as_ref().unwrap().value,
                secret("value 3"),
                "{change}"
            );
            assert_eq!(batch[1].as_ref().unwrap_err().kind(), ErrorKind::Integrity);
        }
        store.close().await;
    }
}

/// A reader without the key ring must fail instead of using ciphertext.
#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_row_has_no_payload() {
    for place in Place::all("an_encrypted_row_has_no_payload").await {
        let ring = ring();
        let store = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        store.write(write(1, "value")).await.unwrap();
        let raw = place.raw().await;
        let plain = "SELECT count(*) FROM secrets WHERE payload IS NOT NULL";
        assert_eq!(raw.number(plain).await, 0);
        let sealed = "SELECT count(*) FROM secrets WHERE ciphertext IS NOT NULL AND key_id = 'k1'";
        assert_eq!(raw.number(sealed).await, 1);
        store.close().await;
    }
}

/// The setting decides which rows are accepted, whatever the table contains.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_store_takes_no_encrypted_row_and_the_reverse() {
    for place in Place::all("a_plain_store_takes_no_encrypted_row").await {
        let ring = ring();
        let encrypted = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        let plain = place.open(Mode::Plain, None).await.unwrap();
        encrypted.write(write(1, "one")).await.unwrap();
        plain.write(write(2, "two")).await.unwrap();
        assert_eq!(kind_of(&plain, 1).await, Err(ErrorKind::Integrity));
        assert_eq!(kind_of(&encrypted, 2).await, Err(ErrorKind::Integrity));
        // During a conversion, both kinds are read and encrypted ones are written.
        let converting = place.open(Mode::Converting, Some(&ring)).await.unwrap();
        assert_eq!(kind_of(&converting, 1).await, Ok("one".to_owned()));
        assert_eq!(kind_of(&converting, 2).await, Ok("two".to_owned()));
        converting.write(write(3, "three")).await.unwrap();
        assert_eq!(kind_of(&encrypted, 3).await, Ok("three".to_owned()));
        // A table with an encrypted row is not opened as plain.
        let error = place.open(Mode::Plain, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        for store in [encrypted, plain, converting] {
            store.close().await;
        }
    }
}
