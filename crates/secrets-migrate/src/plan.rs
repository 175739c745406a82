//! Reads everything and changes nothing.
use crate::compare::Step;
use crate::session::{Session, Unit};
use crate::{Class, Finding, JournalEntry, MigrateResult, Phase, Select};

impl Session<'_> {
    /// Reads all configurations and all their secrets on both sides, and reports what needs a
    /// decision.
    pub(super) async fn plan(&self) -> MigrateResult<()> {
        let scan = self.scan().await?;
        let select = Select::all().with_scan(scan);
        self.each_unit(Phase::Compare, None, &select, &|unit| {
            Box::pin(self.plan_unit(scan, unit))
        })
        .await?;
        self.find_unexpected(&|entry| entry.scan == scan).await?;
        self.tracker.decide();
        Ok(())
    }

    async fn plan_unit(&self, scan: u64, unit: Unit<'_>) -> MigrateResult<()> {
        let tracker = &self.tracker;
        let Unit { entries, meter, .. } = unit;
        tracker.tally(|tally| tally.secrets += entries.len() as u64);
        let pairs = self.pairs(entries, Some(&meter), None).await;
        for pair in &pairs {
            tracker.compared(&pair.entry, pair.compared());
        }
        for step in self.steps(scan, pairs, None).await {
            match step {
                Step::Changed(entry) => {
                    tracker.tally(|tally| tally.changed_since += 1);
                    tracker.found(changed(&entry));
                }
                Step::Conflict(entry) => tracker.found(conflicting(&entry)),
                Step::Failed(failed) => tracker.failed(failed.failure),
                Step::Forgotten(_) | Step::Withdraw(_) => tracker.tally(|tally| tally.gone += 1),
                Step::Landed(_) => tracker.tally(|tally| tally.resumed += 1),
                Step::Present(entry) => {
                    tracker.tally(|tally| tally.present += 1);
                    tracker.found(present(&entry));
                }
                Step::Restore(entry, _) => {
                    tracker.tally(|tally| tally.restored += 1);
                    tracker.found(
                        Finding::of(Class::PendingDeletion, entry.coordinate.as_str())
                            .in_holder(entry.holder.as_deref()),
                    );
                }
                Step::Skip(_, finding) => {
                    tracker.tally(|tally| tally.skipped += 1);
                    if let Some(finding) = finding {
                        tracker.found(finding);
                    }
                }
                Step::Write(..) => tracker.tally(|tally| tally.written += 1),
            }
        }
        Ok(())
    }
}

pub(super) fn conflicting(entry: &JournalEntry) -> Finding {
    Finding::of(Class::Conflicting, entry.coordinate.as_str())
        .in_holder(entry.holder.as_deref())
        .with_detail("the target has another value under this name, which stays unchanged")
}

pub(super) fn changed(entry: &JournalEntry) -> Finding {
    Finding::of(Class::Changed, entry.coordinate.as_str())
        .in_holder(entry.holder.as_deref())
        .with_detail("the configuration has changed since it was read")
}

pub(super) fn present(entry: &JournalEntry) -> Finding {
    Finding::of(Class::Present, entry.coordinate.as_str()).in_holder(entry.holder.as_deref())
}
