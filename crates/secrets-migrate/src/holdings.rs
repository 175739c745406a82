//! Resolves the pointers in rows to secrets in stores.

use secret_persistence_core::connector::{
    Place, Pointer, Problem, ProblemKind, References, ResolveReferences, UnresolvedReference,
    pointers,
};
use secret_persistence_core::{Coordinate, ManagedCoordinate, Scope, StorageId};

use crate::session::{Session, key};
use crate::{
    ConfigRow, ConfigSource, Content, MigrateError, MigrateErrorKind, MigrateResult, Storage,
};

/// One row with its resolved pointers.
pub(super) struct Holding {
    pub(super) key: String,
    pub(super) row: ConfigRow,
    pub(super) held: Vec<Held>,
    /// Why the row is unreadable, if it is.
    pub(super) problems: Vec<Problem>,
    /// Whether the row names only secrets of other workspaces than those of the run.
    pub(super) other: bool,
}

/// One pointer, or one bare coordinate.
pub(super) struct Held {
    pub(super) place: Place,
    /// `None` for a bare coordinate.
    pub(super) pointer: Option<Pointer>,
    /// The storage id of the secret, whether the pointer or a reference names it.
    pub(super) storage: Option<StorageId>,
    pub(super) means: Means,
}

/// The meaning of a pointer for a migration.
pub(super) enum Means {
    /// A secret in another storage, which stays there.
    Elsewhere {
        coordinate: Coordinate,
        storage: String,
    },
    /// A secret of another workspace than those of the run, which stays as it is.
    OtherWorkspace(Coordinate),
    /// A secret of the source.
    Secret {
        coordinate: Coordinate,
        /// Whether the configuration names it directly and not through a reference. Then it should
        /// be the only one to do so.
        own: bool,
    },
    /// A secret in a storage without a decision.
    Undecided(String),
}

impl Holding {
    /// Whether a secret that the row names directly belongs to another scope than the row, if the
    /// row's scope is known: to another workspace, whose secret someone may be trying to use.
    pub(super) fn is_of_other_scope(&self, coordinate: &ManagedCoordinate) -> bool {
        scope_of(&self.row).is_some_and(|scope| !scope.contains(coordinate))
    }
}

/// The scope of a row, if it is known.
pub(super) fn scope_of(row: &ConfigRow) -> Option<Scope> {
    let prefix = row.prefix.as_deref().unwrap_or("workspace_");
    Scope::new(prefix, row.base_id?).ok()
}

impl Held {
    /// The secret in the source, if that is the meaning.
    pub(super) fn coordinate(&self) -> Option<&Coordinate> {
        match &self.means {
            Means::Secret { coordinate, .. } => Some(coordinate),
            Means::Elsewhere { .. } | Means::OtherWorkspace(_) | Means::Undecided(_) => None,
        }
    }
}

impl Session<'_> {
    /// Resolves the pointers of a page of rows, with all references together.
    pub(super) async fn holdings(
        &self,
        source: &dyn ConfigSource,
        rows: Vec<ConfigRow>,
    ) -> MigrateResult<Vec<Holding>> {
        let decisions = &self.options.decisions.storage;
        let decide = |id: &StorageId| decisions.get(id.as_str()).copied();
        let mut holdings = resolved(self.references, &decide, source, rows).await?;
        for holding in &mut holdings {
            self.leave_other_workspaces(holding);
        }
        Ok(holdings)
    }

    /// Leaves what a row names of other workspaces. A place that nobody understands may name any
    /// secret, so it matters to whatever deletes, in a row of any workspace.
    fn leave_other_workspaces(&self, holding: &mut Holding) {
        let workspaces = self.workspaces;
        if workspaces.is_all() {
            return;
        }
        let base_id = holding.row.base_id;
        for held in &mut holding.held {
            let Means::Secret { coordinate, .. } = &held.means else {
                continue;
            };
            let name = coordinate.managed();
            let is_ours = match workspaces.have_row(base_id) {
                // The service of another workspace may still read it where it is deleted.
                Some(is_ours) if self.deletes => is_ours,
                _ => workspaces.have(base_id, name),
            };
            if !is_ours {
                held.means = Means::OtherWorkspace(coordinate.clone());
            }
        }
        if workspaces.have_row(base_id) == Some(false) && !self.deletes {
            holding.problems.clear();
            // What another workspace's storage means needs no decision.
            holding
                .held
                .retain(|held| !matches!(held.means, Means::Undecided(_)));
        }
        let is_other = |held: &Held| matches!(held.means, Means::OtherWorkspace(_));
        holding.other = holding.problems.is_empty()
            && holding.held.iter().all(is_other)
            && !(holding.held.is_empty() && workspaces.have(base_id, None));
    }
}

/// What a storage id means; `None` where nobody said it.
pub(super) type Decide<'d> = &'d (dyn Fn(&StorageId) -> Option<Storage> + Sync);

/// Resolves the pointers of a page of rows, with all references together.
pub(super) async fn resolved(
    resolver: Option<&dyn ResolveReferences>,
    decide: Decide<'_>,
    source: &dyn ConfigSource,
    rows: Vec<ConfigRow>,
) -> MigrateResult<Vec<Holding>> {
    let found: Vec<_> = rows.into_iter().map(found).collect();
    let ids = found
        .iter()
        .flat_map(|row| &row.pointers)
        .filter_map(|(_, pointer)| pointer.reference_id)
        .collect();
    let references = References::look_up(resolver, ids).await;
    if let Some(error) = references.failure() {
        return Err(MigrateError::new(
            MigrateErrorKind::Configurations,
            "the references could not be read",
        )
        .with_source(error.clone()));
    }
    Ok(found
        .into_iter()
        .map(|row| holding(decide, source, row, &references))
        .collect())
}

fn holding(
    decide: Decide<'_>,
    source: &dyn ConfigSource,
    found: Found,
    references: &References,
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
            storage: None,
            means: Means::Secret {
                coordinate,
                own: false,
            },
        })
        .collect();
    for (place, pointer) in pointers {
        match means(decide, &place, &pointer, references) {
            Ok((storage, means)) => held.push(Held {
                place,
                pointer: Some(pointer),
                storage,
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
        other: false,
    }
}

fn means(
    decide: Decide<'_>,
    place: &Place,
    pointer: &Pointer,
    references: &References,
) -> Result<(Option<StorageId>, Means), Problem> {
    let location = references.locate(pointer).map_err(|unresolved| {
        if matches!(unresolved, UnresolvedReference::NoResolver) {
            return Problem::new(
                place.clone(),
                ProblemKind::UnknownReference,
                "the secret is named by a reference; set where the references are",
            );
        }
        unresolved.at(place.clone(), pointer)
    })?;
    let means = match location.storage_id.as_ref().map(|id| (id, decide(id))) {
        None | Some((_, Some(Storage::Move))) => Means::Secret {
            coordinate: location.coordinate,
            own: pointer.reference_id.is_none(),
        },
        Some((id, Some(Storage::Leave))) => Means::Elsewhere {
            storage: id.as_str().to_owned(),
            coordinate: location.coordinate,
        },
        Some((id, None)) => Means::Undecided(id.as_str().to_owned()),
    };
    Ok((location.storage_id, means))
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
            // Do not show the name: it may be a value in the wrong column.
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
