//! The engine's entrance: what a migration works on, and its commands.
use std::fmt;
use std::sync::Arc;

use secret_persistence_core::SecretPersistence;
use secret_persistence_core::connector::ResolveReferences;

use crate::job::Job;
use crate::session::Session;
use crate::{Journal, MigrateResult, Report};

/// Moves secrets from a source store to a target store.
///
/// Every command can be stopped and started again, and answers a [`Report`]; what is found and what
/// fails on single secrets is in there, and `Err` is only what makes going on impossible. Whether all
/// is done says [`Report::is_complete`].
///
/// The [crate's page](crate) has an example.
pub type Migration = Job<TwoStores>;

/// What a [`Migration`] works on.
pub struct TwoStores {
    pub(super) source: Arc<dyn SecretPersistence>,
    pub(super) target: Arc<dyn SecretPersistence>,
    pub(super) references: Option<Arc<dyn ResolveReferences>>,
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

impl Job<TwoStores> {
    /// A migration from one store to another, remembered in a journal.
    #[must_use]
    pub fn new(
        source: Arc<dyn SecretPersistence>,
        target: Arc<dyn SecretPersistence>,
        journal: Arc<dyn Journal>,
    ) -> Self {
        let stores = TwoStores {
            source,
            target,
            references: None,
        };
        Self::over(stores, journal)
    }

    /// Sets where reference ids are resolved. Without it, a configuration that has one cannot be
    /// understood.
    #[must_use]
    pub fn with_references(mut self, references: Arc<dyn ResolveReferences>) -> Self {
        self.stores.references = Some(references);
        self
    }

    /// Looks at everything and changes nothing: what there is to move, and what has to be decided.
    ///
    /// # Errors
    /// Where the journal is of another run, where source and target are one store, and where
    /// journal, configurations or a listing cannot be read.
    pub async fn plan(&self) -> MigrateResult<Report> {
        let session = Session::begin(self, "plan").await?;
        session.plan().await?;
        session.end().await
    }

    /// Copies every secret that the target has not got. Repeatable as a delta.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn copy(&self) -> MigrateResult<Report> {
        let session = Session::begin(self, "copy").await?;
        session.copy().await?;
        session.end().await
    }

    /// Reads every secret back, compares it, and hydrates every configuration from the target.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn verify(&self) -> MigrateResult<Report> {
        let session = Session::begin(self, "verify").await?;
        session.verify().await?;
        session.end().await
    }

    /// Deletes from the target what this migration has written there and what equals the source at
    /// that moment, provided that every configuration hydrates from the source. Touches no
    /// configuration.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn rollback(&self) -> MigrateResult<Report> {
        let session = Session::begin(self, "rollback").await?;
        session.rollback().await?;
        session.end().await
    }

    /// Deletes from the source what is equal in the target at that moment, provided that every
    /// configuration hydrates from the target. Says in [`Report::unreachable`] which plaintext it
    /// cannot reach.
    ///
    /// What the source marks with another owner is left. A probe, written to the target and looked
    /// for in the source, proves first that the two are not one store under two addresses.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn retire(&self, confirmed: AllReferences) -> MigrateResult<Report> {
        let AllReferences(()) = confirmed;
        let session = Session::begin(self, "retire").await?;
        session.retire().await?;
        session.end().await
    }
}

impl fmt::Debug for TwoStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwoStores")
            .field("source", &format_args!("{}", self.source))
            .field("target", &format_args!("{}", self.target))
            .field("references", &self.references.is_some())
            .finish()
    }
}
