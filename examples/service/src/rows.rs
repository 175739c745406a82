//! The service's own database: rows with a revision, and the outbox of records.

use std::io;
use std::path::Path;
use std::sync::Arc;

use secret_persistence::connector::{Record, RecordState, RefreshRows};
use secret_persistence::database::{RowTable, SqliteRefreshRows};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Row as _, Sqlite, Transaction};
use uuid::Uuid;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS connectors (
    id TEXT PRIMARY KEY,
    workspace TEXT NOT NULL,
    specification TEXT NOT NULL,
    configuration TEXT NOT NULL,
    revision INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY,
    record TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'saved', 'abandoned'))
);";

/// A stored connector: its configuration contains pointers, never a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The connector's id.
    pub id: Uuid,
    /// The workspace it belongs to, which is the scope of its secrets.
    pub workspace: Uuid,
    /// Its connection specification.
    pub specification: Value,
    /// Its configuration.
    pub configuration: Value,
    /// Begins at 1 and grows by one with every save.
    pub revision: i64,
}

/// The result of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another save came first, or the healer has claimed the record. Nothing has changed.
    Moved,
    /// Both row and record were updated.
    Saved,
}

/// The database. Clones share it.
#[derive(Clone, Debug)]
pub struct Rows(SqlitePool, Arc<dyn RefreshRows>);

impl Rows {
    /// Opens the database at `path`. A missing one is created, readable only by its owner.
    ///
    /// # Errors
    /// If the file cannot be opened or the tables cannot be created.
    pub async fn open(path: &Path) -> sqlx::Result<Self> {
        create_private(path).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal);
        let pool = SqlitePoolOptions::new().connect_with(options).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        // The library's own connections: it saves a refreshed row together with its lease.
        let configuration = |error| sqlx::Error::Configuration(Box::new(error));
        let table = RowTable::new("connectors".parse().map_err(configuration)?);
        let refreshes = SqliteRefreshRows::open(path, &table).await;
        Ok(Self(pool, Arc::new(refreshes.map_err(configuration)?)))
    }

    /// The same rows, for refreshes.
    #[must_use]
    pub fn refreshes(&self) -> &Arc<dyn RefreshRows> {
        &self.1
    }

    /// A row, or `None`. Waits for a running save, so that the result is final.
    ///
    /// # Errors
    /// If the database fails or the row is not JSON.
    pub async fn get(&self, id: Uuid) -> sqlx::Result<Option<Row>> {
        let mut transaction = self.begin().await?;
        sqlx::query("SELECT * FROM connectors WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *transaction)
            .await?
            .map(|row| {
                Ok(Row {
                    id,
                    workspace: parsed(row.try_get("workspace")?)?,
                    specification: parsed_json(row.try_get("specification")?)?,
                    configuration: parsed_json(row.try_get("configuration")?)?,
                    revision: row.try_get("revision")?,
                })
            })
            .transpose()
    }

    /// The ids of all rows.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ids(&self) -> sqlx::Result<Vec<Uuid>> {
        let rows = sqlx::query("SELECT id FROM connectors ORDER BY id")
            .fetch_all(&self.0)
            .await?;
        rows.into_iter()
            .map(|row| parsed(row.try_get("id")?))
            .collect()
    }

    /// Adds a record to the outbox as `open`, before anything is staged.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn open_record(&self, record: &Record) -> sqlx::Result<Uuid> {
        let id = Uuid::new_v4();
        let text =
            serde_json::to_string(record).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query("INSERT INTO outbox (id, record, state) VALUES ($1, $2, 'open')")
            .bind(id.to_string())
            .bind(text)
            .execute(&self.0)
            .await?;
        Ok(id)
    }

    /// Saves a new row. One transaction with the record's `open → saved`.
    ///
    /// # Errors
    /// If the database fails: then the outcome is unknown, and `settle` determines it.
    pub async fn insert(&self, row: &Row, record: Uuid) -> sqlx::Result<Outcome> {
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO connectors VALUES ($1, $2, $3, $4, $5)")
            .bind(row.id.to_string())
            .bind(row.workspace.to_string())
            .bind(row.specification.to_string())
            .bind(row.configuration.to_string())
            .bind(row.revision)
            .execute(&mut *transaction)
            .await?;
        finish(transaction, 1, record).await
    }

    /// Saves a changed configuration if the revision is still current.
    ///
    /// # Errors
    /// If the database fails: then the outcome is unknown, and `settle` determines it.
    pub async fn update(
        &self,
        id: Uuid,
        revision: i64,
        configuration: &Value,
        record: Uuid,
    ) -> sqlx::Result<Outcome> {
        let mut transaction = self.begin().await?;
        let changed = sqlx::query(
            "UPDATE connectors SET configuration = $1, revision = revision + 1
             WHERE id = $2 AND revision = $3",
        )
        .bind(configuration.to_string())
        .bind(id.to_string())
        .bind(revision)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        finish(transaction, changed, record).await
    }

    /// Deletes a row if its revision is still current.
    ///
    /// # Errors
    /// If the database fails: then the outcome is unknown, and `settle` determines it.
    pub async fn delete(&self, id: Uuid, revision: i64, record: Uuid) -> sqlx::Result<Outcome> {
        let mut transaction = self.begin().await?;
        let changed = sqlx::query("DELETE FROM connectors WHERE id = $1 AND revision = $2")
            .bind(id.to_string())
            .bind(revision)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        finish(transaction, changed, record).await
    }

    /// Claims a record, `open → abandoned`: from then on its change can never be saved. Returns
    /// whether it succeeded.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn abandon(&self, record: Uuid) -> sqlx::Result<bool> {
        let claimed =
            sqlx::query("UPDATE outbox SET state = 'abandoned' WHERE id = $1 AND state = 'open'")
                .bind(record.to_string())
                .execute(&self.0)
                .await?;
        Ok(claimed.rows_affected() == 1)
    }

    /// Removes the record of a finished change.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn close_record(&self, record: Uuid) -> sqlx::Result<()> {
        sqlx::query("DELETE FROM outbox WHERE id = $1")
            .bind(record.to_string())
            .execute(&self.0)
            .await
            .map(|_| ())
    }

    /// The remaining records, with their state; `None` is `open`.
    ///
    /// # Errors
    /// If the database fails, or a record has a format that this version does not support.
    pub async fn records(&self) -> sqlx::Result<Vec<(Uuid, Record, Option<RecordState>)>> {
        let rows = sqlx::query("SELECT id, record, state FROM outbox")
            .fetch_all(&self.0)
            .await?;
        rows.into_iter()
            .map(|row| {
                let text: String = row.try_get("record")?;
                let record = serde_json::from_str(&text)
                    .map_err(|error| sqlx::Error::Decode(error.into()))?;
                let state = match row.try_get("state")? {
                    "saved" => Some(RecordState::Saved),
                    "abandoned" => Some(RecordState::Abandoned),
                    _ => None,
                };
                Ok((parsed(row.try_get("id")?)?, record, state))
            })
            .collect()
    }

    /// A transaction that takes the writer's place from its beginning: a deferred one could find
    /// the place taken when it is too late to wait.
    async fn begin(&self) -> sqlx::Result<Transaction<'_, Sqlite>> {
        self.0.begin_with("BEGIN IMMEDIATE").await
    }
}

/// A new file that only its owner can read; SQLite gives its log and index the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Updates both the record and the row, or neither.
async fn finish(
    mut transaction: Transaction<'_, Sqlite>,
    rows_changed: u64,
    record: Uuid,
) -> sqlx::Result<Outcome> {
    let claimed = sqlx::query("UPDATE outbox SET state = 'saved' WHERE id = $1 AND state = 'open'")
        .bind(record.to_string())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    if rows_changed != 1 || claimed != 1 {
        transaction.rollback().await?;
        return Ok(Outcome::Moved);
    }
    transaction.commit().await?;
    Ok(Outcome::Saved)
}

fn parsed(id: &str) -> sqlx::Result<Uuid> {
    Uuid::try_parse(id).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn parsed_json(text: &str) -> sqlx::Result<Value> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
