//! SQLite and Postgres.

use std::num::NonZeroU32;
use std::sync::Arc;

use futures::future::BoxFuture;
use secret_persistence_core::SecretPersistence;
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_db::{Database, DbConfig, Mode, SETTINGS};

use super::{Lookup, Registry};
use crate::address;
use crate::console::remark;
use crate::environment::{Environment, Role};
use crate::status::{Failure, Result};

/// Opens a table of secrets.
pub(super) fn open<'a>(
    url: &'a str,
    variable: Lookup<'a>,
    _: Option<NonZeroU32>,
) -> BoxFuture<'a, Result<Arc<dyn SecretPersistence>>> {
    Box::pin(async move {
        let settings = SETTINGS.from_url(&StoreUrl::parse(url)?, &variable)?;
        let config = DbConfig::from_settings(&settings)?;
        note(&config);
        Ok(Arc::new(Database::connect(config).await?) as Arc<dyn SecretPersistence>)
    })
}

/// Tells people whose secrets would be in plain text.
pub(super) fn note(config: &DbConfig) {
    if config.mode() == Mode::Plain {
        remark(format!(
            "note: {config} is plain text; whoever reads the database, its log or its backups reads the secrets"
        ));
    }
}

/// The settings of a table of secrets, for the commands that only databases have.
///
/// # Errors
/// For a URL of another store, and for settings that cannot be used.
pub(crate) fn config(text: &str, role: Role, environment: &Environment) -> Result<DbConfig> {
    Registry::built_in().knows(text, role)?;
    let url = address::parse(text, role)?;
    let place = |failure: Failure| failure.at(format!("{} {url}", role.option()));
    if !["sqlite", "postgres", "postgresql"].contains(&url.scheme()) {
        return Err(place(Failure::input(
            "this command is for stores that are databases: sqlite or postgres",
        )));
    }
    SETTINGS
        .from_url(&url, &|name| environment.of(role, name).map(str::to_owned))
        .and_then(|settings| DbConfig::from_settings(&settings))
        .map_err(|error| place(error.into()))
}
