//! One builder for everything that the engine does.
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use secret_persistence_core::layer::{ClassLimit, Layers, LimitOptions, Stack};
use secret_persistence_core::{Owner, SecretPersistence};

use crate::ledger::Ledger;
use crate::{Cancellation, ConfigSource, Journal, MigrateOptions, Observer, Run, Silent};

/// Work on stores and configurations that a journal remembers: a [`Migration`](crate::Migration) or
/// a [`Split`](crate::Split), by what it works on.
pub struct Job<S> {
    pub(super) stores: S,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) owner: Option<Owner>,
    pub(super) configs: Vec<Arc<dyn ConfigSource>>,
    pub(super) options: MigrateOptions,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) cancellation: Cancellation,
}

impl<S> Job<S> {
    pub(super) fn over(stores: S, journal: Arc<dyn Journal>) -> Self {
        Self {
            stores,
            journal,
            owner: None,
            configs: Vec::new(),
            options: MigrateOptions::default(),
            observer: Arc::new(Silent),
            cancellation: Cancellation::new(),
        }
    }

    /// Says which installation the secrets belong to.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Adds a source of configurations. The same one again is refused when it is read.
    #[must_use]
    pub fn with_configs(mut self, configs: Arc<dyn ConfigSource>) -> Self {
        self.configs.push(configs);
        self
    }

    /// Sets how to go about the work.
    #[must_use]
    pub fn with_options(mut self, options: MigrateOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets who is told what the run is doing.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets what stops the run cleanly.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    pub(super) fn ledger(&self, command: &'static str, run: Run) -> Ledger {
        Ledger::new(
            command,
            run,
            &self.options,
            Arc::clone(&self.observer),
            self.cancellation.clone(),
        )
    }

    /// A store as a run uses it: so many requests in flight, and so many per second, whatever the
    /// units of work do concurrently.
    pub(super) fn limited(&self, store: &Arc<dyn SecretPersistence>) -> Arc<dyn SecretPersistence> {
        let limit = ClassLimit {
            concurrency: self
                .options
                .concurrency
                .map_or_else(|| store.capabilities().concurrency, NonZeroUsize::get),
            per_second: self
                .options
                .requests_per_second
                .map_or(f64::MAX, |requests| f64::from(requests.get())),
        };
        let stack = Stack::over(Arc::clone(store)).with_limit(LimitOptions::in_total(limit));
        Layers::over(stack).build()
    }
}

impl<S: fmt::Debug> fmt::Debug for Job<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("stores", &self.stores)
            .field("journal", &format_args!("{}", self.journal))
            .field("owner", &self.owner)
            .field("configs", &self.configs)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
