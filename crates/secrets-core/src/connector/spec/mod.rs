//! A compiled specification: where secrets are.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::error::{ConnectorError, Problem, ProblemKind};
use super::place::Place;

/// A compiled specification. Cloning shares it.
#[derive(Clone)]
pub struct ConnectorSpec(Arc<()>);

impl ConnectorSpec {
    /// Compiles a connection specification.
    ///
    /// # Errors
    /// `UnsupportedSchema` and `LimitExceeded`.
    pub fn compile(_specification: &Value) -> Result<Self, ConnectorError> {
        let unsupported = ProblemKind::UnsupportedSchema;
        Err(Problem::new(Place::root(), unsupported, "not supported yet").into())
    }

    /// Masks every secret.
    ///
    /// # Errors
    /// As for splitting.
    pub fn mask(&self, config: Value) -> Result<Value, ConnectorError> {
        Ok(config)
    }

    /// Lists the secret places of a configuration that hold something.
    ///
    /// # Errors
    /// As for splitting.
    pub fn secret_places(&self, _config: &Value) -> Result<Vec<Place>, ConnectorError> {
        Ok(vec![])
    }
}

impl fmt::Debug for ConnectorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectorSpec")
    }
}
