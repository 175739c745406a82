//! Every layer of `secret_persistence_core::layer` over a real store: SQLite, encrypted.

// Helpers of tests are tests too.
#![allow(clippy::print_stdout, clippy::unwrap_used)]
#![cfg(feature = "sqlite")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use secret_persistence_core::conformance::{self, Options};
use secret_persistence_core::layer::{CacheOptions, Layers, LimitOptions, RetryOptions, Stack};
use secret_persistence_core::{Owner, SecretPersistence};
use secret_persistence_db::{Database, Mode};
use support::{Folder, ring};

async fn open(folder: &Folder) -> Arc<dyn SecretPersistence> {
    let config = folder.config().mode(Mode::Encrypted).keyring(&ring());
    let config = config.build().unwrap().with_owner(owner());
    Arc::new(Database::connect(config).await.unwrap())
}

fn owner() -> Owner {
    Owner::parse("layers").unwrap()
}

fn options() -> Options {
    // Another test tries the store at its size limit.
    Options::default()
        .with_owner(owner())
        .with_largest_value(1 << 16)
}

async fn keeps_every_promise(layers: impl FnOnce(Stack) -> Layers) {
    let folder = Folder::new();
    let store = layers(Stack::over(open(&folder).await)).build();
    let report = conformance::run(&store, &options()).await;
    println!("{report}");
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn cache() {
    keeps_every_promise(|stack| Layers::over(stack.with_cache(CacheOptions::default()))).await;
    let short = CacheOptions::default().with_ttl(Duration::from_millis(1));
    keeps_every_promise(|stack| Layers::over(stack.with_cache(short))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit() {
    let mut quota = LimitOptions::default();
    // A file has no quota, and the suite sends thousands of writes.
    quota.write.per_second = 5_000.0;
    quota.list.per_second = 5_000.0;
    keeps_every_promise(|stack| Layers::over(stack.with_limit(quota))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics() {
    keeps_every_promise(|stack| Layers::over(stack).with_metrics(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror() {
    let second = Folder::new();
    let secondary = Stack::over(open(&second).await);
    keeps_every_promise(|stack| Layers::mirror(stack, secondary)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only() {
    let folder = Folder::new();
    let writer = open(&folder).await;
    let stack = Stack::over(Arc::clone(&writer));
    let store = Layers::over(stack).with_read_only(true).build();
    let report = conformance::run_reading(&store, &writer, &options()).await;
    println!("{report}");
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn retry() {
    keeps_every_promise(|stack| Layers::over(stack.with_retry(RetryOptions::default()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_together() {
    let second = Folder::new();
    let full = |stack: Stack| {
        stack
            .with_cache(CacheOptions::default())
            .with_retry(RetryOptions::default())
    };
    let secondary = full(Stack::over(open(&second).await));
    keeps_every_promise(|stack| Layers::mirror(full(stack), secondary).with_metrics(true)).await;
}
