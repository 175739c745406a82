//! Whose reading of the configurations a process deletes by.
//!
//! Whoever starts the command expects that it reads the configurations as they are now. A pass whose pages
//! were laid out before is therefore joined only if another process is at work on it: then this one helps.
//! The pages of processes that were killed or cancelled are left, and the next pass begins with the listing.
use tokio::time::sleep;

use super::journal::CollectJournal;
use super::shared::POLL;
use super::{LEAST_GRACE, Run};
use crate::{Claim, Member, MigrateResult, SharedWork};

/// The halt of a pass whose reading does not count any more.
pub(super) const STALE: &str = "stale";

/// How far a pass is.
struct Reading {
    /// Whether the first page has ended.
    is_done: bool,
    /// Pages that have not.
    open: u64,
    /// Those of them that a process has.
    held: u64,
    /// How often pages were claimed. Whoever was cancelled ends its page, but claims no other.
    claims: u64,
}

impl Run<'_> {
    /// Joins a pass, or begins one. `None` if it was cancelled.
    pub(super) async fn join(
        &mut self,
        work: &SharedWork,
        worker: &str,
    ) -> MigrateResult<Option<Member>> {
        let journal = &self.collect.journal;
        let passes = journal.passes();
        let lease = self.collect.options.lease;
        let mut first: Option<(u64, u64)> = None;
        let mut idle = 0;
        loop {
            if self.is_cancelled() {
                return Ok(None);
            }
            let member = passes.join(work, worker, lease).await?;
            let reading = journal.reading(member.pass).await?;
            let (pass, claims) = *first.get_or_insert((member.pass, reading.claims));
            // A pass that has begun since has been read since.
            let is_new = pass != member.pass || !reading.is_done;
            if is_new || reading.open == 0 || reading.claims > claims {
                return Ok(Some(member));
            }
            idle = if reading.held == 0 { idle + 1 } else { 0 };
            // Between two pages, a process has none for a moment.
            if idle > 2 {
                passes.halt(member.pass, STALE.to_owned()).await?;
            } else {
                sleep(POLL).await;
            }
        }
    }
}

impl CollectJournal {
    /// Whether the configurations were read so long ago that they may name what the page deletes. The claim
    /// of the first page is not renewed after its end.
    pub(super) async fn is_stale(&self, claim: Claim) -> MigrateResult<bool> {
        let sql = "SELECT CAST(until + CAST($2 AS interval) < now() AS TEXT) FROM collect_page \
                   WHERE pass = CAST($1 AS BIGINT) AND page = 0";
        let until = LEAST_GRACE.saturating_sub(claim.lease).as_secs();
        let parameters = vec![claim.pass.to_string(), format!("{until} seconds")];
        let rows = self.few(sql, parameters).await?;
        let is_stale = rows.into_iter().flatten().flatten().next();
        // Without the first page, another pass has begun.
        Ok(is_stale.is_none_or(|is_stale| is_stale == "true"))
    }

    async fn reading(&self, pass: u64) -> MigrateResult<Reading> {
        let sql = "SELECT CAST(COUNT(*) FILTER (WHERE page = 0 AND done = 1) AS TEXT), \
                CAST(COUNT(*) FILTER (WHERE done = 0) AS TEXT), \
                CAST(COUNT(*) FILTER (WHERE done = 0 AND until >= now()) AS TEXT), \
                CAST(COALESCE(SUM(epoch), 0) AS TEXT) \
             FROM collect_page WHERE pass = CAST($1 AS BIGINT)";
        let row = self.few(sql, vec![pass.to_string()]).await?;
        let counts: Option<Vec<u64>> = row
            .into_iter()
            .flatten()
            .map(|count| count?.parse().ok())
            .collect();
        let [done, open, held, claims] = counts
            .and_then(|counts| <[u64; 4]>::try_from(counts).ok())
            .ok_or_else(|| self.damaged())?;
        Ok(Reading {
            is_done: done > 0,
            open,
            held,
            claims,
        })
    }
}
