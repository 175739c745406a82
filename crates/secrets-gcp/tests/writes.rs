//! The two steps of a write: the state between them, their completion, and concurrent writers.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use e2e::google::When;
use secret_persistence_core::layer::{Layers, RetryOptions, Stack};
use secret_persistence_core::{
    ErrorKind, ListOptions, Owner, SecretPersistence, SecretPersistenceExt, SecretValue, Timestamp,
    Write, Written,
};
use secret_persistence_gcp::OWNER_LABEL;
use support::outsider::SomebodyElse;
use support::{config, coordinate, google, google_with, store, write};

const REGION: &str = "europe-west3";

/// A crash between the two requests, and everything that may follow. Without the completion, a
/// saved configuration would point to a secret without a value forever.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_version_never_came_is_completed_or_removed() {
    let google = google().await;
    for when in [When::BeforeWork, When::AfterWork] {
        let write = write("the value");
        google.switches(|switches| switches.cut("AddSecretVersion", when));
        let first = store(&google).await;
        let lost = first.write(write.clone()).await.unwrap_err();
        assert!(lost.is_retryable(), "{lost}");
        let read = first.read(&write.coordinate.clone().into()).await;
        let arrived = when == When::AfterWork;
        assert_eq!(read.is_ok(), arrived);
        if let Err(error) = read {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
        // By the interrupted process, which remembers, and by another one.
        let again = if arrived { first } else { store(&google).await };
        let written = again.write(write.clone()).await.unwrap();
        let expected = if arrived {
            Written::AlreadySame
        } else {
            Written::Created
        };
        assert_eq!(written, expected);
        let versions = google.versions(&secret(&google, write.coordinate.as_str()));
        assert_eq!(versions.len(), 1, "{versions:?}");
        let read = again.read(&write.coordinate.clone().into()).await.unwrap();
        assert_eq!(read.value, write.value);
    }
    // Deleted by a caller that gives up.
    let write = write("the value");
    google.switches(|switches| switches.cut("AddSecretVersion", When::BeforeWork));
    let store = store(&google).await;
    store.write(write.clone()).await.unwrap_err();
    assert_eq!(google.secrets().len(), 3);
    store
        .delete(&write.coordinate, &Default::default())
        .await
        .unwrap();
    assert_eq!(google.secrets().len(), 2);
    // And written again, although the store remembers the first half.
    assert_eq!(store.write(write).await.unwrap(), Written::Created);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_was_lost_is_the_same_write() {
    let google = google().await;
    let store = store(&google).await;
    let write = write("once\nonly");
    google.switches(|switches| switches.cut("CreateSecret", When::AfterWork));
    let lost = store.write(write.clone()).await.unwrap_err();
    assert!(lost.is_retryable(), "{lost}");
    assert_eq!(store.write(write.clone()).await.unwrap(), Written::Created);
    assert_eq!(store.write(write).await.unwrap(), Written::AlreadySame);
}

/// Two writers complete an interrupted write at once: both versions have the same value, and both
/// remain.
#[tokio::test(flavor = "multi_thread")]
async fn two_that_complete_at_once_agree() {
    let google = google().await;
    let outsider = SomebodyElse::of(&google, None).await;
    let mut doubled = 0;
    for _ in 0..20 {
        let write = write("the value");
        outsider.create(write.coordinate.as_str()).await;
        let stores = [store(&google).await, store(&google).await];
        google.switches(|switches| switches.latency = Duration::from_millis(5));
        let (one, two) = futures::join!(
            stores[0].write(write.clone()),
            stores[1].write(write.clone())
        );
        google.switches(|switches| switches.latency = Duration::ZERO);
        let created = [one.unwrap(), two.unwrap()];
        let created = created.iter().filter(|w| **w == Written::Created).count();
        assert_eq!(created, 1);
        let versions = google.versions(&secret(&google, write.coordinate.as_str()));
        assert!(versions.iter().all(|(_, state)| state == "ENABLED"));
        doubled += usize::from(versions.len() == 2);
        for store in &stores {
            let read = store.read(&write.coordinate.clone().into()).await.unwrap();
            assert_eq!(read.value, write.value);
            let again = store.write(write.clone()).await.unwrap();
            assert_eq!(again, Written::AlreadySame);
        }
    }
    assert!(doubled > 0, "the race was never run");
}

/// Another value under our name, in any version, is never treated as ours.
#[tokio::test(flavor = "multi_thread")]
async fn another_value_in_any_version_is_already_there() {
    let google = google().await;
    let outsider = SomebodyElse::of(&google, None).await;
    for (versions, expected) in [
        (&["ours"][..], Ok(Written::AlreadySame)),
        (&["theirs"], Err(ErrorKind::AlreadyExists)),
        // As Airbyte leaves it, which adds a version with every save.
        (&["ours", "ours"], Ok(Written::AlreadySame)),
        (&["theirs", "ours"], Err(ErrorKind::AlreadyExists)),
        (&["ours", "theirs"], Err(ErrorKind::AlreadyExists)),
    ] {
        // Read directly, with a lagging `latest`, and by a store that remembers an interruption.
        for lag in [Duration::ZERO, Duration::from_secs(600)] {
            let name = coordinate();
            outsider.create(name.as_str()).await;
            for value in versions {
                outsider.add(name.as_str(), value.as_bytes()).await;
            }
            if lag.is_zero() {
                google.age(Duration::from_secs(3600));
            }
            google.switches(|switches| switches.latest_lag = lag);
            let write = Write::new(name, SecretValue::new("ours".into()));
            let written = store(&google).await.write(write).await;
            // A lagging version is invisible: the first one then decides.
            let expected = match (lag.is_zero(), versions) {
                (false, ["ours", "theirs"]) => Ok(Written::AlreadySame),
                _ => expected,
            };
            let got = written.map_err(|error| error.kind());
            assert_eq!(got, expected, "{versions:?}, lag {lag:?}");
        }
    }
}

/// A single writer under a quota that refuses every second or third request succeeds: each attempt
/// gets further than the previous one.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_writer_comes_to_its_end() {
    for every in [2, 3, 4] {
        let google = google_with(|switches| switches.throttle_every = Some(every)).await;
        let retry = RetryOptions::default()
            .with_min_pause(Duration::from_millis(1))
            .with_max_pause(Duration::from_millis(5));
        let layered =
            Layers::over(Stack::over(Arc::new(store(&google).await)).with_retry(retry)).build();
        for _ in 0..10 {
            let write = write("the value");
            layered.write(write.clone()).await.unwrap();
            let again = layered.write(write.clone()).await.unwrap();
            assert_eq!(again, Written::AlreadySame);
            let versions = google.versions(&secret(&google, write.coordinate.as_str()));
            assert_eq!(versions.len(), 1);
        }
        // Stopped at any step, by a process that ends: the next one remembers nothing.
        let write = write("the value");
        google.switches(|switches| switches.cut("AddSecretVersion", When::BeforeWork));
        let _ = store(&google).await.write(write.clone()).await;
        layered.write(write.clone()).await.unwrap();
        let read = layered.read(&write.coordinate.into()).await.unwrap();
        assert_eq!(read.value, write.value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_about_a_secret_goes_into_its_create() {
    let google = google().await;
    let key = |location: &str| {
        format!("projects/kms-project/locations/{location}/keyRings/ring/cryptoKeys/key")
    };
    let expires: Timestamp = "2031-02-03T04:05:06Z".parse().unwrap();
    for (region, user_managed, location) in [
        (None, false, "global"),
        (Some(REGION), false, REGION),
        (Some(REGION), true, REGION),
    ] {
        let mut setup = config(&google)
            .set("labels", "team=data")
            .set("kms-key", key(location))
            .owner(Owner::parse("prod").unwrap());
        if user_managed {
            setup = setup.set("replication", "user-managed");
        }
        if let Some(region) = region {
            setup = setup.set("region", region);
        }
        let store = setup.connect().await;
        let write = write("v").with_expires(Some(expires));
        store.write(write.clone()).await.unwrap();
        let entry = store.describe(&write.coordinate).await.unwrap();
        let tags: Vec<(&str, &str)> = entry
            .tags
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(tags, [(OWNER_LABEL, "prod"), ("team", "data")]);
        assert_eq!(entry.owner.as_deref(), Some("prod"));
        assert_eq!(entry.expires, Some(expires));
        assert_eq!(entry.key, Some(key(location)));
        assert!(entry.created.is_some());
        let options = ListOptions::default()
            .with_prefix(write.coordinate.as_str())
            .with_details(true);
        let page = store.list_page(&options, None).await.unwrap();
        assert_eq!(page.entries, [entry]);
        let regional = region.is_some() && !user_managed;
        assert_eq!(
            google
                .secrets()
                .iter()
                .any(|name| name.contains("/locations/")
                    && name.ends_with(write.coordinate.as_str())),
            regional
        );
        store
            .delete(&write.coordinate, &Default::default())
            .await
            .unwrap();
    }
    // The replica is in the requested location.
    let setup = config(&google)
        .set("region", REGION)
        .set("replication", "user-managed");
    let write = write("v");
    let store = setup.connect().await;
    store.write(write.clone()).await.unwrap();
    let outsider = SomebodyElse::of(&google, None).await;
    let seen = outsider.labels(write.coordinate.as_str()).await;
    let replicas = &seen.replication.unwrap();
    let replicas = &replicas.user_managed().unwrap().replicas;
    assert_eq!(replicas.len(), 1);
    assert_eq!(replicas[0].location, REGION);
}

/// Google enforces the expiry, and refuses one that is too near.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_gone() {
    let google = google().await;
    let store = store(&google).await;
    let soon = Timestamp::now().saturating_add(Duration::from_secs(300));
    let write_soon = write("v").with_expires(Some(soon));
    store.write(write_soon.clone()).await.unwrap();
    let name = write_soon.coordinate.clone().into();
    store.read(&name).await.unwrap();
    google.age(Duration::from_secs(301));
    let gone = store.read(&name).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert!(gone.message().contains("has expired"), "{gone}");

    for expires in ["2001-01-01T00:00:00Z".parse().unwrap(), Timestamp::now()] {
        let refused = store
            .write(write("v").with_expires(Some(expires)))
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidValue, "{refused}");
        assert!(refused.message().contains("expire within a minute"));
    }
    assert!(google.secrets().is_empty());
}

fn secret(google: &e2e::google::Google, id: &str) -> String {
    let names = google.secrets();
    let found = names.into_iter().find(|name| name.ends_with(id));
    found.unwrap_or_else(|| format!("projects/{}/secrets/{id}", google.project()))
}
