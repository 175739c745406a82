//! Ends, exactly, a change whose process crashed.

use super::cleanup::{Cleanup, Reason};
use super::error::ConnectorError;
use super::record::{Record, RecordState};
use super::secrets::ActingSecrets;
use crate::Timestamp;

impl ActingSecrets {
    /// Deletes what a change left behind: for an abandoned record what it was to write, for a saved
    /// one what it superseded.
    ///
    /// The caller has claimed an abandoned record first, `open` to `abandoned`, by the same
    /// compare-and-swap that saving uses, so that a slow saver and the healer never both win. A write
    /// may be in flight when its delete arrives, and land after it: heal again at
    /// [`Cleanup::again`], and remove the record once the cleanup [is
    /// finished](Cleanup::is_finished). Healing twice does no harm. Secrets that a store marks with
    /// another owner are left: the outbox may be a copy of another installation's.
    ///
    /// # Errors
    /// Only where the audit is required and its sink fails; what could not be deleted is in the
    /// result.
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

    /// Deletes what a change was to write.
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

    /// Deletes what a saved change superseded, unless it is to be kept for a while.
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
