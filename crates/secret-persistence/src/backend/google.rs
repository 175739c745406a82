//! Google Secret Manager.

use std::sync::Arc;

use secret_persistence_core::SecretPersistence;
use secret_persistence_gcp::{Config, GoogleSecretManager, SETTINGS};

use super::{Backend, JsonForm};
use crate::kind::Kind;

pub(super) const BACKEND: Backend = Backend {
    kind: Kind::Google,
    settings: SETTINGS,
    json: &[JsonForm {
        auth_type: None,
        required: &["gcpProjectId", "gcpCredentialsJson"],
        optional: &["region"],
    }],
    quotas: Some(GoogleSecretManager::quotas),
    check: |values| Config::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(async move {
            let mut config = Config::from_settings(values)?;
            if let Some(owner) = owner {
                config = config.with_owner(owner);
            }
            Ok(Arc::new(GoogleSecretManager::connect(config).await?) as Arc<dyn SecretPersistence>)
        })
    },
};
