//! The state that all requests share.

use std::fmt;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use secret_persistence::connector::{ConnectorOptions, ConnectorSecrets, Policy};
use secret_persistence::{ReadHistory, SecretPersistence, StorageId, Stores};
use tokio::sync::RwLock;
use tracing::Instrument as _;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::collector::{Collecting, Collector};
use crate::configurations::Configurations;
use crate::digests::Digests;
use crate::failed_writes::FailedWrites;
use crate::health::Health;
use crate::migration::MigrationJournal;
use crate::outbox::Outbox;
use crate::server::Turns;
use crate::settings::Settings;
use crate::storages::StorageIds;
use crate::tokens::Authenticator;

/// The gateway: settings, stores, callers, outbox. Clones share everything.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

struct Shared {
    settings: Settings,
    stores: Stores,
    storages: Option<Arc<dyn StorageIds>>,
    mirrored: bool,
    migration: Option<MigrationJournal>,
    configurations: Option<Configurations>,
    history: Option<Arc<dyn ReadHistory>>,
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    collecting: Option<Collecting>,
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    collector: Collector,
    secrets: ConnectorSecrets,
    authenticator: Authenticator,
    outbox: Arc<dyn Outbox>,
    digests: Digests,
    failed_writes: FailedWrites,
    health: Health,
    metrics: Option<PrometheusHandle>,
    turns: Arc<Turns>,
    work: Arc<RwLock<()>>,
}

/// The parts of a gateway.
pub struct Parts {
    /// The settings.
    pub settings: Settings,
    /// The stores, as [`secret_persistence::stores`] opens them.
    pub stores: Stores,
    /// Further stores, if any: all that `stores` opens by id.
    pub storages: Option<Arc<dyn StorageIds>>,
    /// Whether the default store is a mirror of two.
    pub mirrored: bool,
    /// The journal of a migration that the page shows.
    pub migration: Option<MigrationJournal>,
    /// The sources of the platform's configurations, if they are known.
    pub configurations: Option<Configurations>,
    /// What knows who read a secret last: the ledger, if there is one.
    pub history: Option<Arc<dyn ReadHistory>>,
    /// Whose secrets the collector deletes, if it may.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub collecting: Option<Collecting>,
    /// Authenticates callers.
    pub authenticator: Authenticator,
    /// Stores changes.
    pub outbox: Arc<dyn Outbox>,
    /// The digest key.
    pub digests: Digests,
    /// The content of `/metrics`.
    pub metrics: Option<PrometheusHandle>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// Creates a gateway from these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let options = options(&parts.settings, Policy::default());
        Self(Arc::new(Shared {
            turns: Arc::new(Turns::new(parts.settings.limits.concurrency)),
            secrets: ConnectorSecrets::new(parts.stores.clone(), options),
            settings: parts.settings,
            stores: parts.stores,
            configurations: parts
                .configurations
                .map(|configurations| configurations.with_storages(parts.storages.clone())),
            storages: parts.storages,
            mirrored: parts.mirrored,
            history: parts.history,
            migration: parts.migration,
            #[cfg(any(feature = "postgres", feature = "sqlite"))]
            collecting: parts.collecting,
            #[cfg(any(feature = "postgres", feature = "sqlite"))]
            collector: Collector::default(),
            authenticator: parts.authenticator,
            outbox: parts.outbox,
            digests: parts.digests,
            failed_writes: FailedWrites::default(),
            health: Health::default(),
            metrics: parts.metrics,
            work: Arc::default(),
        }))
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Writes that failed.
    #[must_use]
    pub fn failed_writes(&self) -> &FailedWrites {
        &self.0.failed_writes
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.0.stores
    }

    pub(crate) fn store(&self) -> &Arc<dyn SecretPersistence> {
        self.0.stores.default_store()
    }

    /// The ids of the stores beside the default one.
    pub(crate) fn storage_ids(&self) -> Vec<StorageId> {
        self.0
            .storages
            .as_ref()
            .map(|storages| storages.ids())
            .unwrap_or_default()
    }

    pub(crate) fn mirrored(&self) -> bool {
        self.0.mirrored
    }

    pub(crate) fn migration(&self) -> Option<&MigrationJournal> {
        self.0.migration.as_ref()
    }

    pub(crate) fn configurations(&self) -> Option<&Configurations> {
        self.0.configurations.as_ref()
    }

    pub(crate) fn history(&self) -> Option<&Arc<dyn ReadHistory>> {
        self.0.history.as_ref()
    }

    /// What the collector works on, if it may.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn collecting(&self) -> Option<(&Configurations, &Collecting)> {
        self.0
            .configurations
            .as_ref()
            .zip(self.0.collecting.as_ref())
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn collector(&self) -> &Collector {
        &self.0.collector
    }

    pub(crate) fn secrets(&self) -> &ConnectorSecrets {
        &self.0.secrets
    }

    /// The connector calls with additional guarded places of the caller.
    pub(crate) fn secrets_guarding(&self, policy: Policy) -> ConnectorSecrets {
        ConnectorSecrets::new(self.0.stores.clone(), options(&self.0.settings, policy))
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.0.authenticator
    }

    pub(crate) fn outbox(&self) -> &dyn Outbox {
        &*self.0.outbox
    }

    pub(crate) fn digests(&self) -> &Digests {
        &self.0.digests
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(crate) fn metrics(&self) -> Option<&PrometheusHandle> {
        self.0.metrics.as_ref()
    }

    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.0.turns
    }

    /// Runs work to completion even if its caller disconnects; a shutdown waits for it.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let under_way = Arc::clone(&self.0.work).read_owned().await;
        let work = async move {
            let result = work.await;
            drop(under_way);
            result
        };
        let task = tokio::spawn(work.in_current_span());
        // A task that panicked has no result.
        task.await.ok()
    }

    /// Waits for running work. A run of the collector ends after its page.
    pub(crate) async fn finish(&self) {
        #[cfg(any(feature = "postgres", feature = "sqlite"))]
        self.0.collector.stop_all();
        drop(self.0.work.write().await);
    }
}

fn options(settings: &Settings, mut policy: Policy) -> ConnectorOptions {
    for prefix in &settings.external_prefixes {
        policy = policy.with_external_prefix(None, prefix.clone());
    }
    for place in &settings.guarded_places {
        policy = policy.with_guarded_place(place.clone());
    }
    ConnectorOptions::default()
        .with_policy(policy)
        .with_retention(settings.retention)
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("stores", &self.0.stores)
            .finish_non_exhaustive()
    }
}
