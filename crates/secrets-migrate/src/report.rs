//! What a run has found and done: names, states, kinds and counts.
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::{Counts, Decisions, Run};

/// What a run has found and done. Serialisable; nothing in it is derived from a value.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `plan`, `copy`, `verify`, `rollback`, `retire` or `split`.
    pub command: &'static str,
    /// Which run.
    pub run: Run,
    /// Whether it changed nothing on purpose.
    pub dry_run: bool,
    /// Why it did not come to its end, if it did not.
    pub stopped: Option<Stop>,
    /// What it did.
    pub tally: Tally,
    /// How many pointers name which storage; the empty id is the default storage.
    pub storages: BTreeMap<String, u64>,
    /// What was found, by class.
    pub findings: BTreeMap<Class, Findings>,
    /// The decisions that it had.
    pub decisions: Decisions,
    /// Whether the source cannot list, so that orphans are not known.
    pub unlisted: bool,
    /// The classes that stop the run: they wait for a decision, or none is possible. For
    /// [`Class::Storage`] the ids are in its findings.
    pub undecided: Vec<Class>,
    /// How many secrets or configurations failed.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// How many secrets are in which state in the journal at the end.
    pub states: Counts,
    /// Plaintext that retire cannot reach, for people to read.
    pub unreachable: Vec<String>,
}

impl Report {
    /// Whether everything that was asked for is done: not stopped, nothing failed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stopped.is_none() && self.failed == 0
    }

    /// How many findings of a class there are.
    #[must_use]
    pub fn count(&self, class: Class) -> u64 {
        self.findings
            .get(&class)
            .map_or(0, |findings| findings.count)
    }
}

/// Why a run did not come to its end. It can be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stop {
    /// Somebody asked it to.
    Cancelled,
    /// The target has other values under our names, and nothing is overwritten.
    Conflict,
    /// So many secrets failed that it makes no sense to go on.
    Failures,
    /// Configurations would not hydrate.
    Hydration,
    /// What was deleted from one store was deleted from the other too; it was put back.
    Linked,
    /// Secrets of ours are left in the source.
    Remaining,
    /// Something was found that waits for a decision.
    Undecided,
    /// The target lacks secrets that it had, or a copy was not finished: copy again.
    Unverified,
}

impl Stop {
    /// The reason in `snake_case`, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Conflict => "conflict",
            Self::Failures => "failures",
            Self::Hydration => "hydration",
            Self::Linked => "linked",
            Self::Remaining => "remaining",
            Self::Undecided => "undecided",
            Self::Unverified => "unverified",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a run did, in numbers. Each command fills its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Configurations that were read.
    pub configurations: u64,
    /// Bare coordinates that were read.
    pub bare_coordinates: u64,
    /// Pointers that were found in configurations.
    pub pointers: u64,
    /// Different secrets to be moved.
    pub secrets: u64,
    /// Secrets that the target already had, equal, and that we did not write.
    pub present: u64,
    /// Secrets that were written to the target, or would be in a dry run.
    pub written: u64,
    /// Secrets that a killed run had already written.
    pub resumed: u64,
    /// Secrets that were restored in the target.
    pub restored: u64,
    /// Secrets that were deleted from the source while they were copied, and so from the target too.
    pub withdrawn: u64,
    /// Secrets that were left out because a decision says so, or because they have expired.
    pub skipped: u64,
    /// Secrets that were read back and equal the source.
    pub verified: u64,
    /// Secrets that the target has lost, to be copied again.
    pub lost: u64,
    /// Configurations that hydrated.
    pub hydrated: u64,
    /// Secrets that were deleted: from the target by rollback, from the source by retire.
    pub deleted: u64,
    /// Secrets that were not deleted because they are not equal on both sides.
    pub kept: u64,
    /// Secrets that the source has no longer.
    pub gone: u64,
    /// Secrets that were left alone because they belong to another installation.
    pub foreign: u64,
    /// Configurations that were split.
    pub split: u64,
    /// Copies that unshare has made.
    pub unshared: u64,
    /// Secrets of ours that the source still has after a retire.
    pub remaining: u64,
    /// Secrets and configurations that somebody changed since they were copied: the next copy brings
    /// them.
    pub changed_since: u64,
    /// Rows that somebody else changed meanwhile, to be tried again.
    pub changed: u64,
}

/// What has to be decided, or be known, before secrets are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Class {
    /// It has changed since it was copied; the next copy brings it. Needs no decision.
    Changed,
    /// The target has another value under that name. Stops always.
    Conflicting,
    /// The secret expires, and the target keeps no expiry.
    Expiring,
    /// The secret of somebody else, which is never copied.
    External,
    /// Not deleted by rollback or retire, since the two sides are not equal. Needs no decision.
    Kept,
    /// The target had it and has lost it; the next copy writes it again. Needs no decision.
    Lost,
    /// A configuration mentions it, and the source has not got it.
    Missing,
    /// A configuration points at a secret of another scope than its own: it may be stolen.
    OtherScope,
    /// The source lists it, and no configuration mentions it.
    Orphaned,
    /// The target has scheduled that name for deletion.
    PendingDeletion,
    /// The target already has the equal value. Needs no decision: nothing is done with it.
    Present,
    /// A configuration mentions it, and the source has scheduled it for deletion: it can be restored.
    Recoverable,
    /// It stands in more than one configuration.
    Shared,
    /// A configuration that was not verified, and why. Needs no decision: one says so.
    Skipped,
    /// A pointer names a storage id that nobody has decided about.
    Storage,
    /// The target cannot hold the value.
    Unfit,
    /// A configuration cannot be understood: a malformed pointer, an unknown reference. Stops always.
    Unreadable,
}

impl Class {
    /// The class in `snake_case`, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Conflicting => "conflicting",
            Self::Expiring => "expiring",
            Self::External => "external",
            Self::Kept => "kept",
            Self::Lost => "lost",
            Self::Missing => "missing",
            Self::OtherScope => "other_scope",
            Self::Orphaned => "orphaned",
            Self::PendingDeletion => "pending_deletion",
            Self::Present => "present",
            Self::Recoverable => "recoverable",
            Self::Shared => "shared",
            Self::Skipped => "skipped",
            Self::Storage => "storage",
            Self::Unfit => "unfit",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The findings of one class.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Findings {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub listed: Vec<Finding>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Of which class.
    pub class: Class,
    /// The coordinate, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinate: Option<String>,
    /// The configuration's key, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// The place in the configuration as a JSON Pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The storage id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// The kind of the error that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// More for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What failed on one secret or on one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// The coordinate, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinate: Option<String>,
    /// The configuration's key, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// The place in the configuration as a JSON Pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The kind of the error.
    pub kind: String,
    /// The error, as it is shown to people.
    pub message: String,
}
