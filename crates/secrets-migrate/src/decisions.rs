//! The operator's decisions about the findings of a plan.
use std::collections::BTreeMap;

use serde::Serialize;

use crate::Class;

/// The operator's decision about each class of findings.
///
/// A class with findings and without a decision stops a plan and a copy. By default, nothing is
/// decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Decisions {
    /// Secrets that expire, if the target does not store expiry.
    pub expiring: Option<Expiring>,
    /// External secrets.
    pub external: Option<External>,
    /// Coordinates in configurations that are missing in the source.
    pub missing: Option<Missing>,
    /// Pointers to secrets of another scope than their row.
    pub other_scope: Option<OtherScope>,
    /// Coordinates in the source that no configuration mentions.
    pub orphaned: Option<Orphaned>,
    /// Names that are scheduled for deletion in the target.
    pub pending_deletion: Option<PendingDeletion>,
    /// Secrets in configurations that the source has scheduled for deletion.
    pub recoverable: Option<Recoverable>,
    /// Coordinates in more than one configuration.
    pub shared: Option<Shared>,
    /// Pointers with a storage id, by that id.
    pub storage: BTreeMap<String, Storage>,
    /// Values that the target cannot store: too large, empty, or with a NUL character.
    pub unfit: Option<Unfit>,
}

/// Secrets that expire, if the target does not store expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Expiring {
    /// Copy them; they will not expire in the target.
    DropExpiry,
    /// Do not copy them.
    Skip,
}

/// External secrets, which are never copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum External {
    /// The target has them under the same name; verify reads them there.
    Expect,
    /// They stay in the source; verify reads them there.
    Leave,
}

/// Coordinates in configurations that are missing in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Missing {
    /// Ignore them: their configurations are already broken. Move the others.
    Skip,
}

/// Coordinates in the source that no configuration mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Orphaned {
    /// Copy them too.
    Copy,
    /// Leave them in the source.
    Leave,
}

/// Pointers to secrets of another scope than their row, for example of another workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum OtherScope {
    /// They are intended: move the secrets like all others, and never copy them into the row's
    /// scope.
    Keep,
}

/// Secrets in configurations that the source has scheduled for deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Recoverable {
    /// Ignore them: their configurations are already broken. Move the others.
    Skip,
}

/// Names that are scheduled for deletion in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PendingDeletion {
    /// Restore those that have an equal value. Another value is a conflict and stays scheduled for
    /// deletion.
    Restore,
    /// Do not copy them.
    Skip,
}

/// Coordinates in more than one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Shared {
    /// Keep them shared.
    Keep,
    /// Before the copy, give each configuration except the first its own copy in the source, and
    /// update its row by compare-and-swap.
    Unshare,
}

/// Pointers that name a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Storage {
    /// The id is another store and its secrets stay there; verify does not read them.
    Leave,
    /// The id is the source: move its secrets. The operator then changes the id to the target.
    Move,
}

/// Values that the target cannot store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Unfit {
    /// Leave them in the source.
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

    /// Decides about pointers to secrets of another scope.
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

    /// Whether a run may continue despite the findings of a class. Storage ids are decided one by
    /// one, so the class as a whole never stops a run. Conflicts and places that are unreadable or
    /// unresolved always do.
    pub(super) fn settles(&self, class: Class) -> bool {
        match class {
            Class::Conflicting | Class::Storage | Class::Unreadable | Class::Unresolved => false,
            Class::Expiring => self.expiring.is_some(),
            Class::External => self.external.is_some(),
            Class::Missing => self.missing.is_some(),
            Class::OtherScope => self.other_scope.is_some(),
            Class::Recoverable => self.recoverable.is_some(),
            Class::Orphaned => self.orphaned.is_some(),
            Class::PendingDeletion => self.pending_deletion.is_some(),
            Class::Changed
            | Class::Kept
            | Class::Lost
            | Class::Present
            | Class::Skipped
            | Class::Unknown => true,
            Class::Shared => self.shared.is_some(),
            Class::Unfit => self.unfit.is_some(),
        }
    }
}
