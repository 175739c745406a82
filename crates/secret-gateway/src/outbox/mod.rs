//! The outbox: the names that every change writes and supersedes, durable before any write to a
//! store.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod configs;
#[cfg(feature = "postgres")]
mod postgres;
mod sql;
mod sqlite;

use std::error::Error as StdError;
use std::fmt;

use async_trait::async_trait;
use secret_persistence::Timestamp;
use secret_persistence::connector::Record;
use serde::Serialize;
use uuid::Uuid;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use configs::OpenChanges;
#[cfg(feature = "postgres")]
pub use postgres::PostgresOutbox;
pub use sqlite::SqliteOutbox;

/// The effect of a change on a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Creates it.
    Create,
    /// Deletes it.
    Delete,
    /// Replaces it.
    Update,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Create, Self::Delete, Self::Update];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Update => "update",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The state of a change.
///
/// ```text
/// staging ──▶ open ──▶ committed
///    │          └────▶ aborted
///    └──▶ abandoned
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The caller got no answer, and staging did not finish: the gateway deletes what it wrote.
    Abandoned,
    /// The caller did not save it.
    Aborted,
    /// The caller saved it.
    Committed,
    /// Staged, and the caller got the answer.
    Open,
    /// Its secrets are being written. The caller has no answer yet.
    Staging,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Abandoned,
        Self::Aborted,
        Self::Committed,
        Self::Open,
        Self::Staging,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Aborted => "aborted",
            Self::Committed => "committed",
            Self::Open => "open",
            Self::Staging => "staging",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A change in the outbox: pointers and names, no value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// Its id.
    pub id: Uuid,
    /// Its effect on the row.
    pub kind: ChangeKind,
    /// Its caller.
    pub actor: String,
    /// The prefix of its scope.
    pub scope_prefix: String,
    /// The base id of its scope.
    pub scope_id: Uuid,
    /// Its state.
    pub state: State,
    /// What it writes and supersedes.
    pub record: Record,
    /// The configuration with pointers, as JSON text; `null` if the row is to be deleted.
    pub configuration: String,
    /// The keyed digest of that configuration.
    pub staged_digest: String,
    /// The keyed digest of the saved configuration; empty if there is none.
    pub saved_digest: String,
    /// The idempotency key.
    pub idempotency: Option<Idempotency>,
    /// When it began.
    pub created: Timestamp,
    /// The deadline of its staging.
    pub lease: Timestamp,
    /// Whether nothing is left to delete.
    pub cleaned: bool,
}

/// Identifies a retry of the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Idempotency {
    /// The caller's key, under the caller's name.
    pub key: String,
    /// The keyed digest of the request.
    pub digest: String,
}

/// The result of adding a change.
#[derive(Debug)]
pub enum Inserted {
    /// It is in the outbox.
    New,
    /// The idempotency key belongs to this change.
    Known(Box<Change>),
}

/// The position where a listing continues: after the change of this age and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// When it began, in seconds since 1970.
    pub created: i64,
    /// Its id.
    pub id: Uuid,
}

/// The number of changes in a state, and the age of the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// The state.
    pub state: State,
    /// How many.
    pub changes: u64,
    /// When the oldest began.
    pub oldest: Timestamp,
}

/// The outbox failed because its database failed. The cause contains no value.
#[derive(Debug)]
pub struct OutboxError {
    doing: &'static str,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl OutboxError {
    pub(crate) fn new(doing: &'static str) -> Self {
        Self {
            doing,
            source: None,
        }
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for OutboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the outbox: {}", self.doing)
    }
}

impl StdError for OutboxError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The result of an outbox operation.
pub(crate) type Result<T, E = OutboxError> = std::result::Result<T, E>;

/// Stores changes. Each method is one transaction, durable when it returns. Every change of a state
/// is a compare-and-swap: of two concurrent ones, in any process, one succeeds.
#[async_trait]
pub trait Outbox: fmt::Debug + Send + Sync + 'static {
    /// Adds a change before it is staged, unless its idempotency key is known.
    async fn insert(&self, change: &Change) -> Result<Inserted>;

    /// The change of an idempotency key.
    async fn known(&self, key: &str) -> Result<Option<Change>>;

    /// Moves a change from `staging` to `open`, with what was staged. Returns whether it was
    /// staging.
    async fn open(&self, id: Uuid, configuration: &str, staged_digest: &str) -> Result<bool>;

    /// A change, or `None`.
    async fn get(&self, id: Uuid) -> Result<Option<Change>>;

    /// Moves a change from one state to another. Returns whether it was in the first. Abandoning a
    /// change releases its idempotency key.
    async fn swap(&self, id: Uuid, from: State, to: State) -> Result<bool>;

    /// Records that nothing is left to delete, or when to try again.
    async fn cleaned(&self, id: Uuid, again: Option<Timestamp>) -> Result<()>;

    /// The oldest changes in a state that began before a time, after a position.
    async fn list(
        &self,
        state: State,
        before: Timestamp,
        after: Option<After>,
        limit: u32,
    ) -> Result<Vec<Change>>;

    /// Ended changes that are due for cleanup; they are due again a minute later.
    async fn take_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Change>>;

    /// Abandons changes that have been staging for too long, and returns their number.
    async fn abandon_stale(&self, now: Timestamp) -> Result<u64>;

    /// Deletes ended and cleaned changes that began before a time.
    async fn forget(&self, before: Timestamp) -> Result<u64>;

    /// The number of changes by state.
    async fn counts(&self) -> Result<Vec<Count>>;

    /// Stores a text that identifies a key, or compares it with the stored one. Returns whether
    /// they are equal.
    async fn same_key(&self, proof: &str) -> Result<bool>;
}
