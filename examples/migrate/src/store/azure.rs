//! Azure Key Vault.

use std::num::NonZeroU32;
use std::sync::Arc;

use futures::future::BoxFuture;
use secret_persistence_azure::{AzureKeyVault, Config, SETTINGS};
use secret_persistence_core::layer::Stack;
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{Owner, SecretPersistence};

use super::{Lookup, remote};
use crate::status::Result;

/// Opens a vault.
pub(super) fn open<'a>(
    url: &'a str,
    variable: Lookup<'a>,
    rate: Option<NonZeroU32>,
) -> BoxFuture<'a, Result<Arc<dyn SecretPersistence>>> {
    Box::pin(async move {
        let mut config =
            Config::from_settings(&SETTINGS.from_url(&StoreUrl::parse(url)?, variable)?)?;
        if let Some(owner) = variable("SECRETS_OWNER") {
            config = config.with_owner(Owner::parse(&owner)?);
        }
        let backend = Arc::new(AzureKeyVault::connect(config).await?);
        let stack = Stack::over(backend);
        Ok(remote::limited(stack, AzureKeyVault::quotas(), rate))
    })
}
