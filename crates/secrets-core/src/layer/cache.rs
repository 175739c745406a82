//! Keeps values that were read: bounded, loaded once for all who ask, and wiped when they go.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared, join_all};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Operation, Page, Read, Result, SecretPersistence, SecretValue,
    Timestamp, Write, Written,
};

/// How often what has outlived its time is wiped, whether anybody asks or not.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// What an entry takes besides its name and value, roughly.
const OVERHEAD_BYTES: usize = 256;
/// Every ephemeral secret's name holds this: the all-zero base id.
const EPHEMERAL: &str = "00000000-0000-0000-0000-000000000000_secret_";

/// How much to keep, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheOptions {
    /// The most memory that entries take, in bytes; 64 MiB unless told.
    pub max_bytes: u64,
    /// How long loading again is waited for where there is an old value to serve: as long, an outage is
    /// felt by every caller. 3 seconds unless told.
    pub reload_timeout: Duration,
    /// For how long beyond the TTL a managed value is still served while the store is unavailable or
    /// throttles; 1 hour unless told. Zero switches that off.
    pub stale: Duration,
    /// For how long a value is served without asking the store; 5 minutes unless told. A value that
    /// another process deleted is served for at most as long.
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
    /// The most memory that entries take, in bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long loading again is waited for where there is an old value to serve.
    #[must_use]
    pub fn with_reload_timeout(mut self, timeout: Duration) -> Self {
        self.reload_timeout = timeout;
        self
    }

    /// For how long beyond the TTL a managed value is still served during an outage.
    #[must_use]
    pub fn with_stale(mut self, stale: Duration) -> Self {
        self.stale = stale;
        self
    }

    /// For how long a value is served without asking the store.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// A store whose values are kept for a while.
///
/// - n callers who ask for one name make one request; a batch asks only for what is missing.
/// - There are no negative entries: what is missing is asked for each time.
/// - A delete beats a load in flight: what was being loaded is not kept.
/// - An entry never outlives an expiry that the store told; ephemeral secrets are not kept at all.
/// - Beyond the TTL a managed value, which cannot change, is served only where loading it again ended
///   in `Unavailable` or `Throttled`; any other error drops it.
/// - What goes (deleted, evicted, outlived, or the cache with it) drops its handle at once, so that
///   the value is wiped with the last one.
///
/// `secrets_cache_total` counts entries by `result`: `hit`, `joined` (somebody else's load), `loaded`,
/// `stale`.
#[derive(Debug)]
pub(super) struct Cache {
    state: Arc<State>,
    housekeeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct State {
    inner: Arc<dyn SecretPersistence>,
    store: Arc<str>,
    options: CacheOptions,
    entries: moka::sync::Cache<Coordinate, Arc<Kept>>,
    loads: Mutex<Loads>,
}

/// One value that is kept. The value can be taken out: moka frees what it removed when it sees fit,
/// and a secret must not wait for that.
#[derive(Debug)]
struct Kept {
    value: Mutex<Option<SecretValue>>,
    expires: Option<Timestamp>,
    fresh_until: Instant,
    kept_until: Instant,
}

/// What is being loaded, by name. Weak, so that a load nobody waits for any longer is dropped.
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
            .max_capacity(options.max_bytes)
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
            }),
            housekeeper: Mutex::default(),
        }
    }

    /// Starts the task that wipes what has outlived its time, if it is not running.
    fn keep_house(&self) {
        let mut housekeeper = lock(&self.housekeeper);
        if housekeeper.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let state = Arc::downgrade(&self.state);
        *housekeeper = tokio::runtime::Handle::try_current()
            .ok()
            .map(|runtime| runtime.spawn(housekeeping(state)));
    }

    /// Detaches names from loads in flight, now and when the change is over or given up.
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

async fn housekeeping(state: Weak<State>) {
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
        if let Some(task) = lock(&self.housekeeper).take() {
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
    /// A value that may be served without asking.
    fn fresh(&self, name: &Coordinate, now: Instant) -> Option<Read> {
        let kept = self.entries.get(name)?;
        (now < kept.fresh_until).then(|| kept.read())?
    }

    /// A value that may be served where the store cannot.
    fn stale(&self, name: &Coordinate) -> Option<Read> {
        let kept = self.entries.get(name)?;
        (Instant::now() < kept.kept_until).then(|| kept.read())?
    }

    /// Joins the loads under way of what is being loaded, and starts one for the rest.
    fn plan(self: &Arc<Self>, names: &[Coordinate], hits: &mut Loaded) -> Vec<Load> {
        let now = Instant::now();
        let mut joined: Vec<(u64, Load)> = Vec::new();
        let mut missing = Vec::new();
        let mut loads = lock(&self.loads);
        let (mut hit, mut joining) = (0, 0);
        for name in names {
            // Again, under the lock: a load that landed since the first look has left its value here.
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
        count("hit", hit);
        count("joined", joining);
        let mut all: Vec<Load> = joined.into_iter().map(|(_, load)| load).collect();
        if !missing.is_empty() {
            count("loaded", missing.len());
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

    /// What a load brought: kept where it may be, replaced by what was kept where the store could not
    /// answer. Names that were detached since are neither.
    fn land(&self, id: u64, names: &[Coordinate], results: Vec<Result<Read>>) -> Loaded {
        let loads = lock(&self.loads);
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
            // Somebody else may have changed it since.
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
            // The store did answer: what is kept is no longer ours to serve.
            self.forget(name);
            return Err(error);
        }
        let read = self.stale(name).ok_or(error)?;
        count("stale", 1);
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
                // The entry may have been replaced meanwhile; then the next one is not due.
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

/// Loads names, whoever waits for them.
async fn load(state: Arc<State>, id: u64, names: Vec<Coordinate>) -> Arc<Loaded> {
    let under_way = UnderWay { state, id, names };
    let (state, names) = (&under_way.state, &under_way.names);
    let read = state.inner.read_batch(names);
    // Whoever has something to fall back on need not sit out the retries of an outage.
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

/// The names of a load, unregistered when it has landed or nobody waits for it any longer.
struct UnderWay {
    state: Arc<State>,
    id: u64,
    names: Vec<Coordinate>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut loads = lock(&self.state.loads);
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

/// A change under way. What is loaded meanwhile may be older than the change: it is not kept, and
/// nobody who asks later joins it.
struct Changing<'a> {
    state: &'a State,
    names: Vec<Coordinate>,
    forget: bool,
}

impl Changing<'_> {
    fn apply(&self) {
        let mut loads = lock(&self.state.loads);
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
        let value = lock(&self.value).clone()?;
        Some(Read::new(value).with_expires(self.expires))
    }

    fn len(&self) -> usize {
        lock(&self.value).as_ref().map_or(0, SecretValue::len)
    }

    fn wipe(&self) {
        lock(&self.value).take();
    }
}

/// How long it is until then; zero where that has been.
fn until(time: Timestamp) -> Duration {
    let seconds = time.unix_seconds() - Timestamp::now().unix_seconds();
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn count(result: &'static str, entries: usize) {
    if entries > 0 {
        metrics::counter!("secrets_cache_total", "result" => result).increment(entries as u64);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds one of these locks can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache({})", self.state.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Cache {
    fn capabilities(&self) -> Capabilities {
        self.state.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.keep_house();
        let now = Instant::now();
        let mut answers: Vec<Option<Result<Read>>> = coordinates
            .iter()
            .map(|name| self.state.fresh(name, now).map(Ok))
            .collect();
        let rest: Vec<Coordinate> = coordinates
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        count("hit", coordinates.len() - rest.len());
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

    async fn delete(&self, coordinate: &ManagedCoordinate, options: &DeleteOptions) -> Result<()> {
        let _changing = self.changing(vec![coordinate], true);
        self.state.inner.delete(coordinate, options).await
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
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::conformance::{self, Options};
    use crate::layer::probe::{Fault, Probe, coordinate, holding, write};
    use crate::layer::recorder::{Recorder, recorded};
    use crate::{Recovery, Scope, SecretPersistenceExt, WeakSecret};

    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn over(probe: &Arc<Probe>) -> Arc<Cache> {
        with(probe, CacheOptions::default())
    }

    fn with(probe: &Arc<Probe>, options: CacheOptions) -> Arc<Cache> {
        Arc::new(Cache::new(Arc::clone(probe) as _, "probe".into(), options))
    }

    fn name(n: usize) -> Coordinate {
        coordinate(n).into()
    }

    fn names(range: std::ops::Range<usize>) -> Vec<Coordinate> {
        range.map(name).collect()
    }

    async fn kind(cache: &Cache, n: usize) -> ErrorKind {
        cache.read(&name(n)).await.unwrap_err().kind()
    }

    async fn reads(cache: &Cache, n: usize) {
        assert_eq!(cache.read(&name(n)).await.unwrap().value, write(n).value);
    }

    #[tokio::test(start_paused = true)]
    async fn every_promise_holds() {
        let options = CacheOptions::default();
        for options in [options.clone(), options.with_ttl(MILLISECOND)] {
            let store: Arc<dyn SecretPersistence> = with(&Arc::new(Probe::slow()), options);
            let report = conformance::run(&store, &Options::default()).await;
            report.assert_passed();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_promise_holds_on_many_threads() {
        let store: Arc<dyn SecretPersistence> = over(&Arc::new(Probe::new()));
        let report = conformance::run(&store, &Options::default()).await;
        report.assert_passed();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_readers_make_one_request_and_a_warm_one_none() {
        let latency = Duration::from_millis(100);
        let probe = holding(Probe::new().with_latency(latency), 20).await;
        let cache = over(&probe);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let cache = Arc::clone(&cache);
            tasks.spawn(async move { cache.read_many(&names(0..20)).await });
        }
        while let Some(results) = tasks.join_next().await {
            for (n, result) in results.unwrap().into_iter().enumerate() {
                assert_eq!(result.unwrap().value, write(n).value);
            }
        }
        let requests = probe.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert_eq!(requests[0].names.len(), 20);
        cache.read_many(&names(0..20)).await;
        assert_eq!(probe.requests().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_asks_only_for_what_is_missing() {
        let probe = holding(Probe::slow(), 10).await;
        let cache = over(&probe);
        cache.read_many(&names(0..4)).await;
        // Some kept, some being loaded by somebody else, some new.
        let (others, ours) = (names(4..6), names(2..8));
        let (_, results) = tokio::join!(cache.read_many(&others), cache.read_many(&ours));
        for (n, result) in (2..8).zip(results) {
            assert_eq!(result.unwrap().value, write(n).value);
        }
        let asked: Vec<Vec<String>> = probe
            .requests()
            .into_iter()
            .map(|request| request.names)
            .collect();
        let expected = [0..4, 4..6, 6..8].map(|range| {
            let names = names(range);
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        });
        assert_eq!(asked, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_one_of_many_waiting_callers_disturbs_no_other() {
        let probe = holding(Probe::new().with_latency(SECOND), 1).await;
        let cache = over(&probe);
        let mut callers: Vec<_> = (0..100)
            .map(|_| {
                let cache = Arc::clone(&cache);
                tokio::spawn(async move { cache.read(&name(0)).await })
            })
            .collect();
        sleep(SECOND / 2).await;
        // The first caller is the one who started the load.
        callers.remove(0).abort();
        callers.remove(40).abort();
        for caller in callers {
            assert_eq!(caller.await.unwrap().unwrap().value, write(0).value);
        }
        assert_eq!(probe.requests().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_nobody_waits_for_is_dropped_and_started_anew() {
        let probe = holding(Probe::new(), 1).await;
        probe.on_every_request(|_, _| Fault::Hang);
        let cache = over(&probe);
        timeout(SECOND, cache.read(&name(0))).await.unwrap_err();
        assert!(lock(&cache.state.loads).under_way.is_empty());
        probe.recovers();
        reads(&cache, 0).await;
        assert_eq!(probe.requests().len(), 2);
    }

    /// Slows one operation of a probe down.
    fn slow(probe: &Probe, slowed: Operation, before: Duration, after: Duration) {
        probe.on_every_request(move |operation, _| match operation {
            _ if operation == slowed => Fault::Slow { before, after },
            _ => Fault::None,
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_beats_a_load_in_flight() {
        // Without it, a deleted secret would be served for the whole TTL.
        for give_up in [false, true] {
            let probe = holding(Probe::new(), 1).await;
            let cache = over(&probe);
            // The load looks at once, and its answer is long on the way.
            slow(&probe, Operation::Read, Duration::ZERO, SECOND * 10);
            let reader = {
                let cache = Arc::clone(&cache);
                tokio::spawn(async move { cache.read(&name(0)).await })
            };
            sleep(SECOND).await;
            if give_up {
                // Dropped after it took effect, before its answer.
                slow(&probe, Operation::Delete, Duration::ZERO, SECOND * 10);
            }
            let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
            let coordinate = coordinate(0);
            let deleted = timeout(SECOND, cache.delete(&coordinate, &immediate)).await;
            assert_eq!(deleted.is_err(), give_up);
            // Who asks now does not join the load that began before.
            assert_eq!(kind(&cache, 0).await, ErrorKind::NotFound);
            // Who asked before may have the value; it is not kept.
            assert!(reader.await.unwrap().is_ok());
            assert_eq!(kind(&cache, 0).await, ErrorKind::NotFound);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_during_a_delete_is_not_kept() {
        for give_up in [false, true] {
            let probe = holding(Probe::new(), 1).await;
            let cache = over(&probe);
            reads(&cache, 0).await;
            // The delete is long on its way; until it arrives, the value may be read.
            slow(&probe, Operation::Delete, SECOND * 10, SECOND * 10);
            let delete = {
                let cache = Arc::clone(&cache);
                tokio::spawn(async move {
                    let options = DeleteOptions::default();
                    cache.delete(&coordinate(0), &options).await
                })
            };
            sleep(SECOND).await;
            let read = cache.read(&name(0)).await.unwrap();
            let value = read.value.downgrade();
            drop(read);
            if give_up {
                sleep(SECOND * 12).await;
                delete.abort();
            }
            assert_eq!(delete.await.is_err(), give_up);
            assert!(value.is_wiped());
            assert_eq!(kind(&cache, 0).await, ErrorKind::PendingDeletion);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_written_reads_what_was_written() {
        let probe = Arc::new(Probe::new());
        let cache = over(&probe);
        // A load that began before the write, and may know nothing of it.
        let mut first = true;
        probe.on_every_request(move |_, _| {
            if std::mem::take(&mut first) {
                return Fault::Hang;
            }
            Fault::None
        });
        let early = {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.read(&name(0)).await })
        };
        sleep(SECOND).await;
        cache.write(write(0)).await.unwrap();
        timeout(SECOND, reads(&cache, 0)).await.unwrap();
        early.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_asked_for_each_time() {
        let probe = Arc::new(Probe::slow());
        let cache = over(&probe);
        for _ in 0..3 {
            assert_eq!(kind(&cache, 0).await, ErrorKind::NotFound);
        }
        assert_eq!(probe.requests().len(), 3);
        cache.write(write(0)).await.unwrap();
        reads(&cache, 0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_served_for_the_ttl_and_then_loaded_again() {
        let probe = holding(Probe::new(), 1).await;
        let cache = with(&probe, CacheOptions::default().with_ttl(SECOND * 60));
        reads(&cache, 0).await;
        sleep(SECOND * 59).await;
        reads(&cache, 0).await;
        assert_eq!(probe.requests().len(), 1);
        sleep(SECOND * 2).await;
        reads(&cache, 0).await;
        assert_eq!(probe.requests().len(), 2);
        // Deleted by another process: at most the TTL.
        let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
        probe
            .memory
            .delete(&coordinate(0), &immediate)
            .await
            .unwrap();
        reads(&cache, 0).await;
        sleep(SECOND * 60).await;
        assert_eq!(kind(&cache, 0).await, ErrorKind::NotFound);
    }

    #[test]
    fn an_outage_is_bridged_for_the_configured_time_and_counted() {
        let recorder = Recorder::default();
        recorded(&recorder, async {
            let probe = holding(Probe::new(), 1).await;
            let options = CacheOptions::default()
                .with_ttl(SECOND * 60)
                .with_stale(SECOND * 600);
            let cache = with(&probe, options);
            reads(&cache, 0).await;
            for (second, outage) in [
                (61, ErrorKind::Unavailable),
                (300, ErrorKind::Throttled),
                (659, ErrorKind::Unavailable),
            ] {
                probe.fails_with(outage);
                let started = probe.requests()[0].at;
                sleep(SECOND * second - started.elapsed()).await;
                // Each time the store is asked again.
                let asked = probe.requests().len();
                reads(&cache, 0).await;
                assert_eq!(probe.requests().len(), asked + 1);
            }
            sleep(SECOND * 2).await;
            assert_eq!(kind(&cache, 0).await, ErrorKind::Unavailable);
        });
        assert_eq!(recorder.count("secrets_cache_total{result=stale}"), 3);
        assert_eq!(recorder.count("secrets_cache_total{result=loaded}"), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_delays_no_longer_than_the_reload_timeout() {
        let probe = holding(Probe::new(), 2).await;
        let options = CacheOptions::default()
            .with_ttl(SECOND)
            .with_reload_timeout(SECOND * 2);
        let cache = with(&probe, options);
        reads(&cache, 0).await;
        probe.on_every_request(|_, _| Fault::Hang);
        sleep(SECOND * 2).await;
        let started = Instant::now();
        reads(&cache, 0).await;
        assert_eq!(started.elapsed(), SECOND * 2);
        // Who has nothing to fall back on waits as long as the layers below do.
        let both = names(0..2);
        let read = cache.read_many(&both);
        timeout(SECOND * 100, read).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_refuses_is_served_no_longer() {
        for refusal in [
            ErrorKind::Integrity,
            ErrorKind::NotFound,
            ErrorKind::PendingDeletion,
            ErrorKind::PermissionDenied,
            ErrorKind::Unauthenticated,
            ErrorKind::Unexpected,
        ] {
            let probe = holding(Probe::new(), 1).await;
            let cache = with(&probe, CacheOptions::default().with_ttl(SECOND));
            let read = cache.read(&name(0)).await.unwrap();
            let value = read.value.downgrade();
            drop(read);
            sleep(SECOND * 2).await;
            probe.fails_with(refusal);
            assert_eq!(kind(&cache, 0).await, refusal);
            assert!(value.is_wiped());
            // Nor if an outage follows.
            probe.fails_with(ErrorKind::Unavailable);
            assert_eq!(kind(&cache, 0).await, ErrorKind::Unavailable);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_others_are_not_served_beyond_the_ttl() {
        let probe = Arc::new(Probe::new());
        let value = SecretValue::new("theirs".to_owned());
        probe.memory.plant("theirs", value);
        let external = Coordinate::parse("theirs").unwrap();
        let cache = with(&probe, CacheOptions::default().with_ttl(SECOND));
        cache.read(&external).await.unwrap();
        cache.read(&external).await.unwrap();
        assert_eq!(probe.requests().len(), 1);
        sleep(SECOND * 2).await;
        probe.fails_with(ErrorKind::Unavailable);
        let error = cache.read(&external).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_never_outlives_its_expiry() {
        let probe = Arc::new(Probe::new());
        let expires = Timestamp::now().saturating_add(SECOND * 15);
        let expiring = write(0).with_expires(Some(expires));
        probe.memory.write(expiring).await.unwrap();
        let cache = over(&probe);
        reads(&cache, 0).await;
        sleep(SECOND * 12).await;
        reads(&cache, 0).await;
        assert_eq!(probe.requests().len(), 1);
        // Not because the housekeeper, who comes every 10 seconds, has thrown it out.
        sleep(SECOND * 4).await;
        probe.fails_with(ErrorKind::Unavailable);
        assert_eq!(kind(&cache, 0).await, ErrorKind::Unavailable);

        // What has expired already is read, where the store still serves it, and not kept.
        probe.recovers();
        let past = Timestamp::from_unix_seconds(1_000_000_000).unwrap();
        let expired = write(1).with_expires(Some(past));
        probe.memory.write(expired).await.unwrap();
        probe.forget_requests();
        reads(&cache, 1).await;
        reads(&cache, 1).await;
        assert_eq!(probe.requests().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn ephemeral_secrets_are_not_kept() {
        let probe = Arc::new(Probe::new());
        for scope in [
            Scope::ephemeral(),
            Scope::new("organization_", uuid::Uuid::nil()).unwrap(),
        ] {
            let id = uuid::Uuid::from_u128(7);
            let ephemeral = ManagedCoordinate::new(&scope, id, 1).unwrap();
            let secret = Write::new(ephemeral.clone(), write(0).value);
            probe.memory.write(secret).await.unwrap();
            let cache = over(&probe);
            probe.forget_requests();
            for _ in 0..2 {
                let read = cache.read(&ephemeral.clone().into()).await.unwrap();
                let value = read.value.downgrade();
                drop(read);
                assert!(value.is_wiped());
            }
            assert_eq!(probe.requests().len(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_is_wiped() {
        let probe = holding(Probe::new(), 4).await;
        let options = CacheOptions::default()
            .with_ttl(SECOND * 60)
            .with_stale(SECOND * 60);
        let cache = with(&probe, options);
        let mut kept: Vec<WeakSecret> = Vec::new();
        for n in 0..4 {
            kept.push(cache.read(&name(n)).await.unwrap().value.downgrade());
        }
        assert!(kept.iter().all(|value| !value.is_wiped()));
        // Deleted: before the request is even answered.
        probe.on_every_request(|_, _| Fault::Hang);
        let (first, options) = (coordinate(0), DeleteOptions::default());
        {
            let mut delete = std::pin::pin!(cache.delete(&first, &options));
            assert!(futures::poll!(&mut delete).is_pending());
            assert!(kept[0].is_wiped());
        }
        probe.recovers();
        assert!(!kept[1].is_wiped());
        // Loaded again: the old copy goes.
        sleep(SECOND * 61).await;
        let again = cache.read(&name(1)).await.unwrap().value.downgrade();
        assert!(kept[1].is_wiped());
        assert!(!again.is_wiped() && !kept[2].is_wiped());
        // Outlived: though nobody asks.
        sleep(SECOND * 59 + HOUSEKEEPING + MILLISECOND).await;
        assert!(kept[2].is_wiped() && kept[3].is_wiped());
        assert!(!again.is_wiped());
        // Dropped with the cache.
        drop(cache);
        assert!(again.is_wiped());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_what_is_evicted_is_wiped() {
        let count = 200;
        let probe = holding(Probe::new(), count).await;
        let room = 10 * (OVERHEAD_BYTES as u64 + 64);
        let cache = with(&probe, CacheOptions::default().with_max_bytes(room));
        let mut kept: Vec<WeakSecret> = Vec::new();
        for n in 0..count {
            kept.push(cache.read(&name(n)).await.unwrap().value.downgrade());
        }
        sleep(HOUSEKEEPING + MILLISECOND).await;
        let alive = kept.iter().filter(|value| !value.is_wiped()).count();
        assert!((1..=10).contains(&alive), "{alive} of {count} are kept");
        assert!(cache.state.entries.weighted_size() <= room);
    }
}
