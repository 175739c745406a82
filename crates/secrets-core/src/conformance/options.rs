//! Options of the suite: what it may assume about a store beyond its capabilities, and its time
//! limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::CaseReport;
use crate::{Coordinate, Owner, Result, SecretPersistence, SecretValue};

/// Opens another handle on the same store.
pub type Opener =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn SecretPersistence>>> + Send + Sync>;

/// Receives every case when it ends.
pub type Progress = Arc<dyn Fn(&CaseReport) + Send + Sync>;

/// Options of the suite. The defaults suit every store that responds within milliseconds.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The maximum duration of one case, by default 5 minutes.
    pub case_timeout: Duration,
    /// The number of tasks that read and write concurrently, by default 64.
    pub concurrency: usize,
    /// For a store that enforces expiry: how far in the future to set a secret's expiry, in order
    /// to see it expire within [`patience`](Self::patience). By default, the suite does not wait
    /// for that.
    pub expiry_wait: Option<Duration>,
    /// The largest value to try, by default 16 MiB. A store with a higher limit is not tested at
    /// its limit.
    pub largest_value: usize,
    /// How long to wait for a listing that is [`Eventual`](crate::Listing::Eventual), by default 1
    /// minute. Its delay is not documented: a case for which it does not catch up is
    /// [`NotApplicable`](crate::conformance::Outcome::NotApplicable), and fails only if the listing
    /// shows a wrong name.
    pub list_lag: Duration,
    /// The owner with which the store was opened. Descriptions must contain it.
    pub owner: Option<Owner>,
    /// Stores secrets under external names, like another client.
    pub outsider: Option<Arc<dyn Outsider>>,
    /// The page size of listings, by default 3.
    pub page_size: usize,
    /// How long to retry retryable errors and wait for states that take time (a deletion), by
    /// default 30 seconds.
    pub patience: Duration,
    /// The pause between two polls, by default 50 milliseconds.
    pub poll_interval: Duration,
    /// Receives every case when it ends.
    pub progress: Option<Progress>,
    /// Opens the store a second time, to check that values outlive the handle that wrote them.
    pub reopen: Option<Opener>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            case_timeout: Duration::from_secs(300),
            concurrency: 64,
            expiry_wait: None,
            largest_value: 16 << 20,
            list_lag: Duration::from_secs(60),
            owner: None,
            outsider: None,
            page_size: 3,
            patience: Duration::from_secs(30),
            poll_interval: Duration::from_millis(50),
            progress: None,
            reopen: None,
        }
    }
}

impl Options {
    /// Sets the maximum duration of one case.
    #[must_use]
    pub fn with_case_timeout(mut self, timeout: Duration) -> Self {
        self.case_timeout = timeout;
        self
    }

    /// Sets the number of tasks that read and write concurrently.
    #[must_use]
    pub fn with_concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = tasks.max(1);
        self
    }

    /// Waits until the store removes a secret that expires this far in the future.
    #[must_use]
    pub fn with_expiry_wait(mut self, ahead: Duration) -> Self {
        self.expiry_wait = Some(ahead);
        self
    }

    /// Sets the largest value to try, in bytes.
    #[must_use]
    pub fn with_largest_value(mut self, bytes: usize) -> Self {
        self.largest_value = bytes;
        self
    }

    /// Sets how long to wait for a listing that may lag.
    #[must_use]
    pub fn with_list_lag(mut self, lag: Duration) -> Self {
        self.list_lag = lag;
        self
    }

    /// Sets the owner with which the store was opened.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Sets the client that stores secrets under external names.
    #[must_use]
    pub fn with_outsider(mut self, outsider: Arc<dyn Outsider>) -> Self {
        self.outsider = Some(outsider);
        self
    }

    /// Sets the page size of listings.
    #[must_use]
    pub fn with_page_size(mut self, entries: usize) -> Self {
        self.page_size = entries.max(1);
        self
    }

    /// Sets how long to retry retryable errors and to wait for states.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets the pause between two polls.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets a function that receives every case when it ends.
    #[must_use]
    pub fn with_progress(mut self, progress: impl Fn(&CaseReport) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Sets a function that opens the store a second time.
    #[must_use]
    pub fn with_reopen(
        mut self,
        reopen: impl Fn() -> BoxFuture<'static, Result<Arc<dyn SecretPersistence>>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.reopen = Some(Arc::new(reopen));
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("case_timeout", &self.case_timeout)
            .field("concurrency", &self.concurrency)
            .field("expiry_wait", &self.expiry_wait)
            .field("largest_value", &self.largest_value)
            .field("list_lag", &self.list_lag)
            .field("owner", &self.owner)
            .field("outsider", &self.outsider)
            .field("page_size", &self.page_size)
            .field("patience", &self.patience)
            .field("poll_interval", &self.poll_interval)
            .field("progress", &self.progress.is_some())
            .field("reopen", &self.reopen.is_some())
            .finish()
    }
}

/// Another client of the same store, which uses the store's own API.
#[async_trait]
pub trait Outsider: fmt::Debug + Send + Sync {
    /// Stores a value under `name`, which is `conformance-<random>`, or under a derived one.
    /// Returns the name to read.
    ///
    /// # Errors
    /// `InvalidValue` if the store cannot contain the value, with any client.
    async fn insert(&self, name: &str, value: &SecretValue) -> Result<Coordinate>;

    /// Removes it.
    ///
    /// # Errors
    /// If it remains.
    async fn remove(&self, coordinate: &Coordinate) -> Result<()>;
}
