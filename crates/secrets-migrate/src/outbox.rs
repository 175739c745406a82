//! Changes of rows in progress: core's crash protocol, with the journal's notes as its outbox.
//!
//! A record of the names is stored before the first one is written, and removed once the outcome of
//! the row's update is certain. A saved row is certain only once its source has
//! [finished](ConfigSource::finish): a source that writes a new file has not changed anything
//! before.
//!
//! A source that [admits others](ConfigSource::admits_others) may be changed by processes that are paused, and by
//! requests of killed ones that wait for a lock in its database. There, secrets are deleted only when their row
//! is not what the process has read any more: its save compares the text and nothing else, so the note has
//! what the text had in the places that are about to change.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use secret_persistence_core::connector::{
    ActingSecrets, Cleanup, ConnectorError, Place, Pointer, Record, RecordState, SecretJson,
    pointers,
};
use secret_persistence_core::{Coordinate, ManagedCoordinate, Timestamp};
use serde::{Deserialize, Serialize};

use crate::session::by_key;
use crate::shared::{Held, check};
use crate::tracker::Tracker;
use crate::{
    Class, ConfigSource, Content, Failure, Finding, Journal, MigrateError, MigrateErrorKind,
    MigrateResult,
};

/// The changes of one command.
pub(super) struct Outbox<'r> {
    /// The prefix of its note keys.
    pub(super) sort: &'static str,
    pub(super) journal: &'r dyn Journal,
    pub(super) configs: &'r [Arc<dyn ConfigSource>],
    pub(super) secrets: &'r ActingSecrets,
    pub(super) tracker: &'r Tracker,
    /// How many notes are read at once.
    pub(super) page: usize,
    /// For how long a change may still be saved of which the row says nothing.
    pub(super) patience: Duration,
    /// The page of a shared journal under which changes are recorded.
    pub(super) held: Option<&'r Held<'r>>,
}

/// A change of one row, as its note describes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// The configuration's key.
    configuration: String,
    /// What tells the row's source apart from others with the same name. Earlier builds did not note it.
    #[serde(default)]
    source: Option<String>,
    /// Whether the row was certainly not saved, so that the written secrets must be deleted.
    abandoned: bool,
    /// Where the row is about to get pointers instead of something else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    places: Vec<String>,
    /// Where it is about to get other pointers, with the names that it has there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    renames: BTreeMap<String, String>,
    /// The names.
    names: Record,
}

impl Change {
    /// A change of a row. What the row has now must be added, or nobody can tell whether it is saved later.
    pub(super) fn new(source: &dyn ConfigSource, configuration: &str, names: Record) -> Self {
        Self {
            configuration: configuration.to_owned(),
            source: Some(source.identity()),
            abandoned: false,
            places: Vec::new(),
            renames: BTreeMap::new(),
            names,
        }
    }

    /// The row has no pointers at these places yet.
    pub(super) fn with_places(mut self, places: &[Place]) -> Self {
        let places = places.iter().map(|place| place.as_str().to_owned());
        self.places = places.collect();
        self
    }

    /// The row has pointers to these names yet.
    pub(super) fn with_renames(mut self, names: &BTreeMap<String, ManagedCoordinate>) -> Self {
        let renames = names
            .iter()
            .map(|(place, name)| (place.clone(), name.to_string()));
        self.renames = renames.collect();
        self
    }

    /// Whether a row may still be what the process has read that is about to save it: it has anything of what
    /// was to be changed. `None` if the note does not say what that was: an earlier build wrote it.
    fn may_be_saved(
        &self,
        configuration: &SecretJson,
        pointers: &[(Place, Pointer)],
    ) -> Option<bool> {
        if self.places.is_empty() && self.renames.is_empty() {
            return None;
        }
        let is_raw = |place: &String| {
            configuration.pointer(place).is_some()
                && pointers.iter().all(|(other, _)| other.as_str() != place)
        };
        let is_named = |(place, name): (&String, &String)| {
            pointers.iter().any(|(other, pointer)| {
                let now = pointer.coordinate.as_ref().map(Coordinate::as_str);
                other.as_str() == place && now == Some(name)
            })
        };
        Some(self.places.iter().any(is_raw) || self.renames.iter().any(is_named))
    }

    fn why_uncertain(&self) -> Why {
        match self.renames.is_empty() {
            true => Why::MayBeSaved,
            false => Why::MayBeUnshared,
        }
    }
}

/// What is known about the recorded changes in sources that this process has alone. In others, the rows
/// decide.
#[derive(Clone, Copy)]
pub(super) enum Knowledge {
    /// Every change that was not given up is saved: the sources have finished.
    AllSaved,
    /// They are from a killed run, and the rows decide: a row with its new secrets keeps them;
    /// otherwise the secrets are deleted.
    Rows,
}

/// What became of a recorded change.
enum Outcome {
    /// Its row was certainly not saved, and will not be.
    Abandoned,
    Kept(Why),
    Saved,
    /// This process has given it up, and tried to delete its secrets.
    Tried,
}

/// Why a change is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its note does not say what was to be changed. Its secrets are deleted after this time.
    Earlier(Timestamp),
    /// A service may insert the row again, as it was. The same.
    Gone(Timestamp),
    /// The process that recorded it may still save the row: it may be paused, or its request may wait for a
    /// lock in the database after it was killed.
    MayBeSaved,
    /// The same of one that unshares.
    MayBeUnshared,
}

/// A change whose outcome is not certain: its note stays, and the secrets that were written.
pub(super) struct Kept {
    pub(super) configuration: String,
    pub(super) why: Why,
    secrets: u64,
}

impl Kept {
    /// Reports it, and what to do about it.
    pub(super) fn report(&self, tracker: &Tracker) {
        let detail = match self.why {
            Why::Earlier(end) => format!(
                "an earlier build has begun to change this row, and did not note whether it may still save it; \
                 start again after {end}, which deletes what it has written"
            ),
            Why::Gone(end) => format!(
                "the row is gone, and what was about to save it may do so if it comes back; start again after \
                 {end}, which deletes what was written for it"
            ),
            Why::MayBeSaved => "a process that has ended or is paused may still save this row; start again when \
                 the row has pointers or other values, or can be changed: that deletes what was written for it"
                .to_owned(),
            Why::MayBeUnshared => "a process that has ended or is paused may still save this row with copies of its shared \
                 secrets; start again with --shared unshare, or when the row names other secrets: that deletes the copies"
                .to_owned(),
        };
        tracker.tally(|tally| tally.kept += self.secrets);
        let finding = Finding::new(Class::Kept).in_configuration(&self.configuration, None);
        tracker.found(finding.with_detail(detail));
    }
}

impl Outbox<'_> {
    /// Records a change and returns the key of its note. For a change that writes nothing there is
    /// no note, and the key is empty. A row may have several changes, each under the first name
    /// that it writes.
    pub(super) async fn open(&self, change: &Change) -> MigrateResult<String> {
        let Some(first) = change.names.writes().first() else {
            return Ok(String::new());
        };
        let note = format!("{}{} {}", self.sort, change.configuration, first.coordinate);
        match self.held {
            None => self.put(&note, change).await?,
            Some(held) => held.put_note(&note, &text(change)?).await?,
        }
        Ok(note)
    }

    /// Deletes the secrets that a change wrote, after its row was certainly not saved.
    pub(super) async fn abandon(&self, note: &str, mut change: Change) -> MigrateResult<()> {
        if note.is_empty() {
            return Ok(());
        }
        change.abandoned = true;
        self.heal(note, &change).await
    }

    /// Removes the note of a change that was undone.
    pub(super) async fn undone(
        &self,
        note: &str,
        cleanup: Result<Cleanup, ConnectorError>,
    ) -> MigrateResult<()> {
        let cleanup = cleanup.map_err(failed)?;
        self.report(&cleanup);
        if note.is_empty() || !cleanup.failed.is_empty() {
            return Ok(());
        }
        self.journal.put_note(note, None).await
    }

    /// Ends every recorded change of which it is certain what became of it, and returns the others.
    pub(super) async fn end(&self, knowledge: Knowledge) -> MigrateResult<Vec<Kept>> {
        let (mut after, mut kept) = (None, Vec::new());
        while let Some(notes) = self.notes(&mut after).await? {
            for (note, mut change) in notes {
                if self.tracker.is_stopped() {
                    return Ok(kept);
                }
                check(self.held).await?;
                match self.outcome(&change, knowledge).await? {
                    Outcome::Abandoned => change.abandoned = true,
                    Outcome::Saved => change.abandoned = false,
                    Outcome::Tried => continue,
                    Outcome::Kept(why) => {
                        kept.push(Kept {
                            why,
                            secrets: change.names.writes().len() as u64,
                            configuration: change.configuration,
                        });
                        continue;
                    }
                }
                self.heal(&note, &change).await?;
                if let Some(held) = self.held {
                    held.progressed();
                }
            }
        }
        Ok(kept)
    }

    async fn outcome(&self, change: &Change, knowledge: Knowledge) -> MigrateResult<Outcome> {
        if change.abandoned {
            // What it wrote is deleted without a look at its row, which may be in a source that this run does
            // not have.
            let source = self.source(change);
            let admits_others = source.is_ok_and(|(source, _)| source.admits_others());
            return Ok(match knowledge {
                Knowledge::AllSaved if !admits_others => Outcome::Tried,
                Knowledge::AllSaved | Knowledge::Rows => Outcome::Abandoned,
            });
        }
        let admits_others = self.source(change)?.0.admits_others();
        if matches!(knowledge, Knowledge::AllSaved) && !admits_others {
            return Ok(Outcome::Saved);
        }
        let end = change.names.planned().saturating_add(self.patience);
        let why = match self.row(change).await? {
            Now::Saved => return Ok(Outcome::Saved),
            Now::Unreadable if !admits_others => return Ok(Outcome::Saved),
            Now::Gone | Now::Without(..) if !admits_others => return Ok(Outcome::Abandoned),
            Now::Gone => Why::Gone(end),
            Now::Unreadable => return Ok(Outcome::Kept(change.why_uncertain())),
            Now::Without(configuration, pointers) => {
                match change.may_be_saved(&configuration, &pointers) {
                    Some(true) => return Ok(Outcome::Kept(change.why_uncertain())),
                    Some(false) => return Ok(Outcome::Abandoned),
                    None => Why::Earlier(end),
                }
            }
        };
        Ok(if end <= Timestamp::now() {
            Outcome::Abandoned
        } else {
            Outcome::Kept(why)
        })
    }

    /// The names that the recorded changes write.
    pub(super) async fn names(&self) -> MigrateResult<HashSet<ManagedCoordinate>> {
        let (mut after, mut names) = (None, HashSet::new());
        while let Some(notes) = self.notes(&mut after).await? {
            let writes = notes.iter().flat_map(|(_, change)| change.names.writes());
            names.extend(writes.map(|write| write.coordinate.clone()));
        }
        Ok(names)
    }

    /// Removes the note of a change that was saved.
    pub(super) async fn saved(&self, note: &str, cleanup: &Cleanup) -> MigrateResult<()> {
        self.report(cleanup);
        if note.is_empty() || !cleanup.is_finished() {
            return Ok(());
        }
        self.journal.put_note(note, None).await
    }

    /// The next recorded changes, in the order of their notes. `None` after the last.
    async fn notes(
        &self,
        after: &mut Option<String>,
    ) -> MigrateResult<Option<Vec<(String, Change)>>> {
        let begin = after.as_deref().unwrap_or(self.sort);
        let notes = self.journal.notes(Some(begin), self.page).await?;
        let ours: MigrateResult<Vec<(String, Change)>> = notes
            .into_iter()
            .take_while(|note| note.key.starts_with(self.sort))
            .map(|note| {
                let change = serde_json::from_str(&note.text).map_err(unreadable)?;
                Ok((note.key, change))
            })
            .collect();
        let ours = ours?;
        *after = ours.last().map(|(last, _)| last.clone());
        Ok(after.is_some().then_some(ours))
    }

    pub(super) fn report(&self, cleanup: &Cleanup) {
        for undeleted in &cleanup.failed {
            self.tracker.failed(Failure::of(&undeleted.error));
        }
    }

    async fn put(&self, note: &str, change: &Change) -> MigrateResult<()> {
        self.journal.put_note(note, Some(&text(change)?)).await
    }

    async fn heal(&self, note: &str, change: &Change) -> MigrateResult<()> {
        let state = if change.abandoned {
            // Claim the record before anything is deleted.
            self.put(note, change).await?;
            RecordState::Abandoned
        } else {
            RecordState::Saved
        };
        let cleanup = self
            .secrets
            .heal(&change.names, state)
            .await
            .map_err(failed)?;
        self.report(&cleanup);
        // A write of the killed run may still be in flight: then the next start heals again.
        if cleanup.is_finished() {
            self.journal.put_note(note, None).await?;
        }
        Ok(())
    }

    /// The source of a change, and the id of its row.
    fn source<'c>(&self, change: &'c Change) -> MigrateResult<(&dyn ConfigSource, &'c str)> {
        let is_same = |source: &dyn ConfigSource| {
            let noted = change.source.as_ref();
            noted.is_none_or(|noted| *noted == source.identity())
        };
        by_key(self.configs, &change.configuration)
            .filter(|(source, _)| is_same(*source))
            .ok_or_else(|| unknown_source(&change.configuration))
    }

    /// What the row of a change is now.
    async fn row(&self, change: &Change) -> MigrateResult<Now> {
        let (source, id) = self.source(change)?;
        let Some(row) = source.row(id).await? else {
            return Ok(Now::Gone);
        };
        let Content::Configuration(configuration) = row.content else {
            return Ok(Now::Gone);
        };
        let Ok(pointers) = pointers(&configuration) else {
            return Ok(Now::Unreadable);
        };
        // Without the storage: the names are new, and the same store may have several ids. And without references:
        // a change writes pointers to names.
        let is_saved = pointers.iter().any(|(_, pointer)| {
            let named = pointer.coordinate.as_ref().and_then(Coordinate::managed);
            let writes = change.names.writes();
            named.is_some_and(|named| writes.iter().any(|write| write.coordinate == *named))
        });
        Ok(if is_saved {
            Now::Saved
        } else {
            Now::Without(configuration, pointers)
        })
    }
}

/// The row of a recorded change.
enum Now {
    /// There is none, or none with a configuration.
    Gone,
    /// It contains secrets that were written for it.
    Saved,
    /// It may contain them: one of its pointers has another form.
    Unreadable,
    /// It contains none of them.
    Without(Arc<SecretJson>, Vec<(Place, Pointer)>),
}

/// A change was recorded for a row of a source that this run does not have.
fn unknown_source(key: &str) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Configurations,
        "an earlier run was stopped while it changed this row, and this run does not have the \
        row's source",
    )
    .with_place(key.to_owned())
    .with_hint("use the same sources of configurations as that run")
}

pub(super) fn failed(error: ConnectorError) -> MigrateError {
    MigrateError::new(MigrateErrorKind::Store, "the change could not be ended").with_source(error)
}

fn text(change: &Change) -> MigrateResult<String> {
    serde_json::to_string(change).map_err(unreadable)
}

fn unreadable(cause: serde_json::Error) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Journal,
        "a note in the journal was written by a later version",
    )
    .with_hint(
        "run the same command, with the same journal and configurations, in the version that wrote it until it ends \
         without a row that is kept; then this version can go on",
    )
    .with_source(cause)
}
