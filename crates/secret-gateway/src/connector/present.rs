//! Masks and scrubs configurations. Does not call a store.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use secret_persistence::connector::scrub;
use serde::Serialize;
use serde_json::Value;

use super::members::{Configuration, Specification};
use crate::gateway::Gateway;
use crate::server::{Body, Caller, Maybe, Problem, request};
use crate::tokens::Role;

request! {
    /// A configuration and its specification.
    pub(super) struct Specified {
        specification: Specification,
        configuration: Configuration,
    }
}

request! {
    /// A configuration, and its specification if it is known.
    pub(super) struct Scrub {
        #[schemars(default)]
        specification: Maybe<Specification>,
        configuration: Configuration,
    }
}

/// A configuration without secrets.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Presented {
    #[schemars(with = "Configuration")]
    configuration: Value,
}

/// The places of a configuration.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Places {
    /// JSON Pointers.
    places: Vec<String>,
}

pub(super) async fn mask(
    State(_): State<Gateway>,
    caller: Caller,
    body: Body<Specified>,
) -> Result<Json<Presented>, Problem> {
    caller.require(Role::Change)?;
    let asked = body.parse()?;
    let spec = asked.specification.compile()?;
    let configuration = spec.mask(asked.configuration.into_inner())?;
    Ok(Json(Presented { configuration }))
}

pub(super) async fn scrubbed(
    State(_): State<Gateway>,
    caller: Caller,
    body: Body<Scrub>,
) -> Result<Json<Presented>, Problem> {
    caller.require(Role::Change)?;
    let asked = body.parse()?;
    let spec = match asked.specification.into_option() {
        Some(specification) => Some(specification.compile()?),
        None => None,
    };
    let configuration = asked.configuration.into_inner();
    let scrubbed = match spec {
        Some(spec) => spec.scrub(configuration)?,
        None => scrub(configuration)?,
    };
    Ok(Json(Presented {
        configuration: scrubbed.value,
    }))
}

pub(super) async fn places(
    State(_): State<Gateway>,
    caller: Caller,
    body: Body<Specified>,
) -> Result<Json<Places>, Problem> {
    caller.require(Role::Change)?;
    let asked = body.parse()?;
    let spec = asked.specification.compile()?;
    let places = spec
        .secret_places(&asked.configuration.0)?
        .into_iter()
        .map(|place| place.as_str().to_owned())
        .collect();
    Ok(Json(Places { places }))
}
