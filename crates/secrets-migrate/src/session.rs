//! A running command: two stores, a journal and a tracker.
use std::collections::{HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use secret_persistence_core::connector::{
    ActingSecrets, ConnectorOptions, ConnectorSecrets, ResolveReferences,
};
use secret_persistence_core::{
    Actor, ManagedCoordinate, Operation, Owner, SecretPersistence, Stores,
};

use crate::independence::Watched;
use crate::left::LeftNames;
use crate::shared::Held;
use crate::tracker::Tracker;
use crate::workspaces::Workspaces;
use crate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, Journal, JournalEntry, Mention,
    MigrateError, MigrateErrorKind, MigrateOptions, MigrateResult, Migration, Phase, Report, Run,
    Select,
};

/// The smallest and the largest number of secrets in one unit of work. The lower bound saves
/// journal transactions for stores that take one secret per request, and each of a unit's waits for
/// the disk. The upper bound saves memory.
const UNIT: (usize, usize) = (16, 500);

/// The minimum and maximum of concurrent units. A stopped run finishes its running units, so there
/// are only as many as the concurrent requests need.
const UNITS: (usize, usize) = (3, 8);

/// The secrets of all units together, whose values are in memory.
const UNDER_WAY: usize = 2_000;

/// The actor of configuration changes, for audit events.
const ACTOR: &str = "migrate";

/// One unit of work.
pub(super) type Work<'w> = BoxFuture<'w, MigrateResult<()>>;

pub(super) struct Session<'m> {
    /// The source, for changes of configurations.
    pub(super) acting: ActingSecrets,
    pub(super) source: Arc<dyn SecretPersistence>,
    pub(super) target: Arc<dyn SecretPersistence>,
    pub(super) journal: &'m dyn Journal,
    pub(super) configs: &'m [Arc<dyn ConfigSource>],
    pub(super) options: &'m MigrateOptions,
    pub(super) owner: Option<&'m Owner>,
    pub(super) references: Option<&'m dyn ResolveReferences>,
    pub(super) workspaces: &'m Workspaces,
    /// Whether the command deletes what configurations may need.
    pub(super) deletes: bool,
    /// The kind of store that the source is.
    pub(super) source_kind: &'static str,
    pub(super) tracker: Tracker,
    /// Whether the first secret was deleted and the other store checked.
    pub(super) tried: tokio::sync::Mutex<bool>,
    /// Deleted secrets that are looked at once more, the oldest first.
    pub(super) watched: Mutex<VecDeque<Watched>>,
    /// Secrets of the journal that configurations also name in a storage that is left.
    pub(super) left: LeftNames,
    /// Secrets that this run copies although no configuration mentions them.
    pub(super) orphans: Mutex<HashSet<ManagedCoordinate>>,
    /// What the scan has found and not noted yet.
    pub(super) mentions: Mutex<Vec<Mention>>,
    /// The page that this process works on for all: the first, or the last.
    pub(super) alone: Mutex<Option<Arc<Held<'m>>>>,
}

impl<'m> Session<'m> {
    /// Identifies both stores, and opens the journal for them.
    pub(super) async fn begin(
        migration: &'m Migration,
        command: &'static str,
    ) -> MigrateResult<Self> {
        let [from, to] = [&migration.stores.source, &migration.stores.target];
        let (source_store, target_store) = (
            migration.limited_as("from", from),
            migration.limited_as("to", to),
        );
        let (source, target) = futures::try_join!(source_store.identity(), target_store.identity())
            .map_err(|error| error.with_operation(Operation::Identity))?;
        let run = Run::new(&source, Some(&target), migration.owner.as_ref())
            .within(&migration.stores.workspaces);
        if run.target.as_ref() == Some(&run.source) {
            return Err(same_store(&run));
        }
        if migration.journal.sharing().is_some() && command == "plan" {
            return Err(not_shared(command));
        }
        migration.journal.open(&run).await?;
        let mut stores = Stores::new(Arc::clone(&source_store));
        if let Some(owner) = &migration.owner {
            stores = stores.with_owner(owner.clone());
        }
        let mut connector = ConnectorOptions::default();
        if let Some(references) = &migration.stores.references {
            connector = connector.with_references(Arc::clone(references));
        }
        let secrets = ConnectorSecrets::new(stores, connector);
        Ok(Self {
            acting: secrets.acting_as(&Actor::new(ACTOR)),
            source: source_store,
            target: target_store,
            journal: &*migration.journal,
            configs: &migration.configs,
            options: &migration.options,
            owner: migration.owner.as_ref(),
            references: migration.stores.references.as_deref(),
            workspaces: &migration.stores.workspaces,
            deletes: matches!(command, "retire" | "rollback"),
            source_kind: source.store,
            tracker: migration.tracker(command, run),
            tried: tokio::sync::Mutex::new(false),
            watched: Mutex::default(),
            left: LeftNames::default(),
            orphans: Mutex::default(),
            mentions: Mutex::default(),
            alone: Mutex::default(),
        })
    }

    /// Finishes the report.
    pub(super) async fn end(&self) -> MigrateResult<Report> {
        Ok(self.tracker.close(self.journal.counts().await?))
    }

    /// Whether the journal has any such entry. If there is nothing to do, nothing is written, not
    /// even a probe.
    pub(super) async fn has_any(&self, select: &Select) -> MigrateResult<bool> {
        Ok(!self.journal.page(select, None, 1).await?.is_empty())
    }

    /// Runs `work` over the journal's entries, several units concurrently, until there are no more
    /// or the tracker stops. Running units are always finished, even if one fails.
    pub(super) async fn each_unit<'s>(
        &'s self,
        phase: Phase,
        total: Option<u64>,
        select: &Select,
        work: &(dyn Fn(Unit<'s>) -> Work<'s> + Sync),
    ) -> MigrateResult<()> {
        self.tracker.began(phase, total);
        let mut running = Running::new(phase);
        let read = self.start_units(select, work, &mut running).await;
        while running.one_ends().await {}
        self.tracker.ended(phase);
        running.result.and(read)
    }

    async fn start_units<'s>(
        &'s self,
        select: &Select,
        work: &(dyn Fn(Unit<'s>) -> Work<'s> + Sync),
        running: &mut Running<'s>,
    ) -> MigrateResult<()> {
        let unit = self.unit();
        let most = self.units_under_way(unit);
        let limit = self.options.page.get().max(unit);
        let mut after = None;
        loop {
            let page = self.journal.page(select, after.as_ref(), limit);
            let page = running.meanwhile(page).await?;
            let is_last = page.len() < limit;
            after = page.last().map(|entry| entry.coordinate.clone());
            for entries in units(page, unit) {
                while running.units.len() >= most {
                    running.one_ends().await;
                }
                if running.result.is_err() || self.tracker.is_stopped() {
                    return Ok(());
                }
                let meter = Meter::new(&self.tracker, running.phase, entries.len());
                let work = work(Unit {
                    entries,
                    meter: Arc::clone(&meter),
                    held: None,
                });
                running.units.push(Box::pin(async move {
                    work.await?;
                    meter.end();
                    Ok(())
                }));
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Runs `work` over the rows of every source of configurations, page by page.
    pub(super) async fn each_page<'s>(
        &'s self,
        phase: Phase,
        work: &(dyn Fn(Rows<'s>) -> Work<'s> + Sync),
    ) -> MigrateResult<()> {
        each_page(&self.tracker, self.configs, self.options, phase, work).await
    }

    pub(super) fn units_under_way(&self, unit: usize) -> usize {
        let (source, target) = (self.source.capabilities(), self.target.capabilities());
        let batch = source.read_batch.min(target.write_batch).max(1);
        let requests = self.options.concurrency.map_or_else(
            || source.concurrency.max(target.concurrency),
            NonZeroUsize::get,
        );
        (2 * requests)
            .div_ceil(unit.div_ceil(batch))
            .clamp(UNITS.0, UNITS.1)
            .min(UNDER_WAY / unit)
    }

    pub(super) fn unit(&self) -> usize {
        let (source, target) = (self.source.capabilities(), self.target.capabilities());
        source
            .read_batch
            .max(target.read_batch)
            .max(target.write_batch)
            .clamp(UNIT.0, UNIT.1)
    }
}

/// Secrets that a command processes together, and their progress.
pub(super) struct Unit<'w> {
    pub(super) entries: Vec<JournalEntry>,
    pub(super) meter: Arc<Meter<'w>>,
    /// The page of a shared journal, which is this unit.
    pub(super) held: Option<Arc<Held<'w>>>,
}

/// Configurations that a command processes together, and their progress.
pub(super) struct Rows<'w> {
    pub(super) source: &'w dyn ConfigSource,
    pub(super) rows: Vec<ConfigRow>,
    pub(super) meter: Arc<Meter<'w>>,
}

/// Reports each secret of a unit, or each configuration of a page, once: when it is processed, or
/// else at the end.
pub(super) struct Meter<'w> {
    tracker: &'w Tracker,
    phase: Phase,
    left: AtomicUsize,
}

impl<'w> Meter<'w> {
    pub(super) fn new(tracker: &'w Tracker, phase: Phase, count: usize) -> Arc<Self> {
        Arc::new(Self {
            tracker,
            phase,
            left: AtomicUsize::new(count),
        })
    }

    /// Reports how many more are processed.
    pub(super) fn passed(&self, count: usize) {
        let take = |left: usize| Some(left.saturating_sub(count));
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .unwrap_or_default();
        self.tell(before.min(count));
    }

    pub(super) fn end(&self) {
        self.tell(self.left.swap(0, Ordering::Relaxed));
    }

    fn tell(&self, count: usize) {
        if count > 0 {
            self.tracker.advanced(self.phase, count);
        }
    }
}

/// The running units, and the first failure.
pub(super) struct Running<'w> {
    phase: Phase,
    pub(super) units: FuturesUnordered<Work<'w>>,
    pub(super) result: MigrateResult<()>,
}

impl Running<'_> {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            phase,
            units: FuturesUnordered::new(),
            result: Ok(()),
        }
    }

    /// Waits for one unit. Returns whether there was any.
    pub(super) async fn one_ends(&mut self) -> bool {
        match self.units.next().await {
            None => false,
            Some(ended) => {
                self.note(ended);
                true
            }
        }
    }

    /// Waits for another future while the units continue: one of them may have the connection that
    /// it needs.
    pub(super) async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        while !self.units.is_empty() {
            match select(other.as_mut(), self.units.next()).await {
                Either::Left((output, _)) => return output,
                Either::Right((Some(ended), _)) => self.note(ended),
                Either::Right((None, _)) => {}
            }
        }
        other.await
    }

    fn note(&mut self, ended: MigrateResult<()>) {
        if self.result.is_ok() {
            self.result = ended;
        }
    }
}

/// Runs `work` over the rows of every source, page by page, until the tracker stops.
pub(super) async fn each_page<'c>(
    tracker: &'c Tracker,
    configs: &'c [Arc<dyn ConfigSource>],
    options: &MigrateOptions,
    phase: Phase,
    work: &(dyn Fn(Rows<'c>) -> Work<'c> + Sync),
) -> MigrateResult<()> {
    // A scan only notes what it reads, so the next page is read meanwhile. Elsewhere its rows would
    // grow old while stores are asked about those before.
    let reads_ahead = phase == Phase::Scan;
    tracker.began(phase, None);
    for source in configs {
        let mut after = None;
        let mut ahead = None;
        while !tracker.is_stopped() {
            let page = match ahead.take() {
                Some(page) => page?,
                None => page_after(&**source, after.as_ref(), options).await?,
            };
            after = page.next;
            let meter = Meter::new(tracker, phase, page.rows.len());
            let work = work(Rows {
                source: &**source,
                rows: page.rows,
                meter: Arc::clone(&meter),
            });
            let read_ahead = async {
                let after = after.as_ref().filter(|_| reads_ahead)?;
                Some(page_after(&**source, Some(after), options).await)
            };
            let (done, read) = futures::join!(work, read_ahead);
            done?;
            ahead = read;
            meter.end();
            if after.is_none() {
                break;
            }
        }
    }
    tracker.ended(phase);
    Ok(())
}

/// Reads the next page, and refuses a source that goes round in a circle.
pub(super) async fn page_after(
    source: &dyn ConfigSource,
    after: Option<&ConfigCursor>,
    options: &MigrateOptions,
) -> MigrateResult<ConfigPage> {
    let page = source.page(after, options.page.get()).await?;
    if page.next.is_some() && page.next.as_ref() == after {
        return Err(in_a_circle(source));
    }
    Ok(page)
}

pub(super) fn in_a_circle(source: &dyn ConfigSource) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Configurations,
        "reading makes no progress: the source returned the same cursor again",
    )
    .with_place(source.to_string())
}

/// The key of a configuration in journal and report.
pub(super) fn key(source: &dyn ConfigSource, id: &str) -> String {
    format!("{source}#{id}")
}

/// The source of a key, and the row's id.
pub(super) fn by_key<'k, 'c>(
    configs: &'c [Arc<dyn ConfigSource>],
    key: &'k str,
) -> Option<(&'c dyn ConfigSource, &'k str)> {
    configs.iter().find_map(|source| {
        let id = key.strip_prefix(&source.to_string())?.strip_prefix('#')?;
        Some((&**source, id))
    })
}

/// Refuses sources whose rows cannot be updated, before anything else.
pub(super) fn updatable(configs: &[Arc<dyn ConfigSource>]) -> MigrateResult<()> {
    match configs
        .iter()
        .find(|source| source.access() == Access::ReadOnly)
    {
        None => Ok(()),
        Some(source) => Err(MigrateError::new(
            MigrateErrorKind::Configurations,
            "this source of configurations is read-only, but its rows must be updated",
        )
        .with_place(source.to_string())
        .with_hint("use the table itself, not a query")),
    }
}

/// A command that one process does alone was given a journal that others may use.
pub(super) fn not_shared(command: &str) -> MigrateError {
    MigrateError::settings(format!("{command} needs a journal that is not shared"))
}

pub(super) fn same_store(run: &Run) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::SameStore,
        "source and target are the same store",
    )
    .with_place(run.source.clone())
}

fn units(page: Vec<JournalEntry>, unit: usize) -> Vec<Vec<JournalEntry>> {
    let mut units = Vec::with_capacity(page.len().div_ceil(unit));
    let mut rest = page.into_iter();
    loop {
        let next: Vec<JournalEntry> = rest.by_ref().take(unit).collect();
        if next.is_empty() {
            return units;
        }
        units.push(next);
    }
}
