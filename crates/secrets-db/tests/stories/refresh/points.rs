//! Points at which a test stops a refresh: before and after every step.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::connector::{
    Ended, Lease, RefreshRecord, RefreshRows, RefreshSaved, Taken,
};
use secret_persistence_core::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Page, Read, Result, SecretPersistence, Write, Written,
};
use uuid::Uuid;

/// Counts points, and stops at one of them until standard input ends.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    passed: Arc<AtomicUsize>,
    stop_at: usize,
}

impl Points {
    pub(crate) fn new(stop_at: usize) -> Self {
        Self {
            passed: Arc::default(),
            stop_at,
        }
    }

    pub(crate) fn pass(&self, name: &str) {
        if self.passed.fetch_add(1, Ordering::SeqCst) == self.stop_at {
            println!("progress {name}");
            // As if the process were suspended, which no future notices.
            let _ = std::io::stdin().read(&mut [0]);
        }
    }

    async fn around<T>(&self, name: &str, step: impl Future<Output = T>) -> T {
        self.pass(&format!("before {name}"));
        let done = step.await;
        self.pass(&format!("after {name}"));
        done
    }
}

/// Rows with points.
#[derive(Debug)]
pub(crate) struct StoppingRows(pub(crate) Arc<dyn RefreshRows>, pub(crate) Points);

#[async_trait]
impl RefreshRows for StoppingRows {
    async fn read(&self, row: &str) -> Result<Option<(i64, String)>> {
        self.1.around("read", self.0.read(row)).await
    }

    async fn take(&self, row: &str, duration: Duration) -> Result<Taken> {
        self.1.around("take", self.0.take(row, duration)).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<bool> {
        self.1.around("renew", self.0.renew(lease, duration)).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.1.around("release", self.0.release(lease)).await
    }

    async fn open(&self, lease: &Lease, record: &RefreshRecord, time: Duration) -> Result<bool> {
        self.1
            .around("open", self.0.open(lease, record, time))
            .await
    }

    async fn save(
        &self,
        lease: &Lease,
        revision: i64,
        config: &str,
        ended: &[Ended],
    ) -> Result<RefreshSaved> {
        let save = self.0.save(lease, revision, config, ended);
        self.1.around("save", save).await
    }

    async fn close(&self, lease: &Lease, ended: &[Ended]) -> Result<bool> {
        self.1.around("close", self.0.close(lease, ended)).await
    }

    async fn unfinished(&self) -> Result<Vec<String>> {
        self.0.unfinished().await
    }

    async fn ended(&self) -> Result<Vec<Result<Ended>>> {
        self.0.ended().await
    }

    async fn forget(&self, id: Uuid) -> Result<()> {
        self.1.around("forget", self.0.forget(id)).await
    }
}

/// A store with points.
#[derive(Debug)]
pub(crate) struct StoppingStore(pub(crate) Arc<dyn SecretPersistence>, pub(crate) Points);

impl fmt::Display for StoppingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl SecretPersistence for StoppingStore {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let read = self.0.read_batch(coordinates);
        self.1.around("secrets read", read).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let write = self.0.write_batch(writes);
        self.1.around("secret written", write).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let delete = self.0.delete_batch(coordinates, options);
        self.1.around("secrets deleted", delete).await
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
