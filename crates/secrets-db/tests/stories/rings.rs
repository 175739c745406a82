//! Key rings that do not match, and keys that are added and retired.

use secret_persistence_core::{ErrorKind, SecretPersistenceExt};
use secret_persistence_db::{KeyId, KeyRing, Mode, RotateOptions};

use crate::support::{Place, managed, ring, secret, write};

fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

/// Otherwise a wrong ring would write rows that the right one cannot decrypt.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_ring_is_refused_at_open_before_any_write() {
    for place in Place::all("a_wrong_ring_is_refused_at_open").await {
        let right = ring();
        let store = place.open(Mode::Encrypted, Some(&right)).await.unwrap();
        store.write(write(1, "value")).await.unwrap();
        let raw = place.raw().await;
        let meta = "SELECT count(*) FROM secrets_meta";
        assert_eq!(raw.number(meta).await, 1);

        let same_id = KeyRing::generate(id("k1")).unwrap();
        let without = KeyRing::generate(id("k2")).unwrap();
        for (wrong, says) in [
            (&same_id, "`k1` is not the one"),
            (&without, "`k1`, which is missing in the ring"),
        ] {
            for mode in [Mode::Encrypted, Mode::Converting] {
                let error = place.open(mode, Some(wrong)).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidConfig);
                assert!(error.to_string().contains(says), "{error}");
            }
        }
        assert_eq!(raw.number(meta).await, 1);

        // Even if the check values were lost, a row reveals it.
        raw.run("DELETE FROM secrets_meta").await.unwrap();
        let error = place
            .open(Mode::Encrypted, Some(&same_id))
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("decrypts none of the first ones"),
            "{error}"
        );
        let store = place.open(Mode::Encrypted, Some(&right)).await.unwrap();
        assert_eq!(
            store.read(&managed(1).into()).await.unwrap().value,
            secret("value")
        );
        store.close().await;
    }
}

/// Both open an empty table, which has nothing to check yet. The second writer must fail.
#[tokio::test(flavor = "multi_thread")]
async fn two_rings_of_one_id_do_not_both_write() {
    for place in Place::all("two_rings_of_one_id").await {
        let first = place.open(Mode::Encrypted, Some(&ring())).await.unwrap();
        let second = place.open(Mode::Encrypted, Some(&ring())).await.unwrap();
        first.write(write(1, "value")).await.unwrap();
        let error = second.write(write(2, "value")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.coordinate(), Some(managed(2).as_str()));
        let error = second.read(&managed(2).into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        first.close().await;
        second.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_retired_when_no_row_uses_it_and_nobody_writes_under_it_again() {
    for place in Place::all("a_key_is_retired").await {
        let old = ring();
        let before = place.open(Mode::Encrypted, Some(&old)).await.unwrap();
        before.write(write(1, "value")).await.unwrap();

        let mut new = old.clone();
        new.add(id("k2")).unwrap();
        new.activate(&id("k2")).unwrap();
        let store = place.open(Mode::Encrypted, Some(&new)).await.unwrap();
        store.write(write(2, "value")).await.unwrap();

        for (key, says) in [("k1", "1 rows"), ("k2", "active")] {
            let error = store.retire_key(&id(key)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(says), "{error}");
        }
        // After the refusal it still works.
        before.write(write(3, "value")).await.unwrap();

        let rotated = store
            .rotate(&RotateOptions::default(), &|_| {})
            .await
            .unwrap();
        assert_eq!((rotated.rotated, rotated.damaged.len()), (2, 0));
        store.retire_key(&id("k1")).await.unwrap();

        // A process with the old ring must not write rows that the new one cannot decrypt.
        let error = before.write(write(4, "value")).await.unwrap_err();
        assert!(error.to_string().contains("retired"), "{error}");
        let error = before.read(&managed(4).into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        // Nor after a restart, nor with a new key of the old id.
        for ring in [&old, &KeyRing::generate(id("k1")).unwrap()] {
            if let Ok(again) = place.open(Mode::Encrypted, Some(ring)).await {
                let error = again.write(write(5, "value")).await.unwrap_err();
                assert!(error.to_string().contains("retired"), "{error}");
                again.close().await;
            }
        }

        new.remove(&id("k1")).unwrap();
        let store = place.open(Mode::Encrypted, Some(&new)).await.unwrap();
        for number in 1..=3 {
            store.read(&managed(number).into()).await.unwrap();
        }
        before.close().await;
        store.close().await;
    }
}
