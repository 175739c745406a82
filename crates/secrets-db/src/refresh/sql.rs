//! The schema and the statements of both databases.

use std::time::Duration;

use super::RowTable;
use crate::naming::quote;

/// The tables. Times are milliseconds since 1970 by the database's clock.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS secret_refreshes (
    row_id TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    record TEXT
);
CREATE TABLE IF NOT EXISTS secret_refresh_outbox (
    id TEXT PRIMARY KEY,
    record TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('abandoned', 'saved'))
);";

pub(super) const RELEASE: &str =
    "UPDATE secret_refreshes SET expires = 0 WHERE row_id = $1 AND epoch = $2";
pub(super) const END: &str = "UPDATE secret_refreshes SET record = NULL
     WHERE row_id = $1 AND epoch = $2 AND record IS NOT NULL";
pub(super) const ADD: &str =
    "INSERT INTO secret_refresh_outbox (id, record, state) VALUES ($1, $2, $3)";
pub(super) const ENDED: &str = "SELECT id, record, state FROM secret_refresh_outbox";
pub(super) const FORGET: &str = "DELETE FROM secret_refresh_outbox WHERE id = $1";

/// The statements that name the caller's table, or the time.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) open: String,
    pub(super) read: String,
    pub(super) renew: String,
    pub(super) save: String,
    pub(super) take: String,
    pub(super) unfinished: String,
}

impl Statements {
    /// `now` is the time in milliseconds. `id` and `configuration` convert a text parameter to the
    /// column's type.
    pub(super) fn new(
        table: &RowTable,
        now: &str,
        id: impl Fn(&str) -> String,
        configuration: impl Fn(&str) -> String,
    ) -> Self {
        let name = table.table.quoted();
        let (key, value) = (quote(&table.id), quote(&table.configuration));
        let revision = quote(&table.revision);
        Self {
            open: format!(
                "UPDATE secret_refreshes SET record = $3, expires = {now} + $4
                 WHERE row_id = $1 AND epoch = $2 AND record IS NULL"
            ),
            read: format!(
                "SELECT CAST({revision} AS BIGINT), CAST({value} AS TEXT) FROM {name}
                 WHERE {key} = {}",
                id("$1"),
            ),
            renew: format!(
                "UPDATE secret_refreshes SET expires = {now} + $3
                 WHERE row_id = $1 AND epoch = $2"
            ),
            save: format!(
                "UPDATE {name} SET {value} = {}, {revision} = {revision} + 1
                 WHERE {key} = {} AND {revision} = $3",
                configuration("$1"),
                id("$2"),
            ),
            // The id in the spelling of the table: a UUID or a number has several, but a row one lease.
            take: format!(
                "INSERT INTO secret_refreshes (row_id, epoch, expires)
                 SELECT CAST({key} AS TEXT), 1, {now} + $2 FROM {name} WHERE {key} = {}
                 ON CONFLICT (row_id) DO UPDATE
                 SET epoch = secret_refreshes.epoch + 1, expires = {now} + $2
                 WHERE secret_refreshes.expires <= {now}
                 RETURNING row_id, epoch, record",
                id("$1"),
            ),
            unfinished: format!(
                "SELECT row_id FROM secret_refreshes
                 WHERE record IS NOT NULL AND expires <= {now} ORDER BY row_id"
            ),
        }
    }
}

/// A lease's duration in the unit of the table.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    // A thousand years, so that adding the time does not overflow.
    const MOST: i64 = 1000 * 365 * 24 * 3600 * 1000;
    i64::try_from(duration.as_millis()).map_or(MOST, |millis| millis.min(MOST))
}

/// Implements `RefreshRows` for a type with the fields `pool` and `sql`, and a method `begin`. The
/// statements are the same, but sqlx's two databases have no common trait to write them once.
macro_rules! impl_refresh_rows {
    ($rows:ty, $failed:path) => {
        #[async_trait::async_trait]
        impl secret_persistence_core::connector::RefreshRows for $rows {
            async fn read(&self, row: &str) -> Result<Option<(i64, String)>> {
                let found = sqlx::query(AssertSqlSafe(self.sql.read.as_str()))
                    .bind(row)
                    .fetch_optional(&self.pool)
                    .await
                    .map_err($failed)?;
                let Some(found) = found else { return Ok(None) };
                let revision: i64 = found.try_get(0).map_err($failed)?;
                Ok(Some((revision, found.try_get(1).map_err($failed)?)))
            }

            async fn take(&self, row: &str, duration: Duration) -> Result<Taken> {
                let mut transaction = self.begin().await?;
                let taken = sqlx::query(AssertSqlSafe(self.sql.take.as_str()))
                    .bind(row)
                    .bind(sql::milliseconds(duration))
                    .fetch_all(&mut *transaction)
                    .await
                    .map_err($failed)?;
                let Some(taken) = taken.first() else {
                    transaction.rollback().await.map_err($failed)?;
                    return Ok(Taken::Busy);
                };
                let record: Option<String> = taken.try_get("record").map_err($failed)?;
                let row = taken.try_get("row_id").map_err($failed)?;
                let epoch = taken.try_get("epoch").map_err($failed)?;
                // Before the lease is taken: nobody would release it, and others would only see that
                // it is held.
                let record = match record.as_deref().map(parsed).transpose() {
                    Ok(record) => record,
                    Err(unreadable) => {
                        transaction.rollback().await.map_err($failed)?;
                        return Err(unreadable);
                    }
                };
                transaction.commit().await.map_err($failed)?;
                Ok(Taken::Held {
                    lease: Lease::new(row, epoch),
                    record,
                })
            }

            async fn renew(&self, lease: &Lease, duration: Duration) -> Result<bool> {
                let mut transaction = self.begin().await?;
                let renewed = sqlx::query(AssertSqlSafe(self.sql.renew.as_str()))
                    .bind(&lease.row)
                    .bind(lease.epoch)
                    .bind(sql::milliseconds(duration))
                    .execute(&mut *transaction)
                    .await
                    .map_err($failed)?;
                transaction.commit().await.map_err($failed)?;
                Ok(renewed.rows_affected() == 1)
            }

            async fn release(&self, lease: &Lease) -> Result<()> {
                let mut transaction = self.begin().await?;
                sqlx::query(sql::RELEASE)
                    .bind(&lease.row)
                    .bind(lease.epoch)
                    .execute(&mut *transaction)
                    .await
                    .map_err($failed)?;
                transaction.commit().await.map_err($failed)
            }

            async fn open(
                &self,
                lease: &Lease,
                record: &RefreshRecord,
                duration: Duration,
            ) -> Result<bool> {
                let mut transaction = self.begin().await?;
                let opened = sqlx::query(AssertSqlSafe(self.sql.open.as_str()))
                    .bind(&lease.row)
                    .bind(lease.epoch)
                    .bind(written(record)?)
                    .bind(sql::milliseconds(duration))
                    .execute(&mut *transaction)
                    .await
                    .map_err($failed)?;
                transaction.commit().await.map_err($failed)?;
                Ok(opened.rows_affected() == 1)
            }

            async fn save(
                &self,
                lease: &Lease,
                revision: i64,
                config: &str,
                ended: &[Ended],
            ) -> Result<RefreshSaved> {
                let mut transaction = self.begin().await?;
                if !end!(transaction, lease, $failed) {
                    transaction.rollback().await.map_err($failed)?;
                    return Ok(RefreshSaved::LeaseLost);
                }
                let saved = sqlx::query(AssertSqlSafe(self.sql.save.as_str()))
                    .bind(config)
                    .bind(&lease.row)
                    .bind(revision)
                    .execute(&mut *transaction)
                    .await
                    .map_err($failed)?;
                if saved.rows_affected() != 1 {
                    transaction.rollback().await.map_err($failed)?;
                    return Ok(RefreshSaved::RowMoved);
                }
                for ended in ended {
                    add!(transaction, ended, $failed);
                }
                transaction.commit().await.map_err($failed)?;
                Ok(RefreshSaved::Saved(revision + 1))
            }

            async fn close(&self, lease: &Lease, ended: &[Ended]) -> Result<bool> {
                let mut transaction = self.begin().await?;
                if !end!(transaction, lease, $failed) {
                    transaction.rollback().await.map_err($failed)?;
                    return Ok(false);
                }
                for ended in ended {
                    add!(transaction, ended, $failed);
                }
                transaction.commit().await.map_err($failed)?;
                Ok(true)
            }

            async fn unfinished(&self) -> Result<Vec<String>> {
                sqlx::query_scalar(AssertSqlSafe(self.sql.unfinished.as_str()))
                    .fetch_all(&self.pool)
                    .await
                    .map_err($failed)
            }

            async fn ended(&self) -> Result<Vec<Result<Ended>>> {
                let rows = sqlx::query(sql::ENDED)
                    .fetch_all(&self.pool)
                    .await
                    .map_err($failed)?;
                let mut ended = Vec::with_capacity(rows.len());
                for row in rows {
                    let text = |column: &str| row.try_get::<String, _>(column).map_err($failed);
                    let state = match text("state")?.as_str() {
                        "saved" => RecordState::Saved,
                        _ => RecordState::Abandoned,
                    };
                    let Ok(id) = uuid::Uuid::try_parse(&text("id")?) else {
                        ended.push(Err(unreadable(
                            "an entry of the outbox whose id is no UUID",
                        )));
                        continue;
                    };
                    let record = serde_json::from_str(&text("record")?)
                        .map_err(|_| unreadable(&format!("the entry {id} of the outbox")));
                    ended.push(record.map(|record| Ended::new(id, record, state)));
                }
                Ok(ended)
            }

            async fn forget(&self, id: uuid::Uuid) -> Result<()> {
                let mut transaction = self.begin().await?;
                sqlx::query(sql::FORGET)
                    .bind(id.to_string())
                    .execute(&mut *transaction)
                    .await
                    .map_err($failed)?;
                transaction.commit().await.map_err($failed)
            }
        }
    };
}

/// Ends the open record of a lease in a transaction. Returns whether the lease still held.
macro_rules! end {
    ($transaction:ident, $lease:ident, $failed:path) => {
        sqlx::query(sql::END)
            .bind(&$lease.row)
            .bind($lease.epoch)
            .execute(&mut *$transaction)
            .await
            .map_err($failed)?
            .rows_affected()
            == 1
    };
}

/// Adds an entry to the outbox.
macro_rules! add {
    ($transaction:expr, $ended:expr, $failed:path) => {
        sqlx::query(sql::ADD)
            .bind($ended.id.to_string())
            .bind(written(&$ended.record)?)
            .bind(match $ended.state {
                RecordState::Abandoned => "abandoned",
                RecordState::Saved => "saved",
            })
            .execute(&mut *$transaction)
            .await
            .map_err($failed)?;
    };
}

pub(super) use {add, end, impl_refresh_rows};

use secret_persistence_core::connector::RefreshRecord;
use secret_persistence_core::{Error, ErrorKind, Result};

pub(super) fn parsed(text: &str) -> Result<RefreshRecord> {
    serde_json::from_str(text).map_err(|_| unreadable("the record of a refresh"))
}

/// What this version does not understand. The parser's message could quote it.
pub(super) fn unreadable(what: &str) -> Error {
    let message = format!("{what} is not what this version writes");
    Error::new(ErrorKind::Integrity, message)
        .with_hint("leave it to the newer version that wrote it, or restore it from a backup")
}

pub(super) fn written<T: serde::Serialize>(value: &T) -> Result<String> {
    let failed = |_| Error::new(ErrorKind::Integrity, "the record of a refresh is no JSON");
    serde_json::to_string(value).map_err(failed)
}
