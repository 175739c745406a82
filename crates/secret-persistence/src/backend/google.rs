//! Google Secret Manager.

use secret_persistence_gcp::{Config, GoogleSecretManager, SETTINGS};

use super::{Backend, JsonForm, open};
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
    account: None,
    check: |values| Config::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(open(
            Config::from_settings(values),
            owner,
            Config::with_owner,
            GoogleSecretManager::connect,
        ))
    },
};
