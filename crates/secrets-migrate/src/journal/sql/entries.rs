//! The secrets, configurations and notes of a journal, one statement per step.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use secret_persistence_core::ManagedCoordinate;
use serde_json::{Value, json};

use super::{FORMAT, SqlJournal, UNBOUND};
use crate::database::Texts;
use crate::{
    Counts, Journal, JournalEntry, Mention, MigrateError, MigrateResult, Note, Run, Select,
    Sharing, State, Transition,
};

const ENTRY: &str =
    "coordinate, state, CAST(intent AS TEXT), CAST(scan AS TEXT), holder, CAST(shared AS TEXT)";

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

/// What a transition does with a secret that is known.
pub(in crate::journal) const ADVANCED: &str =
    "ON CONFLICT (coordinate) DO UPDATE SET state = excluded.state, intent = excluded.intent";

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

/// Transitions as JSON, each coordinate once: a statement may change a row only once, and the last of
/// several changes counts.
pub(in crate::journal) fn distinct(transitions: &[Transition]) -> String {
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
    let keys: Vec<Value> = once.iter().map(|key| json!({ "k": key })).collect();
    (Value::Array(keys).to_string(), Twice(twice))
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
    let items: Vec<Value> = order
        .into_iter()
        .map(|(coordinate, holder, shared)| {
            json!({ "c": coordinate.as_str(), "h": holder, "s": u8::from(shared) })
        })
        .collect();
    Value::Array(items).to_string()
}
