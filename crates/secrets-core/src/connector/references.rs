//! References to secrets in a table of the caller.

use std::collections::HashMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::error::{ConnectorError, Problem, ProblemKind, Problems};
use super::place::Place;
use super::pointer::Pointer;
use crate::{Error, ErrorKind, Location, Result};

/// Resolves `_secret_reference_id`s. The rows belong to the caller, so the caller looks them up.
///
/// ```
/// use async_trait::async_trait;
/// use secret_persistence_core::connector::ResolveReferences;
/// use secret_persistence_core::{Location, Result};
/// use uuid::Uuid;
///
/// struct Rows(std::collections::HashMap<Uuid, Location>);
///
/// #[async_trait]
/// impl ResolveReferences for Rows {
///     async fn resolve(&self, ids: &[Uuid]) -> Result<Vec<Option<Location>>> {
///         Ok(ids.iter().map(|id| self.0.get(id).cloned()).collect())
///     }
/// }
/// ```
#[async_trait]
pub trait ResolveReferences: Send + Sync + 'static {
    /// Looks up references, all different: same length and order, `None` for an unknown one.
    ///
    /// # Errors
    /// If the rows cannot be read. Then all of them are unknown.
    async fn resolve(&self, ids: &[Uuid]) -> Result<Vec<Option<Location>>>;
}

/// The resolved references of some pointers.
///
/// The default has no resolver: valid for pointers without a reference, an error for pointers with
/// one.
///
/// ```
/// use secret_persistence_core::connector::{Pointer, References, UnresolvedReference};
/// use secret_persistence_core::{Coordinate, Location};
/// use uuid::Uuid;
///
/// let id = Uuid::from_u128(7);
/// let row = Location::new(Coordinate::parse("airbyte_workspace_1_secret_2_v1")?);
/// let references = References::from_iter([(id, row.clone())]);
///
/// let pointer = Pointer::new(row.coordinate.clone()).with_reference_id(Some(id));
/// assert_eq!(references.locate(&pointer).ok(), Some(row));
/// // A pointer whose secret or storage contradicts its reference is refused.
/// let moved = pointer.with_storage_id(Some("team-a".parse()?));
/// let error = references.locate(&moved).unwrap_err();
/// assert!(matches!(error, UnresolvedReference::Mismatch));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct References(Result<HashMap<Uuid, Location>, UnresolvedReference>);

impl Default for References {
    fn default() -> Self {
        Self(Err(UnresolvedReference::NoResolver))
    }
}

impl FromIterator<(Uuid, Location)> for References {
    fn from_iter<I: IntoIterator<Item = (Uuid, Location)>>(rows: I) -> Self {
        Self(Ok(rows.into_iter().collect()))
    }
}

impl References {
    /// Looks up references, each once and all in one call.
    pub async fn look_up(resolver: Option<&dyn ResolveReferences>, mut ids: Vec<Uuid>) -> Self {
        let (Some(resolver), false) = (resolver, ids.is_empty()) else {
            return Self::default();
        };
        ids.sort_unstable();
        ids.dedup();
        match resolver.resolve(&ids).await {
            Ok(rows) if rows.len() == ids.len() => ids
                .into_iter()
                .zip(rows)
                .filter_map(|(id, row)| Some((id, row?)))
                .collect(),
            Ok(_) => Self(Err(UnresolvedReference::Unreadable(Error::new(
                ErrorKind::Unexpected,
                "the resolver returned a different number of references than requested",
            )))),
            Err(error) => Self(Err(UnresolvedReference::Unreadable(error))),
        }
    }

    /// The location of a pointer's secret. A reference, if there is one, determines it.
    ///
    /// # Errors
    /// If the reference cannot be resolved, or the pointer's coordinate or storage id contradicts
    /// it.
    pub fn locate(&self, pointer: &Pointer) -> Result<Location, UnresolvedReference> {
        let Some(id) = &pointer.reference_id else {
            return match &pointer.coordinate {
                Some(coordinate) => {
                    Ok(Location::new(coordinate.clone())
                        .with_storage_id(pointer.storage_id.clone()))
                }
                // A pointer has at least one of the two.
                None => Err(UnresolvedReference::Unknown),
            };
        };
        let rows = self.0.as_ref().map_err(Clone::clone)?;
        let row = rows.get(id).ok_or(UnresolvedReference::Unknown)?;
        let agrees = pointer
            .coordinate
            .as_ref()
            .is_none_or(|beside| *beside == row.coordinate)
            && (pointer.storage_id.is_none() || pointer.storage_id == row.storage_id);
        if agrees {
            Ok(row.clone())
        } else {
            Err(UnresolvedReference::Mismatch)
        }
    }

    /// Why no reference is known, if the caller's rows could not be read.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        match &self.0 {
            Err(UnresolvedReference::Unreadable(error)) => Some(error),
            _ => None,
        }
    }

    /// Every pointer that cannot be resolved, with its place.
    pub(super) fn check(&self, found: &[(Place, Pointer)]) -> Result<(), ConnectorError> {
        let mut problems = Problems::default();
        for (place, pointer) in found {
            if let Err(unresolved) = self.locate(pointer) {
                problems.push(|| unresolved.at(place.clone(), pointer));
            }
        }
        problems.into_result()
    }
}

/// Why a pointer with a reference cannot be resolved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum UnresolvedReference {
    /// The pointer itself names another secret.
    Mismatch,
    /// There is no resolver.
    NoResolver,
    /// No row has this id.
    Unknown,
    /// The caller's rows could not be read.
    Unreadable(Error),
}

impl UnresolvedReference {
    /// The problem of a pointer in a place.
    #[must_use]
    pub fn at(self, place: Place, pointer: &Pointer) -> Problem {
        let (kind, message) = match &self {
            Self::Mismatch => (
                ProblemKind::ReferenceMismatch,
                "the reference and the pointer name different secrets",
            ),
            Self::NoResolver => (
                ProblemKind::UnknownReference,
                "the pointer has a reference, but no reference resolver is set",
            ),
            Self::Unknown => (
                ProblemKind::UnknownReference,
                "the caller's resolver does not know the reference",
            ),
            Self::Unreadable(_) => (
                ProblemKind::Store,
                "the caller's references could not be read",
            ),
        };
        let mut problem = Problem::new(place, kind, message);
        if let Self::Unreadable(error) = self {
            problem = problem.with_error(error);
        }
        match &pointer.coordinate {
            Some(coordinate) => problem.with_coordinate(coordinate.shared()),
            None => problem,
        }
    }
}
