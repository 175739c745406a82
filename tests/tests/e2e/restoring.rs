//! Configurations that were restored from a backup: what they name is there again, or is said to be lost.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use e2e::{
    LocalStack, VaultServer,
    azure::{self, Azure},
};
use secret_persistence_core::{
    Actor, Memory, Scope, Stores,
    connector::{ActingSecrets, ConnectorOptions, ConnectorSecrets, ConnectorSpec},
};
use secret_persistence_migrate::{ConfigRow, Inventory, MemoryConfigs, SecretFilter, Standing};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stores::{self, Store, owner};

/// What becomes of the secret that was replaced after the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The store still has it.
    Kept,
    /// It is beyond recovery.
    Lost,
    /// It can be undeleted.
    Undeleted,
}

/// Saves, backs up, updates, restores and hydrates.
async fn story(store: &Store, options: ConnectorOptions, fate: Fate) {
    let stores = Stores::new(Arc::clone(store)).with_owner(owner());
    let calls = ConnectorSecrets::new(stores, options).acting_as(&Actor::new("stories"));
    let backup = backed_up_and_updated(&calls).await;
    let hydrates = async || {
        calls
            .hydrate(backup.clone())
            .await
            .map(|full| full["password"].clone())
    };
    assert_eq!(hydrates().await.is_ok(), fate == Fate::Kept, "{store}");

    let row = ConfigRow::new("connector-7", backup.clone());
    let configs = Arc::new(MemoryConfigs::new("connectors", vec![row]).unwrap());
    let mut filter = SecretFilter::default();
    filter.not_present = true;
    let inventory = Inventory::new(Arc::clone(store))
        .with_configs(configs)
        .with_filter(filter);
    let listed = async |inventory: &Inventory| {
        let mut listed = Vec::new();
        let mut each = |secret: &secret_persistence_migrate::SecretAt| {
            listed.push((secret.place.clone(), secret.standing));
            ControlFlow::Continue(())
        };
        let report = inventory.run(&mut each).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        listed
    };
    let password = |standing| vec![("/password".to_owned(), standing)];
    let (before, after) = match fate {
        Fate::Kept => (Vec::new(), Vec::new()),
        Fate::Lost => (password(Standing::Missing), password(Standing::Missing)),
        Fate::Undeleted => (
            password(Standing::PendingDeletion),
            password(Standing::Restored),
        ),
    };
    // A look changes nothing. Azure needs a moment until a secret that was deleted is a deleted one.
    let mut looks = 0;
    while listed(&inventory).await != before && looks < 100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        looks += 1;
    }
    assert_eq!(listed(&inventory).await, before, "{store}");
    let inventory = inventory.with_restoring(true);
    assert_eq!(listed(&inventory).await, after, "{store}");
    if fate == Fate::Lost {
        assert!(hydrates().await.is_err(), "{store}");
    } else {
        assert_eq!(hydrates().await.unwrap(), "first", "{store}");
        assert_eq!(listed(&inventory).await, [], "{store}");
    }
}

/// The row of the backup. The password was changed since, and the token was not.
async fn backed_up_and_updated(calls: &ActingSecrets) -> Value {
    let spec = ConnectorSpec::compile(&json!({ "properties": {
        "password": { "type": "string", "airbyte_secret": true },
        "token": { "type": "string", "airbyte_secret": true },
    } }));
    let spec = spec.unwrap();
    let scope = Scope::workspace(Uuid::new_v4());
    let mut full = json!({ "password": "first", "token": "same" });
    let staged = calls
        .stage_create(&spec, &scope, full.clone())
        .await
        .unwrap();
    let backup = staged.config().clone();
    assert!(staged.commit().await.unwrap().failed.is_empty());
    full["password"] = "second".into();
    let staged = calls
        .stage_update(&spec, &scope, backup.clone(), full)
        .await;
    let cleanup = staged.unwrap().commit().await.unwrap();
    assert!(cleanup.failed.is_empty(), "{cleanup:?}");
    backup
}

fn at_once() -> ConnectorOptions {
    ConnectorOptions::default()
}

#[tokio::test]
async fn a_store_in_memory_undeletes() {
    let store: Store = Arc::new(Memory::new().with_owner(owner()));
    story(&store, at_once(), Fate::Undeleted).await;
}

#[tokio::test]
async fn a_database_keeps_for_the_retention_and_loses_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = stores::sqlite(&folder.path().join("store.db")).await;
    let retained = at_once().with_retention(Some(Duration::from_secs(3600)));
    story(&store, retained, Fate::Kept).await;
    story(&store, at_once(), Fate::Lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_undeletes_within_its_recovery_window() {
    let Some(server) = LocalStack::start_or_env().await else {
        return;
    };
    let store = stores::aws(server.url(), &stores::account()).await;
    story(&store, at_once(), Fate::Undeleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_undeletes_within_its_retention() {
    let azure = Azure::start(azure::Options::default()).await.unwrap();
    let store = stores::azure_of(&azure, owner()).await;
    story(&store, at_once(), Fate::Undeleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_keeps_for_the_retention_and_loses_without_one() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let store = stores::vault(server.address(), &mount, server.root_token()).await;
    story(&store, at_once(), Fate::Lost).await;
    let retained = at_once().with_retention(Some(Duration::from_secs(3600)));
    story(&store, retained, Fate::Kept).await;
}
