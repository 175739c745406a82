//! What the hop over HTTP costs: `cargo bench -p secret-gateway --bench hop`.
//!
//! Prints ratios to a handler that answers the same bytes without secrets, measured in turns in one run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on ends, and prints what it measured"
)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use secret_gateway::{
    Authenticator, Digests, Gateway, Grant, Parts, Role, SqliteOutbox, Texts, TokenFile, router,
};
use secret_persistence::layer::{CacheOptions, Layers, Stack};
use secret_persistence::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Memory, Page, Read, Result, SecretPersistence, SecretValue, Stores, Write,
    Written,
};
use serde_json::{Value, json};
use uuid::Uuid;

const REQUESTS: usize = 20_000;

/// A store that stops answering when it is told to.
#[derive(Debug, Default)]
struct Hanging {
    inner: Memory,
    hangs: AtomicBool,
}

impl Hanging {
    async fn wait(&self) {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Display for Hanging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hanging")
    }
}

#[async_trait]
impl SecretPersistence for Hanging {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.wait().await;
        self.inner.read_batch(coordinates).await
    }
    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.wait().await;
        self.inner.write_batch(writes).await
    }
    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        self.inner.delete_batch(coordinates, options).await
    }
    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.inner.restore(coordinate).await
    }
    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.inner.list_page(options, after).await
    }
    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.inner.describe(coordinate).await
    }
    async fn identity(&self) -> Result<Identity> {
        self.wait().await;
        self.inner.identity().await
    }
}

fn coordinate(secret: u128) -> ManagedCoordinate {
    let (workspace, secret) = (Uuid::from_u128(1), Uuid::from_u128(secret));
    format!("airbyte_workspace_{workspace}_secret_{secret}_v1")
        .parse()
        .unwrap()
}

/// A request for the full configuration of so many secrets.
fn request(secrets: u128) -> String {
    let members = (0..secrets).map(|secret| {
        (
            format!("secret_{secret}"),
            json!({"_secret": coordinate(secret).as_str()}),
        )
    });
    json!({"configurations": [Value::Object(members.collect())]}).to_string()
}

async fn listen(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[derive(Clone, Copy)]
struct Measured {
    per_second: f64,
    median: Duration,
    last: Duration,
}

/// Asks so often over so many connections.
async fn load(url: &str, token: &str, body: &str, connections: usize, requests: usize) -> Measured {
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(connections)
        .build()
        .unwrap();
    let left = Arc::new(AtomicUsize::new(requests));
    let began = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (client, left) = (client.clone(), Arc::clone(&left));
            let (url, token, body) = (url.to_owned(), token.to_owned(), body.to_owned());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                        left.checked_sub(1)
                    })
                    .is_ok()
                {
                    let began = Instant::now();
                    let sent = client
                        .post(&url)
                        .header("x-vault-token", &token)
                        .header(CONTENT_TYPE, "application/json")
                        .body(body.clone());
                    let answer = sent.send().await.unwrap();
                    assert_eq!(answer.status(), 200);
                    answer.bytes().await.unwrap();
                    took.push(began.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for worker in workers {
        took.extend(worker.await.unwrap());
    }
    let all = began.elapsed();
    took.sort_unstable();
    Measured {
        per_second: took.len() as f64 / all.as_secs_f64(),
        median: took[took.len() / 2],
        last: took[took.len() * 99 / 100],
    }
}

/// The memory of this process that is in use, in mebibytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<Hanging> = Arc::default();
    let writes: Vec<Write> = (0..40)
        .map(|secret| {
            Write::new(
                coordinate(secret),
                SecretValue::new(format!("value of {secret}")),
            )
        })
        .collect();
    for written in store.write_batch(&writes).await {
        written.unwrap();
    }
    let cached: Arc<dyn SecretPersistence> = Arc::clone(&store) as _;
    let options = CacheOptions::default().with_ttl(Duration::from_secs(3600));
    let layers = Layers::over(Stack::over(cached).with_cache(options)).build();
    let mut texts = Texts::new();
    texts
        .set("data-folder", folder.path().display().to_string())
        .unwrap();
    let tokens = TokenFile::new(folder.path().join("tokens.json"));
    let token = tokens.create(&Grant::new("bench", Role::ALL)).unwrap();
    let token = token.expose().to_owned();
    let gateway = Gateway::new(Parts {
        settings: texts.parse().unwrap(),
        stores: Stores::new(layers),
        storages: None,
        mirrored: false,
        migration: None,
        configurations: None,
        history: None,
        collecting: None,
        authenticator: Authenticator::new(tokens, None),
        outbox: Arc::new(
            SqliteOutbox::open(&folder.path().join("outbox.db"))
                .await
                .unwrap(),
        ),
        digests: Digests::open(&folder.path().join("gateway.key")).unwrap(),
        metrics: None,
    });
    let url = format!("{}/api/v1/hydrate", listen(router(gateway)).await);

    println!(
        "| secrets | connections | requests a second | without secrets | ratio | median µs | p99 µs |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut plain_url = String::new();
    for secrets in [1, 20] {
        let body = request(secrets);
        let sent = reqwest::Client::new()
            .post(&url)
            .header("x-vault-token", &token)
            .header(CONTENT_TYPE, "application/json")
            .body(body.clone());
        let same = sent.send().await.unwrap().text().await.unwrap();
        assert!(same.contains("value of 0"), "{same}");
        let plain = Router::new().route(
            "/",
            post(move |_: String| {
                let same = same.clone();
                async move { ([(CONTENT_TYPE, "application/json")], same) }
            }),
        );
        plain_url = listen(plain).await;
        for connections in [1, 16, 64] {
            let mut best: [Option<Measured>; 2] = [None, None];
            // In turns, and the better of three each.
            for _ in 0..3 {
                for (best, url) in best.iter_mut().zip([&url, &plain_url]) {
                    let measured = load(url, &token, &body, connections, REQUESTS / 20).await;
                    if best.is_none_or(|best| measured.per_second > best.per_second) {
                        *best = Some(measured);
                    }
                }
            }
            let [Some(ours), Some(theirs)] = best else {
                continue;
            };
            println!(
                "| {secrets} | {connections} | {:.0} | {:.0} | {:.2} | {} | {} |",
                ours.per_second,
                theirs.per_second,
                theirs.per_second / ours.per_second,
                ours.median.as_micros(),
                ours.last.as_micros(),
            );
        }
    }
    drop(plain_url);

    // Cached secrets are returned while the store hangs, even if other callers wait for uncached ones.
    let body = request(20);
    let before = load(&url, &token, &body, 16, REQUESTS / 20).await;
    store.hangs.store(true, Ordering::Relaxed);
    let waiting: Vec<_> = (0..64)
        .map(|secret| {
            let (url, token) = (url.clone(), token.clone());
            let missing =
                json!({"configurations": [{"_secret": coordinate(1000 + secret).as_str()}]});
            tokio::spawn(async move {
                let sent = reqwest::Client::new()
                    .post(url)
                    .header("x-vault-token", token)
                    .header(CONTENT_TYPE, "application/json")
                    .body(missing.to_string());
                let _ = sent.send().await;
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let during = load(&url, &token, &body, 16, REQUESTS / 20).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    println!(
        "p99 of cached hydrates while 64 others wait for a store that hangs: {:.2} times that of before",
        during.last.as_secs_f64() / before.last.as_secs_f64()
    );
    store.hangs.store(false, Ordering::Relaxed);

    let (warm, asked) = (resident(), REQUESTS * 5);
    load(&url, &token, &body, 16, asked).await;
    println!(
        "memory: {warm} MiB before {asked} requests, {} MiB after",
        resident()
    );
}
