//! Changes: planned, recorded, staged; then open until the caller ends them.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use secret_persistence::connector::{self, ConnectorError, RecordState};
use secret_persistence::{Location, ManagedCoordinate, Scope, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::request::{Wanted, What, idempotency};
use crate::gateway::Gateway;
use crate::outbox::{After, Change, Idempotency, Inserted, State as ChangeState};
use crate::server::{Body, Caller, Problem, ProblemKind, invalid};
use crate::tokens::Role;

/// How much longer than a request staging may take. Afterwards, no caller waits for it.
const LEASE_BEYOND_TIMEOUT: Duration = Duration::from_secs(15);

/// How many changes one query of the outbox returns.
const PAGE: u32 = 100;

/// How many changes one response may have.
const MAX_LIST: usize = 500;

/// Maximum queries for one response, if most changes are invisible to the caller.
const LOOKS: usize = 20;

pub(super) async fn create(
    State(gateway): State<Gateway>,
    caller: Caller,
    headers: HeaderMap,
    Body(fields): Body,
) -> Result<Response, Problem> {
    caller.require(Role::Change)?;
    let idempotency = idempotency(&headers, &caller.0, &fields, gateway.digests())?;
    if let Some(ours) = &idempotency
        && let Some(known) = gateway.outbox().known(&ours.key).await?
    {
        return answer_again(&known, ours);
    }
    let external = &gateway.settings().external_prefixes;
    let wanted = Wanted::parse(fields, &caller.0, external, gateway.digests())?;
    let ours = gateway.clone();
    let made = gateway.to_the_end(async move { make(&ours, &caller, wanted, idempotency).await });
    made.await.unwrap_or_else(|| {
        Err(Problem::new(
            ProblemKind::Internal,
            "the gateway failed; its log says more",
        ))
    })
}

/// The response to a retry, which equals the first one.
fn answer_again(known: &Change, ours: &Idempotency) -> Result<Response, Problem> {
    if known.idempotency.as_ref().map(|theirs| &theirs.digest) != Some(&ours.digest) {
        return Err(Problem::new(
            ProblemKind::IdempotencyKeyReused,
            "the Idempotency-Key belongs to another request",
        ));
    }
    if known.state == ChangeState::Staging {
        return Err(Problem::new(
            ProblemKind::ChangeInProgress,
            "the first request with this Idempotency-Key is still running; try again",
        )
        .with_retry_after(1));
    }
    Ok(created(known))
}

fn created(change: &Change) -> Response {
    (StatusCode::CREATED, Json(shown(change, true))).into_response()
}

/// Plans, records and stages. If it ends early, it leaves a record of what may remain.
async fn make(
    gateway: &Gateway,
    caller: &Caller,
    wanted: Wanted,
    idempotency: Option<Idempotency>,
) -> Result<Response, Problem> {
    let secrets = gateway
        .secrets_guarding(wanted.policy)
        .acting_as(&caller.actor());
    let kind = wanted.what.kind();
    let planned = match wanted.what {
        What::Create { spec, edited } => {
            secrets
                .plan_create(&spec, &wanted.scope, edited.into_inner())
                .await
        }
        What::Update {
            spec,
            saved,
            edited,
        } => {
            secrets
                .plan_update(
                    &spec,
                    &wanted.scope,
                    saved.into_inner(),
                    edited.into_inner(),
                )
                .await
        }
        What::Delete { saved } => secrets.plan_delete(&wanted.scope, saved.into_inner()).await,
    }?
    .with_expires(wanted.expires);
    let lease = gateway.settings().limits.timeout + LEASE_BEYOND_TIMEOUT;
    let now = Timestamp::now();
    let mut change = Change {
        id: Uuid::new_v4(),
        kind,
        actor: caller.0.name.clone(),
        scope_prefix: wanted.scope.prefix().to_owned(),
        scope_id: wanted.scope.base_id(),
        state: ChangeState::Staging,
        record: planned.record().clone(),
        configuration: String::from("null"),
        staged_digest: String::new(),
        saved_digest: wanted.saved_digest,
        idempotency,
        created: now,
        lease: now.saturating_add(lease),
        cleaned: false,
    };
    // Before anything is written, so that a crash leaves only recorded secrets.
    if let Inserted::Known(known) = gateway.outbox().insert(&change).await? {
        let ours = change.idempotency.as_ref();
        return ours.map_or_else(|| Err(abandoned()), |ours| answer_again(&known, ours));
    }
    let staged = match tokio::time::timeout(lease, planned.stage()).await {
        Ok(Ok(staged)) => staged,
        Ok(Err(error)) => {
            count_failures(gateway, caller, &error);
            abandon(gateway, caller, &change).await;
            return Err(error.into());
        }
        Err(_) => {
            abandon(gateway, caller, &change).await;
            return Err(
                Problem::new(ProblemKind::Timeout, "the store did not answer in time")
                    .with_retry_after(5),
            );
        }
    };
    let (configuration, _) = staged.into_parts();
    change.staged_digest = gateway.digests().of("configuration", &configuration);
    change.configuration = configuration.to_string();
    match gateway
        .outbox()
        .open(change.id, &change.configuration, &change.staged_digest)
        .await
    {
        Ok(true) => {
            change.state = ChangeState::Open;
            metrics::counter!("secret_gateway_changes_total", "state" => "open").increment(1);
            Ok(created(&change))
        }
        Ok(false) => {
            abandon(gateway, caller, &change).await;
            Err(abandoned())
        }
        // The change may be open. A retry with its Idempotency-Key, or the list of changes, shows
        // it.
        Err(error) => Err(error.into()),
    }
}

fn abandoned() -> Problem {
    Problem::new(
        ProblemKind::ChangeAbandoned,
        "the change took too long and was abandoned; repeat it",
    )
}

/// Deletes what an abandoned change wrote, now and until no write of it can be in flight. The
/// caller got no response and cannot have saved the change.
async fn abandon(gateway: &Gateway, caller: &Caller, change: &Change) {
    let claimed = gateway
        .outbox()
        .swap(change.id, ChangeState::Staging, ChangeState::Abandoned)
        .await;
    if let Err(error) = claimed {
        // Its lease ends, and then the healer claims it.
        tracing::warn!(target: "secret_gateway", %error, "an abandoned change is left to the healer");
        return;
    }
    let secrets = caller.secrets(gateway);
    super::ending::clean_up(gateway, &secrets, change, RecordState::Abandoned).await;
}

/// Counts every secret that was not written.
fn count_failures(gateway: &Gateway, caller: &Caller, error: &ConnectorError) {
    for problem in error.problems() {
        if let (connector::ProblemKind::Store, Some(error)) = (problem.kind(), problem.error()) {
            gateway.failed_writes().failed(
                "connector",
                &caller.0.name,
                problem.coordinate().unwrap_or_default(),
                error.kind(),
                Some(error),
            );
        }
    }
}

pub(super) async fn show(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require(Role::Change)?;
    Ok(Json(shown(&find(&gateway, &caller, &id).await?, true)))
}

/// A change that the caller may see.
pub(super) async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Change, Problem> {
    let missing = || Problem::not_found("there is no change with this id for this token");
    let id = Uuid::try_parse(id).map_err(|_| missing())?;
    let change = gateway.outbox().get(id).await?.ok_or_else(missing)?;
    // Their callers got no response.
    let untold = matches!(change.state, ChangeState::Staging | ChangeState::Abandoned);
    if untold || !exists_for(caller, &change) {
        Err(missing())
    } else {
        Ok(change)
    }
}

fn exists_for(caller: &Caller, change: &Change) -> bool {
    Scope::new(&change.scope_prefix, change.scope_id)
        .is_ok_and(|scope| caller.0.binding.sees_scope(&scope))
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<Value>, Problem> {
    caller.require(Role::Change)?;
    let known = ["state", "before", "after", "limit"];
    if let Some(unknown) = query.keys().find(|name| !known.contains(&name.as_str())) {
        let unknown: String = unknown
            .chars()
            .take(64)
            .flat_map(char::escape_debug)
            .collect();
        return Err(Problem::new(
            ProblemKind::UnknownField,
            format!("unknown parameter {unknown}"),
        )
        .with("fields", vec![unknown]));
    }
    let state = match query.get("state").map(String::as_str) {
        None | Some("open") => ChangeState::Open,
        Some("committed") => ChangeState::Committed,
        Some("aborted") => ChangeState::Aborted,
        Some(_) => return Err(invalid("state", "must be open, committed or aborted")),
    };
    let before = match query.get("before") {
        None => Timestamp::now().saturating_add(Duration::from_secs(86_400)),
        Some(text) => text
            .parse()
            .map_err(|_| invalid("before", "is not an RFC 3339 time"))?,
    };
    let limit: usize = match query.get("limit") {
        None => 100,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_LIST).contains(limit))
            .ok_or_else(|| {
                invalid("limit", "is not a number from 1 to 500").with("limit", MAX_LIST)
            })?,
    };
    let mut after = query.get("after").map(|text| cursor(text)).transpose()?;
    let mut found = Vec::new();
    let mut more = true;
    for _ in 0..LOOKS {
        let page = gateway.outbox().list(state, before, after, PAGE).await?;
        more = page.len() == PAGE as usize;
        for change in page {
            if found.len() == limit {
                more = true;
                break;
            }
            after = Some(After {
                created: change.created.unix_seconds(),
                id: change.id,
            });
            if exists_for(&caller, &change) {
                found.push(shown(&change, false));
            }
        }
        if !more || found.len() == limit {
            break;
        }
    }
    let next = after
        .filter(|_| more)
        .map(|after| format!("{}.{}", after.created, after.id));
    Ok(Json(json!({"changes": found, "next": next})))
}

fn cursor(text: &str) -> Result<After, Problem> {
    let parse = || {
        let (created, id) = text.split_once('.')?;
        Some(After {
            created: created.parse().ok()?,
            id: Uuid::try_parse(id).ok()?,
        })
    };
    parse().ok_or_else(|| invalid("after", "is not the `next` of a response"))
}

/// A change, as callers see it.
pub(super) fn shown(change: &Change, with_configuration: bool) -> Value {
    let names = |locations: &[Location<ManagedCoordinate>]| -> Vec<Value> {
        locations
            .iter()
            .map(|location| {
                let mut shown = json!({"coordinate": location.coordinate.as_str()});
                if let Some(id) = &location.storage_id {
                    shown["storage_id"] = id.as_str().into();
                }
                shown
            })
            .collect()
    };
    let mut shown = json!({
        "id": change.id.to_string(),
        "kind": change.kind,
        "state": change.state,
        "scope": {"prefix": change.scope_prefix, "id": change.scope_id.to_string()},
        "actor": change.actor,
        "created": change.created.to_string(),
        "writes": names(change.record.writes()),
        "supersedes": names(change.record.supersedes()),
    });
    if with_configuration {
        shown["configuration"] = parsed(&change.configuration);
    }
    shown
}

/// Parses to the depth of a configuration, which is more than the parser's default.
fn parsed(text: &str) -> Value {
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    // The gateway wrote it.
    serde::Deserialize::deserialize(&mut parser).unwrap_or(Value::Null)
}
