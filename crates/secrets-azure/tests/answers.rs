//! Responses of the vault and their errors: refusals, states, name collisions, external secrets.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use e2e::Logs;
use std::time::{Duration, Instant};

use e2e::azure::{Firewall, PermissionModel};
use secret_persistence_azure::{COORDINATE_TAG, Config, OWNER_TAG};
use secret_persistence_core::{
    Coordinate, DeleteOptions, Entry, Error, ErrorKind, ListOptions, ManagedCoordinate, Owner,
    Recovery, SecretPersistence, SecretPersistenceExt, SecretValue, Timestamp, Write, Written,
};
use serde_json::json;
use support::{Setup, SomebodyElse, config, coordinate, name_of, open, stand_in, write};
use uuid::Uuid;

fn managed(name: &str) -> ManagedCoordinate {
    ManagedCoordinate::parse(name).unwrap()
}

/// The parts of an error for the operator.
fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "`{part}`: {error}");
    }
}

const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_refusal_names_what_to_grant_and_how_the_vault_decides() {
    let azure = stand_in().await;
    let store = open(config(&azure).set("purge", "on-request")).await;
    let there = write();
    store.write(there.clone()).await.unwrap();
    azure.switches(|switches| switches.allow_only(&[]));
    let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
    let name = there.coordinate.clone();
    for (model, words) in [
        (
            PermissionModel::Roles,
            [
                "data action Microsoft.KeyVault/vaults/secrets/getSecret/action",
                "readMetadata/action",
                "--wait",
            ],
        ),
        (
            PermissionModel::AccessPolicy,
            ["secret permission `get`", "permission `list`", "object id"],
        ),
    ] {
        azure.switches(|switches| switches.permission_model = model);
        for error in [
            store.read(&name.clone().into()).await.unwrap_err(),
            store.write(write()).await.unwrap_err(),
            store.delete(&name, &immediate).await.unwrap_err(),
            store.describe(&name).await.unwrap_err(),
        ] {
            says(
                &error,
                ErrorKind::PermissionDenied,
                &[words[0], words[2], "secret-migrate policy azure"],
            );
        }
        let error = store
            .list_page(&ListOptions::default(), None)
            .await
            .unwrap_err();
        says(&error, ErrorKind::PermissionDenied, &[words[1]]);
    }
    azure.switches(|switches| {
        switches.permission_model = PermissionModel::Roles;
        switches.allow_all();
        switches.deny("Microsoft.KeyVault/vaults/secrets/setSecret/action");
        switches.deny("Microsoft.KeyVault/vaults/secrets/delete");
        switches.deny("Microsoft.KeyVault/vaults/secrets/recover/action");
    });
    let error = store.write(write()).await.unwrap_err();
    says(
        &error,
        ErrorKind::PermissionDenied,
        &["secrets/setSecret/action"],
    );
    let error = store.delete(&name, &immediate).await.unwrap_err();
    says(
        &error,
        ErrorKind::PermissionDenied,
        &["Microsoft.KeyVault/vaults/secrets/delete in"],
    );
}

#[tokio::test]
async fn a_firewall_is_not_taken_for_a_missing_right() {
    let azure = stand_in().await;
    let store = open(config(&azure)).await;
    for firewall in [Firewall::AddressNotAllowed, Firewall::PublicAccessDisabled] {
        azure.switches(|switches| switches.firewall = firewall);
        let error = store.read(&coordinate().into()).await.unwrap_err();
        says(
            &error,
            ErrorKind::PermissionDenied,
            &["firewall", "network-rule", "permissions are not the cause"],
        );
    }
}

#[tokio::test]
async fn a_disabled_secret_is_told_described_and_deleted() {
    let azure = stand_in().await;
    let store = open(config(&azure)).await;
    let there = write();
    store.write(there.clone()).await.unwrap();
    azure.switches(|switches| {
        switches.disabled.insert(name_of(&there.coordinate));
    });
    let error = store
        .read(&there.coordinate.clone().into())
        .await
        .unwrap_err();
    says(
        &error,
        ErrorKind::PermissionDenied,
        &["disabled", "set-attributes --enabled true"],
    );
    let error = store.write(there.clone()).await.unwrap_err();
    says(&error, ErrorKind::PermissionDenied, &["disabled"]);
    let entry = store.describe(&there.coordinate).await.unwrap();
    assert_eq!(entry.tags[COORDINATE_TAG], there.coordinate.as_str());
    store
        .delete(&there.coordinate, &DeleteOptions::default())
        .await
        .unwrap();
    tokio::time::sleep(SOON).await;
    let read = async || store.read(&there.coordinate.clone().into()).await;
    assert_eq!(read().await.unwrap_err().kind(), ErrorKind::PendingDeletion);
    store.restore(&there.coordinate).await.unwrap();
    says(
        &read().await.unwrap_err(),
        ErrorKind::PermissionDenied,
        &["disabled"],
    );
}

#[tokio::test]
async fn throttling_and_outages_say_when_to_come_back() {
    let azure = stand_in().await;
    let store = open(config(&azure)).await;
    let _ = store.read(&coordinate().into()).await;
    azure.switches(|switches| {
        switches.throttle_every = Some(1);
        switches.retry_after = Some(7);
    });
    let error = store.read(&coordinate().into()).await.unwrap_err();
    says(&error, ErrorKind::Throttled, &["lower rate"]);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    azure.switches(|switches| {
        switches.throttle_every = None;
        switches.failure = Some(503);
    });
    let error = store.read(&coordinate().into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn what_cannot_be_reached_says_why() {
    let azure = stand_in().await;
    let connected = async |config: Config| {
        let store = secret_persistence_azure::AzureKeyVault::connect(config)
            .await
            .unwrap();
        store.read(&coordinate().into()).await.unwrap_err()
    };
    // A misspelt vault name.
    let error = connected(
        Setup::new("https://no-such-vault-at-all.vault.azure.net.invalid")
            .build()
            .unwrap(),
    )
    .await;
    says(
        &error,
        ErrorKind::Unavailable,
        &[
            "no-such-vault-at-all",
            "does not resolve",
            "spelt correctly",
        ],
    );
    // Nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = connected(
        Setup::new(&format!("https://localhost:{port}"))
            .build()
            .unwrap(),
    )
    .await;
    says(&error, ErrorKind::Unavailable, &["refuses the connection"]);
    // An untrusted certificate.
    let error = connected(Setup::new(&azure.vault_url()).build().unwrap()).await;
    says(
        &error,
        ErrorKind::InvalidConfig,
        &["no trusted TLS connection", "ca-file"],
    );
    // An expired one.
    let authority = e2e::Authority::new().unwrap();
    let address = authority.serve_expired().await.unwrap();
    let expired = Setup::new(&format!("https://localhost:{}", address.port()))
        .set("ca-file", authority.ca_file().display())
        .build()
        .unwrap();
    let error = connected(expired).await;
    says(
        &error,
        ErrorKind::InvalidConfig,
        &["certificate has expired"],
    );
    // A slow vault.
    azure.switches(|switches| switches.latency = Duration::from_secs(5));
    let error = connected(config(&azure).set("timeout-seconds", 1).build().unwrap()).await;
    says(&error, ErrorKind::Unavailable, &["in time"]);
    let missing = config(&azure)
        .set("ca-file", "/no/such/file.pem")
        .build()
        .unwrap();
    let error = secret_persistence_azure::AzureKeyVault::connect(missing)
        .await
        .unwrap_err();
    says(&error, ErrorKind::InvalidConfig, &["/no/such/file.pem"]);
}

/// Two coordinates with one name: the caller of the second one gets an error, and nothing is
/// changed.
#[tokio::test]
async fn a_collision_is_an_integrity_error_and_changes_nothing() {
    let azure = stand_in().await;
    let store = open(config(&azure)).await;
    let id = Uuid::new_v4();
    let first = managed(&format!("airbyte_team_a_{id}_v1"));
    let second = managed(&format!("airbyte_team-a_{id}_v1"));
    let value = SecretValue::new("the first".to_owned());
    store
        .write(Write::new(first.clone(), value.clone()))
        .await
        .unwrap();
    let other = Write::new(second.clone(), SecretValue::new("the second".to_owned()));
    for error in [
        store.read(&second.clone().into()).await.unwrap_err(),
        store.write(other.clone()).await.unwrap_err(),
        store
            .write(Write::new(second.clone(), value.clone()))
            .await
            .unwrap_err(),
        store
            .delete(&second, &DeleteOptions::default())
            .await
            .unwrap_err(),
        store.describe(&second).await.unwrap_err(),
        store.restore(&second).await.unwrap_err(),
    ] {
        says(
            &error,
            ErrorKind::Integrity,
            &["another coordinate", "nothing was changed"],
        );
    }
    let read = store.read(&first.clone().into()).await.unwrap();
    assert_eq!(read.value, value);
    let outside = SomebodyElse::new(&azure);
    assert_eq!(outside.versions(&name_of(&first)).await, 1);
    // Also if it is soft-deleted: it is not recovered or purged for another coordinate.
    store
        .delete(&first, &DeleteOptions::default())
        .await
        .unwrap();
    tokio::time::sleep(SOON).await;
    for on_deleted in ["recover", "purge"] {
        let store = open(
            config(&azure)
                .set("on-deleted", on_deleted)
                .set("purge", "always"),
        )
        .await;
        let error = store.write(other.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
        let error = store
            .delete(&second, &DeleteOptions::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
        let error = store.restore(&second).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    }
    store.restore(&first).await.unwrap();
}

/// Secrets that Airbyte wrote have none of our tags. They are still read, listed, kept and deleted.
#[tokio::test]
async fn what_airbyte_wrote_is_taken_over() {
    let azure = stand_in().await;
    let outside = SomebodyElse::new(&azure);
    let theirs = coordinate();
    let value = SecretValue::new("theirs".to_owned());
    outside
        .set(&name_of(&theirs), json!({ "value": "theirs" }))
        .await;
    outside
        .set("db-password", json!({ "value": "of nobody" }))
        .await;
    outside
        .set("airbyte-odd-v1", json!({ "value": "of no known shape" }))
        .await;
    let store = open(config(&azure)).await;
    let read = store.read(&theirs.clone().into()).await.unwrap();
    assert_eq!(read.value, value);
    let again = store
        .write(Write::new(theirs.clone(), value))
        .await
        .unwrap();
    assert_eq!(again, Written::AlreadySame);
    let page = store
        .list_page(&ListOptions::default(), None)
        .await
        .unwrap();
    let listed: Vec<&ManagedCoordinate> =
        page.entries.iter().map(|entry| &entry.coordinate).collect();
    assert_eq!(listed, [&theirs]);
    assert_eq!(page.skipped, 2);
    assert_eq!(page.entries[0].owner, None);
    // Names ignore case.
    let other = managed(
        &theirs
            .as_str()
            .to_uppercase()
            .replace("AIRBYTE", "airbyte")
            .replace("_V1", "_v1"),
    );
    assert!(store.read(&other.into()).await.is_ok());
    store
        .delete(&theirs, &DeleteOptions::default())
        .await
        .unwrap();
    assert!(store.read(&theirs.into()).await.is_err());
    let external = Coordinate::parse("db-password").unwrap();
    assert_eq!(
        store.read(&external).await.unwrap().value.expose(),
        "of nobody"
    );
}

#[tokio::test]
async fn a_write_brings_tags_owner_and_expiry_and_adds_no_version() {
    let azure = stand_in().await;
    let builder = config(&azure)
        .owner(Owner::parse("prod").unwrap())
        .set("tags", "team=data,cost centre=a=b");
    let store = open(builder).await;
    let expires: Timestamp = "2099-01-02T03:04:05Z".parse().unwrap();
    let there = write().with_expires(Some(expires));
    for expected in [Written::Created, Written::AlreadySame, Written::AlreadySame] {
        assert_eq!(store.write(there.clone()).await.unwrap(), expected);
    }
    let other = Write::new(
        there.coordinate.clone(),
        SecretValue::new("other".to_owned()),
    );
    let error = store.write(other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let outside = SomebodyElse::new(&azure);
    let name = name_of(&there.coordinate);
    assert_eq!(outside.versions(&name).await, 1);
    let stored = outside.look(&name).await;
    assert_eq!(stored["tags"]["team"], "data");
    assert_eq!(stored["tags"]["cost centre"], "a=b");
    assert_eq!(stored["tags"][OWNER_TAG], "prod");
    assert_eq!(stored["tags"][COORDINATE_TAG], there.coordinate.as_str());
    assert_eq!(stored["attributes"]["exp"], expires.unix_seconds());
    let read = store.read(&there.coordinate.clone().into()).await.unwrap();
    assert_eq!(read.expires, Some(expires));
    let entry = store.describe(&there.coordinate).await.unwrap();
    assert_eq!(
        (entry.owner.as_deref(), entry.expires),
        (Some("prod"), Some(expires))
    );
    assert!(entry.created.is_some() && !entry.pending_deletion);
}

#[tokio::test]
async fn names_and_sizes_are_checked_before_any_request() {
    let azure = stand_in().await;
    let store = open(config(&azure)).await;
    let limit = 25_600;
    let large = SecretValue::new("x".repeat(limit));
    let fits = Write::new(coordinate(), large);
    store.write(fits.clone()).await.unwrap();
    assert_eq!(
        store.read(&fits.coordinate.into()).await.unwrap().value,
        fits.value
    );
    azure.reset();
    for (value, kind) in [
        ("x".repeat(limit + 1), ErrorKind::PayloadTooLarge),
        ("é".repeat(limit / 2 + 1), ErrorKind::PayloadTooLarge),
        (String::new(), ErrorKind::InvalidValue),
        ("a\0b".to_owned(), ErrorKind::InvalidValue),
    ] {
        let error = store
            .write(Write::new(coordinate(), SecretValue::new(value)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    for name in [
        "team/db",
        "db_password",
        "db.password",
        "ключ",
        &"x".repeat(128),
    ] {
        let error = store
            .read(&Coordinate::parse(name).unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCoordinate, "{error}");
    }
    assert_eq!(azure.requests().len(), 0);
}

/// The request was executed but its response was lost: the same write finds its own value.
#[tokio::test]
async fn an_interrupted_write_is_recognised() {
    let azure = stand_in().await;
    let store = open(config(&azure)).await;
    let there = write();
    azure.switches(|switches| switches.drop_after_work = 1);
    let error = store.write(there.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
    assert_eq!(
        store.write(there.clone()).await.unwrap(),
        Written::AlreadySame
    );
    azure.switches(|switches| switches.drop_after_work = 1);
    let options = DeleteOptions::default();
    assert!(store.delete(&there.coordinate, &options).await.is_err());
    store.delete(&there.coordinate, &options).await.unwrap();
    assert_eq!(
        SomebodyElse::new(&azure)
            .send(
                reqwest::Method::GET,
                &format!("secrets/{}", name_of(&there.coordinate)),
                None
            )
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn a_deleted_name_is_refused_recovered_or_purged_as_configured() {
    let azure = stand_in().await;
    let refusing = open(config(&azure)).await;
    let there = write();
    let other = Write::new(
        there.coordinate.clone(),
        SecretValue::new("another".to_owned()),
    );
    let options = DeleteOptions::default();
    refusing.write(there.clone()).await.unwrap();
    refusing.delete(&there.coordinate, &options).await.unwrap();
    tokio::time::sleep(SOON).await;
    let error = refusing.write(there.clone()).await.unwrap_err();
    says(&error, ErrorKind::PendingDeletion, &["on-deleted"]);
    let entry = refusing.describe(&there.coordinate).await.unwrap();
    assert!(entry.pending_deletion);

    let recovering = open(config(&azure).set("on-deleted", "recover")).await;
    assert_eq!(
        recovering.write(there.clone()).await.unwrap(),
        Written::AlreadySame
    );
    assert_eq!(
        refusing
            .read(&there.coordinate.clone().into())
            .await
            .unwrap()
            .value,
        there.value
    );
    recovering
        .delete(&there.coordinate, &options)
        .await
        .unwrap();
    // It is already being deleted.
    let error = recovering.write(other.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");

    let purging = open(config(&azure).set("on-deleted", "purge")).await;
    purging.delete(&there.coordinate, &options).await.unwrap();
    assert_eq!(
        purging.write(other.clone()).await.unwrap(),
        Written::Created
    );
    assert_eq!(
        refusing
            .read(&there.coordinate.clone().into())
            .await
            .unwrap()
            .value,
        other.value
    );
    // A name that cannot be purged is an error.
    azure.switches(|switches| switches.purge_protection = true);
    purging.delete(&there.coordinate, &options).await.unwrap();
    let error = purging.write(there).await.unwrap_err();
    says(&error, ErrorKind::PendingDeletion, &["purge protection"]);
}

#[tokio::test]
async fn waiting_follows_the_vault_has_an_end_and_can_be_given_up() {
    let azure = stand_in().await;
    let store = open(config(&azure).set("wait-seconds", 1)).await;
    let there = write();
    let options = DeleteOptions::default();
    store.write(there.clone()).await.unwrap();
    store.delete(&there.coordinate, &options).await.unwrap();
    tokio::time::sleep(SOON).await;
    azure.switches(|switches| switches.recovering = Duration::from_millis(400));
    let started = Instant::now();
    store.restore(&there.coordinate).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(350));
    store.read(&there.coordinate.clone().into()).await.unwrap();

    store.delete(&there.coordinate, &options).await.unwrap();
    tokio::time::sleep(SOON).await;
    azure.switches(|switches| switches.recovering = Duration::from_secs(60));
    let started = Instant::now();
    let error = store.restore(&there.coordinate).await.unwrap_err();
    says(&error, ErrorKind::Conflict, &["wait-seconds"]);
    assert!(error.is_retryable());
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );

    // A dropped future stops polling.
    let another = write();
    store.write(another.clone()).await.unwrap();
    store.delete(&another.coordinate, &options).await.unwrap();
    tokio::time::sleep(SOON).await;
    let restore = store.restore(&another.coordinate);
    assert!(
        tokio::time::timeout(Duration::from_millis(400), restore)
            .await
            .is_err()
    );
    azure.reset();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(azure.requests().len(), 0);
}

#[tokio::test]
async fn a_secret_that_is_being_deleted_is_a_conflict_to_others() {
    let azure = stand_in().await;
    let store = open(config(&azure)).await;
    let there = write();
    store.write(there.clone()).await.unwrap();
    azure.switches(|switches| switches.deleting = Duration::from_millis(500));
    store
        .delete(&there.coordinate, &DeleteOptions::default())
        .await
        .unwrap();
    store
        .delete(&there.coordinate, &DeleteOptions::default())
        .await
        .unwrap();
    let error = store.write(there.clone()).await.unwrap_err();
    says(&error, ErrorKind::Conflict, &["being deleted"]);
    assert!(error.is_retryable());
    tokio::time::sleep(Duration::from_millis(600)).await;
    let error = store.write(there).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PendingDeletion);
}

/// With purge protection, or without permission to purge, the delete still succeeds, with a
/// warning.
#[tokio::test]
async fn a_purge_that_is_not_allowed_is_a_remark() {
    let logs = Logs::default();
    let _guard = tracing::dispatcher::set_default(&logs.dispatch());
    for protected in [true, false] {
        let azure = stand_in().await;
        azure.switches(|switches| {
            switches.purge_protection = protected;
            if !protected {
                switches.deny("Microsoft.KeyVault/vaults/secrets/purge/action");
            }
        });
        let store = open(config(&azure).set("purge", "always")).await;
        assert!(!store.capabilities().recovery);
        let before = logs.text().matches("not purged").count();
        for _ in 0..3 {
            let there = write();
            store.write(there.clone()).await.unwrap();
            store
                .delete(&there.coordinate, &DeleteOptions::default())
                .await
                .unwrap();
            tokio::time::sleep(SOON).await;
            let error = store.read(&there.coordinate.into()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PendingDeletion);
        }
        // From now on it can be restored, and purges are not tried.
        assert!(store.capabilities().recovery);
        assert!(azure.count("PurgeDeletedSecret") <= 1);
        assert_eq!(logs.text().matches("not purged").count(), before + 1);
    }
}

#[tokio::test]
async fn deleted_secrets_are_listed_after_the_others_page_by_page() {
    let azure = stand_in().await;
    let store = open(config(&azure).owner(Owner::parse("prod").unwrap())).await;
    let all: Vec<Write> = (0..7).map(|_| write()).collect();
    for write in &all {
        store.write(write.clone()).await.unwrap();
    }
    for write in &all[..4] {
        store
            .delete(&write.coordinate, &DeleteOptions::default())
            .await
            .unwrap();
    }
    tokio::time::sleep(SOON).await;
    let options = ListOptions::default().with_page_size(2).with_deleted(true);
    let (mut entries, mut after, mut pages): (Vec<Entry>, _, _) = (Vec::new(), None, 0);
    loop {
        let page = store.list_page(&options, after.as_ref()).await.unwrap();
        assert!(page.entries.len() <= 2);
        entries.extend(page.entries);
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(pages >= 4, "{pages} pages");
    assert_eq!(entries.len(), 7);
    for entry in &entries {
        let deleted = all[..4]
            .iter()
            .any(|write| write.coordinate == entry.coordinate);
        assert_eq!(entry.pending_deletion, deleted);
        assert_eq!(entry.owner.as_deref(), Some("prod"));
    }
    let plain = ListOptions::default().with_prefix(all[5].coordinate.base());
    let page = store.list_page(&plain, None).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.skipped, 0);
}
