//! The engine's entry point: a migration and its commands.
use std::fmt;
use std::sync::Arc;

use secret_persistence_core::SecretPersistence;
use secret_persistence_core::connector::ResolveReferences;
use uuid::Uuid;

use crate::job::Job;
use crate::session::Session;
use crate::workspaces::Workspaces;
use crate::{Journal, MigrateResult, Report};

/// Moves secrets from a source store to a target store.
///
/// Every command can be stopped and started again, and returns a [`Report`] with its findings and
/// the failures of single secrets. `Err` means that the run cannot continue at all.
/// [`Report::is_complete`] tells whether everything is done.
///
/// The [crate's page](crate) has an example.
pub type Migration = Job<TwoStores>;

/// What a [`Migration`] works on.
pub struct TwoStores {
    pub(super) source: Arc<dyn SecretPersistence>,
    pub(super) target: Arc<dyn SecretPersistence>,
    pub(super) references: Option<Arc<dyn ResolveReferences>>,
    pub(super) workspaces: Workspaces,
}

/// The confirmation that the run has every table and file with coordinates of the source, so that
/// nothing else needs what [`Migration::retire`] deletes.
#[derive(Clone, Copy, Debug)]
pub struct AllReferences(());

impl AllReferences {
    /// Confirms it.
    #[must_use]
    pub fn confirmed() -> Self {
        Self(())
    }
}

impl Job<TwoStores> {
    /// A migration from one store to another, with a journal.
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
            workspaces: Workspaces::default(),
        };
        Self::over(stores, journal)
    }

    /// Sets how reference ids are resolved. Without it, a configuration with a reference id is
    /// unreadable.
    #[must_use]
    pub fn with_references(mut self, references: Arc<dyn ResolveReferences>) -> Self {
        self.stores.references = Some(references);
        self
    }

    /// Restricts every command to the secrets of these workspaces: one tenant at a time.
    ///
    /// A secret is theirs if their row names it (`base_id`), or if its own name says so. All rows are
    /// read: what a row of another workspace names too is copied, but neither rolled back nor retired.
    /// The journal is bound to the workspaces as to the stores, so each restriction needs a journal of its
    /// own. What one journal has copied, another one finds present.
    #[must_use]
    pub fn with_workspaces(mut self, workspaces: impl IntoIterator<Item = Uuid>) -> Self {
        self.stores.workspaces = Workspaces::new(workspaces);
        self
    }

    /// Reads everything and changes nothing: reports what to move and what needs a decision.
    ///
    /// # Errors
    /// If the journal belongs to another run, if source and target are the same store, or if the
    /// journal, configurations or a listing cannot be read.
    pub async fn plan(&self) -> MigrateResult<Report> {
        let session = Session::begin(self, "plan").await?;
        session.plan().await?;
        session.end().await
    }

    /// Copies every secret that is missing in the target. Can be repeated to copy what changed.
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

    /// Deletes from the target the secrets that this migration wrote there and that equal the
    /// source at that moment, if every configuration hydrates from the source. Changes no
    /// configuration.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn rollback(&self) -> MigrateResult<Report> {
        let session = Session::begin(self, "rollback").await?;
        session.rollback().await?;
        session.end().await
    }

    /// Deletes from the source the secrets that are equal in the target at that moment, if every
    /// configuration hydrates from the target. [`Report::unreachable`] lists plain text that it
    /// cannot reach.
    ///
    /// Secrets that the source marks with another owner stay. A probe, written to the target and
    /// searched in the source, first proves that the two are not the same store under two
    /// addresses.
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
            .field("workspaces", &self.workspaces)
            .finish()
    }
}
