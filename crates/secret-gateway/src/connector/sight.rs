//! What a caller may see of a configuration.

use secret_persistence::Coordinate;
use secret_persistence::connector::{Policy, pointers};
use serde_json::Value;

use crate::server::{PlaceProblem, Problem, ProblemKind, SHOWN};
use crate::tokens::{Binding, Principal};

/// Refuses a configuration that points to secrets that the caller may not see: reading them, or
/// comparing them with a guess, would reveal them.
pub(super) fn require(
    caller: &Principal,
    external: &[String],
    configuration: &Value,
) -> Result<(), Problem> {
    let found = pointers(configuration)?;
    let unseen: Vec<PlaceProblem> = found
        .into_iter()
        .filter_map(|(place, pointer)| {
            let coordinate = pointer.coordinate?;
            let allowed = match &coordinate {
                Coordinate::Managed(_) => true,
                Coordinate::External(name) => external
                    .iter()
                    .any(|prefix| name.as_str().starts_with(prefix.as_str())),
            };
            (!allowed || !caller.binding.sees(&coordinate)).then(|| PlaceProblem {
                place: place.as_str().to_owned(),
                kind: "not_found",
                coordinate: Some(coordinate.as_str().to_owned()),
                ..PlaceProblem::default()
            })
        })
        .take(SHOWN)
        .collect();
    if unseen.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::NotFound,
        "the configuration points to secrets that do not exist for this token",
    )
    .with_problems(unseen))
}

/// The external names that a caller may point to: allowed by both the operator and its binding.
pub(super) fn external(caller: &Principal, operator: &[String], mut policy: Policy) -> Policy {
    for theirs in operator {
        match &caller.binding {
            Binding::All => policy = policy.with_external_prefix(None, theirs.clone()),
            Binding::To { prefixes, .. } => {
                for ours in prefixes {
                    let narrower = if ours.starts_with(theirs.as_str()) {
                        ours
                    } else if theirs.starts_with(ours.as_str()) {
                        theirs
                    } else {
                        continue;
                    };
                    policy = policy.with_external_prefix(None, narrower.clone());
                }
            }
        }
    }
    policy
}
