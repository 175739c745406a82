//! One command under way: two stores, a journal and a ledger.
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use secret_persistence_core::connector::{
    ActingSecrets, ConnectorOptions, ConnectorSecrets, ResolveReferences,
};
use secret_persistence_core::{Actor, Operation, Owner, SecretPersistence, Stores};

use crate::ledger::Ledger;
use crate::{
    Access, ConfigRow, ConfigSource, Journal, JournalEntry, MigrateError, MigrateErrorKind,
    MigrateOptions, MigrateResult, Migration, Phase, Report, Run, Select,
};

/// The smallest and the largest number of secrets that go through a command together. The lower
/// bound saves journal transactions where a store takes one secret per request, the upper one
/// memory: at most [`UNITS`] times this many values are held.
const UNIT: (usize, usize) = (16, 256);

/// How many units are under way, at least and at most. What is under way is finished when a run is
/// stopped, so there are no more than the requests in flight need.
const UNITS: (usize, usize) = (3, 8);

/// Who changes configurations, for audit events.
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
    /// The kind of store that the source is.
    pub(super) source_kind: &'static str,
    pub(super) ledger: Ledger,
    /// Whether the first secret was deleted, and the other store looked at.
    pub(super) tried: tokio::sync::Mutex<bool>,
}

impl<'m> Session<'m> {
    /// Asks both stores who they are, and opens the journal for them.
    pub(super) async fn begin(
        migration: &'m Migration,
        command: &'static str,
    ) -> MigrateResult<Self> {
        let (source, target) = futures::try_join!(
            migration.stores.source.identity(),
            migration.stores.target.identity()
        )
        .map_err(|error| error.with_operation(Operation::Identity))?;
        let run = Run::new(&source, Some(&target), migration.owner.as_ref());
        if run.target.as_ref() == Some(&run.source) {
            return Err(same_store(&run));
        }
        migration.journal.open(&run).await?;
        let [from, to] = [&migration.stores.source, &migration.stores.target];
        let (source_store, target_store) = (migration.limited(from), migration.limited(to));
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
            source_kind: source.store,
            ledger: migration.ledger(command, run),
            tried: tokio::sync::Mutex::new(false),
        })
    }

    /// Closes the books.
    pub(super) async fn end(&self) -> MigrateResult<Report> {
        Ok(self.ledger.close(self.journal.counts().await?))
    }

    /// Whether the journal has any such entry: where nothing is to be done, nothing is written, not even
    /// a probe.
    pub(super) async fn has_any(&self, select: &Select) -> MigrateResult<bool> {
        Ok(!self.journal.page(select, None, 1).await?.is_empty())
    }

    /// Runs `work` over the journal's entries, some units at a time, until it ends or the ledger says
    /// stop; what is under way then is finished, and also where one unit fails.
    pub(super) async fn each_unit<'s>(
        &'s self,
        phase: Phase,
        total: Option<u64>,
        select: &Select,
        work: &(dyn Fn(Vec<JournalEntry>) -> Work<'s> + Sync),
    ) -> MigrateResult<()> {
        self.ledger.began(phase, total);
        let mut running = Running {
            ledger: &self.ledger,
            phase,
            units: FuturesUnordered::new(),
            result: Ok(()),
        };
        let read = self.start_units(select, work, &mut running).await;
        while running.one_ends().await {}
        self.ledger.ended(phase);
        running.result.and(read)
    }

    async fn start_units<'s>(
        &'s self,
        select: &Select,
        work: &(dyn Fn(Vec<JournalEntry>) -> Work<'s> + Sync),
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
                if running.result.is_err() || self.ledger.is_stopped() {
                    return Ok(());
                }
                let count = entries.len();
                let work = work(entries);
                running
                    .units
                    .push(Box::pin(async move { work.await.map(|()| count) }));
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Runs `work` over the rows of every source of configurations, one page after the other.
    pub(super) async fn each_page<'s>(
        &'s self,
        phase: Phase,
        work: &(dyn Fn(&'s dyn ConfigSource, Vec<ConfigRow>) -> Work<'s> + Sync),
    ) -> MigrateResult<()> {
        each_page(&self.ledger, self.configs, self.options, phase, work).await
    }

    fn units_under_way(&self, unit: usize) -> usize {
        let (source, target) = (self.source.capabilities(), self.target.capabilities());
        let batch = source.read_batch.min(target.write_batch).max(1);
        let requests = self.options.concurrency.map_or_else(
            || source.concurrency.max(target.concurrency),
            NonZeroUsize::get,
        );
        (2 * requests)
            .div_ceil(unit.div_ceil(batch))
            .clamp(UNITS.0, UNITS.1)
    }

    fn unit(&self) -> usize {
        let (source, target) = (self.source.capabilities(), self.target.capabilities());
        source
            .read_batch
            .max(target.read_batch)
            .max(target.write_batch)
            .clamp(UNIT.0, UNIT.1)
    }
}

/// The units under way, and the first failure of one that has ended.
struct Running<'w> {
    ledger: &'w Ledger,
    phase: Phase,
    units: FuturesUnordered<BoxFuture<'w, MigrateResult<usize>>>,
    result: MigrateResult<()>,
}

impl Running<'_> {
    /// Waits for one of them. Whether there was any.
    async fn one_ends(&mut self) -> bool {
        match self.units.next().await {
            None => false,
            Some(ended) => {
                self.note(ended);
                true
            }
        }
    }

    /// Waits for something else while they go on: one of them may hold the connection that it needs.
    async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
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

    fn note(&mut self, ended: MigrateResult<usize>) {
        match ended {
            Ok(count) => self.ledger.advanced(self.phase, count),
            Err(error) if self.result.is_ok() => self.result = Err(error),
            Err(_) => {}
        }
    }
}

/// Runs `work` over the rows of every source, one page after the other, until the ledger says stop.
pub(super) async fn each_page<'c>(
    ledger: &Ledger,
    configs: &'c [Arc<dyn ConfigSource>],
    options: &MigrateOptions,
    phase: Phase,
    work: &(dyn Fn(&'c dyn ConfigSource, Vec<ConfigRow>) -> Work<'c> + Sync),
) -> MigrateResult<()> {
    ledger.began(phase, None);
    for source in configs {
        let mut after = None;
        while !ledger.is_stopped() {
            let page = source.page(after.as_ref(), options.page.get()).await?;
            if page.next.is_some() && page.next == after {
                return Err(MigrateError::new(
                    MigrateErrorKind::Configurations,
                    "reading does not move on: the same cursor was answered again",
                )
                .with_place(source.to_string()));
            }
            let count = page.rows.len();
            work(&**source, page.rows).await?;
            ledger.advanced(phase, count);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    ledger.ended(phase);
    Ok(())
}

/// How a configuration is called in journal and report.
pub(super) fn key(source: &dyn ConfigSource, id: &str) -> String {
    format!("{source}#{id}")
}

/// The source that a key belongs to, and the row's id.
pub(super) fn by_key<'k, 'c>(
    configs: &'c [Arc<dyn ConfigSource>],
    key: &'k str,
) -> Option<(&'c dyn ConfigSource, &'k str)> {
    configs.iter().find_map(|source| {
        let id = key.strip_prefix(&source.to_string())?.strip_prefix('#')?;
        Some((&**source, id))
    })
}

/// Refuses sources whose rows cannot be updated, before anything is done.
pub(super) fn updatable(configs: &[Arc<dyn ConfigSource>]) -> MigrateResult<()> {
    match configs
        .iter()
        .find(|source| source.access() == Access::ReadOnly)
    {
        None => Ok(()),
        Some(source) => Err(MigrateError::new(
            MigrateErrorKind::Configurations,
            "this source of configurations is read-only, and rows of it have to be updated",
        )
        .with_place(source.to_string())
        .with_hint("give the table itself, not a query")),
    }
}

pub(super) fn same_store(run: &Run) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::SameStore,
        "source and target are one and the same store",
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
