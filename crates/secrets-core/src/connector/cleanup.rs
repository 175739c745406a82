//! Deletes secrets that no configuration refers to any more, and says what became of each.

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use uuid::Uuid;

use super::by_storage::by_storage;
use super::error::ConnectorError;
use super::record::Location;
use super::secrets::ActingSecrets;
use crate::{
    Coordinate, DeleteOptions, Error, ErrorKind, ManagedCoordinate, Operation, Recovery,
    SecretPersistence, Timestamp,
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
    pub deleted: Vec<Location>,
    /// Could not be deleted.
    pub failed: Vec<Undeleted>,
    /// Left, because the store says that another installation wrote them.
    pub foreign: Vec<Foreign>,
    /// Left until the retention is over.
    pub retained: Vec<Location>,
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
    pub location: Location,
    /// Why.
    pub error: Error,
}

/// A secret of another installation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Foreign {
    /// The secret.
    pub location: Location,
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

enum Removed {
    Deleted,
    Failed(Error),
    Foreign(String),
}

impl ActingSecrets {
    /// Deletes what nobody refers to any more, all stores at once.
    pub(super) async fn clean_up(
        &self,
        locations: &[Location],
        reason: Reason,
    ) -> Result<Cleanup, ConnectorError> {
        let groups = by_storage(
            locations
                .iter()
                .map(|location| location.storage_id.as_ref()),
        );
        let groups = groups.into_iter().map(|(storage_id, members)| async move {
            let store = self.stores().store(storage_id).await;
            let mut removals = Vec::with_capacity(members.len());
            let concurrency = match &store {
                Ok(store) => store.capabilities().concurrency.max(1),
                Err(_) => 1,
            };
            for at in members {
                let (store, coordinate) = (&store, &locations[at].coordinate);
                removals.push(async move {
                    let removed = match store {
                        Ok(store) => self.remove(store.as_ref(), coordinate, reason).await,
                        Err(error) => {
                            Removed::Failed(error.clone().with_coordinate(coordinate.shared()))
                        }
                    };
                    (at, removed)
                });
            }
            let removed: Vec<(usize, Removed)> = stream::iter(removals)
                .buffer_unordered(concurrency)
                .collect()
                .await;
            removed
        });
        let mut removed: Vec<(usize, Removed)> =
            join_all(groups).await.into_iter().flatten().collect();
        removed.sort_unstable_by_key(|(at, _)| *at);

        let mut cleanup = Cleanup::default();
        let mut events = self.events(Operation::Delete);
        for (at, removed) in removed {
            let location = locations[at].clone();
            let coordinate = || Coordinate::Managed(location.coordinate.clone());
            match removed {
                Removed::Deleted => {
                    events.succeeded(location.storage_id.as_ref(), coordinate);
                    cleanup.deleted.push(location);
                }
                Removed::Failed(error) => {
                    events.failed(location.storage_id.as_ref(), coordinate, error.kind());
                    cleanup.failed.push(Undeleted { location, error });
                }
                Removed::Foreign(owner) => cleanup.foreign.push(Foreign { location, owner }),
            }
        }
        events.record().await?;
        Ok(cleanup)
    }

    async fn remove(
        &self,
        store: &dyn SecretPersistence,
        coordinate: &ManagedCoordinate,
        reason: Reason,
    ) -> Removed {
        if reason.checks_owner() && store.capabilities().owner {
            match store.describe(coordinate).await {
                Ok(entry) => {
                    let ours = self.stores().owner().map(crate::Owner::as_str);
                    if let Some(theirs) = entry.owner.filter(|theirs| ours != Some(theirs)) {
                        return Removed::Foreign(theirs);
                    }
                }
                // Deleting what is not there is no harm, and a half-made secret (metadata without a
                // value) may be there though it cannot be described.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::PendingDeletion => {
                    return Removed::Deleted;
                }
                Err(error) => return Removed::Failed(error),
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
        match result {
            Ok(()) => Removed::Deleted,
            Err(error) => Removed::Failed(error),
        }
    }
}
