//! The journal of a run in SQLite or Postgres: names and states, one statement per step.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use secret_persistence_core::ManagedCoordinate;
use serde_json::{Value, json};

use crate::address::{self, Variables};
use crate::database::{self, Database, Purpose, Texts};
use crate::{
    Counts, Journal, JournalEntry, Mention, MigrateError, MigrateErrorKind, MigrateResult, Note,
    Run, Select, State, Transition,
};

/// What the tables of another version would look like is not guessed.
const FORMAT: &str = "1";

/// Names are compared by their bytes: SQLite does by itself, Postgres is told to.
const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS migrate_run (
        one BIGINT PRIMARY KEY CHECK (one = 1), format TEXT NOT NULL, run TEXT NOT NULL, scan BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS migrate_secret (
        coordinate TEXT{collation} PRIMARY KEY, state TEXT NOT NULL, intent BIGINT NOT NULL,
        scan BIGINT NOT NULL, holder TEXT, shared BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS migrate_configuration (
        key TEXT{collation} PRIMARY KEY, scan BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS migrate_note (key TEXT{collation} PRIMARY KEY, text TEXT NOT NULL)",
];

/// A journal in an SQLite file or a Postgres database: open, and locked against a second process.
#[derive(Debug)]
pub struct SqlJournal {
    database: Database,
    name: String,
}

impl SqlJournal {
    /// Opens the journal at a path, or at a URL without credentials, which come from the environment.
    ///
    /// # Errors
    /// Where it cannot be opened or another process has it.
    pub async fn open(text: &str, variables: Variables<'_>) -> MigrateResult<Self> {
        let database = if address::is_url(text) {
            let url = address::parse(text)?;
            let settings = database::settings(&url, database::SERVER, variables)?;
            Database::open(&url, &settings, Purpose::Own).await
        } else {
            Database::sqlite(Path::new(text), Purpose::Own).await
        };
        let database = database.map_err(of_journal)?;
        let collation = if database.is_postgres() {
            " COLLATE \"C\""
        } else {
            ""
        };
        for table in TABLES {
            database
                .execute(table.replace("{collation}", collation), Vec::new())
                .await
                .map_err(of_journal)?;
        }
        Ok(Self {
            name: database.name().to_owned(),
            database,
        })
    }

    /// Closes it, so that nothing of it is left beside its file.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// The rows of a JSON array that is the first parameter, in its order: `value` and `key`.
    fn items(&self) -> &'static str {
        if self.database.is_postgres() {
            "jsonb_array_elements(CAST($1 AS jsonb)) WITH ORDINALITY AS items(value, key)"
        } else {
            "json_each($1) AS items"
        }
    }

    async fn few(&self, sql: String, parameters: Vec<String>) -> MigrateResult<Vec<Texts>> {
        self.database.few(sql, parameters).await.map_err(of_journal)
    }

    async fn change(&self, sql: String, parameters: Vec<String>) -> MigrateResult<()> {
        self.database
            .execute(sql, parameters)
            .await
            .map(drop)
            .map_err(of_journal)
    }

    fn damaged(&self) -> MigrateError {
        MigrateError::new(
            MigrateErrorKind::Journal,
            "the journal contains what this version has not written",
        )
        .with_place(self.to_string())
        .with_hint("restore it, or start with a new one: copy finds what is in the target already")
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

/// What fails on the journal says so; what the operator has to correct stays that.
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
        self.change(
            "INSERT INTO migrate_run (one, format, run, scan) VALUES (1, $1, $2, 0) ON CONFLICT (one) DO NOTHING"
                .into(),
            vec![FORMAT.into(), text],
        )
        .await?;
        let rows = self
            .few("SELECT format, run FROM migrate_run".into(), Vec::new())
            .await?;
        let [Some(format), Some(kept)] = rows
            .into_iter()
            .next()
            .and_then(|row| <[_; 2]>::try_from(row).ok())
            .ok_or_else(|| self.damaged())?
        else {
            return Err(self.damaged());
        };
        if format != FORMAT {
            return Err(self.damaged());
        }
        let kept: Run = serde_json::from_str(&kept).map_err(|_| self.damaged())?;
        if kept == *run {
            Ok(())
        } else {
            Err(MigrateError::another_run(self.to_string(), &kept, run))
        }
    }

    async fn begin_scan(&self) -> MigrateResult<u64> {
        let rows = self
            .few(
                "UPDATE migrate_run SET scan = scan + 1 RETURNING CAST(scan AS TEXT)".into(),
                Vec::new(),
            )
            .await?;
        rows.into_iter()
            .next()
            .and_then(|mut row| row.pop().flatten())
            .and_then(|scan| scan.parse().ok())
            .ok_or_else(|| self.damaged())
    }

    async fn see(&self, scan: u64, configurations: &[String]) -> MigrateResult<Vec<String>> {
        let (mut once, mut twice) = (HashSet::new(), HashSet::new());
        for key in configurations {
            if !once.insert(key.as_str()) {
                twice.insert(key.clone());
            }
        }
        let keys: Vec<Value> = once.iter().map(|key| json!({ "k": key })).collect();
        let keys = Value::Array(keys).to_string();
        let before = format!(
            "SELECT key FROM migrate_configuration WHERE scan = CAST($2 AS BIGINT) \
             AND key IN (SELECT items.value ->> 'k' FROM {})",
            self.items()
        );
        let before = self
            .few(before, vec![keys.clone(), scan.to_string()])
            .await?;
        twice.extend(before.into_iter().filter_map(|mut row| row.pop().flatten()));
        let insert = format!(
            "INSERT INTO migrate_configuration (key, scan) \
             SELECT items.value ->> 'k', CAST($2 AS BIGINT) FROM {} WHERE true \
             ON CONFLICT (key) DO UPDATE SET scan = excluded.scan",
            self.items()
        );
        self.change(insert, vec![keys, scan.to_string()]).await?;
        // In the order asked, each once.
        let answered = configurations.iter().filter(|key| twice.remove(*key));
        Ok(answered.cloned().collect())
    }

    async fn mention(&self, scan: u64, mentions: &[Mention]) -> MigrateResult<()> {
        let sql = format!(
            "INSERT INTO migrate_secret (coordinate, state, intent, scan, holder, shared) \
             SELECT items.value ->> 'c', 'pending', 0, CAST($2 AS BIGINT), items.value ->> 'h', \
                    CAST(items.value ->> 's' AS BIGINT) \
             FROM {} WHERE true \
             ON CONFLICT (coordinate) DO UPDATE SET \
                shared = CASE \
                    WHEN migrate_secret.scan <> excluded.scan THEN excluded.shared \
                    WHEN excluded.shared = 1 OR migrate_secret.holder <> excluded.holder THEN 1 \
                    ELSE migrate_secret.shared END, \
                holder = CASE \
                    WHEN migrate_secret.scan <> excluded.scan THEN excluded.holder \
                    ELSE COALESCE(migrate_secret.holder, excluded.holder) END, \
                scan = excluded.scan",
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
        let mut conditions = vec!["coordinate > $1".to_owned()];
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
        let sql = format!(
            "SELECT {ENTRY} FROM migrate_secret WHERE {} ORDER BY coordinate LIMIT {limit}",
            conditions.join(" AND ")
        );
        let after = after.map_or("", ManagedCoordinate::as_str).to_owned();
        self.few(sql, vec![after])
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
        // One statement may change a row once: the last of several changes counts.
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
        let sql = format!(
            "INSERT INTO migrate_secret (coordinate, state, intent, scan, holder, shared) \
             SELECT items.value ->> 'c', items.value ->> 's', CAST(items.value ->> 'i' AS BIGINT), 0, NULL, 0 \
             FROM {} WHERE true \
             ON CONFLICT (coordinate) DO UPDATE SET state = excluded.state, intent = excluded.intent",
            self.items()
        );
        self.change(sql, vec![Value::Array(items).to_string()])
            .await
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
}

/// Mentions as JSON, each coordinate once, as if they had been noted one after the other: a statement
/// may change a row only once.
fn once_each(mentions: &[Mention]) -> String {
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
            let file = files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = folder.path().join(format!("{file}.db"));
            SqlJournal::open(path.to_str().unwrap(), &|_| None)
                .await
                .unwrap()
        };
        crate::conformance::journal(empty).await;
        assert!(files.into_inner() > 5);
    }

    /// Each empty journal in a database of its own.
    #[cfg(feature = "postgres")]
    #[tokio::test]
    async fn the_journal_keeps_its_promises_in_postgres() {
        use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

        const URL: &str = "TEST_POSTGRES_URL";
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
                "DATABASE_USER" => Some(server.username().to_owned()),
                "DATABASE_PASSWORD" => server.password().map(str::to_owned),
                _ => None,
            };
            let place = format!(
                "postgres://{}:{}/{name}",
                server.host_str().unwrap(),
                server.port().unwrap_or(5432),
            );
            made.lock().unwrap().push(name);
            SqlJournal::open(&place, &variables).await.unwrap()
        };
        crate::conformance::journal(empty).await;
        let made = made.into_inner().unwrap();
        assert!(made.len() > 5);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for name in made {
            sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
                .execute(&mut connection)
                .await
                .unwrap();
        }
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
