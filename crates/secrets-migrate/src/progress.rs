//! The events of a run.
use std::fmt::{self, Debug};

use serde::Serialize;

use crate::{Failure, Finding};

/// Observes a run. Called often and from several tasks; it must return quickly.
pub trait Observer: Debug + Send + Sync {
    /// Handles an event. Events contain names and counts, never a value.
    fn event(&self, event: &Event<'_>);
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event<'_>) {}
}

/// An event of a run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Progress within a phase.
    Advanced {
        /// Which phase.
        phase: Phase,
        /// How many units since the phase began.
        done: u64,
    },
    /// A phase has begun.
    Began {
        /// Which phase.
        phase: Phase,
        /// The number of units, if it is known.
        total: Option<u64>,
    },
    /// Plan or verify has compared a secret on both sides. Not for secrets that neither side has.
    Compared {
        /// The secret.
        coordinate: &'a str,
        /// The configuration that mentions it, if it is known.
        configuration: Option<&'a str>,
        /// The result.
        difference: Difference,
    },
    /// A phase has ended, complete or because the run was stopped.
    Ended {
        /// Which phase.
        phase: Phase,
        /// How many units since the phase began.
        done: u64,
    },
    /// Something failed on one secret or one configuration.
    Failed(&'a Failure),
    /// A finding that needs a decision, or that the operator should know.
    Found(&'a Finding),
}

/// How the target differs from the source in one secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Difference {
    /// The target has another value.
    Different,
    /// Both have the same value.
    Equal,
    /// The source has it, the target does not.
    Missing,
    /// The target has it, the source does not.
    Unexpected,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Secrets are compared between source and target.
    Compare,
    /// Secrets are being copied.
    Copy,
    /// Secrets are being deleted: from the target by rollback, from the source by retire.
    Delete,
    /// Configurations are hydrated.
    Hydrate,
    /// The source is listed.
    List,
    /// Configurations are read.
    Scan,
    /// Configurations are split.
    Split,
    /// Configurations get their own copies of shared secrets.
    Unshare,
}

impl Phase {
    /// The phase in lower case, stable, for progress and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compare => "compare",
            Self::Copy => "copy",
            Self::Delete => "delete",
            Self::Hydrate => "hydrate",
            Self::List => "list",
            Self::Scan => "scan",
            Self::Split => "split",
            Self::Unshare => "unshare",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
