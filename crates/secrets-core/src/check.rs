//! Checks a store end to end like an operator would: one test secret is written, read, listed and
//! deleted.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    DeleteOptions, Entry, Error, ErrorKind, Expiry, Identity, ListOptions, Listing,
    ManagedCoordinate, Operation, Recovery, Result, Scope, SecretPersistence, SecretPersistenceExt,
    SecretValue, Timestamp, Write,
};

/// The interval for repeating a listing that may lag.
const LIST_INTERVAL: Duration = Duration::from_secs(1);

/// The interval for retrying a step that lacks permissions.
const RIGHTS_INTERVAL: Duration = Duration::from_secs(5);

/// Options of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckOptions {
    /// Whether to keep the test secret, so that it can be seen in the provider's console.
    pub keep: bool,
    /// How long to wait for a listing that may lag; 10 seconds by default.
    pub list_lag: Duration,
    /// How long each step may take; 1 minute by default.
    pub step_timeout: Duration,
    /// How long to retry steps that fail with `PermissionDenied` or `Unauthenticated`, over all
    /// steps; not at all by default. New permissions take a while to take effect: on Azure minutes.
    pub wait: Duration,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            keep: false,
            list_lag: Duration::from_secs(10),
            step_timeout: Duration::from_secs(60),
            wait: Duration::ZERO,
        }
    }
}

impl CheckOptions {
    /// Sets whether to keep the test secret.
    #[must_use]
    pub fn with_keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Sets how long to wait for a listing that may lag.
    #[must_use]
    pub fn with_list_lag(mut self, lag: Duration) -> Self {
        self.list_lag = lag;
        self
    }

    /// Sets how long each step may take.
    #[must_use]
    pub fn with_step_timeout(mut self, timeout: Duration) -> Self {
        self.step_timeout = timeout;
        self
    }

    /// Sets how long to wait for missing permissions.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// The result of a check, step by step.
///
/// `Display` prints one line per step and the [`summary`](Self::summary). A cause that several
/// steps share is printed once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckReport {
    /// The store, as its `Display` shows it.
    pub store: String,
    /// The identity and location, if the store returned them.
    pub identity: Option<Identity>,
    /// The name of the test secret.
    pub coordinate: ManagedCoordinate,
    /// Whether the test secret is, or may be, still in the store.
    pub left_behind: bool,
    /// The steps in order.
    pub steps: Vec<CheckStep>,
}

impl CheckReport {
    /// Whether secrets can be written and read, whatever else fails.
    #[must_use]
    pub fn works(&self) -> bool {
        self.steps.iter().all(|step| {
            !matches!(step.operation, Operation::Write | Operation::Read)
                || matches!(step.outcome, StepOutcome::Done(_))
        })
    }

    /// The steps that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&CheckStep, &Error)> {
        self.steps.iter().filter_map(|step| match &step.outcome {
            StepOutcome::Failed(error) => Some((step, error)),
            StepOutcome::Done(_) | StepOutcome::NotApplicable(_) => None,
        })
    }

    /// The error, if every step failed for the same reason, such as a missing credential or a
    /// server that does not answer.
    #[must_use]
    pub fn shared_failure(&self) -> Option<&Error> {
        let taken = |step: &&CheckStep| !matches!(step.outcome, StepOutcome::NotApplicable(_));
        let mut steps = self.steps.iter().filter(taken);
        let (_, first) = self.failures().next()?;
        let all = steps.all(|step| match &step.outcome {
            StepOutcome::Failed(error) => cause(error) == cause(first),
            StepOutcome::Done(_) | StepOutcome::NotApplicable(_) => false,
        });
        all.then_some(first)
    }

    /// Whether the test secret was written, according to the store.
    fn is_written(&self) -> bool {
        self.steps.iter().any(|step| {
            step.operation == Operation::Write && matches!(step.outcome, StepOutcome::Done(_))
        })
    }

    /// The end of the report in one line: the store, the [`summary`](Self::summary), and whether
    /// the test secret is left.
    #[must_use]
    pub fn conclusion(&self) -> String {
        let mut text = format!("{}: {}", self.store, self.summary());
        if self.left_behind {
            let what = if self.is_written() {
                "is left behind"
            } else {
                "may have been written and left behind"
            };
            text.push_str(&format!("; the test secret `{}` {what}", self.coordinate));
        }
        text
    }

    /// The result in one sentence, with the consequence of each missing ability.
    #[must_use]
    pub fn summary(&self) -> String {
        let failed: Vec<Operation> = self.failures().map(|(step, _)| step.operation).collect();
        if !self.works() {
            let broken = failed
                .iter()
                .find(|operation| matches!(operation, Operation::Write | Operation::Read))
                .map_or("write", |operation| operation.as_str());
            return format!("does not work: cannot {broken}");
        }
        let meaning = |operation: &Operation| match operation {
            Operation::Delete => "cannot delete: superseded secrets will remain",
            Operation::Describe => "cannot describe: tags, key and expiry are unknown",
            Operation::Identity => "cannot determine the identity",
            Operation::List => "cannot list: sweep and collect do not work",
            _ => "does not support every operation",
        };
        let missing: Vec<&str> = failed.iter().map(meaning).collect();
        if missing.is_empty() {
            "works".to_owned()
        } else {
            format!("works, {}", missing.join("; "))
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        f.write_str(&self.conclusion())
    }
}

/// One step of a check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckStep {
    /// The operation.
    pub operation: Operation,
    /// The outcome.
    pub outcome: StepOutcome,
    /// How long it took.
    pub took: Duration,
    /// The earlier step that failed for the same reason, if any.
    pub same_as: Option<Operation>,
}

impl fmt::Display for CheckStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, text) = match (&self.outcome, self.same_as) {
            (StepOutcome::Done(what), _) => ("ok", what.clone()),
            (StepOutcome::Failed(_), Some(earlier)) => {
                ("FAILED", format!("for the same reason as {earlier}"))
            }
            // With the hint, which names the missing permission, and the cause, such as an expired
            // certificate or an unknown host.
            (StepOutcome::Failed(error), None) => ("FAILED", with_causes(error)),
            (StepOutcome::NotApplicable(reason), _) => ("-", reason.clone()),
        };
        let operation = self.operation.as_str();
        let took = self.took.as_millis();
        write!(f, "{mark:6}  {operation:8}  {took:>6} ms  {text}")
    }
}

/// The outcome of a step.
#[derive(Clone, Debug)]
pub enum StepOutcome {
    /// It succeeded, with what was done or found.
    Done(String),
    /// It failed. The error's hint names the permission or setting that is missing.
    Failed(Error),
    /// It was skipped, for this reason.
    NotApplicable(String),
}

/// An error and its causes on one line.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = StdError::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The failure without its operation and coordinate.
fn cause(error: &Error) -> (ErrorKind, &str, Option<&str>, Option<String>) {
    let below = StdError::source(error).map(ToString::to_string);
    (error.kind(), error.message(), error.hint(), below)
}

/// Runs all steps, whatever the outcome of the others, and reports each as it ends.
pub(crate) async fn check<S>(
    store: &S,
    options: &CheckOptions,
    told: &(dyn Fn(&CheckStep) + Send + Sync),
) -> CheckReport
where
    S: SecretPersistence + ?Sized,
{
    Check {
        store,
        options,
        told,
        give_up: tokio::time::Instant::now() + options.wait,
        steps: Vec::new(),
    }
    .run()
    .await
}

struct Check<'a, S: ?Sized> {
    store: &'a S,
    options: &'a CheckOptions,
    told: &'a (dyn Fn(&CheckStep) + Send + Sync),
    /// The deadline for missing permissions.
    give_up: tokio::time::Instant,
    steps: Vec<CheckStep>,
}

impl<S: SecretPersistence + ?Sized> Check<'_, S> {
    async fn run(mut self) -> CheckReport {
        let (store, keep) = (self.store, self.options.keep);
        let capabilities = store.capabilities();
        let coordinate = test_coordinate();
        let mut write = Write::new(coordinate.clone(), test_value());
        if capabilities.expiry != Expiry::None {
            // If it is left behind, the store or a sweep removes it.
            let hours = if keep { 7 * 24 } else { 1 };
            let expires = Timestamp::now().saturating_add(Duration::from_secs(hours * 3600));
            write = write.with_expires(Some(expires));
        }

        let identity = self
            .step(
                Operation::Identity,
                || store.identity(),
                ToString::to_string,
            )
            .await;
        let written = self
            .step(
                Operation::Write,
                || store.write(write.clone()),
                |_| format!("wrote `{coordinate}`"),
            )
            .await
            .is_some();
        if written {
            self.step(
                Operation::Read,
                || read_back(store, &write),
                |()| "read the same value back".to_owned(),
            )
            .await;
            self.step(
                Operation::Describe,
                || describe_back(store, &write),
                described,
            )
            .await;
        } else {
            self.skip(Operation::Read, "nothing was written");
            self.skip(Operation::Describe, "nothing was written");
        }
        if capabilities.listing == Listing::None {
            self.skip(Operation::List, "the store cannot list");
        } else {
            let lag = self.options.list_lag;
            let wanted = written.then_some(&coordinate);
            self.step(
                Operation::List,
                || list_back(store, wanted, lag),
                |found| match found {
                    Some(true) => "the listing contains it".to_owned(),
                    Some(false) => "the listing works but does not contain it yet".to_owned(),
                    None => "the listing works".to_owned(),
                },
            )
            .await;
        }
        // Also after a failed write: it may have arrived anyway.
        let deleted = if keep && written {
            self.skip(Operation::Delete, "kept, as requested");
            false
        } else {
            let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
            let delete = async || {
                match store.delete(&coordinate, &immediate).await {
                    // Immediately, or as soon as the store allows it.
                    Ok(()) => Ok("deleted it"),
                    // Deleting without recovery may need a separate permission.
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => store
                        .delete(&coordinate, &DeleteOptions::default())
                        .await
                        .map(|()| "deleted it, with the recovery window as configured"),
                    Err(error) => Err(error),
                }
            };
            self.step(Operation::Delete, delete, |what| (*what).to_owned())
                .await
                .is_some()
        };
        // If no request succeeded, nothing was written.
        let unknown = self.failures_of(Operation::Write) && self.reached();
        CheckReport {
            store: store.to_string(),
            identity,
            left_behind: !deleted && (written || unknown),
            coordinate,
            steps: self.steps,
        }
    }

    /// Runs one step with a time limit, retries it while only permissions are missing, and records
    /// the outcome.
    async fn step<T, F>(
        &mut self,
        operation: Operation,
        action: impl Fn() -> F,
        say: impl FnOnce(&T) -> String,
    ) -> Option<T>
    where
        F: Future<Output = Result<T>>,
    {
        let started = Instant::now();
        let limit = self.options.step_timeout;
        let result = loop {
            let result = tokio::time::timeout(limit, action())
                .await
                .unwrap_or_else(|_elapsed| {
                    Err(Error::new(
                        ErrorKind::Unavailable,
                        format!("no answer within {} s", limit.as_secs()),
                    )
                    .with_operation(operation)
                    .with_store(self.store.to_string())
                    .with_hint("check the address, the network and the proxy"))
                });
            let left = self
                .give_up
                .saturating_duration_since(tokio::time::Instant::now());
            match &result {
                Err(error)
                    if !left.is_zero()
                        && matches!(
                            error.kind(),
                            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated
                        ) =>
                {
                    tokio::time::sleep(RIGHTS_INTERVAL.min(left)).await;
                }
                _ => break result,
            }
        };
        let (outcome, value) = match result {
            Ok(value) => (StepOutcome::Done(say(&value)), Some(value)),
            Err(error) => (StepOutcome::Failed(error), None),
        };
        self.note(operation, outcome, started.elapsed());
        value
    }

    fn note(&mut self, operation: Operation, outcome: StepOutcome, took: Duration) {
        let same_as = match &outcome {
            StepOutcome::Failed(error) => self.steps.iter().find_map(|step| match &step.outcome {
                StepOutcome::Failed(before) if cause(before) == cause(error) => {
                    Some(step.operation)
                }
                _ => None,
            }),
            StepOutcome::Done(_) | StepOutcome::NotApplicable(_) => None,
        };
        let step = CheckStep {
            operation,
            outcome,
            took,
            same_as,
        };
        (self.told)(&step);
        self.steps.push(step);
    }

    /// Whether the store has given any expected response.
    fn reached(&self) -> bool {
        let done = |step: &CheckStep| matches!(step.outcome, StepOutcome::Done(_));
        self.steps.iter().any(done)
    }

    fn skip(&mut self, operation: Operation, reason: &str) {
        let outcome = StepOutcome::NotApplicable(reason.to_owned());
        self.note(operation, outcome, Duration::ZERO);
    }

    /// Whether a failed operation may have had an effect.
    fn failures_of(&self, operation: Operation) -> bool {
        self.steps.iter().any(|step| {
            step.operation == operation
                && matches!(&step.outcome, StepOutcome::Failed(error) if error.is_retryable())
        })
    }
}

async fn read_back<S>(store: &S, write: &Write) -> Result<()>
where
    S: SecretPersistence + ?Sized,
{
    let read = store.read(&write.coordinate.clone().into()).await?;
    if read.value == write.value {
        return Ok(());
    }
    Err(altered(
        store,
        Operation::Read,
        write,
        "the read value differs from the written one",
    ))
}

async fn describe_back<S>(store: &S, write: &Write) -> Result<Entry>
where
    S: SecretPersistence + ?Sized,
{
    let entry = store.describe(&write.coordinate).await?;
    if entry.expires == write.expires {
        return Ok(entry);
    }
    Err(altered(
        store,
        Operation::Describe,
        write,
        "the stored expiry differs from the written one",
    ))
}

fn altered<S>(store: &S, operation: Operation, write: &Write, message: &'static str) -> Error
where
    S: SecretPersistence + ?Sized,
{
    Error::new(ErrorKind::Integrity, message)
        .with_operation(operation)
        .with_store(store.to_string())
        .with_coordinate(write.coordinate.shared())
}

/// Whether the listing contains a name, waiting until it does; `None` if there is no name to look
/// for.
async fn list_back<S>(
    store: &S,
    wanted: Option<&ManagedCoordinate>,
    lag: Duration,
) -> Result<Option<bool>>
where
    S: SecretPersistence + ?Sized,
{
    let Some(wanted) = wanted else {
        let options = ListOptions::default().with_page_size(1);
        store.list_page(&options, None).await?;
        return Ok(None);
    };
    let options = ListOptions::default().with_prefix(wanted.base());
    let deadline = tokio::time::Instant::now() + lag;
    loop {
        let entries: Vec<Entry> = store.list(&options).try_collect().await?;
        if entries.iter().any(|entry| entry.coordinate == *wanted) {
            return Ok(Some(true));
        }
        if store.capabilities().listing == Listing::Immediate {
            return Err(Error::new(
                ErrorKind::Integrity,
                "the listing does not contain the secret that was just written",
            )
            .with_operation(Operation::List)
            .with_store(store.to_string())
            .with_coordinate(wanted.shared()));
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(Some(false));
        }
        tokio::time::sleep(LIST_INTERVAL).await;
    }
}

/// Tags, key, owner and expiry as the store returns them.
fn described(entry: &Entry) -> String {
    let mut parts = vec![match &entry.owner {
        Some(owner) => format!("owner {owner}"),
        None => "no owner".to_owned(),
    }];
    parts.push(match &entry.expires {
        Some(expires) => format!("expires {expires}"),
        None => "never expires".to_owned(),
    });
    parts.push(match &entry.key {
        Some(key) => format!("key {key}"),
        None => "the store's default key".to_owned(),
    });
    let tags: Vec<String> = entry
        .tags
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    parts.push(if tags.is_empty() {
        "no tags".to_owned()
    } else {
        format!("tags {}", tags.join(", "))
    });
    parts.join("; ")
}

fn test_coordinate() -> ManagedCoordinate {
    let id = Uuid::new_v4();
    // A short prefix of valid characters with version 1 is always valid.
    Scope::new("check_", Uuid::new_v4())
        .and_then(|scope| ManagedCoordinate::new(&scope, id, 1))
        .expect("a name of ours is valid")
}

fn test_value() -> SecretValue {
    SecretValue::new(format!("check {} {}", Uuid::new_v4(), Uuid::new_v4()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        Capabilities, Coordinate, Cursor, Memory, Owner, Page, Read, SecretPersistence, Written,
    };

    #[tokio::test]
    async fn a_good_store_works_and_nothing_stays() {
        let store = Memory::new().with_owner(Owner::parse("prod").unwrap());
        let report = store.check(&CheckOptions::default()).await;
        assert!(report.works() && !report.left_behind, "{report}");
        assert_eq!(report.summary(), "works");
        let text = report.to_string();
        assert!(text.contains("owner prod; expires 20"), "{text}");
        assert!(text.contains("the listing contains it"), "{text}");
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(store.is_empty());
    }

    #[tokio::test]
    async fn steps_that_do_not_apply_say_so_and_keep_keeps() {
        let store = Memory::new().with_capabilities(Capabilities::LEAST);
        let report = store.check(&CheckOptions::default().with_keep(true)).await;
        assert_eq!(report.summary(), "works");
        let text = report.to_string();
        assert!(text.contains("the store cannot list"), "{text}");
        assert!(text.contains("kept, as requested"), "{text}");
        assert!(text.contains("never expires"), "{text}");
        assert!(text.ends_with("is left behind"), "{text}");
        assert_eq!(store.len(), 1);
    }

    #[tokio::test]
    async fn each_denial_is_named_with_its_meaning_and_its_permission() {
        for (denied, summary, left) in [
            (
                Operation::Delete,
                "works, cannot delete: superseded secrets will remain",
                1,
            ),
            (
                Operation::Describe,
                "works, cannot describe: tags, key and expiry are unknown",
                0,
            ),
            (
                Operation::Identity,
                "works, cannot determine the identity",
                0,
            ),
            (
                Operation::List,
                "works, cannot list: sweep and collect do not work",
                0,
            ),
            (Operation::Read, "does not work: cannot read", 0),
            (Operation::Write, "does not work: cannot write", 0),
        ] {
            let store = denying(denied);
            let report = store.check(&CheckOptions::default()).await;
            assert_eq!(report.summary(), summary);
            let text = report.to_string();
            assert!(
                text.contains(&format!("grant the right to {denied}")),
                "{text}"
            );
            assert_eq!(store.inner.len(), left, "{text}");
            assert_eq!(report.left_behind, left == 1);
            assert_eq!(report.failures().count(), 1, "{text}");
            assert!(!text.contains("check 0") && !format!("{report:?}").contains("SecretValue"));
        }
    }

    /// The store hangs or refuses everybody: the cause is told once, and nothing is said to be left behind.
    #[tokio::test]
    async fn a_cause_that_all_steps_share_is_told_once_and_each_step_as_it_ends() {
        let mut store = denying(Operation::Open);
        store.down = true;
        let told = std::sync::Mutex::new(Vec::new());
        let options = CheckOptions::default();
        let report = store
            .check_telling(&options, &|step| {
                told.lock().unwrap().push(step.to_string());
            })
            .await;
        let text = report.to_string();
        assert_eq!(text.matches("certificate has expired").count(), 1, "{text}");
        assert_eq!(
            text.matches("for the same reason as identity").count(),
            3,
            "{text}"
        );
        assert!(
            !text.contains("left behind") && !report.left_behind,
            "{text}"
        );
        assert_eq!(
            report.shared_failure().map(Error::kind),
            Some(ErrorKind::Unavailable)
        );
        let steps: Vec<String> = report.steps.iter().map(ToString::to_string).collect();
        assert_eq!(told.into_inner().unwrap(), steps);
        // One step that worked, and there is no shared cause.
        let report = denying(Operation::List).check(&options).await;
        assert!(report.shared_failure().is_none());
    }

    /// Each step is taken again until its right has arrived, and no secret is written twice.
    #[tokio::test(start_paused = true)]
    async fn rights_that_take_a_while_are_waited_for() {
        for denied in [
            Operation::Identity,
            Operation::Write,
            Operation::Read,
            Operation::Describe,
            Operation::List,
            Operation::Delete,
        ] {
            let arrives = tokio::time::Instant::now() + Duration::from_secs(300);
            let waiting = CheckOptions::default().with_wait(Duration::from_secs(600));
            let mut store = denying(denied);
            store.until = Some(arrives);
            let report = store.check(&waiting).await;
            assert_eq!(report.summary(), "works", "{report}");
            assert!(!report.left_behind && store.inner.is_empty());

            // Not longer than told, and not for errors that waiting does not end.
            let started = tokio::time::Instant::now();
            let mut store = denying(denied);
            store.until = Some(started + Duration::from_secs(700));
            let report = store.check(&waiting).await;
            assert_eq!(report.failures().count(), 1, "{report}");
            assert_eq!(started.elapsed().as_secs(), 600, "{denied}");
        }
        let mut store = denying(Operation::Open);
        store.hangs = Some(Operation::Read);
        let started = tokio::time::Instant::now();
        store
            .check(&CheckOptions::default().with_wait(Duration::from_secs(600)))
            .await;
        assert_eq!(started.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_or_lags_ends_in_time() {
        let mut store = denying(Operation::Open);
        store.hangs = Some(Operation::Read);
        let report = store.check(&CheckOptions::default()).await;
        assert_eq!(report.summary(), "does not work: cannot read");
        assert!(report.to_string().contains("no answer within 60 s"));

        let mut store = denying(Operation::Open);
        store.hides = true;
        let report = store.check(&CheckOptions::default()).await;
        assert_eq!(report.summary(), "works");
        assert!(report.to_string().contains("does not contain it yet"));
    }

    fn denying(denied: Operation) -> Denying {
        Denying {
            inner: Arc::new(Memory::new()),
            denied,
            hangs: None,
            hides: false,
            until: None,
            down: false,
        }
    }

    #[derive(Debug)]
    struct Denying {
        inner: Arc<Memory>,
        denied: Operation,
        hangs: Option<Operation>,
        hides: bool,
        /// When the right arrives.
        until: Option<tokio::time::Instant>,
        /// Whether nothing comes through.
        down: bool,
    }

    impl Denying {
        async fn allow(&self, operation: Operation) -> Result<()> {
            if self.down {
                return Err(Error::new(ErrorKind::Unavailable, "no connection")
                    .with_operation(operation)
                    .with_source(std::io::Error::other("the certificate has expired")));
            }
            if self.hangs == Some(operation) {
                std::future::pending::<()>().await;
            }
            let arrived = self
                .until
                .is_some_and(|until| tokio::time::Instant::now() >= until);
            if self.denied == operation && !arrived {
                return Err(Error::new(ErrorKind::PermissionDenied, "no")
                    .with_hint(format!("grant the right to {operation}")));
            }
            Ok(())
        }
    }

    impl fmt::Display for Denying {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("memory with denials")
        }
    }

    #[async_trait]
    impl SecretPersistence for Denying {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                listing: if self.hides {
                    Listing::Eventual
                } else {
                    Listing::Immediate
                },
                ..self.inner.capabilities()
            }
        }

        async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
            match self.allow(Operation::Read).await {
                Ok(()) => self.inner.read_batch(coordinates).await,
                Err(error) => vec![Err(error); coordinates.len()],
            }
        }

        async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
            match self.allow(Operation::Write).await {
                Ok(()) => self.inner.write_batch(writes).await,
                Err(error) => vec![Err(error); writes.len()],
            }
        }

        async fn delete_batch(
            &self,
            coordinates: &[ManagedCoordinate],
            options: &DeleteOptions,
        ) -> Vec<Result<()>> {
            match self.allow(Operation::Delete).await {
                Ok(()) => self.inner.delete_batch(coordinates, options).await,
                Err(error) => vec![Err(error); coordinates.len()],
            }
        }

        async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
            self.inner.restore(coordinate).await
        }

        async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
            self.allow(Operation::List).await?;
            if self.hides {
                return Ok(Page::default());
            }
            self.inner.list_page(options, after).await
        }

        async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
            self.allow(Operation::Describe).await?;
            self.inner.describe(coordinate).await
        }

        async fn identity(&self) -> Result<Identity> {
            self.allow(Operation::Identity).await?;
            self.inner.identity().await
        }
    }
}
