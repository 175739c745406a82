//! Masks and scrubs configurations. Does not call a store.

use axum::Json;
use axum::extract::State;
use secret_persistence::connector::{ConnectorSpec, SecretJson, scrub};
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::server::{Body, Caller, Fields, Problem};
use crate::tokens::Role;

fn compiled(fields: &mut Fields) -> Result<ConnectorSpec, Problem> {
    let specification = SecretJson::new(fields.require("specification")?);
    Ok(ConnectorSpec::compile(&specification)?)
}

pub(super) async fn mask(
    State(_): State<Gateway>,
    caller: Caller,
    Body(mut fields): Body,
) -> Result<Json<Value>, Problem> {
    caller.require(Role::Change)?;
    let spec = compiled(&mut fields)?;
    let configuration = fields.require("configuration")?;
    fields.finish()?;
    Ok(Json(json!({"configuration": spec.mask(configuration)?})))
}

pub(super) async fn scrubbed(
    State(_): State<Gateway>,
    caller: Caller,
    Body(mut fields): Body,
) -> Result<Json<Value>, Problem> {
    caller.require(Role::Change)?;
    let spec = match fields.take("specification") {
        Some(specification) => Some(ConnectorSpec::compile(&SecretJson::new(specification))?),
        None => None,
    };
    let configuration = fields.require("configuration")?;
    fields.finish()?;
    let scrubbed = match spec {
        Some(spec) => spec.scrub(configuration)?,
        None => scrub(configuration)?,
    };
    Ok(Json(json!({"configuration": scrubbed.value})))
}

pub(super) async fn places(
    State(_): State<Gateway>,
    caller: Caller,
    Body(mut fields): Body,
) -> Result<Json<Value>, Problem> {
    caller.require(Role::Change)?;
    let spec = compiled(&mut fields)?;
    let configuration = SecretJson::new(fields.require("configuration")?);
    fields.finish()?;
    let places: Vec<String> = spec
        .secret_places(&configuration)?
        .into_iter()
        .map(|place| place.as_str().to_owned())
        .collect();
    Ok(Json(json!({"places": places})))
}
