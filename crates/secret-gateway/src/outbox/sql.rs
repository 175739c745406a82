//! The schema, the statements and the row decoder of both databases.

/// The tables. Times are seconds since 1970; everything else is text.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS gateway_changes (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    scope_prefix TEXT NOT NULL,
    scope_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('abandoned', 'aborted', 'committed', 'open', 'staging')),
    record TEXT NOT NULL,
    configuration TEXT NOT NULL,
    staged_digest TEXT NOT NULL,
    saved_digest TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    request_digest TEXT,
    created BIGINT NOT NULL,
    lease BIGINT NOT NULL,
    cleaned BIGINT NOT NULL,
    due BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS gateway_changes_by_age ON gateway_changes (state, created, id);
CREATE INDEX IF NOT EXISTS gateway_changes_by_due ON gateway_changes (cleaned, due);
CREATE TABLE IF NOT EXISTS gateway_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
";

/// How many seconds later another process may take a change that one has taken.
pub(super) const AGAIN_AFTER: i64 = 60;

/// Implements [`Outbox`](super::Outbox) for a type whose `pool` field is a pool of this database.
/// The statements are the same, but sqlx's two databases have no common trait to write them once.
macro_rules! impl_outbox {
    ($outbox:ty, $row:ty) => {
        fn change(row: &$row) -> Result<Change> {
            use sqlx::Row as _;
            let read = || -> Result<Option<Change>, sqlx::Error> {
                let text = |column: &str| row.try_get::<String, _>(column);
                let number = |column: &str| row.try_get::<i64, _>(column);
                let time = |column: &str| {
                    Ok::<_, sqlx::Error>(Timestamp::from_unix_seconds(number(column)?).ok())
                };
                let key: Option<String> = row.try_get("idempotency_key")?;
                let digest: Option<String> = row.try_get("request_digest")?;
                let parts = (
                    Uuid::try_parse(&text("id")?).ok(),
                    ChangeKind::parse(&text("kind")?),
                    Uuid::try_parse(&text("scope_id")?).ok(),
                    State::parse(&text("state")?),
                    serde_json::from_str(&text("record")?).ok(),
                    time("created")?,
                    time("lease")?,
                );
                let (Some(id), Some(kind), Some(scope_id), Some(state), Some(record), Some(created), Some(lease)) =
                    parts
                else {
                    return Ok(None);
                };
                Ok(Some(Change {
                    id,
                    kind,
                    actor: text("actor")?,
                    scope_prefix: text("scope_prefix")?,
                    scope_id,
                    state,
                    record,
                    configuration: text("configuration")?,
                    staged_digest: text("staged_digest")?,
                    saved_digest: text("saved_digest")?,
                    idempotency: key.zip(digest).map(|(key, digest)| Idempotency { key, digest }),
                    created,
                    lease,
                    cleaned: number("cleaned")? != 0,
                }))
            };
            read()
                .map_err(failed("a row cannot be read"))?
                .ok_or_else(|| OutboxError::new("a row has a format that this version does not know"))
        }

        fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> OutboxError {
            move |error| OutboxError::new(doing).with_source(error)
        }

        #[async_trait::async_trait]
        impl Outbox for $outbox {
            async fn insert(&self, change: &Change) -> Result<Inserted> {
                let record = serde_json::to_string(&change.record)
                    .map_err(|error| OutboxError::new("a record cannot be written").with_source(error))?;
                let key = change.idempotency.as_ref();
                let inserted = sqlx::query(
                    "INSERT INTO gateway_changes VALUES
                     ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, $14)
                     ON CONFLICT (idempotency_key) DO NOTHING",
                )
                .bind(change.id.to_string())
                .bind(change.kind.as_str())
                .bind(&change.actor)
                .bind(&change.scope_prefix)
                .bind(change.scope_id.to_string())
                .bind(change.state.as_str())
                .bind(record)
                .bind(&change.configuration)
                .bind(&change.staged_digest)
                .bind(&change.saved_digest)
                .bind(key.map(|key| key.key.as_str()))
                .bind(key.map(|key| key.digest.as_str()))
                .bind(change.created.unix_seconds())
                .bind(change.lease.unix_seconds())
                .execute(&self.pool)
                .await
                .map_err(failed("a change cannot be recorded"))?;
                if inserted.rows_affected() == 1 {
                    return Ok(Inserted::New);
                }
                let known = match key {
                    Some(key) => self.known(&key.key).await?,
                    None => None,
                };
                match known {
                    Some(known) => Ok(Inserted::Known(Box::new(known))),
                    // The key was released between the two statements: the caller tries again.
                    None => Err(OutboxError::new("an idempotency key was just released")),
                }
            }

            async fn known(&self, key: &str) -> Result<Option<Change>> {
                sqlx::query("SELECT * FROM gateway_changes WHERE idempotency_key = $1")
                    .bind(key)
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(failed("a change cannot be read"))?
                    .map(|row| change(&row))
                    .transpose()
            }

            async fn open(&self, id: Uuid, configuration: &str, staged_digest: &str) -> Result<bool> {
                sqlx::query(
                    "UPDATE gateway_changes SET state = 'open', configuration = $1, staged_digest = $2
                     WHERE id = $3 AND state = 'staging'",
                )
                .bind(configuration)
                .bind(staged_digest)
                .bind(id.to_string())
                .execute(&self.pool)
                .await
                .map(|done| done.rows_affected() == 1)
                .map_err(failed("a staged change cannot be recorded"))
            }

            async fn get(&self, id: Uuid) -> Result<Option<Change>> {
                sqlx::query("SELECT * FROM gateway_changes WHERE id = $1")
                    .bind(id.to_string())
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(failed("a change cannot be read"))?
                    .map(|row| change(&row))
                    .transpose()
            }

            async fn swap(&self, id: Uuid, from: State, to: State) -> Result<bool> {
                let abandoned = i64::from(to == State::Abandoned);
                sqlx::query(
                    "UPDATE gateway_changes SET state = $1, due = 0,
                     idempotency_key = CASE WHEN CAST($2 AS BIGINT) = 1 THEN NULL ELSE idempotency_key END
                     WHERE id = $3 AND state = $4",
                )
                .bind(to.as_str())
                .bind(abandoned)
                .bind(id.to_string())
                .bind(from.as_str())
                .execute(&self.pool)
                .await
                .map(|done| done.rows_affected() == 1)
                .map_err(failed("the state of a change cannot be changed"))
            }

            async fn cleaned(&self, id: Uuid, again: Option<Timestamp>) -> Result<()> {
                sqlx::query("UPDATE gateway_changes SET cleaned = $1, due = $2 WHERE id = $3")
                    .bind(i64::from(again.is_none()))
                    .bind(again.map_or(0, Timestamp::unix_seconds))
                    .bind(id.to_string())
                    .execute(&self.pool)
                    .await
                    .map(|_| ())
                    .map_err(failed("the cleanup of a change cannot be recorded"))
            }

            async fn list(
                &self,
                state: State,
                before: Timestamp,
                after: Option<After>,
                limit: u32,
            ) -> Result<Vec<Change>> {
                let (created, id) =
                    after.map_or((i64::MIN, String::new()), |after| (after.created, after.id.to_string()));
                sqlx::query(
                    "SELECT * FROM gateway_changes WHERE state = $1 AND created < $2
                     AND (created > $3 OR (created = $3 AND id > $4)) ORDER BY created, id LIMIT $5",
                )
                .bind(state.as_str())
                .bind(before.unix_seconds())
                .bind(created)
                .bind(id)
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await
                .map_err(failed("changes cannot be listed"))?
                .iter()
                .map(change)
                .collect()
            }

            async fn take_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Change>> {
                // Each row is taken with a separate compare-and-swap, so that two processes do not
                // do the same work. Doing it twice would be harmless.
                let due = sqlx::query(
                    "SELECT * FROM gateway_changes WHERE cleaned = 0 AND due <= $1
                     AND state IN ('abandoned', 'aborted', 'committed') ORDER BY due LIMIT $2",
                )
                .bind(now.unix_seconds())
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await
                .map_err(failed("changes to clean up cannot be read"))?;
                let mut taken = Vec::with_capacity(due.len());
                for row in &due {
                    let change = change(row)?;
                    let swapped = sqlx::query(
                        "UPDATE gateway_changes SET due = $1 WHERE id = $2 AND cleaned = 0 AND due <= $3",
                    )
                    .bind(now.unix_seconds() + sql::AGAIN_AFTER)
                    .bind(change.id.to_string())
                    .bind(now.unix_seconds())
                    .execute(&self.pool)
                    .await
                    .map_err(failed("changes to clean up cannot be taken"))?;
                    if swapped.rows_affected() == 1 {
                        taken.push(change);
                    }
                }
                Ok(taken)
            }

            async fn abandon_stale(&self, now: Timestamp) -> Result<u64> {
                sqlx::query(
                    "UPDATE gateway_changes SET state = 'abandoned', due = 0, idempotency_key = NULL
                     WHERE state = 'staging' AND lease <= $1",
                )
                .bind(now.unix_seconds())
                .execute(&self.pool)
                .await
                .map(|done| done.rows_affected())
                .map_err(failed("stale changes cannot be abandoned"))
            }

            async fn forget(&self, before: Timestamp) -> Result<u64> {
                sqlx::query(
                    "DELETE FROM gateway_changes WHERE cleaned = 1 AND created < $1
                     AND state IN ('abandoned', 'aborted', 'committed')",
                )
                .bind(before.unix_seconds())
                .execute(&self.pool)
                .await
                .map(|done| done.rows_affected())
                .map_err(failed("old changes cannot be deleted"))
            }

            async fn counts(&self) -> Result<Vec<Count>> {
                use sqlx::Row as _;
                let rows = sqlx::query(
                    "SELECT state, COUNT(*) AS changes, MIN(created) AS oldest
                     FROM gateway_changes GROUP BY state",
                )
                .fetch_all(&self.pool)
                .await
                .map_err(failed("changes cannot be counted"))?;
                let count = |row: &$row| -> Result<Option<Count>, sqlx::Error> {
                    let state = State::parse(&row.try_get::<String, _>("state")?);
                    let changes = u64::try_from(row.try_get::<i64, _>("changes")?).ok();
                    let oldest = Timestamp::from_unix_seconds(row.try_get("oldest")?).ok();
                    Ok(state.zip(changes).zip(oldest).map(|((state, changes), oldest)| Count {
                        state,
                        changes,
                        oldest,
                    }))
                };
                rows.iter()
                    .filter_map(|row| count(row).transpose())
                    .collect::<Result<_, _>>()
                    .map_err(failed("changes cannot be counted"))
            }

            async fn same_key(&self, proof: &str) -> Result<bool> {
                use sqlx::Row as _;
                sqlx::query(
                    "INSERT INTO gateway_meta (name, value) VALUES ('key', $1)
                     ON CONFLICT (name) DO NOTHING",
                )
                .bind(proof)
                .execute(&self.pool)
                .await
                .map_err(failed("the proof of the key cannot be stored"))?;
                let kept: String = sqlx::query("SELECT value FROM gateway_meta WHERE name = 'key'")
                    .fetch_one(&self.pool)
                    .await
                    .and_then(|row| row.try_get("value"))
                    .map_err(failed("the proof of the key cannot be read"))?;
                Ok(kept == proof)
            }
        }
    };
}

pub(super) use impl_outbox;
