//! References to secrets that the caller keeps in a table of its own.

use async_trait::async_trait;
use uuid::Uuid;

use super::pointer::StorageId;
use crate::{Coordinate, Result};

/// Finds what a `_secret_reference_id` stands for. The caller owns the rows, so the caller looks.
///
/// ```
/// use async_trait::async_trait;
/// use secret_persistence_core::Result;
/// use secret_persistence_core::connector::{ResolveReferences, ResolvedReference};
/// use uuid::Uuid;
///
/// struct Rows(std::collections::HashMap<Uuid, ResolvedReference>);
///
/// #[async_trait]
/// impl ResolveReferences for Rows {
///     async fn resolve(&self, ids: &[Uuid]) -> Result<Vec<Option<ResolvedReference>>> {
///         Ok(ids.iter().map(|id| self.0.get(id).cloned()).collect())
///     }
/// }
/// ```
#[async_trait]
pub trait ResolveReferences: Send + Sync + 'static {
    /// Looks up references, all different: same length and order as asked, `None` for one that does
    /// not exist.
    ///
    /// # Errors
    /// Where the rows cannot be read. Then nothing is known of any of them.
    async fn resolve(&self, ids: &[Uuid]) -> Result<Vec<Option<ResolvedReference>>>;
}

/// What a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedReference {
    /// The secret.
    pub coordinate: Coordinate,
    /// The storage that has it; `None` is the default store.
    pub storage_id: Option<StorageId>,
}

impl ResolvedReference {
    /// A secret in the default store.
    #[must_use]
    pub fn new(coordinate: Coordinate) -> Self {
        Self {
            coordinate,
            storage_id: None,
        }
    }

    /// The same, in another storage.
    #[must_use]
    pub fn with_storage_id(mut self, storage_id: Option<StorageId>) -> Self {
        self.storage_id = storage_id;
        self
    }
}
