//! HashiCorp Vault.

use secret_persistence_vault::{SETTINGS, Vault, VaultConfig};

use super::{Backend, JsonForm, open};
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
        let config = VaultConfig::from_settings(values);
        // A wrong mount is told here, and what the store can do does not change under a layer.
        Box::pin(open(config, owner, VaultConfig::with_owner, Vault::connect))
    },
};
