//! Every store from settings, with real servers: a service needs only what an operator sets.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use e2e::azure::{self, Azure};
use e2e::google::{self, Google};
use e2e::{LocalStack, VaultServer};
use secret_persistence::connector::{ConnectorOptions, ConnectorSecrets};
use secret_persistence::{
    Actor, Environment, ManagedCoordinate, Result, Scope, SecretPersistenceExt, SecretValue,
    Settings, Storage, StorageId, Storages, StoresSettings, Write, connect, stores,
};
use serde_json::json;
use uuid::Uuid;

/// Opens the store, writes a secret, reads it, and checks its owner.
async fn proves(settings: Settings) {
    let settings = settings.with("owner", "by_settings").unwrap();
    let store = connect(settings).await.unwrap();
    assert!(
        format!("{store:#}").starts_with("metrics(retry("),
        "{store:#}"
    );
    let scope = Scope::workspace(Uuid::new_v4());
    let coordinate = ManagedCoordinate::new(&scope, Uuid::new_v4(), 1).unwrap();
    let value = SecretValue::new(String::from("several\nlines ü"));
    store
        .write(Write::new(coordinate.clone(), value.clone()))
        .await
        .unwrap();
    assert_eq!(
        store.read(&coordinate.clone().into()).await.unwrap().value,
        value
    );
    assert_eq!(
        store.describe(&coordinate).await.unwrap().owner.as_deref(),
        Some("by_settings")
    );
    store
        .delete(&coordinate, &Default::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn aws_by_its_variables() {
    let Some(server) = LocalStack::start_or_env().await else {
        return;
    };
    let environment = Environment::from_iter([
        ("SECRET_PERSISTENCE", "aws_secret_manager"),
        ("AWS_SECRET_MANAGER_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY", "100200300400"),
        ("AWS_SECRET_ACCESS_KEY", "none"),
        ("AWS_SECRET_MANAGER_SECRET_TAGS", "team=data,formula=a=b"),
        ("AWS_ENDPOINT_URL", server.url()),
    ]);
    proves(Settings::from_env(&environment).unwrap()).await;
}

#[tokio::test]
async fn google_by_its_variables() {
    let server = Google::start(google::Options::default()).await.unwrap();
    let (key, endpoint) = (server.service_account_json(), server.endpoint());
    let environment = Environment::from_iter([
        ("SECRET_PERSISTENCE", "GOOGLE_SECRET_MANAGER"),
        ("SECRET_STORE_GCP_PROJECT_ID", server.project()),
        ("SECRET_STORE_GCP_CREDENTIALS", &key),
        ("SECRET_STORE_GCP_ENDPOINT_URL", &endpoint),
    ]);
    proves(Settings::from_env(&environment).unwrap()).await;
}

#[tokio::test]
async fn azure_by_its_variables() {
    let server = Azure::start(azure::Options::default()).await.unwrap();
    let vault = server.vault_url();
    let environment = Environment::from_iter([
        ("SECRET_PERSISTENCE", "AZURE_KEY_VAULT"),
        ("AB_AZURE_KEY_VAULT_VAULT_URL", vault.as_str()),
        ("AB_AZURE_KEY_VAULT_TENANT_ID", server.tenant_id()),
        ("AB_AZURE_KEY_VAULT_CLIENT_ID", server.client_id()),
        ("AB_AZURE_KEY_VAULT_CLIENT_SECRET", server.client_secret()),
        ("AZURE_AUTHORITY_HOST", server.authority_host()),
    ]);
    let settings = Settings::from_env(&environment)
        .and_then(|settings| settings.with("ca-file", server.ca_file().to_str().unwrap()))
        .and_then(|settings| settings.with("verify-challenge", "false"));
    proves(settings.unwrap()).await;
}

#[tokio::test]
async fn vault_by_its_json() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let text = json!({
        "address": server.address(),
        "token": server.root_token(),
        "prefix": format!("{mount}/airbyte/"),
    });
    proves(Settings::from_json(&text.to_string(), &Environment::empty()).unwrap()).await;
}

/// The row of one storage.
struct Row(Mutex<Storage>);

#[async_trait]
impl Storages for Row {
    async fn storage(&self, _: &StorageId) -> Result<Option<Storage>> {
        Ok(Some(self.0.lock().unwrap().clone()))
    }
}

/// Rotating a storage's token changes one secret and one row. Nothing is restarted, and no later
/// call fails.
#[tokio::test]
async fn a_storage_whose_token_is_refused_is_opened_anew() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = server.mount_kv(2).await;
    let policy = server.write_policy(&format!("path \"{mount}/*\" {{ capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\"] }}\npath \"sys/internal/ui/mounts/*\" {{ capabilities = [\"read\"] }}\npath \"auth/token/lookup-self\" {{ capabilities = [\"read\"] }}")).await;
    let token = async || server.create_token(&[&policy], "1h").await;
    let old = token().await;

    let folder = tempfile::tempdir().unwrap();
    let url = format!(
        "sqlite://{}?mode=plain&owner=here",
        folder.path().join("s.db").display()
    );
    let default = Settings::from_url(&url, &Environment::empty()).unwrap();
    let row = |pointer: &ManagedCoordinate| {
        Storage::of_operator(json!({
            "address": server.address(),
            "prefix": format!("{mount}/"),
            "token": {"_secret": pointer.as_str()},
        }))
    };
    let scope = Scope::new("storage_organization_", Uuid::new_v4()).unwrap();
    let coordinate = |version| ManagedCoordinate::new(&scope, Uuid::nil(), version).unwrap();
    let rows = Arc::new(Row(Mutex::new(row(&coordinate(1)))));
    let settings = StoresSettings::new(default)
        .with_storages(Arc::clone(&rows) as _)
        // Only a refusal causes a new check.
        .with_recheck(Duration::from_secs(3600));
    let stores = stores(settings).await.unwrap();
    let keep = async |version, token: &str| {
        let value = SecretValue::new(token.to_owned());
        let write = Write::new(coordinate(version), value);
        stores.default_store().write(write).await.unwrap();
    };
    keep(1, &old).await;

    let id = StorageId::parse("team").unwrap();
    let secret = ManagedCoordinate::new(&scope, Uuid::new_v4(), 1).unwrap();
    let value = SecretValue::new(String::from("hunter2"));
    let store = stores.store(Some(&id)).await.unwrap();
    store
        .write(Write::new(secret.clone(), value))
        .await
        .unwrap();
    let secrets = ConnectorSecrets::new(stores.clone(), ConnectorOptions::default())
        .acting_as(&Actor::new("job 7"));
    let saved = json!({"password": {"_secret": secret.as_str(), "_secret_storage_id": "team"}});
    let full = json!({"password": "hunter2"});
    assert_eq!(*secrets.hydrate(saved.clone()).await.unwrap(), full);

    keep(2, &token().await).await;
    *rows.0.lock().unwrap() = row(&coordinate(2));
    let revoked = server
        .request("POST", "auth/token/revoke", Some(&json!({"token": old})))
        .await;
    revoked.expect("revoke");
    assert_eq!(*secrets.hydrate(saved).await.unwrap(), full);
}
