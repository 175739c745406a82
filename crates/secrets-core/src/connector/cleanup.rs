//! Deletes secrets that no configuration refers to any more, and reports the result for each.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use indexmap::IndexMap;
use uuid::Uuid;

use super::error::ConnectorError;
use super::secrets::ActingSecrets;
use crate::{
    DeleteOptions, Error, ErrorKind, Location, ManagedCoordinate, Operation, Recovery, Result,
    SecretPersistence, SecretPersistenceExt, StorageId, Stores, Timestamp,
};

/// The result of deleting secrets at the end of a change.
///
/// A failed delete is not a failure of the change: healing its record again, or the collector,
/// deletes what is left.
#[derive(Clone, Debug, Default)]
#[must_use = "it names what could not be deleted"]
#[non_exhaustive]
pub struct Cleanup {
    /// Deleted, or in the store's recovery window.
    pub deleted: Vec<Location<ManagedCoordinate>>,
    /// Could not be deleted.
    pub failed: Vec<Undeleted>,
    /// Kept, because the store says that another installation wrote them.
    pub foreign: Vec<Foreign>,
    /// Kept until the retention is over.
    pub retained: Vec<Location<ManagedCoordinate>>,
    /// References that the change replaced or removed; only commit knows them. Their rows and
    /// secrets belong to the caller, who may remove them.
    pub released_references: Vec<Uuid>,
    /// When to [`heal`] the record again: a write may still be in flight, or the retention has not
    /// ended.
    ///
    /// [`heal`]: ActingSecrets::heal
    pub again: Option<Timestamp>,
}

impl Cleanup {
    /// Whether nothing is left to do, so that the record can be removed from the outbox.
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
    /// The reason.
    pub error: Error,
}

/// A secret of another installation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Foreign {
    /// The secret.
    pub location: Location<ManagedCoordinate>,
    /// The installation that wrote it, according to the store.
    pub owner: String,
}

/// Why secrets are deleted, which determines how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A change that this process attempted itself, under new names: they are certainly ours, and
    /// nobody will need them again.
    Attempted,
    /// A change from a record. The record may be a copy: in a staging system restored from
    /// production's backup, of a change that production has saved since.
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

/// The result of deleting a secret.
#[derive(Clone)]
enum Removed {
    Deleted,
    /// Kept, because this other installation wrote it.
    Foreign(String),
}

impl ActingSecrets {
    /// Deletes secrets that nothing refers to any more, in all stores concurrently.
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
            match removed {
                Ok(Removed::Deleted) => {
                    events.push(None, || location.clone().into());
                    cleanup.deleted.push(location);
                }
                Err(error) => {
                    let error = match error.coordinate() {
                        Some(_) => error,
                        None => error.with_coordinate(location.coordinate.shared()),
                    };
                    events.push(Some(error.kind()), || location.clone().into());
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

    /// The result for each: same length and order.
    async fn remove_all(
        &self,
        store: Arc<dyn SecretPersistence>,
        locations: &[&Location<ManagedCoordinate>],
        reason: Reason,
    ) -> Vec<Result<Removed>> {
        let capabilities = store.capabilities();
        let mut results: Vec<Option<Result<Removed>>> = vec![None; locations.len()];
        if reason.checks_owner() && capabilities.owner {
            let mut kept = Vec::with_capacity(locations.len());
            for location in locations {
                kept.push(self.kept(store.as_ref(), &location.coordinate));
            }
            let kept = stream::iter(kept).buffered(capabilities.concurrency.max(1));
            results = kept.map(Result::transpose).collect().await;
        }
        let recovery = reason.recovery();
        let deletes = self.delete_open(store.as_ref(), locations, recovery, &mut results);
        let refused = deletes.await;
        if recovery == Recovery::Immediate && !refused.is_empty() {
            // Permissions often allow only a delete with recovery window, and some stores support
            // only that.
            for at in refused {
                results[at] = None;
            }
            self.delete_open(
                store.as_ref(),
                locations,
                Recovery::Configured,
                &mut results,
            )
            .await;
        }
        // Every entry was kept or deleted, or failed.
        results.into_iter().flatten().collect()
    }

    /// Why a secret is not deleted; `None` if it is to be.
    async fn kept(
        &self,
        store: &dyn SecretPersistence,
        coordinate: &ManagedCoordinate,
    ) -> Result<Option<Removed>> {
        match store.describe(coordinate).await {
            Ok(entry) => {
                let ours = self.stores().owner().map(crate::Owner::as_str);
                let foreign = entry.owner.filter(|theirs| ours != Some(theirs));
                Ok(foreign.map(Removed::Foreign))
            }
            // Deleting a missing secret is harmless, and a partly written secret (metadata
            // without a value) may exist although it cannot be described.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::PendingDeletion => Ok(Some(Removed::Deleted)),
            Err(error) => Err(error),
        }
    }

    /// Deletes those without a result. Returns which of them the store does not delete in this way.
    async fn delete_open(
        &self,
        store: &dyn SecretPersistence,
        locations: &[&Location<ManagedCoordinate>],
        recovery: Recovery,
        results: &mut [Option<Result<Removed>>],
    ) -> Vec<usize> {
        let open: Vec<usize> = (0..results.len())
            .filter(|&at| results[at].is_none())
            .collect();
        let mut names = Vec::with_capacity(open.len());
        for &at in &open {
            names.push(locations[at].coordinate.clone());
        }
        let options = DeleteOptions::default().with_recovery(recovery);
        let deleted = store.delete_many(&names, &options).await;
        let mut refused = Vec::new();
        for (at, result) in open.into_iter().zip(deleted) {
            let kind = result.as_ref().err().map(Error::kind);
            if let Some(ErrorKind::PermissionDenied | ErrorKind::Unsupported) = kind {
                refused.push(at);
            }
            results[at] = Some(result.map(|()| Removed::Deleted));
        }
        refused
    }
}
