//! The collector: a dry run, then a run that deletes.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use secret_persistence::Timestamp;
use secret_persistence_migrate::{
    CollectReport, CollectRules, CollectStop, Failure, Fate, Reason, Superfluous,
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::api::Accepted;
use super::inventory::{MAX_WORKSPACES, Workspaces};
use super::members::Seconds;
use super::stores::require;
use crate::collector::{Collector, Run, RunFailure};
use crate::gateway::Gateway;
use crate::server::{
    Body, Caller, List, Maybe, Member, Problem, Time, inline_schema, invalid, request,
};

/// The shortest grace period.
const LEAST_GRACE: u64 = 3600;

request! {
    /// How long a dry run waits, and how much a run after it deletes at once.
    pub(super) struct CollectPreview {
        /// How old a secret must be, and how long unreferenced.
        #[schemars(default, extend("default" = 86_400))]
        grace_seconds: Maybe<Grace>,
        /// How many percent of the installation's secrets may go at once.
        #[schemars(default, extend("default" = 10))]
        max_percent: Maybe<Percent>,
        /// Only secrets of these workspaces, by their names.
        #[schemars(default)]
        workspaces: Workspaces,
    }
}

request! {
    /// The confirmation of a run that deletes.
    pub(super) struct CollectDelete {
        /// That `configurations-file` names every place with pointers (except `storages-file` and the
        /// outbox, which are read too): what no configuration there names is deleted.
        all_references: Confirmed,
    }
}

/// A grace period.
struct Grace(u64);

inline_schema!(Grace, {"type": "integer", "minimum": LEAST_GRACE, "maximum": Seconds::MOST});

impl Member for Grace {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let Seconds(seconds) = Seconds::of(name, value)?;
        if seconds < LEAST_GRACE {
            let reason = "is less than an hour: a secret may be older than the configuration that is about to be saved with it";
            return Err(invalid(name, reason).with_limit(LEAST_GRACE));
        }
        Ok(Self(seconds))
    }
}

/// A share.
struct Percent(u8);

inline_schema!(Percent, {"type": "integer", "minimum": 0, "maximum": 100});

impl Member for Percent {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        let Seconds(number) = Seconds::of(name, value)?;
        let percent = u8::try_from(number).ok().filter(|percent| *percent <= 100);
        percent
            .map(Self)
            .ok_or_else(|| invalid(name, "is not a whole number from 0 to 100").with_limit(100))
    }
}

/// `true`.
struct Confirmed;

inline_schema!(Confirmed, {"type": "boolean", "const": true});

impl Member for Confirmed {
    fn of(name: &'static str, value: Value) -> Result<Self, Problem> {
        if value == Value::Bool(true) {
            return Ok(Self);
        }
        drop(secret_persistence::connector::SecretJson::new(value));
        Err(invalid(
            name,
            "must be true: a table or file with pointers that `configurations-file` does not name would lose its secrets",
        ))
    }
}

/// The latest run of this process.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Latest {
    /// Null if there was none.
    run: Option<ShownRun>,
}

/// A run of the collector.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CollectRun", deny_unknown_fields)]
pub(super) struct ShownRun {
    id: Uuid,
    /// Who began it.
    actor: String,
    /// Whether it deletes nothing.
    dry_run: bool,
    grace_seconds: u64,
    max_percent: u8,
    #[schemars(with = "Time")]
    began: Timestamp,
    /// Null while it is under way.
    #[schemars(with = "Option<Time>")]
    ended: Option<Timestamp>,
    state: RunState,
    /// What it counted; null while it is under way, and if it failed.
    counts: Option<CollectCounts>,
    /// Why it failed.
    failure: Option<ShownRunFailure>,
    /// The first secrets that no configuration names, or that have expired: at most 1000.
    secrets: Vec<ShownSuperfluous>,
    /// The first places that cannot be understood, and deletes that failed.
    failures: Vec<ShownFailure>,
}

/// `unreadable` and `share` runs have deleted nothing: see docs/gateway.md.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum RunState {
    Cancelled,
    Done,
    Failed,
    Failures,
    Running,
    Share,
    Unreadable,
}

/// Figures of a run.
#[derive(Serialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct CollectCounts {
    configurations: u64,
    deleted: u64,
    ephemeral: u64,
    expired: u64,
    failed: u64,
    foreign: u64,
    names: u64,
    orphaned: u64,
    owned: u64,
    undated: u64,
    unowned: u64,
    unreadable: u64,
    waiting: u64,
    young: u64,
}

/// Why a run did not come to its end.
#[derive(Serialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct ShownRunFailure {
    kind: &'static str,
    detail: String,
    /// How many secrets it had deleted before; null if nobody knows.
    deleted: Option<u64>,
}

/// A secret that no configuration names, or that has expired.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Superfluous", deny_unknown_fields)]
struct ShownSuperfluous {
    coordinate: String,
    #[schemars(with = "ReasonName")]
    reason: Reason,
    #[schemars(with = "FateName")]
    fate: Fate,
    #[schemars(with = "Option<Time>")]
    created: Option<Timestamp>,
    /// Since when every run found it so.
    #[schemars(with = "Time")]
    since: Timestamp,
}

struct ReasonName;

inline_schema!(ReasonName, {
    "type": "string", "enum": ["ephemeral", "expired", "orphaned", "undated", "unowned"],
});

struct FateName;

inline_schema!(FateName, {
    "type": "string", "enum": ["deleted", "due", "failed", "kept", "waiting"],
});

/// A place that cannot be understood, or a delete that failed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CollectFailure", deny_unknown_fields)]
struct ShownFailure {
    coordinate: Option<String>,
    configuration: Option<String>,
    place: Option<String>,
    kind: String,
    detail: String,
}

/// Where there is nothing to collect from, there is no collector.
fn require_collector(gateway: &Gateway, caller: &Caller) -> Result<(), Problem> {
    require(caller)?;
    if gateway.collecting().is_some() {
        return Ok(());
    }
    Err(Problem::not_found(
        "the gateway has no collector: it needs `configurations-file`, and SECRETS_OWNER for its store",
    ))
}

pub(super) async fn latest(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<Json<Latest>, Problem> {
    require_collector(&gateway, &caller)?;
    let run = gateway.collector().latest();
    Ok(Json(Latest {
        run: run.map(ShownRun::from),
    }))
}

pub(super) async fn preview(
    State(gateway): State<Gateway>,
    caller: Caller,
    body: Body<CollectPreview>,
) -> Result<Accepted<ShownRun>, Problem> {
    require_collector(&gateway, &caller)?;
    let asked = body.parse()?;
    let mut rules = CollectRules::default();
    if let Some(Grace(seconds)) = asked.grace_seconds.into_option() {
        rules.grace = Duration::from_secs(seconds);
    }
    if let Some(Percent(percent)) = asked.max_percent.into_option() {
        rules.most_percent = percent;
    }
    if let Some(List::<_, MAX_WORKSPACES>(workspaces)) = asked.workspaces.into_option() {
        rules.workspaces = workspaces.into_iter().collect();
    }
    // What a committed change superseded is kept so long for backups of configurations.
    rules.retention = gateway.settings().retention;
    let run = Collector::preview(&gateway, &caller, rules).await?;
    Ok(Accepted(run.into()))
}

pub(super) async fn delete(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body<CollectDelete>,
) -> Result<Accepted<ShownRun>, Problem> {
    require_collector(&gateway, &caller)?;
    let CollectDelete {
        all_references: Confirmed,
    } = body.parse()?;
    let run = Collector::delete(&gateway, &caller, parsed(&id)?).await?;
    Ok(Accepted(run.into()))
}

pub(super) async fn stop(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ShownRun>, Problem> {
    require_collector(&gateway, &caller)?;
    let run = gateway.collector().stop(parsed(&id)?)?;
    Ok(Json(run.into()))
}

fn parsed(id: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(id).map_err(|_| Problem::not_found("there is no run with this id"))
}

impl From<Run> for ShownRun {
    fn from(run: Run) -> Self {
        let mut shown = Self {
            id: run.id,
            actor: run.actor.as_str().to_owned(),
            dry_run: run.dry_run,
            grace_seconds: run.rules.grace.as_secs(),
            max_percent: run.rules.most_percent,
            began: run.began,
            ended: None,
            state: RunState::Running,
            counts: None,
            failure: None,
            secrets: Vec::new(),
            failures: Vec::new(),
        };
        let Some(ended) = run.ended else {
            return shown;
        };
        shown.ended = Some(ended.at);
        shown.secrets = ended.secrets.into_iter().map(superfluous).collect();
        match ended.outcome {
            Ok(report) => {
                shown.state = match report.stopped {
                    None => RunState::Done,
                    Some(CollectStop::Cancelled) => RunState::Cancelled,
                    Some(CollectStop::Failures) => RunState::Failures,
                    Some(CollectStop::Share) => RunState::Share,
                    // Whatever else stops a run stops it before it deletes.
                    Some(_) => RunState::Unreadable,
                };
                shown.failures = report.failures.iter().map(failure).collect();
                shown.counts = Some(report.into());
            }
            Err(RunFailure {
                kind,
                detail,
                deleted,
            }) => {
                shown.state = RunState::Failed;
                shown.failure = Some(ShownRunFailure {
                    kind,
                    detail,
                    deleted,
                });
            }
        }
        shown
    }
}

impl From<CollectReport> for CollectCounts {
    fn from(report: CollectReport) -> Self {
        Self {
            configurations: report.configurations,
            deleted: report.deleted,
            ephemeral: report.ephemeral,
            expired: report.expired,
            failed: report.failed,
            foreign: report.foreign,
            names: report.names,
            orphaned: report.orphaned,
            owned: report.owned,
            undated: report.undated,
            unowned: report.unowned,
            unreadable: report.unreadable,
            waiting: report.waiting,
            young: report.young,
        }
    }
}

fn superfluous(secret: Superfluous) -> ShownSuperfluous {
    ShownSuperfluous {
        coordinate: secret.coordinate,
        reason: secret.reason,
        fate: secret.fate,
        created: secret.created,
        since: secret.since,
    }
}

fn failure(failure: &Failure) -> ShownFailure {
    ShownFailure {
        coordinate: failure.coordinate.clone(),
        configuration: failure.configuration.clone(),
        place: failure.place.clone(),
        kind: failure.kind.clone(),
        detail: failure.message.clone(),
    }
}
