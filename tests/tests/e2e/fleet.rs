//! Configurations and their secrets, as in an installation.

use std::{collections::BTreeMap, sync::Arc};

use secret_persistence_core::{
    Coordinate, ListOptions, ManagedCoordinate, Scope, SecretPersistenceExt as _, SecretValue,
    Write,
};
use secret_persistence_migrate::{
    ConfigRow, MemoryConfigs, MemoryJournal, MigrateOptions, Migration, Report,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stores::{Store, owner};

/// The workspace of every configuration in the stories. A pointer of another one is a finding.
pub(crate) const WORKSPACE: Uuid = Uuid::from_u128(1);

/// Configurations with four secrets each, and their secrets.
pub(crate) struct Fleet {
    pub(crate) secrets: BTreeMap<ManagedCoordinate, String>,
    configs: Arc<MemoryConfigs>,
    rows: Vec<(Value, Value)>,
}

impl Fleet {
    pub(crate) fn new(configurations: usize) -> Self {
        let scope = Scope::workspace(WORKSPACE);
        let (mut secrets, mut rows) = (BTreeMap::new(), Vec::new());
        for row in 0..configurations {
            let mut saved = json!({"host": format!("db{row}.example")});
            let mut full = saved.clone();
            for field in 0..4 {
                let name = ManagedCoordinate::new(&scope, Uuid::new_v4(), 1).unwrap();
                let value = format!(" värde {row}\n{field} {}\t", Uuid::new_v4());
                saved[format!("secret{field}")] = json!({"_secret": name.as_str()});
                full[format!("secret{field}")] = json!(value);
                secrets.insert(name, value);
            }
            rows.push((saved, full));
        }
        let configs = rows
            .iter()
            .enumerate()
            .map(|(row, (saved, _))| ConfigRow::new(format!("connector-{row:04}"), saved.clone()));
        Self {
            configs: Arc::new(MemoryConfigs::new("connectors", configs.collect()).unwrap()),
            secrets,
            rows,
        }
    }

    /// The configurations as saved, and hydrated.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Value, Value)> {
        self.rows.iter().cloned()
    }

    /// Writes the secrets.
    pub(crate) async fn save_in(&self, store: &Store) {
        let writes: Vec<_> = self
            .secrets
            .iter()
            .map(|(name, value)| Write::new(name.clone(), SecretValue::new(value.clone())))
            .collect();
        for result in store.write_many(&writes).await {
            result.unwrap();
        }
    }

    /// A migration of them. It sends four requests at a time, so that it can fail in the middle.
    pub(crate) fn migration(
        &self,
        source: &Store,
        target: &Store,
        journal: &Arc<MemoryJournal>,
    ) -> Migration {
        let options = MigrateOptions::default().with_concurrency(4.try_into().unwrap());
        Migration::new(
            Arc::clone(source),
            Arc::clone(target),
            Arc::clone(journal) as _,
        )
        .with_configs(Arc::clone(&self.configs) as _)
        .with_options(options)
        .with_owner(owner())
    }

    /// Fails the test unless a verify finds every secret in the target, and every configuration
    /// hydrates from there.
    pub(crate) async fn expect_verified(&self, migration: &Migration) {
        let report = migration.verify().await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.tally.verified, self.secrets.len() as u64);
        assert_eq!(report.tally.hydrated, self.rows.len() as u64);
    }

    /// Fails the test unless the store contains exactly these secrets, each once and equal.
    pub(crate) async fn expect_in(&self, store: &Store) {
        expect_exactly(store, &self.secrets).await;
    }
}

/// Fails the test unless the store contains exactly the given secrets, each once and equal.
pub(crate) async fn expect_exactly(store: &Store, secrets: &BTreeMap<ManagedCoordinate, String>) {
    let expected: Vec<_> = secrets.keys().cloned().collect();
    assert_eq!(names(store).await, expected, "the names in {store}");
    let coordinates: Vec<_> = expected.into_iter().map(Coordinate::from).collect();
    let reads = store.read_many(&coordinates).await;
    for (read, (name, value)) in reads.into_iter().zip(secrets) {
        assert!(read.unwrap().value.expose() == value, "{name} differs");
    }
}

/// Every name in a store, sorted, with duplicates.
pub(crate) async fn names(store: &Store) -> Vec<ManagedCoordinate> {
    let options = ListOptions::default();
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_page(&options, after.as_ref()).await.unwrap();
        names.extend(page.entries.into_iter().map(|entry| entry.coordinate));
        after = page.next;
        if after.is_none() {
            names.sort();
            return names;
        }
    }
}

/// Fails the test unless there are failures, all of this kind, and one message names the cause.
#[track_caller]
pub(crate) fn expect_failures(report: &Report, kind: &str, cause: &str) {
    assert!(!report.is_complete(), "nothing failed");
    assert!(!report.failures.is_empty(), "{report:?}");
    for failure in &report.failures {
        assert_eq!(failure.kind, kind, "{failure:?}");
    }
    let named = |failure: &secret_persistence_migrate::Failure| {
        failure.message.contains(cause) && failure.coordinate.is_some()
    };
    assert!(
        report.failures.iter().any(named),
        "no `{cause}` in {:?}",
        report.failures
    );
}
