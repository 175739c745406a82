//! Deletes secrets that nothing needs any more, and only those.

mod journal;
mod report;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use secret_persistence_core::connector::{Record, RefreshRecord, ResolveReferences};
use secret_persistence_core::{
    Coordinate, DeleteOptions, Entry, ListOptions, Listing, ManagedCoordinate, Operation, Owner,
    Scope, SecretPersistence, SecretPersistenceExt, StorageId, Timestamp,
};
use serde::Deserialize as _;
use uuid::Uuid;

pub use self::journal::CollectJournal;
use self::journal::{Listed, Seen};
pub use self::report::{CollectReport, CollectStop, Fate, Reason, Superfluous};
use crate::engine::AllReferences;
use crate::holdings::{Means, resolved};
use crate::job::limited;
use crate::session::{key, page_after};
use crate::{
    Cancellation, ConfigRow, ConfigSource, Content, Failure, MigrateError, MigrateOptions,
    MigrateResult, Storage,
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
/// ([`Scope::ephemeral`]) that are older than the grace period and that no configuration names. They too
/// need an owner and a time. Everything goes with the store's recovery window.
///
/// The [`Record`]s of an outbox and the [`RefreshRecord`]s of open refreshes are read like
/// configurations, so that what they have written is referenced: add their tables as sources. All names
/// are on disk in the journal, and memory holds a page of them.
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

    /// Sets the options, of which page, concurrency, requests per second, listed, most failures and
    /// recovery apply.
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
    /// expired, in the order of the names.
    ///
    /// It can be killed at any moment and started again. Several processes may write to the store
    /// and to the configurations meanwhile.
    ///
    /// # Errors
    /// `Settings` if the grace period is shorter than an hour, or if the store cannot list; `Undecided`
    /// if an earlier run has read a source that this one lacks; and if the store, a source or the journal
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

    async fn start(
        &self,
        dry_run: bool,
        each: &mut (dyn FnMut(&Superfluous) + Send),
    ) -> MigrateResult<CollectReport> {
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
        let number = self.journal.begin(&memory, &sources).await?;
        let mut run = Run {
            collect: self,
            store: limited(&self.store, &self.options),
            memory,
            number,
            began: (self.clock)(),
            report: CollectReport {
                dry_run,
                ..CollectReport::default()
            },
        };
        run.list().await?;
        run.read().await?;
        if run.report.unreadable > 0 {
            run.stop(CollectStop::Unreadable);
        }
        if run.report.stopped.is_none() {
            let now = (self.clock)();
            let journal = &self.journal;
            journal.settle(&run.memory, number, &sources, now).await?;
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
    report: CollectReport,
}

impl Run<'_> {
    /// Writes what may have to go to the journal.
    async fn list(&mut self) -> MigrateResult<()> {
        let workspaces: Vec<String> = self
            .collect
            .rules
            .workspaces
            .iter()
            .map(|id| Scope::workspace(*id).to_string())
            .collect();
        let all = vec![ListOptions::default().prefix];
        for prefix in if workspaces.is_empty() {
            all
        } else {
            workspaces
        } {
            let options = ListOptions::default()
                .with_prefix(prefix)
                .with_details(true);
            let store = Arc::clone(&self.store);
            let mut pages = store
                .list(&options)
                .try_chunks(self.collect.options.page.get())
                .boxed();
            while let Some(page) = pages.try_next().await.map_err(|failed| failed.1)? {
                if self.is_cancelled() {
                    return Ok(());
                }
                let listed: Vec<Listed> = page
                    .into_iter()
                    .filter_map(|entry| self.listed(entry))
                    .collect();
                let journal = &self.collect.journal;
                journal.list(&self.memory, self.number, &listed).await?;
            }
        }
        Ok(())
    }

    /// What the configurations are searched for. `None` for what is not to be collected, whatever they
    /// say.
    fn listed(&mut self, entry: Entry) -> Option<Listed> {
        let (collect, report) = (self.collect, &mut self.report);
        if entry.pending_deletion {
            return None;
        }
        let reason = match (&entry.owner, entry.created) {
            (None, _) => Reason::Unowned,
            (Some(theirs), _) if theirs != collect.owner.as_str() => {
                report.foreign += 1;
                return None;
            }
            (Some(_), created) => {
                report.owned += 1;
                let is_expired = entry.expires.is_some_and(|expires| expires <= self.began);
                match created {
                    None => Reason::Undated,
                    Some(_) if is_expired => Reason::Expired,
                    Some(created) if created > self.began.saturating_sub(collect.rules.grace) => {
                        report.young += 1;
                        return None;
                    }
                    Some(_) if entry.coordinate.is_ephemeral() => Reason::Ephemeral,
                    Some(_) => Reason::Orphaned,
                }
            }
        };
        Some(Listed {
            coordinate: entry.coordinate,
            reason,
            created: entry.created,
        })
    }

    /// Reads every configuration, and forgets what they name.
    async fn read(&mut self) -> MigrateResult<()> {
        for source in &self.collect.configs {
            let mut after = None;
            loop {
                if self.is_cancelled() {
                    return Ok(());
                }
                let options = &self.collect.options;
                let page = page_after(&**source, after.as_ref(), options).await?;
                let names = self.named(&**source, page.rows).await?;
                self.report.names += names.len() as u64;
                self.collect.journal.mention(&self.memory, &names).await?;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The managed names in rows, under whichever storage id: two ids may lead to one store, and a
    /// name is given once.
    async fn named(
        &mut self,
        source: &dyn ConfigSource,
        rows: Vec<ConfigRow>,
    ) -> MigrateResult<Vec<ManagedCoordinate>> {
        self.report.configurations += rows.len() as u64;
        let mut names = Vec::new();
        let mut configurations = Vec::with_capacity(rows.len());
        for row in rows {
            match record(&row) {
                None => configurations.push(row),
                Some(Ok(recorded)) => names.extend(recorded),
                Some(Err(_)) => {
                    self.report.unreadable += 1;
                    self.note(Failure::of_record(&key(source, &row.id)));
                }
            }
        }
        let references = self.collect.references.as_deref();
        let here = |_: &StorageId| Some(Storage::Move);
        for holding in resolved(references, &here, source, configurations).await? {
            for held in &holding.held {
                if let Means::Secret { coordinate, .. } = &held.means
                    && let Coordinate::Managed(name) = coordinate
                {
                    names.push(name.clone());
                }
            }
            for problem in &holding.problems {
                self.report.unreadable += 1;
                self.note(Failure::of_problem(&holding.key, problem));
            }
        }
        Ok(names)
    }

    /// Deletes what is due, page by page.
    async fn finish(&mut self, each: &mut (dyn FnMut(&Superfluous) + Send)) -> MigrateResult<()> {
        let (collect, rules) = (self.collect, &self.collect.rules);
        let wait = rules.grace.max(rules.retention.unwrap_or_default());
        let until = self.began.saturating_sub(wait);
        let due = collect.journal.due(&self.memory, until).await?;
        let share = u128::from(self.report.owned) * u128::from(rules.most_percent);
        if u128::from(due) * 100 > share {
            self.stop(CollectStop::Share);
        }
        let deletes = !self.report.dry_run && self.report.stopped.is_none();
        let mut after = None;
        loop {
            if self.is_cancelled() {
                return Ok(());
            }
            let limit = collect.options.page.get();
            let page = collect.journal.page(&self.memory, after.as_ref(), limit);
            let page = page.await?;
            let is_last = page.len() < limit;
            after = page.last().map(|seen| seen.listed.coordinate.clone());
            self.page(page, until, deletes, each).await?;
            let failures = collect.options.max_failures.get();
            if self.report.failed >= failures as u64 {
                self.stop(CollectStop::Failures);
                return Ok(());
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn page(
        &mut self,
        page: Vec<Seen>,
        until: Timestamp,
        deletes: bool,
        each: &mut (dyn FnMut(&Superfluous) + Send),
    ) -> MigrateResult<()> {
        let mut due = Vec::new();
        let mut told = Vec::with_capacity(page.len());
        for Seen { listed, since } in page {
            let fate = match listed.reason {
                Reason::Undated | Reason::Unowned => Fate::Kept,
                Reason::Orphaned if since > until => Fate::Waiting,
                Reason::Ephemeral | Reason::Expired | Reason::Orphaned => Fate::Due,
            };
            told.push(Superfluous {
                coordinate: listed.coordinate.as_str().to_owned(),
                reason: listed.reason,
                fate,
                created: listed.created,
                since,
            });
            if fate == Fate::Due {
                due.push(listed.coordinate);
            }
        }
        let mut gone = Vec::new();
        if deletes {
            let options = DeleteOptions::default().with_recovery(self.collect.options.recovery);
            let results = self.store.delete_many(&due, &options).await;
            let going = told.iter_mut().filter(|told| told.fate == Fate::Due);
            for ((told, name), result) in going.zip(due).zip(results) {
                match result {
                    Ok(()) => {
                        told.fate = Fate::Deleted;
                        gone.push(name);
                    }
                    Err(error) => {
                        told.fate = Fate::Failed;
                        self.report.failed += 1;
                        self.note(Failure::of(&error));
                    }
                }
            }
            self.report.deleted += gone.len() as u64;
        }
        for told in &told {
            let report = &mut self.report;
            match (told.reason, told.fate) {
                (_, Fate::Waiting) => report.waiting += 1,
                (Reason::Ephemeral, _) => report.ephemeral += 1,
                (Reason::Expired, _) => report.expired += 1,
                (Reason::Orphaned, _) => report.orphaned += 1,
                (Reason::Undated, _) => report.undated += 1,
                (Reason::Unowned, _) => report.unowned += 1,
            }
            each(told);
        }
        // Last: what is deleted is told even if the journal fails now.
        if !gone.is_empty() {
            self.collect.journal.forget(&self.memory, &gone).await?;
        }
        Ok(())
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

/// The names in the record of a change or a refresh, if a row is one.
fn record(row: &ConfigRow) -> Option<serde_json::Result<Vec<ManagedCoordinate>>> {
    const OF_A_CHANGE: [&str; 4] = ["format", "planned", "supersedes", "writes"];
    const OF_A_REFRESH: [&str; 3] = ["format", "planned", "targets"];
    let Content::Configuration(content) = &row.content else {
        return None;
    };
    let has = |fields: &[&str]| fields.iter().all(|field| content.get(field).is_some());
    if has(&OF_A_CHANGE) {
        let record = Record::deserialize(&***content);
        return Some(record.map(|record| {
            let locations = record.writes().iter().chain(record.supersedes());
            locations
                .map(|location| location.coordinate.clone())
                .collect()
        }));
    }
    if has(&OF_A_REFRESH) {
        let record = RefreshRecord::deserialize(&***content);
        return Some(record.map(|record| {
            let locations = record
                .targets()
                .iter()
                .flat_map(|target| [Some(&target.to), target.supersedes.as_ref()]);
            locations
                .flatten()
                .map(|location| location.coordinate.clone())
                .collect()
        }));
    }
    None
}
