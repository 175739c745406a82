//! Ends refreshes whose process crashed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::RefreshError;
use super::adopt::{Adopted, Holder};
use super::rows::{Ended, RefreshRows, Taken};
use crate::Error;
use crate::connector::Undeleted;
use crate::connector::secrets::ActingSecrets;

/// How long the healer keeps a row from others.
const LEASE: Duration = Duration::from_secs(60);

/// What a healer did.
#[derive(Clone, Debug, Default)]
#[must_use = "it names what could not be deleted"]
#[non_exhaustive]
pub struct HealedRefreshes {
    /// Rows that got the new values of a refresh that crashed.
    pub adopted: Vec<String>,
    /// Rows whose refresh left no value that the row still waits for.
    pub abandoned: Vec<String>,
    /// Rows whose refresh is still open, and why. The next round, or the next refresh of the row,
    /// tries again.
    pub open: Vec<(String, RefreshError<Infallible>)>,
    /// Secrets that could not be deleted. They stay in the outbox.
    pub failed: Vec<Undeleted>,
    /// Entries of the outbox that could not be read, by name. They stay there, for the version that
    /// wrote them.
    pub unreadable: Vec<Error>,
}

impl ActingSecrets {
    /// Ends refreshes whose process crashed: new values that were written are adopted into their
    /// rows, and what no row needs is deleted. A [`refresh`](Self::refresh) of the same row does
    /// this too, so the healer is for rows that nobody refreshes soon.
    ///
    /// Run it at the start and every minute; concurrent runs are harmless.
    ///
    /// # Errors
    /// If the caller's database fails to list, or a required audit fails.
    pub async fn heal_refreshes(
        &self,
        rows: &Arc<dyn RefreshRows>,
    ) -> Result<HealedRefreshes, RefreshError<Infallible>> {
        let mut healed = HealedRefreshes::default();
        for row in rows.unfinished().await? {
            match self.heal_refresh(rows.as_ref(), &row).await {
                Ok(Some(Adopted::Saved { .. })) => healed.adopted.push(row),
                Ok(Some(Adopted::Missing | Adopted::Nothing)) => healed.abandoned.push(row),
                Ok(Some(Adopted::LeaseLost) | None) => {}
                Err(error) => healed.open.push((row, error)),
            }
        }
        for ended in rows.ended().await? {
            let Ended { id, record, state } = match ended {
                Ok(ended) => ended,
                Err(error) => {
                    healed.unreadable.push(error);
                    continue;
                }
            };
            let cleanup = self.heal(&record, state).await?;
            if cleanup.is_finished() {
                rows.forget(id).await?;
            }
            healed.failed.extend(cleanup.failed);
        }
        Ok(healed)
    }

    async fn heal_refresh(
        &self,
        rows: &dyn RefreshRows,
        row: &str,
    ) -> Result<Option<Adopted>, RefreshError<Infallible>> {
        let Taken::Held { lease, record } = rows.take(row, LEASE).await? else {
            return Ok(None);
        };
        let holder = Holder {
            secrets: self,
            rows,
            lease: &lease,
        };
        let adopted = match &record {
            Some(record) => holder.recover(record).await.map(Some),
            None => Ok(None),
        };
        rows.release(&lease).await?;
        adopted
    }
}
