//! A platform that is not Airbyte, with a prefix of its own. One process has one prefix, so these
//! tests are a program of their own.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "conformance", feature = "sqlite"))]

use std::sync::Arc;

use secret_persistence::connector::{ConnectorOptions, ConnectorSecrets, ConnectorSpec, Policy};
use secret_persistence::{
    Actor, Coordinate, DeleteOptions, Environment, ErrorKind, ListOptions, ManagedCoordinate,
    ManagedPrefix, Memory, Scope, SecretPersistence, SecretPersistenceExt as _, SecretValue,
    Settings, Stores, conformance,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

fn environment(prefix: &str) -> Environment {
    Environment::from_iter([("SECRETS_MANAGED_PREFIX", prefix)])
}

async fn store(folder: &TempDir) -> Arc<dyn SecretPersistence> {
    let environment = environment("acme_");
    environment.install_managed_prefix().unwrap();
    let url = format!("sqlite:{}/secrets.db?mode=plain", folder.path().display());
    let settings = Settings::from_url(&url, &environment).unwrap();
    secret_persistence::connect(settings).await.unwrap()
}

async fn names(store: &dyn SecretPersistence) -> Vec<ManagedCoordinate> {
    let page = store.list_page(&ListOptions::default(), None).await;
    let entries = page.unwrap().entries;
    entries.into_iter().map(|entry| entry.coordinate).collect()
}

#[tokio::test]
async fn a_store_keeps_its_promises_under_another_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let report = conformance::run(&store, &conformance::Options::default()).await;
    report.assert_passed();
}

#[tokio::test]
async fn a_connector_is_created_updated_hydrated_and_cleaned_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let spec = ConnectorSpec::compile(&json!({"properties": {"key": {"airbyte_secret": true}}}));
    let (spec, scope) = (
        spec.unwrap(),
        Scope::new("project_", Uuid::new_v4()).unwrap(),
    );
    let secrets = ConnectorSecrets::new(Stores::new(store.clone()), ConnectorOptions::default())
        .acting_as(&Actor::new("maria"));

    let staged = secrets.stage_create(&spec, &scope, json!({"key": "one"}));
    let staged = staged.await.unwrap();
    let first = staged.config().clone();
    assert!(staged.commit().await.unwrap().is_finished());
    let name = first["key"]["_secret"].as_str().unwrap();
    assert!(name.starts_with(&format!("acme_project_{}_secret_", scope.base_id())));

    let staged = secrets.stage_update(&spec, &scope, first.clone(), json!({"key": "two"}));
    let staged = staged.await.unwrap();
    let second = staged.config().clone();
    let cleanup = staged.commit().await.unwrap();
    assert_eq!(cleanup.deleted.len(), 1, "{cleanup:?}");
    assert_eq!(secrets.hydrate(second.clone()).await.unwrap()["key"], "two");
    // The superseded secret is gone, and the new one is listed.
    let listed = names(&*store).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(Some(listed[0].as_str()), second["key"]["_secret"].as_str());
    store
        .delete(&listed[0], &DeleteOptions::default())
        .await
        .unwrap();
    assert!(names(&*store).await.is_empty());
}

/// What Airbyte and people named stays as it is: it can be read if the operator allows it, and the
/// types offer no way to write or to delete it.
#[tokio::test]
async fn names_with_another_prefix_are_external() {
    environment("acme_").install_managed_prefix().unwrap();
    let store = Arc::new(Memory::new());
    let scope = Scope::workspace(Uuid::new_v4());
    let ours = ManagedCoordinate::new(&scope, Uuid::new_v4(), 1).unwrap();
    let airbytes = ours.as_str().replacen("acme_", "airbyte_", 1);
    for (name, value) in [(ours.as_str(), "ours"), (&airbytes, "theirs")] {
        store.insert(name, SecretValue::new(value.to_owned()));
    }

    assert!(ManagedCoordinate::parse(&airbytes).is_err());
    let external = Coordinate::parse(&airbytes).unwrap();
    assert!(external.managed().is_none());
    let read = store.read(&external).await.unwrap();
    assert_eq!(read.value.expose(), "theirs");
    assert_eq!(names(&*store).await, [ours]);

    let spec = ConnectorSpec::compile(&json!({"properties": {"key": {"airbyte_secret": true}}}));
    let spec = spec.unwrap();
    let pointer = json!({"key": {"_secret": airbytes}});
    let with = |policy: Policy| {
        let options = ConnectorOptions::default().with_policy(policy);
        ConnectorSecrets::new(Stores::new(store.clone()), options).acting_as(&Actor::new("maria"))
    };
    let refusing = with(Policy::default());
    let refused = refusing.stage_create(&spec, &scope, pointer.clone()).await;
    assert!(refused.is_err());
    let allowed = Policy::default().with_external_prefix(None, "airbyte_");
    let secrets = with(allowed);
    let staged = secrets.stage_create(&spec, &scope, pointer).await.unwrap();
    let saved: Value = staged.config().clone();
    assert!(staged.commit().await.unwrap().is_finished());
    // Replacing the reference deletes nothing.
    let staged = secrets.stage_update(&spec, &scope, saved, json!({"key": "new"}));
    let cleanup = staged.await.unwrap().commit().await.unwrap();
    assert!(cleanup.deleted.is_empty());
    assert!(store.read(&external).await.is_ok());

    // Nor are hand-written names managed, or an alias of a managed one.
    for name in ["acme_database_v2", "acme-project-x-v1", "vault/acme_x"] {
        assert!(Coordinate::parse(name).is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_setting_that_the_process_does_not_follow_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/other.db?mode=plain", folder.path().display());
    environment("acme_").install_managed_prefix().unwrap();
    for (prefix, says) in [
        ("other_", "managed names of this process begin with acme_"),
        ("Acme", "SECRETS_MANAGED_PREFIX"),
    ] {
        let environment = environment(prefix);
        let error = environment.install_managed_prefix().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("SECRETS_MANAGED_PREFIX"));
        let settings = Settings::from_url(&url, &environment).unwrap();
        let error = secret_persistence::connect(settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(ManagedPrefix::current().as_str(), "acme_");
}
