//! Configurations that other processes may change, and a request that arrives late.
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::{Either, pending, select};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, MemoryConfigs, MigrateResult,
    Report, Update,
};

/// A table that services use too. What was sent to it is saved even if the process that sent it is gone: the
/// request waits for a lock in the database.
#[derive(Debug)]
pub(super) struct Sent {
    rows: Arc<MemoryConfigs>,
    waiting: Mutex<Option<(ConfigRow, Value)>>,
    /// Whether the next update waits.
    waits: AtomicBool,
    pub(super) told: Notify,
    /// Whether it arrives just before the next page is read.
    pub(super) arrives: AtomicBool,
}

impl Sent {
    pub(super) fn to(rows: &Arc<MemoryConfigs>) -> Arc<Self> {
        Arc::new(Self {
            rows: Arc::clone(rows),
            waiting: Mutex::default(),
            waits: AtomicBool::new(true),
            told: Notify::new(),
            arrives: AtomicBool::new(false),
        })
    }

    /// No update waits.
    pub(super) fn arrives_at_once(&self) {
        self.waits.store(false, Ordering::SeqCst);
    }

    /// Runs a command until its first update waits, and kills it.
    pub(super) async fn kill_when_told(&self, run: impl Future<Output = MigrateResult<Report>>) {
        let (run, told) = (std::pin::pin!(run), std::pin::pin!(self.told.notified()));
        assert!(matches!(select(run, told).await, Either::Right(_)));
    }

    /// The database does what was sent.
    pub(super) async fn arrive(&self) -> Update {
        let (row, configuration) = self.waiting.lock().unwrap().take().unwrap();
        self.rows.update(&row, &configuration).await.unwrap()
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.fmt(f)
    }
}

#[async_trait]
impl ConfigSource for Sent {
    fn access(&self) -> Access {
        Access::Update
    }

    fn admits_others(&self) -> bool {
        true
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        if self.arrives.swap(false, Ordering::SeqCst) {
            assert_eq!(self.arrive().await, Update::Saved);
        }
        self.rows.page(after, limit).await
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        self.rows.row(id).await
    }

    async fn update(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update> {
        if self.waits.swap(false, Ordering::SeqCst) {
            *self.waiting.lock().unwrap() = Some((row.clone(), configuration.clone()));
            self.told.notify_one();
            return pending().await;
        }
        self.rows.update(row, configuration).await
    }
}
