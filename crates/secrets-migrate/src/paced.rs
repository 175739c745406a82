//! A store as a run uses it: so many requests in flight, and so many per second.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Duration, Instant, sleep_until};

use secret_persistence_core::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Page, Read, Result, SecretPersistence, Write, Written,
};

/// Bounds what one run asks of a store, whatever the units of work do concurrently.
///
/// It neither retries nor slows down when throttled: that is what the layers below it are for.
#[derive(Debug)]
pub(super) struct Paced {
    store: Arc<dyn SecretPersistence>,
    in_flight: Semaphore,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Paced {
    pub(super) fn new(
        store: Arc<dyn SecretPersistence>,
        concurrency: usize,
        requests_per_second: Option<NonZeroU32>,
    ) -> Self {
        Self {
            store,
            in_flight: Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            rate: requests_per_second.map(|requests| Rate {
                interval: Duration::from_secs(1) / requests.get(),
                next: Mutex::new(Instant::now()),
            }),
        }
    }

    /// Waits for a place in flight, then for the time at which `requests` may be made.
    async fn turn(&self, requests: u32) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // Fails only once the semaphore is closed, which nobody does.
        let permit = self.in_flight.acquire().await.ok();
        if let Some(rate) = &self.rate {
            let at = {
                let mut next = rate.next.lock().await;
                let at = (*next).max(Instant::now());
                *next = at + rate.interval * requests;
                at
            };
            sleep_until(at).await;
        }
        permit
    }
}

impl fmt::Display for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Paced {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let _turn = self
            .turn(self.capabilities().read_cost(coordinates.len()))
            .await;
        self.store.read_batch(coordinates).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let _turn = self.turn(self.capabilities().cost.write).await;
        self.store.write_batch(writes).await
    }

    async fn delete(&self, coordinate: &ManagedCoordinate, options: &DeleteOptions) -> Result<()> {
        let _turn = self.turn(self.capabilities().cost.delete).await;
        self.store.delete(coordinate, options).await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let _turn = self.turn(self.capabilities().cost.restore).await;
        self.store.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let _turn = self.turn(self.capabilities().cost.list).await;
        self.store.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let _turn = self.turn(self.capabilities().cost.describe).await;
        self.store.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        let _turn = self.turn(1).await;
        self.store.identity().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secret_persistence_core::{Memory, SecretPersistenceExt};

    #[tokio::test(start_paused = true)]
    async fn keeps_to_the_rate_whatever_runs_concurrently() {
        let capabilities = Capabilities {
            read_batch: 1,
            concurrency: 64,
            ..Memory::new().capabilities()
        };
        let store = Memory::new().with_capabilities(capabilities);
        let paced = Paced::new(Arc::new(store), 64, NonZeroU32::new(10));
        let names: Vec<Coordinate> = (1..=21)
            .map(|version| Coordinate::parse(&format!("airbyte_x_v{version}")).unwrap())
            .collect();
        let began = Instant::now();
        paced.read_many(&names).await;
        assert_eq!(began.elapsed().as_secs(), 2);
    }
}
