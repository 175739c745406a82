//! What rows of configurations hold: which pointer means which secret in which store.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::{
    ConfigRow, ConfigSource, Content, MigrateError, MigrateErrorKind, MigrateResult, Storage,
};
use crate::session::{Session, key};
use secret_persistence_core::Coordinate;
use secret_persistence_core::connector::{
    Place, Pointer, Problem, ProblemKind, ResolvedReference, pointers,
};

/// One row, and what its pointers mean.
pub(super) struct Holding {
    pub(super) key: String,
    pub(super) row: ConfigRow,
    pub(super) held: Vec<Held>,
    /// Why the row cannot be understood; none if it can.
    pub(super) problems: Vec<Problem>,
}

/// One pointer, or one bare coordinate.
pub(super) struct Held {
    pub(super) place: Place,
    /// None for a bare coordinate.
    pub(super) pointer: Option<Pointer>,
    pub(super) means: Means,
}

/// What a pointer means for a migration.
pub(super) enum Means {
    /// A secret of another store, which stays there.
    Elsewhere,
    /// A secret of the source.
    Secret {
        coordinate: Coordinate,
        /// Whether the configuration names it itself, so that nobody else may: not through a
        /// reference.
        own: bool,
    },
    /// A secret of a storage that nobody has decided about.
    Undecided(String),
}

impl Held {
    /// The source's secret, if that is what it means.
    pub(super) fn coordinate(&self) -> Option<&Coordinate> {
        match &self.means {
            Means::Secret { coordinate, .. } => Some(coordinate),
            Means::Elsewhere | Means::Undecided(_) => None,
        }
    }
}

impl Session<'_> {
    /// Finds out what a page of rows holds, resolving all its references together.
    pub(super) async fn holdings(
        &self,
        source: &dyn ConfigSource,
        rows: Vec<ConfigRow>,
    ) -> MigrateResult<Vec<Holding>> {
        let found: Vec<_> = rows.into_iter().map(found).collect();
        let ids: BTreeSet<Uuid> = found
            .iter()
            .flat_map(|row| &row.pointers)
            .filter_map(|(_, pointer)| pointer.reference_id)
            .collect();
        let references = self.resolved(ids).await?;
        Ok(found
            .into_iter()
            .map(|row| self.holding(source, row, &references))
            .collect())
    }

    fn holding(
        &self,
        source: &dyn ConfigSource,
        found: Found,
        references: &HashMap<Uuid, ResolvedReference>,
    ) -> Holding {
        let Found {
            row,
            pointers,
            bare,
            mut problems,
        } = found;
        let mut held: Vec<Held> = bare
            .into_iter()
            .map(|coordinate| Held {
                place: Place::root(),
                pointer: None,
                means: Means::Secret {
                    coordinate,
                    own: false,
                },
            })
            .collect();
        for (place, pointer) in pointers {
            match self.means(&place, &pointer, references) {
                Ok(means) => held.push(Held {
                    place,
                    pointer: Some(pointer),
                    means,
                }),
                Err(problem) => problems.push(problem),
            }
        }
        Holding {
            key: key(source, &row.id),
            row,
            held,
            problems,
        }
    }

    fn means(
        &self,
        place: &Place,
        pointer: &Pointer,
        references: &HashMap<Uuid, ResolvedReference>,
    ) -> Result<Means, Problem> {
        let unknown = |message: &'static str| {
            Problem::new(place.clone(), ProblemKind::UnknownReference, message)
        };
        let (coordinate, storage_id, own) = match (pointer.reference_id, &pointer.coordinate) {
            (None, Some(coordinate)) => (coordinate, pointer.storage_id.as_ref(), true),
            (None, None) => return Err(unknown("the pointer names nothing")),
            (Some(_), _) if self.references.is_none() => {
                return Err(unknown(
                    "the secret is named by a reference; say where the references are",
                ));
            }
            (Some(id), beside) => {
                let resolved = references
                    .get(&id)
                    .ok_or_else(|| unknown("no reference has this id"))?;
                if let Some(beside) = beside.as_ref().filter(|name| **name != resolved.coordinate) {
                    return Err(Problem::new(
                        place.clone(),
                        ProblemKind::ReferenceMismatch,
                        "the reference names another secret than the pointer beside it",
                    )
                    .with_coordinate(beside.shared()));
                }
                (&resolved.coordinate, resolved.storage_id.as_ref(), false)
            }
        };
        let decisions = &self.options.decisions.storage;
        Ok(
            match storage_id.map(|id| (id, decisions.get(id.as_str()))) {
                None | Some((_, Some(Storage::Move))) => Means::Secret {
                    coordinate: coordinate.clone(),
                    own,
                },
                Some((_, Some(Storage::Leave))) => Means::Elsewhere,
                Some((id, None)) => Means::Undecided(id.as_str().to_owned()),
            },
        )
    }

    async fn resolved(
        &self,
        ids: BTreeSet<Uuid>,
    ) -> MigrateResult<HashMap<Uuid, ResolvedReference>> {
        let Some(resolver) = self.references.filter(|_| !ids.is_empty()) else {
            return Ok(HashMap::new());
        };
        let failed = |message| MigrateError::new(MigrateErrorKind::Configurations, message);
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let answers = resolver
            .resolve(&ids)
            .await
            .map_err(|error| failed("the references could not be read").with_source(error))?;
        if answers.len() != ids.len() {
            return Err(failed("the references were answered in another number"));
        }
        Ok(ids
            .into_iter()
            .zip(answers)
            .filter_map(|(id, answer)| Some((id, answer?)))
            .collect())
    }
}

/// A row with its pointers, before references are resolved.
struct Found {
    row: ConfigRow,
    pointers: Vec<(Place, Pointer)>,
    bare: Option<Coordinate>,
    problems: Vec<Problem>,
}

fn found(row: ConfigRow) -> Found {
    let (mut names, mut bare, mut problems) = (Vec::new(), None, Vec::new());
    match &row.content {
        Content::Configuration(configuration) => match pointers(configuration) {
            Ok(found) => names = found,
            Err(error) => problems = error.problems().to_vec(),
        },
        Content::Coordinate(name) => match Coordinate::parse(name) {
            Ok(coordinate) => bare = Some(coordinate),
            // The name itself is not shown: it may be a value that stands in the wrong column.
            Err(_) => problems.push(Problem::new(
                Place::root(),
                ProblemKind::MalformedPointer,
                "neither a managed coordinate nor a permitted external name",
            )),
        },
    }
    Found {
        row,
        pointers: names,
        bare,
        problems,
    }
}
