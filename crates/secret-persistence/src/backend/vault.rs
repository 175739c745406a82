//! HashiCorp Vault.

use std::sync::Arc;

use secret_persistence_core::SecretPersistence;
use secret_persistence_vault::{SETTINGS, Vault, VaultConfig};

use super::{Backend, JsonForm};
use crate::kind::Kind;

pub(super) const BACKEND: Backend = Backend {
    kind: Kind::Vault,
    settings: SETTINGS,
    json: &[JsonForm {
        auth_type: None,
        required: &["address", "token", "prefix"],
        optional: &["caFile"],
    }],
    quotas: None,
    check: |values| VaultConfig::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(async move {
            let mut config = VaultConfig::from_settings(values)?;
            if let Some(owner) = owner {
                config = config.with_owner(owner);
            }
            // A wrong mount is told here, and what the store can do does not change under a layer.
            let store = Vault::connect(config).await?;
            Ok(Arc::new(store) as Arc<dyn SecretPersistence>)
        })
    },
};
