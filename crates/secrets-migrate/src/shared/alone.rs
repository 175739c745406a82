//! What one process does for all: the first page of a pass, and the last.
use std::sync::Arc;

use super::Held;
use crate::session::Session;
use crate::{Mark, Mention, MigrateResult};

impl<'m> Session<'m> {
    /// The first or last page, if this process has it.
    fn held_alone(&self) -> Option<Arc<Held<'m>>> {
        self.alone.lock().clone()
    }

    /// Does work for all processes, under the claim of its page.
    pub(crate) async fn alone_with<T>(
        &self,
        held: &Arc<Held<'m>>,
        work: impl Future<Output = MigrateResult<T>>,
    ) -> MigrateResult<T> {
        *self.alone.lock() = Some(Arc::clone(held));
        let done = held.during(work).await;
        *self.alone.lock() = None;
        done
    }

    /// Notes that the work for all processes makes progress, and checks that it still is this process's.
    pub(crate) async fn still_held(&self) -> MigrateResult<()> {
        match self.held_alone() {
            None => Ok(()),
            Some(held) => {
                held.progressed();
                held.check().await
            }
        }
    }

    /// Asks the journal whether the work for all still is this process's, also if it was a moment ago.
    pub(crate) async fn ask_whether_held(&self) -> MigrateResult<()> {
        match self.held_alone() {
            None => Ok(()),
            Some(held) => held.renew().await,
        }
    }

    /// Notes that a request of the work for all processes has returned.
    pub(crate) fn progressed(&self) {
        if let Some(held) = self.held_alone() {
            held.progressed();
        }
    }

    /// Begins a scan in the journal.
    pub(crate) async fn begin_scan(&self) -> MigrateResult<u64> {
        match self.held_alone() {
            None => self.journal.begin_scan().await,
            Some(held) => held.sharing.begin_scan_under(held.claim).await,
        }
    }

    /// Notes that the scan has seen configurations.
    pub(crate) async fn see(&self, scan: u64, keys: &[String]) -> MigrateResult<Vec<String>> {
        match self.held_alone() {
            None => self.journal.see(scan, keys).await,
            Some(held) => held.sharing.see_under(held.claim, scan, keys).await,
        }
    }

    /// Notes what the scan has found.
    pub(crate) async fn mention(&self, scan: u64, mentions: &[Mention]) -> MigrateResult<()> {
        match self.held_alone() {
            None => self.journal.mention(scan, mentions).await,
            Some(held) => held.sharing.mention_under(held.claim, scan, mentions).await,
        }
    }

    /// Tells all processes what the scan knows about names.
    pub(crate) async fn mark(&self, marks: Vec<Mark>) -> MigrateResult<()> {
        match self.held_alone() {
            Some(held) if !marks.is_empty() => held.sharing.mark(held.claim, &marks).await,
            _ => Ok(()),
        }
    }
}
