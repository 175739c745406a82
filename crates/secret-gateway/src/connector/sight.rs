//! What a caller may see of a configuration.

use secret_persistence::connector::{Policy, pointers};
use secret_persistence::{Coordinate, Scope};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::{Problem, ProblemKind, invalid};
use crate::tokens::{Binding, Principal};

/// Refuses a configuration that points to secrets that the caller may not see: reading them, or
/// comparing them with a guess, would reveal them.
pub(super) fn require(
    caller: &Principal,
    external: &[String],
    configuration: &Value,
) -> Result<(), Problem> {
    let found = pointers(configuration)?;
    let unseen: Vec<Value> = found
        .into_iter()
        .filter_map(|(place, pointer)| {
            let coordinate = pointer.coordinate?;
            let allowed = match &coordinate {
                Coordinate::Managed(_) => true,
                Coordinate::External(name) => {
                    external.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()))
                }
            };
            (!allowed || !caller.binding.sees(&coordinate)).then(|| {
                json!({"place": place.as_str(), "kind": "not_found", "coordinate": coordinate.as_str()})
            })
        })
        .take(100)
        .collect();
    if unseen.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::NotFound,
        "the configuration points to secrets that do not exist for this token",
    )
    .with("problems", unseen))
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

/// The scope of a request: `{"workspace": id}`, or `{"prefix": text, "id": id}`.
pub(super) fn scope(value: &Value) -> Result<Scope, Problem> {
    let wrong = || {
        invalid(
            "scope",
            "must be {\"workspace\": id} or {\"prefix\": text, \"id\": id}",
        )
    };
    let members = value.as_object().ok_or_else(wrong)?;
    let id = |name: &str| {
        let text = members.get(name).and_then(Value::as_str)?;
        Uuid::try_parse(text).ok()
    };
    match (
        id("workspace"),
        members.get("prefix").and_then(Value::as_str),
        id("id"),
    ) {
        (Some(id), None, None) if members.len() == 1 => Ok(Scope::workspace(id)),
        (None, Some(prefix), Some(id)) if members.len() == 2 => {
            Scope::new(prefix, id).map_err(|error| invalid("scope", error.message()))
        }
        _ => Err(wrong()),
    }
}
