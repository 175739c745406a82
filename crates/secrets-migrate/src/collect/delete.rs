//! What goes, and what is told of it.
use std::num::NonZeroUsize;

use futures::{StreamExt as _, stream};
use secret_persistence_core::{
    DeleteOptions, ManagedCoordinate, SecretPersistenceExt as _, Timestamp,
};

use super::journal::Seen;
use super::report::{CollectStop, Fate, Reason, Superfluous};
use super::{Each, LEAST_GRACE, Run};
use crate::shared::check;
use crate::{Failure, MigrateResult};

impl Run<'_> {
    /// Until when a secret must have been seen unreferenced, so that it goes now.
    pub(super) fn until(&self) -> Timestamp {
        let rules = &self.collect.rules;
        let wait = rules.grace.max(rules.retention.unwrap_or_default());
        self.began.saturating_sub(wait)
    }

    /// Stops if more would go than is allowed.
    pub(super) async fn check_share(&mut self, until: Timestamp) -> MigrateResult<()> {
        let due = self.collect.journal.due(&self.memory, until).await?;
        let share = u128::from(self.report.owned) * u128::from(self.collect.rules.most_percent);
        if u128::from(due) * 100 > share {
            self.stop(CollectStop::Share);
        }
        Ok(())
    }

    /// Deletes what is due, page by page, and tells of everything.
    pub(super) async fn finish(&mut self, each: Each<'_>) -> MigrateResult<()> {
        let collect = self.collect;
        let until = self.until();
        self.check_share(until).await?;
        let deletes = !self.report.dry_run && self.report.stopped.is_none();
        let mut after = None;
        loop {
            if self.is_cancelled() {
                return Ok(());
            }
            if deletes && !self.read_again_if_old().await? {
                return Ok(());
            }
            let limit = collect.options.page.get();
            let page = collect.journal.page(&self.memory, after.as_ref(), limit);
            let page = page.await?;
            let is_last = page.len() < limit;
            after = page.last().map(|seen| seen.listed.coordinate.clone());
            let mut told = told(page, until);
            let (gone, ended) = match deletes {
                true => self.delete(&mut told).await,
                false => (Vec::new(), Ok(())),
            };
            self.tell(&told, each);
            // Last: what is deleted is told even if the journal fails now.
            collect.journal.forget(&self.memory, &gone).await?;
            ended?;
            if self.has_failed() {
                return Ok(());
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Reads the configurations again once the reading is so old that they may name what is about to go: after
    /// a long wait for the store, or a suspended machine. Whether something may still go.
    async fn read_again_if_old(&mut self) -> MigrateResult<bool> {
        let now = (self.collect.clock)();
        if now <= self.read_at.saturating_add(LEAST_GRACE) {
            return Ok(true);
        }
        self.report.names = 0;
        self.read().await?;
        if self.report.unreadable > 0 {
            self.stop(CollectStop::Unreadable);
        }
        Ok(self.report.stopped.is_none())
    }

    /// Deletes what is due, and returns what is deleted, and why the rest still is due.
    ///
    /// No request begins when the page may be another process's, and each one that returns is progress.
    pub(super) async fn delete(
        &mut self,
        told: &mut [Told],
    ) -> (Vec<ManagedCoordinate>, MigrateResult<()>) {
        let due: Vec<ManagedCoordinate> = told
            .iter()
            .filter(|told| told.1.fate == Fate::Due)
            .map(|told| told.0.clone())
            .collect();
        let options = &DeleteOptions::default().with_recovery(self.collect.options.recovery);
        let capabilities = self.store.capabilities();
        let most = self.collect.options.concurrency;
        let most = most.map_or(capabilities.concurrency, NonZeroUsize::get);
        let (store, held) = (&self.store, self.held.as_deref());
        let deletes: Vec<_> = due
            .chunks(capabilities.delete_batch.max(1))
            .enumerate()
            .map(|(at, names)| async move {
                if let Err(error) = check(held).await {
                    return (at, names.len(), Err(error));
                }
                let results = store.delete_many(names, options).await;
                if let Some(held) = held {
                    held.progressed();
                }
                (at, names.len(), Ok(results))
            })
            .collect();
        let mut answers: Vec<_> = stream::iter(deletes)
            .buffer_unordered(most.max(1))
            .collect()
            .await;
        answers.sort_unstable_by_key(|(at, ..)| *at);
        let (mut gone, mut ended) = (Vec::new(), Ok(()));
        let mut going = told.iter_mut().filter(|told| told.1.fate == Fate::Due);
        for (_, count, answer) in answers {
            let these = going.by_ref().take(count);
            match answer {
                Err(error) => {
                    these.for_each(drop);
                    ended = ended.and(Err(error));
                }
                Ok(results) => {
                    for (told, result) in these.zip(results) {
                        match result {
                            Ok(()) => {
                                told.1.fate = Fate::Deleted;
                                gone.push(told.0.clone());
                            }
                            Err(error) => {
                                told.1.fate = Fate::Failed;
                                self.report.failed += 1;
                                self.note(Failure::of(&error));
                            }
                        }
                    }
                }
            }
        }
        self.report.deleted += gone.len() as u64;
        (gone, ended)
    }

    /// Counts secrets, and tells each of them.
    pub(super) fn tell(&mut self, told: &[Told], each: Each<'_>) {
        for (_, told) in told {
            let report = &mut self.report;
            match (told.reason, told.fate) {
                (_, Fate::Waiting) => report.waiting += 1,
                (Reason::Ephemeral, _) => report.ephemeral += 1,
                (Reason::Expired, _) => report.expired += 1,
                (Reason::Orphaned, _) => report.orphaned += 1,
                (Reason::Undated, _) => report.undated += 1,
                (Reason::Unowned, _) => report.unowned += 1,
            }
            each(told);
        }
    }

    /// Whether so many deletes failed that the run stops.
    pub(super) fn has_failed(&mut self) -> bool {
        let has_failed = self.report.failed >= self.collect.options.max_failures.get() as u64;
        if has_failed {
            self.stop(CollectStop::Failures);
        }
        has_failed
    }
}

/// A secret, and what is told of it.
pub(super) type Told = (ManagedCoordinate, Superfluous);

/// What becomes of secrets that no configuration names.
pub(super) fn told(page: Vec<Seen>, until: Timestamp) -> Vec<Told> {
    let told = page.into_iter().map(|Seen { listed, since }| {
        let fate = match listed.reason {
            Reason::Undated | Reason::Unowned => Fate::Kept,
            Reason::Orphaned if since > until => Fate::Waiting,
            Reason::Ephemeral | Reason::Expired | Reason::Orphaned => Fate::Due,
        };
        let told = Superfluous {
            coordinate: listed.coordinate.as_str().to_owned(),
            reason: listed.reason,
            fate,
            created: listed.created,
            since,
        };
        (listed.coordinate, told)
    });
    told.collect()
}
