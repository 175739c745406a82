//! Health: probes of the stores, endpoints for orchestrators, metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use schemars::JsonSchema;
use secret_persistence::{
    Coordinate, Error, SecretPersistence, SecretPersistenceExt as _, Timestamp,
};
use serde::Serialize;
use serde_json::json;

use crate::gateway::Gateway;
use crate::server::{Caller, OwnText, Problem, Time};
use crate::tokens::Role;

/// The interval of the stores' probes.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(10);

/// The timeout of a probe. A store that is slower than this is down for its callers too.
const PROBE_TIMEOUT: Duration = Duration::from_secs(8);

/// The known state of the stores.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    stores: BTreeMap<String, StoreHealth>,
    /// The last value that was read: if the store is down, reading it shows whether the cache
    /// serves.
    last_read: Option<Coordinate>,
    down: bool,
}

/// The state of a store at its last probe.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Store", deny_unknown_fields)]
pub(crate) struct StoreHealth {
    /// The storage id; `default` for the default store.
    id: String,
    store: String,
    identity: Option<String>,
    healthy: bool,
    /// Whether recently read values are served although the store is down.
    answers_from_cache: bool,
    /// The kind of the store's error.
    error: Option<&'static str>,
    /// How long the probe took.
    milliseconds: u64,
    /// When it was probed.
    #[schemars(with = "Time")]
    checked: Timestamp,
}

impl Health {
    fn locked(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a value was read.
    pub(crate) fn answered(&self, coordinate: &Coordinate) {
        self.locked().last_read = Some(coordinate.clone());
    }

    /// Whether the default store, or the cache in front of it, serves.
    pub(crate) fn serves(&self) -> bool {
        !self.locked().down
    }

    /// The state of all stores at their last probe.
    pub(crate) fn stores(&self) -> Vec<StoreHealth> {
        self.locked().stores.values().cloned().collect()
    }
}

/// Probes every store once, as the running gateway does every ten seconds.
pub async fn probe(gateway: &Gateway) {
    let default = ask("default", Arc::clone(gateway.store())).await;
    let last_read = gateway.health().locked().last_read.clone();
    let from_cache = match last_read {
        Some(coordinate) if !default.healthy => {
            let read = gateway.store().read(&coordinate);
            tokio::time::timeout(PROBE_TIMEOUT, read)
                .await
                .is_ok_and(|read| read.is_ok())
        }
        _ => false,
    };
    let others = gateway.storage_ids().into_iter().map(|id| async move {
        match gateway.stores().store(Some(&id)).await {
            Ok(store) => ask(id.as_str(), store).await,
            Err(error) => unhealthy(id.as_str(), "not open", &error, Duration::ZERO),
        }
    });
    let others = futures::future::join_all(others).await;
    let mut known = gateway.health().locked();
    let down = !default.healthy && !from_cache;
    if down != known.down {
        if down {
            tracing::error!(target: "secret_gateway", store = default.store, error = default.error, "the store is down, and the cache cannot serve");
        } else {
            tracing::info!(target: "secret_gateway", store = default.store, "the store responds again");
        }
    }
    known.down = down;
    known.stores = std::iter::once(StoreHealth {
        answers_from_cache: from_cache,
        ..default
    })
    .chain(others)
    .map(|store| (store.id.clone(), store))
    .collect();
    for store in known.stores.values() {
        metrics::gauge!("secret_gateway_store_up", "id" => store.id.clone())
            .set(if store.healthy { 1.0 } else { 0.0 });
    }
}

async fn ask(id: &str, store: Arc<dyn SecretPersistence>) -> StoreHealth {
    let began = Instant::now();
    let identity = tokio::time::timeout(PROBE_TIMEOUT, store.identity()).await;
    let took = began.elapsed();
    match identity {
        Ok(Ok(identity)) => StoreHealth {
            id: id.to_owned(),
            store: store.to_string(),
            identity: Some(identity.to_string()),
            healthy: true,
            answers_from_cache: false,
            error: None,
            milliseconds: milliseconds(took),
            checked: Timestamp::now(),
        },
        Ok(Err(error)) => unhealthy(id, &store.to_string(), &error, took),
        Err(_) => StoreHealth {
            error: Some("timeout"),
            ..unhealthy(
                id,
                &store.to_string(),
                &Error::new(
                    secret_persistence::ErrorKind::Unavailable,
                    "no response in time",
                ),
                took,
            )
        },
    }
}

fn unhealthy(id: &str, store: &str, error: &Error, took: Duration) -> StoreHealth {
    StoreHealth {
        id: id.to_owned(),
        store: store.to_owned(),
        identity: None,
        healthy: false,
        answers_from_cache: false,
        error: Some(error.kind().as_str()),
        milliseconds: milliseconds(took),
        checked: Timestamp::now(),
    }
}

fn milliseconds(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics_text))
}

async fn live() -> Json<serde_json::Value> {
    Json(json!({"live": true}))
}

/// Ready if the outbox responds, and the default store or its cache. The response contains nothing
/// else, because the caller has no token.
async fn ready(State(gateway): State<Gateway>) -> Response {
    let outbox = tokio::time::timeout(PROBE_TIMEOUT, gateway.outbox().counts()).await;
    let outbox = outbox.is_ok_and(|counts| counts.is_ok());
    let store = gateway.health().serves();
    let status = if outbox && store {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({"ready": outbox && store, "outbox": outbox, "store": store})),
    )
        .into_response()
}

async fn metrics_text(State(gateway): State<Gateway>, caller: Caller) -> Result<Response, Problem> {
    caller.require(Role::Operate)?;
    let Some(handle) = gateway.metrics() else {
        return Err(Problem::not_found("metrics are disabled"));
    };
    let now = Timestamp::now().unix_seconds();
    let counts = gateway.outbox().counts().await?;
    for state in crate::outbox::State::ALL {
        let found = counts.iter().find(|count| count.state == state);
        let changes = found.map_or(0, |count| count.changes);
        let age = found.map_or(0, |count| {
            now.saturating_sub(count.oldest.unix_seconds()).max(0)
        });
        // Exact up to 2^53, which no outbox reaches.
        #[allow(clippy::cast_precision_loss)]
        metrics::gauge!("secret_gateway_changes", "state" => state.as_str()).set(changes as f64);
        #[allow(clippy::cast_precision_loss)]
        metrics::gauge!("secret_gateway_oldest_change_seconds", "state" => state.as_str())
            .set(age as f64);
    }
    let mut response = (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        handle.render(),
    )
        .into_response();
    response.extensions_mut().insert(OwnText);
    Ok(response)
}
