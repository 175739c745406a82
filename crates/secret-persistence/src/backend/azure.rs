//! Azure Key Vault.

use secret_persistence_azure::{AzureKeyVault, Config, SETTINGS};

use super::{Backend, JsonForm, open};
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
    account: None,
    check: |values| Config::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(open(
            Config::from_settings(values),
            owner,
            Config::with_owner,
            AzureKeyVault::connect,
        ))
    },
};
