//! Further stores by storage id, from a file of the operator.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use secret_persistence::{Error, ErrorKind, Operation, Result, Storage, StorageId, Storages};
use serde_json::Value;

/// Lists all stores except the default one.
pub trait StorageIds: Send + Sync + 'static {
    /// What they are called as a source of configurations, as a rule the path of their file. A collector
    /// that has read it once refuses to run without it.
    fn name(&self) -> String;

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
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn ids(&self) -> Vec<StorageId> {
        self.with(|storages| storages.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Reads the file whatever its time: two saves may have the same one.
    fn settings(&self) -> Result<Vec<(StorageId, Value)>> {
        Ok(self.parse()?.into_iter().collect())
    }
}

#[async_trait]
impl Storages for StoragesFile {
    async fn storage(&self, id: &StorageId) -> Result<Option<Storage>> {
        self.with(|storages| storages.get(id).cloned().map(Storage::of_operator))
    }
}
