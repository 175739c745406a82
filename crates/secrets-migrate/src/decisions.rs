//! What to do with what a plan finds.
use std::collections::BTreeMap;

use serde::Serialize;

use crate::Class;

/// What the operator has decided about each class of findings.
///
/// A class that has findings and no decision stops a plan and a copy. Nothing is decided unless
/// told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Decisions {
    /// Secrets that expire, where the target keeps no expiry.
    pub expiring: Option<Expiring>,
    /// External references.
    pub external: Option<External>,
    /// Coordinates that configurations mention and the source has not.
    pub missing: Option<Missing>,
    /// Pointers at secrets of another scope than their row's.
    pub other_scope: Option<OtherScope>,
    /// Coordinates that the source lists and no configuration mentions.
    pub orphaned: Option<Orphaned>,
    /// Names that are scheduled for deletion in the target.
    pub pending_deletion: Option<PendingDeletion>,
    /// Secrets that configurations mention and the source has scheduled for deletion.
    pub recoverable: Option<Recoverable>,
    /// Coordinates that stand in more than one configuration.
    pub shared: Option<Shared>,
    /// Pointers with a storage id, by that id.
    pub storage: BTreeMap<String, Storage>,
    /// Values that the target cannot hold: too large, empty, with a NUL.
    pub unfit: Option<Unfit>,
}

/// Secrets that expire, where the target keeps no expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Expiring {
    /// They are copied, and will not expire there.
    DropExpiry,
    /// They are not copied.
    Skip,
}

/// Secrets of others, which are never copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum External {
    /// The target is expected to have them under the same name; verify reads them there.
    Expect,
    /// They stay where they are; verify reads them in the source.
    Leave,
}

/// Coordinates that configurations mention and the source has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Missing {
    /// Their configurations are broken already; the others are moved.
    Skip,
}

/// Coordinates that the source lists and no configuration mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Orphaned {
    /// They are copied too.
    Copy,
    /// They stay in the source.
    Leave,
}

/// Pointers at secrets of another scope than their row's: of another workspace, say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum OtherScope {
    /// They are meant: the secrets are moved like all others, and never copied into the row's scope.
    Keep,
}

/// Secrets that configurations mention and the source has scheduled for deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Recoverable {
    /// Their configurations are broken already; the others are moved.
    Skip,
}

/// Names that are scheduled for deletion in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PendingDeletion {
    /// They are restored where they hold the equal value; another value is a conflict, and stays
    /// scheduled.
    Restore,
    /// They are not copied.
    Skip,
}

/// Coordinates that stand in more than one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Shared {
    /// They stay shared.
    Keep,
    /// Each configuration but the first gets a copy of its own, in the source, before anything is
    /// copied; its row is updated by compare-and-swap.
    Unshare,
}

/// Pointers that name a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Storage {
    /// The id is another store, whose secrets stay there; verify does not read them.
    Leave,
    /// The id is the source; its secrets are moved, and the operator lets the id mean the target.
    Move,
}

/// Values that the target cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Unfit {
    /// They stay in the source.
    Skip,
}

impl Decisions {
    /// Decides about secrets that expire.
    #[must_use]
    pub fn with_expiring(mut self, decision: Expiring) -> Self {
        self.expiring = Some(decision);
        self
    }

    /// Decides about external references.
    #[must_use]
    pub fn with_external(mut self, decision: External) -> Self {
        self.external = Some(decision);
        self
    }

    /// Decides about missing secrets.
    #[must_use]
    pub fn with_missing(mut self, decision: Missing) -> Self {
        self.missing = Some(decision);
        self
    }

    /// Decides about pointers at secrets of another scope.
    #[must_use]
    pub fn with_other_scope(mut self, decision: OtherScope) -> Self {
        self.other_scope = Some(decision);
        self
    }

    /// Decides about secrets that the source has scheduled for deletion.
    #[must_use]
    pub fn with_recoverable(mut self, decision: Recoverable) -> Self {
        self.recoverable = Some(decision);
        self
    }

    /// Decides about orphans.
    #[must_use]
    pub fn with_orphaned(mut self, decision: Orphaned) -> Self {
        self.orphaned = Some(decision);
        self
    }

    /// Decides about names that are scheduled for deletion.
    #[must_use]
    pub fn with_pending_deletion(mut self, decision: PendingDeletion) -> Self {
        self.pending_deletion = Some(decision);
        self
    }

    /// Decides about shared coordinates.
    #[must_use]
    pub fn with_shared(mut self, decision: Shared) -> Self {
        self.shared = Some(decision);
        self
    }

    /// Decides about the pointers of one storage id.
    #[must_use]
    pub fn with_storage(mut self, id: impl Into<String>, decision: Storage) -> Self {
        self.storage.insert(id.into(), decision);
        self
    }

    /// Decides about values that the target cannot hold.
    #[must_use]
    pub fn with_unfit(mut self, decision: Unfit) -> Self {
        self.unfit = Some(decision);
        self
    }

    /// Whether a class with findings lets a run go on. Storage ids are decided one by one, so the
    /// class as a whole never stops; conflicts and what cannot be understood always do.
    pub(super) fn settles(&self, class: Class) -> bool {
        match class {
            Class::Conflicting | Class::Storage | Class::Unreadable => false,
            Class::Expiring => self.expiring.is_some(),
            Class::External => self.external.is_some(),
            Class::Missing => self.missing.is_some(),
            Class::OtherScope => self.other_scope.is_some(),
            Class::Recoverable => self.recoverable.is_some(),
            Class::Orphaned => self.orphaned.is_some(),
            Class::PendingDeletion => self.pending_deletion.is_some(),
            Class::Changed | Class::Kept | Class::Lost | Class::Present | Class::Skipped => true,
            Class::Shared => self.shared.is_some(),
            Class::Unfit => self.unfit.is_some(),
        }
    }
}
