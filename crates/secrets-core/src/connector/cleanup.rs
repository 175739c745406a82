//! Deletes secrets that no configuration refers to any more, and says what became of each.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use indexmap::IndexMap;
use uuid::Uuid;

use super::error::ConnectorError;
use super::secrets::ActingSecrets;
use crate::{
    Coordinate, DeleteOptions, Error, ErrorKind, Location, ManagedCoordinate, Operation, Recovery,
    Result, SecretPersistence, StorageId, Stores, Timestamp,
};

/// What the end of a change did to the secrets that nobody needs any more.
///
/// None of it is a failure of the change itself: whatever is left is found by healing its record
/// again, or by the collector.
#[derive(Clone, Debug, Default)]
#[must_use = "it names what could not be deleted"]
#[non_exhaustive]
pub struct Cleanup {
    /// Gone, or within the store's recovery window.
    pub deleted: Vec<Location<ManagedCoordinate>>,
    /// Could not be deleted.
    pub failed: Vec<Undeleted>,
    /// Left, because the store says that another installation wrote them.
    pub foreign: Vec<Foreign>,
    /// Left until the retention is over.
    pub retained: Vec<Location<ManagedCoordinate>>,
    /// References that the change replaced or removed, known to commit alone. Their rows and secrets
    /// are the caller's to remove.
    pub released_references: Vec<Uuid>,
    /// When to [`heal`] the record again: a write may still be in flight, or the retention runs.
    ///
    /// [`heal`]: ActingSecrets::heal
    pub again: Option<Timestamp>,
}

impl Cleanup {
    /// Whether nothing is left to do: the record can be removed from the outbox.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.failed.is_empty() && self.again.is_none()
    }
}

/// A secret that could not be deleted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Undeleted {
    /// The secret.
    pub location: Location<ManagedCoordinate>,
    /// Why.
    pub error: Error,
}

/// A secret of another installation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Foreign {
    /// The secret.
    pub location: Location<ManagedCoordinate>,
    /// The installation that wrote it, as the store says.
    pub owner: String,
}

/// Why secrets are to be deleted, which decides how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A change that this process attempted itself, under names that are new: certainly ours, and
    /// nobody will ever want them back.
    Attempted,
    /// A change that a record tells of. The record may be a copy, in a staging system restored from
    /// production's backup, of one that production has saved meanwhile.
    Recorded,
    /// A saved change has superseded them.
    Superseded,
}

impl Reason {
    fn checks_owner(self) -> bool {
        self != Self::Attempted
    }

    fn recovery(self) -> Recovery {
        match self {
            Self::Attempted | Self::Recorded => Recovery::Immediate,
            Self::Superseded => Recovery::Configured,
        }
    }
}

/// What became of a secret that was to be deleted.
#[derive(Clone)]
enum Removed {
    Deleted,
    /// Left, because this other installation wrote it.
    Foreign(String),
}

impl ActingSecrets {
    /// Deletes what nobody refers to any more, all stores at once.
    pub(super) async fn clean_up(
        &self,
        locations: &[Location<ManagedCoordinate>],
        reason: Reason,
    ) -> Result<Cleanup, ConnectorError> {
        let mut storages: IndexMap<_, Vec<&Location<ManagedCoordinate>>> = IndexMap::new();
        for location in locations {
            let storage_id = location.storage_id.as_ref();
            storages.entry(storage_id).or_default().push(location);
        }
        let removals = storages
            .iter()
            .map(|(storage_id, locations)| self.remove_from(*storage_id, locations, reason));
        let removals = join_all(removals).await;

        let mut cleanup = Cleanup::default();
        let mut events = self.events(Operation::Delete);
        let locations = storages.into_values().flatten();
        for (location, removed) in locations.zip(removals.into_iter().flatten()) {
            let location = location.clone();
            let coordinate = || Coordinate::Managed(location.coordinate.clone());
            match removed {
                Ok(Removed::Deleted) => {
                    events.succeeded(location.storage_id.as_ref(), coordinate);
                    cleanup.deleted.push(location);
                }
                Err(error) => {
                    let error = match error.coordinate() {
                        Some(_) => error,
                        None => error.with_coordinate(location.coordinate.shared()),
                    };
                    events.failed(location.storage_id.as_ref(), coordinate, error.kind());
                    cleanup.failed.push(Undeleted { location, error });
                }
                Ok(Removed::Foreign(owner)) => cleanup.foreign.push(Foreign { location, owner }),
            }
        }
        events.record().await?;
        Ok(cleanup)
    }

    async fn remove_from(
        &self,
        storage_id: Option<&StorageId>,
        locations: &[&Location<ManagedCoordinate>],
        reason: Reason,
    ) -> Vec<Result<Removed>> {
        let remove = |store| self.remove_all(store, locations, reason);
        match self.stores().call(storage_id, remove).await {
            Ok(Some(results)) => results,
            Ok(None) => vec![Err(Stores::unknown(storage_id)); locations.len()],
            Err(error) => vec![Err(error); locations.len()],
        }
    }

    /// What became of each: same length and order.
    async fn remove_all(
        &self,
        store: Arc<dyn SecretPersistence>,
        locations: &[&Location<ManagedCoordinate>],
        reason: Reason,
    ) -> Vec<Result<Removed>> {
        let mut removals = Vec::with_capacity(locations.len());
        for location in locations {
            removals.push(self.remove(store.as_ref(), &location.coordinate, reason));
        }
        let concurrency = store.capabilities().concurrency.max(1);
        stream::iter(removals).buffered(concurrency).collect().await
    }

    async fn remove(
        &self,
        store: &dyn SecretPersistence,
        coordinate: &ManagedCoordinate,
        reason: Reason,
    ) -> Result<Removed> {
        if reason.checks_owner() && store.capabilities().owner {
            match store.describe(coordinate).await {
                Ok(entry) => {
                    let ours = self.stores().owner().map(crate::Owner::as_str);
                    if let Some(theirs) = entry.owner.filter(|theirs| ours != Some(theirs)) {
                        return Ok(Removed::Foreign(theirs));
                    }
                }
                // Deleting what is not there is no harm, and a half-made secret (metadata without a
                // value) may be there though it cannot be described.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::PendingDeletion => {
                    return Ok(Removed::Deleted);
                }
                Err(error) => return Err(error),
            }
        }
        let options = DeleteOptions::default().with_recovery(reason.recovery());
        let result = match store.delete(coordinate, &options).await {
            // Rights often allow a delete with the recovery window only, and some stores know no other.
            Err(error)
                if options.recovery == Recovery::Immediate
                    && matches!(
                        error.kind(),
                        ErrorKind::PermissionDenied | ErrorKind::Unsupported
                    ) =>
            {
                store.delete(coordinate, &DeleteOptions::default()).await
            }
            result => result,
        };
        result.map(|()| Removed::Deleted)
    }
}
