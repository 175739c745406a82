//! Ends changes: the caller has saved, has not, or does not know; and crashes.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use secret_persistence::connector::{ActingSecrets, RecordState};
use secret_persistence::{Actor, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::changes::find;
use super::members::{Configuration, Told};
use crate::gateway::Gateway;
use crate::outbox::{Change, OutboxError, State as ChangeState};
use crate::server::{Body, Caller, Problem, ProblemKind, request};
use crate::tokens::Role;

/// The pause before deleting again after a failure.
const AGAIN: Duration = Duration::from_secs(60);

/// How many ended changes one round cleans up.
const ROUND: u32 = 100;

/// A change after a call that ends it.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Ended {
    id: Uuid,
    state: Told,
    /// True if the row is neither as it was before the change nor as the change made it. The change
    /// stays open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    undecided: Option<bool>,
}

request! {
    /// The row as it is now.
    pub(super) struct Settle {
        /// The configuration of the row; null where there is no row.
        current: Configuration,
    }
}

pub(super) async fn commit(
    gateway: State<Gateway>,
    caller: Caller,
    id: Path<String>,
) -> Result<Json<Ended>, Problem> {
    end(gateway, caller, id, ChangeState::Committed).await
}

pub(super) async fn abort(
    gateway: State<Gateway>,
    caller: Caller,
    id: Path<String>,
) -> Result<Json<Ended>, Problem> {
    end(gateway, caller, id, ChangeState::Aborted).await
}

async fn end(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(id): Path<String>,
    to: ChangeState,
) -> Result<Json<Ended>, Problem> {
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
) -> Result<Json<Ended>, Problem> {
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
            return Ok(Json(Ended {
                id: change.id,
                state: Told(now),
                undecided: None,
            }));
        }
        Err(Problem::new(
            ProblemKind::ChangeEndedOtherwise,
            format!("the change is already {}", now.as_str()),
        )
        .with(|members| members.state = Some(now.as_str())))
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
    body: Body<Settle>,
) -> Result<Json<Ended>, Problem> {
    caller.require(Role::Change)?;
    let Configuration(current) = body.parse()?.current;
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
    Ok(Json(Ended {
        id: change.id,
        state: Told(change.state),
        undecided: Some(true),
    }))
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
