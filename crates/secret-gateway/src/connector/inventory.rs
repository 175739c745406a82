//! What the store knows about the secrets of configurations: their ages, which to issue again after a
//! leak, and which to restore after configurations came from a backup. Never shows a value.

use std::error::Error as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use secret_persistence::{Error, ReadHistory, Timestamp};
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
        /// Only secrets of which the ledger knows no genuine read. Needs a ledger.
        #[schemars(default)]
        never_read: Maybe<Flag>,
        /// False asks no ledger, and says nothing about reads.
        #[schemars(default, extend("default" = true))]
        reads: Maybe<Flag>,
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
        /// False asks no ledger, and says nothing about reads.
        #[schemars(default, extend("default" = true))]
        reads: Maybe<Flag>,
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
    /// Who read it last; missing where no ledger was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ShownReads")]
    reads: Option<ShownReads>,
    /// Why nothing is known about it.
    detail: Option<String>,
}

/// What the ledger knows about the reads of a secret, by its name.
#[derive(Serialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct ShownReads {
    /// When a value was last handed out; null says only that no such read is in the ledger since `since`.
    #[schemars(with = "Option<Time>")]
    last: Option<Timestamp>,
    /// To whom.
    actor: Option<String>,
    /// Whether the ledger's line of that read is genuine.
    genuine: Option<bool>,
    /// How far back the ledger goes. It has every read since then only if every process had it with
    /// `audit` `required`, without a pause. Null if nobody can tell, as with `best_effort`.
    #[schemars(with = "Option<Time>")]
    since: Option<Timestamp>,
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
    /// Not read since `reads_since`; missing where no ledger was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    never_read: Option<u64>,
    /// With a last read whose line is not genuine; missing where no ledger was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    not_genuine: Option<u64>,
    /// The latest `since` of the secrets; missing where nobody can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    reads_since: Option<Timestamp>,
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
            never_read: report.never_read,
            not_genuine: report.not_genuine,
            reads_since: report.reads_since,
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
    filter.never_read = asked.never_read.into_option().is_some_and(|Flag(set)| set);
    let history = history(&gateway, asked.reads);
    if filter.never_read && history.is_none() {
        return Err(invalid(
            "never_read",
            "needs a ledger, which this gateway lacks or the request does not ask",
        ));
    }
    let configs = Configs::of(&gateway, asked.configurations, page).await?;
    let ask = Ask::new(configs, filter).with_history(history);
    look(&gateway, &caller, ask).await
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
    let history = history(&gateway, asked.reads);
    let configs = Configs::of(&gateway, asked.configurations, page).await?;
    let ask = Ask::new(configs, filter).with_history(history);
    look(&gateway, &caller, ask).await
}

/// The ledger, unless the request does not ask it.
fn history(gateway: &Gateway, reads: Maybe<Flag>) -> Option<Arc<dyn ReadHistory>> {
    let asks = reads.into_option().is_none_or(|Flag(set)| set);
    gateway.history().filter(|_| asks).cloned()
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
    let mut ask = Ask::new(configs, filter);
    ask.restores = !is_dry;
    // What was restored is an event, even if the caller disconnects.
    let done = gateway
        .to_the_end(async move { look(&ours, &caller, ask).await })
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

/// What a request asks for.
struct Ask {
    configs: Configs,
    filter: SecretFilter,
    restores: bool,
    history: Option<Arc<dyn ReadHistory>>,
}

impl Ask {
    fn new(configs: Configs, filter: SecretFilter) -> Self {
        Self {
            configs,
            filter,
            restores: false,
            history: None,
        }
    }

    fn with_history(mut self, history: Option<Arc<dyn ReadHistory>>) -> Self {
        self.history = history;
        self
    }
}

async fn look(gateway: &Gateway, caller: &Caller, ask: Ask) -> Result<Json<Secrets>, Problem> {
    let Ask {
        configs,
        filter,
        restores,
        history,
    } = ask;
    let store = Arc::new(Audited::new(gateway, caller.0.actor(), caller.1.clone()));
    let mut inventory = Inventory::new(Arc::clone(&store) as _)
        .with_configs(Arc::new(configs.rows))
        .with_filter(filter)
        .with_restoring(restores);
    if let Some(references) = configs.references {
        inventory = inventory.with_references(references);
    }
    if let Some(history) = history {
        inventory = inventory.with_history(history);
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

/// Why nothing can be told: the store failed, the ledger, or the references of the configurations.
fn failed(error: &MigrateError) -> Problem {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    match (cause.cloned(), error.kind()) {
        (Some::<Error>(cause), MigrateErrorKind::Store) => cause.into(),
        (Some(cause), MigrateErrorKind::ReadHistory) => {
            tracing::error!(target: "secret_gateway", error = %cause, "the ledger cannot be read");
            let detail = format!("the gateway cannot read the ledger: {cause}");
            Problem::new(ProblemKind::LedgerUnavailable, detail).with_retry_after(5)
        }
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
        reads: secret.reads.as_ref().map(|reads| ShownReads {
            last: reads.last_read,
            actor: reads.last_reader.clone(),
            genuine: reads.last_read_genuine,
            since: reads.reads_since,
        }),
        detail: secret.detail.clone(),
    }
}
