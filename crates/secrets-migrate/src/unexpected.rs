//! Finds secrets of the target that the source does not have.

use futures::TryStreamExt;
use secret_persistence_core::{
    Entry, ListOptions, Listing, ManagedCoordinate, SecretPersistenceExt,
};

use crate::compare::Side;
use crate::scan::coordinates;
use crate::session::Session;
use crate::{Difference, JournalEntry, MigrateResult, Phase};

/// Whether a command compares an entry of the journal.
type Compared<'c> = &'c (dyn Fn(&JournalEntry) -> bool + Sync);

impl Session<'_> {
    /// Lists the target, and reports what the source does not have, without the entries that the
    /// command has compared. A listing may be stale, so a name counts only after it is read.
    pub(super) async fn find_unexpected(&self, is_compared: Compared<'_>) -> MigrateResult<()> {
        let listing = self.target.capabilities().listing;
        if !self.options.unexpected || listing == Listing::None || self.tracker.is_stopped() {
            return Ok(());
        }
        self.tracker.began(Phase::List, None);
        let options = ListOptions::default();
        let mut chunks = self
            .target
            .list(&options)
            .try_chunks(self.options.page.get());
        loop {
            let entries = match chunks.try_next().await {
                Ok(Some(entries)) => entries,
                Ok(None) => break,
                Err(error) => return Err(error.1.into()),
            };
            self.still_held().await?;
            self.report_unexpected(&entries, is_compared).await?;
            self.tracker.advanced(Phase::List, entries.len());
        }
        self.tracker.ended(Phase::List);
        Ok(())
    }

    async fn report_unexpected(
        &self,
        entries: &[Entry],
        is_compared: Compared<'_>,
    ) -> MigrateResult<()> {
        let is_candidate = |entry: &&Entry| {
            !entry.pending_deletion
                && !entry.coordinate.is_ephemeral()
                && self.workspaces.have_name(&entry.coordinate)
        };
        let listed = entries.iter().filter(is_candidate);
        let names: Vec<ManagedCoordinate> = listed.map(|entry| entry.coordinate.clone()).collect();
        let known = self.journal.find(&names).await?;
        let unknown: Vec<ManagedCoordinate> = names
            .into_iter()
            .zip(known)
            .filter(|(_, known)| !known.as_ref().is_some_and(is_compared))
            .map(|(name, _)| name)
            .collect();
        let names = coordinates(&unknown);
        let (source, target) =
            futures::join!(self.source.read_many(&names), self.target.read_many(&names));
        for ((name, source), target) in unknown.into_iter().zip(source).zip(target) {
            if let (Side::Gone(_), Side::Has(_)) = (Side::of(source), Side::of(target)) {
                let entry = JournalEntry::new(name);
                self.tracker.compared(&entry, Some(Difference::Unexpected));
            }
        }
        Ok(())
    }
}
