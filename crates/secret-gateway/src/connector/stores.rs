//! Stores: their state, and a check of their operations.

use axum::Json;
use axum::extract::{Path, State};
use secret_persistence::{
    CheckOptions, CheckStep, SecretPersistenceExt as _, StepOutcome, StorageId,
};
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::outbox::Count;
use crate::server::{Caller, Problem};
use crate::tokens::{Binding, Role};

/// The id of the default store in requests.
const DEFAULT: &str = "default";

/// Operating is not bound to workspaces, so a bound token sees no store.
fn require(caller: &Caller) -> Result<(), Problem> {
    caller.require(Role::Operate)?;
    match caller.0.binding {
        Binding::All => Ok(()),
        Binding::To { .. } => Err(Problem::not_found("this does not exist for a bound token")),
    }
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    require(&caller)?;
    Ok(Json(json!({"stores": gateway.health().stores()})))
}

pub(super) async fn check(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    require(&caller)?;
    let missing = || Problem::not_found("the store with this id does not exist");
    let store = if id == DEFAULT {
        gateway.store().clone()
    } else {
        let id = StorageId::parse(&id).map_err(|_| missing())?;
        if !gateway.storage_ids().contains(&id) {
            return Err(missing());
        }
        gateway.stores().store(Some(&id)).await?
    };
    let report = store.check(&CheckOptions::default()).await;
    let steps: Vec<Value> = report.steps.iter().map(step).collect();
    Ok(Json(json!({
        "id": id,
        "store": report.store,
        "works": report.works(),
        "summary": report.summary(),
        "identity": report.identity.as_ref().map(ToString::to_string),
        "left_behind": report.left_behind,
        "coordinate": report.coordinate.as_str(),
        "steps": steps,
    })))
}

fn step(step: &CheckStep) -> Value {
    let (outcome, text) = match &step.outcome {
        StepOutcome::Done(text) => ("done", text.clone()),
        StepOutcome::Failed(error) => ("failed", error.to_string()),
        StepOutcome::NotApplicable(text) => ("not_applicable", text.clone()),
    };
    json!({
        "operation": step.operation.as_str(),
        "outcome": outcome,
        "detail": text,
        "milliseconds": u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Everything that the page shows besides stores.
pub(super) async fn status(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<Json<Value>, Problem> {
    require(&caller)?;
    let (total, last) = gateway.failed_writes().seen();
    let changes: Vec<Value> = gateway
        .outbox()
        .counts()
        .await?
        .iter()
        .map(counted)
        .collect();
    let migration = match gateway.migration() {
        Some(journal) => journal.progress().await,
        None => Value::Null,
    };
    Ok(Json(json!({
        "migration": migration,
        "version": env!("CARGO_PKG_VERSION"),
        "mirrored": gateway.mirrored(),
        "unaudited": gateway.stores().unaudited(),
        "failed_writes": {"total": total, "last": last},
        "changes": changes,
    })))
}

fn counted(count: &Count) -> Value {
    json!({"state": count.state, "changes": count.changes, "oldest": count.oldest.to_string()})
}
