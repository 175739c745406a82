//! The layers over a real server keep every guarantee of the store below them.

use std::{sync::Arc, time::Duration};

use e2e::VaultServer;
use secret_persistence_core::{
    conformance::{self, Options},
    layer::{CacheOptions, Layers, LimitOptions, RetryOptions, Stack},
};

use crate::stores::{Store, owner, sqlite, vault};

/// All layers in one stack. A development server has no quota, so the limit is high.
fn full(backend: Store) -> Stack {
    let mut limit = LimitOptions::default();
    for class in [&mut limit.read, &mut limit.write, &mut limit.list] {
        class.per_second = 10_000.0;
    }
    Stack::over(backend)
        .with_cache(CacheOptions::default().with_ttl(Duration::from_secs(60)))
        .with_limit(limit)
        .with_retry(RetryOptions::default())
}

/// A separate mount.
async fn mounted(server: &VaultServer) -> Store {
    let mount = server.mount_kv(2).await;
    vault(server.address(), &mount, server.root_token()).await
}

/// Other tests try the stores at their size limits.
fn options() -> Options {
    Options::default()
        .with_owner(owner())
        .with_largest_value(1 << 16)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_stack_over_vault_keeps_every_promise() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let store = Layers::over(full(mounted(server).await))
        .with_metrics(true)
        .build();
    assert!(
        format!("{store:#}").starts_with("metrics(cache(retry(limit(timeout("),
        "{store:#}"
    );
    conformance::run(&store, &options()).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_sqlite_and_vault_keeps_every_promise() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let embedded = sqlite(&folder.path().join("secrets.db")).await;
    let store = Layers::mirror(Stack::over(embedded), full(mounted(server).await)).build();
    conformance::run(&store, &options()).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_vault_and_sqlite_keeps_every_promise() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let embedded = sqlite(&folder.path().join("secrets.db")).await;
    let store = Layers::mirror(full(mounted(server).await), Stack::over(embedded)).build();
    conformance::run(&store, &options()).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_vault_keeps_the_promises_of_reading() {
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let writer = mounted(server).await;
    let store = Layers::over(full(Arc::clone(&writer)))
        .with_read_only(true)
        .build();
    let report = conformance::run_reading(&store, &writer, &options()).await;
    report.assert_passed();
}
