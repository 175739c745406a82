//! The requests that clients send first: health, the mount, their own token.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::routing::{any, get};
use secret_persistence::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{KvError, auth, data, json_response};
use crate::gateway::Gateway;
use crate::server::{Caller, ProblemKind};
use crate::settings::KvVersion;
use crate::tokens::{Principal, Role, presented};

/// The emulated Vault version, from which clients derive their requests.
const VAULT_VERSION: &str = "1.21.4";

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/v1/sys/health", get(health))
        .route("/v1/sys/init", get(init))
        .route("/v1/sys/seal-status", get(seal_status))
        .route("/v1/sys/leader", get(leader))
        .route("/v1/sys/internal/ui/mounts", get(mounts))
        .route("/v1/sys/internal/ui/mounts/{*path}", get(mount))
        .route("/v1/auth/token/lookup-self", get(lookup).post(lookup))
        .route("/v1/auth/token/renew-self", any(renew))
}

async fn health(State(gateway): State<Gateway>) -> Response<Body> {
    let serves = gateway.health().serves();
    let status = if serves {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json_response(
        status,
        &json!({
            "initialized": true,
            "sealed": !serves,
            "standby": false,
            "performance_standby": false,
            "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled",
            "server_time_utc": Timestamp::now().unix_seconds(),
            "version": VAULT_VERSION,
            "cluster_name": "secret-gateway",
        }),
    )
}

async fn init() -> Response<Body> {
    json_response(StatusCode::OK, &json!({"initialized": true}))
}

async fn seal_status(State(gateway): State<Gateway>) -> Response<Body> {
    json_response(
        StatusCode::OK,
        &json!({
            "type": "shamir",
            "initialized": true,
            "sealed": !gateway.health().serves(),
            "t": 1,
            "n": 1,
            "progress": 0,
            "nonce": "",
            "version": VAULT_VERSION,
            "cluster_name": "secret-gateway",
        }),
    )
}

/// The response of a Vault without high availability; `bao status` needs it.
async fn leader() -> Response<Body> {
    json_response(
        StatusCode::OK,
        &json!({
            "ha_enabled": false,
            "is_self": false,
            "active_time": "0001-01-01T00:00:00Z",
            "leader_address": "",
            "leader_cluster_address": "",
            "performance_standby": false,
            "performance_standby_last_remote_wal": 0,
        }),
    )
}

fn described(gateway: &Gateway) -> Value {
    let version = match gateway.settings().kv.version {
        KvVersion::One => "1",
        KvVersion::Two => "2",
    };
    json!({
        "accessor": "kv_secret_gateway",
        "config": {"default_lease_ttl": 0, "force_no_cache": false, "max_lease_ttl": 0},
        "description": "secrets of connectors",
        "external_entropy_access": false,
        "local": false,
        "options": {"version": version},
        "path": format!("{}/", gateway.settings().kv.mount),
        "seal_wrap": false,
        "type": "kv",
        "uuid": "",
    })
}

async fn mounts(State(gateway): State<Gateway>, _: Caller) -> Response<Body> {
    let mount = format!("{}/", gateway.settings().kv.mount);
    data(json!({"auth": {}, "secret": {mount: described(&gateway)}}))
}

async fn mount(
    State(gateway): State<Gateway>,
    _: Caller,
    Path(path): Path<String>,
) -> Result<Response<Body>, KvError> {
    let mount = &gateway.settings().kv.mount;
    match path.strip_prefix(mount.as_str()) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Ok(data(described(&gateway))),
        // Vault's response for a mount that a token may not see.
        _ => Err(KvError::new(
            ProblemKind::NotFound,
            "preflight capability check returned 403, please ensure client's policies grant access to this path",
        )
        .with_status(StatusCode::FORBIDDEN)),
    }
}

async fn lookup(caller: Caller, headers: HeaderMap) -> Response<Body> {
    let Principal { name, expires, .. } = &caller.0;
    let ttl = remaining(*expires);
    data(json!({
        "accessor": accessor(name),
        "creation_time": 0,
        "creation_ttl": ttl,
        "display_name": name,
        "entity_id": "",
        "expire_time": expires.and_then(|at| Timestamp::from_unix_seconds(at).ok()).map(|at| at.to_string()),
        "explicit_max_ttl": 0,
        // The caller has just sent it.
        "id": presented(&headers).ok().flatten().unwrap_or_default(),
        "meta": null,
        "num_uses": 0,
        "orphan": true,
        "path": "auth/token/create",
        "policies": policies(&caller.0),
        "renewable": false,
        "ttl": ttl,
        "type": "service",
    }))
}

/// Renewal has no effect: a token is valid until it expires. This lets clients continue that always
/// renew.
async fn renew(
    caller: Caller,
    headers: HeaderMap,
    method: Method,
) -> Result<Response<Body>, KvError> {
    if !matches!(method, Method::POST | Method::PUT) {
        return Err(KvError::unsupported());
    }
    Ok(auth(json!({
        "client_token": presented(&headers).ok().flatten().unwrap_or_default(),
        "accessor": accessor(&caller.0.name),
        "policies": policies(&caller.0),
        "token_policies": policies(&caller.0),
        "metadata": null,
        "lease_duration": remaining(caller.0.expires),
        "renewable": false,
        "entity_id": "",
        "token_type": "service",
        "orphan": true,
        "mfa_requirement": null,
        "num_uses": 0,
    })))
}

fn policies(principal: &Principal) -> Vec<&'static str> {
    principal.roles.iter().copied().map(Role::as_str).collect()
}

/// The remaining seconds of a token; 0 means forever, as for Vault's root tokens.
fn remaining(expires: Option<i64>) -> i64 {
    expires.map_or(0, |expires| {
        (expires - Timestamp::now().unix_seconds()).max(1)
    })
}

/// Replaces a name without revealing any of its characters.
fn accessor(name: &str) -> String {
    let mut hash = [0; 16];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    hash.copy_from_slice(&digest.as_ref()[..16]);
    Uuid::from_bytes(hash).to_string()
}
