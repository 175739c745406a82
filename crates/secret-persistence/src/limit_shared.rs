//! Opens the database of the setting `limit-shared`.

use std::sync::Arc;

use secret_persistence_core::rates::SharedRates;
use secret_persistence_core::{Result, SecretValue};

use crate::settings::Settings;

/// The source of rates that the caller has set, or the setting names. Sends nothing: while the database
/// cannot be reached, the process keeps to its own share.
pub(crate) fn rates(settings: &Settings) -> Result<Option<Arc<dyn SharedRates>>> {
    if let Some(rates) = settings.shared_rates() {
        return Ok(Some(rates));
    }
    settings.limit_shared().map(|url| open(&url)).transpose()
}

/// Checks the setting.
#[cfg(feature = "postgres")]
pub(crate) fn check(url: &SecretValue) -> Result<()> {
    options(url).map(drop)
}

#[cfg(feature = "postgres")]
fn open(url: &SecretValue) -> Result<Arc<dyn SharedRates>> {
    let rates = secret_persistence_db::PostgresRates::new(&options(url)?);
    Ok(Arc::new(rates))
}

#[cfg(feature = "postgres")]
fn options(url: &SecretValue) -> Result<secret_persistence_db::PostgresOptions> {
    use crate::settings::{LIMIT_SHARED, invalid};

    secret_persistence_db::PostgresOptions::from_url(url).map_err(|error| {
        let reason = error.message();
        let told = invalid(format!("`{LIMIT_SHARED}` cannot be used: {reason}"));
        match error.hint() {
            Some(hint) => told.with_hint(hint.to_owned()),
            None => told,
        }
    })
}

#[cfg(not(feature = "postgres"))]
pub(crate) fn check(url: &SecretValue) -> Result<()> {
    open(url).map(drop)
}

#[cfg(not(feature = "postgres"))]
fn open(_: &SecretValue) -> Result<Arc<dyn SharedRates>> {
    use crate::settings::{LIMIT_SHARED, invalid};

    Err(invalid(format!(
        "`{LIMIT_SHARED}` needs Postgres, which is not built in"
    ))
    .with_hint("build with --features postgres"))
}
