//! The demo's connectors. Everything in them is made up.

use serde::Deserialize;
use serde_json::Value;

use crate::status::{Failure, Result};

/// A connector with its specification, as a platform has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connector {
    /// Its name.
    pub(super) name: String,
    /// Its specification.
    pub(super) connection_specification: Value,
    /// The configuration that a user entered.
    pub(super) configuration: Value,
}

/// About a dozen connectors, one for each kind of difficulty in splitting.
pub(super) fn connectors() -> Result<Vec<Connector>> {
    serde_json::from_str(include_str!("connectors.json"))
        .map_err(|cause| Failure::failed("the demo's own connectors").with_source(cause))
}
