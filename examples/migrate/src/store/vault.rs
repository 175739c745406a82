//! HashiCorp Vault.

use std::sync::Arc;

use futures::future::BoxFuture;
use secrets_core::SecretPersistence;
use secrets_core::layer::Stack;
use secrets_core::settings::StoreUrl;
use secrets_vault::{Vault, VaultConfig};

use super::{Lookup, remote};
use crate::status::Result;

/// Opens a mount of the KV engine.
pub(super) fn open<'a>(
    url: &'a str,
    variable: Lookup<'a>,
) -> BoxFuture<'a, Result<Arc<dyn SecretPersistence>>> {
    Box::pin(async move {
        let mut settings = VaultConfig::settings_from_url(&StoreUrl::parse(url)?)?;
        // The URL says where; an address of the environment is that of the service, or of the other
        // side of a move.
        settings.set_env(|name| match name {
            "VAULT_ADDRESS" | "VAULT_PREFIX" => None,
            _ => variable(name),
        });
        let config = VaultConfig::build(&settings)?;
        let backend = Arc::new(Vault::connect(config).await?);
        Ok(remote::layered(Stack::over(backend)))
    })
}
