//! The conformance suite, with the stand-in for Google Secret Manager.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use e2e::google::{Google, Grant};
use secret_persistence_core::conformance::{self, Options};
use secret_persistence_core::layer::{Layers, RetryOptions, Stack};
use secret_persistence_core::{
    CheckOptions, Coordinate, ErrorKind, Owner, SecretPersistence, SecretPersistenceExt,
};
use secret_persistence_gcp::policy::{PolicyOptions, roles};

use serde_json::Value;
use support::outsider::SomebodyElse;
use support::{Setup, config, coordinate, google, google_with, store, write};

const REGION: &str = "europe-west3";

fn owner() -> Owner {
    Owner::parse("conformance").unwrap()
}

async fn keeps_every_promise(google: &Google, setup: Setup, region: Option<&str>) {
    let setup = setup.owner(owner());
    let store: Arc<dyn SecretPersistence> = Arc::new(setup.clone().connect().await);
    let options = Options::default()
        .with_owner(owner())
        .with_outsider(Arc::new(SomebodyElse::of(google, region).await))
        .with_reopen(move || {
            let setup = setup.clone();
            Box::pin(
                async move { Ok(Arc::new(setup.connect().await) as Arc<dyn SecretPersistence>) },
            )
        });
    let report = conformance::run(&store, &options).await;
    println!("{report}");
    report.assert_passed();
    let left = google.secrets();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn global_secrets_keep_every_promise() {
    let google = google_with(|switches| switches.strict_endpoints = true).await;
    keeps_every_promise(&google, config(&google), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regional_secrets_keep_every_promise() {
    let google = google_with(|switches| switches.strict_endpoints = true).await;
    let setup = config(&google)
        .set("region", REGION)
        .set("endpoint-url", google.regional_endpoint());
    keeps_every_promise(&google, setup, Some(REGION)).await;
}

/// Global secrets with one replica, a customer's key and labels; `latest`, listings and metadata
/// lag.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_lags_behind_keeps_every_promise() {
    let google = google_with(|switches| {
        switches.latest_lag = Duration::from_millis(300);
        switches.list_lag = Duration::from_millis(700);
        switches.omit_checksums = true;
    })
    .await;
    let key = format!("projects/kms-project/locations/{REGION}/keyRings/ring/cryptoKeys/key");
    let setup = config(&google)
        .set("region", REGION)
        .set("replication", "user-managed")
        .set("kms-key", key)
        .set("labels", "team=data");
    keeps_every_promise(&google, setup, None).await;
}

/// With retry and limit, under a quota that the suite far exceeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_project_keeps_every_promise() {
    let google = google_with(|switches| switches.throttle_every = Some(3)).await;
    let store = Arc::new(store(&google).await);
    let retry = RetryOptions::default()
        .with_min_pause(Duration::from_millis(5))
        .with_max_pause(Duration::from_millis(50));
    let store = Layers::over(Stack::over(store).with_retry(retry)).build();
    let report = conformance::run(&store, &Options::default()).await;
    println!("{report}");
    report.assert_passed();
}

/// The roles allow every request of a conformance run, and are minimal: without any one permission,
/// some case fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_roles_are_enough_and_the_least() {
    for region in [None, Some(REGION)] {
        let google = google().await;
        let number = google.project_number().to_string();
        // The suite also reads an external name.
        let mut options = PolicyOptions::new(number).with_external("conformance-");
        let mut setup = config(&google);
        if let Some(region) = region {
            options = options.with_region(region);
            setup = setup.set("region", region);
        }
        let policy = roles(&options).unwrap();
        google.switches(|switches| switches.granted = Some(grants(&policy, None)));
        let store: Arc<dyn SecretPersistence> = Arc::new(setup.connect().await);
        let report = conformance::run(&store, &Options::default()).await;
        report.assert_passed();
        assert!(
            google
                .requests()
                .iter()
                .all(|request| request.status != 403)
        );

        // Other names are not accessible, because of the condition.
        let foreign = Coordinate::parse("somebody-elses").unwrap();
        let error = store.read(&foreign).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
}

/// Without each permission, one operation fails, and the error names it.
#[tokio::test(flavor = "multi_thread")]
async fn every_permission_is_needed_and_named_where_it_is_missing() {
    let google = google().await;
    let number = google.project_number().to_string();
    let policy = roles(&PolicyOptions::new(number)).unwrap();
    let outsider = SomebodyElse::of(&google, None).await;
    let mut named = BTreeSet::new();
    for permission in permissions(&policy) {
        google.switches(|switches| switches.granted = None);
        let store = store(&google).await;
        let there = write("value");
        store.write(there.clone()).await.unwrap();
        let disabled = write("value");
        store.write(disabled.clone()).await.unwrap();
        outsider.disable(disabled.coordinate.as_str(), 1).await;
        let granted = grants(&policy, Some(&permission));
        google.switches(|switches| switches.granted = Some(granted));

        let report = store.check(&CheckOptions::default()).await;
        let of_check = report.failures().map(|(_, error)| error.clone());
        let mut errors: Vec<_> = of_check.collect();
        errors.extend(store.write(write("x")).await.err());
        errors.extend(store.read(&there.coordinate.into()).await.err());
        let unread = store.read(&disabled.coordinate.into()).await.unwrap_err();
        let is_named = errors.iter().any(|error| {
            error.kind() == ErrorKind::PermissionDenied
                && error.message().contains(&permission)
                && error.hint().unwrap().contains("secret-migrate policy gcp")
        }) || unread.hint().unwrap().contains(&permission);
        assert!(is_named, "{permission}: {errors:?} {unread}");
        named.insert(permission);
    }
    assert_eq!(named.len(), 7);
}

/// A reader needs only the read-only roles, and can change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn read_only_roles_read_and_change_nothing() {
    let google = google().await;
    let store = store(&google).await;
    let there = write("value");
    store.write(there.clone()).await.unwrap();
    let number = google.project_number().to_string();
    let policy = roles(&PolicyOptions::new(number).with_read_only(true)).unwrap();
    google.switches(|switches| switches.granted = Some(grants(&policy, None)));
    let name: Coordinate = there.coordinate.clone().into();
    assert_eq!(store.read(&name).await.unwrap().value, there.value);
    store.describe(&there.coordinate).await.unwrap();
    store.list_page(&Default::default(), None).await.unwrap();
    let written = store.write(write("x")).await.unwrap_err();
    let deleted = store
        .delete(&there.coordinate, &Default::default())
        .await
        .unwrap_err();
    for error in [written, deleted] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
}

/// One request per secret, as many concurrently as allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_secrets_are_a_hundred_requests_at_fifty_at_once() {
    let google = google().await;
    let store = store(&google).await;
    let writes: Vec<_> = (0..100).map(|n| write(&format!("value {n}"))).collect();
    for written in store.write_many(&writes).await {
        written.unwrap();
    }
    assert_eq!(google.count("CreateSecret"), 100);
    assert_eq!(google.count("AddSecretVersion"), 100);
    google.switches(|switches| switches.latency = Duration::from_millis(50));
    google.reset();
    let names: Vec<Coordinate> = writes
        .iter()
        .map(|write| write.coordinate.clone().into())
        .collect();
    for (read, write) in store.read_many(&names).await.into_iter().zip(&writes) {
        assert_eq!(read.unwrap().value, write.value);
    }
    assert_eq!(google.count("AccessSecretVersion"), 100);
    assert_eq!(google.requests().len(), 100);
    let most = google.in_flight_maximum();
    assert!((40..=50).contains(&most), "{most} at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_works() {
    let google = google().await;
    let store = config(&google).owner(owner()).connect().await;
    let report = store.check(&CheckOptions::default()).await;
    assert!(report.to_string().contains("works"), "{report}");
    assert_eq!(report.failures().count(), 0, "{report}");
    let identity = report.identity.unwrap();
    assert_eq!(identity.principal, google.service_account());
    assert_eq!(identity.location, format!("project {}", google.project()));
    assert!(google.secrets().is_empty());

    google.switches(|switches| switches.deny("secretmanager.secrets.delete"));
    let report = store.check(&CheckOptions::default()).await;
    let summary = report.summary();
    assert!(summary.contains("works, cannot delete"), "{report}");
    let _ = coordinate();
}

fn permissions(policy: &Value) -> Vec<String> {
    let roles = policy["roles"].as_array().unwrap();
    roles
        .iter()
        .flat_map(|role| role["includedPermissions"].as_array().unwrap())
        .map(|permission| permission.as_str().unwrap().to_owned())
        .collect()
}

/// The permissions of the roles and their conditions, without one permission. A small evaluator of
/// conditions: it panics for anything unknown, so that no condition is true because it was
/// misunderstood.
fn grants(policy: &Value, without: Option<&str>) -> Vec<Grant> {
    let roles = policy["roles"].as_array().unwrap().iter();
    roles
        .zip(policy["bindings"].as_array().unwrap())
        .map(|(role, binding)| {
            let bound = binding["role"].as_str().unwrap();
            assert!(bound.ends_with(role["roleId"].as_str().unwrap()));
            let permissions = role["includedPermissions"].as_array().unwrap();
            let permissions = permissions
                .iter()
                .map(|permission| permission.as_str().unwrap())
                .filter(|permission| Some(*permission) != without);
            let mut grant = Grant::new(permissions);
            if let Some(condition) = binding.get("condition") {
                let expression = condition["expression"].as_str().unwrap();
                for call in expression.split(" || ") {
                    let prefix = call
                        .strip_prefix("resource.name.startsWith(\"")
                        .and_then(|rest| rest.strip_suffix("\")"))
                        .unwrap_or_else(|| panic!("an unknown condition: {call}"));
                    assert!(!prefix.contains('"'));
                    grant = grant.on_names_beginning(prefix);
                }
            }
            grant
        })
        .collect()
}
