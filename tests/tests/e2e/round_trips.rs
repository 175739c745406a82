//! How many requests the remote stores send, how many of them concurrently, and over how many
//! connections.
//!
//! The bench `remote` measures their duration.

use std::{sync::Arc, time::Duration};

use e2e::{FaultProxy, LocalStack, VaultServer, proxy::aws_operation};
use futures::{StreamExt as _, stream};
use secret_persistence_aws::AwsSecretsManager;
use secret_persistence_core::{
    Actor, DeleteOptions, ManagedCoordinate, Recovery, SecretPersistence,
    SecretPersistenceExt as _, SecretValue, Stores, Write, Written,
    connector::{ActingSecrets, ConnectorOptions, ConnectorSecrets},
    settings::SettingMap,
};
use secret_persistence_vault::{Config, SETTINGS, Vault};
use serde_json::{Map, Value, json};

/// Long enough for all concurrent requests to overlap.
const DELAY: Duration = Duration::from_millis(200);

/// The default size of Vault's pool.
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

/// A configuration with a pointer to each name, and the hydrated one.
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

async fn aws(proxy: &FaultProxy) -> Arc<dyn SecretPersistence> {
    let settings = secret_persistence_aws::SETTINGS.from_pairs([
        ("region", "eu-central-1"),
        ("endpoint-url", &*proxy.url()),
        ("access-key-id", "test"),
        ("secret-access-key", "test"),
    ]);
    let config = secret_persistence_aws::Config::from_settings(&settings.unwrap()).unwrap();
    Arc::new(AwsSecretsManager::connect(config).await.unwrap())
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
    let store = aws(&proxy).await;
    write_all(&*store, &names, 16).await;
    assert_eq!(proxy.counts(), [("CreateSecret".to_owned(), 100)]);
    assert!(
        proxy.in_flight_maximum() <= 16,
        "{}",
        proxy.in_flight_maximum()
    );

    proxy.set_delay(DELAY);
    proxy.reset();
    // As after a start: nothing is known, and no connection is open.
    let secrets = acting(aws(&proxy).await);
    // A single read needs one permission fewer, and has a hundred times the quota.
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
    vault_as(proxy, mount, &[("token", server.root_token())]).await
}

/// The store, opened with a token or by a login.
async fn vault_as(
    proxy: &FaultProxy,
    mount: &str,
    login: &[(&str, &str)],
) -> Arc<dyn SecretPersistence> {
    let mut settings = SettingMap::new(SETTINGS.rows());
    let (address, prefix) = (proxy.url(), format!("{mount}/"));
    let place = [("address", &*address), ("prefix", &prefix)];
    for (name, value) in place.iter().chain(login) {
        settings.set(name, *value).unwrap();
    }
    let config = Config::from_settings(&settings).unwrap();
    Arc::new(Vault::connect_lazy(config).await.unwrap())
}

/// A role with every permission: its login mount, role id and secret id.
async fn app_role(server: &VaultServer) -> [String; 3] {
    let mount = format!("approle-{}", uuid::Uuid::new_v4());
    let send = async |method, path: String, body: Value| {
        let answer = server.request(method, &path, Some(&body)).await;
        answer.expect(&path)
    };
    let kind = json!({"type": "approle"});
    send("POST", format!("sys/auth/{mount}"), kind).await;
    let policy = server
        .write_policy(
            r#"path "*" { capabilities = ["create", "read", "update", "delete", "list"] }"#,
        )
        .await;
    let role = format!("auth/{mount}/role/connector");
    send("POST", role.clone(), json!({"token_policies": [policy]})).await;
    let id = server
        .request("GET", &format!("{role}/role-id"), None)
        .await;
    let id = id.expect("role id")["data"]["role_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let secret = send("POST", format!("{role}/secret-id"), json!({})).await;
    let secret = secret["data"]["secret_id"].as_str().unwrap().to_owned();
    [mount, id, secret]
}

/// After a start, a login is one round trip, and the mount is looked up in the round trip of the
/// read.
#[tokio::test(flavor = "multi_thread")]
async fn vault_logs_in_and_reads_in_two_round_trips() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let proxy = FaultProxy::builder(server.address()).start().unwrap();
    let mount = server.mount_kv(2).await;
    let names = names(40);
    write_all(&*vault(server, &proxy, &mount).await, &names, 16).await;
    let [login, id, secret] = app_role(server).await;
    let settings = [
        ("auth-method", "approle"),
        ("auth-mount", &*login),
        ("role-id", &id),
        ("secret-id", &secret),
    ];
    proxy.set_delay(DELAY);
    for count in [1, 40] {
        proxy.reset();
        let secrets = acting(vault_as(&proxy, &mount, &settings).await);
        assert_eq!(
            proxy.counts(),
            [(format!("POST /v1/auth/{login}/login"), 1)]
        );
        proxy.reset();
        let (saved, full) = configuration(names.iter().take(count));
        assert_eq!(*secrets.hydrate(saved).await.unwrap(), full);
        assert_eq!(proxy.count(&format!("GET /v1/{mount}/data/*")), count);
        assert_eq!(
            proxy.count(&format!("GET /v1/sys/internal/ui/mounts/{mount}")),
            1
        );
        assert_eq!(proxy.total(), count + 1, "{:?}", proxy.counts());
        assert_eq!(
            proxy.in_flight_maximum(),
            (count + 1).min(POOL),
            "side by side"
        );
    }
    let path = format!("sys/mounts/{mount}");
    server
        .request("DELETE", &path, None)
        .await
        .expect("unmount");
    let path = format!("sys/auth/{login}");
    server
        .request("DELETE", &path, None)
        .await
        .expect("unmount");
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
    // As after a start: all lookups take one round trip.
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
