//! The outbox that several replicas share: a Postgres database.

use std::time::Duration;

use secret_persistence::database::PostgresOptions;
use secret_persistence::{SecretValue, Timestamp};
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use uuid::Uuid;

use super::sql::{self, impl_outbox};
use super::{
    After, Change, ChangeKind, Count, Idempotency, Inserted, Outbox, OutboxError, Result, State,
};

/// Two replicas that start together make the tables one after the other. Any number.
const ADVISORY_LOCK: i64 = 0x6a7e_3a90_0b0c;

/// An outbox in Postgres.
#[derive(Debug)]
pub struct PostgresOutbox {
    pool: PgPool,
}

impl PostgresOutbox {
    /// Opens the database and makes the tables where they are missing.
    ///
    /// # Errors
    /// Where the URL is not valid or switches TLS off for a server elsewhere, and where the database cannot
    /// be used.
    pub async fn open(url: &SecretValue) -> Result<Self> {
        let options = PostgresOptions::from_url(url)
            .map_err(|error| OutboxError::new("`outbox-url` is refused").with_source(error))?;
        let pool = PgPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.to_driver("secret-gateway"))
            .await
            .map_err(|error| OutboxError::new("Postgres cannot be reached").with_source(error))?;
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
            OutboxError::new("its tables cannot be made").with_source(error)
        })?;
        Ok(Self { pool })
    }
}

impl_outbox!(PostgresOutbox, PgRow);
