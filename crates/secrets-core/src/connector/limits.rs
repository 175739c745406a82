//! Limits on the size of configurations and specifications.

use serde_json::Value;

use super::error::{ConnectorError, Problem, ProblemKind};
use super::place::Place;
use super::pointer::is_pointer_object;

/// Maximum nesting of objects and arrays in configurations and specifications.
pub const MAX_DEPTH: usize = 512;

/// Maximum merged nodes of a compiled specification.
pub const MAX_MERGED_NODES: usize = 10_000;

/// Maximum size of all patterns of a specification together: automaton instructions and character
/// ranges. A pattern that exceeds it may match every name.
pub(crate) const MAX_PATTERN_ROOM: usize = 20_000;

/// Maximum steps for one name in one pattern: the name's bytes times the pattern's instructions. A
/// longer name may match.
pub(crate) const MAX_NAME_STEPS: usize = 250_000;

/// Maximum steps of all patterns in one walk or one compilation. When they are used up, every
/// pattern may match every name.
pub(crate) const MAX_PATTERN_STEPS: usize = 5_000_000;

/// Maximum merged nodes that all places decided by patterns may lead to in one walk. Everything
/// below further places counts as secret.
pub(crate) const MAX_UNION_MEMBERS: usize = 100_000;

/// Maximum reported problems of one configuration. A hostile one could have millions.
pub(crate) const MAX_PROBLEMS: usize = 10_000;

/// Maximum bytes of the texts of these problems: places, coordinates, messages of stores.
pub(crate) const MAX_PROBLEM_BYTES: usize = 1 << 20;

/// Maximum bytes of the places in one result, as text: in an error's problems, in a list of places.
pub const MAX_PLACE_BYTES: usize = 4 << 20;

/// Maximum secrets of a configuration: values to split, pointers to keep or resolve.
pub const MAX_SECRETS: usize = 10_000;

/// Maximum bytes of secrets that are inserted into one configuration. A pointer may occur many
/// times.
pub const MAX_HYDRATED_BYTES: usize = 32 << 20;

/// The remaining limits of one call.
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

    /// Counts one secret.
    ///
    /// # Errors
    /// `LimitExceeded` if there are too many.
    #[inline]
    pub(crate) fn secret(&mut self) -> Result<(), Problem> {
        take(&mut self.secrets, 1, "more than 10,000 secrets")
    }

    /// Counts a place that will be returned.
    ///
    /// # Errors
    /// `LimitExceeded` if all places together are too long.
    pub(crate) fn place(&mut self, place: Place) -> Result<Place, Problem> {
        take(
            &mut self.place_bytes,
            place.length(),
            "the places of the secrets exceed 4 MiB in total; shorten the names above them",
        )?;
        Ok(place)
    }

    /// Counts a value that replaces a pointer.
    ///
    /// # Errors
    /// `LimitExceeded` if all values together are too large.
    #[inline]
    pub(crate) fn hydrate(&mut self, bytes: usize) -> Result<(), Problem> {
        take(
            &mut self.hydrated_bytes,
            bytes,
            "the secrets exceed 32 MiB in total, counted once per pointer",
        )
    }
}

#[inline]
fn take(left: &mut usize, count: usize, message: &'static str) -> Result<(), Problem> {
    match left.checked_sub(count) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => {
            *left = 0;
            Err(exceeded(message))
        }
    }
}

#[cold]
fn exceeded(message: &'static str) -> Problem {
    Problem::new(Place::root(), ProblemKind::LimitExceeded, message)
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

/// Whether a value inside `depth` objects and arrays is too deep. A pointer that replaces a secret
/// at the deepest level is not.
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

/// Whether a value has values below it, so that a walk for pointers must enter it.
pub(super) fn is_container(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}
