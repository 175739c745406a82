//! From a saved configuration and an edited one to the next.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use super::error::ConnectorError;
use super::place::Place;
use super::plan::SplitPlan;
use super::pointer::{Pointer, PointerIdentity};
use super::policy::Policy;
use super::spec::ConnectorSpec;
use crate::{Scope, SecretValue};

/// Lists the pointers of the saved configuration whose values an update has to know.
///
/// # Errors
/// `LimitExceeded`.
pub fn saved_pointers_needed(
    _spec: &ConnectorSpec,
    saved: &Value,
    _edited: &Value,
) -> Result<Vec<(Place, Pointer)>, ConnectorError> {
    super::pointers(saved)
}

/// Splits an edited configuration, given the saved one.
///
/// `values` has what was read of [`saved_pointers_needed`]; one that the store no longer has is left
/// out, and counts as changed. `references` has what the references of the saved configuration name.
///
/// # Errors
/// Every problem, by place.
pub fn plan_update(
    _spec: &ConnectorSpec,
    _scope: &Scope,
    _policy: &Policy,
    _saved: &Value,
    _values: &HashMap<Pointer, SecretValue>,
    _references: &HashMap<Uuid, PointerIdentity>,
    edited: Value,
) -> Result<SplitPlan, ConnectorError> {
    Ok(SplitPlan {
        config: edited,
        writes: vec![],
        superseded: vec![],
        released_references: vec![],
    })
}
