//! Other storages by id: their settings, and the secrets that the settings point to.

use std::fmt;

use async_trait::async_trait;
use secret_persistence_core::connector::{ActingSecrets, ConnectorError, pointers};
use secret_persistence_core::{Error, ErrorKind, Operation, Result, Scope, StorageId};
use serde_json::Value;

use crate::settings::{Environment, Settings, Tenant, tree};

/// The platform's settings of other storages, usually a table.
#[async_trait]
pub trait Storages: Send + Sync + 'static {
    /// The current settings of a storage; `None` for an unknown id.
    ///
    /// Called when a storage is opened, and periodically afterwards: if the result has changed, the
    /// storage is reopened.
    ///
    /// # Errors
    /// If the settings cannot be read. An open storage then stays in use.
    async fn storage(&self, id: &StorageId) -> Result<Option<Storage>>;
}

/// The settings of one storage: the JSON for external secret management (see
/// [`Settings::from_json`]), in which each credential, or the whole JSON, is a pointer to a secret
/// in the default store.
///
/// A changed credential has another coordinate, so comparing two of these shows the change without
/// reading a secret.
///
/// ```
/// use secret_persistence::{Scope, Storage, Tenant};
/// use serde_json::json;
///
/// # let organization: Scope = Scope::new("storage_organization_", "8a2b6b9e-6d4f-4f2c-9d1c-0d4d6f0a7e11".parse()?)?;
/// let row = json!({
///     "address": "https://vault.tenant.example:8200",
///     "prefix": "secret/",
///     "token": {
///         "_secret": "airbyte_storage_organization_8a2b6b9e-6d4f-4f2c-9d1c-0d4d6f0a7e11_secret_\
///                     0e6a1a53-5a5e-4f4e-8c11-64a1d4b7e1f2_v1"
///     }
/// });
/// let storage = Storage::of_tenant(row, organization, Tenant::new());
/// # let _ = storage;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Storage {
    settings: Value,
    whose: Whose,
}

#[derive(Clone, Debug, PartialEq)]
enum Whose {
    Operator,
    Tenant(Box<(Scope, Tenant)>),
}

impl Storage {
    /// A storage with a tenant's settings. Its credentials are secrets of this scope, and no other
    /// secret is read for it. [`Settings::from_tenant_json`] lists what else is refused.
    #[must_use]
    pub fn of_tenant(settings: Value, scope: Scope, tenant: Tenant) -> Self {
        Self {
            settings,
            whose: Whose::Tenant(Box::new((scope, tenant))),
        }
    }

    /// A storage with the operator's own settings.
    #[must_use]
    pub fn of_operator(settings: Value) -> Self {
        Self {
            settings,
            whose: Whose::Operator,
        }
    }

    /// The tenant, if the settings are a tenant's.
    pub(crate) fn tenant(&self) -> Option<&Scope> {
        match &self.whose {
            Whose::Operator => None,
            Whose::Tenant(tenant) => Some(&tenant.0),
        }
    }

    /// The settings with their credentials inserted.
    pub(crate) async fn open(
        &self,
        secrets: &ActingSecrets,
        environment: &Environment,
    ) -> Result<Settings> {
        self.refuse_foreign()?;
        let full = secrets
            .hydrate(self.settings.clone())
            .await
            .map_err(hydrating)?;
        // The whole JSON in one secret may have been stored as text.
        let full = match &*full {
            Value::String(text) => tree::json("the secret with the storage's settings", text)?,
            _ => full,
        };
        match &self.whose {
            Whose::Operator => Settings::from_value(&full, environment),
            Whose::Tenant(tenant) => Settings::from_tenant_value(&full, &tenant.1),
        }
    }

    /// Refuses pointers that a tenant may have pasted: to a secret of another scope, or in another
    /// storage.
    fn refuse_foreign(&self) -> Result<()> {
        for (place, pointer) in pointers(&self.settings).map_err(hydrating)? {
            let ours = match (&self.whose, &pointer.coordinate) {
                (Whose::Operator, _) => true,
                (Whose::Tenant(tenant), Some(coordinate)) => coordinate
                    .managed()
                    .is_some_and(|coordinate| tenant.0.contains(coordinate)),
                (Whose::Tenant(_), None) => false,
            };
            if pointer.storage_id.is_some() || pointer.reference_id.is_some() || !ours {
                return Err(Error::new(
                    ErrorKind::PermissionDenied,
                    format!("the pointer at `{place}` of the storage's settings does not point to a secret of the storage's scope"),
                )
                .with_operation(Operation::Open)
                .with_hint("a storage's credentials must be secrets of its scope, in the default store"));
            }
        }
        Ok(())
    }
}

/// Omits the settings, which may contain a credential.
impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("whose", &self.whose)
            .finish_non_exhaustive()
    }
}

fn hydrating(error: ConnectorError) -> Error {
    let kind = match error.problems().iter().find_map(|problem| problem.error()) {
        _ if error.is_retryable() => ErrorKind::Unavailable,
        Some(cause) => cause.kind(),
        None => ErrorKind::InvalidConfig,
    };
    Error::new(
        kind,
        "the credentials in a storage's settings cannot be read from the default store",
    )
    .with_operation(Operation::Open)
    .with_source(error)
}
