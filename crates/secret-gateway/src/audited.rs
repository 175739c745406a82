//! A store whose calls are audit events of a caller, for code that works on stores and knows no callers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use secret_persistence::{
    Actor, AuditEvent, Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, Identity,
    ListOptions, ManagedCoordinate, Operation, Page, Read, Result, SecretPersistence, Stores,
    Write, Written,
};

use crate::gateway::Gateway;

/// The default store. Where the audit is required and its sink fails, the call fails.
#[derive(Debug)]
pub(crate) struct Audited {
    store: Arc<dyn SecretPersistence>,
    stores: Stores,
    actor: Actor,
    /// The id of the request.
    request: Option<Arc<str>>,
    failed: AtomicBool,
}

impl Audited {
    pub(crate) fn new(gateway: &Gateway, actor: Actor, request: Option<Arc<str>>) -> Self {
        Self {
            store: Arc::clone(gateway.store()),
            stores: gateway.stores().clone(),
            actor,
            request,
            failed: AtomicBool::new(false),
        }
    }

    /// Whether a call failed because its event could not be recorded.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Records an event for each result.
    async fn record<T>(
        &self,
        operation: Operation,
        names: impl Iterator<Item = Coordinate> + Send,
        results: Vec<Result<T>>,
    ) -> Vec<Result<T>> {
        let events: Vec<AuditEvent> = names
            .zip(&results)
            .map(|(name, result)| {
                AuditEvent::new(self.actor.clone(), operation, name)
                    .with_request(self.request.clone())
                    .with_failure(result.as_ref().err().map(Error::kind))
            })
            .collect();
        match self.stores.record(&events).await {
            Ok(()) => results,
            Err(error) => {
                self.failed.store(true, Ordering::Relaxed);
                tracing::error!(target: "secret_gateway", %error, "the audit is required and its sink failed");
                let unaudited = |result: Result<T>| result.and(Err(error.clone()));
                results.into_iter().map(unaudited).collect()
            }
        }
    }

    async fn record_one<T>(
        &self,
        operation: Operation,
        name: &ManagedCoordinate,
        result: Result<T>,
    ) -> Result<T> {
        let name = Coordinate::Managed(name.clone());
        let mut results = self
            .record(operation, std::iter::once(name), vec![result])
            .await;
        // As many come back as were given.
        results.remove(0)
    }
}

impl fmt::Display for Audited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Audited {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let read = self.store.read_batch(coordinates).await;
        let names = coordinates.iter().cloned();
        self.record(Operation::Read, names, read).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let written = self.store.write_batch(writes).await;
        let names = writes
            .iter()
            .map(|write| Coordinate::Managed(write.coordinate.clone()));
        self.record(Operation::Write, names, written).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let deleted = self.store.delete_batch(coordinates, options).await;
        let names = coordinates.iter().cloned().map(Coordinate::Managed);
        self.record(Operation::Delete, names, deleted).await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let restored = self.store.restore(coordinate).await;
        self.record_one(Operation::Restore, coordinate, restored)
            .await
    }

    /// A listing is no event: it reveals names, which configurations contain too.
    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.store.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let described = self.store.describe(coordinate).await;
        self.record_one(Operation::Describe, coordinate, described)
            .await
    }

    async fn identity(&self) -> Result<Identity> {
        self.store.identity().await
    }
}
