//! How a run goes about its work.
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use secret_persistence_core::Recovery;

use crate::Decisions;

/// How a run goes about its work.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MigrateOptions {
    /// How many requests are in flight at each store; the store's own number where none is given.
    pub concurrency: Option<NonZeroUsize>,
    /// The most requests per second to each store; none means as fast as it goes.
    pub requests_per_second: Option<NonZeroU32>,
    /// Changes no store and no configuration, and no state in the journal, which notes what was
    /// found all the same.
    pub dry_run: bool,
    /// The longest time after which one store shows what was done to the other, if it follows it:
    /// before rollback and retire delete, they wait that long to see that it does not.
    pub lag: Duration,
    /// What to do with what is found.
    pub decisions: Decisions,
    /// How many rows, names or entries are read at once from configurations, listings and journal.
    pub page: NonZeroUsize,
    /// How many findings of each class, and how many failures, a report lists by name; all of them
    /// are counted, and all of them pass the [`Observer`](crate::Observer).
    pub listed: usize,
    /// After how many secrets that failed a run stops.
    pub max_failures: NonZeroUsize,
    /// What becomes of the recovery window when retire deletes from the source. What a run itself
    /// has written it always deletes at once, where store and rights allow it.
    pub recovery: Recovery,
}

impl Default for MigrateOptions {
    fn default() -> Self {
        Self {
            concurrency: None,
            requests_per_second: None,
            dry_run: false,
            lag: Duration::from_secs(2),
            decisions: Decisions::default(),
            page: const { NonZeroUsize::new(500).unwrap() },
            listed: 1000,
            max_failures: const { NonZeroUsize::new(20).unwrap() },
            recovery: Recovery::Configured,
        }
    }
}

impl MigrateOptions {
    /// This many requests in flight at each store.
    #[must_use]
    pub fn with_concurrency(mut self, requests: NonZeroUsize) -> Self {
        self.concurrency = Some(requests);
        self
    }

    /// At most this many requests per second to each store.
    #[must_use]
    pub fn with_requests_per_second(mut self, requests: NonZeroU32) -> Self {
        self.requests_per_second = Some(requests);
        self
    }

    /// Changes nothing.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Waits this long to see whether one store follows the other.
    #[must_use]
    pub fn with_lag(mut self, lag: Duration) -> Self {
        self.lag = lag;
        self
    }

    /// What to do with what is found.
    #[must_use]
    pub fn with_decisions(mut self, decisions: Decisions) -> Self {
        self.decisions = decisions;
        self
    }

    /// This many rows, names or entries at once.
    #[must_use]
    pub fn with_page(mut self, entries: NonZeroUsize) -> Self {
        self.page = entries;
        self
    }

    /// At most this many findings of each class by name.
    #[must_use]
    pub fn with_listed(mut self, findings: usize) -> Self {
        self.listed = findings;
        self
    }

    /// Stops after this many failures.
    #[must_use]
    pub fn with_max_failures(mut self, failures: NonZeroUsize) -> Self {
        self.max_failures = failures;
        self
    }

    /// This recovery window when retire deletes.
    #[must_use]
    pub fn with_recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }
}
