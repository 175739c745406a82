//! Version 2 of the engine. Every name has one version, 1.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, Response};
use axum::routing::any;
use secret_persistence::connector::SecretJson;
use secret_persistence::{Entry, Recovery, SecretValue, Timestamp};
use serde_json::{Map, Value, json};

use super::answer::{KvError, data, done};
use super::store::{Engine, ReadError};
use crate::gateway::Gateway;
use crate::server::{Caller, ProblemKind, read_json};

/// The time of versions whose read does not return one: looking it up would need a second request.
const UNKNOWN_TIME: &str = "1970-01-01T00:00:00Z";

pub(super) fn routes(mount: &str) -> Router<Gateway> {
    Router::new()
        .route(&format!("/v1/{mount}/data/{{*path}}"), any(value))
        .route(&format!("/v1/{mount}/metadata"), any(metadata_of_root))
        .route(&format!("/v1/{mount}/metadata/"), any(metadata_of_root))
        .route(&format!("/v1/{mount}/metadata/{{*path}}"), any(metadata))
        .route(
            &format!("/v1/{mount}/delete/{{*path}}"),
            any(delete_versions),
        )
        .route(
            &format!("/v1/{mount}/undelete/{{*path}}"),
            any(undelete_versions),
        )
        .route(&format!("/v1/{mount}/config"), any(config))
}

type Answer = Result<Response<Body>, KvError>;

async fn value(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Answer {
    let engine = Engine::new(&gateway, caller);
    refuse_wrapping(request.headers())?;
    match request.method().clone() {
        Method::GET => read(&engine, &path, query.get("version").map(String::as_str)).await,
        Method::POST | Method::PUT => {
            // An invalid body is a failed write too, if the caller may write.
            let (value, only_new) = match read_members(&gateway, request).await {
                Ok(members) => parsed(members),
                Err(error) => (Err(error), false),
            };
            engine.write(&path, value, only_new).await?;
            Ok(data(version(&Timestamp::now().to_string(), "")))
        }
        Method::DELETE => {
            engine.delete(&path, Recovery::Configured).await?;
            Ok(done())
        }
        _ => Err(KvError::unsupported()),
    }
}

async fn read(engine: &Engine, path: &str, wanted: Option<&str>) -> Answer {
    match wanted {
        None | Some("" | "0" | "1") => {}
        Some(text) if text.parse::<u64>().is_ok() => return Err(KvError::not_found()),
        Some(_) => return Err(KvError::invalid("`version` is not a number")),
    }
    match engine.read(path).await {
        Ok(value) => Ok(value_answer(&value)),
        Err(ReadError::Deleted) => Err(KvError::deleted(json!({
            "data": null,
            "metadata": version(UNKNOWN_TIME, UNKNOWN_TIME),
        }))),
        Err(ReadError::Failed(error)) => Err(error),
    }
}

fn value_answer(value: &SecretValue) -> Response<Body> {
    // The guard wipes the copy that the response was built from.
    let shown = SecretJson::new(json!({
        "data": {"value": value.expose()},
        "metadata": version(UNKNOWN_TIME, ""),
    }));
    data(shown.into_inner())
}

/// Vault's metadata of a version.
fn version(created: &str, deleted: &str) -> Value {
    json!({
        "created_time": created,
        "custom_metadata": null,
        "deletion_time": deleted,
        "destroyed": false,
        "version": 1,
    })
}

/// The members of a body's object. The caller wipes them.
pub(super) async fn read_members(
    gateway: &Gateway,
    request: Request,
) -> Result<Map<String, Value>, KvError> {
    let (parts, body) = request.into_parts();
    members(read_json(&parts, body, gateway.settings().limits).await?)
}

fn members(body: SecretJson) -> Result<Map<String, Value>, KvError> {
    match body.into_inner() {
        Value::Object(members) => Ok(members),
        other => {
            drop(SecretJson::new(other));
            Err(KvError::invalid("the body is not an object"))
        }
    }
}

/// The value of a write, and whether its name must be new.
fn parsed(mut members: Map<String, Value>) -> (Result<SecretValue, KvError>, bool) {
    let only_new = match members.shift_remove("options") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Object(options)) => cas(&options),
        Some(_) => Err(KvError::invalid("`options` is not an object")),
    };
    let data = members.shift_remove("data");
    let unknown = !members.is_empty();
    drop(SecretJson::new(Value::Object(members)));
    let value = match data {
        Some(Value::Object(data)) => only_value(data),
        Some(other) => {
            drop(SecretJson::new(other));
            Err(KvError::invalid("`data` is not an object"))
        }
        None => Err(KvError::new(ProblemKind::MissingField, "no data provided")),
    };
    match only_new {
        Ok(only_new) if !unknown => (value, only_new),
        Ok(_) => (
            Err(KvError::new(
                ProblemKind::UnknownField,
                "only `data` and `options` are supported",
            )),
            false,
        ),
        Err(error) => (Err(error), false),
    }
}

fn cas(options: &Map<String, Value>) -> Result<bool, KvError> {
    if options.keys().any(|name| name != "cas") {
        return Err(KvError::new(
            ProblemKind::UnknownField,
            "only `cas` is supported in `options`",
        ));
    }
    match options.get("cas") {
        None => Ok(false),
        Some(cas) if cas.as_u64() == Some(0) => Ok(true),
        Some(_) => Err(KvError::invalid(
            "`cas` must be 0: a managed name keeps one value forever, so there is only one version",
        )),
    }
}

/// The field `value`, a string, and no other field.
pub(super) fn only_value(mut fields: Map<String, Value>) -> Result<SecretValue, KvError> {
    let value = fields.shift_remove("value");
    let alone = fields.is_empty();
    drop(SecretJson::new(Value::Object(fields)));
    match value {
        Some(Value::String(text)) => {
            let value = SecretValue::new(text);
            if alone {
                Ok(value)
            } else {
                Err(KvError::new(
                    ProblemKind::UnknownField,
                    "a secret must have only the field `value`",
                ))
            }
        }
        Some(other) => {
            drop(SecretJson::new(other));
            Err(KvError::invalid("the field `value` is not a string"))
        }
        None => Err(KvError::new(
            ProblemKind::MissingField,
            "a secret must have the field `value`, a string",
        )),
    }
}

async fn metadata_of_root(
    state: State<Gateway>,
    caller: Caller,
    query: Query<BTreeMap<String, String>>,
    method: Method,
) -> Answer {
    metadata(state, caller, Path(String::new()), query, method).await
}

async fn metadata(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    method: Method,
) -> Answer {
    let engine = Engine::new(&gateway, caller);
    if is_list(&method, &query) {
        return Ok(data(json!({"keys": engine.list(&path).await?})));
    }
    match method {
        Method::GET => Ok(data(metadata_of(&engine.describe(&path).await?))),
        Method::DELETE => {
            engine.delete(&path, Recovery::Immediate).await?;
            Ok(done())
        }
        _ => Err(KvError::unsupported()),
    }
}

/// Whether a request is for a listing: `LIST`, or `GET` with `?list=true`.
pub(super) fn is_list(method: &Method, query: &BTreeMap<String, String>) -> bool {
    method.as_str() == "LIST"
        || *method == Method::GET
            && query
                .get("list")
                .is_some_and(|list| list == "true" || list == "1")
}

fn metadata_of(entry: &Entry) -> Value {
    let created = entry
        .created
        .map_or_else(|| UNKNOWN_TIME.to_owned(), |created| created.to_string());
    let deleted = if entry.pending_deletion {
        UNKNOWN_TIME
    } else {
        ""
    };
    let tags = if entry.tags.is_empty() {
        Value::Null
    } else {
        json!(entry.tags)
    };
    json!({
        "cas_required": false,
        "created_time": created,
        "current_version": 1,
        "custom_metadata": tags,
        "delete_version_after": "0s",
        "max_versions": 1,
        "oldest_version": 1,
        "updated_time": created,
        "versions": {"1": {"created_time": created, "deletion_time": deleted, "destroyed": false}},
    })
}

async fn delete_versions(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(path): Path<String>,
    request: Request,
) -> Answer {
    let engine = Engine::new(&gateway, caller);
    engine.require_writable(&path)?;
    if names_the_version(&gateway, request).await? {
        engine.delete(&path, Recovery::Configured).await?;
    }
    Ok(done())
}

async fn undelete_versions(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(path): Path<String>,
    request: Request,
) -> Answer {
    let engine = Engine::new(&gateway, caller);
    engine.require_writable(&path)?;
    if names_the_version(&gateway, request).await? {
        engine.restore(&path).await?;
    }
    Ok(done())
}

/// Whether the only version is among those in a request.
async fn names_the_version(gateway: &Gateway, request: Request) -> Result<bool, KvError> {
    if !matches!(*request.method(), Method::POST | Method::PUT) {
        return Err(KvError::unsupported());
    }
    let body = read_members(gateway, request).await?;
    let is_one = |version: &Value| version.as_u64() == Some(1) || version.as_str() == Some("1");
    match body.get("versions") {
        Some(Value::Array(versions)) if !versions.is_empty() => Ok(versions.iter().any(is_one)),
        _ => Err(KvError::new(
            ProblemKind::MissingField,
            "no version number provided",
        )),
    }
}

async fn config(State(_): State<Gateway>, _: Caller, method: Method) -> Answer {
    match method {
        Method::GET => Ok(data(
            json!({"cas_required": false, "delete_version_after": "0s", "max_versions": 1}),
        )),
        _ => Err(KvError::unsupported()),
    }
}

/// Wrapping would store the response for another caller to fetch, which is not supported.
pub(super) fn refuse_wrapping(headers: &HeaderMap) -> Result<(), KvError> {
    match headers.get("x-vault-wrap-ttl") {
        Some(ttl) if !ttl.is_empty() => Err(KvError::new(
            ProblemKind::Unsupported,
            "response wrapping is not supported",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_has_the_field_value_and_cas_zero_at_most() {
        let parse = |body: Value| match members(SecretJson::new(body)) {
            Ok(members) => parsed(members),
            Err(error) => (Err(error), false),
        };
        let (value, only_new) = parse(json!({"data": {"value": "x"}, "options": {"cas": 0}}));
        assert!(only_new && value.unwrap().expose() == "x");
        assert!(!parse(json!({"data": {"value": "x"}})).1);
        for body in [
            json!("x"),
            json!({}),
            json!({"value": "x"}),
            json!({"data": null}),
            json!({"data": {}}),
            json!({"data": {"value": 1}}),
            json!({"data": {"value": {"a": "b"}}}),
            json!({"data": {"value": "x", "more": "y"}}),
            json!({"data": {"value": "x"}, "options": {"cas": 1}}),
            json!({"data": {"value": "x"}, "options": {"cas": "0"}}),
            json!({"data": {"value": "x"}, "options": {"case": 0}}),
            json!({"data": {"value": "x"}, "options": []}),
            json!({"data": {"value": "x"}, "version": 1}),
        ] {
            let shown = body.to_string();
            assert!(parse(body).0.is_err(), "{shown}");
        }
    }
}
