//! SQLite: one file, one writing connection, a few reading ones.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::{Error, ErrorKind, Result};
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, Sqlite, SqliteConnection, Transaction};

use crate::client::{
    Before, Client, Columns, Filter, Head, Inserted, JoinedRow, Row, Rows, Swap, Values, decode,
    decode_end, decode_head, range_end,
};
use crate::config::{Config, IfMissing};
use crate::describe::{Describe, Described};
use crate::error::{SQLITE, from_sqlx};
use crate::persistence::READ_BATCH;
use crate::schema::{self, Dialect, Found, Layout};

/// Reads are local and short. More connections than cores would only wait for each other.
const READERS: u32 = 4;

/// The number of rows in one insert statement, which is prepared once per connection. With more
/// rows, preparing takes longer and inserting is no faster.
const PREPARED_ROWS: usize = 100;

/// How long a delete waits for readers that prevent emptying the log.
const SWEEP_TIMEOUT: Duration = Duration::from_millis(50);

/// How often to retry opening while other processes open the same new file.
const OPEN_ATTEMPTS: u32 = 50;

pub(crate) struct SqliteClient {
    /// One connection, so that our writers queue here and not in SQLite's busy loop.
    writer: SqlitePool,
    readers: SqlitePool,
    /// Empties the log after deletes, without waiting for readers, because there may always be one.
    sweeper: SqlitePool,
    /// The number of deletes whose values were in the log, and the number that have been erased.
    deleted: AtomicU64,
    swept: AtomicU64,
    layout: Layout,
    sql: Statements,
    table: String,
    meta: String,
}

struct Statements {
    read_plain: String,
    read_sealed: String,
    read_joined: Option<String>,
    list: String,
    describe: String,
    delete: String,
}

impl SqliteClient {
    /// Opens the table. `None` if it is missing and counts as empty.
    pub(crate) async fn open(path: &Path, config: &Config) -> Result<Option<Self>> {
        if !path.exists() {
            match config.if_missing {
                IfMissing::Create => create_private(path)?,
                IfMissing::Empty => return Ok(None),
                IfMissing::Refuse => {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        format!("the file {} does not exist", path.display()),
                    )
                    .with_hint("check the path"));
                }
            }
        }
        let options = options(path, config);
        let writer = connect(&options, config).await?;
        let (found, meta) = catalogue(&writer, config).await?;
        let layout = if found.is_empty() {
            match config.if_missing {
                IfMissing::Create => {}
                IfMissing::Empty => {
                    writer.close().await;
                    return Ok(None);
                }
                IfMissing::Refuse => {
                    writer.close().await;
                    return Err(schema::missing(Dialect::Sqlite, &config.table));
                }
            }
            run(
                &writer,
                |found, _| match found {
                    [] => schema::create(Dialect::Sqlite, &config.table),
                    _ => Vec::new(),
                },
                config,
            )
            .await?;
            let (found, meta) = catalogue(&writer, config).await?;
            Layout::read(Dialect::Sqlite, &config.table, &found, meta)?
        } else {
            Layout::read(Dialect::Sqlite, &config.table, &found, meta)?
        };
        let sweeper = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(config.connect_timeout)
            .test_before_acquire(false)
            .connect_lazy_with(options.clone().busy_timeout(SWEEP_TIMEOUT));
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(config.connect_timeout)
            .test_before_acquire(false)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        let table = config.table.quoted();
        Ok(Some(Self {
            writer,
            readers,
            sweeper,
            deleted: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            layout,
            sql: Statements::new(&table, layout),
            table,
            meta: config.table.meta().quoted(),
        }))
    }

    /// The SQL for what the table lacks. Runs it if `apply` is set.
    pub(crate) async fn prepare(path: &Path, config: &Config, apply: bool) -> Result<Vec<String>> {
        if !path.exists() {
            if apply {
                create_private(path)?;
            } else {
                return Ok(schema::create(Dialect::Sqlite, &config.table));
            }
        }
        let writer = connect(&options(path, config), config).await?;
        let needed = |found: &[Found], meta: bool| match found {
            [] => schema::create(Dialect::Sqlite, &config.table),
            _ => schema::prepare(Dialect::Sqlite, &config.table, found, meta),
        };
        let (found, meta) = catalogue(&writer, config).await?;
        if !found.is_empty() {
            Layout::read(Dialect::Sqlite, &config.table, &found, meta)?;
        }
        let statements = if apply {
            run(&writer, needed, config).await?
        } else {
            needed(&found, meta)
        };
        writer.close().await;
        Ok(statements)
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        // A transaction that begins as a reader and becomes a writer fails after another commit,
        // whatever the busy timeout.
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)
    }

    fn insert_sql(&self, rows: &Rows<'_>, count: usize, returning: &str) -> String {
        let mut columns = vec!["coordinate"];
        match &rows.values {
            Values::Plain(_) => columns.push("payload"),
            Values::Sealed { .. } => {
                columns.extend(["ciphertext", "nonce", "wrapped_key", "key_nonce", "key_id"]);
            }
        }
        for (present, name) in [
            (self.layout.owner, "owner"),
            (self.layout.created, "created"),
            (self.layout.expires, "expires"),
        ] {
            if present {
                columns.push(name);
            }
        }
        let placeholders = format!("(?{})", ", ?".repeat(columns.len() - 1));
        format!(
            "INSERT INTO {} ({}) VALUES {} ON CONFLICT (coordinate) DO NOTHING{returning}",
            self.table,
            columns.join(", "),
            vec![placeholders; count].join(", "),
        )
    }

    fn insert_query<'q>(
        &self,
        sql: &'q str,
        rows: &'q Rows<'_>,
        part: Range<usize>,
    ) -> Query<'q, Sqlite, SqliteArguments> {
        // The number of rows changes the statement; only these two numbers recur.
        let is_usual = part.len() == 1 || part.len() == PREPARED_ROWS;
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(is_usual);
        for index in part {
            let (name, expires) = rows.names[index];
            query = query.bind(name);
            query = match &rows.values {
                Values::Plain(values) => query.bind(values[index].expose()),
                Values::Sealed { key_id, values } => {
                    let sealed = &values[index];
                    query
                        .bind(sealed.ciphertext.as_slice())
                        .bind(sealed.nonce.as_slice())
                        .bind(sealed.wrapped_key.as_slice())
                        .bind(sealed.key_nonce.as_slice())
                        .bind(*key_id)
                }
            };
            if self.layout.owner {
                query = query.bind(rows.owner);
            }
            if self.layout.created {
                query = query.bind(rows.created);
            }
            if self.layout.expires {
                query = query.bind(expires);
            }
        }
        query
    }

    /// Whether the key may still be used for writing: `retire_key` removes its check value.
    async fn knows_key(&self, connection: &mut SqliteConnection, key_id: &str) -> Result<bool> {
        let sql = format!("SELECT 1 FROM {} WHERE name = $1", self.meta);
        sqlx::query(AssertSqlSafe(sql))
            .bind(crate::ring_check::entry(key_id))
            .fetch_optional(connection)
            .await
            .map(|row| row.is_some())
            .map_err(failed)
    }

    /// Empties the log if a delete has left a value in it. If a reader prevents that, the next
    /// change or the last connection to close tries again.
    async fn sweep(&self) {
        let deleted = self.deleted.load(Ordering::Acquire);
        if self.swept.load(Ordering::Acquire) < deleted
            && matches!(self.checkpoint(&self.sweeper).await, Ok(true))
        {
            self.swept.fetch_max(deleted, Ordering::AcqRel);
        }
    }

    async fn checkpoint(&self, pool: &SqlitePool) -> Result<bool> {
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(pool)
            .await
            .map_err(failed)?;
        row.try_get::<i64, _>(0)
            .map(|busy| busy == 0)
            .map_err(failed)
    }
}

/// Splits the rows into parts for one statement each.
fn parts(rows: &Rows<'_>) -> impl Iterator<Item = Range<usize>> {
    let count = rows.names.len();
    (0..count)
        .step_by(PREPARED_ROWS)
        .map(move |from| from..(from + PREPARED_ROWS).min(count))
}

impl Statements {
    fn new(table: &str, layout: Layout) -> Self {
        let column = |present: bool, name: &'static str| if present { name } else { "NULL" };
        let expires = column(layout.expires, "expires");
        let head = format!(
            "SELECT coordinate, {}, {}, {expires}, {}",
            column(layout.owner, "owner"),
            column(layout.created, "created"),
            column(layout.sealed, "key_id"),
        );
        // A join looks names up one by one; `IN` would sort them into a table first. It answers
        // with a place instead of a name, which is shorter. The index has the column's collation,
        // and the name has to be the same to the byte, whatever that is.
        let wanted = format!(
            "FROM json_each($1) AS wanted CROSS JOIN {table} AS secrets \
             ON secrets.coordinate = wanted.value AND secrets.coordinate COLLATE BINARY = wanted.value"
        );
        Self {
            read_plain: format!("SELECT wanted.key, {expires}, payload {wanted}"),
            read_sealed: format!("SELECT wanted.key, {} {wanted}", sealed_columns(layout)),
            // SQLite and the driver copy each column by itself, which costs more than its bytes.
            // In a file whose encoding is not UTF-8, what comes out may not open.
            read_joined: layout.sealed.then(|| {
                format!(
                    "SELECT wanted.key, {expires}, CASE WHEN payload IS NULL AND key_id = $2 \
                     THEN CAST(key_nonce || wrapped_key || nonce || ciphertext AS BLOB) END {wanted}"
                )
            }),
            list: format!(
                "{head} FROM {table} WHERE coordinate > $1 AND coordinate >= $2 \
                 AND substr(coordinate, 1, length($2)) = $2 ORDER BY coordinate LIMIT $3"
            ),
            describe: format!("{head} {wanted}"),
            delete: format!(
                "DELETE FROM {table} WHERE coordinate IN (SELECT value FROM json_each($1))"
            ),
        }
    }
}

#[async_trait]
impl Describe for SqliteClient {
    async fn describe(&self, names: &[&str]) -> Result<Vec<Described>> {
        sqlx::query(AssertSqlSafe(self.sql.describe.as_str()))
            .bind(json_of(names)?)
            .fetch_all(&self.readers)
            .await
            .and_then(|rows| {
                rows.iter()
                    .map(|row| Ok((row.try_get(0)?, decode_head(row).map_err(failed))))
                    .collect()
            })
            .map_err(failed)
    }
}

#[async_trait]
impl Client for SqliteClient {
    fn layout(&self) -> Layout {
        self.layout
    }

    async fn read(&self, names: &[&str], columns: Columns) -> Result<Vec<(usize, Row)>> {
        let sql = match columns {
            Columns::Plain => &self.sql.read_plain,
            Columns::Sealed => &self.sql.read_sealed,
        };
        sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(json_of(names)?)
            .fetch_all(&self.readers)
            .await
            .and_then(|rows| {
                rows.iter()
                    .map(|row| Ok((place_of(row)?, decode(row, columns))))
                    .collect()
            })
            .map_err(failed)
    }

    async fn read_joined(&self, names: &[&str], key_id: &str) -> Result<Option<Vec<JoinedRow>>> {
        let Some(sql) = &self.sql.read_joined else {
            return Ok(None);
        };
        sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(json_of(names)?)
            .bind(key_id)
            .fetch_all(&self.readers)
            .await
            .and_then(|rows| {
                rows.iter()
                    .map(|row| {
                        let expires = row.try_get(1);
                        Ok(JoinedRow {
                            place: place_of(row)?,
                            expires: *expires.as_ref().unwrap_or(&None),
                            value: expires.and_then(|_| row.try_get(2)).unwrap_or(None),
                        })
                    })
                    .collect()
            })
            .map(Some)
            .map_err(failed)
    }

    async fn insert(&self, rows: &Rows<'_>) -> Result<Inserted> {
        let mut transaction = self.begin().await?;
        if let Values::Sealed { key_id, .. } = &rows.values
            && !self.knows_key(&mut transaction, key_id).await?
        {
            return Ok(Inserted::Only(HashSet::new()));
        }
        let mut inserted = 0;
        for part in parts(rows) {
            let sql = self.insert_sql(rows, part.len(), "");
            let done = self.insert_query(&sql, rows, part);
            let done = done.execute(&mut *transaction).await.map_err(failed)?;
            inserted += done.rows_affected();
        }
        let inserted = if inserted == rows.names.len() as u64 {
            Inserted::All
        } else {
            // Some names already existed, which is rare. SQLite can only list the inserted ones, so
            // insert again with a list.
            transaction.rollback().await.map_err(failed)?;
            transaction = self.begin().await?;
            let mut names = HashSet::new();
            for part in parts(rows) {
                let sql = self.insert_sql(rows, part.len(), " RETURNING coordinate");
                let done = self.insert_query(&sql, rows, part);
                let done = done.fetch_all(&mut *transaction).await.map_err(failed)?;
                for row in done {
                    names.insert(row.try_get(0).map_err(failed)?);
                }
            }
            Inserted::Only(names)
        };
        transaction.commit().await.map_err(failed)?;
        self.sweep().await;
        Ok(inserted)
    }

    async fn delete(&self, names: &[&str]) -> Result<()> {
        let names = json_of(names)?;
        let mut transaction = self.begin().await?;
        let deleted = sqlx::query(AssertSqlSafe(self.sql.delete.as_str()))
            .bind(names)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        // The log still contains deleted values.
        if deleted.rows_affected() > 0 {
            self.deleted
                .fetch_add(deleted.rows_affected(), Ordering::AcqRel);
        }
        self.sweep().await;
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Head>> {
        sqlx::query(AssertSqlSafe(self.sql.list.as_str()))
            .bind(after.unwrap_or_default())
            .bind(prefix)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await
            .and_then(|rows| rows.iter().map(decode_head).collect())
            .map_err(failed)
    }

    async fn scan(
        &self,
        filter: &Filter,
        after: Option<&str>,
        upto: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>> {
        let (condition, key_id) = condition(filter);
        let end = upto.map_or("", |_| "AND coordinate <= $4 ");
        let sql = format!(
            "SELECT coordinate, {} FROM {} WHERE {condition} AND coordinate > $2 {end}\
             ORDER BY coordinate LIMIT $3",
            sealed_columns(self.layout),
            self.table
        );
        let mut query = sqlx::query(AssertSqlSafe(sql))
            .bind(key_id)
            .bind(after.unwrap_or_default())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        if let Some(upto) = upto {
            query = query.bind(upto);
        }
        query
            .fetch_all(&self.readers)
            .await
            .and_then(|rows| {
                rows.iter()
                    .map(|row| Ok((row.try_get(0)?, decode(row, Columns::Sealed))))
                    .collect()
            })
            .map_err(failed)
    }

    async fn range_end(&self, after: Option<&str>, rows: usize) -> Result<Option<(String, u64)>> {
        sqlx::query(AssertSqlSafe(range_end(&self.table)))
            .bind(after.unwrap_or_default())
            .bind(i64::try_from(rows).unwrap_or(i64::MAX))
            .fetch_optional(&self.readers)
            .await
            .and_then(|row| row.as_ref().map(decode_end).transpose())
            .map_err(failed)
    }

    async fn count(&self, filter: &Filter) -> Result<u64> {
        let (condition, key_id) = condition(filter);
        let sql = format!("SELECT count(*) FROM {} WHERE {condition}", self.table);
        sqlx::query(AssertSqlSafe(sql))
            .bind(key_id)
            .fetch_one(&self.readers)
            .await
            .and_then(|row| row.try_get::<i64, _>(0))
            .map(i64::unsigned_abs)
            .map_err(failed)
    }

    async fn swap(&self, swaps: &[Swap]) -> Result<HashSet<String>> {
        let set = format!(
            "UPDATE {} SET payload = NULL, ciphertext = $1, nonce = $2, wrapped_key = $3, \
             key_nonce = $4, key_id = $5 WHERE coordinate = $6 AND expires IS $7 AND",
            self.table
        );
        let from_plain = format!("{set} payload = $8 AND ciphertext IS NULL");
        let from_sealed = format!("{set} payload IS NULL AND wrapped_key = $8");
        let mut transaction = self.begin().await?;
        let mut swapped = HashSet::with_capacity(swaps.len());
        for swap in swaps {
            if swapped.is_empty() && !self.knows_key(&mut transaction, &swap.after.key_id).await? {
                return Ok(swapped);
            }
            let query = sqlx::query(AssertSqlSafe(match &swap.before {
                Before::Plain(_) => from_plain.as_str(),
                Before::Sealed(_) => from_sealed.as_str(),
            }))
            .bind(swap.after.ciphertext.as_slice())
            .bind(swap.after.nonce.as_slice())
            .bind(swap.after.wrapped_key.as_slice())
            .bind(swap.after.key_nonce.as_slice())
            .bind(swap.after.key_id.as_str())
            .bind(swap.coordinate.as_str())
            .bind(swap.expires);
            let query = match &swap.before {
                Before::Plain(value) => query.bind(value.expose()),
                Before::Sealed(wrapped_key) => query.bind(wrapped_key.as_slice()),
            };
            let updated = query.execute(&mut *transaction).await.map_err(failed)?;
            if updated.rows_affected() > 0 {
                swapped.insert(swap.coordinate.clone());
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(swapped)
    }

    async fn meta(&self) -> Result<Vec<(String, Vec<u8>)>> {
        if !self.layout.meta {
            return Ok(Vec::new());
        }
        sqlx::query(AssertSqlSafe(format!(
            "SELECT name, value FROM {}",
            self.meta
        )))
        .fetch_all(&self.readers)
        .await
        .and_then(|rows| {
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect()
        })
        .map_err(failed)
    }

    async fn put_meta(&self, name: &str, value: &[u8], replace: bool) -> Result<()> {
        let conflict = if replace {
            "DO UPDATE SET value = excluded.value"
        } else {
            "DO NOTHING"
        };
        let sql = format!(
            "INSERT INTO {} (name, value) VALUES ($1, $2) ON CONFLICT (name) {conflict}",
            self.meta
        );
        let mut transaction = self.begin().await?;
        sqlx::query(AssertSqlSafe(sql))
            .bind(name)
            .bind(value)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn remove_meta(&self, name: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(AssertSqlSafe(format!(
            "DELETE FROM {} WHERE name = $1",
            self.meta
        )))
        .bind(name)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn barrier(&self) -> Result<()> {
        // Taking the write lock once is enough, because there is only one writer at a time.
        self.begin().await?.rollback().await.map_err(failed)
    }

    async fn scrub(&self, _: bool, _: &(dyn Fn() + Sync)) -> Result<bool> {
        self.checkpoint(&self.writer).await?;
        // Rewrites the file without its free pages, which may be older than `secure_delete`.
        sqlx::query("VACUUM")
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        self.checkpoint(&self.writer).await
    }

    fn is_file(&self) -> bool {
        true
    }

    fn out_of_reach(&self) -> &'static [&'static str] {
        &[
            "backups, snapshots and copies of the file",
            "blocks that the file system or the disk has freed and not overwritten",
            "rotate these credentials at their origin if anyone may have seen them",
        ]
    }

    async fn principal(&self) -> Result<String> {
        Ok("this process".to_owned())
    }

    async fn close(&self) {
        self.sweep().await;
        self.readers.close().await;
        self.sweeper.close().await;
        self.writer.close().await;
    }
}

/// The options of every connection. None of them runs DDL.
fn options(path: &Path, config: &Config) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        // A configuration must never point to a secret that a power failure has undone.
        .synchronous(SqliteSynchronous::Full)
        // How long a statement waits for another process's write lock.
        .busy_timeout(config.connect_timeout)
        // Overwrites deleted and encrypted values, in pages and in their remains.
        .pragma("secure_delete", "ON")
        // Never writes rows to temporary files.
        .pragma("temp_store", "MEMORY")
        // A whole batch: otherwise the thread that reads waits for the one that takes the rows, and both
        // wake each other many times.
        .row_buffer_size(READ_BATCH)
        .disable_statement_logging()
}

/// The writing connection, in a pool of one.
async fn connect(options: &SqliteConnectOptions, config: &Config) -> Result<SqlitePool> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(config.connect_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(options.clone());
    // While another process switches a new file to WAL, SQLite refuses to open it without waiting.
    for _ in 1..OPEN_ATTEMPTS {
        match pool.acquire().await {
            Ok(_) => return Ok(pool),
            Err(error) => {
                let error = failed(error);
                if error.kind() != ErrorKind::Conflict {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    pool.acquire().await.map_err(failed)?;
    Ok(pool)
}

/// Creates a file that no other user can read. SQLite gives its log and index the same mode.
pub(crate) fn create_private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("cannot create the file {}", path.display()),
        )
        .with_hint("check the path, and that its folder exists and is writable")
        .with_source(error)),
    }
}

/// The table's columns, none if it is missing, and whether the second table exists.
async fn catalogue(pool: &SqlitePool, config: &Config) -> Result<(Vec<Found>, bool)> {
    let mut connection = pool.acquire().await.map_err(failed)?;
    columns(&mut connection, config).await
}

async fn columns(connection: &mut SqliteConnection, config: &Config) -> Result<(Vec<Found>, bool)> {
    if config.table.schema().is_some() {
        return Err(schema::unsuitable(&config.table, "SQLite has no schemas"));
    }
    let mut tables = Vec::new();
    for table in [
        config.table.table().to_owned(),
        config.table.meta().table().to_owned(),
    ] {
        let found =
            sqlx::query(r#"SELECT name, lower(type), "notnull" FROM pragma_table_info($1)"#)
                .bind(table)
                .fetch_all(&mut *connection)
                .await
                .and_then(|rows| {
                    rows.iter()
                        .map(|row| {
                            Ok(Found {
                                name: row.try_get(0)?,
                                kind: row.try_get(1)?,
                                not_null: row.try_get::<i64, _>(2)? != 0,
                            })
                        })
                        .collect::<Result<Vec<Found>, sqlx::Error>>()
                })
                .map_err(failed)?;
        tables.push(found);
    }
    let meta = tables.pop().is_some_and(|columns| !columns.is_empty());
    Ok((tables.pop().unwrap_or_default(), meta))
}

/// Runs the needed statements. No other process can change the table meanwhile.
async fn run(
    pool: &SqlitePool,
    needed: impl Fn(&[Found], bool) -> Vec<String>,
    config: &Config,
) -> Result<Vec<String>> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let (found, meta) = columns(&mut transaction, config).await?;
    let statements = needed(&found, meta);
    for statement in &statements {
        sqlx::query(AssertSqlSafe(statement.as_str()))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(statements)
}

fn sealed_columns(layout: Layout) -> String {
    let expires = if layout.expires { "expires" } else { "NULL" };
    let rest = if layout.sealed {
        "ciphertext, nonce, wrapped_key, key_nonce, key_id"
    } else {
        "NULL, NULL, NULL, NULL, NULL"
    };
    format!("{expires}, payload, {rest}")
}

/// The condition of a filter and its parameter `$1`, which is NULL if unused.
fn condition(filter: &Filter) -> (&'static str, Option<&str>) {
    match filter {
        Filter::Plain => ("payload IS NOT NULL AND $1 IS NULL", None),
        Filter::Sealed => ("payload IS NULL AND $1 IS NULL", None),
        Filter::SealedNotUnder(key_id) => ("payload IS NULL AND key_id IS NOT $1", Some(key_id)),
        Filter::SealedUnder(key_id) => ("key_id = $1", Some(key_id)),
    }
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: sqlx::Error) -> Error {
    from_sqlx("sqlite", SQLITE, &error)
}

/// The location of the file of a configuration.
pub(crate) fn place(path: &Path, config: &Config) -> String {
    let path: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("{} table {}", path.display(), config.table)
}
/// The index of a name in the list that [`json_of`] made.
fn place_of(row: &SqliteRow) -> Result<usize, sqlx::Error> {
    let place = row.try_get::<i64, _>(0)?;
    usize::try_from(place).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A list of names as one parameter.
fn json_of(names: &[&str]) -> Result<String> {
    let bytes: usize = names.iter().map(|name| name.len() + 3).sum();
    let mut json = String::with_capacity(bytes + 2);
    json.push('[');
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        // Without a branch for each byte, in contrast to serde_json.
        let escapes = name.bytes().fold(false, |escapes, byte| {
            escapes | (byte < b' ') | (byte == b'"') | (byte == b'\\')
        });
        if escapes {
            let quoted = serde_json::to_string(name).map_err(|_| {
                Error::new(ErrorKind::Unexpected, "a name cannot be encoded as JSON")
            })?;
            json.push_str(&quoted);
        } else {
            json.push('"');
            json.push_str(name);
            json.push('"');
        }
    }
    json.push(']');
    Ok(json)
}

#[cfg(test)]
mod tests;
