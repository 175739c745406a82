//! Sources of configurations: tables, queries, columns of bare coordinates, JSON lines files.
//!
//! [`open`] parses an address: `sqlite:config.db?table=…`, `postgres://host/db?query-file=…` (with
//! the features `sqlite` and `postgres`) or the path of a file.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod identifier;
mod json;
mod lines;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod query;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) mod references;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod rows;
mod storages;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod table;

use std::sync::Arc;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use secret_persistence_core::settings::{Setting, SettingMap};

use crate::address::{self, Variables};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::database::{self, Database, Purpose};
use crate::{Access, ConfigSource, MigrateError, MigrateResult};

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use references::ReferenceTable;
pub use storages::StorageSettings;

/// The parameters in the URL of a source.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) const SETTINGS: &[Setting] = &database::with_server::<{ 9 + database::SERVER.len() }>(&[
    Setting::new("table", "the table, `name` or `schema.name`").operator_only(),
    Setting::new("id", "the column that names a row"),
    Setting::new("configuration", "the column of the configuration, json or text"),
    Setting::new("coordinate", "the column of a bare coordinate, instead of configuration"),
    Setting::new("base_id", "the column of the workspace's id; split needs it"),
    Setting::new("prefix", "the column of the scope's prefix, or a 'literal' in single quotes")
        .with_default("'workspace_'"),
    Setting::new("specification", "the column of the connection specification; split needs it"),
    Setting::new("where", "a condition on the rows, in the database's own SQL"),
    Setting::new(
        "query-file",
        "a file with a SELECT of columns named id, configuration or coordinate, base_id, prefix, specification",
    )
    .operator_only(),
]);

/// Opens a source: the URL of a database, or the path of a JSON lines file.
///
/// # Errors
/// For wrong settings, and for missing databases, tables, columns and files.
pub async fn open(
    text: &str,
    variables: Variables<'_>,
    access: Access,
) -> MigrateResult<Arc<dyn ConfigSource>> {
    if !address::is_url(text) {
        return Ok(Arc::new(lines::Lines::open(text, access)?));
    }
    open_database(text, variables, access).await
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
async fn open_database(
    text: &str,
    variables: Variables<'_>,
    access: Access,
) -> MigrateResult<Arc<dyn ConfigSource>> {
    let url = address::parse(text)?;
    let settings = database::settings(&url, SETTINGS, variables)?;
    match (settings.text("table"), settings.text("query-file")) {
        (Some(_), None) => {
            let columns = table::Columns::parse(&settings)?;
            let purpose = match columns.access(access) {
                Access::ReadOnly => Purpose::Read,
                Access::Update => Purpose::Update,
            };
            let database = Database::open(&url, &settings, purpose).await?;
            Ok(Arc::new(
                table::Table::open(database, columns, purpose).await?,
            ))
        }
        (None, Some(file)) => {
            query::refuse_columns(&settings)?;
            let sql = query::read(file)?;
            let database = Database::open(&url, &settings, Purpose::Read).await?;
            Ok(Arc::new(query::Query::open(database, file, sql).await?))
        }
        _ => Err(MigrateError::settings("set either table=… or query-file=…").within(url)),
    }
}

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
async fn open_database(
    _: &str,
    _: Variables<'_>,
    _: Access,
) -> MigrateResult<Arc<dyn ConfigSource>> {
    Err(MigrateError::settings(
        "no database is built in: add the feature `sqlite` or `postgres`",
    ))
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
/// The one of these exclusive settings that is set.
fn given<'a>(settings: &SettingMap, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .copied()
        .find(|name| settings.text(name).is_some())
}
