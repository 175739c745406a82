//! The outbox of a single process, in an SQLite file.

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

/// An outbox in an SQLite file, for a single process.
#[derive(Debug)]
pub struct SqliteOutbox {
    pool: SqlitePool,
    /// An operating system lock, so that a killed process leaves no lock behind.
    _lock: File,
}

impl SqliteOutbox {
    /// Opens the file, creating it if it is missing, for this process only. Changes that an earlier
    /// process was staging are abandoned.
    ///
    /// # Errors
    /// If another process uses it, or it cannot be opened.
    pub async fn open(path: &Path) -> Result<Self> {
        let unlocked = |error| OutboxError::new("cannot open its lock file").with_source(error);
        let lock = private(&path.with_extension("lock"), false).map_err(unlocked)?;
        lock.try_lock().map_err(|_| {
            OutboxError::new(
                "another process uses it; set `outbox-url` to share an outbox in Postgres",
            )
        })?;
        private(path, false).map_err(unlocked)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(30))
            .journal_mode(SqliteJournalMode::Wal)
            // Responses to callers must be on disk.
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let opening = |error| OutboxError::new("cannot open the file").with_source(error);
        let pool = SqlitePoolOptions::new()
            // A single writer. Several would only wait for each other.
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
