//! A ledger in an SQLite file, which several processes may share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use secret_persistence_core::{Error, ErrorKind, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Transaction};
use tokio::sync::Mutex;

use super::LedgerQuery;
use super::line::Stored;
use super::table::{Append, Examine, Names, Sql, impl_examine, pruned_meanwhile, stored};
use crate::error::{SQLITE, from_sqlx};
use crate::naming::TableName;
use crate::sqlite::create_private;

/// Finds a text in another one.
const POSITION: &str = "instr";

/// Writes with one connection.
pub(super) struct Appender {
    path: PathBuf,
    busy: Duration,
    sql: Sql,
    insert: String,
    connection: Option<SqliteConnection>,
}

impl Appender {
    pub(super) fn new(path: PathBuf, table: &TableName, busy: Duration) -> Self {
        Self {
            path,
            busy,
            sql: Sql::new(table, POSITION),
            insert: format!(
                "INSERT INTO {} (writer, sequence, at, coordinate, line) VALUES ($1, $2, $3, $4, $5)",
                table.quoted()
            ),
            connection: None,
        }
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        if !self.path.exists() {
            create_private(&self.path)?;
        }
        let mut connection = connect(&self.path, self.busy).await?;
        sqlx::raw_sql(AssertSqlSafe(self.sql.create.as_str()))
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        Ok(connection)
    }
}

async fn connect(path: &Path, busy: Duration) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(busy)
        .journal_mode(SqliteJournalMode::Wal)
        // A line must be on disk before its value is handed out.
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging();
    SqliteConnection::connect_with(&options)
        .await
        .map_err(failed)
}

#[async_trait]
impl Append for Appender {
    async fn append(&mut self, lines: &[Stored]) -> Result<()> {
        // Taken out, so that a call that is cancelled or fails leaves none.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        // Of no lines too: a file that cannot be written is found nevertheless.
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)?;
        for line in lines {
            sqlx::query(AssertSqlSafe(self.insert.as_str()))
                .bind(&*line.writer)
                .bind(line.sequence)
                .bind(line.at)
                .bind(&line.coordinate)
                .bind(&line.text)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// Reads and prunes with one connection.
pub(super) struct Examiner {
    connection: Mutex<SqliteConnection>,
    sql: Sql,
    history: String,
}

impl Examiner {
    pub(super) async fn open(path: &Path, table: &TableName, busy: Duration) -> Result<Self> {
        if !path.is_file() {
            let message = format!("the file {} does not exist", path.display());
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_hint("check the path"));
        }
        let sql = Sql::new(table, POSITION);
        Ok(Self {
            connection: Mutex::new(connect(path, busy).await?),
            history: history(table, &sql),
            sql,
        })
    }
}

/// One look into the index for each name, and one statement for all.
fn history(table: &TableName, sql: &Sql) -> String {
    let name = table.quoted();
    let looks = |names: &str, which: &str| {
        format!(
            "SELECT line.writer, line.sequence, line.at, line.coordinate, line.line
             FROM json_each({names}) AS wanted JOIN {name} AS line ON line.rowid = (
                 SELECT rowid FROM {name} WHERE coordinate = wanted.value AND {which}
                 ORDER BY at DESC LIMIT 1
             )"
        )
    };
    let (returned, beginning) = (&sql.returned, &sql.beginning);
    let managed = looks("$1", returned);
    let external = looks("$2", &format!("{returned} AND {}", sql.in_default));
    format!("{managed} UNION ALL {external} {beginning}")
}

fn bound(names: &[&str]) -> String {
    serde_json::json!(names).to_string()
}

impl_examine!(Examiner, failed);

/// Begins the transaction of a prune, after that of any other one.
async fn begin_alone(
    connection: &mut SqliteConnection,
) -> sqlx::Result<Transaction<'_, sqlx::Sqlite>> {
    connection.begin_with("BEGIN IMMEDIATE").await
}

fn failed(error: sqlx::Error) -> Error {
    from_sqlx("sqlite", SQLITE, &error)
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::*;

    /// A page of configurations has thousands of names, and a ledger millions of lines.
    #[tokio::test]
    async fn each_name_is_one_look_into_the_index() {
        let table: TableName = "secret_ledger".parse().unwrap();
        let sql = Sql::new(&table, POSITION);
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.create.as_str()))
            .execute(&mut connection)
            .await
            .unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {}", history(&table, &sql));
        let rows = sqlx::query(AssertSqlSafe(explain))
            .bind(bound(&["a", "b"]))
            .bind(bound(&["c"]))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let steps: Vec<String> = rows
            .iter()
            .map(|row| row.try_get("detail").unwrap())
            .collect();
        let looks = |what: &str| steps.iter().filter(|step| step.contains(what)).count();
        // Each managed name and each external one, and the marks of prunes. An index of all lines of a name
        // would be a look at each description of a secret that nobody reads.
        let by_name = "INDEX secret_ledger_reads (coordinate=?)";
        assert_eq!(looks(by_name), 2, "{steps:?}");
        let marks = "INDEX secret_ledger_coordinate (coordinate=?)";
        assert_eq!(looks(marks), 1, "{steps:?}");
        // The oldest line.
        assert_eq!(looks("USING INDEX secret_ledger_at"), 1, "{steps:?}");
        assert_eq!(looks("TEMP B-TREE"), 0, "nothing is sorted: {steps:?}");
    }
}
