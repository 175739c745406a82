//! Several processes with one journal: pages of work, claimed under a lease.
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::ManagedCoordinate;
use serde::{Deserialize, Serialize};

use crate::{Class, ConfigCursor, Mention, MigrateResult, Select, Stop, Transition};

/// What a [`Journal`](crate::Journal) that several processes share can do in addition.
///
/// # Contract
///
/// - A pass is one run of a command by all its processes. It begins with one page, for what comes
///   before the secrets, such as the scan, which lays out the pages of secrets when it ends. It may
///   also lay out a page for what comes after all secrets. A pass ends when its last page ends. Instead of
///   pages of secrets, it may have pages of configurations, each of which lays out the next.
/// - A page belongs to one process for the length of a lease, which each write under its claim renews.
///   After that, another process may claim it, with a new epoch.
/// - Every write names its claim. It changes everything or, if the page has been claimed by another
///   process or the pass is over, nothing, and then fails with
///   [`Lapsed`](crate::MigrateErrorKind::Lapsed). Claims and writes have one order.
/// - What a page found is written with its end. Every process learns it, even if the one that found
///   it is killed.
/// - The journal's clock counts, not that of a process.
#[async_trait]
pub trait Sharing: Debug + Send + Sync {
    /// Joins the pass that is under way, or begins one if there is none, if no process has shown itself
    /// for the length of its lease, or if it was stopped and had the same command: processes of a
    /// stopped pass may still be at what they had begun. Another command waits for their lease, also if
    /// passes of the same command have begun and ended since.
    ///
    /// # Errors
    /// `AnotherRun` if processes are, or may be, at work with another command or other settings.
    async fn join(&self, work: &SharedWork, worker: &str, lease: Duration)
    -> MigrateResult<Member>;

    /// Joins the pass that has superseded that of the process, also if it has ended. Never begins one:
    /// a process that was paused for hours must not delete again what others have copied meanwhile.
    ///
    /// # Errors
    /// `AnotherRun` if it has another command or other settings.
    async fn rejoin(
        &self,
        work: &SharedWork,
        worker: &str,
        lease: Duration,
    ) -> MigrateResult<Member>;

    /// Claims the first page that nobody works on, and shows that the process is alive.
    async fn claim(&self, member: &Member) -> MigrateResult<Next>;

    /// The number of the process's session with the journal. With another one, others may have had the
    /// journal to themselves meanwhile, so that no claim is known to last.
    fn session(&self) -> u64;

    /// Renews a claim, and shows that the process is alive. No pass of another command begins for half
    /// the lease then, while the session lasts.
    async fn renew(&self, claim: Claim) -> MigrateResult<()>;

    /// Gives a page back, unfinished.
    async fn release(&self, claim: Claim) -> MigrateResult<()>;

    /// [`begin_scan`](crate::Journal::begin_scan) under a claim.
    async fn begin_scan_under(&self, claim: Claim) -> MigrateResult<u64>;

    /// [`see`](crate::Journal::see) under a claim.
    async fn see_under(
        &self,
        claim: Claim,
        scan: u64,
        configurations: &[String],
    ) -> MigrateResult<Vec<String>>;

    /// [`mention`](crate::Journal::mention) under a claim.
    async fn mention_under(
        &self,
        claim: Claim,
        scan: u64,
        mentions: &[Mention],
    ) -> MigrateResult<()>;

    /// Records what the scan knows about names and every process needs.
    async fn mark(&self, claim: Claim, marks: &[Mark]) -> MigrateResult<()>;

    /// Every mark of the pass.
    async fn marks(&self, pass: u64) -> MigrateResult<Vec<Mark>>;

    /// Ends the first page and lays out those of the secrets, in one step.
    async fn lay_out(&self, claim: Claim, layout: &Layout) -> MigrateResult<()>;

    /// Ends the first page and lays out the first page of configurations, in one step. Each further one
    /// comes into being when the one before it [is read](Self::extend), because only their source knows
    /// where a page ends.
    async fn lay_out_configurations(&self, claim: Claim, scan: u64) -> MigrateResult<()>;

    /// Notes how far a page of configurations goes and which it has, and lays out the page that follows, or
    /// the one after all of them, in one step. Whoever takes the page over does it again up to there.
    /// Returns the keys that the scan had already visited, as [`see`](crate::Journal::see).
    async fn extend(
        &self,
        page: &ConfigurationsPage,
        upto: &Position,
        next: Option<&Position>,
        configurations: &[String],
    ) -> MigrateResult<Vec<String>>;

    /// Stores a note as [`put_note`](crate::Journal::put_note), under a claim.
    async fn put_note_under(&self, claim: Claim, key: &str, text: &str) -> MigrateResult<()>;

    /// [`advance`](crate::Journal::advance) under a claim. Whoever has ended a page may still correct it,
    /// until another pass begins.
    async fn advance_under(&self, claim: Claim, transitions: &[Transition]) -> MigrateResult<()>;

    /// The last transitions of a page, what it found that all processes must know, and its end, in
    /// one step.
    async fn finish(
        &self,
        claim: Claim,
        transitions: &[Transition],
        found: Option<Stop>,
    ) -> MigrateResult<()>;

    /// Stops the pass for every process. The first reason counts.
    async fn halt(&self, pass: u64, halt: &Halt) -> MigrateResult<()>;
}

/// What the processes of a pass do together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedWork {
    /// The command.
    pub command: String,
    /// What must be equal in all processes, such as decisions and sources of configurations.
    pub settings: String,
}

impl SharedWork {
    /// Describes work.
    pub fn new(command: impl Into<String>, settings: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            settings: settings.into(),
        }
    }
}

/// A process in a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The pass.
    pub pass: u64,
    /// The process.
    pub worker: String,
    /// How long a page belongs to a process that makes no progress.
    pub lease: Duration,
}

impl Member {
    /// Describes a process.
    pub fn new(pass: u64, worker: impl Into<String>, lease: Duration) -> Self {
        Self {
            pass,
            worker: worker.into(),
            lease,
        }
    }
}

/// The right to work on one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// The pass.
    pub pass: u64,
    /// The page in the pass. The first is page 0.
    pub page: u64,
    /// How often the page has been claimed.
    pub epoch: u64,
    /// How long it lasts after a write.
    pub lease: Duration,
}

impl Claim {
    /// Describes a claim.
    #[must_use]
    pub fn new(pass: u64, page: u64, epoch: u64, lease: Duration) -> Self {
        Self {
            pass,
            page,
            epoch,
            lease,
        }
    }
}

/// What a process does next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Nothing more: the last page has ended.
    Ended,
    /// Another pass has begun, because nobody had shown itself in this one: rejoin.
    Superseded,
    /// Nothing more: a process has found something that stops all, or the last page has ended and one
    /// of them found something. If several did, the most severe.
    Halted(Halt),
    /// The first page: what comes before the secrets.
    First(Claim),
    /// A page of configurations.
    Configurations(ConfigurationsPage),
    /// A page of secrets.
    Secrets(SecretsPage),
    /// The last page: what comes after all others.
    Last(Claim),
    /// Ask again later: other processes work on all that is left.
    Wait,
}

/// The pages of a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// The number of the scan, or 0 if there was none.
    pub scan: u64,
    /// The secrets.
    pub select: Select,
    /// At most how many secrets a page has.
    pub size: usize,
    /// Whether there is a page for what comes after all secrets.
    pub last: bool,
}

impl Layout {
    /// Describes pages without a last one.
    #[must_use]
    pub fn new(scan: u64, select: Select, size: usize) -> Self {
        Self {
            scan,
            select,
            size,
            last: false,
        }
    }

    /// Sets whether there is a page for what comes after all secrets.
    #[must_use]
    pub fn with_last(mut self, last: bool) -> Self {
        self.last = last;
        self
    }
}

/// A page of secrets: those with names after one and up to another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecretsPage {
    /// The right to it.
    pub claim: Claim,
    /// The scan before it was laid out, or 0 if there was none.
    pub scan: u64,
    /// The last name of the page before, if there is one.
    pub after: Option<ManagedCoordinate>,
    /// The last name.
    pub upto: ManagedCoordinate,
}

impl SecretsPage {
    /// Describes a page.
    #[must_use]
    pub fn new(
        claim: Claim,
        scan: u64,
        after: Option<ManagedCoordinate>,
        upto: ManagedCoordinate,
    ) -> Self {
        Self {
            claim,
            scan,
            after,
            upto,
        }
    }
}

/// A position in the configurations of all sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The source, by its place among all.
    pub source: usize,
    /// Where reading continues in it. None is its beginning, or its end where the position is one.
    pub cursor: Option<ConfigCursor>,
}

impl Position {
    /// Describes a position. The default is the beginning of the first source.
    #[must_use]
    pub fn new(source: usize, cursor: Option<ConfigCursor>) -> Self {
        Self { source, cursor }
    }
}

/// A page of configurations: those after one position, up to another once that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigurationsPage {
    /// The right to it.
    pub claim: Claim,
    /// The scan before it.
    pub scan: u64,
    /// Where it begins.
    pub after: Position,
    /// Where it ends; none if nobody has read it yet.
    pub upto: Option<Position>,
}

impl ConfigurationsPage {
    /// Describes a page.
    #[must_use]
    pub fn new(claim: Claim, scan: u64, after: Position, upto: Option<Position>) -> Self {
        Self {
            claim,
            scan,
            after,
            upto,
        }
    }
}

/// Why a pass was stopped for every process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Halt {
    /// The reason.
    pub stop: Stop,
    /// The classes of findings that need a decision.
    pub undecided: Vec<Class>,
}

impl Halt {
    /// Describes a stop.
    #[must_use]
    pub fn new(stop: Stop, undecided: Vec<Class>) -> Self {
        Self { stop, undecided }
    }
}

/// What a scan knows about a name beside its mention.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mark {
    /// A configuration also names it in this storage, which is left, or one of a workspace that is left if
    /// there is none.
    Left(ManagedCoordinate, Option<String>),
    /// No configuration mentions it, and it is copied nevertheless.
    Orphan(ManagedCoordinate),
}
