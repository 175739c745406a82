//! Copies secrets that are missing in the target.
use futures::future::{BoxFuture, join_all};
use secret_persistence_core::{
    DeleteOptions, ErrorKind, ManagedCoordinate, Recovery, SecretPersistenceExt, SecretValue,
    Write, Written,
};

use crate::compare::{Failed, Step};
use crate::plan::{changed, conflicting, present};
use crate::scan::coordinates;
use crate::session::{Meter, Session, Unit};
use crate::shared::{Held, Task, check};
use crate::{Failure, JournalEntry, MigrateResult, Phase, Select, Shared, State, Transition};

impl Session<'_> {
    /// The states of secrets that a copy has to look at.
    pub(super) const TO_COPY: [State; 3] = [State::Pending, State::Intent, State::Conflict];

    /// Copies every secret that is missing in the target. Nothing is written before all classes
    /// that a scan can find are decided. Classes that only a read can find stop the run when they
    /// occur.
    pub(super) async fn copy(&self) -> MigrateResult<()> {
        if let Some(sharing) = self.journal.sharing() {
            return self.share(sharing, Task::Copy).await;
        }
        if !self.options.dry_run {
            // Before the scan, which would treat them as orphans.
            self.settle_copies().await?;
        }
        let scan = self.scan().await?;
        self.tracker.decide();
        if self.options.decisions.shared == Some(Shared::Unshare) && !self.tracker.is_stopped() {
            self.unshare(scan).await?;
        }
        if self.tracker.is_stopped() {
            return Ok(());
        }
        let counts = self.journal.counts().await?;
        let total = counts.pending + counts.intent + counts.conflict;
        let select = Select::all().with_states(&Self::TO_COPY);
        self.each_unit(Phase::Copy, Some(total), &select, &|unit| {
            Box::pin(self.copy_unit(scan, unit))
        })
        .await?;
        self.tracker.decide();
        Ok(())
    }

    pub(super) async fn copy_unit(&self, scan: u64, unit: Unit<'_>) -> MigrateResult<()> {
        let tracker = &self.tracker;
        // A secret that no configuration mentions any more and whose copy has not begun is not part
        // of the run.
        let Unit {
            entries,
            meter,
            held,
        } = unit;
        let held = held.as_deref();
        let entries: Vec<JournalEntry> = entries
            .into_iter()
            .filter(|entry| entry.scan == scan || entry.intent)
            .collect();
        tracker.tally(|tally| tally.secrets += entries.len() as u64);
        let (mut transitions, mut failed) = (Vec::new(), Vec::new());
        let (mut writes, mut restores, mut withdrawals) = (Vec::new(), Vec::new(), Vec::new());
        let pairs = self.pairs(entries, None, held).await;
        for step in self.steps(scan, pairs, held).await {
            match step {
                Step::Changed(entry) => {
                    tracker.tally(|tally| tally.changed_since += 1);
                    tracker.found(changed(&entry));
                    transitions.extend(given_up(&entry));
                }
                Step::Conflict(entry) => {
                    tracker.found_and_settled(conflicting(&entry));
                    transitions.push(to(&entry, State::Conflict, entry.intent));
                }
                Step::Failed(failure) => failed.push(failure),
                Step::Forgotten(entry) => {
                    tracker.tally(|tally| tally.gone += 1);
                    transitions.extend(given_up(&entry));
                }
                Step::Landed(entry) => {
                    tracker.tally(|tally| tally.resumed += 1);
                    transitions.push(to(&entry, State::Written, true));
                }
                Step::Present(entry) => {
                    tracker.tally(|tally| tally.present += 1);
                    tracker.found(present(&entry));
                    transitions.push(to(&entry, State::Present, false));
                }
                Step::Restore(entry, value) => restores.push((entry, value)),
                Step::Skip(entry, finding) => {
                    transitions.extend(given_up(&entry));
                    if finding.is_none_or(|finding| tracker.found_and_settled(finding)) {
                        tracker.tally(|tally| tally.skipped += 1);
                    }
                }
                Step::Withdraw(entry) => withdrawals.push(entry),
                Step::Write(entry, write) => {
                    if entry.state != State::Intent || !entry.intent {
                        transitions.push(to(&entry, State::Intent, true));
                    }
                    writes.push((entry, write));
                }
            }
        }
        if self.options.dry_run {
            tracker.tally(|tally| {
                tally.written += writes.len() as u64;
                tally.restored += restores.len() as u64;
                tally.withdrawn += withdrawals.len() as u64;
            });
            self.settle_failed(scan, failed, held).await?;
            return Ok(());
        }
        // Durable before the first write: from here on, the journal knows the names whatever
        // happens.
        match held {
            None => self.advance(&transitions).await?,
            Some(held) => held.advance(&transitions).await?,
        }
        let mut transitions = self.write(writes, &meter, held, &mut failed).await?;
        for (entry, value) in restores {
            check(held).await?;
            transitions.extend(self.restore(&entry, &value, &mut failed).await);
        }
        for entry in withdrawals {
            check(held).await?;
            transitions.extend(self.withdraw(&entry.coordinate).await);
        }
        check(held).await?;
        transitions.extend(self.settle_failed(scan, failed, held).await?);
        self.end_unit(held, &transitions).await
    }

    /// Writes, then checks again that the source still has the secret.
    async fn write(
        &self,
        writes: Vec<(JournalEntry, Write)>,
        meter: &Meter<'_>,
        held: Option<&Held<'_>>,
        failed: &mut Vec<Failed>,
    ) -> MigrateResult<Vec<Transition>> {
        let tracker = &self.tracker;
        let (entries, writes): (Vec<JournalEntry>, Vec<Write>) = writes.into_iter().unzip();
        let results = self.write_counting(&writes, meter, held).await?;
        drop(writes);
        let mut transitions = Vec::new();
        let mut written = Vec::new();
        for (entry, result) in entries.into_iter().zip(results) {
            match result {
                Ok(_) => written.push(entry),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    tracker.found_and_settled(conflicting(&entry));
                    // The existing value is not ours, whatever we intended to write.
                    transitions.push(to(&entry, State::Conflict, entry.intent));
                }
                // Whether it was written is unknown, so the intent stays.
                Err(error) => failed.push(Failed {
                    failure: Failure::of(&error),
                    entry: entry.intended(),
                }),
            }
        }
        let names: Vec<ManagedCoordinate> = written
            .iter()
            .map(|entry| entry.coordinate.clone())
            .collect();
        let looks = self.source.read_many(&coordinates(&names)).await;
        for (entry, look) in written.into_iter().zip(looks) {
            match look.map_err(|error| (error.kind(), error)) {
                Ok(_) => {
                    tracker.tally(|tally| tally.written += 1);
                    transitions.push(to(&entry, State::Written, true));
                }
                Err((kind, _)) if kind.is_gone() => {
                    check(held).await?;
                    transitions.extend(self.withdraw(&entry.coordinate).await);
                }
                // The intent stays, so the next start checks again.
                Err((_, error)) => failed.push(Failed {
                    failure: Failure::of(&error),
                    entry: entry.intended(),
                }),
            }
        }
        Ok(transitions)
    }

    /// Writes in batches of the store's size and reports each as progress. The store's limit bounds the
    /// requests in flight.
    async fn write_counting(
        &self,
        writes: &[Write],
        meter: &Meter<'_>,
        held: Option<&Held<'_>>,
    ) -> MigrateResult<Vec<secret_persistence_core::Result<Written>>> {
        let batch = self.target.capabilities().write_batch.max(1);
        let mut chunks: Vec<BoxFuture<'_, MigrateResult<Vec<_>>>> =
            Vec::with_capacity(writes.len().div_ceil(batch));
        for chunk in writes.chunks(batch) {
            chunks.push(Box::pin(async move {
                check(held).await?;
                let results = self.target.write_many(chunk).await;
                meter.passed(chunk.len());
                if let Some(held) = held {
                    held.progressed();
                }
                Ok(results)
            }));
        }
        let mut results = Vec::with_capacity(writes.len());
        for chunk in join_all(chunks).await {
            results.extend(chunk?);
        }
        Ok(results)
    }

    /// Deletes from the target what the source deleted during the copy. The intent stays, so that
    /// the next start finds a write that is still in flight.
    async fn withdraw(&self, coordinate: &ManagedCoordinate) -> Option<Transition> {
        if self.is_left(coordinate) {
            return Some(Transition::new(coordinate.clone(), State::Written, true));
        }
        let at_once = DeleteOptions::default().with_recovery(Recovery::Immediate);
        if let Err(error) = self.target.delete(coordinate, &at_once).await {
            // A service with a mirror may delete it in the same moment, and some stores then refuse
            // the second delete.
            let look = self.target.read(&coordinate.clone().into()).await;
            if !look.is_err_and(|error| error.kind().is_gone()) {
                self.tracker.failed(Failure::of(&error));
                return None;
            }
        }
        self.tracker.tally(|tally| tally.withdrawn += 1);
        Some(Transition::new(coordinate.clone(), State::Pending, true))
    }

    /// Restores a secret that the target has scheduled for deletion. It existed before, so it gets
    /// no intent. If it turns out to have another value, it is scheduled for deletion again.
    async fn restore(
        &self,
        entry: &JournalEntry,
        value: &SecretValue,
        failed: &mut Vec<Failed>,
    ) -> Option<Transition> {
        let tracker = &self.tracker;
        let coordinate = &entry.coordinate;
        let restored = match self.target.restore(coordinate).await {
            Ok(()) => self.target.read(&coordinate.clone().into()).await,
            Err(error) => Err(error),
        };
        match restored {
            Err(error) => {
                failed.push(Failed {
                    failure: Failure::of(&error),
                    entry: entry.clone(),
                });
                None
            }
            Ok(read) if read.value == *value => {
                tracker.tally(|tally| tally.restored += 1);
                let state = if entry.intent {
                    State::Written
                } else {
                    State::Present
                };
                Some(to(entry, state, entry.intent))
            }
            Ok(_) => {
                tracker.found_and_settled(conflicting(entry));
                if let Err(error) = self
                    .target
                    .delete(coordinate, &DeleteOptions::default())
                    .await
                {
                    tracker.failed(Failure::of(&error));
                }
                Some(to(entry, State::Conflict, entry.intent))
            }
        }
    }

    /// Counts the failures, without those of secrets that the source does not have any more and no
    /// configuration needs: a service has deleted them meanwhile. What was or may have been written
    /// of these is deleted from the target.
    async fn settle_failed(
        &self,
        scan: u64,
        failed: Vec<Failed>,
        held: Option<&Held<'_>>,
    ) -> MigrateResult<Vec<Transition>> {
        let tracker = &self.tracker;
        let names: Vec<ManagedCoordinate> = failed
            .iter()
            .map(|failed| failed.entry.coordinate.clone())
            .collect();
        let looks = self.source.read_many(&coordinates(&names)).await;
        let mut transitions = Vec::new();
        for (Failed { entry, failure }, look) in failed.into_iter().zip(looks) {
            if !look.is_err_and(|error| error.kind().is_gone()) {
                tracker.failed(failure);
                continue;
            }
            let was_mentioned = self.was_mentioned(scan, &entry);
            // It is read again, once: after the source has lost the secret, the row says whether
            // that was a service or a mistake.
            let is_needed = was_mentioned
                && !self
                    .is_mentioned(&entry)
                    .await
                    .is_ok_and(|mentioned| !mentioned);
            if is_needed {
                tracker.failed(failure);
            } else if entry.intent && !self.options.dry_run {
                check(held).await?;
                transitions.extend(self.withdraw(&entry.coordinate).await);
            } else if was_mentioned {
                tracker.tally(|tally| tally.changed_since += 1);
                tracker.found(changed(&entry));
            } else {
                tracker.tally(|tally| tally.gone += 1);
            }
        }
        Ok(transitions)
    }

    pub(super) async fn advance(&self, transitions: &[Transition]) -> MigrateResult<()> {
        if transitions.is_empty() {
            return Ok(());
        }
        self.journal.advance(transitions).await
    }
}

impl JournalEntry {
    /// The entry as the journal has it since the write was begun.
    fn intended(mut self) -> Self {
        (self.state, self.intent) = (State::Intent, true);
        self
    }
}

/// A write that a killed run intended and this run does not make is no longer in flight. If it
/// arrives anyway, it still is ours.
fn given_up(entry: &JournalEntry) -> Option<Transition> {
    (entry.state == State::Intent).then(|| to(entry, State::Pending, entry.intent))
}

pub(super) fn to(entry: &JournalEntry, state: State, intent: bool) -> Transition {
    Transition::new(entry.coordinate.clone(), state, intent)
}
