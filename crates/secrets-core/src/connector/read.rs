//! Reads what pointers name: every secret once, all stores at once, everything or nothing.

use std::collections::HashMap;

use futures::future::join_all;
use serde_json::Value;
use uuid::Uuid;

use super::by_storage::by_storage;
use super::error::{ConnectorError, Problem, ProblemKind, Problems};
use super::guarded::GuardedValue;
use super::hydrate::hydrate_with;
use super::place::Place;
use super::pointer::{Pointer, PointerIdentity, StorageId, pointers, visit_pointers};
use super::record::Location;
use super::references::ResolvedReference;
use super::secrets::ActingSecrets;
use crate::{Coordinate, Error, ErrorKind, Operation, Result, SecretPersistenceExt, SecretValue};

/// Why a pointer has no value.
#[derive(Clone)]
pub(super) enum Unread {
    Mismatch,
    NoResolver,
    References(Error),
    Store(Error),
    UnknownReference,
    UnknownStorage,
}

impl Unread {
    /// Whether the secret is certainly not readable any more, rather than not at the moment.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Store(error) => is_gone(error.kind()),
            _ => false,
        }
    }

    pub(super) fn at(self, place: Place, pointer: &Pointer) -> Problem {
        let problem = |kind, message: &'static str| Problem::new(place.clone(), kind, message);
        let problem = match self {
            Self::Mismatch => problem(
                ProblemKind::ReferenceMismatch,
                "the reference names another secret than the pointer beside it",
            ),
            Self::NoResolver => problem(
                ProblemKind::UnknownReference,
                "a reference, and no resolver of references is set",
            ),
            Self::References(error) => problem(
                ProblemKind::Store,
                "the caller's references could not be read",
            )
            .with_error(error),
            Self::Store(error) => Problem::of_store(place, error),
            Self::UnknownReference => problem(
                ProblemKind::UnknownReference,
                "the caller's resolver does not know the reference",
            ),
            Self::UnknownStorage => problem(
                ProblemKind::UnknownStorage,
                "no storage has the pointer's storage id; give it its settings",
            ),
        };
        match &pointer.coordinate {
            Some(coordinate) => problem.with_coordinate(coordinate.shared()),
            None => problem,
        }
    }
}

/// Whether an error of a store says that a secret is gone for good, or as good as.
pub(super) fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::PendingDeletion)
}

/// The storage and the name that a pointer comes to.
type Target<'a> = (Option<&'a StorageId>, &'a Coordinate);

impl ActingSecrets {
    /// Puts the secrets of a saved configuration back.
    ///
    /// Every secret is read once however often its pointer occurs, and the reads of all stores go out
    /// together. `null` becomes `{}`. The result is redacted in `Debug` and wiped when it drops; values
    /// are never searched for pointers again. A row that was read before another change was committed
    /// may point at what is gone: [`hydrate_fresh`](Self::hydrate_fresh) reads it again.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use secret_persistence_core::connector::{Actor, ConnectorOptions, ConnectorSecrets};
    /// # use secret_persistence_core::{Memory, SecretValue, Stores};
    /// # use serde_json::json;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let store = Memory::new();
    /// store.plant("airbyte_workspace_1_secret_2_v1", SecretValue::new("hunter2".to_owned()));
    /// let stores = Stores::new(Arc::new(store));
    /// let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default());
    ///
    /// let saved = json!({"host": "db", "password": {"_secret": "airbyte_workspace_1_secret_2_v1"}});
    /// let full = secrets.acting_as(&Actor::new("job 7")).hydrate(saved).await?;
    /// assert_eq!(*full, json!({"host": "db", "password": "hunter2"}));
    ///
    /// let saved = json!({"password": {"_secret": "airbyte_workspace_1_secret_3_v1"}});
    /// let error = secrets.acting_as(&Actor::new("job 7")).hydrate(saved).await.unwrap_err();
    /// assert_eq!(error.problems()[0].place().as_str(), "/password");
    /// # Ok::<(), secret_persistence_core::connector::ConnectorError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// One error with every place that has no value, its coordinate and kind. Never a part of the
    /// configuration, never an empty string for a secret that is missing.
    pub async fn hydrate(&self, saved: Value) -> Result<GuardedValue, ConnectorError> {
        let saved = GuardedValue::new(saved);
        let mut found = Vec::new();
        let mut malformed = false;
        visit_pointers(&saved, &mut |_, pointer| match pointer {
            Ok(pointer) => found.push(pointer),
            Err(_) => malformed = true,
        })?;
        if malformed {
            // The second walk is for the places.
            pointers(&saved)?;
        }
        let references = self.resolve(&found).await;
        let values = self.read(&found, &references).await?;
        if values.iter().all(Result::is_ok) {
            let mut values = values.into_iter();
            return hydrate_with(saved.into_inner(), |_| values.next()?.ok());
        }
        let mut problems = Problems::default();
        for ((place, pointer), value) in pointers(&saved)?.into_iter().zip(values) {
            if let Err(unread) = value {
                problems.push(|| unread.at(place, &pointer));
            }
        }
        problems.into_result().map(|()| saved)
    }

    /// Lists the secrets that a saved configuration refers to, references resolved: what the
    /// [collector](Self::collect) must leave. External secrets are not ours and left out.
    ///
    /// # Errors
    /// Every pointer that is malformed, and every reference that is not resolved, with its place.
    pub async fn locations(&self, saved: &Value) -> Result<Vec<Location>, ConnectorError> {
        let (places, pointers): (Vec<Place>, Vec<Pointer>) = pointers(saved)?.into_iter().unzip();
        let references = self.resolve(&pointers).await;
        let mut locations = Vec::with_capacity(pointers.len());
        let mut problems = Problems::default();
        for (place, pointer) in places.into_iter().zip(&pointers) {
            match references.target(pointer) {
                Ok((storage_id, Coordinate::Managed(coordinate))) => locations
                    .push(Location::new(coordinate.clone()).with_storage_id(storage_id.cloned())),
                Ok((_, Coordinate::External(_))) => {}
                Err(unread) => problems.push(|| unread.at(place, pointer)),
            }
        }
        problems.into_result()?;
        Ok(locations)
    }

    /// The value of each pointer: same length and order.
    ///
    /// # Errors
    /// Only where the audit is required and its sink fails; then no value is returned.
    pub(super) async fn read(
        &self,
        pointers: &[Pointer],
        references: &References,
    ) -> Result<Vec<Result<SecretValue, Unread>>, ConnectorError> {
        let targets: Vec<Result<Target<'_>, Unread>> = pointers
            .iter()
            .map(|pointer| references.target(pointer))
            .collect();
        let (unique, places) = unique(&targets);
        let values = self.read_unique(&unique).await;

        let mut events = self.events(Operation::Read);
        for ((storage_id, coordinate), value) in unique.iter().zip(&values) {
            let coordinate = || (*coordinate).clone();
            match value {
                Ok(_) => events.succeeded(*storage_id, coordinate),
                Err(Unread::Store(error)) => events.failed(*storage_id, coordinate, error.kind()),
                // Nothing was asked.
                Err(_) => {}
            }
        }
        events.record().await?;

        Ok(targets
            .into_iter()
            .zip(places)
            .map(|(target, at)| target.and_then(|_| values[at].clone()))
            .collect())
    }

    /// What the references among pointers stand for.
    pub(super) async fn resolve(&self, pointers: &[Pointer]) -> References {
        let mut ids: Vec<Uuid> = pointers
            .iter()
            .filter_map(|pointer| pointer.reference_id)
            .collect();
        if ids.is_empty() {
            return References::none();
        }
        ids.sort_unstable();
        ids.dedup();
        let Some(resolver) = &self.options().references else {
            return References(Err(Unread::NoResolver));
        };
        match resolver.resolve(&ids).await {
            Ok(rows) if rows.len() == ids.len() => References(Ok(ids
                .into_iter()
                .zip(rows)
                .filter_map(|(id, row)| Some((id, row?)))
                .collect())),
            Ok(_) => References(Err(Unread::References(Error::new(
                ErrorKind::Unexpected,
                "the resolver answered another number of references than it was asked for",
            )))),
            Err(error) => References(Err(Unread::References(error))),
        }
    }

    async fn read_unique(&self, targets: &[Target<'_>]) -> Vec<Result<SecretValue, Unread>> {
        let Some((first, _)) = targets.first() else {
            return Vec::new();
        };
        if targets.iter().all(|(storage_id, _)| storage_id == first) {
            // The usual case, and in the order of the targets already.
            let coordinates: Vec<Coordinate> =
                targets.iter().map(|(_, name)| (*name).clone()).collect();
            return self.read_storage(*first, &coordinates).await;
        }
        let groups = by_storage(targets.iter().map(|(storage_id, _)| *storage_id));
        let reads = groups.iter().map(|(storage_id, members)| async move {
            let coordinates: Vec<Coordinate> =
                members.iter().map(|&at| targets[at].1.clone()).collect();
            self.read_storage(*storage_id, &coordinates).await
        });
        let mut values: Vec<Option<Result<SecretValue, Unread>>> = vec![None; targets.len()];
        for ((_, members), results) in groups.iter().zip(join_all(reads).await) {
            for (&at, result) in members.iter().zip(results) {
                values[at] = Some(result);
            }
        }
        // Every target is a member of one group.
        values
            .into_iter()
            .map(|value| value.unwrap_or(Err(Unread::UnknownStorage)))
            .collect()
    }

    /// Reads one storage, once more in a store opened anew where the first refused our credentials.
    async fn read_storage(
        &self,
        storage_id: Option<&StorageId>,
        coordinates: &[Coordinate],
    ) -> Vec<Result<SecretValue, Unread>> {
        let mut opened_anew = false;
        loop {
            let store = match self.stores().find(storage_id).await {
                Ok(Some(store)) => store,
                Ok(None) => return vec![Err(Unread::UnknownStorage); coordinates.len()],
                Err(error) => return vec![Err(Unread::Store(error)); coordinates.len()],
            };
            let results = store.read_many(coordinates).await;
            let refused = results.iter().any(|result| {
                result
                    .as_ref()
                    .is_err_and(|error| error.kind() == ErrorKind::Unauthenticated)
            });
            if refused && self.stores().refused(storage_id, &store) && !opened_anew {
                opened_anew = true;
                continue;
            }
            return results
                .into_iter()
                .map(|result| result.map(|read| read.value).map_err(Unread::Store))
                .collect();
        }
    }
}

/// What the references of some pointers stand for.
pub(super) struct References(Result<HashMap<Uuid, ResolvedReference>, Unread>);

impl References {
    pub(super) fn none() -> Self {
        Self(Ok(HashMap::new()))
    }

    /// What each reference names, for the planning half.
    pub(super) fn identities(&self) -> HashMap<Uuid, PointerIdentity> {
        self.0.as_ref().map_or_else(
            |_| HashMap::new(),
            |rows| {
                rows.iter()
                    .map(|(id, row)| {
                        let identity = PointerIdentity {
                            storage_id: row.storage_id.clone(),
                            coordinate: row.coordinate.clone(),
                        };
                        (*id, identity)
                    })
                    .collect()
            },
        )
    }

    /// The storage and the name that a pointer comes to: of its reference where it has one.
    pub(super) fn target<'a>(&'a self, pointer: &'a Pointer) -> Result<Target<'a>, Unread> {
        let Some(id) = &pointer.reference_id else {
            return match &pointer.coordinate {
                Some(coordinate) => Ok((pointer.storage_id.as_ref(), coordinate)),
                // A pointer has one of the two.
                None => Err(Unread::UnknownReference),
            };
        };
        let rows = self.0.as_ref().map_err(Clone::clone)?;
        let row = rows.get(id).ok_or(Unread::UnknownReference)?;
        let same = |ours: Option<bool>| ours.unwrap_or(true);
        if same(
            pointer
                .coordinate
                .as_ref()
                .map(|ours| *ours == row.coordinate),
        ) && same(
            pointer
                .storage_id
                .as_ref()
                .map(|ours| Some(ours) == row.storage_id.as_ref()),
        ) {
            Ok((row.storage_id.as_ref(), &row.coordinate))
        } else {
            Err(Unread::Mismatch)
        }
    }
}

/// The different targets in the order of their first occurrence, and for every pointer which of them
/// it is. Where a pointer has no target, that place means nothing.
fn unique<'a>(targets: &[Result<Target<'a>, Unread>]) -> (Vec<Target<'a>>, Vec<usize>) {
    /// Below this, looking at all is faster than hashing.
    const FEW: usize = 8;
    let mut unique: Vec<Target<'a>> = Vec::with_capacity(targets.len());
    let mut index: HashMap<Target<'a>, usize> = HashMap::new();
    let few = targets.len() <= FEW;
    let places = targets
        .iter()
        .map(|target| {
            let Ok(target) = target else { return 0 };
            let known = if few {
                unique.iter().position(|seen| seen == target)
            } else {
                index.get(target).copied()
            };
            known.unwrap_or_else(|| {
                unique.push(*target);
                if !few {
                    index.insert(*target, unique.len() - 1);
                }
                unique.len() - 1
            })
        })
        .collect();
    (unique, places)
}
