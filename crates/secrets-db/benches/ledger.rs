//! What the read ledger adds to a hydrate of ten secrets, with a required ledger and without one.
//!
//! `TEST_POSTGRES_URL=… cargo bench -p secret-persistence-db --features postgres --bench ledger`. Store
//! and ledger are in the same Postgres, which syncs its log to disk unless its own settings say
//! otherwise. Both kinds of hydrate take turns in one run, alone and with sixteen at a time; once more
//! with a store that answers after 20 ms, like one in a cloud. Times are in milliseconds.

// A bench prints, and may panic on any failure.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use secret_persistence_core::connector::{ActingSecrets, ConnectorOptions, ConnectorSecrets};
use secret_persistence_core::{
    Actor, AuditMode, AuditSink, Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity,
    ListOptions, ManagedCoordinate, Page, Read, Result, SecretPersistence, SecretPersistenceExt,
    SecretValue, Stores, Write, Written,
};
use secret_persistence_db::{
    Config, Database, KeyRing, LEDGER_SETTINGS, Ledger, LedgerConfig, SETTINGS,
};
use serde_json::{Value, json};

const SECRETS: usize = 10;
const SECONDS: u64 = 12;

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(postgres());
}

async fn postgres() {
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        println!("SKIPPED: TEST_POSTGRES_URL is not set");
        return;
    };
    let ring = KeyRing::generate("k1".parse().unwrap()).unwrap();
    let mut settings = SETTINGS.from_pairs([("url", url.as_str())]).unwrap();
    settings.set("table", "ledger_bench").unwrap();
    settings.set_by_operator("keyring", ring.to_text()).unwrap();
    let store = Database::connect(Config::from_settings(&settings).unwrap());
    let store = store.await.unwrap();
    for number in 0..SECRETS {
        let value = SecretValue::new(format!("the value of secret {number}"));
        store
            .write(Write::new(managed(number), value))
            .await
            .unwrap();
    }
    let mut settings = LEDGER_SETTINGS.from_pairs([("url", url.as_str())]).unwrap();
    settings.set_by_operator("keyring", ring.to_text()).unwrap();
    let ledger = Ledger::new(LedgerConfig::from_settings(&settings).unwrap()).unwrap();
    ledger.ready().await.unwrap();
    let store: Arc<dyn SecretPersistence> = Arc::new(store);
    let slow: Arc<dyn SecretPersistence> = Arc::new(Slow(Arc::clone(&store)));
    println!("| store | at a time | | without | with | ratio |\n|---|---|---|---|---|---|");
    for (name, store) in [("Postgres", store), ("20 ms away", slow)] {
        let acting = |stores| {
            ConnectorSecrets::new(stores, ConnectorOptions::default())
                .acting_as(&Actor::new("maria@example.com"))
                .for_request("8d0f6b1c-7f0a-4f5e-9a54-0d1b8e8f3c55")
        };
        let without = acting(Stores::new(Arc::clone(&store)));
        let sink: Arc<dyn AuditSink> = Arc::new(ledger.clone());
        let with = acting(Stores::new(store).with_audit(sink, AuditMode::Required));
        for at_a_time in [1, 16] {
            compare(name, at_a_time, &without, &with).await;
        }
    }
}

/// Tenths of a second without and with the ledger, in turns.
async fn compare(store: &str, at_a_time: usize, without: &ActingSecrets, with: &ActingSecrets) {
    let mut took = [Vec::new(), Vec::new()];
    let end = Instant::now() + Duration::from_secs(SECONDS);
    while Instant::now() < end {
        for (secrets, took) in [without, with].into_iter().zip(&mut took) {
            let turn = Instant::now() + Duration::from_millis(100);
            let workers = (0..at_a_time).map(|_| {
                let secrets = secrets.clone();
                tokio::spawn(async move {
                    let mut took = Vec::new();
                    while Instant::now() < turn {
                        let saved = saved();
                        let began = Instant::now();
                        secrets.hydrate(saved).await.unwrap();
                        took.push(began.elapsed());
                    }
                    took
                })
            });
            for worker in workers.collect::<Vec<_>>() {
                took.extend(worker.await.unwrap());
            }
        }
    }
    for took in &mut took {
        took.sort_unstable();
    }
    let at = |took: &[Duration], percent: usize| took[took.len() * percent / 100].as_secs_f64();
    for (name, percent) in [("median", 50), ("p99", 99)] {
        let [without, with] = [at(&took[0], percent), at(&took[1], percent)];
        println!(
            "| {store} | {at_a_time} | {name} | {:.2} | {:.2} | {:.2} |",
            without * 1e3,
            with * 1e3,
            with / without,
        );
    }
}

fn managed(number: usize) -> ManagedCoordinate {
    ManagedCoordinate::parse(&format!(
        "airbyte_workspace_00000000-0000-0000-0000-000000000001_secret_{number:036}_v1"
    ))
    .unwrap()
}

fn saved() -> Value {
    let members = (0..SECRETS).map(|number| {
        let pointer = json!({"_secret": managed(number).as_str()});
        (format!("secret_{number}"), pointer)
    });
    json!({"host": "db.example.com", "credentials": Value::Object(members.collect())})
}

/// A store that reads like one in a cloud.
#[derive(Debug)]
struct Slow(Arc<dyn SecretPersistence>);

impl std::fmt::Display for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "slow {}", self.0)
    }
}

#[async_trait]
impl SecretPersistence for Slow {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.0.read_batch(coordinates).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.0.write_batch(writes).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        self.0.delete_batch(coordinates, options).await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.0.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.0.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.0.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.0.identity().await
    }
}
