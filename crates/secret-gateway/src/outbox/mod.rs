//! The outbox: what every change writes and supersedes, durable before anything is written to a store.

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

#[cfg(feature = "postgres")]
pub use postgres::PostgresOutbox;
pub use sqlite::SqliteOutbox;

/// What a change does to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// There is none yet.
    Create,
    /// It is to be removed.
    Delete,
    /// It is to be replaced.
    Update,
}

impl ChangeKind {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Update => "update",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Delete, Self::Update]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// How far a change is.
///
/// ```text
/// staging ──▶ open ──▶ committed
///    │          └────▶ aborted
///    └──▶ abandoned
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody was told of it, and its staging did not end: the gateway deletes what it wrote.
    Abandoned,
    /// The caller has not saved it.
    Aborted,
    /// The caller has saved it.
    Committed,
    /// Staged, and the caller was told.
    Open,
    /// Its secrets are being written. Nobody was told of it yet.
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

/// A change as the outbox keeps it: pointers and names, no value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// Its id.
    pub id: Uuid,
    /// What it does.
    pub kind: ChangeKind,
    /// Who asked for it.
    pub actor: String,
    /// The prefix of its scope.
    pub scope_prefix: String,
    /// The base id of its scope.
    pub scope_id: Uuid,
    /// How far it is.
    pub state: State,
    /// What it writes and supersedes.
    pub record: Record,
    /// The configuration with pointers, as JSON text; `null` where the row is to be deleted.
    pub configuration: String,
    /// The keyed digest of that configuration.
    pub staged_digest: String,
    /// The keyed digest of the saved configuration; empty where there is none.
    pub saved_digest: String,
    /// The key that a retry shows again.
    pub idempotency: Option<Idempotency>,
    /// When it began.
    pub created: Timestamp,
    /// Until when its staging may last.
    pub lease: Timestamp,
    /// Whether nothing is left to delete.
    pub cleaned: bool,
}

/// What makes a retry the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Idempotency {
    /// The caller's key, under the caller's name.
    pub key: String,
    /// The keyed digest of the request.
    pub digest: String,
}

/// What became of a new change.
#[derive(Debug)]
pub enum Inserted {
    /// It is in the outbox.
    New,
    /// The idempotency key stands for this one.
    Known(Box<Change>),
}

/// Where a listing goes on: after the change of this age and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// When it began, in seconds since 1970.
    pub created: i64,
    /// Its id.
    pub id: Uuid,
}

/// How many changes are in a state, and since when the oldest is.
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

/// Why the outbox failed: its database did. The cause names no value.
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

/// Where changes are kept. Each method is one transaction, durable when it returns, and every change of
/// a state is a compare-and-swap: of two that try, one wins, in whatever process.
#[async_trait]
pub trait Outbox: fmt::Debug + Send + Sync + 'static {
    /// Adds a change that is about to be staged, unless its idempotency key is known.
    async fn insert(&self, change: &Change) -> Result<Inserted>;

    /// The change that an idempotency key stands for.
    async fn known(&self, key: &str) -> Result<Option<Change>>;

    /// Moves a change from `staging` to `open`, with what was staged; whether it was staging.
    async fn open(&self, id: Uuid, configuration: &str, staged_digest: &str) -> Result<bool>;

    /// A change, or `None`.
    async fn get(&self, id: Uuid) -> Result<Option<Change>>;

    /// Moves a change from one state to another; whether it was in the first. One that is abandoned
    /// gives its idempotency key free.
    async fn swap(&self, id: Uuid, from: State, to: State) -> Result<bool>;

    /// Notes that nothing is left to delete, or when to look again.
    async fn cleaned(&self, id: Uuid, again: Option<Timestamp>) -> Result<()>;

    /// The oldest changes of a state, of those that began before a time, after a place.
    async fn list(
        &self,
        state: State,
        before: Timestamp,
        after: Option<After>,
        limit: u32,
    ) -> Result<Vec<Change>>;

    /// Changes that have ended and are to be cleaned up now; they are due again a minute later.
    async fn take_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Change>>;

    /// Abandons what has been staging for too long, and says how many.
    async fn abandon_stale(&self, now: Timestamp) -> Result<u64>;

    /// Forgets ended and cleaned changes that began before a time.
    async fn forget(&self, before: Timestamp) -> Result<u64>;

    /// How many changes there are, by state.
    async fn counts(&self) -> Result<Vec<Count>>;

    /// Keeps a text that proves a key, or compares it with what is kept; whether it is the same.
    async fn same_key(&self, proof: &str) -> Result<bool>;
}
