//! Refuses every change before any request.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Operation, Page, Read, Result, SecretPersistence, Write,
    Written,
};

/// A read-only store.
#[derive(Debug)]
pub(super) struct ReadOnly {
    inner: Arc<dyn SecretPersistence>,
    store: Arc<str>,
}

impl ReadOnly {
    pub(super) fn new(inner: Arc<dyn SecretPersistence>, store: Arc<str>) -> Self {
        Self { inner, store }
    }

    fn refusal(&self, operation: Operation, coordinate: &ManagedCoordinate) -> Error {
        Error::new(
            ErrorKind::PermissionDenied,
            "the store is opened read-only; nothing was sent",
        )
        .with_operation(operation)
        .with_store(Arc::clone(&self.store))
        .with_coordinate(coordinate.shared())
        .with_hint("disable read-only in the settings of this store")
    }
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::show(f, "read_only", &self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for ReadOnly {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.inner.read_batch(coordinates).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let refusal = |write: &Write| Err(self.refusal(Operation::Write, &write.coordinate));
        writes.iter().map(refusal).collect()
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        _: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let refusal = |coordinate| Err(self.refusal(Operation::Delete, coordinate));
        coordinates.iter().map(refusal).collect()
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        Err(self.refusal(Operation::Restore, coordinate))
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.inner.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.inner.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.inner.identity().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Options};
    use crate::layer::probe::{Probe, coordinate, write};
    use crate::{Recovery, SecretPersistenceExt};

    #[tokio::test]
    async fn the_reading_half_of_the_promises_holds() {
        let writer: Arc<dyn SecretPersistence> = Arc::new(Probe::new());
        let store: Arc<dyn SecretPersistence> =
            Arc::new(ReadOnly::new(Arc::clone(&writer), "probe".into()));
        let report = conformance::run_reading(&store, &writer, &Options::default()).await;
        report.assert_passed();
    }

    #[tokio::test]
    async fn every_change_is_refused_before_any_request() {
        let probe = Arc::new(Probe::new());
        let store = ReadOnly::new(Arc::clone(&probe) as _, "probe".into());
        let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
        for (operation, refusal) in [
            (Operation::Write, store.write(write(1)).await.map(drop)),
            (
                Operation::Delete,
                store.delete(&coordinate(1), &immediate).await,
            ),
            (Operation::Restore, store.restore(&coordinate(1)).await),
        ] {
            let error = refusal.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert_eq!(error.operation(), Some(operation));
            assert_eq!(error.coordinate(), Some(coordinate(1).as_str()));
            assert_eq!(error.store(), Some("probe"));
            assert!(error.hint().unwrap().contains("read-only"));
        }
        let refused = store.write_batch(&[write(1), write(2)]).await;
        assert_eq!(refused.len(), 2);
        assert_eq!(probe.requests().len(), 0);
    }
}
