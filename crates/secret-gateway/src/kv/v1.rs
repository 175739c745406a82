//! Version 1 of the engine: values directly under the mount.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, Response};
use axum::routing::any;
use secret_persistence::Recovery;
use secret_persistence::connector::SecretJson;
use serde_json::json;

use super::answer::{KvError, data, done};
use super::store::{Engine, ReadError};
use super::v2::{is_list, only_value, read_members, refuse_wrapping};
use crate::gateway::Gateway;
use crate::server::Caller;

pub(super) fn routes(mount: &str) -> Router<Gateway> {
    Router::new()
        .route(&format!("/v1/{mount}"), any(root))
        .route(&format!("/v1/{mount}/"), any(root))
        .route(&format!("/v1/{mount}/{{*path}}"), any(value))
}

type Answer = Result<Response<Body>, KvError>;

async fn root(
    state: State<Gateway>,
    caller: Caller,
    query: Query<BTreeMap<String, String>>,
    request: Request,
) -> Answer {
    if is_list(request.method(), &query) {
        return value(state, caller, Path(String::new()), query, request).await;
    }
    Err(KvError::unsupported())
}

async fn value(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Answer {
    let engine = Engine::new(&gateway, caller);
    refuse_wrapping(request.headers())?;
    if is_list(request.method(), &query) {
        return Ok(data(json!({"keys": engine.list(&path).await?})));
    }
    match request.method().clone() {
        Method::GET => match engine.read(&path).await {
            Ok(value) => {
                let shown = SecretJson::new(json!({"value": value.expose()}));
                Ok(data(shown.into_inner()))
            }
            Err(ReadError::Deleted) => Err(KvError::not_found()),
            Err(ReadError::Failed(error)) => Err(error),
        },
        Method::POST | Method::PUT => {
            let fields = read_members(&gateway, request).await;
            engine
                .write(&path, fields.and_then(only_value), false)
                .await?;
            Ok(done())
        }
        Method::DELETE => {
            engine.delete(&path, Recovery::Configured).await?;
            Ok(done())
        }
        _ => Err(KvError::unsupported()),
    }
}
