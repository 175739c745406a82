//! The outbox of one process: an SQLite file.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use secret_persistence::Timestamp;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use uuid::Uuid;

use super::sql::{self, impl_outbox};
use super::{
    After, Change, ChangeKind, Count, Idempotency, Inserted, Outbox, OutboxError, Result, State,
};
use crate::tokens::private;

/// An outbox in an SQLite file, which one process has.
#[derive(Debug)]
pub struct SqliteOutbox {
    pool: SqlitePool,
    /// The operating system's lock, so that a killed process leaves none behind.
    _lock: File,
}

impl SqliteOutbox {
    /// Opens the file, made where it is missing, for this process alone. What another process, which
    /// is gone, was staging is abandoned.
    ///
    /// # Errors
    /// Where another process has it, or it cannot be opened.
    pub async fn open(path: &Path) -> Result<Self> {
        let unlocked = |error| {
            OutboxError::new("the file next to it that only one process may lock cannot be opened")
                .with_source(error)
        };
        let lock = private(&path.with_extension("lock"), false).map_err(unlocked)?;
        lock.try_lock().map_err(|_| {
            OutboxError::new(
                "another process has it; replicas share one in Postgres, by `outbox-url`",
            )
        })?;
        private(path, false).map_err(unlocked)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(30))
            .journal_mode(SqliteJournalMode::Wal)
            // What a caller was told is on the disk.
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let opening = |error| OutboxError::new("the file cannot be opened").with_source(error);
        let pool = SqlitePoolOptions::new()
            // One writer: several would only wait for each other in worse order.
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options)
            .await
            .map_err(opening)?;
        sqlx::raw_sql(sql::SCHEMA)
            .execute(&pool)
            .await
            .map_err(opening)?;
        let outbox = Self { pool, _lock: lock };
        outbox
            .abandon_stale(Timestamp::now().saturating_add(Duration::MAX))
            .await?;
        Ok(outbox)
    }
}

impl_outbox!(SqliteOutbox, SqliteRow);
