//! Two stores, a journal and configurations, and what can be said about them.
use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use secret_persistence_core::connector::{Encoding, Pointer, hydrate_with, pointers};
use secret_persistence_core::{
    Capabilities, Coordinate, DeleteOptions, ListOptions, ManagedCoordinate, Memory, Recovery,
    SecretPersistence, SecretPersistenceExt, SecretValue, Write,
};
use serde_json::{Value, json};

use super::tap::{Process, Tap, TapJournal};
use crate::{
    ConfigRow, Content, Decisions, JournalEntry, MemoryConfigs, MemoryJournal, MigrateOptions,
    Migration, Report, Select, State, Transition,
};

pub(super) struct World {
    pub(super) source: Arc<Memory>,
    pub(super) target: Arc<Memory>,
    pub(super) journal: Arc<MemoryJournal>,
    pub(super) configs: Arc<MemoryConfigs>,
    pub(super) options: MigrateOptions,
}

impl World {
    /// Stores without anything, which take `batch` secrets at once.
    pub(super) fn empty(batch: usize) -> Self {
        let store = || {
            let memory = Memory::new();
            let capabilities = Capabilities {
                read_batch: batch,
                write_batch: batch,
                concurrency: 4,
                ..memory.capabilities()
            };
            Arc::new(memory.with_capabilities(capabilities))
        };
        Self {
            source: store(),
            target: store(),
            journal: Arc::new(MemoryJournal::new()),
            configs: Arc::new(MemoryConfigs::new("configs", Vec::new()).unwrap()),
            options: MigrateOptions::default().with_lag(std::time::Duration::ZERO),
        }
    }

    /// So many secrets in the source, two in each configuration, one of them as JSON.
    pub(super) async fn with(secrets: u32, batch: usize) -> Self {
        let world = Self::empty(batch);
        for number in (1..=secrets).step_by(2) {
            let second = (number < secrets).then_some(number + 1);
            let mut configuration = json!({"host": "db", "password": pointer(number)});
            put(&world.source, number, &value(number)).await;
            if let Some(second) = second {
                let pointer = Pointer::new(name(second).into()).with_encoding(Encoding::Json);
                configuration["nested"] = json!([{ "key": pointer.to_value() }]);
                put(&world.source, second, &value(second)).await;
            }
            world.row(number, configuration);
        }
        world
    }

    pub(super) fn row(&self, number: u32, configuration: Value) {
        self.configs
            .put(ConfigRow::new(number.to_string(), configuration));
    }

    pub(super) fn decided(mut self, decisions: Decisions) -> Self {
        self.options.decisions = decisions;
        self
    }

    /// A migration in a process of its own.
    pub(super) fn migration(&self, process: &Arc<Process>) -> Migration {
        self.migration_between(
            Tap::new(self.source.clone(), process),
            Tap::new(self.target.clone(), process),
            process,
        )
    }

    pub(super) fn migration_between(
        &self,
        source: Tap,
        target: Tap,
        process: &Arc<Process>,
    ) -> Migration {
        Migration::new(
            Arc::new(source),
            Arc::new(target),
            Arc::new(TapJournal::new(self.journal.clone(), process)),
        )
        .with_configs(self.configs.clone())
        .with_options(self.options.clone())
    }

    pub(super) fn between(
        &self,
        source: Arc<dyn SecretPersistence>,
        target: Arc<dyn SecretPersistence>,
    ) -> Migration {
        Migration::new(source, target, self.journal.clone())
            .with_configs(self.configs.clone())
            .with_options(self.options.clone())
    }

    pub(super) fn undisturbed(&self) -> Migration {
        self.migration(&Process::endless())
    }

    pub(super) async fn entries(&self) -> Vec<JournalEntry> {
        use crate::Journal;
        self.journal
            .page(&Select::all(), None, usize::MAX)
            .await
            .unwrap()
    }

    pub(super) async fn entry(&self, number: u32) -> JournalEntry {
        self.entries()
            .await
            .into_iter()
            .find(|entry| entry.coordinate == name(number))
            .unwrap()
    }

    /// The journal says of a secret that a copy was killed when it was about to write it.
    pub(super) async fn intend(&self, number: u32) {
        use crate::Journal;
        let intent = Transition::new(name(number), State::Intent, true);
        self.journal.advance(&[intent]).await.unwrap();
    }

    /// Every configuration hydrates from the store, to what the source had in the beginning.
    pub(super) async fn assert_hydrates(&self, store: &Memory, what: &str) {
        for row in self.configs.rows() {
            let Content::Configuration(configuration) = &row.content else {
                continue;
            };
            let mut values = BTreeMap::new();
            for (_, pointer) in pointers(configuration).unwrap() {
                let name = pointer.coordinate.clone().unwrap();
                let read = store.read(&name).await;
                let read = read.unwrap_or_else(|error| panic!("{what}: row {}: {error}", row.id));
                values.insert(pointer, read.value);
            }
            hydrate_with((***configuration).clone(), |pointer| {
                values.get(pointer).cloned()
            })
            .unwrap();
        }
    }
}

/// All secrets of a store, also those that listing alone would leave out.
pub(super) async fn contents(store: &Memory) -> BTreeMap<String, String> {
    let options = ListOptions::default();
    let names: Vec<Coordinate> = store
        .list(&options)
        .map_ok(|entry| entry.coordinate.into())
        .try_collect()
        .await
        .unwrap();
    let mut contents = BTreeMap::new();
    for name in names {
        let read = store.read(&name).await.unwrap();
        contents.insert(name.to_string(), read.value.expose().to_owned());
    }
    contents
}

pub(super) fn assert_complete(report: &Report, what: &str) {
    assert!(report.is_complete(), "{what}: {report:#?}");
}

pub(super) fn name(number: u32) -> ManagedCoordinate {
    ManagedCoordinate::parse(&format!(
        "airbyte_workspace_00000000-0000-0000-0000-000000000001_secret_\
         00000000-0000-0000-0000-{number:012}_v1"
    ))
    .unwrap()
}

pub(super) fn pointer(number: u32) -> Value {
    Pointer::new(name(number).into()).to_value()
}

/// Valid JSON, so that it can stand for either encoding.
pub(super) fn value(number: u32) -> String {
    format!("{{\"canary\": \"canary-{number}-\u{e4}\\n\"}}")
}

pub(super) async fn put(store: &Memory, number: u32, value: &str) {
    let write = Write::new(name(number), SecretValue::new(value.to_owned()));
    store.write(write).await.unwrap();
}

pub(super) async fn remove(store: &Memory, number: u32) {
    let at_once = DeleteOptions::default().with_recovery(Recovery::Immediate);
    store.delete(&name(number), &at_once).await.unwrap();
}

pub(super) async fn has(store: &Memory, number: u32) -> bool {
    store.read(&name(number).into()).await.is_ok()
}

pub(super) fn states(entries: &[JournalEntry]) -> BTreeMap<State, usize> {
    let mut states = BTreeMap::new();
    for entry in entries {
        *states.entry(entry.state).or_default() += 1;
    }
    states
}
