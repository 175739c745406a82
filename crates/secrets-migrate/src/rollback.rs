//! Takes back what was written to the target.
use futures::future::{BoxFuture, join_all};
use secret_persistence_core::{DeleteOptions, Recovery};

use crate::compare::{Pair, Side};
use crate::copy::to;
use crate::hydrate::Store;
use crate::session::Session;
use crate::{
    Class, Failure, Finding, JournalEntry, MigrateResult, Phase, Select, State, Stop, Transition,
};

impl Session<'_> {
    /// Hydrates every configuration from the source, then deletes from the target what has an intent
    /// and equals the source at that moment.
    pub(super) async fn rollback(&self) -> MigrateResult<()> {
        if !self.hydrate(Store::Source).await? {
            self.ledger.stop(Stop::Hydration);
        }
        if self.ledger.is_stopped() {
            return Ok(());
        }
        let select = Select::all().with_intent(true);
        self.each_unit(Phase::Delete, None, &select, &|entries| {
            Box::pin(self.rollback_unit(entries))
        })
        .await
    }

    async fn rollback_unit(&self, entries: Vec<JournalEntry>) -> MigrateResult<()> {
        let pairs = self.pairs(entries).await;
        // As many at once as the store takes.
        let mut deletions: Vec<BoxFuture<'_, Option<Transition>>> = Vec::with_capacity(pairs.len());
        for pair in &pairs {
            deletions.push(Box::pin(self.rollback_one(pair)));
        }
        let transitions = join_all(deletions).await;
        let transitions: Vec<Transition> = transitions.into_iter().flatten().collect();
        self.advance(&transitions).await
    }

    async fn rollback_one(&self, pair: &Pair) -> Option<Transition> {
        let (ledger, entry) = (&self.ledger, &pair.entry);
        if let Some(failure) = pair.failure() {
            ledger.failed(failure);
            return None;
        }
        if matches!(pair.target, Side::Gone(_)) {
            // Nothing is there any more, so nothing is ours.
            return (!self.options.dry_run).then(|| to(entry, State::Pending, false));
        }
        if !pair.is_equal() {
            ledger.tally(|tally| tally.kept += 1);
            ledger.found(kept(entry, "the source has not got the same value now"));
            return None;
        }
        if self.options.dry_run {
            ledger.tally(|tally| tally.deleted += 1);
            return None;
        }
        let at_once = DeleteOptions::default().with_recovery(Recovery::Immediate);
        match self.target.delete(&entry.coordinate, &at_once).await {
            Ok(()) => {
                ledger.tally(|tally| tally.deleted += 1);
                Some(to(entry, State::Pending, false))
            }
            Err(error) => {
                ledger.failed(Failure::of(&error));
                None
            }
        }
    }
}

pub(super) fn kept(entry: &JournalEntry, reason: &'static str) -> Finding {
    Finding::of(Class::Kept, entry.coordinate.as_str())
        .in_holder(entry.holder.as_deref())
        .with_detail(reason)
}
