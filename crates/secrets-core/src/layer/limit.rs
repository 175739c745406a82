//! Keeps to a share of the provider's quota, and to less of it while the provider throttles.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turnstile, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::list_cost;
use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Page, Read, Result, SecretPersistence, Write, Written,
};

/// One request is this many cells of the rate limiter, so that a request may cost a fraction more
/// while the provider throttles.
const CELLS: u32 = 1000;
/// What may go out at once, as a part of a second: enough that a timer's granularity of a
/// millisecond loses nothing, little enough that no provider calls it a burst.
const BURST_SECONDS: f64 = 0.02;
/// What is left of the pace after the provider has throttled.
const SLOWER: f64 = 0.7;
/// The pace never falls below this part.
const SLOWEST: f64 = 0.02;
/// Requests that were under way together are throttled together; that counts once.
const COOLDOWN: Duration = Duration::from_secs(1);
/// How much of the full pace comes back each second.
const RECOVERY_PER_SECOND: f64 = 0.05;
/// No store may silence us for longer, whatever its Retry-After says.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// How much of a store to use.
///
/// Quotas are the provider's, per account, project or vault; other processes have their share.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LimitOptions {
    /// For listing, describing and asking for the identity.
    pub list: ClassLimit,
    /// For reading.
    pub read: ClassLimit,
    /// The part of each rate that this process may use, above 0 and at most 1; 1 unless told.
    pub share: f64,
    /// For all operations together, beside the limit of each class; none unless told.
    pub total: Option<ClassLimit>,
    /// For writing, deleting and restoring.
    pub write: ClassLimit,
}

/// How much of a store one class of operations may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassLimit {
    /// The most calls under way at once.
    pub concurrency: usize,
    /// The provider's quota in requests per second, of which the share is taken.
    pub per_second: f64,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            list: ClassLimit {
                concurrency: 8,
                per_second: 50.0,
            },
            read: ClassLimit {
                concurrency: 64,
                per_second: 1000.0,
            },
            share: 1.0,
            total: None,
            write: ClassLimit {
                concurrency: 32,
                per_second: 50.0,
            },
        }
    }
}

impl LimitOptions {
    /// For listing, describing and asking for the identity.
    #[must_use]
    pub fn with_list(mut self, limit: ClassLimit) -> Self {
        self.list = limit;
        self
    }

    /// For reading.
    #[must_use]
    pub fn with_read(mut self, limit: ClassLimit) -> Self {
        self.read = limit;
        self
    }

    /// The part of each rate that this process may use.
    #[must_use]
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// For all operations together, and nothing beside it: for stores that do not count by class.
    #[must_use]
    pub fn in_total(limit: ClassLimit) -> Self {
        let unlimited = ClassLimit {
            concurrency: Semaphore::MAX_PERMITS,
            per_second: f64::MAX,
        };
        Self {
            list: unlimited,
            read: unlimited,
            share: 1.0,
            total: Some(limit),
            write: unlimited,
        }
    }

    /// For writing, deleting and restoring.
    #[must_use]
    pub fn with_write(mut self, limit: ClassLimit) -> Self {
        self.write = limit;
        self
    }
}

/// A store that is asked no more than was agreed.
#[derive(Debug)]
pub(super) struct Limit {
    inner: Arc<dyn SecretPersistence>,
    list: Class,
    read: Class,
    total: Option<Class>,
    write: Class,
}

impl Limit {
    pub(super) fn new(
        inner: Arc<dyn SecretPersistence>,
        store: &Arc<str>,
        options: LimitOptions,
    ) -> Self {
        let class = |name, limit| Class::new(Arc::clone(store), name, limit, options.share);
        Self {
            inner,
            list: class("list", options.list),
            read: class("read", options.read),
            total: options.total.map(|limit| class("total", limit)),
            write: class("write", options.write),
        }
    }
}

impl Limit {
    /// Makes a call of one class, once the total allows it too.
    async fn call<T>(
        &self,
        class: &Class,
        requests: u32,
        call: impl Future<Output = T>,
        throttled: impl Fn(&T) -> Vec<Error>,
    ) -> T {
        let _slot = match &self.total {
            Some(total) => total.admit(requests).await,
            None => None,
        };
        class.call(requests, call, throttled).await
    }
}

/// One class of operations: how many at once, how many per second, how fast at present.
#[derive(Debug)]
struct Class {
    store: Arc<str>,
    name: &'static str,
    slots: Semaphore,
    /// Callers wait for the rate one after the other, in the order in which they came.
    turnstile: Turnstile<()>,
    rate: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>,
    burst: u32,
    pace: Mutex<Pace>,
}

/// How fast we go at present, and whether we go at all.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// The part of the full pace at `since`; it grows from there.
    part: f64,
    since: Instant,
    silent_until: Instant,
}

/// Tokio's clock, which tests can turn.
#[derive(Clone, Debug)]
struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Class {
    fn new(store: Arc<str>, name: &'static str, limit: ClassLimit, share: f64) -> Self {
        // No setting can stall us or divide by zero.
        let share = between(share, 0.001, 1.0);
        let per_second = between(limit.per_second * share, 0.01, 100_000.0);
        let period = Duration::from_secs_f64(1.0 / (per_second * f64::from(CELLS)));
        let burst = whole((per_second * BURST_SECONDS).max(2.0) * f64::from(CELLS));
        let quota = Quota::with_period(period.max(Duration::from_nanos(1)))
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
        let now = Instant::now();
        Self {
            store,
            name,
            slots: Semaphore::new(limit.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            turnstile: Turnstile::new(()),
            rate: RateLimiter::direct_with_clock(quota, TokioClock { start: now }),
            burst,
            pace: Mutex::new(Pace {
                part: 1.0,
                since: now,
                silent_until: now,
            }),
        }
    }

    /// Waits for a slot and for as many permits as there are requests, then makes the call and learns
    /// from what was throttled in its answer.
    async fn call<T>(
        &self,
        requests: u32,
        call: impl Future<Output = T>,
        throttled: impl Fn(&T) -> Vec<Error>,
    ) -> T {
        let slot = self.admit(requests).await;
        let answer = call.await;
        drop(slot);
        self.learn(&throttled(&answer));
        answer
    }

    async fn admit(&self, requests: u32) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there is always a permit in the end.
        let slot = self.slots.acquire().await.ok();
        let _turn = self.turnstile.lock().await;
        self.silence().await;
        let part = self.pace.lock().part_at(Instant::now());
        let mut cells = f64::from(requests.max(1)) * f64::from(CELLS) / part;
        while cells >= 1.0 {
            let portion = whole(cells.min(f64::from(self.burst)));
            let Some(portion) = NonZeroU32::new(portion) else {
                break;
            };
            while let Ok(Err(too_soon)) = self.rate.check_n(portion) {
                let now = self.rate.clock().now();
                tokio::time::sleep(too_soon.wait_time_from(now)).await;
            }
            cells -= f64::from(portion.get());
        }
        self.silence().await;
        self.count("secrets_limit_permits_total", requests.max(1));
        slot
    }

    fn count(&self, name: &'static str, number: u32) {
        metrics::counter!(name, "store" => self.store.to_string(), "class" => self.name)
            .increment(u64::from(number));
    }

    /// Waits while the store has asked to be left alone.
    async fn silence(&self) {
        loop {
            let until = self.pace.lock().silent_until;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn learn(&self, throttled: &[Error]) {
        if throttled.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut pace = self.pace.lock();
        if let Some(wait) = throttled.iter().filter_map(Error::retry_after).max() {
            pace.silent_until = pace.silent_until.max(now + wait.min(LONGEST_SILENCE));
        }
        if now.duration_since(pace.since) >= COOLDOWN || pace.part >= 1.0 {
            pace.part = (pace.part_at(now) * SLOWER).max(SLOWEST);
            pace.since = now;
            self.count("secrets_limit_slowed_total", 1);
            tracing::debug!(
                class = self.name,
                percent = pace.part * 100.0,
                "the store throttles; going slower"
            );
        }
    }
}

impl Pace {
    fn part_at(&self, now: Instant) -> f64 {
        let rested = now.duration_since(self.since).saturating_sub(COOLDOWN);
        (self.part + rested.as_secs_f64() * RECOVERY_PER_SECOND).min(1.0)
    }
}

/// The number, or the nearest that is allowed; the least for what is no number.
fn between(number: f64, least: f64, most: f64) -> f64 {
    if number.is_nan() {
        least
    } else {
        number.clamp(least, most)
    }
}

/// The whole part of a positive number that fits.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates, as is wanted.
fn whole(number: f64) -> u32 {
    number as u32
}

fn throttled_of<T>(result: &Result<T>) -> Vec<Error> {
    throttled_in(std::slice::from_ref(result))
}

fn throttled_in<T>(results: &[Result<T>]) -> Vec<Error> {
    results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .filter(|error| error.kind() == ErrorKind::Throttled)
        .cloned()
        .collect()
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::show(f, "limit", &self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Limit {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        if coordinates.is_empty() {
            return Vec::new();
        }
        let requests = self.capabilities().read_cost(coordinates.len());
        let call = self.inner.read_batch(coordinates);
        self.call(&self.read, requests, call, |results| throttled_in(results))
            .await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let requests = self.capabilities().cost.write;
        let call = self.inner.write_batch(writes);
        self.call(&self.write, requests, call, |results| throttled_in(results))
            .await
    }

    async fn delete(&self, coordinate: &ManagedCoordinate, options: &DeleteOptions) -> Result<()> {
        let requests = self.capabilities().cost.delete;
        let call = self.inner.delete(coordinate, options);
        self.call(&self.write, requests, call, throttled_of).await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let requests = self.capabilities().cost.restore;
        let call = self.inner.restore(coordinate);
        self.call(&self.write, requests, call, throttled_of).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let requests = list_cost(&self.capabilities(), options);
        let call = self.inner.list_page(options, after);
        self.call(&self.list, requests, call, throttled_of).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let requests = self.capabilities().cost.describe;
        let call = self.inner.describe(coordinate);
        self.call(&self.list, requests, call, throttled_of).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.call(&self.list, 1, self.inner.identity(), throttled_of)
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::future::join_all;

    use super::*;
    use crate::conformance::{self, Options};
    use crate::layer::probe::{Fault, Probe, coordinate, holding, write};
    use crate::layer::recorder::{Recorder, recorded};
    use crate::layer::retry::{Retry, RetryOptions};
    use crate::layer::timeout::Timeout;
    use crate::{Cost, Memory, Operation, SecretPersistenceExt};

    const SECOND: Duration = Duration::from_secs(1);

    fn limit(concurrency: usize, per_second: f64) -> ClassLimit {
        ClassLimit {
            concurrency,
            per_second,
        }
    }

    fn over(probe: &Arc<Probe>, options: LimitOptions) -> Arc<Limit> {
        Arc::new(Limit::new(Arc::clone(probe) as _, &"probe".into(), options))
    }

    #[tokio::test(start_paused = true)]
    async fn a_total_bounds_all_classes_together() {
        let store = over(
            &Arc::new(Probe::new()),
            LimitOptions::in_total(limit(64, 10.0)),
        );
        let began = Instant::now();
        let reads: Vec<Coordinate> = (1..=11).map(|n| coordinate(n).into()).collect();
        join_all(
            reads
                .iter()
                .map(|name| store.read_batch(std::slice::from_ref(name))),
        )
        .await;
        for n in 1..=11 {
            store.describe(&coordinate(n)).await.unwrap_err();
        }
        assert_eq!(began.elapsed().as_secs(), 2);
    }

    /// Throttles what exceeds a quota, counted over a sliding second, as strict as a provider can be.
    fn quota(probe: &Probe, per_second: usize) {
        let mut recent: VecDeque<Instant> = VecDeque::new();
        probe.on_every_request(move |_, _| {
            let now = Instant::now();
            while recent.front().is_some_and(|at| now - *at >= SECOND) {
                recent.pop_front();
            }
            if recent.len() >= per_second {
                return Fault::Fail(Error::new(ErrorKind::Throttled, "over the quota"));
            }
            recent.push_back(now);
            Fault::None
        });
    }

    #[tokio::test(start_paused = true)]
    async fn every_promise_holds() {
        let store: Arc<dyn SecretPersistence> =
            over(&Arc::new(Probe::slow()), LimitOptions::default());
        let report = conformance::run(&store, &Options::default()).await;
        report.assert_passed();
    }

    #[tokio::test(start_paused = true)]
    async fn ten_times_the_load_is_never_throttled_and_uses_the_share() {
        for (quota_per_second, share) in [(100, 0.5), (10, 1.0), (1500, 0.25), (5, 0.3)] {
            let latency = Duration::from_millis(20);
            let probe = holding(Probe::new().with_latency(latency), 1).await;
            // One more than the quota, since a second may begin between two requests.
            quota(&probe, quota_per_second + 1 + quota_per_second / 50);
            let options = LimitOptions::default()
                .with_read(limit(10_000, quota_per_second as f64))
                .with_share(share);
            let limited = over(&probe, options);
            let attempts = Timeout::new(limited, SECOND * 10);
            let store = Arc::new(Retry::new(
                Arc::new(attempts),
                "probe".into(),
                RetryOptions::default().with_deadline(SECOND * 3600),
            ));
            let rate = quota_per_second as f64 * share;
            let seconds = 20.0;
            // So many callers, each calling again when it is answered after 40 ms, would make ten
            // times the quota's load if nothing held them back.
            let callers = (quota_per_second * 10 * 40 / 1000).max(10);
            let end = Instant::now() + Duration::from_secs_f64(seconds);
            let answered: Vec<usize> = join_all((0..callers).map(|_| async {
                let mut answered = 0;
                while Instant::now() < end {
                    store.read(&coordinate(0).into()).await.unwrap();
                    answered += usize::from(Instant::now() < end);
                }
                answered
            }))
            .await;
            let answered: usize = answered.iter().sum();
            let used = answered as f64 / (rate * seconds);
            assert!(
                (0.9..=1.1).contains(&used),
                "{quota_per_second} × {share}: {used}"
            );
            // Not one request was throttled: each was answered at once.
            let sent = probe
                .requests()
                .iter()
                .filter(|request| request.at < end)
                .count();
            assert!(sent <= answered + callers, "{sent} > {answered}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_others_use_the_quota_it_slows_down_and_recovers() {
        let probe = holding(Probe::new(), 1).await;
        let limited = over(
            &probe,
            LimitOptions::default().with_read(limit(10_000, 100.0)),
        );
        let store = Retry::new(
            limited.clone() as _,
            "probe".into(),
            RetryOptions::default(),
        );
        let run = async |seconds: u64| {
            probe.forget_requests();
            let end = Instant::now() + SECOND * u32::try_from(seconds).unwrap();
            let answered = join_all((0..50).map(|_| async {
                let mut answered = 0_u64;
                while Instant::now() < end {
                    // The caller never sees that the store throttles.
                    store.read(&coordinate(0).into()).await.unwrap();
                    answered += u64::from(Instant::now() < end);
                }
                answered
            }))
            .await;
            let answered: u64 = answered.iter().sum();
            let requests = probe.count(Operation::Read) as u64;
            (answered / seconds, requests / seconds)
        };
        // Others leave us 40 requests a second: we send little more than that.
        quota(&probe, 40);
        run(10).await;
        let (answered, sent) = run(30).await;
        assert!(
            (28..=41).contains(&answered),
            "{answered} answered each second"
        );
        assert!(sent <= 60, "{sent} sent each second");
        // The others are gone: soon we are back at our share.
        probe.recovers();
        run(20).await;
        let (answered, _) = run(10).await;
        assert!(
            (90..=103).contains(&answered),
            "{answered} answered each second"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_silences_the_whole_class() {
        let probe = holding(Probe::new(), 2).await;
        let mut first = true;
        probe.on_every_request(move |_, _| {
            if std::mem::take(&mut first) {
                let error = Error::new(ErrorKind::Throttled, "later");
                return Fault::Fail(error.with_retry_after(SECOND * 7));
            }
            Fault::None
        });
        let store = over(&probe, LimitOptions::default());
        let started = Instant::now();
        store.read(&coordinate(0).into()).await.unwrap_err();
        // Another caller, who knows nothing of it, and another class, which was not meant.
        store.write(write(5)).await.unwrap();
        assert!(started.elapsed() < SECOND);
        store.read(&coordinate(1).into()).await.unwrap();
        assert!(started.elapsed() >= SECOND * 7);
        assert!(started.elapsed() < SECOND * 8);
    }

    /// The first request is throttled with this Retry-After, after half a second.
    fn throttled_first(probe: &Probe, retry_after: Duration) {
        let mut first = true;
        probe.on_every_request(move |_, _| {
            if std::mem::take(&mut first) {
                let error = Error::new(ErrorKind::Throttled, "later");
                return Fault::Fail(error.with_retry_after(retry_after));
            }
            Fault::None
        });
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_silences_those_who_already_wait_for_the_rate() {
        let probe = holding(Probe::new().with_latency(SECOND / 4), 4).await;
        throttled_first(&probe, SECOND * 20);
        let store = over(&probe, LimitOptions::default().with_read(limit(10, 1.0)));
        let started = Instant::now();
        // Two go out at once; the others wait for the rate when the first is answered.
        let names = [0, 1, 2, 3].map(|n| Coordinate::from(coordinate(n)));
        drop(join_all(names.iter().map(|name| store.read(name))).await);
        let later: Vec<_> = probe
            .requests()
            .iter()
            .map(|request| request.at - started)
            .filter(|after| *after > SECOND / 2)
            .collect();
        assert_eq!(later.len(), 2);
        assert!(later.iter().all(|after| *after >= SECOND * 20), "{later:?}");
    }

    #[test]
    fn every_operation_is_of_its_class() {
        let recorder = Recorder::default();
        recorded(&recorder, async {
            let probe = holding(Probe::new(), 1).await;
            let store = over(&probe, LimitOptions::default());
            let name = coordinate(0);
            let immediate = DeleteOptions::default();
            store.read(&name.clone().into()).await.unwrap();
            store.write(write(1)).await.unwrap();
            store.delete(&name, &immediate).await.unwrap();
            store.restore(&name).await.unwrap();
            store.describe(&name).await.unwrap();
            store.identity().await.unwrap();
            store
                .list_page(&ListOptions::default(), None)
                .await
                .unwrap();
        });
        for (class, permits) in [("read", 1), ("write", 3), ("list", 3)] {
            let key = format!("secrets_limit_permits_total{{store=probe,class={class}}}");
            assert_eq!(recorder.count(&key), permits, "{key} in {recorder:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_comes_back_after_a_rest_and_never_beyond_the_full_one() {
        let now = Instant::now();
        let pace = Pace {
            part: 0.5,
            since: now,
            silent_until: now,
        };
        for (seconds, part) in [(0, 0.5), (1, 0.5), (3, 0.6), (11, 1.0), (100, 1.0)] {
            let present = pace.part_at(now + SECOND * seconds);
            assert!((present - part).abs() < 1e-9, "{present} after {seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_retry_after_silences_us_for_longer_than_a_minute() {
        let probe = holding(Probe::new(), 2).await;
        throttled_first(&probe, SECOND * 3600);
        let store = over(&probe, LimitOptions::default());
        let started = Instant::now();
        store.read(&coordinate(0).into()).await.unwrap_err();
        store.read(&coordinate(1).into()).await.unwrap();
        assert!((60..=61).contains(&started.elapsed().as_secs()));
    }

    #[test]
    fn requests_that_are_throttled_together_slow_us_down_once() {
        let recorder = Recorder::default();
        recorded(&recorder, async {
            let probe = holding(Probe::slow(), 1).await;
            probe.fails_with(ErrorKind::Throttled);
            let store = over(&probe, LimitOptions::default());
            let name: Coordinate = coordinate(0).into();
            join_all((0..10).map(|_| store.read(&name))).await;
            tokio::time::sleep(COOLDOWN).await;
            store.read(&name).await.unwrap_err();
        });
        let count = |name| recorder.count(&format!("{name}{{store=probe,class=read}}"));
        assert_eq!(count("secrets_limit_slowed_total"), 2, "{recorder:?}");
        assert_eq!(count("secrets_limit_permits_total"), 11, "{recorder:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_takes_as_many_permits_as_it_makes_requests() {
        let memory = Memory::new();
        let capabilities = Capabilities {
            read_batch: 20,
            cost: Cost {
                read: 41,
                write: 4,
                list_detail: 1,
                ..Cost::ONE
            },
            ..memory.capabilities()
        };
        let probe = Arc::new(Probe::over(memory.with_capabilities(capabilities)));
        let store = over(
            &probe,
            LimitOptions::default()
                .with_read(limit(10, 41.0))
                .with_write(limit(10, 8.0))
                .with_list(limit(10, 8.0)),
        );
        let started = Instant::now();
        for n in 0..21 {
            store.write(write(n)).await.unwrap();
        }
        // Two writes a second, four requests each.
        let took = started.elapsed().as_secs_f64();
        assert!((9.5..=10.6).contains(&took), "{took}");

        // One full batch a second, or single reads of three requests each.
        let names: Vec<Coordinate> = (0..20).map(|n| coordinate(n).into()).collect();
        for (count, calls) in [(20, 10), (1, 137)] {
            let started = Instant::now();
            for _ in 0..calls {
                store.read_many(&names[..count]).await;
            }
            let took = started.elapsed().as_secs_f64();
            assert!(
                (9.5..=10.6).contains(&took),
                "{took} for {calls} of {count}"
            );
        }

        let details = ListOptions::default().with_details(true).with_page_size(15);
        let started = Instant::now();
        for _ in 0..6 {
            store.list_page(&details, None).await.unwrap();
        }
        let took = started.elapsed().as_secs_f64();
        assert!((11.0..=12.5).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_are_under_way_than_agreed() {
        let latency = Duration::from_millis(100);
        let probe = holding(Probe::new().with_latency(latency), 1).await;
        let store = over(
            &probe,
            LimitOptions::default().with_read(limit(5, 10_000.0)),
        );
        let started = Instant::now();
        let name = coordinate(0).into();
        join_all((0..50).map(|_| store.read(&name)))
            .await
            .into_iter()
            .for_each(|read| drop(read.unwrap()));
        // Ten rounds of five, each of two latencies.
        assert!(started.elapsed() >= latency * 20);
        for request in probe.requests() {
            let together = probe
                .requests()
                .iter()
                .filter(|other| other.at <= request.at && request.at < other.at + latency * 2)
                .count();
            assert!(together <= 5, "{together}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_give_up_free_their_place() {
        let probe = holding(Probe::new(), 1).await;
        probe.on_every_request(|_, _| Fault::Hang);
        let store = over(&probe, LimitOptions::default().with_read(limit(2, 100.0)));
        let name: Coordinate = coordinate(0).into();
        for _ in 0..10 {
            let reads = join_all((0..5).map(|_| store.read(&name)));
            tokio::time::timeout(SECOND, reads).await.unwrap_err();
        }
        probe.recovers();
        let started = Instant::now();
        store.read(&name).await.unwrap();
        assert!(started.elapsed() < SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn no_setting_stalls_or_divides_by_zero() {
        let probe = holding(Probe::new(), 1).await;
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300] {
            let options = LimitOptions::default()
                .with_share(number)
                .with_read(limit(0, number));
            let store = over(&probe, options);
            for _ in 0..3 {
                store.read(&coordinate(0).into()).await.unwrap();
            }
        }
    }
}
