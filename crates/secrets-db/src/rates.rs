//! Quotas that several processes share, in a table of Postgres.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use secret_persistence_core::rates::{Draw, SharedRates, Slice};
use secret_persistence_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::error::{POSTGRES, from_sqlx};
use crate::postgres_options::PostgresOptions;

/// Two processes that start together create the table one after the other. Any number works.
const ADVISORY_LOCK: i64 = 0x5ec7_e75d_b003;

/// How long a draw may take, with the connection that it may need. Then its caller goes on without.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many draws are under way at once.
const CONNECTIONS: usize = 2;

/// A connection that was idle for longer is not used again: something on the way may have forgotten it.
const IDLE: Duration = Duration::from_secs(60);

/// One row for each bucket. Times are nanoseconds since 1970 by the database's clock.
///
/// `next` is the first slot that nobody has drawn. Slots at once are counted in `spent` since `since`, and
/// in `before` for the window before that; there are none before `quiet`. The fill factor leaves room for
/// the row's next version in its page.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS secret_rates (
    bucket TEXT PRIMARY KEY,
    asked BIGINT NOT NULL,
    next BIGINT NOT NULL,
    quiet BIGINT NOT NULL,
    since BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    before BIGINT NOT NULL,
    at_once BOOLEAN NOT NULL
) WITH (fillfactor = 10)";

const NOW: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000000000 AS BIGINT)";

/// Whoever asked later by the clock than this: the clock was set back.
const SET_BACK: &str = "10000000000";

/// The rules of a bucket, in one statement: whoever waits for the row sees what others have drawn.
///
/// Each slot moves `next` by one distance, also one that is for now: after a whole quota at once, the
/// next window's worth of time is paid for. Slots at once are drawn only where those of the last window
/// and the one before leave room, and no slot of that time was drawn for the future. Hence no window
/// contains more than its quota. A crash of the database may forget draws of the last moment; that the
/// commit does not wait for the disk makes it fast.
fn draw_statement() -> String {
    let cost = "CAST($2 AS BIGINT) * CAST($4 AS BIGINT)";
    let over = "c.t >= r.since + CAST($3 AS BIGINT)";
    let spent = format!("CASE WHEN {over} THEN 0 ELSE r.spent END");
    let before = format!(
        "CASE WHEN c.t >= r.since + 2 * CAST($3 AS BIGINT) THEN 0 WHEN {over} THEN r.spent \
         ELSE r.before END"
    );
    let fits = format!(
        "(CAST($6 AS BIGINT) = 0 AND c.t >= r.quiet AND {spent} + {before} + CAST($2 AS BIGINT) <= CAST($5 AS BIGINT))"
    );
    let end = format!("greatest(r.next, c.t + CAST($6 AS BIGINT)) + {cost}");
    format!(
        "UPDATE secret_rates AS r SET asked = c.t, at_once = {fits}, next = {end}, \
             quiet = CASE WHEN {fits} THEN r.quiet ELSE {end} + CAST($3 AS BIGINT) END, \
             since = CASE WHEN {over} THEN c.t ELSE r.since END, before = {before}, \
             spent = {spent} + CASE WHEN {fits} THEN CAST($2 AS BIGINT) ELSE 0 END \
         FROM (SELECT {NOW} AS t, set_config('synchronous_commit', 'off', true) AS quick) AS c \
         WHERE r.bucket = $1 AND r.asked < c.t + {SET_BACK} \
         RETURNING c.t, CASE WHEN r.at_once THEN c.t ELSE r.next - {cost} END, r.at_once, c.quick"
    )
}

/// A new bucket, or one of a time that has not come yet.
fn begin_statement() -> String {
    format!(
        "INSERT INTO secret_rates AS r (bucket, asked, next, quiet, since, spent, before, at_once) \
         SELECT $1, t, t, t, t, 0, 0, false FROM (SELECT {NOW} AS t) AS c \
         ON CONFLICT (bucket) DO UPDATE SET asked = excluded.asked, \
             next = excluded.next + CAST($2 AS BIGINT), quiet = excluded.next + 2 * CAST($2 AS BIGINT), \
             since = excluded.since, spent = 0, before = 0 \
         WHERE r.asked >= excluded.asked + {SET_BACK}"
    )
}

/// Quotas that processes share in a Postgres database: [`SharedRates`] for
/// [`Stack::with_shared_rates`](https://docs.rs/secret-persistence-core/latest/secret_persistence_core/layer/struct.Stack.html).
///
/// It connects when it is first used, and creates the table `secret_rates` if it is missing; its role
/// may read, insert and update in that table, and create it once. A bucket is one row. A draw is one statement,
/// some ten a second for each process that is at its quota. One that takes longer than a second fails.
/// Clones share their connections, of which there are two at most.
///
/// ```
/// use secret_persistence_core::SecretValue;
/// use secret_persistence_db::{PostgresOptions, PostgresRates};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), secret_persistence_core::Error> {
/// let url = SecretValue::new("postgres://rates:hunter2@db.example/platform".to_owned());
/// let rates = PostgresRates::new(&PostgresOptions::from_url(&url)?);
/// assert_eq!(rates.to_string(), "db.example:5432/platform");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresRates {
    connections: Arc<Connections>,
    place: String,
}

/// Connections that are used again only after an answer. One that was given up may never answer, so it is
/// closed without a word to the server, and another one can be opened at once: a pool asks first whether
/// it still answers, and waits for that.
struct Connections {
    options: PgConnectOptions,
    permits: Semaphore,
    idle: Mutex<Vec<(PgConnection, Instant)>>,
}

impl Connections {
    /// One that was used lately, if there is one.
    fn used(&self) -> Option<PgConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(connection, _)| connection)
    }

    fn put_back(&self, connection: PgConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((connection, Instant::now()));
    }
}

impl PostgresRates {
    /// Prepares to share quotas in a database. Sends nothing yet.
    #[must_use]
    pub fn new(options: &PostgresOptions) -> Self {
        let connections = Connections {
            options: options.to_driver("secret-rates"),
            permits: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
        };
        Self {
            connections: Arc::new(connections),
            place: options.to_string(),
        }
    }

    async fn draw_or_begin(&self, draw: &Draw) -> Result<Slice, sqlx::Error> {
        // Never closed, so there is a permit in the end.
        let _permit = self.connections.permits.acquire().await;
        while let Some(mut connection) = self.connections.used() {
            match draw_or_begin(&mut connection, draw).await {
                // The server has ended it since. What it may have drawn nevertheless is lost.
                Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => {}
                Err(error) if is_ended(&error) => {}
                answer => return self.answered(connection, answer),
            }
        }
        let mut connection = PgConnection::connect_with(&self.connections.options).await?;
        let answer = draw_or_begin(&mut connection, draw).await;
        self.answered(connection, answer)
    }

    fn answered<T>(
        &self,
        connection: PgConnection,
        answer: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        if answer.is_ok() {
            self.connections.put_back(connection);
        }
        answer
    }

    fn failed(&self, error: &sqlx::Error) -> Error {
        from_sqlx("postgres", POSTGRES, error).with_store(self.place.as_str())
    }
}

async fn draw_or_begin(connection: &mut PgConnection, draw: &Draw) -> Result<Slice, sqlx::Error> {
    let drawn = match draw_once(connection, draw).await {
        Err(error) if is_missing_table(&error) => None,
        other => other?,
    };
    if let Some(slice) = drawn {
        return Ok(slice);
    }
    begin(connection, draw).await?;
    let drawn = draw_once(connection, draw).await?;
    drawn.ok_or(sqlx::Error::RowNotFound)
}

async fn draw_once(
    connection: &mut PgConnection,
    draw: &Draw,
) -> Result<Option<Slice>, sqlx::Error> {
    let row = sqlx::query(AssertSqlSafe(draw_statement()))
        .bind(&draw.bucket)
        .bind(i64::from(draw.units))
        .bind(nanoseconds(draw.window()))
        .bind(nanoseconds(draw.spacing()))
        .bind(i64::from(draw.room()))
        .bind(nanoseconds(draw.ahead))
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (now, first) = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
    let time = |time: i64| Duration::from_nanos(time.unsigned_abs());
    let spacing = match row.try_get(2)? {
        true => Duration::ZERO,
        false => draw.spacing(),
    };
    Ok(Some(Slice::new(time(now), time(first), spacing)))
}

async fn begin(connection: &mut PgConnection, draw: &Draw) -> Result<(), sqlx::Error> {
    match begin_bucket(connection, draw).await {
        Err(error) if is_missing_table(&error) => {}
        other => return other,
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(ADVISORY_LOCK)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(TABLE).execute(&mut *transaction).await?;
    transaction.commit().await?;
    begin_bucket(connection, draw).await
}

async fn begin_bucket(connection: &mut PgConnection, draw: &Draw) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(begin_statement()))
        .bind(&draw.bucket)
        .bind(nanoseconds(draw.window()))
        .execute(connection)
        .await
        .map(drop)
}

/// `admin_shutdown` and its siblings: the session is over.
fn is_ended(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.starts_with("57P"))
}

/// `undefined_table`.
fn is_missing_table(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some("42P01"))
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[async_trait]
impl SharedRates for PostgresRates {
    async fn draw(&self, draw: &Draw) -> Result<Slice> {
        match timeout(PATIENCE, self.draw_or_begin(draw)).await {
            Ok(answer) => answer.map_err(|error| self.failed(&error)),
            Err(_) => {
                let message = format!("no answer within {PATIENCE:?}");
                Err(Error::new(ErrorKind::Unavailable, message).with_store(self.place.as_str()))
            }
        }
    }
}

/// Shows the location.
impl fmt::Display for PostgresRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Debug for PostgresRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresRates")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
