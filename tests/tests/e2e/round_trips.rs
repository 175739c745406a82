//! How many requests the remote stores make, how many at once, and over how many connections.
//!
//! What these take in time is measured by the bench `remote`.

use std::{sync::Arc, time::Duration};

use e2e::{FaultProxy, LocalStack, VaultServer, proxy::aws_operation};
use futures::{StreamExt as _, stream};
use secrets_aws::{AccessKey, AwsSecretsManager, Credentials};
use secrets_core::{
    DeleteOptions, ManagedCoordinate, Recovery, SecretPersistence, SecretPersistenceExt as _,
    SecretValue, Stores, Write, Written,
    connector::{ActingSecrets, Actor, ConnectorOptions, ConnectorSecrets},
    settings::Settings,
};
use secrets_vault::{SETTINGS, Vault, VaultConfig};
use serde_json::{Map, Value, json};

/// Long enough for everything that may be under way at once to be so.
const DELAY: Duration = Duration::from_millis(200);

/// Vault's pool, unless the settings say otherwise.
const POOL: usize = 32;

fn names(count: usize) -> Vec<ManagedCoordinate> {
    let run = uuid::Uuid::new_v4();
    (0..count)
        .map(|at| {
            ManagedCoordinate::parse(&format!("airbyte_workspace_{run}_secret_{at}_v1")).unwrap()
        })
        .collect()
}

fn value(name: &ManagedCoordinate) -> String {
    format!("the value of {name}")
}

fn writes(names: &[ManagedCoordinate]) -> Vec<Write> {
    let write = |name: &ManagedCoordinate| Write::new(name.clone(), SecretValue::new(value(name)));
    names.iter().map(write).collect()
}

/// A configuration with a pointer to each name, and what it is with the values in place.
fn configuration<'a>(names: impl Iterator<Item = &'a ManagedCoordinate>) -> (Value, Value) {
    let (mut saved, mut full) = (Map::new(), Map::new());
    for (at, name) in names.enumerate() {
        saved.insert(format!("field{at}"), json!({"_secret": name.as_str()}));
        full.insert(format!("field{at}"), value(name).into());
    }
    (saved.into(), full.into())
}

fn acting(store: Arc<dyn SecretPersistence>) -> ActingSecrets {
    let secrets = ConnectorSecrets::new(Stores::new(store), ConnectorOptions::default());
    secrets.acting_as(&Actor::new("round trips"))
}

async fn write_all(store: &dyn SecretPersistence, names: &[ManagedCoordinate], concurrency: usize) {
    let written: Vec<_> = stream::iter(writes(names))
        .map(|write| store.write(write))
        .buffer_unordered(concurrency)
        .collect()
        .await;
    for result in written {
        assert_eq!(result.unwrap(), Written::Created);
    }
}

async fn remove_all(store: &dyn SecretPersistence, names: &[ManagedCoordinate]) {
    let options = &DeleteOptions::default().with_recovery(Recovery::Immediate);
    stream::iter(names)
        .for_each_concurrent(16, async |name| store.delete(name, options).await.unwrap())
        .await;
}

fn aws(proxy: &FaultProxy) -> Arc<dyn SecretPersistence> {
    let key = |text: &str| SecretValue::new(text.to_owned());
    let config = secrets_aws::Config::builder("eu-central-1")
        .with_endpoint(proxy.url())
        .with_credentials(Credentials::AccessKey(AccessKey::new(
            key("test"),
            key("test"),
        )))
        .build();
    Arc::new(AwsSecretsManager::new(config.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_batches_go_out_together() {
    let Some(server) = LocalStack::start_or_env().await else {
        return;
    };
    let proxy = FaultProxy::builder(server.url())
        .with_operations(aws_operation)
        .start()
        .unwrap();
    let names = names(100);
    let store = aws(&proxy);
    write_all(&*store, &names, 16).await;
    assert_eq!(proxy.counts(), [("CreateSecret".to_owned(), 100)]);
    assert!(
        proxy.in_flight_maximum() <= 16,
        "{}",
        proxy.in_flight_maximum()
    );

    proxy.set_delay(DELAY);
    proxy.reset();
    // As after a start: nothing is known, no connection is open.
    let secrets = acting(aws(&proxy));
    // One alone needs one right less, and has a hundred times the quota.
    for (count, singles, batches) in [(1, 1, 0), (10, 0, 1), (20, 0, 1), (21, 1, 1), (100, 0, 5)] {
        let (saved, full) = configuration(names.iter().take(count));
        assert_eq!(*secrets.hydrate(saved).await.unwrap(), full);
        assert_eq!(proxy.count("GetSecretValue"), singles, "{count}");
        assert_eq!(proxy.count("BatchGetSecretValue"), batches, "{count}");
        assert_eq!(
            proxy.total(),
            count.div_ceil(20),
            "{count}: {:?}",
            proxy.counts()
        );
        assert_eq!(proxy.in_flight_maximum(), proxy.total(), "{count}");
        proxy.reset();
    }
    let (saved, full) = configuration(names.iter().take(100));
    assert_eq!(*secrets.hydrate(saved).await.unwrap(), full);
    assert_eq!(
        (proxy.total(), proxy.connections()),
        (5, 0),
        "connections are kept"
    );

    proxy.reset();
    let (saved, full) = configuration(std::iter::repeat_n(&names[0], 100));
    assert_eq!(*secrets.hydrate(saved).await.unwrap(), full);
    assert_eq!(proxy.counts(), [("GetSecretValue".to_owned(), 1)]);

    proxy.set_delay(Duration::ZERO);
    remove_all(&*store, &names).await;
}

async fn vault(
    server: &VaultServer,
    proxy: &FaultProxy,
    mount: &str,
) -> Arc<dyn SecretPersistence> {
    let mut settings = Settings::new(SETTINGS);
    for (name, value) in [
        ("address", &*proxy.url()),
        ("prefix", &format!("{mount}/")),
        ("token", server.root_token()),
    ] {
        settings.set(name, value).unwrap();
    }
    let config = VaultConfig::from_settings(&settings).unwrap();
    Arc::new(Vault::connect(config).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_fills_its_pool_and_not_more() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let proxy = FaultProxy::builder(server.address()).start().unwrap();
    let mount = server.mount_kv(2).await;
    let names = names(100);
    let data = format!("/v1/{mount}/data/*");
    let store = vault(server, &proxy, &mount).await;
    proxy.reset();
    write_all(&*store, &names, 16).await;
    assert_eq!(proxy.count(&format!("POST {data}")), 100);
    assert_eq!(proxy.total(), 100);
    assert!(
        proxy.in_flight_maximum() <= 16,
        "{}",
        proxy.in_flight_maximum()
    );

    proxy.set_delay(DELAY);
    proxy.reset();
    // As after a start: what it has to ask, it asks in one round trip.
    let secrets = acting(vault(server, &proxy, &mount).await);
    assert_eq!(proxy.total(), 2, "{:?}", proxy.counts());
    assert_eq!(proxy.in_flight_maximum(), 2, "side by side");
    proxy.reset();
    for count in [1, 10, 20, 100] {
        let (saved, full) = configuration(names.iter().take(count));
        assert_eq!(*secrets.hydrate(saved).await.unwrap(), full);
        assert_eq!(proxy.count(&format!("GET {data}")), count);
        assert_eq!(proxy.total(), count, "{:?}", proxy.counts());
        assert_eq!(proxy.in_flight_maximum(), count.min(POOL), "{count}");
        assert!(
            proxy.connections() <= POOL,
            "{count}: {}",
            proxy.connections()
        );
        proxy.reset();
    }
    let (saved, full) = configuration(names.iter());
    assert_eq!(*secrets.hydrate(saved).await.unwrap(), full);
    assert_eq!(
        (proxy.total(), proxy.connections()),
        (100, 0),
        "connections are kept"
    );

    proxy.reset();
    let (saved, full) = configuration(std::iter::repeat_n(&names[0], 100));
    assert_eq!(*secrets.hydrate(saved).await.unwrap(), full);
    assert_eq!(proxy.total(), 1, "{:?}", proxy.counts());

    server
        .request("DELETE", &format!("sys/mounts/{mount}"), None)
        .await
        .expect("unmount");
}
