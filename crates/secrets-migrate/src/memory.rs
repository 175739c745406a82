//! A journal and a source of configurations in memory, for tests and demonstrations.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use secret_persistence_core::ManagedCoordinate;
use secret_persistence_core::connector::SecretJson;
use serde_json::Value;

use crate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, Content, Counts, Journal,
    JournalEntry, Mention, MigrateError, MigrateErrorKind, MigrateResult, Note, Run, Select,
    Transition, Update,
};

/// A [`Journal`] in memory that loses everything when it drops. It is the shortest complete
/// implementation.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    run: Option<Run>,
    /// Whether anything has been done for the run.
    bound: bool,
    scan: u64,
    seen: BTreeSet<String>,
    entries: BTreeMap<ManagedCoordinate, JournalEntry>,
    notes: BTreeMap<String, String>,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Display for MemoryJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a journal in memory")
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn open(&self, run: &Run) -> MigrateResult<()> {
        let mut kept = self.0.lock();
        match &kept.run {
            Some(other) if other == run => Ok(()),
            Some(other) if kept.bound => {
                Err(MigrateError::another_run(self.to_string(), other, run))
            }
            _ => {
                *kept = Kept {
                    run: Some(run.clone()),
                    ..Kept::default()
                };
                Ok(())
            }
        }
    }

    async fn begin_scan(&self) -> MigrateResult<u64> {
        let mut kept = self.0.lock();
        kept.scan += 1;
        kept.seen.clear();
        Ok(kept.scan)
    }

    async fn see(&self, _: u64, configurations: &[String]) -> MigrateResult<Vec<String>> {
        let mut kept = self.0.lock();
        Ok(configurations
            .iter()
            .filter(|key| !kept.seen.insert((*key).clone()))
            .cloned()
            .collect())
    }

    async fn mention(&self, scan: u64, mentions: &[Mention]) -> MigrateResult<()> {
        let mut kept = self.0.lock();
        for mention in mentions {
            let entry = kept
                .entries
                .entry(mention.coordinate.clone())
                .or_insert_with(|| JournalEntry::new(mention.coordinate.clone()));
            if entry.scan != scan {
                entry.scan = scan;
                entry.holder.clone_from(&mention.holder);
                entry.shared = false;
            } else if entry.holder.is_none() {
                entry.holder.clone_from(&mention.holder);
            } else if mention.holder.is_some() && mention.holder != entry.holder {
                entry.shared = true;
            }
        }
        Ok(())
    }

    async fn page(
        &self,
        select: &Select,
        after: Option<&ManagedCoordinate>,
        limit: usize,
    ) -> MigrateResult<Vec<JournalEntry>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self
            .0
            .lock()
            .entries
            .range::<ManagedCoordinate, _>((from, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .filter(|entry| select.wants(entry))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn find(
        &self,
        coordinates: &[ManagedCoordinate],
    ) -> MigrateResult<Vec<Option<JournalEntry>>> {
        let kept = self.0.lock();
        Ok(coordinates
            .iter()
            .map(|coordinate| kept.entries.get(coordinate).cloned())
            .collect())
    }

    async fn advance(&self, transitions: &[Transition]) -> MigrateResult<()> {
        let mut kept = self.0.lock();
        kept.bound |= !transitions.is_empty();
        for transition in transitions {
            let entry = kept
                .entries
                .entry(transition.coordinate.clone())
                .or_insert_with(|| JournalEntry::new(transition.coordinate.clone()));
            entry.state = transition.state;
            entry.intent = transition.intent;
        }
        Ok(())
    }

    async fn counts(&self) -> MigrateResult<Counts> {
        let mut counts = Counts::default();
        for entry in self.0.lock().entries.values() {
            *counts.of_mut(entry.state) += 1;
        }
        Ok(counts)
    }

    async fn put_note(&self, key: &str, text: Option<&str>) -> MigrateResult<()> {
        let mut kept = self.0.lock();
        match text {
            Some(text) => {
                kept.bound = true;
                kept.notes.insert(key.to_owned(), text.to_owned());
            }
            None => {
                kept.notes.remove(key);
            }
        }
        Ok(())
    }

    async fn notes(&self, after: Option<&str>, limit: usize) -> MigrateResult<Vec<Note>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self
            .0
            .lock()
            .notes
            .range::<str, _>((from, Bound::Unbounded))
            .take(limit)
            .map(|(key, text)| Note::new(key, text))
            .collect())
    }
}

/// A [`ConfigSource`] over a list of rows, which it updates in place.
#[derive(Debug)]
pub struct MemoryConfigs {
    name: String,
    access: Access,
    /// In the order in which they were added, with their numbers in it.
    rows: Mutex<Vec<(u64, ConfigRow)>>,
    next: AtomicU64,
}

impl MemoryConfigs {
    /// Creates a source of these rows, with a name for people.
    ///
    /// # Errors
    /// If two rows have the same id.
    pub fn new(name: impl Into<String>, rows: Vec<ConfigRow>) -> MigrateResult<Self> {
        let name = name.into();
        let mut ids = BTreeSet::new();
        if let Some(twice) = rows.iter().find(|row| !ids.insert(&row.id)) {
            return Err(MigrateError::new(
                MigrateErrorKind::Configurations,
                "two configurations have the same id",
            )
            .with_place(format!("{name}#{}", twice.id)));
        }
        Ok(Self {
            name,
            access: Access::Update,
            next: AtomicU64::new(rows.len() as u64),
            rows: Mutex::new((0..).zip(rows).collect()),
        })
    }

    /// The same source, but read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.access = Access::ReadOnly;
        self
    }

    /// The current rows.
    #[must_use]
    pub fn rows(&self) -> Vec<ConfigRow> {
        let rows = self.rows.lock();
        rows.iter().map(|(_, row)| row.clone()).collect()
    }

    /// Adds or replaces a row, as the platform would.
    pub fn put(&self, row: ConfigRow) {
        let mut rows = self.rows.lock();
        match rows.iter_mut().find(|(_, other)| other.id == row.id) {
            Some((_, other)) => *other = row,
            None => {
                // Never that of a row which was removed: a page may end with it.
                rows.push((self.next.fetch_add(1, Ordering::Relaxed), row));
            }
        }
    }

    /// At most so many rows between two cursors, which are numbers of rows that may have been removed since.
    fn between(
        &self,
        after: Option<&ConfigCursor>,
        upto: Option<&ConfigCursor>,
        limit: usize,
    ) -> ConfigPage {
        let number = |cursor: &ConfigCursor| cursor.as_str().parse().unwrap_or(u64::MAX);
        let (after, upto) = (after.map(number), upto.map_or(u64::MAX, number));
        let rows = self.rows.lock();
        let mut left = rows
            .iter()
            .filter(|(number, _)| after.is_none_or(|after| *number > after) && *number <= upto);
        let page: Vec<&(u64, ConfigRow)> = left.by_ref().take(limit).collect();
        let last = page.last().filter(|_| left.next().is_some());
        let next = last.map(|(number, _)| ConfigCursor::new(number.to_string()));
        let rows = page.into_iter().map(|(_, row)| row.clone()).collect();
        ConfigPage::new(rows, next)
    }

    /// Removes a row, as the platform would.
    pub fn remove(&self, id: &str) {
        self.rows.lock().retain(|(_, row)| row.id != id);
    }
}

impl fmt::Display for MemoryConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl ConfigSource for MemoryConfigs {
    fn access(&self) -> Access {
        self.access
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        Ok(self.between(after, None, limit))
    }

    fn admits_others(&self) -> bool {
        true
    }

    async fn page_upto(
        &self,
        after: Option<&ConfigCursor>,
        upto: &ConfigCursor,
        limit: usize,
    ) -> MigrateResult<ConfigPage> {
        Ok(self.between(after, Some(upto), limit))
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        let rows = self.rows.lock();
        Ok(rows
            .iter()
            .find(|(_, row)| row.id == id)
            .map(|(_, row)| row.clone()))
    }

    async fn update(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update> {
        let refused = |message: &'static str| {
            MigrateError::new(MigrateErrorKind::Configurations, message)
                .with_place(format!("{self}#{}", row.id))
        };
        if self.access == Access::ReadOnly {
            return Err(refused("this source of configurations is read-only"));
        }
        let mut rows = self.rows.lock();
        let Some((_, current)) = rows.iter_mut().find(|(_, current)| current.id == row.id) else {
            return Ok(Update::Changed);
        };
        match (&row.content, &mut current.content) {
            (Content::Configuration(as_read), Content::Configuration(now)) => {
                if ***as_read != ***now {
                    return Ok(Update::Changed);
                }
                *now = Arc::new(SecretJson::new(configuration.clone()));
                Ok(Update::Saved)
            }
            _ => Err(refused("a bare coordinate has no configuration to update")),
        }
    }
}
