//! What the suite may assume about a store beyond its capabilities, and how long it may wait.

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

/// Is told of every case as it ends.
pub type Progress = Arc<dyn Fn(&CaseReport) + Send + Sync>;

/// How to run the suite. The defaults fit every store that is reached within milliseconds.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// How long one case may take, 5 minutes by default.
    pub case_timeout: Duration,
    /// How many tasks read and write at once, 64 by default.
    pub concurrency: usize,
    /// For a store that enforces expiry: how far ahead a secret's expiry is set to be seen
    /// going, within [`patience`](Self::patience). Unless told, nobody waits for that.
    pub expiry_wait: Option<Duration>,
    /// The largest value that is tried, 16 MiB by default: a store with a higher limit is not asked
    /// to hold a value at its limit.
    pub largest_value: usize,
    /// How long a listing that is [`Eventual`](crate::Listing::Eventual) is waited for, 1 minute unless
    /// told. Nobody promises how late it may be: a case for which it did not catch up is
    /// [`NotApplicable`](crate::conformance::Outcome::NotApplicable), and fails only where the
    /// listing shows what it must not.
    pub list_lag: Duration,
    /// The owner that the store was opened with, to be found again in what it describes.
    pub owner: Option<Owner>,
    /// Stores secrets under external names, as somebody else would.
    pub outsider: Option<Arc<dyn Outsider>>,
    /// The page size of listings, 3 by default.
    pub page_size: usize,
    /// How long retryable errors are repeated, and states that take time to settle (a deletion) are
    /// waited for; 30 seconds by default.
    pub patience: Duration,
    /// The pause between two looks at something that takes time, 50 milliseconds by default.
    pub poll_interval: Duration,
    /// Is told of every case as it ends.
    pub progress: Option<Progress>,
    /// Opens the store a second time, to see that values outlive the handle they were written with.
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
    /// How long one case may take.
    #[must_use]
    pub fn with_case_timeout(mut self, timeout: Duration) -> Self {
        self.case_timeout = timeout;
        self
    }

    /// How many tasks read and write at once.
    #[must_use]
    pub fn with_concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = tasks.max(1);
        self
    }

    /// Waits for the store to remove a secret that expires this far ahead.
    #[must_use]
    pub fn with_expiry_wait(mut self, ahead: Duration) -> Self {
        self.expiry_wait = Some(ahead);
        self
    }

    /// The largest value that is tried, in bytes.
    #[must_use]
    pub fn with_largest_value(mut self, bytes: usize) -> Self {
        self.largest_value = bytes;
        self
    }

    /// How long a listing that may lag is waited for.
    #[must_use]
    pub fn with_list_lag(mut self, lag: Duration) -> Self {
        self.list_lag = lag;
        self
    }

    /// The owner that the store was opened with.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Who stores secrets under external names.
    #[must_use]
    pub fn with_outsider(mut self, outsider: Arc<dyn Outsider>) -> Self {
        self.outsider = Some(outsider);
        self
    }

    /// The page size of listings.
    #[must_use]
    pub fn with_page_size(mut self, entries: usize) -> Self {
        self.page_size = entries.max(1);
        self
    }

    /// How long retryable errors are repeated and states are waited for.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The pause between two looks at something that takes time.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Who is told of every case as it ends.
    #[must_use]
    pub fn with_progress(mut self, progress: impl Fn(&CaseReport) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Opens the store a second time.
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

/// Somebody else who keeps secrets in the same store, by the store's own means.
#[async_trait]
pub trait Outsider: fmt::Debug + Send + Sync {
    /// Stores a value under `name`, which is `conformance-<random>`, or one derived from it, and says
    /// how we are to ask for it.
    ///
    /// # Errors
    /// `InvalidValue` where the store cannot hold the value, whoever writes it.
    async fn insert(&self, name: &str, value: &SecretValue) -> Result<Coordinate>;

    /// Removes it again.
    ///
    /// # Errors
    /// If it stays behind.
    async fn remove(&self, coordinate: &Coordinate) -> Result<()>;
}
