//! The engine's entrance: what a migration works on, and its commands.

use std::fmt;
use std::sync::Arc;

use super::{
    Cancellation, ConfigSource, Journal, MigrateOptions, MigrateResult, Observer, Report, Silent,
};
use crate::session::Session;
use secret_persistence_core::connector::ResolveReferences;
use secret_persistence_core::{Owner, SecretPersistence};

/// Moves secrets from a source store to a target store.
///
/// Every command can be stopped and started again, and answers a [`Report`]; what is found and what
/// fails on single secrets is in there, and `Err` is only what makes going on impossible. Whether all
/// is done says [`Report::is_complete`].
///
/// ```
/// use std::sync::Arc;
///
/// use secret_persistence_migrate::{ConfigRow, MemoryConfigs, MemoryJournal, Migration};
/// use secret_persistence_core::{ManagedCoordinate, Memory, SecretPersistenceExt, SecretValue, Write};
/// use serde_json::json;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (source, target) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
/// let name = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1")?;
/// source.write(Write::new(name.clone(), SecretValue::new("hunter2".to_owned()))).await?;
/// let row = ConfigRow::new("7", json!({"password": {"_secret": name.as_str()}}));
/// let migration = Migration::new(source, target.clone(), Arc::new(MemoryJournal::new()))
///     .with_configs(Arc::new(MemoryConfigs::new("connectors", vec![row])?));
///
/// assert!(migration.plan().await?.is_complete(), "nothing waits for a decision");
/// assert_eq!(migration.copy().await?.tally.written, 1);
/// assert_eq!(migration.verify().await?.tally.hydrated, 1);
/// assert_eq!(target.read(&name.into()).await?.value.expose(), "hunter2");
/// migration.rollback().await?;
/// assert!(target.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Migration {
    pub(super) source: Arc<dyn SecretPersistence>,
    pub(super) target: Arc<dyn SecretPersistence>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) owner: Option<Owner>,
    pub(super) configs: Vec<Arc<dyn ConfigSource>>,
    pub(super) references: Option<Arc<dyn ResolveReferences>>,
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
            references: None,
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

    /// Sets where reference ids are resolved. Without it, a configuration that has one cannot be
    /// understood.
    #[must_use]
    pub fn with_references(mut self, references: Arc<dyn ResolveReferences>) -> Self {
        self.references = Some(references);
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

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("source", &format_args!("{}", self.source))
            .field("target", &format_args!("{}", self.target))
            .field("journal", &format_args!("{}", self.journal))
            .field("owner", &self.owner)
            .field("configs", &self.configs)
            .field("references", &self.references.is_some())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
