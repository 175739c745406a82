//! Caches values that were read: bounded, loaded once for concurrent callers, and wiped on removal.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared, join_all};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::meter::Counter;
use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Operation, Page, Read, Result, SecretPersistence, SecretValue,
    Timestamp, Write, Written,
};

/// The interval at which expired entries are wiped, even without calls.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// What an entry takes besides its name and value, counted by an allocator in `tests/cache_memory.rs`:
/// both handles, moka's entry and its places in three queues and in a hash table that may be half empty.
const OVERHEAD_BYTES: usize = 448;
/// What is left free for the part of entries that moka has evicted and not yet freed, and for its
/// tables: this, or a sixteenth of a small cache.
const RESERVE_BYTES: u64 = 256 << 10;
/// The name of every ephemeral secret contains this: the all-zero base id.
const EPHEMERAL: &str = "00000000-0000-0000-0000-000000000000_secret_";

/// Options of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheOptions {
    /// Maximum memory of all entries in bytes; 64 MiB by default.
    pub max_bytes: u64,
    /// How long to wait for a reload if there is a stale value to serve. During an outage, every
    /// caller waits this long. 3 seconds by default.
    pub reload_timeout: Duration,
    /// How long beyond the TTL a managed value is served while the store is unavailable or
    /// throttles; 1 hour by default. Zero disables this.
    pub stale: Duration,
    /// How long a value is served without asking the store; 5 minutes by default. A value that
    /// another process deleted is served for at most this long.
    pub ttl: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            reload_timeout: Duration::from_secs(3),
            stale: Duration::from_secs(3600),
            ttl: Duration::from_secs(300),
        }
    }
}

impl CacheOptions {
    /// Sets the maximum memory of all entries in bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how long to wait for a reload if there is a stale value to serve.
    #[must_use]
    pub fn with_reload_timeout(mut self, timeout: Duration) -> Self {
        self.reload_timeout = timeout;
        self
    }

    /// Sets how long beyond the TTL a managed value is served during an outage.
    #[must_use]
    pub fn with_stale(mut self, stale: Duration) -> Self {
        self.stale = stale;
        self
    }

    /// Sets how long a value is served without asking the store.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// A store whose values are cached.
///
/// - Concurrent callers for one name share one request; a batch requests only what is missing.
/// - There are no negative entries: a missing name is requested every time.
/// - A delete wins over a load in flight: the loaded value is not cached.
/// - An entry never outlives an expiry from the store; ephemeral secrets are not cached.
/// - After the TTL, a managed value, which cannot change, is served only if the reload fails with
///   `Unavailable` or `Throttled`; any other error drops it.
/// - A removed entry (deleted, evicted, expired, or with the cache itself) drops its handle
///   immediately, so that the value is wiped with the last handle.
///
/// `secrets_cache_total` counts entries by `result`: `hit`, `joined` (another caller's load),
/// `loaded`, `stale`.
#[derive(Debug)]
pub(super) struct Cache {
    state: Arc<State>,
    eviction: Mutex<Option<JoinHandle<()>>>,
    /// Whether the eviction's task runs, so that a read takes no lock to find out.
    is_evicting: Arc<AtomicBool>,
}

#[derive(Debug)]
struct State {
    inner: Arc<dyn SecretPersistence>,
    store: Arc<str>,
    options: CacheOptions,
    entries: moka::sync::Cache<Coordinate, Arc<Kept>>,
    loads: Mutex<Loads>,
    counters: Counters,
}

/// Entries, by where they came from.
#[derive(Debug)]
struct Counters {
    hit: Counter,
    joined: Counter,
    loaded: Counter,
    stale: Counter,
}

impl Counters {
    fn new() -> Self {
        let counter =
            |result: &'static str| Counter::new("secrets_cache_total", [("result", result.into())]);
        Self {
            hit: counter("hit"),
            joined: counter("joined"),
            loaded: counter("loaded"),
            stale: counter("stale"),
        }
    }
}

/// One cached value. The value can be taken out: moka frees removed entries later, and a secret
/// must not wait for that.
#[derive(Debug)]
struct Kept {
    value: Mutex<Option<SecretValue>>,
    expires: Option<Timestamp>,
    fresh_until: Instant,
    kept_until: Instant,
}

/// The loads in flight, by name. Weak, so that a load without waiting callers is dropped.
#[derive(Debug, Default)]
struct Loads {
    next: u64,
    under_way: HashMap<Coordinate, (u64, WeakShared<Loading>)>,
}

type Loading = BoxFuture<'static, Arc<Loaded>>;
type Load = Shared<Loading>;
type Loaded = HashMap<Coordinate, Result<Read>>;

impl Cache {
    pub(super) fn new(
        inner: Arc<dyn SecretPersistence>,
        store: Arc<str>,
        options: CacheOptions,
    ) -> Self {
        let entries = moka::sync::Cache::builder()
            .max_capacity(options.max_bytes - RESERVE_BYTES.min(options.max_bytes / 16))
            .weigher(|name: &Coordinate, kept: &Arc<Kept>| {
                let bytes = name.as_str().len() + kept.len() + OVERHEAD_BYTES;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .eviction_listener(|_, kept, _| kept.wipe())
            .build();
        Self {
            state: Arc::new(State {
                inner,
                store,
                options,
                entries,
                loads: Mutex::default(),
                counters: Counters::new(),
            }),
            eviction: Mutex::default(),
            is_evicting: Arc::default(),
        }
    }

    /// Starts the task that wipes what has outlived its time, if it is not running.
    fn start_eviction(&self) {
        if self.is_evicting.load(Ordering::Acquire) {
            return;
        }
        let mut eviction = self.eviction.lock();
        if eviction.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let state = Arc::downgrade(&self.state);
        let running = Running::noted(Arc::clone(&self.is_evicting));
        *eviction = tokio::runtime::Handle::try_current()
            .ok()
            .map(|runtime| runtime.spawn(evict_expired(state, running)));
    }

    /// Detaches names from loads in flight, now and when the change ends or is cancelled.
    fn changing<'a>(&'a self, names: Vec<&'a ManagedCoordinate>, forget: bool) -> Changing<'a> {
        let changing = Changing {
            state: &self.state,
            names: names.into_iter().cloned().map(Coordinate::from).collect(),
            forget,
        };
        changing.apply();
        changing
    }
}

/// Notes that the eviction runs until its task ends, with its runtime if need be.
struct Running(Arc<AtomicBool>);

impl Running {
    fn noted(is_running: Arc<AtomicBool>) -> Self {
        is_running.store(true, Ordering::Release);
        Self(is_running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

async fn evict_expired(state: Weak<State>, _running: Running) {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        match state.upgrade() {
            Some(state) => state.wipe_outlived(),
            None => return,
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(task) = self.eviction.lock().take() {
            task.abort();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for (_, kept) in &self.entries {
            kept.wipe();
        }
    }
}

impl State {
    /// A value that may be served without asking the store.
    fn fresh(&self, name: &Coordinate, now: Instant) -> Option<Read> {
        let kept = self.entries.get(name)?;
        (now < kept.fresh_until).then(|| kept.read())?
    }

    /// A value that may be served if the store cannot answer.
    fn stale(&self, name: &Coordinate) -> Option<Read> {
        let kept = self.entries.get(name)?;
        (Instant::now() < kept.kept_until).then(|| kept.read())?
    }

    /// Joins loads in flight, and starts a load for the other names.
    fn plan(self: &Arc<Self>, names: &[Coordinate], hits: &mut Loaded) -> Vec<Load> {
        let now = Instant::now();
        let mut joined: Vec<(u64, Load)> = Vec::new();
        let mut missing = Vec::new();
        let mut loads = self.loads.lock();
        let (mut hit, mut joining) = (0, 0);
        for name in names {
            // Check again under the lock: a load that completed in between has cached its value.
            if let Some(read) = self.fresh(name, now) {
                hits.insert(name.clone(), Ok(read));
                hit += 1;
                continue;
            }
            let under_way = loads
                .under_way
                .get(name)
                .and_then(|(id, load)| load.upgrade().map(|load| (*id, load)));
            match under_way {
                Some((id, load)) => {
                    joining += 1;
                    if joined.iter().all(|(other, _)| *other != id) {
                        joined.push((id, load));
                    }
                }
                None => missing.push(name.clone()),
            }
        }
        count(&self.counters.hit, hit);
        count(&self.counters.joined, joining);
        let mut all: Vec<Load> = joined.into_iter().map(|(_, load)| load).collect();
        if !missing.is_empty() {
            count(&self.counters.loaded, missing.len());
            let id = loads.next;
            loads.next += 1;
            let load = load(Arc::clone(self), id, missing.clone()).boxed().shared();
            if let Some(weak) = load.downgrade() {
                for name in missing {
                    loads.under_way.insert(name, (id, weak.clone()));
                }
            }
            all.push(load);
        }
        all
    }

    /// The result of a load: cached if allowed, replaced by the stale value if the store could not
    /// answer. Neither for names that were detached since.
    fn land(&self, id: u64, names: &[Coordinate], results: Vec<Result<Read>>) -> Loaded {
        let loads = self.loads.lock();
        let mine = |name: &Coordinate| {
            loads
                .under_way
                .get(name)
                .is_some_and(|(owner, _)| *owner == id)
        };
        names
            .iter()
            .cloned()
            .zip(results)
            .map(|(name, result)| {
                let result = match result {
                    _ if !mine(&name) => result,
                    Ok(read) => {
                        self.keep(&name, &read);
                        Ok(read)
                    }
                    Err(error) => self.without_answer(&name, error),
                };
                (name, result)
            })
            .collect()
    }

    fn keep(&self, name: &Coordinate, read: &Read) {
        if name.as_str().contains(EPHEMERAL) {
            return;
        }
        let left = read.expires.map_or(Duration::MAX, until);
        let stale = match name {
            // Another process may have changed it since.
            Coordinate::External(_) => Duration::ZERO,
            Coordinate::Managed(_) => self.options.stale,
        };
        let fresh = self.options.ttl.min(left);
        let kept = self.options.ttl.saturating_add(stale).min(left);
        if kept.is_zero() {
            self.forget(name);
            return;
        }
        let now = Instant::now();
        let after = |duration| now.checked_add(duration).unwrap_or(now + self.options.ttl);
        let entry = Kept {
            value: Mutex::new(Some(read.value.clone())),
            expires: read.expires,
            fresh_until: after(fresh),
            kept_until: after(kept),
        };
        self.entries.insert(name.clone(), Arc::new(entry));
    }

    fn without_answer(&self, name: &Coordinate, error: Error) -> Result<Read> {
        if !matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Unavailable) {
            // The store did answer, so the cached value must not be served.
            self.forget(name);
            return Err(error);
        }
        let read = self.stale(name).ok_or(error)?;
        count(&self.counters.stale, 1);
        Ok(read)
    }

    /// The same failure for every name.
    fn failures<T>(
        &self,
        names: &[Coordinate],
        kind: ErrorKind,
        message: &'static str,
    ) -> Vec<Result<T>> {
        let failure = |name: &Coordinate| {
            Err(Error::new(kind, message)
                .with_operation(Operation::Read)
                .with_store(Arc::clone(&self.store))
                .with_coordinate(name.shared()))
        };
        names.iter().map(failure).collect()
    }

    fn forget(&self, name: &Coordinate) {
        if let Some(kept) = self.entries.remove(name) {
            kept.wipe();
        }
    }

    fn wipe_outlived(&self) {
        let now = Instant::now();
        for (name, kept) in &self.entries {
            if kept.kept_until <= now {
                // The entry may have been replaced in the meantime; then the new one has not
                // expired.
                kept.wipe();
                let still = self.entries.get(&*name);
                if still.is_some_and(|other| Arc::ptr_eq(&other, &kept)) {
                    self.entries.invalidate(&*name);
                }
            }
        }
        self.entries.run_pending_tasks();
    }
}

/// Loads names for all waiting callers.
async fn load(state: Arc<State>, id: u64, names: Vec<Coordinate>) -> Arc<Loaded> {
    let under_way = UnderWay { state, id, names };
    let (state, names) = (&under_way.state, &under_way.names);
    let read = state.inner.read_batch(names);
    // With a stale value to serve, do not wait for all retries during an outage.
    let results = if names.iter().all(|name| state.stale(name).is_some()) {
        tokio::time::timeout(state.options.reload_timeout, read)
            .await
            .unwrap_or_else(|_elapsed| {
                state.failures(names, ErrorKind::Unavailable, "no answer while reloading")
            })
    } else {
        read.await
    };
    let results = if results.len() == names.len() {
        results
    } else {
        let message = "the store answered another number of reads";
        state.failures(names, ErrorKind::Unexpected, message)
    };
    Arc::new(state.land(id, names, results))
}

/// The names of a load, unregistered when it ends or nobody waits for it.
struct UnderWay {
    state: Arc<State>,
    id: u64,
    names: Vec<Coordinate>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut loads = self.state.loads.lock();
        for name in &self.names {
            if loads
                .under_way
                .get(name)
                .is_some_and(|(owner, _)| *owner == self.id)
            {
                loads.under_way.remove(name);
            }
        }
    }
}

/// A change in progress. A value that is loaded in the meantime may be older than the change: it is
/// not cached, and later callers do not join its load.
struct Changing<'a> {
    state: &'a State,
    names: Vec<Coordinate>,
    forget: bool,
}

impl Changing<'_> {
    fn apply(&self) {
        let mut loads = self.state.loads.lock();
        for name in &self.names {
            loads.under_way.remove(name);
            if self.forget {
                self.state.forget(name);
            }
        }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.apply();
    }
}

impl Kept {
    fn read(&self) -> Option<Read> {
        let value = self.value.lock().clone()?;
        Some(Read::new(value).with_expires(self.expires))
    }

    fn len(&self) -> usize {
        self.value.lock().as_ref().map_or(0, SecretValue::len)
    }

    fn wipe(&self) {
        self.value.lock().take();
    }
}

/// The duration until then; zero if it has passed.
fn until(time: Timestamp) -> Duration {
    let seconds = time.unix_seconds() - Timestamp::now().unix_seconds();
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn count(counter: &Counter, entries: usize) {
    if entries > 0 {
        counter.add(entries as u64);
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::show(f, "cache", &self.state.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Cache {
    fn capabilities(&self) -> Capabilities {
        self.state.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.start_eviction();
        let now = Instant::now();
        let fresh = |name| self.state.fresh(name, now);
        // Everything being there is what a cache is for.
        let all: Option<Vec<Result<Read>>> =
            coordinates.iter().map(|name| fresh(name).map(Ok)).collect();
        if let Some(answers) = all {
            count(&self.state.counters.hit, answers.len());
            return answers;
        }
        let mut answers: Vec<Option<Result<Read>>> =
            coordinates.iter().map(|name| fresh(name).map(Ok)).collect();
        let rest: Vec<Coordinate> = coordinates
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        count(&self.state.counters.hit, coordinates.len() - rest.len());
        if !rest.is_empty() {
            let mut found = Loaded::with_capacity(rest.len());
            let loads = self.state.plan(&rest, &mut found);
            for loaded in join_all(loads).await {
                for name in &rest {
                    if let Some(result) = loaded.get(name) {
                        found.insert(name.clone(), result.clone());
                    }
                }
            }
            for (answer, name) in answers.iter_mut().zip(coordinates) {
                if answer.is_none() {
                    *answer = found.get(name).cloned();
                }
            }
        }
        let lost = |(answer, name): (Option<Result<Read>>, &Coordinate)| {
            // Cannot happen: every name is found, joined or loaded.
            answer.unwrap_or_else(|| {
                let name = std::slice::from_ref(name);
                let message = "the cache lost track of a load";
                self.state
                    .failures(name, ErrorKind::Unexpected, message)
                    .remove(0)
            })
        };
        answers.into_iter().zip(coordinates).map(lost).collect()
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let names = writes.iter().map(|write| &write.coordinate).collect();
        let _changing = self.changing(names, false);
        self.state.inner.write_batch(writes).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let _changing = self.changing(coordinates.iter().collect(), true);
        self.state.inner.delete_batch(coordinates, options).await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let _changing = self.changing(vec![coordinate], false);
        self.state.inner.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.state.inner.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.state.inner.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.state.inner.identity().await
    }
}

#[cfg(test)]
mod tests;
