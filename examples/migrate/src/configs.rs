//! Where configurations come from: tables, queries, columns of bare coordinates, files of JSON lines.

mod json;
mod lines;
mod query;
mod references;
mod rows;
mod table;

use std::sync::Arc;

use secret_persistence_core::connector::ResolveReferences;
use secret_persistence_core::settings::{Setting, Settings};
use secret_persistence_migrate::{ConfigSource, MigrateError, MigrateErrorKind};

use crate::address;
use crate::cli::Configs;
use crate::database::{Database, Purpose};
use crate::environment::{Environment, Role};
use crate::status::{Failure, Result};

/// What a `--configs` URL of a database may hold.
const SETTINGS: &[Setting] = &[
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
    USER,
    PASSWORD,
    SSLMODE,
    SSL_ROOT_CERT,
];

/// The role to connect as.
pub(crate) const USER: Setting =
    Setting::new("user", "the role to connect as").with_env(&["DATABASE_USER"]);
/// Its password.
pub(crate) const PASSWORD: Setting = Setting::new("password", "its password")
    .with_env(&["DATABASE_PASSWORD"])
    .secret();
/// How to connect, as the database store has it.
pub(crate) const SSLMODE: Setting = Setting::new(
    "sslmode",
    "verify-full, or disable, which only loopback may have and has by default",
);
/// Further authorities than the system's.
pub(crate) const SSL_ROOT_CERT: Setting = Setting::new(
    "ssl-root-cert",
    "a PEM file of further certificate authorities",
)
.with_env(&["DATABASE_SSL_ROOT_CERT"])
.operator_only();

/// Opens every `--configs` option.
///
/// # Errors
/// For wrong settings, missing tables, columns and files, and a source that is given twice.
pub(crate) async fn open(
    configs: &Configs,
    environment: &Environment,
    purpose: Purpose,
) -> Result<Vec<Arc<dyn ConfigSource>>> {
    let mut sources: Vec<Arc<dyn ConfigSource>> = Vec::new();
    for text in &configs.sources {
        let source = open_one(text, environment, purpose)
            .await
            .map_err(|failure| failure.at(Role::Config.option()))?;
        if sources
            .iter()
            .any(|known| known.to_string() == source.to_string())
        {
            return Err(Failure::input(format!(
                "--configs: {source} is given twice; every configuration would stand there twice"
            )));
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Reads the table of `--references`, where one is given.
///
/// # Errors
/// For wrong settings, and rows that make no sense.
pub(crate) async fn references(
    configs: &Configs,
    environment: &Environment,
) -> Result<Option<Arc<dyn ResolveReferences>>> {
    match &configs.references {
        None => Ok(None),
        Some(text) => {
            let references = references::References::open(text, environment).await?;
            Ok(Some(Arc::new(references)))
        }
    }
}

async fn open_one(
    text: &str,
    environment: &Environment,
    purpose: Purpose,
) -> Result<Arc<dyn ConfigSource>> {
    if !has_scheme(text) {
        return Ok(Arc::new(lines::Lines::open(text, purpose)?));
    }
    let url = address::parse(text, Role::Config)?;
    let settings = address::settings(&url, SETTINGS, Role::Config, environment)?;
    match (settings.text("table"), settings.text("query-file")) {
        (Some(_), None) => {
            let columns = table::Columns::parse(&settings)?;
            let purpose = columns.purpose(purpose);
            let database = Database::open(&url, &settings, Role::Config, purpose).await?;
            Ok(Arc::new(
                table::Table::open(database, columns, purpose).await?,
            ))
        }
        (None, Some(file)) => {
            query::refuse_columns(&settings)?;
            let sql = query::read(file)?;
            let database = Database::open(&url, &settings, Role::Config, Purpose::Read).await?;
            Ok(Arc::new(query::Query::open(database, file, sql).await?))
        }
        _ => Err(Failure::input(format!(
            "{url}: give either table=… or query-file=…"
        ))),
    }
}

/// A URL begins with a scheme; a single letter would be a drive.
fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.len() > 1
            && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// The first of these settings that is given, for those that exclude each other.
fn given<'a>(settings: &Settings, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .copied()
        .find(|name| settings.text(name).is_some())
}

/// A failure of a source in the engine's terms; the failure itself stays the cause, with its status.
fn failed(place: impl Into<String>, failure: Failure) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Configurations,
        "the configurations cannot be used",
    )
    .with_place(place)
    .with_source(failure)
}
