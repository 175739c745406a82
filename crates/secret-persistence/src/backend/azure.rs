//! Azure Key Vault.

use std::sync::Arc;

use secret_persistence_azure::{AzureKeyVault, Config, SETTINGS};
use secret_persistence_core::SecretPersistence;

use super::{Backend, JsonForm};
use crate::kind::Kind;

pub(super) const BACKEND: Backend = Backend {
    kind: Kind::Azure,
    settings: SETTINGS,
    json: &[JsonForm {
        auth_type: None,
        required: &["vaultUrl", "tenantId", "clientId", "clientSecret"],
        optional: &["caFile", "tags"],
    }],
    quotas: Some(AzureKeyVault::quotas),
    check: |values| Config::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(async move {
            let mut config = Config::from_settings(values)?;
            if let Some(owner) = owner {
                config = config.with_owner(owner);
            }
            Ok(Arc::new(AzureKeyVault::connect(config).await?) as Arc<dyn SecretPersistence>)
        })
    },
};
