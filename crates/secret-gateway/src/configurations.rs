//! The platform's configurations, where the operator has said in which tables and files they are.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use secret_persistence::Environment;
use secret_persistence::connector::ResolveReferences;
use secret_persistence_migrate::{Access, ConfigSource, MigrateResult, sources};
use serde::Deserialize;

use crate::settings::InvalidSetting;
use crate::storages::StorageIds;

/// The sources of all configurations, as `secret-migrate --configs` takes them, and last the settings
/// of further stores. They are opened for each use, so that a database that is down stops nothing else.
#[derive(Clone)]
pub struct Configurations {
    named: Named,
    environment: Environment,
    storages: Option<Arc<dyn StorageIds>>,
}

/// The content of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    sources: Vec<String>,
    references: Option<String>,
}

/// Shows no address: an operator may have written a credential into it, which is refused only when
/// it is opened.
impl fmt::Debug for Configurations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configurations")
            .field("sources", &self.named.sources.len())
            .field("references", &self.named.references.is_some())
            .finish()
    }
}

impl Configurations {
    /// Reads the file with the addresses: `{"sources": [address, …], "references": address}`.
    /// Credentials are in variables that begin with `CONFIG_`.
    ///
    /// # Errors
    /// If it cannot be read, or has another form.
    pub fn open(path: &Path, environment: &Environment) -> Result<Self, InvalidSetting> {
        let invalid = |reason: String| {
            InvalidSetting::new(
                "configurations-file",
                format_args!("{} {reason}", path.display()),
            )
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| invalid(format!("cannot be read: {error}")))?;
        // The parser's message could quote an address.
        let named = serde_json::from_str(&text)
            .ok()
            .filter(|named: &Named| !named.sources.is_empty());
        let named = named.ok_or_else(|| {
            invalid("is not {\"sources\": [address, …], \"references\": address}".to_owned())
        })?;
        Ok(Self {
            named,
            environment: environment.with_prefix("CONFIG_"),
            storages: None,
        })
    }

    /// Adds the settings of further stores: their credentials are secrets too.
    #[must_use]
    pub(crate) fn with_storages(mut self, storages: Option<Arc<dyn StorageIds>>) -> Self {
        self.storages = storages;
        self
    }

    /// How many sources there are.
    pub(crate) fn count(&self) -> usize {
        self.named.sources.len() + usize::from(self.storages.is_some())
    }

    pub(crate) async fn source(
        &self,
        index: usize,
    ) -> MigrateResult<Option<Arc<dyn ConfigSource>>> {
        let Some(text) = self.named.sources.get(index) else {
            let storages = self.storages.clone();
            let storages = storages.filter(|_| index == self.named.sources.len());
            return Ok(storages.map(|all| {
                let settings = sources::StorageSettings::new(all.name(), move || all.settings());
                Arc::new(settings) as _
            }));
        };
        let variables = |name: &str| self.environment.get(name);
        let source = sources::open(text, &variables, Access::ReadOnly).await?;
        Ok(Some(source))
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) async fn references(&self) -> MigrateResult<Option<Arc<dyn ResolveReferences>>> {
        let Some(text) = &self.named.references else {
            return Ok(None);
        };
        let variables = |name: &str| self.environment.get(name);
        let references = sources::ReferenceTable::open(text, &variables).await?;
        Ok(Some(Arc::new(references)))
    }

    /// A build without a database reads no table: pointers by reference are unreadable.
    #[cfg(not(any(feature = "postgres", feature = "sqlite")))]
    pub(crate) async fn references(&self) -> MigrateResult<Option<Arc<dyn ResolveReferences>>> {
        Ok(None)
    }
}
