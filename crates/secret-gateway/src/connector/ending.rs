//! Ends changes: the caller has saved, has not, or does not know; and crashes.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use secret_persistence::connector::{ActingSecrets, RecordState, SecretJson};
use secret_persistence::{Actor, Timestamp};
use serde_json::{Value, json};

use super::changes::find;
use crate::gateway::Gateway;
use crate::outbox::{Change, OutboxError, State as ChangeState};
use crate::server::{Body, Caller, Problem, ProblemKind};
use crate::tokens::Role;

/// The pause before deleting again after a failure.
const AGAIN: Duration = Duration::from_secs(60);

/// How many ended changes one round cleans up.
const ROUND: u32 = 100;

pub(super) async fn commit(
    gateway: State<Gateway>,
    caller: Caller,
    id: Path<String>,
) -> Result<Json<Value>, Problem> {
    end(gateway, caller, id, ChangeState::Committed).await
}

pub(super) async fn abort(
    gateway: State<Gateway>,
    caller: Caller,
    id: Path<String>,
) -> Result<Json<Value>, Problem> {
    end(gateway, caller, id, ChangeState::Aborted).await
}

async fn end(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(id): Path<String>,
    to: ChangeState,
) -> Result<Json<Value>, Problem> {
    caller.require(Role::Change)?;
    let change = find(&gateway, &caller, &id).await?;
    end_as(&gateway, caller, change, to).await
}

/// Ends a change, even if others try at the same time.
async fn end_as(
    gateway: &Gateway,
    caller: Caller,
    change: Change,
    to: ChangeState,
) -> Result<Json<Value>, Problem> {
    let ours = gateway.clone();
    let ended = gateway.to_the_end(async move {
        let won = ours.outbox().swap(change.id, ChangeState::Open, to).await?;
        if won {
            metrics::counter!("secret_gateway_changes_total", "state" => to.as_str()).increment(1);
            let state = if to == ChangeState::Committed {
                RecordState::Saved
            } else {
                RecordState::Abandoned
            };
            clean_up(&ours, &caller.secrets(&ours), &change, state).await;
        }
        let now = ours
            .outbox()
            .get(change.id)
            .await?
            .map_or(to, |change| change.state);
        if now == to {
            return Ok(Json(json!({"id": change.id.to_string(), "state": now})));
        }
        Err(Problem::new(
            ProblemKind::ChangeEndedOtherwise,
            format!("the change is already {}", now.as_str()),
        )
        .with("state", now.as_str()))
    });
    ended.await.unwrap_or_else(|| {
        Err(Problem::new(
            ProblemKind::Internal,
            "the gateway failed; its log says more",
        ))
    })
}

pub(super) async fn settle(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(id): Path<String>,
    Body(mut fields): Body,
) -> Result<Json<Value>, Problem> {
    caller.require(Role::Change)?;
    let current = SecretJson::new(fields.require("current")?);
    fields.finish()?;
    let change = find(&gateway, &caller, &id).await?;
    let digest = gateway.digests().of("configuration", &current);
    let is_saved = if change.saved_digest.is_empty() {
        current.is_null()
    } else {
        digest == change.saved_digest
    };
    if digest == change.staged_digest {
        return end_as(&gateway, caller, change, ChangeState::Committed).await;
    }
    if is_saved {
        return end_as(&gateway, caller, change, ChangeState::Aborted).await;
    }
    // The row was changed since then: nothing is deleted, and the caller decides.
    Ok(Json(
        json!({"id": change.id.to_string(), "state": change.state, "undecided": true}),
    ))
}

/// Deletes what a change leaves behind, and records whether anything remains.
pub(super) async fn clean_up(
    gateway: &Gateway,
    secrets: &ActingSecrets,
    change: &Change,
    state: RecordState,
) {
    let again = match secrets.heal(&change.record, state).await {
        Ok(cleanup) => {
            for undeleted in &cleanup.failed {
                tracing::warn!(target: "secret_gateway", error = %undeleted.error, "left for the healer");
            }
            let failed =
                (!cleanup.failed.is_empty()).then(|| Timestamp::now().saturating_add(AGAIN));
            failed.or(cleanup.again)
        }
        Err(error) => {
            tracing::warn!(target: "secret_gateway", %error, "left for the healer");
            Some(Timestamp::now().saturating_add(AGAIN))
        }
    };
    if let Err(error) = gateway.outbox().cleaned(change.id, again).await {
        // It stays due. Cleaning up twice is harmless.
        tracing::warn!(target: "secret_gateway", %error, "a cleanup could not be recorded");
    }
}

/// One round of the healer: abandons changes that have been staging for too long, deletes what
/// ended changes left behind, deletes old records. Open changes stay: only their callers know
/// whether a row was saved.
///
/// # Errors
/// If the outbox fails.
pub async fn heal(gateway: &Gateway) -> Result<(), OutboxError> {
    let now = Timestamp::now();
    let stale = gateway.outbox().abandon_stale(now).await?;
    if stale > 0 {
        metrics::counter!("secret_gateway_changes_total", "state" => "abandoned").increment(stale);
    }
    let secrets = gateway
        .secrets()
        .acting_as(&Actor::new("secret-gateway:healer"));
    for change in gateway.outbox().take_due(now, ROUND).await? {
        let state = match change.state {
            ChangeState::Committed => RecordState::Saved,
            _ => RecordState::Abandoned,
        };
        clean_up(gateway, &secrets, &change, state).await;
    }
    let kept = gateway.settings().changes_kept.as_secs();
    let before = now
        .unix_seconds()
        .saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX));
    if let Ok(before) = Timestamp::from_unix_seconds(before) {
        gateway.outbox().forget(before).await?;
    }
    Ok(())
}
