//! Deletes from the target what copy wrote.

use async_trait::async_trait;
use secret_persistence_core::{ErrorKind, ManagedCoordinate, Recovery, SecretPersistenceExt};

use crate::compare::{Pair, Side};
use crate::copy::to;
use crate::hydrate::Store;
use crate::independence::{Deleter, Deletion, Sides};
use crate::scan::coordinates;
use crate::session::{Session, Unit};
use crate::shared::Task;
use crate::{Class, Finding, JournalEntry, MigrateResult, Phase, Select, State, Stop};

impl Session<'_> {
    /// Hydrates every configuration from the source, then deletes from the target the secrets that
    /// have an intent and equal the source at that moment.
    pub(super) async fn rollback(&self) -> MigrateResult<()> {
        if let Some(sharing) = self.journal.sharing() {
            return self.share(sharing, Task::Rollback).await;
        }
        self.prepare_rollback().await?;
        if self.tracker.is_stopped() {
            return Ok(());
        }
        self.each_unit(Phase::Delete, None, &Self::to_roll_back(), &|unit| {
            Box::pin(self.rollback_unit(unit))
        })
        .await?;
        self.look_at_the_last(self.emptying_target()).await
    }

    /// The secrets that may have been written.
    pub(super) fn to_roll_back() -> Select {
        Select::all().with_intent(true)
    }

    /// What has to be true before the first secret is deleted.
    pub(super) async fn prepare_rollback(&self) -> MigrateResult<()> {
        if !self.hydrate(Store::Source).await? {
            self.tracker.stop(Stop::Hydration);
        }
        let proves = !self.options.dry_run && !self.tracker.is_stopped();
        if proves && self.has_any(&Self::to_roll_back()).await? {
            self.prove_independence(self.emptying_target()).await?;
        }
        Ok(())
    }

    pub(super) fn emptying_target(&self) -> Sides<'_> {
        Sides {
            emptied: &*self.target,
            kept: &*self.source,
        }
    }

    pub(super) async fn rollback_unit(&self, mut unit: Unit<'_>) -> MigrateResult<()> {
        let entries = std::mem::take(&mut unit.entries);
        let pairs = self.pairs(entries, None, unit.held.as_deref()).await;
        let mut transitions = self.delete_unit(&Rollback(self), &pairs, &unit).await?;
        if self.target.capabilities().recovery {
            // If the store retains deleted secrets, a copy may restore them, and then they are ours
            // again.
            let names: Vec<ManagedCoordinate> = transitions
                .iter()
                .map(|transition| transition.coordinate.clone())
                .collect();
            let looks = self.target.read_many(&coordinates(&names)).await;
            for (transition, look) in transitions.iter_mut().zip(looks) {
                transition.intent =
                    look.is_err_and(|error| error.kind() == ErrorKind::PendingDeletion);
            }
        }
        self.end_deletes(unit.held.as_deref(), &transitions).await
    }
}

struct Rollback<'a, 's>(&'a Session<'s>);

#[async_trait]
impl Deleter for Rollback<'_, '_> {
    fn sides(&self) -> Sides<'_> {
        self.0.emptying_target()
    }

    fn recovery(&self) -> Recovery {
        Recovery::Immediate
    }

    async fn decide(&self, pair: &Pair) -> Option<Deletion> {
        let session = self.0;
        let (tracker, entry) = (&session.tracker, &pair.entry);
        let stays = Some(Deletion::default());
        if let Some(failure) = pair.failure() {
            tracker.failed(failure);
            return stays;
        }
        if let Side::Gone(error) = &pair.target {
            if session.is_hollow(entry, error).await {
                tracker.tally(|tally| tally.kept += 1);
                tracker.found(kept(entry, HOLLOW));
                return stays;
            }
            // The secret is gone, so it is no longer ours. One that could be restored still is.
            let is_ours = error.kind() == ErrorKind::PendingDeletion;
            let now = (!session.options.dry_run).then(|| to(entry, State::Pending, is_ours));
            return Some(Deletion {
                deleted: false,
                transition: now.filter(|_| !is_ours || entry.state != State::Pending),
            });
        }
        if let Some(difference) = pair.difference() {
            tracker.tally(|tally| tally.kept += 1);
            tracker.found(kept(entry, difference));
            return stays;
        }
        if let Some(reason) = session.left_in(entry) {
            tracker.tally(|tally| tally.kept += 1);
            tracker.found(kept(entry, reason));
            return stays;
        }
        if session.options.dry_run {
            tracker.tally(|tally| tally.deleted += 1);
            return stays;
        }
        None
    }

    fn deleted(&self, pair: &Pair) -> Deletion {
        self.0.tracker.tally(|tally| tally.deleted += 1);
        Deletion {
            deleted: true,
            transition: Some(to(&pair.entry, State::Pending, false)),
        }
    }
}

/// What is left of a secret whose value was destroyed behind its name.
const HOLLOW: &str =
    "its value was destroyed and its name is still taken: delete the secret in the store";

pub(super) fn kept(entry: &JournalEntry, reason: impl Into<String>) -> Finding {
    Finding::of(Class::Kept, entry.coordinate.as_str())
        .in_holder(entry.holder.as_deref())
        .with_detail(reason)
}
