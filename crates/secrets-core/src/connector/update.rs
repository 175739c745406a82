//! From a saved and an edited configuration to the next one.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::error::{ConnectorError, Problems};
use super::limits::check_depth;
use super::matching::Matches;
use super::place::Place;
use super::plan::SplitPlan;
use super::pointer::{Pointer, visit_pointers};
use super::policy::Policy;
use super::references::References;
use super::secret_json::SecretJson;
use super::spec::ConnectorSpec;
use super::split::{Saved, SavedValues, Splitter};
use crate::{Coordinate, Location, ManagedCoordinate, Scope, SecretValue};

/// Lists the pointers of the saved configuration whose values an update needs, each with the edited
/// place that needs it: those behind entered values, to detect whether these are new, and those
/// that are stored again as part of a larger secret.
///
/// # Errors
/// Everything that [`plan_update`] would refuse whatever the values are, so that it is refused
/// before anything is read.
pub fn saved_pointers_needed(
    spec: &ConnectorSpec,
    policy: &Policy,
    saved: &Value,
    edited: &Value,
) -> Result<Vec<(Place, Pointer)>, ConnectorError> {
    check_depth(edited)?;
    // The same walk as the update, on a copy and without values, so that it requests exactly what
    // the update needs.
    let mut edited = SecretJson::new(edited.clone());
    let asked = SavedValues::Needed(BTreeSet::new());
    let known = known(spec, policy, saved, &edited, asked)?;
    let scope = Scope::ephemeral();
    let mut splitter = Splitter::new(spec, &scope, policy, Some(known));
    splitter.split(&mut edited, Some(saved));
    splitter.into_needed()
}

/// Splits an edited configuration, given the saved one: masks and unchanged values keep their
/// pointers, changed values become writes.
///
/// `values` contains the values of [`saved_pointers_needed`]. A secret that is missing in the store
/// is omitted, and a value entered for it counts as changed. `references` contains the resolved
/// references of the saved configuration.
///
/// Secret places are those of the specification and every place with a pointer in the saved
/// configuration. A changed value gets a new name with a version one above that of the managed
/// secret it replaces. Array elements match by their content without secrets if that is unique, and
/// by position only if nothing has moved; a mask on an element without a match is an error.
///
/// # Errors
/// Every problem of the edited configuration, by place; the configuration is then wiped.
pub fn plan_update(
    spec: &ConnectorSpec,
    scope: &Scope,
    policy: &Policy,
    saved: &Value,
    values: &HashMap<Pointer, SecretValue>,
    references: &References,
    edited: Value,
) -> Result<SplitPlan, ConnectorError> {
    let mut config = SecretJson::new(edited);
    check_depth(&config)?;
    let known = known(spec, policy, saved, &config, SavedValues::Read(values))?;
    let mut splitter = Splitter::new(spec, scope, policy, Some(known));
    splitter.split(&mut config, Some(saved));
    splitter.problems.into_result()?;
    let left = Left::of(&config, scope, saved, references)?;
    Ok(SplitPlan {
        config: config.into_inner(),
        writes: splitter.writes,
        superseded: left.superseded,
        released_references: left.released_references,
    })
}

fn known<'a>(
    spec: &ConnectorSpec,
    policy: &Policy,
    saved: &Value,
    edited: &Value,
    values: SavedValues<'a>,
) -> Result<Saved<'a>, ConnectorError> {
    check_depth(saved)?;
    let mut pointers = HashSet::new();
    visit_pointers(saved, &mut |_, pointer| pointers.extend(pointer))?;
    let (matches, guarded_place_changed) =
        Matches::find(spec, saved, edited, &policy.guarded_places);
    Ok(Saved {
        pointers,
        values,
        matches,
        guarded_place_changed,
    })
}

/// What the saved configuration has and the new one does not.
pub(super) struct Left {
    pub(super) superseded: Vec<Location<ManagedCoordinate>>,
    pub(super) released_references: Vec<(Place, Pointer)>,
}

impl Left {
    /// # Errors
    /// Every unresolved reference of the saved configuration.
    pub(super) fn of(
        config: &Value,
        scope: &Scope,
        saved: &Value,
        references: &References,
    ) -> Result<Self, ConnectorError> {
        let mut named = HashSet::new();
        let mut referring = HashSet::new();
        visit_pointers(config, &mut |_, pointer| {
            let Ok(pointer) = pointer else { return };
            // A reference is one of the saved configuration, so its problem is found below.
            named.extend(references.locate(&pointer));
            referring.extend(pointer.reference_id);
        })?;

        let mut released_references = Vec::new();
        let mut superseded = Vec::new();
        let mut problems = Problems::default();
        // A secret that any reference of the row resolves to belongs to the reference's row,
        // whatever else names it.
        visit_pointers(saved, &mut |_, pointer| {
            if let Ok(pointer) = pointer
                && pointer.reference_id.is_some()
            {
                named.extend(references.locate(&pointer));
            }
        })?;
        // Two ids may lead to one store, and a managed name is given once: by whatever id the new
        // configuration names it, it is kept.
        let kept: HashSet<Coordinate> = named
            .iter()
            .map(|location: &Location| location.coordinate.clone())
            .collect();
        visit_pointers(saved, &mut |path, pointer| {
            let Ok(pointer) = pointer else { return };
            let location = match references.locate(&pointer) {
                Ok(location) => location,
                Err(unresolved) => {
                    return problems.push(|| unresolved.at(path.place(), &pointer));
                }
            };
            if let Some(id) = pointer.reference_id {
                if !referring.contains(&id) {
                    released_references.push((path.place(), pointer));
                }
                return;
            }
            // Count each name only once.
            if named.insert(location.clone())
                && let Some(location) = location.managed()
                && scope.contains(&location.coordinate)
            {
                superseded.push(location);
            }
        })?;
        problems.into_result()?;
        superseded.retain(|location| !kept.contains(&location.coordinate.clone().into()));
        Ok(Self {
            superseded,
            released_references,
        })
    }
}

#[cfg(test)]
mod tests;
