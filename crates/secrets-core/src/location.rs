//! The location of a secret.

use std::fmt;

use crate::{Coordinate, ManagedCoordinate, StorageId};

/// The location of a secret: the storage, and the name in it. Two secrets are the same if both are
/// equal.
///
/// `Location<ManagedCoordinate>` is a secret that we wrote and may delete.
///
/// ```
/// use secret_persistence_core::{Location, ManagedCoordinate, StorageId};
///
/// let coordinate = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1")?;
/// let location = Location::new(coordinate).with_storage_id(Some("team-a".parse()?));
/// assert_eq!(location.to_string(), "airbyte_workspace_1_secret_2_v1 in storage team-a");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Location<C = Coordinate> {
    /// The name.
    pub coordinate: C,
    /// The storage; `None` is the default store.
    pub storage_id: Option<StorageId>,
}

impl<C> Location<C> {
    /// Creates the location of a secret in the default store.
    #[must_use]
    pub fn new(coordinate: C) -> Self {
        Self {
            coordinate,
            storage_id: None,
        }
    }

    /// Sets the storage.
    #[must_use]
    pub fn with_storage_id(mut self, storage_id: Option<StorageId>) -> Self {
        self.storage_id = storage_id;
        self
    }
}

impl Location {
    /// The location as that of a managed secret; `None` for an external one.
    #[must_use]
    pub fn managed(self) -> Option<Location<ManagedCoordinate>> {
        match self.coordinate {
            Coordinate::Managed(coordinate) => {
                Some(Location::new(coordinate).with_storage_id(self.storage_id))
            }
            Coordinate::External(_) => None,
        }
    }
}

impl From<Location<ManagedCoordinate>> for Location {
    fn from(location: Location<ManagedCoordinate>) -> Self {
        Self::new(location.coordinate.into()).with_storage_id(location.storage_id)
    }
}

impl<C: fmt::Display> fmt::Display for Location<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.storage_id {
            None => self.coordinate.fmt(f),
            Some(storage_id) => write!(f, "{} in storage {storage_id}", self.coordinate),
        }
    }
}
