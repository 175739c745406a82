//! Secrets that configurations also name in a storage or for a workspace that is left.
//!
//! The identity of whatever deletes is the store, not the id that a configuration reaches it by: an
//! installation whose first secrets were saved under the id of its default storage, and the others
//! without an id, has one store under two ids. An id that the operator leaves alone may therefore
//! mean the source or the target. Whether it does cannot be asked, because a run opens only two
//! stores, and two addresses of one store may have two identities. So names decide: a managed name
//! is given once, and a secret of this name is kept if any configuration names it, by any id. At
//! worst, a copy that nobody needs stays.

use std::collections::HashMap;

use parking_lot::Mutex;
use secret_persistence_core::{Coordinate, ManagedCoordinate};

use crate::holdings::{Holding, Means};
use crate::session::Session;
use crate::{JournalEntry, Mark, MigrateResult};

/// Names of the journal, each with one storage id, or with none if a row of another workspace names it.
/// Names that the journal does not contain are not kept here, because nothing deletes them.
#[derive(Debug, Default)]
pub(super) struct LeftNames(Mutex<HashMap<ManagedCoordinate, Option<String>>>);

impl LeftNames {
    /// Forgets all.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    /// Notes a name that another process has found.
    pub(super) fn note(&self, name: ManagedCoordinate, storage: Option<String>) {
        self.0.lock().insert(name, storage);
    }
}

/// A name, and the storage in which a row names it; none for a row of another workspace.
type Left = (ManagedCoordinate, Option<String>);

/// What rows name in a storage or for a workspace that is left.
pub(super) fn left_among(holdings: &[Holding]) -> Vec<Left> {
    holdings
        .iter()
        .flat_map(|holding| &holding.held)
        .filter_map(|held| match &held.means {
            Means::Elsewhere {
                coordinate: Coordinate::Managed(name),
                storage,
            } => Some((name.clone(), Some(storage.clone()))),
            Means::OtherWorkspace(Coordinate::Managed(name)) => Some((name.clone(), None)),
            _ => None,
        })
        .collect()
}

impl Session<'_> {
    /// Notes the secrets that rows name in a storage or for a workspace that is left. What the same scan
    /// has found must be in the journal.
    pub(super) async fn note_left(&self, left: Vec<Left>) -> MigrateResult<()> {
        if left.is_empty() {
            return Ok(());
        }
        let (names, storages): (Vec<_>, Vec<_>) = left.into_iter().unzip();
        let known = self.journal.find(&names).await?;
        let mut marks = Vec::new();
        for ((name, storage), known) in names.into_iter().zip(storages).zip(known) {
            if known.is_some() {
                self.left.note(name.clone(), storage.clone());
                marks.push(Mark::Left(name, storage));
            }
        }
        self.mark(marks).await
    }

    /// Why a secret must not be deleted, if a configuration names it in a storage or for a workspace that is
    /// left.
    pub(super) fn left_in(&self, entry: &JournalEntry) -> Option<String> {
        let left = self.left.0.lock();
        let Some(id) = left.get(&entry.coordinate)? else {
            return Some("a configuration of another workspace names it".to_owned());
        };
        Some(format!(
            "a configuration names it in storage {id}, which may be this store; if the id means the \
             source or the target, use --storage {id}=move"
        ))
    }

    /// Whether a configuration names a secret in a storage or for a workspace that is left.
    pub(super) fn is_left(&self, coordinate: &ManagedCoordinate) -> bool {
        self.left.0.lock().contains_key(coordinate)
    }
}
