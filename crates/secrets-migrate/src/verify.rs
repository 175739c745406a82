//! Reads everything back.
use secret_persistence_core::SecretPersistenceExt;

use crate::compare::{Pair, Side};
use crate::copy::to;
use crate::hydrate::Store;
use crate::plan::{changed, conflicting};
use crate::session::{Session, Unit};
use crate::shared::Task;
use crate::{Class, Finding, MigrateResult, Phase, Select, State, Stop, Transition};

impl Session<'_> {
    /// The states of secrets that should be in the target. Previous conflicts and interrupted writes
    /// may be resolved now.
    pub(super) const TO_VERIFY: [State; 5] = [
        State::Intent,
        State::Written,
        State::Verified,
        State::Present,
        State::Conflict,
    ];

    /// Compares every secret that should be in the target, then hydrates every configuration from
    /// there. It always runs to the end, so that it reports every problem.
    pub(super) async fn verify(&self) -> MigrateResult<()> {
        if let Some(sharing) = self.journal.sharing() {
            self.share(sharing, Task::Verify).await?;
            return if self.tracker.is_stopped() {
                Ok(())
            } else {
                self.conclude_verify(true).await
            };
        }
        let counts = self.journal.counts().await?;
        let total =
            counts.intent + counts.written + counts.verified + counts.present + counts.conflict;
        let select = Select::all().with_states(&Self::TO_VERIFY);
        self.each_unit(Phase::Compare, Some(total), &select, &|unit| {
            Box::pin(self.verify_unit(unit))
        })
        .await?;
        self.verify_rest().await
    }

    /// What comes after all secrets.
    pub(super) async fn verify_rest(&self) -> MigrateResult<()> {
        self.find_unexpected(&|entry| entry.state != State::Pending)
            .await?;
        if self.tracker.is_stopped() {
            return Ok(());
        }
        let hydrated = self.hydrate(Store::Target).await?;
        if self.tracker.is_stopped() {
            return Ok(());
        }
        self.conclude_verify(hydrated).await
    }

    /// Says why the target is not verified, if it is not.
    async fn conclude_verify(&self, hydrated: bool) -> MigrateResult<()> {
        let states = self.journal.counts().await?;
        // Most severe reason first: a conflict needs investigation, a loss only another copy. Only
        // conflicts found now count, because these are listed.
        self.tracker.note(|report| {
            let stop = if report.count(Class::Conflicting) > 0 {
                Some(Stop::Conflict)
            } else if report.tally.lost > 0 || states.intent > 0 {
                Some(Stop::Unverified)
            } else if hydrated || report.failed == 0 {
                None
            } else {
                Some(Stop::Hydration)
            };
            if report.stopped.is_none() {
                report.stopped = stop;
            }
        });
        Ok(())
    }

    pub(super) async fn verify_unit(&self, unit: Unit<'_>) -> MigrateResult<()> {
        let held = unit.held.clone();
        let held = held.as_deref();
        let pairs = self.settled_pairs(unit).await;
        let mut transitions: Vec<Transition> = Vec::new();
        for pair in &pairs {
            transitions.extend(self.verify_one(pair).await);
            if let Some(held) = held {
                held.progressed();
            }
        }
        if self.options.dry_run {
            return Ok(());
        }
        self.end_unit(held, &transitions).await
    }

    /// Pairs, without counting as lost what the source has deleted at the same time.
    async fn settled_pairs(&self, unit: Unit<'_>) -> Vec<Pair> {
        let held = unit.held.as_deref();
        let mut pairs = self.pairs(unit.entries, Some(&unit.meter), held).await;
        for pair in &mut pairs {
            if matches!((&pair.source, &pair.target), (Side::Has(_), Side::Gone(_))) {
                let again = self
                    .source
                    .read(&pair.entry.coordinate.clone().into())
                    .await;
                pair.source = Side::of(again);
                if let Some(held) = held {
                    held.progressed();
                }
            }
        }
        pairs
    }

    async fn verify_one(&self, pair: &Pair) -> Option<Transition> {
        let (tracker, entry) = (&self.tracker, &pair.entry);
        if let Some(failure) = pair.failure() {
            tracker.failed(failure);
            return None;
        }
        tracker.compared(entry, pair.compared());
        match (&pair.source, &pair.target) {
            // The target has lost it. Its intent stays: if it appears again, it still is ours.
            (Side::Has(_), Side::Gone(error)) => {
                // A writer with a mirror deletes the old version there first, after it saved the row.
                if self
                    .is_mentioned(entry)
                    .await
                    .is_ok_and(|mentioned| !mentioned)
                {
                    tracker.tally(|tally| tally.changed_since += 1);
                    tracker.found(changed(entry));
                    return Some(to(entry, State::Pending, entry.intent));
                }
                if entry.state != State::Intent {
                    tracker.tally(|tally| tally.lost += 1);
                }
                let mut finding = Finding::of(Class::Lost, entry.coordinate.as_str())
                    .in_holder(entry.holder.as_deref())
                    .with_kind(error.kind().as_str());
                if self.is_hollow(entry, error).await {
                    finding = finding.with_detail(
                        "its value was destroyed and its name is still taken: delete the secret in \
                         the target, then copy again",
                    );
                } else if entry.state == State::Intent {
                    finding = finding.with_detail("a copy was stopped before it was written");
                }
                tracker.found(finding);
                // A copy that was stopped stays known until one ends.
                (entry.state != State::Intent).then(|| to(entry, State::Pending, entry.intent))
            }
            (Side::Has(_), _) if pair.is_equal() => {
                tracker.tally(|tally| tally.verified += 1);
                let state = if entry.intent {
                    State::Verified
                } else {
                    State::Present
                };
                (entry.state != state && entry.state != State::Intent)
                    .then(|| to(entry, state, entry.intent))
            }
            (Side::Has(_), _) => {
                tracker.found(conflicting(entry));
                Some(to(entry, State::Conflict, entry.intent))
            }
            // Deleted or retired since. Hydrating shows whether a configuration needs it. A conflict is
            // resolved when the source no longer has the secret.
            _ => {
                tracker.tally(|tally| tally.gone += 1);
                (entry.state == State::Conflict).then(|| to(entry, State::Pending, entry.intent))
            }
        }
    }
}
