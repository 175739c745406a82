//! What both stores have under one name, and what that means for a copy.
use futures::future::join_all;
use secret_persistence_core::{
    Coordinate, Error, ErrorKind, Expiry, ManagedCoordinate, Read, Result, SecretPersistenceExt,
    SecretValue, Timestamp, Write,
};

use crate::scan::coordinates;
use crate::session::{Session, by_key};
use crate::{Class, Expiring, Failure, Finding, JournalEntry, MigrateResult, PendingDeletion};

/// One secret on both sides, at one moment.
pub(super) struct Pair {
    pub(super) entry: JournalEntry,
    pub(super) source: Side,
    pub(super) target: Side,
}

/// What a store has under a name.
pub(super) enum Side {
    /// It could not be read.
    Failed(Error),
    /// Nothing, or something that cannot be read any more.
    Gone(ErrorKind),
    /// A value.
    Has(Read),
}

impl Side {
    pub(super) fn of(result: Result<Read>) -> Self {
        match result {
            Ok(read) => Self::Has(read),
            Err(error) => match error.kind() {
                kind if kind.is_gone() => Self::Gone(kind),
                _ => Self::Failed(error),
            },
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
            (Side::Gone(_), _) => Some("the source has not got it any more"),
            (_, Side::Gone(_)) => Some("the target has not got it now"),
            _ => Some("source and target have different values now"),
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

/// What a copy has to do about one secret.
pub(super) enum Step {
    /// The configuration that mentioned it has changed meanwhile.
    Changed(JournalEntry),
    /// The target has another value.
    Conflict(JournalEntry),
    /// One side could not be read.
    Failed(Failure),
    /// Neither a configuration mentions it nor has the source got it.
    Forgotten(JournalEntry),
    /// The target had nothing, we have written it (or meant to), and it is equal.
    Landed(JournalEntry),
    /// The target has the equal value, and not from us.
    Present(JournalEntry),
    /// The target has scheduled it for deletion, and it is to be restored.
    Restore(JournalEntry, SecretValue),
    /// It is left out, for the reason that was found, if there is one to be decided.
    Skip(JournalEntry, Option<Finding>),
    /// We have written it (or meant to), and the source has deleted it since.
    Withdraw(JournalEntry),
    /// The target has nothing.
    Write(JournalEntry, Write),
}

impl Session<'_> {
    /// Reads both sides of a unit together.
    pub(super) async fn pairs(&self, entries: Vec<JournalEntry>) -> Vec<Pair> {
        let names: Vec<ManagedCoordinate> = entries
            .iter()
            .map(|entry| entry.coordinate.clone())
            .collect();
        let names = coordinates(&names);
        let (source, target) =
            futures::join!(self.source.read_many(&names), self.target.read_many(&names));
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

    /// Reads both sides of a unit and says what to do about each secret.
    pub(super) async fn steps(&self, scan: u64, entries: Vec<JournalEntry>) -> Vec<Step> {
        let now = Timestamp::now();
        let pairs = self.pairs(entries).await;
        // All at once, because each may have to ask the source for its expiry.
        join_all(pairs.into_iter().map(|pair| self.step(scan, now, pair))).await
    }

    async fn step(&self, scan: u64, now: Timestamp, pair: Pair) -> Step {
        if let Some(failure) = pair.failure() {
            return Step::Failed(failure);
        }
        let equal = pair.is_equal();
        let Pair {
            entry,
            source,
            target,
        } = pair;
        let read = match (source, &target) {
            (Side::Has(read), _) => read,
            (Side::Gone(kind), _) if entry.scan == scan => {
                return self.missing(entry, kind).await;
            }
            // The target has it because of us, the source has deleted it, nobody mentions it.
            (Side::Gone(_), Side::Has(_)) if entry.intent => return Step::Withdraw(entry),
            _ => return Step::Forgotten(entry),
        };
        match target {
            Side::Has(_) if equal && entry.intent => Step::Landed(entry),
            Side::Has(_) if equal => Step::Present(entry),
            Side::Has(_) => Step::Conflict(entry),
            Side::Gone(ErrorKind::PendingDeletion) => self.pending_deletion(entry, read.value),
            Side::Gone(_) | Side::Failed(_) => self.write_step(entry, read, now).await,
        }
    }

    /// What a configuration mentioned and the source has not got. Somebody may have saved the
    /// configuration since it was read, and deleted what it had.
    async fn missing(&self, entry: JournalEntry, kind: ErrorKind) -> Step {
        match self.is_mentioned(&entry).await {
            Ok(true) => {}
            Ok(false) => return Step::Changed(entry),
            Err(error) => {
                return Step::Failed(Failure {
                    coordinate: Some(entry.coordinate.to_string()),
                    configuration: entry.holder,
                    place: None,
                    kind: error.kind().as_str().to_owned(),
                    message: error.to_string(),
                });
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

    /// Whether the configuration that mentioned a secret still does, as it is now.
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
            Err(error) => return Step::Failed(Failure::of(&error)),
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
            // Only the kind: the message of a value that is too large tells its length.
            Err(error) => {
                let finding = Finding::of(Class::Unfit, entry.coordinate.as_str())
                    .in_holder(entry.holder.as_deref())
                    .with_kind(error.kind().as_str());
                Step::Skip(entry, Some(finding))
            }
        }
    }

    /// When the source may remove a secret: as the read told, or as the store describes it where
    /// reads do not tell.
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

impl Finding {
    /// Adds the configuration that mentions the coordinate, where one is known.
    pub(super) fn in_holder(mut self, key: Option<&str>) -> Self {
        self.configuration = key.map(str::to_owned);
        self
    }
}
