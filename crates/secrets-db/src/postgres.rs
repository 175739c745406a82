//! Postgres: a pool of connections, one statement per batch.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};
use secret_persistence_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Row as _};

use crate::client::{
    Before, Client, Columns, Filter, Head, Inserted, JoinedRow, Row, Rows, Swap, Values, decode,
    decode_end, decode_head, range_end,
};
use crate::config::{Config, IfMissing};
use crate::deadline::within;
use crate::describe::{Describe, Described};
use crate::error::{POSTGRES, from_sqlx};
use crate::naming::TableName;
use crate::postgres_options::PostgresOptions;
use crate::schema::{self, Dialect, Found, Layout};

/// A connection that was idle for longer is tested before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(30);

/// The maximum time to look for the cause of an exhausted pool.
const PROBE: Duration = Duration::from_secs(2);

/// A name that exists makes an insert fail, and a server may be told to log the parameters of what fails:
/// values, ours among them. Servers before version 13 have no such setting.
const QUIET: &str = "SELECT set_config(name, '0', false) FROM pg_settings \
                     WHERE name = 'log_parameter_max_length_on_error'";

/// How often to look whether the table is still being rewritten.
const LOOK: Duration = Duration::from_secs(1);

/// Only one process at a time creates or alters tables. The number is arbitrary.
const ADVISORY_LOCK: i64 = 0x5ec7_e75d_b001;

pub(crate) struct PostgresClient {
    pool: PgPool,
    options: PgConnectOptions,
    layout: Layout,
    sql: Statements,
    name: TableName,
    table: String,
    meta: String,
}

struct Statements {
    read_plain: String,
    read_sealed: String,
    list: String,
    describe: String,
    delete: String,
    insert_plain: Insert,
    insert_sealed: Insert,
}

/// Two statements with the same parameters.
struct Insert {
    /// Fails if a name exists. With `ON CONFLICT`, Postgres takes twice as long for each row.
    all: String,
    /// Inserts those that are missing, and returns their names.
    missing: String,
}

impl PostgresClient {
    /// Opens the table. `None` if it is missing and counts as empty.
    pub(crate) async fn open(target: &PostgresOptions, config: &Config) -> Result<Option<Self>> {
        let options = options(target);
        // The pool would retry until the timeout and then report only that.
        let (mut connection, mut found, mut meta) = look(&options, config).await?;
        if found.is_empty() {
            match config.if_missing {
                IfMissing::Create => {}
                IfMissing::Empty => return Ok(None),
                IfMissing::Refuse => {
                    return Err(schema::missing(Dialect::Postgres, &config.table));
                }
            }
            run(&mut connection, config, |found, _| match found {
                [] => schema::create(Dialect::Postgres, &config.table),
                _ => Vec::new(),
            })
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => schema::missing(Dialect::Postgres, &config.table),
                _ => error,
            })?;
            (found, meta) = columns(&mut connection, &config.table).await?;
        }
        let layout = Layout::read(Dialect::Postgres, &config.table, &found, meta)?;
        // No state depends on a graceful close.
        let _ = connection.close().await;
        let pool = PgPoolOptions::new()
            .max_connections(config.pool_size)
            .acquire_timeout(config.connect_timeout)
            // A ping before every query would double the round trips.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move { sqlx::raw_sql(QUIET).execute(connection).await.map(drop) })
            })
            .connect_lazy_with(options.clone());
        let table = config.table.quoted();
        let meta = config.table.meta().quoted();
        Ok(Some(Self {
            pool,
            options,
            layout,
            sql: Statements::new(&table, &meta, layout),
            name: config.table.clone(),
            table,
            meta,
        }))
    }

    /// The SQL for what the table lacks. Runs it if `apply` is set.
    pub(crate) async fn prepare(
        target: &PostgresOptions,
        config: &Config,
        apply: bool,
    ) -> Result<Vec<String>> {
        let (mut connection, found, meta) = look(&options(target), config).await?;
        if !found.is_empty() {
            Layout::read(Dialect::Postgres, &config.table, &found, meta)?;
        }
        let needed = |found: &[Found], meta: bool| match found {
            [] => schema::create(Dialect::Postgres, &config.table),
            _ => schema::prepare(Dialect::Postgres, &config.table, found, meta),
        };
        let statements = if apply {
            run(&mut connection, config, needed).await?
        } else {
            needed(&found, meta)
        };
        let _ = connection.close().await;
        Ok(statements)
    }

    fn insert_query<'q>(
        &self,
        sql: &'q str,
        rows: &'q Rows<'_>,
    ) -> Query<'q, Postgres, PgArguments> {
        let names: Vec<&str> = rows.names.iter().map(|(name, _)| *name).collect();
        let expires: Vec<Option<i64>> = rows.names.iter().map(|(_, expires)| *expires).collect();
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(names);
        query = match &rows.values {
            Values::Plain(values) => {
                let values: Vec<&str> = values.iter().map(|value| value.expose()).collect();
                query.bind(values).bind(expires)
            }
            Values::Sealed { key_id, values } => {
                let column = |column: fn(&crate::envelope::Sealed) -> &Vec<u8>| -> Vec<&[u8]> {
                    values
                        .iter()
                        .map(|value| column(value).as_slice())
                        .collect()
                };
                query
                    .bind(column(|sealed| &sealed.ciphertext))
                    .bind(column(|sealed| &sealed.nonce))
                    .bind(column(|sealed| &sealed.wrapped_key))
                    .bind(column(|sealed| &sealed.key_nonce))
                    .bind(expires)
                    .bind(*key_id)
                    .bind(crate::ring_check::entry(key_id))
            }
        };
        if self.layout.owner {
            query = query.bind(rows.owner);
        }
        if self.layout.created {
            query = query.bind(rows.created);
        }
        query
    }

    /// Maps a failure. An exhausted pool hides the cause, which a new connection reveals.
    async fn explain(&self, error: sqlx::Error) -> Error {
        if matches!(error, sqlx::Error::PoolTimedOut)
            && let Err(reason) = connect(&self.options, PROBE).await
        {
            return reason;
        }
        failed(error)
    }

    /// Whether the table is being rewritten. The lock shows it to every role, also while it is waited for.
    async fn is_rewriting(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE relation = to_regclass($1) \
             AND mode = 'AccessExclusiveLock' \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
        )
        .bind(self.name.quoted())
        .fetch_one(connection)
        .await
        .and_then(|row| row.try_get(0))
    }

    async fn explained<T: Send>(&self, result: Result<T, sqlx::Error>) -> Result<T> {
        match result {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.explain(error).await),
        }
    }
}

impl Statements {
    fn new(table: &str, meta: &str, layout: Layout) -> Self {
        let column = |present: bool, name: &'static str, absent: &'static str| {
            if present { name } else { absent }
        };
        let expires = column(layout.expires, "expires", "NULL::bigint");
        let head = format!(
            "SELECT coordinate, {}, {}, {expires}, {} FROM {table}",
            column(layout.owner, "owner", "NULL::text"),
            column(layout.created, "created", "NULL::bigint"),
            column(layout.sealed, "key_id", "NULL::text"),
        );
        // Concurrent inserts take their locks in the same order. Names are compared as bytes, because a
        // collation may take longer than all the rest.
        let insert = |columns: &str, input: &str, names: &str, first: usize, condition: &str| {
            let mut into = format!("coordinate, {columns}");
            let mut from = format!("n.coordinate, {names}");
            let ours = [
                (layout.owner, "owner", "text"),
                (layout.created, "created", "bigint"),
            ];
            for (index, (_, name, kind)) in ours.iter().filter(|(has, ..)| *has).enumerate() {
                into.push_str(&format!(", {name}"));
                from.push_str(&format!(", ${}::{kind}", first + index));
            }
            if layout.expires {
                into.push_str(", expires");
                from.push_str(", n.expires");
            }
            let all = format!(
                "INSERT INTO {table} ({into}) SELECT {from} FROM {input} {condition} \
                 ORDER BY n.coordinate COLLATE \"C\""
            );
            let missing = format!("{all} ON CONFLICT (coordinate) DO NOTHING RETURNING coordinate");
            Insert { all, missing }
        };
        Self {
            read_plain: format!(
                "SELECT coordinate, {expires}, payload FROM {table} WHERE coordinate = ANY($1)"
            ),
            read_sealed: format!(
                "SELECT {} FROM {table} WHERE coordinate = ANY($1)",
                sealed_columns(layout)
            ),
            list: format!(
                "{head} WHERE coordinate > $1 AND starts_with(coordinate, $2) \
                 ORDER BY coordinate LIMIT $3"
            ),
            describe: format!("{head} WHERE coordinate = ANY($1)"),
            delete: format!("DELETE FROM {table} WHERE coordinate = ANY($1)"),
            insert_plain: insert(
                "payload",
                "unnest($1::text[], $2::text[], $3::bigint[]) AS n(coordinate, payload, expires)",
                "n.payload",
                4,
                "",
            ),
            insert_sealed: insert(
                "ciphertext, nonce, wrapped_key, key_nonce, key_id",
                "unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], \
                 $6::bigint[]) AS n(coordinate, ciphertext, nonce, wrapped_key, key_nonce, expires)",
                "n.ciphertext, n.nonce, n.wrapped_key, n.key_nonce, $7::text",
                9,
                // `retire_key` removes the check value, and so forbids writing.
                &format!("WHERE EXISTS (SELECT 1 FROM {meta} WHERE name = $8::text)"),
            ),
        }
    }
}

#[async_trait]
impl Describe for PostgresClient {
    async fn describe(&self, names: &[&str]) -> Result<Vec<Described>> {
        let rows = sqlx::query(AssertSqlSafe(self.sql.describe.as_str()))
            .bind(names)
            .fetch_all(&self.pool)
            .await
            .and_then(|rows| {
                rows.iter()
                    .map(|row| Ok((row.try_get(0)?, decode_head(row).map_err(failed))))
                    .collect()
            });
        self.explained(rows).await
    }
}

#[async_trait]
impl Client for PostgresClient {
    fn layout(&self) -> Layout {
        self.layout
    }

    async fn read(&self, names: &[&str], columns: Columns) -> Result<Vec<(usize, Row)>> {
        let sql = match columns {
            Columns::Plain => &self.sql.read_plain,
            Columns::Sealed => &self.sql.read_sealed,
        };
        let rows = sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(names)
            .fetch_all(&self.pool)
            .await
            .and_then(|rows| {
                let places: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
                let mut found = Vec::with_capacity(rows.len());
                for row in &rows {
                    if let Some(place) = places.get(row.try_get::<&str, _>(0)?) {
                        found.push((*place, decode(row, columns)));
                    }
                }
                Ok(found)
            });
        self.explained(rows).await
    }

    /// A row of Postgres is one message, whose columns are decoded in place: joining them saves nothing.
    async fn read_joined(&self, _: &[&str], _: &str) -> Result<Option<Vec<JoinedRow>>> {
        Ok(None)
    }

    async fn insert(&self, rows: &Rows<'_>) -> Result<Inserted> {
        let insert = match rows.values {
            Values::Plain(_) => &self.sql.insert_plain,
            Values::Sealed { .. } => &self.sql.insert_sealed,
        };
        match self
            .insert_query(&insert.all, rows)
            .execute(&self.pool)
            .await
        {
            Ok(done) if done.rows_affected() == rows.names.len() as u64 => {
                return Ok(Inserted::All);
            }
            // The key may not be used for writing any more.
            Ok(_) => return Ok(Inserted::Only(HashSet::new())),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(self.explain(error).await),
        }
        let inserted = self
            .insert_query(&insert.missing, rows)
            .fetch_all(&self.pool)
            .await
            .and_then(|inserted| names_of(&inserted).map(Inserted::Only));
        self.explained(inserted).await
    }

    async fn delete(&self, names: &[&str]) -> Result<()> {
        let deleted = sqlx::query(AssertSqlSafe(self.sql.delete.as_str()))
            .bind(names)
            .execute(&self.pool)
            .await;
        self.explained(deleted).await.map(drop)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Head>> {
        let heads = sqlx::query(AssertSqlSafe(self.sql.list.as_str()))
            .bind(after.unwrap_or_default())
            .bind(prefix)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .and_then(|rows| rows.iter().map(decode_head).collect());
        self.explained(heads).await
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
            "SELECT {} FROM {} WHERE {condition} AND coordinate > $2 {end}ORDER BY coordinate LIMIT $3",
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
        let rows = query.fetch_all(&self.pool).await.and_then(|rows| {
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, decode(row, Columns::Sealed))))
                .collect()
        });
        self.explained(rows).await
    }

    async fn range_end(&self, after: Option<&str>, rows: usize) -> Result<Option<(String, u64)>> {
        let end = sqlx::query(AssertSqlSafe(range_end(&self.table)))
            .bind(after.unwrap_or_default())
            .bind(i64::try_from(rows).unwrap_or(i64::MAX))
            .fetch_optional(&self.pool)
            .await
            .and_then(|row| row.as_ref().map(decode_end).transpose());
        self.explained(end).await
    }

    async fn count(&self, filter: &Filter) -> Result<u64> {
        let (condition, key_id) = condition(filter);
        let sql = format!("SELECT count(*) FROM {} WHERE {condition}", self.table);
        let count = sqlx::query(AssertSqlSafe(sql))
            .bind(key_id)
            .fetch_one(&self.pool)
            .await
            .and_then(|row| row.try_get::<i64, _>(0));
        self.explained(count).await.map(i64::unsigned_abs)
    }

    async fn swap(&self, swaps: &[Swap]) -> Result<HashSet<String>> {
        let mut swapped = HashSet::with_capacity(swaps.len());
        let (plain, sealed): (Vec<&Swap>, Vec<&Swap>) = swaps
            .iter()
            .partition(|swap| matches!(swap.before, Before::Plain(_)));
        for (kind, unchanged, swaps) in [
            (
                "text",
                "t.payload = n.before AND t.ciphertext IS NULL",
                plain,
            ),
            (
                "bytea",
                "t.payload IS NULL AND t.wrapped_key = n.before",
                sealed,
            ),
        ] {
            let Some(first) = swaps.first() else { continue };
            let sql = format!(
                "UPDATE {} AS t SET payload = NULL, ciphertext = n.ciphertext, nonce = n.nonce, \
                 wrapped_key = n.wrapped_key, key_nonce = n.key_nonce, key_id = $7 \
                 FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], \
                 $6::bytea[], $8::{kind}[]) \
                 AS n(coordinate, expires, ciphertext, nonce, wrapped_key, key_nonce, before) \
                 WHERE t.coordinate = n.coordinate AND t.expires IS NOT DISTINCT FROM n.expires \
                 AND {unchanged} AND EXISTS (SELECT 1 FROM {} WHERE name = $9) \
                 RETURNING t.coordinate",
                self.table, self.meta
            );
            let column = |column: fn(&Swap) -> &Vec<u8>| -> Vec<&[u8]> {
                swaps.iter().map(|swap| column(swap).as_slice()).collect()
            };
            let query = sqlx::query(AssertSqlSafe(sql))
                .bind(
                    swaps
                        .iter()
                        .map(|swap| swap.coordinate.as_str())
                        .collect::<Vec<_>>(),
                )
                .bind(swaps.iter().map(|swap| swap.expires).collect::<Vec<_>>())
                .bind(column(|swap| &swap.after.ciphertext))
                .bind(column(|swap| &swap.after.nonce))
                .bind(column(|swap| &swap.after.wrapped_key))
                .bind(column(|swap| &swap.after.key_nonce))
                .bind(first.after.key_id.as_str());
            let query = match &first.before {
                Before::Plain(_) => query.bind(
                    swaps
                        .iter()
                        .filter_map(|swap| match &swap.before {
                            Before::Plain(value) => Some(value.expose()),
                            Before::Sealed(_) => None,
                        })
                        .collect::<Vec<_>>(),
                ),
                Before::Sealed(_) => query.bind(
                    swaps
                        .iter()
                        .filter_map(|swap| match &swap.before {
                            Before::Sealed(wrapped_key) => Some(wrapped_key.as_slice()),
                            Before::Plain(_) => None,
                        })
                        .collect::<Vec<_>>(),
                ),
            };
            let updated = query
                .bind(crate::ring_check::entry(&first.after.key_id))
                .fetch_all(&self.pool)
                .await
                .and_then(|rows| names_of(&rows));
            swapped.extend(self.explained(updated).await?);
        }
        Ok(swapped)
    }

    async fn meta(&self) -> Result<Vec<(String, Vec<u8>)>> {
        if !self.layout.meta {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT name, value FROM {}", self.meta);
        let entries = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await
            .and_then(|rows| {
                rows.iter()
                    .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                    .collect()
            });
        self.explained(entries).await
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
        let put = sqlx::query(AssertSqlSafe(sql))
            .bind(name)
            .bind(value)
            .execute(&self.pool)
            .await;
        self.explained(put).await.map(drop)
    }

    async fn remove_meta(&self, name: &str) -> Result<()> {
        let removed = sqlx::query(AssertSqlSafe(format!(
            "DELETE FROM {} WHERE name = $1",
            self.meta
        )))
        .bind(name)
        .execute(&self.pool)
        .await;
        self.explained(removed).await.map(drop)
    }

    async fn barrier(&self) -> Result<()> {
        // Conflicts with writers' locks, so it is granted when all earlier ones have ended.
        let barrier = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(AssertSqlSafe(format!(
                "LOCK TABLE {} IN SHARE MODE",
                self.table
            )))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        }
        .await;
        self.explained(barrier).await
    }

    async fn scrub(&self, asked: bool, still: &(dyn Fn() + Sync)) -> Result<bool> {
        if !asked {
            return Ok(false);
        }
        // VACUUM skips tables of other owners with only a notice.
        let ours = sqlx::query(
            "SELECT pg_has_role(c.relowner, 'MEMBER') OR pg_has_role(d.datdba, 'MEMBER') \
             FROM pg_class c, pg_database d \
             WHERE c.oid = to_regclass($1) AND d.datname = current_database()",
        )
        .bind(self.name.quoted())
        .fetch_one(&self.pool)
        .await
        .and_then(|row| row.try_get::<bool, _>(0));
        if !self.explained(ours).await? {
            return Ok(false);
        }
        // A connection of its own: the pool may have only the one that rewrites.
        let mut beside = connect(&self.options, PROBE).await?;
        let vacuum = format!("VACUUM (FULL) {}", self.table);
        let rewriting = std::pin::pin!(sqlx::query(AssertSqlSafe(vacuum)).execute(&self.pool));
        let looks = std::pin::pin!(async {
            loop {
                tokio::time::sleep(LOOK).await;
                // What fails here says nothing about the rewriting.
                if self.is_rewriting(&mut beside).await.unwrap_or(false) {
                    still();
                }
            }
        });
        let rewritten = match select(rewriting, looks).await {
            Either::Left((rewritten, _)) => rewritten,
            Either::Right((never, _)) => never,
        };
        self.explained(rewritten).await.map(|_| true)
    }

    fn out_of_reach(&self) -> &'static [&'static str] {
        &[
            "free space in the table's files, until VACUUM FULL has rewritten them",
            "the write-ahead log on the server, and its archive",
            "replicas, until they have replayed the changes, and subscribers of logical replication",
            "backups, dumps and snapshots",
            "the server's statement log, if it logs parameters",
            "rotate these credentials at their origin if anyone may have seen them",
        ]
    }

    async fn principal(&self) -> Result<String> {
        let role = sqlx::query("SELECT current_user::text")
            .fetch_one(&self.pool)
            .await
            .and_then(|row| row.try_get(0));
        self.explained(role).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// The options of every connection. libpq's variables may set the other ones (PGAPPNAME, PGOPTIONS,
/// client certificates), but never location, role, password and TLS.
fn options(target: &PostgresOptions) -> PgConnectOptions {
    target.to_driver("secret-persistence-db")
}

async fn connect(options: &PgConnectOptions, wait: Duration) -> Result<PgConnection> {
    let options = options.clone();
    within(wait, async move {
        PgConnection::connect_with(&options).await.map_err(failed)
    })
    .await
}

/// Connects and looks at the table, all within the time for a connection: a server may accept one and
/// then be silent.
async fn look(
    options: &PgConnectOptions,
    config: &Config,
) -> Result<(PgConnection, Vec<Found>, bool)> {
    let (options, table) = (options.clone(), config.table.clone());
    within(config.connect_timeout, async move {
        let mut connection = PgConnection::connect_with(&options).await.map_err(failed)?;
        let (found, meta) = columns(&mut connection, &table).await?;
        Ok((connection, found, meta))
    })
    .await
}

/// The table's columns, none if it is missing, and whether the second table exists.
async fn columns(connection: &mut PgConnection, table: &TableName) -> Result<(Vec<Found>, bool)> {
    let found = sqlx::query(
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull \
         FROM pg_attribute \
         WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
    )
    .bind(table.quoted())
    .fetch_all(&mut *connection)
    .await
    .and_then(|rows| {
        rows.iter()
            .map(|row| {
                Ok(Found {
                    name: row.try_get(0)?,
                    kind: row.try_get(1)?,
                    not_null: row.try_get(2)?,
                })
            })
            .collect()
    })
    .map_err(failed)?;
    let meta = sqlx::query("SELECT to_regclass($1) IS NOT NULL")
        .bind(table.meta().quoted())
        .fetch_one(connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    Ok((found, meta))
}

/// Runs the needed statements. No other process of ours can change the table meanwhile.
async fn run(
    connection: &mut PgConnection,
    config: &Config,
    needed: impl Fn(&[Found], bool) -> Vec<String>,
) -> Result<Vec<String>> {
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(ADVISORY_LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    let (found, meta) = columns(&mut transaction, &config.table).await?;
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
    let expires = if layout.expires {
        "expires"
    } else {
        "NULL::bigint"
    };
    let rest = if layout.sealed {
        "ciphertext, nonce, wrapped_key, key_nonce, key_id"
    } else {
        "NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea, NULL::text"
    };
    format!("coordinate, {expires}, payload, {rest}")
}

/// The condition of a filter and its parameter `$1`, which is NULL if unused.
fn condition(filter: &Filter) -> (&'static str, Option<&str>) {
    match filter {
        Filter::Plain => ("payload IS NOT NULL AND $1::text IS NULL", None),
        Filter::Sealed => ("payload IS NULL AND $1::text IS NULL", None),
        Filter::SealedNotUnder(key_id) => (
            "payload IS NULL AND key_id IS DISTINCT FROM $1",
            Some(key_id),
        ),
        Filter::SealedUnder(key_id) => ("key_id = $1", Some(key_id)),
    }
}

/// Whether a name exists, or one of the table's other unique columns has the value.
fn is_conflict(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

fn names_of(rows: &[PgRow]) -> Result<HashSet<String>, sqlx::Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}

fn failed(error: sqlx::Error) -> Error {
    from_sqlx("postgres", POSTGRES, &error)
}
