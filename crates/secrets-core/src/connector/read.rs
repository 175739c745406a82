//! Reads the secrets of pointers: every secret once, all stores concurrently.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;
use indexmap::{IndexMap, IndexSet};

use super::error::{ConnectorError, Problem, ProblemKind};
use super::place::Place;
use super::pointer::Pointer;
use super::references::{References, UnresolvedReference};
use super::secrets::{ActingSecrets, EventPlaces};
use crate::ext::read_all;
use crate::{
    Coordinate, Error, Location, Operation, Read, SecretPersistence, SecretValue, StorageId,
};

/// Why a pointer has no value.
#[derive(Clone)]
pub(super) enum Unread {
    Reference(UnresolvedReference),
    Store(Error),
    UnknownStorage,
}

impl Unread {
    /// Whether the secret is permanently unreadable, and not only at the moment.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Store(error) if error.kind().is_gone())
    }

    pub(super) fn at(self, place: Place, pointer: &Pointer) -> Problem {
        let problem = match self {
            Self::Reference(unresolved) => return unresolved.at(place, pointer),
            Self::Store(error) => Problem::of_store(place, error),
            Self::UnknownStorage => Problem::new(
                place,
                ProblemKind::UnknownStorage,
                "no storage has the pointer's storage id; add settings for it",
            ),
        };
        match &pointer.coordinate {
            Some(coordinate) => problem.with_coordinate(coordinate.shared()),
            None => problem,
        }
    }
}

impl ActingSecrets {
    /// The value of each pointer: same length and order. The places of the pointers are for the
    /// audit, in the same order; none where they are unknown or nobody listens.
    ///
    /// # Errors
    /// Only if the audit is required and its sink fails; then no value is returned.
    pub(super) async fn read(
        &self,
        pointers: &[Pointer],
        places: &[Place],
        references: &References,
    ) -> Result<Vec<Result<SecretValue, Unread>>, ConnectorError> {
        if let Some((storage_id, names)) = self.in_one_storage(pointers) {
            return Ok(self.read_storage(storage_id, &names).await);
        }
        let mut storages: IndexMap<Option<StorageId>, IndexSet<Coordinate>> = IndexMap::new();
        let targets: Vec<Result<(usize, usize), UnresolvedReference>> = pointers
            .iter()
            .map(|pointer| {
                let location = references.locate(pointer)?;
                let entry = storages.entry(location.storage_id);
                let storage = entry.index();
                let (name, _) = entry.or_default().insert_full(location.coordinate);
                Ok((storage, name))
            })
            .collect();
        let storages: Vec<(Option<StorageId>, Vec<Coordinate>)> = storages
            .into_iter()
            .map(|(storage_id, names)| (storage_id, names.into_iter().collect()))
            .collect();
        let reads = storages
            .iter()
            .map(|(storage_id, names)| self.read_storage(storage_id.as_ref(), names));
        let values = join_all(reads).await;

        let mut events = self.events(Operation::Read);
        let mut at: HashMap<(usize, usize), EventPlaces<'_>> = HashMap::new();
        for (target, place) in targets.iter().zip(places) {
            if let Ok(target) = target {
                events.place(at.entry(*target).or_default(), place);
            }
        }
        for (storage, ((storage_id, names), values)) in storages.iter().zip(&values).enumerate() {
            for (index, (name, value)) in names.iter().zip(values).enumerate() {
                let failure = match value {
                    Ok(_) => None,
                    Err(Unread::Store(error)) => Some(error.kind()),
                    // Nothing was asked.
                    Err(_) => continue,
                };
                events.push_at(failure, || {
                    let location = Location::new(name.clone()).with_storage_id(storage_id.clone());
                    let places = at.remove(&(storage, index)).unwrap_or_default();
                    (location, places)
                });
            }
        }
        events.record().await?;

        Ok(targets
            .into_iter()
            .map(|target| {
                let (storage, name) = target.map_err(Unread::Reference)?;
                values[storage][name].clone()
            })
            .collect())
    }

    /// The names of pointers that all lead straight into one storage, the usual case: then nothing has
    /// to be sorted by storage, and a name that occurs twice is the store's matter. Audit events are
    /// per secret, so with an audit the names have to be told apart here.
    fn in_one_storage<'p>(
        &self,
        pointers: &'p [Pointer],
    ) -> Option<(Option<&'p StorageId>, Vec<Coordinate>)> {
        let storage_id = pointers.first()?.storage_id.as_ref();
        if self.stores().is_audited() {
            return None;
        }
        let name = |pointer: &Pointer| match &pointer.coordinate {
            Some(coordinate)
                if pointer.reference_id.is_none() && pointer.storage_id.as_ref() == storage_id =>
            {
                Some(coordinate.clone())
            }
            _ => None,
        };
        let names = pointers.iter().map(name).collect::<Option<_>>()?;
        Some((storage_id, names))
    }

    async fn read_storage(
        &self,
        storage_id: Option<&StorageId>,
        names: &[Coordinate],
    ) -> Vec<Result<SecretValue, Unread>> {
        match self.read_names(storage_id, names).await {
            Ok(reads) => values(reads),
            Err(unread) => vec![Err(unread); names.len()],
        }
    }

    /// Reads names of one storage, without audit events.
    ///
    /// # Errors
    /// If the storage is unknown or cannot be opened: none of the names has a value.
    pub(super) async fn read_names(
        &self,
        storage_id: Option<&StorageId>,
        names: &[Coordinate],
    ) -> Result<Vec<crate::Result<Read>>, Unread> {
        let read =
            |store: Arc<dyn SecretPersistence>| async move { read_all(&*store, names).await };
        match self.stores().call(storage_id, read).await {
            Ok(Some(reads)) => Ok(reads),
            Ok(None) => Err(Unread::UnknownStorage),
            Err(error) => Err(Unread::Store(error)),
        }
    }
}

/// The values of what was read.
pub(super) fn values(reads: Vec<crate::Result<Read>>) -> Vec<Result<SecretValue, Unread>> {
    let value = |read: crate::Result<Read>| read.map(|read| read.value).map_err(Unread::Store);
    reads.into_iter().map(value).collect()
}
