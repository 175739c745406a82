//! HashiCorp Vault.

use secret_persistence_core::settings::SettingMap;
use secret_persistence_vault::{Config, SETTINGS, Vault};
use url::Url;

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
    account: Some(account),
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

/// The server, for all prefixes, mounts and namespaces: that is the widest of the quotas that an operator
/// sets there. <https://developer.hashicorp.com/vault/docs/concepts/resource-quotas>
fn account(settings: &SettingMap) -> Option<String> {
    let address = Url::parse(settings.text("address")?).ok()?;
    Some(format!("vault {}", address.origin().ascii_serialization()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_one_account() {
        let of = |address, prefix| {
            let pairs = [("address", address), ("prefix", prefix)];
            account(&SETTINGS.from_pairs(pairs).unwrap()).unwrap()
        };
        let one = of("https://vault.example:8200", "secret/a/");
        assert_eq!(one, "vault https://vault.example:8200");
        assert_eq!(of("https://VAULT.example:8200/", "secret/b/"), one);
        assert_ne!(of("https://other.example:8200", "secret/a/"), one);
    }
}
