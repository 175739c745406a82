//! Configurations and their secrets, as an installation has them.

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

/// The workspace that every configuration of the stories belongs to: a pointer of another one is a finding.
pub(crate) const WORKSPACE: Uuid = Uuid::from_u128(1);

/// Configurations with four secrets each, and what the secrets are.
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

    /// The configurations as they are saved, and as they are when hydrated.
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

    /// A migration of them. It takes four requests at a time, so that there is a middle to fail in.
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

    /// Ends the test unless a verify finds every secret in the target, and everything hydrating from there.
    pub(crate) async fn expect_verified(&self, migration: &Migration) {
        let report = migration.verify().await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.tally.verified, self.secrets.len() as u64);
        assert_eq!(report.tally.hydrated, self.rows.len() as u64);
    }

    /// Ends the test unless the store contains every secret once and equal, and nothing else.
    pub(crate) async fn expect_in(&self, store: &Store) {
        expect_exactly(store, &self.secrets).await;
    }
}

/// Ends the test unless the store contains these secrets, each once and equal, and nothing else.
pub(crate) async fn expect_exactly(store: &Store, secrets: &BTreeMap<ManagedCoordinate, String>) {
    let expected: Vec<_> = secrets.keys().cloned().collect();
    assert_eq!(names(store).await, expected, "the names in {store}");
    let coordinates: Vec<_> = expected.into_iter().map(Coordinate::from).collect();
    let reads = store.read_many(&coordinates).await;
    for (read, (name, value)) in reads.into_iter().zip(secrets) {
        assert!(read.unwrap().value.expose() == value, "{name} differs");
    }
}

/// Every name in a store, in order, as often as it is listed.
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

/// Ends the test unless something failed, all of it of this kind, and some message names the cause.
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
