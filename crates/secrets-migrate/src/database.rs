//! The databases of configurations, references and journals: text in and text out, on SQLite and
//! Postgres.
//!
//! Every column is read as text (`CAST(… AS TEXT)`) and every parameter is bound as text, so that
//! the same SQL works for `uuid` and `jsonb` columns as well as for SQLite.

#[cfg(feature = "postgres")]
mod postgres;
mod reason;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(all(test, feature = "postgres"))]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use secret_persistence_core::settings::{KeyTable, Setting, SettingMap, StoreUrl};
#[cfg(feature = "postgres")]
use sqlx::PgPool;
#[cfg(feature = "sqlite")]
use sqlx::SqlitePool;
use sqlx::{AssertSqlSafe, Column, Executor, Row, SqlSafeStr, Statement, TypeInfo};

use crate::address::Variables;
use crate::{MigrateError, MigrateResult};

/// The settings of a Postgres server: the same rows as for the database store, so that stores,
/// configurations and journals connect in the same way.
#[cfg(feature = "postgres")]
pub(crate) const SERVER: &[Setting] = &secret_persistence_db::POSTGRES_SETTINGS;
/// Without Postgres there are none.
#[cfg(not(feature = "postgres"))]
pub(crate) const SERVER: &[Setting] = &[];

const POSTGRES_IS_ABSENT: &str =
    "Postgres is not built in; add `--features postgres` to the cargo command";

/// Extends a table of settings with those of a server.
pub(crate) const fn with_server<const ALL: usize>(own: &[Setting]) -> [Setting; ALL] {
    assert!(ALL == own.len() + SERVER.len(), "rows are missing");
    let mut all = [Setting::new("", ""); ALL];
    let mut row = 0;
    while row < ALL {
        all[row] = if row < own.len() {
            own[row]
        } else {
            SERVER[row - own.len()]
        };
        row += 1;
    }
    all
}

/// Reads settings from a database URL, then from the environment. The table ends with [`SERVER`].
///
/// # Errors
/// For databases that are not built in, unknown parameters, and secrets in the URL.
pub(crate) fn settings(
    url: &StoreUrl,
    table: &'static [Setting],
    variables: Variables<'_>,
) -> MigrateResult<SettingMap> {
    if !cfg!(feature = "postgres") && url.scheme().starts_with("postgres") {
        return Err(MigrateError::settings(POSTGRES_IS_ABSENT).within(url));
    }
    let table = KeyTable::new(&["sqlite", "postgres", "postgresql"], table, place);
    #[cfg(feature = "postgres")]
    let table = table.with_reads(secret_persistence_db::PostgresOptions::reads);
    table
        .from_url(url, variables)
        .map_err(|error| MigrateError::of_setting(error).within(url))
}

/// The settings in the URL outside its query.
fn place(url: &StoreUrl, settings: &mut SettingMap) -> secret_persistence_core::Result<()> {
    if url.scheme() == "sqlite" {
        return match SERVER.iter().find(|row| settings.is_set(row.name)) {
            Some(row) => Err(secret_persistence_core::Error::new(
                secret_persistence_core::ErrorKind::InvalidConfig,
                format!("`{}` applies to Postgres only", row.name),
            )),
            None => Ok(()),
        };
    }
    #[cfg(feature = "postgres")]
    return secret_persistence_db::PostgresOptions::read_url(url, settings);
    #[cfg(not(feature = "postgres"))]
    Ok(())
}

/// The key of a journal's advisory lock: `migrate` in ASCII. Locks are per database, as the journal's
/// tables are.
pub(crate) const JOURNAL_LOCK: i64 = 0x006d_6967_7261_7465;

/// The key of the lock under which the journal's tables are created.
const CREATION_LOCK: i64 = JOURNAL_LOCK + 1;

/// One row, every column as text.
pub(crate) type Texts = Vec<Option<String>>;

/// The purpose for which a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Our own file or tables: created if missing, and locked against a second process.
    Own,
    /// Our own tables with other processes, where the database can have them; otherwise as `Own`.
    Share,
    /// Another process's database, to read at once or not at all.
    Look,
    /// Another application's database, to read. The database itself refuses writes.
    Read,
    /// Another application's database, to update existing rows.
    Update,
}

/// One result column of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnInfo {
    /// Its name.
    pub(crate) name: String,
    /// Its type in the database's spelling, upper case.
    pub(crate) kind: String,
}

/// A database that is open.
#[derive(Debug)]
pub(crate) struct Database {
    name: String,
    pool: Pool,
    sessions: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Pool {
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
    #[cfg(feature = "sqlite")]
    Sqlite(SqlitePool),
}

/// Runs code with the pool of either engine. The two engines of sqlx do not share a trait that a
/// reasonably short signature could name.
macro_rules! with_pool {
    ($database:expr, $pool:ident => $body:expr) => {
        match &$database.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres($pool) => $body,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite($pool) => $body,
        }
    };
}

impl Database {
    /// Opens the database of a URL with the settings that were read from it.
    ///
    /// # Errors
    /// For schemes of other databases or databases that are not built in, and if it does not open.
    pub(crate) async fn open(
        url: &StoreUrl,
        settings: &SettingMap,
        purpose: Purpose,
    ) -> MigrateResult<Self> {
        match url.scheme() {
            "sqlite" => {
                let file = url.file().map_err(MigrateError::of_setting)?;
                Self::sqlite(file.as_ref(), purpose).await
            }
            "postgres" | "postgresql" => Self::postgres(url, settings, purpose).await,
            other => Err(MigrateError::settings(format!(
                "`{other}` is not a supported database; use a sqlite or postgres URL",
            ))),
        }
        .map_err(|error| {
            if error.place().is_some() {
                error
            } else {
                error.within(url)
            }
        })
    }

    #[cfg(feature = "postgres")]
    async fn postgres(
        url: &StoreUrl,
        settings: &SettingMap,
        purpose: Purpose,
    ) -> MigrateResult<Self> {
        let sessions = Arc::default();
        Ok(Self {
            name: url.to_string(),
            pool: Pool::Postgres(postgres::open(settings, purpose, &sessions).await?),
            sessions,
        })
    }

    #[cfg(not(feature = "postgres"))]
    async fn postgres(_: &StoreUrl, _: &SettingMap, _: Purpose) -> MigrateResult<Self> {
        Err(MigrateError::settings(POSTGRES_IS_ABSENT))
    }

    /// Opens an SQLite file.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn sqlite(path: &std::path::Path, purpose: Purpose) -> MigrateResult<Self> {
        Ok(Self {
            name: path.display().to_string(),
            pool: Pool::Sqlite(sqlite::open(path, purpose).await?),
            sessions: Arc::default(),
        })
    }

    #[cfg(not(feature = "sqlite"))]
    pub(crate) async fn sqlite(_: &std::path::Path, _: Purpose) -> MigrateResult<Self> {
        Err(MigrateError::settings(
            "SQLite is not built in; add `--features sqlite` to the cargo command",
        ))
    }

    /// Whether it is Postgres.
    pub(crate) fn is_postgres(&self) -> bool {
        match self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(_) => true,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(_) => false,
        }
    }

    /// The number of sessions that held a lock in it: one more after each that was lost.
    pub(crate) fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Acquire)
    }

    /// Its location, without credentials.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a query and collects its rows; there must be few.
    pub(crate) async fn few(
        &self,
        sql: String,
        parameters: Vec<String>,
    ) -> MigrateResult<Vec<Texts>> {
        with_pool!(self, pool => {
            let (pool, name) = (pool.clone(), self.name.clone());
            on_its_own(async move {
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for parameter in parameters {
                    query = query.bind(parameter);
                }
                let rows = query
                    .fetch_all(&pool)
                    .await
                    .map_err(|cause| reason::failure(&name, "a query failed", &cause))?;
                rows.iter()
                    .map(|row| {
                        (0..row.len())
                            .map(|index| row.try_get::<Option<String>, _>(index))
                            .collect::<Result<Texts, sqlx::Error>>()
                            .map_err(|cause| reason::failure(&name, "a row cannot be read", &cause))
                    })
                    .collect()
            })
            .await
        })
    }

    /// Runs a statement and returns the number of changed rows.
    pub(crate) async fn execute(&self, sql: String, parameters: Vec<String>) -> MigrateResult<u64> {
        with_pool!(self, pool => {
            let (pool, name) = (pool.clone(), self.name.clone());
            on_its_own(async move {
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for parameter in parameters {
                    query = query.bind(parameter);
                }
                query
                    .execute(&pool)
                    .await
                    .map(|done| done.rows_affected())
                    .map_err(|cause| reason::failure(&name, "a change failed", &cause))
            })
            .await
        })
    }

    /// Runs statements without parameters, all or none.
    pub(crate) async fn script(&self, sql: String) -> MigrateResult<()> {
        with_pool!(self, pool => {
            let (pool, name) = (pool.clone(), self.name.clone());
            on_its_own(async move {
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .execute(&pool)
                    .await
                    .map(drop)
                    .map_err(|cause| reason::failure(&name, "a change failed", &cause))
            })
            .await
        })
    }

    /// The number of these tables of our own that exist.
    pub(crate) async fn tables(&self, tables: &[(&str, &str)]) -> MigrateResult<usize> {
        let names: Vec<String> = tables
            .iter()
            .map(|(name, _)| format!("('{name}')"))
            .collect();
        let is_there = if self.is_postgres() {
            "to_regclass(wanted.column1) IS NOT NULL"
        } else {
            "wanted.column1 IN (SELECT name FROM sqlite_master WHERE type = 'table')"
        };
        let sql = format!(
            "SELECT '' FROM (VALUES {}) AS wanted WHERE {is_there}",
            names.join(", ")
        );
        self.few(sql, Vec::new()).await.map(|rows| rows.len())
    }

    /// The script that creates those that are missing, each with its columns.
    pub(crate) fn creation(&self, tables: &[(&str, &str)]) -> String {
        let (mut script, collation, order) = if self.is_postgres() {
            // Two that create the same table in one moment would fail.
            let first = format!("SELECT pg_advisory_xact_lock({CREATION_LOCK});");
            (first, " COLLATE \"C\"", "")
        } else {
            // Rows in the order of their key: what is read and changed together is in few pages of
            // the file, and each of them is written as a whole.
            (String::new(), "", " WITHOUT ROWID")
        };
        for (name, columns) in tables {
            let columns = columns.replace("{collation}", collation);
            script.push_str(&format!(
                "CREATE TABLE IF NOT EXISTS {name} ({columns}){order};"
            ));
        }
        script
    }

    /// The result columns of a query.
    pub(crate) async fn columns(&self, sql: String) -> MigrateResult<Vec<ColumnInfo>> {
        with_pool!(self, pool => {
            let statement = pool
                .prepare(AssertSqlSafe(sql).into_sql_str())
                .await
                .map_err(|cause| reason::of_preparing(&self.name, &cause))?;
            Ok(statement
                .columns()
                .iter()
                .map(|column| ColumnInfo {
                    name: column.name().to_owned(),
                    kind: column.type_info().name().to_ascii_uppercase(),
                })
                .collect())
        })
    }

    /// Removes the file of a database that has no table, while nobody else can have it: call before
    /// closing. Does nothing on a server.
    pub(crate) async fn remove_if_empty(&self) -> MigrateResult<()> {
        if self.is_postgres() {
            return Ok(());
        }
        let tables = "SELECT name FROM sqlite_master LIMIT 1";
        if !self.few(tables.into(), Vec::new()).await?.is_empty() {
            return Ok(());
        }
        // SQLite would leave the log of a file that it does not find again.
        self.few("PRAGMA journal_mode = DELETE".into(), Vec::new())
            .await?;
        std::fs::remove_file(&self.name).map_err(|cause| {
            MigrateError::unavailable("the file is not removed").with_source(cause)
        })
    }

    /// Closes it, so that SQLite leaves no log beside its file.
    pub(crate) async fn close(&self) {
        with_pool!(self, pool => pool.close().await);
    }
}

/// Runs work to its end even if the waiting task is not polled. Otherwise, one of several
/// concurrent units could keep the only connection without being polled while another one waits for
/// it.
async fn on_its_own<T: Send + 'static>(
    work: impl Future<Output = MigrateResult<T>> + Send + 'static,
) -> MigrateResult<T> {
    tokio::spawn(work).await.unwrap_or_else(|_| {
        Err(MigrateError::unavailable(
            "a task of the database ended too early",
        ))
    })
}
