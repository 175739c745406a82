//! A ledger in Postgres.

use async_trait::async_trait;
use futures::TryStreamExt as _;
use secret_persistence_core::{Error, Result};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, Transaction};
use tokio::sync::Mutex;

use super::LedgerQuery;
use super::line::Stored;
use super::table::{Append, Examine, Names, Sql, impl_examine, pruned_meanwhile, stored};
use crate::error::{POSTGRES, from_sqlx};
use crate::naming::TableName;
use crate::postgres_options::PostgresOptions;

/// Two processes that start together create the table one after the other, and two that prune do so
/// one after the other. Any number works.
const ADVISORY_LOCK: i64 = 0x5ec7_e75d_b003;

/// A line must be on disk when the statement returns, whatever the database's default is.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
     WHERE current_setting('synchronous_commit') = 'off'";

/// Finds a text in another one.
const POSITION: &str = "strpos";

/// An index of a table of an earlier build keeps writers waiting while it is made, so no longer than this.
const BRIEFLY: &str = "SET LOCAL statement_timeout = '1s'";

/// Writes with one connection. The role needs to insert, and to create the table if it is missing.
pub(super) struct Appender {
    options: PostgresOptions,
    sql: Sql,
    insert: String,
    exists: String,
    connection: Option<PgConnection>,
}

impl Appender {
    pub(super) fn new(options: PostgresOptions, table: &TableName) -> Self {
        Self {
            options,
            sql: Sql::new(table, POSITION),
            insert: format!(
                "INSERT INTO {} (writer, sequence, at, coordinate, line)
                 SELECT $1, * FROM UNNEST($2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[])",
                table.quoted()
            ),
            exists: exists(table),
            connection: None,
        }
    }

    async fn connect(&self) -> Result<PgConnection> {
        let driver = self.options.to_driver("secret-ledger");
        let mut connection = PgConnection::connect_with(&driver).await.map_err(failed)?;
        sqlx::raw_sql(DURABLE)
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        let found = sqlx::query(AssertSqlSafe(self.exists.as_str()))
            .fetch_one(&mut connection)
            .await
            .and_then(|row| Ok((row.try_get::<bool, _>(0)?, row.try_get::<bool, _>(1)?)))
            .map_err(failed)?;
        let (is_there, is_indexed) = found;
        if is_there && !is_indexed {
            let added = self.add_index(&mut connection).await;
            // Lines can be written without it.
            if let Err(error) = added.map_err(failed) {
                tracing::warn!(
                    target: "secret_persistence",
                    %error,
                    "the ledger is without an index, so that it is slow to say who read a secret last; \
                     let the owner of the table add it: {}",
                    self.sql.index.replace("INDEX", "INDEX CONCURRENTLY")
                );
            }
        }
        if !is_there {
            let mut transaction = connection.begin().await.map_err(failed)?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)")
                .bind(ADVISORY_LOCK)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            sqlx::raw_sql(AssertSqlSafe(self.sql.create.as_str()))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
        }
        Ok(connection)
    }

    async fn add_index(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(BRIEFLY).execute(&mut *transaction).await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(ADVISORY_LOCK)
            .execute(&mut *transaction)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(self.sql.index.as_str()))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

#[async_trait]
impl Append for Appender {
    async fn append(&mut self, lines: &[Stored]) -> Result<()> {
        // Taken out, so that a call that is cancelled or fails leaves none.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        // Of no lines too: that the role may insert is checked nevertheless.
        let writer = lines.first().map_or("", |line| line.writer.as_str());
        let sequences: Vec<i64> = lines.iter().map(|line| line.sequence).collect();
        let times: Vec<i64> = lines.iter().map(|line| line.at).collect();
        let names: Vec<&str> = lines.iter().map(|line| line.coordinate.as_str()).collect();
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        // One statement is one transaction: all lines or none.
        sqlx::query(AssertSqlSafe(self.insert.as_str()))
            .bind(writer)
            .bind(sequences)
            .bind(times)
            .bind(names)
            .bind(texts)
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// Reads and prunes with one connection.
pub(super) struct Examiner {
    connection: Mutex<PgConnection>,
    sql: Sql,
    history: String,
}

impl Examiner {
    pub(super) async fn open(options: &PostgresOptions, table: &TableName) -> Result<Self> {
        let driver = options.to_driver("secret-ledger");
        let connection = PgConnection::connect_with(&driver).await.map_err(failed)?;
        let sql = Sql::new(table, POSITION);
        Ok(Self {
            connection: Mutex::new(connection),
            history: history(table, &sql),
            sql,
        })
    }
}

/// Whether there is the table, and whether there is the index of reads.
fn exists(table: &TableName) -> String {
    format!(
        "SELECT found.oid IS NOT NULL, EXISTS (
             SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
             WHERE indrelid = found.oid AND relname = '{}'
         ) FROM to_regclass('{}') AS found (oid)",
        format!("{}_reads", table.table()).replace('\'', "''"),
        table.quoted().replace('\'', "''")
    )
}

/// One look into the index for each name, and one statement for all.
fn history(table: &TableName, sql: &Sql) -> String {
    let name = table.quoted();
    let looks = |names: &str, which: &str| {
        format!(
            "SELECT newest.* FROM UNNEST({names}::TEXT[]) AS wanted (name)
             CROSS JOIN LATERAL (
                 SELECT writer, sequence, at, coordinate, line FROM {name}
                 WHERE coordinate = wanted.name AND {which}
                 ORDER BY at DESC LIMIT 1
             ) AS newest"
        )
    };
    let (returned, beginning) = (&sql.returned, &sql.beginning);
    let managed = looks("$1", returned);
    let external = looks("$2", &format!("{returned} AND {}", sql.in_default));
    format!("{managed} UNION ALL {external} {beginning}")
}

fn bound<'n>(names: &[&'n str]) -> Vec<&'n str> {
    names.to_vec()
}

impl_examine!(Examiner, failed);

/// Begins the transaction of a prune, after that of any other one.
async fn begin_alone(
    connection: &mut PgConnection,
) -> sqlx::Result<Transaction<'_, sqlx::Postgres>> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(ADVISORY_LOCK)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

fn failed(error: sqlx::Error) -> Error {
    from_sqlx("postgres", POSTGRES, &error)
}
