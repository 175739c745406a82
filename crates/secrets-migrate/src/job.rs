//! The builder of migrations and splits.
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use secret_persistence_core::layer::{ClassLimit, Layers, LimitOptions, Stack};
use secret_persistence_core::rates::named;
use secret_persistence_core::{Owner, SecretPersistence};

use crate::tracker::Tracker;
use crate::{Cancellation, ConfigSource, Journal, MigrateOptions, Observer, Run, Silent};

/// Work on stores and configurations, recorded in a journal: a [`Migration`](crate::Migration) or a
/// [`Split`](crate::Split), depending on its type parameter.
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

    /// Sets the installation that owns the secrets.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Adds a source of configurations. The run refuses a source that was added twice.
    #[must_use]
    pub fn with_configs(mut self, configs: Arc<dyn ConfigSource>) -> Self {
        self.configs.push(configs);
        self
    }

    /// Sets the options.
    #[must_use]
    pub fn with_options(mut self, options: MigrateOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the observer of the run.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets the token that stops the run cleanly.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    pub(super) fn tracker(&self, command: &'static str, run: Run) -> Tracker {
        Tracker::new(
            command,
            run,
            &self.options,
            Arc::clone(&self.observer),
            self.cancellation.clone(),
        )
    }

    /// Wraps a store with the run's limits on concurrency and rate, which apply across all units of
    /// work.
    pub(super) fn limited(&self, store: &Arc<dyn SecretPersistence>) -> Arc<dyn SecretPersistence> {
        limited(store, &self.options)
    }

    /// The same for one of two stores, which may have the same name.
    pub(super) fn limited_as(
        &self,
        side: &'static str,
        store: &Arc<dyn SecretPersistence>,
    ) -> Arc<dyn SecretPersistence> {
        let mut options = self.options.clone();
        let rates = options.shared_rates.take();
        options.shared_rates = rates.map(|rates| named(rates, side));
        limited(store, &options)
    }
}

/// A store with the limits of the options, which all clones share.
pub(super) fn limited(
    store: &Arc<dyn SecretPersistence>,
    options: &MigrateOptions,
) -> Arc<dyn SecretPersistence> {
    let limit = ClassLimit {
        concurrency: options
            .concurrency
            .map_or_else(|| store.capabilities().concurrency, NonZeroUsize::get),
        per_second: options
            .requests_per_second
            .map_or(f64::MAX, |requests| f64::from(requests.get())),
    };
    let mut stack = Stack::over(Arc::clone(store)).with_limit(LimitOptions::in_total(limit));
    if let Some(rates) = &options.shared_rates {
        // Those of a journal never fail. Whoever gives others knows how many use them.
        stack = stack.with_shared_rates(Arc::clone(rates), 1);
    }
    Layers::over(stack).build()
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
