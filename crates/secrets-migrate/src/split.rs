//! Takes raw secrets out of configurations that were never split.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use serde_json::Value;

use super::{
    Cancellation, ConfigRow, ConfigSource, Content, Failure, Journal, MigrateError,
    MigrateErrorKind, MigrateOptions, MigrateResult, Observer, Phase, Report, Run, Silent, Update,
};
use crate::ledger::Ledger;
use crate::notes::Change;
use crate::paced::Paced;
use crate::session::{by_key, each_page, key, updatable};
use crate::unshare::unknown_source;
use secret_persistence_core::connector::{
    ActingSecrets, Cleanup, ConnectorError, ConnectorOptions, ConnectorSecrets, ConnectorSpec,
    Planned, Record, RecordState, Staged,
};
use secret_persistence_core::{Actor, Owner, Scope, SecretPersistence, Stores};

/// What the notes of a split begin with.
const SORT: &str = "split ";

/// Who splits, for audit events.
const ACTOR: &str = "migrate split";

/// How many rows are planned and written at once.
const ROWS: usize = 8;

/// How many compiled specifications are kept: rows of one connector have the same.
const SPECIFICATIONS: usize = 64;

/// Splits configurations that still hold raw secrets: each is an update with the row as saved and as
/// edited, so that half-split rows finish; secrets go to the store, and the row is saved by
/// compare-and-swap.
#[derive(Debug)]
pub struct Split {
    store: Arc<dyn SecretPersistence>,
    journal: Arc<dyn Journal>,
    owner: Option<Owner>,
    configs: Vec<Arc<dyn ConfigSource>>,
    connector: ConnectorOptions,
    options: MigrateOptions,
    observer: Arc<dyn Observer>,
    cancellation: Cancellation,
}

impl Split {
    /// A split into a store. The journal keeps the names that are about to be written, so that a
    /// killed run leaves no secret behind; it is one of its own, not a migration's.
    #[must_use]
    pub fn new(store: Arc<dyn SecretPersistence>, journal: Arc<dyn Journal>) -> Self {
        Self {
            store,
            journal,
            owner: None,
            configs: Vec::new(),
            connector: ConnectorOptions::default(),
            options: MigrateOptions::default(),
            observer: Arc::new(Silent),
            cancellation: Cancellation::new(),
        }
    }

    /// Says which installation the secrets belong to.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Adds a source of configurations, which must not be read-only.
    #[must_use]
    pub fn with_configs(mut self, configs: Arc<dyn ConfigSource>) -> Self {
        self.configs.push(configs);
        self
    }

    /// Sets what configurations may hold, and where references are resolved.
    #[must_use]
    pub fn with_connector_options(mut self, connector: ConnectorOptions) -> Self {
        self.connector = connector;
        self
    }

    /// Sets how to go about the work.
    #[must_use]
    pub fn with_options(mut self, options: MigrateOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets who is told what the run is doing.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets what stops the run cleanly.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Splits every row that still holds a raw secret. Repeatable: a row without one is left as it
    /// is. A row that cannot be split is a failure in the report, and does not stop the others.
    ///
    /// # Errors
    /// Where a source is read-only, where the journal is of another run, and where journal or
    /// configurations cannot be read or written.
    pub async fn run(&self) -> MigrateResult<Report> {
        updatable(&self.configs)?;
        let identity = self.store.identity().await?;
        let run = Run::new(&identity, None, self.owner.as_ref());
        self.journal.open(&run).await?;
        let work = self.work(run);
        work.run().await?;
        Ok(work.ledger.close(self.journal.counts().await?))
    }

    fn work(&self, run: Run) -> Work<'_> {
        let concurrency = self.options.concurrency.map_or_else(
            || self.store.capabilities().concurrency,
            std::num::NonZeroUsize::get,
        );
        let paced = Paced::new(
            Arc::clone(&self.store),
            concurrency,
            self.options.requests_per_second,
        );
        let mut stores = Stores::new(Arc::new(paced));
        if let Some(owner) = &self.owner {
            stores = stores.with_owner(owner.clone());
        }
        let secrets = ConnectorSecrets::new(stores, self.connector.clone());
        Work {
            split: self,
            secrets: secrets.acting_as(&Actor::new(ACTOR)),
            specs: Mutex::default(),
            ledger: Ledger::new(
                "split",
                run,
                &self.options,
                Arc::clone(&self.observer),
                self.cancellation.clone(),
            ),
        }
    }
}

type Outbox = Change<Record>;

/// A change whose secrets are written, and the key of its note, which is empty where nothing was
/// written. None where a row needs no change.
type Noted = Option<(String, Staged)>;

struct Work<'s> {
    split: &'s Split,
    secrets: ActingSecrets,
    specs: Mutex<Vec<(Arc<Value>, ConnectorSpec)>>,
    ledger: Ledger,
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
            self.end_changes(Knowledge::Rows).await?;
        }
        let scan = journal.begin_scan().await?;
        each_page(
            &self.ledger,
            configs,
            options,
            Phase::Split,
            &|source, rows| Box::pin(self.page(scan, source, rows)),
        )
        .await?;
        if options.dry_run || self.ledger.is_stopped() {
            return Ok(());
        }
        for source in configs {
            source.finish().await?;
        }
        self.end_changes(Knowledge::AllSaved).await
    }

    async fn page(
        &self,
        scan: u64,
        source: &dyn ConfigSource,
        rows: Vec<ConfigRow>,
    ) -> MigrateResult<()> {
        let keys: Vec<String> = rows.iter().map(|row| key(source, &row.id)).collect();
        let twice = self.split.journal.see(scan, &keys).await?;
        if let Some(twice) = twice.into_iter().next() {
            return Err(MigrateError::new(
                MigrateErrorKind::Configurations,
                "two configurations have the same id",
            )
            .with_place(twice));
        }
        // Planned and written concurrently, saved in the source's order, which is the one in which a
        // new file is written.
        let mut staged: Vec<BoxFuture<'_, MigrateResult<Noted>>> = Vec::new();
        for row in &rows {
            staged.push(Box::pin(self.stage(source, row)));
        }
        let mut staged = stream::iter(staged).buffered(ROWS).zip(stream::iter(&rows));
        while let Some((staged, row)) = staged.next().await {
            if let Some((note, staged)) = staged? {
                self.save(source, row, &note, staged).await?;
            }
        }
        Ok(())
    }

    /// Writes the secrets of a row, after noting their names; none where nothing is to be split.
    async fn stage(&self, source: &dyn ConfigSource, row: &ConfigRow) -> MigrateResult<Noted> {
        let key = key(source, &row.id);
        let Content::Configuration(configuration) = &row.content else {
            self.ledger.tally(|tally| tally.bare_coordinates += 1);
            return Ok(None);
        };
        self.ledger.tally(|tally| tally.configurations += 1);
        if self.ledger.is_stopped() {
            return Ok(None);
        }
        let planned = match self.plan(row, configuration).await {
            Ok(planned) => planned,
            Err(failures) => {
                for failure in failures {
                    self.ledger.not_hydrated(failure.in_row(&key));
                }
                return Ok(None);
            }
        };
        let record = planned.record().clone();
        let secrets = record.writes().len() as u64;
        if self.split.options.dry_run {
            self.ledger.tally(|tally| {
                tally.secrets += secrets;
                tally.split += u64::from(secrets > 0);
            });
            return Ok(None);
        }
        let note = record
            .writes()
            .first()
            .map(|first| format!("{SORT}{key} {}", first.coordinate))
            .unwrap_or_default();
        let mut change = Change::new(&key, record);
        if !note.is_empty() {
            change.put(&*self.split.journal, &note).await?;
        }
        match planned.stage().await {
            Ok(staged) => {
                self.ledger.tally(|tally| tally.secrets += secrets);
                Ok(Some((note, staged)))
            }
            Err(error) => {
                for problem in error.problems() {
                    self.ledger.not_hydrated(Failure::of_problem(&key, problem));
                }
                if !note.is_empty() {
                    change.abandoned = true;
                    self.abandon(&note, &change).await?;
                }
                Ok(None)
            }
        }
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
            .ok_or_else(|| lacks("the row has no connection specification, which a split needs"))?;
        let base_id = row
            .base_id
            .ok_or_else(|| lacks("the row has no base id, which a split needs"))?;
        let prefix = row.prefix.as_deref().unwrap_or("workspace_");
        let scope = Scope::new(prefix, base_id)
            .map_err(|_| lacks("the row's prefix is not a valid one"))?;
        let spec = self.spec(specification).map_err(row_failures)?;
        self.secrets
            .plan_update(&spec, &scope, configuration.clone(), configuration.clone())
            .await
            .map_err(row_failures)
    }

    fn spec(&self, specification: &Arc<Value>) -> Result<ConnectorSpec, ConnectorError> {
        let locked = || self.specs.lock().unwrap_or_else(PoisonError::into_inner);
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
    ) -> MigrateResult<()> {
        let is_same = match &row.content {
            Content::Configuration(configuration) => **configuration.as_ref() == *staged.config(),
            Content::Coordinate(_) => true,
        };
        if is_same {
            let cleanup = staged.abort().await;
            return self.abandoned(note, cleanup).await;
        }
        match source.update(row, staged.config()).await? {
            Update::Saved => {
                self.ledger.tally(|tally| tally.split += 1);
                // What it supersedes is deleted once the source has finished; where there is
                // nothing, ending it now does nothing to the store.
                if staged.record().supersedes().is_empty() {
                    let cleanup = staged.commit().await.map_err(failed)?;
                    self.report(&cleanup);
                } else {
                    drop(staged);
                }
                Ok(())
            }
            Update::Changed => {
                self.ledger.tally(|tally| tally.changed += 1);
                let key = key(source, &row.id);
                self.ledger.not_hydrated(
                    RowFailure::Row("somebody else changed the row meanwhile; start again")
                        .in_row(&key),
                );
                let cleanup = staged.abort().await;
                self.abandoned(note, cleanup).await
            }
        }
    }

    /// Removes the note of a change that is undone, if it is.
    async fn abandoned(
        &self,
        note: &str,
        cleanup: Result<Cleanup, ConnectorError>,
    ) -> MigrateResult<()> {
        let cleanup = cleanup.map_err(failed)?;
        self.report(&cleanup);
        if note.is_empty() || !cleanup.failed.is_empty() {
            return Ok(());
        }
        self.split.journal.put_note(note, None).await
    }

    async fn abandon(&self, note: &str, change: &Outbox) -> MigrateResult<()> {
        let journal = &*self.split.journal;
        change.put(journal, note).await?;
        let cleanup = self
            .secrets
            .heal(&change.names, RecordState::Abandoned)
            .await
            .map_err(failed)?;
        self.report(&cleanup);
        // A write of the killed run may still be on its way: then the next start heals again.
        if cleanup.is_finished() {
            journal.put_note(note, None).await?;
        }
        Ok(())
    }

    fn report(&self, cleanup: &Cleanup) {
        for undeleted in &cleanup.failed {
            self.ledger.failed(Failure::of(&undeleted.error));
        }
    }

    async fn saved(&self, note: &str, change: &Outbox) -> MigrateResult<()> {
        let cleanup = self
            .secrets
            .heal(&change.names, RecordState::Saved)
            .await
            .map_err(failed)?;
        self.report(&cleanup);
        if cleanup.is_finished() {
            self.split.journal.put_note(note, None).await?;
        }
        Ok(())
    }

    /// Ends every change that is noted.
    async fn end_changes(&self, knowledge: Knowledge) -> MigrateResult<()> {
        let limit = self.split.options.page.get();
        let mut after = None;
        loop {
            let (changes, next) =
                Outbox::page(&*self.split.journal, SORT, after.as_deref(), limit).await?;
            for (note, mut change) in changes {
                let is_saved = match knowledge {
                    Knowledge::AllSaved if change.abandoned => continue,
                    Knowledge::AllSaved => true,
                    Knowledge::Rows => !change.abandoned && self.has_any(&change).await?,
                };
                if is_saved {
                    self.saved(&note, &change).await?;
                } else {
                    change.abandoned = true;
                    self.abandon(&note, &change).await?;
                }
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn has_any(&self, change: &Outbox) -> MigrateResult<bool> {
        let Some((source, id)) = by_key(&self.split.configs, &change.configuration) else {
            return Err(unknown_source(&change.configuration));
        };
        let Some(row) = source.row(id).await? else {
            return Ok(false);
        };
        let Content::Configuration(configuration) = &row.content else {
            return Ok(false);
        };
        // A row that cannot be understood may have them.
        Ok(self
            .secrets
            .locations(configuration)
            .await
            .map_or(true, |locations| {
                change
                    .names
                    .writes()
                    .iter()
                    .any(|write| locations.contains(write))
            }))
    }
}

/// What is known of the changes that are noted.
#[derive(Clone, Copy)]
enum Knowledge {
    /// Every one that was not given up is saved: their sources have finished.
    AllSaved,
    /// A killed run left them: the rows tell. One that has its secrets keeps them, others lose theirs.
    Rows,
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

fn failed(error: ConnectorError) -> MigrateError {
    MigrateError::new(MigrateErrorKind::Store, "the change could not be ended").with_source(error)
}
