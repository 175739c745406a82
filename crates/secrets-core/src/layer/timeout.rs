//! Times out one attempt: the part of retry that is below the limit, so that waiting for a permit
//! does not count.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::list_cost;
use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Operation, Page, Read, Result, SecretPersistence, Write,
    Written,
};

/// A store whose attempts have a timeout.
#[derive(Debug)]
pub(super) struct Timeout {
    inner: Arc<dyn SecretPersistence>,
    per_request: Duration,
}

impl Timeout {
    pub(super) fn new(inner: Arc<dyn SecretPersistence>, per_request: Duration) -> Self {
        Self { inner, per_request }
    }

    /// The attempt's result, or the timeout: as long as all its requests may take.
    async fn within<T>(
        &self,
        requests: u32,
        attempt: impl Future<Output = T>,
    ) -> std::result::Result<T, Duration> {
        let limit = self.per_request.saturating_mul(requests.max(1));
        tokio::time::timeout(limit, attempt)
            .await
            .map_err(|_elapsed| limit)
    }

    fn error(&self, operation: Operation, limit: Duration) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("the attempt had no answer within {limit:?}"),
        )
        .with_operation(operation)
        .with_store(self.inner.to_string())
        .with_hint("check the address, the network and the proxy, or raise the timeout")
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::show(f, "timeout", &self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Timeout {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let requests = self.capabilities().read_cost(coordinates.len());
        let attempt = self.inner.read_batch(coordinates);
        self.within(requests, attempt)
            .await
            .unwrap_or_else(|limit| {
                let late = |coordinate: &Coordinate| {
                    Err(self
                        .error(Operation::Read, limit)
                        .with_coordinate(coordinate.shared()))
                };
                coordinates.iter().map(late).collect()
            })
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let requests = self.capabilities().cost.write;
        let attempt = self.inner.write_batch(writes);
        self.within(requests, attempt)
            .await
            .unwrap_or_else(|limit| {
                let late = |write: &Write| {
                    Err(self
                        .error(Operation::Write, limit)
                        .with_coordinate(write.coordinate.shared()))
                };
                writes.iter().map(late).collect()
            })
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let requests = self.capabilities().cost.delete;
        let attempt = self.inner.delete_batch(coordinates, options);
        self.within(requests, attempt)
            .await
            .unwrap_or_else(|limit| {
                let late = |coordinate: &ManagedCoordinate| {
                    Err(self
                        .error(Operation::Delete, limit)
                        .with_coordinate(coordinate.shared()))
                };
                coordinates.iter().map(late).collect()
            })
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let requests = self.capabilities().cost.restore;
        self.within(requests, self.inner.restore(coordinate))
            .await
            .unwrap_or_else(|limit| {
                Err(self
                    .error(Operation::Restore, limit)
                    .with_coordinate(coordinate.shared()))
            })
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let requests = list_cost(&self.capabilities(), options);
        self.within(requests, self.inner.list_page(options, after))
            .await
            .unwrap_or_else(|limit| Err(self.error(Operation::List, limit)))
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let requests = self.capabilities().cost.describe;
        self.within(requests, self.inner.describe(coordinate))
            .await
            .unwrap_or_else(|limit| {
                Err(self
                    .error(Operation::Describe, limit)
                    .with_coordinate(coordinate.shared()))
            })
    }

    async fn identity(&self) -> Result<Identity> {
        self.within(1, self.inner.identity())
            .await
            .unwrap_or_else(|limit| Err(self.error(Operation::Identity, limit)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::conformance::{self, Options};
    use crate::layer::probe::{Fault, Probe, coordinate, write};
    use crate::{Cost, Memory, SecretPersistenceExt};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn every_promise_holds() {
        let store: Arc<dyn SecretPersistence> =
            Arc::new(Timeout::new(Arc::new(Probe::slow()), SECOND));
        let report = conformance::run(&store, &Options::default()).await;
        report.assert_passed();
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_ends_when_all_its_requests_had_time() {
        let memory = Memory::new();
        let capabilities = Capabilities {
            // One of three entries makes a third of the requests.
            read_batch: 3,
            cost: Cost {
                read: 9,
                list_detail: 1,
                ..Cost::ONE
            },
            ..memory.capabilities()
        };
        let probe = Probe::over(memory.with_capabilities(capabilities));
        probe.on_every_request(|_, _| Fault::Hang);
        let store = Timeout::new(Arc::new(probe), SECOND);
        let details = ListOptions::default().with_details(true).with_page_size(5);
        let started = Instant::now();
        for (operation, seconds, result) in [
            (
                Operation::Read,
                3,
                store.read(&coordinate(1).into()).await.map(drop),
            ),
            (Operation::Write, 4, store.write(write(1)).await.map(drop)),
            (
                Operation::Delete,
                5,
                store
                    .delete(&coordinate(1), &DeleteOptions::default())
                    .await,
            ),
            (Operation::Restore, 6, store.restore(&coordinate(1)).await),
            (
                Operation::List,
                12,
                store.list_page(&details, None).await.map(drop),
            ),
            (
                Operation::Describe,
                13,
                store.describe(&coordinate(1)).await.map(drop),
            ),
            (Operation::Identity, 14, store.identity().await.map(drop)),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert_eq!(error.operation(), Some(operation));
            assert!(error.is_retryable());
            // All steps have run by now; the sum at the end is what is checked.
            assert!(started.elapsed() >= SECOND * seconds);
        }
        assert!(started.elapsed() < SECOND * 14 + Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn each_entry_of_a_batch_that_hangs_has_its_own_error() {
        let probe = Probe::new();
        probe.on_every_request(|_, _| Fault::Hang);
        let store = Timeout::new(Arc::new(probe), SECOND);
        let names = [1, 2, 3].map(coordinate);
        let reads = store.read_batch(&names.clone().map(Coordinate::from)).await;
        let writes = store.write_batch(&[write(1), write(2), write(3)]).await;
        assert_eq!((reads.len(), writes.len()), (3, 3));
        let reads = reads.into_iter().map(|read| read.unwrap_err());
        let writes = writes.into_iter().map(|written| written.unwrap_err());
        for (error, name) in reads.zip(&names).chain(writes.zip(&names)) {
            assert_eq!(error.coordinate(), Some(name.as_str()));
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
    }
}
