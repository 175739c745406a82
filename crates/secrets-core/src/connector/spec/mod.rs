//! A connection specification, compiled: where the secrets of its configurations are.

mod automaton;
mod document;
mod expression;
mod graph;
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
pub(super) use self::types::Types;
use super::error::ConnectorError;

/// A compiled connection specification: knows the secret places of every configuration of it.
///
/// Compiling resolves references and merges the schemas that are about the same place, once per
/// version of a connector; splitting, updating and masking are then one walk over the configuration.
/// Cloning shares everything.
///
/// A schema marks its place as secret with `airbyte_secret`, anything but `false` and `"false"`.
/// A place is secret if any schema that can be about it says so, in whatever branch of whatever
/// combination, behind whatever reference. What cannot be understood is an error, never a secret
/// left in clear.
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
    /// document, points nowhere or is ambiguous, and for a mark that is not about any value.
    /// `LimitExceeded` for a specification that is nested deeper than
    /// [`MAX_DEPTH`](super::MAX_DEPTH) or merges to more than
    /// [`MAX_MERGED_NODES`](super::MAX_MERGED_NODES).
    pub fn compile(specification: &Value) -> Result<Self, ConnectorError> {
        let nodes = schema::Nodes::read(specification)?;
        merge::merge(&nodes).map(|graph| Self(Arc::new(graph)))
    }

    /// Whether walks match names against patterns, which may take long.
    pub(super) fn has_patterns(&self) -> bool {
        self.0.states.iter().any(|state| !state.patterns.is_empty())
    }

    /// A walk; `exhaustive` where it matters which properties are known.
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
