//! Restricts a migration to the secrets of some workspaces.
use std::collections::BTreeSet;

use secret_persistence_core::{ManagedCoordinate, Scope};
use uuid::Uuid;

/// The workspaces of a run; all if empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Workspaces(BTreeSet<Uuid>);

impl Workspaces {
    pub(super) fn new(ids: impl IntoIterator<Item = Uuid>) -> Self {
        Self(ids.into_iter().collect())
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &Uuid> {
        self.0.iter()
    }

    pub(super) fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a row is one of theirs, if the source knows.
    pub(super) fn have_row(&self, base_id: Option<Uuid>) -> Option<bool> {
        base_id.map(|id| self.is_all() || self.0.contains(&id))
    }

    /// Whether a name is one of theirs, by itself.
    pub(super) fn have_name(&self, name: &ManagedCoordinate) -> bool {
        self.is_all() || self.0.iter().any(|id| Scope::workspace(*id).contains(name))
    }

    /// Whether a secret is one of theirs: by the row that names it or by its name. What nobody knows
    /// belongs to all.
    pub(super) fn have(&self, base_id: Option<Uuid>, name: Option<&ManagedCoordinate>) -> bool {
        match (
            self.have_row(base_id),
            name.map(|name| self.have_name(name)),
        ) {
            (None, None) => true,
            (row, name) => row == Some(true) || name == Some(true),
        }
    }
}
