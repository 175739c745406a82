//! What a run is about to write for one configuration, so that a killed run leaves nothing behind.

use serde::{Deserialize, Serialize};

use super::{Journal, MigrateError, MigrateErrorKind, MigrateResult};

/// A note about one change of one row: written before the change, removed once it is certain.
///
/// A saved row is certain only once its source has [finished](crate::ConfigSource::finish): one that
/// writes a new file has changed nothing before.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change<T> {
    /// The configuration's key.
    pub(super) configuration: String,
    /// Whether it is certain that the row was not saved, and what was written has to go.
    pub(super) abandoned: bool,
    /// The names.
    pub(super) names: T,
}

impl<T: Serialize + for<'de> Deserialize<'de>> Change<T> {
    pub(super) fn new(configuration: &str, names: T) -> Self {
        Self {
            configuration: configuration.to_owned(),
            abandoned: false,
            names,
        }
    }

    /// Notes it. A row may have several changes, each under its own number.
    pub(super) async fn put(&self, journal: &dyn Journal, key: &str) -> MigrateResult<()> {
        let text = serde_json::to_string(self).map_err(unreadable)?;
        journal.put_note(key, Some(&text)).await
    }

    /// Reads the notes of one sort, a page after a key, with their keys.
    pub(super) async fn page(
        journal: &dyn Journal,
        sort: &str,
        after: Option<&str>,
        limit: usize,
    ) -> MigrateResult<(Vec<(String, Self)>, Option<String>)> {
        let notes = journal.notes(Some(after.unwrap_or(sort)), limit).await?;
        let next = (notes.len() == limit)
            .then(|| notes.last().map(|note| note.key.clone()))
            .flatten();
        let mut changes = Vec::with_capacity(notes.len());
        for note in notes {
            if !note.key.starts_with(sort) {
                return Ok((changes, None));
            }
            changes.push((
                note.key,
                serde_json::from_str(&note.text).map_err(unreadable)?,
            ));
        }
        Ok((changes, next))
    }
}

fn unreadable(cause: serde_json::Error) -> MigrateError {
    MigrateError::new(
        MigrateErrorKind::Journal,
        "a note in the journal is not what this version writes",
    )
    .with_hint("finish the run with the version that began it")
    .with_source(cause)
}
