//! Runs of the collector: one at a time, and a dry run before anything is deleted.

use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secret_persistence::{Actor, Environment, Owner, Timestamp};
use secret_persistence_migrate::{
    AllReferences, Cancellation, Collect, CollectJournal, CollectReport, CollectRules, CollectStop,
    Fate, MigrateError, MigrateResult, Superfluous,
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::audited::Audited;
use crate::configurations::Configurations;
use crate::gateway::Gateway;
use crate::outbox::OpenChanges;
use crate::server::{Caller, Problem, ProblemKind};

/// How many secrets a run names.
const NAMED: usize = 1000;

/// How long a request waits for a run to end. Most do.
const WAIT: Duration = Duration::from_secs(5);

/// Whose secrets are collected, and where the runs remember what they have seen.
#[derive(Clone)]
pub struct Collecting {
    owner: Owner,
    journal: String,
    environment: Environment,
}

impl Collecting {
    /// The secrets of this owner. The journal is a path or a URL, as `secret-migrate collect
    /// --journal` takes it; its credentials are in variables that begin with `JOURNAL_`.
    #[must_use]
    pub fn new(owner: Owner, journal: impl Into<String>, environment: &Environment) -> Self {
        Self {
            owner,
            journal: journal.into(),
            environment: environment.with_prefix("JOURNAL_"),
        }
    }
}

impl fmt::Debug for Collecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collecting")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// The latest run of this process.
#[derive(Debug, Default)]
pub(crate) struct Collector(Mutex<Option<Run>>);

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: Uuid,
    pub(crate) actor: Actor,
    /// The id of the request that began it.
    request: Option<Arc<str>>,
    pub(crate) dry_run: bool,
    pub(crate) rules: CollectRules,
    pub(crate) began: Timestamp,
    /// `None` while it is under way.
    pub(crate) ended: Option<Ended>,
    cancellation: Cancellation,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) at: Timestamp,
    pub(crate) outcome: Result<CollectReport, RunFailure>,
    /// The first of the secrets that it was about.
    pub(crate) secrets: Vec<Superfluous>,
}

/// Why a run did not come to its end.
#[derive(Clone, Debug)]
pub(crate) struct RunFailure {
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
    /// How many secrets it had deleted; `None` where nobody knows.
    pub(crate) deleted: Option<u64>,
}

impl RunFailure {
    fn new(error: &MigrateError, deleted: u64) -> Self {
        let mut detail = error.to_string();
        if let Some(cause) = error.source() {
            detail += &format!(": {cause}");
        }
        Self {
            kind: error.kind().as_str(),
            detail,
            deleted: Some(deleted),
        }
    }
}

impl Run {
    fn new(caller: &Caller, rules: CollectRules, dry_run: bool) -> Self {
        Self {
            id: Uuid::new_v4(),
            actor: caller.0.actor(),
            request: caller.1.clone(),
            dry_run,
            rules,
            began: Timestamp::now(),
            ended: None,
            cancellation: Cancellation::new(),
        }
    }

    /// Whether it is a dry run that has read everything.
    fn is_preview(&self) -> bool {
        let reported = self.ended.as_ref().map(|ended| &ended.outcome);
        self.dry_run && matches!(reported, Some(Ok(report)) if report.is_complete())
    }
}

impl Collector {
    /// The latest run.
    pub(crate) fn latest(&self) -> Option<Run> {
        self.latest_mut().clone()
    }

    /// Asks the run with this id to stop. One that has ended stays as it is.
    pub(crate) fn stop(&self, id: Uuid) -> Result<Run, Problem> {
        let latest = self.latest_mut();
        let run = latest.as_ref().filter(|run| run.id == id);
        let run = run.ok_or_else(no_run)?;
        run.cancellation.cancel();
        Ok(run.clone())
    }

    /// Asks whatever runs to stop.
    pub(crate) fn stop_all(&self) {
        if let Some(run) = &*self.latest_mut() {
            run.cancellation.cancel();
        }
    }

    /// Begins a dry run.
    pub(crate) async fn preview(
        gateway: &Gateway,
        caller: &Caller,
        rules: CollectRules,
    ) -> Result<Run, Problem> {
        let run = Run::new(caller, rules, true);
        let admitted = gateway.collector().admit(run, |_| Ok(()))?;
        Ok(begin(gateway, admitted).await)
    }

    /// Begins a run that deletes, with the rules of the dry run with this id, which is the latest run.
    pub(crate) async fn delete(
        gateway: &Gateway,
        caller: &Caller,
        id: Uuid,
    ) -> Result<Run, Problem> {
        let collector = gateway.collector();
        let previewed = collector.latest().filter(|run| run.id == id);
        let rules = previewed.ok_or_else(no_run)?.rules;
        let admitted = collector.admit(Run::new(caller, rules, false), |latest| {
            let latest = latest.filter(|run| run.id == id).ok_or_else(no_run)?;
            if latest.is_preview() {
                return Ok(());
            }
            Err(Problem::new(
                ProblemKind::CollectNotPreviewed,
                "this run is not a dry run that has read everything; begin with one",
            ))
        })?;
        Ok(begin(gateway, admitted).await)
    }

    /// Makes a run the latest one, unless another one is under way or the latest one does not permit it.
    fn admit(
        &self,
        run: Run,
        permits: impl FnOnce(Option<&Run>) -> Result<(), Problem>,
    ) -> Result<Run, Problem> {
        let mut latest = self.latest_mut();
        if latest.as_ref().is_some_and(|run| run.ended.is_none()) {
            return Err(Problem::new(
                ProblemKind::CollectRunning,
                "a run of the collector is under way; wait for its end, or stop it",
            ));
        }
        permits(latest.as_ref())?;
        *latest = Some(run.clone());
        Ok(run)
    }

    fn end(&self, id: Uuid, ended: Ended) {
        if let Some(run) = self.latest_mut().as_mut().filter(|run| run.id == id) {
            run.ended = Some(ended);
        }
    }

    fn latest_mut(&self) -> MutexGuard<'_, Option<Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_run() -> Problem {
    Problem::not_found("this is not the latest run of the collector in this process")
}

/// Lets a run go on by itself, and waits for its end for a while.
async fn begin(gateway: &Gateway, run: Run) -> Run {
    let (ours, begun) = (gateway.clone(), run.clone());
    let is_dry = run.dry_run;
    let task = async move {
        let (id, inner) = (begun.id, ours.clone());
        let ended = ours.to_the_end(async move { collect(&inner, &begun).await });
        let ended = ended.await.unwrap_or_else(|| Ended {
            at: Timestamp::now(),
            outcome: Err(RunFailure {
                kind: ProblemKind::Internal.as_str(),
                detail: "the gateway failed; its log says more".to_owned(),
                deleted: is_dry.then_some(0),
            }),
            secrets: Vec::new(),
        });
        ours.collector().end(id, ended);
    };
    let task = tokio::spawn(task.in_current_span());
    let _ = tokio::time::timeout(WAIT, task).await;
    let latest = gateway.collector().latest();
    latest.filter(|latest| latest.id == run.id).unwrap_or(run)
}

async fn collect(gateway: &Gateway, run: &Run) -> Ended {
    let (mut secrets, mut deleted) = (Vec::new(), 0);
    let outcome = match gateway.collecting() {
        Some((configurations, collecting)) => {
            let mut each = |secret: &Superfluous| {
                deleted += u64::from(secret.fate == Fate::Deleted);
                if secrets.len() < NAMED {
                    secrets.push(secret.clone());
                }
            };
            let report = report(gateway, configurations, collecting, run, &mut each).await;
            report.map_err(|error| RunFailure::new(&error, deleted))
        }
        None => Err(RunFailure {
            kind: "settings",
            detail: "the gateway has no configurations or no owner".to_owned(),
            deleted: Some(0),
        }),
    };
    match &outcome {
        Ok(report) => tracing::info!(
            target: "secret_gateway",
            actor = %run.actor, dry_run = run.dry_run, deleted = report.deleted, failed = report.failed,
            stopped = report.stopped.map(CollectStop::as_str),
            "a run of the collector has ended"
        ),
        Err(failure) => tracing::warn!(
            target: "secret_gateway",
            actor = %run.actor, dry_run = run.dry_run, kind = failure.kind, detail = failure.detail,
            deleted = failure.deleted,
            "a run of the collector has failed"
        ),
    }
    Ended {
        at: Timestamp::now(),
        outcome,
        secrets,
    }
}

async fn report(
    gateway: &Gateway,
    configurations: &Configurations,
    collecting: &Collecting,
    run: &Run,
    each: &mut (dyn FnMut(&Superfluous) + Send),
) -> MigrateResult<CollectReport> {
    let variables = |name: &str| collecting.environment.get(name);
    let journal = Arc::new(CollectJournal::open(&collecting.journal, &variables).await?);
    let store = Arc::new(Audited::new(
        gateway,
        run.actor.clone(),
        run.request.clone(),
    ));
    let collecting = async {
        let mut collect = Collect::new(store, collecting.owner.clone(), Arc::clone(&journal))
            .with_rules(run.rules.clone())
            .with_cancellation(run.cancellation.clone())
            // First: a change that ends meanwhile was open here, or its row is read after it.
            .with_configs(Arc::new(OpenChanges(gateway.clone())));
        for index in 0..configurations.count() {
            if let Some(source) = configurations.source(index).await? {
                collect = collect.with_configs(source);
            }
        }
        if let Some(references) = configurations.references().await? {
            collect = collect.with_references(references);
        }
        if run.dry_run {
            collect.preview(each).await
        } else {
            // The caller has confirmed it.
            collect.run(AllReferences::confirmed(), each).await
        }
    };
    let report = collecting.await;
    journal.close().await;
    report
}
