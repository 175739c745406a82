//! What a run remembers between two starts: names and states.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;

use std::fmt::{self, Debug, Display};

use async_trait::async_trait;
use secret_persistence_core::{Identity, ManagedCoordinate, Owner};
use serde::{Deserialize, Serialize};

use crate::MigrateResult;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sql::SqlJournal;

/// The memory of one migration, on disk.
///
/// It holds names and states, and nothing that is derived from a value. The `conformance` feature
/// has the suite that every implementation runs
/// (`secret_persistence_migrate::conformance::journal`).
///
/// # Contract
///
/// - What a method has done is durable when it returns, and each call is done as a whole or not at
///   all: after a kill at any moment the journal is as before or as after it.
/// - Pages are in ascending order of the coordinate's bytes, so that a page after the last name of
///   the one before goes on where that ended, whatever changed in between.
/// - One process at a time: an implementation that can tell refuses a second one.
/// - A journal is bound to a run by the first thing that is done for it: a transition or a note. Until
///   then, whatever was scanned, another run takes it over, and finds it empty.
#[async_trait]
pub trait Journal: Debug + Display + Send + Sync {
    /// Opens the journal for a run. One that is not bound yet becomes this run's, and what another run
    /// had scanned is forgotten.
    ///
    /// # Errors
    /// `AnotherRun`, naming both, where the journal is bound to a different run.
    async fn open(&self, run: &Run) -> MigrateResult<()>;

    /// Begins a scan of all configurations and answers its number, greater than every one before,
    /// the first being 1.
    async fn begin_scan(&self) -> MigrateResult<u64>;

    /// Notes that the scan came across these configurations, and answers those keys that it had
    /// already come across, in an earlier call or in this one: two configurations with one id.
    async fn see(&self, scan: u64, configurations: &[String]) -> MigrateResult<Vec<String>>;

    /// Notes mentions of coordinates, adding the unknown ones as [`State::Pending`] without intent.
    ///
    /// For each, in order: where the entry's [`scan`](JournalEntry::scan) is not this one, scan and
    /// holder become those of the mention and [`shared`](JournalEntry::shared) false. Otherwise, an
    /// entry without a holder takes the mention's; one with another holder than the mention's
    /// becomes shared. State and intent of a known entry never change here.
    async fn mention(&self, scan: u64, mentions: &[Mention]) -> MigrateResult<()>;

    /// Reads the entries that `select` wants, in ascending order, at most `limit`, after a name. A
    /// page shorter than `limit` is the last.
    async fn page(
        &self,
        select: &Select,
        after: Option<&ManagedCoordinate>,
        limit: usize,
    ) -> MigrateResult<Vec<JournalEntry>>;

    /// Looks names up: same length and order as asked.
    async fn find(
        &self,
        coordinates: &[ManagedCoordinate],
    ) -> MigrateResult<Vec<Option<JournalEntry>>>;

    /// Changes states and intents, and binds the journal to its run if there is any change. A name
    /// that is unknown is added, with scan 0 and no holder.
    async fn advance(&self, transitions: &[Transition]) -> MigrateResult<()>;

    /// Counts all entries by state.
    async fn counts(&self) -> MigrateResult<Counts>;

    /// Keeps a note under its key, replacing the one that was there, and binds the journal to its run;
    /// `text` `None` removes it.
    async fn put_note(&self, key: &str, text: Option<&str>) -> MigrateResult<()>;

    /// Reads notes in ascending order of the key's bytes, at most `limit`, after a key.
    async fn notes(&self, after: Option<&str>, limit: usize) -> MigrateResult<Vec<Note>>;
}

/// Which run a journal belongs to.
///
/// Credentials may change between two starts, so a store is known by its kind and place, without
/// the principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Run {
    /// The store that has the secrets.
    pub source: String,
    /// The store that gets them; none where a run works on one store only, as a split does.
    pub target: Option<String>,
    /// The installation whose secrets they are.
    pub owner: Option<String>,
}

impl Run {
    /// The run from one store to another, or within one.
    #[must_use]
    pub fn new(source: &Identity, target: Option<&Identity>, owner: Option<&Owner>) -> Self {
        let place = |identity: &Identity| format!("{} {}", identity.store, identity.location);
        Self {
            source: place(source),
            target: target.map(place),
            owner: owner.map(ToString::to_string),
        }
    }
}

impl Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}", self.source)?;
        if let Some(target) = &self.target {
            write!(f, " to {target}")?;
        }
        match &self.owner {
            Some(owner) => write!(f, ", owner {owner}"),
            None => f.write_str(", no owner"),
        }
    }
}

/// How far a secret has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is known, or the target has lost it.
    Pending,
    /// The target had nothing under that name, and we are about to write it, or have tried.
    Intent,
    /// The target has taken it.
    Written,
    /// It was read back and equals the source.
    Verified,
    /// The target already had the equal value, which is not ours to delete.
    Present,
    /// The target has another value under that name: stops.
    Conflict,
}

impl State {
    /// All of them, in the order in which a secret goes through them.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Intent,
        Self::Written,
        Self::Verified,
        Self::Present,
        Self::Conflict,
    ];

    /// The state in lower case, stable: what a journal stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Intent => "intent",
            Self::Written => "written",
            Self::Verified => "verified",
            Self::Present => "present",
            Self::Conflict => "conflict",
        }
    }

    /// Reads what [`as_str`](Self::as_str) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the journal knows of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalEntry {
    /// Its name.
    pub coordinate: ManagedCoordinate,
    /// How far it has come.
    pub state: State,
    /// Whether the target had nothing under that name before we wrote it: only such a secret may
    /// be deleted there again.
    pub intent: bool,
    /// The last scan that came across it, 0 for none.
    pub scan: u64,
    /// The key of the first configuration that mentioned it in that scan, if one did.
    pub holder: Option<String>,
    /// Whether that scan found it in more than one configuration.
    pub shared: bool,
}

impl JournalEntry {
    /// An entry that nothing has happened to.
    #[must_use]
    pub fn new(coordinate: ManagedCoordinate) -> Self {
        Self {
            coordinate,
            state: State::Pending,
            intent: false,
            scan: 0,
            holder: None,
            shared: false,
        }
    }

    /// Sets how far it has come.
    #[must_use]
    pub fn with_state(mut self, state: State, intent: bool) -> Self {
        self.state = state;
        self.intent = intent;
        self
    }

    /// Sets what the last scan said.
    #[must_use]
    pub fn with_mention(mut self, scan: u64, holder: Option<String>, shared: bool) -> Self {
        self.scan = scan;
        self.holder = holder;
        self.shared = shared;
        self
    }
}

/// A coordinate that a scan came across.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mention {
    /// The name.
    pub coordinate: ManagedCoordinate,
    /// The key of the configuration whose own it is; none for an orphan, a bare coordinate and a
    /// reference, which may stand in several places without being shared.
    pub holder: Option<String>,
}

impl Mention {
    /// A mention.
    #[must_use]
    pub fn new(coordinate: ManagedCoordinate, holder: Option<String>) -> Self {
        Self { coordinate, holder }
    }
}

/// A change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// Whose.
    pub coordinate: ManagedCoordinate,
    /// Its new state.
    pub state: State,
    /// Whether it has an intent from now on.
    pub intent: bool,
}

impl Transition {
    /// A change.
    #[must_use]
    pub fn new(coordinate: ManagedCoordinate, state: State, intent: bool) -> Self {
        Self {
            coordinate,
            state,
            intent,
        }
    }
}

/// Which entries a page holds: those that meet every condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Select {
    /// In one of these states; empty means any.
    pub states: Vec<State>,
    /// Only with (or only without) an intent.
    pub intent: Option<bool>,
    /// Only those that this scan came across.
    pub scan: Option<u64>,
    /// Only those that are shared (or only those that are not).
    pub shared: Option<bool>,
}

impl Select {
    /// Every entry.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only in one of these states.
    #[must_use]
    pub fn with_states(mut self, states: &[State]) -> Self {
        self.states = states.to_vec();
        self
    }

    /// Only with, or only without an intent.
    #[must_use]
    pub fn with_intent(mut self, intent: bool) -> Self {
        self.intent = Some(intent);
        self
    }

    /// Only those that this scan came across.
    #[must_use]
    pub fn with_scan(mut self, scan: u64) -> Self {
        self.scan = Some(scan);
        self
    }

    /// Only those that stand in more than one configuration, or only those that do not.
    #[must_use]
    pub fn with_shared(mut self, shared: bool) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Whether an entry meets every condition: the definition that journals in SQL follow.
    #[must_use]
    pub fn wants(&self, entry: &JournalEntry) -> bool {
        (self.states.is_empty() || self.states.contains(&entry.state))
            && self.intent.is_none_or(|intent| intent == entry.intent)
            && self.scan.is_none_or(|scan| scan == entry.scan)
            && self.shared.is_none_or(|shared| shared == entry.shared)
    }
}

/// How many entries there are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// [`State::Pending`].
    pub pending: u64,
    /// [`State::Intent`].
    pub intent: u64,
    /// [`State::Written`].
    pub written: u64,
    /// [`State::Verified`].
    pub verified: u64,
    /// [`State::Present`].
    pub present: u64,
    /// [`State::Conflict`].
    pub conflict: u64,
}

impl Counts {
    /// The count of a state, to be set.
    pub fn of_mut(&mut self, state: State) -> &mut u64 {
        match state {
            State::Pending => &mut self.pending,
            State::Intent => &mut self.intent,
            State::Written => &mut self.written,
            State::Verified => &mut self.verified,
            State::Present => &mut self.present,
            State::Conflict => &mut self.conflict,
        }
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.pending + self.intent + self.written + self.verified + self.present + self.conflict
    }
}

/// What a run keeps for itself about one configuration: which names it is about to write for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// The configuration's key.
    pub key: String,
    /// JSON of names.
    pub text: String,
}

impl Note {
    /// A note.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            text: text.into(),
        }
    }
}
