//! What a run found and did: names, states, kinds and counts.
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Counts, Decisions, Run};

/// What a run found and did. Serialisable. Nothing in it is derived from a value.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `plan`, `copy`, `verify`, `rollback`, `retire` or `split`.
    pub command: &'static str,
    /// Which run.
    pub run: Run,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// Why it did not finish, if it did not.
    pub stopped: Option<Stop>,
    /// Whether another process that shares the run found that reason: its report has the details.
    pub stopped_by_another: bool,
    /// What it did.
    pub tally: Tally,
    /// How many pointers name each storage; the empty id is the default storage.
    pub storages: BTreeMap<String, u64>,
    /// The findings, by class.
    pub findings: BTreeMap<Class, Findings>,
    /// The decisions of the run.
    pub decisions: Decisions,
    /// Whether the source cannot list its secrets, so that orphans are unknown.
    pub unlisted: bool,
    /// The classes that stop the run: they need a decision, or cannot be decided. For
    /// [`Class::Storage`] the ids are in its findings.
    pub undecided: Vec<Class>,
    /// How many secrets or configurations failed.
    pub failed: u64,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// The number of secrets in each state in the journal at the end.
    pub states: Counts,
    /// Plain text that retire cannot reach, as text for people.
    pub unreachable: Vec<String>,
}

impl Report {
    /// Whether everything requested is done: not stopped, nothing failed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stopped.is_none() && self.failed == 0
    }

    /// The number of findings of a class.
    #[must_use]
    pub fn count(&self, class: Class) -> u64 {
        self.findings
            .get(&class)
            .map_or(0, |findings| findings.count)
    }
}

/// Why a run did not finish. It can be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stop {
    /// It was cancelled.
    Cancelled,
    /// The target has other values under our names, and nothing was overwritten.
    Conflict,
    /// Too many secrets failed.
    Failures,
    /// Configurations do not hydrate.
    Hydration,
    /// A delete in one store also deleted from the other. The secret was written back.
    Linked,
    /// Secrets of this installation remain in the source.
    Remaining,
    /// A finding needs a decision.
    Undecided,
    /// The target has lost secrets, or a copy was not finished: copy again.
    Unverified,
}

impl Stop {
    /// All reasons, the most severe first.
    pub const ALL: [Self; 8] = [
        Self::Linked,
        Self::Conflict,
        Self::Undecided,
        Self::Remaining,
        Self::Unverified,
        Self::Hydration,
        Self::Failures,
        Self::Cancelled,
    ];

    /// Parses the output of [`as_str`](Self::as_str).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stop| stop.as_str() == text)
    }

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

/// What a run did, in numbers. Each command sets its own figures.
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
    /// Secrets that were written to the target, or in a dry run would be.
    pub written: u64,
    /// Secrets that a killed run had already written.
    pub resumed: u64,
    /// Secrets that were restored in the target.
    pub restored: u64,
    /// Secrets that were deleted from the source during the copy, and therefore from the target.
    pub withdrawn: u64,
    /// Secrets that were skipped because of a decision, or because they have expired.
    pub skipped: u64,
    /// Secrets that were read back and equal the source.
    pub verified: u64,
    /// Secrets that the target lacks although they were copied, or were about to be: to be copied again.
    pub lost: u64,
    /// Configurations that hydrated.
    pub hydrated: u64,
    /// Secrets that were deleted: from the target by rollback, from the source by retire.
    pub deleted: u64,
    /// Secrets that were not deleted because they are not equal on both sides, because a
    /// configuration names them in a storage that is left, or because a row for which an interrupted
    /// split or unshare wrote them may still be saved.
    pub kept: u64,
    /// Secrets that are no longer in the source.
    pub gone: u64,
    /// Secrets that were kept because they belong to another installation.
    pub foreign: u64,
    /// Configurations that were split.
    pub split: u64,
    /// Copies made by unshare.
    pub unshared: u64,
    /// Secrets of this installation that remain in the source after a retire.
    pub remaining: u64,
    /// Secrets and configurations that changed since they were copied; the next copy updates them.
    pub changed_since: u64,
    /// Rows that changed in the meantime; try again.
    pub changed: u64,
    /// Properties of split configurations that their specifications do not know.
    pub unknown_properties: u64,
}

/// The classes of findings before secrets are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Class {
    /// It changed since it was copied; the next copy updates it. Needs no decision.
    Changed,
    /// The target has another value under that name. Always stops.
    Conflicting,
    /// The secret expires, and the target does not store expiry.
    Expiring,
    /// An external secret, which is never copied.
    External,
    /// Rollback or retire did not delete it, because the two sides are not equal, or because a
    /// configuration names it in a storage that is left. For split and unshare: a row for which an
    /// interrupted run has written secrets that may still be saved; one finding per change, whose detail
    /// says what to do. Needs no decision.
    Kept,
    /// The target has lost it, or a copy was stopped before it wrote it; the next copy writes it,
    /// unless the detail says what to do first. Needs no decision.
    Lost,
    /// A configuration mentions it, and it is missing in the source.
    Missing,
    /// A configuration points to a secret of another scope than its own: this may be an attempt to
    /// steal it.
    OtherScope,
    /// The source lists it, and no configuration mentions it.
    Orphaned,
    /// The target has scheduled that name for deletion.
    PendingDeletion,
    /// The target already has an equal value. Needs no decision: nothing is done with it.
    Present,
    /// A configuration mentions it, and the source has scheduled it for deletion: it can be restored.
    Recoverable,
    /// It is in more than one configuration.
    Shared,
    /// A configuration was not verified, for the given reason. Needs no decision.
    Skipped,
    /// A pointer names a storage id without a decision.
    Storage,
    /// The target cannot store the value.
    Unfit,
    /// A property that is not in the specification: a secret in it stays in plain text. Needs no
    /// decision.
    Unknown,
    /// A configuration is unreadable: a malformed pointer, an unknown reference. Always stops.
    Unreadable,
    /// A pointer by a reference id, and nothing was given that resolves references. Always stops.
    Unresolved,
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
            Self::Unknown => "unknown",
            Self::Unreadable => "unreadable",
            Self::Unresolved => "unresolved",
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
    /// The number of findings.
    pub count: u64,
    /// The first findings.
    pub listed: Vec<Finding>,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Its class.
    pub class: Class,
    /// The coordinate, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinate: Option<String>,
    /// The configuration's key, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// The place in the configuration as a JSON Pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The storage id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// The kind of the underlying error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Details for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The failure of one secret or one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// The coordinate, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinate: Option<String>,
    /// The configuration's key, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// The place in the configuration as a JSON Pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The kind of the error.
    pub kind: String,
    /// The error message for people.
    pub message: String,
}
