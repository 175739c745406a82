//! The caller's side of the protocol: a database with one row and an outbox, in front of a store.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::explorer::{Scene, Touches, World};
use crate::connector::{
    ActingSecrets, Cleanup, ConnectorOptions, ConnectorSecrets, ConnectorSpec, FreshError, Problem,
    Record, RecordState, Settled, Staged, pointers,
};
use crate::{
    Actor, Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Memory, Operation, Page, Read, Result, Scope,
    SecretPersistence, SecretPersistenceExt, SecretValue, Stores, Write, Written,
};

/// The rules that the callers follow: all of them, unless a test shows what one is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// A save compares the row's revision.
    pub(super) row_is_compared: bool,
    /// A save compares the record's state.
    pub(super) record_is_compared: bool,
    /// The healer claims a record before it heals.
    pub(super) healer_claims: bool,
    /// The healer heals again after the deadline.
    pub(super) healer_returns: bool,
    /// The row is saved before the change is committed.
    pub(super) saved_before_commit: bool,
    /// A save with an unknown outcome is settled with a row that was read with a lock.
    pub(super) settles_with_lock: bool,
    /// A reader whose secret is gone reads the row again.
    pub(super) reader_returns: bool,
}

impl Rules {
    pub(super) const ALL: Self = Self {
        row_is_compared: true,
        record_is_compared: true,
        healer_claims: true,
        healer_returns: true,
        saved_before_commit: true,
        settles_with_lock: true,
        reader_returns: true,
    };
}

/// Which operations are separate steps, and what can go wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Detail {
    /// Reads of the store are steps.
    pub(super) reads: bool,
    /// Writes are in flight: they arrive at any time, and their sender may give up before.
    pub(super) late_writes: bool,
    /// Saves may have an unknown outcome, and may take a while.
    pub(super) late_saves: bool,
    /// Without an outbox: only the row.
    pub(super) no_outbox: bool,
}

impl Detail {
    pub(super) const PLAIN: Self = Self {
        reads: false,
        late_writes: false,
        late_saves: false,
        no_outbox: false,
    };
}

/// The state of one run: the database, the store, and the library between them.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) world: Arc<World>,
    pub(super) rules: Rules,
    pub(super) detail: Detail,
    memory: Arc<Memory>,
    database: Arc<Mutex<Database>>,
    secrets: ActingSecrets,
    scope: Scope,
    spec: Arc<ConnectorSpec>,
}

#[derive(Default)]
struct Database {
    row: Option<Row>,
    records: Vec<(Record, RowState)>,
    /// Running saves. A caller that locks the row waits until they have ended.
    saving: usize,
    broken: Option<String>,
}

#[derive(Clone)]
struct Row {
    revision: u64,
    config: Value,
    /// The configuration that the caller meant. A real row has no such column.
    meant: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowState {
    Open,
    Saved,
    Abandoned,
    Removed,
}

/// The outcome of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saved {
    Lost,
    No,
    Yes,
}

const OTHERS: &str = "airbyte_workspace_00000000-0000-0000-0000-0000000000ff_secret_00000000-0000-0000-0000-0000000000ff_v1";

const READS_ROW: Touches = Touches {
    reads_row: true,
    ..Touches::NOTHING
};
const LOCKS_ROW: Touches = Touches {
    reads_row: true,
    needs_quiet: true,
    ..Touches::NOTHING
};
const OUTBOX: Touches = record(Touches::OUTBOX);
const READS_SECRETS: Touches = Touches {
    reads_secrets: true,
    ..Touches::NOTHING
};
const WRITES_SECRETS: Touches = Touches {
    writes_secrets: true,
    ..Touches::NOTHING
};
const DELETES_SECRETS: Touches = Touches {
    deletes_secrets: true,
    ..Touches::NOTHING
};

const fn record(id: usize) -> Touches {
    Touches {
        record: Some(id),
        ..Touches::NOTHING
    }
}

/// The row and the record, in one transaction.
fn saves(id: Option<usize>) -> Touches {
    Touches {
        reads_row: true,
        writes_row: true,
        record: id,
        ..Touches::NOTHING
    }
}

pub(super) fn spec() -> Arc<ConnectorSpec> {
    let specification = json!({
        "type": "object",
        "properties": {
            "host": {"type": "string"},
            "a": {"type": "string", "airbyte_secret": true},
            "b": {"type": "string", "airbyte_secret": true},
        },
    });
    Arc::new(ConnectorSpec::compile(&specification).unwrap())
}

impl Model {
    /// Creates a saved row with secrets `a` and `b`, and a store with them and a secret of another
    /// owner.
    pub(super) fn new(
        world: &Arc<World>,
        spec: &Arc<ConnectorSpec>,
        rules: Rules,
        detail: Detail,
    ) -> Self {
        let memory = Arc::new(Memory::new().with_capabilities(Capabilities {
            owner: false,
            ..Memory::new().capabilities()
        }));
        let scope = Scope::workspace(Uuid::from_u128(1));
        memory.insert(OTHERS, SecretValue::new("another's".to_owned()));
        let meant = json!({"host": "h", "a": "old a", "b": "old b"});
        let mut config = meant.clone();
        for (name, id) in [("a", 1), ("b", 2)] {
            let coordinate = ManagedCoordinate::new(&scope, Uuid::from_u128(id), 1).unwrap();
            memory.insert(
                coordinate.as_str(),
                SecretValue::new(meant[name].as_str().unwrap().to_owned()),
            );
            config[name] = json!({"_secret": coordinate.as_str()});
        }
        let store = Gated {
            memory: Arc::clone(&memory),
            world: Arc::clone(world),
            detail,
        };
        let secrets =
            ConnectorSecrets::new(Stores::new(Arc::new(store)), ConnectorOptions::default())
                .acting_as(&Actor::new("model"));
        Self {
            world: Arc::clone(world),
            rules,
            detail,
            memory,
            database: Arc::new(Mutex::new(Database {
                row: Some(Row {
                    revision: 1,
                    config,
                    meant,
                }),
                ..Database::default()
            })),
            secrets,
            scope,
            spec: Arc::clone(spec),
        }
    }

    /// The scene of these actors. Every guarantee is checked after every step.
    pub(super) fn scene(
        &self,
        actors: Vec<(&'static str, futures::future::BoxFuture<'static, ()>)>,
    ) -> Scene {
        let (always, finally, healer) = (self.clone(), self.clone(), self.clone());
        Scene {
            actors: actors
                .into_iter()
                .map(|(name, actor)| (name, actor as _))
                .collect(),
            always: Box::new(move || always.row_hydrates()),
            afterwards: Box::pin(async move {
                if healer.rules.healer_returns {
                    healer.heal_all().await;
                }
            }),
            finally: Box::new(move || finally.nothing_is_left()),
        }
    }

    /// A caller that replaces secrets of the row.
    pub(super) async fn change(self, changes: Vec<(&'static str, &'static str)>) {
        self.world.step("reads the row", READS_ROW).await;
        let Some(row) = self.database().row.clone() else {
            return;
        };
        let mut meant = row.meant.clone();
        let mut edited = row.config.clone();
        for (name, value) in changes {
            meant[name] = json!(value);
            edited[name] = json!(value);
        }
        let planned = match self
            .secrets
            .plan_update(&self.spec, &self.scope, row.config.clone(), edited)
            .await
        {
            Ok(planned) => planned,
            // The row has changed, and its secret with it: a caller starts again, or gives up.
            Err(error) => return self.expect_gone(&error),
        };
        let record = planned.record().clone();
        let id = self.open(&record).await;
        let Ok(staged) = planned.stage().await else {
            // The stage was aborted. The healer deletes what is still in flight.
            return;
        };
        if !self.rules.saved_before_commit {
            let config = staged.config().clone();
            let _ = staged.commit().await.unwrap();
            self.save(&row, config, meant, id).await;
            return;
        }
        match self.save(&row, staged.config().clone(), meant, id).await {
            Saved::Yes => {
                let cleanup = staged.commit().await.unwrap();
                self.remove(id, &cleanup).await;
            }
            Saved::No => {
                if self.claim(id).await != RowState::Saved {
                    let cleanup = staged.abort().await.unwrap();
                    self.remove(id, &cleanup).await;
                }
            }
            Saved::Lost => self.settle(staged).await,
        }
    }

    /// A caller that deletes the row.
    pub(super) async fn delete(self) {
        self.world.step("reads the row", READS_ROW).await;
        let Some(row) = self.database().row.clone() else {
            return;
        };
        let planned = self
            .secrets
            .plan_delete(&self.scope, row.config.clone())
            .await
            .unwrap();
        let record = planned.record().clone();
        let id = self.open(&record).await;
        let staged = planned.stage().await.unwrap();
        self.world.step("deletes the row", saves(id)).await;
        let deleted = {
            let mut database = self.database();
            let unmoved = database
                .row
                .as_ref()
                .is_some_and(|current| current.revision == row.revision);
            let ours = id.is_none_or(|id| database.records[id].1 == RowState::Open);
            let deleted = unmoved && ours;
            if deleted {
                database.row = None;
                if let Some(id) = id {
                    database.records[id].1 = RowState::Saved;
                }
            }
            deleted
        };
        if deleted {
            let cleanup = staged.commit().await.unwrap();
            self.remove(id, &cleanup).await;
        } else {
            let cleanup = staged.abort().await.unwrap();
            self.claim(id).await;
            self.remove(id, &cleanup).await;
        }
    }

    /// A connector that is about to run.
    pub(super) async fn read(self) {
        let row = || async {
            self.world.step("reads the row", READS_ROW).await;
            let row = self.database().row.clone();
            let row = row.ok_or_else(|| "the row is gone".to_owned())?;
            Ok::<_, String>((row.revision, row.config))
        };
        let full = if self.rules.reader_returns {
            self.secrets.hydrate_fresh(row).await
        } else {
            let (revision, config) = row().await.unwrap();
            let full = self.secrets.hydrate(config).await;
            full.map(|full| (revision, full))
                .map_err(FreshError::Secrets)
        };
        match full {
            Err(FreshError::Row(_)) => {}
            Err(error) => self.break_promise(format!("a reader got {error}")),
            Ok((_, full)) => {
                if full["a"].as_str().is_none() || full["b"].as_str().is_none() {
                    self.break_promise("a reader got a part".to_owned());
                }
            }
        }
    }

    /// The healer, for the record if it is open.
    pub(super) async fn heal(self, id: usize) {
        self.world.step("looks into the outbox", OUTBOX).await;
        if self.database().records.len() <= id {
            return;
        }
        let (record, state) = self.database().records[id].clone();
        let state = if self.rules.healer_claims {
            self.claim(Some(id)).await
        } else {
            // It relies on what it read from the outbox.
            match state {
                RowState::Open => RowState::Abandoned,
                state => state,
            }
        };
        self.heal_once(&record, state).await;
    }

    /// The healer's last round: all records, after all deadlines.
    async fn heal_all(&self) {
        let count = self.database().records.len();
        for id in 0..count {
            let state = self.claim(Some(id)).await;
            let record = self.database().records[id].0.clone();
            self.heal_once(&record, state).await;
            self.database().records[id].1 = RowState::Removed;
        }
    }

    async fn heal_once(&self, record: &Record, state: RowState) {
        let state = match state {
            RowState::Abandoned => RecordState::Abandoned,
            RowState::Saved => RecordState::Saved,
            RowState::Open | RowState::Removed => return,
        };
        let _ = self.secrets.heal(record, state).await.unwrap();
    }

    async fn open(&self, record: &Record) -> Option<usize> {
        if self.detail.no_outbox {
            return None;
        }
        self.world.step("stores the record", OUTBOX).await;
        let mut database = self.database();
        database.records.push((record.clone(), RowState::Open));
        Some(database.records.len() - 1)
    }

    /// Moves a record from `open` to `abandoned` with compare-and-swap, and returns its state.
    async fn claim(&self, id: Option<usize>) -> RowState {
        let Some(id) = id else {
            return RowState::Abandoned;
        };
        self.world.step("claims the record", record(id)).await;
        let state = &mut self.database().records[id].1;
        if *state == RowState::Open {
            *state = RowState::Abandoned;
        }
        *state
    }

    async fn remove(&self, id: Option<usize>, cleanup: &Cleanup) {
        if let (Some(id), true) = (id, cleanup.is_finished()) {
            self.world.step("removes the record", record(id)).await;
            self.database().records[id].1 = RowState::Removed;
        }
    }

    /// Saves the row and marks the record, in one transaction.
    async fn save(&self, from: &Row, config: Value, meant: Value, id: Option<usize>) -> Saved {
        let (database, rules, revision) = (Arc::clone(&self.database), self.rules, from.revision);
        let transaction = move || {
            let mut database = database.lock().unwrap();
            database.saving -= 1;
            let current = database.row.as_ref().map(|row| row.revision);
            if rules.row_is_compared && current != Some(revision) {
                return false;
            }
            if let Some(id) = id {
                let state = &mut database.records[id].1;
                if rules.record_is_compared && *state != RowState::Open {
                    return false;
                }
                *state = RowState::Saved;
            }
            database.row = Some(Row {
                revision: current.unwrap_or(revision) + 1,
                config,
                meant,
            });
            true
        };
        self.world.step("saves", saves(id)).await;
        self.database().saving += 1;
        if !self.detail.late_saves {
            return if transaction() { Saved::Yes } else { Saved::No };
        }
        // The response may be lost while the transaction is still running.
        let saved: Arc<Mutex<Option<bool>>> = Arc::default();
        let answer = {
            let saved = Arc::clone(&saved);
            self.world.send("the save", saves(id), move || {
                *saved.lock().unwrap() = Some(transaction());
            })
        };
        if self.world.pick(2) == 1 {
            return Saved::Lost;
        }
        answer.await;
        let saved = saved.lock().unwrap().take();
        match saved {
            Some(true) => Saved::Yes,
            _ => Saved::No,
        }
    }

    async fn settle(&self, staged: Staged) {
        if self.rules.settles_with_lock {
            self.world
                .step("reads the row with a lock", LOCKS_ROW)
                .await;
        } else {
            self.world.step("reads the row", READS_ROW).await;
        }
        let current = self.database().row.clone().map(|row| row.config);
        match staged.settle(current.as_ref()).await.unwrap() {
            Settled::Aborted(_) | Settled::Committed(_) | Settled::Undecided => {}
        }
    }

    /// No saved configuration points to a missing secret, and no secret of another owner is gone.
    fn row_hydrates(&self) -> Result<(), String> {
        let database = self.database();
        if let Some(broken) = &database.broken {
            return Err(broken.clone());
        }
        if !self.has(OTHERS, "another's") {
            return Err("another owner's secret is gone".to_owned());
        }
        let Some(row) = &database.row else {
            return Ok(());
        };
        for (name, meant) in row.meant.as_object().unwrap() {
            let Some(coordinate) = row.config[name]["_secret"].as_str() else {
                continue;
            };
            if !self.has(coordinate, meant.as_str().unwrap()) {
                return Err(format!(
                    "revision {}: {name} points to a missing secret",
                    row.revision
                ));
            }
        }
        Ok(())
    }

    /// With an outbox, the store contains the secrets that the row points to, and no others.
    fn nothing_is_left(&self) -> Result<(), String> {
        let database = self.database();
        let config = database
            .row
            .as_ref()
            .map_or(&Value::Null, |row| &row.config);
        let referenced = pointers(config).unwrap().len();
        let left = self.memory.len() - 1 - referenced;
        if left > 0 && !self.detail.no_outbox {
            return Err(format!("{left} secrets that will never be found"));
        }
        Ok(())
    }

    fn has(&self, coordinate: &str, value: &str) -> bool {
        let coordinate = Coordinate::parse(coordinate).unwrap();
        let reads = self
            .memory
            .read_batch(std::slice::from_ref(&coordinate))
            .now_or_never()
            .unwrap();
        reads[0]
            .as_ref()
            .is_ok_and(|read| read.value.expose() == value)
    }

    /// The only permitted failure of a stale caller is that a secret was replaced.
    fn expect_gone(&self, error: &crate::connector::ConnectorError) {
        if !error.problems().iter().all(Problem::is_gone) {
            self.break_promise(error.to_string());
        }
    }

    fn break_promise(&self, what: String) {
        self.database().broken = Some(what);
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap()
    }
}

/// A store whose every operation is a step.
struct Gated {
    memory: Arc<Memory>,
    world: Arc<World>,
    detail: Detail,
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gated memory")
    }
}

#[async_trait]
impl SecretPersistence for Gated {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        if self.detail.reads {
            self.world.step("reads secrets", READS_SECRETS).await;
        }
        self.memory.read_batch(coordinates).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        if !self.detail.late_writes {
            self.world.step("writes secrets", WRITES_SECRETS).await;
            return self.memory.write_batch(writes).await;
        }
        self.world.step("sends secrets", Touches::NOTHING).await;
        let answers: Arc<Mutex<Vec<Result<Written>>>> = Arc::default();
        let arrival = {
            let (memory, writes, answers) = (
                Arc::clone(&self.memory),
                writes.to_vec(),
                Arc::clone(&answers),
            );
            self.world.send("the write", WRITES_SECRETS, move || {
                if let Some(results) = memory.write_batch(&writes).now_or_never() {
                    *answers.lock().unwrap() = results;
                }
            })
        };
        if self.world.pick(2) == 1 {
            let gave_up = Error::new(ErrorKind::Unavailable, "no response in time")
                .with_operation(Operation::Write);
            return vec![Err(gave_up); writes.len()];
        }
        arrival.await;
        std::mem::take(&mut *answers.lock().unwrap())
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for coordinate in coordinates {
            self.world.step("deletes a secret", DELETES_SECRETS).await;
            results.push(self.memory.delete(coordinate, options).await);
        }
        results
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.memory.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.memory.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.memory.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.memory.identity().await
    }
}
