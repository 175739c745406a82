//! Changes of rows in progress: core's crash protocol, with the journal's notes as its outbox.
//!
//! A record of the names is stored before the first one is written, and removed once the outcome of
//! the row's update is certain. A saved row is certain only once its source has
//! [finished](ConfigSource::finish): a source that writes a new file has not changed anything
//! before.
use std::sync::Arc;

use secret_persistence_core::connector::{
    ActingSecrets, Cleanup, ConnectorError, Place, Record, RecordState, pointers,
};
use serde::{Deserialize, Serialize};

use crate::session::by_key;
use crate::shared::Held;
use crate::tracker::Tracker;
use crate::{
    ConfigRow, ConfigSource, Content, Failure, Journal, MigrateError, MigrateErrorKind,
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
    /// The page of a shared journal under which changes are recorded.
    pub(super) held: Option<&'r Held<'r>>,
}

/// A change of one row, as its note describes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// The configuration's key.
    pub(super) configuration: String,
    /// What tells the row's source apart from others with the same name.
    source: String,
    /// Whether the row was certainly not saved, so that the written secrets must be deleted.
    pub(super) abandoned: bool,
    /// Where the row is about to get pointers. While one of them holds something else, the row may still be
    /// what the process has read.
    places: Vec<String>,
    /// The names.
    pub(super) names: Record,
}

impl Change {
    /// A change of a row that is about to get pointers at these places.
    pub(super) fn new(
        source: &dyn ConfigSource,
        configuration: &str,
        names: Record,
        places: &[Place],
    ) -> Self {
        Self {
            configuration: configuration.to_owned(),
            source: source.identity(),
            abandoned: false,
            places: places
                .iter()
                .map(|place| place.as_str().to_owned())
                .collect(),
            names,
        }
    }

    /// Whether a row may still be what the process has read that is about to save it: it compares the text,
    /// and nothing else, such as the specification.
    pub(super) fn may_be_saved(&self, row: &ConfigRow) -> bool {
        let Content::Configuration(configuration) = &row.content else {
            return false;
        };
        let Ok(pointers) = pointers(configuration) else {
            return true;
        };
        self.places.iter().any(|place| {
            configuration.pointer(place).is_some()
                && pointers.iter().all(|(other, _)| other.as_str() != place)
        })
    }
}

/// What is known about the recorded changes.
#[derive(Clone, Copy)]
pub(super) enum Knowledge {
    /// Every change that was not given up is saved: the sources have finished.
    AllSaved,
    /// They are from a killed run, and the rows decide: a row with its new secrets keeps them;
    /// otherwise the secrets are deleted.
    Rows,
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

    /// Ends every recorded change.
    pub(super) async fn end(&self, knowledge: Knowledge) -> MigrateResult<()> {
        let mut after = None;
        loop {
            let notes = self.notes(after.as_deref()).await?;
            let Some((last, _)) = notes.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (note, mut change) in notes {
                change.abandoned = match knowledge {
                    Knowledge::AllSaved if change.abandoned => continue,
                    Knowledge::AllSaved => false,
                    Knowledge::Rows => {
                        change.abandoned || !matches!(self.row(&change).await?, Now::Saved)
                    }
                };
                self.heal(&note, &change).await?;
            }
        }
    }

    /// Removes the note of a change that was saved.
    pub(super) async fn saved(&self, note: &str, cleanup: &Cleanup) -> MigrateResult<()> {
        self.report(cleanup);
        if note.is_empty() || !cleanup.is_finished() {
            return Ok(());
        }
        self.journal.put_note(note, None).await
    }

    /// The recorded changes after a note, in the order of their notes. None after the last.
    pub(super) async fn notes(&self, after: Option<&str>) -> MigrateResult<Vec<(String, Change)>> {
        let notes = self
            .journal
            .notes(Some(after.unwrap_or(self.sort)), self.page);
        let ours = notes.await?.into_iter();
        ours.take_while(|note| note.key.starts_with(self.sort))
            .map(|note| {
                let change = serde_json::from_str(&note.text).map_err(unreadable)?;
                Ok((note.key, change))
            })
            .collect()
    }

    pub(super) fn report(&self, cleanup: &Cleanup) {
        for undeleted in &cleanup.failed {
            self.tracker.failed(Failure::of(&undeleted.error));
        }
    }

    async fn put(&self, note: &str, change: &Change) -> MigrateResult<()> {
        self.journal.put_note(note, Some(&text(change)?)).await
    }

    pub(super) async fn heal(&self, note: &str, change: &Change) -> MigrateResult<()> {
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
    pub(super) fn source<'c>(
        &self,
        change: &'c Change,
    ) -> MigrateResult<(&dyn ConfigSource, &'c str)> {
        by_key(self.configs, &change.configuration)
            .filter(|(source, _)| source.identity() == change.source)
            .ok_or_else(|| unknown_source(&change.configuration))
    }

    /// What the row of a change is now.
    pub(super) async fn row(&self, change: &Change) -> MigrateResult<Now> {
        let (source, id) = self.source(change)?;
        let Some(row) = source.row(id).await? else {
            return Ok(Now::Gone);
        };
        let Content::Configuration(configuration) = &row.content else {
            return Ok(Now::Gone);
        };
        // An unreadable row may contain them. Compare names without the storage: they are new, and
        // the same store may have several ids.
        let locations = self.secrets.locations(configuration).await;
        let is_saved = locations.map_or(true, |locations| {
            let writes = change.names.writes();
            locations.iter().any(|location| {
                writes
                    .iter()
                    .any(|write| write.coordinate == location.coordinate)
            })
        });
        Ok(if is_saved {
            Now::Saved
        } else {
            Now::Without(row)
        })
    }
}

/// The row of a recorded change.
pub(super) enum Now {
    /// There is none, or none with a configuration.
    Gone,
    /// It contains secrets that were written for it.
    Saved,
    /// It contains none of them.
    Without(ConfigRow),
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
        "a note in the journal was written by another version",
    )
    .with_hint("finish the run with the version that started it")
    .with_source(cause)
}
