//! SQLite files: our own journal, or the platform's configurations.
use std::fs::{Metadata, OpenOptions};
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, SqlitePool};

use super::Purpose;
use super::reason::failure;
use crate::private_file::{not_trusted, open_own};
use crate::{MigrateError, MigrateResult};

/// Opens a file.
pub(super) async fn open(path: &Path, purpose: Purpose) -> MigrateResult<SqlitePool> {
    let name = path.display().to_string();
    let own = match purpose {
        Purpose::Own | Purpose::Share => Some(create_private(path)?),
        Purpose::Look | Purpose::Read | Purpose::Update => None,
    };
    if own.is_none() && !path.is_file() {
        return Err(MigrateError::settings("there is no such file").with_place(name));
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(30))
        // A page of configurations, so that the thread that reads does not wait for the one that takes the rows.
        .row_buffer_size(1_000)
        .disable_statement_logging();
    let options = match purpose {
        // An operating system lock, so that a killed process leaves no lock behind.
        Purpose::Own | Purpose::Share => options
            .busy_timeout(Duration::from_secs(2))
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full),
        Purpose::Look => options
            .busy_timeout(Duration::from_millis(500))
            .pragma("query_only", "ON"),
        // Not opened read-only: a WAL database needs its shared memory file to be written.
        Purpose::Read => options.pragma("query_only", "ON"),
        Purpose::Update => options.pragma("secure_delete", "ON"),
    };
    let connections = if purpose == Purpose::Read { 4 } else { 1 };
    let pool = SqlitePoolOptions::new()
        .max_connections(connections)
        // A slow disk is not an error.
        .acquire_timeout(Duration::from_secs(600))
        .connect_with(options)
        .await
        .map_err(|cause| {
            let failed = failure(&name, "cannot be opened", &cause);
            if matches!(purpose, Purpose::Look | Purpose::Own | Purpose::Share) && is_locked(&cause)
            {
                failed.with_hint("another process is using it")
            } else {
                failed
            }
        })?;
    // The previous holder of the lock may have removed the file when it ended.
    if own.is_some_and(|own| path.metadata().ok().as_ref().map(inode) != Some(own)) {
        return Err(
            MigrateError::unavailable("another process has just removed it")
                .with_place(name)
                .with_hint("start again"),
        );
    }
    Ok(pool)
}

/// Creates the file for its owner only, because a journal names every secret. Returns the file's
/// identity and keeps no handle open: closing one would release SQLite's locks on the same file.
fn create_private(path: &Path) -> MigrateResult<(u64, u64)> {
    open_own(
        path,
        OpenOptions::new().write(true).create(true).truncate(false),
    )
    .and_then(|file| file.metadata())
    .map(|metadata| inode(&metadata))
    .map_err(|cause| not_trusted(path, cause))
}

/// Device and number of a file. Elsewhere than on Unix an open file cannot be removed.
fn inode(metadata: &Metadata) -> (u64, u64) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        (0, 0)
    }
}

/// SQLITE_BUSY, extended codes included. <https://sqlite.org/rescode.html#busy>
fn is_locked(cause: &sqlx::Error) -> bool {
    let code = cause
        .as_database_error()
        .and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}
