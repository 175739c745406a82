//! From values to pointers.

use serde_json::Value;

use super::error::ConnectorError;
use super::plan::SplitPlan;
use super::policy::Policy;
use super::spec::ConnectorSpec;
use crate::Scope;

/// Splits a new configuration.
///
/// # Errors
/// Every problem, by place.
pub fn plan_create(
    _spec: &ConnectorSpec,
    _scope: &Scope,
    _policy: &Policy,
    config: Value,
) -> Result<SplitPlan, ConnectorError> {
    Ok(SplitPlan {
        config,
        writes: vec![],
        superseded: vec![],
        released_references: vec![],
    })
}
