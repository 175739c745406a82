//! Compares the values of a name in both stores and decides what a copy does.
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use secret_persistence_core::{
    Coordinate, Error, ErrorKind, Expiry, ManagedCoordinate, Read, Result, SecretPersistence,
    SecretPersistenceExt, SecretValue, Timestamp, Write,
};

use crate::scan::coordinates;
use crate::session::{Meter, Session, by_key};
use crate::shared::Held;
use crate::{
    Class, Difference, Expiring, Failure, Finding, JournalEntry, MigrateResult, PendingDeletion,
};

/// One secret on both sides at one moment.
pub(super) struct Pair {
    pub(super) entry: JournalEntry,
    pub(super) source: Side,
    pub(super) target: Side,
}

/// The state of a name in a store.
pub(super) enum Side {
    /// It could not be read.
    Failed(Error),
    /// Missing, or present but unreadable, such as deleted or expired.
    Gone(Error),
    /// A value.
    Has(Read),
}

impl Side {
    pub(super) fn of(result: Result<Read>) -> Self {
        match result {
            Ok(read) => Self::Has(read),
            Err(error) if error.kind().is_gone() => Self::Gone(error),
            Err(error) => Self::Failed(error),
        }
    }

    fn value(&self) -> Option<&SecretValue> {
        match self {
            Self::Has(read) => Some(&read.value),
            Self::Failed(_) | Self::Gone(_) => None,
        }
    }
}

impl Pair {
    /// Whether both sides have the same value.
    pub(super) fn is_equal(&self) -> bool {
        self.source.value().is_some() && self.source.value() == self.target.value()
    }

    /// How the two sides differ, if they do.
    pub(super) fn difference(&self) -> Option<&'static str> {
        match (&self.source, &self.target) {
            _ if self.is_equal() => None,
            (Side::Gone(_), _) => Some("it is no longer in the source"),
            (_, Side::Gone(_)) => Some("it is not in the target"),
            _ => Some("source and target have different values"),
        }
    }

    /// The same for the observer. `None` if neither side has it, or one could not be read.
    pub(super) fn compared(&self) -> Option<Difference> {
        match (&self.source, &self.target) {
            (Side::Has(_), Side::Has(_)) if self.is_equal() => Some(Difference::Equal),
            (Side::Has(_), Side::Has(_)) => Some(Difference::Different),
            (Side::Has(_), Side::Gone(_)) => Some(Difference::Missing),
            (Side::Gone(_), Side::Has(_)) => Some(Difference::Unexpected),
            _ => None,
        }
    }

    /// The failure of the side that could not be read.
    pub(super) fn failure(&self) -> Option<Failure> {
        [&self.source, &self.target]
            .into_iter()
            .find_map(|side| match side {
                Side::Failed(error) => Some(Failure::of(error)),
                Side::Gone(_) | Side::Has(_) => None,
            })
    }
}

/// A secret that could not be handled, and why.
pub(super) struct Failed {
    pub(super) entry: JournalEntry,
    pub(super) failure: Failure,
}

/// What a copy does with one secret.
pub(super) enum Step {
    /// The configuration that mentioned it has changed since it was read.
    Changed(JournalEntry),
    /// The target has another value.
    Conflict(JournalEntry),
    /// It could not be handled.
    Failed(Failed),
    /// No configuration mentions it, and it is not in the source.
    Forgotten(JournalEntry),
    /// The target had no such secret, we wrote it (or intended to), and it is equal.
    Landed(JournalEntry),
    /// The target has an equal value that we did not write.
    Present(JournalEntry),
    /// The target has scheduled it for deletion, and the operator decided to restore it.
    Restore(JournalEntry, SecretValue),
    /// It is skipped, with the finding that needs a decision, if any.
    Skip(JournalEntry, Option<Finding>),
    /// We wrote it (or intended to), and the source has deleted it since.
    Withdraw(JournalEntry),
    /// It is missing in the target.
    Write(JournalEntry, Write),
}

impl Session<'_> {
    /// Reads both sides of a unit together. With a meter, it reports as progress what both sides
    /// have read.
    pub(super) async fn pairs(
        &self,
        entries: Vec<JournalEntry>,
        meter: Option<&Meter<'_>>,
        held: Option<&Held<'_>>,
    ) -> Vec<Pair> {
        let names: Vec<ManagedCoordinate> = entries
            .iter()
            .map(|entry| entry.coordinate.clone())
            .collect();
        let names = coordinates(&names);
        let both = Mutex::new([0_usize; 2]);
        let read = |side: usize| {
            let both = &both;
            move |secrets: usize| {
                if let Some(held) = held {
                    held.progressed();
                }
                let mut both = both.lock();
                let before = both[0].min(both[1]);
                both[side] += secrets;
                if let Some(meter) = meter {
                    meter.passed(both[0].min(both[1]) - before);
                }
            }
        };
        let (source_read, target_read) = (read(0), read(1));
        let (source, target) = futures::join!(
            read_counting(&*self.source, &names, &source_read),
            read_counting(&*self.target, &names, &target_read)
        );
        entries
            .into_iter()
            .zip(source.into_iter().zip(target))
            .map(|(entry, (source, target))| Pair {
                entry,
                source: Side::of(source),
                target: Side::of(target),
            })
            .collect()
    }

    /// Decides what to do with each secret of a unit.
    pub(super) async fn steps(
        &self,
        scan: u64,
        pairs: Vec<Pair>,
        held: Option<&Held<'_>>,
    ) -> Vec<Step> {
        let now = Timestamp::now();
        // Concurrently, because each one may have to ask the source for its expiry.
        join_all(pairs.into_iter().map(|pair| async move {
            let step = self.step(scan, now, pair).await;
            if let Some(held) = held {
                held.progressed();
            }
            step
        }))
        .await
    }

    async fn step(&self, scan: u64, now: Timestamp, pair: Pair) -> Step {
        if let Some(failure) = pair.failure() {
            let entry = pair.entry;
            return Step::Failed(Failed { entry, failure });
        }
        let equal = pair.is_equal();
        let Pair {
            entry,
            source,
            target,
        } = pair;
        let read = match (source, &target) {
            (Side::Has(read), _) => read,
            (Side::Gone(error), _) if self.was_mentioned(scan, &entry) => {
                return self.missing(entry, error.kind()).await;
            }
            // The target has it because of us, the source has deleted it, and no configuration
            // mentions it.
            (Side::Gone(_), Side::Has(_)) if entry.intent && !self.is_left(&entry.coordinate) => {
                return Step::Withdraw(entry);
            }
            _ => return Step::Forgotten(entry),
        };
        match target {
            Side::Has(_) if equal && entry.intent => Step::Landed(entry),
            Side::Has(_) if equal => Step::Present(entry),
            Side::Has(_) => Step::Conflict(entry),
            Side::Gone(error) if error.kind() == ErrorKind::PendingDeletion => {
                self.pending_deletion(entry, read.value)
            }
            Side::Gone(_) | Side::Failed(_) => self.write_step(entry, read, now).await,
        }
    }

    /// A secret that a configuration mentioned and the source does not have. The configuration may
    /// have been saved since it was read, and its old secret deleted.
    async fn missing(&self, entry: JournalEntry, kind: ErrorKind) -> Step {
        match self.is_mentioned(&entry).await {
            Ok(true) => {}
            Ok(false) => return Step::Changed(entry),
            Err(error) => {
                let failure = Failure {
                    coordinate: Some(entry.coordinate.to_string()),
                    configuration: entry.holder.clone(),
                    place: None,
                    kind: error.kind().as_str().to_owned(),
                    message: error.to_string(),
                };
                return Step::Failed(Failed { entry, failure });
            }
        }
        let finding = if kind == ErrorKind::PendingDeletion {
            Finding::of(Class::Recoverable, entry.coordinate.as_str()).with_detail(
                "the source has scheduled it for deletion: restore it there (undelete, recover, \
                 restore-secret), then copy again",
            )
        } else {
            Finding::of(Class::Missing, entry.coordinate.as_str())
        };
        let finding = finding
            .in_holder(entry.holder.as_deref())
            .with_kind(kind.as_str());
        Step::Skip(entry, Some(finding))
    }

    /// Whether a configuration mentioned a secret when the scan read it.
    pub(super) fn was_mentioned(&self, scan: u64, entry: &JournalEntry) -> bool {
        entry.scan == scan && !self.orphans.lock().contains(&entry.coordinate)
    }

    /// Whether the configuration that mentioned a secret still does, in its current state.
    pub(super) async fn is_mentioned(&self, entry: &JournalEntry) -> MigrateResult<bool> {
        let Some((source, id)) = entry
            .holder
            .as_deref()
            .and_then(|key| by_key(self.configs, key))
        else {
            return Ok(true);
        };
        let Some(row) = source.row(id).await? else {
            return Ok(false);
        };
        let holdings = self.holdings(source, vec![row]).await?;
        Ok(holdings.iter().any(|holding| {
            !holding.problems.is_empty()
                || holding.held.iter().any(|held| {
                    held.coordinate().and_then(Coordinate::managed) == Some(&entry.coordinate)
                })
        }))
    }

    fn pending_deletion(&self, entry: JournalEntry, value: SecretValue) -> Step {
        match self.options.decisions.pending_deletion {
            Some(PendingDeletion::Restore) => Step::Restore(entry, value),
            Some(PendingDeletion::Skip) | None => {
                let finding = Finding::of(Class::PendingDeletion, entry.coordinate.as_str())
                    .in_holder(entry.holder.as_deref())
                    .with_detail(
                        "the target has scheduled this name for deletion; \
                         restore it, or wait until it is gone",
                    );
                Step::Skip(entry, Some(finding))
            }
        }
    }

    async fn write_step(&self, entry: JournalEntry, read: Read, now: Timestamp) -> Step {
        let expires = match self.expiry(&entry.coordinate, &read).await {
            Ok(expires) => expires,
            Err(error) => {
                let failure = Failure::of(&error);
                return Step::Failed(Failed { entry, failure });
            }
        };
        if expires.is_some_and(|expires| expires <= now) {
            return Step::Skip(entry, None);
        }
        let capabilities = self.target.capabilities();
        let mut write = Write::new(entry.coordinate.clone(), read.value).with_expires(expires);
        if capabilities.expiry == Expiry::None && expires.is_some() {
            if self.options.decisions.expiring != Some(Expiring::DropExpiry) {
                let finding = Finding::of(Class::Expiring, entry.coordinate.as_str())
                    .in_holder(entry.holder.as_deref());
                return Step::Skip(entry, Some(finding));
            }
            write.expires = None;
        }
        match capabilities.accepts(&write) {
            Ok(()) => Step::Write(entry, write),
            // Only the kind: the message for a value that is too large contains its length.
            Err(error) => {
                let finding = Finding::of(Class::Unfit, entry.coordinate.as_str())
                    .in_holder(entry.holder.as_deref())
                    .with_kind(error.kind().as_str());
                Step::Skip(entry, Some(finding))
            }
        }
    }

    /// Whether the target still has a name without a value: Google does if a version was destroyed.
    /// Nothing can be written under such a name.
    pub(super) async fn is_hollow(&self, entry: &JournalEntry, error: &Error) -> bool {
        error.kind() == ErrorKind::NotFound
            && self.target.describe(&entry.coordinate).await.is_ok()
            // It may have been written between the two requests.
            && self
                .target
                .read(&entry.coordinate.clone().into())
                .await
                .is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// The expiry of a secret, from the read, or from `describe` if the store's reads do not return
    /// it.
    pub(super) async fn expiry(
        &self,
        coordinate: &ManagedCoordinate,
        read: &Read,
    ) -> Result<Option<Timestamp>> {
        let capabilities = self.source.capabilities();
        if read.expires.is_some()
            || capabilities.reads_expiry
            || capabilities.expiry == Expiry::None
        {
            return Ok(read.expires);
        }
        Ok(self.source.describe(coordinate).await?.expires)
    }
}

/// Reads in batches of the store's size and reports each. The store's limit bounds the requests in
/// flight.
async fn read_counting(
    store: &dyn SecretPersistence,
    names: &[Coordinate],
    read: &(dyn Fn(usize) + Sync),
) -> Vec<Result<Read>> {
    let batch = store.capabilities().read_batch.max(1);
    let mut chunks: Vec<BoxFuture<'_, Vec<Result<Read>>>> =
        Vec::with_capacity(names.len().div_ceil(batch));
    for chunk in names.chunks(batch) {
        chunks.push(Box::pin(async move {
            let results = store.read_many(chunk).await;
            read(chunk.len());
            results
        }));
    }
    join_all(chunks).await.into_iter().flatten().collect()
}

impl Finding {
    /// Adds the configuration that mentions the coordinate, if it is known.
    pub(super) fn in_holder(mut self, key: Option<&str>) -> Self {
        self.configuration = key.map(str::to_owned);
        self
    }
}
