//! The persistent state of a run: names and states.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) mod passes;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod rates;
#[cfg(all(test, feature = "postgres"))]
mod schedules;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod shared;
mod sharing;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod status;

use std::fmt::{self, Debug, Display};

use async_trait::async_trait;
use secret_persistence_core::{Identity, ManagedCoordinate, Owner};
use serde::{Deserialize, Serialize};

use crate::MigrateResult;
use crate::workspaces::Workspaces;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sql::SqlJournal;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use sql::of_journal;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use status::{JournalStatus, PassHalt, PassPhase, PassStatus, WorkerStatus};

pub use sharing::{
    Claim, ConfigurationsPage, Halt, Layout, Mark, Member, Next, Position, SecretsPage, SharedWork,
    Sharing,
};

/// The journal of one migration, on disk.
///
/// It contains names and states, and nothing derived from a value. The `conformance` feature has
/// the suite that every implementation runs (`secret_persistence_migrate::conformance::journal`).
///
/// # Contract
///
/// - The effect of a method is durable when it returns, and each call is atomic: after a kill at
///   any moment, the journal is in the state before or after the call.
/// - Pages are in ascending order of the coordinate's bytes. A page after the last name of the
///   previous page therefore continues where that one ended, whatever changed in between.
/// - One process at a time, unless the journal is [shared](Sharing): an implementation that can detect
///   a second process refuses it.
/// - The first transition or note of a run binds the journal to it. Until then, another run may take
///   the journal over, and finds it empty even after a scan.
#[async_trait]
pub trait Journal: Debug + Display + Send + Sync {
    /// Opens the journal for a run. An unbound journal then belongs to this run, and the scans of
    /// other runs are forgotten.
    ///
    /// # Errors
    /// `AnotherRun`, with both runs, if the journal is bound to a different run.
    async fn open(&self, run: &Run) -> MigrateResult<()>;

    /// Begins a scan of all configurations and returns its number. The first is 1, and each is
    /// greater than all before.
    async fn begin_scan(&self) -> MigrateResult<u64>;

    /// Records that the scan visited these configurations. Returns the keys that it had already
    /// visited, in an earlier call or in this one: two configurations with the same id.
    async fn see(&self, scan: u64, configurations: &[String]) -> MigrateResult<Vec<String>>;

    /// Records mentions of coordinates. Unknown ones are added as [`State::Pending`] without
    /// intent.
    ///
    /// For each mention, in order: if the entry's [`scan`](JournalEntry::scan) is not this one, set
    /// its scan and holder to those of the mention and [`shared`](JournalEntry::shared) to false.
    /// Otherwise, an entry without a holder gets the mention's holder, and an entry with a
    /// different holder becomes shared. State and intent of an existing entry never change here.
    async fn mention(&self, scan: u64, mentions: &[Mention]) -> MigrateResult<()>;

    /// Reads at most `limit` entries that match `select` after a name, in ascending order. A page
    /// shorter than `limit` is the last.
    async fn page(
        &self,
        select: &Select,
        after: Option<&ManagedCoordinate>,
        limit: usize,
    ) -> MigrateResult<Vec<JournalEntry>>;

    /// Looks up names. The result has the same length and order.
    async fn find(
        &self,
        coordinates: &[ManagedCoordinate],
    ) -> MigrateResult<Vec<Option<JournalEntry>>>;

    /// Changes states and intents. Any change binds the journal to its run. An unknown name is added
    /// with scan 0 and no holder.
    async fn advance(&self, transitions: &[Transition]) -> MigrateResult<()>;

    /// Counts all entries by state.
    async fn counts(&self) -> MigrateResult<Counts>;

    /// Stores a note under its key, replaces the previous one, and binds the journal to its run.
    /// `text` `None` removes the note.
    async fn put_note(&self, key: &str, text: Option<&str>) -> MigrateResult<()>;

    /// Reads notes in ascending order of the key's bytes, at most `limit`, after a key.
    async fn notes(&self, after: Option<&str>, limit: usize) -> MigrateResult<Vec<Note>>;

    /// How several processes share the journal. None if it admits one.
    fn sharing(&self) -> Option<&dyn Sharing> {
        None
    }
}

/// The run that a journal belongs to.
///
/// Credentials may change between two starts, so a store is identified by its kind and place,
/// without the principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Run {
    /// The store that has the secrets.
    pub source: String,
    /// The store that gets them; none for a run on a single store, such as a split.
    pub target: Option<String>,
    /// The installation that owns the secrets.
    pub owner: Option<String>,
    /// The workspaces that the run is restricted to, in order; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<String>,
}

impl Run {
    /// Creates the identity of a run between two stores, or within one.
    #[must_use]
    pub fn new(source: &Identity, target: Option<&Identity>, owner: Option<&Owner>) -> Self {
        let place = |identity: &Identity| format!("{} {}", identity.store, identity.location);
        Self {
            source: place(source),
            target: target.map(place),
            owner: owner.map(ToString::to_string),
            workspaces: Vec::new(),
        }
    }

    /// Restricts it to workspaces.
    pub(crate) fn within(mut self, workspaces: &Workspaces) -> Self {
        self.workspaces = workspaces.ids().map(ToString::to_string).collect();
        self
    }
}

impl Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}", self.source)?;
        if let Some(target) = &self.target {
            write!(f, " to {target}")?;
        }
        match &self.owner {
            Some(owner) => write!(f, ", owner {owner}")?,
            None => f.write_str(", no owner")?,
        }
        match self.workspaces.join(", ") {
            none if none.is_empty() => Ok(()),
            some => write!(f, ", only workspace {some}"),
        }
    }
}

/// The progress of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not copied yet, or lost by the target.
    Pending,
    /// The target had no such secret, and we are about to write it or have tried.
    Intent,
    /// The target accepted it.
    Written,
    /// It was read back and equals the source.
    Verified,
    /// The target already had an equal value, which we must not delete.
    Present,
    /// The target has another value under that name: the run stops.
    Conflict,
}

impl State {
    /// All states, in the order that a secret goes through them.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Intent,
        Self::Written,
        Self::Verified,
        Self::Present,
        Self::Conflict,
    ];

    /// The state in lower case, as journals store it. Stable.
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

    /// Parses the output of [`as_str`](Self::as_str).
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

/// The journal's entry for one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalEntry {
    /// Its name.
    pub coordinate: ManagedCoordinate,
    /// Its state.
    pub state: State,
    /// Whether the target did not have the secret before we wrote it. Only then may it be deleted
    /// there again.
    pub intent: bool,
    /// The last scan that found it, or 0.
    pub scan: u64,
    /// The key of the first configuration that mentioned it in that scan, if any.
    pub holder: Option<String>,
    /// Whether that scan found it in more than one configuration.
    pub shared: bool,
}

impl JournalEntry {
    /// A new entry.
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

    /// Sets the state.
    #[must_use]
    pub fn with_state(mut self, state: State, intent: bool) -> Self {
        self.state = state;
        self.intent = intent;
        self
    }

    /// Sets the result of the last scan.
    #[must_use]
    pub fn with_mention(mut self, scan: u64, holder: Option<String>, shared: bool) -> Self {
        self.scan = scan;
        self.holder = holder;
        self.shared = shared;
        self
    }
}

/// A coordinate that a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mention {
    /// The name.
    pub coordinate: ManagedCoordinate,
    /// The key of the configuration that owns it. `None` for an orphan, a bare coordinate and a
    /// reference, which may occur in several places without being shared.
    pub holder: Option<String>,
}

impl Mention {
    /// Creates a mention.
    #[must_use]
    pub fn new(coordinate: ManagedCoordinate, holder: Option<String>) -> Self {
        Self { coordinate, holder }
    }
}

/// A change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The secret's name.
    pub coordinate: ManagedCoordinate,
    /// Its new state.
    pub state: State,
    /// Whether it has an intent from now on.
    pub intent: bool,
}

impl Transition {
    /// Creates a change.
    #[must_use]
    pub fn new(coordinate: ManagedCoordinate, state: State, intent: bool) -> Self {
        Self {
            coordinate,
            state,
            intent,
        }
    }
}

/// Selects the entries of a page: those that match every condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Select {
    /// In one of these states; empty means any state.
    pub states: Vec<State>,
    /// Only with (or only without) an intent.
    pub intent: Option<bool>,
    /// Only those found by this scan.
    pub scan: Option<u64>,
    /// Only those that are shared, or only those that are not.
    pub shared: Option<bool>,
    /// Only names up to this one.
    pub upto: Option<ManagedCoordinate>,
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

    /// Only those with an intent, or only those without.
    #[must_use]
    pub fn with_intent(mut self, intent: bool) -> Self {
        self.intent = Some(intent);
        self
    }

    /// Only those found by this scan.
    #[must_use]
    pub fn with_scan(mut self, scan: u64) -> Self {
        self.scan = Some(scan);
        self
    }

    /// Only those in more than one configuration, or only those that are not.
    #[must_use]
    pub fn with_shared(mut self, shared: bool) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Only names up to this one.
    #[must_use]
    pub fn with_upto(mut self, last: ManagedCoordinate) -> Self {
        self.upto = Some(last);
        self
    }

    /// Whether an entry matches every condition. Journals in SQL follow this definition.
    #[must_use]
    pub fn wants(&self, entry: &JournalEntry) -> bool {
        (self.states.is_empty() || self.states.contains(&entry.state))
            && self.intent.is_none_or(|intent| intent == entry.intent)
            && self.scan.is_none_or(|scan| scan == entry.scan)
            && self.shared.is_none_or(|shared| shared == entry.shared)
            && self
                .upto
                .as_ref()
                .is_none_or(|last| entry.coordinate <= *last)
    }
}

/// The number of entries in each state.
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
    /// The count of a state, mutable.
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

    /// The total.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.pending + self.intent + self.written + self.verified + self.present + self.conflict
    }
}

/// A run's note about one configuration: the names that it is about to write for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// The configuration's key.
    pub key: String,
    /// JSON of names.
    pub text: String,
}

impl Note {
    /// Creates a note.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            text: text.into(),
        }
    }
}
