//! What a ledger's place does for its writer and its readers, and the SQL of both engines.

use async_trait::async_trait;
use secret_persistence_core::settings::invalid;
use secret_persistence_core::{Error, ErrorKind, Result};

use super::config::Target;
use super::line::Stored;
use super::{LedgerConfig, LedgerQuery, file};
use crate::naming::{TableName, quote};

/// Appends lines. One owner calls it, with one call at a time.
#[async_trait]
pub(super) trait Append: Send {
    /// Connects if there is no connection, and appends lines; they are durable when it returns. Of no
    /// lines, it finds out whether it could write some.
    /// After an error it is unknown whether they are there, and the next call connects anew.
    async fn append(&mut self, lines: &[Stored]) -> Result<()>;
}

/// Reads a ledger, and removes what is pruned.
#[async_trait]
pub(super) trait Examine: Send + Sync {
    /// Every line, by writer and sequence, as they were at one moment. Returns how many lines are
    /// cut off.
    async fn scan(&self, each: &mut (dyn FnMut(Stored) + Send)) -> Result<u64>;

    /// The lines whose columns fit, by time.
    async fn search(
        &self,
        query: &LedgerQuery,
        each: &mut (dyn FnMut(Stored) + Send),
    ) -> Result<()>;

    /// In any order, as they were at one moment: for each name the last line that says it was read, the
    /// mark of every prune, and the oldest line.
    async fn history(&self, names: &Names<'_>, each: &mut (dyn FnMut(Stored) + Send))
    -> Result<()>;

    /// Waits until no other prune is under way, and keeps others waiting while the result lives. Of a
    /// table nobody waits: there `prune` finds out.
    async fn alone(&self) -> Result<Option<std::fs::File>> {
        Ok(None)
    }

    /// Puts a mark in the place of the line with its sequence, and removes those before it: as many
    /// rows as were verified, or none. Then another prune has removed some of them since.
    async fn prune(&self, mark: &Stored, rows: u64) -> Result<()>;
}

pub(super) fn appender(config: &LedgerConfig) -> Result<Box<dyn Append>> {
    match &config.target {
        #[cfg(feature = "postgres")]
        Target::Postgres(options, table) => Ok(Box::new(super::postgres::Appender::new(
            options.clone(),
            table,
        ))),
        #[cfg(feature = "sqlite")]
        Target::Sqlite(path, table) => Ok(Box::new(super::sqlite::Appender::new(
            path.clone(),
            table,
            config.timeout,
        ))),
        Target::Folder(folder, most_bytes) => {
            Ok(Box::new(file::Appender::new(folder.clone(), *most_bytes)))
        }
        #[allow(unreachable_patterns, reason = "with both features")]
        _ => Err(not_built_in()),
    }
}

pub(super) async fn examiner(config: &LedgerConfig) -> Result<Box<dyn Examine>> {
    match &config.target {
        #[cfg(feature = "postgres")]
        Target::Postgres(options, table) => Ok(Box::new(
            super::postgres::Examiner::open(options, table).await?,
        )),
        #[cfg(feature = "sqlite")]
        Target::Sqlite(path, table) => Ok(Box::new(
            super::sqlite::Examiner::open(path, table, config.timeout).await?,
        )),
        Target::Folder(folder, _) => Ok(Box::new(file::Examiner::open(folder)?)),
        #[allow(unreachable_patterns, reason = "with both features")]
        _ => Err(not_built_in()),
    }
}

#[allow(dead_code, reason = "with both features")]
fn not_built_in() -> Error {
    invalid("this engine is not built in").with_hint("add the feature `postgres` or `sqlite`")
}

/// What the text of a line has whose read returned a value. Within a string, its quotes would be escaped.
pub(super) const RETURNED: [&str; 2] = [",\"operation\":\"read\",", ",\"outcome\":\"ok\","];

/// What the text of a line has that is about another storage than the default one.
pub(super) const ELSEWHERE: &str = ",\"storage_id\":\"";

/// The names that a history is asked about.
#[derive(Default)]
pub(super) struct Names<'n> {
    /// Each is one secret, in whichever storage.
    pub(super) managed: Vec<&'n str>,
    /// Each is another secret in another storage: those of the default one.
    pub(super) external: Vec<&'n str>,
}

/// The statements.
#[derive(Clone, Debug)]
pub(super) struct Sql {
    pub(super) create: String,
    /// Adds the index of reads, of which a table of an earlier build is without.
    #[cfg(feature = "postgres")]
    pub(super) index: String,
    /// Whether a line says that a value was returned: the condition of the index, word for word.
    pub(super) returned: String,
    /// Whether a line is about the default storage.
    pub(super) in_default: String,
    pub(super) scan: String,
    /// Lines between two times.
    pub(super) search: String,
    /// The same for one coordinate.
    pub(super) search_coordinate: String,
    pub(super) prune: String,
    /// Adds a mark.
    pub(super) mark: String,
    /// The end of `history`, after the statement for the names, which differs: marks, and the oldest line.
    pub(super) beginning: String,
}

impl Sql {
    /// `position` is the engine's function for the position of a text in another one.
    pub(super) fn new(table: &TableName, position: &str) -> Self {
        let name = table.quoted();
        let index = |column: &str| quote(&format!("{}_{column}", table.table()));
        let [read, ok] = RETURNED.map(|part| format!("{position}(line, '{part}') > 0"));
        let returned = format!("{read} AND {ok}");
        // A name that is described each hour, and never read, has none of these.
        let reads = format!(
            "CREATE INDEX IF NOT EXISTS {} ON {name} (coordinate, at) WHERE {returned};",
            index("reads")
        );
        Self {
            create: format!(
                "CREATE TABLE IF NOT EXISTS {name} (
                    writer TEXT NOT NULL,
                    sequence BIGINT NOT NULL,
                    at BIGINT NOT NULL,
                    coordinate TEXT NOT NULL,
                    line TEXT NOT NULL,
                    PRIMARY KEY (writer, sequence)
                );
                CREATE INDEX IF NOT EXISTS {} ON {name} (at);
                CREATE INDEX IF NOT EXISTS {} ON {name} (coordinate, at);
                {reads}",
                index("at"),
                index("coordinate"),
            ),
            #[cfg(feature = "postgres")]
            index: reads,
            returned,
            in_default: format!("{position}(line, '{ELSEWHERE}') = 0"),
            scan: format!(
                "SELECT writer, sequence, at, coordinate, line FROM {name}
                 ORDER BY writer, sequence"
            ),
            search: format!(
                "SELECT writer, sequence, at, coordinate, line FROM {name}
                 WHERE at >= $1 AND at < $2 ORDER BY at, writer, sequence"
            ),
            search_coordinate: format!(
                "SELECT writer, sequence, at, coordinate, line FROM {name}
                 WHERE at >= $1 AND at < $2 AND coordinate = $3 ORDER BY at, writer, sequence"
            ),
            prune: format!("DELETE FROM {name} WHERE writer = $1 AND sequence <= $2"),
            mark: format!(
                "INSERT INTO {name} (writer, sequence, at, coordinate, line)
                 VALUES ($1, $2, $3, $4, $5)"
            ),
            beginning: format!(
                "UNION ALL
                 SELECT writer, sequence, at, coordinate, line FROM {name} WHERE coordinate = ''
                 UNION ALL
                 SELECT writer, sequence, at, coordinate, line FROM (
                     SELECT * FROM {name} ORDER BY at LIMIT 1
                 ) AS oldest"
            ),
        }
    }
}

/// Decodes a row by position: writer, sequence, at, coordinate, line.
pub(super) fn stored<R>(row: &R) -> Result<Stored, sqlx::Error>
where
    R: sqlx::Row,
    usize: sqlx::ColumnIndex<R>,
    for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    Ok(Stored {
        writer: row.try_get(0)?,
        sequence: row.try_get(1)?,
        at: row.try_get(2)?,
        coordinate: row.try_get(3)?,
        text: row.try_get(4)?,
        separable: true,
    })
}

/// A prune that verified lines which are not there any more: its mark would count them again.
#[cfg_attr(not(any(feature = "postgres", feature = "sqlite")), allow(dead_code))]
pub(super) fn pruned_meanwhile() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "lines that were verified are gone: another prune removed them meanwhile",
    )
    .with_hint("run it again; let only one process prune a ledger")
}

/// Implements `Examine` for a type with the fields `connection`, `sql` and `history`, in a module with
/// `begin_alone` and `bound`. The statements are the same, but sqlx's two databases have no common trait to write them once.
macro_rules! impl_examine {
    ($examiner:ty, $failed:path) => {
        #[async_trait]
        impl Examine for $examiner {
            async fn scan(&self, each: &mut (dyn FnMut(Stored) + Send)) -> Result<u64> {
                let mut connection = self.connection.lock().await;
                let mut rows =
                    sqlx::query(AssertSqlSafe(self.sql.scan.as_str())).fetch(&mut *connection);
                while let Some(row) = rows.try_next().await.map_err($failed)? {
                    each(stored(&row).map_err($failed)?);
                }
                Ok(0)
            }

            async fn search(
                &self,
                query: &LedgerQuery,
                each: &mut (dyn FnMut(Stored) + Send),
            ) -> Result<()> {
                let mut connection = self.connection.lock().await;
                let (since, until) = query.seconds();
                let statement = match &query.coordinate {
                    None => sqlx::query(AssertSqlSafe(self.sql.search.as_str()))
                        .bind(since)
                        .bind(until),
                    Some(wanted) => sqlx::query(AssertSqlSafe(self.sql.search_coordinate.as_str()))
                        .bind(since)
                        .bind(until)
                        .bind(wanted.as_str()),
                };
                let mut rows = statement.fetch(&mut *connection);
                while let Some(row) = rows.try_next().await.map_err($failed)? {
                    each(stored(&row).map_err($failed)?);
                }
                Ok(())
            }

            async fn history(
                &self,
                names: &Names<'_>,
                each: &mut (dyn FnMut(Stored) + Send),
            ) -> Result<()> {
                let mut connection = self.connection.lock().await;
                let mut rows = sqlx::query(AssertSqlSafe(self.history.as_str()))
                    .bind(bound(&names.managed))
                    .bind(bound(&names.external))
                    .fetch(&mut *connection);
                while let Some(row) = rows.try_next().await.map_err($failed)? {
                    each(stored(&row).map_err($failed)?);
                }
                Ok(())
            }

            async fn prune(&self, mark: &Stored, rows: u64) -> Result<()> {
                let mut connection = self.connection.lock().await;
                let mut transaction = begin_alone(&mut connection).await.map_err($failed)?;
                let removed = sqlx::query(AssertSqlSafe(self.sql.prune.as_str()))
                    .bind(&*mark.writer)
                    .bind(mark.sequence)
                    .execute(&mut *transaction)
                    .await
                    .map_err($failed)?;
                if removed.rows_affected() != rows {
                    transaction.rollback().await.map_err($failed)?;
                    return Err(pruned_meanwhile());
                }
                sqlx::query(AssertSqlSafe(self.sql.mark.as_str()))
                    .bind(&*mark.writer)
                    .bind(mark.sequence)
                    .bind(mark.at)
                    .bind(&mark.coordinate)
                    .bind(&mark.text)
                    .execute(&mut *transaction)
                    .await
                    .map_err($failed)?;
                transaction.commit().await.map_err($failed)
            }
        }
    };
}

pub(super) use impl_examine;
