//! Opens several stores from settings: a default one, and others by storage id.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use secret_persistence_core::connector::{ActingSecrets, ConnectorOptions, ConnectorSecrets};
use secret_persistence_core::rates::SharedRates;
use secret_persistence_core::{
    Actor, AuditMode, AuditSink, OpenStore, Result, SecretPersistence, StorageId, Stores,
};
use tokio::time::Instant;

use crate::audit;
use crate::connect::connect;
use crate::limit_shared::rates;
use crate::settings::{Environment, Settings};
use crate::storage::{Storage, Storages};

/// How long the settings of other storages count as unchanged by default.
const RECHECK: Duration = Duration::from_secs(30);

/// The actor that reads credentials of other storages, for audit events.
const ACTOR: &str = "secret-persistence:storages";

/// The settings of several stores.
///
/// ```
/// # use secret_persistence::{Environment, Settings, StoresSettings};
/// # fn example(storages: std::sync::Arc<dyn secret_persistence::Storages>) -> secret_persistence::Result<()> {
/// let settings = StoresSettings::new(Settings::from_env(&Environment::of_process())?)
///     .with_storages(storages);
/// # let _ = settings; Ok(())
/// # }
/// ```
#[must_use]
pub struct StoresSettings {
    default: Settings,
    storages: Option<Arc<dyn Storages>>,
    sink: Option<Arc<dyn AuditSink>>,
    environment: Environment,
    recheck: Duration,
}

impl StoresSettings {
    /// Only a default store.
    pub fn new(default: Settings) -> Self {
        Self {
            default,
            storages: None,
            sink: None,
            environment: Environment::empty(),
            recheck: RECHECK,
        }
    }

    /// Sets the source of settings of other storages.
    pub fn with_storages(mut self, storages: Arc<dyn Storages>) -> Self {
        self.storages = Some(storages);
        self
    }

    /// Sets the sink for audit events, instead of the ledger, file or log of the settings. The
    /// setting decides what happens if the sink fails; the default is `required`.
    pub fn with_audit_sink(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Sets the environment for other storages of the operator: the access key that assumes roles.
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Sets how long the settings of an open storage count as unchanged, by default 30 seconds.
    /// [`Stores::reopen`] takes effect immediately.
    pub fn with_recheck(mut self, recheck: Duration) -> Self {
        self.recheck = recheck;
        self
    }
}

impl From<Settings> for StoresSettings {
    fn from(default: Settings) -> Self {
        Self::new(default)
    }
}

impl fmt::Debug for StoresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoresSettings")
            .field("default", &self.default)
            .field("storages", &self.storages.is_some())
            .field("sink", &self.sink.is_some())
            .field("recheck", &self.recheck)
            .finish_non_exhaustive()
    }
}

/// Opens the default store, and prepares to open others by storage id.
///
/// Another store is opened on first use: its settings are read, the credentials that they point to
/// are read from the default store, and it gets the layers of the default store's settings with its
/// own provider's quotas. It stays open, and is reopened when its settings change or its
/// credentials are refused.
///
/// The settings `audit-file` and `ledger` say where audit events of connector calls go, and `audit`
/// what happens if that fails. Reading a storage's own
/// credentials is audited too.
///
/// # Errors
/// As for [`connect`], for the default store; `InvalidConfig` if audit is required without a
/// place or sink; and if a required ledger cannot be written.
pub async fn stores(settings: impl Into<StoresSettings>) -> Result<Stores> {
    let settings = settings.into();
    let audit = audit::sink(&settings.default, settings.sink.clone())
        .await
        .map_err(|error| settings.default.name_as_written(error))?;
    let owner = settings.default.owner()?;
    let around = settings.default.around_others();
    let rates = rates(&settings.default)?;
    let default = connect(shared(settings.default, rates.clone())).await?;
    let mut stores = Stores::new(default);
    if let Some(owner) = owner {
        stores = stores.with_owner(owner);
    }
    stores = with_sink(stores, audit);
    if let Some(storages) = settings.storages {
        // These contain only the default store: a storage's credentials are never in another
        // storage.
        let secrets = ConnectorSecrets::new(stores.clone(), ConnectorOptions::default())
            .acting_as(&Actor::new(ACTOR));
        stores = stores.with_opener(Arc::new(Opener {
            storages,
            secrets,
            environment: settings.environment,
            around,
            rates,
            recheck: settings.recheck,
            seen: Mutex::default(),
        }));
    }
    Ok(stores)
}

/// Sends the events of stores that the program opened itself where the settings say: the ledger,
/// `audit-file`, or the log.
///
/// # Errors
/// As for [`stores`], for the audit.
pub async fn audited(stores: Stores, settings: &Settings) -> Result<Stores> {
    let audit = audit::sink(settings, None)
        .await
        .map_err(|error| settings.name_as_written(error))?;
    Ok(with_sink(stores, audit))
}

fn with_sink(stores: Stores, audit: Option<(Arc<dyn AuditSink>, AuditMode)>) -> Stores {
    match audit {
        Some((sink, mode)) => stores.with_audit(sink, mode),
        None => stores,
    }
}

/// The settings with the source of rates of all stores, which is opened once.
fn shared(settings: Settings, rates: Option<Arc<dyn SharedRates>>) -> Settings {
    match rates {
        Some(rates) => settings.with_shared_rates(rates),
        None => settings,
    }
}

/// Opens storages from their settings, and remembers those.
struct Opener {
    storages: Arc<dyn Storages>,
    secrets: ActingSecrets,
    environment: Environment,
    /// The common settings of every store except the default one.
    around: secret_persistence_core::settings::SettingMap,
    rates: Option<Arc<dyn SharedRates>>,
    recheck: Duration,
    seen: Mutex<HashMap<StorageId, Seen>>,
}

struct Seen {
    storage: Storage,
    checked: Instant,
}

/// A check of a storage's settings. If its caller is cancelled, the check does not count, and the
/// next caller checks again.
struct Look<'a> {
    opener: &'a Opener,
    id: &'a StorageId,
    /// The time of the previous check; `None` once this check has ended.
    before: Option<Instant>,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before
            && let Some(seen) = self.opener.seen.lock().get_mut(self.id)
        {
            seen.checked = before;
        }
    }
}

#[async_trait]
impl OpenStore for Opener {
    async fn open(&self, id: &StorageId) -> Result<Option<Arc<dyn SecretPersistence>>> {
        let checked = Instant::now();
        let Some(storage) = self.storages.storage(id).await? else {
            return Ok(None);
        };
        let settings = storage.open(&self.secrets, &self.environment).await?;
        let settings = settings.with_common(self.around.clone());
        let settings = match storage.tenant() {
            // Whatever a tenant says about its account, it neither uses up another's quota nor gets more
            // buckets, which stay in the database.
            Some(tenant) => {
                let account = format!("{tenant}: {}", settings.kind());
                settings.with_account(account)
            }
            None => settings,
        };
        let store = connect(shared(settings, self.rates.clone())).await?;
        self.seen
            .lock()
            .insert(id.clone(), Seen { storage, checked });
        Ok(Some(store))
    }

    async fn is_current(&self, id: &StorageId) -> bool {
        let (known, before) = match self.seen.lock().get_mut(id) {
            Some(seen) if seen.checked.elapsed() >= self.recheck => {
                // Other callers continue in the meantime.
                let before = mem::replace(&mut seen.checked, Instant::now());
                (seen.storage.clone(), before)
            }
            _ => return true,
        };
        let mut look = Look {
            opener: self,
            id,
            before: Some(before),
        };
        let now = self.storages.storage(id).await;
        look.before = None;
        match now {
            Ok(now) => now.is_some_and(|now| now == known),
            Err(error) => {
                tracing::warn!(
                    target: "secret_persistence",
                    storage = %id,
                    kind = %error.kind(),
                    "the settings of a storage cannot be read; it continues with its current settings"
                );
                true
            }
        }
    }
}
