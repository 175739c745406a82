//! Other storages by id: their settings, and the secrets that those settings point to.

use std::fmt;

use async_trait::async_trait;
use secret_persistence_core::connector::{ActingSecrets, ConnectorError, pointers};
use secret_persistence_core::{Error, ErrorKind, Operation, Result, Scope, StorageId};
use serde_json::Value;

use crate::settings::{Environment, Settings, Tenant, tree};

/// Where the platform keeps the settings of its other storages: usually a table.
#[async_trait]
pub trait Storages: Send + Sync + 'static {
    /// The storage of an id as it is now; `None` for an id that does not exist.
    ///
    /// Asked when a storage is opened, and from time to time afterwards: where the answer differs, the
    /// storage is opened anew.
    ///
    /// # Errors
    /// Where the settings cannot be read. A storage that is open goes on being used then.
    async fn storage(&self, id: &StorageId) -> Result<Option<Storage>>;
}

/// The settings of one storage, as the platform keeps them: the JSON for external secret management
/// (see [`Settings::from_json`]) in which each credential, or the whole, is a pointer to a secret of
/// the default store.
///
/// A changed credential has another coordinate, so whoever compares two of these sees the change
/// without reading a secret.
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
    /// A storage whose settings a tenant gave. Its credentials are secrets of this scope, and no
    /// other secret is read for it; what else is refused is in [`Settings::from_tenant_json`].
    #[must_use]
    pub fn of_tenant(settings: Value, scope: Scope, tenant: Tenant) -> Self {
        Self {
            settings,
            whose: Whose::Tenant(Box::new((scope, tenant))),
        }
    }

    /// A storage whose settings are the operator's own.
    #[must_use]
    pub fn of_operator(settings: Value) -> Self {
        Self {
            settings,
            whose: Whose::Operator,
        }
    }

    /// The settings with the credentials in them.
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
        // The whole as one secret may have been stored as text.
        let full = match &*full {
            Value::String(text) => tree::json("the secret with the storage's settings", text)?,
            _ => full,
        };
        match &self.whose {
            Whose::Operator => Settings::from_value(&full, environment),
            Whose::Tenant(tenant) => Settings::from_tenant_value(&full, &tenant.1),
        }
    }

    /// Refuses pointers that a tenant may have pasted: to another scope's secret, to another storage.
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
                    format!("the pointer at `{place}` of the storage's settings is not to a secret of its own"),
                )
                .with_operation(Operation::Open)
                .with_hint("a storage's credentials are secrets of its scope, in the default store"));
            }
        }
        Ok(())
    }
}

/// Without the settings: somebody may have left a credential in them.
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
