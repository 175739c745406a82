//! The journal of a run in SQLite or Postgres: names and states, one statement per step.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use secret_persistence_core::ManagedCoordinate;
use serde_json::{Value, json};

use super::{Sharing, shared};
use crate::address::{self, Variables};
use crate::database::{self, Database, Purpose, Texts};
use crate::{
    Counts, Journal, JournalEntry, Mention, MigrateError, MigrateErrorKind, MigrateResult, Note,
    Run, Select, State, Transition,
};

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

    /// Opens the journal for a command that several processes [share](Sharing). In Postgres it then
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

    /// Creates the tables that are missing.
    async fn create(&self) -> MigrateResult<()> {
        let mut tables = TABLES.to_vec();
        if self.is_shared {
            tables.extend(shared::TABLES);
        }
        // Check first: Postgres refuses even `IF NOT EXISTS` without the permission to create.
        if self.tables(&tables).await? == tables.len() {
            return Ok(());
        }
        let (first, collation) = if self.database.is_postgres() {
            // Two that create the same table in one moment would fail.
            let lock = database::CREATION_LOCK;
            let first = format!("SELECT pg_advisory_xact_lock({lock});");
            (first, " COLLATE \"C\"")
        } else {
            (String::new(), "")
        };
        let mut script = first;
        for (name, columns) in tables {
            let columns = columns.replace("{collation}", collation);
            script.push_str(&format!("CREATE TABLE IF NOT EXISTS {name} ({columns});"));
        }
        self.database.script(script).await.map_err(of_journal)
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
        let names: Vec<String> = tables
            .iter()
            .map(|(name, _)| format!("('{name}')"))
            .collect();
        let is_there = if self.database.is_postgres() {
            "to_regclass(wanted.column1) IS NOT NULL"
        } else {
            "wanted.column1 IN (SELECT name FROM sqlite_master WHERE type = 'table')"
        };
        let sql = format!(
            "SELECT CAST(COUNT(*) AS TEXT) FROM (VALUES {}) AS wanted WHERE {is_there}",
            names.join(", ")
        );
        self.number(self.few(sql, Vec::new()).await?)
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

    /// What a process does alone may undo what a pass has done, so that nobody joins it any more, and
    /// one that has lost its connection and comes back finds none of its pages.
    async fn end_pass(&self) -> MigrateResult<()> {
        if self.is_shared || self.tables(&shared::TABLES).await? < shared::TABLES.len() {
            return Ok(());
        }
        self.change("DELETE FROM migrate_page".into(), Vec::new())
            .await?;
        let sql = "UPDATE migrate_pass SET ended = 1, pass = pass + 1, command = '', stragglers = NULL \
                   WHERE ended = 0 OR stragglers IS NOT NULL";
        self.change(sql.into(), Vec::new()).await
    }

    /// The configurations of a page that a scan has seen before.
    pub(super) async fn seen_before(
        &self,
        scan: u64,
        keys: &str,
        mut twice: Twice,
    ) -> MigrateResult<Twice> {
        let sql = format!(
            "SELECT key FROM migrate_configuration WHERE scan = CAST($2 AS BIGINT) \
             AND key IN (SELECT items.value ->> 'k' FROM {})",
            self.items()
        );
        let before = self
            .few(sql, vec![keys.to_owned(), scan.to_string()])
            .await?;
        let before = before.into_iter().filter_map(|mut row| row.pop().flatten());
        twice.0.extend(before);
        Ok(twice)
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

    /// The rows of the JSON array in the first parameter, in its order: `value` and `key`.
    pub(super) fn items(&self) -> &'static str {
        if self.database.is_postgres() {
            "jsonb_array_elements(CAST($1 AS jsonb)) WITH ORDINALITY AS items(value, key)"
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

    fn entry(&self, row: Texts) -> MigrateResult<JournalEntry> {
        let entry = || {
            let [coordinate, state, intent, scan, holder, shared] = <[_; 6]>::try_from(row).ok()?;
            let coordinate = ManagedCoordinate::parse(&coordinate?).ok()?;
            Some(
                JournalEntry::new(coordinate)
                    .with_state(State::parse(&state?)?, intent? == "1")
                    .with_mention(scan?.parse().ok()?, holder, shared? == "1"),
            )
        };
        entry().ok_or_else(|| self.damaged())
    }
}

/// Errors name the journal; errors in the operator's input keep their kind.
fn of_journal(error: MigrateError) -> MigrateError {
    if error.kind() == MigrateErrorKind::Unavailable {
        error.of_kind(MigrateErrorKind::Journal).within("journal")
    } else {
        error.within("journal")
    }
}

const ENTRY: &str =
    "coordinate, state, CAST(intent AS TEXT), CAST(scan AS TEXT), holder, CAST(shared AS TEXT)";

impl fmt::Display for SqlJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal {}", self.name)
    }
}

#[async_trait]
impl Journal for SqlJournal {
    async fn open(&self, run: &Run) -> MigrateResult<()> {
        let text = serde_json::to_string(run).map_err(|_| self.damaged())?;
        if let Some((format, kept)) = self.kept().await? {
            let kept: Run = serde_json::from_str(&kept).map_err(|_| self.damaged())?;
            match format.as_str() {
                FORMAT if kept == *run => {
                    self.bound.store(true, Ordering::Relaxed);
                    return self.end_pass().await;
                }
                FORMAT => return Err(MigrateError::another_run(self.to_string(), &kept, run)),
                UNBOUND if kept == *run => return self.end_pass().await,
                UNBOUND => {}
                _ => return Err(self.damaged()),
            }
        }
        if self.is_shared {
            return self.open_shared_for(run, text).await;
        }
        self.forget(text).await
    }

    async fn begin_scan(&self) -> MigrateResult<u64> {
        let rows = self
            .few(
                "UPDATE migrate_run SET scan = scan + 1 RETURNING CAST(scan AS TEXT)".into(),
                Vec::new(),
            )
            .await?;
        self.number(rows)
    }

    async fn see(&self, scan: u64, configurations: &[String]) -> MigrateResult<Vec<String>> {
        let (keys, twice) = twice(configurations);
        let twice = self.seen_before(scan, &keys, twice).await?;
        let insert = format!(
            "INSERT INTO migrate_configuration (key, scan) \
             SELECT items.value ->> 'k', CAST($2 AS BIGINT) FROM {} WHERE true {SEEN}",
            self.items()
        );
        self.change(insert, vec![keys, scan.to_string()]).await?;
        Ok(twice.among(configurations))
    }

    async fn mention(&self, scan: u64, mentions: &[Mention]) -> MigrateResult<()> {
        let sql = format!(
            "INSERT INTO migrate_secret (coordinate, state, intent, scan, holder, shared) \
             SELECT items.value ->> 'c', 'pending', 0, CAST($2 AS BIGINT), items.value ->> 'h', \
                    CAST(items.value ->> 's' AS BIGINT) \
             FROM {} WHERE true {MENTIONED}",
            self.items()
        );
        let parameters = vec![once_each(mentions), scan.to_string()];
        self.change(sql, parameters).await
    }

    async fn page(
        &self,
        select: &Select,
        after: Option<&ManagedCoordinate>,
        limit: usize,
    ) -> MigrateResult<Vec<JournalEntry>> {
        let sql = format!(
            "SELECT {ENTRY} FROM migrate_secret WHERE coordinate > $1{} AND {} \
             ORDER BY coordinate LIMIT {limit}",
            select.upto.as_ref().map_or("", |_| " AND coordinate <= $2"),
            condition(select)
        );
        let after = after.map_or("", ManagedCoordinate::as_str).to_owned();
        let upto = select.upto.as_ref().map(ToString::to_string);
        self.few(sql, [after].into_iter().chain(upto).collect())
            .await?
            .into_iter()
            .map(|row| self.entry(row))
            .collect()
    }

    async fn find(
        &self,
        coordinates: &[ManagedCoordinate],
    ) -> MigrateResult<Vec<Option<JournalEntry>>> {
        let names: Vec<Value> = coordinates
            .iter()
            .map(|coordinate| json!({ "c": coordinate.as_str() }))
            .collect();
        let sql = format!(
            "SELECT {ENTRY} FROM migrate_secret WHERE coordinate IN (SELECT items.value ->> 'c' FROM {})",
            self.items()
        );
        let rows = self.few(sql, vec![Value::Array(names).to_string()]).await?;
        let found = rows
            .into_iter()
            .map(|row| {
                self.entry(row)
                    .map(|entry| (entry.coordinate.clone(), entry))
            })
            .collect::<MigrateResult<HashMap<_, _>>>()?;
        Ok(coordinates
            .iter()
            .map(|coordinate| found.get(coordinate).cloned())
            .collect())
    }

    async fn advance(&self, transitions: &[Transition]) -> MigrateResult<()> {
        if transitions.is_empty() {
            return Ok(());
        }
        self.bind().await?;
        let sql = format!(
            "INSERT INTO migrate_secret (coordinate, state, intent, scan, holder, shared) \
             SELECT items.value ->> 'c', items.value ->> 's', CAST(items.value ->> 'i' AS BIGINT), 0, NULL, 0 \
             FROM {} WHERE true {ADVANCED}",
            self.items()
        );
        self.change(sql, vec![distinct(transitions)]).await
    }

    async fn counts(&self) -> MigrateResult<Counts> {
        let sql = "SELECT state, CAST(COUNT(*) AS TEXT) FROM migrate_secret GROUP BY state";
        let mut counts = Counts::default();
        for row in self.few(sql.into(), Vec::new()).await? {
            let [Some(state), Some(count)] = <[_; 2]>::try_from(row).map_err(|_| self.damaged())?
            else {
                return Err(self.damaged());
            };
            let state = State::parse(&state).ok_or_else(|| self.damaged())?;
            *counts.of_mut(state) = count.parse().map_err(|_| self.damaged())?;
        }
        Ok(counts)
    }

    async fn put_note(&self, key: &str, text: Option<&str>) -> MigrateResult<()> {
        match text {
            None => {
                self.change(
                    "DELETE FROM migrate_note WHERE key = $1".into(),
                    vec![key.into()],
                )
                .await
            }
            Some(text) => {
                self.bind().await?;
                self.change(
                    "INSERT INTO migrate_note (key, text) VALUES ($1, $2) \
                     ON CONFLICT (key) DO UPDATE SET text = excluded.text"
                        .into(),
                    vec![key.into(), text.into()],
                )
                .await
            }
        }
    }

    async fn notes(&self, after: Option<&str>, limit: usize) -> MigrateResult<Vec<Note>> {
        let condition = if after.is_some() {
            "WHERE key > $1 "
        } else {
            ""
        };
        let sql =
            format!("SELECT key, text FROM migrate_note {condition}ORDER BY key LIMIT {limit}");
        let parameters = after.map(str::to_owned).into_iter().collect();
        self.few(sql, parameters)
            .await?
            .into_iter()
            .map(|row| match <[_; 2]>::try_from(row) {
                Ok([Some(key), Some(text)]) => Ok(Note::new(key, text)),
                _ => Err(self.damaged()),
            })
            .collect()
    }

    fn sharing(&self) -> Option<&dyn Sharing> {
        self.is_shared.then_some(self as &dyn Sharing)
    }
}

/// What a transition does with a secret that is known.
pub(super) const ADVANCED: &str =
    "ON CONFLICT (coordinate) DO UPDATE SET state = excluded.state, intent = excluded.intent";

/// What a mention does with a secret that is known.
pub(super) const MENTIONED: &str = "ON CONFLICT (coordinate) DO UPDATE SET \
        shared = CASE \
            WHEN migrate_secret.scan <> excluded.scan THEN excluded.shared \
            WHEN excluded.shared = 1 OR migrate_secret.holder <> excluded.holder THEN 1 \
            ELSE migrate_secret.shared END, \
        holder = CASE \
            WHEN migrate_secret.scan <> excluded.scan THEN excluded.holder \
            ELSE COALESCE(migrate_secret.holder, excluded.holder) END, \
        scan = excluded.scan";

/// What a scan does with a configuration that is known.
pub(super) const SEEN: &str = "ON CONFLICT (key) DO UPDATE SET scan = excluded.scan";

/// The conditions on an entry itself, without that on its name.
pub(super) fn condition(select: &Select) -> String {
    let mut conditions = vec!["true".to_owned()];
    if !select.states.is_empty() {
        let states: Vec<String> = select
            .states
            .iter()
            .map(|state| format!("'{state}'"))
            .collect();
        conditions.push(format!("state IN ({})", states.join(", ")));
    }
    if let Some(intent) = select.intent {
        conditions.push(format!("intent = {}", u8::from(intent)));
    }
    if let Some(scan) = select.scan {
        conditions.push(format!("scan = {scan}"));
    }
    if let Some(shared) = select.shared {
        conditions.push(format!("shared = {}", u8::from(shared)));
    }
    conditions.join(" AND ")
}

/// Transitions as JSON, each coordinate once: a statement may change a row only once, and the last of
/// several changes counts.
pub(super) fn distinct(transitions: &[Transition]) -> String {
    let mut last = BTreeMap::new();
    for transition in transitions {
        last.insert(&transition.coordinate, transition);
    }
    let items: Vec<Value> = last
        .values()
        .map(|transition| {
            json!({
                "c": transition.coordinate.as_str(),
                "s": transition.state.as_str(),
                "i": u8::from(transition.intent),
            })
        })
        .collect();
    Value::Array(items).to_string()
}

/// Configurations that a scan has seen more than once.
pub(super) struct Twice(HashSet<String>);

impl Twice {
    /// Those of a request, in its order, each once.
    pub(super) fn among(mut self, configurations: &[String]) -> Vec<String> {
        let answered = configurations.iter().filter(|key| self.0.remove(*key));
        answered.cloned().collect()
    }
}

/// Keys as JSON, each once, and those that the request has twice.
pub(super) fn twice(configurations: &[String]) -> (String, Twice) {
    let (mut once, mut twice) = (HashSet::new(), HashSet::new());
    for key in configurations {
        if !once.insert(key.as_str()) {
            twice.insert(key.clone());
        }
    }
    let keys: Vec<Value> = once.iter().map(|key| json!({ "k": key })).collect();
    (Value::Array(keys).to_string(), Twice(twice))
}

/// Mentions as JSON, each coordinate once, with the same result as recording them one after the
/// other: a statement may change a row only once.
pub(super) fn once_each(mentions: &[Mention]) -> String {
    let mut order: Vec<(&ManagedCoordinate, Option<&str>, bool)> = Vec::new();
    let mut places = HashMap::new();
    for mention in mentions {
        let holder = mention.holder.as_deref();
        match places.get(&mention.coordinate) {
            None => {
                places.insert(&mention.coordinate, order.len());
                order.push((&mention.coordinate, holder, false));
            }
            Some(&place) => {
                let (_, first, shared): &mut (_, Option<&str>, bool) = &mut order[place];
                match (*first, holder) {
                    (None, holder) => *first = holder,
                    (Some(first), Some(holder)) if first != holder => *shared = true,
                    _ => {}
                }
            }
        }
    }
    let items: Vec<Value> = order
        .into_iter()
        .map(|(coordinate, holder, shared)| {
            json!({ "c": coordinate.as_str(), "h": holder, "s": u8::from(shared) })
        })
        .collect();
    Value::Array(items).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mention(coordinate: &str, holder: Option<&str>) -> Mention {
        Mention::new(
            ManagedCoordinate::parse(coordinate).unwrap(),
            holder.map(str::to_owned),
        )
    }

    #[test]
    fn mentions_of_one_statement_are_noted_one_after_the_other() {
        let (a, b) = ("airbyte_a_v1", "airbyte_b_v1");
        let items = once_each(&[
            mention(a, None),
            mention(b, Some("x")),
            mention(a, Some("y")),
            mention(a, Some("y")),
            mention(b, Some("y")),
            mention(b, None),
        ]);
        assert_eq!(
            serde_json::from_str::<Value>(&items).unwrap(),
            json!([{ "c": a, "h": "y", "s": 0 }, { "c": b, "h": "x", "s": 1 }])
        );
    }

    #[tokio::test]
    async fn the_journal_keeps_its_promises() {
        let folder = tempfile::tempdir().unwrap();
        let files = std::sync::atomic::AtomicUsize::new(0);
        let empty = async || {
            let file = files.fetch_add(1, Ordering::Relaxed);
            let path = folder.path().join(format!("{file}.db"));
            SqlJournal::open(path.to_str().unwrap(), &|_| None)
                .await
                .unwrap()
        };
        crate::conformance::journal(empty).await;
        assert!(files.into_inner() > 5);
    }

    /// Each empty journal, in its own database.
    #[cfg(feature = "postgres")]
    #[tokio::test]
    async fn the_journal_keeps_its_promises_in_postgres() {
        use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

        const URL: &str = "TEST_POSTGRES_URL";
        const USER: &str = "DATABASE_USER";
        const PASSWORD: &str = "DATABASE_PASSWORD";
        let Ok(url) = std::env::var(URL) else {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "{URL} is not set; run scripts/test"
            );
            eprintln!("SKIPPED: {URL} is not set");
            return;
        };
        let server: url::Url = url.parse().unwrap();
        let made = std::sync::Mutex::new(Vec::new());
        let empty = async || {
            let name = format!("journal_{}", uuid::Uuid::new_v4().simple());
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
                .execute(&mut connection)
                .await
                .unwrap();
            connection.close().await.unwrap();
            let variables = |variable: &str| match variable {
                USER => Some(server.username().to_owned()),
                PASSWORD => server.password().map(str::to_owned),
                _ => None,
            };
            let place = format!(
                "postgres://{}:{}/{name}",
                server.host_str().unwrap(),
                server.port().unwrap_or(5432),
            );
            made.lock().unwrap().push(name);
            (place, variables(USER), variables(PASSWORD))
        };
        let open = async |shared: bool, (place, user, password): &(String, _, _)| {
            let variables = |variable: &str| -> Option<String> {
                match variable {
                    USER => Option::clone(user),
                    PASSWORD => Option::clone(password),
                    _ => None,
                }
            };
            match shared {
                true => SqlJournal::open_shared(place, &variables).await.unwrap(),
                false => SqlJournal::open(place, &variables).await.unwrap(),
            }
        };
        crate::conformance::journal(async || open(false, &empty().await).await).await;
        // One process of many has the same journal.
        crate::conformance::journal(async || open(true, &empty().await).await).await;
        crate::conformance::sharing(async || {
            let place = empty().await;
            let processes = (0..4).map(|_| open(true, &place));
            let opened = futures::future::join_all(processes).await;
            <[SqlJournal; 4]>::try_from(opened).unwrap()
        })
        .await;
        // Whoever has lost its session sees it by the next one.
        let place = empty().await;
        let journal = open(true, &place).await;
        let session = journal.sharing().unwrap().session();
        assert_eq!(journal.counts().await.unwrap(), Counts::default());
        assert_eq!(journal.sharing().unwrap().session(), session);
        let made = made.into_inner().unwrap();
        assert!(made.len() > 5);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        let ended = sqlx::query(ended).bind(made.last());
        assert_eq!(ended.fetch_all(&mut connection).await.unwrap().len(), 1);
        // The first one may find that the session has ended.
        let _ = journal.counts().await;
        assert_eq!(journal.counts().await.unwrap(), Counts::default());
        assert_ne!(journal.sharing().unwrap().session(), session);
        for name in made {
            sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_run_that_did_nothing_leaves_no_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let text = path.to_str().unwrap();
        let open = async || SqlJournal::open(text, &|_| None).await.unwrap();
        let run = |owner| Run {
            source: "s".into(),
            target: None,
            owner,
            workspaces: Vec::new(),
        };
        let looked = async |journal: &SqlJournal| {
            journal.open(&run(None)).await.unwrap();
            let scan = journal.begin_scan().await.unwrap();
            let mentions = [mention("airbyte_a_v1", None)];
            journal.mention(scan, &mentions).await.unwrap();
        };
        let journal = open().await;
        looked(&journal).await;
        journal.close().await;
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        // A killed one is taken over, also by one that does nothing.
        let journal = open().await;
        looked(&journal).await;
        drop(journal);
        let journal = open().await;
        journal.open(&run(Some("me".into()))).await.unwrap();
        journal.close().await;
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        // A database of somebody else's is left as it was.
        let other = Database::sqlite(&path, Purpose::Own).await.unwrap();
        let made = other.execute("CREATE TABLE theirs (a TEXT)".into(), Vec::new());
        made.await.unwrap();
        other.close().await;
        let journal = open().await;
        looked(&journal).await;
        journal.close().await;
        let other = Database::sqlite(&path, Purpose::Own).await.unwrap();
        let tables = other.few("SELECT name FROM sqlite_master".into(), Vec::new());
        assert_eq!(tables.await.unwrap(), [[Some("theirs".to_owned())]]);
        other.close().await;
        // And one in which something was done stays.
        let journal = open().await;
        looked(&journal).await;
        journal.put_note("a", Some("{}")).await.unwrap();
        journal.put_note("a", None).await.unwrap();
        journal.close().await;
        let journal = open().await;
        let refused = journal.open(&run(Some("me".into()))).await.unwrap_err();
        assert_eq!(refused.kind(), MigrateErrorKind::AnotherRun);
        journal.close().await;
        let journal = open().await;
        assert_eq!(journal.counts().await.unwrap().pending, 1);
        journal.close().await;
    }

    #[tokio::test]
    async fn a_second_process_is_refused_and_the_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let text = path.to_str().unwrap();
        let first = SqlJournal::open(text, &|_| None).await.unwrap();
        let refused = SqlJournal::open(text, &|_| None).await;
        assert!(refused.unwrap_err().to_string().contains("another process"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        first.close().await;
        let second = SqlJournal::open(text, &|_| None).await.unwrap();
        second.close().await;
    }
}
