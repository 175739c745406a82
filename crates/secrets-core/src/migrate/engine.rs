//! The engine's entrance: what a migration works on, and its commands.

use std::sync::Arc;

use super::{
    Cancellation, ConfigSource, Journal, MigrateError, MigrateErrorKind, MigrateOptions,
    MigrateResult, Observer, Report, Silent,
};
use crate::{Owner, SecretPersistence};

/// Moves secrets from a source store to a target store.
///
/// Every command can be stopped and started again, and answers a [`Report`]; what is found and what
/// fails on single secrets is in there, and `Err` is only what makes going on impossible. Whether all
/// is done says [`Report::is_complete`].
#[derive(Debug)]
pub struct Migration {
    pub(super) source: Arc<dyn SecretPersistence>,
    pub(super) target: Arc<dyn SecretPersistence>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) owner: Option<Owner>,
    pub(super) configs: Vec<Arc<dyn ConfigSource>>,
    pub(super) options: MigrateOptions,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) cancellation: Cancellation,
}

/// The statement that every table and file that holds a coordinate of the source was given: what
/// [`Migration::retire`] deletes is not asked for by anybody else.
#[derive(Clone, Copy, Debug)]
pub struct AllReferences(());

impl AllReferences {
    /// Makes the statement.
    #[must_use]
    pub fn confirmed() -> Self {
        Self(())
    }
}

impl Migration {
    /// A migration from one store to another, remembered in a journal.
    #[must_use]
    pub fn new(
        source: Arc<dyn SecretPersistence>,
        target: Arc<dyn SecretPersistence>,
        journal: Arc<dyn Journal>,
    ) -> Self {
        Self {
            source,
            target,
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

    /// Looks at everything and changes nothing: what there is to move, and what has to be decided.
    ///
    /// # Errors
    /// Where the journal is of another run, where source and target are one store, and where
    /// journal, configurations or a listing cannot be read.
    pub async fn plan(&self) -> MigrateResult<Report> {
        Err(not_there_yet())
    }

    /// Copies every secret that the target has not got. Repeatable as a delta.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn copy(&self) -> MigrateResult<Report> {
        Err(not_there_yet())
    }

    /// Reads every secret back, compares it, and hydrates every configuration from the target.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn verify(&self) -> MigrateResult<Report> {
        Err(not_there_yet())
    }

    /// Deletes from the target what this migration has written there, provided that every
    /// configuration hydrates from the source. Touches no configuration.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn rollback(&self) -> MigrateResult<Report> {
        Err(not_there_yet())
    }

    /// Deletes from the source what is equal in the target at that moment.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn retire(&self, confirmed: AllReferences) -> MigrateResult<Report> {
        let AllReferences(()) = confirmed;
        Err(not_there_yet())
    }
}

fn not_there_yet() -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Settings,
        "this command comes with the next change",
    )
}
