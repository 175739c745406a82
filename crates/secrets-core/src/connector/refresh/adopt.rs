//! Moves new values into the row: the end of a refresh, and of one that crashed.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::RefreshError;
use super::record::{RefreshRecord, RefreshTarget};
use super::row::Row;
use super::rows::{Ended, Lease, RefreshRows, RefreshSaved};
use crate::Error;
use crate::connector::pointer::Pointer;
use crate::connector::read::Unread;
use crate::connector::references::References;
use crate::connector::secrets::ActingSecrets;

/// How often a row is saved at most. Another save may come first now and then, but a table may also
/// refuse every update without an error: a trigger, a row policy.
const SAVES: u32 = 10;

/// After half of them.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A lease that this process holds.
pub(super) struct Holder<'a> {
    pub(super) secrets: &'a ActingSecrets,
    pub(super) rows: &'a dyn RefreshRows,
    pub(super) lease: &'a Lease,
}

/// What became of a record.
#[derive(Clone, Debug)]
pub(super) enum Adopted {
    /// Another process has the lease, and decides.
    LeaseLost,
    /// The row is gone.
    Missing,
    /// There was nothing to adopt: no value, or none that the row still waits for.
    Nothing,
    /// The row has the new values.
    Saved { revision: i64, config: Value },
}

impl Holder<'_> {
    /// Ends the record of a process that crashed: adopts what it wrote.
    pub(super) async fn recover<E>(
        &self,
        record: &RefreshRecord,
    ) -> Result<Adopted, RefreshError<E>> {
        let pointers: Vec<Pointer> = record
            .targets()
            .iter()
            .map(RefreshTarget::pointer)
            .collect();
        let places: Vec<_> = record
            .targets()
            .iter()
            .map(|target| target.place.clone())
            .collect();
        let read = self
            .secrets
            .read(&pointers, &places, &References::default())
            .await?;
        let (mut written, mut unwritten) = (Vec::new(), Vec::new());
        for ((target, pointer), value) in record.targets().iter().zip(&pointers).zip(read) {
            match value {
                Ok(_) => written.push(target),
                Err(unread) if unread.is_gone() => unwritten.push(target),
                // Whether it was written decides whether the grant lives, so this is no time to
                // guess.
                Err(unread) => return Err(unread_at(unread, target, pointer).into()),
            }
        }
        self.adopt(record, &written, unwritten).await
    }

    /// Replaces the pointers of written values in the row, and ends the record. A person or another
    /// change may have edited the row meanwhile: what still has the old pointer gets the new one,
    /// and nothing else changes.
    pub(super) async fn adopt<E>(
        &self,
        record: &RefreshRecord,
        written: &[&RefreshTarget],
        unwritten: Vec<&RefreshTarget>,
    ) -> Result<Adopted, RefreshError<E>> {
        let new = record
            .targets()
            .iter()
            .map(RefreshTarget::pointer)
            .collect();
        let mut pause = FIRST_PAUSE;
        for attempt in 0..SAVES {
            if attempt > SAVES / 2 {
                sleep(pause).await;
                pause *= 2;
            }
            let row = Row::read::<E>(self.rows, &self.lease.row).await?;
            let mut left = unwritten.clone();
            let Some(mut row) = row else {
                left.extend(written);
                let closed = self.close(record.abandoned(&left)).await?;
                return Ok(if closed {
                    Adopted::Missing
                } else {
                    Adopted::LeaseLost
                });
            };
            if row.has_any(&new) {
                // The answer of an earlier save was lost, which has ended the record too.
                self.rows.close(self.lease, &[]).await?;
                return Ok(Adopted::Saved {
                    revision: row.revision,
                    config: row.config,
                });
            }
            let (adopted, gone) = row.adopt(written)?;
            left.extend(gone);
            let abandoned = record.abandoned(&left);
            if adopted.is_empty() {
                let closed = self.close(abandoned).await?;
                return Ok(if closed {
                    Adopted::Nothing
                } else {
                    Adopted::LeaseLost
                });
            }
            let mut ended = vec![record.saved(&adopted, &row.config)];
            ended.extend(abandoned);
            let saved = self
                .rows
                .save(self.lease, row.revision, row.text(), &ended)
                .await?;
            match saved {
                RefreshSaved::LeaseLost => return Ok(Adopted::LeaseLost),
                RefreshSaved::RowMoved => {}
                RefreshSaved::Saved(revision) => {
                    self.clean_up(&ended).await;
                    return Ok(Adopted::Saved {
                        revision,
                        config: row.config,
                    });
                }
            }
        }
        Err(RefreshError::Unsaved)
    }

    pub(super) async fn close(&self, abandoned: Option<Ended>) -> Result<bool, Error> {
        let ended: Vec<Ended> = abandoned.into_iter().collect();
        let closed = self.rows.close(self.lease, &ended).await?;
        if closed {
            self.clean_up(&ended).await;
        }
        Ok(closed)
    }

    /// Ends a record whose targets were never written. If this fails too, the next holder does.
    pub(super) async fn end_unused(&self, record: &RefreshRecord) {
        if let Err(error) = self.close(record.abandoned(&[])).await {
            tracing::debug!(%error, "the record of a failed exchange is left to the next holder");
        }
    }

    /// Deletes what has ended. What fails is left in the outbox.
    async fn clean_up(&self, ended: &[Ended]) {
        for Ended { id, record, state } in ended {
            let cleaned = self.secrets.heal(record, *state).await;
            let finished = cleaned.is_ok_and(|cleanup| cleanup.is_finished());
            if finished && let Err(error) = self.rows.forget(*id).await {
                tracing::debug!(%error, "an entry of the outbox is left to the healer");
            }
        }
    }
}

fn unread_at(
    unread: Unread,
    target: &RefreshTarget,
    pointer: &Pointer,
) -> crate::connector::ConnectorError {
    unread.at(target.place.clone(), pointer).into()
}
