//! What a collector remembers between two runs: names and times, per store.
//!
//! A row is a secret that the last listing found and that no configuration has named since. `since` is
//! set when every configuration was read, so a run that was killed before has seen nothing.
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use secret_persistence_core::{ManagedCoordinate, Timestamp};
use serde_json::{Value, json};

use super::Reason;
use crate::address::{self, Variables};
use crate::database::{self, Database, Purpose, Texts};
use crate::{MigrateError, MigrateErrorKind, MigrateResult};

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

/// A collector's memory in an SQLite file or a Postgres database, open and locked against a second
/// process.
///
/// It contains names and times, and nothing derived from a value. One journal may serve several
/// stores.
#[derive(Debug)]
pub struct CollectJournal {
    database: Database,
    name: String,
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
        let database = if address::is_url(text) {
            let url = address::parse(text)?;
            let settings = database::settings(&url, database::SERVER, variables)?;
            Database::open(&url, &settings, Purpose::Own).await
        } else {
            Database::sqlite(Path::new(text), Purpose::Own).await
        };
        let database = database.map_err(of_journal)?;
        let journal = Self {
            name: database.name().to_owned(),
            database,
        };
        journal.create().await?;
        Ok(journal)
    }

    /// Closes it, so that no auxiliary files remain.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Begins a run over a store and returns its number.
    ///
    /// # Errors
    /// `Undecided` if an earlier run has read a source of configurations that this one lacks.
    pub(super) async fn begin(&self, store: &str, sources: &[String]) -> MigrateResult<u64> {
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
        let rows = self
            .few(
                "INSERT INTO collect_run (store, format, run) VALUES ($1, $2, 1) \
                 ON CONFLICT (store) DO UPDATE SET run = collect_run.run + 1 \
                 RETURNING CAST(run AS TEXT)",
                vec![store.into(), FORMAT.into()],
            )
            .await?;
        let run = rows.into_iter().next().and_then(|mut row| row.pop()?);
        run.and_then(|run| run.parse().ok())
            .ok_or_else(|| self.damaged())
    }

    /// Records what a run has listed. What an earlier run has seen stays seen, for the same reason only.
    pub(super) async fn list(&self, store: &str, run: u64, listed: &[Listed]) -> MigrateResult<()> {
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
             SELECT $2, items.value ->> 'c', items.value ->> 'r', CAST(items.value ->> 't' AS BIGINT), NULL, \
                    CAST($3 AS BIGINT) \
             FROM {} WHERE true \
             ON CONFLICT (store, coordinate) DO UPDATE SET \
                since = CASE WHEN collect_secret.reason = excluded.reason THEN collect_secret.since END, \
                reason = excluded.reason, created = excluded.created, run = excluded.run",
            self.items()
        );
        let items = Value::Array(items.into_values().collect()).to_string();
        self.change(sql, vec![items, store.into(), run.to_string()])
            .await
    }

    /// Forgets names that a configuration has. What has expired goes nevertheless.
    pub(super) async fn mention(
        &self,
        store: &str,
        names: &[ManagedCoordinate],
    ) -> MigrateResult<()> {
        let expired = Reason::Expired.as_str();
        self.remove(store, names, &format!(" AND reason <> '{expired}'"))
            .await
    }

    /// Forgets names that were deleted.
    pub(super) async fn forget(
        &self,
        store: &str,
        names: &[ManagedCoordinate],
    ) -> MigrateResult<()> {
        self.remove(store, names, "").await
    }

    async fn remove(
        &self,
        store: &str,
        names: &[ManagedCoordinate],
        condition: &str,
    ) -> MigrateResult<()> {
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<Value> = names
            .iter()
            .map(|name| json!({ "c": name.as_str() }))
            .collect();
        let sql = format!(
            "DELETE FROM collect_secret WHERE store = $2{condition} \
             AND coordinate IN (SELECT items.value ->> 'c' FROM {})",
            self.items()
        );
        self.change(sql, vec![Value::Array(names).to_string(), store.into()])
            .await
    }

    /// Ends the reading of all configurations: what this run has not listed is forgotten, and what is
    /// left is seen from now on, if it was not before. A time in the future is that of a wrong clock.
    pub(super) async fn settle(
        &self,
        store: &str,
        run: u64,
        sources: &[String],
        now: Timestamp,
    ) -> MigrateResult<()> {
        let unlisted = "DELETE FROM collect_secret WHERE store = $1 AND run <> CAST($2 AS BIGINT)";
        self.change(unlisted.into(), vec![store.into(), run.to_string()])
            .await?;
        for source in sources {
            let sql = "INSERT INTO collect_source (store, source) VALUES ($1, $2) \
                       ON CONFLICT (store, source) DO NOTHING";
            self.change(sql.into(), vec![store.into(), source.clone()])
                .await?;
        }
        let now = now.unix_seconds().to_string();
        let seen = "UPDATE collect_secret SET since = CAST($2 AS BIGINT) \
                    WHERE store = $1 AND (since IS NULL OR since > CAST($2 AS BIGINT))";
        self.change(seen.into(), vec![store.into(), now]).await
    }

    /// Counts those that go: the ones for whose reason nobody waits, and those seen until `until`.
    pub(super) async fn due(&self, store: &str, until: Timestamp) -> MigrateResult<u64> {
        let sql = format!(
            "SELECT CAST(COUNT(*) AS TEXT) FROM collect_secret WHERE store = $1 AND (reason IN ('{}', '{}') \
             OR reason = '{}' AND since <= CAST($2 AS BIGINT))",
            Reason::Ephemeral.as_str(),
            Reason::Expired.as_str(),
            Reason::Orphaned.as_str(),
        );
        let rows = self
            .few(&sql, vec![store.into(), until.unix_seconds().to_string()])
            .await?;
        let count = rows.into_iter().next().and_then(|mut row| row.pop()?);
        count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| self.damaged())
    }

    /// Reads at most `limit` secrets after a name.
    pub(super) async fn page(
        &self,
        store: &str,
        after: Option<&ManagedCoordinate>,
        limit: usize,
    ) -> MigrateResult<Vec<Seen>> {
        let sql = format!(
            "SELECT coordinate, reason, CAST(created AS TEXT), CAST(since AS TEXT) FROM collect_secret \
             WHERE store = $1 AND coordinate > $2 ORDER BY coordinate LIMIT {limit}"
        );
        let after = after.map_or("", ManagedCoordinate::as_str).to_owned();
        self.few(&sql, vec![store.into(), after])
            .await?
            .into_iter()
            .map(|row| seen(row).ok_or_else(|| self.damaged()))
            .collect()
    }

    async fn create(&self) -> MigrateResult<()> {
        let (collation, exist) = if self.database.is_postgres() {
            (
                " COLLATE \"C\"",
                "to_regclass('collect_secret') IS NOT NULL",
            )
        } else {
            (
                "",
                "EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'collect_secret')",
            )
        };
        // Check first: Postgres refuses even `IF NOT EXISTS` without the permission to create.
        let exist = format!("SELECT '' WHERE {exist}");
        if !self.few(&exist, Vec::new()).await?.is_empty() {
            return Ok(());
        }
        for (name, columns) in TABLES {
            let columns = columns.replace("{collation}", collation);
            let sql = format!("CREATE TABLE IF NOT EXISTS {name} ({columns})");
            self.change(sql, Vec::new()).await?;
        }
        Ok(())
    }

    /// The rows of the JSON array in the first parameter: `value`.
    fn items(&self) -> &'static str {
        if self.database.is_postgres() {
            "jsonb_array_elements(CAST($1 AS jsonb)) AS items(value)"
        } else {
            "json_each($1) AS items"
        }
    }

    async fn few(&self, sql: &str, parameters: Vec<String>) -> MigrateResult<Vec<Texts>> {
        let rows = self.database.few(sql.to_owned(), parameters).await;
        rows.map_err(of_journal)
    }

    async fn change(&self, sql: String, parameters: Vec<String>) -> MigrateResult<()> {
        let changed = self.database.execute(sql, parameters).await;
        changed.map(drop).map_err(of_journal)
    }

    fn damaged(&self) -> MigrateError {
        MigrateError::new(
            MigrateErrorKind::Journal,
            "the journal contains an entry that this version did not write",
        )
        .with_place(self.to_string())
        .with_hint("use a new one: the waiting then begins again")
    }
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

/// Errors name the journal; errors in the operator's input keep their kind.
fn of_journal(error: MigrateError) -> MigrateError {
    if error.kind() == MigrateErrorKind::Unavailable {
        error.of_kind(MigrateErrorKind::Journal).within("journal")
    } else {
        error.within("journal")
    }
}

impl fmt::Display for CollectJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal {}", self.name)
    }
}
