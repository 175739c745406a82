//! Moves raw secrets out of configurations that were never split.

#[cfg(all(test, feature = "postgres"))]
mod processes;
mod shared;

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use secret_persistence_core::connector::{
    ActingSecrets, ConnectorError, ConnectorOptions, ConnectorSecrets, ConnectorSpec, Planned,
    Staged, pointers,
};
use secret_persistence_core::{Actor, Coordinate, Scope, SecretPersistence, Stores};
use serde_json::Value;

use crate::holdings::scope_of;
use crate::job::Job;
use crate::outbox::{Change, Knowledge, Outbox, Why, failed};
use crate::session::{Meter, Rows, each_page, key, updatable};
use crate::shared::{Held, check};
use crate::tracker::Tracker;
use crate::{
    Class, ConfigRow, ConfigSource, Content, Failure, Finding, Journal, MigrateError,
    MigrateErrorKind, MigrateResult, Phase, Report, Run, Update,
};

/// The actor of a split, for audit events.
const ACTOR: &str = "migrate split";

/// How many rows are planned and written concurrently.
const ROWS: usize = 8;

/// How often a row is tried that others change at the same moment.
const ATTEMPTS: usize = 3;

/// How many compiled specifications are cached: rows of one connector have the same.
const SPECIFICATIONS: usize = 64;

/// Splits configurations that still contain raw secrets. Each is an update with the same row as
/// saved and as edited configuration, so that half-split rows are completed. Secrets go to the
/// store, and the row is saved by compare-and-swap.
pub type Split = Job<OneStore>;

/// What a [`Split`] works on.
#[derive(Debug)]
pub struct OneStore {
    store: Arc<dyn SecretPersistence>,
    connector: ConnectorOptions,
}

impl Job<OneStore> {
    /// A split into a store. The journal contains the names that are about to be written, so that a
    /// killed run leaves no secret behind. It must not be the journal of a migration.
    #[must_use]
    pub fn new(store: Arc<dyn SecretPersistence>, journal: Arc<dyn Journal>) -> Self {
        let stores = OneStore {
            store,
            connector: ConnectorOptions::default(),
        };
        Self::over(stores, journal)
    }

    /// Sets what configurations may contain, and how references are resolved.
    #[must_use]
    pub fn with_connector_options(mut self, connector: ConnectorOptions) -> Self {
        self.stores.connector = connector;
        self
    }

    /// Splits every row that still contains a raw secret. Can be repeated: a row without one stays
    /// unchanged. A row that cannot be split is a failure in the report and does not stop the
    /// others.
    ///
    /// Several processes share it with a journal that was opened for that, if every source
    /// [admits others](ConfigSource::admits_others). Each reports what it did itself.
    ///
    /// # Errors
    /// If a source is read-only, if the journal belongs to another run, or if the journal or
    /// configurations cannot be read or written.
    pub async fn run(&self) -> MigrateResult<Report> {
        updatable(&self.configs)?;
        let identity = self.stores.store.identity().await?;
        let run = Run::new(&identity, None, self.owner.as_ref());
        self.journal.open(&run).await?;
        let work = self.work(run);
        match self.journal.sharing() {
            None => work.run().await?,
            Some(sharing) => work.share(sharing).await?,
        }
        Ok(work.tracker.close(self.journal.counts().await?))
    }

    fn work(&self, run: Run) -> Work<'_> {
        let mut stores = Stores::new(self.limited(&self.stores.store));
        if let Some(owner) = &self.owner {
            stores = stores.with_owner(owner.clone());
        }
        let secrets = ConnectorSecrets::new(stores, self.stores.connector.clone());
        Work {
            split: self,
            secrets: secrets.acting_as(&Actor::new(ACTOR)),
            specs: Mutex::default(),
            tracker: self.tracker("split", run),
        }
    }
}

/// A change whose secrets are written, and the key of its note, which is empty if nothing was
/// written. `None` for a row that needs no change.
type Noted = Option<(String, Staged)>;

struct Work<'s> {
    split: &'s Split,
    secrets: ActingSecrets,
    specs: Mutex<Vec<(Arc<Value>, ConnectorSpec)>>,
    tracker: Tracker,
}

impl Work<'_> {
    async fn run(&self) -> MigrateResult<()> {
        let Split {
            journal,
            configs,
            options,
            ..
        } = self.split;
        if !options.dry_run {
            // What is kept now may be split below.
            self.outbox(None).end(Knowledge::Rows).await?;
        }
        let scan = journal.begin_scan().await?;
        each_page(&self.tracker, configs, options, Phase::Split, &|page| {
            Box::pin(self.page(scan, page))
        })
        .await?;
        self.tracker.decide();
        if options.dry_run || self.tracker.is_stopped() {
            return Ok(());
        }
        for source in configs {
            source.finish().await?;
        }
        self.end_after(None).await
    }

    /// Ends the recorded changes after all rows, when the sources have finished, and reports those that are
    /// kept.
    async fn end_after(&self, held: Option<&Held<'_>>) -> MigrateResult<()> {
        for kept in self.outbox(held).end(Knowledge::AllSaved).await? {
            if kept.why == Why::MayBeSaved {
                let failure = RowFailure::Row(
                    "a process that has ended or is paused may still save this row; start again",
                );
                self.tracker
                    .not_hydrated(failure.in_row(&kept.configuration));
            }
            kept.report(&self.tracker);
        }
        Ok(())
    }

    async fn page(&self, scan: u64, page: Rows<'_>) -> MigrateResult<()> {
        let Rows {
            source,
            rows,
            meter,
        } = page;
        let keys: Vec<String> = rows.iter().map(|row| key(source, &row.id)).collect();
        let twice = self.split.journal.see(scan, &keys).await?;
        if let Some(twice) = twice.into_iter().next() {
            return Err(same_id(twice));
        }
        self.rows(source, &rows, &meter, None).await
    }

    /// Splits rows, under the claim of a page if there is one.
    async fn rows(
        &self,
        source: &dyn ConfigSource,
        rows: &[ConfigRow],
        meter: &Meter<'_>,
        held: Option<&Held<'_>>,
    ) -> MigrateResult<()> {
        // Plan and write concurrently, but save in the source's order, which is the order of lines
        // in a new file.
        let mut staged: Vec<BoxFuture<'_, MigrateResult<Noted>>> = Vec::new();
        for row in rows {
            self.tracker.tally(|tally| match &row.content {
                Content::Configuration(_) => tally.configurations += 1,
                Content::Coordinate(_) => tally.bare_coordinates += 1,
            });
            staged.push(Box::pin(self.stage(source, row, held)));
        }
        let mut staged = stream::iter(staged).buffered(ROWS).zip(stream::iter(rows));
        while let Some((staged, row)) = staged.next().await {
            if let Some((note, staged)) = staged?
                && self.save(source, row, &note, staged, held).await? == Update::Changed
            {
                self.changed(source, row, held).await?;
            }
            meter.passed(1);
            if let Some(held) = held {
                held.progressed();
            }
        }
        Ok(())
    }

    /// Writes the secrets of a row, after recording their names. `None` if there is nothing to
    /// split.
    async fn stage(
        &self,
        source: &dyn ConfigSource,
        row: &ConfigRow,
        held: Option<&Held<'_>>,
    ) -> MigrateResult<Noted> {
        let key = key(source, &row.id);
        let Content::Configuration(configuration) = &row.content else {
            return Ok(None);
        };
        if self.tracker.is_stopped() {
            return Ok(None);
        }
        if self.has_other_scope(row, &key, configuration) {
            return Ok(None);
        }
        let planned = match self.plan(row, configuration).await {
            Ok(planned) => planned,
            Err(failures) => {
                for failure in failures {
                    self.tracker.not_hydrated(failure.in_row(&key));
                }
                return Ok(None);
            }
        };
        self.report_unknown(row, &key, configuration);
        let record = planned.record().clone();
        let secrets = record.writes().len() as u64;
        if self.split.options.dry_run {
            self.tracker.tally(|tally| {
                tally.secrets += secrets;
                tally.split += u64::from(secrets > 0);
            });
            return Ok(None);
        }
        let change = Change::new(source, &key, record).with_places(&planned.places());
        let note = self.outbox(held).open(&change).await?;
        check(held).await?;
        match planned.stage().await {
            Ok(staged) => {
                self.tracker.tally(|tally| tally.secrets += secrets);
                Ok(Some((note, staged)))
            }
            Err(error) => {
                for problem in error.problems() {
                    self.tracker
                        .not_hydrated(Failure::of_problem(&key, problem));
                }
                self.outbox(held).abandon(&note, change).await?;
                Ok(None)
            }
        }
    }

    /// Reports the properties that are not in a row's specification.
    fn report_unknown(&self, row: &ConfigRow, key: &str, configuration: &Value) {
        let unknown = row.specification.as_ref().and_then(|specification| {
            self.spec(specification)
                .ok()?
                .unknown_properties(configuration)
                .ok()
        });
        for place in unknown.into_iter().flatten() {
            self.tracker.tally(|tally| tally.unknown_properties += 1);
            self.tracker
                .found(Finding::new(Class::Unknown).in_configuration(key, Some(place.as_str())));
        }
    }

    /// Whether a row points to secrets of another scope without a decision that allows it.
    fn has_other_scope(&self, row: &ConfigRow, key: &str, configuration: &Value) -> bool {
        let Some(scope) = scope_of(row) else {
            return false;
        };
        // An unreadable row is reported when it is planned.
        let Ok(pointers) = pointers(configuration) else {
            return false;
        };
        let mut is_settled = true;
        for (place, pointer) in pointers {
            let name = pointer.coordinate.as_ref().and_then(Coordinate::managed);
            let Some(name) = name.filter(|name| !scope.contains(name)) else {
                continue;
            };
            if pointer.reference_id.is_some() {
                continue;
            }
            let finding = Finding::of(Class::OtherScope, name.as_str())
                .in_configuration(key, Some(place.as_str()));
            self.tracker.found(finding);
            is_settled = self.split.options.decisions.other_scope.is_some();
        }
        !is_settled
    }

    async fn plan(
        &self,
        row: &ConfigRow,
        configuration: &Value,
    ) -> Result<Planned, Vec<RowFailure>> {
        let lacks = |what: &'static str| vec![RowFailure::Row(what)];
        let specification = row
            .specification
            .as_ref()
            .ok_or_else(|| lacks("the row has no connection specification, which split needs"))?;
        let base_id = row
            .base_id
            .ok_or_else(|| lacks("the row has no base id, which split needs"))?;
        let prefix = row.prefix.as_deref().unwrap_or("workspace_");
        let scope =
            Scope::new(prefix, base_id).map_err(|_| lacks("the row's prefix is invalid"))?;
        let spec = self.spec(specification).map_err(row_failures)?;
        self.secrets
            .plan_update(&spec, &scope, configuration.clone(), configuration.clone())
            .await
            .map_err(row_failures)
    }

    fn spec(&self, specification: &Arc<Value>) -> Result<ConnectorSpec, ConnectorError> {
        let locked = || self.specs.lock();
        let known = locked()
            .iter()
            .find(|(known, _)| Arc::ptr_eq(known, specification) || known == specification)
            .map(|(_, spec)| spec.clone());
        if let Some(spec) = known {
            return Ok(spec);
        }
        let spec = ConnectorSpec::compile(specification)?;
        let mut specs = locked();
        if specs.len() == SPECIFICATIONS {
            specs.remove(0);
        }
        specs.push((Arc::clone(specification), spec.clone()));
        Ok(spec)
    }

    async fn save(
        &self,
        source: &dyn ConfigSource,
        row: &ConfigRow,
        note: &str,
        staged: Staged,
        held: Option<&Held<'_>>,
    ) -> MigrateResult<Update> {
        let outbox = self.outbox(held);
        let is_same = match &row.content {
            Content::Configuration(configuration) => **configuration.as_ref() == *staged.config(),
            Content::Coordinate(_) => true,
        };
        if is_same {
            let cleanup = staged.abort().await;
            outbox.undone(note, cleanup).await?;
            return Ok(Update::Saved);
        }
        if let Err(error) = check(held).await {
            // Its note is left, for whoever ends the pass.
            let _ = staged.into_parts();
            return Err(error);
        }
        let update = source.update(row, staged.config()).await?;
        match update {
            Update::Saved => {
                self.tracker.tally(|tally| tally.split += 1);
                if held.is_some() {
                    // Such a source needs not finish.
                    let cleanup = staged.commit().await.map_err(failed)?;
                    outbox.saved(note, &cleanup).await?;
                } else if staged.record().supersedes().is_empty() {
                    // Superseded secrets are deleted once the source has finished. If there are none,
                    // ending the change now does not affect the store.
                    let cleanup = staged.commit().await.map_err(failed)?;
                    outbox.report(&cleanup);
                } else {
                    drop(staged);
                }
            }
            Update::Changed => {
                let cleanup = staged.abort().await;
                outbox.undone(note, cleanup).await?;
            }
        }
        Ok(update)
    }

    /// Reports a row that somebody has changed since it was read. That may have been another process that
    /// shares the journal: then the row is read again.
    async fn changed(
        &self,
        source: &dyn ConfigSource,
        row: &ConfigRow,
        held: Option<&Held<'_>>,
    ) -> MigrateResult<()> {
        for _ in 1..held.map_or(1, |_| ATTEMPTS) {
            let Some(now) = source.row(&row.id).await? else {
                return Ok(());
            };
            let Some((note, staged)) = self.stage(source, &now, held).await? else {
                return Ok(());
            };
            if self.save(source, &now, &note, staged, held).await? == Update::Saved {
                return Ok(());
            }
        }
        self.tracker.tally(|tally| tally.changed += 1);
        let failure = RowFailure::Row("the row was changed by someone else; start again");
        self.tracker
            .not_hydrated(failure.in_row(&key(source, &row.id)));
        Ok(())
    }

    fn outbox<'o>(&'o self, held: Option<&'o Held<'o>>) -> Outbox<'o> {
        Outbox {
            sort: "split ",
            journal: &*self.split.journal,
            configs: &self.split.configs,
            secrets: &self.secrets,
            tracker: &self.tracker,
            page: self.split.options.page.get(),
            patience: self.split.stores.connector.deadline + self.split.options.lease,
            held,
        }
    }
}

/// A source has two rows with one id.
fn same_id(key: String) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Configurations,
        "two configurations have the same id",
    )
    .with_place(key)
}

/// Why a row cannot be split.
enum RowFailure {
    Problem(secret_persistence_core::connector::Problem),
    Row(&'static str),
}

impl RowFailure {
    fn in_row(&self, key: &str) -> Failure {
        match self {
            Self::Problem(problem) => Failure::of_problem(key, problem),
            Self::Row(message) => Failure {
                coordinate: None,
                configuration: Some(key.to_owned()),
                place: None,
                kind: MigrateErrorKind::Configurations.as_str().to_owned(),
                message: (*message).to_owned(),
            },
        }
    }
}

fn row_failures(error: ConnectorError) -> Vec<RowFailure> {
    let problems = error.problems().iter().cloned();
    problems.map(RowFailure::Problem).collect()
}
