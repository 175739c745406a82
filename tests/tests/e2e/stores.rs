//! Stores on real servers, each with a place of its own.

use std::{path::Path, sync::Arc, time::Duration};

use secret_persistence_aws::AwsSecretsManager;
use secret_persistence_core::{
    Actor, Owner, SecretPersistence, Stores,
    connector::{ActingSecrets, ConnectorOptions, ConnectorSecrets},
    layer::{Layers, RetryOptions, Stack},
    settings::SettingMap,
};
use secret_persistence_db::Database;
use secret_persistence_vault::{SETTINGS, Vault};

pub(crate) type Store = Arc<dyn SecretPersistence>;

/// The installation that the stories are about.
pub(crate) fn owner() -> Owner {
    Owner::parse("stories").unwrap()
}

/// An account of LocalStack that nobody else uses: it takes twelve digits of an access key for one.
pub(crate) fn account() -> String {
    let number = uuid::Uuid::new_v4().as_u128() % 900_000_000_000;
    format!("{}", number + 100_000_000_000)
}

/// The secrets of an account.
pub(crate) async fn aws(url: &str, account: &str) -> Store {
    let settings = secret_persistence_aws::SETTINGS.from_pairs([
        ("region", "us-east-1"),
        ("endpoint-url", url),
        ("access-key-id", account),
        ("secret-access-key", "none"),
    ]);
    let config = secret_persistence_aws::Config::from_settings(&settings.unwrap()).unwrap();
    let store = AwsSecretsManager::connect(config.with_owner(owner())).await;
    Arc::new(store.unwrap())
}

/// A folder of a mount.
pub(crate) async fn vault(address: &str, mount: &str, token: &str) -> Store {
    let mut settings = SettingMap::new(SETTINGS.rows());
    for (name, value) in [
        ("address", address),
        ("prefix", &format!("{mount}/airbyte/")),
        ("token", token),
    ] {
        settings.set(name, value).unwrap();
    }
    let config = secret_persistence_vault::Config::from_settings(&settings).unwrap();
    Arc::new(Vault::connect(config.with_owner(owner())).await.unwrap())
}

/// A database file, as it is where nobody has encrypted it.
pub(crate) async fn sqlite(file: &Path) -> Store {
    let settings = secret_persistence_db::SETTINGS
        .from_pairs([("path", file.to_str().unwrap()), ("mode", "plain")]);
    let config = secret_persistence_db::Config::from_settings(&settings.unwrap()).unwrap();
    Arc::new(Database::connect(config.with_owner(owner())).await.unwrap())
}

/// The store with a layer that repeats what fails for a moment, `attempts` times at most and after short pauses.
pub(crate) fn repeating(store: &Store, attempts: usize) -> Store {
    let options = RetryOptions::default()
        .with_attempts(attempts)
        .with_min_pause(Duration::from_millis(10))
        .with_max_pause(Duration::from_millis(200));
    Layers::over(Stack::over(Arc::clone(store)).with_retry(options)).build()
}

/// The calls of a service over a store.
pub(crate) fn calls(store: &Store) -> ActingSecrets {
    let stores = Stores::new(Arc::clone(store)).with_owner(owner());
    ConnectorSecrets::new(stores, ConnectorOptions::default()).acting_as(&Actor::new("stories"))
}
