//! The fallback for lost records: finds secrets that no configuration refers to.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{TryStreamExt, future};
use serde_json::Value;

use super::cleanup::{Cleanup, Reason};
use super::error::{ConnectorError, Problem, Problems};
use super::place::Place;
use super::pointer::pointers;
use super::secrets::ActingSecrets;
use crate::{
    Entry, ListOptions, Location, ManagedCoordinate, Scope, SecretPersistence,
    SecretPersistenceExt, StorageId, Stores, Timestamp,
};

/// The result of a collection.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// The result of deleting unreferenced secrets.
    pub cleanup: Cleanup,
    /// Unreferenced, but kept because the store does not record when they were created.
    pub undated: Vec<Location<ManagedCoordinate>>,
    /// Unreferenced, but kept because they are too young.
    pub young: Vec<Location<ManagedCoordinate>>,
}

impl ActingSecrets {
    /// Lists the secrets that a saved configuration refers to, with references resolved: the
    /// secrets that [`collect`](Self::collect) must keep. External secrets are not ours and are not
    /// listed.
    ///
    /// # Errors
    /// Every malformed pointer and every unresolved reference, with its place.
    pub async fn locations(
        &self,
        saved: &Value,
    ) -> Result<Vec<Location<ManagedCoordinate>>, ConnectorError> {
        let found = pointers(saved)?;
        let ids = found.iter().filter_map(|(_, pointer)| pointer.reference_id);
        let references = self.references(ids.collect()).await;
        let mut locations = Vec::with_capacity(found.len());
        let mut problems = Problems::default();
        for (place, pointer) in found {
            match references.locate(&pointer) {
                Ok(location) => locations.extend(location.managed()),
                Err(unresolved) => problems.push(|| unresolved.at(place, &pointer)),
            }
        }
        problems.into_result()?;
        Ok(locations)
    }

    /// Deletes the secrets of one scope in one store that nothing refers to and that were created
    /// before a given time.
    ///
    /// `referenced` must contain the [`locations`](Self::locations) of every configuration that may
    /// refer to the scope's secrets, including those in backups that must stay restorable, and what
    /// records of open changes write. `before` must be earlier than the time at which the first of
    /// them was read, by at least the longest duration of a change: a younger secret may belong to
    /// a change that is not saved yet. A secret of another owner is kept, and so is one whose age the
    /// store does not record.
    ///
    /// A name that is referenced under any storage id is kept, because two ids may lead to the same
    /// store. The names decide, and not the stores' identities: one store may have two identities, if
    /// two addresses lead to it, and then a comparison of identities would delete what is in use. A
    /// managed name is given once, so the same name in another store is a copy of the same secret, and
    /// keeping one too many costs nothing but its place.
    ///
    /// # Errors
    /// If the store is unknown or cannot list; if the audit is required and its sink fails.
    pub async fn collect(
        &self,
        storage_id: Option<&StorageId>,
        scope: &Scope,
        referenced: &HashSet<Location<ManagedCoordinate>>,
        before: Timestamp,
    ) -> Result<Collected, ConnectorError> {
        let options = ListOptions::default()
            .with_prefix(scope.to_string())
            .with_details(true);
        // Two ids may lead to the same store, and a managed name is unique: a reference under any
        // id means this secret.
        let referenced: HashSet<&ManagedCoordinate> = referenced
            .iter()
            .map(|location| &location.coordinate)
            .collect();
        let is_unreferenced = |entry: &Entry| {
            !entry.pending_deletion
                && scope.contains(&entry.coordinate)
                && !referenced.contains(&entry.coordinate)
        };
        let list = |store: Arc<dyn SecretPersistence>| {
            let (options, is_unreferenced) = (&options, &is_unreferenced);
            async move {
                let entries = store.list(options);
                let unreferenced =
                    entries.try_filter(|entry| future::ready(is_unreferenced(entry)));
                vec![unreferenced.try_collect::<Vec<_>>().await]
            }
        };
        let listed = match self.stores().call(storage_id, list).await {
            Ok(Some(mut results)) => results.pop().unwrap_or_else(|| Ok(Vec::new())),
            Ok(None) => Err(Stores::unknown(storage_id)),
            Err(error) => Err(error),
        };
        let mut collected = Collected::default();
        let mut superfluous = Vec::new();
        for entry in listed.map_err(|error| Problem::of_store(Place::root(), error))? {
            let location = Location::new(entry.coordinate).with_storage_id(storage_id.cloned());
            match entry.created {
                None => collected.undated.push(location),
                Some(created) if created >= before => collected.young.push(location),
                Some(_) => superfluous.push(location),
            }
        }
        collected.cleanup = self.clean_up(&superfluous, Reason::Superseded).await?;
        Ok(collected)
    }
}
