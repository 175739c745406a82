//! HashiCorp Vault.

use secret_persistence_vault::{Config, SETTINGS, Vault};

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
    check: |values| Config::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(open(
            Config::from_settings(values),
            owner,
            Config::with_owner,
            Vault::connect,
        ))
    },
};
