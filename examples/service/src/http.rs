//! The HTTP API. `ETag` and `If-Match` contain the revision.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, ETAG, HOST, IF_MATCH, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use secret_persistence::connector::ProblemKind;
use secret_persistence::{Actor, AllowedHosts, SecretValue};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::connectors::{Change, ChangeError, Connectors};

/// The service.
///
/// /// | request | effect |
/// |---|---|
/// | `POST /connectors` `{workspace, specification, configuration}` | creates; 201, `ETag`, the masked configuration |
/// | `GET /connectors/{id}` | the masked configuration, `ETag` |
/// | `PUT /connectors/{id}`, `If-Match` | changes it; 412 if the revision has changed, 428 without `If-Match` |
/// | `DELETE /connectors/{id}`, `If-Match` | deletes the connector and its secrets |
/// | `GET /connectors/{id}/hydrated`, `Authorization: Bearer …` | the full configuration, only for the runner |
/// | `GET /export` | every connector, masked and scrubbed |
///
/// An invalid configuration is 422 with every problem and its place. Requests for other hosts are
/// 421, and those from pages of another origin 403: a page could otherwise rebind its own name to
/// this service.
pub fn router(connectors: Connectors, runner_token: SecretValue, hosts: AllowedHosts) -> Router {
    let state = Arc::new(Service {
        connectors,
        runner_token,
    });
    Router::new()
        .route("/connectors", post(create))
        .route("/connectors/{id}", get(masked).put(update).delete(delete))
        .route("/connectors/{id}/hydrated", get(hydrated))
        .route("/export", get(export))
        .layer(from_fn_with_state(Arc::new(hosts), own_hosts))
        .with_state(state)
}

async fn own_hosts(
    State(hosts): State<Arc<AllowedHosts>>,
    request: Request,
    next: Next,
) -> Response {
    match foreign(&hosts, request.headers()) {
        None => next.run(request).await,
        Some((status, message)) => refuse(status, message),
    }
}

fn foreign(hosts: &AllowedHosts, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let texts = |name| {
        let values = headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap_or_default())
    };
    // Two different hosts count as none.
    let mut asked_for = texts(HOST);
    let host = match (asked_for.next(), asked_for.next()) {
        (Some(host), None) => host,
        _ => "",
    };
    if !hosts.allows(host) {
        let message = "the request is for a host that this service does not serve";
        return Some((StatusCode::MISDIRECTED_REQUEST, message));
    }
    let foreign = texts(ORIGIN).any(|origin| !AllowedHosts::same_origin(host, origin));
    foreign.then_some((
        StatusCode::FORBIDDEN,
        "the request comes from a page of another origin",
    ))
}

struct Service {
    connectors: Connectors,
    runner_token: SecretValue,
}

type Shared = State<Arc<Service>>;

#[derive(Deserialize)]
struct Create {
    workspace: String,
    specification: Value,
    configuration: Value,
}

async fn create(State(service): Shared, headers: HeaderMap, Json(body): Json<Create>) -> Response {
    let Ok(workspace) = Uuid::try_parse(&body.workspace) else {
        return refuse(StatusCode::BAD_REQUEST, "workspace is not a UUID");
    };
    let Create {
        specification,
        configuration,
        ..
    } = body;
    let actor = actor(&headers);
    match service
        .connectors
        .create(&actor, workspace, specification, configuration)
        .await
    {
        Ok((id, change)) => {
            let body = json!({"id": id.to_string(), "configuration": change.masked});
            (StatusCode::CREATED, etag(change.revision), Json(body)).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn masked(State(service): Shared, Path(id): Path<String>) -> Response {
    let Ok(id) = Uuid::try_parse(&id) else {
        return failed(&ChangeError::Missing);
    };
    shown(service.connectors.masked(id).await)
}

async fn update(
    State(service): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(edited): Json<Value>,
) -> Response {
    match addressed(&id, &headers) {
        Ok((id, revision)) => shown(
            service
                .connectors
                .update(&actor(&headers), id, revision, edited)
                .await,
        ),
        Err(response) => *response,
    }
}

async fn delete(State(service): Shared, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match addressed(&id, &headers) {
        Ok((id, revision)) => {
            match service
                .connectors
                .delete(&actor(&headers), id, revision)
                .await
            {
                Ok(()) => StatusCode::NO_CONTENT.into_response(),
                Err(error) => failed(&error),
            }
        }
        Err(response) => *response,
    }
}

async fn hydrated(State(service): Shared, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .map(|token| SecretValue::new(token.to_owned()));
    if given.is_none_or(|token| token != service.runner_token) {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "only the runner may read the full configuration",
        );
    }
    let Ok(id) = Uuid::try_parse(&id) else {
        return failed(&ChangeError::Missing);
    };
    match service.connectors.hydrated(&actor(&headers), id).await {
        Ok(full) => Json(&*full).into_response(),
        Err(error) => failed(&error),
    }
}

async fn export(State(service): Shared) -> Response {
    match service.connectors.export().await {
        Ok((exported, left_out)) => {
            let connectors: Vec<Value> = exported
                .into_iter()
                .map(|(id, value)| json!({"id": id.to_string(), "configuration": value}))
                .collect();
            let left_out: Vec<String> = left_out.iter().map(ToString::to_string).collect();
            Json(json!({"connectors": connectors, "specificationsThatDoNotCompile": left_out}))
                .into_response()
        }
        Err(error) => failed(&error),
    }
}

/// The actor, for the audit: a real service takes it from its authentication.
fn actor(headers: &HeaderMap) -> Actor {
    let name = headers.get("x-actor").and_then(|value| value.to_str().ok());
    Actor::new(name.unwrap_or("anonymous"))
}

fn addressed(id: &str, headers: &HeaderMap) -> Result<(Uuid, i64), Box<Response>> {
    let id = Uuid::try_parse(id).map_err(|_| Box::new(failed(&ChangeError::Missing)))?;
    let Some(given) = headers.get(IF_MATCH) else {
        let message = "send the ETag of the row as If-Match";
        return Err(Box::new(refuse(StatusCode::PRECONDITION_REQUIRED, message)));
    };
    let revision = given
        .to_str()
        .ok()
        .and_then(|text| text.trim_matches('"').parse().ok());
    match revision {
        Some(revision) => Ok((id, revision)),
        None => Err(Box::new(failed(&ChangeError::Moved))),
    }
}

fn shown(outcome: Result<Change, ChangeError>) -> Response {
    match outcome {
        Ok(change) => (etag(change.revision), Json(change.masked)).into_response(),
        Err(error) => failed(&error),
    }
}

fn etag(revision: i64) -> [(axum::http::HeaderName, HeaderValue); 1] {
    // Digits and quotes are always a valid header.
    let value = HeaderValue::from_str(&format!("\"{revision}\""));
    [(ETAG, value.unwrap_or(HeaderValue::from_static("\"0\"")))]
}

fn failed(error: &ChangeError) -> Response {
    let status = match error {
        ChangeError::Connector(error) if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        ChangeError::Connector(error) => {
            let problems = error.problems();
            // The caller can correct its input, but not a store's error.
            let stores = |problem: &&secret_persistence::connector::Problem| {
                problem.kind() == ProblemKind::Store
            };
            if problems.iter().any(|problem| stores(&problem)) {
                StatusCode::BAD_GATEWAY
            } else {
                StatusCode::UNPROCESSABLE_ENTITY
            }
        }
        ChangeError::Database(_) | ChangeError::Healing(_) | ChangeError::Undecided => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        ChangeError::Missing => StatusCode::NOT_FOUND,
        ChangeError::Moved => StatusCode::PRECONDITION_FAILED,
    };
    if let ChangeError::Connector(error) = error {
        let problems: Vec<Value> = error
            .problems()
            .iter()
            .map(|problem| {
                json!({
                    "place": problem.place().as_str(),
                    "kind": problem.kind().to_string(),
                    "message": problem.to_string(),
                })
            })
            .collect();
        return (status, Json(json!({"problems": problems}))).into_response();
    }
    if status.is_server_error() {
        tracing::error!(%error, "request failed");
    }
    refuse(status, &error.to_string())
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"message": message}))).into_response()
}
