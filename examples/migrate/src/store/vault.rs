//! HashiCorp Vault.

use std::num::NonZeroU32;
use std::sync::Arc;

use futures::future::BoxFuture;
use secret_persistence_core::SecretPersistence;
use secret_persistence_core::layer::Stack;
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_vault::{SETTINGS, Vault, VaultConfig};

use super::{Lookup, remote};
use crate::status::Result;

/// Opens a mount of the KV engine.
pub(super) fn open<'a>(
    url: &'a str,
    variable: Lookup<'a>,
    _: Option<NonZeroU32>,
) -> BoxFuture<'a, Result<Arc<dyn SecretPersistence>>> {
    Box::pin(async move {
        let config =
            VaultConfig::from_settings(&SETTINGS.from_url(&StoreUrl::parse(url)?, variable)?)?;
        // What the mount can do decides what is asked of the operator, before anything is sent.
        let backend = Arc::new(Vault::connect(config).await?.located().await?);
        Ok(remote::layered(Stack::over(backend)))
    })
}
