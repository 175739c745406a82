//! What the store knows about the secrets of configurations: their ages, which to issue again after a
//! leak, and which to restore after configurations came from a backup. Never shows a value.

use std::error::Error as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use secret_persistence::{Error, Timestamp};
use secret_persistence_migrate::{
    Inventory, InventoryReport, MigrateError, MigrateErrorKind, SecretAt, SecretFilter, Standing,
};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::api::Query;
use super::configs::{Configs, MAX_CONFIGURATIONS, Page, Row, SOURCE, unavailable};
use super::members::{At, Flag, Seconds};
use super::stores::require;
use crate::audited::Audited;
use crate::gateway::Gateway;
use crate::server::{
    Body, Caller, List, Maybe, Problem, ProblemKind, Time, inline_schema, invalid, request,
};

/// How many workspaces one request may name.
pub(super) const MAX_WORKSPACES: usize = 1000;

pub(super) type Rows = Maybe<List<Row, MAX_CONFIGURATIONS>>;
pub(super) type Workspaces = Maybe<List<Uuid, MAX_WORKSPACES>>;

request! {
    /// Configurations, and how old their secrets are at least.
    pub(super) struct Ages {
        /// By default, a page of the configurations that `configurations-file` names, and last of the
        /// settings in `storages-file`.
        #[schemars(default)]
        configurations: Rows,
        /// Only secrets that were written at least so long ago.
        #[schemars(default)]
        older_than_seconds: Maybe<Seconds>,
        /// Only secrets that expire within this time, or have expired.
        #[schemars(default)]
        expiring_within_seconds: Maybe<Seconds>,
        /// Only secrets of these workspaces.
        #[schemars(default)]
        workspaces: Workspaces,
    }
}

request! {
    /// Configurations, and when their secrets were exposed.
    pub(super) struct Affected {
        /// By default, a page of the configurations that `configurations-file` names, and last of the
        /// settings in `storages-file`.
        #[schemars(default)]
        configurations: Rows,
        /// Only secrets that were written at this time or later.
        #[schemars(default)]
        since: Maybe<At>,
        /// Only secrets that were written at this time or earlier.
        #[schemars(default)]
        until: Maybe<At>,
        /// Only secrets of the default store.
        #[schemars(default)]
        in_store: Maybe<Flag>,
        /// Only secrets of these workspaces.
        #[schemars(default)]
        workspaces: Workspaces,
    }
}

request! {
    /// Configurations that came from a backup.
    pub(super) struct Restore {
        /// By default, a page of the configurations that `configurations-file` names, and last of the
        /// settings in `storages-file`.
        #[schemars(default)]
        configurations: Rows,
        /// Restore nothing, and list what would be.
        #[schemars(default)]
        dry_run: Maybe<Flag>,
        /// Only secrets of these workspaces.
        #[schemars(default)]
        workspaces: Workspaces,
    }
}

/// The secrets that were asked for, in the order of the configurations.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Secrets {
    secrets: Vec<ShownSecret>,
    counts: Counts,
    /// The `after` of the next page of configurations; null on the last one, and for those of a request.
    next: Option<String>,
}

/// One secret at one place of one configuration.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ShownSecret {
    /// The id of the configuration.
    configuration: String,
    /// A JSON Pointer.
    place: String,
    workspace: Option<String>,
    /// The name; null where the place does not say it.
    coordinate: Option<String>,
    /// The storage id in the pointer.
    storage: Option<String>,
    standing: ShownStanding,
    /// When the value was written, if the store records it.
    #[schemars(with = "Option<Time>")]
    created: Option<Timestamp>,
    age_seconds: Option<u64>,
    #[schemars(with = "Option<Time>")]
    expires: Option<Timestamp>,
    /// The installation that wrote it, if the store records it.
    owner: Option<String>,
    /// Why nothing is known about it.
    detail: Option<String>,
}

struct ShownStanding(Standing);

inline_schema!(ShownStanding, {
    "type": "string",
    "enum": [
        "elsewhere", "external", "missing", "pending_deletion", "present", "restored",
        "undescribed", "unreadable",
    ],
});

impl Serialize for ShownStanding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

/// Figures. Those after `places` are about listed secrets only.
#[derive(Serialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct Counts {
    configurations: u64,
    places: u64,
    listed: u64,
    unknown_age: u64,
    elsewhere: u64,
    external: u64,
    missing: u64,
    pending_deletion: u64,
    restored: u64,
    undescribed: u64,
    unreadable: u64,
}

impl From<InventoryReport> for Counts {
    fn from(report: InventoryReport) -> Self {
        Self {
            configurations: report.configurations,
            places: report.places,
            listed: report.listed,
            unknown_age: report.unknown_age,
            elsewhere: report.elsewhere,
            external: report.external,
            missing: report.missing,
            pending_deletion: report.pending_deletion,
            restored: report.restored,
            undescribed: report.undescribed,
            unreadable: report.unreadable,
        }
    }
}

pub(super) async fn ages(
    State(gateway): State<Gateway>,
    caller: Caller,
    query: Query<Page>,
    body: Body<Ages>,
) -> Result<Json<Secrets>, Problem> {
    require(&caller)?;
    let (page, asked) = (query.parse()?, body.parse()?);
    let (now, mut filter) = (Timestamp::now(), of(asked.workspaces));
    let older = asked.older_than_seconds.into_option();
    filter.created_until = older.map(|Seconds(age)| now.saturating_sub(Duration::from_secs(age)));
    let within = asked.expiring_within_seconds.into_option();
    filter.expires_until =
        within.map(|Seconds(span)| now.saturating_add(Duration::from_secs(span)));
    let configs = Configs::of(&gateway, asked.configurations, page).await?;
    look(&gateway, &caller, configs, filter, false).await
}

pub(super) async fn affected(
    State(gateway): State<Gateway>,
    caller: Caller,
    query: Query<Page>,
    body: Body<Affected>,
) -> Result<Json<Secrets>, Problem> {
    require(&caller)?;
    let (page, asked) = (query.parse()?, body.parse()?);
    let mut filter = of(asked.workspaces);
    filter.created_from = asked.since.into_option().map(|At(since)| since);
    filter.created_until = asked.until.into_option().map(|At(until)| until);
    filter.in_store = asked.in_store.into_option().is_some_and(|Flag(set)| set);
    if let (Some(since), Some(until)) = (filter.created_from, filter.created_until)
        && since > until
    {
        return Err(invalid("since", "is after `until`"));
    }
    let configs = Configs::of(&gateway, asked.configurations, page).await?;
    look(&gateway, &caller, configs, filter, false).await
}

pub(super) async fn restore(
    State(gateway): State<Gateway>,
    caller: Caller,
    query: Query<Page>,
    body: Body<Restore>,
) -> Result<Json<Secrets>, Problem> {
    require(&caller)?;
    let (page, asked) = (query.parse()?, body.parse()?);
    let mut filter = of(asked.workspaces);
    filter.not_present = true;
    let is_dry = asked.dry_run.into_option().is_some_and(|Flag(set)| set);
    let configs = Configs::of(&gateway, asked.configurations, page).await?;
    let ours = gateway.clone();
    // What was restored is an event, even if the caller disconnects.
    let done = gateway
        .to_the_end(async move { look(&ours, &caller, configs, filter, !is_dry).await })
        .await;
    done.unwrap_or_else(|| {
        Err(Problem::new(
            ProblemKind::Internal,
            "the gateway failed; its log says more",
        ))
    })
}

fn of(workspaces: Workspaces) -> SecretFilter {
    let mut filter = SecretFilter::default();
    if let Some(List(workspaces)) = workspaces.into_option() {
        filter.workspaces = workspaces.into_iter().collect();
    }
    filter
}

async fn look(
    gateway: &Gateway,
    caller: &Caller,
    configs: Configs,
    filter: SecretFilter,
    restores: bool,
) -> Result<Json<Secrets>, Problem> {
    let store = Arc::new(Audited::new(gateway, caller.0.actor(), caller.1.clone()));
    let mut inventory = Inventory::new(Arc::clone(&store) as _)
        .with_configs(Arc::new(configs.rows))
        .with_filter(filter)
        .with_restoring(restores);
    if let Some(references) = configs.references {
        inventory = inventory.with_references(references);
    }
    let mut secrets = Vec::new();
    let report = inventory
        .run(&mut |secret| {
            secrets.push(shown(secret));
            ControlFlow::Continue(())
        })
        .await;
    // Nothing is told that was not recorded.
    if store.failed() {
        return Err(Problem::new(
            ProblemKind::AuditFailed,
            "the audit is required and its sink failed",
        )
        .with_retry_after(5));
    }
    let counts = report.map_err(|error| failed(&error))?.into();
    Ok(Json(Secrets {
        secrets,
        counts,
        next: configs.next,
    }))
}

/// Why nothing can be told: the store failed, or the references of the configurations.
fn failed(error: &MigrateError) -> Problem {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    match cause.cloned() {
        Some::<Error>(cause) if error.kind() == MigrateErrorKind::Store => cause.into(),
        _ => unavailable(error),
    }
}

fn shown(secret: &SecretAt) -> ShownSecret {
    let key = secret.configuration.as_str();
    let id = key
        .strip_prefix(SOURCE)
        .and_then(|rest| rest.strip_prefix('#'));
    ShownSecret {
        configuration: id.unwrap_or(key).to_owned(),
        place: secret.place.clone(),
        workspace: secret.base_id.clone(),
        coordinate: secret.coordinate.clone(),
        storage: secret.storage.clone(),
        standing: ShownStanding(secret.standing),
        created: secret.created,
        age_seconds: secret.age_seconds,
        expires: secret.expires,
        owner: secret.owner.clone(),
        detail: secret.detail.clone(),
    }
}
