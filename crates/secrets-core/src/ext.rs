//! Extensions of the trait: chunking, bounded concurrency, listing as a stream, sweeping.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::{
    CheckOptions, CheckReport, CheckStep, Coordinate, DeleteOptions, Entry, Error, ErrorKind,
    ListOptions, ManagedCoordinate, Operation, Read, Recovery, Result, SecretPersistence,
    Timestamp, Write, Written,
};

/// The methods that users of a store call. Implemented for every [`SecretPersistence`], including
/// `dyn`.
#[async_trait]
pub trait SecretPersistenceExt: SecretPersistence {
    /// Reads one value.
    async fn read(&self, coordinate: &Coordinate) -> Result<Read> {
        self.read_many(std::slice::from_ref(coordinate))
            .await
            .remove(0)
    }

    /// Reads any number of values: same length and order. Each name is read once, however often it
    /// occurs, with up to [`Capabilities::concurrency`] chunks in flight.
    ///
    /// [`Capabilities::concurrency`]: crate::Capabilities::concurrency
    async fn read_many(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        read_all(self, coordinates).await
    }

    /// Writes one value.
    async fn write(&self, write: Write) -> Result<Written> {
        self.write_many(std::slice::from_ref(&write))
            .await
            .remove(0)
    }

    /// Writes any number of values; each succeeds or fails independently. Same length and order,
    /// with up to [`Capabilities::concurrency`] chunks in flight. A duplicate entry is written
    /// once. One name with two values is an error for both, before any request.
    ///
    /// [`Capabilities::concurrency`]: crate::Capabilities::concurrency
    async fn write_many(&self, writes: &[Write]) -> Vec<Result<Written>> {
        // One name is the usual case, and cannot occur twice.
        if writes.len() <= 1 {
            return write_unique(self, writes).await;
        }
        let (unique, places) = unique_by(writes, |write| &write.coordinate);
        if unique.len() == writes.len() {
            return write_unique(self, writes).await;
        }
        let contradictory: Vec<bool> = {
            let mut contradictory = vec![false; unique.len()];
            for (write, &at) in writes.iter().zip(&places) {
                contradictory[at] |= *write != writes[unique[at]];
            }
            contradictory
        };
        let sent: Vec<usize> = (0..unique.len()).filter(|&at| !contradictory[at]).collect();
        let entries: Vec<Write> = sent.iter().map(|&at| writes[unique[at]].clone()).collect();
        let results = write_unique(self, &entries).await;
        let mut by_unique: Vec<Option<Result<Written>>> = vec![None; unique.len()];
        for (at, result) in sent.into_iter().zip(results) {
            by_unique[at] = Some(result);
        }
        places
            .into_iter()
            .zip(writes)
            .map(|(at, write)| {
                by_unique[at].clone().unwrap_or_else(|| {
                    Err(Error::new(
                        ErrorKind::InvalidValue,
                        "one batch contains two values or two expiries for this name",
                    )
                    .with_operation(Operation::Write)
                    .with_store(self.to_string())
                    .with_coordinate(write.coordinate.shared()))
                })
            })
            .collect()
    }

    /// Deletes one value, immediately or after the store's recovery window.
    ///
    /// # Errors
    /// Not for a name that is missing or already scheduled for deletion.
    async fn delete(&self, coordinate: &ManagedCoordinate, options: &DeleteOptions) -> Result<()> {
        delete_unique(self, std::slice::from_ref(coordinate), options)
            .await
            .remove(0)
    }

    /// Deletes any number of values; each succeeds or fails independently. Same length and order,
    /// with up to [`Capabilities::concurrency`] chunks in flight. Each name is deleted once, however
    /// often it occurs.
    ///
    /// [`Capabilities::concurrency`]: crate::Capabilities::concurrency
    async fn delete_many(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let (unique, places) = unique_by(coordinates, |coordinate| coordinate);
        if unique.len() == coordinates.len() {
            return delete_unique(self, coordinates, options).await;
        }
        let names: Vec<_> = unique.iter().map(|&at| coordinates[at].clone()).collect();
        let results = delete_unique(self, &names, options).await;
        places.into_iter().map(|at| results[at].clone()).collect()
    }

    /// Lists managed names, page after page. External names are skipped.
    fn list<'a>(&'a self, options: &'a ListOptions) -> BoxStream<'a, Result<Entry>> {
        enum Next {
            First,
            After(crate::Cursor),
            End,
        }
        // A listing may go round in a circle of any length: Brent's algorithm finds it with one cursor
        // remembered, which is replaced after 1, 2, 4, 8 … pages.
        struct Walk {
            next: Next,
            remembered: Option<crate::Cursor>,
            pages: u64,
            until: u64,
        }
        let start = Walk {
            next: Next::First,
            remembered: None,
            pages: 0,
            until: 1,
        };
        stream::try_unfold(start, move |mut walk| async move {
            let cursor = match walk.next {
                Next::First => None,
                Next::After(cursor) => Some(cursor),
                Next::End => return Ok(None),
            };
            let page = self.list_page(options, cursor.as_ref()).await?;
            if page.next.is_some() && (page.next == cursor || page.next == walk.remembered) {
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    "the store's listing does not move on: it returned the same cursor again",
                )
                .with_operation(Operation::List)
                .with_store(self.to_string()));
            }
            walk.pages += 1;
            if walk.pages == walk.until {
                walk.until = walk.until.saturating_mul(2);
                walk.pages = 0;
                walk.remembered.clone_from(&page.next);
            }
            walk.next = page.next.map_or(Next::End, Next::After);
            let entries = stream::iter(page.entries.into_iter().map(Ok));
            Ok(Some((entries, walk)))
        })
        .try_flatten()
        .boxed()
    }

    /// Deletes the secrets of `owner` that have expired at `now`: the collector of ephemeral
    /// secrets.
    ///
    /// Secrets that the store marks with another owner are kept and counted; those without an owner
    /// are deleted. A failure does not stop the others.
    ///
    /// # Errors
    /// If the listing fails; `Unsupported` if the store does not store expiry or cannot list.
    async fn sweep(&self, now: Timestamp, owner: Option<&str>) -> Result<Sweep> {
        let options = ListOptions::default().with_details(true);
        let delete = DeleteOptions::default().with_recovery(Recovery::Immediate);
        let capabilities = self.capabilities();
        let expired = self.list(&options).try_filter(move |entry| {
            let expired = entry.expires.is_some_and(|expires| expires <= now);
            futures::future::ready(expired && !entry.pending_deletion)
        });
        let mut sweep = Sweep::default();
        let ours = expired.try_filter_map(|entry| {
            let foreign = match (&entry.owner, owner) {
                (Some(theirs), Some(ours)) => theirs != ours,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if foreign {
                sweep.foreign.push(entry.coordinate);
                return futures::future::ok(None);
            }
            futures::future::ok(Some(entry.coordinate))
        });
        let mut outcomes = ours
            .try_chunks(capabilities.delete_batch.max(1))
            .map_err(|failed| failed.1)
            .map_ok(|chunk| {
                let delete = &delete;
                async move {
                    let results = delete_unique(self, &chunk, delete).await;
                    Ok((chunk, results))
                }
            })
            .try_buffer_unordered(capabilities.concurrency.max(1));
        let (mut deleted, mut failed) = (Vec::new(), Vec::new());
        while let Some((chunk, results)) = outcomes.try_next().await? {
            for (coordinate, result) in chunk.into_iter().zip(results) {
                match result {
                    Ok(()) => deleted.push(coordinate),
                    Err(error) => failed.push(error),
                }
            }
        }
        drop(outcomes);
        (sweep.deleted, sweep.failed) = (deleted, failed);
        Ok(sweep)
    }

    /// Checks the store end to end with one test secret: gets the identity, writes the secret,
    /// reads it, describes its tags, key and expiry, lists it, deletes it.
    ///
    /// Every step runs whatever the outcome of the others, and none is retried: the report shows
    /// what the store answered. The test secret has a random name and a random value, and expires
    /// within an hour if the store supports expiry. It stays only if the options say so, or if the
    /// report says that it could not be deleted.
    ///
    /// ```
    /// use secret_persistence_core::{CheckOptions, Memory, SecretPersistenceExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let report = Memory::new().check(&CheckOptions::default()).await;
    /// println!("{report}");
    /// assert_eq!(report.summary(), "works");
    /// # }
    /// ```
    async fn check(&self, options: &CheckOptions) -> CheckReport {
        crate::check::check(self, options, &|_| ()).await
    }

    /// Like [`check`](Self::check), but reports each step as it ends: if a server does not answer,
    /// each one takes a while.
    async fn check_telling(
        &self,
        options: &CheckOptions,
        told: &(dyn for<'s> Fn(&'s CheckStep) + Send + Sync),
    ) -> CheckReport {
        crate::check::check(self, options, told).await
    }
}

impl<T: SecretPersistence + ?Sized> SecretPersistenceExt for T {}

/// The result of a sweep.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Sweep {
    /// Expired and deleted.
    pub deleted: Vec<ManagedCoordinate>,
    /// Expired, and could not be deleted.
    pub failed: Vec<Error>,
    /// Expired, but kept because they are marked with another owner.
    pub foreign: Vec<ManagedCoordinate>,
}

/// [`SecretPersistenceExt::read_many`] without the box of the trait's future.
pub(crate) async fn read_all<S: SecretPersistence + ?Sized>(
    store: &S,
    coordinates: &[Coordinate],
) -> Vec<Result<Read>> {
    if all_different(coordinates) {
        return read_unique(store, coordinates).await;
    }
    let (unique, places) = unique_by(coordinates, |coordinate| coordinate);
    let names: Vec<Coordinate> = unique.iter().map(|&at| coordinates[at].clone()).collect();
    let results = read_unique(store, &names).await;
    places.into_iter().map(|at| results[at].clone()).collect()
}

/// Reads names that are all different.
async fn read_unique<S: SecretPersistence + ?Sized>(
    store: &S,
    names: &[Coordinate],
) -> Vec<Result<Read>> {
    let capabilities = store.capabilities();
    fan_out(
        names,
        capabilities.read_batch,
        capabilities.concurrency,
        |chunk| async move {
            let results = store.read_batch(chunk).await;
            checked_length(results, chunk, Coordinate::shared, || {
                Error::new(
                    ErrorKind::Unexpected,
                    "the store returned a different number of results than reads",
                )
                .with_operation(Operation::Read)
                .with_store(store.to_string())
            })
        },
    )
    .await
}

/// Writes names that are all different.
pub(crate) async fn write_unique<S: SecretPersistence + ?Sized>(
    store: &S,
    writes: &[Write],
) -> Vec<Result<Written>> {
    let capabilities = store.capabilities();
    fan_out(
        writes,
        capabilities.write_batch,
        capabilities.concurrency,
        |chunk| async move {
            let results = store.write_batch(chunk).await;
            let name = |write: &Write| write.coordinate.shared();
            checked_length(results, chunk, name, || {
                Error::new(
                    ErrorKind::Unexpected,
                    "the store answered another number of writes",
                )
                .with_operation(Operation::Write)
                .with_store(store.to_string())
            })
        },
    )
    .await
}

async fn delete_unique<S: SecretPersistence + ?Sized>(
    store: &S,
    names: &[ManagedCoordinate],
    options: &DeleteOptions,
) -> Vec<Result<()>> {
    let capabilities = store.capabilities();
    fan_out(
        names,
        capabilities.delete_batch,
        capabilities.concurrency,
        |chunk| async move {
            let results = store.delete_batch(chunk, options).await;
            checked_length(results, chunk, ManagedCoordinate::shared, || {
                Error::new(
                    ErrorKind::Unexpected,
                    "the store returned a different number of results than deletes",
                )
                .with_operation(Operation::Delete)
                .with_store(store.to_string())
            })
        },
    )
    .await
}

/// Processes chunks of `items`, at most `concurrency` concurrently; results in the items' order.
async fn fan_out<'a, T: Sync, R: Send, Chunk: Future<Output = Vec<R>> + Send>(
    items: &'a [T],
    chunk_size: usize,
    concurrency: usize,
    run: impl Fn(&'a [T]) -> Chunk + Send,
) -> Vec<R> {
    // One chunk needs no machinery, and is the usual case.
    if items.len() <= chunk_size.max(1) {
        return if items.is_empty() {
            Vec::new()
        } else {
            run(items).await
        };
    }
    let chunks: Vec<_> = items
        .chunks(chunk_size.max(1))
        .map(run)
        .enumerate()
        .map(|(at, chunk)| chunk.map(move |results| (at, results)))
        .collect();
    // In the order in which they end: a slow chunk must not delay those after it.
    let mut results: Vec<(usize, Vec<R>)> = stream::iter(chunks)
        .buffer_unordered(concurrency.max(1))
        .collect()
        .await;
    results.sort_unstable_by_key(|(at, _)| *at);
    results
        .into_iter()
        .flat_map(|(_, results)| results)
        .collect()
}

/// The number of names up to which comparing each with each takes less than hashing them.
const FEW: usize = 8;

/// Whether no name occurs twice, the usual case.
fn all_different(names: &[Coordinate]) -> bool {
    if names.len() > FEW {
        let mut seen = HashSet::with_capacity(names.len());
        return names.iter().all(|name| seen.insert(name.as_str()));
    }
    let mut rest = names;
    while let [name, others @ ..] = rest {
        if others.contains(name) {
            return false;
        }
        rest = others;
    }
    true
}

/// The index of the first occurrence of each key, and for every item the index of its key.
fn unique_by<'a, T, K: Eq + std::hash::Hash + 'a>(
    items: &'a [T],
    key: impl Fn(&'a T) -> &'a K,
) -> (Vec<usize>, Vec<usize>) {
    let mut first: HashMap<&K, usize> = HashMap::with_capacity(items.len());
    let mut unique = Vec::with_capacity(items.len());
    let places = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            *first.entry(key(item)).or_insert_with(|| {
                unique.push(index);
                unique.len() - 1
            })
        })
        .collect();
    (unique, places)
}

/// If a store returns another number of results than requested, no result can be used.
fn checked_length<T, R>(
    results: Vec<Result<R>>,
    chunk: &[T],
    name: impl Fn(&T) -> std::sync::Arc<str>,
    error: impl Fn() -> Error,
) -> Vec<Result<R>> {
    if results.len() == chunk.len() {
        return results;
    }
    chunk
        .iter()
        .map(|item| Err(error().with_coordinate(name(item))))
        .collect()
}
