//! The only code that retries: full-jitter backoff, Retry-After, a deadline over all attempts.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::meter::{ByOperation, Counter};
use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Operation, Page, Read, Result, SecretPersistence, Write,
    Written,
};

/// Options of retries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// Maximum attempts of one call, including the first; 8 by default.
    pub attempts: usize,
    /// The deadline of one call over all its attempts and pauses; 60 seconds by default.
    pub deadline: Duration,
    /// The longest pause that we choose; 10 seconds by default. A store's longer Retry-After is
    /// respected, or the call fails if it exceeds the deadline.
    pub max_pause: Duration,
    /// The upper bound of the first pause, doubled for each retry; 100 milliseconds by default.
    pub min_pause: Duration,
    /// How long each request of an attempt may take; 10 seconds by default. An attempt may take as
    /// long as all the requests in [`Capabilities::cost`].
    pub request_timeout: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            attempts: 8,
            deadline: Duration::from_secs(60),
            max_pause: Duration::from_secs(10),
            min_pause: Duration::from_millis(100),
            request_timeout: Duration::from_secs(10),
        }
    }
}

impl RetryOptions {
    /// Sets the maximum attempts of one call, at least 1.
    #[must_use]
    pub fn with_attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets the deadline of one call over all its attempts and pauses.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the longest pause that we choose.
    #[must_use]
    pub fn with_max_pause(mut self, pause: Duration) -> Self {
        self.max_pause = pause;
        self
    }

    /// Sets the upper bound of the first pause.
    #[must_use]
    pub fn with_min_pause(mut self, pause: Duration) -> Self {
        self.min_pause = pause;
        self
    }

    /// Sets how long each request of an attempt may take.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }
}

/// One attempt for some of the items.
type Attempt<I, O, T> =
    for<'a> fn(&'a dyn SecretPersistence, &'a [I], &'a O) -> BoxFuture<'a, Vec<Result<T>>>;

/// A store whose retryable failures are retried.
#[derive(Debug)]
pub(super) struct Retry {
    inner: Arc<dyn SecretPersistence>,
    store: Arc<str>,
    options: RetryOptions,
    attempts: ByOperation<Counter>,
}

impl Retry {
    pub(super) fn new(
        inner: Arc<dyn SecretPersistence>,
        store: Arc<str>,
        options: RetryOptions,
    ) -> Self {
        Self {
            inner,
            attempts: ByOperation::new(|operation| {
                Counter::of("secrets_attempts_total", &store, operation)
            }),
            store,
            options,
        }
    }

    /// Retries one call.
    async fn repeat<T, F>(
        &self,
        operation: Operation,
        coordinate: Option<&ManagedCoordinate>,
        attempt: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut schedule = Schedule::new(&self.options);
        let mut last = None;
        loop {
            self.count_attempt(operation);
            let Some(result) = schedule.in_time(attempt()).await else {
                return Err(last.unwrap_or_else(|| {
                    let late = self.late(operation);
                    match coordinate {
                        Some(coordinate) => late.with_coordinate(coordinate.shared()),
                        None => late,
                    }
                }));
            };
            let error = match result {
                Err(error) if error.is_retryable() => error,
                other => return other,
            };
            let Some(pause) = schedule.pause(error.retry_after()) else {
                return Err(error);
            };
            self.note(operation, &error, pause);
            last = Some(error);
            tokio::time::sleep(pause).await;
        }
    }

    /// Retries the failed entries of a batch. Results are in the items' order.
    async fn repeat_batch<I, O, T>(
        &self,
        operation: Operation,
        items: &[I],
        options: &O,
        name: impl Fn(&I) -> Arc<str>,
        batch: impl Fn(&Capabilities) -> usize,
        attempt: Attempt<I, O, T>,
    ) -> Vec<Result<T>>
    where
        I: Clone,
    {
        let mut schedule = Schedule::new(&self.options);
        self.count_attempt(operation);
        let Some(mut results) = schedule
            .in_time(attempt(&*self.inner, items, options))
            .await
        else {
            let late = |item: &I| Err(self.late(operation).with_coordinate(name(item)));
            return items.iter().map(late).collect();
        };
        if results.len() != items.len() {
            // No result for any of them; the extension trait reports it.
            return results;
        }
        loop {
            let failed: Vec<usize> = (0..items.len())
                .filter(|&at| results[at].as_ref().is_err_and(Error::is_retryable))
                .collect();
            let errors = || failed.iter().filter_map(|&at| results[at].as_ref().err());
            let Some(first) = errors().next() else {
                return results;
            };
            let retry_after = errors().filter_map(Error::retry_after).max();
            let Some(pause) = schedule.pause(retry_after) else {
                return results;
            };
            self.note(operation, first, pause);
            tokio::time::sleep(pause).await;
            // The store's batch size may have shrunk since the first attempt.
            let size = batch(&self.capabilities()).max(1);
            for chunk in failed.chunks(size) {
                self.count_attempt(operation);
                let again: Vec<I> = chunk.iter().map(|&at| items[at].clone()).collect();
                let repeated = attempt(&*self.inner, &again, options);
                let Some(answers) = schedule.in_time(repeated).await else {
                    return results;
                };
                if answers.len() != chunk.len() {
                    let error = Error::new(
                        ErrorKind::Unexpected,
                        "the store returned a different number of results for a repeated batch",
                    )
                    .with_operation(operation)
                    .with_store(Arc::clone(&self.store));
                    for &at in chunk {
                        results[at] = Err(error.clone().with_coordinate(name(&items[at])));
                    }
                    continue;
                }
                for (&at, answer) in chunk.iter().zip(answers) {
                    results[at] = answer;
                }
            }
        }
    }

    fn late(&self, operation: Operation) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "no answer within the deadline of {:?}",
                self.options.deadline
            ),
        )
        .with_operation(operation)
        .with_store(Arc::clone(&self.store))
        .with_hint("check the store's health and quota, or raise the deadline")
    }

    fn count_attempt(&self, operation: Operation) {
        self.attempts.of(operation).add(1);
    }

    fn note(&self, operation: Operation, error: &Error, pause: Duration) {
        let labels = [
            ("store", Arc::clone(&self.store).into()),
            ("operation", operation.as_str().into()),
            ("kind", error.kind().as_str().into()),
        ];
        Counter::new("secrets_retries_total", labels).add(1);
        tracing::debug!(
            operation = operation.as_str(),
            kind = error.kind().as_str(),
            pause_ms = pause.as_millis(),
            "the store will be asked again"
        );
    }
}

/// When the attempts of one call are made, and when there are no more.
struct Schedule<'a> {
    options: &'a RetryOptions,
    deadline: Instant,
    pauses: Option<Pauses>,
}

/// Made when the first attempt has failed, which is seldom.
struct Pauses {
    plain: ExponentialBackoff,
    jittered: ExponentialBackoff,
}

impl Pauses {
    fn new(options: &RetryOptions) -> Self {
        let builder = ExponentialBuilder::new()
            .with_factor(2.0)
            .with_min_delay(options.min_pause)
            .with_max_delay(options.max_pause)
            .with_max_times(options.attempts.saturating_sub(1));
        Self {
            plain: builder.build(),
            jittered: builder.with_jitter().build(),
        }
    }

    fn next(&mut self) -> Option<Duration> {
        // backon adds a random part of the delay to the delay; the difference is that part alone:
        // full jitter, which spreads callers that failed together over the whole interval.
        Some(self.jittered.next()?.saturating_sub(self.plain.next()?))
    }
}

impl<'a> Schedule<'a> {
    fn new(options: &'a RetryOptions) -> Self {
        Self {
            options,
            deadline: Instant::now() + options.deadline,
            pauses: None,
        }
    }

    /// The answer of an attempt, if it comes before the deadline.
    async fn in_time<T>(&self, attempt: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.deadline, attempt).await.ok()
    }

    /// The pause before the next attempt, if there is one.
    fn pause(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        let options = self.options;
        let pauses = self.pauses.get_or_insert_with(|| Pauses::new(options));
        let jitter = pauses.next()?;
        // Not before the store asked for, and even then not all at once.
        let pause = retry_after.map_or(jitter, |wait| wait.saturating_add(jitter));
        (Instant::now() + pause < self.deadline).then_some(pause)
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::show(f, "retry", &self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Retry {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.repeat_batch(
            Operation::Read,
            coordinates,
            &(),
            Coordinate::shared,
            |capabilities| capabilities.read_batch,
            |store, chunk, ()| store.read_batch(chunk),
        )
        .await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.repeat_batch(
            Operation::Write,
            writes,
            &(),
            |write| write.coordinate.shared(),
            |capabilities| capabilities.write_batch,
            |store, chunk, ()| store.write_batch(chunk),
        )
        .await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        self.repeat_batch(
            Operation::Delete,
            coordinates,
            options,
            ManagedCoordinate::shared,
            |capabilities| capabilities.delete_batch,
            |store, chunk, options| store.delete_batch(chunk, options),
        )
        .await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.repeat(Operation::Restore, Some(coordinate), || {
            self.inner.restore(coordinate)
        })
        .await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.repeat(Operation::List, None, || {
            self.inner.list_page(options, after)
        })
        .await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.repeat(Operation::Describe, Some(coordinate), || {
            self.inner.describe(coordinate)
        })
        .await
    }

    async fn identity(&self) -> Result<Identity> {
        self.repeat(Operation::Identity, None, || self.inner.identity())
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretPersistenceExt;
    use crate::conformance::{self, Options};
    use crate::layer::probe::{Fault, Probe, coordinate, holding, write};
    use crate::layer::timeout::Timeout;

    fn over(probe: &Arc<Probe>, options: RetryOptions) -> Retry {
        Retry::new(Arc::clone(probe) as _, "probe".into(), options)
    }

    fn names(range: std::ops::Range<usize>) -> Vec<Coordinate> {
        range.map(|n| coordinate(n).into()).collect()
    }

    fn throttled() -> Error {
        Error::new(ErrorKind::Throttled, "slow down")
    }

    #[tokio::test(start_paused = true)]
    async fn every_promise_holds_even_where_every_third_request_fails() {
        let probe = Arc::new(Probe::slow());
        let store: Arc<dyn SecretPersistence> = Arc::new(over(&probe, RetryOptions::default()));
        // The suite itself repeats nothing here.
        let options = Options::default().with_patience(Duration::ZERO);
        conformance::run(&store, &options).await.assert_passed();

        let mut count = 0;
        probe.on_every_request(move |_, _| {
            count += 1;
            match count % 3 {
                0 => Fault::Fail(throttled()),
                _ => Fault::None,
            }
        });
        let patient = RetryOptions::default().with_attempts(30);
        let store: Arc<dyn SecretPersistence> = Arc::new(over(&probe, patient));
        conformance::run(&store, &options).await.assert_passed();
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_entries_that_failed_are_repeated() {
        let probe = holding(Probe::new(), 4).await;
        let mut left = 2;
        probe.on_every_request(move |_, name| {
            if name == coordinate(2).as_str() && left > 0 {
                left -= 1;
                return Fault::Fail(throttled());
            }
            Fault::None
        });
        let store = over(&probe, RetryOptions::default());
        let mut asked = names(0..4);
        asked.push(coordinate(9).into());
        let results = store.read_batch(&asked).await;
        for (n, result) in results[..4].iter().enumerate() {
            assert_eq!(result.as_ref().unwrap().value, write(n).value);
        }
        assert_eq!(results[4].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
        let requests: Vec<usize> = probe
            .requests()
            .iter()
            .map(|request| request.names.len())
            .collect();
        assert_eq!(requests, [5, 1, 1]);
        assert_eq!(probe.requests()[2].names, [coordinate(2).as_str()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_whose_answer_was_lost_is_found_done() {
        let probe = Arc::new(Probe::new());
        let mut first = true;
        probe.on_every_request(move |_, _| {
            if std::mem::take(&mut first) {
                return Fault::Lose(Error::new(ErrorKind::Unavailable, "connection reset"));
            }
            Fault::None
        });
        let store = over(&probe, RetryOptions::default());
        assert_eq!(store.write(write(1)).await.unwrap(), Written::AlreadySame);
        assert_eq!(probe.count(Operation::Write), 2);
        let mut first = true;
        probe.on_every_request(move |_, _| {
            if std::mem::take(&mut first) {
                return Fault::Lose(Error::new(ErrorKind::Unavailable, "connection reset"));
            }
            Fault::None
        });
        let options = DeleteOptions::default();
        store.delete(&coordinate(1), &options).await.unwrap();
        assert_eq!(probe.count(Operation::Delete), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_retryable_is_asked_once() {
        let probe = Arc::new(Probe::new());
        let store = over(&probe, RetryOptions::default());
        for kind in [
            ErrorKind::PermissionDenied,
            ErrorKind::Unauthenticated,
            ErrorKind::Unexpected,
        ] {
            probe.fails_with(kind);
            probe.forget_requests();
            assert_eq!(
                store.describe(&coordinate(1)).await.unwrap_err().kind(),
                kind
            );
            assert_eq!(probe.requests().len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_obeyed() {
        let wait = Duration::from_secs(17);
        let probe = Arc::new(Probe::new());
        let mut first = true;
        probe.on_every_request(move |_, _| {
            if std::mem::take(&mut first) {
                return Fault::Fail(throttled().with_retry_after(wait));
            }
            Fault::None
        });
        let store = over(&probe, RetryOptions::default());
        store.write(write(1)).await.unwrap();
        let requests = probe.requests();
        let pause = requests[1].at - requests[0].at;
        assert!(pause >= wait, "{pause:?}");
        assert!(pause < wait + Duration::from_millis(200), "{pause:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_beyond_the_deadline_is_not_waited_for() {
        let probe = Arc::new(Probe::new());
        probe.on_every_request(|_, _| {
            Fault::Fail(throttled().with_retry_after(Duration::from_secs(3600)))
        });
        let store = over(&probe, RetryOptions::default());
        let started = Instant::now();
        let error = store.write(write(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(probe.requests().len(), 1);
    }

    /// It would have ended the caller's task: no such time can be counted.
    #[tokio::test(start_paused = true)]
    async fn the_longest_retry_after_is_survived() {
        let probe = Arc::new(Probe::new());
        probe.on_every_request(|_, _| Fault::Fail(throttled().with_retry_after(Duration::MAX)));
        let store = over(&probe, RetryOptions::default());
        let error = store.write(write(1)).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Error::LONGEST_WAIT));
        assert_eq!(probe.requests().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_and_deadline_bound_every_call() {
        let probe = Arc::new(Probe::new());
        probe.fails_with(ErrorKind::Unavailable);
        let store = over(&probe, RetryOptions::default().with_attempts(4));
        assert!(store.identity().await.is_err());
        assert_eq!(probe.requests().len(), 4);

        let deadline = Duration::from_secs(5);
        let options = RetryOptions::default()
            .with_attempts(1000)
            .with_deadline(deadline);
        let store = over(&probe, options.clone());
        let started = Instant::now();
        let error = store.read(&coordinate(1).into()).await.unwrap_err();
        assert_eq!(error.message(), "as told");
        assert!(started.elapsed() <= deadline);

        // Nothing below ends what hangs: the deadline does.
        probe.on_every_request(|_, _| Fault::Hang);
        let started = Instant::now();
        let error = store.read(&coordinate(1).into()).await.unwrap_err();
        assert!(error.message().contains("deadline of 5s"), "{error}");
        assert_eq!(error.coordinate(), Some(coordinate(1).as_str()));
        assert_eq!(started.elapsed(), deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_attempt_ends_in_its_own_timeout_and_is_repeated() {
        let probe = holding(Probe::new(), 1).await;
        let mut first = true;
        probe.on_every_request(move |_, _| {
            if std::mem::take(&mut first) {
                return Fault::Hang;
            }
            Fault::None
        });
        let timeout = Duration::from_secs(2);
        let attempts = Timeout::new(Arc::clone(&probe) as _, timeout);
        let store = Retry::new(Arc::new(attempts), "probe".into(), RetryOptions::default());
        let started = Instant::now();
        let read = store.read(&coordinate(0).into()).await.unwrap();
        assert_eq!(read.value, write(0).value);
        assert!(started.elapsed() >= timeout);
        assert!(started.elapsed() < timeout + Duration::from_millis(200));
        assert_eq!(probe.count(Operation::Read), 2);
    }

    #[test]
    fn pauses_are_spread_over_the_whole_interval() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let options = RetryOptions::default();
            let firsts: Vec<Duration> = (0..1000)
                .map(|_| Schedule::new(&options).pause(None).unwrap())
                .collect();
            let part = |from: u64, to: u64| {
                let inside = |pause: &&Duration| {
                    (Duration::from_millis(from)..Duration::from_millis(to)).contains(*pause)
                };
                firsts.iter().filter(inside).count()
            };
            // Uniform over 0 to 100 ms: a quarter in each quarter, give or take.
            for quarter in 0..4 {
                let count = part(quarter * 25, quarter * 25 + 25);
                assert!((150..350).contains(&count), "{count} of 1000");
            }
            let mut schedule = Schedule::new(&options);
            for bound in [100, 200, 400, 800, 1600, 3200, 6400] {
                let pause = schedule.pause(None).unwrap();
                assert!(pause <= Duration::from_millis(bound), "{pause:?} > {bound}");
            }
            assert_eq!(schedule.pause(None), None);
        });
    }
}
