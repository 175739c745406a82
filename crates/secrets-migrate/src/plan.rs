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
        self.ledger.decide();
        Ok(())
    }

    async fn plan_unit(&self, scan: u64, unit: Unit<'_>) -> MigrateResult<()> {
        let ledger = &self.ledger;
        let Unit { entries, meter, .. } = unit;
        ledger.tally(|tally| tally.secrets += entries.len() as u64);
        let pairs = self.pairs(entries, Some(&meter), None).await;
        for pair in &pairs {
            ledger.compared(&pair.entry, pair.compared());
        }
        for step in self.steps(scan, pairs, None).await {
            match step {
                Step::Changed(entry) => {
                    ledger.tally(|tally| tally.changed_since += 1);
                    ledger.found(changed(&entry));
                }
                Step::Conflict(entry) => ledger.found(conflicting(&entry)),
                Step::Failed(failed) => ledger.failed(failed.failure),
                Step::Forgotten(_) | Step::Withdraw(_) => ledger.tally(|tally| tally.gone += 1),
                Step::Landed(_) => ledger.tally(|tally| tally.resumed += 1),
                Step::Present(entry) => {
                    ledger.tally(|tally| tally.present += 1);
                    ledger.found(present(&entry));
                }
                Step::Restore(entry, _) => {
                    ledger.tally(|tally| tally.restored += 1);
                    ledger.found(
                        Finding::of(Class::PendingDeletion, entry.coordinate.as_str())
                            .in_holder(entry.holder.as_deref()),
                    );
                }
                Step::Skip(_, finding) => {
                    ledger.tally(|tally| tally.skipped += 1);
                    if let Some(finding) = finding {
                        ledger.found(finding);
                    }
                }
                Step::Write(..) => ledger.tally(|tally| tally.written += 1),
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
