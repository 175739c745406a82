//! A compiled connection specification: finds the secrets of its configurations.

mod automaton;
mod document;
mod expression;
mod graph;
mod markers;
mod merge;
mod pattern;
mod schema;
#[cfg(test)]
mod tests;
mod types;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

pub(super) use self::graph::{Cursor, Position};
pub use self::markers::Markers;
pub(super) use self::types::Types;
use super::error::ConnectorError;

/// A compiled connection specification, which knows the secret places of its configurations.
///
/// Compiling resolves references and merges the schemas that apply to the same place, once per
/// version of a connector. Splitting, updating and masking then need one walk over the
/// configuration. Clones share everything.
///
/// A schema marks its place as secret with `airbyte_secret`, with any value except `false` and
/// `"false"`; [`compile_with`](Self::compile_with) takes other [`Markers`]. A place is secret if any schema that may apply to it says so, in any branch of any
/// combination, behind any reference. A specification that cannot be interpreted is an error, so
/// that no secret stays in plain text.
///
/// ```
/// use secret_persistence_core::connector::ConnectorSpec;
/// use serde_json::json;
///
/// let spec = ConnectorSpec::compile(&json!({
///     "type": "object",
///     "properties": {
///         "host": {"type": "string"},
///         "tunnel": {"oneOf": [{"$ref": "#/$defs/none"}, {"$ref": "#/$defs/key"}]},
///     },
///     "$defs": {
///         "none": {"type": "object", "properties": {"method": {"const": "none"}}},
///         "key": {"type": "object", "properties": {"key": {"type": "string", "airbyte_secret": true}}},
///     },
/// }))?;
/// let config = json!({"host": "db", "tunnel": {"key": "-----BEGIN…"}});
/// assert_eq!(
///     spec.mask(config)?,
///     json!({"host": "db", "tunnel": {"key": "**********"}})
/// );
/// # Ok::<(), secret_persistence_core::connector::ConnectorError>(())
/// ```
#[derive(Clone)]
pub struct ConnectorSpec(Arc<graph::Graph>);

impl ConnectorSpec {
    /// Compiles a connection specification.
    ///
    /// # Errors
    /// `UnsupportedSchema`, with the place in the specification, for a reference that leaves the
    /// document, cannot be resolved or is ambiguous, and for a mark that applies to no value.
    /// `LimitExceeded` for a specification that is nested deeper than
    /// [`MAX_DEPTH`](super::MAX_DEPTH) or merges to more than
    /// [`MAX_MERGED_NODES`](super::MAX_MERGED_NODES).
    pub fn compile(specification: &Value) -> Result<Self, ConnectorError> {
        Self::compile_with(specification, &Markers::default())
    }

    /// Compiles a specification that marks its secrets in another way.
    ///
    /// # Errors
    /// As for [`compile`](Self::compile).
    pub fn compile_with(specification: &Value, markers: &Markers) -> Result<Self, ConnectorError> {
        let nodes = schema::Nodes::read(specification, markers)?;
        merge::merge(&nodes).map(|graph| Self(Arc::new(graph)))
    }

    /// Whether walks match names against patterns, which may take long.
    pub(super) fn has_patterns(&self) -> bool {
        self.0.states.iter().any(|state| !state.patterns.is_empty())
    }

    /// A walk; `exhaustive` if it matters which properties are known.
    pub(super) fn cursor(&self, exhaustive: bool) -> Cursor<'_> {
        Cursor::new(&self.0, exhaustive)
    }
}

impl fmt::Debug for ConnectorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorSpec")
            .field("merged_nodes", &self.0.states.len())
            .finish_non_exhaustive()
    }
}
