//! The caller's rows in an SQLite file, which several processes may share.

use std::path::Path;
use std::time::Duration;

use secret_persistence_core::connector::{
    Ended, Lease, RecordState, RefreshRecord, RefreshSaved, Taken,
};
use secret_persistence_core::{Error, ErrorKind, Result};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, Sqlite, Transaction};

use super::RowTable;
use super::sql::{self, Statements, add, end, impl_refresh_rows, parsed, unreadable, written};
use crate::error::{SQLITE, from_sqlx};

const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS BIGINT)";

/// How long to wait for other processes that write.
const BUSY: Duration = Duration::from_secs(30);

/// Rows in an SQLite file: [`RefreshRows`](secret_persistence_core::connector::RefreshRows) for
/// [`refresh`](secret_persistence_core::connector::ActingSecrets::refresh).
///
/// It keeps leases and open records in the table `secret_refreshes`, and its outbox in
/// `secret_refresh_outbox`, in the same file, because a save changes all of them in one
/// transaction.
#[derive(Debug)]
pub struct SqliteRefreshRows {
    pool: SqlitePool,
    sql: Statements,
}

impl SqliteRefreshRows {
    /// Opens the caller's file, which must exist, in WAL mode, and creates the two tables if they
    /// are missing.
    ///
    /// # Errors
    /// If the file is missing or cannot be used.
    pub async fn open(path: &Path, table: &RowTable) -> Result<Self> {
        if !path.is_file() {
            let message = format!("the file {} does not exist", path.display());
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_hint("check the path"));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY)
            .journal_mode(SqliteJournalMode::Wal)
            // A record must survive a power failure: it is all that finds a new token.
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(BUSY)
            .connect_with(options)
            .await
            .map_err(failed)?;
        let same = |parameter: &str| parameter.to_owned();
        let rows = Self {
            pool,
            sql: Statements::new(table, NOW, same, same),
        };
        let mut transaction = rows.begin().await?;
        sqlx::raw_sql(sql::SCHEMA)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(rows)
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        // A transaction that begins as a reader and becomes a writer fails after another commit.
        self.pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)
    }
}

impl_refresh_rows!(SqliteRefreshRows, failed);

fn failed(error: sqlx::Error) -> Error {
    from_sqlx("sqlite", SQLITE, &error)
}
