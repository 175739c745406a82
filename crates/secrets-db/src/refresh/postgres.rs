//! The caller's rows in Postgres.

use std::time::Duration;

use secret_persistence_core::connector::{
    Ended, Lease, RecordState, RefreshRecord, RefreshSaved, Taken,
};
use secret_persistence_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Postgres, Row as _, Transaction};

use super::RowTable;
use super::sql::{self, Statements, add, end, impl_refresh_rows, parsed, unreadable, written};
use crate::error::{POSTGRES, from_sqlx};
use crate::postgres_options::PostgresOptions;

/// Not the time of the transaction's begin: it may have waited for a lock.
const NOW: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// Two processes that start together create the tables one after the other. Any number works.
const ADVISORY_LOCK: i64 = 0x5ec7_e75d_b002;

/// Rows in Postgres: [`RefreshRows`](secret_persistence_core::connector::RefreshRows) for
/// [`refresh`](secret_persistence_core::connector::ActingSecrets::refresh).
///
/// It keeps leases and open records in the table `secret_refreshes`, and its outbox in
/// `secret_refresh_outbox`, in the same database, because a save changes all of them in one
/// transaction. Connect with a role that may read and update the caller's table, and create tables
/// at the first start.
#[derive(Debug)]
pub struct PostgresRefreshRows {
    pool: PgPool,
    sql: Statements,
}

impl PostgresRefreshRows {
    /// Connects to the caller's database, and creates the two tables if they are missing.
    ///
    /// # Errors
    /// If the database cannot be used, or lacks the table or one of its columns.
    pub async fn connect(options: &PostgresOptions, table: &RowTable) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options.to_driver("secret-refresh"))
            .await
            .map_err(failed)?;
        let columns = sqlx::query(
            // Without the length: an explicit cast to it would cut text off where an assignment fails.
            "SELECT attname::text AS name, format_type(atttypid, -1) AS kind
             FROM pg_attribute
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
        )
        .bind(table.table.quoted())
        .fetch_all(&pool)
        .await
        .map_err(failed)?;
        let kind = |column: &str| -> Result<String> {
            for row in &columns {
                if row.try_get::<String, _>("name").map_err(failed)? == column {
                    return row.try_get("kind").map_err(failed);
                }
            }
            let message = format!("the table {} has no column `{column}`", table.table);
            Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_hint("check the names of the table and its columns"))
        };
        kind(&table.revision)?;
        let (id, configuration) = (kind(&table.id)?, kind(&table.configuration)?);
        let cast = |kind: String| {
            move |parameter: &str| format!("CAST(CAST({parameter} AS TEXT) AS {kind})")
        };
        let rows = Self {
            pool,
            sql: Statements::new(table, NOW, cast(id), cast(configuration)),
        };
        let found = sqlx::query("SELECT to_regclass('secret_refresh_outbox') IS NOT NULL")
            .fetch_one(&rows.pool)
            .await
            .and_then(|row| row.try_get::<bool, _>(0))
            .map_err(failed)?;
        if !found {
            rows.create().await?;
        }
        Ok(rows)
    }

    async fn create(&self) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(ADVISORY_LOCK)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        sqlx::raw_sql(sql::SCHEMA)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        self.pool.begin().await.map_err(failed)
    }
}

impl_refresh_rows!(PostgresRefreshRows, failed);

fn failed(error: sqlx::Error) -> Error {
    from_sqlx("postgres", POSTGRES, &error)
}
