//! Takes raw secrets out of configurations that were never split.

use std::sync::Arc;

use super::{
    Cancellation, ConfigSource, Journal, MigrateError, MigrateErrorKind, MigrateOptions,
    MigrateResult, Observer, Report, Silent,
};
use crate::{Owner, SecretPersistence};

/// Splits configurations that still hold raw secrets: each is an update with the row as saved and as
/// edited, so that half-split rows finish; secrets go to the store, and the row is saved by
/// compare-and-swap.
#[derive(Debug)]
pub struct Split {
    pub(super) store: Arc<dyn SecretPersistence>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) owner: Option<Owner>,
    pub(super) configs: Vec<Arc<dyn ConfigSource>>,
    pub(super) options: MigrateOptions,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) cancellation: Cancellation,
}

impl Split {
    /// A split into a store. The journal keeps the names that are about to be written, so that a
    /// killed run leaves no secret behind; it is one of its own, not a migration's.
    #[must_use]
    pub fn new(store: Arc<dyn SecretPersistence>, journal: Arc<dyn Journal>) -> Self {
        Self {
            store,
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

    /// Adds a source of configurations, which must not be read-only.
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

    /// Splits every row that still holds a raw secret. Repeatable: a row without one is left as it
    /// is.
    ///
    /// # Errors
    /// Where a source is read-only, where journal or configurations cannot be read, and where a row
    /// lacks its specification or its base id.
    pub async fn run(&self) -> MigrateResult<Report> {
        Err(MigrateError::new(
            MigrateErrorKind::Settings,
            "this command comes with the next change",
        ))
    }
}
