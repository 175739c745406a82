//! Changes: planned, recorded, staged; then open until the caller ends them.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use secret_persistence::connector::{self, ConnectorError, RecordState};
use secret_persistence::{Location, ManagedCoordinate, Scope, Timestamp};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::api::Created;
use super::members::{Configuration, Told};
use super::request::{ChangeRequest, IdempotencyKey, Wanted, What};
use crate::gateway::Gateway;
use crate::outbox::{Change, ChangeKind, Idempotency, Inserted, State as ChangeState};
use crate::server::{Body, Caller, Problem, ProblemKind, Time};
use crate::tokens::Role;

/// How much longer than a request staging may take. Afterwards, no caller waits for it.
const LEASE_BEYOND_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn create(
    State(gateway): State<Gateway>,
    caller: Caller,
    key: IdempotencyKey,
    body: Body<ChangeRequest>,
) -> Result<Created<ShownChange>, Problem> {
    caller.require(Role::Change)?;
    let idempotency = key.of(&caller.0, &body, gateway.digests())?;
    if let Some(ours) = &idempotency
        && let Some(known) = gateway.outbox().known(&ours.key).await?
    {
        return answer_again(&known, ours);
    }
    let external = &gateway.settings().external_prefixes;
    let wanted = Wanted::of(body.parse()?, &caller.0, external, gateway.digests())?;
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
fn answer_again(known: &Change, ours: &Idempotency) -> Result<Created<ShownChange>, Problem> {
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

fn created(change: &Change) -> Created<ShownChange> {
    Created(shown(change, true))
}

/// Plans, records and stages. If it ends early, it leaves a record of what may remain.
async fn make(
    gateway: &Gateway,
    caller: &Caller,
    wanted: Wanted,
    idempotency: Option<Idempotency>,
) -> Result<Created<ShownChange>, Problem> {
    let secrets = caller.acting_on(&gateway.secrets_guarding(wanted.policy));
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
) -> Result<Json<ShownChange>, Problem> {
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

pub(super) fn exists_for(caller: &Caller, change: &Change) -> bool {
    Scope::new(&change.scope_prefix, change.scope_id)
        .is_ok_and(|scope| caller.0.binding.sees_scope(&scope))
}

/// A change, as callers see it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Change", deny_unknown_fields)]
pub(super) struct ShownChange {
    id: Uuid,
    kind: ChangeKind,
    state: Told,
    scope: ShownScope,
    /// The name of the caller.
    actor: String,
    #[schemars(with = "Time")]
    created: Timestamp,
    /// The secrets that the change writes.
    writes: Vec<ShownLocation>,
    /// The secrets that a commit deletes.
    supersedes: Vec<ShownLocation>,
    /// With pointers; null where the row is to be deleted. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Configuration")]
    configuration: Option<Value>,
}

/// The scope of a change.
#[derive(Serialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct ShownScope {
    prefix: String,
    id: Uuid,
}

/// The name of a secret, and its store if that is not the default one.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Location", deny_unknown_fields)]
struct ShownLocation {
    coordinate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    storage_id: Option<String>,
}

pub(super) fn shown(change: &Change, with_configuration: bool) -> ShownChange {
    let names = |locations: &[Location<ManagedCoordinate>]| -> Vec<ShownLocation> {
        locations
            .iter()
            .map(|location| ShownLocation {
                coordinate: location.coordinate.as_str().to_owned(),
                storage_id: location
                    .storage_id
                    .as_ref()
                    .map(|id| id.as_str().to_owned()),
            })
            .collect()
    };
    ShownChange {
        id: change.id,
        kind: change.kind,
        state: Told(change.state),
        scope: ShownScope {
            prefix: change.scope_prefix.clone(),
            id: change.scope_id,
        },
        actor: change.actor.clone(),
        created: change.created,
        writes: names(change.record.writes()),
        supersedes: names(change.record.supersedes()),
        configuration: with_configuration.then(|| parsed(&change.configuration)),
    }
}

/// Parses to the depth of a configuration, which is more than the parser's default.
fn parsed(text: &str) -> Value {
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    // The gateway wrote it.
    serde::Deserialize::deserialize(&mut parser).unwrap_or(Value::Null)
}
