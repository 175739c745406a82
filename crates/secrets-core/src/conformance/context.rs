//! The context of a case: the store, unique names and values, and a list of what to clean up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::Options;
use crate::{
    Capabilities, Coordinate, DeleteOptions, Entry, Error, ErrorKind, ListOptions, Listing,
    ManagedCoordinate, Operation, Read, Recovery, Result, Scope, SecretPersistence,
    SecretPersistenceExt, SecretValue, Write, Written,
};

/// Why a case ends early.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(String),
    NotApplicable(String),
}

/// The result of a case, or of a step of it.
pub(super) type Verdict<T = ()> = std::result::Result<T, Stop>;

/// Fails the case unless a condition is true.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::context::Stop::Failed(format!($($message)+)));
        }
    };
}
pub(super) use ensure;

/// Ends the case as not applicable.
macro_rules! not_applicable {
    ($($reason:tt)+) => {
        return Err($crate::conformance::context::Stop::NotApplicable(format!($($reason)+)))
    };
}
pub(super) use not_applicable;

/// The part of the store that belongs to one case.
#[derive(Debug)]
pub(super) struct Context {
    /// The tested store.
    pub(super) store: Arc<dyn SecretPersistence>,
    /// The store that executes changes: the same, unless only the reading half is tested.
    pub(super) writer: Arc<dyn SecretPersistence>,
    pub(super) options: Options,
    pub(super) scope: Scope,
    written: Mutex<Vec<ManagedCoordinate>>,
    externals: Mutex<Vec<Coordinate>>,
}

impl Context {
    pub(super) fn new(
        store: Arc<dyn SecretPersistence>,
        writer: Arc<dyn SecretPersistence>,
        options: Options,
    ) -> Self {
        Self {
            store,
            writer,
            options,
            // The prefix is fixed, short and consists of permitted characters, so it cannot be
            // refused.
            scope: Scope::new("conformance_", Uuid::new_v4())
                .unwrap_or_else(|_| Scope::workspace(Uuid::new_v4())),
            written: Mutex::default(),
            externals: Mutex::default(),
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    /// A new name of this case.
    pub(super) fn name(&self) -> ManagedCoordinate {
        self.version_of(Uuid::new_v4(), 1)
    }

    /// A name of this case with a version.
    pub(super) fn version_of(&self, id: Uuid, version: i64) -> ManagedCoordinate {
        let name = format!("{}_secret_{}_v{version}", self.scope, id.hyphenated());
        self.own(&name)
    }

    /// A name of this case, unchanged, recorded for cleaning up.
    ///
    /// # Panics
    /// If the name is invalid, which is a defect of the suite.
    pub(super) fn own(&self, name: &str) -> ManagedCoordinate {
        let coordinate = ManagedCoordinate::parse(name)
            .unwrap_or_else(|error| panic!("the suite made an invalid name: {error}"));
        self.written.lock().push(coordinate.clone());
        coordinate
    }

    /// All names that this case has created.
    pub(super) fn names(&self) -> Vec<ManagedCoordinate> {
        self.written.lock().clone()
    }

    /// A unique value.
    pub(super) fn value(&self) -> SecretValue {
        SecretValue::new(format!("canary {}", Uuid::new_v4().simple()))
    }

    /// Writes a new name with a value.
    pub(super) async fn written(&self) -> Verdict<Write> {
        let write = Write::new(self.name(), self.value());
        self.create(&write).await?;
        Ok(write)
    }

    /// Writes `count` new names with values.
    pub(super) async fn written_many(&self, count: usize) -> Verdict<Vec<Write>> {
        let concurrency = self.writer.capabilities().concurrency.clamp(1, 16);
        let all: Vec<Verdict<Write>> = stream::iter(0..count)
            .map(|_| self.written())
            .buffered(concurrency)
            .collect()
            .await;
        all.into_iter().collect()
    }

    /// Writes a new name.
    pub(super) async fn create(&self, write: &Write) -> Verdict {
        match self.write(write).await {
            // A retry after a lost response finds the existing value.
            Ok(_) => Ok(()),
            Err(error) => failed(format!("a new value was not written: {error}")),
        }
    }

    /// One write, as a batch of one.
    pub(super) async fn write(&self, write: &Write) -> Result<Written> {
        self.retrying(|| async {
            let results = self.writer.write_batch(std::slice::from_ref(write)).await;
            one_of(results, Operation::Write)
        })
        .await
    }

    /// One read, as a batch of one.
    pub(super) async fn read(&self, coordinate: &Coordinate) -> Result<Read> {
        read_from(self, &self.store, coordinate).await
    }

    /// One read of a managed name.
    pub(super) async fn read_managed(&self, coordinate: &ManagedCoordinate) -> Result<Read> {
        self.read(&coordinate.clone().into()).await
    }

    /// Sends one batch. Entries that failed in a retryable way are read again, one by one.
    pub(super) async fn read_batch(
        &self,
        coordinates: &[Coordinate],
    ) -> Verdict<Vec<Result<Read>>> {
        let mut results = self.store.read_batch(coordinates).await;
        ensure!(
            results.len() == coordinates.len(),
            "a batch of {} reads got {} results",
            coordinates.len(),
            results.len()
        );
        for (result, coordinate) in results.iter_mut().zip(coordinates) {
            if result.as_ref().is_err_and(Error::is_retryable) {
                *result = self.read(coordinate).await;
            }
        }
        Ok(results)
    }

    /// Sends one batch. Entries that failed in a retryable way are written again, one by one.
    pub(super) async fn write_batch(&self, writes: &[Write]) -> Verdict<Vec<Result<Written>>> {
        let mut results = self.writer.write_batch(writes).await;
        ensure!(
            results.len() == writes.len(),
            "a batch of {} writes got {} results",
            writes.len(),
            results.len()
        );
        for (result, write) in results.iter_mut().zip(writes) {
            if result.as_ref().is_err_and(Error::is_retryable) {
                *result = self.write(write).await;
            }
        }
        Ok(results)
    }

    pub(super) async fn delete(
        &self,
        coordinate: &ManagedCoordinate,
        recovery: Recovery,
    ) -> Result<()> {
        let options = DeleteOptions::default().with_recovery(recovery);
        self.retrying(|| self.writer.delete(coordinate, &options))
            .await
    }

    pub(super) async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.retrying(|| self.store.describe(coordinate)).await
    }

    /// Reads every page of a listing and checks its size.
    pub(super) async fn list(&self, options: &ListOptions) -> Verdict<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut cursor = None;
        loop {
            let page = self
                .retrying(|| self.store.list_page(options, cursor.as_ref()))
                .await;
            let page = passed(page, "a page of the listing")?;
            if let Some(limit) = options.page_size {
                ensure!(
                    page.entries.len() <= limit,
                    "a page of at most {limit} entries has {}",
                    page.entries.len()
                );
            }
            ensure!(
                page.next.is_none() || page.next != cursor,
                "the listing returns the same cursor again"
            );
            entries.extend(page.entries);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(entries),
            }
        }
    }

    pub(super) fn listing_of_scope(&self) -> ListOptions {
        ListOptions::default()
            .with_prefix(self.scope.to_string())
            .with_page_size(self.options.page_size)
    }

    /// Waits until the listing shows `expected`, which is sorted, for as long as the listing may
    /// lag. It may be late with the names in `possible`, but must never show any other name, or one
    /// twice.
    pub(super) async fn until_listed(
        &self,
        options: &ListOptions,
        expected: &[ManagedCoordinate],
        possible: &[ManagedCoordinate],
    ) -> Verdict<Shown> {
        let lag = self.lag();
        loop {
            let entries = self.list(options).await?;
            let mut names: Vec<_> = entries.into_iter().map(|entry| entry.coordinate).collect();
            names.sort();
            if names == expected {
                return Ok(Shown::All);
            }
            let complaint = || {
                format!(
                    "of {} names the listing shows {}, {} of them expected",
                    expected.len(),
                    names.len(),
                    names.iter().filter(|name| expected.contains(name)).count()
                )
            };
            ensure!(
                names.windows(2).all(|pair| pair[0] != pair[1])
                    && names.iter().all(|name| possible.contains(name)),
                "{}",
                complaint()
            );
            if lag.wait(complaint).await? == Wait::Over {
                return Ok(Shown::NotYet(complaint()));
            }
        }
    }

    /// How long to wait for a listing of this store: not at all if it is immediate. The delay of
    /// other listings is not documented, so the end of this wait fails nothing.
    pub(super) fn lag(&self) -> Patience {
        match self.capabilities().listing {
            Listing::Immediate => self.patience_of(Duration::ZERO),
            _ => Patience {
                must_end: false,
                ..self.patience_of(self.options.list_lag)
            },
        }
    }

    /// How long a state may take to settle.
    pub(super) fn patience(&self) -> Patience {
        self.patience_of(self.options.patience)
    }

    fn patience_of(&self, patience: Duration) -> Patience {
        Patience {
            deadline: Instant::now() + patience,
            interval: self.options.poll_interval,
            must_end: true,
        }
    }

    /// Stores a value through the outsider.
    pub(super) async fn insert_external(&self, value: &SecretValue) -> Verdict<Coordinate> {
        let Some(outsider) = &self.options.outsider else {
            not_applicable!(
                "the options do not contain an outsider, which stores external secrets"
            );
        };
        let name = format!("conformance-{}", Uuid::new_v4());
        match outsider.insert(&name, value).await {
            Ok(coordinate) => {
                self.externals.lock().push(coordinate.clone());
                Ok(coordinate)
            }
            Err(error) if error.kind() == ErrorKind::InvalidValue => {
                not_applicable!("the store cannot contain such a value: {error}")
            }
            Err(error) => failed(format!("the outsider could not store a value: {error}")),
        }
    }

    /// Retries retryable failures within the options' patience.
    pub(super) async fn retrying<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + self.options.patience;
        loop {
            match attempt().await {
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    let pause = error.retry_after().unwrap_or(self.options.poll_interval);
                    tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
                }
                other => return other,
            }
        }
    }

    /// Deletes everything that the case may have written.
    pub(super) async fn clean_up(&self) -> std::result::Result<(), String> {
        let concurrency = self.writer.capabilities().concurrency.clamp(1, 16);
        let names = self.names();
        let mut failures: Vec<String> = stream::iter(&names)
            .map(|name| self.delete(name, Recovery::Immediate))
            .buffer_unordered(concurrency)
            .filter_map(async |result| result.err().map(|error| error.to_string()))
            .collect()
            .await;
        if let Some(outsider) = &self.options.outsider {
            let externals = self.externals.lock().clone();
            for coordinate in &externals {
                if let Err(error) = outsider.remove(coordinate).await {
                    failures.push(error.to_string());
                }
            }
        }
        match failures.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} secrets remain: {first}", failures.len())),
        }
    }
}

/// A bounded wait.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Instant,
    interval: Duration,
    /// Whether the store guarantees the expected state within this time.
    must_end: bool,
}

/// Whether there is time left to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    More,
    Over,
}

impl Patience {
    /// Waits a moment. If no time is left, fails the case if the store guarantees the expected
    /// state.
    pub(super) async fn wait(&self, complaint: impl FnOnce() -> String) -> Verdict<Wait> {
        if Instant::now() < self.deadline {
            tokio::time::sleep(self.interval).await;
            Ok(Wait::More)
        } else if self.must_end {
            failed(complaint())
        } else {
            Ok(Wait::Over)
        }
    }
}

/// The state of a listing at the end of a wait.
#[derive(Debug)]
#[must_use]
pub(super) enum Shown {
    All,
    /// Incomplete, which is allowed if a listing may lag, and how much is missing.
    NotYet(String),
}

impl Shown {
    /// Ends the case if the listing lagged behind: no fault was seen, but not everything was
    /// either.
    pub(super) fn or_not_applicable(self, options: &Options) -> Verdict {
        match self {
            Self::All => Ok(()),
            Self::NotYet(how) => not_applicable!(
                "the listing may lag and did for {} s, without a fault so far: {how}",
                options.list_lag.as_secs_f32()
            ),
        }
    }
}

pub(super) fn failed<T>(message: String) -> Verdict<T> {
    Err(Stop::Failed(message))
}

/// The value of a success. Fails the case otherwise.
pub(super) fn passed<T>(result: Result<T>, what: &str) -> Verdict<T> {
    result.or_else(|error| failed(format!("{what} failed: {error}")))
}

/// Checks that a read returned this value.
pub(super) fn reads_as(result: Result<Read>, value: &SecretValue, what: &str) -> Verdict {
    let read = passed(result, what)?;
    // Never print values, not even generated ones.
    ensure!(
        read.value == *value,
        "{what} returned another value ({} bytes instead of {})",
        read.value.len(),
        value.len()
    );
    Ok(())
}

/// Checks that a call was refused for one of these reasons.
pub(super) fn refused<T>(result: Result<T>, kinds: &[ErrorKind], what: &str) -> Verdict<Error> {
    let expected = || {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        names.join(" or ")
    };
    match result {
        Ok(_) => failed(format!("{what} succeeded instead of {}", expected())),
        Err(error) if kinds.contains(&error.kind()) => Ok(error),
        Err(error) => failed(format!("{what} is not {}: {error}", expected())),
    }
}

/// Reads once through another handle.
pub(super) async fn read_from(
    context: &Context,
    store: &Arc<dyn SecretPersistence>,
    coordinate: &Coordinate,
) -> Result<Read> {
    context
        .retrying(|| async {
            let results = store.read_batch(std::slice::from_ref(coordinate)).await;
            one_of(results, Operation::Read)
        })
        .await
}

fn one_of<T>(mut results: Vec<Result<T>>, operation: Operation) -> Result<T> {
    match results.pop() {
        Some(result) if results.is_empty() => result,
        _ => Err(Error::new(
            ErrorKind::Unexpected,
            "a batch of one did not return one result",
        )
        .with_operation(operation)),
    }
}
