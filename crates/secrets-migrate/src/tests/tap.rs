//! Wrappers that watch, interrupt and spoil what a run does.
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use futures::future::pending;
use secret_persistence_core::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Page, Read, Result, SecretPersistence, SecretPersistenceExt, Write, Written,
};
use tokio::sync::Notify;

use crate::{
    Counts, Journal, JournalEntry, Mention, MigrateResult, Note, Run, Select, Sharing, Transition,
};

/// Counts the operations on stores and journal of one process, and ends it at one of them: from that
/// one on nothing is answered, and nothing is done but perhaps that very one.
#[derive(Debug)]
pub(super) struct Process {
    count: AtomicU64,
    ends_at: u64,
    /// Whether the last operation is done before the process ends.
    does_last: bool,
    ended: Notify,
    has_ended: AtomicBool,
}

impl Process {
    pub(super) fn ending_at(operation: u64, does_last: bool) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU64::new(0),
            ends_at: operation,
            does_last,
            ended: Notify::new(),
            has_ended: AtomicBool::new(false),
        })
    }

    pub(super) fn endless() -> Arc<Self> {
        Self::ending_at(u64::MAX, false)
    }

    async fn operation<T>(&self, work: impl Future<Output = T>) -> T {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if number < self.ends_at {
            // Others get their turn, as they would while a request travels.
            tokio::task::yield_now().await;
            let answer = work.await;
            tokio::task::yield_now().await;
            return if self.has_ended.load(Ordering::SeqCst) {
                pending().await
            } else {
                answer
            };
        }
        if number == self.ends_at && self.does_last {
            work.await;
        }
        self.has_ended.store(true, Ordering::SeqCst);
        self.ended.notify_one();
        pending().await
    }

    /// Runs until it ends by itself or is ended: `None`.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            answer = work => Some(answer),
            () = self.ended.notified() => None,
        }
    }
}

/// What was just done to a store.
#[derive(Debug)]
pub(super) enum Done<'a> {
    Delete,
    Read(&'a [Coordinate]),
    Write(&'a [Write]),
}

type Hook = Box<dyn Fn(&Done<'_>) + Send + Sync>;

/// A store as one process sees it.
pub(super) struct Tap {
    store: Arc<dyn SecretPersistence>,
    process: Arc<Process>,
    hook: Option<Hook>,
    location: Option<String>,
    reads_expiry: bool,
    ghosts: Vec<ManagedCoordinate>,
    fails: Option<fn(&Done<'_>) -> Option<secret_persistence_core::Error>>,
}

impl Tap {
    pub(super) fn new(store: Arc<dyn SecretPersistence>, process: &Arc<Process>) -> Self {
        Self {
            store,
            process: Arc::clone(process),
            hook: None,
            location: None,
            reads_expiry: true,
            ghosts: Vec::new(),
            fails: None,
        }
    }

    /// Calls this after each operation, before it is answered.
    pub(super) fn after(mut self, hook: impl Fn(&Done<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Fails operations that this has an error for, entry by entry of a batch.
    pub(super) fn failing(
        mut self,
        fails: fn(&Done<'_>) -> Option<secret_persistence_core::Error>,
    ) -> Self {
        self.fails = Some(fails);
        self
    }

    /// Says that it is somewhere else.
    pub(super) fn at(mut self, location: &str) -> Self {
        self.location = Some(location.to_owned());
        self
    }

    /// Reads do not tell when a secret expires.
    pub(super) fn without_expiry_in_reads(mut self) -> Self {
        self.reads_expiry = false;
        self
    }

    /// Lists these, though they are gone, and nothing else.
    pub(super) fn listing_only(mut self, names: Vec<ManagedCoordinate>) -> Self {
        self.ghosts = names;
        self
    }

    fn failure(&self, done: &Done<'_>) -> Option<secret_persistence_core::Error> {
        self.fails.and_then(|fails| fails(done))
    }

    fn done(&self, done: &Done<'_>) {
        if let Some(hook) = &self.hook {
            hook(done);
        }
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tap({})", self.store)
    }
}

#[async_trait]
impl SecretPersistence for Tap {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reads_expiry: self.reads_expiry,
            ..self.store.capabilities()
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.process
            .operation(async {
                let mut reads = self.store.read_batch(coordinates).await;
                for (read, name) in reads.iter_mut().zip(coordinates) {
                    if let Some(error) = self.failure(&Done::Read(std::slice::from_ref(name))) {
                        *read = Err(error);
                    }
                }
                self.done(&Done::Read(coordinates));
                if self.reads_expiry {
                    return reads;
                }
                reads
                    .into_iter()
                    .map(|read| read.map(|read| read.with_expires(None)))
                    .collect()
            })
            .await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.process
            .operation(async {
                let mut written = Vec::new();
                for write in writes {
                    let one = std::slice::from_ref(write);
                    written.push(match self.failure(&Done::Write(one)) {
                        Some(error) => Err(error),
                        None => self.store.write_batch(one).await.remove(0),
                    });
                }
                self.done(&Done::Write(writes));
                written
            })
            .await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for coordinate in coordinates {
            let delete = self.process.operation(async {
                let deleted = match self.failure(&Done::Delete) {
                    Some(error) => Err(error),
                    None => self.store.delete(coordinate, options).await,
                };
                self.done(&Done::Delete);
                deleted
            });
            results.push(delete.await);
        }
        results
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.process.operation(self.store.restore(coordinate)).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        if !self.ghosts.is_empty() {
            let ghosts = self.ghosts.iter().cloned().map(Entry::new).collect();
            return Ok(Page::new(ghosts, None));
        }
        self.process
            .operation(self.store.list_page(options, after))
            .await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.process
            .operation(self.store.describe(coordinate))
            .await
    }

    async fn identity(&self) -> Result<Identity> {
        let identity = self.store.identity().await?;
        Ok(match &self.location {
            Some(location) => Identity::new(identity.store, identity.principal, location),
            None => identity,
        })
    }
}

/// A journal as one process sees it, over one connection: a call that waits while another one holds it
/// must not keep that one from going on.
#[derive(Debug)]
pub(super) struct TapJournal {
    journal: Arc<dyn Journal>,
    process: Arc<Process>,
    connection: tokio::sync::Mutex<()>,
    largest_page: AtomicU64,
    sharing: Option<Arc<dyn Sharing>>,
}

impl TapJournal {
    pub(super) fn new(journal: Arc<dyn Journal>, process: &Arc<Process>) -> Self {
        Self {
            journal,
            process: Arc::clone(process),
            connection: tokio::sync::Mutex::default(),
            largest_page: AtomicU64::new(0),
            sharing: None,
        }
    }

    pub(super) fn with_sharing(mut self, sharing: Arc<dyn Sharing>) -> Self {
        self.sharing = Some(sharing);
        self
    }

    /// The most entries that were ever asked for, given or noted at once.
    pub(super) fn largest(&self) -> u64 {
        self.largest_page.load(Ordering::SeqCst)
    }

    async fn alone<T>(&self, work: impl Future<Output = T>) -> T {
        let _connection = self.connection.lock().await;
        self.process.operation(work).await
    }

    fn saw(&self, entries: usize) {
        self.largest_page
            .fetch_max(entries as u64, Ordering::SeqCst);
    }
}

impl fmt::Display for TapJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.journal.fmt(f)
    }
}

#[async_trait]
impl Journal for TapJournal {
    async fn open(&self, run: &Run) -> MigrateResult<()> {
        self.alone(self.journal.open(run)).await
    }

    async fn begin_scan(&self) -> MigrateResult<u64> {
        self.alone(self.journal.begin_scan()).await
    }

    async fn see(&self, scan: u64, configurations: &[String]) -> MigrateResult<Vec<String>> {
        self.saw(configurations.len());
        self.alone(self.journal.see(scan, configurations)).await
    }

    async fn mention(&self, scan: u64, mentions: &[Mention]) -> MigrateResult<()> {
        self.saw(mentions.len());
        self.alone(self.journal.mention(scan, mentions)).await
    }

    async fn page(
        &self,
        select: &Select,
        after: Option<&ManagedCoordinate>,
        limit: usize,
    ) -> MigrateResult<Vec<JournalEntry>> {
        self.saw(limit);
        self.alone(self.journal.page(select, after, limit)).await
    }

    async fn find(
        &self,
        coordinates: &[ManagedCoordinate],
    ) -> MigrateResult<Vec<Option<JournalEntry>>> {
        self.saw(coordinates.len());
        self.alone(self.journal.find(coordinates)).await
    }

    async fn advance(&self, transitions: &[Transition]) -> MigrateResult<()> {
        self.saw(transitions.len());
        self.alone(self.journal.advance(transitions)).await
    }

    async fn counts(&self) -> MigrateResult<Counts> {
        self.alone(self.journal.counts()).await
    }

    async fn put_note(&self, key: &str, text: Option<&str>) -> MigrateResult<()> {
        self.alone(self.journal.put_note(key, text)).await
    }

    async fn notes(&self, after: Option<&str>, limit: usize) -> MigrateResult<Vec<Note>> {
        self.alone(self.journal.notes(after, limit)).await
    }

    fn sharing(&self) -> Option<&dyn Sharing> {
        self.sharing.as_deref()
    }
}
