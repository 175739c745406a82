//! Google Secret Manager.

use std::num::NonZeroU32;
use std::sync::Arc;

use futures::future::BoxFuture;
use secret_persistence_core::layer::Stack;
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{Owner, SecretPersistence};
use secret_persistence_gcp::{Config, GoogleSecretManager, SETTINGS};

use super::{Lookup, remote};
use crate::status::Result;

/// Opens the secrets of a project, or of one of its regions.
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
        let backend = Arc::new(GoogleSecretManager::new(config));
        let stack = Stack::over(backend);
        Ok(remote::limited(stack, GoogleSecretManager::quotas(), rate))
    })
}
