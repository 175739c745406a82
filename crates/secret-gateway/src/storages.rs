//! Further stores by storage id, from a file of the operator.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use secret_persistence::{Error, ErrorKind, Operation, Result, Storage, StorageId, Storages};
use secret_persistence_migrate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, MigrateError, MigrateErrorKind,
    MigrateResult, Update,
};
use serde_json::Value;

/// Lists all stores except the default one.
pub trait StorageIds: Send + Sync + 'static {
    /// The ids, in order.
    fn ids(&self) -> Vec<StorageId>;

    /// The settings of each store as they are now. Their credentials are pointers
    /// to secrets in the default store, which the collector must not delete.
    ///
    /// # Errors
    /// If they cannot be read. Nothing is collected then.
    fn settings(&self) -> Result<Vec<(StorageId, Value)>>;
}

/// A JSON file with storage ids, and for each the JSON for external secret management, in which
/// credentials are pointers to secrets in the default store. Reread when it changes.
pub struct StoragesFile {
    path: PathBuf,
    read: Mutex<Option<Read>>,
}

struct Read {
    modified: Option<SystemTime>,
    storages: BTreeMap<StorageId, Value>,
}

impl fmt::Debug for StoragesFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoragesFile({})", self.path.display())
    }
}

impl StoragesFile {
    /// Reads the stores of this file.
    ///
    /// # Errors
    /// `InvalidConfig` if it cannot be read or has another form.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let file = Self {
            path: path.into(),
            read: Mutex::new(None),
        };
        file.with(|_| ())?;
        Ok(file)
    }

    fn with<T>(&self, look: impl FnOnce(&BTreeMap<StorageId, Value>) -> T) -> Result<T> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = std::fs::metadata(&self.path)
            .and_then(|metadata| metadata.modified())
            .ok();
        if let Some(known) = &*read
            && known.modified == modified
        {
            return Ok(look(&known.storages));
        }
        let storages = self.parse()?;
        let result = look(&storages);
        *read = Some(Read { modified, storages });
        Ok(result)
    }

    fn parse(&self) -> Result<BTreeMap<StorageId, Value>> {
        let invalid = |reason: &str| {
            let message = format!("`storages-file` {} {reason}", self.path.display());
            Error::new(ErrorKind::InvalidConfig, message).with_operation(Operation::Open)
        };
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| invalid("cannot be read").with_source(error))?;
        // The parser's message would quote the text.
        serde_json::from_str(&text).map_err(|_| invalid("is not a JSON object of storage ids"))
    }
}

impl StorageIds for StoragesFile {
    fn ids(&self) -> Vec<StorageId> {
        self.with(|storages| storages.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Reads the file whatever its time: two saves may have the same one.
    fn settings(&self) -> Result<Vec<(StorageId, Value)>> {
        Ok(self.parse()?.into_iter().collect())
    }
}

/// The settings of the stores as a source of configurations: what they name is needed.
pub(crate) struct StorageSettings(pub(crate) Arc<dyn StorageIds>);

impl fmt::Debug for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageSettings")
    }
}

/// Without the path: a file that was moved is the same source.
impl fmt::Display for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("storages-file")
    }
}

impl StorageSettings {
    fn rows(&self) -> MigrateResult<impl Iterator<Item = ConfigRow>> {
        let mut settings = self.0.settings().map_err(|error| {
            MigrateError::new(
                MigrateErrorKind::Configurations,
                "the further stores cannot be read",
            )
            .with_place(self.to_string())
            .with_source(error)
        })?;
        // A page begins after an id, whatever order they came in.
        settings.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        let row = |(id, settings): (StorageId, Value)| ConfigRow::new(id.as_str(), settings);
        Ok(settings.into_iter().map(row))
    }
}

#[async_trait]
impl ConfigSource for StorageSettings {
    fn access(&self) -> Access {
        Access::ReadOnly
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        let is_next = |row: &ConfigRow| after.is_none_or(|after| row.id.as_str() > after.as_str());
        let mut left = self.rows()?.filter(is_next);
        let rows: Vec<_> = left.by_ref().take(limit).collect();
        let last = left.next().and_then(|_| rows.last());
        let next = last.map(|row| ConfigCursor::new(row.id.clone()));
        Ok(ConfigPage::new(rows, next))
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        Ok(self.rows()?.find(|row| row.id == id))
    }

    async fn update(&self, _: &ConfigRow, _: &Value) -> MigrateResult<Update> {
        Err(MigrateError::new(
            MigrateErrorKind::Configurations,
            "the further stores are read-only",
        ))
    }
}

#[async_trait]
impl Storages for StoragesFile {
    async fn storage(&self, id: &StorageId) -> Result<Option<Storage>> {
        self.with(|storages| storages.get(id).cloned().map(Storage::of_operator))
    }
}
