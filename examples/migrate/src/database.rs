//! The databases that hold configurations, references and journals: text in, text out, on either engine.
//!
//! Every column is read as text (`CAST(… AS TEXT)`) and every parameter bound as text, so that one
//! piece of SQL serves `uuid` and `jsonb` columns as well as SQLite's.

use std::path::Path;
use std::time::Duration;

use secret_persistence_core::settings::{Settings, StoreUrl};
use sqlx::error::DatabaseError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Executor, Row, SqlSafeStr, SqlitePool, Statement,
    TypeInfo,
};
#[cfg(feature = "postgres")]
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

#[cfg(feature = "postgres")]
use crate::address::is_loopback;
use crate::address::sqlite_path;
use crate::environment::Role;
use crate::status::{Failure, Result};

/// One row, every column as text.
pub(crate) type Texts = Vec<Option<String>>;

/// What a database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A file of our own: created where it is missing, and locked against a second process.
    Own,
    /// Somebody else's, to read; the database itself refuses writes.
    Read,
    /// Somebody else's, to update rows that exist.
    Update,
}

/// One column that a query answers.
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
}

#[derive(Debug)]
enum Pool {
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// Runs a piece of code with the pool of whichever engine it is; sqlx's two engines share no trait
/// that could be named in a signature of moderate length.
macro_rules! with_pool {
    ($database:expr, $pool:ident => $body:expr) => {
        match &$database.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres($pool) => $body,
            Pool::Sqlite($pool) => $body,
        }
    };
}

impl Database {
    /// Opens the database of a URL with the settings that were read from it.
    ///
    /// # Errors
    /// For schemes that are no database or not built in, and whatever keeps it from opening.
    pub(crate) async fn open(
        url: &StoreUrl,
        settings: &Settings,
        role: Role,
        purpose: Purpose,
    ) -> Result<Self> {
        let place = |failure: Failure| failure.at(format!("{} {url}", role.option()));
        match url.scheme() {
            "sqlite" => Self::sqlite(&sqlite_path(url).map_err(place)?, purpose)
                .await
                .map_err(|failure| failure.at(role.option())),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => postgres(url, settings, purpose)
                .await
                .map(|pool| Self {
                    name: url.to_string(),
                    pool: Pool::Postgres(pool),
                })
                .map_err(place),
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => {
                let _ = settings;
                Err(place(Failure::input(
                    "Postgres is not built in; add `--features postgres` to the cargo command",
                )))
            }
            other => Err(place(Failure::input(format!(
                "`{other}` is no database; give a sqlite or postgres URL",
            )))),
        }
    }

    /// Opens an SQLite file.
    pub(crate) async fn sqlite(path: &Path, purpose: Purpose) -> Result<Self> {
        let name = path.display().to_string();
        if purpose == Purpose::Own {
            create_private(path)?;
        } else if !path.is_file() {
            return Err(Failure::input(format!("{name}: there is no such file")));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(30))
            .disable_statement_logging();
        let options = match purpose {
            // The lock is the operating system's, so a killed process leaves none behind.
            Purpose::Own => options
                .busy_timeout(Duration::from_secs(2))
                .locking_mode(SqliteLockingMode::Exclusive)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full),
            // Not opened read-only: a WAL database needs its shared memory file to be written.
            Purpose::Read => options.pragma("query_only", "ON"),
            Purpose::Update => options.pragma("secure_delete", "ON"),
        };
        let connections = if purpose == Purpose::Read { 4 } else { 1 };
        SqlitePoolOptions::new()
            .max_connections(connections)
            // A slow disk is no failure.
            .acquire_timeout(Duration::from_secs(600))
            .connect_with(options)
            .await
            .map(|pool| Self {
                name: name.clone(),
                pool: Pool::Sqlite(pool),
            })
            .map_err(|cause| {
                let failed = failure(&name, "cannot be opened", &cause);
                if purpose == Purpose::Own && is_locked(&cause) {
                    failed.hint("another process is using it")
                } else {
                    failed
                }
            })
    }

    /// Whether it is Postgres.
    pub(crate) fn is_postgres(&self) -> bool {
        match self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(_) => true,
            Pool::Sqlite(_) => false,
        }
    }

    /// Where it is, without credentials.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a query and collects its rows, which have to be few.
    pub(crate) async fn few(&self, sql: String, parameters: Vec<String>) -> Result<Vec<Texts>> {
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
                    .map_err(|cause| failure(&name, "a query failed", &cause))?;
                rows.iter()
                    .map(|row| {
                        (0..row.len())
                            .map(|index| row.try_get::<Option<String>, _>(index))
                            .collect::<Result<Texts, sqlx::Error>>()
                            .map_err(|cause| failure(&name, "a row cannot be read", &cause))
                    })
                    .collect()
            })
            .await
        })
    }

    /// Runs a statement and says how many rows it changed.
    pub(crate) async fn execute(&self, sql: String, parameters: Vec<String>) -> Result<u64> {
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
                    .map_err(|cause| failure(&name, "a change failed", &cause))
            })
            .await
        })
    }

    /// The columns that a query would answer.
    pub(crate) async fn columns(&self, sql: String) -> Result<Vec<ColumnInfo>> {
        with_pool!(self, pool => {
            let statement = pool
                .prepare(AssertSqlSafe(sql).into_sql_str())
                .await
                .map_err(|cause| failure(&self.name, "a query cannot be prepared", &cause))?;
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

    /// Closes it, so that SQLite leaves no log beside its file.
    pub(crate) async fn close(&self) {
        with_pool!(self, pool => pool.close().await);
    }
}

/// Runs a piece of work to its end, whether or not somebody polls who waits for it. Among many
/// units of work, one may have the only connection and not be polled while another is waiting for it.
async fn on_its_own<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Err(Failure::failed("a task of the database ended too early")))
}

/// A journal names every secret there is: nobody else needs to read it.
fn create_private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .map(drop)
        .map_err(|cause| crate::private_file::not_written(path, cause))
}

#[cfg(feature = "postgres")]
async fn postgres(url: &StoreUrl, settings: &Settings, purpose: Purpose) -> Result<PgPool> {
    let usage = "write postgres://host:port/database";
    let host = url
        .host()
        .ok_or_else(|| Failure::input(format!("no host; {usage}")))?;
    let database = url.path().trim_start_matches('/');
    if database.is_empty() {
        return Err(Failure::input(format!("no database; {usage}")));
    }
    let user = settings
        .text("user")
        .ok_or_else(|| Failure::input("no user; give user=… in the URL or set DATABASE_USER"))?;
    let ssl_mode = match settings.text("sslmode") {
        None if is_loopback(host) => PgSslMode::Disable,
        None | Some("verify-full") => PgSslMode::VerifyFull,
        Some("disable") if is_loopback(host) => PgSslMode::Disable,
        Some("disable") => {
            return Err(Failure::input(
                "sslmode=disable is for loopback addresses only; leave it out, and give ssl-root-cert for a private authority",
            ));
        }
        Some(_) => return Err(Failure::input("sslmode is verify-full or disable")),
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(host.trim_matches(['[', ']']))
        .port(url.port().unwrap_or(5432))
        .database(database)
        .username(user)
        .application_name("migrate")
        .ssl_mode(ssl_mode)
        .disable_statement_logging();
    if let Some(authority) = settings.text("ssl-root-cert") {
        options = options.ssl_root_cert(authority);
    }
    if let Some(password) = settings.secret("password") {
        options = options.password(password.expose());
    }
    if purpose == Purpose::Read {
        options = options.options([("default_transaction_read_only", "on")]);
    }
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(15));
    if purpose == Purpose::Own && is_in_use(&options).await? {
        // Said at once: a pool would go on trying, and at last say no more than that it took too long.
        return Err(Failure::failed(format!("the server: {JOURNAL_IN_USE}")));
    }
    let pool = match purpose {
        // One connection, which holds a lock of its session: a killed process leaves none behind.
        Purpose::Own => pool.max_connections(1).after_connect(|connection, _| {
            Box::pin(async move {
                let locked = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                    .bind(JOURNAL_LOCK)
                    .fetch_one(connection)
                    .await?;
                if locked {
                    Ok(())
                } else {
                    Err(sqlx::Error::Configuration(JOURNAL_IN_USE.into()))
                }
            })
        }),
        Purpose::Read | Purpose::Update => pool.max_connections(4),
    };
    pool.connect_with(options)
        .await
        .map_err(|cause| failure("the server", "cannot be reached or refuses us", &cause))
}

/// Whether another process has the lock. The connection that asks gives it back as it ends.
#[cfg(feature = "postgres")]
async fn is_in_use(options: &PgConnectOptions) -> Result<bool> {
    use sqlx::Connection;
    let asked = async {
        let mut connection = sqlx::PgConnection::connect_with(options).await?;
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(JOURNAL_LOCK)
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(!locked)
    };
    asked
        .await
        .map_err(|cause| failure("the server", "cannot be reached or refuses us", &cause))
}

/// The key of the advisory lock: `migrate` in ASCII. Locks are per database, as the journal's tables are.
#[cfg(feature = "postgres")]
const JOURNAL_LOCK: i64 = 0x006d_6967_7261_7465;

#[cfg(feature = "postgres")]
const JOURNAL_IN_USE: &str = "another process is using the journal";

/// A failure that keeps what sqlx says only where it cannot quote a value.
pub(crate) fn failure(place: &str, what: &str, cause: &sqlx::Error) -> Failure {
    Failure::failed(format!("{place}: {what}: {}", reason(cause)))
}

/// SQLITE_BUSY, extended codes included. <https://sqlite.org/rescode.html#busy>
fn is_locked(cause: &sqlx::Error) -> bool {
    let code = cause
        .as_database_error()
        .and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// Why sqlx failed, in words that hold no value of a row and no credential.
fn reason(cause: &sqlx::Error) -> String {
    match cause {
        sqlx::Error::Database(database) => of_database(database.as_ref()),
        sqlx::Error::Io(io) => format!("no connection ({})", io.kind()),
        #[cfg(feature = "postgres")]
        sqlx::Error::Configuration(ours) if ours.to_string() == JOURNAL_IN_USE => {
            JOURNAL_IN_USE.into()
        }
        sqlx::Error::PoolTimedOut => "no connection within the time limit".into(),
        sqlx::Error::Tls(_) => "TLS failed; for a private authority give ssl-root-cert".into(),
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} is no text"),
        sqlx::Error::PoolClosed => "it is closed".into(),
        sqlx::Error::WorkerCrashed => "the database's thread ended".into(),
        _ => "an unexpected answer".into(),
    }
}

/// SQLite's messages name tables, columns and conditions; Postgres quotes values in class 22 and 23.
fn of_database(error: &dyn DatabaseError) -> String {
    let code = error.code().unwrap_or_default();
    let quotes_values = code.len() == 5 && (code.starts_with("22") || code.starts_with("23"));
    if quotes_values {
        format!("SQLSTATE {code}")
    } else {
        format!("{} (code {code})", error.message())
    }
}
