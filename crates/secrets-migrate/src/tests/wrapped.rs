//! Stores that do most things as another one does.
use std::fmt;

use async_trait::async_trait;
use secret_persistence_core::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Page, Read, Result, SecretPersistence, Write, Written,
};

/// What is different about a store.
#[async_trait]
pub(crate) trait Wrapper: Send + Sync + 'static {
    /// The store that does everything else.
    fn store(&self) -> &dyn SecretPersistence;

    fn capabilities(&self) -> Capabilities {
        self.store().capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.store().read_batch(coordinates).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.store().write_batch(writes).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        self.store().delete_batch(coordinates, options).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.store().list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.store().describe(coordinate).await
    }
}

/// The store with its difference.
pub(crate) struct Wrapped<W>(pub(crate) W);

impl<W> fmt::Debug for Wrapped<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrapped").finish_non_exhaustive()
    }
}

impl<W: Wrapper> fmt::Display for Wrapped<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.store())
    }
}

#[async_trait]
impl<W: Wrapper> SecretPersistence for Wrapped<W> {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
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
        self.0.store().restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.0.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.0.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.0.store().identity().await
    }
}
