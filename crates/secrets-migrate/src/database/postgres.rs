//! Postgres: our own journal, or the platform's configurations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secret_persistence_core::settings::SettingMap;
use secret_persistence_db::PostgresOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};

use super::reason::failure;
use super::{JOURNAL_LOCK, Purpose};
use crate::{MigrateError, MigrateResult};

/// How long to wait for a connection.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long to wait before the lock of a shared journal is tried again.
const BETWEEN: Duration = Duration::from_millis(100);

/// Connects to the database in the settings,
/// and counts the sessions that hold the lock of a journal.
pub(super) async fn open(
    settings: &SettingMap,
    purpose: Purpose,
    sessions: &Arc<AtomicU64>,
) -> MigrateResult<PgPool> {
    let server = PostgresOptions::from_settings(settings).map_err(MigrateError::of_setting)?;
    let mut options = server.to_driver("migrate");
    let mut read_only_by_statement = false;
    if matches!(purpose, Purpose::Look | Purpose::Read) {
        let read_only = options
            .clone()
            .options([("default_transaction_read_only", "on")]);
        if is_kept_from_the_server(&read_only).await? {
            // A session that others get after us must not stay read-only.
            own_session(&options, "a source that is only read").await?;
            read_only_by_statement = true;
        } else {
            options = read_only;
        }
    }
    let pool = PgPoolOptions::new().acquire_timeout(PATIENCE);
    if matches!(purpose, Purpose::Own | Purpose::Share) {
        expect_free(&options, purpose).await?;
    }
    let pool = match purpose {
        // One connection, which keeps a session lock. The lock of a killed process disappears with
        // its session.
        Purpose::Own | Purpose::Share => {
            // Nor is the connection replaced because it is old or idle.
            let pool = pool
                .max_connections(1)
                .max_lifetime(None)
                .idle_timeout(None);
            let sessions = Arc::clone(sessions);
            pool.after_connect(move |connection, _| {
                let sessions = Arc::clone(&sessions);
                Box::pin(async move {
                    let lock = match purpose {
                        // Waits for one that has it alone for a moment; the pool gives up in time.
                        Purpose::Share => {
                            "SELECT CAST(pg_advisory_lock_shared($1) AS TEXT) IS NOT NULL"
                        }
                        _ => "SELECT pg_try_advisory_lock($1)",
                    };
                    let locked = sqlx::query_scalar(lock)
                        .bind(JOURNAL_LOCK)
                        .fetch_one(connection)
                        .await?;
                    // Check the lock first: another process may have started at the same moment.
                    if locked {
                        sessions.fetch_add(1, Ordering::Release);
                        Ok(())
                    } else {
                        Err(sqlx::Error::PoolClosed)
                    }
                })
            })
        }
        Purpose::Look => pool.max_connections(1),
        Purpose::Read | Purpose::Update => pool.max_connections(4),
    };
    let pool = match read_only_by_statement {
        true => pool.after_connect(|connection, _| {
            Box::pin(async move {
                let read_only = "SET default_transaction_read_only = on";
                sqlx::raw_sql(read_only).execute(connection).await.map(drop)
            })
        }),
        false => pool,
    };
    pool.connect_with(options).await.map_err(unreachable)
}

/// Refuses a journal that another process has, and a pooler that would give its lock to others.
///
/// A process that shares a journal has it alone for a moment when it opens or leaves it, so another
/// that wants to share it waits a little.
async fn expect_free(options: &PgConnectOptions, purpose: Purpose) -> MigrateResult<()> {
    let what = "a journal, because all its clients would share the journal's lock";
    let mut connection = own_session(options, what).await?;
    // The lock ends with the statement, which is not a prepared one: a pooler may do something else than
    // what `own_session` saw.
    let (kind, tries) = match purpose {
        Purpose::Share => ("_shared", 20),
        _ => ("", 1),
    };
    for attempt in 0..tries {
        if attempt > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        let lock = format!("SELECT pg_try_advisory_xact_lock{kind}({JOURNAL_LOCK})");
        let asked = sqlx::raw_sql(AssertSqlSafe(lock)).fetch_one(&mut connection);
        let free = asked.await.and_then(|row| row.try_get::<bool, _>(0));
        if free.map_err(unreachable)? {
            return Ok(());
        }
    }
    // Fail immediately: a pool would retry and finally only report a timeout.
    Err(MigrateError::unavailable(
        "another process is using the journal",
    ))
}

/// A connection with a session that no other client gets.
///
/// A pooler in transaction mode gives the sessions of the server to whichever client asks next: then two
/// clients see one session, or one client sees several.
async fn own_session(options: &PgConnectOptions, what: &str) -> MigrateResult<PgConnection> {
    let mut first = connect(options).await.map_err(unreachable)?;
    let mut second = connect(options).await.map_err(unreachable)?;
    let (one, other) = (process(&mut first).await?, process(&mut second).await?);
    let mut shared = one == other;
    // A busy pooler may have had two sessions to give.
    for _ in 0..3 {
        shared |= process(&mut second).await? != other || process(&mut first).await? != one;
    }
    if shared {
        return Err(MigrateError::settings(format!(
            "a pooler in transaction mode cannot be used for {what}; connect to the server itself, or to a \
             pooler in session mode"
        )));
    }
    Ok(first)
}

/// The server's process that serves the connection, asked without a prepared statement: a pooler may mix
/// those up.
async fn process(connection: &mut PgConnection) -> MigrateResult<i32> {
    let asked = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection);
    let process = asked.await.and_then(|row| row.try_get(0));
    process.map_err(unreachable)
}

/// Whether a pooler refuses a parameter of the start or drops it. PgBouncer knows only a few, and drops
/// those that it is told to ignore.
async fn is_kept_from_the_server(read_only: &PgConnectOptions) -> MigrateResult<bool> {
    let mut connection = match connect(read_only).await {
        Ok(connection) => connection,
        Err(error) if refuses_protocol(&error) => return Ok(true),
        Err(error) => return Err(unreachable(error)),
    };
    let asked = sqlx::raw_sql("SHOW default_transaction_read_only").fetch_one(&mut connection);
    let setting: String = asked
        .await
        .and_then(|row| row.try_get(0))
        .map_err(unreachable)?;
    Ok(setting != "on")
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let connection = tokio::time::timeout(PATIENCE, PgConnection::connect_with(options));
    connection.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

fn refuses_protocol(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    database.is_some_and(|database| database.code().as_deref() == Some("08P01"))
}

fn unreachable(cause: sqlx::Error) -> MigrateError {
    failure("the server", "cannot be reached or refuses us", &cause)
}
