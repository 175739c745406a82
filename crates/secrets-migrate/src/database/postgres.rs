//! Postgres: our own journal, or the platform's configurations.

use std::time::Duration;

use secret_persistence_core::settings::SettingMap;
use secret_persistence_db::PostgresOptions;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::Purpose;
use super::reason::failure;
use crate::{MigrateError, MigrateResult};

/// Connects to the database in the settings.
pub(super) async fn open(settings: &SettingMap, purpose: Purpose) -> MigrateResult<PgPool> {
    let server = PostgresOptions::from_settings(settings).map_err(MigrateError::of_setting)?;
    let mut options = server.to_driver("migrate");
    if matches!(purpose, Purpose::Look | Purpose::Read) {
        options = options.options([("default_transaction_read_only", "on")]);
    }
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(15));
    if purpose == Purpose::Own && is_in_use(&options).await? {
        // Fail immediately: a pool would retry and finally only report a timeout.
        return Err(MigrateError::unavailable(
            "another process is using the journal",
        ));
    }
    let pool = match purpose {
        // One connection, which keeps a session lock. The lock of a killed process disappears with
        // its session.
        Purpose::Own => pool.max_connections(1).after_connect(|connection, _| {
            Box::pin(async move {
                let locked = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                    .bind(JOURNAL_LOCK)
                    .fetch_one(connection)
                    .await?;
                // Check the lock first: another process may have started at the same moment.
                if locked {
                    Ok(())
                } else {
                    Err(sqlx::Error::PoolClosed)
                }
            })
        }),
        Purpose::Look => pool.max_connections(1),
        Purpose::Read | Purpose::Update => pool.max_connections(4),
    };
    pool.connect_with(options)
        .await
        .map_err(|cause| failure("the server", "cannot be reached or refuses us", &cause))
}

/// Whether another process has the lock. The connection that checks releases it when it closes.
async fn is_in_use(options: &PgConnectOptions) -> MigrateResult<bool> {
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
const JOURNAL_LOCK: i64 = 0x006d_6967_7261_7465;
