//! The options of a run.
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use secret_persistence_core::Recovery;
use secret_persistence_core::rates::SharedRates;

use crate::Decisions;

/// The options of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MigrateOptions {
    /// Maximum concurrent requests per store; by default the store's recommendation.
    pub concurrency: Option<NonZeroUsize>,
    /// Maximum requests per second per store; by default unlimited.
    pub requests_per_second: Option<NonZeroU32>,
    /// Where the processes of a [shared](crate::Sharing) journal draw these requests from, so that all
    /// together send no more; by default each sends as many.
    pub shared_rates: Option<Arc<dyn SharedRates>>,
    /// Whether to change no store, no configuration, and no state in the journal. The journal still
    /// records the findings.
    pub dry_run: bool,
    /// The longest delay until a store that replicates the other shows a change. Rollback and
    /// retire wait this long before they delete, to see that neither store replicates the other.
    pub lag: Duration,
    /// How long a page of a [shared](crate::Sharing) journal belongs to a process that makes no
    /// progress. Longer than a page of the slowest store takes between two answers.
    pub lease: Duration,
    /// Whether rollback and retire continue if a store refuses writes, so that no probe can prove that
    /// neither store replicates the other.
    pub without_probe: bool,
    /// Whether plan and verify also list the target, for secrets that the source does not have.
    pub unexpected: bool,
    /// The decisions about findings.
    pub decisions: Decisions,
    /// How many rows, names or entries are read at once from configurations, listings and journal.
    pub page: NonZeroUsize,
    /// How many findings of each class, and how many failures, a report lists by name. All of them
    /// are counted, and the [`Observer`](crate::Observer) gets all of them.
    pub listed: usize,
    /// The number of failed secrets after which a run stops.
    pub max_failures: NonZeroUsize,
    /// The recovery window when retire deletes from the source. Secrets that the run itself wrote
    /// are always deleted immediately, if store and permissions allow it.
    pub recovery: Recovery,
}

impl Default for MigrateOptions {
    fn default() -> Self {
        Self {
            concurrency: None,
            requests_per_second: None,
            shared_rates: None,
            dry_run: false,
            lag: Duration::from_secs(2),
            lease: Duration::from_secs(60),
            without_probe: false,
            unexpected: false,
            decisions: Decisions::default(),
            page: const { NonZeroUsize::new(500).unwrap() },
            listed: 1000,
            max_failures: const { NonZeroUsize::new(20).unwrap() },
            recovery: Recovery::Configured,
        }
    }
}

impl MigrateOptions {
    /// Sets the maximum of concurrent requests per store.
    #[must_use]
    pub fn with_concurrency(mut self, requests: NonZeroUsize) -> Self {
        self.concurrency = Some(requests);
        self
    }

    /// Sets the maximum of requests per second per store.
    #[must_use]
    pub fn with_requests_per_second(mut self, requests: NonZeroU32) -> Self {
        self.requests_per_second = Some(requests);
        self
    }

    /// Sets where processes that share a journal draw their requests from, usually
    /// [`SqlJournal::rates`](crate::SqlJournal::rates).
    #[must_use]
    pub fn with_shared_rates(mut self, rates: Arc<dyn SharedRates>) -> Self {
        self.shared_rates = Some(rates);
        self
    }

    /// Sets whether the run changes nothing.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets how long to wait to see whether one store replicates the other.
    #[must_use]
    pub fn with_lag(mut self, lag: Duration) -> Self {
        self.lag = lag;
        self
    }

    /// Sets how long a page belongs to a process that makes no progress.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets whether to continue if a store refuses the probe.
    #[must_use]
    pub fn with_without_probe(mut self, without_probe: bool) -> Self {
        self.without_probe = without_probe;
        self
    }

    /// Sets whether plan and verify list the target too. The
    /// [`Observer`](crate::Observer) gets what is unexpected.
    #[must_use]
    pub fn with_unexpected(mut self, unexpected: bool) -> Self {
        self.unexpected = unexpected;
        self
    }

    /// Sets the decisions about findings.
    #[must_use]
    pub fn with_decisions(mut self, decisions: Decisions) -> Self {
        self.decisions = decisions;
        self
    }

    /// Sets how many rows, names or entries are read at once.
    #[must_use]
    pub fn with_page(mut self, entries: NonZeroUsize) -> Self {
        self.page = entries;
        self
    }

    /// Sets how many findings of each class are listed by name.
    #[must_use]
    pub fn with_listed(mut self, findings: usize) -> Self {
        self.listed = findings;
        self
    }

    /// Sets the number of failures after which a run stops.
    #[must_use]
    pub fn with_max_failures(mut self, failures: NonZeroUsize) -> Self {
        self.max_failures = failures;
        self
    }

    /// Sets the recovery window when retire deletes.
    #[must_use]
    pub fn with_recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }
}
