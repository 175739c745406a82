//! Ends a change whose process crashed, exactly.

use super::cleanup::{Cleanup, Reason};
use super::error::ConnectorError;
use super::record::{Record, RecordState};
use super::secrets::ActingSecrets;
use crate::Timestamp;

impl ActingSecrets {
    /// Deletes what a change left behind: for an abandoned record the secrets that it was to write,
    /// for a saved record the secrets that it superseded.
    ///
    /// The caller must first claim an abandoned record, from `open` to `abandoned`, with the same
    /// compare-and-swap that a save uses, so that a slow save and the healer never both succeed. A
    /// write in flight may arrive after its delete: heal again at [`Cleanup::again`], and remove
    /// the record once the cleanup [is finished](Cleanup::is_finished). Healing twice is harmless.
    /// Secrets that a store marks with another owner are kept, because the outbox may be a copy
    /// from another installation.
    ///
    /// # Errors
    /// Only if the audit is required and its sink fails. The result lists what could not be
    /// deleted.
    pub async fn heal(
        &self,
        record: &Record,
        state: RecordState,
    ) -> Result<Cleanup, ConnectorError> {
        self.heal_at(record, state, Timestamp::now()).await
    }

    pub(super) async fn heal_at(
        &self,
        record: &Record,
        state: RecordState,
        now: Timestamp,
    ) -> Result<Cleanup, ConnectorError> {
        match state {
            RecordState::Abandoned => self.undo(record, Reason::Recorded, now).await,
            RecordState::Saved => self.supersede(record, now).await,
        }
    }

    /// Deletes the secrets that a change was to write.
    pub(super) async fn undo(
        &self,
        record: &Record,
        reason: Reason,
        now: Timestamp,
    ) -> Result<Cleanup, ConnectorError> {
        let mut cleanup = self.clean_up(record.writes(), reason).await?;
        if !record.writes().is_empty() {
            cleanup.again = record.before(self.options().deadline, now);
        }
        Ok(cleanup)
    }

    /// Deletes the secrets that a saved change superseded, unless they are retained for a while.
    pub(super) async fn supersede(
        &self,
        record: &Record,
        now: Timestamp,
    ) -> Result<Cleanup, ConnectorError> {
        let retained_until = self
            .options()
            .retention
            .and_then(|retention| record.before(retention, now))
            .filter(|_| !record.supersedes().is_empty());
        if retained_until.is_some() {
            return Ok(Cleanup {
                retained: record.supersedes().to_vec(),
                again: retained_until,
                ..Cleanup::default()
            });
        }
        self.clean_up(record.supersedes(), Reason::Superseded).await
    }
}
