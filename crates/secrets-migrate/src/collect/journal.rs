//! What a collector remembers between two runs: names and times, per store.
//!
//! A row is a secret that the last listing found and that no configuration has named since. `since` is
//! set when every configuration was read, so a run that was killed before has seen nothing.
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use futures::future::BoxFuture;
use secret_persistence_core::{ManagedCoordinate, Timestamp};
use serde_json::{Value, json};

use super::Reason;
use crate::address::{self, Variables};
use crate::database::{self, Database, Purpose, Texts};
use crate::journal::of_journal;
use crate::journal::passes::{Claimed, PAGE, PASS, Pages, Passes, divided, held};
use crate::shared::held::Claims;
use crate::{Claim, MigrateError, MigrateErrorKind, MigrateResult};

/// The layout of tables from other versions is unknown.
const FORMAT: &str = "1";

/// Names are compared by their bytes: SQLite does so by default, Postgres needs a collation.
const TABLES: [(&str, &str); 3] = [
    (
        "collect_run",
        "store TEXT{collation} PRIMARY KEY, format TEXT NOT NULL, run BIGINT NOT NULL",
    ),
    (
        "collect_source",
        "store TEXT{collation} NOT NULL, source TEXT{collation} NOT NULL, PRIMARY KEY (store, source)",
    ),
    (
        "collect_secret",
        "store TEXT{collation} NOT NULL, coordinate TEXT{collation} NOT NULL, reason TEXT NOT NULL, \
         created BIGINT, since BIGINT, run BIGINT NOT NULL, PRIMARY KEY (store, coordinate)",
    ),
];

/// The tables of a journal that processes share.
const SHARED: [(&str, &str); 2] = [("collect_pass", PASS), ("collect_page", PAGE)];

/// What a page found in which a delete failed.
pub(super) const FAILED: &str = "failed";

/// A collector's memory in an SQLite file or a Postgres database, open and locked against a second
/// process, or in Postgres shared with others.
///
/// It contains names and times, and nothing derived from a value. One journal may serve several
/// stores.
#[derive(Debug)]
pub struct CollectJournal {
    database: Database,
    name: String,
    /// Whether other processes may use it too.
    is_shared: bool,
}

/// A secret that was listed.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) coordinate: ManagedCoordinate,
    pub(super) reason: Reason,
    pub(super) created: Option<Timestamp>,
}

/// A secret that no configuration names.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) listed: Listed,
    /// The first of the runs that found it so.
    pub(super) since: Timestamp,
}

impl CollectJournal {
    /// Opens the journal at a path, or at a URL without credentials, which come from the
    /// environment. Creates it if it is missing.
    ///
    /// # Errors
    /// If it cannot be opened, or another process uses it.
    pub async fn open(text: &str, variables: Variables<'_>) -> MigrateResult<Self> {
        Self::open_for(text, variables, Purpose::Own).await
    }

    /// Opens the journal for a run that several processes share. In Postgres it then admits others that
    /// open it in this way; a file admits one process in any case.
    ///
    /// # Errors
    /// If it cannot be opened, or another process uses it alone.
    pub async fn open_shared(text: &str, variables: Variables<'_>) -> MigrateResult<Self> {
        Self::open_for(text, variables, Purpose::Share).await
    }

    async fn open_for(
        text: &str,
        variables: Variables<'_>,
        purpose: Purpose,
    ) -> MigrateResult<Self> {
        let database = if address::is_url(text) {
            let url = address::parse(text)?;
            let settings = database::settings(&url, database::SERVER, variables)?;
            Database::open(&url, &settings, purpose).await
        } else {
            Database::sqlite(Path::new(text), purpose).await
        };
        let database = database.map_err(of_journal)?;
        let journal = Self {
            name: database.name().to_owned(),
            is_shared: purpose == Purpose::Share && database.is_postgres(),
            database,
        };
        journal.create().await?;
        Ok(journal)
    }

    /// Closes it, so that no auxiliary files remain.
    pub async fn close(&self) {
        self.database.close().await;
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The number of its session, as [`Sharing::session`](crate::Sharing::session).
    pub(super) fn session(&self) -> u64 {
        self.database.sessions()
    }

    /// What processes that share it claim.
    pub(super) fn passes(&self) -> Passes<'_> {
        Passes::new(&self.database, "collect")
    }

    /// Begins a run over a store and returns its number. Like every write with a claim, it changes nothing
    /// and fails with `Lapsed` if another process has taken the page over.
    ///
    /// # Errors
    /// `Undecided` if an earlier run has read a source of configurations that this one lacks.
    pub(super) async fn begin(
        &self,
        claim: Option<Claim>,
        store: &str,
        sources: &[String],
    ) -> MigrateResult<u64> {
        let format = "SELECT format FROM collect_run WHERE store = $1";
        for row in self.few(format, vec![store.into()]).await? {
            if row != [Some(FORMAT.to_owned())] {
                return Err(self.damaged());
            }
        }
        let known = "SELECT source FROM collect_source WHERE store = $1 ORDER BY source";
        for row in self.few(known, vec![store.into()]).await? {
            let known = row.into_iter().next().flatten();
            if let Some(missing) = known.filter(|known| !sources.contains(known)) {
                return Err(MigrateError::undecided(
                    "an earlier run has read this source of configurations, and this one lacks it: its \
                     secrets would seem to be unreferenced",
                )
                .with_place(missing)
                .with_hint("add it, or use a new journal: the waiting then begins again"));
            }
        }
        if claim.is_none() && self.tables(&SHARED).await? == SHARED.len() {
            self.passes().end().await?;
        }
        let sql = " INSERT INTO collect_run (store, format, run) SELECT $1, #1, 1 WHERE true{held} \
             ON CONFLICT (store) DO UPDATE SET run = collect_run.run + 1 \
             RETURNING CAST(run AS TEXT)";
        let (items, more) = (store.to_owned(), vec![FORMAT.to_owned()]);
        match claim {
            None => {
                let sql = alone(sql);
                let rows = self.few(&sql, [vec![items], more].concat());
                self.number(rows.await?)
            }
            Some(claim) => {
                let passes = self.passes();
                passes.write_for(claim, &under(sql), items, more).await
            }
        }
    }

    /// Records what a run has listed. What an earlier run has seen stays seen, for the same reason only.
    pub(super) async fn list(
        &self,
        claim: Option<Claim>,
        store: &str,
        run: u64,
        listed: &[Listed],
    ) -> MigrateResult<()> {
        // A name that a listing repeats is one.
        let items: BTreeMap<&str, Value> = listed
            .iter()
            .map(|listed| {
                let item = json!({
                    "c": listed.coordinate.as_str(),
                    "r": listed.reason.as_str(),
                    "t": listed.created.map(Timestamp::unix_seconds),
                });
                (listed.coordinate.as_str(), item)
            })
            .collect();
        let sql = format!(
            "INSERT INTO collect_secret (store, coordinate, reason, created, since, run) \
             SELECT #1, items.value ->> 'c', items.value ->> 'r', CAST(items.value ->> 't' AS BIGINT), NULL, \
                    CAST(#2 AS BIGINT) \
             FROM {} WHERE true{{held}} \
             ON CONFLICT (store, coordinate) DO UPDATE SET \
                since = CASE WHEN collect_secret.reason = excluded.reason THEN collect_secret.since END, \
                reason = excluded.reason, created = excluded.created, run = excluded.run",
            self.items()
        );
        let items = Value::Array(items.into_values().collect()).to_string();
        self.write(claim, &sql, items, vec![store.into(), run.to_string()])
            .await
    }

    /// Forgets names that a configuration has. What has expired goes nevertheless.
    pub(super) async fn mention(
        &self,
        claim: Option<Claim>,
        store: &str,
        names: &[ManagedCoordinate],
    ) -> MigrateResult<()> {
        if names.is_empty() {
            return Ok(());
        }
        let expired = Reason::Expired.as_str();
        let sql = format!("{} AND reason <> '{expired}'{{held}}", self.removal());
        self.write(claim, &sql, items(names), vec![store.into()])
            .await
    }

    /// Forgets names that were deleted.
    pub(super) async fn forget(
        &self,
        store: &str,
        names: &[ManagedCoordinate],
    ) -> MigrateResult<()> {
        if names.is_empty() {
            return Ok(());
        }
        self.write(None, self.removal(), items(names), vec![store.into()])
            .await
    }

    /// The same at the end of a page, with what that found.
    pub(super) async fn finish(
        &self,
        claim: Claim,
        store: &str,
        names: &[ManagedCoordinate],
        found: Option<&str>,
    ) -> MigrateResult<()> {
        let held = held(", done = 1, found = NULLIF($7, '')");
        let removal = format!("{}{{held}}", self.removal());
        let write = format!(", changed AS ({})", under(&removal));
        let more = vec![store.to_owned(), found.unwrap_or_default().to_owned()];
        let passes = self.passes();
        passes.write(&held, claim, &write, items(names), more).await
    }

    fn removal(&self) -> &'static str {
        if self.database.is_postgres() {
            "DELETE FROM collect_secret WHERE store = #1 AND coordinate IN ( \
                SELECT items.value ->> 'c' FROM jsonb_array_elements(CAST($1 AS jsonb)) AS items(value))"
        } else {
            "DELETE FROM collect_secret WHERE store = #1 AND coordinate IN ( \
                SELECT items.value ->> 'c' FROM json_each($1) AS items)"
        }
    }

    /// Ends the reading of all configurations: what this run has not listed is forgotten, and what is
    /// left is seen from now on, if it was not before. A time in the future is that of a wrong clock.
    pub(super) async fn settle(
        &self,
        claim: Option<Claim>,
        store: &str,
        run: u64,
        sources: &[String],
        now: Timestamp,
    ) -> MigrateResult<()> {
        let store = || store.to_owned();
        let unlisted =
            "DELETE FROM collect_secret WHERE store = $1 AND run <> CAST(#1 AS BIGINT){held}";
        self.write(claim, unlisted, store(), vec![run.to_string()])
            .await?;
        let known = "INSERT INTO collect_source (store, source) SELECT $1, #1 WHERE true{held} \
                     ON CONFLICT (store, source) DO NOTHING";
        for source in sources {
            self.write(claim, known, store(), vec![String::clone(source)])
                .await?;
        }
        let seen = "UPDATE collect_secret SET since = CAST(#1 AS BIGINT) \
                    WHERE store = $1 AND (since IS NULL OR since > CAST(#1 AS BIGINT)){held}";
        let now = now.unix_seconds().to_string();
        self.write(claim, seen, store(), vec![now]).await
    }

    /// Ends the first page, and lays out those of what goes.
    pub(super) async fn lay_out(
        &self,
        claim: Claim,
        store: &str,
        until: Timestamp,
        size: usize,
    ) -> MigrateResult<()> {
        let until = until.unix_seconds();
        let rows = format!(
            "collect_secret WHERE store = $1 AND {}",
            goes(&until.to_string())
        );
        let pages = Pages {
            pages: divided(&rows, size),
            parameter: store.to_owned(),
            scan: until.unsigned_abs(),
            last: false,
        };
        self.passes().lay_out(claim, pages).await
    }

    /// What goes of a page, and until when it was seen.
    pub(super) async fn due_in(
        &self,
        store: &str,
        page: &Claimed,
    ) -> MigrateResult<(Timestamp, Vec<Seen>)> {
        let time = || {
            let until = i64::try_from(page.scan?).ok()?;
            Some((Timestamp::from_unix_seconds(until).ok()?, until))
        };
        let (until, seconds) = time().ok_or_else(|| self.damaged())?;
        let sql = format!(
            "{SEEN} WHERE store = $1 AND coordinate > $2 AND coordinate <= $3 AND {} ORDER BY coordinate",
            goes(&seconds.to_string())
        );
        let after = page.after.clone().unwrap_or_default();
        let upto = page.upto.clone().ok_or_else(|| self.damaged())?;
        let rows = self.few(&sql, vec![store.into(), after, upto]).await?;
        let due = rows
            .into_iter()
            .map(|row| seen(row).ok_or_else(|| self.damaged()));
        Ok((until, due.collect::<MigrateResult<_>>()?))
    }

    /// Counts those that go: the ones for whose reason nobody waits, and those seen until `until`.
    pub(super) async fn due(&self, store: &str, until: Timestamp) -> MigrateResult<u64> {
        let sql = format!(
            "SELECT CAST(COUNT(*) AS TEXT) FROM collect_secret WHERE store = $1 AND {}",
            goes("$2")
        );
        let rows = self.few(&sql, vec![store.into(), until.unix_seconds().to_string()]);
        self.number(rows.await?)
    }

    /// Reads at most `limit` secrets after a name.
    pub(super) async fn page(
        &self,
        store: &str,
        after: Option<&ManagedCoordinate>,
        limit: usize,
    ) -> MigrateResult<Vec<Seen>> {
        let sql = format!(
            "{SEEN} WHERE store = $1 AND coordinate > $2 ORDER BY coordinate LIMIT {limit}"
        );
        let after = after.map_or("", ManagedCoordinate::as_str).to_owned();
        self.few(&sql, vec![store.into(), after])
            .await?
            .into_iter()
            .map(|row| seen(row).ok_or_else(|| self.damaged()))
            .collect()
    }

    /// Creates the tables that are missing.
    async fn create(&self) -> MigrateResult<()> {
        let mut tables = TABLES.to_vec();
        if self.is_shared {
            tables.extend(SHARED);
        }
        // Check first: Postgres refuses even `IF NOT EXISTS` without the permission to create.
        if self.tables(&tables).await? == tables.len() {
            return Ok(());
        }
        let sql = self.database.creation(&tables);
        self.database.script(sql).await.map_err(of_journal)
    }

    /// The number of these tables that exist.
    async fn tables(&self, tables: &[(&str, &str)]) -> MigrateResult<usize> {
        let counted = self.database.tables(tables).await;
        counted.map_err(of_journal)
    }

    /// Runs a statement, under a claim if there is one. `$1` is the first parameter, `#1` and so on are the
    /// others, and `{held}` is the condition that the claim lasts.
    async fn write(
        &self,
        claim: Option<Claim>,
        sql: &str,
        items: String,
        more: Vec<String>,
    ) -> MigrateResult<()> {
        let Some(claim) = claim else {
            return self.change(alone(sql), [vec![items], more].concat()).await;
        };
        let write = format!(", changed AS ({})", under(sql));
        let passes = self.passes();
        passes.write(&held(""), claim, &write, items, more).await
    }

    fn number(&self, rows: Vec<Texts>) -> MigrateResult<u64> {
        let number = rows.into_iter().next().and_then(|mut row| row.pop()?);
        number
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| self.damaged())
    }

    /// The rows of the JSON array in the first parameter: `value`.
    fn items(&self) -> &'static str {
        if self.database.is_postgres() {
            "jsonb_array_elements(CAST($1 AS jsonb)) AS items(value)"
        } else {
            "json_each($1) AS items"
        }
    }

    pub(super) async fn few(
        &self,
        sql: &str,
        parameters: Vec<String>,
    ) -> MigrateResult<Vec<Texts>> {
        let rows = self.database.few(sql.to_owned(), parameters).await;
        rows.map_err(of_journal)
    }

    async fn change(&self, sql: String, parameters: Vec<String>) -> MigrateResult<()> {
        let changed = self.database.execute(sql, parameters).await;
        changed.map(drop).map_err(of_journal)
    }

    pub(super) fn damaged(&self) -> MigrateError {
        MigrateError::new(
            MigrateErrorKind::Journal,
            "the journal contains an entry that this version did not write",
        )
        .with_place(self.to_string())
        .with_hint("use a new one: the waiting then begins again")
    }
}

const SEEN: &str =
    "SELECT coordinate, reason, CAST(created AS TEXT), CAST(since AS TEXT) FROM collect_secret";

/// The condition on those that go: the ones for whose reason nobody waits, and those seen until a time.
fn goes(until: &str) -> String {
    format!(
        "(reason IN ('{}', '{}') OR reason = '{}' AND since <= CAST({until} AS BIGINT))",
        Reason::Ephemeral.as_str(),
        Reason::Expired.as_str(),
        Reason::Orphaned.as_str(),
    )
}

fn alone(sql: &str) -> String {
    sql.replace("{held}", "")
        .replace("#1", "$2")
        .replace("#2", "$3")
}

/// A claim has the parameters from the second to the fifth.
fn under(sql: &str) -> String {
    sql.replace("{held}", " AND EXISTS (SELECT 1 FROM held)")
        .replace("#1", "$6")
        .replace("#2", "$7")
}

/// Names as JSON.
fn items(names: &[ManagedCoordinate]) -> String {
    let names = names.iter().map(|name| json!({ "c": name.as_str() }));
    Value::Array(names.collect()).to_string()
}

fn seen(row: Texts) -> Option<Seen> {
    let [coordinate, reason, created, since] = <[_; 4]>::try_from(row).ok()?;
    let time = |text: String| Timestamp::from_unix_seconds(text.parse().ok()?).ok();
    let created = match created {
        None => None,
        Some(created) => Some(time(created)?),
    };
    Some(Seen {
        listed: Listed {
            coordinate: ManagedCoordinate::parse(&coordinate?).ok()?,
            reason: Reason::parse(&reason?)?,
            created,
        },
        since: time(since?)?,
    })
}

impl Claims for CollectJournal {
    fn current_session(&self) -> u64 {
        self.session()
    }

    fn renew_claim(&self, claim: Claim) -> BoxFuture<'_, MigrateResult<()>> {
        Box::pin(async move { self.passes().renew(claim).await })
    }
}

impl fmt::Display for CollectJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal {}", self.name)
    }
}
