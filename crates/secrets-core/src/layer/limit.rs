//! Limits requests to a share of the provider's quota, and slows down while the provider throttles.

use std::fmt;
use std::future::Future;
use std::iter;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Page, Read, Result, SecretPersistence, Write, Written,
};

use crate::rates::SharedRates;
use class::{Class, Learned};

mod class;
mod shared;

/// Options of the limit.
///
/// Quotas are per account, project or vault of the provider; other processes use a share of them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LimitOptions {
    /// How many reads of one secret a read of several in one request counts as, where the provider has
    /// a quota of its own for those; 1 unless told.
    pub batch_weight: u32,
    /// For listing, describing and asking for the identity.
    pub list: ClassLimit,
    /// For reading.
    pub read: ClassLimit,
    /// The share of each rate for this process, above 0 and at most 1; 1 by default.
    pub share: f64,
    /// A limit for all operations together, in addition to the limit of each class; none by
    /// default.
    pub total: Option<ClassLimit>,
    /// For writing, deleting and restoring.
    pub write: ClassLimit,
}

/// The limit of one class of operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassLimit {
    /// Maximum concurrent calls.
    pub concurrency: usize,
    /// The provider's quota in requests per second, before the share is applied.
    pub per_second: f64,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            batch_weight: 1,
            list: ClassLimit {
                concurrency: 8,
                per_second: 50.0,
            },
            read: ClassLimit {
                concurrency: 64,
                per_second: 1000.0,
            },
            share: 1.0,
            total: None,
            write: ClassLimit {
                concurrency: 32,
                per_second: 50.0,
            },
        }
    }
}

impl LimitOptions {
    /// How many reads of one secret a read of several in one request counts as.
    #[must_use]
    pub fn with_batch_weight(mut self, weight: u32) -> Self {
        self.batch_weight = weight;
        self
    }

    /// For listing, describing and asking for the identity.
    #[must_use]
    pub fn with_list(mut self, limit: ClassLimit) -> Self {
        self.list = limit;
        self
    }

    /// Sets the limit for reads.
    #[must_use]
    pub fn with_read(mut self, limit: ClassLimit) -> Self {
        self.read = limit;
        self
    }

    /// Sets the share of each rate for this process.
    #[must_use]
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets a limit for all operations together and none per class, for stores that do not count by
    /// class.
    #[must_use]
    pub fn in_total(limit: ClassLimit) -> Self {
        let unlimited = ClassLimit {
            concurrency: Semaphore::MAX_PERMITS,
            per_second: f64::MAX,
        };
        Self {
            batch_weight: 1,
            list: unlimited,
            read: unlimited,
            share: 1.0,
            total: Some(limit),
            write: unlimited,
        }
    }

    /// Sets the limit for writes, deletes and restores.
    #[must_use]
    pub fn with_write(mut self, limit: ClassLimit) -> Self {
        self.write = limit;
        self
    }
}

/// How many requests to a store opening it has sent at most, before there was a limit: who logs in to Vault,
/// looks up the token and finds the mount. Otherwise processes that start together, and then use a whole
/// quota at once, would exceed it by these.
const OPENING: u32 = 3;

/// Where the processes that share a limit draw their requests from.
#[derive(Clone, Debug)]
pub(super) struct SharedLimit {
    pub(super) rates: Arc<dyn SharedRates>,
    pub(super) replicas: u32,
}

/// A store that is asked no more than was agreed.
///
/// A call pays for the requests that it is sure to make when it begins, and for those that its answer
/// shows it may have made beyond them when it ends.
#[derive(Debug)]
pub(super) struct Limit {
    inner: Arc<dyn SecretPersistence>,
    batch_weight: u32,
    list: Class,
    read: Class,
    total: Option<Class>,
    write: Class,
}

impl Limit {
    /// Rates are shared for an account.
    pub(super) fn new(
        inner: Arc<dyn SecretPersistence>,
        store: &Arc<str>,
        options: LimitOptions,
        shared: Option<(&SharedLimit, &Arc<str>)>,
    ) -> Self {
        let class = |name, limit| Class::new(store, name, limit, options.share, shared);
        let limit = Self {
            inner,
            batch_weight: options.batch_weight.max(1),
            list: class("list", options.list),
            read: class("read", options.read),
            total: options.total.map(|limit| class("total", limit)),
            write: class("write", options.write),
        };
        if shared.is_some() {
            for class in iter::once(&limit.list).chain(&limit.total) {
                class.charge(OPENING);
            }
        }
        limit
    }

    /// Makes a call of one class, once the total allows it too. The first request may weigh more than
    /// one in its class, and is one in the total.
    async fn call<T>(
        &self,
        class: &Class,
        weight: u32,
        requests: u32,
        call: impl Future<Output = T>,
        learn: impl Fn(&T) -> Learned,
    ) -> T {
        let Some(total) = &self.total else {
            return class.call(weight.max(requests), call, learn).await;
        };
        let _slot = total.admit(requests).await;
        let answer = class.call(weight.max(requests), call, &learn).await;
        total.charge(learn(&answer).extra);
        answer
    }

    /// A call that fails may have made all the requests that its operation ever makes.
    async fn call_one<T>(
        &self,
        class: &Class,
        least: u32,
        most: u32,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.call(class, 1, least, call, |result| {
            let mut learned = Learned::default();
            learned.note(result);
            if result.is_err() {
                learned.extra = most.saturating_sub(least);
            }
            learned
        })
        .await
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::show(f, "limit", &self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Limit {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        if coordinates.is_empty() {
            return Vec::new();
        }
        let capabilities = self.capabilities();
        let entries = u32::try_from(coordinates.len()).unwrap_or(u32::MAX);
        let weight = if entries > 1 { self.batch_weight } else { 1 };
        let least = capabilities.least.read;
        let most = capabilities.read_cost(coordinates.len());
        let call = self.inner.read_batch(coordinates);
        self.call(&self.read, weight, least, call, |results| {
            let mut learned = Learned::default();
            // Only what a batch does not simply answer gets requests of its own.
            let each = most.saturating_sub(least).div_ceil(entries);
            for result in results {
                learned.note(result);
                if result.is_err() {
                    learned.extra = learned.extra.saturating_add(each);
                }
            }
            learned
        })
        .await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let capabilities = self.capabilities();
        let (least, most) = (capabilities.least.write, capabilities.cost.write);
        let call = self.inner.write_batch(writes);
        self.call(&self.write, 1, least, call, |results| {
            let mut learned = Learned::default();
            for result in results {
                learned.note(result);
                // What was there already had to be compared.
                if !matches!(result, Ok(Written::Created)) {
                    learned.extra = most.saturating_sub(least);
                }
            }
            learned
        })
        .await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        if coordinates.is_empty() {
            return Vec::new();
        }
        let capabilities = self.capabilities();
        let (least, most) = (capabilities.least.delete, capabilities.cost.delete);
        let call = self.inner.delete_batch(coordinates, options);
        self.call(&self.write, 1, least, call, |results| {
            let mut learned = Learned::default();
            for result in results {
                learned.note(result);
                if result.is_err() {
                    learned.extra = most.saturating_sub(least);
                }
            }
            learned
        })
        .await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let capabilities = self.capabilities();
        let (least, most) = (capabilities.least.restore, capabilities.cost.restore);
        let call = self.inner.restore(coordinate);
        self.call_one(&self.write, least, most, call).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let capabilities = self.capabilities();
        let (least, most) = (capabilities.least.list, capabilities.cost.list);
        let detail = if options.details {
            capabilities.cost.list_detail
        } else {
            0
        };
        let call = self.inner.list_page(options, after);
        self.call(&self.list, 1, least, call, |result| {
            let mut learned = Learned::default();
            learned.note(result);
            learned.extra = match result {
                Ok(page) => {
                    let entries = u32::try_from(page.entries.len()).unwrap_or(u32::MAX);
                    detail.saturating_mul(entries)
                }
                Err(_) => most.saturating_sub(least),
            };
            learned
        })
        .await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let capabilities = self.capabilities();
        let (least, most) = (capabilities.least.describe, capabilities.cost.describe);
        let call = self.inner.describe(coordinate);
        self.call_one(&self.list, least, most, call).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.call_one(&self.list, 1, 1, self.inner.identity()).await
    }
}

#[cfg(test)]
mod tests;
