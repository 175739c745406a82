//! The journal of a run in SQLite or Postgres: how it is opened, whose it is, and how it is closed.
pub(super) mod entries;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::passes::Passes;
use super::shared;
use crate::address::{self, Variables};
use crate::database::{self, Database, Purpose, Texts};
use crate::{Counts, Journal, MigrateError, MigrateErrorKind, MigrateResult, Run};

/// The layout of tables from other versions is unknown.
const FORMAT: &str = "1";

/// The format of a journal that is not bound to a run yet.
const UNBOUND: &str = "1, nothing done";

/// Names are compared by their bytes: SQLite does so by default, Postgres needs a collation.
pub(super) const TABLES: [(&str, &str); 4] = [
    (
        "migrate_run",
        "one BIGINT PRIMARY KEY CHECK (one = 1), format TEXT NOT NULL, run TEXT NOT NULL, scan BIGINT NOT NULL",
    ),
    (
        "migrate_secret",
        "coordinate TEXT{collation} PRIMARY KEY, state TEXT NOT NULL, intent BIGINT NOT NULL, \
         scan BIGINT NOT NULL, holder TEXT, shared BIGINT NOT NULL",
    ),
    (
        "migrate_configuration",
        "key TEXT{collation} PRIMARY KEY, scan BIGINT NOT NULL",
    ),
    (
        "migrate_note",
        "key TEXT{collation} PRIMARY KEY, text TEXT NOT NULL",
    ),
];

/// A journal in an SQLite file or a Postgres database, locked against a second process, or in
/// Postgres shared with others.
#[derive(Debug)]
pub struct SqlJournal {
    database: Database,
    name: String,
    /// Whether it is known that something has been done for the run.
    bound: AtomicBool,
    /// Whether other processes may use it too.
    is_shared: bool,
}

impl SqlJournal {
    /// Opens the journal at a path, or at a URL without credentials, which come from the
    /// environment. Creates it if it is missing; [`close`](Self::close) removes it if nothing was done.
    ///
    /// # Errors
    /// If it cannot be opened, or another process uses it.
    pub async fn open(text: &str, variables: Variables<'_>) -> MigrateResult<Self> {
        Self::open_for(text, variables, Purpose::Own).await
    }

    /// Opens the journal for a command that several processes [share](crate::Sharing). In Postgres it then
    /// admits others that open it in this way; a file admits one process in any case.
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
        let mut journal = Self::of(database.map_err(of_journal)?);
        journal.is_shared = purpose == Purpose::Share && journal.database.is_postgres();
        journal.create().await?;
        Ok(journal)
    }

    /// Creates the tables that are missing, and what a table of an earlier build is without.
    async fn create(&self) -> MigrateResult<()> {
        let mut tables = TABLES.to_vec();
        if self.is_shared {
            tables.extend(shared::TABLES);
        }
        let is_early = self.database.is_postgres()
            && !self.few(shared::EARLY.into(), Vec::new()).await?.is_empty();
        // Check first: Postgres refuses even `IF NOT EXISTS` without the permission to create.
        if !is_early && self.tables(&tables).await? == tables.len() {
            return Ok(());
        }
        let mut script = self.database.creation(&tables);
        if is_early {
            script.push_str(shared::COMPLETE);
        }
        let created = self.database.script(script).await.map_err(of_journal);
        created.map_err(|error| match is_early {
            true => error.with_hint(shared::BY_ITS_OWNER),
            false => error,
        })
    }

    /// Counts the secrets of a journal by state, even while another process uses the journal.
    ///
    /// # Errors
    /// If there is no journal, or if it cannot be read now. A file is locked while a migration runs; a
    /// Postgres database is not.
    pub async fn progress(text: &str, variables: Variables<'_>) -> MigrateResult<Counts> {
        let journal = Self::look(text, variables).await?;
        let counts = journal.counts().await;
        // Not `close`, which may remove the journal.
        journal.stop_looking().await;
        counts
    }

    /// Opens a journal that other processes may use, to read it.
    pub(super) async fn look(text: &str, variables: Variables<'_>) -> MigrateResult<Self> {
        let database = if address::is_url(text) {
            let url = address::parse(text)?;
            let settings = database::settings(&url, database::SERVER, variables)?;
            Database::open(&url, &settings, Purpose::Look).await
        } else {
            Database::sqlite(Path::new(text), Purpose::Look).await
        };
        Ok(Self::of(database.map_err(of_journal)?))
    }

    /// Closes a journal that was only read.
    pub(super) async fn stop_looking(&self) {
        self.database.close().await;
    }

    fn of(database: Database) -> Self {
        Self {
            name: database.name().to_owned(),
            database,
            bound: AtomicBool::new(false),
            is_shared: false,
        }
    }

    /// Closes it, so that no auxiliary files remain. Removes it if nothing was done for the run.
    pub async fn close(&self) {
        // If this fails, the next run takes the journal over.
        let _ = self.remove_unbound().await;
        self.database.close().await;
    }

    async fn remove_unbound(&self) -> MigrateResult<()> {
        if self.bound.load(Ordering::Relaxed)
            || self
                .kept()
                .await?
                .is_some_and(|(format, _)| format != UNBOUND)
        {
            return Ok(());
        }
        if self.is_shared && !self.is_alone().await? {
            return Ok(());
        }
        for (name, _) in TABLES.into_iter().chain(shared::TABLES) {
            self.change(format!("DROP TABLE IF EXISTS {name}"), Vec::new())
                .await?;
        }
        self.database.remove_if_empty().await.map_err(of_journal)
    }

    /// What processes that share it claim.
    pub(super) fn passes(&self) -> Passes<'_> {
        self.passes_of("migrate")
    }

    /// The passes in tables of the same database whose names begin so.
    pub(super) fn passes_of(&self, prefix: &'static str) -> Passes<'_> {
        Passes::new(&self.database, prefix)
    }

    /// The number of sessions that it has had.
    pub(super) fn sessions(&self) -> u64 {
        self.database.sessions()
    }

    /// Takes a shared journal for this process alone, if no other uses it.
    async fn is_alone(&self) -> MigrateResult<bool> {
        let lock = database::JOURNAL_LOCK;
        let sql = format!("SELECT CAST(pg_try_advisory_lock({lock}) AS TEXT)");
        let answer = self.few(sql, Vec::new()).await?;
        Ok(answer == [[Some("true".to_owned())]])
    }

    /// Shares the journal again.
    async fn share_again(&self) -> MigrateResult<()> {
        let lock = database::JOURNAL_LOCK;
        let sql = format!("SELECT CAST(pg_advisory_unlock({lock}) AS TEXT)");
        self.few(sql, Vec::new()).await.map(drop)
    }

    /// The number of these tables that exist.
    pub(super) async fn tables(&self, tables: &[(&str, &str)]) -> MigrateResult<usize> {
        self.database.tables(tables).await.map_err(of_journal)
    }

    /// The stored format and run, if any.
    pub(super) async fn kept(&self) -> MigrateResult<Option<(String, String)>> {
        let sql = "SELECT format, run FROM migrate_run";
        let Some(row) = self.few(sql.into(), Vec::new()).await?.into_iter().next() else {
            return Ok(None);
        };
        match <[_; 2]>::try_from(row) {
            Ok([Some(format), Some(run)]) => Ok(Some((format, run))),
            _ => Err(self.damaged()),
        }
    }

    /// Empties the journal and notes its run, without binding it.
    async fn forget(&self, run: String) -> MigrateResult<()> {
        let mut tables = TABLES.to_vec();
        if self.tables(&shared::TABLES).await? == shared::TABLES.len() {
            tables.extend(shared::TABLES);
        }
        for (name, _) in tables {
            self.change(format!("DELETE FROM {name}"), Vec::new())
                .await?;
        }
        self.note_run(run).await
    }

    async fn note_run(&self, run: String) -> MigrateResult<()> {
        let sql = "INSERT INTO migrate_run (one, format, run, scan) VALUES (1, $1, $2, 0) \
                   ON CONFLICT (one) DO NOTHING";
        self.change(sql.into(), vec![UNBOUND.into(), run]).await
    }

    /// Notes the run in a journal without one, or in one that nobody else uses and nobody did
    /// anything in.
    async fn open_shared_for(&self, run: &Run, text: String) -> MigrateResult<()> {
        if self.is_alone().await? {
            let forgotten = self.forget(text).await;
            self.share_again().await?;
            return forgotten;
        }
        self.note_run(text).await?;
        let (_, kept) = self.kept().await?.ok_or_else(|| self.damaged())?;
        let kept: Run = serde_json::from_str(&kept).map_err(|_| self.damaged())?;
        if kept == *run {
            return Ok(());
        }
        Err(MigrateError::another_run(self.to_string(), &kept, run))
    }

    /// Ends the pass of others, for what this process does alone.
    async fn end_pass(&self) -> MigrateResult<()> {
        if self.is_shared || self.tables(&shared::TABLES).await? < shared::TABLES.len() {
            return Ok(());
        }
        self.passes().end().await
    }

    /// Binds the journal to its run, before the first change.
    pub(super) async fn bind(&self) -> MigrateResult<()> {
        if self.bound.load(Ordering::Relaxed) {
            return Ok(());
        }
        let sql = "UPDATE migrate_run SET format = $1";
        self.change(sql.into(), vec![FORMAT.into()]).await?;
        self.bound.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The only number of a result.
    pub(super) fn number<N: FromStr>(&self, rows: Vec<Texts>) -> MigrateResult<N> {
        rows.into_iter()
            .next()
            .and_then(|mut row| row.pop().flatten())
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| self.damaged())
    }

    /// The rows of the JSON array of texts in the first parameter: `value`.
    pub(super) fn texts(&self) -> &'static str {
        if self.database.is_postgres() {
            "jsonb_array_elements_text(CAST($1 AS jsonb)) AS items(value)"
        } else {
            "json_each($1) AS items"
        }
    }

    /// The rows of the JSON array in the first parameter: `value`.
    pub(super) fn items(&self) -> &'static str {
        if self.database.is_postgres() {
            "jsonb_array_elements(CAST($1 AS jsonb)) AS items(value)"
        } else {
            "json_each($1) AS items"
        }
    }

    pub(super) async fn few(
        &self,
        sql: String,
        parameters: Vec<String>,
    ) -> MigrateResult<Vec<Texts>> {
        self.database.few(sql, parameters).await.map_err(of_journal)
    }

    pub(super) async fn change(&self, sql: String, parameters: Vec<String>) -> MigrateResult<()> {
        self.database
            .execute(sql, parameters)
            .await
            .map(drop)
            .map_err(of_journal)
    }

    pub(super) fn damaged(&self) -> MigrateError {
        MigrateError::new(
            MigrateErrorKind::Journal,
            "the journal contains an entry that this version did not write",
        )
        .with_place(self.to_string())
        .with_hint(
            "restore it, or start with a new one: copy detects what is already in the target",
        )
    }
}

/// Errors name the journal; errors in the operator's input keep their kind.
pub(crate) fn of_journal(error: MigrateError) -> MigrateError {
    if error.kind() == MigrateErrorKind::Unavailable {
        error.of_kind(MigrateErrorKind::Journal).within("journal")
    } else {
        error.within("journal")
    }
}

impl fmt::Display for SqlJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal {}", self.name)
    }
}

#[cfg(test)]
mod tests;
