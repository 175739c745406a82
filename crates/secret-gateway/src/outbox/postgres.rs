//! The outbox that several replicas share, in a Postgres database.

use std::time::Duration;

use secret_persistence::database::PostgresOptions;
use secret_persistence::{SecretValue, Timestamp};
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use uuid::Uuid;

use super::sql::{self, impl_outbox};
use super::{
    After, Change, ChangeKind, Count, Idempotency, Inserted, Outbox, OutboxError, Result, State,
};

/// Two replicas that start together create the tables one after the other. Any number works.
const ADVISORY_LOCK: i64 = 0x6a7e_3a90_0b0c;

/// An outbox in Postgres.
#[derive(Debug)]
pub struct PostgresOutbox {
    pool: PgPool,
}

impl PostgresOutbox {
    /// Opens the database and creates missing tables.
    ///
    /// # Errors
    /// If the URL is invalid or disables TLS for a remote server, or if the database cannot be
    /// used.
    pub async fn open(url: &SecretValue) -> Result<Self> {
        let options = PostgresOptions::from_url(url)
            .map_err(|error| OutboxError::new("`outbox-url` is refused").with_source(error))?;
        let pool = PgPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.to_driver("secret-gateway"))
            .await
            .map_err(|error| OutboxError::new("cannot connect to Postgres").with_source(error))?;
        let made = async {
            let mut transaction = pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)")
                .bind(ADVISORY_LOCK)
                .execute(&mut *transaction)
                .await?;
            sqlx::raw_sql(sql::SCHEMA)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        };
        made.await.map_err(|error: sqlx::Error| {
            OutboxError::new("cannot create its tables").with_source(error)
        })?;
        Ok(Self { pool })
    }
}

impl_outbox!(PostgresOutbox, PgRow);
