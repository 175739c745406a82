//! Changes of rows in progress: core's crash protocol, with the journal's notes as its outbox.
//!
//! A record of the names is stored before the first one is written, and removed once the outcome of
//! the row's update is certain. A saved row is certain only once its source has
//! [finished](ConfigSource::finish): a source that writes a new file has not changed anything
//! before.
use std::sync::Arc;

use secret_persistence_core::connector::{
    ActingSecrets, Cleanup, ConnectorError, Record, RecordState,
};
use serde::{Deserialize, Serialize};

use crate::session::by_key;
use crate::tracker::Tracker;
use crate::{
    ConfigSource, Content, Failure, Journal, MigrateError, MigrateErrorKind, MigrateResult,
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
}

/// A change of one row, as its note describes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// The configuration's key.
    configuration: String,
    /// Whether the row was certainly not saved, so that the written secrets must be deleted.
    abandoned: bool,
    /// The names.
    names: Record,
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
    pub(super) async fn open(&self, configuration: &str, names: Record) -> MigrateResult<String> {
        let Some(first) = names.writes().first() else {
            return Ok(String::new());
        };
        let note = format!("{}{configuration} {}", self.sort, first.coordinate);
        let change = Change {
            configuration: configuration.to_owned(),
            abandoned: false,
            names,
        };
        self.put(&note, &change).await?;
        Ok(note)
    }

    /// Deletes the secrets that a change wrote, after its row was certainly not saved.
    pub(super) async fn abandon(
        &self,
        note: &str,
        configuration: &str,
        names: Record,
    ) -> MigrateResult<()> {
        if note.is_empty() {
            return Ok(());
        }
        let change = Change {
            configuration: configuration.to_owned(),
            abandoned: true,
            names,
        };
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
        let mut after = self.sort.to_owned();
        loop {
            let notes = self.journal.notes(Some(&after), self.page).await?;
            let is_last = notes.len() < self.page;
            for note in notes {
                if !note.key.starts_with(self.sort) {
                    return Ok(());
                }
                let mut change: Change = serde_json::from_str(&note.text).map_err(unreadable)?;
                after.clone_from(&note.key);
                change.abandoned = match knowledge {
                    Knowledge::AllSaved if change.abandoned => continue,
                    Knowledge::AllSaved => false,
                    Knowledge::Rows => change.abandoned || !self.is_saved(&change).await?,
                };
                self.heal(&note.key, &change).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    pub(super) fn report(&self, cleanup: &Cleanup) {
        for undeleted in &cleanup.failed {
            self.tracker.failed(Failure::of(&undeleted.error));
        }
    }

    async fn put(&self, note: &str, change: &Change) -> MigrateResult<()> {
        let text = serde_json::to_string(change).map_err(unreadable)?;
        self.journal.put_note(note, Some(&text)).await
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

    /// Whether a row contains any of the secrets that were written for it.
    async fn is_saved(&self, change: &Change) -> MigrateResult<bool> {
        let Some((source, id)) = by_key(self.configs, &change.configuration) else {
            return Err(unknown_source(&change.configuration));
        };
        let Some(row) = source.row(id).await? else {
            return Ok(false);
        };
        let Content::Configuration(configuration) = &row.content else {
            return Ok(false);
        };
        // An unreadable row may contain them. Compare names without the storage: they are new, and
        // the same store may have several ids.
        let locations = self.secrets.locations(configuration).await;
        Ok(locations.map_or(true, |locations| {
            let writes = change.names.writes();
            locations.iter().any(|location| {
                writes
                    .iter()
                    .any(|write| write.coordinate == location.coordinate)
            })
        }))
    }
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

fn unreadable(cause: serde_json::Error) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Journal,
        "a note in the journal was written by another version",
    )
    .with_hint("finish the run with the version that started it")
    .with_source(cause)
}
