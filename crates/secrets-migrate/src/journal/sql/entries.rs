//! The secrets, configurations and notes of a journal, one statement per step.
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use secret_persistence_core::ManagedCoordinate;
use serde::{Deserialize, Serialize};

use super::{FORMAT, SqlJournal, UNBOUND};
use crate::{
    Counts, Journal, JournalEntry, Mention, MigrateError, MigrateResult, Note, Run, Select,
    Sharing, State, Transition,
};

/// The columns of an entry, in the order of [`Stored`].
const ENTRY: &str = "coordinate, state, intent, scan, holder, shared";

/// An entry as the database writes it in JSON.
#[derive(Deserialize)]
struct Stored<'t>(
    #[serde(borrow)] Cow<'t, str>,
    #[serde(borrow)] Cow<'t, str>,
    u8,
    u64,
    Option<String>,
    u8,
);

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
             SELECT items.value, CAST($2 AS BIGINT) FROM {} WHERE true {SEEN}",
            self.texts()
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
        let rows = format!(
            "WHERE coordinate > $1{} AND {} ORDER BY coordinate LIMIT {limit}",
            select.upto.as_ref().map_or("", |_| " AND coordinate <= $2"),
            condition(select)
        );
        let after = after.map_or("", ManagedCoordinate::as_str).to_owned();
        let upto = select.upto.as_ref().map(ToString::to_string);
        let parameters = [after].into_iter().chain(upto).collect();
        let mut entries = self.entries(&rows, parameters).await?;
        // The order of the rows says which of them, but an aggregate need not keep it.
        entries.sort_unstable_by(|one, other| one.coordinate.cmp(&other.coordinate));
        Ok(entries)
    }

    async fn find(
        &self,
        coordinates: &[ManagedCoordinate],
    ) -> MigrateResult<Vec<Option<JournalEntry>>> {
        let items = coordinates.iter().map(ManagedCoordinate::as_str);
        let rows = format!(
            "WHERE coordinate IN (SELECT items.value FROM {})",
            self.texts()
        );
        let entries = self.entries(&rows, vec![json_of(items)]).await?;
        let found: HashMap<_, _> = entries
            .into_iter()
            .map(|entry| (entry.coordinate.clone(), entry))
            .collect();
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
        let sql = self.advancing("WHERE true");
        self.change(sql, vec![by_state(transitions)]).await
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

impl SqlJournal {
    /// The configurations of a page that a scan has seen before.
    pub(in crate::journal) async fn seen_before(
        &self,
        scan: u64,
        keys: &str,
        mut twice: Twice,
    ) -> MigrateResult<Twice> {
        let sql = format!(
            "SELECT key FROM migrate_configuration WHERE scan = CAST($2 AS BIGINT) \
             AND key IN (SELECT items.value FROM {})",
            self.texts()
        );
        let before = self
            .few(sql, vec![keys.to_owned(), scan.to_string()])
            .await?;
        let before = before.into_iter().filter_map(|mut row| row.pop().flatten());
        twice.0.extend(before);
        Ok(twice)
    }

    /// The statement for transitions, of which the first parameter has the names under each intent and state
    /// ([`by_state`]). `source` is what follows their rows.
    pub(in crate::journal) fn advancing(&self, source: &str) -> String {
        let names = if self.database.is_postgres() {
            "jsonb_each(CAST($1 AS jsonb)) AS groups(key, value) CROSS JOIN \
             jsonb_array_elements_text(groups.value) AS items(value)"
        } else {
            "json_each($1) AS groups CROSS JOIN json_each(groups.value) AS items"
        };
        format!(
            "INSERT INTO migrate_secret (coordinate, state, intent, scan, holder, shared) \
             SELECT items.value, substr(groups.key, 2), CAST(substr(groups.key, 1, 1) AS BIGINT), 0, NULL, 0 \
             FROM {names} {source} \
             ON CONFLICT (coordinate) DO UPDATE SET state = excluded.state, intent = excluded.intent"
        )
    }

    /// The entries of these rows, in any order. They come as one text: the driver copies every column
    /// of every row by itself, which takes longer than to write JSON and to read it.
    async fn entries(
        &self,
        rows: &str,
        parameters: Vec<String>,
    ) -> MigrateResult<Vec<JournalEntry>> {
        let (all, each) = if self.database.is_postgres() {
            ("json_agg", "json_build_array")
        } else {
            ("json_group_array", "json_array")
        };
        let sql = format!(
            "SELECT CAST({all}({each}({ENTRY})) AS TEXT) \
             FROM (SELECT {ENTRY} FROM migrate_secret {rows}) AS entries"
        );
        let text = self.few(sql, parameters).await?.pop();
        // Postgres makes nothing of no rows.
        let Some(text) = text.and_then(|mut row| row.pop()?) else {
            return Ok(Vec::new());
        };
        let stored: Vec<Stored<'_>> = serde_json::from_str(&text).map_err(|_| self.damaged())?;
        let entries = stored.into_iter().map(entry);
        entries.collect::<Option<_>>().ok_or_else(|| self.damaged())
    }
}

fn entry(stored: Stored<'_>) -> Option<JournalEntry> {
    let Stored(coordinate, state, intent, scan, holder, shared) = stored;
    let coordinate = ManagedCoordinate::parse(&coordinate).ok()?;
    Some(
        JournalEntry::new(coordinate)
            .with_state(State::parse(&state)?, intent == 1)
            .with_mention(scan, holder, shared == 1),
    )
}

/// A mention as JSON.
#[derive(Serialize)]
struct Found<'n> {
    c: &'n str,
    h: Option<&'n str>,
    s: u8,
}

/// Items as the parameter of a statement over [`SqlJournal::items`].
fn json_of<I: Serialize>(items: impl IntoIterator<Item = I>) -> String {
    let items: Vec<I> = items.into_iter().collect();
    serde_json::to_string(&items).expect("texts and numbers under fixed keys are JSON")
}

/// What a mention does with a secret that is known.
pub(in crate::journal) const MENTIONED: &str = "ON CONFLICT (coordinate) DO UPDATE SET \
        shared = CASE \
            WHEN migrate_secret.scan <> excluded.scan THEN excluded.shared \
            WHEN excluded.shared = 1 OR migrate_secret.holder <> excluded.holder THEN 1 \
            ELSE migrate_secret.shared END, \
        holder = CASE \
            WHEN migrate_secret.scan <> excluded.scan THEN excluded.holder \
            ELSE COALESCE(migrate_secret.holder, excluded.holder) END, \
        scan = excluded.scan";

/// What a scan does with a configuration that is known.
pub(in crate::journal) const SEEN: &str = "ON CONFLICT (key) DO UPDATE SET scan = excluded.scan";

/// The conditions on an entry itself, without that on its name.
pub(in crate::journal) fn condition(select: &Select) -> String {
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

/// Transitions as JSON for [`SqlJournal::advancing`], each coordinate once: a statement may change a row
/// only once, and the last of several changes counts.
pub(in crate::journal) fn by_state(transitions: &[Transition]) -> String {
    let mut last = BTreeMap::new();
    for transition in transitions {
        last.insert(&transition.coordinate, transition);
    }
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (coordinate, transition) in last {
        let key = format!("{}{}", u8::from(transition.intent), transition.state);
        groups.entry(key).or_default().push(coordinate.as_str());
    }
    serde_json::to_string(&groups).expect("texts under texts are JSON")
}

/// Configurations that a scan has seen more than once.
pub(in crate::journal) struct Twice(HashSet<String>);

impl Twice {
    /// Those of a request, in its order, each once.
    pub(in crate::journal) fn among(mut self, configurations: &[String]) -> Vec<String> {
        let answered = configurations.iter().filter(|key| self.0.remove(*key));
        answered.cloned().collect()
    }
}

/// Keys as JSON, each once, and those that the request has twice.
pub(in crate::journal) fn twice(configurations: &[String]) -> (String, Twice) {
    let (mut once, mut twice) = (HashSet::new(), HashSet::new());
    for key in configurations {
        if !once.insert(key.as_str()) {
            twice.insert(key.clone());
        }
    }
    let keys = json_of(once);
    (keys, Twice(twice))
}

/// Mentions as JSON, each coordinate once, with the same result as recording them one after the
/// other: a statement may change a row only once.
pub(in crate::journal) fn once_each(mentions: &[Mention]) -> String {
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
    // In the order of the table: in SQLite each page of it is then changed once.
    order.sort_unstable_by_key(|(coordinate, ..)| *coordinate);
    json_of(order.into_iter().map(|(coordinate, h, shared)| Found {
        c: coordinate.as_str(),
        h,
        s: u8::from(shared),
    }))
}
