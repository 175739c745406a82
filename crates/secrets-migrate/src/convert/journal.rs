//! What the processes of a conversion share: its passes, and how far encrypting again has come.
use std::fmt;

use futures::future::BoxFuture;
use secret_persistence_db::{Conversion, Range};
use serde_json::{Value, json};

use crate::address::{self, Variables};
use crate::database::{self, Database, Purpose, Texts};
use crate::journal::of_journal;
use crate::journal::passes::{PAGE, PASS, Pages, Passes, held, interval};
use crate::shared::held::Claims;
use crate::{Claim, MigrateError, MigrateErrorKind, MigrateResult};

/// The position of a re-encryption: the last name of the rows from the beginning of its table that are done,
/// the page that follows them, and when it got there. Names are in the order of the table, which is not that of this
/// one.
const TABLES: [(&str, &str); 3] = [
    ("convert_pass", PASS),
    ("convert_page", PAGE),
    (
        "convert_position",
        "reencryption BIGINT PRIMARY KEY, pass BIGINT NOT NULL, page BIGINT NOT NULL, \
         after TEXT{collation} NOT NULL, reached TIMESTAMPTZ NOT NULL",
    ),
];

/// Moves the position to the first page that has not ended, but this one. The same statement does not see
/// that this one ends. `scan` is the re-encryption.
const FOLLOWS: &str = ", follows AS ( \
        SELECT scan, page, after FROM convert_page \
        WHERE pass = CAST($2 AS BIGINT) AND done = 0 AND page <> CAST($3 AS BIGINT) AND upto IS NOT NULL \
        ORDER BY page LIMIT 1), \
     moved AS ( \
        INSERT INTO convert_position AS was (reencryption, pass, page, after, reached) \
        SELECT follows.scan, CAST($2 AS BIGINT), follows.page, follows.after, now() \
        FROM follows CROSS JOIN held WHERE follows.after IS NOT NULL \
        ON CONFLICT (reencryption) DO UPDATE SET pass = excluded.pass, page = excluded.page, \
            after = excluded.after, reached = excluded.reached \
        WHERE was.pass < excluded.pass OR was.page < excluded.page)";

/// Removes the position of the re-encryption that this page ends, and those that are void.
const ENDED: &str = ", gone AS ( \
        DELETE FROM convert_position USING held \
        WHERE reached < now() - CAST($1 AS interval) OR reencryption = ( \
            SELECT scan FROM convert_page \
            WHERE pass = CAST($2 AS BIGINT) AND page = CAST($3 AS BIGINT)))";

/// The journal of the processes that encrypt a table or rotate its key, in Postgres.
///
/// It contains names of rows, and nothing derived from a value. It may be in the database of another journal.
#[derive(Debug)]
pub struct ConvertJournal {
    database: Database,
}

impl ConvertJournal {
    /// Opens the journal at a Postgres URL without credentials, which come from the environment. Creates
    /// it if it is missing. Other processes may use it.
    ///
    /// # Errors
    /// If it is not in Postgres or cannot be opened.
    pub async fn open(text: &str, variables: Variables<'_>) -> MigrateResult<Self> {
        let url = address::is_url(text).then(|| address::parse(text));
        let url = url.transpose()?;
        let Some(url) = url.filter(|url| url.scheme().starts_with("postgres")) else {
            return Err(
                MigrateError::settings("what processes share is in Postgres").with_hint(
                    "give a URL of Postgres, or none: one process needs no journal for a table",
                ),
            );
        };
        let settings = database::settings(&url, database::SERVER, variables)?;
        let database = Database::open(&url, &settings, Purpose::Share).await;
        let journal = Self {
            database: database.map_err(of_journal)?,
        };
        // Check first: Postgres refuses even `IF NOT EXISTS` without the permission to create.
        let tables = journal.database.tables(&TABLES).await.map_err(of_journal)?;
        if tables < TABLES.len() {
            let sql = journal.database.creation(&TABLES);
            journal.database.script(sql).await.map_err(of_journal)?;
        }
        Ok(journal)
    }

    /// Closes it.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// The number of its session, as [`Sharing::session`](crate::Sharing::session).
    pub(super) fn session(&self) -> u64 {
        self.database.sessions()
    }

    /// What processes claim.
    pub(super) fn passes(&self) -> Passes<'_> {
        Passes::new(&self.database, "convert")
    }

    /// The last name of the rows that earlier passes of a re-encryption have done, the last of them not long
    /// ago.
    pub(super) async fn position(&self, reencryption: u64) -> MigrateResult<Option<String>> {
        let sql = "SELECT after FROM convert_position WHERE reencryption = CAST($1 AS BIGINT) \
                   AND reached >= now() - CAST($2 AS interval)";
        let rows = self
            .few(sql, vec![reencryption.to_string(), counts()])
            .await?;
        Ok(rows.into_iter().flatten().flatten().next())
    }

    /// Ends the first page, and lays out one for each range, and one for what comes after all. Each has the
    /// re-encryption that it is a part of, or 0.
    pub(super) async fn lay_out(
        &self,
        claim: Claim,
        reencryption: u64,
        ranges: Vec<(Range, u64)>,
    ) -> MigrateResult<()> {
        let ranges: Vec<Value> = ranges
            .into_iter()
            .map(|(range, rows)| json!({ "a": range.after, "u": range.upto, "n": rows }))
            .collect();
        let pages = Pages {
            pages: "SELECT items.key AS page, items.value ->> 'a' AS after, items.value ->> 'u' AS upto, \
                           CAST(items.value ->> 'n' AS BIGINT) AS secrets \
                    FROM jsonb_array_elements(CAST($1 AS jsonb)) WITH ORDINALITY AS items(value, key)"
                .to_owned(),
            parameter: Value::Array(ranges).to_string(),
            scan: reencryption,
            last: true,
        };
        self.passes().lay_out(claim, pages).await
    }

    /// Ends the page of a range. `moves` says that the position follows.
    pub(super) async fn finish(
        &self,
        claim: Claim,
        found: Option<&str>,
        moves: bool,
    ) -> MigrateResult<()> {
        let write = if moves { FOLLOWS } else { "" };
        self.end(claim, write, String::new(), found).await
    }

    /// Ends the last page: the next pass begins with the table.
    pub(super) async fn finish_last(&self, claim: Claim, found: Option<&str>) -> MigrateResult<()> {
        self.end(claim, ENDED, counts(), found).await
    }

    async fn end(
        &self,
        claim: Claim,
        write: &str,
        parameter: String,
        found: Option<&str>,
    ) -> MigrateResult<()> {
        let held = held(", done = 1, found = NULLIF($6, '')");
        let found = vec![found.unwrap_or_default().to_owned()];
        let passes = self.passes();
        passes.write(&held, claim, write, parameter, found).await
    }

    async fn few(&self, sql: &str, parameters: Vec<String>) -> MigrateResult<Vec<Texts>> {
        let rows = self.database.few(sql.to_owned(), parameters).await;
        rows.map_err(of_journal)
    }

    pub(super) fn damaged(&self) -> MigrateError {
        MigrateError::new(
            MigrateErrorKind::Journal,
            "the journal contains an entry that this version did not write",
        )
        .with_place(self.to_string())
    }
}

/// How long a position counts.
fn counts() -> String {
    interval(Conversion::INTERRUPTED)
}

impl Claims for ConvertJournal {
    fn current_session(&self) -> u64 {
        self.session()
    }

    fn renew_claim(&self, claim: Claim) -> BoxFuture<'_, MigrateResult<()>> {
        Box::pin(async move { self.passes().renew(claim).await })
    }
}

impl fmt::Display for ConvertJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal {}", self.database.name())
    }
}
