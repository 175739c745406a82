//! What a collector found and did: names, times and counts.
use std::fmt;

use secret_persistence_core::Timestamp;
use serde::Serialize;

use crate::Failure;

/// Why a secret may be superfluous, or why nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// A short-lived secret, of no workspace, that is older than the grace period and that no
    /// configuration names.
    Ephemeral,
    /// It has expired, whether or not a configuration names it.
    Expired,
    /// No configuration names it.
    Orphaned,
    /// No configuration names it, and the store does not tell when it was written.
    Undated,
    /// No configuration names it, and the store does not tell who wrote it.
    Unowned,
}

impl Reason {
    const ALL: [Self; 5] = [
        Self::Ephemeral,
        Self::Expired,
        Self::Orphaned,
        Self::Undated,
        Self::Unowned,
    ];

    /// The reason in `snake_case`, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ephemeral => "ephemeral",
            Self::Expired => "expired",
            Self::Orphaned => "orphaned",
            Self::Undated => "undated",
            Self::Unowned => "unowned",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fate {
    /// Deleted, or in the store's recovery window.
    Deleted,
    /// To be deleted, by a run that may.
    Due,
    /// The store refused to delete it.
    Failed,
    /// Never deleted, because the store does not tell when it was written or who wrote it.
    Kept,
    /// Not unreferenced for long enough.
    Waiting,
}

impl Fate {
    /// The fate in `snake_case`, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Due => "due",
            Self::Failed => "failed",
            Self::Kept => "kept",
            Self::Waiting => "waiting",
        }
    }
}

/// A secret that no configuration names, or that has expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Superfluous {
    /// Its name.
    pub coordinate: String,
    /// Why it may be superfluous.
    pub reason: Reason,
    /// What becomes of it.
    pub fate: Fate,
    /// When it was written, if the store records it.
    pub created: Option<Timestamp>,
    /// Since when every run found it so.
    pub since: Timestamp,
}

/// Why a collector stopped before it had deleted everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CollectStop {
    /// It was cancelled.
    Cancelled,
    /// Too many deletes failed.
    Failures,
    /// A larger share of the secrets would go than is allowed. Nothing was deleted.
    Share,
    /// A configuration does not say which secrets it names. Nothing was deleted.
    Unreadable,
}

impl CollectStop {
    const ALL: [Self; 4] = [
        Self::Cancelled,
        Self::Failures,
        Self::Share,
        Self::Unreadable,
    ];

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stop| stop.as_str() == text)
    }

    /// The reason in `snake_case`, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Failures => "failures",
            Self::Share => "share",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What a collector counted.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct CollectReport {
    /// Whether nothing was to be deleted.
    pub dry_run: bool,
    /// Why it stopped early, if it did.
    pub stopped: Option<CollectStop>,
    /// Whether another process with the same journal found why.
    pub stopped_by_another: bool,
    /// Secrets of this installation in the store, without those that are scheduled for deletion. The
    /// share is one of these.
    pub owned: u64,
    /// Secrets of other installations, which are left alone.
    pub foreign: u64,
    /// Of `owned`, younger than the grace period, and therefore not looked for in configurations.
    pub young: u64,
    /// Rows of configurations and records that were read.
    pub configurations: u64,
    /// Managed names in them.
    pub names: u64,
    /// Places that do not say which secret they name.
    pub unreadable: u64,
    /// [`Reason::Unowned`].
    pub unowned: u64,
    /// [`Reason::Undated`].
    pub undated: u64,
    /// [`Fate::Waiting`].
    pub waiting: u64,
    /// [`Reason::Orphaned`], and due or deleted.
    pub orphaned: u64,
    /// [`Reason::Ephemeral`].
    pub ephemeral: u64,
    /// [`Reason::Expired`].
    pub expired: u64,
    /// Deleted.
    pub deleted: u64,
    /// Secrets that could not be deleted.
    pub failed: u64,
    /// Whether another process with the same journal could not delete some, and this one could.
    pub others_failed: bool,
    /// The first unreadable places and failed deletes.
    pub failures: Vec<Failure>,
}

impl CollectReport {
    /// Whether everything was read, and everything was deleted that was to be.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stopped.is_none() && self.failed == 0 && !self.others_failed
    }
}
