//! Stores: their state, and a check of their operations.

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use secret_persistence::{
    CheckOptions, CheckStep, SecretPersistenceExt as _, StepOutcome, StorageId, Timestamp,
};
use serde::Serialize;

use crate::configurations::Configurations;
use crate::failed_writes::FailedWrite;
use crate::gateway::Gateway;
use crate::health::StoreHealth;
use crate::migration::Progress;
use crate::outbox::{Count, State as ChangeState};
use crate::server::{Caller, Problem, Time};
use crate::tokens::{Binding, Role};

/// The id of the default store in requests.
const DEFAULT: &str = "default";

/// Operating is not bound to workspaces, so a bound token sees no store.
pub(super) fn require(caller: &Caller) -> Result<(), Problem> {
    caller.require(Role::Operate)?;
    match caller.0.binding {
        Binding::All => Ok(()),
        Binding::To { .. } => Err(Problem::not_found("this does not exist for a bound token")),
    }
}

/// The stores, as they were when they were last asked.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct StoreList {
    stores: Vec<StoreHealth>,
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<Json<StoreList>, Problem> {
    require(&caller)?;
    Ok(Json(StoreList {
        stores: gateway.health().stores(),
    }))
}

/// What a check of a store found.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Checked {
    id: String,
    store: String,
    /// Whether secrets can be written and read, whatever else fails.
    works: bool,
    summary: String,
    /// The identity and location, if the store returned them.
    identity: Option<String>,
    /// Whether the test secret is, or may be, still in the store.
    left_behind: bool,
    /// The name of the test secret.
    coordinate: String,
    /// In their order.
    steps: Vec<CheckedStep>,
}

/// One operation of a check.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CheckedStep {
    operation: &'static str,
    outcome: Outcome,
    detail: String,
    milliseconds: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Outcome {
    Done,
    Failed,
    NotApplicable,
}

pub(super) async fn check(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Checked>, Problem> {
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
    Ok(Json(Checked {
        id,
        works: report.works(),
        summary: report.summary(),
        store: report.store,
        identity: report.identity.as_ref().map(ToString::to_string),
        left_behind: report.left_behind,
        coordinate: report.coordinate.as_str().to_owned(),
        steps: report.steps.iter().map(step).collect(),
    }))
}

fn step(step: &CheckStep) -> CheckedStep {
    let (outcome, detail) = match &step.outcome {
        StepOutcome::Done(text) => (Outcome::Done, text.clone()),
        StepOutcome::Failed(error) => (Outcome::Failed, error.to_string()),
        StepOutcome::NotApplicable(text) => (Outcome::NotApplicable, text.clone()),
    };
    CheckedStep {
        operation: step.operation.as_str(),
        outcome,
        detail,
        milliseconds: u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Everything that the page shows besides stores.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Status {
    /// Null where the gateway shows no migration.
    migration: Option<Progress>,
    /// How many sources of configurations the gateway has; 0 without `configurations-file`.
    sources: usize,
    /// Whether it can collect what none of them names.
    collects: bool,
    /// Whether a ledger knows who read a secret.
    ledger: bool,
    /// The version of the gateway.
    version: &'static str,
    /// Whether writes go to a second store too.
    mirrored: bool,
    /// Audit events that were lost since the start.
    unaudited: u64,
    failed_writes: ShownFailures,
    /// By state; a state without changes is missing.
    changes: Vec<Counted>,
}

/// Secrets that were not written.
#[derive(Serialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct ShownFailures {
    /// Since the start.
    total: u64,
    /// The most recent ones, newest first.
    last: Vec<FailedWrite>,
}

/// The number of changes in a state.
#[derive(Serialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct Counted {
    state: ChangeState,
    changes: u64,
    /// When the oldest of them began.
    #[schemars(with = "Time")]
    oldest: Timestamp,
}

pub(super) async fn status(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<Json<Status>, Problem> {
    require(&caller)?;
    let (total, last) = gateway.failed_writes().seen();
    let counts = gateway.outbox().counts().await?;
    let migration = match gateway.migration() {
        Some(journal) => Some(journal.progress().await),
        None => None,
    };
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    let collects = gateway.collecting().is_some();
    #[cfg(not(any(feature = "postgres", feature = "sqlite")))]
    let collects = false;
    let sources = gateway.configurations();
    Ok(Json(Status {
        migration,
        sources: sources.map_or(0, Configurations::count),
        collects,
        ledger: gateway.history().is_some(),
        version: env!("CARGO_PKG_VERSION"),
        mirrored: gateway.mirrored(),
        unaudited: gateway.stores().unaudited(),
        failed_writes: ShownFailures { total, last },
        changes: counts.iter().map(counted).collect(),
    }))
}

fn counted(count: &Count) -> Counted {
    Counted {
        state: count.state,
        changes: count.changes,
        oldest: count.oldest,
    }
}
