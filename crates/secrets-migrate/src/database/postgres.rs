//! Postgres: a journal of our own, or somebody else's configurations.

use std::time::Duration;

use secret_persistence_core::settings::{SettingMap, StoreUrl, is_loopback};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, PgPool};

use super::Purpose;
use super::reason::failure;
use crate::{MigrateError, MigrateResult};

/// Connects to the database of a URL.
pub(super) async fn open(
    url: &StoreUrl,
    settings: &SettingMap,
    purpose: Purpose,
) -> MigrateResult<PgPool> {
    let usage = "write postgres://host:port/database";
    let host = url
        .host()
        .ok_or_else(|| MigrateError::settings(format!("no host; {usage}")))?;
    let database = url.path().trim_start_matches('/');
    if database.is_empty() {
        return Err(MigrateError::settings(format!("no database; {usage}")));
    }
    let user = settings.text("user").ok_or_else(|| {
        MigrateError::settings("no user; give user=… in the URL or set DATABASE_USER")
    })?;
    let ssl_mode = match settings.text("sslmode") {
        None if is_loopback(host) => PgSslMode::Disable,
        None | Some("verify-full") => PgSslMode::VerifyFull,
        Some("disable") if is_loopback(host) => PgSslMode::Disable,
        Some("disable") => {
            return Err(MigrateError::settings(
                "sslmode=disable is for loopback addresses only; leave it out, and give ssl-root-cert for a private authority",
            ));
        }
        Some(_) => return Err(MigrateError::settings("sslmode is verify-full or disable")),
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(host.trim_matches(['[', ']']))
        .port(url.port().unwrap_or(5432))
        .database(database)
        .username(user)
        .application_name("migrate")
        .ssl_mode(ssl_mode)
        // PgBouncer refuses it, and no column is a float.
        .extra_float_digits(None)
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
        return Err(MigrateError::unavailable(
            "another process is using the journal",
        ));
    }
    let pool = match purpose {
        // One connection, which holds a lock of its session: a killed process leaves none behind.
        Purpose::Own => pool.max_connections(1).after_connect(|connection, _| {
            Box::pin(async move {
                let locked = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                    .bind(JOURNAL_LOCK)
                    .fetch_one(connection)
                    .await?;
                // Asked before: whoever has it now began at the same moment.
                if locked {
                    Ok(())
                } else {
                    Err(sqlx::Error::PoolClosed)
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
