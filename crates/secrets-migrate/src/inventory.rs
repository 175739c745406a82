//! What the store knows about each secret that configurations point at: never a value.

mod filter;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use secret_persistence_core::connector::{Problem, ResolveReferences};
use secret_persistence_core::{
    Actor, Coordinate, Entry, Error, ErrorKind, LastReads, ManagedCoordinate, ReadHistory,
    SecretPersistence, StorageId, Timestamp,
};

pub use self::filter::SecretFilter;
pub use self::report::{InventoryReport, Reads, SecretAt, Standing};
use crate::holdings::{Held, Holding, Means, resolved};
use crate::job::limited;
use crate::session::page_after;
use crate::workspaces::Workspaces;
use crate::{
    Cancellation, ConfigSource, MigrateError, MigrateErrorKind, MigrateOptions, MigrateResult,
    Storage,
};

/// Lists the secrets that configurations point at, with their age, expiry and owner.
///
/// It reads configurations in pages and asks the store about each name of a page once, with
/// [`describe`](SecretPersistence::describe): nothing is changed, and memory does not depend on the
/// number of configurations. No value is read, except where a store has no other way to describe one
/// (Vault's KV 1), and none is shown. A coordinate names one value for ever, so the time
/// at which it was created is the time at which the value was last changed.
///
/// ```
/// use std::ops::ControlFlow;
/// use std::sync::Arc;
///
/// use secret_persistence_core::{ManagedCoordinate, Memory, SecretPersistenceExt, SecretValue, Write};
/// use secret_persistence_migrate::{ConfigRow, Inventory, MemoryConfigs, Standing};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Arc::new(Memory::new());
/// let name = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1")?;
/// store.write(Write::new(name.clone(), SecretValue::new("hunter2".to_owned()))).await?;
/// let row = ConfigRow::new("7", json!({"password": {"_secret": name.as_str()}}));
/// let inventory = Inventory::new(store)
///     .with_configs(Arc::new(MemoryConfigs::new("connectors", vec![row])?));
/// let mut places = Vec::new();
/// let report = inventory
///     .run(&mut |secret| {
///         assert_eq!(secret.standing, Standing::Present);
///         places.push(secret.place.clone());
///         ControlFlow::Continue(())
///     })
///     .await?;
/// assert_eq!((report.listed, report.is_complete()), (1, true));
/// assert_eq!(places, ["/password"]);
/// # Ok(())
/// # }
/// ```
pub struct Inventory {
    store: Arc<dyn SecretPersistence>,
    configs: Vec<Arc<dyn ConfigSource>>,
    references: Option<Arc<dyn ResolveReferences>>,
    history: Option<Arc<dyn ReadHistory>>,
    storages: BTreeSet<String>,
    filter: SecretFilter,
    restores: bool,
    options: MigrateOptions,
    cancellation: Cancellation,
}

impl Inventory {
    /// Of the secrets in this store. Pointers without a storage id are in it.
    #[must_use]
    pub fn new(store: Arc<dyn SecretPersistence>) -> Self {
        Self {
            store,
            configs: Vec::new(),
            references: None,
            history: None,
            storages: BTreeSet::new(),
            filter: SecretFilter::default(),
            restores: false,
            options: MigrateOptions::default(),
            cancellation: Cancellation::new(),
        }
    }

    /// Adds a source of configurations.
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

    /// Sets what knows who read a secret last, which is asked once for each page. Without it, nothing is
    /// said about reads; nor of a name that others manage, if the configuration names its storage.
    #[must_use]
    pub fn with_history(mut self, history: Arc<dyn ReadHistory>) -> Self {
        self.history = Some(history);
        self
    }

    /// Says that this storage id means the store too. Secrets of every other id are
    /// [`Standing::Elsewhere`].
    #[must_use]
    pub fn with_storage(mut self, id: impl Into<String>) -> Self {
        self.storages.insert(id.into());
        self
    }

    /// Sets which secrets are listed.
    #[must_use]
    pub fn with_filter(mut self, filter: SecretFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Sets whether secrets that are scheduled for deletion are restored, if they meet the condition on
    /// workspaces: after the configurations were restored from a backup, they name what was replaced
    /// since. Without this, nothing is changed.
    ///
    /// A restored secret is described again. If a store fails to restore one, it stays
    /// [`Standing::PendingDeletion`], with the reason.
    #[must_use]
    pub fn with_restoring(mut self, restores: bool) -> Self {
        self.restores = restores;
        self
    }

    /// Sets the options, of which page, concurrency and requests per second apply.
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

    /// Lists every secret in the order of the configurations, until `each` breaks.
    ///
    /// # Errors
    /// If configurations or references cannot be read, and if the store answers nothing about a
    /// whole page because it is unavailable or refuses the credentials. A failure of single secrets
    /// is their [`Standing`]. `ReadHistory` if the history cannot be read.
    pub async fn run(
        &self,
        each: &mut (dyn FnMut(&SecretAt) -> ControlFlow<()> + Send),
    ) -> MigrateResult<InventoryReport> {
        let mut run = Run {
            inventory: self,
            store: limited(&self.store, &self.options),
            workspaces: Workspaces::new(self.filter.workspaces.iter().copied()),
            now: Timestamp::now(),
            answered: false,
            report: InventoryReport {
                never_read: self.history.is_some().then_some(0),
                not_genuine: self.history.is_some().then_some(0),
                ..InventoryReport::default()
            },
        };
        for source in &self.configs {
            let mut after = None;
            loop {
                if self.cancellation.is_cancelled() {
                    run.report.stopped = true;
                    return Ok(run.report);
                }
                let page = page_after(&**source, after.as_ref(), &self.options).await?;
                let decide = |id: &StorageId| {
                    let is_ours = self.storages.contains(id.as_str());
                    Some(if is_ours {
                        Storage::Move
                    } else {
                        Storage::Leave
                    })
                };
                let references = self.references.as_deref();
                let holdings = resolved(references, &decide, &**source, page.rows).await?;
                if run.page(&holdings, each).await?.is_break() {
                    run.report.stopped = true;
                    return Ok(run.report);
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(run.report)
    }
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inventory")
            .field("store", &format_args!("{}", self.store))
            .field("configs", &self.configs)
            .field("references", &self.references.is_some())
            .field("history", &self.history.is_some())
            .field("storages", &self.storages)
            .field("filter", &self.filter)
            .field("restores", &self.restores)
            .finish_non_exhaustive()
    }
}

/// A run that is under way.
struct Run<'i> {
    inventory: &'i Inventory,
    store: Arc<dyn SecretPersistence>,
    workspaces: Workspaces,
    now: Timestamp,
    /// Whether the store has answered about any secret.
    answered: bool,
    report: InventoryReport,
}

/// What the store said about the names of a page.
type Described = BTreeMap<ManagedCoordinate, Result<Entry, Error>>;

/// What a store said that was asked to restore a name.
type Restored = BTreeMap<ManagedCoordinate, Result<(), Error>>;

impl Run<'_> {
    async fn page(
        &mut self,
        holdings: &[Holding],
        each: &mut (dyn FnMut(&SecretAt) -> ControlFlow<()> + Send),
    ) -> MigrateResult<ControlFlow<()>> {
        let mut names = BTreeSet::new();
        for holding in holdings {
            for held in &holding.held {
                if let Some(Coordinate::Managed(name)) = held.coordinate()
                    && self.workspaces.have(holding.row.base_id, Some(name))
                {
                    names.insert(name.clone());
                }
            }
        }
        let mut described = self.described(names).await?;
        let restored = self.restored(&mut described).await?;
        let last_reads = self.last_reads(holdings).await?;
        for holding in holdings {
            self.report.configurations += 1;
            for held in &holding.held {
                self.report.places += 1;
                let name = named(held).and_then(Coordinate::managed);
                if !self.workspaces.have(holding.row.base_id, name) {
                    continue;
                }
                let mut secret = self.secret(holding, held, &described, &restored);
                secret.reads = last_reads.as_ref().map(|all| reads(all, recorded(held)));
                if self.list(&secret, each).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            for problem in &holding.problems {
                self.report.places += 1;
                if !self.workspaces.have(holding.row.base_id, None) {
                    continue;
                }
                let mut secret = unreadable(holding, problem);
                secret.reads = last_reads.as_ref().map(|all| reads(all, None));
                if self.list(&secret, each).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Asks the store about each name, several at a time.
    async fn described(&mut self, names: BTreeSet<ManagedCoordinate>) -> MigrateResult<Described> {
        let mut requests: Vec<BoxFuture<'_, (ManagedCoordinate, Result<Entry, Error>)>> =
            Vec::with_capacity(names.len());
        for name in names {
            let store = &self.store;
            requests.push(Box::pin(async move {
                let entry = store.describe(&name).await;
                (name, entry)
            }));
        }
        // The limit layer waits for permits; this only bounds the requests that wait.
        let most = self.store.capabilities().concurrency.max(1);
        let described: Described = stream::iter(requests)
            .buffer_unordered(most)
            .collect()
            .await;
        let mut failures = described
            .values()
            .filter_map(|entry| entry.as_ref().err())
            .filter(|error| !is_answer(error));
        let first = failures.next();
        let failed = failures.count() + usize::from(first.is_some());
        if let Some(error) = first
            && failed == described.len()
            && (!self.answered || is_of_store(error))
        {
            return Err(error.clone().into());
        }
        self.answered |= failed < described.len();
        Ok(described)
    }

    /// Restores what is scheduled for deletion, and describes it again.
    async fn restored(&mut self, described: &mut Described) -> MigrateResult<Restored> {
        if !self.inventory.restores {
            return Ok(Restored::new());
        }
        let pending = described.iter().filter(|(_, entry)| match entry {
            Ok(entry) => entry.pending_deletion,
            Err(error) => error.kind() == ErrorKind::PendingDeletion,
        });
        let mut requests: Vec<BoxFuture<'_, (ManagedCoordinate, Result<(), Error>)>> = Vec::new();
        for (name, _) in pending {
            let (store, name) = (&self.store, name.clone());
            requests.push(Box::pin(async move {
                let restored = store.restore(&name).await;
                (name, restored)
            }));
        }
        let most = self.store.capabilities().concurrency.max(1);
        let restored: Restored = stream::iter(requests)
            .buffer_unordered(most)
            .collect()
            .await;
        let back = restored.iter().filter(|(_, result)| result.is_ok());
        let back = back.map(|(name, _)| name.clone()).collect();
        described.extend(self.described(back).await?);
        Ok(restored)
    }

    /// Asks the history about every name of a page, also of those that the store is not asked about.
    async fn last_reads(&self, holdings: &[Holding]) -> MigrateResult<Option<LastReads>> {
        let Some(history) = &self.inventory.history else {
            return Ok(None);
        };
        let mut names = BTreeSet::new();
        for holding in holdings {
            for name in holding.held.iter().filter_map(recorded) {
                if self.workspaces.have(holding.row.base_id, name.managed()) {
                    names.insert(name.clone());
                }
            }
        }
        if names.is_empty() {
            return Ok(Some(LastReads::default()));
        }
        let found = history.last_reads(&names).await;
        found.map(Some).map_err(|error| {
            let message = "nobody can tell who read these secrets last";
            MigrateError::new(MigrateErrorKind::ReadHistory, message).with_source(error)
        })
    }

    fn secret(
        &self,
        holding: &Holding,
        held: &Held,
        described: &Described,
        restored: &Restored,
    ) -> SecretAt {
        let mut secret = SecretAt {
            coordinate: named(held).map(|name| name.as_str().to_owned()),
            storage: held.storage.as_ref().map(|id| id.as_str().to_owned()),
            ..blank(holding, held.place.as_str(), Standing::Elsewhere)
        };
        match held.coordinate() {
            None => {}
            Some(Coordinate::External(_)) => secret.standing = Standing::External,
            Some(Coordinate::Managed(name)) => match described.get(name) {
                Some(Ok(entry)) => self.describe(&mut secret, entry),
                Some(Err(error)) => {
                    secret.standing = match error.kind() {
                        ErrorKind::NotFound => Standing::Missing,
                        ErrorKind::PendingDeletion => Standing::PendingDeletion,
                        _ => {
                            secret.detail = Some(error.to_string());
                            Standing::Undescribed
                        }
                    };
                }
                // Every name that the filter admits was asked about.
                None => secret.standing = Standing::Undescribed,
            },
        }
        let name = held.coordinate().and_then(Coordinate::managed);
        match (name.and_then(|name| restored.get(name)), secret.standing) {
            (Some(Ok(())), Standing::Present) => secret.standing = Standing::Restored,
            (Some(Err(error)), Standing::PendingDeletion) => {
                secret.detail = Some(error.to_string());
            }
            _ => {}
        }
        secret
    }

    fn describe(&self, secret: &mut SecretAt, entry: &Entry) {
        secret.standing = if entry.pending_deletion {
            Standing::PendingDeletion
        } else {
            Standing::Present
        };
        secret.created = entry.created;
        secret.age_seconds = entry.created.map(|created| {
            let age = self.now.unix_seconds() - created.unix_seconds();
            u64::try_from(age).unwrap_or_default()
        });
        secret.expires = entry.expires;
        secret.owner.clone_from(&entry.owner);
    }

    fn list(
        &mut self,
        secret: &SecretAt,
        each: &mut (dyn FnMut(&SecretAt) -> ControlFlow<()> + Send),
    ) -> ControlFlow<()> {
        if !self.inventory.filter.admits(secret) {
            return ControlFlow::Continue(());
        }
        let report = &mut self.report;
        report.listed += 1;
        report.unknown_age += u64::from(secret.created.is_none());
        if let (Some(reads), Some(never_read), Some(not_genuine)) = (
            &secret.reads,
            &mut report.never_read,
            &mut report.not_genuine,
        ) {
            *never_read += u64::from(reads.is_unread());
            *not_genuine += u64::from(reads.last_read_genuine == Some(false));
            report.reads_since = report.reads_since.max(reads.reads_since);
        }
        match secret.standing {
            Standing::Elsewhere => report.elsewhere += 1,
            Standing::External => report.external += 1,
            Standing::Missing => report.missing += 1,
            Standing::PendingDeletion => report.pending_deletion += 1,
            Standing::Present => {}
            Standing::Restored => report.restored += 1,
            Standing::Undescribed => report.undescribed += 1,
            Standing::Unreadable => report.unreadable += 1,
        }
        each(secret)
    }
}

/// The name at a place, in whichever storage.
fn named(held: &Held) -> Option<&Coordinate> {
    match &held.means {
        Means::Elsewhere { coordinate, .. } | Means::Secret { coordinate, .. } => Some(coordinate),
        // Every storage id is decided here, and no workspace is left out.
        Means::OtherWorkspace(_) | Means::Undecided(_) => None,
    }
}

/// The name at a place, if the history can tell its secret: a name that others manage is another secret
/// in another storage, and a tenant must not learn who reads the one of another tenant.
fn recorded(held: &Held) -> Option<&Coordinate> {
    named(held).filter(|name| name.managed().is_some() || held.storage.is_none())
}

fn reads(all: &LastReads, name: Option<&Coordinate>) -> Reads {
    let last = name.and_then(|name| all.reads.get(name));
    Reads {
        last_read: last.map(|read| read.at),
        last_reader: last.and_then(|read| read.actor.as_ref().map(Actor::to_string)),
        last_read_genuine: last.map(|read| read.genuine),
        reads_since: name.and(all.since),
    }
}

fn unreadable(holding: &Holding, problem: &Problem) -> SecretAt {
    SecretAt {
        coordinate: problem.coordinate().map(str::to_owned),
        detail: Some(problem.message().to_owned()),
        ..blank(holding, problem.place().as_str(), Standing::Unreadable)
    }
}

fn blank(holding: &Holding, place: &str, standing: Standing) -> SecretAt {
    SecretAt {
        configuration: holding.key.clone(),
        place: place.to_owned(),
        base_id: holding.row.base_id.map(|id| id.to_string()),
        coordinate: None,
        storage: None,
        standing,
        created: None,
        age_seconds: None,
        expires: None,
        owner: None,
        reads: None,
        detail: None,
    }
}

/// Whether an error tells about the secret, and not that nothing can be told.
fn is_answer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::PendingDeletion
    )
}

/// Whether the next page would fail in the same way.
fn is_of_store(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unauthenticated | ErrorKind::Unavailable
    )
}
