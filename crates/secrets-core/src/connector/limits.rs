//! How much a configuration or a specification may ask of us.

use serde_json::Value;

use super::error::{ConnectorError, Problem, ProblemKind};
use super::place::Place;
use super::pointer::is_pointer_object;

/// How many objects and arrays may stand inside one another, in configurations and specifications.
pub const MAX_DEPTH: usize = 512;

/// How many merged nodes a compiled specification may have.
pub const MAX_MERGED_NODES: usize = 10_000;

/// How much room all patterns of a specification share: instructions of automata, and ranges of
/// characters. What does not fit may match every name.
pub(crate) const MAX_PATTERN_ROOM: usize = 20_000;

/// How many steps one name may take in one pattern: its bytes times the pattern's instructions. A
/// longer name may match.
pub(crate) const MAX_NAME_STEPS: usize = 250_000;

/// How many steps the patterns of one walk, or of one compilation, may take in all. Once they are used
/// up, every pattern may match every name.
pub(crate) const MAX_PATTERN_STEPS: usize = 5_000_000;

/// How many merged nodes the places that patterns decide may lead to in one walk, all of these places
/// together. Whatever lies below those beyond is taken for secret.
pub(crate) const MAX_UNION_MEMBERS: usize = 100_000;

/// How many problems of one configuration are reported. A hostile one could have millions.
pub(crate) const MAX_PROBLEMS: usize = 10_000;

/// How many bytes the texts of these problems have together: places, coordinates, messages of stores.
pub(crate) const MAX_PROBLEM_BYTES: usize = 1 << 20;

/// How many bytes the places of one result have together, as texts: of an error's problems, of a list
/// of places.
pub const MAX_PLACE_BYTES: usize = 4 << 20;

/// How many secrets a configuration may have: values to be split, pointers to be kept or resolved.
pub const MAX_SECRETS: usize = 10_000;

/// How many bytes of secrets are put into one configuration. A pointer may stand there often.
pub const MAX_HYDRATED_BYTES: usize = 32 << 20;

/// What is left of the limits of one call.
#[derive(Debug)]
pub(crate) struct Budget {
    secrets: usize,
    place_bytes: usize,
    hydrated_bytes: usize,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self {
            secrets: MAX_SECRETS,
            place_bytes: MAX_PLACE_BYTES,
            hydrated_bytes: MAX_HYDRATED_BYTES,
        }
    }

    /// Takes one secret.
    ///
    /// # Errors
    /// `LimitExceeded` for the first one too many.
    pub(crate) fn secret(&mut self) -> Result<(), Problem> {
        take(&mut self.secrets, 1, "more than 10,000 secrets")
    }

    /// Takes a place that will be returned.
    ///
    /// # Errors
    /// `LimitExceeded` where all have become too long.
    pub(crate) fn place(&mut self, place: Place) -> Result<Place, Problem> {
        take(
            &mut self.place_bytes,
            place.length(),
            "the places of the secrets have more than 4 MiB together; shorten the names above them",
        )?;
        Ok(place)
    }

    /// Takes a value that is put in the place of a pointer.
    ///
    /// # Errors
    /// `LimitExceeded` where all have become too large.
    pub(crate) fn hydrate(&mut self, bytes: usize) -> Result<(), Problem> {
        take(
            &mut self.hydrated_bytes,
            bytes,
            "the secrets have more than 32 MiB together, each counted wherever its pointer stands",
        )
    }
}

fn take(left: &mut usize, count: usize, message: &'static str) -> Result<(), Problem> {
    match left.checked_sub(count) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => {
            *left = 0;
            Err(Problem::new(
                Place::root(),
                ProblemKind::LimitExceeded,
                message,
            ))
        }
    }
}

/// Refuses a value that is nested too deeply, without recursion.
///
/// # Errors
/// `LimitExceeded`.
pub(crate) fn check_depth(value: &Value) -> Result<(), ConnectorError> {
    let mut open = vec![(value, 0_usize)];
    while let Some((value, depth)) = open.pop() {
        if is_too_deep(value, depth) {
            return Err(too_deep(Place::root()).into());
        }
        match value {
            Value::Array(items) => open.extend(
                items
                    .iter()
                    .filter(|item| is_container(item))
                    .map(|item| (item, depth + 1)),
            ),
            Value::Object(members) => open.extend(
                members
                    .values()
                    .filter(|member| is_container(member))
                    .map(|member| (member, depth + 1)),
            ),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a value that stands inside of `depth` objects and arrays is too deep. A pointer in place of
/// a secret at the deepest level is not.
pub(crate) fn is_too_deep(value: &Value, depth: usize) -> bool {
    depth >= MAX_DEPTH
        && match value {
            Value::Array(_) => true,
            Value::Object(members) => {
                !is_pointer_object(members) || members.values().any(is_container)
            }
            _ => false,
        }
}

/// The problem of a value at `place` that is nested too deeply.
pub(crate) fn too_deep(place: Place) -> Problem {
    Problem::new(
        place,
        ProblemKind::LimitExceeded,
        "more than 512 levels of objects and arrays",
    )
}

fn is_container(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}
