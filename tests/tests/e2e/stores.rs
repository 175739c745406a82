//! Stores on real servers, each with a separate place.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use e2e::azure::Azure;
use secret_persistence_aws::AwsSecretsManager;
use secret_persistence_azure::AzureKeyVault;
use secret_persistence_core::{
    Actor, Owner, SecretPersistence, Stores,
    connector::{ActingSecrets, ConnectorOptions, ConnectorSecrets},
    layer::{Layers, RetryOptions, Stack},
    settings::SettingMap,
};
use secret_persistence_db::Database;
use secret_persistence_vault::{SETTINGS, Vault};

pub(crate) type Store = Arc<dyn SecretPersistence>;

/// The installation of the stories.
pub(crate) fn owner() -> Owner {
    Owner::parse("stories").unwrap()
}

/// A unique account of LocalStack: it uses an access key of twelve digits as the account.
pub(crate) fn account() -> String {
    let number = uuid::Uuid::new_v4().as_u128() % 900_000_000_000;
    format!("{}", number + 100_000_000_000)
}

/// The secrets of an account.
pub(crate) async fn aws(url: &str, account: &str) -> Store {
    aws_of(url, account, owner()).await
}

/// The same, of this installation.
pub(crate) async fn aws_of(url: &str, account: &str, owner: Owner) -> Store {
    let settings = secret_persistence_aws::SETTINGS.from_pairs([
        ("region", "us-east-1"),
        ("endpoint-url", url),
        ("access-key-id", account),
        ("secret-access-key", "none"),
    ]);
    let config = secret_persistence_aws::Config::from_settings(&settings.unwrap()).unwrap();
    let store = AwsSecretsManager::connect(config.with_owner(owner)).await;
    Arc::new(store.unwrap())
}

/// A folder of a mount.
pub(crate) async fn vault(address: &str, mount: &str, token: &str) -> Store {
    vault_of(address, mount, token, owner()).await
}

/// The same, of this installation.
pub(crate) async fn vault_of(address: &str, mount: &str, token: &str, owner: Owner) -> Store {
    let mut settings = SettingMap::new(SETTINGS.rows());
    for (name, value) in [
        ("address", address),
        ("prefix", &format!("{mount}/airbyte/")),
        ("token", token),
    ] {
        settings.set(name, value).unwrap();
    }
    let config = secret_persistence_vault::Config::from_settings(&settings).unwrap();
    Arc::new(Vault::connect(config.with_owner(owner)).await.unwrap())
}

/// The vault of a stand-in, of this installation.
pub(crate) async fn azure_of(azure: &Azure, owner: Owner) -> Store {
    let settings: BTreeMap<&str, String> = [
        ("vault-url", azure.vault_url().to_owned()),
        ("credentials", "client-secret".to_owned()),
        ("tenant-id", azure.tenant_id().to_owned()),
        ("client-id", azure.client_id().to_owned()),
        ("client-secret", azure.client_secret().to_owned()),
        ("authority-host", azure.authority_host().to_owned()),
        ("ca-file", azure.ca_file().display().to_string()),
        ("verify-challenge", "false".to_owned()),
    ]
    .into();
    let settings = secret_persistence_azure::SETTINGS.from_pairs(settings);
    let config = secret_persistence_azure::Config::from_settings(&settings.unwrap()).unwrap();
    let store = AzureKeyVault::connect(config.with_owner(owner)).await;
    Arc::new(store.unwrap())
}

/// A database file without encryption.
pub(crate) async fn sqlite(file: &Path) -> Store {
    sqlite_of(file, owner()).await
}

/// The same, of this installation.
pub(crate) async fn sqlite_of(file: &Path, owner: Owner) -> Store {
    let settings = secret_persistence_db::SETTINGS
        .from_pairs([("path", file.to_str().unwrap()), ("mode", "plain")]);
    let config = secret_persistence_db::Config::from_settings(&settings.unwrap()).unwrap();
    Arc::new(Database::connect(config.with_owner(owner)).await.unwrap())
}

/// The store with a layer that retries transient failures, at most `attempts` times and after short
/// pauses.
pub(crate) fn repeating(store: &Store, attempts: usize) -> Store {
    let options = RetryOptions::default()
        .with_attempts(attempts)
        .with_min_pause(Duration::from_millis(10))
        .with_max_pause(Duration::from_millis(200));
    Layers::over(Stack::over(Arc::clone(store)).with_retry(options)).build()
}

/// The connector calls of a service over a store.
pub(crate) fn calls(store: &Store) -> ActingSecrets {
    let stores = Stores::new(Arc::clone(store)).with_owner(owner());
    ConnectorSecrets::new(stores, ConnectorOptions::default()).acting_as(&Actor::new("stories"))
}
