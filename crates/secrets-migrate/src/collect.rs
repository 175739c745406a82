//! Deletes secrets that nothing needs any more, and only those.

mod delete;
mod joining;
mod journal;
#[cfg(all(test, feature = "postgres"))]
pub(crate) mod lapses;
#[cfg(all(test, feature = "postgres"))]
mod processes;
mod report;
mod search;
mod shared;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secret_persistence_core::connector::ResolveReferences;
use secret_persistence_core::{Listing, Operation, Owner, SecretPersistence, Timestamp};
use uuid::Uuid;

pub use self::journal::CollectJournal;
pub use self::report::{CollectReport, CollectStop, Fate, Reason, Superfluous};
use crate::engine::AllReferences;
use crate::job::limited;
use crate::shared::Held;
use crate::{
    Cancellation, Claim, ConfigSource, Failure, MigrateError, MigrateOptions, MigrateResult,
};

/// The shortest grace period: longer than any change takes, and than clocks differ.
const LEAST_GRACE: Duration = Duration::from_secs(3600);

/// Deletes the secrets of one store that no configuration names, and those that have expired.
///
/// A run lists the store, then reads every configuration, and then deletes. In this order, a secret
/// that a change writes meanwhile is not listed, or its configuration is read after it. An orphan goes
/// only if all of this is true:
///
/// - the store says that this installation wrote it, and when;
/// - it is older than the grace period at the beginning of the listing;
/// - every complete run found it unreferenced since the first one that did, for the grace period and,
///   if there is one, for the retention. The journal remembers when. A run in which a configuration
///   names it, under any storage id, begins the waiting again;
/// - at most a tenth of this installation's secrets goes at once, unless the options allow more;
/// - every configuration could be read.
///
/// Two kinds are not waited for: what has expired, and short-lived secrets of no workspace
/// ([`Scope::ephemeral`](secret_persistence_core::Scope::ephemeral)) that are older than the grace period and that no configuration names. They too
/// need an owner and a time. Everything goes with the store's recovery window.
///
/// The [`Record`](secret_persistence_core::connector::Record)s of an outbox and the
/// [`RefreshRecord`](secret_persistence_core::connector::RefreshRecord)s of open refreshes are read like
/// configurations, so that what they have written is referenced: add their tables as sources. All names
/// are on disk in the journal, and memory holds a page of them.
///
/// Several processes share one run if the journal is in Postgres and [opened for
/// that](CollectJournal::open_shared). One of them lists, then reads every configuration and compares with
/// the share, under a lease; if it makes no progress, another one begins with the listing again. Only
/// then are there pages of what is due, which all of them delete. Before each request that deletes, a process
/// asks the journal whether the page still is its own, unless that said so less than a third of the lease
/// ago. What configurations named an hour ago or longer does not count: all of them begin with the listing
/// again. So does a process that comes when there are pages, unless it sees that another one is at work on
/// them: whoever starts the command again after a configuration was restored, has it read.
///
/// ```
/// use std::sync::Arc;
///
/// use secret_persistence_core::{ManagedCoordinate, Memory, Owner, SecretPersistenceExt, SecretValue, Write};
/// use secret_persistence_migrate::{Collect, CollectJournal, MemoryConfigs};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("collect.db");
/// # let path = path.to_str().unwrap_or_default();
/// let owner = Owner::parse("prod_eu")?;
/// let store = Arc::new(Memory::new().with_owner(owner.clone()));
/// let name = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1")?;
/// store.write(Write::new(name, SecretValue::new("hunter2".to_owned()))).await?;
/// let journal = Arc::new(CollectJournal::open(path, &|_| None).await?);
/// let collect = Collect::new(store, owner, journal)
///     .with_configs(Arc::new(MemoryConfigs::new("connectors", Vec::new())?));
/// let report = collect.preview(&mut |_| ()).await?;
/// // It may belong to a change that is not saved yet.
/// assert_eq!((report.young, report.orphaned, report.deleted), (1, 0, 0));
/// # Ok(())
/// # }
/// ```
pub struct Collect {
    store: Arc<dyn SecretPersistence>,
    owner: Owner,
    journal: Arc<CollectJournal>,
    configs: Vec<Arc<dyn ConfigSource>>,
    references: Option<Arc<dyn ResolveReferences>>,
    rules: CollectRules,
    options: MigrateOptions,
    cancellation: Cancellation,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// How long a [`Collect`] waits, and how much it deletes at once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CollectRules {
    /// How old a secret must be, and how long unreferenced; at least an hour, by default a day.
    pub grace: Duration,
    /// How long a secret must be unreferenced too, so that backups of configurations can be restored:
    /// the retention of the services, if they have one.
    pub retention: Option<Duration>,
    /// How many percent of the installation's secrets may go at once; by default 10.
    pub most_percent: u8,
    /// Only secrets of these workspaces, by their names; all if empty. Configurations of every
    /// workspace are read. Runs with other workspaces have another memory.
    pub workspaces: BTreeSet<Uuid>,
}

impl Default for CollectRules {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(24 * 3600),
            retention: None,
            most_percent: 10,
            workspaces: BTreeSet::new(),
        }
    }
}

impl Collect {
    /// Of the secrets of this installation in this store.
    #[must_use]
    pub fn new(
        store: Arc<dyn SecretPersistence>,
        owner: Owner,
        journal: Arc<CollectJournal>,
    ) -> Self {
        Self {
            store,
            owner,
            journal,
            configs: Vec::new(),
            references: None,
            rules: CollectRules::default(),
            options: MigrateOptions::default(),
            cancellation: Cancellation::new(),
            clock: Arc::new(Timestamp::now),
        }
    }

    /// Adds a source of configurations, or an outbox with the records of changes.
    #[must_use]
    pub fn with_configs(mut self, configs: Arc<dyn ConfigSource>) -> Self {
        self.configs.push(configs);
        self
    }

    /// Sets how reference ids are resolved. Without it, a place with a reference id is unreadable.
    #[must_use]
    pub fn with_references(mut self, references: Arc<dyn ResolveReferences>) -> Self {
        self.references = Some(references);
        self
    }

    /// Sets how long to wait, and how much to delete at once.
    #[must_use]
    pub fn with_rules(mut self, rules: CollectRules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the options, of which page, concurrency, requests per second, shared rates, lease, listed, most
    /// failures and recovery apply.
    #[must_use]
    pub fn with_options(mut self, options: MigrateOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the token that stops the run between two pages.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Sets the clock, so that a test does not wait for a grace period.
    #[cfg(any(feature = "conformance", test))]
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Reports what [`run`](Self::run) would delete, and deletes nothing. It counts as a run: what it
    /// finds unreferenced is waited for from then on.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn preview(
        &self,
        each: &mut (dyn FnMut(&Superfluous) + Send),
    ) -> MigrateResult<CollectReport> {
        self.start(true, each).await
    }

    /// Deletes what nothing needs, and tells `each` secret that no configuration names or that has
    /// expired, in the order of the names. With a shared journal, the process that lists is told of what
    /// stays, and each process of what it deletes.
    ///
    /// It can be killed at any moment and started again. Several processes may write to the store
    /// and to the configurations meanwhile.
    ///
    /// # Errors
    /// `Settings` if the grace period is shorter than an hour, or if the store cannot list; `AnotherRun` if
    /// processes share the journal with other rules or sources; `Undecided` if an earlier run has read a
    /// source that this one lacks; and if the store, a source or the journal
    /// cannot be read. A failed delete is counted in the report. What was deleted before an error was told
    /// to `each`.
    pub async fn run(
        &self,
        confirmed: AllReferences,
        each: &mut (dyn FnMut(&Superfluous) + Send),
    ) -> MigrateResult<CollectReport> {
        let _ = confirmed;
        self.start(false, each).await
    }

    async fn start(&self, dry_run: bool, each: Each<'_>) -> MigrateResult<CollectReport> {
        if dry_run && self.journal.is_shared() {
            return Err(MigrateError::settings(
                "a preview needs a journal that is not shared",
            ));
        }
        if self.rules.grace < LEAST_GRACE {
            return Err(MigrateError::settings(
                "the grace period must be at least an hour: a secret may be older than the configuration \
                 that is about to be saved with it",
            ));
        }
        if self.store.capabilities().listing == Listing::None {
            return Err(MigrateError::settings("this store cannot list its secrets")
                .with_place(self.store.to_string()));
        }
        let identity = self.store.identity().await;
        let identity = identity.map_err(|error| error.with_operation(Operation::Identity))?;
        let mut memory = format!(
            "{} {}, owner {}",
            identity.store, identity.location, self.owner
        );
        for workspace in &self.rules.workspaces {
            memory += &format!(", workspace {workspace}");
        }
        let sources: Vec<String> = self.configs.iter().map(|source| source.reads()).collect();
        let mut run = Run {
            collect: self,
            store: limited(&self.store, &self.options),
            memory,
            number: 0,
            began: (self.clock)(),
            read_at: (self.clock)(),
            held: None,
            report: CollectReport {
                dry_run,
                ..CollectReport::default()
            },
        };
        if self.journal.is_shared() {
            run.share(&sources, each).await?;
            return Ok(run.report);
        }
        run.number = self.journal.begin(None, &run.memory, &sources).await?;
        run.list().await?;
        run.read().await?;
        if run.report.unreadable > 0 {
            run.stop(CollectStop::Unreadable);
        }
        if run.report.stopped.is_none() {
            run.settle(&sources).await?;
            run.finish(each).await?;
        }
        Ok(run.report)
    }
}

impl fmt::Debug for Collect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect")
            .field("store", &format_args!("{}", self.store))
            .field("owner", &self.owner)
            .field("journal", &self.journal)
            .field("configs", &self.configs)
            .field("references", &self.references.is_some())
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// A run that is under way.
struct Run<'c> {
    collect: &'c Collect,
    store: Arc<dyn SecretPersistence>,
    /// What the journal calls this store.
    memory: String,
    number: u64,
    /// When the listing began.
    began: Timestamp,
    /// When the reading of the configurations began.
    read_at: Timestamp,
    /// The page of a shared journal under which it lists and reads for all processes, or deletes.
    held: Option<Arc<Held<'c, CollectJournal>>>,
    report: CollectReport,
}

/// Whoever is told of each secret.
type Each<'e> = &'e mut (dyn FnMut(&Superfluous) + Send);

impl Run<'_> {
    fn claim(&self) -> Option<Claim> {
        self.held.as_ref().map(|held| held.claim())
    }

    /// Notes that the work makes progress, and checks that it still is this process's.
    async fn still_held(&self) -> MigrateResult<()> {
        match &self.held {
            None => Ok(()),
            Some(held) => {
                held.progressed();
                held.check().await
            }
        }
    }

    /// Ends the reading of all configurations.
    async fn settle(&self, sources: &[String]) -> MigrateResult<()> {
        let now = (self.collect.clock)();
        let journal = &self.collect.journal;
        let settle = journal.settle(self.claim(), &self.memory, self.number, sources, now);
        settle.await
    }

    fn note(&mut self, failure: Failure) {
        if self.report.failures.len() < self.collect.options.listed {
            self.report.failures.push(failure);
        }
    }

    fn stop(&mut self, reason: CollectStop) {
        self.report.stopped.get_or_insert(reason);
    }

    fn is_cancelled(&mut self) -> bool {
        if self.collect.cancellation.is_cancelled() {
            self.stop(CollectStop::Cancelled);
        }
        self.report.stopped == Some(CollectStop::Cancelled)
    }
}
