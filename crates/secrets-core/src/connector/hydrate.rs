//! From pointers back to values: the half that needs no store.

use serde_json::{Map, Value};

use super::error::{ConnectorError, Problem, ProblemKind, Problems};
use super::guarded::{GuardedValue, parse_json};
use super::limits::{is_too_deep, too_deep};
use super::place::Path;
use super::pointer::{Encoding, Pointer, is_pointer, pointers};
use crate::SecretValue;

/// Puts the secrets of a configuration back, for callers who bring their own store.
///
/// `value_of` is asked once for every pointer, in the order of [`pointers`]; `null` becomes `{}`.
/// Values are never looked at again once they are in place.
///
/// ```
/// use secrets_core::SecretValue;
/// use secrets_core::connector::hydrate_with;
/// use serde_json::json;
///
/// let saved = json!({"host": "db", "password": {"_secret": "airbyte_workspace_1_secret_2_v1"}});
/// let full = hydrate_with(saved, |_| Some(SecretValue::new("hunter2".to_owned())))?;
/// assert_eq!(*full, json!({"host": "db", "password": "hunter2"}));
/// # Ok::<(), secrets_core::connector::ConnectorError>(())
/// ```
///
/// # Errors
/// Every malformed pointer, every pointer for which there is no value, every value that does not
/// decode, each with its place. Never a partly hydrated configuration.
pub fn hydrate_with(
    config: Value,
    mut value_of: impl FnMut(&Pointer) -> Option<SecretValue>,
) -> Result<GuardedValue, ConnectorError> {
    let mut config = GuardedValue::new(config);
    if config.is_null() {
        *config = Value::Object(Map::new());
    }
    let slots = slots(&mut config)?;
    // Everything decodes before anything is put in place, so that the places of what failed can
    // still be told from the configuration as it was.
    let decoded: Vec<Result<GuardedValue, Failure>> = slots
        .iter()
        .map(|slot| {
            let secret = value_of(&slot.pointer).ok_or(Failure::Missing)?;
            decode(&secret, slot.pointer.encoding).ok_or(Failure::Undecodable)
        })
        .collect();
    if decoded.iter().all(Result::is_ok) {
        for (slot, value) in slots.into_iter().zip(decoded.into_iter().flatten()) {
            *slot.value = value.into_inner();
        }
        return Ok(config);
    }
    drop(slots);
    let mut problems = Problems::default();
    for ((place, pointer), result) in pointers(&config)?.into_iter().zip(decoded) {
        if let Err(failure) = result {
            problems.push(|| {
                let problem = match failure {
                    Failure::Missing => Problem::new(
                        place,
                        ProblemKind::Store,
                        "there is no value for this pointer",
                    ),
                    Failure::Undecodable => undecodable(place),
                };
                match pointer.coordinate {
                    Some(coordinate) => problem.with_coordinate(coordinate.shared()),
                    None => problem,
                }
            });
        }
    }
    problems.into_result().map(|()| config)
}

/// The value of a secret's text; `None` where it should be JSON and is not.
pub(crate) fn decode(secret: &SecretValue, encoding: Encoding) -> Option<GuardedValue> {
    match encoding {
        Encoding::Text => Some(Value::String(secret.expose().to_owned())),
        Encoding::Json => parse_json(secret.expose()),
    }
    .map(GuardedValue::new)
}

/// The problem of a secret that should be JSON and is not. The parser's own message would quote it.
pub(crate) fn undecodable(place: super::Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::DecodingFailed,
        "the secret should be JSON and does not decode; enter it again",
    )
}

enum Failure {
    Missing,
    Undecodable,
}

struct Slot<'c> {
    value: &'c mut Value,
    pointer: Pointer,
}

fn slots(config: &mut Value) -> Result<Vec<Slot<'_>>, ConnectorError> {
    let mut slots = Vec::new();
    let mut problems = Problems::default();
    walk(config, &Path::Root, 0, &mut slots, &mut problems)?;
    problems.into_result()?;
    Ok(slots)
}

fn walk<'c>(
    value: &'c mut Value,
    path: &Path<'_>,
    depth: usize,
    slots: &mut Vec<Slot<'c>>,
    problems: &mut Problems,
) -> Result<(), ConnectorError> {
    if is_too_deep(value, depth) {
        return Err(too_deep(path.place()).into());
    }
    if is_pointer(value) {
        match Pointer::parse(value) {
            Some(Ok(pointer)) => slots.push(Slot { value, pointer }),
            Some(Err(malformed)) => problems.push(|| malformed.at(path.place())),
            None => {}
        }
        return Ok(());
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &Path::Index(path, index), depth + 1, slots, problems)?;
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                walk(member, &Path::Key(path, name), depth + 1, slots, problems)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
